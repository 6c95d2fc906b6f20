"""Training of a network from its initial weights or from the newest checkpoint, for the command train."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from rlsnet.config.quoting import typed_command
from rlsnet.config.schema import ChangedConfig, Config
from rlsnet.errors import UserError
from rlsnet.io.formatting import counted
from rlsnet.kernels import backend, device, processes
from rlsnet.learning import rls, targets
from rlsnet.learning.rls import Learner
from rlsnet.model import sharding
from rlsnet.model.connectivity import to_groups
from rlsnet.model.network import Network
from rlsnet.runs import checkpoint, trackers
from rlsnet.runs.folder import Run, resuming
from rlsnet.runs.progress import Progress
from rlsnet.workflows import loop
from rlsnet.workflows.prepare import Prepared, find_recording, prepare, reopen, save_network, start
from rlsnet.workflows.validation import Validation

log = logging.getLogger(__name__)


def with_rate_table(config: Config, network: Network) -> Network:
    """The network with the transfer functions that rls.regressors needs; raises UserError where they are required and do not exist."""
    if config.rls.regressors == "spikes":
        return network
    try:
        return dataclasses.replace(network, rate_table=targets.rate_table(config, network))
    except UserError as error:
        if config.rls.regressors == "rates":
            raise
        log.info("rls.regressors=auto: filtered spikes (%s)", error)
        return network


def _validation(config: Config, prepared: Prepared, placed: Network) -> Validation | None:
    """The validation of a run, whose network is `placed` on the devices; None if there is none, or if its recording no longer exists."""
    if not config.train.validates:
        return None
    if prepared.recording is None and prepared.rate is not None:
        log.warning("The recording was not found, so there is no validation; the best weights found so far are kept.")
        return None
    return Validation(config, prepared.network, prepared.target, prepared.recording, placed)


@contextlib.contextmanager
def saying_what_is_safe(run: Run) -> Iterator[None]:
    """Context in which an error of the system, such as a full disk, also says from which iteration the run can go on."""
    try:
        yield
    except OSError as error:
        done = run.iterations()
        safe = f"Iteration {done[-1]} is saved; {resuming(run.path)} continues from there" if done else "No checkpoint was written before"
        raise OSError(error.errno, f"{error.strerror or error}. {safe}", error.filename or str(run.path)) from error


def _done(config: Config, run: Run, resumed: bool) -> int:
    """Number of iterations that a run has; raises UserError unless it can be resumed or, if it is not `resumed`, started in its folder."""
    have = run.iterations()
    if not resumed:
        if have:
            raise UserError(f"{run.path}: contains a run; {resuming(run.path)} continues it; or choose another hydra.run.dir.")
        if run.is_simulation():
            raise UserError(f"{run.path}: contains a simulation, whose results training would remove; choose another hydra.run.dir.")
        return 0
    if not have:
        raise UserError(f"{run.path}: no complete checkpoint there; expected a run that can be resumed.")
    if config.train.iterations < have[-1]:
        raise UserError(f"train.iterations={config.train.iterations}: expected more than the {have[-1]} iterations that {run.path} has.")
    return have[-1]


def _starting_point(
    config: Config, run: Run, done: int | None, named: bool, show: Progress
) -> tuple[Network, Learner, Array, Array | None, Validation | None]:
    """What `loop.train` starts from, and nothing else that takes memory: network on the devices, learner, targets, rates, validation.

    Args:
      config: the experiment.
      run: the run folder, whose network is written or read.
      done: iterations of the checkpoint to start from; None: the initial weights.
      named: as for `find_recording`.
      show: display of progress.
    """
    devices = device.devices(config.engine)
    if len(devices) > 1 and config.rls.storage == "window":
        raise UserError("rls.storage=window: expected full or packed, as the window is not divided over devices (engine.devices).")

    def placed(prepared: Prepared) -> Network:
        return sharding.place(with_rate_table(config, prepared.network), devices)

    if done is not None:
        prepared = dataclasses.replace(reopen(config, run, learning=True), recording=find_recording(config, run, named))
        network = placed(prepared)
        learner = checkpoint.load_learner(run, done, network, config)
        run.cut_metrics(done)
        log.info("Resuming after iteration %d.", done)
    else:
        run.clear()
        prepared = prepare(config, show, learning=True, run=run)
        if not prepared.network.n_inputs:
            raise UserError("plastic.n_inputs=0: expected at least 2 to train; rlsnet simulate runs a network without plastic inputs.")
        if run.writes:
            save_network(run, prepared, learning=True)
        network = placed(prepared)
        w = sharding.of_groups(network, to_groups(prepared.weight, network.group_size))
        learner = rls.init(config.rls, network, w, backend.from_config(config).update)
    run.save_config(config)
    rate = None if prepared.rate is None else prepared.rate.astype(network.bias.dtype)
    recorded = None if rate is None else sharding.of_neurons(network, rate, np.nan)
    target = sharding.of_neurons(network, prepared.target, np.nan)
    return network, learner, target, recorded, _validation(config, prepared, network)


def run_training(config: Config, run: Run, resumed: bool, named: bool = False) -> int:
    """Trains a network from its initial weights, or from the newest checkpoint; arguments and errors as of `begun`.

    Returns:
      0, or the number of the signal that stopped the training.
    """
    stopped = 0
    with begun(config, run, resumed, named) as first:
        if first is not None:
            stopped = first.train(config, run)
    if first is not None and not stopped:
        log_done(run)
    return stopped


class Begun(NamedTuple):
    """What a training starts from: the arguments of `loop.train`."""

    network: Network
    learner: Learner
    target: Array
    recorded: Array | None
    validation: Validation | None
    track: Callable[[Mapping[str, Any], int], None]
    done: int
    show: Progress

    def train(self, config: Config, run: Run) -> int:
        """Trains the network; see `loop.train`."""
        given = self.network, self.learner, self.target, run, self.done, self.show
        return loop.train(config, *given, self.recorded, self.track, self.validation)


@contextlib.contextmanager
def begun(config: Config, run: Run, resumed: bool, named: bool) -> Iterator[Begun | None]:
    """Context of a training with what it starts from; None if a run that is continued has all its iterations.

    Args:
      config: the experiment.
      run: the run folder.
      resumed: whether to continue the run in the folder.
      named: as for `find_recording`.

    Raises:
      UserError: settings do not agree, or the folder contains a run or a simulation and `resumed` is false.
    """
    if isinstance(config.perturb, ChangedConfig):
        raise UserError(f"perturb={config.perturb.name}: is for test and simulate; expected none for train.")
    done = _done(config, run, resumed)
    if resumed and config.train.iterations == done:
        log.info("%s: all %d iterations are done; a larger train.iterations continues the run.", run.path, done)
        yield None
        return
    trackers.require(config.tracking)
    with contextlib.ExitStack() as stack:
        with processes.agreed("start the run"):
            stack.enter_context(run.claimed())
            show = stack.enter_context(start(config, run, "train"))
            done = _done(config, run, resumed)  # another process may have had the folder until now
            network, learner, target, recorded, validation = _starting_point(config, run, done if resumed else None, named, show)
        with trackers.tracked(config, run, done) as track, saying_what_is_safe(run):
            yield Begun(network, learner, target, recorded, validation, track, done, show)


def log_done(run: Run) -> None:
    """Says that the training of a run has ended, and what comes next."""
    log.info("Done: %s in %s. Next: %s", counted(run.iterations()[-1], "iteration"), run.path, typed_command("test", run.path))
