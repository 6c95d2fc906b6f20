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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rlsnet.config.quoting import typed_command
from rlsnet.config.schema import ChangedConfig, Config, RecordingTargetConfig
from rlsnet.data import recordings
from rlsnet.data.recordings import Recording
from rlsnet.data.streams import sources
from rlsnet.data.streams import store as stream_store
from rlsnet.data.streams.messages import Batch, Source
from rlsnet.data.streams.store import Stream, StreamStore
from rlsnet.errors import UserError, first_line
from rlsnet.io import atomic, outputs
from rlsnet.io.formatting import counted
from rlsnet.model.network_store import StoredNetwork
from rlsnet.runs.checkpoint import CheckpointWriter
from rlsnet.runs.folder import Run, resuming
from rlsnet.runs.progress import Progress
from rlsnet.workflows import interrupts
from rlsnet.workflows.loop import graceful_stop
from rlsnet.workflows.online import files, model
from rlsnet.workflows.online.ingest import STATUS, Ingest
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
        config = _as_earlier(config, Run.open(config.watch.warm_start))
    predictor = Predictor(config)
    publish = Publisher(config.watch.publish)
    repeated, text = _stream_of(config.watch.source), str(config.watch.source)
    loop: TrialLoop | None = None
    with contextlib.closing(publish), run.claimed(), start(config, run, "watch") as show:
        store = StreamStore(run.stream) if run.stream.exists() else None
        position = store.position if store is not None and store.source == text else ""
        source: Source = _Ended() if repeated is not None else sources.opened(text, position=position)
        store = store or StreamStore(run.stream)  # a source that cannot be opened leaves nothing behind
        try:
            _begin(store, text, config, None if repeated is None else stream_store.read(repeated))
            if not resumed:
                run.save_config(config)  # so that a run that is killed from now on can be continued
            recorded = stream_store.read(run.stream)
            ingest = Ingest(source, store, run.path)
            interrupts.check()
            with graceful_stop() as stop, CheckpointWriter() as writer, ingest.running():
                log.info("Source: %s. Recording to %s.", repeated or source.name, run.stream)
                with _recording_on(ingest, lambda: bool(stop.signal), resumed and repeated is None):
                    session, from_trial = _session(config, run, recorded, show)
                    loop = TrialLoop(config, run, session, ingest, writer, predictor, publish, show, lambda: bool(stop.signal))
                    loop.repeat(recorded, from_trial, live=repeated is None)
                loop.follow(live=repeated is None)
                loop.finish()
        finally:
            if loop is None and not resumed:  # other settings are possible; what was received stays
                empty = not store.n_spikes and not store.n_markers
                for path in (run.path / "config.yaml", run.recorded, *((run.stream, run.path / STATUS) if empty else ())):
                    atomic.remove(path)
    log.info("Received: %s.", ingest.describe())
    _check_end(run, loop, ingest, store)
    if stop.signal:
        log.info("Stopped after %s. To continue: %s", counted(session.n_trials, "trial"), resuming_watch(run))
    else:
        done = f"{counted(session.n_trials, 'trial')}, {counted(session.models[0].done, 'iteration')} in {run.path}"
        log.info("Done: %s.%s", done, f" Next: {typed_command('test', run.path)}" if session.models[0].done else "")
    return stop.signal


def _begin(store: StreamStore, source: str, config: Config, repeated: Stream | None) -> None:
    """Notes the source and the rules of the trials in a stream, and copies the stream that is repeated into an empty one."""
    trial, watch = config.trial, config.watch
    rules = {name: getattr(watch, name) for name in ("align", "start", "kernel", "sigma", "trial_start", "trial_end", "settle")}
    store.rules = {**rules, "duration": trial.duration, "learn_every": trial.learn_every}
    if store.source != source:
        store.source, store.position = source, ""
    if repeated is not None and not store.n_markers and not store.n_spikes:
        same = not repeated.rules or repeated.rules == store.rules
        if not same:
            log.info("The trials of the stream were made by other settings; iterations are not those of its run.")
        store.copy(repeated, with_trials=same)
    store.commit()


@contextlib.contextmanager
def _recording_on(ingest: Ingest, stop: Callable[[], bool], going_on: bool) -> Iterator[None]:
    """Context of the start of training; if it fails in a run that is continued, the experiment is recorded to its end before the error."""
    try:
        yield
    except Exception as error:
        if going_on:
            log.error("Training cannot go on: %s The recording goes on.", words_of(error))
            while not stop() and not ingest.ended:
                ingest.take(0.1)
        raise


def _check_end(run: Run, loop: TrialLoop, ingest: Ingest, store: StreamStore) -> None:
    """Raises UserError if the recording or the training has failed."""
    if ingest.failed is not None:
        raise UserError(f"{run.stream}: the recording has stopped ({first_line(ingest.failed)}); {resuming_watch(run)} goes on.")
    if store.uncommitted:
        raise UserError(f"{counted(store.uncommitted, 'spike, marker or trial')} lost: {ingest.disk}")
    if loop.failed is not None:
        raise UserError(f"{words_of(loop.failed)} The experiment was recorded to its end; {resuming_watch(run)} learns the rest.")


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
    if config.engine.devices != 1:
        raise UserError(f"engine.devices={config.engine.devices}: expected 1 for watch, which uses one device.")
    conditions_from(config)
    if not resumed and ((run.path / "config.yaml").exists() or run.iterations()):
        raise UserError(f"{run.path}: contains a run; {resuming_watch(run)} continues it; or choose another folder.")
    if resumed and not run.stream.exists():
        raise UserError(f"{run.path}: has no stream.zarr, so rlsnet watch did not make it; {resuming(run.path)} trains it further.")


def _as_earlier(config: Config, earlier: Run) -> Config:
    """The configuration with as many neurons as the network of an earlier run; raises UserError if it had other conditions."""
    n, recording, names = _n_neurons(earlier), _recording_of(earlier), list(conditions_from(config))
    if recording is not None and list(recording.conditions) != names:
        theirs = ", ".join(recording.conditions)
        raise UserError(f"watch.warm_start={earlier.path}: has the conditions {theirs}; expected {', '.join(names)}, as watch.conditions.")
    log.info("Network of %s, of %s.", earlier.path, counted(n, "neuron"))
    return dataclasses.replace(config, network=dataclasses.replace(config.network, n_neurons=n))


def _recording_of(run: Run) -> Recording | None:
    """The recording of a run, of rlsnet watch or of train; None if it is not found."""
    path = run.recorded if run.recorded.exists() else run.saved_config().get("recording", {}).get("path")
    return recordings.open_recording(path) if path is not None and Path(path).exists() else None


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
    for each in runs:  # later ones belong to trials that are not in the stream
        for iteration in each.iterations():
            if point is None or iteration > point[0]:
                atomic.discard(each.checkpoint_of(iteration))
    models: list[OnlineModel] = []
    if point is None:
        assert config.network.n_neurons is not None  # `_check`
        files.write_first_recording(run.recorded, config, conditions, config.network.n_neurons)
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
    recording = _recording_of(earlier)
    if recording is None:
        log.info("%s: its recording was not found, so no unit keeps its neuron.", earlier.path)
        return []
    keys, units = recording.column("id"), recording.choose(_n_neurons(earlier), earlier.saved_config()["seed"])
    if keys is None:
        return []
    return list((keys if units is None else keys[units]).astype(str))
