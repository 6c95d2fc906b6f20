"""Target currents [C, M, N]: sinusoids, currents from recorded rates, or recorded currents.

NaN: not trained, for all or some bins of a neuron. A kind of target is a subclass of `schema.TargetConfig` with a function that is
registered with `currents`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial, singledispatch
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.signal import lfilter

from rlsnet.config.schema import (
    Config,
    CurrentsTargetConfig,
    GLIF1Config,
    RecordingTargetConfig,
    SinusoidTargetConfig,
    TargetConfig,
    check_transfer_formula,
    has_transfer_formula,
)
from rlsnet.data.recordings import Recording
from rlsnet.errors import UserError
from rlsnet.kernels import device
from rlsnet.model import neurons, rng, sharding
from rlsnet.model.fi_curve import EulerScheme, NoisyLIF, PopulationInverseTransfer
from rlsnet.model.network import Network, RateTable
from rlsnet.simulation.simulated_fi_curve import SimulatedInverseTransfer
from rlsnet.simulation.state import CALIBRATION, Dynamics, TrialKeys
from rlsnet.simulation.trial import Calibration, calibrate

Reporter = Callable[[int, int], None]  # called with the numbers of neurons done and in all

MIN_NOISE = 0.005  # of threshold - reset; below, the transfer function is a step
MAX_TABLE_HZ = 400.0  # highest rate in the table of rls.regressors=rates, which goes on as a straight line
MAX_SIMULATED = 8  # different neurons, seconds each


def run_calibration(config: Config, network: Network) -> Calibration:
    """Calibration of a network, with the random numbers of its own stage."""
    keys = TrialKeys.create(config.seed, CALIBRATION).trial(jnp.int32(0), jnp.int32(0))
    found = calibrate(Dynamics.from_config(config), sharding.place(network, device.devices(config.engine)), keys)
    return jax.tree.map(lambda values: jnp.asarray(sharding.on_host(values)[: network.n_neurons]), found)


def make(
    config: Config, network: Network, recording: Recording | None, report: Reporter, calibration: Calibration | None = None
) -> np.ndarray:
    """[C, M, N] target currents, threshold units, in the network's precision.

    Args:
      config: the experiment.
      network: network with biases and static synapses, for the calibration.
      recording: recording of the kind `target.recorded`; None if the target needs none.
      report: function called with (done, total) neurons.
      calibration: the calibration, if it has been made before.

    Raises:
      UserError: a condition has no trained neuron, or the function of a plugin returns another shape.
    """
    if calibration is None and network.static_width and network.n_inputs:  # without trained inputs there is nothing to train
        calibration = run_calibration(config, network)
    target = np.asarray(currents(config.target, config, network, calibration, recording, report))
    points, n = config.trial.n_points, network.n_neurons
    if target.ndim != 3 or target.shape[1:] != (points, n) or not len(target) or target.dtype.kind not in "fiu":
        raise UserError(
            f"target={config.target.name}: gives {target.dtype} of shape {list(target.shape)}; expected currents [C, {points}, {n}]."
        )
    check(target, f"target={config.target.name}")
    return target.astype(network.bias.dtype, copy=False)


def check(target: np.ndarray, where: str) -> None:
    """Raises UserError if a target [C, M, N] has infinite values, or a condition with NaN alone; `where` begins the message."""
    for condition, values in enumerate(target):
        if np.isinf(values).any():
            raise UserError(f"{where}: condition {condition} has infinite currents; expected finite currents, or NaN for not trained.")
        if np.isnan(values).all():
            raise UserError(f"{where}: condition {condition} is NaN for all neurons and bins; expected a number in at least one bin.")


@singledispatch
def currents(
    target: TargetConfig, config: Config, network: Network, calibration: Calibration | None, recording: Recording | None, report: Reporter
) -> np.ndarray:
    """[C, M, N] target of each neuron's total synaptic current, threshold units, at the learning points.

    Args:
      target: settings; their class chooses the function that is registered for it.
      config: the experiment.
      network: connectivity, classes and biases.
      calibration: mean and s.d. of the static currents; None without static synapses.
      recording: recording of the kind `target.recorded`; None if the target needs none.
      report: function called with (done, total) neurons.

    Returns:
      Target currents; NaN for neurons, or bins, that are not trained.

    Raises:
      UserError: no function is registered for the class of the settings.
    """
    raise UserError(f"target={target.name}: expected a function registered with targets.currents for {type(target).__name__}.")


@currents.register
def sinusoids(
    target: SinusoidTargetConfig,
    config: Config,
    network: Network,
    calibration: Calibration | None,
    recording: Recording | None,
    report: Reporter,
) -> np.ndarray:
    """Sinusoids amplitude*sin(2 pi (t - phase)/period) + u_mean + bias(t), with uniform random phases, new for each condition."""
    trial, dtype = config.trial, network.bias.dtype
    t = trial.stim_off + trial.learn_every * np.arange(1, trial.n_points + 1)
    stream = rng.key(config.seed, rng.Purpose.PHASE)
    mean = 0.0 if calibration is None else np.asarray(calibration.mean)
    out = np.empty((target.n_conditions, trial.n_points, network.n_neurons), dtype)
    for condition in range(target.n_conditions):
        turn = np.asarray(rng.uniform(rng.fold(stream, condition), network.n_neurons, dtype), np.float64)
        for row, turns, bias in zip(out[condition], t / target.period, common_bias(target, config, condition), strict=True):
            row[:] = mean + target.amplitude * np.sin(2 * np.pi * (turns - turn)) + bias
    return out


def common_bias(target: SinusoidTargetConfig, config: Config, condition: int) -> np.ndarray:
    """[M] bias added to the sinusoids of all neurons, threshold units; kinds and defaults as in TrainSpikingNet.jl.

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


