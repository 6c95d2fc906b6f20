"""Wiring: static edges and plastic inputs, drawn from counters or read from files; weights; and wiring seen from its other end."""

from __future__ import annotations

import csv
import dataclasses
import math
from functools import partial, singledispatch
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from rlsnet import rng
from rlsnet.config import (
    BalancedConfig,
    EdgesConfig,
    ErdosRenyiConfig,
    FixedDegreeConfig,
    NoStaticConfig,
    PlasticConfig,
    RandomInputsConfig,
    StaticConfig,
    UserError,
)


@dataclasses.dataclass(frozen=True)
class Edges:
    """Static synapses, those of one presynaptic neuron after those of another; two of the same pair add up.

    indptr: [N+1] int, neuron j's outputs are edges indptr[j] to indptr[j+1].
    post: [nnz] int, the neuron that each edge leads to; empty where `stream` is given.
    weight: [nnz] threshold*ms, or None: class_weight holds.
    class_weight: [2, 2] weights by class, presynaptic first, excitatory = 0; or None.
    stream: [2] uint32, the key from which `targets_of` draws the edges of any neuron anew; or None.
    """

    indptr: np.ndarray
    post: Any
    weight: np.ndarray | None = None
    class_weight: np.ndarray | None = None
    stream: np.ndarray | None = None

    @staticmethod
    def of(pre: np.ndarray, post: np.ndarray, weight: np.ndarray, n: int) -> Edges:
        """From presynaptic neuron, postsynaptic neuron and weight of each edge, in any order."""
        order = np.argsort(pre, kind="stable")
        indptr = np.concatenate([[0], np.cumsum(np.bincount(pre, minlength=n))])
        return Edges(indptr, np.asarray(post)[order], np.asarray(weight, np.float64)[order])


@singledispatch
def static_edges(static: StaticConfig, stream: Array, excitatory: np.ndarray) -> Edges:
    """The static synapses of a network.

    Args:
      static: settings.
      stream: [2] uint32, key of the random numbers to draw from.
      excitatory: [N] bool.
    """
    raise UserError(f"static: {type(static).__name__} should have a function registered with wiring.static_edges.")


@static_edges.register
def _(static: NoStaticConfig, stream: Array, excitatory: np.ndarray) -> Edges:
    return Edges(np.zeros(len(excitatory) + 1, np.int32), np.zeros(0, np.int32), None, np.zeros((2, 2)))


@static_edges.register
def _(static: FixedDegreeConfig, stream: Array, excitatory: np.ndarray) -> Edges:
    n, degree = len(excitatory), static.out_degree
    if degree > n - 1:
        raise UserError(f"static.out_degree={degree}: expected at most {n - 1}, the other neurons (network.n_neurons={n}).")
    if n * degree >= 2**31:
        raise UserError(f"static.out_degree={degree}: makes {n * degree:,} static synapses; expected to be below {2**31:,} in all.")
    indptr = np.arange(n + 1, dtype=np.int32) * np.int32(degree)
    if static.storage == "procedural" and degree:
        return Edges(indptr, np.zeros(0, np.int32), None, class_weights(static, n), np.asarray(stream))
    post = draw_static(stream, n, degree) if degree else np.zeros(0, np.int32)
    return Edges(indptr, post, None, class_weights(static, n))


@static_edges.register
def _(static: ErdosRenyiConfig, stream: Array, excitatory: np.ndarray) -> Edges:
    """Numbers of outputs are binomial; whom they reach are distinct others."""
    n = len(excitatory)
    if n * (n - 1) * static.probability >= 2**31 - 2**24:
        raise UserError(f"static.probability={static.probability:g}: makes too many static synapses; expected to be below {2**31:,} in all.")
    counter = np.random.Philox(key=int(np.asarray(rng.fold(stream, n)).view(np.uint64)[0]))
    degrees = np.random.Generator(counter).binomial(n - 1, static.probability, n)
    indptr = np.concatenate([[0], np.cumsum(degrees)])
    post, size = np.empty(indptr[-1], np.int32), 2**20
    for start in range(0, len(post), size):
        edge = np.minimum(np.arange(start, start + size), len(post) - 1)
        pre = np.searchsorted(indptr, edge, side="right") - 1
        block = targets_of(stream, jnp.asarray(pre, jnp.int32), jnp.asarray(edge - indptr[pre], jnp.int32), n)
        post[start : start + size] = np.asarray(block)[: len(post) - start]
    return Edges(indptr, post, None, class_weights(static, n))


@static_edges.register
def _(static: EdgesConfig, stream: Array, excitatory: np.ndarray) -> Edges:
    n = len(excitatory)
    pre, post, weight = read_edges(static.path, static.rows)
    for name, values in (("pre", pre), ("post", post)):
        if values.size and (values.min() < 0 or values.max() >= n):
            at = int(np.flatnonzero((values < 0) | (values >= n))[0])
            raise UserError(f"static.path={static.path}: {name} of edge {at} is {values[at]}; expected a neuron, 0 to {n - 1}.")
    if not np.all(np.isfinite(weight)):
        raise UserError(f"static.path={static.path}: the weight of edge {int(np.flatnonzero(~np.isfinite(weight))[0])} is not finite.")
    return Edges.of(pre, post, weight, n)


