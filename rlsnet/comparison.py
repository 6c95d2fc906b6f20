"""Runs side by side: what differs between their settings, how far they came, how well they do, what they took."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlsnet import facts, memory, page_of_runs, reproduce
from rlsnet.config import UserError
from rlsnet.facts import MAIN, SCORES, Facts
from rlsnet.store import Run

WIDTH = 160  # columns, where the output is no terminal
FIRST = 3  # settings shown before the results
TRAINING = "training"  # the score of runs that have not all been tested


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of the comparison: a word for each run, and the number it sorts by where it has one."""

    name: str
    words: list[str]
    values: list[float | None]
    spare: int = 0  # the higher, the sooner it is left out where there is no room

    @property
    def width(self) -> int:
        """Letters that it takes, with its heading broken between words."""
        return max(map(len, [*self.words, *self.name.split()]))

    @property
    def numeric(self) -> bool:
        """Whether it holds numbers."""
        return any(value is not None for value in self.values)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Of several runs.

    names: of the runs, the best first.
    runs: the runs that could be read, in that order.
    differing: (setting, its value in each run) where these are not all the same.
    score: what they are sorted by, one of MAIN, or TRAINING.
    broken: (name, why) of the folders that could not be read.
    """

    names: list[str]
    runs: list[Facts]
    differing: list[tuple[str, list[Any]]]
    score: str
    broken: list[tuple[str, str]]


def run_folders(path: Path) -> Iterator[Path]:
    """The run folder at `path`, or those below it, begun ones included; stores are not looked into."""
    if (path / "config.yaml").exists():
        yield path
        return
    for folder, below, files in os.walk(path):
        below[:] = sorted((name for name in below if not name.endswith(".zarr")), key=_by_number)
        if "config.yaml" in files or ".hydra" in below:
            below.clear()
            yield Path(folder)


def _by_number(name: str) -> tuple[int, int, str]:
    return (0, int(name), "") if name.isdigit() else (1, 0, name)


def read(paths: Sequence[Path]) -> Comparison:
    """Reads all runs at or below some folders; UserError where there is none."""
    folders = list(dict.fromkeys(folder for path in paths for folder in run_folders(path)))
    if not folders:
        raise UserError(f"compare {' '.join(map(str, paths))}: no run there; expected run folders, or a folder with runs in it.")
    names = _names(folders)
    good, broken = [], []
    for name, folder in zip(names, folders, strict=True):
        try:
            good.append((name, facts.of(Run.open(folder, "compare"))))
        except UserError as error:
            why = str(error) if (folder / "config.yaml").exists() else "has no config.yaml: it failed before it started, or waits to start."
            broken.append((name, why))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # as many kinds as there are ways to be damaged
            broken.append((name, f"cannot be read ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})."))
    score = next((name for name in MAIN if good and all(each.typical(name) is not None for _, each in good)), TRAINING)
    good.sort(key=lambda item: -_or_least(of_score(item[1], score)))
    runs = [each for _, each in good]
    return Comparison([name for name, _ in good], runs, facts.compared(runs), score, broken)


def of_score(run: Facts, score: str) -> float | None:
    """The score of a run that comparisons sort by."""
    return run.best if score == TRAINING else run.typical(score)


def _or_least(value: float | None) -> float:
    return -np.inf if value is None or not np.isfinite(value) else value


def _names(folders: Sequence[Path]) -> list[str]:
    """Short names that tell folders apart: what they do not all have in common."""
    whole = [str(folder.resolve()) for folder in folders]
    common = os.path.commonpath(whole) if len(whole) > 1 else str(folders[0].resolve().parent)
    return [os.path.relpath(path, common) if path != common else folder.name for path, folder in zip(whole, folders, strict=True)]


def columns(found: Comparison) -> list[Column]:
    """What is shown of each run, without its name; a column that is empty for all is left out."""
    runs = found.runs
    settings = [Column(name, [reproduce.shown(v) for v in values], [_plain(v) for v in values], 2) for name, values in found.differing]
    result = [dataclasses.replace(each, spare=0) for each in settings[:FIRST]]

    def numbers(name: str, values: list[Any], words: Any, spare: int = 0) -> None:
        known = [None if v is None or not np.isfinite(v) else float(v) for v in values]
        result.append(Column(name, ["–" if v is None else words(v) for v in known], known, spare))

    result.append(Column("state", [run.state for run in runs], [None] * len(runs)))
    numbers("iterations", [len(run.metrics) or None for run in runs], "{:,.0f}".format)
    numbers("last", [run.last for run in runs], "{:.3f}".format)
    numbers("best", [run.best for run in runs], "{:.3f}".format)
    for score, title in SCORES.items():
        if score not in ("reliability", "explained_variance", "model_ceiling"):
            numbers(title, [run.typical(score) for run in runs], "{:.3f}".format, int(score != found.score))
    for kind, title in (("exc", "rate E (Hz)"), ("inh", "rate I (Hz)")):
        numbers(title, [run.metrics[-1][f"rate_{kind}_hz"] if run.metrics else None for run in runs], "{:.2f}".format, 1)
    numbers("s/iteration", [run.seconds for run in runs], "{:.3g}".format)
    numbers("peak memory", [run.peak_memory for run in runs], lambda size: memory.in_words(int(size)))
    result += settings[FIRST:]
    return [column for column in result if column.numeric or any(word != "–" for word in column.words)]


def _plain(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def said(found: Comparison) -> str:
    """What the runs are sorted by, in words."""
    what = "the best correlation in training" if found.score == TRAINING else f"the test's {SCORES[found.score]}, median over neurons"
    return f"{len(found.runs):,} run{'s' if len(found.runs) != 1 else ''}, sorted by {what}"


def fitting(shown: Sequence[Column], width: int) -> tuple[list[Column], list[Column]]:
    """The columns that there is room for, and those that there is none for."""
    kept, left = list(shown), list[Column]()
    while sum(column.width + 3 for column in kept) > width and (most := max((c.spare for c in kept), default=0)):
        last = max(index for index, column in enumerate(kept) if column.spare == most)
        left.insert(0, kept.pop(last))
    return kept, left


def show(found: Comparison) -> None:
    """Prints the comparison as a table, and what could not be read below it."""
    console = Console()
    console = console if console.is_terminal else Console(width=WIDTH)
    if found.runs:
        table = Table(title=Text(said(found)), title_justify="left")
        table.add_column("run", overflow="fold")
        kept, left = fitting(columns(found), console.width - max(map(len, found.names)) - 4)
        natural = sum(max(column.width, len(column.name)) + 3 for column in kept) + max(map(len, found.names)) + 4
        for column in kept:
            width = column.width if left or natural > console.width else None  # rich would crop the last columns
            table.add_column(Text(column.name), justify="right" if column.numeric else "left", width=width)
        for index, name in enumerate(found.names):
            table.add_row(Text(name), *(Text(column.words[index]) for column in kept))
        console.print(table)
        if left:
            console.print(Text(f"No room here for {', '.join(column.name for column in left)}; out=FILE.html shows all."), style="dim")
    for name, why in found.broken:
        console.print(Text(f"{name}: {why}"), style="red")


def page(found: Comparison) -> str:
    """The comparison as HTML."""
    return page_of_runs.page(found.names, found.runs, found.differing, columns(found), said(found), found.broken)
