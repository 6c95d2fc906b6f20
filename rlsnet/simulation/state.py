"""State of a trial, the equations of motion, and the keys of its random numbers."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rlsnet.config.schema import Config, FeedforwardConfig, NeuronConfig, NoiseConfig, StimulusConfig, SynapseConfig, TrialConfig, by_class
from rlsnet.kernels.backend import Backend
from rlsnet.kernels.backend import from_config as choose_backend
from rlsnet.model import neurons, rng, sharding
from rlsnet.model.network import Network
from rlsnet.simulation import inputs
from rlsnet.simulation.cue import Cue
from rlsnet.simulation.perturbation import Perturbation

log = logging.getLogger(__name__)

CALIBRATION, TRAINING, TESTING, VALIDATION = range(4)  # the stages of an experiment, each with random numbers of its own


@dataclasses.dataclass(frozen=True)
class Dynamics:
    """Equations of motion and the backend that computes them; both are compiled into the step.

    Times in ms, voltages in units of the threshold.
    """

    trial: TrialConfig
    neuron: NeuronConfig
    synapse: SynapseConfig
    noise: NoiseConfig
    stimulus: StimulusConfig
    feedforward: FeedforwardConfig
    backend: Backend

    @staticmethod
    def from_config(config: Config) -> Dynamics:
        """The sections of a configuration on which the step depends, and the backend."""
        names = [field.name for field in dataclasses.fields(Dynamics) if field.name != "backend"]
        return Dynamics(**{name: getattr(config, name) for name in names}, backend=choose_backend(config))

    def enlarged(self) -> Dynamics:
        """The same equations with twice the spike capacity of fixed-shape arrays."""
        log.info("More neurons spiked in a step than the spike capacity; compiling with twice the capacity.")
        return dataclasses.replace(self, backend=self.backend.enlarged())

    def sigma(self, network: Network) -> Any:
        """Strength of the noise, one number or [N]; None without noise."""
        values = network.parameters.get("noise_sigma", self.noise.sigma)
        return None if isinstance(values, float) and values == 0 else values

    def plastic_taus(self, network: Network) -> tuple[float, ...]:
        """The time constants of the plastic filters, ms; see `Network.taus`."""
        return network.taus or (by_class(self.synapse.tau_plas)[0],)

    @property
    def delay_steps(self) -> tuple[int, int]:
        """Steps from a spike of an excitatory, and of an inhibitory neuron to its effect; for static synapses see `Network.delays`."""
        exc, inh = map(self.trial.steps, self.synapse.delays(self.trial.dt))
        return exc, inh

    def all_delays(self, network: Network) -> list[int]:
        """Steps of every delay in a network."""
        return [*self.delay_steps, *map(self.trial.steps, network.delays)]

    def ring_rows(self, network: Network) -> int:
        """Steps whose spikes are kept, the longest delay; 0 if every delay is one step, as nothing is kept then."""
        longest = max(self.all_delays(network))
        return 0 if longest == 1 else longest

    def steps_of_exchange(self, network: Network) -> int:
        """Steps after which devices exchange their spikes, the shortest delay; 1 on one device."""
        return 1 if network.mesh is None else min(self.all_delays(network))

    def decay_between_updates(self, network: Network, points: int) -> float | None:
        """Factor by which filtered spikes decay in `points` learning points; None if it differs between neurons, or with filtered rates."""
        taus = self.plastic_taus(network)
        if network.per_synapse or len(taus) > 1 or network.rate_table is not None:
            return None
        return (1 - self.trial.dt / taus[0]) ** (self.trial.every * points)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrialKeys:
    """Keys [2] uint32 of the random numbers of a trial (see `rng`), its condition, int32, and its perturbation, another cue, or None.

    Those of a joined network are [Z, 2] with Z conditions [Z], one for each part (see `joined`).

    Keys of B trials of one condition have the shape [B, 2], but for those that depend on the condition only: stimulus and rates.
    """

    voltage: Array
    noise: Array
    background: Array
    stimulus: Array
    feedforward: Array
    rates: Array
    condition: Array
    perturbation: Perturbation | Cue | None = None

    @staticmethod
    def create(seed: int, stage: int) -> TrialKeys:
        """Keys of a stage of the experiment. Stimulus and feed-forward rates are the same in all stages."""
        own = (rng.Purpose.VOLTAGE, rng.Purpose.NOISE, rng.Purpose.BACKGROUND, rng.Purpose.FEEDFORWARD)
        voltage, noise, background, feedforward = (rng.fold(rng.key(seed, purpose), stage) for purpose in own)
        stimulus, rates = rng.key(seed, rng.Purpose.STIMULUS), rng.key(seed, rng.Purpose.FEEDFORWARD_RATE)
        return TrialKeys(voltage, noise, background, stimulus, feedforward, rates, jnp.int32(0))

    def trial(self, number: Array, condition: Array) -> TrialKeys:
        """Keys of one trial of the stage, from its number (from 0) and its condition; of B trials from their numbers [B]."""
        own = {name: rng.fold(getattr(self, name), number) for name in ("voltage", "noise", "background", "feedforward")}
        streams = {name: getattr(self, name) for name in ("stimulus", "rates")} | own
        perturbation = None if self.perturbation is None else self.perturbation.trial(number, condition)
        folded = {name: rng.fold(stream, condition) for name, stream in streams.items()}
        return TrialKeys(**folded, condition=condition, perturbation=perturbation)

    @property
    def parts(self) -> int | None:
        """Z, the number of parts of a joined network; None for one network."""
        return len(self.stimulus) if self.stimulus.ndim > 1 else None

    @property
    def side_by_side(self) -> bool:
        """Whether these are the keys of B trials."""
        return self.voltage.ndim > self.stimulus.ndim

    @property
    def placement(self) -> Any:
        """Placement of the arrays on the devices of a network."""
        same = jax.tree.map(lambda _: sharding.EVERYWHERE, self)
        if not isinstance(self.perturbation, Perturbation):
            return same
        amount = None if self.perturbation.amount is None else sharding.BY_NEURON
        own = dataclasses.replace(same.perturbation, neurons=sharding.BY_NEURON, amount=amount)
        return dataclasses.replace(same, perturbation=own)

    def on_devices(self, network: Network) -> TrialKeys:
        """The keys with the perturbation of each neuron on its device."""
        if not isinstance(self.perturbation, Perturbation):
            return self
        neurons = sharding.of_neurons(network, self.perturbation.neurons, False)
        amount = None if self.perturbation.amount is None else sharding.of_neurons(network, self.perturbation.amount)
        return dataclasses.replace(self, perturbation=dataclasses.replace(self.perturbation, neurons=neurons, amount=amount))

    @property
    def trial_axes(self) -> Any:
        """Axis of the B trials in each array, for jax.vmap; None where the trials share it."""
        perturbation = self.perturbation and self.perturbation.trial_axes
        each: dict[str, Any] = {
            "voltage": 0,
            "noise": 0,
            "background": 0,
            "stimulus": None,
            "feedforward": 0,
            "rates": None,
            "condition": None,
        }
        return TrialKeys(**each, perturbation=perturbation)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SimState:
    """State of one trial. In arrays [N+X], feed-forward neurons come last.

    In the state of B trials side by side, the arrays have a leading axis of B, but for those that are the same in all trials of a
    condition: i, stimulus, rates, early, and overflowed, which is true if any trial has overflowed.

    i: int32, steps done.
    spiked: [N+X] bool, spikes of the last step; without `ring` still to be delivered.
    neuron: state of the neuron model.
    synapses: [2+T, N] low-pass filtered input: static excitatory and inhibitory spikes (whose product with the class weights is the
      current), and the plastic current for each of the T time constants of `Network.taus`; usually T = 1.
    by_synapse: [G, X+L, S] the plastic current of each synapse, if tau_plas has too many values for a filter each; else None.
    r: [N+X] spikes filtered with tau_plas, 1/ms; those that have been delivered.
    expected: [N] filtered in the same way, the rates that the currents give by network.rate_table, 1/ms; None without the table.
    stimulus: [N] state of the stimulus for its next step.
    rates: [X] feed-forward rates, Hz.
    u_sum: [N] sum over steps of the total current since the last learning point, from a sample at the end of each block.
    n_delivered: [N+X] int32, spikes of the trial that have been delivered; without `ring` those before the last step.
    overflowed: bool, whether a step had more spikes than the spike capacity, so that this state is not valid.
    ring: [D, N+X] bool, the spikes of the last D steps, where D is the longest delay: those of step s in row s % D. None, as the next two,
      if every delay is one step.
    early: bool, whether the spikes that act in the next step are delivered already (`step.deliver_early`).
    n_fired: [N+X] int32, spikes of the trial so far.
    background: [N] current through the synapses from the background, threshold units; None without a background.
    """

    i: Array
    spiked: Array
    neuron: Any
    synapses: Array
    by_synapse: Array | None
    r: Array
    expected: Array | None
    stimulus: Array
    rates: Array
    u_sum: Array
    n_delivered: Array
    overflowed: Array
    ring: Array | None = None
    early: Array | None = None
    n_fired: Array | None = None
    background: Array | None = None

    @staticmethod
    def placement(network: Network, leading: int) -> Any:
        """Placement of the arrays on the devices of a network, with an axis of trials before the others if `leading` is 1."""
        one, two = sharding.along(leading, 1 + leading), sharding.along(1 + leading, 2 + leading)
        own: dict[str, Any] = {"synapses": two, "by_synapse": one if network.per_synapse else None, "u_sum": one, "neuron": one}
        own |= {"expected": None if network.rate_table is None else one, "stimulus": sharding.BY_NEURON}
        own |= {"background": one if network.largest_background else None}
        every: dict[str, Any] = {field.name: sharding.EVERYWHERE for field in dataclasses.fields(SimState)}
        return SimState(**(every | own))

    @property
    def n_spikes(self) -> Array:
        """[N+X] int32, spikes in the trial so far."""
        return self.n_delivered + self.spiked.astype(jnp.int32) if self.n_fired is None else self.n_fired

    @staticmethod
    def trial_axes() -> Any:
        """Axis of the B trials in each array, for jax.vmap; None where the trials share it."""
        shared: dict[str, Any] = dict.fromkeys(("i", "stimulus", "rates", "overflowed", "early"))
        return SimState(**{field.name: 0 for field in dataclasses.fields(SimState)} | shared)

    def regressors(self, network: Network) -> Array:
        """[N+X] filtered rates where they are computed, else filtered spikes, 1/ms; feed-forward neurons have spikes only."""
        if self.expected is None:
            return self.r
        return jnp.concatenate([sharding.of_all(network, self.expected), self.r[..., network.n_whole :]], axis=-1)

    def with_zero_sum(self) -> SimState:
        """The state with the sum of currents set to 0, as after each learning point."""
        return dataclasses.replace(self, u_sum=jnp.zeros_like(self.u_sum))


def initial_state(dynamics: Dynamics, network: Network, keys: TrialKeys, w: Array | None = None) -> SimState:
    """State at the start of a trial: random or stored voltages, all else zero. `w` as in `step.deliver`; only its shape is used."""
    zeros = jnp.zeros_like(network.bias)
    sources = jnp.zeros(network.n_presynaptic, zeros.dtype)
    neuron, rows = neurons.with_parameters(dynamics.neuron, network.parameters), dynamics.ring_rows(network)
    return SimState(
        i=jnp.int32(0),
        spiked=sources > 0,
        neuron=neurons.init(neuron, inputs.initial_voltage(network, neuron, keys.voltage)),
        synapses=jnp.zeros((2 + len(dynamics.plastic_taus(network)), *zeros.shape), zeros.dtype),
        by_synapse=None if w is None or not network.per_synapse else jnp.zeros_like(w),
        r=sources,
        expected=None if network.rate_table is None else zeros,
        stimulus=zeros,
        rates=inputs.initial_rates(dynamics.feedforward, network),
        u_sum=zeros,
        n_delivered=jnp.zeros(sources.shape, jnp.int32),
        overflowed=jnp.bool_(False),
        ring=jnp.zeros((rows, *sources.shape), jnp.bool_) if rows else None,
        early=jnp.bool_(False) if rows else None,
        n_fired=jnp.zeros(sources.shape, jnp.int32) if rows else None,
        background=zeros if network.largest_background else None,
    )
