"""All analyses of a run: which there are, their settings, and the store RUN/analysis.zarr with their results."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import zarr

from rlsnet.analysis.analyses import population, regions, simulations, single_trials
from rlsnet.analysis.analyses.activity import (
    EVERYWHERE,
    Activity,
    SingleTrials,
    by_size,
    some_trained,
    spikes_of,
    trained_conditions,
)
from rlsnet.analysis.analyses.activity import single_trials as read_single_trials
from rlsnet.analysis.analyses.regions import Coupling
from rlsnet.analysis.analyses.variables import Result, Variable
from rlsnet.analysis.recording_summary import named
from rlsnet.analysis.test_results import RunResults
from rlsnet.config.quoting import typed_command
from rlsnet.data.intervals import interval_variation
from rlsnet.data.neuron_table import NeuronTable
from rlsnet.data.recordings import Recording
from rlsnet.data.statistics import mean_known
from rlsnet.errors import UserError, did_you_mean
from rlsnet.exports.trained_network import TrainedNetwork
from rlsnet.io import atomic, outputs, zarr_store
from rlsnet.io.formatting import counted, in_words, percent
from rlsnet.runs.folder import Run
from rlsnet.workflows.prepare import find_recording

log = logging.getLogger(__name__)

FORMAT = "rlsnet-analysis"
VERSION = 2  # of what the analyses store; results of another version are made again, not read
OF_TEST = "test_fingerprint"  # attribute: the test that was analysed
DELAY_S = 0.5  # s before the event at time 0, where a coding direction is found by default
BEFORE_TRIALS = 20  # of a condition, whose time before the first bin is simulated
SESSIONS = 20  # whose single trials are analysed, those with the most units


@dataclasses.dataclass(frozen=True)
class AnalysisOptions:
    """Settings of the analyses.

    only: names of analyses; None: all.
    conditions: the two conditions that a coding direction separates; None: the first two.
    window: start and end of the time, in s of the recording, in which it does, and in which regions are silenced; None: the half second
      before the event at time 0, or the whole learned part if the event is not within it.
    neurons: numbers of the neurons that are shown singly; None: those with the best, the median and the worst score.
    trials: trials of each condition for each region that is silenced.
    decoded_units: units that a decoder of the condition is given, drawn at random 20 times; None: all units of a session.
    """

    only: tuple[str, ...] | None = None
    conditions: tuple[str, ...] | None = None
    window: tuple[float, float] | None = None
    neurons: tuple[int, ...] | None = None
    trials: int = 10
    decoded_units: int | None = 10


class _Inputs:
    """What the analyses of a run start from, read at its first use."""

    def __init__(self, results: RunResults, options: AnalysisOptions, report: Callable[[str], None]):
        self.results, self.options, self.report = results, options, report

    @cached_property
    def activity(self) -> Activity:
        return Activity.read(self.results)

    @cached_property
    def recording(self) -> Recording | None:
        return find_recording(self.results.config, self.results.run)

    @cached_property
    def trials(self) -> list[SingleTrials]:
        return list(read_single_trials(self.results, self.recording, SESSIONS))

    @cached_property
    def coupling(self) -> Coupling:
        """Network, with the weights of the test, and regions."""
        results, iteration = self.results, int(self.results.test.attrs.get("iteration", 0)) if self.results.test is not None else 0
        run, config = results.run, results.config
        best = run.best()
        own_best = best is not None and int(best.name.split(".")[0]) == iteration
        trained = TrainedNetwork.load(run, "auto" if not iteration else "best" if own_best else str(iteration), config)
        if trained.test is None:
            raise UserError(f"{run.test}: was not made with weights in {run.checkpoints}; {typed_command('test', run.path)} makes it anew.")
        weight = np.asarray(zarr_store.read(zarr_store.open_group(run.network, "", "rlsnet-network")["plastic/weight"]))
        feedforward = trained.weight[:, : trained.n_feedforward]  # no analysis uses those before training
        initial = dataclasses.replace(trained, weight=np.concatenate([feedforward, weight], axis=1))
        table = NeuronTable(trained.excitatory, self.recording, config.seed, trained.labels)
        names = table.column("region")
        if names is None and results.has("region") and len(results.neurons) == trained.n_neurons:  # the recording was moved
            names = results.read("region")
        region = np.array([EVERYWHERE if names is None else named(names[n]) for n in range(trained.n_neurons)])
        return Coupling(trained, initial, region, by_size(region), table)

    @cached_property
    def pair(self) -> tuple[int, int]:
        """Numbers of the two conditions of the coding direction; raises UserError where there are not two."""
        names = self.activity.conditions
        if len(names) < 2:
            raise UserError(f"the network was trained in one condition ({names[0]}); this analysis compares two.")
        chosen = self.options.conditions or (names[0], names[1])
        listed = ", ".join(names)
        for name in chosen:
            if name not in names:
                expected = f"expected two of {listed}.{did_you_mean(name, names)}"
                raise UserError(f"conditions={list(chosen)}: no trained condition {name}; {expected}")
        if chosen[0] == chosen[1]:
            raise UserError(f"conditions={list(chosen)}: expected two different conditions of {listed}.")
        return names.index(chosen[0]), names.index(chosen[1])

    @cached_property
    def window(self) -> tuple[float, float]:
        """Start and end of the window, s; raises UserError if it contains no bin."""
        start, end = self.results.span
        if (given := self.options.window) is not None:
            inside = (self.activity.time > given[0]) & (self.activity.time < given[1])
            if len(given) != 2 or given[0] < start - 1e-9 or given[1] > end + 1e-9:
                text = ",".join(f"{each:g}" for each in given)
                raise UserError(f"window=[{text}]: expected a start and an end within {start:g} to {end:g} s.")
            if not inside.any():
                raise UserError(f"window=[{given[0]:g},{given[1]:g}]: contains the centre of no bin; expected a longer window.")
            return given
        return (-DELAY_S, 0.0) if start <= -DELAY_S and end > 0 else (start, end)

    @property
    def bins(self) -> np.ndarray:
        """[M] bool, the bins with their centre in the window."""
        return (self.activity.time > self.window[0]) & (self.activity.time < self.window[1])


def _variability(inputs: _Inputs) -> Result:
    result, results = single_trials.variability(inputs.trials, inputs.results.config.seed), inputs.results
    some = some_trained(results)
    trial, step, neuron = spikes_of(results, some)
    cv, cv2 = interval_variation(neuron, trial, step, len(some))
    arrays, numbers = {**result.arrays}, {**result.numbers}
    found = {"cv_model": cv, "cv2_model": cv2}
    for name in ("cv", "cv2"):
        recorded = None if inputs.recording is None else inputs.recording.column(f"interval_{name}")
        if recorded is not None and results.has("unit"):
            found[f"{name}_data"] = recorded[results.read("unit")[some]].astype(np.float64)
    for name, values in found.items():
        arrays[name] = Variable(values, ("unit",), {"long_name": "coefficient of variation of intervals between spikes"})
        numbers[f"median_{name}"] = single_trials.median(values)
    return Result(arrays, numbers)


def _decoding(inputs: _Inputs) -> Result:
    conditions, config = len(trained_conditions(inputs.results)), inputs.results.config
    return single_trials.decoding(inputs.trials, conditions, inputs.results.time, inputs.options.decoded_units, config.seed)


def _region_currents(inputs: _Inputs) -> Result:
    results, coupling = inputs.results, inputs.coupling
    if len(results.neurons) < coupling.trained.n_neurons:
        raise UserError(
            f"{results.run.test}: has {len(results.neurons):,} of {coupling.trained.n_neurons:,} neurons; expected all of them."
        )
    trials = min(int(results.test.attrs["trials"]), BEFORE_TRIALS) if results.test is not None else 1
    times = counted(len(results.conditions) * trials, "time")
    inputs.report(f"Simulating the time before the trial, {times}, for the currents at its start.")
    start = simulations.filtered_before(results.config, coupling, len(results.conditions), trials)
    every = results.config.trial.learn_every
    return regions.region_currents(coupling, results.read("psth"), every, results.read("current_mean"), start)


def _silencing(inputs: _Inputs) -> Result:
    coupling = inputs.coupling
    if len(coupling.names) < 2:
        raise UserError("the recording names no regions, or only one; at least two are compared.")
    pair = inputs.pair if len(inputs.activity.conditions) > 1 else None
    about = inputs.results.config, coupling, inputs.activity, pair, inputs.window, inputs.results.clock
    return simulations.silencing(*about, inputs.options.trials, inputs.report)


def _single_neuron(inputs: _Inputs) -> Result:
    results, chosen, fits = inputs.results, list(inputs.options.neurons or ()), []
    if not chosen:
        score = mean_known(results.score(results.compared().score).astype(np.float64))
        order = np.argsort(score)[: int(np.isfinite(score).sum())]
        if not len(order):
            raise UserError("no neuron has a defined score; neurons=[0] shows the first.")
        fewer = {1: {"only neuron with a score": 0}, 2: {"best fit": -1, "worst fit": 0}}
        places = fewer.get(len(order), {"best fit": -1, "median fit": len(order) // 2, "worst fit": 0})
        chosen = [int(results.neurons[order[place]]) for place in places.values()]
        fits = [f"{name} (r = {score[order[place]]:.2f})" for name, place in places.items()]
    inputs.report(f"Simulating one trial, with the voltage of {counted(len(chosen), 'neuron')}.")
    found = simulations.single_neuron(results.config, inputs.coupling, chosen, int(trained_conditions(results)[0]), results.clock)
    return dataclasses.replace(found, numbers={**found.numbers, "fits": fits})


ANALYSES: Mapping[str, Callable[[_Inputs], Result]] = {
    "trajectories": lambda inputs: population.trajectories(inputs.activity),
    "coding_direction": lambda inputs: population.coding_direction(inputs.activity, inputs.pair, inputs.bins),
    "decoding": _decoding,
    "selectivity": lambda inputs: population.selectivity(inputs.activity, inputs.pair, inputs.bins),
    "dimensionality": lambda inputs: population.dimensionality(inputs.activity),
    "variability": _variability,
    "region_weights": lambda inputs: regions.region_weights(inputs.coupling),
    "region_currents": _region_currents,
    "silencing": _silencing,
    "single_neuron": _single_neuron,
    "eigenvalues": lambda inputs: regions.eigenvalues(inputs.coupling, inputs.report),
}  # in the order of the report


def analyse(results: RunResults, options: AnalysisOptions, report: Callable[[str], None], warn: Callable[[str], None]) -> dict[str, Result]:
    """Analyses a run and stores the results in RUN/analysis.zarr, complete or not at all; returns those of this call by name.

    Analyses of the same test that an earlier call has stored stay there.

    Args:
      results: the results of a test; JAX is configured for the run.
      options: which analyses, and their settings.
      report: called with a line about what is done.
      warn: called with the reason why an analysis is left out.

    Raises:
      UserError: the run has not been tested, a setting is not allowed, or no analysis is possible.
    """
    run = results.run
    if results.test is None:
        raise UserError(f"{run.path}: has not been tested; {typed_command('test', settings={'run': run.path})} tests it.")
    names = options.only or tuple(ANALYSES)
    for name in names:
        if name not in ANALYSES:
            raise UserError(f"only={name}: no such analysis; expected {', '.join(ANALYSES)}.{did_you_mean(name, ANALYSES)}")
    if options.conditions is not None and len(options.conditions) != 2:
        raise UserError(f"conditions={list(options.conditions)}: expected two, such as [left,right].")
    if options.trials < 1:
        raise UserError(f"trials={options.trials}: expected at least 1.")
    outputs.check_free(run.analysis, partial(outputs.is_store, format=FORMAT), "analyses of rlsnet", "", overwrite=True)
    inputs, found = _Inputs(results, options, report), {}
    if options.window is not None:
        _ = inputs.window  # must be possible, also if another analysis is left out
    if options.conditions is not None:
        _ = inputs.pair
    if options.decoded_units is not None and options.decoded_units < 1:
        raise UserError(f"decoded_units={options.decoded_units}: expected at least 1, or null for all.")
    n = int(results.test.attrs.get("n_neurons", 0))
    for each in options.neurons or ():
        if not 0 <= each < n or each != int(each):
            raise UserError(f"neurons={list(options.neurons or ())}: no neuron {each}; expected numbers from 0 to {n - 1:,}.")
    for name in names:
        report(f"{name.replace('_', ' ').capitalize()}.")
        try:
            found[name] = ANALYSES[name](inputs)
        except UserError as error:
            if options.only is not None:
                raise
            warn(f"No {name.replace('_', ' ')}: {error}")
    if not found:
        raise UserError(f"{run.path}: no analysis is possible.")
    _write(run, found, options)
    return found


def _write(run: Run, found: Mapping[str, Result], options: AnalysisOptions) -> None:
    """Writes results to RUN/analysis.zarr, beside earlier ones of the same test."""
    run.refuse_links()
    earlier = stored(run)
    with atomic.replacing(run.analysis) as temporary:
        root = zarr.create_group(str(temporary), attributes={"format": FORMAT, "version": VERSION})
        root.attrs[OF_TEST] = zarr_store.fingerprint(run.test)
        settings: dict[str, Any] = {**dataclasses.asdict(options), "only": None}
        for name in ANALYSES:
            result = found.get(name, earlier.get(name))
            if result is not None:
                if name in found:
                    result = dataclasses.replace(result, numbers={**result.numbers, "settings": settings})
                result.write(root, name)
        zarr_store.seal(temporary)


def stored(run: Run) -> dict[str, Result]:
    """The stored results by name, in the order of ANALYSES; {} where none are of this test and this version."""
    if not run.analysis.exists():
        return {}
    try:
        root = zarr_store.open_group(run.analysis, "", FORMAT)
        if root.attrs.get(OF_TEST) != zarr_store.fingerprint(run.test):
            return {}
        if root.attrs.get("version") != VERSION:
            raise UserError(f"{run.analysis}: analyses of another version of rlsnet.")
        return {name: Result.read(root[name]) for name in ANALYSES if name in root}
    except UserError as error:
        log.warning("%s %s makes it anew.", error, typed_command("analyse", run.path))
        return {}


def summary(found: Mapping[str, Result]) -> Sequence[tuple[str, str]]:
    """(analysis, main number in words) of each result; "undefined" without one."""
    return [(name.replace("_", " "), SUMMARIES[name](result) or "undefined") for name, result in found.items()]


def _of_trajectories(result: Result) -> str:
    components, ceiling = len(result["variance_data"]), result.numbers.get("ceiling")
    words = f"the model explains {percent(result.numbers['explained'])} of the data's variance in {counted(components, 'component')}"
    return words + (f" (other half of the trials: {percent(ceiling)})" if ceiling is not None else "")


def _of_direction(result: Result) -> str:
    first, second = result.numbers["conditions"]
    words = f"separation of {first} and {second} relative to the data {in_words(result.numbers['separation'])}"
    return f"{words}; cosine of the directions {in_words(result.numbers['cosine'])}"


def _of_decoding(result: Result) -> str:
    share = dict(zip(result.numbers["kinds"], result["correct"], strict=True))
    parts = [f"{kind} {percent(float(each.mean()))}" for kind, each in share.items() if np.isfinite(each).all()]
    return f"correct in {', '.join(parts)} of the trials, mean over time; chance {percent(result.numbers['chance'])}" if parts else ""


def _of_dimensionality(result: Result) -> str:
    data, model = result["participation_ratio"][:, 0]
    return f"participation ratio {in_words(data, '.1f')} of the data, {in_words(model, '.1f')} of the model"


def _of_variability(result: Result) -> str:
    parts = []
    for name, label in (("fano", "Fano factor"), ("noise_correlation", "noise correlation"), ("cv2", "CV2 of intervals")):
        values = {kind: result.numbers.get(f"median_{name}_{kind}") for kind in ("data", "model")}
        known = [f"{kind} {in_words(value)}" for kind, value in values.items() if value is not None]
        parts += [f"{label}: {', '.join(known)}"] if known else []
    return "; ".join(parts) + " (medians)" if parts else ""


def _of_selectivity(result: Result) -> str:
    ceiling = float(np.atleast_1d(result["ceiling"])[0])
    words = f"correlation of data and model over neurons {in_words(np.atleast_1d(result['correlation'])[0])}"
    return words + (f" (both halves of the data: {in_words(ceiling)})" if np.isfinite(ceiling) else "")


ONE_REGION = "there is one region only, and nothing between regions"


def _of_region_weights(result: Result) -> str:
    if len(result["region"]) < 2:
        return ONE_REGION
    squares = np.nan_to_num(result["number"] * (result["sd"] ** 2 + result["mean"] ** 2)).sum(axis=2)  # kind, pre, post
    before, after = (_between_regions(squares[result.numbers["kinds"].index(kind)]) for kind in ("plastic before", "plastic"))
    return f"{percent(after)} of the summed squares of plastic weights are of synapses between regions, before training {percent(before)}"


def _of_region_currents(result: Result) -> str:
    if len(result["region"]) < 2:
        return ONE_REGION
    currents = np.abs(result["current"].sum(axis=(0, 4))).mean(axis=(0, 1))  # of kinds and classes; mean over conditions and time
    return f"of the absolute mean currents that regions get from regions, {percent(_between_regions(currents))} come from another region"


def _between_regions(strength: np.ndarray) -> float:
    """Share of strengths [pre, post] between two different regions; NaN without any."""
    total = strength.sum()
    return float(1 - np.trace(strength) / total) if total else np.nan


def _of_silencing(result: Result) -> str:
    names, change, control = result["region"], result["change"], result["control"]
    if len(names) < 2:
        return ONE_REGION
    others = np.where(np.eye(len(names), dtype=bool), 0.0, change)
    silenced, region = np.unravel_index(np.argmax(np.abs(others)), others.shape)
    words = f"from {in_words(control[region])} to {in_words(control[region] + change[silenced, region])} Hz"
    return f"silencing {names[silenced]} changes {names[region]} most: {words}"


def _of_single_neuron(result: Result) -> str:
    counts = zip(result["neuron"], result["spiked"].sum(axis=0), strict=True)
    return ", ".join(f"neuron {neuron} fires {counted(int(n), 'spike')}" for neuron, n in counts) + " in one trial"


def _of_eigenvalues(result: Result) -> str:
    before, after = (in_words(np.hypot(*result[name][0]), ".3g") for name in ("before", "after"))
    return f"largest absolute value {after} threshold ms, before training {before}"


SUMMARIES: Mapping[str, Callable[[Result], str]] = {
    "trajectories": _of_trajectories,
    "coding_direction": _of_direction,
    "decoding": _of_decoding,
    "selectivity": _of_selectivity,
    "dimensionality": _of_dimensionality,
    "variability": _of_variability,
    "region_weights": _of_region_weights,
    "region_currents": _of_region_currents,
    "silencing": _of_silencing,
    "single_neuron": _of_single_neuron,
    "eigenvalues": _of_eigenvalues,
}
