"""Least time and memory of rlsnet's CUDA kernels, from sizes and from figures of a GPU, beside what was measured.

    python scripts/gpu/model.py
    python scripts/gpu/model.py mouse_decision million --device b200 --set rate=8 B=4
    python scripts/gpu/model.py --measured benchmarks/gpu/*.json

A time is a floor: bytes over the bandwidth of a copy (that of the second-level cache where it holds all that is passed over), atomic
additions over their rate, and barriers and launches at the cost of empty ones. Left out: latencies of reads that wait for each other,
arithmetic, and unequal loads.

Simulation is one launch for all steps of a learning interval. A step sends the spikes of the last one ("deliver": an atomic addition for
each target), moves all neurons ("move"), and waits for all blocks after each. B trials run side by side between the same two barriers.
Learning is one update for all B trials: a "sparse" one reads the rows of P of inputs that spiked in any of them, every Qth is "dense" and
reads and writes P, and "flush" writes it at the end of a trial. The rest of an interval are small kernels of XLA.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from bench import CASES  # noqa: E402

SHOWN = ("sinusoid", "mouse_decision_published", "mouse_decision", "million", "million_128")
RECORDING = 66_002, 2  # units and conditions of the synthetic recording, which a configuration does not know
FLOAT, SECTOR = 4, 32  # bytes of a number, and the least that memory gives
MOST_PENDING, STATE = 16, 20  # updates, and numbers of a neuron and trial, as in rlsnet.learning.deferred and in rlsnet's memory plan
USABLE = 0.92  # share of a GPU's memory that JAX can be given
SMALL_KERNELS = 20  # of XLA in a learning interval, two of them the early delivery: counted in the compiled program
FIXED_KERNELS, FIXED_KERNEL = 13, 2.6e-6  # of a step of fixed_shape: counted; 34 us a step, mouse_decision_published on an H200
RENAMED = {("2026-11-27T02:46:45+00:00", "mouse_decision"): "mouse_decision_published"}  # results under a former name of a case
NOTE = (
    "A measured figure is compared with the floor at the rate and share that were measured. It is below 1 for fixed_shape, which is fitted"
    " to mouse_decision_published, with sinusoid, whose kernels are shorter, and for a step of the prototype with the million, whose rate"
    " changed from run to run, so that the run that was timed need not have had the mean rate."
)
UNITS = {"step": 1e6, "sparse": 1e3, "dense": 1e3}  # us, ms and ms; other times are in s


@dataclasses.dataclass(frozen=True)
class Device:
    """Figures of a GPU, in bytes and seconds."""

    name: str
    source: str
    copy: float  # bytes a second, read and written
    cache: float  # the same within the second-level cache: 5,120 bytes a clock, NVIDIA's figure for the A100, taken for all
    atomics: float  # additions a second at random places within that cache
    far_atomics: float  # the same beyond it
    barrier: float  # of all blocks, one on each processor
    launch: float  # of a kernel: 2.1 us on an H100 (Hazy Research, "No Bubbles", 2025)
    processors: int
    l2: float
    memory: float

    def like(self, name: str, copy: float, processors: int, clock: float, l2: float, memory: float) -> Device:
        """A GPU that was not measured: atomics in proportion to processors and clock, or to bandwidth; barrier and launch as here."""
        atomics = self.atomics * processors * clock / (self.processors * CLOCK)
        far = self.far_atomics * copy / self.copy
        return Device(name, "estimated", copy, 5120 * clock, atomics, far, self.barrier, self.launch, processors, l2, memory)


CLOCK = 1.98e9
MEASURED = "measured (benchmarks/gpu/h200-2026-11-27.md), but cache and launch"
H200 = Device("H200", MEASURED, 3.95e12, 5120 * CLOCK, 104.5e9, 17.1e9, 0.94e-6, 2.1e-6, 132, 63e6, 150e9)
COPY_SHARE = H200.copy / 4.8e12  # of the published peak bandwidth
DEVICES = {
    "a100": H200.like("A100", 2.0e12 * COPY_SHARE, 108, 1.41e9, 40e6, 80e9),
    "h100": H200.like("H100", 3.0e12, 132, CLOCK, 50e6, 80e9),
    "h200": H200,
    "b200": H200.like("B200", 8.0e12 * COPY_SHARE, 148, 1.965e9, 126e6, 180e9),
}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes and rates of an experiment, under the names of --set."""

    N: int  # neurons
    K: int = 0  # static outputs of a neuron
    L: int = 0  # plastic inputs from neurons
    S: int = 1  # neurons of a group
    X: int = 0  # feed-forward neurons, inputs of every group
    B: int = 1  # trials side by side
    C: int = 1  # conditions, for the memory of targets
    stored: int = 1  # 1: static edges in memory; 0: drawn again for each spike
    rate: float = 5.5  # Hz, mean rate of neurons
    x_rate: float = 0.0  # Hz, of feed-forward neurons
    dt: float = 0.1  # ms
    steps: int = 20_000  # of a trial
    block: int = 10  # steps between two writes of the filters
    points: int = 100  # learning points of a trial
    interval: int = 100  # steps between two
    every: int = 1  # learning points of an update
    share: float = -1.0  # of inputs that spiked since the last update; below 0: from the rates
    regressors: str = "spikes"  # or rates

    @property
    def updates(self) -> int:
        """Updates of a trial."""
        return self.points // self.every

    @property
    def rounds(self) -> int:
        """Dense updates of a trial."""
        return -(-self.updates // MOST_PENDING)

    @property
    def Q(self) -> int:
        """Updates from one dense update to the next."""
        return -(-self.updates // self.rounds)

    @property
    def rows(self) -> float:
        """Share of the rows of P that a sparse update reads."""
        if self.regressors == "rates" or self.share >= 0:
            return 1.0 if self.regressors == "rates" else self.share
        seconds = self.B * self.every * self.interval * self.dt * 1e-3
        spiked = -self.L * math.expm1(-self.rate * seconds) - self.X * math.expm1(-self.x_rate * seconds)
        return spiked / max(self.L + self.X, 1)


def sizes_of(case: str) -> Sizes:
    """Sizes of a case of scripts/bench.py, from its configuration."""
    from rlsnet.api import compose
    from rlsnet.config.schema import has_transfer_formula

    config = compose(*CASES[case])
    static, plastic, trial, rls, fed = config.static, config.plastic, config.trial, config.rls, config.feedforward
    n, conditions = (config.network.n_neurons or RECORDING[0]), (RECORDING[1] if config.target.recorded else config.target.n_conditions)
    rates = rls.regressors == "rates" or (rls.regressors == "auto" and has_transfer_formula(config.neuron))
    return Sizes(
        N=n, K=getattr(static, "out_degree", 0), L=plastic.n_inputs, S=plastic.group_size, X=fed.n_inputs(trial, None),
        B=config.train.trials_per_update, C=conditions,
        stored=int(getattr(static, "storage", "stored") == "stored"), x_rate=getattr(fed, "mean", 0.0), dt=trial.dt, steps=trial.n_steps,
        block=trial.block, points=trial.n_points, interval=trial.every, every=rls.every, regressors="rates" if rates else "spikes",
    )  # fmt: skip


def work(s: Sizes) -> dict[str, float]:
    """Spikes and atomic additions of a step, and bytes of a step's delivery, of its move, and of each kind of update."""
    own, fed = s.B * s.N * s.rate * s.dt * 1e-3, s.B * s.X * s.x_rate * s.dt * 1e-3
    static, plastic = own * s.K, own * s.L + fed * s.N
    filters = 3 if s.K else 1
    moved = filters + 4 + (filters + 4) / s.block  # filters, v, until, bias read, v written; at times filters written, r and sum updated
    width = s.L + s.X
    row = -(-s.N // s.S) * width * FLOAT  # a number of each input of each group
    others = 1 + 2 + 2 * s.S + 2  # a vector u written, g and w read and written, pre and x read
    return {
        "spikes": own + fed,
        "atomics": static + plastic,
        # list, r and count of a spike; post; out_slot of a group; w, of which at least a sector is read
        "deliver": FLOAT * (5 * (own + fed) + s.stored * static) + plastic * (FLOAT / s.S + max(FLOAT, SECTOR / s.S)),
        "move": s.B * s.N * (FLOAT * moved + 1),  # and a byte for the class
        "sparse": row * (s.rows * width + s.Q / 2 + others),
        "dense": row * (2 * width + s.Q + others),
        "flush": row * (2 * width + s.Q),
    }


def memory(s: Sizes) -> dict[str, float]:
    """Bytes by purpose: w with pre and out_slot, u with g."""
    width = s.L + s.X
    row = -(-s.N // s.S) * width * FLOAT
    static = s.N * s.K * s.stored * FLOAT
    state, targets = s.B * s.N * STATE * FLOAT, s.C * s.points * s.N * FLOAT
    return {"P": row * width, "w": row * (s.S + 2), "u": row * (s.Q + 1), "static": static, "state": state, "targets": targets}


def launches(s: Sizes) -> float:
    """Launches in a learning interval: XLA's kernels, the steps, and both kinds of update, one of which returns at once."""
    return SMALL_KERNELS + 1 + 2 / s.every


def times(d: Device, s: Sizes) -> dict[str, float]:
    """Least seconds of a step and its parts, of an update, and of an iteration and its parts."""
    amount, held, filters = work(s), memory(s), 3 if s.K else 1

    def passing(size: float, room: float) -> float:
        return size / (d.cache if room <= d.l2 else d.copy)

    near = min(1.0, d.l2 / (s.N * filters * FLOAT))  # share of the currents of a trial that the cache holds; one trial after the other
    adding = amount["atomics"] * (near / d.atomics + (1 - near) / d.far_atomics)
    deliver = max(adding, passing(amount["deliver"], held["static"] + held["w"]))
    move = passing(amount["move"], s.B * s.N * FLOAT * (filters + 6))
    step = deliver + move + 2 * d.barrier
    room = held["P"] + held["w"] + held["u"]
    sparse, dense, flush = (passing(amount[kind], room) for kind in ("sparse", "dense", "flush"))
    sparse, dense, flush = sparse + 2 * d.launch, dense + 2 * d.launch, flush + d.launch
    simulation = s.steps * step + (s.points + 1) * d.launch
    learning = s.rounds * dense + (s.updates - s.rounds) * sparse + flush
    rest = s.points * SMALL_KERNELS * d.launch
    return {"deliver": deliver, "move": move, "barriers": 2 * d.barrier, "step": step, "sparse": sparse, "dense": dense, "flush": flush,
            "simulation": simulation, "learning": learning, "rest": rest, "iteration": simulation + learning + rest}  # fmt: skip


def fixed_shape(d: Device, s: Sizes) -> dict[str, float]:
    """The same for fixed_shape, fitted to one case: kernels one after the other; updates read all of P, some write it in a second pass."""
    t = times(d, dataclasses.replace(s, share=1.0))
    step = FIXED_KERNELS * FIXED_KERNEL + t["deliver"] + t["move"]
    learning = s.updates * t["sparse"] + s.rounds * t["flush"]
    return t | {"step": step, "simulation": s.steps * step, "learning": learning, "iteration": s.steps * step + learning + t["rest"]}


def measured_results(paths: Iterable[Path], d: Device) -> list[dict[str, Any]]:
    """Results of gpu_check.sh and of bench.py --json on a device, each with its case."""
    found = []
    for data in (json.loads(path.read_text()) for path in paths):
        for case, result in (data["results"] if "results" in data else data.get("bench", {})).items():
            if d.name in result.get("device", ""):
                found.append({**result, "case": RENAMED.get((data.get("date", ""), case), case)})
    return found


def beside(results: list[dict[str, Any]], d: Device, case: str, s: Sizes, quantity: str) -> str:
    """Measured figures of a quantity, each with its kernels and its ratio to the floor at the rate and share that were measured."""
    texts = []
    for result in results:
        if result["case"] != (case if s.B == 1 else f"{case}_{s.B}_trials") or quantity not in result:
            continue
        value, kernels = result[quantity], result["kernels"]
        seconds = statistics.median(value[1:] or value) if isinstance(value, list) else value  # without the first, which prepares
        at = dataclasses.replace(s, **{key: result[key] for key in ("rate", "share") if key in result})
        if quantity == "simulation":
            at = dataclasses.replace(at, B=1)  # bench.py simulates one trial
        floor = (fixed_shape if kernels == "fixed_shape" else times)(d, at)[quantity]
        texts.append(f"{seconds * UNITS.get(quantity, 1):.3g} {kernels} ({seconds / floor:.2g})")
    return "; ".join(texts) or "estimated"


def number(x: float) -> str:
    """A number with three digits and a letter for thousands, millions or billions."""
    size, letter = next(((size, letter) for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")) if x >= size), (1, ""))
    return f"{x / size:.3g}{letter}"


def table(columns: str, rows: list[list[str]]) -> str:
    """A Markdown table; columns are divided by commas."""
    names = columns.split(", ")
    return "\n".join("| " + " | ".join(row) + " |" for row in [names, ["---"] * len(names), *rows])


def report(d: Device, cases: list[tuple[str, Sizes]], results: list[dict[str, Any]]) -> str:
    """The tables of all cases on a GPU."""
    steps, updates, iterations, memories = [], [], [], []
    for case, s in cases:
        amount, t, held = work(s), times(d, s), memory(s)
        seen = {quantity: beside(results, d, case, s, quantity) for quantity in t}
        name, shown = [f"`{case}`", str(s.B)], {key: f"{value * UNITS.get(key, 1):.2g}" for key, value in t.items()}
        step = [f"{t[key] * 1e6:.3g}" for key in ("deliver", "move", "barriers", "step")]
        amounts = [amount["spikes"], amount["atomics"], amount["deliver"] + amount["move"]]
        steps.append([*name, *map(number, amounts), "2", *step, seen["step"]])
        kinds = [text for kind in ("sparse", "dense") for text in (number(amount[kind]), shown[kind], seen[kind])]
        updates.append([*name, f"{s.rows:.2g}", *kinds])
        parts = [shown["simulation"], seen["simulation"], shown["learning"], seen["learning"], shown["rest"], shown["iteration"]]
        iterations.append([*name, f"{launches(s):.3g}", *parts, f"{fixed_shape(d, s)['iteration']:.2g}", seen["iteration"]])
        total = sum(held.values())
        memories.append([*name, *map(number, held.values()), number(total), "yes" if total <= USABLE * d.memory else "no"])
    seen_column = "measured (times the floor)"
    about = f"NVIDIA {d.name}, {d.source}: copy {d.copy / 1e12:.3g} TB/s, atomic additions {d.atomics / 1e9:.3g} G/s, barrier "
    about += f"{d.barrier * 1e6:.2g} us, launch {d.launch * 1e6:.2g} us, {d.processors} processors, cache {d.l2 / 1e6:.3g} MB"
    learned = f"learning, {seen_column}, rest, iteration, `fixed_shape`, {seen_column}"
    tables = {
        "A step": table(f"case, B, spikes, atomics, bytes, barriers, deliver us, move us, barriers us, step us, {seen_column}", steps),
        "An update": table(f"case, B, rows read, sparse bytes, ms, {seen_column}, dense bytes, ms, {seen_column}", updates),
        "An iteration, s": table(f"case, B, launches an interval, simulation, {seen_column}, {learned}", iterations),
        f"Memory, bytes of {number(d.memory)}": table("case, B, P, w, u, static, state, targets, all, fits", memories),
    }
    return "\n\n".join([about, *([NOTE] if results else []), *(f"{title}:\n\n{text}" for title, text in tables.items())])


def main() -> None:
    """Prints the tables of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="*", default=SHOWN, help=f"any of {', '.join(CASES)}; each with 1 and 8 trials, unless --set has B")
    parser.add_argument("--device", choices=DEVICES, default="h200")
    fields = {field.name: {"int": int, "float": float, "str": str}[str(field.type)] for field in dataclasses.fields(Sizes)}
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help=f"other values, of {', '.join(fields)}")
    parser.add_argument("--measured", nargs="+", type=Path, default=sorted((ROOT / "benchmarks" / "gpu").glob("*.json")))
    options = parser.parse_args()
    changed: dict[str, Any] = {}
    for text in options.set:
        name, _, value = text.partition("=")
        if name not in fields:
            parser.error(f"--set {text}: expected NAME=VALUE, with a name of {', '.join(fields)}")
        changed[name] = int(float(value)) if fields[name] is int else fields[name](value)
    if unknown := set(options.case) - set(CASES):
        parser.error(f"{', '.join(sorted(unknown))}: expected any of {', '.join(CASES)}")
    trials = [changed.pop("B")] if "B" in changed else [1, 8]
    cases = [(case, dataclasses.replace(sizes_of(case), **changed, B=b)) for case in options.case for b in trials]
    device = DEVICES[options.device]
    print(report(device, cases, [] if changed else measured_results(options.measured, device)))  # those are of the cases as they are


if __name__ == "__main__":
    main()
