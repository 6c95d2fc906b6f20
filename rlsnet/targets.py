"""What the network should do: target currents [C, M, N], from sinusoids, recorded rates or recorded currents.

NaN means not trained: a whole neuron, or a bin of one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import singledispatch
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.signal import lfilter

from rlsnet import neurons, rng
from rlsnet.config import (
    Config,
    CurrentsTargetConfig,
    GLIF1Config,
    LIFConfig,
    RecordingTargetConfig,
    SinusoidTargetConfig,
    TargetConfig,
    UserError,
)
from rlsnet.network import Network
from rlsnet.recordings import Recording
from rlsnet.state import CALIBRATION, Dynamics, TrialKeys
from rlsnet.transfer import InverseTransfers, Neuron, SimulatedInverse
from rlsnet.trial import Calibration, calibrate

Tell = Callable[[int, int], None]

LEAST_NOISE = 0.005  # of threshold - reset; below, the transfer function is a step
MOST_SIMULATED = 8  # different neurons, seconds each


def run_calibration(config: Config, network: Network) -> Calibration:
    """One trial of the static network, in the stage of random numbers that is kept for it."""
    keys = TrialKeys.create(config.seed, CALIBRATION).trial(jnp.int32(0), jnp.int32(0))
    return calibrate(Dynamics.from_config(config), network, keys)


def make(config: Config, network: Network, recording: Recording | None, tell: Tell, calibration: Calibration | None = None) -> np.ndarray:
    """[C, M, N] target currents, threshold units, of the kind that the configuration asks for, checked.

    Args:
      config: the experiment.
      network: for biases and, where there are static synapses, the calibration run.
      recording: what target.recorded asks for.
      tell: called with (done, total) neurons.
      calibration: that run, where it has been made already.
    """
    if calibration is None and network.static_width:
        calibration = run_calibration(config, network)
    target = np.asarray(currents(config.target, config, network, calibration, recording, tell))
    points, n = config.trial.n_points, network.n_neurons
    if target.ndim != 3 or target.shape[1:] != (points, n) or not len(target) or target.dtype.kind not in "fiu":
        raise UserError(
            f"target={config.target.name}: gives {target.dtype} of shape {list(target.shape)}; expected currents [C, {points}, {n}]."
        )
    check(target, f"target={config.target.name}")
    return target.astype(network.bias.dtype, copy=False)


def check(target: np.ndarray, where: str) -> None:
    """Whether there is something to train in each condition of a target [C, M, N], and nothing infinite; raises UserError."""
    for condition, wanted in enumerate(target):
        if np.isinf(wanted).any():
            raise UserError(f"{where}: condition {condition} holds infinite currents; expected finite, or NaN where nothing is trained.")
        if np.isnan(wanted).all():
            raise UserError(f"{where}: condition {condition} is NaN in all neurons and bins; expected a number where it is trained.")


@singledispatch
def currents(
    target: TargetConfig, config: Config, network: Network, calibration: Calibration | None, recording: Recording | None, tell: Tell
) -> np.ndarray:
    """[C, M, N] target of each neuron's total synaptic current, threshold units, at the learning points.

    Args:
      target: the settings, whose class chooses the function; register one for your own.
      config: the experiment.
      network: wiring, classes and biases.
      calibration: what the static synapses do by themselves; None where there are none.
      recording: what target.recorded asks for.
      tell: called with (done, total) neurons.

    Returns:
      Currents; NaN for neurons, or bins, that are not to be trained.
    """
    raise UserError(f"target={target.name}: nothing is registered for {type(target).__name__}; should be, with targets.currents.register.")


@currents.register
def sinusoids(
    target: SinusoidTargetConfig, config: Config, network: Network, calibration: Calibration | None, recording: Recording | None, tell: Tell
) -> np.ndarray:
    """amplitude*sin(2 pi (t - phase)/period) + u_mean + bias(t), phases uniform and new for each condition."""
    trial, dtype = config.trial, network.bias.dtype
    t = trial.stim_off + trial.learn_every * np.arange(1, trial.n_points + 1)
    stream = rng.key(config.seed, rng.Purpose.PHASE)
    mean = 0.0 if calibration is None else np.asarray(calibration.mean)
    out = np.empty((target.n_conditions, trial.n_points, network.n_neurons), dtype)
    for condition in range(target.n_conditions):
        turn = np.asarray(rng.uniform(rng.fold(stream, condition), network.n_neurons, dtype), np.float64)
        wave = target.amplitude * np.sin(2 * np.pi * (t[:, None] / target.period - turn))
        out[condition] = mean + wave + common_bias(target, config, condition)[:, None]
    return out


def common_bias(target: SinusoidTargetConfig, config: Config, condition: int) -> np.ndarray:
    """[M] what is added to the sinusoids of all neurons; kinds and defaults as in TrainSpikingNet.jl.

    ou: b_i = b_(i-1) + (bias_mean - b_(i-1))*dt/bias_tau + bias_sigma*sqrt(dt)*xi_i at step i of the trial, b_0 = 0.
    """
    trial = config.trial
    if target.bias == "ramp":
        return target.ramp_height * np.arange(1, trial.n_points + 1) / trial.n_points
    if target.bias == "zero":
        return np.zeros(trial.n_points)
    stream = rng.fold(rng.key(config.seed, rng.Purpose.BIAS), condition)
    xi = np.asarray(rng.normal(stream, trial.n_steps, np.dtype(config.engine.precision)), np.float64)
    step = trial.dt / target.bias_tau
    b = lfilter([1.0], [1.0, step - 1], step * target.bias_mean + target.bias_sigma * np.sqrt(trial.dt) * xi)
    return b[trial.steps(trial.stim_off) + trial.every - 1 :: trial.every]


def per_neuron(network: Network, value: Any) -> np.ndarray:
    """[N] float64 from a parameter that is one number for all, or [N]."""
    return np.array(np.broadcast_to(np.asarray(value, np.float64), network.n_neurons))


def synaptic_sd(network: Network, calibration: Calibration | None) -> np.ndarray:
    """[N] s.d. of the static currents in time, as measured in each class; 0 without static synapses."""
    spread = np.zeros(network.n_neurons)
    if calibration is not None:
        sd, exc = np.asarray(calibration.sd, np.float64), np.asarray(network.excitatory)
        for members in (exc, ~exc):
            spread[members] = sd[members].mean() if members.any() else 0
    return spread


def transfer_neurons(config: Config, network: Network, calibration: Calibration | None) -> Neuron:
    """What the transfer function knows of the N neurons, each with its own parameters.

    Without static synapses the noise is noise.sigma. With them, the fluctuations of the static currents are added.
    """
    model, sigma = neurons.of(config.neuron, network.parameters), network.parameters.get("noise_sigma", config.noise.sigma)
    neuron = Neuron(*(per_neuron(network, value) for value in (model.tau_m, model.threshold, model.reset, sigma)))
    if getattr(config.target, "euler_correction", False):
        neuron = neuron.with_euler(config.trial.dt)
    return neuron.with_synaptic_noise(synaptic_sd(network, calibration), _tau_static(config))


def _tau_static(config: Config) -> float:
    """Correlation time of the static currents, ms."""
    return (config.synapse.tau_exc + config.synapse.tau_inh) / 2


def simulated_inverse(config: Config, network: Network, calibration: Calibration | None) -> Callable[[np.ndarray, slice], np.ndarray]:
    """Rate -> mean input, as `InverseTransfers`, for models without a formula: each different neuron is simulated."""
    own = {name: per_neuron(network, value) for name, value in network.parameters.items() if name in vars(config.neuron)}
    sigma = per_neuron(network, network.parameters.get("noise_sigma", config.noise.sigma))
    different, label = np.unique([*own.values(), sigma, synaptic_sd(network, calibration)], axis=1, return_inverse=True)
    if different.shape[1] > MOST_SIMULATED:
        raise UserError(
            f"neuron.name={config.neuron.name}: has {different.shape[1]} different neurons; expected at most {MOST_SIMULATED} for"
            " target=recording, as each is simulated, or be lif or glif1; or give currents with target=currents."
        )
    inverses = []
    for *values, noise, spread in different.T:
        model = dataclasses.replace(config.neuron, **dict(zip(own, map(float, values), strict=True)))  # type: ignore[type-var]
        inverses.append(SimulatedInverse(model, config.noise, config.trial.dt, noise, spread, _tau_static(config)))

    def inverse(rate: np.ndarray, part: slice) -> np.ndarray:
        mu = np.empty_like(rate)
        for index, each in enumerate(inverses):
            mine = np.flatnonzero(label.reshape(-1)[part] == index)
            mu[..., mine] = each(rate[..., mine])
        return mu

    return inverse


@currents.register
def from_rates(
    target: RecordingTargetConfig, config: Config, network: Network, calibration: Calibration | None, recording: Recording, tell: Tell
) -> np.ndarray:
    """The current each neuron lacks: inverse transfer of its rate, less its constant drive; by chunks of neurons."""
    neuron, n = transfer_neurons(config, network, calibration), network.n_neurons
    noise = np.asarray(neuron.sigma / (neuron.threshold - neuron.reset))
    least = int(np.argmin(noise))
    if noise[least] < LEAST_NOISE:
        sigma = per_neuron(network, network.parameters.get("noise_sigma", config.noise.sigma))[least]
        raise UserError(
            f"noise.sigma={sigma:g}: the noise of neuron {least} comes to {noise[least]:.2g} of threshold - reset; expected at least"
            f" {LEAST_NOISE:g} of it for target=recording, as low rates come from noise."
        )
    drive, formula = per_neuron(network, network.bias), type(config.neuron) in (LIFConfig, GLIF1Config)  # not what derives from them
    inverse = InverseTransfers(neuron) if formula else simulated_inverse(config, network, calibration)
    if type(config.neuron) is GLIF1Config:
        drive += per_neuron(network, neurons.of(config.neuron, network.parameters).rest)
    units = recording.choose(n, config.seed)
    out = np.empty((recording.n_conditions, config.trial.n_points, n), network.bias.dtype)
    done = 0
    for rates in recording.stream(units):
        part = slice(done, done + rates.shape[2])
        out[:, :, part] = inverse(np.maximum(rates, target.rate_floor), part) - drive[part]
        done = part.stop
        tell(done, n)
    return out


@currents.register
def recorded(
    target: CurrentsTargetConfig, config: Config, network: Network, calibration: Calibration | None, recording: Recording, tell: Tell
) -> np.ndarray:
    """The currents of a recording, as they are; by chunks of neurons."""
    n = network.n_neurons
    out = np.empty((recording.n_conditions, config.trial.n_points, n), network.bias.dtype)
    done = 0
    for block in recording.stream(recording.choose(n, config.seed)):
        out[:, :, done : done + block.shape[2]] = block
        done += block.shape[2]
        tell(done, n)
    return out
