"""Files of a run that another process is writing: read anew after each change, and never waited for.

The last content that could be read is kept while a file is missing, is being replaced or is damaged.
"""

from __future__ import annotations

import math
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from rlsnet.errors import first_line
from rlsnet.io import zarr_store
from rlsnet.io.formatting import readable
from rlsnet.runs.metrics import read_lines

Content = TypeVar("Content")

REST = 10  # after a reading, times its duration: at most a tenth of one core is used, however large the files
ATTEMPTS = 3  # to read a store that is replaced meanwhile
MOST_CHARACTERS = 120  # of a text that is shown


def signature(path: Path) -> tuple[int, int, int] | None:
    """What changes with each version of a file or store: inode, time of its last change and size; None if there is none."""
    try:
        about = os.stat(path)
        if stat.S_ISDIR(about.st_mode):
            about = os.stat(path / zarr_store.METADATA)
    except OSError:
        return None
    return (about.st_ino, about.st_mtime_ns, about.st_size) if stat.S_ISREG(about.st_mode) else None


class Source(Generic[Content]):
    """A file or store, and its content.

    content: the last one that could be read; None before the first.
    problem: why the present one cannot be read; "" if it can, or if there is none.
    version: number of contents that were read so far.
    """

    def __init__(self, path: Path, read: Callable[[Path], Content]):
        self.path = path
        self.content: Content | None = None
        self.problem = ""
        self.version = 0
        self._seen: tuple[int, int, int] | None = None  # signature of what `content` was read from
        self._read, self._earliest = read, -math.inf

    def refresh(self) -> None:
        """Reads the file if it has changed, unless that took so long before that it would be too much work."""
        found = signature(self.path)
        if found is None:
            self._seen, self.problem = None, ""
            return
        if found == self._seen or time.monotonic() < self._earliest:
            return
        began = time.monotonic()
        for _ in range(ATTEMPTS):
            self._attempt()
            self._seen, found = (None if self.problem else found), signature(self.path)
            if found == self._seen or found is None:
                break
        self._earliest = time.monotonic() + REST * (time.monotonic() - began)

    def _attempt(self) -> None:
        """Reads the file once."""
        try:
            self.content = self._read(self.path)
            self.problem = ""
            self.version += 1
        except FileNotFoundError:  # it is being replaced
            self.problem = ""
        except Exception as error:  # a damaged file raises errors of every kind, and none of them may end the view
            self.problem = text(first_line(error), 300)


class Lines:
    """Lines of a file of JSON lines that are objects, and the number of those that are damaged."""

    def __init__(self, path: Path):
        found = [line for _, line in read_lines(path)]
        self.lines: list[dict[str, Any]] = [line for line in found if isinstance(line, dict)]
        self.n_damaged = len(found) - len(self.lines)


def text(value: Any, most: int = MOST_CHARACTERS) -> str:
    """A value as a text on one line, without control characters, and with at most `most` characters."""
    shown = "".join(each if each.isprintable() else " " for each in readable(value)[: most + 1])
    return f"{shown[: most - 1]}…" if len(shown) > most else shown


def number(value: Any) -> float | None:
    """A finite number as it is; None for all else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else None


def count(value: Any) -> int | None:
    """A whole number of at least 0 as it is; None for all else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def known(lines: Iterable[Mapping[str, Any]], name: str) -> list[float]:
    """The values of some lines that are numbers."""
    return [value for line in lines if (value := number(line.get(name))) is not None]


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are known; None if none is."""
    found = [each for each in values if each is not None]
    return math.fsum(found) / len(found) if found else None


def rounded(value: Any) -> float | None:
    """A number with 4 digits, as it is sent to a page; None if it is unknown."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")


def all_rounded(values: Iterable[Any]) -> list[float | None]:
    """Numbers with 4 digits, None where they are unknown."""
    return [rounded(value) for value in values]
