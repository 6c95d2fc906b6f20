"""The verbs: what `rlsnet train`, `simulate` and `test` do, from a configuration to a run folder."""

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
import yaml
import zarr

from rlsnet import (
    effects,
    engine,
    evaluate,
    memory,
    network,
    recordings,
    rls,
    scores,
    store,
    tables,
    targets,
    tracking,
    train,
    wiring,
    zarrio,
)
from rlsnet.config import Config, NoPerturbConfig, UserError, WindowConfig
from rlsnet.convert import flat, to_dict
from rlsnet.network import Network
from rlsnet.progress import Progress
from rlsnet.recordings import Recording
from rlsnet.resources import Sampler
from rlsnet.simulate import Calibration
from rlsnet.store import Run

log = logging.getLogger(__name__)

# what may change in an existing run
MAY_CHANGE = tuple(
    "train. test. perturb. progress resume run sweep tracking recording.path plugins engine.platform engine.kernels rls.method".split()
)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What an experiment starts from.

    network: wiring and neurons.
    weight: [N, L] initial plastic weights.
    target: [C, M, N] currents.
    recording: the rates behind the target, if any.
    rate: [C, N] Hz, their means over time; or None.
    seconds: what the network and the targets took.
    """

    network: Network
    weight: np.ndarray
    target: np.ndarray
    recording: Recording | None
    rate: np.ndarray | None = None
    seconds: tuple[float, float] = (0.0, 0.0)


def prepare(config: Config, show: Progress, learning: bool) -> Prepared:
    """Opens the recording, checks that all fits in memory, draws or loads the network, makes the targets."""
    load = config.network.load
    given_target = load is not None and "target" in zarrio.open_group(load, "network.load", network.FORMAT)
    recording = None
    if given_target and config.recording.half is not None:
        raise UserError(f"recording.half={config.recording.half}: expected null, as {load} brings its own target.")
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
    return Prepared(net, weight, target.astype(net.bias.dtype, copy=False), recording, _mean_rates(config, net, recording), seconds)


def _mean_rates(config: Config, net: Network, recording: Recording | None) -> np.ndarray | None:
    """[C, N] float32 Hz, mean over time of the recorded rates that are trained on, NaN where none is known."""
    if recording is None or recording.kind != "rate":
        return None
    blocks = recording.stream(recording.choose(net.n_neurons, config.seed))
    return np.concatenate([scores.mean_known(block.swapaxes(0, 1)) for block in blocks], axis=1).astype(np.float32)


def reopen(config: Config, run: Run) -> Prepared:
    """What a run started from, out of its own folder; the recording is not opened."""
    if not run.network.exists():
        raise UserError(f"{run.network}: not there; the run stopped before it had drawn its network and has to be started anew.")
    own = dataclasses.replace(config, network=dataclasses.replace(config.network, load=str(run.network), n_neurons=None))
    net, weight, target = network.build(own)
    if target is None:
        raise UserError(f"{run.network}: has no array target; it should be there, currents of shape [C, M, N].")
    stored = zarrio.open_group(run.network, "run", network.FORMAT).get("recorded_rate")
    return Prepared(net, weight, target, None, None if stored is None else zarrio.read(stored))


def save_network(run: Run, ready: Prepared) -> None:
    """Writes network.zarr, with the path of the recording that the targets were made from, its fingerprint and which half it was."""
    recording = ready.recording
    source: dict[str, str | None] = {}
    if recording is not None:
        source = {"recording": str(recording.path.resolve()), "recording_half": recording.half}
        source["recording_fingerprint"] = recording.fingerprint
    network.save(run.network, ready.network, ready.weight, ready.target, ready.rate, **source)


def find_recording(config: Config, run: Run) -> Recording | None:
    """The recording that a run's targets were made from, or None where there was none or it has moved without our knowing.

    Raises:
      UserError: it is not where the command line says, or is another one while half of its trials are to be held out.
    """
    about = zarrio.open_group(run.network, "run", network.FORMAT).attrs
    made_from, half = about.get("recording"), about.get("recording_half")
    if made_from is None:
        return None
    given = config.recording.path if config.recording.path != run.saved_config().get("recording", {}).get("path") else None
    candidates = [path for path in (config.recording.path, str(made_from)) if path is not None and Path(path).exists()]
    if given is not None:
        candidates = [given]  # which says so itself if it is not there
    if not candidates:
        log.warning("The recording %s is not there; testing without rates. recording.path=... says where it is now.", made_from)
        return None
    recording = recordings.open_recording(candidates[0], config.target.recorded or "rate").training_on(half)
    recordings.check_bins(recording, config.trial)
    if recording.fingerprint != about.get("recording_fingerprint", recording.fingerprint):
        if half is not None:
            raise UserError(
                f"recording.path={recording.path}: is not what {run.path} was trained on; should be, as its {half} trials may be others."
            )
        log.warning("The recording %s is not what %s was trained on: its rates differ.", recording.path, run.path)
    return recording


@contextlib.contextmanager
def start(config: Config, run: Run, verb: str) -> Iterator[Progress]:
    """The engine, the sampling of resources and the display of progress, while a verb runs."""
    show = Progress(config.progress)
    with engine.configured(config.engine) as device:
        log.info("Run folder %s, on %s in %s.", run.path, device, config.engine.precision)
        with Sampler(run.resources, config.train.resources_every, verb, lambda: show.iteration):
            yield show


def run_training(config: Config, run: Run, resumed: bool) -> int:
    """Trains from the start, or on from the newest checkpoint; returns 0 or the number of the signal that stopped it."""
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
            ready = reopen(config, run)
            learner = store.load_learner(run, done, ready.network, config)
            run.cut_metrics(done)
            log.info("Resuming after iteration %d.", done)
        else:
            run.clear()
            ready = prepare(config, show, learning=True)
            if not ready.network.n_inputs:
                raise UserError("plastic.n_inputs=0: expected at least 2 to train; rlsnet simulate runs a network without plastic inputs.")
            save_network(run, ready)
            learner = rls.init(config.rls, ready.network, jnp.asarray(wiring.to_groups(ready.weight, ready.network.group_size)))
        run.save_config(config)
        recorded = None if ready.rate is None else jnp.asarray(ready.rate, ready.network.bias.dtype)
        with tracking.tracked(config, run, done) as track:
            stopped = train.train(config, ready.network, learner, jnp.asarray(ready.target), run, done, show, recorded, track)
    if not stopped:
        log.info("Done: %d iterations in %s. Next: rlsnet test run=%s", config.train.iterations, run.path, run.path)
    return stopped


def run_simulation(config: Config, run: Run) -> None:
    """Draws a network and runs it as it is, with its initial weights."""
    if run.iterations():
        raise UserError(f"{run.path}: holds a training run; choose another hydra.run.dir, or rlsnet test run={run.path}.")
    with run.claimed(), start(config, run, "simulate") as show:
        ready = prepare(config, show, learning=False)
        save_network(run, ready)
        run.save_config(config)
        w = jnp.asarray(wiring.to_groups(ready.weight, ready.network.group_size))
        _evaluate(dataclasses.replace(config, perturb=NoPerturbConfig("none")), ready, w, run, show, 0)
        if isinstance(config.perturb, WindowConfig):
            _perturb(config, config.perturb, ready, w, run, show, 0)


def run_test(config: Config, run: Run) -> None:
    """Runs a trained network with frozen weights."""
    tracking.require(config.tracking)
    path = run.checkpoint(config.test.checkpoint)
    with start(config, run, "test") as show:
        ready = dataclasses.replace(reopen(config, run), recording=find_recording(config, run))
        w = store.load_weights(path, ready.network)
        about = zarrio.open_group(path, "test.checkpoint", store.FORMAT).attrs
        if path.parent != run.checkpoints:
            _warn_of_other_wiring(path, about.get("config", {}), config)
            _refuse_other_half(path, about.get("config", {}), ready.recording)
        iteration = int(about.get("iteration", 0))
        if isinstance(config.perturb, WindowConfig):
            _perturb(config, config.perturb, ready, w, run, show, iteration)
            return
        _evaluate(config, ready, w, run, show, iteration)
        with tracking.tracked(config, run, max(run.iterations(), default=0)) as track:
            track(tracking.test_scores(zarrio.open_group(run.test, "run", evaluate.FORMAT)), iteration)


def _warn_of_other_wiring(path: Path, theirs: dict[str, Any], config: Config) -> None:
    """Says so where the network of another run's checkpoint was drawn otherwise: weights belong to their synapses."""
    ours = json.loads(json.dumps(to_dict(config)))
    differ = [key for key in ("seed", "network", "static", "plastic") if key in theirs and theirs[key] != ours[key]]
    if differ:
        log.warning("%s is of a network drawn otherwise (%s); here its weights are put on other synapses.", path, ", ".join(differ))


