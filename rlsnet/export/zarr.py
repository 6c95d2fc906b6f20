"""Zarr: all of a trained network in one flat group, which xarray opens in one line. Written block by block, so of any size."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import zarr

from rlsnet import zarrio
from rlsnet.export.trained import CLASSES, Synapses, Trained

NAME, MARKER = "trained.zarr", "zarr.json"
FORMAT = "rlsnet-export"
OPEN = "xarray.open_zarr('{out}', consolidated=False) opens it."
UNIT = "threshold*ms"


def write(trained: Trained, path: Path) -> None:
    """Writes the store `path`."""
    attributes = {"format": FORMAT, "version": 1, **json.loads(json.dumps(trained.settings()))}
    root = zarr.create_group(str(path), attributes={**attributes, "weights_by_class": trained.weights_by_class()})
    _neurons(root, trained)
    indptr = np.asarray(trained.network.indptr, np.int64)[: trained.n + 1]
    _synapses(root, "static", trained.static(), indptr, "presynaptic", trained)
    if trained.network.class_weight is not None and trained.network.n_edges:
        dims = ["pre_class", "post_class"]
        zarrio.write(root, "static_class_weight", trained.network.class_weight, dims, units=UNIT, long_name="0 excitatory, 1 inhibitory")
    indptr = np.concatenate([[0], np.cumsum(trained.plastic_counts())])
    _synapses(root, "plastic", trained.plastic(), indptr, "postsynaptic", trained)
    if trained.x:
        name = "trained weight of a feed-forward neuron"
        zarrio.write(root, "feedforward_weight", trained.feedforward, ["neuron", "feedforward"], units=UNIT, long_name=name)
    if trained.has_spikes:
        _spikes(root, trained)


def _neurons(root: zarr.Group, trained: Trained) -> None:
    """Who the neurons are."""
    zarrio.write(root, "neuron", np.arange(trained.n), ["neuron"])
    zarrio.write(root, "condition", np.array(trained.conditions), ["condition"])
    zarrio.write(root, "excitatory", trained.excitatory, ["neuron"])
    for name, (values, unit) in trained.values().items():
        zarrio.write(root, name, values, ["neuron"], units=unit)
    tau = trained.tau_plastic[: trained.n]
    zarrio.write(root, "tau_plastic", tau, ["neuron"], units="ms", long_name="decay time of the plastic current this neuron makes")
    if trained.network.v0 is not None:
        zarrio.write(root, "v0", trained.network.v0, ["neuron"], units="threshold", long_name="voltage at the start of a trial")
    if trained.test is None:
        return
    kept = zarrio.read(trained.test["neuron"])
    rate = np.full((len(trained.conditions), trained.n), np.nan, np.float32)
    rate[:, kept] = zarrio.read(trained.test["rate"])
    zarrio.write(root, "rate", rate, ["condition", "neuron"], units="Hz", long_name="mean rate in the test")
    for name in ("region", "session"):
        if name in trained.test:
            words = np.full(trained.n, "", object)
            words[kept] = zarrio.read(trained.test[name])
            zarrio.write(root, name, words.astype(str), ["neuron"])


def _synapses(root: zarr.Group, kind: str, blocks: Iterable[Synapses], indptr: np.ndarray, sorted_by: str, trained: Trained) -> None:
    """Synapses as coordinates (pre, post, weight, class), and where those of a neuron start: compressed rows."""
    meaning = f"synapses of {sorted_by} neuron j are {kind}_indptr[j] to {kind}_indptr[j+1]"
    zarrio.write(root, f"{kind}_indptr", indptr, ["neuron_end"], long_name=meaning)
    dim, total = f"{kind}_synapse", int(indptr[-1])
    flags = {"flag_values": list(range(4)), "flag_meanings": " ".join(CLASSES)}
    about: dict[str, tuple[type, dict]] = {
        "pre": (np.int32, {"long_name": "presynaptic neuron"}),
        "post": (np.int32, {"long_name": "postsynaptic neuron"}),
        "weight": (trained.weight.dtype.type, {"units": UNIT, "long_name": "time integral of the current that a spike makes"}),
        "class": (np.uint8, flags),
    }
    arrays = {name: zarrio.create(root, f"{kind}_{name}", (total,), dtype, [dim], **more) for name, (dtype, more) in about.items()}
    start = 0
    for block in blocks:
        part = slice(start, start := start + len(block.pre))
        for name, values in {**block._asdict(), "class": trained.classes(block)}.items():
            arrays[name][part] = values
    assert start == total


def _spikes(root: zarr.Group, trained: Trained) -> None:
    """The spikes of the test, trial by trial."""
    assert trained.test is not None
    ends = zarrio.read(trained.test["spikes/trial_indptr"])
    zarrio.write(root, "spike_indptr", ends, ["trial_end"], long_name="spikes of trial k are spike_indptr[k] to spike_indptr[k+1]")
    condition = np.repeat(np.arange(len(trained.conditions)), trained.n_trials)
    zarrio.write(root, "trial_condition", condition, ["trial"], long_name="number of the condition of a trial")
    time = zarrio.create(root, "spike_time", (int(ends[-1]),), "float64", ["spike"], units="ms", long_name="from the start of its trial")
    neuron = zarrio.create(root, "spike_neuron", (int(ends[-1]),), "int32", ["spike"])
    start = 0
    for spikes in trained.spikes_by_trial():
        part = slice(start, start := start + len(spikes.step))
        time[part], neuron[part] = spikes.step * trained.config.trial.dt, spikes.neuron
