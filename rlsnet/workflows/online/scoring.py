"""Scores of single trials before they are used: how much of a trial the network predicts, and how much the trials before it do.

For the rates d of a trial, smoothed as those of a recording, the rates m1 and m2 of the network in two sets of trials of its condition,
the average p of the earlier trials of this condition and the mean rate q of each unit so far, sums over units and bins give

    score    = sum (d - q)^2 - (d - m1) (d - m2)   squared error that the network removes, without the noise of its own trials
    ceiling  = sum (d - q)^2 - (d - p')^2     that the targets p' of the network remove
    variance = sum (d - q) (p - q)            estimate of the variance of the true rates around the mean rate

The trial has no part in m1, m2, p, p' and q. So the expected values of score and ceiling are those for the true rates in place of d, less a
noise that cancels, and that of the variance has no noise of the trials in it. A single trial is noisy: sum score/sum variance over trials
is an estimate of the population explained variance.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class TrialScore(NamedTuple):
    """Sums over units and bins, Hz^2; see the module."""

    score: float
    ceiling: float
    variance: float


def of_trial(data: np.ndarray, model: np.ndarray, target: np.ndarray, average: np.ndarray, mean: np.ndarray) -> TrialScore | None:
    """Sums of a trial; None if no unit can be compared.

    Args:
      data: [M, U] Hz, the trial, NaN for units that were not recorded in it.
      model: [2, M, U] Hz, the network in two sets of trials of the condition, NaN for units without a neuron.
      target: [M, U] Hz, its targets.
      average: [M, U] Hz, average of the earlier trials of the condition, NaN without.
      mean: [U] Hz, mean rate so far.
    """
    known = np.isfinite(data) & np.isfinite(model).all(axis=0) & np.isfinite(target) & np.isfinite(average) & np.isfinite(mean)
    if not known.any():
        return None
    d, m1, m2, t, p = (values.astype(np.float64) - mean for values in (data, *model, target, average))

    def total(values: np.ndarray) -> float:
        return float(np.where(known, values, 0).sum())

    return TrialScore(total(d**2 - (d - m1) * (d - m2)), total(d**2 - (d - t) ** 2), total(d * p))
