"""The page of `rlsnet compare`: learning curves laid over each other and a table that can be sorted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import matplotlib
import numpy as np

from rlsnet import reproduce
from rlsnet.facts import Facts
from rlsnet.figures import Drawing, Part
from rlsnet.page import Cell, Raw, Section, document, figure, joined, paragraph, table

MOST_NAMED = 10  # runs in a legend
MOST_SAID = 6  # settings in the sentence above


def _curve(run: Facts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(iteration, seconds since the start, correlation): of several conditions, the mean of the last of each."""
    newest: dict[int, float] = {}
    number, value = [], []
    conditions = len({line["task"] for line in run.metrics})
    seconds = np.cumsum([line["seconds"] for line in run.metrics])
    for index, line in enumerate(run.metrics):
        if line["correlation"] is not None:
            newest[line["task"]] = line["correlation"]
        if len(newest) == conditions:
            number.append(index)
            value.append(np.mean(list(newest.values())))
    iteration = np.array([line["iteration"] for line in run.metrics])
    return iteration[number], seconds[number] if number else np.array([]), np.array(value)


def _labels(names: Sequence[str], differing: Sequence[tuple[str, list[Any]]]) -> list[str]:
    """What tells the runs apart: their name, and up to two settings."""
    few = [(key.rsplit(".", 1)[-1], values) for key, values in differing if not key.startswith("train.")][:2]
    return [", ".join([name, *(f"{key} {reproduce.shown(values[index])}" for key, values in few)]) for index, name in enumerate(names)]


def curves(names: Sequence[str], runs: Sequence[Facts], differing: Sequence[tuple[str, list[Any]]]) -> Drawing:
    """Correlation by iteration and by time of all runs, the first ones named."""
    labels, many = _labels(names, differing), len(runs) > MOST_NAMED
    colours = [matplotlib.colormaps["viridis"](1 - index / max(1, len(runs) - 1)) if many else f"C{index}" for index in range(len(runs))]

    def draw(against: int, axes: Sequence[Any]) -> None:
        for index in reversed(range(len(runs))):  # the best on top
            drawn = _curve(runs[index])
            label = labels[index] if index < MOST_NAMED and not against else None
            axes[0].plot(drawn[against], drawn[2], color=colours[index], lw=1.3, label=label, marker="." if len(drawn[0]) < 15 else None)
        axes[0].set(xlabel=("iteration", "time of its iterations (s)")[against], ylabel="correlation with target")
        handles, shown = axes[0].get_legend_handles_labels()
        if handles:
            axes[0].legend(handles[::-1], shown[::-1], loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0, fontsize=7.5)

    best = f"the best is {names[0]}" if names else ""
    words = f"Correlation with the target of {len(runs)} runs by iteration; {best}.", f"The same by time; {best}."
    height = 3.0 + 0.17 * min(len(runs), MOST_NAMED)
    parts = tuple(Part(text, partial(draw, index)) for index, text in enumerate(words))
    return Drawing("Learning curves", parts, (4.3, height), columns=2)


def page(
    names: Sequence[str],
    runs: Sequence[Facts],
    differing: Sequence[tuple[str, list[Any]]],
    columns: Sequence[Any],
    said: str,
    broken: Sequence[tuple[str, str]],
) -> str:
    """The whole page as HTML.

    Args:
      names: of the runs, the best first.
      runs: the runs.
      differing: settings in which they differ, with their values.
      columns: of the table, each with a name, words and values.
      said: what they are sorted by.
      broken: (name, why) of what could not be read.
    """
    trained = [index for index, run in enumerate(runs) if run.correlations]
    drawn = Raw("")
    if trained:
        some = [(key, [values[i] for i in trained]) for key, values in differing]
        caption = "From yellow, the worst, to dark, the best." if len(trained) > MOST_NAMED else ""
        drawn = figure(curves([names[i] for i in trained], [runs[i] for i in trained], some), "curves", caption)
    rows = [[name, *(Cell(c.words[i], c.values[i]) if c.numeric else c.words[i] for c in columns)] for i, name in enumerate(names)]
    body = [table(said, ("run", *(c.name for c in columns)), rows, "sortable")] if rows else []
    body += [paragraph("Press a heading to sort by it.", "note screen")] if rows else []
    lost = table("Could not be read", ("folder", "why"), broken) if broken else Raw("")
    sections = [
        Section("runs", "Runs", joined(body)),
        Section("curves", "Learning curves", drawn),
        Section("unreadable", "Not there yet, or broken", lost),
    ]
    title = f"{len(runs):,} run{'s' if len(runs) != 1 else ''} compared"
    lead = "Their settings are the same." if len(runs) > 1 else ""
    if differing:
        more = f" and {len(differing) - MOST_SAID} more settings" if len(differing) > MOST_SAID else ""
        lead = f"They differ in {', '.join(key for key, _ in differing[:MOST_SAID])}{more}."
    return document(title, "rlsnet comparison", lead, [], sections, scripts=True)
