"""How well a model follows its target: windowed currents and correlations."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

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
    """[N] correlation of x and y [M, N] over their first axis; NaN where one of them does not vary.

    Sums go row by row, N numbers at a time: 20 times faster on a CPU than sums over the first axis.
    """
    points, zeros = x.shape[0], jnp.zeros_like(x[0])

    def add(total: Any, row: Any) -> tuple[Any, None]:
        return (total[0] + (row[0] - x[0]), total[1] + (row[1] - y[0])), None

    total_x, total_y = lax.scan(add, (zeros, zeros), (x, y))[0]
    mean_x, mean_y = x[0] + total_x / points, y[0] + total_y / points  # exact where nothing varies

    def one(sums: Any, row: Any) -> tuple[Any, None]:
        xx, yy, xy, most_x, most_y = sums
        dx, dy = row[0] - mean_x, row[1] - mean_y
        largest = jnp.maximum(most_x, jnp.abs(row[0])), jnp.maximum(most_y, jnp.abs(row[1]))
        return (xx + dx * dx, yy + dy * dy, xy + dx * dy, *largest), None

    xx, yy, xy, most_x, most_y = lax.scan(one, (zeros,) * 5, (x, y))[0]
    tiny = points * (8 * jnp.finfo(x.dtype).eps) ** 2
    varies = (xx > tiny * most_x**2) & (yy > tiny * most_y**2)
    return jnp.where(varies, xy / jnp.sqrt(jnp.where(varies, xx * yy, 1)), jnp.nan)


def current_correlation(trial: TrialConfig, currents: Array, target: Array) -> Array:
    """[N] correlation of the target [M, N] with the windowed mean current; `currents` [M, N] are means over learning bins."""
    return pearson(target, jnp.matmul(jnp.asarray(window_weights(trial), currents.dtype), currents, precision="highest"))
