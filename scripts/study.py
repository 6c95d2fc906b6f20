"""What makes a network reproduce held-out trials: settings of mouse_decision changed one at a time, over seeds, as a table and curves.

    python scripts/study.py decision.zarr                           # the recording of the README's tour
    python scripts/study.py session11.zarr --only default autonomous --seeds 1 2 3
    python scripts/study.py s*.zarr --only default --iterations 100 --json benchmarks/sessions.json --picture sessions.png
    python scripts/study.py ~/.cache/rlsnet/synthetic-decision-v5.zarr --only default --neurons 8192 --iterations 20
    python scripts/study.py --table                                 # the tables of the results in --json, nothing is run

Each case trains on the odd trials, with validation every ten iterations, and tests the best weights on the even trials. Runs are kept
below --runs, and a run that is there already is not made again. Scores go to --json, the curves of validation to --picture. The table
has the population explained variance of held-out trials, mean and s.d. over seeds, beside the other half of the trials and baselines.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
from pathlib import Path
from typing import Any

from rlsnet.api import compose
from rlsnet.data import recordings
from rlsnet.io import zarr_store
from rlsnet.learning.population import EXPLAINED, TITLE
from rlsnet.runs.folder import Run, versions
from rlsnet.runs.metrics import validations
from rlsnet.workflows import test_store, testing, training

AUTONOMOUS = ["feedforward=none", "plastic.n_inputs=128"]
CASES = {
    "default": [],
    "autonomous": AUTONOMOUS,
    "autonomous, spikes as regressors": [*AUTONOMOUS, "rls.regressors=spikes"],
    "autonomous, spikes, 8 trials an update": [*AUTONOMOUS, "rls.regressors=spikes", "train.trials_per_update=8"],
    "autonomous, penalty 0.004": [*AUTONOMOUS, "rls.penlambda=0.004"],
    "published": ["config=mouse_decision_published"],
    "published, feed-forward neurons": [
        *("config=mouse_decision_published", "feedforward=ou", "feedforward.mean=50", "feedforward.sigma=2"),
        *("feedforward.before=true", "rls.penlam_ff=0.04"),
    ],
    "spikes as regressors": ["rls.regressors=spikes"],
    "no correction of currents": ["rls.correct_current=false"],
    "feed-forward spikes from stim_off on only": ["feedforward.before=false"],
    "update at every learning point": ["rls.every=1"],
    "update at every fourth": ["rls.every=4"],
    "penalties 0.1": ["rls.penlambda=0.1", "rls.penlam_ff=0.1"],
    "penalties 0.004": ["rls.penlambda=0.004", "rls.penlam_ff=0.004"],
    "8 plastic inputs": ["plastic.n_inputs=8"],
    "8 feed-forward neurons": ["feedforward.n_neurons=8"],
}


def result(recording: Path, overrides: list[str], folder: Path, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Curves of validation and of the correlation while learning, scores of the test and seconds of one run, which may exist already."""
    opened, run = recordings.open_recording(recording, "rate"), Run(folder)
    duration = opened.values.shape[1] * opened.bin_ms
    config = compose(
        *([] if any(each.startswith("config=") for each in overrides) else ["config=mouse_decision"]),
        *("trial.stim_on=200", "trial.stim_off=400", f"trial.duration={duration:g}", f"trial.learn_every={opened.bin_ms:g}"),
        *(f"recording.path={recording}", "recording.half=odd", f"seed={seed}", f"train.iterations={options.iterations}"),
        *("train.validate_every=10", "train.checkpoint_every=1000", f"test.trials={options.trials}", "test.spikes=false", "progress=off"),
        *([] if options.neurons is None else [f"network.n_neurons={options.neurons}"]),
        *overrides,
    )
    if options.iterations not in run.iterations() and (stopped := training.run_training(config, run, resumed=bool(run.iterations()))):
        raise SystemExit(128 + stopped)
    if not run.test.exists():
        testing.run_test(config, run)
    metrics = run.read_metrics()
    population = zarr_store.open_group(run.test, "run", test_store.FORMAT).attrs["scores"]["population"]
    return {
        "validation": validations(metrics),
        "correlation": [None if (found := line["correlation"]) is None else round(found, 3) for line in metrics],
        "seconds": round(sum(line["seconds"] for line in metrics), 1),
        "scores": population["all"],
        "standard_error": population.get("standard_error"),
    }


