"""Neurodata Without Borders, NWB 2 in HDF5 or Zarr: units, trials and events of a session, read in bulk.

Layout of the NWB schema: `units` is a table in which a ragged column X has a column X_index with the ends of its rows;
`intervals/trials` contains the trials. Events are the timestamps of all series in acquisition, processing, stimulus/presentation
and events, and the starts and stops of other tables of intervals.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from rlsnet.data import query, time_units
from rlsnet.data.formats import nwb_zarr
from rlsnet.data.formats.array_names import ArrayNames
from rlsnet.data.formats.nwb_tables import is_dataset, is_group, opened, read_dataset, read_plain_columns, read_ragged_index
from rlsnet.data.import_options import Options
from rlsnet.data.session import Session
from rlsnet.errors import UserError, joined

EXTENSIONS = (".nwb",)
REGION_COLUMNS = (
    "region",
    "anno_name",
    "brain_region",
    "brain_area",
    "area",
    "acronym",
    "ecephys_structure_acronym",
    "structure",
    "location",
)
PROBE_COLUMNS = ("probe", "probe_name", "group_name", "device_name")
EVENT_GROUPS = ("acquisition", "processing", "stimulus/presentation", "events")  # groups that contain series of events
MAX_GROUP_DEPTH = 6  # depth of groups that are searched for series
MAX_SECONDS = 1e6  # nearly 12 days; whole numbers above it are samples
# Columns in ALF, and their names in both generations of NWB files of the International Brain Laboratory.
IBL_COLUMNS = {
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
    """Whether a file or Zarr store is NWB, by its name or by its content."""
    if path.is_dir():
        return nwb_zarr.is_store(path)
    if path.suffix.lower() == ".nwb":
        return True
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    with contextlib.suppress(OSError, RuntimeError, KeyError), h5py.File(path, "r") as file:  # which h5py raises for damaged files
        return "nwb_version" in file.attrs
    return False


def read(path: Path, options: Options) -> Session:
    """Session in an NWB file; raises UserError if it has no units or trials, or cannot be read."""
    others = {name: value for name, value in (options.variables or {}).items() if name not in ("sample_rate", "units")}
    for unused, value in (("variables", others), ("axes", options.axes), ("labels", options.labels)):
        if value:
            raise UserError(
                f"{unused}: does not apply to NWB files, which have fixed names, apart from variables.units and variables.sample_rate;"
                f" expected no value for {path}."
            )
    given_rate = ArrayNames(path, {}, options.variables or {}).positive_number("sample_rate")
    with opened(path) as file:
        table, found = _units_table(file, path, (options.variables or {}).get("units"))
        times, index, rate, notes = _spikes(table, path, options, given_rate)
        units, more_notes = _units(file, table, path, len(index) - 1, options)
        trials, name = _trials(file, path, options)
        series = _event_paths(file, name)
        observed = _observation_intervals(table, path, len(index) - 1)
    notes = (*found, *notes)
    return Session(path.stem, path, times, index, units, trials, EventSeries(path, series), observed, (*notes, *more_notes), rate)


class EventSeries(Mapping[str, np.ndarray]):
    """Series of times in s by name; each is read from the file when it is used."""

    def __init__(self, path: Path, series: Mapping[str, str]):
        self.path, self.series = path, series

    def __getitem__(self, name: str) -> np.ndarray:
        where = self.series[name]
        with opened(self.path) as file:
            times = read_dataset(file[where], self.path).astype(np.float64)
        return np.sort(times[np.isfinite(times)])

    def __iter__(self) -> Iterator[str]:
        return iter(self.series)

    def __len__(self) -> int:
        return len(self.series)


def _units_table(file: Any, path: Path, chosen: str | None) -> tuple[Any, tuple[str, ...]]:
    """(table of the units with spikes, notes): `units`, or the one with spikes below processing, or that which the user names.

    Raises:
      UserError: no table with spikes, several below processing, or none at the path `chosen`.
    """
    where = [chosen.strip("/")] if chosen else ["units"]
    found = [each for each in where if _has_spikes(file.get(each))]
    if not found:
        below = _spike_tables(file["processing"], MAX_GROUP_DEPTH) if is_group(file.get("processing")) else []
        listed = ", ".join(f"variables.units={each}" for each in below)
        if chosen:
            raise UserError(
                f"variables.units={chosen}: no table with spike_times and spike_times_index in {path};"
                f" expected {listed or 'the path of such a table'}."
            )
        if len(below) > 1:
            raise UserError(f"{path}: contains several tables of sorted spikes; expected one of {listed}.")
        if not below:
            raise UserError(f"{path}: contains no sorted spikes; expected units/spike_times and units/spike_times_index.")
        found = below
    table = file[found[0]]
    pickled = table.pickled() if isinstance(table, nwb_zarr.Group) else []
    notes = [f"units from {found[0]}"] if found[0] != "units" else []
    notes += [f"columns of Python objects, which are never unpickled: {', '.join(pickled)}"] if pickled else []
    return table, tuple(notes)


def _has_spikes(table: Any) -> bool:
    """Whether a node of a file is a table with spikes."""
    return is_group(table) and "spike_times" in table and "spike_times_index" in table


def _spike_tables(group: Any, depth: int) -> list[str]:
    """Paths of the tables with spikes below a group."""
    nodes = [node for name in group if is_group(node := group.get(name))]
    found = [node.name.strip("/") for node in nodes if _has_spikes(node)]
    deeper = [each for node in nodes if depth and not _has_spikes(node) for each in _spike_tables(node, depth - 1)]
    return found + deeper


def _spikes(
    units: Any, path: Path, options: Options, sample_rate: float | None
) -> tuple[np.ndarray, np.ndarray, float | None, tuple[str, ...]]:
    """(times in s, index [U+1], sample rate in Hz if known, notes) of the spike trains; `sample_rate` is that of the user."""
    stored = units["spike_times"]
    index = read_ragged_index(units, "spike_times_index", path, stored.shape[0])
    times = read_dataset(stored, path)
    rate = sample_rate or _sample_rate(units, path)
    samples = times.dtype.kind in "iu" or (
        times.size and times[np.isfinite(times)].max(initial=0) > MAX_SECONDS and not (times[:1000] % 1 != 0).any()
    )
    stated = time_units.stated_unit(stored.attrs) or ("samples" if samples else "s")
    times, notes = time_units.spike_seconds(f"{path}: {stored.name.strip('/')}", times, options, rate, stated)
    return times, index, rate, notes


def _sample_rate(units: Any, path: Path) -> float | None:
    """Sample rate in Hz from the smallest difference of two spike times, or from a column of the units; None if unknown."""
    step = float(units["spike_times"].attrs.get("resolution", 0) or 0)  # s, 1 / sampling rate
    if 0 < step < 1:
        return 1 / step
    rate = query.as_numbers(read_dataset(units["sampling_rate"], path)) if "sampling_rate" in units else np.zeros(0)
    return float(rate[0]) if len(rate) and (rate == rate[0]).all() and rate[0] > 1 else None


def _observation_intervals(units: Any, path: Path, n_units: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Observation intervals ([K, 2] s, index [U+1]) of the units, or None if the file has none."""
    if "obs_intervals" not in units or "obs_intervals_index" not in units:
        return None
    intervals = read_dataset(units["obs_intervals"], path).astype(np.float64).reshape(-1, 2)
    intervals = np.where(np.isnan(intervals), [-np.inf, np.inf], intervals)  # NaN: open end
    index = read_ragged_index(units, "obs_intervals_index", path, len(intervals))
    if len(index) != n_units + 1:
        raise UserError(f"{path}: units/obs_intervals_index has {len(index) - 1} rows; expected {n_units}, the number of units.")
    return (intervals, index) if len(intervals) else None


