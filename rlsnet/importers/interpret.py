"""What a file of named arrays holds, spikes or ready rates, by the names that its arrays have."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from rlsnet.config import UserError
from rlsnet.importers.named import USUAL, Leaves, Names
from rlsnet.importers.options import Options
from rlsnet.importers.ready import AXES, of_matrix
from rlsnet.importers.session import Ready, Session
from rlsnet.importers.spikes import session


def read(path: Path, leaves: Leaves, options: Options, axes: Sequence[str] = AXES, bin_ms: float | None = None) -> Session | Ready:
    """What a file of named arrays holds.

    Args:
      path: the file.
      leaves: its arrays.
      options: of the import; `variables`, `axes` and `trials_table` are used.
      axes: the usual order of three axes of rates, as the user's language shows them; of two, without the condition.
      bin_ms: length of a bin, where the file says so otherwise than in an array.

    Raises:
      UserError: nothing of a known name, or what is there does not fit together.
    """
    names = Names(path, leaves, options.variables or {})
    rates = _matrix(names)
    spikes = names.find("spike_times") if rates is None or rates[0] not in names.given else None
    if spikes is not None and _is_spikes(names, spikes):
        found = session(names, spikes, options)
        if rates is None or names.find(rates[0], groups=False) != rates[1]:
            return found
        return dataclasses.replace(found, notes=(*found.notes, f"its {rates[1]} is not used; it would be with variables.rate={rates[1]}"))
    if rates is None:
        raise UserError(
            f"{path}: holds no spikes or rates of a usual name; it has {names.words()}."
            " Should be named: variables.spike_times=..., variables.spike_clusters=..., or variables.rate=..."
        )
    return of_matrix(names, *rates, options.axes or (), axes, bin_ms)


def _matrix(names: Names) -> tuple[str, str] | None:
    """(rate or current, path) of what the user names, or of a usual name, or of the only matrix."""
    for kind in ("rate", "current"):
        if kind in names.given:
            return kind, str(names.find(kind))
    for kind in ("rate", "current"):
        path = names.find(kind)
        if path in names.leaves and path is not None and len(names.leaves[path].shape) in (2, 3) and names.leaves[path].kind == "f":
            return kind, path
    matrices = [name for name, each in names.leaves.items() if each.kind == "f" and len(each.shape) in (2, 3) and min(each.shape) > 1]
    return ("rate", matrices[0]) if len(matrices) == 1 and "spike_times" not in names.given else None


def _is_spikes(names: Names, path: str) -> bool:
    """Whether something of the name of spike times can be that: `spikes`, say, may be a matrix of something else."""
    if "spike_times" in names.given:
        return True
    found = names.leaves.get(path)
    if found is None:  # a group of a vector a unit
        return path.rsplit("/", 1)[-1].lower() in USUAL["spike_times"][:2]
    return found.kind == "O" or (found.kind == "f" and math.prod(found.shape) == max(found.shape, default=0))
