"""Units of the times in a source: what the user says, else what the file says, else s; times are turned into s here.

Readers call `spike_seconds` for spike times and give trials and events as they are stored; `in_seconds` converts those that the import
uses, for all formats. A unit that a file states and that is none of these, such as minutes, is refused. A unit at the end of a name
(time_ms, start_time_us, timestamps [ms]) is obeyed too, unless only without it the times of an event lie in their trials (onset_sample).
"""

from __future__ import annotations

import dataclasses
import re
from collections import ChainMap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlsnet.data import query
from rlsnet.data.formats.table_files import TRIAL_TIME_NAMES
from rlsnet.data.import_options import TIME_KINDS, TIME_UNITS, Options
from rlsnet.data.session import Session, Table
from rlsnet.errors import UserError, joined

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
SPELLINGS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("ms", "msec", "msecs", "millis", "millisec", "millisecs", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("us", "usec", "usecs", "micros", "microsec", "microsecs", "microsecond", "microseconds"), "us"),
    **dict.fromkeys(("\N{MICRO SIGN}s", "\N{GREEK SMALL LETTER MU}s"), "us"),
    **dict.fromkeys(("sample", "samples"), "samples"),
}
ATTRIBUTES = ("units", "unit", "time_units", "time_unit")  # of an array, that name its unit
SINCE = re.compile(r"(?P<unit>\w+)\.?(?: +(?:since|from|after|relative)\b.*)?")  # s; seconds since the start of the session
SUFFIX = re.compile(r"(?P<stem>.*?[^\W_])(?:[ _.]*[\[(] *(?P<bracket>\w+) *[\])]|[ _.](?P<plain>[^\W_]+))")
FEW_SPIKES = 20  # so few times in s may be whole numbers by chance
MOSTLY_WHOLE = 0.9  # share of whole numbers from which on times of a known sample rate are samples


def unit_of(text: Any) -> str | None:
    """Unit that a text such as an attribute of a file names: s, ms, us or samples; None if it names none of them."""
    parts = SINCE.fullmatch(str(text.decode() if isinstance(text, bytes) else text).strip().lower())
    return SPELLINGS.get(parts["unit"]) if parts else None


def stated_unit(attributes: Mapping[str, Any], above: Mapping[str, Any] | None = None) -> str | None:
    """What the attributes of an array in a file state as its unit: s, ms, us or samples, or another text; None: nothing.

    A text may be alone in an array, as R and MATLAB write it; numbers, such as a number of units, are no statement. The attributes of the
    group `above` count for an array without its own, if they name a unit of time.
    """
    lower = {str(name).lower(): name for name in attributes}
    for name in ATTRIBUTES:
        values = np.asarray(attributes[lower[name]]).reshape(-1).tolist() if name in lower else []
        texts = {each.decode(errors="replace") if isinstance(each, bytes) else each for each in values if isinstance(each, str | bytes)}
        texts = {text.strip("\0 ") for text in texts if text.strip("\0 ").lower() not in query.MISSING_CELLS}
        if texts:
            return common_unit(unit_of(text) or text for text in texts)
    group = None if above is None else stated_unit(above)
    return group if group in TIME_UNITS else None


def common_unit(units: Iterable[str | None]) -> str | None:
    """What is stated for several arrays that are read as one: their unit, None if nothing is, or a text that is refused if they differ."""
    different = sorted({each or "none" for each in units})
    return joined(different) if different and different != ["none"] else None


def split_name(name: str) -> tuple[str, str | None]:
    """(name without its unit, unit or None) of a column or array, such as ("time", "ms") of time_ms, time [ms] and time(ms)."""
    parts = SUFFIX.fullmatch(name.strip())
    text = (parts["bracket"] or parts["plain"]) if parts else ""
    unit = SPELLINGS.get(text if text.lower() == "us" else text.lower())  # US is an unconditioned stimulus
    return (parts["stem"], unit) if parts and unit else (name, None)


