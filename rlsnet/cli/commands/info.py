"""Command `rlsnet info`: content of a run, network, recording or checkpoint."""

from __future__ import annotations

import dataclasses

from rlsnet.config.schema import key
from rlsnet.errors import UserError


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of rlsnet info."""

    trust: bool = key("true: run the plugins that a run names, now and later", default=False)


USAGE = "[PATH]   without a path: versions and devices of this installation"


def main(paths: list[str], options: Options) -> None:
    """Runs `rlsnet info [PATH]`."""
    if len(paths) > 1:
        raise UserError(f"info {' '.join(paths)}: expected one path, or none for the versions and devices of this installation.")
    from rlsnet.analysis import inspect  # these import JAX, which help does not need
    from rlsnet.kernels import device

    if paths:
        device.restrict_to_cpu()
    inspect.show(paths[0] if paths else None, options.trust)
