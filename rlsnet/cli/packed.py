"""Launcher of a sweep that trains several jobs at once as parts of one network; `workflows.packed` computes them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, configure_log, run_job
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf, open_dict

from rlsnet.config.differences import typed
from rlsnet.errors import UserError, joined
from rlsnet.io.formatting import counted
from rlsnet.io.terminal import say

if TYPE_CHECKING:
    from rlsnet.workflows.packed import Job

log = logging.getLogger(__name__)

TARGET = f"{__name__}.Packed"  # _target_ of the preset hydra/launcher=packed


class Packed(Launcher):  # type: ignore[misc]
    """Launcher that trains up to n_jobs jobs of a sweep together, and those that differ too much one after another."""

    def __init__(self, n_jobs: Any):
        if not isinstance(n_jobs, int) or n_jobs < 1:
            raise UserError(f"hydra.launcher.n_jobs={typed(n_jobs)}: expected a number of jobs, at least 1.")
        self.n_jobs, self.basic = n_jobs, BasicLauncher()

    def setup(self, **setup: Any) -> None:
        """Takes the configuration, the context and the task of Hydra."""
        self.basic.setup(**setup)
        self.config, self.context, self.task = setup["config"], setup["hydra_context"], setup["task_function"]

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs the jobs; the result of a failed job is its error message, of the others None."""
        if self.task.command != "train":
            say("hydra/launcher=packed: only train computes jobs together; they run one after another.")
            return self.basic.launch(job_overrides, initial_job_idx)
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        prepared = [self._prepare(each, initial_job_idx + index) for index, each in enumerate(job_overrides)]
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        jobs, returns = {k: job for k, (job, _) in enumerate(prepared) if job is not None}, [each for _, each in prepared]
        groups, alone = self._grouped(jobs)
        for group in groups:
            self._train(group, [jobs[k] for k in group], returns)
        for k in alone:
            returns[k] = self.basic.launch([job_overrides[k]], initial_job_idx + k)[0]
        return returns

    def _prepare(self, overrides: Sequence[str], number: int) -> tuple[Job | None, JobReturn]:
        """A job whose folder and log are ready, and its return value; None for a job that has failed."""
        config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        made: list[Job] = []

        def task(composed: Any) -> str | None:
            return self.task.without_error(lambda folder: made.append(_job(composed, folder)))

        returned = run_job(task, config, "hydra.sweep.dir", "hydra.sweep.subdir", self.context)
        return (made[0] if made else None), returned

    def _grouped(self, jobs: Mapping[int, Job]) -> tuple[list[list[int]], list[int]]:
        """Numbers of the jobs that are trained together, group by group, and of those that are trained alone; says which and why."""
        from rlsnet.workflows import packed

        same_settings: dict[tuple[Any, ...], list[int]] = {}
        reasons = {k: packed.refusal(job.config) for k, job in jobs.items()}
        compiled = {k: packed.compiled_settings(job.config) for k, job in jobs.items() if reasons[k] is None}
        for k, settings in compiled.items():
            same_settings.setdefault(tuple(sorted(settings.items())), []).append(k)
        chunks = [same[i : i + self.n_jobs] for same in same_settings.values() for i in range(0, len(same), self.n_jobs)]
        groups = [chunk for chunk in chunks if len(chunk) > 1]
        alone = sorted({*jobs} - {k for group in groups for k in group})
        differing = {key for values in compiled.values() for key in values if len({each.get(key) for each in compiled.values()}) > 1}
        why = sorted({reason for reason in reasons.values() if reason}) + [f"not the same: {joined(sorted(differing))}"] * bool(differing)
        together = [f"{joined(len(group) for group in groups)} jobs are trained together"] if groups else []
        one_by_one = [f"{counted(len(alone), 'job')} alone ({'; '.join(why) or 'the last one'})"] if alone else []
        if jobs:
            say(f"hydra/launcher=packed: {', '.join(together + one_by_one)}.")
        return groups, alone

    def _train(self, numbers: Sequence[int], jobs: Sequence[Job], returns: list[JobReturn]) -> None:
        """Trains jobs together, and sets their return values; ends the process if a signal has stopped them."""
        from rlsnet.kernels import device
        from rlsnet.workflows import packed

        if jobs[0].config.engine.platform == "cpu":
            device.restrict_to_cpu()
        errors, stopped = packed.train_together(jobs, self.task.words)
        for k, job, error in zip(numbers, jobs, errors, strict=True):
            returns[k].return_value = error
            if error is not None:
                with job.speaking():
                    self.task.report(error, job.run.path.name)
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        self.task.free()
        if stopped:
            with jobs[0].speaking():
                self.task.leave(stopped, self.config.get("sweep"))


def _job(composed: Any, folder: Path) -> Job:
    """The job of a composed configuration, with the log that Hydra has opened for it."""
    from rlsnet.cli.job import job_config, names_recording, run_of
    from rlsnet.cli.sweeps import use_plain_lines
    from rlsnet.workflows.packed import Job

    values: Any = OmegaConf.to_container(composed, resolve=True)
    use_plain_lines(values, folder)
    run, overrides = run_of(folder), list(HydraConfig.get().overrides.task)
    run.refuse_links()
    config, resumed = job_config("train", values, overrides, run)
    own = _logging()

    @contextlib.contextmanager
    def speaking() -> Iterator[None]:
        before = _logging()
        _log_with(own)
        try:
            yield
        finally:
            _log_with(before)

    return Job(config, run, resumed, names_recording(overrides), speaking)


def _logging() -> dict[str | None, tuple[int, list[logging.Handler]]]:
    """Level and handlers of the loggers that Hydra has configured for a job."""
    return {name: (logging.getLogger(name).level, list(logging.getLogger(name).handlers)) for name in (None, "rlsnet_file")}


def _log_with(settings: Mapping[str | None, tuple[int, list[logging.Handler]]]) -> None:
    """Sets what `_logging` has returned."""
    for name, (level, handlers) in settings.items():
        logger = logging.getLogger(name)
        logger.handlers = list(handlers)
        logger.setLevel(level)
