"""JAX set up as the configuration says (device, precision, cache of compiled programs), and restored afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax
from jax.experimental.compilation_cache import compilation_cache

from rlsnet.config.schema import EngineConfig
from rlsnet.errors import UserError
from rlsnet.io import atomic

CACHE_SETTINGS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
LEAST_COMPILE_SECONDS = 0.2  # programs that compile faster are not cached


@contextlib.contextmanager
def configured(engine: EngineConfig) -> Iterator[str]:
    """Device and precision of a configuration, for this thread and the duration of the block.

    All of JAX's settings are restored at the end of the block. A process that has imported JAX only for the block may call
    `restrict_to_cpu` before it.

    Args:
      engine: the section of the configuration.

    Yields:
      The device in words, such as "NVIDIA H100 (gpu)".

    Raises:
      UserError: there is no such device.
    """
    with jax.enable_x64(engine.precision == "float64"), _cached_programs():
        device = _find_device(engine.platform)
        with jax.default_device(device):
            yield f"{device.device_kind} ({device.platform})"


def platform_in_use() -> str:
    """The platform of JAX's default device, such as cpu or gpu."""
    chosen = jax.config.jax_default_device  # type: ignore[attr-defined]
    return chosen if isinstance(chosen, str) else (chosen or jax.devices()[0]).platform


def restrict_to_cpu() -> None:
    """Keeps JAX from starting GPUs, where it would take most of their memory. For the command line: it holds for the whole process."""
    jax.config.update("jax_platforms", "cpu")


def _find_device(platform: str) -> jax.Device:
    """The first device of a platform, `auto` being that of JAX's choice; raises UserError where there is none."""
    try:
        return jax.devices(None if platform == "auto" else platform)[0]
    except RuntimeError as error:
        found = ", ".join(sorted({d.platform for d in jax.devices()}))
        raise UserError(f"engine.platform={platform}: JAX finds no such device here, only {found}; see the README for GPUs.") from error


@contextlib.contextmanager
def _cached_programs() -> Iterator[None]:
    """Compiled programs are kept in rlsnet's cache folder during the block, unless JAX has a cache folder already."""
    if jax.config.jax_compilation_cache_dir is not None:  # type: ignore[attr-defined]
        yield
        return
    before = {name: getattr(jax.config, name) for name in CACHE_SETTINGS}
    wanted = (str(atomic.cache_dir() / "jax"), LEAST_COMPILE_SECONDS)
    _change_cache(dict(zip(CACHE_SETTINGS, wanted, strict=True)))
    try:
        yield
    finally:
        _change_cache(before)


def _change_cache(settings: dict[str, str | float | None]) -> None:
    """Changes the settings of the compilation cache; JAX reads them once, until the cache is reset."""
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
