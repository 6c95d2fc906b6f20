"""Least time and memory of rlsnet's CUDA kernels, from sizes and from figures of a GPU, beside what was measured.

    python scripts/gpu/model.py
    python scripts/gpu/model.py mouse_decision million --device b200 --set rate=8 B=4
    python scripts/gpu/model.py --measured benchmarks/gpu/*.json

The formulas are those of rlsnet/runs/cost_model.py, which says what they leave out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from bench import CASES  # noqa: E402

from rlsnet.runs.cost_model import (  # noqa: E402
    DEVICES,
    FIXED_KERNEL,
    FIXED_KERNELS,
    USABLE,
    Device,
    Sizes,
    launches,
    memory,
    times,
    work,
)

SHOWN = ("sinusoid", "mouse_decision_published", "mouse_decision", "million", "million_128")
RECORDING = 66_002, 2  # units and conditions of the synthetic recording, which a configuration does not know
RENAMED = {("2026-11-27T02:46:45+00:00", "mouse_decision"): "mouse_decision_published"}  # results under a former name of a case
NOTE = (
    "A measured figure is compared with the floor at the rate and share that were measured. It is below 1 for fixed_shape, which is fitted"
    " to mouse_decision_published, with sinusoid, whose kernels are shorter, and for a step of the prototype with the million, whose rate"
    " changed from run to run, so that the run that was timed need not have had the mean rate."
)
UNITS = {"step": 1e6, "sparse": 1e3, "dense": 1e3}  # us, ms and ms; other times are in s


def sizes_of(case: str) -> Sizes:
    """Sizes of a case of scripts/bench.py, from its configuration."""
    from rlsnet.api import compose

    config = compose(*CASES[case])
    conditions = RECORDING[1] if config.target.recorded else config.target.n_conditions
    return Sizes.of(config, config.network.n_neurons or RECORDING[0], conditions)


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
