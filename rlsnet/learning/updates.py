"""The updates of a trial: `begin`, then `learn` at each learning point, then `finish`, in the form that the backend names."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import cast

import jax.numpy as jnp
from jax import Array, lax

from rlsnet.config.schema import RLSConfig
from rlsnet.kernels.backend import Backend
from rlsnet.learning import deferred, rls
from rlsnet.learning.covariance_forms import FullCovariance
from rlsnet.learning.deferred import Pending
from rlsnet.learning.rls import Learner
from rlsnet.model.network import Network, gather_inputs


def begin(settings: RLSConfig, backend: Backend, network: Network, learner: Learner, points: int) -> Pending | None:
    """Nothing pending, at the start of a trial with so many learning points; None with update=reference, which leaves nothing pending."""
    return None if backend.update == "reference" else deferred.begin(settings, network, learner, points)


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
    """One learning point of the whole network.

    Args:
      settings: section rls.
      backend: form of the update.
      network: neurons and connectivity.
      learner: before.
      pending: before, from `begin`.
      decay: of r between two learning points; None where inputs have different time constants.
      r: [N+X] filtered spikes, 1/ms.
      n_spikes: [N+X] int32, spikes of the trial that are in r.
      residual_input: [N] u_bal - target, threshold units: the current without the trained synapses, less the one wanted; NaN for
        neurons that are not trained now.
    """
    w, P = learner.w, learner.P
    if pending is not None and backend.update == "native":
        stored = cast(FullCovariance, P)
        P, w, pending = deferred.learn_native(settings, network, stored, w, pending, decay, r, n_spikes, residual_input)
    else:
        x = gather_inputs(network, r)
        # the barrier keeps the compiler from leaving out the work where rls.apply=false, which is for timing
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
    """The learner after all that is pending has been applied to P."""
    if pending is None:
        return learner
    P = cast(FullCovariance, learner.P)
    if backend.update == "native":
        return dataclasses.replace(learner, P=deferred.apply_native(P, pending))
    return dataclasses.replace(learner, P=deferred.apply_pending(settings, P, pending, jnp.bool_(True))[0])
