"""Training, simulation and test: from a configuration to the results in a run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from rlsnet import (
    engine,
    evaluate,
    loop,
    memory,
    network,
    recording_source,
    recordings,
    rls,
    statistics,
    store,
    targets,
    tracking,
    wiring,
    zarrio,
)
from rlsnet.config import Config, NoPerturbConfig, UserError, WindowConfig
from rlsnet.convert import to_dict
from rlsnet.network import Network
from rlsnet.progress import Progress
from rlsnet.recordings import Recording
from rlsnet.resources import Sampler
from rlsnet.store import Run
from rlsnet.trial import Calibration

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Network and targets with which an experiment starts.

    network: wiring and neurons.
    weight: [N, L] initial plastic weights.
    target: [C, M, N] currents.
    recording: the recording that the target was made from, or None.
    rate: [C, N] Hz, their means over time; or None.
    seconds: time that making the network and the targets took.
    memory_plan: bytes by purpose.
    """

    network: Network
    weight: np.ndarray
    target: np.ndarray
    recording: Recording | None
    rate: np.ndarray | None = None
    seconds: tuple[float, float] = (0.0, 0.0)
    memory_plan: dict[str, int] = dataclasses.field(default_factory=dict)


def prepare(config: Config, show: Progress, learning: bool) -> Prepared:
    """Opens the recording, checks that all fits in memory, draws or loads the network, makes the targets.

    Args:
      config: the experiment.
      show: display of progress.
      learning: whether the network is to be trained.

    Raises:
      UserError: settings, files or memory that do not fit.
    """
    recording = _open_recording(config, show)
    conditions = recording.n_conditions if recording else config.target.n_conditions
    n_units = recording.n_units if recording else None
    sizes = memory.Sizes.of(config, n_units, conditions)
    plan = memory.plan(sizes, learning)
    log.info(memory.check(sizes, plan))
    start = time.perf_counter()
    static_run: list[Calibration] = []

    def activity(net: Network) -> np.ndarray:
        static_run.append(targets.run_calibration(config, net))
        return np.asarray(static_run[0].n_spikes)

    net, weight, target = network.build(config, n_units, activity)
    drawn = time.perf_counter()
    log.info("Network: %s (%.1f s).", _counts(net), drawn - start)
    if target is not None:
        targets.check(target, f"{config.network.load}: target")
    else:
        with show.counting("targets") as advance:
            target = targets.make(config, net, recording, advance, *static_run)
        log.info("Targets: %d condition(s) of %d points (%.1f s).", *target.shape[:2], time.perf_counter() - drawn)
    network.check_conditions(net, len(target))
    seconds, rate = (drawn - start, time.perf_counter() - drawn), _mean_rates(config, net, recording)
    return Prepared(net, weight, target.astype(net.bias.dtype, copy=False), recording, rate, seconds, plan)


def _open_recording(config: Config, show: Progress) -> Recording | None:
    """The recording that the target is made from; None where there is none, or network.load brings its own target."""
    load = config.network.load
    given_target = load is not None and "target" in zarrio.open_group(load, "network.load", network.FORMAT)
    if given_target and config.recording.half is not None:
        raise UserError(f"recording.half={config.recording.half}: expected null, as {load} brings its own target.")
    if config.target.recorded is None or given_target:
        return None
    with show.counting("synthetic units") as advance:
        return recording_source.open_for_config(config, log.info, advance)


