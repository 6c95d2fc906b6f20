"""Removal of what a start made that failed before anything was computed, so that a mistake leaves no run folder behind.

Only files that rlsnet and Hydra write in the start of a run are removed, only where they did not exist before, and folders only if they
are new and empty.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from rlsnet.io import atomic
from rlsnet.runs.folder import IN_PLACE, Run

MADE = (*IN_PLACE, "config.yaml", "network.zarr", "recording.zarr", "ingest.json", "earlier_units.json", "models")
RESULTS = ("metrics.jsonl", "test.zarr", "checkpoints", "perturbed", "stream.zarr")  # a run with one of them has computed something


class Starts:
    """Folders in which runs of this process start, and what was in them before."""

    def __init__(self) -> None:
        self._before: list[tuple[Path, set[str], list[Path]]] = []

    def add(self, path: str | Path) -> None:
        """Notes what is at the path of a run folder, which need not exist yet."""
        path = Path(path).absolute()
        there = {name for name in MADE if (path / name).exists() or (path / name).is_symlink()}
        self._before.append((path, there, [each for each in (path, *path.parents) if not each.exists()]))

    def forget_last(self) -> None:
        """Forgets the folder that was added last."""
        self._before.pop()

    def remove_unused(self) -> None:
        """Removes from the folders what the starts made, if these have computed nothing."""
        for path, there, new_folders in self._before:
            if any((path / name).exists() for name in RESULTS) or Run(path).busy():
                continue
            with contextlib.suppress(OSError):  # a folder that is not empty, or that another process uses
                for name in MADE:
                    if name not in there and name != ".hydra":
                        atomic.remove(path / name)
                for folder in (*([] if ".hydra" in there else [path / ".hydra"]), *new_folders):
                    if folder.is_dir():
                        folder.rmdir()
        self._before.clear()


STARTS = Starts()  # of this process
