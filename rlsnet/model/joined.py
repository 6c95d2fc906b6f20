"""Several networks of equal sizes as one, without synapses between them: a joined network, whose parts are these networks.

Neurons, groups and synapses stand one part after the other, so kernels and learning treat the joined network as any other. Random
numbers do not: each part has keys of its own and counters from 0 (`rng.uniform`), so it has those of its network alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rlsnet.model.build import largest_degree, padded, with_plastic_inputs
from rlsnet.model.network import Network, RateTable


def refusal(network: Network) -> str | None:
    """Why a network cannot be a part of a joined one, in words; None if it can."""
    if network.mesh is not None:
        return "it is divided over several devices"
    if network.stream is not None:
        return "its static synapses are not stored (static.storage=procedural)"
    if network.n_feedforward:
        return "it has feed-forward neurons"
    if network.stimulus is not None:
        return "its stimulus is from a file"
    if network.n_neurons % network.group_size:
        return "plastic.group_size does not divide its number of neurons"
    return None


def kind(network: Network) -> tuple[object, ...]:
    """What must be equal in networks that are joined, such as sizes; the rest, such as synapses and parameters, may differ."""
    table = network.rate_table
    ranges = None if table is None else (float(table.low), float(table.step), table.rate.shape[1])
    weights = None if network.class_weight is None else tuple(np.asarray(network.class_weight).reshape(-1).tolist())
    which = [name for name, value in vars(network).items() if value is None]
    parameters = sorted(set(network.parameters) - {"noise_sigma"})
    has_edges = network.n_edges > 0
    return (
        *(network.n_neurons, network.pre.shape, network.group_size, network.taus, network.delays, has_edges, ranges, weights),
        *(tuple(which), tuple(parameters), str(network.bias.dtype), network.largest_background),
    )


def join(networks: Sequence[Network], noise_sigma: Sequence[float]) -> Network:
    """The joined network.

    Args:
      networks: of one `kind`.
      noise_sigma: strength of the noise of each network that has no parameter noise_sigma.
    """
    first, n, count = networks[0], networks[0].n_neurons, len(networks)

    def together(name: str) -> Any:
        values = [getattr(network, name) for network in networks]
        return None if values[0] is None else jnp.concatenate(values)

    indptr, edges = _edges(networks)
    width = largest_degree(indptr)
    post = np.concatenate([np.asarray(networks[part].post)[run] + np.int32(part * n) for part, run in edges])
    weight = None if first.weight is None else np.concatenate([np.asarray(networks[part].weight)[run] for part, run in edges])
    network = dataclasses.replace(
        first,
        excitatory=together("excitatory"),
        bias=together("bias"),
        v0=together("v0"),
        tau_channel=together("tau_channel"),
        parameters=_parameters(networks, noise_sigma),
        rate_table=_rate_table(networks),
        indptr=jnp.asarray(indptr),
        post=padded(post, indptr, width),
        weight=None if weight is None else padded(weight, indptr, width),
        static_width=width,
    )
    pre = [np.asarray(each.pre) for each in networks]
    return with_plastic_inputs(network, np.concatenate([np.where(p >= 0, p + k * n, -1) for k, p in zip(range(count), pre, strict=True)]))


def _edges(networks: Sequence[Network]) -> tuple[np.ndarray, list[tuple[int, slice]]]:
    """`Network.indptr` of the joined network, and in its order the runs of static edges: (part, positions in its arrays)."""
    n, rows = networks[0].n_neurons, networks[0].n_sources // networks[0].n_neurons
    ends = [np.asarray(network.indptr, np.int64) for network in networks]
    runs = [(part, slice(own[row * n], own[(row + 1) * n])) for row in range(rows) for part, own in enumerate(ends)]
    counts = np.concatenate([np.diff(ends[part][row * n : (row + 1) * n + 1]) for row in range(rows) for part in range(len(networks))])
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32), runs


def _parameters(networks: Sequence[Network], noise_sigma: Sequence[float]) -> dict[str, Array]:
    """The parameters of all neurons; that of the noise only if it differs between them."""
    own = [dict(network.parameters) for network in networks]
    if any("noise_sigma" in each for each in own) or len(set(noise_sigma)) > 1:
        for network, each, sigma in zip(networks, own, noise_sigma, strict=True):
            each.setdefault("noise_sigma", jnp.full_like(network.bias, sigma))
    return {name: jnp.concatenate([each[name] for each in own]) for name in own[0]}


def _rate_table(networks: Sequence[Network]) -> RateTable | None:
    """The transfer functions of all networks."""
    tables = [network.rate_table for network in networks if network.rate_table is not None]
    if not tables:
        return None
    firsts = np.cumsum([0, *(len(table.rate) for table in tables)])[:-1]
    kind = jnp.concatenate([table.kind + np.int32(first) for table, first in zip(tables, firsts, strict=True)])
    return dataclasses.replace(tables[0], rate=jnp.concatenate([table.rate for table in tables]), kind=kind)


def of_part(parts: int, part: int, values: Any) -> Any:
    """The arrays [G, ...] of one of the parts, of the arrays [parts*G, ...] of a joined network, in any pytree."""

    def own(array: Array) -> Array:
        each = len(array) // parts
        return array[part * each : (part + 1) * each]

    return jax.tree.map(own, values)
