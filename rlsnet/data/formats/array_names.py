"""Arrays of a file by path, and the usual names of the quantities that an import needs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlsnet.data.formats import table_files
from rlsnet.errors import UserError, did_you_mean

KNOWN_NAMES = {  # quantity, and names of its array in files, in lower case
    "rate": ("rate", "rates", "psth", "psths", "firing_rate", "firing_rates"),
    "current": ("current", "currents", "utarg"),
    "counts": ("counts", "spike_counts", "binned_spikes", "spikes_binned", "binned_counts"),
    "time": ("time", "times", "t"),  # centres of bins, s
    "time_ms": ("time_ms", "t_ms"),
    "bin_ms": ("bin_ms",),
    "condition": ("condition", "conditions", "condition_names"),
    "unit": ("unit", "unit_id", "unit_ids", "unit_names", "unit/id", "units/id", "units/unit_id", "neuron", "neurons"),
    "spike_times": ("spike_times", "spiketimes", "spikes/times", "spikes/spike_times", "units/spike_times", "spikes.times", "spikes"),
    "spike_clusters": ("spike_clusters", "spikes/clusters", "spikes/spike_clusters", "spikes/unit", "spikes.clusters", "spike_units"),
    "spike_trials": ("spike_trials", "spikes/trials", "spikes/trial", "spikes/spike_trials", "trial_of_spike"),
    "spike_index": ("spike_index", "spike_times_index", "units/spike_index", "units/spike_times_index"),
    "sample_rate": ("sample_rate", "sampling_rate", "fs"),
    "trials": ("trials", "intervals/trials", "trial"),
    "units": ("units", "unit", "clusters"),
    "events": ("events",),
}
KIND_OF_DTYPE = {
    "f": "f",
    "i": "f",
    "u": "f",
    "b": "f",
    "U": "U",
    "S": "U",
    "O": "U",
    "T": "U",
}  # kind of a NumPy dtype to kind of a StoredArray


@dataclasses.dataclass(frozen=True)
class StoredArray:
    """Array, or list of arrays, in a file; it is read only if needed.

    shape: sizes of the axes as the language of the user shows them; [n] for a list, [rows, columns] for a matrix of cells.
    kind: f number, U text, O list of arrays, ? nothing that can be read.
    load: reads the array or the list.
    dims: names of the axes, if the file has them.
    unit: what the file states as its unit, as of `time_units.stated_unit`; None: nothing.
    """

    shape: tuple[int, ...]
    kind: str
    load: Callable[[], Any]
    dims: tuple[str, ...] = ()
    unit: str | None = None


class Cells(list[Any]):
    """Arrays of a matrix of cells, row by row; `shape` is [rows, columns]."""

    def __init__(self, values: Sequence[Any], shape: Sequence[int]):
        super().__init__(values)
        self.shape = tuple(shape)


StoredArrays = Mapping[str, StoredArray]  # by path in the file, such as units/id


def in_memory(values: Any) -> StoredArray:
    """StoredArray of a value in memory: an array, a list of arrays or texts, or an object that cannot be read."""
    if isinstance(values, list):
        if values and all(isinstance(each, str) for each in values):
            return in_memory(np.array(values, object))
        if all(isinstance(each, np.ndarray) for each in values):
            if values and all(each.ndim == 0 and each.dtype.kind in "OU" for each in values):
                return in_memory(np.array([str(each) for each in values], object))
            return StoredArray(values.shape if isinstance(values, Cells) else (len(values),), "O", lambda: values)
        return StoredArray((len(values),), "?", lambda: values)
    if not isinstance(values, np.ndarray):
        return StoredArray((), "?", lambda: values)
    return StoredArray(values.shape, KIND_OF_DTYPE.get(values.dtype.kind, "?"), lambda: values)


def flatten_tree(tree: Mapping[str, Any], prefix: str = "") -> dict[str, StoredArray]:
    """Stored arrays by path, from nested mappings of arrays."""
    out: dict[str, StoredArray] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            out |= flatten_tree(value, f"{prefix}{name}/")
        else:
            out[prefix + name] = value if isinstance(value, StoredArray) else in_memory(value)
    return out


@dataclasses.dataclass(frozen=True)
class ArrayNames:
    """Search for quantities among the arrays of a file.

    path: of the file.
    arrays: of the file, by path.
    variables: names given by the user, by quantity: the setting `variables`.
    """

    path: Path
    arrays: StoredArrays
    variables: Mapping[str, str]

    def __post_init__(self) -> None:
        for quantity, name in self.variables.items():
            if quantity not in KNOWN_NAMES:
                hint = did_you_mean(quantity, KNOWN_NAMES, "variables.")
                raise UserError(f"variables.{quantity}={name}: no such variable; expected one of {', '.join(KNOWN_NAMES)}.{hint}")

    def find(self, quantity: str, groups: bool = True, arrays: bool = True) -> str | None:
        """Path of the array or group of a quantity, or None.

        Args:
          quantity: key of KNOWN_NAMES.
          groups: whether it may be a group.
          arrays: whether it may be an array.

        Raises:
          UserError: the user has given a name that the file does not have.
        """
        paths = [*(self._group_paths() if groups else ()), *(self.arrays if arrays else ())]
        if quantity in self.variables:
            name = str(self.variables[quantity]).strip("/")
            for path in (name, name.replace(".", "/")):
                if path in paths:
                    return path
            raise UserError(f"variables.{quantity}={name}: {self.path} has no such array; it has {self.listing()}.")
        known = {path.lower(): path for path in paths}
        return next((known[name] for name in KNOWN_NAMES[quantity] if name in known), None)

    def _group_paths(self) -> list[str]:
        """Paths of the groups of the file."""
        split = [path.split("/") for path in self.arrays]
        return list(dict.fromkeys("/".join(names[:depth]) for names in split for depth in range(1, len(names))))

    def listing(self) -> str:
        """Names and shapes of the arrays of the file, for messages."""
        shown = []
        for name, each in self.arrays.items():
            shape = "(cannot be read)" if each.kind == "?" else str(list(each.shape)) if each.shape else ""
            shown.append(f"{name} {shape}".rstrip())
        return ", ".join(shown[:12]) + (", ..." if len(shown) > 12 else "") or "nothing that can be read"

    def members(self, path: str) -> dict[str, StoredArray]:
        """Stored arrays directly below a path, by name."""
        members = {name[len(path) + 1 :]: each for name, each in self.arrays.items() if name.startswith(f"{path}/")}
        return {name: each for name, each in members.items() if "/" not in name}

    def table(self, quantity: str) -> dict[str, StoredArray]:
        """Columns of a table, such as trials, by name: the members of a group, or one array; {} if the file has no such table."""
        path = self.find(quantity)
        if path in self.arrays:
            return {str(path).rsplit("/", 1)[-1]: self.arrays[str(path)]}
        return {} if path is None else self.members(path)

    def column(self, quantity: str) -> np.ndarray | None:
        """Vector of a quantity, or None if the file has none."""
        path = self.find(quantity, groups=False)
        if path is None or self.arrays[path].kind not in "fU":
            return None
        return as_vector(f"{self.path}: {path}", self.arrays[path])

    def positive_number(self, quantity: str) -> float | None:
        """Number above 0 of a quantity, from the file or given by the user; None if there is none. Raises UserError."""
        source = self.variables.get(quantity)
        value = _as_float(source)
        if value is None:
            path = self.find(quantity, groups=False)
            if path is None or self.arrays[path].kind != "f":
                return None
            values = np.asarray(self.arrays[path].load()).reshape(-1)
            value = float(values[0]) if values.size == 1 else math.nan
            source = f"{self.path}: {path}"
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"{quantity} ({source}): expected one number above 0.")
        return value


def _as_float(text: Any) -> float | None:
    """Number in a text or value, or None."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def as_vector(where: str, found: StoredArray) -> np.ndarray:
    """Stored array as a vector; raises UserError if it has more axes or cannot be read."""
    if found.kind == "?":
        raise UserError(f"{where} is an object that only the program which wrote it can read; expected numbers or texts.")
    values = table_files.as_column(found.load())
    if values.ndim != 1:
        raise UserError(f"{where} has shape {list(values.shape)}; expected a vector.")
    return values


