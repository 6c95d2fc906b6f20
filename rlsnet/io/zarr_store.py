"""Zarr stores: arrays read, checked and written, with error messages that contain the path."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from rlsnet.errors import UserError

CHUNK_BYTES = 32 * 2**20


def open_group(path: str | Path, key: str, expected: str) -> zarr.Group:
    """Zarr group at a path, opened for reading.

    Args:
      path: path of the store.
      key: key of the setting with this path, for messages.
      expected: attribute `format` of the store.

    Raises:
      UserError: if there is no store at the path, or one of another format.
    """
    if not Path(path).exists():
        raise UserError(f"{key}={path}: no such folder; expected a Zarr store of format {expected}.")
    try:
        group = zarr.open_group(str(path), mode="r")
    except Exception as error:  # zarr raises many kinds for a folder that is not a store
        raise UserError(f"{key}={path}: not a Zarr store ({str(error).splitlines()[0]}).") from error
    found = group.attrs.get("format", expected)
    if found != expected:
        raise UserError(f"{key}={path}: has format {found}; expected {expected}.")
    return group


def array(group: zarr.Group, name: str, shape: Sequence[int | str], kind: str, where: str) -> zarr.Array:
    """Array of a group after a check of its shape and kind of number; it is not read yet.

    Args:
      group: an open store.
      name: path within it.
      shape: expected sizes; a letter stands for any size.
      kind: numpy kinds allowed, such as "f" or "iu".
      where: the store's path, for messages.

    Raises:
      UserError: if the array is missing, or has another shape or kind.
    """
    found = group.get(name)
    if not isinstance(found, zarr.Array):
        raise UserError(f"{where}: has no array {name}; expected one of shape [{', '.join(map(str, shape))}].")
    if not _fits(found.shape, shape):
        raise UserError(f"{where}: {name} has shape {list(found.shape)}; expected [{', '.join(map(str, shape))}].")
    if found.dtype.kind not in kind:
        names = {"f": "real numbers", "i": "integers", "b": "booleans", "T": "texts"}
        raise UserError(f"{where}: {name} holds {found.dtype}; expected {names[kind[0]]}.")
    return found


def _fits(shape: Sequence[int], expected: Sequence[int | str]) -> bool:
    """Whether a shape has the expected sizes, of which a letter stands for any size."""
    return len(shape) == len(expected) and all(isinstance(e, str) or e == s for e, s in zip(expected, shape, strict=True))


def read(stored: zarr.Array, part: Any = ...) -> np.ndarray:
    """An array, or the `part` of it that an index selects, in memory; raises UserError if chunks are damaged."""
    try:
        return np.asarray(stored[part])
    except (ValueError, RuntimeError, OSError) as error:  # codecs raise these for an incomplete chunk
        raise UserError(f"{stored.store_path}: cannot be read, the file is damaged ({str(error).splitlines()[0]}).") from error


def texts(stored: zarr.Array) -> np.ndarray:
    """Array as NumPy texts of fixed width; other types are converted."""
    return np.array([str(each) for each in read(stored)])


def open_plain(path: str, key: str, shape: Sequence[int | str]) -> Any:
    """An array in a .npy file or a Zarr array, not yet read; `key` is the setting that gave the path, `shape` as in `array`.

    Raises:
      UserError: if there is no such array, or it is empty or of another shape.
    """
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False) if path.endswith(".npy") else zarr.open_array(path, mode="r")
    except Exception as error:  # numpy and zarr raise many kinds
        raise UserError(f"{key}={path}: cannot be read ({str(error).splitlines()[0]}); expected a .npy file or a Zarr array.") from error
    if not _fits(values.shape, shape) or not values.size:
        raise UserError(f"{key}={path}: has shape {list(values.shape)}; expected [{', '.join(map(str, shape))}].")
    return values


def read_plain(path: str, key: str, shape: Sequence[int | str]) -> np.ndarray:
    """The array of `open_plain` in memory; raises UserError unless all its values are finite numbers."""
    values = np.asarray(open_plain(path, key, shape)[...])
    if values.dtype.kind not in "fiu" or not np.all(np.isfinite(values)):
        raise UserError(f"{key}={path}: expected finite numbers only.")
    return values


def check_complete(stored: zarr.Array) -> None:
    """Raises UserError if chunks of an array are missing, which zarr would read as zeros; for arrays that are written completely."""
    if stored.nchunks_initialized != stored.nchunks:
        raise UserError(f"{stored.store_path}: {stored.nchunks - stored.nchunks_initialized} of {stored.nchunks} chunks are missing.")


def create(
    group: zarr.Group,
    name: str,
    shape: Sequence[int],
    dtype: Any,
    dims: Sequence[str],
    *,
    along: int = 0,
    compress: bool = True,
    **attrs: Any,
) -> zarr.Array:
    """A new array in chunks of about 32 MB along axis `along`.

    A chunk covers the other axes completely, except conditions, which are written one by one.

    Args:
      group: an open store.
      name: path of the array in it.
      shape: of the array.
      dtype: of the array.
      dims: names of its dimensions.
      along: axis that is divided into chunks.
      compress: compress the chunks.
      **attrs: attributes of the array, such as units.
    """
    chunks = [1 if dim == "condition" and len(shape) > 1 else max(1, size) for dim, size in zip(dims, shape, strict=True)]
    row = math.prod(s for axis, s in enumerate(chunks) if axis != along) * np.dtype(dtype).itemsize
    chunks[along] = int(min(chunks[along], max(1, CHUNK_BYTES // max(1, row))))
    options: dict[str, Any] = {} if compress else {"compressors": None}
    options["config"] = {"write_empty_chunks": True}
    return group.create_array(
        name, shape=tuple(shape), dtype=dtype, chunks=tuple(chunks), dimension_names=list(dims), attributes=attrs, **options
    )


def write(group: zarr.Group, name: str, values: Any, dims: Sequence[str], **options: Any) -> None:
    """Writes an array completely; device arrays and texts too. `options` are those of `create`."""
    values = np.asarray(values)
    dtype = str if values.dtype.kind == "U" else values.dtype
    create(group, name, values.shape, dtype, dims, **options)[...] = values


def chunks(stored: zarr.Array, along: int = 0) -> Iterator[slice]:
    """Slices of axis `along` that the chunks of an array cover, in order."""
    size, step = stored.shape[along], stored.chunks[along]
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))
