"""Trials of a running experiment one after another: what is learned, written, published and shown after each of them."""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import logging
import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from rlsnet.config.schema import Config
from rlsnet.data.streams.messages import Batch
from rlsnet.data.streams.store import Stream, TrialRow
from rlsnet.data.streams.trials import StreamTrial
from rlsnet.errors import UserError, first_line, os_error, package
from rlsnet.io.formatting import counted, percent
from rlsnet.runs import metrics
from rlsnet.runs.checkpoint import CheckpointWriter
from rlsnet.runs.folder import Run
from rlsnet.runs.progress import Progress
from rlsnet.workflows.online import files
from rlsnet.workflows.online.ingest import Ingest
from rlsnet.workflows.online.predictions import Prediction, Predictor, as_message
from rlsnet.workflows.online.session import Learned, Session

log = logging.getLogger(__name__)

SHARE = 0.05  # of the time that large files for figures may take
LAST = 30  # trials whose score is shown
PREDICTION_TRIALS = 10  # after so many trials without a prediction, one is made even if the next trial waits


def words_of(error: Exception) -> str:
    """An error as one sentence."""
    if isinstance(error, OSError):
        return os_error(error)
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {first_line(error)}."


class Publisher:
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


class TrialLoop:
    """Trials one after another: learning, files, and the display.

    Attributes:
      failed: what has ended the training; the recording goes on.
    """

    def __init__(
        self, config: Config, run: Run, session: Session, ingest: Ingest, writer: CheckpointWriter,
        predictor: Predictor, publish: Publisher, show: Progress, stop: Callable[[], bool],
    ):  # fmt: skip
        self._stop = stop  # whether a signal has arrived
        self._config, self._run, self._session, self._ingest, self._writer = config, run, session, ingest, writer
        self._predictor, self._publish, self._show = predictor, publish, show
        self.failed: Exception | None = None
        self._whole = True  # whether all that was learned is in the stream and in trials.jsonl, as a checkpoint needs
        self._complete: collections.deque[float] = collections.deque()  # when each complete trial was known to be
        self._saved = (0, 0)  # iterations and trials of the last checkpoint
        self._snapshot_due = 0.0
        self._prediction: Prediction | None = None
        self._predicts = True
        self._predicted, self._prediction_s = -PREDICTION_TRIALS, 0.0  # trials at the last prediction, and how long it took, s
        self._recent: collections.deque[float] = collections.deque(maxlen=11)  # when the last trials became complete, s
        self._scores: collections.deque[Any] = collections.deque(maxlen=LAST)
        self._units_left_out = 0

    def repeat(self, stream: Stream, from_trial: int, live: bool) -> None:
        """Repeats the trials of a stream; those after `from_trial` are learned again, with as many iterations as before."""
        session, spikes, markers = self._session, 0, 0
        lines = [line for _, line in metrics.read_lines(self._run.trials) if isinstance(line, dict)]
        metrics.write_metrics(self._run.trials, [line for line in lines if line.get("trial", 0) <= from_trial])
        if stream.trials:
            log.info("Repeating %s, of which %d are learned already.", counted(len(stream.trials), "trial"), from_trial)
        self._saved = (session.models[0].done, from_trial)
        last_targets = max((n for n, row in enumerate(stream.trials[:from_trial]) if row.iterations), default=None)
        for number, row in enumerate(stream.trials):
            session.feed(_part(stream, slice(spikes, row.n_spikes), slice(markers, row.n_markers)), stream.units)
            spikes, markers = row.n_spikes, row.n_markers
            if not session.assembler.n_open:
                raise UserError(f"{self._run.stream}: trial {number + 1} is not there with these settings; expected those of its run.")
            trial = session.assembler.take()
            if number >= from_trial:
                self._learn(trial, row.iterations, lambda: False, lambda: False, known=True)
                if self._stop() or self.failed is not None:
                    return
                continue
            session.absorb(trial)
            if number == last_targets:
                session.restore_targets()
        if live:
            session.assembler.since = time.time()  # the source may still deliver what it has sent meanwhile
        self._feed(_part(stream, slice(spikes, None), slice(markers, None)), time.time() if live else math.inf, stream.units)
        if stream.trials:
            self._predict(lambda: self._stop() or len(self._complete) > 0)

    def follow(self, live: bool) -> None:
        """Learns the trials that come, until the source ends or a signal arrives."""
        keep_up, limit = live and self._config.watch.keep_up, self._config.watch.iterations
        self._state("waiting for trials")
        while not self._stop():
            self._drain(0.1)
            if not self._complete or self.failed is not None:
                if self._ingest.ended and not self._arrived(math.inf):
                    break
                if self.failed is not None:
                    self._complete.clear()
                continue

            def arrived() -> bool:
                self._drain(0.0)
                return self._stop() or (keep_up and len(self._complete) > 0)

            def interrupted() -> bool:
                return arrived() or (keep_up and self._time_to_predict())

            received = self._complete.popleft()
            waits = keep_up and len(self._complete) > 0
            self._state("training")
            self._learn(self._session.assembler.take(), 0 if waits else limit, interrupted, arrived, received if live else None)
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
            arrived = [min(now, time.time())] * max(0, new)
            self._complete.extend(arrived)
            self._recent.extend(arrived)
        return len(self._complete)

    def _learn(
        self, trial: StreamTrial, limit: int, stop: Callable[[], bool], arrived: Callable[[], bool],
        received: float | None = None, known: bool = False,
    ) -> None:  # fmt: skip
        """Learns a trial; an error ends the training and not the recording.

        Args:
          trial: the next trial.
          limit: largest number of iterations.
          stop: whether training must stop, asked between iterations.
          arrived: whether predictions must stop.
          received: when it was known to be complete, s; None when a stream is repeated.
          known: whether the stream has what was done after the trial.
        """
        self._whole = False
        try:
            learned = self._session.learn(trial, limit, stop)
            for each in self._session.models:
                each.wait()
            stored = known or self._ingest.add_trial(TrialRow(trial.n_spikes, trial.n_markers, learned.iterations))
            if learned.iterations and not known:
                self._predict(arrived)
            self._after(learned, None if received is None else time.time() - received)
            self._whole = stored
            if stored and self._session.models[0].done - self._saved[0] >= self._config.train.checkpoint_every:
                self._save()
        except Exception as error:
            self.failed = error
            log.error(
                "Training has stopped: %s The recording goes on.", words_of(error), exc_info=not isinstance(error, UserError | OSError)
            )

    def _predict(self, stop: Callable[[], bool]) -> None:
        """Predicts effects, unless the next trial is complete before that; at least every PREDICTION_TRIALS trials.

        An error ends the predictions, and nothing else.
        """
        if not self._predictor or not self._predicts:
            return
        try:
            self._predict_now(stop)
        except Exception as error:
            self._predicts = False
            log.error("No more predictions: %s", words_of(error), exc_info=not isinstance(error, UserError | OSError))

    def _predict_now(self, stop: Callable[[], bool]) -> None:
        """Predicts effects and writes them."""
        began, compiled = time.time(), self._predictor.compile_seconds
        due = self._session.n_trials - self._predicted >= PREDICTION_TRIALS
        found = self._predictor.predict(self._session, self._stop if due else stop)
        if found is not None:
            self._prediction, self._predicted = found, self._session.n_trials
            self._prediction_s = time.time() - began - (self._predictor.compile_seconds - compiled)
            seeds = [each.config.seed for each in self._session.models]
            files.write_prediction(self._run, found, self._session, seeds)

    def _time_to_predict(self) -> bool:
        """Whether training must end, so that a prediction is made before the next trial is probably complete."""
        if not self._predictor or not self._predicts or len(self._recent) < 3:
            return False
        following = self._recent[-1] + statistics.median(b - a for a, b in itertools.pairwise(self._recent))
        return time.time() + self._prediction_s > following

    def _after(self, learned: Learned, latency: float | None) -> None:
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
            log.warning(
                "%s without a neuron: recorded, not trained. A new run with a larger network.n_neurons can repeat the stream.", words
            )
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
            last = f"the last {len(self._scores)} trials" if len(self._scores) > 1 else "the trial"
            words += f"; of {last}, before learning from them, explained {percent(score)} of the variance (targets: {percent(ceiling)})"
        return words + "."

    def _snapshot(self) -> None:
        """Writes the files for figures and tests; so seldom that they take a small share of the time."""
        began = time.monotonic()
        psths = files.Psths.of(self._session)
        files.write_online(self._run, self._session, self._config, psths)
        files.write_recording(self._run.recorded, self._config, self._session, psths)
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
            if self._whole and done and (done, self._session.n_trials) != self._saved:
                self._save()
            if self._whole and self._session.n_trials:
                self._snapshot()
        self._state("stopped")

    def _state(self, training: str) -> None:
        """What ingest.json says about training."""
        session = self._session
        if self.failed is not None:
            training = f"stopped: {words_of(self.failed)}"
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
