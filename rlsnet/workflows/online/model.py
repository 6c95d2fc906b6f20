"""One of the networks that learn while an experiment runs: its weights, targets and checkpoints, in a run folder of its own."""

from __future__ import annotations

import dataclasses
import logging
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rlsnet.config.schema import Config, RecordingTargetConfig
from rlsnet.data.neuron_table import NeuronTable
from rlsnet.errors import UserError
from rlsnet.io.formatting import byte_size
from rlsnet.kernels import backend
from rlsnet.learning import held_out, retargeting, rls, scores, targets
from rlsnet.learning.held_out import Trained
from rlsnet.learning.iteration import Iteration
from rlsnet.learning.rls import Learner
from rlsnet.model import network_store
from rlsnet.model.connectivity import from_groups, to_groups
from rlsnet.runs import checkpoint, memory_plan
from rlsnet.runs.checkpoint import CheckpointWriter
from rlsnet.runs.folder import Run
from rlsnet.runs.progress import Progress
from rlsnet.simulation.state import TRAINING, Dynamics, TrialKeys
from rlsnet.workflows import loop
from rlsnet.workflows.prepare import Prepared, prepare, reopen, save_network
from rlsnet.workflows.training import with_rate_table
from rlsnet.workflows.validation import FrozenTrials

log = logging.getLogger(__name__)

SUMS, TRIALS = "trace_sums", "trials"  # array and attribute of a checkpoint


