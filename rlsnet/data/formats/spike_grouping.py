"""Spike trains unit by unit, from unit labels or from one vector for each unit; rows of a table for these units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlsnet.data.formats import table_files
from rlsnet.data.session import Table
from rlsnet.errors import UserError

BY_CHANCE = 1e-6  # values whose order has a smaller probability are sorted
LOOKED_AT = 64  # vectors of a matrix, if all of them are too many


def group_by_unit(where: Path | str, times: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spikes with unit labels, reordered so that the spikes of each unit are consecutive.

    Args:
      where: the file, for messages.
      times: [spikes] s.
      labels: [spikes] numbers or texts.

    Returns:
      (times, index, ids): spike_times and spike_index as in Session, but within each unit in the order of the file; ids [U], the
      labels in ascending order.

    Raises:
      UserError: numbers of times and labels that differ, or labels that do not identify units.
    """
    labels = table_files.as_column(labels)
    if labels.shape != times.shape:
        raise UserError(f"{where}: has {times.size:,} spike times, but {labels.size:,} unit labels; expected equal numbers.")
    if labels.dtype.kind == "f":
        if not np.all(labels == np.floor(labels)):
            raise UserError(f"{where}: unit labels are fractions or NaN; expected whole numbers or names.")
        labels = labels.astype(np.int64)
    if labels.dtype.kind == "O":
        labels = labels.astype(str)
    ids, owner = _distinct_labels(labels)
    if len(ids) > 1000 and len(ids) > labels.size / 2:
        raise UserError(f"{where}: {labels.size:,} spikes have {len(ids):,} different unit labels; expected the unit of each spike.")
    order = np.argsort(owner, kind="stable")
    counts = np.bincount(owner, minlength=len(ids))
    return times[order], np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), ids


def _distinct_labels(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(labels in ascending order without repetition, [spikes] index of each label among them); fast for small numbers."""
    if labels.dtype.kind in "iu" and labels.size and int(labels.min()) >= 0 and int(labels.max()) < 2**24:
        ids = np.flatnonzero(np.bincount(labels))
        small: Any = np.uint16 if len(ids) < 2**16 else np.int64  # NumPy sorts 16-bit numbers fastest
        place = np.zeros(int(labels.max()) + 1, small)
        place[ids] = np.arange(len(ids))
        return ids, place[labels]
    ids, owner = np.unique(labels, return_inverse=True)
    return ids, owner


def concatenate_units(where: Path | str, vectors: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(times, index) of units with one vector of spike times each; raises UserError if they are not numbers."""
    flat = [np.asarray(vector).reshape(-1) for vector in vectors]
    for unit, vector in enumerate(flat):
        if vector.size and vector.dtype.kind not in "fiu":
            raise UserError(f"{where}: spike times of unit {unit} are {vector.dtype}; expected numbers.")
    index = np.concatenate([[0], np.cumsum([vector.size for vector in flat])]).astype(np.int64)
    nonempty = [vector for vector in flat if vector.size]
    return (np.concatenate(nonempty) if nonempty else np.zeros(0)), index


def padded_trains(values: np.ndarray, axis: int, most: int | None = None) -> list[np.ndarray] | None:
    """Spike times of units in the vectors along one axis of a matrix, which NaN, zeros or -1 fill up; None if they are not sorted.

    Args:
      values: numbers; of two axes, or more.
      axis: along which the spikes of a unit follow each other.
      most: number of vectors to look at, evenly chosen; None: all.
    """
    if not values.size:
        return None
    vectors = np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])
    if most is not None and len(vectors) > most:
        vectors = vectors[np.linspace(0, len(vectors) - 1, most).astype(int)]
    trains = []
    for vector in vectors.astype(np.float64):
        found = vector[~np.isnan(vector)]
        last = np.flatnonzero((found != 0) & (found != -1))
        trains.append(found[: last[-1] + 1] if len(last) else found[:0])
    steps = np.concatenate([np.diff(train) for train in trains])
    unlikely = sum(math.lgamma(len(train) + 1) for train in trains) > -math.log(BY_CHANCE)
    return trains if unlikely and (steps >= 0).all() and np.mean(steps > 0) > 0.9 else None


def insert_silent_units(index: np.ndarray, ids: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index and ids of units together with those without spikes.

    Args:
      index: [U+1] of the units with spikes.
      ids: [U] of these units, ascending.
      known: ids of all units, in any order.

    Returns:
      (index, ids) of all units, with ascending ids.
    """
    all_ids = np.union1d(ids, known.astype(ids.dtype if ids.dtype.kind in "iu" and len(ids) else known.dtype))
    counts = np.zeros(len(all_ids), np.int64)
    counts[np.searchsorted(all_ids, ids)] = np.diff(index)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), all_ids


def rows_of_units(columns: Table, key: np.ndarray, ids: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of a table for some units; values of units without a row are NaN, False or ''.

    Args:
      columns: of the table.
      key: column with the id of the unit in each row.
      ids: [U] ids of the units.

    Raises:
      UserError: two rows have the same id.
    """
    rows = {each: row for row, each in enumerate(key.tolist())}
    if len(rows) < len(key):
        keys, counts = np.unique(key, return_counts=True)
        raise UserError(f"the table of units has {keys[np.argmax(counts)]} in {counts.max()} rows; expected one row for each unit.")
    found = np.array([rows.get(each, -1) for each in ids.tolist()], np.int64)
    out = {}
    for name, column in columns.items():
        values = column[found] if len(column) else np.full(len(ids), math.nan)
        if (found < 0).any():
            values = values.astype(np.float64) if values.dtype.kind in "iu" else values.copy()
            values[found < 0] = {"f": math.nan, "b": False}.get(values.dtype.kind, "")
        out[name] = values
    return out


def find_spikes(columns: Mapping[str, np.ndarray], no_units: Sequence[str] = (), no_times: Sequence[str] = ()) -> tuple[str, str] | None:
    """Names of two columns [rows] that look like times of spikes and their units, or None; times in equal steps are those of bins."""
    labels = {name: values for name, values in columns.items() if name not in no_units and _may_be_labels(values)}
    for name, values in columns.items():
        other = next((other for other in labels if other != name), None)
        if other is None or name in no_times or values.dtype.kind not in "fiu" or len(values) < 2:
            continue
        numbers = values.astype(np.float64)
        if _ascends(numbers, labels[other]) and not is_regular(numbers):
            return name, other
    return None


def _may_be_labels(values: np.ndarray) -> bool:
    """Whether a column may contain the units of spikes: texts or whole numbers, each in several rows."""
    if values.dtype.kind == "f" and not np.all(values == np.floor(values)):
        return False
    found = values.astype(str) if values.dtype.kind == "O" else values
    return values.dtype.kind in "fiuO" and 2 * len(np.unique(found)) <= max(len(values), 2)


def _ascends(values: np.ndarray, labels: np.ndarray) -> bool:
    """Whether values ascend with the rows, or with the rows of each label, and are not the same in all rows."""
    _, owner = np.unique(labels.astype(str) if labels.dtype.kind == "O" else labels, return_inverse=True)
    order = np.argsort(owner, kind="stable")
    within = np.diff(owner[order]) == 0
    return values.min() < values.max() and bool((np.diff(values) >= 0).all() or (np.diff(values[order])[within] >= 0).all())


def is_regular(values: np.ndarray) -> bool:
    """Whether values ascend in equal steps, as times of bins do."""
    steps = np.diff(values)
    return bool(steps.mean() > 0 and np.abs(steps - steps.mean()).max() <= 0.01 * steps.mean())
