"""What a source of a running experiment delivers, in a form that all sources share: spikes of units, and markers of events."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np


@dataclasses.dataclass(frozen=True)
class Unit:
    """A unit of a source.

    key: text that identifies it through the whole experiment, such as ProbeA/103/12/3 (stream, node, electrode, sorted unit).
    stream: stream that it belongs to, whose clock its spike times have; "" where a source has one clock.
    """

    key: str
    stream: str = ""


@dataclasses.dataclass(frozen=True)
class Marker:
    """An event of the experiment, such as a TTL edge or a text.

    time: s, on the clock of its stream.
    stream: stream whose clock that is; "" where a source has one clock.
    name: of the event, such as line2, or line2_off for a falling edge.
    value: text that the event carries, such as left for condition=left; "": none.
    arrival: s, on the clock of this machine (`time.time`), when it was received.
    """

    time: float
    stream: str
    name: str
    value: str
    arrival: float


@dataclasses.dataclass(frozen=True)
class Batch:
    """What has arrived since the batch before; possibly nothing.

    spike_time: [n] float64 s, on the clock of the unit's stream.
    spike_unit: [n] int32, indices into `Source.units`.
    markers: events, in the order of arrival.
    until: the time that the clock of each stream is known to have reached, s; of streams with news.
    lost: messages that are known to be lost before they reached this program.
    rejected: messages that could not be understood.
    reason: why the first of them could not be understood, in words.
    """

    spike_time: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    spike_unit: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))
    markers: Sequence[Marker] = ()
    until: Mapping[str, float] = dataclasses.field(default_factory=dict)
    lost: int = 0
    rejected: int = 0
    reason: str = ""

    def extents(self, units: Sequence[Unit]) -> dict[str, tuple[float, float]]:
        """(first, last) time of the spikes and markers of each stream, s; `units` are those that `spike_unit` counts."""
        found: dict[str, tuple[float, float]] = {}
        stream_of_spike = np.array([unit.stream for unit in units], dtype=object)[self.spike_unit]
        for stream in set(stream_of_spike.tolist()):
            times = self.spike_time[stream_of_spike == stream]
            found[stream] = float(times.min()), float(times.max())
        for each in self.markers:
            first, last = found.get(each.stream, (each.time, each.time))
            found[each.stream] = min(first, each.time), max(last, each.time)
        return found


class Source(Protocol):
    """A source of messages. One thread reads it; it never raises for what a sender does.

    name: the source in words, for messages, such as Open Ephys at 127.0.0.1:5557.
    units: units seen so far; `read` appends to it.
    position: what was delivered so far, in a form from which the same source, opened again, goes on; "": nothing can be repeated.
    """

    name: str
    units: list[Unit]
    position: str

    def read(self, timeout: float) -> Batch | None:
        """What has arrived; waits up to `timeout` s for something. None: the source has ended, and nothing more will come."""
        ...

    def problem(self) -> str:
        """Why nothing can be received at present, in words, such as a lost connection; "": nothing is known to be wrong."""
        ...

    def close(self) -> None:
        """Ends connections and threads."""
        ...
