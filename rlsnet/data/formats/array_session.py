"""Session from named arrays: lists of spike trains, unit labels of spikes, or ends of units; trials and events beside them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rlsnet.data import time_units
from rlsnet.data.formats import spike_grouping, table_files
from rlsnet.data.formats.array_names import ArrayNames, as_vector, group_columns
from rlsnet.data.formats.named_vectors import flat_trials
from rlsnet.data.import_options import Options
from rlsnet.data.session import Session
from rlsnet.errors import UserError

IDS = ("id", "unit_id", "cluster_id", "unit", "cluster")  # columns of units that unit labels refer to


class SpikeTrains(NamedTuple):
    """Spike trains of units, one unit after the other.

    spike_times: [spikes] s.
    spike_index: [U+1] unit u has spike_times[index[u]:index[u + 1]].
    ids: [U] labels of the units, or None if the spikes have no labels.
    notes: for the user.
    """

    spike_times: np.ndarray
    spike_index: np.ndarray
    ids: np.ndarray | None
    notes: tuple[str, ...]


def build_session(names: ArrayNames, path: str, options: Options) -> Session:
    """Session of a file with spike times at `path`; raises UserError if its arrays do not fit together."""
    spikes = _spike_trains(names, path, options)
    index, columns = _units(names, spikes.spike_index, spikes.ids)
    trials, more_notes = _trials(names, options)
    where = names.find("events", arrays=False)
    events = group_columns(f"{names.path}: {where}", names.members(where)) if where else {}
    series = {name: np.sort(v[np.isfinite(v)]).astype(float) for name, v in events.items() if v.dtype.kind in "fiu" and v.ndim == 1}
    stated = {name: each.unit for name, each in names.arrays.items() if each.unit is not None}
    return Session(
        names.path.stem,
        names.path,
        spikes.spike_times,
        index,
        columns,
        trials,
        series,
        notes=(*spikes.notes, *more_notes),
        sample_rate=names.positive_number("sample_rate"),
        stated={f"{'/'.join(name.rsplit('/', 2)[-2:])}": unit for name, unit in stated.items()},
    )


def _spike_trains(names: ArrayNames, path: str, options: Options) -> SpikeTrains:
    """Spike trains from any of the layouts."""
    where, rate = f"{names.path}: {path}", names.positive_number("sample_rate")
    found = names.arrays.get(path)
    stated = found.unit if found is not None and found.unit else time_units.split_name(path)[1]
    if found is None or found.kind == "O":
        members = names.members(path) if found is None else {}
        vectors = found.load() if found is not None else [each.load() for each in members.values()]
        flat, index = spike_grouping.concatenate_units(where, vectors)
        times, notes = time_units.spike_seconds(where, flat, options, rate, stated)
        return SpikeTrains(times, index, np.array(list(members), object) if members else None, notes)
    times, notes = time_units.spike_seconds(where, as_vector(where, found), options, rate, stated)
    labels = names.find("spike_clusters", groups=False)
    if labels is not None:
        return SpikeTrains(
            *spike_grouping.group_by_unit(names.path, times, as_vector(f"{names.path}: {labels}", names.arrays[labels])), notes
        )
    return SpikeTrains(times, _spike_index(names, path, len(times)), None, notes)


def _spike_index(names: ArrayNames, path: str, spikes: int) -> np.ndarray:
    """Index [U+1] from the ends of units, with or without a leading 0; raises UserError."""
    ends = names.column("spike_index")
    if ends is None and path.rpartition("/")[0] == (names.find("units", arrays=False) or "units"):
        return np.array([0, spikes], np.int64)  # a struct array of one unit
    if ends is None:
        raise UserError(
            f"{names.path}: has spike times without units; expected spike_clusters [spikes] or spike_index [units]; it has"
            f" {names.listing()}. Another name can be given as variables.spike_clusters=..."
        )
    ids = names.column("unit")
    index = ends.astype(np.int64)
    if not (len(index) > 1 and index[0] == 0 and (ids is None or len(ids) == len(index) - 1)):
        index = np.concatenate([[0], index])
    if np.any(np.diff(index) < 0) or index[-1] != spikes:
        raise UserError(
            f"{names.path}: spike_index ends at {int(index[-1]):,}; expected ascending numbers up to {spikes:,}, the number of spikes."
        )
    return index


def _units(names: ArrayNames, index: np.ndarray, ids: np.ndarray | None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(index, columns) of the units, including those in the file that have no spikes."""
    group = names.find("units", arrays=False)
    where = f"{names.path}: {group}"
    columns = group_columns(where, names.members(group)) if group is not None else {}
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
    if ids.dtype.kind in "iu" and len(ids):
        for first in (0, 1):
            if int(ids.min()) >= first and int(ids.max()) == rows - 1 + first:
                return np.arange(first, rows + first)
    raise UserError(f"{where}: has {rows} rows, but {len(ids)} units have spikes; expected a column id.")


def _trials(names: ArrayNames, options: Options) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """(columns, notes) of the trials, from the table that the user gives or from the file."""
    path = names.find("trials")
    if options.trials_table is None and path is not None:
        where = f"{names.path}: {path}"
        members = {path.rsplit("/", 1)[-1]: names.arrays[path]} if path in names.arrays else names.members(path)
        return table_files.trial_columns(where, group_columns(where, members)), ()
    used = [names.find(what) for what in ("spike_times", "spike_clusters", "spike_index", "unit")]
    columns = flat_trials(names.arrays, [each for each in used if each]) if options.trials_table is None else {}
    if columns:
        return table_files.trial_columns(names.path, columns), (f"trials from the arrays {', '.join(columns)}",)
    columns, note = table_files.require_trials(names.path, options.trials_table)
    return columns, (note,)
