"""The parameters and initial voltages of the neurons of a trained network, one value for each neuron."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from rlsnet.exports.trained_network import TrainedNetwork
from rlsnet.model import neurons
from rlsnet.simulation import inputs
from rlsnet.simulation.state import TESTING, TrialKeys


def neuron_parameters(trained: TrainedNetwork) -> dict[str, tuple[np.ndarray, str]]:
    """Name -> ([N] float64 values, unit): the parameters of the neuron model, `bias`, `noise_sigma`, and those of a background."""
    n, config, stored = trained.n_neurons, trained.config, trained.network.parameters
    own = neurons.with_parameters(config.neuron, stored)
    parameters: dict[str, tuple[np.ndarray, str]] = {"bias": (np.asarray(trained.network.bias, np.float64), "threshold")}
    for field in dataclasses.fields(config.neuron):  # type: ignore[arg-type]
        if field.name != "name":
            parameters[field.name] = _for_each_neuron(getattr(own, field.name), n), field.metadata["unit"]
    for field in dataclasses.fields(config.background):
        if (name := f"background_{field.name}") in stored:
            parameters[name] = _for_each_neuron(stored[name], n), field.metadata["unit"]
    parameters["noise_sigma"] = _for_each_neuron(stored.get("noise_sigma", config.noise.sigma), n), "threshold"
    return parameters


def _for_each_neuron(value: object, n: int) -> np.ndarray:
    """[n] float64 from one value for all neurons, or one for each."""
    return np.array(np.broadcast_to(np.asarray(value, np.float64), n))


def initial_voltages(trained: TrainedNetwork, trials: int) -> np.ndarray:
    """[C, trials, N] voltages at the start of the first trials of `rlsnet test`, threshold units."""
    keys = TrialKeys.create(trained.config.seed, TESTING)
    model = neurons.with_parameters(trained.config.neuron, trained.network.parameters)

    @jax.jit
    def one(number: jax.Array, condition: jax.Array) -> jax.Array:
        return inputs.initial_voltage(trained.network, model, keys.trial(number, condition).voltage)

    conditions = range(len(trained.conditions))
    return np.stack([np.stack([np.asarray(one(jnp.int32(t), jnp.int32(c))) for t in range(trials)]) for c in conditions])
