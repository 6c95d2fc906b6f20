"""Contents of one source of an import: a recording session of spikes and trials, or rates averaged before."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rlsnet.errors import UserError

Table = Mapping[str, np.ndarray]  # columns of one length: numbers, or texts as object or str arrays


@dataclasses.dataclass(frozen=True)
class SeparateTrials:
    """Trials that a file contains one by one, each with times of its own; on the clock of the session they lie one after another.

    zero: [trials] s, time 0 of each trial on the clock of the session.
    extent: start and end of the time that the file has of a trial, from its time 0, s.
    bin_ms: length of the bins in which spikes were counted; None: the file has spike times.
    """

    zero: np.ndarray
    extent: tuple[float, float]
    bin_ms: float | None = None


@dataclasses.dataclass(frozen=True)
class Session:
    """One recording session with the spike trains of its units.

    name: name of the session in its file; it distinguishes units of different sessions.
    path: file or folder that was read.
    spike_times: [spikes] float64 s, one unit after the other, ascending within each unit.
    spike_index: [U+1] int64; unit u has spike_times[spike_index[u]:spike_index[u + 1]].
    units: columns [U]: always `id`; `region` and `probe` if known; any other column of the file.
    trials: columns [trials]: `start_time` and `stop_time` if known; any other column of the file. Times are as stored, until
      `time_units.in_seconds`.
    events: series of times over the whole session, by name; ascending, as stored.
    observed: ([K, 2] s, [U+1] index) observation intervals of each unit; None: the whole session.
    notes: what the reader left out or assumed, as short texts for the user.
    sample_rate: Hz, for trials and events in samples; None: unknown.
    separate: trials that the file contains one by one; None: trials on the clock of the session.
    trials_path: file of the table of trials, if it is another one; for messages.
    warnings: what may be wrong, each a text with the setting that would be right.
    stated: unit (s, ms, us, samples) that the file states for a column trials/NAME or a series events/NAME.
    """

    name: str
    path: Path
    spike_times: np.ndarray
    spike_index: np.ndarray
    units: Table
    trials: Table
    events: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    observed: tuple[np.ndarray, np.ndarray] | None = None
    notes: tuple[str, ...] = ()
    sample_rate: float | None = None
    stated: Mapping[str, str] = dataclasses.field(default_factory=dict)
    separate: SeparateTrials | None = None
    trials_path: Path | None = None
    warnings: tuple[str, ...] = ()

    @property
    def n_units(self) -> int:
        """Number of units U."""
        return len(self.spike_index) - 1

    @property
    def trials_file(self) -> str:
        """File that contains the trials, for messages."""
        return str(self.trials_path or self.path)


@dataclasses.dataclass(frozen=True)
class PrecomputedRates:
    """Rates or currents that were averaged over trials before the import.

    name: name of the file or array.
    path: file that was read.
    values: [C, M, U] Hz, or threshold units; NaN: unknown. May be lazy: any object that can be sliced like an array.
    kind: rate or current.
    bin_ms: length of a bin in ms, or None if the file does not contain it.
    conditions: [C] names, or None.
    units: columns [U], possibly none.
    notes: what the reader left out or assumed, as short texts for the user.
    time: [M] s, centres of the bins, or None if the file does not contain them.
    half: [2, C, M, U] Hz, rates of odd and of even trials, or None.
    n_trials: [U, C] number of averaged trials, or None.
    warnings: what may be wrong, each a text with the setting that would be right.
    single_trials: whether the file has the rates of each trial, which the reader has averaged; they may have a table of trials.
    """

    name: str
    path: Path
    values: np.ndarray
    kind: str
    bin_ms: float | None
    conditions: tuple[str, ...] | None
    units: Table
    notes: tuple[str, ...] = ()
    time: np.ndarray | None = None
    half: np.ndarray | None = None
    n_trials: np.ndarray | None = None
    warnings: tuple[str, ...] = ()
    single_trials: bool = False

    @property
    def n_units(self) -> int:
        """Number of units U."""
        return self.values.shape[2]


def with_sorted_spikes(session: Session) -> Session:
    """A session with the spikes of each unit finite and ascending; its notes say what was changed.

    Raises:
      UserError: `spike_index` does not divide the spikes among the units.
    """
    times, index = np.asarray(session.spike_times, np.float64), np.asarray(session.spike_index, np.int64)
    if not len(index) or index[0] != 0 or (np.diff(index) < 0).any() or index[-1] != len(times):
        raise UserError(
            f"{session.path}: expected units that contain all {len(times):,} spikes, one unit after another; the file is damaged."
        )
    notes = list(session.notes)
    if n_removed := int((~np.isfinite(times)).sum()):
        index = np.concatenate([[0], np.cumsum(np.isfinite(times))])[index]
        times = times[np.isfinite(times)]
        notes.append(f"spikes without a time or a trial, left out: {n_removed:,}")
    descending = np.diff(times) < 0
    first_spikes = index[(index > 0) & (index < len(times))]
    descending[first_spikes - 1] = False  # from one unit to the next
    if descending.any():
        units = np.unique(np.searchsorted(index, np.flatnonzero(descending), side="right") - 1)
        times = times.copy()
        for u in units:
            times[index[u] : index[u + 1]].sort()
        notes.append(f"units with spikes out of order, now sorted: {len(units):,}")
    return dataclasses.replace(session, spike_times=times, spike_index=index, notes=tuple(notes))
