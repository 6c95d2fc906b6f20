"""Reading, checking and writing Zarr stores: errors that name the path, and never a half-written store."""

from __future__ import annotations

import contextlib
import glob
import math
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from rlsnet.config import UserError

CHUNK_BYTES = 32 * 2**20
RENAMES = 5  # attempts to rename a folder while other processes do the same
RENAME_SECONDS = 60  # two renames take less
STALE_SECONDS = 24 * 3600  # nothing is written for longer without a change in its folder


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
    """A temporary path beside `path` that is renamed to it when the block ends well, and removed when it fails.

    Everything is forced to the disk before the rename, so that `path` holds either the old version or the complete new one. The
    old version of a folder is moved away before the rename and removed after it. The temporary name is unique: several processes, also
    on several computers, may replace the same path at the same time, and the last one counts.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _clean_up(path)
    temporary = _unique(path, "tmp")
    try:
        yield temporary
        if temporary.is_dir():
            for folder, _, files in os.walk(temporary):
                for file in files:
                    _sync(Path(folder) / file)
                _sync(Path(folder))
        else:
            _sync(temporary)
        _rename(temporary, path)
    finally:
        remove(temporary)


def _unique(path: Path, kind: str) -> Path:
    """A name beside `path` that no process on any computer has used."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:16]}.{kind}")


def _rename(temporary: Path, path: Path) -> None:
    """Renames a file or a folder to `path`, in place of what is there."""
    for attempt in range(RENAMES):
        old = _unique(path, "old")
        if temporary.is_dir():  # a folder replaces no other folder
            with contextlib.suppress(FileNotFoundError):
                path.rename(old)
        try:
            temporary.replace(path)
            _sync(path.parent)
            remove(old)
            return
        except OSError:
            if path.exists() and attempt + 1 < RENAMES:  # another process was faster
                remove(old)
                continue
            if old.exists() and not path.exists():
                old.rename(path)
            raise


def _clean_up(path: Path) -> None:
    """Restores and removes what a killed process left beside `path` when it was replacing it."""
    old = sorted(path.parent.glob(f".{glob.escape(path.name)}.*old"), key=_age)
    if old and not path.exists() and _age(old[0]) > RENAME_SECONDS:  # killed between the two renames of a folder
        old.pop(0).rename(path)
    for stale in [*old, *path.parent.glob(f".{glob.escape(path.name)}.*.tmp")]:
        if _age(stale) > STALE_SECONDS:
            with contextlib.suppress(OSError):  # another process removes it
                remove(stale)


def _age(path: Path) -> float:
    """Seconds since the last change of a file or a folder; infinite if it is gone."""
    changed = -math.inf
    with contextlib.suppress(FileNotFoundError):
        changed = max(path.stat().st_ctime, path.stat().st_mtime)
        if time.time() - changed > STALE_SECONDS:  # a folder may have changed further down
            changed = max([changed, *(each.stat().st_mtime for each in path.rglob("*"))])
    return time.time() - changed


def remove(path: Path) -> None:
    """Deletes a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def cache_dir() -> Path:
    """Where what can be made again is kept: $RLSNET_CACHE, or rlsnet in $XDG_CACHE_HOME, or ~/.cache/rlsnet."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("RLSNET_CACHE") or Path(base) / "rlsnet")
