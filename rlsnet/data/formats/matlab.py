"""MATLAB .mat files, versions 4 to 7 (SciPy) and 7.3, which is HDF5 (h5py): matrices, cells, structs and texts.

Axes are in the order of MATLAB. Spikes are a cell of vectors (one for each unit), a struct array units(k).spike_times, or vectors of
times and units. Objects (table, string, datetime) can be read by MATLAB only; messages name them, and they are left out. pymatreader
reads both versions too, but drops axes of length 1 and the cell around a single unit, which have a meaning here.
"""

from __future__ import annotations

import contextlib
import itertools
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from rlsnet.data.formats import array_names, hdf5, table_files
from rlsnet.data.formats.array_names import Cells, StoredArray
from rlsnet.data.formats.array_sources import read_arrays
from rlsnet.data.import_options import Options
from rlsnet.data.session import PrecomputedRates, Session
from rlsnet.errors import UserError
from rlsnet.io import memory

EXTENSIONS = (".mat",)
HEADER_BYTES, TAG_BYTES, COMPRESSED = 128, 8, 15  # of a file of version 5: its start, and the type and size before each element
AXES = ("time", "unit", "condition")  # usual order of three axes; further axes come last in MATLAB
NUMERIC_CLASSES = ("double", "single", "logical", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))


class UnreadableObject:
    """Object that only MATLAB can read."""


def matches(path: Path) -> bool:
    """Whether a source has the extension of MATLAB files."""
    return path.suffix.lower() in EXTENSIONS


def read(path: Path, options: Options) -> Session | PrecomputedRates:
    """Session or precomputed rates in one file; raises UserError if it contains neither."""
    with opened_arrays(path) as arrays:
        return read_arrays(path, arrays, options, AXES)


@contextlib.contextmanager
def opened_arrays(path: Path) -> Iterator[dict[str, StoredArray]]:
    """Stored arrays of a file by path; raises UserError if the file does not exist or cannot be read."""
    if not path.is_file():
        raise UserError(f"{path}: no such file.")
    with table_files.one_line_errors(path):
        from scipy.io import loadmat

        try:
            _check_memory(path)
            content = loadmat(path, chars_as_strings=True, mat_dtype=True)  # dtypes as in MATLAB, which stores the doubles 1 2 3 as uint8
        except NotImplementedError:  # version 7.3
            with h5py.File(path, "r") as file:
                hdf5.check_links(file)
                yield dict(_stored_arrays(file, ""))
            return
        tree = {name: convert_scipy(value) for name, value in content.items() if not name.startswith("__")}
        yield array_names.flatten_tree(tree)


def _check_memory(path: Path) -> None:
    """Raises UserError if the variables of a file of version 5 to 7, by their sizes before compression, do not fit in the free memory."""
    total, end = 0, path.stat().st_size
    with path.open("rb") as file:
        order = {b"IM": "<", b"MI": ">"}.get(file.read(HEADER_BYTES)[-2:])
        while order is not None and file.tell() + TAG_BYTES <= end:
            kind, size = struct.unpack(f"{order}II", file.read(TAG_BYTES))
            following = file.tell() + size
            if kind == COMPRESSED:
                tag = zlib.decompressobj().decompress(file.read(min(size, 256)), TAG_BYTES)
                size = struct.unpack(f"{order}II", tag)[1] if len(tag) == TAG_BYTES else 0
            total += size
            file.seek(following)
    memory.check_fits(total, path)


def convert_scipy(value: Any) -> Any:
    """Value of scipy.io.loadmat with structs as dicts, struct arrays as dicts of lists, and cells as lists."""
    from scipy import sparse
    from scipy.io.matlab import MatlabFunction, MatlabOpaque

    if isinstance(value, MatlabOpaque | MatlabFunction):
        return UnreadableObject()
    if sparse.issparse(value):
        return value.toarray()
    if not isinstance(value, np.ndarray):
        return np.asarray(value)
    if value.dtype.names:
        flat = value.reshape(-1, order="F")
        return merge_structs([{name: convert_scipy(each[name]) for name in value.dtype.names} for each in flat])
    if value.dtype.kind == "O":
        if (cells := matrix_of_cells(value, convert_scipy)) is not None:
            return cells
        return merge_cell([convert_scipy(each) for each in value.reshape(-1, order="F")])
    if value.dtype.kind == "U":
        return char_array(value.reshape(-1).tolist())
    return value


