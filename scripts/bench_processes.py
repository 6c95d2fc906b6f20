"""Iterations of one network on one and on two processes of this machine, beside the cost model, as docs/clusters.md shows them.

    python scripts/bench_processes.py                                    # prints the table
    python scripts/bench_processes.py --json benchmarks/processes.json   # also stores it
    python scripts/bench_processes.py sinusoid --repeats 5

The processes share the cores of the machine, so two of them are not faster: measured is what the exchange of spikes costs, and whether the
model predicts it. Two numbers of the model are measured with the smallest network (`tiny`): the launches of a step, and the latency of an
exchange; bandwidth is that of benchmarks/floor. Seconds are medians without the first iteration, compilation apart; memory is the peak of
a process. Other programs should not run at the same time.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import bench_programs  # noqa: E402

from rlsnet.api import compose  # noqa: E402
from rlsnet.runs import cost_model, memory_plan, resources  # noqa: E402
from rlsnet.runs.folder import versions  # noqa: E402

SLOW = ["synapse.delay=1.5"]
CASES = {
    "sinusoid": ["config=sinusoid"],
    "sinusoid, delay 1.5 ms": ["config=sinusoid", *SLOW],
    "66,002, S = 16": ["config=mouse_decision_published", "plastic.group_size=16"],
    "million, S = 128, K = 200": [  # 1,000 static outputs of each do not fit twice into 24 GB
        *("config=million", "plastic.group_size=128", "static.out_degree=200", "trial.stim_on=50", "trial.stim_off=100"),
        "trial.duration=100",
    ],
}
FITTED = ["config=tiny"]
PASS = "pass=1073741824"  # an array that no cache holds, read and written
COMMON = ["train.validate_every=0", "resources_every=0", "progress=plain", "train.save_best=false", "train.checkpoint_every=1000"]
ADDITIONS = 4e8  # a second, on two cores: "its delivery" of `sinusoid` in benchmarks/cpu.json
PYTHON_BYTES = 0.35e9  # of a process with JAX and without a network


def run(settings: list[str], count: int, iterations: int) -> dict[str, Any]:
    """Seconds of an iteration (median without the first), rate (Hz) and peak memory of a process (bytes) of a run on `count` processes."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = [f"engine.coordinator=127.0.0.1:{free.getsockname()[1]}", f"engine.processes={count}", "engine.devices=null"]
        free.close()
        command = [sys.executable, "-m", "rlsnet", "train", *settings, *COMMON, f"train.iterations={iterations}", "hydra.run.dir=run"]
        each = [[f"engine.process={number}", *address] for number in range(count)] if count > 1 else [[]]
        started = [
            subprocess.Popen([*command, *own], cwd=folder, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(ROOT)})
            for own in each
        ]
        peaks = []
        for process in started:
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                raise SystemExit(f"{' '.join(settings)}: ended with status {status}")
            peaks.append(usage.ru_maxrss * 1024)
        lines = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()]
    seconds = [line["seconds"] for line in lines[1:]]
    return {"seconds": statistics.median(seconds), "rate": statistics.mean(line["rate_hz"] for line in lines), "peak": max(peaks)}


def cpu(copy: float, launches: float) -> cost_model.Device:
    """Figures of this CPU for the cost model."""
    about = {"name": "CPU", "source": "measured", "copy": copy, "cache": copy, "atomics": ADDITIONS, "far_atomics": ADDITIONS / 4}
    return cost_model.Device(**about, barrier=0, launch=1e-6, processors=os.cpu_count() or 1, l2=2**21, memory=1e12, kernels=launches)


def predicted(settings: list[str], rate: float, count: int, device: cost_model.Device, links: cost_model.Links) -> dict[str, float]:
    """Seconds of an iteration, and bytes of a process, on `count` processes that share the cores and the bandwidth of this machine."""
    config = compose(*settings)
    n, conditions = (66_002, 2) if config.target.recorded else (config.network.n_neurons or 0, config.target.n_conditions)
    sizes = cost_model.Sizes.of(config, n, conditions, rate=rate, D=count)
    shared = dataclasses.replace(device, copy=device.copy / count, cache=device.cache / count, atomics=ADDITIONS / count)
    planned = memory_plan.Sizes.of(config, n, conditions)
    planned = dataclasses.replace(planned, devices=count, sources=n)
    return {
        "seconds": cost_model.times(shared, sizes, links)["iteration"],
        "peak": PYTHON_BYTES + sum(memory_plan.plan(planned, True).values()),
    }


def main() -> None:
    """Measures, prints and stores the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="*", default=list(CASES), help=f"any of {'; '.join(CASES)}")
    parser.add_argument("--repeats", type=int, default=3, help="iterations after the first (3)")
    parser.add_argument("--json", type=Path, help="file that receives the results")
    options = parser.parse_args()
    if unknown := set(options.case) - set(CASES):
        parser.error(f"{', '.join(sorted(unknown))}: expected any of {', '.join(CASES)}")
    copy = 1e9 / bench_programs.floor([PASS])[PASS]["all"]
    steps, fits = compose(*FITTED).trial.n_steps, {}
    for name, settings in (("each step", FITTED), ("1.5 ms", [*FITTED, *SLOW])):
        fits[name] = run(settings, 2, options.repeats + 1)["seconds"] / steps
    exchange = (fits["each step"] - fits["1.5 ms"]) * 15 / 14
    launches = fits["each step"] - exchange
    device = cpu(copy, launches)
    links = cost_model.Links(per_node=10**6, near_rate=1e9, protocols=((exchange, 0.0, 1.0, 0.0, 1.0),))
    print(f"{copy / 1e9:.3g} GB/s; a step with two processes: launches {launches * 1e6:.0f} us, exchange {exchange * 1e6:.0f} us")
    found = {}
    print("| network | processes | iteration | model | peak of a process | model |\n|---|---|---|---|---|---|")
    for case in options.case:
        for count in (1, 2):
            measured = run(CASES[case], count, options.repeats + 1)
            model = predicted(CASES[case], measured["rate"], count, device, links)
            found[f"{case}, {count}"] = {"measured": measured, "model": model}
            row = (
                case,
                str(count),
                f"{measured['seconds']:.3g} s",
                f"{model['seconds']:.3g} s",
                *(f"{each['peak'] / 1e9:.2g} GB" for each in (measured, model)),
            )
            print("| " + " | ".join(row) + " |", flush=True)
    if options.json:
        about = {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": resources.machine(),
            "versions": versions(),
        }
        about |= {"copy": copy, "launches": launches, "exchange": exchange}
        options.json.write_text(json.dumps({**about, "results": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
