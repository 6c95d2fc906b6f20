"""Neurons and conditions that are not trained, whose recorded rates a test predicts.

Untrained neurons keep their initial weights, as in Kim et al. 2023 (Distributing task-related neural activity across a cortical network
through task-independent connections, Nat. Commun. 14:2851): what they have of the recorded activity, they receive from trained neurons.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rlsnet.config.schema import Config
from rlsnet.data.neuron_table import NeuronTable
from rlsnet.errors import UserError, did_you_mean, joined
from rlsnet.model import rng


class Trained(NamedTuple):
    """What is trained.

    neurons: [N] bool.
    conditions: [C] bool.
    """

    neurons: np.ndarray
    conditions: np.ndarray

    @property
    def words(self) -> str:
        """What is trained and what is not; "" if all neurons and conditions are trained."""
        found = []
        for what, mask in (("neurons", self.neurons), ("conditions", self.conditions)):
            if not mask.all():
                found.append(f"{int(mask.sum()):,} of {len(mask):,} {what}")
        return joined(found)


def choose(config: Config, table: NeuronTable, conditions: Sequence[str]) -> Trained:
    """The neurons of train.neurons and train.fraction, and the conditions of train.conditions, out of those with these names.

    Raises:
      UserError: no such neurons or condition.
    """
    settings, n = config.train, len(table.excitatory)
    members = table.select(settings.neurons, "train.neurons")
    size = max(1, round(settings.fraction * len(members)))
    if size < len(members):
        members = members[rng.subset(rng.key(config.seed, rng.Purpose.TRAINED), size, len(members))]
    neurons = np.zeros(n, bool)
    neurons[members] = True
    for name in settings.conditions or ():
        if name not in conditions:
            suggestion = did_you_mean(name, list(conditions))
            raise UserError(f"train.conditions={name}: no such condition; expected some of {', '.join(conditions)}.{suggestion}")
    trained = np.ones(len(conditions), bool) if settings.conditions is None else np.isin(list(conditions), list(settings.conditions))
    return Trained(neurons, trained)


def without_held_out(target: np.ndarray, trained: Trained) -> np.ndarray:
    """[C, M, N] target currents with NaN, not trained, for all other neurons and conditions; in place where the array allows it."""
    if trained.neurons.all() and trained.conditions.all():
        return target
    target = target if target.flags.writeable else target.copy()
    target[~trained.conditions] = np.nan
    for condition in np.flatnonzero(trained.conditions):
        target[condition, :, ~trained.neurons] = np.nan
    return target


def groups(trained: np.ndarray, conditions: Sequence[str]) -> dict[str, np.ndarray]:
    """[C, n] masks of what is not trained, by name: untrained neurons, and conditions that no neuron is trained on.

    Args:
      trained: [C, n] bool, whether a neuron is trained in a condition.
      conditions: [C] names.
    """
    neurons, on = np.any(trained, axis=0), np.any(trained, axis=1)
    found = {"untrained neurons": on[:, None] & ~neurons[None, :]}
    for c in np.flatnonzero(~on).tolist():
        only = (np.arange(len(on)) == c)[:, None]
        found[f"untrained condition {conditions[c]}"] = only & neurons[None, :]
        found[f"untrained neurons, untrained condition {conditions[c]}"] = only & ~neurons[None, :]
    return {name: mask for name, mask in found.items() if mask.any()}
