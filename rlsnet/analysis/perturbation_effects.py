"""Effects of a perturbation: comparison of a perturbed test with the unperturbed test of the same random numbers, trial for trial."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import zarr

from rlsnet.analysis import score_tables
from rlsnet.analysis.recording_summary import named
from rlsnet.data import trial_clock
from rlsnet.errors import joined
from rlsnet.io import zarr_store
from rlsnet.io.formatting import counted
from rlsnet.workflows.tested_settings import windows

MOST_WINDOWS = 4  # windows whose times a description lists
MOST_LETTERS = 40  # of a selection of neurons in a description
PERIODS = ("before", "inside", "after", "between")  # the windows of the perturbation
IN_TIME = (0, 1, 3, 2)  # the periods in the order of time


@dataclasses.dataclass(frozen=True)
class PerturbationEffect:
    """Perturbed and unperturbed test of the same trials, for the n neurons that both have.

    conditions: [C] names; those that the network was not trained on are left out, unless they are asked for.
    psth_control: [C, M, n] Hz, without the perturbation.
    psth_perturbed: [C, M, n] Hz, with it.
    perturbed: [n] bool, the neurons that it was applied to.
    neuron: [n] indices in the network.
    excitatory: [n] bool.
    region: [n] names, or None.
    period: [M] 0 before, 1 inside, 2 after the windows, 3 between two of them; -1 for bins that lie across an edge, unless none lies
      inside.
    windows: (start, stop) of each, ms from the start of the trial.
    cue: whether the cue was changed, not neurons: then all bins from the start of the cue on are inside.
    """

    conditions: list[str]
    psth_control: np.ndarray
    psth_perturbed: np.ndarray
    perturbed: np.ndarray
    neuron: np.ndarray
    excitatory: np.ndarray
    region: np.ndarray | None
    period: np.ndarray
    windows: list[tuple[float, float]]
    cue: bool = False

    @staticmethod
    def from_tests(test: zarr.Group, perturbed: zarr.Group, untrained: bool = False) -> PerturbationEffect:
        """The effect between a test.zarr and a perturbed one; with `untrained`, also in conditions that are not trained."""
        names = zarr_store.texts(test["condition"])
        use = np.ones(len(names), bool)
        if "trained" in test and not untrained:
            use = np.any(zarr_store.read(test["trained"]), axis=1)
        mine, theirs = zarr_store.read(perturbed["neuron"]), zarr_store.read(test["neuron"])
        both, in_test, here = np.intersect1d(theirs, mine, return_indices=True)
        begin, end = _bins(perturbed)
        spans, cue = windows(perturbed), _is_cue(perturbed)
        effective = [(min(spans[0][0], begin[0]), end[-1])] if cue else spans
        return PerturbationEffect(
            conditions=names[use].tolist(),
            psth_control=zarr_store.read(test["psth"])[use][:, :, in_test],
            psth_perturbed=zarr_store.read(perturbed["psth"])[use][:, :, here],
            perturbed=zarr_store.read(perturbed["perturbed"])[here],
            neuron=both,
            excitatory=zarr_store.read(perturbed["excitatory"])[here],
            region=zarr_store.texts(perturbed["region"])[here] if "region" in perturbed else None,
            period=periods(begin, end, effective),
            windows=spans,
            cue=cue,
        )

    def groups(self) -> Iterator[tuple[str, np.ndarray]]:
        """(name, [n] bool) of the perturbed neurons, all other neurons, and the others by class and by region."""
        others, prefix = ~self.perturbed, "" if self.cue else "other "
        classes = [(f"{prefix}{name}", others & (self.excitatory == (name == "excitatory"))) for name in ("excitatory", "inhibitory")]
        names: list[str] = [] if self.region is None else np.unique(self.region).tolist()
        where = "" if self.cue else "others in "
        regions = [(f"{where}{named(name)}", others & (self.region == name)) for name in names]
        regions.sort(key=lambda item: -int(item[1].sum()))
        whole = [("all", others)] if self.cue else [("perturbed", self.perturbed), ("others", others)]
        for name, members in [*whole, *classes, *regions[: score_tables.MAX_GROUPS]]:
            if members.any():
                yield name, members

    @property
    def shown_periods(self) -> list[tuple[int, str]]:
        """(number, name) of the periods with bins in the order of time; between windows, where there are several."""
        if self.cue:
            return [(1, "learned part")]
        return [(period, PERIODS[period]) for period in IN_TIME if period == 1 or (self.period == period).any()]

    def rate(self, members: np.ndarray, period: int) -> tuple[float, float]:
        """Mean rates in Hz without and with the perturbation; NaN where no bin lies in the period, or there are no members."""
        bins = self.period == period
        if not bins.any() or not members.any():
            return np.nan, np.nan
        control, perturbed = (float(psth[:, bins][:, :, members].mean()) for psth in (self.psth_control, self.psth_perturbed))
        return control, perturbed

    def rates(self, period: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """([C, n], [C, n]) Hz, rates without and with the perturbation in a period; NaN where no bin lies in it."""
        bins = self.period == period
        if not bins.any():
            return (np.full((len(self.psth_control), len(self.perturbed)), np.nan),) * 2
        return self.psth_control[:, bins].mean(axis=1), self.psth_perturbed[:, bins].mean(axis=1)

    def change(self, period: int = 1) -> np.ndarray:
        """[n] Hz, change of each neuron's mean rate over conditions in a period; NaN where no bin lies in it."""
        control, perturbed = self.rates(period)
        return np.asarray((perturbed - control).mean(axis=0))


