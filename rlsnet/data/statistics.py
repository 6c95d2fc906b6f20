"""Means, variances and correlations over the first axis of arrays [M, ...], of the values that are not NaN."""

from __future__ import annotations

import numpy as np

ROUNDING = 1e-6  # of the largest absolute value: an s.d. that is not above it is rounding


def ratio(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x/y; NaN where y is 0 or NaN."""
    return np.divide(x, y, out=np.full(np.shape(x), np.nan), where=np.isfinite(y) & (y != 0))


def mean_known(values: np.ndarray) -> np.ndarray:
    """[...] mean of the values [M, ...] that are not NaN; NaN where all are."""
    known = np.isfinite(values)
    return ratio(np.where(known, values, 0).sum(axis=0), known.sum(axis=0).astype(float))


def covariance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[...] covariance of x and y [M, ...] where neither is NaN."""
    known = np.isfinite(x) & np.isfinite(y)
    x, y = np.where(known, x, np.nan), np.where(known, y, np.nan)
    return mean_known((x - mean_known(x)) * (y - mean_known(y)))


def variance(x: np.ndarray) -> np.ndarray:
    """[...] variance of x [M, ...]; NaN where it is not above rounding."""
    found = covariance(x, x)
    largest = np.max(np.abs(x), axis=0, where=np.isfinite(x), initial=0)
    return np.where(found > (ROUNDING * largest) ** 2, found, np.nan)


def correlation_known(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[...] Pearson's correlation of x and y [M, ...] where neither is NaN; NaN where one of them does not vary."""
    known = np.isfinite(x) & np.isfinite(y)
    x, y = np.where(known, x, np.nan), np.where(known, y, np.nan)
    return ratio(covariance(x, y), np.sqrt(variance(x) * variance(y)))
