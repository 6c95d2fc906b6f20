"""Results of scripts/bench.py as lines of text, as tables of README.md and docs/performance.md, and as a picture."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

Results = dict[str, Any]

COLUMNS = ("iteration", "simulation", "delivery", "learning", "learning_floor")
# Cases of the table of parts.
IN_PARTS = ("sinusoid", "mouse_decision", "mouse_decision_published", "mouse_decision_published_64", "million_128")
DOCUMENTS = ("README.md", "docs/performance.md")
BLOCK = re.compile(r"(<!-- bench:(\w+) -->\n).*?(<!-- /bench -->)", re.DOTALL)


def middle(seconds: float | list[float] | None) -> float | None:
    """The median of several seconds; one number or None as it is."""
    return statistics.median(seconds) if isinstance(seconds, list) else seconds


def figure(seconds: float | list[float] | None) -> str:
    """Seconds, or the median of several, with two or three digits; empty where there is none."""
    value = middle(seconds)
    return "" if value is None else f"{value:.2g} s" if value < 1 else f"{value:.3g} s" if value < 1000 else f"{value:.0f} s"


def ratio(value: float | list[float] | None, other: float | list[float] | None) -> str:
    """A quotient with two digits; empty if one of the two is missing."""
    value, other = middle(value), middle(other)
    return "" if not value or not other else f"{value / other:.2g}" if value < 10 * other else f"{value / other:.0f}"


def amount(value: float, unit: str = "") -> str:
    """A number with three digits and a prefix or, without a unit, a word; empty for 0."""
    words = (1e12, "T", "10^12"), (1e9, "G", "billion"), (1e6, "M", "million"), (1e3, "k", "thousand")
    size, prefix, word = next((each for each in words if value >= each[0]), (1, "", ""))
    return f"{value / size:.3g} {prefix + unit if unit else word}".strip() if value else ""


def rounded(value: Any) -> Any:
    """The same with four digits of each number that is not whole."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def markdown(columns: str, rows: list[list[str]]) -> str:
    """A Markdown table; columns are divided by " | "."""
    names = columns.split(" | ")
    return "\n".join("| " + " | ".join(row) + " |" for row in [names, ["---"] * len(names), *rows])


def times_ours(result: Results) -> str:
    """The peer's least seconds over ours, which depend least on other programs; empty without a peer."""
    return ratio(min(result["peer"]), min(result["iteration"])) if "peer" in result else ""


def compared(result: Results) -> list[str]:
    """The peer's seconds, their ratio to ours, and the peak of memory."""
    peak = result.get("peak_gb")
    return [figure(result.get("peer")), times_ours(result), "" if peak is None else f"{peak:.2g} GB"]


def cases(results: Results) -> Results:
    """The results that are of a case of its own."""
    return {name: result for name, result in results.items() if isinstance(result, dict) and "case" in result and "numpy" not in result}


