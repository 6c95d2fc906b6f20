"""Seconds of an iteration and of its parts, peak memory, and the least time of each part; if wanted, beside another program.

    python scripts/bench.py --all                                    # all tables of README.md and docs/performance.md, and the picture
    python scripts/bench.py --write-docs                             # writes these tables into both from benchmarks/cpu.json
    python scripts/bench.py sinusoid mouse_decision_published --json results.json
    python scripts/bench.py sinusoid --only iteration                # one part of a result, in less time
    python scripts/bench.py sinusoid --against peer                  # the C program benchmarks/peer, before and after ours
    python scripts/bench.py sinusoid --against numpy                 # the plain NumPy program of the tests, on a short trial
    python scripts/bench.py --study trials threads kernels           # trials an update; number of cores; instruction sets
    python scripts/bench.py sinusoid --study threads                 # one of them for one case
    python scripts/bench.py --scaling scaling.png                    # seconds against N, K, L, trials and cores
    python scripts/bench.py --table benchmarks/cpu.json              # the tables of a file of results
    python scripts/bench.py sinusoid --device gpu                    # the same on a GPU

Each case runs in a process of its own. Seconds are medians (least to most), compilation apart. The first repetition is left out; after
20 s no further one starts, but for one (and none of the peer). Parts of an iteration: "simulation" is one trial with frozen weights;
"delivery" is what its spikes cost: its difference to a trial in which no neuron fires; "learning" is the updates alone (from the
filtered spikes of a trial); "correlation" is the score at the end. The least time of a part is that of its memory accesses by
benchmarks/floor on all cores, and that of its random numbers.
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

import bench_case
import bench_programs
import bench_report
from bench_case import Case

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "benchmarks" / "cpu.json"
PICTURE = ROOT / "benchmarks" / "scaling.png"
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
    "million_small_memory": ["config=million_small_memory"],
}
ONLY_BY_NAME = ("tiny", "sinusoid_8_trials", "mouse_decision_published_8_trials", "million", "million_small_memory")
WITH_PEER = ("sinusoid", "sinusoid_64", "sinusoid_xla", "ten_thousand", "ten_thousand_64", "mouse_decision_published",
             "mouse_decision_published_64")  # fmt: skip
SCALING = {
    "network.n_neurons": [1024, 4096, 16384, 32768],
    "static.out_degree": [64, 256, 1024, 2048],
    "plastic.n_inputs": [16, 64, 128, 256],
    "train.trials_per_update": [1, 2, 4, 8],
    "cores": [],  # 1, 2, 4 and so on, and all
}
TRIALS = {"mouse_decision_published": (1, 2, 4, 8)}
SHORT = ["trial.stim_on=80", "trial.stim_off=100", "trial.duration=100"]
THREADS = {  # overrides and parts of the case for each number of cores
    "sinusoid": ([], ["iteration", "simulation"]),
    "mouse_decision_published_64": ([], ["iteration", "simulation"]),
    "million_128": (SHORT, ["simulation"]),  # a trial of 0.2 s
}
KERNELS = {"sinusoid": ("default", "v3"), "mouse_decision_published_64": ("default", "v3")}  # values of RLSNET_KERNELS
PARTS = ("iteration", "simulation", "delivery", "learning", "correlation")
STUDIES = ("trials", "threads", "kernels")
IN_NUMPY = ["stimulus=none", "trial.stim_on=10", "trial.stim_off=20", "trial.duration=100"]  # a whole trial takes minutes
REFERENCE_VALUES = {"neuron.tau_m": 10.0, "synapse.tau_exc": 3.0, "synapse.tau_inh": 3.0, "synapse.tau_plas": 150.0, "noise.sigma": 0.0}


def peak_bytes(device: str) -> int:
    """Peak memory of this process: that of the GPU, or the resident memory of the process on a CPU."""
    import resource

    import jax

    stats = jax.local_devices()[0].memory_stats() if device == "gpu" else None
    unit = 1 if sys.platform == "darwin" else 1024
    return stats["peak_bytes_in_use"] if stats else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@dataclasses.dataclass(frozen=True)
class Task:
    """What a process of its own measures.

    case: name in CASES.
    overrides: further settings.
    parts: of PARTS.
    iterations: largest number of repetitions.
    device: cpu or gpu.
    cores: number of cores; 0: all.
    numpy: whether to time the plain NumPy program instead, on a short trial.
    """

    case: str
    overrides: list[str] = dataclasses.field(default_factory=list)
    parts: list[str] = dataclasses.field(default_factory=lambda: list(PARTS))
    iterations: int = 5
    device: str = "cpu"
    cores: int = 0
    numpy: bool = False


def measure(task: Task) -> dict[str, Any]:
    """The result of a task, measured in this process; least seconds are missing."""
    timed, parts = Case([*CASES[task.case], *task.overrides], task.device), {}
    result: dict[str, Any] = {
        "case": task.case,
        "n_neurons": timed.net.n_neurons,
        "static_synapses": timed.net.n_edges,
        "plastic_inputs": timed.net.n_inputs,
        "group_size": timed.net.group_size,
        "device": timed.device,
        "kernels": timed.dynamics.backend.delivery,
        "threads": timed.threads(),
        "draw": timed.draw,
        "targets": timed.targets,
    }
    if "simulation" in task.parts:  # before iterations, of which there are more on a faster machine: the weights are the initial ones
        result["simulation"] = timed.trials(max(2, task.iterations // 2))
    if "delivery" in task.parts:  # at once after that, as the speed of a machine changes
        silent = statistics.median(timed.trials(max(2, task.iterations // 2), fire=False))
        parts |= timed.delivery(statistics.median(result["simulation"]), silent) | timed.neurons(silent)
        result["delivery"] = parts["delivery"].seconds
    if "iteration" in task.parts:
        result["iteration"], compilation = timed.iterations(task.iterations)
        result["compile"] = round(compilation, 2)
        result["peak_gb"] = round(peak_bytes(task.device) / 1e9, 2)
    if "learning" in task.parts:
        learning = timed.learning()
        result["learning"] = sum(part.seconds for part in learning.values())
        parts |= learning
    if "correlation" in task.parts:
        result["correlation"] = timed.correlation()
    one_trial = timed.config.train.trials_per_update == 1  # as are simulation and learning
    if one_trial and {"iteration", "simulation", "learning"} <= set(task.parts):
        result["rest"] = statistics.median(result["iteration"]) - statistics.median(result["simulation"]) - result["learning"]
    result["parts"] = {name: dataclasses.asdict(part) for name, part in parts.items()}
    return result | {name: digits for name, digits in (("weights", timed.checksum), ("currents", timed.trial_checksum)) if digits}


def with_floor(result: dict[str, Any]) -> dict[str, Any]:
    """The result with the least seconds of its parts, of which those of learning are added up, and the probes of benchmarks/floor."""
    needs = {name: part.pop("needs") for name, part in result["parts"].items()}
    probes = {probe for part in needs.values() for probe, _ in part if probe != "seconds"}
    if not probes or not result["device"].startswith("cpu"):
        return result
    try:
        result["probes"] = cost = bench_programs.floor(probes | {"pass=1073741824", "read=1073741824"})
    except SystemExit as missing:  # a compiler: all else is measured
        print(f"without floors: {missing}", flush=True)
        return result
    for name, part in result["parts"].items():
        part["floor"] = sum(amount * (1 if probe == "seconds" else cost[probe]["all"] * 1e-9) for probe, amount in needs[name]) or None
    learning = [part["floor"] for name, part in result["parts"].items() if name.startswith("learning")]
    if learning and all(learning):
        result["learning_floor"] = sum(learning)
    return result


def beside_numpy(case: str) -> dict[str, Any]:
    """Seconds of a short trial of the case, by rlsnet and by the plain NumPy program of the tests in one thread, in this process."""
    import numpy as np

    timed = Case([*CASES[case], *IN_NUMPY], "cpu")
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


def peer_arguments(case: str, iterations: int) -> list[str]:
    """Arguments of the peer for the network of a case, see benchmarks/peer/run.sh; the peer has no groups of neurons."""
    from rlsnet.api import compose

    config = compose(*CASES[case])
    n, scenario = (66002, "mouse") if case.startswith("mouse") else (config.network.n_neurons, "sinusoid")
    sizes = [n, config.static.out_degree // 2, config.plastic.n_inputs // 2, iterations, 0]
    return [*map(str, sizes), scenario, f"{bench_case.LIMIT:g}"]


def instructions() -> str:
    """The best kind of processor that this one is, such as x86-64-v4, or its machine type."""
    from rlsnet.kernels import processors

    return next((kind.march for kind in processors.here()), platform.machine())


def machine() -> dict[str, str]:
    """Processor, versions and date."""
    from rlsnet.runs.folder import versions

    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else [platform.processor()]
    about = {"cpu": f"{os.cpu_count()} x {(names or [platform.processor()])[0]}", "instructions": instructions()}
    return about | {"system": platform.system(), "date": str(datetime.date.today()), **versions()}


def cores() -> list[int]:
    """Numbers of cores to compare: 1, 2, 4 and so on, and all."""
    available = bench_case.cores()
    return sorted({*(2**power for power in range(available.bit_length()) if 2**power < available), available})


def arguments() -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = f"all but {', '.join(ONLY_BY_NAME)}"
    parser.add_argument("case", nargs="*", help=f"any of {', '.join(CASES)}; none: {usual} (million needs 60 GB)")
    parser.add_argument("--all", action="store_true", help=f"{usual}, beside peer and NumPy, all studies and the picture, to --json anew")
    parser.add_argument("--iterations", type=int, default=5, help="largest number of repetitions")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts of an iteration to time; none: all")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--cores", type=int, default=0, help="number of cores of the cases; default: all")
    parser.add_argument("--kernels", default="", help="engine.kernels of all cases; default: that of the case")
    parser.add_argument("--against", choices=("peer", "numpy"), help="a program to time beside ours")
    parser.add_argument("--peer", type=Path, help="another program with the arguments of benchmarks/peer/run.sh, for --against peer")
    parser.add_argument("--study", nargs="+", choices=STUDIES, default=[], help="what to vary in the named cases, or in the usual ones")
    parser.add_argument("--scaling", type=Path, help="time the default network at other sizes and draw this picture")
    parser.add_argument("--json", type=Path, help="file for the results, added to those of other cases in it")
    parser.add_argument("--table", type=Path, help="print the tables of such a file, and do nothing else")
    parser.add_argument("--write-docs", action="store_true", help=f"write the tables of {STORED.relative_to(ROOT)}, and do nothing else")
    parser.add_argument("--task", help=argparse.SUPPRESS)  # of a process of its own: its result goes to stdout as JSON
    options = parser.parse_args()
    if unknown := set(options.case) - set(CASES):
        parser.error(f"{', '.join(unknown)}: expected any of {', '.join(CASES)}")
    if options.all:
        if options.case or options.study or options.scaling or options.against:
            parser.error("--all: expected no case, --study, --scaling or --against with it")
        options.study, options.against, options.scaling = list(STUDIES), "peer", PICTURE
        options.json = options.json or STORED
    if not (options.case or options.study or options.scaling) or options.all:
        options.case = [case for case in CASES if case not in ONLY_BY_NAME]
    if "delivery" in options.only and "simulation" not in options.only:
        parser.error(f"--only {' '.join(options.only)}: expected simulation among them with delivery")
    if options.against == "peer" and "iteration" not in options.only:
        parser.error(f"--only {' '.join(options.only)}: expected iteration among them with --against peer")
    return options


def measure_cases(options: argparse.Namespace, save: Callable[[str, Any], None]) -> None:
    """Times the cases of the command line; each result is printed and saved as it comes."""
    peers: dict[str, list[float]] = {}
    overrides = [f"engine.kernels={options.kernels}"] * bool(options.kernels)
    for case in options.case:
        task = Task(case, overrides, list(options.only), options.iterations, options.device, options.cores, options.against == "numpy")
        network = peer_arguments(case, options.iterations) if options.against == "peer" and case in WITH_PEER else []
        first = network and str(network) not in peers  # cases that differ in groups alone share the peer's figures
        if first:
            peers[str(network)] = bench_programs.peer(options.peer, network)  # before ours
        result = in_own_process(task)
        if first and sum(peers[str(network)]) < bench_case.LIMIT:
            peers[str(network)] += bench_programs.peer(options.peer, network)  # and after
        if result is None:
            continue
        if network:
            result["peer"] = peers[str(network)]
        print(bench_report.summary(result), flush=True)
        save(f"{case} against numpy" if "numpy" in result else case, result)


def chosen(usual: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """What is varied in each case of a study; in a named case that is not among the usual ones, what is varied in the first of these."""
    if options.all or not options.case:
        return usual
    return {case: usual.get(case, next(iter(usual.values()))) for case in options.case}


def study_trials(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Iterations with several trials an update."""
    results = []
    for case, numbers in chosen(TRIALS, options).items():
        for number in numbers:
            task = Task(case, [f"train.trials_per_update={number}"], ["iteration"], options.iterations, options.device)
            if result := in_own_process(task):
                results.append({**result, "trials": number})
    return results


