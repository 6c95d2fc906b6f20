"""Arrays and tables in general formats: .npz, .npy, .zarr, .csv, .tsv, .parquet.

Spikes are a vector of times and a vector of unit labels, or a table with columns time, unit and perhaps trial. Values in bins are a matrix
[time, unit], [condition, time, unit] or [trial, time, unit], or a table with one column for each unit and, if needed, columns time (s, or
time_ms) and condition.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlsnet.data import time_units
from rlsnet.data.formats import array_names, spike_grouping, table_files
from rlsnet.data.formats.array_names import ArrayNames, StoredArray
from rlsnet.data.formats.array_sources import read_arrays
from rlsnet.data.formats.rate_matrix import are_counts, bin_times, check_more_bins_than_units, check_said, check_values, to_standard_axes
from rlsnet.data.formats.single_trials import BinnedValues, place_trials, precomputed, trial_numbers
from rlsnet.data.import_options import Options
from rlsnet.data.session import PrecomputedRates, Session
from rlsnet.errors import UserError
from rlsnet.io import npz_files

EXTENSIONS = (".npz", ".npy", ".zarr", *table_files.TABLE_SUFFIXES)
TIME_COLUMNS = ("time", "times", "t", "spike_time", "spike_times", "spiketime", "spiketimes", "timestamp", "timestamps", "ts")
UNIT_COLUMNS = (
    *("unit", "units", "unit_id", "unit_ids", "cluster", "clusters", "cluster_id", "cluster_ids", "spike_clusters", "neuron", "neurons"),
    *("neuron_id", "neuron_ids", "cell", "cells", "cell_id", "node_id", "node_ids", "sender", "senders", "id", "ids"),
)
LONG_COLUMN = 10  # rows from which on a column that ascends contains times
TRIAL_COLUMNS = ("trial", "trials", "trial_id", "trial_number", "trial_index", "spike_trials")


def matches(path: Path) -> bool:
    """Whether a source is such a file or store, by its name."""
    return path.suffix.lower() in EXTENSIONS


def read(path: Path, options: Options) -> Session | PrecomputedRates:
    """Session or precomputed rates from one file or store.

    Args:
      path: of the file or store.
      options: settings of the import; `variables` name arrays or columns, `axes` those of a matrix, `trials_table` the trials.

    Raises:
      UserError: neither spikes nor rates, or a file that cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix == ".zarr":
        return _read_zarr(path, options)
    if not path.is_file():
        raise UserError(f"{path}: no such file.")
    if suffix in table_files.TABLE_SUFFIXES:
        return read_columns(path, table_files.read_table(path), options)
    if suffix == ".npy":
        values = table_files.load_npy(path)
        if values.dtype.names:
            return read_columns(path, {name: np.asarray(values[name]).reshape(-1) for name in values.dtype.names}, options)
        return read_arrays(
            path, {"rate": array_names.in_memory(values)} if values.ndim > 1 else {path.stem: array_names.in_memory(values)}, options
        )
    with table_files.one_line_errors(path), np.load(path, allow_pickle=False) as file:
        npz_files.check_npz(path)
        stored = {name: array_names.in_memory(np.asarray(file[name])) for name in file.files}
    return read_arrays(path, array_names.flatten_tree(stored), options)


def _read_zarr(path: Path, options: Options) -> Session | PrecomputedRates:
    """Session or precomputed rates from a Zarr array, or from the arrays of a group."""
    import zarr

    from rlsnet.io import zarr_store

    if not path.exists():
        raise UserError(f"{path}: no such folder.")
    with table_files.one_line_errors(path):
        node = zarr.open(zarr_store.CheckedStore(path), mode="r")
        if isinstance(node, zarr.Group):
            node = zarr_store.open_store(path)  # which finds damage
        arrays = [("rate", node)] if isinstance(node, zarr.Array) else list(node.members(max_depth=None))
        stored = {name: _zarr_array(each) for name, each in arrays if isinstance(each, zarr.Array)}
    found = read_arrays(path, stored, options, bin_ms=array_names.bin_attribute(path, node.attrs.get("bin_ms")))
    if node.attrs.get("format") == "rlsnet-recording" and "rate_half" in stored:
        note = "only the rates of an earlier import are used, without halves, sessions and trials; these need the original sources"
        return dataclasses.replace(found, notes=(*found.notes, note))
    return found


