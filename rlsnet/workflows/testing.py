"""Trials with frozen weights, for the commands simulate and test."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import time
from pathlib import Path
from typing import Any

from rlsnet.config.load import to_dict
from rlsnet.config.quoting import typed_command
from rlsnet.config.schema import ChangedConfig, Config, NoPerturbConfig, PopulationsConfig
from rlsnet.data.recordings import Recording
from rlsnet.errors import UserError
from rlsnet.io import zarr_store
from rlsnet.kernels import device, processes
from rlsnet.model import connectivity, population_edges, sharding
from rlsnet.model.network import Network
from rlsnet.runs import checkpoint, folder, trackers
from rlsnet.runs.folder import Run
from rlsnet.runs.progress import Progress
from rlsnet.workflows import evaluation, test_store, tested_settings
from rlsnet.workflows.prepare import Prepared, find_recording, is_other, prepare, reopen, save_network, start

log = logging.getLogger(__name__)


def run_simulation(config: Config, run: Run) -> list[Path]:
    """Simulates a network with its initial weights; returns the paths of the results.

    Raises:
      UserError: the folder contains a training run, or settings do not agree.
    """
    _refuse_training(run)
    with contextlib.ExitStack() as stack:
        with processes.agreed("start the simulation"):
            stack.enter_context(run.claimed())
            show = stack.enter_context(start(config, run, "simulate"))
            _refuse_training(run)  # which another process may have done until now
            prepared = prepare(config, show, learning=False)
            if run.writes:
                save_network(run, prepared, learning=False)
            run.save_config(config)
        placed = sharding.place(prepared.network, device.devices(config.engine))
        w = sharding.of_groups(placed, connectivity.to_groups(prepared.weight, placed.group_size))
        results = [_test(dataclasses.replace(config, perturb=NoPerturbConfig()), prepared, placed, w, run, show, 0)]
        if isinstance(config.perturb, ChangedConfig):
            results.append(_test(tested_settings.labelled(config, run), prepared, placed, w, run, show, 0))
    return results


def _refuse_training(run: Run) -> None:
    """Raises UserError if the folder contains a training run."""
    if run.iterations():
        raise UserError(f"{run.path}: contains a training run; choose another hydra.run.dir, or {typed_command('test', run.path)}.")


def run_test(config: Config, run: Run, named: bool = False) -> list[Path]:
    """Simulates a trained network with frozen weights; returns the paths of the results. `named` as for `find_recording`.

    Raises:
      UserError: no such checkpoint or recording, or settings do not agree.
    """
    trackers.require(config.tracking)
    chosen = run.checkpoint(config.test.checkpoint)  # must exist
    if processes.several():  # all take the one that the first process has chosen, while a training may go on
        own = chosen.parent == run.checkpoints
        told = processes.tell({"own": own, "path": chosen.name if own else str(chosen.absolute())} if run.writes else None)
        chosen = run.checkpoints / told["path"] if told["own"] else Path(told["path"])
        config = dataclasses.replace(config, test=dataclasses.replace(config.test, checkpoint=str(chosen)))
    config = tested_settings.labelled(config, run)
    with start(config, run, "test") as show:
        prepared = dataclasses.replace(reopen(config, run, learning=False), recording=find_recording(config, run, named))
        placed = sharding.place(prepared.network, device.devices(config.engine))
        path, stored, w = checkpoint.chosen_weights(run, config.test.checkpoint, "test.checkpoint", placed)
        about = stored.attrs
        if path.parent != run.checkpoints:
            _warn_of_other_connectivity(path, about.get("config", {}), config)
            _refuse_other_half(path, about.get("config", {}), prepared.recording)
        iteration = int(about.get("iteration", 0))
        result = _test(config, prepared, placed, w, run, show, iteration, trained=True)
        if run.writes and not isinstance(config.perturb, ChangedConfig):
            with trackers.tracked(config, run, max(run.iterations(), default=0)) as track:
                track(trackers.test_scores(test_store.open_test(run, run.test)), iteration)
    return [result]


def _warn_of_other_connectivity(path: Path, theirs: dict[str, Any], config: Config) -> None:
    """Warns if the checkpoint of another run was trained on a different connectivity: a weight belongs to its synapse."""
    ours = json.loads(json.dumps(to_dict(config)))
    differ = [key for key in ("seed", "network", "static", "plastic") if key in theirs and theirs[key] != ours[key]]
    if differ:
        log.warning(
            "%s was trained on a different connectivity (%s); here its weights belong to different synapses.", path, ", ".join(differ)
        )


def _refuse_other_half(path: Path, theirs: dict[str, Any], recording: Recording | None) -> None:
    """Raises UserError if the weights of another run may have been trained on the trials that are held out here."""
    half = None if recording is None else recording.half
    trained = theirs.get("recording", {}).get("half")
    if half is not None and trained != half:
        raise UserError(
            f"test.checkpoint={path}: was trained on {trained or 'all'} trials, and so on trials that are held out here; expected a"
            f" checkpoint that was trained with recording.half={half}."
        )


def _test(
    config: Config, prepared: Prepared, placed: Network, w: Any, run: Run, show: Progress, iteration: int, trained: bool = False
) -> Path:
    """Simulates the trials of a test, perturbed if config.perturb says so, and stores the results; returns their path.

    `placed` is the network on the devices. A network that was `trained` is compared with its initial weights too.
    """
    began = time.perf_counter()
    path = run.perturbed_result(config.perturb.result) if isinstance(config.perturb, ChangedConfig) else run.test
    weight = connectivity.to_groups(prepared.weight, placed.group_size).astype(w.dtype)
    initial = sharding.of_groups(placed, weight) if trained else None
    network, target, recording = prepared.network, prepared.target, prepared.recording
    about: dict[str, Any] = {"iteration": iteration, "cell_class": prepared.cell_class, folder.NETWORK: zarr_store.fingerprint(run.network)}
    about["settings"] = tested_settings.of_config(config)
    if isinstance(config.static, PopulationsConfig) and config.network.load is None:
        about["populations"] = population_edges.sizes(config.static)
    if trained and recording is not None and is_other(recording, run):
        about["other_recording"] = str(recording.path.resolve())
    table = prepared.table(config.seed)
    evaluation.evaluate(config, network, w, target, table, path if run.writes else None, show, initial, placed, **about)
    log.info("Wrote %s (%.1f s).", path, time.perf_counter() - began)
    return path
