"""Store test.zarr: results of trials with frozen weights, written condition by condition."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import zarr
from jax import Array

from rlsnet.config.schema import Config, OUFeedforwardConfig, OUStimulusConfig
from rlsnet.data import trial_clock, trial_counts
from rlsnet.data.recordings import HALVES, Recording
from rlsnet.data.statistics import mean_known
from rlsnet.data.trial_clock import TrialClock
from rlsnet.errors import UserError
from rlsnet.io import zarr_store
from rlsnet.learning import population, scores
from rlsnet.learning.linear_baseline import LinearBaseline
from rlsnet.model import sharding
from rlsnet.model.network import Network
from rlsnet.runs.folder import Run

FORMAT = "rlsnet-test"


UNIT_COLUMNS = ("session", "id", "region", "probe")  # columns of a recording that are copied to the test
LABELS = ("name", "type", "region")  # texts of the neurons of an imported connectome that are copied to the test
SPIKE_CHUNK = 2**20  # spikes of a chunk, which are written together
SCORED_NEURONS = 4096  # neurons whose scores are computed together, to limit the memory for sums in float64


SPIKES: dict[str, tuple[str, dict[str, str]]] = {  # arrays spikes/NAME [spikes]: type and attributes
    "time": ("float64", {"units": "s"}),
    "step": ("uint32", {"long_name": "time step of a spike in its trial; times dt_ms it is the time in ms from the start of the trial"}),
    "neuron": ("uint32", {"long_name": "index of the neuron that spiked"}),
    "condition": ("uint16", {"long_name": "number of the condition"}),
    "trial": ("uint32", {"long_name": "number of the trial among those of its condition, from 0"}),
}


@partial(jax.tree_util.register_dataclass, data_fields=["counts", "current", "words"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class TrialResult:
    """Result of one trial from stim_off on, by learning bins, for n of the N neurons.

    counts: [M, n] int32 spikes.
    current: [M, n] mean total synaptic current, threshold.
    words: [M, every, W] uint32, the spikes of all neurons in each step, packed by `delivery.pack`; or None.
    """

    counts: Array
    current: Array
    words: Array | None

    def on_host(self, n: int, chosen: np.ndarray | None = None) -> TrialResult:
        """The result in the memory of this process, of the first `n` neurons, or of those `chosen` among them.

        On several devices it has all neurons, and some that do not exist; all processes call this together.
        """
        kept = np.arange(self.counts.shape[1])[:n] if chosen is None or self.counts.shape[1] == len(chosen) else chosen
        counts, current = (np.asarray(sharding.on_host(each)) for each in (self.counts, self.current))
        if len(kept) < counts.shape[1]:
            counts, current = counts[:, kept], current[:, kept]
        words = None if self.words is None else np.asarray(self.words)
        return TrialResult(counts, current, words)  # type: ignore[arg-type]


def unpack(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(step, neuron) of every spike in words [steps, W] of `delivery.pack`, in order of time."""
    place = np.flatnonzero(words)  # few words have any spike
    spike, bit = np.nonzero(np.unpackbits(words.reshape(-1)[place].astype("<u4").view(np.uint8).reshape(-1, 4), axis=1, bitorder="little"))
    step, word = np.divmod(place[spike], words.shape[1])
    return step, bit * words.shape[1] + word


class TrialAverage:
    """Averages over the trials of a condition.

    spikes: spikes, summed over groups of trials.
    mean: [M, n] mean currents, threshold units.
    """

    def __init__(self, spikes: population.TrialSums):
        self.spikes = spikes
        self.mean, self._squares = np.zeros((2, *spikes.counts.shape[1:]))

    def add(self, result: TrialResult) -> None:
        """Adds the next trial, by Welford's recursion for means and sums of squares."""
        self.spikes.add(np.asarray(result.counts))
        difference = result.current - self.mean
        self.mean += difference / self.spikes.trials
        self._squares += difference * (result.current - self.mean)

    def sd(self) -> np.ndarray:
        """[M, n] s.d. of the currents over trials."""
        return np.sqrt(self._squares / max(1, self.spikes.trials - 1))


def blocks_of_neurons(n: int) -> Iterator[slice]:
    """Slices of n neurons that are scored together."""
    return (slice(start, min(start + SCORED_NEURONS, n)) for start in range(0, n, SCORED_NEURONS))


