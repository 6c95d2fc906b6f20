"""Reading of a recording.zarr: `rate` [C, M, N] in Hz, or `current` in threshold units, in chunks of units.

NaN is unknown and not trained: units, or single bins. Attributes: bin_ms, source (a description) and, where the rates were
smoothed over time, smoothing: the weights of the kernel. Optional arrays:
`condition` [C] names, `time` [M] in s, columns `unit/*` [N], and `rate_half` [2, C, M, N], the rates of the odd-numbered and
of the even-numbered trials of each unit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from rlsnet.config.quoting import typed_command
from rlsnet.config.schema import TrialConfig
from rlsnet.errors import UserError, package
from rlsnet.io import zarr_store
from rlsnet.io.formatting import counted
from rlsnet.io.precision import LARGEST

FORMAT = "rlsnet-recording"
PERTURBED = re.compile("photostim|photoinhib|opto|laser|silenc|inactivat|perturb", re.IGNORECASE)  # in the name of a condition
VERSION = 1
CHUNK_UNITS = 4096
FEW_INPUTS = 96  # plastic inputs of the experiments; a recording that allows fewer names their number
HALVES = ("odd", "even")  # halves of the trials, in the order of rate_half


@dataclasses.dataclass(frozen=True)
class Recording:
    """Open recording of N units in C conditions and M bins.

    path: of the store.
    group: the store.
    kind: rate or current.
    values: [C, M, N] float on the disk, Hz or threshold units; NaN: unknown.
    bin_ms: length of a bin.
    source: description of the data.
    conditions: [C] names.
    halves: [2, C, M, N] Hz, rates of odd-numbered and of even-numbered trials, or None.
    half: half of the trials that is trained on, odd or even; None: all trials.
    smoothing: [2 P + 1] weights of the kernel that smoothed the rates, as of `trial_average.smoothing_kernel`; (): none, or unknown.
    """

    path: Path
    group: zarr.Group
    kind: str
    values: zarr.Array
    bin_ms: float
    source: str
    conditions: tuple[str, ...]
    halves: zarr.Array | None = None
    half: str | None = None
    smoothing: tuple[float, ...] = ()

    def __repr__(self) -> str:
        names, bins = ", ".join(self.conditions[:6]) + (", ..." if self.n_conditions > 6 else ""), self.values.shape[1]
        start, end = self.time[[0, -1]] + np.array([-1, 1]) * self.bin_ms / 2000
        shape = f"{self.kind} of {counted(self.n_units, 'unit')}, {counted(self.n_conditions, 'condition')} ({names})"
        half = "" if self.half is None else f", trained on {self.half} trials"
        return f"<Recording {self.path}: {shape}, {bins} bins of {self.bin_ms:g} ms, {start:g} to {end:g} s{half}>"

    @property
    def time(self) -> np.ndarray:
        """[M] s, centres of the bins; from the start of the first one where the recording has no times."""
        bins = self.values.shape[1]
        if "time" in self.group:
            return zarr_store.read(zarr_store.array(self.group, "time", [bins], "fiu", str(self.path))).astype(np.float64)
        return (np.arange(bins) + 0.5) * self.bin_ms / 1000

    def settings(self) -> list[str]:
        """Settings that train a network on the recording, for `rlsnet.compose` or the command line: path, times and held-out trials.

        A recording of few units, or with few of one cell class, also needs fewer plastic inputs than an experiment for many neurons has;
        half of them are from each class. Conditions whose names say that their trials were perturbed are left out of training.
        """
        from rlsnet.config.differences import typed
        from rlsnet.config.quoting import typed_setting

        found = ["target=currents"] if self.kind == "current" else []
        found += [typed_setting("recording.path", self.path), f"trial.learn_every={self.bin_ms:.12g}"]
        found += [f"trial.duration={self.values.shape[1] * self.bin_ms:.12g}"]
        found += ["recording.half=odd"] if self.halves is not None else []
        classes = self.column("cell_class")
        known = [0, 0] if classes is None else [int(np.sum(classes == name)) for name in ("excitatory", "inhibitory")]
        fewest = min(known) + (self.n_units - sum(known)) // 4  # of the rarer class; other units have a class drawn at random
        most = max(2, 2 * min(self.n_units // 4, fewest))
        found += [f"train.conditions={typed(self.unperturbed)}"] if len(self.unperturbed) < self.n_conditions else []
        return found + ([f"plastic.n_inputs={most}"] if most < FEW_INPUTS else [])

    @property
    def unperturbed(self) -> list[str]:
        """Names of the conditions, without those that name a perturbation, such as left_photostim; all where none or all do."""
        plain = [name for name in self.conditions if not PERTURBED.search(name)]
        return plain or list(self.conditions)

    def to_xarray(self) -> Any:
        """The recording as an `xarray.Dataset`, read from the disk where it is used; columns of the units are coordinates."""
        xarray = package("xarray", "notebook", "to_xarray")
        path = str(self.path)
        opened = xarray.open_zarr(path, consolidated=False, chunks=None)
        opened.attrs = {name: value for name, value in opened.attrs.items() if name not in (zarr_store.CHUNKS, zarr_store.SEAL)}
        own = [name for name in self.columns() if self.group[f"unit/{name}"].shape == (self.n_units,)]
        columns: dict[str, Any] = {name: ("unit", self.column(name)) for name in own}
        return opened.assign_coords(condition=list(self.conditions), **({"half": list(HALVES)} if "half" in opened.dims else {}), **columns)

    @property
    def n_conditions(self) -> int:
        """Number of conditions C."""
        return self.values.shape[0]

    @property
    def n_units(self) -> int:
        """Number of units N."""
        return self.values.shape[2]

    def choose(self, n: int, seed: int) -> np.ndarray | None:
        """Units for a network of n neurons, in ascending order: [n] a random subset, or None for all.

        Raises:
          UserError: n is greater than the number of units.
        """
        if n > self.n_units:
            raise UserError(f"network.n_neurons={n}: expected at most {self.n_units}, the units of {self.path}; null takes them all.")
        from rlsnet.model import rng

        return None if n == self.n_units else rng.subset(rng.key(seed, rng.Purpose.SUBSET), n, self.n_units)

    def column(self, name: str) -> np.ndarray | None:
        """Column unit/NAME [N], such as region or session, or None if the recording does not have it."""
        if f"unit/{name}" not in self.group:
            return None
        stored = zarr_store.array(self.group, f"unit/{name}", [self.n_units], "TUOiufb", str(self.path))
        return zarr_store.read(stored) if stored.dtype.kind in "iufb" else zarr_store.texts(stored)

    def columns(self) -> list[str]:
        """Names of all columns unit/NAME."""
        return sorted(self.group["unit"].keys()) if "unit" in self.group else []

    def with_half(self, half: str | None) -> Recording:
        """The same recording, with `stream` and `read` giving the rates of one half of the trials: odd, even or, with None, all.

        Raises:
          UserError: the recording has no rates of halves.
        """
        if half is not None and self.halves is None:
            raise UserError(f"recording.half={half}: {self.path} has no array rate_half; expected null, which trains on all trials.")
        return dataclasses.replace(self, half=half)

    @property
    def fingerprint(self) -> str:
        """Hash of the shape and of the values of the first units; it identifies a recording that was moved."""
        first_chunk = slice(0, self.values.chunks[2])
        digest = hashlib.sha256(str(self.values.shape).encode())
        digest.update(zarr_store.read(self.values, (slice(None), slice(None), first_chunk)).tobytes())
        if self.halves is not None:
            digest.update(zarr_store.read(self.halves, (slice(None), slice(None), slice(None), first_chunk)).tobytes())
        return digest.hexdigest()[:16]

    def stream(self, units: np.ndarray | None = None, half: str | None = None) -> Iterator[np.ndarray]:
        """Blocks [C, M, n] float64 of consecutive units, in Hz or threshold units.

        Args:
          units: numbers of the units in ascending order; None: all.
          half: odd, even or all trials; None: the half that is trained on.

        Raises:
          UserError: an infinite or huge value, or a negative rate.
        """
        half = half or self.half or "all"
        stored, before = (self.values, ()) if half == "all" else (self.with_half(half).halves, (HALVES.index(half),))
        assert stored is not None
        for part in zarr_store.chunks(stored, along=stored.ndim - 1):
            chosen = np.arange(part.start, part.stop)
            if units is not None:
                chosen = units[(units >= part.start) & (units < part.stop)]
            if not len(chosen):
                continue
            block = zarr_store.read(stored, (*before, slice(None), slice(None), part)).astype(np.float64)
            if units is not None:
                block = block[:, :, chosen - part.start]
            self._check_block(block, before, chosen)
            yield block

    def _check_block(self, block: np.ndarray, half: tuple[int, ...], units: np.ndarray) -> None:
        """Raises UserError where a block [C, M, n] of some units has no finite value, or a rate below 0; half: () for all trials."""
        rate = self.kind == "rate"
        bad = (np.abs(block) > LARGEST) | (rate & (block < 0))
        if bad.any():
            c, m, u = (int(i[0]) for i in np.nonzero(bad))
            expected = "a finite rate of at least 0 Hz" if rate else "a finite current"
            name = "rate_half" if half else self.kind
            where = f"{name}[{', '.join(map(str, (*half, c, m, units[u])))}] ({'half, ' * len(half)}condition, bin, unit)"
            raise UserError(f"{self.path}: {where} is {block[c, m, u]}; expected {expected}, or NaN for a bin that is not trained.")

    def read(self, units: np.ndarray | None = None, half: str | None = None) -> np.ndarray:
        """Values [C, M, n] float32 of units; arguments and errors as for `stream`."""
        return np.concatenate([block.astype(np.float32) for block in self.stream(units, half)], axis=2)


TARGETS = {"rate": "recording", "current": "currents"}  # kind of recording, and the target that uses it


def open_recording(path: str | Path, kind: str = "rate") -> Recording:
    """Opens a recording.zarr.

    Args:
      path: of the store.
      kind: of the values, rate or current.

    Raises:
      UserError: not a recording of this kind, or one with arrays of wrong shapes.
    """
    if Path(path).is_file():
        raise UserError(
            f"recording.path={path}: a file; expected a recording.zarr, which {typed_command('import', path, 'OUT.zarr')} makes."
        )
    group = zarr_store.open_group(path, "recording.path", FORMAT)
    for other in TARGETS.keys() - {kind}:
        if other in group and kind not in group:
            raise UserError(f"{path}: contains {other}s, but no array {kind}; expected that array, or target={TARGETS[other]}.")
    values = zarr_store.array(group, kind, ["C", "M", "N"], "fiu", str(path))
    bin_ms = group.attrs.get("bin_ms", values.attrs.get("bin_ms"))
    if not isinstance(bin_ms, int | float) or not 0 < bin_ms < np.inf:
        raise UserError(f"{path}: attribute bin_ms is {bin_ms!r}; expected the length of a bin in ms, such as 20.")
    if 0 in values.shape:
        raise UserError(f"{path}: {kind} has shape {list(values.shape)}; expected at least one condition, bin and unit.")
    names = [str(c) for c in range(values.shape[0])]
    if "condition" in group:
        names = [str(c) for c in zarr_store.read(zarr_store.array(group, "condition", [values.shape[0]], "TUOiuf", str(path)))]
    halves = None
    if kind == "rate" and "rate_half" in group:
        halves = zarr_store.array(group, "rate_half", [len(HALVES), *values.shape], "fiu", str(path))
        if "half" in group and (order := tuple(map(str, zarr_store.read(group["half"])))) != HALVES:
            raise UserError(f"{path}: half is {', '.join(order)}; expected {', '.join(HALVES)}, the order of rate_half.")
    source, kernel = str(group.attrs.get("source", "unknown")), _kernel(group.attrs.get("smoothing", []), path)
    return Recording(Path(path), group, kind, values, float(bin_ms), source, tuple(names), halves, smoothing=kernel)


def _kernel(weights: Any, path: str | Path) -> tuple[float, ...]:
    """The attribute `smoothing` of a recording; raises UserError unless it is a list of weights with a middle."""
    numbers = isinstance(weights, list) and all(isinstance(each, int | float) and 0 <= each < np.inf for each in weights)
    if not numbers or (weights and (len(weights) % 2 == 0 or weights[len(weights) // 2] == 0)):
        raise UserError(f"{path}: attribute smoothing is {weights!r}; expected an odd number of weights, that of lag 0 in the middle.")
    return tuple(map(float, weights))


def check_bins(recording: Recording, trial: TrialConfig) -> None:
    """Raises UserError unless the bins of a recording are the learning points of a trial."""
    bins, length = recording.values.shape[1], recording.bin_ms
    if abs(length - trial.learn_every) > 1e-9:
        raise UserError(f"{recording.path}: has bins of {length:g} ms, trial.learn_every is {trial.learn_every:g}; expected equal values.")
    if bins != trial.n_points:
        raise UserError(
            f"trial.duration={trial.duration:g}: makes {trial.n_points} bins, {recording.path} has {bins} of {length:g} ms;"
            f" expected {bins * length:g}."
        )
