"""npz: a folder of SciPy sparse matrices and NumPy arrays.

Two synapses between the same two neurons are two entries of a matrix, which a product adds up.

    static.npz        scipy.sparse.load_npz: CSR [N, N], row postsynaptic, column presynaptic neuron; threshold*ms
    plastic.npz       the same for the trained weights
    feedforward.npz   the same [N, X], if there are feed-forward neurons
    neurons.npz       numpy.load: [N] each
    spikes.npz        numpy.load: condition, trial, time (s, of the recording; about.json) and neuron of each spike
    about.json        times, units, weights by class
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np

from rlsnet.exports.neuron_parameters import neuron_parameters
from rlsnet.exports.simulated_spikes import all_spikes
from rlsnet.exports.synapses import BYTES_PER_SYNAPSE, matrix, weights_by_class
from rlsnet.exports.trained_network import TrainedNetwork, check_memory, of_all
from rlsnet.io import outputs, zarr_store
from rlsnet.model import exported_network

FILE_NAME, MARKER, FORMAT = "npz", exported_network.ABOUT, exported_network.NPZ
FILES = (MARKER, *(f"{name}.npz" for name in ("static", "static_delay", "plastic", "feedforward", "neurons", "spikes")))
HOW_TO_OPEN = "scipy.sparse.load_npz('{out}/plastic.npz') opens the trained weights, a row for each postsynaptic neuron."


def is_export(path: Path) -> bool:
    """Whether a folder is an export to this format, without other files."""
    return outputs.read_json(path / MARKER).get("format") == FORMAT and outputs.has_only(path, FILES)


def write(trained: TrainedNetwork, path: Path) -> None:
    """Writes the folder `path`; raises UserError if the matrices do not fit in memory."""
    check_memory("the matrices", BYTES_PER_SYNAPSE * max(trained.network.n_edges, trained.n_plastic))
    path.mkdir(parents=True)
    _write_matrices(trained, path)
    parameters = neuron_parameters(trained)
    values = {name: each for name, (each, _) in parameters.items()} | {"tau_plastic": trained.tau_plastic[: trained.n_neurons]}
    if trained.network.v0 is not None:
        values["v0"] = np.asarray(trained.network.v0)
    if trained.test is not None and (columns := trained.unit_columns()):
        tested = zarr_store.read(trained.test["neuron"])
        values |= {name: of_all(words, tested, trained.n_neurons) for name, words in columns.items()}
    np.savez(path / "neurons.npz", **cast(Any, {"excitatory": trained.excitatory, **values}))
    if trained.has_spikes:
        spikes, dt = all_spikes(trained), trained.config.trial.dt
        condition, trial = np.divmod(spikes.trial, trained.n_trials)
        time = np.round(trained.clock.seconds(spikes.step * dt), 9)
        np.savez_compressed(path / "spikes.npz", condition=condition, trial=trial, time=time, neuron=spikes.neuron)
    units = {name: unit for name, (_, unit) in parameters.items()} | {"tau_plastic": "ms", "v0": "threshold"}
    units |= {"weight": "threshold*ms", "time": f"s, {trained.clock.label}"}
    classes = weights_by_class(trained)
    about = {"format": FORMAT, "version": 1, **trained.settings(), "trials": trained.n_trials, "units": units, "weights_by_class": classes}
    (path / MARKER).write_text(json.dumps(about, indent=1))


def _write_matrices(trained: TrainedNetwork, path: Path) -> None:
    """Writes static.npz, plastic.npz, feedforward.npz and, with delays, static_delay.npz (ms)."""
    from scipy import sparse

    for kind in ("static", "plastic"):
        sparse.save_npz(path / f"{kind}.npz", matrix(trained, kind))
    if trained.delayed:
        sparse.save_npz(path / "static_delay.npz", matrix(trained, "static", "delay"))
    if trained.n_feedforward:
        sparse.save_npz(path / "feedforward.npz", sparse.csr_array(trained.feedforward_weight))
