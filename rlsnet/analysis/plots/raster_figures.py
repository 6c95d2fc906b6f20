"""Rasters of single trials, of the data beside the model, by region and class, with the population rate below."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from rlsnet.analysis import trial_spikes
from rlsnet.analysis.plots.parts import Rows, shortened
from rlsnet.analysis.plots.style import EXC, INH, WIDTH, Panel, PanelFigure, condition_colours, draw_events
from rlsnet.analysis.recording_summary import evenly
from rlsnet.analysis.test_results import RunResults, recording_of
from rlsnet.data import trial_counts
from rlsnet.data.recordings import Recording

MAX_NEURONS = 240
MAX_CONDITIONS = 2
RATE_BIN = 0.02  # s, of the population rate, or the bin of the data where it is longer


@dataclasses.dataclass(frozen=True)
class Spikes:
    """Spikes of one trial.

    time: [spikes] s.
    neuron: [spikes] row of the neuron among those that are drawn, before they are sorted.
    known: number of the neurons that were recorded in the trial.
    """

    time: np.ndarray
    neuron: np.ndarray
    known: int


def of_counts(counts: np.ndarray, rows: np.ndarray, edges: np.ndarray) -> Spikes:
    """Spikes spread evenly over their bins, from counts [M, U].

    Args:
      counts: spikes in each bin of U units.
      rows: [U] rows of the units; -1: not drawn.
      edges: [M + 1] s, of the bins.
    """
    time, neuron = [np.zeros(0)], [np.zeros(0, int)]
    mine = counts[:, rows >= 0]
    for k in range(1, int(mine.max(initial=0)) + 1):
        for place in range(k):
            bins, units = np.nonzero(mine == k)
            time.append(edges[bins] + (place + 0.5) / k * np.diff(edges)[bins])
            neuron.append(rows[rows >= 0][units])
    return Spikes(np.concatenate(time), np.concatenate(neuron), int((rows >= 0).sum()))


def recorded_spikes(recording: Recording, condition: int, half: str | None, units: np.ndarray, edges: np.ndarray) -> Spikes | None:
    """Spikes of the first trial of each session in a condition, of some units; None where the recording has no counts of them."""
    parts = []
    for numbers, counts in trial_counts.first_trials(recording, condition, half):
        place = np.searchsorted(units, numbers)
        rows = np.where(units[np.minimum(place, len(units) - 1)] == numbers, place, -1)
        parts.append(of_counts(counts, rows, edges))
    if not parts:
        return None
    time, neuron = np.concatenate([part.time for part in parts]), np.concatenate([part.neuron for part in parts])
    return Spikes(time, neuron, sum(part.known for part in parts))


def edges_of(centres: np.ndarray, bin_ms: float) -> np.ndarray:
    """[M + 1] s, edges of bins with centres [M]."""
    return np.append(centres - bin_ms / 2000, centres[-1] + bin_ms / 2000)


def rate_bins(span: tuple[float, float], bin_s: float) -> np.ndarray:
    """[K + 1] s, edges of bins of the population rate, for counts in bins of `bin_s` s."""
    return np.linspace(*span, max(1, round((span[1] - span[0]) / max(RATE_BIN, bin_s))) + 1)


def _population_rate(spikes: Spikes, bins: np.ndarray) -> np.ndarray:
    """[K] Hz, mean rate over the neurons in bins with edges [K + 1]."""
    return np.histogram(spikes.time, bins)[0] / (max(1, spikes.known) * np.diff(bins))


def draw_raster(axes: Sequence[Any], spikes: Spikes, rows: Rows, colour_of: np.ndarray, colour: str, bins: np.ndarray) -> None:
    """Draws spikes in rows by region, and below them the mean rate of the neurons.

    Args:
      axes: of the raster and of the rate.
      spikes: of one trial.
      rows: of the neurons.
      colour_of: [n] colour of each neuron's spikes.
      colour: of the rate.
      bins: [K + 1] s, of the rate.
    """
    raster, rate = axes
    row_of = np.empty(len(rows.order), int)
    row_of[rows.order] = np.arange(len(rows.order))
    size = float(np.clip(250 / len(rows.order), 1, 4))
    for each in np.unique(colour_of):
        mine = colour_of[spikes.neuron] == each
        style: dict[str, Any] = {
            "ms": size,
            "mew": float(np.clip(3000 / max(1, len(spikes.time)), 0.5, 1)),
            "color": each,
            "rasterized": len(spikes.time) > 2000,
        }
        raster.plot(spikes.time[mine], row_of[spikes.neuron[mine]] + 0.5, "|", **style)
    margin = 0.012 * len(rows.order)  # the marks of the first and the last row are whole
    raster.set(xlim=(bins[0], bins[-1]), ylim=(len(rows.order) + margin, -margin))
    rows.draw(raster)
    if not any(rows.names):
        raster.set_ylabel("neuron")
    rate.stairs(_population_rate(spikes, bins), bins, baseline=None, color=colour, lw=1)
    rate.set(xlim=(bins[0], bins[-1]), ylabel="mean rate\n(Hz)")
    rate.set_ylim(bottom=0)
    raster.tick_params(labelbottom=False)


def raster(results: RunResults) -> PanelFigure:
    """Rasters of one trial of the model for up to two conditions, and of the data where the recording has single trials."""
    assert results.test is not None
    excitatory = results.read("excitatory")
    shown = evenly(len(excitatory), MAX_NEURONS)
    rows = Rows.of(None if results.region is None else results.region[shown], ~excitatory[shown], results.region)
    colour_of, colours = np.where(excitatory[shown], EXC, INH), condition_colours(len(results.conditions))
    recording = recording_of(results) if results.has("unit") else None
    bins = rate_bins(results.span, 0 if recording is None else recording.bin_ms / 1000)
    edges = edges_of(results.time, results.config.trial.learn_every)

    def draw(spikes: Spikes, title: str, colour: str, top: float, axes: Sequence[Any]) -> None:
        """Draws the spikes and the mean rate of one panel."""
        draw_raster(axes, spikes, rows, colour_of, colour, bins)
        axes[1].set_ylim(0, top)
        axes[0].set_title(title)
        for axis in axes:
            draw_events(axis, results.clock.events, results.span, names=axis is axes[0])
        axes[1].set_xlabel(f"{results.clock.label} (s)")

    panels = []
    for c, name in list(enumerate(results.conditions))[:MAX_CONDITIONS]:
        where = f", {shortened(name)}" if len(results.conditions) > 1 else ""
        found = {f"model, one trial{where}": _of_model(results, c, shown)}
        if recording is not None and np.all(np.diff(unit := results.read("unit")[shown]) > 0):
            recorded = recorded_spikes(recording, c, trial_spikes.heldout_half(results), unit, edges)
            if recorded is not None:
                found = {f"data, one trial of each session{where}": recorded} | found
        top = max(1.0, 1.05 * max(_population_rate(spikes, bins).max() for spikes in found.values()))
        for title, spikes in found.items():
            words = f"Raster and mean rate of {len(shown)} neurons, {title}: {len(spikes.time):,} spikes."
            panels.append(Panel(words, partial(draw, spikes, title, colours[c], top)))
    classes = (("excitatory", EXC), ("inhibitory", INH))
    handles = [Line2D([], [], color=colour, marker="|", ls="", ms=6, mew=1.2, label=name) for name, colour in classes]
    by = "by region and class" if any(rows.names) else "by class"
    title = f"Spikes of {len(shown)} neurons in single trials, sorted {by}"
    if recording is not None and len(panels) > len(results.conditions[:MAX_CONDITIONS]):
        title += f"; recorded spikes in bins of {recording.bin_ms:g} ms"
    columns = 2 if len(panels) > 1 else 1
    return PanelFigure(title, tuple(panels), (WIDTH / 2, 3.3), 2, columns, tuple(handles), (3.2, 1))


def _of_model(results: RunResults, condition: int, shown: np.ndarray) -> Spikes:
    """Spikes of the first trial of a condition in the test, of some neurons, indices in the test."""
    test = results.test
    assert test is not None
    first = condition * ((len(trial_spikes.trials_of(test)) - 1) // len(results.conditions))
    row = np.full(int(test.attrs["n_neurons"]), -1)
    row[results.neurons[shown]] = np.arange(len(shown))
    found = list(trial_spikes.blocks_of_spikes(test, first, first + 1))
    step, neuron = (np.concatenate([block[k] for block in found]) if found else np.zeros(0, int) for k in (1, 2))
    mine = row[neuron] >= 0
    return Spikes(results.clock.seconds(step[mine] * results.config.trial.dt), row[neuron[mine]], len(shown))
