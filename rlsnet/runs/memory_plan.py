"""Memory plan of an experiment, made before arrays are allocated; an experiment that needs more than the free memory is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from rlsnet.config.schema import Config
from rlsnet.errors import UserError
from rlsnet.io import zarr_store
from rlsnet.io.formatting import byte_size
from rlsnet.io.memory import free_memory as free_memory
from rlsnet.kernels import backend, device
from rlsnet.learning import covariance_forms, deferred, population
from rlsnet.model.build import MAX_TAU_CHANNELS
from rlsnet.model.network_store import StoredNetwork, group_size_of

PLAN = "training_memory"  # attribute of a run's network.zarr with the memory plan of its training
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
    pending: int  # vectors [L] of the pending updates of a group; XLA keeps them twice
    item: int  # bytes of a floating-point number
    P: int  # bytes of P as it is stored
    by_synapse: bool  # whether each plastic synapse has a current of its own
    stimulus: int  # numbers of a stimulus that is kept in memory
    trials: int  # trials of training that run side by side B
    averaged: int  # bytes of the averages over the trials of a test, a neuron and a learning point
    rates: bool  # whether the targets come from recorded rates, which tests compare with
    validated: bool  # whether validations compare with them too

    @staticmethod
    def of(config: Config, n_units: int | None, conditions: int, stored: StoredNetwork | None = None) -> Sizes:
        """Sizes from the configuration, and from the shapes of the arrays in network.load, which is opened unless `stored` is it."""
        n, size, inputs = config.network.n_neurons or n_units or 0, config.plastic.group_size, config.plastic.n_inputs
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
        update = backend.from_config(config).update
        P = covariance_forms.n_bytes(config.rls, groups, inputs, n, dtype, update)
        pending = {"dense": 0, "native": 1, "cuda": 1, "deferred": 2}[update] * deferred.max_pending(config.rls, inputs, dtype)
        every, item = config.trial.every, dtype.itemsize
        trials, validated = config.train.trials_per_update, rates and config.train.validates
        summed, count = population.TrialSums.storage(config.test.trials, every, compared=rates)
        averaged = summed * count.itemsize + 2 * 8  # spikes of groups of trials; mean and squares of the currents
        shapes = n, size, inputs, edges, weighted, conditions, points, every
        return Sizes(*shapes, pending, item, P, by_synapse, stimulus, trials, averaged, rates, validated)


def plan(sizes: Sizes, learning: bool) -> dict[str, int]:
    """Bytes by purpose; with `learning`, they include P and the memory of its update."""
    n, item, trials = sizes.n, sizes.item, sizes.trials if learning else 1
    groups = -(-n // sizes.group_size)
    slots = groups * sizes.inputs
    weights = slots * sizes.group_size * item
    recorded = sizes.validated if learning else TESTED_RATES * sizes.rates
    parts = {
        "P": sizes.P if learning else 0,
        "pending updates of P": sizes.pending * slots * item if learning else 0,
        "plastic weights and inputs": weights + 3 * slots * 4 + (weights + 3 * slots * item if learning else 0),
        "plastic currents of synapses": 2 * trials * weights if sizes.by_synapse else 0,
        "given stimulus": sizes.stimulus * item,
        "static synapses": sizes.edges * (4 + item * sizes.weighted),
        "spikes of a trial": 0 if learning else sizes.points * sizes.every * (n // 8),
        "targets": sizes.conditions * sizes.points * n * item,
        "recorded rates": 4 * recorded * sizes.conditions * sizes.points * n,
        "currents of a trial": 3 * sizes.points * n * item,
        "averages over trials": 0 if learning else sizes.averaged * sizes.points * n,
        "state": 20 * trials * n * item,
    }
    return {name: size for name, size in parts.items() if size}


def available() -> tuple[int, str]:
    """(free bytes, "GPU" or "machine"): memory of the GPU that JAX uses, or else of this machine."""
    import jax

    if device.platform_in_use() != "cpu":
        stats = jax.local_devices()[0].memory_stats() or {}
        return int(stats.get("bytes_limit", 0)) - int(stats.get("bytes_in_use", 0)), "GPU"
    return free_memory(), "machine"


def check(sizes: Sizes, parts: dict[str, int], drawn: bool = False) -> str:
    """Memory plan as one line of text.

    Args:
      sizes: sizes of the experiment.
      parts: bytes by purpose, from `plan`.
      drawn: whether the network exists already, so that its size is given.

    Raises:
      UserError: the plan exceeds the free memory; the message advises which settings to change.
    """
    total = sum(parts.values())
    words = ", ".join(f"{name} {byte_size(bytes_)}" for name, bytes_ in sorted(parts.items(), key=lambda part: -part[1]))
    free, where = available()
    if total > free:
        if not drawn:
            advice = ", ".join(_smaller_networks(sizes, parts, free))
        else:
            advice = "a smaller test.trials" if "averages over trials" in parts else "a machine with more memory"
        raise UserError(f"memory: the run needs {byte_size(total)} ({words}) and this {where} has {byte_size(free)} free. Try {advice}.")
    return f"Memory plan: {byte_size(total)} of {byte_size(free)} free: {words}."


def _smaller_networks(sizes: Sizes, parts: dict[str, int], free: int) -> Iterator[str]:
    """Settings of a network that needs less memory; arguments as of `check`, and the free bytes."""
    total, P = sum(parts.values()), parts.get("P", 0)
    if P > total / 3:
        fits = next((s for s in (8, 16, 32, 64, 128) if s > sizes.group_size and P * sizes.group_size / s < free / 2), 128)
        yield f"plastic.group_size={fits} (P shrinks by that factor)"
        yield "rls.storage=packed or rls.precision=bfloat16 (each halves P)"
        yield "a smaller plastic.n_inputs (P grows with its square)"
    if parts.get("static synapses", 0) > total / 3:
        yield "a smaller static.out_degree"
    if sizes.trials > 1 and parts["state"] + parts.get("plastic currents of synapses", 0) > total / 3:
        yield "a smaller train.trials_per_update"
    yield "a smaller network.n_neurons"


def compiled_bytes(program: Any) -> int | None:
    """Bytes of a compiled program by XLA's own analysis, with arguments and results; None if XLA has no such analysis."""
    try:
        found = program.memory_analysis()
        return int(found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes + found.temp_size_in_bytes)
    except (AttributeError, NotImplementedError, RuntimeError):
        return None
