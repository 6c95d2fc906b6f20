"""Seconds of an iteration and of its parts, and peak memory; if wanted, beside another program timed in turn.

    python scripts/bench.py                                          # every case but tiny and million
    python scripts/bench.py sinusoid mouse_decision_published --json benchmarks/cpu.json
    python scripts/bench.py sinusoid --only iteration                # one part of a result, in less time
    python scripts/bench.py sinusoid --against peer                  # the C program of scripts/peer, before and after ours
    python scripts/bench.py sinusoid --against numpy                 # the plain NumPy program of the tests, on a short trial
    python scripts/bench.py --scaling benchmarks/scaling.png         # seconds against N, K and L
    python scripts/bench.py --table benchmarks/cpu.json              # the results in a file, as the table in docs/performance.md
    python scripts/bench.py --device gpu                             # the same on a GPU

Each case runs in a process of its own. Seconds are medians (least to most), compilation apart. Parts of an iteration:
"simulation" is one trial with frozen weights; "delivery" is the part of it that sends spikes to their targets (the spikes of a trial are
sent again, and nothing else is computed); "learning" is the updates alone (from the filtered spikes of a trial); "correlation" is the
score at the end. The floor of learning is its bytes over the bandwidth of a pass over 400 MB in the same process.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import bench_report
from bench_case import Case

PEER = Path(__file__).parent / "peer" / "run.sh"
CASES = {
    "tiny": ["config=tiny"],
    "sinusoid": ["config=sinusoid"],
    "sinusoid_64": ["config=sinusoid", "plastic.group_size=64"],
    "sinusoid_xla": ["config=sinusoid", "engine.kernels=xla"],
    "sinusoid_8_trials": ["config=sinusoid", "train.trials_per_update=8"],
    "ten_thousand": ["config=sinusoid", "network.n_neurons=10000", "static.out_degree=1024", "plastic.n_inputs=90"],
    "ten_thousand_64": [
        "config=sinusoid",
        "network.n_neurons=10000",
        "static.out_degree=1024",
        "plastic.n_inputs=90",
        "plastic.group_size=64",
    ],
    "mouse_decision": ["config=mouse_decision"],
    "mouse_decision_published": ["config=mouse_decision_published"],
    "mouse_decision_published_64": ["config=mouse_decision_published", "plastic.group_size=64"],
    "mouse_decision_published_8_trials": ["config=mouse_decision_published", "train.trials_per_update=8"],
    "million_128": ["config=million", "plastic.group_size=128"],
    "million": ["config=million"],
}
SCALING = {
    "network.n_neurons": [1024, 2048, 4096, 8192, 16384, 32768],
    "static.out_degree": [64, 128, 256, 512, 1024, 2048],
    "plastic.n_inputs": [16, 32, 64, 128, 256],
}
PARTS = ("iteration", "simulation", "delivery", "learning", "correlation")
SHORT = ["stimulus=none", "trial.stim_on=10", "trial.stim_off=20", "trial.duration=100"]  # minutes in NumPy
REFERENCE_VALUES = {"neuron.tau_m": 10.0, "synapse.tau_exc": 3.0, "synapse.tau_inh": 3.0, "synapse.tau_plas": 150.0, "noise.sigma": 0.0}


def bandwidth() -> float:
    """Bytes a second, read and written, of a pass over 400 MB in place."""
    import jax
    import jax.numpy as jnp

    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = add(jnp.zeros(10**8, jnp.float32))
    taken = []
    for _ in range(6):
        start = time.perf_counter()
        x = jax.block_until_ready(add(x))
        taken.append(time.perf_counter() - start)
    return 2 * x.nbytes / min(taken)


def peak_bytes(device: str) -> int:
    """Peak memory of this process: that of the GPU, or the resident memory of the process on a CPU."""
    import resource

    import jax

    stats = jax.local_devices()[0].memory_stats() if device == "gpu" else None
    unit = 1 if sys.platform == "darwin" else 1024
    return stats["peak_bytes_in_use"] if stats else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(case: str, iterations: int, device: str, parts: Collection[str] = PARTS, kernels: str = "") -> dict[str, Any]:
    """The result of one case, measured in this process; only the given parts of an iteration are timed; kernels: engine.kernels."""
    timed = Case([*CASES[case], *[f"engine.kernels={kernels}"] * bool(kernels)], device)
    result: dict[str, Any] = {
        "case": case,
        "n_neurons": timed.net.n_neurons,
        "static_synapses": timed.net.n_edges,
        "plastic_inputs": timed.net.n_inputs,
        "group_size": timed.net.group_size,
        "device": timed.device,
        "kernels": timed.dynamics.backend.delivery,
        "draw": timed.draw,
        "targets": timed.targets,
    }
    if "iteration" in parts:
        result["iteration"], compilation = timed.iterations(iterations)
        result["compile"] = round(compilation, 2)
        result["peak_gb"] = round(peak_bytes(device) / 1e9, 2)
    if "simulation" in parts:
        result["simulation"] = timed.trials(max(2, iterations // 2))
    if "learning" in parts:
        learning, share = timed.learning()
        floor = timed.floor(share, bandwidth())
        result |= {"learning": round(learning, 4), "learning_floor": None if floor is None else round(floor, 4)}
    if "delivery" in parts:
        result["delivery"] = round(timed.delivery(), 4)
    if "correlation" in parts:
        result["correlation"] = round(timed.correlation(), 4)
    if {"iteration", "simulation", "learning"} <= set(parts) and timed.config.train.trials_per_update == 1:  # the parts are of one trial
        known = statistics.median(result["simulation"]) + result["learning"]
        result["rest"] = round(statistics.median(result["iteration"]) - known, 4)
    return result


def beside_numpy(case: str) -> dict[str, Any]:
    """Seconds of a short trial of the case, by rlsnet and by the plain NumPy program of the tests in one thread, in this process."""
    import numpy as np

    timed = Case([*CASES[case], *SHORT], "cpu")
    config, net = timed.config, timed.net
    for key, value in REFERENCE_VALUES.items():
        section, name = key.split(".")
        if getattr(getattr(config, section), name) != value:
            sys.exit(f"{case}: the plain NumPy program has {key}={value:g} built in")
    ours, _ = timed.iterations(5)
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    import reference

    edges = np.diff(np.asarray(net.indptr))
    sender = np.repeat(np.asarray(net.excitatory), edges)
    post = np.asarray(net.post)[: net.n_edges]
    by_class = np.asarray(net.class_weight)
    arrays = {
        "neuron/excitatory": np.asarray(net.excitatory),
        "neuron/bias": np.asarray(net.bias, float),
        "neuron/v0": np.random.default_rng(0).normal(size=net.n_neurons),
        "static/indptr": np.asarray(net.indptr),
        "static/post": post,
        "static/weight": by_class[np.where(sender, 0, 1), np.where(np.asarray(net.excitatory)[post], 0, 1)],
        "plastic/pre": np.asarray(net.pre),
        "plastic/weight": timed.weight,
        "target": np.asarray(timed.target),
    }
    trial, rls = config.trial, config.rls
    start = time.perf_counter()
    reference.train(arrays, 1, dt=trial.dt, stim_off=trial.stim_off, every=trial.learn_every, lam=rls.penlambda, mu=rls.penmu,
                    group_size=net.group_size)  # fmt: skip
    return {"case": case, "short_iteration": ours, "numpy": round(time.perf_counter() - start, 2)}


def scaling(key: str, value: int, device: str) -> dict[str, Any]:
    """Median seconds of the default network with one size changed, measured in this process."""
    timed = Case(["config=sinusoid", f"{key}={value}"], device)
    iterations, _ = timed.iterations(5)
    return {"value": value, "iteration": statistics.median(iterations), "simulation": statistics.median(timed.trials(3))}


def peer_arguments(case: str, iterations: int) -> list[str]:
    """Arguments of the peer for the network of a case, see scripts/peer/run.sh; the peer has no groups of neurons."""
    from rlsnet.api import compose

    config = compose(*CASES[case])
    n, scenario = (66002, "mouse") if case.startswith("mouse") else (config.network.n_neurons, "sinusoid")
    sizes = [n, config.static.out_degree // 2, config.plastic.n_inputs // 2, iterations, 0]
    return [*map(str, sizes), scenario]


def peer(program: Path, arguments: list[str]) -> list[float]:
    """Seconds of each iteration of the peer, without its first, in which nothing is learned."""
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{program}: {done.stderr.strip() or f'exit status {done.returncode}'}")
    return [float(s) for s in re.findall(r"^iteration [1-9]\d* seconds ([\d.]+)", done.stdout, re.MULTILINE)]


def machine() -> dict[str, str]:
    """Processor, versions and date."""
    from rlsnet.runs.folder import versions

    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else [platform.processor()]
    return {"cpu": f"{os.cpu_count()} x {names[0]}", "system": platform.system(), "date": str(datetime.date.today()), **versions()}


def arguments() -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="*", help=f"any of {', '.join(CASES)}; none: all but tiny and million, which needs 60 GB")
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts of an iteration to time; none: all")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--kernels", default="", help="engine.kernels of all cases; default: that of the case")
    parser.add_argument("--against", choices=("peer", "numpy"), help="a program to time beside ours")
    parser.add_argument("--peer", type=Path, default=PEER, help="the program of --against peer; default: that of scripts/peer")
    parser.add_argument("--scaling", type=Path, help="time the default network at other sizes and draw this picture")
    parser.add_argument("--json", type=Path, help="file for the results, added to those of other cases in it")
    parser.add_argument("--table", type=Path, help="print the table of such a file, and do nothing else")
    parser.add_argument("--task", help=argparse.SUPPRESS)  # of a process of its own: its result goes to stdout as JSON
    options = parser.parse_args()
    if unknown := set(options.case) - set(CASES):
        parser.error(f"{', '.join(unknown)}: expected any of {', '.join(CASES)}")
    if options.against == "peer" and "iteration" not in options.only:
        parser.error(f"--only {' '.join(options.only)}: expected iteration among them with --against peer")
    return options


def measure_cases(options: argparse.Namespace) -> dict[str, Any]:
    """Results of the cases of the command line, each printed as it comes."""
    results: dict[str, Any] = {}
    peers: dict[str, list[float]] = {}
    every_case = [] if options.scaling else [case for case in CASES if case not in ("tiny", "million")]
    for case in options.case or every_case:
        network = peer_arguments(case, options.iterations) if options.against == "peer" and not case.startswith("million") else []
        first = network and str(network) not in peers  # cases that differ in groups alone share the peer's figures
        if first:
            peers[str(network)] = peer(options.peer, network)  # before ours, and after
        result = in_own_process("numpy" if options.against == "numpy" else "case", case, options)
        if first:
            peers[str(network)] += peer(options.peer, network)
        if result is None:
            continue
        if network:
            result["peer"] = peers[str(network)]
        print(bench_report.summary(result), flush=True)
        results[f"{case} against numpy" if "numpy" in result else case] = result
    return results


def write(path: Path, results: dict[str, Any], about: dict[str, str]) -> None:
    """Adds results to a file of --json, each with the machine that it was measured on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(path.read_text())["results"] if path.exists() else {}
    for result in results.values():
        result["machine"] = about
    path.write_text(json.dumps({"results": {**before, **results}}, indent=1) + "\n")


