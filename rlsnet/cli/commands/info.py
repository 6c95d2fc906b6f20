"""Command `rlsnet info`: content of a run, network, recording or checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rlsnet.config.schema import key
from rlsnet.errors import UserError


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of rlsnet info."""

    trust: bool = key("true: run the plugins that a run names, this time and in future", default=False)


USAGE = """[PATH]
  PATH   a run folder, last for the newest run, a recording.zarr, network.zarr, checkpoint or test.zarr;
         without it, the versions and devices of this installation are shown"""


def main(paths: list[str], options: Options) -> None:
    """Runs `rlsnet info [PATH]`."""
    if len(paths) > 1:
        raise UserError(f"info {' '.join(paths)}: expected one path, or none for the versions and devices of this installation.")
    from rlsnet.runs.folder import check_content
    from rlsnet.runs.progress import working

    if paths:
        check_content(Path(paths[0]))
    with working("Reading"):
        from rlsnet.analysis import inspect  # these import JAX, which help does not need
        from rlsnet.kernels import device

        if paths:
            device.restrict_to_cpu()
        inspect.show(paths[0] if paths else None, options.trust)
