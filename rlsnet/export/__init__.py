"""`rlsnet export`: a trained network and its simulated spikes in the formats of other tools, one module a format.

A format is a module of this package with

    NAME     of what it writes within RUN/export
    MARKER   a file within a folder that says it is such an export; None where a single file is written
    OPEN     how a user opens it, one line with {out} in it
    write(trained, path)   writes it all to `path`, which is not there yet
"""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlsnet.config import UserError, key

if TYPE_CHECKING:
    from rlsnet.export.trained import Trained

FORMATS = ("zarr", "npz", "sonata", "nwb", "nest", "brian2")
USAGE = "RUN to=FORMAT [key=value ...]   or --to FORMAT, and so on"


@dataclasses.dataclass(frozen=True)
class Options:
    """What to export, and where to."""

    to: str = key(
        "the format: zarr (all of it, for xarray), npz (SciPy sparse matrices), sonata (nodes, edges, spikes), nwb (spikes as"
        " units), nest or brian2 (a script that runs the network)",
        choices=FORMATS,
    )
    out: str | None = key("the file or folder to write; null: within RUN/export", default=None)
    checkpoint: str = key("whose weights: last, best, an iteration or the path of a checkpoint", default="last")
    overwrite: bool = key("true: replace an earlier export of the same name", default=False)


def main(paths: list[str], options: Options) -> None:
    """`rlsnet export RUN to=FORMAT`."""
    if len(paths) != 1:
        raise UserError(f"export {' '.join(paths)}: expected one run, such as rlsnet export outputs/2026-11-21/10-00-00 to={options.to}.")
    from rlsnet.engine import restrict_to_cpu

    restrict_to_cpu()
    out, trained = export(paths[0], options)
    size = sum(file.stat().st_size for file in ([out] if out.is_file() else out.rglob("*")) if file.is_file())
    from rlsnet.memory import in_words

    print(f"Wrote {out} ({in_words(size)}): {trained.in_words()}.")
    print(importlib.import_module(f"rlsnet.export.{options.to}").OPEN.format(out=out))
    for line in trained.left_out(options.to):
        print(line)


def export(path: str | Path, options: Options) -> tuple[Path, Trained]:
    """Writes an export, whole or not at all; raises UserError.

    Args:
      path: the run folder.
      options: what and where to.

    Returns:
      What was written, and what it was made from.
    """
    from rlsnet import engine, zarrio
    from rlsnet.convert import from_dict
    from rlsnet.describe import with_defaults
    from rlsnet.export.trained import Trained
    from rlsnet.store import Run

    run = Run.open(path, "export")
    module: Any = importlib.import_module(f"rlsnet.export.{options.to}")
    out = Path(options.out) if options.out else run.path / "export" / module.NAME
    _check_free(out, options, module.MARKER)
    config = from_dict(with_defaults(run.saved_config()))
    with engine.configured(dataclasses.replace(config.engine, platform="cpu")):
        trained = Trained.of(run, options.checkpoint)
        with zarrio.replacing(out) as temporary:
            module.write(trained, temporary)
    return out, trained


def _is_export(out: Path, to: str, marker: str | None) -> bool:
    """Whether what is there was written by an export to that format, or looks so."""
    if marker is None:
        import h5py

        if not out.is_file() or not h5py.is_hdf5(out):
            return False
        with h5py.File(out, "r") as file:
            return b"rlsnet " in bytes(file["identifier"][()])[:7] if "identifier" in file else False
    path = out / marker
    if not path.is_file():
        return False
    told = json.loads(path.read_text())
    if to == "zarr":
        return told.get("attributes", {}).get("format") == "rlsnet-export"
    tool = {"nest": "in NEST", "brian2": "in Brian2"}.get(to, "")
    return tool in (out / "simulate.py").read_text()[:60] if tool else True


def _check_free(out: Path, options: Options, marker: str | None) -> None:
    """Whether `out` may be written: not there, or an export of the same format that is to be replaced; raises UserError."""
    if not out.exists():
        return
    if not _is_export(out, options.to, marker):
        raise UserError(f"out={out}: is there and no export to {options.to}; expected a path that is free.")
    if not options.overwrite:
        raise UserError(f"out={out}: is there already; overwrite=true replaces it, out=PATH writes elsewhere.")