def main() -> None:
    """Measures the cases of the command line, prints the results, and writes them as JSON with --json."""
    options = arguments()
    if options.table:
        print(bench_report.table(options.table))
        return
    if options.task:
        print(json.dumps(run_task(*options.task.split(":"), options)))
        return
    about = machine()
    print(", ".join(f"{k} {v}" for k, v in about.items()), flush=True)
    results = measure_cases(options)
    if options.scaling:
        curves = {key: [p for v in values if (p := in_own_process("scaling", f"{key}={v}", options))] for key, values in SCALING.items()}
        exponents = bench_report.draw_scaling(curves, options.scaling)
        print("\n".join(f"{name}: exponent {value:.2f}" for name, value in exponents.items()))
        results["scaling"] = {"curves": curves, "exponents": exponents}
    if options.json:
        write(options.json, results, about)
    sys.exit(not results)


def run_task(kind: str, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The result of the one task of this process."""
    if kind == "numpy":
        return beside_numpy(name)
    if kind == "scaling":
        key, value = name.split("=")
        return scaling(key, int(value), options.device)
    return measure(name, options.iterations, options.device, options.only, options.kernels)


def in_own_process(kind: str, name: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """The result of a task in a process of its own, or None after the message of what failed in it."""
    command = [sys.executable, __file__, "--task", f"{kind}:{name}", "--iterations", str(options.iterations), "--device", options.device]
    command += ["--only", *options.only, "--kernels", options.kernels]
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}  # compilation is timed from scratch
    if kind == "numpy":
        environment.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        print(f"{name:<18} {(done.stderr.strip().splitlines() or [f'exit status {done.returncode}'])[-1]}", flush=True)
        return None
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
