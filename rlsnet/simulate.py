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

from rlsnet import inputs, kernels, neurons, rng, spikes
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
    kernels: str

    @staticmethod
    def of(config: Config) -> Dynamics:
        """The part of a configuration that the step depends on, and which kernels compute it."""
        kind = kernels.choose(config.engine)
        return Dynamics(config.trial, config.neuron, config.synapse, config.noise, config.stimulus, kind)


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
    data_fields=["i", "spiked", "neuron", "synapses", "r", "stimulus", "u_sum", "n_delivered", "lost"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class SimState:
    """The state of one trial.

    i: int32, steps done.
    spiked: [N] bool, who spiked in the last step, still to be delivered.
    neuron: the neuron model's own state.
    synapses: [3, N] low-pass filtered input: static excitatory and inhibitory spikes (times their class weight the
      current), plastic current.
    r: [N] spikes filtered with tau_plas, 1/ms.
    stimulus: [N] stimulus of the next step.
    u_sum: [N] sum over steps of the total current since the last learning point, from a sample at the end of each block.
    n_delivered: [N] int32, spikes in the trial so far, but for those of the last step.
    lost: bool, whether more spikes came at once than fixed shapes had room for, so that this state is not to be used.
    """

    i: Array
    spiked: Array
    neuron: neurons.LIFState
    synapses: Array
    r: Array
    stimulus: Array
    u_sum: Array
    n_delivered: Array
    lost: Array

    @property
    def n_spikes(self) -> Array:
        """[N] int32, spikes in the trial so far."""
        return self.n_delivered + self.spiked.astype(jnp.int32)


def init(dynamics: Dynamics, network: Network, keys: Keys) -> SimState:
    """The start of a trial: random (or the network's own) voltages, all else zero."""
    zeros = jnp.zeros_like(network.bias)
    counts = jnp.zeros(zeros.shape, jnp.int32)
    return SimState(
        i=jnp.int32(0),
        spiked=zeros > 0,
        neuron=neurons.init(inputs.initial_voltage(network, dynamics.neuron, keys.voltage)),
        synapses=jnp.zeros((3, *zeros.shape), zeros.dtype),
        r=zeros,
        stimulus=zeros,
        u_sum=zeros,
        n_delivered=counts,
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


def deliver(dynamics: Dynamics, network: Network, w: Array | None, state: SimState, gain: Array, whole: bool = True) -> SimState:
    """The state after the spikes of the last step have reached their targets, and been counted.

    Args:
      dynamics: the equations.
      network: the wiring.
      w: [G, L, S] plastic weights, or None: static synapses only.
      state: who spiked, and the filters.
      gain: [3] what a unit of input adds to a filter: static excitatory, static inhibitory, plastic (and r).
      whole: whether to deliver, in wide kernels, also those spikes that fixed shapes have no room for.
    """
    arguments = network, w, state.spiked, gain, state.synapses, state.r, state.n_delivered
    if dynamics.kernels == "wide":
        synapses, r, n_delivered, more = spikes.deliver_wide(*arguments, whole)
        return dataclasses.replace(state, synapses=synapses, r=r, n_delivered=n_delivered, lost=state.lost | (more & (not whole)))
    function = kernels.deliver if dynamics.kernels == "native" else spikes.deliver
    synapses, r, n_delivered = function(*arguments)
    return dataclasses.replace(state, synapses=synapses, r=r, n_delivered=n_delivered)


def _factors(dynamics: Dynamics, n: int, dtype: Any) -> tuple[Array, Array]:
    """(decay, gain) [n, 3] of the filters in the steps of a block: a^i, and what a unit of input adds to y."""
    tau = np.array([dynamics.synapse.tau_exc, dynamics.synapse.tau_inh, dynamics.synapse.tau_plas])
    power = (1 - dynamics.trial.dt / tau)[None, :] ** np.arange(1, n + 1)[:, None]
    return jnp.asarray(power, dtype), jnp.asarray(1 / (tau * power), dtype)


def deliver_early(dynamics: Dynamics, network: Network, w: Array, state: SimState) -> SimState:
    """The state with the last step's spikes on their way: what must be done before the weights they meet change.

    The filters then hold what the next step takes up, and are no longer those that learning wants.
    """
    gain = _factors(dynamics, 1, network.bias.dtype)[1][0]
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
      w: [G, L, S] plastic weights, or None: static synapses only.
      state: after the last step.
      keys: of this trial.
      n: steps.
      stimulated: whether the stimulus is on.
      record: whether spikes are wanted.
      whole: see `deliver`.

    Returns:
      The state after the block and, with `record`, [n, W] uint32, the spikes of its steps as `spikes.pack` packs them.
    """
    dt, like = dynamics.trial.dt, network.bias
    decay, gain = _factors(dynamics, n, like.dtype)
    normal = kernels.normal if dynamics.kernels == "native" else rng.normal

    def one_step(state: SimState, factors: tuple[Array, Array]) -> tuple[SimState, Array | None]:
        decay, gain = factors
        state = deliver(dynamics, network, w, state, gain, whole)
        i = state.i + 1
        u_bal, u_plas = currents(network, state.synapses * decay[:, None])
        drive, stimulus = network.bias + u_bal, state.stimulus
        if w is not None:
            drive = drive + u_plas
        if stimulated and isinstance(dynamics.stimulus, OUStimulusConfig):
            drive = drive + stimulus
            stimulus = inputs.stimulus_step(dynamics.stimulus, dt, stimulus, keys.stimulus, i, normal)
        kick = inputs.voltage_noise(dynamics.noise, dynamics.neuron.tau_m, dt, keys.noise, i, like, normal)
        neuron, spiked = neurons.step(dynamics.neuron, dt, state.neuron, i, drive, kick)
        state = dataclasses.replace(state, i=i, spiked=spiked, neuron=neuron, stimulus=stimulus)
        return state, spikes.pack(spiked) if record else None

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
    and do it all again where there was not.
    """
    size = dynamics.trial.block

    def run(state: SimState, whole: bool) -> tuple[SimState, Array | None]:
        def body(state: SimState, _: None) -> tuple[SimState, Array | None]:
            return block(dynamics, network, w, state, keys, size, stimulated, record, whole)

        state, recorded = lax.scan(body, state, None, length=n // size)
        if recorded is not None:
            recorded = recorded.reshape(-1, recorded.shape[2])
        if n % size:
            state, words = block(dynamics, network, w, state, keys, n % size, stimulated, record, whole)
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
