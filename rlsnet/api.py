"""The commands for Python: `import rlsnet`, then `rlsnet.compose`, `train`, `test`, `simulate`, `plot`, `load`.

They do what the command line does, with the same configuration and the same run folders. Mistakes raise `rlsnet.UserError`.
Messages of a run go to its rlsnet.log and to the logger "rlsnet": `logging.basicConfig(level="INFO")` shows them. During a call JAX is
set up (device, precision, cache of compiled programs) by `config.engine`; after it, JAX has the settings of before.
`rlsnet.Config()` is the experiment sinusoid, and `dataclasses.replace` changes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
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
    """`Run`, imported at its first use: it needs JAX."""
    if name == "Run":
        from rlsnet.runs.folder import Run

        return Run
    raise AttributeError(f"module 'rlsnet' has no attribute '{name}'")


def compose(*overrides: str, config_dir: Folder | None = None) -> Config:
    """The configuration that `rlsnet train *overrides` has.

    Example:
      >>> import dataclasses, rlsnet
      >>> config = rlsnet.compose("config=tiny", "rls.penlambda=0.4")
      >>> config.network.n_neurons, config.rls.penlambda
      (512, 0.4)
      >>> config = dataclasses.replace(config, train=dataclasses.replace(config.train, iterations=20))

    Args:
      overrides: key=value or group=option, as on the command line.
      config_dir: a folder with options of your own, as --config-dir.

    Raises:
      UserError: a key or an option that does not exist, or a value that does not fit.
    """
    from rlsnet.config import compose as composition
    from rlsnet.config.load import from_dict

    return from_dict(composition.compose(overrides, config_dir), overrides)


def import_recordings(sources: Folder | Sequence[Folder], out: Folder, **settings: Any) -> zarr.Group:
    """Averages recorded spikes over trials and writes them as one recording.zarr, as `rlsnet import` does; returns its Zarr group.

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
      out: path of the new recording, which ends in .zarr; an older recording there is replaced.
      settings: settings of `rlsnet import`, such as preset, align, window, conditions, trials, units.

    Raises:
      UserError: a setting or a source that does not fit; nothing is written then.
    """
    from rlsnet.data import recordings
    from rlsnet.data.import_options import options_of
    from rlsnet.data.importing import import_sources
    from rlsnet.io import zarr_store

    several = [sources] if isinstance(sources, str | PathLike) else sources
    import_sources([fspath(each) for each in several], fspath(out), options_of(_plain(settings)), logging.getLogger("rlsnet").info)
    return zarr_store.open_group(fspath(out), "import", recordings.FORMAT)


def train(config: Config, folder: Folder, *, resume: bool = False) -> Run:
    """Trains a network; returns its run folder.

    Ctrl-C finishes the iteration at hand and saves, before it interrupts.

    Example:
      >>> import rlsnet
      >>> config = rlsnet.compose("config=tiny", "network.n_neurons=64", "static.out_degree=12", "train.iterations=2")
      >>> run = rlsnet.train(config, "first")
      >>> [line["iteration"] for line in run.read_metrics()]
      [1, 2]

    Args:
      config: from `compose` or `Config`, perhaps changed with `dataclasses.replace`.
      folder: where the run goes, made if need be.
      resume: whether to go on with the run that is there; where there is none, it starts. Then config.train.iterations is the
        total, and settings that shape the network may not have changed.

    Raises:
      UserError: a setting that does not fit, or a folder that holds a run already, or one that was made with other settings.
    """
    from rlsnet.config.load import to_dict
    from rlsnet.workflows.resume import check_unchanged
    from rlsnet.workflows.training import run_training

    config, run = _checked(config), _new(folder)
    if done := run.iterations():
        if not resume:
            raise UserError(f"{run.path}: holds a run of {done[-1]} iterations already; resume=True goes on with it.")
        check_unchanged(run.saved_config(), to_dict(config), run.path)
    with _logged(run):
        stopped = run_training(config, run, bool(done))
    if stopped:
        signal.raise_signal(stopped)
    return run


def simulate(config: Config, folder: Folder) -> zarr.Group:
    """Draws a network and runs config.test.trials trials of it as it is; returns what `load` does.

    Args:
      config: from `compose`.
      folder: where the results go, made if need be.

    Raises:
      UserError: a setting that does not fit, or a folder that holds a training run.
    """
    from rlsnet.analysis.test_log import log_results
    from rlsnet.workflows.testing import run_simulation

    config, run = _checked(config), _new(folder)
    with _logged(run):
        log_results(run, run_simulation(config, run))
    return load(run)


def test(run: Run | Folder, *, perturb: Mapping[str, Any] | None = None, **settings: Any) -> zarr.Group:
    """Runs a trained network with frozen weights; returns what `load` does, of the perturbed run if it was perturbed.

    Example:
      >>> import rlsnet
      >>> results = rlsnet.test("first", trials=2, checkpoint="best")
      >>> results["psth"].shape                               # [condition, time, neuron]
      (1, 100, 64)
      >>> silenced = rlsnet.test("first", trials=2, checkpoint="best", perturb={"name": "silence", "neurons": "inh"})
      >>> (silenced["psth"][0][40:60] == 0).mean(axis=0)[-1].item()    # the last neuron is inhibitory
      1.0

    Args:
      run: or its folder.
      perturb: keys of the section `perturb`, with its `name`; those not given are at their defaults.
      settings: keys of the section `test`: trials, neurons, checkpoint, spikes.

    Raises:
      UserError: no run there, or a setting that does not fit.
    """
    from rlsnet.analysis.test_log import log_results
    from rlsnet.config.load import from_dict
    from rlsnet.config.schema import WindowConfig
    from rlsnet.io import zarr_store
    from rlsnet.workflows import test_store
    from rlsnet.workflows.testing import run_test

    run = open_run(run)
    saved, perturbation = run.saved_config(), {"name": "none"} | _plain(perturb or {})
    test_settings = {**saved.get("test", {}), **_plain(settings)}
    config = from_dict({**saved, "test": test_settings, "perturb": perturbation}, [f"perturb.{name}=" for name in perturb or {}])
    with _logged(run):
        log_results(run, run_test(config, run))
    if isinstance(config.perturb, WindowConfig):
        return zarr_store.open_group(run.perturbed_result(config.perturb.result), "run", test_store.FORMAT)
    return load(run)


test.__test__ = False  # type: ignore[attr-defined]  # no test of pytest's


def plot(run: Run | Folder) -> list[Path]:
    """Draws figures from the stored results of a run; returns their files. Matplotlib's settings are left as they were.

    Args:
      run: or its folder.

    Raises:
      UserError: no run there.
    """
    run = open_run(run)
    with _logged(run):
        from rlsnet.analysis.plots import run_figures

        run_figures.plot(run.config(), run)
    return sorted(run.figures.glob("*.png"))


def load(run: Run | Folder) -> zarr.Group:
    """The results of the last test or simulation of a run: the Zarr group RUN/test.zarr, which xarray opens too.

    Example:
      >>> import rlsnet
      >>> results = rlsnet.load("first")
      >>> results["current_correlation"][...].shape           # [condition, neuron]
      (1, 64)

    Args:
      run: or its folder.

    Raises:
      UserError: no run there, or none that was tested.
    """
    from rlsnet.io import zarr_store
    from rlsnet.workflows import test_store

    run = open_run(run)
    if not run.test.exists():
        raise UserError(f"{run.path}: has not been tested; rlsnet.test(run) does.")
    return zarr_store.open_group(run.test, "run", test_store.FORMAT)


def open_run(run: Run | Folder) -> Run:
    """A run by its folder; raises UserError where there is none."""
    from rlsnet.runs.folder import Run

    return run if isinstance(run, Run) else Run.open(fspath(run), "run")


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with paths as texts, and NumPy's numbers, arrays, ranges and tuples as Python's numbers and lists."""

    def of(value: Any) -> Any:
        value = value.tolist() if hasattr(value, "tolist") else fspath(value) if isinstance(value, PathLike) else value
        return list(value) if isinstance(value, range | tuple) else value

    return {name: of(value) for name, value in settings.items()}


