"""Figure of the effect of a perturbation: on mean rates over time, on the rate of each neuron, and on example neurons."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import zarr
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from rlsnet.analysis import recorded_effects
from rlsnet.analysis.perturbation_effects import PerturbationEffect, description, resemblance
from rlsnet.analysis.plots.style import DATA, EXC, INH, MODEL, Panel, PanelFigure, draw_events
from rlsnet.analysis.recorded_effects import RecordedEffect
from rlsnet.analysis.test_results import RunResults
from rlsnet.data.statistics import mean_known
from rlsnet.errors import UserError
from rlsnet.workflows import test_store

SHADE: dict[str, Any] = {"color": "#f2c14e", "alpha": 0.25, "lw": 0}
EXAMPLES = 3
PIECES = 20  # of the learned time, in which the activity is compared with that of the conditions


def open_perturbed(results: RunResults, label: str) -> zarr.Group:
    """The stored test with the perturbation of that label."""
    return test_store.open_test(results.run, results.run.perturbed_results()[label], "perturb")


def effect_of(results: RunResults, stored: zarr.Group) -> PerturbationEffect:
    """The effect in a perturbed test; raises UserError where there is no unperturbed test of the same neurons."""
    if results.test is None:
        raise UserError("no unperturbed test to compare with; rlsnet test makes one.")
    if "perturbed" not in stored or "perturb" not in stored.attrs:
        raise UserError("has no neurons and times of the perturbation.")
    effect = PerturbationEffect.from_tests(results.test, stored)
    if not len(effect.perturbed) or effect.psth_control.shape != effect.psth_perturbed.shape:
        raise UserError("no unperturbed test of the same neurons and bins to compare with.")
    return effect


def perturbed(label: str, results: RunResults) -> PanelFigure:
    """Mean rates with and without the perturbation, changes of rates, and PSTHs of the neurons that changed most."""
    stored = open_perturbed(results, label)
    effect, prefix = effect_of(results, stored), "" if label == stored.attrs["perturb"]["name"] else f"{label}, "
    others, other = ~effect.perturbed, "" if effect.cue else "other "
    groups = [
        ("perturbed neurons", effect.perturbed),
        (f"{other}excitatory neurons", others & effect.excitatory),
        (f"{other}inhibitory neurons", others & ~effect.excitatory),
    ]
    panels = [
        Panel(
            f"Mean rate of {members.sum():,} {name} over time, with the perturbation and without.",
            partial(_population, results, effect, name, members),
        )
        for name, members in groups
        if members.any()
    ]
    if effect.cue:
        sentence = "Activity with this cue as a sum of the activity in the conditions with their own cues: shares over time."
        panels += [Panel(sentence, partial(_resemblance, results, effect))] if len(effect.conditions) > 1 else []
        panels.append(Panel("The neurons whose rates changed most, with and without.", partial(_examples, results, effect, others)))
    elif others.any():
        panels += [
            Panel("Rate of each other neuron in the window, with the perturbation against without.", partial(_scatter, effect, others)),
            Panel("Histogram of the changes of the other neurons' rates in the window and after it.", partial(_histogram, effect, others)),
            Panel("The other neurons whose rates changed most, with and without.", partial(_examples, results, effect, others)),
        ]
    assert results.test is not None
    if (recorded := recorded_effects.recorded_effect(results.test, stored)) is not None:
        panels += [
            Panel("Change of the mean rate over time, recorded and predicted.", partial(_recorded_course, results, recorded)),
            Panel("Change of each neuron's rate in the windows, predicted against recorded.", partial(_recorded_scatter, recorded)),
        ]
    handles = (
        Line2D([], [], color=DATA, label="without"),
        Line2D([], [], color=MODEL, label="with"),
        Rectangle((0, 0), 1, 1, label="stimulus" if effect.cue else "window", **SHADE),
    )
    return PanelFigure(prefix + description(stored), tuple(panels), (3.6, 3.0), handles=handles)


def _shade(results: RunResults, effect: PerturbationEffect, axis: Any) -> None:
    """Shades the windows of the perturbation."""
    for window in effect.windows:
        axis.axvspan(*(float(time) for time in results.clock.seconds(window)), **SHADE)


def _population(results: RunResults, effect: PerturbationEffect, name: str, members: np.ndarray, axes: Sequence[Any]) -> None:
    """Draws the mean rate over neurons and conditions against time."""
    _shade(results, effect, axes[0])
    for psth, colour in ((effect.psth_control, DATA), (effect.psth_perturbed, MODEL)):
        axes[0].plot(results.time, psth[:, :, members].mean(axis=(0, 2)), color=colour, lw=1.2)
    axes[0].set(title=f"{members.sum():,} {name}", xlabel=f"{results.clock.label} (s)", ylabel="mean rate (Hz)", xlim=results.span)
    draw_events(axes[0], results.clock.events, results.span)
    axes[0].set_ylim(bottom=0)


def _resemblance(results: RunResults, effect: PerturbationEffect, axes: Sequence[Any]) -> None:
    """Draws the share of the first condition in the activity of the trials of each condition, in windows of time."""
    axis, names = axes[0], effect.conditions
    edges = np.linspace(0, len(results.time), min(len(results.time), PIECES) + 1).astype(int)
    pieces = [slice(start, stop) for start, stop in itertools.pairwise(edges)]
    middle = [float(results.time[piece].mean()) for piece in pieces]
    for tests, style, label in ((effect.psth_control, "-", "own cue"), (effect.psth_perturbed, "--", "this cue")):
        share = np.array([resemblance(tests[:, piece], effect.psth_control[:, piece])[:, 0] for piece in pieces])
        for c, name in enumerate(names):
            axis.plot(middle, share[:, c], style, color=f"C{c % 10}", lw=1.2, label=f"{name}, {label}")
    title = f"1: like {names[0]} trials; 0: like {names[1]} trials" if len(names) == 2 else f"share of {names[0]} trials"
    axis.set(xlabel=f"{results.clock.label} (s)", ylabel="position of the activity", title=title, xlim=results.span)
    draw_events(axis, results.clock.events, results.span)
    axis.legend(fontsize=6)


def _recorded_course(results: RunResults, found: RecordedEffect, axes: Sequence[Any]) -> None:
    """Draws the change of the mean rate over neurons of each condition: of the recorded trials, and of the model."""
    axis = axes[0]
    _shade(results, found.effect, axis)
    for d, name in enumerate(found.names):
        for values, style, label in ((found.recorded, "-", "recorded"), (found.model, "--", "model")):
            axis.plot(results.time, mean_known(values[d].T.astype(float)), style, color=f"C{d % 10}", lw=1.2, label=f"{name}, {label}")
    axis.axhline(0, color=DATA, lw=0.6)
    axis.set(
        xlabel=f"{results.clock.label} (s)",
        ylabel="change of mean rate (Hz)",
        title="all neurons, recorded and predicted",
        xlim=results.span,
    )
    draw_events(axis, results.clock.events, results.span)
    axis.legend(fontsize=6)


def _recorded_scatter(found: RecordedEffect, axes: Sequence[Any]) -> None:
    """Draws the change of each neuron's rate in the windows, of the model against the recorded one."""
    axis, (recorded, model) = axes[0], found.changes()
    known = np.isfinite(recorded)
    top = max(1.0, float(np.max(np.abs(np.r_[recorded[known], model[known]]), initial=0)) * 1.05)
    for members, colour, name in ((found.effect.perturbed, MODEL, "perturbed"), (~found.effect.perturbed, DATA, "others")):
        if (members & known).any():
            axis.plot(recorded[members & known], model[members & known], ".", ms=3, alpha=0.5, color=colour, label=name, rasterized=True)
    axis.plot((-top, top), (-top, top), color=DATA, lw=0.8)
    title = f"change in the windows, EV of the effect {found.explained(np.ones(len(recorded), bool)):.2f}"
    axis.set(xlabel="recorded (Hz)", ylabel="model (Hz)", xlim=(-top, top), ylim=(-top, top), title=title)
    axis.legend()


