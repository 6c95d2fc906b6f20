"""Figures of a run, from what it stored; nothing is simulated here."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import zarr
from matplotlib.figure import Figure

from rlsnet import evaluate, network, scores, zarrio
from rlsnet.config import Config, UserError
from rlsnet.store import Run

log = logging.getLogger(__name__)

DATA, MODEL, EXC, INH = "#444444", "#d1495b", "#2e6f95", "#c8553d"
MOST_ROWS = 2000  # neurons drawn in a heatmap
RASTER_NEURONS = 200
STYLE = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 9, "figure.dpi": 130, "legend.frameon": False}
plt.rcParams.update(STYLE)


@dataclasses.dataclass(frozen=True)
class Results:
    """What figures are drawn from.

    config: of the run.
    run: its folder.
    test: test.zarr, or None.
    """

    config: Config
    run: Run
    test: zarr.Group | None

    def pair(self) -> tuple[str, str, str, str, str]:
        """(data, model, score, name of the data, axis label) of what is compared: recorded rates, or else currents."""
        if self.test is not None and "rate_target" in self.test:
            return "rate_target", "psth", "rate_correlation", "recording", "firing rate (Hz)"
        return "current_target", "current_mean", "current_correlation", "target", "current (threshold)"

    def read(self, name: str, *index: Any) -> np.ndarray:
        """An array of test.zarr, or a part of it."""
        assert self.test is not None
        return np.asarray(self.test[name][index or ...])

    @property
    def conditions(self) -> list[str]:
        """[C] names of the conditions."""
        return [str(name) for name in self.read("condition")]

    @property
    def neurons(self) -> np.ndarray:
        """[n] which of the network's neurons test.zarr is of."""
        return self.read("neuron")

    @property
    def time(self) -> np.ndarray:
        """[M] s, from stim_off to each learning point."""
        trial = self.config.trial
        return np.arange(1, trial.n_points + 1) * trial.learn_every / 1000

    def smooth(self, values: np.ndarray) -> np.ndarray:
        """[M, ...] averaged over the window in which scores are computed, as far as known; NaN stays where it is."""
        weights, known = scores.window_weights(self.config.trial), np.isfinite(values)
        if known.all():
            return np.tensordot(weights, values, 1)
        total = np.tensordot(weights, np.where(known, values, 0), 1)
        return np.divide(total, np.tensordot(weights, known, 1), out=np.full(total.shape, np.nan), where=known)


def learning_curve(results: Results) -> Figure:
    """Correlation and firing rate against the iteration."""
    metrics = results.run.read_metrics()
    if not metrics:
        raise UserError(f"{results.run.metrics}: holds no iterations yet.")
    iteration = np.array([m["iteration"] for m in metrics])
    task = np.array([m["task"] for m in metrics])
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    value = np.array([np.nan if m["correlation"] is None else m["correlation"] for m in metrics])
    for each in np.unique(task):
        label = f"condition {each}" if task.any() else None
        left.plot(iteration[task == each], value[task == each], marker="." if len(metrics) < 30 else None, label=label)
    left.set(xlabel="iteration", ylabel="correlation with target", ylim=(min(0, np.nanmin(value, initial=0)) - 0.02, 1))
    if task.any():
        left.legend()
    for key, colour, label in (("rate_exc_hz", EXC, "excitatory"), ("rate_inh_hz", INH, "inhibitory")):
        right.plot(iteration, [np.nan if m[key] is None else m[key] for m in metrics], color=colour, label=label)
    right.set(xlabel="iteration", ylabel="firing rate (Hz)")
    right.set_ylim(bottom=0)
    for axis in (left, right):
        axis.xaxis.get_major_locator().set_params(integer=True)
    right.legend()
    return figure


def _evenly(n: int, most: int) -> np.ndarray:
    """At most `most` of the numbers 0..n-1, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(int))


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    """The mean over the first axis of what is not NaN; NaN where all is."""
    known = np.isfinite(values)
    total, count = np.where(known, values, 0).sum(axis=0), known.sum(axis=0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _chosen(score: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Neurons to show: three best, three around the median, three worst by score [N], where it is defined."""
    order = np.argsort(score)[: int(np.isfinite(score).sum())][::-1]
    if not len(order):
        raise UserError("test.zarr: no neuron has a defined correlation.")
    middle = max(0, len(order) // 2 - 1)
    return [("best", order[:3]), ("median", order[middle : middle + 3]), ("worst", order[-3:])]


def examples(results: Results) -> Figure:
    """Data and model of the best, median and worst neurons, all conditions."""
    data, model, score_name, source, label = results.pair()
    score = results.read(score_name)
    mean = _mean_of_known(score)
    figure, axes = plt.subplots(3, 3, figsize=(9, 6.5), sharex=True, layout="constrained")
    for row, (name, neurons) in zip(axes, _chosen(mean), strict=True):
        for axis, neuron in zip(row, neurons, strict=False):
            for condition in range(len(score)):
                style = ("-", "--", ":", "-.")[condition % 4]
                axis.plot(results.time, results.read(data, condition, slice(None), neuron), style, color=DATA, lw=1)
                drawn = results.smooth(results.read(model, condition, slice(None), neuron))
                axis.plot(results.time, drawn, style, color=MODEL, lw=1)
            axis.set_title(f"{name}: neuron {results.neurons[neuron]}, r = {mean[neuron]:.2f}", fontsize=8)
        for axis in row[len(neurons) :]:
            axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("time from stimulus end (s)")
    axes[1, 0].set_ylabel(label)
    handles = [plt.Line2D([], [], color=DATA, label=source), plt.Line2D([], [], color=MODEL, label="model")]
    if len(score) > 1:
        handles += [
            plt.Line2D([], [], color="k", ls=("-", "--", ":", "-.")[c % 4], label=name) for c, name in enumerate(results.conditions[:4])
        ]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))
    return figure