def chosen_unit(options: Options, kind: str) -> str | None:
    """Unit that the user gives for spikes, trials, events or bins: s, ms, us or samples; None: not given. Raises UserError."""
    given = options.time_unit
    if given is None:
        return None
    units = (
        dict.fromkeys(TIME_KINDS, given)
        if isinstance(given, str)
        else {kind: given["all"] for kind in TIME_KINDS if "all" in given} | given
    )
    for name, unit in units.items():
        if name not in (*TIME_KINDS, "all"):
            raise UserError(f"time_unit.{name}={unit}: expected time_unit, or a unit for each of {', '.join(TIME_KINDS)}.")
        if unit not in TIME_UNITS:
            raise UserError(f"time_unit{'' if isinstance(given, str) else f'.{name}'}={unit}: expected {joined(TIME_UNITS, 'or')}.")
    return units.get(kind)


def unit_of_spikes(options: Options) -> str | None:
    """Unit that the user gives for spikes; variables.sample_rate alone, if it is not for other times in samples, means samples."""
    given = chosen_unit(options, "spikes")
    if given is not None or "sample_rate" not in (options.variables or {}):
        return given
    return None if any(chosen_unit(options, kind) == "samples" for kind in TIME_KINDS) else "samples"


def seconds_per_unit(unit: str, sample_rate: float | None, where: Path | str, kind: str) -> float:
    """Length of a unit in s; `kind` is that of the times, one of TIME_KINDS. Raises UserError for another unit, or an unknown rate."""
    if unit in SECONDS:
        return SECONDS[unit]
    if unit != "samples":
        raise UserError(f"{where} has units {unit!r}; expected s, ms, us or samples, or the unit of its numbers as time_unit.{kind}=s.")
    if sample_rate is None:
        raise UserError(f"{where}: times are samples of an unknown rate; expected their rate in Hz, such as variables.sample_rate=30000.")
    return 1 / sample_rate


