"""The network in time: pure steps, in blocks, and loops over them. There is no learning in here.

What a step does to all neurons is one pass over a few arrays; all else is driven by spikes and touches only the neurons
that they come from and go to.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from rlsnet import api, inputs, kernels, neurons, rng, spikes
from rlsnet.config import (
    Config,
    FeedforwardConfig,
    NeuronConfig,
    NoiseConfig,
    NoStimulusConfig,
    StimulusConfig,
    SynapseConfig,
    TrialConfig,
    by_class,
)
from rlsnet.network import Network, gather_inputs
from rlsnet.perturb import Perturbation

CALIBRATION, TRAINING, TESTING = range(3)  # the stages of an experiment, each with random numbers of its own


@dataclasses.dataclass(frozen=True)
class Dynamics:
    """The equations of motion: what is compiled into the step. Times in ms, voltages in units of the threshold."""

    trial: TrialConfig
    neuron: NeuronConfig
    synapse: SynapseConfig
    noise: NoiseConfig
    stimulus: StimulusConfig
    feedforward: FeedforwardConfig
    kernels: str

    @staticmethod
    def of(config: Config) -> Dynamics:
        """The part of a configuration that the step depends on, and which kernels compute it."""
        sections = {field.name: getattr(config, field.name) for field in dataclasses.fields(Dynamics) if field.name != "kernels"}
        return Dynamics(**sections, kernels=kernels.choose(config.engine))

    def sigma(self, network: Network) -> Any:
        """Strength of the noise, one number or [N]; None without noise."""
        values = network.parameters.get("noise_sigma", self.noise.sigma)
        return None if isinstance(values, float) and values == 0 else values


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["voltage", "noise", "stimulus", "feedforward", "rates", "condition", "perturbation"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Keys:
    """[2] uint32 keys of the random numbers of a trial, see `rng`; which condition it is, int32; and what is done to its neurons."""

    voltage: Array
    noise: Array
    stimulus: Array
    feedforward: Array
    rates: Array
    condition: Array
    perturbation: Perturbation | None = None

    @staticmethod
    def create(seed: int, stage: int) -> Keys:
        """The keys of a stage. Stimulus and feed-forward rates are the same in all stages."""
        own = (rng.Purpose.VOLTAGE, rng.Purpose.NOISE, rng.Purpose.FEEDFORWARD)
        voltage, noise, feedforward = (rng.fold(rng.key(seed, purpose), stage) for purpose in own)
        stimulus, rates = rng.key(seed, rng.Purpose.STIMULUS), rng.key(seed, rng.Purpose.FEEDFORWARD_RATE)
        return Keys(voltage, noise, stimulus, feedforward, rates, jnp.int32(0))

    def trial(self, number: Array, condition: Array) -> Keys:
        """The keys of one trial of a stage: its number, from 0, and its condition."""
        own = {name: rng.fold(getattr(self, name), number) for name in ("voltage", "noise", "feedforward")}
        streams = {name: getattr(self, name) for name in ("stimulus", "rates")} | own
        perturbation = None if self.perturbation is None else self.perturbation.trial(number, condition)
        folded = {name: rng.fold(stream, condition) for name, stream in streams.items()}
        return Keys(**folded, condition=condition, perturbation=perturbation)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["i", "spiked", "neuron", "synapses", "by_synapse", "r", "stimulus", "rates", "u_sum", "n_delivered", "lost"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class SimState:
    """The state of one trial. Arrays [N+X] have the feed-forward neurons at their end.

    i: int32, steps done.
    spiked: [N+X] bool, who spiked in the last step, still to be delivered.
    neuron: the neuron model's own state.
    synapses: [3, N] low-pass filtered input: static excitatory and inhibitory spikes (times their class weight the
      current), plastic current.
    by_synapse: [G, X+L, S] the plastic current of each synapse, where tau_plas differs between neurons; else None.
    r: [N+X] spikes filtered with tau_plas, 1/ms.
    stimulus: [N] what the stimulus keeps for its next step.
    rates: [X] feed-forward rates, Hz.
    u_sum: [N] sum over steps of the total current since the last learning point, from a sample at the end of each block.
    n_delivered: [N+X] int32, spikes in the trial so far, but for those of the last step.
    lost: bool, whether more spikes came at once than fixed shapes had room for, so that this state is not to be used.
    """

    i: Array
    spiked: Array
    neuron: Any
    synapses: Array
    by_synapse: Array | None
    r: Array
    stimulus: Array
    rates: Array
    u_sum: Array
    n_delivered: Array
    lost: Array

    @property
    def n_spikes(self) -> Array:
        """[N] int32, spikes in the trial so far."""
        n = self.u_sum.shape[0]
        return self.n_delivered[:n] + self.spiked[:n].astype(jnp.int32)


def init(dynamics: Dynamics, network: Network, keys: Keys, w: Array | None = None) -> SimState:
    """The start of a trial: random (or the network's own) voltages, all else zero. `w` as in `deliver`, for its shape."""
    zeros = jnp.zeros_like(network.bias)
    everybody = jnp.zeros(zeros.shape[0] + network.n_feedforward, zeros.dtype)
    neuron = neurons.with_parameters(dynamics.neuron, network.parameters)
    return SimState(
        i=jnp.int32(0),
        spiked=everybody > 0,
        neuron=neurons.init(neuron, inputs.initial_voltage(network, neuron, keys.voltage)),
        synapses=jnp.zeros((3, *zeros.shape), zeros.dtype),
        by_synapse=None if w is None or "tau_plas" not in network.parameters else jnp.zeros_like(w),
        r=everybody,
        stimulus=zeros,
        rates=inputs.initial_rates(dynamics.feedforward, network),
        u_sum=zeros,
        n_delivered=jnp.zeros(everybody.shape, jnp.int32),
        lost=jnp.bool_(False),
    )


def currents(network: Network, synapses: Array) -> tuple[Array, Array]:
    """(u_bal, u_plas), both [N]: the currents through static and through plastic synapses."""
    if not network.static_width:
        return jnp.zeros_like(network.bias), synapses[2]
    exc, inh = synapses[0], synapses[1]
    if network.class_weight is not None:
        by_class = jnp.where(network.excitatory[None], network.class_weight[:, :1], network.class_weight[:, 1:])
        exc, inh = exc * by_class[0], inh * by_class[1]
    return exc + inh, synapses[2]


def balanced(dynamics: Dynamics, network: Network, state: SimState, keys: Keys) -> Array:
    """[N] u_bal of the last step, what RLS finds there: the current through static synapses, and noise of kind current."""
    u_bal = currents(network, state.synapses)[0]
    sigma = dynamics.sigma(network)
    if dynamics.noise.kind == "current" and sigma is not None:
        tau_m = neurons.with_parameters(dynamics.neuron, network.parameters).tau_m
        u_bal = u_bal + inputs.current_noise(sigma, tau_m, dynamics.trial.dt, keys.noise, state.i, u_bal, _normal(dynamics))
    return u_bal


def _normal(dynamics: Dynamics) -> inputs.Normal:
    return kernels.normal if dynamics.kernels == "native" else rng.normal


def deliver(dynamics: Dynamics, network: Network, w: Array | None, state: SimState, gain: Array, whole: bool = True) -> SimState:
    """The state after the spikes of the last step have reached their targets, and been counted.

    Args:
      dynamics: the equations.
      network: the wiring.
      w: [G, X+L, S] trained weights, or None: static synapses only.
      state: who spiked, and the filters.
      gain: [3] what a unit of input adds to a filter: static excitatory, static inhibitory, plastic (and r).
      whole: whether to deliver, in wide kernels, also those spikes that fixed shapes have no room for.
    """
    arguments = network, None if state.by_synapse is not None else w, state.spiked, gain, state.synapses, state.r, state.n_delivered
    if dynamics.kernels == "wide":
        synapses, r, n_delivered, more = spikes.deliver_wide(*arguments, whole)
        state = dataclasses.replace(state, lost=state.lost | (more & (not whole)))
    else:
        synapses, r, n_delivered = (kernels.deliver if dynamics.kernels == "native" else spikes.deliver)(*arguments)
    state = dataclasses.replace(state, synapses=synapses, r=r, n_delivered=n_delivered)
    if "tau_plas" not in network.parameters:
        return state
    tau = network.parameters["tau_plas"]
    arrived = jnp.where(state.spiked, 1 / (tau - dynamics.trial.dt), 0)  # 1/(tau*a): the step at hand takes a share a of it
    if state.by_synapse is not None and w is not None:
        state = dataclasses.replace(state, by_synapse=state.by_synapse + w * gather_inputs(network, arrived)[:, :, None])
    return dataclasses.replace(state, r=state.r + arrived)


def _decay_by_synapse(dynamics: Dynamics, network: Network, state: SimState) -> SimState:
    """One step of r and the plastic currents where each presynaptic neuron has its own time constant."""
    decay = 1 - dynamics.trial.dt / network.parameters["tau_plas"]
    state = dataclasses.replace(state, r=state.r * decay)
    if state.by_synapse is None:
        return state
    by_synapse = state.by_synapse * gather_inputs(network, decay)[:, :, None]
    u_plas = jnp.sum(by_synapse, axis=1).reshape(-1)[: network.n_neurons]
    return dataclasses.replace(state, by_synapse=by_synapse, synapses=state.synapses.at[2].set(u_plas))


def _factors(dynamics: Dynamics, network: Network, n: int) -> tuple[Array, Array]:
    """(decay, gain) [n, 3] of the filters in the steps of a block: a^i, and what a unit of input adds to y.

    Where tau_plas differs between neurons the third, and r, are not for blocks: they neither decay nor gain in this way.
    """
    shared = "tau_plas" not in network.parameters
    tau = np.array([dynamics.synapse.tau_exc, dynamics.synapse.tau_inh, by_class(dynamics.synapse.tau_plas)[0]])
    power = (1 - dynamics.trial.dt / tau)[None, :] ** np.arange(1, n + 1)[:, None]
    gain = 1 / (tau * power) * np.array([1, 1, shared])
    power[:, 2] = np.where(shared, power[:, 2], 1)
    return jnp.asarray(power, network.bias.dtype), jnp.asarray(gain, network.bias.dtype)


def deliver_early(dynamics: Dynamics, network: Network, w: Array, state: SimState) -> SimState:
    """The state with the last step's spikes on their way: what must be done before the weights they meet change.

    The filters then hold what the next step takes up, and are no longer those that learning wants.
    """
    gain = _factors(dynamics, network, 1)[1][0]
    state = deliver(dynamics, network, w, state, gain)
    return dataclasses.replace(state, spiked=jnp.zeros_like(state.spiked))


def block(
    dynamics: Dynamics,
    network: Network,
    w: Array | None,
    state: SimState,
    keys: Keys,
    n: int,
    stimulated: bool,
    record: bool = False,
    whole: bool = True,
) -> tuple[SimState, Array | None]:
    """`n` time steps, few enough that the filters need no renormalising between them.

    A filter obeys  x_i = a*x_(i-1) + input_(i-1)/tau  with a = 1 - dt/tau. Within a block y = x_i/a^i is kept instead,
    which changes only where a spike arrives: a decay costs nothing, and a step reads the filters and writes the
    neurons' own state, but no other array.

    Args:
      dynamics: the equations.
      network: the wiring.
      w: [G, X+L, S] trained weights, or None: static synapses only.
      state: after the last step.
      keys: of this trial.
      n: steps.
      stimulated: whether the stimulus is on.
      record: whether spikes are wanted.
      whole: see `deliver`.

    Returns:
      The state after the block and, with `record`, [n, W] uint32, the spikes of its steps as `spikes.pack` packs them.
    """
    trial, dt, like = dynamics.trial, dynamics.trial.dt, network.bias
    decay, gain = _factors(dynamics, network, n)
    normal, sigma = _normal(dynamics), dynamics.sigma(network)
    parameters = neurons.with_parameters(dynamics.neuron, network.parameters)

    def one_step(state: SimState, factors: tuple[Array, Array]) -> tuple[SimState, Array | None]:
        decay, gain = factors
        state = deliver(dynamics, network, w, state, gain, whole)
        if "tau_plas" in network.parameters:
            state = _decay_by_synapse(dynamics, network, state)
        i = state.i + 1
        u_bal, u_plas = currents(network, state.synapses * decay[:, None])
        drive, kick = network.bias + u_bal, None
        if w is not None:
            drive = drive + u_plas
        if stimulated:
            since = i - trial.steps(trial.stim_on)
            moment = inputs.Moment(keys.stimulus, keys.condition, i, since, normal)
            now, stimulus = inputs.stimulus(dynamics.stimulus, dt, network, state.stimulus, moment)
            drive, state = drive + now, dataclasses.replace(state, stimulus=stimulus)
        if sigma is not None and dynamics.noise.kind == "voltage":
            kick = inputs.voltage_noise(sigma, parameters.tau_m, dt, keys.noise, i, like, normal)
        elif sigma is not None:
            drive = drive + inputs.current_noise(sigma, parameters.tau_m, dt, keys.noise, i, like, normal)
        perturbation = keys.perturbation
        if perturbation is not None and (extra := perturbation.current(i, like)) is not None:
            drive = drive + extra
        neuron, spiked = neurons.step(parameters, dt, state.neuron, i, drive, kick)
        if perturbation is not None:
            neuron, spiked = perturbation.hold(parameters, dt, i, neuron, spiked, like)
        words = spikes.pack(spiked) if record else None
        if network.n_feedforward:
            since = i - trial.steps(trial.stim_off)
            streams = keys.feedforward, keys.rates
            outside, rates = inputs.feedforward(dynamics.feedforward, dt, network, state.rates, streams, keys.condition, since, trial.every)
            spiked, state = jnp.concatenate([spiked, outside]), dataclasses.replace(state, rates=rates)
        return dataclasses.replace(state, i=i, spiked=spiked, neuron=neuron), words

    state, words = lax.scan(one_step, state, (decay, gain))
    synapses = state.synapses * decay[-1][:, None]
    u_bal, u_plas = currents(network, synapses)
    u_sum = state.u_sum + n * (u_bal + u_plas)
    return dataclasses.replace(state, synapses=synapses, r=state.r * decay[-1, 2], u_sum=u_sum), words


def advance(
    dynamics: Dynamics,
    network: Network,
    w: Array | None,
    state: SimState,
    keys: Keys,
    n: int,
    *,
    stimulated: bool = False,
    record: bool = False,
) -> tuple[SimState, Array | None]:
    """`n` steps, in blocks; with `record` also their spikes, [n, W] uint32 as `spikes.pack` packs them.

    Wide kernels first assume that there is room for all spikes, so that no step has to wait for an answer from the device,
    and do it all again where there was not. Where neurons may be perturbed, a block is with that only if it is the time for
    it: what comes before is computed by the same operations as without, and equal to the bit.
    """
    size, perturbation = dynamics.trial.block, keys.perturbation
    plain = dataclasses.replace(keys, perturbation=None)

    def some(state: SimState, n: int, whole: bool) -> tuple[SimState, Array | None]:
        def of(keys: Keys) -> tuple[SimState, Array | None]:
            return block(dynamics, network, w, state, keys, n, stimulated, record, whole)

        return of(plain) if perturbation is None else lax.cond(perturbation.touches(state.i, n), lambda: of(keys), lambda: of(plain))

    def run(state: SimState, whole: bool) -> tuple[SimState, Array | None]:
        def body(state: SimState, _: None) -> tuple[SimState, Array | None]:
            return some(state, size, whole)

        state, recorded = lax.scan(body, state, None, length=n // size)
        if recorded is not None:
            recorded = recorded.reshape(-1, recorded.shape[2])
        if n % size:
            state, words = some(state, n % size, whole)
            recorded = None if recorded is None or words is None else jnp.concatenate([recorded, words])
        return state, recorded

    if dynamics.kernels != "wide":
        return run(state, True)
    after = run(state, False)
    return lax.cond(after[0].lost, lambda: run(state, True), lambda: after)


def before_learning(dynamics: Dynamics, network: Network, w: Array | None, keys: Keys) -> SimState:
    """A trial up to the step before stim_off: rest until stim_on, then the stimulus.

    The next `every` steps end just before the first learning point.
    """
    trial = dynamics.trial
    on, last = trial.steps(trial.stim_on), trial.steps(trial.stim_off) - 1
    state = init(dynamics, network, keys, w)
    if isinstance(dynamics.stimulus, NoStimulusConfig) or on >= last:
        on = last
    state, _ = advance(dynamics, network, w, state, keys, on)
    if last > on:
        state, _ = advance(dynamics, network, w, state, keys, last - on, stimulated=True)
    return restart_sum(state)


def restart_sum(state: SimState) -> SimState:
    """The state with its sum of currents set back, as after each learning point."""
    return dataclasses.replace(state, u_sum=jnp.zeros_like(state.u_sum))


@partial(jax.tree_util.register_dataclass, data_fields=["mean", "sd", "n_spikes"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Calibration:
    """What the static network does by itself in one trial.

    mean, sd: [N] temporal mean and standard deviation of the current u over the trial's second half.
    n_spikes: [N] int32, spikes in the whole trial.
    """

    mean: Array
    sd: Array
    n_spikes: Array


@partial(jax.jit, static_argnames="dynamics")
def calibrate(dynamics: Dynamics, network: Network, keys: Keys) -> Calibration:
    """Runs one trial without plastic synapses and stimulus."""
    steps = dynamics.trial.n_steps
    half = steps // 2
    state = init(dynamics, network, keys)
    state, _ = advance(dynamics, network, None, state, keys, half)
    pivot = state.u_sum / half  # sums of differences from about the mean lose no digits
    size = dynamics.trial.block
    samples, rest = divmod(steps - half, size)

    def body(carry: tuple[SimState, Array, Array], _: None) -> tuple[tuple[SimState, Array, Array], None]:
        state, total, squares = carry
        state = block(dynamics, network, None, state, keys, size, False)[0]
        difference = currents(network, state.synapses)[0] - pivot
        return (state, total + difference, squares + difference**2), None

    zeros = jnp.zeros_like(pivot)
    (state, total, squares), _ = lax.scan(body, (state, zeros, zeros), None, length=samples)
    if rest:
        state, _ = block(dynamics, network, None, state, keys, rest, False)
    samples = max(samples, 1)  # a half shorter than a block is its mean alone
    offset = total / samples
    variance = jnp.maximum(squares / samples - offset**2, 0)
    return Calibration(pivot + offset, jnp.sqrt(variance), state.n_spikes)


api.callable_module(__name__, api.simulate)
