"""Seconds an iteration, where they go, and peak memory; beside another program timed in turn, if one is named.

    python scripts/bench.py                                          # every case
    python scripts/bench.py sinusoid mouse_decision --json benchmarks/cpu.json
    python scripts/bench.py sinusoid --against peer --peer PROGRAM   # PROGRAM N K_e L/2 iterations packed scenario
    python scripts/bench.py sinusoid --against numpy                 # the plain program of the tests, on a short trial
    python scripts/bench.py --scaling benchmarks/scaling.png         # seconds against N, K and L
    python scripts/bench.py --table benchmarks/cpu.json              # what was measured, as in the README
    python scripts/bench.py --device gpu                             # the same on a GPU

Each case runs in a process of its own. Seconds are medians (least to most); compilation is apart. Of an iteration,
"simulation" is a trial with frozen weights, "delivery" the part of it that sends spikes to their targets (the same spikes sent
again, without anything else), "learning" the updates alone (on the filtered spikes of a trial), "correlation" what the
correlation takes at the end. The floor of learning is its bytes over the bandwidth of a pass over 400 MB in the same process.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

CASES = {
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
SHORT = ["stimulus=none", "trial.stim_on=10", "trial.stim_off=20", "trial.duration=100"]  # what NumPy can do in minutes
PLAIN = {"neuron.tau_m": 10.0, "synapse.tau_exc": 3.0, "synapse.tau_inh": 3.0, "synapse.tau_plas": 150.0, "noise.sigma": 0.0}


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
    """An experiment in this process, ready to be timed."""

    def __init__(self, overrides: list[str], device: str):
        import jax.numpy as jnp

        from rlsnet import engine, experiment, rls, wiring
        from rlsnet.api import compose
        from rlsnet.progress import Progress
        from rlsnet.state import TRAINING, Dynamics, TrialKeys

        self.config = compose(*overrides, f"engine.platform={device}")
        self.device = engine.setup(self.config.engine)
        ready = experiment.prepare(self.config, Progress("off"), learning=True)
        self.draw, self.targets = (round(value, 2) for value in ready.seconds)
        self.net, self.target, self.weight = ready.network, jnp.asarray(ready.target), ready.weight
        self.dynamics = Dynamics.from_config(self.config)
        self.learner = rls.init(self.config.rls, self.net, jnp.asarray(wiring.to_groups(ready.weight, self.net.group_size)))
        self.keys = TrialKeys.create(self.config.seed, TRAINING)

    def iterations(self, times: int) -> tuple[list[float], float]:
        """Seconds of whole iterations, and of their compilation."""
        from rlsnet.iteration import Iteration

        iteration = Iteration(self.dynamics, self.config.rls, self.net, self.learner, self.target, self.keys)

        def learn(index: int) -> Any:
            self.learner, outcome = iteration(self.learner, index, index % len(self.target))
            return outcome

        return seconds(learn, times), iteration.seconds

    def trials(self, times: int) -> list[float]:
        """Seconds of trials with frozen weights."""
        import jax.numpy as jnp

        from rlsnet import evaluate
        from rlsnet.trial import Program

        zero = jnp.int32(0)
        trial = Program(evaluate.run_trial, self.dynamics, (False,), self.net, self.learner.w, self.keys, zero, zero)
        return seconds(lambda index: trial(self.net, self.learner.w, self.keys, jnp.int32(index), zero), times)

    def delivery(self) -> float:
        """Seconds a trial of sending spikes, from those of ten learning intervals."""
        import jax
        import jax.numpy as jnp
        from jax import lax

        from rlsnet import spikes
        from rlsnet.step import deliver
        from rlsnet.trial import advance, before_learning

        trial, net, w = self.dynamics.trial, self.net, self.learner.w
        keys, steps = self.keys.trial(jnp.int32(0), jnp.int32(0)), 10 * trial.every

        @jax.jit
        def record(net: Any, w: Any) -> Any:
            state = before_learning(self.dynamics, net, w, keys)
            return advance(self.dynamics, net, w, state, keys, steps, record=True)

        @jax.jit
        def send(net: Any, w: Any, state: Any, spiked: Any) -> Any:
            def one(state: Any, spiked: Any) -> tuple[Any, None]:
                state = dataclasses.replace(state, spiked=spiked)
                return deliver(self.dynamics, net, w, state, jnp.ones(len(state.synapses), net.bias.dtype)), None

            return lax.scan(one, state, spiked)[0]

        state, words = record(net, w)
        spiked = lax.map(lambda word: spikes.unpack(word, net.n_neurons), words)
        seconds(lambda _: send(net, w, state, spiked), 1)
        return statistics.median(seconds(lambda _: send(net, w, state, spiked), 3)) * trial.n_steps / steps

    def learning(self) -> tuple[float, float]:
        """Seconds an iteration of the updates alone, and the share of inputs that spiked between two of them."""
        import jax
        import jax.numpy as jnp
        from jax import lax

        from rlsnet import updates
        from rlsnet.step import currents
        from rlsnet.trial import advance, before_learning

        trial, backend, settings = self.dynamics.trial, self.dynamics.backend, self.config.rls
        keys = self.keys.trial(jnp.int32(0), jnp.int32(0))
        decay = self.dynamics.decay_between_updates(self.net)

        @jax.jit
        def follow(net: Any, w: Any, target: Any) -> Any:
            def one(state: Any, wanted: Any) -> tuple[Any, Any]:
                state, _ = advance(self.dynamics, net, w, state, keys, trial.every)
                return state, (state.r, state.n_delivered, currents(net, state.synapses)[0] - wanted)

            return lax.scan(one, before_learning(self.dynamics, net, w, keys), target)[1]

        def learn_all(net: Any, learner: Any, points: Any) -> Any:
            def one(carry: Any, point: Any) -> tuple[Any, None]:
                return updates.learn(settings, backend, net, *carry, decay, *point), None

            carry = learner, updates.begin(settings, backend, net, learner, trial.n_points)
            return updates.finish(settings, backend, *lax.scan(one, carry, points)[0])

        points = follow(self.net, self.learner.w, self.target[0])
        run = jax.jit(learn_all, donate_argnums=1)

        def learn(_: int) -> Any:
            self.learner = run(self.net, self.learner, points)
            return self.learner

        seconds(learn, 1)
        counts = points[1]
        return statistics.median(seconds(learn, 2)), float(jnp.mean(counts[1:] != counts[:-1]))

    def correlation(self) -> float:
        """Seconds of the correlation at an iteration's end."""
        import jax

        from rlsnet import scores

        currents = self.target[0][::-1] + 0.1
        run = jax.jit(lambda currents, target: scores.current_correlation(self.dynamics.trial, currents, target))
        seconds(lambda _: run(currents, self.target[0]), 1)
        return statistics.median(seconds(lambda _: run(currents, self.target[0]), 3))

    def floor(self, share: float, bandwidth: float) -> float | None:
        """Seconds that the bytes of an iteration's updates take at the bandwidth of a copy; None where there is no saying."""
        from rlsnet.deferred import MAX_PENDING

        if self.dynamics.backend.update == "reference":
            return None
        groups, inputs, size = self.learner.w.shape
        row, points = inputs * self.learner.w.dtype.itemsize, self.dynamics.trial.n_points
        share = share if self.dynamics.backend.update == "native" else 1.0  # XLA reads all of P
        rounds = -(-points // MAX_PENDING)
        most = points / rounds
        rows = (points - rounds) * share * inputs * row  # rows of P whose input spiked
        pending = points * (most / 2 + 1) * row  # vectors that P has yet to take in, read; and one written
        whole = (2 * rounds + 1) * inputs * row  # P read and written once a round
        return groups * (rows + pending + whole + points * 2 * row * (size + 1)) / bandwidth  # w and g, read and written


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


def measure(case: str, iterations: int, device: str) -> dict[str, Any]:
    """One case, in this process."""
    import resource

    import jax

    ready = Case(CASES[case], device)
    whole, compilation = ready.iterations(iterations)
    stats = jax.local_devices()[0].memory_stats() if device == "gpu" else None
    unit = 1 if sys.platform == "darwin" else 1024
    peak = stats["peak_bytes_in_use"] if stats else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    frozen = ready.trials(max(2, iterations // 2))
    learning, share = ready.learning()
    floor = ready.floor(share, bandwidth())
    return {
        "case": case,
        "n_neurons": ready.net.n_neurons,
        "static_synapses": ready.net.n_edges,
        "plastic_inputs": ready.net.n_inputs,
        "group_size": ready.net.group_size,
        "device": ready.device,
        "kernels": ready.dynamics.backend.delivery,
        "iteration": whole,
        "simulation": frozen,
        "delivery": round(ready.delivery(), 4),
        "learning": round(learning, 4),
        "learning_floor": None if floor is None else round(floor, 4),
        "correlation": round(ready.correlation(), 4),
        "rest": round(statistics.median(whole) - statistics.median(frozen) - learning, 4),
        "draw": ready.draw,
        "targets": ready.targets,
        "compile": round(compilation, 2),
        "peak_gb": round(peak / 1e9, 2),
    }


def beside_numpy(case: str) -> dict[str, Any]:
    """A short trial of the case, by us and by the plain program of the tests in one thread, in this process."""
    import numpy as np

    ready = Case([*CASES[case], *SHORT], "cpu")
    config, net = ready.config, ready.net
    for key, value in PLAIN.items():
        section, name = key.split(".")
        if getattr(getattr(config, section), name) != value:
            sys.exit(f"{case}: the plain program knows {key}={value:g} only")
    ours, _ = ready.iterations(5)
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
        "plastic/weight": ready.weight,
        "target": np.asarray(ready.target),
    }
    trial, rls = config.trial, config.rls
    start = time.perf_counter()
    reference.train(arrays, 1, dt=trial.dt, stim_off=trial.stim_off, every=trial.learn_every, lam=rls.penlambda, mu=rls.penmu,
                    group_size=net.group_size)  # fmt: skip
    return {"case": case, "short_iteration": ours, "numpy": round(time.perf_counter() - start, 2)}


def scaling(key: str, value: int, device: str) -> dict[str, Any]:
    """The default network with one size changed, in this process."""
    ready = Case(["config=sinusoid", f"{key}={value}"], device)
    whole, _ = ready.iterations(5)
    return {"value": value, "iteration": statistics.median(whole), "simulation": statistics.median(ready.trials(3))}


def draw(curves: dict[str, list[dict[str, Any]]], path: Path) -> dict[str, float]:
    """Draws seconds against each size; the exponents of power laws through the largest three points."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    names = {"network.n_neurons": "neurons N", "static.out_degree": "static outputs K", "plastic.n_inputs": "plastic inputs L"}
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharey=True, layout="constrained")
    exponents = {}
    for axis, (key, points) in zip(axes, curves.items(), strict=True):
        x = [point["value"] for point in points]
        parts = {
            "iteration": [p["iteration"] for p in points],
            "simulation": [p["simulation"] for p in points],
            "learning": [p["iteration"] - p["simulation"] for p in points],
        }
        for name, y in parts.items():
            exponents[f"{key} {name}"] = round(float(np.polyfit(np.log(x[-3:]), np.log(y[-3:]), 1)[0]), 2)
            axis.loglog(x, y, "o-", label=f"{name}, exponent {exponents[f'{key} {name}']:.2f}")
        axis.set(xlabel=names[key])
        axis.set_xticks(x, [str(value) for value in x], fontsize=8)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, frameon=False)
    axes[0].set(ylabel="seconds an iteration")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return exponents


def peer_arguments(case: str, iterations: int) -> list[str]:
    """What the peer is called with for the network of a case; it knows no groups of neurons."""
    from rlsnet.api import compose

    config = compose(*CASES[case])
    n, scenario = (66002, "mouse") if case.startswith("mouse") else (config.network.n_neurons, "sinusoid")
    sizes = [n, config.static.out_degree // 2, config.plastic.n_inputs // 2, iterations, 0]
    return [*map(str, sizes), scenario]


def peer(program: str, arguments: list[str]) -> list[float]:
    """Seconds an iteration of the peer, its first (without learning) left out."""
    output = subprocess.run([program, *arguments], capture_output=True, text=True, check=True).stdout
    return [float(s) for s in re.findall(r"^iteration [1-9]\d* seconds ([\d.]+)", output, re.MULTILINE)]


def machine() -> dict[str, str]:
    """Processor, versions and date."""
    from rlsnet.store import versions

    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else [platform.processor()]
    return {"cpu": f"{os.cpu_count()} x {names[0]}", "system": platform.system(), "date": str(datetime.date.today()), **versions()}


def table(path: Path) -> str:
    """The results in a file of --json as the rows of a Markdown table."""
    results = json.loads(path.read_text())["results"]
    lines = ["| case | iteration | simulation | its delivery | learning | its floor | peer | peer/ours | peak |", "|---" * 9 + "|"]
    for case, result in results.items():
        if "learning" not in result:
            continue
        whole, peers = statistics.median(result["iteration"]), result.get("peer")
        cells = [whole, statistics.median(result["simulation"]), result["delivery"], result["learning"], result["learning_floor"]]
        rival = [f"{statistics.median(peers):.3g} s", f"{statistics.median(peers) / whole:.1f}"] if peers else ["", ""]
        figures = ["" if cell is None else f"{cell:.2g} s" if cell < 1 else f"{cell:.3g} s" for cell in cells]
        lines.append("| " + " | ".join([f"`{case}`", *figures, *rival, f"{result['peak_gb']} GB"]) + " |")
    return "\n".join(lines)


def words(values: list[float]) -> str:
    """Median (least to most)."""
    return f"{statistics.median(values):.3g} s ({min(values):.3g}-{max(values):.3g})"


def show(result: dict[str, Any]) -> str:
    """A few lines on one case."""
    if "numpy" in result:
        ratio = result["numpy"] / statistics.median(result["short_iteration"])
        short = f"{result['case']} with {SHORT[-1]}"
        return f"{short}: {words(result['short_iteration'])}; plain NumPy {result['numpy']} s, {ratio:,.0f} times ours"
    lines = [f"{result['case']:<18} {words(result['iteration'])} an iteration, {result['kernels']} kernels, peak {result['peak_gb']} GB"]
    floor = "" if result["learning_floor"] is None else f" (floor {result['learning_floor']:.3g})"
    lines.append(
        f"simulation {words(result['simulation'])}, of which delivery {result['delivery']:.3g}; learning {result['learning']:.3g}{floor};"
        f" rest {result['rest']:.3g}, of which correlation {result['correlation']:.3g}"
    )
    lines.append(f"network drawn in {result['draw']} s, targets made in {result['targets']} s, compiled in {result['compile']} s")
    if result.get("peer"):
        ratio = statistics.median(result["peer"]) / statistics.median(result["iteration"])
        lines.append(f"peer {words(result['peer'])}: {ratio:.2f} times ours")
    return "\n    ".join(lines)


def main() -> None:
    """Runs what is asked for, prints it, and writes all of it as JSON if told to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="*", help=f"of {', '.join(CASES)}; none: all but million, which needs 60 GB")
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--against", choices=("peer", "numpy"), help="what to time beside ours")
    parser.add_argument("--peer", help="the program of --against peer")
    parser.add_argument("--scaling", type=Path, help="time the default network at other sizes and draw this picture")
    parser.add_argument("--json", type=Path, help="file for the results, added to those of other cases in it")
    parser.add_argument("--table", type=Path, help="print the table of such a file, and do nothing else")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # what to do in this process: JSON on stdout
    options = parser.parse_args()
    if unknown := set(options.case) - set(CASES):
        parser.error(f"{', '.join(unknown)}: expected to be of {', '.join(CASES)}")
    if options.against == "peer" and not options.peer:
        parser.error("--against peer: should come with --peer PROGRAM")
    if options.table:
        print(table(options.table))
        return
    if options.one:
        print(json.dumps(here(*options.one.split(":"), options)))
        return
    about = machine()
    print(", ".join(f"{k} {v}" for k, v in about.items()), flush=True)
    results: dict[str, Any] = {}
    peers: dict[str, list[float]] = {}
    everything = [] if options.scaling else [case for case in CASES if case != "million"]
    for case in options.case or everything:
        network = peer_arguments(case, options.iterations) if options.against == "peer" and not case.startswith("million") else []
        once = network and str(network) not in peers
        if once:
            peers[str(network)] = peer(options.peer, network)  # before ours, and after
        result = apart("numpy" if options.against == "numpy" else "case", case, options)
        if once:
            peers[str(network)] += peer(options.peer, network)
        if result is not None and network:
            result["peer"] = peers[str(network)]
        if result is not None:
            print(show(result), flush=True)
            results[f"{case} against numpy" if "numpy" in result else case] = result
    if options.scaling:
        curves = {key: [p for v in values if (p := apart("scaling", f"{key}={v}", options))] for key, values in SCALING.items()}
        exponents = draw(curves, options.scaling)
        print("\n".join(f"{name}: exponent {value:.2f}" for name, value in exponents.items()))
        results["scaling"] = {"curves": curves, "exponents": exponents}
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        before = json.loads(options.json.read_text())["results"] if options.json.exists() else {}
        for result in results.values():
            result["machine"] = about
        options.json.write_text(json.dumps({"results": {**before, **results}}, indent=1) + "\n")


def here(kind: str, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The task of this process."""
    if kind == "numpy":
        return beside_numpy(name)
    if kind == "scaling":
        key, value = name.split("=")
        return scaling(key, int(value), options.device)
    return measure(name, options.iterations, options.device)


def apart(kind: str, name: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """The result of a process of its own, or None after saying what went wrong in it."""
    command = [sys.executable, __file__, "--one", f"{kind}:{name}", "--iterations", str(options.iterations), "--device", options.device]
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
