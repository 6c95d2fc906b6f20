"""Trial averages (PSTHs) of the spike trains of a session around an event.

A bin includes its start and excludes its end. A trial counts for a unit if its whole window lies in one observation interval
of the unit. Smoothing uses spikes beyond the window, as far as the unit was observed there: for spike counts s[b] and numbers of
observed trials e[b] in bin b, and a kernel k, the rate is (k * s)[b] / (k * e)[b] / bin. This has no bias at the edges. Files that
contain only the spikes around an event are recognized by bins beside the window without any spike: these were not observed.
"""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
from scipy.ndimage import convolve1d

from rlsnet.data.import_options import Options
from rlsnet.data.session import Session
from rlsnet.data.trial_counts import TrialCounts
from rlsnet.errors import UserError

log = logging.getLogger(__name__)

EDGE_TOLERANCE = 1e-6  # of a bin; a spike this close before an edge counts as on the edge, since its time was rounded
BIN_TOLERANCE = 1e-3  # of a bin; a window is divided by bins whose length was rounded, such as 16.6667 ms
SAME_LENGTH = 1e-5  # relative difference of lengths of bins that are the same, rounded in different ways
LONGEST_UINT8 = 50.0  # ms; in a bin of this length a unit has fewer than 256 spikes
EXPECTED_SPIKES = 30  # of all units and trials in a bin, from which on a bin without a spike was not recorded
SPIKES_PER_BLOCK = 200_000  # spikes counted at a time, about what a processor cache holds


@dataclasses.dataclass(frozen=True)
class TrialAverage:
    """Trial-averaged rates of the units of a session.

    rate: [C, M, U] Hz, smoothed; NaN for a unit without trials in a condition.
    half: [2, C, M, U] Hz from the odd-numbered (1st, 3rd, ...) and the even-numbered trials of each unit, or None.
    n_trials: [U, C] number of trials that count.
    trials: spike counts of the single trials, or None.
    """

    rate: np.ndarray
    half: np.ndarray | None
    n_trials: np.ndarray
    trials: TrialCounts | None = None


def bin_centres(options: Options) -> np.ndarray:
    """Centres of the bins of a window, [M] s.

    Raises:
      UserError: the bins do not divide the window, or the kernel is wider than the window.
    """
    start, end = options.window_s
    count = (end - start) * 1000 / options.bin_ms
    if end <= start:
        raise UserError(f"window=[{start:g}, {end:g}]: expected a start and a later end, in s.")
    if abs(count - round(count)) > BIN_TOLERANCE or not round(count):
        nearest = round(count) or 1
        raise UserError(
            f"bin={options.bin_ms:g}: makes {count:.3f} bins; expected a length that divides the window of {(end - start) * 1000:g} ms,"
            f" such as {(end - start) * 1000 / nearest:g} ms."
        )
    if options.kernel != "none" and options.sigma > (end - start) * 1000:
        raise UserError(f"sigma={options.sigma:g} ms: expected at most the window of {(end - start) * 1000:g} ms.")
    return start + options.bin_ms / 1000 * (np.arange(round(count)) + 0.5)


def same_length(a: float, b: float) -> bool:
    """Whether two lengths of bins are the same but for rounding."""
    return abs(a - b) <= SAME_LENGTH * max(abs(a), abs(b))


def span_of_bins(time: np.ndarray, bin_ms: float) -> tuple[float, float]:
    """Start of the first and end of the last bin, s, from their centres [M] (s)."""
    start, end = (round(float(time[i]) + sign * bin_ms / 2000, 9) + 0.0 for i, sign in ((0, -1), (-1, 1)))
    return start, end


