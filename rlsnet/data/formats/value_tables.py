"""Tables with values in bins: one row for each trial, time and unit (tidy tables), or the rows of one condition or trial after another."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rlsnet.data import query
from rlsnet.data.formats.single_trials import codes, comparable, varies_within
from rlsnet.data.formats.table_labels import Labels, joined
from rlsnet.errors import UserError

VALUE_NAMES = {  # kind of values, and names of a column of them in lower case, letters only
    "counts": ("count", "counts", "spikecount", "spikecounts", "nspikes", "nspike", "numspikes", "numberofspikes", "spikenumber"),
    "rate": ("rate", "rates", "ratehz", "firingrate", "firingrates", "firingratehz", "spikerate", "fr", "hz", "psth"),
    "current": ("current", "currents"),
}
SAME_TIME = 1e-3  # of a step; times that differ by less are one bin
SHARED = 0.5  # of the trials that have a common time, if their times are relative to the trial


class ValueColumn(NamedTuple):
    """Column of a tidy table.

    name: of the column.
    kind: rate, current or counts.
    """

    name: str
    kind: str


def find_values(
    path: Path, columns: Mapping[str, np.ndarray], variables: Mapping[str, str], units: Labels, keys: Sequence[str]
) -> ValueColumn | None:
    """Column of values in bins of a table with a column of units, or None if each row is a spike.

    Args:
      path: of the table.
      columns: of the table.
      variables: names that the user gives.
      units: columns with the label of the unit.
      keys: columns with the trial, condition and time of a row.

    Raises:
      UserError: a complete grid of rows with a column of values of an unknown kind.
    """
    for kind in VALUE_NAMES:
        if variables.get(kind) in columns:
            return ValueColumn(variables[kind], kind)
    owner = codes(joined(columns, units))
    others = [name for name in columns if name not in (*units, *keys) and np.isfinite(query.as_numbers(columns[name])).any()]
    others = [name for name in others if varies_within(columns[name], owner).any()]  # else it describes the units
    for name in others:
        for kind, names in VALUE_NAMES.items():
            if re.sub("[^a-z]", "", name.lower()) in names:
                return ValueColumn(name, kind)
    sizes = [len(np.unique(comparable(columns[name]))) for name in keys] + [owner.max(initial=-1) + 1]
    if others and min(sizes) > 1 and np.prod(sizes, dtype=float) == len(owner):
        raise UserError(
            f"{path}: has a row for each {', '.join(keys)} and {units.shown}, as values in bins have and spikes do not; expected"
            f" variables.counts={others[0]} or variables.rate={others[0]}, or variables.spike_times={keys[-1]} if each row is a spike."
        )
    return None


def widened(path: Path, columns: Mapping[str, np.ndarray], keys: Sequence[str], units: Labels, value: ValueColumn) -> dict[str, np.ndarray]:
    """Columns `keys` and one column for each unit, from a tidy table; NaN where it has no row.

    Args:
      path: of the table.
      columns: of the table.
      keys: columns with the trial, condition and time of a row.
      units: columns with the label of the unit.
      value: column of values.

    Raises:
      UserError: two rows for the same bin and unit, or counts without the rows that are 0.
    """
    place = np.zeros(len(columns[value.name]), np.int64)
    for name in keys:
        code = codes(columns[name])
        place = codes(place * (int(code.max(initial=0)) + 1) + code)
    _, first, row = np.unique(place, return_index=True, return_inverse=True)
    ids, owner = np.unique(comparable(joined(columns, units)), return_inverse=True)
    cell = row * len(ids) + owner
    cells, counted = np.unique(cell, return_counts=True)
    if len(cells) < len(cell):
        at = int(np.flatnonzero(cell == cells[counted.argmax()])[0])
        shown = ", ".join(f"{name} {columns[name][at]}" for name in (*keys, *units))
        raise UserError(
            f"{path}: has {counted.max()} rows for {shown}; expected one row, or a column trial or condition that tells them apart."
        )
    values = columns[value.name].astype(np.float64)
    if value.kind == "counts" and len(cells) < len(first) * len(ids) and not (values == 0).any():
        raise UserError(
            f"{path}: has rows for {len(cells):,} of {len(first) * len(ids):,} bins and units, none with {value.name} 0; expected"
            " rows for bins without spikes too."
        )
    matrix = np.full((len(first), len(ids)), np.nan)
    matrix[row, owner] = values
    return {name: columns[name][first] for name in keys} | {str(each): matrix[:, u] for u, each in enumerate(ids)}


def split_rows(
    path: Path, matrix: np.ndarray, labels: np.ndarray, time: np.ndarray | None, what: str
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Rows of a table split by condition or trial, each in the order of its times.

    Args:
      path: of the table.
      matrix: [rows, units] values.
      labels: [rows] condition or trial of each row.
      time: [rows] time of each row, or None.
      what: condition, table (all rows have one label), or trial: trials may be of different length, with NaN where one has no row.

    Returns:
      (values [condition or trial, time, unit], times of their bins, [condition or trial] number of a row of each).

    Raises:
      UserError: conditions with different bins, two rows of one time, or trials without common times.
    """
    if not len(matrix):
        raise UserError(f"{path}: the table is empty; expected a row for each bin.")
    labels = comparable(labels)
    _, first, group = np.unique(labels, return_index=True, return_inverse=True)
    place = np.argsort(np.argsort(first))[group]  # in the order of the table
    first = np.sort(first)
    sizes, trials = np.bincount(place), what == "trial"
    if not trials and len(set(sizes.tolist())) > 1:
        lengths = ", ".join(f"{labels[row]} {size}" for row, size in zip(first, sizes, strict=True))
        raise UserError(f"{path}: conditions have different numbers of rows ({lengths}); expected equal numbers of bins.")
    if time is None or time.dtype.kind not in "fiu":
        order = np.argsort(place, kind="stable")
        bins, grid = np.concatenate([np.arange(size) for size in sizes]), None
    else:
        order = np.lexsort((time, place))
        grid, bins = _grid(path, what, time[order], place[order], labels[first])
        if not trials and len(grid) > sizes[0]:
            other = int(place[order][np.flatnonzero(bins != np.tile(bins[: sizes[0]], len(first)))[0]])
            ranges = [
                f"{labels[first[c]]} {sizes[c]} rows from {time[place == c].min():g} to {time[place == c].max():g}" for c in (0, other)
            ]
            raise UserError(f"{path}: conditions have different times ({', '.join(ranges)}); expected the same bins in each.")
        if trials and np.bincount(bins).max() < SHARED * len(first):
            raise UserError(f"{path}: trials have no common times; expected times relative to each trial, not on the clock of the session.")
    values = np.full((len(first), int(bins.max(initial=-1)) + 1, matrix.shape[1]), np.nan)
    values[place[order], bins] = matrix[order]
    return values, grid, first


def _grid(path: Path, what: str, time: np.ndarray, place: np.ndarray, names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(times of all bins, [rows] number of the bin of each row) of rows in the order of `place`, their condition or trial, and `time`."""
    steps = np.diff(time)[np.diff(place) == 0]
    if (steps <= 0).any():
        row = int(np.flatnonzero((np.diff(place) == 0) & (np.diff(time) <= 0))[0])
        who, more = ("the table", ", or a column trial or condition") if what == "table" else (f"{what} {names[place[row]]}", "")
        raise UserError(f"{path}: {who} has several rows at time {time[row]:g}; expected one row for each bin{more}.")
    order = np.argsort(time, kind="stable")
    tolerance = SAME_TIME * float(np.median(steps)) if len(steps) else 0.0
    new = np.append(True, np.diff(time[order]) > tolerance)
    bins = np.empty(len(time), np.int64)
    bins[order] = np.cumsum(new) - 1
    return time[order][new], bins
