"""Tables and datasets of NWB files, read in bulk with h5py; damaged files raise a UserError of one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from rlsnet.errors import UserError


@contextlib.contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open HDF5 file; raises UserError if it does not exist, is cut short, or is not HDF5."""
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        if path.is_dir():
            reason = "is a folder, perhaps NWB in Zarr; expected NWB in HDF5"
        elif isinstance(error, FileNotFoundError) or not path.exists():
            reason = "no such file"
        elif "truncated" in str(error):
            reason = "is cut short; copy or download it again"
        else:
            reason = f"is not a readable HDF5 file ({str(error).splitlines()[0]})"
        raise UserError(f"{path}: {reason}.") from error
    with file:
        yield file


def read_dataset(stored: Any, path: Path) -> np.ndarray:
    """Dataset in memory, texts as objects; raises UserError if the file is damaged."""
    try:
        return np.asarray(stored.asstr(errors="replace")[...] if h5py.check_string_dtype(stored.dtype) else stored[...])
    except (OSError, RuntimeError) as error:
        text = str(error).splitlines()[0]
        if "filter" in text:
            raise UserError(f"{path}: {stored.name} is compressed with a filter that is not installed; pip install hdf5plugin.") from error
        raise UserError(f"{path}: {stored.name} cannot be read; the file is damaged ({text}).") from error


def read_plain_columns(group: Any, path: Path) -> dict[str, np.ndarray]:
    """Columns of a table with one number, text or boolean in each row; ragged columns and references are left out."""
    size = len(group["id"]) if "id" in group else max((len(each) for each in group.values() if getattr(each, "ndim", 0) == 1), default=0)
    columns = {}
    for name in group:
        stored = group.get(name)
        ragged = name + "_index" in group or (name.endswith("_index") and name[: -len("_index")] in group)
        if not isinstance(stored, h5py.Dataset) or ragged or stored.shape != (size,):
            continue
        if h5py.check_string_dtype(stored.dtype) or stored.dtype.kind in "biuf":
            columns[name] = read_dataset(stored, path)
    return columns


def read_ragged_index(group: Any, name: str, path: Path, size: int) -> np.ndarray:
    """Index [rows + 1] of a ragged column with `size` values: row i has the values index[i] to index[i + 1] - 1.

    Raises:
      UserError: the index does not ascend, or exceeds the values.
    """
    index = np.concatenate([[0], read_dataset(group[name], path).astype(np.int64)])
    if (np.diff(index) < 0).any() or index[-1] > size:
        raise UserError(
            f"{path}: {group.name}/{name}: expected ascending numbers up to {size:,}, the number of values; the file is damaged."
        )
    return index
