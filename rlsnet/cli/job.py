"""One job: train, simulate or test with composed settings, once or as one of a sweep."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlsnet.analysis import test_log
from rlsnet.config.compose import compose, config_folders
from rlsnet.config.load import from_dict
from rlsnet.config.schema import Config
from rlsnet.errors import UserError
from rlsnet.io.terminal import say
from rlsnet.kernels import device
from rlsnet.runs.folder import Run
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
    if config.engine.platform == "cpu":
        device.restrict_to_cpu()
    named = any(text.lstrip("+").startswith("recording.path=") for text in overrides)
    if command == "watch":
        return watch.run_watch(config, run, resumed)
    if command == "train":
        return training.run_training(config, run, resumed, named)
    test_log.log_results(run, testing.run_simulation(config, run) if command == "simulate" else testing.run_test(config, run, named))
    return 0


def dry_run(command: str, arguments: Sequence[str], folder: str | None) -> None:
    """Prints what a command would do, and makes and changes no run folder.

    Args:
      command: train, simulate or test.
      arguments: arguments of the command line, with the thing as key=value.
      folder: the run folder; None: a new one, whose name is the time of the start.

    Raises:
      UserError: the command would fail.
    """
    overrides = [text for text in arguments if "=" in text and not re.match(r"-|[+~]*hydra[./]", text)]
    folders = config_folders(arguments)
    values = compose(overrides, folders[-1] if folders else None)
    run = run_of(Path(folder if folder is not None else DATE_AND_TIME).absolute())
    config, resumed = job_config(command, values, overrides, run)
    if config.engine.platform == "cpu":
        device.restrict_to_cpu()
    if command == "train" and not resumed and run.iterations():
        raise UserError(f"{run.path}: contains a run; choose another hydra.run.dir.")
    for line in plan.lines(command, config, run, DATE_AND_TIME if folder is None else None, resumed):
        say(line)
