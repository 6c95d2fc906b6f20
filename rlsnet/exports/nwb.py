"""NWB: the simulated spikes as the units of one session with trials, so that analysis code for recordings can read them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from rlsnet.errors import UserError
from rlsnet.exports.session_clock import SessionClock
from rlsnet.exports.trained_network import TrainedNetwork
from rlsnet.io import zarr_store
from rlsnet.io.formatting import readable

FILE_NAME = "spikes.nwb"
HOW_TO_OPEN = "pynwb.NWBHDF5IO('{out}', 'r').read() opens it."


def is_export(path: Path) -> bool:
    """Whether a file is an export to this format."""
    import h5py

    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    with h5py.File(path, "r") as file:
        stored = file.get("identifier")
        return isinstance(stored, h5py.Dataset) and stored.ndim == 0 and bytes(stored[()])[:7] == b"rlsnet "


def write(trained: TrainedNetwork, path: Path) -> None:
    """Writes the file `path`; raises UserError without pynwb or without spikes."""
    try:
        import h5py
        import pynwb
    except ImportError as error:
        raise UserError(f"export to=nwb: expected the package {error.name}; pip install 'rlsnet[nwb]'.") from error
    clock = SessionClock.from_test(trained)
    made = datetime.fromtimestamp(trained.run.test.stat().st_mtime, UTC)
    file = pynwb.NWBFile(
        session_description="Spikes simulated by a recurrent network that rlsnet trained. Trials follow each other, with gaps in between.",
        identifier=f"rlsnet {readable(trained.run.path.resolve().name)} iteration {trained.iteration} {made.isoformat()}",
        session_start_time=made,
        keywords=["simulation", "recurrent spiking network"],
        notes=json.dumps(trained.settings()),
        source_script="rlsnet export",
        source_script_file_name="rlsnet",
    )
    file.units = _units(trained, clock)
    _trials(file, trained, clock)
    with h5py.File(path, "w") as store, pynwb.NWBHDF5IO(file=store, mode="w") as io:
        io.write(file)


def _trials(file: Any, trained: TrainedNetwork, clock: SessionClock) -> None:
    """Adds the table of trials, times in s."""
    file.add_trial_column("condition", "name of the condition")
    file.add_trial_column("number", "number of the trial among those of its condition, from 0")
    file.add_trial_column("stimulus_start", "start of the stimulus, in s")
    file.add_trial_column("stimulus_stop", "end of the stimulus, in s; spikes are stored from here to the end of the trial")
    zero = clock.start / 1000 - trained.clock.start
    file.add_trial_column("time_zero", f"time 0 of the recording, in s; s after it are the {trained.clock.label}")
    for i in range(len(clock.start)):
        file.add_trial(
            start_time=clock.start[i] / 1000,
            stop_time=clock.stop[i] / 1000,
            condition=trained.conditions[clock.condition[i]],
            number=int(clock.trial[i]),
            stimulus_start=clock.stimulus[i, 0] / 1000,
            stimulus_stop=clock.stimulus[i, 1] / 1000,
            time_zero=float(zero[i]),
        )


def _units(trained: TrainedNetwork, clock: SessionClock) -> Any:
    """The table of units, one for each neuron of the test; ragged columns are written in one piece, not row by row."""
    from hdmf.common import ElementIdentifiers, VectorData, VectorIndex
    from pynwb.misc import Units

    assert trained.test is not None
    tested = zarr_store.read(trained.test["neuron"])
    order = np.argsort(clock.spike_neuron, kind="stable")  # by neuron, and in order of time for each
    ends = np.searchsorted(clock.spike_neuron[order], tested, side="right")
    spikes = VectorData(name="spike_times", description="spike times in s", data=clock.spike_time[order] / 1000)
    windows = np.stack([clock.stimulus[:, 1], clock.stop], axis=1) / 1000
    observed = VectorData(
        name="obs_intervals", description="times in which spikes were stored, in s", data=np.tile(windows, (len(tested), 1))
    )
    columns = [
        spikes,
        VectorIndex(name="spike_times_index", target=spikes, data=ends),
        observed,
        VectorIndex(name="obs_intervals_index", target=observed, data=len(windows) * np.arange(1, len(tested) + 1)),
        VectorData(name="neuron", description="number of the neuron in the network", data=tested),
        VectorData(
            name="cell_type",
            description="excitatory or inhibitory",
            data=np.where(trained.excitatory[tested], "excitatory", "inhibitory").tolist(),
        ),
        VectorData(
            name="mean_rate", description="mean rate over all trials, in Hz", data=zarr_store.read(trained.test["rate"]).mean(axis=0)
        ),
    ]
    for name, words in trained.unit_columns().items():
        label = "unit_id" if name == "id" else name  # id is the index of the table
        columns.append(VectorData(name=label, description=f"{name} of the recorded unit that this neuron reproduces", data=words.tolist()))
    if "unit" in trained.test:
        unit = zarr_store.read(trained.test["unit"])
        columns.append(VectorData(name="recorded_unit", description="index of that unit in the recording", data=unit))
    names = [column.name for column in columns if not isinstance(column, VectorIndex)]
    return Units(
        name="units",
        description="simulated neurons",
        columns=columns,
        colnames=names,
        id=ElementIdentifiers(name="id", data=np.arange(len(tested))),
    )
