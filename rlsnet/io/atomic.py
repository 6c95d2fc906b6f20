"""Files and folders that appear under their name only when they are complete, locks, and the cache folder."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import fnmatch
import functools
import glob
import hashlib
import logging
import math
import os
import platform
import re
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import platformdirs
import psutil

from rlsnet.io import locks

log = logging.getLogger(__name__)

RENAMES = 5  # attempts to rename a folder while other processes do the same
RENAME_SECONDS = 60  # two renames take less
STALE_SECONDS = 24 * 3600  # a process that writes changes its folder more often than this
# host, process, its start, a random part; earlier versions had the number of the process, or a random part alone
TEMPORARY = re.compile(r"\.(?:(?P<host>[0-9a-f]{12})-(?P<process>\d+)-(?P<start>\d+)-[0-9a-f]{8}|\d+|[0-9a-f]{16})\.(?:tmp|old)$")


def _sync(path: Path) -> None:
    """Forces a file's or folder's content to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Context in which an OSError that names no file, as that of a full disk, names `path`."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Context with a temporary path beside `path`, which is renamed to `path` at the end, or removed after an error.

    Everything is forced to the disk before the rename, so that `path` holds either the old version or the complete new one. The
    old version of a folder is exchanged for the new one or, on systems that cannot do that, moved away before the rename, and removed
    afterwards. An OSError names the path. The temporary name is unique: several processes, also
    on several computers, may replace the same path at the same time, and the last one counts.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _clean_up(path)
    with scratch(path) as temporary, naming(path):
        yield temporary
        if temporary.is_dir():
            for folder, _, files in os.walk(temporary):
                for file in files:
                    _sync(Path(folder) / file)
                _sync(Path(folder))
        else:
            _sync(temporary)
        _rename(temporary, path)


@contextlib.contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Context with a path beside `path` for a temporary file or folder, which is removed at the end."""
    temporary = _unique(path, "tmp")
    try:
        yield temporary
    finally:
        remove(temporary)


def _unique(path: Path, kind: str) -> Path:
    """Path beside `path` with a name that no process on any computer has used; it tells which process uses it."""
    return path.with_name(f".{path.name}.{_host()}-{os.getpid()}-{_started(os.getpid())}-{uuid.uuid4().hex[:8]}.{kind}")


@functools.cache
def _host() -> str:
    """Hash of what a number of a process belongs to: this computer since its start, and its container."""
    about = [platform.node()]
    with contextlib.suppress(OSError):  # these are of Linux
        about += [Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")]
    return hashlib.sha256("".join(about).encode()).hexdigest()[:12]


def _started(process: int) -> int:
    """Start of a process of this computer, which distinguishes it from others with the same number; 0: unknown."""
    with contextlib.suppress(OSError, IndexError, ValueError):  # in clock ticks since the start of the computer, not of its clock
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(process).create_time())
    return 0


def _in_use(temporary: Path) -> bool:
    """Whether a process may still use a temporary file or folder: it lives, or is of another computer and wrote not long ago."""
    about = TEMPORARY.search(temporary.name)
    if about is None or about["host"] != _host():
        return _age(temporary) <= STALE_SECONDS
    process = int(about["process"])
    return psutil.pid_exists(process) and _started(process) in (int(about["start"]), 0)


def _temporaries(folder: Path, name: str, kind: str) -> list[Path]:
    """Temporary files and folders, of a kind (tmp or old), of the targets with a name or pattern in a folder."""
    found = []
    for path in folder.glob(f".{name}.*.{kind}"):
        about = TEMPORARY.search(path.name)
        if about is not None and fnmatch.fnmatchcase(path.name[1 : about.start()], name):
            found.append(path)
    return found


def remove_leftovers(folder: Path, name: str = "*", locked: bool = False, kind: str = "tmp") -> None:
    """Removes what killed processes have left in a folder; what a living process uses stays.

    Args:
      folder: the folder; it need not exist.
      name: name or pattern of the files and folders that were to be made.
      locked: whether only this process may make them, so that no other process uses what is found.
      kind: tmp, or old for what was being replaced.
    """
    for temporary in _temporaries(folder, name, kind):
        if locked or not _in_use(temporary):
            with contextlib.suppress(OSError):  # another process removes it
                remove(temporary)


def _rename(temporary: Path, path: Path) -> None:
    """Renames a file or a folder to `path`, in place of what is there."""
    for attempt in range(RENAMES):
        old = _unique(path, "old")
        if temporary.is_dir() and path.exists() and _exchange(temporary, path):
            _sync(path.parent)
            return
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


def _exchange(temporary: Path, path: Path) -> bool:
    """Exchanges two paths, each of which exists at all times; returns False where the system or the file system cannot do that."""
    if sys.platform != "linux":
        return False
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2  # of glibc since 2.28, and of musl since 1.2.5
    except AttributeError:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(rename(here, os.fsencode(temporary), here, os.fsencode(path), exchange) == 0)


def _clean_up(path: Path) -> None:
    """Restores and removes what killed processes have left beside `path`."""
    name = glob.escape(path.name)
    old = sorted(_temporaries(path.parent, name, "old"), key=_age)
    if old and not os.path.lexists(path) and (_age(old[0]) > RENAME_SECONDS or not _in_use(old[0])):  # killed between the two renames
        old[0].rename(path)
    for kind in ("old", "tmp"):
        remove_leftovers(path.parent, name, kind=kind)


def _age(path: Path) -> float:
    """Seconds since the last change of a file or a folder; infinite if it no longer exists."""
    changed = -math.inf
    with contextlib.suppress(FileNotFoundError):
        changed = max(path.stat().st_ctime, path.stat().st_mtime)
        if time.time() - changed > STALE_SECONDS:  # the last change may be in a subfolder
            changed = max([changed, *(each.stat().st_mtime for each in path.rglob("*"))])
    return time.time() - changed


def remove(path: Path) -> None:
    """Deletes a file or a folder, if it exists; of a symbolic link, the link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def discard(path: Path) -> None:
    """Deletes a file or a folder, which at no time exists in part under its name."""
    gone = _unique(path, "tmp")
    with contextlib.suppress(FileNotFoundError):
        path.rename(gone)
        remove(gone)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Context with a lock on a path that is about to be made; other processes wait until it has ended, also by an error.

    The lock is a file beside the path. On file systems without locks nothing is locked.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as file:
        locks.flock(file, exclusive=True, wait=True)
        yield