def _refuse_other_half(path: Path, theirs: dict[str, Any], recording: Recording | None) -> None:
    """Raises UserError where weights of another run may have been trained on what counts as held out here."""
    half = None if recording is None else recording.half
    trained = theirs.get("recording", {}).get("half")
    if half is not None and trained != half:
        raise UserError(
            f"test.checkpoint={path}: was trained on {trained or 'all'} trials, and here only {half} trials are not held out; expected one"
            f" trained with recording.half={half}."
        )


def _evaluate(config: Config, ready: Prepared, w: Any, run: Run, show: Progress, iteration: int) -> None:
    began = time.perf_counter()
    evaluate.evaluate(config, ready.network, w, ready.target, ready.recording, run.test, show, iteration=iteration)
    results = zarrio.open_group(run.test, "run", evaluate.FORMAT)
    excitatory = results["excitatory"][...]
    rate, correlation = results["rate"][...], results["current_correlation"][...]
    if config.test.neurons is not None:
        log.info("Of the %s neurons of test.neurons=%s:", f"{len(excitatory):,}", config.test.neurons)
    log.info("Rate %s Hz excitatory, %s Hz inhibitory.", _mean(rate[:, excitatory]), _mean(rate[:, ~excitatory]))
    log.info("Current correlation %s (%d undefined).", _mean(correlation), int(np.isnan(correlation).sum()))
    if "rate_correlation" in results:
        log.info("Rate correlation %s%s.", _mean(results["rate_correlation"][...]), _heldout(results))
        log.info("%s", tables.of_scores(results.attrs["scores"]))
    log.info("Wrote %s (%.1f s). Next: rlsnet report %s", run.test, time.perf_counter() - began, run.path)


