"""Figure of the effect of a perturbation: on mean rates over time, on the rate and selectivity of each neuron, and on example neurons."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import zarr
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from rlsnet.analysis import single_trials
from rlsnet.analysis.perturbation_effects import PerturbationEffect, description
from rlsnet.analysis.plots.parts import draw_spread, groups_of, main_regions, place_legend_above, shortened
from rlsnet.analysis.plots.style import (
    EXC,
    INH,
    INK,
    MODEL_LINE,
    SMALL,
    SOFT,
    Panel,
    PanelFigure,
    condition_colours,
    condition_handles,
    draw_events,
    draw_mean,
)
from rlsnet.analysis.recording_summary import evenly
from rlsnet.analysis.test_results import RunResults
from rlsnet.errors import UserError
from rlsnet.workflows import test_store

SHADE: dict[str, Any] = {"color": "#f2c14e", "alpha": 0.22, "lw": 0}
WITHOUT: dict[str, Any] = MODEL_LINE | {"lw": 1.0}
WITH: dict[str, Any] = {"ls": "-", "lw": 1.5}
EXAMPLES = 3
MAX_CONDITIONS = 4  # that are drawn over each other
MAX_GROUPS = 5  # regions whose rates over time are drawn


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


def groups(effect: PerturbationEffect) -> list[tuple[str, np.ndarray]]:
    """(name, [n] bool) of the perturbed neurons, and of all others by region or, where regions are unknown, by class."""
    others = ~effect.perturbed
    found = [("perturbed neurons", effect.perturbed)]
    if effect.region is None:
        found += [("other excitatory neurons", others & effect.excitatory), ("other inhibitory neurons", others & ~effect.excitatory)]
    else:
        number, names = main_regions(effect.region, len(others))
        found += [(f"other neurons in {shortened(name)}", others & (number == k)) for k, name in enumerate(names)]
    return [(name, members) for name, members in found if members.any()][: 1 + MAX_GROUPS]


def perturbed(label: str, results: RunResults) -> PanelFigure:
    """Rates with and without the perturbation over time by group, changes of rates and of selectivity, and PSTHs that changed most."""
    stored = open_perturbed(results, label)
    effect, prefix = effect_of(results, stored), "" if label == stored.attrs["perturb"]["name"] else f"{label}, "
    drawn, others = groups(effect), ~effect.perturbed
    errors = standard_errors(results, stored, effect, [members for _, members in drawn])
    panels = []
    for k, (name, members) in enumerate(drawn):
        words = f"Mean rate of {members.sum():,} {name} over time in each condition, with the perturbation and without."
        error = None if errors is None else [each[..., k] for each in errors]
        panels.append(Panel(words, partial(_population, results, effect, name, members, error)))
    if others.any():
        panels.append(Panel("Change of the rates of other neurons in the window and after it, by group.", partial(_changes, effect)))
        panels.append(
            Panel("Rate of each other neuron in the window, with the perturbation against without.", partial(_scatter, effect, others))
        )
        if len(results.conditions) > 1:
            words = "Selectivity of each other neuron in the window, with the perturbation against without."
            panels.append(Panel(words, partial(_selectivity, results, effect, others)))
        panels.append(Panel("The other neurons whose rates changed most, with and without.", partial(_examples, results, effect, others)))
    handles = (
        *condition_handles(results.conditions, evenly(len(results.conditions), MAX_CONDITIONS)),
        Line2D([], [], color=INK, label="without perturbation", **WITHOUT),
        Line2D([], [], color=INK, label="with perturbation", **WITH),
        Rectangle((0, 0), 1, 1, label="window", **SHADE),
    )
    return PanelFigure(prefix + description(stored), tuple(panels), (2.4, 2.3), columns=3, handles=handles)


def standard_errors(
    results: RunResults, stored: zarr.Group, effect: PerturbationEffect, members: Sequence[np.ndarray]
) -> list[np.ndarray] | None:
    """Standard errors over trials of the mean rates of groups, [C, M, G] Hz without and with the perturbation; None without spikes.

    Args:
      results: of the run.
      stored: the perturbed test.
      effect: of the perturbation.
      members: [n] bool of each group; no neuron is in two.
    """
    tests = [results.test, stored]
    if not all(single_trials.has_spikes(test) and test is not None and test.attrs["trials"] > 1 for test in tests):
        return None
    group = np.full(int(stored.attrs["n_neurons"]), -1)
    for k, mine in enumerate(members):
        group[effect.neuron[mine]] = k
    scale = 1000 / (results.config.trial.learn_every * np.array([mine.sum() for mine in members]))
    rates = (single_trials.grouped_counts(results, test, group) * scale for test in tests if test is not None)
    return [rate.std(axis=1, ddof=1) / np.sqrt(rate.shape[1]) for rate in rates]


def _span(results: RunResults, effect: PerturbationEffect) -> tuple[float, float]:
    """(start, stop) of the window, s."""
    start, stop = results.clock.seconds(effect.window)
    return float(start), float(stop)


def _population(
    results: RunResults,
    effect: PerturbationEffect,
    name: str,
    members: np.ndarray,
    errors: Sequence[np.ndarray] | None,
    axes: Sequence[Any],
) -> None:
    """Draws the mean rate of a group over time in each condition, with bands of a standard error [C, M] over trials."""
    axes[0].axvspan(*_span(results, effect), **SHADE)
    colours = condition_colours(len(effect.psth_control))
    for c in map(int, evenly(len(colours), MAX_CONDITIONS)):
        for k, (psth, line) in enumerate(((effect.psth_control, WITHOUT), (effect.psth_perturbed, WITH))):
            error = None if errors is None else errors[k][c]
            draw_mean(axes[0], results.time, psth[c][:, members].mean(axis=1), error, colours[c], line)
    axes[0].set(title=f"{members.sum():,} {name}", xlabel=f"{results.clock.label} (s)", ylabel="mean rate (Hz)", xlim=results.span)
    draw_events(axes[0], results.clock.events, results.span)
    axes[0].set_ylim(bottom=0)


def _changes(effect: PerturbationEffect, axes: Sequence[Any]) -> None:
    """Draws the spread of the changes of the other neurons' rates in and after the window, by region or class."""
    others = ~effect.perturbed
    shown = [(name, members & others) for name, members in groups_of(effect.region, effect.excitatory) if (members & others).any()]
    series = {"in the window": (effect.change(1), INK, "o"), "after it": (effect.change(2), SOFT, "s")}
    draw_spread(axes[0], shown, {label: each for label, each in series.items() if np.isfinite(each[0]).any()})
    axes[0].axvline(0, color=SOFT, lw=0.8)
    axes[0].set(xlabel="change of rate (Hz)\nmedian, quartiles, 5 to 95 %")
    axes[0].set_title("other neurons, change", pad=15)
    place_legend_above(axes[0], 2, right=True)


