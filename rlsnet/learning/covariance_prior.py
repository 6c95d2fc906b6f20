"""Prior of P: P_0 before the first update, and its inverse, the penalties on the weights."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from rlsnet.config.schema import RLSConfig, by_class
from rlsnet.model.network import Network


def starting_sign(w: Array, network: Network) -> Array:
    """[G, L] bool: the sign of a weight's sum over its group, or of its presynaptic class where that is zero."""
    total = jnp.sum(w, axis=2)
    return jnp.where(total == 0, network.classes[jnp.minimum(network.pre, network.n_whole - 1)], total > 0)


def same_sign(rls: RLSConfig, positive: Array, pre: Array, n_neurons: int, dtype: jnp.dtype) -> list[tuple[float, Array]]:
    """For each sign, penmu and [G, L] whether (1 or 0) the initial weight has this sign; padded and feed-forward inputs have none."""
    inside = (pre >= 0) & (pre < n_neurons)
    return [(mu, (sign & inside).astype(dtype)) for sign, mu in zip((positive, ~positive), by_class(rls.penmu), strict=True)]


def initial_P(rls: RLSConfig, positive: Array, pre: Array, n_neurons: int, dtype: jnp.dtype) -> Array:
    """[G, L, L]  P_0 = inv(penlambda*I + penmu*[same sign of w]), feed-forward inputs inv(penlam_ff*I), in closed form.

    With n inputs of one sign the inverse's block is I/lambda - mu/(lambda*(lambda + n*mu)). Padded inputs are in no block, and P
    is 0 there, so that forgetting does not make it grow.
    """
    lam = rls.penlambda
    diagonal = jnp.where(pre < 0, 0, jnp.where(pre >= n_neurons, 1 / rls.penlam_ff, 1 / lam)).astype(dtype)
    P = diagonal[:, :, None] * jnp.eye(pre.shape[1], dtype=dtype)[None]
    for mu, member in same_sign(rls, positive, pre, n_neurons, dtype):
        n = jnp.sum(member, axis=1)[:, None, None]
        P = P - (mu / (lam * (lam + n * mu))) * (member[:, :, None] * member[:, None, :])
    return P


def penalty(rls: RLSConfig, positive: Array, pre: Array, n_neurons: int, dtype: jnp.dtype) -> Array:
    """[G, L, L]  A_0 = inv(P_0): penlambda (feed-forward: penlam_ff) on the diagonal, penmu between weights of one sign."""
    diagonal = jnp.where(pre >= n_neurons, rls.penlam_ff, rls.penlambda).astype(dtype)
    A = diagonal[:, :, None] * jnp.eye(pre.shape[1], dtype=dtype)[None]
    for mu, member in same_sign(rls, positive, pre, n_neurons, dtype):
        A = A + mu * (member[:, :, None] * member[:, None, :])
    return A
