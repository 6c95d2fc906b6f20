"""Time steps: delivery of spikes, sum of the currents, and step of the neurons. All functions are pure.

Operations on all neurons are one pass over a few arrays; all other operations run for each spike and change only the presynaptic
neuron and its postsynaptic neurons.

A low-pass filter obeys  x_i = a*x_(i-1) + input_(i-1)/tau  with a = 1 - dt/tau. Within a block of steps y_i = x_i/a^i is kept
instead:  y_i = y_(i-1) + input_(i-1)/(tau*a^i),  which changes only where a spike arrives. So decay costs nothing: a step reads the
filters, times a^i, but writes only the entries that spikes reach. At the end of a block y is multiplied by a^n and so becomes x.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from rlsnet.kernels import calls
from rlsnet.model import neurons, rng, sharding
from rlsnet.model.network import Network, gather_inputs
from rlsnet.simulation import delivery, inputs
from rlsnet.simulation.cue import Cue
from rlsnet.simulation.perturbation import Perturbation
from rlsnet.simulation.state import Dynamics, SimState, TrialKeys


def currents(network: Network, synapses: Sequence[Array] | Array, background: Array | None = None) -> tuple[Array, Array]:
    """Currents (u_bal, u_plas), both [N], through static and through plastic synapses, threshold units.

    Args:
      network: neurons and connectivity.
      synapses: [2+T, N] filters, as of `SimState`, or a sequence of their rows, of which XLA on a CPU makes faster loops.
      background: [N] current from the background, as of `SimState`.
    """
    u_plas = sum(synapses[3:], synapses[2])
    if not network.static_width:
        return jnp.zeros_like(network.bias) if background is None else background, u_plas
    exc, inh = synapses[0], synapses[1]
    if network.class_weight is not None:
        from_exc, from_inh = (jnp.where(network.excitatory, to_exc, to_inh) for to_exc, to_inh in network.class_weight)
        exc, inh = exc * from_exc, inh * from_inh
    return exc + inh if background is None else exc + inh + background, u_plas


def static_current(dynamics: Dynamics, network: Network, state: SimState, keys: TrialKeys) -> Array:
    """[N] u_bal of the last step for the learning rule: the current through static synapses, and noise of kind current."""
    u_bal = currents(network, state.synapses, state.background)[0]
    sigma = dynamics.sigma(network)
    if dynamics.noise.kind == "current" and sigma is not None:
        tau_m = neurons.with_parameters(dynamics.neuron, network.parameters).tau_m
        u_bal = u_bal + inputs.current_noise(sigma, tau_m, dynamics.trial.dt, keys.noise, state.i, u_bal, normal(dynamics, network))
    return u_bal


def normal(dynamics: Dynamics, network: Network) -> inputs.Normal:
    """Function that draws a normal random number for each neuron."""
    form = calls.normal if dynamics.backend.noise == "native" else rng.normal
    return form if network.first is None else partial(form, first=network.first)


def arriving(dynamics: Dynamics, network: Network, state: SimState) -> Array:
    """[sources] bool, the spikes that act in the next step and are not delivered yet, by source (`Network.indptr`)."""
    if state.ring is None or state.early is None:
        return state.spiked
    exc, inh = dynamics.delay_steps
    delays, step = np.array([exc, *map(dynamics.trial.steps, network.delays)], np.int32), state.i + 1
    arrived = state.ring[(step - delays) % len(state.ring)]
    if exc != inh:
        from_exc = jnp.pad(network.classes, (0, network.n_feedforward), constant_values=True)
        own = jnp.where(from_exc, arrived[0], state.ring[(step - inh) % len(state.ring)])
        arrived = arrived.at[0].set(own)
    return arrived.reshape(-1) & ~state.early


def with_spikes(state: SimState, spiked: Array) -> SimState:
    """State with the spikes [c, N+X] of the last c steps up to state.i, which are still to be delivered."""
    state = dataclasses.replace(state, spiked=spiked[-1])
    if state.ring is None or state.n_fired is None:
        return state
    rows = (state.i - len(spiked) + 1 + jnp.arange(len(spiked), dtype=jnp.int32)) % len(state.ring)
    n_fired = state.n_fired + jnp.sum(spiked, axis=0, dtype=jnp.int32)
    return dataclasses.replace(state, ring=state.ring.at[rows].set(spiked), n_fired=n_fired)


def deliver(dynamics: Dynamics, network: Network, w: Array | None, state: SimState, gain: Array) -> SimState:
    """State after the spikes that act in the next step have been delivered and counted.

    Args:
      dynamics: the equations.
      network: neurons and connectivity.
      w: [G, X+L, S] trained weights, or None: static synapses only.
      state: state with the spikes and the filters.
      gain: [2+T] increase of a filter by an input of 1: static excitatory, static inhibitory, plastic (and r) by time constant.

    Returns:
      The state; `overflowed` if there were more spikes than the spike capacity of fixed-shape arrays.
    """
    form: Callable[..., tuple[Array, ...]] = delivery.deliver
    drawn_elsewhere = network.mesh is not None and network.stream is not None  # kernels draw the synapses of a whole network only
    if dynamics.backend.delivery in calls.PREFIX and not drawn_elsewhere:
        form = partial(calls.deliver, dynamics.backend.delivery)
    elif dynamics.backend.delivery == "fixed_shape":
        form = partial(delivery.deliver_fixed_shape, dynamics.backend.capacity_factor)
    spiked = arriving(dynamics, network, state)
    arguments = network, None if state.by_synapse is not None else w, spiked, gain, state.synapses, state.r, state.n_delivered
    synapses, r, n_delivered, *overflowed = delivery.side_by_side(form)(*arguments)
    state = dataclasses.replace(state, synapses=synapses, r=r, n_delivered=n_delivered)
    for more in overflowed:
        state = dataclasses.replace(state, overflowed=state.overflowed | more)
    if not network.per_synapse:
        return state
    tau = network.parameters["tau_plas"]
    gain = 1 / (tau - dynamics.trial.dt)  # 1/(tau*a): the present step takes a share a of it
    arrived = jnp.where(spiked[: network.n_presynaptic], gain, 0)
    if state.by_synapse is not None and w is not None:
        state = dataclasses.replace(state, by_synapse=state.by_synapse + w * gather_inputs(network, arrived)[:, :, None])
    return dataclasses.replace(state, r=state.r + arrived)


def deliver_early(dynamics: Dynamics, network: Network, w: Array, state: SimState) -> SimState:
    """State after the delivery of the spikes that act in the next step before the weights change: they act with the present weights.

    The filters are then those of the next step; the values for the learning rule must be computed before.
    """
    gain = filter_factors(dynamics, network, 1)[1][0]
    state = deliver(dynamics, network, w, state, gain)
    if state.ring is not None:
        return dataclasses.replace(state, early=jnp.bool_(True))
    return dataclasses.replace(state, spiked=jnp.zeros_like(state.spiked))


def filter_factors(dynamics: Dynamics, network: Network, n: int) -> tuple[Array, Array]:
    """(decay, gain) [n, 2+T] of the filters in the steps of a block: a^i, and the increase of y by an input of 1.

    If each synapse has a current of its own, the plastic filter and r are computed elsewhere: here their decay is 1 and their gain 0.
    """
    shared = not network.per_synapse
    tau = np.array([dynamics.synapse.tau_exc, dynamics.synapse.tau_inh, *dynamics.plastic_taus(network)])
    power = (1 - dynamics.trial.dt / tau)[None, :] ** np.arange(1, n + 1)[:, None]
    gain = 1 / (tau * power) * np.array([1, 1, *[shared] * (len(tau) - 2)])
    power[:, 2:] = np.where(shared, power[:, 2:], 1)
    return jnp.asarray(power, network.bias.dtype), jnp.asarray(gain, network.bias.dtype)


def _decay_by_synapse(dynamics: Dynamics, network: Network, state: SimState) -> SimState:
    """State after one step of r and the plastic currents, if presynaptic neurons have many different time constants."""
    decay = 1 - dynamics.trial.dt / network.parameters["tau_plas"]
    state = dataclasses.replace(state, r=state.r * decay)
    if state.by_synapse is None:
        return state
    by_synapse = state.by_synapse * gather_inputs(network, decay)[:, :, None]
    u_plas = jnp.sum(by_synapse, axis=1).reshape(-1)[: network.n_neurons]
    return dataclasses.replace(state, by_synapse=by_synapse, synapses=state.synapses.at[2].set(u_plas))


def block(
    dynamics: Dynamics,
    network: Network,
    w: Array | None,
    state: SimState,
    keys: TrialKeys,
    n: int,
    stimulated: bool,
    record: bool = False,
) -> tuple[SimState, Array | None]:
    """State after a block of `n` time steps, few enough that y = x/a^i does not overflow.

    Args:
      dynamics: the equations.
      network: neurons and connectivity.
      w: [G, X+L, S] trained weights, or None: static synapses only.
      state: state after the previous step.
      keys: keys of this trial.
      n: number of steps.
      stimulated: whether the stimulus is on.
      record: whether to return the spikes.

    Returns:
      The state after the block and, with `record`, [n, W] uint32, the spikes of its steps packed by `delivery.pack`.
    """
    decay, gain = filter_factors(dynamics, network, n)
    one_step = partial(_step, dynamics, network, w, keys, stimulated)

    def steps(state: SimState, factors: tuple[Array, ...]) -> tuple[SimState, Array | None]:
        """State after steps whose spikes the devices exchange together, and the packed spikes [steps, W] of each."""
        if len(factors[0]) == 1:
            state, fired = one_step(state, (factors[0][0], factors[1][0]))
            fired = fired[None]
        else:
            state, fired = lax.scan(one_step, state, factors)
        fired = delivery.of_all_devices(network, fired, dynamics.backend.delivery == "native")
        return with_spikes(state, fired), jax.vmap(delivery.pack)(fired[:, : network.n_whole]) if record else None

    size = dynamics.steps_of_exchange(network)
    times = n // size
    whole = times * size
    together = tuple(values[:whole].reshape(times, size, values.shape[1]) for values in (decay, gain))
    state, words = lax.scan(steps, state, together)
    words = None if words is None else words.reshape(whole, words.shape[-1])
    if whole < n:
        state, rest = steps(state, (decay[whole:], gain[whole:]))
        words = None if words is None or rest is None else jnp.concatenate([words, rest])
    synapses = state.synapses * decay[-1][:, None]
    u_bal, u_plas = currents(network, synapses, state.background)
    u_sum = state.u_sum + n * (u_bal + u_plas)
    state = dataclasses.replace(state, synapses=synapses, r=state.r * delivery.of_source(network, decay[-1]), u_sum=u_sum)
    return _with_expected(dynamics, network, state, keys, u_bal + u_plas, decay[-1], n, stimulated), words


def _with_expected(
    dynamics: Dynamics, network: Network, state: SimState, keys: TrialKeys, u: Array, decay: Array, n: int, stimulated: bool
) -> SimState:
    """State with the filtered rates after a block of n steps, in which the rate is that of the current u [N] at its end.

    The s.d. of the voltage noise is in the transfer function; a current that is slow for the membrane is taken as constant.
    """
    if state.expected is None or network.rate_table is None:
        return state
    drive = network.bias + u
    if stimulated:
        drive = drive + _stimulus(dynamics, network, state, keys, state.i)[0]
    if network.per_synapse:
        decay = (1 - dynamics.trial.dt / network.parameters["tau_plas"]) ** n
    else:
        decay = jnp.broadcast_to(delivery.of_source(network, decay), state.r.shape)
    decay = sharding.own(network, decay)
    return dataclasses.replace(state, expected=decay * state.expected + (1 - decay) * network.rate_table(drive))


def _stimulus(dynamics: Dynamics, network: Network, state: SimState, keys: TrialKeys, i: Array) -> tuple[Array, Array]:
    """Stimulus [N] in step i, threshold units, and its state for the next step."""
    since = i - dynamics.trial.steps(dynamics.trial.stim_on)
    moment = inputs.Moment(keys.stimulus, keys.condition, i, since, normal(dynamics, network))
    return inputs.stimulus(dynamics.stimulus, dynamics.trial.dt, network, state.stimulus, moment)


def with_current_of(network: Network, w: Array, state: SimState) -> SimState:
    """State whose plastic current is w.r, that of weights w [G, X+L, S] and the filtered spikes of the state.

    Without a change of weights, that is the current already (to rounding), because the filters are linear.
    """

    def current(r: Array) -> Array:
        return jnp.einsum("gl,gls->gs", gather_inputs(network, r), w, precision="highest").reshape(-1)[: network.n_neurons]

    if state.by_synapse is not None:
        by_synapse = w * gather_inputs(network, state.r)[:, :, None]
        return dataclasses.replace(state, by_synapse=by_synapse, synapses=state.synapses.at[2].set(current(state.r)))
    channel, synapses = network.tau_channel, state.synapses
    for index in range(len(synapses) - 2):
        r = state.r if channel is None else jnp.where(channel == index, state.r, 0)
        synapses = synapses.at[2 + index].set(current(r))
    return dataclasses.replace(state, synapses=synapses)


def _step(
    dynamics: Dynamics,
    network: Network,
    w: Array | None,
    keys: TrialKeys,
    stimulated: bool,
    state: SimState,
    factors: tuple[Array, Array],
) -> tuple[SimState, Array]:
    """State after one step of a block, and the spikes [N+X] in it, which the state does not have yet.

    `factors` are (decay, gain) [2+T] of the filters in this step.
    """
    trial, dt, like = dynamics.trial, dynamics.trial.dt, network.bias
    sigma, parameters = dynamics.sigma(network), neurons.with_parameters(dynamics.neuron, network.parameters)
    decay, gain = factors
    state = deliver(dynamics, network, w, state, gain)
    if network.per_synapse:
        state = _decay_by_synapse(dynamics, network, state)
    i = state.i + 1
    if state.background is not None:
        background = inputs.background(dynamics.synapse.tau_exc, dt, network, state.background, keys.background, i)
        state = dataclasses.replace(state, background=background)
    rows = [row * factor for row, factor in zip(state.synapses, decay, strict=True)]
    u_bal, u_plas = currents(network, rows, state.background)
    drive, noise_increment = network.bias + u_bal, None
    if w is not None:
        drive = drive + u_plas
    cue = keys.perturbation if isinstance(keys.perturbation, Cue) else None
    perturbation = keys.perturbation if isinstance(keys.perturbation, Perturbation) else None
    if cue is not None:
        now, stimulus = cue.stimulus(dynamics.stimulus, dt, network, state.stimulus, keys.condition, i, normal(dynamics, network))
        drive, state = drive + now, dataclasses.replace(state, stimulus=stimulus)
    elif stimulated:
        now, stimulus = _stimulus(dynamics, network, state, keys, i)
        drive, state = drive + now, dataclasses.replace(state, stimulus=stimulus)
    if sigma is not None and dynamics.noise.kind == "voltage":
        noise_increment = inputs.voltage_noise(sigma, parameters.tau_m, dt, keys.noise, i, like, normal(dynamics, network))
    elif sigma is not None:
        drive = drive + inputs.current_noise(sigma, parameters.tau_m, dt, keys.noise, i, like, normal(dynamics, network))
    if perturbation is not None and (extra := perturbation.current(i, like)) is not None:
        drive = drive + extra
    neuron, spiked = neurons.step(parameters, dt, state.neuron, i, drive, noise_increment)
    if perturbation is not None:
        neuron, spiked = perturbation.hold(parameters, dt, i, neuron, spiked, like, network.first)
    if network.n_feedforward:
        since = i - trial.steps(trial.stim_off)
        own = keys.rates, keys.condition
        if cue is None:
            now, rates = inputs.feedforward_rates(dynamics.feedforward, dt, network, state.rates, *own, since, trial.every)
        else:
            now, rates = cue.feedforward(dynamics.feedforward, dt, network, state.rates, own, since, trial.every)
        outside = inputs.feedforward_spikes(dynamics.feedforward, dt, now, keys.feedforward, since)
        spiked, state = jnp.concatenate([spiked, outside]), dataclasses.replace(state, rates=rates)
    early = None if state.early is None else jnp.bool_(False)
    return dataclasses.replace(state, i=i, neuron=neuron, early=early), spiked
