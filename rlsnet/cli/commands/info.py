"""`rlsnet info`: content of a run, network, recording or checkpoint."""

from __future__ import annotations

from rlsnet.config.arguments import NoOptions
from rlsnet.errors import UserError

Options = NoOptions

USAGE = "[PATH]   without a path: the versions and devices here"


def main(paths: list[str], options: NoOptions) -> None:
    """`rlsnet info [PATH]`."""
    if len(paths) > 1:
        raise UserError(f"info {' '.join(paths)}: expected one path, or none for the versions and devices here.")
    from rlsnet.analysis import inspect  # late, as they import JAX
    from rlsnet.kernels import device  # late, as they import JAX

    if paths:
        device.restrict_to_cpu()
    inspect.show(paths[0] if paths else None)
