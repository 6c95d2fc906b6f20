"""Seconds of an iteration and of its parts, and peak memory; if wanted, beside another program timed in turn.

    python scripts/bench.py                                          # every case but tiny and million
    python scripts/bench.py sinusoid mouse_decision --json benchmarks/cpu.json
    python scripts/bench.py sinusoid --only iteration                # one part of a result, in less time
    python scripts/bench.py sinusoid --against peer                  # the C program of scripts/peer, before and after ours
    python scripts/bench.py sinusoid --against numpy                 # the plain NumPy program of the tests, on a short trial
    python scripts/bench.py --scaling benchmarks/scaling.png         # seconds against N, K and L
    python scripts/bench.py --table benchmarks/cpu.json              # the results in a file, as the table in docs/performance.md
    python scripts/bench.py --device gpu                             # the same on a GPU

Each case runs in a process of its own. Seconds are medians (least to most), compilation apart. Parts of an iteration:
"simulation" is a trial with frozen weights; "delivery" is the part of it that sends spikes to their targets (the spikes of a trial are
sent again, and nothing else is computed); "learning" is the updates alone (from the filtered spikes of a trial); "correlation" is the
score at the end. The floor of learning is its bytes over the bandwidth of a pass over 400 MB in the same process.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import bench_report

PEER = Path(__file__).parent / "peer" / "run.sh"
CASES = {
    "tiny": ["config=tiny"],
    "sinusoid": ["config=sinusoid"],
    "sinusoid_64": ["config=sinusoid", "plastic.group_size=64"],
    "sinusoid_xla": ["config=sinusoid", "engine.kernels=xla"],
    "ten_thousand": ["config=sinusoid", "network.n_neurons=10000", "static.out_degree=1024", "plastic.n_inputs=90"],
    "ten_thousand_64": [
        "config=sinusoid",
        "network.n_neurons=10000",
        "static.out_degree=1024",
        "plastic.n_inputs=90",
        "plastic.group_size=64",
    ],
    "mouse_decision": ["config=mouse_decision"],
    "mouse_decision_64": ["config=mouse_decision", "plastic.group_size=64"],
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


def seconds(run: Callable[[int], Any], times: int) -> list[float]:
    """Wall-clock seconds of each of several calls."""
    import jax

    taken = []
    for index in range(times):
        start = time.perf_counter()
        jax.block_until_ready(run(index))
        taken.append(round(time.perf_counter() - start, 4))
    return taken


class Case:
    """An experiment in this process, prepared for timing."""

    def __init__(self, overrides: list[str], device: str):
        import jax.numpy as jnp

        from rlsnet import engine, experiment, rls, wiring
        from rlsnet.api import compose
        from rlsnet.progress import Progress

        self.config = compose(*overrides, f"engine.platform={device}")
        self.engine = engine.configured(self.config.engine)  # for as long as this process lasts
        self.device = self.engine.__enter__()
        prepared = experiment.prepare(self.config, Progress("off"), learning=True)
        self.draw, self.targets = (round(value, 2) for value in prepared.seconds)
        self.net, self.target, self.weight = prepared.network, jnp.asarray(prepared.target), prepared.weight
        self.dynamics = state.Dynamics.from_config(self.config)
        self.learner = rls.init(self.config.rls, self.net, jnp.asarray(wiring.to_groups(self.weight, self.net.group_size)))
        self.keys = state.TrialKeys.create(self.config.seed, state.TRAINING)

    def compiled_iteration(self) -> tuple[Callable[[int], Any], float]:
        """An iteration as a function of its number, from 0, and the seconds of its compilation."""
        import jax.numpy as jnp

        from rlsnet import train

        zero = jnp.int32(0)
        arguments = self.dynamics, self.config.rls, self.net, self.learner, self.target, self.keys, zero, zero
        iterate, compilation = train.compiled(train.iterate, *arguments)

        def learn(index: int) -> Any:
            self.learner, outcome = iterate(
                self.net, self.learner, self.target, self.keys, jnp.int32(index), jnp.int32(index % len(self.target))
            )
            return outcome

        return learn, compilation

    def iterations(self, times: int) -> tuple[list[float], float]:
        """Seconds of each of several iterations, and of their compilation."""
        learn, compilation = self.compiled_iteration()
        return seconds(learn, times), compilation

    def trials(self, times: int) -> list[float]:
        """Seconds of each of several trials with frozen weights."""
        import jax.numpy as jnp

        from rlsnet import evaluate, train

        zero = jnp.int32(0)
        trial, _ = train.compiled(evaluate.run_trial, self.dynamics, False, self.net, self.learner.w, self.keys, zero, zero)
        return seconds(lambda index: trial(self.net, self.learner.w, self.keys, jnp.int32(index), zero), times)

    def delivery(self) -> float:
        """Seconds of sending the spikes of a trial to their targets, from the spikes of ten learning intervals."""
        import jax
        import jax.numpy as jnp
        from jax import lax

        from rlsnet import spikes

        trial, net, w = self.dynamics.trial, self.net, self.learner.w
        keys, steps = self.keys.trial(jnp.int32(0), jnp.int32(0)), 10 * trial.every

        @jax.jit
        def record(net: Any, w: Any) -> Any:
            state = trial.before_learning(self.dynamics, net, w, keys)
            return trial.advance(self.dynamics, net, w, state, keys, steps, record=True)

        @jax.jit
        def send(net: Any, w: Any, state: Any, spiked: Any) -> Any:
            def one(state: Any, spiked: Any) -> tuple[Any, None]:
                state = dataclasses.replace(state, spiked=spiked)
                return step.deliver(self.dynamics, net, w, state, jnp.ones(3, net.bias.dtype), whole=False), None

            return lax.scan(one, state, spiked)[0]

        state, words = record(net, w)
        spiked = lax.map(lambda word: spikes.unpack(word, net.n_neurons), words)
        seconds(lambda _: send(net, w, state, spiked), 1)
        return statistics.median(seconds(lambda _: send(net, w, state, spiked), 3)) * trial.n_steps / steps

    def learning(self) -> tuple[float, float]:
        """Seconds of the updates of an iteration, and the share of inputs that spiked between two updates."""
        import jax
        import jax.numpy as jnp
        from jax import lax

        from rlsnet import rls
        from rlsnet.config import by_class

        trial, kernels, settings = self.dynamics.trial, self.dynamics.kernels, self.config.rls
        keys = self.keys.trial(jnp.int32(0), jnp.int32(0))
        decay = (1 - trial.dt / by_class(self.dynamics.synapse.tau_plas)[0]) ** trial.every

        @jax.jit
        def follow(net: Any, w: Any, target: Any) -> Any:
            def one(state: Any, wanted: Any) -> tuple[Any, Any]:
                state, _ = trial.advance(self.dynamics, net, w, state, keys, trial.every)
                return state, (state.r, state.n_delivered, step.currents(net, state.synapses)[0] - wanted)

            return lax.scan(one, trial.before_learning(self.dynamics, net, w, keys), target)[1]

        def updates(net: Any, learner: Any, points: Any) -> Any:
            def one(carry: Any, point: Any) -> tuple[Any, None]:
                return rls.learn(settings, kernels, net, *carry, decay, *point), None

            carry = learner, rls.begin(settings, kernels, net, learner, trial.n_points)
            return rls.finish(settings, kernels, *lax.scan(one, carry, points)[0])

        points = follow(self.net, self.learner.w, self.target[0])
        run = jax.jit(updates, donate_argnums=1)

        def learn(_: int) -> Any:
            self.learner = run(self.net, self.learner, points)
            return self.learner

        seconds(learn, 1)
        counts = points[1]
        return statistics.median(seconds(learn, 2)), float(jnp.mean(counts[1:] != counts[:-1]))

    def correlation(self) -> float:
        """Seconds of the correlation at the end of an iteration."""
        import jax

        from rlsnet import scores

        currents = self.target[0][::-1] + 0.1
        run = jax.jit(lambda currents, target: scores.current_correlation(self.dynamics.trial, currents, target))
        seconds(lambda _: run(currents, self.target[0]), 1)
        return statistics.median(seconds(lambda _: run(currents, self.target[0]), 3))

    def floor(self, share: float, bandwidth: float) -> float | None:
        """Seconds that the bytes of an iteration's updates take at the bandwidth of a copy; None for the dense form."""
        from rlsnet import rls

        if rls.form(self.config.rls, self.dynamics.kernels, self.net.bias.dtype) == "dense":
            return None
        groups, inputs, size = self.learner.w.shape
        row, points = inputs * self.learner.w.dtype.itemsize, self.dynamics.trial.n_points
        share = share if self.dynamics.kernels == "native" else 1.0  # XLA reads all of P
        rounds = -(-points // rls.PENDING)
        most = points / rounds
        rows = (points - rounds) * share * inputs * row  # rows of P whose input spiked
        pending = points * (most / 2 + 1) * row  # pending rank-one vectors of P, read; and one written
        matrix = (2 * rounds + 1) * inputs * row  # P read and written once a round
        return groups * (rows + pending + matrix + points * 2 * row * (size + 1)) / bandwidth  # w and g, read and written


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


def measure(case: str, iterations: int, device: str, parts: Collection[str] = PARTS) -> dict[str, Any]:
    """The result of one case, measured in this process; only the given parts of an iteration are timed."""
    timed = Case(CASES[case], device)
    result: dict[str, Any] = {
        "case": case,
        "n_neurons": timed.net.n_neurons,
        "static_synapses": timed.net.n_edges,
        "plastic_inputs": timed.net.n_inputs,
        "group_size": timed.net.group_size,
        "device": timed.device,
        "kernels": timed.dynamics.kernels,
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
    if {"iteration", "simulation", "learning"} <= set(parts):
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
    from rlsnet.store import versions

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
    return measure(name, options.iterations, options.device, options.only)


def in_own_process(kind: str, name: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """The result of a task in a process of its own, or None after the message of what failed in it."""
    command = [sys.executable, __file__, "--task", f"{kind}:{name}", "--iterations", str(options.iterations), "--device", options.device]
    command += ["--only", *options.only]
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
