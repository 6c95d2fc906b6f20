"""Weights for new targets without simulation: recursive least squares is linear in the targets.

Without forgetting, the weights of a neuron after updates with filtered spikes x_t of its inputs and targets y_t are

    w = P (A_0 w_0 + sum_t x_t (y_t - u_t))

where u_t is the current that is not learned, A_0 = inv(P_0), and P does not depend on the targets. If the targets depend on condition c and
learning point m alone, a change of them by dy changes the weights by

    dw = P sum_cm X_cm dy_cm,    X_cm = sum of x over the updates at learning point m of condition c

For given spikes, these are the weights that training with the new targets from the start would have given. In a recurrent network, whose
spikes would have been others, they are a start for further training. All groups of neurons are updated at the same points, so that
the sums [N+X, C, M] over presynaptic neurons are enough for all of them, whatever the number of groups: 79 MB for 66,002 neurons, two
conditions and 150 learning points.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from rlsnet.config.schema import RLSConfig
from rlsnet.learning.blocks import by_blocks
from rlsnet.learning.covariance import EXACT
from rlsnet.learning.covariance_forms import FullCovariance
from rlsnet.learning.rls import Learner
from rlsnet.model.network import Network


def impossible(rls: RLSConfig) -> str:
    """Why the weights for new targets cannot be computed with these settings, in words; "" if they can."""
    if not rls.apply:
        return "rls.apply=false keeps the weights"
    if rls.forgetting != 1:
        return f"rls.forgetting={rls.forgetting:g} gives early trials less weight"
    if rls.gain != "textbook":
        return f"rls.gain={rls.gain} is no least-squares solution"
    if rls.dale:
        return "rls.dale=true sets weights to 0 during training"
    return "rls.storage=window keeps no P" if rls.storage == "window" else ""


@partial(jax.jit, donate_argnums=0)
def add_traces(sums: Array, condition: Array, traces: Array) -> Array:
    """Sums of the filtered spikes, after the updates of a trial.

    Args:
      sums: [N+X, C, M] 1/ms, sums over updates so far; donated.
      condition: int32, condition of the trial.
      traces: [M, N+X] 1/ms, filtered spikes at each update of the trial; 0 at learning points without an update.
    """
    return sums.at[:, condition].add(traces.T.astype(sums.dtype))


@partial(jax.jit, donate_argnums=1)
def retargeted(network: Network, learner: Learner, sums: Array, change: Array) -> Learner:
    """Learner with the weights for changed targets; P stays as it is.

    Args:
      network: neurons and connectivity.
      learner: weights and P (`FullCovariance`, also encoded) after the updates; donated.
      sums: [N+X, C, M] 1/ms, of `add_traces` over all these updates.
      change: [C, M, N] threshold units, new minus old targets. NaN where a neuron was not trained, or is not any more: no change.
        A neuron must have been trained in the same trials as its group.
    """
    size, groups = network.group_size, network.pre.shape[0]
    by_neuron = jnp.where(jnp.isnan(change), 0, change).reshape(-1, network.n_neurons).T.astype(learner.w.dtype)
    by_group = jnp.pad(by_neuron, ((0, groups * size - network.n_neurons), (0, 0))).reshape(groups, size, -1)
    flat = sums.reshape(len(sums), -1).astype(learner.w.dtype)

    def block(w: Array, P: FullCovariance, pre: Array, dy: Array) -> Array:
        x = jnp.where((pre >= 0)[:, :, None], flat[pre], 0)
        return w + jnp.matmul(P.decode(), jnp.einsum("glt,gst->gls", x, dy, precision=EXACT), precision=EXACT)

    inputs = max(network.n_inputs, flat.shape[1])  # a block has as many numbers of x as of P, or more
    return Learner(by_blocks(inputs, block, learner.w, (learner.P, network.pre, by_group)), learner.P)
