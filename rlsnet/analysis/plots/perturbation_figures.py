"""Figure of the effect of a perturbation: on mean rates over time, on the rate and selectivity of each neuron, and on example neurons."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import zarr
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from rlsnet.analysis import recorded_effects, trial_spikes
from rlsnet.analysis.perturbation_effects import PerturbationEffect, description, resemblance
from rlsnet.analysis.plots.parts import draw_spread, groups_of, main_regions, place_legend_above, shortened
from rlsnet.analysis.plots.style import (
    DATA_LINE,
    EXC,
    INH,
    INK,
    MODEL_LINE,
    SMALL,
    SOFT,
    Panel,
    PanelFigure,
    band_handle,
    condition_colours,
    condition_handles,
    draw_events,
    draw_identity,
    draw_mean,
    style_handles,
)
from rlsnet.analysis.recorded_effects import RecordedEffect
from rlsnet.analysis.recording_summary import evenly
from rlsnet.analysis.test_results import RunResults
from rlsnet.data.statistics import mean_known
from rlsnet.errors import UserError
from rlsnet.io.formatting import percent
from rlsnet.workflows import test_store
from rlsnet.workflows.tested_settings import windows

SHADE: dict[str, Any] = {"color": "#f2c14e", "alpha": 0.22, "lw": 0}
WITHOUT: dict[str, Any] = MODEL_LINE | {"lw": 1.0}
WITH: dict[str, Any] = {"ls": "-", "lw": 1.5}
EXAMPLES = 3
MAX_CONDITIONS = 4  # that are drawn over each other
MAX_GROUPS = 5  # regions whose rates over time are drawn
PIECES = 20  # of the learned part, in which the activity is compared with that of the conditions


def open_perturbed(results: RunResults, label: str) -> zarr.Group:
    """The stored test with the perturbation of that label."""
    return test_store.open_test(results.run, results.run.perturbed_results()[label])


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
    others, other = ~effect.perturbed, "" if effect.cue else "other "
    found = [("perturbed neurons", effect.perturbed)]
    if effect.region is None:
        found += [(f"{other}excitatory neurons", others & effect.excitatory), (f"{other}inhibitory neurons", others & ~effect.excitatory)]
    else:
        # regions that are perturbed as a whole have no other neurons
        number, names = main_regions(effect.region[others], int(others.sum()), most=MAX_GROUPS)
        for k, name in enumerate(names):
            members = np.zeros(len(others), bool)
            members[others] = number == k
            found.append((f"{other}neurons in {shortened(name)}", members))
    return [(name, members) for name, members in found if members.any()]


def perturbed(label: str, results: RunResults) -> PanelFigure:
    """Rates with and without the perturbation over time by group, changes of rates and of selectivity, and PSTHs that changed most."""
    stored = open_perturbed(results, label)
    effect, prefix = effect_of(results, stored), "" if label == stored.attrs["perturb"]["name"] else f"{label}, "
    drawn, others, shaded = groups(effect), ~effect.perturbed, visible_windows(results, stored)
    errors = standard_errors(results, stored, effect, [members for _, members in drawn])
    panels = []
    for k, (name, members) in enumerate(drawn):
        words = f"Mean rate of {members.sum():,} {name} over time in each condition, with the perturbation and without."
        error = None if errors is None else [each[..., k] for each in errors]
        panels.append(Panel(words, partial(_population, results, effect, name, members, error, shaded)))
    if effect.cue and len(effect.conditions) > 1:
        words = "Activity with this cue as a sum of the activity in the conditions with their own cues: shares over time."
        panels.append(Panel(words, partial(_resemblance, results, effect)))
    if others.any() and not effect.cue:
        panels += _of_others(results, effect, others)
    if others.any():
        panels.append(Panel("The neurons whose rates changed most, with and without.", partial(_examples, results, effect, others, shaded)))
    assert results.test is not None
    if (recorded := recorded_effects.recorded_effect(results.test, stored)) is not None:
        panels.append(
            Panel("Change of the mean rate over time, recorded and predicted.", partial(_recorded_course, results, recorded, shaded))
        )
        words = "Change of each neuron's rate in the windows, predicted against recorded."
        panels.append(Panel(words, partial(_recorded_scatter, recorded)))
    handles = (
        *condition_handles(results.conditions, [_numbers(results, effect)[c] for c in evenly(len(effect.conditions), MAX_CONDITIONS)]),
        Line2D([], [], color=INK, label="own cue" if effect.cue else "without perturbation", **WITHOUT),
        Line2D([], [], color=INK, label="this cue" if effect.cue else "with perturbation", **WITH),
        *([Rectangle((0, 0), 1, 1, label="stimulus" if effect.cue else "window", **SHADE)] if shaded else []),
        *(() if errors is None else (band_handle(),)),
    )
    return PanelFigure(prefix + description(stored) + unseen(results, stored), tuple(panels), (2.4, 2.3), columns=3, handles=handles)


def _of_others(results: RunResults, effect: PerturbationEffect, others: np.ndarray) -> list[Panel]:
    """Panels of the changes of the neurons that are not perturbed."""
    panels = [
        Panel("Change of the rates of other neurons in the window and after it, by group.", partial(_changes, effect)),
        Panel("Rate of each other neuron in the window, with the perturbation against without.", partial(_scatter, effect, others)),
    ]
    if len(effect.conditions) > 1:
        words = "Selectivity of each other neuron in the window, with the perturbation against without."
        panels.append(Panel(words, partial(_selectivity, effect, others)))
    return panels


def _numbers(results: RunResults, effect: PerturbationEffect) -> list[int]:
    """Numbers of the conditions of an effect among all conditions."""
    return [results.conditions.index(name) for name in effect.conditions]


def _colours(results: RunResults, effect: PerturbationEffect) -> list[str]:
    """Colours of the conditions of an effect, which are those of all figures."""
    colours = condition_colours(len(results.conditions))
    return [colours[c] for c in _numbers(results, effect)]


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
    if not all(trial_spikes.has_spikes(test) and test is not None and test.attrs["trials"] > 1 for test in tests):
        return None
    group = np.full(int(stored.attrs["n_neurons"]), -1)
    for k, mine in enumerate(members):
        group[effect.neuron[mine]] = k
    scale = 1000 / (results.config.trial.learn_every * np.array([mine.sum() for mine in members]))
    rates = (trial_spikes.grouped_counts(results, test, group) * scale for test in tests if test is not None)
    return [(rate.std(axis=1, ddof=1) / np.sqrt(rate.shape[1]))[_numbers(results, effect)] for rate in rates]


def visible_windows(results: RunResults, stored: zarr.Group) -> list[tuple[float, float]]:
    """(start, stop) s, the windows of the perturbation of which a part is within the time that is drawn."""
    low, high = results.span
    found = [] if _without_stimulus(stored) else _seconds(results, stored)
    return [(start, stop) for start, stop in found if start < high - 1e-9 and stop > low + 1e-9]


def unseen(results: RunResults, stored: zarr.Group) -> str:
    """Words for the title where no window of the perturbation is within the time that is drawn."""
    found = _seconds(results, stored)
    if _without_stimulus(stored):
        return f"; own cue from {found[0][0]:g} to {found[-1][1]:g} s {results.clock.words}"
    if visible_windows(results, stored):
        return ""
    return f", {'before' if found[-1][1] <= results.span[0] + 1e-9 else 'outside of'} the time shown"


def _without_stimulus(stored: zarr.Group) -> bool:
    """Whether the perturbation is a cue without a stimulus."""
    settings: Any = stored.attrs["perturb"]
    return bool(settings["name"] == "cue" and settings["factor"] == 0)


def _seconds(results: RunResults, stored: zarr.Group) -> list[tuple[float, float]]:
    """(start, stop) of each window of a stored perturbation, s of the recording's time."""
    clock = results.clock.seconds
    return [(round(float(clock(start)), 9) + 0.0, round(float(clock(stop)), 9) + 0.0) for start, stop in windows(stored)]


