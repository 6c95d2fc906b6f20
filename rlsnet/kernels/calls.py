"""Native and CUDA kernels as JAX functions: calls of compiled code within XLA programs.

By itself, XLA on a CPU distributes each small loop over threads, copies P to read it row by row, and does not keep a tile of P in
registers while several updates are applied to it; on a GPU it starts a dozen small kernels in each time step. The hot loops therefore
exist three times: in JAX (`step`, `delivery`, `rng`, `rls`, `deferred`), which is the specification and runs on every device, in C++ for
a CPU (`cpu/`), and in CUDA (`cuda/kernels.cu`). `form` is native or cuda.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rlsnet.errors import UserError
from rlsnet.kernels import build
from rlsnet.kernels.cuda import build as cuda_build
from rlsnet.kernels.device import platform_in_use
from rlsnet.model import rng
from rlsnet.model.network import Network

PREFIX = {"native": "rlsnet_", "cuda": "rlsnet_cuda_"}
MOST_INPUTS_BYTES = 4096  # of one number for each input of a group: a block of the CUDA kernels keeps MAX_PENDING of them in shared memory


def unavailable(form: str, precision: str) -> str | None:
    """Finds or builds the kernels of a form, at the first call; returns None, or the reason why they cannot be used.

    Args:
      form: native or cuda.
      precision: float32 or float64.
    """
    platform = platform_in_use()
    if form == "cuda":
        return cuda_build.build_error(platform)
    return build.native(precision).error if platform == "cpu" else f"native kernels run on a CPU only, and this is a {platform}"


def require(form: str, precision: str) -> None:
    """Registers the kernels of a form for a precision, float32 or float64, at the first call.

    Raises:
      UserError: they cannot be used.
    """
    if (error := unavailable(form, precision)) is not None:
        raise UserError(f"engine.kernels={form}: {error}. Use engine.kernels=auto.")


def _call(
    form: str,
    name: str,
    dtype: jnp.dtype,
    changed: tuple[Array, ...],
    *arguments: Array,
    made: tuple[jax.ShapeDtypeStruct, ...] = (),
    by_row: bool = False,
    attributes: Mapping[str, int | float] | None = None,
) -> tuple[Array, ...]:
    """Results of a kernel for numbers of type `dtype`: its last arguments, `changed` in place, and then the arrays `made`.

    by_row: whether jax.vmap adds a leading axis to all arrays; other kernels take B trials as they are (`delivery.side_by_side`).
    """
    precision = jnp.dtype(dtype).name
    require(form, precision)
    shapes = *(jax.ShapeDtypeStruct(array.shape, array.dtype) for array in changed), *made
    aliases = {len(arguments) + index: index for index in range(len(changed))}
    typed = {key: np.float64(value) if isinstance(value, float) else np.int64(value) for key, value in (attributes or {}).items()}
    target, method = f"{PREFIX[form]}{name}_{build.KINDS[precision]}", "broadcast_all" if by_row else None
    return tuple(jax.ffi.ffi_call(target, shapes, input_output_aliases=aliases, vmap_method=method)(*arguments, *changed, **typed))


def _connectivity(network: Network, w: Array | None, dtype: jnp.dtype) -> tuple[Array, ...]:
    """What kernels that deliver spikes need of the network; arrays that it does not have are empty."""
    none = jnp.zeros(0, dtype)
    drawn = jnp.zeros(0, jnp.uint32) if network.stream is None else network.stream
    static = network.indptr, drawn, network.post, none if network.weight is None else network.weight
    channel = jnp.zeros(0, jnp.int32) if network.tau_channel is None else network.tau_channel
    plastic = network.out_indptr, network.out_slot, channel, none.reshape(0, 0, 1) if w is None else w
    return network.classes, *static, *plastic


def _room_for_spikes(spiked: Array) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Arrays in which CUDA kernels list and count the spikes of two steps."""
    return jax.ShapeDtypeStruct((2 * spiked.size,), jnp.int32), jax.ShapeDtypeStruct((64,), jnp.int32)


def deliver(form: str, network: Network, w: Array | None, spiked: Array, gain: Array, *changed: Array) -> tuple[Array, ...]:
    """Form of `delivery.deliver`; `changed` are the filters [2+T, N], r and n_delivered [N+X]; for B trials [B, ...], as spiked."""
    made = _room_for_spikes(spiked) if form == "cuda" else ()
    return _call(form, "deliver", gain.dtype, changed, spiked, gain, *_connectivity(network, w, gain.dtype), made=made)[:3]


