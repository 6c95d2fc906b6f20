"""Settings of JAX (device, precision, cache of compiled programs) for the duration of a command, and their restoration."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import jax
from jax.experimental.compilation_cache import compilation_cache

from rlsnet.config.schema import EngineConfig
from rlsnet.errors import UserError
from rlsnet.io import atomic
from rlsnet.kernels import processes

log = logging.getLogger(__name__)

CACHE_SETTINGS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
LEAST_COMPILE_SECONDS = 0.0  # all programs are cached: reading a small one takes a tenth of its compilation


@contextlib.contextmanager
def configured(engine: EngineConfig) -> Iterator[str]:
    """Context in which JAX uses the device and the precision of a configuration, in this thread.

    At its end all settings of JAX are restored. A process that has imported JAX only for this context may call `restrict_to_cpu`
    before.

    Args:
      engine: the section engine.

    Yields:
      The device as text, such as "NVIDIA H100 (gpu)".

    Raises:
      UserError: there is no such device.
    """
    if engine.coordinator is not None:
        raise UserError("engine.coordinator: expected null; several processes start with rlsnet train, simulate or test on a command line.")
    with jax.enable_x64(engine.precision == "float64"), _cached_programs():
        device, chosen = _find_device(engine.platform, engine.devices), devices(engine)
        kind = device.platform if device.device_kind == device.platform else f"{device.device_kind} ({device.platform})"
        count = f"{len(chosen)} devices, " * (len(chosen) > 1)
        with jax.default_device(device):
            yield f"{count}{kind}" + (f" in {jax.process_count()} processes" if processes.several() else "")


def devices(engine: EngineConfig) -> list[jax.Device]:
    """The devices over which the neurons are divided, of all processes, in the same order in each.

    Raises:
      UserError: there are fewer than engine.devices, or a process would have none of them.
    """
    found, wanted = jax.devices(None if engine.platform == "auto" else engine.platform), engine.devices
    if wanted is None or (processes.several() and wanted == len(found)):
        return found
    if processes.several() and wanted != 1:
        raise UserError(f"engine.devices={wanted}: expected null or {len(found)}, all devices of the {jax.process_count()} processes.")
    if wanted > len(found):
        least = f"JAX finds {len(found)} of platform {found[0].platform} here; a run continues on any number, such as engine.devices=1"
        raise UserError(f"engine.devices={wanted}: {least}.")
    return found if processes.several() else found[:wanted]


def number(engine: EngineConfig) -> int:
    """Number of devices over which the neurons are divided, whether they are here or not."""
    return len(devices(engine)) if engine.devices is None or processes.several() else engine.devices


def sharing_memory(count: int) -> int:
    """How many of `count` devices share the memory of this machine: all of this process on a CPU; one on a GPU, which has its own."""
    return -(-count // processes.count()) if platform_in_use() == "cpu" else 1


def platform_in_use() -> str:
    """Platform of JAX's default device, such as cpu or gpu."""
    return device_in_use().platform


def device_in_use() -> jax.Device:
    """JAX's default device."""
    chosen = jax.config.jax_default_device  # type: ignore[attr-defined]
    return jax.devices(chosen)[0] if isinstance(chosen, str) else chosen or jax.devices()[0]


def restrict_to_cpu() -> None:
    """Prevents JAX from using GPUs, of which it would allocate most of the memory. It acts on the whole process: for the command line."""
    jax.config.update("jax_platforms", "cpu")


def _find_device(platform: str, wanted: int | None) -> jax.Device:
    """First device of this process on a platform (auto: JAX's choice); raises UserError if there is none.

    If JAX has not started yet, a CPU counts as so many devices as are `wanted` of this process.
    """
    if wanted is not None and wanted > 1:
        with contextlib.suppress(RuntimeError):  # JAX has started
            jax.config.update("jax_num_cpu_devices", max(1, wanted // processes.count()))
    try:
        return jax.local_devices(backend=None if platform == "auto" else platform)[0]
    except RuntimeError as error:
        found = ", ".join(sorted({d.platform for d in jax.devices()}))
        raise UserError(f"engine.platform={platform}: JAX finds no such device here, only {found}; see the README for GPUs.") from error


@contextlib.contextmanager
def _cached_programs() -> Iterator[None]:
    """Context in which JAX stores compiled programs in rlsnet's cache folder, unless that is full or JAX has a cache folder already."""
    if jax.config.jax_compilation_cache_dir is not None:  # type: ignore[attr-defined]
        yield
        return
    folder = atomic.cache_of_programs("jax")
    if (refusal := atomic.refusal(folder)) is not None:
        log.warning("Compiled programs are not kept for the next start: %s cannot be written to (%s).", folder, refusal)
        yield
        return
    before = {name: getattr(jax.config, name) for name in CACHE_SETTINGS}
    wanted = (str(folder), LEAST_COMPILE_SECONDS)
    _change_cache(dict(zip(CACHE_SETTINGS, wanted, strict=True)))
    try:
        yield
    finally:
        _change_cache(before)


def _change_cache(settings: dict[str, str | float | None]) -> None:
    """Changes the settings of the compilation cache and resets it, because JAX reads them only once."""
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
