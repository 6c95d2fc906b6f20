"""Explained variance of a population of neurons: of the model, of the other half of the trials, and of baselines.

For predicted rates q and recorded rates d, over all neurons n, conditions c and bins m where both are known:

    population explained variance = 1 - sum (q - d)^2/sum (d - mean_n)^2

with the mean of d of each neuron over conditions and bins. d are the rates of the held-out trials or, without them, of the trials that
were trained on. The rates of the model are smoothed as those of the recording, and the expected square of their own trial noise is
subtracted from the squared error; so the score does not depend on the number of trials of the model, but for its uncertainty. For
the vectors a_t = q_t - d of T trials, over neurons and bins, the squared error is the mean of a_s.a_t over pairs of different trials
(with more than GROUPS trials, of trials in different groups).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlsnet.data.statistics import mean_known
from rlsnet.learning import held_out

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
GROUPS = 20  # of trials, whose sums a test with recorded rates keeps; even, so that a group has odd or even trials only
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


class TrialSums:
    """Spikes of simulated trials of a condition, summed over groups of trials: what scores need of single trials.

    counts: [G, M, n] spikes of the G groups; trial t is in group t % G.
    trials: number of trials so far.
    """

    @staticmethod
    def storage(trials: int, steps: int, compared: bool) -> tuple[int, np.dtype]:
        """(G, type of counts); arguments as for a new object."""
        groups = min(trials, GROUPS if compared else 2)
        return groups, np.min_scalar_type(steps * -(-trials // groups))

    def __init__(self, trials: int, shape: tuple[int, int], steps: int, compared: bool = True):
        """No trials yet.

        Args:
          trials: number of trials to come.
          shape: (M, n).
          steps: time steps of a bin, the largest number of spikes in it.
          compared: whether `squared_error` will be needed; else odd and even trials make two groups, which `halves` needs.
        """
        groups, dtype = self.storage(trials, steps, compared)
        self.counts, self.trials = np.zeros((groups, *shape), dtype), 0

    def add(self, counts: np.ndarray) -> None:
        """Adds a trial with spike counts [M, n]."""
        self.counts[self.trials % len(self.counts)] += counts.astype(self.counts.dtype)
        self.trials += 1

    def halves(self, part: slice = slice(None)) -> np.ndarray:
        """[2, M, k] spikes of the first, third, ... and of the second, fourth, ... trials, for the neurons `part`."""
        return np.stack([self.counts[first::2, :, part].sum(axis=0, dtype=np.int64) for first in (0, 1)])

    def squared_error(self, weights: np.ndarray, data: np.ndarray, part: slice) -> tuple[np.ndarray, np.ndarray]:
        """Squared error of the mean rate without that of its trial noise, and what its variance needs.

        Args:
          weights: [M, M] Hz, from counts to smoothed rates.
          data: [M, k] Hz, recorded rates of the neurons `part`.
          part: of all neurons.

        Returns:
          ([k] Hz^2, by pairs of trials from different groups, or of the only trial, whose noise is in it; [G, G] Hz^2, products of the
          groups' deviations from the data, summed over these neurons).
        """
        number = self._numbers()[:, None, None]
        deviations = np.where(np.isfinite(data), weights @ self.counts[:, :, part] - number * data, 0)
        squares, pairs = deviations.sum(axis=0) ** 2, 1
        if self.trials > 1:
            squares, pairs = squares - (deviations**2).sum(axis=0), self.trials**2 - (number**2).sum()
        flat = deviations.reshape(len(deviations), -1)
        return squares.sum(axis=0) / pairs, flat @ flat.T

    def error_variance(self, products: np.ndarray) -> float:
        """Jackknife variance over the groups of the squared error, summed over neurons, Hz^4; NaN with fewer than 3 groups.

        It is rather too large: up to twice the variance where the error comes from the trials alone (Efron & Stein, Ann Stat 9:586, 1981).

        Args:
          products: [G, G] of `squared_error`, summed over blocks of neurons.
        """
        groups, number = len(products), self._numbers()
        if groups < 3:
            return float("nan")
        sums, pairs = (each * (1 - np.eye(groups)) for each in (products, np.outer(number, number)))
        without = (sums.sum() - 2 * sums.sum(axis=1)) / (pairs.sum() - 2 * pairs.sum(axis=1))
        return float((groups - 1) * without.var())

    def _numbers(self) -> np.ndarray:
        """[G] trials in each group."""
        return np.bincount(np.arange(self.trials) % len(self.counts), minlength=len(self.counts))


def recorded_errors(target: np.ndarray, heldout: np.ndarray | None, trained: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Squared errors [C, n] of what the recorded rates [C, M, n] themselves predict, Hz^2; `total` is that of each neuron's own mean.

    ceiling: the trials trained on, if others were held out. mean_rate: their mean over trained conditions and bins. condition_average:
    their mean over trained conditions, if there are several, or if other conditions are compared with it. The own mean is that over the
    trained conditions and, in each condition that is not trained, that of the condition.

    Args:
      target: [C, M, n] Hz, recorded rates, of the trials that were trained on.
      heldout: [C, M, n] Hz, recorded rates of the held-out trials, or None.
      trained: [C] bool, the conditions that are trained; None: all.
    """
    data, known = compared(target, heldout), np.ones(len(target), bool) if trained is None else trained
    means = [mean_known(values[known].reshape(-1, values.shape[2]).astype(float)) for values in (data, target)]
    errors = {"total": squared_error(means[0], data), "mean_rate": squared_error(means[1], data)}
    for c in np.flatnonzero(~known):
        errors["total"][c] = squared_error(mean_known(data[c].astype(float)), data[[c]])[0]
    if heldout is not None:
        errors["ceiling"] = squared_error(target, data)
    if known.sum() > 1 or not known.all():
        errors["condition_average"] = squared_error(mean_known(target[known].astype(float)), data)
        if known.sum() == 1:
            errors["condition_average"][known] = np.nan  # the condition itself
    return errors


def explained(
    errors: Mapping[str, np.ndarray], conditions: Sequence[str], region: np.ndarray | None, trained: np.ndarray | None = None
) -> dict[str, Any]:
    """Population explained variance of each prediction, in groups as of `_by_group`.

    Args:
      errors: squared errors [C, n] by name of prediction, NaN for neurons without one, and `total`.
      conditions: [C] names.
      region: [n] names, or None.
      trained: as of `_by_group`.
    """
    total = errors["total"]
    return _by_group({name: total - errors[name] for name in EXPLAINED if name in errors}, total, conditions, region, trained)


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
    gains: Mapping[str, np.ndarray],
    spikes: np.ndarray,
    conditions: Sequence[str],
    region: np.ndarray | None,
    trained: np.ndarray | None = None,
) -> dict[str, Any]:
    """Gains [C, n] of `log_likelihood_gain` in bits for each of the spikes [C, n], in groups as of `_by_group`."""
    return _by_group(gains, spikes * np.log(2), conditions, region, trained)