def _counts(net: Network) -> str:
    """Numbers of neurons and synapses, in words."""
    members = np.bincount(np.arange(net.n_neurons) // net.group_size)
    n_plastic = int(np.sum(np.asarray(net.pre) >= 0, axis=1) @ members)
    return f"{net.n_neurons:,} neurons, {net.n_edges:,} static and {n_plastic:,} plastic synapses"


def _mean_rates(config: Config, net: Network, recording: Recording | None) -> np.ndarray | None:
    """[C, N] float32 Hz, mean over time of the recorded rates of training, NaN where none is known."""
    if recording is None or recording.kind != "rate":
        return None
    blocks = recording.stream(recording.choose(net.n_neurons, config.seed))
    return np.concatenate([statistics.mean_known(block.swapaxes(0, 1)) for block in blocks], axis=1).astype(np.float32)


def reopen(config: Config, run: Run) -> Prepared:
    """Network and targets with which a run started, from its own folder; the recording is not opened."""
    if not run.network.exists():
        raise UserError(f"{run.network}: not there; the run stopped before it had drawn its network and has to be started anew.")
    own = dataclasses.replace(config, network=dataclasses.replace(config.network, load=str(run.network), n_neurons=None))
    net, weight, target = network.build(own)
    if target is None:
        raise UserError(f"{run.network}: has no array target; expected currents of shape [C, M, N].")
    stored = zarrio.open_group(run.network, "run", network.FORMAT).get("recorded_rate")
    return Prepared(net, weight, target, None, None if stored is None else zarrio.read(stored))


def save_network(run: Run, prepared: Prepared, learning: bool) -> None:
    """Writes network.zarr, with the path, fingerprint and half of the recording, and the memory plan of training."""
    recording = prepared.recording
    about: dict[str, Any] = {memory.PLAN: prepared.memory_plan} if learning else {}
    if recording is not None:
        about |= {"recording": str(recording.path.resolve()), "recording_half": recording.half}
        about["recording_fingerprint"] = recording.fingerprint
    network.save(run.network, prepared.network, prepared.weight, prepared.target, prepared.rate, **about)


def find_recording(config: Config, run: Run) -> Recording | None:
    """The recording that a run's targets were made from; None where there was none, or it is not where it was.

    Raises:
      UserError: there is none at recording.path, or another one while half of its trials are to be held out.
    """
    about = zarrio.open_group(run.network, "run", network.FORMAT).attrs
    made_from, half = about.get("recording"), about.get("recording_half")
    if made_from is None:
        return None
    given = config.recording.path if config.recording.path != run.saved_config().get("recording", {}).get("path") else None
    candidates = [path for path in (config.recording.path, str(made_from)) if path is not None and Path(path).exists()]
    if given is not None:
        candidates = [given]  # a mistake where it is not there
    if not candidates:
        log.warning("The recording %s is not there; testing without rates. recording.path=PATH gives its new place.", made_from)
        return None
    recording = recordings.open_recording(candidates[0], config.target.recorded or "rate").with_half(half)
    recordings.check_bins(recording, config.trial)
    if recording.fingerprint != about.get("recording_fingerprint", recording.fingerprint):
        if half is not None:
            raise UserError(
                f"recording.path={recording.path}: is not the recording that {run.path} was trained on; expected that one, as the {half}"
                " trials of another may be others."
            )
        log.warning("The recording %s is not the one that %s was trained on: its rates differ.", recording.path, run.path)
    return recording


@contextlib.contextmanager
def start(config: Config, run: Run, verb: str) -> Iterator[Progress]:
    """The engine, the sampling of resources and the display of progress, while a verb runs."""
    show = Progress(config.progress)
    with engine.configured(config.engine) as device:
        log.info("Run folder %s, on %s in %s.", run.path, device, config.engine.precision)
        with Sampler(run.resources, config.resources_every, verb, lambda: show.iteration):
            yield show


def run_training(config: Config, run: Run, resumed: bool) -> int:
    """Trains from the start, or from the newest checkpoint.

    Args:
      config: the experiment.
      run: the run folder.
      resumed: whether to continue the run that is there.

    Returns:
      0, or the number of the signal that stopped it.

    Raises:
      UserError: settings that do not fit, or a folder that holds a run already.
    """
    if isinstance(config.perturb, WindowConfig):
        raise UserError(f"perturb={config.perturb.name}: is for test and simulate; expected none for train.")
    done = run.iterations()[-1] if resumed else 0
    if resumed and config.train.iterations < done:
        raise UserError(f"train.iterations={config.train.iterations}: {run.path} has done {done} already; expected more than that.")
    if resumed and config.train.iterations == done:
        log.info("%s has done all %d iterations; set train.iterations to a larger number to go on.", run.path, done)
        return 0
    tracking.require(config.tracking)
    if not resumed and run.iterations():
        raise UserError(f"{run.path}: holds a run already; continue it with resume={run.path} or choose another hydra.run.dir.")
    with run.claimed(), start(config, run, "train") as show:
        if resumed:
            prepared = reopen(config, run)
            learner = store.load_learner(run, done, prepared.network, config)
            run.cut_metrics(done)
            log.info("Resuming after iteration %d.", done)
        else:
            run.clear()
            prepared = prepare(config, show, learning=True)
            if not prepared.network.n_inputs:
                raise UserError("plastic.n_inputs=0: expected at least 2 to train; rlsnet simulate runs a network without plastic inputs.")
            save_network(run, prepared, learning=True)
            w = jnp.asarray(wiring.to_groups(prepared.weight, prepared.network.group_size))
            learner = rls.init(config.rls, prepared.network, w)
        run.save_config(config)
        recorded = None if prepared.rate is None else jnp.asarray(prepared.rate, prepared.network.bias.dtype)
        with tracking.tracked(config, run, done) as track:
            target = jnp.asarray(prepared.target)
            stopped = loop.train(config, prepared.network, learner, target, run, done, show, recorded, track)
    if not stopped:
        log.info("Done: %d iterations in %s. Next: rlsnet test run=%s", config.train.iterations, run.path, run.path)
    return stopped


def run_simulation(config: Config, run: Run) -> list[Path]:
    """Draws a network and runs it with its initial weights; returns the paths of the results. Raises UserError."""
    if run.iterations():
        raise UserError(f"{run.path}: holds a training run; choose another hydra.run.dir, or rlsnet test run={run.path}.")
    with run.claimed(), start(config, run, "simulate") as show:
        prepared = prepare(config, show, learning=False)
        save_network(run, prepared, learning=False)
        run.save_config(config)
        w = jnp.asarray(wiring.to_groups(prepared.weight, prepared.network.group_size))
        results = [_test(dataclasses.replace(config, perturb=NoPerturbConfig()), prepared, w, run, show, 0)]
        if isinstance(config.perturb, WindowConfig):
            results.append(_test(config, prepared, w, run, show, 0))
    return results


def run_test(config: Config, run: Run) -> list[Path]:
    """Runs a trained network with frozen weights; returns the path of the results. Raises UserError."""
    tracking.require(config.tracking)
    path = run.checkpoint(config.test.checkpoint)
    with start(config, run, "test") as show:
        prepared = dataclasses.replace(reopen(config, run), recording=find_recording(config, run))
        w = store.load_weights(path, prepared.network)
        about = zarrio.open_group(path, "test.checkpoint", store.FORMAT).attrs
        if path.parent != run.checkpoints:
            _warn_of_other_wiring(path, about.get("config", {}), config)
            _refuse_other_half(path, about.get("config", {}), prepared.recording)
        iteration = int(about.get("iteration", 0))
        result = _test(config, prepared, w, run, show, iteration)
        if not isinstance(config.perturb, WindowConfig):
            with tracking.tracked(config, run, max(run.iterations(), default=0)) as track:
                track(tracking.test_scores(zarrio.open_group(run.test, "run", evaluate.FORMAT)), iteration)
    return [result]


def _warn_of_other_wiring(path: Path, theirs: dict[str, Any], config: Config) -> None:
    """Warns where another run's checkpoint was trained on a different connectivity: weights belong to their synapses."""
    ours = json.loads(json.dumps(to_dict(config)))
    differ = [key for key in ("seed", "network", "static", "plastic") if key in theirs and theirs[key] != ours[key]]
    if differ:
        log.warning("%s was trained on a different connectivity (%s); its weights are put on other synapses here.", path, ", ".join(differ))


def _refuse_other_half(path: Path, theirs: dict[str, Any], recording: Recording | None) -> None:
    """Raises UserError where weights of another run may have been trained on the trials that are held out here."""
    half = None if recording is None else recording.half
    trained = theirs.get("recording", {}).get("half")
    if half is not None and trained != half:
        raise UserError(
            f"test.checkpoint={path}: was trained on {trained or 'all'} trials, and here only {half} trials are not held out; expected one"
            f" trained with recording.half={half}."
        )


def _test(config: Config, prepared: Prepared, w: Any, run: Run, show: Progress, iteration: int) -> Path:
    """Runs the trials of the test, with the perturbation of the configuration if it has one, and stores the results; returns their path."""
    began = time.perf_counter()
    path = run.perturbed_result(config.perturb.result) if isinstance(config.perturb, WindowConfig) else run.test
    evaluate.evaluate(config, prepared.network, w, prepared.target, prepared.recording, path, show, iteration=iteration)
    log.info("Wrote %s (%.1f s).", path, time.perf_counter() - began)
    return path
