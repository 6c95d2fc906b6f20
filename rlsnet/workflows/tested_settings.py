"""Settings that a stored test was made with, and the label under which the result of a perturbation is stored."""

from __future__ import annotations

import dataclasses
import json
import logging
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zarr

from rlsnet.config.differences import of_section
from rlsnet.config.load import to_dict
from rlsnet.config.schema import ChangedConfig, Config
from rlsnet.config.settings import defaults
from rlsnet.data import trial_clock
from rlsnet.errors import UserError
from rlsnet.io import zarr_store
from rlsnet.runs.folder import Run
from rlsnet.workflows.test_store import FORMAT

log = logging.getLogger(__name__)

LONGEST = 100  # numbers of a list that is stored as it is; of a longer one, a checksum
TIMES = ("start", "stop", "window")  # settings of the windows, which are compared in time steps
UNSTORED = ("windows", "n", "range")  # of the attribute `perturb`, which are no settings


def of_config(config: Config) -> dict[str, Any]:
    """The sections `test` and `perturb` as plain values, for the attribute `settings` of a test."""
    values = to_dict(config)
    return {"test": values["test"], "perturb": {name: _short(value) for name, value in values["perturb"].items()}}


def _short(value: Any) -> Any:
    if not isinstance(value, list) or len(value) <= LONGEST:
        return value
    return f"{len(value)} values, crc32 {zlib.crc32(json.dumps(value).encode()):08x}"


def of_test(test: zarr.Group) -> dict[str, Any]:
    """The section `test` with which a test was made, as far as it is known: an earlier version stored the number of trials alone."""
    stored: Any = test.attrs.get("settings")
    if isinstance(stored, Mapping):
        return dict(stored["test"])
    return {"trials": test.attrs["trials"]} if "trials" in test.attrs else {}


def of_perturbation(test: zarr.Group) -> dict[str, Any]:
    """The section `perturb` with which a test was made, without its label; {} for an unperturbed one."""
    stored, about = test.attrs.get("settings"), _about(test)
    if isinstance(stored, Mapping):
        found: Mapping[str, Any] = stored["perturb"]
    else:  # of an earlier version, which stored the windows in ms
        found = {name: value for name, value in about.items() if name not in UNSTORED}
        if len(stored_windows := windows(test)) > 1 or about.get("name") == "cue":
            seconds = [[round(float(time), 9) + 0.0 for time in trial_clock.of_test(test).seconds(each)] for each in stored_windows]
            found = {name: value for name, value in found.items() if name not in TIMES}
            found["window"] = seconds if len(stored_windows) > 1 else seconds[0]
    return {} if found.get("name", "none") == "none" else {name: value for name, value in found.items() if name != "label"}


def _about(test: zarr.Group) -> Mapping[str, Any]:
    about: Any = test.attrs.get("perturb")
    return about if isinstance(about, Mapping) else {}


def windows(test: zarr.Group) -> list[tuple[float, float]]:
    """(start, stop) of each window of a stored perturbation, ms from the start of the trial; earlier versions have one window."""
    about = _about(test)
    stored = about.get("windows") or ([(about["start"], about["stop"])] if "start" in about else [])
    return [(float(start), float(stop)) for start, stop in stored]


def labelled(config: Config, run: Run) -> Config:
    """The configuration with the label of its perturbation, under which no result of another perturbation is stored.

    Without perturb.label it is the name of the perturbation or, where this one has another result, NAME_2 and so on.

    Raises:
      UserError: perturb.label is that of another perturbation.
    """
    wanted = config.perturb
    if not isinstance(wanted, ChangedConfig):
        return config
    stored = run.perturbed_results()
    first = wanted.result
    labels = [first, *(f"{first}_{number}" for number in range(2, len(stored) + 3))]
    others = {label: found for label in labels if label in stored and (found := _other(stored[label], config)) is not None}
    free = next((label for label in labels if label in stored and label not in others), None)
    free = free or next(label for label in labels if label not in stored)
    if first in others:
        there = f"{stored[first]} is the result of another perturbation ({others[first]}), which is kept"
        if wanted.label is not None:
            raise UserError(f"perturb.label={first}: {there}; expected another label, such as {free}.")
        log.info("%s; the label of this one is %s.", there, free)
    elif wanted.label is not None:
        return config
    return dataclasses.replace(config, perturb=dataclasses.replace(wanted, label=free))


def _other(path: Path, config: Config) -> str | None:
    """The perturbation of a stored result as settings; None where it is that of `config`, or the store is damaged and so replaced."""
    try:
        test = zarr_store.open_group(path, "", FORMAT)
    except UserError as error:
        log.warning("%s The result of this test replaces it.", error)
        return None
    wanted, stored = config.perturb, of_perturbation(test)
    assert isinstance(wanted, ChangedConfig)
    mine = of_config(config)["perturb"]
    stored = defaults({"perturb": stored.get("name", "none")}).get("perturb", {}) | stored
    same = all(stored.get(name) == value for name, value in mine.items() if name not in (*TIMES, "label", "compare"))
    if same and stored["compare"] in (None, mine["compare"]) and windows(test) == _planned(config, test):
        return None
    return " ".join(of_section("perturb", {name: value for name, value in stored.items() if name != "label"}))


def _planned(config: Config, test: zarr.Group) -> list[tuple[float, float]]:
    """(start, stop) in ms of each window of the perturbation of a configuration, in the time of a test."""
    perturb: Any = config.perturb
    found = perturb.steps(config.trial, trial_clock.of_test(test).start)
    pairs = found if isinstance(found[0], tuple) else (found,)
    return [(round(start * config.trial.dt, 9), round(stop * config.trial.dt, 9)) for start, stop in pairs]
