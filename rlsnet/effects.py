"""What a perturbation changed: its stored result beside the unperturbed one, trial for trial from the same random numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import zarr

from rlsnet import tables, zarrio

PERIODS = ("before", "inside", "after")  # the window


@dataclasses.dataclass(frozen=True)
class Effect:
    """Two results of the same trials, of the neurons that both have, [C, M, n] in Hz.

    without, with_: PSTHs.
    perturbed: [n] bool, who was perturbed.
    excitatory: [n] bool.
    region: [n] names, or None.
    period: [M] 0 before, 1 inside, 2 after the window; -1 for bins that lie across an edge, unless none lies inside.
    window: (start, stop), ms in the trial's own time.
    """

    without: np.ndarray
    with_: np.ndarray
    perturbed: np.ndarray
    excitatory: np.ndarray
    region: np.ndarray | None
    period: np.ndarray
    window: tuple[float, float]

    @staticmethod
    def of(test: zarr.Group, perturbed: zarr.Group) -> Effect:
        """From a test.zarr and a perturbed one."""
        mine, theirs = zarrio.read(perturbed["neuron"]), zarrio.read(test["neuron"])
        _, in_test, here = np.intersect1d(theirs, mine, return_indices=True)
        end = zarrio.read(perturbed["time"])
        bin_ms = float(end[1] - end[0]) if len(end) > 1 else 0.0
        start, stop = window(perturbed)
        return Effect(
            without=zarrio.read(test["psth"])[:, :, in_test],
            with_=zarrio.read(perturbed["psth"])[:, :, here],
            perturbed=zarrio.read(perturbed["perturbed"])[here],
            excitatory=zarrio.read(perturbed["excitatory"])[here],
            region=zarrio.texts(perturbed["region"])[here] if "region" in perturbed else None,
            period=periods(end - bin_ms, end, start, stop),
            window=(start, stop),
        )

    def groups(self) -> Iterator[tuple[str, np.ndarray]]:
        """(name, [n] bool) of the perturbed, all others, and the others by class and by region."""
        others = ~self.perturbed
        classes = [(f"{name}, others", others & (self.excitatory == (name == "exc"))) for name in ("exc", "inh")]
        names: list[str] = [] if self.region is None else np.unique(self.region).tolist()
        regions = [(f"{name}, others", others & (self.region == name)) for name in names]
        regions.sort(key=lambda item: -int(item[1].sum()))
        for name, members in [("perturbed", self.perturbed), ("others", others), *classes, *regions[: tables.MOST]]:
            if members.any():
                yield name, members

    def rate(self, members: np.ndarray, period: int) -> tuple[float, float]:
        """Mean rates in Hz without and with the perturbation; NaN where no bin lies in the period."""
        bins = self.period == period
        if not bins.any():
            return np.nan, np.nan
        without, with_ = (float(psth[:, bins][:, :, members].mean()) for psth in (self.without, self.with_))
        return without, with_

    def change(self, period: int = 1) -> np.ndarray:
        """[n] Hz, change of each neuron's mean rate over conditions in a period."""
        bins = self.period == period
        return (
            (self.with_[:, bins].mean(axis=(0, 1)) - self.without[:, bins].mean(axis=(0, 1)))
            if bins.any()
            else np.full(len(self.perturbed), np.nan)
        )


def periods(begin: np.ndarray, end: np.ndarray, start: float, stop: float) -> np.ndarray:
    """[M] whether a bin from begin to end, ms, lies before (0), inside (1) or after (2) a window, or across an edge (-1)."""
    tiny = 1e-6 * (stop - start)
    before, after = end <= start + tiny, begin >= stop - tiny
    inside = (begin >= start - tiny) & (end <= stop + tiny)
    if not inside.any():
        inside = ~before & ~after
    return np.select([inside, before, after], [1, 0, 2], -1)


def window(perturbed: zarr.Group) -> tuple[float, float]:
    """(start, stop) of a stored perturbation, ms."""
    settings: Any = perturbed.attrs["perturb"]
    return float(settings["start"]), float(settings["stop"])


def in_words(perturbed: zarr.Group) -> str:
    """What was done to how many neurons, and when."""
    settings: Any = perturbed.attrs["perturb"]
    much = {"excite": "strength", "clamp": "rate"}.get(settings["name"])
    unit = {"strength": "threshold", "rate": "Hz"}.get(much or "", "")
    dose = f" {settings[much]:g} {unit}" if much else ""
    start, stop = window(perturbed)
    return f"{settings['name']}{dose}: {settings['n']:,} of {perturbed.attrs['n_neurons']:,} neurons, {start:g} to {stop:g} ms"


def differences(test: zarr.Group, perturbed: zarr.Group) -> list[str]:
    """In what the two results are not of the same trials, in words; the perturbation is then not all that sets them apart."""
    words = {"weights": "other weights", "trials": "another number of trials", "trained_on": "another recording"}
    found = [words[name] for name in words if name in test.attrs and test.attrs[name] != perturbed.attrs.get(name)]
    return found + ["other neurons"] * (not same_neurons(test, perturbed))


def same_neurons(test: zarr.Group, perturbed: zarr.Group) -> bool:
    """Whether both results are of the same neurons of the network."""
    return np.array_equal(zarrio.read(test["neuron"]), zarrio.read(perturbed["neuron"]))


def rates_table(effect: Effect) -> str:
    """Rates of groups of neurons before, in and after the window, without and with the perturbation."""

    def cell(without: float, with_: float) -> str:
        return f"{without:.2f} -> {with_:.2f}" if np.isfinite(without) else ""

    rows = [
        [name, str(members.sum()), *(cell(*effect.rate(members, period)) for period in range(len(PERIODS)))]
        for name, members in effect.groups()
    ]
    head = ["", "neurons", *(f"{period} (Hz)" for period in PERIODS)]
    return tables.text(head, rows, "Mean rates, without -> with the perturbation.")


def scores_table(test: zarr.Group, perturbed: zarr.Group) -> str:
    """The scores of both results, or why they cannot be compared."""
    if not same_neurons(test, perturbed) or "scores" not in test.attrs:
        why = "of other neurons" if "scores" in test.attrs else "of an earlier version"
        return f"Scores are not compared: test.zarr is {why}; rlsnet test without perturb makes it anew."
    before, after = (group.attrs["scores"]["all"] for group in (test, perturbed))
    shown = [name for name in tables.HEADS if name in before and name in after]
    rows = [
        [name, *(f"{leaf[score]['mean' if score in tables.MEANS else 'median']:.3f}" for score in shown)]
        for name, leaf in (("without", before), ("with", after))
    ]
    return tables.text(
        ["", *(tables.HEADS[name] for name in shown)], rows, "Medians over neurons, of the whole learned time (error: mean)."
    )
