"""Tables with values in bins: one row for each trial, time and unit (tidy tables), or the rows of one condition or trial after another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rlsnet.data import query
from rlsnet.data.formats.single_trials import codes, comparable, varies_within
from rlsnet.data.formats.table_labels import Labels, joined, letters
from rlsnet.errors import UserError

VALUE_NAMES = {  # kind of values, and names of a column of them in lower case, letters only
    "counts": ("count", "counts", "spikecount", "spikecounts", "nspikes", "nspike", "numspikes", "numberofspikes", "spikenumber"),
    "rate": ("rate", "rates", "ratehz", "firingrate", "firingrates", "firingratehz", "spikerate", "fr", "hz", "psth"),
    "current": ("current", "currents"),
}
SHORT_COUNT_NAMES = ("spikes", "spks", "nspk", "nspks")  # of whole numbers, where rows are bins
FEWEST_STEPS = 10  # between times, which show whether they lie on a grid
SPIKE_PRECISION_S = 5e-3  # steps of the grid from which on times are those of bins
ON_GRID = 0.9  # share of the steps that are multiples of one
FILLED = 0.5  # share of a grid that has rows, if its steps are smaller and it is one of bins
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
    path: Path, columns: Mapping[str, np.ndarray], variables: Mapping[str, str], units: Labels, keys: Sequence[str], second: float
) -> ValueColumn | None:
    """Column of values in bins of a table with a column of units, or None if each row is a spike.

    Args:
      path: of the table.
      columns: of the table.
      variables: names that the user gives.
      units: columns with the label of the unit.
      keys: columns with the trial, condition and time of a row.
      second: in which times are given, s; infinite: they are numbers of bins.

    Raises:
      UserError: rows on a grid of times with a column of values of an unknown kind.
    """
    for kind in VALUE_NAMES:
        if variables.get(kind) in columns:
            return ValueColumn(variables[kind], kind)
    owner = codes(joined(columns, units))
    others = [name for name in columns if name not in (*units, *keys) and np.isfinite(query.as_numbers(columns[name])).any()]
    others = [name for name in others if varies_within(columns[name], owner).any()]  # else it describes the units
    for name in others:
        for kind, names in VALUE_NAMES.items():
            if letters(name) in names:
                return ValueColumn(name, kind)
    group = _place(columns, keys[:-1], len(owner))
    sizes = [len(np.unique(comparable(columns[name]))) for name in keys] + [owner.max(initial=-1) + 1]
    complete = min(sizes) > 1 and np.prod(sizes, dtype=float) == len(owner)
    if not complete and len(keys) > 1:
        others = [name for name in others if varies_within(columns[name], group).any()]  # else it describes the trials
    others = sorted(others, key=lambda name: letters(name) not in SHORT_COUNT_NAMES)
    counts = bool(others) and letters(others[0]) in SHORT_COUNT_NAMES and _are_whole(query.as_numbers(columns[others[0]]))
    if not others or not (complete or _are_bins(query.as_numbers(columns[keys[-1]]), group, owner, second)):
        if counts:
            raise UserError(
                f"{path}: {others[0]} may be the number of spikes in a bin; expected variables.counts={others[0]}, or"
                f" variables.spike_times={keys[-1]} if each row is a spike."
            )
        return None
    if counts:
        return ValueColumn(others[0], "counts")
    what = f"a row for each {', '.join(keys)}" if complete else f"rows on a grid of {keys[-1]}, at most one for each {', '.join(keys)}"
    raise UserError(
        f"{path}: has {what} and {units.shown}, as values in bins have and spikes do not; expected variables.counts={others[0]} or"
        f" variables.rate={others[0]}, or variables.spike_times={keys[-1]} if each row is a spike."
    )


def named_values(columns: Iterable[str]) -> list[str]:
    """Columns with a usual name of values in bins, which are no labels."""
    usual = {*SHORT_COUNT_NAMES, *(each for names in VALUE_NAMES.values() for each in names)}
    return [name for name in columns if letters(name) in usual]


def _are_whole(values: np.ndarray) -> bool:
    """Whether values may be spike counts: whole numbers from 0 on."""
    known = values[np.isfinite(values)]
    return bool((known >= 0).all() and (known == np.floor(known)).all())


def _place(columns: Mapping[str, np.ndarray], keys: Sequence[str], size: int) -> np.ndarray:
    """[rows] number of what the rows belong to together, such as the trial of a block."""
    place = np.zeros(size, np.int64)
    for name in keys:
        code = codes(columns[name])
        place = codes(place * (int(code.max(initial=0)) + 1) + code)
    return place


def _are_bins(time: np.ndarray, group: np.ndarray, owner: np.ndarray, second: float) -> bool:
    """Whether rows are bins and no spikes: on a grid that is coarse or mostly filled, at most one for each time of a trial and unit.

    Args:
      time: [rows] as stored.
      group: [rows] number of the trial or condition.
      owner: [rows] number of the unit.
      second: in which times are given, s.
    """
    known = np.isfinite(time)
    time, group, owner = time[known], group[known], owner[known]
    order = np.lexsort((time, group))
    steps = np.diff(time[order])[np.diff(group[order]) == 0]
    steps = steps[steps * second > 1e-6]
    if len(steps) < FEWEST_STEPS:
        return False
    step = float(np.quantile(steps, 0.05, method="lower"))  # between trials on one clock, some are smaller
    step = float(steps[np.abs(steps / step - 1) < 0.5].mean())
    near = steps[steps < 5.5 * step] / step
    if np.mean(np.abs(near - np.maximum(np.rint(near), 1)) < 0.1) < ON_GRID:
        return False
    bin_ = codes(np.rint(time / (0.01 * step)))
    row = codes(group * (int(bin_.max()) + 1) + bin_)
    n_units = int(owner.max()) + 1
    if len(np.unique(row * n_units + owner)) < len(row):  # several spikes at one time
        return False
    if step * second > SPIKE_PRECISION_S * (1 - SAME_TIME):
        return True
    _, first = np.unique(row, return_index=True)
    n_times = np.bincount(group[first])
    _, first = np.unique(group * n_units + owner, return_index=True)
    spans = [float(np.ptp(each)) for each in np.split(time[order], np.flatnonzero(np.diff(group[order])) + 1)]
    return bool(
        len(row) > FILLED * (n_times * np.bincount(group[first])).sum() and n_times.sum() > FILLED * (np.array(spans) / step + 1).sum()
    )


def widened(path: Path, columns: Mapping[str, np.ndarray], keys: Sequence[str], units: Labels, value: ValueColumn) -> dict[str, np.ndarray]:
    """Columns `keys` and one column for each unit, from a tidy table; NaN where it has no row.

    Args:
      path: of the table.
      columns: of the table.
      keys: columns with the trial, condition and time of a row.
      units: columns with the label of the unit.
      value: column of values.

    Raises:
      UserError: two rows for the same bin and unit, or counts or rates without the rows that are 0.
    """
    place = _place(columns, keys, len(columns[value.name]))
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
    if value.kind == "rate" and len(cells) < matrix.size and not (values == 0).any():
        group = _place({name: columns[name][first] for name in keys}, keys[:-1], len(first))
        there = np.zeros((len(first), len(ids)), bool)
        there[row, owner] = True
        recorded = np.zeros((int(group.max()) + 1, len(ids)), bool)
        np.logical_or.at(recorded, group, there)
        if gaps := int((recorded[group] & ~there).sum()):
            raise UserError(
                f"{path}: has no rows for {gaps:,} bins of units with rows at other times of the same {keys[0]}, and none with"
                f" {value.name} 0; expected rows for bins with {value.name} 0 too, or nan where it is unknown."
            )
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
