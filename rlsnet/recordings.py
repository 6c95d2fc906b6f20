"""Recordings: a recording.zarr with `rate` [C, M, N] in Hz, or `current` in threshold units, read by chunks of units.

NaN is what is not known and not trained: whole units, or single bins. Attributes: bin_ms, and a source in words.
Optional: `condition` [C] names, `time` [M] in s, columns `unit/*` [N].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import zarr

from rlsnet import rng, zarrio
from rlsnet.config import Config, TrialConfig, UserError

FORMAT = "rlsnet-recording"
CHUNK_UNITS = 4096


@dataclasses.dataclass(frozen=True)
class Recording:
    """An open recording.

    path: the store.
    kind: what was recorded, rate or current.
    values: [C, M, N] float on disk, Hz or threshold units; NaN is not known.
    bin_ms: length of a bin.
    source: where it comes from, in words.
    conditions: [C] their names.
    """

    path: Path
    kind: str
    values: zarr.Array
    bin_ms: float
    source: str
    conditions: tuple[str, ...]

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

    def stream(self, units: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """Blocks [C, M, n] float64 of consecutive units (of those chosen), each checked: not infinite and, for rates, not negative."""
        for part in zarrio.chunks(self.values, along=2):
            mine = np.arange(part.start, part.stop)
            if units is not None:
                mine = units[(units >= part.start) & (units < part.stop)]
            if not len(mine):
                continue
            block = zarrio.read(self.values, (slice(None), slice(None), part)).astype(np.float64)
            if units is not None:
                block = block[:, :, mine - part.start]
            rate = self.kind == "rate"
            bad = np.isinf(block) | (block < 0) if rate else np.isinf(block)
            if bad.any():
                c, m, u = (int(i[0]) for i in np.nonzero(bad))
                right = "a finite rate in Hz, at least 0," if rate else "a finite current"
                where = f"{self.kind}[{c}, {m}, {mine[u]}] (condition, bin, unit)"
                raise UserError(f"{self.path}: {where} is {block[c, m, u]}; should be {right} or NaN, not to train it.")
            yield block


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
    return Recording(Path(path), wanted, values, float(bin_ms), str(group.attrs.get("source", "unknown")), tuple(names))


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
    return recording
