"""Files and folders that appear under their name only when they are complete, locks, and the cache folder."""

from __future__ import annotations

import contextlib
import glob
import math
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import platformdirs

RENAMES = 5  # attempts to rename a folder while other processes do the same


RENAME_SECONDS = 60  # two renames take less


STALE_SECONDS = 24 * 3600  # a process that writes changes its folder more often than this


def _sync(path: Path) -> None:
    """Forces a file's or folder's content to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Context with a temporary path beside `path`, which is renamed to `path` at the end, or removed after an error.

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
    """Path beside `path` with a name that no process on any computer has used."""
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
            if path.exists() and attempt + 1 < RENAMES:  # another process has renamed it first
                remove(old)
                continue
            if old.exists() and not path.exists():
                old.rename(path)
            raise


def _clean_up(path: Path) -> None:
    """Restores and removes files that a killed process has left beside `path`."""
    old = sorted(path.parent.glob(f".{glob.escape(path.name)}.*old"), key=_age)
    if old and not path.exists() and _age(old[0]) > RENAME_SECONDS:  # killed between the two renames of a folder
        old.pop(0).rename(path)
    for stale in [*old, *path.parent.glob(f".{glob.escape(path.name)}.*.tmp")]:
        if _age(stale) > STALE_SECONDS:
            with contextlib.suppress(OSError):  # another process removes it
                remove(stale)


def _age(path: Path) -> float:
    """Seconds since the last change of a file or a folder; infinite if it no longer exists."""
    changed = -math.inf
    with contextlib.suppress(FileNotFoundError):
        changed = max(path.stat().st_ctime, path.stat().st_mtime)
        if time.time() - changed > STALE_SECONDS:  # the last change may be in a subfolder
            changed = max([changed, *(each.stat().st_mtime for each in path.rglob("*"))])
    return time.time() - changed


def remove(path: Path) -> None:
    """Deletes a file or a folder, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Context with a lock on a path that is about to be made; other processes wait until it has ended, also by an error.

    The lock is a file beside the path. On systems without fcntl nothing is locked.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as file:
        with contextlib.suppress(ImportError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cache_dir() -> Path:
    """Folder of the cache, which only the user can read: $RLSNET_CACHE, or the cache folder of the operating system."""
    path = Path(os.environ.get("RLSNET_CACHE") or platformdirs.user_cache_path("rlsnet", appauthor=False))
    with contextlib.suppress(OSError):  # the place is read-only: a later write raises a more informative error
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
