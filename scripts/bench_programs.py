"""C programs beside which rlsnet is timed: the peer and the floor, in benchmarks/, built here for the processor of this machine.

`python scripts/bench_programs.py peer` builds benchmarks/peer/peer.c and prints the path of the program.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FLAGS = ["-O3", "-march=native", "-fopenmp"]
LIBRARIES = {"peer": ["-ffast-math", "-lopenblas", "-lm"], "floor": ["-lm"]}
NEEDED = (
    (r"omp\.h|-fopenmp|lgomp|lomp", "OpenMP is missing (Debian: the package gcc has it; clang needs libomp-dev)"),
    (r"cblas\.h|openblas", "OpenBLAS or its header cblas.h is missing (Debian: libopenblas-dev)"),
)


@functools.cache
def built(name: str) -> Path:
    """Path of the program of benchmarks/NAME/NAME.c, compiled at the first call in a process by the compiler CC, or gcc.

    Exits with a message that names the missing package if it cannot be built.
    """
    source, program = ROOT / "benchmarks" / name / f"{name}.c", ROOT / "build" / name
    compiler = shlex.split(os.environ.get("CC", "gcc"))
    if not compiler or shutil.which(compiler[0]) is None:
        sys.exit(f"{name}: the C compiler {' '.join(compiler) or 'CC'} is not found (Debian: gcc); CC names another")
    program.parent.mkdir(exist_ok=True)
    libraries = LIBRARIES[name]
    done = subprocess.run([*compiler, *FLAGS, str(source), "-o", str(program), *libraries], capture_output=True, text=True)
    if done.returncode:
        reasons = [reason for pattern, reason in NEEDED if re.search(pattern, done.stderr)]
        error = next((line for line in done.stderr.splitlines() if "error" in line), f"exit status {done.returncode}")
        sys.exit(f"{name}: {compiler[0]} cannot build {source.relative_to(ROOT)}: {(reasons or [error])[0]}")
    return program


def output(command: list[str]) -> str:
    """What a program prints; exits with its message if it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command[0]}: {done.stderr.strip() or f'exit status {done.returncode}'}")
    return done.stdout


def peer(program: Path | None, arguments: list[str]) -> list[float]:
    """Seconds of each iteration with learning of the peer, or of another program with its arguments and output.

    Args:
      program: the other program; None for the peer itself.
      arguments: see benchmarks/peer/run.sh.
    """
    text = output([str(program or built("peer")), *arguments])
    return [float(s) for s in re.findall(r"^iteration [1-9]\d* seconds ([\d.]+)", text, re.MULTILINE)]


def floor(probes: Iterable[str]) -> dict[str, dict[str, float]]:
    """Time of a unit in ns, on one core ("one") and on all ("all"), for each probe of benchmarks/floor/floor.c."""
    measured = json.loads(output([str(built("floor")), *sorted(set(probes))]))
    del measured["threads"]
    return measured


if __name__ == "__main__":
    print(built(sys.argv[1]))
