"""Counter-based random numbers: each value depends only on seed, purpose and counters.

No state is carried, so a result does not depend on threads, devices, chunking or a resume (the idea of Salmon et al., Parallel
random numbers: as easy as 1, 2, 3, SC 2011). The mixing function is the 32-bit hash `lowbias32` of Wellons
(github.com/skeeto/hash-prospector, 2018), two multiplications and three shifts; a key holds 64 bits, applied in two rounds so that
two keys never share a sequence by a mere shift of the counter. Random permutations are Feistel networks with cycle walking (Black &
Rogaway, Ciphers with arbitrary finite domains, CT-RSA 2002). tests/model/test_rng.py has statistical tests; the C++ kernels compute the
same bits.
"""

from __future__ import annotations

import math
from enum import IntEnum
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

MOST_POISSON = 30.0  # largest mean of numbers that `poisson` draws at once


class Purpose(IntEnum):
    """Purposes of random numbers; each has streams of its own."""

    STATIC = 1
    PLASTIC = 2
    PHASE = 3
    STIMULUS = 4
    VOLTAGE = 5
    NOISE = 6
    SUBSET = 7
    FEEDFORWARD = 8
    FEEDFORWARD_RATE = 9
    FEEDFORWARD_WEIGHT = 10
    BIAS = 20
    ORDER = 21
    TRANSFER = 22
    PERTURB = 23
    CELL_CLASS = 24
    TRAINED = 25
    BACKGROUND = 26


def mix(x: Array) -> Array:
    """`lowbias32`: a bijection of uint32 in which every input bit changes every output bit with probability near 1/2."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


def key(seed: int, purpose: Purpose) -> Array:
    """[2] uint32, the key of a stream; `seed` has up to 64 bits."""
    return fold(fold(np.array([seed & 0xFFFFFFFF, seed >> 32], np.uint32), int(purpose)), 0)


@partial(jax.jit, inline=True)
def fold(stream: Array, counter: ArrayLike) -> Array:
    """[..., 2] uint32, a key for each value of a counter [...] (an iteration, a step, a neuron); `stream` is [2] or [..., 2]."""
    counter = jnp.asarray(counter).astype(jnp.uint32)
    a = mix(stream[..., 0] ^ mix(counter + np.uint32(0x9E3779B9)))
    b = mix(stream[..., 1] + a * np.uint32(0x85EBCA6B) + np.uint32(1))
    return jnp.stack([a, b], axis=-1)


def bits(stream: Array, counter: Array) -> Array:
    """[...] uint32, 32 random bits for each value of a counter [...]."""
    return mix(mix(counter.astype(jnp.uint32) ^ stream[..., 0]) + stream[..., 1])


@partial(jax.jit, static_argnames=("n", "dtype"), inline=True)
def uniform(stream: Array, n: int, dtype: jnp.dtype, first: Array | None = None) -> Array:
    """[n] uniformly distributed in (0, 1), never 0 or 1; `first`: the counter of the first, 0 if not given.

    With `stream` [Z, 2], the keys of the Z parts of a joined network (see `joined`), each part has n/Z numbers with counters from 0.
    """
    if stream.ndim > 1:
        return jax.vmap(lambda own: uniform(own, n // len(stream), dtype))(stream).reshape(n)
    counter = jnp.arange(n, dtype=jnp.uint32)
    return _to_unit_interval(bits(stream, counter if first is None else counter + first.astype(jnp.uint32)), dtype)


def normal(stream: Array, n: int, dtype: jnp.dtype, first: Array | None = None) -> Array:
    """[n] normally distributed with mean 0 and variance 1, by the inverse error function; `first` as of `uniform`."""
    return math.sqrt(2.0) * lax.erf_inv(2 * uniform(stream, n, dtype, first) - 1)


def poisson(stream: Array, mean: Array, largest: float, first: Array | None = None) -> Array:
    """[n] numbers, of the type of `mean`, that are Poisson-distributed with means [n], by inversion of the distribution function.

    Args:
      stream: [2] uint32, key.
      mean: [n] at least 0.
      largest: an upper bound of the means; above MOST_POISSON the sum of several numbers is drawn.
      first: as of `uniform`.
    """
    count, limits = jnp.zeros_like(mean), poisson_limits(mean, largest)
    for draw in range(poisson_draws(largest)):
        u = uniform(fold(stream, draw), mean.shape[0], mean.dtype, first)
        for limit in limits:
            count = count + (u > limit).astype(mean.dtype)
    return count


def poisson_draws(largest: float) -> int:
    """Number of numbers whose sum `poisson` is, for means of at most `largest`."""
    return max(1, math.ceil(largest / MOST_POISSON))


def poisson_limits(mean: Array, largest: float) -> list[Array]:
    """Probabilities [n] that one of the numbers of `poisson` is at most 0, 1, ...; it is the number of limits below a uniform number.

    The probability of more than there are limits is below the resolution of `uniform` in float32.
    """
    draws = poisson_draws(largest)
    most = math.ceil(largest / draws + 7 * math.sqrt(largest / draws) + 7)
    term = jnp.exp(-mean / draws)
    limits = [term]
    for k in range(1, most):
        term = term * (mean / (draws * k))
        limits.append(limits[-1] + term)
    return limits


def _to_unit_interval(random_bits: Array, dtype: jnp.dtype) -> Array:
    """The middle of one of 2^23 (float32) or 2^32 (float64) equal cells of (0, 1), exactly: never 0 or 1."""
    drop, cells = (9, 2.0**23) if jnp.finfo(dtype).bits == 32 else (0, 2.0**32)
    return ((random_bits >> drop).astype(dtype) + np.asarray(0.5, dtype)) * np.asarray(1 / cells, dtype)


def permute(stream: Array, x: Array, n: int) -> Array:
    """The images of `x` under a random permutation of 0..n-1 that the key chooses.

    A Feistel network on a grid of a*b >= n points, repeated until the point is below n; so distinct random numbers are
    computed independently, each from its counter.

    Args:
      stream: [..., 2] uint32, one permutation each, broadcast against x.
      x: [...] integers from 0 to n-1.
      n: size of the set, at most 2^31.

    Returns:
      [...] int32.
    """
    a = math.isqrt(n - 1) + 1
    b = -(-n // a)

    def round_function(round_: int, side: Array, size: int) -> Array:
        h = mix(mix(side + np.uint32(round_ * 0x9E3779B9 & 0xFFFFFFFF) ^ stream[..., 0]) + stream[..., 1])
        return ((h >> 16) * np.uint32(size)) >> 16

    def permuted_grid(x: Array) -> Array:
        left, right = x // np.uint32(b), x % np.uint32(b)
        for round_ in range(4):
            left = (left + round_function(2 * round_, right, a)) % np.uint32(a)
            right = (right + round_function(2 * round_ + 1, left, b)) % np.uint32(b)
        return left * np.uint32(b) + right

    once = permuted_grid(x.astype(jnp.uint32))
    return lax.while_loop(lambda y: jnp.any(y >= n), lambda y: jnp.where(y >= n, permuted_grid(y), y), once).astype(jnp.int32)


def subset(stream: Array, size: int, n: int) -> np.ndarray:
    """[size] int32, distinct random numbers below n, ascending."""
    return np.sort(np.asarray(jax.jit(permute, static_argnums=2)(stream, jnp.arange(size, dtype=jnp.uint32), n)))
