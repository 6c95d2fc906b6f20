"""Tables and datasets of NWB files in HDF5 or Zarr, read in bulk; damaged files raise a UserError of one line."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from rlsnet.data.formats import hdf5, nwb_zarr, table_files
from rlsnet.errors import UserError


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open HDF5 file or Zarr store; raises UserError if it does not exist, is cut short, or is neither of the two."""
    if path.is_dir():
        with table_files.one_line_errors(path):
            yield nwb_zarr.open_store(path)
        return
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        if isinstance(error, FileNotFoundError) or not path.exists():
            reason = "no such file"
        elif "truncated" in str(error):
            reason = "is cut short; copy or download it again"
        else:
            reason = f"is not a readable HDF5 file ({str(error).splitlines()[0]})"
        raise UserError(f"{path}: {reason}.") from error
    with file, table_files.one_line_errors(path):
        hdf5.check_links(file)
        yield file


def is_group(node: Any) -> bool:
    """Whether a node of a file is a group."""
    return isinstance(node, h5py.Group | nwb_zarr.Group)


def is_dataset(node: Any) -> bool:
    """Whether a node of a file is a dataset."""
    return node is not None and not is_group(node)


def is_text(stored: Any) -> bool:
    """Whether a dataset contains texts."""
    return nwb_zarr.is_text(stored) if not isinstance(stored, h5py.Dataset) else h5py.check_string_dtype(stored.dtype) is not None


def read_dataset(stored: Any, path: Path) -> np.ndarray:
    """Dataset in memory, texts as objects; raises UserError if the file is damaged."""
    if not isinstance(stored, h5py.Dataset):
        return nwb_zarr.read_array(stored, path)
    hdf5.check_dataset(stored)
    try:
        return np.asarray(stored.asstr(errors="replace")[...] if is_text(stored) else stored[...])
    except (OSError, RuntimeError) as error:
        text = str(error).splitlines()[0]
        if "filter" in text:
            raise UserError(f"{path}: {stored.name} is compressed with a filter that is not installed; pip install hdf5plugin.") from error
        raise UserError(f"{path}: {stored.name} cannot be read; the file is damaged ({text}).") from error


def read_plain_columns(group: Any, path: Path) -> dict[str, np.ndarray]:
    """Columns of a table with one number, text or boolean in each row, and the texts of ragged columns with commas between them.

    Other ragged columns and references are left out.
    """
    size = (
        group["id"].shape[0]
        if "id" in group
        else max((each.shape[0] for each in group.values() if getattr(each, "ndim", 0) == 1), default=0)
    )
    columns = {}
    for name in group:
        stored, ends = group.get(name), group.get(f"{name}_index")
        if is_dataset(stored) and is_dataset(ends) and is_text(stored) and stored.ndim == 1 and ends.shape == (size,):
            index, words = read_ragged_index(group, f"{name}_index", path, stored.shape[0]), read_dataset(stored, path)
            columns[name] = np.array([", ".join(words[start:stop]) for start, stop in itertools.pairwise(index)], object)
        ragged = ends is not None or (name.endswith("_index") and name[: -len("_index")] in group)
        if not is_dataset(stored) or ragged or stored.shape != (size,):
            continue
        if is_text(stored) or stored.dtype.kind in "biuf":
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
