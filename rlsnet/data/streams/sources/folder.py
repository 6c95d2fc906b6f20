"""A folder of .npz files that grows while an experiment runs, each with the spikes and markers since the file before.

    spike_times [n] s, spike_clusters [n] whole numbers or texts (the keys of the units)
    unit_keys [U] texts, optional: spike_clusters are then indices into it
    marker_times [k] s, marker_names [k] texts, marker_values [k] texts: optional, values also beside names

Files are read once, in the order of their names, those that exist at the start first; a new file needs a name after those before. Each
should appear complete: written under another name and then renamed. One that cannot be read is tried again for `PATIENCE_S`. An empty file
named END says that no more will come. All times are on one clock. A row that cannot be used is left out and counted; a file whose arrays
do not fit together is left out.
"""

from __future__ import annotations

import os
import time
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rlsnet.data.streams.messages import Batch, Unit
from rlsnet.data.streams.sources.incoming import LONGEST_VALUE, MOST_UNITS, Incoming, Refused, checked_text
from rlsnet.errors import UserError, first_line, os_error
from rlsnet.io import npz_files

END = "END"  # name of the file that ends the source
PATIENCE_S = 5.0  # a file that cannot be read may still be written
INTERVAL_S = 0.1  # between two looks at the folder
MOST_IN_BATCH = 1_000_000  # spikes; further files are left to the next batch
INCOMPLETE = (OSError, EOFError, zipfile.BadZipFile, zlib.error)  # errors of a file that is still written
ARRAYS = ("spike_times", "spike_clusters", "unit_keys", "marker_times", "marker_names", "marker_values")


