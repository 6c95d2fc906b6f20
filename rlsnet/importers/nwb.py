"""Neurodata Without Borders, NWB 2 in HDF5: units, trials and series of events of a session, read in bulk with h5py.

Layout after the NWB schema: `units` is a table whose ragged columns X come with X_index, the ends of its rows; `intervals/trials`
holds the trials; events are whatever in acquisition, processing, stimulus/presentation or events has timestamps, and the starts
and stops of other tables of intervals.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from rlsnet.config import UserError
from rlsnet.importers import filters
from rlsnet.importers.options import Options
from rlsnet.importers.session import Session

EXTENSIONS = (".nwb",)
REGIONS = ("region", "anno_name", "brain_region", "brain_area", "area", "acronym", "ecephys_structure_acronym", "structure", "location")
PROBES = ("probe", "probe_name", "group_name", "device_name")
PLACES = ("acquisition", "processing", "stimulus/presentation", "events")  # of series of events
DEPTH = 6  # of groups that series are looked for in
LONGEST = 1e6  # s, nearly 12 days: whole numbers beyond it are samples
# The columns of ALF, and what the two generations of NWB files of the International Brain Laboratory call them.
IBL = {
    "stimOn_times": ("stim_on_time", "gabor_stimulus_onset_time"),
    "stimOff_times": ("stim_off_time", "gabor_stimulus_offset_time"),
    "goCue_times": ("go_cue_time", "auditory_cue_time"),
    "firstMovement_times": ("first_movement_time", "wheel_movement_onset_time"),
    "response_times": ("response_time", "choice_registration_time"),
    "feedback_times": ("feedback_time",),
    "feedbackType": ("feedback_type",),
    "contrastLeft": ("contrast_left",),
    "contrastRight": ("contrast_right",),
    "probabilityLeft": ("probability_left",),
    "rewardVolume": ("reward_volume", "reward_volume_uL"),
    "label": ("ibl_quality_score",),
}


def matches(path: Path) -> bool:
    """Whether a file calls itself NWB, by its name or by what is in it."""
    if path.suffix.lower() == ".nwb":
        return True
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    with contextlib.suppress(OSError), h5py.File(path, "r") as file:
        return "nwb_version" in file.attrs
    return False


def read(path: Path, options: Options) -> Session:
    """A session out of an NWB file; raises UserError where it has no units or trials, or cannot be read."""
    for unused in ("variables", "axes", "labels"):
        if getattr(options, unused):
            raise UserError(f"{unused}: is not for NWB files, which name what they hold; expected left out for {path}.")
    with _opened(path) as file:
        times, index, notes = _spikes(file, path)
        units, more = _units(file, path, len(index) - 1, options)
        trials, name = _trials(file, path, options)
        series = _series(file, name)
        observed = _observed(file, path, len(index) - 1)
    return Session(path.stem, path, times, index, units, trials, Events(path, series), observed, (*notes, *more))


class Events(Mapping[str, np.ndarray]):
    """Series of times in s by name, each read when it is asked for."""

    def __init__(self, path: Path, series: Mapping[str, str]):
        self.path, self.series = path, series

    def __getitem__(self, name: str) -> np.ndarray:
        with _opened(self.path) as file:
            times = _read(file[self.series[name]], self.path).astype(np.float64)
        return np.sort(times[np.isfinite(times)])

    def __iter__(self) -> Iterator[str]:
        return iter(self.series)

    def __len__(self) -> int:
        return len(self.series)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """An open file; raises UserError where it is none, or cut short."""
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        if path.is_dir():
            reason = "is a folder, perhaps NWB in Zarr; expected NWB in HDF5"
        elif isinstance(error, FileNotFoundError) or not path.exists():
            reason = "no such file"
        elif "truncated" in str(error):
            reason = "is cut short; copy or download it again"
        else:
            reason = f"is not a readable HDF5 file ({str(error).splitlines()[0]})"
        raise UserError(f"{path}: {reason}.") from error
    with file:
        yield file


def _read(stored: Any, path: Path) -> np.ndarray:
    """A dataset in memory, texts as objects; raises UserError where the file is damaged."""
    try:
        return np.asarray(stored.asstr(errors="replace")[...] if h5py.check_string_dtype(stored.dtype) else stored[...])
    except (OSError, RuntimeError) as error:
        text = str(error).splitlines()[0]
        if "filter" in text:
            raise UserError(f"{path}: {stored.name} is compressed with a filter that HDF5 lacks here; pip install hdf5plugin.") from error
        raise UserError(f"{path}: {stored.name} cannot be read, the file is damaged ({text}).") from error


def _table(group: Any, path: Path) -> dict[str, np.ndarray]:
    """The plain columns of a table: numbers, texts, booleans, one a row. What is ragged, or refers elsewhere, is left out."""
    size = len(group["id"]) if "id" in group else max((len(each) for each in group.values() if getattr(each, "ndim", 0) == 1), default=0)
    columns = {}
    for name in group:
        stored = group.get(name)
        ragged = name + "_index" in group or (name.endswith("_index") and name[: -len("_index")] in group)
        if not isinstance(stored, h5py.Dataset) or ragged or stored.shape != (size,):
            continue
        if h5py.check_string_dtype(stored.dtype) or stored.dtype.kind in "biuf":
            columns[name] = _read(stored, path)
    return columns


def _ends(group: Any, name: str, path: Path, size: int) -> np.ndarray:
    """[rows + 1] where the rows of a ragged column begin and end; `size` is that of the column."""
    index = np.concatenate([[0], _read(group[name], path).astype(np.int64)])
    if (np.diff(index) < 0).any() or index[-1] > size:
        raise UserError(f"{path}: {group.name}/{name} should ascend to the {size:,} values it points into; the file is damaged.")
    return index


def _spikes(file: h5py.File, path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(times in s, [U+1] index, notes)."""
    units = file.get("units")
    if not isinstance(units, h5py.Group) or "spike_times" not in units or "spike_times_index" not in units:
        raise UserError(f"{path}: holds no sorted spikes; expected units/spike_times and units/spike_times_index.")
    stored = units["spike_times"]
    index = _ends(units, "spike_times_index", path, stored.shape[0])
    times = _read(stored, path)
    whole = times.dtype.kind in "iu"
    if not whole and (times.size == 0 or times[np.isfinite(times)].max(initial=0) <= LONGEST or (times[:1000] % 1 != 0).any()):
        return times.astype(np.float64, copy=False), index, []
    step = float(stored.attrs.get("resolution", 0) or 0)  # s, in the schema the smallest difference of two times: 1 / sampling rate
    if not 0 < step < 1 and "sampling_rate" in units:
        rate = filters.numbers(_read(units["sampling_rate"], path))
        step = 1 / float(rate[0]) if len(rate) and (rate == rate[0]).all() and rate[0] > 1 else 0
    if 0 < step < 1:
        return times * step, index, [f"spike times are whole numbers, taken for samples of {1 / step:g} Hz"]
    raise UserError(f"{path}: units/spike_times look like samples, not s; expected the attribute resolution or units/sampling_rate.")