def has_random_inputs(config: Config) -> bool:
    """Whether inputs that tell the condition are drawn at random, so that those of a condition that is not trained mean nothing."""
    return isinstance(config.stimulus, OUStimulusConfig) or isinstance(config.feedforward, OUFeedforwardConfig)


def condition_names(recording: Recording | None, n: int) -> list[str]:
    """Names of the n conditions: those of the recording, or their numbers."""
    return [str(c) for c in range(n)] if recording is None else list(recording.conditions)


def fingerprint(w: Array | np.ndarray) -> str:
    """Hash of weights, to find whether two tests used the same weights."""
    return hashlib.sha256(np.asarray(w).tobytes()).hexdigest()[:16]


def open_test(run: Run, path: Path) -> zarr.Group:
    """The test or perturbed test of a run at a path, opened for reading.

    Raises:
      UserError: it cannot be read, or was made with another network than the one in the folder.
    """
    group = zarr_store.open_group(path, "", FORMAT)
    run.check_network(path, group)
    return group


@dataclasses.dataclass(frozen=True)
class RecordedRates:
    """Recorded rates of the units that n neurons are trained on.

    target: [C, M, n] Hz, rates of the trials that were trained on.
    heldout: [C, M, n] Hz, rates of the held-out trials; or None.
    halves: two [C, M, n] Hz, rates of odd-numbered and of even-numbered trials; or None.
    columns: [n] each, by name: `unit`, the index in the recording, and those of UNIT_COLUMNS that it has.
    smoothing: weights of the kernel that smoothed the rates, (): none.
    counts: ([C, M, n] spikes, [C, n] trials) of the trials held out, or of all if none are; None where the recording has no counts.
    """

    target: np.ndarray
    heldout: np.ndarray | None
    halves: tuple[np.ndarray, np.ndarray] | None
    columns: dict[str, np.ndarray]
    smoothing: tuple[float, ...]
    counts: tuple[np.ndarray, np.ndarray] | None

    @staticmethod
    def read(recording: Recording, n: int, seed: int, neurons: np.ndarray) -> RecordedRates:
        """The rates for some neurons of a network of n."""
        units = recording.choose(n, seed)
        units = neurons if units is None else units[neurons]
        columns = {"unit": units, **{name: values[units] for name in UNIT_COLUMNS if (values := recording.column(name)) is not None}}
        other = None if recording.half is None else HALVES[1 - HALVES.index(recording.half)]
        about = columns, recording.smoothing, trial_counts.summed(recording, units, other)
        if recording.halves is None:
            return RecordedRates(recording.read(units), None, None, *about)
        odd, even = (recording.read(units, half) for half in HALVES)
        if recording.half is None:
            return RecordedRates(recording.read(units), None, (odd, even), *about)
        trained, heldout = (odd, even) if recording.half == "odd" else (even, odd)
        return RecordedRates(trained, heldout, (odd, even), *about)


def create_test(
    path: Path,
    config: Config,
    network: Network,
    w: Array | np.ndarray,
    recording: Recording | None,
    trained: np.ndarray,
    neurons: np.ndarray,
    clock: TrialClock,
    about: dict[str, object],
) -> TestWriter:
    """A new test.zarr with its attributes, for the results of some neurons, of which [C, n] bool `trained` are trained.

    Raises:
      UserError: spikes cannot number the conditions.
    """
    conditions = len(trained)
    most = np.iinfo(SPIKES["condition"][0]).max + 1
    if config.test.spikes and conditions > most:
        raise UserError(f"test.spikes=true: expected at most {most:,} conditions, there are {conditions:,}; test.spikes=false stores none.")
    attributes = {"format": FORMAT, "dt_ms": config.trial.dt, "trials": config.test.trials, **about}
    root = zarr.create_group(str(path), attributes=attributes)
    root.attrs["n_neurons"], root.attrs["weights"] = network.n_neurons, fingerprint(w)
    names, recorded = condition_names(recording, conditions), None
    if recording is not None and recording.kind == "rate":
        recorded = RecordedRates.read(recording, network.n_neurons, config.seed, neurons)
        root.attrs["trained_on"], root.attrs["smoothing"] = recording.half or "all", list(recording.smoothing)
    root.attrs[trial_clock.ATTRIBUTE] = clock.stored()
    return TestWriter(root, config, network, names, neurons, recorded, clock, trained)


