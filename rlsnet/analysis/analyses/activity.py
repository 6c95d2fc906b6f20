"""Activity that is analysed: rates over time of data and model, and spike counts of single trials of both, of the same neurons."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from rlsnet.analysis.recording_summary import evenly, named
from rlsnet.analysis.test_results import RunResults
from rlsnet.analysis.trial_spikes import blocks_of_spikes, has_spikes, trials_of
from rlsnet.data import trial_counts
from rlsnet.data.recordings import Recording
from rlsnet.data.trial_clock import TrialClock
from rlsnet.errors import UserError

EVERYWHERE = "all"  # region of all neurons where regions are unknown
MIN_TRIALS = 4  # of a condition, in a session whose single trials are analysed
MIN_UNITS = 5  # of such a session
MAX_UNITS = 4000  # of such a session; of more, evenly spaced ones


@dataclasses.dataclass(frozen=True)
class Activity:
    """Trial averages of data and model, in the trained conditions C, of the n trained neurons whose data are known in all bins.

    Without a recording they are currents.

    trained: [C, M, n] the data that the network was trained on; Hz, or threshold units for currents.
    data: [C, M, n] the data that it is compared with: of held-out trials if there are any, else the same as `trained`.
    model: [C, M, n] the network's trial average, smoothed as the data.
    heldout: whether `data` are of other trials than `trained`.
    index: [n] positions of the neurons in test.zarr.
    neurons: [n] numbers of the neurons in the network.
    region: [n] names.
    session: [n] names.
    excitatory: [n] bool.
    conditions: [C] names.
    number: [C] numbers of these conditions in the test.
    time: [M] s, of `clock`.
    clock: time of the recording.
    quantity: what the values are, with their unit.
    """

    trained: np.ndarray
    data: np.ndarray
    model: np.ndarray
    heldout: bool
    index: np.ndarray
    neurons: np.ndarray
    region: np.ndarray
    session: np.ndarray
    excitatory: np.ndarray
    conditions: list[str]
    number: np.ndarray
    time: np.ndarray
    clock: TrialClock
    quantity: str

    @staticmethod
    def read(results: RunResults) -> Activity:
        """The activity in the test of a run; raises UserError where no trained neuron has data in all bins."""
        data, model, _, _, quantity = results.compared()
        trained = {"rate_heldout": "rate_target"}.get(data, data)
        number = trained_conditions(results)
        known = _is_trained(results)
        for name in {data, trained}:
            known &= np.isfinite(results.read(name)[number]).all(axis=(0, 1))
        index = np.flatnonzero(known)
        if not len(index):
            raise UserError(f"{results.run.test}: no trained neuron has data in all bins; expected at least one with a complete target.")

        def smoothed(name: str) -> np.ndarray:
            """[C, M, n] an array of the test, smoothed as figures show it."""
            values = results.read(name)[number][..., index]
            return np.stack([results.smooth(name, each) for each in values]).astype(np.float64)

        def names(column: str) -> np.ndarray:
            """[n] names in a column of the test."""
            if not results.has(column):
                return np.full(len(index), EVERYWHERE)
            return np.array([named(each, column) for each in results.read(column)[index]])

        return Activity(
            smoothed(trained),
            smoothed(data),
            smoothed(model),
            trained != data,
            index,
            results.neurons[index],
            names("region"),
            names("session"),
            results.read("excitatory")[index],
            [results.conditions[c] for c in number],
            number,
            results.time,
            results.clock,
            quantity,
        )

    @property
    def regions(self) -> list[str]:
        """Names of the regions, that with most neurons first."""
        return by_size(self.region)

    def members(self, region: str) -> np.ndarray:
        """[n] bool, the neurons of a region; of all neurons for EVERYWHERE."""
        return np.ones(len(self.region), bool) if region == EVERYWHERE else self.region == region

    def groups(self) -> list[str]:
        """EVERYWHERE, and the regions where there are several."""
        return [EVERYWHERE, *(self.regions if len(self.regions) > 1 else [])]


def by_size(region: np.ndarray) -> list[str]:
    """The different names of regions [n], that of most neurons first."""
    names, number = np.unique(region, return_counts=True)
    return [str(name) for name in names[np.argsort(-number, kind="stable")]]


def trained_conditions(results: RunResults) -> np.ndarray:
    """[C] numbers of the conditions that neurons are trained in."""
    return np.flatnonzero(results.trained().any(axis=1))


def _is_trained(results: RunResults) -> np.ndarray:
    """[n] bool, the neurons that are trained in all trained conditions."""
    return results.trained()[trained_conditions(results)].all(axis=0)


def some_trained(results: RunResults) -> np.ndarray:
    """At most MAX_UNITS positions in test.zarr of trained neurons, evenly spaced."""
    trained = np.flatnonzero(_is_trained(results))
    return trained[evenly(len(trained), MAX_UNITS)] if len(trained) else trained


@dataclasses.dataclass(frozen=True)
class SingleTrials:
    """Spike counts of single trials of the U units of a session, which were recorded together, and of the neurons that reproduce them.

    Conditions are numbered as in `Activity`, which has the trained ones.

    session: its name.
    index: [U] positions of the neurons in test.zarr.
    data: [T, M, U] recorded spikes in a bin; or None.
    data_condition: [T] condition of each recorded trial.
    model: [C * trials, M, U] spikes of the network.
    model_condition: [C * trials] condition of each simulated trial.
    bin_s: length of a bin, s.
    """

    session: str
    index: np.ndarray
    data: np.ndarray | None
    data_condition: np.ndarray
    model: np.ndarray
    model_condition: np.ndarray
    bin_s: float

    def pairs(self) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """("data" or "model", counts, condition of each trial) of what is known."""
        found = [("model", self.model, self.model_condition)]
        return found if self.data is None else [("data", self.data, self.data_condition), *found]


def single_trials(results: RunResults, recording: Recording | None, sessions: int) -> Iterator[SingleTrials]:
    """The single trials of the `sessions` with the most units; of all neurons as one session if the recording has none.

    A unit counts if it was recorded in at least 80 % of the trials of its session; a trial, if all these units were recorded in it.

    Raises:
      UserError: the test has no spikes, or the memory is too small.
    """
    if not has_spikes(results.test):
        raise UserError(f"{results.run.test}: has no spikes of single trials; rlsnet test with test.spikes=true stores them.")
    conditions, bin_s, number = len(results.conditions), results.config.trial.learn_every / 1000, trained_conditions(results)
    found: list[tuple[str, np.ndarray, np.ndarray | None, np.ndarray]] = []
    found += [] if recording is None else _recorded(results, recording, number)
    found = sorted(found, key=lambda each: -len(each[1]))[:sessions]
    alone = (EVERYWHERE, some_trained(results), None, np.zeros(0, int))
    chosen = found or [alone]
    spikes = _ModelSpikes(results, np.unique(np.concatenate([index for _, index, _, _ in chosen])))
    if (trials := spikes.n_trials // conditions) < MIN_TRIALS:
        raise UserError(f"{results.run.test}: has {trials} trials of each condition; expected at least {MIN_TRIALS} (test.trials).")
    condition = np.repeat(np.arange(conditions), spikes.n_trials // conditions)
    mine = np.isin(condition, number)
    condition = np.searchsorted(number, condition[mine])
    for name, index, counts, of_trial in chosen:
        yield SingleTrials(name, index, counts, of_trial, spikes.counts(index)[mine], condition, bin_s)


class _ModelSpikes:
    """The spikes of some neurons of a test, ordered by neuron, from which their counts can be made.

    chosen: [n] positions of the neurons in test.zarr, ascending.
    """

    def __init__(self, results: RunResults, chosen: np.ndarray):
        trial = results.config.trial
        number, step, place = spikes_of(results, chosen)
        self.n_trials, self.bins, self.chosen = len(results.read("spikes/trial_indptr")) - 1, trial.n_points, chosen
        bins = np.clip((step.astype(np.int64) - trial.steps(trial.stim_off)) // trial.every, 0, self.bins - 1).astype(np.int32)
        order = np.argsort(place, kind="stable")
        self.cell = (number * np.int32(self.bins) + bins)[order]
        self.start = np.searchsorted(place[order], np.arange(len(chosen) + 1))

    def counts(self, index: np.ndarray) -> np.ndarray:
        """[C * trials, M, U] uint16 spikes of the neurons at some positions of the test."""
        found = np.empty((self.n_trials * self.bins, len(index)), np.uint16)
        for column, each in enumerate(np.searchsorted(self.chosen, index)):
            found[:, column] = np.bincount(self.cell[self.start[each] : self.start[each + 1]], minlength=len(found))
        return found.reshape(self.n_trials, self.bins, len(index))


def spikes_of(results: RunResults, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(trial, time step, place in `chosen`) of each spike of the neurons at the positions `chosen` in test.zarr."""
    assert results.test is not None
    place = np.full(int(results.neurons.max()) + 1, -1, np.int32)
    place[results.neurons[chosen]] = np.arange(len(chosen))
    found = [(np.zeros(0, np.int32), np.zeros(0, np.uint32), np.zeros(0, np.int32))]
    for number, step, neuron in blocks_of_spikes(results.test, 0, len(trials_of(results.test)) - 1):
        mine = place[neuron]
        kept = mine >= 0
        found.append((number[kept].astype(np.int32), step[kept], mine[kept]))
    trial, step, mine = (np.concatenate(each) for each in zip(*found, strict=True))
    return trial, step, mine


def _recorded(results: RunResults, recording: Recording, number: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """(name, positions in the test [U], counts [T, M, U], condition [T]) of each session with enough units and trials.

    Only trials of the conditions `number` [C], which are numbered from 0.
    """
    unit = np.where(_is_trained(results), results.read("unit"), -1)
    for name, of_session, numbers in trial_counts.sessions(recording.group):
        wanted = np.isin(numbers, unit)
        if wanted.sum() < MIN_UNITS:
            continue
        trials = of_session().of_units(wanted)
        counted = trials.half >= 0
        units = counted.mean(axis=0) >= 0.8
        complete = counted[:, units].all(axis=1) & np.isin(trials.condition, number)
        condition = np.searchsorted(number, trials.condition[complete])
        if units.sum() >= MIN_UNITS and np.bincount(condition, minlength=len(number)).min() >= MIN_TRIALS:
            order = np.argsort(unit, kind="stable")
            some = np.flatnonzero(units)[evenly(int(units.sum()), MAX_UNITS)]
            index = order[np.searchsorted(unit[order], numbers[wanted][some])]
            yield name, index, trials.counts[complete][..., some], condition
