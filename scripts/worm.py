"""How well the neurons that were not recorded are predicted, by networks with the wiring of the worm C. elegans, as a picture and a table.

    python scripts/worm.py herm_full_edgelist.csv docs/worm.png

The table of connections has the columns Source, Target, Weight and Type of Cook et al. 2019 (Nature 571:63) in the package c302
(c302/data/herm_full_edgelist.csv). A teacher has the chemical synapses of the neurons with outputs: signs are drawn, weights are the
numbers of synapses times random factors. Some neurons, drawn at random, receive known inputs. Students have the same wiring and inputs
and are trained on the currents of a part of the other neurons. All their connections are plastic; at the start, weights are
proportional to the numbers of synapses, with the teacher's signs, or with signs of their own. The score is the correlation, over time
and conditions, of the mean current of a neuron in teacher and student, averaged over neurons: those trained, and those not trained.
Runs are kept below --runs, and a run that is there already is not made again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

import rlsnet

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # of the neurons that are recorded
KINDS = ("signs known", "signs drawn")
WIRING = {"count": "Weight", "neurons": "outputs > 0", "unknown": "draw", "fraction_excitatory": 0.5, "plastic": "all"}
STRENGTH = {"normalise": "each", "input": 60.0}  # sum of the |weights| of the inputs of a neuron, threshold*ms
CHANNELS, SENSORY, INPUT_WEIGHT = 16, 0.3, 40.0  # feed-forward neurons; share of the neurons that receive one of them; threshold*ms
SETTINGS = (
    *("config=mouse_decision", "feedforward.mean=20", "feedforward.sigma=1.5", "feedforward.tau=200", f"feedforward.n_neurons={CHANNELS}"),
    *("rls.penlam_ff=1e6", "rls.penlambda=0.02", "network.bias=0", "neuron.refractory=4", "stimulus=none"),  # the inputs are known: fixed
    *("trial.dt=0.2", "trial.stim_on=100", "trial.stim_off=500", "train.save_best=false", "progress=off"),
)


def make_network(edges: Path, out: Path, signs: int, factors: int | None, inputs: np.ndarray | None = None) -> np.ndarray:
    """Writes the network.zarr of a teacher or a student; returns the weights of its inputs [N, X].

    Args:
      edges: table of connections.
      out: path of the network.
      signs: seed of the signs of the neurons.
      factors: seed of log-normal factors of the weights, and of the inputs; None: no factors.
      inputs: [N, X] weights of the feed-forward neurons; None: they are drawn.
    """
    wiring = rlsnet.import_network(edges, out.with_suffix(".wiring.zarr"), seed=signs, overwrite=True, **WIRING, **STRENGTH)
    arrays = {name: stored[...] for name, stored in wiring.members(max_depth=None) if isinstance(stored, zarr.Array)}
    n, random = len(arrays["neuron/excitatory"]), np.random.default_rng(factors)
    if factors is not None:
        arrays["plastic/weight"] *= random.lognormal(-0.25, 0.7, arrays["plastic/weight"].shape).astype(np.float32)  # mean 1
    if inputs is None:
        inputs = np.zeros((n, CHANNELS), np.float32)
        sensory = random.choice(n, max(1, round(SENSORY * n)), replace=False)
        inputs[sensory, random.integers(CHANNELS, size=len(sensory))] = random.choice([-1, 1], len(sensory)) * INPUT_WEIGHT
    root = zarr.create_group(str(out), attributes={"format": "rlsnet-network", "version": 1}, overwrite=True)
    for name, values in (arrays | {"feedforward/weight": inputs}).items():
        if values.dtype.kind in "fiub":
            root.create_array(name, data=values)
    return inputs


def correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[N] correlation over time and conditions of two arrays [C, M, N]; NaN where one is constant."""
    a, b = (each.reshape(-1, each.shape[2]).astype(float) for each in (a, b))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))


