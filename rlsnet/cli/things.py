"""The thing that a command works on: an experiment or a run folder, given by its name alone, or as `last`, the newest run."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from rlsnet.config.compose import config_folders, variant_names
from rlsnet.config.quoting import path_of, typed_setting
from rlsnet.errors import UserError, did_you_mean
from rlsnet.runs.catalogue import LAST, newest

VALUED = (
    "--config-name",
    "-cn",
    "--config-path",
    "-cp",
    "--cfg",
    "-c",
    "--package",
    "-p",
    "--info",
    "-i",
)  # options with a value as the next word
ADDRESS = re.compile(r"[a-z]+://|lsl:")  # of a source of messages
EXAMPLE = "outputs/2026-11-21/10-00-00"


def with_keys(command: str, arguments: Sequence[str]) -> list[str]:
    """The arguments of train, simulate or test with the thing as config=NAME, run=FOLDER or resume=FOLDER.

    Args:
      command: train, simulate or test.
      arguments: arguments after the command; --config-dir and its folder are one argument.

    Raises:
      UserError: there are several things, or one that is neither an experiment nor a run folder.
    """
    found = [index for index, text in enumerate(arguments) if _is_thing(text) and (index == 0 or arguments[index - 1] not in VALUED)]
    keyed = list(arguments)
    if command == "watch":
        return _of_watch([arguments[index] for index in found], [text for index, text in enumerate(arguments) if index not in found])
    if len(found) > 1:
        words = " ".join(arguments[index] for index in found)
        raise UserError(
            f"{command} {words}: expected one {'run' if command == 'test' else 'experiment or run'}, and settings as key=value."
        )
    for index in found:
        thing = keyed[index]
        keyed[index] = _key_of(command, thing, config_folders(arguments))
        key = keyed[index].partition("=")[0]
        if others := [text for text in arguments if text.startswith(f"{key}=")]:
            raise UserError(f"{command} {thing} {others[0]}: expected one of them, as {thing} stands for {keyed[index]}.")
    return [_with_newest(text) for text in keyed]


def _is_thing(text: str) -> bool:
    """Whether an argument is neither an option nor key=value; the name of a job in a sweep has a = too."""
    return not text.startswith("-") and ("=" not in text or os.path.exists(text) or ADDRESS.match(text) is not None)


def _of_watch(given: Sequence[str], others: Sequence[str]) -> list[str]:
    """Arguments of watch from SOURCE and RUN, or the run to continue, and the other arguments; raises UserError for more things."""
    if len(given) > 2:
        raise UserError(f"watch {' '.join(given)}: expected a source and a run folder, and settings as key=value.")
    things = [str(newest(Path())) if thing == LAST else thing for thing in given]
    run = things[-1] if things and os.path.isfile(os.path.join(things[-1], "config.yaml")) else None
    sources = things[:-1] if run is not None else things[:1]
    keyed = [typed_setting("watch.source", each) for each in sources]
    if run is not None:
        keyed += [typed_setting("resume", run)]
    elif len(things) == 2:
        keyed += [typed_setting("hydra.run.dir", things[1])]
    for text in keyed:
        key = text.partition("=")[0]
        if twice := [each for each in others if each.startswith(f"{key}=")]:
            raise UserError(f"watch {' '.join(given)} {twice[0]}: expected one of them, as {text} is set already.")
    chosen = any(text.startswith("config=") for text in others)
    return [*([] if chosen or run is not None else ["config=online"]), *keyed, *others]


def _with_newest(text: str) -> str:
    """An argument run=last or resume=last with the folder of the newest run; others as they are."""
    key, _, value = text.partition("=")
    return typed_setting(key, newest(Path())) if key in ("run", "resume") and value == LAST else text


def _key_of(command: str, thing: str, folders: Sequence[Path]) -> str:
    """key=value for a thing.

    Raises:
      UserError: it is no experiment or run, or both.
    """
    experiments = variant_names(folders)["config"]
    path = thing if os.path.exists(thing) else path_of(thing) or thing
    named, is_run = command != "test" and thing in experiments, os.path.isfile(os.path.join(path, "config.yaml"))
    key = {"train": "resume", "test": "run"}.get(command)
    if named and is_run and key is not None:
        raise UserError(f"{thing}: is an experiment, and a run folder too; expected config={thing} or ./{thing}.")
    if named:
        return f"config={thing}"
    if key is None:
        what = "a run folder; rlsnet test runs the trials of a trained network" if is_run or thing == LAST else "no experiment"
        raise UserError(f"{thing}: {what}; expected {', '.join(experiments)}.{did_you_mean(thing, experiments)}")
    if is_run or thing == LAST or command == "test":
        return f"{key}={LAST}" if thing == LAST else typed_setting(key, path)
    if os.path.isdir(path):
        from rlsnet.runs.folder import no_run

        raise UserError(f"{thing}: {no_run(Path(path))}")
    listed = f"an experiment ({', '.join(experiments)}) or a run folder such as {EXAMPLE}"
    raise UserError(f"{thing}: no such experiment or run; expected {listed}.{did_you_mean(thing, experiments)}")


def located(path: str) -> str:
    """The path of a command without Hydra: that of the newest run for `last`, another one as it is."""
    return str(newest(Path())) if path == LAST else path
