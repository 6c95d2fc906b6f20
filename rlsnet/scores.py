"""How well a model follows its target: windowed currents and correlations."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

from rlsnet.config import TrialConfig

WINDOW = 100.0  # ms, the width over which currents are averaged before they are compared (2*wid in TrainSpikingNet.jl)


def window_weights(trial: TrialConfig) -> np.ndarray:
    """[M, M] weights that turn means over learning bins into means over a window centred on each learning point.

    Bin m ends at learning point m. A bin counts by its overlap with the window; at the ends of the trial the window
    is cut off and the weights still sum to 1.
    """
    end = np.arange(1, trial.n_points + 1) * trial.learn_every
    upper = np.minimum(end[None, :], end[:, None] + WINDOW / 2)
    lower = np.maximum(end[None, :] - trial.learn_every, end[:, None] - WINDOW / 2)
    overlap = np.maximum(upper - lower, 0)
    return overlap / overlap.sum(axis=1, keepdims=True)


def pearson(x: Array, y: Array) -> Array:
    """[N] correlation of x and y [M, N] over their first axis; NaN where one of them does not vary."""
    dx, dy = (values - jnp.mean(values, axis=0, keepdims=True) for values in (x, y))
    xx, yy = jnp.sum(dx**2, axis=0), jnp.sum(dy**2, axis=0)
    tiny = x.shape[0] * (8 * jnp.finfo(x.dtype).eps) ** 2
    varies = (xx > tiny * jnp.max(x**2, axis=0)) & (yy > tiny * jnp.max(y**2, axis=0))
    return jnp.where(varies, jnp.sum(dx * dy, axis=0) / jnp.sqrt(jnp.where(varies, xx * yy, 1)), jnp.nan)


def current_correlation(trial: TrialConfig, currents: Array, target: Array) -> Array:
    """[N] correlation of the target [M, N] with the windowed mean current; `currents` [M, N] are means over learning bins."""
    return pearson(target, jnp.matmul(jnp.asarray(window_weights(trial), currents.dtype), currents, precision="highest"))
