"""Sessions in ALF, as the International Brain Laboratory and Steinmetz et al. (2019) have them: files named object.attribute.

The spikes (spikes.times, spikes.clusters, and clusters.* and channels.* beside them) are in one folder for each probe in alf/, in alf/
itself, or in the folder of the session; the trials in alf/_ibl_trials.table.pqt, in one .npy file per attribute (trials.intervals.npy),
or in `trials_table`. A probe folder alone is read with the trials of its session. Of several revisions (#2024-05-06#), the newest.
Columns of the units: id (probe:cluster, or cluster if the spikes are in no probe folder), cluster, probe, region if channels or clusters
have one, label (share of quality metrics passed, from clusters.metrics), the other metrics, and clusters.* with one value for each.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rlsnet.data import time_units
from rlsnet.data.formats import spike_grouping, table_files
from rlsnet.data.formats.array_names import ArrayNames
from rlsnet.data.import_options import Options
from rlsnet.data.session import Session
from rlsnet.errors import UserError, joined
from rlsnet.io import npz_files

SORTERS = ("iblsorter", "pykilosort", "")  # folders of a probe; the first that exists is used, else the only other one with spikes
REVISION = re.compile(r"#[^#]+#")
FILE = re.compile(  # (namespace) object . attribute (timescale) (. uuid or other parts) . extension
    r"(?:_(?P<space>[a-z]+)_)?(?P<object>[A-Za-z]+)\.(?P<attribute>_?[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9_]+)?)(?:\.[\w-]+)*"
    r"\.(?P<ext>npy|pqt|tsv)"
)
ACRONYM_FILES = ("brainLocationAcronyms_ccf_2017", "brainLocationAcronyms", "acronym", "acronyms", "allen_ontology")
REGION_NUMBER_FILE = "brainLocationIds_ccf_2017"
MAX_LEVELS = 3  # folders between the spikes and their session, as in alf/probe00/pykilosort


def matches(path: Path) -> bool:
    """Whether a source is the folder of a session, its folder alf, or the folder of a probe."""
    return path.is_dir() and bool(_files(_alf(path), "trials") or list(_probes(_alf(path))))


def read(path: Path, options: Options) -> Session:
    """Session in a folder with the units of all probes; raises UserError if files are missing, damaged or do not fit together."""
    alf = _alf(path)
    if not alf.is_dir():
        raise UserError(f"{path}: no such folder; expected a session with a folder alf.")
    trials, trial_note = _trials(path, alf, options)
    rate = ArrayNames(path, {}, options.variables or {}).positive_number("sample_rate")
    probes = [_probe(name, folder, options, rate) for name, folder in _probes(alf)]
    if not probes:
        raise UserError(
            f"{alf}: has no spikes; expected spikes.times.npy and spikes.clusters.npy there or in a folder for each probe, such as probe00."
        )
    times = np.concatenate([probe[0] for probe in probes])
    starts = np.cumsum([0, *(len(probe[0]) for probe in probes)])
    index = np.concatenate([[0], *(probe[1][1:] + start for probe, start in zip(probes, starts[:-1], strict=True))]).astype(np.int64)
    licks = {"licks": np.sort(table_files.load_npy(file).reshape(-1))} if (file := _files(alf, "licks").get("times")) else {}
    notes = tuple(note for probe in probes for note in probe[3])
    units = _pooled_columns([probe[2] for probe in probes])
    return Session(_name(alf), path, times, index, units, trials, licks, notes=(*notes, *trial_note), sample_rate=rate)


def _alf(path: Path) -> Path:
    """Folder alf of a session, or the path itself if it is that folder."""
    return path / "alf" if (path / "alf").is_dir() else path


def _name(alf: Path) -> str:
    """Name subject/date/number of the session of a folder, or the name of its folder if it is not in such folders."""
    folder = alf.resolve()
    session = next((each.parent for each in [folder, *list(folder.parents)[:MAX_LEVELS]] if each.name == "alf"), folder)
    parts = session.parts
    dated = len(parts) > 3 and re.fullmatch(r"\d{4}-\d\d-\d\d", parts[-2])
    return "/".join(parts[-3:]) if dated else parts[-1]


def _files(folder: Path, object_name: str) -> dict[str, Path]:
    """Newest revision of each attribute of an object, by attribute."""
    found: dict[str, Path] = {}
    revisions = sorted(each for each in folder.glob("#*#") if each.is_dir() and REVISION.fullmatch(each.name))
    for where in [folder, *revisions]:
        for file in sorted(where.iterdir()) if where.is_dir() else ():
            parts = FILE.fullmatch(file.name)
            if parts is not None and parts["object"] == object_name:
                found[parts["attribute"]] = file
    return found


def _probes(alf: Path) -> Iterator[tuple[str, Path]]:
    """(name, folder with the spikes) of each probe; the name is empty for spikes that are in no folder of a probe.

    Raises:
      UserError: a probe has several sorters, none of them one of SORTERS, or there are spikes beside the folders of probes too.
    """
    if alf.is_dir() and (sorter := _sorter(alf)) is not None:
        others = [each for each in _folders(alf) if sorter == alf and _sorter(each) is not None]
        if others:
            raise UserError(f"{alf}: has spikes, and its folder {others[0].name} too; expected one of the two, or {others[0]} as source.")
        yield _probe_name(alf), sorter
        return
    for probe in _folders(alf):
        if (sorter := _sorter(probe)) is not None:
            yield probe.name, sorter


def _folders(folder: Path) -> list[Path]:
    """Folders in a folder, in order, without revisions and without sessions of their own."""
    below = sorted(each for each in folder.iterdir() if each.is_dir()) if folder.is_dir() else []
    return [each for each in below if not REVISION.fullmatch(each.name) and not _files(each, "trials") and not (each / "alf").is_dir()]


def _sorter(probe: Path) -> Path | None:
    """Folder with the spikes of a probe: itself, or that of its sorter; None without spikes."""
    if found := [folder for name in SORTERS if _has_spikes(folder := probe / name)]:
        return found[0]
    others = [each for each in _folders(probe) if _has_spikes(each)] if probe.parent.name == "alf" or probe.name.startswith("probe") else []
    if len(others) > 1:
        raise UserError(f"{probe}: has spikes of several sorters; expected one of them as source: {joined(others, 'or')}.")
    return others[0] if others else None


def _has_spikes(folder: Path) -> bool:
    """Whether a folder contains spikes."""
    return bool({"times", "clusters"} & set(_files(folder, "spikes")))


def _probe_name(folder: Path) -> str:
    """Name of the probe of a folder of spikes, or an empty text if it is not the folder of a probe."""
    folder = folder.resolve()
    folder = folder.parent if folder.name in SORTERS else folder
    return folder.name if folder.name.startswith("probe") or folder.parent.name == "alf" else ""


def _trials(path: Path, alf: Path, options: Options) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """(columns, note) of the trials: `trials_table`, else the table and the attributes in files of their own."""
    if options.trials_table is not None:
        columns, note = table_files.require_trials(path, options.trials_table)
        return columns, (note,)
    folder, files = _trial_files(path, alf)
    if not files:
        if (found := table_files.trials_table(path, None)) is not None:
            return found[0], (f"trials from {found[1].name}",)
        raise UserError(
            f"{alf}: has no trials; expected _ibl_trials.table.pqt, or trials.intervals.npy and others, or trials_table=FILE.csv with"
            " columns start_time, stop_time in s, ..."
        )
    columns = table_files.read_table(files["table"]) if "table" in files else {}
    for attribute, file in files.items():
        if file.suffix == ".npy" and attribute not in columns:
            values = table_files.load_npy(file)
            columns[attribute] = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    notes = () if folder == alf else (f"trials from {folder}",)
    return table_files.trial_columns(files.get("table", folder), columns), notes


def _trial_files(path: Path, alf: Path) -> tuple[Path, dict[str, Path]]:
    """(folder, files) of the trials: in alf, in a folder of its tasks, in the session, or above the folder of a probe."""
    folders = [alf, *sorted(alf.glob("task_*")), path]
    above = list(alf.resolve().parents)[:MAX_LEVELS]
    folders += above[: 1 + next((level for level, each in enumerate(above) if each.name == "alf"), -1)] or above[:1]
    return next(((folder, files) for folder in folders if (files := _files(folder, "trials"))), (alf, {}))


def _probe(
    name: str, folder: Path, options: Options, rate: float | None
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], tuple[str, ...]]:
    """(times, index, columns, notes) of the units of a probe, including those without spikes; `rate` is a sample rate in Hz."""
    files = _files(folder, "spikes")
    for attribute in ("times", "clusters"):
        if attribute not in files:
            raise UserError(f"{folder}: has no spikes.{attribute}.npy; expected spikes.times.npy and spikes.clusters.npy.")
    times, clusters = (table_files.load_npy(files[attribute]).reshape(-1) for attribute in ("times", "clusters"))
    said = time_units.unit_of_spikes(options) is not None
    if times.dtype.kind not in ("fiu" if said else "f") or clusters.dtype.kind not in "iuf":
        raise UserError(
            f"{folder}: spikes.times contains {times.dtype}, spikes.clusters {clusters.dtype}; expected times in s, or in the unit that"
            " time_unit.spikes=samples gives, and integers."
        )
    times, notes = time_units.spike_seconds(folder, times, options, rate, stated="s")
    times, index, ids = spike_grouping.group_by_unit(folder, times, clusters)
    columns, skipped = _attributes(folder, "clusters")
    rows = max([len(values) for values in columns.values()], default=0)
    index, ids = spike_grouping.insert_silent_units(index, ids, np.arange(rows))
    own = {attribute: values for attribute, values in columns.items() if len(values) == rows}
    units = spike_grouping.rows_of_units(own, np.arange(rows), ids) | _metrics(folder, ids)
    region, note = _region(folder, units)
    own_id, probe = ids, units.get("probes")
    if name:
        own_id, probe = np.array([f"{name}:{each}" for each in ids], object), np.full(len(ids), name, object)
    units = {"id": own_id, "cluster": ids} | ({} if probe is None else {"probe": probe}) | units
    all_notes = [f"{name}: {each}" if name else each for each in (*notes, *skipped, *note)]
    return times, index, units | ({} if region is None else {"region": region}), tuple(all_notes)


def _attributes(folder: Path, object_name: str) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """(attributes of an object with one axis, notes about pickled files, which are never read)."""
    out, notes = {}, []
    for attribute, file in _files(folder, object_name).items():
        if file.suffix != ".npy":
            continue
        if _is_pickled(file):
            notes.append(f"{file.name} is pickled and not read")
            continue
        values = table_files.load_npy(file)
        if values.ndim == 1 or values.shape[1:] == (1,):
            out[attribute] = table_files.as_column(values.reshape(-1))
    return out, tuple(notes)


def _is_pickled(file: Path) -> bool:
    """Whether a .npy file contains Python objects."""
    with table_files.one_line_errors(file), file.open("rb") as stream:
        return npz_files.npy_header(stream)[1].hasobject


def _metrics(folder: Path, ids: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of clusters.metrics for the units, matched by its column cluster_id, or else by row."""
    file = _files(folder, "clusters").get("metrics")
    if file is None or file.suffix != ".pqt":
        return {}
    table = table_files.read_table(file)
    table_files.check_lengths(file, table)
    key = table.pop("cluster_id", np.arange(len(next(iter(table.values()), ()))))
    return spike_grouping.rows_of_units({name: values for name, values in table.items() if values.ndim == 1}, key.astype(np.int64), ids)


