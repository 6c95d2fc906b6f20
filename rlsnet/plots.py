"""Figures of a run, from its stored results; nothing is simulated here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from rlsnet import network, perturb_plots, statistics, store, zarrio
from rlsnet.config import Config, UserError
from rlsnet.figures import DATA, DENSITY, EXC, HEAT, INH, LINES, MODEL, SOFT, Panel, PanelFigure, integer_ticks, plain_numbers
from rlsnet.results import RunResults, with_config
from rlsnet.store import Run
from rlsnet.summary import evenly

log = logging.getLogger(__name__)

MAX_HEATMAP_NEURONS = 2000
MAX_RASTER_NEURONS = 200
MAX_WEIGHT_NEURONS = 20000  # in histograms of weights
PERTURBED = "perturbed_"  # prefix of a figure's name, before the label of the perturbation


def learning_curve(results: RunResults) -> PanelFigure:
    """Correlation and firing rate against the iteration."""
    metrics = results.run.read_metrics()
    if not metrics:
        raise UserError(f"{results.run.metrics}: holds no iterations yet.")
    iteration, task = (np.array([m[key] for m in metrics]) for key in ("iteration", "task"))
    known = [m["correlation"] for m in metrics if m["correlation"] is not None]

    def correlation(axes: Sequence[Any]) -> None:
        value = np.array([np.nan if m["correlation"] is None else m["correlation"] for m in metrics])
        names = results.conditions if results.has("condition") else [f"condition {c}" for c in range(task.max() + 1)]
        for each in np.unique(task):
            colour = (EXC, MODEL, SOFT, INH)[each % 4]
            axes[0].plot(iteration[task == each], value[task == each], lw=1.4, color=colour, marker="." if len(metrics) < 30 else None)
            if task.any() and len(np.unique(task)) < 7:
                axes[0].plot([], [], color=colour, label=names[each] if each < len(names) else f"condition {each}")
        integer_ticks(axes[0].xaxis)
        axes[0].set(xlabel="iteration", ylabel="correlation with target", ylim=(min(0, np.nanmin(value, initial=0)) - 0.02, 1))
        if axes[0].get_legend_handles_labels()[0]:
            axes[0].legend()

    def rate(axes: Sequence[Any]) -> None:
        for key, colour, label in (("rate_exc_hz", EXC, "excitatory"), ("rate_inh_hz", INH, "inhibitory")):
            axes[0].plot(iteration, [np.nan if m[key] is None else m[key] for m in metrics], color=colour, label=label, lw=1.4)
        integer_ticks(axes[0].xaxis)
        axes[0].set(xlabel="iteration", ylabel="firing rate (Hz)")
        axes[0].set_ylim(bottom=0)
        axes[0].legend()

    ends = f"from {known[0]:.2f} to {known[-1]:.2f} in {len(metrics)} iterations" if known else "undefined"
    panels = Panel(f"Correlation with the target by iteration: {ends}.", correlation), Panel("Mean firing rates by iteration.", rate)
    return PanelFigure("Learning curve", tuple(panels), columns=2)


def _examples_by_score(score: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """(label, indices) of the neurons with the three best, three median and three worst scores [N], where defined."""
    order = np.argsort(score)[: int(np.isfinite(score).sum())][::-1]
    if not len(order):
        raise UserError("test.zarr: no neuron has a defined correlation.")
    middle = max(0, len(order) // 2 - 1)
    return [("best", order[:3]), ("median", order[middle : middle + 3]), ("worst", order[-3:])]


def examples(results: RunResults) -> PanelFigure:
    """Traces of data and model for the best, median and worst neurons, all conditions."""
    data, model, score_name, source, label = results.compared()
    score = results.read(score_name)
    mean = statistics.mean_known(score)

    def draw(name: str, neurons: np.ndarray, axes: Sequence[Any]) -> None:
        for axis, neuron in zip(axes, neurons, strict=False):
            for condition in range(len(score)):
                style = LINES[condition % 4]
                axis.plot(results.time, results.read(data, condition, slice(None), neuron), style, color=DATA, lw=1)
                drawn = results.smooth(results.read(model, condition, slice(None), neuron))
                axis.plot(results.time, drawn, style, color=MODEL, lw=1.2)
            axis.set_title(f"{name}: neuron {results.neurons[neuron]}, r = {mean[neuron]:.2f}", fontsize=8)
            axis.set_ylabel(label, fontsize=8)
            axis.tick_params(labelbottom=False)
        for axis in axes[len(neurons) :]:
            axis.set_visible(False)
        axes[len(neurons) - 1].set_xlabel("time from stimulus end (s)")
        axes[len(neurons) - 1].tick_params(labelbottom=True)

    handles = [Line2D([], [], color=DATA, label=source), Line2D([], [], color=MODEL, label="model")]
    if len(score) > 1:
        handles += [Line2D([], [], color=SOFT, ls=LINES[c % 4], label=name) for c, name in enumerate(results.conditions[:4])]
    panels = []
    for name, neurons in _examples_by_score(mean):
        correlations = ", ".join(f"{mean[n]:.2f}" for n in neurons)
        words = f"{name.capitalize()} fits: {source} and model of {len(neurons)} neurons over time, correlations {correlations}."
        panels.append(Panel(words, partial(draw, name, neurons)))
    return PanelFigure("Best, median and worst neurons", tuple(panels), (3.4, 5.4), 3, 3, tuple(handles))


def heatmaps(results: RunResults) -> PanelFigure:
    """Heatmaps of data and model for the neurons with a target, scaled to a neuron's range in the data, sorted by the time of its peak."""
    data, model, _, source, label = results.compared()
    names = results.conditions[:4]
    conditions = len(names)
    trained = np.flatnonzero(np.isfinite(np.stack([results.read(data, c) for c in range(conditions)])).any(axis=(0, 1)))
    chosen = trained[evenly(len(trained), MAX_HEATMAP_NEURONS)]
    if not len(chosen):
        raise UserError(f"{results.run.test}: none of its neurons has a target.")
    ordering, by = ("rate_target", "trials trained on") if data == "rate_heldout" else (data, source)
    first = results.smooth(results.read(ordering, 0)[:, chosen])
    order = np.argsort(np.argmax(np.nan_to_num(first, nan=-np.inf), axis=0), kind="stable")

    def draw(condition: int, axes: Sequence[Any]) -> None:
        blocks = [results.smooth(results.read(name, condition)[:, chosen]) for name in (data, model)]
        low, high = np.fmin.reduce(blocks[0]), np.fmax.reduce(blocks[0])
        scaled = [(b - low) / np.where(high > low, high - low, 1) for b in blocks]
        for axis, block, name in zip(axes, scaled, (source, "model"), strict=True):
            extent = (0.0, results.time[-1], len(chosen), 0)
            image = axis.imshow(block[:, order].T, aspect="auto", cmap=HEAT, vmin=0, vmax=1, extent=extent)
            axis.set_title(f"{name}, {names[condition]}" if conditions > 1 else name)
            axis.set_ylabel("neuron")
        axes[-1].set_xlabel("time from stimulus end (s)")
        axes[0].tick_params(labelbottom=False)
        words = f"{label.split(' (')[0]}, scaled to the range of the {source}"
        axes[0].figure.colorbar(image, ax=list(axes), label=words, orientation="horizontal", shrink=0.6, aspect=40)

    sorted_by = f"sorted by the time of the peak in the {by}{f', {names[0]}' if conditions > 1 else ''}"
    label_of = "Heatmaps of {} neurons over time, {}: {} above, model below; {}."
    panels = tuple(Panel(label_of.format(len(chosen), names[c], source, sorted_by), partial(draw, c)) for c in range(conditions))
    return PanelFigure(f"All neurons, {sorted_by}", panels, (4.2, 6.2), 2, 4)


