"""Single trials for figures: spike counts of the model from the spikes of a test and of the data from the recording, and their spread."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import zarr

from rlsnet.analysis.test_results import RunResults
from rlsnet.data import trial_counts
from rlsnet.data.recordings import HALVES, Recording
from rlsnet.io import zarr_store
from rlsnet.learning import scores

SPIKES_AT_ONCE = 2**24  # that are read together


def has_spikes(test: zarr.Group | None) -> bool:
    """Whether a test has the spikes of its trials."""
    return test is not None and "spikes/trial_indptr" in test


def trials_of(test: zarr.Group) -> np.ndarray:
    """[T + 1] ends of the trials in the list of spikes, those of each condition one after the other, from 0."""
    return zarr_store.read(test["spikes/trial_indptr"])


def blocks_of_spikes(test: zarr.Group, first: int, last: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(trial, step, neuron), [spikes] each, of trials first..last-1 of a test, numbered over all conditions, in blocks."""
    ends = trials_of(test)
    for start in range(int(ends[first]), int(ends[last]), SPIKES_AT_ONCE):
        part = slice(start, min(start + SPIKES_AT_ONCE, int(ends[last])))
        step, neuron = (zarr_store.read(test[f"spikes/{name}"], (part,)) for name in ("step", "neuron"))
        yield np.searchsorted(ends, np.arange(part.start, part.stop), side="right") - 1, step, neuron


def grouped_counts(results: RunResults, test: zarr.Group, group: np.ndarray) -> np.ndarray:
    """[C, T, M, G] spikes of a test by condition, trial, bin and group of neurons.

    Args:
      results: of the run of the test.
      test: a test with spikes, perturbed or not.
      group: [N] number of the group of each neuron of the network, -1 for none.
    """
    trial, bins, conditions = results.config.trial, test["psth"].shape[1], test["condition"].shape[0]
    trials, groups = len(trials_of(test)) - 1, int(group.max(initial=-1)) + 1
    counts, first = np.zeros(trials * bins * groups), trial.steps(trial.stim_off)
    for number, step, neuron in blocks_of_spikes(test, 0, trials):
        mine, place = group[neuron], (step.astype(np.int64) - first) // trial.every
        known = (mine >= 0) & (place >= 0) & (place < bins)
        index = (number[known] * bins + place[known]) * groups + mine[known]
        counts += np.bincount(index, minlength=len(counts))
    return counts.reshape(conditions, trials // conditions, bins, groups)


def counts_of_neurons(results: RunResults, chosen: np.ndarray) -> np.ndarray | None:
    """[C, T, M, n] spikes of the model in each trial of the test, for some neurons, indices in the test; None without stored spikes."""
    if results.test is None or not has_spikes(results.test):
        return None
    group = np.full(int(results.test.attrs["n_neurons"]), -1)
    group[results.neurons[chosen]] = np.arange(len(chosen))
    return grouped_counts(results, results.test, group)


def standard_error(weights: np.ndarray, counts: np.ndarray, bin_ms: float) -> np.ndarray | None:
    """[M, ...] Hz, standard error over trials of the mean rate, smoothed in each trial; None for fewer than two trials.

    Args:
      weights: [M, M] of the smoothing.
      counts: [T, M, ...] spikes.
      bin_ms: length of a bin.
    """
    if len(counts) < 2:
        return None
    rate = np.einsum("ab,tb...->ta...", weights, counts) * (1000 / bin_ms)
    return rate.std(axis=0, ddof=1) / np.sqrt(len(counts))


def smoothing(results: RunResults) -> np.ndarray:
    """[M, M] weights with which figures smooth the rates of the model, as `RunResults.smooth`."""
    trial, kernel = results.config.trial, () if results.test is None else results.test.attrs.get("smoothing", ())
    return scores.smoothing_weights(kernel, trial.n_points) if kernel else scores.window_weights(trial)


def recorded_trials(recording: Recording | None, unit: int, half: str | None = None) -> list[np.ndarray] | None:
    """[T, M] spikes of a unit in each of its trials, for each condition; None where the recording has no counts of it.

    Args:
      recording: open recording, or None.
      unit: its number there.
      half: odd or even trials; None: all.
    """
    found = None if recording is None else trial_counts.of_unit(recording, unit)
    if recording is None or found is None:
        return None
    counts = found.counts[..., 0]
    mine = found.half[:, 0] >= 0 if half is None else found.half[:, 0] == HALVES.index(half)
    return [counts[mine & (found.condition == c)] for c in range(recording.n_conditions)]


def heldout_half(results: RunResults) -> str | None:
    """The half of the trials that a test compares with: odd or even; None for all trials."""
    trained = None if results.test is None else results.test.attrs.get("trained_on", "all")
    return HALVES[1 - HALVES.index(trained)] if trained in HALVES else None