def _observed(file: h5py.File, path: Path, n_units: int) -> tuple[np.ndarray, np.ndarray] | None:
    """When each unit was observed, if the file says."""
    units = file["units"]
    if "obs_intervals" not in units or "obs_intervals_index" not in units:
        return None
    intervals = _read(units["obs_intervals"], path).astype(np.float64).reshape(-1, 2)
    intervals = np.where(np.isnan(intervals), [-np.inf, np.inf], intervals)  # open ends
    index = _ends(units, "obs_intervals_index", path, len(intervals))
    if len(index) != n_units + 1:
        raise UserError(f"{path}: units/obs_intervals_index has {len(index) - 1} rows; expected {n_units}, the units.")
    return (intervals, index) if len(intervals) else None


def _units(file: h5py.File, path: Path, n_units: int, options: Options) -> tuple[dict[str, np.ndarray], list[str]]:
    """The columns of the units, with id, region and probe, and notes."""
    units, notes = file["units"], []
    columns = {name: each for name, each in _table(units, path).items() if len(each) == n_units}
    columns.setdefault("id", np.arange(n_units))
    table = file.get("general/extracellular_ephys/electrodes")
    electrodes = _table(table, path) if isinstance(table, h5py.Group) else {}
    row = _rows_of_electrodes(units, columns, electrodes, path)
    at = {name: _taken(each, row) for name, each in electrodes.items()}
    group, places = _groups(file, units, path)
    columns.update({name: columns[names[0]] for name, names in _also(columns)})
    if options.region_column is not None:
        filters.known(
            options.region_column, [*columns, *at], f"region_column={options.region_column}", f"the units or electrodes of {path}"
        )
        region = columns.get(options.region_column, at.get(options.region_column))
    else:
        region = next((t[name] for t in (columns, at) for name in REGIONS if name in t), places)
    probe = group if group is not None else next((t[name] for t in (columns, at) for name in PROBES if name in t), None)
    if region is None:
        notes.append("says nothing of regions")
    for name, each in (("region", region), ("probe", probe)):
        if each is not None:
            columns[name] = np.array([str(value) for value in each], dtype=object)
    return columns, notes