def draw(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Draws the curves of validation, mean over seeds with the range, a panel for each recording."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(found), figsize=(6.4 * len(found), 6), squeeze=False, layout="constrained")
    for axis, (name, cases) in zip(axes[0], found.items(), strict=True):
        for label, seeds in cases.items():
            index = list(CASES).index(label)
            curves = [dict(each["validation"]) for each in seeds.values()]
            x = sorted(set.intersection(*map(set, curves)))  # iterations that all seeds have
            values = [[curve[iteration] for curve in curves] for iteration in x]
            colour, style = f"C{index % 10}", ("-", "--")[index >= 10]
            axis.plot(x, [statistics.mean(each) for each in values], style, color=colour, lw=1.4, label=label)
            axis.fill_between(x, [min(each) for each in values], [max(each) for each in values], color=colour, alpha=0.06, lw=0)
        axis.set(title=name, xlabel="iteration", ylabel=f"{TITLE}, validation", ylim=(-0.3, 1))
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(0, -0.12), ncols=2)
    figure.savefig(path, dpi=150)


def table(found: dict[str, dict[str, Any]]) -> None:
    """Prints a table in Markdown for each recording."""
    for name, cases in found.items():
        first = next(iter(next(iter(cases.values())).values()))["scores"]
        print(f"\n{name}: " + ", ".join(f"{EXPLAINED[key]} {first[key]:.2f}" for key in ("ceiling", "condition_average", "linear")))
        print("\n| case | explained, held out | standard error | s an iteration |\n|---|---|---|---|")
        for label, seeds in cases.items():
            values = [each["scores"]["model"] for each in seeds.values()]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            seconds = statistics.median(each["seconds"] / len(each["correlation"]) for each in seeds.values())
            error = max(each.get("standard_error") or 0 for each in seeds.values())
            about = f"{statistics.mean(values):.2f}{spread} (n = {len(values)}) | {f'{error:.2f}' if error else ''}"
            print(f"| {label} | {about} | {seconds:.2f} |")


def main() -> None:
    """Runs the cases of the command line, writes and draws their results, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path, nargs="*")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--neurons", type=int, help="number of units of the recording, chosen at random; without, all")
    parser.add_argument("--trials", type=int, default=20, help="trials per condition of a test")
    parser.add_argument("--runs", type=Path, default=Path("outputs/study"))
    parser.add_argument("--json", type=Path, default=Path("benchmarks/learning.json"))
    parser.add_argument("--picture", type=Path, default=Path("docs/learning.png"))
    parser.add_argument("--table", action="store_true", help="only print the tables and draw the picture")
    options = parser.parse_args()
    found = json.loads(options.json.read_text())["recordings"] if options.json.exists() else {}
    for recording in [] if options.table else options.recording:
        name = recording.stem if options.neurons is None else f"{recording.stem}, {options.neurons} units"
        cases = found.setdefault(name, {})
        for seed in options.seeds:
            for label in options.only:
                words = (each.replace(",", "").replace(" ", "-") for each in (name, label))
                folder = options.runs.joinpath(*words, str(seed))
                cases.setdefault(label, {})[str(seed)] = result(recording, CASES[label], folder, options, seed)
                print(f"{name}, {label}, seed {seed}: {cases[label][str(seed)]['scores']['model']:.3f}", flush=True)
                content = {"date": str(datetime.date.today()), "versions": versions(), "recordings": found}
                options.json.write_text(json.dumps(content, indent=1) + "\n")
    table(found)
    draw(found, options.picture)


if __name__ == "__main__":
    main()