def raster(results: RunResults) -> PanelFigure:
    """Raster of one trial, with as many neurons of each class."""
    step, neuron = (results.read(f"spikes/{name}", slice(*results.read("spikes/trial_indptr", slice(0, 2)))) for name in ("step", "neuron"))
    excitatory, trial = results.read("excitatory"), results.config.trial

    def draw(axes: Sequence[Any]) -> None:
        base, axis = 0, axes[0]
        for members, colour, name in ((np.flatnonzero(excitatory), EXC, "excitatory"), (np.flatnonzero(~excitatory), INH, "inhibitory")):
            shown = members[evenly(len(members), MAX_RASTER_NEURONS // 2)]
            row = np.full(results.neurons[-1] + 1, -1)
            row[results.neurons[shown]] = base + np.arange(len(shown))
            mine = row[neuron] >= 0
            seconds = (step[mine] * trial.dt - trial.stim_off) / 1000
            axis.plot(seconds, row[neuron[mine]], "|", ms=2.4, color=colour, rasterized=True)
            axis.plot([], [], "|", color=colour, label=name)
            base += len(shown)
        axis.set(xlabel="time from stimulus end (s)", ylabel="neuron", xlim=(0, trial.duration / 1000), ylim=(-1, base))
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, markerscale=2, borderaxespad=0)

    return PanelFigure("Spikes of one trial", (Panel(f"Raster of one trial: {len(step):,} spikes.", draw),), (5.4, 3.4))


def _histogram(axis: Any, values: np.ndarray, bins: np.ndarray, colour: str, name: str, **style: Any) -> None:
    values = values[np.isfinite(values)]
    label = f"{name}, median {np.median(values):.2f}" if values.size else f"{name}, undefined"
    axis.hist(values, bins=bins, color=colour, label=label, **style)
    if values.size:
        axis.axvline(np.median(values), color=colour, lw=0.9, ls=(0, (3, 2)))


def correlations(results: RunResults) -> PanelFigure:
    """Histograms over neurons of the correlation with the target and of the noise ceiling of the recording."""
    bins = np.linspace(-1, 1, 61)
    names = {"current_correlation": ("current", SOFT), "rate_correlation": ("rate", EXC), "heldout_correlation": ("rate, held out", MODEL)}

    def draw(axes: Sequence[Any]) -> None:
        if results.has("noise_ceiling"):
            _histogram(axes[0], results.read("noise_ceiling").ravel(), bins, DATA, "noise ceiling", alpha=0.25)
        for name, (label, colour) in names.items():
            if results.has(name):
                _histogram(axes[0], results.read(name).ravel(), bins, colour, label, histtype="step", lw=1.5)
        axes[0].set(xlabel="correlation of model and target", ylabel="neurons", xlim=(-1, 1), xticks=np.linspace(-1, 1, 5))
        axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0, ncols=2, columnspacing=1, handlelength=1.2)

    def against(axes: Sequence[Any]) -> None:
        score = "heldout_correlation" if results.has("heldout_correlation") else "rate_correlation"
        x, y = results.read("noise_ceiling").ravel(), results.read(score).ravel()
        known = np.isfinite(x) & np.isfinite(y)
        axes[0].hexbin(x[known], y[known], gridsize=40, bins="log", cmap=DENSITY, mincnt=1, extent=(0, 1, -1, 1), linewidths=0)
        axes[0].plot([0, 1], [0, 1], color=DATA, lw=0.9)
        axes[0].set(
            xlabel="noise ceiling", ylabel=f"correlation{' with held-out trials' if score[0] == 'h' else ''}", xlim=(0, 1), ylim=(-1, 1)
        )

    panels = [Panel("Histogram of the correlation of model and target over neurons.", draw)]
    if results.has("noise_ceiling", "rate_correlation"):
        panels.append(Panel("Correlation of each neuron against its noise ceiling, the line where they are equal.", against))
    return PanelFigure("Correlation of model and target", tuple(panels), columns=2)


