"""Arrays and tables without a format of neuroscience: .npz, .npy, .zarr, .csv, .tsv, .parquet.

Spikes are a vector of times (s, or samples with `sample_rate`) with one of labels of units, or a table with columns time and unit.
Ready rates are a matrix [time, unit] or [condition, time, unit], or a table with a column a unit and perhaps columns time (s, or
time_ms) and condition.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlsnet.config import UserError
from rlsnet.importers import byunit, named, tables
from rlsnet.importers.interpret import read as interpret
from rlsnet.importers.named import Leaf, Names
from rlsnet.importers.options import Options
from rlsnet.importers.ready import arranged, bin_of, check, counts_note
from rlsnet.importers.session import Ready, Session

EXTENSIONS = (".npz", ".npy", ".zarr", *tables.TABLES)
TIME = ("time", "times", "t", "spike_time", "spike_times")
UNIT = ("unit", "units", "unit_id", "cluster", "clusters", "cluster_id", "spike_clusters", "neuron")


def matches(path: Path) -> bool:
    """Whether a source is a file or store of these."""
    return path.suffix.lower() in EXTENSIONS


def read(path: Path, options: Options) -> Session | Ready:
    """The session, or the ready rates, of one file; raises UserError where it holds neither.

    Args:
      path: of the file or store.
      options: of the import; `variables` name arrays or columns, `axes` those of a matrix, `trials_table` the trials.
    """
    suffix = path.suffix.lower()
    if suffix == ".zarr":
        return _read_zarr(path, options)
    if not path.is_file():
        raise UserError(f"{path}: no such file.")
    if suffix in tables.TABLES:
        return of_table(path, tables.read_table(path), options)
    if suffix == ".npy":
        values = tables.load_npy(path)
        if values.dtype.names:
            return of_table(path, {name: np.asarray(values[name]).reshape(-1) for name in values.dtype.names}, options)
        return interpret(path, {"rate": named.leaf(values)} if values.ndim > 1 else {path.stem: named.leaf(values)}, options)
    with tables.reading(path), np.load(path, allow_pickle=False) as file:
        leaves = {name: named.leaf(np.asarray(file[name])) for name in file.files}
    return interpret(path, named.flatten(leaves), options)


def _read_zarr(path: Path, options: Options) -> Session | Ready:
    """A Zarr array, or the arrays of a group."""
    import zarr

    if not path.exists():
        raise UserError(f"{path}: no such folder.")
    with tables.reading(path):
        node = zarr.open(str(path), mode="r")
        arrays = [("rate", node)] if isinstance(node, zarr.Array) else list(node.members(max_depth=None))
        leaves = {name: _zarr_leaf(each) for name, each in arrays if isinstance(each, zarr.Array)}
    length = node.attrs.get("bin_ms")
    found = interpret(path, leaves, options, bin_ms=float(length) if isinstance(length, int | float) else None)
    if node.attrs.get("format") == "rlsnet-recording" and "rate_half" in leaves:
        left = "of an earlier import the rates alone are taken, not its halves, sessions and trials: those take the sources"
        return dataclasses.replace(found, notes=(*found.notes, left))
    return found


def _zarr_leaf(array: Any) -> Leaf:
    from rlsnet import zarrio

    dims = tuple(getattr(array.metadata, "dimension_names", None) or ())
    return Leaf(tuple(array.shape), named.KINDS.get(array.dtype.kind, "?"), lambda: zarrio.read(array), dims)


def of_table(path: Path, columns: Mapping[str, np.ndarray], options: Options) -> Session | Ready:
    """Spikes, where a table has columns of times and units, else rates with a column a unit."""
    given = options.variables or {}
    Names(path, {}, given)
    lower = {name.lower(): name for name in columns}
    times = _named(path, columns, given, "spike_times") or next((lower[name] for name in TIME if name in lower), None)
    labels = _named(path, columns, given, "spike_clusters") or next((lower[name] for name in UNIT if name in lower), None)
    if times is None or labels is None:
        if {"spike_times", "spike_clusters"} & set(given):
            raise UserError(
                f"{path}: has columns {_words(columns)}; expected one of times and one of units, variables.spike_clusters=..."
            )
        return _rates(path, columns, options)
    rate = Names(path, named.flatten({}), given).number("sample_rate")
    values, said = byunit.seconds(f"{path}: {times}", columns[times], rate)
    values, index, ids = byunit.group(path, values, columns[labels])
    trials, note = tables.need_trials(path, options.trials_table)
    return Session(path.stem, path, values, index, {"id": ids}, trials, notes=(*said, note))


def _named(path: Path, columns: Mapping[str, np.ndarray], given: Mapping[str, str], what: str) -> str | None:
    """The column that the user calls so; raises UserError where there is none."""
    name = given.get(what)
    if name is not None and name not in columns:
        raise UserError(f"variables.{what}={name}: {path} has no such column; it has {_words(columns)}.")
    return name


def _words(columns: Mapping[str, np.ndarray]) -> str:
    names = list(columns)
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")


def _rates(path: Path, columns: Mapping[str, np.ndarray], options: Options) -> Ready:
    """A table of rates: rows are bins, of one condition after the other where a column says which."""
    given = options.variables or {}
    kind = "current" if "current" in given or path.stem.lower().startswith("utarg") else "rate"
    lower = {name.lower(): name for name in columns}
    if tables.TIMES.keys() <= lower.keys():
        raise UserError(f"{path}: looks like a table of trials; expected given as trials_table={path}, beside the spikes.")
    units = dict(columns)
    if "" in units and np.array_equal(units[""], np.arange(len(units[""]))):
        units.pop("")  # the row numbers that pandas writes
    special: dict[str, np.ndarray | None] = {}
    for what, usual in (("time", ("time", "t", "")), ("time_ms", ("time_ms",)), ("condition", ("condition", "conditions"))):
        name = _named(path, columns, given, what) or next((lower[each] for each in usual if each in lower), None)
        special[what] = units.pop(name, None) if name is not None else None
    texts = [name for name, values in units.items() if values.dtype.kind not in "fiu"]
    if texts or not units:
        what = f"column {texts[0]!r} holds texts" if texts else "has no columns of units"
        raise UserError(f"{path}: {what}; expected rates in Hz, a column a unit, or spikes with columns time and unit.")
    time, scale = (special["time"], 1000.0) if special["time"] is not None else (special["time_ms"], 1.0)
    matrix = np.column_stack(list(units.values())) if len(next(iter(units.values()))) else np.zeros((0, len(units)))
    values, first, names = _by_condition(path, matrix, special["condition"], time)
    axes, note = _order(path, values, options)
    rates = arranged(values, axes)
    check(path, "the table", kind, rates)
    length = Names(path, {}, given).number("bin_ms") or (bin_of(f"{path}: time", first, scale) if first is not None else None)
    ids = {"id": np.array(list(units), object)} if axes[-1] == "unit" else {}
    return Ready(path.stem, path, rates, kind, length, names, ids, (note, *counts_note(kind, rates)))


def _order(path: Path, values: np.ndarray, options: Options) -> tuple[tuple[str, ...], str]:
    """(axes, a note) of a table: rows are bins unless the user says that they are units."""
    axes = tuple(options.axes or ("time", "unit"))[-2:]
    if sorted(axes) != ["time", "unit"] or (axes[0] == "unit" and values.ndim == 3):
        raise UserError(f"{path}: axes={list(options.axes or ())}; rows and columns of a table should be [time, unit] or [unit, time].")
    sizes = ", ".join(f"{axis} {size:,}" for axis, size in zip(axes, values.shape[-2:], strict=True))
    return (*(("condition",) if values.ndim == 3 else ()), *axes), f"axes of the table: {sizes}"


def _by_condition(
    path: Path, matrix: np.ndarray, conditions: np.ndarray | None, time: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...] | None]:
    """(matrix, times of its bins, names) from the rows of a table, split by condition; raises UserError unless all are as long."""
    if conditions is None:
        return matrix, time, None
    labels = np.array([str(each) for each in conditions])
    names = list(dict.fromkeys(labels.tolist()))
    rows = [np.flatnonzero(labels == name) for name in names]
    if len({len(each) for each in rows}) != 1:
        lengths = ", ".join(f"{name} {len(each)}" for name, each in zip(names, rows, strict=True))
        raise UserError(f"{path}: conditions have different numbers of rows ({lengths}); expected as many bins each.")
    return np.stack([matrix[each] for each in rows]), None if time is None else time[rows[0]], tuple(names)
