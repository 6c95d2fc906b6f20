"""Numbers, durations and sizes as short texts, and the console that tables are printed to."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import rich
from rich.console import Console

UNDEFINED = "–"  # a number that is missing or not finite


def number(value: Any, spec: str = ".3f") -> str:
    """A number by a format specification, a rounded zero without a minus; a dash where it is missing or not finite."""
    if value is None or not np.isfinite(value):
        return UNDEFINED
    text = format(value, spec)
    return text if text.strip("-0.") else text.replace("-", "")


def counted(n: int, noun: str) -> str:
    """A number of things, such as 1 unit or 2,000 units."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def in_words(value: Any, spec: str = ".2f") -> str:
    """A number within a sentence, by a format specification; "undefined" where it is missing or not finite."""
    text = number(value, spec)
    return "undefined" if text == UNDEFINED else text


def percent(share: float | None, digits: int = 0) -> str:
    """A share in percent, such as 72 %; "undefined" where it is missing or not finite."""
    if share is None or not np.isfinite(share):
        return "undefined"
    return f"{round(100 * share, digits) + 0.0:.{digits}f} %"


def duration(seconds: float) -> str:
    """A duration such as 12 s, 3.4 min or 2.1 h."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def readable(name: object) -> str:
    """A name as a text that any file and figure takes: bytes of a file name that are no text are written as escapes."""
    return str(name).encode("utf-8", "backslashreplace").decode()


def byte_size(size: float) -> str:
    """A number of bytes such as 4.3 GB, in powers of 1000."""
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def bytes_below(folder: Path) -> int:
    """Bytes of all files below a folder on the disk; holes in files, and files that another process removes meanwhile, count 0."""
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if file.is_file():
                about = file.stat()
                total += min(about.st_size, getattr(about, "st_blocks", about.st_size) * 512)  # Windows has no blocks
    return total


def disk_size(folder: Path) -> str:
    """The size of all files below a folder."""
    return byte_size(bytes_below(folder))


def console(width: int = 120) -> Console:
    """A console for tables: as wide as the terminal, or `width` columns where the output is redirected."""
    terminal = rich.get_console()  # on which a sign of work may be shown too
    return terminal if terminal.is_terminal else Console(width=width)
