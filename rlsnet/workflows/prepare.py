"""Start of a run: recording, network and targets, made from the configuration or read from the run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rlsnet.config.schema import Config, PopulationsConfig
from rlsnet.data import cell_classes, connection_rules, recording_source, recordings, statistics
from rlsnet.data.cell_classes import CellClasses
from rlsnet.data.neuron_table import NeuronTable
from rlsnet.data.recordings import Recording
from rlsnet.errors import UserError
from rlsnet.io import zarr_store
from rlsnet.io.formatting import counted
from rlsnet.kernels.device import configured
from rlsnet.learning import held_out, targets
from rlsnet.model import build, network_store
from rlsnet.model.network import Network
from rlsnet.model.network_store import StoredNetwork
from rlsnet.runs import disk_plan
from rlsnet.runs.folder import Run
from rlsnet.runs.memory_plan import PLAN, Sizes, check, plan
from rlsnet.runs.progress import Progress
from rlsnet.runs.resources import Sampler
from rlsnet.simulation.trial import Calibration
from rlsnet.workflows import interrupts, test_store

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Network and targets at the start of a run.

    network: neurons and connectivity.
    weight: [N, X+L] initial weights of feed-forward and plastic inputs, threshold*ms.
    target: [C, M, N] target currents, threshold units; NaN: not trained.
    recording: the recording that the target was made from, or None.
    rate: [C, N] Hz, mean recorded rates; or None.
    seconds: s, durations of making the network and the targets.
    memory_plan: bytes by purpose.
    cell_class: where the classes of the neurons come from, in words.
    trained: what is trained, in words; "" if all neurons and conditions are.
    labels: [N] texts of the neurons by name, such as name, type and region; {} where network.load has none.
    """

    network: Network
    weight: np.ndarray
    target: np.ndarray
    recording: Recording | None
    rate: np.ndarray | None = None
    seconds: tuple[float, float] = (0.0, 0.0)
    memory_plan: dict[str, int] = dataclasses.field(default_factory=dict)
    cell_class: str = ""
    trained: str = ""
    labels: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def table(self, seed: int) -> NeuronTable:
        """The neurons as a table; `seed` of the experiment."""
        return NeuronTable(np.asarray(self.network.excitatory), self.recording, seed, self.labels)


def prepare(config: Config, show: Progress, learning: bool, run: Run | None = None) -> Prepared:
    """Opens the recording, checks the plans of memory and disk, draws or loads the network, and makes the targets.

    Args:
      config: the experiment.
      show: display of progress.
      learning: whether the network will be trained.
      run: the run that will receive checkpoints, for the disk plan; None: none.

    Raises:
      UserError: settings or files do not agree, or the memory or the disk is too small.
    """
    stored = StoredNetwork(config.network.load)
    recording = _open_recording(config, stored, show)
    conditions = recording.n_conditions if recording else config.target.n_conditions
    n_units = recording.n_units if recording else None
    sizes_of = partial(Sizes.of, n_units=n_units, conditions=conditions, stored=stored)
    log.info(check(config, sizes_of, learning))
    sizes = sizes_of(config)
    if run is not None:
        log.info(disk_plan.check(config, sizes, run.path))
    start = time.perf_counter()
    calibration: list[Calibration] = []

    def activity(net: Network) -> np.ndarray:
        calibration.append(targets.run_calibration(config, net))
        return np.asarray(calibration[0].n_spikes)

    with show.busy("Drawing the network"):
        classes = _cell_classes(config, recording)
        places = None if recording is None else partial(connection_rules.regions_of, config, recording)
        net, weight, target = build.build(config, n_units, activity, None if classes is None else classes.excitatory, stored, places)
    cell_class = _source_of_classes(config, stored, net) if classes is None else classes.source
    log.info("Cell class: %s.", cell_class)
    drawn = time.perf_counter()
    log.info("Network: %s (%.1f s).", _counts(net), drawn - start)
    if target is not None:
        targets.check(target, f"{config.network.load}: target")
        target = np.array(target)
    else:
        with show.counting("targets") as advance:
            target = targets.make(config, net, recording, advance, *calibration)
        seconds_made = time.perf_counter() - drawn
        log.info("Targets: %s, %d learning points (%.1f s).", counted(len(target), "condition"), target.shape[1], seconds_made)
    build.check_conditions(net, len(target))
    rate = _mean_rates(config, net, recording)
    memory, labels = plan(sizes, learning), network_store.labels(stored.group)
    prepared = Prepared(net, weight, target, recording, rate, memory_plan=memory, cell_class=cell_class, labels=labels)
    prepared = _held_out(config, prepared)
    seconds = (drawn - start, time.perf_counter() - drawn)
    return dataclasses.replace(prepared, target=prepared.target.astype(net.bias.dtype, copy=False), seconds=seconds)


