"""Irregularity of spike trains: coefficients of variation of the intervals between spikes, of a recording and of a model."""

from __future__ import annotations

import numpy as np

from rlsnet.data.session import Session
from rlsnet.data.statistics import ratio

MIN_INTERVALS = 10  # of a neuron
MAX_ZERO = 0.01  # share of intervals of length 0 from which on spike times are taken as counts in bins


def of_session(session: Session, units: np.ndarray, start: np.ndarray, length: float) -> tuple[np.ndarray, np.ndarray]:
    """([U] CV, [U] CV2) of the intervals between spikes of units within the windows of trials; see `interval_variation`.

    NaN where the file has spike counts instead of times, also if it has them as times of the centres of bins.

    Args:
      session: spike trains; those of a unit in ascending order.
      units: [U] numbers of the units.
      start: [T] s, starts of the windows.
      length: of the windows, s.
    """
    unknown = np.full(len(units), np.nan)
    if session.separate is not None and session.separate.bin_ms is not None:
        return unknown, unknown.copy()
    cv, cv2 = unknown, unknown.copy()
    for place, unit in enumerate(units):
        times = session.spike_times[session.spike_index[unit] : session.spike_index[unit + 1]]
        first, after = np.searchsorted(times, start), np.searchsorted(times, start + length)
        number = after - first
        trial = np.repeat(np.arange(len(start)), number)
        spike = np.arange(len(trial)) + np.repeat(first - np.cumsum(number) + number, number)
        zero = (np.diff(times[spike]) == 0) & (np.diff(trial) == 0)
        if not len(zero) or zero.mean() <= MAX_ZERO:
            cv[[place]], cv2[[place]] = interval_variation(np.zeros(len(spike), np.int64), trial, times[spike], 1)
    return cv, cv2


def interval_variation(neuron: np.ndarray, trial: np.ndarray, time: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """([n] CV, [n] CV2) of the intervals between spikes within a trial; NaN for a neuron with fewer than MIN_INTERVALS.

    CV is the s.d. of the intervals divided by their mean, which also grows with changes of the rate. CV2 compares neighbouring intervals
    alone: the mean of 2 |a - b| / (a + b) (Holt et al., J. Neurophysiol. 75:1806, 1996). Both are 1 for a Poisson process of constant
    rate.

    Args:
      neuron: [spikes] number of the neuron, from 0 to n-1.
      trial: [spikes] number of the trial.
      time: [spikes] of one unit.
      n: number of neurons.
    """
    if len(time) < 2:
        return np.full(n, np.nan), np.full(n, np.nan)
    order = np.lexsort((time, trial, neuron))
    neuron, trial, time = neuron[order], trial[order], np.asarray(time, np.float64)[order]
    same = (np.diff(neuron) == 0) & (np.diff(trial) == 0)
    interval, owner = np.diff(time), neuron[1:]

    def mean_of(values: np.ndarray, mine: np.ndarray) -> np.ndarray:
        number = np.bincount(owner[mine], minlength=n)
        total = np.bincount(owner[mine], values[mine], minlength=n)
        return np.where(number >= MIN_INTERVALS, ratio(total, number.astype(float)), np.nan)

    mean = mean_of(interval, same)
    variance = mean_of((interval - np.where(same, mean[owner], 0)) ** 2, same)
    following = np.append(same[1:] & same[:-1], False)  # the interval and the next one
    next_interval = np.append(interval[1:], np.nan)
    compared = 2 * np.nan_to_num(ratio(np.abs(next_interval - interval), next_interval + interval))
    return ratio(np.sqrt(variance), mean), mean_of(compared, following)
