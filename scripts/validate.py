"""Runs the tests that record figures and writes them as a table, docs/validation.md, with a summary.

    python scripts/validate.py                              # all but those that need a GPU, or the compiler of one
    python scripts/validate.py --without slow simulators    # the quick ones alone
    python scripts/validate.py --gpu --aot                  # also those

Tests that are left out, or need a simulator that is not installed, are in the table as not run here. Exit status 1 if a test failed.
"""

from __future__ import annotations

import argparse
import ast
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
NOT_RUN, FAILED = "not run here", "**failed**"


QUESTIONS = (  # of the summary: question, in words what the answer is compared with, start of a check's name, part of its quantity
    ("Does learning find the best weights?", "ridge regression, solved in closed form", "V8 ridge regression, native", "float64"),
    ("Does a whole training do what the equations say?", "a plain NumPy program", "plain NumPy program, native native", "5 iterations"),
    ("Does the default network learn as published?", "a range around the published curve", "V10 learning curve", "mean of iterations"),
    ("Are rates converted to the right currents?", "published values", "V1 inverse transfer function", "current"),
    ("Do neurons fire at the expected rate?", "first-passage times", "V3 noisy neurons", "mu 0.5"),
    ("Does another simulator give the same spikes?", "Brian2, same synapses", "V12 Brian2, plastic, native", "1000 neurons"),
    ("Does another simulator give the same rates?", "NEST, same synapses", "V13 NEST", "excitatory"),
    ("Is an interrupted run equal to an uninterrupted one?", "the uninterrupted run, bit by bit", "resume after kill", "killed"),
    ("Does a perturbation change only what it should?", "the unperturbed trial, bit by bit", "perturbation, silence, native", "spikes"),
    ("Is the explained variance right?", "its value in closed form", "population explained variance", "40 test trials"),
)
NOT_SHOWN = """What these tests do not show: that a network is a good model of your recording. `rlsnet test` measures this, on held-out
trials ([how to read the scores](scores.md)). They also do not show that the trained weights are those of the brain: many networks
have the same rates."""


class Row(NamedTuple):
    """A line of the table."""

    name: str
    quantity: str
    expected: str
    measured: str
    command: str

    @property
    def outcome(self) -> str:
        """NOT_RUN, FAILED, or nothing for a figure."""
        return next((word for word in (NOT_RUN, FAILED) if self.measured.startswith(word)), "")


def recorded(test: ElementTree.Element) -> list[Row]:
    """The rows of one test of a JUnit file."""
    properties = [(p.attrib["name"], p.attrib["value"]) for p in test.iter("property")]
    command = dict(properties).get("command", f"pytest {test.attrib['file']}")
    figures = [json.loads(value) for name, value in properties if name == "check"]
    rows = [Row(**figure, command=command) for figure in figures]
    wrong = next((child for child in test if child.tag in ("failure", "error")), None)
    if wrong is None:
        return rows
    reason = wrong.attrib["message"].splitlines()[0].removeprefix("Failed: ")
    measured = reason if reason.startswith(NOT_RUN) else f"{FAILED}: {reason}"
    return [*rows, Row(test.attrib["name"], "", "", measured, command)]


def run(without: list[str]) -> list[Row]:
    """Rows of the tests that record figures, run but for those with a marker of `without`."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "junit.xml"
        expression = " and not ".join(["validation", *without])
        workers = ["-n", "logical" if "gpu" in without else "0"]  # a GPU's memory is not shared by processes
        subprocess.run([*PYTEST, *workers, "-m", expression, "-o", "junit_family=xunit1", f"--junitxml={report}"], cwd=ROOT)
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
    """Sorts V2 before V10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", row.name)]


def summary(rows: list[Row]) -> list[str]:
    """A table with a line for each file of tests: its topic, and how many figures it has."""
    lines = ["| tests | topic | figures | failed | not run |", "|---|---|---|---|---|"]
    outcomes: dict[str, list[str]] = {}
    for row in rows:
        outcomes.setdefault(re.findall(r"tests/\S+\.py", row.command)[0], []).append(row.outcome)
    for path, found in sorted(outcomes.items()):
        topic = (ast.get_docstring(ast.parse((ROOT / path).read_text())) or "").partition("\n")[0].rstrip(".")
        lines.append(f"| `{path}` | {topic} | {' | '.join(str(found.count(outcome)) for outcome in ('', FAILED, NOT_RUN))} |")
    return lines


def half_page(rows: list[Row]) -> list[str]:
    """The summary in plain words: the main questions, each with the figure of one row."""
    outcomes = [row.outcome for row in rows]
    lines = [
        "## Summary",
        "",
        f"rlsnet was compared with independent results in {outcomes.count('')} measurements. {outcomes.count(FAILED)} tests failed, and "
        f"{outcomes.count(NOT_RUN)} were not run here.",
        "An independent result is a published number, a formula, another simulator, or a plain NumPy program that shares no code with",
        "rlsnet (`tests/reference.py`). The main questions, with one measurement each:",
        "",
        "| question | compared with | expected | measured |",
        "|---|---|---|---|",
    ]
    for question, other, name, quantity in QUESTIONS:
        found = next((row for row in rows if row.name.startswith(name) and quantity in row.quantity), None)
        lines.append(f"| {question} | {other} | {' | '.join(map(cell, found[2:4])) if found else f' | {NOT_RUN}'} |")
    return [*lines, "", *NOT_SHOWN.splitlines(), ""]


def cell(text: str) -> str:
    """Text in a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def document(rows: list[Row]) -> str:
    """The page: machine, date and versions, counts, and the table."""
    about = machine()
    for name in ("brian2", "nest-simulator"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            about[name] = metadata.version(name)
    outcomes = [row.outcome for row in rows]
    lines = [
        "# Validation report",
        "",
        "`python scripts/validate.py` writes this page.",
        "",
        *half_page(rows),
        "## All measurements",
        "",
        f"- {', '.join(f'{key} {value}' for key, value in about.items())}",
        f"- {outcomes.count('')} figures, {outcomes.count(FAILED)} tests failed, {outcomes.count(NOT_RUN)} not run here",
        "",
        *summary(rows),
        "",
        "| check | quantity | expected | measured | command |",
        "|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=order):
        lines.append(f"| {' | '.join(map(cell, row[:-1]))} | `{row.command}` |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs the tests and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without", nargs="*", choices=("slow", "simulators"), default=[], help="markers of tests to leave out")
    parser.add_argument("--gpu", action="store_true", help="run also the tests that need a GPU")
    parser.add_argument("--aot", action="store_true", help="run also the tests that compile for a GPU; see scripts/gpu/ahead_of_time.py")
    options = parser.parse_args()
    without = options.without + [name for name in ("gpu", "aot") if not getattr(options, name)]
    rows = run(without) + left_out(without)
    TABLE.write_text(document(rows))
    print(f"{TABLE.relative_to(ROOT)}: {len(rows)} rows")
    sys.exit(any(row.outcome == FAILED for row in rows))


if __name__ == "__main__":
    main()
