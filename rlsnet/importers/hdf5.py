"""Plain HDF5: arrays found by their usual names, or by `variables`, as paths within the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rlsnet.config import UserError
from rlsnet.importers import tables
from rlsnet.importers.interpret import read as interpret
from rlsnet.importers.named import Leaf, leaf
from rlsnet.importers.options import Options
from rlsnet.importers.session import Ready, Session

EXTENSIONS = (".h5", ".hdf5", ".hdf", ".he5")


def matches(path: Path) -> bool:
    """Whether a source is called as HDF5 files are."""
    return path.suffix.lower() in EXTENSIONS


def read(path: Path, options: Options) -> Session | Ready:
    """The session, or the ready rates, of one file; raises UserError where it holds neither."""
    if not path.is_file():
        raise UserError(f"{path}: no such file.")
    with tables.reading(path):
        import h5py

        with h5py.File(path, "r") as file:
            length = file.attrs.get("bin_ms")
            return interpret(
                path, leaves(file, value), options, bin_ms=None if length is None else float(np.asarray(length).reshape(-1)[0])
            )


def leaves(file: Any, convert: Callable[[Any], Any], skip: tuple[str, ...] = ()) -> dict[str, Leaf]:
    """What an open file holds, by path, read when it is wanted.

    Args:
      file: h5py.File.
      convert: the array, or list of arrays, of a dataset.
      skip: groups that are the format's own.
    """
    return {name: each for node, name in datasets(file, "", skip) for name, each in _leaves_of(node, name, convert)}


def datasets(group: Any, prefix: str, skip: tuple[str, ...]) -> Iterator[tuple[Any, str]]:
    """(dataset, path) of all below a group, in its order; links that lead nowhere are left out."""
    import h5py

    for name in group:
        if name in skip:
            continue
        node = group.get(name)
        if isinstance(node, h5py.Group):
            yield from datasets(node, f"{prefix}{name}/", skip)
        elif node is not None:
            yield node, prefix + name


def _leaves_of(node: Any, name: str, convert: Callable[[Any], Any]) -> Iterator[tuple[str, Leaf]]:
    """The leaf of a dataset, or one a field of a compound one, as tables are."""
    if node.shape is None:
        return
    if node.dtype.names and "re" not in node.dtype.names:
        for field in node.dtype.names:
            yield f"{name}/{field}", leaf(texts(np.asarray(node[field])))
    elif node.dtype.kind == "O" or node.ndim == 0:
        yield name, leaf(convert(node))
    else:
        kind = {"f": "f", "i": "f", "u": "f", "b": "f", "S": "U"}.get(node.dtype.kind, "?")
        yield name, Leaf(tuple(node.shape), kind, partial(convert, node))


def value(node: Any) -> Any:
    """A dataset in memory: numbers, texts as objects, or a list of vectors (of unequal lengths, or references)."""
    import h5py

    if node.dtype.kind == "O":
        if h5py.check_string_dtype(node.dtype) is not None:
            return texts(np.asarray(node.asstr(errors="replace")[()], object))
        flat = np.asarray(node[()], object).reshape(-1)
        if h5py.check_ref_dtype(node.dtype) is not None:
            return [value(node.file[each]) for each in flat if each]
        return [np.asarray(each) for each in flat]
    return texts(np.asarray(node[()]))


def texts(values: np.ndarray) -> np.ndarray:
    """Bytes as texts; anything else as it is."""
    if values.dtype.kind not in "SO":
        return values
    flat = [each.decode("utf-8", "replace") if isinstance(each, bytes) else each for each in values.reshape(-1).tolist()]
    return np.array(flat, object).reshape(values.shape)
