"""One job: train, simulate or test with composed settings, once or as one of a sweep."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlsnet.analysis import test_log
from rlsnet.cli.failed_starts import STARTS
from rlsnet.config.compose import compose, config_folders
from rlsnet.config.load import from_dict, to_dict
from rlsnet.config.schema import Config
from rlsnet.errors import UserError
from rlsnet.io.terminal import say
from rlsnet.kernels import device, processes
from rlsnet.runs.folder import Run, SharedRun
from rlsnet.workflows import dry_run as plan
from rlsnet.workflows import resume, testing, training
from rlsnet.workflows.online import watch

DATE_AND_TIME = "outputs/DATE/TIME"  # of a new run folder


def run_of(folder: Path) -> Run:
    """The run in a folder, named as seen from the present folder if it lies below it."""
    return Run(os.path.relpath(folder) if folder.is_relative_to(Path.cwd()) else folder)


def job_config(command: str, values: dict[str, Any], overrides: Sequence[str], run: Run) -> tuple[Config, bool]:
    """(configuration, whether a training continues the run) of a command; arguments and errors as for `run_job`."""
    begun = bool(run.iterations()) or (command == "watch" and (run.path / "config.yaml").exists())
    resumed = command in ("train", "watch") and values["resume"] is not None and (values["resume"] != "auto" or begun)
    if command == "test" or resumed:
        return resume.resumed_config(run, values, overrides), resumed
    return from_dict({**values, **resume.COMMAND_ONLY}, overrides), False


def names_recording(overrides: Sequence[str]) -> bool:
    """Whether the key=value texts of a command line name a recording."""
    return any(text.lstrip("+").startswith("recording.path=") for text in overrides)


def run_job(command: str, values: dict[str, Any], overrides: Sequence[str], folder: Path) -> int:
    """Runs a command with composed settings; returns the number of the signal that stopped it, or 0.

    Args:
      command: train, simulate or test.
      values: nested settings.
      overrides: key=value texts of the command line, which `values` contains.
      folder: the run folder.

    Raises:
      UserError: a setting is not allowed.
    """
    run = run_of(folder)
    run.refuse_links()
    config, resumed = job_config(command, values, overrides, run)
    named = names_recording(overrides)
    engine = config.engine
    if engine.coordinator is None and (engine.process is not None or engine.processes is not None):
        raise UserError("engine.processes and engine.process: expected engine.coordinator=HOST:PORT too.")
    if engine.coordinator is None:
        return _run(command, config, run, resumed, named)
    if processes.numbered(engine)[0] != 0:
        raise UserError("engine.process: expected on the command line, where each process has its own, not in a file.")
    if command == "watch":
        raise UserError("watch: expected engine.coordinator=null, as only train, simulate and test compute with several processes.")
    with processes.together(engine, STARTS.remove_unused):
        config = dataclasses.replace(config, engine=processes.without_team(engine))  # is not stored with the run
        processes.tell({"command": command, "config": to_dict(config), "run": str(run.path.absolute()), "resumed": resumed, "named": named})
        return _run(command, config, run, resumed, named)


def _run(command: str, config: Config, run: Run, resumed: bool, named: bool) -> int:
    """Runs a command in this process; see `run_job`."""
    if config.engine.platform == "cpu":
        device.restrict_to_cpu()
    if command == "watch":
        return watch.run_watch(config, run, resumed)
    if command == "train":
        return training.run_training(config, run, resumed, named)
    results = testing.run_simulation(config, run) if command == "simulate" else testing.run_test(config, run, named)
    if run.writes:
        test_log.log_results(run, results)
    return 0


def follow(arguments: Sequence[str]) -> int | None:
    """Runs what the first process says, if this one is another process of the same run; returns the status as `run_job`, else None.

    Args:
      arguments: arguments of the command line, with the thing as key=value.

    Raises:
      UserError: no connection, or an error of the run.
    """
    values, _ = _composed(arguments)
    engine = from_dict({**values, **resume.COMMAND_ONLY}).engine
    number = 0 if engine.coordinator is None else processes.numbered(engine)[0]
    if number == 0:
        return None
    logging.basicConfig(level=logging.WARNING, format=f"process {number}: %(message)s")
    with processes.together(engine):
        told = processes.tell(None)
        config = dataclasses.replace(from_dict(told["config"]), progress="off", tracking="none", resources_every=0.0)
        return _run(told["command"], config, SharedRun(told["run"]), told["resumed"], told["named"])


def _composed(arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """(nested settings, the key=value texts without those of Hydra) of the arguments of a command line."""
    overrides = [text for text in arguments if "=" in text and not re.match(r"-|[+~]*hydra[./]", text)]
    folders = config_folders(arguments)
    return compose(overrides, folders[-1] if folders else None), overrides


def dry_run(command: str, arguments: Sequence[str], folder: str | None) -> None:
    """Prints what a command would do, and makes and changes no run folder.

    Args:
      command: train, simulate or test.
      arguments: arguments of the command line, with the thing as key=value.
      folder: the run folder; None: a new one, whose name is the time of the start.

    Raises:
      UserError: the command would fail.
    """
    values, overrides = _composed(arguments)
    run = run_of(Path(folder if folder is not None else DATE_AND_TIME).absolute())
    config, resumed = job_config(command, values, overrides, run)
    if config.engine.platform == "cpu":
        device.restrict_to_cpu()
    if command == "train" and not resumed and run.iterations():
        raise UserError(f"{run.path}: contains a run; choose another hydra.run.dir.")
    for line in plan.lines(command, config, run, DATE_AND_TIME if folder is None else None, resumed):
        say(line)
