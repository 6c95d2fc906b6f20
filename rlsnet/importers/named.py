"""Arrays under names, as npz, Zarr, HDF5 and MATLAB files hold them, to a session of spikes or to ready rates.

What an array is called is guessed from the usual names (`USUAL`), unless `variables` says it.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlsnet.config import UserError
from rlsnet.importers import tables

USUAL = {  # what is looked for, and its usual names, in lower case
    "rate": ("rate", "rates", "psth", "psths", "firing_rate", "firing_rates"),
    "current": ("current", "currents", "utarg"),
    "time": ("time", "times", "t"),  # of bins, s
    "time_ms": ("time_ms", "t_ms"),
    "bin_ms": ("bin_ms",),
    "condition": ("condition", "conditions", "condition_names"),
    "unit": ("unit", "unit_id", "unit_ids", "unit_names", "unit/id", "units/id", "units/unit_id", "neuron", "neurons"),
    "spike_times": ("spike_times", "spiketimes", "spikes/times", "spikes/spike_times", "units/spike_times", "spikes.times", "spikes"),
    "spike_clusters": ("spike_clusters", "spikes/clusters", "spikes/spike_clusters", "spikes/unit", "spikes.clusters", "spike_units"),
    "spike_index": ("spike_index", "spike_times_index", "units/spike_index", "units/spike_times_index"),
    "sample_rate": ("sample_rate", "sampling_rate", "fs"),
    "trials": ("trials", "intervals/trials", "trial"),
    "units": ("units", "unit", "clusters"),
    "events": ("events",),
}
KINDS = {"f": "f", "i": "f", "u": "f", "b": "f", "U": "U", "S": "U", "O": "U", "T": "U"}  # of numpy, to those of Leaf


@dataclasses.dataclass(frozen=True)
class Leaf:
    """An array, or a list of them, that a file holds.

    shape: its axes, as the user's language shows them; [n] for a list.
    kind: f number, U text, O list of arrays, ? none that can be read.
    load: reads it: an array, or a list.
    dims: names of the axes, where the file has them.
    """

    shape: tuple[int, ...]
    kind: str
    load: Callable[[], Any]
    dims: tuple[str, ...] = ()


Leaves = Mapping[str, Leaf]  # by path, such as units/id


def leaf(values: Any, dims: Sequence[str] = ()) -> Leaf:
    """The leaf of what is in memory: an array, a list of arrays or of texts, or something that cannot be read."""
    if isinstance(values, list):
        if values and all(isinstance(each, str) for each in values):
            return leaf(np.array(values, object))
        if all(isinstance(each, np.ndarray) for each in values):
            if values and all(each.ndim == 0 and each.dtype.kind in "OU" for each in values):
                return leaf(np.array([str(each) for each in values], object))
            return Leaf((len(values),), "O", lambda: values)
        return Leaf((len(values),), "?", lambda: values)
    if not isinstance(values, np.ndarray):
        return Leaf((), "?", lambda: values)
    return Leaf(values.shape, KINDS.get(values.dtype.kind, "?"), lambda: values, tuple(dims))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Leaf]:
    """Leaves by path of nested dicts of arrays."""
    out: dict[str, Leaf] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            out |= flatten(value, f"{prefix}{name}/")
        else:
            out[prefix + name] = value if isinstance(value, Leaf) else leaf(value)
    return out


@dataclasses.dataclass(frozen=True)
class Names:
    """Where things are in a file.

    path: of the file.
    leaves: what it holds.
    given: the user's `variables`.
    """

    path: Path
    leaves: Leaves
    given: Mapping[str, str]

    def __post_init__(self) -> None:
        for what, name in self.given.items():
            if what not in USUAL:
                close = difflib.get_close_matches(what, USUAL, 1)
                hint = f" Did you mean variables.{close[0]}?" if close else ""
                raise UserError(f"variables.{what}={name}: no such variable; expected {', '.join(USUAL)}.{hint}")

    def find(self, what: str, groups: bool = True, arrays: bool = True) -> str | None:
        """The path of an array or a group, or None; raises UserError where the user names one that is not there."""
        paths = [*(self._groups() if groups else ()), *(self.leaves if arrays else ())]
        if what in self.given:
            name = str(self.given[what]).strip("/")
            for path in (name, name.replace(".", "/")):
                if path in paths:
                    return path
            raise UserError(f"variables.{what}={name}: {self.path} has no such array; it has {self.words()}.")
        known = {path.lower(): path for path in paths}
        return next((known[name] for name in USUAL[what] if name in known), None)

    def _groups(self) -> list[str]:
        """Paths of what has leaves below it."""
        parts = [path.split("/") for path in self.leaves]
        return list(dict.fromkeys("/".join(part[:depth]) for part in parts for depth in range(1, len(part))))

    def words(self) -> str:
        """What the file holds, for messages."""
        shown = []
        for name, each in self.leaves.items():
            what = "(cannot be read)" if each.kind == "?" else str(list(each.shape)) if each.shape else ""
            shown.append(f"{name} {what}".rstrip())
        return ", ".join(shown[:12]) + (", ..." if len(shown) > 12 else "") or "nothing that can be read"

    def group(self, path: str) -> dict[str, Leaf]:
        """The leaves right below a path, by name."""
        below = {name[len(path) + 1 :]: each for name, each in self.leaves.items() if name.startswith(f"{path}/")}
        return {name: each for name, each in below.items() if "/" not in name}

    def column(self, what: str) -> np.ndarray | None:
        """A vector, or None where the file has none."""
        path = self.find(what, groups=False)
        if path is None or self.leaves[path].kind not in "fU":
            return None
        return vector(f"{self.path}: {path}", self.leaves[path])

    def number(self, what: str) -> float | None:
        """One number above 0, out of the file or given as such."""
        given = self.given.get(what)
        value = _number(given)
        if value is None:
            path = self.find(what, groups=False)
            if path is None or self.leaves[path].kind != "f":
                return None
            values = np.asarray(self.leaves[path].load()).reshape(-1)
            value = float(values[0]) if values.size == 1 else math.nan
            given = f"{self.path}: {path}"
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"{what} ({given}): expected one number above 0.")
        return value


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def vector(where: str, found: Leaf) -> np.ndarray:
    """A leaf as one axis; raises UserError where it has more."""
    if found.kind == "?":
        raise UserError(f"{where} cannot be read, it is an object of the program that wrote it; expected saved as numbers or texts.")
    values = tables.as_column(found.load())
    if values.ndim != 1:
        raise UserError(f"{where} has shape {list(values.shape)}; expected one axis.")
    return values


def columns_of(where: str, members: Mapping[str, Leaf]) -> dict[str, np.ndarray]:
    """The columns of a group; lists are left out, unless each entry is one value."""
    out = {}
    for name, each in members.items():
        if each.kind in "fU":
            out[name] = tables.as_column(each.load())
        elif each.kind == "O":
            values = each.load()
            if values and all(value.size <= 1 for value in values):  # an empty one is not known
                out[name] = tables.as_column(np.array([value.reshape(-1)[0] if value.size else math.nan for value in values]))
    return out