def smoothing_kernel(options: Options) -> np.ndarray:
    """Weights of the smoothing kernel, [2 P + 1] bins with sum 1; the weight in the middle has lag 0.

    Gaussian and causal exponential kernels are sampled at the bins; a boxcar weights each bin by the share of it that it covers.
    As in a convolution, weight P + d applies to the bin d bins earlier.
    """
    width = options.sigma / options.bin_ms  # bins
    if options.kernel == "none":
        return np.ones(1)
    reach = int({"gaussian": 4 * width + 0.5, "boxcar": width + 0.5, "causal_exp": 8 * width + 0.5}[options.kernel])
    lag = np.arange(-reach, reach + 1)
    if options.kernel == "gaussian":
        weight = np.exp(-0.5 * (lag / width) ** 2)
    elif options.kernel == "boxcar":
        weight = np.clip(np.minimum(lag + 0.5, width) - np.maximum(lag - 0.5, -width), 0, None)
    else:
        weight = np.where(lag >= 0, np.exp(-np.maximum(lag, 0) / width), 0)
    return weight / weight.sum()


def _merge_intervals(intervals: np.ndarray) -> np.ndarray:
    """Intervals [K, 2] in ascending order, with touching and overlapping intervals merged."""
    intervals = intervals[np.argsort(intervals[:, 0], kind="stable")]
    end = np.maximum.accumulate(intervals[:, 1])
    first = np.append(True, intervals[1:, 0] > end[:-1])
    return np.column_stack([intervals[first, 0], end[np.append(first[1:], True)]])


