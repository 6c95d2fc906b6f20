"""Summary of a recording: mean rates, reliability and the PSTHs of some units, read in one pass by chunks of units."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import zarr

from rlsnet.data import cell_classes, recordings, statistics, trial_average, trial_clock
from rlsnet.data.recordings import FORMAT, Recording
from rlsnet.io import zarr_store

MAX_PSTHS = 2000  # units whose PSTHs are kept
MAX_NAMES = 12  # regions in a line; for half as many sessions each has its number of units


@dataclasses.dataclass(frozen=True)
class RecordingSummary:
    """Summary of a recording with C conditions, M bins and N units.

    recording: the open store.
    time: [M] s, from the event that trials are aligned to, or from the start where the store has no time.
    time_label: what the time is, in words.
    events: s, time of each named event.
    mean: [C, N] mean over the known bins; NaN where none is.
    reliability: [C, N] correlation of the PSTHs of odd and even trials, NaN undefined; None where there are no halves.
    shown: [S] indices of some units, evenly spaced.
    psth: [C, M, S] PSTHs of the units shown, Hz.
    halves: [2, C, M, S] PSTHs of the units shown, from odd and from even trials; None where there are no halves.
    """

    recording: Recording
    time: np.ndarray
    time_label: str
    events: dict[str, float]
    mean: np.ndarray
    reliability: np.ndarray | None
    shown: np.ndarray
    psth: np.ndarray
    halves: np.ndarray | None


def named(name: object, column: str = "region") -> str:
    """The name of a region or session; "no region" or "no session" for a unit without one, in figures, tables and messages alike."""
    return str(name) or f"no {column}"


def evenly(n: int, most: int) -> np.ndarray:
    """At most `most` of the numbers 0..n-1, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(int))


def open_rates_or_currents(path: str) -> Recording:
    """A recording of rates or, where it has none, of currents."""
    group = zarr_store.open_group(path, "", FORMAT)
    return recordings.open_recording(path, "current" if "current" in group and "rate" not in group else "rate")


def column(group: zarr.Group, name: str, n: int) -> np.ndarray | None:
    """The array unit/NAME, [n] or [n, ...]; None where the store has none of that length."""
    found = group.get(f"unit/{name}")
    return zarr_store.read(found) if isinstance(found, zarr.Array) and found.ndim and found.shape[0] == n else None


def reliabilities(group: zarr.Group, recording: Recording) -> np.ndarray | None:
    """[C, N] split-half reliability, stored or computed from stored halves; None where there is neither."""
    stored = column(group, "reliability", recording.n_units)
    if stored is not None:
        return stored.T if stored.ndim == 2 else stored[None]
    if (halves := recording.halves) is None:
        return None
    blocks = (zarr_store.read(halves, (slice(None), slice(None), slice(None), part)) for part in zarr_store.chunks(halves, along=3))
    return np.concatenate([statistics.correlation_known(*block.astype(np.float64).swapaxes(1, 2)) for block in blocks], axis=1)


def summarize(path: str) -> RecordingSummary:
    """The summary of a recording.zarr; raises UserError where it is not one."""
    recording = open_rates_or_currents(path)
    group = recording.group
    conditions, bins, n = recording.values.shape
    shown, mean, blocks, start = evenly(n, MAX_PSTHS), np.full((conditions, n), np.nan), [], 0
    for block in recording.stream():
        stop = start + block.shape[2]
        known = np.isfinite(block)
        count = known.sum(axis=1)
        np.divide(block.sum(axis=1, where=known), count, out=mean[:, start:stop], where=count > 0)
        blocks.append(block[:, :, shown[(shown >= start) & (shown < stop)] - start].astype(np.float32))
        start = stop
    some = None if recording.halves is None else _columns_of(recording.halves, shown)
    time, label = np.arange(bins) * recording.bin_ms / 1000 + recording.bin_ms / 2000, "time from the start of the recording's bins"
    if "time" in group and group["time"].shape == (bins,):
        time = zarr_store.read(group["time"]).astype(np.float64)
        label = trial_clock.label(group["time"])
    return RecordingSummary(
        recording,
        time,
        label,
        trial_clock.events(group),
        mean,
        reliabilities(group, recording),
        shown,
        np.concatenate(blocks, axis=2),
        some,
    )


