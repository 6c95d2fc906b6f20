"""Random wiring, drawn from counters: static outputs, plastic inputs, weights; and the same wiring seen from its other end."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from rlsnet import rng
from rlsnet.config import PlasticConfig, StaticConfig


def class_weights(static: StaticConfig) -> np.ndarray:
    """[2, 2] static weights in the balanced state, presynaptic class first, excitatory = 0."""
    n_class = static.out_degree / 2
    scale = static.strength / math.sqrt(n_class) if n_class else 0.0
    return scale * np.array([[static.ee, static.ie], [static.ei, static.ii]])


def class_bias(static: StaticConfig) -> np.ndarray:
    """[2] constant drive of excitatory and inhibitory neurons."""
    return math.sqrt(static.out_degree / 2) * np.array([static.bias_exc, static.bias_inh])


@partial(jax.jit, static_argnums=(1, 2))
def draw_static(stream: Array, n: int, degree: int) -> Array:
    """[n*degree] int32: `degree` distinct targets of each of `n` neurons, itself never among them."""
    block = max(1, min(n, 2**21 // max(1, degree)))
    draws = jnp.arange(degree, dtype=jnp.uint32)

    def fill(index: Array, post: Array) -> Array:
        start = jnp.minimum(index * block, n - block)
        neuron = start + jnp.arange(block, dtype=jnp.int32)
        offset = 1 + rng.permute(rng.fold(stream, neuron)[:, None, :], draws[None, :], n - 1)
        return lax.dynamic_update_slice(post, ((neuron[:, None] + offset) % n).reshape(-1), (start * degree,))

    return lax.fori_loop(0, -(-n // block), fill, jnp.zeros(n * degree, jnp.int32))


def draw_plastic(stream: Array, plastic: PlasticConfig, excitatory: np.ndarray) -> np.ndarray:
    """[G, L] int32: each group's plastic inputs, excitatory ones first, each class without repeats and in order."""
    groups = -(-len(excitatory) // plastic.group_size)
    half = plastic.n_inputs // 2
    rows = []
    for label, members in enumerate((np.flatnonzero(excitatory), np.flatnonzero(~excitatory))):
        if not half:
            rows.append(np.zeros((groups, 0), np.int32))
            continue
        draw = _draw_rows(rng.fold(stream, label), groups, half, len(members))
        rows.append(np.sort(members.astype(np.int32)[np.asarray(draw)], axis=1))
    return np.concatenate(rows, axis=1)


@partial(jax.jit, static_argnums=(1, 2, 3))
def _draw_rows(stream: Array, rows: int, size: int, n: int) -> Array:
    """[rows, size] int32: in each row, distinct numbers below n."""
    streams = rng.fold(stream, jnp.arange(rows, dtype=jnp.uint32))
    return rng.permute(streams[:, None, :], jnp.arange(size, dtype=jnp.uint32)[None, :], n)


def initial_weights(plastic: PlasticConfig, pre: np.ndarray, excitatory: np.ndarray) -> np.ndarray:
    """[G, L] initial plastic weights, +-strength/(2*sqrt(L/2)) by the class of the input, 0 where pre pads."""
    size = plastic.strength / (2 * math.sqrt(plastic.n_inputs / 2)) if plastic.n_inputs else 0.0
    return np.where(pre < 0, 0.0, np.where(excitatory[pre], size, -size))


def outputs_of(pre: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(out_indptr [n+1], out_slot [G*L]) of plastic inputs [G, L]: each neuron's slots, in order."""
    from scipy.sparse import csr_array

    kept = pre >= 0
    slots = np.flatnonzero(kept).astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int32)
    by_neuron = csr_array((slots, pre[kept], starts), shape=(len(pre), n)).tocsc()
    return by_neuron.indptr.astype(np.int32), by_neuron.data


def to_groups(weight: np.ndarray, group_size: int) -> np.ndarray:
    """[N, L] weights as [G, L, S], the last group filled up with zeros."""
    n, inputs = weight.shape
    groups = -(-n // group_size)
    padded = np.concatenate([weight, np.zeros((groups * group_size - n, inputs), weight.dtype)])
    return np.ascontiguousarray(padded.reshape(groups, group_size, inputs).transpose(0, 2, 1))


def from_groups(weight: np.ndarray, n: int) -> np.ndarray:
    """[G, L, S] weights as [N, L], the inverse of `to_groups`."""
    return weight.transpose(0, 2, 1).reshape(-1, weight.shape[1])[:n]
