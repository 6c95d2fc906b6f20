"""Operations on all groups of neurons, in place and in blocks of groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from rlsnet.kernels.device import platform_in_use

ELEMENTS_PER_BLOCK = 2**20  # elements of P in a block of groups: few enough to be still in the cache when they are written
ELEMENTS_PER_BLOCK_GPU = 2**27  # on a GPU: enough work for one operation


def by_blocks(inputs: int, change: Callable[..., Any], changed: Any, given: tuple[Any, ...], now: Array | bool = True) -> Any:
    """Applies `change` to arrays in place, block by block of groups, if `now`; returns `changed` afterwards.

    Args:
      inputs: number of inputs L; the memory for a group grows with its square.
      change: function of a block of `changed` and of `given`; returns the new block of `changed`.
      changed: arrays [G, ...], in any pytree.
      given: arrays [G, ...], in any pytrees.
      now: bool; if false, the loop has no turns. A condition (lax.cond) might copy P.
    """
    groups = len(jax.tree.leaves(changed)[0])
    elements = ELEMENTS_PER_BLOCK if platform_in_use() == "cpu" else ELEMENTS_PER_BLOCK_GPU
    size = max(1, min(groups, elements // inputs**2))

    def one_block(index: Array, changed: Any) -> Any:
        start = jnp.minimum(index * size, groups - size)
        fresh = start + jnp.arange(size, dtype=jnp.int32) >= index * size  # the last block overlaps the one before
        changed_block, given_block = jax.tree.map(lambda array: lax.dynamic_slice_in_dim(array, start, size), (changed, given))

        def put(array: Array, before: Array, after: Array) -> Array:
            result = jnp.where(fresh.reshape(-1, *[1] * (after.ndim - 1)), after, before)
            return lax.dynamic_update_slice_in_dim(array, result, start, 0)

        return jax.tree.map(put, changed, changed_block, change(changed_block, *given_block))

    return lax.fori_loop(0, jnp.where(now, -(-groups // size), 0), one_block, changed)