def rates(results: RunResults) -> PanelFigure:
    """Mean rates: model against recording where there is one, else histograms by class."""
    model, excitatory = results.read("rate"), results.read("excitatory")

    def by_class(axes: Sequence[Any]) -> None:
        top = max(1.0, float(np.quantile(model, 0.995)))
        for members, colour, name in ((excitatory, EXC, "excitatory"), (~excitatory, INH, "inhibitory")):
            values = model[:, members].ravel()
            label = f"{name}, mean {values.mean():.1f} Hz" if values.size else name
            axes[0].hist(values, bins=np.linspace(0, top, 51), histtype="step", lw=1.5, color=colour, label=label)
        axes[0].set(xlabel="firing rate (Hz)", ylabel="neurons")
        axes[0].legend()

    if not results.has("rate_target"):
        return PanelFigure("Firing rates", (Panel("Histogram of mean firing rates by class.", by_class),))
    data = np.stack([statistics.mean_known(results.read("rate_target", condition)) for condition in range(len(model))]).ravel()
    known, floor = np.isfinite(data), 0.05
    if not known.any():
        raise UserError(f"{results.run.test}: no neuron has a recorded rate.")
    x, y = np.maximum(data[known], floor), np.maximum(model.ravel()[known], floor)
    correlation = f"r = {np.corrcoef(x, y)[0, 1]:.2f}" if len(x) > 1 else ""

    def against(axes: Sequence[Any]) -> None:
        span, axis = (floor, 1.3 * max(x.max(), y.max())), axes[0]
        options = {"xscale": "log", "yscale": "log", "bins": "log", "extent": tuple(np.log10([*span, *span]))}
        axis.hexbin(x, y, gridsize=50, cmap=DENSITY, mincnt=1, linewidths=0, **options)
        axis.plot(span, span, color=MODEL, lw=1)
        axis.set(xlabel="recorded rate (Hz)", ylabel="model rate (Hz)", xlim=span, ylim=span, title=correlation)
        axis.set_aspect("equal")
        for each in (axis.xaxis, axis.yaxis):
            plain_numbers(each)

    return PanelFigure("Firing rates", (Panel(f"Mean rate of each neuron, model against recording; {correlation}.", against),), (4.2, 3.9))


