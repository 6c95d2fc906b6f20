"""Effect of a perturbation in recorded trials beside the predicted one: perturbed minus unperturbed rates, of data and of model.

The model was not trained on perturbed trials, so its effect is a prediction. With changes a of the model and d of the recorded rates in
each bin,

    explained variance of the effect = 1 - sum (a - d)^2/sum d^2

over neurons and bins from the start of the perturbation on: 0 for a model without any effect, 1 for one with the recorded effect. The
trial noise of both counts as an error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import zarr

from rlsnet.analysis import score_tables
from rlsnet.analysis.perturbation_effects import PerturbationEffect
from rlsnet.data.statistics import mean_known
from rlsnet.io import zarr_store
from rlsnet.learning.scores import smoothing_weights

HEAD = ("", "neurons", "recorded change (Hz)", "model change (Hz)", "r over neurons", "EV of the effect")
SPECS = ("+.2f", "+.2f", ".2f", ".2f")  # formats of the last four columns
TITLE = "Effect of the perturbation in recorded trials and in the model, which was not trained on them"
NOTE = "Changes and r: mean rates in the windows. EV: all bins from the first window on; 0 is no effect, 1 the recorded one."


@dataclasses.dataclass(frozen=True)
class RecordedEffect:
    """Recorded and predicted changes of rates, for n neurons and D conditions with recorded perturbed trials.

    names: [D] of the conditions, with those of the recorded perturbed trials.
    recorded: [D, M, n] Hz, perturbed minus unperturbed recorded rates; NaN: unknown.
    model: [D, M, n] Hz, perturbed minus unperturbed rates of the model, smoothed as the recorded ones.
    effect: the perturbation.
    """

    names: list[str]
    recorded: np.ndarray
    model: np.ndarray
    effect: PerturbationEffect

    @property
    def inside(self) -> np.ndarray:
        """[M] bool, bins in a window."""
        return self.effect.period == 1

    def changes(self) -> tuple[np.ndarray, np.ndarray]:
        """([n], [n]) Hz, changes of each neuron's mean rate in the windows, recorded and of the model."""
        recorded = self.recorded[:, self.inside].astype(float)
        model = np.where(np.isfinite(recorded), self.model[:, self.inside], np.nan)
        n = recorded.shape[2]
        return mean_known(recorded.reshape(-1, n)), mean_known(model.reshape(-1, n))

    def explained(self, members: np.ndarray) -> float:
        """Explained variance of the effect over some neurons [n] bool; NaN without a recorded effect."""
        bins = self.effect.period != 0
        d, a = (values[:, bins][:, :, members].astype(float) for values in (self.recorded, self.model))
        known = np.isfinite(d)
        total = np.sum(d[known] ** 2)
        return float(1 - np.sum((a - d)[known] ** 2) / total) if total > 0 else np.nan

    def rows(self) -> Iterator[tuple[str, int, list[float]]]:
        """(group of neurons, number, [recorded change, model change, r over neurons, explained variance]) of each group."""
        recorded, model = self.changes()
        known = np.isfinite(recorded)
        for name, members in [("all", np.ones(len(recorded), bool)), *(g for g in self.effect.groups() if g[0] != "all")]:
            mine = members & known
            if mine.any():
                varies = mine.sum() > 2 and np.ptp(recorded[mine]) > 0 and np.ptp(model[mine]) > 0
                r = float(np.corrcoef(recorded[mine], model[mine])[0, 1]) if varies else np.nan
                yield name, int(mine.sum()), [float(recorded[mine].mean()), float(model[mine].mean()), r, self.explained(members)]


def recorded_effect(test: zarr.Group, perturbed: zarr.Group) -> RecordedEffect | None:
    """The effect in the recorded trials that perturb.compare names; None if it names none, or the rates are not stored."""
    settings: Any = perturbed.attrs["perturb"]
    compare: dict[str, str] = settings.get("compare") or {}
    rates = next((name for name in ("rate_heldout", "rate_target") if name in test), None)
    if not compare or rates is None:
        return None
    names = zarr_store.texts(test["condition"]).tolist()
    own, other = ([names.index(name) for name in group] for group in (compare.keys(), compare.values()))
    effect = PerturbationEffect.from_tests(test, perturbed, untrained=True)
    shared = np.isin(zarr_store.read(test["neuron"]), zarr_store.read(perturbed["neuron"]))
    data = zarr_store.read(test[rates])[:, :, shared]
    weights = smoothing_weights(test.attrs.get("smoothing", ()), data.shape[1])
    model = np.stack([weights @ (effect.psth_perturbed[c] - effect.psth_control[c]) for c in own])
    labels = [f"{name} ({recorded})" for name, recorded in compare.items()]
    return RecordedEffect(labels, data[other] - data[own], model, effect)


def table(found: RecordedEffect) -> str:
    """Recorded and predicted effects by groups of neurons, as plain text."""

    def cells(values: list[float]) -> list[str]:
        """The values as cells of the table, empty where they are undefined."""
        return ["" if not np.isfinite(value) else format(value, spec) for value, spec in zip(values, SPECS, strict=True)]

    rows = [[name, str(number), *cells(values)] for name, number, values in found.rows()]
    return score_tables.plain_table(HEAD, rows, f"{TITLE}: {', '.join(found.names)}. {NOTE}")
