"""Time 0 of each trial: a column of the trials, or the first event of a series within the trial."""

from __future__ import annotations

import numpy as np

from rlsnet.data import query
from rlsnet.data.session import Session
from rlsnet.errors import UserError

OVERLAP_TOLERANCE_S = 1e-3  # overlap of two trials that is ignored


def event_times(session: Session, align: str) -> np.ndarray:
    """[trials] s, time of an event in each trial; NaN for trials without the event.

    For a series of events, the event of a trial is the first with start_time <= t < stop_time.

    Args:
      session: the session.
      align: a column of its trials, or one of its series of events.

    Raises:
      UserError: no such column or series, or trials that overlap, so that an event may belong to two of them.
    """
    where = str(session.path)
    if align in session.trials:
        return query.as_numbers(session.trials[align])
    query.require_column(align, [*session.trials, *session.events], f"align={align}", where)
    if "start_time" not in session.trials:
        raise UserError(
            f"align={align}: the trials of {where} have no start_time, so events cannot be assigned to trials; expected a column of trials."
        )
    start = query.as_numbers(session.trials["start_time"])
    order = np.argsort(start, kind="stable")
    order = order[np.isfinite(start[order])]
    next_start = np.append(start[order][1:], np.inf)
    stop = query.as_numbers(session.trials["stop_time"])[order] if "stop_time" in session.trials else next_start
    stop = np.where(np.isfinite(stop), stop, next_start)
    if (late := np.flatnonzero(stop[:-1] > next_start[:-1] + OVERLAP_TOLERANCE_S)).size:
        a, b = (int(order[i]) + 1 for i in (late[0], late[0] + 1))
        raise UserError(
            f"align={align}: trials {a} and {b} of {where} overlap (one lasts until {stop[late[0]]:g} s, the other begins at"
            f" {start[b - 1]:g} s), so an event may lie in both; expected trials that do not overlap, or a column of trials."
        )
    events = np.sort(query.as_numbers(session.events[align]))
    first_event = np.append(events, np.inf)[np.searchsorted(events, start[order])]
    times = np.full(len(start), np.nan)
    times[order] = np.where(first_event < np.minimum(stop, next_start), first_event, np.nan)
    return times


def count_overlapping_trials(session: Session) -> int:
    """Number of trials that begin before another trial has ended."""
    if not {"start_time", "stop_time"} <= session.trials.keys():
        return 0
    start, stop = (query.as_numbers(session.trials[name]) for name in ("start_time", "stop_time"))
    order = np.argsort(start)
    return int((stop[order][:-1] > start[order][1:] + OVERLAP_TOLERANCE_S).sum())
