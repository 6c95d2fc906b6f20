"""Figures of the synapses and currents between regions, of silenced regions, of single neurons and of eigenvalues."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from rlsnet.analysis.analyses.variables import Result
from rlsnet.analysis.plots.parts import OTHER, shortened
from rlsnet.analysis.plots.style import (
    ABOVE,
    BELOW,
    DIFFERENCE,
    GREYS,
    INK,
    MODEL,
    SOFT,
    WIDTH,
    Panel,
    PanelFigure,
    condition_colours,
    condition_handles,
    draw_events,
)
from rlsnet.analysis.test_results import RunResults
from rlsnet.io.formatting import counted

MAX_REGIONS = 8  # rows and columns of a matrix
MAX_TRACES = 4  # regions whose currents are drawn
ALIKE = 0.5  # values of one sign, none less than this part of the largest, have a scale from the least to the largest
STATIC, PLASTIC = "#a9adb3", "#8a7a2f"  # currents; neither of conditions nor of classes of neurons


def _regions(result: Result, most: int) -> tuple[list[str], list[str], str]:
    """(names of the largest regions, the same and the others as one, words for a title), at most so many."""
    names = [shortened(str(name)) for name in result["region"]]
    if len(names) <= most:
        return names, names, ""
    return names[: most - 1], [*names[: most - 1], OTHER], f"; the {most - 1} largest of {len(names)} regions"


def pooled(values: np.ndarray, shown: int, axis: int, weight: np.ndarray | None = None) -> np.ndarray:
    """Values of R regions along an axis, those after the first `shown` as one: their sum or, with weights [R], their mean."""
    values = np.moveaxis(values, axis, 0)
    if shown < len(values):
        rest = values[shown:]
        last = rest.sum(axis=0) if weight is None else np.average(rest, axis=0, weights=weight[shown:])
        values = np.concatenate([values[:shown], last[None]])
    return np.moveaxis(values, 0, axis)


def _matrix(
    axis: Any, values: np.ndarray, rows: Sequence[str], columns: Sequence[str], unit: str, spec: str = ".2g", diverging: bool = True
) -> None:
    """Draws a matrix of regions with its numbers.

    The colours begin at 0 or, of values that are alike, at the least of them, which the ticks of the colour bar show.
    """
    known = values[np.isfinite(values)]
    size = np.abs(known)
    high = float(size.max(initial=0)) or 1.0
    style: dict[str, Any] = {"cmap": DIFFERENCE, "vmin": -high, "vmax": high} if diverging else {"cmap": GREYS, "vmin": 0, "vmax": high}
    alike = known.size > 1 and np.ptp(known) > 0 and np.ptp(np.sign(known)) == 0 and float(size.min()) > ALIKE * high
    if alike:
        style |= {"vmin": float(known.min()), "vmax": float(known.max())}
        if diverging:
            style["cmap"] = ABOVE if known.min() > 0 else BELOW
        spec = spec if spec[-1] == "f" else ".3g"
    image = axis.imshow(values, aspect="auto", **style)
    axis.set(xticks=np.arange(len(columns)), yticks=np.arange(len(rows)), xticklabels=columns, yticklabels=rows)
    axis.tick_params(length=0)
    if max(map(len, columns)) > 4 or len(columns) > 6:
        axis.set_xticks(np.arange(len(columns)), columns, rotation=40, ha="right")
    fontsize = 6.5 if len(columns) <= 5 else 5.5
    for row, column in np.ndindex(values.shape):
        if np.isfinite(values[row, column]):
            dark = np.dot(image.to_rgba(values[row, column])[:3], (0.299, 0.587, 0.114)) < 0.55
            text = format(values[row, column], spec)
            text = text if float(text.replace(",", "")) else "0"
            axis.text(column, row, text, ha="center", va="center", fontsize=fontsize, color="#ffffff" if dark else INK)
    bar = axis.figure.colorbar(image, ax=axis, label=unit, shrink=0.85)
    if alike:
        ticks = np.linspace(style["vmin"], style["vmax"], 3)
        bar.set_ticks(ticks, labels=[format(tick, spec) for tick in ticks])


def weights(results: RunResults, result: Result) -> PanelFigure:
    """Number of synapses between regions, the mean input through plastic ones by class, and its change by training."""
    single, names, which = _regions(result, MAX_REGIONS)
    shown = len(single)
    kinds, unit = result.numbers["kinds"], "threshold ms"
    number, received = result["number"], result["input"]
    before, after = kinds.index("plastic before"), kinds.index("plastic")

    def draw(values: np.ndarray, title: str, label: str, spec: str, diverging: bool, axes: Sequence[Any]) -> None:
        """Draws one matrix with its title and unit."""
        post = None if label == "synapses" else result["neurons"]  # of input, the mean over the neurons
        _matrix(axes[0], pooled(pooled(values, shown, 0), shown, 1, post), names, names, label, spec, diverging)
        axes[0].set(title=title, xlabel="postsynaptic region", ylabel="presynaptic region")

    total = number[kinds.index("static")].sum(axis=1) + number[after].sum(axis=1)
    change = received[after].sum(axis=1) - received[before].sum(axis=1)
    matrices: list[tuple[np.ndarray, str, str, str, bool]] = [
        (total, "synapses, static and plastic", "synapses", ",.0f" if total.max() < 1e5 else ".2g", False),
        (received[after][:, 0], "plastic input from excitatory neurons, trained", unit, ".2g", True),
        (received[after][:, 1], "plastic input from inhibitory neurons, trained", unit, ".2g", True),
        (change, "change of the plastic input by training", unit, ".2g", True),
    ]
    panels = [Panel(f"Matrix of regions: {title}.", partial(draw, *each)) for each in matrices for title in each[1:2]]
    title = f"Synapses between regions{which}; input: sum of the weights from a region to a neuron"
    return PanelFigure(title, tuple(panels), (3.6, 3.0))


def currents(results: RunResults, result: Result) -> PanelFigure:
    """Mean current from each region to the neurons of each region over time, by condition."""
    names, sources, which = _regions(result, MAX_TRACES)
    current = pooled(result["current"].sum(axis=(0, 4))[..., : len(names)], len(names), 2)  # [C, M, pre, post]
    if result.numbers["feedforward"]:
        current = np.concatenate([current, result["rest"][:, :, None, : len(names)]], axis=2)
        sources = [*sources, "feed-forward"]
    conditions = results.conditions
    colours = condition_colours(len(conditions))
    low, high = float(current.min()), float(current.max())
    margin = 0.06 * (high - low or 1.0)

    def draw(source: int, axes: Sequence[Any]) -> None:
        """Draws the currents from one source to each region, one below the other."""
        for target, axis in enumerate(axes):
            for c in range(len(conditions)):
                axis.plot(results.time, current[c, :, source, target], color=colours[c], lw=1.1)
            axis.axhline(0, color=SOFT, lw=0.5)
            axis.set(ylim=(low - margin, high + margin), xlim=results.span, title=f"{sources[source]} to {names[target]}")
            draw_events(axis, results.clock.events, results.span, names=target == 0)
            axis.tick_params(labelbottom=axis is axes[-1], labelleft=source == 0)
        axes[-1].set_xlabel(f"{results.clock.label} (s)")
        axes[len(axes) // 2].set_ylabel("mean current (threshold)" if not source else "")

    panels = tuple(
        Panel(f"Mean current from {name} to each region over time, by condition.", partial(draw, source))
        for source, name in enumerate(sources)
    )
    size = (WIDTH / len(sources), 0.5 + 1.05 * len(names))
    handles = tuple(condition_handles(conditions))
    return PanelFigure(f"Currents between regions{which}", panels, size, len(names), len(sources), handles)


def silencing(results: RunResults, result: Result) -> PanelFigure:
    """Change of the mean rate of each region when a region is silenced, and of the separation of two conditions."""
    names, affected, which = _regions(result, MAX_REGIONS)
    rows, neurons = slice(len(names)), result["neurons"]
    change, se = pooled(result["change"][rows], len(names), 1, neurons), result["change_se"][rows, rows]
    control = pooled(result["control"], len(names), 0, neurons)
    start, end = result.numbers["window"]

    def matrix(values: np.ndarray, title: str, unit: str, spec: str, axes: Sequence[Any]) -> None:
        """Draws one matrix of silenced by affected regions."""
        _matrix(axes[0], values, names, affected, unit, spec)
        axes[0].set(title=title, xlabel="effect on", ylabel="silenced")

    def separation(axes: Sequence[Any]) -> None:
        """Draws the separation of two conditions with each region silenced, with standard errors."""
        row = np.arange(len(names))[::-1]
        spread = result["separation_se"][rows]
        axes[0].barh(row, result["separation"][rows], xerr=np.where(np.isfinite(spread), spread, 0), height=0.6, color=MODEL, alpha=0.75)
        axes[0].axvline(1, color=SOFT, lw=0.8)
        first, second = result.numbers["conditions"]
        label = f"separation of {first} and {second} in the other regions\n(1: nothing silenced)"
        axes[0].set(yticks=row, yticklabels=names, xlabel=label, ylabel="silenced", title="bars: standard error over trials")

    with np.errstate(divide="ignore", invalid="ignore"):
        relative = 100 * change / control
    largest = float(np.nanmax(se)) if np.isfinite(se).any() else float("nan")
    error = f" (standard errors up to {largest:.2g} Hz)" if np.isfinite(largest) else ""
    panels = [
        Panel(
            "Change of the mean rate of each region by silencing each region.",
            partial(matrix, change, f"change of the rate{error}", "Hz", "+.1f"),
        ),
        Panel(
            "The same, in percent of the rate without silencing.", partial(matrix, relative, "change, relative to the rate", "%", "+.0f")
        ),
    ]
    if "separation" in result:
        panels.append(Panel("Separation of two conditions along the coding direction with each region silenced.", separation))
    title = (
        f"Each region silenced in turn, from {start:g} to {end:g} s; {counted(result.numbers['trials'], 'trial')} of each condition{which}"
    )
    return PanelFigure(title, tuple(panels), (3.6, 3.0))


def single_neuron(results: RunResults, result: Result) -> PanelFigure:
    """Voltage with spikes, and currents, of single neurons in one trial."""
    time, threshold = result["time"], result.numbers["threshold"]
    condition = results.conditions[int(result.numbers["condition"])]
    place = {int(neuron): index for index, neuron in enumerate(results.neurons)}
    fits = result.numbers.get("fits", [])

    def draw(number: int, axes: Sequence[Any]) -> None:
        """Draws the voltage and spikes of one neuron, and its currents below."""
        neuron, spikes = int(result["neuron"][number]), time[result["spiked"][:, number]]
        name = results.unit_name(place[neuron]) if neuron in place else f"neuron {neuron}"
        axes[0].plot(time, result["voltage"][:, number], color=MODEL, lw=0.4, rasterized=True)
        axes[0].vlines(spikes, threshold, threshold + 0.6, color=MODEL, lw=0.7)
        axes[0].axhline(threshold, color=SOFT, lw=0.6, ls=":")
        which = f"{fits[number]}: " if number < len(fits) else ""
        axes[0].set(ylabel="voltage\n(threshold)", xlim=results.span, title=f"{which}{name}, one trial, {condition}: {len(spikes)} spikes")
        axes[0].tick_params(labelbottom=False)
        static, plastic = result["static_current"][:, number], result["plastic_current"][:, number]
        parts = [
            (static, "static synapses and bias", STATIC, 0.6),
            (plastic, "plastic synapses", PLASTIC, 0.6),
            (static + plastic, "sum", INK, 0.9),
        ]
        for values, label, colour, width in parts if np.ptp(static) > 0 else parts[1:2]:
            axes[1].plot(time, values, color=colour, lw=width, label=label, rasterized=True)
        axes[1].axhline(threshold, color=SOFT, lw=0.6, ls=":", label="threshold")
        low, high = axes[1].get_ylim()
        axes[1].set(
            ylabel="current\n(threshold)", xlabel=f"{results.clock.label} (s)", xlim=results.span, ylim=(low, high + 0.3 * (high - low))
        )
        axes[1].legend(ncols=4, loc="upper left", borderaxespad=0)
        draw_events(axes[0], results.clock.events, results.span)
        draw_events(axes[1], results.clock.events, results.span, names=False)

    neurons = result["neuron"].tolist()
    panels = tuple(Panel(f"Voltage, spikes and currents of neuron {n} in one trial.", partial(draw, k)) for k, n in enumerate(neurons))
    return PanelFigure("Single neurons", panels, (WIDTH, 2.9), 2, 1)


def eigenvalues(results: RunResults, result: Result) -> PanelFigure:
    """Eigenvalues of the matrix of all weights, before and after training, in the complex plane."""
    found = {name: result[name] for name in ("before", "after")}
    wide = 1.05 * max(float(np.abs(values).max()) for values in found.values()) or 1.0
    whole = "all eigenvalues" if result.numbers["complete"] else "the largest eigenvalues"

    def draw(name: str, axes: Sequence[Any]) -> None:
        """Draws the eigenvalues before or after training."""
        real, imaginary = found[name].T
        axes[0].plot(real, imaginary, ".", ms=2.5, color=MODEL, alpha=0.6, rasterized=True)
        axes[0].axhline(0, color=SOFT, lw=0.5)
        axes[0].axvline(0, color=SOFT, lw=0.5)
        axes[0].set(xlim=(-wide, wide), ylim=(-wide, wide), xlabel="real part (threshold ms)", ylabel="imaginary part (threshold ms)")
        axes[0].set(title=f"{name} training; largest absolute value {np.hypot(real, imaginary).max():.3g} threshold ms", aspect="equal")

    panels = tuple(Panel(f"Eigenvalues of the weights {name} training in the complex plane.", partial(draw, name)) for name in found)
    return PanelFigure(f"Coupling of all neurons: {whole} of the weights", panels, (3.6, 3.2))
