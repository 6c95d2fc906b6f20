"""Analyses of trial averages of all neurons together: principal components, coding direction, selectivity and dimensionality.

Axes are found from the trials that the network was trained on. Data of held-out trials and the model are projected on them, so the
data are no closer to the axes than the model is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rlsnet.analysis.analyses.activity import Activity
from rlsnet.analysis.analyses.variables import Result, Variable
from rlsnet.data.statistics import correlation_known

COMPONENTS = 10


def _explained(prediction: np.ndarray, data: np.ndarray) -> float:
    """1 - sum of squared errors / sum of squares of the data about their mean over the first axis; NaN where these do not vary."""
    total = float(np.sum((data - data.mean(axis=0)) ** 2))
    return 1 - float(np.sum((prediction - data) ** 2)) / total if total > 0 else float("nan")


def _rows(values: np.ndarray) -> np.ndarray:
    """[C * M, n] values [C, M, n], one row for each condition and bin."""
    return values.reshape(-1, values.shape[-1])


def trajectories(activity: Activity) -> Result:
    """Trial averages in the principal components of the data.

    Each neuron is divided by its range plus the median range of all neurons, so that neurons with high rates do not decide alone
    (soft normalisation, as Churchland et al., Nature 487:51, 2012).
    """
    trained = _rows(activity.trained)
    spread = np.ptp(trained, axis=0)
    scale = spread + (float(np.median(spread)) or 1.0)
    centre = trained.mean(axis=0)
    _, _, axes = np.linalg.svd((trained - centre) / scale, full_matrices=False)
    axes = axes[:COMPONENTS]
    kinds = {"trained": activity.trained, "data": activity.data, "model": activity.model}
    scaled = {name: (_rows(values) - centre) / scale for name, values in kinds.items()}
    projected = {name: values @ axes.T for name, values in scaled.items()}
    arrays = {name: Variable(projected[name].reshape(*kinds[name].shape[:2], -1), ("condition", "time", "component")) for name in kinds}
    for name, values in scaled.items():
        total = np.sum((values - values.mean(axis=0)) ** 2)
        share = projected[name].var(axis=0) * len(values) / total if total > 0 else np.full(len(axes), np.nan)
        arrays[f"variance_{name}"] = Variable(share, ("component",), {"long_name": f"share of the variance of the {name}"})
    numbers = {"explained": _explained(projected["model"], projected["data"]), **_shown(activity)}
    if activity.heldout:
        numbers["ceiling"] = _explained(projected["trained"], projected["data"])
    return Result(arrays, numbers)


def participation_ratio(x: np.ndarray, y: np.ndarray) -> float:
    """Participation ratio tr(C)^2 / tr(C^2) of the covariance C of activity over time, [T, n] each.

    x and y are the same values or, to leave out the noise of a trial average, averages of independent trials: noise that is
    independent of each other then adds little to either trace. NaN where nothing is common to both.
    """
    inner = (x - x.mean(axis=0)) @ (y - y.mean(axis=0)).T
    trace, squares = float(np.trace(inner)), float(np.sum(inner * inner.T))
    return trace**2 / squares if trace > 0 and squares > 0 else float("nan")


def dimensionality(activity: Activity) -> Result:
    """Participation ratio of data and model, of all neurons and by region; and the share of the variance by component."""
    groups = activity.groups()
    ratio = np.full((2, len(groups)), np.nan)
    for number, group in enumerate(groups):
        mine = activity.members(group)
        trained, data, model = (_rows(values[..., mine]) for values in (activity.trained, activity.data, activity.model))
        ratio[:, number] = participation_ratio(trained, data), participation_ratio(model, model)
    shares = []
    for values in (activity.data, activity.model):
        rows = _rows(values)
        variance = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)[:COMPONENTS] ** 2
        shares.append(np.pad(variance, (0, COMPONENTS - len(variance))) / np.sum((rows - rows.mean(axis=0)) ** 2))
    arrays = {
        "participation_ratio": Variable(ratio, ("kind", "group")),
        "variance": Variable(np.stack(shares), ("kind", "component"), {"long_name": "share of the variance of each"}),
        "group": Variable(np.array(groups), ("group",)),
        "neurons": Variable(np.array([int(activity.members(group).sum()) for group in groups]), ("group",)),
    }
    return Result(arrays, {"kinds": ["data", "model"], "halves": activity.heldout})


def coding_direction(activity: Activity, pair: tuple[int, int], bins: np.ndarray) -> Result:
    """Projection of the activity on the direction that separates two conditions in some bins.

    The direction is the difference of the mean rates of both, of the trials trained on (Li et al., Nature 532:459, 2016). Projections
    have the mean of both conditions in these bins as zero, and the separation of the data there as unit.

    Args:
      activity: data and model.
      pair: numbers of the two conditions.
      bins: [M] bool.
    """
    first, second = pair
    direction = (activity.trained[first, bins] - activity.trained[second, bins]).mean(axis=0)
    middle = (activity.trained[first, bins] + activity.trained[second, bins]).mean(axis=0) / 2
    projected = {name: (values - middle) @ direction for name, values in (("data", activity.data), ("model", activity.model))}

    def separation(values: np.ndarray) -> float:
        """Mean difference of the two conditions in the bins."""
        return float((values[first, bins] - values[second, bins]).mean())

    unit = separation(projected["data"]) or float("nan")
    arrays = {name: Variable(values / unit, ("condition", "time")) for name, values in projected.items()}
    model = (activity.model[first, bins] - activity.model[second, bins]).mean(axis=0)
    data = (activity.data[first, bins] - activity.data[second, bins]).mean(axis=0)

    def cosine(x: np.ndarray, y: np.ndarray) -> float:
        """Cosine of the angle between two directions; NaN if one is zero."""
        return float(x @ y / norm) if (norm := np.linalg.norm(x) * np.linalg.norm(y)) > 0 else float("nan")

    numbers = {
        "conditions": [activity.conditions[first], activity.conditions[second]],
        "separation": separation(projected["model"]) / unit,
        "cosine": cosine(model, direction),
        "window": _span(activity, bins),
        **_shown(activity),
    }
    if activity.heldout:
        numbers["cosine_of_data"] = cosine(data, direction)
    return Result(arrays, numbers)


def selectivity(activity: Activity, pair: tuple[int, int], bins: np.ndarray) -> Result:
    """Difference of the rates in two conditions, of each neuron and by region.

    Over time, a neuron's difference counts as positive if it prefers the same condition in the trials trained on; so noise of the
    other trials averages to zero. Arguments as for `coding_direction`.
    """
    first, second = pair
    kinds = {"trained": activity.trained, "data": activity.data, "model": activity.model}
    difference = {name: values[first] - values[second] for name, values in kinds.items()}
    of_neuron = {name: values[bins].mean(axis=0) for name, values in difference.items()}
    groups, prefers = activity.groups(), np.sign(of_neuron["trained"])
    over_time, correlation = {}, np.full((2, len(groups)), np.nan)
    for name in ("data", "model"):
        over_time[name] = np.stack([(difference[name] * prefers)[:, activity.members(group)].mean(axis=1) for group in groups])
    for number, group in enumerate(groups):
        mine = activity.members(group)
        found = [float(correlation_known(of_neuron["data"][mine], of_neuron[name][mine])) for name in ("model", "trained")]
        correlation[:, number] = found[0], found[1] if activity.heldout else np.nan
    arrays = {name: Variable(values, ("neuron",), {"units": activity.quantity}) for name, values in of_neuron.items()}
    arrays |= {f"{name}_over_time": Variable(values, ("group", "time")) for name, values in over_time.items()}
    arrays |= {
        "correlation": Variable(correlation[0], ("group",), {"long_name": "of data and model over neurons"}),
        "ceiling": Variable(correlation[1], ("group",), {"long_name": "of both halves of the data over neurons"}),
        "group": Variable(np.array(groups), ("group",)),
        "region": Variable(activity.region, ("neuron",)),
    }
    return Result(arrays, {"conditions": [activity.conditions[c] for c in pair], "window": _span(activity, bins)})


def _shown(activity: Activity) -> dict[str, Any]:
    """Names of the conditions of a result, and their numbers in the test."""
    return {"names": activity.conditions, "number": activity.number.tolist()}


def _span(activity: Activity, bins: np.ndarray) -> list[float]:
    """[start, end] of some bins, s."""
    half = float(np.median(np.diff(activity.time))) / 2 if len(activity.time) > 1 else 0.0
    return [round(float(activity.time[bins][0]) - half, 6) + 0.0, round(float(activity.time[bins][-1]) + half, 6)]