def _held_out(config: Config, prepared: Prepared) -> Prepared:
    """The same with NaN as target and mean rate of neurons and conditions that are not trained."""
    target, rate, recording = prepared.target, prepared.rate, prepared.recording
    names = [str(c) for c in range(len(target))] if recording is None else recording.conditions
    trained = held_out.choose(config, prepared.table(config.seed), names)
    if not trained.words:
        return prepared
    log.info("Trained: %s. The others are not trained; a test predicts their recorded rates.", trained.words)
    if test_store.has_random_inputs(config) and not trained.conditions.all():
        log.warning(
            "The inputs of untrained conditions are drawn at random, so nothing tells the network what these conditions are: only a test"
            " with perturb=cue or with perturb.compare predicts them."
        )
    target = held_out.without_held_out(target, trained)
    for name, values in zip(names, target, strict=True):
        if name in (config.train.conditions or names) and np.isnan(values).all():
            raise UserError(f"train.neurons: none of the neurons has a target in condition {name}; expected at least one.")
    if rate is not None:
        rate = np.where(trained.neurons & trained.conditions[:, None], rate, np.nan).astype(rate.dtype)
    return dataclasses.replace(prepared, target=target, rate=rate, trained=trained.words)


def _cell_classes(config: Config, recording: Recording | None) -> CellClasses | None:
    """Classes of neurons that reproduce recorded units; None where network.load has them, and without a recording."""
    if recording is None or config.network.load is not None:
        return None
    return cell_classes.of_network(recording, config, config.network.n_neurons or recording.n_units)


def _source_of_classes(config: Config, stored: StoredNetwork, net: Network) -> str:
    """Where the classes of a network come from that does not take them from a recording, in words; `stored` is network.load."""
    if stored.group is not None:
        words = network_store.cell_class(stored.group)
        return f"of {stored.path}" + (f", {words}" if words else "")
    if isinstance(config.static, PopulationsConfig):
        return f"of the populations of static.path={config.static.path}"
    return f"by index; the first {int(net.excitatory.sum()):,} neurons are excitatory (network.fraction_excitatory)"


def _open_recording(config: Config, stored: StoredNetwork, show: Progress) -> Recording | None:
    """The recording that the target is made from; None for other targets, and for a target stored in network.load, `stored`."""
    given_target = "target" in stored
    if given_target and config.recording.half is not None:
        raise UserError(f"recording.half={config.recording.half}: expected null, as {stored.path} contains a target.")
    if config.target.recorded is None or given_target:
        return None
    with show.counting("synthetic units") as advance:
        return recording_source.open_for_config(config, log.info, advance)


