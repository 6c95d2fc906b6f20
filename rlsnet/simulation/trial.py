"""Trials without learning: many time steps, the time before learning, trials side by side, and the calibration."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from rlsnet.config.schema import NoStimulusConfig
from rlsnet.model import sharding
from rlsnet.model.network import Network
from rlsnet.simulation import persistent
from rlsnet.simulation.cue import Cue
from rlsnet.simulation.state import Dynamics, SimState, TrialKeys, initial_state
from rlsnet.simulation.step import block, currents

Result = TypeVar("Result")


def advance(
    dynamics: Dynamics,
    network: Network,
    w: Array | None,
    state: SimState,
    keys: TrialKeys,
    n: int,
    *,
    stimulated: bool = False,
    record: bool = False,
) -> tuple[SimState, Array | None]:
    """State after `n` steps, computed in blocks; with `record` also their spikes, [n, W] uint32, packed by `delivery.pack`.

    With a perturbation, only blocks that overlap its window are computed with it: the time before is computed by the same operations
    as without a perturbation, and is equal to the bit. If the state has `overflowed` afterwards, not all spikes were delivered, and
    the computation must be repeated with a larger capacity; see `with_capacity`.
    """
    size, perturbation = dynamics.trial.block, keys.perturbation
    covered, plain = persistent.covers(dynamics, network), dataclasses.replace(keys, perturbation=None)

    def unperturbed(state: SimState, n: int) -> tuple[SimState, Array | None]:
        run = persistent.advance if covered else block
        return run(dynamics, network, w, state, plain, n, stimulated, record)

    def some(state: SimState, n: int) -> tuple[SimState, Array | None]:
        if perturbation is None:
            return unperturbed(state, n)
        perturbed = partial(block, dynamics, network, w, state, keys, n, stimulated, record)
        return lax.cond(perturbation.touches(state.i, n), perturbed, partial(unperturbed, state, n))

    if covered and perturbation is None:  # all steps in one call
        return unperturbed(state, n)

    def body(state: SimState, _: None) -> tuple[SimState, Array | None]:
        return some(state, size)

    state, recorded = lax.scan(body, state, None, length=n // size)
    if recorded is not None:
        recorded = recorded.reshape(-1, recorded.shape[2])
    if n % size:
        state, words = some(state, n % size)
        recorded = None if recorded is None or words is None else jnp.concatenate([recorded, words])
    return state, recorded


def before_learning(dynamics: Dynamics, network: Network, w: Array | None, keys: TrialKeys) -> SimState:
    """State in the step before stim_off: no stimulus until stim_on, then the stimulus, unless there is another cue.

    The next `every` steps end just before the first learning point.
    """
    trial = dynamics.trial
    on, last = trial.steps(trial.stim_on), trial.steps(trial.stim_off) - 1
    state = initial_state(dynamics, network, keys, w)
    if isinstance(dynamics.stimulus, NoStimulusConfig) or on >= last:
        on = last
    state, _ = advance(dynamics, network, w, state, keys, on)
    if last > on:
        state, _ = advance(dynamics, network, w, state, keys, last - on, stimulated=not isinstance(keys.perturbation, Cue))
    return state.with_zero_sum()


def over_trials(run: Callable[..., Any], keys: TrialKeys, *states: SimState, out_axes: Any) -> Any:
    """Results run(keys, *states) of one trial or, with the keys and states of B trials, of B trials side by side.

    Args:
      run: function of the keys and states of one trial.
      keys: keys of one trial or of B.
      *states: states of the same trials.
      out_axes: axis of the trials in the results, as for jax.vmap.
    """
    if not keys.side_by_side:
        return run(keys, *states)
    return jax.vmap(run, (keys.trial_axes, *[SimState.trial_axes()] * len(states)), out_axes)(keys, *states)


def with_capacity(dynamics: Dynamics, run: Callable[[Dynamics], tuple[Result, Array]]) -> tuple[Result, Dynamics]:
    """Result of a computation without overflow, and the dynamics with the spike capacity that it needed.

    Args:
      dynamics: the equations, with the initial spike capacity.
      run: function of the dynamics; returns its result and whether spikes overflowed. After an overflow it is called again with twice
        the capacity.
    """
    while True:
        result, overflowed = run(dynamics)
        if dynamics.backend.delivery != "fixed_shape" or not bool(overflowed):
            return result, dynamics
        dynamics = dynamics.enlarged()


def compiled(function: Any, *arguments: Any) -> tuple[Callable[..., Any], float]:
    """A jitted function compiled for its arguments, and the duration of the compilation, s."""
    start = time.perf_counter()
    executable = function.lower(*arguments).compile()
    return executable, time.perf_counter() - start


class Program:
    """Jitted function that is compiled ahead of time for arguments of given shapes, and again after an overflow.

    The function takes dynamics and static settings first, then the arguments, of which none may be donated; it returns its result and
    whether spikes overflowed.

    Attributes:
      seconds: duration of the first compilation, s.
    """

    def __init__(self, function: Any, dynamics: Dynamics, settings: tuple[Any, ...], *arguments: Any):
        self._function, self._settings, self._dynamics = function, settings, dynamics
        self._executable, self.seconds = compiled(function, dynamics, *settings, *arguments)

    def __call__(self, *arguments: Any) -> Any:
        """Result for these arguments."""

        def run(dynamics: Dynamics) -> tuple[Any, Array]:
            if dynamics != self._dynamics:
                self._executable, _ = compiled(self._function, dynamics, *self._settings, *arguments)
                self._dynamics = dynamics
            return self._executable(*arguments)

        return with_capacity(self._dynamics, run)[0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Calibration:
    """Currents and spikes of one trial with static synapses alone.

    mean, sd: [N] mean and standard deviation in time of the current u over the second half of the trial, threshold units.
    n_spikes: [N] int32, spikes of the whole trial.
    """

    mean: Array
    sd: Array
    n_spikes: Array


def calibrate(dynamics: Dynamics, network: Network, keys: TrialKeys) -> Calibration:
    """Calibration: simulates one trial without plastic synapses and stimulus."""
    return with_capacity(dynamics, lambda dynamics: _calibrate(dynamics, network, keys))[0]


@partial(jax.jit, static_argnames="dynamics")
def _calibrate(dynamics: Dynamics, network: Network, keys: TrialKeys) -> tuple[Calibration, Array]:
    """`calibrate`, and whether spikes overflowed."""
    run = partial(_calibrate_shard, dynamics)
    returned = sharding.BY_NEURON, sharding.EVERYWHERE
    return sharding.over_devices(network, run, (keys,), (sharding.EVERYWHERE,), returned)


def _calibrate_shard(dynamics: Dynamics, network: Network, keys: TrialKeys) -> tuple[Calibration, Array]:
    """`_calibrate` of the neurons of a shard."""
    steps = dynamics.trial.n_steps
    half = steps // 2
    state = initial_state(dynamics, network, keys)
    state, _ = advance(dynamics, network, None, state, keys, half)
    pivot = state.u_sum / half  # sums of differences from an approximate mean keep all digits
    size = dynamics.trial.block
    samples, rest = divmod(steps - half, size)

    def body(carry: tuple[SimState, Array, Array], _: None) -> tuple[tuple[SimState, Array, Array], None]:
        state, total, squares = carry
        state = advance(dynamics, network, None, state, keys, size)[0]
        difference = currents(network, state.synapses, state.background)[0] - pivot
        return (state, total + difference, squares + difference**2), None

    zeros = jnp.zeros_like(pivot)
    (state, total, squares), _ = lax.scan(body, (state, zeros, zeros), None, length=samples)
    if rest:
        state, _ = advance(dynamics, network, None, state, keys, rest)
    samples = max(samples, 1)  # a second half shorter than a block has a mean only
    offset = total / samples
    variance = jnp.maximum(squares / samples - offset**2, 0)
    return Calibration(pivot + offset, jnp.sqrt(variance), sharding.own(network, state.n_spikes)), state.overflowed
