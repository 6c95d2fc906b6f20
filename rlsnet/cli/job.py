"""One job: train, simulate or test with composed settings, once or as one of a sweep."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlsnet.analysis import test_log
from rlsnet.config.load import from_dict
from rlsnet.kernels import device
from rlsnet.runs.folder import Run
from rlsnet.workflows import resume, testing, training


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
    run = Run(os.path.relpath(folder) if folder.is_relative_to(Path.cwd()) else folder)
    run.refuse_links()
    resumed = command == "train" and values["resume"] is not None and (values["resume"] != "auto" or bool(run.iterations()))
    if command == "test" or resumed:
        config = resume.resumed_config(run, values, overrides)
    else:
        config = from_dict({**values, **resume.COMMAND_ONLY}, overrides)
    if config.engine.platform == "cpu":
        device.restrict_to_cpu()
    named = any(text.lstrip("+").startswith("recording.path=") for text in overrides)
    if command == "train":
        return training.run_training(config, run, resumed, named)
    test_log.log_results(run, testing.run_simulation(config, run) if command == "simulate" else testing.run_test(config, run, named))
    return 0