def _shade(shaded: Sequence[tuple[float, float]], axis: Any) -> None:
    """Shades windows of the perturbation."""
    for window in shaded:
        axis.axvspan(*window, **SHADE)


def _population(
    results: RunResults,
    effect: PerturbationEffect,
    name: str,
    members: np.ndarray,
    errors: Sequence[np.ndarray] | None,
    shaded: Sequence[tuple[float, float]],
    axes: Sequence[Any],
) -> None:
    """Draws the mean rate of a group over time in each condition, with bands of a standard error [C, M] over trials."""
    _shade(shaded, axes[0])
    colours = _colours(results, effect)
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
    axes[0].set_title("other neurons, change")
    place_legend_above(axes[0], 2, right=True)


def _scatter(effect: PerturbationEffect, others: np.ndarray, axes: Sequence[Any]) -> None:
    """Draws the rate of each other neuron in the window, with the perturbation against without."""
    axis, (x, y) = axes[0], (np.nan_to_num(rate.mean(axis=0)) for rate in effect.rates())
    top = max(1.0, float(np.max(np.r_[x[others], y[others]], initial=0)) * 1.05)
    for members, colour, name in ((effect.excitatory, EXC, "excitatory"), (~effect.excitatory, INH, "inhibitory")):
        axis.plot(x[others & members], y[others & members], ".", ms=3, mew=0, alpha=0.6, color=colour, rasterized=True)
        axis.plot([], [], ".", color=colour, label=name)
    draw_identity(axis, 0, top)
    axis.set(xlabel="rate without (Hz)", ylabel="rate with (Hz)", xlim=(0, top), ylim=(0, top))
    axis.set_title("other neurons, rate in the window")
    place_legend_above(axis, 2)


