"""Recursive least squares: every neuron learns its plastic weights by itself.

`update` is the rule for one neuron (or one group that shares its inputs); vmap lifts it over the network. `update_deferred` is
the same rule without writing P each time. Both are exact. A trial is `begin`, then `learn` at each learning point, then `finish`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from rlsnet import kernels as kernels_
from rlsnet.config import RLSConfig
from rlsnet.network import Network, gather_inputs
from rlsnet.storage import Kept, Stored, Window, decode, encode, is_plain, same_sign, starting_sign, window_product

EXACT = lax.Precision.HIGHEST  # no TF32 on GPUs
WHOLE = 2**25  # numbers of P up to which all groups are updated at once
BLOCK = 2**20  # numbers of P in a block of groups else: small enough that P is still in the cache when it is written
BLOCK_GPU = 2**27  # on a GPU: enough work for one operation
PENDING = 16  # updates that P takes in at once in the deferred form
LEAST_FORGETTING = 0.97  # below, updates of what has wound up are left to the dense form, which stands more of it
MOST_FACTOR = 1.2  # by which forgetting may raise P before P takes it in


@partial(jax.tree_util.register_dataclass, data_fields=["w", "P"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Learner:
    """What learning changes, and a checkpoint saves. L counts feed-forward and plastic inputs alike.

    w: [G, L, S] trained weights, threshold*ms.
    P: inverse correlation of the inputs, symmetric to the last bit: [G, L, L], or another form of `storage`.
    """

    w: Array
    P: Stored


@partial(jax.tree_util.register_dataclass, data_fields=["count", "u", "factor", "g", "r", "n_spikes"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Pending:
    """Updates within a trial that P has yet to take in, P_now = factor*(P - sum_q u_q u_q^T), and what the last one left behind.

    count: int32, updates in u.
    u: [G, Q, L] their sqrt(den/factor)*k; zero, or not to be read, beyond count.
    factor: [G] one over the forgetting since P last took in what was pending.
    g: [G, L] P_now x of the last update's x.
    r: [N+X] filtered spikes at the last update.
    n_spikes: [N+X] int32, spikes of the trial until then.
    """

    count: Array
    u: Array
    factor: Array
    g: Array
    r: Array
    n_spikes: Array


def form(rls: RLSConfig, kernels: str, dtype: jnp.dtype, shared: bool = True) -> str:
    """`dense`, `deferred` or `native` (deferred in compiled kernels), as rls.method asks.

    auto takes what was fastest; where P is in fewer bits, what rounds it least. The native form knows those of float32.

    Args:
      rls: settings.
      kernels: native, xla or wide.
      dtype: of the engine's numbers.
      shared: whether all inputs have one time constant.
    """
    plain = is_plain(rls, dtype)
    wanted = rls.method
    if wanted == "auto":
        wanted = "dense" if (plain and kernels == "xla") or rls.forgetting < LEAST_FORGETTING else "deferred"
    native = kernels == "native" and shared and rls.storage != "window" and (plain or dtype == jnp.float32)
    return "native" if wanted == "deferred" and native else wanted


def initial_P(rls: RLSConfig, positive: Array, pre: Array, n_neurons: int, dtype: jnp.dtype) -> Array:
    """[G, L, L]  P_0 = inv(penlambda*I + penmu*[same sign of w]), feed-forward inputs inv(penlam_ff*I), in closed form.

    With n inputs of one sign the inverse's block is I/lambda - mu/(lambda*(lambda + n*mu)). Padded inputs are in no block, and P
    is 0 there, lest forgetting makes it grow.
    """
    lam = rls.penlambda
    diagonal = jnp.where(pre < 0, 0, jnp.where(pre >= n_neurons, 1 / rls.penlam_ff, 1 / lam)).astype(dtype)
    P = diagonal[:, :, None] * jnp.eye(pre.shape[1], dtype=dtype)[None]
    for mu, member in same_sign(rls, positive, pre, n_neurons, dtype):
        n = jnp.sum(member, axis=1)[:, None, None]
        P = P - (mu / (lam * (lam + n * mu))) * (member[:, :, None] * member[:, None, :])
    return P


def init(rls: RLSConfig, network: Network, w: Array) -> Learner:
    """A learner that has seen nothing, with weights w [G, L, S]."""

    @jax.jit
    def make(w: Array) -> Stored:
        positive, dtype = starting_sign(w, network), w.dtype
        if rls.storage == "window":
            n, groups = network.n_neurons + network.n_feedforward, len(positive)
            return Window(jnp.zeros((rls.window, n), dtype), jnp.zeros((groups, rls.window), bool), jnp.zeros(1, jnp.int32), positive)
        whole = partial(initial_P, rls, n_neurons=network.n_neurons, dtype=dtype)
        if is_plain(rls, dtype):
            return whole(positive, network.pre)
        like = jax.eval_shape(lambda: encode(rls, whole(positive, network.pre)))
        empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
        return _by_blocks(network.n_inputs, lambda _, s, p: encode(rls, whole(s, p)), empty, (positive, network.pre))

    return Learner(w, make(w))


def update(rls: RLSConfig, P: Array, w: Array, x: Array, e: Array, on: Array) -> tuple[Array, Array]:
    """One update of one group of S neurons that share L inputs.

        k   = P x
        den = 1/(forgetting + x.k)
        P  <- (P - den k k^T)/forgetting
        w  <- w - den k e^T        (gain tsn_head: w - k e^T)

    Args:
      rls: gain and forgetting.
      P: [L, L].
      w: [L, S].
      x: [L] filtered spikes of the inputs.
      e: [S] error of the current, w.x + u_bal - target.
      on: bool; if not, nothing changes.

    Returns:
      P and w after the update.
    """
    k = jnp.matmul(P, x, precision=EXACT)
    den = jnp.where(on, 1 / (rls.forgetting + jnp.dot(x, k, precision=EXACT)), 0)
    P = P - den * (k[:, None] * k[None, :])
    if rls.forgetting != 1:
        P = P * jnp.where(on, 1 / rls.forgetting, 1)
    return P, w - _gain(rls, k, den, on)[:, None] * e[None, :]


def _gain(rls: RLSConfig, k: Array, den: Array, on: Array) -> Array:
    """[L] what a weight changes by for an error of -1."""
    return jnp.where(on, k, 0) if rls.gain == "tsn_head" else den * k


def update_deferred(
    rls: RLSConfig, P: Array, u: Array, factor: Array, w: Array, x: Array, e: Array, on: Array
) -> tuple[Array, Array, Array]:
    """`update` where P [L, L] stays as it is, and P_now = factor*(P - sum_q u_q u_q^T), u [Q, L].

        k      = factor*(P x - sum_q u_q (u_q.x))
        u_new  = sqrt(den/factor) k
        factor <- factor/forgetting

    Returns:
      The u of this update [L], and factor and w after it.
    """
    k = jnp.matmul(P, x, precision=EXACT) - jnp.matmul(jnp.matmul(u, x, precision=EXACT), u, precision=EXACT)
    if rls.forgetting != 1:
        k = factor * k
    den = jnp.where(on, 1 / (rls.forgetting + jnp.dot(x, k, precision=EXACT)), 0)
    w = w - _gain(rls, k, den, on)[:, None] * e[None, :]
    return jnp.sqrt(den / factor) * k, jnp.where(on, factor / rls.forgetting, factor), w


def take_in(rls: RLSConfig, P: Array, u: Array, factor: Array) -> Array:
    """[L, L]  factor*(P - sum_q u_q u_q^T), written so that it compiles to one pass over P."""
    for row in u:
        P = P - row[:, None] * row[None, :]
    return P if rls.forgetting == 1 else factor * P


def by_group(network: Network, values: Array) -> Array:
    """[N] as [G, S], NaN for the neurons that fill up the last group."""
    groups, size = network.pre.shape[0], network.group_size
    return jnp.pad(values, (0, groups * size - network.n_neurons), constant_values=jnp.nan).reshape(groups, size)


def errors(network: Network, w: Array, x: Array, lack: Array) -> Array:
    """[G, S]  e = w.x + lack, where lack [N] is u_bal - target; 0 for neurons that are not trained, whose lack is NaN."""
    lack = by_group(network, lack)
    return jnp.where(jnp.isnan(lack), 0, jnp.einsum("gls,gl->gs", w, x, precision=EXACT) + lack)


def begin(rls: RLSConfig, kernels: str, network: Network, learner: Learner, points: int) -> Pending | None:
    """What a trial of so many learning points starts with: nothing pending; None in the dense form."""
    groups, inputs, _ = learner.w.shape
    dtype = learner.w.dtype
    if rls.storage == "window" or form(rls, kernels, dtype) == "dense":
        return None
    most = PENDING
    if rls.forgetting < 1:  # P_now = factor*(P - what is pending): a large factor would cost digits
        most = max(1, min(PENDING, int(math.log(MOST_FACTOR) / -math.log(rls.forgetting))))
    most = -(-points // -(-points // most))  # equal shares of at most that
    zeros = partial(jnp.zeros, dtype=dtype)
    n = network.n_neurons + network.n_feedforward
    return Pending(
        jnp.int32(0), zeros((groups, most, inputs)), jnp.ones(groups, dtype), zeros((groups, inputs)), zeros(n), jnp.zeros(n, jnp.int32)
    )


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
      r: [N+X] filtered spikes.
      n_spikes: [N+X] int32, spikes of the trial that are in r.
      lack: [N] u_bal - target: current through static synapses, less the total current wanted; NaN: not trained here.
    """
    shared = "tau_plas" not in network.parameters
    if pending is not None and form(rls, kernels, r.dtype, shared) == "native":
        after, pending = _learn_native(rls, network, learner, pending, decay, r, n_spikes, lack)
    else:
        x = gather_inputs(network, r)
        # hidden from the compiler, lest it leaves out what changes nothing
        on = jnp.any(~jnp.isnan(by_group(network, lack)), axis=1) & lax.optimization_barrier(jnp.bool_(rls.apply))
        e = errors(network, learner.w, x, lack)
        if rls.storage == "window":
            after = _learn_window(rls, network, learner, r, x, e, on)
        elif pending is None:
            after = _learn_dense(rls, learner, x, e, on)
        else:
            after, pending = _learn_deferred(rls, learner, pending, x, e, on)
    if rls.dale and rls.apply:
        exc = network.excitatory[jnp.minimum(network.pre, network.n_neurons - 1)]
        wrong = jnp.where(exc[:, :, None], after.w < 0, after.w > 0) & (network.pre < network.n_neurons)[:, :, None]
        after = dataclasses.replace(after, w=jnp.where(wrong, 0, after.w))
    return after, pending


