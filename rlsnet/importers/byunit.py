"""Spikes to units one after the other, from labels or from lists; columns to the units they belong to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlsnet.config import UserError
from rlsnet.importers import tables
from rlsnet.importers.session import Table


def seconds(where: Path | str, times: np.ndarray, sample_rate: float | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """([spikes] s, notes) from times in s, or in samples: whole numbers, of a given rate.

    Args:
      where: the file, for messages.
      times: [spikes] as stored.
      sample_rate: in Hz; None: not known.
    """
    times = np.asarray(times)
    if times.dtype.kind not in "fiu":
        raise UserError(f"{where}: spike times are {times.dtype}; expected numbers, s or samples.")
    times = times.reshape(-1)
    finite = times[np.isfinite(times)] if times.dtype.kind == "f" else times
    whole = bool(finite.size) and (times.dtype.kind in "iu" or bool(np.all(finite == np.floor(finite))))
    before = int((finite < 0).sum())
    early = (f"{before:,} spikes at negative times",) if before else ()
    if not whole:
        return times.astype(np.float64), early
    if sample_rate is None:
        if finite.size < 20 and times.dtype.kind == "f":  # so few may be whole seconds by chance
            return times.astype(np.float64), early
        raise UserError(
            f"{where}: spike times are whole numbers, so samples; should come with their rate in Hz: variables.sample_rate=30000."
        )
    return times / sample_rate, (f"spike times are samples at {sample_rate:g} Hz", *early)


def group(where: Path | str, times: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spikes that come with the label of their unit, as units one after the other.

    Args:
      where: the file, for messages.
      times: [spikes] s.
      labels: [spikes] numbers or texts.

    Returns:
      (times, index, ids): as in Session, but in the file's order within a unit; `ids` [U] the labels in ascending order.
    """
    labels = tables.as_column(labels)
    if labels.shape != times.shape:
        raise UserError(f"{where}: has {times.size:,} spike times, but {labels.size:,} labels of units; expected as many.")
    if labels.dtype.kind == "f":
        if not np.all(labels == np.floor(labels)):
            raise UserError(f"{where}: labels of units are fractions or NaN; expected whole numbers or names.")
        labels = labels.astype(np.int64)
    if labels.dtype.kind == "O":
        labels = labels.astype(str)
    ids, owner = _numbered(labels)
    if len(ids) > 1000 and len(ids) > labels.size / 2:
        raise UserError(f"{where}: {labels.size:,} spikes have {len(ids):,} labels of units; expected the units that they belong to.")
    order = np.argsort(owner, kind="stable")
    counts = np.bincount(owner, minlength=len(ids))
    return times[order], np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), ids


def _numbered(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(distinct labels ascending, [spikes] the place of each among them), small numbers quickly."""
    if labels.dtype.kind in "iu" and labels.size and int(labels.min()) >= 0 and int(labels.max()) < 2**24:
        ids = np.flatnonzero(np.bincount(labels))
        small: Any = np.uint16 if len(ids) < 2**16 else np.int64  # 16 bits are sorted by radix
        place = np.zeros(int(labels.max()) + 1, small)
        place[ids] = np.arange(len(ids))
        return ids, place[labels]
    ids, owner = np.unique(labels, return_inverse=True)
    return ids, owner


def listed(where: Path | str, vectors: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(times, index) of units that come as one vector of times each, as they are stored."""
    flat = [np.asarray(vector).reshape(-1) for vector in vectors]
    for unit, vector in enumerate(flat):
        if vector.size and vector.dtype.kind not in "fiu":
            raise UserError(f"{where}: spike times of unit {unit} are {vector.dtype}; expected numbers.")
    index = np.concatenate([[0], np.cumsum([vector.size for vector in flat])]).astype(np.int64)
    used = [vector for vector in flat if vector.size]
    return (np.concatenate(used) if used else np.zeros(0)), index


def placed(index: np.ndarray, ids: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(index, ids) with the units `known` that have no spikes put in; both kinds of `ids` ascending, as `group` gives them."""
    every = np.union1d(ids, known.astype(ids.dtype if ids.dtype.kind in "iu" and len(ids) else known.dtype))
    counts = np.zeros(len(every), np.int64)
    counts[np.searchsorted(every, ids)] = np.diff(index)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), every


def aligned(columns: Table, key: np.ndarray, wanted: np.ndarray) -> dict[str, np.ndarray]:
    """The rows of a table that belong to units `wanted`, by its column `key`; unknown ones are NaN, False or ''."""
    rows = {each: row for row, each in enumerate(key.tolist())}
    if len(rows) < len(key):
        names, times = np.unique(key, return_counts=True)
        raise UserError(f"its table of units has {names[np.argmax(times)]} in {times.max()} rows; expected a row for each unit.")
    found = np.array([rows.get(each, -1) for each in wanted.tolist()], np.int64)
    out = {}
    for name, column in columns.items():
        taken = column[found] if len(column) else np.full(len(wanted), math.nan)
        if (found < 0).any():
            taken = taken.astype(np.float64) if taken.dtype.kind in "iu" else taken.copy()
            taken[found < 0] = {"f": math.nan, "b": False}.get(taken.dtype.kind, "")
        out[name] = taken
    return out
