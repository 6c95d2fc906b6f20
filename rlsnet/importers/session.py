"""What a reader of a format hands on: a session of spikes and trials, or rates that are ready."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rlsnet.config import UserError

Table = Mapping[str, np.ndarray]  # columns of one length: numbers, or texts as object or str arrays


@dataclasses.dataclass(frozen=True)
class Session:
    """One recording session, spikes sorted into units.

    name: as its file calls it; units of many sessions are told apart by it.
    path: where it was read.
    times: [spikes] float64 s, unit by unit, ascending within each.
    index: [U+1] int64, unit u has times[index[u]:index[u + 1]].
    units: columns [U]; `id` always, `region` and `probe` where known, and whatever else the file says of its units.
    trials: columns [trials]; `start_time` and `stop_time` in s where known, and whatever else the file says of its trials.
    events: series of times in s, of the whole session, by name; ascending.
    observed: ([K, 2] s, [U+1] index) intervals in which each unit was recorded; None: always.
    notes: what the reader left out or assumed, in words.
    """

    name: str
    path: Path
    times: np.ndarray
    index: np.ndarray
    units: Table
    trials: Table
    events: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    observed: tuple[np.ndarray, np.ndarray] | None = None
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Ready:
    """Rates or currents that somebody has averaged already.

    name: of the file or array.
    path: where it was read.
    values: [C, M, U] Hz, or threshold units; NaN is not known. May be lazy: anything that slices like an array.
    kind: rate or current.
    bin_ms: length of a bin, or None where the file does not say.
    conditions: [C] names, or None.
    units: columns [U], perhaps none.
    notes: what the reader left out or assumed, in words.
    """

    name: str
    path: Path
    values: np.ndarray
    kind: str
    bin_ms: float | None
    conditions: tuple[str, ...] | None
    units: Table
    notes: tuple[str, ...] = ()


def ordered(session: Session) -> Session:
    """The session with the spikes of each unit ascending and finite; what that took is among its notes."""
    times, index = np.asarray(session.times, np.float64), np.asarray(session.index, np.int64)
    if not len(index) or index[0] != 0 or (np.diff(index) < 0).any() or index[-1] != len(times):
        raise UserError(f"{session.path}: its units should hold all {len(times):,} spikes, one unit after another; the file is damaged.")
    notes = list(session.notes)
    if lost := int((~np.isfinite(times)).sum()):
        index = np.concatenate([[0], np.cumsum(np.isfinite(times))])[index]
        times = times[np.isfinite(times)]
        notes.append(f"spikes without a time, left out: {lost:,}")
    back = np.diff(times) < 0
    inner = index[(index > 0) & (index < len(times))]
    back[inner - 1] = False  # from one unit to the next
    if back.any():
        units = np.unique(np.searchsorted(index, np.flatnonzero(back), side="right") - 1)
        times = times.copy()
        for u in units:
            times[index[u] : index[u + 1]].sort()
        notes.append(f"units whose spikes were put in order: {len(units):,}")
    return dataclasses.replace(session, times=times, index=index, notes=tuple(notes))
