"""Style of all figures, and figures of panels: together in a PNG, or each panel alone as SVG for an HTML page."""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter, MaxNLocator

from rlsnet.errors import UserError
from rlsnet.io import atomic, outputs

# Colour is the condition; the style of a line tells data from model. What has no condition is drawn in shades of grey and teal.
INK, SOFT, FAINT = "#2b2f36", "#767d87", "#c9cdd2"
CONDITIONS = ("#2166ac", "#d1362f", "#1b8f5a", "#e09f1f", "#7b4ea3", "#56b4e9", "#b5651d", "#d678b0")
EXC, INH = "#4a5058", "#17a2a2"  # classes of neurons
DATA, MODEL = "#8a9099", "#2b2f36"  # where neither condition nor class is drawn
DATA_LINE: dict[str, Any] = {"ls": "-", "lw": 1.3}
MODEL_LINE: dict[str, Any] = {"ls": (0, (3.2, 1.3)), "lw": 1.3}
BASELINE_LINE: dict[str, Any] = {"ls": (0, (1, 1.4)), "lw": 1.1}
BAND_ALPHA = 0.18
WIDTH = 7.2  # inches: two columns of a journal, in which a figure is printed with letters of 6.5 pt and more
SMALL = 6.5  # pt, the smallest letters
LEAST_EXPLAINED = -0.5  # lowest explained variance of an axis
LEGEND_SIZE = 7.0  # pt
TITLE_SIZE = 8.5  # pt, of the title of a figure
LEAST_ROOM = 0.5  # inches, of titles and labels
TITLE_GAP = 0.06  # inches, between a title and the panel on its right
LINE_HEIGHT = 0.15  # inches, of titles and legends
LEGEND_WIDTH = 2.6  # inches, of a legend alone, as on a phone, unless one label is longer
SVG_IMAGE_DPI = 150  # of heatmaps and other images within an SVG: the resolution of a panel at its widest
PNG_DPI = 200
EVENT = "_event"  # mark of the names of events
MARKED_FIELD = {"png": "Software", "pdf": "Creator", "svg": "Creator"}  # formats of files, and the field that names the program
STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.titlesize": 7.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "font.size": 7.5,
    "pdf.fonttype": 42,  # letters that a program for drawings can change
    "text.parse_math": False,  # a name of the user's with two $ is no formula
    "legend.frameon": False,
    "legend.fontsize": LEGEND_SIZE,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color"), INK),
}
HEAT = matplotlib.colormaps["viridis"].with_extremes(bad="#bbbbbb")
DIFFERENCE = LinearSegmentedColormap.from_list("difference", [CONDITIONS[0], "#ffffff", CONDITIONS[1]]).with_extremes(bad="#bbbbbb")
ABOVE = LinearSegmentedColormap.from_list("above", ["#fbe9e7", CONDITIONS[1]]).with_extremes(bad="#bbbbbb")  # of values above 0 alone
BELOW = LinearSegmentedColormap.from_list("below", [CONDITIONS[0], "#e3edf6"]).with_extremes(bad="#bbbbbb")
GREYS = LinearSegmentedColormap.from_list("greys", ["#f7f7f7", INK]).with_extremes(bad="#bbbbbb")
RESIDUAL = matplotlib.colormaps["PRGn_r"].with_extremes(bad="#bbbbbb")  # of model minus data; DIFFERENCE is of two conditions
DENSITY = ListedColormap([(*to_rgb(MODEL), alpha) for alpha in np.linspace(0.15, 1, 64)], "density")


def condition_colours(n: int) -> list[str]:
    """A colour for each of n conditions that colour-blind readers can tell apart; of more than eight, in an order from dark to light."""
    if n <= len(CONDITIONS):
        return list(CONDITIONS[:n])
    return [to_hex(matplotlib.colormaps["plasma"](place)) for place in np.linspace(0, 0.92, n)]


