"""Training: trials of [simulate, learn] x M, one after the other, with metrics, checkpoints and a graceful stop."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from rlsnet import api, rng, scores, simulate, store
from rlsnet import rls as rls_
from rlsnet.config import Config, RLSConfig, UserError, by_class
from rlsnet.network import Network
from rlsnet.progress import Progress, memory_used
from rlsnet.rls import Learner, Pending
from rlsnet.simulate import Dynamics, Keys
from rlsnet.store import CheckpointWriter, Run

log = logging.getLogger(__name__)

Carry = tuple[simulate.SimState, Learner, Pending | None]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["correlation", "n_undefined", "explained_variance", "rate", "rate_exc", "rate_inh", "rate_error", "finite"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one iteration reports, all scalars.

    correlation: mean over the neurons where it is defined, of target and windowed current.
    n_undefined: int32, neurons whose correlation is not defined, such as those with no target.
    explained_variance: 1 - E/V with the squared error E of the windowed current and the variance V of the target over time, both
      summed over all neurons and known bins: mean correlations do not see offset and scale.
    rate, rate_exc, rate_inh: Hz, over the whole trial.
    rate_error: Hz, mean over neurons of the rate from stim_off on minus the recorded one; None where none is recorded.
    finite: bool, whether all weights are finite numbers.
    """

    correlation: Array
    n_undefined: Array
    explained_variance: Array
    rate: Array
    rate_exc: Array
    rate_inh: Array
    rate_error: Array | None
    finite: Array


@partial(jax.jit, static_argnames=("dynamics", "rls"), donate_argnames="learner")
def iterate(
    dynamics: Dynamics,
    rls: RLSConfig,
    network: Network,
    learner: Learner,
    target: Array,
    keys: Keys,
    number: Array,
    condition: Array,
    recorded: Array | None = None,
) -> tuple[Learner, Outcome]:
    """One iteration: a trial with learning.

    Args:
      dynamics: the equations.
      rls: settings of the learning.
      network: the wiring.
      learner: weights and P, given away.
      target: [C, M, N] currents.
      keys: of the stage.
      number: int32, trials before this one.
      condition: int32, which target.
      recorded: [C, N] Hz, mean recorded rates, NaN is not known; or None.
    """
    keys = keys.trial(number, condition)
    wanted = target[condition]
    every, kernels = dynamics.trial.every, dynamics.kernels
    decay = (1 - dynamics.trial.dt / by_class(dynamics.synapse.tau_plas)[0]) ** every

    def until_learning(carry: Carry, target_m: Array) -> tuple[Carry, Array]:
        state, learner, pending = carry
        state, _ = simulate.advance(dynamics, network, learner.w, state, keys, every)
        lack = simulate.balanced(dynamics, network, state, keys) - target_m
        after = simulate.deliver_early(dynamics, network, learner.w, state)
        learner, pending = rls_.learn(rls, kernels, network, learner, pending, decay, state.r, state.n_delivered, lack)
        return (simulate.restart_sum(after), learner, pending), state.u_sum / every

    state = simulate.before_learning(dynamics, network, learner.w, keys)
    pending, before = rls_.begin(rls, kernels, network, learner, len(wanted)), state.n_spikes
    (state, learner, pending), currents = lax.scan(until_learning, (state, learner, pending), wanted)
    learner = rls_.finish(rls, kernels, learner, pending)
    state, _ = simulate.advance(dynamics, network, learner.w, state, keys, 1)

    trial = dynamics.trial
    moments = scores.moments(wanted, scores.windowed(trial, currents))
    correlation = scores.correlation(moments)
    defined = jnp.isfinite(correlation)
    rate = state.n_spikes.astype(currents.dtype) * (1000 / (trial.n_steps * trial.dt))
    rate_error = None
    if recorded is not None:
        learned = (state.n_spikes - before).astype(currents.dtype) * (1000 / (trial.duration + trial.dt))
        error = learned - recorded[condition]
        rate_error = jnp.mean(error, where=jnp.isfinite(error))
    outcome = Outcome(
        correlation=jnp.mean(correlation, where=defined),
        n_undefined=jnp.sum(~defined, dtype=jnp.int32),
        explained_variance=1 - jnp.sum(scores.squared_error(moments)) / jnp.sum(moments.xx),
        rate=jnp.mean(rate),
        rate_exc=jnp.mean(rate, where=network.excitatory),
        rate_inh=jnp.mean(rate, where=~network.excitatory),
        rate_error=rate_error,
        finite=jnp.isfinite(jnp.sum(learner.w)),
    )
    return learner, outcome


def compiled(function: Any, *arguments: Any) -> tuple[Callable[..., Any], float]:
    """A jitted function compiled for its arguments, and the seconds that took."""
    start = time.perf_counter()
    executable = function.lower(*arguments).compile()
    return executable, time.perf_counter() - start


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
      network: the wiring.
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
    dynamics, total = Dynamics.of(config), config.train.iterations
    keys = Keys.create(config.seed, simulate.TRAINING)
    step, seconds = compiled(iterate, dynamics, config.rls, network, learner, target, keys, jnp.int32(0), jnp.int32(0), recorded)
    log.info("Compiled in %.1f s.", seconds)
    best = run.best_correlation()
    with graceful_stop() as stop, show.bar(total, done) as bar, CheckpointWriter() as writer:
        for iteration in range(done + 1, total + 1):
            show.iteration, start = iteration, time.perf_counter()
            condition = condition_of(config, len(target), iteration)
            learner, outcome = step(network, learner, target, keys, jnp.int32(iteration - 1), jnp.int32(condition), recorded)
            outcome = jax.device_get(outcome)
            line = _metrics(iteration, condition, time.perf_counter() - start, outcome)
            if not outcome.finite:
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
                store.save_best(run, writer, iteration, network, learner, config, best)
            stopped = stop.signal
            if stopped or iteration == total or iteration % config.train.checkpoint_every == 0:
                store.save_checkpoint(run, writer, iteration, network, learner, config)
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


api.callable_module(__name__, api.train)