def _counts(net: Network) -> str:
    """Numbers of neurons and synapses, as text."""
    members, x = np.bincount(np.arange(net.n_neurons) // net.group_size), net.n_feedforward
    n_plastic = int(np.sum(np.asarray(net.pre)[:, x:] >= 0, axis=1) @ members)
    kinds = f"{net.n_edges:,} static and {n_plastic:,} plastic synapses"
    return f"{net.n_neurons:,} neurons, {kinds}" + (f", {net.n_neurons * x:,} from feed-forward neurons" if x else "")


def _mean_rates(config: Config, net: Network, recording: Recording | None) -> np.ndarray | None:
    """[C, N] float32 Hz, mean over time of the recorded rates that are trained on; NaN: unknown. None without recorded rates."""
    if recording is None or recording.kind != "rate":
        return None
    blocks = recording.stream(recording.choose(net.n_neurons, config.seed))
    return np.concatenate([statistics.mean_known(block.swapaxes(0, 1)) for block in blocks], axis=1).astype(np.float32)


def reopen(config: Config, run: Run, learning: bool | None = None) -> Prepared:
    """Network and targets from the folder of an existing run, without its recording.

    Args:
      config: the experiment.
      run: the run.
      learning: whether the network will be trained or tested, for which the memory must be enough; None: neither.

    Raises:
      UserError: they are missing, or the memory or, for training, the disk is too small.
    """
    if not run.network.exists():
        raise UserError(f"{run.network}: no such store; the run ended before its network was drawn, so start it again.")
    stored = StoredNetwork(str(run.network))
    group = stored.group
    assert group is not None
    zarr_store.check_all_complete(group)  # also one of an earlier version, without checksums
    own = dataclasses.replace(config, network=dataclasses.replace(config.network, load=str(run.network), n_neurons=None))
    if learning is not None:
        sizes_of = partial(Sizes.of, n_units=None, conditions=own.target.n_conditions, stored=stored)
        check(own, sizes_of, learning, drawn=True)
        if learning:
            disk_plan.check(config, sizes_of(own), run.path)
    net, weight, target = build.build(own, stored=stored)
    rates = group
    if run.targets.exists():
        rates = zarr_store.open_group(run.targets, "", network_store.TARGETS)
        target = zarr_store.read(zarr_store.array(rates, "target", ["C", config.trial.n_points, net.n_neurons], "f", str(run.targets)))
    if target is None:
        raise UserError(f"{run.network}: has no array target; expected currents of shape [C, M, N].")
    rate = zarr_store.read(rates["recorded_rate"]) if "recorded_rate" in rates else None
    trained, labels = str(group.attrs.get("trained", "")), network_store.labels(group)
    return Prepared(net, weight, target, None, rate, cell_class=network_store.cell_class(group), trained=trained, labels=labels)


def save_network(run: Run, prepared: Prepared, learning: bool, **more: Any) -> None:
    """Writes network.zarr, with the path, fingerprint and half of the recording, the memory plan of training, and `more` attributes."""
    recording = prepared.recording
    about: dict[str, Any] = {"cell_class": prepared.cell_class, **({PLAN: prepared.memory_plan} if learning else {})}
    about |= {"trained": prepared.trained} if prepared.trained else {}
    if recording is not None:
        about |= {"recording": str(recording.path.resolve()), "recording_half": recording.half}
        about["recording_fingerprint"] = recording.fingerprint
    network, weight = prepared.network, prepared.weight
    network_store.save(run.network, network, weight, prepared.target, prepared.rate, prepared.labels, **about, **more)


def find_recording(config: Config, run: Run, named: bool = False) -> Recording | None:
    """The recording that the targets of a run were made from; None if there was none, or if it is at none of the paths known for it.

    Another recording is taken only if the user names it for this command: with `named`, or by a recording.path that is not the saved one.

    Raises:
      UserError: no recording at the path that the user names, or a different one although the run holds out half of the trials.
    """
    about = zarr_store.open_group(run.network, "", network_store.FORMAT).attrs
    made_from, half, given = about.get("recording"), about.get("recording_half"), config.recording.path
    if made_from is None:
        return None
    kind = config.target.recorded or "rate"
    if given is not None and (named or given != run.saved_config().get("recording", {}).get("path")):
        recording = recordings.open_recording(given, kind).with_half(half)
        recordings.check_bins(recording, config.trial)
        other = is_other(recording, run)
        if other and half is not None:
            raise UserError(
                f"recording.path={recording.path}: is not the recording that {run.path} was trained on; expected that one, as the {half}"
                " trials of another recording may be different trials."
            )
        if other:
            log.warning("The recording %s is not the one that %s was trained on: its rates differ.", recording.path, run.path)
        return recording
    made_from = str(run.path / str(made_from))  # relative where it lies in the run folder
    found = [path for path in dict.fromkeys((made_from, given)) if path is not None and Path(path).exists()]
    for path in found:
        recording = recordings.open_recording(path, kind)
        if not is_other(recording, run):
            recordings.check_bins(recording, config.trial)
            return recording.with_half(half)
    state = f"{found[0]} is not the one that {run.path} was trained on" if found else f"{made_from} does not exist"
    log.warning("The recording %s; nothing is compared with its rates. If it was moved, recording.path=PATH names its new place.", state)
    return None


def is_other(recording: Recording, run: Run) -> bool:
    """Whether a recording is not the one that a run was trained on, by its fingerprint; runs of early versions have stored none."""
    stored = zarr_store.open_group(run.network, "", network_store.FORMAT).attrs.get("recording_fingerprint")
    return stored is not None and stored != recording.fingerprint


@contextlib.contextmanager
def start(config: Config, run: Run, command: str) -> Iterator[Progress]:
    """Context of a command: JAX configured, use of resources sampled, Ctrl-C remembered. Yields the display of progress."""
    show = Progress(config.progress)
    with interrupts.remembered(), configured(config.engine) as device:
        log.info("Run folder %s, on %s in %s.", run.path, device, config.engine.precision)
        with Sampler(run.resources, config.resources_every, command, lambda: show.iteration):
            yield show
