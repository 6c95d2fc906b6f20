"""How P is kept: as it is computed with, in fewer bits, as its upper triangle, or not at all.

In full and in the engine's own numbers P is a plain array [G, L, L]. Else it is `Kept`, which is decoded a block of groups at a
time, or a `Window` on the last regressors, from which it can be computed.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rlsnet.config import RLSConfig, by_class
from rlsnet.network import Network


@partial(jax.tree_util.register_dataclass, data_fields=["numbers", "scale"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Kept:
    """P of some groups in another form.

    numbers: [G, L, L], or [G, L*(L+1)/2] upper triangles by rows.
    scale: [G, 1] what the numbers of int16 are multiples of; else None.
    """

    numbers: Array
    scale: Array | None


@partial(jax.tree_util.register_dataclass, data_fields=["r", "on", "count", "positive"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Window:
    """What P of storage=window is computed from.

    r: [W, N+X] filtered spikes at the last W learning points, 0 before the first.
    on: [G, W] bool, which of them count: those at which somebody of the group was trained.
    count: [1] int32, learning points so far; the next one goes to row count % W.
    positive: [G, L] bool, the sign that a weight started with.
    """

    r: Array
    on: Array
    count: Array
    positive: Array


Stored = Array | Kept | Window


def triangle(n: int) -> np.ndarray:
    """[n, n] int32, the place of each entry of a symmetric matrix in its upper triangle read by rows."""
    i, j = np.triu_indices(n)
    place = np.empty((n, n), np.int32)
    place[i, j] = place[j, i] = np.arange(len(i))
    return place


def number_type(rls: RLSConfig, engine: jnp.dtype) -> jnp.dtype:
    """The type of P's numbers, `engine` where rls.precision is auto."""
    return jnp.dtype(engine if rls.precision == "auto" else rls.precision)


def is_plain(rls: RLSConfig, engine: jnp.dtype) -> bool:
    """Whether P is kept as it is computed with."""
    return rls.storage == "full" and number_type(rls, engine) == engine


def encode(rls: RLSConfig, P: Array) -> Kept:
    """P [G, L, L] as rls.storage and rls.precision want it kept; numbers are rounded to the nearest."""
    kind, scale, numbers = number_type(rls, P.dtype), None, P
    if rls.storage == "packed":
        numbers = numbers[(slice(None), *np.triu_indices(P.shape[-1]))]
    if kind == jnp.int16:
        flat = numbers.reshape(len(P), -1)
        scale = jnp.maximum(jnp.max(jnp.abs(flat), axis=1, keepdims=True), jnp.finfo(P.dtype).tiny) / 32767
        numbers = jnp.rint(flat / scale).reshape(numbers.shape)
    return Kept(numbers.astype(kind), scale)


def decode(rls: RLSConfig, kept: Kept, inputs: int, dtype: jnp.dtype) -> Array:
    """P [G, L, L], the inverse of `encode` but for rounding."""
    numbers = kept.numbers
    if rls.storage == "packed":
        numbers = numbers[:, triangle(inputs)]
    numbers = numbers.astype(dtype)
    return numbers if kept.scale is None else numbers * kept.scale[:, :, None]


def same_sign(rls: RLSConfig, positive: Array, pre: Array, n_neurons: int, dtype: jnp.dtype) -> list[tuple[float, Array]]:
    """For each sign its penmu and [G, L] whether (1 or 0) a weight started with it; padded and feed-forward inputs have none."""
    inside = (pre >= 0) & (pre < n_neurons)
    return [(mu, (sign & inside).astype(dtype)) for sign, mu in zip((positive, ~positive), by_class(rls.penmu), strict=True)]


def penalty(rls: RLSConfig, positive: Array, pre: Array, n_neurons: int, dtype: jnp.dtype) -> Array:
    """[G, L, L]  A_0 = inv(P_0): penlambda (feed-forward: penlam_ff) on the diagonal, penmu between weights of one sign."""
    diagonal = jnp.where(pre >= n_neurons, rls.penlam_ff, rls.penlambda).astype(dtype)
    A = diagonal[:, :, None] * jnp.eye(pre.shape[1], dtype=dtype)[None]
    for mu, member in same_sign(rls, positive, pre, n_neurons, dtype):
        A = A + mu * (member[:, :, None] * member[:, None, :])
    return A


def starting_sign(w: Array, network: Network) -> Array:
    """[G, L] bool: the sign of a weight's sum over its group, or of its presynaptic class where that is zero."""
    total = jnp.sum(w, axis=2)
    return jnp.where(total == 0, network.excitatory[jnp.minimum(network.pre, network.n_neurons - 1)], total > 0)


def window_product(rls: RLSConfig, regressors: Array, positive: Array, pre: Array, n_neurons: int, x: Array) -> Array:
    """[G, L]  k = P x  with  P = inv(A_0 + sum of x x^T over the window), for a block of groups.

    Args:
      rls: penalties.
      regressors: [W, G, L] the window's x.
      positive: [G, L].
      pre: [G, L].
      n_neurons: N.
      x: [G, L].
    """
    A = penalty(rls, positive, pre, n_neurons, x.dtype) + jnp.einsum("wgi,wgj->gij", regressors, regressors, precision="highest")
    factor = jax.scipy.linalg.cho_factor(A)[0]
    return jax.scipy.linalg.cho_solve((factor, False), x[:, :, None])[:, :, 0]
