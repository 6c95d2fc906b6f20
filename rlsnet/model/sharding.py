"""One network on several devices: each has an equal share of the neurons (a shard), with their incoming synapses.

Shards have whole groups of neurons, and they are equal: the last ones may have neurons that do not exist. These have no inputs, their
spikes do not count, and they are not trained. Devices exchange spikes, packed into bits, in every step; all else that is large is local
to a neuron. Filtered spikes are computed on each device for all presynaptic neurons, as only spikes change them.

A placed network has the arrays of all shards, on the devices; `over_devices` runs a function on each shard.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as Spec

from rlsnet.model.connectivity import outputs_of
from rlsnet.model.network import Network, RateTable

AXIS = "neuron"  # name of the axis of devices
EDGES_AT_ONCE = 2**24  # of a whole network, when they are divided
ALIGNED = 64  # shards with at least 16 times as many groups have a multiple of it, so that they are whole chunks of a store
EVERYWHERE, BY_NEURON = Spec(), Spec(AXIS)  # placement of arrays that each device has as a whole, and of those [N] or [G, ...]
OF_NEURONS = ("excitatory", "bias", "v0", "stimulus")  # arrays [..., N] of a network, of which a device has those of its neurons
SHARED = ("class_weight", "stream", "rates", "tau_channel")  # arrays that each device has as a whole
STACKED = ("indptr", "post", "weight", "out_indptr", "out_slot")  # arrays [devices, ...] of a placed network, of which a shard has a row


def along(axis: int, axes: int) -> Spec:
    """Placement of an array with `axes` axes of which one, `axis`, are neurons."""
    return Spec(*[AXIS if each == axis else None for each in range(axes)])


def groups_of_shard(groups: int, devices: int) -> int:
    """Groups of neurons in each shard."""
    each = -(-groups // devices)
    return -(-each // ALIGNED) * ALIGNED if each >= 16 * ALIGNED else each


def put(values: np.ndarray, mesh: Mesh, spec: Spec) -> Array:
    """An array on the devices of a mesh, placed by `spec`; all processes have the same `values`, in their own memory."""
    return jax.make_array_from_callback(values.shape, NamedSharding(mesh, spec), lambda index: values[index])


def of_neurons(network: Network, values: Any, fill: Any = None) -> Array:
    """Values [..., n_whole] of each neuron on the device of the neuron.

    Args:
      network: a placed network, or one on one device.
      values: the values, in the memory of each process.
      fill: of neurons that do not exist; None: as the last one.
    """
    if network.mesh is None:
        return jnp.asarray(values)
    values = _longer(values, network.n_neurons, -1, fill)
    return put(values, network.mesh, along(values.ndim - 1, values.ndim))


def of_groups(network: Network, values: Any) -> Array:
    """Values [G, ...] of each group of neurons on its device, 0 for groups that do not exist; arguments as of `of_neurons`."""
    if network.mesh is None:
        return jnp.asarray(values)
    return put(_longer(values, network.pre.shape[0], 0, 0), network.mesh, BY_NEURON)


def _longer(values: Any, size: int, axis: int, fill: Any) -> np.ndarray:
    """Values with `size` entries along an axis; the new ones are `fill`, or for None as the last one."""
    values = np.asarray(values)
    width = [(0, 0)] * values.ndim
    width[axis] = (0, size - values.shape[axis])
    if not width[axis][1]:
        return values
    return np.pad(values, width, mode="edge") if fill is None else np.pad(values, width, constant_values=fill)


def on_host(values: Array) -> np.ndarray:
    """An array of all devices as a whole in the memory of each process; all processes call it together."""
    if values.is_fully_addressable or values.is_fully_replicated:
        return np.asarray(values)
    return np.asarray(multihost_utils.process_allgather(values, tiled=True))


def place(network: Network, devices: Sequence[jax.Device]) -> Network:
    """A network with a shard on each device; on one device, the network itself.

    Args:
      network: the whole network, which all processes have.
      devices: of all processes, in the same order in each.
    """
    if len(devices) == 1:
        return network
    mesh, count, size = Mesh(np.array(devices), (AXIS,)), len(devices), network.group_size
    groups = groups_of_shard(-(-network.n_neurons // size), count)
    pre = _longer(network.pre, groups * count, 0, -1)
    frame = dataclasses.replace(network, excitatory=np.broadcast_to(False, groups * size * count), mesh=mesh)  # type: ignore[arg-type]

    def by_neuron(values: Array | None) -> Any:
        return None if values is None else of_neurons(frame, values)

    def everywhere(values: Array | None) -> Any:
        return None if values is None else put(np.asarray(values), mesh, EVERYWHERE)

    table, parameters = network.rate_table, network.parameters
    return dataclasses.replace(
        network,
        **{name: by_neuron(getattr(network, name)) for name in OF_NEURONS},
        **{name: everywhere(getattr(network, name)) for name in SHARED},
        parameters={name: (everywhere if name == "tau_plas" else by_neuron)(values) for name, values in parameters.items()},
        pre=put(pre, mesh, BY_NEURON),
        rate_table=table and RateTable(everywhere(table.rate), by_neuron(table.kind), everywhere(table.low), everywhere(table.step)),
        classes_of_all=everywhere(network.excitatory),
        n_of_all=network.n_neurons,
        mesh=mesh,
        **_static_synapses(network, mesh, groups * size),
        **_plastic_synapses(pre, network.n_presynaptic, mesh),
    )


def _static_synapses(network: Network, mesh: Mesh, share: int) -> dict[str, Any]:
    """Fields of a placed network: the static synapses of the `share` neurons of each shard, by presynaptic neuron of the whole network."""
    if network.stream is not None:  # drawn again on each device, which uses those of its own neurons
        indptr = np.asarray(network.indptr)
        return {
            "indptr": _stacked(mesh, indptr.shape, indptr.dtype, lambda shard: indptr),
            "post": put(np.zeros((mesh.size, 0), np.int32), mesh, BY_NEURON),
        }
    indptr, post = np.asarray(network.indptr, np.int64), np.asarray(network.post)
    weight = None if network.weight is None else np.asarray(network.weight)
    own = [shard for shard, device in enumerate(mesh.devices) if device.process_index == jax.process_index()]
    counts = {shard: np.zeros(len(indptr) - 1, np.int32) for shard in own}  # edges of each presynaptic neuron
    blocks, total, width = list(_blocks_of_edges(indptr)), np.zeros(mesh.size, np.int64), 0
    for rows in blocks:
        owner = post[indptr[rows.start] : indptr[rows.stop]] // share
        row = np.repeat(np.arange(rows.stop - rows.start), np.diff(indptr[rows.start : rows.stop + 1]))
        flat = np.bincount(owner * (rows.stop - rows.start) + row, minlength=mesh.size * (rows.stop - rows.start))
        of_shards = flat.reshape(mesh.size, -1)
        total, width = total + of_shards.sum(axis=1), max(width, int(of_shards.max(initial=0)))
        for shard in own:
            counts[shard][rows] = of_shards[shard]
    room = int(total.max()) + width

    def of_shard(values: np.ndarray, shard: int, first: int) -> np.ndarray:
        """The values of the edges of a shard, in order, and zeros."""
        found, end = np.zeros(room, values.dtype), 0
        for rows in blocks:
            edges = slice(indptr[rows.start], indptr[rows.stop])
            part = values[edges][post[edges] // share == shard] - first
            found[end : end + len(part)] = part
            end += len(part)
        return found

    return {
        "indptr": _stacked(mesh, indptr.shape, np.dtype(np.int32), lambda shard: np.concatenate([[0], np.cumsum(counts[shard])])),
        "post": _stacked(mesh, (room,), post.dtype, lambda shard: of_shard(post, shard, shard * share)),
        "weight": None if weight is None else _stacked(mesh, (room,), weight.dtype, lambda shard: of_shard(weight, shard, 0)),
        "static_width": width,
    }


def _blocks_of_edges(indptr: np.ndarray) -> Iterator[slice]:
    """Presynaptic neurons in blocks with about EDGES_AT_ONCE edges."""
    start, n = 0, len(indptr) - 1
    while start < n:
        stop = max(start + 1, int(np.searchsorted(indptr, indptr[start] + EDGES_AT_ONCE, side="right")) - 1)
        yield slice(start, min(stop, n))
        start = stop


def _plastic_synapses(pre: np.ndarray, sources: int, mesh: Mesh) -> dict[str, Any]:
    """Fields of a placed network: the plastic outputs of presynaptic neurons to the groups of each shard; pre: [G, X+L], all."""
    parts = np.split(pre, mesh.size)
    width = max(int(np.bincount(part[part >= 0], minlength=1).max()) for part in parts)
    room = max(int(np.count_nonzero(part >= 0)) for part in parts) + width
    outputs = cache(lambda shard: outputs_of(parts[shard], sources))
    return {
        "out_indptr": _stacked(mesh, (sources + 1,), np.dtype(np.int32), lambda shard: outputs(shard)[0]),
        "out_slot": _stacked(mesh, (room,), np.dtype(np.int32), lambda shard: _longer(outputs(shard)[1], room, 0, 0)),
        "plastic_width": width,
    }


def from_parts(shape: tuple[int, ...], mesh: Mesh, part: Callable[[Any], np.ndarray]) -> Array:
    """An array [G, ...] on the devices, of which part(index) gives that of a device, for the devices of this process only."""
    return jax.make_array_from_callback(shape, NamedSharding(mesh, BY_NEURON), part)


def _stacked(mesh: Mesh, shape: tuple[int, ...], dtype: np.dtype, row: Callable[[int], np.ndarray]) -> Array:
    """[devices, ...] whose row of each device is row(device), computed for the devices of this process only."""

    def rows(index: Any) -> np.ndarray:
        return row(index[0].start or 0)[None].astype(dtype, copy=False)

    return from_parts((mesh.size, *shape), mesh, rows)


def over_devices(network: Network, function: Callable[..., Any], arguments: tuple[Any, ...], given: Any, returned: Any) -> Any:
    """Results of function(shard, *arguments), computed on each device for its shard of a network; for one device, of the network itself.

    Args:
      network: the network, placed on its devices, within a compiled program.
      function: of the shard, a network whose neurons are those of the device, and of the arguments, of which each device has its part.
      arguments: pytrees of arrays.
      given: placement of each argument, as for jax.shard_map.
      returned: placement of the results.
    """
    if network.mesh is None:
        return function(network, *arguments)

    def on_device(network: Network, *arguments: Any) -> Any:
        rows = {name: values[0] for name in STACKED if (values := getattr(network, name)) is not None}
        first = lax.axis_index(AXIS).astype(jnp.int32) * network.n_neurons
        return function(dataclasses.replace(network, first=first, **rows), *arguments)

    run = jax.shard_map(on_device, mesh=network.mesh, in_specs=(network_specs(network), *given), out_specs=returned, check_vma=False)
    return run(network, *arguments)


def network_specs(network: Network) -> Any:
    """Placement of each array of a placed network, for jax.shard_map."""

    def spec(name: str, values: Array) -> Spec:
        if name in ("pre", *STACKED):
            return BY_NEURON
        return along(values.ndim - 1, values.ndim) if name in OF_NEURONS else EVERYWHERE

    arrays = {name: values for name, values in vars(network).items() if isinstance(values, jax.Array)}
    placed: dict[str, Any] = {name: spec(name, values) for name, values in arrays.items()}
    placed["parameters"] = {name: EVERYWHERE if name == "tau_plas" else BY_NEURON for name in network.parameters}
    placed["rate_table"] = network.rate_table and RateTable(EVERYWHERE, BY_NEURON, EVERYWHERE, EVERYWHERE)  # type: ignore[arg-type]
    return dataclasses.replace(network, **placed)


def own(network: Network, values: Array) -> Array:
    """[..., N] values of the neurons of a shard, of those [..., N+X] of all presynaptic neurons."""
    if network.mesh is None:
        return values[..., : network.n_neurons]
    assert network.first is not None
    values = values[..., : network.n_whole]
    missing = network.n_neurons * network.mesh.size - network.n_whole
    values = jnp.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)])
    return lax.dynamic_slice_in_dim(values, network.first, network.n_neurons, -1)


def of_all(network: Network, values: Array) -> Array:
    """[..., n_whole] values of all neurons, of those [..., N] of the neurons of each shard."""
    if network.mesh is None:
        return values
    return lax.all_gather(values, AXIS, axis=values.ndim - 1, tiled=True)[..., : network.n_whole]


def exist(network: Network) -> Array:
    """[N] bool, whether there is a neuron; not all of the last shards exist."""
    number = jnp.arange(network.n_neurons, dtype=jnp.int32)
    return (number if network.first is None else number + network.first) < network.n_whole


def over_all(network: Network, value: Array) -> Array:
    """The sum of a value over all devices."""
    return value if network.mesh is None else lax.psum(value, AXIS)
