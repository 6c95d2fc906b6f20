"""Regions of the neurons, and static synapses whose probability depends on them, on the classes, and on the distance."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

PAIRS = 2**22  # synapses that are drawn together


@dataclasses.dataclass(frozen=True)
class Regions:
    """Regions of the N neurons of a network, and the probability of synapses between them.

    names: [R].
    index: [N] int, region of each neuron.
    probability: [R, 2, R, 2] from the region and class (excitatory = 0) of the presynaptic neuron to those of the postsynaptic one.
    coordinates: [N, D] place of each neuron, or None.
    """

    names: tuple[str, ...]
    index: np.ndarray
    probability: np.ndarray
    coordinates: np.ndarray | None = None


def generator_of(stream: np.ndarray, block: int) -> np.random.Generator:
    """Random numbers of one block, from a key [2] uint32."""
    return np.random.Generator(np.random.Philox(key=[int(np.asarray(stream).view(np.uint64)[0]), block]))


def distinct(generator: np.random.Generator, rows: int, width: int, n: int) -> np.ndarray:
    """[rows, width] int64: in each row, distinct random numbers below n; every such row is equally likely, in any order."""
    if not width or 4 * width >= n:
        return np.argsort(generator.random((rows, n)), axis=1)[:, :width]
    out, missing = np.empty((rows, width), np.int64), np.arange(rows)
    while len(missing):  # the first distinct numbers of a row of draws; a row with too few of them is drawn anew
        draws = generator.integers(n, size=(len(missing), 2 * width + 16))
        order, first = np.argsort(draws, axis=1, kind="stable"), np.ones(draws.shape, bool)
        ascending = np.take_along_axis(draws, order, axis=1)
        np.put_along_axis(first, order[:, 1:], ascending[:, 1:] != ascending[:, :-1], axis=1)
        enough = first.sum(axis=1) >= width
        keep = first & (np.cumsum(first, axis=1) <= width)
        out[missing[enough]] = draws[enough][keep[enough]].reshape(-1, width)
        missing = missing[~enough]
    return out


def pairs(stream: np.ndarray, excitatory: np.ndarray, regions: Regions, length: float | None) -> tuple[np.ndarray, np.ndarray]:
    """([nnz], [nnz]) int64 presynaptic and postsynaptic neurons of random static synapses, in no order.

    Each pair of different neurons has a synapse independently, with the probability of its regions and classes times exp(-d/length)
    at a distance d. For one pair of regions and classes, the number of pairs from one synapse to the next is drawn from a geometric
    distribution, which is the same as a draw for each pair.

    Args:
      stream: [2] uint32, key of the random numbers.
      excitatory: [N] bool.
      regions: regions, probabilities and coordinates.
      length: unit of the coordinates; None: no dependence on the distance.
    """
    found = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    members = {(r, c): np.flatnonzero((regions.index == r) & (excitatory == (c == 0))) for r in range(len(regions.names)) for c in (0, 1)}
    for block, ((r, c), (s, d)) in enumerate(itertools.product(members, members)):
        pre, post, p = members[r, c], members[s, d], float(regions.probability[r, c, s, d])
        if not p or not len(pre) or not len(post):
            continue
        generator = generator_of(stream, block)
        last, total = -1, len(pre) * len(post)
        while last < total:
            places = last + np.cumsum(generator.geometric(p, min(PAIRS, int(1.1 * p * total) + 100)))
            last = int(places[-1])
            places = places[places < total]
            j, i = pre[places // len(post)], post[places % len(post)]
            keep = j != i
            if length is not None and regions.coordinates is not None:
                distance = np.linalg.norm(regions.coordinates[j] - regions.coordinates[i], axis=1)
                keep &= generator.random(len(j)) < np.exp(-distance / length)
            found.append((j[keep], i[keep]))
    return np.concatenate([j for j, _ in found]), np.concatenate([i for _, i in found])
