"""The figure of a perturbation: what it did to rates over time, to each neuron, and to a few of them in detail."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import zarr
from matplotlib.figure import Figure

from rlsnet import effects
from rlsnet.effects import Effect
from rlsnet.plots import DATA, EXC, INH, MODEL, Results

SHADE: dict[str, Any] = {"color": "#f2c14e", "alpha": 0.25, "lw": 0}
EXAMPLES = 3


def perturbed(results: Results, stored: zarr.Group, label: str) -> Figure:
    """Rates with and without, by class and of the perturbed; changes of rates; and PSTHs of the others that changed most."""
    assert results.test is not None
    effect = Effect.of(results.test, stored)
    figure, axes = plt.subplots(2, 3, figsize=(10, 5.6), layout="constrained")
    off = results.config.trial.stim_off
    span = tuple((edge - off) / 1000 for edge in effect.window)
    others = ~effect.perturbed
    panels = [
        ("perturbed neurons", effect.perturbed),
        ("other excitatory neurons", others & effect.excitatory),
        ("other inhibitory neurons", others & ~effect.excitatory),
    ]
    for axis, (name, members) in zip(axes[0], panels, strict=True):
        _population(axis, results, effect, name, members, span)
    _scatter(axes[1, 0], effect, others)
    _histogram(axes[1, 1], effect, others)
    _examples(axes[1, 2], results, effect, others, span)
    handles = [plt.Line2D([], [], color=DATA, label="without"), plt.Line2D([], [], color=MODEL, label="with")]
    handles.append(plt.Rectangle((0, 0), 1, 1, label="window", **SHADE))
    figure.legend(handles=handles, loc="outside upper right", ncols=3)
    named = "" if label == stored.attrs["perturb"]["name"] else f"{label}, "
    figure.suptitle(named + effects.in_words(stored), x=0.01, ha="left", fontsize=10)
    return figure


def _population(axis: Any, results: Results, effect: Effect, name: str, members: np.ndarray, span: tuple[float, ...]) -> None:
    """Mean rate over neurons and conditions against time."""
    axis.axvspan(*span, **SHADE)
    for psth, colour in ((effect.without, DATA), (effect.with_, MODEL)):
        if members.any():
            axis.plot(results.time, psth[:, :, members].mean(axis=(0, 2)), color=colour, lw=1.2)
    axis.set(title=f"{members.sum():,} {name}", xlabel="time from stimulus end (s)", ylabel="mean rate (Hz)")
    axis.set_ylim(bottom=0)
    axis.title.set_fontsize(9)


def _scatter(axis: Any, effect: Effect, others: np.ndarray) -> None:
    """Each other neuron's rate in the window, without and with."""
    bins = effect.period == 1
    x, y = (psth[:, bins].mean(axis=(0, 1)) if bins.any() else np.zeros(len(others)) for psth in (effect.without, effect.with_))
    top = max(1.0, float(np.max(np.r_[x[others], y[others]], initial=0)) * 1.05)
    for members, colour, name in ((effect.excitatory, EXC, "exc"), (~effect.excitatory, INH, "inh")):
        axis.plot(x[others & members], y[others & members], ".", ms=3, alpha=0.5, color=colour, label=name)
    axis.plot((0, top), (0, top), color="k", lw=0.8)
    axis.set(xlabel="without (Hz)", ylabel="with (Hz)", xlim=(0, top), ylim=(0, top))
    axis.set_title("others, rate in the window", fontsize=9)
    axis.legend(markerscale=3)


def _histogram(axis: Any, effect: Effect, others: np.ndarray) -> None:
    """Changes of the others' rates in and after the window."""
    values = {name: effect.change(period)[others] for period, name in ((1, "in the window"), (2, "after it"))}
    known = np.concatenate(list(values.values()))
    known = known[np.isfinite(known)]
    wide = max(0.5, float(np.quantile(np.abs(known), 0.98))) if known.size else 0.5
    for (name, change), colour in zip(values.items(), (MODEL, DATA), strict=True):
        if np.isfinite(change).any():
            label = f"{name}, mean {np.mean(change):+.2f} Hz"
            axis.hist(np.clip(change, -wide, wide), bins=np.linspace(-wide, wide, 51), histtype="step", lw=1.3, color=colour, label=label)
    axis.axvline(0, color="k", lw=0.8)
    axis.set(xlabel="change of rate (Hz)", ylabel="neurons")
    axis.set_ylim(top=axis.get_ylim()[1] * 1.3)
    axis.set_title("others, change of each neuron's rate", fontsize=9)
    axis.legend(fontsize=8, loc="upper left")


def _examples(axis: Any, results: Results, effect: Effect, others: np.ndarray, span: tuple[float, ...]) -> None:
    """PSTHs of the others whose rate in the window changed most, one above the other."""
    change = np.where(others, np.abs(effect.change()), -1)
    chosen = [int(n) for n in np.argsort(-np.nan_to_num(change, nan=-1))[:EXAMPLES] if others[n]]
    axis.axvspan(*span, **SHADE)
    base = 0.0
    for neuron in chosen:
        pair = [results.smooth(psth[0][:, neuron]) for psth in (effect.without, effect.with_)]
        for drawn, colour in zip(pair, (DATA, MODEL), strict=True):
            axis.plot(results.time, base + drawn, color=colour, lw=1)
        axis.axhline(base, color="k", lw=0.4)
        axis.annotate(
            f"neuron {results.neurons[neuron]}", (1, base), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7
        )
        base += 1.1 * max(float(np.max(np.stack(pair))), 1.0)
    axis.set(xlabel="time from stimulus end (s)", ylabel="rate")
    axis.set_yticks([])
    axis.set_title(
        f"others that changed most, {results.conditions[0]}" if len(results.conditions) > 1 else "others that changed most", fontsize=9
    )
