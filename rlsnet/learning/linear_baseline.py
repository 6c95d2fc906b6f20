"""Linear prediction of recorded rates from the recorded rates of each neuron's own plastic inputs, a baseline of the network.

The rates of the presynaptic units are filtered with tau_plas, as their spikes are in the network, and standardized. Ridge regression
predicts the rate of the neuron from them. All neurons have one penalty, with the smallest squared error in blocks of time that are
left out in all conditions.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import cho_factor, cho_solve

from rlsnet.data.statistics import mean_known, variance

PENALTIES = np.logspace(-3, 2, 11)  # in units of the variance of an input
BLOCKS = 5  # blocks of time, each left out once
GROUPS = 64  # groups of neurons fitted together; those of the first such batch choose the penalty
WORK = 66_002 * 300 * 128**2  # multiplications in all, about a minute on two cores; if there are more, groups are drawn at random


class LinearBaseline(NamedTuple):
    """Linear predictions.

    rate: [C, M, N] Hz; NaN for neurons without recorded rates, and for those that were not drawn.
    penalty: that of all neurons.
    """

    rate: np.ndarray
    penalty: float


def standardized_inputs(rate: np.ndarray, tau: np.ndarray, bin_ms: float) -> np.ndarray:
    """[N + 1, C M] rates after an exponential filter, with mean 0 and variance 1; 0: constant, unknown, and in the last row.

    Args:
      rate: [C, M, N] Hz, NaN: unknown. Before its first bin a rate is that of the first bin.
      tau: [N] ms, time constants of the filter.
      bin_ms: length of a bin, ms.
    """
    n = rate.shape[2]
    keep = np.exp(-bin_ms / tau)
    filtered = np.where(np.isfinite(rate), rate, mean_known(rate.reshape(-1, n))).astype(np.float32)
    for m in range(1, rate.shape[1]):
        filtered[:, m] = keep * filtered[:, m - 1] + (1 - keep) * filtered[:, m]
    flat = filtered.reshape(-1, n)
    scaled = (flat - mean_known(flat)) / np.sqrt(variance(flat))
    return np.append(np.nan_to_num(scaled.T), np.zeros((1, len(flat))), axis=0)


@jax.jit
def _ridge(inputs: Array, pre: Array, rates: Array, fitted: Array, penalty: Array) -> Array:
    """[B, p, s] rates predicted by ridge regression for B groups of s neurons.

    Args:
      inputs: [N + 1, p] of `standardized_inputs`.
      pre: [B, L] rows of the inputs of each group.
      rates: [B, p, s] recorded rates, 0 where unknown.
      fitted: [B, p] 1 at the points that are fitted, else 0.
      penalty: added to the diagonal of the mean products of inputs.
    """

    def one(rows: Array, y: Array, weight: Array) -> Array:
        points = jnp.maximum(weight.sum(), 1)
        x, product = inputs[rows], partial(jnp.matmul, precision="highest")
        x = x - (x @ weight / points)[:, None]
        mean_y = (weight @ y / points)[None, :]
        known_x, known_y = x * weight[None, :], (y - mean_y) * weight[:, None]
        if x.shape[0] <= x.shape[1]:  # the smaller of two systems with the same solution
            matrix, right = product(known_x, known_x.T), product(known_x, known_y)
        else:
            matrix, right = product(known_x.T, known_x), known_y
        factor = cho_factor(matrix + penalty * points * jnp.eye(len(matrix), dtype=matrix.dtype))
        solved = cho_solve(factor, right)
        return product(x.T, solved if x.shape[0] <= x.shape[1] else product(known_x, solved)) + mean_y

    return jax.vmap(one)(pre, rates, fitted)


def fit(rate: np.ndarray, pre: np.ndarray, group_size: int, tau: np.ndarray, bin_ms: float, seed: int) -> LinearBaseline:
    """Linear predictions of recorded rates; for a random subset of the groups where all would take more than WORK.

    Args:
      rate: [C, M, N] Hz, recorded rates of all neurons of the network, of the trials trained on; NaN: unknown.
      pre: [G, X+L] inputs of each group, N and above: feed-forward, which have no recorded rate; -1 pads.
      group_size: S, neuron n is in group n // S.
      tau: [N] ms, tau_plas of each presynaptic neuron.
      bin_ms: length of a bin, ms.
      seed: of the subset.
    """
    conditions, bins, n = rate.shape
    inputs, rows = jnp.asarray(standardized_inputs(rate, tau, bin_ms)), np.where((pre >= 0) & (pre < n), pre, n)
    by_group = np.pad(rate.reshape(-1, n), ((0, 0), (0, len(pre) * group_size - n)), constant_values=np.nan)
    by_group = by_group.reshape(conditions * bins, len(pre), group_size).swapaxes(0, 1)  # [G, p, S]
    recorded = np.isfinite(by_group).any(axis=1)
    known = (np.isfinite(by_group) | ~recorded[:, None]).all(axis=2)  # points where all recorded neurons of a group are known
    small, large = sorted((conditions * bins, pre.shape[1]))
    usable = np.random.default_rng(seed).permutation(np.flatnonzero(recorded.any(axis=1) & known.any(axis=1)))
    usable = usable[: max(1, int(WORK // (large * small**2)))]

    def predicted(groups: np.ndarray, fitted: np.ndarray, penalty: float) -> np.ndarray:
        """[B, p, S] rates of GROUPS groups or fewer, fitted at points [p] where they are known."""
        padded = np.resize(groups, GROUPS)  # one compiled program for all
        y, weight = np.nan_to_num(by_group[padded]), known[padded] & fitted
        arrays = (jnp.asarray(each, inputs.dtype) for each in (y, weight, penalty))
        return np.asarray(_ridge(inputs, jnp.asarray(rows[padded], jnp.int32), *arrays))[: len(groups)]

    penalty = PENALTIES[0]
    if len(choosing := usable[:GROUPS]):
        block, errors = np.tile(np.arange(bins) * BLOCKS // bins, conditions), np.zeros(len(PENALTIES))
        for (k, each), left_out in itertools.product(enumerate(PENALTIES), range(BLOCKS)):
            error = predicted(choosing, block != left_out, each) - by_group[choosing]
            errors[k] += np.nansum(error[:, block == left_out] ** 2)
        penalty = PENALTIES[np.argmin(errors)]
    out = np.full((len(pre), conditions * bins, group_size), np.nan, np.float32)
    for start in range(0, len(usable), GROUPS):
        some = usable[start : start + GROUPS]
        out[some] = np.where(recorded[some, None], predicted(some, np.ones(conditions * bins, bool), penalty), np.nan)
    return LinearBaseline(out.swapaxes(0, 1).reshape(conditions, bins, -1)[:, :, :n], float(penalty))
