"""Tables to columns, for units and trials, and one line for files that cannot be read."""

from __future__ import annotations

import contextlib
import csv
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlsnet.config import UserError

TABLES = (".csv", ".tsv", ".parquet", ".pqt")
UNKNOWN = ("", "na", "nan", "n/a", "null", "none")  # cells of a column of numbers that hold none
TIMES = {  # the usual names of the start and the end of a trial, for files that have no start_time and stop_time
    "start_time": ("start", "starts", "start_times", "intervals_0", "trial_start"),
    "stop_time": ("stop", "stops", "stop_times", "end", "ends", "end_time", "end_times", "intervals_1", "trial_end"),
}


@contextlib.contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turns whatever a library raises for a file that is cut short or not what its name says into one line."""
    try:
        yield
    except (UserError, MemoryError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # as many kinds as there are ways to be damaged
        first = (str(error).splitlines() or [""])[0].rstrip(".")
        if "allow_pickle" in str(error):
            raise UserError(f"{path}: holds Python objects, which are never unpickled; expected saved as numbers or texts.") from error
        raise UserError(f"{path}: cannot be read, it is damaged or not what its name says ({first or type(error).__name__}).") from error


def load_npy(path: Path) -> np.ndarray:
    """The array of a .npy file, in memory; never unpickles."""
    with reading(path):
        values = np.load(path, allow_pickle=False)
        if not isinstance(values, np.ndarray):
            raise ValueError("no array")
        return values


def read_table(path: Path) -> dict[str, np.ndarray]:
    """The columns of a CSV, TSV or Parquet file: numbers, booleans, or texts as objects.

    Raises:
      UserError: no such file, not a table, columns of one name or rows of different lengths.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a table, {', '.join(TABLES)}.")
    if path.suffix.lower() in (".parquet", ".pqt"):
        return _read_parquet(path)
    if path.suffix.lower() in (".csv", ".tsv"):
        with reading(path):
            return _read_text(path)
    raise UserError(f"{path}: expected a table, {', '.join(TABLES)}.")


def _read_parquet(path: Path) -> dict[str, np.ndarray]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"{path}: takes pyarrow to read; pip install 'rlsnet[parquet]'.") from error
    with reading(path):
        table = parquet.read_table(path)
        _check_names(path, table.column_names)
        columns = {str(name): np.asarray(table[name].to_numpy()) for name in table.column_names}
    return {name: column for name, column in columns.items() if not name.startswith("__index_level_")}


def _delimiter(path: Path, line: str) -> str:
    """What separates the cells of a header; Phy's older .csv have tabs."""
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    return max((usual, ",", "\t", ";"), key=line.count)


def _read_text(path: Path) -> dict[str, np.ndarray]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        first = file.readline()
        delimiter = _delimiter(path, first)
        names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
        if not any(names):
            raise UserError(f"{path}: is empty; expected a table with a line of names first.")
        if _is_data(names):
            names = [str(column) for column in range(len(names))]
            file.seek(0)
        _check_names(path, names)
        body = file.tell()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a table without rows
                values = np.loadtxt(file, delimiter=delimiter, ndmin=2, comments=None)
            if values.size and values.shape[1] == len(names):
                return {name: whole(column) for name, column in zip(names, values.T, strict=True)}
        except ValueError:  # texts, empty cells or ragged rows
            pass
        file.seek(body)
        rows = [row for row in csv.reader(file, delimiter=delimiter) if any(row)]
    for line, row in enumerate(rows, 1):
        if len(row) != len(names):
            raise UserError(f"{path}: row {line} has {len(row)} cells; expected {len(names)}, as the first line.")
    cells = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    return {name: _column(cell) for name, cell in zip(names, cells, strict=True)}


def _is_data(names: Sequence[str]) -> bool:
    """Whether the first line of a table is numbers such as rates, not names; distinct whole numbers may be names."""
    try:
        values = [float(name) for name in names]
    except ValueError:
        return False
    return not all(value >= 0 and value == int(value) for value in values if math.isfinite(value)) or len(set(values)) < len(values)


