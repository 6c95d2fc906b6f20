"""Neuron models: (parameters, state, current) -> (state, spiked), for all neurons at once.

A model is a dataclass of parameters (a subclass of `config.NeuronConfig`) with two functions registered for it: `init`, and
`step`, which moves all neurons by one time step and resets those that spike. Nothing else looks inside the state, a pytree.
Within a step every parameter is one number or, where neurons differ, an array [N].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial, singledispatch
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rlsnet.config import AfterSpikeCurrents, GLIF5Config, GLIFConfig, LIFConfig, NeuronConfig, ResetRules, UserError


def of(neuron: NeuronConfig, parameters: Mapping[str, Array]) -> Any:
    """The parameters of a model with those that differ between neurons as arrays [N]."""
    own = {field.name for field in dataclasses.fields(neuron)}  # type: ignore[arg-type]
    return dataclasses.replace(neuron, **{name: values for name, values in parameters.items() if name in own})  # type: ignore[type-var]


@singledispatch
def init(neuron: NeuronConfig, v: Array) -> Any:
    """The state of neurons at potentials `v` [N], none refractory."""
    raise UserError(f"neuron: {type(neuron).__name__} should have functions registered with neurons.init and neurons.step.")


@singledispatch
def step(neuron: NeuronConfig, dt: float, state: Any, i: Array, current: Array, noise_increment: Array | None) -> tuple[Any, Array]:
    """One time step.

    Args:
      neuron: parameters; ms and units of the threshold.
      dt: ms.
      state: before the step.
      i: int32, number of the step, from 1.
      current: [N] total input.
      noise_increment: [N] noise on the potential, refractory or not; or None.

    Returns:
      The state after the step and [N] bool, spikes.
    """
    raise UserError(f"neuron: {type(neuron).__name__} should have functions registered with neurons.init and neurons.step.")


def whole_steps(time: Any, dt: float) -> Any:
    """A time in ms, a number or an array, as whole steps."""
    return round(time / dt) if isinstance(time, float) else jnp.rint(time / dt).astype(jnp.int32)


@partial(jax.tree_util.register_dataclass, data_fields=["v", "until"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class LIFState:
    """State of leaky integrate-and-fire neurons.

    v: [N] membrane potential, in units of the threshold.
    until: [N] int32, the last step in which the neuron is refractory.
    """

    v: Array
    until: Array


@init.register
def _(neuron: LIFConfig, v: Array) -> LIFState:
    return LIFState(v, jnp.zeros(v.shape, jnp.int32))


@step.register
def _(neuron: LIFConfig, dt: float, state: LIFState, i: Array, current: Array, noise_increment: Array | None) -> tuple[LIFState, Array]:
    """One Euler step of  tau_m dv/dt = current - v  for the neurons that are not refractory.

    A neuron above threshold spikes, is reset, and does not integrate in the next round(refractory/dt) steps.
    """
    free = state.until < i
    v = state.v if noise_increment is None else state.v + noise_increment
    v = jnp.where(free, v + (dt / neuron.tau_m) * (current - v), v)
    spiked = free & (v > neuron.threshold)
    until = jnp.where(spiked, i + whole_steps(neuron.refractory, dt), state.until)
    return LIFState(jnp.where(spiked, neuron.reset, v), until), spiked


@partial(jax.tree_util.register_dataclass, data_fields=["v", "until", "currents", "raised", "followed"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class GLIFState:
    """State of generalized leaky integrate-and-fire neurons; what a model lacks is None.

    v: [N] membrane potential, in units of the threshold.
    until: [N] int32, the last step in which the neuron is refractory.
    currents: two [N], the after-spike currents I_1 and I_2, times the membrane resistance.
    raised: [N] Theta_s, by how much spikes have raised the threshold.
    followed: [N] Theta_v, by how much the voltage has.
    """

    v: Array
    until: Array
    currents: tuple[Array, Array] | None
    raised: Array | None
    followed: Array | None


@init.register
def _(neuron: GLIFConfig, v: Array) -> GLIFState:
    zeros = jnp.zeros_like(v)
    return GLIFState(
        v,
        jnp.zeros(v.shape, jnp.int32),
        (zeros, zeros) if isinstance(neuron, AfterSpikeCurrents) else None,
        zeros if isinstance(neuron, ResetRules) else None,
        zeros if isinstance(neuron, GLIF5Config) else None,
    )


@step.register
def _(neuron: GLIFConfig, dt: float, state: GLIFState, i: Array, current: Array, noise_increment: Array | None) -> tuple[GLIFState, Array]:
    """One Euler step of the five models of Teeter et al., Nat. Commun. 9:709 (2018).

        tau_m dv/dt   = current + I_1 + I_2 - (v - E_L)          (I_j: GLIF3-5)
        dI_j/dt       = -k_j I_j
        dTheta_s/dt   = -b_s Theta_s                             (GLIF2, 4, 5)
        dTheta_v/dt   = a_v (v - E_L) - b_v Theta_v              (GLIF5)

    where v > threshold + Theta_s + Theta_v the neuron spikes, with delta the refractory period:

        v       <- reset,  or  E_L + f_v (v - E_L) - delta_V     (GLIF2, 4, 5)
        I_j     <- f_j I_j exp(-k_j delta) + delta_I_j
        Theta_s <- Theta_s exp(-b_s delta) + delta_Theta_s

    and then all of it stands still, but for noise, for round(delta/dt) steps.
    """
    free = state.until < i
    v = state.v if noise_increment is None else state.v + noise_increment
    drive, threshold = current, neuron.threshold
    currents, raised, followed = state.currents, state.raised, state.followed

    def after_spike(value: Array, tau: Any) -> Array:
        """What refractoriness leaves of a value that decays."""
        return value * jnp.exp(-neuron.refractory / jnp.asarray(tau, value.dtype))

    if isinstance(neuron, AfterSpikeCurrents) and currents is not None:
        drive = drive + currents[0] + currents[1]
        taus = neuron.asc_tau_1, neuron.asc_tau_2
        decayed = tuple(value - (dt / tau) * value for value, tau in zip(currents, taus, strict=True))
    moved = v + (dt / neuron.tau_m) * (drive - (v - neuron.rest))
    if isinstance(neuron, ResetRules) and raised is not None:
        raised_now = raised - (dt / neuron.threshold_tau) * raised
        threshold = threshold + raised_now
    if isinstance(neuron, GLIF5Config) and followed is not None:
        followed_now = followed + dt * (neuron.adaptation_rate * (v - neuron.rest) - followed / neuron.adaptation_tau)
        threshold = threshold + followed_now
        followed = jnp.where(free, followed_now, followed)
    spiked = free & (moved > threshold)
    if isinstance(neuron, ResetRules) and raised is not None:
        reset = neuron.rest + neuron.reset_fraction * (moved - neuron.rest) - neuron.reset_drop
        raised = jnp.where(
            free, jnp.where(spiked, after_spike(raised_now, neuron.threshold_tau) + neuron.threshold_jump, raised_now), raised
        )
    else:
        reset = neuron.reset
    if isinstance(neuron, AfterSpikeCurrents) and currents is not None:
        rules = (neuron.asc_keep_1, neuron.asc_jump_1), (neuron.asc_keep_2, neuron.asc_jump_2)
        one, two = (
            jnp.where(free, jnp.where(spiked, keep * after_spike(now, tau) + jump, now), before)
            for now, before, tau, (keep, jump) in zip(decayed, currents, taus, rules, strict=True)
        )
        currents = one, two
    v = jnp.where(free, jnp.where(spiked, reset, moved), v)
    until = jnp.where(spiked, i + whole_steps(neuron.refractory, dt), state.until)
    return GLIFState(v, until, currents, raised, followed), spiked
