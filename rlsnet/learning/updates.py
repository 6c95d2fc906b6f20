"""Updates of a trial: `begin`, `learn` at each learning point, and `finish`, in the form of update that the backend has."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import cast

import jax.numpy as jnp
from jax import Array, lax

from rlsnet.config.schema import RLSConfig
from rlsnet.kernels.backend import Backend
from rlsnet.kernels.calls import PREFIX
from rlsnet.learning import deferred, rls
from rlsnet.learning.covariance_forms import FullCovariance
from rlsnet.learning.deferred import Pending
from rlsnet.learning.rls import Learner
from rlsnet.model.network import Network, gather_inputs


def begin(settings: RLSConfig, backend: Backend, network: Network, learner: Learner, points: int) -> Pending | None:
    """No pending updates, at the start of a trial with this number of learning points; None for the dense update, which has none."""
    return None if backend.update == "dense" else deferred.begin(settings, network, learner, points, backend.update)


def learn(
    settings: RLSConfig,
    backend: Backend,
    network: Network,
    learner: Learner,
    pending: Pending | None,
    decay: float | None,
    r: Array,
    n_spikes: Array,
    residual_input: Array,
) -> tuple[Learner, Pending | None]:
    """The update of all neurons at one learning point.

    Args:
      settings: section rls.
      backend: backend with the form of the update.
      network: neurons and connectivity.
      learner: learner before the update.
      pending: pending updates, from `begin` or the previous `learn`.
      decay: factor by which r decays between two learning points; None if inputs have different time constants.
      r: [N+X] filtered spikes, 1/ms.
      n_spikes: [N+X] int32, spikes of the trial that are in r.
      residual_input: [N] u_bal - target, threshold units; NaN: not trained at this learning point.

    Returns:
      Learner and pending updates after the update.
    """
    w, P = learner.w, learner.P
    if pending is not None and backend.update in PREFIX:
        stored = cast(FullCovariance, P)
        P, w, pending = deferred.learn_in_place(backend.update, settings, network, stored, w, pending, decay, r, n_spikes, residual_input)
    else:
        x = gather_inputs(network, r)
        # for rls.apply=false, which is for timing: the barrier prevents the compiler from removing the computation
        trained = jnp.any(~jnp.isnan(rls.by_group(network, residual_input)), axis=1) & lax.optimization_barrier(jnp.bool_(settings.apply))
        e = rls.errors(network, w, x, residual_input)
        if pending is None:
            P, w = P.update(partial(rls.update, settings), network, r, w, x, e, trained)
        else:
            P, w, pending = deferred.learn(settings, cast(FullCovariance, P), w, pending, x, e, trained)
    if settings.dale and settings.apply:
        w = rls.keep_signs(network, w)
    return Learner(w, P), pending


def finish(settings: RLSConfig, backend: Backend, learner: Learner, pending: Pending | None) -> Learner:
    """Learner after all pending updates have been applied to P."""
    if pending is None:
        return learner
    P = cast(FullCovariance, learner.P)
    if backend.update in PREFIX:
        return dataclasses.replace(learner, P=deferred.apply_in_place(backend.update, P, pending))
    return dataclasses.replace(learner, P=deferred.apply_pending(settings, P, pending, jnp.bool_(True))[0])
