"""Zarr: all of a trained network in one flat group that xarray opens. Written in blocks, so a network may be of any size."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import zarr

from rlsnet.exports.neuron_parameters import neuron_parameters
from rlsnet.exports.simulated_spikes import spikes_by_trial
from rlsnet.exports.synapses import CLASSES, Synapses, class_numbers, plastic_synapses, static_ends, static_synapses, weights_by_class
from rlsnet.exports.trained_network import TrainedNetwork, of_all
from rlsnet.io import outputs, zarr_store
from rlsnet.model import exported_network

FILE_NAME = "trained.zarr"
FORMAT = exported_network.ZARR
HOW_TO_OPEN = "xarray.open_zarr('{out}', consolidated=False) opens it."
UNIT = "threshold*ms"


def is_export(path: Path) -> bool:
    """Whether a folder is an export to this format, without other files."""
    return outputs.is_store(path, FORMAT)


def write(trained: TrainedNetwork, path: Path) -> None:
    """Writes the store `path`."""
    attributes = {"format": FORMAT, "version": 1, **json.loads(json.dumps(trained.settings()))}
    root = zarr.create_group(str(path), attributes={**attributes, "weights_by_class": weights_by_class(trained)})
    _neurons(root, trained)
    _synapses(root, "static", static_synapses(trained), static_ends(trained), "presynaptic", trained)
    if trained.network.class_weight is not None and trained.network.n_edges:
        dims = ["pre_class", "post_class"]
        zarr_store.write(
            root, "static_class_weight", trained.network.class_weight, dims, units=UNIT, long_name="0 excitatory, 1 inhibitory"
        )
    indptr = np.concatenate([[0], np.cumsum(trained.n_plastic_inputs)])
    _synapses(root, "plastic", plastic_synapses(trained), indptr, "postsynaptic", trained)
    if trained.n_feedforward:
        name = "trained weight of a feed-forward neuron"
        zarr_store.write(root, "feedforward_weight", trained.feedforward_weight, ["neuron", "feedforward"], units=UNIT, long_name=name)
    if trained.has_spikes:
        _spikes(root, trained)
    zarr_store.seal(path)


def _neurons(root: zarr.Group, trained: TrainedNetwork) -> None:
    """Writes the parameters of the neurons, their mean rates, regions and sessions."""
    zarr_store.write(root, "neuron", np.arange(trained.n_neurons), ["neuron"])
    zarr_store.write(root, "condition", np.array(trained.conditions), ["condition"])
    zarr_store.write(root, "excitatory", trained.excitatory, ["neuron"])
    for name, (values, unit) in neuron_parameters(trained).items():
        zarr_store.write(root, name, values, ["neuron"], units=unit)
    tau = trained.tau_plastic[: trained.n_neurons]
    zarr_store.write(root, "tau_plastic", tau, ["neuron"], units="ms", long_name="decay time of the plastic currents from this neuron")
    if trained.network.v0 is not None:
        zarr_store.write(root, "v0", trained.network.v0, ["neuron"], units="threshold", long_name="voltage at the start of a trial")
    if trained.test is None:
        return
    tested = zarr_store.read(trained.test["neuron"])
    rate = np.full((len(trained.conditions), trained.n_neurons), np.nan, np.float32)
    rate[:, tested] = zarr_store.read(trained.test["rate"])
    zarr_store.write(root, "rate", rate, ["condition", "neuron"], units="Hz", long_name="mean rate in the test")
    for name, words in trained.unit_columns().items():
        zarr_store.write(root, name, of_all(words, tested, trained.n_neurons), ["neuron"], long_name=f"{name} of the recorded unit")


def _synapses(root: zarr.Group, kind: str, blocks: Iterable[Synapses], indptr: np.ndarray, sorted_by: str, trained: TrainedNetwork) -> None:
    """Writes synapses as coordinates (pre, post, weight, class), with the index of the first one of each neuron (compressed rows)."""
    meaning = f"synapses of {sorted_by} neuron j are {kind}_indptr[j] to {kind}_indptr[j+1]"
    zarr_store.write(root, f"{kind}_indptr", indptr, ["neuron_end"], long_name=meaning)
    dim, total = f"{kind}_synapse", int(indptr[-1])
    flags = {"flag_values": list(range(4)), "flag_meanings": " ".join(CLASSES)}
    about: dict[str, tuple[type, dict]] = {
        "pre": (np.int32, {"long_name": "presynaptic neuron"}),
        "post": (np.int32, {"long_name": "postsynaptic neuron"}),
        "weight": (trained.weight.dtype.type, {"units": UNIT, "long_name": "time integral of the current from one spike"}),
        "class": (np.uint8, flags),
    }
    if trained.delayed:
        about["delay"] = np.float32, {"units": "ms", "long_name": "time from a spike to the first step in which it acts"}
    arrays = {name: zarr_store.create(root, f"{kind}_{name}", (total,), dtype, [dim], **more) for name, (dtype, more) in about.items()}
    start = 0
    for block in blocks:
        part = slice(start, start := start + len(block.pre))
        columns = {**block._asdict(), "class": class_numbers(trained, block)}
        for name, array in arrays.items():
            array[part] = columns[name]
    assert start == total


def _spikes(root: zarr.Group, trained: TrainedNetwork) -> None:
    """Writes the spikes of the test, trial by trial."""
    assert trained.test is not None
    ends = zarr_store.read(trained.test["spikes/trial_indptr"])
    zarr_store.write(root, "spike_indptr", ends, ["trial_end"], long_name="spikes of trial k are spike_indptr[k] to spike_indptr[k+1]")
    condition = np.repeat(np.arange(len(trained.conditions)), trained.n_trials)
    zarr_store.write(root, "trial_condition", condition, ["trial"], long_name="number of the condition of a trial")
    time = zarr_store.create(root, "spike_time", (int(ends[-1]),), "float64", ["spike"], units="s", long_name=trained.clock.label)
    neuron = zarr_store.create(root, "spike_neuron", (int(ends[-1]),), "int32", ["spike"])
    start = 0
    for spikes in spikes_by_trial(trained):
        part = slice(start, start := start + len(spikes.step))
        time[part], neuron[part] = np.round(trained.clock.seconds(spikes.step * trained.config.trial.dt), 9), spikes.neuron
