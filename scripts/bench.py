"""Seconds an iteration, split into parts, and peak memory; with a rival program timed in turn if one is given.

    python scripts/bench.py                              # all cases that fit
    python scripts/bench.py sinusoid mouse_decision --iterations 3 --json benchmarks/cpu.json
    python scripts/bench.py sinusoid --peer PROGRAM      # PROGRAM N K_e L/2 iterations packed scenario, a line an iteration

Each case runs in a process of its own. "simulation" is a trial with frozen weights, "learning" what an iteration takes beyond
it. Compilation is apart. Seconds are medians (least to most).
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
from pathlib import Path
from typing import Any

CASES = {
    "sinusoid": ["config=sinusoid"],
    "sinusoid_64": ["config=sinusoid", "plastic.group_size=64"],
    "ten_thousand": ["config=sinusoid", "network.n_neurons=10000", "static.out_degree=1024", "plastic.n_inputs=90"],
    "mouse_decision": ["config=mouse_decision"],
    "mouse_decision_64": ["config=mouse_decision", "plastic.group_size=64"],
    "million_128": ["config=million", "plastic.group_size=128"],
}


def seconds(run: Any, times: int) -> list[float]:
    """Wall-clock seconds of each of several calls."""
    taken = []
    for index in range(times):
        start = time.perf_counter()
        run(index)
        taken.append(round(time.perf_counter() - start, 4))
    return taken


def measure(case: str, iterations: int, device: str) -> dict[str, Any]:
    """One case, in this process."""
    import resource

    import jax
    import jax.numpy as jnp

    from rlsnet import engine, evaluate, experiment, rls, simulate, train, wiring
    from rlsnet.cli import compose
    from rlsnet.progress import Progress

    config = compose(*CASES[case], f"engine.platform={device}")
    where = engine.setup(config.engine)
    start = time.perf_counter()
    ready = experiment.prepare(config, Progress("off"), learning=True)
    drawn = time.perf_counter() - start
    net, target, dynamics = ready.network, jnp.asarray(ready.target), simulate.Dynamics.of(config)
    learner = rls.init(config.rls, net, jnp.asarray(wiring.to_groups(ready.weight, net.group_size)))
    keys = simulate.Keys.create(config.seed, simulate.TRAINING)
    zero = jnp.int32(0)
    iterate, compile_train = train.compiled(train.iterate, dynamics, config.rls, net, learner, target, keys, zero, zero)
    trial, compile_test = train.compiled(evaluate.run_trial, dynamics, False, net, learner.w, keys, zero, zero)

    def learn(index: int) -> None:
        nonlocal learner
        learner, outcome = iterate(net, learner, target, keys, jnp.int32(index), jnp.int32(index % len(target)))
        jax.block_until_ready(outcome)

    def test(index: int) -> None:
        jax.block_until_ready(trial(net, learner.w, keys, jnp.int32(index), zero))

    whole, frozen = seconds(learn, iterations), seconds(test, max(1, iterations // 2))
    stats = jax.local_devices()[0].memory_stats() if device == "gpu" else None
    peak = stats["peak_bytes_in_use"] if stats else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "case": case,
        "n_neurons": net.n_neurons,
        "static_synapses": net.n_edges,
        "plastic_inputs": net.n_inputs,
        "group_size": net.group_size,
        "device": where,
        "iteration": whole,
        "simulation": frozen,
        "learning": round(statistics.median(whole) - statistics.median(frozen), 4),
        "prepare": round(drawn, 2),
        "compile": round(compile_train + compile_test, 2),
        "peak_gb": round(peak / 1e9, 2),
    }


def rival(program: str, case: str, iterations: int) -> list[float]:
    """Seconds an iteration of the program on the same network, its first (without learning) left out."""
    from rlsnet.cli import compose

    config = compose(*CASES[case])
    n, scenario = (66002, "mouse") if case.startswith("mouse") else (config.network.n_neurons, "sinusoid")
    sizes = [n, config.static.out_degree // 2, config.plastic.n_inputs // 2, iterations, 0]
    output = subprocess.run([program, *map(str, sizes), scenario], capture_output=True, text=True, check=True).stdout
    return [float(s) for s in re.findall(r"^iteration [1-9]\d* seconds ([\d.]+)", output, re.MULTILINE)]


def machine() -> dict[str, str]:
    """Processor, versions and date."""
    from rlsnet.store import versions

    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else [platform.processor()]
    return {"cpu": f"{os.cpu_count()} x {names[0]}", "system": platform.system(), "date": str(datetime.date.today()), **versions()}


def show(result: dict[str, Any]) -> str:
    """A line on one case."""

    def words(values: list[float]) -> str:
        return f"{statistics.median(values):.3g} s ({min(values):.3g}-{max(values):.3g})"

    line = f"{result['case']:<18} iteration {words(result['iteration'])}  simulation {words(result['simulation'])}"
    line += (
        f"  learning {result['learning']:.3g} s  prepare {result['prepare']} s  compile {result['compile']} s  peak {result['peak_gb']} GB"
    )
    if "peer" in result:
        ratio = statistics.median(result["peer"]) / statistics.median(result["iteration"])
        line += f"  peer {words(result['peer'])}, {ratio:.2f} times ours"
    return line


def main() -> None:
    """Runs the cases asked for, prints a line each, and writes all of it as JSON if told to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="*", help=f"of {', '.join(CASES)}; none: all")
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--peer", help="program to time beside ours")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # a case in this process, JSON on stdout
    options = parser.parse_args()
    if unknown := set(options.case) - set(CASES):
        parser.error(f"{', '.join(unknown)}: should be of {', '.join(CASES)}")
    if options.one:
        print(json.dumps(measure(options.case[0], options.iterations, options.device)))
        return
    about = machine()
    print(", ".join(f"{k} {v}" for k, v in about.items()))
    results = []
    for case in options.case or CASES:
        command = [sys.executable, __file__, case, "--one", "--iterations", str(options.iterations), "--device", options.device]
        theirs = rival(options.peer, case, options.iterations) if options.peer else []
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"{case:<18} {done.stderr.strip().splitlines()[-1]}")
            continue
        result = json.loads(done.stdout.splitlines()[-1])
        if options.peer:
            result["peer"] = theirs + rival(options.peer, case, options.iterations)  # before and after ours
        print(show(result), flush=True)
        results.append(result)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"machine": about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
