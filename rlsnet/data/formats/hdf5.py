"""General HDF5 files: arrays with their usual names, or named by `variables` as paths in the file."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from rlsnet.data import time_units
from rlsnet.data.formats import table_files
from rlsnet.data.formats.array_names import Cells, StoredArray, bin_attribute, in_memory
from rlsnet.data.formats.array_sources import read_arrays
from rlsnet.data.import_options import Options
from rlsnet.data.session import PrecomputedRates, Session
from rlsnet.errors import UserError
from rlsnet.io import chunk_sizes, memory

EXTENSIONS = (".h5", ".hdf5", ".hdf", ".he5")


def matches(path: Path) -> bool:
    """Whether a source has an extension of HDF5 files."""
    return path.suffix.lower() in EXTENSIONS


def read(path: Path, options: Options) -> Session | PrecomputedRates:
    """Session or precomputed rates in one file; raises UserError if it contains neither."""
    with opened(path) as file:
        bin_ms = bin_attribute(path, file.attrs.get("bin_ms"))
        return read_arrays(path, stored_arrays(file, read_dataset), options, bin_ms=bin_ms)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open HDF5 file; raises UserError if it does not exist or if anything in it cannot be read."""
    if not path.is_file():
        raise UserError(f"{path}: no such file.")
    with table_files.one_line_errors(path), h5py.File(path, "r") as file:
        check_links(file)
        yield file


EXTERNAL = contextvars.ContextVar("external", default=False)  # whether the user asks for what an HDF5 file has in other files


@contextlib.contextmanager
def following(external: bool) -> Iterator[None]:
    """Context in which parts of HDF5 files that are in other files are read, if `external`, or an error."""
    token = EXTERNAL.set(external)
    try:
        yield
    finally:
        EXTERNAL.reset(token)


def check_links(file: h5py.File) -> None:
    """Raises UserError if an HDF5 file has links to other files, and the user has not asked for those."""
    found: list[tuple[str, str]] = []

    def look(name: bytes, about: Any) -> None:
        if about.type == h5py.h5l.TYPE_EXTERNAL:
            found.append((name.decode(errors="replace"), file.id.links.get_val(name)[0].decode(errors="replace")))

    if not EXTERNAL.get():
        file.id.links.visit(look, info=True)
    if found:
        raise UserError(_outside(file, *found[0]))


def _outside(file: h5py.File, name: str, other: str) -> str:
    where = f"{file.filename}: {name} is in another file, {other}"
    return f"{where}, which is not read without asking; expected external=true, or a copy without it."


def check_dataset(node: h5py.Dataset) -> None:
    """Raises UserError if a dataset does not fit in the free memory, or is in another file and the user has not asked for that."""
    if not EXTERNAL.get():
        others = [name for name, *_ in node.external or ()]
        others += [each.file_name for each in node.virtual_sources() if each.file_name != "."] if node.is_virtual else []
        if others:
            raise UserError(_outside(node.file, node.name, others[0]))
    where = f"{node.file.filename}: {node.name}"
    memory.check_fits((node.size or 0) * node.dtype.itemsize, where)
    if node.chunks is not None and node.id.get_storage_size() * chunk_sizes.DEFLATE_RATIO > memory.UNCHECKED:
        _check_chunks(node, where)


def _check_chunks(node: h5py.Dataset, where: str) -> None:
    """Raises UserError if a chunk of a compressed dataset decodes to more than a chunk; `where` for the message."""
    declared = math.prod(node.chunks) * node.dtype.itemsize
    least = min(memory.free_memory() // chunk_sizes.DEFLATE_RATIO, declared)  # bytes of a chunk that cannot be too large
    large: list[tuple[int, ...]] = []

    def look(about: Any) -> None:
        if about.size > least:
            large.append(about.chunk_offset)

    node.id.chunk_iter(look)
    kind = {"gzip": "zlib"}.get(node.compression or "", "")
    for offset in large:
        chunk_sizes.check(node.id.read_direct_chunk(offset)[1], kind, declared, where)


def stored_arrays(file: Any, convert: Callable[[Any], Any], skip: tuple[str, ...] = ()) -> dict[str, StoredArray]:
    """Arrays of an open file by path; they are read when needed.

    Args:
      file: h5py.File.
      convert: returns the array, or the list of arrays, of a dataset.
      skip: names of groups that belong to the format itself.
    """
    return {name: each for node, name in datasets(file, "", skip) for name, each in _arrays_of_dataset(node, name, convert)}


def datasets(group: Any, prefix: str, skip: tuple[str, ...]) -> Iterator[tuple[Any, str]]:
    """(dataset, path) of all datasets below a group, in the order of the file; broken links are left out."""
    for name in group:
        if name in skip:
            continue
        node = group.get(name)
        if isinstance(node, h5py.Group):
            yield from datasets(node, f"{prefix}{name}/", skip)
        elif node is not None:
            yield node, prefix + name


def _arrays_of_dataset(node: Any, name: str, convert: Callable[[Any], Any]) -> Iterator[tuple[str, StoredArray]]:
    """Stored array of a dataset, or one for each field of a compound dataset, as tables are."""
    if node.shape is None:
        return
    if node.dtype.names and "re" not in node.dtype.names:
        check_dataset(node)
        for field in node.dtype.names:
            yield f"{name}/{field}", in_memory(decoded(np.asarray(node[field])))
        return
    unit = time_units.stated_unit(node.attrs, node.parent.attrs)
    if node.dtype.kind == "O" or node.ndim == 0:
        yield name, dataclasses.replace(in_memory(convert(node)), unit=unit)
    else:
        kind = {"f": "f", "i": "f", "u": "f", "b": "f", "S": "U"}.get(node.dtype.kind, "?")
        yield name, StoredArray(tuple(node.shape), kind, partial(convert, node), _names_of_axes(node), unit)


def _names_of_axes(node: Any) -> tuple[str, ...]:
    """Labels of the axes of a dataset, or names of the scales attached to them; empty texts where there are none."""
    if not isinstance(node, h5py.Dataset):
        return ()
    return tuple(axis.label or (axis[0].name.rpartition("/")[2] if len(axis) else "") for axis in node.dims)


def read_dataset(node: Any) -> Any:
    """Dataset in memory: numbers, texts as objects, or a list of vectors of unequal lengths."""
    check_dataset(node)
    if node.dtype.kind == "O":
        if h5py.check_string_dtype(node.dtype) is not None:
            return decoded(np.asarray(node.asstr(errors="replace")[()], object))
        flat = np.asarray(node[()], object).reshape(-1)
        if h5py.check_ref_dtype(node.dtype) is not None:
            return [read_dataset(node.file[each]) if each else np.zeros(0) for each in flat]
        vectors = [np.asarray(each) for each in flat]
        return Cells(vectors, node.shape) if node.ndim == 2 and min(node.shape) > 1 else vectors
    return decoded(np.asarray(node[()]))


def decoded(values: np.ndarray) -> np.ndarray:
    """Bytes as texts; other values unchanged."""
    if values.dtype.kind not in "SO":
        return values
    flat = [each.decode("utf-8", "replace") if isinstance(each, bytes) else each for each in values.reshape(-1).tolist()]
    return np.array(flat, object).reshape(values.shape)
