"""Columns of units and trials from CSV, TSV, Parquet and .npy files, with errors of one line for files that cannot be read."""

from __future__ import annotations

import contextlib
import contextvars
import csv
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlsnet.data.number_texts import are_labels, may_contain_labels, number_in
from rlsnet.data.query import MISSING_CELLS
from rlsnet.errors import UserError
from rlsnet.io import memory, npz_files
from rlsnet.io.formatting import byte_size
from rlsnet.io.npz_files import COPIES

BYTES_PER_CHARACTER = 4  # of a table of numbers: 8 for at least two characters
TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".pqt")
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")
LARGEST_WHOLE = 2**53  # from which on float64 does not have all whole numbers
COMMENT_SIGNS = ("#", "%", "//")
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[,;\t]*', re.IGNORECASE)  # that Excel reads before the header
MOST_COMMENTS = 1000  # lines in which the header is looked for
COMMA_NUMBER = re.compile(r"[-+]?\d*,\d+([eE][-+]?\d+)?")
COMMA_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}")
POINT_NUMBER = re.compile(r"[-+]?\d*\.\d+([eE][-+]?\d+)?")
GROUP_BLANK = re.compile("[ \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}]")
GROUPED = re.compile(rf"[-+]?\d{{1,3}}({GROUP_BLANK.pattern}\d{{3}})+([.,]\d+)?")
TRIAL_TIME_NAMES = {  # other names of the start and the end of a trial
    "start_time": ("start", "starts", "start_times", "intervals_0", "trial_start"),
    "stop_time": ("stop", "stops", "stop_times", "end", "ends", "end_time", "end_times", "intervals_1", "trial_end"),
}


GIVEN = contextvars.ContextVar[Path | None]("given", default=None)  # folder that the user gave, in which the source was found


@contextlib.contextmanager
def found_in(folder: Path | None) -> Iterator[None]:
    """Context in which the table of trials of a source may also be in the folder in which it was found."""
    token = GIVEN.set(folder)
    try:
        yield
    finally:
        GIVEN.reset(token)


@contextlib.contextmanager
def one_line_errors(path: Path | str) -> Iterator[None]:
    """Context in which errors of a library about a damaged or wrong file become a UserError of one line."""
    try:
        yield
    except (UserError, FileNotFoundError, PermissionError):
        raise
    except MemoryError as error:
        raise UserError(f"{path}: does not fit in the free memory, {byte_size(memory.free_memory())}.") from error
    except Exception as error:  # libraries raise many kinds of errors for damaged files
        first = (str(error).splitlines() or [""])[0].rstrip(".")
        if "allow_pickle" in str(error):
            raise UserError(f"{path}: contains Python objects, which are never unpickled; expected numbers or texts.") from error
        raise UserError(
            f"{path}: cannot be read; the file is damaged, or its name does not fit its format ({first or type(error).__name__})."
        ) from error


def load_npy(path: Path) -> np.ndarray:
    """Array of a .npy file, in memory; raises UserError if the file is damaged or contains Python objects."""
    with one_line_errors(path):
        with path.open("rb") as file:
            memory.check_fits(COPIES * npz_files.npy_bytes(file), path)
        values = np.load(path, allow_pickle=False)
        if not isinstance(values, np.ndarray):
            raise ValueError("no array")
        return values


def read_table(path: Path) -> dict[str, np.ndarray]:
    """Columns of a CSV, TSV or Parquet file: numbers, booleans, or texts as objects.

    Raises:
      UserError: no such file, not a table, two columns of one name, or rows of different lengths.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a table, {', '.join(TABLE_SUFFIXES)}.")
    if path.suffix.lower() in (".parquet", ".pqt"):
        return _read_parquet(path)
    if path.suffix.lower() in (".csv", ".tsv"):
        with one_line_errors(path):
            return _read_text(path)
    check_not_compressed(path)
    raise UserError(f"{path}: expected a table, {', '.join(TABLE_SUFFIXES)}.")


def check_not_compressed(path: Path) -> None:
    """Raises UserError for a compressed file, by its name."""
    if path.suffix.lower() in COMPRESSED:
        raise UserError(f"{path}: is compressed; expected {path.stem}, the unpacked file.")


def _read_parquet(path: Path) -> dict[str, np.ndarray]:
    """Columns of a Parquet file, without the index of pandas."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"{path}: reading it needs pyarrow; pip install 'rlsnet[parquet]'.") from error
    with one_line_errors(path):
        about = parquet.ParquetFile(path).metadata
        memory.check_fits(COPIES * about.num_rows * about.num_columns * 8, path)
        table = parquet.read_table(path)
        _check_unique(path, table.column_names)
        columns = {str(name): _parquet_column(table[name]) for name in table.column_names}
    return {name: column for name, column in columns.items() if not name.startswith("__index_level_")}


