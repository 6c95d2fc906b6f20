"""Scores of a model: correlation of windowed currents with the target, and of rates with recorded rates and their noise ceiling."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from rlsnet.config.schema import TrialConfig
from rlsnet.data.statistics import correlation_known, covariance, mean_known, ratio, variance
from rlsnet.learning import held_out

WINDOW = 100.0  # ms, the width over which currents are averaged before they are compared (2*wid in TrainSpikingNet.jl)
NEURONS_PER_BLOCK = 2**17  # neurons whose currents are compared with their targets at once: 50 MB for 100 learning points


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


def smoothing_weights(kernel: Sequence[float], n_bins: int) -> np.ndarray:
    """[M, M] weights that smooth M bins with a kernel of 2 P + 1 weights, as in a convolution; those inside the M bins sum to 1.

    An empty kernel smooths nothing.
    """
    if not len(kernel):
        return np.eye(n_bins)
    lag = np.arange(n_bins)[:, None] - np.arange(n_bins)
    place = lag + len(kernel) // 2
    inside = (place >= 0) & (place < len(kernel))
    weights = np.where(inside, np.asarray(kernel, float)[np.clip(place, 0, len(kernel) - 1)], 0)
    return weights / weights.sum(axis=1, keepdims=True)


class Moments(NamedTuple):
    """Moments over time of two signals x and y, [N] each: number n of points where x is known, means, sums of products of deviations.

    varies: bool, whether both signals vary by more than rounding errors; y by more than those of x too, as a current that is exactly 0 on a
      CPU can be 1e-9 of the target on a GPU, where sums have another order.
    """

    n: Array
    mean_x: Array
    mean_y: Array
    xx: Array
    yy: Array
    xy: Array
    varies: Array


def moments(x: Array, y: Array) -> Moments:
    """Moments over time of x and y [M, N], at the points where x is not NaN.

    Rows of N numbers are added one after another, which is 20 times faster on a CPU than a sum over the first axis.
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
    mean_x, mean_y = first_x + total_x / points, first_y + total_y / points  # exact for constant signals

    def one(sums: Any, row: Any) -> tuple[Any, None]:
        xx, yy, xy, most_x, most_y = sums
        known = ~jnp.isnan(row[0])
        dx, dy = (jnp.where(known, each - mean, 0) for each, mean in zip(row, (mean_x, mean_y), strict=True))
        largest = (jnp.maximum(most, jnp.where(known, jnp.abs(each), 0)) for most, each in zip((most_x, most_y), row, strict=True))
        return (xx + dx * dx, yy + dy * dy, xy + dx * dy, *largest), None

    xx, yy, xy, most_x, most_y = lax.scan(one, (zeros,) * 5, (x, y))[0]
    tiny = points * (8 * jnp.finfo(x.dtype).eps) ** 2
    varies = (xx > tiny * most_x**2) & (yy > tiny * jnp.maximum(most_x, most_y) ** 2)
    return Moments(count, mean_x, mean_y, xx, yy, xy, varies)


