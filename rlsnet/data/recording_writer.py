"""Writing of a recording.zarr, a few units at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from rlsnet.data import recordings
from rlsnet.io import atomic, zarr_store

LONG_NAMES = {"rate_half": "firing rate of odd and of even trials", "rate": "trial-averaged firing rate", "current": "current"}


class Writer:
    """Recording to which units are appended, a few or many at a time; they are written in complete chunks.

    Args:
      root: the new store.
      kind: rate or current.
      conditions: [C] names.
      time: [M] s, centres of the bins.
      halves: whether `append` also receives the rates of odd and of even trials.
      event: name of the event at time 0, or "".
    """

    def __init__(self, root: zarr.Group, kind: str, conditions: Sequence[str], time: np.ndarray, halves: bool = False, event: str = ""):
        self.root, self.kind, self.n_units = root, kind, 0
        self.shape = (len(conditions), len(time))
        self.chunk = int(min(recordings.CHUNK_UNITS, max(1, zarr_store.CHUNK_BYTES // (4 * len(conditions) * len(time)))))
        self.pending: dict[str, list[np.ndarray]] = {kind: [], **({"rate_half": []} if halves else {})}
        self.columns: dict[str, list[np.ndarray]] = {}
        self.arrays: dict[str, zarr.Array] = {}
        zarr_store.write(root, "condition", np.array(conditions, dtype=str), ["condition"])
        zarr_store.write(
            root, "time", np.asarray(time, np.float64), ["time"], units="s", long_name=f"time from {event}" if event else "time"
        )
        if halves:
            zarr_store.write(root, "half", np.array(recordings.HALVES), ["half"])

    def append(self, values: np.ndarray, columns: Mapping[str, np.ndarray], half: np.ndarray | None = None) -> None:
        """Adds units.

        Args:
          values: [C, M, n] Hz, or threshold units.
          columns: [n, ...] columns of the units, the same names in each call.
          half: [2, C, M, n] Hz, rates of odd and of even trials.
        """
        for name, block in ((self.kind, values), ("rate_half", half)):
            if block is not None:
                self.pending[name].append(np.asarray(block, np.float32))
        for name, column in columns.items():
            self.columns.setdefault(name, []).append(np.asarray(column))
        self.n_units += values.shape[2]
        if self.n_units - self._n_written() >= self.chunk:
            self._flush(self.n_units // self.chunk * self.chunk)

    def finish(self, **attributes: Any) -> None:
        """Writes the last units, the columns of all units, and attributes of the store."""
        self._flush(self.n_units)
        for name, blocks in self.columns.items():
            column = np.concatenate([block.astype(object) if block.dtype.kind in "OU" else block for block in blocks])
            dims = ["unit", "condition"][: column.ndim]
            units = {"units": "Hz"} if name.endswith("_rate") else {}
            zarr_store.write(self.root, f"unit/{name}", column.astype(str) if column.dtype.kind == "O" else column, dims, **units)
        self.root.attrs.update({"format": recordings.FORMAT, "version": recordings.VERSION, **attributes})

    def _n_written(self) -> int:
        """Number of units on the disk."""
        return self.arrays[self.kind].shape[2] if self.kind in self.arrays else 0

    def _flush(self, stop: int) -> None:
        """Writes the pending units with numbers below `stop`."""
        start = self._n_written()
        if stop == start:
            return
        for name, blocks in self.pending.items():
            now, later = np.split(np.concatenate(blocks, axis=-1), [stop - start], axis=-1)
            self.pending[name] = [later.copy()]
            if name not in self.arrays:
                self.arrays[name] = self._create(name, min(self.chunk, stop))
            stored = self.arrays[name]
            stored.resize((*stored.shape[:-1], stop))
            stored[..., start:stop] = now

    def _create(self, name: str, chunk: int) -> zarr.Array:
        """New array without units; `chunk` units in each chunk."""
        halves = [2] if name == "rate_half" else []
        return zarr_store.create(
            self.root,
            name,
            (*halves, *self.shape, 0),
            "float32",
            [*("half" for _ in halves), "condition", "time", "unit"],
            chunks=(*(1 for _ in halves), *self.shape, chunk),
            units="threshold" if name == "current" else "Hz",
            long_name=LONG_NAMES[name],
        )


@contextlib.contextmanager
def writing(
    path: Path, kind: str, conditions: Sequence[str], time: np.ndarray, halves: bool = False, event: str = "", **attributes: Any
) -> Iterator[Writer]:
    """A `Writer` of a new recording.zarr that appears complete at its path, or not at all.

    Args:
      path: of the recording.
      kind: as for `Writer`, like conditions, time, halves and event.
      conditions: [C] names.
      time: [M] s.
      halves: whether rates of odd and of even trials are written.
      event: name of the event at time 0, or "".
      attributes: of the store.
    """
    with atomic.replacing(path) as temporary:
        writer = Writer(zarr.create_group(str(temporary)), kind, conditions, time, halves, event)
        yield writer
        writer.finish(**attributes)
        zarr_store.seal(temporary)
