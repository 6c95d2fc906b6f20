"""External inputs: stimulus, noise, initial voltages and feed-forward spikes."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from rlsnet.config.schema import (
    FeedforwardConfig,
    GivenFeedforwardConfig,
    GivenStimulusConfig,
    NoStimulusConfig,
    OUFeedforwardConfig,
    OUStimulusConfig,
    StimulusConfig,
)
from rlsnet.errors import UserError
from rlsnet.model import rng
from rlsnet.model.network import Network

Normal = Callable[[Array, int, jnp.dtype], Array]  # `rng.normal`, or a faster function of the same distribution


def initial_voltage(network: Network, neuron: Any, stream: Array) -> Array:
    """[N] voltages at the start of a trial, threshold units: network.v0, or normal(0, 1)*(threshold - reset) + reset."""
    if network.v0 is not None:
        return network.v0
    scale = neuron.threshold - neuron.reset
    return rng.normal(stream, network.n_neurons, network.bias.dtype, network.first) * scale + neuron.reset


def noise_sd(kind: str, sigma: Any, tau_m: Any, dt: float) -> Any:
    """S.d. in a step of noise of kind voltage or current, threshold units."""
    return sigma * (dt / tau_m if kind == "voltage" else tau_m / dt) ** 0.5


def voltage_noise(sigma: Any, tau_m: Any, dt: float, stream: Array, step: Array, like: Array, normal: Normal) -> Array:
    """[N] noise increments of the voltage in one step, normal with s.d. sigma*sqrt(dt/tau_m); like: an [N] array, for size and type."""
    return noise_sd("voltage", sigma, tau_m, dt) * normal(rng.fold(stream, step), like.shape[0], like.dtype)


def current_noise(sigma: Any, tau_m: Any, dt: float, stream: Array, step: Array, like: Array, normal: Normal) -> Array:
    """[N] noise currents of one step, threshold units, with s.d. sigma*sqrt(tau_m/dt); without threshold equal to `voltage_noise`."""
    return noise_sd("current", sigma, tau_m, dt) * normal(rng.fold(stream, step), like.shape[0], like.dtype)


def background(tau: float, dt: float, network: Network, u: Array, stream: Array, step: Array) -> Array:
    """[N] background current in a step, threshold units, from that of the step before.

    The spikes that arrive in a step, Poisson-distributed numbers, act in it.

    Args:
      tau: time constant of excitatory static synapses, ms.
      dt: time step, ms.
      network: network with the parameters background_n_inputs, background_rate and background_weight.
      u: [N] current in the step before.
      stream: [2] uint32, key of the trial.
      step: int32, number of the step.
    """
    mean, gain = background_spikes(tau, dt, network)
    spikes = rng.poisson(rng.fold(stream, step), mean, network.largest_background, network.first)
    return (1 - dt / tau) * u + gain * spikes


def background_spikes(tau: float, dt: float, network: Network) -> tuple[Array, Array]:
    """([N] mean number of background spikes in a step, [N] or one current by a spike, threshold units); arguments of `background`."""
    number, rate, weight = (network.parameters[f"background_{name}"] for name in ("n_inputs", "rate", "weight"))
    return number * rate * (dt / 1000), weight / tau


class Moment(NamedTuple):
    """Time step and condition for which a stimulus is computed.

    stream: [2] uint32, key that depends on the condition only, so that all trials of a condition have the same stimulus.
    condition: int32.
    step: int32, number of the step in the trial, from 1.
    since: int32, steps since stim_on, from 1.
    normal: `rng.normal`, or a faster function of the same distribution.
    """

    stream: Array
    condition: Array
    step: Array
    since: Array
    normal: Normal


@singledispatch
def stimulus(settings: StimulusConfig, dt: float, network: Network, s: Array, moment: Moment) -> tuple[Array, Array]:
    """Stimulus [N] in a step between stim_on and stim_off, threshold units, and its state [N] for the next step.

    Args:
      settings: section stimulus; its class chooses the function that is registered for it.
      dt: time step, ms.
      network: network with N, the floating-point type, and the stimulus of stimulus=given.
      s: [N] state of the stimulus; 0 at stim_on.
      moment: step and condition.

    Raises:
      UserError: no function is registered for the class of the settings.
    """
    raise UserError(f"stimulus: {type(settings).__name__} should have a function registered with inputs.stimulus.")


@stimulus.register
def _(settings: NoStimulusConfig, dt: float, network: Network, s: Array, moment: Moment) -> tuple[Array, Array]:
    return jnp.zeros_like(s), s


@stimulus.register
def _(settings: OUStimulusConfig, dt: float, network: Network, s: Array, moment: Moment) -> tuple[Array, Array]:
    """Ornstein-Uhlenbeck stimulus: s <- s + (mean - s)*dt/tau + sigma*sqrt(dt)*xi, from s = 0 at stim_on."""
    xi = moment.normal(rng.fold(moment.stream, moment.step), s.shape[0], s.dtype)
    return s, s + (dt / settings.tau) * (settings.mean - s) + (settings.sigma * dt**0.5) * xi


@stimulus.register
def _(settings: GivenStimulusConfig, dt: float, network: Network, s: Array, moment: Moment) -> tuple[Array, Array]:
    """Stimulus from a file: row (since-1)*dt/bin of it; 0 after the last row."""
    given = network.stimulus
    assert given is not None  # model.build reads it for these settings
    row = (moment.since - 1) // round(settings.bin / dt)
    return jnp.where(row < given.shape[1], given[moment.condition, jnp.minimum(row, given.shape[1] - 1)], 0), s


def initial_rates(settings: FeedforwardConfig, network: Network) -> Array:
    """[X] feed-forward rates at stim_off, Hz."""
    mean = settings.mean if isinstance(settings, OUFeedforwardConfig) else 0.0
    return jnp.full(network.n_feedforward, mean, network.bias.dtype)


def feedforward_rates(
    settings: FeedforwardConfig, dt: float, network: Network, rates: Array, stream: Array, condition: Array, since: Array, every: int
) -> tuple[Array, Array]:
    """Feed-forward rates [X] of a step and of the next, Hz.

    Args:
      settings: section feedforward.
      dt: time step, ms.
      network: network with the rates of feedforward=given.
      rates: [X] Hz, present rates, for Ornstein-Uhlenbeck rates.
      stream: [2] uint32, key of the rates, which depends on the condition only.
      condition: int32, index of the condition.
      since: int32, steps since stim_off, from 1; 0 or less before.
      every: steps of a learning bin.
    """
    now = rates
    if isinstance(settings, GivenFeedforwardConfig) and network.rates is not None:
        now = network.rates[condition, jnp.clip((since - 1) // every, 0, network.rates.shape[1] - 1)]
    if isinstance(settings, OUFeedforwardConfig):
        xi = rng.normal(rng.fold(stream, since), rates.shape[0], rates.dtype)
        moved = rates + (dt / settings.tau) * (settings.mean - rates) + (settings.sigma * dt**0.5) * xi
        rates = jnp.where(since > 0, moved, rates)
    return now, rates


def feedforward_spikes(settings: FeedforwardConfig, dt: float, now: Array, stream: Array, since: Array) -> Array:
    """[X] bool, spikes of a step from the rates `now` [X], Hz. Spikes before stim_off only with settings.before.

    Args:
      settings: section feedforward.
      dt: time step, ms.
      now: [X] Hz.
      stream: [2] uint32, key of the spikes, which differs between trials.
      since: int32, steps since stim_off, from 1; 0 or less before.
    """
    spiked = rng.uniform(rng.fold(stream, since), now.shape[0], now.dtype) < now * (dt / 1000)
    return spiked & ((since > 0) | settings.before)
