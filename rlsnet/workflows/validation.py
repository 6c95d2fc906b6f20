"""Validation during training: trials with frozen weights, whose score chooses the best weights and can end the training.

With recorded rates, the score is the population explained variance (`learning.population`) of the rates that are trained on, by those
that the transfer functions of the neurons give for their currents; these are far less noisy than spikes. Otherwise it is that of the
target currents, by the windowed mean current. Held-out trials are never used. The random numbers are those of a stage of its own and
the same at each validation, so that scores differ by the weights alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

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
from rlsnet.workflows.test_store import TrialResult, blocks_of_neurons


def _rate_table(config: Config, network: Network) -> RateTable | None:
    """The transfer functions of the neurons; None where they do not give a neuron's rate from its slow current."""
    if config.noise.kind == "current":
        return None
    try:
        return targets.rate_table(config, network)
    except UserError:  # such as static synapses
        return None


class FrozenTrials:
    """Trials with frozen weights, averaged; compiled when the first is simulated.

    table: transfer functions of the neurons, which give rates that are far less noisy than spikes; None where there are none.
    """

    def __init__(self, config: Config, network: Network, rates: bool = True, placed: Network | None = None):
        """`rates`: whether the transfer functions are made; `placed`: the network on several devices, as of `sharding.place`."""
        self._dynamics, self._network, self._bias = Dynamics.from_config(config), placed or network, np.asarray(network.bias)
        self._keys, self._trials = TrialKeys.create(config.seed, VALIDATION), config.train.validation_trials
        self.table = _rate_table(config, network) if rates else None
        self._program: Program | None = None

    def _mean(self, w: Array, condition: int, trials: Iterable[int], values: Callable[[TrialResult], Any]) -> np.ndarray:
        """[M, N] mean over trials of a condition of what `values` takes from the result of each."""
        total, count = np.zeros((), np.float32), 0
        for trial in trials:
            arguments = self._network, w, self._keys, jnp.int32(trial), jnp.int32(condition), None
            if self._program is None:
                self._program = Program(run_trial, self._dynamics, (False,), *arguments)
            result = self._program(*arguments)
            total, count = total + np.asarray(values(result.on_host(self._network.n_whole)), np.float32), count + 1
        return total / count

    def current(self, w: Array, condition: int) -> np.ndarray:
        """[M, N] threshold units, mean current in the trials of a condition with weights w [G, X+L, S]."""
        return self._mean(w, condition, range(self._trials), lambda result: result.current)

    def rate(self, w: Array, condition: int, trials: Iterable[int] | None = None) -> np.ndarray:
        """[M, N] Hz, mean rate in trials of a condition with weights w [G, X+L, S]: by the transfer functions, or of the spikes.

        Args:
          w: the weights.
          condition: the condition.
          trials: numbers of the trials; None: all of train.validation_trials.
        """
        trials = range(self._trials) if trials is None else trials
        table, bias = self.table, self._bias[None, :]
        if table is None:
            return self._mean(w, condition, trials, lambda result: result.counts * (1000 / self._dynamics.trial.learn_every))
        return self._mean(w, condition, trials, lambda result: 1000 * jax.vmap(table)(result.current + bias))


class Validation:
    """Function that scores weights by train.validation_trials trials of each condition; compiled at its first call."""

    def __init__(self, config: Config, network: Network, target: np.ndarray, recording: Recording | None, placed: Network | None = None):
        """Reads the rates to compare with.

        Args:
          config: the experiment.
          network: neurons and connectivity.
          target: [C, M, N] target currents, threshold units; NaN: not trained.
          recording: the recording that the target was made from; None, or one without rates: compare with the target.
          placed: as of `FrozenTrials`.
        """
        self._trials = FrozenTrials(config, network, recording is not None and recording.kind == "rate", placed)
        self._data, self._weights = target, scores.window_weights(config.trial)
        if self._trials.table is not None and recording is not None:
            trained = np.stack([np.isfinite(values).any(axis=0) for values in target])
            rates = recording.read(recording.choose(network.n_neurons, config.seed))
            self._data = rates if trained.all() else np.where(trained[:, None, :], rates, np.nan)
            self._weights = scores.smoothing_weights(recording.smoothing, config.trial.n_points)
        self._total = sum(population.recorded_errors(self._data[..., part], None)["total"].sum() for part in self._blocks())
        self._conditions = [c for c, values in enumerate(self._data) if np.isfinite(values).any()]

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
        mean = (self._trials.current if self._trials.table is None else self._trials.rate)(w, condition)
        return sum(
            population.squared_error(self._weights @ mean[None, :, part], self._data[[condition], :, part]).sum() for part in self._blocks()
        )
