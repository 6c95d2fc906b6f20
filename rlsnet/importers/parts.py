"""What is taken of one source: its units that pass, their rates, and why the others were left out."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from rlsnet import recordings
from rlsnet.config import UserError
from rlsnet.importers import filters, psth
from rlsnet.importers.options import Options
from rlsnet.importers.session import Ready, Session

COLUMNS = ("id", "region", "probe")  # of the units, kept as texts
LARGEST_HZ = 1000.0  # mean rate of a unit; beyond it, no rate in Hz


@dataclasses.dataclass
class Pool:
    """What has been gathered so far.

    kind: rate or current.
    conditions: [C] names.
    time: [M] s.
    bin_ms: length of a bin.
    sessions: what the store's attributes say of each.
    dropped: units left out, by reason.
    empty: for each condition that no trial was in so far, what to say of it.
    """

    kind: str
    conditions: tuple[str, ...]
    time: np.ndarray
    bin_ms: float
    sessions: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    dropped: Counter[str] = dataclasses.field(default_factory=Counter)
    empty: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def n_units(self) -> int:
        """Units met, kept or not."""
        return sum(each["units"] for each in self.sessions)


Part = tuple[np.ndarray, np.ndarray | None, dict[str, np.ndarray]]  # values [C, M, n], half [2, C, M, n], columns


def parts(source: Session | Ready, name: str, found: Pool, options: Options) -> Iterator[Part]:
    """The units that are taken of a source, and its entry in `found.sessions`."""
    ready = isinstance(source, Ready)
    n_units = source.values.shape[2] if isinstance(source, Ready) else len(source.index) - 1
    entry = {"name": name, "path": str(source.path), "units": n_units, "kept": 0, "ready": ready, "notes": list(source.notes)}
    found.sessions.append(entry)
    units = np.flatnonzero(_wanted(source, n_units, found.dropped, options))
    if isinstance(source, Session):
        yield _averaged(source, units, entry, found, options)
        return
    for start in range(0, len(units), recordings.CHUNK_UNITS):
        some = units[start : start + recordings.CHUNK_UNITS]
        block = np.asarray(source.values[:, :, some[0] : some[-1] + 1], np.float64)[:, :, some - some[0]]
        yield _ready(source, block, some, name, found, options)


def _wanted(source: Session | Ready, n_units: int, dropped: Counter[str], options: Options) -> np.ndarray:
    """[U] bool, the units that pass the filter, the regions, and have spikes."""
    where = str(source.path)
    keep: np.ndarray = np.ones(n_units, bool)
    if options.units:
        keep = _drop(keep, filters.keep(options.units, source.units, n_units, "units", where), f"units: not {options.units}", dropped)
    if options.regions:
        filters.known("region", source.units, f"regions={', '.join(options.regions)}", f"the units of {where}")
        region = [str(each).lower() for each in source.units["region"]]
        within = np.array([any(fnmatch.fnmatchcase(each, wanted.lower()) for wanted in options.regions) for each in region], bool)
        keep = _drop(keep, within, f"regions: not in {', '.join(options.regions)}", dropped)
    if isinstance(source, Session):
        keep = _drop(keep, np.diff(source.index) > 0, "no spikes", dropped)
    return keep


def _drop(keep: np.ndarray, passed: np.ndarray, reason: str, dropped: Counter[str]) -> np.ndarray:
    """Those of `keep` that pass too; the others are counted under the reason."""
    if lost := int((keep & ~passed).sum()):
        dropped[reason] += lost
    return keep & passed


def _averaged(session: Session, units: np.ndarray, entry: dict[str, Any], found: Pool, options: Options) -> Part:
    """The rates of a session's units, those left out that have too few trials or are out of the limits of rates."""
    where, size = str(session.path), len(next(iter(session.trials.values()), ()))
    if not session.trials:
        raise UserError(f"{where}: has no trials; should come with a table of them, trials_table=FILE.csv.")
    if size == 0:
        raise UserError(f"{where}: its table of trials has no rows; expected one for each trial.")
    times = psth.aligned(session, options.align)
    entry["notes"].extend(_doubts(session, times, options))
    common = filters.keep(options.trials, session.trials, size, "trials", where)
    chosen = []
    for name, text in (options.conditions or {"all": ""}).items():
        mine = common & filters.keep(text, session.trials, size, f"conditions.{name}", where)
        chosen.append(mine & np.isfinite(times))
        if not chosen[-1].any() and not any(each["used"][name] for each in found.sessions[:-1]):
            found.empty.setdefault(name, _why(session, name, text, common, mine, options))
        elif chosen[-1].any():
            found.empty.pop(name, None)
    entry |= {"trials": size, "used": {name: int(mine.sum()) for name, mine in zip(found.conditions, chosen, strict=True)}}
    entry["without"] = int((common & ~np.isfinite(times)).sum())
    if options.align in session.trials and (crowded := psth.overlapping(session)):
        entry["notes"].append(f"{crowded} trials begin before another has ended; their spikes may count twice")
    if {"start_time", "stop_time"} <= session.trials.keys() and np.isfinite(times).any():
        start, stop = (filters.numbers(session.trials[name]) for name in ("start_time", "stop_time"))
        if not ((times >= start) & (times <= stop)).any():
            entry["notes"].append(f"{options.align} is within no trial: expected times of the session, not of the trial")
    made = psth.average(session, units, chosen, times, options)
    mean = _mean(made.rate)
    enough = np.asarray((made.n_trials >= options.min_trials).all(axis=1) & made.n_trials.any(axis=1))
    keep = _drop(np.ones(len(units), bool), enough, f"min_trials: fewer than {max(1, options.min_trials)} in a condition", found.dropped)
    keep = _within_limits(keep, mean, found.dropped, options)
    columns = _columns(session, units[keep], entry["name"])
    columns |= {"n_trials": made.n_trials[keep], "mean_rate": mean[keep].astype(np.float32)}
    if made.half is None:
        return made.rate[:, :, keep], None, columns
    half = made.half[..., keep]
    return made.rate[:, :, keep], half, columns | {"reliability": psth.reliability(half)}


