"""Command `rlsnet import`: its settings, its help and its entry point."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rlsnet.data.import_options import Options, base
from rlsnet.errors import UserError

__all__ = ["USAGE", "Options", "base", "main"]

USAGE = """SOURCE... OUT.zarr [key=value ...]
  SOURCE   files or folders of recordings, or patterns such as 'data/*.nwb'; each is one session, and all are pooled
  OUT.zarr the new recording, for rlsnet train recording.path=OUT.zarr

Examples:
  rlsnet import sub-440956/*.nwb map.zarr preset=map
  rlsnet import session.nwb out.zarr align=go_cue_time window=[-1,1] bin=10 conditions.hit="outcome == 'hit'" regions=[ALM]
  rlsnet import kilosort/ out.zarr preset=phy trials_table=trials.csv align=stimulus"""


def main(paths: Sequence[str], options: Options) -> None:
    """Runs `rlsnet import SOURCE... OUT.zarr`."""
    if len(paths) < 2:
        raise UserError(f"import {' '.join(paths)}: expected at least one source and, last, the new recording, such as OUT.zarr.")
    from rlsnet.data import import_report
    from rlsnet.data.importing import import_sources  # imports h5py and zarr, which help does not need

    started = time.perf_counter()
    summary = import_sources(paths[:-1], paths[-1], options, log=import_report.print_line)
    import_report.print_summary(summary, paths[-1], time.perf_counter() - started)