def selectivity_words(x: np.ndarray, y: np.ndarray) -> str:
    """Slope of the regression of selectivity y with a perturbation on x without, and their correlation, in words."""
    if len(x) < 3 or not np.ptp(x) or not np.ptp(y):
        return ""
    return f"slope {np.polyfit(x, y, 1)[0]:.2f}, r = {np.corrcoef(x, y)[0, 1]:.2f}"


def _selectivity(effect: PerturbationEffect, others: np.ndarray, axes: Sequence[Any]) -> None:
    """Draws the difference between the rates in the first two conditions in the window, with the perturbation against without."""
    x, y = (np.nan_to_num(rate[1] - rate[0])[others] for rate in effect.rates())
    axis, wide = axes[0], max(1.0, float(np.max(np.abs(np.r_[x, y]), initial=0)) * 1.05)
    axis.axhline(0, color=SOFT, lw=0.5)
    axis.axvline(0, color=SOFT, lw=0.5)
    draw_identity(axis, -wide, wide)
    axis.plot(x, y, ".", ms=3, mew=0, alpha=0.6, color=INK, rasterized=True)
    first, second = map(shortened, effect.conditions[:2])
    axis.set(xlabel=f"{second} - {first}, without (Hz)", ylabel=f"{second} - {first}, with (Hz)", xlim=(-wide, wide), ylim=(-wide, wide))
    axis.set_title(f"other neurons, selectivity\n{selectivity_words(x, y)}")
    place_legend_above(axis)


def _examples(
    results: RunResults, effect: PerturbationEffect, others: np.ndarray, shaded: Sequence[tuple[float, float]], axes: Sequence[Any]
) -> None:
    """Draws the PSTHs of the other neurons whose rate in the window changed most, one above the other, with a scale bar."""
    axis, base, colours = axes[0], 0.0, _colours(results, effect)
    size = np.where(others, np.nan_to_num(np.abs(effect.rates()[1] - effect.rates()[0]).max(axis=0)), -1)
    _shade(shaded, axis)
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
        axis.annotate(results.short_name(neuron), (0.02, base + 1.4 * top), **where)
        base += 1.45 * top
    bar = 10.0 ** np.floor(np.log10(height)) * (5 if height >= 5 * 10 ** np.floor(np.log10(height)) else 1)
    axis.plot((1.03, 1.03), (0, bar), transform=axis.get_yaxis_transform(), color=INK, lw=2, clip_on=False, solid_capstyle="butt")
    axis.annotate(f"{bar:g} Hz", (1.05, bar / 2), xycoords=("axes fraction", "data"), rotation=90, va="center", fontsize=SMALL)
    axis.set(xlabel=f"{results.clock.label} (s)", yticks=[], xlim=results.span, ylim=(0, max(base, 1.0)))
    axis.spines["left"].set_visible(False)
    axis.set_title(f"{'' if effect.cue else 'other '}neurons, largest changes")
    draw_events(axis, results.clock.events, results.span)