def heatmaps(results: Results) -> Figure:
    """Data and model of all neurons with a target, each scaled to its own range in the data, sorted by the time of the data's peak."""
    data, model, _, source, label = results.pair()
    names, colours = results.conditions[:4], plt.get_cmap("viridis").with_extremes(bad="#cccccc")
    conditions = len(names)
    trained = np.flatnonzero(np.isfinite(np.stack([results.read(data, c) for c in range(conditions)])).any(axis=(0, 1)))
    chosen = trained[_evenly(len(trained), MOST_ROWS)]
    figure, axes = plt.subplots(2, conditions, figsize=(1.5 + 3.2 * conditions, 6), squeeze=False, sharex=True, layout="constrained")
    for condition in range(conditions):
        blocks = [results.smooth(results.read(name, condition)[:, chosen]) for name in (data, model)]
        low, high = np.fmin.reduce(blocks[0]), np.fmax.reduce(blocks[0])
        scaled = [(b - low) / np.where(high > low, high - low, 1) for b in blocks]
        if condition == 0:
            order = np.argsort(np.argmax(np.nan_to_num(scaled[0], nan=-1), axis=0), kind="stable")
        for axis, block, name in zip(axes[:, condition], scaled, (source, "model"), strict=True):
            extent = (0.0, results.time[-1], len(chosen), 0)
            image = axis.imshow(block[:, order].T, aspect="auto", cmap=colours, vmin=0, vmax=1, extent=extent, interpolation="none")
            axis.set_title(f"{name}, {names[condition]}" if conditions > 1 else name)
        axes[1, condition].set_xlabel("time from stimulus end (s)")
    for axis in axes[:, 0]:
        axis.set_ylabel(f"neuron, sorted by peak{'' if conditions == 1 else f' in {names[0]}'}")
    figure.colorbar(image, ax=axes, label=f"{label.split(' (')[0]}, scaled to the {source}'s range", shrink=0.6)
    return figure