def _zarr_array(array: Any) -> StoredArray:
    """Zarr array that is read when needed."""
    from rlsnet.io import zarr_store

    unit = time_units.unit_of(array.attrs.get("units", array.attrs.get("unit", "")))
    dims = tuple(getattr(array.metadata, "dimension_names", None) or ())
    return StoredArray(tuple(array.shape), array_names.KIND_OF_DTYPE.get(array.dtype.kind, "?"), lambda: zarr_store.read(array), dims, unit)


def read_columns(path: Path, columns: Mapping[str, np.ndarray], options: Options) -> Session | PrecomputedRates:
    """Session from a table with columns of times and units, else precomputed rates with one column for each unit."""
    variables = options.variables or {}
    rate = ArrayNames(path, {}, variables).positive_number("sample_rate")
    times = _column(path, columns, variables, "spike_times", TIME_COLUMNS)
    labels = _column(path, columns, variables, "spike_clusters", UNIT_COLUMNS)
    if times is None or labels is None or ({"rate", "current", "counts", "time", "time_ms"} & set(variables)):
        if {"spike_times", "spike_clusters"} & set(variables):
            raise UserError(
                f"{path}: has columns {_listing(columns)}; expected a column of times and one of units, variables.spike_clusters=..."
            )
        return _rates_of_table(path, columns, options)
    values, notes = time_units.spike_seconds(f"{path}: {times}", columns[times], options, rate, time_units.split_name(times)[1])
    of_trial = _column(path, columns, variables, "spike_trials", TRIAL_COLUMNS)
    placed = None
    if of_trial is not None:
        found = table_files.trials_table(path, options.trials_table)
        table = None if found is None else found[0]
        where = f"{path}: {of_trial}"
        placed = place_trials(where, values, *trial_numbers(where, columns[of_trial], table), table)
        values, trials, notes = placed.spike_times, placed.trials, (*notes, *placed.notes)
    else:
        trials, note = table_files.require_trials(path, options.trials_table)
        notes = (*notes, note)
    values, index, ids = spike_grouping.group_by_unit(path, values, columns[labels])
    observed, separate = (None, None) if placed is None else (placed.observed(len(ids)), placed.separate)
    return Session(
        path.stem,
        path,
        values,
        index,
        {"id": ids},
        trials,
        {},
        observed,
        notes,
        rate,
        separate=separate,
        trials_path=table_files.trials_path(path, options.trials_table),
    )


def _column(path: Path, columns: Mapping[str, np.ndarray], variables: Mapping[str, str], what: str, usual: Sequence[str]) -> str | None:
    """Column that the user names for a quantity, or that has a usual name, perhaps followed by a unit of time; or None."""
    if (given := _given_column(path, columns, variables, what)) is not None:
        return given
    lower = {name.lower(): name for name in columns}
    stems = {time_units.split_name(name)[0].lower(): name for name in columns if time_units.split_name(name)[1]}
    return next((names[each] for names in (lower, stems) for each in usual if each in names), None)


def _given_column(path: Path, columns: Mapping[str, np.ndarray], variables: Mapping[str, str], what: str) -> str | None:
    """Column that the user names for a quantity, or None; raises UserError if it does not exist."""
    name = variables.get(what)
    if name is not None and name not in columns:
        raise UserError(f"variables.{what}={name}: {path} has no such column; it has {_listing(columns)}.")
    return name


def _listing(columns: Mapping[str, np.ndarray]) -> str:
    """Names of the columns, for messages."""
    names = list(columns)
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")