def _resemblance(results: RunResults, effect: PerturbationEffect, axes: Sequence[Any]) -> None:
    """Draws the share of the first condition in the activity of the trials of each condition, in windows of time."""
    axis, names, colours = axes[0], effect.conditions, _colours(results, effect)
    edges = np.linspace(0, len(results.time), min(len(results.time), PIECES) + 1).astype(int)
    pieces = [slice(start, stop) for start, stop in itertools.pairwise(edges)]
    middle = [float(results.time[piece].mean()) for piece in pieces]
    for tests, line in ((effect.psth_control, WITHOUT), (effect.psth_perturbed, WITH)):
        share = np.array([resemblance(tests[:, piece], effect.psth_control[:, piece])[:, 0] for piece in pieces])
        for c in range(len(names)):
            axis.plot(middle, share[:, c], color=colours[c], **line)
    two = f"1: like {names[0]} trials; 0: like {names[1]} trials"
    axis.set_title(two if len(names) == 2 else f"share of {names[0]} trials")
    axis.set(xlabel=f"{results.clock.label} (s)", ylabel="position of the activity", xlim=results.span)
    draw_events(axis, results.clock.events, results.span)


def _recorded_course(results: RunResults, found: RecordedEffect, shaded: Sequence[tuple[float, float]], axes: Sequence[Any]) -> None:
    """Draws the change of the mean rate over neurons of each condition: of the recorded trials (solid), and of the model (dashed)."""
    axis, colours = axes[0], _colours(results, found.effect)
    _shade(shaded, axis)
    for d, name in enumerate(found.names):
        own = next((c for c, each in enumerate(found.effect.conditions) if name.startswith(f"{each} (")), d)
        for values, line in ((found.recorded, DATA_LINE), (found.model, MODEL_LINE)):
            axis.plot(results.time, mean_known(values[d].T.astype(float)), color=colours[own], **line)
    axis.axhline(0, color=SOFT, lw=0.6)
    axis.set(xlabel=f"{results.clock.label} (s)", ylabel="change of mean rate (Hz)", xlim=results.span)
    axis.set_title("all neurons, change of rate")
    place_legend_above(axis, 2, handles=style_handles("recorded", "predicted"))
    draw_events(axis, results.clock.events, results.span, names=False)


def _recorded_scatter(found: RecordedEffect, axes: Sequence[Any]) -> None:
    """Draws the change of each neuron's rate in the windows, of the model against the recorded one."""
    axis, (recorded, model) = axes[0], found.changes()
    known = np.isfinite(recorded)
    top = max(1.0, float(np.max(np.abs(np.r_[recorded[known], model[known]]), initial=0)) * 1.05)
    for members, colour, name in ((found.effect.perturbed, INK, "perturbed"), (~found.effect.perturbed, SOFT, "others")):
        if (members & known).any():
            axis.plot(recorded[members & known], model[members & known], ".", ms=3, mew=0, color=colour, label=name, rasterized=True)
    draw_identity(axis, -top, top)
    axis.set(xlabel="recorded change (Hz)", ylabel="predicted change (Hz)", xlim=(-top, top), ylim=(-top, top))
    axis.set_title(f"explained variance of the effect {percent(found.explained(np.ones(len(recorded), bool)))}")
    place_legend_above(axis, 2)
