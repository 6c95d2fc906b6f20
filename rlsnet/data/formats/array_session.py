"""Session from named arrays: lists of spike trains, unit labels of spikes, or ends of units; trials and events beside them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rlsnet.data import time_units
from rlsnet.data.formats import spike_grouping, table_files
from rlsnet.data.formats.array_names import ArrayNames, StoredArray, as_vector, first_label, group_columns
from rlsnet.data.formats.named_vectors import flat_trials, stated_units
from rlsnet.data.formats.single_trials import PlacedTrials, optional_trials, place_trials, trials_of_spikes
from rlsnet.data.import_options import Options
from rlsnet.data.session import Session
from rlsnet.errors import UserError

OF_UNITS, OF_TRIALS = ("units/", "unit/", "clusters/"), ("trials/", "trial/")  # fields of struct arrays, with a struct for each of them
IDS = ("id", "unit_id", "cluster_id", "unit", "cluster")  # columns of units that unit labels refer to


class SpikeTrains(NamedTuple):
    """Spike trains of units, one unit after the other.

    spike_times: [spikes] s.
    spike_index: [U+1] unit u has spike_times[index[u]:index[u + 1]].
    ids: [U] labels of the units, or None if the spikes have no labels.
    notes: for the user.
    placed: the trials, if each spike has one.
    """

    spike_times: np.ndarray
    spike_index: np.ndarray
    ids: np.ndarray | None
    notes: tuple[str, ...]
    placed: PlacedTrials | None = None


def build_session(names: ArrayNames, path: str, options: Options) -> Session:
    """Session of a file with spike times at `path`; raises UserError if its arrays do not fit together."""
    spikes = _spike_trains(names, path, options)
    index, columns = _units(names, spikes.spike_index, spikes.ids)
    placed = spikes.placed
    if placed is None:
        trials, more_notes, own_trials = _trials(names, options)
    else:
        trials, more_notes, own_trials = placed.trials, placed.notes, options.trials_table is None and names.find("trials") is not None
    where = names.find("events", arrays=False)
    events = group_columns(names.members(where)) if where else {}
    series = {name: np.sort(v[np.isfinite(v)]).astype(float) for name, v in events.items() if v.dtype.kind in "fiu" and v.ndim == 1}
    stated = {name: unit for name, unit in stated_units(names).items() if own_trials or not name.startswith("trials/")}
    return Session(
        names.path.stem,
        names.path,
        spikes.spike_times,
        index,
        columns,
        trials,
        series,
        None if placed is None else placed.observed(len(index) - 1),
        notes=(*spikes.notes, *more_notes),
        warnings=() if placed is None else placed.warnings,
        sample_rate=names.positive_number("sample_rate"),
        trials_path=None if own_trials else table_files.trials_path(names.path, options.trials_table),
        separate=None if placed is None else placed.separate,
        stated=stated,
    )


def _spike_trains(names: ArrayNames, path: str, options: Options) -> SpikeTrains:
    """Spike trains from any of the layouts."""
    where, rate = f"{names.path}: {path}", names.positive_number("sample_rate")
    found = names.arrays.get(path)
    members = names.members(path) if found is None else {}
    stated = time_units.common_unit(each.unit for each in members.values()) if found is None else found.unit
    stated = stated or time_units.split_name(path)[1]
    if found is not None and found.kind == "O" and len(found.shape) == 2 and (min(found.shape) > 1 or options.axes is not None):
        return _cells(names, path, found, options, rate, stated)
    if found is None or found.kind == "O":
        vectors = found.load() if found is not None else [each.load() for each in members.values()]
        flat, index = spike_grouping.concatenate_units(where, vectors)
        times, notes = time_units.spike_seconds(where, flat, options, rate, stated)
        return SpikeTrains(times, index, np.array(list(members), object) if members else None, notes)
    if len(found.shape) == 2 and min(found.shape) > 1:
        flat, index, note = _padded_matrix(where, np.asarray(found.load()))
        times, notes = time_units.spike_seconds(where, flat, options, rate, stated)
        return SpikeTrains(times, index, None, (note, *notes))
    times, notes = time_units.spike_seconds(where, as_vector(where, found), options, rate, stated)
    placed = None
    if (of_trial := names.column("spike_trials")) is not None:
        trials = optional_trials(names, options)
        table_files.check_lengths(where, {"spike_times": times, "spike_trials": of_trial})
        placed = trials_of_spikes(where, times, of_trial, trials)
        times = placed.spike_times
    labels = names.find("spike_clusters", groups=False)
    if labels is not None:
        return SpikeTrains(
            *spike_grouping.group_by_unit(names.path, times, as_vector(f"{names.path}: {labels}", names.arrays[labels])), notes, placed
        )
    index, more_notes = _spike_index(names, path, len(times))
    return SpikeTrains(times, index, None, (*notes, *more_notes), placed)


def _padded_matrix(where: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """(times, index, note) of a matrix with the spikes of one unit in each column or row; raises UserError if they are not sorted."""
    found = [spike_grouping.padded_trains(values, axis) for axis in (0, 1)]
    trains = next((each for each in found if each is not None), None)
    if trains is None or None not in found:
        sorted_ones = "neither its columns nor its rows are" if trains is None else "both its columns and its rows are"
        raise UserError(
            f"{where} has shape {list(values.shape)}, and {sorted_ones} sorted times; expected a vector of spike times, or a matrix with"
            " the sorted spike times of one unit in each column, filled up with NaN or zeros."
        )
    note = f"spike times of one unit in each {'column' if found[0] is not None else 'row'} of the matrix"
    return *spike_grouping.concatenate_units(where, trains), note


def _cells(names: ArrayNames, path: str, found: StoredArray, options: Options, rate: float | None, stated: str | None) -> SpikeTrains:
    """Spike trains from cells of units x trials, or of trials x units; arguments as of `spike_seconds`."""
    where, trials, ids = f"{names.path}: {path}", optional_trials(names, options), names.column("unit")
    rows, columns = found.shape
    known = {"unit": None if ids is None else len(ids), "trial": None if trials is None else len(next(iter(trials.values())))}
    orders = [("unit", "trial"), ("trial", "unit")]
    if options.axes is not None:
        orders = [order for order in orders if order == options.axes]
    orders = [order for order in orders if all(known[a] in (None, n) for a, n in zip(order, (rows, columns), strict=True))]
    if not orders:
        has = ", ".join(f"{n} {axis}s" for axis, n in known.items() if n is not None) or "no table of trials"
        given = f", axes={list(options.axes)}" if options.axes is not None else ""
        raise UserError(
            f"{where} has {rows} x {columns} cells{given}, and the file {has}; expected cells of units x trials, axes=[unit,trial]."
        )
    warnings: tuple[str, ...] = ()
    if path.startswith(OF_TRIALS):
        orders.reverse()
    if len(orders) > 1 and not path.startswith(OF_UNITS):
        warnings = (
            f"nothing says which cells are units: axes=[{','.join(orders[0])}] is taken, {rows:,} {orders[0][0]}s and {columns:,}"
            f" {orders[0][1]}s; axes=[{','.join(orders[1])}] gives the other order",
        )
    cell = np.arange(rows * columns).reshape(rows, columns)
    cell = cell if orders[0] == ("unit", "trial") else cell.T
    vectors = found.load()
    flat, ends = spike_grouping.concatenate_units(where, [vectors[each] for each in cell.reshape(-1)])
    times, notes = time_units.spike_seconds(where, flat, options, rate, stated)
    n_units, n_trials = cell.shape
    trial = np.repeat(np.tile(np.arange(n_trials), n_units), np.diff(ends))
    placed = place_trials(where, times, trial, n_trials, trials)
    note = f"cells of {n_units:,} units x {n_trials:,} trials, axes=[{','.join(orders[0])}]"
    placed = placed._replace(warnings=(*warnings, *placed.warnings))
    return SpikeTrains(placed.spike_times, ends[::n_trials], None, (note, *notes), placed)


def _spike_index(names: ArrayNames, path: str, spikes: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """(index [U+1] from the ends of units, with or without a leading 0; notes); raises UserError."""
    ends = names.column("spike_index")
    if ends is None and path.rpartition("/")[0] == (names.find("units", arrays=False) or "units"):
        return np.array([0, spikes], np.int64), ()  # a struct array of one unit
    if ends is None:
        raise UserError(
            f"{names.path}: has spike times without units; expected spike_clusters [spikes] or spike_index [units]; it has"
            f" {names.listing()}. Another name can be given as variables.spike_clusters=..."
        )
    ids = names.column("unit")
    index = ends.astype(np.int64)
    begins = len(index) > 1 and index[0] == 0 and (ids is None or len(ids) == len(index) - 1)
    if not begins:
        index = np.concatenate([[0], index])
    if np.any(np.diff(index) < 0) or index[-1] != spikes:
        raise UserError(
            f"{names.path}: spike_index ends at {int(index[-1]):,}; expected ascending numbers up to {spikes:,}, the number of spikes."
        )
    undecided = begins and ids is None
    return index, (
        ("spike_index begins with 0, taken for the start of the first unit, not for the end of a unit without spikes",) if undecided else ()
    )


def _units(names: ArrayNames, index: np.ndarray, ids: np.ndarray | None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(index, columns) of the units, including those in the file that have no spikes."""
    group = names.find("units", arrays=False)
    where = f"{names.path}: {group}"
    columns = group_columns(names.members(group)) if group is not None else {}
    spikes = {str(names.find(what)).rsplit("/", 1)[-1] for what in ("spike_times", "spike_clusters", "spike_index")}
    columns = {name: values for name, values in columns.items() if name not in spikes and values.ndim == 1}
    own = names.column("unit")
    if own is not None and (ids is None or len(own) == len(ids)):
        columns.setdefault("id", own)
    if ids is None:
        table_files.check_lengths(where if columns else names.path, columns, len(index) - 1)
        return index, {"id": np.arange(len(index) - 1)} | columns
    if not columns:
        return index, {"id": ids}
    table_files.check_lengths(where, columns)
    own = next((columns[name] for name in IDS if name in columns), None)
    key = table_files.integers_if_whole(_row_ids(where, ids, len(next(iter(columns.values())))) if own is None else own)
    if ids.dtype.kind == "O" or (key.dtype.kind in "iu") != (ids.dtype.kind in "iu"):
        key = key.astype(str)
    if not np.isin(ids.astype(key.dtype), key).any():
        raise UserError(
            f"{where}: its ids ({key[0]}, ...) do not occur among the unit labels of spikes ({', '.join(map(str, ids[:3]))}, ...)."
        )
    if ids.dtype.kind != "O":  # ascending, from `spike_grouping.group_by_unit`
        index, ids = spike_grouping.insert_silent_units(index, ids if key.dtype.kind in "iu" else ids.astype(str), key)
    return index, {"id": ids} | spike_grouping.rows_of_units({name: values for name, values in columns.items() if name != "id"}, key, ids)


