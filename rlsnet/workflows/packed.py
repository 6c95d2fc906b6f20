"""Several runs at once on one device: their networks are the parts of one joined network, and each keeps its own run folder.

A small network leaves most of a GPU idle, and on a CPU it loses its time between short operations. Runs whose equations and sizes are
equal are therefore computed together. Each has its own random numbers, conditions, metrics, validation, checkpoints and end, so a run has
the results that it has alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import operator
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rlsnet.config.load import flat, to_dict
from rlsnet.config.schema import Config
from rlsnet.io.formatting import byte_size, counted
from rlsnet.learning.covariance_forms import number_type
from rlsnet.learning.iteration import Iteration
from rlsnet.learning.rls import Learner
from rlsnet.model import joined
from rlsnet.runs import memory_plan
from rlsnet.runs.checkpoint import CheckpointWriter
from rlsnet.runs.folder import Run
from rlsnet.runs.progress import memory_used
from rlsnet.simulation.state import TRAINING, Dynamics, TrialKeys
from rlsnet.workflows import interrupts, loop, training

log = logging.getLogger(__name__)

COMPILED = ("trial", "neuron", "synapse", "noise", "stimulus", "feedforward", "rls", "engine")  # sections that a program depends on
PER_RUN = {"noise.sigma", "rls.penlambda", "rls.penmu", "rls.penlam_ff"}  # settings there that only change arrays
REPACKED_BELOW = 0.5  # share of unfinished runs at which the program is compiled anew, for these only


@dataclasses.dataclass(frozen=True)
class Job:
    """A training of a sweep.

    config, run, resumed, named: as of `training.run_training`.
    speaking: context in which what is logged belongs to this run.
    """

    config: Config
    run: Run
    resumed: bool
    named: bool
    speaking: Callable[[], contextlib.AbstractContextManager[None]]


def refusal(config: Config) -> str | None:
    """Why a run cannot be computed together with others, by its settings; None if it can."""
    engine = config.engine
    if config.train.trials_per_update > 1:
        return "train.trials_per_update is above 1"
    if config.rls.storage == "window":
        return "rls.storage is window"
    if number_type(config.rls, np.dtype(engine.precision)) != np.dtype(engine.precision):
        return "rls.precision has fewer bits than engine.precision"
    if engine.coordinator is not None:
        return "several processes compute it (engine.coordinator)"
    if config.tracking not in ("none", "tensorboard"):
        return f"tracking={config.tracking} follows one run at a time"
    if config.plugins:
        return "it has plugins"
    return None


def compiled_settings(config: Config) -> dict[str, str]:
    """The settings that must be equal in runs that are computed together, as text by key; others change only arrays, or nothing."""
    values = flat({name: value for name, value in to_dict(config).items() if name in COMPILED})
    return {key: json.dumps(value, default=str) for key, value in values.items() if key not in PER_RUN}


class _Member:
    """A run that is computed together with others.

    Attributes:
      first: what it started from.
      learner: its weights and P while no program has them, else None.
      done: iterations that it has.
      ended: whether it has stopped, for any reason.
      error: text of the error that ended it, or None.
    """

    def __init__(self, job: Job, first: training.Begun):
        self.job, self.first, self.done, self.ended = job, first, first.done, False
        self.learner: Learner | None = first.learner
        self.error: str | None = None
        self._contexts = contextlib.ExitStack()
        self._record: loop.Record | None = None
        self.conditions = loop.trained_conditions(job.config, first.target)
        self.keys = TrialKeys.create(job.config.seed, TRAINING)

    def follow(self, own: Callable[[Any], Any], working: int) -> None:
        """Records from now on what `own` gives of the joined learner; working: bytes as of `loop.Record`."""
        first, config, run = self.first, self.job.config, self.job.run
        if self._record is None:
            writer = self._contexts.enter_context(CheckpointWriter())
            self._bar: Any = self._contexts.enter_context(first.show.bar(config.train.iterations, self.done))
            self._record = loop.Record(config, first.network, run, writer, working, first.track, first.validation)
        self._record.own = own

    def condition(self) -> int:
        """Condition of the next iteration."""
        return self.conditions[loop.condition_of(self.job.config, len(self.conditions), self.done + 1)]

    def add(self, condition: int, seconds: float, outcome: Any, learner: Learner, stopped: int) -> None:
        """Records one more iteration; ends the run after its last one, or where it stops.

        Args:
          condition: index of its condition.
          seconds: its share of the duration.
          outcome: its metrics.
          learner: the joined learner after it.
          stopped: number of the signal that stops all runs, or 0.
        """
        assert self._record is not None
        config = self.job.config
        self.done += 1
        self.first.show.iteration = self.done
        line = self._record.add(self.done, condition, seconds, outcome, learner)
        self._record.save(self.done, learner, bool(stopped))
        self._bar.advance({**line, "memory": memory_used()})
        if stopped or self._record.ended or self.done == config.train.iterations:
            self.close()
            self._record.log_end(self.done, stopped)
            if not stopped:
                training.log_done(self.job.run)

    def close(self) -> None:
        """Ends the run, when all its checkpoints are written."""
        self.ended = True
        self._contexts.close()


@contextlib.contextmanager
def _of_one(member: _Member, words: Callable[[Exception], str]) -> Iterator[None]:
    """Context for one run, whose error ends this run only."""
    try:
        with member.job.speaking(), training.saying_what_is_safe(member.job.run):
            yield
    except Exception as error:
        member.error = words(error)
        with contextlib.suppress(Exception):  # of a checkpoint that could not be written either
            member.close()


def train_together(jobs: Sequence[Job], words: Callable[[Exception], str]) -> tuple[list[str | None], int]:
    """Trains runs with equal `compiled_settings`, those together whose networks allow it.

    Args:
      jobs: the runs.
      words: text of an error of a run.

    Returns:
      For each run the text of its error, or None; and the number of the signal that stopped the training, or 0.
    """
    errors: list[str | None] = [None] * len(jobs)
    members: dict[int, _Member] = {}
    with contextlib.ExitStack() as stack:
        for index, job in enumerate(jobs):
            try:
                with job.speaking():
                    first = stack.enter_context(training.begun(job.config, job.run, job.resumed, job.named))
                    if first is not None and not loop.ended_before(job.config, job.run, first.done):
                        members[index] = _Member(job, first)
            except Exception as error:
                errors[index] = words(error)
        stopped, alone = _train_members(list(members.values()), words), [member for member in members.values() if not member.ended]
        for member in [] if stopped else alone:
            with _of_one(member, words):
                stopped = member.first.train(member.job.config, member.job.run)
                if not stopped:
                    training.log_done(member.job.run)
            if stopped:
                break
    for index, member in members.items():
        errors[index] = member.error
    return errors, stopped


def _train_members(members: Sequence[_Member], words: Callable[[Exception], str]) -> int:
    """Trains those of the runs together that can be, kind by kind; returns the number of a signal that stopped it, or 0."""
    kinds: dict[Any, list[_Member]] = {}
    for member in members:
        reason = joined.refusal(member.first.network)
        if reason is not None:
            with member.job.speaking():
                log.info("Trained alone, as %s.", reason)
            continue
        shapes = member.first.target.shape, member.first.recorded is None, jax.tree.structure(member.first.learner)
        kinds.setdefault((joined.kind(member.first.network), shapes), []).append(member)
    for same in kinds.values():
        if len(same) == 1:
            with same[0].job.speaking():
                log.info("Trained alone, as no other run has a network of these sizes.")
        elif stopped := _train_kind(same, words):
            return stopped
    return 0


def _train_kind(members: list[_Member], words: Callable[[Exception], str]) -> int:
    """Trains runs of one kind of network together; returns the number of a signal that stopped it, or 0."""
    stopped = 0
    interrupts.check()
    with members[0].job.speaking(), loop.graceful_stop() as stop:  # what concerns all runs is in the log of the first
        while members and not stopped:
            iteration_of, learner = _joined(members)
            own = partial(joined.of_part, len(members))
            for part, member in enumerate(members):
                with _of_one(member, words):
                    member.follow(partial(own, part), memory_plan.temporary_bytes(iteration_of.executable))
            left = list(range(len(members)))
            while not stopped and len(left) > REPACKED_BELOW * len(members):
                learner, stopped = _iterate(members, iteration_of, learner, lambda: stop.signal, words)
                left = [part for part, member in enumerate(members) if not member.ended]
            for part in left:
                members[part].learner = own(part, learner)
            members = [members[part] for part in left]
    return stopped


def _joined(members: Sequence[_Member]) -> tuple[Iteration, Learner]:
    """The compiled iteration of the joined network of runs, and its learner, which takes the place of theirs."""
    configs, firsts = [member.job.config for member in members], [member.first for member in members]
    sigmas = [config.noise.sigma for config in configs]
    network = joined.join([first.network for first in firsts], [sigma if isinstance(sigma, float) else np.nan for sigma in sigmas])
    learner = jax.tree.map(_in_place_of, *[member.learner for member in members])
    for member in members:
        member.learner = None
    target = jnp.concatenate([first.target for first in firsts], axis=-1)
    rates = [first.recorded for first in firsts if first.recorded is not None]
    recorded = jnp.concatenate(rates, axis=-1) if rates else None
    keys = jax.tree.map(lambda *each: jnp.stack(each), *[member.keys for member in members])
    with members[0].first.show.busy("Compiling"):
        made = Iteration(Dynamics.from_config(configs[0]), configs[0].rls, network, learner, target, keys, recorded)
    size, others = memory_plan.compiled_bytes(made.executable), counted(len(members) - 1, "other run")
    memory = "" if size is None else f"; memory of all by XLA's count: {byte_size(size)}"
    for member in members:
        with member.job.speaking():
            log.info("Computed together with %s; compiled in %.1f s%s.", others, made.seconds, memory)
    return made, learner


def _in_place_of(*values: Array) -> Array:
    """Arrays one after the other in one array; theirs are freed."""
    if len(values) == 1:
        return values[0]
    together = jax.block_until_ready(jnp.concatenate(values))
    for each in values:
        each.delete()
    return together


def _iterate(
    members: Sequence[_Member], iteration_of: Iteration, learner: Learner, signal: Callable[[], int], words: Callable[[Exception], str]
) -> tuple[Learner, int]:
    """The joined learner after one more iteration of all runs, of which those that have not ended record theirs.

    Also the number of the signal that has stopped all of them, or 0.
    """
    start, conditions = time.perf_counter(), [0 if member.ended else member.condition() for member in members]
    numbers = np.array([member.done for member in members], np.int32)
    learner, outcomes = iteration_of(learner, numbers, np.array(conditions, np.int32))
    outcomes = jax.device_get(outcomes)
    active = [part for part, member in enumerate(members) if not member.ended]
    seconds, stopped = (time.perf_counter() - start) / len(active), signal()
    for part in active:
        with _of_one(members[part], words):
            outcome = jax.tree.map(operator.itemgetter(part), outcomes)
            members[part].add(conditions[part], seconds, outcome, learner, stopped)
    return learner, stopped
