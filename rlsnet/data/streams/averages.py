"""Averages of the trials so far (PSTHs) while an experiment runs: the same numbers as `rlsnet import` computes from all trials."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rlsnet.data import query
from rlsnet.data.recordings import HALVES
from rlsnet.data.streams.trials import StreamTrial, Window
from rlsnet.data.trial_average import not_recorded, smooth

ABSENT = "false"  # value of a marker that no trial has had yet: not true, no number, and equal to no other text


def conditions_of(trial: StreamTrial, conditions: Mapping[str, str]) -> list[int]:
    """Numbers of the conditions whose expressions are true for a trial.

    Args:
      trial: the trial, with the columns of its markers.
      conditions: expressions by name, as of `query`; an empty one is true for each trial. A marker that the trial lacks is false.

    Raises:
      UserError: an expression cannot be read.
    """
    found = []
    for number, (name, text) in enumerate(conditions.items()):
        names = query.column_names(text, f"watch.conditions.{name}") if text.strip() else []
        table = {each: np.array([trial.columns.get(each, np.nan if each.endswith("_time") else ABSENT)]) for each in names}
        if query.select_rows(text, table, 1, f"watch.conditions.{name}", f"trial {trial.number + 1}")[0]:
            found.append(number)
    return found


class RunningAverage:
    """Spikes of C conditions, summed over the odd-numbered and over the even-numbered trials of each unit, and rates from them.

    n_trials: [C, 2, U] int64 number of trials, by half.
    """

    def __init__(self, window: Window, n_conditions: int, weight: np.ndarray, lost: float = 0.0):
        """No trials yet.

        Args:
          window: bins of a trial.
          n_conditions: C.
          weight: [2 P + 1] of the smoothing kernel, as of `trial_average.smoothing_kernel`.
          lost: a unit is taken for lost when its silence is less likely than this, for Poisson spikes of its mean rate; 0: never.
        """
        self.window, self.weight = window, weight
        self._counts = np.zeros((n_conditions, 2, 0, window.total), np.int32)
        self.n_trials = np.zeros((n_conditions, 2, 0), np.int64)
        self._silent = np.zeros((n_conditions, 2, 0), np.int64)  # trials since the last spike of a unit
        self._absent = np.zeros((n_conditions, 2, 0), np.int64)  # trials in which a unit was lost before it came back
        self._spikes = np.zeros(0, np.int64)  # in all trials
        self._least = -np.log(lost) if lost > 0 else np.inf  # expected spikes in a silence
        self._before: dict[str, np.ndarray] = {}  # [C, 2] trials of a unit that has not spiked yet, by stream

    @property
    def n_units(self) -> int:
        """Number of units U so far."""
        return self.n_trials.shape[2]

    @property
    def lost(self) -> np.ndarray:
        """[U] bool, the units that are taken for lost."""
        silent = self._silent.sum(axis=(0, 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            per_trial = self._spikes / (self.n_trials - self._absent - self._silent).sum(axis=(0, 1))
            return np.asarray(silent * per_trial > self._least)

    def n_present(self) -> np.ndarray:
        """[C, 2, U] trials in which a unit was not lost, by half."""
        return self.n_trials - self._absent - np.where(self.lost, self._silent, 0)

    def add(self, trial: StreamTrial, condition: int, streams: list[str]) -> None:
        """Adds a trial to a condition.

        A unit that has its first spike later is taken to have been silent in the trials before, as in a recording of all of them.

        Args:
          trial: the trial.
          condition: its number.
          streams: [U] the stream of each unit so far.
        """
        for stream in (*trial.events, *streams):
            self._before.setdefault(stream, np.zeros(self.n_trials.shape[:2], np.int64))
        if new := streams[self.n_units :]:
            silent = np.zeros((*self._counts.shape[:2], len(new), self.window.total), np.int32)
            self._counts = np.concatenate([self._counts, silent], axis=2)
            self.n_trials = np.concatenate([self.n_trials, np.stack([self._before[stream] for stream in new], axis=2)], axis=2)
            self._spikes = np.concatenate([self._spikes, np.zeros(len(new), np.int64)])
            none = np.zeros((*self._silent.shape[:2], len(new)), np.int64)
            self._silent, self._absent = (np.concatenate([each, none], axis=2) for each in (self._silent, self._absent))
        known, lost, spikes = len(trial.counted), self.lost, trial.counts.sum(axis=1, dtype=np.int64)
        spiked = spikes > 0
        self._spikes[:known] += np.where(trial.counted, spikes, 0)
        came_back = np.flatnonzero(spiked & lost[: len(spiked)])
        self._absent[:, :, came_back] += self._silent[:, :, came_back]
        self._silent[:, :, np.flatnonzero(spiked)] = 0
        half = self.n_trials[condition, :, :known].sum(axis=0) % 2
        for h in (0, 1):
            mine = np.flatnonzero(trial.counted & (half == h))
            self._counts[condition, h, mine] += trial.counts[mine]
            self.n_trials[condition, h, mine] += 1
            self._silent[condition, h, mine] += ~spiked[mine]
        for stream in trial.events:
            before = self._before[stream][condition]
            before[before.sum() % 2] += 1

    def rates(self, half: str | None = None, present: bool = False, conditions: slice = slice(None)) -> np.ndarray:
        """[C, M, U] float32 Hz, smoothed; NaN for a unit without trials in a condition.

        Args:
          half: odd, even or, with None, all trials of each unit.
          present: whether trials in which a unit was lost do not count.
          conditions: those whose rates are computed.
        """
        n_trials = self.n_present() if present else self.n_trials
        missing = not_recorded(self._counts.sum(axis=(0, 1, 2), dtype=float), self.window.pad)
        chosen = slice(None) if half is None else [HALVES.index(half)]
        wanted = range(len(self._counts))[conditions]
        found = np.empty((len(wanted), self.window.bins, self.n_units), np.float32)
        for row, c in enumerate(wanted):
            counts = self._counts[c]
            spikes = smooth(counts[chosen].astype(float), self.weight) / self.window.width
            exposure = n_trials[c][chosen][:, :, None] * np.where(missing, 0.0, 1.0)
            with np.errstate(divide="ignore", invalid="ignore"):
                found[row] = (spikes.sum(axis=0) / smooth(exposure, self.weight).sum(axis=0)).T
        return found

    def mean_rate(self, half: str | None = None, present: bool = False) -> np.ndarray:
        """[U] Hz, mean over all trials and bins of the window; NaN for a unit without trials. Arguments as of `rates`."""
        n_trials = self.n_present() if present else self.n_trials
        chosen, pad = slice(None) if half is None else [HALVES.index(half)], self.window.pad
        window = self._counts[:, chosen, :, pad : pad + self.window.bins]
        with np.errstate(divide="ignore", invalid="ignore"):
            per_trial = window.sum(axis=(0, 1, 3)) / n_trials[:, chosen].sum(axis=(0, 1))
        return per_trial / (self.window.bins * self.window.width)

    def shrunk(self, prior: float, half: str | None = None, conditions: slice = slice(None)) -> np.ndarray:
        """[C, M, U] Hz: rates drawn to the unit's mean rate while trials are few, (n r + prior*mean)/(n + prior) after n trials.

        A condition without trials has the mean rate; a unit without trials in any condition is NaN. Trials in which a unit was lost do not
        count. `half` and `conditions` as of `rates`.
        """
        chosen = slice(None) if half is None else [HALVES.index(half)]
        n = self.n_present()[conditions, chosen].sum(axis=1)[:, None, :]
        rates, mean = self.rates(half, present=True, conditions=conditions), self.mean_rate(half, present=True)
        with np.errstate(invalid="ignore"):
            return np.where(n > 0, (n * np.where(n > 0, rates, 0) + prior * mean) / (n + prior), mean)
