"""Compiled kernels for the CPU: kernels.cc, built once by the machine's own C++ compiler and called by XLA.

XLA's CPU backend distributes each small loop over its threads, reads P row by row only with copies in between, and keeps no tile of
P in registers while several updates are applied to it. The hot loops therefore exist twice: in JAX (`spikes`, `rng`, `rls`,
`deferred`), which is the specification and runs everywhere, and here for speed.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import Array

from rlsnet import rng, zarrio
from rlsnet.config import UserError
from rlsnet.network import Network

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("kernels.cc")
FLAGS = "-std=c++17 -O3 -ffp-contract=fast -fno-math-errno -fno-trapping-math -fno-signed-zeros -shared -fPIC -w".split()
TUNING = ("-march=native -mprefer-vector-width=512", "-march=native", "-mcpu=native", "")  # the first that the compiler knows
NAMES = ("deliver_f32", "deliver_f64", "learn_f32", "learn_f64", "flush_f32", "flush_f64", "normal_f32")


@functools.cache
def build_error() -> str | None:
    """Builds and registers the native kernels, once in a process; returns None, or why they cannot be built."""
    jax.devices("cpu")  # without a device, JAX would accept any handler
    try:
        library = _load()
        for name in NAMES:
            jax.ffi.register_ffi_target(f"rlsnet_{name}", jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    except (OSError, RuntimeError) as error:
        return str(error)
    return None


def _load() -> ctypes.CDLL:
    """The library of native kernels, built if the cache does not hold it; a damaged one is built again.

    A new library that cannot be loaded either, as in a folder mounted noexec, stays in the cache with a mark beside it: later
    starts try to load it, and do not build it again.

    Raises:
      RuntimeError: it cannot be built or loaded.
    """
    path = _build()
    mark = path.with_suffix(".unloadable")
    with contextlib.suppress(OSError):
        return ctypes.CDLL(str(path))
    if not mark.exists():
        path.unlink()
        path = _build()
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        mark.touch()
        raise RuntimeError(f"{path} cannot be loaded ({error}); if that folder is mounted noexec, set RLSNET_CACHE to another") from error
    mark.unlink(missing_ok=True)
    return library


def _build() -> Path:
    """The shared library for this processor and jaxlib, from the cache or compiled now; raises RuntimeError."""
    about = "".join([SOURCE.read_text(), *FLAGS, *TUNING, metadata.version("jaxlib"), _processor()])
    library = zarrio.cache_dir() / "kernels" / f"{hashlib.sha256(about.encode()).hexdigest()[:16]}.so"
    if library.exists():
        return library
    reason = "no C++ compiler is found (c++, g++, clang++ or the one that CXX names)"
    for compiler in filter(None, map(shlex.split, (os.environ.get("CXX", ""), "c++", "g++", "clang++"))):
        if shutil.which(compiler[0]) is None:
            continue
        log.info("Compiling the CPU kernels with %s, once.", compiler[0])
        for tuning in TUNING:
            try:
                with zarrio.replacing(library) as made:
                    _compile([*compiler, *FLAGS, *tuning.split(), f"-I{jax.ffi.include_dir()}", str(SOURCE), "-o", str(made)])
                return library
            except RuntimeError as error:
                reason = str(error)
    raise RuntimeError(reason)


def _compile(command: list[str]) -> None:
    """Runs a compiler; raises RuntimeError with its first complaint."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env={**os.environ, "LC_ALL": "C"})
    if done.returncode:
        complaint = next((line for line in done.stderr.splitlines() if "error" in line), f"exit status {done.returncode}")
        raise RuntimeError(f"{command[0]} cannot compile {SOURCE.name}: {complaint}")


def _processor() -> str:
    """What the compiler makes of `native`: a home directory may be shared by different machines."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    about = sorted({line for line in lines if line.startswith(("model", "flags", "Features", "CPU ", "cpu\t"))})
    return "".join([platform.system(), platform.machine(), platform.processor(), *about])


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
    """`spikes.deliver`; `changed` are the filters [2+T, N], r and n_delivered [N+X]."""
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
