"""Figures of perturbed tests beside the unperturbed one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import zarr

from rlsnet import evaluate, zarrio
from rlsnet.config import UserError
from rlsnet.effects import Effect, in_words
from rlsnet.figures import DENSITY, EXC, INH, MODEL, SOFT, Drawing, Part, plainly
from rlsnet.results import Results

FLOOR = 0.05  # Hz


def opened(results: Results, label: str) -> zarr.Group:
    """The perturbed test of that label."""
    return zarrio.open_group(results.run.perturbed_results()[label], "perturb", evaluate.FORMAT)


def effect_of(results: Results, perturbed: zarr.Group) -> Effect:
    """A perturbed test beside the unperturbed one; UserError where there is none, or none of the same neurons."""
    if results.test is None:
        raise UserError("no unperturbed test to compare with; rlsnet test makes one.")
    if "perturbed" not in perturbed or "perturb" not in perturbed.attrs:
        raise UserError("does not say who was perturbed and when.")
    effect = Effect.of(results.test, perturbed)
    if not len(effect.perturbed) or effect.without.shape != effect.with_.shape:
        raise UserError("no unperturbed test of the same neurons and bins to compare with.")
    return effect


def effect(label: str, results: Results) -> Drawing:
    """Mean rates over time with and without the perturbation, and the mean rate of each other neuron in its window."""
    group = opened(results, label)
    found = effect_of(results, group)
    off = results.config.trial.stim_off
    window = [(edge - off) / 1000 for edge in found.window]

    def over_time(members: Sequence[tuple[str, np.ndarray, str]], title: str, axes: Sequence[Any]) -> None:
        axes[0].axvspan(*window, color=SOFT, alpha=0.18, lw=0)
        for psth, style, word in ((found.without, "--", "without"), (found.with_, "-", "with")):
            drawn = results.smooth(psth.mean(axis=0))
            for name, mine, colour in members:
                axes[0].plot(results.time, drawn[:, mine].mean(axis=1), style, color=colour, lw=1.4, label=f"{name}, {word}")
        axes[0].set(xlabel="time from stimulus end (s)", ylabel="mean rate (Hz)", xlim=(0, results.time[-1]))
        axes[0].set_ylim(bottom=0)
        axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0, columnspacing=1, title=title)

    def each_neuron(axes: Sequence[Any]) -> None:
        inside = found.period == 1
        x, y = (np.maximum(psth[:, inside][:, :, others].mean(axis=(0, 1)), FLOOR) for psth in (found.without, found.with_))
        span = (FLOOR, 1.3 * max(x.max(), y.max(), 2 * FLOOR))
        options = {"xscale": "log", "yscale": "log", "bins": "log", "extent": tuple(np.log10([*span, *span]))}
        axes[0].hexbin(x, y, gridsize=45, cmap=DENSITY, mincnt=1, linewidths=0, **options)
        axes[0].plot(span, span, color=MODEL, lw=1)
        axes[0].set(xlabel="rate in the window without (Hz)", ylabel="with the perturbation (Hz)", xlim=span, ylim=span)
        for each in (axes[0].xaxis, axes[0].yaxis):
            plainly(each)

    others, parts = ~found.perturbed, []
    if found.perturbed.any():
        shown = [("perturbed", found.perturbed, MODEL)]
        words = f"Mean rate of the {found.perturbed.sum():,} perturbed neurons over time, with and without."
        parts.append(Part(words, partial(over_time, shown, "perturbed neurons")))
    if others.any():
        classes = [("exc", others & found.excitatory, EXC), ("inh", others & ~found.excitatory, INH)]
        classes = [each for each in classes if each[1].any()]
        parts.append(Part("Mean rates of all other neurons over time, with and without.", partial(over_time, classes, "all others")))
        if (found.period == 1).any():
            parts.append(Part("Mean rate of each other neuron in the window, with the perturbation against without.", each_neuron))
    return Drawing(in_words(group), tuple(parts), (4.2, 3.5))
