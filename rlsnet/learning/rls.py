"""Recursive least squares: each neuron learns the weights of its own inputs.

`update` is the learning rule for one group of neurons that share their inputs (or for one neuron), and the specification of all other
forms: vmap applies it to all groups, `deferred` is the same rule with fewer writes of P, and `updates` runs one of them in a trial.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rlsnet.config.schema import RLSConfig
from rlsnet.learning import covariance_forms
from rlsnet.learning.covariance import EXACT, Covariance
from rlsnet.model import sharding
from rlsnet.model.network import Network


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Learner:
    """State of learning, which a checkpoint saves. L counts feed-forward and plastic inputs together.

    w: [G, L, S] trained weights, threshold*ms.
    P: inverse correlation matrix of the inputs, [G, L, L], symmetric to the last bit, in one of the forms of `covariance`.
    """

    w: Array
    P: Covariance


@partial(jax.jit, static_argnames=("rls", "update"))
def init(rls: RLSConfig, network: Network, w: Array, update: str = "dense") -> Learner:
    """Learner before the first update, with weights w [G, L, S]; P has the layout that is fastest for a form of the update."""

    def start(network: Network, w: Array) -> Learner:
        return Learner(w, covariance_forms.initial(rls, network, w, update))

    return sharding.over_devices(network, start, (w,), (sharding.BY_NEURON,), sharding.BY_NEURON)


def update(rls: RLSConfig, P: Any, w: Array, x: Array, e: Array, trained: Array) -> tuple[Any, Array]:
    """One update of one group of S neurons that share L inputs.

        k   = P x
        den = 1/(forgetting + x.k)
        P  <- (P - den k k^T)/forgetting
        w  <- w - den k e^T        (gain tsn_head: w - k e^T)

    Args:
      rls: section rls with gain and forgetting.
      P: `covariance_forms.GroupMatrix`, or another form with the same methods.
      w: [L, S].
      x: [L] filtered spikes of the inputs, 1/ms.
      e: [S] error of the current, w.x + u_bal - target, threshold units.
      trained: bool; if false, nothing changes.

    Returns:
      P and w after the update.
    """
    k = P.product(x)
    den = jnp.where(trained, 1 / (rls.forgetting + jnp.dot(x, k, precision=EXACT)), 0)
    P = P.downdate(k, den, None if rls.forgetting == 1 else jnp.where(trained, 1 / rls.forgetting, 1))
    return P, w - weight_gain(rls, k, den, trained)[:, None] * e[None, :]


def weight_gain(rls: RLSConfig, k: Array, den: Array, trained: Array) -> Array:
    """[L] change of each weight for an error of -1."""
    return jnp.where(trained, k, 0) if rls.gain == "tsn_head" else den * k


def by_group(network: Network, values: Array) -> Array:
    """Values [N] as [G, S]; NaN for the neurons that are missing in the last group."""
    groups, size = network.pre.shape[0], network.group_size
    return jnp.pad(values, (0, groups * size - network.n_neurons), constant_values=jnp.nan).reshape(groups, size)


def errors(network: Network, w: Array, x: Array, residual_input: Array) -> Array:
    """[G, S]  e = w.x + residual_input, threshold units; 0 for neurons that are not trained.

    Args:
      network: neurons and connectivity.
      w: [G, L, S] trained weights.
      x: [G, L] filtered spikes of the inputs.
      residual_input: [N] u_bal - target, threshold units; NaN: not trained at this learning point.
    """
    residual = by_group(network, residual_input)
    return jnp.where(jnp.isnan(residual), 0, jnp.einsum("gls,gl->gs", w, x, precision=EXACT) + residual)


def keep_signs(network: Network, w: Array) -> Array:
    """W [G, L, S] with 0 where it breaks Dale's law: a negative weight from an excitatory neuron, a positive one from an inhibitory."""
    excitatory = network.classes[jnp.minimum(network.pre, network.n_whole - 1)]
    wrong = jnp.where(excitatory[:, :, None], w < 0, w > 0) & (network.pre < network.n_whole)[:, :, None]
    return jnp.where(wrong, 0, w)
