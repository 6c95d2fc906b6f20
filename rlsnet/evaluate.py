"""Runs with frozen weights: many trials per condition, their PSTHs, currents, spikes and scores, streamed to test.zarr."""

from __future__ import annotations

import dataclasses
import logging
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import zarr
from jax import Array, lax

from rlsnet import scores, simulate, zarrio
from rlsnet.config import Config, UserError
from rlsnet.network import Network
from rlsnet.progress import Progress
from rlsnet.recordings import Recording
from rlsnet.simulate import Dynamics, Keys
from rlsnet.store import Run
from rlsnet.train import compiled

log = logging.getLogger(__name__)

FORMAT = "rlsnet-test"


@partial(jax.tree_util.register_dataclass, data_fields=["counts", "current", "words"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class TrialResult:
    """One trial from stim_off on, by learning bins; n of the N neurons, or all.

    counts: [M, n] int32, spikes.
    current: [M, n] mean total synaptic current.
    words: [M, every, W] uint32, the spikes of each step, as `spikes.pack` packs them; or None.
    """

    counts: Array
    current: Array
    words: Array | None


@partial(jax.jit, static_argnames=("dynamics", "spikes"))
def run_trial(
    dynamics: Dynamics, spikes: bool, network: Network, w: Array, keys: Keys, number: Array, condition: Array, chosen: Array | None = None
) -> TrialResult:
    """Simulates one trial and keeps what the neurons `chosen` [n] do, or all; with `spikes` every spike of all."""
    keys = keys.trial(number, condition)
    every = dynamics.trial.every

    def of_chosen(values: Array) -> Array:
        return values if chosen is None else values[chosen]

    def one_bin(state: simulate.SimState, _: None) -> tuple[simulate.SimState, TrialResult]:
        before = state.n_spikes
        state, words = simulate.advance(dynamics, network, w, state, keys, every, record=spikes)
        result = TrialResult(of_chosen(state.n_spikes - before), of_chosen(state.u_sum / every), words)
        return simulate.restart_sum(state), result

    state = simulate.before_learning(dynamics, network, w, keys)
    return lax.scan(one_bin, state, None, length=dynamics.trial.n_points)[1]


def unpack(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(step, neuron) of every spike in words [steps, W], in order of time."""
    step, place = np.nonzero(np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1, bitorder="little"))
    return step, place % 32 * words.shape[1] + place // 32


def choose(which: str | None, excitatory: np.ndarray) -> np.ndarray:
    """[n] the neurons that test.neurons names, in ascending order; raises UserError.

    Args:
      which: None for all, or indices, ranges, exc and inh with commas between them.
      excitatory: [N] bool.
    """
    n = len(excitatory)
    if which is None:
        return np.arange(n)
    found = np.zeros(n, bool)
    for item in map(str.strip, which.split(",")):
        if item in ("exc", "inh"):
            found |= excitatory == (item == "exc")
            continue
        start, colon, stop = item.partition(":")
        end = int(stop or n) if colon else int(start) + 1
        if end > n:
            right = f"a range within 0:{n}" if colon else f"0 to {n - 1}"
            raise UserError(f"test.neurons={item}: reaches beyond the {n} neurons; should be {right}.")
        found[int(start or 0) : end] = True
    if not found.any():
        raise UserError(f"test.neurons={which}: chooses no neuron of {n}; should be at least one, such as 0:100.")
    return np.flatnonzero(found)


def evaluate(
    config: Config, network: Network, w: Array, target: np.ndarray, recording: Recording | None, run: Run, show: Progress, **about: object
) -> None:
    """Runs test.trials trials of each condition, one after another, and writes test.zarr, whole or not at all.

    What is stored is of test.neurons; all neurons are simulated.

    One after another because that is faster: on two cores a trial of the default network took 1.4 times as long in a batch of 4.

    Args:
      config: the experiment.
      network: the wiring.
      w: [G, L, S] plastic weights.
      target: [C, M, N] currents wanted, NaN where not trained.
      recording: what they come from, if it was recorded.
      run: the folder that takes test.zarr.
      show: progress display.
      about: attributes of the store, such as the iteration of the weights.
    """
    dynamics, trials = Dynamics.of(config), config.test.trials
    keys = Keys.create(config.seed, simulate.TESTING)
    neurons = choose(config.test.neurons, np.asarray(network.excitatory))
    chosen = None if config.test.neurons is None else jnp.asarray(neurons, jnp.int32)
    one, seconds = compiled(run_trial, dynamics, config.test.spikes, network, w, keys, jnp.int32(0), jnp.int32(0), chosen)
    log.info("Compiled in %.1f s.", seconds)
    with zarrio.replacing(run.test) as temporary, show.counting("trials") as tell:
        root = zarr.create_group(str(temporary), attributes={"format": FORMAT, "dt_ms": config.trial.dt, "trials": trials, **about})
        root.attrs["n_neurons"] = network.n_neurons
        names = [str(c) for c in range(len(target))] if recording is None else list(recording.conditions)
        out = _Output(root, config, network, names, neurons)
        rates = (
            None if recording is None or recording.kind != "rate" else recorded_rates(recording, network.n_neurons, config.seed, neurons)
        )
        for condition in range(len(target)):
            shape = target.shape[1], len(neurons)
            counts = np.zeros(shape, np.int64)
            mean, squares = np.zeros(shape), np.zeros(shape)
            for trial in range(trials):
                result = jax.device_get(one(network, w, keys, jnp.int32(trial), jnp.int32(condition), chosen))
                counts += result.counts
                difference = result.current - mean
                mean += difference / (trial + 1)
                squares += difference * (result.current - mean)
                out.add_spikes(result.words)
                tell(condition * trials + trial + 1, len(target) * trials)
            rate = None if rates is None else rates[condition]
            wanted = target[condition] if chosen is None else target[condition][:, neurons]
            out.add_condition(condition, counts, mean, np.sqrt(squares / max(1, trials - 1)), wanted, rate)
        out.finish()


def recorded_rates(recording: Recording, n: int, seed: int, neurons: np.ndarray) -> np.ndarray:
    """[C, M, len(neurons)] float32 rates of the units that those neurons of a network of n stand for."""
    units = recording.choose(n, seed)
    units = neurons if units is None else units[neurons]
    return np.concatenate([block.astype(np.float32) for block in recording.stream(units)], axis=2)


class _Output:
    """The arrays of a test.zarr and how they are filled, for some neurons; opens in xarray."""

    def __init__(self, root: zarr.Group, config: Config, network: Network, conditions: list[str], neurons: np.ndarray):
        trial, n = config.trial, len(neurons)
        self.root, self.trial, self.trials = root, trial, config.test.trials
        self.kept = np.isin(np.arange(network.n_neurons), neurons)
        self.by_bin, self.by_neuron = (len(conditions), trial.n_points, n), (len(conditions), n)
        zarrio.write(root, "condition", np.array(conditions), ["condition"])
        end = trial.stim_off + trial.learn_every * np.arange(1, trial.n_points + 1)
        zarrio.write(root, "time", end, ["time"], units="ms", long_name="end of the bin, from the start of the trial")
        zarrio.write(root, "neuron", neurons, ["neuron"])
        zarrio.write(root, "excitatory", np.asarray(network.excitatory)[neurons], ["neuron"])
        self.ends = [0]
        if config.test.spikes:
            for name, meaning in (("step", "time step of a spike; times dt_ms is its time in the trial"), ("neuron", "who spiked")):
                root.create_array(
                    f"spikes/{name}",
                    shape=(0,),
                    chunks=(2**20,),
                    dtype="uint32",
                    dimension_names=["spike"],
                    attributes={"long_name": meaning},
                )

    def add_spikes(self, words: np.ndarray | None) -> None:
        """Appends the spikes of one trial, bin by bin."""
        if words is None:
            return
        first = self.trial.steps(self.trial.stim_off)
        found = [tuple(values[self.kept[neuron]] for values in (step, neuron)) for step, neuron in map(unpack, words)]
        steps = [step + first + m * self.trial.every for m, (step, _) in enumerate(found)]
        self.root["spikes/step"].append(np.concatenate(steps).astype(np.uint32))
        self.root["spikes/neuron"].append(np.concatenate([neuron for _, neuron in found]).astype(np.uint32))
        self.ends.append(self.ends[-1] + sum(map(len, steps)))

    def finish(self) -> None:
        """Writes where each trial's spikes start and end, conditions one after the other."""
        if len(self.ends) > 1:
            zarrio.write(self.root, "spikes/trial_indptr", np.array(self.ends), ["trial_end"])

    def add_condition(
        self, condition: int, counts: np.ndarray, mean: np.ndarray, sd: np.ndarray, target: np.ndarray, rate: np.ndarray | None
    ) -> None:
        """Writes the averages and scores of one condition; all arguments are [M, n], the rate recorded or None."""
        psth = counts * (1000 / (self.trials * self.trial.learn_every))
        self._put("psth", condition, psth, units="Hz", long_name="model firing rate, mean over trials")
        self._put("current_mean", condition, mean, units="threshold", long_name="total synaptic current, mean over trials")
        self._put("current_sd", condition, sd, units="threshold", long_name="s.d. over trials of the current's mean in a bin")
        self._put("current_target", condition, target, units="threshold", long_name="target current")
        score = scores.current_correlation(self.trial, jnp.asarray(mean, jnp.float32), jnp.asarray(target, jnp.float32))
        self._put("current_correlation", condition, score, long_name="correlation of target and windowed mean current")
        self._put("rate", condition, counts.sum(axis=0) * (1000 / (self.trials * self.trial.duration)), units="Hz", long_name="mean rate")
        if rate is not None:
            self._put("rate_target", condition, rate, units="Hz", long_name="recorded firing rate")
            score = scores.current_correlation(self.trial, jnp.asarray(psth, jnp.float32), jnp.asarray(rate))
            self._put("rate_correlation", condition, score, long_name="correlation of recorded and windowed model rate")

    def _put(self, name: str, condition: int, values: object, **attributes: Any) -> None:
        """One condition's slice of a float32 array [C, M, n] or [C, n], created at the first."""
        values = np.asarray(values, np.float32)
        if name not in self.root:
            dims = ["condition", "time", "neuron"] if values.ndim == 2 else ["condition", "neuron"]
            shape = self.by_bin if values.ndim == 2 else self.by_neuron
            zarrio.create(self.root, name, shape, "float32", dims, along=len(dims) - 1, **attributes)
        self.root[name][condition] = values
