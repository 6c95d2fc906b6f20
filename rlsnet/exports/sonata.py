"""SONATA: nodes, edges and simulated spikes as the SONATA developer guide describes them, with the parameters of NEST.

    circuit_config.json                  paths of the files of the network
    simulation_config.json               simulator, duration and time step
    network/nodes.h5, node_types.csv     population `neurons`
    network/{static,plastic}_edges.h5, {static,plastic}_types.csv   populations of these names, sorted by target, with both indices
    components/cell_models/*.json        parameters of a node type: iaf_psc_exp_multisynapse as in the export to NEST
    components/synaptic_models/*.json    the receptor of an edge type
    spikes.h5, trials.csv                spikes of the test, trials one after the other, ms

syn_weight is a weight of NEST (weight/tau, times the factor that corrects for its exact steps); `weight` is the trained one in
threshold*ms. The parameters of each neuron are also in /nodes/neurons/0/dynamics_params, which libsonata reads and NEST does not; as
in network.zarr they are in 0/rlsnet, and name, type and region of an imported connectome in 0: `rlsnet import-network` reads these.
NEST reads the folder with SonataNetwork if it was built with HDF5. The package on PyPI was not; use to=nest with that one.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlsnet.errors import UserError
from rlsnet.exports import nest, script_folder
from rlsnet.exports.neuron_parameters import neuron_parameters
from rlsnet.exports.session_clock import SessionClock
from rlsnet.exports.synapses import Synapses, join_blocks, plastic_synapses, static_synapses
from rlsnet.exports.trained_network import TrainedNetwork, check_memory
from rlsnet.io import outputs

FILE_NAME, MARKER = "sonata", "circuit_config.json"
FILES = (
    *(MARKER, "simulation_config.json", "spikes.h5", "trials.csv", "network/nodes.h5", "network/*_edges.h5", "network/*_types.csv"),
    *("components/cell_models/[ei]_*.json", "components/synaptic_models/receptor_*.json"),
)
HOW_TO_OPEN = "libsonata.CircuitConfig.from_file('{out}/circuit_config.json') opens it."
BYTES_PER_SYNAPSE = 60  # of memory, while synapses are sorted
MAX_NODE_TYPES = 256  # NEST reads parameters by node type only
POPULATION = "neurons"


def is_export(path: Path) -> bool:
    """Whether a folder is an export to this format, without other files."""
    return "rlsnet" in outputs.read_json(path / MARKER) and outputs.has_only(path, FILES)


def write(trained: TrainedNetwork, path: Path) -> None:
    """Writes the folder `path`; raises UserError for a network that the SONATA models cannot express."""
    import h5py

    script_folder.check_model(trained, "SONATA", nest.MODELS)
    if trained.n_feedforward:
        raise UserError(
            "export to=sonata: expected no feed-forward neurons, as SONATA stores fixed spikes and not rates; use to=nest or to=brian2."
        )
    check_memory("sorting synapses", BYTES_PER_SYNAPSE * max(trained.network.n_edges, trained.n_plastic))
    settings = trained.settings()
    network, cells, models = path / "network", path / "components/cell_models", path / "components/synaptic_models"
    for folder in (network, cells, models):
        folder.mkdir(parents=True)
    taus, values = nest.receptor_taus(trained), nest.nest_parameters(trained)
    with h5py.File(network / "nodes.h5", "w") as file:
        _nodes(_root(file), trained, values, _node_types(trained, values, network, cells))
    kinds = {"static": static_synapses(trained)} if trained.network.n_edges else {}
    kinds |= {"plastic": plastic_synapses(trained)} if trained.n_plastic else {}
    for kind, blocks in kinds.items():
        _edge_types(kind, taus, None if trained.delayed else trained.config.trial.dt, network, models)
        with h5py.File(network / f"{kind}_edges.h5", "w") as file:
            _edges(_root(file), kind, _sorted(join_blocks(blocks, trained.weight.dtype)), taus, trained)
    if trained.has_spikes:
        _spikes(trained, path)
    _configs(trained, path, list(kinds), settings)


def _root(file: Any) -> Any:
    """An HDF5 file with the attributes that mark it as SONATA."""
    file.attrs["magic"], file.attrs["version"] = np.uint32(0x0A7A), np.array([0, 1], np.uint32)
    return file


def _node_types(trained: TrainedNetwork, values: dict[str, np.ndarray], network: Path, cells: Path) -> np.ndarray:
    """[N] type of each node, from 100 on, and the files that describe the types.

    Neurons of a class with the same parameters have one type; with more than MAX_NODE_TYPES different ones, all neurons of a class
    have one type with their means, and the parameters of each neuron are in nodes.h5 only.
    """
    columns = np.stack([~trained.excitatory, *values.values()], axis=1)
    rows, label = np.unique(columns, axis=0, return_inverse=True)
    if len(rows) > MAX_NODE_TYPES:
        label = (~trained.excitatory).astype(int)
        rows = np.stack([columns[label == k].mean(axis=0) if np.any(label == k) else columns[0] for k in (0, 1)])
    table = [["node_type_id", "model_type", "model_template", "dynamics_params", "ei"]]
    for number, row in enumerate(rows):
        name = f"{'i' if row[0] else 'e'}_{100 + number}.json"
        (cells / name).write_text(
            json.dumps({**dict(zip(values, row[1:].tolist(), strict=True)), "tau_syn": nest.nest_taus(trained)}, indent=1)
        )
        table.append([str(100 + number), "point_neuron", "nest:iaf_psc_exp_multisynapse", name, "i" if row[0] else "e"])
    _table(network / "node_types.csv", table)
    return 100 + label.reshape(-1)


def _table(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """Writes a table of types, with blanks between columns as in the SONATA guide."""
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=" ").writerows(rows)


def _nodes(file: Any, trained: TrainedNetwork, values: dict[str, np.ndarray], types: np.ndarray) -> None:
    """Writes the population of nodes."""
    import h5py

    n = trained.n_neurons
    nodes = file.create_group(f"nodes/{POPULATION}")
    nodes["node_id"], nodes["node_type_id"] = np.arange(n, dtype=np.uint64), types.astype(np.uint64)
    nodes["node_group_id"], nodes["node_group_index"] = np.zeros(n, np.uint64), np.arange(n, dtype=np.uint64)
    own = nodes.create_group("0")
    own["noise_sigma"] = neuron_parameters(trained)["noise_sigma"][0]
    own["synapse_class"] = (~trained.excitatory).astype(np.uint32)
    own.create_dataset("@library/synapse_class", data=["EXC", "INH"], dtype=h5py.string_dtype())
    for name, each in values.items():
        own[f"dynamics_params/{name}"] = each
    parameters = {"bias": trained.network.bias, **trained.network.parameters}
    if trained.network.v0 is not None:
        own["dynamics_params/V_m"] = np.asarray(trained.network.v0, np.float64)
        parameters["v0"] = trained.network.v0
    for name, parameter in parameters.items():
        own[f"rlsnet/{name}"] = np.asarray(parameter)[:n]
    for name, words in trained.labels.items():
        own.create_dataset(name, data=words.astype(object), dtype=h5py.string_dtype())


def _edge_types(kind: str, taus: Sequence[float], dt: float | None, network: Path, models: Path) -> None:
    """Writes the types of edges, with the delay `dt` (ms) unless each edge has its own.

    They are numbered as the receptors: static from E, static from I, then plastic ones by decay time.
    """
    delay = ([], []) if dt is None else (["delay"], [repr(dt)])
    table = [["edge_type_id", "model_template", *delay[0], "dynamics_params", "tau_syn"]]
    for receptor in (1, 2) if kind == "static" else range(3, len(taus) + 1):
        name = f"receptor_{receptor}.json"
        (models / name).write_text(json.dumps({"receptor_type": receptor}))
        table.append([str(receptor), "static_synapse", *delay[1], name, repr(taus[receptor - 1])])
    _table(network / f"{kind}_types.csv", table)


def _sorted(synapses: Synapses) -> Synapses:
    """Synapses sorted by target, then source."""
    order = np.lexsort((synapses.pre, synapses.post))
    return Synapses(*(array[order] for array in synapses))


def _edges(file: Any, kind: str, edges: Synapses, taus: Sequence[float], trained: TrainedNetwork) -> None:
    """Writes a population of edges, static or plastic, with both indices."""
    total = len(edges.pre)
    if kind == "static":
        receptor = np.where(trained.excitatory[edges.pre], 0, 1)
    else:
        receptor = 2 + np.searchsorted(taus[2:], trained.tau_plastic[edges.pre])
    group = file.create_group(f"edges/{kind}")
    columns: dict[str, np.ndarray] = {
        "source_node_id": edges.pre.astype(np.uint32),
        "target_node_id": edges.post.astype(np.uint32),
        "edge_type_id": (receptor + 1).astype(np.uint32),
        "edge_group_id": np.zeros(total, np.uint32),
        "edge_group_index": np.arange(total, dtype=np.uint32),
        "0/syn_weight": (edges.weight * nest.weight_factors(trained)[receptor, edges.post]).astype(edges.weight.dtype),
        "0/weight": edges.weight,
    }
    if trained.delayed:
        columns["0/delay"] = edges.delay
    for name, values in columns.items():
        group[name] = values  # not compressed: the HDF5 library in libsonata has no filters
    for end in ("source", "target"):
        group[f"{end}_node_id"].attrs["node_population"] = POPULATION
    group["0/weight"].attrs["units"] = "threshold*ms"
    for name, nodes in (("source_to_target", edges.pre), ("target_to_source", edges.post)):
        _index(group.create_group(f"indices/{name}"), nodes, trained.n_neurons)


def _index(group: Any, nodes: np.ndarray, n: int) -> None:
    """Writes the ranges of edges of each node: node_id_to_ranges [n, 2], indices into range_to_edge_id [ranges, 2]."""
    starts = np.flatnonzero(np.r_[True, nodes[1:] != nodes[:-1]])
    ends = np.r_[starts[1:], len(nodes)]
    owner = nodes[starts]
    order = np.argsort(owner, kind="stable")
    group["range_to_edge_id"] = np.stack([starts, ends], axis=1)[order].astype(np.uint64)
    bounds = np.searchsorted(owner[order], np.arange(n + 1))
    group["node_id_to_ranges"] = np.stack([bounds[:-1], bounds[1:]], axis=1).astype(np.uint64)


def _spikes(trained: TrainedNetwork, path: Path) -> None:
    """Writes spikes.h5, in order of time, and trials.csv with start and end of each trial."""
    import h5py

    clock = SessionClock.from_test(trained)
    order = np.argsort(clock.spike_time, kind="stable")
    with h5py.File(path / "spikes.h5", "w") as file:
        group = _root(file).create_group(f"spikes/{POPULATION}")
        kinds = h5py.enum_dtype({"none": 0, "by_id": 1, "by_time": 2}, basetype=np.uint8)
        group.attrs.create("sorting", 2, dtype=kinds)
        group["timestamps"], group["node_ids"] = clock.spike_time[order], clock.spike_neuron[order].astype(np.uint64)
        group["timestamps"].attrs["units"] = "ms"
    with (path / "trials.csv").open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["start_ms", "stop_ms", "condition", "trial", "stimulus_start_ms", "stimulus_stop_ms"])
        columns = clock.start, clock.stop, clock.condition, clock.trial, clock.stimulus
        for start, stop, condition, trial, stimulus in zip(*columns, strict=True):
            rows.writerow([start, stop, trained.conditions[condition], trial, *stimulus])


def _configs(trained: TrainedNetwork, path: Path, kinds: list[str], settings: dict[str, Any]) -> None:
    """Writes the two configuration files."""
    network = "$NETWORK_DIR"
    edges = [
        {"edges_file": f"{network}/{kind}_edges.h5", "edge_types_file": f"{network}/{kind}_types.csv", "populations": {kind: {}}}
        for kind in kinds
    ]
    populations = {POPULATION: {"type": "point_neuron"}}
    nodes = {"nodes_file": f"{network}/nodes.h5", "node_types_file": f"{network}/node_types.csv", "populations": populations}
    circuit = {
        "manifest": {"$BASE_DIR": ".", "$NETWORK_DIR": "$BASE_DIR/network", "$COMPONENTS_DIR": "$BASE_DIR/components"},
        "components": {
            "point_neuron_models_dir": "$COMPONENTS_DIR/cell_models",
            "synaptic_models_dir": "$COMPONENTS_DIR/synaptic_models",
        },
        "networks": {"nodes": [nodes], "edges": edges},
        "rlsnet": settings,
    }
    (path / MARKER).write_text(json.dumps(circuit, indent=1))
    trial = trained.config.trial
    run = {"tstart": 0.0, "tstop": trial.stim_off + trial.duration, "dt": trial.dt}
    simulation = {"manifest": {"$BASE_DIR": "."}, "network": f"$BASE_DIR/{MARKER}", "target_simulator": "NEST", "run": run}
    (path / "simulation_config.json").write_text(json.dumps(simulation, indent=1))