@functools.cache
def _temporary_cache(reason: str) -> Path:
    """A cache folder that is removed when this process ends; the reason for the user."""
    path = Path(tempfile.mkdtemp(prefix="rlsnet-cache-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    log.warning("%s: the cache is in %s until this command ends. RLSNET_CACHE=FOLDER names a lasting one.", reason, path)
    return path


@functools.cache
def _warn_of_cache(path: Path) -> None:
    text = "The cache %s is not used, as others can write there or it is no folder; expected another one of your own, RLSNET_CACHE=FOLDER."
    log.warning(text, path)


def refusal(folder: Path, n_bytes: int = 2**20) -> str | None:
    """Why a folder cannot take a file of `n_bytes`, as the operating system says it; None if it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".trial", suffix=".tmp", buffering=0) as trial:
            return None if trial.write(bytes(n_bytes)) == n_bytes else os.strerror(errno.ENOSPC)
    except OSError as error:
        return error.strerror or str(error)


def is_private(path: Path) -> bool:
    """Whether a file or folder belongs to the user, or the administrator, and nobody else can write it; no symbolic link is."""
    try:
        about = path.lstat()
    except OSError:
        return False
    owned = not hasattr(os, "geteuid") or about.st_uid in (os.geteuid(), 0)
    return owned and not path.is_symlink() and (os.name == "nt" or not about.st_mode & 0o022)


def cache_dir() -> Path:
    """Folder of the cache: $RLSNET_CACHE, or the cache folder of the operating system.

    Compiled programs in it run as the user. A folder that others can write is therefore not used, but that of the operating system; if
    there is none, as for a user without a home folder in some containers, a temporary one for this process.
    """
    given, reason = os.environ.get("RLSNET_CACHE"), "This user has no home folder"
    folders = [Path(os.path.expanduser(given))] if given else []
    if os.environ.get("XDG_CACHE_HOME") or os.path.isabs(os.path.expanduser("~")):
        folders.append(platformdirs.user_cache_path("rlsnet", appauthor=False))
    for path in folders:
        with contextlib.suppress(OSError):  # the place is read-only: a later write raises a more informative error
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.is_dir() or is_private(path.resolve()):
            return path
        _warn_of_cache(path)
        reason = "No folder for a cache of your own"
    return _temporary_cache(reason)


def cache_of_programs(name: str) -> Path:
    """Folder in the cache for compiled programs, which only the user can write.

    Nothing is removed that somebody else has made: where others can write to what has the name, or it is no folder, another name is used.
    """
    for path in (cache_dir() / name, cache_dir() / f"rlsnet-{name}"):
        if not os.path.lexists(path) or (path.is_dir() and is_private(path)):
            with contextlib.suppress(OSError):  # as in `cache_dir`
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            return path
        _warn_of_cache(path)
    return _temporary_cache(f"No folder for {name} of your own") / name
