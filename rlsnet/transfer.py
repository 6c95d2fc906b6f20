"""Firing rate <-> mean input of a leaky integrate-and-fire neuron in white noise.

The neuron obeys ``tau_m dv/dt = mu - v + sigma*sqrt(tau_m)*xi(t)``, is reset from `threshold` to `reset`
and has no refractory period. Its stationary rate is the formula of Siegert (1951) and Ricciardi (1977):

    1/rate = tau_m * sqrt(pi) * integral_{(reset-mu)/sigma}^{(threshold-mu)/sigma} f(y) dy
    f(y)   = exp(y^2) * (1 + erf(y)) = erfcx(-y)

Noise that is not white but filtered by a fast synapse (correlation time `tau_syn`) acts, to first order in
sqrt(tau_syn/tau_m), like white noise with threshold and reset both raised: Fourcaud & Brunel, Neural
Computation 14:2057 (2002). An Euler scheme that looks at the voltage only every dt misses crossings, which acts
like a threshold raised by 0.5826*sigma*sqrt(dt/tau_m): Broadie, Glasserman & Kou, Math. Finance 7:325 (1997).

Other models have no such formula; `SimulatedInverse` simulates them.
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import UnivariateSpline
from scipy.special import erfcx, zeta

from rlsnet import inputs, neurons, rng
from rlsnet.config import NoiseConfig, UserError

Array = NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)
_HUGE = 26.0  # exp(y^2) overflows float64 a little above this y
EULER_SHIFT = -float(zeta(0.5)) / math.sqrt(2 * math.pi)  # 0.5826
COLOURED_SHIFT = -float(zeta(0.5)) / math.sqrt(2)  # 1.0326, alpha/2 of Fourcaud & Brunel


Value = float | Array


@dataclasses.dataclass(frozen=True)
class Neuron:
    """What the transfer function knows of a neuron, or of N neurons.

    tau_m: membrane time constant, ms.
    threshold, reset: voltages.
    sigma: noise, in voltage units; the free membrane's standard deviation is sigma/sqrt(2).
    """

    tau_m: Value
    threshold: Value
    reset: Value
    sigma: Value

    def with_euler(self, dt: float) -> Neuron:
        """The neuron whose formula matches an Euler scheme with time step `dt` (ms)."""
        shift = EULER_SHIFT * self.sigma * np.sqrt(dt / self.tau_m)
        return dataclasses.replace(self, threshold=self.threshold + shift)

    def with_synaptic_noise(self, current_sd: Value, tau_syn: float) -> Neuron:
        """The neuron with a fluctuating current (s.d. `current_sd`, correlation time `tau_syn` ms) added to its noise.

        White noise of equal power has sigma_syn = current_sd*sqrt(2*tau_syn/tau_m); the share of the noise that is
        filtered raises threshold and reset.
        """
        power = 2 * current_sd**2 * tau_syn / self.tau_m
        sigma = np.sqrt(self.sigma**2 + power)
        shift = COLOURED_SHIFT * np.sqrt(tau_syn / self.tau_m) * power / np.maximum(sigma, 1e-300)
        return Neuron(self.tau_m, self.threshold + shift, self.reset + shift, sigma)


def _integral(low: Array, high: Array) -> Array:
    """Integral of erfcx(-y) from `low` to `high`, elementwise, by composite Gauss-Legendre; inf where it overflows."""
    panels = max(1, math.ceil(np.nan_to_num(high - low).max()))
    step = (high - low) / panels
    total = np.zeros_like(low)
    with np.errstate(over="ignore"):
        for panel in range(panels):
            centre = low + (panel + 0.5) * step
            y = np.minimum(centre[..., None] + 0.5 * step[..., None] * _NODES, _HUGE)
            total += 0.5 * step * (erfcx(-y) @ _WEIGHTS)
    return np.where(high > _HUGE, np.inf, total)


def firing_rate(mu: ArrayLike, neuron: Neuron) -> Array:
    """Stationary firing rate in Hz for a mean input `mu` (any shape, [..., N] for N neurons; no noise only for all of them)."""
    mu = np.asarray(mu, dtype=np.float64)
    if np.all(np.asarray(neuron.sigma) == 0):
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
    """Rate (Hz) -> mean input of one neuron, by a table of exact solutions joined by cubic Hermite pieces in log(rate).

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
        top = 20.0
        while firing_rate(neuron.threshold + neuron.sigma * top, neuron) < range_hz[1]:
            top *= 2
        start = neuron.threshold + neuron.sigma * np.sinh(np.linspace(-math.asinh(20), math.asinh(top), 512))
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


