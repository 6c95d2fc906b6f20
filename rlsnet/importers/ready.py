"""Matrices of rates or currents that somebody has averaged, in any order of axes, to [condition, time, unit]."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rlsnet.config import UserError
from rlsnet.importers.named import Names, columns_of
from rlsnet.importers.session import Ready

AXES = ("condition", "time", "unit")


def of_matrix(names: Names, kind: str, path: str, order: Sequence[str], usual: Sequence[str], bin_ms: float | None) -> Ready:
    """Ready rates or currents out of one array of a file.

    Args:
      names: the file.
      kind: rate or current.
      path: of the array in it.
      order: of its axes, as the user says; empty: as the file says, or else the usual one that fits.
      usual: the usual order of three axes; of two, without the condition.
      bin_ms: length of a bin where the file says so otherwise than in arrays `bin_ms`, `time` or `time_ms`.
    """
    found = names.leaves.get(path)
    if found is None or found.kind != "f" or len(found.shape) not in (2, 3):
        shape = "a group" if found is None else f"of shape {list(found.shape)}"
        raise UserError(f"{names.path}: {path} is {shape}; expected numbers [time, unit] or [condition, time, unit].")
    labels = {axis: _labels(names, axis, found.shape) for axis in AXES}
    known = {axis: len(values) for axis, values in labels.items() if values is not None}
    dims = found.dims if set(AXES[1:]) <= set(found.dims) <= set(AXES) else ()
    axes, note = choose_axes(f"{names.path}: {path}", found.shape, known, order or dims, usual)
    values = arranged(np.asarray(found.load()), axes)
    check(names.path, path, kind, values)
    units = _units(names, labels["unit"], values.shape[2])
    length = names.number("bin_ms") or _bin(names, labels["time"]) or bin_ms
    conditions = labels["condition"]
    texts = tuple(str(each) for each in conditions) if conditions is not None and "condition" in axes else None
    return Ready(names.path.stem, names.path, values, kind, length, texts, units, (note, *counts_note(kind, values)))


def _labels(names: Names, axis: str, shape: Sequence[int]) -> np.ndarray | None:
    """What the file says of the places along an axis; one that fits no axis is not of this array, unless the user names it."""
    for what in ("time", "time_ms") if axis == "time" else (axis,):
        values = names.column(what)
        if values is not None and (len(values) in shape or what in names.given):
            return values
    return None


def _units(names: Names, ids: np.ndarray | None, size: int) -> dict[str, np.ndarray]:
    """Columns of units: those in the file that are as long as the matrix has units."""
    group = names.find("units", arrays=False)
    columns = columns_of(f"{names.path}: {group}", names.group(group)) if group is not None else {}
    columns = {name: values for name, values in columns.items() if values.shape == (size,)}
    return columns | ({"id": ids} if ids is not None and len(ids) == size else {})


def _bin(names: Names, time: np.ndarray | None) -> float | None:
    """Length of a bin, ms, out of the times of bins."""
    scale = 1.0 if names.column("time") is None else 1000.0
    return None if time is None else bin_of(f"{names.path}: time", time, scale)


def bin_of(where: str, time: np.ndarray, scale: float = 1000.0) -> float | None:
    """Length of a bin, ms, from the times of bins; raises UserError where they are not evenly spaced."""
    if len(time) < 2:
        return None
    steps = np.diff(time.astype(np.float64)) if time.dtype.kind in "fiu" else np.array([np.nan])
    mean = float(steps.mean())
    if not mean > 0 or np.abs(steps - mean).max() > 0.01 * mean:
        raise UserError(f"{where}: should ascend in equal steps, the times of bins in s.")
    return round(mean * scale, 6)


def choose_axes(
    where: str, shape: Sequence[int], known: dict[str, int], order: Sequence[str], usual: Sequence[str]
) -> tuple[tuple[str, ...], str]:
    """(axes, a note) of a matrix, from what the user or the file says, or from the lengths that are known.

    Args:
      where: the array, for messages.
      shape: of it.
      known: number of bins, units and conditions, where the file says them.
      order: axes as the user or the file says; empty: not said.
      usual: the usual order of three.
    """
    said = tuple(str(axis) for axis in order)
    if said and (sorted(said) not in (sorted(AXES), sorted(AXES[1:])) or len(said) != len(shape)):
        raise UserError(
            f"{where} has shape {list(shape)}, axes={list(said)}: should name each axis once: {', '.join(AXES[-len(shape) :])}."
        )
    first = said or tuple(axis for axis in usual if len(shape) == 3 or axis != "condition")
    fits = [axes for axes in [first, *itertools.permutations(first)] if all(known.get(a, s) == s for a, s in zip(axes, shape, strict=True))]
    if not fits or (said and fits[0] != said) or (fits[0] != first and len(set(fits)) > 1):
        lengths = ", ".join(f"{size} of {axis}" for axis, size in known.items())
        right = "should fit each other" if said else f"should fit [{', '.join(first)}], or be said: axes=[...]"
        raise UserError(f"{where} has shape {list(shape)}{f', axes={list(said)}' if said else ''}, but the file has {lengths}; {right}.")
    sizes = ", ".join(f"{axis} {size:,}" for axis, size in zip(fits[0], shape, strict=True))
    return fits[0], f"axes of the matrix: {sizes}"


def arranged(values: np.ndarray, axes: Sequence[str]) -> np.ndarray:
    """[condition, time, unit] from a matrix of such axes, of which the condition may be missing."""
    values = values.transpose([list(axes).index(axis) for axis in AXES if axis in axes])
    values = values if values.ndim == 3 else values[None]
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)


def check(path: Path, name: str, kind: str, values: np.ndarray) -> None:
    """Whether values are rates or currents; NaN is not known. Raises UserError."""
    if 0 in values.shape:
        raise UserError(f"{path}: {name} is empty, {list(values.shape)}; should hold at least one condition, bin and unit.")
    for condition, block in enumerate(values):
        bad = np.isinf(block) | ((block < 0) if kind == "rate" else False)
        if bad.any():
            bin_, unit = np.argwhere(bad)[0]
            right = "at least 0 Hz" if kind == "rate" else "finite"
            raise UserError(
                f"{path}: {name} is {block[bin_, unit]:g} in condition {condition}, bin {bin_}, unit {unit} ({int(bad.sum()):,} such in"
                f" this condition); expected {right}, or NaN where not known."
            )
    if np.isnan(values).all():
        raise UserError(f"{path}: {name} is all NaN; should hold {kind}s.")


def counts_note(kind: str, values: np.ndarray) -> tuple[str, ...]:
    """A note where rates are all whole numbers, as counts of spikes are."""
    if kind != "rate" or np.any(values != np.floor(values), where=~np.isnan(values)):
        return ()
    return ("all rates are whole numbers, taken as Hz; counts of spikes should be divided by the bin first",)
