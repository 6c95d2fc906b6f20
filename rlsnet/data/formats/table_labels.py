"""What a row of a table belongs to: a unit, a trial or a condition; columns in which units or trials are numbered anew."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from rlsnet.data import query
from rlsnet.data.formats import table_files
from rlsnet.data.formats.single_trials import TRIAL_NAMES, codes, comparable, in_natural_order, lie_in_trials, varies_within
from rlsnet.errors import UserError

PLACES = (  # within which programs number units from 1
    *("channel", "chan", "ch", "electrode", "elec", "tetrode", "tet", "tt", "stereotrode", "shank", "probe", "array", "headstage", "port"),
    *("site", "implant", "hemisphere", "region", "area", "brainregion", "brainarea", "location", "imec"),
)
SESSIONS = (
    *("session", "sess", "ses", "recording", "rec", "day", "date", "animal", "subject", "subj", "mouse", "rat", "monkey", "fly", "larva"),
    *("worm", "patient", "participant", "individual", "penetration", "slice", "experiment", "expt", "exp", "file", "filename"),
)
BLOCKS = ("condition", "cond", "block", "run")  # within which trials may be numbered from 1
SUFFIX = re.compile(r"(s|id|ids|no|nr|num|number|index|idx|name|label)$")
BY_CHANCE = 1e-6  # trials without spikes that have a smaller probability are not recorded
MOST_LABELS = 100  # values of a column that may tell trials apart


class Labels(tuple):
    """Names of the columns that together are a label, such as (channel, unit)."""

    @property
    def shown(self) -> str:
        """As it is written in a setting."""
        return ",".join(self)


def letters(name: str) -> str:
    """The letters of a name in lower case: channelid of Channel_ID 2."""
    return re.sub("[^a-z]", "", name.lower())


def is_one_of(name: str, stems: Sequence[str]) -> bool:
    """Whether the name of a column, such as Channel_ID, is one of some words."""
    plain = letters(name)
    return plain in stems or SUFFIX.sub("", plain) in stems


def given_labels(name: str, columns: Mapping[str, np.ndarray]) -> Labels | None:
    """Columns in a setting such as channel,unit; None if one of them does not exist."""
    names = Labels([name] if name in columns else [each.strip() for each in name.strip("[]").split(",")])
    return names if set(names) <= columns.keys() else None


def joined(columns: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """[rows] labels of one column, or texts such as 3:1 of several."""
    if len(names) == 1:
        return columns[names[0]]
    texts = [query.as_texts(table_files.integers_if_whole(columns[name])).tolist() for name in names]
    return np.array([":".join(row) for row in zip(*texts, strict=True)], object)


def check_units(path: Path, columns: Mapping[str, np.ndarray], names: Labels, given: bool) -> None:
    """Raises UserError if units seem to be numbered anew in each channel, probe or session, and the user does not say what a unit is.

    Args:
      path: of the table.
      columns: of the table.
      names: columns with the label of the unit.
      given: whether the user has named them.
    """
    labels = joined(columns, names)
    missing = query.missing_values(labels)
    if missing.any():
        raise UserError(f"{path}: {names.shown} is empty in row {np.flatnonzero(missing)[0] + 1}; expected the unit of each spike.")
    for name, values in columns.items():
        if is_one_of(name, SESSIONS) and len(found := np.unique(comparable(values))) > 1 and (name in names or not given):
            raise UserError(
                f"{path}: has {len(found)} values of {name} ({found[0]}, {found[1]}, ...); expected one table for each, or"
                f" variables.spike_clusters={names[-1]} if all units and trials are recorded together."
            )
    if given:
        return
    known, group = np.unique(comparable(labels), return_inverse=True)
    for name, values in columns.items():
        if name not in names and is_one_of(name, PLACES) and (other := varies_within(values, group)).any():
            row = int(np.flatnonzero(other)[0])
            found = np.unique(comparable(values[group == group[row]]))
            raise UserError(
                f"{path}: {names.shown} {known[group[row]]} occurs with {len(found)} values of {name} ({found[0]}, {found[1]}"
                f"{', ...' if len(found) > 2 else ''}); expected variables.spike_clusters={name},{names.shown} if units are numbered in"
                f" each {name}, or variables.spike_clusters={names.shown} if this is one unit."
            )


def check_sessions(path: Path, columns: Mapping[str, np.ndarray], units: Labels, trial: Labels, skipped: Iterable[str]) -> None:
    """Raises UserError if a column splits the units of a table of spikes into groups that seem to be recorded in different trials.

    That is so if a group has no spikes in the first or last trials, and has them in nearly all others.

    Args:
      path: of the table.
      columns: of the table.
      units: columns with the label of the unit.
      trial: columns with the label of the trial.
      skipped: columns that are no labels.
    """
    labels = joined(columns, trial)
    inside = lie_in_trials(labels)
    known, code = np.unique(comparable(labels[inside]), return_inverse=True)
    order, of_unit = np.argsort(in_natural_order(known))[code], codes(joined(columns, units))[inside]
    n_trials, n_units = int(order.max(initial=-1)) + 1, len(np.unique(of_unit))
    for name, values in columns.items():
        found = np.asarray(values)[inside]
        if name in (*units, *trial, *skipped) or is_one_of(name, PLACES) or not _may_be_label(found):
            continue
        group = codes(found)
        if 2 * (int(group.max(initial=0)) + 1) > n_units or varies_within(found, of_unit).any():
            continue
        for number in np.unique(group):
            own = np.unique(order[group == number])
            first, last = int(own[0]), int(own[-1])
            within = last - first + 1
            silent, without = (within - len(own) + 1) / (within + 2), n_trials - within
            units_of = len(np.unique(of_unit[group == number]))
            if units_of > 1 and without and silent**without < BY_CHANCE:
                raise UserError(
                    f"{path}: units of {name} {found[group == number][0]} have no spikes in {without} of {n_trials} trials, the first or"
                    f" last ones, and others have; expected one table for each {name}, or variables.spike_clusters={units.shown} if all"
                    " units and trials are recorded together."
                )


def trial_columns(
    path: Path, columns: Mapping[str, np.ndarray], units: Labels, names: Labels, given: bool, values: Iterable[str]
) -> tuple[Labels, tuple[str, ...]]:
    """(columns that together are the label of a trial, notes): with the block or condition in which trials are numbered anew.

    Args:
      path: of the table.
      columns: of the table.
      units: columns with the label of the unit.
      names: columns with the label of the trial.
      given: whether the user has named them.
      values: columns with times and values, which are no labels.

    Raises:
      UserError: a column that may tell trials apart.
    """
    skipped = {*units, *names, *values}
    others = [name for name in columns if name not in skipped and not is_one_of(name, PLACES)]
    if given:
        return names, ()
    group = codes(joined(columns, names))
    of_unit = codes(joined(columns, units)) if units else np.arange(len(group))
    blocks = [name for name in others if is_one_of(name, BLOCKS) and varies_within(columns[name], group).any()]
    for name in blocks:
        if units and not varies_within(columns[name], of_unit).any():
            raise UserError(
                f"{path}: each unit has spikes in one {name} only, and trials the same {names.shown}; expected one table for each {name}."
            )
    label = Labels([*blocks, *names])
    group = codes(joined(columns, label))
    for name in others:
        found = np.asarray(columns[name])
        if name in blocks or not _may_be_label(found) or not varies_within(found, group).any():
            continue
        if not units or varies_within(found, of_unit).any():
            raise UserError(
                f"{path}: {label.shown} {joined(columns, label)[varies_within(found, group)][0]} occurs with several values of {name};"
                f" expected variables.spike_trials={name},{label.shown} if trials are numbered in each {name}, or"
                f" variables.spike_trials={label.shown} if this is one trial."
            )
    return label, ((f"trials are numbered in each {' and '.join(blocks)}",) if blocks else ())


def _may_be_label(values: np.ndarray) -> bool:
    """Whether a column may tell trials apart: few texts or whole numbers."""
    if values.dtype.kind == "f" and not np.all(values == np.floor(values)):
        return False
    return len(np.unique(comparable(values))) <= min(MOST_LABELS, len(values) // 2)


def trials_of_table(
    path: Path, columns: Mapping[str, np.ndarray], names: Labels, skipped: Iterable[str], table: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """([rows] labels of trials, columns of the table of trials with these labels in a column trial) of a table of spikes.

    Args:
      path: of the table of spikes.
      columns: of the table of spikes.
      names: columns of it with the label of the trial.
      skipped: columns that are no labels.
      table: columns of the table of trials.

    Raises:
      UserError: several columns that the table of trials does not have.
    """
    own = next((name for name in (names[-1], *TRIAL_NAMES) if name in table), None)
    shared = [name for name in columns if name in table and name not in (*skipped, *names)]
    if len(names) == 1 and own is not None and own != "id" and len(set(table[own].tolist())) < len(table[own]):
        names = Labels([*(name for name in shared if _may_be_label(np.asarray(table[name]))), *names])  # what tells them apart
    if len(names) == 1:
        return columns[names[0]], dict(table)
    if own is None or not set(names[:-1]) <= table.keys():
        raise UserError(
            f"{path}: trials are numbered in each {', '.join(names[:-1])}; expected columns {names.shown} in the table of trials."
        )
    return joined(columns, names), {**table, "trial": joined(dict(table) | {names[-1]: table[own]}, names)}
