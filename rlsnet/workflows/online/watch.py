"""The command watch: an experiment is recorded while it runs, and networks learn between its trials.

Data flow: a thread (`Ingest`) writes the messages of the source to stream.zarr. What is on the disk goes to the trials (`Session`); each
complete trial is scored, changes the targets, and is followed by iterations until the next trial is complete. Then the number of these
iterations is written to stream.zarr. So a run that is continued, or a stream.zarr that is repeated, gives the same weights to the bit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

from rlsnet.config.quoting import typed_command
from rlsnet.config.schema import ChangedConfig, Config, RecordingTargetConfig
from rlsnet.data import recordings
from rlsnet.data.streams import sources
from rlsnet.data.streams import store as stream_store
from rlsnet.data.streams.messages import Batch, Source
from rlsnet.data.streams.store import Stream, StreamStore
from rlsnet.errors import UserError
from rlsnet.io import atomic, outputs
from rlsnet.io.formatting import counted
from rlsnet.model.network_store import StoredNetwork
from rlsnet.runs.checkpoint import CheckpointWriter
from rlsnet.runs.folder import Run, resuming
from rlsnet.runs.progress import Progress
from rlsnet.workflows import interrupts
from rlsnet.workflows.loop import graceful_stop
from rlsnet.workflows.online import files, model
from rlsnet.workflows.online.ingest import Ingest
from rlsnet.workflows.online.model import OnlineModel
from rlsnet.workflows.online.predictions import Predictor
from rlsnet.workflows.online.session import Session, conditions_from, window_of
from rlsnet.workflows.online.trial_loop import Publisher, TrialLoop, words_of
from rlsnet.workflows.prepare import start

log = logging.getLogger(__name__)

EARLIER = "earlier_units.json"


def run_watch(config: Config, run: Run, resumed: bool) -> int:
    """Records an experiment and trains networks on it, until the source ends or a signal arrives.

    Args:
      config: the experiment; watch.source is an address, a folder or a stream.zarr.
      run: the run folder.
      resumed: whether to continue the run in the folder.

    Returns:
      0, or the number of the signal that stopped it.

    Raises:
      UserError: settings do not agree, the source cannot be opened, or training has failed.
    """
    check(config, run, resumed)
    if config.watch.warm_start is not None and not resumed:
        config = _with_size_of(config, Run.open(config.watch.warm_start))
    predictor = Predictor(config)
    publish = Publisher(config.watch.publish)
    repeated = _stream_of(config.watch.source)
    with contextlib.closing(publish), run.claimed(), start(config, run, "watch") as show:
        position = StreamStore(run.stream).position if run.stream.exists() else ""
        source: Source = _Ended() if repeated is not None else sources.opened(str(config.watch.source), position=position)
        store = StreamStore(run.stream)
        if repeated is not None and not store.n_markers and not store.n_spikes:
            _copy(stream_store.read(repeated), store)
        recorded = stream_store.read(run.stream)
        ingest = Ingest(source, store, run.path)
        interrupts.check()
        with graceful_stop() as stop, CheckpointWriter() as writer, ingest.running():
            log.info("Source: %s. Recording to %s.", repeated or source.name, run.stream)
            session, from_trial = _session(config, run, recorded, show)
            loop = TrialLoop(config, run, session, ingest, writer, predictor, publish, show, lambda: bool(stop.signal))
            loop.repeat(recorded, from_trial, live=repeated is None)
            loop.follow(live=repeated is None)
            loop.finish()
    log.info("Received: %s.", ingest.describe())
    if store.uncommitted_spikes:
        raise UserError(f"{run.stream}: {counted(store.uncommitted_spikes, 'spike')} could not be written, as the disk is full.")
    if loop.failed is not None:
        raise UserError(f"{words_of(loop.failed)} The experiment was recorded to its end; {resuming_watch(run)} learns the rest.")
    if stop.signal:
        log.info("Stopped after %s. To continue: %s", counted(session.n_trials, "trial"), resuming_watch(run))
    else:
        done = f"{counted(session.n_trials, 'trial')}, {counted(session.models[0].done, 'iteration')} in {run.path}"
        log.info("Done: %s.%s", done, f" Next: {typed_command('test', run.path)}" if session.models[0].done else "")
    return stop.signal


def resuming_watch(run: Run) -> str:
    """The line that continues a run of rlsnet watch."""
    return typed_command("watch", run.path)


def check(config: Config, run: Run, resumed: bool) -> None:
    """Raises UserError if the settings or the run folder are not for an experiment that runs."""
    if config.watch.source is None:
        raise UserError("watch.source=null: expected a source of messages, such as rlsnet watch oe://127.0.0.1:5557 RUN.")
    if not isinstance(config.target, RecordingTargetConfig):
        raise UserError(f"target={config.target.name}: expected recording, as in config=online: rates are what an experiment gives.")
    if config.recording.path is not None:
        raise UserError(f"recording.path={config.recording.path}: expected null; rlsnet watch records to {run.recorded}.")
    if config.network.load is not None:
        raise UserError(f"network.load={config.network.load}: expected null; watch.warm_start=RUN takes the network of a run.")
    if config.network.n_neurons is None:
        raise UserError("network.n_neurons=null: expected a number, larger than that of the units to come.")
    if isinstance(config.perturb, ChangedConfig):
        raise UserError(f"perturb={config.perturb.name}: is for test and simulate; watch.perturbations=FILE predicts effects.")
    conditions_from(config)
    if not resumed and ((run.path / "config.yaml").exists() or run.iterations()):
        raise UserError(f"{run.path}: contains a run; {resuming_watch(run)} continues it; or choose another folder.")
    if resumed and not run.stream.exists():
        raise UserError(f"{run.path}: has no stream.zarr, so rlsnet watch did not make it; {resuming(run.path)} trains it further.")


def _with_size_of(config: Config, earlier: Run) -> Config:
    """The configuration with as many neurons as the network of an earlier run; raises UserError if that has none."""
    n = _n_neurons(earlier)
    log.info("Network of %s, of %s.", earlier.path, counted(n, "neuron"))
    return dataclasses.replace(config, network=dataclasses.replace(config.network, n_neurons=n))


def _n_neurons(run: Run) -> int:
    """Number of neurons of the network of a run; raises UserError if it has none."""
    excitatory = StoredNetwork(str(run.network)).read("neuron/excitatory", ["N"], "b")
    assert excitatory is not None
    return len(excitatory)


def _stream_of(source: str | None) -> Path | None:
    """The stream.zarr that a source is, or that the run folder contains which it is; None for others."""
    for path in (Path(str(source)), Path(str(source)) / "stream.zarr"):
        if outputs.is_store(path, stream_store.FORMAT):
            return path
    return None


def _copy(stream: Stream, store: StreamStore) -> None:
    """Copies a stream, with what was done after its trials."""
    store.append(Batch(stream.spike_time, stream.spike_unit, stream.markers), stream.units, "")
    for row in stream.trials:
        store.add_trial(row)
    store.commit()


class _Ended:
    """A source that has ended."""

    name, position = "the end of the stream", ""

    def __init__(self) -> None:
        self.units: list[Any] = []

    def read(self, timeout: float) -> Batch | None:
        """None: nothing comes."""
        return None

    def problem(self) -> str:
        """No problem."""
        return ""

    def close(self) -> None:
        """Nothing to end."""


def _session(config: Config, run: Run, recorded: Stream, show: Progress) -> tuple[Session, int]:
    """(session with its models, number of trials that their weights have already learned)."""
    conditions, (_, kernel) = list(conditions_from(config)), window_of(config)
    runs = [run, *(Run(run.path / "models" / str(k)) for k in range(2, config.watch.models + 1))]
    configs = [dataclasses.replace(config, seed=config.seed + k) for k in range(len(runs))]
    point = _restart(runs, len(recorded.trials))
    models: list[OnlineModel] = []
    if point is None:
        assert config.network.n_neurons is not None  # `_check`
        files.write_recording(run.recorded, config, conditions, config.network.n_neurons)
    for own, each in zip(configs, runs, strict=True):
        each.path.mkdir(parents=True, exist_ok=True)
        if point is None:
            models.append(model.new(own, each, run.recorded, conditions, kernel, show))
        else:
            each.cut_metrics(point[0])
            models.append(model.existing(own, each, conditions, kernel, show))
            models[-1].restore(point[0])
    earlier = _earlier_units(config, run.path / EARLIER, point is not None)
    return Session(config, models, earlier), 0 if point is None else point[1]


def _restart(runs: list[Run], n_trials: int) -> tuple[int, int] | None:
    """(iteration, number of trials) of the newest checkpoint that all models have, of `n_trials` at most; None without one.

    Raises:
      UserError: the newest checkpoints were not made by rlsnet watch.
    """
    have = set.intersection(*(set(run.iterations()) if run.network.exists() else set() for run in runs))
    for iteration in sorted(have, reverse=True):
        trials = {model.trials_at(run, iteration) for run in runs}
        if None in trials:
            raise UserError(f"{runs[0].checkpoint_of(iteration)}: is of rlsnet train; expected a run that only rlsnet watch has trained.")
        (found,) = trials if len(trials) == 1 else (n_trials + 1,)
        if found is not None and found <= n_trials:
            return iteration, found
    return None


def _earlier_units(config: Config, stored: Path, resumed: bool) -> list[str]:
    """[N] key of the unit of each neuron in the run watch.warm_start; none without one, or where it is not known.

    Args:
      config: the experiment.
      stored: file that keeps them, as the earlier run may change.
      resumed: whether the file is read, and not written.
    """
    if config.watch.warm_start is None:
        return []
    if resumed:
        return [str(each) for each in json.loads(stored.read_text())]
    keys = _unit_keys(config.watch.warm_start)
    with atomic.replacing(stored) as temporary:
        temporary.write_text(json.dumps(keys))
    return keys


def _unit_keys(path_of_run: str) -> list[str]:
    """[N] key of the unit of each neuron of a run; none where it is not known."""
    earlier = Run.open(path_of_run)
    saved = earlier.saved_config()
    path = earlier.recorded if earlier.recorded.exists() else saved.get("recording", {}).get("path")
    if path is None or not Path(path).exists():
        log.info("%s: its recording was not found, so no unit keeps its neuron.", earlier.path)
        return []
    recording = recordings.open_recording(path)
    keys, units = recording.column("id"), recording.choose(_n_neurons(earlier), saved["seed"])
    if keys is None:
        return []
    return list((keys if units is None else keys[units]).astype(str))
