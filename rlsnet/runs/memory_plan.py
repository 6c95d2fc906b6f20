"""Memory plan of an experiment, made before anything is allocated; one that does not fit is refused."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from rlsnet.config.schema import Config
from rlsnet.errors import UserError
from rlsnet.io import zarr_store
from rlsnet.io.formatting import byte_size
from rlsnet.kernels import backend, device
from rlsnet.learning import covariance_forms, deferred
from rlsnet.model.build import MAX_TAU_CHANNELS
from rlsnet.model.network_store import FORMAT, group_size_of

PLAN = "training_memory"  # attribute of a run's network.zarr: the plan of its training


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes that memory depends on: N neurons in groups of S, L plastic inputs, static edges, C conditions, M points."""

    n: int
    group_size: int
    inputs: int
    edges: int
    weighted: bool  # a weight for each static edge
    conditions: int
    points: int
    every: int  # steps between learning points
    pending: int  # vectors of L numbers that a group's P may have to take in; XLA keeps them twice
    item: int  # bytes of a floating point number
    P: int  # bytes of P as it is kept
    by_synapse: bool  # a plastic current for each synapse
    stimulus: int  # numbers of a given stimulus

    @staticmethod
    def of(config: Config, n_units: int | None, conditions: int) -> Sizes:
        """From the configuration, and from the shapes in network.load where it says more."""
        n, size, inputs = config.network.n_neurons or n_units or 0, config.plastic.group_size, config.plastic.n_inputs
        edges, weighted, by_synapse = None, False, False  # two values of tau_plas, by class, have a filter each
        given: Any = {}
        if config.network.load is not None:
            given = zarr_store.open_group(config.network.load, "network.load", FORMAT)
            n = zarr_store.array(given, "neuron/excitatory", ["N"], "b", config.network.load).shape[0]
            if "plastic/pre" in given:
                inputs = zarr_store.array(given, "plastic/pre", ["G", "L"], "iu", config.network.load).shape[1]
                size = group_size_of(given, config.network.load)
            weighted = "static/weight" in given
            if "static/post" in given:
                edges = zarr_store.array(given, "static/post", ["edges"], "iu", config.network.load).shape[0]
            if "target" in given:
                conditions = zarr_store.array(given, "target", ["C", "M", "N"], "f", config.network.load).shape[0]
            by_synapse = "neuron/tau_plas" in given and len(np.unique(given["neuron/tau_plas"][...])) > MAX_TAU_CHANNELS
        if edges is None:
            edges, weighted = config.static.n_edges(n), config.static.edge_weights
        rates, currents = (known.shape if (known := given.get(name)) is not None else None for name in ("feedforward/rate", "stimulus"))
        points, stimulus = config.trial.n_points, config.stimulus.n_values(n, currents)
        inputs += config.feedforward.n_inputs(config.trial, rates)
        groups, dtype = -(-n // size), np.dtype(config.engine.precision)
        P = covariance_forms.n_bytes(config.rls, groups, inputs, n, dtype)
        pending = {"reference": 0, "native": 1, "deferred": 2}[backend.from_config(config).update] * deferred.MAX_PENDING
        every, item = config.trial.every, dtype.itemsize
        return Sizes(n, size, inputs, edges, weighted, conditions, points, every, pending, item, P, by_synapse, stimulus)


def plan(sizes: Sizes, learning: bool) -> dict[str, int]:
    """Bytes by purpose; with `learning`, P and the memory of its update are among them."""
    n, item = sizes.n, sizes.item
    groups = -(-n // sizes.group_size)
    slots = groups * sizes.inputs
    weights = slots * sizes.group_size * item
    parts = {
        "P": sizes.P if learning else 0,
        "pending updates of P": sizes.pending * slots * item if learning else 0,
        "plastic weights and inputs": weights + 3 * slots * 4 + (weights + 3 * slots * item if learning else 0),
        "plastic currents of synapses": 2 * weights if sizes.by_synapse else 0,
        "given stimulus": sizes.stimulus * item,
        "static synapses": sizes.edges * (4 + item * sizes.weighted),
        "spikes of a trial": 0 if learning else sizes.points * sizes.every * (n // 8),
        "targets": sizes.conditions * sizes.points * n * item,
        "currents of a trial": 3 * sizes.points * n * item,
        "state": 20 * n * item,
    }
    return {name: size for name, size in parts.items() if size}


def available() -> tuple[int, str]:
    """(free bytes, their owner): the accelerator's memory, or this machine's within its limits."""
    import jax

    if device.platform_in_use() != "cpu":
        stats = jax.local_devices()[0].memory_stats() or {}
        return int(stats.get("bytes_limit", 0)) - int(stats.get("bytes_in_use", 0)), "GPU"
    return free_memory(), "machine"


def free_memory() -> int:
    """Free bytes of this machine's memory, within the limits of a container."""
    free = psutil.virtual_memory().available
    limit, used, about = (Path("/sys/fs/cgroup") / f"memory.{name}" for name in ("max", "current", "stat"))
    if limit.exists() and used.exists() and limit.read_text().strip().isdigit():
        cached = re.search(r"^inactive_file (\d+)$", about.read_text() if about.exists() else "", re.MULTILINE)  # given back when asked
        free = min(free, int(limit.read_text()) - int(used.read_text()) + int(cached[1] if cached else 0))
    return free


def check(sizes: Sizes, parts: dict[str, int]) -> str:
    """A plan in words.

    Args:
      sizes: sizes of the experiment.
      parts: bytes by purpose, as `plan` gives them.

    Raises:
      UserError: it does not fit; with advice.
    """
    total = sum(parts.values())
    words = ", ".join(f"{name} {byte_size(bytes_)}" for name, bytes_ in sorted(parts.items(), key=lambda part: -part[1]))
    free, where = available()
    if total > free:
        advice, P = [], parts.get("P", 0)
        if P > total / 3:
            fits = next((s for s in (8, 16, 32, 64, 128) if s > sizes.group_size and P * sizes.group_size / s < free / 2), 128)
            advice.append(f"plastic.group_size={fits} (P shrinks by that factor)")
            advice.append("rls.storage=packed or rls.precision=bfloat16 (each halves P)")
            advice.append("a smaller plastic.n_inputs (P goes with its square)")
        if parts.get("static synapses", 0) > total / 3:
            advice.append("a smaller static.out_degree")
        advice.append("a smaller network.n_neurons")
        raise UserError(
            f"memory: the run needs {byte_size(total)} ({words}) and this {where} has {byte_size(free)} free. Try {', '.join(advice)}."
        )
    return f"Memory plan: {byte_size(total)} of {byte_size(free)} free: {words}."


def compiled_bytes(program: Any) -> int | None:
    """Memory of a compiled program by XLA's own count, arguments and results included; None where XLA does not say."""
    try:
        found = program.memory_analysis()
        return int(found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes + found.temp_size_in_bytes)
    except (AttributeError, NotImplementedError, RuntimeError):
        return None
