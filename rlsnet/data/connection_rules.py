"""Regions of the neurons of a network and probabilities of synapses between them, from the columns of a recording and the settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rlsnet.config.schema import Config, RegionalConfig
from rlsnet.data.formats.table_files import as_numbers, read_table
from rlsnet.data.neuron_table import NeuronTable
from rlsnet.data.query import as_texts
from rlsnet.data.recordings import Recording
from rlsnet.errors import UserError
from rlsnet.model.regions import Regions

CLASSES = ("exc", "inh")


def regions_of(config: Config, recording: Recording, excitatory: np.ndarray) -> Regions:
    """Regions of the neurons [N] of classes `excitatory` [N], probabilities of synapses between them, and their coordinates.

    Raises:
      UserError: the recording has no regions or coordinates, or the table of probabilities cannot be used.
    """
    table, static = NeuronTable(excitatory, recording, config.seed), config.static
    region = table.column("region")
    if region is None:
        raise UserError(f"{recording.path}: has no column unit/region, which regional connectivity needs; import it with columns=[region].")
    names, index = np.unique(as_texts(region), return_inverse=True)
    if not isinstance(static, RegionalConfig):
        return Regions(tuple(names.tolist()), index, np.zeros((len(names), 2, len(names), 2)))
    probability = _by_rule(static, len(names)) if static.table is None else _by_table(static.table, names.tolist())
    coordinates = None if static.length is None else _coordinates(static, table, recording)
    return Regions(tuple(names.tolist()), index, probability, coordinates)


def _by_rule(static: RegionalConfig, n: int) -> np.ndarray:
    """[R, 2, R, 2] probabilities from within, between and long_range."""
    same = np.eye(n, dtype=bool)[:, None, :, None]
    between = np.array([static.between, static.between if static.long_range == "all" else 0.0])[None, :, None, None]
    return np.broadcast_to(np.where(same, static.within, between), (n, 2, n, 2))


def _by_table(path: str, names: Sequence[str]) -> np.ndarray:
    """[R, 2, R, 2] probabilities from a table; a row with a name has priority over one with *."""
    table, where = read_table(Path(path)), f"static.table={path}"
    if not {"pre", "post", "probability"} <= table.keys():
        raise UserError(f"{where}: has columns {', '.join(table) or 'none'}; expected pre, post and probability.")
    rows, given = len(table["pre"]), np.asarray(as_numbers(table["probability"]))
    every = np.full(rows, "*")
    columns = [as_texts(table.get(name, every)) for name in ("pre", "pre_class", "post", "post_class")]
    options, probability = (list(names), list(CLASSES)) * 2, np.zeros((len(names), 2, len(names), 2))
    stars = np.sum([column == "*" for column in columns], axis=0)
    for row in np.argsort(-stars, kind="stable"):
        place = []
        for column, known in zip(columns, options, strict=True):
            if column[row] not in ("*", *known):
                raise UserError(f"{where}: {column[row]} in row {row + 1} is none of {', '.join(known)}; expected one of them, or *.")
            place.append(list(range(len(known))) if column[row] == "*" else [known.index(column[row])])
        if given.dtype.kind not in "iuf" or not 0 <= given[row] <= 1:
            raise UserError(f"{where}: the probability in row {row + 1} is {given[row]}; expected a number from 0 to 1.")
        probability[np.ix_(*place)] = given[row]
    return probability


def _coordinates(static: RegionalConfig, table: NeuronTable, recording: Recording) -> np.ndarray:
    """[N, D] places of the neurons; raises UserError where a column is missing, or a place is not known."""
    columns = []
    for name in static.coordinates:
        column = table.column(name)
        if column is None:
            there = ", ".join(recording.columns())
            raise UserError(f"static.coordinates=[{','.join(static.coordinates)}]: {recording.path} has no unit/{name}, but {there}.")
        values = np.asarray(as_numbers(column))
        if values.dtype.kind not in "iuf" or not np.isfinite(values.astype(float)).all():
            raise UserError(f"static.coordinates: unit/{name} of {recording.path} is not a number for all units; static.length needs one.")
        columns.append(values.astype(np.float64))
    return np.stack(columns, axis=1)
