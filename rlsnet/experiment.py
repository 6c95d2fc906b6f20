"""The verbs: what `rlsnet train`, `simulate` and `test` do, from a configuration to a run folder."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import yaml

from rlsnet import engine, evaluate, memory, network, recordings, rls, store, targets, tracking, train, wiring, zarrio
from rlsnet.config import Config, UserError
from rlsnet.convert import to_dict
from rlsnet.network import Network
from rlsnet.progress import Progress
from rlsnet.recordings import Recording
from rlsnet.resources import Sampler
from rlsnet.simulate import Calibration
from rlsnet.store import Run

log = logging.getLogger(__name__)

# what may change in an existing run
MAY_CHANGE = tuple(
    "train. test. progress resume run sweep tracking recording.path plugins engine.platform engine.kernels rls.method".split()
)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What an experiment starts from.

    network: wiring and neurons.
    weight: [N, L] initial plastic weights.
    target: [C, M, N] currents.
    recording: the rates behind the target, if any.
    seconds: what the network and the targets took.
    """

    network: Network
    weight: np.ndarray
    target: np.ndarray
    recording: Recording | None
    seconds: tuple[float, float] = (0.0, 0.0)


def prepare(config: Config, show: Progress, learning: bool) -> Prepared:
    """Opens the recording, checks that all fits in memory, draws or loads the network, makes the targets."""
    load = config.network.load
    given_target = load is not None and "target" in zarrio.open_group(load, "network.load", network.FORMAT)
    recording = None
    if config.target.recorded is not None and not given_target:
        with show.counting("synthetic units") as tell:
            recording = recordings.for_config(config, log.info, tell)
    conditions = recording.n_conditions if recording else getattr(config.target, "n_conditions", 1)
    sizes = memory.Sizes.of(config, recording.n_units if recording else None, conditions)
    log.info(memory.check(sizes, learning))
    start = time.perf_counter()

    static_run: list[Calibration] = []

    def activity(net: Network) -> np.ndarray:
        static_run.append(targets.run_calibration(config, net))
        return np.asarray(static_run[0].n_spikes)

    net, weight, target = network.build(config, recording.n_units if recording else None, activity)
    members = np.bincount(np.arange(net.n_neurons) // net.group_size)
    edges = f"{net.n_edges:,} static and {int(np.sum(np.asarray(net.pre) >= 0, axis=1) @ members):,} plastic synapses"
    drawn = time.perf_counter()
    log.info("Network: %s neurons, %s (%.1f s).", f"{net.n_neurons:,}", edges, drawn - start)
    if target is not None:
        targets.check(target, f"{load}: target")
    else:
        with show.counting("targets") as tell:
            target = targets.make(config, net, recording, tell, *static_run)
        log.info("Targets: %d condition(s) of %d points (%.1f s).", *target.shape[:2], time.perf_counter() - drawn)
    network.check_conditions(net, len(target))
    seconds = drawn - start, time.perf_counter() - drawn
    return Prepared(net, weight, target.astype(net.bias.dtype, copy=False), recording, seconds)


def reopen(config: Config, run: Run) -> Prepared:
    """What a run started from, out of its own folder; the recording is not opened."""
    if not run.network.exists():
        raise UserError(f"{run.network}: not there; the run stopped before it had drawn its network and has to be started anew.")
    own = dataclasses.replace(config, network=dataclasses.replace(config.network, load=str(run.network), n_neurons=None))
    net, weight, target = network.build(own)
    if target is None:
        raise UserError(f"{run.network}: has no array target; it should be there, currents of shape [C, M, N].")
    return Prepared(net, weight, target, None)


def save_network(run: Run, ready: Prepared) -> None:
    """Writes network.zarr, with the path of the recording that the targets were made from."""
    source = {} if ready.recording is None else {"recording": str(ready.recording.path.resolve())}
    network.save(run.network, ready.network, ready.weight, ready.target, **source)


def find_recording(config: Config, run: Run) -> Recording | None:
    """The recording that a run's targets were made from, or None where there was none or it is not to be found."""
    made_from = zarrio.open_group(run.network, "run", network.FORMAT).attrs.get("recording")
    if made_from is None:
        return None
    for path in (config.recording.path, made_from):
        if path is not None and Path(path).exists():
            recording = recordings.open_recording(path, config.target.recorded or "rate")
            recordings.check_bins(recording, config.trial)
            return recording
    log.warning("The recording %s is not there; testing without rates. recording.path=... says where it is now.", made_from)
    return None


def start(config: Config, run: Run) -> Progress:
    """Sets up the engine and the display, and says where we are."""
    device = engine.setup(config.engine)
    log.info("Run folder %s, on %s in %s.", run.path, device, config.engine.precision)
    return Progress(config.progress)


def _sampled(show: Progress, config: Config, run: Run, verb: str) -> Sampler:
    """The sampling of resources beside a verb."""
    return Sampler(run.resources, config.train.resources_every, verb, lambda: show.iteration)


def run_training(config: Config, run: Run, resumed: bool) -> int:
    """Trains from the start, or on from the newest checkpoint; returns 0 or the number of the signal that stopped it."""
    done = run.iterations()[-1] if resumed else 0
    if resumed and config.train.iterations < done:
        raise UserError(f"train.iterations={config.train.iterations}: {run.path} has done {done} already; should be more than that.")
    if resumed and config.train.iterations == done:
        log.info("%s has done all %d iterations; set train.iterations to a larger number to go on.", run.path, done)
        return 0
    tracking.require(config.tracking)
    if not resumed and run.iterations():
        raise UserError(f"{run.path}: holds a run already; continue it with resume={run.path} or choose another hydra.run.dir.")
    with run.claimed(), _sampled(show := start(config, run), config, run, "train"):
        if resumed:
            ready = reopen(config, run)
            learner = run.load_learner(done, ready.network, config)
            run.cut_metrics(done)
            log.info("Resuming after iteration %d.", done)
        else:
            run.clear()
            ready = prepare(config, show, learning=True)
            if not ready.network.n_inputs:
                raise UserError("plastic.n_inputs=0: should be at least 2 to train; rlsnet simulate runs a network without plastic inputs.")
            save_network(run, ready)
            learner = rls.init(config.rls, ready.network, jnp.asarray(wiring.to_groups(ready.weight, ready.network.group_size)))
        run.save_config(config)
        with tracking.tracked(config, run, done) as track:
            stopped = train.train(config, ready.network, learner, jnp.asarray(ready.target), run, done, show, track)
    if not stopped:
        log.info("Done: %d iterations in %s. Next: rlsnet test run=%s", config.train.iterations, run.path, run.path)
    return stopped


def run_simulation(config: Config, run: Run) -> None:
    """Draws a network and runs it as it is, with its initial weights."""
    if run.iterations():
        raise UserError(f"{run.path}: holds a training run; choose another hydra.run.dir, or rlsnet test run={run.path}.")
    with run.claimed(), _sampled(show := start(config, run), config, run, "simulate"):
        ready = prepare(config, show, learning=False)
        save_network(run, ready)
        run.save_config(config)
        w = jnp.asarray(wiring.to_groups(ready.weight, ready.network.group_size))
        _evaluate(config, ready, w, run, show, 0)


def run_test(config: Config, run: Run) -> None:
    """Runs a trained network with frozen weights."""
    tracking.require(config.tracking)
    path = run.checkpoint(config.test.checkpoint)
    with _sampled(show := start(config, run), config, run, "test"):
        ready = dataclasses.replace(reopen(config, run), recording=find_recording(config, run))
        w = run.load_weights(path, ready.network)
        about = zarrio.open_group(path, "test.checkpoint", store.FORMAT).attrs
        if path.parent != run.checkpoints:
            _warn_of_other_wiring(path, about.get("config", {}), config)
        iteration = int(about.get("iteration", 0))
        _evaluate(config, ready, w, run, show, iteration)
        with tracking.tracked(config, run, max(run.iterations(), default=0)) as track:
            track(tracking.test_scores(zarrio.open_group(run.test, "run", evaluate.FORMAT)), iteration)


def _warn_of_other_wiring(path: Path, theirs: dict[str, Any], config: Config) -> None:
    """Says so where the network of another run's checkpoint was drawn otherwise: weights belong to their synapses."""
    ours = json.loads(json.dumps(to_dict(config)))
    differ = [key for key in ("seed", "network", "static", "plastic") if key in theirs and theirs[key] != ours[key]]
    if differ:
        log.warning("%s is of a network drawn otherwise (%s); here its weights are put on other synapses.", path, ", ".join(differ))


def _evaluate(config: Config, ready: Prepared, w: Any, run: Run, show: Progress, iteration: int) -> None:
    began = time.perf_counter()
    evaluate.evaluate(config, ready.network, w, ready.target, ready.recording, run, show, iteration=iteration)
    results = zarrio.open_group(run.test, "run", evaluate.FORMAT)
    excitatory = results["excitatory"][...]
    rate, correlation = results["rate"][...], results["current_correlation"][...]
    if config.test.neurons is not None:
        log.info("Of the %s neurons of test.neurons=%s:", f"{len(excitatory):,}", config.test.neurons)
    log.info("Rate %s Hz excitatory, %s Hz inhibitory.", _mean(rate[:, excitatory]), _mean(rate[:, ~excitatory]))
    log.info("Current correlation %s (%d undefined).", _mean(correlation), int(np.isnan(correlation).sum()))
    if "rate_correlation" in results:
        log.info("Rate correlation %s.", _mean(results["rate_correlation"][...]))
    log.info("Wrote %s (%.1f s). Next: rlsnet plot run=%s", run.test, time.perf_counter() - began, run.path)


def _mean(values: np.ndarray) -> str:
    """The mean of what is defined, in words."""
    return f"{np.nanmean(values):.3f}" if np.isfinite(values).any() else "undefined"


def resumed_values(saved: dict[str, Any], asked: dict[str, Any], where: Path) -> dict[str, Any]:
    """The settings of a run to be continued, those asked for; raises UserError where one may not change.

    Args:
      saved: nested settings of the run.
      asked: nested settings wanted now.
      where: the run folder, for the message.
    """
    before, now = _flat(saved), _flat(asked)
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        same = old == new or (isinstance(old, int | float) and isinstance(new, int | float) and float(old) == float(new))
        if not same and not key.startswith(MAY_CHANGE):
            raise UserError(f"{key}={yaml.safe_dump(new).split()[0]}: {where} was made with {old}; this cannot change in an existing run.")
    return asked


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
