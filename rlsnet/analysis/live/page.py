"""The live page: its fixed files for the server, and the page to keep, one file that needs no server."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2

import rlsnet.analysis.report as report
from rlsnet.analysis.live.sources import text
from rlsnet.analysis.live.state import Reader
from rlsnet.io.formatting import readable
from rlsnet.runs.folder import Run

TEMPLATES = Path(__file__).parent / "templates"
SHARED = Path(report.__file__).parent / "templates"  # of the pages that `rlsnet report` writes
STYLES, SCRIPTS = ("page.css", "live.css"), ("charts.js", "live.js")
SAVED = "rlsnet-live.html"  # name of a page that a browser saves
MOST_NUMBERS = 500_000  # of the PSTHs in a saved page
MOST_MAPS = 12  # heat maps in a saved page


def policy(scripts: str, styles: str, more: str = "") -> str:
    """What a browser lets the page load (Content-Security-Policy): nothing from elsewhere."""
    sources = f"default-src 'none'; script-src {scripts}; style-src {styles}; img-src data:; base-uri 'none'; form-action 'none'"
    return f"{sources}; {more}" if more else sources


def _content(name: str) -> str:
    """A file of the page."""
    folder = TEMPLATES if (TEMPLATES / name).exists() else SHARED
    return (folder / name).read_text(encoding="utf-8")


def _render(run: Run, **values: Any) -> str:
    """The page, with links to its files, or with `style`, `scripts` and `data` in it."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    given = {"style": None, "scripts": (), "data": None, "date": None, **values}
    names = {
        "styles_linked": STYLES,
        "scripts_linked": SCRIPTS,
        "version": metadata.version("rlsnet"),
        "name": text(run.path.absolute().name),
    }
    return readable(environment.from_string(_content("live.html")).render(**given, **names))


def files(run: Run) -> dict[str, tuple[str, bytes]]:
    """(kind, content) of the fixed files of the page, by path."""
    kinds = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
    found = {f"/{name}": (kinds[Path(name).suffix], _content(name).encode()) for name in (*STYLES, *SCRIPTS)}
    return {"/": ("text/html; charset=utf-8", _render(run).encode()), **found}


def saved(reader: Reader) -> str:
    """The page with the present state in it, as one HTML document that loads nothing."""
    style = "\n".join(map(_content, STYLES))
    scripts = [_content(name) for name in SCRIPTS]
    data = json.dumps(_data(reader), allow_nan=False).replace("<", "\\u003c")
    return _render(
        reader.run,
        style=style,
        scripts=scripts,
        data=data,
        policy=policy(" ".join(map(_hash, scripts)), _hash(style)),
        date=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z"),
    )


def _hash(script: str) -> str:
    """A script or style, as a policy allows it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _data(reader: Reader) -> dict[str, Any]:
    """State, heat maps by number of the condition, and PSTHs of units."""
    state = reader.state()
    summary = state["rates"]
    if summary is None:
        return {"state": state, "maps": [], "units": []}
    maps = [reader.heat_map(condition) for condition in range(min(len(summary["conditions"]), MOST_MAPS))]
    return {"state": state, "maps": maps, "units": [reader.unit(number) for number in _kept(summary)]}


def _kept(summary: dict[str, Any]) -> list[int]:
    """Numbers of the units whose PSTHs a saved page has: the best, median and worst one, and others as evenly as they fit."""
    chosen = list(dict.fromkeys(summary["chosen"].values()))
    most = max(1, MOST_NUMBERS // (2 * max(1, summary["n_points"])))
    others = [unit for unit, *_ in summary["dots"]] or list(range(summary["n_units"]))
    every = max(1, -(-len(others) // most))
    return sorted({*chosen, *others[::every]})
