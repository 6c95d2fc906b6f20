"""Figures of training: learning curves, and plastic weights before and after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator

from rlsnet.analysis.plots.parts import outer_bins, place_legend_above
from rlsnet.analysis.plots.style import (
    EXC,
    FAINT,
    INH,
    INK,
    LEAST_EXPLAINED,
    SOFT,
    Panel,
    PanelFigure,
    condition_colours,
)
from rlsnet.analysis.recording_summary import evenly
from rlsnet.analysis.test_results import RunResults
from rlsnet.analysis.verdict import best_baseline
from rlsnet.errors import UserError
from rlsnet.io import zarr_store
from rlsnet.io.formatting import duration
from rlsnet.learning.population import EXPLAINED, TITLE
from rlsnet.model import network_store
from rlsnet.runs import resources
from rlsnet.runs.folder import FORMAT
from rlsnet.runs.metrics import validations

MAX_WEIGHT_NEURONS = 20000  # in histograms of weights
MAX_NAMED = 7  # conditions in a legend
SMOOTHED = 10  # a mean is over a tenth of the iterations
FEW = 15  # iterations of a condition, below which their mean is not drawn


def moving_mean(values: np.ndarray, width: int) -> np.ndarray:
    """[K] mean of the known values [K] in a window of `width` values centred on each, cut off at the ends; NaN where none is known."""
    half = width // 2
    windows = (values[max(0, k - half) : k + half + 1] for k in range(len(values)))
    return np.array([window[np.isfinite(window)].mean() if np.isfinite(window).any() else np.nan for window in windows])


def resumed_after(samples: Sequence[Mapping[str, Any]]) -> list[int]:
    """Iterations after which training was resumed, by the samples of resources.jsonl: those of a new process begin without an iteration."""
    found, last, begun = [], 0, False
    for sample in (sample for sample in samples if sample.get("verb") == "train"):
        if "iteration" in sample:
            last, begun = int(sample["iteration"]), True
        elif begun:
            found.append(last)
            begun = False
    return found


class _Curves:
    """Lines of metrics.jsonl as arrays, undefined values NaN.

    iteration, task, seconds: [K]; seconds is the sum of the durations of the iterations and validations so far.
    """

    def __init__(self, results: RunResults):
        self.metrics: Any = results.run.read_metrics()
        if not self.metrics:
            raise UserError(f"{results.run.metrics}: contains no iterations yet.")
        self.iteration, self.task = (np.array([line[key] for line in self.metrics]) for key in ("iteration", "task"))
        self.seconds = np.cumsum([line["seconds"] + line.get("validation_seconds", 0) for line in self.metrics])
        names = results.conditions if results.has("condition") else []
        self.names = [names[c] if c < len(names) else f"condition {c}" for c in range(int(self.task.max()) + 1)]
        self.resumed = resumed_after(resources.read(results.run.resources))

    def values(self, key: str) -> np.ndarray:
        """[K] values of a key."""
        return np.array([np.nan if line.get(key) is None else line[key] for line in self.metrics], float)

    def draw(self, axis: Any, key: str) -> None:
        """Draws the values of each condition pale, and their moving mean."""
        values, colours = self.values(key), condition_colours(len(self.names))
        for each in np.unique(self.task):
            mine = self.task == each
            smooth = mine.sum() >= FEW
            style: dict[str, Any] = {"lw": 0.7, "alpha": 0.35} if smooth else {"lw": 1.2, "marker": ".", "ms": 3}
            axis.plot(self.iteration[mine], values[mine], color=colours[each], **style)
            if smooth:
                axis.plot(self.iteration[mine], moving_mean(values[mine], 1 + 2 * (int(mine.sum()) // SMOOTHED // 2)), color=colours[each])
            if 1 < len(self.names) <= MAX_NAMED:
                axis.plot([], [], color=colours[each], label=self.names[each])

    def _tick(self, iteration: float, _: Any = None) -> str:
        """Label of a tick: the iteration, and the duration of the computation up to it."""
        seconds = float(np.interp(iteration, np.r_[0, self.iteration], np.r_[0, self.seconds]))
        return f"{iteration:g}\n{duration(seconds) if seconds >= 10 or not seconds else f'{seconds:.1f} s'}"

    def finish(self, axis: Any, label: str, columns: int = 2) -> None:
        """Sets labels of the axes, and draws marks where training was resumed."""
        for k, iteration in enumerate(self.resumed):
            axis.axvline(iteration + 0.5, color=SOFT, lw=0.8, ls=(0, (1, 1.5)), label=None if k else "resumed")
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.xaxis.set_major_formatter(FuncFormatter(self._tick))
        axis.set(xlabel="iteration, duration so far", ylabel=label, xlim=(0, self.iteration[-1] + 0.5))
        if axis.get_legend_handles_labels()[0]:
            place_legend_above(axis, columns)


def learning_curve(results: RunResults) -> PanelFigure:
    """Correlation, explained variance and firing rate against the iteration, with the validations and the scores of the test."""
    curves = _Curves(results)
    validated, of_rates = validations(curves.metrics), results.config.target.name == "recording"
    correlation = curves.values("correlation")

    def correlations(axes: Sequence[Any]) -> None:
        """Draws the correlation of currents and targets in each condition."""
        curves.draw(axes[0], "correlation")
        axes[0].set_ylim(max(-0.5, min(0.0, np.nanmin(correlation, initial=0))) - 0.02, 1)
        curves.finish(axes[0], "correlation of current and target")

    def explained(axes: Sequence[Any]) -> None:
        """Draws the explained variance of the validations, and of the test."""
        axis, (number, score) = axes[0], zip(*validated, strict=True)
        axis.plot(number, score, "o-", color=INK, ms=3.5, lw=1, label="validation, trials trained on" if of_rates else "validation")
        best = int(np.argmax(score))
        star: dict[str, Any] = {"color": "#e09f1f", "mec": INK, "mew": 0.5, "ms": 9, "ls": "", "zorder": 4, "clip_on": False}
        axis.plot(number[best], score[best], "*", label=f"best validation, {100 * score[best]:.0f} %", **star)
        _draw_test(axis, results)
        lowest = min(0.0, *(float(np.nanmin(line.get_ydata(), initial=0)) for line in axis.get_lines()))
        for line in axis.get_lines():
            line.set_ydata(np.maximum(line.get_ydata(), LEAST_EXPLAINED))
        axis.set_ylim(max(LEAST_EXPLAINED, lowest) - 0.02, 1)
        edge = f"\n(at the lower edge: {LEAST_EXPLAINED:g} or less)" if lowest < LEAST_EXPLAINED else ""
        curves.finish(axis, f"{TITLE}{edge}", columns=1)

    def firing(axes: Sequence[Any]) -> None:
        """Draws the mean rates of both classes."""
        for key, colour, label in (("rate_exc_hz", EXC, "excitatory"), ("rate_inh_hz", INH, "inhibitory")):
            values = curves.values(key)
            axes[0].plot(curves.iteration, values, color=colour, lw=0.7, alpha=0.35)
            axes[0].plot(curves.iteration, moving_mean(values, 1 + 2 * (len(values) // SMOOTHED // 2)), color=colour, label=label)
        axes[0].set_ylim(bottom=0)
        curves.finish(axes[0], "firing rate (Hz)")

    known = correlation[np.isfinite(correlation)]
    ends = f"from {known[0]:.2f} to {known[-1]:.2f} in {len(correlation)} iterations" if known.size else "undefined"
    panels = [Panel(f"Correlation with the target by iteration: {ends}.", correlations)]
    if validated:
        panels.append(Panel(f"{TITLE.capitalize()} in the validations, with the best of them.", explained))
    panels.append(Panel("Mean firing rates by iteration.", firing))
    return PanelFigure(
        "Learning curve (pale lines: each iteration; strong lines: moving means)", tuple(panels), (7.2 / len(panels), 2.9), columns=3
    )


def _draw_test(axis: Any, results: RunResults) -> None:
    """Draws the explained variance of the test at its iteration, beside that of the other half of the trials and of the best baseline."""
    values = results.explained().get("all", {})
    if "model" not in values or results.test is None or "iteration" not in results.test.attrs:
        return
    iteration, trials = int(results.test.attrs["iteration"]), "held-out" if results.has("rate_heldout") else "the same"
    best = best_baseline(values)
    marks = {"model": ("D", INK, f"test, {trials} trials, {100 * values['model']:.0f} %"), "ceiling": ("_", INK, EXPLAINED["ceiling"])}
    marks |= {} if best is None else {best: ("x", SOFT, EXPLAINED[best])}
    for name, (marker, colour, label) in marks.items():
        if name in values:
            style = {"ls": "", "color": colour, "mfc": "white", "ms": 9 if marker == "_" else 5, "mew": 1.5, "clip_on": False, "zorder": 3}
            axis.plot(iteration, values[name], marker, label=label, **style)


def weights(results: RunResults) -> PanelFigure:
    """Histograms of plastic weights before and after training, by the classes of both neurons."""
    last = results.run.checkpoint("last")
    before = zarr_store.open_group(results.run.network, "", network_store.FORMAT)
    after = zarr_store.open_group(last, "", FORMAT)["plastic/weight"]
    excitatory, pre = before["neuron/excitatory"][...], before["plastic/pre"][...]
    some = evenly(len(excitatory), MAX_WEIGHT_NEURONS)
    start, end = before["plastic/weight"].oindex[some], after.oindex[some]
    if not end.size:
        raise UserError(f"{last}: has no plastic weights.")
    wide = float(np.quantile(np.abs(end), 0.998)) * 1.1 or 1.0
    inputs, bins = pre[some // int(before["plastic"].attrs["group_size"])], np.linspace(-wide, wide, 81)

    def draw(mine: np.ndarray, title: str, colour: str, axes: Sequence[Any]) -> None:
        """Draws the weights from one class to one class, before and after."""
        axis, values = axes[0], start[mine]
        axis.hist(np.clip(end[mine], -wide, wide), bins=bins, color=colour, alpha=0.75, label="after training")
        if values.size and np.ptp(values) < 1e-6 * wide:
            axis.axvline(values[0], color=INK, ls="--", lw=1, label=f"before: all {values[0]:.3g} threshold ms")
        else:
            axis.hist(np.clip(values, -wide, wide), bins=bins, histtype="step", color=INK, label="before")
        axis.axvline(0, color=FAINT, lw=0.7, zorder=0)
        beyond = outer_bins(np.r_[end[mine], values], -wide, wide)
        axis.set(xlabel=f"plastic weight (threshold ms){beyond}", ylabel="synapses")
        axis.set_title(title)
        place_legend_above(axis, 2)

    panels = []
    for to_exc in (True, False):
        for from_exc in (True, False):
            mine = (excitatory[some] == to_exc)[:, None] & (inputs >= 0) & (excitatory[inputs] == from_exc)
            title = f"{'E' if from_exc else 'I'} to {'E' if to_exc else 'I'}: {change_words(start[mine], end[mine])}"
            drawn = partial(draw, mine, title, EXC if from_exc else INH)
            panels.append(Panel(f"Histogram of plastic weights before and after, {title}.", drawn))
    law = "on: weights keep their signs" if results.config.rls.dale else "off: weights may change sign"
    return PanelFigure(f"Plastic weights before and after training (Dale's law {law})", tuple(panels), (3.6, 2.3))


def change_words(before: np.ndarray, after: np.ndarray) -> str:
    """Share of the weights that changed sign, and their root mean square change, in words."""
    if not before.size:
        return "no synapses"
    changed = np.mean(np.sign(after) == -np.sign(before))
    return f"{100 * changed:.0f} % changed sign, r.m.s. change {np.sqrt(np.mean((after - before) ** 2)):.2g} threshold ms"