def _scatter(effect: PerturbationEffect, others: np.ndarray, axes: Sequence[Any]) -> None:
    """Draws the rate of each other neuron in the window, with the perturbation against without."""
    axis, (x, y) = axes[0], (np.nan_to_num(rate.mean(axis=0)) for rate in effect.rates())
    top = max(1.0, float(np.max(np.r_[x[others], y[others]], initial=0)) * 1.05)
    for members, colour, name in ((effect.excitatory, EXC, "excitatory"), (~effect.excitatory, INH, "inhibitory")):
        axis.plot(x[others & members], y[others & members], ".", ms=3, mew=0, alpha=0.6, color=colour, rasterized=True)
        axis.plot([], [], ".", color=colour, label=name)
    axis.plot((0, top), (0, top), color=SOFT, lw=0.8)
    axis.set(xlabel="rate without (Hz)", ylabel="rate with (Hz)", xlim=(0, top), ylim=(0, top))
    axis.set_title("other neurons, rate in the window", pad=15)
    place_legend_above(axis, 2)


def selectivity_words(x: np.ndarray, y: np.ndarray) -> str:
    """Slope of the regression of selectivity y with a perturbation on x without, and their correlation, in words."""
    if len(x) < 3 or not np.ptp(x) or not np.ptp(y):
        return ""
    return f"slope {np.polyfit(x, y, 1)[0]:.2f}, r = {np.corrcoef(x, y)[0, 1]:.2f}"


