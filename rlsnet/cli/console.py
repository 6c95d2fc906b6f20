"""Output of a long command that goes on when nobody can read it any more: a closed terminal, a pipe without reader, a full disk."""

from __future__ import annotations

import codecs
import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

log = logging.getLogger("rlsnet_file")  # which does not write to the console
log.addHandler(logging.NullHandler())  # commands without a log


def _any_text(error: UnicodeError) -> tuple[str | bytes, int]:
    """Bytes of a file name as they are, where they are no text, and escapes for what a terminal cannot show."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


codecs.register_error("rlsnet", _any_text)


class LastingStream:
    """A text stream whose text is dropped from the first error of the system on; all else is that of the stream.

    lost: that error, or None.
    """

    def __init__(self, stream: Any):
        self._stream = stream
        self.lost: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes a text; returns its length."""
        try:
            if self.lost is None:
                self._stream.write(text)
        except OSError as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Passes on what is buffered."""
        try:
            if self.lost is None:
                self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Connects the stream with the null device, also for what it has buffered."""
        self.lost = error
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)
        log.warning("The output can no longer be written (%s); the run goes on, and its messages are in rlsnet.log.", error.strerror)


def keep_running() -> None:
    """Makes sys.stdout and sys.stderr lasting, for the rest of the process."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, LastingStream):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="rlsnet")
            setattr(sys, name, LastingStream(stream))


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """Context in which sys.stdout and sys.stderr are lasting."""
    before = sys.stdout, sys.stderr
    keep_running()
    try:
        yield
    finally:
        _flush()
        sys.stdout, sys.stderr = before


def _flush() -> None:
    """Passes on what sys.stdout and sys.stderr have buffered."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def lost_output() -> OSError | None:
    """Why a lasting sys.stdout could not be written; None if it could, or if its reader has closed it."""
    _flush()
    lost = getattr(sys.stdout, "lost", None)
    return None if isinstance(lost, BrokenPipeError) else lost
