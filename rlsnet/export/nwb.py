"""NWB: the simulated spikes as units of one session, with trials. So the model and the data load with the same analysis code."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from rlsnet import zarrio
from rlsnet.config import UserError
from rlsnet.export.timeline import Timeline
from rlsnet.export.trained import Trained

NAME, MARKER = "spikes.nwb", None
OPEN = "pynwb.NWBHDF5IO('{out}', 'r').read() opens it."


def write(trained: Trained, path: Path) -> None:
    """Writes the file `path`; raises UserError without pynwb or without spikes."""
    try:
        import h5py
        import pynwb
    except ImportError as error:
        raise UserError(f"export to=nwb: takes {error.name}; pip install 'rlsnet[nwb]'.") from error
    line = Timeline.of(trained)
    made = datetime.fromtimestamp(trained.run.test.stat().st_mtime, UTC)
    file = pynwb.NWBFile(
        session_description="Spikes simulated by a recurrent network that rlsnet trained. Trials follow each other with gaps between.",
        identifier=f"rlsnet {trained.run.path.resolve().name} iteration {trained.iteration} {made.isoformat()}",
        session_start_time=made,
        keywords=["simulation", "recurrent spiking network"],
        notes=json.dumps(trained.settings()),
        source_script="rlsnet export",
        source_script_file_name="rlsnet",
    )
    file.units = _units(trained, line)
    _trials(file, trained, line)
    with h5py.File(path, "w") as store, pynwb.NWBHDF5IO(file=store, mode="w") as io:
        io.write(file)


def _trials(file: Any, trained: Trained, line: Timeline) -> None:
    """The table of trials; seconds."""
    file.add_trial_column("condition", "name of the condition")
    file.add_trial_column("number", "of the trial among those of its condition, from 0")
    file.add_trial_column("stimulus_start", "start of the stimulus, in s")
    file.add_trial_column("stimulus_stop", "end of the stimulus in s; spikes are kept from here to the end of the trial")
    for i in range(len(line.start)):
        file.add_trial(
            start_time=line.start[i] / 1000,
            stop_time=line.stop[i] / 1000,
            condition=trained.conditions[line.condition[i]],
            number=int(line.trial[i]),
            stimulus_start=line.stimulus[i, 0] / 1000,
            stimulus_stop=line.stimulus[i, 1] / 1000,
        )


def _units(trained: Trained, line: Timeline) -> Any:
    """The table of units: the neurons of the test; ragged columns written whole, not row by row."""
    from hdmf.common import ElementIdentifiers, VectorData, VectorIndex
    from pynwb.misc import Units

    assert trained.test is not None
    kept = zarrio.read(trained.test["neuron"])
    order = np.argsort(line.neuron, kind="stable")  # in time for each neuron
    ends = np.searchsorted(line.neuron[order], kept, side="right")
    spikes = VectorData(name="spike_times", description="spike times in s", data=line.time[order] / 1000)
    windows = np.stack([line.stimulus[:, 1], line.stop], axis=1) / 1000
    observed = VectorData(name="obs_intervals", description="when spikes were kept, s", data=np.tile(windows, (len(kept), 1)))
    columns = [
        spikes,
        VectorIndex(name="spike_times_index", target=spikes, data=ends),
        observed,
        VectorIndex(name="obs_intervals_index", target=observed, data=len(windows) * np.arange(1, len(kept) + 1)),
        VectorData(name="neuron", description="number of the neuron in the network", data=kept),
        VectorData(
            name="cell_type",
            description="excitatory or inhibitory",
            data=np.where(trained.excitatory[kept], "excitatory", "inhibitory").tolist(),
        ),
        VectorData(name="mean_rate", description="Hz, over all trials", data=zarrio.read(trained.test["rate"]).mean(axis=0)),
    ]
    for name in ("region", "session"):
        if name in trained.test:
            words = zarrio.texts(trained.test[name]).tolist()
            columns.append(VectorData(name=name, description=f"{name} of the recorded unit that the neuron stands for", data=words))
    if "unit" in trained.test:
        unit = zarrio.read(trained.test["unit"])
        columns.append(VectorData(name="recorded_unit", description="index of that unit in the recording", data=unit))
    names = [column.name for column in columns if not isinstance(column, VectorIndex)]
    return Units(
        name="units",
        description="simulated neurons",
        columns=columns,
        colnames=names,
        id=ElementIdentifiers(name="id", data=np.arange(len(kept))),
    )
