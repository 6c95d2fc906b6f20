"""Writer of `rlsnet export`: reads a run, and writes the file or folder of one format, complete or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlsnet.exports.trained_network import TrainedNetwork

FORMATS = ("zarr", "npz", "sonata", "nwb", "nest", "brian2")


def format_module(format: str) -> Any:
    """The module that writes a format, one of FORMATS."""
    return importlib.import_module(f"rlsnet.exports.{format}")


@contextlib.contextmanager
def _prepared(
    run: str | Path, format: str, out: str | Path | None, checkpoint: str, overwrite: bool, trust: bool
) -> Iterator[tuple[Path, TrainedNetwork]]:
    """Context with the path to write and the network, on the CPU; arguments and errors as for `export`."""
    from rlsnet.exports.trained_network import TrainedNetwork
    from rlsnet.io import outputs
    from rlsnet.kernels import device
    from rlsnet.runs.folder import Run

    opened = Run.open(run)
    module = format_module(format)
    if not out:
        opened.refuse_links()
    path = Path(out) if out else opened.path / "export" / module.FILE_NAME
    if out:
        ending = Path(module.FILE_NAME).suffix
        outputs.check_ending(path, (ending,) if ending else (), f"an export to {format}" + ("" if ending else ", a folder,"))
    outputs.check_free(path, module.is_export, f"an export to {format}, and nothing else", "out=", overwrite)
    config = opened.config(trust=trust, whole=True)
    with device.configured(dataclasses.replace(config.engine, platform="cpu", devices=1)):
        yield path, TrainedNetwork.load(opened, checkpoint, config)


def export(
    run: str | Path, format: str, out: str | Path | None = None, checkpoint: str = "auto", overwrite: bool = False, trust: bool = False
) -> tuple[Path, TrainedNetwork]:
    """Exports a trained network and its simulated spikes.

    Args:
      run: the run folder.
      format: one of FORMATS.
      out: the file or folder to write; None: RUN/export/FILE_NAME of the format.
      checkpoint: the weights to export: auto (best, else last), best, last, an iteration or the path of a checkpoint.
      overwrite: whether to replace an earlier export to the same format.
      trust: whether the plugins that the run names may run, now and later.

    Returns:
      The path written, and the network that was exported.

    Raises:
      UserError: the run or checkpoint cannot be read, `out` exists, or the format cannot express the network.
    """
    from rlsnet.io import atomic

    with _prepared(run, format, out, checkpoint, overwrite, trust) as (path, trained), atomic.replacing(path) as temporary:
        format_module(format).write(trained, temporary)
    return path, trained


def try_export(
    run: str | Path, format: str, out: str | Path | None = None, checkpoint: str = "auto", overwrite: bool = False, trust: bool = False
) -> tuple[Path, int, TrainedNetwork]:
    """Exports to a temporary folder, which is removed; arguments and errors as for `export`.

    Returns:
      The path that `export` would write, the size in bytes, and the network.
    """
    with _prepared(run, format, out, checkpoint, overwrite, trust) as (path, trained), tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / path.name
        format_module(format).write(trained, written)
        return path, size_of(written), trained


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