def _parquet_column(stored: Any) -> np.ndarray:
    """Column of a Parquet file: categories as their values, as the numbers of missing ones are any; durations in s."""
    if hasattr(stored.type, "value_type") and hasattr(stored.type, "index_type"):
        stored = stored.cast(stored.type.value_type)
    return plain_numbers(np.asarray(stored.to_numpy()))


def plain_numbers(column: np.ndarray) -> np.ndarray:
    """Whole numbers of any length as int64, as differences of unsigned ones wrap around; durations in s; other columns unchanged."""
    if column.dtype.kind == "m":
        return column / np.timedelta64(1, "s")
    fits = column.dtype.kind == "i" or (column.dtype.kind == "u" and int(column.max(initial=0)) <= np.iinfo(np.int64).max)
    return column.astype(np.int64) if fits else column


def has_lists(column: np.ndarray) -> bool:
    """Whether cells of a column are lists or structures, as in Parquet files."""
    return column.ndim > 1 or (column.dtype.kind == "O" and any(isinstance(each, np.ndarray | list | dict) for each in column))


def _cells_of(line: str, delimiter: str | None) -> list[str]:
    """Cells of one line; delimiter None: separated by blanks."""
    return line.split() if delimiter is None else [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]


def _delimiter(path: Path, head: str, row: str) -> str | None:
    """Separator of the cells: the tab, semicolon or comma that is as frequent in the header as in the first row; None: blanks."""
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    present = [each for each in ("\t", ";", ",") if each in head]
    for each in present:
        if not row or len(_cells_of(head, each)) == len(_cells_of(row, each)):
            return each
    blanks = not present and len(head.split()) > 1 and len(head.split()) == len(row.split())
    return None if blanks else max((usual, *present), key=head.count)


def _without_comments(lines: Sequence[str]) -> list[tuple[int, str]]:
    """(number from 1, text) of the lines that are neither empty nor comments; a header after a comment sign, as NumPy writes it, stays."""
    rows = [(number, line) for number, line in enumerate(lines, 1) if line.strip(" \t\r\n,;")]
    kept = [(number, line) for number, line in rows if not line.lstrip().startswith(COMMENT_SIGNS)]
    comments = [(number, line) for number, line in rows if line.lstrip().startswith(COMMENT_SIGNS) and (not kept or number < kept[0][0])]
    if kept and comments and any(map(_is_number, _cells_of(kept[0][1], _delimiter(Path(), kept[0][1], kept[0][1])))):
        number, line = comments[-1]
        head = line.lstrip().lstrip("#%/").strip()
        delimiter = _delimiter(Path(), head, kept[0][1])
        if len(_cells_of(head, delimiter)) == len(_cells_of(kept[0][1], delimiter)):
            return [(number, head), *kept]
    return kept


def _read_text(path: Path) -> dict[str, np.ndarray]:
    """Columns of a CSV or TSV file: separated by tabs, semicolons, commas or blanks, perhaps with decimal commas and lines of comments.

    A table of numbers only is read by NumPy, which is faster.
    """
    memory.check_fits(BYTES_PER_CHARACTER * path.stat().st_size, path)
    with path.open("rb") as binary:
        encoding = "utf-16" if binary.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        with path.open(newline="", encoding=encoding) as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: is not in UTF-8, from byte {error.start + 1} on; expected UTF-8, as iconv -f WINDOWS-1252 -t UTF-8 makes."
        ) from error
    lines = text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    declared = SEPARATOR_LINE.fullmatch(lines[0])
    lines[0] = "" if declared else lines[0]
    rows = _without_comments(lines[:MOST_COMMENTS])
    if not rows:
        raise UserError(f"{path}: is empty; expected a table whose first line has the names of its columns.")
    (head_line, head), (_, first) = rows[0], rows[1] if len(rows) > 1 else (0, "")
    delimiter = declared[1] if declared else _delimiter(path, head, first)
    names = _cells_of(head, delimiter)
    while len(names) > 1 and not names[-1]:  # separators at the ends of lines
        names.pop()
    body = head_line
    if _is_numeric_header(names):
        names, body = [str(column) for column in range(len(names))], head_line - 1
    _check_unique(path, [name for name in names if name])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warning about a table without rows
            values = np.loadtxt(lines[body:], delimiter=delimiter, ndmin=2, comments=None)
        if values.size and values.shape[1] == len(names):
            columns = {name: integers_if_whole(column) for name, column in zip(names, values.T, strict=True)}
            whole = any(column.dtype.kind == "i" for column in columns.values())
            exact = not np.any((np.abs(values) >= LARGEST_WHOLE) & np.isfinite(values))
            if exact and len(columns) == len(names) and not (whole and may_contain_labels("\n".join(lines[body:]), values.size)):
                return columns
    except ValueError:  # texts, empty cells, decimal commas or ragged rows
        pass
    cells = _parsed_rows(path, lines, body, delimiter, len(names))
    used = [(name, cell) for name, cell in zip(names, cells, strict=True) if name or any(map(str.strip, cell))]
    _check_unique(path, [name for name, _ in used])
    decimal = _decimal_comma(path, [name for name, _ in used], [cell for _, cell in used], delimiter)
    return {name: _parsed_column(cell, decimal) for name, cell in used}


