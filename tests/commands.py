"""Process that runs `rlsnet ARGUMENTS`, forked from a process that has imported JAX before, which saves time."""

import contextlib
import multiprocessing
import os
import signal
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
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background
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


class Command:
    """A command that runs in folder `cwd`; `pid` is that of its process."""

    def __init__(self, *arguments: str, cwd: Path, **environment: str):
        self._arguments, self._folder = arguments, tempfile.TemporaryDirectory()
        self._files = [Path(self._folder.name) / name for name in ("out", "err")]
        for file in self._files:
            file.touch()
        self._process = FORKS.Process(target=_main, args=(arguments, str(cwd), {**os.environ, **environment}, *map(str, self._files)))
        self._process.start()
        self.pid = self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.is_alive()

    def end(self) -> subprocess.CompletedProcess:
        """Its results, at its end; the status is negative where a signal ended it."""
        self._process.join()
        with self._folder:
            return subprocess.CompletedProcess(self._arguments, self._process.exitcode, *(file.read_text() for file in self._files))


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """Runs a command in folder `cwd` to its end."""
    return Command(*arguments, cwd=cwd, **environment).end()


def rlsnet(*arguments: str, cwd: Path, status: int | None = 0) -> subprocess.CompletedProcess:
    """Runs a command in folder `cwd`, which ends with `status` and without a traceback."""
    result = run(*arguments, cwd=cwd)
    assert status is None or result.returncode == status, result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    return result
