"""Trials that a file contains one by one: spike counts in bins, rates in bins, or spike times relative to each trial.

Counts and relative times become a session in which the trials lie one after another on a clock of their own, so that trial averages,
halves of trials, single-trial counts and filters are those of any other session. A count of n in a bin is n spikes in its middle.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rlsnet.data import query
from rlsnet.data.formats import table_files
from rlsnet.data.formats.array_names import ArrayNames, group_columns
from rlsnet.data.import_options import Options
from rlsnet.data.session import PrecomputedRates, SeparateTrials, Session, Table
from rlsnet.data.statistics import mean_known
from rlsnet.errors import UserError
from rlsnet.io.formatting import counted

NEXT_SPIKES = 20  # spikes after which, at the mean rate of all trials together, the next one is certain
FEWEST_ASCENDING = 5  # trials whose relative times ascend from trial to trial by chance in 1 of 10,000 files
TRIAL_NAMES = ("trial", "trial_id", "trial_number", "id")  # columns of trials with the labels that spikes have
MOST_TRIALS = 1_000_000  # labels that span more are no numbers of trials
FEW_SPIKES = 10  # in a trial, of all units; with fewer, a trial may be silent by chance
LIKELY_SILENT = 0.1  # expected number of trials without a spike from which on they are mentioned
END_TOLERANCE_S = 1e-3  # of spikes after the end of their trial
MAX_RATE_HZ = 1000.0  # mean of all counts; a higher one shows that they are no counts


class BinnedValues(NamedTuple):
    """Values in bins, from one array or table.

    path: of the file.
    values: [C or T, M, U] Hz, threshold units or spikes.
    kind: rate, current or counts.
    time: [M] s, centres of the bins, or None.
    bin_ms: length of a bin, or None.
    units: columns [U].
    notes: for the user.
    """

    path: Path
    values: np.ndarray
    kind: str
    time: np.ndarray | None
    bin_ms: float | None
    units: Table
    notes: tuple[str, ...]

    def known_bin_ms(self, options: Options) -> float:
        """Length of a bin in ms, of the file or the user; raises UserError if neither has it, as counts need it."""
        length = self.bin_ms or options.bin
        if length is None:
            raise UserError(f"{self.path}: contains spike counts, but no length of their bins; expected it in ms, such as bin=20.")
        return length


def trials_of_file(names: ArrayNames, options: Options, n_trials: int, labels: np.ndarray | None) -> dict[str, np.ndarray]:
    """Columns of the trials of a file: of its table of trials or `trials_table` if there is one, and `trial` and `condition`.

    Args:
      names: arrays of the file.
      options: settings of the import.
      n_trials: number of trials of the array.
      labels: [trials] condition of each trial, or None.

    Raises:
      UserError: a table with another number of trials.
    """
    columns = optional_trials(names, options) or {}
    table_files.check_lengths(f"{names.path}: trials", {"the array of trials": np.arange(n_trials)} | columns)
    return {"trial": np.arange(n_trials), **({"condition": labels} if labels is not None else {}), **columns}


def optional_trials(names: ArrayNames, options: Options) -> dict[str, np.ndarray] | None:
    """Columns of the table of trials in a file, of `trials_table`, or of the table beside the file; None if there is none."""
    path = names.find("trials")
    if options.trials_table is None and path is not None:
        where = f"{names.path}: {path}"
        members = {path.rsplit("/", 1)[-1]: names.arrays[path]} if path in names.arrays else names.members(path)
        if columns := group_columns(members):  # none if it has only the spikes of each trial
            return table_files.trial_columns(where, columns)
    found = table_files.trials_table(names.path, options.trials_table)
    return None if found is None else found[0]


def precomputed(binned: BinnedValues, conditions: tuple[str, ...] | None, counts: bool, options: Options) -> PrecomputedRates:
    """Precomputed rates or currents [condition, time, unit]; counts are divided by the length of a bin."""
    path, values, kind, time, bin_ms, units, notes = binned
    if counts:
        bin_ms = binned.known_bin_ms(options)
        values, kind, notes = values * (1000 / bin_ms), "rate", (*notes, f"spike counts, divided by bins of {bin_ms:g} ms")
    return PrecomputedRates(path.stem, path, values, kind, bin_ms, conditions, units, notes, time)


def averaged_trials(binned: BinnedValues, trials: Table) -> PrecomputedRates:
    """Rates [trial, time, unit] averaged over the trials of each condition; of odd and even trials too. NaN: unknown, left out."""
    path, values, kind, time, bin_ms, units, notes = binned
    labels = np.array([str(each) for each in trials["condition"]]) if "condition" in trials else np.full(len(values), "all")
    names = tuple(dict.fromkeys(labels.tolist()))
    rows = [np.flatnonzero(labels == name) for name in names]
    rate = np.stack([mean_known(values[each]) for each in rows])
    known = np.isfinite(values).any(axis=1)  # [T, U]
    halved = kind == "rate" and min(map(len, rows)) > 1
    half = np.stack([np.stack([mean_known(values[each[h::2]]) for each in rows]) for h in (0, 1)]) if halved else None
    note = f"rates of {len(values):,} single trials, averaged over trials of {counted(len(names), 'condition')}"
    n_trials = np.stack([known[each].sum(axis=0) for each in rows], axis=1).astype(np.int32) if halved else None
    return PrecomputedRates(path.stem, path, rate, kind, bin_ms, names, units, (*notes, note), time, half, n_trials, single_trials=True)


def counted_trials(binned: BinnedValues, trials: dict[str, np.ndarray], options: Options) -> Session:
    """Session from spike counts [trial, time, unit]; NaN where a trial does not count for a unit, or has ended.

    Raises:
      UserError: no length of a bin, counts beyond those of neurons, or NaN between numbers of a trial.
    """
    path, values, time, units = binned.path, binned.values, binned.time, binned.units
    width = binned.known_bin_ms(options) / 1000
    n_trials, n_bins, n_units = values.shape
    mean = float(np.nanmean(values)) / width
    if mean > MAX_RATE_HZ:
        raise UserError(
            f"{path}: counts would be {mean:,.0f} Hz on average in bins of {1000 * width:g} ms; expected spike counts, or counts=false."
        )
    warnings = []
    notes = [*binned.notes, f"spike counts of {n_trials:,} trials in bins of {1000 * width:g} ms"]
    if time is None:
        start = options.window[0] if options.window is not None else 0.0
        warnings.append(
            f"the file has no times of its bins: the first begins at {start:g} s; window=[-1,{n_bins * width - 1:g}] gives others"
        )
    else:
        start = float(time[0]) - width / 2
    zero = _clock(n_trials, (start, start + n_bins * width))
    centres = (zero[:, None] + start + width * (np.arange(n_bins) + 0.5)).reshape(-1)
    known = np.isfinite(values)
    trains = [np.repeat(centres, np.where(known[..., u], values[..., u], 0).astype(np.int64).reshape(-1)) for u in range(n_units)]
    observed = _observed(path, known, zero + start, width)
    index = np.concatenate([[0], np.cumsum([len(each) for each in trains])]).astype(np.int64)
    extent = (round(start, 9), round(start + n_bins * width, 9))
    separate = SeparateTrials(zero, extent, 1000 * width)
    ids = {"id": np.arange(n_units)} | dict(units)
    return Session(
        path.stem, path, np.concatenate(trains), index, ids, trials, {}, observed, tuple(notes), separate=separate, warnings=tuple(warnings)
    )


def _clock(n_trials: int, extent: tuple[float, float]) -> np.ndarray:
    """[trials] s, time 0 of trials that lie one after another, as far apart as a trial is long."""
    length = max(extent[1] - extent[0], 1e-3)
    return 2 * length * np.arange(n_trials) - extent[0]


def _observed(path: Path, known: np.ndarray, begin: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Observation intervals ([K, 2] s, index [U+1]) of units from the bins that are known.

    Args:
      path: of the file.
      known: [T, M, U] bool.
      begin: [T] s, start of the first bin of each trial.
      width: length of a bin, s.

    Raises:
      UserError: unknown bins between known ones.
    """
    first, last = known.argmax(axis=1), known.shape[1] - known[:, ::-1].argmax(axis=1)  # [T, U]
    there = known.any(axis=1)
    gaps = there & (known.sum(axis=1) != last - first)
    if gaps.any():
        trial, unit = np.argwhere(gaps)[0]
        raise UserError(
            f"{path}: counts of trial {trial + 1}, unit {unit} are NaN between numbers; expected NaN before or after them only."
        )
    unit, trial = np.nonzero(there.T)
    intervals = begin[trial, None] + width * np.column_stack([first[trial, unit], last[trial, unit]])
    return intervals, np.concatenate([[0], np.cumsum(there.sum(axis=0))]).astype(np.int64)