def _parsed_rows(path: Path, lines: Sequence[str], body: int, delimiter: str | None, n_columns: int) -> list[Sequence[str]]:
    """Cells of each column, from the lines after the first `body`; raises UserError for rows of another length."""
    rows: list[list[str]] = []
    reader = csv.reader((line + "\n" for line in lines[body:]), delimiter=delimiter or " ", skipinitialspace=delimiter is None)
    for row in reader:
        row = [cell for cell in row if cell] if delimiter is None else row
        if not any(cell.strip() for cell in row) or row[0].lstrip().startswith(COMMENT_SIGNS):
            continue
        while len(row) > n_columns and not row[-1].strip():  # separators at the ends of lines
            row.pop()
        if len(row) != n_columns:
            raise UserError(f"{path}: line {body + reader.line_num} has {len(row)} cells; expected {n_columns}, as in the header.")
        rows.append(row)
    return list(zip(*rows, strict=True)) if rows else [()] * n_columns


def _decimal_comma(path: Path, names: Sequence[str], cells: Sequence[Sequence[str]], delimiter: str | None) -> bool:
    """Whether numbers have a decimal comma.

    They have in tables with semicolons, and where a comma is not followed by three digits as in 1,000.

    Raises:
      UserError: numbers such as 5,000 that may be 5 or 5000, or numbers with a point among those with a comma.
    """
    with_comma = {name: [_ungrouped(cell.strip()) for cell in column if "," in cell] for name, column in zip(names, cells, strict=True)}
    numeric = {name: found for name, found in with_comma.items() if found and all(COMMA_NUMBER.fullmatch(cell) for cell in found)}
    if not numeric:
        return False
    thousands = {name: found for name, found in numeric.items() if all(COMMA_THOUSANDS.fullmatch(cell) for cell in found)}
    if delimiter != ";" and len(thousands) == len(numeric):
        name, found = next(iter(thousands.items()))
        raise UserError(
            f"{path}: {name} is {found[0]} in a row, which may be a fraction or thousands; expected a decimal point, and no comma."
        )
    for name, column in zip(names, cells, strict=True):
        if points := [cell.strip() for cell in column if POINT_NUMBER.fullmatch(cell.strip())]:
            raise UserError(
                f"{path}: {name} is {points[0]} in a row, {next(iter(numeric))} is {next(iter(numeric.values()))[0]}; expected decimal"
                " points or decimal commas in all of the table."
            )
    return True


def _is_number(text: str) -> bool:
    """Whether a cell is a number, perhaps with a decimal comma."""
    try:
        return math.isfinite(number_in(text.replace(",", ".")))
    except ValueError:
        return False


def _is_numeric_header(names: Sequence[str]) -> bool:
    """Whether the first line of a table contains values such as rates and not names; different whole numbers may be names."""
    try:
        values = [number_in(name.replace(",", ".")) for name in names]
    except ValueError:
        return False
    return not all(value >= 0 and value == int(value) for value in values if math.isfinite(value)) or len(set(values)) < len(values)


