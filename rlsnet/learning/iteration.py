"""One iteration of training: a trial with learning, or several side by side, and its metrics.

Within a trial, an interval of `every` steps is simulated with the present weights, and then a learning point, or only each
`rls.every`-th, changes the weights. A spike in the last step of an interval acts in the next step, but with the weights of its own time;
therefore it is delivered early, before the learning point (`step.deliver_early`).

B trials of one condition run side by side with the same weights. Then a learning point changes the weights once, by the means over the
trials of the filtered spikes and of the error.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from rlsnet.config.schema import RLSConfig
from rlsnet.learning import scores, updates
from rlsnet.learning.deferred import Pending
from rlsnet.learning.rls import Learner
from rlsnet.model import sharding
from rlsnet.model.network import Network
from rlsnet.simulation.state import Dynamics, SimState, TrialKeys
from rlsnet.simulation.step import deliver_early, static_current, with_current_of
from rlsnet.simulation.trial import advance, before_learning, compiled, over_trials

Carry = tuple[SimState, Learner, Pending | None]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Outcome:
    """Metrics of one iteration, all scalars; with trials side by side, of the mean over these trials of each neuron's current and rate.

    correlation: mean over neurons, where defined, of the correlation of target and windowed current.
    n_undefined: int32, number of neurons with an undefined correlation, such as those without a target.
    explained_variance: 1 - E/V with the squared error E of the windowed current and the variance V of the target over time, both
      summed over all neurons and trained bins; unlike correlations it depends on offset and scale.
    rate, rate_exc, rate_inh: Hz, mean rates over the whole trial.
    rate_error: Hz, mean over neurons of the rate from stim_off on minus the recorded rate; None without recorded rates.
    finite: bool, whether all weights are finite numbers.
    traces: [M, N+X] 1/ms, filtered spikes at each update, 0 at learning points without one; None unless they were requested.
    """

    correlation: Array
    n_undefined: Array
    explained_variance: Array
    rate: Array
    rate_exc: Array
    rate_inh: Array
    rate_error: Array | None
    finite: Array
    traces: Array | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Unfinished:
    """Trials that may have stopped before a learning point, because a step had more spikes than the spike capacity.

    state: state at the start of the interval with that step; `overflowed` if the trials have stopped.
    done: int32, number of learning points done.
    currents: [M, N] mean currents of the intervals done, threshold units.
    n_before: [N] spikes before stim_off, mean over the trials.
    traces: as of `Outcome`, of the updates done.
    """

    state: SimState
    done: Array
    currents: Array
    n_before: Array
    traces: Array | None = None


@partial(jax.jit, static_argnames=("dynamics", "rls", "traces"), donate_argnames="learner")
def iterate(
    dynamics: Dynamics,
    rls: RLSConfig,
    network: Network,
    learner: Learner,
    target: Array,
    keys: TrialKeys,
    number: Array,
    condition: Array,
    recorded: Array | None = None,
    traces: bool = False,
) -> tuple[Learner, Outcome, Unfinished | None]:
    """One iteration: trials with learning, and their metrics. `Iteration` also finishes trials that stopped after an overflow.

    Args:
      dynamics: the equations.
      rls: settings of the learning.
      network: neurons and connectivity.
      learner: weights and P, whose arrays are donated.
      target: [C, M, N] target currents, threshold units; NaN: not trained.
      keys: keys of the stage.
      number: int32, number of the trial in the stage, from 0; or [B], the numbers of trials that run side by side. Of a joined network
        [Z], one for each part.
      condition: int32, index of the condition; of a joined network [Z].
      recorded: [C, N] Hz, mean recorded rates, NaN where unknown; or None.
      traces: whether the outcome has the filtered spikes of the updates.

    Returns:
      Learner, metrics and, with fixed-shape arrays, the trials, which must be resumed if their state has overflowed.
    """
    return _on_devices(dynamics, rls, traces, network, (learner, target, keys, number, condition, recorded, None))


@partial(jax.jit, static_argnames=("dynamics", "rls"), donate_argnames="learner")
def resume(
    dynamics: Dynamics,
    rls: RLSConfig,
    network: Network,
    learner: Learner,
    target: Array,
    keys: TrialKeys,
    number: Array,
    condition: Array,
    recorded: Array | None,
    unfinished: Unfinished,
) -> tuple[Learner, Outcome, Unfinished | None]:
    """Continuation of `iterate` from the learning point at which the trials stopped."""
    given = learner, target, keys, number, condition, recorded, unfinished
    return _on_devices(dynamics, rls, unfinished.traces is not None, network, given)


Given = tuple[Learner, Array, TrialKeys, Array, Array, Array | None, Unfinished | None]  # arguments of `resume` after the network


def _on_devices(dynamics: Dynamics, rls: RLSConfig, traces: bool, network: Network, given: Given) -> Any:
    """Results of `iterate` or, with unfinished trials, of `resume`, on the devices of the network."""
    _, _, keys, number, _, _, unfinished = given
    everywhere: Any = sharding.EVERYWHERE
    own: Any = sharding.BY_NEURON
    by_point: Any = sharding.along(1, 2)
    trials: Any = None
    if dynamics.backend.delivery == "fixed_shape":
        state = SimState.placement(network, number.ndim)
        trials = Unfinished(state, everywhere, by_point, own, everywhere if traces else None)
    placed = own, sharding.along(2, 3), keys.placement, everywhere, everywhere, by_point, None if unfinished is None else trials
    return sharding.over_devices(network, partial(_of_shard, dynamics, rls, traces), given, placed, (own, everywhere, trials))


def _of_shard(
    dynamics: Dynamics, rls: RLSConfig, traces: bool, network: Network, *given: Any
) -> tuple[Learner, Outcome, Unfinished | None]:
    """`_on_devices` for the neurons of one device."""
    learner, target, keys, number, condition, recorded, start = given
    keys = keys.trial(number, condition)
    if start is not None:
        start = dataclasses.replace(start, state=dataclasses.replace(start.state, overflowed=jnp.bool_(False)))
    else:
        state = over_trials(partial(before_learning, dynamics, network, learner.w), keys, out_axes=SimState.trial_axes())
        start = Unfinished(
            state,
            jnp.int32(0),
            jnp.zeros(target.shape[1:], target.dtype),
            _mean(sharding.own(network, state.n_spikes).astype(target.dtype)),
            jnp.zeros((target.shape[1], network.n_presynaptic), target.dtype) if traces else None,
        )
    return _learn_from(dynamics, rls, network, learner, target, keys, start, recorded)


def _mean(values: Array) -> Array:
    """[N] mean over trials of values [N] of one trial or [B, N] of B."""
    return values if values.ndim == 1 else jnp.mean(values, axis=0)


def _zero(after: SimState) -> Array:
    """0, computed from numbers of spikes after a delivery.

    What depends on it waits for the delivery. Without that, XLA copies the weights before an update, because the delivery reads them and
    might be later.
    """
    return (after.n_delivered.reshape(-1)[0] < 0).astype(jnp.int32)


def _learn_from(
    dynamics: Dynamics,
    rls: RLSConfig,
    network: Network,
    learner: Learner,
    target: Array,
    keys: TrialKeys,
    start: Unfinished,
    recorded: Array | None,
) -> tuple[Learner, Outcome, Unfinished | None]:
    """The rest of the trials after `done` learning points; keys: of the trials, of which the condition is one; others as of `iterate`."""
    points, condition = target.shape[1], keys.condition
    every, decay, axes = dynamics.trial.every, dynamics.decay_between_updates(network, rls.every), SimState.trial_axes()

    def simulate(state: SimState, w: Array) -> tuple[SimState, SimState]:
        """State at the end of an interval, and the state after the early delivery of the spikes of its last step."""

        def interval(keys: TrialKeys, state: SimState) -> tuple[SimState, SimState]:
            state, _ = advance(dynamics, network, w, state, keys, every)
            return state, deliver_early(dynamics, network, w, state)

        return over_trials(interval, keys, state, out_axes=(axes, axes))

    def learn(state: SimState, target_m: Array, learner: Learner, pending: Pending | None) -> tuple[Learner, Pending | None]:
        u_bal = over_trials(lambda keys, state: static_current(dynamics, network, state, keys), keys, state, out_axes=0)
        n_spikes = state.n_delivered if state.n_delivered.ndim == 1 else jnp.sum(state.n_delivered, axis=0, dtype=jnp.int32)
        x = _mean(state.regressors(network))
        return updates.learn(rls, dynamics.backend, network, learner, pending, decay, x, n_spikes, _mean(u_bal) - target_m)

    def update(state: SimState, point: Array, carry: Carry) -> Carry:
        """The carry (state after the early delivery, learner, pending) after the update at a learning point."""
        after, learner, pending = carry
        learner, pending = learn(state, _targets(target, condition, point + _zero(after)), learner, pending)
        if rls.correct_current:
            after = over_trials(lambda _, state: with_current_of(network, learner.w, state), keys, after, out_axes=axes)
        return after, learner, pending

    def update_if(due: Array, state: SimState, point: Array, carry: Carry) -> Carry:
        """`update`, or the carry itself; a loop of one turn or none, because a condition (lax.cond) might copy P."""
        return lax.fori_loop(0, due.astype(jnp.int32), lambda _, carry: update(state, point, carry), carry)

    def intervals(state: SimState, w: Array, n: int) -> tuple[tuple[SimState, SimState], Array]:
        """States as of `simulate` after `n` intervals, with the sum of currents set to 0, and mean currents [n, N] of the intervals."""

        def one(states: tuple[SimState, SimState], _: None) -> tuple[tuple[SimState, SimState], Array]:
            state, after = simulate(states[1], w)
            return (state, after.with_zero_sum()), _mean(state.u_sum) / every

        return lax.scan(one, (state, state), None, length=n)

    def until_learning(carry: Carry, point: Array) -> tuple[Carry, tuple[Array, Array | None]]:
        state, learner, pending = carry
        (state, after), currents = intervals(state, learner.w, rls.every)
        return update(state, point, (after, learner, pending)), (
            currents,
            None if start.traces is None else _mean(state.regressors(network)),
        )

    def until_learning_or_overflow(carry: tuple[Unfinished, Learner, Pending | None]) -> tuple[Unfinished, Learner, Pending | None]:
        trial, learner, pending = carry
        state, after = simulate(trial.state, learner.w)
        fits, currents = ~after.overflowed, trial.currents.at[trial.done].set(_mean(after.u_sum) / every)
        due = fits & ((trial.done + 1) % rls.every == 0)
        after, learner, pending = update_if(due, state, trial.done, (after.with_zero_sum(), learner, pending))
        traces = trial.traces
        if traces is not None:
            traces = traces.at[trial.done].set(jnp.where(due, _mean(state.regressors(network)), traces[trial.done]))
        before = dataclasses.replace(trial.state, overflowed=jnp.bool_(True))
        state = jax.tree.map(partial(jnp.where, fits), after, before)
        return Unfinished(state, trial.done + fits.astype(jnp.int32), currents, trial.n_before, traces), learner, pending

    pending = updates.begin(rls, dynamics.backend, network, learner, points // rls.every)
    unfinished, currents, traces = None, start.currents, start.traces
    if dynamics.backend.delivery == "fixed_shape":

        def going_on(carry: tuple[Unfinished, Learner, Pending | None]) -> Array:
            return (carry[0].done < points) & ~carry[0].state.overflowed

        unfinished, learner, pending = lax.while_loop(going_on, until_learning_or_overflow, (start, learner, pending))
        state, currents, traces = unfinished.state, unfinished.currents, unfinished.traces
    else:
        learned = jnp.arange(rls.every - 1, points, rls.every, dtype=jnp.int32)
        (state, learner, pending), (currents, x) = lax.scan(until_learning, (start.state, learner, pending), learned)
        traces = None if traces is None or x is None else traces.at[learned].set(x)
        (_, state), rest = intervals(state, learner.w, points % rls.every)
        currents = jnp.concatenate([currents.reshape(-1, target.shape[2]), rest])
    learner = updates.finish(rls, dynamics.backend, learner, pending)
    state = over_trials(lambda keys, state: advance(dynamics, network, learner.w, state, keys, 1)[0], keys, state, out_axes=axes)
    n_spikes = _mean(sharding.own(network, state.n_spikes).astype(target.dtype))
    given = learner.w, target, condition, currents, n_spikes, start.n_before, recorded
    result = outcome(dynamics, network, *given) if keys.parts is None else _outcomes(dynamics, network, keys.parts, *given)
    return learner, dataclasses.replace(result, traces=traces), unfinished


def _targets(target: Array, condition: Array, point: Array) -> Array:
    """[N] targets at a learning point, of [C, M, N], in the condition or, for a joined network, in that of each part."""
    if condition.ndim == 0:
        return target[condition, point]
    parts = len(condition)
    by_part = target.reshape(*target.shape[:2], parts, -1)
    return by_part[condition, jnp.broadcast_to(point, parts), jnp.arange(parts, dtype=jnp.int32)].reshape(-1)


def _outcomes(
    dynamics: Dynamics,
    network: Network,
    parts: int,
    w: Array,
    target: Array,
    condition: Array,
    currents: Array,
    n_spikes: Array,
    n_before: Array,
    recorded: Array | None,
) -> Outcome:
    """`outcome` of each part of a joined network, [Z] for each metric; condition: [Z]."""

    def of_part(excitatory: Array, *given: Any) -> Outcome:
        return outcome(dynamics, dataclasses.replace(network, excitatory=excitatory), *given)

    def by_part(values: Array) -> Array:
        return values.reshape(*values.shape[:-1], parts, -1)

    neurons = [by_part(values) for values in (network.excitatory, target, currents, n_spikes, n_before)]
    arguments = neurons[0], w.reshape(parts, -1, *w.shape[1:]), neurons[1], condition, *neurons[2:]
    axes = 0, 0, 2, 0, 1, 0, 0, None if recorded is None else 1
    return jax.vmap(of_part, axes)(*arguments, None if recorded is None else by_part(recorded))


def outcome(
    dynamics: Dynamics,
    network: Network,
    w: Array,
    target: Array,
    condition: Array,
    currents: Array,
    n_spikes: Array,
    n_before: Array,
    recorded: Array | None,
) -> Outcome:
    """Metrics of trials with learning.

    Args:
      dynamics: equations with the times of a trial.
      network: network with the classes of the neurons.
      w: [G, X+L, S] trained weights after the trials.
      target: [C, M, N] target currents, threshold units; NaN: not trained.
      condition: int32, index of the condition.
      currents: [M, N] mean current of each learning interval, mean over the trials, threshold units.
      n_spikes: [N] spikes of the whole trial, mean over the trials.
      n_before: [N] spikes before stim_off, mean over the trials.
      recorded: [C, N] Hz, mean recorded rates, NaN where unknown; or None.
    """
    trial = dynamics.trial
    moments = scores.windowed_moments(trial, target, condition, currents)
    correlation, there = scores.correlation(moments), sharding.exist(network)
    defined = jnp.isfinite(correlation)

    def total(values: Array, where: Array) -> Array:
        return sharding.over_all(network, jnp.sum(values, where=where))

    def mean(values: Array, where: Array) -> Array:
        return total(values, where) / total(jnp.ones_like(values), where)

    rate = n_spikes * (1000 / (trial.n_steps * trial.dt))
    rate_error = None
    if recorded is not None:
        learned = (n_spikes - n_before) * (1000 / (trial.duration + trial.dt))
        error = learned - recorded[condition]
        rate_error = mean(error, jnp.isfinite(error))
    return Outcome(
        correlation=mean(correlation, defined & there),
        n_undefined=sharding.over_all(network, jnp.sum(~defined & there, dtype=jnp.int32)),
        explained_variance=1 - total(scores.squared_error(moments), there) / total(moments.xx, there),
        rate=mean(rate, there),
        rate_exc=mean(rate, network.excitatory & there),
        rate_inh=mean(rate, ~network.excitatory & there),
        rate_error=rate_error,
        finite=jnp.isfinite(sharding.over_all(network, jnp.sum(w))),
    )


class Iteration:
    """Function `iterate`, compiled ahead of time; after an overflow it continues the trials with a larger spike capacity.

    Attributes:
      target, recorded: as of `iterate`; arrays of the same shapes and types may replace them.
      seconds: duration of the compilation, s.
      executable: the compiled program.
    """

    def __init__(
        self, dynamics: Dynamics, rls: RLSConfig, network: Network, learner: Learner, target: Array, keys: TrialKeys,
        recorded: Array | None = None, trials: int = 1, traces: bool = False,
    ):  # fmt: skip
        """Compiles an iteration of `trials` trials side by side; `traces` as of `iterate`."""
        self._trials, self._traces, self.target, self.recorded = trials, traces, target, recorded
        self._dynamics, self._rls, self._keys = dynamics, rls, keys
        self._network = network
        self.seconds = self._compile(learner)

    def _compile(self, learner: Learner) -> float:
        none = np.zeros(() if self._keys.parts is None else self._keys.parts, np.int32)
        arguments = self._network, learner, self.target, self._keys, self._numbers(none), jnp.asarray(none), self.recorded
        self._compiled_for = self._dynamics
        self.executable, seconds = compiled(iterate, self._dynamics, self._rls, *arguments, self._traces)
        return seconds

    def _numbers(self, number: int | np.ndarray) -> Array:
        """Numbers of the trials of an iteration with `number` iterations before it, an array [Z] for the parts of a joined network."""
        first = jnp.asarray(number * self._trials, jnp.int32)
        return first if self._trials == 1 else first + jnp.arange(self._trials, dtype=jnp.int32)

    def __call__(self, learner: Learner, number: int | np.ndarray, condition: int | np.ndarray) -> tuple[Learner, Outcome]:
        """Learner and metrics after one more iteration, with `number` before it; the arrays of `learner` are donated.

        For a joined network, `number` and `condition` are [Z].
        """
        which = self._numbers(number), jnp.asarray(condition, jnp.int32)
        learner, result, unfinished = self._whole_trials(learner, *which)
        while unfinished is not None and bool(unfinished.state.overflowed):
            self._dynamics = self._dynamics.enlarged()
            if int(unfinished.done):
                arguments = self._network, learner, self.target, self._keys, *which, self.recorded, unfinished
                learner, result, unfinished = resume(self._dynamics, self._rls, *arguments)
            else:  # an overflow may be before the first interval, so repeat the trials from their start
                learner, result, unfinished = self._whole_trials(learner, *which)
        return learner, result

    def _whole_trials(self, learner: Learner, number: Array, condition: Array) -> tuple[Learner, Outcome, Unfinished | None]:
        if self._dynamics != self._compiled_for:
            self._compile(learner)
        return self.executable(self._network, learner, self.target, self._keys, number, condition, self.recorded)
