"""Sources of an import on the disk: patterns, folders that are a recording, and folders that contain recordings."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from rlsnet.data.formats import nwb
from rlsnet.data.formats.registry import READERS
from rlsnet.data.import_options import Options, presets_of_format
from rlsnet.errors import UserError, joined

SEARCHED_SUFFIXES = (".npz", ".mat", ".h5", ".hdf5", ".jld2")  # of files in a folder; a table beside others may be one of trials
MAX_LEVELS = 5  # depth of folders that are searched
ONE_SOURCE = ("phy",)  # formats of which a folder may contain several sortings of the same spikes


def source_paths(sources: Sequence[str | Path], out: Path, options: Options) -> dict[Path, Path | None]:
    """Paths of all sources in order, each once, and the given folder of one that is the only one below; patterns are expanded.

    Args:
      sources: files, folders or patterns.
      out: the new recording, which may not be a source too.
      options: settings of the import; `format` and `preset` are used.

    Raises:
      UserError: a path does not exist, or a folder contains no recordings, or several formats or sortings.
    """
    found: dict[str, tuple[Path, Path | None]] = {}
    for source in map(os.path.expanduser, map(str, sources)):
        matched = [source] if os.path.exists(source) else sorted(glob.glob(source, recursive=True))
        if not matched:
            raise UserError(f"{source}: {'matches no file' if glob.has_magic(source) else 'no such file or folder'}.")
        for each in map(Path, matched):
            paths = _recordings(each, options)
            for path in paths:
                found.setdefault(os.path.realpath(path), (path, each if paths != [each] and len(paths) == 1 else None))
    if os.path.realpath(out) in found:
        raise UserError(f"{out}: is both a source and the new recording; expected another path for the recording.")
    return dict(found.values())


def _recordings(path: Path, options: Options) -> list[Path]:
    """A file or the folder of one recording itself, or else the recordings in a folder."""
    formats = [options.format] if options.format != "auto" else list(READERS)
    if not path.is_dir() or ("nwb" in formats and nwb.matches(path)):
        return [path]
    if "nwb" in formats and path.suffix != ".zarr" and (files := _nwb_below(path)):
        return files
    if any(READERS[name].matches(path) for name in formats):
        return [path]
    found = {name: each for name, each in _below(path).items() if name in formats}
    if len(found) > 1:
        listed = ", ".join(f"{name} ({each[0]}{', ...' if len(each) > 1 else ''})" for name, each in found.items())
        raise UserError(f"{path}: contains recordings in several formats: {listed}; expected one of these, or format={next(iter(found))}.")
    if not found:
        raise UserError(f"{path}: {_nothing_found(path, options)}")
    ((name, paths),) = found.items()
    if name in ONE_SOURCE and len(paths) > 1:
        raise UserError(
            f"{path}: contains {len(paths)} folders in the format {name}: {_listing(paths)}; they may be sortings of the same spikes,"
            " so expected those that are different sessions as sources."
        )
    return paths


def _nwb_below(folder: Path) -> list[Path]:
    """NWB files and stores below a folder."""
    paths = sorted({*folder.rglob("*.nwb"), *folder.rglob("*.nwb.zarr")})
    return [path for path in paths if path.is_file() or nwb.matches(path)]


def _below(folder: Path) -> dict[str, list[Path]]:
    """Recordings below a folder, by format."""
    found: dict[str, list[Path]] = {}
    for name, path in _walk(folder, MAX_LEVELS):
        found.setdefault(name, []).append(path)
    return found


def _walk(folder: Path, levels: int) -> Iterator[tuple[str, Path]]:
    """(format, path) of each recording below a folder; a folder that is a recording is not searched."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or (path.is_file() and path.suffix.lower() not in SEARCHED_SUFFIXES):
            continue
        name = next((name for name, reader in READERS.items() if reader.matches(path)), None)
        if name is not None and (path.is_file() or name != "arrays"):  # .zarr may be an earlier result
            yield name, path
        elif path.is_dir() and path.suffix != ".zarr" and levels > 1:
            yield from _walk(path, levels - 1)


def _nothing_found(path: Path, options: Options) -> str:
    """What a folder is or contains instead of recordings in the format, for a message."""
    if options.format == "auto":
        names = ", ".join(each.name for each in sorted(path.iterdir())[:8]) or "nothing"
        return f"format not recognized; the folder contains {names}. Expected one of {', '.join(READERS)}, or a folder that contains them."
    others = [name for name, reader in READERS.items() if reader.matches(path)] or list(_below(path))
    if not others:
        return f"is a folder without recordings in the format {options.format}; expected another source, or format=auto."
    origin = f", which preset={options.preset} sets" if options.preset else ""
    presets = [f"preset={name}" for name in presets_of_format(others[0])]
    hint = f" ({joined(presets, 'or')})" if presets and options.preset else ""
    return f"is a folder in the format {others[0]}; expected format={others[0]}{hint} and not format={options.format}{origin}."


def _listing(paths: Sequence[Path]) -> str:
    """The first paths, for a message."""
    return ", ".join(map(str, paths[:5])) + (", ..." if len(paths) > 5 else "")
