"""Connectivity: static synapses and plastic inputs, drawn with counter-based random numbers or read from files, and their weights.

Other connectivity is a dataclass with a function registered for it: `static_edges` for a subclass of `schema.StaticConfig`,
`plastic_inputs` for one of `schema.PlasticConfig`.
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial, singledispatch
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rlsnet.config.schema import (
    BalancedConfig,
    EdgesConfig,
    ErdosRenyiConfig,
    FixedDegreeConfig,
    NoStaticConfig,
    PlasticConfig,
    RandomInputsConfig,
    RegionalConfig,
    RegionalInputsConfig,
    StaticConfig,
)
from rlsnet.errors import UserError
from rlsnet.model import rng
from rlsnet.model.edge_files import read_edges
from rlsnet.model.regions import Regions, distinct, generator_of, pairs


@dataclasses.dataclass(frozen=True)
class Edges:
    """Static synapses, sorted by presynaptic neuron, and in a network also by postsynaptic neuron (`ascending`).

    The weights of two synapses of the same pair add up.

    indptr: [N+1] int, neuron j's outputs are edges indptr[j] to indptr[j+1].
    post: [nnz] int, postsynaptic neuron of each edge; empty with `stream`.
    weight: [nnz] threshold*ms, or None: the weights are those of class_weight.
    class_weight: [2, 2] weights by class (threshold*ms), presynaptic first, excitatory = 0; or None.
    stream: [2] uint32, the key from which `targets_of` draws the edges of any neuron anew; or None.
    delay: [nnz] ms, time from a spike to the first step in which it acts; or None: that of the configuration, or of `delays`.
    delays: K different delays, ms, if the edges are by source as in `Network.indptr` with X = 0; else empty.
    """

    indptr: np.ndarray
    post: Any
    weight: np.ndarray | None = None
    class_weight: np.ndarray | None = None
    stream: np.ndarray | None = None
    delay: np.ndarray | None = None
    delays: tuple[float, ...] = ()

    @staticmethod
    def from_pairs(pre: np.ndarray, post: np.ndarray, weight: np.ndarray, n: int, delay: np.ndarray | None = None) -> Edges:
        """The edges of `n` neurons from presynaptic neuron, postsynaptic neuron, weight (threshold*ms) and delay of each, in any order."""
        order = np.argsort(pre, kind="stable")
        indptr = np.concatenate([[0], np.cumsum(np.bincount(pre, minlength=n))])
        sorted_delay = None if delay is None else np.asarray(delay, np.float32)[order]
        return Edges(indptr, np.asarray(post)[order], np.asarray(weight, np.float64)[order], delay=sorted_delay)

    def ascending(self) -> Edges:
        """The same edges, with the postsynaptic neurons of each presynaptic one in ascending order: threads deliver to ranges of them."""
        from scipy.sparse import csr_array

        if self.stream is not None or self.delays:
            return self
        n = len(self.indptr) - 1
        none = np.broadcast_to(np.int8(0), len(self.post)) if self.weight is None else self.weight  # no memory
        edges = csr_array((none, np.asarray(self.post, np.int32), np.asarray(self.indptr, np.int32)), shape=(n, n))
        if edges.has_sorted_indices:
            return self
        if self.delay is not None:
            order = np.lexsort((self.post, np.repeat(np.arange(n), np.diff(self.indptr))))
            return self._in_order(order, self.indptr)
        edges = edges.copy()
        edges.sort_indices()
        return dataclasses.replace(self, post=edges.indices, weight=None if self.weight is None else edges.data)

    def _in_order(self, order: np.ndarray, indptr: np.ndarray) -> Edges:
        """The edges in another order [nnz], which start at `indptr`."""
        weight, delay = (None if values is None else values[order] for values in (self.weight, self.delay))
        return dataclasses.replace(self, indptr=indptr, post=self.post[order], weight=weight, delay=delay)

    def by_delay(self, dt: float, n: int) -> tuple[tuple[float, ...], Edges]:
        """Edges by source as in `Network.indptr`.

        Args:
          dt: time step, ms, to multiples of which delays are rounded.
          n: N+X, number of presynaptic neurons.

        Returns:
          `Network.delays`, and the edges.
        """
        if self.delays:
            rows = np.diff(self.indptr).reshape(1 + len(self.delays), -1)
            rows = np.concatenate([rows, np.zeros((len(rows), n - rows.shape[1]), rows.dtype)], axis=1)
            return self.delays, dataclasses.replace(self, indptr=np.concatenate([[0], np.cumsum(rows)]))
        if self.delay is None:
            return (), dataclasses.replace(self, indptr=np.concatenate([self.indptr, np.full(n + 1 - len(self.indptr), self.indptr[-1])]))
        steps, kind = np.unique(np.maximum(1, np.rint(np.asarray(self.delay) / dt)).astype(np.int32), return_inverse=True)
        source = (1 + kind) * n + np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr))
        order = np.argsort(source, kind="stable")
        indptr = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=(1 + len(steps)) * n))])
        return tuple((steps * dt).tolist()), self._in_order(order, indptr)


@singledispatch
def static_edges(static: StaticConfig, stream: Array, excitatory: np.ndarray) -> Edges:
    """Static synapses of a network.

    Args:
      static: settings; their class chooses the function that is registered for it.
      stream: [2] uint32, key of the random numbers.
      excitatory: [N] bool.

    Raises:
      UserError: no function is registered for the class of the settings, or they contradict the number of neurons.
    """
    raise UserError(f"static.name={static.name}: expected a function registered with wiring.static_edges for {type(static).__name__}.")


@static_edges.register
def _no_edges(static: NoStaticConfig, stream: Array, excitatory: np.ndarray) -> Edges:
    return Edges(np.zeros(len(excitatory) + 1, np.int32), np.zeros(0, np.int32), None, np.zeros((2, 2)))


@static_edges.register
def _fixed_degree_edges(static: FixedDegreeConfig, stream: Array, excitatory: np.ndarray) -> Edges:
    n, degree = len(excitatory), static.out_degree
    if degree > n - 1:
        raise UserError(f"static.out_degree={degree}: expected at most {n - 1}, the other neurons (network.n_neurons={n}).")
    if n * degree >= 2**31:
        raise UserError(f"static.out_degree={degree}: makes {n * degree:,} static synapses; expected fewer than {2**31:,}.")
    indptr = np.arange(n + 1, dtype=np.int32) * np.int32(degree)
    if static.storage == "procedural" and degree:
        return Edges(indptr, np.zeros(0, np.int32), None, class_weights(static, static.class_inputs(n)), np.asarray(stream))
    post = draw_static(stream, n, degree) if degree else np.zeros(0, np.int32)
    return Edges(indptr, post, None, class_weights(static, static.class_inputs(n)))


@static_edges.register
def _erdos_renyi_edges(static: ErdosRenyiConfig, stream: Array, excitatory: np.ndarray) -> Edges:
    """Static synapses with binomial out-degrees; the outputs of a neuron reach distinct neurons, never itself."""
    n = len(excitatory)
    if n * (n - 1) * static.probability >= 2**31 - 2**24:
        raise UserError(f"static.probability={static.probability:g}: makes too many static synapses; expected fewer than {2**31:,}.")
    counter = np.random.Philox(key=int(np.asarray(rng.fold(stream, n)).view(np.uint64)[0]))
    degrees = np.random.Generator(counter).binomial(n - 1, static.probability, n)
    indptr = np.concatenate([[0], np.cumsum(degrees)])
    post, size = np.empty(indptr[-1], np.int32), 2**20
    for start in range(0, len(post), size):
        edge = np.minimum(np.arange(start, start + size), len(post) - 1)
        pre = np.searchsorted(indptr, edge, side="right") - 1
        block = targets_of(stream, jnp.asarray(pre, jnp.int32), jnp.asarray(edge - indptr[pre], jnp.int32), n)
        post[start : start + size] = np.asarray(block)[: len(post) - start]
    return Edges(indptr, post, None, class_weights(static, static.class_inputs(n)))


@static_edges.register
def _edges_from_file(static: EdgesConfig, stream: Array, excitatory: np.ndarray) -> Edges:
    n = len(excitatory)
    pre, post, weight = read_edges(static.path, static.rows)
    for name, values in (("pre", pre), ("post", post)):
        if values.size and (values.min() < 0 or values.max() >= n):
            at = int(np.flatnonzero((values < 0) | (values >= n))[0])
            raise UserError(f"static.path={static.path}: {name} of edge {at} is {values[at]}; expected a neuron, 0 to {n - 1}.")
    if not np.all(np.isfinite(weight)):
        raise UserError(f"static.path={static.path}: the weight of edge {int(np.flatnonzero(~np.isfinite(weight))[0])} is not finite.")
    return Edges.from_pairs(pre, post, weight, n)


def class_weights(static: BalancedConfig, n_class: float) -> np.ndarray:
    """[2, 2] static weights in the balanced state (threshold*ms) with K_e = `n_class`, presynaptic class first, excitatory = 0."""
    scale = static.strength / math.sqrt(n_class) if n_class else 0.0
    return scale * np.array([[static.ee, static.ie], [static.ei, static.ii]])


def class_bias(static: StaticConfig, excitatory: np.ndarray, indptr: np.ndarray) -> np.ndarray:
    """[2] bias of excitatory and inhibitory neurons, threshold units; 0 except in the balanced state.

    Args:
      static: settings.
      excitatory: [N] bool.
      indptr: [N+1] ends of the outputs of each neuron, from which K_e follows where it depends on the regions.
    """
    if not isinstance(static, BalancedConfig):
        return np.zeros(2)
    regional = isinstance(static, RegionalConfig)
    n_class = mean_inputs(excitatory, indptr)[0] if regional else static.class_inputs(len(excitatory))
    return math.sqrt(n_class) * np.array([static.bias_exc, static.bias_inh])


def mean_inputs(excitatory: np.ndarray, indptr: np.ndarray) -> tuple[float, float]:
    """Mean numbers of excitatory and of inhibitory static inputs of a neuron; arguments as of `class_bias`."""
    degree = np.diff(np.asarray(indptr, np.int64))
    return float(degree[excitatory].sum() / len(degree)), float(degree[~excitatory].sum() / len(degree))


def regional_edges(static: RegionalConfig, stream: Array, excitatory: np.ndarray, regions: Regions) -> Edges:
    """Static synapses that exist independently of each other, with the probability of their regions and classes, times exp(-d/length)."""
    pre, post = pairs(np.asarray(stream), excitatory, regions, static.length)
    n = len(excitatory)
    order = np.argsort(pre, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(pre, minlength=n))])
    exc, inh = mean_inputs(excitatory, indptr)
    weights = class_weights(static, exc)
    weights[1] *= exc / inh if inh else 0.0
    return Edges(indptr, post[order].astype(np.int32), None, weights)


def regional_inputs(plastic: RegionalInputsConfig, stream: Array, excitatory: np.ndarray, regions: Regions) -> np.ndarray:
    """[G, L] plastic inputs of `RegionalInputsConfig`, excitatory first, those of the own region before the others; -1 pads.

    Raises:
      UserError: a group has neurons of several regions.
    """
    n, half, size = len(excitatory), plastic.n_inputs // 2, plastic.group_size
    groups = -(-n // size)
    of_group = regions.index[np.arange(groups) * size]
    if np.any(of_group[np.arange(n) // size] != regions.index):
        raise UserError(f"plastic.group_size={size}: puts neurons of several regions into a group; expected 1 with plastic=regional.")
    pre = np.full((groups, plastic.n_inputs), -1, np.int32)
    for label, mine in enumerate((excitatory, ~excitatory)):
        local = half if label and plastic.long_range == "exc" else round(plastic.local * half)
        for region in range(len(regions.names)):
            rows = np.flatnonzero(of_group == region)
            start = label * half
            for place, wanted in ((regions.index == region, local), (regions.index != region, half - local)):
                members = np.flatnonzero(mine & place)
                width = min(wanted, len(members))
                generator = generator_of(np.asarray(stream), 4 * region + 2 * label + int(start > label * half))
                pre[rows, start : start + width] = np.sort(members[distinct(generator, len(rows), width, len(members))], axis=1)
                start += wanted
    return pre


@partial(jax.jit, static_argnums=3)
def targets_of(stream: Array, neuron: Array, draw: Array, n: int) -> Array:
    """Postsynaptic neurons of some outputs of some neurons, drawn from counters.

    Args:
      stream: [2] uint32, key.
      neuron: [...] int32, presynaptic neurons.
      draw: [...] int32, index of the output among the outputs of its neuron, from 0.
      n: N.

    Returns:
      [...] int32. The outputs of a neuron reach distinct neurons, never itself.
    """
    offset = 1 + rng.permute(rng.fold(stream, neuron), draw.astype(jnp.uint32), n - 1)
    return (neuron + offset) % n


def draw_static(stream: Array, n: int, degree: int) -> np.ndarray:
    """[n*degree] int32: `degree` distinct postsynaptic neurons of each of `n` neurons, ascending, never itself; those of `targets_of`."""
    block, draws = max(1, 2**21 // max(1, degree)), jnp.arange(degree, dtype=jnp.int32)
    post = np.empty((n, degree), np.int32)
    for start in range(0, n, block):
        neurons = jnp.minimum(start + jnp.arange(block, dtype=jnp.int32), n - 1)[:, None]
        post[start : start + block] = np.asarray(targets_of(stream, neurons, draws[None, :], n))[: n - start]
        post[start : start + block].sort(axis=1)
    return post.reshape(-1)


@singledispatch
def plastic_inputs(plastic: PlasticConfig, stream: Array, excitatory: np.ndarray, activity: np.ndarray | None) -> np.ndarray:
    """[G, L] int: the plastic inputs of each group of `plastic.group_size` neurons; -1 pads.

    Args:
      plastic: settings; their class chooses the function that is registered for it.
      stream: [2] uint32, key of the random numbers.
      excitatory: [N] bool.
      activity: [N] number of spikes in the calibration; None unless `needs_activity`.

    Raises:
      UserError: no function is registered for the class of the settings, or there are too few neurons to draw from.
    """
    raise UserError(f"plastic.name: expected a function registered with wiring.plastic_inputs for {type(plastic).__name__}.")


@singledispatch
def needs_activity(plastic: PlasticConfig) -> bool:
    """Whether the choice of plastic inputs depends on the calibration."""
    return plastic.needs_activity


@plastic_inputs.register
def _random_inputs(plastic: RandomInputsConfig, stream: Array, excitatory: np.ndarray, activity: np.ndarray | None) -> np.ndarray:
    """Random plastic inputs, half of them from each class, excitatory first; in a class without repeats, ascending."""
    groups, half = -(-len(excitatory) // plastic.group_size), plastic.n_inputs // 2
    least = half if plastic.least_inputs is None else plastic.least_inputs // 2
    number = np.full(groups, half)
    if least < half:
        number -= np.floor(np.asarray(rng.uniform(rng.fold(stream, 2), groups, jnp.dtype("float32"))) * (half - least + 1)).astype(int)
    halves = []
    for label, members in enumerate((np.flatnonzero(excitatory), np.flatnonzero(~excitatory))):
        members = _candidates(plastic, members, activity)
        if half > len(members):
            share = f" and plastic.active_fraction={plastic.active_fraction:g}" if plastic.active_fraction < 1 else ""
            raise UserError(
                f"plastic.n_inputs={plastic.n_inputs}: expected at most {2 * len(members)}, because half of them are drawn from"
                f" {len(members)} {('excitatory', 'inhibitory')[label]} neurons (network.n_neurons={len(excitatory)}{share})."
            )
        halves.append(_sorted_inputs(rng.fold(stream, label), members, number, half))
    return np.concatenate(halves, axis=1)


def _candidates(plastic: RandomInputsConfig, members: np.ndarray, activity: np.ndarray | None) -> np.ndarray:
    """Neurons of one class, out of `members`, from which inputs are drawn: all, or the most active ones; ascending."""
    if activity is None or plastic.active_fraction == 1:
        return members
    most_active = np.argsort(-activity[members], kind="stable")[: math.ceil(plastic.active_fraction * len(members))]
    return members[np.sort(most_active)]


def _sorted_inputs(stream: Array, members: np.ndarray, number: np.ndarray, width: int) -> np.ndarray:
    """[G, width] int32: `number` [G] of distinct `members` for each group, ascending, then -1."""
    if not width:
        return np.zeros((len(number), 0), np.int32)
    beyond = np.iinfo(np.int32).max
    inputs = members.astype(np.int32)[np.asarray(_draw_rows(stream, len(number), width, len(members)))]
    inputs = np.sort(np.where(np.arange(width) < number[:, None], inputs, beyond), axis=1)
    return np.where(inputs == beyond, -1, inputs)


@partial(jax.jit, static_argnums=(1, 2, 3))
def _draw_rows(stream: Array, rows: int, size: int, n: int) -> Array:
    """[rows, size] int32: in each row, distinct random numbers below n."""
    streams = rng.fold(stream, jnp.arange(rows, dtype=jnp.uint32))
    return rng.permute(streams[:, None, :], jnp.arange(size, dtype=jnp.uint32)[None, :], n)


def initial_weights(plastic: PlasticConfig, pre: np.ndarray, excitatory: np.ndarray, dtype: Any = np.float64) -> np.ndarray:
    """[G, L] initial plastic weights (threshold*ms): +-strength/(2*sqrt(inputs/2)) by the class of the input, 0 where pre pads."""
    number = np.maximum(np.sum(pre >= 0, axis=1, keepdims=True), 1)
    size = (plastic.strength / (2 * np.sqrt(number / 2))).astype(dtype)
    weight = np.where(excitatory[pre], size, -size)
    weight[pre < 0] = 0
    return weight


def outputs_of(pre: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The outputs of `n` neurons, from the inputs of groups.

    Args:
      pre: [G, L] int, inputs of each group; -1 pads.
      n: number of presynaptic neurons.

    Returns:
      [n+1] int32 out_indptr and [nnz] int32 out_slot: the inputs from neuron j are the flat positions
      out_slot[out_indptr[j]:out_indptr[j+1]] of `pre`, ascending.
    """
    from scipy.sparse import csr_array

    used = pre >= 0
    slots = np.flatnonzero(used).astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(used.sum(axis=1))]).astype(np.int32)
    by_neuron = csr_array((slots, pre[used], starts), shape=(len(pre), n)).tocsc()
    return by_neuron.indptr.astype(np.int32), by_neuron.data


def to_groups(weight: np.ndarray, group_size: int) -> np.ndarray:
    """Weights [N, L] as [G, L, S]; zeros for the neurons that are missing in the last group."""
    n, inputs = weight.shape
    groups = -(-n // group_size)
    padded = np.concatenate([weight, np.zeros((groups * group_size - n, inputs), weight.dtype)])
    return np.ascontiguousarray(padded.reshape(groups, group_size, inputs).transpose(0, 2, 1))


def from_groups(weight: np.ndarray, n: int) -> np.ndarray:
    """Weights [G, L, S] as [N, L], the inverse of `to_groups`."""
    return weight.transpose(0, 2, 1).reshape(-1, weight.shape[1])[:n]
