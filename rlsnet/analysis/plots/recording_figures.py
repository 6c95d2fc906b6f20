"""Figures of a recording, to be checked before a network is trained on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rlsnet.analysis import recording_summary, trial_spikes
from rlsnet.analysis.plots.heatmap_figures import MAX_COMPARED, columns_for, peak_time, to_range
from rlsnet.analysis.plots.parts import Rows, draw_cumulative, draw_spread, main_regions, outer_bins, place_legend_above, shortened
from rlsnet.analysis.plots.raster_figures import MAX_NEURONS, draw_raster, edges_of, rate_bins, recorded_spikes
from rlsnet.analysis.plots.style import (
    DATA_LINE,
    DENSITY,
    DIFFERENCE,
    HEAT,
    INK,
    PNG_DPI,
    SMALL,
    SOFT,
    WIDTH,
    Panel,
    PanelFigure,
    check_files,
    condition_colours,
    condition_handles,
    condition_label,
    draw_events,
    draw_mean,
)
from rlsnet.analysis.recording_summary import RecordingSummary, evenly
from rlsnet.data import statistics
from rlsnet.data.trial_counts import GROUP
from rlsnet.io import outputs
from rlsnet.learning import scores

MAX_CONDITIONS = 6
MAX_BARS = 20
EXAMPLES = (0.99, 0.95, 0.9, 0.75, 0.5, 0.25)  # quantiles of reliability at which example units are
MAX_TRIALS = 60  # of an example in each condition


def _names(data: RecordingSummary) -> list[str]:
    return list(data.recording.conditions[:MAX_CONDITIONS])


def _colours(data: RecordingSummary) -> list[str]:
    return condition_colours(data.recording.n_conditions)


def _column(data: RecordingSummary, name: str) -> np.ndarray | None:
    """[N] texts of a column of the units, or None."""
    found = recording_summary.column(data.recording.group, name, data.recording.n_units)
    return None if found is None else np.array([str(each) for each in found], dtype=object)


def _span(data: RecordingSummary) -> tuple[float, float]:
    half = data.recording.bin_ms / 2000
    return float(data.time[0] - half), float(data.time[-1] + half)


def heatmap(data: RecordingSummary) -> PanelFigure:
    """Heatmaps of PSTHs by region, scaled to a unit's range over all conditions, sorted by the time of the peak in the first condition.

    With PSTHs of both halves, units are sorted by the odd trials and the even trials are drawn, so that noise makes no diagonal.
    """
    ordering, drawn = (data.psth, data.psth) if data.halves is None else data.halves
    kept = np.flatnonzero(np.isfinite(ordering[0]).any(axis=0) & np.isfinite(drawn).any(axis=(0, 1)))
    region = _column(data, "region")
    rows = Rows.of(None if region is None else region[data.shown[kept]], peak_time(ordering[0][:, kept]), region)
    block = to_range([drawn[:, :, kept]], drawn[:, :, kept])[0] if len(kept) else drawn[:, :, kept]

    def draw(values: np.ndarray, name: str, signed: bool, axes: Sequence[Any]) -> None:
        """Draws one heat map with its colour bar."""
        style = {"cmap": DIFFERENCE, "vmin": -1, "vmax": 1} if signed else {"cmap": HEAT, "vmin": 0, "vmax": 1}
        extent = (*_span(data), max(1, len(kept)), 0)
        image = axes[0].imshow(values[:, rows.order].T, aspect="auto", extent=extent, interpolation="nearest", **style)
        axes[0].set(xlabel=f"{data.time_label} (s)")
        axes[0].set_title(name)
        rows.draw(axes[0], INK if signed else "#ffffff")
        if not any(rows.names):
            axes[0].set_ylabel("unit")
        draw_events(axes[0], data.events, _span(data), INK if signed else "#ffffff")
        ticks = [-1, 0, 1] if signed else [0, 0.5, 1]
        label = f"{'difference of ' if signed else ''}{data.recording.kind}{'s' if signed else ''} (1: range of the unit)"
        axes[0].figure.colorbar(image, ax=axes[0], label=label, ticks=ticks, fraction=0.05, pad=0.02, aspect=30)

    names = _names(data)
    half = "" if data.halves is None else " in odd trials; shown: even trials"
    sorted_by = f"sorted {rows.by}by the time of the peak in {names[0]}{half}"
    words = f"Heatmap of the PSTHs of {len(kept):,} units"
    panels = [Panel(f"{words} in {name}, {sorted_by}.", partial(draw, block[c], name, False)) for c, name in enumerate(names)]
    if 1 < data.recording.n_conditions <= MAX_COMPARED:
        between = f"{names[1]} - {names[0]}"
        panels.append(Panel(f"{words}, difference {between}, {sorted_by}.", partial(draw, block[1] - block[0], between, True)))
    columns = columns_for(len(panels))
    title = f"PSTHs of {len(kept):,} of {data.recording.n_units:,} units, {sorted_by}"
    return PanelFigure(title, tuple(panels), (WIDTH / columns, 3.6), columns=columns)


def examples(data: RecordingSummary) -> PanelFigure:
    """Spikes in single trials and PSTHs with standard errors of some units, from reliable to unreliable ones."""
    recording, names, colours = data.recording, _names(data), _colours(data)
    reliable = data.reliability is not None and bool(np.isfinite(data.reliability[:, data.shown]).any())
    score = statistics.mean_known(data.mean if data.reliability is None or not reliable else data.reliability)
    score_name = "reliability" if reliable else "mean rate"
    candidates = data.shown[np.isfinite(score[data.shown])]
    order = candidates[np.argsort(score[candidates])]
    chosen = list(dict.fromkeys(int(order[round(q * (len(order) - 1))]) for q in EXAMPLES)) if len(order) else []
    weights = scores.smoothing_weights(recording.smoothing, len(data.time))
    region, session, number = (_column(data, name) for name in ("region", "session", "id"))
    start = recording_summary.common_start(session)

    def draw(unit: int, axes: Sequence[Any]) -> None:
        """Draws the trials and the PSTH of one unit."""
        counts = trial_spikes.recorded_trials(recording, unit)
        place = int(np.searchsorted(data.shown, unit))
        for c in range(len(names)):
            error = None if counts is None else trial_spikes.standard_error(weights, counts[c], recording.bin_ms)
            draw_mean(axes[-1], data.time, data.psth[c][:, place], error, colours[c], DATA_LINE)
        axes[-1].set(xlabel=f"{data.time_label} (s)", ylabel="rate (Hz)", xlim=_span(data))
        axes[-1].set_ylim(bottom=0)
        if counts is not None:
            _draw_trials(axes[0], counts[: len(names)], data.time, colours)
        axes[0].set_xlim(_span(data))
        parts = (str(column[unit]) if column is not None else "" for column in (region, session, number))
        where, found, identity = (text for text in parts)
        name = recording_summary.short_name(where, found[start:], identity) if identity else f"unit {unit}"
        unit_of_score = "" if reliable else " Hz"
        axes[0].set_title(f"{name}\n{score_name} {score[unit]:.2f}{unit_of_score}", fontsize=SMALL)
        for axis in axes:
            draw_events(axis, data.events, _span(data), names=axis is axes[0])

    with_trials = GROUP in recording.group
    panels = [
        Panel(f"Spikes in single trials and PSTH of unit {unit}, {score_name} {score[unit]:.2f}.", partial(draw, unit)) for unit in chosen
    ]
    title = f"Example units by {score_name}: {'single trials, and ' if with_trials else ''}PSTHs with standard errors"
    title = title if with_trials else title.removesuffix(" with standard errors")
    stacked, heights = (2, (1.3, 1.0)) if with_trials else (1, ())
    return PanelFigure(
        title, tuple(panels), (2.4, 2.9), stacked, 3, tuple(condition_handles(recording.conditions, range(len(names)))), heights
    )


def _draw_trials(axis: Any, counts: Sequence[np.ndarray], time: np.ndarray, colours: Sequence[str]) -> None:
    """Draws bins with spikes of a unit, from counts [T, M] of each condition, a row for each trial."""
    base = 0
    for each, colour in zip(counts, colours, strict=False):
        trial, place = np.nonzero(each[evenly(len(each), MAX_TRIALS)])
        rows = min(len(each), MAX_TRIALS)
        axis.plot(time[place], base + trial + 0.5, "|", color=colour, ms=1.2, mew=0.6, rasterized=True)
        base += rows
    margin = 0.015 * max(base, 1)  # the marks of the first and the last trial are whole
    axis.set(ylim=(max(base, 1) + margin, -margin), ylabel="trial", yticks=[])
    axis.tick_params(labelbottom=False)


def raster(data: RecordingSummary) -> PanelFigure:
    """Raster of one trial of each session in each condition, by region, with the mean rate below."""
    recording, names, colours = data.recording, _names(data), _colours(data)
    units, region = evenly(recording.n_units, MAX_NEURONS), _column(data, "region")
    rows = Rows.of(None if region is None else region[units], -data.mean[:, units].mean(axis=0), region)
    edges, bins = edges_of(data.time, recording.bin_ms), rate_bins(_span(data), recording.bin_ms / 1000)

    def draw(condition: int, axes: Sequence[Any]) -> None:
        """Draws the spikes in one condition, and their mean rate below."""
        spikes = recorded_spikes(recording, condition, None, units, edges)
        if spikes is not None:
            draw_raster(axes, spikes, rows, np.full(len(units), colours[condition]), colours[condition], bins)
        axes[0].set_title(names[condition])
        axes[1].set_xlabel(f"{data.time_label} (s)")
        for axis in axes:
            draw_events(axis, data.events, _span(data), names=axis is axes[0])

    panels = [
        Panel(f"Raster of one trial of each session in {name}, {len(units)} units.", partial(draw, c)) for c, name in enumerate(names)
    ]
    title = f"Spikes of {len(units)} units in one trial of each session, sorted {rows.by}by mean rate"
    return PanelFigure(title, tuple(panels), (WIDTH / 2, 3.2), 2, 2, (), (3.2, 1))


def mean_rates(data: RecordingSummary) -> PanelFigure:
    """Mean rates of the units: histogram on a logarithmic axis, a line for each condition, and spread by region."""
    floor, colours = 0.01, _colours(data)

    def draw(axes: Sequence[Any]) -> None:
        """Draws the histogram in each condition."""
        top = max(10 * floor, float(np.nanmax(data.mean, initial=1)))
        bins = np.geomspace(floor, 1.2 * top, 36)
        for c, name in enumerate(_names(data)):
            known = data.mean[c][np.isfinite(data.mean[c])]
            label = f"{condition_label(name)}: median {np.median(known):.2f} Hz" if known.size else condition_label(name)
            axes[0].hist(np.maximum(known, floor), bins=bins, label=label, histtype="step", lw=1.2, color=colours[c])
        low = max(floor, 0.5 * float(np.nanquantile(data.mean, 0.005))) if np.isfinite(data.mean).any() else floor
        beyond = outer_bins(data.mean[np.isfinite(data.mean)], low, np.inf, f"below {low:.2g} Hz: not shown")
        axes[0].set(xscale="log", xlabel=f"mean rate of a unit (Hz){beyond}", ylabel="units", xlim=(low, 1.2 * top))
        place_legend_above(axes[0], 1)

    label = f"Histogram of mean rates, median {np.nanmedian(data.mean):.2f} Hz." if np.isfinite(data.mean).any() else "No rates."
    panels = [Panel(label, draw), *_by_region(data, np.maximum(data.mean, floor), "mean rate", "mean rate (Hz)", log=True)]
    return PanelFigure("Mean rates", tuple(panels), (3.6, 2.9))


def _by_region(data: RecordingSummary, values: np.ndarray, what: str, label: str, log: bool = False) -> list[Panel]:
    """A panel with the spread of values [C, N] over units by region; none where regions are unknown."""
    region = _column(data, "region")
    if region is None:
        return []
    number, names = main_regions(region, len(region))
    groups = [("all", np.ones(len(region), bool)), *((shortened(name), number == k) for k, name in enumerate(names))]
    few = range(min(3, len(values)))

    def draw(axes: Sequence[Any]) -> None:
        """Draws the spread in all units and in each region."""
        draw_spread(axes[0], groups, {condition_label(_names(data)[c]): (values[c], _colours(data)[c], "o") for c in few})
        axes[0].set(xlabel=f"{label}\nmedian, quartiles, 5 to 95 %", **({"xscale": "log"} if log else {}))
        place_legend_above(axes[0], 3, right=True)

    return [Panel(f"Spread of the {what} over the units of each region.", draw)]


def regions(data: RecordingSummary) -> PanelFigure:
    """Bars of the number of units in each region and session."""
    group = data.recording.group
    columns = [(name, recording_summary.column(group, name, data.recording.n_units)) for name in ("region", "session")]
    panels = []
    for name, column in columns:
        if column is None:
            continue
        counted = recording_summary.counts(column)
        shown = [(recording_summary.named(each, name), count) for each, count in counted[:MAX_BARS]]
        words = f"Units by {name}: " + ", ".join(f"{each} {count:,}" for each, count in shown) + "."
        title = f"{len(counted):,} {name}s" + (f", the {MAX_BARS} largest" if len(counted) > MAX_BARS else "")
        panels.append(Panel(words, partial(_bars, shown, title)))
    rows = max(len(counted[:MAX_BARS]) for _, column in columns if column is not None for counted in [recording_summary.counts(column)])
    return PanelFigure("Units by region and session", tuple(panels), (3.6, 0.8 + 0.16 * rows), columns=2)


def _bars(counted: Sequence[tuple[str, int]], title: str, axes: Sequence[Any]) -> None:
    """Draws horizontal bars with their numbers."""
    axis, rows = axes[0], np.arange(len(counted))
    values = [count for _, count in counted]
    axis.barh(rows, values, color=SOFT, height=0.75)
    for row, value in zip(rows, values, strict=True):
        axis.text(value, row, f" {value:,}", va="center", fontsize=SMALL)
    axis.set_yticks(rows, [shortened(name, 24) for name, _ in counted])
    axis.set(xlabel="units", ylim=(len(rows) - 0.4, -0.6), xlim=(0, 1.18 * max(values)))
    axis.set_title(title)


def reliability(data: RecordingSummary) -> PanelFigure:
    """Split-half reliability: cumulative distribution, spread by region, and against the mean rate."""
    values, colours = data.reliability, _colours(data)
    assert values is not None
    names, known = _names(data)[: len(values)], values[np.isfinite(values)]
    low = float(np.floor(10 * min(np.quantile(known, 0.02), 0.9)) / 10) if known.size else -1.0

    def cumulative(axes: Sequence[Any]) -> None:
        """Draws the cumulative distribution in each condition."""
        for c, name in enumerate(names):
            draw_cumulative(axes[0], values[c], colours[c], DATA_LINE, condition_label(name))
        axes[0].set(xlabel="correlation of odd and even trials", ylabel="fraction of units below", xlim=(low, 1), ylim=(0, 1))
        place_legend_above(axes[0], 1, title="median", title_fontsize=7, alignment="left")

    def against(axes: Sequence[Any]) -> None:
        """Draws the density of units by rate and reliability."""
        rate = np.broadcast_to(data.mean, values.shape) if len(data.mean) == len(values) else data.mean[:1]
        drawn = np.isfinite(rate) & np.isfinite(values) & (rate > 0)
        options = {"xscale": "log", "bins": "log", "cmap": DENSITY, "mincnt": 1, "linewidths": 0}
        if drawn.any():
            axes[0].hexbin(rate[drawn], values[drawn], gridsize=35, **options)
        axes[0].set(xlabel="mean rate (Hz)", ylabel="correlation of odd and even trials", ylim=(low, 1))
        axes[0].set_title("darker: more units")

    spread = _by_region(data, values, "reliability", "correlation of odd and even trials") if len(values) == len(data.mean) else []
    panels = (
        Panel("Cumulative distribution of split-half reliability over units.", cumulative),
        *spread,
        Panel("Reliability of each unit against its mean rate.", against),
    )
    return PanelFigure(
        "Split-half reliability: correlation of the PSTHs of odd and even trials", panels, (WIDTH / len(panels), 3.0), columns=3
    )


def available(data: RecordingSummary) -> dict[str, Callable[[RecordingSummary], PanelFigure]]:
    """Functions that draw the figures that a recording has data for, by name."""
    drawn: dict[str, Callable[[RecordingSummary], PanelFigure]] = {"psth_heatmap": heatmap}
    if data.recording.kind == "rate":
        drawn["mean_rates"] = mean_rates
        if np.isfinite(data.mean[:, data.shown]).any():
            drawn["psth_examples"] = examples
    group = data.recording.group
    if any(recording_summary.column(group, name, data.recording.n_units) is not None for name in ("region", "session")):
        drawn["units"] = regions
    if data.reliability is not None:
        drawn["reliability"] = reliability
    if GROUP in group and data.recording.kind == "rate":
        drawn["raster"] = raster
    return drawn


def plot(path: str, folder: Path | None, report: Callable[[str], None], kind: str = "png", dpi: float = PNG_DPI) -> None:
    """Writes a file of each figure of a recording, and calls `report` with its path.

    Args:
      path: of the recording.
      folder: of the files; None: NAME.figures beside it.
      report: called with the path of each file.
      kind: png, pdf or svg.
      dpi: dots per inch of a PNG, and of what has pixels in other files.
    """
    data, own_folder = recording_summary.summarize(path), folder is None
    folder = folder or Path(path).with_name(f"{Path(path).resolve().stem}.figures")
    if own_folder:
        outputs.refuse_link(folder)
    check_files(folder, available(data), kind)
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in available(data).items():
        draw(data).save(folder / f"{name}.{kind}", dpi)
        report(str(folder / f"{name}.{kind}"))