class OnlineModel:
    """A network that learns while the targets of its neurons change.

    Attributes:
      run: its run folder.
      network: neurons and connectivity.
      learner: weights and P.
      done: number of iterations so far.
      trained: the neurons and conditions that are trained.
    """

    def __init__(
        self, config: Config, run: Run, prepared: Prepared, learner: Learner, conditions: list[str], kernel: np.ndarray, show: Progress
    ):
        """Compiles an iteration.

        Args:
          config: the experiment, with the seed of this model.
          run: its run folder.
          prepared: network, and targets of the neurons that reproduce no unit.
          learner: weights and P; its arrays are donated.
          conditions: [C] names.
          kernel: weights with which recorded rates are smoothed.
          show: display of progress.
        """
        self.config, self.run, self.done = config, run, 0
        self.network, self._without_unit = with_rate_table(config, prepared.network), prepared.target
        self.trained: Trained = held_out.choose(config, NeuronTable(np.asarray(self.network.excitatory)), conditions)
        calibration = targets.run_calibration(config, self.network) if self.network.static_width else None
        assert isinstance(config.target, RecordingTargetConfig)
        self._currents = targets.currents_of_rates(config.target, config, self.network, calibration)
        self._target = self._held_out(np.array(self._without_unit))
        c, m, n = self._target.shape
        self._reason = retargeting.impossible(config.rls) if config.watch.retarget else "watch.retarget=false"
        self._sums: Array | None = None
        if not self._reason:
            self._sums = jnp.zeros((n + self.network.n_feedforward, c, m), self.network.bias.dtype)
            log.info("Sums of the filtered spikes, with which weights follow their targets: %s.", byte_size(self._sums.nbytes))
        elif config.watch.retarget:
            log.info("Weights follow new targets by further training alone, as %s.", self._reason)
        keys, recorded = TrialKeys.create(config.seed, TRAINING), jnp.full((c, n), jnp.nan, self.network.bias.dtype)
        with show.busy("Compiling"):
            self._iteration = Iteration(
                Dynamics.from_config(config), config.rls, self.network, learner, jnp.asarray(self._target), keys, recorded,
                config.train.trials_per_update, traces=self._sums is not None,
            )  # fmt: skip
        self._working = memory_plan.temporary_bytes(self._iteration.executable)
        self.learner = learner
        self._frozen, self._smoothing = FrozenTrials(config, self.network), scores.smoothing_weights(tuple(kernel), m)

    def _held_out(self, target: np.ndarray) -> np.ndarray:
        """[C, M, N] the targets, NaN for what is not trained."""
        return held_out.without_held_out(target, self.trained) if self.trained.words else target

    @property
    def n_neurons(self) -> int:
        """N."""
        return self.network.n_neurons

    @property
    def target(self) -> np.ndarray:
        """[C, M, N] present target currents, threshold units; NaN: not trained."""
        return self._target

    def set_rates(self, rates: np.ndarray, missing: float | None, follow: bool = True) -> None:
        """Makes rates the targets; the weights follow them, where this is possible.

        Args:
          rates: [C, M, N] Hz; NaN for neurons without a unit.
          missing: Hz, target of these; None: they keep the target that they have from the start.
          follow: false: the weights have these targets already, as after a restart.
        """
        known = ~np.isnan(rates[:1, :1])
        filled = rates if missing is None else np.where(known, rates, np.float32(missing))
        target = self._currents(filled, slice(0, self.n_neurons))
        if missing is None:
            target = np.where(known, target, self._without_unit)
        target = self._held_out(target.astype(self._target.dtype))
        if follow and self._sums is not None and self.done:
            self.learner = retargeting.retargeted(self.network, self.learner, self._sums, jnp.asarray(target - self._target))
        self._target = target
        self._iteration.target = jnp.asarray(target)
        mean = np.where(known[0, 0] & self.trained.neurons & self.trained.conditions[:, None], rates.mean(axis=1), np.nan)
        self._iteration.recorded = jnp.asarray(mean, self.network.bias.dtype)

    def iterate(self, condition: int) -> dict[str, Any]:
        """One more iteration, in a condition; returns its line of metrics, and raises UserError if the weights are no longer numbers."""
        began = time.perf_counter()
        self.learner, outcome = self._iteration(self.learner, self.done, condition)
        self.done, traces = self.done + 1, outcome.traces
        outcome = jax.device_get(dataclasses.replace(outcome, traces=None))
        line = loop.metrics_line(self.done, condition, time.perf_counter() - began, outcome)
        loop.check_finite(self.config, self.run, self.done, outcome)
        if self._sums is not None and traces is not None:
            self._sums = retargeting.add_traces(self._sums, jnp.int32(condition), traces)
        self.run.append_metrics(line)
        return line

    def rates(self, condition: int) -> np.ndarray:
        """[2, M, N] Hz, rates of the network in a condition with its present weights, smoothed as recorded ones: of odd and even trials.

        There are train.validation_trials of them, at least 2.
        """
        trials = range(max(2, self.config.train.validation_trials))
        return np.stack([self._smoothing @ self._frozen.rate(self.learner.w, condition, trials[half::2]) for half in (0, 1)])

    def wait(self) -> None:
        """Waits until the weights are computed."""
        jax.block_until_ready(self.learner)

    def save(self, writer: CheckpointWriter, trials: int) -> None:
        """Writes a checkpoint, with the number of trials after which it was made; its iterations are all that the settings ask for."""
        self.run.save_config(dataclasses.replace(self.config, train=dataclasses.replace(self.config.train, iterations=max(1, self.done))))
        more = {} if self._sums is None else {SUMS: (np.asarray(self._sums), ["presynaptic", "condition", "time"])}
        checkpoint.save_checkpoint(
            self.run, writer, self.done, self.network, self.learner, self.config, self._working, more, **{TRIALS: trials}
        )

    def save_targets(self) -> None:
        """Writes targets.zarr, for tests and figures of the run."""
        network_store.save_targets(self.run.targets, self._target, np.asarray(self._iteration.recorded))

    def restore(self, iteration: int) -> None:
        """Takes weights, P and sums from a checkpoint of this run."""
        self.learner, self.done = checkpoint.load_learner(self.run, iteration, self.network, self.config), iteration
        if self._sums is not None:
            path = self.run.checkpoint_of(iteration)
            stored = checkpoint.read_array(self.run.open_checkpoint(path), SUMS, self._sums.shape, "f", path)
            self._sums = jnp.asarray(stored, self._sums.dtype)