def read_edges(path: str, rows: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(pre, post, weight) of the edges in a file; see `EdgesConfig`. Nothing is merged: a pair may come more than once."""
    if not Path(path).is_file():
        raise UserError(f"static.path={path}: no such file; expected a .npz, .csv, .tsv or .parquet.")
    suffix = Path(path).suffix.lower()
    try:
        if suffix == ".npz":
            from scipy.sparse import load_npz

            matrix = load_npz(path).tocoo()
            first, second = (np.asarray(index, np.int64) for index in (matrix.row, matrix.col))
            if matrix.shape[0] != matrix.shape[1]:
                raise UserError(
                    f"static.path={path}: has shape {list(matrix.shape)}; expected square, a row and a column for each neuron."
                )
            if matrix.data.dtype.kind not in "fiub":
                raise UserError(f"static.path={path}: holds {matrix.data.dtype}; expected real numbers.")
            return (first, second, matrix.data) if rows == "pre" else (second, first, matrix.data)
        if suffix == ".parquet":
            try:
                from pyarrow import parquet
            except ImportError as error:
                raise UserError(f"static.path={path}: takes pyarrow to read; pip install 'rlsnet[parquet]'.") from error
            names = parquet.read_schema(path).names
            _check_columns(path, names)
            table = parquet.read_table(path, columns=["pre", "post", "weight"])
            columns = [table[name].to_numpy() for name in ("pre", "post", "weight")]
        elif suffix in (".csv", ".tsv"):
            with Path(path).open(newline="", encoding="utf-8-sig") as file:
                delimiter = "," if suffix == ".csv" else "\t"
                names = [name.strip() for name in next(csv.reader(file, delimiter=delimiter), [])]
                _check_columns(path, names)
                used = [names.index(name) for name in ("pre", "post", "weight")]
                columns = list(np.loadtxt(file, delimiter=delimiter, usecols=used, ndmin=2).reshape(-1, 3).T)
        else:
            raise UserError(f"static.path={path}: expected a .npz, .csv, .tsv or .parquet.")
    except (ValueError, OSError, KeyError, EOFError, BadZipFile, UnpicklingError) as error:
        raise UserError(f"static.path={path}: cannot be read ({str(error).splitlines()[0]}).") from error
    pre, post = (np.asarray(column) for column in columns[:2])
    for name, values in (("pre", pre), ("post", post)):
        if not np.all(np.equal(np.mod(values, 1), 0)):
            raise UserError(f"static.path={path}: column {name} should hold whole numbers, those of neurons from 0.")
    return pre.astype(np.int64), post.astype(np.int64), np.asarray(columns[2], np.float64)


def _check_columns(path: str, names: list[str]) -> None:
    """Whether a table has the columns of an edge list; raises UserError."""
    missing = [name for name in ("pre", "post", "weight") if name not in names]
    if missing:
        raise UserError(f"static.path={path}: has columns {', '.join(names) or 'none'}; expected pre, post and weight.")


def class_weights(static: BalancedConfig, n: int) -> np.ndarray:
    """[2, 2] static weights in the balanced state, presynaptic class first, excitatory = 0."""
    n_class = static.class_inputs(n)
    scale = static.strength / math.sqrt(n_class) if n_class else 0.0
    return scale * np.array([[static.ee, static.ie], [static.ei, static.ii]])


def class_bias(static: StaticConfig, n: int) -> np.ndarray:
    """[2] constant drive of excitatory and inhibitory neurons."""
    if not isinstance(static, BalancedConfig):
        return np.zeros(2)
    return math.sqrt(static.class_inputs(n)) * np.array([static.bias_exc, static.bias_inh])


@partial(jax.jit, static_argnums=3)
def targets_of(stream: Array, neuron: Array, draw: Array, n: int) -> Array:
    """int32, for each neuron and number of a draw (arrays of one shape) the neuron it reaches: distinct, never itself."""
    offset = 1 + rng.permute(rng.fold(stream, neuron), draw.astype(jnp.uint32), n - 1)
    return (neuron + offset) % n


@partial(jax.jit, static_argnums=(1, 2))
def draw_static(stream: Array, n: int, degree: int) -> Array:
    """[n*degree] int32: `degree` distinct targets of each of `n` neurons, itself never among them."""
    block = max(1, min(n, 2**21 // max(1, degree)))
    draws = jnp.arange(degree, dtype=jnp.uint32)

    def fill(index: Array, post: Array) -> Array:
        start = jnp.minimum(index * block, n - block)
        neuron = start + jnp.arange(block, dtype=jnp.int32)
        offset = 1 + rng.permute(rng.fold(stream, neuron)[:, None, :], draws[None, :], n - 1)
        return lax.dynamic_update_slice(post, ((neuron[:, None] + offset) % n).reshape(-1), (start * degree,))

    return lax.fori_loop(0, -(-n // block), fill, jnp.zeros(n * degree, jnp.int32))


@singledispatch
def plastic_inputs(plastic: PlasticConfig, stream: Array, excitatory: np.ndarray, activity: np.ndarray | None) -> np.ndarray:
    """[G, L] int: the plastic inputs of each group of `plastic.group_size` neurons; -1 pads.

    Args:
      plastic: settings.
      stream: [2] uint32, key of the random numbers to draw from.
      excitatory: [N] bool.
      activity: [N] spikes of the static network in a trial; None unless `needs_activity`.
    """
    raise UserError(f"plastic: {type(plastic).__name__} should have a function registered with wiring.plastic_inputs.")


def needs_activity(plastic: PlasticConfig) -> bool:
    """Whether the choice of plastic inputs depends on the static run."""
    return plastic.needs_activity


@plastic_inputs.register
def _(plastic: RandomInputsConfig, stream: Array, excitatory: np.ndarray, activity: np.ndarray | None) -> np.ndarray:
    """Excitatory ones first, each class without repeats and in order."""
    groups = -(-len(excitatory) // plastic.group_size)
    half = plastic.n_inputs // 2
    least = half if plastic.least_inputs is None else plastic.least_inputs // 2
    number = np.full(groups, half)
    if least < half:
        number -= np.floor(np.asarray(rng.uniform(rng.fold(stream, 2), groups, jnp.dtype("float32"))) * (half - least + 1)).astype(int)
    rows = []
    for label, members in enumerate((np.flatnonzero(excitatory), np.flatnonzero(~excitatory))):
        if activity is not None and plastic.active_fraction < 1:
            most = np.argsort(-activity[members], kind="stable")[: math.ceil(plastic.active_fraction * len(members))]
            members = members[np.sort(most)]
        if half > len(members):
            share = f" and plastic.active_fraction={plastic.active_fraction:g}" if plastic.active_fraction < 1 else ""
            raise UserError(
                f"plastic.n_inputs={plastic.n_inputs}: expected at most {2 * len(members)}, as half of them are drawn from {len(members)}"
                f" {('excitatory', 'inhibitory')[label]} neurons (network.n_neurons={len(excitatory)}{share})."
            )
        if not half:
            rows.append(np.zeros((groups, 0), np.int32))
            continue
        draw = np.asarray(_draw_rows(rng.fold(stream, label), groups, half, len(members)))
        own = members.astype(np.int32)[draw]
        if least < half:
            own = np.where(np.arange(half) < number[:, None], own, len(excitatory))
            own = np.sort(own, axis=1)
            rows.append(np.where(own == len(excitatory), -1, own))
        else:
            rows.append(np.sort(own, axis=1))
    return np.concatenate(rows, axis=1)


@partial(jax.jit, static_argnums=(1, 2, 3))
def _draw_rows(stream: Array, rows: int, size: int, n: int) -> Array:
    """[rows, size] int32: in each row, distinct numbers below n."""
    streams = rng.fold(stream, jnp.arange(rows, dtype=jnp.uint32))
    return rng.permute(streams[:, None, :], jnp.arange(size, dtype=jnp.uint32)[None, :], n)


def initial_weights(plastic: PlasticConfig, pre: np.ndarray, excitatory: np.ndarray) -> np.ndarray:
    """[G, L] initial plastic weights, +-strength/(2*sqrt(inputs/2)) by the class of the input, 0 where pre pads."""
    number = np.maximum(np.sum(pre >= 0, axis=1, keepdims=True), 1)
    size = plastic.strength / (2 * np.sqrt(number / 2))
    return np.where(pre < 0, 0.0, np.where(excitatory[pre], size, -size))


def outputs_of(pre: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(out_indptr [n+1], out_slot [G*L]) of plastic inputs [G, L]: each neuron's slots, in order."""
    from scipy.sparse import csr_array

    kept = pre >= 0
    slots = np.flatnonzero(kept).astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int32)
    by_neuron = csr_array((slots, pre[kept], starts), shape=(len(pre), n)).tocsc()
    return by_neuron.indptr.astype(np.int32), by_neuron.data


def to_groups(weight: np.ndarray, group_size: int) -> np.ndarray:
    """[N, L] weights as [G, L, S], the last group filled up with zeros."""
    n, inputs = weight.shape
    groups = -(-n // group_size)
    padded = np.concatenate([weight, np.zeros((groups * group_size - n, inputs), weight.dtype)])
    return np.ascontiguousarray(padded.reshape(groups, group_size, inputs).transpose(0, 2, 1))


def from_groups(weight: np.ndarray, n: int) -> np.ndarray:
    """[G, L, S] weights as [N, L], the inverse of `to_groups`."""
    return weight.transpose(0, 2, 1).reshape(-1, weight.shape[1])[:n]
