"""Analyses of single trials: decoding of the condition over time, and variability and correlations of spike counts.

Units of a session, which were recorded together, are analysed together; the model by the neurons that reproduce these units.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import signal

from rlsnet.analysis.analyses.activity import SingleTrials
from rlsnet.analysis.analyses.variables import Result, Variable
from rlsnet.data.statistics import mean_known, ratio
from rlsnet.errors import UserError

KINDS = ("data", "model")
FOLDS = 5  # of the cross-validation
DECODED_MS = 100.0  # window of the decoder
COUNTED_MS = 200.0  # window of spike counts for Fano factors and correlations
DRAWS = 20  # of units for a decoder
MAX_PAIRS = 20_000  # pairs of neurons of a session


def grouped(counts: np.ndarray, size: int) -> np.ndarray:
    """[T, M // size, U] int counts [T, M, U] summed over `size` bins; bins at the end that fill no window are left out."""
    trials, bins, units = counts.shape
    whole = bins // size
    return counts[:, : whole * size].reshape(trials, whole, size, units).sum(axis=2, dtype=np.int64)


def equal_numbers(condition: np.ndarray, number: int) -> np.ndarray:
    """[T] bool, the first `number` trials of each condition."""
    mine = np.zeros(len(condition), bool)
    for c in np.unique(condition):
        mine[np.flatnonzero(condition == c)[:number]] = True
    return mine


def decode(counts: np.ndarray, condition: np.ndarray, folds: int = FOLDS) -> np.ndarray:
    """[M] share of the trials whose condition a linear decoder finds from the counts in each window, cross-validated.

    The decoder takes the condition with the nearest mean; each unit is weighted by the inverse of its variance within conditions
    (linear discriminant analysis with a diagonal covariance). The variance of the mean unit, a tenth, is added to each.

    Args:
      counts: [T, M, U] spikes.
      condition: [T] number of the condition; each has at least `folds` trials, or as many folds as it has trials are made.
      folds: parts of the trials, each of which is decoded by means and variances of the others.
    """
    conditions = np.unique(condition)
    rank = np.zeros(len(condition), int)
    for c in conditions:
        rank[condition == c] = np.arange(np.sum(condition == c))
    folds = min(folds, int(np.bincount(condition)[conditions].min()))
    right = np.zeros((len(condition), counts.shape[1]), bool)
    for fold in range(folds):
        out = rank % folds == fold
        means = np.stack([counts[~out & (condition == c)].mean(axis=0) for c in conditions])  # [C, M, U]
        number = np.searchsorted(conditions, condition)
        variance = np.mean((counts[~out] - means[number[~out]]) ** 2, axis=0)
        variance += 0.1 * variance.mean(axis=1, keepdims=True) + 1e-9
        distance = np.stack([np.sum((counts[out] - mean) ** 2 / variance, axis=2) for mean in means])
        right[out] = conditions[distance.argmin(axis=0)] == condition[out, None]
    return right.mean(axis=0)


def decoding(trials: Sequence[SingleTrials], conditions: int, time: np.ndarray, units: int | None, seed: int) -> Result:
    """Decoding of the condition over time in each session, from as many trials of data and model.

    Args:
      trials: single trials of each session.
      conditions: number of conditions.
      time: [M] s, of the bins.
      units: units that a decoder is given, drawn at random DRAWS times from those of a session; None: all. Few units keep the share
        of correct trials below 1, so that data and model can be compared.
      seed: of the draws.

    Raises:
      UserError: there is only one condition.
    """
    if conditions < 2:
        raise UserError("the network was trained in one condition; decoding needs at least two.")
    size = max(1, round(DECODED_MS / 1000 / trials[0].bin_s))
    windows = len(time) // size
    share = np.full((len(KINDS), len(trials), windows), np.nan)
    for number, each in enumerate(trials):
        fewest = min(int(np.bincount(of_trial, minlength=conditions).min()) for _, _, of_trial in each.pairs())
        rng, n = np.random.default_rng(seed), len(each.index)
        draws = [np.arange(n)] if units is None or units >= n else [rng.choice(n, units, replace=False) for _ in range(DRAWS)]
        for kind, counts, of_trial in each.pairs():
            mine = equal_numbers(of_trial, fewest)
            summed = grouped(counts[mine], size)
            share[KINDS.index(kind), number] = np.mean([decode(summed[..., drawn], of_trial[mine]) for drawn in draws], axis=0)
    arrays = {
        "correct": Variable(share, ("kind", "session", "window"), {"long_name": "share of the trials that are decoded correctly"}),
        "window": Variable(time[: windows * size].reshape(windows, size).mean(axis=1), ("window",), {"units": "s"}),
        "session": Variable(np.array([each.session for each in trials]), ("session",)),
        "units": Variable(np.array([min(len(each.index), units or len(each.index)) for each in trials]), ("session",)),
    }
    return Result(arrays, {"kinds": list(KINDS), "chance": 1 / conditions, "window_ms": size * trials[0].bin_s * 1000})


def residuals(counts: np.ndarray, condition: np.ndarray) -> np.ndarray:
    """[T, M, U] counts minus the mean over trials of their condition."""
    left = counts.astype(np.float64)
    for c in np.unique(condition):
        left[condition == c] -= left[condition == c].mean(axis=0)
    return left


def fano(counts: np.ndarray, condition: np.ndarray) -> np.ndarray:
    """[U] Fano factor: the sum over windows and conditions of the variance over trials, divided by that of the mean; NaN: no spikes."""
    variance, mean = np.zeros((2, counts.shape[2]))
    for c in np.unique(condition):
        mine = counts[condition == c]
        variance += mine.var(axis=0, ddof=1).sum(axis=0)
        mean += mine.mean(axis=0).sum(axis=0)
    return ratio(variance, mean)


def noise_correlation(counts: np.ndarray, condition: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """[P] correlation over trials and windows of the counts of pairs [2, P] of units, beyond that of their mean courses."""
    return _correlation(residuals(counts, condition).reshape(-1, counts.shape[2]), pairs)


def signal_correlation(counts: np.ndarray, condition: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """[P] correlation over conditions and windows of the mean counts of pairs [2, P] of units."""
    means = np.concatenate([counts[condition == c].mean(axis=0) for c in np.unique(condition)])
    return _correlation(means, pairs)


def _correlation(values: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """[P] Pearson's correlations of pairs [2, P] of columns of values [T, U]; NaN where one does not vary."""
    centred = values - values.mean(axis=0)
    norm = np.sqrt(np.sum(centred**2, axis=0))
    found = np.empty(pairs.shape[1])
    for start in range(0, len(found), 1000):
        first, second = pairs[:, start : start + 1000]
        found[start : start + 1000] = np.einsum("tp,tp->p", centred[:, first], centred[:, second])
    return ratio(found, norm[pairs[0]] * norm[pairs[1]])


def some_pairs(units: int, seed: int) -> np.ndarray:
    """[2, P] different units, the first before the second: all pairs, or MAX_PAIRS of them at random."""
    if units * (units - 1) // 2 <= 4 * MAX_PAIRS:
        pairs = np.stack(np.triu_indices(units, 1))
        some = np.random.default_rng(seed).permutation(pairs.shape[1])[:MAX_PAIRS]
        return pairs[:, np.sort(some)]
    drawn = np.random.default_rng(seed).integers(0, units, (2, 2 * MAX_PAIRS))  # of which few are equal or drawn twice
    drawn = np.unique(np.sort(drawn[:, drawn[0] != drawn[1]], axis=0), axis=1)
    some = np.random.default_rng(seed).permutation(drawn.shape[1])[:MAX_PAIRS]
    return drawn[:, np.sort(some)]


def spectrum(counts: np.ndarray, bin_s: float) -> tuple[np.ndarray, np.ndarray]:
    """(frequency in Hz, power in Hz^2/Hz) of the mean rate of all units, about its mean in a trial, mean over trials [T, M, U]."""
    frequency, power = signal.periodogram(counts.mean(axis=2) / bin_s, fs=1 / bin_s, window="hann", detrend="constant", axis=1)
    return frequency[1:], power.mean(axis=0)[1:]


def median(values: np.ndarray) -> float | None:
    """Median of the values that are not NaN; None without any."""
    return float(np.nanmedian(values)) if np.isfinite(values).any() else None


def variability(trials: Sequence[SingleTrials], seed: int) -> Result:
    """Fano factors, signal and noise correlations, and power spectra of data and model, over all sessions."""
    found: dict[str, list[np.ndarray]] = {}
    frequency = np.zeros(0)
    for each in trials:
        size = max(1, round(COUNTED_MS / 1000 / each.bin_s))
        pairs = some_pairs(len(each.index), seed)
        for kind, counts, condition in each.pairs():
            windows = grouped(counts, size)
            frequency, power = spectrum(counts, each.bin_s)
            of_kind = {
                "fano": fano(windows, condition),
                "noise_correlation": noise_correlation(windows, condition, pairs),
                "signal_correlation": signal_correlation(windows, condition, pairs),
                "power": power,
            }
            for name, values in of_kind.items():
                found.setdefault(f"{name}_{kind}", []).append(values)
    arrays = {"frequency": Variable(frequency, ("frequency",), {"units": "Hz"})}
    numbers: dict[str, object] = {"window_ms": max(1, round(COUNTED_MS / 1000 / trials[0].bin_s)) * trials[0].bin_s * 1000}
    for name, of_sessions in found.items():
        if name.startswith("power"):
            arrays[name] = Variable(mean_known(np.stack(of_sessions)), ("frequency",), {"units": "Hz^2/Hz"})
            continue
        arrays[name] = Variable(np.concatenate(of_sessions), ("neuron",) if name.startswith("fano") else ("pair",))
        numbers[f"median_{name}"] = median(arrays[name].values)
    return Result(arrays, numbers)