class InverseTransfers:
    """Rate (Hz) -> mean input of N neurons that may all differ.

    Up to FEW different neurons have a table each. Else, with rate*tau_m and (mu - threshold)/sigma for rate and input, all that
    a table depends on is g = (threshold - reset)/sigma: tables at values of g evenly spaced in log(g) are joined by cubic
    Lagrange polynomials. Error then below 1e-6 of threshold - reset.
    """

    FEW = 32
    SPACING = 0.05  # of log(g)

    def __init__(self, neurons: Neuron):
        values = np.array(np.broadcast_arrays(*(np.asarray(each, np.float64) for each in dataclasses.astuple(neurons))))
        different, label = np.unique(values, axis=1, return_inverse=True)
        self.label = label.reshape(-1)  # [N] the first of a neuron's tables
        if different.shape[1] <= self.FEW:
            self.tables = [InverseTransfer.build(Neuron(*each)) for each in different.T]
            self.weights = np.ones((1, values.shape[1]))  # [1 or 4, N] of the tables from there on
            self.scale, self.shift, self.per_tau = 1.0 + 0 * self.weights[0], 0 * self.weights[0], 1.0 + 0 * self.weights[0]
            return
        tau_m, self.shift, reset, self.scale = values
        self.per_tau = tau_m / 1000
        position = np.log((self.shift - reset) / self.scale) / self.SPACING
        first = math.floor(position.min()) - 1
        self.label = np.floor(position).astype(np.int64) - 1 - first
        x = position - np.floor(position)  # nodes at -1, 0, 1, 2
        self.weights = np.stack(
            [-x * (x - 1) * (x - 2) / 6, (x + 1) * (x - 1) * (x - 2) / 2, -(x + 1) * x * (x - 2) / 2, (x + 1) * x * (x - 1) / 6]
        )
        range_hz = (1e-3 * self.per_tau.min(), 2e3 * self.per_tau.max())
        self.tables = [
            InverseTransfer.build(Neuron(1000.0, 0.0, -math.exp((first + k) * self.SPACING), 1.0), range_hz, 1024)
            for k in range(self.label.max() + 4)
        ]

    def __call__(self, rate: Array, part: slice) -> Array:
        """[..., n] mean inputs of the neurons `part` that give `rate` [..., n] (Hz; NaN where that is NaN)."""
        mu = np.empty_like(rate)
        label = self.label[part]
        for first in np.unique(label):
            mine = np.flatnonzero(label == first)
            own, weights = np.arange(len(self.label))[part][mine], self.weights
            count = rate[..., mine] * self.per_tau[own]
            total = sum(weight[own] * table(count) for weight, table in zip(weights, self.tables[first:], strict=False))
            mu[..., mine] = self.shift[own] + self.scale[own] * total
        return mu


