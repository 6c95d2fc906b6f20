"""Run folder: config.yaml, network.zarr, checkpoints/, {metrics,resources}.jsonl, test.zarr, perturbed/, analysis.zarr, figures/.

Each file and folder appears under its name when it is complete. A checkpoint is `checkpoints/000100.zarr` (weights and P, from which
training can resume) or `checkpoints/000087.best.zarr` (the weights of the best iteration so far).
"""

from __future__ import annotations

import contextlib
import logging
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import zarr

from rlsnet.config import plugins as plugin_modules
from rlsnet.config.compose import configs_dir
from rlsnet.config.load import from_dict, plugins_of, to_dict, unloaded, without_plugins
from rlsnet.config.quoting import typed_command
from rlsnet.config.schema import Config
from rlsnet.data import recordings
from rlsnet.errors import UserError, did_you_mean
from rlsnet.io import atomic, locks, outputs, zarr_store
from rlsnet.io.formatting import counted
from rlsnet.runs import metrics, saved_settings
from rlsnet.runs.catalogue import run_folders

log = logging.getLogger(__name__)

FORMAT = "rlsnet-checkpoint"
VERSION = 1
NETWORK = "network_fingerprint"  # attribute of a checkpoint and of a test: that of network.zarr
# what is written in place, and folders that are written into; all else is written anew and renamed
HYDRA = (".hydra", *(f".hydra/{name}.yaml" for name in ("config", "hydra", "overrides")))
LINES = tuple(f"{name}.{kind}" for name in ("metrics", "resources", "trials") for kind in ("jsonl", "crc32"))
IN_PLACE = (".lock", *HYDRA, "rlsnet.log", *LINES)
FOLDERS = ("checkpoints", "perturbed", "figures", "export", "tensorboard", "wandb", "models", "stream.zarr")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on; "not installed" if rlsnet runs from its source folder."""

    def version(name: str) -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return "not installed"

    packages = ("rlsnet", "jax", "jaxlib", "numpy", "zarr", "hydra-core")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def resuming(path: Path) -> str:
    """The line that continues a run."""
    is_experiment = (configs_dir() / "config" / f"{path}.yaml").exists()  # of the same name
    return typed_command("train", f"./{path}" if is_experiment else path)


def check_content(path: Path) -> None:
    """Raises UserError for a path without content that can be shown: nothing, a file, or a folder that contains runs and is none."""
    if not path.exists():
        raise UserError(f"{path}: no such folder; expected a run, network.zarr, recording.zarr, checkpoint or test.zarr.")
    if path.is_file():
        trial = typed_command("import", path, "OUT.zarr", more=["--dry-run"])
        raise UserError(f"{path}: a file; expected a run folder or a .zarr; {trial} shows what an import of it would give.")
    if not (path / "config.yaml").exists() and (words := _several(path)):
        raise UserError(f"{path}: {words}.")


def _several(path: Path) -> str:
    """How many runs a folder contains, and the command that lists them; "" for a store, and without runs."""
    if (path / zarr_store.METADATA).exists() or not (found := len(list(run_folders(path)))):
        return ""
    return f"contains {counted(found, 'run')}; {typed_command('runs', path)} lists {'it' if found == 1 else 'them'}"


def no_run(path: Path) -> str:
    """What a path is that is no run, and what was expected, for a message after the path."""
    if not path.exists():
        beside = {str(each.parent) for each in path.parent.glob("*/config.yaml") if not each.parent.name.startswith(".")}
        return f"no such folder; expected a run folder, which rlsnet train makes.{did_you_mean(str(path), beside)}"
    if words := _several(path):
        example = next(run_folders(path))
        return f"{words}; expected a run, such as {example}."
    if outputs.read_json(path / zarr_store.METADATA).get("attributes", {}).get("format") == recordings.FORMAT:
        train = typed_command("train", "mouse_decision", settings={"recording.path": path})
        return f"is a recording, not a run folder; {train} trains a network on it, and {typed_command('info', path)} describes it."
    if (around := next((each for each in list(path.parents)[:2] if (each / "network.zarr").exists()), None)) is not None:
        return f"is a part of a run, not a run folder; expected {around}."
    return "not a run folder; expected a run folder, which rlsnet train makes."


class Run:
    """A run, by the paths of the files in its folder; the folder need not exist yet.

    writes: whether this process writes all its files.
    """

    writes = True

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.network, self.metrics, self.test = self.path / "network.zarr", self.path / "metrics.jsonl", self.path / "test.zarr"
        self.resources, self.perturbed = self.path / "resources.jsonl", self.path / "perturbed"
        self.figures, self.checkpoints = self.path / "figures", self.path / "checkpoints"
        self.analysis, self.targets = self.path / "analysis.zarr", self.path / "targets.zarr"
        self.recorded, self.stream, self.trials = self.path / "recording.zarr", self.path / "stream.zarr", self.path / "trials.jsonl"

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """An existing run. Raises UserError if the path is not a run folder."""
        run = cls(path)
        if not (run.path / "config.yaml").exists():
            raise UserError(f"{path}: {no_run(run.path)}")
        return run

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Context with a lock on the folder, which also ends with the process.

        Raises:
          UserError: another process has the lock, or the folder contains files that no run has made.
        """
        self.refuse_links()
        self._refuse_foreign()
        self.path.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            lock = stack.enter_context((self.path / ".lock").open("a"))
            try:
                stack.enter_context(locks.held(self.path / ".lock", lock))
            except locks.Taken as taken:
                who = f" ({taken})" if str(taken) else ""
                text = f"another process uses this folder{who}; wait for it or choose another hydra.run.dir."
                raise UserError(f"{self.path}: {text}") from taken
            atomic.remove_leftovers(self.checkpoints, locked=True)
            for name in ("network.zarr", "config.yaml", "metrics.jsonl", "metrics.crc32"):
                atomic.remove_leftovers(self.path, name, locked=True)
            for folder in (self.path, self.perturbed, self.figures, self.path / "export"):  # by commands that need no lock
                atomic.remove_leftovers(folder)
            yield

    def refuse_links(self) -> None:
        """Raises UserError if rlsnet would write through a symbolic link in the folder; the folder itself may be one."""
        for name in (*IN_PLACE, *FOLDERS):
            outputs.refuse_link(self.path / name)

    def _refuse_foreign(self) -> None:
        """Raises UserError if the folder is a store, or has files with the names of a run's, but no run has made them."""
        if (self.path / zarr_store.METADATA).exists():
            raise UserError(f"{self.path}: is a Zarr store; expected a new or an empty folder for the run.")
        if self._was_made():
            return
        theirs = (self.path / "config.yaml", self.network, self.metrics, self.test, self.resources, self.checkpoints)
        for path in (*theirs, self.perturbed, self.figures, self.analysis):
            if path.exists() and not self._is_of_a_start(path):
                raise UserError(f"{path}: exists, and {self.path} is not a run folder; expected a new or an empty folder for the run.")

    def _is_of_a_start(self, path: Path) -> bool:
        """Whether a path is what a run leaves that ended before its config.yaml was written: network.zarr and resources.jsonl."""
        if path == self.network:
            return (self.path / ".lock").exists() and outputs.is_store(path, "rlsnet-network")
        return path == self.resources and (self.path / ".lock").exists() and metrics.checksums(path).exists()

    def _was_made(self) -> bool:
        """Whether the folder has the config.yaml of a run."""
        try:
            return {"network", "train", "engine"} <= self.saved_config().keys()
        except UserError:
            return False

    def is_simulation(self) -> bool:
        """Whether the run is one of rlsnet simulate: with a test of the initial weights, and without training."""
        trained = self.metrics.exists() or self.iterations() or self.best() is not None
        return not trained and self.test.exists() and not zarr_store.open_store(self.test).attrs.get("iteration")

    def busy(self) -> bool:
        """Whether another process has the lock on the folder."""
        return locks.is_held(self.path / ".lock")

    def clear(self) -> None:
        """Removes the files of an earlier run that ended before its first checkpoint; other files stay."""
        if not self._was_made():
            return
        figures = [path for path in self.figures.glob("*") if outputs.is_figure(path)]
        for stale in [*self.bests().values(), self.test, self.analysis, *self.perturbed.glob("*.zarr"), *figures, self.resources]:
            atomic.remove(stale)
        atomic.remove(metrics.checksums(self.resources))
        self.cut_metrics(0)

    def save_config(self, config: Config) -> None:
        """Writes all settings to config.yaml; the user trusts their plugins, with which he starts the run."""
        plugin_modules.trust(config.plugins)
        saved_settings.write(self.path / "config.yaml", to_dict(config))

    def config(self, plugins: Sequence[str] | None = None, trust: bool = False, whole: bool = False) -> Config:
        """Configuration of the run; settings that its version of rlsnet did not have get their defaults.

        The plugins that config.yaml names run only if the user trusts them. Otherwise a section with a model of a plugin is a
        `load.Unloaded`, which has the saved settings alone.

        Args:
          plugins: modules with the user's own models, which run in place of the saved ones; None: the saved ones.
          trust: whether the user trusts the saved plugins, now and later.
          whole: whether a model of a plugin that is not trusted is an error.

        Raises:
          UserError: config.yaml or a plugin cannot be read, or a setting is not allowed.
        """
        saved = self.saved_config()
        if plugins is not None:
            return from_dict({**saved, "plugins": list(plugins)})
        try:
            self.require_trust(saved, trust)
        except UserError:
            config = without_plugins(saved)
            if whole and unloaded(config):
                raise
            return config
        return from_dict(saved)

    def require_trust(self, saved: Mapping[str, Any], trust: bool) -> None:
        """Raises UserError if the user does not trust the plugins of saved settings; `trust`: he does, now and later."""
        names = plugins_of(saved)
        if trust:
            plugin_modules.trust(names)
        elif unknown := plugin_modules.untrusted(names):
            raise UserError(
                f"{self.path / 'config.yaml'}: plugins names {', '.join(unknown)}, code that you have not run before, or that has changed."
                " Read it first; trust=true then runs it, now and later."
            )

    def saved_config(self) -> dict[str, Any]:
        """Saved settings of the run, nested, with renamed settings under their present names.

        Raises:
          UserError: config.yaml is damaged, or contradicts the settings in the newest checkpoint.
        """
        return saved_settings.read(self.path / "config.yaml", self._trained_settings)

    def _trained_settings(self) -> tuple[str, Mapping[str, Any]] | None:
        """The newest checkpoint in words, and the settings in it; None if there is no checkpoint."""
        have = self.iterations()
        path = self.checkpoint("last") if have else self.best()
        if path is None:
            return None
        settings: Any = zarr_store.open_group(path, "", FORMAT).attrs.get("config")
        return (f"checkpoints/{path.name}", settings) if isinstance(settings, dict) else None

    def open_checkpoint(self, path: Path) -> zarr.Group:
        """A checkpoint, opened for reading.

        Raises:
          UserError: it cannot be read; or it lies in the folder of this run, but belongs to another iteration, network or settings.
        """
        group = zarr_store.open_group(path, "", FORMAT)
        if path.parent != self.checkpoints:
            return group
        name, iteration = path.name.split(".")[0], group.attrs.get("iteration")
        if name.isdecimal() and iteration != int(name):
            raise UserError(f"{path}: contains iteration {iteration}, and not that of its name; {zarr_store.REMEDY}.")
        self.check_network(path, group)
        settings: Any = group.attrs.get("config")
        if isinstance(settings, dict):
            saved_settings.compare(self.path / "config.yaml", self.saved_config(), (f"checkpoints/{path.name}", settings), edited=False)
        return group

    def check_network(self, path: Path, group: zarr.Group) -> None:
        """Raises UserError if a checkpoint or test in the folder, open as `group`, was made with another network.zarr."""
        made_with, found = group.attrs.get(NETWORK), zarr_store.fingerprint(self.network)
        if None not in (made_with, found) and made_with != found:
            name = path.relative_to(self.path)
            raise UserError(f"{self.network}: is not the network with which {name} was made; restore the one or the other from a copy.")

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Adds the line of an iteration to metrics.jsonl."""
        metrics.append_line(self.metrics, line)

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, one for each iteration, with the keys of `metrics.Metrics`; a warning if some are missing."""
        lines, have = metrics.read_metrics(self.metrics), self.iterations()
        last = have[-1] if have else 0
        if missing := sorted(set(range(1, last + 1)) - {line["iteration"] for line in lines}):
            words = f"{len(missing)} of the {last} iterations of {self.checkpoint('last').name}, the first is {missing[0]}"
            log.warning("%s lacks %s.", self.metrics, words)
        return lines

    def cut_metrics(self, iteration: int) -> None:
        """Removes the lines of iterations after `iteration`, which are computed again."""
        metrics.write_metrics(self.metrics, [line for line in metrics.read_metrics(self.metrics) if line["iteration"] <= iteration])

    def perturbed_result(self, label: str) -> Path:
        """Path of the result of a perturbed test."""
        return self.perturbed / f"{label}.zarr"

    def perturbed_results(self) -> dict[str, Path]:
        """Paths of the results of perturbed tests, by label."""
        return {path.stem: path for path in sorted(self.perturbed.glob("[!.]*.zarr"))}

    def iterations(self) -> list[int]:
        """Iterations with a complete checkpoint, ascending."""
        found = [re.fullmatch(r"([0-9]{6,})\.zarr", p.name) for p in self.checkpoints.glob("*.zarr")]
        return sorted(int(match[1]) for match in found if match)

    def best(self) -> Path | None:
        """Path of the checkpoint with the best weights, or None."""
        found = self.bests()
        return found[max(found)] if found else None

    def bests(self) -> dict[int, Path]:
        """Paths of the checkpoints of best weights, by iteration: the newest, and one that it replaces; not those that a user has named."""
        found = [(re.fullmatch(r"([0-9]{6,})\.best\.zarr", path.name), path) for path in self.checkpoints.glob("*.best.zarr")]
        return {int(match[1]): path for match, path in found if match}

    def best_validation(self) -> float | None:
        """Score of validation of the best weights that were saved; None without, or if an earlier version chose them otherwise."""
        best = self.best()
        if best is None:
            lost = self._lost_best()
            return None if lost is None else lost[1]
        stored = zarr_store.open_store(best).attrs.get("validation")
        return None if stored is None else float(stored)

    def _lost_best(self) -> tuple[int, float] | None:
        """(iteration, score of validation) of the best weights, if a run that saves them has none at all; None otherwise."""
        done = self.iterations()
        if self.best() is not None or not done or not self.saved_config().get("train", {}).get("save_best"):
            return None
        validated = [each for each in metrics.validations(metrics.read_metrics(self.metrics)) if each[0] <= done[-1]]
        return max(validated, key=lambda each: each[1], default=None)

    def checkpoint_of(self, iteration: int) -> Path:
        """Path of the checkpoint of an iteration, which need not exist."""
        return self.checkpoints / f"{iteration:06d}.zarr"

    def checkpoint(self, which: str, key: str = "test.checkpoint") -> Path:
        """Path of a checkpoint; that of one in this folder begins with `checkpoints`, however it is given.

        Args:
          which: best; last; auto, the best if there is one, else the last; the number of an iteration; or a path.
          key: setting with this value, for messages.

        Raises:
          UserError: no such checkpoint.
        """
        have = self.iterations()
        if which in ("best", "auto") and (best := self.best()) is not None:
            return best
        if which in ("best", "auto") and (lost := self._lost_best()) is not None:
            text = f"the best weights, of iteration {lost[0]}, are missing in {self.checkpoints}"
            raise UserError(f"{key}={which}: {text}; restore them from a copy, or take the last ones: {key}=last.")
        if which in ("last", "auto") and have:
            return self.checkpoint_of(have[-1])
        if which.isdecimal() and int(which) in have:
            return self.checkpoint_of(int(which))
        if which not in ("last", "best", "auto") and not which.isdecimal():
            zarr_store.open_group(which, key, FORMAT)
            real = self.checkpoints.resolve()
            own = [path.name for path in (Path(which), Path(which).resolve()) if path.parent.resolve() == real]
            return self.checkpoints / own[0] if own else Path(which)
        if not have and not self.bests() and which in ("auto", "best", "last"):
            text = f"{self.path} has no such checkpoint, as nothing was trained there"
            raise UserError(f"{key}={which}: {text}; expected a run of rlsnet train.")
        listed = ", ".join(map(str, have)) or "none"
        raise UserError(f"{key}={which}: {self.path} has no such checkpoint; it has checkpoints of iterations {listed}.")


class SharedRun(Run):
    """A run in a process that computes it together with the first one, and writes nothing but its part of the checkpoints."""

    writes = False

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """No lock: the first process has it."""
        yield

    def clear(self) -> None:
        """Nothing."""

    def save_config(self, config: Config) -> None:
        """Nothing."""

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Nothing."""

    def cut_metrics(self, iteration: int) -> None:
        """Nothing."""
