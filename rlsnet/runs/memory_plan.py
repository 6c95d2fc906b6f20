"""Memory plan of an experiment, made before arrays are allocated; an experiment that needs more than the free memory is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from rlsnet.config.schema import Config, FixedDegreeConfig
from rlsnet.errors import UserError
from rlsnet.io import zarr_store
from rlsnet.io.formatting import byte_size
from rlsnet.io.memory import free_memory as free_memory
from rlsnet.kernels import backend, device
from rlsnet.learning import covariance_forms, deferred, population
from rlsnet.learning.scores import NEURONS_PER_BLOCK
from rlsnet.model import sharding
from rlsnet.model.build import MAX_TAU_CHANNELS
from rlsnet.model.network_store import StoredNetwork, group_size_of
from rlsnet.runs import cost_model

PLAN = "training_memory"  # attribute of a run's network.zarr with the memory plan of its training
NAMES = {"P": "matrices P of RLS"}  # of parts, in words
TESTED_RATES = 4  # arrays of a test: rates of all, odd and even trials, and counts


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes on which the memory of an experiment depends."""

    n: int  # neurons N
    group_size: int  # neurons in a group S
    inputs: int  # feed-forward and plastic inputs of a neuron X+L
    edges: int  # static synapses in memory
    weighted: bool  # whether each static synapse has a weight of its own
    conditions: int  # conditions C
    points: int  # learning points of a trial M
    every: int  # time steps between two learning points
    update: int  # numbers of a group that the update of P needs
    item: int  # bytes of a floating-point number
    P: int  # bytes of P as it is stored
    by_synapse: bool  # whether each plastic synapse has a current of its own
    stimulus: int  # numbers of a stimulus that is kept in memory
    trials: int  # trials of training that run side by side B
    averaged: int  # bytes of the averages over the trials of a test, a neuron and a learning point
    rates: bool  # whether the targets come from recorded rates, which tests compare with
    validated: bool  # whether validations compare with them too
    devices: int = 1  # over which the neurons are divided
    sources: int = 0  # presynaptic neurons, of which each of several devices has the filtered spikes
    ring: int = 0  # steps whose spikes are kept for synapse.delay

    @staticmethod
    def of(config: Config, n_units: int | None, conditions: int, stored: StoredNetwork | None = None) -> Sizes:
        """Sizes from the configuration, and from the shapes of the arrays in network.load, which is opened unless `stored` is it."""
        n, size, inputs = (
            config.static.n_neurons() or config.network.n_neurons or n_units or 0,
            config.plastic.group_size,
            config.plastic.n_inputs,
        )
        rates = config.target.recorded == "rate"
        edges, weighted, by_synapse = None, False, False  # by_synapse is for many values of tau_plas; two, by class, need two filters
        given: Any = {}
        if config.network.load is not None:
            given = (StoredNetwork(config.network.load) if stored is None else stored).group
            n = zarr_store.array(given, "neuron/excitatory", ["N"], "b", config.network.load).shape[0]
            if "plastic/pre" in given:
                inputs = zarr_store.array(given, "plastic/pre", ["G", "L"], "iu", config.network.load).shape[1]
                size = group_size_of(given, config.network.load)
            weighted = "static/weight" in given
            if "static/post" in given:
                edges = zarr_store.array(given, "static/post", ["edges"], "iu", config.network.load).shape[0]
            if "target" in given:
                conditions = zarr_store.array(given, "target", ["C", "M", "N"], "f", config.network.load).shape[0]
                rates = rates and "recording" in given.attrs
            by_synapse = "neuron/tau_plas" in given and len(np.unique(given["neuron/tau_plas"][...])) > MAX_TAU_CHANNELS
        if edges is None:
            edges, weighted = config.static.n_edges(n), config.static.edge_weights
        feedforward, currents = (
            known.shape if (known := given.get(name)) is not None else None for name in ("feedforward/rate", "stimulus")
        )
        points, stimulus = config.trial.n_points, config.stimulus.n_values(n, currents)
        inputs += config.feedforward.n_inputs(config.trial, feedforward)
        groups, dtype = -(-n // size), np.dtype(config.engine.precision)
        form = backend.from_config(config).update
        P = covariance_forms.n_bytes(config.rls, groups, inputs, n, dtype, form)
        pending = deferred.most_pending(config.rls, points // config.rls.every, groups, inputs, dtype)
        update = {"dense": 2, "deferred": 2 * pending + 3}.get(form, pending + 1)  # XLA keeps the pending updates twice
        update *= covariance_forms.row_length(form, inputs, dtype)
        every, item = config.trial.every, dtype.itemsize
        trials, validated = config.train.trials_per_update, rates and config.train.validates
        summed, count = population.TrialSums.storage(config.test.trials, every, compared=rates)
        averaged = summed * count.itemsize + 2 * 8  # spikes of groups of trials; mean and squares of the currents
        shapes = n, size, inputs, edges, weighted, conditions, points, every
        longest = config.trial.steps(max(config.synapse.delays(config.trial.dt)))
        ring = longest if longest > 1 else 0
        devices, sources = device.number(config.engine), n + config.feedforward.n_inputs(config.trial, feedforward)
        return Sizes(*shapes, update, item, P, by_synapse, stimulus, trials, averaged, rates, validated, devices, sources, ring)

    def of_device(self) -> Sizes:
        """Sizes of the shard of one device; see `model.sharding`."""
        groups = -(-self.n // self.group_size)
        own = sharding.groups_of_shard(groups, self.devices)
        share = own / max(1, groups)
        parts = {name: round(getattr(self, name) * share) for name in ("edges", "P", "stimulus")}
        return dataclasses.replace(self, n=own * self.group_size, **parts)


def plan(sizes: Sizes, learning: bool) -> dict[str, int]:
    """Bytes by purpose at the peak, during an iteration or a trial; with `learning`, they include P and the memory of its update.

    With several devices, those of one device.
    """
    if sizes.devices > 1:
        of_all = cost_model.presynaptic_bytes(sizes.sources, sizes.trials if learning else 1, sizes.ring)
        return {**plan(dataclasses.replace(sizes.of_device(), devices=1), learning), "presynaptic neurons": of_all}
    n, item, trials = sizes.n, sizes.item, sizes.trials if learning else 1
    groups = -(-n // sizes.group_size)
    slots = groups * sizes.inputs
    weights = slots * sizes.group_size * item
    recorded = sizes.validated if learning else TESTED_RATES * sizes.rates
    updates = sizes.update * groups * item if learning else 0
    compared = 2 * min(n, NEURONS_PER_BLOCK) * sizes.points * item  # currents and targets, after the memory of the updates is free
    parts = {
        "P": sizes.P if learning else 0,
        "updates of P": updates,
        "plastic weights and inputs": weights + 2 * slots * 4,
        "plastic currents of synapses": 2 * trials * weights if sizes.by_synapse else 0,
        "given stimulus": sizes.stimulus * item,
        "static synapses": sizes.edges * (4 + item * sizes.weighted),
        "spikes of a trial": 0 if learning else sizes.points * sizes.every * (n // 8),
        "targets": sizes.conditions * sizes.points * n * item,
        "recorded rates": 4 * recorded * sizes.conditions * sizes.points * n,
        "currents of a trial": sizes.points * n * item + max(0, compared - updates) if learning else 3 * sizes.points * n * item,
        "averages over trials": 0 if learning else sizes.averaged * sizes.points * n,
        "state": (24 + 14 * trials) * n * item,
    }
    return {name: size for name, size in parts.items() if size}


def words_of(parts: Mapping[str, int]) -> str:
    """A plan as text, the largest parts first."""
    return ", ".join(f"{NAMES.get(name, name)} {byte_size(size)}" for name, size in sorted(parts.items(), key=lambda part: -part[1]))


def available() -> tuple[int, str]:
    """(free bytes, "GPU" or "machine"): memory of the GPU that JAX uses, or else of this machine."""
    import jax

    if device.platform_in_use() != "cpu":
        stats = jax.local_devices()[0].memory_stats() or {}
        return int(stats.get("bytes_limit", 0)) - int(stats.get("bytes_in_use", 0)), "GPU"
    return free_memory(), "machine"


def check(config: Config, sizes_of: Callable[[Config], Sizes], learning: bool, drawn: bool = False) -> str:
    """Memory plan as one line of text.

    Args:
      config: the experiment.
      sizes_of: sizes of an experiment, from its configuration; called also with other settings, for the advice.
      learning: whether the network is trained.
      drawn: whether the network exists already, so that its size is given.

    Raises:
      UserError: the plan exceeds the free memory; the message names the settings that fit.
    """
    sizes = sizes_of(config)
    parts, together = plan(sizes, learning), device.sharing_memory(sizes.devices)
    total = together * sum(parts.values())
    words = words_of(parts)
    words += f", for each of {sizes.devices} devices" if sizes.devices > 1 else ""
    free, where = available()
    if total > free:
        if not drawn:
            advice = ", ".join(_that_fit(config, sizes_of, learning, free)) or "a smaller network.n_neurons"
        else:
            advice = "a smaller test.trials" if "averages over trials" in parts else "a machine with more memory"
        raise UserError(f"memory: the run needs {byte_size(total)} ({words}) and this {where} has {byte_size(free)} free. Try {advice}.")
    return f"Memory plan: {byte_size(total)} of {byte_size(free)} free: {words}."


def _that_fit(config: Config, sizes_of: Callable[[Config], Sizes], learning: bool, free: int) -> Iterator[str]:
    """Settings whose plan is at most `free` bytes, each with its size; of those that extend others that fit, only the others."""
    found: list[set[str]] = []
    for settings in _smaller(config, sizes_of(config).n):
        try:
            changed = sizes_of(_changed(config, settings))
            size = device.sharing_memory(changed.devices) * sum(plan(changed, learning).values())
        except UserError:  # settings that cannot be combined
            continue
        if size <= free and not any(keys <= settings.keys() for keys in found):
            found.append(set(settings))
            yield f"{' '.join(f'{key}={value}' for key, value in settings.items())} (fits in {byte_size(size)})"


def _smaller(config: Config, n: int) -> Iterator[dict[str, Any]]:
    """Settings that make a network of n neurons smaller, those first that change the results least, and fewer neurons last."""
    stored = isinstance(config.static, FixedDegreeConfig) and config.static.storage == "stored"
    without: dict[str, Any] = {"static.storage": "procedural"} if stored else {}
    one_trial: dict[str, Any] = {"train.trials_per_update": 1} if config.train.trials_per_update > 1 else {}
    packed: dict[str, Any] = {"rls.storage": "packed"} if config.rls.storage == "full" else {}
    few_bits: dict[str, Any] = packed | ({"rls.precision": "int16"} if packed or config.rls.precision == "auto" else {})
    shared: list[dict[str, Any]] = [{"plastic.group_size": size} for size in (8, 16, 32, 64, 128) if size > config.plastic.group_size]
    fewer = [{"network.n_neurons": n // part} for part in (2, 5, 10, 20, 50, 100, 1000) if n // part > 1]
    for settings in (without, one_trial, packed, packed | without, few_bits, few_bits | without, *shared):
        if settings:
            yield settings
    yield from (few_bits | without | each for each in shared)
    yield from fewer


def _changed(config: Config, settings: Mapping[str, Any]) -> Config:
    """The configuration with other values of settings SECTION.NAME; raises UserError if the section does not allow them."""
    for key, value in settings.items():
        section, name = key.split(".")
        config = dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **{name: value})})
    return config


def compiled_bytes(program: Any) -> int | None:
    """Bytes of a compiled program by XLA's own analysis, with arguments and results; None if XLA has no such analysis."""
    try:
        found = program.memory_analysis()
        return int(found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes) + temporary_bytes(program)
    except (AttributeError, NotImplementedError, RuntimeError):
        return None


def temporary_bytes(program: Any) -> int:
    """Bytes that a compiled program allocates while it runs, by XLA's own analysis; 0 if XLA has no such analysis."""
    try:
        return int(program.memory_analysis().temp_size_in_bytes)
    except (AttributeError, NotImplementedError, RuntimeError):
        return 0
