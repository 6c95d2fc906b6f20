"""MATLAB .mat files, versions 4 to 7 (SciPy) and 7.3, which is HDF5 (h5py): matrices, cells, structs and texts.

Axes are as MATLAB shows them. Spikes may be a cell of vectors (one a unit), a struct array units(k).spike_times, or vectors of times
and units. Objects (table, string, datetime) are stored in a way that only MATLAB reads; they are named in messages and left out.
pymatreader would read both versions too, but drops axes of length 1 and the cell around a single unit, which here mean something.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rlsnet.config import UserError
from rlsnet.importers import named, tables
from rlsnet.importers.interpret import read as interpret
from rlsnet.importers.named import Leaf
from rlsnet.importers.options import Options
from rlsnet.importers.session import Ready, Session

EXTENSIONS = (".mat",)
AXES = ("time", "unit", "condition")  # of three; extra axes come last in MATLAB
PLAIN = ("double", "single", "logical", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))


class Unreadable:
    """Stands for an object that only MATLAB reads."""


def matches(path: Path) -> bool:
    """Whether a source is called as MATLAB's files are."""
    return path.suffix.lower() in EXTENSIONS


def read(path: Path, options: Options) -> Session | Ready:
    """The session, or the ready rates, of one file; raises UserError where it holds neither."""
    if not path.is_file():
        raise UserError(f"{path}: no such file.")
    with tables.reading(path):
        from scipy.io import loadmat

        try:
            content = loadmat(path, chars_as_strings=True, mat_dtype=True)  # dtypes as in MATLAB: 1 2 3 is stored as uint8
        except NotImplementedError:  # version 7.3
            return _read_73(path, options)
        tree = {name: of_scipy(value) for name, value in content.items() if not name.startswith("__")}
        return interpret(path, named.flatten(tree), options, AXES)


def of_scipy(value: Any) -> Any:
    """A value as scipy.io.loadmat gives it: structs as dicts, struct arrays as dicts of lists, cells as lists."""
    from scipy import sparse
    from scipy.io.matlab import MatlabFunction, MatlabOpaque

    if isinstance(value, MatlabOpaque | MatlabFunction):
        return Unreadable()
    if sparse.issparse(value):
        return value.toarray()
    if not isinstance(value, np.ndarray):
        return np.asarray(value)
    if value.dtype.names:
        flat = value.reshape(-1, order="F")
        return structs([{name: of_scipy(each[name]) for name in value.dtype.names} for each in flat])
    if value.dtype.kind == "O":
        return cell([of_scipy(each) for each in value.reshape(-1, order="F")])
    if value.dtype.kind == "U":
        return text(value.reshape(-1).tolist())
    return value


def structs(each: list[dict[str, Any]]) -> dict[str, Any]:
    """A struct as it is, an array of them as one of lists: units(k).id is units/id."""
    if len(each) == 1:
        return each[0]
    return {name: cell([one[name] for one in each]) for name in (each[0] if each else {})}


def cell(values: list[Any]) -> Any:
    """A cell: a list of arrays; of structs with the same fields, a dict of lists."""
    if values and all(isinstance(each, dict) and each.keys() == values[0].keys() for each in values):
        return {name: cell([each[name] for each in values]) for name in values[0]}
    return values


def text(rows: list[str]) -> np.ndarray:
    """A char array: one text, or one a row."""
    rows = [row.rstrip() for row in rows] or [""]
    return np.array(rows[0] if len(rows) == 1 else rows, object)


def _read_73(path: Path, options: Options) -> Session | Ready:
    import h5py

    with h5py.File(path, "r") as file:
        return interpret(path, dict(_walk(file, "")), options, AXES)


def _walk(group: Any, prefix: str) -> Iterator[tuple[str, Leaf]]:
    """Leaves of an HDF5 group by path; large matrices are read when they are wanted."""
    for name in group:
        node, where = group.get(name), prefix + name
        if name.startswith("#") or node is None:
            continue
        if _class(node) in PLAIN and hasattr(node, "dtype") and "MATLAB_empty" not in node.attrs and node.ndim > 0:
            yield where, Leaf(tuple(node.shape[::-1]), "f", partial(of_hdf5, node))
        else:
            yield from named.flatten({where: of_hdf5(node)}).items()


def _class(node: Any) -> str:
    """The MATLAB class of a dataset or group; a struct array has none on its fields."""
    found = node.attrs.get("MATLAB_class", b"")
    return found.decode() if isinstance(found, bytes) else str(found)


def of_hdf5(node: Any) -> Any:
    """A dataset or group of a 7.3 file, as `of_scipy` gives it."""
    import h5py

    if "MATLAB_object_decode" in node.attrs:
        return Unreadable()
    if isinstance(node, h5py.Group):
        return _group(node)
    kind = _class(node)
    if h5py.check_ref_dtype(node.dtype) is not None:  # a cell, or a field of a struct array
        return cell([of_hdf5(node.file[each]) for each in np.asarray(node[()]).reshape(-1)])
    values = np.asarray(node[()])
    if "MATLAB_empty" in node.attrs:
        return {"cell": [], "struct": {}, "char": text([])}.get(kind, np.zeros([int(size) for size in values.reshape(-1)]))
    if kind == "char":
        rows = values.T.reshape(-1, values.shape[0]) if values.ndim > 1 else values[None]
        return text(["".join(map(chr, row)) for row in rows])
    if kind == "logical":
        return values.T.astype(bool)
    return values.T if values.dtype.kind in "fiu" else Unreadable()


def _group(node: Any) -> Any:
    """A struct, or a sparse matrix, which is stored by columns."""
    if "MATLAB_sparse" in node.attrs:
        from scipy import sparse

        columns = np.asarray(node["jc"][()], np.int64)
        parts = [np.asarray(node[name][()]) if name in node else np.zeros(0) for name in ("data", "ir")]
        return sparse.csc_array(
            (parts[0], parts[1].astype(np.int64), columns), (int(node.attrs["MATLAB_sparse"]), len(columns) - 1)
        ).toarray()
    fields = {name: of_hdf5(node[name]) for name in node}
    return fields if _class(node) in ("struct", "") else Unreadable()
