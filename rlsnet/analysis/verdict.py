"""The population explained variance of a test in words: how good the network is beside the data's own limit and the baselines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rlsnet.analysis.recording_summary import named
from rlsnet.analysis.score_tables import MAX_GROUPS, plain_table
from rlsnet.io.formatting import percent
from rlsnet.learning.population import BASELINES, EXPLAINED, biased

CLOSE = 0.005  # a smaller difference of two explained variances is called none, like one below two standard errors
UNCERTAIN = 0.05  # standard error above which more trials are advised
NO_ERROR = {  # by number of trials of each condition
    1: "With one trial, the noise of the model counts as an error, and there is no standard error. Use more test.trials.",
    2: "The explained variance has no standard error, which needs three trials of each condition. Use more test.trials.",
}
EARLIER = "The explained variance has no standard error, because an earlier version made this test: run rlsnet test again."
IN_SAMPLE = "trained and tested on the same trials; with recording.half=odd, half of them are held out"


def best_baseline(values: Mapping[str, float]) -> str | None:
    """Name of the baseline that explains most, of an entry of `population.explained`; None without baselines."""
    return max((name for name in BASELINES if name in values), key=lambda name: values[name], default=None)


def verdict(population: Mapping[str, Any]) -> str:
    """Sentences about the block `population` of the scores of a test; "" where the explained variance is undefined."""
    values: Mapping[str, float] = population.get("all", {})
    if "model" not in values:
        return ""
    model, heldout = values["model"], population["trained_on"] != "all"
    share = percent(model) if model > 0 else f"none ({percent(model)}: its errors are larger than the variance)"
    rates = "held-out rates" if heldout else "rates that it was trained on"
    error = population.get("standard_error")
    known_to = f" (standard error {percent(error)})" if error is not None and error > CLOSE else ""
    first = f"The network explains {share} of the variance of the {rates}{known_to}"
    if "ceiling" in values:
        first += f"; the other half of the trials explains {percent(values['ceiling'])}"
    sentences = [f"{first}{'' if heldout else f' ({IN_SAMPLE})'}."]
    if (best := best_baseline(values)) is not None:
        sentences.append(_beside_baselines(model, best, values[best], error))
        if values.get("ceiling", 1) < values[best] + CLOSE:
            sentences.append("The other half explains no more than a baseline: there are too few recorded trials to judge the network.")
    unknown = " (its inputs are drawn at random, so nothing tells the network this condition)" if population.get("random_inputs") else ""
    for name, each in population.get("held_out", {}).items():
        if "model" in each:
            sentences.append(_held_out(name + (unknown if "untrained condition" in name else ""), each))
    if "linear" in values:
        some = f", for {population['linear']['neurons']:,} neurons" if population["linear"]["neurons"] < population["neurons"] else ""
        sentences.append(f"A linear model that is given the recorded rates of the same inputs explains {percent(values['linear'])}{some}.")
    if "model" in (bits := population.get("bits_per_spike", {}).get("all", {})):
        other = f" (the other half of the trials: {bits['ceiling']:+.2f})" if "ceiling" in bits else ""
        sentences.append(f"Gain over constant rates: {bits['model']:+.2f} bits per spike{other}.")
    return " ".join(sentences)


def _held_out(name: str, values: Mapping[str, float]) -> str:
    """A sentence about neurons or a condition that the network was not trained on, beside the untrained network and the other half."""
    beside = [f"the {EXPLAINED[key]}: {percent(values[key])}" for key in ("untrained", "condition_average", "ceiling") if key in values]
    words = f" ({', '.join(beside)})" if beside else ""
    return f"Predicted, not trained: of the variance of {name}, the network explains {percent(values['model'])}{words}."


def _beside_baselines(model: float, best: str, value: float, error: float | None) -> str:
    """A sentence about the best baseline; whether it is better or worse only beyond two standard errors, `error` each (None: unknown)."""
    named = f"{EXPLAINED[best]}, {percent(value)}"
    if error is None:
        return f"Best baseline: {named}."
    least = max(CLOSE, 2 * error)
    if model > value + least:
        return f"It is better than every baseline (best: {named})."
    if model > value - least:
        return f"It is not clearly better or worse than the best baseline ({named})."
    return f"It is worse than the best baseline ({named}): train for more iterations, or with more inputs (plastic.n_inputs)."


def warnings(population: Mapping[str, Any]) -> Iterator[str]:
    """Sentences about an explained variance that is uncertain, and about each condition with a wrong mean rate.

    The error of the rate is stated beside the difference between the halves of the trials.
    """
    error = population.get("standard_error")
    if error is None and "model" in population.get("all", {}):
        yield NO_ERROR.get(population.get("trials", 0), EARLIER)
    if error is not None and error > UNCERTAIN:
        yield f"The explained variance is uncertain (standard error {percent(error)}), because trials differ much. Use more test.trials."
    bias = population.get("rate_bias", {})
    for name in biased(bias):
        each = bias[name]
        where = f"in condition {name}" if len(bias) > 1 else "on average"
        halves = f"; the trials trained on differ by {each['halves']:+.2f} Hz from those held out" if "halves" in each else ""
        yield f"The model's mean rate {where} is wrong by {each['model']:+.2f} Hz (recorded: {each['recorded']:.2f} Hz){halves}."


def population_rows(population: Mapping[str, Any]) -> tuple[list[str], list[tuple[str, list[float | None]]]]:
    """(predictions, (group of neurons or condition, explained variance of each)) of the block `population`."""
    names = [name for name in EXPLAINED if name in population["all"]]
    conditions, regions = population["by_condition"], population["by_region"]
    groups = {
        "all": population["all"],
        **({name: each for name, each in conditions.items() if each} if len(conditions) > 1 else {}),
        **{named(name): each for name, each in regions.items()},
        **population.get("held_out", {}),
    }
    return names, [(label, [group.get(name) for name in names]) for label, group in groups.items()]


def population_table(population: Mapping[str, Any], width: int | None = None) -> str:
    """The block `population` as a table of conditions and regions by predictions, in percent."""
    names, rows = population_rows(population)
    n_held_out = len(population.get("held_out", {}))
    rows = [*rows[: len(rows) - n_held_out][: 1 + 2 * MAX_GROUPS], *rows[len(rows) - n_held_out :]]
    shown = [[label, *("" if value is None else percent(value) for value in values)] for label, values in rows]
    return plain_table(["explained variance", *(EXPLAINED[name] for name in names)], shown, width=width)
