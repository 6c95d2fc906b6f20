"""What is learned from the trials of an experiment, in order: a function of the messages and of the iterations after each trial alone.

Nothing here depends on time or on the source, so that a stream.zarr gives the same weights whenever it is repeated.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence

import numpy as np

from rlsnet.config.schema import Config
from rlsnet.data.import_options import Options
from rlsnet.data.streams.averages import RunningAverage, conditions_of
from rlsnet.data.streams.messages import Batch, Unit
from rlsnet.data.streams.trials import Rules, StreamTrial, TrialAssembler, Window
from rlsnet.data.trial_average import smooth, smoothing_kernel
from rlsnet.errors import UserError
from rlsnet.workflows.online.model import OnlineModel
from rlsnet.workflows.online.scoring import TrialScore, of_trial
from rlsnet.workflows.online.units import Assignment

log = logging.getLogger(__name__)

START_HZ = 5.0  # rate of all neurons before the first trial


@dataclasses.dataclass(frozen=True)
class Learned:
    """What was learned from a trial.

    trial: the trial.
    conditions: numbers of its conditions.
    iterations: iterations after it.
    score: before it was used; None if it could not be computed.
    held_out: whether its condition is not trained.
    """

    trial: StreamTrial
    conditions: list[int]
    iterations: int
    score: TrialScore | None
    held_out: bool


def window_of(config: Config) -> tuple[Window, np.ndarray]:
    """(window of a trial, [2 P + 1] weights of the smoothing kernel) of an experiment."""
    trial, watch = config.trial, config.watch
    weight = smoothing_kernel(Options(bin=trial.learn_every, kernel=watch.kernel, sigma=watch.sigma))
    return Window(watch.start / 1000, trial.learn_every / 1000, trial.n_points, len(weight) // 2), weight


def conditions_from(config: Config) -> dict[str, str]:
    """Expressions of the conditions by name; raises UserError for one that cannot be read."""
    found = config.watch.conditions or {"all": ""}
    nothing = StreamTrial(0, {}, 0.0, {}, np.zeros((0, 0)), np.zeros(0, bool), 0, 0)
    conditions_of(nothing, found)
    return found


class Session:
    """Trials, averages and models.

    Attributes:
      conditions: names of the conditions.
      average: PSTHs so far.
      assembler: of the trials.
      units: of the messages that were fed.
      assignment: neurons of the units.
      models: networks, of which the first is that of the run.
      model_rate: [C, M, N] Hz, rates of the first model when it was last simulated in a condition; NaN before.
      n_trials: trials so far; `n_without_condition` of them had no condition.
      n_spikes_in_windows: spikes in the windows of trials with a condition.
    """

    def __init__(self, config: Config, models: Sequence[OnlineModel], earlier_units: Sequence[str] = ()):
        """No trials yet; `earlier_units` as of `Assignment`."""
        self._config, self.models, self._expressions = config, models, conditions_from(config)
        self.conditions = list(self._expressions)
        window, self.weight = window_of(config)
        watch = config.watch
        self.assembler = TrialAssembler(window, Rules(watch.align, watch.trial_start, watch.trial_end, watch.settle / 1000))
        self.average = RunningAverage(window, len(self.conditions), self.weight, watch.lost)
        n = models[0].n_neurons
        self.units: list[Unit] = []
        self.assignment, self._warm = Assignment(n, earlier_units), watch.warm_start is not None
        self.model_rate = np.full((len(self.conditions), window.bins, n), np.nan, np.float32)
        self.n_trials = self.n_without_condition = self.n_spikes_in_windows = 0

    def feed(self, batch: Batch, units: Sequence[Unit]) -> None:
        """Adds messages; `units` has all those of the batch and before, in the order of their first spikes, and perhaps more."""
        if len(batch.spike_unit):
            self.units += units[len(self.units) : int(batch.spike_unit.max()) + 1]
        self.assembler.feed(batch, self.units)

    def _conditions_of(self, trial: StreamTrial) -> list[int]:
        """Numbers of the conditions of a trial; none, and a line in the log, where a marker has a value that cannot be compared."""
        try:
            return conditions_of(trial, self._expressions)
        except UserError as error:
            log.warning("Trial %d has no condition: %s", trial.number + 1, error)
            return []

    def absorb(self, trial: StreamTrial, conditions: list[int] | None = None) -> None:
        """Adds a trial to the averages alone; to these conditions, if they are known."""
        found = self._conditions_of(trial) if conditions is None else conditions
        self.assignment.extend(self.units[: len(trial.counted)])
        for condition in found:
            self.average.add(trial, condition, [unit.stream for unit in self.units[: len(trial.counted)]])
        self.n_trials += 1
        self.n_without_condition += not found
        pad = self.average.window.pad
        self.n_spikes_in_windows += int(trial.counts[:, pad : pad + self.average.window.bins].sum()) if found else 0

    def targets(self) -> tuple[np.ndarray, float | None]:
        """([C, M, N] Hz the targets now, NaN for neurons without a unit; Hz, that of these, None: that of an earlier run)."""
        half = self._config.recording.half
        rates, mean = self.average.shrunk(self._config.watch.prior_trials, half), self.average.mean_rate(half, present=True)
        known = mean[np.isfinite(mean)]
        filled = float(known.mean()) if known.size else START_HZ
        by_neuron = self.assignment.by_neuron(rates, self.models[0].n_neurons)
        return by_neuron, None if self._warm else filled

    def restore_targets(self) -> None:
        """Gives the models the present targets, which their weights have already."""
        for model in self.models:
            model.set_rates(*self.targets(), follow=False)

    def learn(self, trial: StreamTrial, iterations: int, stop: Callable[[], bool] = lambda: False) -> Learned:
        """Scores a trial, adds it to the averages, and trains the models, with one iteration at least; or only adds it.

        Args:
          trial: the next trial.
          iterations: largest number of iterations; 0: the trial is only added, and the targets change with the next one.
          stop: function that tells, between two iterations, whether training must stop.

        Raises:
          UserError: the weights are no longer finite numbers.
        """
        found = self._conditions_of(trial)
        score = self._score(trial, found[0]) if found and iterations else None
        self.absorb(trial, found)
        done, trained = 0, self.models[0].trained.conditions
        ready = np.flatnonzero(trained & self.average.n_trials.any(axis=(1, 2)))
        if found and iterations and len(ready):
            rates, missing = self.targets()
            for model in self.models:
                model.set_rates(rates, missing)
            while done < iterations and not (done and stop()):
                for model in self.models:
                    model.iterate(int(ready[model.done % len(ready)]))
                done += 1
        return Learned(trial, found, done, score, bool(found) and not trained[found[0]])

    def _score(self, trial: StreamTrial, condition: int) -> TrialScore | None:
        """Score of a trial before it is used; None if its condition has no earlier trials, or is not trained."""
        model = self.models[0]
        if not (self.average.n_units and self.average.n_trials[condition].any() and model.trained.conditions[condition]):
            return None
        rates, u = model.rates(condition), self.average.n_units
        self.model_rate[condition] = rates.mean(axis=0)
        data = smooth(trial.counts[:u].astype(float), self.weight).T / self.average.window.width
        data = np.where(trial.counted[:u] & (self.assignment.neuron[:u] >= 0) & ~self.average.lost, data, np.nan)
        only = slice(condition, condition + 1)
        (target,) = self.average.shrunk(self._config.watch.prior_trials, self._config.recording.half, only)
        (average,) = self.average.rates(conditions=only)
        predicted = rates[:, :, np.maximum(self.assignment.neuron[:u], 0)]
        return of_trial(data, predicted, target, average, self.average.mean_rate())