def finish(rls: RLSConfig, kernels: str, learner: Learner, pending: Pending | None) -> Learner:
    """The learner with all that was pending taken into P."""
    if pending is None:
        return learner
    if form(rls, kernels, learner.w.dtype) == "native":
        numbers, scale = _in_place(learner)
        return dataclasses.replace(
            learner, P=_as_before(learner.P, *kernels_.flush(pending.count, pending.u, pending.factor, numbers, scale))
        )
    return dataclasses.replace(learner, P=_take_in_all(rls, learner, pending, jnp.bool_(True))[0])


def _in_place(learner: Learner) -> tuple[Array, Array]:
    """P's numbers and their scale for a kernel; the scale is [0, 1] where there is none."""
    none = jnp.zeros((0, 1), learner.w.dtype)
    if isinstance(learner.P, Kept):
        return learner.P.numbers, none if learner.P.scale is None else learner.P.scale
    assert isinstance(learner.P, Array)  # `form` sees to it
    return learner.P, none


def _as_before(P: Stored, numbers: Array, scale: Array) -> Stored:
    """What `_in_place` took apart, with new numbers."""
    return Kept(numbers, None if P.scale is None else scale) if isinstance(P, Kept) else numbers


def _learn_native(
    rls: RLSConfig, network: Network, learner: Learner, pending: Pending, decay: float, r: Array, n_spikes: Array, lack: Array
) -> tuple[Learner, Pending]:
    """The deferred form with fewer bytes: most of k follows from the last update.

    r = decay*r_last + arrived, where arrived is 0 but for inputs that spiked. So with g = P_last x_last, which is den*k,

        k = decay*g + factor*(P arrived - sum_q u_q (u_q.arrived))

    which needs only the rows of P whose input spiked. Whenever P takes in what is pending, as at a trial's first point, k is P x anew,
    so that rounding does not build up.
    """
    refresh = pending.count % pending.u.shape[1] == 0
    arrived = jnp.where(n_spikes == pending.n_spikes, 0, r - decay * pending.r)
    flags = jnp.array([rls.gain == "textbook", rls.apply])
    numbers, scale, w, u, factor, g = kernels_.learn(
        flags, rls.forgetting, pending.count, refresh, decay, r, arrived, network.pre, lack, *_in_place(learner), learner.w, pending.u,
        pending.factor, pending.g,
    )  # fmt: skip
    return Learner(w, _as_before(learner.P, numbers, scale)), Pending(jnp.where(refresh, 1, pending.count + 1), u, factor, g, r, n_spikes)


