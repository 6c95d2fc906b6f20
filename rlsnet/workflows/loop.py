"""Training: iterations one after the other, with metrics, checkpoints and a graceful stop."""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rlsnet.config.schema import Config
from rlsnet.errors import UserError
from rlsnet.io.formatting import byte_size
from rlsnet.learning.iteration import Iteration, Outcome
from rlsnet.learning.rls import Learner
from rlsnet.model import rng
from rlsnet.model.network import Network
from rlsnet.runs import checkpoint, memory_plan
from rlsnet.runs.checkpoint import CheckpointWriter
from rlsnet.runs.folder import Run
from rlsnet.runs.progress import Progress, memory_used
from rlsnet.simulation.state import TRAINING, Dynamics, TrialKeys

log = logging.getLogger(__name__)


def condition_of(config: Config, conditions: int, iteration: int) -> int:
    """Which of the `conditions` an iteration (from 1) trains, as train.order says; nothing but the seed and the two numbers counts."""
    stream, turn = rng.key(config.seed, rng.Purpose.ORDER), iteration - 1
    if config.train.order == "shuffled":
        draws = rng.uniform(rng.fold(stream, turn // conditions), conditions, jnp.dtype("float32"))
        return int(np.argsort(draws, kind="stable")[turn % conditions])
    if config.train.order == "weighted":
        share = np.cumsum(config.train.weights or ())
        draw = float(rng.uniform(rng.fold(stream, turn), 1, jnp.dtype("float32"))[0])
        return int(np.searchsorted(share, draw * share[-1], side="right"))
    return turn % conditions


class Recent:
    """The correlation of the last iteration of each condition; conditions differ in difficulty, so only their mean is compared."""

    def __init__(self, config: Config, conditions: int, metrics: Iterable[Mapping[str, Any]]):
        weights = config.train.weights or (1.0,) * conditions
        if len(weights) != conditions:
            raise UserError(f"train.weights={list(weights)}: expected {conditions} numbers, one for each condition.")
        self.wanted = {condition for condition, weight in enumerate(weights) if weight > 0}
        self.correlation: dict[int, float | None] = {}
        for line in metrics:
            self.add(line)

    def add(self, line: Mapping[str, Any]) -> None:
        """Takes in a line of metrics."""
        if line["task"] in self.wanted:
            self.correlation.pop(line["task"], None)  # in order of time
            self.correlation[line["task"]] = line["correlation"]

    def score(self) -> float | None:
        """Their mean; None until each condition that is trained at all has a correlation."""
        known = [value for value in self.correlation.values() if value is not None]
        return float(np.mean(known)) if len(known) == len(self.wanted) else None


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
) -> int:
    """The loop over iterations, from `done` to train.iterations.

    Args:
      config: the experiment.
      network: neurons and connectivity.
      learner: weights and P after `done` iterations, given away.
      target: [C, M, N] currents.
      run: the folder that takes metrics and checkpoints.
      done: iterations behind us.
      show: progress display.
      recorded: [C, N] Hz, mean recorded rates, for the metrics; or None.
      track: takes a line of metrics and the iteration that it is of.

    Returns:
      0, or the number of the signal that asked for a stop. The run is saved in either case.
    """
    recent = Recent(config, len(target), run.read_metrics())
    dynamics, total = Dynamics.from_config(config), config.train.iterations
    iteration_of = Iteration(dynamics, config.rls, network, learner, target, TrialKeys.create(config.seed, TRAINING), recorded)
    size = memory_plan.compiled_bytes(iteration_of.executable)
    log.info("Compiled in %.1f s%s.", iteration_of.seconds, "" if size is None else f"; {byte_size(size)} by XLA's own count")
    best = run.best_correlation()
    with graceful_stop() as stop, show.bar(total, done) as bar, CheckpointWriter() as writer:
        for iteration in range(done + 1, total + 1):
            show.iteration, start = iteration, time.perf_counter()
            condition = condition_of(config, len(target), iteration)
            learner, result = iteration_of(learner, iteration - 1, condition)
            result = jax.device_get(result)
            line = _metrics(iteration, condition, time.perf_counter() - start, result)
            if not result.finite:
                raise UserError(
                    f"iteration {iteration}: the weights are no longer finite numbers; rls.penlambda={config.rls.penlambda:g} may be"
                    f" too small, rls.gain={config.rls.gain} may diverge, rls.forgetting={config.rls.forgetting:g} may let P grow without"
                    f" bound. What {run.path} holds is from before."
                )
            run.append_metrics(line)
            track(line, iteration)
            writer.check()
            recent.add(line)
            score = recent.score()
            if config.train.save_best and score is not None and (best is None or score > best):
                best = score
                checkpoint.save_best(run, writer, iteration, network, learner, config, best)
            stopped = stop.signal
            if stopped or iteration == total or iteration % config.train.checkpoint_every == 0:
                checkpoint.save_checkpoint(run, writer, iteration, network, learner, config)
            bar.advance({**line, "memory": memory_used()})
            if stopped:
                writer.wait()
                log.info("Stopped after iteration %d of %d and saved it. To go on: rlsnet train resume=%s", iteration, total, run.path)
                return stopped
    return 0


def _metrics(iteration: int, condition: int, seconds: float, outcome: Outcome) -> dict[str, Any]:
    """The line of an iteration in metrics.jsonl, with the keys of `metrics.Metrics`."""

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
    """Which signal has asked for a stop; 0 for none."""

    signal = 0


def requeuing(number: int) -> bool:
    """Whether a signal is the one on which submitit queues this job again."""
    return getattr(signal.getsignal(number), "__name__", "") == "checkpoint_and_try_requeue"


@contextlib.contextmanager
def graceful_stop() -> Iterator[_Stop]:
    """Turns the first SIGINT, SIGTERM or SIGUSR1 into a note that the loop reads after the iteration at hand.

    A second one does what it always did, once a checkpoint that is being written is whole. Outside the main thread, signals are left alone.
    In a job of submitit the only such signal is the one on which that queues the job again, which it should do after we have saved.
    """
    stop = _Stop()
    watched = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)]
    watched = [each for each in watched if requeuing(each)] or watched[:3]
    before: dict[signal.Signals, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        stop.signal = number
        log.info("Signal %s: finishing this iteration; once more to stop at once.", signal.Signals(number).name)
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
