"""How well a model follows its target: windowed currents and correlations, and rates against what trials allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

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


class Moments(NamedTuple):
    """Sums over time of two signals x and y, [N] each: n points where x is known, means, and sums of products about them.

    varies: bool, whether both vary by more than rounding does.
    """

    n: Array
    mean_x: Array
    mean_y: Array
    xx: Array
    yy: Array
    xy: Array
    varies: Array


def moments(x: Array, y: Array) -> Moments:
    """Of x and y [M, N] over those of their first axis where x is not NaN.

    Sums go row by row, N numbers at a time: 20 times faster on a CPU than sums over the first axis.
    """
    zeros = jnp.zeros_like(x[0])

    def add(total: Any, row: Any) -> tuple[Any, None]:
        count, first_x, first_y, total_x, total_y = total
        known = ~jnp.isnan(row[0])
        start = known & (count == 0)
        first_x, first_y = jnp.where(start, row[0], first_x), jnp.where(start, row[1], first_y)
        total_x += jnp.where(known, row[0] - first_x, 0)
        total_y += jnp.where(known, row[1] - first_y, 0)
        return (count + known.astype(count.dtype), first_x, first_y, total_x, total_y), None

    count, first_x, first_y, total_x, total_y = lax.scan(add, (zeros,) * 5, (x, y))[0]
    points = jnp.maximum(count, 1)
    mean_x, mean_y = first_x + total_x / points, first_y + total_y / points  # exact where nothing varies

    def one(sums: Any, row: Any) -> tuple[Any, None]:
        xx, yy, xy, most_x, most_y = sums
        known = ~jnp.isnan(row[0])
        dx, dy = (jnp.where(known, each - mean, 0) for each, mean in zip(row, (mean_x, mean_y), strict=True))
        largest = (jnp.maximum(most, jnp.where(known, jnp.abs(each), 0)) for most, each in zip((most_x, most_y), row, strict=True))
        return (xx + dx * dx, yy + dy * dy, xy + dx * dy, *largest), None

    xx, yy, xy, most_x, most_y = lax.scan(one, (zeros,) * 5, (x, y))[0]
    tiny = points * (8 * jnp.finfo(x.dtype).eps) ** 2
    varies = (xx > tiny * most_x**2) & (yy > tiny * most_y**2)
    return Moments(count, mean_x, mean_y, xx, yy, xy, varies)


def correlation(m: Moments) -> Array:
    """[N] Pearson's r; NaN where x or y does not vary."""
    return jnp.where(m.varies, m.xy / jnp.sqrt(jnp.where(m.varies, m.xx * m.yy, 1)), jnp.nan)


def squared_error(m: Moments) -> Array:
    """[N] sum over time of (y - x)^2."""
    return jnp.maximum(m.xx + m.yy - 2 * m.xy, 0) + m.n * (m.mean_y - m.mean_x) ** 2


def pearson(x: Array, y: Array) -> Array:
    """[N] correlation of x and y [M, N] over those of their first axis where x is not NaN; NaN where one of them does not vary."""
    return correlation(moments(x, y))


def windowed(trial: TrialConfig, currents: Array) -> Array:
    """[M, N] means over the window, from means [M, N] over learning bins."""
    return jnp.matmul(jnp.asarray(window_weights(trial), currents.dtype), currents, precision="highest")


def current_correlation(trial: TrialConfig, currents: Array, target: Array) -> Array:
    """[N] correlation of the target [M, N], where it is not NaN, with the windowed mean current.

    `currents` [M, N] are means over learning bins.
    """
    return pearson(target, windowed(trial, currents))


RATE_SCORES = {
    "rate_correlation": "correlation of model and recorded rate, of the trials trained on",
    "heldout_correlation": "correlation of model and recorded rate, of the trials held out",
    "noise_ceiling": "correlation that the underlying rate would have with the recorded rate",
    "model_ceiling": "correlation that the model's rate from as many trials has with its underlying rate",
    "explained_variance": "share of the recorded rate's variance that the model explains",
    "signal_explained": "share of the variance that is not noise that the model explains",
    "reliability": "correlation of the recorded rates of odd and of even trials",
    "rate_error": "mean rate, model minus recorded",
}


