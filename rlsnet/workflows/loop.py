"""Training loop: iterations one after the other, with metrics, checkpoints and a stop after the current iteration."""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rlsnet.config.schema import Config
from rlsnet.errors import UserError
from rlsnet.io.formatting import byte_size, percent
from rlsnet.kernels import processes
from rlsnet.learning.iteration import Iteration, Outcome
from rlsnet.learning.rls import Learner
from rlsnet.model import rng
from rlsnet.model.network import Network
from rlsnet.runs import checkpoint, memory_plan
from rlsnet.runs.checkpoint import CheckpointWriter
from rlsnet.runs.folder import Run, resuming
from rlsnet.runs.metrics import no_longer_better
from rlsnet.runs.progress import Progress, memory_used
from rlsnet.simulation.state import TRAINING, Dynamics, TrialKeys
from rlsnet.workflows import interrupts

log = logging.getLogger(__name__)


def condition_of(config: Config, conditions: int, iteration: int) -> int:
    """Index of the condition, of `conditions`, that an iteration (from 1) trains, by train.order; the seed determines it."""
    stream, turn = rng.key(config.seed, rng.Purpose.ORDER), iteration - 1
    if config.train.order == "shuffled":
        draws = rng.uniform(rng.fold(stream, turn // conditions), conditions, jnp.dtype("float32"))
        return int(np.argsort(draws, kind="stable")[turn % conditions])
    if config.train.order == "weighted":
        share = np.cumsum(config.train.weights or ())
        draw = float(rng.uniform(rng.fold(stream, turn), 1, jnp.dtype("float32"))[0])
        return int(np.searchsorted(share, draw * share[-1], side="right"))
    return turn % conditions


def train(
    config: Config,
    network: Network,
    learner: Learner,
    target: Array,
    run: Run,
    done: int,
    show: Progress,
    recorded: Array | None = None,
    track: Callable[[Mapping[str, Any], int], None] = lambda line, iteration: None,
    validate: Callable[[Array], float | None] | None = None,
) -> int:
    """Trains from iteration `done` + 1 to iteration train.iterations.

    Args:
      config: the experiment.
      network: neurons and connectivity, on the devices.
      learner: weights and P after `done` iterations; their arrays are donated.
      target: [C, M, N] target currents, threshold units; NaN: not trained.
      run: the run that receives metrics and checkpoints.
      done: number of iterations computed before.
      show: display of progress.
      recorded: [C, N] Hz, mean recorded rates, for the metrics; or None.
      track: function that receives a line of metrics and the number of its iteration.
      validate: score of weights [G, X+L, S] in trials with frozen weights, for train.validate_every; or None.

    Returns:
      0, also where train.stop_when has ended the training, or the number of the signal that stopped it. The run is saved in both cases.

    Raises:
      UserError: the weights are no longer finite numbers, or train.weights does not have a number for each condition.
    """
    trained = trained_conditions(config, target)
    if ended_before(config, run, done):
        return 0
    dynamics, total = Dynamics.from_config(config), config.train.iterations
    keys, trials = TrialKeys.create(config.seed, TRAINING), config.train.trials_per_update
    with show.busy("Compiling"):
        iteration_of = Iteration(dynamics, config.rls, network, learner, target, keys, recorded, trials)
    size, working = memory_plan.compiled_bytes(iteration_of.executable), memory_plan.temporary_bytes(iteration_of.executable)
    log.info("Compiled in %.1f s%s.", iteration_of.seconds, "" if size is None else f"; memory by XLA's count: {byte_size(size)}")
    stopped = 0
    interrupts.check()
    with graceful_stop() as stop, show.bar(total, done) as bar, CheckpointWriter() as writer:
        record = Record(config, network, run, writer, working, track, validate)
        for iteration in range(done + 1, total + 1):
            show.iteration, start = iteration, time.perf_counter()
            condition = trained[condition_of(config, len(trained), iteration)]
            learner, result = iteration_of(learner, iteration - 1, condition)
            result = jax.device_get(result)
            line = record.add(iteration, condition, time.perf_counter() - start, result, learner)
            stopped = processes.largest(stop.signal)
            record.save(iteration, learner, bool(stopped))
            bar.advance({**line, "memory": memory_used()})
            if stopped or record.ended:
                break
    record.log_end(iteration, stopped)
    return stopped


def trained_conditions(config: Config, target: Array) -> list[int]:
    """Indices of the conditions that are trained; raises UserError if train.weights does not have a number for each."""
    every = config.train.conditions is None
    trained = [c for c in range(len(target)) if every or bool(jnp.isfinite(target[c]).any())]
    if config.train.weights is not None and len(config.train.weights) != len(trained):
        given = list(config.train.weights)
        raise UserError(f"train.weights={given}: expected {len(trained)} numbers, one for each trained condition.")
    return trained


def ended_before(config: Config, run: Run, done: int) -> bool:
    """Whether train.stop_when has ended a run after `done` iterations, and says so."""
    if not no_longer_better(run.read_metrics(), config.train.stop_when):
        return False
    _log_end(config, done)
    return True


class Record:
    """What a run keeps of its iterations: metrics, validation, best weights and checkpoints.

    Attributes:
      ended: whether train.stop_when ends the training after the last iteration.
      own: function that gives the learner of this run from the learner that is computed, which may be that of several runs.
    """

    def __init__(
        self, config: Config, network: Network, run: Run, writer: CheckpointWriter, working: int,
        track: Callable[[Mapping[str, Any], int], None], validate: Callable[[Array], float | None] | None,
    ):  # fmt: skip
        """Reads the metrics so far; `working` as of `checkpoint.save_checkpoint`, other arguments as of `train`."""
        self._config, self._network, self._run, self._writer, self._working = config, network, run, writer, working
        self._track, self._validate, self._metrics, self._best = track, validate, run.read_metrics(), run.best_validation()
        self.ended = False
        self.own: Callable[[Learner], Learner] = lambda learner: learner

    def add(self, iteration: int, condition: int, seconds: float, outcome: Outcome, learner: Learner) -> dict[str, Any]:
        """Records an iteration, and returns its line of metrics.

        Args:
          iteration: its number, from 1.
          condition: index of its condition.
          seconds: its duration.
          outcome: its metrics, on the host.
          learner: the learner after it.

        Raises:
          UserError: the weights are no longer finite numbers.
        """
        config, run = self._config, self._run
        line = metrics_line(iteration, condition, seconds, outcome)
        check_finite(config, run, iteration, outcome)
        if self._validate is not None and config.train.validate_every and iteration % config.train.validate_every == 0:
            line |= _validated(self._validate, iteration, self.own(learner).w)
        run.append_metrics(line)
        self._metrics.append(line)
        self._track(line, iteration)
        self._writer.check()
        score = line.get("validation")
        if config.train.save_best and score is not None and (self._best is None or score > self._best):
            self._best = score
            checkpoint.save_best(run, self._writer, iteration, self._network, self.own(learner), config, score)
        self.ended = no_longer_better(self._metrics, config.train.stop_when)
        return line

    def save(self, iteration: int, learner: Learner, stopped: bool) -> None:
        """Writes a checkpoint after an iteration if one is due, or if the training stops; `learner` as of `add`."""
        config = self._config
        if stopped or self.ended or iteration == config.train.iterations or iteration % config.train.checkpoint_every == 0:
            checkpoint.save_checkpoint(self._run, self._writer, iteration, self._network, self.own(learner), config, self._working)

    def log_end(self, iteration: int, stopped: int) -> None:
        """Says why the training ended after an iteration, unless it was the last one; stopped: number of the signal, or 0."""
        if stopped:
            total = self._config.train.iterations
            log.info("Stopped after iteration %d of %d and saved it. To continue: %s", iteration, total, resuming(self._run.path))
        elif self.ended:
            _log_end(self._config, iteration)


def _validated(validate: Callable[[Array], float | None], iteration: int, w: Array) -> dict[str, Any]:
    """Keys of `metrics.Metrics` of a validation."""
    start = time.perf_counter()
    score = validate(w)
    seconds = time.perf_counter() - start
    text = "undefined" if score is None else percent(score, 1)
    log.info("Validation after iteration %d: population explained variance %s (%.1f s).", iteration, text, seconds)
    return {"validation": score, "validation_seconds": round(seconds, 4)}


def _log_end(config: Config, iteration: int) -> None:
    """Says that train.stop_when has ended the training."""
    log.info(
        "Training ended after iteration %d: the validation score has not increased for %d iterations (train.stop_when).",
        iteration,
        config.train.stop_when,
    )


def check_finite(config: Config, run: Run, iteration: int, outcome: Outcome) -> None:
    """Raises UserError if the weights are no longer finite numbers after an iteration of a run."""
    if not outcome.finite:
        raise UserError(
            f"iteration {iteration}: the weights are no longer finite numbers; rls.penlambda={config.rls.penlambda:g} may be"
            f" too small, rls.gain={config.rls.gain} may diverge, rls.forgetting={config.rls.forgetting:g} may let P grow without"
            f" bound. {run.path} has the results of the iterations before."
        )


def metrics_line(iteration: int, condition: int, seconds: float, outcome: Outcome) -> dict[str, Any]:
    """Line of an iteration in metrics.jsonl, with the keys of `metrics.Metrics`."""

    def number(x: Any) -> float | None:
        return float(x) if np.isfinite(x) else None

    return {
        "iteration": iteration,
        "task": condition,
        "seconds": round(seconds, 4),
        "rate_hz": number(outcome.rate),
        "rate_exc_hz": number(outcome.rate_exc),
        "rate_inh_hz": number(outcome.rate_inh),
        "correlation": number(outcome.correlation),
        "n_undefined": int(outcome.n_undefined),
        "explained_variance": number(outcome.explained_variance),
        **({} if outcome.rate_error is None else {"rate_error_hz": number(outcome.rate_error)}),
    }


class _Stop:
    """Number of the signal that requests a stop; 0: none."""

    signal = 0


def requeuing(number: int) -> bool:
    """Whether a signal makes submitit queue this job again."""
    return getattr(signal.getsignal(number), "__name__", "") == "checkpoint_and_try_requeue"


@contextlib.contextmanager
def graceful_stop() -> Iterator[_Stop]:
    """Context in which the first SIGINT, SIGTERM, SIGHUP or SIGUSR1 is recorded, for the loop to read after the current iteration.

    A second signal has its usual effect, after a checkpoint that is being written is complete. Outside the main thread, signals are
    not handled here. In a job of submitit, only the signal is handled that makes submitit queue the job again: the run is saved first.
    SIGHUP, of a terminal that is closed, stays ignored where it is ignored, as by nohup.
    """
    stop = _Stop()
    watched = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)]
    usual = [each for each in watched if each.name != "SIGUSR2" and (each.name != "SIGHUP" or signal.getsignal(each) != signal.SIG_IGN)]
    watched = [each for each in watched if requeuing(each)] or usual
    before: dict[signal.Signals, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        stop.signal = number
        name = signal.Signals(number).name
        how, again = ("Interrupted", "press Ctrl-C again") if name == "SIGINT" else (f"Stopped by {name}", f"a second {name} is needed")
        log.info("%s: finishing this iteration, then saving; %s to stop at once without saving it.", how, again)
        for each, handler in before.items():
            signal.signal(each, handler)

    with contextlib.suppress(ValueError):  # not the main thread
        for each in watched:
            before[each] = signal.signal(each, note)
    try:
        yield stop
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
