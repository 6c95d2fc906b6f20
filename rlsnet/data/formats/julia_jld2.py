"""JLD2 files of TrainSpikingNet.jl: rates (PSTH-*.jld2, Hz) and target currents (utarg.jld2), one array in each file.

JLD2 is HDF5 with reversed axes: an array time x unit x condition of Julia is stored as condition, unit, time. Axes are named here in
the order of Julia. The reader was tested with files that h5py wrote after the documentation of JLD2, not with a file written by Julia.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rlsnet.data.formats import hdf5
from rlsnet.data.formats.array_names import StoredArray
from rlsnet.data.formats.array_sources import read_arrays
from rlsnet.data.import_options import Options
from rlsnet.data.session import PrecomputedRates, Session

EXTENSIONS = (".jld2", ".jld")
AXES = ("time", "unit", "condition")  # Ntime x N x Ntasks, in the order of Julia
INTERNAL_GROUPS = ("_types",)  # groups of JLD2 itself


def matches(path: Path) -> bool:
    """Whether a source has an extension of JLD2 files."""
    return path.suffix.lower() in EXTENSIONS


def read(path: Path, options: Options) -> Session | PrecomputedRates:
    """Precomputed rates or currents in one file, or a session if it contains spikes; raises UserError if it contains neither."""
    with hdf5.opened(path) as file:
        arrays = {name: reversed_axes(each) for name, each in hdf5.stored_arrays(file, hdf5.read_dataset, INTERNAL_GROUPS).items()}
        variables = dict(options.variables or {})
        matrices = [name for name, each in arrays.items() if each.kind == "f" and len(each.shape) in (2, 3)]
        if len(matrices) == 1 and path.stem.lower().startswith("utarg") and not {"rate", "current"} & variables.keys():
            variables["current"] = matrices[0]
        return read_arrays(path, arrays, dataclasses.replace(options, variables=variables), AXES, defined=True)


def reversed_axes(found: StoredArray) -> StoredArray:
    """Array with its axes in the order of Julia or MATLAB."""
    if found.kind in "O?" or len(found.shape) < 2:
        return found
    return dataclasses.replace(found, shape=found.shape[::-1], load=lambda: found.load().T)
