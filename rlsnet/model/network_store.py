"""Store network.zarr: a network in a Zarr store, read, checked and written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from rlsnet.config.schema import LIMITS
from rlsnet.errors import UserError
from rlsnet.io import atomic, zarr_store
from rlsnet.io.precision import LARGEST
from rlsnet.model import exported_network
from rlsnet.model.connectivity import Edges
from rlsnet.model.network import Network, degrees, edges_by_neuron

FORMAT = "rlsnet-network"
TARGETS = "rlsnet-targets"
VERSION = 1
SUMMARY = "imported"  # attribute of a network from a connectome: what was imported and what was not, name -> words


class StoredNetwork:
    """Arrays of network.load, each read and checked when requested; an array that is not stored is None.

    Without network.load (`path` None) nothing is stored. Raises UserError if the store cannot be opened or lacks neuron/excitatory.
    """

    def __init__(self, path: str | None):
        self.path = path
        self.group = None if path is None else open_network(path)
        if self.group is not None:
            zarr_store.array(self.group, "neuron/excitatory", ["N"], "b", str(path))

    def __contains__(self, name: str) -> bool:
        return self.group is not None and name in self.group

    def read(self, name: str, shape: list[int | str], kind: str, nan: bool = False) -> np.ndarray | None:
        """An array in memory, or None if it is not stored.

        Args:
          name: path of the array in the store.
          shape: expected sizes; a letter stands for any size.
          kind: numpy kinds allowed, such as "f" or "iu".
          nan: NaN is allowed, for missing values.

        Raises:
          UserError: for another shape or kind, damaged chunks, or values that are not finite.
        """
        if name not in self:
            return None
        values = zarr_store.read(zarr_store.array(self.group, name, shape, kind, str(self.path)))
        if values.dtype.kind == "f":
            if not np.all(np.isfinite(values) | (np.isnan(values) & nan)):
                raise UserError(f"{self.path}: {name} holds values that are not finite.")
            if np.any(wrong := np.abs(values) > LARGEST):
                raise UserError(f"{self.path}: {name} holds {values[wrong][0]:g}; expected amounts of at most {LARGEST:g}.")
        return values

    def group_size(self, default: int) -> int:
        """S of the stored plastic synapses, or `default` if there is none."""
        return group_size_of(self.group, str(self.path)) if "plastic/pre" in self else default


def open_network(path: str) -> zarr.Group:
    """The network at network.load: a network.zarr, or an export to zarr or npz, which is rearranged in memory. Raises UserError."""
    if (Path(path) / exported_network.ABOUT).is_file():
        return exported_network.from_npz(Path(path))
    group = zarr_store.open_group(path, "network.load", FORMAT, exported_network.ZARR)
    return exported_network.from_zarr(group) if group.attrs.get("format") == exported_network.ZARR else group


def group_size_of(group: zarr.Group, where: str) -> int:
    """S of the plastic synapses in a store; `where` names it in the message. Raises UserError unless the attribute is a number above 0."""
    size = {**group["plastic"].attrs, **group["plastic/pre"].attrs}.get("group_size", 1)
    if not isinstance(size, int) or size < 1:
        raise UserError(f"{where}: attribute group_size of plastic is {size!r}; expected a whole number, at least 1.")
    return size


def read_parameter(stored: StoredNetwork, name: str, rule: Mapping[str, Any], n: int, dt: float) -> np.ndarray | None:
    """[N] values of one parameter of each neuron, neuron/NAME of a store, or None if it is not stored.

    Args:
      stored: the store.
      name: of the parameter.
      rule: metadata of its field in the schema: unit and limits.
      n: N.
      dt: time step, ms.

    Raises:
      UserError: values are outside the limits, time constants below 2*dt, or refractory periods no multiples of dt.
    """
    values = stored.read(f"neuron/{name}", [n], "f")
    if values is None:
        return None
    where = f"{stored.path}: neuron/{name}"
    if rule["unit"] == "ms" and "above" in rule and np.any(values < 2 * dt):
        raise UserError(f"{where}: expected at least twice trial.dt={dt:g} ms for every neuron.")
    if name == "refractory" and not np.all(np.abs(values / dt - np.rint(values / dt)) < 1e-4):
        raise UserError(f"{where}: expected multiples of trial.dt={dt:g} ms.")
    for limit, broken, words in LIMITS:
        if limit in rule and np.any(wrong := broken(values, rule[limit])):
            at = int(np.flatnonzero(wrong)[0])
            raise UserError(f"{where}[{at}] is {values[at]:g}; expected {words} {rule[limit]} {rule['unit']}.")
    return values


def read_static_edges(stored: StoredNetwork, n: int) -> Edges | None:
    """The static synapses of a stored network of `n` neurons, or None if there are none.

    Raises:
      UserError: for arrays that do not fit each other.
    """
    stream = stored.read("static/stream", [2], "u")
    indptr = stored.read("static/indptr", [n + 1], "iu")
    if indptr is None:
        return None
    check_indptr(indptr, n, str(stored.path))
    post = stored.read("static/post", [int(indptr[-1])], "iu") if stream is None else np.zeros(0, np.int32)
    if post is None:
        raise UserError(f"{stored.path}: has static/indptr but no static/post; expected both.")
    weight, class_weight = stored.read("static/weight", [int(indptr[-1])], "f"), stored.read("static/class_weight", [2, 2], "f")
    if weight is None and class_weight is None:
        raise UserError(f"{stored.path}: has static synapses without weights; expected static/weight or static/class_weight.")
    if stream is not None and (class_weight is None or weight is not None or np.max(np.diff(indptr), initial=0) > n - 1):
        raise UserError(f"{stored.path}: static/stream: expected static/class_weight with it, and at most {n - 1} outputs of a neuron.")
    delay = stored.read("static/delay", [int(indptr[-1])], "f")
    if delay is not None and (stream is not None or np.any(delay <= 0)):
        raise UserError(f"{stored.path}: static/delay: expected times above 0 ms, and no static/stream with them.")
    return Edges(indptr, post, weight, class_weight if weight is None else None, stream, delay)


def check_indptr(indptr: np.ndarray, n: int, where: str) -> None:
    """Raises UserError unless the edges of n neurons can start and end at `indptr`; `where` names its source in the message."""
    if len(indptr) != n + 1 or indptr[0] != 0 or np.any(np.diff(indptr.astype(np.int64)) < 0):
        raise UserError(f"{where}: static/indptr: expected {n + 1} numbers that start at 0 and never fall.")


def read_plastic_inputs(stored: StoredNetwork, n: int, size: int, required: bool) -> np.ndarray | None:
    """[G, L] plastic inputs of the groups of a stored network, -1 pads; None if there are none.

    Args:
      stored: the store.
      n: N.
      size: S.
      required: L must be above 0.

    Raises:
      UserError: for another number of groups, numbers that are not those of neurons, or none.
    """
    pre, groups = stored.read("plastic/pre", ["G", "L"], "iu"), -(-n // size)
    if pre is None:
        return None
    if len(pre) != groups:
        raise UserError(f"{stored.path}: plastic/pre has {len(pre)} rows; expected {groups}: {n} neurons in groups of {size}.")
    if pre.size and (pre.min() < -1 or pre.max() >= n):
        raise UserError(f"{stored.path}: plastic/pre reaches from {pre.min()} to {pre.max()}; expected numbers from -1 to {n - 1}.")
    if required and not pre.shape[1]:
        raise UserError(f"{stored.path}: plastic/pre has no inputs; expected the shape [{len(pre)}, L], or no such array.")
    return pre


def read_target(stored: StoredNetwork, n_points: int, n: int) -> np.ndarray | None:
    """[C, M, N] target currents of a stored network, NaN: not trained; None if there are none. Raises UserError for C = 0."""
    target = stored.read("target", ["C", n_points, n], "f", nan=True)
    if target is not None and not len(target):
        raise UserError(f"{stored.path}: target has no condition; expected the shape [C, {n_points}, {n}].")
    return target


def labels(group: zarr.Group | None) -> dict[str, np.ndarray]:
    """[N] texts of the neurons of a stored network by name, such as name, type and region: the arrays neuron/* of texts."""
    if group is None or "neuron" not in group:
        return {}
    return {name: zarr_store.texts(stored) for name, stored in sorted(group["neuron"].arrays()) if stored.dtype.kind in "TUO"}


def cell_class(group: zarr.Group) -> str:
    """Where the classes of the neurons of a stored network come from, in words; "" where the store does not tell.

    Networks that earlier versions drew have the first neurons excitatory, whatever the recording.
    """
    if "cell_class" in group.attrs:
        return str(group.attrs["cell_class"])
    excitatory = zarr_store.read(group["neuron/excitatory"])
    first = int(excitatory.sum())
    return f"by index: the first {first:,} neurons are excitatory" if excitatory[:first].all() else ""


def save(
    path: Path,
    network: Network,
    weight: np.ndarray,
    target: np.ndarray,
    recorded_rate: np.ndarray | None = None,
    labels: Mapping[str, np.ndarray] | None = None,
    **attributes: Any,
) -> None:
    """Writes a network.zarr; after an error, an older store at the path is unchanged.

    Args:
      path: path of the store.
      network: neurons and connectivity.
      weight: [N, X+L] initial weights of feed-forward and plastic inputs, threshold*ms.
      target: [C, M, N] target currents, threshold units.
      recorded_rate: [C, N] Hz, means over time of the rates that the target was made from; or None.
      labels: [N] texts of the neurons by name, as of `labels`.
      **attributes: further attributes of the root.
    """
    x, n = network.n_feedforward, network.n_neurons
    parameters = {name: values[:n] for name, values in network.parameters.items()} | {"bias": network.bias}
    parameters |= {} if network.v0 is None else {"v0": network.v0}
    with _new(path, attributes) as root:
        _write_neurons(root, network.excitatory, parameters, labels or {})
        _write_static(root, network)
        _write_plastic(root, np.asarray(network.pre)[:, x:], weight[:, x:], network.group_size)
        if x:
            zarr_store.write(root, "feedforward/weight", weight[:, :x], ["neuron", "feedforward"], units="threshold*ms")
        if network.rates is not None:
            zarr_store.write(root, "feedforward/rate", network.rates, ["condition", "time", "feedforward"], along=2, units="Hz")
        if network.stimulus is not None:
            zarr_store.write(root, "stimulus", network.stimulus, ["condition", "bin", "neuron"], along=2, units="threshold")
        _write_target(root, target, recorded_rate)


def save_wiring(
    path: Path,
    excitatory: np.ndarray,
    edges: Edges,
    plastic: tuple[np.ndarray, np.ndarray, int] | None = None,
    parameters: Mapping[str, np.ndarray] | None = None,
    labels: Mapping[str, np.ndarray] | None = None,
    **attributes: Any,
) -> None:
    """Writes a network.zarr of given wiring, for network.load; what it lacks is drawn there. Errors as of `save`.

    Args:
      path: path of the store.
      excitatory: [N] bool.
      edges: the static synapses.
      plastic: ([G, L] inputs, -1 pads; [N, L] initial weights, threshold*ms; S), or None: plastic inputs are drawn.
      parameters: [N] parameters of the neurons by name, among them bias and v0.
      labels: [N] texts of the neurons by name, as of `labels`.
      **attributes: further attributes of the root.
    """
    with _new(path, attributes) as root:
        _write_neurons(root, excitatory, parameters or {}, labels or {})
        _write_edges(root, edges)
        if plastic is not None:
            _write_plastic(root, *plastic)


@contextlib.contextmanager
def _new(path: Path, attributes: Mapping[str, Any]) -> Iterator[zarr.Group]:
    """Root of a new network.zarr, which appears at its path when the context ends without an error."""
    with atomic.replacing(path) as temporary:
        yield zarr.create_group(str(temporary), attributes={"format": FORMAT, "version": VERSION, **attributes})
        zarr_store.seal(temporary)


def save_targets(path: Path, target: np.ndarray, recorded_rate: np.ndarray, **attributes: Any) -> None:
    """Writes a targets.zarr, whose targets replace those of the network.zarr beside it; arguments and errors as of `save`."""
    with atomic.replacing(path) as temporary:
        root = zarr.create_group(str(temporary), attributes={"format": TARGETS, "version": VERSION, **attributes})
        _write_target(root, target, recorded_rate)
        zarr_store.seal(temporary)


def _write_target(root: zarr.Group, target: np.ndarray, recorded_rate: np.ndarray | None) -> None:
    """Writes target [C, M, N] and recorded_rate [C, N], if there is one."""
    zarr_store.write(root, "target", target, ["condition", "time", "neuron"], along=2, units="threshold")
    if recorded_rate is not None:
        zarr_store.write(root, "recorded_rate", recorded_rate, ["condition", "neuron"], along=1, units="Hz")


def _write_neurons(root: zarr.Group, excitatory: Any, parameters: Mapping[str, Any], labels: Mapping[str, np.ndarray]) -> None:
    """Writes the arrays neuron/*."""
    zarr_store.write(root, "neuron/excitatory", excitatory, ["neuron"])
    for name, values in parameters.items():
        zarr_store.write(root, f"neuron/{name}", values, ["neuron"], **({"units": "threshold"} if name in ("bias", "v0") else {}))
    for name, words in labels.items():
        zarr_store.write(root, f"neuron/{name}", words, ["neuron"])


def _write_static(root: zarr.Group, network: Network) -> None:
    """Writes the arrays static/*."""
    indptr = np.concatenate([[0], np.cumsum(degrees(network))])
    zarr_store.write(root, "static/indptr", indptr.astype(np.int32), ["neuron_end"])
    if network.delays:
        _write_delayed(root, network, indptr)
    elif network.stream is None:
        zarr_store.write(root, "static/post", np.asarray(network.post)[: network.n_edges], ["edge"], compress=False)
    else:
        zarr_store.write(root, "static/stream", network.stream, ["word"], long_name="key from which targets are drawn")
    if network.weight is not None and not network.delays:
        zarr_store.write(root, "static/weight", np.asarray(network.weight)[: network.n_edges], ["edge"], units="threshold*ms")
    if network.class_weight is not None:
        zarr_store.write(root, "static/class_weight", network.class_weight, ["pre_class", "post_class"], units="threshold*ms")


def _write_edges(root: zarr.Group, edges: Edges) -> None:
    """Writes the arrays static/* of given edges with weights."""
    arrays = {"post": (edges.post, ""), "weight": (edges.weight, "threshold*ms"), "delay": (edges.delay, "ms")}
    zarr_store.write(root, "static/indptr", edges.indptr, ["neuron_end"])
    for name, (values, units) in arrays.items():
        if values is not None:
            zarr_store.write(root, f"static/{name}", values, ["edge"], compress=name != "post", **({"units": units} if units else {}))


def _write_plastic(root: zarr.Group, pre: np.ndarray, weight: np.ndarray, group_size: int) -> None:
    """Writes the arrays plastic/*."""
    root.create_group("plastic", attributes={"group_size": group_size})
    zarr_store.write(root, "plastic/pre", pre, ["group", "input"])
    zarr_store.write(root, "plastic/weight", weight, ["neuron", "input"], units="threshold*ms")


def _write_delayed(root: zarr.Group, network: Network, indptr: np.ndarray) -> None:
    """Writes static/post, static/delay and static/weight of a network in which they are sorted by delay, in blocks of neurons."""
    total, values = (int(indptr[-1]),), {"post": np.asarray(network.post)}
    stored = {"post": zarr_store.create(root, "static/post", total, np.int32, ["edge"], compress=False)}
    meaning = "time from a spike to the first step in which it acts"
    stored["delay"] = zarr_store.create(root, "static/delay", total, np.float32, ["edge"], units="ms", long_name=meaning)
    if network.weight is not None:
        values["weight"] = np.asarray(network.weight)
        stored["weight"] = zarr_store.create(root, "static/weight", total, values["weight"].dtype, ["edge"], units="threshold*ms")
    chunk, start = stored["post"].chunks[0], 0
    while start < network.n_neurons:
        stop = int(max(start + 1, np.searchsorted(indptr, indptr[start] + chunk, side="right") - 1))
        _, at, delay = edges_by_neuron(network, start, stop)
        part = slice(int(indptr[start]), int(indptr[stop]))
        stored["delay"][part] = delay
        for name, own in values.items():
            stored[name][part] = own[at]
        start = stop
