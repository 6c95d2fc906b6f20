"""Random numbers from counters: a value depends on (seed, purpose, counters) and on nothing else.

No state is carried, so a result does not depend on threads, devices, chunking or a resume. The mixing function is a
two-multiply 32-bit avalanche hash (constants from the search of Wellons, github.com/skeeto/hash-prospector); a key
holds 64 bits, applied in two rounds so that two keys never share a sequence by a mere shift of the counter.
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


class Purpose(IntEnum):
    """What a stream of random numbers is for."""

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


def mix(x: Array) -> Array:
    """A bijection of uint32 in which every input bit changes every output bit with probability near 1/2."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


def key(seed: int, purpose: Purpose) -> Array:
    """[2] uint32, the key of a stream."""
    return fold(fold(np.array([seed & 0xFFFFFFFF, seed >> 32], np.uint32), int(purpose)), 0)


@partial(jax.jit, inline=True)
def fold(stream: Array, counter: ArrayLike) -> Array:
    """A key for one value of a counter (an iteration, a step, a neuron): [2] and [...] -> [..., 2]."""
    counter = jnp.asarray(counter).astype(jnp.uint32)
    a = mix(stream[..., 0] ^ mix(counter + np.uint32(0x9E3779B9)))
    b = mix(stream[..., 1] + a * np.uint32(0x85EBCA6B) + np.uint32(1))
    return jnp.stack([a, b], axis=-1)


def bits(stream: Array, counter: Array) -> Array:
    """32 random bits per counter, uint32 of its shape."""
    return mix(mix(counter.astype(jnp.uint32) ^ stream[..., 0]) + stream[..., 1])


def uniform(stream: Array, n: int, dtype: jnp.dtype) -> Array:
    """[n] uniform in (0, 1), never 0 or 1."""
    return _unit(bits(stream, jnp.arange(n, dtype=jnp.uint32)), dtype)


def normal(stream: Array, n: int, dtype: jnp.dtype) -> Array:
    """[n] standard normal, by the inverse error function."""
    return math.sqrt(2.0) * lax.erf_inv(2 * uniform(stream, n, dtype) - 1)


def _unit(random: Array, dtype: jnp.dtype) -> Array:
    """Bits to the middle of one of 2^23 (float32) or 2^32 (float64) equal cells of (0, 1), exactly: never 0 or 1."""
    drop, cells = (9, 2.0**23) if jnp.finfo(dtype).bits == 32 else (0, 2.0**32)
    return ((random >> drop).astype(dtype) + np.asarray(0.5, dtype)) * np.asarray(1 / cells, dtype)


def permute(stream: Array, x: Array, n: int) -> Array:
    """The image of `x` (integers in 0..n-1) under a random permutation of 0..n-1 that the key chooses.

    A Feistel network on a grid of a*b >= n points, walked until the point is below n; so any number of distinct draws
    are computed apart, each from its counter.

    Args:
      stream: [..., 2] uint32, one permutation each, broadcast against x.
      x: integers.
      n: size of the set, at most 2^31.
    """
    a = math.isqrt(n - 1) + 1
    b = -(-n // a)

    def draw(round_: int, side: Array, size: int) -> Array:
        h = mix(mix(side + np.uint32(round_ * 0x9E3779B9 & 0xFFFFFFFF) ^ stream[..., 0]) + stream[..., 1])
        return ((h >> 16) * np.uint32(size)) >> 16

    def walk(x: Array) -> Array:
        left, right = x // np.uint32(b), x % np.uint32(b)
        for round_ in range(4):
            left = (left + draw(2 * round_, right, a)) % np.uint32(a)
            right = (right + draw(2 * round_ + 1, left, b)) % np.uint32(b)
        return left * np.uint32(b) + right

    once = walk(x.astype(jnp.uint32))
    return lax.while_loop(lambda y: jnp.any(y >= n), lambda y: jnp.where(y >= n, walk(y), y), once).astype(jnp.int32)


def subset(stream: Array, size: int, n: int) -> np.ndarray:
    """[size] int32, distinct numbers below n in increasing order."""
    return np.sort(np.asarray(jax.jit(permute, static_argnums=2)(stream, jnp.arange(size, dtype=jnp.uint32), n)))
