"""Python interface of the commands: `rlsnet.compose`, `train`, `test`, `simulate`, `plot`, `load`, `import_recordings`.

The functions do the same as the command line, with the same configuration and the same run folders. A mistake of the user raises
`rlsnet.UserError`. Messages of a run go to its rlsnet.log and to the logger "rlsnet"; `logging.basicConfig(level="INFO")` shows them.
During a call, `config.engine` sets JAX's device, precision and cache of compiled programs; afterwards JAX has its earlier settings.
`rlsnet.Config()` is the experiment sinusoid; change it with `dataclasses.replace`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlsnet.config.schema import Config
from rlsnet.errors import UserError

if TYPE_CHECKING:
    import zarr

    from rlsnet.runs.folder import Run

__all__ = ["Config", "Run", "UserError", "compose", "import_recordings", "load", "open_run", "plot", "simulate", "test", "train"]

Folder = str | PathLike[str]


def __getattr__(name: str) -> Any:
    """The class `Run`, imported at its first use because it needs JAX."""
    if name == "Run":
        from rlsnet.runs.folder import Run

        return Run
    raise AttributeError(f"module 'rlsnet' has no attribute '{name}'")


def compose(*overrides: str, config_dir: Folder | None = None) -> Config:
    """The configuration of the command line `rlsnet train *overrides`.

    Example:
      >>> import dataclasses, rlsnet
      >>> config = rlsnet.compose("config=tiny", "rls.penlambda=0.4")
      >>> config.network.n_neurons, config.rls.penlambda
      (512, 0.4)
      >>> config = dataclasses.replace(config, train=dataclasses.replace(config.train, iterations=20))

    Args:
      overrides: settings key=value and variants section=name, as on the command line.
      config_dir: folder with experiments and variants of your own, as --config-dir.

    Raises:
      UserError: a key or a variant does not exist, or a value is not allowed.
    """
    from rlsnet.config import compose as composition
    from rlsnet.config.load import from_dict

    return from_dict(composition.compose(overrides, None if config_dir is None else _path(config_dir)), overrides)


def import_recordings(sources: Folder | Sequence[Folder], out: Folder, **settings: Any) -> zarr.Group:
    """Averages recorded spikes over trials and writes one recording.zarr, like `rlsnet import`; returns its Zarr group.

    Example:
      >>> import numpy as np, rlsnet
      >>> spike_times, units = np.random.uniform(0, 60, 2000), np.random.randint(0, 5, 2000)
      >>> np.savez("session.npz", spike_times=spike_times, spike_clusters=units, **{"trials/start_time": np.arange(2.0, 60, 2)})
      >>> recording = rlsnet.import_recordings("session.npz", "mine.zarr", window=[0, 1], bin=20)
      >>> recording["rate"].shape                             # [condition, time, unit], Hz
      (1, 50, 5)
      >>> config = rlsnet.compose("config=mouse_decision", "recording.path=mine.zarr", "trial.duration=1000")

    Args:
      sources: files or folders of recordings, or patterns such as data/*.nwb; each is one session.
      out: path of the new recording, which ends in .zarr; overwrite=True replaces an older recording there.
      settings: settings of `rlsnet import`, such as preset, align, window, conditions, trials, units.

    Raises:
      UserError: a setting or a source cannot be used; then nothing is written.
    """
    from rlsnet.data import recordings
    from rlsnet.data.import_options import options_of
    from rlsnet.data.importing import import_sources
    from rlsnet.io import zarr_store

    several = [sources] if isinstance(sources, str | PathLike) else sources
    import_sources([fspath(each) for each in several], _path(out), options_of(_plain(settings)), logging.getLogger("rlsnet").info)
    return zarr_store.open_group(_path(out), "import", recordings.FORMAT)


def train(config: Config, folder: Folder, *, resume: bool = False) -> Run:
    """Trains a network; returns its run folder.

    After Ctrl-C, the current iteration is finished and saved, and then KeyboardInterrupt is raised.

    Example:
      >>> import rlsnet
      >>> config = rlsnet.compose("config=tiny", "network.n_neurons=64", "static.out_degree=12", "train.iterations=2")
      >>> run = rlsnet.train(config, "first")
      >>> [line["iteration"] for line in run.read_metrics()]
      [1, 2]

    Args:
      config: configuration from `compose` or `Config`, perhaps changed with `dataclasses.replace`.
      folder: the run folder, which is made if it does not exist.
      resume: whether to continue a run that is in the folder; without a run there, training starts. In a continued run,
        config.train.iterations is the total, and settings of the network may not differ from those of the run.

    Raises:
      UserError: a setting is not allowed, or the folder contains a run and `resume` is false, or a run with other settings.
    """
    from rlsnet.config.load import to_dict
    from rlsnet.workflows.resume import check_unchanged
    from rlsnet.workflows.training import run_training

    config, run = _checked(config), _new(folder)
    if done := run.iterations():
        if not resume:
            raise UserError(f"{run.path}: contains a run of {done[-1]} iterations; resume=True continues it.")
        check_unchanged(run.saved_config(), to_dict(config), run.path)
    with _logged(run):
        stopped = run_training(config, run, bool(done))
    if stopped:
        signal.raise_signal(stopped)
    return run


def simulate(config: Config, folder: Folder) -> zarr.Group:
    """Draws a network and simulates config.test.trials trials with its initial weights; returns the results as `load` does.

    Args:
      config: configuration from `compose` or `Config`.
      folder: the run folder, which is made if it does not exist.

    Raises:
      UserError: a setting is not allowed, or the folder contains a training run.
    """
    from rlsnet.analysis.test_log import log_results
    from rlsnet.workflows.testing import run_simulation

    config, run = _checked(config), _new(folder)
    with _logged(run):
        log_results(run, run_simulation(config, run))
    return load(run)


def test(run: Run | Folder, *, perturb: Mapping[str, Any] | None = None, trust: bool = False, **settings: Any) -> zarr.Group:
    """Simulates a trained network with frozen weights; returns the results as `load` does, with `perturb` those of the perturbed trials.

    Example:
      >>> import rlsnet
      >>> results = rlsnet.test("first", trials=2, checkpoint="last")
      >>> results["psth"].shape                               # [condition, time, neuron]
      (1, 100, 64)
      >>> silenced = rlsnet.test("first", trials=2, checkpoint="last", perturb={"name": "silence", "neurons": "inh"})
      >>> (silenced["psth"][0][40:60] == 0).mean(axis=0)[-1].item()    # the last neuron is inhibitory
      1.0

    Args:
      run: the run, or its folder.
      perturb: settings of the section `perturb`, among them `name`; the others have their defaults.
      trust: whether the plugins that the run's config.yaml names may run, now and later; those that you have trained with may.
      settings: settings of the section `test`: trials, neurons, checkpoint, spikes.

    Raises:
      UserError: the folder contains no run, or a setting is not allowed.
    """
    from rlsnet.analysis.test_log import log_results
    from rlsnet.config.load import from_dict
    from rlsnet.config.schema import ChangedConfig
    from rlsnet.workflows import test_store
    from rlsnet.workflows.testing import run_test

    run = open_run(run)
    saved, perturbation = run.saved_config(), {"name": "none"} | _plain(perturb or {})
    run.require_trust(saved, trust)
    test_settings = {**saved.get("test", {}), **_plain(settings)}
    config = from_dict({**saved, "test": test_settings, "perturb": perturbation}, [f"perturb.{name}=" for name in perturb or {}])
    with _logged(run):
        log_results(run, run_test(config, run))
    if isinstance(config.perturb, ChangedConfig):
        return test_store.open_test(run, run.perturbed_result(config.perturb.result))
    return load(run)


test.__test__ = False  # type: ignore[attr-defined]  # pytest does not collect it as a test


def plot(run: Run | Folder, *, trust: bool = False) -> list[Path]:
    """Draws figures from the stored results of a run; returns their files. Matplotlib's settings do not change.

    Args:
      run: the run, or its folder.
      trust: as for `test`; figures need no plugin.

    Raises:
      UserError: the folder contains no run.
    """
    run = open_run(run)
    with _logged(run):
        from rlsnet.analysis.plots import run_figures

        run_figures.plot(run.config(trust=trust), run)
    return sorted(run.figures.glob("*.png"))


def load(run: Run | Folder) -> zarr.Group:
    """Results of the last test or simulation of a run: the Zarr group RUN/test.zarr, which xarray can open too.

    Example:
      >>> import rlsnet
      >>> results = rlsnet.load("first")
      >>> results["current_correlation"][...].shape           # [condition, neuron]
      (1, 64)

    Args:
      run: the run, or its folder.

    Raises:
      UserError: the folder contains no run, or the run has not been tested.
    """
    from rlsnet.workflows import test_store

    run = open_run(run)
    if not run.test.exists():
        raise UserError(f"{run.path}: has not been tested; rlsnet.test(run) tests it.")
    return test_store.open_test(run, run.test)


def open_run(run: Run | Folder) -> Run:
    """The run in a folder; raises UserError if the folder contains none."""
    from rlsnet.runs.folder import Run

    return run if isinstance(run, Run) else Run.open(_path(run), "run")


def _path(path: Folder) -> str:
    """A path as text, with ~ expanded."""
    return os.path.expanduser(fspath(path))


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as plain values: paths as texts; numbers and arrays of NumPy, ranges and tuples as numbers and lists of Python."""

    def of(value: Any) -> Any:
        if isinstance(value, Mapping):
            return _plain(value)
        value = value.tolist() if hasattr(value, "tolist") else fspath(value) if isinstance(value, PathLike) else value
        return [of(each) for each in value] if isinstance(value, range | tuple | list) else value

    return {name: of(value) for name, value in settings.items()}


def _new(folder: Folder) -> Run:
    from rlsnet.runs.folder import Run

    return Run(_path(folder))


def _checked(config: Config) -> Config:
    """The configuration after a check of types and ranges, which `dataclasses.replace` leaves out; without settings of a command line."""
    from rlsnet.config.load import from_dict, to_dict

    return dataclasses.replace(from_dict(_plain(to_dict(config))), resume=None, run=None, sweep=None)


class _ToRoot(logging.Handler):
    """Handler that passes a record to the root logger if the level of that logger admits it."""

    def emit(self, record: logging.LogRecord) -> None:
        root = logging.getLogger()
        if root.isEnabledFor(record.levelno):
            root.handle(record)


@contextlib.contextmanager
def _logged(run: Run) -> Iterator[None]:
    """Context in which messages also go to RUN/rlsnet.log, as on the command line."""
    from rlsnet.runs.progress import LogFile

    logger = logging.getLogger("rlsnet")
    loggers = [each for name, each in logging.root.manager.loggerDict.items() if f"{name}.".startswith("rlsnet.")]
    disabled = [each for each in loggers if isinstance(each, logging.Logger) and each.disabled]  # by logging.config
    for each in disabled:
        each.disabled = False
    run.refuse_links()
    run.path.mkdir(parents=True, exist_ok=True)
    file = LogFile(run.path / "rlsnet.log", delay=True)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    added, before = (file, _ToRoot()), (logger.level, logger.propagate)
    for handler in added:
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)  # by the method, which also clears the levels that child loggers have cached
    logger.propagate = False
    try:
        yield
    finally:
        logger.setLevel(before[0])
        logger.propagate = before[1]
        for handler in added:
            logger.removeHandler(handler)
        for each in disabled:
            each.disabled = True
        file.close()
