"""Lock of a folder by one process: flock or, on file systems without it, a file that names the computer and the process."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import platform
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import psutil

log = logging.getLogger(__name__)

NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EBADF}  # of file systems without flock
LOOK_SECONDS = 0.05  # longer than another process looks whether a lock is held

_held: set[Path] = set()  # lock files of this process


class Taken(Exception):
    """Another process has the lock; the text says which one, where that is known."""


def flock(file: IO[Any], exclusive: bool, wait: bool = False) -> bool:
    """Locks an open file until it is closed; returns False where the file system has no such locks.

    Raises:
      Taken: another process has the lock, and `wait` is false.
    """
    try:
        import fcntl

        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB))
    except ImportError:  # the operating system has none
        return False
    except BlockingIOError as error:
        raise Taken from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    return True


@contextlib.contextmanager
def held(path: Path, file: IO[Any]) -> Iterator[None]:
    """Context in which this process alone has the lock of `path`.

    Without flock a file PATH.holder is made, which a process that is killed leaves behind: it counts no longer if its process has ended
    on this computer. Of another computer nothing is known, and the lock is taken until somebody removes the file.

    Args:
      path: the lock file.
      file: the same, open.

    Raises:
      Taken: another process has the lock.
    """
    if _flock_after_a_look(file):
        yield
        return
    mark = _mark(path)
    _make(mark)
    log.warning("%s: this file system has no locks (flock); instead the file %s marks the folder as in use.", path.parent, mark.name)
    _held.add(mark)
    try:
        yield
    finally:
        _held.discard(mark)
        mark.unlink(missing_ok=True)


def _flock_after_a_look(file: IO[Any]) -> bool:
    """`flock` for this process alone; tries once more, as a process that only looks (`is_held`) has the lock for an instant."""
    try:
        return flock(file, exclusive=True)
    except Taken:
        time.sleep(LOOK_SECONDS)
        return flock(file, exclusive=True)


def is_held(path: Path) -> bool:
    """Whether another process has the lock of a path."""
    try:
        with path.open() as file:
            return not flock(file, exclusive=False) and _holder(_mark(path)) is not None
    except FileNotFoundError:
        return False
    except Taken:
        return True


def _mark(path: Path) -> Path:
    return path.absolute().with_name(f"{path.name}.holder")


def _make(mark: Path) -> None:
    """Makes the file that stands for a lock; raises Taken if a process that may run has made it."""
    text = json.dumps({"host": platform.node(), "pid": os.getpid()})
    while True:
        try:
            with mark.open("x") as file:  # one process succeeds, also over a network
                file.write(text)
            return
        except FileExistsError:
            if (holder := _holder(mark)) is not None:
                raise Taken(holder) from None
        left = mark.with_name(f"{mark.name}.{uuid.uuid4().hex[:16]}.tmp")
        with contextlib.suppress(FileNotFoundError):  # another process removes it too
            mark.rename(left)
            if _holder(left, mark) is not None:  # it was that of a process that has just removed the old one
                with contextlib.suppress(FileExistsError):
                    os.link(left, mark)
            left.unlink()


def _holder(mark: Path, name: Path | None = None) -> str | None:
    """The process that has made a file of a lock, in words; None if there is no such file, or if the process has ended.

    name: the path under which that process knows the file.
    """
    try:
        about = json.loads(mark.read_text())
        host, pid = str(about["host"]), int(about["pid"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return f"{mark} does not say which; remove it if none does"
    if host != platform.node():
        return f"process {pid} on {host}; if it has ended, remove {mark}"
    running = (name or mark) in _held if pid == os.getpid() else psutil.pid_exists(pid)
    return f"process {pid} on this computer" if running else None
