"""Seconds and peak memory of `rlsnet import` on many large sessions, in the layout of the Mesoscale Activity Map.

    python scripts/bench_import.py /tmp/sessions                                    # 44 sessions, 66,000 units, 100 million spikes
    python scripts/bench_import.py /tmp/sessions --sessions 2 --units 1500 --spikes 15e6

The sessions are random (SYNTHETIC). They are written with h5py before the time is taken, and deleted afterwards unless --keep is given.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np

TRIALS, LENGTH_S = 266, 6.0


def write(path: Path, seed: int, n_units: int, n_spikes: int) -> None:
    """Writes one session: Poisson spikes of units with log-normal rates, during the trials only."""
    random = np.random.default_rng(seed)
    start = 10 + (LENGTH_S + 0.5) * np.arange(TRIALS)
    share = random.lognormal(0, 1.15, n_units)
    counts = random.multinomial(n_spikes, share / share.sum())
    index = np.cumsum(counts)
    times = random.uniform(0, TRIALS * LENGTH_S, n_spikes)  # s of trial time, without the gaps between trials
    for begin, end in zip(index - counts, index, strict=True):
        times[begin:end].sort()
    trial = (times // LENGTH_S).astype(int)
    times = start[trial] + times - trial * LENGTH_S
    observed = np.column_stack([start, start + LENGTH_S])
    with h5py.File(path, "w") as file:
        file.attrs["nwb_version"] = "2.7.0"
        put: Any = file.create_dataset
        text = h5py.string_dtype()
        put("units/id", data=np.arange(n_units))
        put("units/spike_times", data=times)
        put("units/spike_times_index", data=index)
        put("units/obs_intervals", data=np.tile(observed, (n_units, 1)))
        put("units/obs_intervals_index", data=TRIALS * np.arange(1, n_units + 1))
        put("units/classification", data=np.full(n_units, "good", dtype=object), dtype=text)
        put("units/anno_name", data=random.choice(np.array(["ALM", "thalamus"], dtype=object), n_units), dtype=text)
        put("intervals/trials/id", data=np.arange(TRIALS))
        put("intervals/trials/start_time", data=start)
        put("intervals/trials/stop_time", data=start + LENGTH_S)
        for name, values in (
            ("trial_instruction", ["left", "right"]),
            ("outcome", ["hit", "hit", "hit", "miss"]),
            ("early_lick", ["no early"]),
            ("photostim_onset", ["N/A", "N/A", "N/A", "1.891"]),
        ):
            put(f"intervals/trials/{name}", data=random.choice(np.array(values, dtype=object), TRIALS), dtype=text)
        put("acquisition/BehavioralEvents/go_start_times/timestamps", data=start + 3.5)


def main() -> None:
    """Writes the sessions, imports them, and prints seconds and peak memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sessions", type=int, default=44)
    parser.add_argument("--units", type=int, default=1500, help="units of each session")
    parser.add_argument("--spikes", type=float, default=1e8, help="spikes of all sessions together")
    parser.add_argument("--keep", action="store_true", help="keep the sessions and the recording")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=False)
    try:
        for number in range(options.sessions):
            write(options.folder / f"{number:03d}.nwb", number, options.units, int(options.spikes / options.sessions))
        size = sum(path.stat().st_size for path in options.folder.iterdir())
        command = [
            sys.executable,
            "-m",
            "rlsnet",
            "import",
            str(options.folder),
            str(options.folder / "out.zarr"),
            "preset=map",
            "overwrite=true",
        ]
        started = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        units = options.sessions * options.units
        print(f"{units:,} units, {options.spikes:,.0f} spikes, {size / 1e9:.2f} GB: {seconds:.1f} s, peak memory {peak / 2**30:.2f} GiB")
    finally:
        if not options.keep:
            shutil.rmtree(options.folder)


if __name__ == "__main__":
    main()
