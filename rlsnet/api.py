"""Python interface: the commands as functions, and `rlsnet.Run` with the results of a run.

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
from rlsnet.errors import UserError, joined

if TYPE_CHECKING:
    import pandas
    import xarray
    import zarr

    from rlsnet.data.recordings import Recording
    from rlsnet.results import Run
    from rlsnet.runs import folder as run_folder

__all__ = [
    "Config",
    "Run",
    "UserError",
    "analyse",
    "compare",
    "compose",
    "export",
    "import_network",
    "import_recordings",
    "info",
    "load",
    "open_recording",
    "open_run",
    "plot",
    "recording_from_arrays",
    "report",
    "simulate",
    "test",
    "train",
]

Folder = str | PathLike[str]


def __getattr__(name: str) -> Any:
    """The class `Run`, imported at its first use because it needs JAX."""
    if name == "Run":
        from rlsnet.results import Run

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
    return zarr_store.open_group(_path(out), "", recordings.FORMAT)


def import_network(source: Folder, out: Folder, **settings: Any) -> zarr.Group:
    r"""Writes a network.zarr with the wiring of a connectome, like `rlsnet import-network`; returns its Zarr group.

    Example:
      >>> import pathlib, rlsnet
      >>> text = "pre,post,syn_count,nt_type\nA,B,12,ACH\nB,C,3,GABA\nC,A,5,ACH\n"
      >>> _ = pathlib.Path("edges.csv").write_text(text)
      >>> network = rlsnet.import_network("edges.csv", "net.zarr", plastic="all")
      >>> network["neuron/name"][...].tolist()
      ['A', 'B', 'C']
      >>> config = rlsnet.compose("config=tiny", "network.load=net.zarr")

    Args:
      source: table of connections, SciPy sparse matrix, or circuit in SONATA.
      out: path of the new network, which ends in .zarr; overwrite=True replaces an older network there.
      settings: settings of `rlsnet import-network`, such as neuron_table, unknown, plastic. The attribute `imported` of the group says
        what was imported and what was not.

    Raises:
      UserError: a setting or the source cannot be used; then nothing is written.
    """
    from rlsnet.config.arguments import from_settings
    from rlsnet.data.connectomes import importing
    from rlsnet.data.connectomes.options import Options
    from rlsnet.io import zarr_store
    from rlsnet.model import network_store

    importing.import_network(_path(source), _path(out), from_settings(Options, "import-network", _plain(settings)))
    return zarr_store.open_group(_path(out), "", network_store.FORMAT)


def recording_from_arrays(
    out: Folder,
    *,
    rate: Any = None,
    current: Any = None,
    counts: Any = None,
    spikes: Any = None,
    trial_times: Any = None,
    conditions: Any = None,
    time: Any = None,
    window: Sequence[float] | None = None,
    bin: float | None = None,
    event: str | None = None,
    id: Any = None,
    region: Any = None,
    session: Any = None,
    excitatory: Any = None,
    columns: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Recording:
    """Writes a recording.zarr of arrays: rates, spike counts, spike times, or currents of your own; returns the recording.

    Give one of `rate`, `current`, `counts` and `spikes`. Counts and spikes are averaged over trials as by `import_recordings`, with
    the rates of odd and of even trials, so that trials can be held out. Currents are targets of your own (target=currents).

    Example:
      >>> import numpy as np, rlsnet
      >>> choice = np.repeat(["left", "right"], 20)           # [trial]
      >>> counts = np.random.poisson(0.2, (40, 150, 30))      # [trial, time, unit], spikes in a bin
      >>> recording = rlsnet.recording_from_arrays("own.zarr", counts=counts, conditions=choice, window=(-2, 1), event="go_cue")
      >>> recording
      <Recording own.zarr: rate of 30 units, 2 conditions (left, right), 150 bins of 20 ms, -2 to 1 s>
      >>> config = rlsnet.compose("config=mouse_decision", *recording.settings())

    Args:
      out: path of the new recording, which ends in .zarr.
      rate: [condition, time, unit] Hz; NaN: unknown.
      current: [condition, time, unit] target currents, in units of the threshold; NaN: no target.
      counts: [trial, time, unit] spikes in a bin; NaN where a trial does not count for a unit.
      spikes: the spike times of each unit in s: a list of arrays, or a dictionary of arrays by id of the unit.
      trial_times: [trial] s, time 0 of each trial on the clock of the spikes; for `spikes` alone.
      conditions: [condition] names; with counts or spikes [trial], the name of the condition of each trial.
      time: [time] s, centres of the bins.
      window: (start, end) of the time in s, in place of `time`; of spikes, the time around time 0, by default (-2, 1).
      bin: length of a bin in ms; alone, the first bin starts at 0 s. Of spikes, 20 by default.
      event: name of the event at time 0, such as go_cue.
      id: [unit] ids of the units; by default their numbers.
      region: [unit] brain regions, or one for all.
      session: [unit] sessions, or one for all; with counts or spikes, one.
      excitatory: [unit] true for excitatory and false for inhibitory units, None where it is not known.
      columns: further columns [unit] by name, such as {"depth": depth}.
      settings: settings of `rlsnet import`: overwrite and source; with counts and spikes also kernel, sigma, min_trials and others.

    Raises:
      UserError: an array has a wrong shape or impossible values, or a setting does not exist; then nothing is written.
    """
    from rlsnet.data import array_recording, recordings

    given = {
        name: values
        for name, values in (("rate", rate), ("current", current), ("counts", counts), ("spikes", spikes))
        if values is not None
    }
    if len(given) != 1:
        raise UserError(f"recording_from_arrays: {joined(given) or 'no array'} given; expected one of rate, current, counts and spikes.")
    if trial_times is not None and spikes is None:
        raise UserError("trial_times: applies to spikes; in counts each trial has its own row.")
    path, plain = Path(_path(out)), _plain(settings)
    axis = array_recording.TimeAxis(time, window, bin, event)
    units = {**(columns or {}), "id": id, "region": region, "session": session, "excitatory": excitatory}
    log = logging.getLogger("rlsnet").info
    if spikes is not None:
        array_recording.write_spikes(path, spikes, trial_times, axis, conditions, units, log, **plain)
    elif counts is not None:
        array_recording.write_counts(path, counts, axis, conditions, units, log, **plain)
    else:
        kind, values = next(iter(given.items()))
        array_recording.write_averages(path, kind, values, axis, conditions, units, **plain)
    return recordings.open_recording(path, "current" if current is not None else "rate")


def open_recording(path: Folder) -> Recording:
    """The recording at a path, with its rates (or target currents), times and units; raises UserError if there is none."""
    from rlsnet.data import recordings
    from rlsnet.io import zarr_store

    group = zarr_store.open_group(_path(path), "", recordings.FORMAT)
    return recordings.open_recording(_path(path), "current" if "current" in group and "rate" not in group else "rate")


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
      perturb: settings of the section `perturb`, among them `name`; the others have their defaults. Without a `label` the result is
        stored under this name or, where another perturbation has it, NAME_2 and so on.
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
        results = run_test(config, run)
        log_results(run, results)
    return test_store.open_test(run, results[-1]) if isinstance(config.perturb, ChangedConfig) else load(run)


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


def report(run: Run | Folder, out: Folder | None = None, *, overwrite: bool = False, trust: bool = False) -> Path:
    """Writes the results of a run to one HTML page, like `rlsnet report`; returns its path.

    Args:
      run: the run, or its folder.
      out: the file; None: report.html in the run folder, where an earlier page is replaced.
      overwrite: whether to replace an earlier page at `out`.
      trust: as for `test`; the page needs no plugin.

    Raises:
      UserError: the folder contains no run, or `out` exists.
    """
    from rlsnet.analysis.report import html, run_report
    from rlsnet.analysis.test_results import of_one_test, open_results
    from rlsnet.io.outputs import html_file

    run = open_run(run)
    file = html_file(None if out is None else _path(out), run.path / "report.html", overwrite)
    html.write_page(file, of_one_test(run, lambda: run_report.page(open_results(run, trust=trust))))
    return file


def analyse(
    run: Run | Folder,
    *,
    only: str | Sequence[str] | None = None,
    conditions: Sequence[str] | None = None,
    window: Sequence[float] | None = None,
    neurons: Sequence[int] | None = None,
    trials: int = 10,
    decoded_units: int | None = 10,
    trust: bool = False,
) -> dict[str, xarray.Dataset]:
    """Analyses of a tested run beside its recording, like `rlsnet analyse`; returns the results by name, with coordinates.

    Results are stored in RUN/analysis.zarr too; `run.draw("analysis_silencing")` and `plot` draw them. Progress goes to the log.

    Args:
      run: the run, or its folder.
      only: names of analyses, such as ["trajectories", "silencing"]; None: all. docs/analyses.md describes them.
      conditions: the two conditions that are compared; None: the first two.
      window: start and end in s of the recording's time, in which conditions are compared and regions are silenced.
      neurons: numbers of the neurons whose voltage and currents are recorded.
      trials: simulated trials of each condition for each silenced region.
      decoded_units: units that a decoder is given, drawn at random; None: all of a session.
      trust: as for `test`.

    Raises:
      UserError: the run has not been tested, or a setting is not allowed; without `only`, an analysis that is impossible is left out.
    """
    from rlsnet.analysis.analyses.analyse import AnalysisOptions
    from rlsnet.analysis.analyses.analyse import analyse as analyse_run
    from rlsnet.analysis.test_results import open_results
    from rlsnet.kernels.device import configured

    run = open_run(run)
    lists: dict[str, Any] = {"only": [only] if isinstance(only, str) else only, "conditions": conditions, "window": window}
    lists = {name: None if each is None else tuple(each) for name, each in _plain(lists | {"neurons": neurons}).items()}
    options = AnalysisOptions(**lists, trials=trials, decoded_units=decoded_units)
    results, log = open_results(run, trust=trust), logging.getLogger("rlsnet")
    with _logged(run), configured(dataclasses.replace(results.config.engine, devices=1)):
        found = analyse_run(results, options, log.info, log.warning)
    return {name: result.to_xarray(results.conditions, results.time) for name, result in found.items()}


def compare(*runs: Run | Folder, out: Folder | None = None, overwrite: bool = False) -> pandas.DataFrame:
    """Runs side by side, like `rlsnet compare`: a table with a row for each run, the best first.

    Its columns are the settings in which the runs differ, their scores, rates and speed. Runs that cannot be read are left out; a
    warning says why.

    Args:
      runs: runs, or folders with runs in them, such as that of a sweep.
      out: an HTML file to write as well; None: none.
      overwrite: whether to replace an earlier page at `out`.

    Raises:
      UserError: there is no run, or `out` exists.
    """
    from rlsnet.analysis import comparison
    from rlsnet.analysis.report import comparison_page, html
    from rlsnet.errors import package
    from rlsnet.io.outputs import html_file
    from rlsnet.runs import folder as run_folder

    pandas = package("pandas", "notebook", "compare")
    if not runs:
        raise UserError("compare: expected runs, or a folder with runs in it.")
    file = None if out is None else html_file(_path(out), Path(), overwrite)
    found = comparison.read([run.path if isinstance(run, run_folder.Run) else Path(_path(run)) for run in runs])
    for name, reason in found.unreadable:
        logging.getLogger("rlsnet").warning("%s: %s", name, reason)
    if file is not None:
        html.write_page(file, comparison_page.page(found))
    columns = {column.name: column.values if column.numeric else column.texts for column in comparison.columns(found)}
    table = pandas.DataFrame(columns, pandas.Index(found.names, name="run"))
    return table.rename(columns={"peak memory": "peak memory (bytes)"})  # others state their unit, or are shares


def export(
    run: Run | Folder, to: str, out: Folder | None = None, *, checkpoint: str | int = "auto", overwrite: bool = False, trust: bool = False
) -> Path:
    """Writes a trained network and its simulated spikes for other tools, like `rlsnet export`; returns the file or folder.

    Args:
      run: the run, or its folder.
      to: the format: zarr, npz, sonata, nwb, nest or brian2.
      out: the file or folder to write; None: within RUN/export.
      checkpoint: the weights: auto (best, else last), best, last, an iteration, or the path of a checkpoint.
      overwrite: whether to replace an earlier export at `out`.
      trust: as for `test`.

    Raises:
      UserError: no such run, format or checkpoint, or `out` exists.
    """
    from rlsnet.errors import did_you_mean
    from rlsnet.exports import writer

    if to not in writer.FORMATS:
        raise UserError(f"to={to}: expected {', '.join(writer.FORMATS)}.{did_you_mean(to, writer.FORMATS)}")
    return writer.export(open_run(run).path, to, None if out is None else _path(out), str(checkpoint), overwrite, trust)[0]


def info(path: run_folder.Run | Folder | None = None, *, trust: bool = False) -> None:
    """Prints the content of a run, network, recording, checkpoint or test, like `rlsnet info`.

    Args:
      path: of what to describe; None: versions and devices of this installation.
      trust: as for `test`.

    Raises:
      UserError: there is nothing at the path that rlsnet made.
    """
    from rlsnet.analysis import inspect
    from rlsnet.runs import folder as run_folder

    if isinstance(path, run_folder.Run):
        path = path.path
    inspect.show(None if path is None else _path(path), trust)


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


def open_run(run: run_folder.Run | Folder) -> Run:
    """The run in a folder; raises UserError if the folder contains none."""
    from rlsnet.results import Run
    from rlsnet.runs import folder as run_folder

    return run if isinstance(run, Run) else Run.open(run.path if isinstance(run, run_folder.Run) else _path(run))


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
    from rlsnet.results import Run

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