def _learn_deferred(rls: RLSConfig, learner: Learner, pending: Pending, x: Array, e: Array, on: Array) -> tuple[Learner, Pending]:
    """`update_deferred` of all groups, P having taken in what was pending where there was no room for more."""
    P, u, factor = _take_in_all(rls, learner, pending, pending.count == pending.u.shape[1])
    count = pending.count % pending.u.shape[1]
    one = jax.vmap(partial(update_deferred, rls))
    if isinstance(P, Array):
        latest, factor, w = one(P, u, factor, learner.w, x, e, on)
    else:

        def block(changed: Any, P: Any, u: Array, x: Array, e: Array, on: Array) -> Any:
            _, factor, w = changed
            return one(decode(rls, P, x.shape[1], x.dtype), u, factor, w, x, e, on)

        latest, factor, w = _by_blocks(x.shape[1], block, (jnp.zeros_like(x), factor, learner.w), (P, u, x, e, on))
    u = lax.dynamic_update_slice_in_dim(u, latest[:, None], count, 1)
    return Learner(w, P), dataclasses.replace(pending, count=count + 1, u=u, factor=factor)


def _take_in_all(rls: RLSConfig, learner: Learner, pending: Pending, now: Array) -> tuple[Stored, Array, Array]:
    """(P, u, factor) after P has taken in all of u, if `now`, in place. What is not used of u is zero."""
    inputs, dtype = learner.w.shape[1], learner.w.dtype
    take = jax.vmap(partial(take_in, rls))

    def block(P: Any, u: Array, factor: Array) -> Any:
        if is_plain(rls, dtype):
            return take(P, u, factor)
        return encode(rls, take(decode(rls, P, inputs, dtype), u, factor))

    P = _by_blocks(inputs, block, learner.P, (pending.u, pending.factor), now)
    return P, jnp.where(now, 0, pending.u), jnp.where(now, 1, pending.factor)


