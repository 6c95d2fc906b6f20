"""Test results of a run, for figures and reports: its configuration, folder and the arrays of test.zarr."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import zarr

from rlsnet.config.quoting import typed_command
from rlsnet.config.schema import Config
from rlsnet.data import trial_clock
from rlsnet.data.trial_clock import TrialClock
from rlsnet.errors import UserError
from rlsnet.io import zarr_store
from rlsnet.learning import scores
from rlsnet.runs.folder import Run
from rlsnet.workflows import test_store

Result = TypeVar("Result")


class Compared(NamedTuple):
    """Names of what is compared in a test.

    data: array of the recorded rates or target currents.
    model: array of the model's.
    score: array of their correlation.
    data_label: the data in words.
    quantity: label of an axis.
    """

    data: str
    model: str
    score: str
    data_label: str
    quantity: str


@dataclasses.dataclass(frozen=True)
class RunResults:
    """Stored results of a run.

    config: its configuration.
    run: its folder.
    test: test.zarr, or None.
    """

    config: Config
    run: Run
    test: zarr.Group | None

    def compared(self) -> Compared:
        """Recorded rates, of held-out trials if there are any, or target currents, with the model's."""
        if self.has("rate_heldout"):
            return Compared("rate_heldout", "psth", "heldout_correlation", "held-out trials", "firing rate (Hz)")
        if self.has("rate_target"):
            return Compared("rate_target", "psth", "rate_correlation", "recording", "firing rate (Hz)")
        return Compared("current_target", "current_mean", "current_correlation", "target", "current (threshold)")

    def read(self, name: str, *index: Any) -> np.ndarray:
        """An array of test.zarr, or a part of it; raises UserError where it is missing or damaged."""
        stored = None if self.test is None else self.test.get(name)
        if not isinstance(stored, zarr.Array):
            raise UserError(f"{self.run.test}: has no array {name}; {typed_command('test', self.run.path)} makes it anew.")
        return zarr_store.read(stored, index or ...)

    def has(self, *names: str) -> bool:
        """Whether test.zarr exists and has all of these arrays."""
        return self.test is not None and all(name in self.test for name in names)

    def explained(self) -> dict[str, Any]:
        """The population explained variance, as `population.explained`; {} where the test has none."""
        stored: Any = {} if self.test is None else self.test.attrs.get("scores", {})
        population = stored.get("population", {})
        return dict(population) if population.get("all") else {}

    @property
    def conditions(self) -> list[str]:
        """[C] names of the conditions."""
        return [str(name) for name in self.read("condition")]

    @property
    def neurons(self) -> np.ndarray:
        """[n] indices, in the network, of the neurons in test.zarr."""
        return self.read("neuron")

    @property
    def clock(self) -> TrialClock:
        """The time in the test: that of the recording, or of the trial."""
        return trial_clock.of_test(self.test)

    @property
    def time(self) -> np.ndarray:
        """[M] s, centres of the bins."""
        return self.clock.centres(self.config.trial)

    @property
    def span(self) -> tuple[float, float]:
        """(start, end) of the learned time, s."""
        trial = self.config.trial
        start, end = self.clock.seconds([trial.stim_off, trial.stim_off + trial.duration])
        return float(start), float(end)

    def unit_name(self, index: int) -> str:
        """Name of a neuron in the test, by its index there: its number in the network and, where they are known, session and id."""
        origin = [str(self.read(name, index)) for name in ("session", "id") if self.has(name)]
        return f"neuron {self.neurons[index]}" + (f" ({' '.join(origin)})" if self.has("id") else "")

    def smooth(self, name: str, values: np.ndarray) -> np.ndarray:
        """Values [M, ...] of an array of test.zarr as figures show them; NaN stays NaN.

        Rates of the model are smoothed as the recorded rates, which are not smoothed again. Where the recording has no kernel, rates
        of both are averaged over the window of the scores, as currents are.
        """
        kernel = () if self.test is None or "current" in name else self.test.attrs.get("smoothing", ())
        if kernel and name != "psth":
            return values
        trial = self.config.trial
        weights = scores.smoothing_weights(kernel, trial.n_points) if kernel else scores.window_weights(trial)
        return scores.windowed_known(weights, values, np.isfinite(values))


def of_one_test(run: Run, read: Callable[[], Result]) -> Result:
    """The result of a function that reads the test of a run, called once more if a process has replaced the test meanwhile."""

    def folder() -> int | None:
        return run.test.stat().st_ino if run.test.exists() else None

    before = folder()
    try:
        result = read()
    except UserError:
        if folder() == before:
            raise
        return read()
    return result if folder() == before else read()


def open_results(run: Run, plugins: Sequence[str] | None = None, trust: bool = False) -> RunResults:
    """The results of a run with its stored configuration; other arguments as of `Run.config`."""
    return with_config(run.config(plugins, trust), run)


def with_config(config: Config, run: Run) -> RunResults:
    """The results of a run whose configuration is known."""
    return RunResults(config, run, test_store.open_test(run, run.test) if run.test.exists() else None)
