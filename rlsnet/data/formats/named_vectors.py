"""Files without tables: one vector of spike times for each unit, by its name, and trials as vectors of their own."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rlsnet.data import time_units
from rlsnet.data.formats import table_files
from rlsnet.data.formats.array_names import ArrayNames, StoredArray, StoredArrays, as_vector, in_memory
from rlsnet.errors import UserError

UNIT = re.compile(r"(?:.*[^a-z])?(?:units?|neurons?|cells?|clusters?|clu)[ _.-]?\d+", re.IGNORECASE)  # name of a unit, such as unit_12
NUMBER = re.compile(r"\d+")
SPIKE_GROUPS = ("spikes", "units", "neurons", "cells", "clusters", "spike_times", "spiketimes")  # of which a member 12 is a unit
TIMES = ("spike_times", "spiketimes", "spikes", "times", "timestamps", "st")  # vector of a unit that is a group
TRIAL = re.compile(r"trials?[ _.-](?P<name>\w+)", re.IGNORECASE)  # name of a vector of trials, such as trial_start


def with_spike_lists(path: Path, arrays: StoredArrays, variables: Mapping[str, str]) -> tuple[StoredArrays, Mapping[str, str]]:
    """(arrays, variables) in which the vectors of single units are one list spike_times with a table of units; else unchanged.

    Args:
      path: of the file, for messages.
      arrays: of the file, by path.
      variables: names that the user gives; spike_times may be a pattern such as unit_* or units/*/times, or a group of units.

    Raises:
      UserError: nothing in the file fits the pattern.
    """
    chosen = str(variables.get("spike_times", "")).strip("/")
    if chosen and chosen in arrays:
        return arrays, variables
    found = _matching(arrays, chosen) if chosen else _usual(arrays)
    if "*" in chosen and not found:
        raise UserError(f"variables.spike_times={chosen}: {path} has no such arrays; it has {', '.join(list(arrays)[:12])}.")
    vectors = {unit: dataclasses.replace(arrays[name], load=functools.cache(arrays[name].load)) for unit, name in found.items()}
    if not found or (not chosen and not all(map(_ascending, vectors.values()))):
        return arrays, variables
    units = sorted(found, key=_natural_order)
    numbers = [NUMBER.findall(unit)[-1:] for unit in units]
    ids = np.array([int(each[0]) for each in numbers]) if all(numbers) and len({each[0] for each in numbers}) == len(units) else None
    stored = [vectors[unit] for unit in units]
    columns = {"id": np.array(units, object) if ids is None else ids, **_scalars(arrays, units, found)}
    rest = {name: each for name, each in arrays.items() if name not in set(found.values())}
    unit = time_units.common_unit(each.unit for each in stored)
    lists = {"spike_times": StoredArray((len(units),), "O", functools.partial(_load_all, path, found, units, stored), unit=unit)}
    lists |= {f"units/{name}": in_memory(values) for name, values in columns.items()}
    return rest | lists, {name: value for name, value in variables.items() if name != "spike_times"}


def _load_all(path: Path, found: Mapping[str, str], units: Sequence[str], stored: Sequence[StoredArray]) -> list[np.ndarray]:
    """Spike times of each unit."""
    return [as_vector(f"{path}: {found[unit]}", each) for unit, each in zip(units, stored, strict=True)]


def _usual(arrays: StoredArrays) -> dict[str, str]:
    """Path of the vector of each unit, by its name, if there is one group of units in the file; else {}."""
    groups: dict[tuple[str, str], dict[str, str]] = {}
    for path, each in arrays.items():
        if each.kind != "f" or not each.shape or math.prod(each.shape) != max(each.shape):
            continue
        *above, last = path.split("/")
        if above and last.lower() in TIMES and _is_unit(above[-1], above[:-1]):
            groups.setdefault(("/".join(above[:-1]), last), {})[above[-1]] = path
        elif _is_unit(last, above):
            groups.setdefault(("/".join(above), ""), {})[last] = path
    return next(iter(groups.values())) if len(groups) == 1 else {}


def _is_unit(name: str, above: Sequence[str]) -> bool:
    """Whether a name such as unit_12, or 12 in a group of spikes, is that of a unit."""
    return UNIT.fullmatch(name) is not None or (NUMBER.fullmatch(name) is not None and bool(above) and above[-1].lower() in SPIKE_GROUPS)


def _matching(arrays: StoredArrays, chosen: str) -> dict[str, str]:
    """Path of the vector of each unit, by its name, for a pattern or for a group of groups; else {}."""
    if "*" in chosen:
        paths = [path for path in arrays if fnmatch.fnmatchcase(path, chosen)]
        place = next(number for number, part in enumerate(chosen.split("/")) if "*" in part)
        paths = [path for path in paths if path.count("/") == chosen.count("/")]
        found = {path.split("/")[place]: path for path in paths}
        return found if len(found) == len(paths) else {path: path for path in paths}
    parts = {path: path[len(chosen) + 1 :].split("/") for path in arrays if path.startswith(f"{chosen}/")}
    return {below[0]: path for path, below in parts.items() if len(below) == 2 and below[1].lower() in TIMES}


def _natural_order(name: str) -> tuple[int | str, ...]:
    """Key by which unit_2 comes before unit_10."""
    return tuple(int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name))


def _ascending(stored: StoredArray) -> bool:
    """Whether a vector can be one of spike times: ascending numbers; rates, which have a vector for each unit too, are not."""
    return bool(np.all(np.diff(np.asarray(stored.load(), np.float64).reshape(-1)) >= 0))


def _scalars(arrays: StoredArrays, units: Sequence[str], found: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Columns of the units from single values beside the spikes of each, such as units/3/region."""
    folders = [found[unit].rpartition("/")[0] for unit in units]
    if len(set(folders)) < len(folders):
        return {}
    names = [name[len(folders[0]) + 1 :] for name in arrays if name.startswith(f"{folders[0]}/")]
    columns = {}
    for name in names:
        stored = [arrays.get(f"{folder}/{name}") for folder in folders]
        values = [
            np.asarray(each.load()).reshape(-1) for each in stored if each is not None and each.kind in "fU" and np.prod(each.shape) == 1
        ]
        if "/" not in name and name != "id" and len(values) == len(units):
            columns[name] = table_files.as_column(np.array([each[0] for each in values]))
    return columns


def flat_trials(arrays: StoredArrays, used: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of trials that are vectors outside a table: trial_NAME, or those as long as a vector start_time; {} if there are none.

    Args:
      arrays: of the file, by path.
      used: paths that belong to the spikes.
    """
    top = {path: each for path, each in arrays.items() if "/" not in path and path not in used and each.kind in "fU" and each.shape}
    names = {path: name for path in top if (name := _trial_name(path)) != path} or {path: path for path in top}
    starts = ("start_time", *table_files.TRIAL_TIME_NAMES["start_time"], "intervals")
    first = next((path for path, name in names.items() if time_units.split_name(name)[0].lower() in starts), None)
    if first is None:
        return {}
    columns, n_trials = {}, _rows(top[first].shape)
    for path, name in names.items():
        if _rows(top[path].shape) != n_trials:  # not read, as it may be large
            continue
        values = np.asarray(top[path].load())
        values = values.reshape(-1) if values.ndim == 2 and 1 in values.shape else values
        if values.ndim == 1 or values.shape[1:] == (2,):
            columns[name] = table_files.as_column(values) if values.ndim == 1 else values
    return columns


def _trial_name(path: str) -> str:
    """Name of the column of a vector of trials outside a table: go of trial_go."""
    match = TRIAL.fullmatch(path)
    return match["name"] if match else path


def stated_units(names: ArrayNames) -> dict[str, str]:
    """What the file of a table of trials, or of vectors instead of one, states as units, as of `Session.stated`."""
    columns = {f"{kind}/{name}": each for kind in ("trials", "events") for name, each in names.table(kind).items()}
    if names.find("trials") is None:
        columns |= {f"trials/{_trial_name(path)}": each for path, each in names.arrays.items() if "/" not in path}
    return {name: each.unit for name, each in columns.items() if each.unit is not None}


def _rows(shape: Sequence[int]) -> int:
    """Length of a vector, or number of rows of a matrix."""
    return max(shape) if len(shape) == 2 and 1 in shape else shape[0]