def raster(results: Results) -> Figure:
    """Spikes of one trial: neurons drawn evenly from both classes."""
    step, neuron = (results.read(f"spikes/{name}", slice(*results.read("spikes/trial_indptr", slice(0, 2)))) for name in ("step", "neuron"))
    excitatory = results.read("excitatory")
    figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
    base = 0
    trial = results.config.trial
    for members, colour, name in ((np.flatnonzero(excitatory), EXC, "excitatory"), (np.flatnonzero(~excitatory), INH, "inhibitory")):
        shown = members[_evenly(len(members), RASTER_NEURONS // 2)]
        row = np.full(results.neurons[-1] + 1, -1)
        row[results.neurons[shown]] = base + np.arange(len(shown))
        mine = row[neuron] >= 0
        axis.plot((step[mine] * trial.dt - trial.stim_off) / 1000, row[neuron[mine]], "|", ms=2.2, color=colour, label=name)
        base += len(shown)
    axis.set(xlabel="time from stimulus end (s)", ylabel="neuron", xlim=(0, trial.duration / 1000), ylim=(-1, base), title="one trial")
    figure.legend(loc="outside upper right", ncols=2, markerscale=3)
    return figure


def correlations(results: Results) -> Figure:
    """Histogram over neurons of the correlation with the target."""
    figure, axis = plt.subplots(figsize=(4.5, 3.2), layout="constrained")
    names = {"current_correlation": ("current", MODEL), "rate_correlation": ("firing rate", DATA)}
    assert results.test is not None
    for name, (label, colour) in names.items():
        if name in results.test:
            score = results.read(name).ravel()
            score = score[np.isfinite(score)]
            mean = f"{score.mean():.2f}" if score.size else "undefined"
            axis.hist(score, bins=np.linspace(-1, 1, 61), histtype="step", lw=1.5, color=colour, label=f"{label}, mean {mean}")
    axis.set(xlabel="correlation with the target", ylabel="neurons", xlim=(-1, 1))
    figure.legend(loc="outside upper right", ncols=2)
    return figure


def rates(results: Results) -> Figure:
    """Mean rates: model against recording where there is one, else their distribution by class."""
    figure, axis = plt.subplots(figsize=(4, 3.8), layout="constrained")
    model, excitatory = results.read("rate"), results.read("excitatory")
    assert results.test is not None
    if "rate_target" not in results.test:
        top = max(1.0, float(np.quantile(model, 0.995)))
        for members, colour, name in ((excitatory, EXC, "excitatory"), (~excitatory, INH, "inhibitory")):
            values = model[:, members].ravel()
            label = f"{name}, mean {values.mean():.1f} Hz" if values.size else name
            axis.hist(values, bins=np.linspace(0, top, 51), histtype="step", lw=1.5, color=colour, label=label)
        axis.set(xlabel="firing rate (Hz)", ylabel="neurons")
        axis.legend()
        return figure
    data = np.stack([_mean_of_known(results.read("rate_target", condition)) for condition in range(len(model))]).ravel()
    known, floor = np.isfinite(data), 0.05
    x, y = np.maximum(data[known], floor), np.maximum(model.ravel()[known], floor)
    span = (floor, 1.3 * max(x.max(), y.max()))
    axis.hexbin(x, y, xscale="log", yscale="log", bins="log", gridsize=60, cmap="Greys", mincnt=1, extent=tuple(np.log10([*span, *span])))
    axis.plot(span, span, color=MODEL, lw=1)
    axis.set(xlabel="recorded rate (Hz)", ylabel="model rate (Hz)", xlim=span, ylim=span)
    if len(x) > 1:
        axis.set_title(f"r = {np.corrcoef(x, y)[0, 1]:.2f}")
    axis.set_aspect("equal")
    return figure


def weights(results: Results) -> Figure:
    """Plastic weights before and after training, by the classes of both neurons."""
    last = results.run.checkpoint("last")
    before = zarrio.open_group(results.run.network, "run", network.FORMAT)
    after = zarrio.open_group(last, "run", "rlsnet-checkpoint")["plastic/weight"]
    excitatory, pre = before["neuron/excitatory"][...], before["plastic/pre"][...]
    size = int(before["plastic"].attrs["group_size"])
    figure, axes = plt.subplots(2, 2, figsize=(7.5, 5.5), sharex=True, layout="constrained")
    some = _evenly(len(excitatory), 20000)
    start, end = before["plastic/weight"].oindex[some], after.oindex[some]
    wide = float(np.quantile(np.abs(end), 0.998)) * 1.1 or 1.0
    inputs = pre[some // size]
    for row, to_exc in zip(axes, (True, False), strict=True):
        for axis, from_exc in zip(row, (True, False), strict=True):
            mine = (excitatory[some] == to_exc)[:, None] & (inputs >= 0) & (excitatory[inputs] == from_exc)
            axis.hist(end[mine], bins=np.linspace(-wide, wide, 101), color=EXC if from_exc else INH, alpha=0.8, label="after")
            values = start[mine]
            if values.size and np.ptp(values) < 1e-6 * wide:
                axis.axvline(values[0], color="k", ls="--", lw=1, label="before")
            else:
                axis.hist(values, bins=np.linspace(-wide, wide, 101), histtype="step", color="k", label="before")
            changed = np.mean(np.sign(end[mine]) == -np.sign(values)) if values.size else 0.0
            axis.set_title(f"{'E' if from_exc else 'I'} to {'E' if to_exc else 'I'}: {100 * changed:.0f} % changed sign", fontsize=9)
    axes[0, 0].legend()
    for axis in axes[1]:
        axis.set_xlabel("plastic weight (threshold ms)")
    for axis in axes[:, 0]:
        axis.set_ylabel("synapses")
    return figure


def plot(config: Config, run: Run) -> None:
    """Draws what the run has data for into figures/ and says what is missing."""
    test = zarrio.open_group(run.test, "run", evaluate.FORMAT) if run.test.exists() else None
    results = Results(config, run, test)
    drawn: dict[str, Callable[[Results], Figure]] = {}
    if run.metrics.exists():
        drawn["learning_curve"] = learning_curve
    if run.iterations():
        drawn["weights"] = weights
    if test is not None:
        drawn |= {"psth_examples": examples, "psth_heatmaps": heatmaps, "correlations": correlations, "rates": rates}
        if "spikes/trial_indptr" in test:
            drawn["raster"] = raster
    if not drawn:
        raise UserError(f"{run.path}: holds nothing to draw; run rlsnet train or rlsnet test first.")
    run.figures.mkdir(exist_ok=True)
    for name, draw in drawn.items():
        try:
            _save(draw(results), run.figures / f"{name}.png")
        except UserError as error:
            log.warning("No %s: %s", name, error)
    if test is None:
        log.info("No test.zarr: PSTHs, raster and scores are drawn after rlsnet test run=%s.", run.path)


def _save(figure: Figure, path: Path) -> None:
    with zarrio.replacing(path) as temporary:
        figure.savefig(temporary, format="png")
    plt.close(figure)
    log.info("%s", path)
