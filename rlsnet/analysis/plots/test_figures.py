"""Figures of the stored results of a test: currents, PSTHs, spikes, correlations and rates."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from rlsnet.analysis.plots.style import DATA, DENSITY, EXC, HEAT, INH, LINES, MODEL, SOFT, Panel, PanelFigure, draw_events
from rlsnet.analysis.recording_summary import evenly
from rlsnet.analysis.score_tables import MAX_GROUPS
from rlsnet.analysis.test_results import RunResults
from rlsnet.analysis.verdict import population_rows
from rlsnet.data import statistics
from rlsnet.errors import UserError
from rlsnet.io.formatting import percent
from rlsnet.learning.population import EXPLAINED, TITLE

log = logging.getLogger(__name__)


MAX_HEATMAP_NEURONS = 2000


MAX_RASTER_NEURONS = 200


MARKERS = "osD^v"  # of baselines


def _examples_by_score(score: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """(label, indices) of the neurons with the three best, three median and three worst scores [N], where defined."""
    order = np.argsort(score)[: int(np.isfinite(score).sum())][::-1]
    if not len(order):
        raise UserError("test.zarr: no neuron has a defined correlation.")
    middle = max(0, len(order) // 2 - 1)
    return [("best", order[:3]), ("median", order[middle : middle + 3]), ("worst", order[-3:])]


def examples(results: RunResults) -> PanelFigure:
    """Traces of data and model for the best, median and worst neurons, all conditions."""
    data, model, score_name, source, label = results.compared()
    score = results.score(score_name)
    mean = statistics.mean_known(score)

    def draw(name: str, neurons: np.ndarray, axes: Sequence[Any]) -> None:
        for axis, neuron in zip(axes, neurons, strict=False):
            for condition in range(len(score)):
                style = LINES[condition % 4]
                for name_of, color, width in ((data, DATA, 1), (model, MODEL, 1.2)):
                    drawn = results.smooth(name_of, results.read(name_of, condition, slice(None), neuron))
                    axis.plot(results.time, drawn, style, color=color, lw=width)
            draw_events(axis, results.clock.events, results.span, names=neuron == neurons[0])
            axis.set_title(f"{name}: {results.unit_name(neuron)}, r = {mean[neuron]:.2f}", fontsize=8)
            axis.set_ylabel(label, fontsize=8)
            axis.tick_params(labelbottom=False)
        for axis in axes[len(neurons) :]:
            axis.set_visible(False)
        axes[len(neurons) - 1].set_xlabel(f"{results.clock.label} (s)")
        axes[len(neurons) - 1].tick_params(labelbottom=True)

    handles = [Line2D([], [], color=DATA, label=source), Line2D([], [], color=MODEL, label="model")]
    if len(score) > 1:
        handles += [Line2D([], [], color=SOFT, ls=LINES[c % 4], label=name) for c, name in enumerate(results.conditions[:4])]
    panels = []
    for name, neurons in _examples_by_score(mean):
        correlations = ", ".join(f"{mean[n]:.2f}" for n in neurons)
        words = f"{name.capitalize()} fits: {source} and model of {len(neurons)} neurons over time, correlations {correlations}."
        panels.append(Panel(words, partial(draw, name, neurons)))
    return PanelFigure("Best, median and worst neurons", tuple(panels), (3.4, 5.4), 3, 3, tuple(handles))


def heatmaps(results: RunResults) -> PanelFigure:
    """Heatmaps of data and model for the neurons with a target, scaled to a neuron's range in the data, sorted by the time of its peak."""
    data, model, _, source, label = results.compared()
    names = results.conditions[:4]
    conditions = len(names)
    known = np.isfinite(np.stack([results.read(data, c) for c in range(conditions)])).any(axis=(0, 1))
    trained = np.flatnonzero(known & results.trained().any(axis=0))
    chosen = trained[evenly(len(trained), MAX_HEATMAP_NEURONS)]
    if not len(chosen):
        raise UserError(f"{results.run.test}: none of its neurons has a target.")
    ordering, by = ("rate_target", "trials trained on") if data == "rate_heldout" else (data, source)
    first = results.smooth(ordering, results.read(ordering, 0)[:, chosen])
    order = np.argsort(np.argmax(np.nan_to_num(first, nan=-np.inf), axis=0), kind="stable")

    def draw(condition: int, axes: Sequence[Any]) -> None:
        blocks = [results.smooth(name, results.read(name, condition)[:, chosen]) for name in (data, model)]
        low, high = np.fmin.reduce(blocks[0]), np.fmax.reduce(blocks[0])
        scaled = [(b - low) / np.where(high > low, high - low, 1) for b in blocks]
        for axis, block, name in zip(axes, scaled, (source, "model"), strict=True):
            extent = (*results.span, len(chosen), 0)
            image = axis.imshow(block[:, order].T, aspect="auto", cmap=HEAT, vmin=0, vmax=1, extent=extent)
            draw_events(axis, results.clock.events, results.span, "#ffffff", names=axis is axes[0])
            axis.set_title(f"{name}, {names[condition]}" if conditions > 1 else name)
            axis.set_ylabel("neuron")
        axes[-1].set_xlabel(f"{results.clock.label} (s)")
        axes[0].tick_params(labelbottom=False)
        words = f"{label.split(' (')[0]}, scaled to the range of the {source}"
        axes[0].figure.colorbar(image, ax=list(axes), label=words, orientation="horizontal", shrink=0.6, aspect=40)

    sorted_by = f"sorted by the time of the peak in the {by}{f', {names[0]}' if conditions > 1 else ''}"
    words = f"Heatmaps of {len(chosen)} neurons over time"
    panels = tuple(Panel(f"{words}, {names[c]}: {source} above, model below; {sorted_by}.", partial(draw, c)) for c in range(conditions))
    return PanelFigure(f"All neurons, {sorted_by}", panels, (4.2, 6.2), 2, 4)