def sizes(result: Results) -> list[str]:
    """N, K, L and S of a case."""
    n = result["n_neurons"]
    return [f"{value:,}" for value in (n, result["static_synapses"] // n, result["plastic_inputs"], result["group_size"])]


def table(results: Results) -> str:
    """Seconds of all cases."""
    rows = [[f"`{name}`", *(figure(each.get(part)) for part in COLUMNS), *compared(each)] for name, each in cases(results).items()]
    return markdown("case | iteration | simulation | its delivery | learning | its floor | peer | peer/ours | peak", rows)


def speed(results: Results) -> str:
    """Seconds of all cases, for the README."""
    rows = [
        [f"`{name}`", *sizes(each), figure(each.get("iteration")), figure(each.get("learning")), *compared(each)]
        for name, each in cases(results).items()
    ]
    return markdown("case | neurons | static | plastic inputs | share P | iteration | learning in it | C | C/rlsnet | peak memory", rows)


def preparation(results: Results) -> str:
    """Sizes of all cases, and what precedes the first iteration."""
    columns = ("draw", "targets", "compile")
    rows = [[f"`{name}`", *sizes(each), *(figure(each.get(k)) for k in columns)] for name, each in cases(results).items()]
    return markdown("case | N | K | L | S | network drawn | targets made | compiled", rows)


def parts(results: Results) -> str:
    """Where the time of an iteration goes, beside the least time of each part."""
    rows = []
    for name in IN_PARTS:
        result = results.get(name, {})
        of_case = dict(result.get("parts", {}))
        if "rest" in result:
            of_case["rest"] = {"seconds": result["rest"]}
        for part, each in of_case.items():
            counts = [amount(each.get("bytes", 0), "B"), amount(each.get("accesses", 0)), amount(each.get("normals", 0))]
            least = each.get("floor")
            rows.append([f"`{name}`", part, figure(each["seconds"]), *counts, figure(least), ratio(each["seconds"], least)])
    return markdown("case | part | time | bytes | random accesses | normal numbers | floor | time/floor", rows)


def probe(name: str) -> tuple[str, str]:
    """What a probe of benchmarks/floor does, and the unit of its rate."""
    kind, _, text = name.partition("=")
    numbers = text.split(",")
    if kind in ("pass", "read"):
        return f"array of {amount(float(numbers[0]), 'B')} in sequence, {'read and written' if kind == 'pass' else 'read'}", "GB/s"
    if kind == "rows":
        return f"rows of {numbers[0]} B, {float(numbers[3]):.0%} of {int(numbers[1]) * int(numbers[2]):,}", "GB/s"
    if kind == "adds":
        return f"additions to {int(numbers[0]):,} currents", "ns"
    slots, size = int(numbers[0]) * int(numbers[1]), int(numbers[2])
    return f"weights from {amount(4.0 * slots * size, 'B')}, {size} at a time, added to currents", "ns"


def floor(results: Results) -> str:
    """Rates of memory accesses of this machine, on one core and on all."""
    found = {name: cost for case in IN_PARTS for name, cost in results.get(case, {}).get("probes", {}).items()}
    rows = []
    order = ("read", "pass", "rows", "adds", "weighted")
    for name in sorted(found, key=lambda name: (order.index(name.partition("=")[0]), -float(re.findall(r"\d+", name)[0]))):
        text, unit = probe(name)
        rows.append([text, *(f"{1 / found[name][k] if unit == 'GB/s' else found[name][k]:.3g} {unit}" for k in ("one", "all"))])
    return markdown("memory accesses | one core | all cores", rows)


def trials(results: list[Results]) -> str:
    """Seconds of an iteration with several trials an update."""
    first, rows = middle(results[0]["iteration"]), []
    for each in results:
        more = each["trials"] - results[0]["trials"]
        further = figure((middle(each["iteration"]) - first) / more) if more else ""
        rows.append([f"`{each['case']}`", str(each["trials"]), figure(each["iteration"]), further, f"{each['peak_gb']:.2g} GB"])
    return markdown("case | trials an update | iteration | a further trial | peak", rows)


def threads(results: list[Results]) -> str:
    """Seconds on several numbers of cores, and whether the results are the same to the bit."""
    rows = []
    for each in results:
        one = next(other for other in results if other["case"] == each["case"])
        same = "yes" if all(each.get(key) == one.get(key) for key in ("weights", "currents")) else "**no**"
        digits = each.get("weights", each.get("currents", ""))
        faster = ratio(one.get("iteration", one["simulation"]), each.get("iteration", each["simulation"]))
        times = [figure(each.get("iteration")), figure(each["simulation"]), faster]
        rows.append([f"`{each['case']}`", str(each["cores"]), str(each["threads"]), *times, f"`{digits}`", same])
    return markdown("case | cores | threads of XLA | iteration | simulation | times as fast as one | checksum | same as one", rows)


def kernels(results: list[Results]) -> str:
    """Seconds with native kernels for older processors."""
    rows = []
    for each in results:
        usual = next((other for other in results if other["case"] == each["case"] and other["level"] == "default"), {})
        times = [text for part in ("iteration", "learning") for text in (figure(each[part]), ratio(each[part], usual.get(part)))]
        rows.append([f"`{each['case']}`", each["level"], *times])
    return markdown("case | `RLSNET_KERNELS` | iteration | times default | learning | times default", rows)


def scaling(result: Results) -> str:
    """Exponents of power laws."""
    exponents = result["exponents"]
    keys = list(dict.fromkeys(name.rpartition(" ")[0] for name in exponents))
    lines = ("iteration", "simulation", "difference")
    rows = [[f"`{key}`", *(f"{exponents[k]:.2f}" if (k := f"{key} {line}") in exponents else "" for line in lines)] for key in keys]
    return markdown("exponent of | iteration | simulation | iteration - simulation", rows)


def numpy(result: Results) -> str:
    """A sentence on the plain NumPy program."""
    ours = middle(result["short_iteration"])
    return (
        f"A trial of `{result['case']}` with 100 ms of learning takes {figure(ours)}; the plain NumPy program of the tests, in one thread, "
        f"takes {figure(result['numpy'])}, {result['numpy'] / ours:,.0f} times as long."
    )


CASE_TABLES = {"speed": speed, "cases": table, "floor": floor, "parts": parts, "preparation": preparation}
STUDIES: dict[str, Callable[[Any], str]] = {"trials": trials, "threads": threads, "kernels": kernels, "scaling": scaling}


def caption(data: Results) -> str:
    """The sentence above each table: where and when it was measured."""
    about = data["machine"]
    return f"{about['cpu']} ({about['instructions']}), jax {about['jax']}, float32, {about['date']}:"


def tables(data: Results) -> dict[str, str]:
    """All tables of a file of --json, by name, each with its caption; those without results are left out."""
    results = data["results"]
    found = {name: function(results) for name, function in CASE_TABLES.items() if cases(results)}
    found |= {name: function(results[name]) for name, function in STUDIES.items() if name in results}
    if "sinusoid against numpy" in results:
        found["numpy"] = numpy(results["sinusoid against numpy"])
    return {name: f"{caption(data)}\n\n{text}" for name, text in found.items()}


def with_tables(document: str, data: Results) -> str:
    """A document in which each block <!-- bench:NAME --> ... <!-- /bench --> has the table NAME; without results, says so."""
    found = tables(data)

    def block(match: re.Match[str]) -> str:
        return f"{match[1]}\n{found.get(match[2], 'Not measured in this run.')}\n\n{match[3]}"

    return BLOCK.sub(block, document)


def write_docs(path: Path, root: Path) -> None:
    """Writes the tables of a file of --json into the documents."""
    for name in DOCUMENTS:
        text = (root / name).read_text()
        (root / name).write_text(with_tables(text, json.loads(path.read_text())))


def spread(values: list[float]) -> str:
    """Median (least to most)."""
    return f"{statistics.median(values):.3g} s ({min(values):.3g}-{max(values):.3g})"


def summary(result: Results) -> str:
    """A few lines on the result of one case."""
    if "numpy" in result:
        return numpy(result)
    measured = [f"{name} {spread(result[name])}" for name in ("iteration", "simulation") if name in result]
    for name in ("delivery", "learning", "learning_floor", "rest", "correlation"):
        if result.get(name) is not None:
            measured.append(f"{name.replace('_', ' ')} {result[name]:.3g} s")
    lines = [f"{result['case']:<18} {result['device']}, {result['kernels']} kernels", "; ".join(measured)]
    lines.append(f"measured in {result['process']} s; network drawn in {result['draw']} s, targets made in {result['targets']} s")
    if "compile" in result:
        lines[-1] += f", compiled in {result['compile']} s; peak memory {result['peak_gb']} GB"
    for name, part in result["parts"].items():
        least = part.get("floor")
        beside = f", floor {least:.3g} s, {ratio(part['seconds'], least)} times it" if least else ""
        lines.append(f"{name}: {part['seconds']:.3g} s{beside}")
    if result.get("peer"):
        lines.append(f"peer {spread(result['peer'])}: {times_ours(result)} times ours")
    return "\n    ".join(lines)


def draw_scaling(curves: dict[str, list[Results]], path: Path) -> dict[str, float]:
    """Draws seconds against each quantity; returns the exponents of power laws through the largest three points."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    names = {
        "network.n_neurons": "neurons N",
        "static.out_degree": "static outputs K",
        "plastic.n_inputs": "plastic inputs L",
        "train.trials_per_update": "trials an update",
        "cores": "processor cores",
    }
    picture, axes = plt.subplots(2, 3, figsize=(10, 6), sharey=True, layout="constrained")
    exponents = {}
    for axis, (key, points) in zip(axes.flat, curves.items(), strict=False):
        x = [point["value"] for point in points]
        lines = {"iteration": [point["iteration"] for point in points]}
        if key != "train.trials_per_update":  # the simulation is that of one trial
            lines["simulation"] = [point["simulation"] for point in points]
            lines["difference"] = [point["iteration"] - point["simulation"] for point in points]
        for name, y in lines.items():
            axis.loglog(x, y, "o-", label={"difference": "iteration - simulation"}.get(name, name))
            if len(x) > 1 and min(y) > 0:
                exponents[f"{key} {name}"] = round(float(np.polyfit(np.log(x[-3:]), np.log(y[-3:]), 1)[0]), 2)
        axis.set(xlabel=names[key])
        axis.set_xticks(x, [f"{value:,}" for value in x])
        axis.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    for axis in axes[:, 0]:
        axis.set(ylabel="seconds")
    axes[1, 2].axis("off")
    axes[1, 2].legend(*axes[0, 0].get_legend_handles_labels(), loc="center", frameon=False, title="default network, one quantity changed")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=150)
    return exponents
