"""Learning curves of the forms of P and of groups of neurons that share one, as a picture and a table.

    python scripts/curves.py storages groups            # minutes on the default network
    python scripts/curves.py mouse --iterations 60      # 8192 units of the synthetic decision task

Each curve is a run of `rlsnet train` under --runs; a run that is there already is not made again. The correlations go to --json, the
picture to --picture. The printed table has the mean over the last six iterations, and its difference from that of the first curve.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
from pathlib import Path

from rlsnet.api import compose
from rlsnet.runs.folder import Run, versions
from rlsnet.workflows import training

MOUSE = ["config=mouse_decision_published", "network.n_neurons=8192", "train.order=weighted", "train.weights=[1,0]"]  # one condition
SETS = {
    "storages": {
        "full float32": [],
        "full float32, another seed": ["seed=2"],
        "packed float32": ["rls.storage=packed"],
        "bfloat16": ["rls.precision=bfloat16"],
        "float16": ["rls.precision=float16"],
        "int16": ["rls.precision=int16"],
        "packed int16": ["rls.storage=packed", "rls.precision=int16"],
        "window of 64": ["rls.storage=window"],
    },
    "groups": {f"S = {size}": [f"plastic.group_size={size}"] for size in (1, 16, 128)},
    "mouse": {f"S = {size}": [*MOUSE, f"plastic.group_size={size}"] for size in (1, 16, 128)},
}
TITLES = {
    "storages": "default network, forms of P",
    "groups": "default network, groups of S",
    "mouse": "mouse_decision_published, 8192 synthetic units, groups of S",
}


def correlations(overrides: list[str], folder: Path, iterations: int) -> list[float]:
    """The correlation of each iteration of a run, which is started or continued if it has fewer iterations."""
    config = compose(
        *overrides, f"train.iterations={iterations}", "train.save_best=false", f"train.checkpoint_every={iterations}", "progress=plain"
    )
    run = Run(folder)
    if not run.iterations() or run.iterations()[-1] < iterations:
        training.run_training(config, run, resumed=bool(run.iterations()))
    return [line["correlation"] for line in run.read_metrics()][:iterations]


def draw(curves: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Draws the curves, one panel for each set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(curves), figsize=(4.6 * len(curves), 3.6), squeeze=False, layout="constrained")
    for axis, (name, lines) in zip(axes[0], curves.items(), strict=True):
        for index, (label, values) in enumerate(lines.items()):
            axis.plot(range(1, len(values) + 1), values, label=label, lw=1.2, ls=("-", "--")[index >= 4])
        axis.set(title=TITLES[name], xlabel="iteration", ylabel="correlation of target and current")
        axis.title.set_fontsize(9)
        axis.legend(fontsize=7, frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Runs the sets of the command line, writes and draws their curves, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", choices=SETS)
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--runs", type=Path, default=Path("outputs/curves"))
    parser.add_argument("--only", nargs="+", help="labels of the curves to run; the others are read from --json")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/curves.json"))
    parser.add_argument("--picture", type=Path, default=Path("docs/learning-curves.png"))
    arguments = parser.parse_args()
    known = json.loads(arguments.json.read_text())["curves"] if arguments.json.exists() else {}
    for name in arguments.sets:
        for label, overrides in SETS[name].items():
            if arguments.only and label not in arguments.only:
                continue
            folder = arguments.runs / f"{name} {label}".replace(" ", "-").replace("=", "")
            known.setdefault(name, {})[label] = correlations(overrides, folder, arguments.iterations)
            content = {"date": str(datetime.date.today()), "versions": versions(), "curves": known}
            arguments.json.write_text(json.dumps(content, indent=1) + "\n")
    curves = {name: {label: known[name][label] for label in SETS[name] if label in known[name]} for name in SETS if name in known}
    draw(curves, arguments.picture)
    print("| curve | iterations | mean of the last 6 | difference from the first curve |\n|---|---|---|---|")
    for name, lines in curves.items():
        first = next(iter(lines.values()))
        for label, values in lines.items():
            last, reference = (statistics.mean(each[len(values) - 6 : len(values)]) for each in (values, first))
            print(f"| {TITLES[name]}: {label} | {len(values)} | {last:.3f} | {last - reference:+.3f} |")


if __name__ == "__main__":
    main()