def _observation_patterns(session: Session, units: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Groups of units with equal observation intervals, as units of one probe mostly have.

    Returns:
      ([U] number of the pattern of each unit, intervals [K, 2] s of each pattern).
    """
    if session.observed is None:
        return np.zeros(len(units), np.int64), [np.array([[-np.inf, np.inf]])]
    intervals, index = session.observed
    numbers: dict[bytes, int] = {}
    patterns: list[np.ndarray] = []
    pattern_of_unit = np.zeros(len(units), np.int64)
    for row, u in enumerate(units):
        own = np.ascontiguousarray(intervals[index[u] : index[u + 1]])
        number = pattern_of_unit[row] = numbers.setdefault(own.tobytes(), len(numbers))
        if number == len(patterns):
            patterns.append(_merge_intervals(own) if len(own) else own.reshape(0, 2))
    return pattern_of_unit, patterns


@dataclasses.dataclass(frozen=True)
class _TrialWindows:
    """Trials T of one condition for each observation pattern G; the bins B are those of the window and P more on each side.

    at: [T] s, start of bin 0.
    half: [G, T] 0 for odd-numbered and 1 for even-numbered trials among those that count, -1 for trials that do not count.
    low, high: [G, T] the bins low to high - 1 were observed.
    exposure: [G, 2, B] number of trials of each half in which a bin was observed.
    """

    at: np.ndarray
    half: np.ndarray
    low: np.ndarray
    high: np.ndarray
    exposure: np.ndarray


def _trial_windows(times: np.ndarray, patterns: list[np.ndarray], options: Options, pad: int, n_bins: int) -> _TrialWindows:
    """Windows of the trials of one condition.

    Args:
      times: [T] s, finite times of the event, in the order of the trials.
      patterns: observation intervals [K, 2] s of each pattern.
      options: window and bin.
      pad: bins P on each side of the window.
      n_bins: bins M of the window.
    """
    width, total = options.bin_ms / 1000, n_bins + 2 * pad
    at = times + options.window_s[0] - pad * width
    half = np.full((len(patterns), len(times)), -1, np.int64)
    low, high = np.zeros(half.shape, np.int64), np.full(half.shape, total, np.int64)
    exposure = np.zeros((len(patterns), 2, total))
    slack = EDGE_TOLERANCE * width
    for g, intervals in enumerate(patterns):
        if not len(intervals):
            continue
        interval = np.searchsorted(intervals[:, 0], times + options.window_s[0] + slack, side="right") - 1
        begin, end = intervals[np.maximum(interval, 0)].T
        counts = (interval >= 0) & (times + options.window_s[1] <= end + slack)
        half[g, counts] = np.arange(counts.sum()) % 2
        with np.errstate(invalid="ignore"):
            low[g] = np.clip(np.ceil((begin - at) / width - EDGE_TOLERANCE), 0, total)
            high[g] = np.clip(np.floor((end - at) / width + EDGE_TOLERANCE), 0, total)
        for h in (0, 1):
            steps = np.zeros(total + 1)
            np.add.at(steps, low[g, half[g] == h], 1)
            np.add.at(steps, high[g, half[g] == h], -1)
            exposure[g, h] = np.cumsum(steps)[:-1]
    return _TrialWindows(at, half, low, high, exposure)


def _count_spikes(
    session: Session, units: np.ndarray, pattern_of_unit: np.ndarray, trials: _TrialWindows, width: float, single: np.ndarray | None
) -> np.ndarray:
    """Spike counts [2, U, B] of units in the observed bins, for the trials of each half.

    Args:
      session: the session.
      units: [U] numbers of the units.
      pattern_of_unit: [U] observation pattern of each unit.
      trials: windows of the trials.
      width: length of a bin, s.
      single: [T, M, U] zeros of an unsigned type, to which the counts of single trials in the bins of the window are added; or None.
    """
    n_units, total = len(pattern_of_unit), trials.exposure.shape[2]
    edges = np.concatenate([trials.at - EDGE_TOLERANCE * width, trials.at + (total - EDGE_TOLERANCE) * width])
    within = np.empty((n_units, len(edges)), np.int64)
    for number, u in enumerate(units):
        begin = session.spike_index[u]
        within[number] = begin + np.searchsorted(session.spike_times[begin : session.spike_index[u + 1]], edges)
    first, after = np.split(within, 2, axis=1)  # [U, T] first spike of each unit in each trial, and first spike after it
    length = np.where(trials.half[pattern_of_unit] >= 0, after - first, 0)
    n_until = np.cumsum(length.sum(axis=1))
    out = np.zeros((2, n_units, total))
    start = 0
    while start < n_units:
        stop = max(start + 1, int(np.searchsorted(n_until, (n_until[start - 1] if start else 0) + SPIKES_PER_BLOCK, side="right")))
        unit, trial = np.nonzero(length[start:stop])  # one row for each unit and trial with spikes
        n_spikes, pattern = length[start:stop][unit, trial], pattern_of_unit[start:stop][unit]
        row = np.repeat(np.arange(len(unit)), n_spikes)
        spike = np.arange(len(row)) + (first[start:stop][unit, trial] - np.cumsum(n_spikes) + n_spikes)[row]
        bins = np.floor((session.spike_times[spike] - trials.at[trial][row]) / width + EDGE_TOLERANCE).astype(np.int64)
        inside = (bins >= trials.low[pattern, trial][row]) & (bins < trials.high[pattern, trial][row])
        cell = ((trials.half[pattern, trial] * (stop - start) + unit) * total)[row] + bins
        if single is not None:
            pad = (total - single.shape[1]) // 2
            shown = np.flatnonzero(inside & (bins >= pad) & (bins < total - pad))
            place = (trial[row[shown]] * single.shape[1] + bins[shown] - pad) * n_units + start + unit[row[shown]]
            np.add.at(single.reshape(-1), place, single.dtype.type(1))
        out[:, start:stop] = np.bincount(cell[inside], minlength=2 * (stop - start) * total).reshape(2, stop - start, total)
        start = stop
    return out


def not_recorded(total: np.ndarray, pad: int) -> np.ndarray:
    """[B] bool, the bins before or after the window, if no unit spiked in any of them although many spikes were expected.

    Args:
      total: [B] spikes of all units in all trials.
      pad: bins P on each side of the window.
    """
    nowhere = np.zeros(len(total), bool)
    window = total[pad : len(total) - pad]
    if pad and window.mean() >= EXPECTED_SPIKES and window.min() > 0:
        nowhere[:pad] = not total[:pad].any()
        nowhere[-pad:] = not total[-pad:].any()
    return nowhere


def smooth(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Values [..., B] convolved with a kernel of 2 P + 1 weights, without the P bins on each side: [..., M]."""
    pad = len(weight) // 2
    return convolve1d(values, weight, axis=-1, mode="constant")[..., pad : values.shape[-1] - pad]


def average_trials(
    session: Session, units: np.ndarray, trials_of_conditions: list[np.ndarray], times: np.ndarray, options: Options
) -> TrialAverage:
    """Trial-averaged rates of units of a session around an event.

    Args:
      session: spike trains and observation intervals.
      units: [U] numbers of the units.
      trials_of_conditions: for each condition, [trials] bool mask of its trials; trials with time NaN are left out.
      times: [trials] s, time of the event in each trial.
      options: window, bin, kernel, sigma, halves, trial_counts.

    Raises:
      UserError: the bins do not divide the window.
    """
    weight = smoothing_kernel(options)
    pad, n_bins, width = len(weight) // 2, len(bin_centres(options)), options.bin_ms / 1000
    pattern_of_unit, patterns = _observation_patterns(session, units)
    n_units = len(units)
    rate = np.empty((len(trials_of_conditions), n_bins, n_units), np.float32)
    half = np.empty((2, *rate.shape), np.float32) if options.halves else None
    n_trials = np.zeros((n_units, len(trials_of_conditions)), np.int32)
    numbers = [np.flatnonzero(mask & np.isfinite(times)) for mask in trials_of_conditions]
    ends = np.cumsum([len(each) for each in numbers])
    dtype = np.uint8 if options.bin_ms <= LONGEST_UINT8 else np.uint16
    single = np.zeros((ends[-1], n_bins, n_units), dtype) if options.trial_counts else None
    which = np.empty((ends[-1], n_units), np.int8)
    windows, counted = [], []
    for c, mine in enumerate(numbers):
        trials, rows = _trial_windows(times[mine], patterns, options, pad, n_bins), slice(ends[c] - len(mine), ends[c])
        which[rows] = trials.half[pattern_of_unit].T
        windows.append(trials)
        counted.append(_count_spikes(session, units, pattern_of_unit, trials, width, None if single is None else single[rows]))
    missing = not_recorded(sum(counts.sum(axis=(0, 1)) for counts in counted), pad)
    if missing.any():
        sides = [side for side, bin_ in (("before", 0), ("after", -1)) if missing[bin_]]
        log.info("%s has no spikes %s the window: taken as not recorded.", session.name, " and ".join(sides))
    for c, trials in enumerate(windows):
        spikes = smooth(counted[c], weight) / width
        exposure = smooth(np.where(missing, 0, trials.exposure), weight)[pattern_of_unit].transpose(1, 0, 2)
        n_trials[:, c] = (trials.half >= 0).sum(axis=1)[pattern_of_unit]
        with np.errstate(divide="ignore", invalid="ignore"):
            rate[c] = (spikes.sum(axis=0) / exposure.sum(axis=0)).T
            if half is not None:
                half[:, c] = (spikes / exposure).transpose(0, 2, 1)
    condition = np.repeat(np.arange(len(numbers)), [len(each) for each in numbers])
    counts = None if single is None else TrialCounts(single, condition, np.concatenate(numbers), which)
    return TrialAverage(rate, half, n_trials, counts)


def reliability(half: np.ndarray) -> np.ndarray:
    """Pearson correlation over time, [U, C], of the halves [2, C, M, U]; NaN where one half is constant or unknown."""
    a, b = half.astype(np.float64) - half.mean(axis=2, keepdims=True, dtype=np.float64)
    spread = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 0, (a * b).sum(axis=1) / spread, np.nan).T.astype(np.float32)
