"""Contents of a file of named arrays, recognized by the names of its arrays: spikes and trials, or precomputed rates."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rlsnet.data.formats import spike_grouping
from rlsnet.data.formats.array_names import KNOWN_NAMES, ArrayNames, StoredArrays
from rlsnet.data.formats.array_session import build_session
from rlsnet.data.formats.named_vectors import with_spike_lists
from rlsnet.data.formats.rate_matrix import AXES, from_matrix
from rlsnet.data.import_options import Options
from rlsnet.data.session import PrecomputedRates, Session
from rlsnet.errors import UserError

KINDS = ("rate", "current", "counts")  # quantities of values in bins


def read_arrays(
    path: Path, arrays: StoredArrays, options: Options, axes: Sequence[str] = AXES, bin_ms: float | None = None, defined: bool = False
) -> Session | PrecomputedRates:
    """Session or precomputed rates from a file of named arrays.

    Args:
      path: of the file.
      arrays: of the file, by path.
      options: settings of the import; `variables`, `axes` and `trials_table` are used.
      axes: the usual order of three axes of rates, as the language of the user shows them; of two, without the condition.
      bin_ms: length of a bin, if the file has it elsewhere than in an array.
      defined: whether the format defines that order.

    Raises:
      UserError: no array with a known name, or arrays that do not fit together.
    """
    names = ArrayNames(path, arrays, options.variables or {})
    if not set(KINDS) & set(names.variables):
        usual = None if "spike_times" in names.variables else names.find("spike_times", groups=False)
        if usual is None or not _are_spike_times(names, usual):
            names = ArrayNames(path, *with_spike_lists(path, arrays, names.variables))
    rates = _rate_matrix(names)
    spikes = names.find("spike_times") if rates is None or rates[0] not in names.variables else None
    if spikes is not None and _are_spike_times(names, spikes):
        found = build_session(names, spikes, options)
        if rates is None or rates[1] == spikes or names.find(rates[0], groups=False) != rates[1]:
            return found
        return dataclasses.replace(
            found, notes=(*found.notes, f"array {rates[1]} is not used; variables.rate={rates[1]} imports it instead")
        )
    if rates is None:
        raise UserError(
            f"{path}: contains no spikes or rates with a usual name; it has {names.listing()}."
            " Expected variables.spike_times=... and variables.spike_clusters=..., or, with one array for each unit, a group or pattern,"
            " variables.spike_times=unit_*, or variables.rate=..."
        )
    return from_matrix(names, *rates, options, axes, bin_ms, defined)


def _rate_matrix(names: ArrayNames) -> tuple[str, str] | None:
    """(rate, current or counts, path) of the matrix that the user names, or that has a usual name, or that is the only one; or None."""
    for kind in KINDS:
        if kind in names.variables:
            return kind, str(names.find(kind))
    for kind in KINDS:
        path = names.find(kind)
        if path in names.arrays and path is not None and len(names.arrays[path].shape) in (2, 3) and names.arrays[path].kind == "f":
            return kind, path
    matrices = [name for name, each in names.arrays.items() if each.kind == "f" and len(each.shape) in (2, 3) and min(each.shape) > 1]
    return ("rate", matrices[0]) if len(matrices) == 1 and "spike_times" not in names.variables else None


def _are_spike_times(names: ArrayNames, path: str) -> bool:
    """Whether an array or group with a name of spike times can contain them; `spikes`, for example, may be another matrix."""
    if "spike_times" in names.variables:
        return True
    found = names.arrays.get(path)
    if found is None:  # a group with one vector for each unit
        return path.rsplit("/", 1)[-1].lower() in KNOWN_NAMES["spike_times"][:2]
    if found.kind != "f" or len(found.shape) != 2 or min(found.shape) < 2:
        return found.kind == "O" or (found.kind == "f" and math.prod(found.shape) == max(found.shape, default=0))
    return path.lower() != "spikes" or any(spike_grouping.padded_trains(np.asarray(found.load()), axis) for axis in (0, 1))
