"""Figures of perturbed tests beside the unperturbed one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from rlsnet.config import UserError
from rlsnet.figures import DATA, DENSITY, EXC, INH, MODEL, Drawing, Part, plainly
from rlsnet.results import Results

MOST_CONDITIONS = 3
FLOOR = 0.05  # Hz


def effect(before: Results, after: Results) -> Drawing:
    """Mean rates over time by class with and without the perturbation, and the mean rate of each neuron; raises UserError."""
    if before.test is None or not np.array_equal(before.neurons, after.neurons):
        raise UserError("no unperturbed test of the same neurons to compare with.")
    excitatory, conditions = before.read("excitatory"), before.conditions

    def over_time(condition: int, axes: Sequence[Any]) -> None:
        for results, style, word in ((before, "--", "unperturbed"), (after, "-", "perturbed")):
            psth = results.smooth(results.read("psth", condition))
            for mine, colour, name in ((excitatory, EXC, "excitatory"), (~excitatory, INH, "inhibitory")):
                if mine.any():
                    axes[0].plot(results.time, psth[:, mine].mean(axis=1), style, color=colour, lw=1.4, label=f"{name}, {word}")
        axes[0].set(
            xlabel="time from stimulus end (s)", ylabel="mean rate (Hz)", title=conditions[condition] if len(conditions) > 1 else ""
        )
        axes[0].set_ylim(bottom=0)
        axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1.06 if len(conditions) > 1 else 1), ncols=2, borderaxespad=0, columnspacing=1)

    def each_neuron(axes: Sequence[Any]) -> None:
        x, y = (np.maximum(results.read("rate").ravel(), FLOOR) for results in (before, after))
        span = (FLOOR, 1.3 * max(x.max(), y.max()))
        options = {"xscale": "log", "yscale": "log", "bins": "log", "extent": tuple(np.log10([*span, *span]))}
        axes[0].hexbin(x, y, gridsize=45, cmap=DENSITY, mincnt=1, linewidths=0, **options)
        axes[0].plot(span, span, color=MODEL, lw=1)
        axes[0].set(xlabel="unperturbed rate (Hz)", ylabel="perturbed rate (Hz)", xlim=span, ylim=span)
        for each in (axes[0].xaxis, axes[0].yaxis):
            plainly(each)
        axes[0].tick_params(colors=DATA)

    shown = range(min(len(conditions), MOST_CONDITIONS))
    parts = [Part(f"Mean rates over time in {conditions[c]} with and without the perturbation.", partial(over_time, c)) for c in shown]
    parts.append(Part("Mean rate of each neuron with the perturbation against without.", each_neuron))
    return Drawing("With and without the perturbation", tuple(parts), (4.2, 3.4), columns=2)
