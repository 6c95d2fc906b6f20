"""Matrices of rates or currents averaged before the import, with their axes reordered to [condition, time, unit]."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rlsnet.data.formats.array_names import ArrayNames, group_columns
from rlsnet.data.session import PrecomputedRates
from rlsnet.errors import UserError

AXES = ("condition", "time", "unit")


def from_matrix(
    names: ArrayNames, kind: str, path: str, order: Sequence[str], usual: Sequence[str], bin_ms: float | None
) -> PrecomputedRates:
    """Precomputed rates or currents from one array of a file.

    Args:
      names: arrays of the file.
      kind: rate or current.
      path: of the array in the file.
      order: of its axes, as the user gives it; empty: that of the file, or else the usual order that fits.
      usual: the usual order of three axes; of two, without the condition.
      bin_ms: length of a bin, if the file has it elsewhere than in arrays `bin_ms`, `time` or `time_ms`.

    Raises:
      UserError: not a matrix, axes that do not fit, or values that are not rates.
    """
    found = names.arrays.get(path)
    if found is None or found.kind != "f" or len(found.shape) not in (2, 3):
        shape = "is a group" if found is None else f"has shape {list(found.shape)}"
        raise UserError(f"{names.path}: {path} {shape}; expected numbers [time, unit] or [condition, time, unit].")
    axis_values = {axis: _axis_values(names, axis, found.shape) for axis in AXES}
    known = {axis: len(values) for axis, values in axis_values.items() if values is not None}
    dims = found.dims if set(AXES[1:]) <= set(found.dims) <= set(AXES) else ()
    axes, note = choose_axes(f"{names.path}: {path}", found.shape, known, order or dims, usual)
    values = to_standard_axes(np.asarray(found.load()), axes)
    check_values(names.path, path, kind, values)
    units = _units(names, axis_values["unit"], values.shape[2])
    bin_length = names.positive_number("bin_ms") or _bin_length(names, axis_values["time"]) or bin_ms
    conditions = axis_values["condition"]
    texts = tuple(str(each) for each in conditions) if conditions is not None and "condition" in axes else None
    return PrecomputedRates(names.path.stem, names.path, values, kind, bin_length, texts, units, (note, *spike_count_note(kind, values)))


def _axis_values(names: ArrayNames, axis: str, shape: Sequence[int]) -> np.ndarray | None:
    """Values along an axis, or None; a vector that fits no axis belongs to another array, unless the user has named it."""
    for quantity in ("time", "time_ms") if axis == "time" else (axis,):
        values = names.column(quantity)
        if values is not None and (len(values) in shape or quantity in names.variables):
            return values
    return None


def _units(names: ArrayNames, ids: np.ndarray | None, size: int) -> dict[str, np.ndarray]:
    """Columns of units in the file that are as long as the unit axis of the matrix."""
    group = names.find("units", arrays=False)
    columns = group_columns(f"{names.path}: {group}", names.members(group)) if group is not None else {}
    columns = {name: values for name, values in columns.items() if values.shape == (size,)}
    return columns | ({"id": ids} if ids is not None and len(ids) == size else {})


def _bin_length(names: ArrayNames, time: np.ndarray | None) -> float | None:
    """Length of a bin in ms from the times of bins, or None."""
    scale = 1.0 if names.column("time") is None else 1000.0
    return None if time is None else bin_length_ms(f"{names.path}: time", time, scale)


def bin_length_ms(where: str, time: np.ndarray, scale: float = 1000.0) -> float | None:
    """Length of a bin in ms from the times of bins, which `scale` converts to ms; raises UserError if steps differ."""
    if len(time) < 2:
        return None
    steps = np.diff(time.astype(np.float64)) if time.dtype.kind in "fiu" else np.array([np.nan])
    mean = float(steps.mean())
    if not mean > 0 or np.abs(steps - mean).max() > 0.01 * mean:
        raise UserError(f"{where}: expected centres of bins in s, ascending in equal steps.")
    return round(mean * scale, 6)


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
    if given and (sorted(given) not in (sorted(AXES), sorted(AXES[1:])) or len(given) != len(shape)):
        raise UserError(f"{where} has shape {list(shape)}, axes={list(given)}; expected each axis once: {', '.join(AXES[-len(shape) :])}.")
    first = given or tuple(axis for axis in usual if len(shape) == 3 or axis != "condition")
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
    """Matrix [condition, time, unit] of float32 or float64 from one with other axes; the condition may be missing."""
    values = values.transpose([list(axes).index(axis) for axis in AXES if axis in axes])
    values = values if values.ndim == 3 else values[None]
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)


def check_values(path: Path, name: str, kind: str, values: np.ndarray) -> None:
    """Raises UserError unless the values [C, M, U] are rates or currents; NaN is unknown."""
    if 0 in values.shape:
        raise UserError(f"{path}: {name} is empty, {list(values.shape)}; expected at least one condition, bin and unit.")
    for condition, block in enumerate(values):
        bad = np.isinf(block) | ((block < 0) if kind == "rate" else False)
        if bad.any():
            bin_, unit = np.argwhere(bad)[0]
            expected = "at least 0 Hz" if kind == "rate" else "a finite value"
            raise UserError(
                f"{path}: {name} is {block[bin_, unit]:g} in condition {condition}, bin {bin_}, unit {unit} ({int(bad.sum()):,} such"
                f" values in this condition); expected {expected}, or NaN where unknown."
            )
    if np.isnan(values).all():
        raise UserError(f"{path}: {name} is all NaN; expected {kind}s.")


def spike_count_note(kind: str, values: np.ndarray) -> tuple[str, ...]:
    """Note for the user if all rates are whole numbers, as spike counts are; else ()."""
    if kind != "rate" or np.any(values != np.floor(values), where=~np.isnan(values)):
        return ()
    return ("all rates are whole numbers, read as Hz; spike counts need to be divided by the bin length first",)
