"""Recordings: a recording.zarr with `rate` [C, M, N] in Hz, or `current` in threshold units, read by chunks of units.

NaN is what is not known and not trained: whole units, or single bins. Attributes: bin_ms, and a source in words.
Optional: `condition` [C] names, `time` [M] in s, columns `unit/*` [N], and `rate_half` [2, C, M, N], the rates of each unit's
odd-numbered and of its even-numbered trials.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from rlsnet import zarrio
from rlsnet.config import Config, TrialConfig, UserError

FORMAT = "rlsnet-recording"
VERSION = 1
CHUNK_UNITS = 4096
HALVES = ("odd", "even")  # of the trials, in the order of rate_half


@dataclasses.dataclass(frozen=True)
class Recording:
    """An open recording.

    path: the store.
    kind: what was recorded, rate or current.
    values: [C, M, N] float on disk, Hz or threshold units; NaN is not known.
    bin_ms: length of a bin.
    source: where it comes from, in words.
    conditions: [C] their names.
    halves: [2, C, M, N] Hz, rates of odd- and of even-numbered trials; or None.
    half: which of these is trained on, odd or even; None: all trials.
    """

    path: Path
    kind: str
    values: zarr.Array
    bin_ms: float
    source: str
    conditions: tuple[str, ...]
    halves: zarr.Array | None = None
    half: str | None = None

    @property
    def n_conditions(self) -> int:
        """C."""
        return self.values.shape[0]

    @property
    def n_units(self) -> int:
        """N."""
        return self.values.shape[2]

    def choose(self, n: int, seed: int) -> np.ndarray | None:
        """[n] the units that a network of n neurons takes, in order: all (None), or a random subset."""
        if n > self.n_units:
            raise UserError(f"network.n_neurons={n}: expected at most {self.n_units}, the units of {self.path}; null takes them all.")
        from rlsnet import rng

        return None if n == self.n_units else rng.subset(rng.key(seed, rng.Purpose.SUBSET), n, self.n_units)

    def column(self, name: str) -> np.ndarray | None:
        """[N] unit/NAME, such as region or session; None where the recording does not have it."""
        group = zarr.open_group(str(self.path), mode="r")
        if f"unit/{name}" not in group:
            return None
        stored = zarrio.array(group, f"unit/{name}", [self.n_units], "TUOiuf", str(self.path))
        return zarrio.read(stored) if stored.dtype.kind in "iuf" else zarrio.texts(stored)

    def training_on(self, half: str | None) -> Recording:
        """This recording with `stream` giving the rates of half of the trials; raises UserError where it does not have them."""
        if half is not None and self.halves is None:
            raise UserError(f"recording.half={half}: {self.path} has no array rate_half; expected null, to train on all trials.")
        return dataclasses.replace(self, half=half)

    @property
    def fingerprint(self) -> str:
        """A hash of what training may see of the first units, to know a recording again under another path."""
        one = slice(0, self.values.chunks[2])
        digest = hashlib.sha256(str(self.values.shape).encode())
        digest.update(zarrio.read(self.values, (slice(None), slice(None), one)).tobytes())
        if self.halves is not None:
            digest.update(zarrio.read(self.halves, (slice(None), slice(None), slice(None), one)).tobytes())
        return digest.hexdigest()[:16]

    def stream(self, units: np.ndarray | None = None, half: str | None = None) -> Iterator[np.ndarray]:
        """Blocks [C, M, n] float64 of consecutive units, each checked: not infinite and, for rates, not negative.

        Args:
          units: which, in ascending order; None for all.
          half: rates of odd or even trials, or of all; None for what is trained on.
        """
        half = half or self.half or "all"
        stored, before = (self.values, ()) if half == "all" else (self.training_on(half).halves, (HALVES.index(half),))
        assert stored is not None
        for part in zarrio.chunks(stored, along=stored.ndim - 1):
            mine = np.arange(part.start, part.stop)
            if units is not None:
                mine = units[(units >= part.start) & (units < part.stop)]
            if not len(mine):
                continue
            block = zarrio.read(stored, (*before, slice(None), slice(None), part)).astype(np.float64)
            if units is not None:
                block = block[:, :, mine - part.start]
            rate = self.kind == "rate"
            bad = np.isinf(block) | (block < 0) if rate else np.isinf(block)
            if bad.any():
                c, m, u = (int(i[0]) for i in np.nonzero(bad))
                right = "a finite rate in Hz, at least 0," if rate else "a finite current"
                name = self.kind if half == "all" else "rate_half"
                where = f"{name}[{', '.join(map(str, (*before, c, m, mine[u])))}] ({'half, ' * len(before)}condition, bin, unit)"
                raise UserError(f"{self.path}: {where} is {block[c, m, u]}; expected {right} or NaN, not to train it.")
            yield block

    def read(self, units: np.ndarray | None = None, half: str | None = None) -> np.ndarray:
        """[C, M, n] float32, all that `stream` gives."""
        return np.concatenate([block.astype(np.float32) for block in self.stream(units, half)], axis=2)


TARGETS = {"rate": "recording", "current": "currents"}  # what can be recorded, and the target made of it


def open_recording(path: str | Path, wanted: str = "rate") -> Recording:
    """Opens a recording.zarr of rates or currents (`wanted`: rate or current); raises UserError where it is not one."""
    group = zarrio.open_group(path, "recording.path", FORMAT)
    for other in TARGETS.keys() - {wanted}:
        if other in group and wanted not in group:
            raise UserError(f"{path}: holds {other}s, no array {wanted}; expected one, or be used with target={TARGETS[other]}.")
    values = zarrio.array(group, wanted, ["C", "M", "N"], "fiu", str(path))
    bin_ms = group.attrs.get("bin_ms", values.attrs.get("bin_ms"))
    if not isinstance(bin_ms, int | float) or bin_ms <= 0:
        raise UserError(f"{path}: attribute bin_ms is {bin_ms!r}; expected the length of a bin in ms, such as 20.")
    if 0 in values.shape:
        raise UserError(f"{path}: {wanted} has shape {list(values.shape)}; should hold at least one condition, bin and unit.")
    names = [str(c) for c in range(values.shape[0])]
    if "condition" in group:
        names = [str(c) for c in zarrio.read(zarrio.array(group, "condition", [values.shape[0]], "TUOiuf", str(path)))]
    halves = None
    if wanted == "rate" and "rate_half" in group:
        halves = zarrio.array(group, "rate_half", [len(HALVES), *values.shape], "fiu", str(path))
        if "half" in group and (order := tuple(map(str, zarrio.read(group["half"])))) != HALVES:
            raise UserError(f"{path}: half is {', '.join(order)}; expected {', '.join(HALVES)}, the order of rate_half.")
    return Recording(Path(path), wanted, values, float(bin_ms), str(group.attrs.get("source", "unknown")), tuple(names), halves)


def check_bins(recording: Recording, trial: TrialConfig) -> None:
    """Whether the bins of a recording are the learning points of a trial; raises UserError."""
    bins, length = recording.values.shape[1], recording.bin_ms
    if abs(length - trial.learn_every) > 1e-9:
        raise UserError(f"{recording.path}: has bins of {length:g} ms; trial.learn_every={trial.learn_every:g} should be equal to that.")
    if bins != trial.n_points:
        raise UserError(
            f"{recording.path}: has {bins} bins of {length:g} ms; trial.duration={trial.duration:g} ms makes {trial.n_points}, so it"
            f" expected {bins * length:g}."
        )


def for_config(config: Config, say: Callable[[str], None], tell: Callable[[int, int], None]) -> Recording:
    """The recording that an experiment names, of the kind that its target wants, or the synthetic stand-in, made on first use.

    Args:
      config: the experiment.
      say: takes a sentence for the user.
      tell: called with (done, total) units while the stand-in is made.
    """
    wanted = config.target.recorded or "rate"
    if config.recording.path is not None:
        recording = open_recording(config.recording.path, wanted)
    elif wanted != "rate":
        raise UserError(f"recording.path=null: expected a recording.zarr with {wanted}s for target={config.target.name}.")
    else:
        from rlsnet import synthetic

        path = zarrio.cache_dir() / f"synthetic-decision-v{synthetic.VERSION}.zarr"
        if not path.exists():
            say(f"No recording.path given: making SYNTHETIC data of {synthetic.N_UNITS:,} units, once, in {path}.")
            synthetic.make(path, synthetic.N_UNITS, tell=tell)
        say(f"The targets are SYNTHETIC data, not a recording: {path}. Give your own with recording.path=...")
        recording = open_recording(path)
    check_bins(recording, config.trial)
    return recording.training_on(config.recording.half)


class Writer:
    """A recording in the making: units are appended, a few or many at a time, and go to the disk in whole chunks.

    Args:
      root: the new store.
      kind: rate or current.
      conditions: [C] names.
      time: [M] s, the middle of each bin.
      halves: whether `append` gets the rates of odd and of even trials too.
      what: is at time 0, in words.
    """

    def __init__(self, root: zarr.Group, kind: str, conditions: Sequence[str], time: np.ndarray, halves: bool = False, what: str = ""):
        self.root, self.kind, self.n_units = root, kind, 0
        self.shape = (len(conditions), len(time))
        self.chunk = int(min(CHUNK_UNITS, max(1, zarrio.CHUNK_BYTES // (4 * len(conditions) * len(time)))))
        self.waiting: dict[str, list[np.ndarray]] = {kind: [], **({"rate_half": []} if halves else {})}
        self.columns: dict[str, list[np.ndarray]] = {}
        zarrio.write(root, "condition", np.array(conditions, dtype=str), ["condition"])
        zarrio.write(root, "time", np.asarray(time, np.float64), ["time"], units="s", long_name=f"time from {what}" if what else "time")
        if halves:
            zarrio.write(root, "half", np.array(HALVES), ["half"])

    def append(self, values: np.ndarray, columns: Mapping[str, np.ndarray], half: np.ndarray | None = None) -> None:
        """Adds units: values [C, M, n], columns [n, ...] by name (the same ones every time), half [2, C, M, n]."""
        for name, part in ((self.kind, values), ("rate_half", half)):
            if part is not None:
                self.waiting[name].append(np.asarray(part, np.float32))
        for name, column in columns.items():
            self.columns.setdefault(name, []).append(np.asarray(column))
        self.n_units += values.shape[2]
        if self.n_units - self._written() >= self.chunk:
            self._flush(self.n_units // self.chunk * self.chunk)

    def finish(self, **attributes: Any) -> None:
        """Writes what is left, the columns and the attributes."""
        self._flush(self.n_units)
        for name, parts in self.columns.items():
            column = np.concatenate([part.astype(object) if part.dtype.kind in "OU" else part for part in parts])
            dims = ["unit", "condition"][: column.ndim]
            units = {"units": "Hz"} if name.endswith("_rate") else {}
            zarrio.write(self.root, f"unit/{name}", column.astype(str) if column.dtype.kind == "O" else column, dims, **units)
        self.root.attrs.update({"format": FORMAT, "version": VERSION, **attributes})

    def _written(self) -> int:
        return self.root[self.kind].shape[2] if self.kind in self.root else 0

    def _flush(self, stop: int) -> None:
        """Writes the units waiting, up to number `stop`."""
        start = self._written()
        if stop == start:
            return
        for name, parts in self.waiting.items():
            whole = np.concatenate(parts, axis=-1)
            taken, rest = np.split(whole, [stop - start], axis=-1)
            self.waiting[name] = [rest.copy()]
            stored = self.root.get(name) or self._create(name, min(self.chunk, stop))
            stored.resize((*stored.shape[:-1], stop))
            stored[..., start:stop] = taken

    def _create(self, name: str, chunk: int) -> zarr.Array:
        """An array of no units yet."""
        halves = [2] if name == "rate_half" else []
        what = {"rate_half": "firing rate of odd and of even trials", "rate": "trial-averaged firing rate", "current": "current"}
        return self.root.create_array(
            name,
            shape=(*halves, *self.shape, 0),
            dtype="float32",
            chunks=(*(1 for _ in halves), *self.shape, chunk),
            dimension_names=[*("half" for _ in halves), "condition", "time", "unit"],
            attributes={"units": "threshold" if name == "current" else "Hz", "long_name": what[name]},
        )


@contextlib.contextmanager
def writing(
    path: Path, kind: str, conditions: Sequence[str], time: np.ndarray, halves: bool = False, what: str = "", **attributes: Any
) -> Iterator[Writer]:
    """A Writer of a new recording.zarr, whole or not at all; arguments as `Writer` has them."""
    with zarrio.replacing(path) as temporary:
        writer = Writer(zarr.create_group(str(temporary)), kind, conditions, time, halves, what)
        yield writer
        writer.finish(**attributes)
