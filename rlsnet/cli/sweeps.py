"""Sweeps: several runs from one command, one after another in this process, or through a Hydra launcher (joblib, SLURM).

`sweep=FOLDER` names the folder of each job after the settings that differ between jobs. The same command, also with values added,
therefore continues the sweep: finished jobs are skipped, unfinished ones resume, the others start. Hydra's launchers run the jobs;
the names of folders and the choice of jobs are implemented here, because no launcher offers them.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import itertools
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf

from rlsnet.cli import packed
from rlsnet.cli.console import keep_running
from rlsnet.cli.failed_starts import STARTS
from rlsnet.config.quoting import typed_command
from rlsnet.errors import UserError, os_error
from rlsnet.io.formatting import counted
from rlsnet.io.terminal import say
from rlsnet.runs.folder import Run
from rlsnet.workflows.resume import job_state

log = logging.getLogger(__name__)

LONGEST = 100  # characters of a job's folder name
SHOWN = 3  # failed jobs that the last line lists


class Task:
    """Function that Hydra calls with each composed configuration, in this process or, pickled, in another one.

    The error of a job is logged and returned as text, so that the other jobs run.
    """

    def __init__(self, command: str):
        self.command, self.many, self.process = command, False, os.getpid()
        self.failed: list[str] = []

    def __call__(self, composed: Any) -> str | None:
        """Runs one job; returns None, or the message of its error."""
        hydra_config = HydraConfig.get()
        values: Any = OmegaConf.to_container(composed, resolve=True)
        folder = Path(hydra_config.runtime.output_dir)
        if os.getpid() != self.process:
            keep_running()
            use_plain_lines(values, folder)
            if "joblib" in hydra_config.launcher._target_:
                _end_with_parent(self.process)
        message = self._attempt(values, list(hydra_config.overrides.task), folder)
        if message is not None:
            self.report(message, folder.name)
        if self.many:
            self.free()
        return message

    def report(self, message: str, name: str) -> None:
        """Logs the error of the job in a folder of this name."""
        where = f"Job {name}: " if self.many and os.getpid() == self.process else ""
        with contextlib.suppress(OSError):  # the log cannot be written
            logging.getLogger("rlsnet" if self.many else "rlsnet_file").error("%s%s", where, message)
        self.failed.append(message)

    def words(self, error: Exception) -> str:
        """The error of a job as text; raises an unexpected one again unless there are other jobs."""
        if isinstance(error, UserError):
            return str(error)
        if isinstance(error, OSError):
            return os_error(error)
        if not self.many:
            raise error
        logging.getLogger("rlsnet_file").error("The job failed.", exc_info=error)
        return f"{type(error).__name__}: {' '.join(str(error).split())}"

    def without_error(self, act: Callable[[Path], object]) -> str | None:
        """Calls act(folder) for the job that Hydra has started; returns None, or the text of its error, which is logged."""
        folder = Path(HydraConfig.get().runtime.output_dir)
        try:
            act(folder)
        except Exception as error:
            message = self.words(error)
            self.report(message, folder.name)
            return message
        return None

    def leave(self, stopped: int, sweep: str | None) -> NoReturn:
        """Ends the process after a signal with this number; sweep: value of sweep=FOLDER, or None."""
        if sweep is not None:
            log.info("To continue the sweep, run the same command again.")
        sys.exit(128 + stopped)

    @staticmethod
    def free() -> None:
        """Frees the arrays and compiled programs of a job, also on the device."""
        gc.collect()
        if "jax" in sys.modules:
            sys.modules["jax"].clear_caches()

    def _attempt(self, values: dict[str, Any], overrides: list[str], folder: Path) -> str | None:
        """Runs one job; returns only the text of an error, because a traceback would keep the arrays of the job in memory."""
        from rlsnet.cli.job import run_job
        from rlsnet.workflows.loop import requeuing

        try:
            stopped = run_job(self.command, values, overrides, folder)
        except Exception as error:
            return self.words(error)
        if not stopped:
            return None
        if os.getpid() == self.process:
            self.leave(stopped, values["sweep"])
        if _end_with_parent.cache_info().currsize and os.getppid() != self.process:
            os._exit(128 + stopped)  # the process that started the sweep has ended
        if requeuing(stopped):
            try:
                signal.raise_signal(stopped)  # submitit queues the job again, and ends this process
            except Exception as error:
                return " ".join(str(error).split())
        return f"stopped by {signal.Signals(stopped).name}, and saved"


def new_folder(path: str) -> str:
    """Makes a folder at `path` or, if there is one, at PATH-2, PATH-3 and so on: two runs of one second do not meet; returns its path."""
    for number in itertools.count(1):
        folder = Path(path if number == 1 else f"{path}-{number}")
        STARTS.add(folder)
        try:
            folder.mkdir(parents=True)
        except OSError:
            STARTS.forget_last()
            if folder.exists():
                continue
            break  # Hydra makes it, and tells why it cannot
        return str(folder)
    return path


OmegaConf.register_new_resolver("new_folder", new_folder, use_cache=True, replace=True)  # for configs/hydra_settings.yaml


@functools.cache
def _end_with_parent(parent: int) -> None:
    """Makes this worker process end when the process that started the sweep ends, and share the GPU with the other workers."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # allocates memory of the GPU only when needed

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)  # finishes and saves the current iteration

    threading.Thread(target=watch, name="sweep", daemon=True).start()


