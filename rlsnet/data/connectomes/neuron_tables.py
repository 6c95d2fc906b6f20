"""Table of the neurons of a connectome: names, types, regions, signs, and other columns that are stored."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rlsnet.config.schema import Config
from rlsnet.config.settings import variants
from rlsnet.data import query
from rlsnet.data.connectomes import columns, signs
from rlsnet.data.connectomes.options import Options
from rlsnet.data.formats import table_files
from rlsnet.data.neuron_table import OWN
from rlsnet.errors import UserError

CLASSES = ("cell_class", "class", "type")  # columns that give signs if they hold nothing but words of signs


class Neurons(NamedTuple):
    """Neurons of a table.

    name: [n] texts.
    columns: [n] texts by name, those that are stored.
    signs: [n] signs, and words without one.
    table: all columns.
    """

    name: np.ndarray
    columns: dict[str, np.ndarray]
    signs: signs.Signs
    table: columns.Columns


def read(options: Options) -> Neurons | None:
    """The neurons of the setting neuron_table; None without it.

    Raises:
      UserError: no such file or column, a name that occurs twice, or words that are no signs.
    """
    if options.neuron_table is None:
        return None
    path = Path(options.neuron_table)
    table = table_files.read_table(path)
    id_column = columns.find(table, columns.NEURONS, "id", options.id, path)
    names, inverse = columns.names(table, id_column, path)
    if len(names) < len(inverse):
        twice = names[np.bincount(inverse) > 1][0]
        raise UserError(f"{path}: {id_column} {twice} is in several rows; expected a row for each neuron.")
    return Neurons(names[inverse], _stored(table, options, path), _signs(table, options, path), table)


def _stored(table: columns.Columns, options: Options, path: Path) -> dict[str, np.ndarray]:
    """Columns that are stored, as texts; raises UserError for those that a network.zarr cannot store under their names."""
    usual = {key: columns.find(table, columns.NEURONS, key, getattr(options, key), path) for key in ("type", "region")}
    found = {key: query.as_texts(table[column]) for key, column in usual.items() if column is not None}
    for name in options.columns or ():
        columns.find(table, columns.NEURONS, "columns", name, path)
        if name in reserved_names():
            raise UserError(f"columns={name}: a network.zarr has an array of this name; expected another name of this column in {path}.")
        found[name] = query.as_texts(table[name])
    return found


def reserved_names() -> set[str]:
    """Names that a column of the neurons may not have: those of parameters and of columns that every network has."""
    models = variants(typing.get_type_hints(Config)["neuron"])
    parameters = {field.name for model in models for field in dataclasses.fields(model)}
    return {*parameters, *OWN, "bias", "v0", "noise_sigma", "tau_plas", "name", "inputs", "outputs"}


def _signs(table: columns.Columns, options: Options, path: Path) -> signs.Signs:
    """[n] signs of a column of signs or transmitters, else of classes that are all words of signs."""
    found = columns.of_signs(table, columns.NEURONS, len(next(iter(table.values()))), options, path)
    by_name = {columns.plain(name): name for name in table}
    for name in CLASSES:
        if not found.sign.any() and name in by_name:
            of_class = signs.by_word(table[by_name[name]], signs.sign_of_word)
            found = found if of_class.other else of_class
    return found
