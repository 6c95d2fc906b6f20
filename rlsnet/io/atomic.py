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


STALE_SECONDS = 24 * 3600  # nothing is written for longer without a change in its folder


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


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """A lock on a path that is about to be made: other processes wait here until the block has ended, however it ends.

    The lock is a file beside the path. On systems without fcntl nothing is locked.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as file:
        with contextlib.suppress(ImportError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cache_dir() -> Path:
    """The folder of files that can be made again: $RLSNET_CACHE, or the user's cache of the operating system; made for the user alone."""
    path = Path(os.environ.get("RLSNET_CACHE") or platformdirs.user_cache_path("rlsnet", appauthor=False))
    with contextlib.suppress(OSError):  # a read-only place: the error of the one who writes there says more
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
