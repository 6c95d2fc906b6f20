"""Synthetic sessions in NWB, to try `rlsnet import` without data of your own. They hold no measured data.

    python scripts/example_sessions.py FOLDER                  # three sessions in the layout of the Mesoscale Activity Map
    python scripts/example_sessions.py FOLDER --layout ibl     # in that of the International Brain Laboratory
    rlsnet import FOLDER/*.nwb mine.zarr preset=map            # or preset=ibl

The units have the time courses of `rlsnet.synthetic` in left and right trials. As in real sessions, some trials have no go cue, an early
lick, an error or photostimulation, and some units are noise, are silent, or are recorded in a part of the session only.
Needs pynwb: pip install 'rlsnet[test]'.
"""

from __future__ import annotations

import argparse
import datetime
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rlsnet.data import synthetic

SIZES = (250, 310, 220)  # units of the sessions
MEDIAN_HZ, MODULATION = 12.0, 2.5  # median rate over units; exponent of the time course of a rate
BIN_S = synthetic.BIN_MS / 1000
BEFORE_S, AFTER_S, GAP_S = 3.2, 2.3, 0.7  # a trial before and after its go cue; mean gap between trials
TEXT = "SYNTHETIC, made by rlsnet's scripts/example_sessions.py; not a recording"


def amplified(rate: np.ndarray) -> np.ndarray:
    """[C, M, U] Hz: higher and more strongly modulated rates, which a small network learns within a minute."""
    mean = rate.mean(axis=(0, 1))
    return np.clip(MEDIAN_HZ * np.sqrt(mean / np.median(mean)) * (rate / mean) ** MODULATION, 0.1, 150)


