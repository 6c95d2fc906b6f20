"""Trials of a running experiment: spikes and markers that have arrived, cut into windows around an event.

Streams, such as those of two probes, have clocks of their own. A trial is aligned in each stream by the event in that stream, and events
of one trial are recognized by their arrival. Without `start`, the markers of a trial are those from the end of the window before to
the end of its own window; with it, those from one marker of that name to the next.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlsnet.data.streams.messages import Batch, Marker, Unit
from rlsnet.data.trial_average import EDGE_TOLERANCE

SAME_EVENT_S = 0.25  # events of one trial in different streams arrive within this time
WAIT_S = 0.5  # longer than the end of a trial is waited for a stream without news
KEEP_S = 30.0  # spikes before the present that are kept for an event that arrives late


@dataclasses.dataclass(frozen=True)
class Window:
    """Bins of a trial around its event.

    start: start of the first bin of the window, s from the event.
    width: length of a bin, s.
    bins: bins M of the window.
    pad: bins P on each side of it, for smoothing.
    """

    start: float
    width: float
    bins: int
    pad: int

    @property
    def total(self) -> int:
        """Bins with those on the sides, M + 2 P."""
        return self.bins + 2 * self.pad

    @property
    def end(self) -> float:
        """End of the window, s from the event."""
        return self.start + self.bins * self.width


@dataclasses.dataclass(frozen=True)
class Rules:
    """How markers make trials.

    align: name of the marker at time 0.
    start: name of the marker that starts a trial; None: see the module.
    end: name of the marker at which a trial is complete, if its window has passed; None: the window decides.
    settle: time after the window for spikes that arrive late, s.
    """

    align: str
    start: str | None = None
    end: str | None = None
    settle: float = 0.1


@dataclasses.dataclass(frozen=True)
class StreamTrial:
    """A trial.

    number: from 0.
    events: time of the event in each stream, s.
    arrival: when its first event arrived, s, `time.time()`.
    columns: of its markers: NAME is the value of a marker with a value and else true, NAME_time its time, s.
    counts: [U, M + 2 P] uint16 spikes of the units so far.
    counted: [U] bool, the units whose stream has the event.
    n_spikes, n_markers: spikes and markers that had arrived when it was complete.
    """

    number: int
    events: Mapping[str, float]
    arrival: float
    columns: Mapping[str, Any]
    counts: np.ndarray
    counted: np.ndarray
    n_spikes: int
    n_markers: int


@dataclasses.dataclass
class _Open:
    """A trial that is not complete."""

    arrival: float
    events: dict[str, float]
    markers: list[Marker]
    ended: bool = False


class TrialAssembler:
    """Makes trials of spikes and markers as they arrive.

    n_trials: trials that were taken.
    late: spikes that arrived after the trial to which they belong was taken.
    since: when messages began to arrive, s (`time.time()`): what arrived before is not older than this, for a stream without news.
    """

    def __init__(self, window: Window, rules: Rules):
        self.window, self.rules, self.n_trials, self.late, self.since = window, rules, 0, 0, 0.0
        self._started: tuple[str, float] | None = None  # stream and arrival of the last marker that starts a trial
        self._open: list[_Open] = []
        self._last: _Open | None = None  # the newest trial, open or not
        self._waiting: list[Marker] = []  # markers that belong to the next trial or, with rules.start, to the present one
        self._time, self._unit = np.zeros(0), np.zeros(0, np.int32)
        self._stream: list[str] = []  # of each unit
        self._until: dict[str, float] = {}
        self._reached: dict[str, float] = {}  # as _until, by spikes and markers alone, which are the same when a stream is repeated
        self._taken: dict[str, float] = {}  # end of the last trial that was taken, by stream
        self._n_spikes = self._n_markers = 0

    @property
    def n_open(self) -> int:
        """Trials that are not complete, or not taken."""
        return len(self._open)

    def feed(self, batch: Batch, units: Sequence[Unit]) -> None:
        """Adds messages; `units` [U] are all units so far, which `batch.spike_unit` counts."""
        self._stream += [unit.stream for unit in units[len(self._stream) :]]
        self._time = np.concatenate([self._time, batch.spike_time])
        self._unit = np.concatenate([self._unit, batch.spike_unit])
        self._n_spikes, self._n_markers = self._n_spikes + len(batch.spike_time), self._n_markers + len(batch.markers)
        taken = np.array([self._taken.get(stream, -np.inf) for stream in self._stream])
        self.late += int((batch.spike_time < taken[batch.spike_unit]).sum())
        for each in batch.markers:
            self._add(each)
        reached = {stream: last for stream, (_, last) in batch.extents(units).items()}
        for latest, news in ((self._until, batch.until), (self._until, reached), (self._reached, reached)):
            latest.update({stream: max(time, latest.get(stream, -np.inf)) for stream, time in news.items()})

    def _add(self, marker: Marker) -> None:
        """Adds a marker to its trial, or opens a new trial."""
        last = self._last
        if marker.name == self.rules.start and not self._is_same_start(marker):
            self._started, self._waiting = (marker.stream, marker.arrival), []
            if last is not None:
                last.ended = True
        if marker.name == self.rules.align:
            if last is not None and marker.stream not in last.events and marker.arrival - last.arrival <= SAME_EVENT_S:
                last.events[marker.stream] = marker.time
                return
            markers = self._waiting
            if self.rules.start is None:
                self._waiting = []
                if last is not None:
                    last.ended = True
            self._last = _Open(marker.arrival, {marker.stream: marker.time}, markers)
            self._open.append(self._last)
            markers.append(marker)
        elif self.rules.start is None and last is not None and self._within(last, marker):
            last.markers.append(marker)
        else:
            self._waiting.append(marker)
        if marker.name == self.rules.end and self._last is not None:
            self._last.ended = True

    def _is_same_start(self, marker: Marker) -> bool:
        """Whether a marker that starts a trial is that of another stream for the same trial."""
        return self._started is not None and marker.stream != self._started[0] and marker.arrival - self._started[1] <= SAME_EVENT_S

    def _within(self, trial: _Open, marker: Marker) -> bool:
        """Whether a marker comes before the end of the window of a trial."""
        if marker.stream in trial.events:
            return marker.time <= trial.events[marker.stream] + self.window.end
        return marker.arrival <= trial.arrival + self.window.end

    def n_complete(self, now: float) -> int:
        """Number of trials that are complete at the time `now`, s (`time.time()`), and not taken; a trial waits for those before it."""
        return next((n for n, trial in enumerate(self._open) if not self._is_complete(trial, now)), len(self._open))

    def _is_complete(self, trial: _Open, now: float) -> bool:
        """Whether the messages of a trial have arrived, or are no longer waited for."""
        if self.rules.end is not None and not trial.ended:
            return False
        after = self.window.end + self.window.pad * self.window.width + self.rules.settle
        if now >= max(trial.arrival, self.since) + after + WAIT_S:
            return True
        streams = trial.events.keys() & set(self._stream) or trial.events.keys()
        return all(self._until.get(stream, -np.inf) >= trial.events[stream] + after for stream in streams)

    def take(self) -> StreamTrial:
        """The oldest open trial, with what has arrived of it."""
        trial, window, number = self._open.pop(0), self.window, self.n_trials
        self.n_trials += 1
        at = np.array([trial.events.get(stream, np.nan) for stream in self._stream]) + window.start - window.pad * window.width
        units, total = len(self._stream), window.total
        with np.errstate(invalid="ignore"):
            bins = np.floor((self._time - at[self._unit]) / window.width + EDGE_TOLERANCE)
            inside = (bins >= 0) & (bins < total)
        cell = self._unit[inside].astype(np.int64) * total + bins[inside].astype(np.int64)
        counts = np.bincount(cell, minlength=units * total).reshape(units, total).astype(np.uint16)
        for stream, time in trial.events.items():
            self._taken[stream] = time + window.end + window.pad * window.width
        self._forget()
        return StreamTrial(
            number, trial.events, trial.arrival, _columns(trial.markers), counts, np.isfinite(at), self._n_spikes, self._n_markers
        )

    def _forget(self) -> None:
        """Drops spikes that no open trial, and none that is still to come, has."""
        before = self.window.pad * self.window.width - min(0.0, self.window.start) + EDGE_TOLERANCE
        horizon = {stream: until - KEEP_S - before - max(0.0, self.window.end) for stream, until in self._reached.items()}
        for trial in self._open:
            for stream, time in trial.events.items():
                horizon[stream] = min(horizon.get(stream, np.inf), time - before)
        keep = self._time >= np.array([horizon.get(stream, -np.inf) for stream in self._stream])[self._unit]
        self._time, self._unit = self._time[keep], self._unit[keep]


def _columns(markers: Sequence[Marker]) -> dict[str, Any]:
    """Columns of a trial from its markers; of several with one name, the first gives the time and the last the value."""
    found: dict[str, Any] = {}
    for each in markers:
        found.setdefault(f"{each.name}_time", each.time)
        found[each.name] = each.value if each.value else True
    return found