def _learn_dense(rls: RLSConfig, learner: Learner, x: Array, e: Array, on: Array) -> Learner:
    """`update` of all groups, by blocks of groups where P is large."""
    one = jax.vmap(partial(update, rls))

    def block(changed: Any, x: Array, e: Array, on: Array) -> Any:
        P, w = changed
        if is_plain(rls, x.dtype):
            return one(P, w, x, e, on)
        P, w = one(decode(rls, P, x.shape[1], x.dtype), w, x, e, on)
        return encode(rls, P), w

    if isinstance(learner.P, Array) and learner.P.size <= WHOLE:
        P, w = block((learner.P, learner.w), x, e, on)
    else:
        P, w = _by_blocks(x.shape[1], block, (learner.P, learner.w), (x, e, on))
    return Learner(w, P)


def _learn_window(rls: RLSConfig, network: Network, learner: Learner, r: Array, x: Array, e: Array, on: Array) -> Learner:
    """An update with P from the regressors of the last `rls.window` learning points, this one not among them."""
    window = learner.P
    assert isinstance(window, Window)

    def block(w: Array, positive: Array, used: Array, pre: Array, x: Array, e: Array, on: Array) -> Array:
        regressors = jnp.where((pre >= 0)[None] & used.T[:, :, None], window.r[:, pre], 0)
        k = window_product(rls, regressors, positive, pre, network.n_neurons, x)
        den = jnp.where(on, 1 / (1 + jnp.einsum("gl,gl->g", x, k, precision=EXACT)), 0)
        return w - jax.vmap(partial(_gain, rls))(k, den, on)[:, :, None] * e[:, None, :]

    w = _by_blocks(x.shape[1], block, learner.w, (window.positive, window.on, network.pre, x, e, on))
    if not rls.apply:
        return Learner(w, window)
    row = window.count[0] % rls.window
    seen, used = lax.dynamic_update_slice_in_dim(window.r, r[None], row, 0), lax.dynamic_update_slice_in_dim(window.on, on[:, None], row, 1)
    return Learner(w, dataclasses.replace(window, r=seen, on=used, count=window.count + 1))


def _by_blocks(inputs: int, change: Callable[..., Any], changed: Any, given: tuple[Any, ...], now: Array | bool = True) -> Any:
    """change(changed, *given) in place, a block of groups at a time, if `now`.

    Args:
      inputs: L, with whose square the work for a group grows.
      change: what becomes of `changed`.
      changed: arrays [G, ...], in any pytree.
      given: arrays [G, ...], in any pytrees.
      now: bool; a loop of no turns otherwise, as a condition might copy P.
    """
    groups = len(jax.tree.leaves(changed)[0])
    numbers = BLOCK if kernels_.platform_in_use() == "cpu" else BLOCK_GPU
    size = max(1, min(groups, numbers // inputs**2))

    def one_block(index: Array, changed: Any) -> Any:
        start = jnp.minimum(index * size, groups - size)
        fresh = start + jnp.arange(size, dtype=jnp.int32) >= index * size  # the last block overlaps the one before
        own, parts = jax.tree.map(lambda array: lax.dynamic_slice_in_dim(array, start, size), (changed, given))

        def put(array: Array, before: Array, after: Array) -> Array:
            kept = jnp.where(fresh.reshape(-1, *[1] * (after.ndim - 1)), after, before)
            return lax.dynamic_update_slice_in_dim(array, kept, start, 0)

        return jax.tree.map(put, changed, own, change(own, *parts))

    return lax.fori_loop(0, jnp.where(now, -(-groups // size), 0), one_block, changed)