def _check_unique(path: Path, names: Sequence[str]) -> None:
    """Raises UserError if two columns have the same name."""
    repeated = sorted({name for name in names if list(names).count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        raise UserError(f"{path}: has two columns {repeated[0]!r}; expected different names.")


def integers_if_whole(column: np.ndarray) -> np.ndarray:
    """Column of numbers as integers if all of them are whole numbers, else unchanged."""
    if column.dtype.kind not in "iuf":
        return column
    all_whole = column.size and np.all(np.isfinite(column)) and np.all(column == np.floor(column)) and np.abs(column).max() < LARGEST_WHOLE
    return column.astype(np.int64) if all_whole else column


def _ungrouped(text: str) -> str:
    """Number without the blanks between groups of three digits; other texts unchanged."""
    return GROUP_BLANK.sub("", text) if GROUPED.fullmatch(text) else text


def _parsed_column(cells: Sequence[str], decimal_comma: bool = False) -> np.ndarray:
    """Cells as integers, as numbers (NaN where missing) or as booleans if all of them can be read so, else as texts.

    Whole numbers that are labels stay texts. Blanks between groups of three digits are left out: 12 000 is 12000.
    """
    texts = [cell.strip() for cell in cells]
    numbers = [_ungrouped(text) for text in texts]
    if decimal_comma:
        numbers = [text.replace(",", ".") if COMMA_NUMBER.fullmatch(text) else text for text in numbers]
    try:
        values = _numbers_in(numbers)
    except ValueError:
        pass
    else:
        if are_labels(numbers, values):
            return np.array(texts, object)
        try:
            return np.array([int(text) for text in numbers], np.int64)
        except (ValueError, OverflowError):
            return np.array(values)
    if {text.lower() for text in texts} <= {"true", "false"}:
        return np.array([text.lower() == "true" for text in texts])
    return np.array(texts, object)


def _numbers_in(texts: Sequence[str]) -> list[float]:
    """Numbers of cells, NaN where missing; raises ValueError for other texts."""
    return [math.nan if text.lower() in MISSING_CELLS else number_in(text) for text in texts]


def as_numbers(column: np.ndarray) -> np.ndarray:
    """Column of times or rates as numbers, if its cells were kept as labels; other columns unchanged."""
    if column.dtype.kind != "O" or not all(isinstance(each, str) for each in column):
        return column
    try:
        return np.array(_numbers_in([_ungrouped(each) for each in column]))
    except ValueError:
        return column


def as_column(values: Any) -> np.ndarray:
    """Values as a column of one axis: texts as str objects, row and column vectors of MATLAB as [n]."""
    array = np.asarray(values)
    if array.ndim != 1 and array.size == max(array.shape, default=1):
        array = array.reshape(-1)
    if array.dtype.kind in "SO":
        array = np.array([each.decode("utf-8", "replace") if isinstance(each, bytes) else each for each in array.tolist()], object)
    return array.astype(object) if array.dtype.kind in "UT" else array


def check_lengths(where: Path | str, columns: Mapping[str, np.ndarray], expected: int | None = None) -> None:
    """Raises UserError unless all columns have the same length.

    Args:
      where: the file, for the message.
      columns: by name.
      expected: length; None: that of the first column.
    """
    for name, column in columns.items():
        expected = len(column) if expected is None else expected
        if len(column) != expected:
            raise UserError(f"{where}: {name} has {len(column)} entries; expected {expected}, as in the other columns.")


def trial_columns(where: Path | str, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns of trials; [n, 2] intervals become two columns, and start_time and stop_time are added if they have other names.

    Raises:
      UserError: no columns, or columns of different lengths.
    """
    out: dict[str, np.ndarray] = {}
    for name, values in columns.items():
        if values.ndim == 2 and values.shape[1] == 2:
            out |= {f"{name}_0": values[:, 0], f"{name}_1": values[:, 1]}
        elif values.ndim == 1:
            out[name] = values
    lower = {name.lower(): name for name in out}
    for name, other_names in TRIAL_TIME_NAMES.items():
        found = [lower[other] for other in other_names if other in lower]
        if name not in out and found:
            out[name] = out[found[0]]
    check_lengths(where, out)
    if not out:
        raise UserError(f"{where}: contains no columns of trials; expected start_time and stop_time in s.")
    return out


def trials_table(source: Path, chosen: str | Path | None) -> tuple[dict[str, np.ndarray], Path] | None:
    """Trials from a table beside a source that has none itself.

    Args:
      source: folder or file. A relative path of a table is first looked up in or beside it, so that each session has its own; then in the
        folder of `found_in`.
      chosen: the setting `trials_table`; None: trials.csv, .tsv, .parquet or .pqt there.

    Returns:
      (columns, path of the table), or None if there is no table.

    Raises:
      UserError: the chosen table does not exist, or is not a table of trials.
    """
    path = trials_path(source, chosen)
    return None if path is None else (trial_columns(path, read_table(path)), path)


def trials_path(source: Path, chosen: str | Path | None) -> Path | None:
    """Path of the table of trials beside a source; arguments, None and errors as for `trials_table`."""
    own, given = source if source.is_dir() else source.parent, GIVEN.get()
    folders = [own] if given is None else [own, given]
    if chosen is None:
        names = [folder / f"trials{suffix}" for folder in folders for suffix in TABLE_SUFFIXES]
        path = next((each for each in names if each.is_file()), None)
        return None if path == source else path
    path = next((folder / chosen for folder in folders if (folder / chosen).is_file()), Path(chosen))
    if not path.is_file():
        raise UserError(
            f"trials_table={chosen}: no such file in the current folder or in {own}; expected a table, {', '.join(TABLE_SUFFIXES)}."
        )
    return path


def require_trials(source: Path, chosen: str | Path | None) -> tuple[dict[str, np.ndarray], str]:
    """Trials of a source as (columns, note), as for `trials_table`; raises UserError if there is no table."""
    found = trials_table(source, chosen)
    if found is None:
        raise UserError(f"{source}: has no trials; expected trials_table=FILE.csv with columns start_time, stop_time in s, ...")
    return found[0], f"trials from {found[1].name}"
