"""Self-contained HTML pages: one file without external resources, rendered from `templates/`.

A page is data: sections of blocks (headings, paragraphs, tables, figures, code). The templates hold all markup, and Jinja2
escapes all text in it.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import jinja2

from rlsnet.analysis.plots.style import PanelFigure
from rlsnet.io import atomic
from rlsnet.io.formatting import readable

TEMPLATES = Path(__file__).parent / "templates"
LONG_TEXT = 40  # characters; a longer text in a table gets a wider column


@dataclasses.dataclass(frozen=True)
class Number:
    """Table cell with a number.

    text: the number as it is shown.
    value: what the column is sorted by; None where the number is not defined.
    fraction: length of a bar beside the number, 0 to 1; None for no bar.
    mark: position of a mark on the bar, such as a noise ceiling; None for no mark.
    """

    text: str
    value: float | None = None
    fraction: float | None = None
    mark: float | None = None
    kind: ClassVar[str] = "number"


@dataclasses.dataclass(frozen=True)
class Literal:
    """Table cell with text that a user types, such as the name of a setting."""

    text: str
    kind: ClassVar[str] = "literal"


Cell = str | Number | Literal


@dataclasses.dataclass(frozen=True)
class Heading:
    """Heading of a part of a section."""

    text: str
    kind: ClassVar[str] = "heading"


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """Text; `style` is a class of the style sheet, such as note."""

    text: str
    style: str = ""
    kind: ClassVar[str] = "paragraph"


@dataclasses.dataclass(frozen=True)
class Code:
    """Lines shown as they are."""

    text: str
    kind: ClassVar[str] = "code"


@dataclasses.dataclass(frozen=True)
class Table:
    """Table; the first column holds the headings of the rows.

    title: shown above it.
    head: headings of the columns.
    rows: texts, `Number` or `Literal`.
    sortable: whether a press on a heading sorts it; its first row is marked as the best.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    sortable: bool = False
    kind: ClassVar[str] = "table"

    @property
    def numeric(self) -> list[bool]:
        """[columns] whether a column holds numbers alone."""
        return [bool(self.rows) and all(isinstance(row[column], Number) for row in self.rows) for column in range(len(self.head))]


@dataclasses.dataclass(frozen=True)
class Figure:
    """Panels side by side as far as there is room.

    panels: (description for readers who cannot see it, image as a data URI).
    size: width and height of a panel, inches.
    caption: text below.
    legend: of all panels, above them: (description, image as a data URI, width and height in inches); None for none.
    """

    panels: Sequence[tuple[str, str]]
    size: tuple[float, float]
    caption: str = ""
    legend: tuple[str, str, tuple[float, float]] | None = None
    kind: ClassVar[str] = "figure"


@dataclasses.dataclass(frozen=True)
class Folded:
    """A block that is closed until a reader opens it."""

    summary: str
    block: Table | Code
    kind: ClassVar[str] = "folded"


Block = Heading | Paragraph | Code | Table | Figure | Folded


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a page with a heading and a link in the contents; one without blocks is left out."""

    name: str
    title: str
    blocks: Sequence[Block]


@dataclasses.dataclass(frozen=True)
class Tile:
    """A key figure with a label and a note in small print."""

    label: str
    value: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Page:
    """A page.

    title: its main heading.
    kind: what it is, above the title.
    lead: a sentence below the title.
    sections: in order.
    tiles: key figures before the first section.
    notes: what a reader should know before the rest.
    """

    title: str
    kind: str
    lead: str
    sections: Sequence[Section]
    tiles: Sequence[Tile] = ()
    notes: Sequence[str] = ()

    def html(self) -> str:
        """The page as one HTML document."""
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        sections = [section for section in self.sections if section.blocks]
        tables = [block for section in sections for block in section.blocks if isinstance(block, Table)]
        return environment.get_template("page.html").render(
            page=self,
            sections=sections,
            sortable=any(table.sortable for table in tables),
            long_text=LONG_TEXT,
            version=metadata.version("rlsnet"),
            date=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        )


def figure(source: PanelFigure, caption: str = "") -> Figure:
    """A figure with each panel, and the legend of all, as an SVG image of its own."""
    panels = [(panel.label, data_uri(source.panel_svg(panel))) for panel in source.panels]
    if (drawn := source.legend_svg()) is None:
        return Figure(panels, source.size, caption)
    words = f"Legend: {', '.join(str(handle.get_label()) for handle in source.handles)}."
    return Figure(panels, source.size, caption, (words, data_uri(drawn[0]), drawn[1]))


def data_uri(svg: str) -> str:
    """An SVG document as the address of an image that needs no file."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def key_values(title: str, values: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Table:
    """Names and values as a table of two columns."""
    pairs = values.items() if isinstance(values, Mapping) else values
    return Table(title, ("", ""), [[name, str(value)] for name, value in pairs])


def write_page(out: Path, page: str) -> None:
    """Writes an HTML document to a file, completely or not at all."""
    with atomic.replacing(out) as temporary:
        temporary.write_text(readable(page), encoding="utf-8")