def use_plain_lines(values: dict[str, Any], folder: Path) -> None:
    """Sets plain lines of progress, each with the name of the job, in one of several processes."""
    from rlsnet.runs.progress import ConsoleHandler

    if values["progress"] == "auto":
        values["progress"] = "plain"
    for handler in logging.getLogger().handlers:
        if isinstance(handler, ConsoleHandler):
            handler.setFormatter(logging.Formatter(f"{folder.name.replace('%', '%%')}: %(message)s"))


def folder_name(overrides: Sequence[str], swept: Sequence[str]) -> str:
    """Folder name of a job: its values of the keys that differ between jobs, such as `rls.penlambda=0.4,trial.learn_every=5`.

    It has only letters, digits and a few signs that every file system accepts; a name that would be too long, or equal to another
    one, ends in a hash. The order of the keys on the command line has no influence.

    Args:
      overrides: key=value texts of one job.
      swept: keys that have several values.
    """
    pairs = sorted(text.split("=", 1) for text in overrides if text.split("=", 1)[0] in swept)
    exact = ",".join(f"{key.lstrip('+')}={_number(value)}" for key, value in pairs)
    name = re.sub(r"[^\w.,=+-]+", "_", exact, flags=re.ASCII).strip(".")
    if name == exact and len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - 9]}-{hashlib.sha256(exact.encode()).hexdigest()[:8]}"


def _number(text: str) -> str:
    """A value as text, the same for equal numbers such as 5, 5.0 and 5e0."""
    text = text.strip("'\"") if text[:1] == text[-1:] else text
    try:
        short = f"{float(text):.12g}"
        return short if float(short) == float(text) else text
    except ValueError:
        return text


def _swept(config: Any, context: Any) -> list[str]:
    """Keys that have several values, on the command line or in hydra.sweeper.params."""
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    texts = [*(f"{key}={value}" for key, value in params.items()), *config.hydra.overrides.task]
    parsed = OverridesParser.create(config_loader=context.config_loader).parse_overrides(texts)
    return [override.get_key_element() for override in parsed if override.is_sweep_override()]


