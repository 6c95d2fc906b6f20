"""Figures of a run, from its stored results; nothing is simulated here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rlsnet.analysis.plots import perturbation_figures
from rlsnet.analysis.plots.style import DATA, EXC, INH, MODEL, SOFT, Panel, PanelFigure, check_files, integer_ticks
from rlsnet.analysis.plots.test_figures import correlations, examples, explained_variance, heatmaps, raster, rates
from rlsnet.analysis.recording_summary import evenly
from rlsnet.analysis.test_results import RunResults, with_config
from rlsnet.config.quoting import typed_command
from rlsnet.config.schema import Config
from rlsnet.errors import UserError
from rlsnet.io import zarr_store
from rlsnet.model import network_store
from rlsnet.runs.folder import FORMAT, Run
from rlsnet.runs.metrics import validations

log = logging.getLogger(__name__)


MAX_WEIGHT_NEURONS = 20000  # in histograms of weights


PERTURBED = "perturbed_"  # prefix of a figure's name, before the label of the perturbation


def learning_curve(results: RunResults) -> PanelFigure:
    """Correlation and firing rate against the iteration."""
    metrics = results.run.read_metrics()
    if not metrics:
        raise UserError(f"{results.run.metrics}: contains no iterations yet.")
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
        validated = validations(metrics)
        if validated:
            axes[0].plot(*zip(*validated, strict=True), "o", color=DATA, ms=4, label="explained variance, validation")
        integer_ticks(axes[0].xaxis)
        lowest = min(np.nanmin(value, initial=0), max(-0.5, min((score for _, score in validated), default=0)))
        axes[0].set(xlabel="iteration", ylabel="correlation with target", ylim=(lowest - 0.02, 1))
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


def weights(results: RunResults) -> PanelFigure:
    """Histograms of plastic weights before and after training, by the classes of both neurons."""
    last = results.run.checkpoint("last")
    before = zarr_store.open_group(results.run.network, "run", network_store.FORMAT)
    after = zarr_store.open_group(last, "run", FORMAT)["plastic/weight"]
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
        if results.explained():
            draw["explained_variance"] = explained_variance
        draw |= {"psth_examples": examples, "psth_heatmaps": heatmaps, "correlations": correlations, "rates": rates}
        if results.has("spikes/trial_indptr"):
            draw["raster"] = raster
        for label in results.run.perturbed_results():
            draw[f"{PERTURBED}{label}"] = partial(perturbation_figures.perturbed, label)
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
      UserError: the run has no results to draw.
    """
    results, folder, own_folder = with_config(config, run), folder or run.figures, folder is None
    if own_folder:
        run.refuse_links()
    if not available(results):
        raise UserError(f"{run.path}: has no results to draw; run rlsnet train or rlsnet test first.")
    check_files(folder, available(results))
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures(results):
        if isinstance(figure, UserError):
            warn(f"No {name}: {figure}")
            continue
        figure.save(folder / f"{name}.png")
        report(str(folder / f"{name}.png"))
    if results.test is None:
        report(f"No test.zarr: PSTHs, raster and scores are drawn after {typed_command('test', run.path)}.")