def raster(results: RunResults) -> PanelFigure:
    """Raster of one trial, with as many neurons of each class."""
    step, neuron = (results.read(f"spikes/{name}", slice(*results.read("spikes/trial_indptr", slice(0, 2)))) for name in ("step", "neuron"))
    excitatory, trial = results.read("excitatory"), results.config.trial

    def draw(axes: Sequence[Any]) -> None:
        base, axis = 0, axes[0]
        for members, colour, name in ((np.flatnonzero(excitatory), EXC, "excitatory"), (np.flatnonzero(~excitatory), INH, "inhibitory")):
            shown = members[evenly(len(members), MAX_RASTER_NEURONS // 2)]
            row = np.full(results.neurons[-1] + 1, -1)
            row[results.neurons[shown]] = base + np.arange(len(shown))
            mine = row[neuron] >= 0
            axis.plot(results.clock.seconds(step[mine] * trial.dt), row[neuron[mine]], "|", ms=2.4, color=colour, rasterized=True)
            axis.plot([], [], "|", color=colour, label=name)
            base += len(shown)
        axis.set(xlabel=f"{results.clock.label} (s)", ylabel="neuron", xlim=results.span, ylim=(-1, base))
        draw_events(axis, results.clock.events, results.span)
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, markerscale=2, borderaxespad=0)

    return PanelFigure("Spikes of one trial", (Panel(f"Raster of one trial: {len(step):,} spikes.", draw),), (5.4, 3.4))


def _histogram(axis: Any, values: np.ndarray, bins: np.ndarray, colour: str, name: str, **style: Any) -> None:
    values = values[np.isfinite(values)]
    label = f"{name}, median {np.median(values):.2f}" if values.size else f"{name}, undefined"
    axis.hist(values, bins=bins, color=colour, label=label, **style)
    if values.size:
        axis.axvline(np.median(values), color=colour, lw=0.9, ls=(0, (3, 2)))


def explained_variance(results: RunResults) -> PanelFigure:
    """Population explained variance of the network, of the other half of the trials and of baselines, by condition and region."""
    names, groups = population_rows(results.explained())
    groups = groups[:MAX_GROUPS][::-1]
    row, least = np.arange(len(groups)), -0.5

    def draw(axes: Sequence[Any]) -> None:
        for index, name in enumerate(names):
            values = np.maximum(np.array([each[index] for _, each in groups], float), least)  # None: NaN
            if name == "model":
                axes[0].barh(row, values, height=0.6, color=MODEL, alpha=0.7, label=EXPLAINED[name])
            elif name == "ceiling":
                axes[0].plot(values, row, "|", color=DATA, ms=16, mew=2, label=EXPLAINED[name])
            else:
                style = {"marker": MARKERS[index % len(MARKERS)], "ls": "", "ms": 5, "fillstyle": "none", "clip_on": False}
                axes[0].plot(values, row, color=EXC, label=EXPLAINED[name], **style)
        label = f"{TITLE} (at the left edge: {least:g} or less)"
        axes[0].set(xlabel=label, yticks=row, yticklabels=[label for label, _ in groups], xlim=(least, 1))
        axes[0].axvline(0, color=DATA, lw=0.6)
        axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0, ncols=2, columnspacing=1, handlelength=1.2)

    together = ", ".join(
        f"{EXPLAINED[name]} {percent(value)}" for name, value in zip(names, groups[-1][1], strict=True) if value is not None
    )
    label = f"{TITLE.capitalize()} by condition and region; of all neurons: {together}."
    return PanelFigure(TITLE.capitalize(), (Panel(label, draw),), (5.4, 1.8 + 0.28 * len(groups)))


