"""Style of all figures, and figures of panels: together in a PNG, or each panel alone as SVG for an HTML page."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
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
BAND_ALPHA = 0.22
LINES = ("-", "--", ":", "-.")  # of conditions
WIDTH = 7.2  # inches: two columns of a journal, in which a figure is printed with letters of 6.5 pt and more
SMALL = 6.5  # pt, the smallest letters
SVG_IMAGE_DPI = 150  # of heatmaps and other images within an SVG: the resolution of a panel at its widest
PNG_DPI = 200
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
    "text.parse_math": False,  # a name of the user's with two $ is no formula
    "legend.frameon": False,
    "legend.fontsize": 7,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color"), INK),
}
HEAT = matplotlib.colormaps["viridis"].with_extremes(bad="#bbbbbb")
DIFFERENCE = LinearSegmentedColormap.from_list("difference", [CONDITIONS[0], "#ffffff", CONDITIONS[1]]).with_extremes(bad="#bbbbbb")
DENSITY = ListedColormap([(*to_rgb(MODEL), alpha) for alpha in np.linspace(0.15, 1, 64)], "density")


def condition_colours(n: int) -> list[str]:
    """A colour for each of n conditions that colour-blind readers can tell apart; of more than eight, in an order from dark to light."""
    if n <= len(CONDITIONS):
        return list(CONDITIONS[:n])
    return [to_hex(matplotlib.colormaps["plasma"](place)) for place in np.linspace(0, 0.92, n)]


def condition_handles(names: Sequence[str], most: int = len(CONDITIONS)) -> list[Line2D]:
    """Entries of a legend for the colours of conditions, none for a single one; of more than `most`, the first and the last."""
    colours = condition_colours(len(names))
    shown = range(len(names)) if len(names) <= most else (0, len(names) - 1)
    return [Line2D([], [], color=colours[c], lw=2.2, label=names[c]) for c in shown] if len(names) > 1 else []


def style_handles(data: str = "data", model: str = "model") -> list[Line2D]:
    """Entries of a legend for the lines of data and model."""
    return [Line2D([], [], color=INK, label=data, **DATA_LINE), Line2D([], [], color=INK, label=model, **MODEL_LINE)]


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
    """

    title: str
    panels: tuple[Panel, ...]
    size: tuple[float, float] = (3.6, 2.6)
    stacked: int = 1
    columns: int = 2
    handles: tuple[Any, ...] = ()

    def compose(self) -> Figure:
        """All panels in one figure."""
        with matplotlib.rc_context(STYLE):
            columns = min(self.columns, len(self.panels))
            rows = -(-len(self.panels) // columns)
            figure = _figure((self.size[0] * columns, self.size[1] * rows))
            axes = figure.subplots(rows * self.stacked, columns, squeeze=False)
            for place in range(rows * columns):
                row, column = divmod(place, columns)
                mine = axes[row * self.stacked : (row + 1) * self.stacked, column]
                if place < len(self.panels):
                    self.panels[place].draw(list(mine))
                else:
                    for axis in mine:
                        axis.set_visible(False)
            if self.handles:
                figure.legend(handles=self.handles, loc="outside upper right", ncols=len(self.handles))
            _write_powers_plainly(figure)
        return figure

    def draw_on(self, axes: Any) -> Figure:
        """Draws on axes of the user's figure, with the user's settings of Matplotlib, and returns that figure.

        Args:
          axes: Matplotlib axes, or an array or sequence of them: those of all panels in order, or of the first panels.

        Raises:
          UserError: their number is not that of whole panels, or they belong to several figures.
        """
        given = list(np.ravel(np.asarray(axes, dtype=object)))
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
        return cast(Figure, figure)

    def save(self, path: Path) -> None:
        """Writes all panels to one PNG file."""
        figure = self.compose()
        with matplotlib.rc_context(STYLE), atomic.replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=PNG_DPI, metadata={"Software": "rlsnet"})

    def panel_svg(self, panel: Panel) -> str:
        """One panel, with the shared legend, as an SVG document with a transparent background."""
        with matplotlib.rc_context({**STYLE, "svg.fonttype": "path", "svg.hashsalt": self.title}):
            figure = _figure(self.size)
            panel.draw(list(figure.subplots(self.stacked, 1, squeeze=False)[:, 0]))
            if self.handles:
                figure.legend(handles=self.handles, loc="outside upper center", ncols=2 if len(self.handles) > 3 else 3)
            _write_powers_plainly(figure)
            buffer = io.StringIO()
            without_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            figure.savefig(buffer, format="svg", dpi=SVG_IMAGE_DPI, transparent=True, metadata=without_metadata)
        return buffer.getvalue()


class _PlainLogFormatter(LogFormatter):
    """Labels of a logarithmic axis such as 0.1, 1 and 10, where Matplotlib writes powers as formulas."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Label of a tick, "" for none."""
        return f"{x:g}" if super().__call__(x, pos) else ""


def _write_powers_plainly(figure: Figure) -> None:
    """Gives the logarithmic axes of a figure labels that are no formulas."""
    for axis in [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) if axis.get_scale() == "log"]:
        axis.set_major_formatter(_PlainLogFormatter())
        axis.set_minor_formatter(_PlainLogFormatter())


def _figure(size: tuple[float, float]) -> Figure:
    """An empty figure that no window of pyplot knows."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def check_files(folder: Path, names: Iterable[str]) -> None:
    """Checks that figures NAME.png may be written to a folder; those with the mark of rlsnet are replaced.

    Raises:
      UserError: a file without that mark is there, as of the user or of an early version, or a symbolic link.
    """
    for path in (folder / f"{name}.png" for name in names):
        outputs.refuse_link(path)
        if path.exists() and not outputs.is_marked(path, (outputs.FIGURE,)):
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
        offset = {"xytext": (0, 1 + 1.15 * SMALL * row), "textcoords": "offset points", "annotation_clip": False}
        where = {"xycoords": axis.get_xaxis_transform(), "ha": "center", "va": "bottom", "fontsize": SMALL}
        axis.annotate(name, (time, 1), color=SOFT, **where, **offset)
    axis.set_title(axis.get_title("left") or axis.get_title(), loc="left", pad=3 + 1.15 * SMALL * len(ends))


def draw_zero(axis: Any, **line: Any) -> None:
    """Draws a thin horizontal line at zero."""
    axis.axhline(0, **({"color": FAINT, "lw": 0.6, "zorder": 0} | line))
