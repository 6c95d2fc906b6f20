"""Matrices of rates, currents or spike counts in bins, with their axes reordered to [condition or trial, time, unit]."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rlsnet.data import time_units
from rlsnet.data.formats.array_names import ArrayNames, StoredArray, group_columns
from rlsnet.data.formats.single_trials import BinnedValues, averaged_trials, counted_trials, precomputed, trials_of_file
from rlsnet.data.formats.spike_grouping import find_spikes, is_regular
from rlsnet.data.import_options import Options
from rlsnet.data.session import PrecomputedRates, Session
from rlsnet.errors import UserError

AXES = ("condition", "time", "unit")
BOUNDED = {"rate": "at least 0 Hz", "counts": "at least 0 spikes"}  # kinds of values that are not negative, and what is right
LONGEST_BIN_MS = 1000.0  # a longer bin shows that times are not in s


def from_matrix(
    names: ArrayNames, kind: str, path: str, options: Options, usual: Sequence[str], bin_ms: float | None, defined: bool = False
) -> Session | PrecomputedRates:
    """Precomputed rates or currents from one array of a file, or a session of trials from binned spike counts.

    Args:
      names: arrays of the file.
      kind: rate, current or counts.
      path: of the array in the file.
      options: settings of the import; `axes`, `counts`, `bin` and `time_unit` are used.
      usual: the usual order of three axes; of two, without the condition.
      bin_ms: length of a bin, if the file has it elsewhere than in arrays `bin_ms`, `time` or `time_ms`.
      defined: whether the format defines the order of the axes.

    Raises:
      UserError: not a matrix, axes that do not fit, or values that are neither rates nor counts.
    """
    found, where = names.arrays.get(path), f"{names.path}: {path}"
    if found is None or found.kind != "f" or len(found.shape) not in (2, 3):
        shape = "is a group" if found is None else f"has shape {list(found.shape)}"
        raise UserError(f"{where} {shape}; expected numbers [time, unit] or [condition, time, unit].")
    stored = np.asarray(found.load())
    along = {axis: _axis_values(names, axis, found.shape) for axis in AXES}
    axis_values = {axis: None if each is None else each[1] for axis, each in along.items()}
    counts = are_counts(where, kind, stored, options)
    leading, note = _leading_axis(where, found, axis_values["condition"], counts, options, usual)
    known = {axis: len(values) for axis, values in axis_values.items() if values is not None}
    if leading == "trial" and "condition" in known:
        known["trial"] = known.pop("condition")
    dims = tuple({"trials": "trial"}.get(each, each) for each in found.dims)
    dims = dims if set(AXES[1:]) <= set(dims) <= {leading, *AXES[1:]} else ()
    usual = tuple(leading if axis == "condition" else axis for axis in usual)
    axes, axes_note = choose_axes(where, found.shape, known, options.axes or dims, usual)
    warnings: tuple[str, ...] = ()
    if not (options.axes or dims or defined or {"unit", "time"} & known.keys()):
        warnings = check_more_bins_than_units(where, found.shape, axes, counts)
    values = to_standard_axes(stored, axes)
    check_values(names.path, path, kind, values)
    if not (options.axes or dims or defined) and len(values) == 1:
        _check_no_times(where, values[0])
    units = _units(names, axis_values["unit"], values.shape[2])
    time, length = _bins_of_file(names, along["time"], options)
    binned = BinnedValues(names.path, values, kind, time, names.positive_number("bin_ms") or length or bin_ms, units, (*note, axes_note))
    labels = axis_values["condition"]
    if leading == "trial" and "trial" in axes:
        trials = trials_of_file(names, options, len(values), labels)
        return counted_trials(binned, trials, options) if counts else averaged_trials(binned, trials)
    if counts:
        check_said(where, kind, options)
    texts = tuple(str(each) for each in labels) if labels is not None and "condition" in axes else None
    return dataclasses.replace(precomputed(binned, texts, counts, options), warnings=warnings)


def _check_no_times(where: str, values: np.ndarray) -> None:
    """Raises UserError if columns of a matrix [time, unit] look like times of bins, or like times of spikes and their units."""
    columns = {str(number): values[:, number] for number in range(values.shape[1])}
    if found := find_spikes(columns):
        raise UserError(
            f"{where}: columns {found[0]} and {found[1]} look like times and units of spikes; expected an array of each, such as"
            " spike_times and spike_clusters, or axes=[time,unit] if the columns are rates of units."
        )
    if len(columns) > 1 and len(values) > 2 and is_regular(values[:, 0]):
        raise UserError(
            f"{where}: column 0 ascends in equal steps, as times of bins do and rates do not; expected the times in an array of their own,"
            " such as time, or axes=[time,unit] if the column is a rate."
        )


def _leading_axis(
    where: str, found: StoredArray, labels: np.ndarray | None, counts: bool, options: Options, usual: Sequence[str]
) -> tuple[str, tuple[str, ...]]:
    """("trial" or "condition", the third axis of a matrix beside time and unit; notes)."""
    if options.axes or len(found.shape) == 2 or set(found.dims) & {"trial", "trials", "condition"}:
        return ("trial" if {"trial", "trials"} & {*(options.axes or found.dims)} else "condition"), ()
    if labels is not None and len(set(labels.tolist())) < len(labels):  # the condition of each trial
        return "trial", ()
    if not counts or labels is not None:
        return "condition", ()
    if usual[0] != "condition":
        raise UserError(
            f"{where} has shape {list(found.shape)} and spike counts; expected the order of its axes, such as axes=[trial,time,unit]"
            " or axes=[unit,time,trial]."
        )
    return "trial", ("whole numbers, read as spike counts of single trials, axes=[trial,time,unit]; counts=false reads rates in Hz",)


def check_more_bins_than_units(where: str, shape: Sequence[int], axes: Sequence[str], counts: bool) -> tuple[str, ...]:
    """A warning about a matrix [condition, time, unit] of rates with more units than bins, if nothing says the order of its axes.

    Raises:
      UserError: the same of spike counts, or of a matrix [time, unit]; many programs write [unit, time].
    """
    n_units, n_bins = (shape[list(axes).index(axis)] for axis in ("unit", "time"))
    if n_units <= n_bins:
        return ()
    other = [{"unit": "time", "time": "unit"}.get(axis, axis) for axis in axes]
    if counts or len(shape) == 2:
        raise UserError(
            f"{where} has shape {list(shape)}, and nothing says which axis is time; expected axes=[{','.join(axes)}] for"
            f" {n_units:,} units in {n_bins:,} bins, or axes=[{','.join(other)}]."
        )
    return (
        f"nothing says which axis is time: {n_units:,} units in {n_bins:,} bins, axes=[{','.join(axes)}], are taken;"
        f" axes=[{','.join(other)}] gives the other order",
    )


def _axis_values(names: ArrayNames, axis: str, shape: Sequence[int]) -> tuple[str, np.ndarray] | None:
    """(quantity, values along an axis), or None; a vector that fits no axis belongs to another array, unless the user has named it."""
    for quantity in _time_names(names) if axis == "time" else (axis,):
        values = names.column(quantity)
        if values is not None and (len(values) in shape or quantity in names.variables):
            return quantity, values
    return None


def _time_names(names: ArrayNames) -> list[str]:
    """The quantities with times of bins, those first that the user names."""
    return sorted(("time", "time_ms"), key=lambda quantity: quantity not in names.variables)


def _units(names: ArrayNames, ids: np.ndarray | None, size: int) -> dict[str, np.ndarray]:
    """Columns of units in the file that are as long as the unit axis of the matrix."""
    group = names.find("units", arrays=False)
    columns = group_columns(names.members(group)) if group is not None else {}
    columns = {name: values for name, values in columns.items() if values.shape == (size,)}
    return columns | ({"id": ids} if ids is not None and len(ids) == size else {})


def _bins_of_file(names: ArrayNames, found: tuple[str, np.ndarray] | None, options: Options) -> tuple[np.ndarray | None, float | None]:
    """([M] s centres of the bins, length of a bin in ms) from (quantity, times of bins) in a file; None for both without these."""
    if found is None:
        return None, None
    quantity, values = found
    path = str(names.find(quantity, groups=False))
    stated = "ms" if quantity == "time_ms" else names.arrays[path].unit or time_units.split_name(path)[1]
    rate = names.positive_number("sample_rate")
    return bin_times(f"{names.path}: {path}", values, stated, quantity in names.variables, rate, options)


def bin_times(
    where: str, values: np.ndarray, stated: str | None, named: bool, sample_rate: float | None, options: Options
) -> tuple[np.ndarray | None, float | None]:
    """([M] s centres of bins, length of a bin in ms); (None, None) if they are no bins and the user gives `bin` instead.

    Args:
      where: the file and the array or column, for messages.
      values: [M] times of bins as stored.
      stated: their unit, if the file or the user says it with the name: s, ms, us or samples.
      named: whether the user has named them.
      sample_rate: Hz, or None.
      options: settings of the import; `bin` and `time_unit` are used.

    Raises:
      UserError: steps that differ, or bins of more than 1 s in a unit that nothing says.
    """
    unit = (stated if named else None) or time_units.chosen_unit(options, "bins") or stated
    numbers = values.astype(np.float64) if values.dtype.kind in "fiu" else np.full(len(values), np.nan)
    time = numbers * time_units.seconds_per_unit(unit or "s", sample_rate, where)
    if len(time) < 2:
        return time if np.isfinite(time).all() else None, None
    if not is_regular(time):
        if options.bin is not None and not named:
            return None, None
        raise UserError(f"{where}: expected centres of bins in s, ascending in equal steps.")
    length = round(float(np.diff(time).mean()) * 1000, 6)
    if length > LONGEST_BIN_MS and unit is None:
        raise UserError(
            f"{where}: steps of {float(np.diff(numbers).mean()):g} would be bins of {length:,g} ms, if they were in s; expected"
            " time_unit.bins=ms, or time_unit.bins=s if that is so."
        )
    return np.round(time, 12), length


def choose_axes(
    where: str, shape: Sequence[int], known: dict[str, int], order: Sequence[str], usual: Sequence[str]
) -> tuple[tuple[str, ...], str]:
    """Order of the axes of a matrix, from the user, the file, or the known lengths of the axes.

    Args:
      where: the array, for messages.
      shape: of the array.
      known: number of bins, units and conditions, if the file has them.
      order: axes as the user or the file gives them; empty: unknown.
      usual: the usual order of three axes.

    Returns:
      (axes, note for the user).

    Raises:
      UserError: no order fits, or several do.
    """
    given = tuple(str(axis) for axis in order)
    if given and (not {"time", "unit"} <= set(given) <= {*AXES, "trial"} or len(set(given)) != len(given) or len(given) != len(shape)):
        expected = "time, unit and condition or trial" if len(shape) == 3 else "time, unit"
        raise UserError(f"{where} has shape {list(shape)}, axes={list(given)}; expected each axis once: {expected}.")
    first = given or tuple(axis for axis in usual if len(shape) == 3 or axis in ("time", "unit"))
    fitting = [
        axes for axes in [first, *itertools.permutations(first)] if all(known.get(a, s) == s for a, s in zip(axes, shape, strict=True))
    ]
    if not fitting or (given and fitting[0] != given) or (fitting[0] != first and len(set(fitting)) > 1):
        lengths = ", ".join(f"{size} of {axis}" for axis, size in known.items())
        expected = "equal lengths" if given else f"[{', '.join(first)}], or their order in axes=[...]"
        shown = f", axes={list(given)}" if given else ""
        raise UserError(f"{where} has shape {list(shape)}{shown}, but the file has {lengths}; expected {expected}.")
    sizes = ", ".join(f"{axis} {size:,}" for axis, size in zip(fitting[0], shape, strict=True))
    return fitting[0], f"axes of the matrix: {sizes}"


def to_standard_axes(values: np.ndarray, axes: Sequence[str]) -> np.ndarray:
    """Matrix [condition or trial, time, unit] of float32 or float64 from one with other axes; the first may be missing."""
    values = values.transpose([list(axes).index(axis) for axis in ("trial", *AXES) if axis in axes])
    values = values if values.ndim == 3 else values[None]
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)


def check_values(path: Path, name: str, kind: str, values: np.ndarray) -> None:
    """Raises UserError unless the values [C, M, U] are rates, counts or currents; NaN is unknown."""
    if 0 in values.shape:
        raise UserError(f"{path}: {name} is empty, {list(values.shape)}; expected at least one condition, bin and unit.")
    for condition, block in enumerate(values):
        bad = np.isinf(block) | ((block < 0) if kind in BOUNDED else False)
        if bad.any():
            bin_, unit = np.argwhere(bad)[0]
            expected = BOUNDED.get(kind, "a finite value")
            raise UserError(
                f"{path}: {name} is {block[bin_, unit]:g} in condition {condition}, bin {bin_}, unit {unit} ({int(bad.sum()):,} such"
                f" values in this condition); expected {expected}, or NaN where unknown."
            )
    if np.isnan(values).all():
        raise UserError(f"{path}: {name} is all NaN; expected {kind}s.")


def are_counts(where: str, kind: str, values: np.ndarray, options: Options) -> bool:
    """Whether values are spike counts of bins: by `counts`, by name, or as whole numbers. Raises UserError for fractions of counts."""
    if kind == "current" or options.counts is False:
        return False
    known = ~np.isnan(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
    whole = bool(known.any()) and not np.any(values != np.floor(values), where=known)
    if options.counts or kind == "counts":
        if not whole:
            raise UserError(
                f"{where}: contains fractions; expected spike counts, which are whole numbers, or counts=false for rates in Hz."
            )
        return True
    return whole


def check_said(where: str, kind: str, options: Options) -> None:
    """Raises UserError for whole numbers, not of single trials, of which nothing says whether they are counts."""
    if kind != "counts" and not options.counts:
        raise UserError(
            f"{where}: all values are whole numbers; expected counts=true for spike counts, which are divided by the length of a bin, or"
            " counts=false for rates in Hz."
        )
