"""List of runs for `rlsnet runs`: state, experiment, iterations, score and age of each."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import yaml
from rich.cells import cell_len
from rich.text import Text

from rlsnet.analysis import run_summary
from rlsnet.analysis.run_summary import POPULATION, RunSummary
from rlsnet.config import differences
from rlsnet.errors import UserError
from rlsnet.io.formatting import UNDEFINED, console, percent, readable
from rlsnet.learning import population
from rlsnet.runs.catalogue import started
from rlsnet.runs.folder import Run

MEANINGS = {
    "EV": f"EV: {population.TITLE} in the test",
    "(val.)": "(val.): the best in a validation during training",
    "r": "r: mean correlation of the current with its target in the last iterations",
}  # of the words in scores
HEADINGS, RIGHT = ("run", "state", "experiment", "iterations", "score", "age"), ("iterations", "age")
GAP = "  "


def show(folders: Sequence[Path], below: Path, rows: int) -> None:
    """Prints a table of runs.

    Args:
      folders: the run folders, in the order of the rows.
      below: the folder that names of runs are relative to, unless it is the run.
      rows: largest number of runs that are shown.
    """
    cells = [HEADINGS]
    for folder in folders[:rows]:
        name = readable(folder) if below == Path() else readable(os.path.join(below, folder.relative_to(below)))
        cells.append((name, *_cells(folder), age(time.time() - started(folder))))
    terminal = console(100)
    for line in lines_of(cells, terminal.width if terminal.is_terminal else None):
        terminal.print(Text(line), soft_wrap=True)
    if len(folders) > rows:
        terminal.print(Text(f"{len(folders) - rows:,} older runs are not shown; rows=null shows all."))
    if words := caption([row[HEADINGS.index("score")] for row in cells[1:]]):
        terminal.print(Text(words), style="dim")


def caption(scores: Sequence[str]) -> str:
    """The meaning of what is shown in some scores."""
    shown = {word for score in scores for word in score.split()}
    return "; ".join(meaning for word, meaning in MEANINGS.items() if word in shown) + "." * bool(shown & MEANINGS.keys())


def lines_of(rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """Aligned lines of a table, with the name of each run whole: above the other cells where these have no room beside it.

    Args:
      rows: cells of each row, the headings first.
      width: columns of the terminal; None: there is none, and so room.
    """
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    above = width is not None and sum(widths) + len(GAP) * (len(widths) - 1) > width
    lines = []
    for row in rows:
        padding = [" " * (size - cell_len(cell)) for cell, size in zip(row, widths, strict=True)]
        aligned = [f"{pad}{cell}" if name in RIGHT else f"{cell}{pad}" for name, cell, pad in zip(HEADINGS, row, padding, strict=True)]
        lines += [row[0], GAP + GAP.join(aligned[1:])] if above else [GAP.join(aligned)]
    return [line.rstrip() for line in lines]


def _cells(folder: Path) -> tuple[str, str, str, str]:
    """(state, experiment, iterations, score) of a run."""
    if not (folder / "config.yaml").exists():
        return "not started", experiment_of(folder, None), UNDEFINED, UNDEFINED
    try:
        run = run_summary.summarize(Run.open(folder))
    except UserError:
        return "damaged", experiment_of(folder, None), UNDEFINED, UNDEFINED
    done, planned = len(run.metrics), run.planned_iterations
    if run.run.busy():
        state = "running"
    elif not run.metrics and run.scores:
        state = "simulated"
    elif run.ended_early or done >= planned:
        state = "tested" if run.scores else "trained"
    else:
        state = "stopped"
    return state, experiment_of(folder, run), f"{done:,}/{planned:,}", score_of(run)


def experiment_of(folder: Path, run: RunSummary | None) -> str:
    """Name of the experiment of a run, by the command line that started it or else by its settings."""
    try:
        given = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text())
        names = [str(text).partition("=")[2] for text in given or [] if str(text).startswith("config=")]
        return names[-1] if names else "sinusoid"
    except (OSError, yaml.YAMLError):
        pass
    first = differences.command(run.settings)[:1] if run is not None else []
    return first[0].removeprefix("config=") if first and first[0].startswith("config=") else "sinusoid" if run else UNDEFINED


def score_of(run: RunSummary) -> str:
    """The explained variance of the test or, without a test against rates, of a validation; else the correlation in training."""
    if (explained := run.typical(POPULATION)) is not None:
        return f"EV {percent(explained)}"
    if run.best_validation is not None:
        return f"EV {percent(run.best_validation)} (val.)"
    correlation = run.last_correlation
    return UNDEFINED if correlation is None else f"r {correlation:.2f}"


def age(seconds: float) -> str:
    """A time since something as one number, such as 5 min or 3 d."""
    for unit, length, most in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172800)):
        if seconds < most:
            return f"{max(0, seconds) / length:.0f} {unit}"
    return f"{seconds / 86400:,.0f} d"
