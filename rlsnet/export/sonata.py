"""SONATA: nodes, edges and simulated spikes as the SONATA developer guide describes them, parametrised for NEST.

    circuit_config.json                  where the rest is
    simulation_config.json               what to run, how long, with which step
    network/nodes.h5, node_types.csv     population `neurons`
    network/{static,plastic}_edges.h5, {static,plastic}_types.csv   populations of these names, sorted by target, with both indices
    components/cell_models/*.json        parameters of a node type: iaf_psc_exp_multisynapse as in the export to NEST
    components/synaptic_models/*.json    the receptor of an edge type
    spikes.h5, trials.csv                spikes of the test, trials one after the other, ms

syn_weight is what NEST takes (weight/tau, with the factor that makes up for its exact steps); `weight` is threshold*ms as trained.
Neurons' values are at /nodes/neurons/0/dynamics_params too, which libsonata reads and NEST does not. NEST reads it with
SonataNetwork where it was built with HDF5; the package from PyPI was not, and to=nest writes a script for it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlsnet.config import UserError
from rlsnet.export import nest, simulator
from rlsnet.export.timeline import Timeline
from rlsnet.export.trained import Synapses, Trained

NAME, MARKER = "sonata", "circuit_config.json"
OPEN = "libsonata.CircuitConfig.from_file('{out}/circuit_config.json') opens it."
BYTES = 60  # of memory for a synapse, while it is sorted
MOST_TYPES = 256  # of nodes; NEST reads parameters by type only
POPULATION = "neurons"


def write(trained: Trained, path: Path) -> None:
    """Writes the folder `path`; raises UserError for what SONATA's models cannot express."""
    import h5py

    simulator.check_model(trained, "SONATA", nest.MODELS)
    if trained.x:
        raise UserError(
            "export to=sonata: feed-forward neurons cannot go there, as they have rates and no fixed spikes; to=nest and to=brian2 can."
        )
    trained.check_memory("sorting synapses", BYTES * max(trained.network.n_edges, trained.n_plastic))
    settings = trained.settings()
    network, cells, models = path / "network", path / "components/cell_models", path / "components/synaptic_models"
    for folder in (network, cells, models):
        folder.mkdir(parents=True)
    taus, values = nest.taus(trained), nest.parameters(trained)
    with h5py.File(network / "nodes.h5", "w") as file:
        _nodes(_root(file), trained, values, _node_types(trained, values, network, cells))
    kinds = {"static": trained.static(), "plastic": trained.plastic()}
    kinds = {kind: blocks for kind, blocks in kinds.items() if (trained.network.n_edges if kind == "static" else trained.n_plastic)}
    for kind, blocks in kinds.items():
        _edge_types(kind, taus, trained.config.trial.dt, network, models)
        with h5py.File(network / f"{kind}_edges.h5", "w") as file:
            _edges(_root(file), kind, _joined(list(blocks)), taus, trained)
    if trained.has_spikes:
        _spikes(trained, path)
    _configs(trained, path, list(kinds), settings)


def _root(file: Any) -> Any:
    """A file with the attributes that say what it is."""
    file.attrs["magic"], file.attrs["version"] = np.uint32(0x0A7A), np.array([0, 1], np.uint32)
    return file


def _node_types(trained: Trained, values: dict[str, np.ndarray], network: Path, cells: Path) -> np.ndarray:
    """[N] type of each node, 100 and up: neurons of one class with the same values, or of one class where there are too many."""
    columns = np.stack([~trained.excitatory, *values.values()], axis=1)
    rows, label = np.unique(columns, axis=0, return_inverse=True)
    if len(rows) > MOST_TYPES:  # values of each neuron are in nodes.h5 only; types have the means
        label = (~trained.excitatory).astype(int)
        rows = np.stack([columns[label == k].mean(axis=0) if np.any(label == k) else columns[0] for k in (0, 1)])
    table = [["node_type_id", "model_type", "model_template", "dynamics_params", "ei"]]
    for number, row in enumerate(rows):
        name = f"{'i' if row[0] else 'e'}_{100 + number}.json"
        (cells / name).write_text(
            json.dumps({**dict(zip(values, row[1:].tolist(), strict=True)), "tau_syn": nest.tau_syn(trained)}, indent=1)
        )
        table.append([str(100 + number), "point_neuron", "nest:iaf_psc_exp_multisynapse", name, "i" if row[0] else "e"])
    _table(network / "node_types.csv", table)
    return 100 + label.reshape(-1)


def _table(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """A table of types, with blanks between columns as the guide wants it."""
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=" ").writerows(rows)


