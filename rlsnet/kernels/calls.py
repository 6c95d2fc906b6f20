"""Native kernels as JAX functions: calls of the compiled code within XLA programs on a CPU.

By itself, XLA on a CPU distributes each small loop over threads, copies P to read it row by row, and does not keep a tile of P in
registers while several updates are applied to it. The hot loops therefore exist twice: in JAX (`delivery`, `rng`, `rls`, `deferred`),
which is the specification and runs on every device, and in C++ (`kernels.cc`).
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
    """Registers the native kernels at the first call.

    Raises:
      UserError: the kernels cannot be built.
    """
    if (error := build_error()) is not None:
        raise UserError(f"engine.kernels=native: {error}. Use engine.kernels=auto.")


def _call(name: str, dtype: jnp.dtype, changed: tuple[Array, ...], *arguments: Array) -> tuple[Array, ...]:
    """Results of a kernel for numbers of type `dtype`; it changes its last arguments, `changed`, in place."""
    _require()
    kind = {4: "f32", 8: "f64"}[jnp.dtype(dtype).itemsize]
    shapes = tuple(jax.ShapeDtypeStruct(array.shape, array.dtype) for array in changed)
    aliases = {len(arguments) + index: index for index in range(len(changed))}
    return tuple(jax.ffi.ffi_call(f"rlsnet_{name}_{kind}", shapes, input_output_aliases=aliases)(*arguments, *changed))


def deliver(network: Network, w: Array | None, spiked: Array, gain: Array, *changed: Array) -> tuple[Array, ...]:
    """Native form of `delivery.deliver`; `changed` are the filters [2+T, N], r and n_delivered [N+X]; for B trials [B, ...], as spiked."""
    none = jnp.zeros(0, gain.dtype)
    drawn = jnp.zeros(0, jnp.uint32) if network.stream is None else network.stream
    static = network.indptr, drawn, network.post, none if network.weight is None else network.weight
    channel = jnp.zeros(0, jnp.int32) if network.tau_channel is None else network.tau_channel
    plastic = network.out_indptr, network.out_slot, channel, none.reshape(0, 0, 1) if w is None else w
    return _call("deliver", gain.dtype, changed, spiked, gain, network.excitatory, *static, *plastic)


def normal(stream: Array, n: int, dtype: jnp.dtype) -> Array:
    """Native form of `rng.normal` in float32, from the same bits and closer to the true quantiles; in float64 `rng.normal` itself."""
    if dtype != jnp.float32:
        return rng.normal(stream, n, dtype)
    _require()
    return jax.ffi.ffi_call("rlsnet_normal_f32", jax.ShapeDtypeStruct((n,), dtype), vmap_method="broadcast_all")(stream)


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
    """Native update of all groups: P and its scale, w [G, L, S], u [G, Q, L], factor [G] and g [G, L] afterwards; see `deferred.Pending`.

    Args:
      flags: [2] bool, whether rls.gain is textbook, and whether the update changes anything (rls.apply).
      forgetting: forgetting factor of each update.
      count: int32, number of pending updates in u.
      refresh: bool, whether pending updates are applied to P now.
      decay: factor by which r decays between two updates.
      r: [N+X] filtered spikes, 1/ms.
      arrived: [N+X] increase of r by spikes since the last update, exactly 0 for neurons without spikes.
      pre: [G, L] int32, presynaptic neurons of the inputs; -1 pads.
      residual_input: [N] u_bal - target, threshold units; NaN: not trained at this learning point.
      *changed: the six arrays before the update; the scale is [0, 1] where P has none.
    """
    dtype = r.dtype
    numbers = jnp.asarray(forgetting, dtype), count, refresh, jnp.asarray(decay, dtype)
    return _call("learn", dtype, changed, flags, *numbers, r, arrived, pre, residual_input)


def apply_pending(count: Array, u: Array, factor: Array, *changed: Array) -> tuple[Array, ...]:
    """P and its scale after P = factor*(P - sum of u_q u_q^T over the first `count` vectors of u [G, Q, L]); factor [G]."""
    return _call("flush", u.dtype, changed, count, u, factor)