def weights(results: RunResults) -> PanelFigure:
    """Histograms of plastic weights before and after training, by the classes of both neurons."""
    last = results.run.checkpoint("last")
    before = zarrio.open_group(results.run.network, "run", network.FORMAT)
    after = zarrio.open_group(last, "run", store.FORMAT)["plastic/weight"]
    excitatory, pre = before["neuron/excitatory"][...], before["plastic/pre"][...]
    some = evenly(len(excitatory), MAX_WEIGHT_NEURONS)
    start, end = before["plastic/weight"].oindex[some], after.oindex[some]
    if not end.size:
        raise UserError(f"{last}: has no plastic weights.")
    wide = float(np.quantile(np.abs(end), 0.998)) * 1.1 or 1.0
    inputs, bins = pre[some // int(before["plastic"].attrs["group_size"])], np.linspace(-wide, wide, 101)

    def draw(mine: np.ndarray, title: str, colour: str, axes: Sequence[Any]) -> None:
        axis, values = axes[0], start[mine]
        axis.hist(end[mine], bins=bins, color=colour, alpha=0.8, label="after")
        if values.size and np.ptp(values) < 1e-6 * wide:
            axis.axvline(values[0], color=DATA, ls="--", lw=1, label="before")
        else:
            axis.hist(values, bins=bins, histtype="step", color=DATA, label="before")
        axis.set(title=title, xlabel="plastic weight (threshold ms)", ylabel="synapses")
        axis.legend()

    panels = []
    for to_exc in (True, False):
        for from_exc in (True, False):
            mine = (excitatory[some] == to_exc)[:, None] & (inputs >= 0) & (excitatory[inputs] == from_exc)
            changed = np.mean(np.sign(end[mine]) == -np.sign(start[mine])) if mine.any() else 0.0
            title = f"{'E' if from_exc else 'I'} to {'E' if to_exc else 'I'}: {100 * changed:.0f} % changed sign"
            drawn = partial(draw, mine, title, EXC if from_exc else INH)
            panels.append(Panel(f"Histogram of plastic weights before and after, {title}.", drawn))
    return PanelFigure("Plastic weights before and after training", tuple(panels), (3.7, 2.7), columns=2)


def available(results: RunResults) -> dict[str, Callable[[RunResults], PanelFigure]]:
    """Functions that draw the figures that a run has data for, by name."""
    draw: dict[str, Callable[[RunResults], PanelFigure]] = {}
    if results.run.metrics.exists():
        draw["learning_curve"] = learning_curve
    if results.run.iterations():
        draw["weights"] = weights
    if results.test is not None:
        draw |= {"psth_examples": examples, "psth_heatmaps": heatmaps, "correlations": correlations, "rates": rates}
        if results.has("spikes/trial_indptr"):
            draw["raster"] = raster
        for label in results.run.perturbed_results():
            draw[f"{PERTURBED}{label}"] = partial(perturb_plots.perturbed, label)
    return draw


def figures(results: RunResults) -> Iterator[tuple[str, PanelFigure | UserError]]:
    """(name, figure) of each figure that a run has data for, or (name, reason why it cannot be drawn)."""
    for name, draw in available(results).items():
        try:
            yield name, draw(results)
        except UserError as error:
            yield name, error


def plot(
    config: Config,
    run: Run,
    folder: Path | None = None,
    report: Callable[[str], None] = log.info,
    warn: Callable[[str], None] = log.warning,
) -> None:
    """Writes a PNG of each figure that a run has data for.

    Args:
      config: of the run.
      run: its folder.
      folder: of the files; None for figures/ in the run folder.
      report: called with the path of each file.
      warn: called with the reason why a figure is missing.

    Raises:
      UserError: the run holds nothing to draw.
    """
    results, folder = with_config(config, run), folder or run.figures
    if not available(results):
        raise UserError(f"{run.path}: holds nothing to draw; run rlsnet train or rlsnet test first.")
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures(results):
        if isinstance(figure, UserError):
            warn(f"No {name}: {figure}")
            continue
        figure.save(folder / f"{name}.png")
        report(str(folder / f"{name}.png"))
    if results.test is None:
        report(f"No test.zarr: PSTHs, raster and scores are drawn after rlsnet test run={run.path}.")
