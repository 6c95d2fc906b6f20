"""Synapses between regions, the currents through them over time, and the eigenvalues of the coupling of all neurons."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np

from rlsnet.analysis.analyses.variables import Result, Variable
from rlsnet.data.neuron_table import NeuronTable
from rlsnet.errors import UserError
from rlsnet.exports.synapses import Synapses, plastic_synapses, static_synapses
from rlsnet.exports.trained_network import TrainedNetwork

KINDS = ("static", "plastic before", "plastic")  # of synapses
CLASSES = ("excitatory", "inhibitory")  # of presynaptic neurons
MAX_DENSE = 3000  # neurons up to which all eigenvalues are computed
LEADING = 20  # eigenvalues of larger networks
ITERATIONS = 100  # of ARPACK, after which those eigenvalues are taken that have converged


@dataclasses.dataclass(frozen=True)
class Coupling:
    """A trained network and the regions of its neurons.

    trained: network with trained weights.
    initial: the same with initial weights.
    region: [N] names.
    names: [R] names of the regions.
    table: the neurons with the columns of their units.
    """

    trained: TrainedNetwork
    initial: TrainedNetwork
    region: np.ndarray
    names: list[str]
    table: NeuronTable

    @cached_property
    def number(self) -> np.ndarray:
        """[N] index of each neuron's region in `names`."""
        order = np.argsort(self.names)
        return order[np.searchsorted(np.array(self.names)[order], self.region)]

    @cached_property
    def inhibitory(self) -> np.ndarray:
        """[N] 1 for inhibitory neurons, 0 for excitatory ones."""
        return (~self.trained.excitatory).astype(np.int64)

    def synapses(self, kind: str) -> Iterator[Synapses]:
        """The synapses of one of KINDS, in blocks."""
        if kind == "static":
            return static_synapses(self.trained)
        return plastic_synapses(self.initial if kind == "plastic before" else self.trained)


def region_weights(coupling: Coupling) -> Result:
    """Number, sum, mean and s.d. of the weights from each region and class to each region, and the mean input of a neuron.

    `input` is the sum of the weights from a region divided by the number of neurons in the postsynaptic region: the current, in
    threshold units, that a neuron gets per 1/ms of rate in all presynaptic neurons.
    """
    regions, number = len(coupling.names), coupling.number
    shape = (len(KINDS), regions, len(CLASSES), regions)
    sums = np.zeros((3, *shape))
    for k, kind in enumerate(KINDS):
        for block in coupling.synapses(kind):
            cell = np.ravel_multi_index((number[block.pre], coupling.inhibitory[block.pre], number[block.post]), shape[1:])
            weight = np.asarray(block.weight, np.float64)
            for power in range(3):
                sums[power, k] += np.bincount(cell, weight**power, int(np.prod(shape[1:]))).reshape(shape[1:])
    n, total, squares = sums
    mean = np.divide(total, n, out=np.full(shape, np.nan), where=n > 0)
    variance = np.divide(squares, n, out=np.full(shape, np.nan), where=n > 0) - mean**2
    neurons = np.bincount(number, minlength=regions)
    dims, unit = ("kind", "pre", "class", "post"), {"units": "threshold ms"}
    arrays = {
        "number": Variable(n, dims),
        "sum": Variable(total, dims, unit),
        "mean": Variable(mean, dims, unit),
        "sd": Variable(np.sqrt(np.maximum(variance, 0)), dims, unit),
        "input": Variable(total / np.maximum(neurons, 1), dims, unit),
        "region": Variable(np.array(coupling.names), ("region",)),
        "neurons": Variable(neurons, ("region",)),
    }
    return Result(arrays, {"kinds": list(KINDS), "classes": list(CLASSES)})


