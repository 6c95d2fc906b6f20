"""Spikes of a session, around an event of its trials, averaged over trials: peri-event time histograms of all its units.

A bin takes its start and not its end. A trial counts for a unit if its whole window lies in an interval in which the unit was
observed. Smoothing looks beyond the window, as far as the unit was observed there: with n trials, of which e[b] observed bin b,
and s[b] spikes in them, the rate is (k * s)[b] / (k * e)[b] / bin for a kernel k, so that no edge bends it.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.ndimage import convolve1d

from rlsnet.config import UserError
from rlsnet.importers import filters
from rlsnet.importers.options import Options
from rlsnet.importers.session import Session

ON_EDGE = 1e-6  # of a bin: a spike this little before an edge is on it, but for the rounding of its time
TOGETHER = 1e-3  # s that trials may overlap by
BLOCK = 200_000  # spikes at a time, about what stays in a cache


@dataclasses.dataclass(frozen=True)
class Psth:
    """What `average` makes of a session.

    rate: [C, M, U] Hz, smoothed; NaN where no trial of a condition counts for a unit.
    half: [2, C, M, U] Hz of a unit's odd-numbered (1st, 3rd, ...) and even-numbered trials, or None.
    n_trials: [U, C] trials that count.
    """

    rate: np.ndarray
    half: np.ndarray | None
    n_trials: np.ndarray


def bins(options: Options) -> np.ndarray:
    """[M] s, the centres of the bins; raises UserError where they do not divide the window."""
    start, end = options.window
    count = (end - start) * 1000 / options.bin
    if end <= start:
        raise UserError(f"window=[{start:g}, {end:g}]: expected a start and a later end, in s.")
    if abs(count - round(count)) > 1e-6:
        most = round(count) or 1
        raise UserError(
            f"bin={options.bin:g}: should divide the window of {(end - start) * 1000:g} ms, as {(end - start) * 1000 / most:g} ms does;"
            f" it makes {count:.3f} bins."
        )
    if options.kernel != "none" and options.sigma > (end - start) * 1000:
        raise UserError(f"sigma={options.sigma:g} ms: expected at most the window of {(end - start) * 1000:g} ms.")
    return start + options.bin / 1000 * (np.arange(round(count)) + 0.5)


def kernel(options: Options) -> np.ndarray:
    """[2 P + 1] weights by bin, of sum 1, the middle one at lag 0: gaussian and causal_exp sampled at bins, boxcar by its share of each.

    Time runs as in convolution: weight P + d carries what happens d bins before.
    """
    width = options.sigma / options.bin  # in bins
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


def aligned(session: Session, align: str) -> np.ndarray:
    """[trials] s, when the event that time is counted from happens in each trial; NaN where it does not.

    A column of the trials has it, or a series of events whose first time in [start, stop) of a trial is that trial's. Raises
    UserError where there is neither, and where trials overlap, so that an event may be in two.
    """
    where = str(session.path)
    if align in session.trials:
        return filters.numbers(session.trials[align])
    filters.known(align, [*session.trials, *session.events], f"align={align}", where)
    if "start_time" not in session.trials:
        raise UserError(f"align={align}: the trials of {where} have no start_time, so no event is known to be in one; align to a column.")
    start = filters.numbers(session.trials["start_time"])
    order = np.argsort(start, kind="stable")
    order = order[np.isfinite(start[order])]
    following = np.append(start[order][1:], np.inf)
    stop = filters.numbers(session.trials["stop_time"])[order] if "stop_time" in session.trials else following
    stop = np.where(np.isfinite(stop), stop, following)
    if (late := np.flatnonzero(stop[:-1] > following[:-1] + TOGETHER)).size:
        a, b = (int(order[i]) + 1 for i in (late[0], late[0] + 1))
        raise UserError(
            f"align={align}: trials {a} and {b} of {where} overlap (one lasts until {stop[late[0]]:g} s, the other begins at"
            f" {start[b - 1]:g} s), so an event in both belongs to neither; expected trials apart, or a column of them to align to."
        )
    events = np.sort(filters.numbers(session.events[align]))
    first = np.searchsorted(events, start[order])
    found = np.append(events, np.inf)[first]
    times = np.full(len(start), np.nan)
    times[order] = np.where(found < np.minimum(stop, following), found, np.nan)
    return times


def overlapping(session: Session) -> int:
    """How many trials begin before another has ended."""
    if not {"start_time", "stop_time"} <= session.trials.keys():
        return 0
    start, stop = (filters.numbers(session.trials[name]) for name in ("start_time", "stop_time"))
    order = np.argsort(start)
    return int((stop[order][:-1] > start[order][1:] + TOGETHER).sum())


def _merged(intervals: np.ndarray) -> np.ndarray:
    """[K, 2] intervals in order, those that touch or overlap made one."""
    intervals = intervals[np.argsort(intervals[:, 0], kind="stable")]
    end = np.maximum.accumulate(intervals[:, 1])
    first = np.append(True, intervals[1:, 0] > end[:-1])
    return np.column_stack([intervals[first, 0], end[np.append(first[1:], True)]])


def _patterns(session: Session, units: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """([U] pattern of each unit, intervals [K, 2] of each pattern): units of a probe are mostly observed together."""
    if session.observed is None:
        return np.zeros(len(units), np.int64), [np.array([[-np.inf, np.inf]])]
    intervals, index = session.observed
    seen: dict[bytes, int] = {}
    patterns: list[np.ndarray] = []
    kinds = np.zeros(len(units), np.int64)
    for row, u in enumerate(units):
        mine = np.ascontiguousarray(intervals[index[u] : index[u + 1]])
        number = kinds[row] = seen.setdefault(mine.tobytes(), len(seen))
        if number == len(patterns):
            patterns.append(_merged(mine) if len(mine) else mine.reshape(0, 2))
    return kinds, patterns


@dataclasses.dataclass(frozen=True)
class _Trials:
    """The trials of one condition, as each pattern G of observation has them; bins B are those of the window and P on each side.

    at: [T] s, where bin 0 begins.
    half: [G, T] 0 for trials with odd numbers among those that count, 1 for even, -1 for those that do not count.
    low, high: [G, T] the bins low to high - 1 were observed.
    exposure: [G, 2, B] trials of each half that observed a bin.
    """

    at: np.ndarray
    half: np.ndarray
    low: np.ndarray
    high: np.ndarray
    exposure: np.ndarray


def _trials(times: np.ndarray, patterns: list[np.ndarray], options: Options, pad: int, n_bins: int) -> _Trials:
    """`times` [T] s of the event, without NaN, in the order of the trials."""
    width, total = options.bin / 1000, n_bins + 2 * pad
    at = times + options.window[0] - pad * width
    half = np.full((len(patterns), len(times)), -1, np.int64)
    low, high = np.zeros(half.shape, np.int64), np.full(half.shape, total, np.int64)
    exposure = np.zeros((len(patterns), 2, total))
    slack = ON_EDGE * width
    for g, intervals in enumerate(patterns):
        if not len(intervals):
            continue
        mine = np.searchsorted(intervals[:, 0], times + options.window[0] + slack, side="right") - 1
        begin, end = intervals[np.maximum(mine, 0)].T
        counts = (mine >= 0) & (times + options.window[1] <= end + slack)
        half[g, counts] = np.arange(counts.sum()) % 2
        with np.errstate(invalid="ignore"):
            low[g] = np.clip(np.ceil((begin - at) / width - ON_EDGE), 0, total)
            high[g] = np.clip(np.floor((end - at) / width + ON_EDGE), 0, total)
        for h in (0, 1):
            steps = np.zeros(total + 1)
            np.add.at(steps, low[g, half[g] == h], 1)
            np.add.at(steps, high[g, half[g] == h], -1)
            exposure[g, h] = np.cumsum(steps)[:-1]
    return _Trials(at, half, low, high, exposure)


def _counts(session: Session, chosen: np.ndarray, kinds: np.ndarray, trials: _Trials, width: float) -> np.ndarray:
    """[2, U, B] spikes of the chosen units in each bin, of the trials of each half."""
    n_units, total = len(kinds), trials.exposure.shape[2]
    edges = np.concatenate([trials.at - ON_EDGE * width, trials.at + (total - ON_EDGE) * width])
    within = np.empty((n_units, len(edges)), np.int64)
    for number, u in enumerate(chosen):
        begin = session.index[u]
        within[number] = begin + np.searchsorted(session.times[begin : session.index[u + 1]], edges)
    first, after = np.split(within, 2, axis=1)  # [U, T] the spikes of a unit around each trial
    length = np.where(trials.half[kinds] >= 0, after - first, 0)
    done = np.cumsum(length.sum(axis=1))
    out = np.zeros((2, n_units, total))
    a = 0
    while a < n_units:
        b = max(a + 1, int(np.searchsorted(done, (done[a - 1] if a else 0) + BLOCK, side="right")))
        unit, trial = np.nonzero(length[a:b])  # a row for each unit and trial with spikes
        many, kind = length[a:b][unit, trial], kinds[a:b][unit]
        row = np.repeat(np.arange(len(unit)), many)
        spike = np.arange(len(row)) + (first[a:b][unit, trial] - np.cumsum(many) + many)[row]
        bin_of = np.floor((session.times[spike] - trials.at[trial][row]) / width + ON_EDGE).astype(np.int64)
        seen = (bin_of >= trials.low[kind, trial][row]) & (bin_of < trials.high[kind, trial][row])
        cell = ((trials.half[kind, trial] * (b - a) + unit) * total)[row] + bin_of
        out[:, a:b] = np.bincount(cell[seen], minlength=2 * (b - a) * total).reshape(2, b - a, total)
        a = b
    return out


def _smooth(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """[..., M] of [..., B]: convolved with a kernel of 2 P + 1 weights, the P bins on each side left out."""
    pad = len(weight) // 2
    return convolve1d(values, weight, axis=-1, mode="constant")[..., pad : values.shape[-1] - pad]


def average(session: Session, units: np.ndarray, chosen: list[np.ndarray], times: np.ndarray, options: Options) -> Psth:
    """The rates of units of a session around an event.

    Args:
      session: spikes, and when units were observed.
      units: [U] numbers of those wanted.
      chosen: for each condition, [trials] bool, its trials; those whose time is NaN are left out.
      times: [trials] s, of the event.
      options: window, bin, kernel, sigma, halves.

    Raises:
      UserError: where bins do not divide the window.
    """
    weight = kernel(options)
    pad, n_bins, width = len(weight) // 2, len(bins(options)), options.bin / 1000
    kinds, patterns = _patterns(session, units)
    n_units = len(units)
    rate = np.empty((len(chosen), n_bins, n_units), np.float32)
    half = np.empty((2, *rate.shape), np.float32) if options.halves else None
    n_trials = np.zeros((n_units, len(chosen)), np.int32)
    for c, mine in enumerate(chosen):
        trials = _trials(times[mine & np.isfinite(times)], patterns, options, pad, n_bins)
        spikes = _smooth(_counts(session, units, kinds, trials, width), weight) / width
        exposure = _smooth(trials.exposure, weight)[kinds].transpose(1, 0, 2)
        n_trials[:, c] = (trials.half >= 0).sum(axis=1)[kinds]
        with np.errstate(divide="ignore", invalid="ignore"):
            rate[c] = (spikes.sum(axis=0) / exposure.sum(axis=0)).T
            if half is not None:
                half[:, c] = (spikes / exposure).transpose(0, 2, 1)
    return Psth(rate, half, n_trials)


def reliability(half: np.ndarray) -> np.ndarray:
    """[U, C] Pearson correlation over time of the halves [2, C, M, U]; NaN where one of them is constant or not known."""
    a, b = half.astype(np.float64) - half.mean(axis=2, keepdims=True, dtype=np.float64)
    spread = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 0, (a * b).sum(axis=1) / spread, np.nan).T.astype(np.float32)