def rate_table(config: Config, network: Network) -> RateTable:
    """Transfer functions of the N neurons as they are simulated, for rls.regressors=rates, as a function of all input but the noise.

    Raises:
      UserError: neurons without a formula; static synapses, whose currents are not slow for the membrane; too little noise; or too many
        different neurons.
    """
    where = "rls.regressors=rates"
    check_transfer_formula(config.neuron, where)
    if network.static_width:
        raise UserError(
            f"{where}: expected no static synapses, such as static=none, because their currents are too fast for a transfer function;"
            " train.trials_per_update=8 also reduces the noise of the regressors."
        )
    _check_noise(config, network, None, where)
    transfer = inverse_transfer(config, network, None, as_simulated=True)
    if transfer.scale.max() != 1 or len(transfer.tables) > PopulationInverseTransfer.MAX_SEPARATE:
        raise UserError(f"{where}: expected at most {PopulationInverseTransfer.MAX_SEPARATE} different neurons.")
    top = max(float(table(MAX_TABLE_HZ)) for table in transfer.tables)
    inputs = np.linspace(min(table.mu[0] for table in transfer.tables), top, 8192)
    rest = np.unique(constant_drive(config, network) - per_neuron(network, network.bias))  # of glif1, by class
    if len(rest) > 1:
        raise UserError(f"{where}: expected one neuron.rest for all neurons.")
    rate = np.stack([table.rate(inputs) for table in transfer.tables]) / 1000
    real = partial(jnp.asarray, dtype=network.bias.dtype)
    return RateTable(real(rate), jnp.asarray(transfer.first, jnp.int32), real(inputs[0] - rest[0]), real(inputs[1] - inputs[0]))


def synaptic_sd(network: Network, calibration: Calibration | None) -> np.ndarray:
    """[N] s.d. in time of the static currents, averaged over each class, threshold units; 0 without static synapses."""
    spread = np.zeros(network.n_neurons)
    if calibration is not None:
        sd, exc = np.asarray(calibration.sd, np.float64), np.asarray(network.excitatory)
        for members in (exc, ~exc):
            spread[members] = sd[members].mean() if members.any() else 0
    return spread


def transfer_neurons(config: Config, network: Network) -> NoisyLIF:
    """Neurons for the transfer function, with the parameters and the white noise of each of the N neurons."""
    model = neurons.with_parameters(config.neuron, network.parameters)
    values = model.tau_m, model.threshold, model.reset, _noise_sigma(config, network)
    return NoisyLIF(*(per_neuron(network, value) for value in values))


def inverse_transfer(config: Config, network: Network, calibration: Calibration | None, as_simulated: bool) -> PopulationInverseTransfer:
    """Inverse transfer functions of N neurons whose model has a formula.

    With static synapses, the noise includes the fluctuation of the static currents. With `as_simulated`, rates are those of
    simulated neurons, with their time step and refractory period.
    """
    neuron, scheme, synaptic = transfer_neurons(config, network), None, None
    if calibration is not None:
        synaptic = synaptic_sd(network, calibration), _tau_static(config)
    if as_simulated:
        refractory = per_neuron(network, neurons.with_parameters(config.neuron, network.parameters).refractory)
        scheme = EulerScheme(config.trial.dt, np.rint(refractory / config.trial.dt), config.noise.kind == "voltage")
    return PopulationInverseTransfer(neuron, scheme, synaptic)


def _noise_sigma(config: Config, network: Network) -> Any:
    """Noise of the neurons, a number or [N], threshold units."""
    return network.parameters.get("noise_sigma", config.noise.sigma)


def _tau_static(config: Config) -> float:
    """Correlation time of the static currents, ms."""
    return (config.synapse.tau_exc + config.synapse.tau_inh) / 2


