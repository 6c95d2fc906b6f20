"""Which neuron of the network reproduces which unit of the experiment, while units appear one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlsnet.data.streams.messages import Unit


class Assignment:
    """Neurons of units: a unit that an earlier run had keeps its neuron, others get the next free one, in the order of appearance.

    Attributes:
      neuron: [U] neuron of each unit so far; -1 where none was left.
    """

    def __init__(self, n_neurons: int, earlier: Sequence[str] = ()):
        """Neurons of a network; `earlier` has the unit key of each neuron in an earlier run, "" for none."""
        self._by_key = {key: neuron for neuron, key in enumerate(earlier) if key}
        known = set(self._by_key.values())
        self._free = iter([*(n for n in range(n_neurons) if n not in known), *sorted(known)])  # those of earlier units last
        self._taken: set[int] = set()
        self.neuron = np.zeros(0, np.int32)

    def extend(self, units: Sequence[Unit]) -> None:
        """Assigns neurons to the units after those that have one; `units` are all so far."""
        added = []
        for unit in units[len(self.neuron) :]:
            neuron = self._by_key.get(unit.key, -1)
            if neuron < 0 or neuron in self._taken:
                neuron = next((n for n in self._free if n not in self._taken), -1)  # goes on after the last one
            if neuron >= 0:
                self._taken.add(neuron)
            added.append(neuron)
        self.neuron = np.concatenate([self.neuron, np.array(added, np.int32)])

    @property
    def n_left_out(self) -> int:
        """Number of units without a neuron."""
        return int((self.neuron < 0).sum())

    def by_neuron(self, values: np.ndarray, n_neurons: int, missing: Any = np.nan) -> np.ndarray:
        """[..., N] values of neurons from those of units [..., U]; `missing` for neurons without a unit."""
        out = np.full((*values.shape[:-1], n_neurons), missing, values.dtype)
        has = self.neuron[: values.shape[-1]] >= 0
        out[..., self.neuron[: values.shape[-1]][has]] = values[..., has]
        return out
