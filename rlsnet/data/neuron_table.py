"""Neurons of a network as a table: their class, their index, and the columns of the recorded units that they reproduce."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from rlsnet.config.schema import is_filter
from rlsnet.data import query
from rlsnet.data.recordings import Recording
from rlsnet.errors import UserError
from rlsnet.model.neuron_selection import select_neurons

OWN = ("neuron", "excitatory", "inhibitory")  # columns that every network has


@dataclasses.dataclass(frozen=True)
class NeuronTable:
    """The N neurons of a network.

    excitatory: [N] bool.
    recording: the recording whose units they reproduce, or None.
    seed: of the experiment, which decides the units of a network that is smaller than the recording.
    more: [N] other columns by name.
    """

    excitatory: np.ndarray
    recording: Recording | None = None
    seed: int = 0
    more: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def names(self) -> list[str]:
        """Names of all columns; a column of the recording of the name of a column of the network is hidden."""
        recorded = [] if self.recording is None else self.recording.columns()
        return [*OWN, *self.more, *(name for name in recorded if name not in OWN)]

    def column(self, name: str) -> np.ndarray | None:
        """Column [N], or None if there is none of that name."""
        own = {"neuron": np.arange(len(self.excitatory)), "excitatory": self.excitatory, "inhibitory": ~self.excitatory, **self.more}
        if name in own or self.recording is None:
            return own.get(name)
        values = self.recording.column(name)
        units = self.recording.choose(len(self.excitatory), self.seed)
        return values if values is None or units is None else values[units]

    def select(self, selection: str | None, key: str) -> np.ndarray:
        """[n] int, the selected neurons in ascending order.

        Args:
          selection: as of `select_neurons`, or a filter by columns (`query`), such as region == 'ALM' and excitatory and depth > 500.
          key: of the setting, for messages.

        Raises:
          UserError: the filter cannot be read, a column does not exist, or no neuron is selected.
        """
        if not is_filter(selection):
            region = self.column("region")
            return select_neurons(selection, self.excitatory, None if region is None else region.astype(str), key)
        assert selection is not None
        where = "the network" if self.recording is None else f"the units of {self.recording.path}"
        for name in query.column_names(selection):
            query.require_column(name, self.names(), f"{key}={selection}", where)
        table = {name: column for name in query.column_names(selection) if (column := self.column(name)) is not None}
        found = np.flatnonzero(query.select_rows(selection, table, len(self.excitatory), key, where))
        if not len(found):
            there = query.describe_columns(selection, table)
            raise UserError(f"{key}={selection}: is true for none of the {len(self.excitatory)} neurons; there, {there}.")
        return found