def group_columns(members: Mapping[str, StoredArray]) -> dict[str, np.ndarray]:
    """Columns of a group of arrays; a list of arrays is a column if each has at most one value, else left out."""
    out = {}
    for name, each in members.items():
        if each.kind in "fU":
            out[name] = table_files.as_column(each.load())
        elif each.kind == "O":
            values = each.load()
            if values and all(value.size <= 1 for value in values):  # empty: unknown
                out[name] = table_files.as_column(np.array([value.reshape(-1)[0] if value.size else math.nan for value in values]))
    return out


def first_label(labels: np.ndarray, rows: int) -> int | None:
    """Label, 0 or 1, of the first of `rows` rows that whole numbers refer to; None: they fit neither or both, as 1 and 2 do for 3 rows."""
    low, high = int(labels.min()), int(labels.max())
    return 0 if low == 0 and high < rows else 1 if low >= 1 and high == rows else None


def bin_attribute(path: Path, value: Any) -> float | None:
    """The attribute bin_ms of a file, in ms; None if it has none. Raises UserError unless it is one number above 0."""
    if value is None:
        return None
    try:
        (number,) = np.asarray(value).reshape(-1).astype(float)
    except (TypeError, ValueError):
        number = np.nan
    if not 0 < number < np.inf:
        raise UserError(f"{path}: attribute bin_ms is {value!r}; expected the length of a bin in ms, such as 20.")
    return float(number)
