"""Pages of HTML that stand alone: one file, no other resources, for a screen of any width and for paper."""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import metadata
from pathlib import Path
from string import Template
from typing import Any

from rlsnet.figures import Drawing

HERE = Path(__file__).parent
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"

DOCUMENT = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="$policy">
<meta name="generator" content="rlsnet $version">
<title>$title</title>
<link rel="icon" href="data:,">
<style>
$style
</style>
</head>
<body>
$body
<footer><p>Made by rlsnet $version on $date from what is stored; nothing was simulated for this page.</p></footer>
$script</body>
</html>
""")


class Raw(str):
    """Text that is HTML already; all other text is escaped."""


def html(value: Any) -> str:
    """A value as HTML."""
    return value if isinstance(value, Raw) else escape(str(value))


@dataclasses.dataclass(frozen=True)
class Cell:
    """A number in a table, with the words it is shown in and what else is to be seen with it."""

    words: str
    value: float | None = None
    more: Raw = Raw("")


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a page with a heading."""

    name: str
    title: str
    body: Raw


def joined(parts: Iterable[str]) -> Raw:
    """Pieces of HTML, one after the other; texts among them are escaped."""
    return Raw("\n".join(html(part) for part in parts))


def paragraph(words: str, kind: str = "") -> Raw:
    """A paragraph; `kind` is its class."""
    opening = f'<p class="{kind}">' if kind else "<p>"
    return Raw(f"{opening}{html(words)}</p>")


def tiles(values: Iterable[tuple[str, str, str]]) -> Raw:
    """Key figures: (what, value, more in small print)."""
    cells = [
        f'<div class="tile"><dt>{html(what)}</dt><dd class="value">{html(value)}</dd>'
        + (f'<dd class="more">{html(more)}</dd></div>' if more else "</div>")
        for what, value, more in values
    ]
    return Raw(f'<dl class="tiles">{"".join(cells)}</dl>')


def _cell(value: Any, tag: str = "td") -> str:
    if isinstance(value, Cell):
        sorting = "" if value.value is None else f' data-value="{value.value:.9g}"'
        return f'<{tag} class="number"{sorting}>{html(value.words)}{value.more}</{tag}>'
    scope = ' scope="row"' if tag == "th" else ""
    return f"<{tag}{scope}{' class=long' if len(str(value)) > 40 else ''}>{html(value)}</{tag}>"


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[Any]], kind: str = "") -> Raw:
    """A table that scrolls within itself where it is too wide; the first column is its rows' headings.

    Args:
      title: said above it.
      head: the columns.
      rows: of texts, and of `Cell` for numbers.
      kind: class; a row after "best" has one of its own.
    """
    lines = [list(row) for row in rows]
    numeric = [bool(lines) and all(isinstance(row[c], Cell) for row in lines) for c in range(len(head))]
    heads = "".join(
        f'<th scope="col"{" class=number" if is_number else ""}>{html(h)}</th>' for h, is_number in zip(head, numeric, strict=True)
    )
    body = "\n".join(f"<tr>{_cell(row[0], 'th')}{''.join(map(_cell, row[1:]))}</tr>" for row in lines)
    if kind == "sortable":
        body = body.replace("<tr>", '<tr class="best">', 1)
    headings = f"<thead><tr>{heads}</tr></thead>" if any(head) else ""
    of_kind = f" class={kind}" if kind else ""
    opening = f'<p class="above">{html(title)}</p><div class="scroll" tabindex="0" role="region" aria-label="{html(title)}">'
    return Raw(f'{opening}<table aria-label="{html(title)}"{of_kind}>{headings}\n<tbody>{body}</tbody></table></div>')


def bar(value: float | None, mark: float | None = None) -> Raw:
    """A share of 1 as a bar, with a mark such as a ceiling."""
    if value is None:
        return Raw("")
    width = 100 * min(max(value, 0), 1)
    tick = "" if mark is None else f'<b style="left:{100 * min(max(mark, 0), 1):.1f}%"></b>'
    return Raw(f'<span class="bar" aria-hidden="true"><i style="width:{width:.1f}%"></i>{tick}</span>')


def figure(drawing: Drawing, name: str, caption: str = "") -> Raw:
    """A drawing with its parts side by side as far as there is room."""
    least, most = int(min(300, drawing.size[0] * 74)), int(drawing.size[0] * 118)
    kind = "parts" + (" single" if len(drawing.parts) == 1 else " three" if len(drawing.parts) % 3 == 0 else "")
    parts = [
        f'<div class="plot" role="img" aria-label="{html(part.label)}">{drawing.alone(part, f"{name}-{index}")}</div>'
        for index, part in enumerate(drawing.parts)
    ]
    said = f"<figcaption>{html(caption)}</figcaption>" if caption else ""
    return Raw(f'<figure><div class="{kind}" style="--least:{least}px;--most:{most}px">{"".join(parts)}</div>{said}</figure>')


def folded(title: str, body: str) -> Raw:
    """What is there to be opened."""
    return Raw(f"<details><summary>{html(title)}</summary>\n{html(body)}</details>")


def code(text: str) -> Raw:
    """Lines of code as they are."""
    return Raw(f'<pre tabindex="0"><code>{html(text)}</code></pre>')


def warnings(texts: Sequence[str]) -> Raw:
    """What a reader should know first; nothing where there is nothing."""
    items = "".join(f"<li>{html(text)}</li>" for text in texts)
    return Raw(f'<aside class="warnings" aria-label="Notes"><h2>To know first</h2><ul>{items}</ul></aside>' if items else "")


def listed(values: Mapping[str, Any] | Iterable[tuple[str, Any]], title: str) -> Raw:
    """Names and values as a table of two columns."""
    return table(title, ("", ""), values.items() if isinstance(values, Mapping) else values)


def document(title: str, kind: str, lead: str, top: Sequence[Raw], sections: Sequence[Section], scripts: bool = False) -> str:
    """A whole page.

    Args:
      title: of the page.
      kind: what it is, above the title.
      lead: a sentence below it.
      top: what comes before the first section.
      sections: in order; those that are empty are left out.
      scripts: whether tables can be sorted.
    """
    shown = [section for section in sections if section.body.strip()]
    links = "".join(f'<li><a href="#{s.name}">{html(s.title)}</a></li>' for s in shown)
    head = [paragraph(kind, "kind"), Raw(f"<h1>{html(title)}</h1>"), paragraph(lead, "lead"), *top]
    head += [Raw(f'<nav aria-label="Contents"><ul>{links}</ul></nav>')] if links else []
    body = [Raw(f'<section aria-labelledby="{s.name}"><h2 id="{s.name}">{html(s.title)}</h2>\n{s.body}</section>') for s in shown]
    style = re.sub(r"\n\s*", "\n", (HERE / "page.css").read_text())
    return DOCUMENT.substitute(
        policy=POLICY,
        version=metadata.version("rlsnet"),
        title=html(title),
        style=style.strip(),
        body=f"<header>{joined(head)}</header>\n<main>{joined(body)}</main>",
        date=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        script=f"<script>\n{(HERE / 'page.js').read_text()}</script>\n" if scripts else "",
    )
