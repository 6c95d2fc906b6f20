"""Arrays and tables in general formats: .npz, .npy, .zarr, .csv, .tsv, .parquet.

Spikes are a vector of times and a vector of unit labels, or a table with columns time, unit and perhaps trial. Values in bins are a matrix
[time, unit], [condition, time, unit] or [trial, time, unit], or a table with one column for each unit and, if needed, columns time (s, or
time_ms) and condition.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlsnet.data import query, time_units
from rlsnet.data.formats import array_names, spike_grouping, table_files, table_labels, value_tables
from rlsnet.data.formats.array_names import ArrayNames, StoredArray
from rlsnet.data.formats.array_sources import read_arrays
from rlsnet.data.formats.rate_matrix import (
    BinTimes,
    are_counts,
    bin_times,
    check_more_bins_than_units,
    check_said,
    check_values,
    to_standard_axes,
)
from rlsnet.data.formats.single_trials import (
    BinnedValues,
    PlacedTrials,
    averaged_trials,
    codes,
    counted_trials,
    precomputed,
    trial_numbers,
    trials_of_spikes,
    varies_within,
)
from rlsnet.data.formats.table_labels import Labels
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
BIN_COLUMNS = ("bin", "bins", "bin_index", "bin_number", "time_bin", "timebin", "frame")
CENTRE_COLUMNS = ("bin_center", "bin_centers", "bin_centre", "bin_centres")
BIN_TIME_COLUMNS = (*(name for name in TIME_COLUMNS if not name.startswith("spike")), "", *CENTRE_COLUMNS, *BIN_COLUMNS)
NUMBERS_OF_TRIALS = ("n_trials", "n_trial", "ntrials", "num_trials", "trial_count")
CONDITION_COLUMNS = ("condition", "conditions")
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
            columns = {name: table_files.plain_numbers(np.asarray(values[name]).reshape(-1)) for name in values.dtype.names}
            return read_columns(path, columns, options)
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
        nodes = {"": node} | ({} if isinstance(node, zarr.Array) else dict(sorted(node.members(max_depth=None))))
        above = {name: dict(nodes[name.rpartition("/")[0]].attrs) for name in nodes}
        stored = {name or "rate": _zarr_array(each, above[name]) for name, each in nodes.items() if isinstance(each, zarr.Array)}
    found = read_arrays(path, stored, options, bin_ms=array_names.bin_attribute(path, node.attrs.get("bin_ms")))
    if node.attrs.get("format") == "rlsnet-recording" and "rate_half" in stored:
        note = "only the rates of an earlier import are used, without halves, sessions and trials; these need the original sources"
        return dataclasses.replace(found, notes=(*found.notes, note))
    return found


def _zarr_array(array: Any, above: Mapping[str, Any]) -> StoredArray:
    """Zarr array that is read when needed; `above` has the attributes of its group."""
    from rlsnet.io import zarr_store

    unit = time_units.stated_unit(dict(array.attrs), above)
    dims = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS") or ()  # the latter in format 2
    dims = tuple(str(each or "") for each in dims)
    return StoredArray(tuple(array.shape), array_names.KIND_OF_DTYPE.get(array.dtype.kind, "?"), lambda: zarr_store.read(array), dims, unit)


def read_columns(path: Path, columns: Mapping[str, np.ndarray], options: Options) -> Session | PrecomputedRates:
    """Session from a table with columns of times and units, else precomputed rates with one column for each unit."""
    variables = options.variables or {}
    rate = ArrayNames(path, {}, variables).positive_number("sample_rate")
    columns = _without_lists(path, columns, variables)
    times = _column(path, columns, variables, "spike_times", TIME_COLUMNS)
    labels, trial = (
        _labels(path, columns, variables, *each) for each in (("spike_clusters", UNIT_COLUMNS), ("spike_trials", TRIAL_COLUMNS))
    )
    if labels and "spike_times" not in variables and (tidy := _tidy_table(path, columns, labels, trial, options, rate)) is not None:
        return tidy
    if times is None or not labels or ({"rate", "current", "counts", "time", "time_ms"} & set(variables)):
        if {"spike_times", "spike_clusters"} & set(variables):
            raise UserError(
                f"{path}: has columns {_listing(columns)}; expected a column of times and one of units, variables.spike_clusters=..."
            )
        return _rates_of_table(path, columns, options)
    where = f"{path}: {times}"
    values, notes = time_units.spike_seconds(where, _numbers(path, columns, times), options, rate, time_units.split_name(times)[1])
    table_labels.check_units(path, columns, labels, "spike_clusters" in variables)
    placed = None
    if trial:
        placed, said = _placed(path, columns, values, times, labels, trial, options)
        values, trials, notes = placed.spike_times, placed.trials, (*notes, *said, *placed.notes)
    else:
        trials, note = table_files.require_trials(path, options.trials_table)
        notes = (*notes, note)
    values, index, ids = spike_grouping.group_by_unit(path, values, table_labels.joined(columns, labels))
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
        warnings=() if placed is None else placed.warnings,
    )


def _without_lists(path: Path, columns: Mapping[str, np.ndarray], variables: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Columns without those of lists, such as waveforms of spikes; raises UserError if the others are no times and units of spikes."""
    lists = [name for name, values in columns.items() if table_files.has_lists(values)]
    others = {name: values for name, values in columns.items() if name not in lists}
    named = [each for each in lists if each in variables.values()]
    if lists and (named or not all(_column(path, others, {}, "", usual) for usual in (TIME_COLUMNS, UNIT_COLUMNS))):
        shown = (named or lists)[0]
        raise UserError(
            f"{path}: column {shown} has lists; expected a number in each cell: one row for each spike, as table.explode('{shown}') of"
            " pandas makes, with a column unit, or one row for each bin."
        )
    return others


