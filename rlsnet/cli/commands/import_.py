"""Command `rlsnet import`: its settings, its help and its entry point."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rlsnet.data.import_options import Options, base
from rlsnet.errors import UserError
from rlsnet.io.terminal import say

__all__ = ["USAGE", "Options", "base", "dry_run", "main"]

USAGE = """SOURCE... OUT.zarr [key=value ...]
  SOURCE      files or folders of recordings, or patterns such as 'data/*.nwb'; each is one session, and all are pooled
  OUT.zarr    the new recording, for rlsnet train mouse_decision recording.path=OUT.zarr
  --dry-run   list the sources and try the first one, without writing OUT.zarr

Examples:
  rlsnet import sub-440956/*.nwb map.zarr preset=map
  rlsnet import session.nwb out.zarr align=go_cue_time window=[-1,1] conditions.hit="outcome == 'hit'"
  rlsnet import kilosort/ out.zarr preset=phy trials_table=trials.csv align=stimulus"""


def main(paths: Sequence[str], options: Options) -> None:
    """Runs `rlsnet import SOURCE... OUT.zarr`."""
    with _reading(paths):
        from rlsnet.data import import_report
        from rlsnet.data.importing import import_sources  # imports h5py and zarr, which help does not need

        started = time.perf_counter()
        summary = import_sources(paths[:-1], paths[-1], options, log=say)
        import_report.print_summary(summary, paths[-1], time.perf_counter() - started)


def dry_run(paths: Sequence[str], options: Options) -> None:
    """Runs `rlsnet import SOURCE... OUT.zarr --dry-run`: lists the sources, and imports the first one into a temporary folder."""
    with _reading(paths):
        from rlsnet.data import import_report
        from rlsnet.data.importing import found_sources, import_sources
        from rlsnet.io.formatting import bytes_below

        found = found_sources(paths[:-1], paths[-1], options)
        sizes = {path: bytes_below(path) if path.is_dir() else path.stat().st_size for path in found}
        import_report.print_sources(found, sizes, paths[-1])
        first, options = next(iter(found)), dataclasses.replace(options, subsample=None)  # of the units of all sources
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "first.zarr"
            summary = import_sources(paths[:-1] if len(found) == 1 else [first], out, options, log=say)
            import_report.print_estimate(summary, bytes_below(out), sizes, time.perf_counter() - started)


@contextlib.contextmanager
def _reading(paths: Sequence[str]) -> Iterator[None]:
    """Context in which recordings are read; raises UserError unless there are a source and the new recording."""
    if len(paths) < 2:
        raise UserError(f"import {' '.join(paths)}: expected at least one source and, last, the new recording, such as OUT.zarr.")
    from rlsnet.runs.progress import working

    with working("Reading recordings"):
        yield
