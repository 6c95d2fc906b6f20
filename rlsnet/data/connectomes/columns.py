"""Columns of tables of connections and of neurons: found by their usual names, and read as names, numbers and signs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rlsnet.data import query
from rlsnet.data.connectomes import signs
from rlsnet.data.connectomes.options import Options
from rlsnet.data.connectomes.wiring import some
from rlsnet.data.formats import table_files
from rlsnet.errors import UserError, did_you_mean

Columns = Mapping[str, np.ndarray]
TRANSMITTER = "nt_type neurotransmitter transmitter nt top_nt predictednt pre_nt"
# usual names of columns, by setting, in lower case with _ for other signs
CONNECTIONS = {
    "pre": "pre source pre_root_id pre_pt_root_id bodyid_pre pre_id source_id presynaptic from origin",
    "post": "post target post_root_id post_pt_root_id bodyid_post post_id target_id postsynaptic to",
    "weight": "weight syn_weight",
    "count": "syn_count synapses n_synapses num_synapses n_syn count synapse_count",
    "delay": "delay delay_ms",
    "kind": "type kind synapse_type edge_type connection_type",
    "transmitter": TRANSMITTER,
    "sign": "sign polarity",
}
NEURONS = {
    "id": "id name root_id pt_root_id neuron cell bodyid neuron_id",
    "type": "type cell_type primary_type celltype",
    "region": "region brain_region area neuropil",
    "transmitter": TRANSMITTER,
    "sign": "sign polarity ei",
}
REQUIRED = ("pre", "post", "id")


def find(table: Columns, usual: Mapping[str, str], key: str, chosen: str | None, path: Path) -> str | None:
    """Name of the column for a setting; None if there is none.

    Args:
      table: the columns.
      usual: usual names by setting, CONNECTIONS or NEURONS.
      key: the setting.
      chosen: its value; None: the first usual name that a column has.
      path: of the table, for messages.

    Raises:
      UserError: no such column, or none although the setting is one of REQUIRED.
    """
    if chosen is not None:
        if chosen not in table:
            raise UserError(f"{key}={chosen}: no such column in {path}; expected one of {', '.join(table)}.{did_you_mean(chosen, table)}")
        return chosen
    by_name = {plain(name): name for name in reversed(list(table))}
    found = next((by_name[each] for each in usual[key].split() if each in by_name), None)
    if found is None and key in REQUIRED:
        expected = f"{key}=NAME with one of {', '.join(table) or 'its columns, of which it has none'}"
        raise UserError(f"{path}: has no column {', '.join(usual[key].split()[:4])} or the like; expected {expected}.")
    return found


def plain(name: str) -> str:
    """Name of a column as in the lists of usual names."""
    return re.sub(r"\W+", "_", name.strip().lower()).strip("_")


def names(table: Columns, column: str | None, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """([n] different names of neurons as texts, [rows] index of each cell).

    Whole numbers of any length keep all their digits.

    Raises:
      UserError: a name is missing, or a number is not whole or has lost digits.
    """
    assert column is not None
    values = table[column]
    if values.dtype.kind == "f":
        wrong = ~np.isfinite(values) | (values != np.floor(values)) | (np.abs(values) >= table_files.LARGEST_WHOLE)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise UserError(
                f"{path}: {column} in row {row + 1} is {values[row]:.17g}; expected the name of a neuron or a whole number in every row."
            )
        values = values.astype(np.int64)
    found, inverse = np.unique(values if values.dtype.kind in "iu" else query.as_texts(values), return_inverse=True)
    found, inverse = found.astype(str), inverse.reshape(-1)
    empty = np.isin(np.char.lower(found), ("", "nan", "<na>")) if len(found) else np.zeros(0, bool)
    if empty.any():
        row = int(np.argmax(empty[inverse]))
        raise UserError(f"{path}: {column} in row {row + 1} is empty; expected the name of a neuron in every row.")
    return found, inverse


def in_order(found: np.ndarray) -> np.ndarray:
    """Names in ascending order: by number if all are whole numbers, else by text."""
    if len(found) and all(re.fullmatch(r"\d+", each, re.ASCII) for each in found.tolist()):
        return np.array(sorted(found.tolist(), key=int), str)
    return np.sort(found)


def numbers(table: Columns, column: str, path: Path, least: float | None = None, above: float | None = None) -> np.ndarray:
    """[rows] float64 of a column; raises UserError where a cell is no finite number, below `least`, or not above `above`."""
    values = query.require_numbers(table[column], f"{path}: {column}")
    wrong, expected = ~np.isfinite(values), "a number in every row"
    if least is not None:
        wrong, expected = wrong | (values < least), f"numbers of at least {least:g}"
    if above is not None:
        wrong, expected = wrong | (values <= above), f"numbers above {above:g}"
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UserError(f"{path}: {column} in row {row + 1} is {values[row]:g}; expected {expected}.")
    return values


def of_signs(table: Columns, usual: Mapping[str, str], n: int, options: Options, path: Path) -> signs.Signs:
    """[n] signs of the rows of a table, by its column `sign` or, where that says nothing, its column of transmitters.

    Args:
      table: the columns.
      usual: usual names by setting, CONNECTIONS or NEURONS.
      n: number of rows.
      options: which columns are chosen; one that the table lacks is in the other table.
      path: of the table, for messages.

    Raises:
      UserError: a column `sign` has words that are no signs.
    """
    sign, unclear = np.zeros(n, np.int8), tuple[str, ...]()
    for key, way in signs.ways(options.signs).items():
        chosen = getattr(options, key)
        column = chosen if chosen in table else find(table, usual, key, None, path)
        if column is None:
            continue
        found = signs.by_word(table[column], way)
        if found.other and key == "sign":
            words = some(np.array(found.other))
            raise UserError(f"{path}: {column} is {words} in some rows; expected signs: 1, -1 or 0, or exc, inh or unknown.")
        sign, unclear = np.where(found.sign == signs.UNKNOWN, sign, found.sign), (*unclear, *found.unclear)
    return signs.Signs(sign, (), unclear)