def _placed(
    path: Path, columns: Mapping[str, np.ndarray], values: np.ndarray, times: str, labels: Labels, trial: Labels, options: Options
) -> tuple[PlacedTrials, tuple[str, ...]]:
    """(spikes of single trials on one clock, notes) of a table of spikes, with its table of trials if there is one.

    Args:
      path: of the table.
      columns: of the table.
      values: [spikes] s.
      times: column of the times.
      labels: columns with the unit.
      trial: columns with the trial.
      options: settings of the import.
    """
    found = table_files.trials_table(path, options.trials_table)
    more = {name: each for name, each in columns.items() if name not in (times, *labels)}
    names, notes = table_labels.trial_columns(
        path, columns, labels, trial, "spike_trials" in (options.variables or {}), (times, *value_tables.named_values(columns))
    )
    if "spike_clusters" not in (options.variables or {}):
        table_labels.check_sessions(path, columns, labels, names, (times,))
    where = f"{path}: {names.shown}"
    if found is None:
        return trials_of_spikes(where, values, table_labels.joined(columns, names), None, more), notes
    own, table = table_labels.trials_of_table(path, columns, names, (times, *labels), found[0])
    more = {name: each for name, each in more.items() if name not in names}
    placed = trials_of_spikes(where, values, own, table, more)
    return placed._replace(trials={**placed.trials, **found[0]}), notes


def _tidy_table(
    path: Path, columns: Mapping[str, np.ndarray], labels: Labels, trial: Labels | None, options: Options, sample_rate: float | None
) -> Session | PrecomputedRates | None:
    """Contents of a table with one row for each trial or condition, bin and unit; None if its rows are spikes."""
    variables = options.variables or {}
    time = _column(path, columns, variables, "time", (*TIME_COLUMNS, *CENTRE_COLUMNS)) or _column(
        path, columns, variables, "time_ms", BIN_COLUMNS
    )
    condition = _column(path, columns, variables, "condition", CONDITION_COLUMNS)
    if time is None:
        return None
    lead = [] if trial is None else list(trial)
    lead += [condition] if condition is not None and condition not in lead else []
    value = value_tables.find_values(path, columns, variables, labels, (*lead, time), _second(columns, time, options, sample_rate))
    if value is None:
        return None
    table_labels.check_units(path, columns, labels, "spike_clusters" in variables)
    numbers = {name: _numbers(path, columns, name) for name in (time, value.name)}
    if trial is not None:
        lead += table_labels.trial_columns(path, columns, labels, trial, "spike_trials" in variables, numbers)[0]
    keys = (*dict.fromkeys(lead), time)
    return _rates_of_table(path, value_tables.widened(path, {**columns, **numbers}, keys, labels, value), options, (value.kind, time))


def _second(columns: Mapping[str, np.ndarray], time: str, options: Options, sample_rate: float | None) -> float:
    """Unit of a column of times in s, as far as the user or its name says it; whole numbers are likely ms. Infinite: numbers of bins."""
    if time.lower() in BIN_COLUMNS:
        return math.inf
    unit = time_units.unit_of_spikes(options) or time_units.chosen_unit(options, "bins") or time_units.split_name(time)[1]
    if unit == "samples":
        return 1 / sample_rate if sample_rate else 0.0
    return time_units.SECONDS[unit or ("ms" if table_files.integers_if_whole(columns[time]).dtype.kind == "i" else "s")]


