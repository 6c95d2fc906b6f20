"""Resuming of runs: settings that may change in an existing run, its configuration, and the state of the jobs of a sweep."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlsnet.config.differences import same, typed
from rlsnet.config.load import flat, from_dict, to_dict, with_defaults
from rlsnet.config.schema import Config
from rlsnet.errors import UserError
from rlsnet.runs.folder import Run
from rlsnet.runs.metrics import no_longer_better
from rlsnet.runs.saved_settings import may_change

COMMAND_ONLY = {"resume": None, "run": None, "sweep": None, "trust": False}  # settings of one command line, not stored with the run


def check_unchanged(saved: Mapping[str, Any], wanted: Mapping[str, Any], where: Path | str) -> None:
    """Checks that an existing run can continue with other settings.

    Args:
      saved: nested settings of the run.
      wanted: nested settings, as `to_dict` gives them.
      where: the run folder, for the message.

    Raises:
      UserError: a setting differs that may not change in an existing run.
    """
    before, now = flat(with_defaults(saved)), flat(wanted)
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if not may_change(key) and not same(old, new):
            raise UserError(f"{key}={typed(new)}: {where} was made with {typed(old)}; this cannot change in an existing run.")


def resumed_config(run: Run, values: Mapping[str, Any], overrides: Sequence[str]) -> Config:
    """The configuration with which an existing run continues.

    With resume=auto, where the command that made the run is repeated, it is `values`. Otherwise it has the saved settings, except
    those that the command line changes.

    Args:
      run: a run with a config.yaml.
      values: nested settings, composed from the defaults and the command line.
      overrides: key=value texts of the command line.

    Raises:
      UserError: a setting that may not change in an existing run, or a value that is not allowed.
    """
    saved = run.saved_config()
    wanted = values if values["resume"] == "auto" else overlaid(with_defaults(saved), values, overrides)
    if list(wanted.get("plugins") or []) != list(values.get("plugins") or []):  # they are the saved ones
        run.require_trust(saved, values["trust"])
    config = from_dict({**wanted, **COMMAND_ONLY}, overrides)
    check_unchanged(saved, to_dict(config), run.path)
    return config


def overlaid(saved: Mapping[str, Any], composed: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The saved settings of a run, with those of the command line in place of the saved ones.

    Args:
      saved: nested settings of the run.
      composed: nested settings, composed from the defaults and the command line.
      overrides: key=value texts of the command line.

    Raises:
      UserError: an override removes a setting, or config.yaml has a value in place of a section.
    """
    result = copy.deepcopy(dict(saved))
    for text in overrides:
        key = text.lstrip("+").split("=", 1)[0].split("@")[0]
        if key.startswith("~"):
            raise UserError(f"{text}: a setting cannot be removed from an existing run.")
        if key == "config":
            result = copy.deepcopy(dict(composed))
            continue
        *parents, last = key.split(".")
        source, into = composed, result
        for parent in parents:
            source, into = source[parent], into[parent]
            if not isinstance(into, dict):
                raise UserError(f"config.yaml of the run: {parent}={into}: expected a section.")
        into[last] = source[last]
    return result


def job_state(command: str, values: Mapping[str, Any], run: Run) -> str:
    """State of the folder of a job in a sweep: "new", "unfinished", "done", or "busy" (in use by another process).

    Raises:
      UserError: the folder contains a run with settings that differ from `values`.
    """
    if not (run.path / "config.yaml").exists():
        return "new"
    if run.busy():
        return "busy"
    begun = bool(run.iterations()) if command == "train" else run.test.exists()
    if not begun:
        return "new"
    config = from_dict({**values, **COMMAND_ONLY})
    check_unchanged(run.saved_config(), to_dict(config), run.path)
    if command != "train":
        done = run.config(config.plugins) == config
    else:
        done = run.iterations()[-1] >= config.train.iterations or no_longer_better(run.read_metrics(), config.train.stop_when)
    return "done" if done else "unfinished"
