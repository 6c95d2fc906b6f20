"""Network of an experiment as arrays.

Dimension letters, here and everywhere: N neurons, K static outputs and L plastic inputs of a neuron, X feed-forward neurons,
G groups of S neurons that share plastic inputs, T steps and M learning points of a trial, C conditions.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RateTable:
    """Transfer functions of neurons: firing rate at evenly spaced constant inputs.

    rate: [K, nodes] rates of K different neurons, 1/ms.
    kind: [N] int32, row of each neuron.
    low: first input, threshold units.
    step: distance between two inputs.
    """

    rate: Array
    kind: Array
    low: Array
    step: Array

    def __call__(self, drive: Array) -> Array:
        """[N] rates at inputs [N], 1/ms, by linear interpolation; above the table its last slope goes on."""
        position = jnp.maximum((drive - self.low) / self.step, 0)
        node = jnp.minimum(position.astype(jnp.int32), self.rate.shape[1] - 2)
        below, above = self.rate[self.kind, node], self.rate[self.kind, node + 1]
        return below + (above - below) * (position - node.astype(position.dtype))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Network:
    """Neurons and connectivity, which stay the same during an experiment. Feed-forward neurons have the numbers N to N+X-1.

    A pytree; the sizes at the end are static, so programs are compiled again for other sizes.

    excitatory: [N] bool, the others are inhibitory.
    bias: [N] constant drive X_bal, threshold units.
    v0: [N] initial voltage of every trial, threshold units, or None: drawn anew each trial.
    parameters: [N] each, the parameters that differ between neurons: fields of the neuron model, `noise_sigma`, and
      `background_*` (see `schema.BackgroundConfig`); `tau_plas` is [N+X].
    indptr: [N+X+1] int32, neuron j's static outputs are edges indptr[j] to indptr[j+1]. With `delays` [(1+K)*(N+X)+1] for K delays, and
      the static outputs of neuron j with delay k (from 1) are those of source k*(N+X) + j; sources below N+X have plastic outputs only.
    post: [nnz] int32, postsynaptic neuron of each static edge, padded so that static_width can be read from any start.
    weight: [nnz] weight of each static edge (threshold*ms), padded in the same way; or None: the weights are those of class_weight.
    class_weight: [2, 2] static weights by class (threshold*ms), presynaptic first, excitatory = 0; or None.
    stream: [2] uint32, key from which procedural synapses are drawn, with an empty `post`; or None.
    pre: [G, X+L] int32, feed-forward and plastic inputs of a group of neurons; -1 pads. Neuron n is in group n // group_size.
    out_indptr: [N+X+1] int32, neuron j's plastic outputs are out_slot[out_indptr[j]] to out_slot[out_indptr[j+1]].
    out_slot: int32, flat positions in pre, padded so that plastic_width can be read from any start.
    stimulus: [C, bins, N] stimulus from a file, threshold units, or None.
    rates: [C, M, X] feed-forward rates from a file, Hz, or None.
    group_size: S.
    n_feedforward: X.
    static_width, plastic_width: largest number of edges or slots of one neuron.
    taus: distinct values of tau_plas, ms, if it differs between neurons and has at most MAX_TAU_CHANNELS values; else empty.
    tau_channel: [N+X] int32, index in `taus` of the time constant that filters the spikes of a neuron; or None.
    rate_table: transfer functions, with which a trial also computes filtered rates (`SimState.expected`); or None.
    largest_background: largest mean number of background spikes of a neuron in a step; 0: no background.
    delays: K different delays of the static synapses, ms, ascending; empty: all synapses have the delays of the configuration.

    In the shard of one device (see `sharding`), N is the number of its own neurons, which alone are postsynaptic, but presynaptic
    neurons have their numbers in the whole network:

    classes_of_all: [n_whole] bool, whether a neuron of the whole network is excitatory; None where this is the whole network.
    first: int32, number of the first neuron of the shard in the whole network; None outside of a program that runs on the devices.
    n_of_all: number of neurons of the whole network; 0 where this is the whole network.
    mesh: the devices that have a shard each; None where one device has the whole network.
    """

    excitatory: Array
    bias: Array
    v0: Array | None
    parameters: dict[str, Array]
    indptr: Array
    post: Array
    weight: Array | None
    class_weight: Array | None
    stream: Array | None
    pre: Array
    out_indptr: Array
    out_slot: Array
    stimulus: Array | None
    rates: Array | None
    group_size: int = dataclasses.field(metadata={"static": True})
    n_feedforward: int = dataclasses.field(metadata={"static": True})
    static_width: int = dataclasses.field(metadata={"static": True})
    plastic_width: int = dataclasses.field(metadata={"static": True})
    taus: tuple[float, ...] = dataclasses.field(default=(), metadata={"static": True})
    tau_channel: Array | None = None
    rate_table: RateTable | None = None
    largest_background: float = dataclasses.field(default=0.0, metadata={"static": True})
    delays: tuple[float, ...] = dataclasses.field(default=(), metadata={"static": True})
    classes_of_all: Array | None = None
    first: Array | None = None
    n_of_all: int = dataclasses.field(default=0, metadata={"static": True})
    mesh: Mesh | None = dataclasses.field(default=None, metadata={"static": True})

    @property
    def n_neurons(self) -> int:
        """N."""
        return self.excitatory.shape[0]

    @property
    def n_whole(self) -> int:
        """Number of neurons of the whole network; feed-forward neurons have the numbers after them."""
        return self.n_of_all or self.n_neurons

    @property
    def n_groups(self) -> int:
        """G of the whole network."""
        return -(-self.n_whole // self.group_size)

    @property
    def n_presynaptic(self) -> int:
        """N+X of the whole network, neurons and feed-forward neurons."""
        return self.n_whole + self.n_feedforward

    @property
    def n_sources(self) -> int:
        """Sources of spikes: N+X, or (1+K)*(N+X) with K delays of static synapses."""
        return self.indptr.shape[-1] - 1

    @property
    def classes(self) -> Array:
        """[n_whole] bool, whether each neuron of the whole network is excitatory."""
        return self.excitatory if self.classes_of_all is None else self.classes_of_all

    @property
    def n_inputs(self) -> int:
        """X+L, all trained inputs of a neuron."""
        return self.pre.shape[1]

    @property
    def per_synapse(self) -> bool:
        """Whether tau_plas has so many values that each synapse keeps a current of its own."""
        return "tau_plas" in self.parameters and self.tau_channel is None

    @property
    def n_edges(self) -> int:
        """Number of static edges, without padding."""
        return int(self.indptr[-1])


def gather_inputs(network: Network, values: Array) -> Array:
    """[G, X+L] values [N+X] of each group's inputs, 0 where `pre` pads."""
    return jnp.where(network.pre >= 0, values[network.pre], 0)


def edges_by_neuron(network: Network, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The static edges of presynaptic neurons `start` to `stop`, sorted by neuron and delay.

    Returns:
      Numbers [stop - start] of their edges; the positions of these edges in the arrays of the network; and their delays, ms, 0 in a network
      without delays of static synapses.
    """
    n, delays = network.n_presynaptic, network.delays
    rows = (np.arange(1, 1 + len(delays)) if delays else np.zeros(1, int)) * n + np.arange(start, stop)[:, None]
    first = np.asarray(network.indptr)[rows].astype(np.int64)
    count = np.asarray(network.indptr)[rows + 1] - first
    ends = np.cumsum(count).reshape(count.shape)
    at = np.repeat((first - ends + count).reshape(-1), count.reshape(-1)) + np.arange(count.sum())
    late = np.broadcast_to(np.asarray(delays or (0,), np.float32), count.shape)
    return count.sum(axis=1), at, np.repeat(late.reshape(-1), count.reshape(-1))


def degrees(network: Network) -> np.ndarray:
    """[N] int64 number of static outputs of each neuron."""
    counts = np.diff(np.asarray(network.indptr, np.int64)).reshape(-1, network.n_presynaptic)
    return counts.sum(axis=0)[: network.n_neurons]