class PlacedTrials(NamedTuple):
    """Spikes on one clock, and their trials.

    spike_times: [spikes] s on the clock of the session, in the order of the spikes; NaN for spikes that lie in no trial.
    trials: columns [trials].
    separate: if the times were relative to each trial: time 0 of each trial, and the time between the earliest and the latest spike.
    notes: for the user.
    warnings: what may be wrong, each with the setting that would be right.
    """

    spike_times: np.ndarray
    trials: dict[str, np.ndarray]
    separate: SeparateTrials | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    def observed(self, n_units: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Observation intervals ([K, 2] s, index [U+1]) of units: the trials, one by one."""
        if self.separate is None:
            return None
        return same_for_units(self.separate.zero[:, None] + np.array(self.separate.extent), n_units)


def same_for_units(intervals: np.ndarray, n_units: int) -> tuple[np.ndarray, np.ndarray]:
    """Observation intervals [K, 2] s of one unit as those of all units, with their index [U+1]."""
    return np.tile(intervals, (n_units, 1)), len(intervals) * np.arange(n_units + 1)


def trials_of_spikes(
    where: str, times: np.ndarray, labels: np.ndarray, trials: dict[str, np.ndarray] | None, more: Table | None = None
) -> PlacedTrials:
    """Spikes with trial labels on one clock, as `place_trials` does. Spikes without a label, or with a negative number, lie in no trial.

    Args:
      where: the file and the array, for messages.
      times: [spikes] s.
      labels: [spikes] numbers or texts.
      trials: columns [trials] with perhaps a column trial or id of these labels, or None: trials are those with spikes.
      more: columns [spikes] of labels; those of a trial must be equal to those in the table, or become columns of trials without a table.

    Raises:
      UserError: no spikes in trials, labels that do not say their row of the table, or trials that may be missing.
    """
    inside = lie_in_trials(labels)
    if not inside.any():
        raise UserError(f"{where}: no spike has a trial; expected the number of its trial for each spike.")
    row = np.full(len(labels), -1)
    if trials is not None:
        row[inside], n_trials = trial_numbers(where, labels[inside], trials)
        _check_shared(where, {name: values[inside] for name, values in (more or {}).items()}, trials, row[inside])
        return place_trials(where, times, row, n_trials, trials)
    known, first, own_row = np.unique(comparable(labels[inside]), return_index=True, return_inverse=True)
    order = in_natural_order(known)
    known, first, row[inside] = known[order], first[order], np.argsort(order)[own_row]
    placed = place_trials(where, times, row, len(known), None)
    if not known.dtype.kind == "U":
        known = table_files.integers_if_whole(known)
    warnings = (*placed.warnings, *_missing_trials(where, known, int(inside.sum())))
    own = {name: values[inside] for name, values in (more or {}).items()}
    columns = {name: values[first] for name, values in own.items() if not varies_within(values, row[inside]).any()}
    return placed._replace(trials={"trial": known, **columns}, warnings=warnings)


def lie_in_trials(labels: np.ndarray) -> np.ndarray:
    """[spikes] bool, whether spikes with these labels lie in a trial: those without a label, or with a negative number, do not."""
    inside = ~query.missing_values(labels)
    if labels.dtype.kind == "O":
        inside &= ~np.isin(np.char.lower(query.as_texts(labels)), query.MISSING_CELLS)
    if labels.dtype.kind in "if":
        inside[inside] = labels[inside] >= 0
    return inside


def _check_shared(where: str, columns: Table, table: Table, rows: np.ndarray) -> None:
    """Raises UserError if a column of labels differs between spikes, [spikes] `rows` of the table of trials, and their trial."""
    for name, values in columns.items():
        if name in table and values.dtype.kind in "iuOUb" and np.asarray(table[name]).dtype.kind in "iuOUb":
            own, others = (query.as_texts(each) for each in (values, np.asarray(table[name])[rows]))
            if (different := own != others).any():
                at = int(np.flatnonzero(different)[0])
                raise UserError(
                    f"{where}: {name} is {own[at]} for a spike, but {others[at]} for its trial in the table; expected equal values,"
                    " or the columns that say which trial it is, such as variables.spike_trials=block,trial."
                )


def in_natural_order(labels: np.ndarray) -> list[int]:
    """Numbers of labels in their order, in which t2 comes before t10."""
    if labels.dtype.kind != "U":
        return list(range(len(labels)))
    parts = [re.split(r"(\d+)", str(label)) for label in labels]
    return sorted(range(len(labels)), key=lambda k: [int(part) if part.isdecimal() else part for part in parts[k]])


def comparable(labels: np.ndarray) -> np.ndarray:
    """Labels as an array that NumPy sorts: objects as texts."""
    return labels.astype(str) if labels.dtype.kind == "O" else labels


def codes(values: np.ndarray) -> np.ndarray:
    """[n] numbers from 0 of the different values."""
    return np.unique(comparable(values), return_inverse=True)[1]


def varies_within(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """[n] bool, rows whose value differs from the first of their group, where NaN equals NaN; `groups` [n] are numbers from 0."""
    own = comparable(values)
    _, first = np.unique(groups, return_index=True)
    of_group = own[first][groups]
    return (own != of_group) & ~((own != own) & (of_group != of_group))


def _missing_trials(where: str, known: np.ndarray, n_spikes: int) -> Iterator[str]:
    """Warning about trials that a table of spikes cannot have, as they have no spike; raises UserError if some are likely.

    Args:
      where: the file and the array, for messages.
      known: labels of the trials with spikes, ascending.
      n_spikes: number of spikes in these trials.
    """
    each = n_spikes / len(known)  # spikes
    setting = "trials_table=FILE.csv with a column trial that lists all recorded trials"
    numbered = known.dtype.kind in "iu" and np.ptp(known) < MOST_TRIALS
    gaps = np.setdiff1d(np.arange(known[0], known[-1]), known) if numbered else np.zeros(0, np.int64)
    if len(gaps):
        shown = ", ".join(map(str, gaps[:5])) + (", ..." if len(gaps) > 5 else "")
        which = f"no spike has the trial {shown}" + (
            f" ({len(gaps):,} numbers between {known[0]} and {known[-1]})" if len(gaps) > 1 else ""
        )
        if each < FEW_SPIKES:
            raise UserError(
                f"{where}: {which}; with {each:.2g} spikes in a trial, they may be silent, which lowers the rates; expected {setting}."
            )
        yield f"{which}, which are taken as not recorded; {setting}, if they were silent"
    elif len(known) * np.exp(-each) > LIKELY_SILENT:
        yield f"trials have {each:.2g} spikes on average; those without a spike are not in the file; {setting}, if there are any"


def within_trials(session: Session, options: Options) -> Session:
    """A session of single trials in which a trial is observed until its stop_time only; times in s.

    The table of trials says how long each trial is. This does not apply if spikes lie later: then time 0 is not start_time, or
    the recording went on.
    """
    separate = session.separate
    if separate is None or session.observed is None or not {"start_time", "stop_time"} <= session.trials.keys():
        return session
    start, stop = (query.require_numbers(session.trials[name], f"{session.trials_file}: {name}") for name in ("start_time", "stop_time"))
    length = np.where(stop > start, stop - start, np.inf)
    tolerance = END_TOLERANCE_S + (separate.bin_ms or 0) / 2000
    trial = _trial_at(separate, session.spike_times)
    known = np.isfinite(session.spike_times)
    late = (session.spike_times - separate.zero[trial] > length[trial] + tolerance)[known]
    shorter = int((length < separate.extent[1] - END_TOLERANCE_S).sum())
    if late.any() or not shorter:
        return session
    intervals, index = session.observed
    own = _trial_at(separate, intervals[:, 0])
    end = np.minimum(intervals[:, 1], separate.zero[own] + length[own])
    kept = end > intervals[:, 0]
    index = np.concatenate([[0], np.cumsum(kept)])[index]
    window_end = (options.window or (separate.extent if separate.bin_ms else options.window_s))[1]
    short, warnings = int((length < window_end - END_TOLERANCE_S).sum()), session.warnings
    if short and options.align == "start_time":
        warnings += (f"{short} of {len(length)} trials end before the window does, and do not count; window=... ends it earlier",)
    note = f"trials end at stop_time, after {length.min():.6g} to {length[np.isfinite(length)].max():.6g} s"
    observed = np.column_stack([intervals[:, 0], end])[kept], index
    return dataclasses.replace(session, observed=observed, notes=(*session.notes, note), warnings=warnings)


def _trial_at(separate: SeparateTrials, times: np.ndarray) -> np.ndarray:
    """Number of the trial in which each time on the clock of the session lies."""
    return np.maximum(np.searchsorted(separate.zero + separate.extent[0] - END_TOLERANCE_S, times, side="right") - 1, 0)


def place_trials(where: str, times: np.ndarray, trial: np.ndarray, n_trials: int, trials: dict[str, np.ndarray] | None) -> PlacedTrials:
    """Spikes of single trials on one clock, whether their times are relative to the trial or not.

    Args:
      where: the file and the array, for messages.
      times: [spikes] s.
      trial: [spikes] number of the trial of each spike, from 0; -1: none.
      n_trials: number of trials.
      trials: columns [trials], or None if the file has no table of trials.

    Raises:
      UserError: no spikes, a table with another number of trials, or times on the clock of the session without such a table.
    """
    inside = trial >= 0
    finite = times[np.isfinite(times) & inside]
    if not finite.size:
        raise UserError(f"{where}: contains no spikes.")
    if trials is not None:
        table_files.check_lengths(f"{where}: trials", {"the spikes": np.arange(n_trials)} | trials)
    if not _are_relative(trial[inside], times[inside], n_trials):
        if trials is None:
            raise UserError(f"{where}: has no trials; expected trials_table=FILE.csv with columns start_time, stop_time in s, ...")
        return PlacedTrials(times, trials, None, ("spikes of each trial are on one clock",))
    if len(starts := _ascending_starts(trial[inside], times[inside], n_trials)):
        raise UserError(
            f"{where}: spikes of trials overlap in time, as times relative to each trial do, but begin later in each trial, from"
            f" {starts[0]:.6g} to {starts[-1]:.6g} s, as those on the clock of the session around events do; expected times relative to"
            " each trial, or the spikes of the session once, without the trial of each."
        )
    low, high = float(finite.min()), float(finite.max())
    slack = 1e-3 + min(high - low, NEXT_SPIKES * (high - low) / finite.size)  # time without a spike at the edges of trials
    zero = _clock(n_trials, (low - slack, high + slack))
    note = f"spikes of {n_trials:,} trials, relative to each trial, from {low:.6g} to {high:.6g} s"
    separate = SeparateTrials(zero, (low - slack, high + slack))
    ends_known = {"start_time", "stop_time"} <= (trials or {}).keys()
    return PlacedTrials(
        np.where(trial >= 0, times + zero[trial], np.nan),
        {"trial": np.arange(n_trials), **(trials or {})},
        separate,
        (note,),
        () if ends_known else tuple(_shorter_trials(where, *_spans_of_trials(trial[inside], times[inside], n_trials), finite)),
    )


def _shorter_trials(where: str, low: np.ndarray, high: np.ndarray, times: np.ndarray) -> Iterator[str]:
    """Warning about trials that seem to begin later or end earlier than others, as they lack spikes that trials have there on average.

    Args:
      where: the file and the array, for messages.
      low: [trials] s, first spike of each trial with spikes, relative to the trial.
      high: [trials] s, last spike of each.
      times: [spikes] s, those of all trials.
    """
    ordered = np.sort(times)
    before, after = np.searchsorted(ordered, low), len(ordered) - np.searchsorted(ordered, high, side="right")
    short = int((np.maximum(before, after) > NEXT_SPIKES * len(low)).sum())
    if short:
        yield (
            f"{where}: {short} of {len(low)} trials have no spike where trials have more than {NEXT_SPIKES} on average, at their start or"
            " end, which counts as silence; trials_table=FILE.csv with start_time and stop_time says how long each trial is"
        )


def _spans_of_trials(trial: np.ndarray, times: np.ndarray, n_trials: int) -> tuple[np.ndarray, np.ndarray]:
    """Times of the first and of the last spike of each trial with spikes; arguments of `place_trials`."""
    finite = np.isfinite(times)
    low, high = np.full(n_trials, np.inf), np.full(n_trials, -np.inf)
    np.minimum.at(low, trial[finite], times[finite])
    np.maximum.at(high, trial[finite], times[finite])
    return low[low <= high], high[low <= high]


def _are_relative(trial: np.ndarray, times: np.ndarray, n_trials: int) -> bool:
    """Whether spike times [spikes] are relative to their trial [spikes]: the times of trials overlap, and do not follow one another."""
    low, high = _spans_of_trials(trial, times, n_trials)
    order = np.argsort(low, kind="stable")
    return len(order) < 2 or bool((low[order][1:] < high[order][:-1]).any())


def _ascending_starts(trial: np.ndarray, times: np.ndarray, n_trials: int) -> np.ndarray:
    """Times of the first spikes of trials, if these and the last spikes are later in each trial than in that before; else empty."""
    low, high = _spans_of_trials(trial, times, n_trials)
    return low if len(low) >= FEWEST_ASCENDING and (np.diff(low) > 0).all() and (np.diff(high) > 0).all() else low[:0]


def trial_numbers(where: str, labels: np.ndarray, trials: Table) -> tuple[np.ndarray, int]:
    """([spikes] row of the trial of each spike, number of trials) from the trial labels of spikes.

    Args:
      where: the file and the array, for messages.
      labels: [spikes] numbers or texts.
      trials: columns [trials] with perhaps a column trial or id of these labels.

    Raises:
      UserError: labels that do not say their row of the table.
    """
    known, row = np.unique(comparable(labels), return_inverse=True)
    size, named = len(next(iter(trials.values()))), None
    for name in TRIAL_NAMES:
        if name not in trials:
            continue
        mine, own = _alike(known, np.asarray(trials[name]))
        rows = {label: number for number, label in enumerate(own)}
        found = set(mine) <= rows.keys()
        if found and len(rows) == size:
            return np.array([rows[label] for label in mine])[row], size
        if found and name != "id":
            repeated = next(trials[name][number] for number, label in enumerate(own) if rows[label] != number)
            raise UserError(
                f"{where}: the column {name} of the {size} trials has {repeated} in several rows; expected a different label for each"
                " trial, or the columns that tell them apart, such as variables.spike_trials=block,trial."
            )
        named = named or (None if name == "id" else name)
    whole = known.dtype.kind in "iu" or (known.dtype.kind == "f" and bool(np.all(known == np.floor(known))))
    first = [each for each in (0, 1) if whole and known.min() >= each and known.max() - each < size]
    if len(first) == 2:
        raise UserError(
            f"{where}: spikes have the trials {known.min():g} to {known.max():g}, which may count the {size} trials from 0 or from 1;"
            " expected a column trial in the table of trials."
        )
    if named is not None and not np.array_equal(query.as_numbers(trials[named]) - query.as_numbers(trials[named])[0], np.arange(size)):
        first = []
    if not first and named is not None:
        mine, own = _alike(known, np.asarray(trials[named]))
        lacking = [number for number, label in enumerate(mine) if label not in set(own)]
        if 0 < len(lacking) < len(known):
            n_spikes = int(np.isin(row, lacking).sum())
            others = f", nor {len(lacking) - 1:,} other labels" if len(lacking) > 1 else ""
            raise UserError(
                f"{where}: {n_spikes:,} of {len(row):,} spikes have trials that the column {named} of the {size} trials does not have:"
                f" {known[lacking[0]]}{others}; expected all trials of the spikes in the table, or no label (or -1) for spikes that lie"
                " in none of them."
            )
    if not first:
        expected = "a column trial in the table of trials" if named is None else f"labels that are in its column {named}"
        raise UserError(f"{where}: trials of spikes do not say their row of the {size} trials; expected {expected}.")
    return (known.astype(np.int64) - first[0])[row], size


def _alike(*columns: np.ndarray) -> list[list]:
    """Labels of columns as lists of numbers if all of them are, else of texts, so that 7, 7.0 and 007 are one label."""
    numbers = [query.as_numbers(column) for column in columns]
    if all(
        np.isfinite(found).all() and len(set(found)) == len(set(column.tolist())) for found, column in zip(numbers, columns, strict=True)
    ):
        return [found.tolist() for found in numbers]
    return [query.as_texts(table_files.integers_if_whole(column)).tolist() for column in columns]
