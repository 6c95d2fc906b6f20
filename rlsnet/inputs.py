"""What drives the neurons besides each other: bias, stimulus, membrane noise, initial voltages."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from rlsnet import rng
from rlsnet.config import LIFConfig, NoiseConfig, OUStimulusConfig
from rlsnet.network import Network

Normal = Callable[[Array, int, jnp.dtype], Array]  # `rng.normal`, or what does the same


def initial_voltage(network: Network, neuron: LIFConfig, stream: Array) -> Array:
    """[N] voltages at the start of a trial: the network's own, or normal(0, 1)*(threshold - reset) + reset."""
    if network.v0 is not None:
        return network.v0
    scale = neuron.threshold - neuron.reset
    return rng.normal(stream, network.n_neurons, network.bias.dtype) * scale + neuron.reset


def voltage_noise(noise: NoiseConfig, tau_m: float, dt: float, stream: Array, step: Array, like: Array, normal: Normal) -> Array | None:
    """[N] kicks of one step, normal with s.d. sigma*sqrt(dt/tau_m), or None; like: an [N] array, for size and type."""
    if noise.sigma == 0:
        return None
    return (noise.sigma * math.sqrt(dt / tau_m)) * normal(rng.fold(stream, step), like.shape[0], like.dtype)


def stimulus_step(stimulus: OUStimulusConfig, dt: float, s: Array, stream: Array, step: Array, normal: Normal) -> Array:
    """The stimulus [N] of the next step: s + (mean - s)*dt/tau + sigma*sqrt(dt)*xi, from s = 0 at its start.

    xi depends on the condition (in the key) and the step only, so that every trial of a condition gets the same one.
    """
    xi = normal(rng.fold(stream, step), s.shape[0], s.dtype)
    return s + (dt / stimulus.tau) * (stimulus.mean - s) + (stimulus.sigma * math.sqrt(dt)) * xi
