"""Tables of stored scores as plain text, for the terminal, the log and `rlsnet info`."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from rich.console import Console
from rich.table import Table

from rlsnet.analysis.recording_summary import named
from rlsnet.io import formatting
from rlsnet.learning.scores import SCORES, typical

MAX_WIDTH = 120  # columns of a table
MAX_GROUPS = 12  # regions, or conditions, that get a row
HIDDEN = ("reliability",)  # scores that another column contains: it is in the noise ceiling
STATISTIC = "Medians over neurons; rate error: mean."
CAPTION = f"{STATISTIC} The best possible r is noise ceiling x model ceiling; the model ceiling is higher with more test.trials."


def plain_table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "", width: int | None = None) -> str:
    """A table without lines, its first column aligned left, without a trailing line end.

    Columns that have no room follow in a second block of lines, with the first column again: no cell is broken or cut.

    Without a `width` it is that of the terminal, at most 120.
    """
    width = min(MAX_WIDTH, formatting.console(MAX_WIDTH).width) if width is None else width
    columns = [[name, *cells] for name, *cells in zip(head, *rows, strict=True)]
    if sum(max(map(len, column)) + 1 for column in columns) > width:
        columns = [[name.replace(" ", "\n"), *cells] for name, *cells in columns]
    blocks = [columns[:1]]
    for column in columns[1:]:
        if len(blocks[-1]) > 1 and sum(map(_width, [*blocks[-1], column])) > width:
            blocks.append(columns[:1])
        blocks[-1] = [*blocks[-1], column]
    lines = [line for block in blocks for line in _block(block, width)]
    return "\n".join([*lines, *textwrap.wrap(caption, width)])


def _width(column: Sequence[str]) -> int:
    """Characters of a column, whose heading may have several lines, and of the gap after it."""
    return max(len(line) for text in column for line in text.split("\n")) + 1


def _block(columns: Sequence[Sequence[str]], width: int) -> list[str]:
    """Lines of a table of some columns, each with its heading first."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    for index, (heading, *_) in enumerate(columns):
        table.add_column(heading, justify="right" if index else "left", vertical="bottom", no_wrap=index > 0)
    for row in list(zip(*columns, strict=True))[1:]:
        table.add_row(*row)
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def shown_scores(*groups: Mapping[str, Any]) -> list[str]:
    """The scores that all of these groups have, in the order of columns."""
    return [name for name in SCORES if name not in HIDDEN and all(name in group for group in groups)]


def headings(names: Sequence[str]) -> list[str]:
    """Headings of the columns of these scores."""
    return [SCORES[name].heading for name in names]


def values(group: Mapping[str, Any], names: Sequence[str], spec: str) -> list[str]:
    """The typical value of each score over a group of neurons; "" where it is undefined."""
    found = [typical(group, name) for name in names]
    return ["" if value is None else formatting.number(value, spec) for value in found]


def score_table(summary: Mapping[str, Any], width: int | None = None) -> str:
    """The attribute `scores` of a test.zarr as a table of groups of neurons by scores."""
    names = shown_scores(summary["all"])
    rows = [[label, str(_count(group)), *values(group, names, ".2f")] for label, group in _groups(summary)]
    return plain_table(["", "neurons", *headings(names)], rows, CAPTION if "noise_ceiling" in names else STATISTIC, width)


def _groups(summary: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(label, scores) of all trained neurons, the classes, the largest regions, several conditions, and what is not trained."""
    yield "all", summary["all"]
    yield from summary.get("by_class", {}).items()
    regions = sorted(summary.get("by_region", {}).items(), key=lambda item: -_count(item[1]))
    yield from ((named(name), group) for name, group in regions[:MAX_GROUPS])
    conditions = list(summary.get("by_condition", {}).items())
    if len(conditions) > 1:
        yield from ((name, group) for name, group in conditions[:MAX_GROUPS] if group)
    yield from summary.get("held_out", {}).items()


def _count(group: Mapping[str, Any]) -> int:
    """The number of neurons of the score that is defined for most of them."""
    return max((score["n"] for score in group.values()), default=0)


def trained_only(results: zarr.Group, name: str) -> np.ndarray:
    """Scores [C, n] of the neurons and conditions that are trained."""
    values = np.asarray(results[name][...])
    return values[np.asarray(results["trained"][...])] if "trained" in results else values


def mean_words(values: np.ndarray) -> str:
    """Mean over neurons and conditions of a score, and how many of its values are undefined, in words."""
    if not np.isfinite(values).any():
        return "undefined"
    missing = int(np.isnan(values).sum())
    return f"mean {np.nanmean(values):.3f}" + (f" ({missing:,} of {values.size:,} values undefined)" if missing else "")


def rate_words(excitatory: np.ndarray, rate: np.ndarray) -> str:
    """Mean rates [C, n] of excitatory and inhibitory neurons in words; classes without neurons are left out."""
    classes = (("excitatory", excitatory), ("inhibitory", ~excitatory))
    return ", ".join(f"{rate[:, members].mean():.2f} Hz {name}" for name, members in classes if members.any())