def windowed_moments(trial: TrialConfig, target: Array, condition: Array, currents: Array) -> Moments:
    """Moments of the target and of the windowed currents in a condition, in blocks of neurons, so that no other array [M, N] is made.

    Args:
      trial: durations, for the window.
      target: [C, M, N] target currents; NaN: not trained.
      condition: int32, index of the condition.
      currents: [M, N] means over learning bins.
    """
    points, n = currents.shape
    size = min(n, NEURONS_PER_BLOCK)

    def of_block(start: Array) -> Moments:
        wanted = lax.dynamic_slice(target, (condition, jnp.int32(0), start), (1, points, size))[0]
        return moments(wanted, windowed(trial, lax.dynamic_slice_in_dim(currents, start, size, 1)))

    def one(index: Array, found: Moments) -> Moments:
        start = jnp.minimum(index * size, n - size).astype(jnp.int32)  # the last block overlaps the one before
        return jax.tree.map(lambda whole, block: lax.dynamic_update_slice_in_dim(whole, block, start, 0), found, of_block(start))

    if size == n:
        return of_block(jnp.int32(0))
    empty = jax.tree.map(lambda part: jnp.zeros(n, part.dtype), jax.eval_shape(of_block, jnp.int32(0)))
    return lax.fori_loop(0, -(-n // size), one, empty)


def correlation(m: Moments) -> Array:
    """[N] Pearson's r; NaN where x or y does not vary."""
    return jnp.where(m.varies, m.xy / jnp.sqrt(jnp.where(m.varies, m.xx * m.yy, 1)), jnp.nan)


def squared_error(m: Moments) -> Array:
    """[N] sum over time of (y - x)^2."""
    return jnp.maximum(m.xx + m.yy - 2 * m.xy, 0) + m.n * (m.mean_y - m.mean_x) ** 2


def pearson(x: Array, y: Array) -> Array:
    """[N] Pearson's correlation over time of x and y [M, N] where x is not NaN; NaN where one of them does not vary."""
    return correlation(moments(x, y))


def windowed(trial: TrialConfig, currents: Array) -> Array:
    """[M, N] means over the window, from means [M, N] over learning bins."""
    return jnp.matmul(jnp.asarray(window_weights(trial), currents.dtype), currents, precision="highest")


def current_correlation(trial: TrialConfig, currents: Array, target: Array) -> Array:
    """[N] correlation over time of the target [M, N], where it is not NaN, with the windowed mean current.

    Args:
      trial: durations, for the window.
      currents: [M, N] means over learning bins.
      target: [M, N] target currents.
    """
    return pearson(target, windowed(trial, currents))


@dataclasses.dataclass(frozen=True)
class Score:
    """Definition of a score, which a test.zarr has for each neuron and condition.

    title: name in a report.
    heading: heading of a column in a table in the terminal.
    meaning: definition as text, stored with the values.
    unit: unit; "" for a number without one.
    statistic: summary over neurons that is shown: median, or mean for errors of both signs.
    """

    title: str
    heading: str
    meaning: str
    unit: str = ""
    statistic: str = "median"

    @property
    def label(self) -> str:
        """The title with the unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


SCORES = {
    "current_correlation": Score("current correlation", "current r", "correlation of target and windowed mean current"),
    "rate_correlation": Score("rate correlation", "rate r", "correlation of model and recorded rate, of the trials trained on"),
    "heldout_correlation": Score(
        "correlation, held-out trials", "held-out r", "correlation of model and recorded rate, of the trials held out"
    ),
    "noise_ceiling": Score("noise ceiling", "noise ceiling", "correlation that the underlying rate would have with the recorded rate"),
    "model_ceiling": Score(
        "model ceiling", "model ceiling", "correlation that the model's rate from as many trials has with its underlying rate"
    ),
    "explained_variance": Score("explained variance (EV)", "EV", "share of the recorded rate's variance that the model explains"),
    "signal_explained": Score("SNR-corrected EV", "SNR-corrected EV", "share of the variance that is not noise that the model explains"),
    "reliability": Score("split-half reliability", "reliability", "correlation of the recorded rates of odd and of even trials"),
    "rate_error": Score("rate error", "rate error (Hz)", "mean rate, model minus recorded", "Hz", "mean"),
}


def typical(statistics: Mapping[str, Any], name: str) -> float | None:
    """Median of a score over neurons, or mean of an error, from an entry of `summary`; None if it is undefined."""
    value = (statistics.get(name) or {}).get(SCORES[name].statistic)
    return value if value is not None and np.isfinite(value) else None


def rate_scores(
    trial: TrialConfig,
    counts: np.ndarray,
    trials: int,
    target: np.ndarray,
    heldout: np.ndarray | None = None,
    halves: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Scores [n] of the rates q of a model against recorded rates, by name: those of SCORES that the recorded rates allow.

    Both are first averaged over the same window, over the bins with known recorded rates; V and cov are over time. d are the recorded
    rates of the held-out trials or, without them, of the trials that were trained on. NaN: undefined.

        rate_correlation, heldout_correlation   cov(d, q)/sqrt(V(d) V(q))
        explained_variance                      1 - mean (q - d)^2/V(d)
        model_ceiling                           sqrt(1 - noise/V(q)) with the noise of `_trial_noise`;
                                                a perfect model has r = noise_ceiling*model_ceiling
        rate_error                              mean q - d, not averaged over the window

    Args:
      trial: durations, for the window.
      counts: [2, M, n] spikes of the model, summed over its odd and over its even trials.
      trials: number of trials of the model.
      target: [M, n] Hz, recorded rates that were trained on; NaN is unknown.
      heldout: [M, n] Hz, recorded rates of the held-out trials.
      halves: two [M, n] Hz, recorded rates of odd and of even trials; for the scores of `_signal_scores`.
    """
    weights, hz = window_weights(trial), 1000 / trial.learn_every
    model = counts.sum(axis=0) * (hz / trials)
    data = target if heldout is None else heldout
    out: dict[str, np.ndarray] = {}
    for name, rate in {"rate_correlation": target, **({} if heldout is None else {"heldout_correlation": heldout})}.items():
        known = np.isfinite(rate)
        out[name] = correlation_known(windowed_known(weights, rate, known), windowed_known(weights, model, known))
    known = np.isfinite(data)
    d, q = windowed_known(weights, data, known), windowed_known(weights, model, known)
    noise = _trial_noise(weights, counts, hz, known, trials)
    if trials > 1:
        out["model_ceiling"] = np.sqrt(np.maximum(1 - ratio(noise, variance(q)), 0))
    out["explained_variance"] = 1 - ratio(mean_known((q - d) ** 2), variance(d))
    out["rate_error"] = mean_known(np.where(known, model - data, np.nan))
    if halves is not None:
        both = np.isfinite(halves[0]) & np.isfinite(halves[1]) & known
        one, two = (windowed_known(weights, half, both) for half in halves)
        out |= _signal_scores(d, q, noise, one, two, heldout is not None)
    return out


def _trial_noise(weights: np.ndarray, counts: np.ndarray, hz: float, known: np.ndarray, trials: int) -> np.ndarray:
    """[n] variance over time that the model's windowed rate has because it is the mean of a few trials; 0 for one trial.

    It is that of (q1 - q2) sqrt(n1 n2)/(n1 + n2), where q1 and q2 are the rates in n1 odd and n2 even trials.
    """
    n1, n2 = -(-trials // 2), trials // 2
    half_difference = (counts[0] / n1 - counts[1] / max(1, n2)) * (hz * np.sqrt(n1 * n2) / trials)
    difference = windowed_known(weights, half_difference, known)
    return covariance(difference, difference)


def _signal_scores(
    d: np.ndarray, q: np.ndarray, noise: np.ndarray, one: np.ndarray, two: np.ndarray, heldout: bool
) -> dict[str, np.ndarray]:
    """Scores [n] from the recorded rates h1 and h2 of odd and even trials; NaN where the covariance of h1 and h2 is not above 0.

        reliability       r = correlation of h1 and h2
        noise_ceiling     sqrt(r) against one half, sqrt(2r/(1 + r)) against all trials (Hsu, Borst & Theunissen, Network 15:91, 2004)
        signal_explained  (V(d) - V(d - q) + noise)/cov(h1, h2) = (2 cov(d, q) - V(q) + noise)/cov(h1, h2)
                          (Sahani & Linden, NIPS 15:109, 2003; a constant offset does not count, as all their powers are variances)

    Args:
      d: [M, n] Hz, windowed recorded rates compared with.
      q: [M, n] Hz, windowed rates of the model.
      noise: [n] of `_trial_noise`.
      one: [M, n] Hz, windowed h1.
      two: [M, n] Hz, windowed h2.
      heldout: whether d is one half of the trials.
    """
    r = correlation_known(one, two)
    positive = np.where(r > 0, r, np.nan)
    ceiling = np.sqrt(positive if heldout else 2 * positive / (1 + positive))
    explained = 2 * covariance(d, q) - covariance(q, q) + noise
    signal = np.where(r > 0, covariance(one, two), np.nan)
    return {"reliability": r, "noise_ceiling": ceiling, "signal_explained": ratio(explained, signal)}


def windowed_known(weights: np.ndarray, values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """[M, n] averages over the window, with weights [M, M], of the known bins; NaN in the other bins."""
    if known.all():
        return weights @ values
    total = weights @ np.where(known, values, 0)
    return np.divide(total, weights @ known, out=np.full(total.shape, np.nan), where=known)


def summary(
    scores: Mapping[str, np.ndarray],
    excitatory: np.ndarray,
    conditions: Sequence[str],
    region: np.ndarray | None,
    trained: np.ndarray | None = None,
) -> dict[str, Any]:
    """Mean and median over neurons of scores [C, n], averaged over conditions first, as nested plain values.

    Args:
      scores: [C, n] by name.
      excitatory: [n] bool.
      conditions: [C] names.
      region: [n] names, or None.
      trained: [C, n] bool, the neurons and conditions that are trained, which alone count in these groups; None: all.

    Returns:
      {"all": entry, "by_class": {name: entry}, "by_region": ..., "by_condition": ...}, where an entry is {score: {"mean", "median", "n"}}
      with the number n of neurons where the score is defined, for the scores with n > 0; where some are not trained also {"held_out":
      {name: entry}} with the names of `held_out.groups`.
    """
    others: dict[str, Any] = {}
    if trained is not None and not trained.all():
        for name, mask in held_out.groups(trained, conditions).items():
            others[name] = _over_neurons({key: np.where(mask, values, np.nan) for key, values in scores.items()})
        others = {name: entry for name, entry in others.items() if entry}  # units without recorded rates have no scores
        others = {"held_out": others} if others else {}
        scores = {key: np.where(trained, values, np.nan) for key, values in scores.items()}
    regions = [] if region is None else np.unique(region).tolist()
    classes = {name: mine for name, mine in (("exc", excitatory), ("inh", ~excitatory)) if mine.any()}
    return others | {
        "all": _over_neurons(scores),
        "by_class": {name: _over_neurons({k: v[:, mine] for k, v in scores.items()}) for name, mine in classes.items()},
        "by_region": {str(name): _over_neurons({k: v[:, region == name] for k, v in scores.items()}) for name in regions},
        "by_condition": {str(name): _over_neurons({k: v[[c]] for k, v in scores.items()}) for c, name in enumerate(conditions)},
    }


def _over_neurons(scores: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Mean, median and number n of the neurons where a score [C, n] is defined; scores without such neurons are left out."""
    values = {name: mean_known(score.astype(float)) for name, score in scores.items()}
    known = {name: value[np.isfinite(value)] for name, value in values.items()}
    return {name: {"mean": float(v.mean()), "median": float(np.median(v)), "n": len(v)} for name, v in known.items() if len(v)}
