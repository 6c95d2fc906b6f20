"""Folders that Kilosort writes and Phy edits: spikes in samples, their clusters, labels of clusters.

Columns of the units: id (the cluster), label, channel and depth, and the columns of the cluster_*.tsv files (group, KSLabel,
Amplitude, ...). Trials come from the table `trials_table`, or trials.csv in the folder, in s on the same clock. No library of
Kilosort or Phy is needed.
"""

from __future__ import annotations

import ast
import contextlib
import math
import re
import warnings
from pathlib import Path

import numpy as np

from rlsnet.data import time_units
from rlsnet.data.formats import spike_grouping, table_files
from rlsnet.data.formats.array_names import ArrayNames
from rlsnet.data.import_options import Options
from rlsnet.data.session import Session
from rlsnet.errors import UserError

CLUSTER_COLUMNS = ("cluster_id", "id")  # column with the clusters in cluster_*.tsv
LABEL_COLUMNS = ("group", "KSLabel", "label")  # columns that may contain labels, in this order, unless `labels` names one
UNSORTED = "unsorted"  # label in Phy of clusters without a judgement
GENERIC_FOLDERS = re.compile(  # names of folders that do not identify a session
    r"(kilosort|ks|phy)[\d._]*|sorter_output|sorting|output|results"
)


def matches(path: Path) -> bool:
    """Whether a source is a folder with spikes and their clusters."""
    return path.is_dir() and any((path / name).is_file() for name in ("spike_clusters.npy", "spike_templates.npy", "params.py"))


def read(path: Path, options: Options) -> Session:
    """Session in a folder; raises UserError if files are missing, damaged or do not fit together."""
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; expected a folder of Kilosort or Phy with spike_times.npy and spike_clusters.npy.")
    samples, clusters, notes = _spikes(path, options)
    rate = ArrayNames(path, {}, options.variables or {}).positive_number("sample_rate")
    if rate is None and ((path / "params.py").is_file() or time_units.unit_of_spikes(options) in (None, "samples")):
        rate = _sample_rate(path / "params.py")
    times, time_notes = time_units.spike_seconds(path / "spike_times.npy", samples, options, rate, "samples")
    times, index, ids = spike_grouping.group_by_unit(path, times, clusters)
    columns, column_notes = _columns(path, ids, options.labels)
    units = {"id": ids} | _channels_and_depths(path, clusters, ids, columns) | columns
    trials, note = table_files.require_trials(path, options.trials_table)
    folder = path.resolve()
    name = f"{folder.parent.name}/{folder.name}" if GENERIC_FOLDERS.fullmatch(folder.name.lower()) else folder.name
    return Session(
        name,
        path,
        times,
        index,
        units,
        trials,
        notes=(*notes, *time_notes, *column_notes, note),
        sample_rate=rate,
        trials_path=table_files.trials_path(path, options.trials_table),
    )


def _spikes(path: Path, options: Options) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """([spikes] times as stored, [spikes] clusters, notes); before Phy has edited the folder, clusters are the templates."""
    name = "spike_clusters.npy" if (path / "spike_clusters.npy").is_file() else "spike_templates.npy"
    for each in ("spike_times.npy", name):
        if not (path / each).is_file():
            raise UserError(f"{path}: has no {each}; expected spike_times.npy and spike_clusters.npy, as Kilosort writes them.")
    times, clusters = (table_files.as_column(table_files.load_npy(path / each)) for each in ("spike_times.npy", name))
    for each, values in (("spike_times.npy", times), (name, clusters)):
        if values.ndim != 1 or values.dtype.kind not in "fiu":
            raise UserError(f"{path / each}: contains {values.dtype} {list(values.shape)}; expected one number for each spike.")
    fractions = times.dtype.kind == "f" and not np.all(times == np.floor(times), where=np.isfinite(times))
    if fractions and time_units.chosen_unit(options, "spikes") is None:
        raise UserError(
            f"{path / 'spike_times.npy'}: contains fractions; expected samples, which are whole numbers, or time_unit.spikes=s."
        )
    return times, clusters, () if name == "spike_clusters.npy" else ("no spike_clusters.npy: units are the templates",)


