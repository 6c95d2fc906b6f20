"""Card, driver and versions as JSON in one line, after a check that rlsnet runs on the device: python environment.py gpu|cpu."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from importlib import metadata


def last_line(*command: str) -> str | None:
    """The last line that a program prints, or None where there is no such program or it fails."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip().splitlines()[-1] if done.returncode == 0 and done.stdout.strip() else None


def main() -> None:
    """Prints the environment; fails with a message where JAX has no such device."""
    from rlsnet.api import compose
    from rlsnet.errors import UserError
    from rlsnet.kernels.device import configured
    from rlsnet.runs.folder import versions

    try:
        with configured(compose("config=tiny", f"engine.platform={sys.argv[1]}").engine) as device:
            pass
    except UserError as error:
        sys.exit(str(error))
    found = {"device": device, **versions()}
    for name in ("jax-cuda13-plugin", "jax-cuda12-plugin", "nvidia-cuda-nvrtc"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    query = "--query-gpu=name,driver_version,memory.total,clocks.max.sm"
    card = last_line("nvidia-smi", query, "--format=csv,noheader") if sys.argv[1] == "gpu" else None
    if card:
        found |= dict(zip(("card", "driver", "memory", "clock"), card.split(", "), strict=False))
    tools = {"nvcc": last_line("nvcc", "--version"), "commit": last_line("git", "rev-parse", "HEAD")}
    found |= {name: line for name, line in tools.items() if line}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