class Experiment:
    """A teacher and its students below a folder.

    Args:
      edges: table of connections.
      runs: the folder.
      iterations: trials of training of a student.
      trials: test trials of each condition.
      settings: further settings of the runs.
    """

    def __init__(self, edges: Path, runs: Path, iterations: int, trials: int, settings: Sequence[str] = ()):
        self.edges, self.runs, self.iterations = edges, runs, iterations
        self.settings = (
            *SETTINGS,
            f"test.trials={trials}",
            f"train.iterations={iterations}",
            f"train.checkpoint_every={iterations}",
            *settings,
        )
        runs.mkdir(parents=True, exist_ok=True)
        self.inputs = make_network(edges, runs / "teacher.zarr", 0, 0)
        self.current = self._simulated("teacher", "teacher.zarr", ["target=sinusoid", "target.n_conditions=3"])
        rlsnet.recording_from_arrays(runs / "currents.zarr", current=self.current, bin=20, overwrite=True)
        self.target = ["target=currents", f"recording.path={runs / 'currents.zarr'}"]
        self.scored = ~self.inputs.any(axis=1) & (np.abs(zarr.open_group(runs / "teacher.zarr")["plastic/weight"][...]).sum(axis=1) > 0)

    def _config(self, network: str, settings: Sequence[str]) -> Any:
        return rlsnet.compose(*self.settings, f"network.load={self.runs / network}", *settings)

    def _simulated(self, name: str, network: str, settings: Sequence[str]) -> np.ndarray:
        """[C, M, N] mean currents of a network with its initial weights."""
        done = (self.runs / name / "test.zarr").exists()
        results = rlsnet.load(self.runs / name) if done else rlsnet.simulate(self._config(network, settings), self.runs / name)
        return np.asarray(results["current_mean"][...])

    def result(self, kind: str, share: float, seed: int) -> dict[str, float]:
        """Scores of a student; NaN where there are no such neurons.

        recorded, not recorded: mean correlation with the teacher over such neurons without known inputs.
        weights, signs: correlation of the trained weights with those of the teacher, and share with the same sign.
        """
        network = f"{kind} {seed}.zarr".replace(" ", "-")
        make_network(self.edges, self.runs / network, 0 if kind == KINDS[0] else seed, None, self.inputs)
        order = np.random.default_rng(seed).permutation(len(self.inputs))
        recorded = np.sort(order[: round(share * len(order))])
        name = f"{kind} {share:g} {seed}".replace(" ", "-")
        if not len(recorded):
            current = self._simulated(name, network, self.target)
        else:
            config = self._config(network, [*self.target, f"train.neurons=[{','.join(map(str, recorded))}]"])
            run = rlsnet.open_run(self.runs / name) if (self.runs / name / "test.zarr").exists() else rlsnet.train(config, self.runs / name)
            results = rlsnet.load(run) if run.test.exists() else rlsnet.test(run, checkpoint="last")
            current = np.asarray(results["current_mean"][...])
        weights = self._compared_weights(name, recorded)
        found, is_recorded = correlations(current, self.current), np.isin(np.arange(len(order)), recorded)
        groups = {"recorded": is_recorded & self.scored, "not recorded": ~is_recorded & self.scored}
        means = {
            group: float(np.nanmean(found[mask])) if np.isfinite(found[mask]).any() else float("nan") for group, mask in groups.items()
        }
        return means | weights

    def _compared_weights(self, name: str, recorded: np.ndarray) -> dict[str, float]:
        """Correlation and share of equal signs of the weights of the recorded neurons in a student and in the teacher."""
        student, teacher = (
            rlsnet.open_run(self.runs / run).weights(kind="plastic", iteration=iteration).toarray()[recorded]
            for run, iteration in ((name, "last"), ("teacher", None))
        )
        own, given = student[teacher != 0], teacher[teacher != 0]
        if not len(own):
            return {"weights": float("nan"), "signs": float("nan")}
        return {"weights": float(np.corrcoef(own, given)[0, 1]), "signs": float(np.mean(np.sign(own) == np.sign(given)))}


def draw(results: dict[str, Any], path: Path) -> None:
    """Draws the mean correlations against the share that is recorded, with a point for each seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.2), sharey=True, layout="constrained")
    for axis, kind in zip(axes, KINDS, strict=True):
        for group, colour, style in (("recorded", "0.55", "--"), ("not recorded", "C0", "-")):
            lines = [(float(share), [each[group] for each in seeds]) for share, seeds in results[kind].items()]
            lines = [(share, [each for each in values if each is not None]) for share, values in lines]
            lines = [(share, values) for share, values in lines if values]
            axis.plot([100 * share for share, _ in lines], [np.mean(values) for _, values in lines], style, color=colour, label=group)
            for share, values in lines:
                axis.plot([100 * share] * len(values), values, ".", color=colour, ms=4)
        axis.set(title=f"students: {kind}", xlabel="neurons recorded (%)", xticks=[0, 25, 50, 75, 100], ylim=(-0.25, 1))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("correlation of mean currents\nof student and teacher")
    axes[0].legend(frameon=False, title="neurons", loc="lower right")
    figure.savefig(path, dpi=150)


def table(results: dict[str, Any]) -> str:
    """Markdown table of the means over seeds."""

    def mean(seeds: list[dict[str, float | None]], group: str) -> str:
        values = [each[group] for each in seeds if each[group] is not None]
        return f"{np.mean(values):.2f}" if values else ""

    columns = ("recorded", "not recorded", "weights", "signs")
    head = [f"{kind}, {group}" for kind in KINDS for group in columns]
    lines = [f"| recorded | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for share in results[KINDS[0]]:
        cells = [mean(results[kind][share], group) for kind in KINDS for group in columns]
        lines.append(f"| {100 * float(share):g} % | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs teacher and students, writes and draws their results, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("edges", type=Path, help="table of connections, herm_full_edgelist.csv")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the neurons that are recorded, and of the signs")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    parser.add_argument("--iterations", type=int, default=90)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--runs", type=Path, default=Path("outputs/worm"))
    parser.add_argument("--json", type=Path, default=Path("benchmarks/worm.json"))
    parser.add_argument("--set", nargs="*", default=(), help="further settings of the runs, key=value")
    given = parser.parse_args(arguments)
    experiment, results = Experiment(given.edges, given.runs, given.iterations, given.trials, given.set), {kind: {} for kind in KINDS}
    for kind in KINDS:
        for share in given.shares:
            found = [experiment.result(kind, share, seed) for seed in given.seeds]
            results[kind][f"{share:g}"] = [
                {name: None if np.isnan(each) else round(each, 4) for name, each in one.items()} for one in found
            ]
            print(f"{kind}, {100 * share:g} % recorded: {results[kind][f'{share:g}']}", flush=True)
    content = {"seeds": given.seeds, "iterations": given.iterations, "neurons": len(experiment.inputs), "results": results}
    given.json.write_text(json.dumps(content | {"scored": int(experiment.scored.sum())}, indent=1) + "\n")
    draw(results, given.picture)
    print(table(results))


if __name__ == "__main__":
    main()
