"""Figures of the analyses of all neurons together and of single trials; `FIGURES` has those of all analyses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from rlsnet.analysis.analyses.analyse import ANALYSES
from rlsnet.analysis.analyses.variables import Result
from rlsnet.analysis.plots import region_figures
from rlsnet.analysis.plots.parts import outer_bins, shortened
from rlsnet.analysis.plots.style import (
    BASELINE_LINE,
    DATA,
    DATA_LINE,
    DENSITY,
    INK,
    MODEL,
    MODEL_LINE,
    SOFT,
    Panel,
    PanelFigure,
    condition_colours,
    condition_handles,
    draw_events,
    draw_identity,
    draw_mean,
    integer_ticks,
    style_handles,
)
from rlsnet.analysis.test_results import RunResults
from rlsnet.io.formatting import counted, in_words, percent

PREFIX = "analysis_"  # of the names of the figures
LINES: Mapping[str, tuple[str, Mapping[str, Any]]] = {"data": (DATA, DATA_LINE), "model": (MODEL, MODEL_LINE)}
SHADE: dict[str, Any] = {"color": "#767d87", "alpha": 0.12, "lw": 0}
MAX_GROUPS = 12  # regions in a figure
MAX_CURVES = 4  # regions whose selectivity is drawn over time


def _source(results: RunResults) -> str:
    """The data in words, for a legend."""
    return results.compared().data_label


def _conditions(results: RunResults, result: Result) -> tuple[list[str], list[str]]:
    """(names, colours) of the conditions of a result, which are the trained ones; colours are the same in all figures."""
    colours = condition_colours(len(results.conditions))
    return [str(name) for name in result.numbers["names"]], [colours[c] for c in result.numbers["number"]]


def _curves(axis: Any, results: RunResults, time: np.ndarray, values: Mapping[str, np.ndarray], colours: Sequence[str]) -> None:
    """Draws [C, M] values of data and model over time, a colour for each condition."""
    for name, lines in values.items():
        for c, line in enumerate(lines):
            axis.plot(time, line, color=colours[c], **LINES[name][1])
    axis.set(xlabel=f"{results.clock.label} (s)", xlim=results.span)


def _largest(groups: Sequence[str]) -> str:
    """A line for the label of an axis, where not all groups, of which the first are all neurons, have a row."""
    return f"\n(the {MAX_GROUPS - 1} largest of {len(groups) - 1} regions)" if len(groups) > MAX_GROUPS else ""


def trajectories(results: RunResults, result: Result) -> PanelFigure:
    """Data and model in the first two principal components of the data, over time, and the variance in each component."""
    (names, colours), values = _conditions(results, result), {name: result[name] for name in LINES}
    shares = {name: result[f"variance_{name}"] for name in LINES}

    def plane(axes: Sequence[Any]) -> None:
        """Draws the trajectories in the first two components."""
        for name, points in values.items():
            for c in range(len(names)):
                axes[0].plot(points[c, :, 0], points[c, :, 1], color=colours[c], **LINES[name][1])
                axes[0].plot(points[c, 0, 0], points[c, 0, 1], "o", color=colours[c], ms=4, fillstyle="full" if name == "data" else "none")
        axes[0].set(xlabel=label(0), ylabel=label(1), title="circles: start of the trial", aspect="equal")
        axes[0].set_adjustable("datalim")

    def label(component: int) -> str:
        """Label of the axis of a component, with its share of the variance."""
        return f"component {component + 1} ({percent(shares['data'][component])} of the data's variance)"

    def over_time(component: int, axes: Sequence[Any]) -> None:
        """Draws one component over time."""
        _curves(axes[0], results, results.time, {name: points[:, :, component] for name, points in values.items()}, colours)
        axes[0].set(ylabel=f"component {component + 1}")
        draw_events(axes[0], results.clock.events, results.span)

    def variance(axes: Sequence[Any]) -> None:
        """Draws the cumulative share of the variance."""
        for name, share in shares.items():
            axes[0].plot(np.arange(1, len(share) + 1), np.cumsum(share), "o", color=LINES[name][0], ms=3, label=name, **LINES[name][1])
        axes[0].set(xlabel="number of components", ylabel="cumulative share of the variance", ylim=(0, 1.02))
        axes[0].set_title(words.replace(" (", "\n("))
        integer_ticks(axes[0].xaxis)
        axes[0].legend(loc="lower right")

    ceiling = result.numbers.get("ceiling")
    components = counted(len(shares["data"]), "component")
    words = f"the model explains {percent(result.numbers['explained'])} of the data's variance (in {components}"
    words += f"; the other half of the trials: {percent(ceiling)})" if ceiling is not None else ")"
    panels = [Panel("Trajectories of data and model in the first two principal components.", plane)] if len(shares["data"]) > 1 else []
    panels += [
        Panel(f"Component {k + 1} of data and model over time.", partial(over_time, k)) for k in range(min(2, values["data"].shape[2]))
    ]
    panels.append(Panel(f"Share of the variance of data and model in the first components; {words}.", variance))
    handles = (*style_handles(_source(results)), *condition_handles(results.conditions, result.numbers["number"]))
    return PanelFigure("Trajectories in the principal components of the data", tuple(panels), handles=handles)


def coding_direction(results: RunResults, result: Result) -> PanelFigure:
    """Data and model on the direction that separates two conditions, over time."""
    _, colours = _conditions(results, result)
    first, second = result.numbers["conditions"]

    def draw(axes: Sequence[Any]) -> None:
        """Draws the projections over time."""
        axes[0].axvspan(*result.numbers["window"], **SHADE)
        _curves(axes[0], results, results.time, {name: result[name] for name in LINES}, colours)
        axes[0].set(ylabel=f"activity along {first} - {second}\n(1: separation in the data, shaded)", title=words)
        draw_events(axes[0], results.clock.events, results.span)

    cosine, ceiling = result.numbers["cosine"], result.numbers.get("cosine_of_data")
    words = f"separation relative to the data: {in_words(result.numbers['separation'])}\ncosine of both directions: {in_words(cosine)}"
    words += f" (both halves of the data: {in_words(ceiling)})" if ceiling is not None else ""
    handles = (*style_handles(_source(results)), *condition_handles(results.conditions, result.numbers["number"]))
    label = f"Projection of data and model on the direction that separates {first} and {second}; {words}."
    return PanelFigure(f"Coding direction of {first} and {second}", (Panel(label, draw),), (5.2, 2.9), handles=handles)


def decoding(results: RunResults, result: Result) -> PanelFigure:
    """Share of the trials whose condition a decoder finds, over time and by session."""
    share, time, chance = result["correct"], result["window"], result.numbers["chance"]
    sessions, units = result["session"], result["units"]

    def over_time(axes: Sequence[Any]) -> None:
        """Draws the share of correct trials over time, mean over sessions."""
        for k, kind in enumerate(result.numbers["kinds"]):
            if np.isfinite(share[k]).any():
                spread = share[k].std(axis=0, ddof=1) if len(sessions) > 1 else None
                draw_mean(axes[0], time, share[k].mean(axis=0), spread, *LINES[kind], label=kind)
        axes[0].axhline(chance, color=SOFT, label="chance", **BASELINE_LINE)
        band = f"\nbands: s.d. over {len(sessions)} sessions" if len(sessions) > 1 else ""
        few, many = int(units.min()), int(units.max())
        title = (
            f"from {counted(few, 'unit') if few == many else f'{few} to {many} units'}, windows of {result.numbers['window_ms']:g} ms{band}"
        )
        axes[0].set(xlabel=f"{results.clock.label} (s)", ylabel="trials decoded correctly", ylim=(0, 1.02), xlim=results.span, title=title)
        draw_events(axes[0], results.clock.events, results.span)
        axes[0].legend(loc="lower right")

    def by_session(axes: Sequence[Any]) -> None:
        """Draws the mean over time of each session, model against data."""
        x, y = share.mean(axis=2)
        low = max(0.0, min(chance, float(np.min(share.mean(axis=2)))) - 0.05)
        draw_identity(axes[0], low, 1)
        axes[0].plot(x, y, "o", color=MODEL, ms=4, alpha=0.8)
        axes[0].set(xlabel="data", ylabel="model", xlim=(low, 1), ylim=(low, 1), title="mean over time; a dot for each session")
        axes[0].set_aspect("equal")
        axes[0].legend(loc="lower right")

    panels = [Panel("Share of the trials decoded correctly from data and model over time, with chance.", over_time)]
    if np.isfinite(share).all():
        panels.append(Panel("Share of the trials decoded correctly, model against data, by session.", by_session))
    return PanelFigure("Decoding of the condition from single trials", tuple(panels))


def selectivity(results: RunResults, result: Result) -> PanelFigure:
    """Difference of the rates in two conditions: model against data, correlation by region, and over time."""
    first, second = result.numbers["conditions"]
    groups, data, model = [str(name) for name in result["group"]], result["data"], result["model"]
    unit = results.compared().quantity.split("(")[-1].rstrip(")")
    start, end = result.numbers["window"]

    def scatter(axes: Sequence[Any]) -> None:
        """Draws the density of neurons by their selectivity in data and model."""
        wide = max(1e-9, float(np.quantile(np.abs(np.r_[data, model]), 0.995)))
        options = {"gridsize": 45, "bins": "log", "cmap": DENSITY, "mincnt": 1, "linewidths": 0, "extent": (-wide, wide, -wide, wide)}
        axes[0].hexbin(np.clip(data, -wide, wide), np.clip(model, -wide, wide), **options)
        draw_identity(axes[0], -wide, wide)
        axes[0].legend(loc="upper left")
        beyond = outer_bins(np.r_[data, model], -wide, wide, "; at the edges: values beyond").strip("\n()")
        where = f"from {start:g} to {end:g} s; darker: more neurons{beyond}"
        axes[0].set(xlabel=f"data: {first} - {second} ({unit})", ylabel=f"model ({unit})", title=where, aspect="equal")

    def by_region(axes: Sequence[Any]) -> None:
        """Draws the correlation of the selectivity in each region."""
        row, shown = np.arange(min(len(groups), MAX_GROUPS))[::-1], slice(MAX_GROUPS)
        axes[0].barh(row, result["correlation"][shown], height=0.6, color=MODEL, alpha=0.75, label="model and data")
        if np.isfinite(result["ceiling"]).any():
            axes[0].plot(result["ceiling"][shown], row, "|", color=INK, ms=11, mew=1.8, label="both halves of the data")
        axes[0].set(
            yticks=row,
            yticklabels=[shortened(name) for name in groups[shown]],
            xlabel=f"correlation of selectivity over neurons{_largest(groups)}",
            xlim=(min(0, axes[0].get_xlim()[0]), 1),
        )
        axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0, handlelength=1)

    def over_time(place: int, axes: Sequence[Any]) -> None:
        """Draws the mean selectivity of one region over time."""
        for name, (colour, line) in LINES.items():
            axes[0].plot(results.time, result[f"{name}_over_time"][place], color=colour, label=name, **line)
        axes[0].axvspan(*result.numbers["window"], **SHADE)
        axes[0].axhline(0, color=SOFT, lw=0.6)
        title = "all neurons" if not place else groups[place]
        axes[0].set(xlabel=f"{results.clock.label} (s)", ylabel=f"preferred - other ({unit})", xlim=results.span, title=title)
        draw_events(axes[0], results.clock.events, results.span)
        axes[0].legend()

    panels = [Panel(f"Selectivity of each neuron for {first} or {second}, model against data.", scatter)]
    if np.isfinite(result["correlation"]).any():
        panels.append(Panel("Correlation of the selectivity of data and model over neurons, by region.", by_region))
    for place in range(min(len(groups), 1 + MAX_CURVES)):
        panels.append(Panel(f"Mean selectivity of {groups[place]} over time, data and model.", partial(over_time, place)))
    return PanelFigure(f"Selectivity for {first} and {second}; shaded: from {start:g} to {end:g} s", tuple(panels))


def dimensionality(results: RunResults, result: Result) -> PanelFigure:
    """Participation ratio by region, and the share of the variance by component."""
    groups, ratio = [f"{name} ({n:,})" for name, n in zip(result["group"], result["neurons"], strict=True)], result["participation_ratio"]
    row = np.arange(min(len(groups), MAX_GROUPS))[::-1]

    def by_region(axes: Sequence[Any]) -> None:
        """Draws the participation ratio in each region."""
        for k, (kind, (colour, _)) in enumerate(LINES.items()):
            axes[0].plot(ratio[k, :MAX_GROUPS], row, "o", color=colour, fillstyle="full" if k else "none", ms=5, label=kind)
        axes[0].set(
            yticks=row,
            yticklabels=groups[:MAX_GROUPS],
            xlabel=f"participation ratio of trial averages{_largest(groups)}",
            ylim=(-0.6, len(row) - 0.4),
        )
        axes[0].set_xlim(0, 1.1 * float(np.nanmax(ratio, initial=1)))
        axes[0].set_title("region (neurons)")
        axes[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)

    def spectrum(axes: Sequence[Any]) -> None:
        """Draws the share of the variance in each component."""
        for k, (kind, (colour, line)) in enumerate(LINES.items()):
            share = result["variance"][k]
            axes[0].plot(np.arange(1, len(share) + 1), np.maximum(share, 1e-6), "o", ms=3, color=colour, label=kind, **line)
        axes[0].set(xlabel="component", ylabel="share of the variance", yscale="log", title="own principal components of each")
        axes[0].legend()

    panels = (
        Panel("Participation ratio of data and model by region.", by_region),
        Panel("Share of the variance in each principal component.", spectrum),
    )
    return PanelFigure("Dimensionality", panels)


def variability(results: RunResults, result: Result) -> PanelFigure:
    """Fano factors, intervals, correlations of pairs and power spectra, data beside model."""
    window = f"{result.numbers['window_ms']:g} ms"
    kinds = {
        "fano": (f"Fano factor, counts in {window}", "neurons", 0.0),
        "cv2": ("CV2 of intervals between spikes", "neurons", 0.0),
        "noise_correlation": (f"noise correlation, counts in {window}", "pairs", -1.0),
        "signal_correlation": (f"signal correlation, counts in {window}", "pairs", -1.0),
    }

    undefined = [
        name for name in kinds if not any(np.isfinite(result[array]).any() for kind in LINES if (array := f"{name}_{kind}") in result)
    ]

    def distribution(name: str, axes: Sequence[Any]) -> None:
        """Draws the distribution of one measure in data and model."""
        label, of, least = kinds[name]
        known = {kind: values[np.isfinite(values)] for kind in LINES if f"{name}_{kind}" in result for values in [result[f"{name}_{kind}"]]}
        everything = np.concatenate([*known.values(), np.zeros(1)])
        low, high = np.quantile(everything, (0.002, 0.998))
        low, high = max(least, float(low)) if least < 0 else 0.0, max(float(high), 1e-3)
        for kind, values in known.items():
            median = f"{kind}, median {in_words(np.median(values))}" if values.size else f"{kind}, undefined"
            shown, bins = np.clip(values, low, high), np.linspace(low, high, 51)
            weights = np.full(len(shown), 1 / max(1, len(shown)))
            axes[0].hist(shown, bins=bins, weights=weights, histtype="step", color=LINES[kind][0], label=median, **LINES[kind][1])
        axes[0].set(xlabel=label + outer_bins(everything, low, high), ylabel=f"share of the {of}")
        axes[0].set_ylim(top=axes[0].get_ylim()[1] * 1.25)
        axes[0].legend()

    def power(axes: Sequence[Any]) -> None:
        """Draws the power spectra."""
        for kind, (colour, line) in LINES.items():
            if f"power_{kind}" in result:
                below = slice(-1)  # the highest frequency, of half the sampling rate, has half the power of its neighbours by definition
                axes[0].plot(result["frequency"][below], result[f"power_{kind}"][below], color=colour, label=kind, **line)
        axes[0].set(xlabel="frequency (Hz)", ylabel="power (Hz²/Hz)", xscale="log", yscale="log", title="mean rate of a session's units")
        axes[0].legend()

    panels = [
        Panel(f"Distribution of the {label}, data and model.", partial(distribution, name))
        for name, (label, _, _) in kinds.items()
        if name not in undefined
    ]
    panels.append(Panel("Power spectrum of the mean rate, data and model.", power))
    missing = f" (undefined: {', '.join(name.replace('_', ' ') for name in undefined)})" if undefined else ""
    return PanelFigure(f"Variability of single trials{missing}", tuple(panels))


Draw = Callable[[RunResults, Result], PanelFigure]
DRAWN: Mapping[str, Draw] = {
    "trajectories": trajectories,
    "coding_direction": coding_direction,
    "decoding": decoding,
    "selectivity": selectivity,
    "dimensionality": dimensionality,
    "variability": variability,
    "region_weights": region_figures.weights,
    "region_currents": region_figures.currents,
    "silencing": region_figures.silencing,
    "single_neuron": region_figures.single_neuron,
    "eigenvalues": region_figures.eigenvalues,
}
CAPTIONS = {
    f"{PREFIX}{name}": caption
    for name, caption in {
        "trajectories": "The axes are those of the trials trained on, each neuron divided by its range. The other trials and the model are"
        " projected on them.",
        "coding_direction": "The direction is the difference of the mean rates in the shaded time, in the trials trained on.",
        "decoding": "A linear decoder, cross-validated, from random units of each session, or from the neurons that reproduce them.",
        "selectivity": "Preferred: the condition with the higher rate in the trials trained on, in the shaded time.",
        "dimensionality": "The participation ratio is 1 if one pattern explains all variance, and n if n patterns have equal shares.",
        "variability": "Noise correlations are those of counts minus their mean over trials, signal correlations those of these means.",
        "region_weights": "Sums over the synapses from all neurons of a region to one neuron, mean over neurons.",
        "region_currents": "Mean over the neurons of the postsynaptic region; from the model's rates and the trained weights.",
        "silencing": "Neurons of one region are held without spikes; trials have the same random numbers with and without silencing.",
        "single_neuron": "The neurons with the best, the median and the worst score, unless others were chosen.",
        "eigenvalues": "Static and plastic synapses together, without those from feed-forward neurons.",
    }.items()
}
FIGURES = tuple(f"{PREFIX}{name}" for name in ANALYSES)


def draw(name: str, result: Result, results: RunResults) -> PanelFigure:
    """The figure of the result of an analysis."""
    return DRAWN[name](results, result)


def figures(results: RunResults, found: Mapping[str, Result]) -> Iterator[tuple[str, PanelFigure]]:
    """(name, figure) of each result of an analysis."""
    for name, result in found.items():
        yield f"{PREFIX}{name}", draw(name, result, results)
