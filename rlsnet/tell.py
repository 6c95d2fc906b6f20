"""`rlsnet info`: says what is at a path."""

from __future__ import annotations

import dataclasses

from rlsnet.config import UserError


@dataclasses.dataclass(frozen=True)
class Options:
    """None yet."""


USAGE = "[PATH]   without a path: the versions and devices here"


def main(paths: list[str], options: Options) -> None:
    """`rlsnet info [PATH]`."""
    if len(paths) > 1:
        raise UserError(f"info {' '.join(paths)}: expected one path, or none for the versions and devices here.")
    from rlsnet import engine, info  # late, as they import JAX

    if paths:
        engine.restrict_to_cpu()
    info.show(paths[0] if paths else None)
