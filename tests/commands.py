"""Process that runs `rlsnet ARGUMENTS`, forked from a process that has imported JAX before, which saves time."""

import contextlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

warnings.filterwarnings("ignore", "os.fork")  # the process that forks has started no JAX backend

LATE = [
    "rlsnet.workflows.testing",
    "rlsnet.cli.hydra_app",
    "rlsnet.analysis.inspect",
    "rlsnet.analysis.plots.run_figures",
    "rlsnet.cli.commands.report",
    "hydra",
    "pynwb",
]  # what is worth having
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["commands", *LATE])


def _main(arguments: tuple[str, ...], cwd: str, environment: dict[str, str], out: str, err: str) -> None:
    """What the forked process does: what `python -m rlsnet` does."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for path, number in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY), number)
    sys.stdout = os.fdopen(os.dup(1), "w")
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    sys.argv = ["rlsnet", *arguments]
    with contextlib.suppress(AttributeError):
        del sys.modules["__main__"].__file__
    from rlsnet.cli.main import main

    try:
        main()
    finally:
        sys.stdout.flush()


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """Runs a command in folder `cwd` to its end."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("out", "err")]
        for file in files:
            file.touch()
        process = FORKS.Process(target=_main, args=(arguments, str(cwd), {**os.environ, **environment}, *map(str, files)))
        process.start()
        process.join()
        return subprocess.CompletedProcess(arguments, process.exitcode, *(file.read_text() for file in files))


def rlsnet(*arguments: str, cwd: Path, status: int | None = 0) -> subprocess.CompletedProcess:
    """Runs a command in folder `cwd`, which ends with `status` and without a traceback."""
    result = run(*arguments, cwd=cwd)
    assert status is None or result.returncode == status, result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    return result