def spike_seconds(
    where: Path | str, times: np.ndarray, options: Options, sample_rate: float | None = None, stated: str | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Spike times in s.

    They are in `time_unit`, else in samples if the user gives variables.sample_rate, else in the unit that the file states. Without any
    of these, whole numbers are samples, and other numbers s.

    Args:
      where: the file, and the array in it, for messages.
      times: [spikes] as stored.
      options: settings of the import.
      sample_rate: Hz, from the user or the file; None: unknown.
      stated: unit that the file states, s, ms, us or samples; None: none. Another text is refused, unless the user gives the unit.

    Returns:
      ([spikes] s, notes).

    Raises:
      UserError: not numbers, another unit than these, or samples of an unknown rate.
    """
    times = np.asarray(times)
    if times.dtype.kind not in "fiu":
        raise UserError(f"{where}: spike times are {times.dtype}; expected numbers in s or in samples.")
    times = times.reshape(-1)
    finite = times[np.isfinite(times)] if times.dtype.kind == "f" else times
    n_negative = int((finite < 0).sum())
    negative = (f"{n_negative:,} spikes at negative times",) if n_negative else ()
    unit = unit_of_spikes(options) or stated or _unit_of_numbers(where, finite, sample_rate)
    if unit == "s":
        return times.astype(np.float64), negative
    named = f"samples at {sample_rate:g} Hz" if unit == "samples" and sample_rate else unit
    return times * seconds_per_unit(unit, sample_rate, where, "spikes"), (f"spike times are {named}", *negative)


def _unit_of_numbers(where: Path | str, finite: np.ndarray, sample_rate: float | None) -> str:
    """Unit of spike times of which nothing says the unit: samples if they are whole numbers, else s. Raises UserError."""
    integers = finite.dtype.kind in "iu"
    whole = 1.0 if integers else float(np.mean(finite == np.floor(finite))) if finite.size else 0.0
    if sample_rate is not None and finite.size:
        return "samples" if whole == 1 or (whole >= MOSTLY_WHOLE and finite.size >= FEW_SPIKES) else "s"
    if whole < 1 or (finite.size < FEW_SPIKES and not integers) or not finite.size:
        return "s"
    raise UserError(
        f"{where}: spike times are whole numbers, which means samples; expected their rate in Hz, such as variables.sample_rate=30000,"
        " or time_unit=ms."
    )


def in_seconds(session: Session, options: Options) -> Session:
    """A session with start_time, stop_time, the times that trials are aligned to and those of `events` in s; other columns stay.

    Raises:
      UserError: a unit in the file that is not known, or samples of an unknown rate.
    """
    trials, series, warnings = dict(session.trials), dict[str, np.ndarray](), list(session.warnings)
    used: dict[str, list[str]] = {}  # what has been converted, by unit
    named = (options.align, *(options.events or ()))
    for name in dict.fromkeys(("start_time", "stop_time", *named)):
        found = name if name in trials else _with_unit(name, trials) or name
        kind = "trials" if found in trials else "events"
        if kind == "events" and (found not in session.events or name not in named):
            continue
        stored = trials if kind == "trials" else session.events
        unit = chosen_unit(options, kind) or _stated_unit(session, kind, found)
        suffix = None if unit else split_name(found)[1]
        if suffix and name in named and not _is_unit_of(session, trials, kind, query.as_numbers(stored[found]), suffix):
            fits = f"its times lie in the trials if they are in s; time_unit.{kind}={suffix} if they are not"
            warnings.append(f"{found}: {suffix} is not taken for a unit, as {fits}")
            suffix = None
            if found != name:
                continue
        unit = unit or suffix or "s"
        if unit != "s" or found != name:
            scale = seconds_per_unit(unit, session.sample_rate, f"{session.path}: {found}", kind)
            where = f"{session.trials_file if kind == 'trials' else session.path}: {found}"
            (trials if kind == "trials" else series)[name] = query.require_numbers(stored[found], where) * scale
        if unit != "s":
            used.setdefault(unit, []).append("trials" if kind == "trials" else found)
    notes = (f"times of {joined(dict.fromkeys(what))} are {unit}" for unit, what in sorted(used.items()))
    events: Mapping[str, np.ndarray] = ChainMap(series, session.events) if series else session.events  # type: ignore[arg-type]
    return dataclasses.replace(session, trials=trials, events=events, notes=(*session.notes, *notes), warnings=tuple(warnings))


def _stated_unit(session: Session, kind: str, name: str) -> str | None:
    """What the file states as the unit of a column of trials or a series of events; also of start_time under the name in the file."""
    others = TRIAL_TIME_NAMES.get(name, ()) if kind == "trials" else ()
    same = [each for each in session.trials if each.lower() in others and session.trials[each] is session.trials.get(name)]
    pairs = [each.removesuffix("_0").removesuffix("_1") for each in (name, *same)]  # columns of [n, 2] intervals
    return next((unit for each in (name, *same, *pairs) if (unit := session.stated.get(f"{kind}/{each}"))), None)


def _is_unit_of(session: Session, trials: Table, kind: str, times: np.ndarray, unit: str) -> bool:
    """Whether a unit at the end of a name is one: not if most times lie in the trials in s, and fewer with the unit, as of onset_sample."""
    known = unit != "samples" or session.sample_rate is not None
    share = _share_in_trials(session, trials, kind, times * seconds_per_unit(unit, session.sample_rate, "", kind)) if known else 0.0
    plain = _share_in_trials(session, trials, kind, times)
    return share >= plain or plain < 0.5


def _share_in_trials(session: Session, trials: Table, kind: str, times: np.ndarray) -> float:
    """Share of times, s, that lie in their trial; of a series of events, between the first start and the last end of trials."""
    if "start_time" not in trials or not np.isfinite(times).any():
        return 0.0
    start = query.as_numbers(trials["start_time"])
    if session.separate is not None:
        low, high = session.separate.extent
        return max(float(((each >= low) & (each <= high)).mean()) for each in (times, times - start))
    starts = np.unique(start[np.isfinite(start)])
    stop = np.append(starts, np.inf)[np.searchsorted(starts, start, "right")]
    stop = query.as_numbers(trials["stop_time"]) if "stop_time" in trials else stop
    if kind == "events":
        start, stop = starts.min(initial=np.inf), stop[np.isfinite(stop)].max(initial=-np.inf)
    return float(((times >= start) & (times <= stop)).mean())


def _with_unit(name: str, columns: Iterable[str]) -> str | None:
    """Column whose name is `name`, or another name of that column of trials, followed by a unit; None if there is none."""
    names = (name, *TRIAL_TIME_NAMES.get(name, ()))
    found: Mapping[str, str] = {split_name(each)[0].lower(): each for each in columns if split_name(each)[1]}
    return next((found[each] for each in names if each in found), None)
