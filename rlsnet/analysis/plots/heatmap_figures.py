"""Heatmaps of all neurons over time, by region: data, model and their difference, and PSTHs of a recording."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from rlsnet.analysis.plots.parts import Rows, shortened
from rlsnet.analysis.plots.style import DIFFERENCE, HEAT, INK, RESIDUAL, WIDTH, Panel, PanelFigure, draw_events
from rlsnet.analysis.recording_summary import evenly
from rlsnet.analysis.test_results import RunResults
from rlsnet.errors import UserError

MAX_NEURONS = 2000
MAX_CONDITIONS = 5  # that have a panel
MAX_COMPARED = 3  # of more conditions, the difference between the first two is not drawn


def columns_for(panels: int) -> int:
    """Number of columns of a figure of heatmaps."""
    return 2 if panels in (1, 2, 4) else 3


def peak_time(rate: np.ndarray) -> np.ndarray:
    """[n] bin of the maximum of rates [M, n], NaN left out; 0 where all are NaN."""
    return np.asarray(np.argmax(np.nan_to_num(rate, nan=-np.inf), axis=0))


def to_range(blocks: Sequence[np.ndarray], data: np.ndarray) -> list[np.ndarray]:
    """Blocks [..., n] as fractions of each neuron's range in the data [C, M, n]: its minimum is 0, its maximum 1."""
    low, high = (reduce(reduce(data, axis=0), axis=0) for reduce in (np.fmin.reduce, np.fmax.reduce))
    return [(block - low) / np.where(high > low, high - low, 1) for block in blocks]


def heatmaps(results: RunResults) -> PanelFigure:
    """Data, model and model minus data for each condition, and the difference of two; rows by region and time of the peak."""
    data, model, _, source, quantity = results.compared()
    names = [shortened(name) for name in results.conditions[:MAX_CONDITIONS]]
    known = np.isfinite(np.stack([results.read(data, c) for c in range(len(names))])).any(axis=(0, 1))
    trained = np.flatnonzero(known & results.trained().any(axis=0))
    chosen = trained[evenly(len(trained), MAX_NEURONS)]
    if not len(chosen):
        raise UserError(f"{results.run.test}: none of its neurons has a target.")

    def smoothed(name: str) -> np.ndarray:
        """An array of the test, smoothed as figures show it."""
        return np.stack([results.smooth(name, results.read(name, c)[:, chosen]) for c in range(len(names))])

    recorded = smoothed(data)
    scaled = dict(zip((source, "model"), to_range([recorded, smoothed(model)], recorded), strict=True))
    ordering, by = recorded[0], source
    if data == "rate_heldout":
        ordering, by = results.smooth("rate_target", results.read("rate_target", 0)[:, chosen]), "trials trained on"
    rows = Rows.of(None if results.region is None else results.region[chosen], peak_time(ordering), results.region)
    draw, several = partial(_draw, results, rows, quantity.split(" (")[0], source), len(names) > 1
    panels = []
    for c, name in enumerate(names):
        words = f"Heatmaps of {len(chosen)} neurons over time, {name}: {source}, model and their difference."
        panels.append(Panel(words, partial(draw, name if several else "", *(block[c] for block in scaled.values()))))
    if 1 < len(results.conditions) <= MAX_COMPARED:
        words = f"Difference between the conditions {names[1]} and {names[0]}: {source}, model and their difference."
        between = [block[1] - block[0] for block in scaled.values()]
        panels.append(Panel(words, partial(draw, f"{names[1]} - {names[0]}", *between, signed=True)))
    order = f"{rows.by}by the time of the peak in the {by}{f', {names[0]}' if several else ''}"
    columns = columns_for(len(panels))
    return PanelFigure(f"{len(chosen):,} neurons, sorted {order}", tuple(panels), (WIDTH / columns, 5.2), 3, columns)


def _draw(
    results: RunResults,
    rows: Rows,
    quantity: str,
    source: str,
    name: str,
    data: np.ndarray,
    model: np.ndarray,
    axes: Sequence[Any],
    signed: bool = False,
) -> None:
    """Draws data and model [M, n], one below the other, and model minus data, in fractions of the range of a neuron in the data.

    Args:
      results: of the run.
      rows: order of the neurons.
      quantity: rate or current, in words.
      source: what the data are, in words.
      name: of the condition, or of a difference of two.
      data: [M, n] of the data.
      model: [M, n] of the model.
      axes: of the panel.
      signed: whether values are differences of two conditions.
    """
    maps = {"cmap": DIFFERENCE, "vmin": -1, "vmax": 1} if signed else {"cmap": HEAT, "vmin": 0, "vmax": 1}
    drawn = [(data, source, maps), (model, "model", maps), (model - data, f"model - {source}", maps | {"cmap": RESIDUAL, "vmin": -1})]
    images = []
    for axis, (block, title, style) in zip(axes, drawn, strict=True):
        extent = (*results.span, len(rows.order), 0)
        images.append(axis.imshow(block[:, rows.order].T, aspect="auto", extent=extent, interpolation="nearest", **style))
        colour = INK if style["vmin"] else "#ffffff"
        axis.set_title(f"{title}, {name}" if name else title)
        rows.draw(axis, colour)
        draw_events(axis, results.clock.events, results.span, colour, names=axis is axes[0])
        axis.tick_params(labelbottom=axis is axes[-1])
        if not any(rows.names):
            axis.set_ylabel("neuron")
    axes[-1].set_xlabel(f"{results.clock.label} (s)")
    bars: dict[str, Any] = {"fraction": 0.05, "pad": 0.02, "aspect": 30}
    ticks = [-1, 0, 1] if signed else [0, 0.5, 1]
    word = f"difference of {quantity}s" if signed else quantity
    axes[0].figure.colorbar(images[0], ax=list(axes[:2]), label=f"{word} (1: range in the data)", ticks=ticks, **bars)
    axes[0].figure.colorbar(images[2], ax=axes[2], label="difference", ticks=[-1, 0, 1], **(bars | {"aspect": 14}))
