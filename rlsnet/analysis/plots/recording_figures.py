"""Figures of a recording, to be checked before a network is trained on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rlsnet.analysis import recording_summary
from rlsnet.analysis.plots.style import (
    DATA,
    DENSITY,
    EXC,
    HEAT,
    LINES,
    MODEL,
    SOFT,
    Panel,
    PanelFigure,
    check_files,
    draw_events,
)
from rlsnet.analysis.recording_summary import RecordingSummary
from rlsnet.io import outputs

MAX_CONDITIONS = 6
MAX_BARS = 20
COLOURS = (EXC, MODEL, SOFT, DATA)


def _names(data: RecordingSummary) -> list[str]:
    return list(data.recording.conditions[:MAX_CONDITIONS])


def heatmap(data: RecordingSummary) -> PanelFigure:
    """Heatmaps of PSTHs, scaled to a unit's range over all conditions, sorted by the time of the peak in the first condition.

    With PSTHs of both halves, units are sorted by the odd trials and the even trials are drawn, so that noise makes no diagonal.
    """
    ordering, drawn = (data.psth, data.psth) if data.halves is None else data.halves
    known = np.isfinite(ordering[0]).any(axis=0) & np.isfinite(drawn).any(axis=(0, 1))
    order = np.flatnonzero(known)[np.argsort(np.argmax(np.nan_to_num(ordering[0][:, known], nan=-np.inf), axis=0), kind="stable")]
    block = drawn[:, :, order]
    low, high = (f(f(block, axis=0), axis=0) if order.size else np.zeros(0) for f in (np.fmin.reduce, np.fmax.reduce))
    block = (block - low) / np.where(high > low, high - low, 1)
    half = data.recording.bin_ms / 2000

    def draw(condition: int, axes: Sequence[Any]) -> None:
        extent = (data.time[0] - half, data.time[-1] + half, len(order), 0)
        image = axes[0].imshow(block[condition].T, aspect="auto", cmap=HEAT, vmin=0, vmax=1, extent=extent)
        axes[0].set(title=_names(data)[condition], xlabel=f"{data.time_label} (s)", ylabel="unit")
        draw_events(axes[0], data.events, extent[:2], "#ffffff")
        label = f"{data.recording.kind}, scaled to each unit's range"
        axes[0].figure.colorbar(image, ax=axes[0], label=label, orientation="horizontal", shrink=0.6, aspect=40)

    sorted_by = f"sorted by the peak in {_names(data)[0]}{'' if data.halves is None else ' of odd trials; even trials are drawn'}"
    title = f"PSTHs of {len(order):,} of {data.recording.n_units:,} units, {sorted_by}"
    words = f"Heatmap of the PSTHs of {len(order):,} units in"
    panels = [Panel(f"{words} {name}, {sorted_by}.", partial(draw, c)) for c, name in enumerate(_names(data))]
    return PanelFigure(title, tuple(panels), (4.2, 5.6))


def mean_rates(data: RecordingSummary) -> PanelFigure:
    """Histogram of the mean rates of the units on a logarithmic axis, a line for each condition."""
    floor = 0.01

    def draw(axes: Sequence[Any]) -> None:
        top = max(10 * floor, float(np.nanmax(data.mean, initial=1)))
        bins = np.geomspace(floor, 1.2 * top, 61)
        for c, name in enumerate(_names(data)):
            known = data.mean[c][np.isfinite(data.mean[c])]
            label = f"{name}, median {np.median(known):.2f} Hz" if known.size else name
            style = {"histtype": "step", "lw": 1.3, "color": COLOURS[c % 4], "ls": LINES[c // 4 % 4]}
            axes[0].hist(np.maximum(known, floor), bins=bins, label=label, **style)
        axes[0].set(xscale="log", xlabel=f"mean rate of a unit (Hz; {floor:g} and below are one)", ylabel="units")
        axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0, ncols=1)

    label = f"Histogram of mean rates, median {np.nanmedian(data.mean):.2f} Hz." if np.isfinite(data.mean).any() else "No rates."
    return PanelFigure("Mean rates", (Panel(label, draw),))


def regions(data: RecordingSummary) -> PanelFigure:
    """Bars of the number of units in each region and session."""
    group = data.recording.group
    columns = [(name, recording_summary.column(group, name, data.recording.n_units)) for name in ("region", "session")]
    panels = []
    for name, column in columns:
        if column is None:
            continue
        counted = recording_summary.counts(column)
        shown = counted[:MAX_BARS]
        words = f"Units by {name}: " + ", ".join(f"{each or '(none)'} {count:,}" for each, count in shown) + "."
        title = f"{len(counted):,} {name}s" + (f", the {MAX_BARS} largest" if len(counted) > MAX_BARS else "")
        panels.append(Panel(words, partial(_bars, shown, title)))
    rows = max(len(counted[:MAX_BARS]) for _, column in columns if column is not None for counted in [recording_summary.counts(column)])
    return PanelFigure("Units by region and session", tuple(panels), (4.2, 1.1 + 0.19 * rows), columns=2)


def _bars(counted: Sequence[tuple[str, int]], title: str, axes: Sequence[Any]) -> None:
    """Draws horizontal bars with their numbers."""
    axis, rows = axes[0], np.arange(len(counted))
    values = [count for _, count in counted]
    axis.barh(rows, values, color=EXC, height=0.75)
    for row, value in zip(rows, values, strict=True):
        axis.text(value, row, f" {value:,}", va="center", fontsize=7)
    names = [name or "(none)" for name, _ in counted]
    axis.set_yticks(rows, [name if len(name) < 25 else name[:22] + "..." for name in names], fontsize=7)
    axis.set(title=title, xlabel="units", ylim=(len(rows) - 0.4, -0.6), xlim=(0, 1.18 * max(values)))


def reliability(data: RecordingSummary) -> PanelFigure:
    """Split-half reliability: histogram, and against the mean rate."""
    values = data.reliability
    assert values is not None

    def histogram(axes: Sequence[Any]) -> None:
        for c, name in enumerate(_names(data)[: len(values)]):
            known = values[c][np.isfinite(values[c])]
            label = f"{name}, median {np.median(known):.2f}" if known.size else f"{name}, undefined"
            style = {"histtype": "step", "lw": 1.3, "color": COLOURS[c % 4], "ls": LINES[c // 4 % 4]}
            axes[0].hist(known, bins=np.linspace(-1, 1, 61), label=label, **style)
        axes[0].set(xlabel="correlation of odd and even trials", ylabel="units", xlim=(-1, 1), xticks=np.linspace(-1, 1, 5))
        axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0, ncols=1)

    def against(axes: Sequence[Any]) -> None:
        rate = np.broadcast_to(data.mean, values.shape) if len(data.mean) == len(values) else data.mean[:1]
        known = np.isfinite(rate) & np.isfinite(values) & (rate > 0)
        options = {"xscale": "log", "bins": "log", "cmap": DENSITY, "mincnt": 1, "linewidths": 0}
        if known.any():
            axes[0].hexbin(rate[known], values[known], gridsize=45, **options)
        axes[0].set(xlabel="mean rate (Hz)", ylabel="correlation of odd and even trials")

    panels = Panel("Histogram of split-half reliability.", histogram), Panel("Reliability of each unit against its mean rate.", against)
    return PanelFigure("Split-half reliability", panels, columns=2)


def available(data: RecordingSummary) -> dict[str, Callable[[RecordingSummary], PanelFigure]]:
    """Functions that draw the figures that a recording has data for, by name."""
    drawn: dict[str, Callable[[RecordingSummary], PanelFigure]] = {"psth_heatmap": heatmap}
    if data.recording.kind == "rate":
        drawn["mean_rates"] = mean_rates
    group = data.recording.group
    if any(recording_summary.column(group, name, data.recording.n_units) is not None for name in ("region", "session")):
        drawn["units"] = regions
    if data.reliability is not None:
        drawn["reliability"] = reliability
    return drawn


def plot(path: str, folder: Path | None, report: Callable[[str], None]) -> None:
    """Writes a PNG of each figure of a recording to a folder, NAME.figures beside it by default, and calls `report` with its path."""
    data, own_folder = recording_summary.summarize(path), folder is None
    folder = folder or Path(path).with_name(f"{Path(path).resolve().stem}.figures")
    if own_folder:
        outputs.refuse_link(folder)
    check_files(folder, available(data))
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in available(data).items():
        draw(data).save(folder / f"{name}.png")
        report(str(folder / f"{name}.png"))
