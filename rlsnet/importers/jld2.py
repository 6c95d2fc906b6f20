"""JLD2 files of TrainSpikingNet.jl: rates (PSTH-*.jld2, Hz) and target currents (utarg.jld2), an array a file.

JLD2 is HDF5 with the axes the other way round: what Julia calls time x unit x condition is stored as condition, unit, time. Axes are
named here as Julia shows them. Tried on files that h5py laid out as JLD2's documentation describes, not on one that Julia wrote.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rlsnet.config import UserError
from rlsnet.importers import hdf5, tables
from rlsnet.importers.interpret import read as interpret
from rlsnet.importers.named import Leaf
from rlsnet.importers.options import Options
from rlsnet.importers.session import Ready, Session

EXTENSIONS = (".jld2", ".jld")
AXES = ("time", "unit", "condition")  # Ntime x N x Ntasks, as Julia shows them
OWN = ("_types",)  # group of JLD2 itself


def matches(path: Path) -> bool:
    """Whether a source is called as JLD2 files are."""
    return path.suffix.lower() in EXTENSIONS


def read(path: Path, options: Options) -> Session | Ready:
    """The ready rates or currents of one file, or a session where it holds spikes; raises UserError where it holds neither."""
    if not path.is_file():
        raise UserError(f"{path}: no such file.")
    with tables.reading(path):
        import h5py

        with h5py.File(path, "r") as file:
            leaves = {name: reversed_axes(each) for name, each in hdf5.leaves(file, hdf5.value, OWN).items()}
            given = dict(options.variables or {})
            only = [name for name, each in leaves.items() if each.kind == "f" and len(each.shape) in (2, 3)]
            if len(only) == 1 and path.stem.lower().startswith("utarg") and not {"rate", "current"} & given.keys():
                given["current"] = only[0]
            return interpret(path, leaves, dataclasses.replace(options, variables=given), AXES)


def reversed_axes(found: Leaf) -> Leaf:
    """An array with its axes as Julia, or MATLAB, shows them."""
    if found.kind in "O?" or len(found.shape) < 2:
        return found
    return dataclasses.replace(found, shape=found.shape[::-1], load=lambda: found.load().T)