def _nodes(file: Any, trained: Trained, values: dict[str, np.ndarray], types: np.ndarray) -> None:
    """The population of nodes."""
    import h5py

    n = trained.n
    nodes = file.create_group(f"nodes/{POPULATION}")
    nodes["node_id"], nodes["node_type_id"] = np.arange(n, dtype=np.uint64), types.astype(np.uint64)
    nodes["node_group_id"], nodes["node_group_index"] = np.zeros(n, np.uint64), np.arange(n, dtype=np.uint64)
    own = nodes.create_group("0")
    own["noise_sigma"] = trained.values()["noise_sigma"][0]
    own["synapse_class"] = (~trained.excitatory).astype(np.uint32)
    own.create_dataset("@library/synapse_class", data=["EXC", "INH"], dtype=h5py.string_dtype())
    for name, each in values.items():
        own[f"dynamics_params/{name}"] = each
    if trained.network.v0 is not None:
        own["dynamics_params/V_m"] = np.asarray(trained.network.v0, np.float64)


def _edge_types(kind: str, taus: Sequence[float], dt: float, network: Path, models: Path) -> None:
    """Types of edges, numbered like the receptors that they reach: static from E and from I, then plastic ones by decay time."""
    table = [["edge_type_id", "model_template", "delay", "dynamics_params", "tau_syn"]]
    for receptor in (1, 2) if kind == "static" else range(3, len(taus) + 1):
        name = f"receptor_{receptor}.json"
        (models / name).write_text(json.dumps({"receptor_type": receptor}))
        table.append([str(receptor), "static_synapse", repr(dt), name, repr(taus[receptor - 1])])
    _table(network / f"{kind}_types.csv", table)


def _joined(blocks: list[Synapses]) -> Synapses:
    """Blocks as one, sorted by target, then source."""
    pre, post, weight = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    order = np.lexsort((pre, post))
    return Synapses(pre[order], post[order], weight[order])


def _edges(file: Any, kind: str, edges: Synapses, taus: Sequence[float], trained: Trained) -> None:
    """A population of edges."""
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
        "0/syn_weight": (edges.weight * nest.gains(trained)[receptor, edges.post]).astype(edges.weight.dtype),
        "0/weight": edges.weight,
    }
    for name, values in columns.items():
        group[name] = values  # not compressed: libsonata's HDF5 has no filters
    for end in ("source", "target"):
        group[f"{end}_node_id"].attrs["node_population"] = POPULATION
    group["0/weight"].attrs["units"] = "threshold*ms"
    for name, nodes in (("source_to_target", edges.pre), ("target_to_source", edges.post)):
        _index(group.create_group(f"indices/{name}"), nodes, trained.n)


def _index(group: Any, nodes: np.ndarray, n: int) -> None:
    """Which ranges of edges belong to which node: node_id_to_ranges [n, 2] into range_to_edge_id [ranges, 2]."""
    starts = np.flatnonzero(np.r_[True, nodes[1:] != nodes[:-1]])
    ends = np.r_[starts[1:], len(nodes)]
    owner = nodes[starts]
    order = np.argsort(owner, kind="stable")
    group["range_to_edge_id"] = np.stack([starts, ends], axis=1)[order].astype(np.uint64)
    bounds = np.searchsorted(owner[order], np.arange(n + 1))
    group["node_id_to_ranges"] = np.stack([bounds[:-1], bounds[1:]], axis=1).astype(np.uint64)


def _spikes(trained: Trained, path: Path) -> None:
    """spikes.h5, in order of time, and when each trial was."""
    import h5py

    line = Timeline.of(trained)
    order = np.argsort(line.time, kind="stable")
    with h5py.File(path / "spikes.h5", "w") as file:
        group = _root(file).create_group(f"spikes/{POPULATION}")
        kinds = h5py.enum_dtype({"none": 0, "by_id": 1, "by_time": 2}, basetype=np.uint8)
        group.attrs.create("sorting", 2, dtype=kinds)
        group["timestamps"], group["node_ids"] = line.time[order], line.neuron[order].astype(np.uint64)
        group["timestamps"].attrs["units"] = "ms"
    with (path / "trials.csv").open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["start_ms", "stop_ms", "condition", "trial", "stimulus_start_ms", "stimulus_stop_ms"])
        for start, stop, condition, trial, window in zip(line.start, line.stop, line.condition, line.trial, line.stimulus, strict=True):
            rows.writerow([start, stop, trained.conditions[condition], trial, *window])


def _configs(trained: Trained, path: Path, kinds: list[str], settings: dict[str, Any]) -> None:
    """The two configuration files."""
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
