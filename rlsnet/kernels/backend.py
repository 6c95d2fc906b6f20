"""Backend of the hot loops, chosen once for a run: delivery of spikes, noise, and update of P and weights.

Each of the three has several forms, whose results agree to rounding:

    delivery  native: C++ on a CPU; cuda: CUDA on a GPU, with whole time steps where `simulation.persistent` covers the experiment;
              xla: a loop over the spikes of a step; fixed_shape: arrays for a fixed number of spikes, for GPUs
    noise     native: C++, float32 on a CPU; xla
    update    dense: P is written at each learning point; deferred: rank-1 downdates of P are collected and
              applied together; native, cuda: the deferred update in C++ or CUDA

`from_config` chooses the backend, which is a static argument of the compiled programs. No other code makes such a choice.
"""

from __future__ import annotations

import dataclasses
import functools
import logging

from rlsnet.config.schema import Config, EngineConfig, RLSConfig
from rlsnet.kernels import calls
from rlsnet.kernels.device import platform_in_use

log = logging.getLogger(__name__)

MIN_DEFERRED_FORGETTING = 0.97  # below it the dense update is used, which tolerates more growth of P by forgetting


@dataclasses.dataclass(frozen=True)
class Backend:
    """Forms of delivery, noise and update with which one program is compiled.

    delivery: native, cuda, xla or fixed_shape.
    noise: native or xla.
    update: dense, deferred, native or cuda.
    capacity_factor: spike capacity of delivery=fixed_shape, as a multiple of `delivery.spike_capacity`.
    """

    delivery: str
    noise: str
    update: str
    capacity_factor: int = 1

    def enlarged(self) -> Backend:
        """The same backend with twice the spike capacity."""
        return dataclasses.replace(self, capacity_factor=2 * self.capacity_factor)


FORMS = (
    Backend("xla", "xla", "dense"),
    Backend("xla", "xla", "deferred"),
    Backend("fixed_shape", "xla", "dense"),
    Backend("fixed_shape", "xla", "deferred"),
    Backend("native", "native", "dense"),
    Backend("native", "native", "deferred"),
    Backend("native", "native", "native"),
    Backend("cuda", "xla", "dense"),
    Backend("cuda", "xla", "deferred"),
    Backend("cuda", "xla", "cuda"),
)  # all that `from_config` can return; tests run each of them

COVARIANCES = {  # by update
    "dense": ("full", "encoded", "window"),
    "deferred": ("full", "encoded"),
    "native": ("full", "encoded"),
    "cuda": ("full",),
}


def from_config(config: Config) -> Backend:
    """The backend for engine.kernels and rls.method; auto chooses the fastest one on this device.

    Raises:
      UserError: engine.kernels=native or cuda, but these kernels cannot be built or used.
    """
    name = _kernels(config.engine)
    return Backend(name, "native" if name == "native" else "xla", _update(config.rls, name, config.engine.precision))


def covariance_kind(rls: RLSConfig, precision: str) -> str:
    """Stored form of P: full (in engine precision), encoded (in fewer bits, or packed) or window (P is not stored).

    Args:
      rls: settings.
      precision: engine precision, float32 or float64.
    """
    if rls.storage == "window":
        return "window"
    return "full" if rls.storage == "full" and rls.precision in ("auto", precision) else "encoded"


def _kernels(engine: EngineConfig) -> str:
    """Form of the delivery: native, cuda, xla or fixed_shape."""
    wanted = engine.kernels
    if wanted in ("xla", "fixed_shape"):
        return wanted
    if wanted != "auto":
        calls.require(wanted, engine.precision)
        return wanted
    form, fastest, error = automatic(engine.precision)
    if error is not None:
        _say_once(f"Training is slower, with XLA instead of {fastest} kernels: {error}.")
    return form


def automatic(precision: str) -> tuple[str, str, str | None]:
    """(form of the delivery for engine.kernels=auto, the fastest form on this device, None or the reason why it cannot be had).

    precision: float32 or float64.
    """
    fastest, xla = ("native", "xla") if platform_in_use() == "cpu" else ("cuda", "fixed_shape")
    error = calls.unavailable(fastest, precision)
    return fastest if error is None else xla, fastest, error


@functools.cache
def _say_once(message: str) -> None:
    """Logs a message at its first call in a process."""
    log.info(message)


def _update(rls: RLSConfig, kernels_: str, precision: str) -> str:
    """Form of the update; rls.method=auto is the fastest or, for P in few bits, the one that rounds P least often."""
    kind, method = covariance_kind(rls, precision), rls.method
    if method == "auto":
        dense = (kind == "full" and kernels_ == "xla") or rls.forgetting < MIN_DEFERRED_FORGETTING
        method = "dense" if dense else "deferred"
    if method == "dense" or kind not in COVARIANCES["deferred"]:
        return "dense"
    few_bits = kind == "encoded" and precision != "float32"  # they are converted from float32 only
    return kernels_ if kind in COVARIANCES.get(kernels_, ()) and not few_bits else "deferred"
