"""Files and folders that a command writes: only what rlsnet made is replaced, only when the user asks, and no symbolic link is followed."""

from __future__ import annotations

import fnmatch
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rlsnet.errors import UserError

HEAD_BYTES = 4096  # of a file, in which its mark is looked for
PAGE, FIGURE = b'name="generator" content="rlsnet', b"Software\0rlsnet"  # marks of HTML pages and of PNG files
HTML = (".html", ".htm")
ENDINGS = {f".{name}" for name in "html htm png pdf svg zarr nwb npz npy csv tsv json yaml h5 mat parquet txt".split()}  # of known formats
SVG, PDF = (
    b"<dc:title>rlsnet</dc:title>",
    b"% drawn by rlsnet",
)  # marks of SVG files, in the name of their creator, and at the end of PDF files


def check_ending(path: Path, expected: Sequence[str], what: str) -> None:
    """Raises UserError if the ending of a path out= says that it is something else.

    Args:
      path: of the file or folder to be written.
      expected: endings of which a file has one or none; (): a folder, whose name has none of ENDINGS.
      what: what is written, such as "an HTML page".
    """
    ending = path.suffix.lower()
    if ending in expected or (not ending if expected else ending not in ENDINGS):
        return
    hint = f"a name that ends in {expected[0]}" if expected else f"a name without {ending}"
    raise UserError(f"out={path}: {what} is written; expected {hint}, such as {path.with_suffix(expected[0] if expected else '')}.")


def check_free(path: Path, made: Callable[[Path], bool], what: str, key: str, overwrite: bool) -> None:
    """Checks that a path is free, or that what is there may be replaced.

    Args:
      path: of the file or folder to be written.
      made: whether what is at a path is `what`, made by rlsnet, and nothing else.
      what: such as "a page of rlsnet", for messages.
      key: text before the path in messages, such as "out=".
      overwrite: whether the user asks for its replacement.

    Raises:
      UserError: something that rlsnet did not make is there, a symbolic link, or something that the user has not asked to replace.
    """
    refuse_link(path, key)
    if not path.exists():
        return
    if not made(path):
        raise UserError(f"{key}{path}: exists and is not {what}; expected a path that is free.")
    if not overwrite:
        raise UserError(f"{key}{path}: exists already; expected overwrite=true to replace it, or another path.")


def refuse_link(path: Path, key: str = "") -> None:
    """Raises UserError if a path is a symbolic link, even one to nothing; `key` as for `check_free`."""
    if path.is_symlink():
        raise UserError(f"{key}{path}: is a symbolic link to {os.readlink(path)}, which is not followed; expected a path that is none.")


def is_marked(path: Path, marks: Sequence[bytes]) -> bool:
    """Whether a file has one of some marks of rlsnet in its first bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    return any(mark in head for mark in marks)


def is_figure(path: Path) -> bool:
    """Whether a file is a figure that rlsnet drew: PNG, SVG or PDF."""
    return is_marked(path, (FIGURE, SVG)) or (path.is_file() and path.read_bytes().endswith(PDF + b"\n"))


def is_store(path: Path, format: str) -> bool:
    """Whether a folder is a Zarr store with this attribute `format`, and has no other files in it."""
    attributes = read_json(path / "zarr.json").get("attributes")
    if not isinstance(attributes, dict) or attributes.get("format") != format:
        return False
    files = (Path(folder, file).relative_to(path) for folder, _, names in os.walk(path) for file in names)
    return all(file.name == "zarr.json" or "c" in file.parts for file in files)  # chunks are c/0/0 within an array


def has_only(path: Path, patterns: Sequence[str]) -> bool:
    """Whether all files below a folder match patterns of their paths within it."""
    files = (Path(folder, file).relative_to(path).as_posix() for folder, _, names in os.walk(path) for file in names)
    return all(any(fnmatch.fnmatchcase(file, each) and file.count("/") == each.count("/") for each in patterns) for file in files)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; {} if there is none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def html_file(given: str | None, otherwise: Path, overwrite: bool) -> Path:
    """Path of the file of an HTML page.

    Args:
      given: the setting `out`.
      otherwise: the path without that setting, where an earlier page of rlsnet is always replaced.
      overwrite: whether an earlier page of rlsnet at `given` may be replaced.

    Raises:
      UserError: the path is a folder, a symbolic link, or a file that may not be replaced, or has the ending of another format.
    """
    out = otherwise if given is None else Path(given)
    if out.is_dir():
        raise UserError(f"out={out}: a folder; expected the name of a file, such as {out / 'report.html'}.")
    check_ending(out, HTML, "an HTML page")
    made = partial(is_marked, marks=(PAGE,))
    check_free(out, made, "a page that rlsnet wrote", "out=", overwrite or given is None)
    return out
