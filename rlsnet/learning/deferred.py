"""Deferred update of recursive least squares: rank-1 downdates of P are collected, and several are applied together.

P is by far the largest array, and an update spends most of its time on reading and writing P. Between two writes

    P_now = factor*(P - sum_q u_q u_q^T)

with a vector u_q for each pending update. The products that an update needs follow from P, which is only read, and the u_q.
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from rlsnet.config.schema import RLSConfig
from rlsnet.kernels import calls
from rlsnet.learning.covariance import EXACT
from rlsnet.learning.covariance_forms import EncodedCovariance, FullCovariance, number_type, row_length
from rlsnet.learning.rls import Learner, weight_gain
from rlsnet.model.network import Network

MAX_PENDING = 16  # updates that are applied to P together
MIN_PENDING = 4  # the same, if only their memory is to be small
MAX_SHARE = 0.2  # largest share of the bytes of P, stored in few bits, that the vectors of pending updates take,
SMALL_BYTES = 2**30  # unless they take less than that
MAX_RESCALE = 1.2  # largest factor by which forgetting may raise P before pending updates are applied


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pending:
    """Pending updates of a trial, which are not yet applied to P, and values of the last update.

    count: int32, number of updates in u.
    u: [G, Q, L] vectors sqrt(den/factor)*k of the updates; beyond count they are zero, or not read. Like g, padded with zeros to
      `covariance_forms.row_length`.
    factor: [G] inverse of the product of the forgetting factors since pending updates were last applied.
    g: [G, L] P_now x with the x of the last update.
    r: [N+X] filtered spikes at the last update, 1/ms.
    n_spikes: [N+X] int32, spikes of the trial before the last update.
    """

    count: Array
    u: Array
    factor: Array
    g: Array
    r: Array
    n_spikes: Array


def most_pending(rls: RLSConfig, updates: int, groups: int, inputs: int, engine: jnp.dtype) -> int:
    """Q, the number of updates that are applied to P together, at most: equal shares of the updates of a trial; 0 if it has none.

    It is at most MAX_PENDING, but with forgetting so few that P_now = factor*(P - pending) costs no digits. If P is stored in numbers
    of fewer bits than the engine's, the vectors u take at most MAX_SHARE of the bytes of P, or SMALL_BYTES, as long as Q is at least
    MIN_PENDING: P is rounded whenever they are applied.

    Args:
      rls: settings.
      updates: number of updates in a trial.
      groups: number of groups G.
      inputs: number of inputs L.
      engine: type of the engine's numbers.
    """
    most = MAX_PENDING
    if number_type(rls, engine).itemsize < engine.itemsize:
        room = max(SMALL_BYTES, MAX_SHARE * EncodedCovariance.n_bytes(rls, groups, inputs, 0, engine))
        most = min(most, max(MIN_PENDING, int(room / (groups * row_length("native", inputs, engine) * engine.itemsize))))
    if rls.forgetting < 1:
        most = max(1, min(most, int(math.log(MAX_RESCALE) / -math.log(rls.forgetting))))
    return -(-updates // -(-updates // most)) if updates else 0


def begin(rls: RLSConfig, network: Network, learner: Learner, points: int, form: str) -> Pending:
    """No pending updates, at the start of a trial with this number of learning points, for a form of the update."""
    (groups, inputs, _), dtype = learner.w.shape, learner.w.dtype
    most = most_pending(rls, points, groups, inputs, dtype)
    zeros, row = partial(jnp.zeros, dtype=dtype), row_length(form, inputs, dtype)
    n = network.n_presynaptic
    return Pending(
        jnp.int32(0), zeros((groups, most, row)), jnp.ones(groups, dtype), zeros((groups, row)), zeros(n), jnp.zeros(n, jnp.int32)
    )


def update_deferred(
    rls: RLSConfig, P: Array, u: Array, factor: Array, w: Array, x: Array, e: Array, trained: Array
) -> tuple[Array, Array, Array]:
    """The update `rls.update` without a write of P [L, L], with P_now = factor*(P - sum_q u_q u_q^T), u [Q, L].

        k      = factor*(P x - sum_q u_q (u_q.x))
        u_new  = sqrt(den/factor) k
        factor <- factor/forgetting

    Returns:
      u of this update [L], and factor and w after it.
    """
    k = jnp.matmul(P, x, precision=EXACT) - jnp.matmul(jnp.matmul(u, x, precision=EXACT), u, precision=EXACT)
    if rls.forgetting != 1:
        k = factor * k
    den = jnp.where(trained, 1 / (rls.forgetting + jnp.dot(x, k, precision=EXACT)), 0)
    w = w - weight_gain(rls, k, den, trained)[:, None] * e[None, :]
    return jnp.sqrt(den / factor) * k, jnp.where(trained, factor / rls.forgetting, factor), w


def downdated(rls: RLSConfig, P: Array, u: Array, factor: Array) -> Array:
    """[L, L] P after pending updates, factor*(P - sum_q u_q u_q^T), in a form that compiles to one pass over P."""
    for row in u:
        P = P - row[:, None] * row[None, :]
    return P if rls.forgetting == 1 else factor * P


def learn(
    rls: RLSConfig, P: FullCovariance, w: Array, pending: Pending, x: Array, e: Array, trained: Array
) -> tuple[FullCovariance, Array, Pending]:
    """The deferred update of all groups; if the list of pending updates is full, they are applied to P first.

    Args:
      rls: settings.
      P: of all groups.
      w: [G, L, S] trained weights.
      pending: pending updates before this one.
      x: [G, L] filtered spikes of the inputs, 1/ms.
      e: [G, S] errors, threshold units.
      trained: [G] bool, whether any neuron of the group is trained at this learning point.

    Returns:
      P, w and the pending updates after this one.
    """
    P, u, factor = apply_pending(rls, P, pending, pending.count == pending.u.shape[1])
    count = pending.count % pending.u.shape[1]
    rule = jax.vmap(partial(update_deferred, rls))

    def block(changed: Any, P: Array, u: Array, x: Array, e: Array, trained: Array) -> Any:
        _, factor, w = changed
        return rule(P, u, factor, w, x, e, trained)

    latest, factor, w = P.read(block, (jnp.zeros_like(x), factor, w), (u, x, e, trained))
    u = lax.dynamic_update_slice_in_dim(u, latest[:, None], count, 1)
    return P, w, dataclasses.replace(pending, count=count + 1, u=u, factor=factor)


def apply_pending(rls: RLSConfig, P: FullCovariance, pending: Pending, now: Array) -> tuple[FullCovariance, Array, Array]:
    """(P, u, factor) after all updates in u have been applied to P in place, if `now`. Unused vectors of u are zero."""
    P = P.rewrite(jax.vmap(partial(downdated, rls)), (pending.u, pending.factor), now)
    return P, jnp.where(now, 0, pending.u), jnp.where(now, 1, pending.factor)


def learn_in_place(
    form: str,
    rls: RLSConfig,
    network: Network,
    P: FullCovariance,
    w: Array,
    pending: Pending,
    decay: float | None,
    r: Array,
    n_spikes: Array,
    residual_input: Array,
) -> tuple[FullCovariance, Array, Pending]:
    """The deferred update by native or CUDA kernels, which read fewer bytes of P and change it in place.

    r = decay*r_last + arrived, where arrived is 0 except for inputs that spiked. With g = P_last x_last, which is den*k,

        k = decay*g + factor*(P arrived - sum_q u_q (u_q.arrived))

    which needs only the rows of P of inputs that spiked. At the first learning point of a trial, and whenever pending updates are
    applied, k = P x is computed in full, so that rounding errors do not accumulate. If inputs have different decays, k is computed in
    full at every learning point, with decay 0 and arrived = r.

    Args:
      form: of the kernels, native or cuda.
      rls: settings.
      network: neurons and connectivity.
      P: of all groups.
      w: [G, L, S] trained weights.
      pending: pending updates before this one.
      decay: factor by which r decays between two learning points; None if it differs between inputs.
      r: [N+X] filtered spikes, 1/ms.
      n_spikes: [N+X] int32, spikes of the trial that are in r.
      residual_input: [N] threshold units, see `rls.errors`.

    Returns:
      P, w and the pending updates after this one.
    """
    refresh = pending.count % pending.u.shape[1] == 0
    arrived = r if decay is None else jnp.where(n_spikes == pending.n_spikes, 0, r - decay * pending.r)
    flags = jnp.array([rls.gain == "textbook", rls.apply])
    point = pending.count, refresh, 0.0 if decay is None else decay, r, arrived, network.pre, residual_input
    changed = *P.in_place(pending.g.shape[1]), w, pending.u, pending.factor, pending.g
    numbers, scale, w, u, factor, g = calls.learn(form, flags, rls.forgetting, *point, *changed)
    return P.after_kernel(numbers, scale), w, Pending(jnp.where(refresh, 1, pending.count + 1), u, factor, g, r, n_spikes)


def apply_in_place(form: str, P: FullCovariance, pending: Pending) -> FullCovariance:
    """P after all pending updates have been applied to it, by native or CUDA kernels."""
    return P.after_kernel(*calls.apply_pending(form, pending.count, pending.u, pending.factor, *P.in_place(pending.g.shape[1])))