def _units(file: Any, units: Any, path: Path, n_units: int, options: Options) -> tuple[dict[str, np.ndarray], list[str]]:
    """Columns of the units, among them id, region and probe, and notes."""
    notes: list[str] = []
    columns = {name: each for name, each in read_plain_columns(units, path).items() if len(each) == n_units}
    columns.setdefault("id", np.arange(n_units))
    table = file.get("general/extracellular_ephys/electrodes")
    electrodes = read_plain_columns(table, path) if is_group(table) else {}
    row = _electrode_rows(units, columns, electrodes, path)
    electrode_columns = {name: _values_at_rows(each, row) for name, each in electrodes.items()}
    group_names, group_locations = _electrode_groups(file, units, path)
    columns.update({name: columns[names[0]] for name, names in _alf_names(columns)})
    if (chosen := options.region_column) is not None:
        where = f"the units or electrodes of {path}"
        query.require_column(chosen, [*columns, *electrode_columns], f"region_column={chosen}", where)
        region = columns.get(chosen, electrode_columns.get(chosen))
    else:
        region = _first_column((columns, electrode_columns), REGION_COLUMNS, group_locations)
    probe = group_names if group_names is not None else _first_column((columns, electrode_columns), PROBE_COLUMNS)
    if region is None:
        notes.append("contains no brain regions")
    for name, each in (("region", region), ("probe", probe)):
        if each is not None:
            columns[name] = np.array([str(value) for value in each], dtype=object)
    return columns, notes


def _first_column(tables: Sequence[Mapping[str, np.ndarray]], names: Sequence[str], default: np.ndarray | None = None) -> np.ndarray | None:
    """First column with one of the names, searched table by table; `default` if there is none."""
    return next((table[name] for table in tables for name in names if name in table), default)


