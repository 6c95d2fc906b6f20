"""Reading, checking and writing Zarr stores: errors that name the path, and never a half-written store."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import zarr

from rlsnet.config import UserError

CHUNK_BYTES = 32 * 2**20


def open_group(path: str | Path, key: str, expected: str) -> zarr.Group:
    """The Zarr group at `path`; `key` is the setting that named it, `expected` its format attribute."""
    if not Path(path).exists():
        raise UserError(f"{key}={path}: no such folder; expected a Zarr store of format {expected}.")
    try:
        group = zarr.open_group(str(path), mode="r")
    except Exception as error:  # zarr raises many kinds for a folder that is not a store
        raise UserError(f"{key}={path}: not a Zarr store ({str(error).splitlines()[0]}).") from error
    found = group.attrs.get("format", expected)
    if found != expected:
        raise UserError(f"{key}={path}: holds format {found}; expected {expected}.")
    return group


def array(group: zarr.Group, name: str, shape: Sequence[int | str], kind: str, where: str) -> zarr.Array:
    """The array `name` of a group, its shape and kind of number checked.

    Args:
      group: an open store.
      name: path within it.
      shape: expected sizes; a letter stands for any size.
      kind: numpy kinds allowed, such as "f" or "iu".
      where: the store's path, for the message.
    """
    found = group.get(name)
    if not isinstance(found, zarr.Array):
        raise UserError(f"{where}: has no array {name}; it should be there, of shape [{', '.join(map(str, shape))}].")
    fits = len(found.shape) == len(shape) and all(isinstance(s, str) or s == f for s, f in zip(shape, found.shape, strict=True))
    if not fits:
        raise UserError(f"{where}: {name} has shape {list(found.shape)}; expected [{', '.join(map(str, shape))}].")
    if found.dtype.kind not in kind:
        names = {"f": "real numbers", "i": "integers", "b": "booleans", "T": "texts"}
        raise UserError(f"{where}: {name} holds {found.dtype}; expected {names[kind[0]]}.")
    return found


def read(stored: zarr.Array, part: Any = ...) -> np.ndarray:
    """An array, or a part of it, in memory; raises UserError where chunks are missing or damaged."""
    try:
        return np.asarray(stored[part])
    except (ValueError, RuntimeError, OSError) as error:  # what codecs raise for a chunk that was cut short
        raise UserError(f"{stored.store_path}: cannot be read, the file is damaged ({str(error).splitlines()[0]}).") from error


def texts(stored: zarr.Array) -> np.ndarray:
    """An array of texts, or of anything else as texts, of numpy's own type of fixed width."""
    return np.array([str(each) for each in read(stored)])


def open_plain(path: str, key: str, shape: Sequence[int | str]) -> Any:
    """An array in a .npy file or a Zarr array, not yet read; `key` is the setting that named it, `shape` as in `array`."""
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False) if path.endswith(".npy") else zarr.open_array(path, mode="r")
    except Exception as error:  # as many kinds as there are ways to be no array
        raise UserError(f"{key}={path}: cannot be read ({str(error).splitlines()[0]}); expected a .npy file or a Zarr array.") from error
    fits = values.ndim == len(shape) and all(isinstance(s, str) or s == f for s, f in zip(shape, values.shape, strict=True))
    if not fits or not values.size:
        raise UserError(f"{key}={path}: has shape {list(values.shape)}; expected [{', '.join(map(str, shape))}].")
    return values


def read_plain(path: str, key: str, shape: Sequence[int | str]) -> np.ndarray:
    """`open_plain`, read; raises UserError unless all are finite numbers."""
    values = np.asarray(open_plain(path, key, shape)[...])
    if values.dtype.kind not in "fiu" or not np.all(np.isfinite(values)):
        raise UserError(f"{key}={path}: should hold finite numbers.")
    return values


def check_complete(stored: zarr.Array) -> None:
    """Whether every chunk is there, for arrays written with all of them; zarr would fill holes with zeros."""
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
    """A new array in chunks of about 32 MB along axis `along`; `attrs` such as units go with it.

    The other axes are whole in a chunk, but for conditions, which are written one by one.
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
    """Writes a whole array, device arrays and strings included."""
    values = np.asarray(values)
    dtype = str if values.dtype.kind == "U" else values.dtype
    create(group, name, values.shape, dtype, dims, **options)[...] = values


def chunks(stored: zarr.Array, along: int = 0) -> Iterator[slice]:
    """The slices of axis `along` that the chunks of an array cover, in order."""
    size, step = stored.shape[along], stored.chunks[along]
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


def _sync(path: Path) -> None:
    """Forces a file's or folder's content to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends well, and is gone when it does not.

    Everything is forced to the disk before the rename, so that `path` is either the old thing or the whole new one. A
    folder's old version is moved away before and removed after.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    old = path.with_name(f".{path.name}.old")
    if old.exists() and not path.exists():  # killed between the two renames below
        old.rename(path)
    for stale in (temporary, old):
        remove(stale)
    try:
        yield temporary
        if temporary.is_dir():
            for folder, _, files in os.walk(temporary):
                for file in files:
                    _sync(Path(folder) / file)
                _sync(Path(folder))
            if path.exists():
                path.rename(old)
        else:
            _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
        remove(old)
    finally:
        remove(temporary)


def remove(path: Path) -> None:
    """Deletes a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def cache_dir() -> Path:
    """The folder of files that can be made again: $RLSNET_CACHE, or the user's cache of the operating system; made for the user alone."""
    path = Path(os.environ.get("RLSNET_CACHE") or platformdirs.user_cache_path("rlsnet", appauthor=False))
    with contextlib.suppress(OSError):  # a read-only place: the error of the one who writes there says more
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