def _new(folder: Folder) -> Run:
    from rlsnet.runs.folder import Run

    return Run(fspath(folder))


def _checked(config: Config) -> Config:
    """A configuration whose types and ranges are checked, as `dataclasses.replace` does not; without settings of a command line."""
    from rlsnet.config.load import from_dict, to_dict

    return dataclasses.replace(from_dict(to_dict(config)), resume=None, run=None, sweep=None)


class _ToRoot(logging.Handler):
    """Handler that passes records on to the root logger, if they are of its level."""

    def emit(self, record: logging.LogRecord) -> None:
        root = logging.getLogger()
        if root.isEnabledFor(record.levelno):
            root.handle(record)


@contextlib.contextmanager
def _logged(run: Run) -> Iterator[None]:
    """Messages of this block also go to RUN/rlsnet.log, as with the command line."""
    logger = logging.getLogger("rlsnet")
    loggers = [each for name, each in logging.root.manager.loggerDict.items() if f"{name}.".startswith("rlsnet.")]
    disabled = [each for each in loggers if isinstance(each, logging.Logger) and each.disabled]  # by logging.config
    for each in disabled:
        each.disabled = False
    run.path.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(run.path / "rlsnet.log", delay=True)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    added, before = (file, _ToRoot()), (logger.level, logger.propagate)
    for handler in added:
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)  # the attribute alone would leave what children remember of it
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