def _sample_rate(path: Path) -> float:
    """Sample rate in Hz from params.py, which is parsed and never run; raises UserError if it is not there."""
    if not path.is_file():
        raise UserError(f"{path}: no such file, so the sample rate is unknown; expected variables.sample_rate=30000.")
    rate = math.nan
    with contextlib.suppress(ValueError, TypeError, SyntaxError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about backslashes in paths
        for line in ast.parse(re.sub(r"(?m)^(\s*\w+\s*=\s*)(['\"])", r"\1r\2", path.read_text(encoding="utf-8", errors="replace"))).body:
            if isinstance(line, ast.Assign) and "sample_rate" in map(ast.unparse, line.targets):
                rate = float(ast.literal_eval(line.value))  # the last one counts
    if math.isfinite(rate) and rate > 0:
        return rate
    raise UserError(f"{path}: has no line sample_rate = 30000.; expected such a line, or variables.sample_rate=30000.")


def _cluster_tables(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Tables with a column of clusters, by file name; cluster_info, which repeats the others, first."""
    files = sorted({*path.glob("cluster*.tsv"), *path.glob("cluster*.csv")}, key=lambda file: (not file.stem.endswith("info"), file.name))
    found = {file.name: table_files.read_table(file) for file in files}
    return {name: table for name, table in found.items() if set(CLUSTER_COLUMNS) & set(table) and len(next(iter(table.values())))}


def _columns(path: Path, ids: np.ndarray, labels: str | None) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """([U] columns of the clusters with spikes, with `label`, and notes)."""
    columns: dict[str, np.ndarray] = {}
    listed: set[int] = set()
    for name, table in _cluster_tables(path).items():
        key_name = next(key for key in CLUSTER_COLUMNS if key in table)
        key = table[key_name]
        if key.dtype.kind not in "iu":
            raise UserError(f"{path / name}: column {key_name} contains no integers; expected the numbers of clusters.")
        listed |= set(key.tolist())
        columns |= spike_grouping.rows_of_units(
            {column: values for column, values in table.items() if column not in CLUSTER_COLUMNS}, key, ids
        )
    silent = len(listed - set(ids.tolist()))
    notes = (f"{silent:,} clusters of the tables have no spikes, as after a merge; they are left out",) if silent else ()
    label, note = _label(path, columns, labels, len(ids))
    return columns | {"label": label}, (*notes, *note)


def _label(path: Path, columns: dict[str, np.ndarray], chosen: str | None, units: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """([U] label of each unit, note about its origin); raises UserError if the chosen column does not exist."""
    if chosen is not None:
        if chosen not in columns:
            have = ", ".join(columns) or "none"
            raise UserError(f"labels={chosen}: the cluster_*.tsv files of {path} have no such column; they have {have}.")
        return _label_texts(columns[chosen]), ()
    for name in LABEL_COLUMNS:
        values = _label_texts(columns[name]) if name in columns else np.zeros(0, object)
        if np.any(values != UNSORTED):
            return values, (f"label is {name} of the cluster tables",)
    why = "all clusters are unsorted" if "group" in columns else "there is no cluster_group.tsv or cluster_KSLabel.tsv"
    return np.full(units, UNSORTED, object), (f"{why}: label is {UNSORTED}",)


def _label_texts(values: np.ndarray) -> np.ndarray:
    """Labels as texts, `unsorted` for clusters without one; numbers are unchanged."""
    if values.dtype.kind == "f" and np.isnan(values).all():
        values = np.full(len(values), "", object)
    return np.array([each or UNSORTED for each in values], object) if values.dtype.kind == "O" else values


def _channels_and_depths(path: Path, clusters: np.ndarray, ids: np.ndarray, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns channel and depth (um along the probe), from cluster_info.tsv or from the most frequent template of each cluster.

    Args:
      path: of the folder.
      clusters: [spikes] cluster of each spike.
      ids: [U] clusters of the units.
      columns: of the units, from the cluster tables.
    """
    names = {"channel": ("channel", "ch"), "depth": ("depth",)}
    found = {to: columns[name] for to, options in names.items() for name in options if name in columns}
    files = [path / f"{name}.npy" for name in ("spike_templates", "templates", "channel_positions")]
    if len(found) == 2 or not all(file.is_file() for file in files):
        return found
    templates = table_files.as_column(table_files.load_npy(files[0])).astype(np.int64)
    shapes, positions = table_files.load_npy(files[1]), table_files.load_npy(files[2])
    if templates.shape != clusters.shape or shapes.ndim != 3 or positions.ndim != 2 or not templates.size or templates.max() >= len(shapes):
        return found
    channel = _peak_channels(path, shapes)[_most_frequent_templates(clusters, ids, templates, len(shapes))]
    depth = np.where(channel < len(positions), positions[np.minimum(channel, len(positions) - 1), 1], np.nan)
    return {"channel": _recorded_channels(path, channel), "depth": depth} | found


def _peak_channels(path: Path, shapes: np.ndarray) -> np.ndarray:
    """Channel with the largest amplitude of each template, from its waveforms [templates, time, channels]."""
    peak = np.ptp(shapes, axis=1).argmax(axis=1)
    for file in path.glob("template*_ind.npy"):  # channels of the waveforms, if they have only some of all channels
        if (channels := table_files.load_npy(file)).shape == shapes.shape[::2]:
            peak = channels[np.arange(len(peak)), peak].astype(np.int64)
    return peak


def _most_frequent_templates(clusters: np.ndarray, ids: np.ndarray, templates: np.ndarray, n_templates: int) -> np.ndarray:
    """Template with the most spikes of each cluster, [U], from the cluster and the template of each spike, [spikes]."""
    pairs, counts = np.unique(np.searchsorted(ids, clusters) * n_templates + templates, return_counts=True)
    order = np.argsort(counts, kind="stable")  # the most frequent template of a cluster is written last
    found = np.zeros(len(ids), np.int64)
    found[pairs[order] // n_templates] = pairs[order] % n_templates
    return found


def _recorded_channels(path: Path, channel: np.ndarray) -> np.ndarray:
    """Channels of the sorted recording, from rows of the probe."""
    if not (path / "channel_map.npy").is_file():
        return channel
    sites = table_files.as_column(table_files.load_npy(path / "channel_map.npy"))
    return sites[channel] if sites.size and channel.max(initial=0) < len(sites) else channel
