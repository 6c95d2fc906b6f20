"""Analyses that simulate new trials of a trained network: silencing of each region in turn, and one neuron in full time resolution."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from rlsnet.analysis.analyses.activity import Activity
from rlsnet.analysis.analyses.regions import Coupling
from rlsnet.analysis.analyses.variables import Result, Variable
from rlsnet.config.schema import Config, SilenceConfig
from rlsnet.data.statistics import ratio
from rlsnet.data.trial_clock import TrialClock
from rlsnet.errors import UserError
from rlsnet.io.formatting import counted
from rlsnet.model import connectivity
from rlsnet.model.network import Network
from rlsnet.simulation.perturbation import Perturbation, from_config
from rlsnet.simulation.state import TESTING, Dynamics, SimState, TrialKeys
from rlsnet.simulation.step import currents
from rlsnet.simulation.trial import Program, advance, before_learning
from rlsnet.workflows import interrupts
from rlsnet.workflows.evaluation import run_trial


def _trials(
    config: Config, coupling: Coupling, perturbations: Sequence[Perturbation | None], conditions: np.ndarray, trials: int
) -> Iterator[tuple[int, int, int, np.ndarray]]:
    """(number of the perturbation, place in `conditions`, trial, counts [M, N]) of new trials, of the same random numbers."""
    network, dynamics = coupling.trained.network, Dynamics.from_config(config)
    w = jnp.asarray(connectivity.to_groups(coupling.trained.weight, network.group_size))
    programs: dict[bool, Program] = {}
    for number, perturbation in enumerate(perturbations):
        keys = dataclasses.replace(TrialKeys.create(config.seed, TESTING), perturbation=perturbation)
        with_one = perturbation is not None
        if with_one not in programs:
            programs[with_one] = Program(run_trial, dynamics, (False,), network, w, keys, jnp.int32(0), jnp.int32(0), None)
        for place, condition in enumerate(conditions):
            for trial in range(trials):
                interrupts.check()
                result = programs[with_one](network, w, keys, jnp.int32(trial), jnp.int32(condition), None)
                yield number, place, trial, np.asarray(result.counts)


@partial(jax.jit, static_argnames="dynamics")
def _before(dynamics: Dynamics, network: Network, w: Array, keys: TrialKeys, number: Array, condition: Array) -> tuple[Array, Array]:
    """[N+X] filtered spikes just before the learned part of a trial, 1/ms, and whether spikes overflowed."""
    state = before_learning(dynamics, network, w, keys.trial(number, condition))
    return state.r, state.overflowed


def filtered_before(config: Config, coupling: Coupling, conditions: int, trials: int) -> np.ndarray:
    """[C, N] spikes filtered with the plastic decay time just before the learned part, 1/ms, mean over the first trials of a test."""
    network, dynamics = coupling.trained.network, Dynamics.from_config(config)
    w = jnp.asarray(connectivity.to_groups(coupling.trained.weight, network.group_size))
    keys = TrialKeys.create(config.seed, TESTING)
    program = Program(_before, dynamics, (), network, w, keys, jnp.int32(0), jnp.int32(0))
    found = np.zeros((conditions, network.n_neurons))
    for condition in range(conditions):
        for trial in range(trials):
            interrupts.check()
            r = program(network, w, keys, jnp.int32(trial), jnp.int32(condition))
            found[condition] += np.asarray(r, np.float64)[: network.n_neurons] / trials
    return found


def silencing(
    config: Config,
    coupling: Coupling,
    activity: Activity,
    pair: tuple[int, int] | None,
    window: tuple[float, float],
    clock: TrialClock,
    trials: int,
    report: Callable[[str], None],
) -> Result:
    """Effect of silencing each region in turn on the mean rate of each region, and on the separation of two conditions.

    Args:
      config: settings of the run.
      coupling: network and regions.
      activity: data and model, whose coding direction is used.
      pair: conditions that the coding direction separates; None: there are not two.
      window: start and end of the silencing, s of the recording's time.
      clock: that time.
      trials: trials of each condition, without silencing and with each region silenced.
      report: called with a line about each simulation.

    Raises:
      UserError: regions are unknown, or the window is not within the trial.
    """
    names, conditions = coupling.names, len(activity.conditions)
    perturbations: list[Perturbation | None] = [None]
    for name in names:
        members = np.flatnonzero(coupling.region == name)
        settings = SilenceConfig(neurons=",".join(map(str, members)), window=window)
        perturbations.append(from_config(dataclasses.replace(config, perturb=settings), coupling.table, TESTING, clock.start))
    bins = (activity.time > window[0]) & (activity.time < window[1])
    if not bins.any():
        raise UserError(f"window=[{window[0]:g},{window[1]:g}]: contains no bin of the learned part of the trial.")
    averaging = np.stack([coupling.number == r for r in range(len(names))]).astype(np.float64)
    averaging /= averaging.sum(axis=1, keepdims=True)
    direction = None if pair is None else (activity.trained[pair[0], bins] - activity.trained[pair[1], bins]).mean(axis=0)
    hz = 1000 / config.trial.learn_every
    rate = np.zeros((len(perturbations), conditions, trials, len(names)))
    projected = np.zeros((*rate.shape,))  # part of each region in the projection on the coding direction
    of_region = coupling.number[activity.neurons]
    for number, condition, trial, counts in _trials(config, coupling, perturbations, activity.number, trials):
        if condition == trial == 0:
            silenced = names[number - 1] if number else "nothing"
            report(f"Simulating {counted(conditions * trials, 'trial')}, {silenced} silenced.")
        of_neuron = counts[bins].mean(axis=0) * hz
        rate[number, condition, trial] = averaging @ of_neuron
        if direction is not None:
            parts = of_neuron[activity.neurons] * direction
            projected[number, condition, trial] = np.bincount(of_region, parts, len(names))
    change = rate[1:] - rate[:1]  # of the same random numbers
    se = np.sqrt(np.sum(_standard_error(change, 2) ** 2, axis=1)) / conditions  # of the mean over conditions
    arrays = {
        "control": Variable(rate[0].mean(axis=(0, 1)), ("region",), {"units": "Hz"}),
        "change": Variable(change.mean(axis=(1, 2)), ("silenced", "region"), {"units": "Hz", "long_name": "change of the mean rate"}),
        "change_se": Variable(se, ("silenced", "region"), {"units": "Hz", "long_name": "over trials"}),
        "region": Variable(np.array(names), ("region",)),
        "neurons": Variable(np.round(1 / averaging.max(axis=1)).astype(int), ("region",)),
    }
    numbers = {"window": list(window), "trials": trials}
    if pair is not None:
        parts = projected[:, pair[0]] - projected[:, pair[1]]  # [regions + 1, trials, regions]
        others = 1 - np.eye(len(names))  # silenced neurons themselves separate nothing
        separation = np.einsum("str,sr->st", parts[1:], others)
        unit = np.einsum("tr,sr->st", parts[0], others).mean(axis=1)
        meaning = {"long_name": "of the neurons that are not silenced, relative to the same neurons without silencing"}
        arrays["separation"] = Variable(ratio(separation.mean(axis=1), unit), ("silenced",), meaning)
        arrays["separation_se"] = Variable(ratio(_standard_error(separation, 1), np.abs(unit)), ("silenced",))
        numbers["conditions"] = [activity.conditions[c] for c in pair]
    return Result(arrays, numbers)


def _standard_error(values: np.ndarray, axis: int) -> np.ndarray:
    """Standard error of the mean along an axis; NaN for a single value."""
    n = values.shape[axis]
    return values.std(axis=axis, ddof=1) / np.sqrt(n) if n > 1 else np.full(np.delete(values.shape, axis), np.nan)


@partial(jax.jit, static_argnames="dynamics")
def record(dynamics: Dynamics, network: Network, w: Array, keys: TrialKeys, chosen: Array) -> tuple[tuple[Array, ...], Array]:
    """(voltage, static current, plastic current, spikes), [T, n] each, of some neurons in each step from stim_off on."""

    def one(state: SimState, _: None) -> tuple[SimState, tuple[Array, ...]]:
        """One time step, and what is recorded after it."""
        state = advance(dynamics, network, w, state, keys, 1)[0]
        static, plastic = currents(network, state.synapses, state.background)
        return state, (state.neuron.v[chosen], static[chosen], plastic[chosen], state.spiked[chosen])

    steps = dynamics.trial.n_points * dynamics.trial.every
    state, recorded = lax.scan(one, before_learning(dynamics, network, w, keys), None, length=steps)
    return recorded, state.overflowed


def single_neuron(config: Config, coupling: Coupling, neurons: Sequence[int], condition: int, clock: TrialClock) -> Result:
    """Voltage, currents and spikes of single neurons in each time step of one new trial.

    Args:
      config: settings of the run.
      coupling: the network.
      neurons: numbers of the neurons in the network.
      condition: of the trial.
      clock: time of the recording.

    Raises:
      UserError: the neuron model has no voltage, or each synapse has a current of its own.
    """
    network, dynamics = coupling.trained.network, Dynamics.from_config(config)
    if network.per_synapse:
        raise UserError("currents of single neurons: not available where each synapse has a decay time of its own.")
    w = jnp.asarray(connectivity.to_groups(coupling.trained.weight, network.group_size))
    keys = TrialKeys.create(config.seed, TESTING).trial(jnp.int32(0), jnp.int32(condition))
    chosen = jnp.asarray(list(neurons), jnp.int32)
    try:
        program = Program(record, dynamics, (), network, w, keys, chosen)
    except AttributeError as error:
        raise UserError(f"neuron={config.neuron.name}: the state of this model has no voltage v.") from error
    voltage, static, plastic, spiked = (np.asarray(each) for each in program(network, w, keys, chosen))
    time = np.asarray(clock.seconds(config.trial.stim_off + config.trial.dt * np.arange(len(voltage))))
    unit = {"units": "threshold"}
    bias = np.asarray(network.bias)[np.asarray(chosen)]
    arrays = {
        "time": Variable(time, ("time",), {"units": "s", "long_name": clock.label}),
        "neuron": Variable(np.asarray(chosen), ("neuron",)),
        "voltage": Variable(voltage, ("time", "neuron"), unit),
        "static_current": Variable(static + bias, ("time", "neuron"), unit | {"long_name": "through static synapses, with the bias"}),
        "plastic_current": Variable(plastic, ("time", "neuron"), unit | {"long_name": "through plastic and feed-forward synapses"}),
        "spiked": Variable(spiked, ("time", "neuron")),
    }
    return Result(arrays, {"condition": condition, "threshold": float(getattr(config.neuron, "threshold", 1.0))})
