"""Matrices of rates, currents or spike counts in bins, with their axes reordered to [condition or trial, time, unit]."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from rlsnet.data import time_units, trial_average
from rlsnet.data.formats.array_names import ArrayNames, group_columns
from rlsnet.data.formats.named_vectors import stated_units
from rlsnet.data.formats.single_trials import BinnedValues, averaged_trials, counted_trials, optional_trials, precomputed, trials_of_file
from rlsnet.data.formats.spike_grouping import LOOKED_AT, find_spikes, is_regular, padded_trains
from rlsnet.data.formats.table_labels import is_one_of, letters
from rlsnet.data.import_options import Options
from rlsnet.data.session import PrecomputedRates, Session
from rlsnet.errors import UserError

Contents = TypeVar("Contents", Session, PrecomputedRates)
AXES = ("condition", "time", "unit")
NAMES_OF_AXES = {  # axis, and names of it in files, in lower case and letters only, without the ending s, id, number, ...
    "condition": ("condition", "cond", "stimulus", "stim"),
    "trial": ("trial", "repeat", "repetition", "rep", "sweep"),
    "time": ("time", "t", "bin", "timebin", "bintime", "timestep", "timepoint", "frame"),
    "unit": ("unit", "neuron", "cell", "cluster", "channel", "roi"),
}
UNNAMED = ("", "dim", "phonydim", "axis", "x", "y", "z")  # of names that programs give axes without a name, such as dim_0
LONGEST_BIN_MS = 1000.0  # from this length on, bins show that times are not in s: 1 s is mostly 1 ms
LONG_BIN_MS, LONG_TRIAL_S = 100.0, 60.0  # bins and trials beyond these may be in ms
SHARE_OF_BIN = 0.05  # by which bins of a length of few digits may differ from the times in the file, whose rounding may add up
SHARE_OF_ODD_BIN = 1e-3  # the same for a length such as 16.6667 ms
BOUNDED = {"rate": "at least 0 Hz", "counts": "at least 0 spikes"}  # kinds of values that are not negative, and what is right


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
    dims = () if options.axes else named_axes(where, found.dims)
    leading, note = _leading_axis(where, found.shape, dims, axis_values["condition"], counts, options, usual)
    known = {axis: len(values) for axis, values in axis_values.items() if values is not None}
    if leading == "trial" and "condition" in known:
        known["trial"] = known.pop("condition")
    usual = tuple(leading if axis == "condition" else axis for axis in usual)
    axes, axes_note = choose_axes(where, found.shape, known, options.axes or dims, usual)
    warnings: tuple[str, ...] = ()
    if not (options.axes or dims or defined or {"unit", "time"} & known.keys()):
        if "time" not in known:
            _check_no_trains(where, path, stored)
        warnings = check_more_bins_than_units(where, found.shape, axes, counts)
    if note and not {"unit", "trial"} & known.keys() and optional_trials(names, options) is None:
        warnings += (f"{where}: nothing says which axis is which: {axes_note}; axes=[unit,time,trial] gives another order",)
    values = to_standard_axes(stored, axes)
    check_values(names.path, path, kind, values)
    if not (options.axes or dims or defined or "time" in known) and len(values) == 1:
        _check_no_times(where, values[0])
    units = _units(names, axis_values["unit"], values.shape[2])
    bin_ms = names.positive_number("bin_ms") or bin_ms
    bins = _bins_of_file(names, along["time"], options, bin_ms, counts)
    bins = bins._replace(warnings=(*warnings, *bins.warnings))
    binned = BinnedValues(names.path, values, kind, bins.time, bin_ms or bins.length, units, (*note, axes_note))
    labels = axis_values["condition"]
    if leading == "trial" and "trial" in axes:
        trials = trials_of_file(names, options, len(values), labels)
        if not counts:
            return bins.warn(averaged_trials(binned, trials))
        stated = stated_units(names) if options.trials_table is None else {}
        session = dataclasses.replace(
            counted_trials(binned, trials, options), stated=stated, sample_rate=names.positive_number("sample_rate")
        )
        return bins.warn(session)
    if counts:
        check_said(where, kind, options)
    texts = tuple(str(each) for each in labels) if labels is not None and "condition" in axes else None
    return bins.warn(precomputed(binned, texts, counts, options))


def _check_no_trains(where: str, path: str, values: np.ndarray) -> None:
    """Raises UserError if all vectors along an axis of a matrix are sorted, as spike times of units are and rates are not."""
    for axis in range(values.ndim):
        if padded_trains(values, axis, LOOKED_AT) is not None:
            words = {0: "columns", values.ndim - 1: "rows"}.get(axis, f"vectors along axis {axis}")
            ways = (
                f"variables.spike_times={path} for the spikes of one unit in each, or "
                if values.ndim == 2
                else "spike_times with the unit and the trial of each spike, spike_clusters and spike_trials, or "
            )
            raise UserError(
                f"{where} has sorted {words}, as spike times are and rates are not; expected {ways}axes=[...] if they are rates of units."
            )


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


def named_axes(where: str, dims: Sequence[str]) -> tuple[str, ...]:
    """Axes condition or trial, time, unit from their names in the file, such as time_bin or neurons; () if it has none.

    Raises:
      UserError: names that do not say which axis is which.
    """
    stems = [letters(time_units.split_name(each)[0]) for each in dims]
    if all(each in UNNAMED for each in stems):
        return ()
    axes = tuple(next((axis for axis, names in NAMES_OF_AXES.items() if is_one_of(each, names)), each) for each in stems)
    if len(set(axes)) < len(axes) or not {"time", "unit"} <= set(axes) <= NAMES_OF_AXES.keys() or {"trial", "condition"} <= set(axes):
        third = ", trial or condition" if len(axes) > 2 else ""
        raise UserError(f"{where} has the axes {', '.join(dims)}; expected axes=[...] that says which of them is time, unit{third}.")
    return axes


def _leading_axis(
    where: str,
    shape: Sequence[int],
    dims: Sequence[str],
    labels: np.ndarray | None,
    counts: bool,
    options: Options,
    usual: Sequence[str],
) -> tuple[str, tuple[str, ...]]:
    """("trial" or "condition", the third axis of a matrix beside time and unit; notes)."""
    if options.axes or len(shape) == 2 or dims:
        return ("trial" if "trial" in (options.axes or dims) else "condition"), ()
    if labels is not None and len(set(labels.tolist())) < len(labels):  # the condition of each trial
        return "trial", ()
    if not counts or labels is not None:
        return "condition", ()
    if usual[0] != "condition":
        raise UserError(
            f"{where} has shape {list(shape)} and spike counts; expected the order of its axes, such as axes=[trial,time,unit]"
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


class BinTimes(NamedTuple):
    """Times of bins in a file.

    time: [M] s, centres; None: the file has none.
    length: of a bin, ms; None: unknown.
    warnings: about their unit.
    """

    time: np.ndarray | None = None
    length: float | None = None
    warnings: tuple[str, ...] = ()

    def warn(self, found: Contents) -> Contents:
        """Contents of a file with these warnings too."""
        return dataclasses.replace(found, warnings=(*found.warnings, *self.warnings))


def _bins_of_file(
    names: ArrayNames, found: tuple[str, np.ndarray] | None, options: Options, bin_ms: float | None, counts: bool
) -> BinTimes:
    """Times of bins from (quantity, values) in a file; other arguments as of `bin_times`."""
    if found is None:
        return BinTimes()
    quantity, values = found
    path = str(names.find(quantity, groups=False))
    stated = "ms" if quantity == "time_ms" else names.arrays[path].unit or time_units.split_name(path)[1]
    rate = names.positive_number("sample_rate")
    return bin_times(f"{names.path}: {path}", values, stated, quantity in names.variables, rate, options, bin_ms, counts)


def bin_times(
    where: str,
    values: np.ndarray,
    stated: str | None,
    named: bool,
    sample_rate: float | None,
    options: Options,
    bin_ms: float | None = None,
    counts: bool = False,
) -> BinTimes:
    """Centres and length of bins from their times as stored; none if they are no bins and the user gives `bin` instead.

    Without a unit, they are in that in which their steps are the length of a bin that the file or the user gives, else in s.

    Args:
      where: the file and the array or column, for messages.
      values: [M] times of bins as stored.
      stated: their unit, if the file or the user says it with the name: s, ms, us or samples.
      named: whether the user has named them.
      sample_rate: Hz, or None.
      options: settings of the import; `bin` and `time_unit` are used.
      bin_ms: length of a bin that the file has elsewhere, or the user as variables.bin_ms; None: unknown.
      counts: whether the values are spike counts, which `bin` may add up.

    Raises:
      UserError: steps that differ, or are not `bin_ms`, or bins of 1 s or more in a unit that nothing says.
    """
    unit = (stated if named else None) or time_units.chosen_unit(options, "bins") or stated
    numbers = values.astype(np.float64) if values.dtype.kind in "fiu" else np.full(len(values), np.nan)
    known_ms = bin_ms or (None if counts else options.bin)
    steps = np.diff(numbers)
    if unit is None and known_ms is not None and len(steps):
        fitting = (each for each, seconds in time_units.SECONDS.items() if abs(steps.mean() * seconds * 1000 / known_ms - 1) < SHARE_OF_BIN)
        unit = next(fitting, None)
    scale = time_units.seconds_per_unit(unit or "s", sample_rate, where, "bins")
    time = numbers * scale
    if len(time) < 2:
        return BinTimes(time if np.isfinite(time).all() else None)
    if not is_regular(time):
        if options.bin is None or named:
            raise UserError(f"{where}: expected centres of bins in s, ascending in equal steps.")
        return BinTimes(warnings=(f"{where} does not ascend in equal steps, and is not used; bin={options.bin:g} is",))
    stored_as = values if values.dtype.kind == "f" else numbers
    time, length = _without_rounding(time, scale * float(np.spacing(np.abs(stored_as).max())), known_ms)
    if bin_ms is not None and not trial_average.same_length(bin_ms, length):
        raise UserError(
            f"{where}: bins are {length:g} ms apart, and bin_ms is {bin_ms:g}; expected equal lengths, or variables.bin_ms={length:g}."
        )
    if length >= LONGEST_BIN_MS and unit is None:
        numbered = ", or the name bin of a column of their numbers" if options.bin is not None and np.all(steps == 1) else ""
        raise UserError(
            f"{where}: steps of {steps.mean():g} would be bins of {length:,g} ms, if they were in s; expected"
            f" time_unit.bins=ms, or time_unit.bins=s if that is so{numbered}."
        )
    if unit is None and length >= LONG_BIN_MS and length * len(time) > LONG_TRIAL_S * 1000:
        lasts = f"{len(time):,} bins of {length:g} ms, {length * len(time) / 1000:g} s, if their times are in s"
        return BinTimes(time, length, (f"{lasts}; time_unit.bins=ms if they are in ms",))
    return BinTimes(time, length)


def _without_rounding(time: np.ndarray, precision: float, known_ms: float | None) -> tuple[np.ndarray, float]:
    """([M] s centres of regular bins, length of a bin in ms): `known_ms`, or few digits, if the times and their `precision` (s) allow."""
    n_steps = len(time) - 1
    step = float(time[-1] - time[0]) / n_steps
    noise = max(float(np.abs(np.diff(time) - step).max()), precision)
    length = known_ms if known_ms is not None and abs(known_ms - 1000 * step) <= 1000 * noise else round(1000 * step, 2)
    if abs(length - 1000 * step) > 1000 * min(noise, SHARE_OF_BIN * step / n_steps) and length != known_ms:
        length = _fewest_digits(1000 * step, max(1000 * min(noise, SHARE_OF_ODD_BIN * step / n_steps), 5e-7))
    exact = _fewest_digits(float(time[0]), min(noise, SHARE_OF_BIN * step)) + length / 1000 * np.arange(n_steps + 1)
    rounded = noise > 1e-9 and np.abs(exact - time).max() <= SHARE_OF_BIN * step
    return np.round(exact if rounded else time, 12), length


def _fewest_digits(value: float, within: float) -> float:
    """Number with the fewest decimal places that is as close to a value as `within`."""
    return next((each for places in range(13) if abs((each := round(value, places)) - value) <= within), value)


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
