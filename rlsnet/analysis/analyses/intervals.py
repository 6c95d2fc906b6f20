"""Irregularity of the model's spike trains: coefficients of variation of the intervals between spikes."""

from __future__ import annotations

import numpy as np

from rlsnet.data.statistics import ratio

MIN_INTERVALS = 10  # of a neuron


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
    with np.errstate(invalid="ignore", divide="ignore"):
        compared = 2 * np.abs(next_interval - interval) / (next_interval + interval)
    return ratio(np.sqrt(variance), mean), mean_of(compared, following)