def trials_at(run: Run, iteration: int) -> int | None:
    """Number of trials after which a checkpoint was made; None for one that rlsnet watch did not make."""
    stored: Any = run.open_checkpoint(run.checkpoint_of(iteration)).attrs.get(TRIALS)
    return stored if isinstance(stored, int) else None


def new(config: Config, run: Run, recording: Path, conditions: list[str], kernel: np.ndarray, show: Progress) -> OnlineModel:
    """A model at its start.

    Args:
      config: the experiment, with the seed of this model.
      run: its run folder, which receives network.zarr.
      recording: a recording.zarr with the rates that all neurons have at the start.
      conditions: [C] names.
      kernel: as of `OnlineModel`.
      show: display of progress.

    Raises:
      UserError: settings do not agree, or memory or disk are too small.
    """
    run.clear()
    warm = config.watch.warm_start
    if warm is None:
        own = dataclasses.replace(config, recording=dataclasses.replace(config.recording, path=str(recording), half=None))
        prepared = prepare(own, show, learning=True, run=run)
    else:
        prepared = _warm(config, _earlier(warm, run), (len(conditions), config.trial.n_points))
    prepared = dataclasses.replace(prepared, recording=None, rate=None)
    if not prepared.network.n_inputs:
        raise UserError("plastic.n_inputs=0: expected at least 2 to train.")
    where = "recording.zarr" if run.recorded == recording else f"../../{recording.name}"
    save_network(run, prepared, learning=True, recording=where, recording_half=config.recording.half)
    run.save_config(config)
    return _started(config, run, prepared, conditions, kernel, show)


def existing(config: Config, run: Run, conditions: list[str], kernel: np.ndarray, show: Progress) -> OnlineModel:
    """A model with the network of its run folder, at its start; `OnlineModel.restore` takes it further."""
    stored = network_store.StoredNetwork(str(run.network))
    prepared = reopen(config, run, learning=True)
    first = network_store.read_target(stored, config.trial.n_points, prepared.network.n_neurons)
    assert first is not None
    run.save_config(config)
    return _started(config, run, dataclasses.replace(prepared, target=first), conditions, kernel, show)


def _started(config: Config, run: Run, prepared: Prepared, conditions: list[str], kernel: np.ndarray, show: Progress) -> OnlineModel:
    """A model with its initial weights."""
    w = jnp.asarray(to_groups(prepared.weight, prepared.network.group_size))
    learner = rls.init(config.rls, prepared.network, w, backend.from_config(config).update)
    return OnlineModel(config, run, prepared, learner, conditions, kernel, show)


def _earlier(path: str, run: Run) -> Run:
    """The run whose weights a model starts with; raises UserError if there is none for it."""
    first = Run.open(path)
    number = run.path.name if run.path.parent.name == "models" else None
    if number is None:
        return first
    if not (first.path / "models" / number / "config.yaml").exists():
        raise UserError(f"watch.warm_start={path}: has no model {number}; expected a smaller watch.models.")
    return Run.open(first.path / "models" / number)


def _warm(config: Config, earlier: Run, shape: tuple[int, int]) -> Prepared:
    """Network of an earlier run, with its trained weights as initial ones, and its targets; raises UserError if they do not fit."""
    prepared = reopen(config, earlier)
    if prepared.target.shape[:2] != shape:
        given = prepared.target.shape
        raise UserError(
            f"watch.warm_start={earlier.path}: has {given[0]} conditions of {given[1]} bins; expected {shape[0]} of {shape[1]}, as in"
            " watch.conditions and trial.duration."
        )
    _, group, w = checkpoint.chosen_weights(earlier, "auto", "watch.warm_start", prepared.network)
    log.info("Weights of %s after iteration %s.", earlier.path, group.attrs.get("iteration"))
    weight = from_groups(np.asarray(w), prepared.network.n_neurons)
    filled = np.nan_to_num(prepared.target, nan=float(np.nanmean(prepared.target)))
    return dataclasses.replace(prepared, weight=weight, target=filled)
