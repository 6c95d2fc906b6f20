"""Test of a network with frozen weights: PSTHs, currents, spikes and scores of many trials per condition, written to test.zarr."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import zarr
from jax import Array, lax

from rlsnet.config.schema import ChangedConfig, Config, CueConfig, WindowConfig
from rlsnet.data import trial_clock
from rlsnet.data.neuron_table import NeuronTable
from rlsnet.data.recordings import Recording
from rlsnet.errors import UserError, did_you_mean
from rlsnet.io import atomic, zarr_store
from rlsnet.learning import linear_baseline
from rlsnet.model import sharding
from rlsnet.model.network import Network
from rlsnet.runs.progress import Progress
from rlsnet.simulation import cue as cues
from rlsnet.simulation import perturbation as perturbations
from rlsnet.simulation.cue import Cue
from rlsnet.simulation.perturbation import Perturbation
from rlsnet.simulation.state import TESTING, Dynamics, SimState, TrialKeys
from rlsnet.simulation.trial import Program, advance, before_learning
from rlsnet.workflows import interrupts, test_store
from rlsnet.workflows.test_store import TrialAverage, TrialResult, create_test

log = logging.getLogger(__name__)


@partial(jax.jit, static_argnames=("dynamics", "spikes"))
def run_trial(
    dynamics: Dynamics,
    spikes: bool,
    network: Network,
    w: Array,
    keys: TrialKeys,
    number: Array,
    condition: Array,
    chosen: Array | None = None,
) -> tuple[TrialResult, Array]:
    """Results of one trial for the neurons `chosen` [n] (None: all), and whether spikes overflowed.

    With `spikes`, the results contain all spikes of all neurons. On several devices, the results are those of all neurons.
    """
    run = partial(_run_trial, dynamics, spikes, None if network.mesh is not None else chosen)
    by_neuron, everywhere = sharding.along(1, 2), sharding.EVERYWHERE
    returned = TrialResult(by_neuron, by_neuron, everywhere if spikes else None), everywhere  # type: ignore[arg-type]
    placed = sharding.BY_NEURON, keys.placement, everywhere, everywhere
    return sharding.over_devices(network, run, (w, keys, number, condition), placed, returned)


def _run_trial(
    dynamics: Dynamics, spikes: bool, chosen: Array | None, network: Network, w: Array, keys: TrialKeys, number: Array, condition: Array
) -> tuple[TrialResult, Array]:
    """`run_trial` for the neurons of a shard."""
    keys = keys.trial(number, condition)
    every = dynamics.trial.every

    def of_chosen(values: Array) -> Array:
        return values if chosen is None else values[chosen]

    def one_bin(state: SimState, _: None) -> tuple[SimState, TrialResult]:
        before = sharding.own(network, state.n_spikes)
        state, words = advance(dynamics, network, w, state, keys, every, record=spikes)
        result = TrialResult(of_chosen(sharding.own(network, state.n_spikes) - before), of_chosen(state.u_sum / every), words)
        return state.with_zero_sum(), result

    state = before_learning(dynamics, network, w, keys)
    state, result = lax.scan(one_bin, state, None, length=dynamics.trial.n_points)
    return result, state.overflowed


def evaluate(
    config: Config,
    network: Network,
    w: Array,
    target: np.ndarray,
    table: NeuronTable,
    path: Path | None,
    show: Progress,
    initial: Array | None = None,
    placed: Network | None = None,
    **about: object,
) -> None:
    """Simulates test.trials trials of each condition and writes their averages and scores to a test.zarr, complete or not at all.

    All neurons are simulated; the results of those of test.neurons are stored. Trials are simulated one after another: in a batch of
    4, a trial of the default network took 1.4 times as long on two cores. With recorded rates and no perturbation, baselines are
    scored too: the network with its initial weights, and linear predictions from recorded rates.

    Args:
      config: the experiment.
      network: neurons and connectivity.
      w: [G, L, S] plastic weights.
      target: [C, M, N] target currents, threshold units; NaN: not trained.
      table: the neurons, and the recording that the targets were made from, if there is one.
      path: path of the new store; None: another process writes it.
      show: display of progress.
      initial: [G, L, S] initial weights, or None where w are these.
      placed: the network on several devices, on which the weights are too; None: the network.
      about: attributes of the store, such as the iteration of the weights.
    """
    dynamics, trials, recording = Dynamics.from_config(config), config.test.trials, table.recording
    keys = TrialKeys.create(config.seed, TESTING)
    with show.busy("Compiling"):
        neurons = table.select(config.test.neurons, "test.neurons")
        clock = trial_clock.of_recording(recording, config.trial)
        trained = np.stack([np.isfinite(values).any(axis=0) for values in target])
        names = test_store.condition_names(recording, len(target))
        perturbation = perturbations.from_config(config, table, TESTING, clock.start) or cues.from_config(config, names, clock.start)
        _check_compared(config, recording, names, trained)
        keys = dataclasses.replace(keys, perturbation=perturbation)
        chosen = None if config.test.neurons is None else jnp.asarray(neurons, jnp.int32)
        whole, network_keys = network if placed is None else placed, keys if placed is None else keys.on_devices(placed)
        one = Program(run_trial, dynamics, (config.test.spikes,), whole, w, network_keys, jnp.int32(0), jnp.int32(0), chosen)
    log.info("Compiled in %.1f s.", one.seconds)
    scored = recording is not None and recording.kind == "rate" and perturbation is None
    untrained = min(trials, config.test.untrained_trials) if scored and initial is not None else 0
    total = len(target) * (trials + untrained)

    def trial_of(weights: Any, condition: int, trial: int) -> TrialResult:
        interrupts.check()
        result: TrialResult = one(whole, weights, network_keys, jnp.int32(trial), jnp.int32(condition), chosen)
        return result.on_host(network.n_neurons, neurons)

    weights_now = sharding.on_host(w)[: len(network.pre)]
    if path is None:
        for condition in range(len(target)):
            for weights, number in ((w, trials), (initial, untrained)):
                for trial in range(number):
                    trial_of(weights, condition, trial)
        return
    items = "trials" + (f" ({len(target) * untrained} of them with the initial weights)" if untrained else "")
    with atomic.replacing(path) as temporary, show.counting(items, total) as report:
        out = create_test(temporary, config, network, weights_now, recording, trained[:, neurons], neurons, clock, about)
        for name in test_store.LABELS:
            if name in table.more and name not in out.root:
                zarr_store.write(out.root, name, table.more[name][neurons], ["neuron"])
        if perturbation is not None:
            _describe(out.root, config, perturbation, neurons)
        done = itertools.count(1)

        def average_of(weights: Any, condition: int, number: int, store: Callable[[Any], None]) -> TrialAverage:
            """The average of some trials, whose spikes are stored."""
            average = out.new_average(number)
            for trial in range(number):
                result = trial_of(weights, condition, trial)
                average.add(result)
                store(result.words)
                report(next(done), total)
            return average

        for condition in range(len(target)):
            wanted = target[condition] if chosen is None else target[condition][:, neurons]
            out.add_condition(condition, average_of(w, condition, trials, out.add_spikes), wanted)  # each average is freed before the next
            if untrained and initial is not None:
                out.add_error("untrained", condition, average_of(initial, condition, untrained, lambda _: None))
        out.finish(
            _linear(config, network, recording, np.any(trained, axis=1)) if scored and recording is not None and network.n_inputs else None
        )
        zarr_store.seal(temporary)


def _check_compared(config: Config, recording: Recording | None, names: Sequence[str], trained: np.ndarray) -> None:
    """Raises UserError unless perturb.compare names conditions with recorded rates; warns where the network was trained on them."""
    compare = config.perturb.compare if isinstance(config.perturb, ChangedConfig) else None
    if compare and (recording is None or recording.kind != "rate"):
        raise UserError("perturb.compare: needs the recorded rates of perturbed trials; expected a run with target=recording.")
    for own, other in (compare or {}).items():
        if own == other:
            raise UserError(f"perturb.compare={{{own}:{other}}}: expected another condition than {own}, of recorded perturbed trials.")
        for name in (own, other):
            if name not in names:
                expected = f"expected some of {', '.join(names)}.{did_you_mean(name, names)}"
                raise UserError(f"perturb.compare={{{own}:{other}}}: no condition {name}; {expected}")
        if trained[list(names).index(other)].any():
            log.warning("The network was trained on condition %s, so its effect is no prediction; train.conditions leaves it out.", other)


def _describe(root: zarr.Group, config: Config, perturbation: Perturbation | Cue, neurons: np.ndarray) -> None:
    """Writes the perturbation of a test: the attribute `perturb`, and which of the stored `neurons` are perturbed."""
    if isinstance(perturbation, Cue):
        assert isinstance(config.perturb, CueConfig)
        about, perturbed = cues.about(perturbation, config.perturb, config.trial), np.zeros(len(neurons), bool)
    else:
        assert isinstance(config.perturb, WindowConfig)
        about = perturbations.about(perturbation, config.perturb, config.trial)
        perturbed = np.asarray(perturbation.neurons)[neurons]
    root.attrs["perturb"] = about
    zarr_store.write(root, "perturbed", perturbed, ["neuron"])


def _linear(config: Config, network: Network, recording: Recording, conditions: np.ndarray) -> linear_baseline.LinearBaseline:
    """Linear predictions of the recorded rates from the recorded rates of the plastic inputs, in the trained `conditions` [C] bool."""
    tau = np.asarray(network.parameters.get("tau_plas", config.synapse.tau_plas), np.float64)
    tau = np.broadcast_to(tau, network.n_neurons + network.n_feedforward)[: network.n_neurons]
    rate = recording.read(recording.choose(network.n_neurons, config.seed))
    found = linear_baseline.fit(rate[conditions], np.asarray(network.pre), network.group_size, tau, config.trial.learn_every, config.seed)
    if conditions.all():
        return found
    every = np.full(rate.shape, np.nan, np.float32)
    every[conditions] = found.rate
    return found._replace(rate=every)
