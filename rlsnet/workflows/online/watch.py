"""The command watch: an experiment is recorded while it runs, and networks learn between its trials.

Data flow: a thread (`Ingest`) writes the messages of the source to stream.zarr. What is on the disk goes to the trials (`Session`); each
complete trial is scored, changes the targets, and is followed by iterations until the next trial is complete. Then the number of these
iterations is written to stream.zarr. So a run that is continued, or a stream.zarr that is repeated, gives the same weights to the bit.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlsnet.config.quoting import typed_command
from rlsnet.config.schema import ChangedConfig, Config, RecordingTargetConfig
from rlsnet.data.streams import sources
from rlsnet.data.streams import store as stream_store
from rlsnet.data.streams.messages import Batch, Source
from rlsnet.data.streams.store import Stream, StreamStore, TrialRow
from rlsnet.data.streams.trials import StreamTrial
from rlsnet.errors import UserError, os_error, package
from rlsnet.io import outputs
from rlsnet.io.formatting import counted, percent
from rlsnet.model.network_store import StoredNetwork
from rlsnet.runs import metrics
from rlsnet.runs.checkpoint import CheckpointWriter
from rlsnet.runs.folder import Run, resuming
from rlsnet.runs.progress import Progress
from rlsnet.workflows import interrupts
from rlsnet.workflows.loop import graceful_stop
from rlsnet.workflows.online import files, model
from rlsnet.workflows.online.ingest import Ingest
from rlsnet.workflows.online.model import OnlineModel
from rlsnet.workflows.online.predictions import Prediction, Predictor, as_message
from rlsnet.workflows.online.session import Session, conditions_from, window_of
from rlsnet.workflows.prepare import start

log = logging.getLogger(__name__)

SHARE = 0.05  # of the time that large files for figures may take
LAST = 30  # trials whose score is shown


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
    _check(config, run, resumed)
    if config.watch.warm_start is not None and not resumed:
        config = _with_size_of(config, Run.open(config.watch.warm_start))
    predictor = Predictor(config)
    publish = _Publisher(config.watch.publish)
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
            loop = _Loop(config, run, session, ingest, writer, predictor, publish, show)
            loop.repeat(recorded, from_trial, lambda: bool(stop.signal), live=repeated is None)
            loop.follow(lambda: bool(stop.signal), live=repeated is None)
            loop.finish()
    log.info("Received: %s.", ingest.describe())
    if store.uncommitted_spikes:
        raise UserError(f"{run.stream}: {counted(store.uncommitted_spikes, 'spike')} could not be written, as the disk is full.")
    if loop.failed is not None:
        raise UserError(f"{_words(loop.failed)} The experiment was recorded to its end; {resuming_watch(run)} learns the rest.")
    if stop.signal:
        log.info("Stopped after %s. To continue: %s", counted(session.n_trials, "trial"), resuming_watch(run))
    else:
        done = f"{counted(session.n_trials, 'trial')}, {counted(session.models[0].done, 'iteration')} in {run.path}"
        log.info("Done: %s.%s", done, f" Next: {typed_command('test', run.path)}" if session.models[0].done else "")
    return stop.signal


def resuming_watch(run: Run) -> str:
    """The line that continues a run of rlsnet watch."""
    return typed_command("watch", run.path)


def _words(error: Exception) -> str:
    """An error as one sentence."""
    return os_error(error) if isinstance(error, OSError) else str(error)


def _check(config: Config, run: Run, resumed: bool) -> None:
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
    excitatory = StoredNetwork(str(earlier.network)).read("neuron/excitatory", ["N"], "b")
    assert excitatory is not None
    log.info("Network of %s, of %s.", earlier.path, counted(len(excitatory), "neuron"))
    return dataclasses.replace(config, network=dataclasses.replace(config.network, n_neurons=len(excitatory)))


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
    return Session(config, models, _earlier_units(config)), 0 if point is None else point[1]


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


def _earlier_units(config: Config) -> list[str]:
    """[N] key of the unit of each neuron in the run watch.warm_start; none without one, or where it is not known."""
    if config.watch.warm_start is None:
        return []
    from rlsnet.data import recordings

    earlier = Run.open(config.watch.warm_start)
    path = earlier.recorded if earlier.recorded.exists() else earlier.saved_config().get("recording", {}).get("path")
    if path is None or not Path(path).exists():
        log.info("%s: its recording was not found, so no unit keeps its neuron.", earlier.path)
        return []
    recording = recordings.open_recording(path)
    keys = recording.column("id")
    return [] if keys is None else keys.astype(str).tolist()


class _Publisher:
    """ZeroMQ publisher of results; does nothing without an address."""

    def __init__(self, address: str | None):
        """Binds the address; raises UserError if that is not possible."""
        self._socket: Any = None
        if address is None:
            return
        zmq = package("zmq", "live", f"watch.publish={address}")
        self._socket = zmq.Context.instance().socket(zmq.PUB)
        self._socket.setsockopt(zmq.LINGER, 500)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            raise UserError(
                f"watch.publish={address}: cannot be used ({error}); expected a free one, such as tcp://127.0.0.1:5560."
            ) from error

    def send(self, message: dict[str, Any]) -> None:
        """Sends a message as JSON to all that listen; never waits for them."""
        if self._socket is not None:
            self._socket.send_string(json.dumps(message))

    def close(self) -> None:
        """Closes the socket."""
        if self._socket is not None:
            self._socket.close()


class _Loop:
    """Trials one after another: learning, files, and the display.

    Attributes:
      failed: what has ended the training; the recording goes on.
    """

    def __init__(
        self, config: Config, run: Run, session: Session, ingest: Ingest, writer: CheckpointWriter,
        predictor: Predictor, publish: _Publisher, show: Progress,
    ):  # fmt: skip
        self._config, self._run, self._session, self._ingest, self._writer = config, run, session, ingest, writer
        self._predictor, self._publish, self._show = predictor, publish, show
        self.failed: Exception | None = None
        self._complete: collections.deque[float] = collections.deque()  # when each complete trial was known to be
        self._saved = (0, 0)  # iterations and trials of the last checkpoint
        self._snapshot_due = 0.0
        self._prediction: Prediction | None = None
        self._scores: collections.deque[Any] = collections.deque(maxlen=LAST)
        self._units_left_out = 0

    def repeat(self, stream: Stream, from_trial: int, stop: Any, live: bool) -> None:
        """Repeats the trials of a stream; those after `from_trial` are learned again, with as many iterations as before."""
        session, spikes, markers = self._session, 0, 0
        lines = [line for _, line in metrics.read_lines(self._run.trials) if isinstance(line, dict)]
        metrics.write_metrics(self._run.trials, [line for line in lines if line.get("trial", 0) <= from_trial])
        if stream.trials:
            log.info("Repeating %s, of which %d are learned already.", counted(len(stream.trials), "trial"), from_trial)
        self._saved = (session.models[0].done, from_trial)
        for number, row in enumerate(stream.trials):
            session.feed(_part(stream, slice(spikes, row.n_spikes), slice(markers, row.n_markers)), stream.units)
            spikes, markers = row.n_spikes, row.n_markers
            if number < from_trial:
                session.absorb(session.assembler.take())
                if number == from_trial - 1:
                    session.restore_targets()
            else:
                if stop():
                    return
                self._learn(session.assembler.take(), row)
        self._feed(_part(stream, slice(spikes, None), slice(markers, None)), time.time() if live else math.inf, stream.units)
        if self._predictor and stream.trials:
            self._predict(lambda: bool(stop()) or len(self._complete) > 0)

    def follow(self, stop: Any, live: bool) -> None:
        """Learns the trials that come, until the source ends or `stop` is true."""
        keep_up, limit = live and self._config.watch.keep_up, self._config.watch.iterations
        self._state("waiting for trials")
        while not stop():
            self._drain(0.1)
            if not self._complete or self.failed is not None:
                if self._ingest.ended and not self._arrived(math.inf):
                    break
                if self.failed is not None:
                    self._complete.clear()
                continue

            def interrupted() -> bool:
                self._drain(0.0)
                return bool(stop()) or (keep_up and len(self._complete) > 0)

            received = self._complete.popleft()
            waits = keep_up and len(self._complete) > 0
            self._learn_new(self._session.assembler.take(), 0 if waits else limit, interrupted, received if live else None)
            self._state("waiting for trials")

    def _drain(self, timeout: float) -> None:
        """Feeds all messages that are on the disk; waits up to `timeout` s for some."""
        found = self._ingest.take(timeout)
        while found is not None:
            self._feed(found.batch, found.received, self._ingest.store.units)
            found = self._ingest.take(0.0)
        self._arrived(math.inf if self._ingest.ended else time.time())

    def _feed(self, batch: Batch, received: float, units: Any) -> None:
        """Feeds messages, and notes when trials have become complete."""
        if self.failed is None:
            self._session.feed(batch, units)
            self._arrived(received if math.isfinite(received) else time.time())

    def _arrived(self, now: float) -> int:
        """Notes the trials that are complete at the time `now`; returns how many wait."""
        if self.failed is None:
            new = self._session.assembler.n_complete(now) - len(self._complete)
            self._complete.extend([min(now, time.time())] * max(0, new))
        return len(self._complete)

    def _learn_new(self, trial: StreamTrial, limit: int, stop: Any, received: float | None) -> None:
        """Learns a trial of a running experiment; an error ends the training and not the recording."""
        self._state("training")
        try:
            learned = self._session.learn(trial, limit, stop)
            for each in self._session.models:
                each.wait()
            if self._predictor and learned.iterations:
                self._predict(stop)
            latency = None if received is None else time.time() - received
            row = TrialRow(trial.n_spikes, trial.n_markers, learned.iterations)
            on_disk = self._ingest.add_trial(row)
            self._after(learned, latency)
            if on_disk and self._session.models[0].done - self._saved[0] >= self._config.train.checkpoint_every:
                self._save()
        except (UserError, OSError) as error:
            self.failed = error
            log.error("Training has stopped: %s The recording goes on.", _words(error))
            self._state(f"stopped: {_words(error)}")

    def _learn(self, trial: StreamTrial, row: TrialRow) -> None:
        """Learns a trial again, as before."""
        learned = self._session.learn(trial, row.iterations)
        self._after(learned, None)
        if self._session.models[0].done - self._saved[0] >= self._config.train.checkpoint_every:
            self._save()

    def _predict(self, stop: Any) -> None:
        """Predicts effects, unless the next trial is complete before that."""
        found = self._predictor.predict(self._session, stop)
        if found is not None:
            self._prediction = found
            seeds = [each.config.seed for each in self._session.models]
            files.write_prediction(self._run, found, self._session, seeds)

    def _after(self, learned: Any, latency: float | None) -> None:
        """Writes, publishes and shows what was learned from a trial."""
        session = self._session
        line = files.trial_line(learned, session, latency, len(self._complete))
        metrics.append_line(self._run.trials, line)
        if latency is not None and self._prediction is not None:
            line = {
                **line,
                "prediction": as_message(self._prediction, session.conditions),
                "most_informative": self._prediction.most_informative,
            }
        self._publish.send(line)
        if learned.score is not None:
            self._scores.append(learned.score)
        self._show.iteration = session.models[0].done
        log.info("%s", self._sentence(line))
        if session.assignment.n_left_out > self._units_left_out:
            self._units_left_out = session.assignment.n_left_out
            words = counted(self._units_left_out, "unit")
            log.warning("%s without a neuron: recorded, not trained. A larger network.n_neurons in a new run repeats the stream.", words)
        if time.monotonic() >= self._snapshot_due:
            self._snapshot()

    def _sentence(self, line: dict[str, Any]) -> str:
        """A trial in words."""
        words = f"Trial {line['trial']} ({line['condition'] or 'no condition'}): "
        if not line["iterations"]:
            return words + ("recorded, as the next one was complete." if line["lag_trials"] else "recorded.")
        words += counted(line["iterations"], "iteration")
        words += "" if line["latency_s"] is None else f", {line['latency_s']:.2f} s after it was complete"
        if (variance := sum(each.variance for each in self._scores)) > 0 and self._scores:
            score, ceiling = (sum(getattr(each, name) for each in self._scores) / variance for name in ("score", "ceiling"))
            words += (
                f"; explained variance of {counted(len(self._scores), 'trial')} before {percent(score)}, by the targets {percent(ceiling)}"
            )
        return words + "."

    def _snapshot(self) -> None:
        """Writes the files for figures and tests; so seldom that they take a small share of the time."""
        began = time.monotonic()
        files.write_online(self._run, self._session, self._config)
        files.write_recording(self._run.recorded, self._config, self._session.conditions, self._session.models[0].n_neurons, self._session)
        for each in self._session.models:
            each.save_targets()
        self._snapshot_due = time.monotonic() + (time.monotonic() - began) / SHARE

    def _save(self) -> None:
        """Writes checkpoints of all models."""
        for each in self._session.models:
            each.save(self._writer, self._session.n_trials)
        self._saved = (self._session.models[0].done, self._session.n_trials)

    def finish(self) -> None:
        """Writes what belongs to the end; what a full disk prevents is left to the next start."""
        done = self._session.models[0].done
        with _unless(self.failed):
            if done and (done, self._session.n_trials) != self._saved:
                self._save()
            if self._session.n_trials:
                self._snapshot()
        self._state("stopped" if self.failed is None else f"stopped: {_words(self.failed)}")

    def _state(self, training: str) -> None:
        """What ingest.json says about training."""
        session = self._session
        self._ingest.status = {
            "trials": session.n_trials,
            "trials_without_condition": session.n_without_condition,
            "spikes_in_windows": session.n_spikes_in_windows,
            "late": session.assembler.late,
            "lag_trials": len(self._complete),
            "training": training,
        }


@contextlib.contextmanager
def _unless(failed: Exception | None) -> Iterator[None]:
    """Context in which an OSError is ignored if training has failed before."""
    try:
        yield
    except OSError:
        if failed is None:
            raise


def _part(stream: Stream, spikes: slice, markers: slice) -> Batch:
    """Some messages of a stream."""
    return Batch(stream.spike_time[spikes], stream.spike_unit[spikes], stream.markers[markers])
