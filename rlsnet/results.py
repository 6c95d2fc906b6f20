"""What figures and reports of a run are made from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import zarr

from rlsnet import evaluate, scores, zarrio
from rlsnet.config import Config, UserError
from rlsnet.store import Run


@dataclasses.dataclass(frozen=True)
class Results:
    """What figures are drawn from.

    config: of the run.
    run: its folder.
    test: test.zarr, or None.
    """

    config: Config
    run: Run
    test: zarr.Group | None

    def pair(self) -> tuple[str, str, str, str, str]:
        """(data, model, score, name of the data, axis label) of what is compared: recorded rates, held out if some were, or currents."""
        if self.has("rate_heldout"):
            return "rate_heldout", "psth", "heldout_correlation", "held-out trials", "firing rate (Hz)"
        if self.has("rate_target"):
            return "rate_target", "psth", "rate_correlation", "recording", "firing rate (Hz)"
        return "current_target", "current_mean", "current_correlation", "target", "current (threshold)"

    def read(self, name: str, *index: Any) -> np.ndarray:
        """An array of test.zarr, or a part of it."""
        stored = None if self.test is None else self.test.get(name)
        if not isinstance(stored, zarr.Array):
            raise UserError(f"{self.run.test}: has no array {name}; rlsnet test run={self.run.path} makes it anew.")
        return zarrio.read(stored, index or ...)

    def has(self, *names: str) -> bool:
        """Whether test.zarr is there and has all of these arrays."""
        return self.test is not None and all(name in self.test for name in names)

    @property
    def conditions(self) -> list[str]:
        """[C] names of the conditions."""
        return [str(name) for name in self.read("condition")]

    @property
    def neurons(self) -> np.ndarray:
        """[n] which of the network's neurons test.zarr is of."""
        return self.read("neuron")

    @property
    def time(self) -> np.ndarray:
        """[M] s, from stim_off to each learning point."""
        trial = self.config.trial
        return np.arange(1, trial.n_points + 1) * trial.learn_every / 1000

    def smooth(self, values: np.ndarray) -> np.ndarray:
        """[M, ...] averaged over the window in which scores are computed, as far as known; NaN stays where it is."""
        return scores.over_known(scores.window_weights(self.config.trial), values, np.isfinite(values))


def open_results(run: Run, plugins: Sequence[str] | None = None) -> Results:
    """The results of a run as it is stored; `plugins` stand where the saved ones are no longer."""
    return of_run(run.config(plugins), run)


def of_run(config: Config, run: Run) -> Results:
    """The results of a run whose configuration is known."""
    return Results(config, run, zarrio.open_group(run.test, "run", evaluate.FORMAT) if run.test.exists() else None)
