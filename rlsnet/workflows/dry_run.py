"""Dry run: what a command would do, with sizes, memory, disk space and time, without a run folder."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp

from rlsnet.config.schema import Config, EdgesConfig, OUStimulusConfig, RecordingConfig, SinusoidTargetConfig
from rlsnet.data import recording_source, synthetic
from rlsnet.errors import UserError
from rlsnet.io.formatting import byte_size, counted, duration
from rlsnet.kernels import backend, processes
from rlsnet.kernels.device import configured
from rlsnet.learning import rls
from rlsnet.learning.iteration import Iteration
from rlsnet.model.connectivity import to_groups
from rlsnet.model.network_store import StoredNetwork
from rlsnet.runs import cost_model, disk_plan, memory_plan
from rlsnet.runs.folder import Run
from rlsnet.runs.memory_plan import Sizes
from rlsnet.runs.progress import Progress
from rlsnet.simulation.state import TRAINING, Dynamics, TrialKeys
from rlsnet.workflows import tested_settings
from rlsnet.workflows.online import watch
from rlsnet.workflows.online.session import conditions_from
from rlsnet.workflows.prepare import prepare
from rlsnet.workflows.training import with_rate_table

MEASURED_NEURONS = 2048  # neurons of the network that is timed: enough that P does not fit in the caches of a processor
TIMED = 3  # iterations that are timed, after one that is not


def lines(command: str, config: Config, run: Run, new_folder: str | None, resumed: bool) -> Iterator[str]:
    """Sentences about what a command would do, as they become known.

    Args:
      command: train, simulate or test.
      config: the experiment.
      run: the run folder.
      new_folder: name of a folder that is not known before the start; None: the folder is that of `run`.
      resumed: whether a training would continue the run.

    Raises:
      UserError: the command would fail: settings or files do not agree, or the memory or the disk is too small.
    """
    exists, learns = resumed or command == "test", command in ("train", "watch")
    if command == "watch":
        watch.check(config, run, resumed)
    if exists:
        tested_settings.labelled(config, run)  # a label that is taken is refused
    here = processes.without_team(config.engine)
    if here.devices is not None:
        here = dataclasses.replace(here, devices=1)  # there may be fewer than are planned
    with configured(here) as device:
        yield f"Dry run of rlsnet {command} on {device} in {config.engine.precision}: no run folder is made or changed."
        yield f"Run folder: {new_folder or run.path} ({'exists' if run.path.exists() and new_folder is None else 'new'})."
        sizes_of, words = _sizes_of(config, run if exists else None, command)
        sizes = sizes_of(config)
        if words:
            yield words
        yield _size_words(config, sizes, command)
        if sizes.devices > 1:
            yield _plan_of_devices(sizes, learns)
        else:
            yield memory_plan.check(config, sizes_of, learns, drawn=exists)
        if learns:
            yield _on_gpus(config, sizes)
            yield disk_plan.check(config, sizes, run.path)
        if sizes.devices > 1:
            return
        if command == "watch":
            yield f"Time: an iteration takes about {_iteration_time(config, sizes, run if resumed else None)}."
        elif command == "train":
            yield f"Time: {_training_time(config, sizes, run if resumed else None)}"
        else:
            yield f"Time: {_test_time(config, sizes, run if exists else None)}"


def _sizes_of(config: Config, run: Run | None, command: str) -> tuple[Callable[[Config], Sizes], str]:
    """(sizes as a function of the configuration, a sentence about the recording); `run` is an existing run, or None for a new one."""
    if command == "watch":
        names = conditions_from(config)
        words = f"Source: {config.watch.source}; {counted(len(names), 'condition')}: {', '.join(names)}."
        return partial(Sizes.of, n_units=None, conditions=len(names), stored=StoredNetwork(None)), words
    if run is not None:
        network = dataclasses.replace(config.network, load=str(run.network), n_neurons=None)
        stored = StoredNetwork(str(run.network))
        return lambda changed: Sizes.of(dataclasses.replace(changed, network=network), None, config.target.n_conditions, stored), ""
    stored = StoredNetwork(config.network.load)
    n_units, conditions, words = None, config.target.n_conditions, ""
    if config.target.recorded is not None and "target" not in stored:
        if config.recording.path is None and config.target.recorded == "rate":
            n_units, conditions = synthetic.N_UNITS, len(synthetic.CONDITIONS)
            words = f"Targets: SYNTHETIC data of {n_units:,} units, made once; recording.path=FILE.zarr trains on your own."
        else:
            recording = recording_source.open_for_config(config, lambda text: None, lambda done, total: None)
            n_units, conditions = recording.n_units, recording.n_conditions
            words = f"Targets: {counted(n_units, 'unit')} and {counted(conditions, 'condition')} of {recording.path}."
    return partial(Sizes.of, n_units=n_units, conditions=conditions, stored=stored), words


def _plan_of_devices(sizes: Sizes, learning: bool) -> str:
    """What each of several devices has, and what they exchange, as sentences; they need not be here."""
    parts, own = memory_plan.plan(sizes, learning), sizes.of_device()
    total, words = byte_size(sum(parts.values())), memory_plan.words_of(parts)
    return f"Memory plan: {total} for each of {sizes.devices} devices, which has {own.n:,} neurons: {words}."


def _on_gpus(config: Config, sizes: Sizes) -> str:
    """Estimated time of an iteration on as many GPUs as there are devices, by the cost model, as sentences."""
    gpu, cost = cost_model.H200, cost_model.Sizes.of(config, sizes.n, sizes.conditions, D=sizes.devices)
    times, held = cost_model.times(gpu, cost), sum(cost_model.memory(cost).values())
    fits = "fits" if held <= cost_model.USABLE * gpu.memory else "does not fit"
    where = f"{sizes.devices} {gpu.name}" if sizes.devices > 1 else f"an {gpu.name}"
    steps = f"{cost.steps:,} steps of {times['step'] * 1e6:.0f} us"
    if sizes.devices > 1:
        every = "each step" if cost.delay == 1 else f"{cost.delay} steps"
        size = byte_size(cost.N * cost.B * cost.delay / 8)
        steps += f", of which the exchange of spikes ({size} in {every}) takes {times['exchange'] * 1e6:.0f} us"
    return (
        f"On {where}: an iteration takes at least {_short(times['iteration'])} (estimated, docs/clusters.md): {steps}, and learning"
        f" {_short(times['learning'])}. Its memory {fits}."
    )


def _size_words(config: Config, sizes: Sizes, command: str) -> str:
    """Numbers of neurons, inputs, conditions, time steps and trials as a sentence."""
    shared = f", shared by groups of {sizes.group_size}" if sizes.group_size > 1 else ""
    inputs = f"{sizes.inputs} trained inputs of each{shared}" + (f", {sizes.edges:,} static synapses" if sizes.edges else "")
    iterations, trials = counted(config.train.iterations, "iteration"), counted(config.test.trials, "trial")
    after = f"at most {counted(config.watch.iterations, 'iteration')} after each trial"
    work = {"train": iterations, "watch": after}.get(command, f"{trials} of each condition")
    trial = f"trials of {config.trial.n_steps:,} time steps with {sizes.points} learning points"
    return f"Sizes: {sizes.n:,} neurons, {inputs}; {counted(sizes.conditions, 'condition')}; {work}; {trial}."


def _training_time(config: Config, sizes: Sizes, run: Run | None) -> str:
    """Expected time of the iterations that are left, and how it was found, as a sentence; `run` is the run that is continued."""
    done = len(run.read_metrics()) if run is not None else 0
    try:
        seconds, how = _iteration_seconds(config, sizes, run)
    except UserError as error:
        if sizes.n <= MEASURED_NEURONS:
            raise
        return f"not estimated ({error})"
    left = config.train.iterations - done
    so = f"{counted(left, 'iteration')} take{'s' * (left == 1)} about {duration(left * seconds)}"
    return f"an iteration takes about {_short(seconds)}, so {so} ({how})."


def _iteration_time(config: Config, sizes: Sizes, run: Run | None) -> str:
    """Expected time of an iteration, and how it was found; arguments as of `_training_time`."""
    seconds, how = _iteration_seconds(config, sizes, run)
    return f"{_short(seconds)} ({how})"


def _short(seconds: float) -> str:
    """A time in words."""
    return duration(seconds) if seconds >= 10 else f"{seconds:.2g} s"


def _iteration_seconds(config: Config, sizes: Sizes, run: Run | None) -> tuple[float, str]:
    """(s of an iteration, how they were found); arguments as of `_training_time`, errors as of `_measured`."""
    done = [line["seconds"] for line in run.read_metrics()] if run is not None else []
    return (statistics.median(done[-10:]), "the median of the last iterations of this run") if done else _measured(config, sizes)


def _test_time(config: Config, sizes: Sizes, run: Run | None) -> str:
    """Upper limit of the time of a test, which does not learn, as a sentence."""
    done = [line["seconds"] / sizes.trials for line in run.read_metrics()] if run is not None else []
    if not done:
        return "not estimated, as no iteration of this network was timed."
    trials = sizes.conditions * (config.test.trials + (min(config.test.untrained_trials, config.test.trials) if sizes.rates else 0))
    seconds = trials * statistics.median(done[-10:])
    takes = f"{counted(trials, 'trial')} take{'s' * (trials == 1)} at most about {duration(seconds)}"
    return f"{takes}, as long as trials with learning took in the training of this run."


def _measured(config: Config, sizes: Sizes) -> tuple[float, str]:
    """(seconds of an iteration, how they were found): measured with a smaller network where the network is large, and scaled.

    Raises:
      UserError: no smaller network can be made, as the sizes are those of a file.
    """
    if config.network.load is not None or isinstance(config.static, EdgesConfig):
        raise UserError("the size of the network is that of a file")
    inputs = max(config.plastic.n_inputs, int(getattr(config.static, "out_degree", 0)))
    n = min(sizes.n, max(MEASURED_NEURONS, 4 * inputs, 8 * sizes.group_size) // sizes.group_size * sizes.group_size)
    small = dataclasses.replace(
        config,
        network=dataclasses.replace(config.network, n_neurons=n),
        target=SinusoidTargetConfig(n_conditions=sizes.conditions),
        recording=RecordingConfig(),
        stimulus=OUStimulusConfig(),
    )
    prepared = prepare(small, Progress("off"), learning=True)
    network = with_rate_table(small, prepared.network)
    w = jnp.asarray(to_groups(prepared.weight, network.group_size))
    learner = rls.init(small.rls, network, w, backend.from_config(small).update)
    keys, trials = TrialKeys.create(small.seed, TRAINING), small.train.trials_per_update
    iteration = Iteration(Dynamics.from_config(small), small.rls, network, learner, jnp.asarray(prepared.target), keys, None, trials)
    seconds = []
    for number in range(1 + TIMED):
        start = time.perf_counter()
        learner, outcome = iteration(learner, number, number % sizes.conditions)
        jax.block_until_ready((learner, outcome))
        seconds.append(time.perf_counter() - start)
    how = "measured now" if n == sizes.n else f"measured now with {n:,} neurons, times {sizes.n / n:.3g}"
    return statistics.median(seconds[1:]) * sizes.n / n, how