def _electrode_rows(units: Any, columns: Mapping[str, np.ndarray], electrodes: Mapping[str, np.ndarray], path: Path) -> np.ndarray:
    """Row of the electrode with the largest spikes of each unit, or of its first electrode, [U]; -1 if unknown."""
    n_units, n_rows = len(columns["id"]), len(next(iter(electrodes.values()), ()))
    row = np.full(n_units, -1)
    if "max_electrode" in columns:
        row = query.as_numbers(columns["max_electrode"])
    elif "peak_channel_id" in columns and "id" in electrodes:
        row_of_id = {int(each): number for number, each in enumerate(electrodes["id"])}
        row = np.array([row_of_id.get(int(each), -1) if np.isfinite(each) else -1 for each in query.as_numbers(columns["peak_channel_id"])])
    elif "electrodes" in units and "electrodes_index" in units:
        listed = read_dataset(units["electrodes"], path)
        index = read_ragged_index(units, "electrodes_index", path, len(listed))
        nonempty = np.diff(index) > 0
        row[nonempty] = listed[index[:-1][nonempty]]
    elif "electrodes" in columns:
        row = query.as_numbers(columns["electrodes"])
    row = np.where(np.isfinite(row), row, -1).astype(np.int64) if len(row) == n_units else np.full(n_units, -1)
    return np.where(row < n_rows, row, -1)


def _values_at_rows(column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Values of a column at the given rows; "" for row -1."""
    out = np.full(len(row), "", dtype=object)
    out[row >= 0] = column[row[row >= 0]]
    return out


def _electrode_groups(file: Any, units: Any, path: Path) -> tuple[np.ndarray | None, np.ndarray | None]:
    """([U] name of the electrode group of each unit, [U] location of the group), or None for each if unknown."""
    stored = units.get("electrode_group")
    if not is_dataset(stored) or h5py.check_ref_dtype(stored.dtype) is None:
        return None, None
    found = [file[reference] if reference else None for reference in read_dataset(stored, path)]
    names = ["" if each is None else each.name.rpartition("/")[2] for each in found]
    locations = ["" if each is None else str(each.attrs.get("location", "")) for each in found]
    return np.array(names, dtype=object), np.array(locations, dtype=object) if any(locations) else None


def _trials(file: Any, path: Path, options: Options) -> tuple[dict[str, np.ndarray], str]:
    """Columns of the trials, and the name of their table of intervals."""
    tables = [name for name in file.get("intervals", {}) if is_group(file["intervals"][name])]
    name = options.trials_table or "trials"
    if options.trials_table is not None:
        query.require_column(name, tables, f"trials_table={name}", f"the intervals of {path}")
    elif name not in tables:
        others = f", or trials_table={joined(sorted(tables), 'or')}" if tables else ""
        raise UserError(f"{path}: has no trials; expected the table intervals/trials{others}.")
    columns = read_plain_columns(file["intervals"][name], path)
    columns.update({alf: columns[names[0]] for alf, names in _alf_names(columns)})
    if {"gabor_stimulus_side", "gabor_stimulus_contrast"} <= columns.keys():
        contrast = query.as_numbers(columns["gabor_stimulus_contrast"]) / 100
        for alf, side in (("contrastLeft", "left"), ("contrastRight", "right")):
            columns.setdefault(alf, np.where(columns["gabor_stimulus_side"] == side, contrast, np.nan))
    if "is_mouse_rewarded" in columns:
        columns.setdefault("feedbackType", np.where(columns["is_mouse_rewarded"].astype(bool), 1.0, -1.0))
    return columns, name


def _alf_names(columns: Mapping[str, np.ndarray]) -> list[tuple[str, list[str]]]:
    """(ALF name, names in the file) of the columns that are in the file under other names than in ALF."""
    found = [(alf, [name for name in names if name in columns]) for alf, names in IBL_COLUMNS.items() if alf not in columns]
    return [(alf, names) for alf, names in found if names]


def _event_paths(file: Any, trials: str) -> dict[str, str]:
    """Path in the file of each series of events, by its name; series with equal names are named by more of their paths."""
    paths: list[str] = []
    for group_path in EVENT_GROUPS:
        if is_group(top := file.get(group_path)):
            paths += _timestamp_paths(top, MAX_GROUP_DEPTH)
    names = [path.split("/")[-2] for path in paths]
    long_names = ["/".join(path.split("/")[2:-1]) for path in paths]
    found = {(name if names.count(name) == 1 else long_name): path for name, long_name, path in zip(names, long_names, paths, strict=True)}
    for table in file.get("intervals", {}):
        for column in ("start_time", "stop_time"):
            if table != trials and f"intervals/{table}/{column}" in file:
                found[f"{table}.{column}"] = f"/intervals/{table}/{column}"
    return found


def _timestamp_paths(group: Any, depth: int) -> list[str]:
    """Paths of the timestamps below a group."""
    found = []
    for name in group:
        item = group.get(name)
        if is_group(item) and depth:
            found += [f"{group.name}/{name}{below[len(item.name) :]}" for below in _timestamp_paths(item, depth - 1)]
        elif is_dataset(item) and name in ("timestamps", "timestamp") and item.ndim == 1 and item.dtype.kind in "iuf":
            found.append(f"{group.name}/{name}")
    return found
