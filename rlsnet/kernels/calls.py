"""Compiled kernels for the CPU: kernels.cc, built once by the machine's own C++ compiler and called by XLA.

XLA's CPU backend distributes each small loop over its threads, reads P row by row only with copies in between, and keeps no tile of
P in registers while several updates are applied to it. The hot loops therefore exist twice: in JAX (`spikes`, `rng`, `rls`,
`deferred`), which is the specification and runs everywhere, and here for speed.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from rlsnet.errors import UserError
from rlsnet.kernels.build import build_error
from rlsnet.model import rng
from rlsnet.model.network import Network


def _require() -> None:
    """Registers the native kernels if that has not happened yet.

    Raises:
      UserError: they cannot be built.
    """
    if (error := build_error()) is not None:
        raise UserError(f"engine.kernels=native: {error}. Use engine.kernels=auto.")


def _call(name: str, dtype: jnp.dtype, changed: tuple[Array, ...], *arguments: Array) -> tuple[Array, ...]:
    """Calls a kernel for numbers of type `dtype`, which changes its last arguments, `changed`, in place."""
    _require()
    kind = {4: "f32", 8: "f64"}[jnp.dtype(dtype).itemsize]
    shapes = tuple(jax.ShapeDtypeStruct(array.shape, array.dtype) for array in changed)
    aliases = {len(arguments) + index: index for index in range(len(changed))}
    return tuple(jax.ffi.ffi_call(f"rlsnet_{name}_{kind}", shapes, input_output_aliases=aliases)(*arguments, *changed))


def deliver(network: Network, w: Array | None, spiked: Array, gain: Array, *changed: Array) -> tuple[Array, ...]:
    """`delivery.deliver`; `changed` are the filters [2+T, N], r and n_delivered [N+X]."""
    none = jnp.zeros(0, gain.dtype)
    drawn = jnp.zeros(0, jnp.uint32) if network.stream is None else network.stream
    static = network.indptr, drawn, network.post, none if network.weight is None else network.weight
    channel = jnp.zeros(0, jnp.int32) if network.tau_channel is None else network.tau_channel
    plastic = network.out_indptr, network.out_slot, channel, none.reshape(0, 0, 1) if w is None else w
    return _call("deliver", gain.dtype, changed, spiked, gain, network.excitatory, *static, *plastic)


def normal(stream: Array, n: int, dtype: jnp.dtype) -> Array:
    """`rng.normal`, from the same bits and closer to the true quantiles; in float32 only, else `rng.normal` itself."""
    if dtype != jnp.float32:
        return rng.normal(stream, n, dtype)
    _require()
    return jax.ffi.ffi_call("rlsnet_normal_f32", jax.ShapeDtypeStruct((n,), dtype))(stream)


def learn(
    flags: Array,
    forgetting: float,
    count: Array,
    refresh: Array,
    decay: float,
    r: Array,
    arrived: Array,
    pre: Array,
    residual_input: Array,
    *changed: Array,
) -> tuple[Array, ...]:
    """One update of all groups: P and its scale, w [G, L, S], u [G, Q, L], factor [G] and g [G, L] after it; see `deferred.Pending`.

    Args:
      flags: [2] bool, whether the gain is that of the textbook, and whether the update is to change anything.
      forgetting: factor of each update.
      count: int32, downdates in u that are not yet applied to P.
      refresh: bool, whether they are applied now.
      decay: of r between two updates.
      r: [N+X] filtered spikes, 1/ms.
      arrived: [N+X] what spikes since the last update have added to r, exactly 0 where there were none.
      pre: [G, L].
      residual_input: [N] u_bal - target, threshold units; NaN for neurons that are not trained now.
      *changed: the six arrays before the update; the scale is [0, 1] where P has none.
    """
    dtype = r.dtype
    numbers = jnp.asarray(forgetting, dtype), count, refresh, jnp.asarray(decay, dtype)
    return _call("learn", dtype, changed, flags, *numbers, r, arrived, pre, residual_input)


def apply_pending(count: Array, u: Array, factor: Array, *changed: Array) -> tuple[Array, ...]:
    """P and its scale after P = factor*(P - sum of u_q u_q^T over the first `count` vectors of u [G, Q, L]); factor [G]."""
    return _call("flush", u.dtype, changed, count, u, factor)
