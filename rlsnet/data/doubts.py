"""Doubts about the spikes and trials of a session, in any format: what cannot be is refused, what may be wrong is a warning.

The unit of times is doubted unless the user has given it (`time_unit`, variables.sample_rate).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rlsnet.data import event_alignment, query, time_units
from rlsnet.data.import_options import Options
from rlsnet.data.session import Session
from rlsnet.errors import UserError

DAY = 86400.0  # s
LONG_SILENCE = 3 * 3600.0  # s; a recording this long, with a median rate below LOWEST_RATE, is not in s
LOWEST_RATE, HIGHEST_RATE = 0.05, 1000.0  # Hz, of the median unit
LOW_RATE, LONG_TRIAL = 0.5, 60.0  # Hz and s; a median rate below this is doubted in a recording of LONG_SILENCE, or in trials this long
EXPECTED_SPIKES = 10  # of all units in a window; with fewer, a trial may be silent by chance
OTHER_CLOCK = 10  # ratio of the ends of spikes and trials from which on they may have different units
FACTORS = (("ms", 1e3, 4), ("us", 1e6, 4), ("samples", 3e4, 3))  # unit, how many are a second, and the factor within which it is named


def check_units(session: Session, times: np.ndarray, options: Options) -> Iterator[str]:
    """Warnings about the unit of spikes and trials; raises UserError if a recording cannot be in s.

    Args:
      session: the session, with times in s.
      times: [trials] s of the event that trials are aligned to.
      options: settings of the import.
    """
    n_spikes = np.diff(session.spike_index)
    known = _ends_of_trials(session, times)
    if not n_spikes.any() or not len(known):
        return
    first, last = float(session.spike_times.min()), float(session.spike_times.max())
    extent = 0.0 if session.separate is None else float(np.diff(session.separate.extent)[0])
    length = len(session.separate.zero) * extent if session.separate is not None else last - first
    rate = float(np.median(n_spikes[n_spikes > 0])) / max(length, 1e-9)
    said = time_units.unit_of_spikes(options) is not None
    lasts = f"{length / DAY:.3g} days" if length > DAY else f"{length:.4g} s"
    one_clock = session.separate is not None or max(last, 1) < OTHER_CLOCK * max(known.max(), 1)
    setting = "time_unit" if one_clock else "time_unit.spikes"
    if n_spikes.max() > 1 and rate > HIGHEST_RATE:
        raise UserError(
            f"{session.path}: its median unit has {rate:,.0f} Hz in {lasts}, which no neuron has; expected other units of time, such as"
            f" {setting}=s, ms, us or samples with variables.sample_rate=30000."
        )
    if rate < LOWEST_RATE and length > LONG_SILENCE and not said:
        raise UserError(
            f"{session.path}: would last {lasts}, with a median rate of {rate:.2g} Hz, if its spikes were in s; expected"
            f" {setting}={_likely_unit(1 / max(rate, 1e-12))}, or time_unit.spikes=s if that is so."
        )
    doubted = rate < LOW_RATE and (length > LONG_SILENCE or extent > LONG_TRIAL) and not said
    if rate < LOWEST_RATE or length > DAY or doubted:
        yield f"the recording lasts {lasts}, its median unit has {rate:.2g} Hz; {setting}=ms, us or samples, if its spikes are not in s"
    elif session.separate is None and not 1 / OTHER_CLOCK <= max(last, 1) / max(known.max(), 1) <= OTHER_CLOCK:
        yield (
            f"spikes last until {last:.6g} s and trials until {known.max():.6g} s: expected one clock for both, in s;"
            " time_unit.spikes=ms or time_unit.trials=ms, if one is in ms"
        )


def check_trials(session: Session, times: np.ndarray, used: np.ndarray, options: Options) -> Iterator[str]:
    """Warnings about trials without spikes, trials that overlap, and events that lie in no trial; raises UserError if trials lie elsewhere.

    Args:
      session: the session, with times in s.
      times: [trials] s of the event that trials are aligned to.
      used: [trials] bool, trials of a condition that have the event.
      options: settings of the import.
    """
    nowhere = _lie_in_no_trial(session, times)
    clock = "times on the clock of the session, not relative to the trial"
    if used.any() and len(session.spike_times):
        yield from _silent_trials(session, times, used & _observed_trials(session, times, options), options, clock if nowhere else None)
    if session.separate is None and options.align in session.trials and (n := event_alignment.count_overlapping_trials(session)):
        yield f"{n} trials begin before another has ended; their spikes may count twice"
    for name in dict.fromkeys((options.align, *(options.events or ()))):
        own = times if name == options.align else session.trials.get(name)
        if event_alignment.from_start(session, name):
            yield (
                f"{name} is on the clock of the session, so time 0 of the spikes of each trial is taken for start_time; align=start_time"
                " aligns to that time 0, if it is another event"
            )
        elif own is not None and _lie_in_no_trial(session, query.as_numbers(own)):
            yield f"{name} lies within no trial: expected {clock}"


def _lie_in_no_trial(session: Session, times: np.ndarray) -> bool:
    """Whether there are events, and none of them lies within its trial."""
    if session.separate is not None or not {"start_time", "stop_time"} <= session.trials.keys() or not np.isfinite(times).any():
        return False
    start, stop = (query.as_numbers(session.trials[name]) for name in ("start_time", "stop_time"))
    return not ((times >= start) & (times <= stop)).any()


def _ends_of_trials(session: Session, times: np.ndarray) -> np.ndarray:
    """Times of the events and ends of the trials that are known, s."""
    ends = query.as_numbers(session.trials["stop_time"]) if "stop_time" in session.trials and session.separate is None else np.zeros(0)
    every = np.concatenate([times, ends])
    return every[np.isfinite(every)]


def _likely_unit(rate_ratio: float) -> str:
    """Unit that fits a median rate which is too low by about a factor of `rate_ratio` for 1 Hz, as text for a message."""
    unit = "ms" if rate_ratio < 3e3 else "us" if rate_ratio > 1e5 else ""
    return unit or "ms, us or samples (with variables.sample_rate=30000)"


def _observed_trials(session: Session, times: np.ndarray, options: Options) -> np.ndarray:
    """[trials] bool, trials whose window lies within an observation interval of any unit."""
    if session.observed is None:
        return np.isfinite(times)
    intervals = np.unique(session.observed[0], axis=0)
    start, end = options.window_s
    out = np.zeros(len(times), bool)
    for low, high in intervals:
        out |= (times + start >= low) & (times + end <= high)
    return out


def _silent_trials(session: Session, times: np.ndarray, trials: np.ndarray, options: Options, right: str | None) -> Iterator[str]:
    """Warning about `trials` without a spike of any unit in the window; raises UserError if these are most trials.

    Arguments are those of `check_trials`; `right` is what would be right for the events, if that is known.
    """
    numbers = np.flatnonzero(trials)
    if not len(numbers):
        return
    events = times[numbers]
    begin, end = (events + edge for edge in options.window_s)
    spikes = np.zeros(len(numbers), np.int64)
    for low, high in zip(session.spike_index[:-1], session.spike_index[1:], strict=True):
        own = session.spike_times[low:high]
        spikes += np.searchsorted(own, end) - np.searchsorted(own, begin)
    silent = spikes == 0
    first, last = float(session.spike_times.min()), float(session.spike_times.max())
    expected = len(session.spike_times) / max(last - first, 1e-9) * (options.window_s[1] - options.window_s[0])
    many = expected >= EXPECTED_SPIKES
    if silent.all() or (many and silent.mean() > 0.5):
        which = "no trial has" if silent.all() else f"only {int((~silent).sum())} of {len(numbers)} trials have"
        right = right or _mending(last, float(events.max()), last - first)
        raise UserError(
            f"{session.path}: align={options.align}: {which} spikes in the window; spikes lie from {first:.6g} to {last:.6g} s, the"
            f" events from {events.min():.6g} to {events.max():.6g} s; expected {right}."
        )
    if silent.any() and many:
        shown = ", ".join(map(str, numbers[silent][:5] + 1)) + (", ..." if silent.sum() > 5 else "")
        which = f"{int(silent.sum())} of {len(numbers)} trials ({shown})"
        yield f"{which} have no spike of any unit, which counts as silence; trials=... leaves them out"
    elif session.observed is None:
        outside = (begin < min(first, 0)) | (end > last)
        if outside.any():
            extend = "1 trial extends" if outside.sum() == 1 else f"{outside.sum()} trials extend"
            yield f"{extend} beyond the first or last spike of the session; that time counts as silence"


def _mending(last_spike: float, last_event: float, length: float) -> str:
    """What would be right for spikes and events that do not meet: other units, or one clock."""
    for kind, ratio in (("trials", last_event / max(last_spike, 1e-9)), ("spikes", last_spike / max(last_event, 1e-9))):
        for unit, factor, within in FACTORS:
            if factor / within < ratio < factor * within:
                also = " with variables.sample_rate=30000" if unit == "samples" else ""
                return f"one clock for both, such as time_unit.{kind}={unit}{also}"
    if last_event > OTHER_CLOCK * max(length, 1e-9):
        return (
            "times on the clock of the session, or, for times relative to each trial, cells of units x trials or the trial of each spike"
            " (variables.spike_trials=...)"
        )
    return 'one clock for both, or a filter such as trials="start_time < 100" that leaves out trials without recording'
