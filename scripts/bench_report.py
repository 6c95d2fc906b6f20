"""Results of scripts/bench.py as lines of text, as a table and as a picture."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

COLUMNS = ("iteration", "simulation", "delivery", "learning", "learning_floor")


def figure(seconds: float | list[float] | None) -> str:
    """Seconds, or the median of several, with two or three digits; empty where there is none."""
    value = statistics.median(seconds) if isinstance(seconds, list) else seconds
    return "" if value is None else f"{value:.2g} s" if value < 1 else f"{value:.3g} s"


def table(path: Path) -> str:
    """The results in a file of --json as the rows of a Markdown table."""
    results = json.loads(path.read_text())["results"]
    lines = ["| case | iteration | simulation | its delivery | learning | its floor | peer | peer/ours | peak |", "|---" * 9 + "|"]
    for case, result in results.items():
        if "case" not in result or "numpy" in result:
            continue
        peer, peak = result.get("peer"), result.get("peak_gb")
        ratio = f"{statistics.median(peer) / statistics.median(result['iteration']):.1f}" if peer else ""
        compared = [f"{statistics.median(peer):.3g} s" if peer else "", ratio, "" if peak is None else f"{peak} GB"]
        lines.append("| " + " | ".join([f"`{case}`", *(figure(result.get(name)) for name in COLUMNS), *compared]) + " |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """Median (least to most)."""
    return f"{statistics.median(values):.3g} s ({min(values):.3g}-{max(values):.3g})"


def summary(result: dict[str, Any]) -> str:
    """A few lines on the result of one case."""
    if "numpy" in result:
        ratio = result["numpy"] / statistics.median(result["short_iteration"])
        return (
            f"{result['case']}, short trial: {spread(result['short_iteration'])}; plain NumPy {result['numpy']} s, {ratio:,.0f} times ours"
        )
    measured = [f"{name} {spread(result[name])}" for name in ("iteration", "simulation") if name in result]
    for name in ("delivery", "learning", "learning_floor", "rest", "correlation"):
        if result.get(name) is not None:
            measured.append(f"{name.replace('_', ' ')} {result[name]:.3g} s")
    lines = [f"{result['case']:<18} {result['device']}, {result['kernels']} kernels", "; ".join(measured)]
    lines.append(f"network drawn in {result['draw']} s, targets made in {result['targets']} s")
    if "compile" in result:
        lines[-1] += f", compiled in {result['compile']} s; peak memory {result['peak_gb']} GB"
    if result.get("peer"):
        ratio = statistics.median(result["peer"]) / statistics.median(result["iteration"])
        lines.append(f"peer {spread(result['peer'])}: {ratio:.2f} times ours")
    return "\n    ".join(lines)


def draw_scaling(curves: dict[str, list[dict[str, Any]]], path: Path) -> dict[str, float]:
    """Draws seconds against each size; returns the exponents of power laws through the largest three points."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    names = {"network.n_neurons": "neurons N", "static.out_degree": "static outputs K", "plastic.n_inputs": "plastic inputs L"}
    picture, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharey=True, layout="constrained")
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
    picture.savefig(path, dpi=150)
    return exponents