def condition_handles(names: Sequence[str], chosen: Iterable[int] | None = None) -> list[Line2D]:
    """Entries of a legend for the colours of conditions, none for a single one.

    Args:
      names: of all conditions.
      chosen: numbers of those that are drawn; None: all. Of more than eight, the first and the last are named.
    """
    colours, shown = condition_colours(len(names)), list(range(len(names)) if chosen is None else map(int, chosen))
    shown = shown if len(shown) <= len(CONDITIONS) else [shown[0], shown[-1]]
    return [Line2D([], [], color=colours[c], lw=2.2, label=condition_label(names[c])) for c in shown] if len(names) > 1 else []


def condition_label(name: str) -> str:
    """A condition in a legend: its name, with the word before a number."""
    return f"condition {name}" if name.isdigit() else name


def style_handles(data: str = "data", model: str = "model", conditions: int = 2) -> list[Line2D]:
    """Entries of a legend for the lines of data and model; of a single condition, in its colour."""
    colour = INK if conditions > 1 else CONDITIONS[0]
    return [Line2D([], [], color=colour, label=data, **DATA_LINE), Line2D([], [], color=colour, label=model, **MODEL_LINE)]


def band_handle(label: str = "standard error over trials") -> Rectangle:
    """Entry of a legend for the bands of `draw_mean`."""
    return Rectangle((0, 0), 1, 1, color=INK, alpha=BAND_ALPHA, lw=0, label=label)


def draw_identity(axis: Any, low: float, high: float) -> None:
    """Draws the line on which both axes are equal, with an entry for a legend."""
    axis.plot((low, high), (low, high), color=SOFT, lw=0.9, label="identity")


def draw_mean(
    axis: Any, x: np.ndarray, mean: np.ndarray, spread: np.ndarray | None, colour: str, line: Mapping[str, Any], label: str | None = None
) -> None:
    """Draws a mean [M] over x [M] and, unless it is None, a band of +/- `spread` [M] such as its standard error."""
    axis.plot(x, mean, color=colour, label=label, **line)
    if spread is not None:
        axis.fill_between(x, mean - spread, mean + spread, color=colour, alpha=BAND_ALPHA, lw=0)


@dataclasses.dataclass(frozen=True)
class Panel:
    """Panel of a figure.

    label: description for readers who cannot see it.
    draw: called with the axes of the panel, one below the other.
    """

    label: str
    draw: Callable[[Sequence[Any]], None]


