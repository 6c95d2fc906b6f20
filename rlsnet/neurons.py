"""Neuron models: (parameters, state, current) -> (state, spiked), for all neurons at once.

A model is three functions, `init`, `jitter` and `step`, and a state dataclass; nothing else in the package looks inside.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from rlsnet.config import LIFConfig


@partial(jax.tree_util.register_dataclass, data_fields=["v", "refractory"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class LIFState:
    """State of leaky integrate-and-fire neurons.

    v: [N] membrane potential, in units of the threshold.
    refractory: [N] int32, steps left in which the potential is not integrated.
    """

    v: Array
    refractory: Array


def init(v: Array) -> LIFState:
    """Neurons at potentials `v` [N], none refractory."""
    return LIFState(v, jnp.zeros(v.shape, jnp.int32))


def jitter(state: LIFState, kick: Array) -> LIFState:
    """Adds `kick` [N] to the potentials, refractory or not: the voltage noise of one step."""
    return dataclasses.replace(state, v=state.v + kick)


def step(neuron: LIFConfig, dt: float, state: LIFState, current: Array) -> tuple[LIFState, Array]:
    """One Euler step of  tau_m dv/dt = current - v, with v = reset where v > threshold.

    Args:
      neuron: parameters; ms and units of the threshold.
      dt: ms.
      state: before the step.
      current: [N] total input.

    Returns:
      The state after the step and [N] bool, who spiked. A neuron that spikes then skips round(refractory/dt) steps.
    """
    free = state.refractory == 0
    v = jnp.where(free, state.v + (dt / neuron.tau_m) * (current - state.v), state.v)
    spiked = free & (v > neuron.threshold)
    v = jnp.where(spiked, jnp.asarray(neuron.reset, v.dtype), v)
    wait = round(neuron.refractory / dt)
    refractory = jnp.where(spiked, wait, jnp.maximum(state.refractory - 1, 0))
    return LIFState(v, refractory), spiked
