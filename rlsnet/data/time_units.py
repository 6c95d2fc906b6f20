"""Units of the times in a source: what the user says, else what the file says, else s; times are turned into s here.

Readers call `spike_seconds` for spike times and give trials and events as they are stored; `in_seconds` converts those that the import
uses, for all formats. A unit at the end of a name (time_ms, start_time_us, timestamps [ms]) is obeyed like any other in the file.
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
from rlsnet.data.session import Session
from rlsnet.errors import UserError

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
SPELLINGS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("ms", "msec", "msecs", "millisec", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("us", "usec", "usecs", "\N{MICRO SIGN}s", "\N{GREEK SMALL LETTER MU}s", "microsecond", "microseconds"), "us"),
    **dict.fromkeys(("sample", "samples"), "samples"),
}
SUFFIX = re.compile(r"(?P<stem>.*?[^\W_])(?:[ _.]*[\[(] *(?P<bracket>\w+) *[\])]|[ _.](?P<plain>[^\W_]+))")
FEW_SPIKES = 20  # so few times in s may be whole numbers by chance
MOSTLY_WHOLE = 0.9  # share of whole numbers from which on times of a known sample rate are samples


def unit_of(text: Any) -> str | None:
    """Unit that a text such as an attribute of a file names: s, ms, us or samples; None if it names none of them."""
    return SPELLINGS.get(str(text.decode() if isinstance(text, bytes) else text).strip().lower())


def split_name(name: str) -> tuple[str, str | None]:
    """(name without its unit, unit or None) of a column or array, such as ("time", "ms") of time_ms, time [ms] and time(ms)."""
    parts = SUFFIX.fullmatch(name.strip())
    unit = SPELLINGS.get((parts["bracket"] or parts["plain"]).lower()) if parts else None
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
            raise UserError(f"time_unit{'' if isinstance(given, str) else f'.{name}'}={unit}: expected {' or '.join(TIME_UNITS)}.")
    return units.get(kind)


def seconds_per_unit(unit: str, sample_rate: float | None, where: Path | str) -> float:
    """Length of a unit in s; raises UserError for samples of an unknown rate."""
    if unit != "samples":
        return SECONDS[unit]
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
      stated: unit that the file states, s, ms, us or samples; None: none.

    Returns:
      ([spikes] s, notes).

    Raises:
      UserError: not numbers, or samples of an unknown rate.
    """
    times = np.asarray(times)
    if times.dtype.kind not in "fiu":
        raise UserError(f"{where}: spike times are {times.dtype}; expected numbers in s or in samples.")
    times = times.reshape(-1)
    finite = times[np.isfinite(times)] if times.dtype.kind == "f" else times
    n_negative = int((finite < 0).sum())
    negative = (f"{n_negative:,} spikes at negative times",) if n_negative else ()
    unit = chosen_unit(options, "spikes") or ("samples" if "sample_rate" in (options.variables or {}) else stated)
    if unit is None:
        unit = _unit_of_numbers(where, finite, sample_rate)
    if unit == "s":
        return times.astype(np.float64), negative
    named = f"samples at {sample_rate:g} Hz" if unit == "samples" and sample_rate else unit
    return times * seconds_per_unit(unit, sample_rate, where), (f"spike times are {named}", *negative)


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
      UserError: samples of an unknown rate.
    """
    trials, used, named = dict(session.trials), [], (options.align, *(options.events or ()))
    for name in dict.fromkeys(("start_time", "stop_time", *named)):
        found = name if name in trials else _with_unit(name, trials)
        if found is not None:
            unit = _unit(session, options, "trials", found)
            used.append(unit)
            if unit != "s" or found != name:
                trials[name] = query.require_numbers(trials[found], f"{session.trials_file}: {found}") * seconds_per_unit(
                    unit, session.sample_rate, f"{session.path}: {found}"
                )
    series: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(named):
        if name not in trials and name in session.events:
            unit = _unit(session, options, "events", name)
            used.append(unit)
            if unit != "s":
                series[name] = np.asarray(session.events[name]) * seconds_per_unit(unit, session.sample_rate, f"{session.path}: {name}")
    others = sorted({unit for unit in used if unit != "s"})
    notes = (f"times of trials are {' and '.join(others)}",) if others else ()
    events: Mapping[str, np.ndarray] = ChainMap(series, session.events) if series else session.events  # type: ignore[arg-type]
    return dataclasses.replace(session, trials=trials, events=events, notes=(*session.notes, *notes))


def _unit(session: Session, options: Options, kind: str, name: str) -> str:
    """Unit of a column of trials or of a series of events (`kind`): that of the user, else of the file, else of the name, else s."""
    return chosen_unit(options, kind) or session.stated.get(f"{kind}/{name}") or split_name(name)[1] or "s"


def _with_unit(name: str, columns: Iterable[str]) -> str | None:
    """Column whose name is `name`, or another name of that column of trials, followed by a unit; None if there is none."""
    names = (name, *TRIAL_TIME_NAMES.get(name, ()))
    found: Mapping[str, str] = {split_name(each)[0].lower(): each for each in columns if split_name(each)[1]}
    return next((found[each] for each in names if each in found), None)