def _doubts(session: Session, times: np.ndarray, options: Options) -> Iterator[str]:
    """What looks wrong with the clocks of spikes and trials, in words; `times` [trials] s of the events."""
    known = times[np.isfinite(times)]
    if not len(session.times) or not len(known):
        return
    first, last = float(session.times.min()), float(session.times.max())
    if last > 10 * max(known.max(), 1) or known.max() > 10 * max(last, 1):
        yield f"spikes last until {last:.6g} s and trials until {known.max():.6g} s: expected on one clock, in s"
    elif session.observed is None:
        outside = (known + options.window[0] < min(first, 0)) | (known + options.window[1] > last)
        if outside.any():
            yield f"{outside.sum()} trials reach beyond the first or the last spike of all, where silence counts as such"


def _ready(source: Ready, block: np.ndarray, units: np.ndarray, name: str, found: Pool, options: Options) -> Part:
    """Units whose rates somebody has averaged."""
    rates = found.kind == "rate"
    if np.isinf(block).any() or (rates and (block < 0).any()):
        raise UserError(
            f"{source.path}: holds infinite{' or negative' if rates else ''} values; expected {found.kind}s, NaN where not known."
        )
    mean = _mean(block)
    if rates and (mean > LARGEST_HZ).any():
        raise UserError(f"{source.path}: unit {units[np.nanargmax(mean)]} has a mean rate of {np.nanmax(mean):.0f}; expected to be in Hz.")
    keep = _drop(np.ones(len(units), bool), ~np.isnan(block).all(axis=(0, 1)), "no values", found.dropped)
    columns = _columns(source, units, name)
    if rates:
        keep = _within_limits(keep, mean, found.dropped, options)
        columns["mean_rate"] = mean.astype(np.float32)
    return block[:, :, keep], None, {column: values[keep] for column, values in columns.items()}


def _mean(values: np.ndarray) -> np.ndarray:
    """[U] mean over conditions and time of [C, M, U], of what is known; NaN where nothing is."""
    known = np.isfinite(values)
    total = values.sum(axis=(0, 1), where=known, dtype=np.float64)
    return np.where(known.any(axis=(0, 1)), total / np.maximum(known.sum(axis=(0, 1)), 1), np.nan)


def _within_limits(keep: np.ndarray, mean: np.ndarray, dropped: Counter[str], options: Options) -> np.ndarray:
    """The units of `keep` whose mean rate is within min_rate and max_rate."""
    if options.min_rate is not None:
        keep = _drop(keep, np.logical_not(mean < options.min_rate), f"min_rate: below {options.min_rate:g} Hz", dropped)
    if options.max_rate is not None:
        keep = _drop(keep, np.logical_not(mean > options.max_rate), f"max_rate: above {options.max_rate:g} Hz", dropped)
    return keep


def _columns(source: Session | Ready, units: np.ndarray, name: str) -> dict[str, np.ndarray]:
    """The columns of texts of some units."""
    columns = {"session": np.full(len(units), name, dtype=object)}
    for column in COLUMNS:
        values = np.asarray(source.units[column])[units] if column in source.units else units if column == "id" else np.full(len(units), "")
        columns[column] = np.array([str(each) for each in values], dtype=object)
    return columns


def _why(session: Session, name: str, text: str, common: np.ndarray, mine: np.ndarray, options: Options) -> str:
    """Why a condition has no trial in a session."""
    size, where = len(common), f"trials of {session.path}"
    if not common.any():
        return f"trials={options.trials}: keeps none of the {size} {where}; there, {filters.values(options.trials, session.trials)}."
    if mine.any():
        return f"align={options.align}: none of the {int(mine.sum())} {where} that condition {name} takes has it."
    said = f"; there, {told}" if (told := filters.values(text, session.trials)) else ""
    also = f" that trials={options.trials} leaves" if options.trials else ""
    return f"conditions.{name}={text}: keeps none of the {int(common.sum())} {where}{also}{said}."
