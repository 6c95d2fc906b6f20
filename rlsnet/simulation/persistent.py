"""Many time steps in one call of a native or CUDA kernel, which stays on the processors from step to step (a persistent kernel).

It computes what `step.block` does, for LIF neurons with a stimulus, feed-forward neurons, and noise of the voltage or a current; the native
one also with delays of more than a step and a background. Steps with a perturbation, another neuron model, or a time constant of each
synapse are computed by `step.block`, with the spikes delivered by a kernel. B trials side by side are one call.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap

from rlsnet.config.schema import (
    FeedforwardConfig,
    GivenStimulusConfig,
    LIFConfig,
    NoStimulusConfig,
    OUFeedforwardConfig,
    OUStimulusConfig,
    StimulusConfig,
)
from rlsnet.kernels import calls
from rlsnet.model import neurons, rng
from rlsnet.model.network import Network
from rlsnet.simulation import inputs
from rlsnet.simulation.inputs import noise_sd
from rlsnet.simulation.state import Dynamics, SimState, TrialKeys
from rlsnet.simulation.step import filter_factors

NOISE = {"voltage": 1, "current": 2}
STIMULI = (NoStimulusConfig, OUStimulusConfig, GivenStimulusConfig)


def covers(dynamics: Dynamics, network: Network) -> bool:
    """Whether the kernel computes the steps of a trial, or of its part without a perturbation."""
    known = type(dynamics.neuron) is LIFConfig and type(dynamics.stimulus) in STIMULI and not network.per_synapse
    native_only = dynamics.ring_rows(network) > 0 or network.largest_background > 0
    return known and network.mesh is None and dynamics.backend.delivery in (("native",) if native_only else calls.PREFIX)


def advance(
    dynamics: Dynamics, network: Network, w: Array | None, state: SimState, keys: TrialKeys, n: int, stimulated: bool, record: bool
) -> tuple[SimState, Array | None]:
    """State after `n` steps and, with `record`, their spikes [n, W] uint32; see `trial.advance`."""
    if n == 0:
        return state, jnp.zeros((0, -(-network.n_neurons // 32)), jnp.uint32) if record else None

    @custom_vmap
    def run(state: SimState, keys: TrialKeys) -> tuple[SimState, Array]:
        return _steps(dynamics, network, w, state, keys, n, stimulated, record)

    @run.def_vmap
    def all_trials(trials: int, batched: Any, state: SimState, keys: TrialKeys) -> Any:
        def of_trials(axes: Any, values: Any, known: Any) -> Any:
            """The arrays that differ between trials, with an axis of trials."""
            own = {}
            for field in dataclasses.fields(axes):
                if getattr(axes, field.name) == 0:
                    pair = getattr(values, field.name), getattr(known, field.name)
                    own[field.name] = jax.tree.map(lambda x, has: x if has else jnp.broadcast_to(x, (trials, *x.shape)), *pair)
            return dataclasses.replace(values, **own)

        state_axes, key_axes = SimState.trial_axes(), keys.trial_axes
        given = of_trials(state_axes, state, batched[0]), of_trials(key_axes, keys, batched[1])
        after = _steps(dynamics, network, w, *given, n, stimulated, record)
        batched_out = {}
        for field in dataclasses.fields(state):
            own = getattr(state_axes, field.name) == 0
            batched_out[field.name] = jax.tree.map(partial(lambda own, _: own, own), getattr(after[0], field.name))
        return after, (SimState(**batched_out), True)

    state, words = run(state, keys)
    return state, words if record else None


def _process(name: str, settings: StimulusConfig | FeedforwardConfig, dt: float, bin_: int) -> dict[str, int | float]:
    """Numbers of an Ornstein-Uhlenbeck process (0 if the settings have none), and steps of a bin of values from a file."""
    mean, pull, noise = 0.0, 0.0, 0.0
    if isinstance(settings, OUStimulusConfig | OUFeedforwardConfig):
        mean, pull, noise = settings.mean, dt / settings.tau, settings.sigma * dt**0.5
    return {f"{name}_mean": float(mean), f"{name}_pull": pull, f"{name}_noise": noise, f"{name}_bin": bin_}


def _delays(dynamics: Dynamics, network: Network, state: SimState) -> tuple[Array, Array]:
    """Delays of excitatory and inhibitory neurons and of static synapses, steps, and state.early; empty without delays."""
    if state.early is None:
        return jnp.zeros(0, jnp.int32), jnp.zeros(0, jnp.bool_)
    return jnp.asarray(dynamics.all_delays(network), jnp.int32), state.early.reshape(1)


def _background(dynamics: Dynamics, network: Network) -> tuple[Array, Array]:
    """`rng.poisson_limits` [most, N] of the spikes in a step, and the current of a spike, [1] or [N]; no limits without background."""
    dtype = network.bias.dtype
    if not network.largest_background:
        return jnp.zeros((0, 0), dtype), jnp.zeros(1, dtype)
    mean, gain = inputs.background_spikes(dynamics.synapse.tau_exc, dynamics.trial.dt, network)
    return jnp.stack(rng.poisson_limits(mean, network.largest_background)), jnp.asarray(gain, dtype).reshape(-1)


def _steps(
    dynamics: Dynamics, network: Network, w: Array | None, state: SimState, keys: TrialKeys, n: int, stimulated: bool, record: bool
) -> tuple[SimState, Array]:
    """`advance` of one trial, or of B, whose arrays have a leading axis of B but for those that the trials share."""
    trial, dt, dtype = dynamics.trial, dynamics.trial.dt, network.bias.dtype
    neuron, sigma = neurons.with_parameters(dynamics.neuron, network.parameters), dynamics.sigma(network)
    noise, scale = 0, 0.0
    if sigma is not None:
        noise, scale = NOISE[dynamics.noise.kind], noise_sd(dynamics.noise.kind, sigma, neuron.tau_m, dt)

    def each(value: Any, kind: Any = dtype) -> Array:
        """A parameter of the neurons, [1] or [N]."""
        return jnp.asarray(value, kind).reshape(-1)

    none, table = jnp.zeros(0, dtype), network.rate_table
    of_table = (none.reshape(0, 2), none, none, jnp.zeros(0, jnp.int32))
    given_stimulus, given_rates = (none.reshape(0, 1, 0) if values is None else values for values in (network.stimulus, network.rates))
    arguments = (
        state.i,
        keys.condition,
        keys.noise,
        keys.feedforward,
        *(each(value) for value in (dt / neuron.tau_m, neuron.threshold, neuron.reset, scale)),
        each(neurons.refractory_steps(neuron.refractory, dt), jnp.int32),
        network.bias,
        none if network.class_weight is None else network.class_weight,
        jnp.concatenate(filter_factors(dynamics, network, min(trial.block, n)), axis=1),
        *(of_table if table is None else (table.rate, table.low, table.step, table.kind)),
        keys.stimulus,
        given_stimulus,
        keys.rates,
        given_rates,
        *_delays(dynamics, network, state),
        keys.background,
        *_background(dynamics, network),
    )
    expected = none if state.expected is None else state.expected
    stimulus, feedforward = dynamics.stimulus, dynamics.feedforward
    moving = stimulated and isinstance(stimulus, OUStimulusConfig)
    in_turn = (jnp.stack([values] * 2) for values in (state.stimulus if moving else none, state.rates))
    empty = jnp.zeros((0, 0), jnp.bool_), jnp.zeros(0, jnp.int32), none
    late = (missing if own is None else own for own, missing in zip((state.ring, state.n_fired, state.background), empty, strict=True))
    of_neurons = state.neuron.v, state.neuron.until, state.u_sum, expected
    changed = state.synapses, state.r, state.n_delivered, *of_neurons, *in_turn, *late, state.spiked
    *after, words = calls.steps(
        dynamics.backend.delivery,
        network,
        w,
        arguments,
        changed,
        record,
        steps=n,
        noise=noise,
        stimulated=int(stimulated and not isinstance(stimulus, NoStimulusConfig)),
        stim_on=trial.steps(trial.stim_on),
        stim_off=trial.steps(trial.stim_off),
        before=int(feedforward.before),
        moving=int(isinstance(feedforward, OUFeedforwardConfig)),
        seconds=dt / 1000,
        background_draws=rng.poisson_draws(network.largest_background),
        background_decay=1 - dt / dynamics.synapse.tau_exc,
        **_process("stimulus", stimulus, dt, round(stimulus.bin / dt) if isinstance(stimulus, GivenStimulusConfig) else 1),
        **_process("rate", feedforward, dt, trial.every),
    )
    synapses, r, n_delivered, v, until, u_sum, expected, stimuli, rates, ring, n_fired, background, spiked = after
    state = dataclasses.replace(state, i=state.i + n, synapses=synapses, r=r, n_delivered=n_delivered, u_sum=u_sum, spiked=spiked)
    state = dataclasses.replace(state, neuron=neurons.LIFState(v, until), expected=None if state.expected is None else expected)
    if state.ring is not None:
        state = dataclasses.replace(state, ring=ring, n_fired=n_fired, early=jnp.bool_(False))
    if state.background is not None:
        state = dataclasses.replace(state, background=background)
    return dataclasses.replace(state, stimulus=stimuli[n % 2] if moving else state.stimulus, rates=rates[n % 2]), words
