"""Recursive least squares: every neuron learns its plastic weights by itself.

`update` is the rule for one neuron (or one group that shares its inputs); `learn` lifts it over the network with vmap.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from rlsnet.config import RLSConfig
from rlsnet.network import Network

EXACT = lax.Precision.HIGHEST  # no TF32 on GPUs
WHOLE = 2**25  # numbers of P up to which all groups are updated at once
BLOCK = 2**20  # numbers of P in a block of groups else: small enough that P is still in the cache when it is written


@partial(jax.tree_util.register_dataclass, data_fields=["w", "P"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Learner:
    """What learning changes, and a checkpoint saves.

    w: [G, L, S] plastic weights, threshold*ms.
    P: [G, L, L] inverse correlation of the plastic inputs, symmetric to the last bit.
    """

    w: Array
    P: Array


def initial_P(rls: RLSConfig, w: Array, pre: Array, excitatory: Array) -> Array:
    """[G, L, L]  P_0 = inv(penlambda*I + penmu*[same sign of w]), in closed form.

    With n inputs of one sign the inverse's block is I/lambda - mu/(lambda*(lambda + n*mu)). The sign of a weight is that of
    its sum over the group, of its presynaptic class where that is zero; padded inputs are in no block.
    """
    lam, mu = rls.penlambda, rls.penmu
    total = jnp.sum(w, axis=2)
    positive = jnp.where(total == 0, excitatory[pre], total > 0)
    P = jnp.eye(w.shape[1], dtype=w.dtype)[None] / lam
    for sign in (positive, ~positive):
        member = (sign & (pre >= 0)).astype(w.dtype)
        n = jnp.sum(member, axis=1)[:, None, None]
        P = P - (mu / (lam * (lam + n * mu))) * (member[:, :, None] * member[:, None, :])
    return P


def init(rls: RLSConfig, network: Network, w: Array) -> Learner:
    """A learner that has seen nothing, with weights w [G, L, S]."""
    P = jax.jit(initial_P, static_argnums=0)(rls, w, network.pre, network.excitatory)
    return Learner(w, P)


def update(gain: str, P: Array, w: Array, x: Array, e: Array) -> tuple[Array, Array]:
    """One update of one group of S neurons that share L inputs.

        k   = P x
        den = 1/(1 + x.k)
        P  <- P - den k k^T
        w  <- w - den k e^T        (gain tsn_head: w - k e^T)

    Args:
      gain: textbook or tsn_head.
      P: [L, L].
      w: [L, S].
      x: [L] filtered spikes of the inputs.
      e: [S] error of the current, w.x + u_bal - target.

    Returns:
      P and w after the update.
    """
    k = jnp.matmul(P, x, precision=EXACT)
    den = 1 / (1 + jnp.dot(x, k, precision=EXACT))
    step = k if gain == "tsn_head" else den * k
    return P - den * (k[:, None] * k[None, :]), w - step[:, None] * e[None, :]


def gather_inputs(network: Network, r: Array) -> Array:
    """[G, L] filtered spikes of each group's plastic inputs, 0 where padded."""
    return jnp.where(network.pre >= 0, r[network.pre], 0)


def errors(network: Network, w: Array, x: Array, u_bal: Array, target: Array) -> Array:
    """[G, S]  e = w.x + u_bal - target; 0 for the neurons that fill up the last group."""
    groups, size = w.shape[0], network.group_size
    lack = jnp.pad(u_bal - target, (0, groups * size - network.n_neurons)).reshape(groups, size)
    return jnp.einsum("gls,gl->gs", w, x, precision=EXACT) + lack


def learn(rls: RLSConfig, network: Network, learner: Learner, r: Array, u_bal: Array, target: Array) -> Learner:
    """One learning point of the whole network, by blocks of groups where P is large.

    Args:
      rls: settings.
      network: wiring.
      learner: before.
      r: [N] filtered spikes.
      u_bal: [N] current through static synapses.
      target: [N] total current wanted.
    """
    x = gather_inputs(network, r)
    e = errors(network, learner.w, x, u_bal, target)
    update_all = jax.vmap(partial(update, rls.gain))
    groups, inputs = x.shape
    if learner.P.size <= WHOLE:
        P, w = update_all(learner.P, learner.w, x, e)
        return Learner(w, P)
    size = max(1, min(groups, BLOCK // inputs**2))

    def one_block(index: Array, learner: Learner) -> Learner:
        start = jnp.minimum(index * size, groups - size)
        seen = (start + jnp.arange(size, dtype=jnp.int32) < index * size)[:, None]  # the last block overlaps
        P, w, x_, e_ = (lax.dynamic_slice_in_dim(array, start, size) for array in (learner.P, learner.w, x, e))
        P, w = update_all(P, w, jnp.where(seen, 0, x_), jnp.where(seen, 0, e_))  # where x = 0 nothing changes
        return Learner(*(lax.dynamic_update_slice_in_dim(*pair, start, 0) for pair in ((learner.w, w), (learner.P, P))))

    return lax.fori_loop(0, -(-groups // size), one_block, learner)
