"""JAX set up as the configuration says: device, precision, cache of compiled programs."""

from __future__ import annotations

import jax

from rlsnet import zarrio
from rlsnet.config import EngineConfig, UserError


def setup(engine: EngineConfig) -> str:
    """Chooses device and precision and returns the device in words; raises UserError where there is no such device."""
    jax.config.update("jax_enable_x64", engine.precision == "float64")
    jax.config.update("jax_compilation_cache_dir", str(zarrio.cache_dir() / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    if engine.platform == "cpu":
        jax.config.update("jax_platforms", "cpu")
    try:
        device = jax.devices(None if engine.platform == "auto" else engine.platform)[0]
    except RuntimeError as error:
        found = ", ".join(sorted({d.platform for d in jax.devices()}))
        raise UserError(
            f"engine.platform={engine.platform}: JAX finds no such device here, only {found}; see the README for GPUs."
        ) from error
    jax.config.update("jax_default_device", device)
    return f"{device.device_kind} ({device.platform})"
