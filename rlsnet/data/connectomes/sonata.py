"""Wiring from SONATA: nodes and edges in HDF5 files, with their tables of types, as the SONATA developer guide describes them.

A source is a circuit_config.json, a folder with one, or a folder with nodes and edges (*nodes*.h5, *edges*.h5, and their tables of
types). An attribute of a node or an edge is looked for in its group, then in the table of types. Of edges: `weight` in threshold*ms as
rlsnet exports it, else syn_weight, times nsyns; delay (ms). Of nodes: synapse_class or ei for the sign, a type and a region. Names
are node_id, or POPULATION:node_id of several populations. Virtual nodes, which send given spikes, and electrical edges are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rlsnet.data import query
from rlsnet.data.connectomes import signs
from rlsnet.data.connectomes.edge_tables import ELECTRICAL
from rlsnet.data.connectomes.options import Options
from rlsnet.data.connectomes.sonata_files import Attributes, Circuit, CircuitFile, circuit, is_folder
from rlsnet.data.connectomes.wiring import Wiring
from rlsnet.data.formats import hdf5
from rlsnet.errors import UserError
from rlsnet.io import outputs

PARAMETERS = "rlsnet"  # group of the nodes in an export of rlsnet, with parameters as in network.zarr
PLASTIC = "plastic"  # population of edges in an export of rlsnet that were plastic
NODES = {
    "type": ("type", "cell_type", "pop_name", "model_name", "mtype", "etype"),
    "region": ("region", "location", "brain_region"),
    "sign": ("synapse_class", "ei", "ei_type"),
}  # attributes of nodes


class _Population(NamedTuple):
    """A population of nodes.

    ids: [n] node_id.
    first: index of its first node among those of all populations.
    attributes: [n] by name.
    parameters: [n] by name, as in network.zarr.
    """

    ids: np.ndarray
    first: int
    attributes: dict[str, np.ndarray]
    parameters: dict[str, np.ndarray]


class _Edges(NamedTuple):
    """A population of edges: arrays as of `Wiring`, [E] each; `known`: whether these are weights, numbers of synapses, or neither."""

    name: str
    pre: np.ndarray
    post: np.ndarray
    type_id: np.ndarray
    weight: np.ndarray
    known: str
    delay: np.ndarray | None
    electrical: np.ndarray


def matches(path: Path) -> bool:
    """Whether a source is a circuit configuration, or a folder with a circuit."""
    return is_folder(path) if path.is_dir() else path.suffix.lower() == ".json"


def read(path: Path, options: Options) -> Wiring:
    """Wiring of a circuit; raises UserError if files, populations or attributes are missing or damaged, or do not fit each other."""
    found = circuit(path)
    nodes = _all_nodes(found, options)
    edges = [part for each in found.edges for part in _edges(each, nodes, options)]
    if not nodes or not edges:
        raise UserError(f"{path}: has no {'edges' if nodes else 'nodes'}; expected those of a circuit in SONATA.")
    if len({part.known for part in edges}) > 1:
        what = ", ".join(f"{part.name}: {part.known}" for part in edges)
        raise UserError(f"{path}: populations of edges differ in what gives their weights ({what}); expected the same attribute in all.")
    columns = {key: _column(nodes, NODES[key], getattr(options, key), key) for key in ("type", "region")}
    columns |= {name: _column(nodes, (), name, "columns") for name in options.columns or ()}
    sign = _column(nodes, NODES["sign"], options.sign, "sign")
    weight, own = np.concatenate([part.weight for part in edges]), found.about.get("rlsnet")
    sizes = [len(part.pre) for part in edges]
    population = np.repeat(np.array([part.name for part in edges], object), sizes)
    signed = bool(np.any(weight < 0))
    wiring = Wiring(
        name=_names(nodes),
        columns={name: column for name, column in columns.items() if column is not None},
        pre=np.concatenate([part.pre for part in edges]),
        post=np.concatenate([part.post for part in edges]),
        table={"population": population, "edge_type_id": np.concatenate([part.type_id for part in edges])},
        strength=np.abs(weight).astype(np.float64),
        counted=edges[0].known == "nsyns",
        sign=np.sign(weight).astype(np.int8) if signed else np.zeros(len(weight), np.int8),
        signed=signed,
        neuron_sign=np.zeros(sum(len(each.ids) for each in nodes.values()), np.int8) if sign is None else _node_signs(sign, path),
        delay=_delays(edges, sizes, path),
        plastic=population == PLASTIC if isinstance(own, dict) else None,
        parameters=next(iter(nodes.values())).parameters if len(nodes) == 1 else {},
        group_size=int(own.get("group_size", 1)) if isinstance(own, dict) else 1,
    )
    wiring = wiring.with_connections(~np.concatenate([part.electrical for part in edges]), ELECTRICAL)
    model = _column(nodes, ("model_type",), None, "")
    virtual = np.zeros(len(wiring.name), bool) if model is None else model == "virtual"
    return wiring.with_neurons(~virtual, "virtual nodes, which send given spikes")


def _all_nodes(found: Circuit, options: Options) -> dict[str, _Population]:
    """Populations of nodes by name."""
    nodes: dict[str, _Population] = {}
    wanted = {"model_type", "name", *sum(NODES.values(), ()), *(options.columns or ())}
    wanted |= {name for name in (options.type, options.region, options.sign) if name is not None}
    for each in found.nodes:
        with hdf5.opened(each.file) as file:
            for name, group in file.get("nodes", {}).items():
                about = Attributes(group, "node", each.types)
                ids = about.ids("node_id") if "node_id" in group else np.arange(about.n)
                attributes = {key: values for key in sorted(wanted) if (values := about.values(key)) is not None and len(values) == about.n}
                own = group.get(f"0/{PARAMETERS}", {})
                parameters = {key: hdf5.read_dataset(own[key]) for key in own}
                nodes[name] = _Population(ids, sum(len(other.ids) for other in nodes.values()), attributes, parameters)
    return nodes


def _edges(source: CircuitFile, nodes: Mapping[str, _Population], options: Options) -> Iterator[_Edges]:
    """Populations of edges of a file."""
    with hdf5.opened(source.file) as file:
        for name, group in file.get("edges", {}).items():
            about = Attributes(group, "edge", source.types)
            pre, post = (_ends(about, end, nodes) for end in ("source", "target"))
            weight, known = _weights(about, options)
            delay, junction = about.values(options.delay or "delay"), about.values("is_gap_junction")
            electrical = np.full(about.n, source.populations.get(name) == "electrical")
            if junction is not None:
                electrical |= np.isin(np.char.lower(query.as_texts(junction)), ("true", "1", "1.0"))
            yield _Edges(name, pre, post, about.type_id, weight, known, delay, electrical)


def _ends(about: Attributes, end: str, nodes: Mapping[str, _Population]) -> np.ndarray:
    """[E] index of the source or target nodes; raises UserError for a population or a node that does not exist."""
    key = f"{end}_node_id"
    ids = about.ids(key)
    named = about.group[key].attrs.get("node_population")
    population = (named.decode() if isinstance(named, bytes) else str(named)) if named is not None else next(iter(nodes), "")
    if population not in nodes:
        raise UserError(f"{about.where}/{key}: is of the nodes {population}; expected one of {', '.join(nodes) or 'none'}.")
    own = nodes[population]
    order = np.argsort(own.ids, kind="stable")
    place = order[np.minimum(np.searchsorted(own.ids[order], ids), len(order) - 1)] if len(order) else np.zeros(len(ids), np.int64)
    if len(ids) and (not len(order) or np.any(own.ids[place] != ids)):
        wrong = ids[0] if not len(order) else ids[own.ids[place] != ids][0]
        raise UserError(f"{about.where}/{key}: names node {wrong}, which the nodes {population} do not have.")
    return own.first + place


def _weights(about: Attributes, options: Options) -> tuple[np.ndarray, str]:
    """([E] weights, or numbers of synapses, and the attribute that they are from, "" for one synapse each); raises UserError."""
    number = about.values(options.count or "nsyns")
    for key in [options.weight] if options.weight is not None else ["weight", "syn_weight"] if options.count is None else []:
        values = about.values(key)
        if values is not None:
            if values.dtype.kind not in "fiu" or not np.isfinite(values).all():
                raise UserError(f"{about.where}: {key} is not a number for all edges; expected weights.")
            return (values if number is None else values * number), key
        if options.weight is not None:
            raise UserError(f"weight={key}: {about.where} has no such attribute, nor have its types.")
    if number is not None:
        return number.astype(np.float64), "nsyns"
    return np.ones(about.n), "nsyns"


def _column(nodes: Mapping[str, _Population], usual: Sequence[str], chosen: str | None, key: str) -> np.ndarray | None:
    """[N] texts of a node attribute, chosen or the first usual one, "" where a population lacks it; None if none has it."""
    names = usual if chosen is None else [chosen]
    name = next((each for each in names if any(each in population.attributes for population in nodes.values())), None)
    if name is None:
        if chosen is not None:
            raise UserError(f"{key}={chosen}: no node has this attribute.")
        return None
    return np.concatenate([query.as_texts(each.attributes.get(name, np.full(len(each.ids), ""))) for each in nodes.values()])


def _names(nodes: Mapping[str, _Population]) -> np.ndarray:
    """[N] names of the nodes: the attribute `name` if it tells all apart, else node_id, with the population if there are several."""
    given = _column(nodes, ("name",), None, "")
    if given is not None and len(np.unique(given)) == len(given) and not np.any(given == ""):
        return given
    several = len(nodes) > 1
    return np.array([f"{name}:{each}" if several else str(each) for name, own in nodes.items() for each in own.ids.tolist()], str)


def _node_signs(words: np.ndarray, path: Path) -> np.ndarray:
    """[N] int8 signs of the words in an attribute such as ei; raises UserError for other words."""
    found = signs.by_word(words, signs.sign_of_word)
    if found.other:
        raise UserError(f"{path}: a node has the sign {found.other[0]}; expected e or i, or EXC or INH.")
    return found.sign


def _delays(edges: Sequence[_Edges], sizes: Sequence[int], path: Path) -> np.ndarray | None:
    """[E] float32 ms, or None where no edge has one, or all have one time step of the simulation, as rlsnet has without delays.

    Raises:
      UserError: some edges have no delay, or one that is not above 0.
    """
    if all(part.delay is None for part in edges):
        return None
    missing = np.array([np.nan])
    values = np.concatenate(
        [np.repeat(missing, size) if part.delay is None else part.delay for part, size in zip(edges, sizes, strict=True)]
    )
    if values.dtype.kind not in "fiu" or not np.all(values > 0):
        raise UserError(f"{path}: delay is not a number above 0 for all edges; expected ms.")
    folder = path if path.is_dir() else path.parent
    run = outputs.read_json(folder / "simulation_config.json").get("run")
    step = run.get("dt") if isinstance(run, dict) else None
    return None if step is not None and np.all(values == step) else values.astype(np.float32)