def filtered(rate: np.ndarray, bin_ms: float, tau: float | np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """Mean over each bin of rates filtered by an exponential with decay time `tau`, the mean current of a synapse of weight 1.

    A rate is constant within a bin.

    Args:
      rate: [M, n] 1/ms.
      bin_ms: length of a bin, ms.
      tau: decay time, ms; one number or [n].
      start: [n] 1/ms, filtered rates before the first bin; None: before it, rates were those of the first bin.
    """
    decay = np.exp(-bin_ms / np.asarray(tau, np.float64))
    within = np.asarray(tau) / bin_ms * (1 - decay)  # mean over a bin of the decaying part
    state, found = np.array(rate[0] if start is None else start, np.float64), np.empty(rate.shape)
    for m, now in enumerate(rate):
        found[m] = now + (state - now) * within
        state = now + (state - now) * decay
    return found


def region_currents(coupling: Coupling, rate: np.ndarray, bin_ms: float, current: np.ndarray, start: np.ndarray) -> Result:
    """Mean current from each region and class to the neurons of each region over time (as Perich et al., bioRxiv 2020.12.18.423348).

    Currents are linear in the spikes, so the mean over trials follows from the trained weights and the mean rates of the model.

    Args:
      coupling: network and regions.
      rate: [C, M, N] Hz, rates of the model, not smoothed.
      bin_ms: length of a bin, ms.
      current: [C, M, N] total synaptic current of the same trials, threshold units; the rest that the regions leave is stored too.
      start: [C, N] 1/ms, spikes filtered with the plastic decay time before the first bin, mean over trials.
    """
    regions, number, inhibitory = len(coupling.names), coupling.number, coupling.inhibitory
    synapse, trained = coupling.trained.config.synapse, coupling.trained
    neurons = np.maximum(np.bincount(number, minlength=regions), 1)
    tau_static = np.where(inhibitory == 0, synapse.tau_exc, synapse.tau_inh)
    conditions, bins, n = rate.shape
    source = number * len(CLASSES) + inhibitory  # [N] region and class of a presynaptic neuron
    found = np.zeros((2, conditions, bins, regions * len(CLASSES), regions))
    for k, (kind, tau) in enumerate((("static", tau_static), ("plastic", trained.tau_plastic[:n]))):
        weight = np.zeros(n * regions)  # from each neuron to the mean neuron of a region
        for block in coupling.synapses(kind):
            weight += np.bincount(block.pre.astype(np.int64) * regions + number[block.post], block.weight, n * regions)
        weight = weight.reshape(n, regions) / neurons
        order = np.argsort(source, kind="stable")
        starts = np.searchsorted(source[order], np.arange(regions * len(CLASSES)))
        for c in range(conditions):
            sent = filtered(rate[c] / 1000, bin_ms, tau, start[c] if kind == "plastic" else None)[:, order]
            for s, first in enumerate(starts):
                stop = starts[s + 1] if s + 1 < len(starts) else n
                found[k, c, :, s] = sent[:, first:stop] @ weight[order[first:stop]]
    by_region = np.stack([current[..., number == r].mean(axis=-1) for r in range(regions)], axis=-1)
    shape = (2, conditions, bins, regions, len(CLASSES), regions)
    arrays = {
        "current": Variable(found.reshape(shape), ("kind", "condition", "time", "pre", "class", "post"), {"units": "threshold"}),
        "total": Variable(by_region, ("condition", "time", "post"), {"units": "threshold", "long_name": "total synaptic current"}),
        "rest": Variable(
            by_region - found.sum(axis=(0, 3)),
            ("condition", "time", "post"),
            {"units": "threshold", "long_name": "total current without those listed: of feed-forward neurons, and rounding of time"},
        ),
        "region": Variable(np.array(coupling.names), ("region",)),
    }
    return Result(arrays, {"kinds": ["static", "plastic"], "classes": list(CLASSES), "feedforward": trained.n_feedforward})


def eigenvalues(coupling: Coupling, report: Callable[[str], None]) -> Result:
    """Eigenvalues of the matrix of all weights between neurons, before and after training, threshold ms.

    Up to MAX_DENSE neurons all are computed, of larger networks at most LEADING of the largest absolute values: those that converge.

    Raises:
      UserError: none converges.
    """
    from scipy import linalg, sparse
    from scipy.sparse.linalg import ArpackNoConvergence, eigs

    n, arrays = coupling.trained.n_neurons, {}
    if n < 3:
        raise UserError(f"eigenvalues: expected at least 3 neurons, the network has {n}.")
    for name, kind in (("before", "plastic before"), ("after", "plastic")):
        blocks = [*coupling.synapses("static"), *coupling.synapses(kind)]
        pre, post, weight = (np.concatenate([getattr(block, field) for block in blocks]) for field in ("pre", "post", "weight"))
        matrix = sparse.coo_array((weight.astype(np.float64), (post, pre)), shape=(n, n)).tocsr()
        report(f"Eigenvalues {name} training: {'all' if n <= MAX_DENSE else 'the largest'} of {n:,}.")
        if n <= MAX_DENSE:
            values = linalg.eigvals(matrix.toarray())
        else:
            start, k = np.random.default_rng(0).standard_normal(n), min(LEADING, n - 2)  # ARPACK's own start is random
            try:
                values = eigs(matrix, k, which="LM", v0=start, ncv=min(n, 4 * k), maxiter=ITERATIONS, tol=1e-4, return_eigenvectors=False)
            except ArpackNoConvergence as error:  # most lie close together within a disk
                values = error.eigenvalues
            if not len(values):
                raise UserError(f"eigenvalues: the iteration did not converge for {n:,} neurons.")
        values = values[np.argsort(-np.abs(values), kind="stable")]
        parts = np.stack([values.real, values.imag], axis=1)
        arrays[name] = Variable(parts, ("eigenvalue", "part"), {"units": "threshold ms", "long_name": "real and imaginary part"})
    return Result(arrays, {"neurons": n, "complete": n <= MAX_DENSE})
