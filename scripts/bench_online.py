"""Seconds from the end of a trial to new weights and predictions, with rlsnet watch, for networks of several sizes.

    python scripts/bench_online.py                                   # 400, 4,096 and, with groups of 64, 66,002 neurons
    python scripts/bench_online.py 400 --trials 40 --json out.json
    python scripts/bench_online.py 66002 --iterations 1 --no-prediction

A made experiment with as many units as the network has neurons, less a tenth for units that may appear later, grows as a folder: the file
of the next trial (3 s with the settings of config=online, units at 5 Hz) appears when the trial before has been learned. What is timed
begins when the messages that complete a trial have been read, and contains writing them to the disk, the score of the trial, the new
targets, the iterations, and the prediction of one perturbation (two conditions, 2 trials each, with and without). The first three
trials, with compilations, are left out of the median and the 95 % quantile.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from bench import machine

ROOT = Path(__file__).resolve().parents[1]
FIRST = 3  # trials that are left out
TRIAL_S, RATE_HZ = 3.9, 5.0
GROUPS = {66002: 64}  # neurons with the same inputs, by size


def write_trial(folder: Path, number: int, units: int) -> None:
    """Writes the file of a trial, complete under its name."""
    rng = np.random.default_rng(number)
    begin = number * TRIAL_S
    n = rng.poisson(units * RATE_HZ * TRIAL_S)
    times = np.sort(rng.uniform(begin, begin + TRIAL_S, n))
    event = begin + 0.4
    np.savez(
        folder / f"{number:05d}.tmp.npz",
        spike_times=times,
        spike_clusters=rng.integers(0, units, n),
        marker_times=np.array([event - 0.005, event]),
        marker_names=np.array([f"line{2 + number % 2}", "line1"]),
    )
    (folder / f"{number:05d}.tmp.npz").rename(folder / f"{number:05d}.npz")


def feed(folder: Path, run: Path, trials: int, units: int) -> None:
    """Writes a trial whenever the one before has been learned."""
    lines = run / "trials.jsonl"
    for number in range(trials):
        write_trial(folder, number, units)
        while number and len(lines.read_text().splitlines() if lines.exists() else ()) < number:
            time.sleep(0.02)
    (folder / "END").touch()


def measure(neurons: int, trials: int, iterations: int, prediction: bool) -> dict[str, Any]:
    """Latencies of one size."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, run, listed = Path(temporary) / "source", Path(temporary) / "run", Path(temporary) / "list.yaml"
        folder.mkdir()
        listed.write_text("silence_exc: {name: silence, neurons: exc}\n")
        units = round(0.9 * neurons)
        command = [sys.executable, "-m", "rlsnet", "watch", str(folder), str(run), f"network.n_neurons={neurons}"]
        command += [f"plastic.group_size={GROUPS.get(neurons, 1)}", f"watch.iterations={iterations}", "watch.prediction_trials=2"]
        command += ["watch.conditions.left=line2", "watch.conditions.right=line3", "train.checkpoint_every=1000"]
        command += [f"watch.perturbations={listed}"] * prediction
        thread = threading.Thread(target=feed, args=(folder, run, trials, units), daemon=True)
        thread.start()
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        lines = [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()][FIRST:]
        seconds = [json.loads(line)["seconds"] for line in (run / "metrics.jsonl").read_text().splitlines()][FIRST * iterations :]
    latency = np.array([line["latency_s"] for line in lines])
    return {
        "neurons": neurons,
        "units": units,
        "group_size": GROUPS.get(neurons, 1),
        "iterations": iterations,
        "prediction": prediction,
        "trials": len(lines),
        "median_s": round(float(np.median(latency)), 3),
        "q95_s": round(float(np.quantile(latency, 0.95)), 3),
        "iteration_s": round(float(np.median(seconds)), 4),
    }


def main() -> None:
    """Measures the sizes of the command line and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("neurons", nargs="*", type=int, default=[400, 4096, 66002])
    parser.add_argument("--trials", type=int, default=23)
    parser.add_argument("--iterations", type=int, default=1)
    parser.add_argument("--no-prediction", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = []
    print(
        "| neurons | units | iterations | prediction | median (s) | 95 % (s) | an iteration (s) |\n|---|---|---|---|---|---|---|",
        flush=True,
    )
    for neurons in options.neurons:
        found = measure(neurons, options.trials, options.iterations, not options.no_prediction)
        results.append(found)
        done = "yes" if found["prediction"] else "no"
        counts = f"{neurons:,} | {found['units']:,} | {found['iterations']} | {done}"
        print(f"| {counts} | {found['median_s']:.2f} | {found['q95_s']:.2f} | {found['iteration_s']:.3f} |", flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps({"machine": machine(), "results": results}, indent=1))


if __name__ == "__main__":
    main()