def _rates_of_table(path: Path, columns: Mapping[str, np.ndarray], options: Options) -> PrecomputedRates:
    """Precomputed rates from a table with one row for each bin; a column may say to which condition a bin belongs."""
    variables = options.variables or {}
    kind = "current" if "current" in variables or path.stem.lower().startswith("utarg") else "counts" if "counts" in variables else "rate"
    lower = {name.lower(): name for name in columns}
    if table_files.TRIAL_TIME_NAMES.keys() <= lower.keys():
        raise UserError(f"{path}: is a table of trials; expected a source of spikes with trials_table={path}.")
    units = dict(columns)
    if "" in units and np.array_equal(units[""], np.arange(len(units[""]))):
        units.pop("")  # row numbers that pandas writes
    given = {what: _given_column(path, columns, variables, what) for what in ("time", "time_ms")}
    time = given["time"] or given["time_ms"] or _column(path, units, {}, "time", ("time", "times", "t", ""))
    condition = _column(path, columns, variables, "condition", ("condition", "conditions"))
    where, of_bins = f"{path}: {time}", None if time is None else units.pop(time)
    conditions = None if condition is None else units.pop(condition)
    texts = [name for name, values in units.items() if values.dtype.kind not in "fiu"]
    if not options.axes and not {"rate", "current", "counts"} & set(variables):
        _check_not_spikes(path, units if time is None else {time: columns[time], **units}, time)
    if texts or not units:
        problem = f"column {texts[0]!r} contains texts ({units[texts[0]][0]!r})" if texts else "has no columns of units"
        raise UserError(f"{path}: {problem}; expected rates in Hz, one column for each unit, or spikes with columns time and unit.")
    matrix = np.column_stack(list(units.values())) if len(next(iter(units.values()))) else np.zeros((0, len(units)))
    values, first, names = _split_by_condition(path, matrix, conditions, of_bins)
    axes, note = _table_axes(path, values, options)
    if time is None and not options.axes and all(name.isdigit() for name in units):
        check_more_bins_than_units(f"{path}: the table", values.shape, axes, True)
    rates = to_standard_axes(values, axes)
    check_values(path, "the table", kind, rates)
    if counts := are_counts(f"{path}: the table", kind, rates, options):
        check_said(f"{path}: the table", kind, options)
    names_of_file = ArrayNames(path, {}, variables)
    bins, length = None, None
    if first is not None:
        unit = "ms" if given["time_ms"] else time_units.split_name(str(time))[1]
        rate, named = names_of_file.positive_number("sample_rate"), bool(given["time"] or given["time_ms"])
        bins, length = bin_times(where, first, unit, named, rate, options)
    ids = {"id": np.array(list(units), object)} if axes[-1] == "unit" else {}
    binned = BinnedValues(path, rates, kind, bins, names_of_file.positive_number("bin_ms") or length, ids, (note,))
    return precomputed(binned, names, counts, options)


def _check_not_spikes(path: Path, columns: Mapping[str, np.ndarray], time: str | None) -> None:
    """Raises UserError if a table of rates without recognized names looks like times of spikes and their units, or has times of bins.

    Args:
      path: of the table.
      columns: of the table without its conditions.
      time: column that is taken as times of bins, or None.
    """
    found = spike_grouping.find_spikes(columns)
    if found is not None:
        raise UserError(
            f"{path}: {found[0]} and {found[1]} look like times and units of spikes; expected variables.spike_times={found[0]}"
            f" variables.spike_clusters={found[1]}, or axes=[time,unit] if the columns are rates of units."
        )
    for name, values in columns.items():
        if values.dtype.kind not in "fiu":
            continue
        if name != time and len(values) >= LONG_COLUMN and (np.diff(values) > 0).all():
            raise UserError(
                f"{path}: {name} ascends in all {len(values):,} rows, as times do and rates do not; expected variables.time={name} for"
                " times of bins, or axes=[time,unit] if it is a rate."
            )


def _table_axes(path: Path, values: np.ndarray, options: Options) -> tuple[tuple[str, ...], str]:
    """(axes, note) of a table: rows are bins, or units if the user says so."""
    axes = tuple(options.axes or ("time", "unit"))[-2:]
    if sorted(axes) != ["time", "unit"] or (axes[0] == "unit" and values.ndim == 3):
        raise UserError(
            f"{path}: axes={list(options.axes or ())}; expected [time, unit] or [unit, time] for the rows and columns of a table."
        )
    sizes = ", ".join(f"{axis} {size:,}" for axis, size in zip(axes, values.shape[-2:], strict=True))
    return (*(("condition",) if values.ndim == 3 else ()), *axes), f"axes of the table: {sizes}"


def _split_by_condition(
    path: Path, matrix: np.ndarray, conditions: np.ndarray | None, time: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...] | None]:
    """Rows of a table split by condition.

    Args:
      path: of the table.
      matrix: [rows, units] values.
      conditions: [rows] condition of each row, or None.
      time: [rows] time of each row, or None.

    Returns:
      (matrix [time, unit] or [condition, time, unit], times of its bins, names of the conditions).

    Raises:
      UserError: conditions with different numbers of bins.
    """
    if conditions is None:
        return matrix, time, None
    labels = np.array([str(each) for each in conditions])
    names = list(dict.fromkeys(labels.tolist()))
    rows = [np.flatnonzero(labels == name) for name in names]
    if len({len(each) for each in rows}) != 1:
        lengths = ", ".join(f"{name} {len(each)}" for name, each in zip(names, rows, strict=True))
        raise UserError(f"{path}: conditions have different numbers of rows ({lengths}); expected equal numbers of bins.")
    return np.stack([matrix[each] for each in rows]), None if time is None else time[rows[0]], tuple(names)
