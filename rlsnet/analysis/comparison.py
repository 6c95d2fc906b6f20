"""Comparison of runs: settings in which they differ, progress, scores and use of the machine, as a table in the terminal."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from rlsnet.analysis import run_summary
from rlsnet.analysis.run_summary import POPULATION, PRIMARY_SCORES, RunSummary
from rlsnet.analysis.verdict import best_baseline, verdict
from rlsnet.config import differences
from rlsnet.errors import UserError
from rlsnet.io.formatting import UNDEFINED, byte_size, console, counted, percent, readable
from rlsnet.learning import population
from rlsnet.learning.scores import SCORES
from rlsnet.runs.catalogue import run_folders
from rlsnet.runs.folder import Run

WIDTH = 160  # columns, where the output is not a terminal
MAX_WIDTH = 22  # columns of a text in a table that has no room for all columns
MIN_NAME = 16  # columns of the names of runs, at least
MAX_NAMED = 5  # columns without room that are named
LEADING_SETTINGS = 3  # settings shown before the results
VALIDATION = "validation"  # sorting by the best score of validation, where some runs have no test
TRAINING = "training"  # sorting by the last correlation in training, where some have no validation either
HIDDEN_SCORES = ("reliability", "explained_variance", "model_ceiling")


@dataclasses.dataclass(frozen=True)
class Column:
    """Column of a comparison.

    name: heading of the column.
    texts: text for each run.
    values: numbers for sorting, None for a run without a number.
    rank: in a narrow terminal, columns of the highest rank are left out first; those of rank 0 are always shown.
    """

    name: str
    texts: list[str]
    values: list[float | None]
    rank: int = 0

    @property
    def heading(self) -> str:
        """The name with a line for each word, and for each part of the name of a setting."""
        return self.name.replace(" ", "\n").replace(".", ".\n")

    @property
    def width(self) -> int:
        """Width in characters, with the heading on several lines; a long text has several lines too."""
        longest = max(map(len, self.texts))
        return max(min(longest, MAX_WIDTH), *map(len, self.heading.split()))

    @property
    def numeric(self) -> bool:
        """Whether the column has numbers."""
        return any(value is not None for value in self.values)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Comparison of several runs.

    names: names of the runs, the best first.
    runs: their summaries, in the same order.
    differing: (setting, its value in each run) of the settings that are not the same in all.
    score: score that the runs are sorted by: POPULATION, one of PRIMARY_SCORES, VALIDATION or TRAINING.
    unreadable: (name, reason) of the folders that could not be read.
    """

    names: list[str]
    runs: list[RunSummary]
    differing: list[tuple[str, list[Any]]]
    score: str
    unreadable: list[tuple[str, str]]


def read(paths: Sequence[Path]) -> Comparison:
    """The comparison of all runs at or below some folders; raises UserError where there is none."""
    folders = list(dict.fromkeys(folder for path in paths for folder in run_folders(path)))
    if not folders:
        raise UserError(f"{' '.join(map(str, paths))}: contains no run; expected run folders, or a folder with runs in it.")
    readable, unreadable = [], []
    for name, folder in zip(_names(folders), folders, strict=True):
        summary = _summary(folder)
        if isinstance(summary, str):
            unreadable.append((name, summary))
        else:
            readable.append((name, summary))
    runs = [run for _, run in readable]
    same_trials = len({run.population.get("trained_on") == "all" for run in runs}) == 1
    ranking_scores = (POPULATION,) * same_trials + PRIMARY_SCORES + (VALIDATION,)
    score = next((name for name in ranking_scores if runs and all(sort_value(run, name) is not None for run in runs)), TRAINING)
    readable.sort(key=lambda item: -_or_lowest(sort_value(item[1], score)))
    runs = [run for _, run in readable]
    return Comparison([name for name, _ in readable], runs, run_summary.differing_settings(runs), score, unreadable)


def _summary(folder: Path) -> RunSummary | str:
    """The summary of a run, or the reason why it cannot be read."""
    try:
        return run_summary.summarize(Run.open(folder))
    except UserError as error:
        return str(error) if (folder / "config.yaml").exists() else "has no config.yaml: it failed before it started, or waits to start."
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # damaged files raise many kinds
        return f"cannot be read ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})."


def sort_value(run: RunSummary, score: str) -> float | None:
    """The number that a comparison sorts a run by."""
    if score == VALIDATION:
        return run.best_validation
    return run.last_correlation if score == TRAINING else run.typical(score)


def _or_lowest(value: float | None) -> float:
    return -np.inf if value is None or not np.isfinite(value) else value


def _names(folders: Sequence[Path]) -> list[str]:
    """Short names of folders: their paths below the deepest folder that contains all."""
    paths = [str(folder.resolve()) for folder in folders]
    common = os.path.commonpath(paths) if len(paths) > 1 else str(folders[0].resolve().parent)
    return [readable(os.path.relpath(path, common) if path != common else folder.name) for path, folder in zip(paths, folders, strict=True)]


