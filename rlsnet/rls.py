"""Recursive least squares: every neuron learns its plastic weights by itself.

`update` is the rule for one neuron (or one group that shares its inputs); vmap lifts it over the network. `update_deferred` is
the same rule without writing P each time. Both are exact. A trial is `begin`, then `learn` at each learning point, then `finish`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from rlsnet import kernels as kernels_
from rlsnet.config import RLSConfig
from rlsnet.network import Network

EXACT = lax.Precision.HIGHEST  # no TF32 on GPUs
WHOLE = 2**25  # numbers of P up to which all groups are updated at once
BLOCK = 2**20  # numbers of P in a block of groups else: small enough that P is still in the cache when it is written
BLOCK_GPU = 2**27  # on a GPU: enough work for one operation
PENDING = 16  # updates that P takes in at once in the deferred form


@partial(jax.tree_util.register_dataclass, data_fields=["w", "P"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Learner:
    """What learning changes, and a checkpoint saves.

    w: [G, L, S] plastic weights, threshold*ms.
    P: [G, L, L] inverse correlation of the plastic inputs, symmetric to the last bit.
    """

    w: Array
    P: Array


@partial(jax.tree_util.register_dataclass, data_fields=["count", "u", "g", "r", "n_spikes"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Pending:
    """Updates within a trial that P has yet to take in, P_now = P - sum_q u_q u_q^T, and what the last one left behind.

    count: int32, updates in u.
    u: [G, Q, L] their sqrt(den)*k; zero, or not to be read, beyond count.
    g: [G, L] den*k of the last update.
    r: [N] filtered spikes at the last update.
    n_spikes: [N] int32, spikes of the trial until then.
    """

    count: Array
    u: Array
    g: Array
    r: Array
    n_spikes: Array


def method(rls: RLSConfig, kernels: str) -> str:
    """`dense` or `deferred`, as rls.method asks; auto takes what was faster: on a CPU, XLA does dense updates best."""
    if rls.method != "auto":
        return rls.method
    return "dense" if kernels == "xla" else "deferred"


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


def update_deferred(gain: str, P: Array, u: Array, w: Array, x: Array, e: Array) -> tuple[Array, Array]:
    """`update` where P [L, L] stays as it is and lacks sum_q u_q u_q^T, u [Q, L].

        k   = P x - sum_q u_q (u_q.x)

    Returns:
      The u of this update, sqrt(den)*k [L], and w after it.
    """
    k = jnp.matmul(P, x, precision=EXACT) - jnp.matmul(jnp.matmul(u, x, precision=EXACT), u, precision=EXACT)
    den = 1 / (1 + jnp.dot(x, k, precision=EXACT))
    step = k if gain == "tsn_head" else den * k
    return jnp.sqrt(den) * k, w - step[:, None] * e[None, :]


def take_in(P: Array, u: Array) -> Array:
    """[L, L]  P - sum_q u_q u_q^T, written so that it compiles to one pass over P."""
    for row in u:
        P = P - row[:, None] * row[None, :]
    return P


def gather_inputs(network: Network, r: Array) -> Array:
    """[G, L] filtered spikes of each group's plastic inputs, 0 where padded."""
    return jnp.where(network.pre >= 0, r[network.pre], 0)


def errors(network: Network, w: Array, x: Array, lack: Array) -> Array:
    """[G, S]  e = w.x + lack, where lack [N] is u_bal - target; 0 for the neurons that fill up the last group."""
    groups, size = w.shape[0], network.group_size
    lack = jnp.pad(lack, (0, groups * size - network.n_neurons)).reshape(groups, size)
    return jnp.einsum("gls,gl->gs", w, x, precision=EXACT) + lack


