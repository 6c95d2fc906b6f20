"""Spikes that `rlsnet export` wrote: to=zarr (trained.zarr) and to=npz; the other exports with spikes are NWB and SONATA files.

The trials are placed one after the other, 1 s apart, as in the exports to NWB and SONATA, with the columns start_time, stop_time,
stimulus_start, stimulus_stop, time_zero (time 0 of the recording), all in s, condition and trial. Spikes are known from the end of the
stimulus to the end of the trial.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlsnet.data.formats import spike_grouping, table_files
from rlsnet.data.formats.single_trials import same_for_units
from rlsnet.data.import_options import Options
from rlsnet.data.session import Session
from rlsnet.errors import UserError
from rlsnet.io import npz_files, outputs, zarr_store
from rlsnet.model.exported_network import ABOUT, GAP_MS, NPZ, ZARR

UNIT_COLUMNS = {
    "session": "session",
    "id": "unit_id",
    "region": "region",
    "probe": "probe",
}  # of the recorded units, by their names in the export
FORMATS = {zarr_store.METADATA: ZARR, ABOUT: NPZ, "network.json": "rlsnet-simulation"}  # by the file that has the name


class Exported(NamedTuple):
    """Spikes and neurons of an export.

    trial: [spikes] number of the trial among those of all conditions, one condition after the other.
    time: [spikes] s of the recording, or ms from the start of the trial in exports of earlier versions.
    neuron: [spikes] number of the neuron.
    condition: [trials] name of the condition.
    columns: [N] columns of the neurons.
    """

    trial: np.ndarray
    time: np.ndarray
    neuron: np.ndarray
    condition: np.ndarray
    columns: dict[str, np.ndarray]


def matches(path: Path) -> bool:
    """Whether a source is such an export."""
    return path.is_dir() and _about(path)[0] is not None


def read(path: Path, options: Options) -> Session:
    """Session with the simulated spikes; raises UserError if the export has none, or is damaged."""
    kind, about = _about(path)
    if kind == "rlsnet-simulation":
        raise UserError(
            f"{path}: is a network for a simulator, without spikes; python simulate.py --out FILE.npz makes them, or to=nwb has them."
        )
    if kind is None:
        raise UserError(f"{path}: is no export of rlsnet; expected trained.zarr, or the folder of to=npz.")
    with table_files.one_line_errors(path):
        found = _from_zarr(path) if kind == ZARR else _from_npz(path, about)
        settings = about["trial"]
        on, off = (float(settings[f"{name}_ms"]) for name in ("stim_on", "stim_off"))
        length = off + float(settings["duration_ms"])
        start = np.arange(len(found.condition)) * (length + GAP_MS)
        n = len(next(iter(found.columns.values())))
        zero = float(about["time"]["start_s"]) if "time" in about else 0.0  # s of the recording at which a trial starts
        since = found.time - zero if "time" in about else found.time / 1000
        times, index, ids = spike_grouping.group_by_unit(path, start[found.trial] / 1000 + since, found.neuron)
    index, ids = spike_grouping.insert_silent_units(index, ids, np.arange(n))
    trials = {
        "start_time": start / 1000,
        "stop_time": (start + length) / 1000,
        "stimulus_start": (start + on) / 1000,
        "stimulus_stop": (start + off) / 1000,
        "time_zero": start / 1000 - zero,
        "condition": found.condition,
        "trial": np.concatenate([np.arange(np.sum(found.condition == each)) for each in dict.fromkeys(found.condition.tolist())]),
    }
    observed = same_for_units(np.stack([trials["stimulus_stop"], trials["stop_time"]], axis=1), n)
    name = f"{path.resolve().parent.parent.name}/{path.stem}" if path.resolve().parent.name == "export" else path.stem
    return Session(name, path, times, index, {"id": ids} | found.columns, trials, observed=observed)


def _about(path: Path) -> tuple[str | None, dict[str, Any]]:
    """(format of an export of rlsnet or None, its description)."""
    for name, format in FORMATS.items():
        content = outputs.read_json(path / name)
        content = content.get("attributes", {}) if name == zarr_store.METADATA else content
        if isinstance(content, dict) and content.get("format") == format:
            return format, content
    return None, {}


def _from_zarr(path: Path) -> Exported:
    """Spikes and neurons of trained.zarr."""
    root = zarr_store.open_store(path)
    if "spike_indptr" not in root:
        raise UserError(f"{path}: has no spikes; rlsnet test, and then the export again, make them.")
    trial, time, neuron = (zarr_store.read(root[name]) for name in ("spike_indptr", "spike_time", "spike_neuron"))
    condition = zarr_store.texts(root["condition"]).astype(object)[zarr_store.read(root["trial_condition"])]
    columns = {"excitatory": zarr_store.read(root["excitatory"])}
    columns |= {to: zarr_store.texts(root[name]).astype(object) for name, to in UNIT_COLUMNS.items() if name in root}
    return Exported(np.repeat(np.arange(len(trial) - 1), np.diff(trial)), time, neuron, condition, columns)


def _from_npz(path: Path, about: dict[str, Any]) -> Exported:
    """Spikes and neurons of the folder of to=npz."""
    if not (path / "spikes.npz").is_file():
        raise UserError(f"{path}: has no spikes.npz; rlsnet test, and then the export again, make it.")
    for name in ("spikes.npz", "neurons.npz"):
        npz_files.check_npz(path / name)
    with np.load(path / "spikes.npz", allow_pickle=False) as file:
        condition, trial, time, neuron = (file[name] for name in ("condition", "trial", "time", "neuron"))
    with np.load(path / "neurons.npz", allow_pickle=False) as file:
        columns = {"excitatory": file["excitatory"]}
        columns |= {to: file[name].astype(object) for name, to in UNIT_COLUMNS.items() if name in file.files}
    n_trials = int(about.get("trials") or trial.max(initial=0) + 1)  # earlier exports do not have their number
    names = np.repeat(np.array(about["conditions"], object), n_trials)
    return Exported(condition * n_trials + trial, time, neuron, names, columns)
