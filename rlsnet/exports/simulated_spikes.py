"""The spikes that `rlsnet test` stored for the weights of a trained network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from rlsnet.config.quoting import typed_command
from rlsnet.exports.trained_network import TrainedNetwork, check_memory
from rlsnet.io import zarr_store
from rlsnet.workflows import test_store

BYTES_PER_SPIKE = 60  # of memory, while all spikes are read


class Spikes(NamedTuple):
    """The spikes of a test, in order of trial and time step.

    trial: [spikes] int32, number of the trial among those of all conditions, one condition after the other.
    step: [spikes] int32, number of the time step in the trial, from 1.
    neuron: [spikes] int32, number of the neuron in the network.
    """

    trial: np.ndarray
    step: np.ndarray
    neuron: np.ndarray


def spikes_by_trial(trained: TrainedNetwork) -> Iterator[Spikes]:
    """The spikes of each trial, one condition after the other."""
    assert trained.test is not None
    ends = zarr_store.read(trained.test["spikes/trial_indptr"])
    for trial, (start, stop) in enumerate(zip(ends[:-1], ends[1:], strict=True)):
        part = slice(int(start), int(stop))
        step, neuron = (zarr_store.read(trained.test[f"spikes/{name}"], part).astype(np.int32) for name in ("step", "neuron"))
        yield Spikes(np.full(len(step), trial, np.int32), step, neuron)


def all_spikes(trained: TrainedNetwork) -> Spikes:
    """The spikes of all trials; raises UserError if they do not fit in memory."""
    assert trained.test is not None
    check_memory("spikes", BYTES_PER_SPIKE * int(zarr_store.read(trained.test["spikes/trial_indptr"])[-1]))
    return Spikes(*(np.concatenate(arrays) for arrays in zip(*spikes_by_trial(trained), strict=True)))


def why_missing(trained: TrainedNetwork) -> str:
    """The reason why there are no simulated spikes of these weights, and the command that makes them."""
    remedy = f"{typed_command('test', trained.run.path, more=[f'test.checkpoint={trained.iteration}'])} makes them."
    if not trained.run.test.exists():
        return f"the run has no test.zarr; {remedy}"
    iteration = test_store.open_test(trained.run, trained.run.test).attrs.get("iteration")
    if trained.test is None:
        return f"{trained.run.test} has other weights (of iteration {iteration}; expected {trained.iteration}); {remedy}"
    return f"{trained.run.test} was made with test.spikes=false; {remedy}"


def mean_rates(trained: TrainedNetwork) -> dict[str, list[float]]:
    """{"exc" and "inh": [C] mean rate in Hz}; empty without a test, or with one that has not all neurons."""
    if trained.test is None or trained.test["rate"].shape[1] != trained.n_neurons:
        return {}
    rate = zarr_store.read(trained.test["rate"])
    classes = (("exc", trained.excitatory), ("inh", ~trained.excitatory))
    return {name: [float(values[members].mean()) for values in rate] for name, members in classes if members.any()}
