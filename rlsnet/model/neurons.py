"""Neuron models: (parameters, state, input current) -> (state, spikes), for all neurons at once.

A model is a dataclass of parameters (a subclass of `schema.NeuronConfig`) with two functions registered for it: `init`, and
`step`, which moves all neurons by one time step and resets those that spike. The rest of the program treats the state as a pytree.
Within a step every parameter is one number or, where neurons differ, an array [N]. Voltages and currents are in units of the
threshold, times in ms.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import singledispatch
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rlsnet.config.schema import AfterSpikeCurrents, GLIF5Config, GLIFConfig, LIFConfig, NeuronConfig, ResetRules
from rlsnet.errors import UserError


def with_parameters(neuron: NeuronConfig, parameters: Mapping[str, Array]) -> Any:
    """Parameters of a model, with arrays [N] for those that differ between neurons; parameters of other models are ignored."""
    return dataclasses.replace(neuron, **own_parameters(neuron, parameters))  # type: ignore[type-var]


def own_parameters(neuron: NeuronConfig, parameters: Mapping[str, Array]) -> dict[str, Array]:
    """Entries of `parameters` that are fields of the model."""
    names = {field.name for field in dataclasses.fields(neuron)}  # type: ignore[arg-type]
    return {name: values for name, values in parameters.items() if name in names}


@singledispatch
def init(neuron: NeuronConfig, v: Array) -> Any:
    """State of neurons at potentials `v` [N], none refractory. Raises UserError if no function is registered for the model."""
    raise _nothing_registered(neuron)


@singledispatch
def step(neuron: NeuronConfig, dt: float, state: Any, i: Array, current: Array, noise_increment: Array | None) -> tuple[Any, Array]:
    """State and spikes of all neurons after one time step.

    Args:
      neuron: parameters, each a number or [N].
      dt: ms.
      state: before the step.
      i: int32, number of the step, from 1.
      current: [N] total input, threshold units.
      noise_increment: [N] noise added to the potential, refractory or not, threshold units; or None.

    Returns:
      The state after the step, and the spikes [N] bool.

    Raises:
      UserError: if nothing is registered for the model.
    """
    raise _nothing_registered(neuron)


def _nothing_registered(neuron: NeuronConfig) -> UserError:
    functions = "functions registered with neurons.init and neurons.step"
    return UserError(f"neuron.name={neuron.name}: expected {functions} for {type(neuron).__name__}.")


def refractory_steps(time: Any, dt: float) -> Any:
    """A refractory period in ms (a number or an array) as a number of steps of `dt` ms."""
    return round(time / dt) if isinstance(time, float) else jnp.rint(time / dt).astype(jnp.int32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LIFState:
    """State of leaky integrate-and-fire neurons.

    v: [N] membrane potential, in units of the threshold.
    until: [N] int32, the last step in which the neuron is refractory.
    """

    v: Array
    until: Array


@init.register
def init_lif(neuron: LIFConfig, v: Array) -> LIFState:
    """LIF neurons at potentials `v` [N]."""
    return LIFState(v, jnp.zeros(v.shape, jnp.int32))


@step.register
def step_lif(
    neuron: LIFConfig, dt: float, state: LIFState, i: Array, current: Array, noise_increment: Array | None
) -> tuple[LIFState, Array]:
    """One Euler step of  tau_m dv/dt = current - v  for the neurons that are not refractory.

    A neuron above threshold spikes, is reset, and does not integrate in the next round(refractory/dt) steps.
    """
    active = state.until < i
    v = state.v if noise_increment is None else state.v + noise_increment
    v = jnp.where(active, v + (dt / neuron.tau_m) * (current - v), v)
    spiked = active & (v > neuron.threshold)
    until = jnp.where(spiked, i + refractory_steps(neuron.refractory, dt), state.until)
    return LIFState(jnp.where(spiked, neuron.reset, v), until), spiked


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GLIFState:
    """State of generalized leaky integrate-and-fire neurons; a variable that a model does not have is None.

    v: [N] membrane potential, in units of the threshold.
    until: [N] int32, the last step in which the neuron is refractory.
    currents: two [N], the after-spike currents I_1 and I_2, times the membrane resistance, threshold units.
    spike_threshold: [N] Theta_s, the part of the threshold that spikes raise, threshold units.
    voltage_threshold: [N] Theta_v, the part of the threshold that follows the voltage, threshold units.
    """

    v: Array
    until: Array
    currents: tuple[Array, Array] | None
    spike_threshold: Array | None
    voltage_threshold: Array | None


@init.register
def init_glif(neuron: GLIFConfig, v: Array) -> GLIFState:
    """GLIF neurons at potentials `v` [N], without after-spike currents and with the threshold at rest."""
    zeros = jnp.zeros_like(v)
    return GLIFState(
        v,
        jnp.zeros(v.shape, jnp.int32),
        (zeros, zeros) if isinstance(neuron, AfterSpikeCurrents) else None,
        zeros if isinstance(neuron, ResetRules) else None,
        zeros if isinstance(neuron, GLIF5Config) else None,
    )


@step.register
def step_glif(
    neuron: GLIFConfig, dt: float, state: GLIFState, i: Array, current: Array, noise_increment: Array | None
) -> tuple[GLIFState, Array]:
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
    active = state.until < i
    v = state.v if noise_increment is None else state.v + noise_increment
    before = dataclasses.replace(state, v=v)
    moved = _glif_flow(neuron, dt, before, current)
    threshold = neuron.threshold
    for part in (moved.spike_threshold, moved.voltage_threshold):
        threshold = threshold if part is None else threshold + part
    spiked = active & (moved.v > threshold)
    after = jax.tree.map(lambda new, now: jnp.where(spiked, new, now), _glif_reset(neuron, moved), moved)
    after = jax.tree.map(lambda new, old: jnp.where(active, new, old), after, before)
    until = jnp.where(spiked, i + refractory_steps(neuron.refractory, dt), state.until)
    return dataclasses.replace(after, until=until), spiked


def _glif_flow(neuron: GLIFConfig, dt: float, state: GLIFState, current: Array) -> GLIFState:
    """State after one Euler step, without threshold and reset."""
    v, currents, drive = state.v, state.currents, current
    spike_threshold, voltage_threshold = state.spike_threshold, state.voltage_threshold
    if isinstance(neuron, AfterSpikeCurrents) and currents is not None:
        drive = drive + currents[0] + currents[1]
        currents = currents[0] - (dt / neuron.asc_tau_1) * currents[0], currents[1] - (dt / neuron.asc_tau_2) * currents[1]
    if isinstance(neuron, ResetRules) and spike_threshold is not None:
        spike_threshold = spike_threshold - (dt / neuron.threshold_tau) * spike_threshold
    if isinstance(neuron, GLIF5Config) and voltage_threshold is not None:
        slope = neuron.adaptation_rate * (v - neuron.rest) - voltage_threshold / neuron.adaptation_tau
        voltage_threshold = voltage_threshold + dt * slope
    v = v + (dt / neuron.tau_m) * (drive - (v - neuron.rest))
    return GLIFState(v, state.until, currents, spike_threshold, voltage_threshold)


def _glif_reset(neuron: GLIFConfig, state: GLIFState) -> GLIFState:
    """State after a spike of every neuron. The decay of Theta_s and I_j in the refractory period is applied at once."""
    currents, spike_threshold, reset = state.currents, state.spike_threshold, neuron.reset
    if isinstance(neuron, ResetRules) and spike_threshold is not None:
        reset = neuron.rest + neuron.reset_fraction * (state.v - neuron.rest) - neuron.reset_drop
        spike_threshold = _refractory_decay(neuron, spike_threshold, neuron.threshold_tau) + neuron.threshold_jump
    if isinstance(neuron, AfterSpikeCurrents) and currents is not None:
        one = neuron.asc_keep_1 * _refractory_decay(neuron, currents[0], neuron.asc_tau_1) + neuron.asc_jump_1
        two = neuron.asc_keep_2 * _refractory_decay(neuron, currents[1], neuron.asc_tau_2) + neuron.asc_jump_2
        currents = one, two
    return dataclasses.replace(state, v=jnp.asarray(reset, state.v.dtype), currents=currents, spike_threshold=spike_threshold)


def _refractory_decay(neuron: GLIFConfig, value: Array, tau: Any) -> Array:
    """A value after exponential decay with time constant `tau` (ms) over the refractory period."""
    return value * jnp.exp(-neuron.refractory / jnp.asarray(tau, value.dtype))