def _region(folder: Path, units: dict[str, np.ndarray]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Brain region of each unit, as an acronym or as a number of the Allen atlas.

    Args:
      folder: of the spikes.
      units: columns of the units.

    Returns:
      ([U] texts, or None if no file contains regions; notes).
    """
    channels, skipped = _attributes(folder, "channels")
    if not channels and folder.parent.name.startswith("probe"):  # channels may be beside the folder of the sorter
        channels, skipped = _attributes(folder.parent, "channels")
    table = _files(folder, "channels").get("brainLocation")
    channels |= table_files.read_table(table) if table is not None and table.suffix == ".tsv" else {}
    channel, counted = _channels_of_units(units)
    for name in ACRONYM_FILES:
        if name in units:
            return units[name].astype(str).astype(object), ()
        if name in channels and channel is not None:
            return _channel_values_of_units(channels[name].astype(str).astype(object), channel), counted
    numbers = units.get(REGION_NUMBER_FILE)
    if numbers is None and REGION_NUMBER_FILE in channels and channel is not None:
        numbers = _channel_values_of_units(channels[REGION_NUMBER_FILE], channel)
    if numbers is None or numbers.dtype.kind not in "fiu":
        return None, skipped
    texts = ["" if not math.isfinite(each) else str(abs(int(each))) for each in numbers.tolist()]  # negative in the left hemisphere
    return np.array(texts, object), (*skipped, "regions are numbers of the Allen atlas, as there are no acronyms")


def _channels_of_units(units: dict[str, np.ndarray]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """([U] channel of each unit from 0, or None; note): clusters.channels, or clusters.peakChannel, which Steinmetz et al. count from 1."""
    if "channels" in units:
        return units["channels"], ()
    if "peakChannel" not in units or units["peakChannel"].dtype.kind not in "fiu":
        return None, ()
    first = 0 if np.any(units["peakChannel"] == 0) else 1
    return units["peakChannel"] - first, (f"regions are those of clusters.peakChannel, counted from {first}",)


def _channel_values_of_units(values: np.ndarray, channel: np.ndarray) -> np.ndarray:
    """Values of a column of channels for the channel of each unit; '' or NaN for a unit without one."""
    return spike_grouping.rows_of_units({"": values}, np.arange(len(values)), channel)[""]


def _pooled_columns(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Columns of the units of all probes; a column that a probe lacks is NaN there, or '' for texts."""
    out = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        kinds = {part[name].dtype.kind for part in parts if name in part}
        text = bool(kinds & set("OU"))
        filled = []
        for part in parts:
            missing = np.full(len(part["id"]), "" if text else np.nan, object if text else np.float64)
            filled.append(part[name].astype(object) if text and name in part else part.get(name, missing))
        out[name] = np.concatenate(filled)
    return out