class FolderSource:
    """A folder of .npz files that grows; see `Source`."""

    def __init__(self, path: Path, position: str = ""):
        """Goes on after the file with the name `position`; raises UserError if the folder cannot be read."""
        self.name = f"folder {path}"
        self._path = path
        self._incoming = Incoming()
        self.units: list[Unit] = self._incoming.units
        self.position = position  # name of the last file that was read
        self._tried_since: float | None = None  # when the first attempt at the next file was made
        self._problem = ""
        try:
            self._seen = {name for name in os.listdir(path) if name <= position}  # files that were read, or come too late
        except OSError as error:
            raise UserError(os_error(error)) from error

    def read(self, timeout: float) -> Batch | None:
        """See `Source`."""
        until = time.monotonic() + timeout
        while True:
            ended = (self._path / END).exists()  # before the listing: files that were written before END are in it
            waiting = self._waiting()
            spikes, taken = 0, 0
            for name in waiting:
                found = self._take(name)
                if found is None:
                    break
                spikes, taken = spikes + found, taken + 1
                if spikes > MOST_IN_BATCH:
                    break
            if not waiting and ended and not self._problem:
                return None
            if taken or time.monotonic() >= until:
                return self._incoming.batch()
            time.sleep(min(INTERVAL_S, max(0.0, until - time.monotonic())))

    def _waiting(self) -> list[str]:
        """Names of the files that were not read yet, in order; one that comes too late is counted as rejected."""
        try:
            names = os.listdir(self._path)
        except OSError as error:
            self._problem = f"{self.name}: {os_error(error)}"
            return []
        self._problem = ""
        new = sorted(name for name in names if name.endswith(".npz") and not name.startswith(".") and name not in self._seen)
        for name in new:
            if name <= self.position:
                self._incoming.reject(f"{name}: {self.position} was read before it; expected a name after that")
                self._seen.add(name)
        return [name for name in new if name > self.position]

    def _take(self, name: str) -> int | None:
        """Number of spikes of a file, which are added; None: it cannot be read yet."""
        try:
            arrays = _arrays(self._path / name)
            spikes = self._add(arrays)
        except INCOMPLETE as error:
            self._tried_since = self._tried_since or time.monotonic()
            if time.monotonic() - self._tried_since < PATIENCE_S:
                return None
            self._incoming.reject(f"{name} cannot be read: {first_line(error)}")
            spikes = 0
        except Exception as error:  # whatever NumPy says about a file that anyone may have written
            self._incoming.reject(f"{name}: {first_line(error)}")
            spikes = 0
        self._seen.add(name)
        self.position, self._tried_since = name, None
        return spikes

    def _add(self, arrays: Mapping[str, np.ndarray]) -> int:
        """Adds the content of a file and returns its number of spikes; raises Refused if its arrays do not fit together."""
        times, keys, codes = _spikes(arrays)
        markers = _markers(arrays)
        self._incoming.spikes(times, self._incoming.unit_indices(keys, codes))
        for moment, name, value in zip(*markers, strict=True):
            self._add_marker(float(moment), name, value)
        reached = np.concatenate([times, markers[0]])
        reached = reached[np.isfinite(reached)]
        if len(reached):
            self._incoming.reached(float(reached.max()))
        return len(times)

    def _add_marker(self, moment: float, name: object, value: object) -> None:
        """Adds a marker, or counts it as rejected."""
        try:
            text = checked_text(name, "name of a marker")
            if not text:
                raise Refused("name of a marker is empty")
            self._incoming.marker(moment, text, checked_text(value, "value of a marker", LONGEST_VALUE))
        except Refused as refused:
            self._incoming.reject(refused)

    def problem(self) -> str:
        """See `Source`."""
        return self._problem or ("" if self._incoming.received else f"{self.name}: no file with spikes or markers has appeared yet.")

    def close(self) -> None:
        """See `Source`."""


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a file that are known here, never by pickle; raises Refused or an error of NumPy if it cannot be read."""
    if not path.is_file():
        raise Refused("is no regular file; expected one")
    try:
        npz_files.check_npz(path)
    except UserError as error:
        raise Refused(str(error)) from error
    with np.load(path, allow_pickle=False) as file:
        return {name: np.asarray(file[name]) for name in ARRAYS if name in file.files}


def _vector(arrays: Mapping[str, np.ndarray], name: str, kinds: str, expected: str) -> np.ndarray:
    """A vector of a file, empty if it has none; raises Refused if it has another shape or type (NumPy's letters `kinds`)."""
    values = arrays.get(name, np.zeros(0))
    if values.ndim != 1 or (values.dtype.kind not in kinds and values.size):
        raise Refused(f"{name} is {values.dtype} {list(values.shape)}; expected a vector of {expected}")
    return values


def _spikes(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, list[object], np.ndarray]:
    """(times [n] s, keys of units [U], index [n] into them) of a file; raises Refused if they do not fit together."""
    times = _vector(arrays, "spike_times", "fiu", "s").astype(np.float64)
    clusters = _vector(arrays, "spike_clusters", "iuUS", "whole numbers or texts")
    if len(times) != len(clusters):
        raise Refused(f"has {len(times):,} spike_times and {len(clusters):,} spike_clusters; expected as many")
    found, codes = np.unique(clusters, return_inverse=True)
    keys: list[object] = found.tolist()
    if len(keys) > MOST_UNITS:
        raise Refused(f"has {len(keys):,} units; expected at most {MOST_UNITS:,}")
    if "unit_keys" in arrays and keys:
        names = _vector(arrays, "unit_keys", "US", "texts").tolist()
        if clusters.dtype.kind not in "iu" or found[0] < 0 or found[-1] >= len(names):
            raise Refused(f"has spike_clusters from {keys[0]} to {keys[-1]}; expected indices into its {len(names):,} unit_keys")
        keys = [names[int(cluster)] for cluster in found]
    return times, keys, codes


def _markers(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, list[object], list[object]]:
    """(times [k] s, names [k], values [k]) of a file; raises Refused if they do not fit together."""
    times = _vector(arrays, "marker_times", "fiu", "s").astype(np.float64)
    names = _vector(arrays, "marker_names", "US", "texts").tolist()
    values = _vector(arrays, "marker_values", "US", "texts").tolist() if "marker_values" in arrays else [""] * len(names)
    if not len(times) == len(names) == len(values):
        raise Refused(
            f"has {len(times):,} marker_times, {len(names):,} marker_names and {len(values):,} marker_values; expected as many of each"
        )
    return times, names, values
