"""Runs below a folder: found by the files that every run has, without opening them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from rlsnet.errors import UserError

IGNORED = ".rlsnet-ignore"  # a file in folders of runs that are no runs of the user, such as those of tests
LAST = "last"  # stands for the newest run on the command line
DEPTH = 4  # levels of folders that are searched where no folder is named: multirun/DATE/TIME/JOB has four


def run_folders(path: Path, depth: int | None = None) -> Iterator[Path]:
    """The run folder at `path`, or those below it, including runs that have not started.

    Stores, hidden folders, and folders with a file IGNORED are not searched.

    Args:
      path: folder to search.
      depth: levels of folders below `path` that are searched; None: all.
    """
    if (path / "config.yaml").exists():
        yield path
        return
    for folder, below, files in os.walk(path):
        if IGNORED in files:
            below.clear()
        elif "config.yaml" in files and _is_of_hydra(Path(folder)):
            below.clear()
        elif "config.yaml" in files or ".hydra" in below:
            below.clear()
            yield Path(folder)
        elif depth is not None and len(Path(folder).relative_to(path).parts) >= depth:
            below.clear()
        below[:] = sorted((name for name in below if not name.endswith(".zarr") and not name.startswith(".")), key=_by_number)


def _is_of_hydra(folder: Path) -> bool:
    """Whether a folder with a config.yaml is one of configurations, such as configs/ of a checkout, and not a run."""
    with contextlib.suppress(OSError):
        return any(line.startswith(b"defaults:") for line in (folder / "config.yaml").read_bytes().splitlines())
    return False


def _by_number(name: str) -> tuple[int, int, str]:
    """A key that sorts numbers by value and before other names."""
    return (0, int(name), "") if name.isdecimal() else (1, 0, name)


def started(run: Path) -> float:
    """Time at which a run was last started or continued, in s since 1970; of its folder if it has not started."""
    for path in (run / "config.yaml", run):
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
    return 0.0


def newest_first(path: Path, depth: int | None = None) -> list[Path]:
    """The run folders at or below a folder, those first that were started or continued last."""
    return sorted(run_folders(path, depth), key=started, reverse=True)


def newest(path: Path) -> Path:
    """The run below a folder that was started or continued last.

    Raises:
      UserError: there is none.
    """
    started_runs = [run for run in newest_first(path, DEPTH) if (run / "config.yaml").exists()]
    if not started_runs:
        where = "the present folder" if path == Path() else path
        raise UserError(
            f"{LAST}: there is no run in {where} or in the {DEPTH} levels of folders below it; expected the path of a run folder."
        )
    return started_runs[0]
