"""Firing rate <-> mean input of a leaky integrate-and-fire neuron in white noise.

The neuron obeys ``tau_m dv/dt = mu - v + sigma*sqrt(tau_m)*xi(t)``, is reset from `threshold` to `reset`
and has no refractory period. Its stationary rate is the formula of Siegert (1951) and Ricciardi (1977):

    1/rate = tau_m * sqrt(pi) * integral_{(reset-mu)/sigma}^{(threshold-mu)/sigma} f(y) dy
    f(y)   = exp(y^2) * (1 + erf(y)) = erfcx(-y)

Noise that is not white but filtered by a fast synapse (correlation time `tau_syn`) acts, to first order in
sqrt(tau_syn/tau_m), like white noise with threshold and reset both raised: Fourcaud & Brunel, Neural
Computation 14:2057 (2002). An Euler scheme that looks at the voltage only every dt misses crossings, which acts
like a threshold raised by 0.5826*sigma*sqrt(dt/tau_m): Broadie, Glasserman & Kou, Math. Finance 7:325 (1997).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erfcx, zeta

Array = NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)
_HUGE = 26.0  # exp(y^2) overflows float64 a little above this y
EULER_SHIFT = -float(zeta(0.5)) / math.sqrt(2 * math.pi)  # 0.5826
COLOURED_SHIFT = -float(zeta(0.5)) / math.sqrt(2)  # 1.0326, alpha/2 of Fourcaud & Brunel


@dataclasses.dataclass(frozen=True)
class Neuron:
    """What the transfer function knows of a neuron.

    tau_m: membrane time constant, ms.
    threshold, reset: voltages.
    sigma: noise, in voltage units; the free membrane's standard deviation is sigma/sqrt(2).
    """

    tau_m: float
    threshold: float
    reset: float
    sigma: float

    def with_euler(self, dt: float) -> Neuron:
        """The neuron whose formula matches an Euler scheme with time step `dt` (ms)."""
        shift = EULER_SHIFT * self.sigma * math.sqrt(dt / self.tau_m)
        return dataclasses.replace(self, threshold=self.threshold + shift)

    def with_synaptic_noise(self, current_sd: float, tau_syn: float) -> Neuron:
        """The neuron with a fluctuating current (s.d. `current_sd`, correlation time `tau_syn` ms) added to its noise.

        White noise of equal power has sigma_syn = current_sd*sqrt(2*tau_syn/tau_m); the share of the noise that is
        filtered raises threshold and reset.
        """
        power = 2 * current_sd**2 * tau_syn / self.tau_m
        sigma = math.sqrt(self.sigma**2 + power)
        shift = COLOURED_SHIFT * math.sqrt(tau_syn / self.tau_m) * power / sigma if sigma > 0 else 0.0
        return Neuron(self.tau_m, self.threshold + shift, self.reset + shift, sigma)


def _integral(low: Array, high: Array) -> Array:
    """Integral of erfcx(-y) from `low` to `high`, elementwise, by composite Gauss-Legendre; inf where it overflows."""
    panels = max(1, math.ceil(float(np.max(high - low))))
    step = (high - low) / panels
    total = np.zeros_like(low)
    with np.errstate(over="ignore"):
        for panel in range(panels):
            centre = low + (panel + 0.5) * step
            y = np.minimum(centre[..., None] + 0.5 * step[..., None] * _NODES, _HUGE)
            total += 0.5 * step * (erfcx(-y) @ _WEIGHTS)
    return np.where(high > _HUGE, np.inf, total)


def firing_rate(mu: ArrayLike, neuron: Neuron) -> Array:
    """Stationary firing rate in Hz for a mean input `mu` (any shape)."""
    mu = np.asarray(mu, dtype=np.float64)
    if neuron.sigma == 0:
        above = mu > neuron.threshold
        gap = np.where(above, mu - neuron.threshold, 1.0)
        interval = neuron.tau_m * np.log((gap + neuron.threshold - neuron.reset) / gap)
        return np.where(above, 1000.0 / interval, 0.0)
    low, high = (neuron.reset - mu) / neuron.sigma, (neuron.threshold - mu) / neuron.sigma
    return 1000.0 / (neuron.tau_m * math.sqrt(math.pi) * _integral(low, high))


def _log_slope(mu: Array, neuron: Neuron) -> Array:
    """D log(rate) / d mu."""
    low, high = (neuron.reset - mu) / neuron.sigma, (neuron.threshold - mu) / neuron.sigma
    return (erfcx(-high) - erfcx(-low)) / (neuron.sigma * _integral(low, high))


@dataclasses.dataclass(frozen=True)
class InverseTransfer:
    """Rate (Hz) -> mean input, by a table of exact solutions joined by cubic Hermite pieces in log(rate).

    Built once per set of neuron parameters by Newton's method on the table's nodes only; evaluating it is a few array
    operations, so tens of millions of values take seconds. Error below 1e-8 in mu within `range_hz`.
    """

    log_low: float
    step: float
    mu: Array
    slope: Array  # d mu / d log(rate) at the nodes

    @staticmethod
    def build(neuron: Neuron, range_hz: tuple[float, float] = (1e-3, 2e3), nodes: int = 2048) -> InverseTransfer:
        """Solve rate(mu) = r for `nodes` rates spaced evenly in log(r) over `range_hz`."""
        log_rate = np.linspace(math.log(range_hz[0]), math.log(range_hz[1]), nodes)
        if neuron.sigma == 0:
            decay = np.exp(-1000.0 / (np.exp(log_rate) * neuron.tau_m))
            mu = (neuron.threshold - neuron.reset * decay) / (1 - decay)
            slope = np.gradient(mu, log_rate)
            return InverseTransfer(log_rate[0], log_rate[1] - log_rate[0], mu, slope)
        bottom, top = neuron.threshold - 20 * neuron.sigma, neuron.threshold + 20 * neuron.sigma
        while firing_rate(top, neuron) < range_hz[1]:
            top += top - bottom
        start = np.linspace(bottom, top, 512)
        mu = np.interp(log_rate, np.log(np.maximum(firing_rate(start, neuron), 1e-300)), start)
        for _ in range(50):
            error = np.log(np.maximum(firing_rate(mu, neuron), 1e-300)) - log_rate
            mu = mu - error / _log_slope(mu, neuron)
            if np.max(np.abs(error)) < 1e-12:
                break
        return InverseTransfer(log_rate[0], log_rate[1] - log_rate[0], mu, 1 / _log_slope(mu, neuron))

    def __call__(self, rate: ArrayLike) -> Array:
        """Mean input that gives `rate` (Hz, any shape; NaN where that is NaN); rates outside the table are taken as its ends."""
        position = np.clip((np.log(np.asarray(rate, dtype=np.float64)) - self.log_low) / self.step, 0, len(self.mu) - 1)
        node = np.minimum(np.nan_to_num(position).astype(np.int32), len(self.mu) - 2)
        t = position - node
        left, right = self.mu[node], self.mu[node + 1]
        d0, d1 = self.slope[node] * self.step, self.slope[node + 1] * self.step
        rise = right - left
        return left + t * (d0 + t * ((3 * rise - 2 * d0 - d1) + t * (d0 + d1 - 2 * rise)))