def resemblance(psth: np.ndarray, control: np.ndarray) -> np.ndarray:
    """[D, C] shares of the C conditions of a control whose sum is closest to the activity in each of D conditions, by least squares.

    The shares of a condition sum to 1 and may lie outside 0 to 1. Between two conditions, it is the position of the activity on the line
    from one to the other.

    Args:
      psth: [D, M, n] Hz.
      control: [C, M, n] Hz.
    """
    given, base = (each.reshape(len(each), -1).astype(np.float64) for each in (psth, control))
    axes = base[1:] - base[0]
    shares = np.linalg.lstsq(axes.T, (given - base[0]).T, rcond=None)[0].T
    return np.concatenate([1 - shares.sum(axis=1, keepdims=True), shares], axis=1)


def _bins(test: zarr.Group) -> tuple[np.ndarray, np.ndarray]:
    """([M], [M]) ms from the start of the trial, where the bins of a test begin and end."""
    time = zarr_store.read(test["time"])
    if trial_clock.ATTRIBUTE not in test.attrs:  # of an earlier version: ends of the bins
        return time - (float(time[1] - time[0]) if len(time) > 1 else 0.0), time
    centre = (time - trial_clock.of_test(test).start) * 1000
    half = float(test.attrs["bin_ms"]) / 2
    return centre - half, centre + half


def periods(begin: np.ndarray, end: np.ndarray, windows: Sequence[tuple[float, float]]) -> np.ndarray:
    """[M] position of bins relative to windows: 0 before the first, 1 inside one, 2 after the last, 3 between two, -1 across an edge.

    Args:
      begin: [M] ms.
      end: [M] ms.
      windows: (start, stop) of each in ms, in order.
    """
    tiny = 1e-6 * min(stop - start for start, stop in windows)
    before, after = end <= windows[0][0] + tiny, begin >= windows[-1][1] - tiny
    inside = np.any([(begin >= start - tiny) & (end <= stop + tiny) for start, stop in windows], axis=0)
    apart = np.all([(end <= start + tiny) | (begin >= stop - tiny) for start, stop in windows], axis=0)
    if not inside.any():
        inside = ~apart
    return np.select([inside, before, after, apart], [1, 0, 2, 3], -1)


def _is_cue(perturbed: zarr.Group) -> bool:
    """Whether the cue was changed, not neurons."""
    settings: Any = perturbed.attrs["perturb"]
    return bool(settings["name"] == "cue")


def _cue_words(settings: Mapping[str, Any], where: str) -> str:
    """Another cue in words; `where` is the time of the stimulus."""
    inputs = {"both": "", "stimulus": " in the stimulus only", "feedforward": " in the feed-forward rates only"}[settings["inputs"]]
    words = [f"{settings['cue']} in all trials{inputs}"] if settings["cue"] is not None else []
    if settings["factor"] != 1:
        words.append(f"stimulus times {settings['factor']:g}" if settings["factor"] else "no stimulus")
    return f"cue: {', '.join(words) or 'as in training, at another time'}" + (f"; stimulus from {where}" if settings["factor"] else "")