def _columns_of(stored: zarr.Array, units: np.ndarray) -> np.ndarray:
    """[2, C, M, n] float32, some units of an array [2, C, M, N], read by chunks."""
    blocks = []
    for part in zarr_store.chunks(stored, along=3):
        mine = units[(units >= part.start) & (units < part.stop)] - part.start
        if len(mine):
            blocks.append(zarr_store.read(stored, (slice(None), slice(None), slice(None), part))[..., mine].astype(np.float32))
    return np.concatenate(blocks, axis=3)


def common_start(names: np.ndarray | None) -> int:
    """Length of what the names of all sessions begin with, up to a separator."""
    different = [] if names is None else sorted(set(map(str, names)))
    common = os.path.commonprefix(different) if len(different) > 1 else ""
    return max(common.rfind(separator) for separator in "_/ ") + 1


def short_name(region: str, session: str, number: str) -> str:
    """A unit in few words, such as "ALM, ses-1 unit 12"; a part that is unknown is ""."""
    return ", ".join(filter(None, (region, f"{session} unit {number}".strip())))


def counts(names: np.ndarray) -> list[tuple[str, int]]:
    """(name, number of times that it occurs), the most frequent first."""
    return Counter(map(str, names.tolist())).most_common()


def time_words(group: zarr.Group, recording: Recording) -> str:
    """Start and end of the bins of a recording, or their total length where it has no times, in words."""
    bins = recording.values.shape[1]
    if "time" not in group or group["time"].shape != (bins,):
        return f"{bins * recording.bin_ms / 1000:g} s"
    start, end = trial_average.span_of_bins(zarr_store.read(group["time"]), recording.bin_ms)
    return f"{start:g} to {end:g} s {trial_clock.label(group['time']).removeprefix('time ')}"


def _spread(values: np.ndarray, digits: int = 0) -> str:
    low, middle, high = np.quantile(values, [0, 0.5, 1])
    return f"{low:.{digits}f} to {high:.{digits}f}, median {middle:.{digits}f}"


def unit_rows(group: zarr.Group, recording: Recording) -> Iterator[tuple[str, Any]]:
    """(name, text) of what a store has on its units beside rates: sessions, regions, trials, reliability, import."""
    n = recording.n_units
    if (session := column(group, "session", n)) is not None:
        found = counts(session)
        few = ", ".join(f"{name} ({count:,} units)" for name, count in found)
        many = f"{_spread(np.array([count for _, count in found]))} units"
        yield "sessions", f"{len(found):,}: {few if len(found) <= MAX_NAMES // 2 else many}"
    if (region := column(group, "region", n)) is not None:
        found = counts(region)
        regions = [f"{named(name)} {count:,}" for name, count in found[:MAX_NAMES]]
        yield "units by region", ", ".join(regions) + (f" and {len(found) - MAX_NAMES} more" if len(found) > MAX_NAMES else "")
    if (classes := column(group, cell_classes.COLUMN, n)) is not None:
        yield "cell class", cell_classes.counted(Counter(map(str, classes.tolist())))
    trials = column(group, "n_trials", n)
    if trials is not None and trials.shape == (n, recording.n_conditions):
        yield "trials per unit", "; ".join(f"{name} {_spread(trials[:, c])}" for c, name in enumerate(recording.conditions[:8]))
    if (reliability := reliabilities(group, recording)) is not None:
        yield (
            "reliability",
            "; ".join(f"{name} {_reliability_text(r)}" for name, r in zip(recording.conditions[:8], reliability, strict=False)),
        )
    yield from import_rows(group.attrs)


def _reliability_text(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    words = f"median {np.median(known):.2f}, 10th percentile {np.quantile(known, 0.1):.2f}" if known.size else "undefined"
    return words + (f" ({values.size - known.size:,} undefined)" if known.size < values.size and known.size else "")


def import_rows(attributes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(name, text) of the import of a recording: units left out, and options."""
    if isinstance(dropped := attributes.get("dropped"), Mapping):
        yield "left out", ", ".join(f"{reason} {count:,}" for reason, count in dropped.items() if count) or "none"
    if isinstance(options := attributes.get("import"), Mapping):
        yield "imported with", ", ".join(f"{name}={value}" for name, value in options.items() if value not in (None, "", [], {}))