class Jobs(Launcher):  # type: ignore[misc]
    """Launcher around the chosen one, which names the folders, skips finished jobs, and keeps the errors of failed jobs."""

    def __init__(self, launcher: Launcher, setup: Mapping[str, Any], result: Result):
        self.launcher, self.result = launcher, result
        self.config, self.context, self.task = setup["config"], setup["hydra_context"], setup["task_function"]

    def setup(self, **setup: Any) -> None:
        """Does nothing: the inner launcher has been set up before."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs the unfinished jobs; the result of a failed job is its error message, of the others None."""
        self.task.many = True
        if self.task.command == "train":  # a job that is queued again starts with the same overrides
            job_overrides = [[*each, "resume=auto"] for each in job_overrides]
        returns = [JobReturn(overrides=list(each), status=JobStatus.COMPLETED) for each in job_overrides]
        names = [str(initial_job_idx + index) for index in range(len(returns))]
        todo = list(range(len(returns)))
        if self.result.folder is not None:
            names = self._name(job_overrides)
            job_overrides = [[*each, f"hydra.sweep.subdir='{name}'"] for each, name in zip(job_overrides, names, strict=True)]
            todo = self._to_do(job_overrides, names)
        say(f"{self.result.title()}: {counted(len(returns), 'job')}, {len(todo)} to do.")
        try:
            launched = self.launcher.launch([job_overrides[k] for k in todo], initial_job_idx) if todo else []
        except Exception as error:
            raise UserError(f"{self.config.hydra.sweep.dir}: the launcher stopped ({_first_line(error)}).") from error
        for k, job in zip(todo, launched, strict=True):
            broken = job.status is JobStatus.FAILED
            message = str(job._return_value) if broken else job.return_value
            returns[k].return_value = message
            self.result.add(names[k], "done" if message is None else "failed", message)
        return returns

    def _name(self, job_overrides: Sequence[Sequence[str]]) -> list[str]:
        swept = _swept(self.config, self.context)
        if not swept:
            raise UserError(f"sweep={self.result.folder}: expected a key with several values, such as rls.penlambda=.4,.8.")
        return [folder_name(each, swept) for each in job_overrides]

    def _to_do(self, job_overrides: Sequence[Sequence[str]], names: Sequence[str]) -> list[int]:
        """Indices of the jobs that are new or unfinished, each folder once."""
        todo = []
        for k, (each, name) in enumerate(zip(job_overrides, names, strict=True)):
            if name in names[:k]:
                self.result.add(name, "again", None)
                continue
            run = Run(Path(str(self.result.folder)) / name)
            if not run.path.exists():
                todo.append(k)
                continue
            composed = self.context.config_loader.load_sweep_config(self.config, list(each))
            values: Any = OmegaConf.to_container(OmegaConf.masked_copy(composed, [k for k in composed if k != "hydra"]), resolve=True)
            found = job_state(self.task.command, values, run)
            if found in ("new", "unfinished"):
                todo.append(k)
            else:
                self.result.add(name, "before" if found == "done" else "busy", None)
        return todo


def _first_line(error: Exception) -> str:
    """Last line of an error, which may contain a traceback of another process."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


class Result:
    """States of the jobs of a sweep; `folder` is the value of sweep=FOLDER, or None."""

    def __init__(self, folder: str | None):
        self.folder = folder
        self.jobs: list[tuple[str, str, str | None]] = []

    def title(self) -> str:
        """Name of the sweep in messages."""
        return f"Sweep {self.folder}" if self.folder else "Sweep"

    def add(self, name: str, state: str, message: str | None) -> None:
        """Adds a job.

        Args:
          name: name of its folder.
          state: done, before (done before), again (the same values as another job), busy or failed.
          message: error message, or None.
        """
        self.jobs.append((name, state, message))

    def report(self) -> None:
        """Prints the numbers of jobs by state; raises UserError if a job failed or is in use by another process."""
        if not self.jobs:
            return
        found = {state: [job for job in self.jobs if job[1] == state] for state in ("done", "before", "again", "busy", "failed")}
        sweep = self.title()
        words = {"done": "done", "before": "done before", "again": "given twice", "busy": "in use by another process", "failed": "failed"}
        numbers = ", ".join(f"{len(found[state])} {word}" for state, word in words.items() if found[state])
        say(f"{sweep}: {counted(len(self.jobs), 'job')}: {numbers}.")
        if failed := found["failed"]:
            messages = "; ".join(f"{name} ({' '.join(str(message).split()).rstrip('.')})" for name, _, message in failed[:SHOWN])
            more = f"; and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
            raise UserError(f"{sweep.lower()}: {len(failed)} of {len(self.jobs)} jobs failed: {messages}{more}.")
        if busy := found["busy"]:
            raise UserError(f"{sweep.lower()}: another process uses {busy[0][0]}{' and others' * (len(busy) > 1)}; wait for it.")
        if self.folder:
            say(f"Next: {typed_command('compare', self.folder)}")


@contextlib.contextmanager
def watched(folder: str | None) -> Iterator[Result]:
    """Context with the results of the jobs of a sweep, which Hydra starts through `Jobs`."""
    result = Result(folder)
    original = Plugins.instantiate_launcher

    def instantiate(self: Plugins, **setup: Any) -> Launcher:
        own = setup["config"].hydra.launcher
        if own._target_ != packed.TARGET:
            return Jobs(original(self, **setup), setup, result)
        launcher = packed.Packed(own.n_jobs)  # Hydra makes only launchers of its own package
        launcher.setup(**setup)
        return Jobs(launcher, setup, result)

    Plugins.instantiate_launcher = instantiate
    try:
        yield result
    finally:
        Plugins.instantiate_launcher = original