def steps(
    form: str,
    network: Network,
    w: Array | None,
    arguments: tuple[Array, ...],
    changed: tuple[Array, ...],
    record: bool,
    **attributes: int | float,
) -> tuple[Array, ...]:
    """Time steps of LIF neurons by the kernels of a form, native or cuda; see `persistent`.

    Args:
      form: native or cuda.
      network: neurons and connectivity.
      w: [G, X+L, S] trained weights, or None: static synapses only.
      arguments: in the order of TimeSteps in ffi_arrays.h.
      changed: filters, r, n_delivered, v, until, u_sum, expected, stimulus [2, N], feed-forward rates [2, X], ring, n_fired, background and
        spiked; of one trial or of B, but stimulus and rates.
      record: whether to return the spikes.
      **attributes: numbers with the names there.

    Returns:
      The changed arrays, and the packed spikes [(B,) n, W] uint32, which are [(B,) 0, W] without `record`.
    """
    filters, spiked = changed[0], changed[-1]
    words = (attributes["steps"] if record else 0), -(-network.n_neurons // 32)
    made: tuple[jax.ShapeDtypeStruct, ...] = (jax.ShapeDtypeStruct((*filters.shape[:-2], *words), jnp.uint32),)
    if form == "cuda":
        made += _room_for_spikes(spiked)
    arguments = *arguments, *_connectivity(network, w, filters.dtype)
    return _call(form, "steps", filters.dtype, changed, *arguments, made=made, attributes=attributes)[: len(changed) + 1]


def pack(flags: Array, dtype: jnp.dtype) -> Array:
    """Native form of `delivery.pack` of each row: [c, n] bool -> [c, W] uint32; `dtype` is the precision whose kernels are in use."""
    words = jax.ShapeDtypeStruct((*flags.shape[:-1], -(-flags.shape[-1] // 32)), jnp.uint32)
    return _call("native", "pack", dtype, (), flags, made=(words,), by_row=True)[0]


def unpack(words: Array, each: int, n: int, dtype: jnp.dtype) -> Array:
    """Native form of `delivery.unpack`: [c, D, W] uint32 -> [c, n] bool of D devices with `each` neurons."""
    flags = jax.ShapeDtypeStruct((*words.shape[:-2], n), jnp.bool_)
    return _call("native", "unpack", dtype, (), words, made=(flags,), by_row=True, attributes={"each": each})[0]


def normal(stream: Array, n: int, dtype: jnp.dtype, first: Array | None = None) -> Array:
    """Native form of `rng.normal` in float32, from the same bits and closer to the true quantiles; in float64 `rng.normal` itself."""
    if dtype != jnp.float32:
        return rng.normal(stream, n, dtype, first)
    if stream.ndim > 1:
        return jax.vmap(lambda own: normal(own, n // len(stream), dtype))(stream).reshape(n)
    counter = jnp.zeros(1, jnp.uint32) if first is None else first.astype(jnp.uint32).reshape(1)
    return _call("native", "normal", dtype, (), stream, counter, made=(jax.ShapeDtypeStruct((n,), dtype),), by_row=True)[0]


def learn(
    form: str,
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
    """Update of all groups: P and its scale, w [G, L, S], u [G, Q, L], factor [G] and g [G, L] afterwards; see `deferred.Pending`.

    Rows [L] of full P, u and g have the length `covariance_forms.row_length`.

    Args:
      form: native or cuda.
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

    Raises:
      UserError: more inputs than the CUDA kernels can take.
    """
    dtype, most = r.dtype, MOST_INPUTS_BYTES // r.dtype.itemsize
    if form == "cuda" and pre.shape[1] > most:
        raise UserError(
            f"plastic.n_inputs: expected at most {most} inputs of a neuron for the CUDA kernels in {dtype}, but there are {pre.shape[1]}. "
            "Use rls.method=dense, or engine.kernels=fixed_shape."
        )
    numbers = jnp.asarray(forgetting, dtype), count, refresh, jnp.asarray(decay, dtype)
    return _call(form, "learn", dtype, changed, flags, *numbers, r, arrived, pre, residual_input)


def apply_pending(form: str, count: Array, u: Array, factor: Array, *changed: Array) -> tuple[Array, ...]:
    """P and its scale after P = factor*(P - sum of u_q u_q^T over the first `count` vectors of u [G, Q, L]); factor [G]."""
    return _call(form, "flush", u.dtype, changed, count, u, factor)
