"""Number of edges in a file of static synapses, for the memory plan; the edges are not read."""

from __future__ import annotations

import csv
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from rlsnet.io import npz_files

BLOCK = 2**24  # bytes read at a time


def count(path: str) -> int | None:
    """Edges of a SciPy sparse .npz, or of a .csv, .tsv or .parquet; None for a file that cannot be counted."""
    suffix = Path(path).suffix.lower()
    try:
        if suffix == ".npz":
            return _in_npz(path)
        if suffix in (".csv", ".tsv"):
            return _lines(path) - 1  # the header
        if suffix == ".parquet":
            from pyarrow import parquet

            return int(parquet.read_metadata(path).num_rows)
    except (OSError, ValueError, KeyError, BadZipFile, ImportError):
        return None
    return None


def _in_npz(path: str) -> int:
    """Stored entries of a sparse matrix: the length of its array `data`, from that array's header."""
    with ZipFile(path) as archive, archive.open("data.npy") as file:
        return npz_files.npy_header(file)[0][0]


def _lines(path: str) -> int:
    """Lines of a text file that are not empty at its end."""
    lines, last = 0, b"\n"
    with Path(path).open("rb") as file:
        while block := file.read(BLOCK):
            lines, last = lines + block.count(b"\n"), block[-1:]
    return lines + (last != b"\n")


def largest(path: str, column: str) -> float:
    """Largest number in a column of a .csv or .tsv, for a memory plan; 1 where it cannot be read, which the reader of the table reports."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            delimiter = "," if path.lower().endswith(".csv") else "\t"
            return max(float(row[column]) for row in csv.DictReader(file, delimiter=delimiter))
    except (OSError, ValueError, KeyError, TypeError):
        return 1.0
