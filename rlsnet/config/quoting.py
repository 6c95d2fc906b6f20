"""Paths as values of settings: read from a command line, written in Hydra's grammar, and printed such that they can be typed again."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

QUOTED = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)
ITEM = re.compile(rf"\s*({QUOTED.pattern})\s*(?=,|\Z)|[^,]*", re.DOTALL)
PLAIN_PATH = re.compile(r"(?:[A-Za-z_/]|\.\.?/)[\w./:@%+-]*", re.ASCII)  # what Hydra reads as a text, if it has a dot or a slash
WORD = re.compile(r"auto|best|last|null|none|true|false|\d+", re.IGNORECASE)  # what a setting may take in place of a path
SWEEP = re.compile(r"(choice|range|interval|glob|shuffle|sort|tag)\(")  # Hydra's functions


def in_quotes(text: str) -> str:
    """A text in quotes, by the rules of Hydra's grammar."""
    return "'" + re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text) + "'"


def unquoted(text: str) -> str:
    """A text without the quotes around all of it; another text as it is."""
    if not QUOTED.fullmatch(text) or os.path.exists(text):
        return text
    return re.sub(rf"(\\+)({text[0]}|\Z)", lambda found: "\\" * (len(found[1]) // 2) + found[2], text[1:-1])


def items(text: str) -> list[str]:
    """The parts of a text between commas; a comma within a part in quotes separates nothing."""
    parts, at = [], 0
    while at <= len(text):
        found = ITEM.match(text, at)
        assert found is not None  # it also matches nothing
        parts.append(found[0].strip())
        at = found.end() + 1
    return parts


def path_list(text: str) -> list[str]:
    """The paths in a text [A,B], or the one path of another text."""
    inner = text[1:-1].strip() if text[:1] == "[" and text[-1:] == "]" else None
    return [unquoted(each) for each in ([text] if inner is None else items(inner) if inner else [])]


def path_of(text: str) -> str | None:
    """The path that a text on the command line gives, without quotes and with ~ expanded; None for null and for an empty text."""
    return None if text in ("", "null") else os.path.expanduser(unquoted(text))


def hydra_path(path: str) -> str:
    """A path in Hydra's grammar; ${...} is an interpolation unless there is a file of that name."""
    path = os.path.expanduser(path)
    if "${" in path and (os.path.exists(path) or not re.search(r"\$\{[^{}]*\}", path)):
        path = re.sub(r"(?<!\\)(\\*)(?=\$\{)", r"\1\1\\", path)
    return path if PLAIN_PATH.fullmatch(path) and re.search("[./]", path) else in_quotes(path)


def hydra_value(text: str, single: bool, sweep: bool) -> str:
    """The value of a key that holds a path, in Hydra's grammar.

    Args:
      text: the value on the command line.
      single: whether the key never has several values.
      sweep: whether the command is a sweep. There a comma separates several values, unless a file has that name. Elsewhere it belongs to
        the path, unless it separates names with one ending, as of a sweep without sweep=FOLDER: Hydra then says so.
    """
    if text in ("", "null") or (sweep and SWEEP.match(text)):
        return text
    parts = [text] if single or "," not in text or os.path.exists(os.path.expanduser(text)) else items(text)
    endings = {Path(unquoted(each)).suffix for each in parts}
    if not sweep and (len(endings) > 1 or "" in endings):
        parts = [text]
    return ",".join(hydra_path(unquoted(each)) for each in parts)


def hydra_list(text: str, sweep: bool) -> str:
    """The value of a key that holds a list of paths, in Hydra's grammar."""
    if text in ("", "null") or (sweep and (SWEEP.match(text) or re.search(r"\]\s*,\s*\[", text))):
        return text
    listed = ",".join(map(hydra_path, path_list(text)))
    return f"[{listed}]" if text[:1] == "[" and text[-1:] == "]" else listed


def typed_setting(key: str, path: str | Path) -> str:
    """key=PATH as one argument of a command, which reads the same path again and no `WORD`; `shlex.quote` prepares it for the shell."""
    text = str(path)
    if text.startswith("~") or WORD.fullmatch(text):
        text = f"./{text}"
    if text == "" or text[:1] in ("'", '"', "[") or "," in text or SWEEP.match(text):
        text = in_quotes(text)
    return f"{key}={text}"


def typed_path(path: str | Path) -> str:
    """A path as one argument of a command, which takes it for no option, no setting and not for the newest run."""
    text = str(path)
    return f"./{text}" if text[:1] in ("-", "~") or text == "last" or ("=" in text and "/" not in text.partition("=")[0]) else text


def typed_command(command: str, *paths: str | Path, settings: Mapping[str, str | Path] | None = None, more: Sequence[Any] = ()) -> str:
    """Line that a user can type in a shell.

    Args:
      command: the command of rlsnet, such as train.
      paths: its paths.
      settings: paths by key.
      more: further arguments, as they are typed.
    """
    words = [*map(typed_path, paths), *(typed_setting(key, path) for key, path in (settings or {}).items()), *map(str, more)]
    return " ".join([f"rlsnet {command}", *map(shlex.quote, words)])
