"""Static synapses in files: SciPy sparse matrices, and tables with columns pre, post and weight."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from zipfile import BadZipFile

import numpy as np

from rlsnet.errors import UserError, first_line
from rlsnet.io import npz_files


def read_edges(path: str, rows: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges in a file, in the order of the file; a pair of neurons may occur more than once.

    Args:
      path: a SciPy sparse .npz, or a .csv, .tsv or .parquet with columns pre, post and weight.
      rows: neurons of the rows of a sparse matrix, "pre" or "post".

    Returns:
      [nnz] int64 presynaptic neurons, [nnz] int64 postsynaptic neurons, [nnz] weights (threshold*ms).

    Raises:
      UserError: if the file cannot be read, or does not hold edges.
    """
    readers: dict[str, Callable[[str], tuple[np.ndarray, np.ndarray, np.ndarray]]] = {
        ".npz": lambda path: read_sparse(path, rows, f"static.path={path}")[:3],
        ".csv": _read_text,
        ".tsv": _read_text,
        ".parquet": _read_parquet,
    }
    read = readers.get(Path(path).suffix.lower())
    if not Path(path).is_file():
        raise UserError(f"static.path={path}: no such file; expected a .npz, .csv, .tsv or .parquet.")
    if read is None:
        raise UserError(f"static.path={path}: expected a .npz, .csv, .tsv or .parquet.")
    try:
        pre, post, weight = read(path)
    except (ValueError, OSError) as error:
        raise UserError(f"static.path={path}: cannot be read ({first_line(error)}).") from error
    for name, values in (("pre", pre), ("post", post)):
        if not np.all(np.equal(np.mod(values, 1), 0)):
            raise UserError(f"static.path={path}: column {name}: expected whole numbers, those of neurons from 0.")
    return pre.astype(np.int64), post.astype(np.int64), weight


def read_sparse(path: str, rows: str, where: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """The edges of a SciPy sparse matrix (.npz).

    Args:
      path: of the file.
      rows: neurons of the rows, "pre" or "post".
      where: name of the file in messages.

    Returns:
      [nnz] presynaptic neurons, [nnz] postsynaptic neurons, [nnz] weights of the type of the matrix, number of neurons.

    Raises:
      UserError: if the file cannot be read, or does not hold a square matrix of real numbers.
    """
    try:
        matrix = npz_files.load_sparse(path, where).tocoo()
    except (ValueError, OSError, KeyError, EOFError, BadZipFile, UnpicklingError) as error:
        raise UserError(f"{where}: cannot be read ({first_line(error)}).") from error
    if matrix.shape[0] != matrix.shape[1]:
        raise UserError(f"{where}: has shape {list(matrix.shape)}; expected square, a row and a column for each neuron.")
    if matrix.data.dtype.kind not in "fiub":
        raise UserError(f"{where}: holds {matrix.data.dtype}; expected real numbers.")
    pre, post = (matrix.row, matrix.col) if rows == "pre" else (matrix.col, matrix.row)
    return pre, post, matrix.data, matrix.shape[0]


def _read_parquet(path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The columns pre, post and weight of a .parquet."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"static.path={path}: reading it needs pyarrow; pip install 'rlsnet[parquet]'.") from error
    _check_columns(path, parquet.read_schema(path).names)
    table = parquet.read_table(path, columns=["pre", "post", "weight"])
    return table["pre"].to_numpy(), table["post"].to_numpy(), np.asarray(table["weight"].to_numpy(), np.float64)


def _read_text(path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The columns pre, post and weight of a .csv or .tsv, as float64."""
    with Path(path).open(newline="", encoding="utf-8-sig") as file:
        delimiter = "," if Path(path).suffix.lower() == ".csv" else "\t"
        names = [name.strip() for name in next(csv.reader(file, delimiter=delimiter), [])]
        _check_columns(path, names)
        used = [names.index(name) for name in ("pre", "post", "weight")]
        pre, post, weight = np.loadtxt(file, delimiter=delimiter, usecols=used, ndmin=2).reshape(-1, 3).T
        return pre, post, weight


def _check_columns(path: str, names: list[str]) -> None:
    """Raises UserError unless a table has the columns of an edge list."""
    if not {"pre", "post", "weight"} <= set(names):
        raise UserError(f"static.path={path}: has columns {', '.join(names) or 'none'}; expected pre, post and weight.")
