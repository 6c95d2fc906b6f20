"""Time 0 of each trial: a column of the trials, or the first event of a series within the trial."""

from __future__ import annotations

import numpy as np

from rlsnet.data import query
from rlsnet.data.session import SeparateTrials, Session
from rlsnet.errors import UserError

OVERLAP_TOLERANCE_S = 1e-3  # overlap of two trials that is ignored


def event_times(session: Session, align: str, setting: str = "align") -> np.ndarray:
    """[trials] s, time of an event in each trial; NaN for trials without the event.

    For a series of events, the event of a trial is the first with start_time <= t < stop_time.

    Args:
      session: the session.
      align: a column of its trials, or one of its series of events.
      setting: that names the event, for messages.

    Raises:
      UserError: no such column or series, or trials that overlap, so that an event may belong to two of them.
    """
    where = session.trials_file
    if session.separate is not None:
        return session.separate.zero + _relative_times(session, session.separate, align, setting)
    if align in session.trials:
        return _numbers(session, align)
    query.require_column(align, [*session.trials, *session.events], f"{setting}={align}", where)
    if "start_time" not in session.trials:
        raise UserError(
            f"{setting}={align}: the trials of {where} have no start_time, so no event belongs to a trial; expected a column of trials."
        )
    start = _numbers(session, "start_time")
    order = np.argsort(start, kind="stable")
    order = order[np.isfinite(start[order])]
    next_start = np.append(start[order][1:], np.inf)
    stop = _numbers(session, "stop_time")[order] if "stop_time" in session.trials else next_start
    stop = np.where(np.isfinite(stop), stop, next_start)
    if (late := np.flatnonzero(stop[:-1] > next_start[:-1] + OVERLAP_TOLERANCE_S)).size:
        a, b = (int(order[i]) + 1 for i in (late[0], late[0] + 1))
        raise UserError(
            f"{setting}={align}: trials {a} and {b} of {where} overlap (one lasts until {stop[late[0]]:g} s, the other begins at"
            f" {start[b - 1]:g} s), so an event may lie in both; expected trials that do not overlap, or a column of trials."
        )
    events = np.sort(query.as_numbers(session.events[align]))
    first_event = np.append(events, np.inf)[np.searchsorted(events, start[order])]
    times = np.full(len(start), np.nan)
    times[order] = np.where(first_event < np.minimum(stop, next_start), first_event, np.nan)
    return times


def _relative_times(session: Session, separate: SeparateTrials, align: str, setting: str) -> np.ndarray:
    """[trials] s, times of an event from time 0 of each trial, in trials that the file contains one by one; start_time is time 0."""
    if align == "start_time":
        return np.zeros(len(separate.zero))
    query.require_column(align, session.trials, f"{setting}={align}", session.trials_file)
    times = _numbers(session, align)
    if _lie_within(separate, times):
        return times
    if not from_start(session, align):
        low, high = separate.extent
        raise UserError(
            f"{setting}={align}: times of {session.path} do not lie within its trials, from {low:.6g} to {high:.6g} s; expected times from"
            " time 0 of each trial."
        )
    if (first := _first_time(session, separate)) < -OVERLAP_TOLERANCE_S:
        raise UserError(
            f"{setting}={align}: is on the clock of the session, and {session.path} has times from {first:.6g} s on, so that their time"
            " 0 may be another event than start_time; expected times from time 0 of each trial, or align=start_time, which is that time 0."
        )
    return times - _numbers(session, "start_time")


def from_start(session: Session, name: str) -> bool:
    """Whether a column is on the clock of the session, and the spikes are relative to trials, whose time 0 is then taken for start_time."""
    if session.separate is None or name == "start_time" or not {name, "start_time"} <= session.trials.keys():
        return False
    times, start = (query.as_numbers(session.trials[each]) for each in (name, "start_time"))
    return not _lie_within(session.separate, times) and _lie_within(session.separate, times - start)


def _lie_within(separate: SeparateTrials, times: np.ndarray) -> bool:
    """Whether all known times, s from time 0 of a trial, lie in the time that the file has of a trial."""
    known = times[np.isfinite(times)]
    return bool(len(known) and ((known >= separate.extent[0]) & (known <= separate.extent[1])).all())


def _first_time(session: Session, separate: SeparateTrials) -> float:
    """Start of the first bin, or time of the earliest spike, s from time 0 of its trial."""
    if separate.bin_ms is not None or not len(session.spike_times):
        return separate.extent[0]
    trial = np.searchsorted(separate.zero + separate.extent[0], session.spike_times, side="right") - 1
    return float(np.nanmin(session.spike_times - separate.zero[trial]))


def _numbers(session: Session, name: str) -> np.ndarray:
    """[trials] numbers of a column of trials, NaN where missing; raises UserError for a text that is no number."""
    return query.require_numbers(session.trials[name], f"{session.trials_file}: {name}")


def count_overlapping_trials(session: Session) -> int:
    """Number of trials that begin before another trial has ended."""
    if not {"start_time", "stop_time"} <= session.trials.keys():
        return 0
    start, stop = (_numbers(session, name) for name in ("start_time", "stop_time"))
    order = np.argsort(start)
    return int((stop[order][:-1] > start[order][1:] + OVERLAP_TOLERANCE_S).sum())