def _rows_of_electrodes(units: Any, columns: Mapping[str, np.ndarray], electrodes: Mapping[str, np.ndarray], path: Path) -> np.ndarray:
    """[U] the row of the electrodes that each unit is largest at, or its first; -1 where it is not said."""
    n_units, n_rows = len(columns["id"]), len(next(iter(electrodes.values()), ()))
    row = np.full(n_units, -1)
    if "max_electrode" in columns:
        row = filters.numbers(columns["max_electrode"])
    elif "peak_channel_id" in columns and "id" in electrodes:
        of_id = {int(each): number for number, each in enumerate(electrodes["id"])}
        row = np.array([of_id.get(int(each), -1) if np.isfinite(each) else -1 for each in filters.numbers(columns["peak_channel_id"])])
    elif "electrodes" in units and "electrodes_index" in units:
        listed = _read(units["electrodes"], path)
        index = _ends(units, "electrodes_index", path, len(listed))
        some = np.diff(index) > 0
        row[some] = listed[index[:-1][some]]
    elif "electrodes" in columns:
        row = filters.numbers(columns["electrodes"])
    row = np.where(np.isfinite(row), row, -1).astype(np.int64) if len(row) == n_units else np.full(n_units, -1)
    return np.where(row < n_rows, row, -1)


def _taken(column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """The values of a column at rows, "" at row -1."""
    out = np.full(len(row), "", dtype=object)
    out[row >= 0] = column[row[row >= 0]]
    return out


def _groups(file: h5py.File, units: Any, path: Path) -> tuple[np.ndarray | None, np.ndarray | None]:
    """([U] the name of each unit's electrode group, [U] its location in words), where the units refer to one."""
    stored = units.get("electrode_group")
    if not isinstance(stored, h5py.Dataset) or h5py.check_ref_dtype(stored.dtype) is None:
        return None, None
    found = [file[reference] if reference else None for reference in _read(stored, path)]
    names = ["" if each is None else each.name.rpartition("/")[2] for each in found]
    places = ["" if each is None else str(each.attrs.get("location", "")) for each in found]
    return np.array(names, dtype=object), np.array(places, dtype=object) if any(places) else None


def _trials(file: h5py.File, path: Path, options: Options) -> tuple[dict[str, np.ndarray], str]:
    """The columns of the trials, and the name of the table of intervals that has them."""
    tables = [name for name in file.get("intervals", {}) if isinstance(file["intervals"][name], h5py.Group)]
    name = options.trials_table or "trials"
    if options.trials_table is not None:
        filters.known(name, tables, f"trials_table={name}", f"the intervals of {path}")
    elif name not in tables:
        others = f", trials_table={' or '.join(sorted(tables))} takes another" if tables else ""
        raise UserError(f"{path}: has no trials; expected the table intervals/trials{others}.")
    columns = _table(file["intervals"][name], path)
    columns.update({alf: columns[names[0]] for alf, names in _also(columns)})
    if {"gabor_stimulus_side", "gabor_stimulus_contrast"} <= columns.keys():
        contrast = filters.numbers(columns["gabor_stimulus_contrast"]) / 100
        for alf, side in (("contrastLeft", "left"), ("contrastRight", "right")):
            columns.setdefault(alf, np.where(columns["gabor_stimulus_side"] == side, contrast, np.nan))
    if "is_mouse_rewarded" in columns:
        columns.setdefault("feedbackType", np.where(columns["is_mouse_rewarded"].astype(bool), 1.0, -1.0))
    return columns, name


def _also(columns: Mapping[str, np.ndarray]) -> list[tuple[str, list[str]]]:
    """The names of ALF that columns have under others, with those."""
    found = [(alf, [name for name in names if name in columns]) for alf, names in IBL.items() if alf not in columns]
    return [(alf, names) for alf, names in found if names]


def _series(file: h5py.File, trials: str) -> dict[str, str]:
    """The path in the file of each series of events, by its name, or by more of its path where several have that name."""
    paths: list[str] = []
    for place in PLACES:
        if isinstance(top := file.get(place), h5py.Group):
            paths += _timestamps(top, DEPTH)
    names = [path.split("/")[-2] for path in paths]
    longer = ["/".join(path.split("/")[2:-1]) for path in paths]
    found = {(name if names.count(name) == 1 else long): path for name, long, path in zip(names, longer, paths, strict=True)}
    for table in file.get("intervals", {}):
        for column in ("start_time", "stop_time"):
            if table != trials and f"intervals/{table}/{column}" in file:
                found[f"{table}.{column}"] = f"/intervals/{table}/{column}"
    return found


def _timestamps(group: Any, depth: int) -> list[str]:
    """The paths of the timestamps below a group."""
    found = []
    for name in group:
        item = group.get(name)
        if isinstance(item, h5py.Group) and depth:
            found += [f"{group.name}/{name}{below[len(item.name) :]}" for below in _timestamps(item, depth - 1)]
        elif isinstance(item, h5py.Dataset) and name in ("timestamps", "timestamp") and item.ndim == 1 and item.dtype.kind in "iuf":
            found.append(f"{group.name}/{name}")
    return found
