"""npz: a folder of SciPy sparse matrices and NumPy arrays.

Two synapses of a pair stay two entries, which add up in products.

    static.npz        scipy.sparse.load_npz: CSR [N, N], row postsynaptic, column presynaptic neuron; threshold*ms
    plastic.npz       the same, of the trained weights
    feedforward.npz   the same [N, X], where there are feed-forward neurons
    neurons.npz       numpy.load: [N] each
    spikes.npz        numpy.load: condition, trial, time (ms from the start of the trial) and neuron of each spike of the test
    about.json        times, units, weights by class
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np

from rlsnet.export.trained import Synapses, Trained

NAME, MARKER = "npz", "about.json"
OPEN = "scipy.sparse.load_npz('{out}/plastic.npz') opens the trained weights, a row for each postsynaptic neuron."
BYTES = 40  # of memory for a synapse, while its matrix is made


def write(trained: Trained, path: Path) -> None:
    """Writes the folder `path`; raises UserError where the matrices do not fit in memory."""
    from scipy import sparse

    trained.check_memory("the matrices", BYTES * max(trained.network.n_edges, trained.n_plastic))
    path.mkdir(parents=True)
    indptr = np.asarray(trained.network.indptr, np.int64)[: trained.n + 1]
    static = _joined(list(trained.static()), trained)
    by_source = sparse.csc_array((static.weight, static.post, indptr), shape=(trained.n, trained.n))
    sparse.save_npz(path / "static.npz", by_source.tocsr())
    del static, by_source
    plastic, indptr = _joined(list(trained.plastic()), trained), np.concatenate([[0], np.cumsum(trained.plastic_counts())])
    sparse.save_npz(path / "plastic.npz", sparse.csr_array((plastic.weight, plastic.pre, indptr), shape=(trained.n, trained.n)))
    if trained.x:
        sparse.save_npz(path / "feedforward.npz", sparse.csr_array(trained.feedforward))
    values = {name: each for name, (each, _) in trained.values().items()} | {"tau_plastic": trained.tau_plastic[: trained.n]}
    if trained.network.v0 is not None:
        values["v0"] = np.asarray(trained.network.v0)
    np.savez(path / "neurons.npz", **cast(Any, {"excitatory": trained.excitatory, **values}))
    if trained.has_spikes:
        spikes, dt = trained.spikes(), trained.config.trial.dt
        condition, trial = np.divmod(spikes.trial, trained.n_trials)
        np.savez_compressed(path / "spikes.npz", condition=condition, trial=trial, time=spikes.step * dt, neuron=spikes.neuron)
    units = {name: unit for name, (_, unit) in trained.values().items()} | {"tau_plastic": "ms", "v0": "threshold"}
    units |= {"weight": "threshold*ms", "time": "ms"}
    about = {"format": "rlsnet-npz", "version": 1, **trained.settings(), "units": units, "weights_by_class": trained.weights_by_class()}
    (path / MARKER).write_text(json.dumps(about, indent=1))


def _joined(blocks: list[Synapses], trained: Trained) -> Synapses:
    """Blocks as one."""
    none = np.zeros(0, np.int32)
    blocks = blocks or [Synapses(none, none, np.zeros(0, trained.weight.dtype))]
    return Synapses(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))
