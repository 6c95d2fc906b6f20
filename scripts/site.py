"""Hooks of mkdocs.yml and of mkdocstrings: pages that lie outside docs/, formulas as pictures within the page, examples in docstrings.

Nothing that a page shows is loaded from elsewhere.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import griffe
import ziamath
from mkdocs.structure.files import File, Files

ziamath.config.svg2 = False  # paths of each formula, without ids that would occur twice in a page
ROOT = Path(__file__).resolve().parents[1]
PAGES = {  # path in the repository: path in the site
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "CITATION.cff": "CITATION.cff",
    **{
        path.relative_to(ROOT).as_posix(): path.relative_to(ROOT).as_posix()
        for path in (ROOT / "benchmarks").rglob("*")
        if path.suffix in (".md", ".png")
    },
}
SOURCES = {site: repository for repository, site in PAGES.items()}
LINK = re.compile(r"(\]\()([^)\s#:]+)([^)\s]*\))")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
FONT_SIZE = 20  # of a formula, in the units of its picture; the page sets it to that of the text


class Examples(griffe.Extension):
    """Reads the heading `Example:` of a docstring as `Examples:`, whose lines griffe takes as code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Changes the heading before the docstring is parsed."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages outside docs/."""
    for repository, site in PAGES.items():
        files.append(File.generated(config, site, abs_src_path=str(ROOT / repository)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links of a file of the repository as links of the site."""
    source = ROOT / SOURCES.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def link(match: re.Match[str]) -> str:
        path = (source.parent / match[2]).resolve()
        if not path.is_relative_to(ROOT) or not path.exists():
            return match[0]
        name = path.relative_to(ROOT).as_posix()
        site = PAGES.get(name) or name.removeprefix("docs/")
        return match[1] + "../" * page.file.src_uri.count("/") + site + match[3]

    return LINK.sub(link, markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Formulas as SVG in the colour of the text; LaTeX is their alternative text."""

    def picture(match: re.Match[str]) -> str:
        latex, block = html.unescape(match[2]).strip(), match[1] == "div"
        formula = ziamath.Latex(latex, size=FONT_SIZE, inline=not block, color="currentColor")
        svg = formula.svgxml()
        width, height = (float(svg.attrib[side].removesuffix("px")) / FONT_SIZE for side in ("width", "height"))
        svg.attrib.update(role="img", width=f"{width:.3f}em", height=f"{height:.3f}em")
        svg.attrib["aria-label"] = latex
        svg.attrib["style"] = "" if block else f"vertical-align:{formula.getyofst() / FONT_SIZE:.3f}em"
        return f'<{match[1]} class="formula">{ziamath.zmath.ET.tostring(svg, encoding="unicode")}</{match[1]}>'

    return FORMULA.sub(picture, content)