class Simulated:
    """A session of T trials and U units with their spikes.

    Attributes:
      go, start, stop: [T] s, times of the go cue, of the start and of the end of each trial.
      side: [T] instructed side, 0 left, 1 right.
      outcome: [T] "hit", "miss" or "ignore".
      early: [T] bool, whether there was an early lick.
      stimulated: [T] bool, whether there was photostimulation.
      rate: [2, M, U] Hz, by side, in bins around the go cue at 0 s.
      region: [U] index into synthetic.REGIONS.
      good: [U] bool, False for a unit that is noise.
      until: [U] index of the first trial in which the unit is no longer recorded.
      spikes: [U] arrays of ascending spike times, s.
    """

    def __init__(self, seed: int, n_units: int, n_trials: int):
        random = np.random.default_rng(seed)
        self.random = random
        self.start = 10 + np.cumsum(random.uniform(0.8, 1.2, n_trials) * GAP_S + BEFORE_S + AFTER_S)
        self.go = self.start + BEFORE_S + random.uniform(-0.05, 0.05, n_trials)
        self.stop = self.go + AFTER_S
        self.side = random.integers(0, 2, n_trials)
        self.outcome = random.choice(["hit", "miss", "ignore"], n_trials, p=[0.85, 0.1, 0.05])
        self.early = random.random(n_trials) < 0.05
        self.stimulated = random.random(n_trials) < 0.1
        self.region = random.integers(0, 3, n_units)
        usual = synthetic.rates(random, n_units, self.region)
        self.rate = amplified(usual)
        self.good = random.random(n_units) < 0.8
        self.until = np.where(random.random(n_units) < 0.2, n_trials * 3 // 4, n_trials)
        self.spikes = self._spikes()
        self.spikes[n_units // 2] = np.empty(0)  # a unit that never fires

    def _spikes(self) -> list[np.ndarray]:
        """Spike times of each unit, s: Poisson spikes during the trials in which it is recorded."""
        units, times = [], []
        for trial, (start, go, stop) in enumerate(zip(self.start, self.go, self.stop, strict=True)):
            edges = np.arange(start, stop - BIN_S, BIN_S)
            at = np.clip(np.round((edges - go - synthetic.START_S) / BIN_S).astype(int), 0, synthetic.N_BINS - 1)
            chosen = self.side[trial] if self.outcome[trial] == "hit" else 1 - self.side[trial]
            rate = self.rate[chosen][at] * (trial < self.until) * (0.5 if self.stimulated[trial] else 1)
            where, unit = np.nonzero(counts := self.random.poisson(rate * BIN_S))
            many = counts[where, unit]
            units.append(np.repeat(unit, many))
            times.append(np.repeat(edges[where], many) + self.random.uniform(0, BIN_S, many.sum()))
        unit, time = np.concatenate(units), np.concatenate(times)
        order = np.lexsort((time, unit))
        return np.split(time[order], np.searchsorted(unit[order], np.arange(1, len(self.good))))

    def observed(self, unit: int) -> np.ndarray:
        """[K, 2] s, start and end of the trials in which a unit is recorded."""
        return np.column_stack([self.start, self.stop])[: self.until[unit]]


def _file(seed: int, name: str) -> Any:
    """An empty NWB file with two probes of two electrodes each."""
    from pynwb import NWBFile

    file = NWBFile(
        session_description=TEXT,
        identifier=str(uuid.UUID(int=seed)),
        session_start_time=datetime.datetime(2026, 1, 1 + seed, tzinfo=datetime.UTC),
        session_id=name,
    )
    device = file.create_device(name="probe", description=TEXT)
    for probe in range(2):
        group = file.create_electrode_group(name=f"probe{probe}", description=TEXT, location="brain", device=device)
        for electrode in range(2):
            place = synthetic.REGIONS[(probe + electrode) % 3]
            file.add_electrode(x=float(probe), y=float(electrode), z=0.0, location=place, filtering="none", group=group)
    return file


def write_map(path: Path, seed: int, n_units: int, n_trials: int) -> Simulated:
    """Writes a session in the layout of DANDI:000363: photostimulation as text, events under acquisition, intervals of observation."""
    from pynwb import TimeSeries
    from pynwb.behavior import BehavioralEvents

    warnings.filterwarnings("ignore", "BehavioralEvents is deprecated")  # the files of 2023 have them
    made = Simulated(seed, n_units, n_trials)
    file = _file(seed, path.stem)
    for column in ("trial_instruction", "outcome", "early_lick", "photostim_onset", "photostim_power", "task"):
        file.add_trial_column(name=column, description=column)
    for column in ("trial", "task_protocol", "auto_water", "free_water"):
        file.add_trial_column(name=column, description=column)
    for trial in range(n_trials):
        file.add_trial(
            start_time=made.start[trial],
            stop_time=made.stop[trial],
            trial=trial + 1,
            trial_instruction=("left", "right")[made.side[trial]],
            outcome=str(made.outcome[trial]),
            early_lick="early" if made.early[trial] else "no early",
            photostim_onset=f"{made.go[trial] - made.start[trial] - 1.2:.3f}" if made.stimulated[trial] else "N/A",
            photostim_power="1.5" if made.stimulated[trial] else "N/A",
            task="audio delay",
            task_protocol=1,
            auto_water=0,
            free_water=0,
        )
    events = BehavioralEvents(name="BehavioralEvents")
    has_cue = made.random.random(n_trials) < 0.95  # the other trials have no go cue
    licks = np.sort(np.concatenate([made.go + 0.1 + 0.14 * k for k in range(5)]))
    for name, times in (("go_start_times", made.go[has_cue]), ("delay_start_times", made.go - 1.2), ("left_lick_times", licks)):
        events.create_timeseries(name=name, data=np.ones(len(times)), timestamps=times, unit="n/a", description=TEXT)
    file.add_acquisition(events)
    file.add_acquisition(TimeSeries(name="lever", data=np.zeros(50), rate=10.0, unit="a.u."))
    for column in ("unit", "unit_quality", "classification", "anno_name", "avg_firing_rate", "presence_ratio"):
        file.add_unit_column(name=column, description=column)
    groups = list(file.electrode_groups.values())
    for unit in range(n_units):
        file.add_unit(
            id=unit,
            unit=unit + 1,
            unit_quality="good" if made.random.random() < 0.6 else "multi",
            classification="good" if made.good[unit] else "noise",
            anno_name=synthetic.REGIONS[made.region[unit]],
            avg_firing_rate=float(len(made.spikes[unit]) / made.stop[-1]),
            presence_ratio=float(made.until[unit] / n_trials),
            spike_times=made.spikes[unit],
            obs_intervals=made.observed(unit),
            electrodes=[unit % 4],
            electrode_group=groups[unit % 4 // 2],
            waveform_mean=np.zeros(20),
        )
    _save(file, path)
    return made


def write_ibl(path: Path, seed: int, n_units: int, n_trials: int) -> Simulated:
    """Writes a session with the names of the International Brain Laboratory: events as columns of trials, regions of electrodes."""
    made = Simulated(seed, n_units, n_trials)
    file = _file(seed, path.stem)
    columns = ("stimOn_times", "goCue_times", "firstMovement_times", "response_times", "feedback_times")
    for column in (*columns, "choice", "feedbackType", "contrastLeft", "contrastRight", "probabilityLeft"):
        file.add_trial_column(name=column, description=column)
    for trial in range(n_trials):
        go, hit = made.go[trial], made.outcome[trial] == "hit"
        moved = made.outcome[trial] != "ignore"
        contrast = float(made.random.choice([0.0625, 0.125, 0.25, 1.0]))
        file.add_trial(
            start_time=made.start[trial],
            stop_time=made.stop[trial],
            stimOn_times=go,
            goCue_times=go + 0.002,
            firstMovement_times=go + 0.2 if moved else np.nan,
            response_times=go + 0.5,
            feedback_times=go + 0.5,
            choice=float((1, -1)[made.side[trial]] * (1 if hit else -1) * moved),
            feedbackType=1.0 if hit else -1.0,
            contrastLeft=contrast if made.side[trial] == 0 else np.nan,
            contrastRight=contrast if made.side[trial] == 1 else np.nan,
            probabilityLeft=0.5,
        )
    for column in ("label", "cluster_uuid", "probe_name"):
        file.add_unit_column(name=column, description=column)
    for unit in range(n_units):
        file.add_unit(
            label=1.0 if made.good[unit] else 2 / 3,
            cluster_uuid=str(uuid.UUID(int=unit)),
            probe_name=f"probe0{unit % 2}",
            spike_times=made.spikes[unit],
            electrodes=[unit % 4, (unit + 1) % 4],
        )
    _save(file, path)
    return made


def _save(file: Any, path: Path) -> None:
    from pynwb import NWBHDF5IO

    path.parent.mkdir(parents=True, exist_ok=True)
    file.units["spike_times"].target.transform(lambda times: np.asarray(times))  # pynwb looks at the type of each entry of a list
    with NWBHDF5IO(str(path), "w") as out:
        out.write(file)


LAYOUTS: dict[str, Callable[[Path, int, int, int], Simulated]] = {"map": write_map, "ibl": write_ibl}


def main() -> None:
    """Writes the sessions of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layout", choices=LAYOUTS, default="map")
    parser.add_argument("--units", type=int, nargs="*", default=SIZES, help="number of units of each session")
    parser.add_argument("--trials", type=int, default=140, help="number of trials of each session")
    options = parser.parse_args()
    try:
        import pynwb  # noqa: F401
    except ImportError:
        parser.error("needs pynwb: pip install 'rlsnet[test]'")
    for index, size in enumerate(options.units):
        path = options.folder / f"sub-example_ses-{index + 1}.nwb"
        LAYOUTS[options.layout](path, index, size, options.trials)
        print(f"{path}: {size} units, {options.trials} trials, SYNTHETIC")


if __name__ == "__main__":
    main()
