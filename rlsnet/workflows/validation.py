"""Validation during training: trials with frozen weights, whose score chooses the best weights and can end the training.

With recorded rates, the score is the population explained variance (`learning.population`) of the rates that are trained on, by those
that the transfer functions of the neurons give for their currents; these are far less noisy than spikes. Otherwise it is that of the
target currents, by the windowed mean current. Held-out trials are never used. The random numbers are those of a stage of its own and
the same at each validation, so that scores differ by the weights alone.
"""

from __future__ import annotations

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rlsnet.config.schema import Config
from rlsnet.data.recordings import Recording
from rlsnet.errors import UserError
from rlsnet.learning import population, scores, targets
from rlsnet.model.network import Network, RateTable
from rlsnet.simulation.state import VALIDATION, Dynamics, TrialKeys
from rlsnet.simulation.trial import Program
from rlsnet.workflows.evaluation import run_trial
from rlsnet.workflows.test_store import blocks_of_neurons


def _rate_table(config: Config, network: Network) -> RateTable | None:
    """The transfer functions of the neurons; None where they do not give a neuron's rate from its slow current."""
    if config.noise.kind == "current":
        return None
    try:
        return targets.rate_table(config, network)
    except UserError:  # such as static synapses
        return None


class Validation:
    """Function that scores weights by train.validation_trials trials of each condition; compiled at its first call."""

    def __init__(self, config: Config, network: Network, target: np.ndarray, recording: Recording | None):
        """Reads the rates to compare with.

        Args:
          config: the experiment.
          network: neurons and connectivity.
          target: [C, M, N] target currents, threshold units; NaN: not trained.
          recording: the recording that the target was made from; None, or one without rates: compare with the target.
        """
        self._dynamics, self._network = Dynamics.from_config(config), network
        self._keys, self._trials = TrialKeys.create(config.seed, VALIDATION), config.train.validation_trials
        with_rates = recording is not None and recording.kind == "rate"
        self._table = _rate_table(config, network) if with_rates else None
        self._data, self._weights = target, scores.window_weights(config.trial)
        if self._table is not None and recording is not None:
            trained = np.stack([np.isfinite(values).any(axis=0) for values in target])
            rates = recording.read(recording.choose(network.n_neurons, config.seed))
            self._data = rates if trained.all() else np.where(trained[:, None, :], rates, np.nan)
            self._weights = scores.smoothing_weights(recording.smoothing, config.trial.n_points)
        self._total = sum(population.recorded_errors(self._data[..., part], None)["total"].sum() for part in self._blocks())
        self._conditions = [c for c, values in enumerate(self._data) if np.isfinite(values).any()]
        self._program: Program | None = None

    def _blocks(self) -> Iterable[slice]:
        return blocks_of_neurons(self._data.shape[2])

    def __call__(self, w: Array) -> float | None:
        """Population explained variance with weights [G, X+L, S]; None where it is undefined, as the data do not vary.

        The noise of the mean of the trials counts as an error: the estimate of it from a few trials is worse than the noise itself,
        because all neurons of a network deviate together.
        """
        error = sum(self._error(w, condition) for condition in self._conditions)
        return float(1 - error / self._total) if self._total > 0 else None

    def _error(self, w: Array, condition: int) -> float:
        """Squared error of the mean of the trials in a condition."""
        total = np.zeros(self._data.shape[1:], np.float32)
        for trial in range(self._trials):
            arguments = self._network, w, self._keys, jnp.int32(trial), jnp.int32(condition), None
            if self._program is None:
                self._program = Program(run_trial, self._dynamics, (False,), *arguments)
            current = self._program(*arguments).current
            total += current if self._table is None else 1000 * jax.vmap(self._table)(current + self._network.bias[None, :])
        return sum(
            population.squared_error(self._weights @ total[None, :, part] / self._trials, self._data[[condition], :, part]).sum()
            for part in self._blocks()
        )
