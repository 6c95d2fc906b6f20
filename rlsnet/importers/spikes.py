"""Spikes of named arrays to a session: lists of vectors, labels of units, or ends of units; trials and events beside them."""

from __future__ import annotations

import numpy as np

from rlsnet.config import UserError
from rlsnet.importers import byunit, tables
from rlsnet.importers.named import Names, columns_of, vector
from rlsnet.importers.options import Options
from rlsnet.importers.session import Session

IDS = ("id", "unit_id", "cluster_id", "unit", "cluster")  # columns of units that the labels of spikes refer to
Grouped = tuple[np.ndarray, np.ndarray, np.ndarray | None, tuple[str, ...]]  # times, index, ids that spikes are labelled with, notes


def session(names: Names, path: str, options: Options) -> Session:
    """The session of a file whose spike times are at `path`; raises UserError where its arrays do not fit together."""
    times, index, ids, notes = _grouped(names, path)
    index, columns = _units(names, index, ids)
    trials, said = _trials(names, options)
    where = names.find("events", arrays=False)
    events = columns_of(f"{names.path}: {where}", names.group(where)) if where else {}
    series = {name: np.sort(v[np.isfinite(v)]).astype(float) for name, v in events.items() if v.dtype.kind in "fiu" and v.ndim == 1}
    return Session(names.path.stem, names.path, times, index, columns, trials, series, notes=(*notes, *said))


def _grouped(names: Names, path: str) -> Grouped:
    """Spikes in any of the layouts; ids are None where spikes come without labels."""
    where, rate = f"{names.path}: {path}", names.number("sample_rate")
    found = names.leaves.get(path)
    if found is None or found.kind == "O":
        members = names.group(path) if found is None else {}
        vectors = found.load() if found is not None else [each.load() for each in members.values()]
        flat, index = byunit.listed(where, vectors)
        times, said = byunit.seconds(where, flat, rate)
        return times, index, np.array(list(members), object) if members else None, said
    times, said = byunit.seconds(where, vector(where, found), rate)
    labels = names.find("spike_clusters", groups=False)
    if labels is not None:
        return *byunit.group(names.path, times, vector(f"{names.path}: {labels}", names.leaves[labels])), said
    return times, _index(names, path, len(times)), None, said


def _index(names: Names, path: str, spikes: int) -> np.ndarray:
    """[U+1] index from the ends of units, with or without a leading 0; raises UserError."""
    ends = names.column("spike_index")
    if ends is None and path.rpartition("/")[0] == (names.find("units", arrays=False) or "units"):
        return np.array([0, spikes], np.int64)  # a struct array of one unit
    if ends is None:
        raise UserError(
            f"{names.path}: has spike times, but nothing says of which unit; expected spike_clusters [spikes] or"
            f" spike_index [units]; it has {names.words()}. Name it with variables.spike_clusters=..."
        )
    ids = names.column("unit")
    index = ends.astype(np.int64)
    if not (len(index) > 1 and index[0] == 0 and (ids is None or len(ids) == len(index) - 1)):
        index = np.concatenate([[0], index])
    if np.any(np.diff(index) < 0) or index[-1] != spikes:
        raise UserError(f"{names.path}: spike_index should ascend to the number of spikes, {spikes:,}; it ends at {int(index[-1]):,}.")
    return index


def _units(names: Names, index: np.ndarray, ids: np.ndarray | None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(index, columns) of the units, those that the file lists without spikes put in."""
    group = names.find("units", arrays=False)
    where = f"{names.path}: {group}"
    columns = columns_of(where, names.group(group)) if group is not None else {}
    spikes = {str(names.find(what)).rsplit("/", 1)[-1] for what in ("spike_times", "spike_clusters", "spike_index")}
    columns = {name: values for name, values in columns.items() if name not in spikes and values.ndim == 1}
    own = names.column("unit")
    if own is not None and (ids is None or len(own) == len(ids)):
        columns.setdefault("id", own)
    if ids is None:
        tables.check_lengths(where if columns else names.path, columns, len(index) - 1)
        return index, {"id": np.arange(len(index) - 1)} | columns
    if not columns:
        return index, {"id": ids}
    tables.check_lengths(where, columns)
    own = next((columns[name] for name in IDS if name in columns), None)
    key = tables.whole(_count(where, ids, len(next(iter(columns.values())))) if own is None else own)
    if ids.dtype.kind == "O" or (key.dtype.kind in "iu") != (ids.dtype.kind in "iu"):
        key = key.astype(str)
    if not np.isin(ids.astype(key.dtype), key).any():
        raise UserError(f"{where}: its ids ({key[0]}, ...) are none that spikes are labelled with ({', '.join(map(str, ids[:3]))}, ...).")
    if ids.dtype.kind != "O":  # as `byunit.group` gives them, ascending
        index, ids = byunit.placed(index, ids if key.dtype.kind in "iu" else ids.astype(str), key)
    return index, {"id": ids} | byunit.aligned({name: values for name, values in columns.items() if name != "id"}, key, ids)


def _count(where: str, ids: np.ndarray, rows: int) -> np.ndarray:
    """What numbers the rows of a table of units without ids have: those of the spikes, or from 0, or from 1 on."""
    if rows == len(ids):
        return ids
    if ids.dtype.kind in "iu" and len(ids):
        for first in (0, 1):
            if int(ids.min()) >= first and int(ids.max()) == rows - 1 + first:
                return np.arange(first, rows + first)
    raise UserError(f"{where}: has {rows} entries, but {len(ids)} units have spikes; expected a column id.")


def _trials(names: Names, options: Options) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """(columns, notes) of the trials that the user gives as a table, or that are in the file."""
    path = names.find("trials")
    if options.trials_table is None and path is not None:
        where = f"{names.path}: {path}"
        members = {path.rsplit("/", 1)[-1]: names.leaves[path]} if path in names.leaves else names.group(path)
        return tables.trial_columns(where, columns_of(where, members)), ()
    columns, note = tables.need_trials(names.path, options.trials_table)
    return columns, (note,)