def description(perturbed: zarr.Group) -> str:
    """Kind and strength of a stored perturbation, number and selection of its neurons, and its windows."""
    settings: Any = perturbed.attrs["perturb"]
    clock = trial_clock.of_test(perturbed)
    spans = [[round(float(clock.seconds(time)), 9) + 0.0 for time in each] for each in windows(perturbed)]
    where = joined(f"{start:g} to {stop:g}" for start, stop in spans[:MOST_WINDOWS])
    where = f"{len(spans)} windows, {spans[0][0]:g} to {spans[-1][1]:g}" if len(spans) > MOST_WINDOWS else where
    if _is_cue(perturbed):
        return _cue_words(settings, f"{where} s {clock.words}")
    who = f"{settings['n']:,} of {perturbed.attrs['n_neurons']:,} neurons{_selection(settings)}"
    return f"{settings['name']}{_strength(settings)}: {who}, {where} s {clock.words}"


def _selection(settings: Mapping[str, Any]) -> str:
    """The selected neurons of a stored perturbation in words, such as " (region ALM)"; "" for all, or where they are unknown."""
    neurons, part = settings.get("neurons"), settings.get("fraction", 1) < 1 or settings.get("values") is not None
    if not neurons:
        return ""
    words = re.sub(r"\bexc\b", "excitatory", re.sub(r"\binh\b", "inhibitory", str(neurons))).replace("region:", "region ")
    return f" ({'part of ' * part}{words if len(words) <= MOST_LETTERS else f'{words[: MOST_LETTERS - 1]}…'})"


def _strength(settings: Mapping[str, Any]) -> str:
    """Strength or rate of a stored perturbation in words, with factors of the windows and ramps; "" for silencing."""
    name, unit = {"excite": ("strength", "threshold"), "clamp": ("rate", "Hz")}.get(settings["name"], ("", ""))
    if not name:
        return ""
    spread = settings.get("range")
    words = f" {settings[name]:g} {unit}" if spread is None else f" {spread[0]:g} to {spread[1]:g} {unit} by neuron"
    if settings.get("scale"):
        words += f" times {', '.join(f'{factor:g}' for factor in settings['scale'])}"
    ramps = [f"{settings[key]:g} ms {way}" for key, way in (("ramp_up", "up"), ("ramp_down", "down")) if settings.get(key)]
    return words + (f", ramp {' and '.join(ramps)}" if ramps else "")


def differences(test: zarr.Group, perturbed: zarr.Group) -> list[str]:
    """What a perturbed test has that a test does not, other than the perturbation; [] where they are of the same trials."""
    than, mine = "than the unperturbed test", counted(int(perturbed.attrs.get("trials", 0)), "trial")
    trials = f"{mine}, but the unperturbed test has {test.attrs.get('trials')}"
    words = {"weights": f"other weights {than}", "trials": trials, "trained_on": f"another recording {than}"}
    found = [words[name] for name in words if name in test.attrs and test.attrs[name] != perturbed.attrs.get(name)]
    return found + [f"other neurons {than}"] * (not same_neurons(test, perturbed))


def same_neurons(test: zarr.Group, perturbed: zarr.Group) -> bool:
    """Whether both tests hold the same neurons of the network."""
    return np.array_equal(zarr_store.read(test["neuron"]), zarr_store.read(perturbed["neuron"]))


def rates_table(effect: PerturbationEffect) -> str:
    """Mean rates of groups of neurons before, in and after the window, without and with the perturbation."""

    def cell(control: float, perturbed: float) -> str:
        """Both rates in a cell of the table."""
        return f"{control:.2f} -> {perturbed:.2f}" if np.isfinite(control) else ""

    rows = [
        [name, str(members.sum()), *(cell(*effect.rate(members, period)) for period, _ in effect.shown_periods)]
        for name, members in effect.groups()
    ]
    head = ["", "neurons", *(f"{name} (Hz)" for _, name in effect.shown_periods)]
    return score_tables.plain_table(head, rows, "Mean rates: control -> perturbed.")


def resemblance_table(effect: PerturbationEffect) -> str:
    """What the activity with another cue resembles, as shares of the activity in the conditions with their own cues."""
    shares = resemblance(effect.psth_perturbed, effect.psth_control)
    rows = [[name, *(f"{share:.2f}" for share in of_one)] for name, of_one in zip(effect.conditions, shares, strict=True)]
    return score_tables.plain_table(
        ["trials of", *(f"like {name}" for name in effect.conditions)],
        rows,
        "Activity with this cue as a sum of the activity in the conditions with their own cues: shares by least squares, which sum to 1.",
    )


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