def _numbers(path: Path, columns: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Column of numbers, of any type of them; raises UserError for a text that is not a number."""
    column = columns[name]
    return query.require_numbers(column, f"{path}: {name}") if column.dtype.kind in "OM" else column


def _labels(path: Path, columns: Mapping[str, np.ndarray], variables: Mapping[str, str], what: str, usual: Sequence[str]) -> Labels | None:
    """Columns that together are the label of a unit or a trial, which the user names, such as channel,unit, or that have usual names."""
    if what in variables and (given := table_labels.given_labels(variables[what], columns)):
        return given
    found = _column(path, columns, variables, what, usual)
    return None if found is None else Labels([found])


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


def _rates_of_table(
    path: Path, columns: Mapping[str, np.ndarray], options: Options, tidy: tuple[str, str] | None = None
) -> Session | PrecomputedRates:
    """Precomputed rates, or a session of counted trials, from a table with one row for each bin and perhaps condition or trial.

    `tidy` is (rate, current or counts; column of the times) of a table that was tidy.
    """
    variables = options.variables or {}
    kind = "current" if "current" in variables or path.stem.lower().startswith("utarg") else "counts" if "counts" in variables else "rate"
    lower = {name.lower(): name for name in columns}
    if table_files.TRIAL_TIME_NAMES.keys() <= lower.keys():
        raise UserError(f"{path}: is a table of trials; expected a source of spikes with trials_table={path}.")
    if tidy is not None:
        kind = tidy[0]
    units = {
        name: _numbers(path, columns, name) if values.dtype.kind == "M" else table_files.as_numbers(values)
        for name, values in columns.items()
    }
    if "" in units and np.array_equal(units[""], np.arange(len(units[""]))):
        units.pop("")  # row numbers that pandas writes
    given = {what: _given_column(path, columns, variables, what) for what in ("time", "time_ms")}
    time = tidy[1] if tidy else given["time"] or given["time_ms"] or _column(path, units, {}, "time", BIN_TIME_COLUMNS)
    condition = _column(path, columns, variables, "condition", CONDITION_COLUMNS)
    where, of_bins = f"{path}: {time or 'the column without a name'}", None if time is None else units.pop(time)
    trial = _labels(path, columns, variables, "spike_trials", TRIAL_COLUMNS)
    if trial is not None:
        others = [name for name in columns if name not in units or not table_labels.is_one_of(name, table_labels.BLOCKS)]
        trial = table_labels.trial_columns(path, columns, Labels(), trial, "spike_trials" in variables, others)[0]
    labels = {name: columns[name] for name in (*(trial or ()), *([] if condition is None else [condition]))}
    units = {name: values for name, values in units.items() if name not in labels}
    if not tidy and (no_units := [name for name in units if table_labels.is_one_of(name, table_labels.BLOCKS + table_labels.SESSIONS)]):
        raise UserError(
            f"{path}: {no_units[0]} is no unit; expected variables.condition={no_units[0]}, or a column trial for single trials."
        )
    what = "trial" if trial else "condition" if condition else "table"
    own = table_labels.joined(labels, trial or Labels(labels)) if labels else np.zeros(len(next(iter(columns.values()))), np.int64)
    notes: tuple[str, ...] = ()
    group = codes(own)
    if not tidy:
        no_units = _no_units(path, units, group, what, of_bins, options)
        labels |= {name: columns[name] for name in no_units if trial is not None and not varies_within(columns[name], group).any()}
        units = {name: values for name, values in units.items() if name not in no_units}
        notes = (f"no units: {', '.join(no_units)}",) if no_units else ()
    texts = [name for name, values in units.items() if values.dtype.kind not in "fiu"]
    if not options.axes and not tidy and not {"rate", "current", "counts"} & set(variables):
        _check_not_spikes(path, units if time is None or of_bins is None else {time: of_bins, **units}, time, group)
    if texts or not units:
        problem = f"column {texts[0]!r} contains texts ({units[texts[0]][0]!r})" if texts else "has no columns of units"
        raise UserError(f"{path}: {problem}; expected rates in Hz, one column for each unit, or spikes with columns time and unit.")
    matrix = np.column_stack(list(units.values())) if len(next(iter(units.values()))) else np.zeros((0, len(units)))
    values, first, rows = value_tables.split_rows(path, matrix, own, of_bins, what)
    if time is not None and time.lower() in BIN_COLUMNS and first is not None and np.all(np.diff(first) == 1):
        first = None  # numbers of bins
    axes, note = _table_axes(path, values if labels else values[0], options, what)
    if time is None and not options.axes and all(name.isdecimal() for name in units):
        check_more_bins_than_units(f"{path}: the table", values.shape[1:], axes[-2:], True)
    rates = to_standard_axes(values if labels else values[0], axes)
    check_values(path, "the table", kind, rates)
    counts = are_counts(f"{path}: the table", kind, rates, options)
    if counts and trial is None:
        check_said(f"{path}: the table", kind, options)
    names_of_file = ArrayNames(path, {}, variables)
    bin_ms = names_of_file.positive_number("bin_ms")
    bins = BinTimes()
    if first is not None:
        unit = "ms" if given["time_ms"] else time_units.split_name(str(time))[1]
        rate, named = names_of_file.positive_number("sample_rate"), bool(given["time"] or given["time_ms"])
        bins = bin_times(where, first, unit, named, rate, options, bin_ms, counts)
        if bins.time is None:
            raise UserError(f"{where}: expected centres of bins in s, ascending in equal steps.")
    ids = {"id": np.array(list(units), object)} if axes[-1] == "unit" else {}
    binned = BinnedValues(path, rates, kind, bins.time, bin_ms or bins.length, ids, (note, *notes))
    if trial is not None:
        trials = _trials_of_rows(path, {name: values[rows] for name, values in labels.items()}, trial, condition, options)
        return bins.warn(counted_trials(binned, trials, options)) if counts else bins.warn(averaged_trials(binned, trials))
    names = None if condition is None else tuple(str(each) for each in columns[condition][rows])
    found = precomputed(binned, names, counts, options)
    return bins.warn(dataclasses.replace(found, warnings=(*found.warnings, *_doubtful_header(path, units, rates))))


def _trials_of_rows(
    path: Path, labels: dict[str, np.ndarray], trial: Labels, condition: str | None, options: Options
) -> dict[str, np.ndarray]:
    """Columns [trials] of a table of values, with those of the table of trials if there is one.

    Args:
      path: of the table.
      labels: columns [trials] of the table with values.
      trial: columns with the trial.
      condition: column with the condition, or None.
      options: settings of the import.
    """
    size = len(labels[trial[0]])
    own = labels | {"trial": labels[trial[-1]]} | ({} if condition is None else {"condition": labels[condition]})
    if (found := table_files.trials_table(path, options.trials_table)) is None:
        return own
    label, table = table_labels.trials_of_table(path, labels, trial, (), found[0])
    row, _ = trial_numbers(f"{path}: {trial.shown}", label, table)
    table_files.check_lengths(path, {"the trials": np.arange(size), "the rows of the table of trials": np.unique(row)})
    return own | {name: values[row] for name, values in found[0].items()}


def _doubtful_header(path: Path, units: Mapping[str, np.ndarray], rates: np.ndarray) -> tuple[str, ...]:
    """Warning about a text file of whole numbers whose header may be a row of them; raises UserError if that is likely."""
    if path.suffix.lower() not in (".csv", ".tsv") or not all(name.isdecimal() for name in units):
        return ()
    header = [int(name) for name in units]
    if np.any(rates != np.floor(rates)) or max(header) > 2 * np.nanmax(rates) + 1:
        return ()
    shown = ", ".join(units) if len(header) <= 6 else ", ".join([*list(units)[:5], "..."])
    what = f"the first line, {shown}, is taken as the names of units, and not as a bin"
    if sorted(header) != header:
        raise UserError(f"{path}: {what}; expected a first line of other names, such as {', '.join(f'n{k}' for k in range(1, 4))}, ...")
    return (f"{what}; a first line with other names, such as n1, says so",)


def _no_units(
    path: Path, columns: Mapping[str, np.ndarray], group: np.ndarray, what: str, time: np.ndarray | None, options: Options
) -> list[str]:
    """Columns of a table with a column for each unit that are no units: of trials, numbers of trials, and times beside those of bins.

    Args:
      path: of the table.
      columns: that may be units.
      group: [rows] number of the trial or condition of a row.
      what: trial, condition or table.
      time: [rows] times of bins, or None.
      options: settings of the import; with `axes`, all columns of numbers are units.

    Raises:
      UserError: a column other than 0 that is constant in each condition.
    """
    numbers = {name: values for name, values in columns.items() if values.dtype.kind in "fiu"}
    steady = [
        name
        for name, values in columns.items()
        if len(group) - int(group.max(initial=0)) > LONG_COLUMN
        and not varies_within(values, group).any()
        and (name not in numbers or (np.nan_to_num(values) != 0).any())
    ]
    if options.axes:
        return [name for name in steady if name not in numbers and what == "trial"]
    found: list[str] = []
    if time is not None and time.dtype.kind in "fiu":
        order = np.lexsort((time, group))
        found = [name for name in numbers if _is_name_of_times(name) and _ascends_in_each(numbers[name][order], group[order])]
    found += [name for name in numbers if name.lower() in NUMBERS_OF_TRIALS or (name.lower() == "n" and name in steady)]
    if what == "trial":
        found += [name for name in steady if name not in found]
    elif what == "condition" and numbers.keys() - {*steady, *found}:
        for name in steady:
            if name in numbers and name not in found:
                raise UserError(
                    f"{path}: {name} is the same in all bins of a condition, as rates are not; expected the table without it, or"
                    " axes=[time,unit] if it is a rate."
                )
    return found


def _is_name_of_times(name: str) -> bool:
    """Whether a column has a usual name of times of bins, perhaps followed by a unit of time."""
    stem, unit = time_units.split_name(name)
    return name.lower() in BIN_TIME_COLUMNS or (unit is not None and stem.lower() in BIN_TIME_COLUMNS)


def _steps_in_each(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Steps of a column from row to row of each trial or condition; `group` [rows] is its number."""
    change = np.diff(group)
    if (change < 0).any():
        order = np.argsort(group, kind="stable")
        values, change = values[order], np.diff(group[order])
    return np.diff(values)[change == 0]


def _ascends_in_each(values: np.ndarray, group: np.ndarray) -> bool:
    """Whether a column ascends with the rows of each trial or condition, of at least LONG_COLUMN rows together."""
    steps = _steps_in_each(values, group)
    return len(steps) >= LONG_COLUMN - 1 and bool((steps > 0).all())


def _check_not_spikes(path: Path, columns: Mapping[str, np.ndarray], time: str | None, group: np.ndarray) -> None:
    """Raises UserError if a table of rates without recognized names looks like times of spikes and their units, or has times of bins.

    Args:
      path: of the table.
      columns: of the table without its conditions.
      time: column that is taken as times of bins, or None.
      group: [rows] number of the trial or condition of a row.
    """
    regular = [name for name, values in columns.items() if values.dtype.kind in "fiu" and _in_equal_steps(values, group)]
    found = spike_grouping.find_spikes(columns, () if time is None else (time,), regular)
    if found is not None:
        raise UserError(
            f"{path}: {found[0]} and {found[1]} look like times and units of spikes; expected variables.spike_times={found[0]}"
            f" variables.spike_clusters={found[1]}, or axes=[time,unit] if the columns are rates of units."
        )
    numbers = [values for values in columns.values() if values.dtype.kind in "fiu"]
    if time is None and numbers and spike_grouping.padded_trains(np.column_stack(numbers), 0, spike_grouping.LOOKED_AT) is not None:
        raise UserError(
            f"{path}: all columns ascend, as spike times of a unit in each do and rates do not; expected spikes with columns time and unit,"
            " or axes=[time,unit] if the columns are rates of units."
        )
    for name, values in columns.items():
        if values.dtype.kind not in "fiu":
            continue
        if name == time or not _ascends_in_each(values, group):
            continue
        if (np.diff(values) > 0).all() or name in regular or len(np.unique(values)) <= np.bincount(group).max():
            rows = "each trial or condition" if group.any() else f"all {len(values):,} rows"
            raise UserError(
                f"{path}: {name} ascends in {rows}, as times do and rates do not; expected variables.time={name} for"
                " times of bins, or axes=[time,unit] if it is a rate."
            )


def _in_equal_steps(values: np.ndarray, group: np.ndarray) -> bool:
    """Whether a column changes by the same with each row of each trial or condition."""
    steps = _steps_in_each(values, group)
    return len(steps) > 0 and bool(np.abs(steps - steps.mean()).max() <= 0.01 * np.abs(steps.mean()))


def _table_axes(path: Path, values: np.ndarray, options: Options, leading: str) -> tuple[tuple[str, ...], str]:
    """(axes, note) of a table: rows are bins, or units if the user says so; `leading` is the first of three axes."""
    axes = tuple(options.axes or ("time", "unit"))[-2:]
    if sorted(axes) != ["time", "unit"] or (axes[0] == "unit" and values.ndim == 3):
        raise UserError(
            f"{path}: axes={list(options.axes or ())}; expected [time, unit] or [unit, time] for the rows and columns of a table."
        )
    sizes = ", ".join(f"{axis} {size:,}" for axis, size in zip(axes, values.shape[-2:], strict=True))
    return (*((leading,) if values.ndim == 3 else ()), *axes), f"axes of the table: {sizes}"
