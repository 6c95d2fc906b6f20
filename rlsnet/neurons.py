"""Neuron models: (parameters, state, current) -> (state, spiked), for all neurons at once.

A model is a state dataclass and two functions: `init`, and `step`, which moves all neurons by one time step and resets those
that spike. Nothing else in the package looks inside the state.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from rlsnet.config import LIFConfig


@partial(jax.tree_util.register_dataclass, data_fields=["v", "until"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class LIFState:
    """State of leaky integrate-and-fire neurons.

    v: [N] membrane potential, in units of the threshold.
    until: [N] int32, the last step in which the neuron is refractory.
    """

    v: Array
    until: Array


def init(v: Array) -> LIFState:
    """Neurons at potentials `v` [N], none refractory."""
    return LIFState(v, jnp.zeros(v.shape, jnp.int32))


def step(neuron: LIFConfig, dt: float, state: LIFState, i: Array, current: Array, kick: Array | None) -> tuple[LIFState, Array]:
    """One Euler step of  tau_m dv/dt = current - v  for the neurons that are not refractory.

    Who gets above threshold spikes, is reset, and does not integrate in the next round(refractory/dt) steps.

    Args:
      neuron: parameters; ms and units of the threshold.
      dt: ms.
      state: before the step.
      i: int32, number of the step, from 1.
      current: [N] total input.
      kick: [N] noise on the potential, refractory or not; or None.

    Returns:
      The state after the step and [N] bool, who spiked.
    """
    free = state.until < i
    v = state.v if kick is None else state.v + kick
    v = jnp.where(free, v + (dt / neuron.tau_m) * (current - v), v)
    spiked = free & (v > neuron.threshold)
    return LIFState(jnp.where(spiked, neuron.reset, v), jnp.where(spiked, i + round(neuron.refractory / dt), state.until)), spiked
