"""Run summaries: settings, metrics, resources and scores of a run as it stored them, for reports and comparisons."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zarr

from rlsnet.config import differences
from rlsnet.config.load import flat
from rlsnet.io import zarr_store
from rlsnet.io.formatting import counted
from rlsnet.learning.scores import SCORES, summary, typical
from rlsnet.runs.folder import Run
from rlsnet.runs.metrics import last_correlation, no_longer_better, validations
from rlsnet.runs.resources import read as read_resources
from rlsnet.workflows import test_store, tested_settings

POPULATION = "population"  # block of the scores; ranks runs before all others
PRIMARY_SCORES = ("heldout_correlation", "rate_correlation", "current_correlation")  # the first that a test has ranks a run


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """Stored results of a run.

    run: its folder.
    settings: its configuration, nested.
    metrics: a line per iteration.
    resources: lines of resources.jsonl.
    scores: `stored_scores` of test.zarr, empty where the run has not been tested.
    test_attributes: attributes of test.zarr.
    tested_settings: section `test` that the stored test was made with, as far as it is known; {} where the run has not been tested.
    """

    run: Run
    settings: dict[str, Any]
    metrics: list[dict[str, Any]]
    resources: list[dict[str, Any]]
    scores: dict[str, Any]
    test_attributes: dict[str, Any]
    tested_settings: dict[str, Any]

    @property
    def settings_of_results(self) -> dict[str, Any]:
        """Nested settings that the stored results were made with: those of training, and those of the test; no `test` without one."""
        return {name: values for name, values in self.settings.items() if name != "test"} | (
            {"test": self.tested_settings} if self.tested_settings else {}
        )

    @property
    def planned_iterations(self) -> int:
        """Iterations that the settings ask for."""
        return int(self.settings["train"]["iterations"])

    @property
    def correlations(self) -> list[float]:
        """Correlations of the iterations where it is defined."""
        return [line["correlation"] for line in self.metrics if line["correlation"] is not None]

    @property
    def last_correlation(self) -> float | None:
        """Correlation of the last iteration; with several conditions, the mean of the last of each."""
        return last_correlation(self.metrics)

    @property
    def validations(self) -> list[tuple[int, float]]:
        """(iteration, score) of each validation during training."""
        return validations(self.metrics)

    @property
    def best_validation(self) -> float | None:
        """The highest score of a validation."""
        return max((score for _, score in self.validations), default=None)

    @property
    def ended_early(self) -> bool:
        """Whether train.stop_when has ended the training."""
        stop_when = self.settings["train"].get("stop_when")  # runs of early versions have none
        return no_longer_better(self.metrics, stop_when)

    @property
    def seconds_per_iteration(self) -> float | None:
        """Median duration of an iteration, s."""
        return float(np.median([line["seconds"] for line in self.metrics])) if self.metrics else None

    @property
    def peak_memory(self) -> float | None:
        """Largest resident memory of training, bytes, or of any command if there was no training."""
        lines = [line for line in self.resources if line.get("verb") == "train"] or self.resources
        return 1e6 * max(line["memory_peak_mb"] for line in lines) if lines else None

    @property
    def primary_score(self) -> str | None:
        """The score that ranks the run, of those that its test has."""
        return next((name for name in PRIMARY_SCORES if self.typical(name) is not None), None)

    @property
    def population(self) -> dict[str, Any]:
        """The population explained variance of the test, as `population.explained`; {} where it is unknown."""
        return dict(self.scores.get(POPULATION, {}))

    def typical(self, score: str) -> float | None:
        """The median of a score over all neurons of the test, or the mean of an error; with POPULATION, the explained variance."""
        if score == POPULATION:
            return self.population.get("all", {}).get("model")
        return typical(self.scores.get("all", {}), score)

    @property
    def state(self) -> str:
        """Whether training is done, or how many iterations are."""
        if not self.metrics and self.scores:
            return "simulated, not trained"
        done, planned = len(self.metrics), self.planned_iterations
        if self.ended_early:
            return f"ended after {counted(done, 'iteration')}"
        return "done" if done >= planned else f"{done} of {planned} iterations"


def summarize(run: Run) -> RunSummary:
    """The summary of a run; raises UserError where a file of it is damaged."""
    settings = differences.saved(run.path / "config.yaml", run.saved_config())
    test = test_store.open_test(run, run.test) if run.test.exists() else None
    found = {} if test is None else stored_scores(test)
    attributes = {} if test is None else dict(test.attrs)
    tested = {} if test is None else tested_settings.of_test(test)
    return RunSummary(run, settings, run.read_metrics(), read_resources(run.resources), found, attributes, tested)


def stored_scores(test: zarr.Group) -> dict[str, Any]:
    """The attribute `scores` of a test: groups all, by_class, by_region, by_condition; computed where an old test has none."""
    stored = test.attrs.get("scores")
    if isinstance(stored, Mapping) and "all" in stored:
        return dict(stored)
    values = {name: zarr_store.read(test[name]) for name in SCORES if name in test}
    excitatory, conditions = zarr_store.read(test["excitatory"]), zarr_store.texts(test["condition"]).tolist()
    return summary(values, excitatory, conditions, zarr_store.texts(test["region"]) if "region" in test else None)


def differing_settings(runs: Sequence[RunSummary]) -> list[tuple[str, list[Any]]]:
    """(key, values) of the settings in which runs differ, those of the model before those of training, testing and the engine.

    Settings that only some of the runs have, because they belong to one variant of a section, are left out: the variant is listed.
    Those of tests are compared where all runs were tested.
    """
    each, found = [flat(run.settings_of_results) for run in runs], []
    for key in each[0] if each else ():
        if key.split(".")[0] not in differences.OF_A_COMMAND and all(key in settings for settings in each):
            values = [settings[key] for settings in each]
            if any(not differences.same(value, values[0]) for value in values):
                found.append((key, values))
    return sorted(found, key=lambda item: item[0].split(".")[0] in ("train", "test", "engine"))
