"""The figures of a run in numbers: what reports and comparisons say of it, from what it stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zarr

from rlsnet import evaluate, reproduce, resources, scores, zarrio
from rlsnet.convert import flat
from rlsnet.store import Run
from rlsnet.tables import MEANS

# what is scored, in the order of a table: name, and what it is called
SCORES = {
    "heldout_correlation": "correlation, held-out trials",
    "rate_correlation": "rate correlation",
    "noise_ceiling": "noise ceiling",
    "model_ceiling": "own ceiling",
    "signal_explained": "explainable variance explained",
    "explained_variance": "variance explained",
    "rate_error": "rate error (Hz)",
    "current_correlation": "current correlation",
    "reliability": "split-half reliability",
}
MAIN = ("heldout_correlation", "rate_correlation", "current_correlation")  # the first that a test has counts


@dataclasses.dataclass(frozen=True)
class Facts:
    """Of a run.

    run: its folder.
    settings: its configuration, nested.
    metrics: a line an iteration.
    resources: lines of resources.jsonl.
    scores: `table` of test.zarr, empty where it has not been tested.
    tested: attributes of test.zarr.
    """

    run: Run
    settings: dict[str, Any]
    metrics: list[dict[str, Any]]
    resources: list[dict[str, Any]]
    scores: dict[str, Any]
    tested: dict[str, Any]

    @property
    def total(self) -> int:
        """Iterations wanted."""
        return int(self.settings["train"]["iterations"])

    @property
    def correlations(self) -> list[float]:
        """Those of the iterations where it is defined."""
        return [line["correlation"] for line in self.metrics if line["correlation"] is not None]

    @property
    def last(self) -> float | None:
        """Correlation of the last iteration; of several conditions, the mean of the last of each."""
        newest = {line["task"]: line["correlation"] for line in self.metrics if line["correlation"] is not None}
        return float(np.mean(list(newest.values()))) if newest else None

    @property
    def best(self) -> float | None:
        """The highest correlation, as training kept it, or of any iteration."""
        kept = self.run.best_correlation()
        return kept if kept is not None else max(self.correlations, default=None)

    @property
    def seconds(self) -> float | None:
        """Median time of an iteration."""
        return float(np.median([line["seconds"] for line in self.metrics])) if self.metrics else None

    @property
    def peak_memory(self) -> float | None:
        """Bytes resident at most while training, or in any verb if there was no training."""
        mine = [line for line in self.resources if line.get("verb") == "train"] or self.resources
        return 1e6 * max(line["memory_peak_mb"] for line in mine) if mine else None

    @property
    def main(self) -> str | None:
        """The score that counts, of those the test has."""
        return next((name for name in MAIN if self.typical(name) is not None), None)

    def typical(self, score: str) -> float | None:
        """The median of a score over all neurons and conditions of the test, or the mean of an error."""
        return typical(self.scores.get("all", {}), score)

    @property
    def state(self) -> str:
        """Done, or how far it came."""
        if not self.metrics and self.scores:
            return "simulated, not trained"
        return "done" if len(self.metrics) >= self.total else f"{len(self.metrics)} of {self.total} iterations"


def of(run: Run) -> Facts:
    """Reads what a run says of itself; UserError where a file of it is damaged."""
    settings = reproduce.saved(run.path / "config.yaml", run.saved_config())
    test = zarrio.open_group(run.test, "run", evaluate.FORMAT) if run.test.exists() else None
    scored = {} if test is None else table(test)
    tested = {} if test is None else dict(test.attrs)
    return Facts(run, settings, run.read_metrics(), resources.read(run.resources), scored, tested)


def table(group: zarr.Group) -> dict[str, Any]:
    """Scores of a test as its attribute `scores` has them, all, by_class, by_region, by_condition; computed where it has none."""
    stored = group.attrs.get("scores")
    return dict(stored) if isinstance(stored, Mapping) and "all" in stored else _computed(group)


def _computed(group: zarr.Group) -> dict[str, Any]:
    values = {name: zarrio.read(group[name]) for name in SCORES if name in group}
    excitatory, conditions = zarrio.read(group["excitatory"]), zarrio.texts(group["condition"]).tolist()
    return scores.summary(values, excitatory, conditions, zarrio.texts(group["region"]) if "region" in group else None)


def typical(scored: Mapping[str, Any], score: str) -> float | None:
    """Of the scores of some neurons, the median of one, or the mean of an error; None where it is not there or not defined."""
    value = (scored.get(score) or {}).get("mean" if score in MEANS else "median")
    return value if value is not None and np.isfinite(value) else None


def number(value: Any, form: str = ".3f") -> str:
    """A number in words; what is not known or not defined is a dash."""
    return "–" if value is None or not np.isfinite(value) else format(value, form)


def compared(several: Sequence[Facts]) -> list[tuple[str, list[Any]]]:
    """(key, values) of the settings in which runs differ, those of the model before those of training, testing and the engine.

    What only some of them have, as it goes with the option of a group, is left out: the option itself is there.
    """
    each, found = [flat(facts.settings) for facts in several], []
    for key in each[0] if each else ():
        if key.split(".")[0] not in reproduce.OF_A_COMMAND and all(key in settings for settings in each):
            values = [settings[key] for settings in each]
            if any(not reproduce.same(value, values[0]) for value in values):
                found.append((key, values))
    return sorted(found, key=lambda item: item[0].split(".")[0] in ("train", "test", "engine"))
