"""Style of all figures, and figures of panels: together in a PNG, or each panel alone as SVG for an HTML page."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

from rlsnet.errors import UserError
from rlsnet.io import atomic, outputs

INK, DATA, MODEL, EXC, INH, SOFT = "#2b2f36", "#444444", "#d1495b", "#2e6f95", "#c8553d", "#8a9099"
SVG_IMAGE_DPI = 120  # of heatmaps and other images within an SVG: the resolution of a panel at its widest
LINES = ("-", "--", ":", "-.")  # of conditions
STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.titlesize": 9,
    "font.size": 9,
    "text.parse_math": False,  # a name of the user's with two $ is no formula
    "legend.frameon": False,
    "legend.fontsize": 8,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color"), INK),
}
HEAT = matplotlib.colormaps["viridis"].with_extremes(bad="#bbbbbb")
DENSITY = ListedColormap([(*to_rgb(EXC), alpha) for alpha in np.linspace(0.15, 1, 64)], "density")


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
    size: tuple[float, float] = (4.2, 3.1)
    stacked: int = 1
    columns: int = 3
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

    def save(self, path: Path) -> None:
        """Writes all panels to one PNG file."""
        figure = self.compose()
        with matplotlib.rc_context(STYLE), atomic.replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=150, metadata={"Software": "rlsnet"})

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
    """Draws a line at the time of each event within the span (s), with its name unless `names` is false."""
    for name, time in events.items():
        if span[0] < time < span[1]:
            axis.axvline(time, color=colour, lw=0.8, ls=(0, (3, 2)))
            if names:
                where = {"transform": axis.get_xaxis_transform(), "rotation": 90, "ha": "right", "va": "top", "fontsize": 6}
                axis.text(time, 0.98, name, color=colour, **where)
