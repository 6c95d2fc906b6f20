"""Runs the tests that record figures, and writes the figures as a table, docs/validation.md.

    python scripts/validate.py                           # all but those that need a GPU
    python scripts/validate.py --without slow witness    # those that take seconds
    python scripts/validate.py --gpu                     # with those that need a GPU

Tests that are left out, or whose other simulator is not installed, are in the table as "not run here". The exit status is 1 if a test
failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from bench import machine

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "docs" / "validation.md"
PYTEST = [sys.executable, "-m", "pytest", "-q", "-o", "addopts="]
NOT_RUN = "not run here"


class Row(NamedTuple):
    """A line of the table."""

    case: str
    what: str
    expected: str
    seen: str
    command: str


def recorded(test: ElementTree.Element) -> list[Row]:
    """The rows of one test of a JUnit file."""
    properties = [(p.attrib["name"], p.attrib["value"]) for p in test.iter("property")]
    command = dict(properties).get("command", "")
    figures = [json.loads(value) for name, value in properties if name == "witness"]
    rows = [Row(f["case"], f["what"], f["expected"], f["seen"], command) for f in figures]
    wrong = next((child for child in test if child.tag in ("failure", "error")), None)
    if wrong is None:
        return rows
    reason = wrong.attrib["message"].splitlines()[0].removeprefix("Failed: ")
    seen = reason if reason.startswith(NOT_RUN) else f"**failed**: {reason}"
    return [*rows, Row(test.attrib["name"], "", "", seen, command)]


def run(without: list[str]) -> list[Row]:
    """Runs the tests that record figures, without those that have one of the markers; returns their rows."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "junit.xml"
        expression = " and not ".join(["validation", *without])
        subprocess.run([*PYTEST, "-m", expression, "-o", "junit_family=xunit1", f"--junitxml={report}"], cwd=ROOT)
        if not report.exists():
            sys.exit("pytest has written no report; see above.")
        return [row for test in ElementTree.parse(report).iter("testcase") for row in recorded(test)]


def left_out(without: list[str]) -> list[Row]:
    """Rows of the tests that are not run because of their markers."""
    rows: dict[str, Row] = {}
    for marker in without:
        done = subprocess.run([*PYTEST, "--collect-only", "-m", f"validation and {marker}"], cwd=ROOT, capture_output=True, text=True)
        for test in re.findall(r"^(tests/\S+?::\w+)", done.stdout, re.MULTILINE):
            rows.setdefault(test, Row(test.split("::")[1], "", "", NOT_RUN, f"pytest -m {marker} {test}"))
    return list(rows.values())


def order(row: Row) -> list[tuple[int, str]]:
    """Sort key of a row: V2 comes before V10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", row.case)]


def document(rows: list[Row]) -> str:
    """The page: machine, date and versions, counts, and the table."""
    about = machine()
    for name in ("brian2", "nest-simulator"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            about[name] = metadata.version(name)
    count = {word: sum(row.seen.startswith(word) for row in rows) for word in ("**failed**", NOT_RUN)}
    lines = [
        "# What the tests saw",
        "",
        "Written by `python scripts/validate.py`, not by hand. Expected figures are published ones, closed forms, other simulators or a",
        "plain NumPy program that shares no code with rlsnet (`tests/reference.py`).",
        "",
        f"- {', '.join(f'{key} {value}' for key, value in about.items())}",
        f"- {len(rows) - sum(count.values())} figures, {count['**failed**']} tests failed, {count[NOT_RUN]} not run here",
        "",
        "| witness | what | expected | seen | command |",
        "|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=order):
        cells = [cell.replace("|", "\\|").replace("\n", " ") for cell in row[:-1]]
        lines.append(f"| {' | '.join(cells)} | `{row.command}` |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs the tests and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without", nargs="*", choices=("slow", "witness"), default=[], help="markers of tests to leave out")
    parser.add_argument("--gpu", action="store_true", help="also run the tests that need a GPU")
    options = parser.parse_args()
    without = options.without + ([] if options.gpu else ["gpu"])
    rows = run(without) + left_out(without)
    TABLE.write_text(document(rows))
    print(f"{TABLE.relative_to(ROOT)}: {len(rows)} rows")
    sys.exit(any(row.seen.startswith("**failed**") for row in rows))


if __name__ == "__main__":
    main()
