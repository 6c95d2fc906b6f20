"""The implementation of the hot loops, chosen once: how spikes are delivered, noise is drawn, and P and weights are updated.

Each of the three exists in several forms, which compute the same to rounding:

    delivery  native: C++ on a CPU; xla: a loop over the spikes of a step; fixed_shape: arrays for a fixed number of spikes, for GPUs
    noise     native: C++, float32 on a CPU; xla
    update    reference: P is written at each learning point; deferred: rank-1 downdates of P are collected and applied together;
              native: the deferred form in C++

`from_config` makes the choice. Its result goes into the compiled programs as a static argument, and nothing else chooses.
"""

from __future__ import annotations

import dataclasses
import logging

from rlsnet.config.schema import Config, EngineConfig, RLSConfig
from rlsnet.errors import UserError
from rlsnet.kernels import build
from rlsnet.kernels.device import platform_in_use

log = logging.getLogger(__name__)

ALIASES = {"wide": "fixed_shape"}  # names of engine.kernels in older configurations
MIN_DEFERRED_FORGETTING = 0.97  # with less, the reference form: it tolerates more of the growth of P that forgetting causes


@dataclasses.dataclass(frozen=True)
class Backend:
    """The forms that one program is compiled with.

    delivery: native, xla or fixed_shape.
    noise: native or xla.
    update: reference, deferred or native.
    capacity_factor: multiple of `delivery.spike_capacity` that a step with delivery=fixed_shape has room for.
    """

    delivery: str
    noise: str
    update: str
    capacity_factor: int = 1

    def enlarged(self) -> Backend:
        """The same with room for twice as many spikes in a step."""
        return dataclasses.replace(self, capacity_factor=2 * self.capacity_factor)


FORMS = (
    Backend("xla", "xla", "reference"),
    Backend("xla", "xla", "deferred"),
    Backend("fixed_shape", "xla", "reference"),
    Backend("fixed_shape", "xla", "deferred"),
    Backend("native", "native", "reference"),
    Backend("native", "native", "deferred"),
    Backend("native", "native", "native"),
)  # all that `from_config` can return; tests run each of them

COVARIANCES = {"reference": ("full", "encoded", "window"), "deferred": ("full", "encoded"), "native": ("full", "encoded")}  # by update


def from_config(config: Config) -> Backend:
    """The forms that engine.kernels and rls.method ask for; auto takes the fastest on this device.

    Raises:
      UserError: engine.kernels=native where the C++ kernels cannot be built or used.
    """
    name = _kernels(config.engine)
    return Backend(name, "native" if name == "native" else "xla", _update(config.rls, name, config.engine.precision))


def covariance_kind(rls: RLSConfig, precision: str) -> str:
    """How P is kept: full (in the numbers that it is computed with), encoded (fewer bits, or packed) or window (not at all).

    Args:
      rls: settings.
      precision: float32 or float64, the engine's numbers.
    """
    if rls.storage == "window":
        return "window"
    return "full" if rls.storage == "full" and rls.precision in ("auto", precision) else "encoded"


def _kernels(engine: EngineConfig) -> str:
    """native, xla or fixed_shape."""
    wanted = ALIASES.get(engine.kernels, engine.kernels)
    platform = platform_in_use()
    if wanted in ("xla", "fixed_shape"):
        return wanted
    if wanted == "auto" and platform != "cpu":
        return "fixed_shape"
    error = build.build_error() if platform == "cpu" else f"they run on a CPU, and this is a {platform}"
    if error is None:
        return "native"
    if wanted == "native":
        raise UserError(f"engine.kernels=native: {error}. Use engine.kernels=auto.")
    log.info("Training is slower, with kernels compiled by XLA: %s.", error)
    return "xla"


def _update(rls: RLSConfig, kernels_: str, precision: str) -> str:
    """reference, deferred or native; with rls.method=auto the fastest, or where P has few bits the one that rounds it least often."""
    kind, method = covariance_kind(rls, precision), rls.method
    if method == "auto":
        reference = (kind == "full" and kernels_ == "xla") or rls.forgetting < MIN_DEFERRED_FORGETTING
        method = "dense" if reference else "deferred"
    if method == "dense" or kind not in COVARIANCES["deferred"]:
        return "reference"
    native = kernels_ == "native" and (kind == "full" or precision == "float32")  # few bits are converted from float32 only
    return "native" if native else "deferred"