def _row_ids(where: str, ids: np.ndarray, rows: int) -> np.ndarray:
    """Unit labels of the rows of a table without ids: those of the spikes, or numbers from 0 or 1. Raises UserError."""
    if rows == len(ids):
        return ids
    first = first_label(ids, rows) if ids.dtype.kind in "iu" and len(ids) else None
    if first is None:
        raise UserError(
            f"{where}: has {rows} rows, but {len(ids)} units have spikes; expected a column id, as their labels"
            f" ({', '.join(map(str, ids[:3]))}, ...) do not say their row."
        )
    return np.arange(first, rows + first)


def _trials(names: ArrayNames, options: Options) -> tuple[dict[str, np.ndarray], tuple[str, ...], bool]:
    """(columns, notes, whether the file itself has them) of the trials, from the table that the user gives or from the file."""
    if options.trials_table is None and names.find("trials") is not None:
        return optional_trials(names, options) or {}, (), True
    used = [names.find(what) for what in ("spike_times", "spike_clusters", "spike_index", "unit")]
    columns = flat_trials(names.arrays, [each for each in used if each]) if options.trials_table is None else {}
    if columns:
        return table_files.trial_columns(names.path, columns), (f"trials from the arrays {', '.join(columns)}",), True
    columns, note = table_files.require_trials(names.path, options.trials_table)
    return columns, (note,), False