def correlations(results: RunResults) -> PanelFigure:
    """Histograms over neurons of the correlation with the target and of the noise ceiling of the recording."""
    bins = np.linspace(-1, 1, 61)
    names = {"current_correlation": ("current", SOFT), "rate_correlation": ("rate", EXC), "heldout_correlation": ("rate, held out", MODEL)}

    def draw(axes: Sequence[Any]) -> None:
        if results.has("noise_ceiling"):
            _histogram(axes[0], results.score("noise_ceiling").ravel(), bins, DATA, "noise ceiling", alpha=0.25)
        for name, (label, colour) in names.items():
            if results.has(name):
                _histogram(axes[0], results.score(name).ravel(), bins, colour, label, histtype="step", lw=1.5)
        axes[0].set(xlabel="correlation of model and target", ylabel="neurons", xlim=(-1, 1), xticks=np.linspace(-1, 1, 5))
        axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0, ncols=2, columnspacing=1, handlelength=1.2)

    def against(axes: Sequence[Any]) -> None:
        score = "heldout_correlation" if results.has("heldout_correlation") else "rate_correlation"
        x, y = results.score("noise_ceiling").ravel(), results.score(score).ravel()
        known = np.isfinite(x) & np.isfinite(y)
        axes[0].hexbin(x[known], y[known], gridsize=40, bins="log", cmap=DENSITY, mincnt=1, extent=(0, 1, -1, 1), linewidths=0)
        axes[0].plot([0, 1], [0, 1], color=DATA, lw=0.9)
        axes[0].set(
            xlabel="noise ceiling", ylabel=f"correlation{' with held-out trials' if score[0] == 'h' else ''}", xlim=(0, 1), ylim=(-1, 1)
        )

    panels = [Panel("Histogram of the correlation of model and target over neurons.", draw)]
    if results.has("noise_ceiling", "rate_correlation"):
        panels.append(Panel("Correlation of each neuron against its noise ceiling, the line where they are equal.", against))
    return PanelFigure("Correlation of model and target", tuple(panels), columns=2)


def rates(results: RunResults) -> PanelFigure:
    """Mean rates: model against recording where there is one, else histograms by class."""
    model, excitatory = results.read("rate"), results.read("excitatory")

    def by_class(axes: Sequence[Any]) -> None:
        top = max(1.0, float(np.quantile(model, 0.995)))
        for members, colour, name in ((excitatory, EXC, "excitatory"), (~excitatory, INH, "inhibitory")):
            values = model[:, members].ravel()
            label = f"{name}, mean {values.mean():.1f} Hz" if values.size else name
            axes[0].hist(values, bins=np.linspace(0, top, 51), histtype="step", lw=1.5, color=colour, label=label)
        axes[0].set(xlabel="firing rate (Hz)", ylabel="neurons")
        axes[0].legend()

    if not results.has("rate_target"):
        return PanelFigure("Firing rates", (Panel("Histogram of mean firing rates by class.", by_class),))
    data = np.stack([statistics.mean_known(results.read("rate_target", condition)) for condition in range(len(model))]).ravel()
    known, floor = np.isfinite(data) & results.trained().ravel(), 0.05
    if not known.any():
        raise UserError(f"{results.run.test}: no neuron has a recorded rate.")
    x, y = np.maximum(data[known], floor), np.maximum(model.ravel()[known], floor)
    correlation = f"r = {np.corrcoef(x, y)[0, 1]:.2f}" if len(x) > 1 else ""

    def against(axes: Sequence[Any]) -> None:
        span, axis = (floor, 1.3 * max(x.max(), y.max())), axes[0]
        options = {"xscale": "log", "yscale": "log", "bins": "log", "extent": tuple(np.log10([*span, *span]))}
        axis.hexbin(x, y, gridsize=50, cmap=DENSITY, mincnt=1, linewidths=0, **options)
        axis.plot(span, span, color=MODEL, lw=1)
        axis.set(xlabel="recorded rate (Hz)", ylabel="model rate (Hz)", xlim=span, ylim=span, title=correlation)
        axis.set_aspect("equal")

    return PanelFigure("Firing rates", (Panel(f"Mean rate of each neuron, model against recording; {correlation}.", against),), (4.2, 3.9))
