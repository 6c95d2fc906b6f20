"""Delivery of spikes to the currents of their postsynaptic neurons, in XLA; spikes are packed into words of 32 bits.

A second level of words has one bit for each word that is not 0, so that the search for the next spike reads N/1024 words.

The arrays of a trial may have a leading axis of B trials. Their neurons are then one list, in which neuron j of trial b has the number
b*(N+X) + j, and the trials share the synapses.

Where static synapses have delays of their own, there are more sources of spikes than neurons (`Network.indptr`), and N+X here is the number
of sources. Those after the first N+X have static synapses only, and are not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.custom_batching import custom_vmap

from rlsnet.kernels import calls
from rlsnet.model import connectivity, sharding
from rlsnet.model.network import Network


def pack(flags: Array) -> Array:
    """Packed flags: [n] bool -> [W] uint32 with W = ceil(n/32); bit b of word k is flag b*W + k."""
    flags = jnp.pad(flags, (0, -flags.shape[0] % 32)).reshape(32, -1)
    bit = np.uint32(1) << np.arange(32, dtype=np.uint32)
    return jnp.sum(jnp.where(flags, bit[:, None], np.uint32(0)), axis=0, dtype=jnp.uint32)


def unpack(words: Array, each: int, n: int) -> Array:
    """[c, n] bool, the flags of n neurons from the packed ones [c, D, W] of D devices with `each` neurons; those after n are padding."""
    bits = words[:, :, None, :] >> jnp.arange(32, dtype=jnp.uint32)[None, None, :, None]
    flags = (bits & np.uint32(1)).astype(bool).reshape(*words.shape[:2], -1)
    return flags[:, :, :each].reshape(len(words), -1)[:, :n]


def of_all_devices(network: Network, spiked: Array, native: bool) -> Array:
    """[c, N+X] bool, the spikes of c steps of the whole network, from those of the neurons on each device, which exchange packed words.

    Args:
      network: neurons and connectivity.
      spiked: [c, N+X] of the neurons of a device, and of the feed-forward neurons, which are the same on all devices.
      native: whether native kernels pack them. XLA on a CPU would compute the step of a neuron again for its bit, neuron by neuron.
    """
    if network.mesh is None:
        return spiked
    n, dtype = network.n_neurons, network.bias.dtype
    own = spiked[:, :n]
    words = lax.all_gather(calls.pack(own, dtype) if native else jax.vmap(pack)(own), sharding.AXIS, axis=1)
    sizes = n, network.n_whole
    flags = calls.unpack(words, *sizes, dtype) if native else unpack(words, *sizes)
    return jnp.concatenate([flags, spiked[:, n:]], axis=1)


def _lowest_bit(word: Array) -> Array:
    """Position of the lowest bit that is 1."""
    return lax.population_count(~word & (word - np.uint32(1))).astype(jnp.int32)


def take(left: Array, words: Array, blocks: Array, size: int, none: int) -> tuple[Array, Array, Array, Array]:
    """Removes up to `size` spikes from packed words; returns (left, words, blocks) afterwards, and their neurons.

    Args:
      left: number of spikes in `words`.
      words: [W] uint32, packed spikes.
      blocks: packed flags of the words that are not 0.
      size: largest number of spikes to remove.
      none: number that pads the neurons.

    Returns:
      left, words and blocks without these spikes, and [size] int32 neurons.
    """
    count = words.shape[0]

    def one_spike(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        left, taken, words, blocks, neurons_ = carry
        block = jnp.argmax(blocks != 0).astype(jnp.int32)
        index = _lowest_bit(blocks[block]) * blocks.shape[0] + block
        word = words[index]
        rest = word & (word - np.uint32(1))
        empty = jnp.where(rest == 0, blocks[block] & (blocks[block] - np.uint32(1)), blocks[block])
        neurons_ = neurons_.at[taken].set(_lowest_bit(word) * count + index)
        return left - 1, taken + 1, words.at[index].set(rest), blocks.at[block].set(empty), neurons_

    carry = (left, jnp.int32(0), words, blocks, jnp.full(size, none, jnp.int32))
    left, _, words, blocks, j = lax.while_loop(lambda carry: (carry[0] > 0) & (carry[1] < size), one_spike, carry)
    return left, words, blocks, j


def _runs(indptr: Array, j: Array, width: int) -> tuple[Array, Array]:
    """(positions, valid), both [size, width]: the entries indptr[j] to indptr[j+1] of neurons j; none for j = N+X."""
    known = jnp.minimum(j, indptr.shape[0] - 2)
    start, step = indptr[known][:, None], jnp.arange(width, dtype=jnp.int32)[None, :]
    valid = (step < indptr[known + 1][:, None] - start) & (j < indptr.shape[0] - 1)[:, None]
    return start + step, valid


def of_source(network: Network, values: Array, j: Array | None = None) -> Array:
    """Value of the plastic filter of each presynaptic neuron: one number, or [N+X] for T > 1.

    Args:
      network: for the time constant of each neuron.
      values: [2+T], the plastic filters last.
      j: the neurons, N+X for none; all if not given.
    """
    channel = network.tau_channel
    if channel is None:
        return values[2]
    return values[2 + (channel if j is None else channel[jnp.minimum(j, len(channel) - 1)])]


def side_by_side(form: Callable[..., tuple[Array, ...]]) -> Callable[..., tuple[Array, ...]]:
    """A form of `deliver` that jax.vmap over B trials calls once, with the arrays of all trials, and not operation by operation.

    A fourth result, whether the spikes overflowed, is that of all trials together.
    """
    function = custom_vmap(form)

    @function.def_vmap
    def all_trials(trials: int, batched: Any, network: Network, w: Array | None, spiked: Array, gain: Array, *changed: Array) -> Any:
        def of_trials(values: Array, known: bool) -> Array:
            return values if known else jnp.broadcast_to(values, (trials, *values.shape))

        own = [of_trials(*each) for each in zip(changed, batched[4:], strict=True)]
        results = form(network, w, of_trials(spiked, batched[2]), gain, *own)
        return results, tuple(index < 3 for index in range(len(results)))

    return function


def _within_trial(network: Network, j: Array, trials: int) -> tuple[Array, Array]:
    """(neuron, trial) of neurons that are numbered through B trials; N+X and B for none."""
    sources = network.n_sources
    trial = j // sources
    return jnp.where(trial < trials, j - trial * sources, sources), trial


def outputs(network: Network, w: Array | None, j: Array, gain: Array, trials: int = 1) -> tuple[Array, Array]:
    """Positions in the flat filters [B*(2+T)*N] that spikes reach (its length: none), and the values to add there.

    Args:
      network: neurons and connectivity.
      w: [G, X+L, S] trained weights, or None: static synapses only.
      j: [size] neurons of the spikes, numbered through the trials; B*(N+X) for none.
      gain: [2+T], see `step.deliver`.
      trials: B.
    """
    n, size = network.n_neurons, network.group_size
    nowhere, trial = len(gain) * n, None
    if trials > 1:
        j, trial = _within_trial(network, j, trials)
    targets, values = [jnp.zeros((len(j), 0), jnp.int32)], [jnp.zeros(0, gain.dtype)]
    if network.static_width:
        edge, valid = _runs(network.indptr, j, network.static_width)
        known = jnp.minimum(j, network.n_whole - 1)[:, None]
        if network.stream is None:
            post = network.post[edge]
        else:
            every = jnp.broadcast_to(known, edge.shape), jnp.broadcast_to(jnp.arange(network.static_width, dtype=jnp.int32), edge.shape)
            post = connectivity.targets_of(network.stream, *every, network.n_whole)
            if network.first is not None:
                post = post - network.first
                valid &= (post >= 0) & (post < n)
        exc = network.classes[known if not network.delays else j[:, None] % network.n_presynaptic]
        targets.append(jnp.where(valid, post + jnp.where(exc, 0, n), nowhere))
        weight = jnp.where(exc, gain[0], gain[1])
        weight = weight * (jnp.ones(edge.shape, gain.dtype) if network.weight is None else network.weight[edge])
        values.append(weight.reshape(-1))
    if w is not None and network.plastic_width:
        place, valid = _runs(network.out_indptr, j, network.plastic_width)
        slot = network.out_slot[place]
        post = (slot // network.n_inputs)[:, :, None] * size + jnp.arange(size, dtype=jnp.int32)[None, None, :]
        first: Any = 2 * n
        unit = of_source(network, gain, j)
        if network.tau_channel is not None:
            first = (of_source(network, jnp.arange(len(gain), dtype=jnp.int32), j) * n)[:, None, None]
            unit = unit[:, None, None]
        targets.append(jnp.where(valid[:, :, None] & (post < n), post + first, nowhere).reshape(len(j), -1))
        values.append((w.reshape(-1, size)[slot] * unit).reshape(-1))
    if trial is not None:
        start = (trial * nowhere)[:, None]
        targets = [jnp.where(each < nowhere, start + each, trials * nowhere) for each in targets]
    return jnp.concatenate([each.reshape(-1) for each in targets]), jnp.concatenate(values)


def deliver(
    network: Network, w: Array | None, spiked: Array, gain: Array, synapses: Array, r: Array, n_delivered: Array
) -> tuple[Array, Array, Array]:
    """Filters [2+T, N], r and n_delivered [N+X] after the delivery of spikes [N+X], all of one trial or of B; see `step.deliver`.

    Spikes are processed in batches, so that each operation has enough work in large networks with many spikes in a step.
    """
    trials = spiked.size // network.n_sources
    size = min(16, max(1, trials * network.n_whole // 2048))

    def one_batch(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        left, words, blocks, pool, r, n_delivered = carry
        left, words, blocks, j = take(left, words, blocks, size, spiked.size)
        targets, values = outputs(network, w, j, gain, trials)
        pool = pool.at[targets].add(values, mode="drop")
        neuron, trial = (j, 0) if trials == 1 else _within_trial(network, j, trials)
        unit = of_source(network, gain, neuron)
        if network.delays:
            j = jnp.where(neuron < network.n_presynaptic, trial * network.n_presynaptic + neuron, r.size)
        return left, words, blocks, pool, r.at[j].add(unit, mode="drop"), n_delivered.at[j].add(1, mode="drop")

    words = pack(spiked.reshape(-1))
    total = jnp.sum(lax.population_count(words).astype(jnp.int32))
    carry = (total, words, pack(words != 0), synapses.reshape(-1), r.reshape(-1), n_delivered.reshape(-1))
    _, _, _, *after = lax.while_loop(lambda carry: carry[0] > 0, one_batch, carry)
    pool, r, n_delivered = (values.reshape(old.shape) for values, old in zip(after, (synapses, r, n_delivered), strict=True))
    return pool, r, n_delivered


def spike_capacity(n: int) -> int:
    """Initial capacity of fixed-shape arrays: the spikes of n neurons in a step of 0.1 ms at 15 Hz, and at least 64."""
    return max(64, -(-n * 3 // 2000))


def deliver_fixed_shape(
    capacity_factor: int, network: Network, w: Array | None, spiked: Array, gain: Array, synapses: Array, r: Array, n_delivered: Array
) -> tuple[Array, Array, Array, Array]:
    """Fixed-shape form of `deliver`, for GPUs: few operations on arrays of capacity_factor*`spike_capacity` spikes, without a loop.

    Returns:
      The results of `deliver`, and whether the spikes of all trials together overflowed; spikes beyond the capacity are then not
      delivered.
    """
    trials = spiked.size // network.n_sources
    size, words = min(spiked.size, capacity_factor * spike_capacity(spiked.size)), pack(spiked.reshape(-1))
    count = jnp.cumsum(lax.population_count(words).astype(jnp.int32))
    j = nth(words, count, jnp.arange(size, dtype=jnp.int32), spiked.size)
    targets, values = outputs(network, w, j, gain, trials)
    pool = synapses.reshape(-1).at[targets].add(values, mode="drop")
    counted = spiked[..., : network.n_presynaptic]
    r = r + jnp.where(counted, jnp.broadcast_to(of_source(network, gain), r.shape), 0)
    return pool.reshape(synapses.shape), r, n_delivered + counted.astype(jnp.int32), count[-1] > size


def nth(words: Array, count: Array, rank: Array, none: int) -> Array:
    """[size] int32, neurons of the spikes with these ranks (from 0) in packed words; `none` beyond the last spike.

    count: [W] int32, number of spikes in each word and all words before it.
    """
    index = jnp.searchsorted(count, rank, side="right", method="scan_unrolled").astype(jnp.int32)
    known = jnp.minimum(index, words.shape[0] - 1)
    word = words[known]
    left = rank - (count[known] - lax.population_count(word).astype(jnp.int32))
    position = jnp.zeros_like(rank)
    for half in (16, 8, 4, 2, 1):  # the bit that has `left` spikes below it
        below = lax.population_count((word >> position.astype(jnp.uint32)) & np.uint32((1 << half) - 1)).astype(jnp.int32)
        above = left >= below
        left, position = jnp.where(above, left - below, left), jnp.where(above, position + half, position)
    return jnp.where(index < words.shape[0], position * words.shape[0] + known, none)
