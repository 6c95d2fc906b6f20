"""Effects of a perturbation: comparison of a perturbed test with the unperturbed test of the same random numbers, trial for trial."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import zarr

from rlsnet.analysis import score_tables
from rlsnet.data import trial_clock
from rlsnet.io import zarr_store

PERIODS = ("before", "inside", "after")  # the window of the perturbation


@dataclasses.dataclass(frozen=True)
class PerturbationEffect:
    """Perturbed and unperturbed test of the same trials, for the n neurons that both have.

    psth_control: [C, M, n] Hz, without the perturbation.
    psth_perturbed: [C, M, n] Hz, with it.
    perturbed: [n] bool, the neurons that it was applied to.
    excitatory: [n] bool.
    region: [n] names, or None.
    period: [M] 0 before, 1 inside, 2 after the window; -1 for bins that lie across an edge, unless none lies inside.
    window: (start, stop), ms from the start of the trial.
    """

    psth_control: np.ndarray
    psth_perturbed: np.ndarray
    perturbed: np.ndarray
    excitatory: np.ndarray
    region: np.ndarray | None
    period: np.ndarray
    window: tuple[float, float]

    @staticmethod
    def from_tests(test: zarr.Group, perturbed: zarr.Group) -> PerturbationEffect:
        """The effect between a test.zarr and a perturbed one."""
        mine, theirs = zarr_store.read(perturbed["neuron"]), zarr_store.read(test["neuron"])
        _, in_test, here = np.intersect1d(theirs, mine, return_indices=True)
        begin, end = _bins(perturbed)
        start, stop = window(perturbed)
        return PerturbationEffect(
            psth_control=zarr_store.read(test["psth"])[:, :, in_test],
            psth_perturbed=zarr_store.read(perturbed["psth"])[:, :, here],
            perturbed=zarr_store.read(perturbed["perturbed"])[here],
            excitatory=zarr_store.read(perturbed["excitatory"])[here],
            region=zarr_store.texts(perturbed["region"])[here] if "region" in perturbed else None,
            period=periods(begin, end, start, stop),
            window=(start, stop),
        )

    def groups(self) -> Iterator[tuple[str, np.ndarray]]:
        """(name, [n] bool) of the perturbed neurons, all other neurons, and the others by class and by region."""
        others = ~self.perturbed
        classes = [(f"{name}, others", others & (self.excitatory == (name == "exc"))) for name in ("exc", "inh")]
        names: list[str] = [] if self.region is None else np.unique(self.region).tolist()
        regions = [(f"{name}, others", others & (self.region == name)) for name in names]
        regions.sort(key=lambda item: -int(item[1].sum()))
        for name, members in [("perturbed", self.perturbed), ("others", others), *classes, *regions[: score_tables.MAX_GROUPS]]:
            if members.any():
                yield name, members

    def rate(self, members: np.ndarray, period: int) -> tuple[float, float]:
        """Mean rates in Hz without and with the perturbation; NaN where no bin lies in the period, or there are no members."""
        bins = self.period == period
        if not bins.any() or not members.any():
            return np.nan, np.nan
        control, perturbed = (float(psth[:, bins][:, :, members].mean()) for psth in (self.psth_control, self.psth_perturbed))
        return control, perturbed

    def change(self, period: int = 1) -> np.ndarray:
        """[n] Hz, change of each neuron's mean rate over conditions in a period; NaN where no bin lies in it."""
        bins = self.period == period
        if not bins.any():
            return np.full(len(self.perturbed), np.nan)
        return self.psth_perturbed[:, bins].mean(axis=(0, 1)) - self.psth_control[:, bins].mean(axis=(0, 1))


def _bins(test: zarr.Group) -> tuple[np.ndarray, np.ndarray]:
    """([M], [M]) ms from the start of the trial, where the bins of a test begin and end."""
    time = zarr_store.read(test["time"])
    if trial_clock.ATTRIBUTE not in test.attrs:  # of an earlier version: ends of the bins
        return time - (float(time[1] - time[0]) if len(time) > 1 else 0.0), time
    centre = (time - trial_clock.of_test(test).start) * 1000
    half = float(test.attrs["bin_ms"]) / 2
    return centre - half, centre + half


