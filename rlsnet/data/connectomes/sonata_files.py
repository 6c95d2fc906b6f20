"""Files of a circuit in SONATA: their paths, and the attributes of a population from its groups and the table of its types."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from rlsnet.data import query
from rlsnet.data.formats import hdf5, table_files
from rlsnet.errors import UserError, first_line

CONFIG = "circuit_config.json"
MISSING = ("", "NULL", "None")  # cells of a table of types without a value


class CircuitFile(NamedTuple):
    """A file with nodes or edges, the table of their types or None, and the types of its populations by name, where they are given."""

    file: Path
    types: Path | None
    populations: dict[str, str]


class Circuit(NamedTuple):
    """Files with nodes, files with edges, and the circuit configuration, {} without one."""

    nodes: list[CircuitFile]
    edges: list[CircuitFile]
    about: dict[str, Any]


def circuit(path: Path) -> Circuit:
    """The files of a circuit_config.json, or of a folder; raises UserError if the configuration cannot be read or a file is missing."""
    config = path / CONFIG if path.is_dir() else path
    if not config.is_file():
        return Circuit(_in_folder(path, "node"), _in_folder(path, "edge"), {})
    try:
        about = json.loads(config.read_text())
        networks = about["networks"]
        nodes, edges = ([_listed(each, kind, about, config) for each in networks[f"{kind}s"]] for kind in ("node", "edge"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        expected = "a circuit configuration of SONATA with networks.nodes and networks.edges"
        raise UserError(f"{config}: cannot be read ({type(error).__name__}: {first_line(error)}); expected {expected}.") from error
    for each in (*nodes, *edges):
        for file in (each.file, each.types):
            if file is not None and not file.is_file():
                raise UserError(f"{config}: {file} does not exist; expected the files that networks lists.")
    return Circuit(nodes, edges, about)


def _listed(entry: dict[str, Any], kind: str, about: dict[str, Any], config: Path) -> CircuitFile:
    """A file that a configuration lists, with the variables of its manifest replaced."""
    variables = dict(about.get("manifest", {}))

    def path(text: str) -> Path:
        for _ in range(len(variables) + 1):  # a variable may contain another one
            for name, value in variables.items():
                text = text.replace("${" + name.strip("${}") + "}", str(value)).replace("$" + name.strip("${}"), str(value))
        return config.parent / text

    types = entry.get(f"{kind}_types_file") or ""
    populations = {name: str((each or {}).get("type", "")) for name, each in (entry.get("populations") or {}).items()}
    return CircuitFile(path(entry[f"{kind}s_file"]), None if types in MISSING else path(types), populations)


def _in_folder(folder: Path, kind: str) -> list[CircuitFile]:
    """Files *nodes*.h5 or *edges*.h5 of a folder, with the tables of types beside them: v1_nodes.h5 has v1_node_types.csv."""
    files = sorted(file for file in folder.glob(f"*{kind}s*") if file.suffix.lower() in hdf5.EXTENSIONS)
    tables = [file.with_name(file.stem.replace(f"{kind}s", f"{kind}_types") + ".csv") for file in files]
    return [CircuitFile(file, table if table.is_file() else None, {}) for file, table in zip(files, tables, strict=True)]


def is_folder(path: Path) -> bool:
    """Whether a folder contains a circuit."""
    return (path / CONFIG).is_file() or bool(_in_folder(path, "node") and _in_folder(path, "edge"))


class Attributes:
    """Attributes of a population of n nodes or edges.

    Args:
      group: of the population, open.
      kind: node or edge.
      types: table of types, or None.
    """

    def __init__(self, group: Any, kind: str, types: Path | None):
        self.group, self.kind, self.where = group, kind, f"{group.file.filename}: {group.name}"
        self.type_id = hdf5.read_dataset(self._required(f"{kind}_type_id")).astype(np.int64)
        self.n, self.types = len(self.type_id), {} if types is None else _read_types(types, f"{kind}_type_id")
        self.group_id = self._of_group("id", np.zeros(self.n, np.int64))
        self.group_index = self._of_group("index", np.arange(self.n))

    def _required(self, name: str) -> Any:
        """A dataset of the population; raises UserError if it is missing."""
        if not isinstance(self.group.get(name), h5py.Dataset):
            raise UserError(f"{self.where}: has no {name}, which SONATA requires.")
        return self.group[name]

    def _of_group(self, what: str, otherwise: np.ndarray) -> np.ndarray:
        """[n] group of each node or edge (`what` id), or its row there (index); `otherwise` where the file has one group only."""
        name = f"{self.kind}_group_{what}"
        values = hdf5.read_dataset(self.group[name]).astype(np.int64) if name in self.group else otherwise
        if len(values) != self.n:
            raise UserError(f"{self.where}/{name}: has {len(values)} entries; expected {self.n}, as {self.kind}_type_id has.")
        return values

    def ids(self, name: str) -> np.ndarray:
        """[n] int64 of a dataset that is required, such as source_node_id."""
        values = hdf5.read_dataset(self._required(name)).astype(np.int64)
        if len(values) != self.n:
            raise UserError(f"{self.where}/{name}: has {len(values)} entries; expected {self.n}, as {self.kind}_type_id has.")
        return values

    def dataset(self, name: str) -> Any:
        """The dataset of an attribute in a group, or None."""
        return next((self.group[f"{each}/{name}"] for each in np.unique(self.group_id).tolist() if f"{each}/{name}" in self.group), None)

    def values(self, name: str) -> np.ndarray | None:
        """[n] values of an attribute, those of the groups before those of the types; None if nothing has it.

        A missing value is NaN, or "" among texts.
        """
        groups = [each for each in np.unique(self.group_id).tolist() if f"{each}/{name}" in self.group]
        stored = {each: self._in_group(f"{each}/{name}") for each in groups}
        if len(stored) == 1 and (self.group_id == groups[0]).all():
            return stored[groups[0]][self._rows(self.group_index, len(stored[groups[0]]), name)]
        known = {number: row[name] for number, row in self.types.items() if name in row and row[name] not in MISSING}
        if not stored and not known:
            return None
        found = np.array([known.get(each, "") for each in self.type_id.tolist()], object)
        for each, values in stored.items():
            mine = self.group_id == each
            found[mine] = values[self._rows(self.group_index[mine], len(values), name)]
        numbers = query.as_numbers(found)
        return query.as_texts(found) if np.any(np.isnan(numbers) & (query.as_texts(found) != "")) else numbers

    def _in_group(self, name: str) -> np.ndarray:
        """Dataset of a group; numbers of a library are replaced by its texts."""
        values, (group, _, own) = hdf5.read_dataset(self.group[name]), name.rpartition("/")
        library = self.group.get(f"{group}/@library/{own}")
        return values if library is None else hdf5.read_dataset(library)[self._rows(values.astype(np.int64), len(library), name)]

    def _rows(self, index: np.ndarray, size: int, name: str) -> np.ndarray:
        """Rows of a dataset; raises UserError if it does not have them."""
        if len(index) and (index.min() < 0 or index.max() >= size):
            raise UserError(f"{self.where}: {name} has {size} entries, and row {index.max()} is needed; the file is damaged.")
        return index


def _read_types(path: Path, key: str) -> dict[int, dict[str, str]]:
    """Rows of a table of types by their number; columns are separated by blanks."""
    with table_files.one_line_errors(path), path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.DictReader(file, delimiter=" ", skipinitialspace=True) if row.get(key)]
        return {int(row[key]): {name: value or "" for name, value in row.items() if name} for row in rows}
