"""Commands that Hydra runs: train, simulate and test, once or for each job of a sweep."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from rlsnet.cli import sweeps, things
from rlsnet.cli.command_table import DRY_RUN
from rlsnet.cli.failed_starts import STARTS
from rlsnet.config.compose import configs_dir, for_hydra, one_line_errors, version_base, with_additions, with_config_dir
from rlsnet.config.quoting import hydra_path, path_of
from rlsnet.errors import UserError, did_you_mean
from rlsnet.io import outputs
from rlsnet.runs.folder import Run

OPTIONS = (
    *("-m", "--multirun", "--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--cfg", "-c", "--package", "-p"),
    *("--resolve", "--run", "-r", "--info", "-i", "--hydra-help", "--shell-completion", "-sc", "--version", "--experimental-rerun"),
)  # of Hydra
SHOWING = ("--cfg", "-c", "--info", "-i", "--hydra-help")  # those with which Hydra shows something and runs nothing


def run_command(command: str, arguments: list[str]) -> int:
    """Composes the configuration and runs a command, once or for each job of a sweep; returns the exit status.

    Args:
      command: train, simulate or test.
      arguments: arguments of the command line after the command.

    Raises:
      UserError: a mistake in the arguments or in a job.
    """
    is_dry = DRY_RUN in arguments
    arguments = things.with_keys(command, with_config_dir([text for text in arguments if text != DRY_RUN]))
    folders = folder_overrides(command, arguments)
    if is_dry:
        _dry_run(command, arguments, folders)
        return 0
    if is_sweep(arguments) and setting(arguments, "engine.coordinator") is not None:
        raise UserError("engine.coordinator: expected null in a sweep; its runs have one process each.")
    if _may_follow(arguments):
        from rlsnet.cli.job import follow

        if (status := follow(arguments)) is not None:
            return 128 + status if status else 0
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra passes exceptions on instead of printing a traceback
    import hydra

    options = [each for each in arguments if "=" not in each or each.startswith("-")]
    for text in options:
        if text.startswith("-") and text.partition("=")[0] not in OPTIONS:
            experiment = f" An experiment is named without dashes, as in rlsnet {command} tiny." if text.startswith("--config") else ""
            raise UserError(f"{text}: no such option.{experiment or did_you_mean(text, OPTIONS)}")
    task = sweeps.Task(command)

    def run(overrides: list[str]) -> None:
        sys.argv = ["rlsnet", *overrides, *folders, *options]  # Hydra expects all overrides together
        hydra.main(config_path=str(configs_dir()), config_name="config", **version_base())(task)()

    with _removed_if_unused(task, setting(arguments, "hydra.run.dir"), bool(set(SHOWING) & {text.partition("=")[0] for text in options})):
        with one_line_errors(), sweeps.watched(setting(arguments, "sweep")) as result:
            with_additions(run, for_hydra([each for each in arguments if each not in options], is_sweep(arguments)))
            result.report()
        if task.failed and not task.many:
            raise UserError(task.failed[0])
    return 0


def _may_follow(arguments: list[str]) -> bool:
    """Whether this may be one of several processes of a run, but not the first: only that one writes what Hydra writes."""
    return (setting(arguments, "engine.process") or os.environ.get("SLURM_PROCID") or "0") != "0"


def _dry_run(command: str, arguments: list[str], folders: list[str]) -> None:
    """Prints what a command would do; raises UserError for a sweep, and if the command would fail."""
    from rlsnet.cli.job import dry_run
    from rlsnet.runs.progress import working

    if is_sweep(arguments):
        raise UserError(f"{DRY_RUN}: expected one run; try it with one value of each setting of the sweep.")
    with working("Dry run"):
        dry_run(command, arguments, setting([*folders, *arguments], "hydra.run.dir"))


@contextlib.contextmanager
def _removed_if_unused(task: sweeps.Task, folder: str | None, only_shows: bool) -> Iterator[None]:
    """Context that leaves nothing of a run that fails, or is interrupted, before it has computed anything; jobs of a sweep stay.

    Args:
      task: the run.
      folder: the run folder that the user has named; None: a new one.
      only_shows: whether Hydra shows settings and runs nothing.
    """
    if folder is not None:
        STARTS.add(folder)
    try:
        yield
    except (UserError, KeyboardInterrupt):
        only_shows = not task.many
        raise
    finally:
        if only_shows:
            STARTS.remove_unused()


def setting(arguments: list[str], key: str) -> str | None:
    """Path of the last key=value among the arguments, without quotes and with ~ expanded; None if it is null or missing."""
    found = [a.split("=", 1)[1] for a in arguments if a.lstrip("+").startswith(f"{key}=")]
    return path_of(found[-1]) if found else None


def is_sweep(arguments: list[str]) -> bool:
    """Whether the arguments ask for a sweep."""
    return bool({"-m", "--multirun"} & set(arguments)) or setting(arguments, "sweep") is not None


def folder_overrides(command: str, arguments: list[str]) -> list[str]:
    """Overrides of Hydra's run folder, from the settings run, resume and sweep.

    Raises:
      UserError: a folder that the command does not accept, or one that contains no run.
    """
    several = is_sweep(arguments)
    run, resume, sweep = (setting(arguments, key) for key in ("run", "resume", "sweep"))
    if command == "test" and several:
        raise UserError("test -m: expected one run at a time; only train and simulate sweep.")
    if command == "test" and run is None:
        raise UserError("test: expected a run folder, such as rlsnet test outputs/2026-11-21/10-00-00 or rlsnet test last.")
    if command != "test" and run is not None:
        raise UserError(
            f"run={run}: is for test, plot and report; {command} takes hydra.run.dir=FOLDER, and rlsnet train RUN continues a run."
        )
    if command not in ("train", "watch") and resume is not None:
        raise UserError(f"resume={resume}: is for train and watch.")
    if command == "watch" and several:
        raise UserError("watch -m: expected one run; watch.models=4 trains several networks side by side.")
    if several and resume not in (None, "auto"):
        raise UserError(f"resume={resume}: expected resume=auto in a sweep, where every job has its own folder.")
    if (given := setting(arguments, "hydra.run.dir")) is not None:
        Run(given).refuse_links()  # Hydra writes there before the command starts
    if sweep is not None:
        return sweep_overrides(command, sweep, arguments)
    path = run if command == "test" else None if resume == "auto" else resume
    if path is None:
        return []
    found = Run.open(path)
    found.refuse_links()
    if command == "train" and not found.iterations():
        raise UserError(f"resume={path}: no complete checkpoint there; start anew, or with a smaller train.checkpoint_every.")
    return [f"hydra.run.dir={hydra_path(str(found.path))}", "hydra.output_subdir=null"]


def sweep_overrides(command: str, folder: str, arguments: list[str]) -> list[str]:
    """Overrides of Hydra's sweep folder, and the option -m, with which Hydra runs several jobs.

    Raises:
      UserError: a folder that cannot be the folder of a sweep.
    """
    if command not in ("train", "simulate"):
        raise UserError(f"sweep={folder}: is for train and simulate.")
    for key in ("hydra.sweep.dir", "hydra.sweep.subdir", "hydra.run.dir"):
        if (given := setting(arguments, key)) is not None:
            raise UserError(f"{key}={given}: cannot be combined with sweep={folder}, which names the folders.")
    path = Path(folder)
    if (path / "config.yaml").exists() or (path.exists() and not path.is_dir()):
        raise UserError(f"sweep={folder}: is {'a run' if path.is_dir() else 'a file'}; expected a new folder, or that of a sweep.")
    outputs.refuse_link(path / "multirun.yaml")
    for job in path.iterdir() if path.is_dir() else ():
        Run(job).refuse_links()
    return [f"hydra.sweep.dir={hydra_path(folder)}", *([] if {"-m", "--multirun"} & set(arguments) else ["-m"])]
