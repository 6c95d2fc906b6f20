"""Free memory of this machine, and the check that something that is read fits in it."""

from __future__ import annotations

import re
from pathlib import Path

import psutil

from rlsnet.errors import UserError
from rlsnet.io.formatting import byte_size

UNCHECKED = 64 * 2**20  # bytes; less is read without a check


def free_memory() -> int:
    """Free bytes of this machine's memory, within the limits of a container and of this process."""
    free = psutil.virtual_memory().available
    limit, used, about = (Path("/sys/fs/cgroup") / f"memory.{name}" for name in ("max", "current", "stat"))
    if limit.exists() and used.exists() and limit.read_text().strip().isdigit():
        cached = re.search(
            r"^inactive_file (\d+)$", about.read_text() if about.exists() else "", re.MULTILINE
        )  # the system releases it on demand
        free = min(free, int(limit.read_text()) - int(used.read_text()) + int(cached[1] if cached else 0))
    try:
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]  # ulimit -v
        if most != resource.RLIM_INFINITY:
            free = min(free, most - psutil.Process().memory_info().vms)
    except ImportError:  # Windows
        pass
    return max(0, free)


def check_fits(n_bytes: int, where: object) -> None:
    """Raises UserError if bytes that are about to be read are more than the free memory; `where` for the message."""
    if n_bytes > UNCHECKED and n_bytes > (free := free_memory()):
        raise UserError(f"{where}: takes {byte_size(n_bytes)} of memory when it is read, and {byte_size(free)} are free; expected less.")