class TestWriter:
    """Writer of the arrays of a test.zarr, which xarray can open."""

    def __init__(
        self,
        root: zarr.Group,
        config: Config,
        network: Network,
        conditions: list[str],
        neurons: np.ndarray,
        recorded: RecordedRates | None,
        clock: TrialClock,
        trained: np.ndarray,
    ):
        trial, n = config.trial, len(neurons)
        self.root, self.trial, self.trials, self.recorded, self.clock = root, trial, config.test.trials, recorded, clock
        self.trained, self.random_inputs = trained, has_random_inputs(config)
        if not trained.all():
            meaning = "whether the neuron was trained in this condition"
            zarr_store.write(root, "trained", trained, ["condition", "neuron"], long_name=meaning)
        self.stored = np.isin(np.arange(network.n_neurons), neurons)
        self.by_bin, self.by_neuron = (len(conditions), trial.n_points, n), (len(conditions), n)
        self.smoothing = scores.smoothing_weights(() if recorded is None else recorded.smoothing, trial.n_points)
        self.errors = {} if recorded is None else self._recorded_errors(recorded)
        self.gains: dict[str, np.ndarray] = {}
        self.error_variance = 0.0  # of the squared error of the model, over the conditions so far, Hz^4
        zarr_store.write(root, "condition", np.array(conditions), ["condition"])
        root.attrs["bin_ms"] = trial.learn_every
        zarr_store.write(root, "time", clock.centres(trial), ["time"], units="s", long_name=f"{clock.label}, centre of the bin")
        zarr_store.write(root, "neuron", neurons, ["neuron"])
        zarr_store.write(root, "excitatory", np.asarray(network.excitatory)[neurons], ["neuron"])
        for name, values in {} if recorded is None else recorded.columns.items():
            zarr_store.write(root, name, values, ["neuron"])
        self.ends, self.arrays = [0], dict[str, zarr.Array]()
        self.waiting: list[dict[str, np.ndarray]] = []  # spikes of trials, not written yet
        if config.test.spikes:
            for name, (dtype, about) in SPIKES.items():
                attributes: dict[str, Any] = about | ({"long_name": clock.label} if name == "time" else {})
                array = zarr_store.create(root, f"spikes/{name}", (0,), dtype, ["spike"], chunks=(SPIKE_CHUNK,), **attributes)
                self.arrays[f"spikes/{name}"] = array

    def add_spikes(self, words: np.ndarray | None) -> None:
        """Appends the spikes of the next trial, bin by bin; conditions follow each other."""
        if words is None:
            return
        first = self.trial.steps(self.trial.stim_off)
        found = [tuple(values[self.stored[neuron]] for values in (step, neuron)) for step, neuron in map(unpack, words)]
        step = np.concatenate([step + first + m * self.trial.every for m, (step, _) in enumerate(found)])
        condition, trial = divmod(len(self.ends) - 1, self.trials)
        values = {"step": step, "neuron": np.concatenate([neuron for _, neuron in found])}
        values |= {"time": np.round(self.clock.seconds(step * self.trial.dt), 9)}
        values |= {"condition": np.full(len(step), condition), "trial": np.full(len(step), trial)}
        self.waiting.append({name: values[name].astype(dtype) for name, (dtype, _) in SPIKES.items()})
        self.ends.append(self.ends[-1] + len(step))
        if sum(len(each["step"]) for each in self.waiting) >= SPIKE_CHUNK:
            self._write_spikes()

    def _write_spikes(self) -> None:
        """Writes the spikes that wait."""
        for name in SPIKES if self.waiting else ():
            self.arrays[f"spikes/{name}"].append(np.concatenate([each[name] for each in self.waiting]))
        self.waiting.clear()

    def finish(self, linear: LinearBaseline | None = None) -> None:
        """Writes the ends of the trials in the list of spikes (conditions one after the other), and the summary of the scores.

        Args:
          linear: linear predictions of the rates of all neurons of the network, to be scored too.
        """
        self._write_spikes()
        if len(self.ends) > 1:
            zarr_store.write(self.root, "spikes/trial_indptr", np.array(self.ends), ["trial_end"])
        found = {name: self.root[name][...] for name in scores.SCORES if name in self.root}
        excitatory, names = self.root["excitatory"][...], [str(name) for name in self.root["condition"][...]]
        region = None if self.recorded is None else self.recorded.columns.get("region")
        summary = scores.summary(found, excitatory, names, region, self.trained)
        if self.recorded is not None:
            target, heldout, about = self.recorded.target, self.recorded.heldout, {}
            if linear is not None:
                data, predicted = population.compared(target, heldout), linear.rate[..., self.stored]
                missing = ~np.isfinite(predicted).any(axis=(0, 1))
                self.errors["linear"] = np.where(missing, np.nan, population.squared_error(predicted, data))
                about = {"linear": {"penalty": linear.penalty, "neurons": int((~missing).sum())}}
            rate_error, known = np.where(self.trained, found["rate_error"], np.nan), self._of_trained(target)
            summary["population"] = population.explained(self.errors, names, region, self.trained) | {
                "rate_bias": population.rate_bias(rate_error, known, heldout, names),
                "trained_on": self.root.attrs["trained_on"],
                "neurons": int(np.isfinite(known).any(axis=(0, 1)).sum()),
                "trials": self.trials,
                **about,
            }
            if not np.any(self.trained, axis=1).all() and self.random_inputs:
                summary["population"]["random_inputs"] = True
            total = float(self.errors["total"][self.trained].sum())
            if total > 0 and np.isfinite(self.error_variance):
                summary["population"]["standard_error"] = float(np.sqrt(self.error_variance) / total)
            if self.recorded.counts is not None:
                spikes = self.recorded.counts[0].sum(axis=1, dtype=np.float64)
                summary["population"]["bits_per_spike"] = population.bits_per_spike(self.gains, spikes, names, region, self.trained)
        self.root.attrs["scores"] = summary

    def _of_trained(self, rates: np.ndarray) -> np.ndarray:
        """Rates [C, M, n] with NaN for what is not trained."""
        return rates if self.trained.all() else np.where(self.trained[:, None, :], rates, np.nan)

    def _current_correlation(self, mean: np.ndarray, target: np.ndarray) -> np.ndarray:
        """[n] correlation of target and mean current [M, n], in blocks of one size: XLA's sums depend on the shape of a matrix."""
        found = []
        for start in range(0, mean.shape[1], SCORED_NEURONS):
            block = [np.asarray(values[:, start : start + SCORED_NEURONS], np.float32) for values in (mean, target)]
            n = block[0].shape[1]
            padded = (jnp.asarray(np.pad(values, ((0, 0), (0, SCORED_NEURONS - n)))) for values in block)
            found.append(np.asarray(scores.current_correlation(self.trial, *padded))[:n])
        return np.concatenate(found)

    def add_condition(self, condition: int, average: TrialAverage, target: np.ndarray) -> None:
        """Writes the averages of one condition, and its scores against the target [M, n] and the recorded rates.

        For the scores the rates are smoothed as those of the recording.
        """
        spikes, mean, recorded = average.spikes.counts.sum(axis=0, dtype=np.int64), average.mean, self.recorded
        psth = spikes * (1000 / (self.trials * self.trial.learn_every))
        self._put("psth", condition, psth, units="Hz", long_name="model firing rate, mean over trials")
        self._put("current_mean", condition, mean, units="threshold", long_name="total synaptic current, mean over trials")
        self._put("current_sd", condition, average.sd(), units="threshold", long_name="s.d. over trials of the current's mean in a bin")
        self._put("current_target", condition, target, units="threshold", long_name="target current")
        self._put_score("current_correlation", condition, self._current_correlation(mean, target))
        self._put("rate", condition, spikes.sum(axis=0) * (1000 / (self.trials * self.trial.duration)), units="Hz", long_name="mean rate")
        if recorded is None:
            return
        self._put("rate_target", condition, recorded.target[condition], units="Hz", long_name="recorded firing rate, trained on")
        if recorded.heldout is not None:
            self._put("rate_heldout", condition, recorded.heldout[condition], units="Hz", long_name="recorded firing rate, held out")
        for name, values in self._rate_scores(condition, average.spikes, recorded).items():
            self._put_score(name, condition, values)
        self.error_variance += self.add_error("model", condition, average)
        if recorded.counts is not None:
            rates = {"model": self.smoothing @ psth} | ({} if recorded.heldout is None else {"ceiling": recorded.target[condition]})
            for name, rate in rates.items():
                self.gains.setdefault(name, np.zeros(self.by_neuron))[condition] = self._gain(condition, rate, recorded)

    def _rate_scores(self, condition: int, spikes: population.TrialSums, recorded: RecordedRates) -> dict[str, np.ndarray]:
        """Scores [n] against recorded rates by name, computed in blocks of neurons."""
        blocks = []
        for part in self._blocks():
            mine = condition, slice(None), part
            heldout = None if recorded.heldout is None else recorded.heldout[mine]
            halves = None if recorded.halves is None else (recorded.halves[0][mine], recorded.halves[1][mine])
            smoothed = self.smoothing @ spikes.halves(part)
            blocks.append(scores.rate_scores(self.trial, smoothed, self.trials, recorded.target[mine], heldout, halves))
        return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}

    def _gain(self, condition: int, rate: np.ndarray, recorded: RecordedRates) -> np.ndarray:
        """[n] log likelihood of the recorded counts under rates [M, n] beyond that of the mean rates trained on."""
        assert recorded.counts is not None
        blocks, (spikes, trials) = [], recorded.counts
        for part in self._blocks():
            mean = mean_known(recorded.target[..., part].reshape(-1, part.stop - part.start).astype(float))
            of_part = spikes[condition, :, part], trials[condition, part]
            blocks.append(population.log_likelihood_gain(rate[:, part], mean, *of_part, self.trial.learn_every / 1000))
        return np.concatenate(blocks)

    def _blocks(self) -> Iterator[slice]:
        """Slices of the neurons that are scored together."""
        return blocks_of_neurons(self.by_neuron[1])

    def _recorded_errors(self, recorded: RecordedRates) -> dict[str, np.ndarray]:
        """Squared errors [C, n] of what the recorded rates predict, by name."""
        blocks = []
        for part in self._blocks():
            heldout = None if recorded.heldout is None else recorded.heldout[..., part]
            blocks.append(population.recorded_errors(recorded.target[..., part], heldout, np.any(self.trained, axis=1)))
        return {name: np.concatenate([block[name] for block in blocks], axis=1) for name in blocks[0]}

    def add_error(self, name: str, condition: int, average: TrialAverage) -> float:
        """Adds the squared errors of simulated trials of a condition to those of the predictions, if there are recorded rates.

        Returns:
          The variance of their sum over neurons, Hz^4; NaN with fewer than 3 trials.
        """
        recorded = self.recorded
        if recorded is None:
            return float("nan")
        errors, products = self.errors.setdefault(name, np.zeros(self.by_neuron)), np.zeros((1, 1))
        weights = self.smoothing * (1000 / self.trial.learn_every)
        for part in self._blocks():
            heldout = None if recorded.heldout is None else recorded.heldout[condition, :, part]
            data = population.compared(recorded.target[condition, :, part], heldout)
            errors[condition, part], of_part = average.spikes.squared_error(weights, data, part)
            if not self.trained[condition, part].all():  # the uncertainty is that of the trained neurons
                _, of_part = average.spikes.squared_error(weights, np.where(self.trained[condition, part], data, np.nan), part)
            products = products + of_part
        return average.spikes.error_variance(products)

    def new_average(self, trials: int) -> TrialAverage:
        """No trials yet, of `trials` of a condition."""
        return TrialAverage(population.TrialSums(trials, self.by_bin[1:], self.trial.every, compared=self.recorded is not None))

    def _put_score(self, name: str, condition: int, values: object) -> None:
        score = scores.SCORES[name]
        self._put(name, condition, values, long_name=score.meaning, **({"units": score.unit} if score.unit else {}))

    def _put(self, name: str, condition: int, values: object, **attributes: Any) -> None:
        """Writes one condition of a float32 array [C, M, n] or [C, n], which the first condition creates."""
        values = np.asarray(values, np.float32)
        if name not in self.arrays:
            dims = ["condition", "time", "neuron"] if values.ndim == 2 else ["condition", "neuron"]
            shape = self.by_bin if values.ndim == 2 else self.by_neuron
            self.arrays[name] = zarr_store.create(self.root, name, shape, "float32", dims, along=len(dims) - 1, **attributes)
        self.arrays[name][condition] = values
