"""Recordings: a recording.zarr with `rate` [C, M, N] in Hz, or `current` in threshold units, read by chunks of units.

NaN is what is not known and not trained: whole units, or single bins. Attributes: bin_ms, and a source in words.
Optional: `condition` [C] names, `time` [M] in s, columns `unit/*` [N], and `rate_half` [2, C, M, N], the rates of each unit's
odd-numbered and of its even-numbered trials.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import zarr

from rlsnet import rng, zarrio
from rlsnet.config import Config, TrialConfig, UserError

FORMAT = "rlsnet-recording"
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
            raise UserError(f"network.n_neurons={n}: should be at most {self.n_units}, the units of {self.path}; null takes them all.")
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
            raise UserError(f"recording.half={half}: {self.path} has no array rate_half; should be null, to train on all trials.")
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
                raise UserError(f"{self.path}: {where} is {block[c, m, u]}; should be {right} or NaN, not to train it.")
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
            raise UserError(f"{path}: holds {other}s, no array {wanted}; should have one, or be used with target={TARGETS[other]}.")
    values = zarrio.array(group, wanted, ["C", "M", "N"], "fiu", str(path))
    bin_ms = group.attrs.get("bin_ms", values.attrs.get("bin_ms"))
    if not isinstance(bin_ms, int | float) or bin_ms <= 0:
        raise UserError(f"{path}: attribute bin_ms is {bin_ms!r}; should be the length of a bin in ms, such as 20.")
    if 0 in values.shape:
        raise UserError(f"{path}: {wanted} has shape {list(values.shape)}; should hold at least one condition, bin and unit.")
    names = [str(c) for c in range(values.shape[0])]
    if "condition" in group:
        names = [str(c) for c in zarrio.read(zarrio.array(group, "condition", [values.shape[0]], "TUOiuf", str(path)))]
    halves = None
    if wanted == "rate" and "rate_half" in group:
        halves = zarrio.array(group, "rate_half", [len(HALVES), *values.shape], "fiu", str(path))
        if "half" in group and (order := tuple(map(str, zarrio.read(group["half"])))) != HALVES:
            raise UserError(f"{path}: half is {', '.join(order)}; should be {', '.join(HALVES)}, the order of rate_half.")
    return Recording(Path(path), wanted, values, float(bin_ms), str(group.attrs.get("source", "unknown")), tuple(names), halves)


def check_bins(recording: Recording, trial: TrialConfig) -> None:
    """Whether the bins of a recording are the learning points of a trial; raises UserError."""
    bins, length = recording.values.shape[1], recording.bin_ms
    if abs(length - trial.learn_every) > 1e-9:
        raise UserError(f"{recording.path}: has bins of {length:g} ms; trial.learn_every={trial.learn_every:g} should be equal to that.")
    if bins != trial.n_points:
        raise UserError(
            f"{recording.path}: has {bins} bins of {length:g} ms; trial.duration={trial.duration:g} ms makes {trial.n_points}, so it"
            f" should be {bins * length:g}."
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
        raise UserError(f"recording.path=null: should be a recording.zarr with {wanted}s for target={config.target.name}.")
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
