"""Figures of scores: correlations with their ceiling and a baseline, explained variance, and mean rates."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from rlsnet.analysis.plots.parts import draw_cumulative, draw_spread, groups_of, outer_bins, place_legend_above, shortened
from rlsnet.analysis.plots.style import (
    BASELINE_LINE,
    DATA,
    DATA_LINE,
    DENSITY,
    EXC,
    INH,
    INK,
    LEAST_EXPLAINED,
    MODEL,
    MODEL_LINE,
    SMALL,
    SOFT,
    Panel,
    PanelFigure,
    condition_colours,
    condition_handles,
    draw_identity,
)
from rlsnet.analysis.score_tables import MAX_GROUPS
from rlsnet.analysis.test_results import RunResults
from rlsnet.analysis.verdict import population_rows
from rlsnet.data import statistics
from rlsnet.errors import UserError
from rlsnet.io.formatting import percent
from rlsnet.learning import scores
from rlsnet.learning.population import EXPLAINED, TITLE

MARKERS = "osD^v"  # of baselines
BASELINE = "condition average"  # baseline of a correlation: the recorded rates, averaged over conditions
OF_MODEL = {  # correlations of the model: label and colour, where it is not the first of them
    "heldout_correlation": ("model, held-out trials", MODEL),
    "rate_correlation": ("model, trials trained on", "#17a2a2"),
    "current_correlation": ("model, currents", "#b08bc0"),
}
FLOOR = 0.05  # Hz, lowest rate on a logarithmic axis
MANY = 4000  # points, above which their density is drawn


def draw_explained(axis: Any, names: Sequence[str], groups: Sequence[tuple[str, Sequence[float | None]]], colours: Sequence[str]) -> None:
    """Draws explained variances as rows from the bottom up: a bar for the model, a line for the ceiling, marks for baselines.

    Args:
      axis: of the panel.
      names: of the predictions, keys of EXPLAINED.
      groups: (label, explained variance of each prediction; None: unknown) of each row.
      colours: of the bars.
    """
    row = np.arange(len(groups))
    for index, name in enumerate(names):
        values = np.maximum(np.array([each[index] for _, each in groups], float), LEAST_EXPLAINED)  # None: NaN
        if name == "model":
            axis.barh(row, values, height=0.6, color=colours, alpha=0.75)
            axis.barh(0, 0, color=INK, alpha=0.75, label=EXPLAINED[name])
        elif name == "ceiling":
            axis.plot(values, row, "|", color=INK, ms=13, mew=2, label=EXPLAINED[name])
        else:
            style = {"marker": MARKERS[index % len(MARKERS)], "ls": "", "ms": 4, "fillstyle": "none", "clip_on": False, "zorder": 3}
            axis.plot(values, row, color=INK, label=EXPLAINED[name], **style)
    axis.set(xlabel=f"{TITLE}\n(at the left edge: {LEAST_EXPLAINED:g} or less)", xlim=(LEAST_EXPLAINED, 1))
    axis.set_yticks(row, [shortened(label, 24) for label, _ in groups])
    axis.axvline(0, color=INK, lw=0.6)
    handles, labels = axis.get_legend_handles_labels()
    by_name = dict(zip(labels, handles, strict=True))
    place_legend_above(axis, 2, handles=[by_name[EXPLAINED[name]] for name in names])


def explained_variance(results: RunResults) -> PanelFigure:
    """Population explained variance of the network, of the other half of the trials and of baselines, by condition and region."""
    population = results.explained()
    names, groups = population_rows(population)
    title = TITLE.capitalize() + (f"; the first {MAX_GROUPS} of {len(groups)} rows" if len(groups) > MAX_GROUPS else "")
    groups = groups[:MAX_GROUPS][::-1]
    of_condition = dict(zip(results.conditions, condition_colours(len(results.conditions)), strict=True))
    colours = [of_condition.get(label, SOFT) if len(of_condition) > 1 else SOFT for label, _ in groups]
    colours[-1] = INK  # all neurons

    def draw(axes: Sequence[Any]) -> None:
        """Draws all rows, and the standard error of the network."""
        draw_explained(axes[0], names, groups, colours)
        if (error := population.get("standard_error")) is not None:
            axes[0].errorbar(groups[-1][1][names.index("model")], len(groups) - 1, xerr=error, color=SOFT, capsize=2, lw=1)
            axes[0].set_xlabel(f"{axes[0].get_xlabel()}\nerror bar: standard error over trials")

    together = ", ".join(
        f"{EXPLAINED[name]} {percent(value)}" for name, value in zip(names, groups[-1][1], strict=True) if value is not None
    )
    label = f"{TITLE.capitalize()} by condition and region; of all neurons: {together}."
    return PanelFigure(title, (Panel(label, draw),), (3.6, 1.3 + 0.2 * len(groups)))


def baseline_correlation(results: RunResults) -> np.ndarray | None:
    """[C, n] correlation of the recorded rates with the rates trained on, averaged over conditions: what a model of no condition reaches.

    Both are averaged over the window of the scores. None for a single condition, or without recorded rates.
    """
    data = results.compared().data
    conditions = len(results.conditions)
    if "current" in data or conditions < 2:
        return None
    weights, found = scores.window_weights(results.config.trial), []
    average = statistics.mean_known(np.stack([results.read("rate_target", c) for c in range(conditions)]))
    for c in range(conditions):
        rate = results.read(data, c)
        windowed = (scores.windowed_known(weights, each, np.isfinite(rate) & np.isfinite(average)) for each in (rate, average))
        found.append(statistics.correlation_known(*windowed))
    return np.where(results.trained(), np.stack(found), np.nan)


def correlations(results: RunResults) -> PanelFigure:
    """Correlation of model and target over neurons: distributions, and spread by region, with the noise ceiling and a baseline."""
    score = results.compared().score
    baseline = baseline_correlation(results)
    lines: list[tuple[str, str, np.ndarray, str, Any]] = []  # array, label, values, colour, line
    if results.has("noise_ceiling"):
        lines.append(("noise_ceiling", "noise ceiling", results.score("noise_ceiling"), DATA, DATA_LINE))
    for name, (label, shade) in OF_MODEL.items():
        if results.has(name):
            lines.append((name, label, results.score(name), MODEL if name == score else shade, MODEL_LINE))
    if baseline is not None:
        lines.append(("baseline", BASELINE, baseline, SOFT, BASELINE_LINE))

    def cumulative(axes: Sequence[Any]) -> None:
        """Draws the cumulative distribution of each correlation."""
        for _, label, values, colour, line in lines:
            draw_cumulative(axes[0], values, colour, line, label)
        lowest = min((float(np.nanquantile(v, 0.02)) for _, _, v, _, _ in lines if np.isfinite(v).any()), default=-1)
        axes[0].set(xlim=(max(-1, np.floor(5 * min(lowest, 0.8)) / 5), 1), ylim=(0, 1))
        axes[0].set(xlabel="correlation of a neuron in a condition", ylabel="fraction of neurons and conditions below")
        place_legend_above(axes[0], 1, title="median", title_fontsize=7, alignment="left")

    groups = list(groups_of(results.region, results.read("excitatory")))

    def by_group(axes: Sequence[Any]) -> None:
        """Draws the spread over the neurons of each region or class."""
        shown = {"noise_ceiling": "|", score: "o", "baseline": "s"}
        series = {label: (statistics.mean_known(values), colour, shown[name]) for name, label, values, colour, _ in lines if name in shown}
        draw_spread(axes[0], groups, series)
        axes[0].set_xlabel("correlation of a neuron\nmedian, quartiles, 5 to 95 %")
        place_legend_above(axes[0], 1, right=True)

    kinds = "region" if results.region is not None else "class"
    panels = [
        Panel("Cumulative distributions over neurons of the correlation of model and target.", cumulative),
        Panel(f"Correlation of model and target by {kinds}: median, quartiles and 5 to 95 % of the neurons.", by_group),
    ]
    if results.has("noise_ceiling", score):
        words = "Correlation of each neuron against its noise ceiling, the line where they are equal."
        panels.append(Panel(words, partial(_against_ceiling, results, score)))
    return PanelFigure("Correlation of model and target", tuple(panels), (2.4, 3.3) if len(panels) == 3 else (3.6, 3.0), columns=3)


def _against_ceiling(results: RunResults, score: str, axes: Sequence[Any]) -> None:
    """Draws a score of each neuron and condition against the noise ceiling."""
    x, y = results.score("noise_ceiling"), results.score(score)
    known = np.isfinite(x) & np.isfinite(y)
    low = 0.0
    if known.any():
        low = float(np.floor(10 * min(np.quantile(x[known], 0.01), 0.9)) / 10)
        bottom = float(np.floor(10 * min(np.quantile(y[known], 0.01), 0.9)) / 10)
        _draw_points(axes[0], x, y, known, condition_colours(len(x)))
        axes[0].set(xlim=(low, 1), ylim=(bottom, 1))
    draw_identity(axes[0], low, 1)
    axes[0].set(xlabel="noise ceiling", ylabel=f"correlation with {'held-out' if score[0] == 'h' else 'recorded'} rates")
    _legend_of_points(axes[0], results, int(known.sum()))


def _draw_points(axis: Any, x: np.ndarray, y: np.ndarray, known: np.ndarray, colours: Sequence[str], log: bool = False) -> None:
    """Draws x and y [C, n] as points in the colours of conditions, or the density of many points."""
    if known.sum() > MANY:
        scale = {"xscale": "log", "yscale": "log"} if log else {}
        axis.hexbin(x[known], y[known], gridsize=45, bins="log", cmap=DENSITY, mincnt=1, linewidths=0, **scale)
        return
    if log:
        axis.set(xscale="log", yscale="log")
    for c, colour in enumerate(colours):
        axis.plot(x[c][known[c]], y[c][known[c]], ".", ms=2.5, mew=0, alpha=0.6, color=colour, rasterized=True)


def _legend_of_points(axis: Any, results: RunResults, points: int) -> None:
    """A legend of the conditions' colours or, of many points, of their density, and of the lines that have a label."""
    density = Line2D([], [], color=SOFT, marker="h", ls="", label="darker: more neurons")
    shown = condition_handles(results.conditions) if points <= MANY else [density]
    handles = [*shown, *axis.get_legend_handles_labels()[0]]
    place_legend_above(axis, 3 if len(handles) == 3 else 2, handles=handles)