def simulated_inverse(config: Config, network: Network, calibration: Calibration | None) -> Callable[[np.ndarray, slice], np.ndarray]:
    """Inverse transfer functions of N neurons by simulation of each different neuron, for models without a formula.

    Raises:
      UserError: for more than MAX_SIMULATED different neurons.
    """
    parameters = neurons.own_parameters(config.neuron, network.parameters)
    own = {name: per_neuron(network, value) for name, value in parameters.items()}
    sigma = per_neuron(network, _noise_sigma(config, network))
    different, label = np.unique([*own.values(), sigma, synaptic_sd(network, calibration)], axis=1, return_inverse=True)
    if different.shape[1] > MAX_SIMULATED:
        raise UserError(
            f"neuron.name={config.neuron.name}: has {different.shape[1]} different neurons; expected at most {MAX_SIMULATED} for"
            " target=recording, because each is simulated, or neuron=lif or glif1, or target=currents."
        )
    inverses = []
    for *values, noise, spread in different.T:
        model = dataclasses.replace(config.neuron, **dict(zip(own, map(float, values), strict=True)))  # type: ignore[type-var]
        inverses.append(SimulatedInverseTransfer(model, config.noise, config.trial.dt, noise, spread, _tau_static(config)))

    def inverse(rate: np.ndarray, part: slice) -> np.ndarray:
        mu = np.empty_like(rate)
        for index, each in enumerate(inverses):
            mine = np.flatnonzero(label.reshape(-1)[part] == index)
            mu[..., mine] = each(rate[..., mine])
        return mu

    return inverse


@currents.register
def from_rates(
    target: RecordingTargetConfig, config: Config, network: Network, calibration: Calibration | None, recording: Recording, report: Reporter
) -> np.ndarray:
    """Targets from rates: the inverse transfer function of each neuron's recorded rate, minus its bias; in chunks of neurons.

    Raises:
      UserError: the noise is too weak for the inverse of low rates, or there are too many different neurons to simulate.
    """
    convert, out = currents_of_rates(target, config, network, calibration), _empty(config, network, recording)
    for part, rates in _blocks(config, network, recording, report):
        out[:, :, part] = convert(rates, part)
    return out


def currents_of_rates(
    target: RecordingTargetConfig, config: Config, network: Network, calibration: Calibration | None
) -> Callable[[np.ndarray, slice], np.ndarray]:
    """Function that gives target currents from rates [C, M, n], Hz, of the neurons of a slice; errors as of `from_rates`."""
    _check_noise(config, network, calibration, "target=recording")
    drive = constant_drive(config, network)
    inverse: Callable[[np.ndarray, slice], np.ndarray] = (
        inverse_transfer(config, network, calibration, target.euler_correction)
        if has_transfer_formula(config.neuron)
        else simulated_inverse(config, network, calibration)
    )
    return lambda rates, part: inverse(np.maximum(rates, target.rate_floor), part) - drive[part]


def constant_drive(config: Config, network: Network) -> np.ndarray:
    """[N] constant part of the mean input: the bias and, in GLIF1, the resting potential, threshold units."""
    drive = per_neuron(network, network.bias)
    if type(config.neuron) is GLIF1Config:
        drive += per_neuron(network, neurons.with_parameters(config.neuron, network.parameters).rest)
    return drive


def _check_noise(config: Config, network: Network, calibration: Calibration | None, where: str) -> None:
    """Raises UserError if the noise of a neuron is below MIN_NOISE of threshold - reset."""
    neuron = transfer_neurons(config, network).with_synaptic_noise(synaptic_sd(network, calibration), _tau_static(config))
    noise = np.asarray(neuron.sigma / (neuron.threshold - neuron.reset))
    least = int(np.argmin(noise))
    if noise[least] < MIN_NOISE:
        sigma = per_neuron(network, _noise_sigma(config, network))[least]
        raise UserError(
            f"noise.sigma={sigma:g}: the noise of neuron {least} is {noise[least]:.2g} of threshold - reset; expected at least"
            f" {MIN_NOISE:g} of it for {where}, because low rates come from noise."
        )


@currents.register
def from_currents(
    target: CurrentsTargetConfig, config: Config, network: Network, calibration: Calibration | None, recording: Recording, report: Reporter
) -> np.ndarray:
    """Targets from recorded currents, unchanged; in chunks of neurons."""
    out = _empty(config, network, recording)
    for part, values in _blocks(config, network, recording, report):
        out[:, :, part] = values
    return out


def _empty(config: Config, network: Network, recording: Recording) -> np.ndarray:
    """[C, M, N] array for target currents, not yet filled."""
    return np.empty((recording.n_conditions, config.trial.n_points, network.n_neurons), network.bias.dtype)


def _blocks(config: Config, network: Network, recording: Recording, report: Reporter) -> Iterator[tuple[slice, np.ndarray]]:
    """The neurons of a chunk, and the recorded values [C, M, n] of the units that they reproduce."""
    done, n = 0, network.n_neurons
    for block in recording.stream(recording.choose(n, config.seed)):
        yield slice(done, done + block.shape[2]), block
        done += block.shape[2]
        report(done, n)
