"""How figures are drawn: in pieces that stand together in a PNG, and each alone in a page whose colours they take on."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from rlsnet import zarrio

INK, DATA, MODEL, EXC, INH, SOFT = "#2b2f36", "#444444", "#d1495b", "#2e6f95", "#c8553d", "#8a9099"
ON_PAGE = {INK: "var(--ink)", DATA: "var(--data)", MODEL: "var(--model)", EXC: "var(--exc)", INH: "var(--inh)", SOFT: "var(--soft)"}
LINES = ("-", "--", ":", "-.")  # of conditions
STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.titlesize": 9,
    "font.size": 9,
    "legend.frameon": False,
    "legend.fontsize": 8,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color"), INK),
}
HEAT = matplotlib.colormaps["viridis"].with_extremes(bad="#bbbbbb")
DENSITY = ListedColormap([(*to_rgb(EXC), alpha) for alpha in np.linspace(0.15, 1, 64)], "density")  # on light and dark pages alike


@dataclasses.dataclass(frozen=True)
class Part:
    """A piece of a figure that can stand alone.

    label: what there is to see, for those who cannot.
    draw: takes the part's axes, one below the other.
    """

    label: str
    draw: Callable[[Sequence[Any]], None]


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A figure.

    title: what it is of.
    parts: its pieces, side by side.
    size: width and height of a part, inches.
    stacked: axes in a part.
    columns: parts in a row.
    handles: what the legend explains, if one is shared by all parts.
    """

    title: str
    parts: tuple[Part, ...]
    size: tuple[float, float] = (4.2, 3.1)
    stacked: int = 1
    columns: int = 3
    handles: tuple[Any, ...] = ()

    def composed(self) -> Figure:
        """All parts in one figure."""
        with matplotlib.rc_context(STYLE):
            columns = min(self.columns, len(self.parts))
            rows = -(-len(self.parts) // columns)
            figure = Figure(figsize=(self.size[0] * columns, self.size[1] * rows), layout="constrained")
            FigureCanvasAgg(figure)
            axes = figure.subplots(rows * self.stacked, columns, squeeze=False)
            for place in range(rows * columns):
                row, column = divmod(place, columns)
                mine = axes[row * self.stacked : (row + 1) * self.stacked, column]
                if place < len(self.parts):
                    self.parts[place].draw(list(mine))
                else:
                    for axis in mine:
                        axis.set_visible(False)
            if self.handles:
                figure.legend(handles=self.handles, loc="outside upper right", ncols=len(self.handles))
        return figure

    def save(self, path: Path) -> None:
        """Writes the whole figure as a PNG."""
        figure = self.composed()
        with matplotlib.rc_context(STYLE), zarrio.replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=150)

    def alone(self, part: Part, name: str) -> str:
        """One part as SVG to stand in an HTML page; `name` goes before its ids, which have to be unique there.

        Colours of text and lines become variables of the page's style sheet, so that they change with it.
        """
        with matplotlib.rc_context({**STYLE, "svg.fonttype": "none", "svg.hashsalt": name}):
            figure = Figure(figsize=self.size, layout="constrained")
            FigureCanvasAgg(figure)
            part.draw(list(figure.subplots(self.stacked, 1, squeeze=False)[:, 0]))
            if self.handles:
                figure.legend(handles=self.handles, loc="outside upper center", ncols=2 if len(self.handles) > 3 else 3)
            buffer = io.StringIO()
            figure.savefig(buffer, format="svg", dpi=180, transparent=True, metadata={"Date": None})
        return _for_page(buffer.getvalue(), name)


def _for_page(text: str, name: str) -> str:
    """An SVG file as an element of an HTML page: no namespaces, no metadata, ids of its own, the page's font and colours."""
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"| version="1.1"', "", text).replace("xlink:href", "href")
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'url\(#|href="#', lambda found: f"{found[0]}{name}-", text)
    text = re.sub(r"(font(?:-family)?: [^;\"]*?)'?DejaVu Sans'?[^;\"]*", r"\1var(--sans)", text)
    text = re.sub(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text, count=1)
    text = re.sub(r"data:image/png;base64,([^\"]+)", lambda found: f"data:image/png;base64,{_smaller(found[1])}", text)
    for colour, variable in ON_PAGE.items():
        text = text.replace(colour, variable)
    return re.sub(r"\n\s*", "\n", text).strip()


def _smaller(encoded: str) -> str:
    """A PNG, in base64, with a palette of 256 colours: a third of the size, and as many as a heatmap has."""
    from PIL import Image

    buffer = io.BytesIO()
    image = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGBA")
    image.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def plainly(axis: Any) -> None:
    """Numbers on a logarithmic axis as 0.1, 1, 10 instead of powers."""
    axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))


def go_cue(axis: Any, time: np.ndarray, colour: str = SOFT) -> None:
    """A line at time 0, where that lies within."""
    if time[0] < 0 < time[-1]:
        axis.axvline(0, color=colour, lw=0.8, ls=(0, (3, 2)))
