"""Inputs from outside the network: stimulus, noise, initial voltages and feed-forward spikes."""

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
    """[N] voltages at the start of a trial: the network's own, or normal(0, 1)*(threshold - reset) + reset."""
    if network.v0 is not None:
        return network.v0
    scale = neuron.threshold - neuron.reset
    return rng.normal(stream, network.n_neurons, network.bias.dtype) * scale + neuron.reset


def voltage_noise(sigma: Any, tau_m: Any, dt: float, stream: Array, step: Array, like: Array, normal: Normal) -> Array:
    """[N] noise increments of the voltage in one step, normal with s.d. sigma*sqrt(dt/tau_m); like: an [N] array, for size and type."""
    return (sigma * (dt / tau_m) ** 0.5) * normal(rng.fold(stream, step), like.shape[0], like.dtype)


def current_noise(sigma: Any, tau_m: Any, dt: float, stream: Array, step: Array, like: Array, normal: Normal) -> Array:
    """[N] noise currents of one step, threshold units, with s.d. sigma*sqrt(tau_m/dt): on a free membrane the same as `voltage_noise`."""
    return (sigma * (tau_m / dt) ** 0.5) * normal(rng.fold(stream, step), like.shape[0], like.dtype)


class Moment(NamedTuple):
    """The step and condition of a stimulus.

    stream: [2] uint32, a key that depends on the condition only, so that every trial of a condition gets the same stimulus.
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
    """The stimulus [N] of a step in which it is on, threshold units, and its state [N] for the next one.

    Args:
      settings: section stimulus.
      dt: ms.
      network: N, type of number, and a given stimulus.
      s: [N] state, 0 at the start.
      moment: step and condition.

    Raises:
      UserError: a section without a registered function.
    """
    raise UserError(f"stimulus: {type(settings).__name__} should have a function registered with inputs.stimulus.")


@stimulus.register
def _(settings: NoStimulusConfig, dt: float, network: Network, s: Array, moment: Moment) -> tuple[Array, Array]:
    return jnp.zeros_like(s), s


@stimulus.register
def _(settings: OUStimulusConfig, dt: float, network: Network, s: Array, moment: Moment) -> tuple[Array, Array]:
    """From s = 0 at its start, s <- s + (mean - s)*dt/tau + sigma*sqrt(dt)*xi."""
    xi = moment.normal(rng.fold(moment.stream, moment.step), s.shape[0], s.dtype)
    return s, s + (dt / settings.tau) * (settings.mean - s) + (settings.sigma * dt**0.5) * xi


@stimulus.register
def _(settings: GivenStimulusConfig, dt: float, network: Network, s: Array, moment: Moment) -> tuple[Array, Array]:
    """Row (since-1)*dt/bin of the given stimulus; 0 after the last."""
    given = network.stimulus
    assert given is not None  # network.build reads it for these settings
    row = (moment.since - 1) // round(settings.bin / dt)
    return jnp.where(row < given.shape[1], given[moment.condition, jnp.minimum(row, given.shape[1] - 1)], 0), s


def initial_rates(settings: FeedforwardConfig, network: Network) -> Array:
    """[X] feed-forward rates in Hz at the start of learning."""
    mean = settings.mean if isinstance(settings, OUFeedforwardConfig) else 0.0
    return jnp.full(network.n_feedforward, mean, network.bias.dtype)


def feedforward(
    settings: FeedforwardConfig,
    dt: float,
    network: Network,
    rates: Array,
    streams: tuple[Array, Array],
    condition: Array,
    since: Array,
    every: int,
) -> tuple[Array, Array]:
    """Feed-forward spikes [X] of a step and the rates [X] in Hz of the next one. There are none before stim_off.

    Args:
      settings: section feedforward.
      dt: ms.
      network: X, and given rates.
      rates: [X] now, for Ornstein-Uhlenbeck rates.
      streams: keys of the spikes, different in each trial, and of the rates, which depends on the condition only.
      condition: int32.
      since: int32, steps since stim_off, from 1; before, 0 or less.
      every: steps of a learning bin.
    """
    x, dtype = rates.shape[0], rates.dtype
    now = rates
    if isinstance(settings, GivenFeedforwardConfig) and network.rates is not None:
        now = network.rates[condition, jnp.clip((since - 1) // every, 0, network.rates.shape[1] - 1)]
    spiked = rng.uniform(rng.fold(streams[0], since), x, dtype) < now * (dt / 1000)
    if isinstance(settings, OUFeedforwardConfig):
        xi = rng.normal(rng.fold(streams[1], since), x, dtype)
        moved = rates + (dt / settings.tau) * (settings.mean - rates) + (settings.sigma * dt**0.5) * xi
        rates = jnp.where(since > 0, moved, rates)
    return spiked & (since > 0), rates
