"""The network in time: one pure step, and loops over it. There is no learning in here.

A step is event driven: the N state updates are one pass over a few arrays, and only the outputs of the neurons that
spiked are touched. Spikes are found by packing the N booleans into words of 32 bits, and those words' occupancy into words
again, so that the next spike costs a look at N/1024 words whatever N is.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from rlsnet import inputs, neurons, rng
from rlsnet.config import Config, LIFConfig, NoiseConfig, NoStimulusConfig, OUStimulusConfig, SynapseConfig, TrialConfig
from rlsnet.network import Network

CALIBRATION, TRAINING, TESTING = range(3)  # the stages of an experiment, each with random numbers of its own


@dataclasses.dataclass(frozen=True)
class Dynamics:
    """The equations of motion: what is compiled into the step. Times in ms, voltages in units of the threshold."""

    trial: TrialConfig
    neuron: LIFConfig
    synapse: SynapseConfig
    noise: NoiseConfig
    stimulus: OUStimulusConfig | NoStimulusConfig

    @staticmethod
    def of(config: Config) -> Dynamics:
        """The part of a configuration that the step depends on."""
        return Dynamics(config.trial, config.neuron, config.synapse, config.noise, config.stimulus)


@partial(jax.tree_util.register_dataclass, data_fields=["voltage", "noise", "stimulus"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Keys:
    """[2] uint32 keys of the random numbers of a trial; see `rng`."""

    voltage: Array
    noise: Array
    stimulus: Array

    @staticmethod
    def create(seed: int, stage: int) -> Keys:
        """The keys of a stage. The stimulus is the same in all stages."""
        voltage, noise = (rng.fold(rng.key(seed, p), stage) for p in (rng.Purpose.VOLTAGE, rng.Purpose.NOISE))
        return Keys(voltage, noise, rng.key(seed, rng.Purpose.STIMULUS))

    def trial(self, number: Array, condition: Array) -> Keys:
        """The keys of one trial of a stage: its number, from 0, and its condition."""
        own = rng.fold(self.voltage, number), rng.fold(self.noise, number)
        return Keys(*(rng.fold(key, condition) for key in (*own, self.stimulus)))


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["i", "neuron", "u", "r", "stimulus", "spiked", "inbox", "u_sum", "n_spikes"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class SimState:
    """The state of one trial.

    i: int32, steps done.
    neuron: the neuron model's own state.
    u: [3, N] synaptic currents: static excitatory, static inhibitory, plastic.
    r: [N] spikes filtered with tau_plas, 1/ms.
    stimulus: [N] stimulus of the next step.
    spiked: [N] bool, who spiked in the last step.
    inbox: [3, N] spikes of the last step, weighted but for class weights, that u takes up in the next.
    u_sum: [N] sum of the total current over the steps since the last learning point.
    n_spikes: [N] int32, spikes in the trial so far.
    """

    i: Array
    neuron: neurons.LIFState
    u: Array
    r: Array
    stimulus: Array
    spiked: Array
    inbox: Array
    u_sum: Array
    n_spikes: Array

    @property
    def u_bal(self) -> Array:
        """[N] current through static synapses."""
        return self.u[0] + self.u[1]


def init(dynamics: Dynamics, network: Network, keys: Keys) -> SimState:
    """The start of a trial: random (or the network's own) voltages, all else zero."""
    zeros = jnp.zeros_like(network.bias)
    counts = jnp.zeros(zeros.shape, jnp.int32)
    voltage = inputs.initial_voltage(network, dynamics.neuron, keys.voltage)
    three = jnp.zeros((3, *zeros.shape), zeros.dtype)
    return SimState(
        i=jnp.int32(0),
        neuron=neurons.init(voltage),
        u=three,
        r=zeros,
        stimulus=zeros,
        spiked=zeros > 0,
        inbox=three,
        u_sum=zeros,
        n_spikes=counts,
    )


def _filtered(x: Array, arrived: Array, tau: float, dt: float) -> Array:
    """One Euler step of  tau dx/dt = -x + arrived*delta(t)."""
    return x + (-dt * x + arrived) / tau


def step(dynamics: Dynamics, network: Network, w: Array | None, state: SimState, keys: Keys, stimulated: bool) -> tuple[SimState, Array]:
    """One time step.

    Args:
      dynamics: the equations.
      network: the wiring.
      w: [G, L, S] plastic weights, or None: static synapses only.
      state: after the last step.
      keys: of this trial.
      stimulated: whether the stimulus is on.

    Returns:
      The state after the step and [W] uint32, the spikes of the step: bit b of word k is neuron 32*k + b.
    """
    dt, synapse, like = dynamics.trial.dt, dynamics.synapse, network.bias
    i = state.i + 1
    from_exc, from_inh = state.inbox[0], state.inbox[1]
    if network.class_weight is not None:
        by_class = jnp.where(network.excitatory[None], network.class_weight[:, :1], network.class_weight[:, 1:])
        from_exc, from_inh = from_exc * by_class[0], from_inh * by_class[1]
    u_exc = _filtered(state.u[0], from_exc, synapse.tau_exc, dt)
    u_inh = _filtered(state.u[1], from_inh, synapse.tau_inh, dt)
    u_plas = _filtered(state.u[2], state.inbox[2], synapse.tau_plas, dt)
    current = u_exc + u_inh + u_plas
    r = _filtered(state.r, state.spiked.astype(like.dtype), synapse.tau_plas, dt)

    drive, stimulus = network.bias, state.stimulus
    if stimulated:
        drive = drive + stimulus
        stimulus = inputs.stimulus_step(dynamics.stimulus, dt, stimulus, keys.stimulus, i)
    neuron = state.neuron
    if dynamics.noise.sigma > 0:
        neuron = neurons.jitter(neuron, inputs.voltage_noise(dynamics.noise, dynamics.neuron.tau_m, dt, keys.noise, i, like))
    neuron, spiked = neurons.step(dynamics.neuron, dt, neuron, drive + current)
    words = pack(spiked)
    return SimState(
        i=i,
        neuron=neuron,
        u=jnp.stack([u_exc, u_inh, u_plas]),
        r=r,
        stimulus=stimulus,
        spiked=spiked,
        inbox=deliver(network, w, words),
        u_sum=state.u_sum + current,
        n_spikes=state.n_spikes + spiked.astype(jnp.int32),
    ), words


def pack(flags: Array) -> Array:
    """[n] bool -> [ceil(n/32)] uint32, bit b of word k is flag 32*k + b."""
    padded = jnp.pad(flags, (0, -flags.shape[0] % 32)).reshape(-1, 32)
    return jnp.sum(jnp.where(padded, np.uint32(1) << np.arange(32, dtype=np.uint32)[None, :], np.uint32(0)), axis=1, dtype=jnp.uint32)


def _lowest_bit(word: Array) -> Array:
    """The position of the lowest bit that is set."""
    return lax.population_count(~word & (word - np.uint32(1))).astype(jnp.int32)


def deliver(network: Network, w: Array | None, words: Array) -> Array:
    """[3, N] what the spikes in `words` send: static excitatory, static inhibitory, plastic.

    With class weights a static spike counts 1, so that sums are exact in any order; the receiver applies the weight.
    """
    n = network.n_neurons

    def one_spike(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        words, blocks, inbox = carry
        block = jnp.argmax(blocks != 0).astype(jnp.int32)
        index = block * 32 + _lowest_bit(blocks[block])
        word = words[index]
        j = index * 32 + _lowest_bit(word)
        rest = word & (word - np.uint32(1))
        words = words.at[index].set(rest)
        blocks = blocks.at[block].set(jnp.where(rest == 0, blocks[block] & (blocks[block] - np.uint32(1)), blocks[block]))
        targets, values = _outputs(network, w, j, inbox.dtype)
        return words, blocks, inbox.at[targets].add(values, mode="drop")

    empty = jnp.zeros(3 * n, network.bias.dtype)
    _, _, inbox = lax.while_loop(lambda carry: jnp.any(carry[1] != 0), one_spike, (words, pack(words != 0), empty))
    return inbox.reshape(3, n)


def _outputs(network: Network, w: Array | None, j: Array, dtype: jnp.dtype) -> tuple[Array, Array]:
    """Where a spike of neuron j goes in a flat inbox [3*N] (3*N: nowhere), and what it adds there."""
    n, size = network.n_neurons, network.group_size
    targets, values = [], []
    if network.static_width:
        start = network.indptr[j]
        edge = jnp.arange(network.static_width, dtype=jnp.int32) < network.indptr[j + 1] - start
        post = lax.dynamic_slice(network.post, (start,), (network.static_width,))
        targets.append(jnp.where(edge, post + jnp.where(network.excitatory[j], 0, n), 3 * n))
        if network.weight is None:
            values.append(jnp.ones(network.static_width, dtype))
        else:
            values.append(lax.dynamic_slice(network.weight, (start,), (network.static_width,)))
    if w is not None and network.plastic_width:
        start = network.out_indptr[j]
        filled = jnp.arange(network.plastic_width, dtype=jnp.int32) < network.out_indptr[j + 1] - start
        slot = lax.dynamic_slice(network.out_slot, (start,), (network.plastic_width,))
        post = (slot // network.n_inputs)[:, None] * size + jnp.arange(size, dtype=jnp.int32)[None, :]
        targets.append(jnp.where(filled[:, None] & (post < n), post + 2 * n, 3 * n).reshape(-1))
        values.append(w.reshape(-1, size)[slot].reshape(-1))
    if not targets:
        return jnp.zeros(0, jnp.int32), jnp.zeros(0, dtype)
    return jnp.concatenate(targets), jnp.concatenate(values)


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
    """`n` steps; with `record` also their spikes, [n, W] uint32 words as `step` gives them."""

    def body(state: SimState, _: None) -> tuple[SimState, Array | None]:
        after, words = step(dynamics, network, w, state, keys, stimulated)
        return after, words if record else None

    state, spikes = lax.scan(body, state, None, length=n)
    return state, spikes


def before_learning(dynamics: Dynamics, network: Network, w: Array | None, keys: Keys) -> SimState:
    """A trial up to the step before stim_off: rest until stim_on, then the stimulus.

    The next `every` steps end just before the first learning point.
    """
    trial = dynamics.trial
    on, last = trial.steps(trial.stim_on), trial.steps(trial.stim_off) - 1
    state = init(dynamics, network, keys)
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

    def body(carry: tuple[SimState, Array, Array], _: None) -> tuple[tuple[SimState, Array, Array], None]:
        state, total, squares = carry
        state = step(dynamics, network, None, state, keys, False)[0]
        difference = state.u_bal - pivot
        return (state, total + difference, squares + difference**2), None

    zeros = jnp.zeros_like(pivot)
    (state, total, squares), _ = lax.scan(body, (state, zeros, zeros), None, length=steps - half)
    offset = total / (steps - half)
    variance = jnp.maximum(squares / (steps - half) - offset**2, 0)
    return Calibration(pivot + offset, jnp.sqrt(variance), state.n_spikes)