def study_threads(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Cases on some of the cores."""
    results = []
    for case, (overrides, parts) in chosen(THREADS, options).items():
        for count in cores():
            if result := in_own_process(Task(case, overrides, parts, options.iterations, options.device, count)):
                results.append({**result, "cores": count})
    return results


def study_kernels(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Cases with native kernels for older processors; each is measured twice, in turn, as the speed of a machine changes meanwhile."""
    results = []
    for case, levels in chosen(KERNELS, options).items():
        measured: dict[str, list[dict[str, Any]]] = {level: [] for level in levels}
        for level in (*levels, *reversed(levels)):
            task = Task(case, [], ["iteration", "simulation", "learning"], options.iterations)
            if result := in_own_process(task, {"RLSNET_KERNELS": level} if level != "default" else {}):
                measured[level].append(result)
        for level, both in measured.items():
            if both:
                seconds = {part: [second for result in both for second in result[part]] for part in ("iteration", "simulation")}
                learning = statistics.mean(result["learning"] for result in both)
                results.append({**both[0], **seconds, "learning": learning, "level": level})
    return results


def study_scaling(options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Median seconds of the default network, with one quantity changed, for each value of it."""
    curves: dict[str, list[dict[str, Any]]] = {}
    for key, values in {**SCALING, "cores": cores()}.items():
        curves[key] = []
        for value in values:
            changed, count = ([], value) if key == "cores" else ([f"{key}={value}"], 0)
            if result := in_own_process(Task("sinusoid", changed, ["iteration", "simulation"], 3, options.device, count)):
                curves[key].append({"value": value, **{part: statistics.median(result[part]) for part in ("iteration", "simulation")}})
    return curves


def save_results(path: Path | None, about: dict[str, str], name: str, result: Any) -> None:
    """Adds a result to a file of --json, whose results are all of one machine and the same versions."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = json.loads(path.read_text()) if path.exists() else {"machine": about, "commands": [], "results": {}}
    if {**stored["machine"], "date": about["date"]} != about:
        sys.exit(f"{path} has results of another machine or other versions: choose another file")
    command = " ".join(["bench.py", *sys.argv[1:]])
    stored["commands"] += [command] * (command not in stored["commands"])
    stored["results"][name] = result
    path.write_text(json.dumps(stored, indent=1) + "\n")


def main() -> None:
    """Measures what the command line asks for, prints the results, and writes them as JSON with --json."""
    options = arguments()
    if options.table:
        print("\n\n".join(bench_report.tables(json.loads(options.table.read_text())).values()))
        return
    if options.write_docs:
        bench_report.write_docs(STORED, ROOT)
        return
    if options.task:
        print(json.dumps(run_task(Task(**json.loads(options.task)))))
        return
    about, done = machine(), []
    if options.all:
        options.json.unlink(missing_ok=True)  # all results are of one run
    print(", ".join(f"{k} {v}" for k, v in about.items()), flush=True)

    def save(name: str, result: Any) -> None:
        done.append(name)
        save_results(options.json, about, name, bench_report.rounded(result))

    if options.all or not (options.study or options.scaling):
        measure_cases(options, save)
    if options.all and (result := in_own_process(Task("sinusoid", numpy=True))):
        print(bench_report.summary(result), flush=True)
        save("sinusoid against numpy", result)
    for name, study in (("trials", study_trials), ("threads", study_threads), ("kernels", study_kernels)):
        if name in options.study and (results := study(options)):
            print(bench_report.STUDIES[name](results), flush=True)
            save(name, results)
    if options.scaling:
        curves = study_scaling(options)
        exponents = bench_report.draw_scaling(curves, options.scaling)
        print("\n".join(f"{name}: exponent {value:.2f}" for name, value in exponents.items()))
        save("scaling", {"curves": curves, "exponents": exponents})
    sys.exit(not done)


def run_task(task: Task) -> dict[str, Any]:
    """The result of the one task of this process."""
    if task.cores:
        bench_case.use_cores(task.cores)
    return beside_numpy(task.case) if task.numpy else measure(task)


def in_own_process(task: Task, variables: dict[str, str] | None = None) -> dict[str, Any] | None:
    """The result of a task in a process of its own, or None after the message of what failed in it; variables: of its environment."""
    command = [sys.executable, __file__, "--task", json.dumps(dataclasses.asdict(task))]
    environment = {**os.environ, **(variables or {}), "JAX_ENABLE_COMPILATION_CACHE": "false"}  # compilation is timed from scratch
    if task.numpy:
        environment.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        print(f"{task.case:<18} {(done.stderr.strip().splitlines() or [f'exit status {done.returncode}'])[-1]}", flush=True)
        return None
    result = json.loads(done.stdout.splitlines()[-1]) | {"process": round(time.perf_counter() - start, 1)}
    return with_floor(result) if result.get("parts") else result


if __name__ == "__main__":
    main()
