"""Store stream.zarr: the messages of an experiment, appended while it runs, with which the same training can be repeated.

    spike/time [n] s on the clock of the unit's stream, spike/unit [n]
    marker/time [k] s, marker/stream, marker/name, marker/value [k] texts, marker/arrival [k] s (time.time())
    unit/key, unit/stream [U] texts, in the order of each unit's first spike
    trial/n_spikes, trial/n_markers [T]: what had arrived when a trial was complete; trial/iterations [T]: training done after it

Only what the attribute `committed` counts is valid: it is written last, so that a process that ends at any moment leaves a store that
is complete up to there. A store that grows is read by opening it anew.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from rlsnet.data.streams.messages import Batch, Marker, Unit
from rlsnet.errors import UserError
from rlsnet.io import atomic, zarr_store

log = logging.getLogger(__name__)

FORMAT, VERSION = "rlsnet-stream", 1
RESTART_S = 5.0  # a clock that goes back by more has been started again; within this time, messages may come in any order
GAP_S = 10.0  # between the last time before such a start and the first one after it
CHUNKS = {"spike": 2**16, "marker": 2**12, "unit": 2**12, "trial": 2**12}
ARRAYS: Mapping[str, Mapping[str, Any]] = {
    "spike": {"time": np.float64, "unit": np.int32},
    "marker": {"time": np.float64, "stream": str, "name": str, "value": str, "arrival": np.float64},
    "unit": {"key": str, "stream": str},
    "trial": {"n_spikes": np.int64, "n_markers": np.int64, "iterations": np.int32},
}


@dataclasses.dataclass(frozen=True)
class TrialRow:
    """What training did about a trial.

    n_spikes, n_markers: spikes and markers that had arrived when the trial was complete.
    iterations: iterations of training after it.
    """

    n_spikes: int
    n_markers: int
    iterations: int


@dataclasses.dataclass(frozen=True)
class Stream:
    """Committed content of a stream.zarr.

    spike_time: [n] s.
    spike_unit: [n] int32.
    markers: in the order of arrival.
    units: in the order of their first spikes.
    trials: in order.
    rules: settings that made the trials, by name; empty where they are not known.
    """

    spike_time: np.ndarray
    spike_unit: np.ndarray
    markers: Sequence[Marker]
    units: Sequence[Unit]
    trials: Sequence[TrialRow]
    rules: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class StreamStore:
    """A stream.zarr that one process appends to, in calls of one thread at a time.

    units: units of the stream so far.
    n_spikes, n_markers: numbers so far, those included that are not yet committed.
    position: what the source has delivered, as the source describes it.
    source: text that names this source.
    rules: settings that make the trials, by name.
    """

    def __init__(self, path: Path):
        """Opens a stream, or makes a new one; raises UserError if something else is there, or the store is damaged."""
        self.path = path
        if not path.exists():
            with atomic.replacing(path) as temporary:
                _create(temporary)
        stored = read(path)
        self._root = zarr.open_group(str(path), mode="r+")
        self._committed = {name: int(count) for name, count in self._root.attrs["committed"].items()}
        self._arrays = {f"{group}/{name}": self._root[f"{group}/{name}"] for group, each in ARRAYS.items() for name in each}
        self.units, self._number = list(stored.units), {unit.key: number for number, unit in enumerate(stored.units)}
        self.n_spikes, self.n_markers = len(stored.spike_time), len(stored.markers)
        self.position, self.source = (str(self._root.attrs.get(name, "")) for name in ("position", "source"))
        self.rules: dict[str, Any] = dict(stored.rules)
        self.lost, self.rejected = (int(self._root.attrs.get(name, 0)) for name in ("lost", "rejected"))
        self._clocks: dict[str, list[float]] = {name: list(each) for name, each in self._root.attrs.get("clocks", {}).items()}
        self._with_spikes = {stored.units[unit].stream for unit in np.unique(stored.spike_unit)}
        moved = {stream: shift for stream, (_, shift) in self._clocks.items()}
        recent = stored.markers[-CHUNKS["marker"] :]
        self._seen_markers = {(each.stream, each.name, each.time - moved.get(each.stream, 0.0)) for each in recent}
        self._pending: dict[str, list[np.ndarray]] = {name: [] for name in self._arrays}

    def append(self, batch: Batch, units: Sequence[Unit], position: str) -> Batch:
        """Adds messages, which `commit` writes; markers that have come twice are left out.

        Args:
          batch: messages of a source.
          units: units of the source, which `batch.spike_unit` counts.
          position: of the source, after this batch.

        Returns:
          The batch as it is stored: units by their numbers in the stream, and times on clocks that do not start again.
        """
        fresh = [each for each in batch.markers if (each.stream, each.name, each.time) not in self._seen_markers]
        shift = self._shifts(dataclasses.replace(batch, markers=fresh), units)
        streams = np.array([shift.get(unit.stream, 0.0) for unit in units], float)
        time = batch.spike_time + streams[batch.spike_unit]
        unit = self._numbers(batch.spike_unit, units)
        new = [each for each in batch.markers if self._is_new(each)]  # also where the clock has started again
        markers = [dataclasses.replace(each, time=each.time + shift.get(each.stream, 0.0)) for each in new]
        self._pending["spike/time"].append(time)
        self._pending["spike/unit"].append(unit)
        self._add("marker", markers)
        self.n_spikes, self.n_markers = self.n_spikes + len(time), self.n_markers + len(markers)
        self.lost, self.rejected, self.position = self.lost + batch.lost, self.rejected + batch.rejected, position
        until = {stream: time + shift.get(stream, 0.0) for stream, time in batch.until.items()}
        return dataclasses.replace(batch, spike_time=time, spike_unit=unit, markers=markers, until=until)

    def copy(self, stream: Stream, with_trials: bool) -> None:
        """Adds all messages of another stream, and what was done after its trials, to an empty one."""
        self._pending["spike/time"].append(stream.spike_time)
        self._pending["spike/unit"].append(stream.spike_unit)
        for group, rows in (("marker", stream.markers), ("unit", stream.units), ("trial", stream.trials if with_trials else ())):
            self._add(group, rows)
        self.units, self.n_spikes, self.n_markers = list(stream.units), len(stream.spike_time), len(stream.markers)

    def _is_new(self, marker: Marker) -> bool:
        """Whether a marker has not come before, on the clock of its source."""
        known = marker.stream, marker.name, marker.time
        if known in self._seen_markers:
            return False
        self._seen_markers.add(known)
        return True

    def add_trial(self, row: TrialRow) -> None:
        """Adds what training did about the next trial, which `commit` writes."""
        self._add("trial", [row])

    def commit(self) -> None:
        """Writes all that was added. After an error, such as a full disk, all is still to be written."""
        counts = dict(self._committed)
        for name, array in self._arrays.items():
            group, field = name.split("/")
            values = np.concatenate([np.zeros(0, ARRAYS[group][field]), *self._pending[name]])
            if len(values):
                start = self._committed[group]
                array.resize((start + len(values),))
                array[start:] = values
                counts[group] = start + len(values)
        about = {"committed": counts, "lost": self.lost, "rejected": self.rejected, "position": self.position}
        about |= {"source": self.source, "rules": self.rules, "clocks": self._clocks}
        if any(self._root.attrs.get(name) != value for name, value in about.items()):
            self._root = self._root.update_attributes(about)  # in one write; attrs.update would write each attribute by itself
        self._committed = counts
        for blocks in self._pending.values():
            blocks.clear()

    @property
    def uncommitted(self) -> int:
        """Number of spikes, markers and trials that `commit` has still to write."""
        return sum(len(block) for name in ("spike/time", "marker/time", "trial/iterations") for block in self._pending[name])

    def _add(self, group: str, rows: Sequence[Any]) -> None:
        """Adds rows of markers, units or trials, which `commit` writes."""
        for field, dtype in ARRAYS[group].items():
            self._pending[f"{group}/{field}"].append(np.array([getattr(row, field) for row in rows], dtype))

    def _numbers(self, numbers: np.ndarray, units: Sequence[Unit]) -> np.ndarray:
        """[n] int32 numbers in the stream of units that have numbers [n] in the source; new units are added."""
        present, first = np.unique(numbers, return_index=True)
        for index in present[np.argsort(first)]:
            unit = units[index]
            if unit.key not in self._number:
                self._number[unit.key] = len(self.units)
                self.units.append(unit)
                self._add("unit", [unit])
        place = np.zeros(len(units), np.int32)
        place[present] = [self._number[units[index].key] for index in present]
        return place[numbers]

    def _shifts(self, batch: Batch, units: Sequence[Unit]) -> dict[str, float]:
        """Seconds to add to the clock of each stream; a clock that starts again goes on GAP_S after its last time.

        In a stream with spikes, only spikes tell that the clock has started again: a marker may come late.
        """
        spiking = {units[unit].stream for unit in np.unique(batch.spike_unit)}
        self._with_spikes |= spiking
        for stream, (first, last) in batch.extents(units).items():
            latest, shift = self._clocks.get(stream, (first, 0.0))
            if last + shift < latest - RESTART_S and (stream in spiking or stream not in self._with_spikes):
                log.warning("The clock of %s has started again, at %.3f s; it goes on %g s later.", stream or "the source", first, GAP_S)
                self._seen_markers = {known for known in self._seen_markers if known[0] != stream}
                shift = latest + GAP_S - first
            self._clocks[stream] = [max(latest, last + shift), shift]
        return {stream: shift for stream, (_, shift) in self._clocks.items()}


def _create(path: Path) -> None:
    """A new, empty stream."""
    committed = dict.fromkeys(ARRAYS, 0)
    root = zarr.create_group(str(path), attributes={"format": FORMAT, "version": VERSION, "committed": committed})
    for group, arrays in ARRAYS.items():
        for name, dtype in arrays.items():
            attributes: dict[str, Any] = {"units": "s"} if name in ("time", "arrival") else {}
            zarr_store.create(root, f"{group}/{name}", (0,), dtype, [group], chunks=(CHUNKS[group],), **attributes)


def _opened(path: Path) -> zarr.Group:
    """A stream, opened for reading; raises UserError if there is none."""
    group = zarr_store.open_group(path, "", FORMAT)
    if not isinstance(group.attrs.get("committed"), dict):
        raise UserError(f"{path}: attribute committed is missing; {zarr_store.REMEDY}.")
    return group


def read(path: Path) -> Stream:
    """Committed content of a stream; raises UserError if there is none, or it is damaged."""
    group = _opened(path)
    committed: Any = group.attrs["committed"]
    rules: Any = group.attrs.get("rules", {})

    def values(name: str) -> Any:
        count = int(committed[name.split("/")[0]])
        stored = zarr_store.array(group, name, ["n"], "fiuTUO", str(path))
        if stored.shape[0] < count:
            raise UserError(f"{path}: {name} has {stored.shape[0]} values, {count} were written; {zarr_store.REMEDY}.")
        return zarr_store.read(stored, slice(count))

    def rows(kind: str, cls: type) -> list[Any]:
        columns = [values(f"{kind}/{name}").tolist() for name in ARRAYS[kind]]
        return [cls(**dict(zip(ARRAYS[kind], each, strict=True))) for each in zip(*columns, strict=True)]

    return Stream(values("spike/time"), values("spike/unit"), rows("marker", Marker), rows("unit", Unit), rows("trial", TrialRow), rules)
