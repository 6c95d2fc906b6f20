"""Mistakes in the input of a user: the exception, and suggestions of similar words, and lists of words."""

from __future__ import annotations

import difflib
import errno
import importlib
import os
from collections.abc import Iterable
from typing import Any


class UserError(Exception):
    """A mistake in the input: the message is one line that says where it is and what was expected."""


def os_error(error: OSError) -> str:
    """An error of the operating system as one line."""
    if error.filename is None and error.errno == errno.ENOENT:
        try:
            os.getcwd()
        except FileNotFoundError:
            return "the current folder no longer exists; change to one that does."
    return f"{error.filename or 'file system'}: {str(error.strerror or error).rstrip('.')}."


def first_line(error: BaseException) -> str:
    """First line of the text of an error, or its type if it has no text."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def did_you_mean(word: str, known: Iterable[str], prefix: str = "", cutoff: float = 0.6) -> str:
    """' Did you mean PREFIX+KNOWN?' for the known word most similar to `word`, upper and lower case alike; '' where none is similar."""
    by_lower_case = {each.lower(): each for each in known}
    close = difflib.get_close_matches(word.lower(), by_lower_case, 1, cutoff)
    return f" Did you mean {prefix}{by_lower_case[close[0]]}?" if close else ""


def joined(words: Iterable[object], last: str = "and") -> str:
    """Words as a list in a sentence, such as a, b and c."""
    *first, final = [*map(str, words)] or [""]
    return f"{', '.join(first)} {last} {final}" if first else final


def package(name: str, extra: str, what: str) -> Any:
    """A package of an extra, imported; raises UserError with the command that installs it. `what` needs it, for the message."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"{what}: needs {name}; pip install 'rlsnet[{extra}]' installs it.") from error