@partial(jax.jit, static_argnames=("neuron", "noise", "dt", "steps"))
def count_spikes(
    neuron: Any,
    noise: NoiseConfig,
    dt: float,
    steps: int,
    sigma: jax.Array,
    current_sd: jax.Array,
    tau_syn: float,
    mu: jax.Array,
    seed: int,
) -> jax.Array:
    """[n] int32, spikes of copies of a neuron at mean inputs mu [n], in the second half of `steps` steps.

    Args:
      neuron: parameters of any model, the same for all copies.
      noise: whether the noise is on the voltage or a current.
      dt: ms.
      steps: of the simulation.
      sigma: strength of the noise.
      current_sd: s.d. of an Ornstein-Uhlenbeck current with correlation time tau_syn (ms) besides.
      tau_syn: ms.
      mu: inputs.
      seed: of the random numbers.
    """
    white, slow, start = (rng.fold(rng.key(0, rng.Purpose.TRANSFER), 3 * seed + k) for k in range(3))
    n, dtype = len(mu), mu.dtype

    def one_step(carry: Any, i: jax.Array) -> tuple[Any, None]:
        state, current, count = carry
        current = (1 - dt / tau_syn) * current + current_sd * (2 * dt / tau_syn) ** 0.5 * rng.normal(rng.fold(slow, i), n, dtype)
        drive, noise_increment = mu + current, None
        if noise.kind == "voltage":
            noise_increment = inputs.voltage_noise(sigma, neuron.tau_m, dt, white, i, mu, rng.normal)
        else:
            drive = drive + inputs.current_noise(sigma, neuron.tau_m, dt, white, i, mu, rng.normal)
        state, spiked = neurons.step(neuron, dt, state, i, drive, noise_increment)
        return (state, current, count + (spiked & (i > steps // 2)).astype(count.dtype)), None

    v = neuron.reset + (neuron.threshold - neuron.reset) * rng.uniform(start, n, dtype)
    begin = neurons.init(neuron, v), jnp.zeros_like(mu), jnp.zeros(n, jnp.int32)
    return lax.scan(one_step, begin, jnp.arange(1, steps + 1, dtype=jnp.int32))[0][2]


class SimulatedInverse:
    """Rate (Hz) -> mean input of a neuron of any model, by simulation of many copies at constant inputs.

    A smoothing spline through log(rate) against the input, made to rise, is read backwards. It rests on thousands of spikes at high
    and on tens at the lowest rates; the error of a rate is a few per cent. Rates beyond what the neuron reaches are taken as the ends.
    """

    COPIES, SECONDS = 128, 2.0
    RANGE_HZ = (0.03, 500.0)

    def __init__(self, neuron: Any, noise: NoiseConfig, dt: float, sigma: float, current_sd: float, tau_syn: float):
        def rates(mu: Array, copies: int, seconds: float, seed: int) -> Array:
            steps = 2 * round(seconds * 1000 / dt)
            values = jnp.asarray(np.repeat(mu, copies), jnp.float32)
            settings = jnp.float32(sigma), jnp.float32(current_sd)
            counts = count_spikes(neuron, noise, dt, steps, *settings, tau_syn, values, seed)
            return np.asarray(counts, np.float64).reshape(len(mu), copies).sum(axis=1) / (copies * seconds)

        gap = neuron.threshold - neuron.reset
        rough = neuron.reset + gap * np.sinh(np.linspace(-math.asinh(8), math.asinh(100), 128))
        rate = np.maximum.accumulate(rates(rough, 16, 0.5, 0))
        if rate[-1] <= 0:
            raise UserError(
                f"neuron.name={neuron.name}: does not fire even at an input of {rough[-1]:.3g}, so that rates tell no currents."
            )
        first, last = int(np.argmax(rate > 0)), int(np.argmax(rate >= min(self.RANGE_HZ[1], rate[-1])))
        wanted = np.linspace(math.log(rate[first]), math.log(rate[last]), 48)
        mu = np.interp(wanted, np.log(rate[first : last + 1]) + 1e-9 * np.arange(last + 1 - first), rough[first : last + 1])
        mu = np.unique(np.concatenate([np.linspace(rough[max(0, first - 3)], mu[0], 16, endpoint=False), mu]))
        rate = rates(mu, self.COPIES, self.SECONDS, 1)
        count = rate * self.COPIES * self.SECONDS
        seen = count >= 5
        spline = UnivariateSpline(mu[seen], np.log(rate[seen]), w=np.sqrt(count[seen]), s=float(seen.sum()))
        self.mu = np.linspace(mu[seen][0], mu[seen][-1], 4096)
        self.log_rate = np.maximum.accumulate(spline(self.mu)) + 1e-12 * np.arange(4096)

    def __call__(self, rate: Array) -> Array:
        """Mean input that gives `rate` (Hz, any shape; NaN where that is NaN)."""
        return np.interp(np.log(rate), self.log_rate, self.mu)