def _selectivity(results: RunResults, effect: PerturbationEffect, others: np.ndarray, axes: Sequence[Any]) -> None:
    """Draws the difference between the rates in the first two conditions in the window, with the perturbation against without."""
    x, y = (np.nan_to_num(rate[1] - rate[0])[others] for rate in effect.rates())
    axis, wide = axes[0], max(1.0, float(np.max(np.abs(np.r_[x, y]), initial=0)) * 1.05)
    axis.axhline(0, color=SOFT, lw=0.5)
    axis.axvline(0, color=SOFT, lw=0.5)
    axis.plot((-wide, wide), (-wide, wide), color=SOFT, lw=0.8)
    axis.plot(x, y, ".", ms=3, mew=0, alpha=0.6, color=INK, rasterized=True)
    first, second = map(shortened, results.conditions[:2])
    axis.set(xlabel=f"{second} - {first}, without (Hz)", ylabel=f"{second} - {first}, with (Hz)", xlim=(-wide, wide), ylim=(-wide, wide))
    axis.set_title(f"other neurons, selectivity\n{selectivity_words(x, y)}")


def _examples(results: RunResults, effect: PerturbationEffect, others: np.ndarray, axes: Sequence[Any]) -> None:
    """Draws the PSTHs of the other neurons whose rate in the window changed most, one above the other, with a scale bar."""
    axis, base, colours = axes[0], 0.0, condition_colours(len(effect.psth_control))
    size = np.where(others, np.nan_to_num(np.abs(effect.rates()[1] - effect.rates()[0]).max(axis=0)), -1)
    axis.axvspan(*_span(results, effect), **SHADE)
    height = 1.0
    for neuron in [int(n) for n in np.argsort(-size)[:EXAMPLES] if others[n]]:
        drawn = [
            (results.smooth("psth", psth[c][:, neuron]), colours[c], line)
            for c in map(int, evenly(len(colours), 2))
            for psth, line in ((effect.psth_control, WITHOUT), (effect.psth_perturbed, WITH))
        ]
        for rate, colour, line in drawn:
            axis.plot(results.time, base + rate, color=colour, **(line | {"lw": 1}))
        axis.axhline(base, color=SOFT, lw=0.4)
        height = max(height, *(float(rate.max()) for rate, _, _ in drawn))
        top = max(*(float(rate.max()) for rate, _, _ in drawn), 1.0)
        where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "ha": "left", "va": "top", "fontsize": SMALL}
        axis.annotate(results.short_name(neuron), (0.02, base + 1.18 * top), **where)
        base += 1.25 * top
    bar = 10.0 ** np.floor(np.log10(height)) * (5 if height >= 5 * 10 ** np.floor(np.log10(height)) else 1)
    axis.plot((1.03, 1.03), (0, bar), transform=axis.get_yaxis_transform(), color=INK, lw=2, clip_on=False, solid_capstyle="butt")
    axis.annotate(f"{bar:g} Hz", (1.05, bar / 2), xycoords=("axes fraction", "data"), rotation=90, va="center", fontsize=SMALL)
    axis.set(xlabel=f"{results.clock.label} (s)", yticks=[], xlim=results.span, ylim=(0, max(base, 1.0)))
    axis.spines["left"].set_visible(False)
    axis.set_title("other neurons, largest changes")
    draw_events(axis, results.clock.events, results.span)