def merge_structs(structs: list[dict[str, Any]]) -> dict[str, Any]:
    """One struct unchanged; an array of structs as a dict of lists, so that units(k).id becomes units/id."""
    if len(structs) == 1:
        return structs[0]
    return {name: merge_cell([struct[name] for struct in structs]) for name in (structs[0] if structs else {})}


def merge_cell(values: list[Any]) -> Any:
    """Cell as a list of arrays; of structs with the same fields as a dict of lists; of cells of one length as Cells."""
    if values and all(isinstance(each, dict) and each.keys() == values[0].keys() for each in values):
        return {name: merge_cell([each[name] for each in values]) for name in values[0]}
    if values and all(isinstance(each, Cells) and min(each.shape) == 1 and len(each) == len(values[0]) for each in values):
        return Cells(list(itertools.chain.from_iterable(values)), (len(values), len(values[0])))
    return values


def matrix_of_cells(values: np.ndarray, convert: Callable[[Any], Any]) -> Cells | None:
    """Cells in rows and columns that contain numbers, such as units x trials; None for other cells."""
    if values.ndim != 2 or not values.size:
        return None
    found = [convert(each) for each in values.reshape(-1)]
    numbers = all(isinstance(each, np.ndarray) and each.dtype.kind in "fiub" for each in found)
    return Cells(found, values.shape) if numbers else None


def char_array(rows: list[str]) -> np.ndarray:
    """Char array as one text, or as one text for each row."""
    rows = [row.rstrip() for row in rows] or [""]
    return np.array(rows[0] if len(rows) == 1 else rows, object)


def _stored_arrays(group: Any, prefix: str) -> Iterator[tuple[str, StoredArray]]:
    """Stored arrays below an HDF5 group by path; matrices of numbers are read when needed."""
    for name in group:
        node, where = group.get(name), prefix + name
        if name.startswith("#") or node is None:
            continue
        if _matlab_class(node) in NUMERIC_CLASSES and hasattr(node, "dtype") and "MATLAB_empty" not in node.attrs and node.ndim > 0:
            yield where, StoredArray(tuple(node.shape[::-1]), "f", partial(convert_hdf5, node))
        else:
            yield from array_names.flatten_tree({where: convert_hdf5(node)}).items()


def _matlab_class(node: Any) -> str:
    """MATLAB class of a dataset or group; fields of a struct array have none."""
    found = node.attrs.get("MATLAB_class", b"")
    return found.decode() if isinstance(found, bytes) else str(found)


def convert_hdf5(node: Any) -> Any:
    """Dataset or group of a file of version 7.3, in the form of `convert_scipy`."""
    if "MATLAB_object_decode" in node.attrs:
        return UnreadableObject()
    if isinstance(node, h5py.Group):
        return _convert_group(node)
    hdf5.check_dataset(node)
    kind = _matlab_class(node)
    if h5py.check_ref_dtype(node.dtype) is not None:  # cell, or field of a struct array
        if (cells := matrix_of_cells(np.asarray(node[()]).T, lambda each: convert_hdf5(node.file[each]))) is not None:
            return cells
        return merge_cell([convert_hdf5(node.file[each]) for each in np.asarray(node[()]).reshape(-1)])
    values = np.asarray(node[()])
    if "MATLAB_empty" in node.attrs:
        return {"cell": [], "struct": {}, "char": char_array([])}.get(kind, np.zeros([int(size) for size in values.reshape(-1)]))
    if kind == "char":
        rows = values.T.reshape(-1, values.shape[0]) if values.ndim > 1 else values[None]
        return char_array(["".join(map(chr, row)) for row in rows])
    if kind == "logical":
        return values.T.astype(bool)
    return values.T if values.dtype.kind in "fiu" else UnreadableObject()


def _convert_group(node: Any) -> Any:
    """Struct, or sparse matrix, which is stored by columns."""
    if "MATLAB_sparse" in node.attrs:
        from scipy import sparse

        for each in node.values():
            hdf5.check_dataset(each)
        columns = np.asarray(node["jc"][()], np.int64)
        sparse_parts = [np.asarray(node[name][()]) if name in node else np.zeros(0) for name in ("data", "ir")]
        return sparse.csc_array(
            (sparse_parts[0], sparse_parts[1].astype(np.int64), columns), (int(node.attrs["MATLAB_sparse"]), len(columns) - 1)
        ).toarray()
    fields = {name: convert_hdf5(node[name]) for name in node}
    return fields if _matlab_class(node) in ("struct", "") else UnreadableObject()