def _by_group(
    parts: Mapping[str, np.ndarray],
    whole: np.ndarray,
    conditions: Sequence[str],
    region: np.ndarray | None,
    trained: np.ndarray | None = None,
) -> dict[str, Any]:
    """Ratios of sums over neurons, of parts [C, n], by name, to a whole [C, n], as nested plain values; undefined ones are left out.

    Neurons where a part is NaN do not count in the whole either.

    Args:
      parts: [C, n] by name.
      whole: [C, n].
      conditions: [C] names.
      region: [n] names, or None.
      trained: [C, n] bool, the neurons and conditions that are trained, which alone count in these groups; None: all.

    Returns:
      {"all": {name: value}, "by_condition": {name: entry}, "by_region": {name: entry}}, the largest regions first; and, where some are not
      trained, {"held_out": {name: entry}} with the names of `held_out.groups` and without predictions that were fitted to the same rates.
    """
    counted = np.ones(whole.shape, bool) if trained is None else trained

    def entry(*group: Any, counted: np.ndarray = counted) -> dict[str, float]:
        found = {}
        for name, part in parts.items():
            known = np.isfinite(part[group]) & counted[group]
            if (size := whole[group].sum(where=known)) > 0:
                found[name] = float(part[group].sum(where=known) / size)
        return found

    sizes = Counter(() if region is None else region.tolist())
    regions = sorted(sizes, key=lambda name: (-sizes[name], name))  # those with most neurons first
    everything = slice(None), slice(None)
    others = {} if trained is None or trained.all() else held_out.groups(trained, conditions)
    predicted = {name: entry(*everything, counted=mask) for name, mask in others.items()}
    without_fits = {name: {key: value for key, value in each.items() if key != "linear"} for name, each in predicted.items() if each}
    return ({"held_out": without_fits} if without_fits else {}) | {
        "all": entry(*everything),
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