def columns(comparison: Comparison) -> list[Column]:
    """The columns of a comparison, without the names of the runs; a column that is empty for all runs is left out."""
    runs = comparison.runs
    settings = [
        Column(name, [differences.shown(value) for value in values], [_number(value) for value in values], 4)
        for name, values in comparison.differing
    ]
    leading = range(min(len(settings), LEADING_SETTINGS))
    result = [dataclasses.replace(settings[index], rank=index) for index in leading]

    def add(name: str, values: list[Any], text: Callable[[Any], str], rank: int, score: str = "") -> None:
        """Adds a column with a value for each run."""
        known = [None if value is None or not np.isfinite(value) else float(value) for value in values]
        texts = [UNDEFINED if value is None else text(value) for value in known]
        result.append(Column(name, texts, known, 0 if score == comparison.score else rank))

    result.append(Column("state", [run.state for run in runs], [None] * len(runs), 2))
    add("iterations", [len(run.metrics) or None for run in runs], "{:,.0f}".format, 2)
    add("last correlation", [run.last_correlation for run in runs], "{:.3f}".format, 2, TRAINING)
    add("best validation", [run.best_validation for run in runs], partial(percent, digits=1), 2, VALIDATION)
    explained = [run.population.get("all", {}) for run in runs]
    add("population EV", [values.get("model") for values in explained], partial(percent, digits=1), 1, POPULATION)
    add("other half's", [values.get("ceiling") for values in explained], partial(percent, digits=1), 3)
    add("best baseline's", [values.get(best_baseline(values)) for values in explained], partial(percent, digits=1), 3)
    for name, score in SCORES.items():
        if name not in HIDDEN_SCORES:
            add(f"{score.statistic} {score.label}", [run.typical(name) for run in runs], "{:.3f}".format, 3, name)
    for kind, title in (("exc", "rate E (Hz)"), ("inh", "rate I (Hz)")):
        add(title, [run.metrics[-1][f"rate_{kind}_hz"] if run.metrics else None for run in runs], "{:.2f}".format, 3)
    add("s/iteration", [run.seconds_per_iteration for run in runs], "{:.3g}".format, 2)
    add("peak memory", [run.peak_memory for run in runs], byte_size, 2)
    result += settings[LEADING_SETTINGS:]
    return [column for column in result if column.numeric or any(text != UNDEFINED for text in column.texts)]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def ranking(comparison: Comparison) -> str:
    """The number of runs, and the score that they are sorted by, in words."""
    what = "the last correlation in training"
    if comparison.score == POPULATION:
        what = f"the test's {population.TITLE}"
    elif comparison.score == VALIDATION:
        what = f"the best {population.TITLE} of a validation"
    elif comparison.score != TRAINING:
        what = f"the test's {SCORES[comparison.score].title}, median over neurons"
    return f"{counted(len(comparison.runs), 'run')}, sorted by {what}"


def verdict_of_first(comparison: Comparison) -> str:
    """What the test of the first run says, in words; "" without a test against recorded rates."""
    sentences = verdict(comparison.runs[0].population) if comparison.runs else ""
    return f"{comparison.names[0]}: {sentences}" if sentences else ""


def reservations(comparison: Comparison) -> list[str]:
    """A sentence for each run whose scores are of another recording than the one that it was trained on."""
    others = [(name, run.test_attributes.get("other_recording")) for name, run in zip(comparison.names, comparison.runs, strict=True)]
    return [f"{name}: tested with another recording than it was trained on, {readable(other)}." for name, other in others if other]


def fitting(shown: Sequence[Column], width: int) -> tuple[list[Column], list[Column]]:
    """(columns that fit in a width, columns left out), by rank."""
    fit, left = list(shown), list[Column]()
    while sum(column.width + 3 for column in fit) > width and (highest := max((c.rank for c in fit), default=0)):
        last = max(index for index, column in enumerate(fit) if column.rank == highest)
        left.insert(0, fit.pop(last))
    return fit, left


def show(comparison: Comparison) -> None:
    """Prints the comparison as a table, and below it reservations, and the folders that could not be read."""
    terminal = console(WIDTH)
    if comparison.runs:
        table = Table(title=Text(ranking(comparison)), title_justify="left")
        part = max(len(part) + 1 for name in comparison.names for part in name.split(","))  # a name is broken at its commas alone
        first = min(max(map(len, comparison.names)), max(MIN_NAME, terminal.width // 3, part))
        table.add_column("run", overflow="fold", width=first)
        room = terminal.width - first - 4
        shown, left = fitting(columns(comparison), room)
        in_one_line = sum(max(*map(len, column.texts), len(column.name)) + 3 for column in shown) <= room
        for column in shown:
            heading, width = (column.name, None) if in_one_line and not left else (column.heading, column.width)
            table.add_column(Text(heading), justify="right" if column.numeric else "left", width=width, overflow="fold")
        for index, name in enumerate(comparison.names):
            table.add_row(Text(name if len(name) <= first else name.replace(",", ",\n")), *(Text(column.texts[index]) for column in shown))
        terminal.print(table)
        if left:
            names = ", ".join(column.name for column in left[:MAX_NAMED]) + (", ..." if len(left) > MAX_NAMED else "")
            columns_left = counted(len(left), "column")
            terminal.print(Text(f"There is no room for {columns_left} ({names}); out=FILE.html shows all."), style="dim")
    if sentences := verdict_of_first(comparison):
        terminal.print(Text(sentences))
    for sentence in reservations(comparison):
        terminal.print(Text(sentence), style="yellow")
    for name, reason in comparison.unreadable:
        terminal.print(Text(f"{name}: {reason}"), style="red")