def _check_names(path: Path, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if list(names).count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise UserError(f"{path}: has two columns {twice[0]!r}; names should differ.")


def whole(column: np.ndarray) -> np.ndarray:
    """A column of numbers, as integers where they all are."""
    if column.dtype.kind not in "iuf":
        return column
    whole = column.size and np.all(np.isfinite(column)) and np.all(column == np.floor(column)) and np.abs(column).max() < 2**53
    return column.astype(np.int64) if whole else column


def _column(cells: Sequence[str]) -> np.ndarray:
    """Cells as integers, numbers (NaN where unknown) or booleans where all of them are, else as texts."""
    texts = [cell.strip() for cell in cells]
    try:
        return np.array([int(text) for text in texts], np.int64)
    except (ValueError, OverflowError):
        pass
    try:
        return np.array([math.nan if text.lower() in UNKNOWN else float(text) for text in texts])
    except ValueError:
        pass
    if {text.lower() for text in texts} <= {"true", "false"}:
        return np.array([text.lower() == "true" for text in texts])
    return np.array(texts, object)


def as_column(values: Any) -> np.ndarray:
    """What a file holds of a column, as one axis: texts as objects of str, vectors of MATLAB (1 x n, n x 1) flat."""
    array = np.asarray(values)
    if array.ndim != 1 and array.size == max(array.shape, default=1):
        array = array.reshape(-1)
    if array.dtype.kind in "SO":
        array = np.array([each.decode("utf-8", "replace") if isinstance(each, bytes) else each for each in array.tolist()], object)
    return array.astype(object) if array.dtype.kind in "UT" else array


def check_lengths(where: Path | str, columns: Mapping[str, np.ndarray], expected: int | None = None) -> None:
    """Whether columns are of one length; raises UserError."""
    for name, column in columns.items():
        expected = len(column) if expected is None else expected
        if len(column) != expected:
            raise UserError(f"{where}: {name} has {len(column)} entries; expected {expected}, as the others.")


def trial_columns(where: Path | str, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns of trials: [n, 2] intervals made two, start_time and stop_time added under these names; lengths checked."""
    out: dict[str, np.ndarray] = {}
    for name, values in columns.items():
        if values.ndim == 2 and values.shape[1] == 2:
            out |= {f"{name}_0": values[:, 0], f"{name}_1": values[:, 1]}
        elif values.ndim == 1:
            out[name] = values
    lower = {name.lower(): name for name in out}
    for name, others in TIMES.items():
        found = [lower[other] for other in others if other in lower]
        if name not in out and found:
            out[name] = out[found[0]]
    check_lengths(where, out)
    if not out:
        raise UserError(f"{where}: holds no columns of trials; expected start_time and stop_time in s.")
    return out


def trials_table(source: Path, chosen: str | Path | None) -> tuple[dict[str, np.ndarray], Path] | None:
    """(columns, path) of the trials that belong to a source without them; None where nobody named one and none is there.

    Args:
      source: a folder or a file; a relative path is looked for in it or beside it first, so that each session has its own.
      chosen: the user's `trials_table`; None: trials.csv, .tsv, .parquet or .pqt there, if any.
    """
    folder = source if source.is_dir() else source.parent
    if chosen is None:
        path = next((folder / f"trials{suffix}" for suffix in TABLES if (folder / f"trials{suffix}").is_file()), None)
        if path is None or path == source:
            return None
    else:
        path = folder / chosen if (folder / chosen).is_file() else Path(chosen)
        if not path.is_file():
            raise UserError(f"trials_table={chosen}: no such file, neither here nor in {folder}; expected a table, {', '.join(TABLES)}.")
    return trial_columns(path, read_table(path)), path


def need_trials(source: Path, chosen: str | Path | None) -> tuple[dict[str, np.ndarray], str]:
    """(columns, a note) of the trials, or a UserError that says how to give them."""
    found = trials_table(source, chosen)
    if found is None:
        raise UserError(f"{source}: has no trials; expected given with trials_table=FILE.csv (columns start_time, stop_time in s, ...).")
    return found[0], f"trials from {found[1].name}"
