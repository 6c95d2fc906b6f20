"""From what laboratories store to a recording.zarr: one module a format, spikes and trials session by session.

A module of `FORMATS` has `matches(path) -> bool` and `read(path, options) -> Session | Ready`.
"""

from __future__ import annotations

import dataclasses
import glob
import importlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlsnet.config import UserError
from rlsnet.importers.options import FORMATS, Options, base

if TYPE_CHECKING:
    from rlsnet.importers.parts import Pool
    from rlsnet.importers.session import Ready, Session

__all__ = ["FORMATS", "USAGE", "Options", "base", "import_recordings", "main"]

USAGE = """SOURCE... OUT.zarr [key=value ...]
  SOURCE   files or folders of recordings, or patterns such as 'data/*.nwb'; one session each, pooled into one recording
  OUT.zarr the recording that is made, for rlsnet train recording.path=OUT.zarr

Examples:
  rlsnet import sub-440956/*.nwb map.zarr preset=map
  rlsnet import session.nwb out.zarr align=go_cue_time window=[-1,1] bin=10 conditions.hit="outcome == 'hit'" regions=[ALM]
  rlsnet import kilosort/ out.zarr preset=phy trials_table=trials.csv align=stimulus"""


def main(paths: Sequence[str], options: Options) -> None:
    """`rlsnet import SOURCE... OUT.zarr`."""
    from rlsnet.importers import told

    if len(paths) < 2:
        raise UserError(f"import {' '.join(paths)}: expected one source or more and, last, the recording to make, such as OUT.zarr.")
    started = time.perf_counter()
    found = import_recordings(paths[:-1], paths[-1], options, say=told.line)
    told.summary(found, paths[-1], time.perf_counter() - started)


def import_recordings(sources: Sequence[str | Path], out: str | Path, options: Options | None = None, say: Any = print) -> Pool:
    """Makes one recording.zarr of recordings, a session at a time.

    Args:
      sources: files or folders, or patterns of them.
      out: the recording; an older one there is replaced.
      options: what to take and how to average it.
      say: hears a line about each source.

    Raises:
      UserError: in one line, where anything is not as it should be; nothing is written then.
    """
    from rlsnet.importers import pool, psth

    options = options or Options()
    psth.bins(options)
    path = _output(Path(out))
    return pool.pool(_read(_expanded(sources, path, options.format), options), path, options, say)


def _output(path: Path) -> Path:
    """The path of the recording, where one may be written: nothing, or an older recording."""
    if path.suffix != ".zarr":
        raise UserError(f"import {path}: the last path is the recording to make; should end in .zarr.")
    if path.exists():
        from rlsnet import recordings, zarrio

        zarrio.open_group(path, "import", recordings.FORMAT)  # raises where it is something else
    return path


def _expanded(sources: Sequence[str | Path], out: Path, format: str) -> list[Path]:
    """Patterns as the paths that they match, and folders of NWB files as these, in order, each once."""
    found: dict[str, Path] = {}
    for source in map(os.path.expanduser, map(str, sources)):
        matched = [source] if os.path.exists(source) else sorted(glob.glob(source, recursive=True))
        if not matched:
            pattern = glob.has_magic(source)
            raise UserError(f"import {source}: {'matches no file' if pattern else 'no such file or folder'}.")
        for each in map(Path, matched):
            folder = each.is_dir() and each.suffix != ".zarr" and format in ("auto", "nwb")
            within = sorted(path for path in each.rglob("*.nwb") if path.is_file()) if folder else []
            for path in within or [each]:
                found.setdefault(os.path.realpath(path), path)
    if os.path.realpath(out) in found:
        raise UserError(f"import {out}: is a source and the recording to make; expected another path.")
    return list(found.values())


def _read(paths: Sequence[Path], options: Options) -> Iterator[Session | Ready]:
    """The sources, read when it is their turn."""
    from rlsnet.importers import filters, session

    for path in paths:
        name = options.format if options.format != "auto" else detect(path)
        source = _module(name).read(path, options)
        if options.region_column is not None and name != "nwb":
            filters.known(options.region_column, source.units, f"region_column={options.region_column}", f"the units of {path}")
            source = dataclasses.replace(source, units={**source.units, "region": source.units[options.region_column]})
        yield session.ordered(source) if isinstance(source, session.Session) else source


def detect(path: Path) -> str:
    """The format of a file or folder by what it looks like; raises UserError where it looks like none."""
    for name in FORMATS:
        if _module(name).matches(path):
            return name
    raise UserError(f"{path}: looks like no format that is known; expected {', '.join(FORMATS)}, perhaps said with format=NAME.")


def _module(name: str) -> Any:
    """The module of a format; raises UserError where it needs a package that is not installed."""
    return importlib.import_module(f"rlsnet.importers.{name}")
