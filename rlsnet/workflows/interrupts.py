"""Ctrl-C before the loop of a command, which must not be lost: a library may swallow KeyboardInterrupt in a callback or a destructor."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class _Remembering:
    """Handler of SIGINT that raises KeyboardInterrupt, as that of Python, and remembers that it did."""

    seen = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        raise KeyboardInterrupt


@contextlib.contextmanager
def remembered() -> Iterator[None]:
    """Context in which `check` knows of a SIGINT; for the main thread, unless another program handles SIGINT itself."""
    mine = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    before = signal.signal(signal.SIGINT, _Remembering()) if mine else None
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGINT, before)


def check() -> None:
    """Raises KeyboardInterrupt if there was a SIGINT whose KeyboardInterrupt did not end the command."""
    if getattr(signal.getsignal(signal.SIGINT), "seen", False):
        raise KeyboardInterrupt
