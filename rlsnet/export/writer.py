"""Writer of `rlsnet export`: reads a run, and writes the file or folder of one format, complete or not at all."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlsnet.errors import UserError

if TYPE_CHECKING:
    from rlsnet.export.trained_network import TrainedNetwork

FORMATS = ("zarr", "npz", "sonata", "nwb", "nest", "brian2")
SCRIPT_TITLES = {"nest": "in NEST", "brian2": "in Brian2"}  # in the first line of the exported simulate.py


def format_module(format: str) -> Any:
    """The module that writes a format, one of FORMATS."""
    return importlib.import_module(f"rlsnet.export.{format}")


def export(
    run: str | Path, format: str, out: str | Path | None = None, checkpoint: str = "auto", overwrite: bool = False
) -> tuple[Path, TrainedNetwork]:
    """Exports a trained network and its simulated spikes.

    Args:
      run: the run folder.
      format: one of FORMATS.
      out: the file or folder to write; None: RUN/export/FILE_NAME of the format.
      checkpoint: the weights to export: auto (best, else last), best, last, an iteration or the path of a checkpoint.
      overwrite: whether to replace an earlier export to the same format.

    Returns:
      The path written, and the network that was exported.

    Raises:
      UserError: the run or checkpoint cannot be read, `out` exists, or the format cannot express the network.
    """
    from rlsnet.export.trained_network import TrainedNetwork
    from rlsnet.io import atomic
    from rlsnet.kernels import device
    from rlsnet.runs.folder import Run

    opened = Run.open(run, "export")
    module = format_module(format)
    path = Path(out) if out else opened.path / "export" / module.FILE_NAME
    _check_out(path, format, module.MARKER, overwrite)
    with device.configured(dataclasses.replace(opened.config().engine, platform="cpu")):
        trained = TrainedNetwork.load(opened, checkpoint)
        with atomic.replacing(path) as temporary:
            module.write(trained, temporary)
    return path, trained


def _check_out(path: Path, format: str, marker: str | None, overwrite: bool) -> None:
    """Checks that `path` is free, or an export to the same format that may be replaced; raises UserError."""
    if not path.exists():
        return
    if not _is_export(path, format, marker):
        raise UserError(f"out={path}: exists and is not an export to {format}; expected a path that is free.")
    if not overwrite:
        raise UserError(f"out={path}: exists already; expected overwrite=true to replace it, or another out=PATH.")


def _is_export(path: Path, format: str, marker: str | None) -> bool:
    """Whether the file or folder at `path` is an export to a format."""
    if marker is None:
        import h5py

        if not path.is_file() or not h5py.is_hdf5(path):
            return False
        with h5py.File(path, "r") as file:
            return b"rlsnet " in bytes(file["identifier"][()])[:7] if "identifier" in file else False
    file = path / marker
    if not file.is_file():
        return False
    if format == "zarr":
        return json.loads(file.read_text()).get("attributes", {}).get("format") == "rlsnet-export"
    return format not in SCRIPT_TITLES or SCRIPT_TITLES[format] in (path / "simulate.py").read_text()[:60]
