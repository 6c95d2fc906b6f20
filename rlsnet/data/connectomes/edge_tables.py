"""Wiring from a table of connections (CSV, TSV or parquet), or from a sparse matrix of SciPy, with a table of neurons if there is one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from rlsnet.data import query
from rlsnet.data.connectomes import columns, neuron_tables, signs
from rlsnet.data.connectomes.neuron_tables import Neurons
from rlsnet.data.connectomes.options import Options
from rlsnet.data.connectomes.wiring import Wiring
from rlsnet.data.formats import table_files
from rlsnet.errors import UserError, did_you_mean
from rlsnet.model import edge_files

ELECTRICAL = "electrical connections (gap junctions), which no spikes pass"


def read(path: Path, options: Options) -> Wiring:
    """Wiring of a table.

    Args:
      path: of the table of connections.
      options: names of columns, the table of neurons, and signs of transmitters.

    Raises:
      UserError: no such file, column or neuron, or cells that are not what their column needs.
    """
    table, neurons = table_files.read_table(path), neuron_tables.read(options)
    _check_chosen(table, neurons, options, path)
    pre, post = (
        columns.names(table, columns.find(table, columns.CONNECTIONS, key, getattr(options, key), path), path) for key in ("pre", "post")
    )
    every = np.union1d(pre[0], post[0])
    name = columns.in_order(every) if neurons is None else neurons.name
    outside = np.setdiff1d(every, name)
    index = {each: i for i, each in enumerate([*name.tolist(), *outside.tolist()])}
    start, end = (np.array([index[each] for each in found.tolist()], np.int64)[inverse] for found, inverse in (pre, post))
    weight, counted = _weights(table, options, path)
    kind = columns.find(table, columns.CONNECTIONS, "kind", options.kind, path)
    signed = bool(np.any(weight < 0))
    sign = signs.Signs(np.sign(weight).astype(np.int8)) if signed else _signs(table, kind, options, path)
    delay = columns.find(table, columns.CONNECTIONS, "delay", options.delay, path)
    wiring = Wiring(
        name=name,
        columns={},
        pre=start,
        post=end,
        table=table,
        strength=np.abs(weight),
        counted=counted,
        sign=sign.sign,
        signed=signed,
        neuron_sign=np.zeros(len(name), np.int8),
        delay=None if delay is None else columns.numbers(table, delay, path, above=0).astype(np.float32),
        without_sign=sign.unclear,
    )
    listed = (wiring.pre < len(name)) & (wiring.post < len(name))
    wiring = wiring.with_connections(listed, f"connections from or to {len(outside):,} neurons that {options.neuron_table} does not list")
    if kind is not None:
        kinds, inverse = np.unique(query.as_texts(wiring.table[kind]), return_inverse=True)
        electrical = np.array([bool(signs.ELECTRICAL.search(each)) for each in kinds.tolist()], bool)[inverse.reshape(-1)]
        wiring = wiring.with_connections(~electrical, ELECTRICAL)
    if neurons is None:
        return wiring
    unclear = (*neurons.signs.unclear, *wiring.without_sign)
    return dataclasses.replace(wiring, columns=neurons.columns, neuron_sign=neurons.signs.sign, without_sign=unclear)


def read_matrix(path: Path, options: Options) -> Wiring:
    """Wiring of a SciPy sparse matrix of weights, or with `count` of numbers of synapses; the neurons are rows of the table of neurons.

    Raises:
      UserError: the file cannot be read, or holds no square matrix of as many neurons as the table has.
    """
    neurons, where = neuron_tables.read(options), str(path)
    pre, post, weight, n = edge_files.read_sparse(where, options.rows, where)
    if neurons is not None and len(neurons.name) != n:
        raise UserError(f"{path}: has {n} rows; expected {len(neurons.name)}, one for each row of {options.neuron_table}.")
    weight = np.asarray(weight, np.float64)
    if not np.isfinite(weight).all():
        raise UserError(f"{path}: holds values that are not finite; expected weights or numbers of synapses.")
    signed = bool(np.any(weight < 0))
    if options.count is not None and signed:
        raise UserError(f"{path}: holds {weight.min():g}; expected numbers of synapses, because of count={options.count}.")
    return Wiring(
        name=np.arange(n).astype(str) if neurons is None else neurons.name,
        columns={} if neurons is None else neurons.columns,
        pre=pre.astype(np.int64),
        post=post.astype(np.int64),
        table={"weight": weight},
        strength=np.abs(weight),
        counted=options.count is not None,
        sign=np.sign(weight).astype(np.int8) if signed else np.zeros(len(weight), np.int8),
        signed=signed,
        neuron_sign=np.zeros(n, np.int8) if neurons is None else neurons.signs.sign,
        without_sign=() if neurons is None else neurons.signs.unclear,
    )


def _check_chosen(table: columns.Columns, neurons: Neurons | None, options: Options, path: Path) -> None:
    """Raises UserError unless the columns of signs and transmitters that are chosen are in one of the tables."""
    known = [*table, *({} if neurons is None else neurons.table)]
    for key in signs.ways(None):
        chosen = getattr(options, key)
        if chosen is not None and chosen not in known:
            also = "" if neurons is None else f" or {options.neuron_table}"
            expected = f"expected one of {', '.join(known)}.{did_you_mean(chosen, known)}"
            raise UserError(f"{key}={chosen}: no such column in {path}{also}; {expected}")


def _weights(table: columns.Columns, options: Options, path: Path) -> tuple[np.ndarray, bool]:
    """([E] weights or numbers of synapses, whether they are numbers); without such a column each row is one synapse.

    Raises:
      UserError: both columns are chosen, or there are cells that are no numbers.
    """
    if options.weight is not None and options.count is not None:
        raise UserError(f"weight={options.weight} count={options.count}: expected one of them, as each gives the strength of a connection.")
    if options.count is None:
        weight = columns.find(table, columns.CONNECTIONS, "weight", options.weight, path)
        if weight is not None:
            return columns.numbers(table, weight, path), False
    count = columns.find(table, columns.CONNECTIONS, "count", options.count, path)
    if count is not None:
        return columns.numbers(table, count, path, least=0), True
    return np.ones(len(next(iter(table.values())))), True


def _signs(table: columns.Columns, kind: str | None, options: Options, path: Path) -> signs.Signs:
    """[E] signs of a column of signs or transmitters; the column `kind` may have transmitters too."""
    found = columns.of_signs(table, columns.CONNECTIONS, len(next(iter(table.values()))), options, path)
    if found.sign.any() or kind is None:
        return found
    of_kind = signs.by_word(table[kind], signs.transmitter_signs(options.signs))
    return of_kind if of_kind.sign.any() else found