def rate_scores(
    trial: TrialConfig,
    counts: np.ndarray,
    trials: int,
    target: np.ndarray,
    heldout: np.ndarray | None = None,
    halves: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """How well the rates q of a model follow recorded rates, [n] each, those of RATE_SCORES that can be had.

    Both sides are averaged over the same window first, over those bins where the data are known; V and cov are over time. With d the
    data compared with (held-out trials if there are, else those trained on), h1 and h2 their halves, and noise the variance
    that q has because it is the mean of a few trials:

        heldout_correlation  cov(d, q)/sqrt(V(d) V(q)), and rate_correlation alike for what was trained on
        explained_variance   1 - mean (q - d)^2/V(d)
        reliability          r = correlation of h1 and h2
        noise_ceiling        sqrt(r) against one half, sqrt(2r/(1+r)) against all trials (Hsu, Borst & Theunissen, Network 15:91, 2004)
        signal_explained     (V(d) - V(d - q) + noise)/cov(h1, h2) = (2 cov(d, q) - V(q) + noise)/cov(h1, h2)
                             (Sahani & Linden, NIPS 15:109, 2003; as all their powers, of what varies: a constant offset does not count)
        model_ceiling        sqrt(1 - noise/V(q)); a perfect model reaches noise_ceiling*model_ceiling
        noise                V(q1 - q2) n1 n2/(n1 + n2)^2, of the two halves of the model's own trials

    NaN: not defined, as something does not vary, is not known, or, with a division by it, r is not above 0.

    Args:
      trial: for the window.
      counts: [2, M, n] spikes in odd and in even trials of the model.
      trials: their number.
      target: [M, n] Hz, recorded, what was trained on; NaN is not known.
      heldout: [M, n] Hz, what was not.
      halves: of each unit's trials, two [M, n].
    """
    weights, hz = window_weights(trial), 1000 / trial.learn_every
    model = counts.sum(axis=0) * (hz / trials)
    data = target if heldout is None else heldout
    out: dict[str, np.ndarray] = {}
    for name, rate in {"rate_correlation": target, **({} if heldout is None else {"heldout_correlation": heldout})}.items():
        known = np.isfinite(rate)
        out[name] = _ratio(*_normed(over_known(weights, rate, known), over_known(weights, model, known)))
    known = np.isfinite(data)
    d, q = over_known(weights, data, known), over_known(weights, model, known)
    noise = np.zeros(d.shape[1])
    if trials > 1:
        n1, n2 = -(-trials // 2), trials // 2
        difference = over_known(weights, counts[0] * (hz / n1) - counts[1] * (hz / n2), known)
        noise = _covariance(difference, difference) * n1 * n2 / trials**2
        out["model_ceiling"] = np.sqrt(np.maximum(1 - _ratio(noise, _varying(q)), 0))
    out["explained_variance"] = 1 - _ratio(mean_known((q - d) ** 2), _varying(d))
    out["rate_error"] = mean_known(np.where(known, model - data, np.nan))
    if halves is not None:
        both = np.isfinite(halves[0]) & np.isfinite(halves[1]) & known
        one, two = (over_known(weights, half, both) for half in halves)
        out["reliability"] = r = _ratio(*_normed(one, two))
        positive = np.where(r > 0, r, np.nan)
        out["noise_ceiling"] = np.sqrt(positive if heldout is not None else 2 * positive / (1 + positive))
        explained = 2 * _covariance(d, q) - _covariance(q, q) + noise
        out["signal_explained"] = _ratio(explained, np.where(r > 0, _covariance(one, two), np.nan))
    return out


def over_known(weights: np.ndarray, values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """[M, n] values averaged over the window as far as they are known; NaN in bins that are not."""
    if known.all():
        return weights @ values
    total = weights @ np.where(known, values, 0)
    return np.divide(total, weights @ known, out=np.full(total.shape, np.nan), where=known)


def mean_known(values: np.ndarray) -> np.ndarray:
    """[n] mean over the first axis of what is not NaN; NaN where all is."""
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0).sum(axis=0), known.sum(axis=0).astype(float))


def _covariance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[n] over the first axis, where neither is NaN."""
    known = np.isfinite(x) & np.isfinite(y)
    x, y = np.where(known, x, np.nan), np.where(known, y, np.nan)
    return mean_known((x - mean_known(x)) * (y - mean_known(y)))


def _varying(x: np.ndarray) -> np.ndarray:
    """[n] variance over the first axis; NaN where it is not more than rounding."""
    variance = _covariance(x, x)
    largest = np.max(np.abs(x), axis=0, where=np.isfinite(x), initial=0)
    return np.where(variance > (1e-6 * largest) ** 2, variance, np.nan)


def _normed(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Covariance, and what it is divided by for a correlation."""
    return _covariance(x, y), np.sqrt(_varying(x) * _varying(y))


def _ratio(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x/y, NaN where y is 0 or NaN."""
    return np.divide(x, y, out=np.full(np.shape(x), np.nan), where=np.isfinite(y) & (y != 0))


def summary(
    scores: Mapping[str, np.ndarray], excitatory: np.ndarray, conditions: Sequence[str], region: np.ndarray | None
) -> dict[str, Any]:
    """Mean and median of scores [C, n] over neurons, each with its mean over conditions, as nested plain values.

    Returns:
      "all", and by name "by_class", "by_region" and "by_condition": of each score {"mean", "median", "n"}, n the neurons where it is
      defined, and what has none left out.
    """

    def leaf(pick: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
        values = {name: mean_known(np.atleast_2d(pick(score).astype(float))) for name, score in scores.items()}
        kept = {name: value[np.isfinite(value)] for name, value in values.items()}
        return {name: {"mean": float(v.mean()), "median": float(np.median(v)), "n": len(v)} for name, v in kept.items() if len(v)}

    def of(members: np.ndarray) -> dict[str, Any]:
        return leaf(lambda score: score[:, members])

    regions = [] if region is None else np.unique(region).tolist()
    return {
        "all": leaf(lambda score: score),
        "by_class": {name: of(mine) for name, mine in (("exc", excitatory), ("inh", ~excitatory)) if mine.any()},
        "by_region": {str(name): of(region == name) for name in regions},
        "by_condition": {str(name): leaf(lambda score, c=c: score[c]) for c, name in enumerate(conditions)},  # type: ignore[misc]
    }
