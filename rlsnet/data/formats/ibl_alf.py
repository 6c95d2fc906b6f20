"""Sessions of the International Brain Laboratory in ALF: a folder of .npy and .pqt files named object.attribute.

The trials are read from alf/_ibl_trials.table.pqt (or from one .npy file per attribute, in older sessions), the units from
spikes.times, spikes.clusters and clusters.* of each probe; of several revisions (#2024-05-06#), the newest. Columns of the units:
id (probe:cluster), cluster, probe, region if channels or clusters have one, label (share of quality metrics passed, from
clusters.metrics) and the other metrics.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rlsnet.data import time_units
from rlsnet.data.formats import spike_grouping, table_files
from rlsnet.data.import_options import Options
from rlsnet.data.session import Session
from rlsnet.errors import UserError

SORTERS = ("iblsorter", "pykilosort", "")  # folders of a probe; the first that exists is used
REVISION = re.compile(r"#[^#]+#")
FILE = re.compile(  # (namespace) object . attribute (timescale) (. uuid or other parts) . extension
    r"(?:_(?P<space>[a-z]+)_)?(?P<object>[A-Za-z]+)\.(?P<attribute>[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9_]+)?)(?:\.[\w-]+)*\.(?P<ext>npy|pqt)"
)
ACRONYM_FILES = ("brainLocationAcronyms_ccf_2017", "brainLocationAcronyms", "acronym", "acronyms")
REGION_NUMBER_FILE = "brainLocationIds_ccf_2017"


def matches(path: Path) -> bool:
    """Whether a source is the folder of a session, or its folder alf."""
    return path.is_dir() and bool(_files(_alf(path), "trials") or list(_probes(_alf(path))))


def read(path: Path, options: Options) -> Session:
    """Session in a folder with the units of all probes; raises UserError if files are missing, damaged or do not fit together."""
    alf = _alf(path)
    if not alf.is_dir():
        raise UserError(f"{path}: no such folder; expected a session with a folder alf.")
    trials = _trials(path, alf)
    probes = [_probe(name, folder, options) for name, folder in _probes(alf)]
    if not probes:
        raise UserError(f"{alf}: has no spikes; expected probe00/spikes.times.npy, or probe00/pykilosort/spikes.times.npy.")
    times = np.concatenate([probe[0] for probe in probes])
    starts = np.cumsum([0, *(len(probe[0]) for probe in probes)])
    index = np.concatenate([[0], *(probe[1][1:] + start for probe, start in zip(probes, starts[:-1], strict=True))]).astype(np.int64)
    licks = {"licks": np.sort(table_files.load_npy(file).reshape(-1))} if (file := _files(alf, "licks").get("times")) else {}
    notes = tuple(note for probe in probes for note in probe[3])
    return Session(_name(alf.parent), path, times, index, _pooled_columns([probe[2] for probe in probes]), trials, licks, notes=notes)


def _alf(path: Path) -> Path:
    """Folder alf of a session, or the path itself if it is that folder."""
    return path / "alf" if (path / "alf").is_dir() else path


def _name(session: Path) -> str:
    """Name subject/date/number of a session, or the name of its folder if it is not in such folders."""
    parts = session.resolve().parts
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
    """(name, folder with the spikes) of each probe."""
    for probe in sorted(alf.glob("probe*")):
        for sorter in SORTERS:
            if "times" in _files(probe / sorter, "spikes") or "clusters" in _files(probe / sorter, "spikes"):
                yield probe.name, probe / sorter
                break


def _trials(path: Path, alf: Path) -> dict[str, np.ndarray]:
    """Columns of the trials: those of the table, and the attributes in files of their own."""
    files = _files(alf, "trials")
    for task in sorted(alf.glob("task_*")) if not files else ():
        files = files or _files(task, "trials")
    if not files:
        raise UserError(f"{alf}: has no trials; expected _ibl_trials.table.pqt, or _ibl_trials.intervals.npy and others.")
    columns = table_files.read_table(files["table"]) if "table" in files else {}
    for attribute, file in files.items():
        if file.suffix == ".npy" and attribute not in columns:
            values = table_files.load_npy(file)
            columns[attribute] = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    return table_files.trial_columns(files.get("table", alf), columns)


def _probe(name: str, folder: Path, options: Options) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], tuple[str, ...]]:
    """(times, index, columns, notes) of the units of a probe, including those without spikes."""
    files = _files(folder, "spikes")
    for attribute in ("times", "clusters"):
        if attribute not in files:
            raise UserError(f"{folder}: has no spikes.{attribute}.npy; expected spikes.times.npy and spikes.clusters.npy.")
    times, clusters = (table_files.load_npy(files[attribute]).reshape(-1) for attribute in ("times", "clusters"))
    if times.dtype.kind != "f" or clusters.dtype.kind not in "iu":
        raise UserError(
            f"{folder}: spikes.times contains {times.dtype}, spikes.clusters {clusters.dtype}; expected times in s, and integers."
        )
    times, notes = time_units.spike_seconds(folder, times, options, stated="s")
    times, index, ids = spike_grouping.group_by_unit(folder, times, clusters)
    columns, skipped = _attributes(folder, "clusters")
    rows = max([len(values) for values in columns.values()], default=0)
    index, ids = spike_grouping.insert_silent_units(index, ids, np.arange(rows))
    own = {attribute: values for attribute, values in columns.items() if len(values) == rows}
    units = spike_grouping.rows_of_units(own, np.arange(rows), ids) | _metrics(folder, ids)
    region, note = _region(folder, units)
    units = {"id": np.array([f"{name}:{each}" for each in ids], object), "cluster": ids, "probe": np.full(len(ids), name, object)} | units
    all_notes = [f"{name}: {each}" for each in (*notes, *skipped, *note)]
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
        if values.ndim == 1:
            out[attribute] = table_files.as_column(values)
    return out, tuple(notes)


def _is_pickled(file: Path) -> bool:
    """Whether a .npy file contains Python objects."""
    with table_files.one_line_errors(file), file.open("rb") as stream:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return header(stream)[2].hasobject


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
    for name in ACRONYM_FILES:
        if name in units:
            return units[name].astype(str).astype(object), ()
        if name in channels and "channels" in units:
            return _channel_values_of_units(channels[name].astype(str).astype(object), units["channels"]), ()
    numbers = units.get(REGION_NUMBER_FILE)
    if numbers is None and REGION_NUMBER_FILE in channels and "channels" in units:
        numbers = _channel_values_of_units(channels[REGION_NUMBER_FILE], units["channels"])
    if numbers is None or numbers.dtype.kind not in "fiu":
        return None, skipped
    texts = ["" if not math.isfinite(each) else str(abs(int(each))) for each in numbers.tolist()]  # negative in the left hemisphere
    return np.array(texts, object), (*skipped, "regions are numbers of the Allen atlas, as there are no acronyms")


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
