"""Display of progress: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import rich
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from rlsnet.io.formatting import byte_size

log = logging.getLogger(__name__)

PLAIN_EVERY = 2.0  # s, between two plain lines


class ConsoleHandler(logging.Handler):
    """Log handler that prints records above a live bar, on the console of rich, without line wrapping."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a record."""
        rich.get_console().print(self.format(record), soft_wrap=True, markup=False, highlight=False, emoji=False)


class LogFile(logging.FileHandler):
    """Log handler that appends to a file, but not to that behind a symbolic link: a run with one there is refused.

    Names of files that are no text are written with escapes.
    """

    def _open(self) -> Any:
        link = Path(self.baseFilename).is_symlink()
        return open(os.devnull if link else self.baseFilename, self.mode, encoding=self.encoding, errors=self.errors or "backslashreplace")


def memory_used() -> int:
    """Bytes in use on the GPU or, without one, the resident memory of this process."""
    import jax

    stats = jax.local_devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    return int(stats["bytes_in_use"]) if stats else int(psutil.Process().memory_info().rss)


def format_line(line: dict[str, Any]) -> str:
    """Correlation, rate, duration and memory of an iteration as text."""
    correlation = "undefined" if line["correlation"] is None else f"{line['correlation']:.3f}"
    rate = "undefined" if line["rate_hz"] is None else f"{line['rate_hz']:.2f} Hz"
    return f"correlation {correlation}  rate {rate}  {line['seconds']:.3g} s  memory {byte_size(line['memory'])}"


class _Plain:
    """Display of plain lines: for the first and the last iteration, and every few seconds between them."""

    def __init__(self, total: int, done: int):
        self.total, self.done, self.start, self.before = total, done, time.monotonic(), -PLAIN_EVERY
        self.first = done

    def advance(self, line: dict[str, Any]) -> None:
        """Shows the metrics of one more iteration."""
        self.done += 1
        now = time.monotonic()
        if now - self.before >= PLAIN_EVERY or self.done == self.total:
            self.before = now
            left = (now - self.start) / (self.done - self.first) * (self.total - self.done)
            log.info("iteration %d/%d  %s  %.0f s left", self.done, self.total, format_line(line), left)


class _Live:
    """Display with a live bar."""

    def __init__(self, bar: RichProgress, total: int, done: int):
        self.bar, self.task = bar, bar.add_task("training", total=total, completed=done, text="")

    def advance(self, line: dict[str, Any]) -> None:
        """Shows the metrics of one more iteration."""
        self.bar.update(self.task, advance=1, text=format_line(line))


class _Silent:
    """Display that shows nothing."""

    def advance(self, line: dict[str, Any]) -> None:
        """Shows the metrics of one more iteration."""


class Progress:
    """Display of progress, one bar at a time.

    mode: auto, rich, plain or off.
    iteration: the current iteration of training, else None.
    """

    iteration: int | None = None

    def __init__(self, mode: str):
        self.mode = ("rich" if rich.get_console().is_terminal else "plain") if mode == "auto" else mode

    @contextlib.contextmanager
    def bar(self, total: int, done: int) -> Iterator[_Plain | _Live | _Silent]:
        """Context with a display of training iterations, of which `done` of `total` were computed before."""
        if self.mode != "rich":
            yield _Plain(total, done) if self.mode == "plain" else _Silent()
            return
        columns = (BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[text]}"))
        with RichProgress(*columns, console=rich.get_console()) as bar:
            yield _Live(bar, total, done)

    @contextlib.contextmanager
    def counting(self, items: str) -> Iterator[Callable[[int, int], None]]:
        """Context with a function (done, total) that shows how many `items` are done."""
        if self.mode == "rich":
            with RichProgress(TextColumn(items), BarColumn(24), MofNCompleteColumn(), transient=True, console=rich.get_console()) as bar:
                task = bar.add_task(items, total=None)
                yield lambda done, total: bar.update(task, completed=done, total=total)
            return
        before = time.monotonic()

        def show(done: int, total: int) -> None:
            nonlocal before
            if self.mode == "plain" and (time.monotonic() - before >= PLAIN_EVERY):
                before = time.monotonic()
                log.info("%s: %d of %d", items, done, total)

        yield show
