"""Sizes of arrays in .npy and .npz files by their headers, for a check of the memory before they are read."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from rlsnet.io import memory

COPIES = 2  # of an array in memory while it is imported


def npy_header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    """(shape, dtype) of the array in an open .npy file; raises ValueError if it has no header."""
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(file)
    return shape, dtype


def npy_bytes(file: Any) -> int:
    """Bytes of the array in an open .npy file, by its header; 0 if it has none."""
    try:
        shape, dtype = npy_header(file)
    except ValueError:  # NumPy says later what is wrong
        return 0
    return math.prod(shape) * dtype.itemsize


def check_npz(path: str | Path, where: object = None) -> None:
    """Raises UserError if the arrays of a .npz file, by their headers, do not fit in the free memory twice; `where` for the message."""
    with zipfile.ZipFile(path) as archive:
        total = 0
        for name in archive.namelist():
            with archive.open(name) as file:
                total += npy_bytes(file)
    memory.check_fits(COPIES * total, where or path)


def load_sparse(path: str | Path, where: object) -> Any:
    """SciPy sparse matrix of a .npz file; raises UserError if it does not fit in the free memory, or a number for each row and column."""
    from scipy.sparse import load_npz

    check_npz(path, where)
    matrix = load_npz(path)
    memory.check_fits(COPIES * sum(matrix.shape) * 8, where)
    return matrix
