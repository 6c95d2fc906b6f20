"""The figure of a perturbation: what it did to rates over time, to each neuron, and to a few of them in detail."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import zarr
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from rlsnet import evaluate, zarrio
from rlsnet.config import UserError
from rlsnet.effects import Effect, in_words
from rlsnet.figures import DATA, EXC, INH, MODEL, Drawing, Part
from rlsnet.results import Results

SHADE: dict[str, Any] = {"color": "#f2c14e", "alpha": 0.25, "lw": 0}
EXAMPLES = 3


def opened(results: Results, label: str) -> zarr.Group:
    """The perturbed test of that label."""
    return zarrio.open_group(results.run.perturbed_results()[label], "perturb", evaluate.FORMAT)


def effect_of(results: Results, stored: zarr.Group) -> Effect:
    """A perturbed test beside the unperturbed one; UserError where there is none, or none of the same neurons."""
    if results.test is None:
        raise UserError("no unperturbed test to compare with; rlsnet test makes one.")
    if "perturbed" not in stored or "perturb" not in stored.attrs:
        raise UserError("does not say who was perturbed and when.")
    effect = Effect.of(results.test, stored)
    if not len(effect.perturbed) or effect.without.shape != effect.with_.shape:
        raise UserError("no unperturbed test of the same neurons and bins to compare with.")
    return effect


def perturbed(label: str, results: Results) -> Drawing:
    """Rates with and without, by class and of the perturbed; changes of rates; and PSTHs of the others that changed most."""
    stored = opened(results, label)
    effect, named = effect_of(results, stored), "" if label == stored.attrs["perturb"]["name"] else f"{label}, "
    others = ~effect.perturbed
    panels = [
        ("perturbed neurons", effect.perturbed),
        ("other excitatory neurons", others & effect.excitatory),
        ("other inhibitory neurons", others & ~effect.excitatory),
    ]
    words = "Mean rate of {:,} {} over time, with the perturbation and without."
    parts = [Part(words.format(who.sum(), name), partial(_population, results, effect, name, who)) for name, who in panels if who.any()]
    if others.any():
        parts += [
            Part("Rate of each other neuron in the window, with the perturbation against without.", partial(_scatter, effect, others)),
            Part("Histogram of the changes of the other neurons' rates in the window and after it.", partial(_histogram, effect, others)),
            Part("The other neurons whose rates changed most, with and without.", partial(_examples, results, effect, others)),
        ]
    handles = Line2D([], [], color=DATA, label="without"), Line2D([], [], color=MODEL, label="with")
    return Drawing(named + in_words(stored), tuple(parts), (3.6, 3.0), handles=(*handles, Rectangle((0, 0), 1, 1, label="window", **SHADE)))


def _span(results: Results, effect: Effect) -> tuple[float, float]:
    """The window in s from the end of the stimulus."""
    off = results.config.trial.stim_off
    return (effect.window[0] - off) / 1000, (effect.window[1] - off) / 1000


def _population(results: Results, effect: Effect, name: str, members: np.ndarray, axes: Sequence[Any]) -> None:
    """Mean rate over neurons and conditions against time."""
    axes[0].axvspan(*_span(results, effect), **SHADE)
    for psth, colour in ((effect.without, DATA), (effect.with_, MODEL)):
        axes[0].plot(results.time, psth[:, :, members].mean(axis=(0, 2)), color=colour, lw=1.2)
    axes[0].set(title=f"{members.sum():,} {name}", xlabel="time from stimulus end (s)", ylabel="mean rate (Hz)", xlim=(0, results.time[-1]))
    axes[0].set_ylim(bottom=0)


def _scatter(effect: Effect, others: np.ndarray, axes: Sequence[Any]) -> None:
    """Each other neuron's rate in the window, without and with."""
    axis, bins = axes[0], effect.period == 1
    x, y = (psth[:, bins].mean(axis=(0, 1)) if bins.any() else np.zeros(len(others)) for psth in (effect.without, effect.with_))
    top = max(1.0, float(np.max(np.r_[x[others], y[others]], initial=0)) * 1.05)
    for members, colour, name in ((effect.excitatory, EXC, "exc"), (~effect.excitatory, INH, "inh")):
        axis.plot(x[others & members], y[others & members], ".", ms=3, alpha=0.5, color=colour, rasterized=True)
        axis.plot([], [], ".", color=colour, label=name)
    axis.plot((0, top), (0, top), color=DATA, lw=0.8)
    axis.set(xlabel="without (Hz)", ylabel="with (Hz)", xlim=(0, top), ylim=(0, top), title="others, rate in the window")
    axis.legend()


def _histogram(effect: Effect, others: np.ndarray, axes: Sequence[Any]) -> None:
    """Changes of the others' rates in and after the window."""
    axis, values = axes[0], {name: effect.change(period)[others] for period, name in ((1, "in the window"), (2, "after it"))}
    known = np.concatenate(list(values.values()))
    known = known[np.isfinite(known)]
    wide = max(0.5, float(np.quantile(np.abs(known), 0.98))) if known.size else 0.5
    for (name, change), colour in zip(values.items(), (MODEL, DATA), strict=True):
        if np.isfinite(change).any():
            label = f"{name}, mean {np.mean(change):+.2f} Hz"
            axis.hist(np.clip(change, -wide, wide), bins=np.linspace(-wide, wide, 51), histtype="step", lw=1.3, color=colour, label=label)
    axis.axvline(0, color=DATA, lw=0.8)
    axis.set(xlabel="change of rate (Hz)", ylabel="neurons", title="others, change of each neuron's rate")
    axis.set_ylim(top=axis.get_ylim()[1] * 1.3)
    axis.legend(loc="upper left")


def _examples(results: Results, effect: Effect, others: np.ndarray, axes: Sequence[Any]) -> None:
    """PSTHs of the others whose rate in the window changed most, one above the other."""
    axis, base = axes[0], 0.0
    change = np.where(others, np.abs(effect.change()), -1)
    axis.axvspan(*_span(results, effect), **SHADE)
    for neuron in [int(n) for n in np.argsort(-np.nan_to_num(change, nan=-1))[:EXAMPLES] if others[n]]:
        pair = [results.smooth(psth[0][:, neuron]) for psth in (effect.without, effect.with_)]
        for drawn, colour in zip(pair, (DATA, MODEL), strict=True):
            axis.plot(results.time, base + drawn, color=colour, lw=1)
        axis.axhline(base, color=DATA, lw=0.4)
        where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom", "fontsize": 7}
        axis.annotate(f"neuron {results.neurons[neuron]}", (1, base), **where)
        base += 1.1 * max(float(np.max(np.stack(pair))), 1.0)
    named = f", {results.conditions[0]}" if len(results.conditions) > 1 else ""
    axis.set(xlabel="time from stimulus end (s)", ylabel="rate", yticks=[], title=f"others that changed most{named}")