def rates(results: RunResults) -> PanelFigure:
    """Mean rates: model against recording, and errors by region, where there is a recording, else histograms by class."""
    model, excitatory = results.read("rate"), results.read("excitatory")
    if not results.has("rate_target"):
        histogram = Panel("Histogram of mean firing rates by class.", partial(_by_class, results, model, excitatory))
        return PanelFigure("Firing rates", (histogram,))
    data = np.stack([statistics.mean_known(results.read("rate_target", condition)) for condition in range(len(model))])
    known = np.isfinite(data) & results.trained()
    if not known.any():
        raise UserError(f"{results.run.test}: no neuron has a recorded rate.")
    words = rate_words(data[known], model[known])

    def against(axes: Sequence[Any]) -> None:
        """Draws the rate of each neuron, model against recording."""
        x, y = np.maximum(data, FLOOR), np.maximum(model, FLOOR)
        span, axis = (FLOOR, 1.3 * max(x[known].max(), y[known].max())), axes[0]
        _draw_points(axis, x, y, known, condition_colours(len(x)), log=True)
        draw_identity(axis, *span)
        edge = f"\n(at the left and the lower edge: {FLOOR:g} Hz or less)" if min(data[known].min(), model[known].min()) < FLOOR else ""
        axis.set(xlabel=f"recorded rate (Hz){edge}", ylabel="model rate (Hz)", xlim=span, ylim=span)
        axis.text(0.04, 0.97, words.replace(", ", "\n"), transform=axis.transAxes, va="top", fontsize=SMALL)
        _legend_of_points(axis, results, int(known.sum()))

    def errors(axes: Sequence[Any]) -> None:
        """Draws the spread of the errors by region or class."""
        groups = list(groups_of(results.region, excitatory))
        colours = condition_colours(len(model))
        few = (
            dict(zip(results.conditions, zip(np.where(known, model - data, np.nan), colours, strict=True), strict=True))
            if len(model) < 4
            else {}
        )
        series = {name: (error, colour, "o") for name, (error, colour) in few.items()}
        draw_spread(
            axes[0], groups, series or {"mean over conditions": (statistics.mean_known(np.where(known, model - data, np.nan)), INK, "o")}
        )
        axes[0].axvline(0, color=SOFT, lw=0.8)
        axes[0].set_xlabel("rate of model minus recorded rate (Hz)\nmedian, quartiles, 5 to 95 % of neurons")
        if len(series) > 1 or not series:
            place_legend_above(axes[0], 3, right=True)

    panels = (
        Panel(f"Mean rate of each neuron, model against recording; {words}.", against),
        Panel("Error of the mean rate by region: median, quartiles and 5 to 95 % of the neurons.", errors),
    )
    return PanelFigure("Mean firing rates, model and recording", panels, (3.6, 3.1))


