"""Trains recurrent spiking networks to reproduce recorded neural activity, by recursive least squares.

    import rlsnet

    config = rlsnet.compose("config=tiny", "train.iterations=20")
    run = rlsnet.train(config, "first")
    results = rlsnet.test(run)
    rlsnet.plot(run)

See `rlsnet.api`.
"""

from importlib import import_module
from typing import Any

__all__ = ["Config", "Run", "UserError", "compose", "import_recordings", "load", "open_run", "plot", "simulate", "test", "train"]


PLUGIN_MODULES = {
    "inputs": "rlsnet.simulation.inputs",
    "neurons": "rlsnet.model.neurons",
    "targets": "rlsnet.learning.targets",
    "wiring": "rlsnet.model.connectivity",
}  # modules with the functions that plugins register; these names do not change between versions


def __getattr__(name: str) -> Any:
    """The commands and the modules for plugins, imported at their first use because they need JAX."""
    if name in __all__:
        return getattr(import_module("rlsnet.api"), name)
    if name in PLUGIN_MODULES:
        return import_module(PLUGIN_MODULES[name])
    raise AttributeError(f"module 'rlsnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
