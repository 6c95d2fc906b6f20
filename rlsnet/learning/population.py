"""Explained variance of a population of neurons: of the model, of the other half of the trials, and of baselines.

For predicted rates q and recorded rates d, over all neurons n, conditions c and bins m where both are known:

    population explained variance = 1 - sum (q - d)^2/sum (d - mean_n)^2

with the mean of d of each neuron over conditions and bins. d are the rates of the held-out trials or, without them, of the trials that
were trained on. The rates of the model are smoothed as those of the recording, and the expected square of their own trial noise is
subtracted from the squared error; so the score does not depend on the number of trials of the model, but for its uncertainty. For
the vectors a_t = q_t - d of T trials, over neurons and bins, the squared error is the mean of a_s.a_t over pairs of different trials.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlsnet.data.statistics import mean_known

EXPLAINED = {  # what predicts the recorded rates, in the order of columns
    "model": "network",
    "ceiling": "other half",
    "mean_rate": "mean rate",
    "condition_average": "condition average",
    "untrained": "untrained network",
    "linear": "linear model",
}
BASELINES = ("mean_rate", "condition_average", "untrained")  # linear is none: the network does not have the recorded rates of its inputs
TITLE = "population explained variance"
LEAST_HZ = 0.1  # of a rate whose likelihood is computed
SAMPLED = 1024  # neurons whose single trials are kept for the standard error
BIASED = 0.1  # of the mean recorded rate: a larger error of the mean rate is pointed out


def compared(target: np.ndarray, heldout: np.ndarray | None) -> np.ndarray:
    """[..., n] Hz, the recorded rates that predictions are compared with; NaN in bins that are unknown in either.

    Args:
      target: [..., n] Hz, recorded rates that were trained on.
      heldout: [..., n] Hz, recorded rates of the held-out trials, or None.
    """
    return target if heldout is None else np.where(np.isfinite(target), heldout, np.nan)


def squared_error(prediction: np.ndarray, data: np.ndarray) -> np.ndarray:
    """[C, n] sum of (q - d)^2 over the bins where d is known, for rates q and d [C, M, n] in Hz."""
    return np.where(np.isfinite(data), np.square(prediction - data, dtype=np.float64), 0).sum(axis=1)


def sampled(values: np.ndarray) -> np.ndarray:
    """[..., k] values of the neurons whose single trials are kept, of values [..., n] of all; evenly spaced, at most SAMPLED."""
    n = values.shape[-1]
    return values[..., np.linspace(0, n - 1, min(n, SAMPLED)).astype(int)]


class SmoothedTrials:
    """Simulated trials of a condition: what their squared error and its uncertainty need.

    total, squares: [M, n] sums over the trials of the smoothed rates and of their squares, Hz and Hz^2.
    trials: number of trials so far.
    """

    def __init__(self, smoothing: np.ndarray, hz: float, n: int):
        """No trials yet of n neurons.

        Args:
          smoothing: [M, M] of `scores.smoothing_weights`.
          hz: rate of one spike in a bin, Hz.
          n: number of neurons.
        """
        self._weights, self.trials = smoothing * hz, 0
        self.total, self.squares = np.zeros((2, len(smoothing), n))
        self._sample: list[np.ndarray] = []

    def add(self, counts: np.ndarray) -> None:
        """Adds a trial with spike counts [M, n]."""
        rate = self._weights @ counts
        self.trials += 1
        self.total += rate
        self.squares += rate**2
        self._sample.append(sampled(rate))

    def squared_error(self, data: np.ndarray, part: slice) -> np.ndarray:
        """[n] squared error of the mean rate of neurons `part` without that of its trial noise, Hz^2; one trial: nothing is subtracted.

        Args:
          data: [M, n] Hz, their recorded rates.
          part: of all neurons.
        """
        mean, squares = self.total[:, part] / self.trials, self.squares[:, part]
        noise = (squares / self.trials - mean**2) / (self.trials - 1) if self.trials > 1 else 0
        return np.where(np.isfinite(data), (mean - data) ** 2 - noise, 0).sum(axis=0)

    def error_variance(self, data: np.ndarray) -> float:
        """Jackknife variance of the squared error, summed over the sampled neurons, Hz^4; NaN with fewer than 3 trials.

        It is rather too large: up to twice the variance where the error comes from the trials alone (Efron & Stein, Ann Stat 9:586, 1981).

        Args:
          data: [M, k] Hz, recorded rates of the sampled neurons.
        """
        n = self.trials
        if n < 3:
            return float("nan")
        deviations = np.where(np.isfinite(data), np.stack(self._sample) - data, 0).reshape(n, -1)
        products = deviations @ deviations.T
        np.fill_diagonal(products, 0)
        without = (products.sum() - 2 * products.sum(axis=1)) / ((n - 1) * (n - 2))
        return float((n - 1) * without.var())


def recorded_errors(target: np.ndarray, heldout: np.ndarray | None) -> dict[str, np.ndarray]:
    """Squared errors [C, n] of what the recorded rates [C, M, n] themselves predict, Hz^2; `total` is that of each neuron's own mean.

    ceiling: the trials trained on, if others were held out. mean_rate: their mean over conditions and bins. condition_average: their
    mean over conditions, if there are several.
    """
    data = compared(target, heldout)
    means = [mean_known(values.reshape(-1, values.shape[2]).astype(float)) for values in (data, target)]
    errors = {"total": squared_error(means[0], data), "mean_rate": squared_error(means[1], data)}
    if heldout is not None:
        errors["ceiling"] = squared_error(target, data)
    if len(target) > 1:
        errors["condition_average"] = squared_error(mean_known(target.astype(float)), data)
    return errors


def explained(errors: Mapping[str, np.ndarray], conditions: Sequence[str], region: np.ndarray | None) -> dict[str, Any]:
    """Population explained variance of each prediction, in groups as of `_by_group`.

    Args:
      errors: squared errors [C, n] by name of prediction, NaN for neurons without one, and `total`.
      conditions: [C] names.
      region: [n] names, or None.
    """
    total = errors["total"]
    return _by_group({name: total - errors[name] for name in EXPLAINED if name in errors}, total, conditions, region)


def log_likelihood_gain(rate: np.ndarray, mean: np.ndarray, spikes: np.ndarray, trials: np.ndarray, bin_s: float) -> np.ndarray:
    """[n] Poisson log likelihood of spike counts under rates, minus that under each neuron's mean rate; both are at least LEAST_HZ.

    Args:
      rate: [M, n] Hz, predicted.
      mean: [n] Hz.
      spikes: [M, n] counts, summed over trials.
      trials: [n] number of these trials.
      bin_s: length of a bin, s.
    """
    rate, mean = np.maximum(rate, LEAST_HZ), np.maximum(mean, LEAST_HZ)
    return (spikes * np.log(rate / mean)).sum(axis=0) - trials * bin_s * (rate - mean).sum(axis=0)


def bits_per_spike(
    gains: Mapping[str, np.ndarray], spikes: np.ndarray, conditions: Sequence[str], region: np.ndarray | None
) -> dict[str, Any]:
    """Gains [C, n] of `log_likelihood_gain` in bits for each of the spikes [C, n], in groups as of `_by_group`."""
    return _by_group(gains, spikes * np.log(2), conditions, region)


def _by_group(parts: Mapping[str, np.ndarray], whole: np.ndarray, conditions: Sequence[str], region: np.ndarray | None) -> dict[str, Any]:
    """Ratios of sums over neurons, of parts [C, n], by name, to a whole [C, n], as nested plain values; undefined ones are left out.

    Neurons where a part is NaN do not count in the whole either.

    Returns:
      {"all": {name: value}, "by_condition": {name: entry}, "by_region": {name: entry}}, the largest regions first.
    """

    def entry(*group: Any) -> dict[str, float]:
        found = {}
        for name, part in parts.items():
            known = np.isfinite(part[group])
            if (size := whole[group].sum(where=known)) > 0:
                found[name] = float(part[group].sum(where=known) / size)
        return found

    sizes = Counter(() if region is None else region.tolist())
    regions = sorted(sizes, key=lambda name: (-sizes[name], name))  # those with most neurons first
    return {
        "all": entry(slice(None), slice(None)),
        "by_condition": {str(name): entry(slice(c, c + 1), slice(None)) for c, name in enumerate(conditions)},
        "by_region": {str(name): entry(slice(None), region == name) for name in regions},
    }


def rate_bias(model: np.ndarray, target: np.ndarray, heldout: np.ndarray | None, conditions: Sequence[str]) -> dict[str, dict[str, float]]:
    """Errors of the mean rate over neurons by condition, Hz: recorded rate, model minus recorded, and trained on minus held out.

    Args:
      model: [C, n] Hz, mean rates of the model minus those recorded over the bins compared; NaN: unknown.
      target: [C, M, n] Hz, recorded rates that were trained on.
      heldout: [C, M, n] Hz, recorded rates of the held-out trials, or None.
      conditions: [C] names.
    """
    data, found = compared(target, heldout), {}
    for c, name in enumerate(conditions):
        values = {"recorded": mean_known(data[c].astype(float)), "model": model[c]}
        if heldout is not None:
            values["halves"] = mean_known(target[c].astype(float) - data[c])
        means = {key: float(mean_known(each)) for key, each in values.items()}
        found[str(name)] = {key: value for key, value in means.items() if np.isfinite(value)}
    return found


def biased(bias: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The conditions of `rate_bias` where the model's mean rate is wrong by more than BIASED of the recorded rate."""
    return [name for name, each in bias.items() if "model" in each and abs(each["model"]) > BIASED * each["recorded"]]