def begin(rls: RLSConfig, kernels: str, network: Network, learner: Learner, points: int) -> Pending | None:
    """What a trial of so many learning points starts with: nothing pending; None in the dense form."""
    if method(rls, kernels) == "dense":
        return None
    groups, inputs, _ = learner.w.shape
    most = -(-points // -(-points // PENDING))  # equal shares of at most PENDING
    zeros = partial(jnp.zeros, dtype=learner.P.dtype)
    n = network.n_neurons
    return Pending(jnp.int32(0), zeros((groups, most, inputs)), zeros((groups, inputs)), zeros(n), jnp.zeros(n, jnp.int32))


def learn(
    rls: RLSConfig,
    kernels: str,
    network: Network,
    learner: Learner,
    pending: Pending | None,
    decay: float,
    r: Array,
    n_spikes: Array,
    lack: Array,
) -> tuple[Learner, Pending | None]:
    """One learning point of the whole network.

    Args:
      rls: settings.
      kernels: native, or XLA's.
      network: wiring.
      learner: before.
      pending: before; None chooses the dense form.
      decay: of r between two learning points.
      r: [N] filtered spikes.
      n_spikes: [N] int32, spikes of the trial that are in r.
      lack: [N] u_bal - target: current through static synapses, less the total current wanted.
    """
    if pending is None:
        return _learn_dense(rls, network, learner, r, lack), None
    if kernels == "native":
        return _learn_native(rls, network, learner, pending, decay, r, n_spikes, lack)
    P, u = _take_in_all(learner.P, pending, pending.count == pending.u.shape[1])
    count = pending.count % pending.u.shape[1]
    x = gather_inputs(network, r)
    latest, w = jax.vmap(partial(update_deferred, rls.gain))(P, u, learner.w, x, errors(network, learner.w, x, lack))
    u = lax.dynamic_update_slice_in_dim(u, latest[:, None], count, 1)
    return Learner(w, P), dataclasses.replace(pending, count=count + 1, u=u)


def finish(kernels: str, learner: Learner, pending: Pending | None) -> Learner:
    """The learner with all that was pending taken into P."""
    if pending is None:
        return learner
    if kernels == "native":
        return dataclasses.replace(learner, P=kernels_.flush(pending.count, pending.u, learner.P))
    return dataclasses.replace(learner, P=_take_in_all(learner.P, pending, jnp.bool_(True))[0])


def _learn_native(
    rls: RLSConfig, network: Network, learner: Learner, pending: Pending, decay: float, r: Array, n_spikes: Array, lack: Array
) -> tuple[Learner, Pending]:
    """The deferred form with fewer bytes: most of k follows from the last update.

    r = decay*r_last + arrived, where arrived is 0 but for inputs that spiked. So with g = P_last x_last

        k = decay*g + P arrived - sum_q u_q (u_q.arrived)

    which needs only the rows of P whose input spiked. Whenever P takes in what is pending, as at a trial's first point, k is P x anew,
    so that rounding does not build up.
    """
    refresh = pending.count % pending.u.shape[1] == 0
    arrived = jnp.where(n_spikes == pending.n_spikes, 0, r - decay * pending.r)
    textbook = rls.gain == "textbook"
    P, w, u, g = kernels_.learn(
        textbook, pending.count, refresh, decay, r, arrived, network.pre, lack, learner.P, learner.w, pending.u, pending.g
    )
    return Learner(w, P), Pending(jnp.where(refresh, 1, pending.count + 1), u, g, r, n_spikes)


def _take_in_all(P: Array, pending: Pending, now: Array) -> tuple[Array, Array]:
    """P and u after P has taken in all of u, if `now`, in place. What is not used of u is zero."""
    (P,) = _by_blocks(lambda P, u: (jax.vmap(take_in)(P, u),), (P,), (pending.u,), now)
    return P, jnp.where(now, 0, pending.u)


def _learn_dense(rls: RLSConfig, network: Network, learner: Learner, r: Array, lack: Array) -> Learner:
    """`update` of all groups, by blocks of groups where P is large."""
    x = gather_inputs(network, r)
    e = errors(network, learner.w, x, lack)
    update_all = jax.vmap(partial(update, rls.gain))
    if learner.P.size <= WHOLE:
        P, w = update_all(learner.P, learner.w, x, e)
    else:
        P, w = _by_blocks(update_all, (learner.P, learner.w), (x, e), jnp.bool_(True))
    return Learner(w, P)


def _by_blocks(
    change: Callable[..., tuple[Array, ...]], changed: tuple[Array, ...], given: tuple[Array, ...], now: Array
) -> tuple[Array, ...]:
    """change(*changed, *given) in place, a block of groups at a time, if `now`.

    Args:
      change: what becomes of `changed`; must leave it as it is where `given` is 0.
      changed: arrays [G, ...], P [G, L, L] the first.
      given: arrays [G, ...].
      now: bool; a loop of no turns otherwise, as a condition might copy P.
    """
    groups, inputs = changed[0].shape[:2]
    numbers = BLOCK if kernels_.platform_in_use() == "cpu" else BLOCK_GPU
    size = max(1, min(groups, numbers // inputs**2))

    def one_block(index: Array, changed: tuple[Array, ...]) -> tuple[Array, ...]:
        start = jnp.minimum(index * size, groups - size)
        fresh = start + jnp.arange(size, dtype=jnp.int32) >= index * size  # the last block overlaps the one before
        parts = [lax.dynamic_slice_in_dim(array, start, size) for array in (*changed, *given)]
        own, rest = parts[: len(changed)], parts[len(changed) :]
        after = change(*own, *(jnp.where(jnp.expand_dims(fresh, tuple(range(1, part.ndim))), part, 0) for part in rest))
        return tuple(lax.dynamic_update_slice_in_dim(array, part, start, 0) for array, part in zip(changed, after, strict=True))

    return lax.fori_loop(0, jnp.where(now, -(-groups // size), 0), one_block, changed)
