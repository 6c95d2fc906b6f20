"""Command `rlsnet export`: its settings and its entry point."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rlsnet.config.schema import key
from rlsnet.errors import UserError
from rlsnet.exports.writer import FORMATS, export, format_module, size_of, try_export
from rlsnet.io.terminal import say

if TYPE_CHECKING:
    from rlsnet.exports.trained_network import TrainedNetwork

USAGE = """RUN to=FORMAT [key=value ...]
  RUN         a run folder such as outputs/2026-11-21/10-00-00, or last for the newest run
  --dry-run   export to a temporary folder, show its size, and keep nothing"""


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
    with _exporting(paths, options, "Exporting"):
        out, trained = export(paths[0], options.to, options.out, options.checkpoint, options.overwrite, options.trust)
        from rlsnet.io.formatting import byte_size

        say(f"Wrote {out} ({byte_size(size_of(out))}): {trained.description()}.")
        say(format_module(options.to).HOW_TO_OPEN.format(out=out))
        _say_what_is_missing(options, trained)


def dry_run(paths: list[str], options: Options) -> None:
    """Runs `rlsnet export RUN to=FORMAT --dry-run`: exports to a temporary folder, and prints what the export would write."""
    with _exporting(paths, options, "Dry run"):
        out, size, trained = try_export(paths[0], options.to, options.out, options.checkpoint, options.overwrite, options.trust)
        from rlsnet.io.formatting import byte_size

        say(f"Dry run of rlsnet export: {out} is not {'replaced' if out.exists() else 'written'}.")
        say(f"It would take {byte_size(size)}: {trained.description()}.")
        _say_what_is_missing(options, trained)


def _say_what_is_missing(options: Options, trained: TrainedNetwork) -> None:
    """Says why an export has no spikes, in a format that can have some."""
    from rlsnet.exports.simulated_spikes import why_missing

    if options.to in ("zarr", "npz", "sonata") and not trained.has_spikes:
        say(f"Without simulated spikes: {why_missing(trained)}")


@contextlib.contextmanager
def _exporting(paths: list[str], options: Options, words: str) -> Iterator[None]:
    """Context of an export on the CPU, with `words` on a terminal; raises UserError unless there is one run."""
    if len(paths) != 1:
        raise UserError(f"export {' '.join(paths)}: expected one run, such as rlsnet export outputs/2026-11-21/10-00-00 to={options.to}.")
    from rlsnet.runs.folder import Run
    from rlsnet.runs.progress import working

    Run.open(paths[0])  # must exist
    with working(words):
        from rlsnet.kernels.device import restrict_to_cpu

        restrict_to_cpu()
        yield
