"""Spike counts of single trials in a recording.zarr: a group `trials/NUMBER` for each session, as its units share their trials.

Arrays of a group: `counts` [trial, time, unit] in chunks of units; `condition` [trial]; `trial` [trial], the row of the session's table;
`half` [trial, unit], 0 in an odd and 1 in an even trial of the unit, -1 where the trial does not count for it; `unit` [unit], the index
in the recording. A trial of two conditions is there twice. Counts are not smoothed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import zarr

from rlsnet.data.recordings import HALVES, Recording
from rlsnet.io import zarr_store

GROUP = "trials"


@dataclasses.dataclass(frozen=True)
class TrialCounts:
    """Trials T of a session, one condition after the other.

    counts: [T, M, U] uint8 or uint16, spikes.
    condition: [T] number of the condition.
    trial: [T] number of the trial in the session.
    half: [T, U] int8, 0 odd, 1 even, -1: the trial does not count for the unit.
    """

    counts: np.ndarray
    condition: np.ndarray
    trial: np.ndarray
    half: np.ndarray

    def of_units(self, units: np.ndarray) -> TrialCounts:
        """The same trials of some units, a mask or indices."""
        return dataclasses.replace(self, counts=self.counts[..., units], half=self.half[:, units])


def write(root: zarr.Group, trials: TrialCounts, session: str, units: np.ndarray) -> None:
    """Adds the counts of a session to a new recording; `units` [U] are the numbers of its units there."""
    group = root.create_group(f"{GROUP}/{len(list(_groups(root)))}", attributes={"session": session})
    zarr_store.write(group, "counts", trials.counts, ["trial", "time", "unit"], along=2, long_name="spikes in a bin")
    zarr_store.write(group, "half", trials.half, ["trial", "unit"], along=1, long_name="0: odd, 1: even, -1: does not count for the unit")
    zarr_store.write(group, "condition", trials.condition, ["trial"])
    zarr_store.write(group, "trial", trials.trial, ["trial"], long_name="row of the table of trials")
    zarr_store.write(group, "unit", units, ["unit"])


def copy(source: zarr.Group, target: zarr.Group, units: np.ndarray) -> None:
    """Copies the counts of some units, ascending numbers in `source`, to a recording that has these units alone."""
    for name, read, numbers in sessions(source):
        mine = np.isin(numbers, units)
        if mine.any():
            write(target, read().of_units(mine), name, np.searchsorted(units, numbers[mine]))


def sessions(root: zarr.Group) -> Iterator[tuple[str, Callable[[], TrialCounts], np.ndarray]]:
    """(name, function that reads the counts, [U] numbers of its units in the recording) of each session with counts of single trials."""

    def read(group: zarr.Group) -> TrialCounts:
        return TrialCounts(**{field.name: zarr_store.read(group[field.name]) for field in dataclasses.fields(TrialCounts)})

    for group in _groups(root):
        yield str(group.attrs["session"]), partial(read, group), zarr_store.read(group["unit"])


def summed(recording: Recording, units: np.ndarray, half: str | None) -> tuple[np.ndarray, np.ndarray] | None:
    """([C, M, n] spikes, [C, n] trials) of units, summed over odd, even or, with None, all trials; None where there are no counts.

    A unit without counts has no trials. Sessions are read in chunks of units.
    """
    root = recording.group
    if GROUP not in root:
        return None
    conditions, bins = recording.values.shape[:2]
    counts, trials = np.zeros((conditions, bins, len(units)), np.float32), np.zeros((conditions, len(units)), np.int64)
    for group in _groups(root):
        numbers, condition = zarr_store.read(group["unit"]), zarr_store.read(group["condition"])
        stored = zarr_store.array(group, "counts", [len(condition), bins, len(numbers)], "ui", f"{recording.path}/{group.path}")
        for part in zarr_store.chunks(stored, along=2):
            wanted = np.isin(numbers[part], units)
            if not wanted.any():
                continue
            place = np.searchsorted(units, numbers[part][wanted])
            which = zarr_store.read(group["half"], (slice(None), part))[:, wanted]
            member = which >= 0 if half is None else which == HALVES.index(half)
            block = zarr_store.read(stored, (slice(None), slice(None), part))[..., wanted]
            for c in range(conditions):
                mine = condition == c
                counts[c][:, place] = np.einsum("tmu,tu->mu", block[mine], member[mine], dtype=np.float32)
                trials[c, place] = member[mine].sum(axis=0)
    return counts, trials


def of_unit(recording: Recording, unit: int) -> TrialCounts | None:
    """The trials of one unit, U = 1; None where the recording has no counts of it."""
    bins = recording.values.shape[1]
    for group in _groups(recording.group):
        place = np.flatnonzero(zarr_store.read(group["unit"]) == unit)
        if len(place):
            one, condition, trial = (
                slice(int(place[0]), int(place[0]) + 1),
                *(zarr_store.read(group[name]) for name in ("condition", "trial")),
            )
            shape = [len(condition), bins, group["unit"].shape[0]]
            stored = zarr_store.array(group, "counts", shape, "ui", f"{recording.path}/{group.path}")
            counts, half = zarr_store.read(stored, (slice(None), slice(None), one)), zarr_store.read(group["half"], (slice(None), one))
            return TrialCounts(counts, condition, trial, half)
    return None


def first_trials(recording: Recording, condition: int, half: str | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """([U] units, [M, U] spikes) of the first trial of each session in a condition, for the units that it counts for.

    Args:
      recording: open recording.
      condition: its number.
      half: odd or even: a trial that belongs to this half for most units is preferred; None: any.
    """
    for group in _groups(recording.group):
        member = zarr_store.read(group["half"])
        fits = (member >= 0 if half is None else member == HALVES.index(half)) & (zarr_store.read(group["condition"]) == condition)[:, None]
        if fits.any():
            trial = int(np.argmax(fits.sum(axis=1)))  # the first, if several are equal
            yield (
                zarr_store.read(group["unit"])[fits[trial]],
                zarr_store.read(group["counts"], (slice(trial, trial + 1),))[0][:, fits[trial]],
            )


def _groups(root: zarr.Group) -> Iterator[zarr.Group]:
    """The sessions of a recording that have counts, in order."""
    stored = root.get(GROUP)
    if isinstance(stored, zarr.Group):
        yield from (group for _, group in sorted(stored.groups(), key=lambda item: int(item[0])))
