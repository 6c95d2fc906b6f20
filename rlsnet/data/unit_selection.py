"""Selection of the units of one source: filters, regions, numbers of trials and mean rates; units left out are counted by reason."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from rlsnet.data import cell_classes, doubts, event_alignment, intervals, query, recordings, trial_average
from rlsnet.data.import_options import Options
from rlsnet.data.session import PrecomputedRates, Session, Table
from rlsnet.data.source_bins import SourceBins
from rlsnet.data.trial_counts import TrialCounts
from rlsnet.errors import UserError

INTERVAL_COLUMNS = ("interval_cv", "interval_cv2")  # coefficients of variation of the intervals between spikes
TEXT_COLUMNS = ("id", "region", "probe")  # columns of units that are stored as texts
MAX_MEAN_RATE_HZ = 1000.0  # of one unit; a higher mean rate shows that values are not in Hz


@dataclasses.dataclass
class ImportSummary:
    """State of an import after the sources read so far.

    kind: rate or current.
    conditions: [C] names.
    time: [M] s, centres of the bins.
    bin_ms: length of a bin.
    sessions: one entry per source, as in the attribute `sessions` of the recording.
    dropped: number of units left out, by reason.
    event_times: for each further event, its times in the trials used so far, [trials] s from time 0.
    classes: number of units kept, by cell class ("": not known); empty without rules of cell classes.
    empty_conditions: for each condition without a trial so far, the message for the user.
    filtered: values, in the last source, of the columns that the filter `units` reads, in words; "" without that filter.
    """

    kind: str
    conditions: tuple[str, ...]
    time: np.ndarray
    bin_ms: float
    sessions: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    dropped: Counter[str] = dataclasses.field(default_factory=Counter)
    event_times: dict[str, list[np.ndarray]] = dataclasses.field(default_factory=dict)
    classes: Counter[str] = dataclasses.field(default_factory=Counter)
    empty_conditions: dict[str, str] = dataclasses.field(default_factory=dict)
    filtered: str = ""

    @property
    def window(self) -> tuple[float, float]:
        """Start of the first and end of the last bin, s."""
        return trial_average.span_of_bins(self.time, self.bin_ms)

    @property
    def n_units(self) -> int:
        """Units of all sources, kept or left out."""
        return sum(entry["units"] for entry in self.sessions)


class UnitBlock(NamedTuple):
    """Selected units of a source.

    values: [C, M, n] Hz, or threshold units.
    half: [2, C, M, n] Hz, rates of odd and of even trials, or None.
    columns: [n, ...] columns of the units.
    trials: spike counts of their single trials, or None.
    """

    values: np.ndarray
    half: np.ndarray | None
    columns: dict[str, np.ndarray]
    trials: TrialCounts | None = None


def select_units(source: Session | PrecomputedRates, name: str, summary: ImportSummary, bins: SourceBins) -> Iterator[UnitBlock]:
    """Blocks of the units of a source that pass all limits; its entry is added to `summary.sessions`.

    Args:
      source: session or precomputed rates.
      name: of the source, different from those before.
      summary: state of the import, which is updated.
      bins: bins of the source, and settings of the import with them.

    Raises:
      UserError: no trials, a filter that does not fit, or values that are not rates in Hz.
    """
    precomputed = isinstance(source, PrecomputedRates)
    options, warnings = bins.options, [*bins.warnings, *source.warnings]
    entry = {"name": name, "path": str(source.path), "units": source.n_units, "kept": 0, "ready": precomputed, "notes": list(source.notes)}
    entry["warnings"] = warnings
    summary.sessions.append(entry)
    units = np.flatnonzero(_passing_units(source, summary.dropped, options))
    if isinstance(source, Session):
        yield _averaged_units(source, units, entry, summary, options)
        return
    named = _named_columns(source, options) if len(units) else {}
    for start in range(0, len(units), recordings.CHUNK_UNITS):
        some = units[start : start + recordings.CHUNK_UNITS]
        block = np.asarray(source.values[:, :, some[0] : some[-1] + 1], np.float64)[:, :, some - some[0]]
        yield _precomputed_units(source, block, some, name, named, summary, options)


def _passing_units(source: Session | PrecomputedRates, dropped: Counter[str], options: Options) -> np.ndarray:
    """[U] bool mask of the units that pass the filter, lie in the regions, and have spikes."""
    where = str(source.path)
    keep: np.ndarray = np.ones(source.n_units, bool)
    if options.units:
        passed = query.select_rows(options.units, source.units, source.n_units, "units", where)
        keep = _drop(keep, passed, f"units: not {options.units}", dropped)
    if options.regions:
        query.require_column("region", source.units, f"regions={', '.join(options.regions)}", f"the units of {where}")
        region = [str(each).lower() for each in source.units["region"]]
        inside = np.array([any(fnmatch.fnmatchcase(each, pattern.lower()) for pattern in options.regions) for each in region], bool)
        keep = _drop(keep, inside, f"regions: not in {', '.join(options.regions)}", dropped)
    if isinstance(source, Session):
        keep = _drop(keep, np.diff(source.spike_index) > 0, "no spikes", dropped)
    return keep


def _drop(keep: np.ndarray, passed: np.ndarray, reason: str, dropped: Counter[str]) -> np.ndarray:
    """Units in both masks; those of `keep` that did not pass are counted under the reason."""
    if n_dropped := int((keep & ~passed).sum()):
        dropped[reason] += n_dropped
    return keep & passed


def _averaged_units(session: Session, units: np.ndarray, entry: dict[str, Any], summary: ImportSummary, options: Options) -> UnitBlock:
    """Trial-averaged rates of the units of a session that have enough trials and a mean rate within the limits."""
    if not session.trials:
        raise UserError(f"{session.path}: has no trials; expected a table of trials, trials_table=FILE.csv.")
    if not len(next(iter(session.trials.values()))):
        raise UserError(f"{session.path}: the table of trials is empty; expected one row for each trial.")
    times = event_alignment.event_times(session, options.align)
    entry["warnings"].extend(doubts.check_units(session, times, options))
    trials_of_conditions = _select_trials(session, times, entry, summary, options)
    used = np.logical_or.reduce(trials_of_conditions)
    entry["warnings"].extend(doubts.check_trials(session, times, used, options))
    for name in options.events or ():
        relative = (event_alignment.event_times(session, name, "events") - times)[used]
        summary.event_times.setdefault(name, []).append(relative[np.isfinite(relative)])
    average = trial_average.average_trials(session, units, trials_of_conditions, times, options)
    mean = _mean_rate(average.rate)
    enough = np.asarray((average.n_trials >= options.min_trials).all(axis=1) & average.n_trials.any(axis=1))
    reason = f"min_trials: fewer than {max(1, options.min_trials)} in a condition"
    keep = _drop(np.ones(len(units), bool), enough, reason, summary.dropped)
    keep = _within_rate_limits(keep, mean, summary.dropped, options)
    columns = _unit_columns(session, units[keep], entry["name"], _named_columns(session, options))
    columns |= {"n_trials": average.n_trials[keep], "mean_rate": mean[keep].astype(np.float32)}
    begin, end = options.window_s
    for column, values in zip(INTERVAL_COLUMNS, intervals.of_session(session, units[keep], times[used] + begin, end - begin), strict=True):
        columns[column] = values.astype(np.float32)
    trials = None if average.trials is None else average.trials.of_units(keep)
    if average.half is None:
        return UnitBlock(average.rate[:, :, keep], None, columns, trials)
    half = average.half[..., keep]
    return UnitBlock(average.rate[:, :, keep], half, columns | {"reliability": trial_average.reliability(half)}, trials)


def _select_trials(
    session: Session, times: np.ndarray, entry: dict[str, Any], summary: ImportSummary, options: Options
) -> list[np.ndarray]:
    """[trials] bool mask of the trials of each condition that have the event; their numbers go into `entry`."""
    where, size = session.trials_file, len(times)
    common = query.select_rows(options.trials, session.trials, size, "trials", where)
    selected = []
    for name, text in (options.conditions or {"all": ""}).items():
        mask = common & query.select_rows(text, session.trials, size, f"conditions.{name}", where)
        selected.append(mask & np.isfinite(times))
        if not selected[-1].any() and not any(each["used"][name] for each in summary.sessions[:-1]):
            summary.empty_conditions.setdefault(name, _empty_condition_message(session, name, text, common, mask, options))
        elif selected[-1].any():
            summary.empty_conditions.pop(name, None)
    entry |= {"trials": size, "used": {name: int(mask.sum()) for name, mask in zip(summary.conditions, selected, strict=True)}}
    entry["without"] = int((common & ~np.isfinite(times)).sum())
    return selected


def _precomputed_units(
    source: PrecomputedRates, block: np.ndarray, units: np.ndarray, name: str, named: Table, summary: ImportSummary, options: Options
) -> UnitBlock:
    """Units with precomputed rates or currents `block` [C, M, n] that have values and a mean rate within the limits.

    `name` is that of the source, and `named` has columns of all its units that are stored too.
    """
    rates = summary.kind == "rate"
    if np.isinf(block).any() or (rates and (block < 0).any()):
        raise UserError(
            f"{source.path}: contains infinite{' or negative' if rates else ''} values; expected {summary.kind}s, NaN where unknown."
        )
    mean = _mean_rate(block)
    if rates and (mean > MAX_MEAN_RATE_HZ).any():
        raise UserError(f"{source.path}: unit {units[np.nanargmax(mean)]} has a mean rate of {np.nanmax(mean):.0f}; expected rates in Hz.")
    keep = _drop(np.ones(len(units), bool), ~np.isnan(block).all(axis=(0, 1)), "no values", summary.dropped)
    columns = _unit_columns(source, units, name, named)
    if rates:
        keep = _within_rate_limits(keep, mean, summary.dropped, options)
        columns["mean_rate"] = mean.astype(np.float32)
    half = None if source.half is None else source.half[..., units]
    if half is not None and source.n_trials is not None:
        columns |= {"n_trials": source.n_trials[units], "reliability": trial_average.reliability(half)}
    half = None if half is None else half[..., keep]
    return UnitBlock(block[:, :, keep], half, {column: values[keep] for column, values in columns.items()})


def _mean_rate(values: np.ndarray) -> np.ndarray:
    """[U] mean of the finite values of [C, M, U]; NaN for a unit without any."""
    known = np.isfinite(values)
    total = values.sum(axis=(0, 1), where=known, dtype=np.float64)
    return np.where(known.any(axis=(0, 1)), total / np.maximum(known.sum(axis=(0, 1)), 1), np.nan)


def _within_rate_limits(keep: np.ndarray, mean: np.ndarray, dropped: Counter[str], options: Options) -> np.ndarray:
    """Units of `keep` with a mean rate from min_rate to max_rate."""
    if options.min_rate is not None:
        keep = _drop(keep, np.logical_not(mean < options.min_rate), f"min_rate: below {options.min_rate:g} Hz", dropped)
    if options.max_rate is not None:
        keep = _drop(keep, np.logical_not(mean > options.max_rate), f"max_rate: above {options.max_rate:g} Hz", dropped)
    return keep


def _named_columns(source: Session | PrecomputedRates, options: Options) -> dict[str, np.ndarray]:
    """Columns of all units that the settings name, and the cell class."""
    return cell_classes.columns_of(options, source.units, source.n_units, str(source.path))


def _unit_columns(source: Session | PrecomputedRates, units: np.ndarray, name: str, named: Table) -> dict[str, np.ndarray]:
    """Columns of some units: session, id, region and probe, as texts, and those of all units in `named`."""
    columns = {column: values[units] for column, values in named.items()}
    columns |= {"session": np.full(len(units), name, dtype=object)}
    for column in TEXT_COLUMNS:
        values = np.asarray(source.units[column])[units] if column in source.units else units if column == "id" else np.full(len(units), "")
        columns[column] = np.array([str(each) for each in values], dtype=object)
    return columns


def _empty_condition_message(session: Session, name: str, text: str, common: np.ndarray, mask: np.ndarray, options: Options) -> str:
    """Message for a condition without a trial in a session.

    Args:
      session: the session.
      name: of the condition.
      text: filter of the condition.
      common: [trials] bool, trials that pass the filter of all trials.
      mask: [trials] bool, those that pass the filter of the condition too.
      options: settings of the import.
    """
    size, where = len(common), f"trials of {session.trials_file}"
    if not common.any():
        contents = query.describe_columns(options.trials, session.trials)
        return f"trials={options.trials}: keeps none of the {size} {where}; there, {contents}."
    if mask.any():
        return f"align={options.align}: none of the {int(mask.sum())} {where} in condition {name} has this event."
    contents = query.describe_columns(text, session.trials)
    there = f"; there, {contents}" if contents else ""
    passing = f" that pass trials={options.trials}" if options.trials else ""
    return f"conditions.{name}={text}: keeps none of the {int(common.sum())} {where}{passing}{there}."
