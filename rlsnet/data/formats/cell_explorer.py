"""CellExplorer and buzcode: BASENAME.spikes.cellinfo.mat, a struct spikes with a cell of times in s, and files beside it.

Trials come from `trials_table`, or from BASENAME.trials.*.mat: a struct with start and end, or timestamps or intervals [n, 2], and other
fields with a value for each trial. Each BASENAME.NAME.events.mat is a series of events NAME, the starts of its timestamps, with the ends
as NAME.stop. Columns of the units are the fields of spikes with a value for each unit; id is UID, the unit, and cluID that of the sorter.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np

from rlsnet.data.formats import table_files
from rlsnet.data.formats.array_names import ArrayNames, StoredArray, group_columns, in_memory
from rlsnet.data.formats.array_sources import read_arrays
from rlsnet.data.formats.matlab import opened_arrays
from rlsnet.data.import_options import Options
from rlsnet.data.session import Session
from rlsnet.errors import UserError, joined

SUFFIX = ".spikes.cellinfo.mat"


def matches(path: Path) -> bool:
    """Whether a source is a file of spikes of CellExplorer, or a folder with one."""
    return bool(list(path.glob(f"*{SUFFIX}"))) if path.is_dir() else path.name.endswith(SUFFIX)


def read(path: Path, options: Options) -> Session:
    """Session in a file or folder; raises UserError if it has no spikes or trials, or files are damaged or do not fit together."""
    files = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
    if len(files) != 1 or not files[0].is_file():
        listed = joined(files, "or")
        raise UserError(f"{path}: expected {listed if len(files) > 1 else f'a file BASENAME{SUFFIX}'} as source.")
    (file,) = files
    basename = file.name.removesuffix(SUFFIX)
    with opened_arrays(file) as arrays:
        times = arrays.get("spikes/times")
        if times is None or times.kind != "O":
            raise UserError(f"{file}: has no spikes.times; expected a struct spikes with a cell of times in s, one for each unit.")
        own = {"spike_times": dataclasses.replace(times, unit="s")} | _columns_of_units(file, arrays, math.prod(times.shape))
        if options.trials_table is None:
            own |= {f"trials/{name}": in_memory(values) for name, values in _trials(file, basename).items()}
        session = read_arrays(file, own, options)
    assert isinstance(session, Session)
    return dataclasses.replace(session, name=basename, events=_events(file, basename))


def _columns_of_units(file: Path, arrays: dict[str, StoredArray], size: int) -> dict[str, StoredArray]:
    """Fields of the struct spikes with a value for each unit, as columns of the units."""
    fields = ArrayNames(file, arrays, {}).members("spikes")
    columns = group_columns({name: each for name, each in fields.items() if name != "times"})
    columns = {name: values for name, values in columns.items() if values.shape == (size,)}
    columns["id"] = table_files.integers_if_whole(columns["UID"]) if "UID" in columns else np.arange(1, size + 1)
    return {f"units/{name}": in_memory(values) for name, values in columns.items()}


def _struct(file: Path, name: str) -> dict[str, np.ndarray]:
    """Fields of a struct in a file: vectors, and matrices with two columns."""
    with opened_arrays(file) as arrays:
        below = ArrayNames(file, arrays, {}).members(name)
        return {path: each for path, each in group_columns(below).items() if each.ndim == 1 or each.shape[1:] == (2,)}


def _trials(file: Path, basename: str) -> dict[str, np.ndarray]:
    """Columns of the trials in BASENAME.trials.*.mat; {} without such a file."""
    found = sorted(file.parent.glob(f"{basename}.trials.*mat"))
    if not found:
        return {}
    columns = _struct(found[0], "trials")
    for name in ("timestamps", "intervals"):
        if name in columns and columns[name].ndim == 2:
            columns |= {"start_time": columns[name][:, 0], "stop_time": columns[name][:, 1]}
    size = next(
        (len(columns[name]) for name in ("start_time", "start", *table_files.TRIAL_TIME_NAMES["start_time"]) if name in columns), None
    )
    if size is None:
        raise UserError(f"{found[0]}: has no start of trials; expected a struct trials with start and end, or timestamps [n, 2], in s.")
    return {name: values for name, values in columns.items() if values.shape == (size,)}


def _events(file: Path, basename: str) -> dict[str, np.ndarray]:
    """Series of events in BASENAME.NAME.events.mat."""
    series: dict[str, np.ndarray] = {}
    for each in sorted(file.parent.glob(f"{basename}.*.events.mat")):
        name = each.name.removeprefix(f"{basename}.").removesuffix(".events.mat")
        times = _struct(each, name).get("timestamps")
        if times is not None and times.dtype.kind in "fiu":
            series |= {name: np.sort(times if times.ndim == 1 else times[:, 0])}
            series |= {f"{name}.stop": np.sort(times[:, 1])} if times.ndim == 2 else {}
    return series
