"""Static synapses between populations, as in Potjans & Diesmann 2014, in networks of any size (van Albada et al. 2015)."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from rlsnet.config.schema import PopulationsConfig
from rlsnet.io import population_files
from rlsnet.io.population_files import Populations
from rlsnet.model.connectivity import Edges
from rlsnet.model.regions import generator_of

SYNAPSES_PER_BLOCK = 2**22  # drawn at a time
MOST_DEVIATIONS = 6.0  # of a delay from its mean, in s.d.


def of_neurons(static: PopulationsConfig, values: np.ndarray) -> np.ndarray:
    """[N] values [P] of the population of each neuron."""
    return np.repeat(values, population_files.read(static.path).scaled(static.scale, static.inputs)[0])


def sizes(static: PopulationsConfig) -> dict[str, int]:
    """Number of neurons by name of the population, in order of their neurons."""
    found = population_files.read(static.path)
    return dict(zip(found.names, found.scaled(static.scale, static.inputs)[0].tolist(), strict=True))


def external_inputs(static: PopulationsConfig) -> np.ndarray:
    """[N] inputs of each neuron from outside of the network."""
    return of_neurons(static, population_files.read(static.path).external * static.inputs)


def lost_current(static: PopulationsConfig, outside: np.ndarray) -> np.ndarray:
    """[N] constant current (threshold units) that replaces what fewer inputs with larger weights lack in the mean.

    With k times the inputs and weights 1/sqrt(k) times as large the variance of the input is kept, and of its mean sqrt(k) times:
    van Albada, Helias & Diesmann, PLoS Comput. Biol. 11:e1004490 (2015).

    Args:
      static: settings, for the populations and k.
      outside: [N] mean current through one input from outside of the network at full size, threshold units.
    """
    found = population_files.read(static.path)
    in_degree = found.synapses / found.neurons[:, None]
    inside = np.sum(in_degree * _weights(static, found) * found.rate[None, :] / 1000, axis=1)
    return (1 - math.sqrt(static.inputs)) * (of_neurons(static, inside) + of_neurons(static, found.external) * outside)


def _weights(static: PopulationsConfig, found: Populations) -> np.ndarray:
    """[P, P] mean weights at full size, threshold*ms."""
    return np.where(found.excitatory[None, :], 1.0, static.inhibition) * found.weight


def delay_probabilities(mean: float, sd: float, dt: float) -> np.ndarray:
    """Probabilities of the delays dt, 2*dt, ... of a normal distribution that is cut off below dt and rounded to multiples of dt, ms."""
    if sd == 0:
        return np.eye(1, max(1, round(mean / dt)), max(1, round(mean / dt)) - 1)[0]
    last = max(1, math.ceil((mean + MOST_DEVIATIONS * sd) / dt))
    normal = NormalDist(mean, sd)
    ends = np.array([normal.cdf(dt), *(normal.cdf((k + 0.5) * dt) for k in range(1, last + 1))])
    return np.diff(ends) / (ends[-1] - ends[0])


def population_edges(static: PopulationsConfig, stream: np.ndarray, dt: float) -> Edges:
    """The synapses; both neurons of each are drawn from their populations, so that several may be between two neurons, or of one to itself.

    The synapses of one presynaptic population are drawn and sorted at a time, so that little memory is needed beside the result.

    Args:
      static: settings.
      stream: [2] uint32, key.
      dt: time step, ms.
    """
    found = population_files.read(static.path)
    neurons, synapses = found.scaled(static.scale, static.inputs)
    n, start = int(neurons.sum()), np.concatenate([[0], np.cumsum(neurons)])
    longest = max(len(delay_probabilities(mean, mean * found.delay_sd, dt)) for mean in found.delay.flat)
    parts, count = [], np.zeros((longest, n), np.int64)
    for q in range(len(neurons)):
        keys, filled = np.empty(int(synapses[:, q].sum()), np.int64), 0
        for p in range(len(neurons)):
            delays = np.cumsum(delay_probabilities(found.delay[p, q], found.delay[p, q] * found.delay_sd, dt))
            generator = generator_of(stream, 64 * p + q)
            for first in range(0, int(synapses[p, q]), SYNAPSES_PER_BLOCK):
                size = min(SYNAPSES_PER_BLOCK, int(synapses[p, q]) - first)
                late = np.minimum(np.searchsorted(delays, generator.random(size), side="right"), len(delays) - 1)
                pre = generator.integers(neurons[q], size=size)
                if found.fixed_in_degree:
                    post = np.arange(first, first + size) % neurons[p]
                else:
                    post = generator.integers(neurons[p], size=size)
                keys[filled : (filled := filled + size)] = (late * neurons[q] + pre) * n + start[p] + post
        keys.sort()
        count[:, start[q] : start[q + 1]] = np.bincount(keys // n, minlength=longest * neurons[q]).reshape(longest, -1)
        keys %= n
        parts.append(keys.astype(np.int32))
    used = np.flatnonzero(count.any(axis=1))
    ends = [np.concatenate([[0], np.cumsum(own.sum(axis=1))]) for own in np.split(count, start[1:-1], axis=1)]
    post = np.concatenate([part[own[k] : own[k + 1]] for k in used for part, own in zip(parts, ends, strict=True)])
    del parts
    indptr = np.concatenate([np.zeros(n + 1, np.int64), np.cumsum(count[used])])
    weight, generator = np.empty(len(post), np.float32), generator_of(stream, 64 * 64)
    mean = _weights(static, found) / math.sqrt(static.inputs)
    for k in range(len(used)):
        for q in range(len(neurons)):
            row = (1 + k) * n
            part = slice(int(indptr[row + start[q]]), int(indptr[row + start[q + 1]]))
            own = mean[:, q].astype(np.float32)[np.searchsorted(start, post[part], side="right") - 1]
            if found.weight_sd:
                drawn = own * (1 + found.weight_sd * generator.standard_normal(len(own), np.float32))
                own = np.where(drawn * own > 0, drawn, 0)
            weight[part] = own
    return Edges(indptr, post, weight, delays=tuple(((1 + used) * dt).tolist()))