def _perturb(config: Config, settings: WindowConfig, ready: Prepared, w: Any, run: Run, show: Progress, iteration: int) -> None:
    """Runs the trials of the test with a perturbation, stores the result and says what changed."""
    began, path = time.perf_counter(), run.perturbed_result(settings.result)
    evaluate.evaluate(config, ready.network, w, ready.target, ready.recording, path, show, iteration=iteration)
    perturbed = zarrio.open_group(path, "run", evaluate.FORMAT)
    log.info("Perturbed: %s.", effects.in_words(perturbed))
    if not run.test.exists():
        log.warning("There is no %s to compare with; rlsnet test run=%s makes it.", run.test, run.path)
    else:
        test = zarrio.open_group(run.test, "run", evaluate.FORMAT)
        if differ := effects.differences(test, perturbed):
            log.warning("%s has %s, so more differs than the perturbation; run rlsnet test anew.", run.test, ", ".join(differ))
        log.info("%s", effects.rates_table(effects.Effect.of(test, perturbed)))
        log.info("%s", effects.scores_table(test, perturbed))
    log.info("Wrote %s (%.1f s). Next: rlsnet report %s", path, time.perf_counter() - began, run.path)


def _heldout(results: zarr.Group) -> str:
    """What was compared with what, in words."""
    trained = results.attrs["trained_on"]
    if trained == "all":
        return " with the trials trained on" + (", and none held out, as with recording.half=odd" if "reliability" in results else "")
    return f" with the {trained} trials, which were trained on, {_mean(results['heldout_correlation'][...])} with those held out"


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
    before, now = flat(saved), flat(asked)
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        same = old == new or (isinstance(old, int | float) and isinstance(new, int | float) and float(old) == float(new))
        if not same and not key.startswith(MAY_CHANGE):
            raise UserError(f"{key}={yaml.safe_dump(new).split()[0]}: {where} was made with {old}; this cannot change in an existing run.")
    return asked