@dataclasses.dataclass(frozen=True)
class PanelFigure:
    """Figure of panels of one size.

    title: shown above it in a report.
    panels: in order, by rows.
    size: width and height of a panel, inches.
    stacked: number of axes in a panel.
    columns: number of panels in a row.
    handles: entries of a legend shared by all panels.
    heights: of the axes of a panel, relative to each other; (): equal.
    """

    title: str
    panels: tuple[Panel, ...]
    size: tuple[float, float] = (3.6, 2.6)
    stacked: int = 1
    columns: int = 2
    handles: tuple[Any, ...] = ()
    heights: tuple[float, ...] = ()

    @property
    def _heights(self) -> list[float]:
        return list(self.heights or (1.0,) * self.stacked)

    def _new_figure(self, width: float, height: float, whole: bool = True) -> Figure:
        """A figure for panels of that size together, inches; if it is `whole`, with the title and the shared legend above them."""
        bold = FontProperties(size=TITLE_SIZE, weight="bold")
        lines = wrapped(self.title, width - 0.12, bold).split("\n") if whole else []
        columns, rows = self._legend(width) if whole else (0, 0)
        above = LINE_HEIGHT * (len(lines) + rows) + 0.06
        layout = ConstrainedLayoutEngine(rect=(0, 0, 1, height / (height + above)))
        figure = Figure(figsize=(width, height + above), layout=layout)
        FigureCanvasAgg(figure)
        top = 1 - 0.03 / (height + above)
        figure.text(0.06 / width, top, "\n".join(lines), va="top", fontproperties=bold, linespacing=1.1)
        if rows:
            place = (0.02 / width, 1 - (LINE_HEIGHT * len(lines) + 0.02) / (height + above))
            figure.legend(handles=self.handles, loc="upper left", bbox_to_anchor=place, ncols=columns, borderaxespad=0, handlelength=1.8)
        return figure

    def _legend(self, width: float) -> tuple[int, int]:
        """(columns, rows) of the shared legend in a width, inches."""
        if not self.handles:
            return 0, 0
        columns = min(len(self.handles), max(1, int(width / (0.52 + self._longest_label()))))
        return columns, -(-len(self.handles) // columns)

    def _longest_label(self) -> float:
        """Width of the longest label of the shared legend, inches."""
        font = FontProperties(size=LEGEND_SIZE)
        return max(text_width(str(handle.get_label()), font) for handle in self.handles)

    def compose(self) -> Figure:
        """All panels in one figure, below its title and the shared legend."""
        with matplotlib.rc_context(STYLE):
            columns = min(self.columns, len(self.panels))
            rows = -(-len(self.panels) // columns)
            figure = self._new_figure(self.size[0] * columns, self.size[1] * rows)
            axes = figure.subplots(rows * self.stacked, columns, squeeze=False, height_ratios=self._heights * rows)
            for place in range(rows * columns):
                row, column = divmod(place, columns)
                mine = axes[row * self.stacked : (row + 1) * self.stacked, column]
                if place < len(self.panels):
                    self.panels[place].draw(list(mine))
                else:
                    for axis in mine:
                        axis.set_visible(False)
            _write_powers_plainly(figure.axes)
            fit_texts(figure)
        return figure

    def compose_panel(self, panel: Panel) -> Figure:
        """One panel alone, without the title and the shared legend."""
        with self._svg_style():
            figure = self._new_figure(*self.size, whole=False)
            panel.draw(list(figure.subplots(self.stacked, 1, squeeze=False, height_ratios=self._heights)[:, 0]))
            _write_powers_plainly(figure.axes)
            fit_texts(figure)
        return figure

    def draw_on(self, axes: Any) -> Figure:
        """Draws on axes of the user's figure, with the user's settings of Matplotlib, and returns that figure.

        Args:
          axes: Matplotlib axes, or an array, sequence or dictionary of them: those of all panels in order, or of the first panels.

        Raises:
          UserError: their number is not that of whole panels, or they belong to several figures.
        """
        given = list(axes.values() if isinstance(axes, Mapping) else np.ravel(np.asarray(axes, dtype=object)))
        if not all(isinstance(axis, Axes) for axis in given):
            raise UserError("axes: expected Matplotlib axes, or a sequence or array of them, as of pyplot.subplots.")
        panels, rest = divmod(len(given), self.stacked)
        if not given or rest or panels > len(self.panels):
            each = f"{len(self.panels)} panels of {self.stacked} axes each" if self.stacked > 1 else f"{len(self.panels)} axes"
            raise UserError(f"axes: {len(given)} given; the figure {self.title!r} has {each}, of which the first ones may be given alone.")
        figure = given[0].figure
        if any(axis.figure is not figure for axis in given):
            raise UserError("axes: belong to several figures; expected those of one figure.")
        for place, panel in enumerate(self.panels[:panels]):
            panel.draw(given[place * self.stacked : (place + 1) * self.stacked])
        if self.handles:
            given[0].legend(handles=list(self.handles))
        _write_powers_plainly(given)
        return cast(Figure, figure)

    def save(self, path: Path, dpi: float = PNG_DPI) -> None:
        """Writes all panels to one file: PNG, or PDF or SVG with letters as text, by the end of its name; dpi of what has pixels."""
        kind = path.suffix[1:]
        with matplotlib.rc_context({**STYLE, "svg.fonttype": "none", "svg.hashsalt": self.title}):
            figure = self.compose()
            with atomic.replacing(path) as temporary:
                figure.savefig(temporary, format=kind, dpi=dpi, metadata={MARKED_FIELD[kind]: "rlsnet"})
                if kind == "pdf":
                    with temporary.open("ab") as file:
                        file.write(outputs.PDF + b"\n")

    def panel_svg(self, panel: Panel) -> str:
        """One panel as an SVG document with a transparent background."""
        with self._svg_style():
            return _svg(self.compose_panel(panel))

    def legend_svg(self) -> tuple[str, tuple[float, float]] | None:
        """The shared legend as an SVG document, and its width and height in inches, for a narrow page; None without one."""
        columns, rows = self._legend(LEGEND_WIDTH)
        if not rows:
            return None
        size = (max(LEGEND_WIDTH, 0.55 + self._longest_label()), LINE_HEIGHT * rows + 0.08)
        with self._svg_style():
            figure = Figure(figsize=size)
            FigureCanvasAgg(figure)
            figure.legend(handles=self.handles, loc="upper left", ncols=columns, borderaxespad=0.2, handlelength=1.8)
            return _svg(figure), size

    def _svg_style(self) -> AbstractContextManager[None]:
        """The style, with letters as paths, and ids that are the same each time."""
        return matplotlib.rc_context({**STYLE, "svg.fonttype": "path", "svg.hashsalt": self.title})


def _svg(figure: Figure) -> str:
    """A figure as an SVG document with a transparent background."""
    buffer = io.StringIO()
    without_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", dpi=SVG_IMAGE_DPI, transparent=True, metadata=without_metadata)
    return buffer.getvalue()


@functools.cache
def _renderer(dpi: float) -> Any:
    """A renderer that measures text."""
    return FigureCanvasAgg(Figure(dpi=dpi)).get_renderer()


def text_width(text: str, font: FontProperties) -> float:
    """Width of a line of text, inches: the larger one of files and of a screen, where letters are moved to whole pixels."""
    return max(float(_renderer(dpi).get_text_width_height_descent(text, font, ismath=False)[0]) / dpi for dpi in (100.0, PNG_DPI))


def wrapped(text: str, width: float, font: FontProperties) -> str:
    """A text with line ends where it would be wider than `width` inches, between words or, in a word that is wider, within it."""
    lines = []
    for given in text.split("\n"):
        line = ""
        for word in given.split(" "):
            rest = f"{line} {word}" if line else word
            if line and text_width(rest, font) > width:
                lines.append(line)
                rest = word
            while len(rest) > 1 and text_width(rest, font) > width:
                most = next((n for n in range(len(rest) - 1, 1, -1) if text_width(rest[:n], font) <= width), 1)
                lines.append(rest[:most])
                rest = rest[most:]
            line = rest
        lines.append(line)
    return "\n".join(lines)


def fit_texts(figure: Figure) -> None:
    """Wraps titles and labels of axes, and moves names of events, so that none reaches into the next panel or beyond the figure."""
    layout, (width, height) = figure.get_layout_engine(), figure.get_size_inches()
    drawn = [axis for axis in figure.axes if axis.get_visible()]

    def arrange() -> None:
        """Gives the axes their places."""
        if layout is not None:
            layout.execute(figure)

    def fit(text: Text, room: float) -> bool:
        """Wraps a text where it is wider than the room, inches; whether it was."""
        before = text.get_text()
        text.set_text(wrapped(before, max(LEAST_ROOM, room), text.get_fontproperties()) if before else "")
        return text.get_text() != before

    arrange()
    middles = [(axis, (axis.get_position().y0 + axis.get_position().y1) / 2) for axis in drawn]
    if any([fit(axis.yaxis.label, 2 * min(middle, 1 - middle) * height - TITLE_GAP) for axis, middle in middles]):
        arrange()  # these labels move the axes
    lefts = sorted({axis.get_position(original=True).x0 for axis in drawn if axis.get_subplotspec() is not None})
    for axis in drawn:
        box = axis.get_position(original=True)
        end = next((left for left in lefts if left > box.x0 + 0.02), 1.0)  # of the room of the panel
        axis.apply_aspect()
        middle, start = (box.x0 + box.x1) / 2, axis.get_position().x0
        fit(axis._left_title, (end - start) * width - TITLE_GAP)  # type: ignore[attr-defined]
        fit(axis.xaxis.label, 2 * min(middle, end - middle) * width - TITLE_GAP)
        for text in axis.texts:
            if text.get_label() == EVENT:
                _move_inside(text, figure)


def _move_inside(text: Text, figure: Figure) -> None:
    """Moves a centred annotation to the left, so that it ends within the figure."""
    box = text.get_window_extent()
    beyond = box.x1 - figure.bbox.x1 + 1, figure.bbox.x0 + 1 - box.x0
    shift = -beyond[0] if beyond[0] > 0 else max(0.0, beyond[1])
    if shift and hasattr(text, "xyann"):
        x, y = text.xyann
        text.xyann = (x + shift * 72 / figure.dpi, y)


class _PlainLogFormatter(LogFormatter):
    """Labels of a logarithmic axis such as 0.1, 1 and 10, where Matplotlib writes powers as formulas."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Label of a tick, "" for none."""
        return f"{x:g}" if super().__call__(x, pos) else ""


def _write_powers_plainly(drawn: Iterable[Axes]) -> None:
    """Gives logarithmic axes labels that are no formulas."""
    for axis in [axis for axes in drawn for axis in (axes.xaxis, axes.yaxis) if axis.get_scale() == "log"]:
        axis.set_major_formatter(_PlainLogFormatter())
        axis.set_minor_formatter(_PlainLogFormatter())


def check_files(folder: Path, names: Iterable[str], kind: str = "png") -> None:
    """Checks that figures NAME.KIND may be written to a folder; those with the mark of rlsnet are replaced.

    Raises:
      UserError: a file without that mark is there, as of the user or of an early version, or a symbolic link.
    """
    for path in (folder / f"{name}.{kind}" for name in names):
        outputs.refuse_link(path)
        if path.exists() and not outputs.is_figure(path):
            raise UserError(
                f"{path}: exists without the mark of a figure that rlsnet drew, which early versions did not set; expected a path that is"
                " free, or out=FOLDER for the figures."
            )


def integer_ticks(axis: Any) -> None:
    """Sets ticks of an axis at integers, such as iterations."""
    axis.set_major_locator(MaxNLocator(integer=True))


def draw_events(axis: Any, events: Mapping[str, float], span: tuple[float, float], colour: str = SOFT, names: bool = True) -> None:
    """Draws a line at the time of each event within the span (s), with its name above the axes unless `names` is false.

    Names that would overlap are written one above the other; the title of the axes, which must be set before, moves above them.
    """
    shown = {name: time for name, time in events.items() if span[0] < time < span[1]}
    for time in shown.values():
        axis.axvline(time, color=colour, lw=0.8, ls=(0, (3, 2)))
    if not (names and shown):
        return
    points = axis.get_window_extent().width * 72 / axis.figure.dpi
    ends: list[float] = []  # of the last name in each row, in units of the width
    for name, time in shown.items():
        place, half = (time - span[0]) / (span[1] - span[0]), 0.3 * SMALL * (len(name) + 1) / points
        row = next((row for row, end in enumerate(ends) if place - half > end), len(ends))
        ends[row : row + 1] = [place + half]
        offset = {"xytext": (0, 1 + 1.35 * SMALL * row), "textcoords": "offset points", "annotation_clip": False}
        where = {"xycoords": axis.get_xaxis_transform(), "ha": "center", "va": "bottom", "fontsize": SMALL}
        axis.annotate(name, (time, 1), color=SOFT, label=EVENT, **where, **offset)
    title = axis._left_title if axis.get_title("left") else axis.title
    axis.set_title(title.get_text(), loc="left", fontsize=title.get_fontsize(), pad=3 + 1.35 * SMALL * len(ends))
