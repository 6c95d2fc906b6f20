"""Wiring of a source: named neurons, and connections with what the source says about them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from rlsnet.data import query

MANY = 5  # names that a message lists


@dataclasses.dataclass(frozen=True)
class Wiring:
    """N neurons and E connections; several connections may join the same pair of neurons.

    name: [N] text.
    columns: [N] text by name, such as type and region.
    pre, post: [E] int64, indices of the neurons.
    table: [E] columns of the source by name, for filters.
    strength: [E] float64, number of synapses or |weight|, in the unit of the source, at least 0.
    counted: whether these are numbers of synapses, and not weights.
    sign: [E] int8, 1 excitatory, -1 inhibitory, 0 unknown.
    signed: whether the signs are those of weights, which are kept, and not those of transmitters.
    neuron_sign: [N] int8, the same of the neurons.
    delay: [E] float32, ms; or None.
    plastic: [E] bool, which connections the source says are plastic; or None.
    parameters: [N] by name, parameters of the neurons as in network.zarr.
    group_size: S, neurons that share their plastic inputs.
    left_out: number of things that are not imported, by what they are.
    without_sign: words in columns of transmitters that have no sign.
    """

    name: np.ndarray
    columns: Mapping[str, np.ndarray]
    pre: np.ndarray
    post: np.ndarray
    table: Mapping[str, np.ndarray]
    strength: np.ndarray
    counted: bool
    sign: np.ndarray
    signed: bool
    neuron_sign: np.ndarray
    delay: np.ndarray | None = None
    plastic: np.ndarray | None = None
    parameters: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    group_size: int = 1
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)
    without_sign: tuple[str, ...] = ()

    def with_connections(self, keep: np.ndarray, why: str) -> Wiring:
        """The same with the connections `keep` [E] bool; `why` says in words what the others are."""
        if keep.all():
            return self
        return dataclasses.replace(
            self,
            pre=self.pre[keep],
            post=self.post[keep],
            table={name: column[keep] for name, column in self.table.items()},
            strength=self.strength[keep],
            sign=self.sign[keep],
            delay=None if self.delay is None else self.delay[keep],
            plastic=None if self.plastic is None else self.plastic[keep],
            left_out={**self.left_out, why: int((~keep).sum())},
        )

    def with_neurons(self, keep: np.ndarray, why: str) -> Wiring:
        """The same with the neurons `keep` [N] bool and the connections between them; `why` says in words what the others are."""
        if keep.all():
            return self
        within = self.with_connections(keep[self.pre] & keep[self.post], f"connections from or to {why}")
        index = np.cumsum(keep) - 1
        return dataclasses.replace(
            within,
            name=self.name[keep],
            columns={name: column[keep] for name, column in self.columns.items()},
            pre=index[within.pre],
            post=index[within.post],
            neuron_sign=self.neuron_sign[keep],
            parameters={name: values[keep] for name, values in self.parameters.items()},
            group_size=1,
            left_out={**within.left_out, why: int((~keep).sum())},
        )

    def degrees(self) -> tuple[np.ndarray, np.ndarray]:
        """([N] inputs, [N] outputs): numbers of connections of each neuron, those of one pair counted once."""
        n = len(self.name)
        pairs = np.unique(self.pre * n + self.post)
        return np.bincount(pairs % n, minlength=n), np.bincount(pairs // n, minlength=n)

    def select_neurons(self, text: str) -> np.ndarray:
        """[N] bool, neurons that pass a filter by their columns, `inputs` and `outputs`; raises UserError if it cannot be used."""
        inputs, outputs = self.degrees()
        table = {**self.columns, "name": self.name, "inputs": inputs, "outputs": outputs}
        return query.select_rows(text, table, len(self.name), "neurons", "the neurons")

    def select_connections(self, text: str, key: str) -> np.ndarray:
        """[E] bool, connections that pass a filter by their columns and, with pre_ and post_ before the name, those of the neurons.

        Raises:
          UserError: which begins with `key`, the setting; the filter cannot be used.
        """
        own = {"name": self.name, **self.columns}
        ends = {f"{end}_{name}": (index, column) for end, index in (("pre", self.pre), ("post", self.post)) for name, column in own.items()}
        known = [*self.table, *ends]
        table = {}
        for name in query.column_names(text, key):
            query.require_column(name, known, f"{key}={text}", "the connections")
            table[name] = self.table[name] if name in self.table else ends[name][1][ends[name][0]]
        return query.select_rows(text, table, len(self.pre), key, "the connections")


def some(names: np.ndarray) -> str:
    """A few of some names, as text."""
    return ", ".join(map(str, names[:MANY])) + (", ..." if len(names) > MANY else "")
