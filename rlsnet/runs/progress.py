"""Display of progress: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import rich
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from rlsnet.io import terminal
from rlsnet.io.formatting import byte_size, duration, percent

log = logging.getLogger(__name__)

PLAIN_EVERY = 2.0  # s, between two plain lines
MEAN_OVER = 20  # iterations whose mean correlation is shown
BAR_WIDTH = 10  # columns


class ConsoleHandler(logging.Handler):
    """Log handler that prints records above a live bar, on the console of rich.

    On a terminal, its lines are fitted to the width.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a record."""
        console, text = rich.get_console(), self.format(record)
        if console.is_terminal:
            text = terminal.fitted(text, max(terminal.FEWEST, console.width))
        console.print(text, soft_wrap=True, markup=False, highlight=False, emoji=False)


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


@contextlib.contextmanager
def working(what: str, console: Console | None = None) -> Iterator[None]:
    """Context in which a terminal shows what is being done, with the time since its start; elsewhere nothing is shown.

    Args:
      what: shown text.
      console: where it is shown; None: standard output or, if that is no terminal, standard error.
    """
    console = console or (rich.get_console() if rich.get_console().is_terminal else Console(stderr=True))
    if not console.is_terminal:
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with RichProgress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        bar.add_task(what, total=None)
        yield


class _Display:
    """Numbers of a display of training iterations: means over the last iterations, and the time left.

    done, total: iterations computed, those before this start included, and planned.
    """

    def __init__(self, total: int, done: int):
        self.total, self.done, self.first, self.start = total, done, done, time.monotonic()
        self._correlations: collections.deque[float] = collections.deque(maxlen=MEAN_OVER)
        self._validation: float | None = None

    def add(self, line: Mapping[str, Any]) -> None:
        """Counts an iteration, with its metrics."""
        self.done += 1
        if line["correlation"] is not None:
            self._correlations.append(line["correlation"])
        self._validation = line.get("validation", self._validation)

    def parts(self, line: Mapping[str, Any]) -> list[str]:
        """The numbers after an iteration with their labels, the most important first."""
        left = (time.monotonic() - self.start) / max(1, self.done - self.first) * (self.total - self.done)
        known = list(self._correlations)
        mean = f"{sum(known) / len(known):.3f}" if known else "undefined"
        rate = "undefined" if line["rate_hz"] is None else f"{line['rate_hz']:.3g} Hz"
        parts = [f"{duration(left)} left", f"mean correlation {mean}", f"{line['seconds']:.2g} s/iter.", f"rate {rate}"]
        parts += [] if self._validation is None else [f"validation {percent(self._validation)}"]
        return [*parts, f"memory {byte_size(line['memory'])}"]

    def text(self, line: Mapping[str, Any]) -> str:
        """A plain line about an iteration."""
        correlation = "undefined" if line["correlation"] is None else f"{line['correlation']:.3f}"
        left, mean, *others = self.parts(line)
        over = f"{mean} over the last {len(self._correlations)}, " if len(self._correlations) > 1 else ""
        return f"iteration {self.done}/{self.total}: correlation {correlation}, {over}{', '.join(others)}, {left}"


class _Plain(_Display):
    """Display of plain lines: for the first and the last iteration, and every few seconds between them."""

    before = -PLAIN_EVERY

    def advance(self, line: Mapping[str, Any]) -> None:
        """Shows the metrics of one more iteration."""
        self.add(line)
        now = time.monotonic()
        if now - self.before >= PLAIN_EVERY or self.done == self.total:
            self.before = now
            log.info("%s", self.text(line))


class _Live(_Display):
    """Display with a live bar, which disappears at its end; the last line stays, and is in the log."""

    def __init__(self, bar: RichProgress, total: int, done: int):
        super().__init__(total, done)
        self.bar, self.last = bar, ""
        self.task = bar.add_task("training", total=total, completed=done, text="first iteration")

    def advance(self, line: Mapping[str, Any]) -> None:
        """Shows the metrics of one more iteration."""
        self.add(line)
        room = self.bar.console.width - BAR_WIDTH - 2 * len(str(self.total)) - 4
        shown = self.parts(line)
        while len(shown) > 1 and sum(map(len, shown)) + 2 * (len(shown) - 1) > room:
            shown.pop()
        self.last = self.text(line)
        self.bar.update(self.task, advance=1, text="  ".join(shown))


class _Silent:
    """Display that shows nothing."""

    def advance(self, line: Mapping[str, Any]) -> None:
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
        columns = (BarColumn(BAR_WIDTH), MofNCompleteColumn(), TextColumn("{task.fields[text]}"))
        with RichProgress(*columns, console=rich.get_console(), transient=True) as bar:
            live = _Live(bar, total, done)
            yield live
        if live.last:
            log.info("%s", live.last)

    @contextlib.contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Context in which a terminal shows what is being done, with the time since its start."""
        with working(what, rich.get_console()) if self.mode == "rich" else contextlib.nullcontext():
            yield

    @contextlib.contextmanager
    def counting(self, items: str, total: int | None = None) -> Iterator[Callable[[int, int], None]]:
        """Context with a function (done, total) that shows how many `items` are done; `total` is shown before its first call."""
        if self.mode == "rich":
            with RichProgress(TextColumn(items), BarColumn(24), MofNCompleteColumn(), transient=True, console=rich.get_console()) as bar:
                task = bar.add_task(items, total=total, visible=total is not None)
                yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)
            return
        before = time.monotonic()

        def show(done: int, total: int) -> None:
            nonlocal before
            if self.mode == "plain" and (time.monotonic() - before >= PLAIN_EVERY):
                before = time.monotonic()
                log.info("%s: %d of %d", items, done, total)

        yield show
