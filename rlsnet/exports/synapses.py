"""The synapses of a trained network as lists of (presynaptic neuron, postsynaptic neuron, weight), in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from rlsnet.exports.trained_network import TrainedNetwork
from rlsnet.model import connectivity
from rlsnet.model.network import degrees, edges_by_neuron

SYNAPSES_PER_BLOCK = 2**22
BYTES_PER_SYNAPSE = 40  # of memory, while a matrix is made
CLASSES = ("E_to_E", "E_to_I", "I_to_E", "I_to_I")  # of a synapse, numbered 2*(pre inhibitory) + (post inhibitory)


class Synapses(NamedTuple):
    """E synapses.

    pre: [E] int32, presynaptic neurons; feed-forward neurons have the numbers N to N+X-1.
    post: [E] int32, postsynaptic neurons.
    weight: [E] threshold*ms.
    delay: [E] ms, from a spike to the first step in which it acts; float32.
    """

    pre: np.ndarray
    post: np.ndarray
    weight: np.ndarray
    delay: np.ndarray


def static_synapses(trained: TrainedNetwork) -> Iterator[Synapses]:
    """The static synapses in blocks, in order of the presynaptic neuron; procedural ones are drawn."""
    net, n = trained.network, trained.n_neurons
    indptr = static_ends(trained)
    weight = None if net.weight is None else np.asarray(net.weight)
    stored_post = None if net.stream is not None else np.asarray(net.post)
    class_weight = None if net.class_weight is None else np.asarray(net.class_weight)
    inhibitory = _inhibitory(trained)
    start = 0
    while start < n:
        stop = int(max(start + 1, np.searchsorted(indptr, indptr[start] + SYNAPSES_PER_BLOCK, side="right") - 1))
        edge: Any = slice(int(indptr[start]), int(indptr[stop]))
        pre = np.repeat(np.arange(start, stop, dtype=np.int32), np.diff(indptr[start : stop + 1]))
        delay = trained.delay[pre]
        if net.delays:
            _, edge, delay = edges_by_neuron(net, start, stop)
        if stored_post is None:
            draw = np.arange(indptr[start], indptr[stop]) - indptr[pre]
            drawn = connectivity.targets_of(net.stream, jnp.asarray(pre), jnp.asarray(draw, jnp.int32), n)
            post = np.asarray(drawn)
        else:
            post = stored_post[edge]
        if len(post):
            own = class_weight[inhibitory[pre], inhibitory[post]] if weight is None else weight[edge]  # type: ignore[index]
            yield Synapses(pre, post, own, delay)
        start = stop


def plastic_synapses(trained: TrainedNetwork) -> Iterator[Synapses]:
    """The plastic synapses in blocks, in order of the postsynaptic neuron; without those from feed-forward neurons."""
    n, n_inputs = trained.n_neurons, trained.pre.shape[1]
    size = max(1, SYNAPSES_PER_BLOCK // max(1, n_inputs))
    for start in range(0, n if n_inputs else 0, size):
        stop = min(n, start + size)
        pre = trained.pre[np.arange(start, stop) // trained.network.group_size]
        used = pre >= 0
        post = np.broadcast_to(np.arange(start, stop, dtype=np.int32)[:, None], pre.shape)
        pre, post = pre[used].astype(np.int32), post[used]
        yield Synapses(pre, post, trained.weight[start:stop, trained.n_feedforward :][used], trained.delay[pre])


def feedforward_synapses(trained: TrainedNetwork) -> Iterator[Synapses]:
    """The synapses from feed-forward neurons, as one block; no block without such neurons."""
    n, x = trained.n_neurons, trained.n_feedforward
    if x:
        post, pre = np.indices((n, x), np.int32).reshape(2, -1)
        yield Synapses(pre + n, post, trained.feedforward_weight.ravel(), trained.delay[pre + n])


def join_blocks(blocks: Iterator[Synapses], dtype: np.dtype) -> Synapses:
    """All blocks as one; `dtype` is that of the weights, for the case that there is no block."""
    none = np.zeros(0, np.int32)
    found = list(blocks) or [Synapses(none, none, np.zeros(0, dtype), np.zeros(0, np.float32))]
    return Synapses(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)))


def static_ends(trained: TrainedNetwork) -> np.ndarray:
    """[N+1] int64: the static synapses of neuron j are those from the j-th of these numbers to the next one."""
    return np.concatenate([[0], np.cumsum(degrees(trained.network))])


def matrix(trained: TrainedNetwork, kind: str, values: str = "weight") -> Any:
    """The weights (threshold*ms) or delays (ms) of all synapses of a kind, static or plastic, as a SciPy CSR array [N, N].

    A row is a postsynaptic, a column a presynaptic neuron. Two synapses between the same two neurons are two entries.
    BYTES_PER_SYNAPSE of memory are needed.
    """
    from scipy import sparse

    shape, dtype = (trained.n_neurons, trained.n_neurons), trained.weight.dtype
    if kind == "static":
        static = join_blocks(static_synapses(trained), dtype)
        return sparse.csc_array((getattr(static, values), static.post, static_ends(trained)), shape=shape).tocsr()
    plastic, indptr = join_blocks(plastic_synapses(trained), dtype), np.concatenate([[0], np.cumsum(trained.n_plastic_inputs)])
    return sparse.csr_array((getattr(plastic, values), plastic.pre, indptr), shape=shape)


def class_numbers(trained: TrainedNetwork, synapses: Synapses) -> np.ndarray:
    """[E] uint8 index in CLASSES of each synapse."""
    inhibitory = _inhibitory(trained)
    return (2 * inhibitory[synapses.pre] + inhibitory[synapses.post]).astype(np.uint8)


def weights_by_class(trained: TrainedNetwork) -> dict[str, dict[str, dict[str, float]]]:
    """Number, mean and s.d. of the weights (threshold*ms): {"static" or "plastic": {class: {"n", "mean", "sd"}}}."""
    summary = {}
    for kind, blocks in (("static", static_synapses(trained)), ("plastic", plastic_synapses(trained))):
        sums = np.zeros((3, 4))
        for block in blocks:
            label, weight = class_numbers(trained, block), np.asarray(block.weight, np.float64)
            sums += [np.bincount(label, values, 4) for values in (np.ones(len(label)), weight, weight**2)]
        n, total, squares = sums
        mean = total / np.maximum(n, 1)
        sd = np.sqrt(np.maximum(squares / np.maximum(n, 1) - mean**2, 0))
        summary[kind] = {c: {"n": int(n[i]), "mean": float(mean[i]), "sd": float(sd[i])} for i, c in enumerate(CLASSES)}
    return summary


def _inhibitory(trained: TrainedNetwork) -> np.ndarray:
    """[N] 1 for inhibitory neurons, 0 for excitatory ones."""
    return (~trained.excitatory).astype(np.intp)
