"""Small sessions in NWB for tests, from scripts/example_sessions.py, and altered copies of them."""

import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import h5py

_spec = importlib.util.spec_from_file_location("example_sessions", Path(__file__).parents[1] / "scripts" / "example_sessions.py")
example_sessions = sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(example_sessions)


def write(folder: Path, layout: str = "map", units: tuple[int, ...] = (24, 40), trials: int = 80) -> list[tuple[Path, object]]:
    """(path, simulated session) of each session, in the layout map or ibl."""
    written = []
    for index, size in enumerate(units):
        path = folder / f"{layout}-{index + 1}.nwb"
        written.append((path, example_sessions.LAYOUTS[layout](path, index, size, trials)))
    return written


def altered(path: Path, target: Path, change: Callable[[h5py.File], None]) -> Path:
    """Copy of a session, changed by a function of its open file."""
    shutil.copy(path, target)
    with h5py.File(target, "r+") as file:
        change(file)
    return target


def put(file: h5py.File, name: str, values, **attributes) -> None:
    """Replaces a dataset and keeps its attributes."""
    original = dict(file[name].attrs)
    del file[name]
    file[name] = values
    file[name].attrs.update(original | attributes)
