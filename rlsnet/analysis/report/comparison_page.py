"""Page of a comparison of runs: learning curves in common axes and a sortable table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import matplotlib
import numpy as np
from matplotlib.lines import Line2D

from rlsnet.analysis.comparison import Comparison, columns, ranking, reservations, verdict_of_first
from rlsnet.analysis.plots import score_figures
from rlsnet.analysis.plots.style import SOFT, Panel, PanelFigure, integer_ticks
from rlsnet.analysis.report.html import Block, Cell, Number, Page, Paragraph, Section, Table, figure
from rlsnet.analysis.run_summary import RunSummary
from rlsnet.config import differences
from rlsnet.io.formatting import counted
from rlsnet.learning.population import EXPLAINED, TITLE

MAX_LEGEND = 10  # runs in the legend
MAX_BARS = 20  # runs whose explained variance is drawn
MAX_LABEL = 50  # characters of a label in the legend
MAX_SETTINGS = 6  # settings in the sentence below the title


def page(comparison: Comparison) -> str:
    """The comparison as an HTML document."""
    runs, differing = comparison.runs, comparison.differing
    sections = [
        Section("runs", "Runs", _runs(comparison)),
        Section("scores", "Explained variance", _scores(comparison)),
        Section("curves", "Learning curves", _curves(comparison)),
        Section("unreadable", "Not started or unreadable", _unreadable(comparison)),
    ]
    lead = "Their settings are the same." if len(runs) > 1 else ""
    if differing:
        more = f" and {len(differing) - MAX_SETTINGS} more settings" if len(differing) > MAX_SETTINGS else ""
        lead = f"They differ in {', '.join(key for key, _ in differing[:MAX_SETTINGS])}{more}."
    return Page(f"{counted(len(runs), 'run')} compared", "rlsnet comparison", lead, sections).html()


def _runs(comparison: Comparison) -> list[Block]:
    """The table of runs, the best first."""
    if not comparison.runs:
        return []
    shown = columns(comparison)
    rows: list[list[Cell]] = [
        [name, *(Number(c.texts[index], c.values[index]) if c.numeric else c.texts[index] for c in shown)]
        for index, name in enumerate(comparison.names)
    ]
    table = Table(ranking(comparison), ("run", *(column.name for column in shown)), rows, sortable=True)
    sentences = [verdict_of_first(comparison), *reservations(comparison)]
    return [*(Paragraph(each) for each in sentences if each), table, Paragraph("Click a heading to sort the table.", "note screen")]


def _scores(comparison: Comparison) -> list[Block]:
    """Explained variance of the first runs of the table that have one, beside the other half of the trials and baselines."""
    tested = [
        (name, run.population["all"]) for name, run in zip(comparison.names, comparison.runs, strict=True) if run.population.get("all")
    ]
    if not tested:
        return []
    names = [name for name in EXPLAINED if any(name in values for _, values in tested)]
    groups = [(label, [values.get(name) for name in names]) for label, values in tested[:MAX_BARS][::-1]]
    draw = partial(score_figures.draw_explained, names=names, groups=groups, colours=[SOFT] * len(groups))
    panel = Panel(f"{TITLE.capitalize()} of {len(groups)} runs; the first is {tested[0][0]}.", lambda axes: draw(axes[0]))
    more = f" The first {MAX_BARS} of {len(tested)} runs." if len(tested) > MAX_BARS else ""
    words = f"Vertical lines: the other half of the recorded trials. Markers: simpler predictions.{more}"
    return [figure(PanelFigure(TITLE.capitalize(), (panel,), (3.6, 1.3 + 0.2 * len(groups))), words)]


def _curves(comparison: Comparison) -> list[Block]:
    """Learning curves of the runs that were trained."""
    trained = [index for index, run in enumerate(comparison.runs) if run.correlations]
    if not trained:
        return []
    differing = [(key, [values[index] for index in trained]) for key, values in comparison.differing]
    drawn = learning_curves([comparison.names[i] for i in trained], [comparison.runs[i] for i in trained], differing)
    return [figure(drawn, "Colours go from yellow (the worst run) to dark (the best run)." if len(trained) > MAX_LEGEND else "")]


def _unreadable(comparison: Comparison) -> list[Block]:
    return [Table("Folders without a readable run", ("folder", "reason"), comparison.unreadable)] if comparison.unreadable else []


def learning_curves(names: Sequence[str], runs: Sequence[RunSummary], differing: Sequence[tuple[str, list[Any]]]) -> PanelFigure:
    """Correlation by iteration and by time of all runs, with a legend of the first ones."""
    labels, many = _labels(names, differing), len(runs) > MAX_LEGEND
    colours = [matplotlib.colormaps["viridis"](1 - index / max(1, len(runs) - 1)) if many else f"C{index}" for index in range(len(runs))]

    def draw(against: int, axes: Sequence[Any]) -> None:
        """Draws the curve of each run against the iteration (0) or the time (1)."""
        for index in reversed(range(len(runs))):  # the best on top
            *x, correlation = _curve(runs[index])
            marker = "." if len(correlation) < 15 else None
            axes[0].plot(x[against], correlation, color=colours[index], lw=1.3, marker=marker)
        if not against:
            integer_ticks(axes[0].xaxis)
        axes[0].set(xlabel=("iteration", "training time (s)")[against], ylabel="correlation with target")

    best = f"the best is {names[0]}" if names else ""
    texts = f"Correlation with the target of {len(runs)} runs by iteration; {best}.", f"The same by time; {best}."
    handles = tuple(Line2D([], [], color=colours[index], lw=1.3, label=label) for index, label in enumerate(labels[:MAX_LEGEND]))
    panels = tuple(Panel(text, partial(draw, index)) for index, text in enumerate(texts))
    return PanelFigure("Learning curves", panels, (3.6, 2.8), handles=handles)


def _curve(run: RunSummary) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(iteration, seconds since the start, correlation) of a run; with several conditions, the mean of the last of each."""
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
    """Label of each run in the legend: up to two of the settings in which the runs differ, after its name unless this consists of them."""
    few = [(key.rsplit(".", 1)[-1], values) for key, values in differing if not key.startswith("train.")][:2]
    labels = []
    for index, name in enumerate(names):
        given = ", ".join(f"{key} {_short(values[index])}" for key, values in few)
        is_of_sweep = bool(given) and all("=" in part for part in name.rsplit("/", 1)[-1].split(","))
        label = given if is_of_sweep and len(differing) <= len(few) else f"{name}: {given}" if given else name
        labels.append(label if len(label) <= MAX_LABEL else f"{label[: MAX_LABEL - 1]}\u2026")
    return labels


def _short(value: Any) -> str:
    """A value of a setting, a number without zeros at its end."""
    return f"{value:g}" if isinstance(value, float) else differences.shown(value)
