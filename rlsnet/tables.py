"""Tables of stored scores and of what a perturbation did, as text for the console, the log and `rlsnet info`."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

MOST = 12  # regions, or conditions, that are listed
HEADS = {
    "current_correlation": "current r",
    "rate_correlation": "rate r",
    "heldout_correlation": "held-out r",
    "noise_ceiling": "ceiling",
    "model_ceiling": "own ceil.",
    "explained_variance": "explained",
    "signal_explained": "sig. expl.",
    "rate_error": "error Hz",
}
MEANS = ("rate_error",)  # errors of both signs; of the others, which a few outliers would rule, the median is shown
CAPTION = "Medians (error: mean). A perfect model's r is ceiling x own ceil., which grows with test.trials."


def text(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "", width: int = 120) -> str:
    """A plain table, its first column aligned left, without a trailing line end."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    for index, name in enumerate(head):
        table.add_column(name, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return "\n".join([*(line.rstrip() for line in lines), *textwrap.wrap(caption, width)])


def _rows(summary: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(name, leaf) of all neurons, the classes, the largest regions and the conditions where there are several."""
    yield "all", summary["all"]
    yield from summary.get("by_class", {}).items()
    regions = sorted(summary.get("by_region", {}).items(), key=lambda item: -_most(item[1]))
    yield from regions[:MOST]
    conditions = list(summary.get("by_condition", {}).items())
    if len(conditions) > 1:
        yield from conditions[:MOST]


def _most(leaf: Mapping[str, Any]) -> int:
    """The neurons of the score that is defined for most."""
    return max((score["n"] for score in leaf.values()), default=0)


def of_scores(summary: Mapping[str, Any], width: int = 120) -> str:
    """The attribute `scores` of a test.zarr as a table."""
    shown = [name for name in HEADS if name in summary["all"]]
    rows = [
        [
            name,
            str(_most(leaf)),
            *(f"{leaf[score]['mean' if score in MEANS else 'median']:.2f}" if score in leaf else "" for score in shown),
        ]
        for name, leaf in _rows(summary)
    ]
    return text(["", "neurons", *(HEADS[name] for name in shown)], rows, CAPTION if "noise_ceiling" in shown else "", width)
