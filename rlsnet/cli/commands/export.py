"""Command `rlsnet export`: its settings and its entry point."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rlsnet.config.schema import key
from rlsnet.errors import UserError
from rlsnet.exports.writer import FORMATS, export, format_module

USAGE = """RUN to=FORMAT [key=value ...]
  RUN   a run folder such as outputs/2026-11-21/10-00-00, or last for the newest run"""


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of rlsnet export."""

    to: str = key(
        "format of the export: zarr (everything, for xarray), npz (SciPy sparse matrices), sonata (nodes, edges, spikes), nwb (spikes of"
        " the neurons), nest or brian2 (a script that simulates the network)",
        choices=FORMATS,
    )
    out: str | None = key("file or folder to write; null: in RUN/export", default=None, path=True)
    checkpoint: str = key(
        "weights to export: best (by validation), last, the number of an iteration, or the path of a checkpoint; auto: best if there is"
        " one, else last",
        default="auto",
        path=True,
    )
    overwrite: bool = key("true: replace an earlier export at the same path", default=False)
    trust: bool = key("true: run the plugins that the run names, this time and in future", default=False)


def main(paths: list[str], options: Options) -> None:
    """Runs `rlsnet export RUN to=FORMAT`."""
    if len(paths) != 1:
        raise UserError(f"export {' '.join(paths)}: expected one run, such as rlsnet export outputs/2026-11-21/10-00-00 to={options.to}.")
    from rlsnet.kernels.device import restrict_to_cpu

    restrict_to_cpu()
    out, trained = export(paths[0], options.to, options.out, options.checkpoint, options.overwrite, options.trust)
    from rlsnet.exports.simulated_spikes import why_missing
    from rlsnet.io.formatting import byte_size

    print(f"Wrote {out} ({byte_size(_size(out))}): {trained.description()}.")
    print(format_module(options.to).HOW_TO_OPEN.format(out=out))
    if options.to in ("zarr", "npz", "sonata") and not trained.has_spikes:
        print(f"Without simulated spikes: {why_missing(trained)}")


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