def rate_words(data: np.ndarray, model: np.ndarray) -> str:
    """Correlation, slope of the regression of the model's on the recorded rates, and mean error, in words."""
    error = f"mean error {np.mean(model - data):+.2f} Hz of {np.mean(data):.2f} Hz"
    if len(data) < 2 or not np.ptp(data) or not np.ptp(model):
        return error
    return f"r = {np.corrcoef(data, model)[0, 1]:.2f}, slope {np.polyfit(data, model, 1)[0]:.2f}, {error}"


def _by_class(results: RunResults, model: np.ndarray, excitatory: np.ndarray, axes: Sequence[Any]) -> None:
    """Draws histograms of the mean rates [C, n]; the bins are whole multiples of the rate of one spike in all trials."""
    trials = 1 if results.test is None else int(results.test.attrs["trials"])
    one_spike = 1000 / (trials * results.config.trial.duration)
    top = max(one_spike, float(np.quantile(model, 0.995)))
    width = one_spike * max(1, round(top / 30 / one_spike))
    bins = np.arange(-0.5 * one_spike, top + 2 * width, width)
    for members, colour, name in ((excitatory, EXC, "excitatory"), (~excitatory, INH, "inhibitory")):
        values = model[:, members].ravel()
        label = f"{name}: mean {values.mean():.1f} Hz, s.d. {values.std():.1f} Hz" if values.size else name
        axes[0].hist(np.minimum(values, 0.5 * (bins[-1] + bins[-2])), bins=bins, histtype="step", lw=1.3, color=colour, label=label)
    beyond = outer_bins(model.ravel(), -np.inf, bins[-1], "last bin: values beyond, too")
    axes[0].set(xlabel=f"firing rate (Hz){beyond}", ylabel="neurons", xlim=(0, bins[-1]))
    place_legend_above(axes[0], 1)