def _scatter(effect: PerturbationEffect, others: np.ndarray, axes: Sequence[Any]) -> None:
    """Draws the rate of each other neuron in the window, with the perturbation against without."""
    axis, bins = axes[0], effect.period == 1
    x, y = (
        psth[:, bins].mean(axis=(0, 1)) if bins.any() else np.zeros(len(others)) for psth in (effect.psth_control, effect.psth_perturbed)
    )
    top = max(1.0, float(np.max(np.r_[x[others], y[others]], initial=0)) * 1.05)
    for members, colour, name in ((effect.excitatory, EXC, "exc"), (~effect.excitatory, INH, "inh")):
        axis.plot(x[others & members], y[others & members], ".", ms=3, alpha=0.5, color=colour, rasterized=True)
        axis.plot([], [], ".", color=colour, label=name)
    axis.plot((0, top), (0, top), color=DATA, lw=0.8)
    axis.set(xlabel="without (Hz)", ylabel="with (Hz)", xlim=(0, top), ylim=(0, top), title="others, rate in the window")
    axis.legend()


def _histogram(effect: PerturbationEffect, others: np.ndarray, axes: Sequence[Any]) -> None:
    """Draws histograms of the changes of the other neurons' rates in and after the window."""
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


def _examples(results: RunResults, effect: PerturbationEffect, others: np.ndarray, axes: Sequence[Any]) -> None:
    """Draws the PSTHs of the other neurons whose rate in the window changed most, one above the other."""
    axis, base = axes[0], 0.0
    change = np.where(others, np.abs(effect.change()), -1)
    _shade(results, effect, axis)
    for neuron in [int(n) for n in np.argsort(-np.nan_to_num(change, nan=-1))[:EXAMPLES] if others[n]]:
        pair = [results.smooth("psth", psth[0][:, neuron]) for psth in (effect.psth_control, effect.psth_perturbed)]
        for drawn, colour in zip(pair, (DATA, MODEL), strict=True):
            axis.plot(results.time, base + drawn, color=colour, lw=1)
        axis.axhline(base, color=DATA, lw=0.4)
        where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom", "fontsize": 7}
        axis.annotate(results.unit_name(neuron), (1, base), **where)
        base += 1.1 * max(float(np.max(np.stack(pair))), 1.0)
    condition = f", {effect.conditions[0]}" if len(results.conditions) > 1 else ""
    axis.set(
        xlabel=f"{results.clock.label} (s)",
        ylabel="rate",
        yticks=[],
        title=f"{'neurons' if effect.cue else 'others'} that changed most{condition}",
    )
    draw_events(axis, results.clock.events, results.span)
