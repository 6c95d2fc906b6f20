"""Test results of a run, for figures and reports: its configuration, folder and the arrays of test.zarr."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import zarr

from rlsnet.analysis import recording_summary
from rlsnet.config.quoting import typed_command
from rlsnet.config.schema import Config
from rlsnet.data import recordings, trial_clock
from rlsnet.data.recordings import Recording
from rlsnet.data.trial_clock import TrialClock
from rlsnet.errors import UserError
from rlsnet.io import zarr_store
from rlsnet.learning import scores
from rlsnet.model import network_store
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
        return Compared("current_target", "current_mean", "current_correlation", "target", "synaptic current (threshold = 1)")

    def read(self, name: str, *index: Any) -> np.ndarray:
        """An array of test.zarr, or a part of it; raises UserError where it is missing or damaged."""
        stored = None if self.test is None else self.test.get(name)
        if not isinstance(stored, zarr.Array):
            raise UserError(f"{self.run.test}: has no array {name}; {typed_command('test', self.run.path)} makes it anew.")
        return zarr_store.read(stored, index or ...)

    def trained(self) -> np.ndarray:
        """[C, n] bool, the neurons and conditions that the network was trained on."""
        if self.has("trained"):
            return self.read("trained")
        return np.ones((len(self.conditions), len(self.neurons)), bool)

    def score(self, name: str) -> np.ndarray:
        """[C, n] values of a score; NaN where it is undefined, or the neuron is not trained in the condition."""
        return np.where(self.trained(), self.read(name), np.nan)

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
    def region(self) -> np.ndarray | None:
        """[n] regions of the neurons in test.zarr, or None."""
        return np.array([str(name) for name in self.read("region")], dtype=object) if self.has("region") else None

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
        """(start, end) of the learned part, s."""
        trial = self.config.trial
        start, end = self.clock.seconds([trial.stim_off, trial.stim_off + trial.duration])
        return float(start), float(end)

    def unit_name(self, index: int) -> str:
        """Name of a neuron in the test, by its index there: its region, its number in the network, session and id, where known."""
        region, session, number = (str(self.read(name, index)) if self.has(name) else "" for name in ("region", "session", "id"))
        origin = f" ({session + ' ' if session else ''}unit {number})" if self.has("id") else ""
        return f"{region + ' ' if region else ''}neuron {self.neurons[index]}{origin}"

    def short_name(self, index: int) -> str:
        """Region, session and id of a neuron in the test, without what the names of all sessions begin with; else its number."""
        if not self.has("id"):
            return f"neuron {self.neurons[index]}"
        region, session, number = (str(self.read(name, index)) if self.has(name) else "" for name in ("region", "session", "id"))
        return recording_summary.short_name(region, session[self._common_start :], number)

    @functools.cached_property
    def _common_start(self) -> int:
        """Length of what the names of all sessions begin with."""
        return recording_summary.common_start(self.read("session") if self.has("session") else None)

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
        """The inode of the test, which changes when a test is replaced."""
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


def source(results: RunResults) -> tuple[Path | None, Any]:
    """(path, group) of the recording that the targets were made from; None for what is unknown, not found or another recording."""
    run, given = results.run, results.config.recording.path
    about = zarr_store.open_group(run.network, "", network_store.FORMAT).attrs if run.network.exists() else {}
    made_from, fingerprint = about.get("recording"), about.get("recording_fingerprint")
    paths = [Path(str(path)) for path in (made_from, given) if path is not None]
    for path in filter(Path.exists, paths):
        group = zarr_store.open_group(path, "recording.path", recordings.FORMAT)
        kinds = [kind for kind in recordings.TARGETS if kind in group]
        if fingerprint is None or fingerprint in [recordings.open_recording(path, kind).fingerprint for kind in kinds]:
            return path, group
    return (paths[0] if made_from is not None else None), None


def recording_of(results: RunResults) -> Recording | None:
    """The recording of rates that the targets of a run were made from, open; None without one, or where it is not found."""
    path, group = source(results)
    return recordings.open_recording(str(path), "rate") if group is not None and "rate" in group else None
