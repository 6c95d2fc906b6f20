"""What is in a recording, in numbers: read once, by chunks of units, never whole."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import zarr

from rlsnet import recordings, zarrio
from rlsnet.recordings import FORMAT, Recording

MOST_SHOWN = 2000  # units whose PSTHs are kept
NAMED = 12  # regions or sessions named in a line


@dataclasses.dataclass(frozen=True)
class Summary:
    """Of a recording with C conditions, M bins and N units.

    recording: the open store.
    time: [M] s, from the event that trials are aligned to, or from the start where the store does not say.
    mean: [C, N] mean over the bins that are known; NaN where none is.
    reliability: [C, N] correlation of the PSTHs of odd and even trials, NaN undefined; None where there are no halves.
    shown: [S] some of the units, evenly spaced.
    psth: [C, M, S] of these.
    halves: [2, C, M, S] of these, from odd and from even trials; None where there are no halves.
    """

    recording: Recording
    time: np.ndarray
    mean: np.ndarray
    reliability: np.ndarray | None
    shown: np.ndarray
    psth: np.ndarray
    halves: np.ndarray | None


def evenly(n: int, most: int) -> np.ndarray:
    """At most `most` of the numbers 0..n-1, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(int))


def open_any(path: str) -> Recording:
    """A recording of rates or, where it has none, of currents."""
    group = zarrio.open_group(path, "recording", FORMAT)
    return recordings.open_recording(path, "current" if "current" in group and "rate" not in group else "rate")


def column(group: zarr.Group, name: str, n: int) -> np.ndarray | None:
    """The column unit/NAME, [n] or [n, ...], or None where the store has none of that length."""
    found = group.get(f"unit/{name}")
    return zarrio.read(found) if isinstance(found, zarr.Array) and found.ndim and found.shape[0] == n else None


def pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Correlation over axis 1 of x and y [C, M, n] where both are known, [C, n]; NaN where one of them does not vary."""
    known = np.isfinite(x) & np.isfinite(y)
    count = np.maximum(known.sum(axis=1), 1)
    dx, dy = (np.where(known, v - (np.where(known, v, 0).sum(axis=1) / count)[:, None], 0) for v in (x, y))
    xx, yy, xy = (dx * dx).sum(axis=1), (dy * dy).sum(axis=1), (dx * dy).sum(axis=1)
    varies = (xx > 1e-12) & (yy > 1e-12)
    return np.where(varies, xy / np.sqrt(np.where(varies, xx * yy, 1)), np.nan)


def reliabilities(group: zarr.Group, recording: Recording) -> np.ndarray | None:
    """[C, N] split-half reliability: the stored one, or else that of the stored halves, or None."""
    stored = column(group, "reliability", recording.n_units)
    if stored is not None:
        return stored.T if stored.ndim == 2 else stored[None]
    if (halves := recording.halves) is None:
        return None
    blocks = (zarrio.read(halves, (slice(None), slice(None), slice(None), part)) for part in zarrio.chunks(halves, along=3))
    return np.concatenate([pearson(*block.astype(np.float64)) for block in blocks], axis=1)


def summarize(path: str) -> Summary:
    """Reads a recording through once."""
    recording = open_any(path)
    group = zarrio.open_group(path, "recording", FORMAT)
    conditions, bins, n = recording.values.shape
    shown, mean, kept, start = evenly(n, MOST_SHOWN), np.full((conditions, n), np.nan), [], 0
    for block in recording.stream():
        stop = start + block.shape[2]
        known = np.isfinite(block)
        count = known.sum(axis=1)
        np.divide(block.sum(axis=1, where=known), count, out=mean[:, start:stop], where=count > 0)
        kept.append(block[:, :, shown[(shown >= start) & (shown < stop)] - start].astype(np.float32))
        start = stop
    some = None if recording.halves is None else _columns_of(recording.halves, shown)
    time = np.arange(bins) * recording.bin_ms / 1000 + recording.bin_ms / 2000
    if "time" in group and group["time"].shape == (bins,):
        time = zarrio.read(group["time"]).astype(np.float64)
    return Summary(recording, time, mean, reliabilities(group, recording), shown, np.concatenate(kept, axis=2), some)


def _columns_of(stored: zarr.Array, units: np.ndarray) -> np.ndarray:
    """[2, C, M, n] float32, those units of an array [2, C, M, N], read by chunks."""
    kept = []
    for part in zarrio.chunks(stored, along=3):
        mine = units[(units >= part.start) & (units < part.stop)] - part.start
        if len(mine):
            kept.append(zarrio.read(stored, (slice(None), slice(None), slice(None), part))[..., mine].astype(np.float32))
    return np.concatenate(kept, axis=3)


def counts(names: np.ndarray) -> list[tuple[str, int]]:
    """How often each name occurs, the most frequent first."""
    return Counter(map(str, names.tolist())).most_common()


def _spread(values: np.ndarray, digits: int = 0) -> str:
    low, middle, high = np.quantile(values, [0, 0.5, 1])
    return f"{low:.{digits}f} to {high:.{digits}f}, median {middle:.{digits}f}"


def rows(group: zarr.Group, recording: Recording) -> Iterator[tuple[str, Any]]:
    """What a store says of its units beside the rates: sessions, regions, trials, reliability, how it was made."""
    n = recording.n_units
    if (session := column(group, "session", n)) is not None:
        found = counts(session)
        few = ", ".join(f"{name} ({count:,} units)" for name, count in found)
        many = f"{_spread(np.array([count for _, count in found]))} units"
        yield "sessions", f"{len(found):,}: {few if len(found) <= NAMED // 2 else many}"
    if (region := column(group, "region", n)) is not None:
        found = counts(region)
        named = [f"{name or '(none)'} {count:,}" for name, count in found[:NAMED]]
        yield "units by region", ", ".join(named) + (f" and {len(found) - NAMED} more" if len(found) > NAMED else "")
    trials = column(group, "n_trials", n)
    if trials is not None and trials.shape == (n, recording.n_conditions):
        yield "trials of a unit", "; ".join(f"{name} {_spread(trials[:, c])}" for c, name in enumerate(recording.conditions[:8]))
    if (reliability := reliabilities(group, recording)) is not None:
        yield "reliability", "; ".join(f"{name} {_of_halves(r)}" for name, r in zip(recording.conditions[:8], reliability, strict=False))
    yield from made(group.attrs)


def _of_halves(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    words = f"median {np.median(known):.2f}, a tenth below {np.quantile(known, 0.1):.2f}" if known.size else "undefined"
    return words + (f" ({values.size - known.size:,} undefined)" if known.size < values.size and known.size else "")


def made(attributes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """How a recording was made: what its importer was asked for, and what it left out."""
    if isinstance(dropped := attributes.get("dropped"), Mapping):
        yield "dropped", ", ".join(f"{reason} {count:,}" for reason, count in dropped.items() if count) or "none"
    if isinstance(options := attributes.get("import"), Mapping):
        yield "imported with", ", ".join(f"{name}={value}" for name, value in options.items() if value not in (None, "", [], {}))