def periods(begin: np.ndarray, end: np.ndarray, start: float, stop: float) -> np.ndarray:
    """[M] position of bins relative to a window: 0 before, 1 inside, 2 after, -1 across an edge.

    Args:
      begin: [M] ms.
      end: [M] ms.
      start: ms, of the window.
      stop: ms, of the window.
    """
    tiny = 1e-6 * (stop - start)
    before, after = end <= start + tiny, begin >= stop - tiny
    inside = (begin >= start - tiny) & (end <= stop + tiny)
    if not inside.any():
        inside = ~before & ~after
    return np.select([inside, before, after], [1, 0, 2], -1)


def window(perturbed: zarr.Group) -> tuple[float, float]:
    """(start, stop) of a stored perturbation, ms from the start of the trial."""
    settings: Any = perturbed.attrs["perturb"]
    return float(settings["start"]), float(settings["stop"])


def description(perturbed: zarr.Group) -> str:
    """Kind, strength, number of neurons and window of a stored perturbation."""
    settings: Any = perturbed.attrs["perturb"]
    name, unit = {"excite": ("strength", "threshold"), "clamp": ("rate", "Hz")}.get(settings["name"], ("", ""))
    strength = f" {settings[name]:g} {unit}" if name else ""
    clock = trial_clock.of_test(perturbed)
    start, stop = (round(float(clock.seconds(time)), 9) + 0.0 for time in window(perturbed))
    where = f"{start:g} to {stop:g} s {clock.words}"
    return f"{settings['name']}{strength}: {settings['n']:,} of {perturbed.attrs['n_neurons']:,} neurons, {where}"


def differences(test: zarr.Group, perturbed: zarr.Group) -> list[str]:
    """Differences between two tests other than the perturbation, in words; [] where they are of the same trials."""
    trials = f"another number of trials ({test.attrs.get('trials')}, not {perturbed.attrs.get('trials')})"
    words = {"weights": "other weights", "trials": trials, "trained_on": "another recording"}
    found = [words[name] for name in words if name in test.attrs and test.attrs[name] != perturbed.attrs.get(name)]
    return found + ["other neurons"] * (not same_neurons(test, perturbed))


def same_neurons(test: zarr.Group, perturbed: zarr.Group) -> bool:
    """Whether both tests hold the same neurons of the network."""
    return np.array_equal(zarr_store.read(test["neuron"]), zarr_store.read(perturbed["neuron"]))


def rates_table(effect: PerturbationEffect) -> str:
    """Mean rates of groups of neurons before, in and after the window, without and with the perturbation."""

    def cell(control: float, perturbed: float) -> str:
        return f"{control:.2f} -> {perturbed:.2f}" if np.isfinite(control) else ""

    rows = [
        [name, str(members.sum()), *(cell(*effect.rate(members, period)) for period in range(len(PERIODS)))]
        for name, members in effect.groups()
    ]
    head = ["", "neurons", *(f"{period} (Hz)" for period in PERIODS)]
    return score_tables.plain_table(head, rows, "Mean rates: control -> perturbed.")


def scores_table(test: zarr.Group, perturbed: zarr.Group) -> str:
    """Scores of both tests, or the reason why they cannot be compared."""
    if not same_neurons(test, perturbed) or "scores" not in test.attrs:
        why = "of other neurons" if "scores" in test.attrs else "of an earlier version"
        return f"Scores are not compared: test.zarr is {why}; run rlsnet test again without perturb."
    control, effect = (group.attrs["scores"]["all"] for group in (test, perturbed))
    names = score_tables.shown_scores(control, effect)
    rows = [[label, *score_tables.values(group, names, ".3f")] for label, group in (("control", control), ("perturbed", effect))]
    return score_tables.plain_table(
        ["", *score_tables.headings(names)], rows, "Medians over neurons, in the whole learned part of the trial; rate error: mean."
    )
