"""Traces of data and model for the neurons that the model fits best, in the middle and worst."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from rlsnet.analysis import trial_spikes
from rlsnet.analysis.plots.style import (
    DATA_LINE,
    MODEL_LINE,
    SMALL,
    SOFT,
    Panel,
    PanelFigure,
    band_handle,
    condition_colours,
    condition_handles,
    draw_events,
    draw_mean,
    style_handles,
)
from rlsnet.analysis.recording_summary import evenly
from rlsnet.analysis.test_results import RunResults, recording_of
from rlsnet.data import statistics
from rlsnet.errors import UserError

MAX_CONDITIONS = 4  # that are drawn over each other
RASTER = 0.28  # of the height of an axis, for the spikes below the currents
MAX_TRIALS = 20  # in that raster


def by_score(score: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """(label, indices) of the neurons with the three best, three median and three worst scores [N], where defined."""
    order = np.argsort(score)[: int(np.isfinite(score).sum())][::-1]
    if not len(order):
        raise UserError("test.zarr: no neuron has a defined correlation.")
    middle = max(0, len(order) // 2 - 1)
    return [("best", order[:3]), ("median", order[middle : middle + 3]), ("worst", order[-3:])]


class _Traces:
    """What is drawn of some neurons: means and standard errors of data and model [C, M] by neuron, and spikes below currents.

    of_rates: whether rates are compared, not currents.
    conditions: numbers of the conditions that are drawn.
    """

    def __init__(self, results: RunResults, neurons: np.ndarray):
        self.results, self.compared = results, results.compared()
        self.of_rates = "current" not in self.compared.data
        self.conditions = evenly(len(results.conditions), MAX_CONDITIONS)
        self.counts = trial_spikes.counts_of_neurons(results, neurons)
        self.place = {int(neuron): k for k, neuron in enumerate(neurons)}
        self.recording = recording_of(results) if self.of_rates and results.has("unit") else None
        self.half, self.weights = trial_spikes.heldout_half(results), trial_spikes.smoothing(results)

    def mean(self, name: str, condition: int, neuron: int) -> np.ndarray:
        """[M] of an array of the test, smoothed."""
        return self.results.smooth(name, self.results.read(name, condition, slice(None), neuron))

    def errors(self, neuron: int) -> list[tuple[np.ndarray | None, np.ndarray | None]]:
        """Standard errors [M] of (data, model) in each condition; None where there are no single trials.

        Those of currents are of the bins, averaged over the window: a test has no currents of single trials.
        """
        bin_ms, conditions = self.results.config.trial.learn_every, range(len(self.results.conditions))
        if not self.of_rates:
            if not self.results.has("current_sd") or self.results.test is None or (trials := self.results.test.attrs["trials"]) < 2:
                return [(None, None)] * len(conditions)
            sd = [self.mean("current_sd", c, neuron) for c in conditions]
            return [(None, each / np.sqrt(trials)) for each in sd]
        recorded = None
        if self.recording is not None:
            recorded = trial_spikes.recorded_trials(self.recording, int(self.results.read("unit", neuron)), self.half)
        model = [None if self.counts is None else self.counts[c, :, :, self.place[neuron]] for c in conditions]
        data = [None if recorded is None else recorded[c] for c in conditions]

        def error(counts: np.ndarray | None) -> np.ndarray | None:
            """Standard error of the mean over trials; None without counts."""
            return None if counts is None else trial_spikes.standard_error(self.weights, counts, bin_ms)

        return [(error(each), error(other)) for each, other in zip(data, model, strict=True)]

    def explained(self, neuron: int) -> float:
        """Explained variance of a neuron: the score of the test or, for currents, 1 - mean (model - target)^2/variance of the target."""
        if self.of_rates and self.results.has("explained_variance"):
            return float(statistics.mean_known(self.results.read("explained_variance", slice(None), neuron)))
        data, model = (
            np.array([self.mean(name, c, neuron) for c in range(len(self.results.conditions))]).T
            for name in (self.compared.data, self.compared.model)
        )
        return float(np.mean(1 - statistics.ratio(statistics.mean_known((data - model) ** 2), statistics.variance(data))))


def _draw_neuron(traces: _Traces, neuron: int, title: str, axis: Any) -> None:
    """Draws one neuron: each condition in its colour, data solid, model dashed, with bands of a standard error."""
    results, colours = traces.results, condition_colours(len(traces.results.conditions))
    errors = traces.errors(neuron)
    for c in map(int, traces.conditions):
        for name, line, error in ((traces.compared.data, DATA_LINE, errors[c][0]), (traces.compared.model, MODEL_LINE, errors[c][1])):
            draw_mean(axis, results.time, traces.mean(name, c, neuron), error, colours[c], line)
    axis.set_title(title, fontsize=SMALL)
    axis.set_xlim(results.span)
    if traces.of_rates:
        axis.set_ylim(bottom=0)
    if not traces.of_rates and traces.counts is not None:
        _draw_spikes(traces, neuron, colours, axis)


def _draw_spikes(traces: _Traces, neuron: int, colours: Sequence[str], axis: Any) -> None:
    """Draws the spikes of the model below its currents, a row for each trial, at the centres of their bins."""
    assert traces.counts is not None
    inches = 0.9 * axis.get_window_extent().height / axis.figure.dpi
    low, high = axis.get_ylim()
    axis.set_ylim(low - (high - low) * RASTER / (1 - RASTER), high)
    trials = [(c, t) for c in map(int, traces.conditions) for t in range(min(traces.counts.shape[1], MAX_TRIALS // len(traces.conditions)))]
    for row, (c, trial) in enumerate(trials):
        spikes = traces.results.time[traces.counts[c, trial, :, traces.place[neuron]] > 0]
        height = RASTER * (0.04 + 0.86 * (1 - (row + 0.5) / len(trials)))  # the lowest row is above the axis
        options = {"transform": axis.get_xaxis_transform(), "ms": 0.7 * RASTER * inches * 72 / len(trials), "mew": 0.6, "color": colours[c]}
        axis.plot(spikes, np.full(len(spikes), height), "|", **options)


def examples(results: RunResults) -> PanelFigure:
    """Traces of data and model for the best, median and worst neurons, with standard errors over trials."""
    compared = results.compared()
    score = statistics.mean_known(results.score(compared.score))
    groups = by_score(score)
    traces = _Traces(results, np.unique(np.concatenate([neurons for _, neurons in groups])))

    def draw(name: str, neurons: np.ndarray, axes: Sequence[Any]) -> None:
        """Draws the neurons of one group, one below the other."""
        for axis, neuron in zip(axes, map(int, neurons), strict=False):
            explained = traces.explained(neuron)
            percent = f"{100 * explained:.0f} %" if explained > -1 else "< -100 %"
            number = f"r = {score[neuron]:.2f}, explained variance {percent if np.isfinite(explained) else 'undefined'}"
            first = f"{name.capitalize()} fits: " if neuron == neurons[0] else ""
            _draw_neuron(traces, neuron, f"{first}{results.short_name(neuron)}\n{number}", axis)
            draw_events(axis, results.clock.events, results.span, names=neuron == neurons[0])
            axis.tick_params(labelbottom=False)
        for axis in axes[len(neurons) :]:
            axis.set_visible(False)
        last = axes[min(len(axes), len(neurons)) - 1]
        last.set_xlabel(f"{results.clock.label} (s)")
        last.tick_params(labelbottom=True)
        axes[min(len(axes), len(neurons)) // 2].set_ylabel(compared.quantity)

    handles: list[Any] = [
        *condition_handles(results.conditions, traces.conditions),
        *style_handles(compared.data_label, "model", len(results.conditions)),
    ]
    if not traces.of_rates and traces.counts is not None:
        handles.append(Line2D([], [], color=SOFT, marker="|", ls="", ms=6, label="spikes of the model, a row for each trial"))
    if any(error is not None for _, neurons in groups for n in neurons[:1] for both in traces.errors(int(n)) for error in both):
        handles.append(band_handle())
    panels = []
    for name, neurons in groups:
        correlations = ", ".join(f"{score[n]:.2f}" for n in neurons)
        words = f"{name.capitalize()} fits: {compared.data_label} and model of {len(neurons)} neurons over time"
        panels.append(Panel(f"{words}, correlations {correlations}.", partial(draw, name, neurons)))
    title = f"Best, median and worst neurons by correlation: {compared.data_label} and model"
    return PanelFigure(title, tuple(panels), (2.4, 4.6), 3, 3, tuple(handles))
