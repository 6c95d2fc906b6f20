"""SONATA: spikes of one or several populations of nodes, /spikes/POPULATION/timestamps and node_ids, as BMTK, NEST and rlsnet write.

A source is the file of spikes, or a folder with spikes.h5, such as an export of rlsnet. Times are in ms unless the attribute `units`
of timestamps says otherwise. The nodes in nodes.h5 or network/nodes.h5 of the folder are units too if they have no spikes. Trials come
from `trials_table`, or trials.csv in the folder. Columns of the units: id (the node, or population:node of several), population.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from rlsnet.data import time_units
from rlsnet.data.formats import hdf5, spike_grouping, table_files
from rlsnet.data.formats.array_names import ArrayNames
from rlsnet.data.import_options import Options
from rlsnet.data.session import Session
from rlsnet.errors import UserError

SPIKES = "spikes.h5"
NODES = ("nodes.h5", "network/nodes.h5")
IDS = ("node_ids", "gids")  # gids in older files


def matches(path: Path) -> bool:
    """Whether a source is a file of spikes in SONATA, or a folder with one."""
    file = path / SPIKES if path.is_dir() else path
    if file.suffix.lower() not in hdf5.EXTENSIONS or not file.is_file() or not h5py.is_hdf5(file):
        return False
    with contextlib.suppress(OSError), h5py.File(file, "r") as opened:
        return bool(_populations(opened))
    return False


def read(path: Path, options: Options) -> Session:
    """Session in a file or folder; raises UserError if there are no spikes or trials, or the file is damaged."""
    file = path / SPIKES if path.is_dir() else path
    rate = ArrayNames(path, {}, options.variables or {}).positive_number("sample_rate")
    with hdf5.opened(file) as opened:
        populations = _populations(opened)
        if not populations:
            raise UserError(f"{file}: has no spikes; expected /spikes/POPULATION/timestamps and node_ids.")
        parts = [_population(file, name, group, options, rate) for name, group in populations.items()]
    several = len(parts) > 1
    ids = [np.array([f"{name}:{node}" for node in nodes], object) if several else nodes for name, _, _, nodes, _ in parts]
    index = np.concatenate([[0], np.cumsum(np.concatenate([np.diff(part[2]) for part in parts]))]).astype(np.int64)
    population = np.concatenate([np.full(len(nodes), name, object) for name, _, _, nodes, _ in parts])
    trials, note = table_files.require_trials(path, options.trials_table)
    notes = (*dict.fromkeys(each for part in parts for each in part[4]), note)
    times = np.concatenate([part[1] for part in parts])
    folder = path.resolve()
    name = f"{folder.parent.name}/{folder.stem}" if folder.stem in ("spikes", "sonata") else folder.stem
    units = {"id": np.concatenate(ids), "population": population}
    of_trials = table_files.trials_path(path, options.trials_table)
    return Session(name, path, times, index, units, trials, notes=notes, sample_rate=rate, trials_path=of_trials)


def _populations(file: h5py.File) -> dict[str, Any]:
    """Groups with spikes, by the name of their population."""
    spikes = file.get("spikes")
    groups = {} if not isinstance(spikes, h5py.Group) else {"spikes": spikes} | {name: spikes.get(name) for name in spikes}
    return {
        name: group
        for name, group in groups.items()
        if isinstance(group, h5py.Group) and "timestamps" in group and any(each in group for each in IDS)
    }


def _population(
    file: Path, name: str, group: Any, options: Options, rate: float | None
) -> tuple[str, np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
    """(name, times in s, index, nodes, notes) of a population, with the nodes that have no spikes."""
    stored = group["timestamps"]
    unit = time_units.stated_unit(stored.attrs) or "ms"
    nodes = hdf5.read_dataset(group[next(each for each in IDS if each in group)])
    times, notes = time_units.spike_seconds(f"{file}: {stored.name}", hdf5.read_dataset(stored), options, rate, unit)
    times, index, ids = spike_grouping.group_by_unit(f"{file}: {group.name}", times, nodes)
    nodes_file = next((found for each in NODES if (found := file.parent / each).is_file()), None)
    if nodes_file is not None:
        with hdf5.opened(nodes_file) as opened:
            own = opened.get(f"nodes/{name}")
            if isinstance(own, h5py.Group) and "node_type_id" in own:
                known = hdf5.read_dataset(own["node_id"]) if "node_id" in own else np.arange(own["node_type_id"].shape[0])
                index, ids = spike_grouping.insert_silent_units(index, ids, known.astype(np.int64))
    return name, times, index, ids, notes
