"""Transfer function (f-I curve) of leaky integrate-and-fire neurons in white noise, and its inverse: firing rate -> mean input.

The neuron obeys ``tau_m dv/dt = mu - v + sigma*sqrt(tau_m)*xi(t)``, is reset from `threshold` to `reset`
and has no refractory period. Its stationary rate is the formula of Siegert (Phys. Rev. 81:617, 1951) and Ricciardi (Diffusion
Processes and Related Topics in Biology, 1977):

    1/rate = tau_m * sqrt(pi) * integral_{(reset-mu)/sigma}^{(threshold-mu)/sigma} f(y) dy
    f(y)   = exp(y^2) * (1 + erf(y)) = erfcx(-y)

Noise that is not white but filtered by a fast synapse (correlation time `tau_syn`) acts, to first order in
sqrt(tau_syn/tau_m), like white noise with threshold and reset both raised: Fourcaud & Brunel, Neural
Computation 14:2057 (2002). An Euler scheme compares the voltage with the threshold only every dt and misses crossings, which acts
like a threshold raised by 0.5826*sigma*sqrt(dt/tau_m): Broadie, Glasserman & Kou, Math. Finance 7:325 (1997).

NNMT (nnmt.lif) computes the forward function; a target needs the inverse, for tens of millions of rates and neurons that differ.
Models without a formula are simulated: `SimulatedInverseTransfer`.

`euler_rate` is exact for the Euler scheme itself, with its time step and refractory steps: the voltages in successive steps
are a Markov chain, whose mean first-passage time obeys a linear integral equation.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline
from scipy.linalg import solve_banded
from scipy.special import erfcx, zeta

Array = NDArray[np.float64]


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)


_LARGEST_Y = 26.0  # exp(y^2) overflows float64 a little above this y


EULER_SHIFT = -float(zeta(0.5)) / math.sqrt(2 * math.pi)  # 0.5826


COLOURED_SHIFT = -float(zeta(0.5)) / math.sqrt(2)  # 1.0326, alpha/2 of Fourcaud & Brunel


Value = float | Array


@dataclasses.dataclass(frozen=True)
class NoisyLIF:
    """A leaky integrate-and-fire neuron in white noise, or N of them; each value is a number or [N].

    tau_m: membrane time constant, ms.
    threshold, reset: voltages, in any unit; inputs have the same.
    sigma: noise, in units of voltage; the free membrane's standard deviation is sigma/sqrt(2).
    """

    tau_m: Value
    threshold: Value
    reset: Value
    sigma: Value

    def with_euler(self, dt: float) -> NoisyLIF:
        """The neuron whose formula matches an Euler scheme with time step `dt` (ms)."""
        shift = EULER_SHIFT * self.sigma * np.sqrt(dt / self.tau_m)
        return dataclasses.replace(self, threshold=self.threshold + shift)

    def with_synaptic_noise(self, current_sd: Value, tau_syn: float) -> NoisyLIF:
        """The neuron with a fluctuating current added to its noise (s.d. `current_sd`, correlation time `tau_syn` ms).

        White noise of equal power has sigma_syn = current_sd*sqrt(2*tau_syn/tau_m); the share of the noise that is
        filtered raises threshold and reset.
        """
        power = 2 * current_sd**2 * tau_syn / self.tau_m
        sigma = np.sqrt(self.sigma**2 + power)
        shift = COLOURED_SHIFT * np.sqrt(tau_syn / self.tau_m) * power / np.maximum(sigma, 1e-300)
        return NoisyLIF(self.tau_m, self.threshold + shift, self.reset + shift, sigma)


@dataclasses.dataclass(frozen=True)
class EulerScheme:
    """How a neuron is simulated.

    dt: time step, ms.
    refractory: number of refractory steps after a spike, of one neuron or [N].
    voltage_noise: whether noise is added to the voltage, also in refractory steps; else to the current.
    """

    dt: float
    refractory: Any
    voltage_noise: bool = True


def _integral(low: Array, high: Array) -> Array:
    """Integral of erfcx(-y) from `low` to `high`, elementwise, by composite Gauss-Legendre; inf where it overflows."""
    panels = max(1, math.ceil(np.nan_to_num(high - low).max()))
    step = (high - low) / panels
    total = np.zeros_like(low)
    with np.errstate(over="ignore"):
        for panel in range(panels):
            centre = low + (panel + 0.5) * step
            y = np.minimum(centre[..., None] + 0.5 * step[..., None] * _NODES, _LARGEST_Y)
            total += 0.5 * step * (erfcx(-y) @ _WEIGHTS)
    return np.where(high > _LARGEST_Y, np.inf, total)


def firing_rate(mu: ArrayLike, neuron: NoisyLIF) -> Array:
    """Stationary firing rate, Hz.

    Args:
      mu: mean input, units of voltage, of any shape; [..., N] for N neurons.
      neuron: parameters. Neurons without noise (sigma = 0) are all without.

    Returns:
      [...] as `mu`.
    """
    mu = np.asarray(mu, dtype=np.float64)
    if np.all(np.asarray(neuron.sigma) == 0):
        above = mu > neuron.threshold
        gap = np.where(above, mu - neuron.threshold, 1.0)
        interval = neuron.tau_m * np.log((gap + neuron.threshold - neuron.reset) / gap)
        return np.where(above, 1000.0 / interval, 0.0)
    low, high = (neuron.reset - mu) / neuron.sigma, (neuron.threshold - mu) / neuron.sigma
    return 1000.0 / (neuron.tau_m * math.sqrt(math.pi) * _integral(low, high))


def euler_rate(mu: ArrayLike, neuron: NoisyLIF, scheme: EulerScheme) -> Array:
    """Stationary firing rate in the Euler scheme of `neurons.step_lif`, Hz; exact but for quadrature (1e-6).

    The voltages of successive steps obey v' = (1 - c)(v + k xi) + c mu with c = dt/tau_m, k = sigma*sqrt(c) and normal xi. The mean
    number of steps T(v) until v' > threshold solves  T(v) = 1 + integral_{-inf}^{threshold} p(v'|v) T(v') dv'.  After a spike the
    voltage is `reset`, plus the noise of the refractory steps. (Noise in the current: v' = (1 - c) v + k xi + c mu, and no noise in
    the refractory steps.)

    Args:
      mu: [n] mean inputs, units of voltage.
      neuron: one neuron with noise; its values are numbers.
      scheme: time step, refractory steps and kind of noise.

    Returns:
      [n] rates.
    """
    mu, c = np.asarray(mu, np.float64), scheme.dt / float(neuron.tau_m)
    threshold, reset, k = float(neuron.threshold), float(neuron.reset), float(neuron.sigma) * math.sqrt(c)
    width = (1 - c) * k if scheme.voltage_noise else k
    start_width = width * math.sqrt(scheme.refractory + 1) if scheme.voltage_noise else width
    x, weight = np.polynomial.legendre.leggauss(8)
    rate = np.empty(len(mu))
    for index, each in enumerate(mu):
        low = min((1 - c) * reset + c * each - 9 * start_width, min(each, threshold) - 9 * float(neuron.sigma) / math.sqrt(2))
        panels = math.ceil((threshold - low) / (3 * width))
        half = (threshold - low) / panels / 2
        v = (low + half * (2 * np.arange(panels)[:, None] + 1 + x)).reshape(-1)
        share = np.tile(half * weight, panels) / (width * math.sqrt(2 * math.pi))
        mean = (1 - c) * v + c * each
        drift = np.max(np.abs(mean - v))
        band = min(len(v) - 1, math.ceil((9 * width + drift) / (2 * half) * 8) + 8)
        offset = np.arange(-band, band + 1)  # row minus column of an entry of the band
        row = offset[:, None] + np.arange(len(v))[None, :]
        inside = (row >= 0) & (row < len(v))
        away = (v[None, :] - mean[np.clip(row, 0, len(v) - 1)]) / width
        matrix = np.where(inside, (offset == 0)[:, None] - share[None, :] * np.exp(-0.5 * away**2), 0)
        passage = solve_banded((band, band), matrix, np.ones(len(v)), overwrite_ab=True, check_finite=False)
        first = (v - (1 - c) * reset - c * each) / start_width
        rate[index] = 1 / (scheme.refractory + 1 + (share * (width / start_width) * np.exp(-0.5 * first**2)) @ passage)
    return rate * (1000 / scheme.dt)


def _log_slope(mu: Array, neuron: NoisyLIF) -> Array:
    """Derivative of log(rate) with respect to `mu`, elementwise."""
    low, high = (neuron.reset - mu) / neuron.sigma, (neuron.threshold - mu) / neuron.sigma
    return (erfcx(-high) - erfcx(-low)) / (neuron.sigma * _integral(low, high))


@dataclasses.dataclass(frozen=True)
class InverseTransfer:
    """Rate (Hz) -> mean input of one neuron, by a table of exact solutions joined by cubic Hermite pieces in log(rate).

    Built once per set of neuron parameters by Newton's method on the table's nodes only; evaluating it is a few array
    operations, so tens of millions of values take seconds. Error below 1e-8 in mu within `range_hz`.

    log_low: log of the lowest rate.
    step: between nodes, of log(rate).
    mu: [nodes] mean inputs, units of voltage.
    slope: [nodes] d mu / d log(rate).
    """

    log_low: float
    step: float
    mu: Array
    slope: Array

    @staticmethod
    def build(neuron: NoisyLIF, range_hz: tuple[float, float] = (1e-3, 2e3), nodes: int = 2048) -> InverseTransfer:
        """The table of a neuron: solves rate(mu) = r for `nodes` rates r spaced evenly in log(r) over `range_hz`."""
        log_rate = np.linspace(math.log(range_hz[0]), math.log(range_hz[1]), nodes)
        if neuron.sigma == 0:
            decay = np.exp(-1000.0 / (np.exp(log_rate) * neuron.tau_m))
            mu = (neuron.threshold - neuron.reset * decay) / (1 - decay)
            return InverseTransfer(log_rate[0], log_rate[1] - log_rate[0], mu, np.gradient(mu, log_rate))
        mu = _rough_inverse(log_rate, neuron)
        for _ in range(50):
            error = np.log(np.maximum(firing_rate(mu, neuron), 1e-300)) - log_rate
            mu = mu - error / _log_slope(mu, neuron)
            if np.max(np.abs(error)) < 1e-12:
                break
        return InverseTransfer(log_rate[0], log_rate[1] - log_rate[0], mu, 1 / _log_slope(mu, neuron))

    @staticmethod
    def build_euler(neuron: NoisyLIF, scheme: EulerScheme) -> InverseTransfer:
        """The table of a neuron in the Euler scheme (see `euler_rate`); relative error of a rate below 1e-6."""
        mu = InverseTransfer.build(neuron, (2e-4, 4e3), 256).mu
        log_rate = np.log(euler_rate(mu, neuron, scheme))
        inverse = CubicSpline(log_rate, mu)
        even = np.linspace(max(log_rate[0], math.log(1e-3)), min(log_rate[-1], math.log(2e3)), 2048)
        return InverseTransfer(even[0], even[1] - even[0], inverse(even), inverse(even, 1))

    def __call__(self, rate: ArrayLike) -> Array:
        """Mean input [...] for rates [...] (Hz); NaN stays NaN, and rates outside the table are clipped to it."""
        position = np.clip((np.log(np.asarray(rate, dtype=np.float64)) - self.log_low) / self.step, 0, len(self.mu) - 1)
        node = np.minimum(np.nan_to_num(position).astype(np.int32), len(self.mu) - 2)
        t = position - node
        left, right = self.mu[node], self.mu[node + 1]
        d0, d1 = self.slope[node] * self.step, self.slope[node + 1] * self.step
        rise = right - left
        return left + t * (d0 + t * ((3 * rise - 2 * d0 - d1) + t * (d0 + d1 - 2 * rise)))

    def rate(self, mu: Array) -> Array:
        """Rates [...] at mean inputs mu [...], Hz; clipped to the table."""
        return np.exp(np.interp(mu, self.mu, self.log_low + self.step * np.arange(len(self.mu))))


def _rough_inverse(log_rate: Array, neuron: NoisyLIF) -> Array:
    """Mean inputs near those that give the rates exp(`log_rate`) [n] (Hz, ascending), a start for Newton's method."""
    top = 20.0
    while firing_rate(neuron.threshold + neuron.sigma * top, neuron) < np.exp(log_rate[-1]):
        top *= 2
    mu = neuron.threshold + neuron.sigma * np.sinh(np.linspace(-math.asinh(20), math.asinh(top), 512))
    return np.interp(log_rate, np.log(np.maximum(firing_rate(mu, neuron), 1e-300)), mu)


class PopulationInverseTransfer:
    """Rate (Hz) -> mean input of N neurons that may all differ.

    Up to MAX_SEPARATE different neurons have a table each. Else, with rate*tau_m and (mu - threshold)/sigma for rate and input, a
    table depends on g = (threshold - reset)/sigma alone: tables at values of g evenly spaced in log(g) are joined by cubic
    Lagrange polynomials. Error then below 1e-6 of threshold - reset.

    With a `scheme`, rates are those of neurons simulated in it: exact for up to MAX_SEPARATE different neurons in white noise of at
    least MIN_EULER_NOISE; else those of the formula with corrections of first order (`NoisyLIF.with_euler`, and 1/rate longer by the
    refractory period), which in white noise are up to 3 % off at low rates.

    Args:
      neurons: parameters of N neurons in white noise.
      scheme: how they are simulated; its refractory steps may be [N]. None: continuous time without refractory period.
      synaptic: s.d. and correlation time (ms) of a current that adds to their noise (see `NoisyLIF.with_synaptic_noise`); or None.

    Attributes:
      tables: inverse transfer functions.
      refractory: [N] s, refractory period by which 1/rate is corrected.
      first: [N] int, the first of each neuron's tables.
      weights: [1 or 4, N] of the tables from there on.
      per_tau, scale, shift: [N] a table's rate is rate*per_tau, the neuron's input is shift + scale * that of the tables.
    """

    MAX_SEPARATE = 32
    SPACING = 0.05  # of log(g)
    MIN_EULER_NOISE = 0.05  # of threshold - reset; with less noise, rates in the scheme depend on the input in steps

    def __init__(self, neurons: NoisyLIF, scheme: EulerScheme | None = None, synaptic: tuple[Value, float] | None = None):
        steps = 0 if scheme is None else scheme.refractory
        *values, steps = np.broadcast_arrays(
            *(np.atleast_1d(np.asarray(each, np.float64)) for each in (*dataclasses.astuple(neurons), steps))
        )
        n = len(steps)
        ones, self.refractory = np.ones(n), np.zeros(n)
        self.weights, self.scale, self.shift, self.per_tau = ones[None], ones, 0 * ones, ones
        _, threshold, reset, sigma = values
        different, label = np.unique([*values, steps], axis=1, return_inverse=True)
        exact = synaptic is None and different.shape[1] <= self.MAX_SEPARATE
        if scheme is not None and exact and np.min(sigma / (threshold - reset)) >= self.MIN_EULER_NOISE:
            self.first = label.reshape(-1)
            each = (dataclasses.replace(scheme, refractory=round(column[-1])) for column in different.T)
            self.tables = [InverseTransfer.build_euler(NoisyLIF(*column[:-1]), own) for column, own in zip(different.T, each, strict=True)]
            return
        neuron = NoisyLIF(*values)
        if scheme is not None:
            c, share = scheme.dt / neuron.tau_m, -0.75 if scheme.voltage_noise else 0.25
            neuron = dataclasses.replace(neuron, sigma=neuron.sigma * (1 + share * c))  # the s.d. that the scheme has without threshold
            neuron, self.refractory = neuron.with_euler(scheme.dt), steps * scheme.dt / 1000
        if synaptic is not None:
            neuron = neuron.with_synaptic_noise(*synaptic)
        values = list(np.broadcast_arrays(*dataclasses.astuple(neuron)))
        different, label = np.unique(values, axis=1, return_inverse=True)
        if different.shape[1] > self.MAX_SEPARATE:
            self._interpolate_tables(*values)
            return
        self.first = label.reshape(-1)
        self.tables = [InverseTransfer.build(NoisyLIF(*column)) for column in different.T]

    def _interpolate_tables(self, tau_m: Array, threshold: Array, reset: Array, sigma: Array) -> None:
        """Tables at evenly spaced log(g) and their weights, from parameters [N]."""
        self.per_tau, self.shift, self.scale = tau_m / 1000, threshold, sigma
        position = np.log((threshold - reset) / sigma) / self.SPACING
        lowest = math.floor(position.min()) - 1
        self.first = np.floor(position).astype(np.int64) - 1 - lowest
        x = position - np.floor(position)  # nodes at -1, 0, 1, 2
        self.weights = np.stack(
            [-x * (x - 1) * (x - 2) / 6, (x + 1) * (x - 1) * (x - 2) / 2, -(x + 1) * x * (x - 2) / 2, (x + 1) * x * (x - 1) / 6]
        )
        range_hz = (1e-3 * self.per_tau.min(), 2e3 * self.per_tau.max())
        self.tables = [
            InverseTransfer.build(NoisyLIF(1000.0, 0.0, -math.exp((lowest + k) * self.SPACING), 1.0), range_hz, 1024)
            for k in range(self.first.max() + 4)
        ]

    def __call__(self, rate: Array, part: slice) -> Array:
        """[..., n] mean inputs of the neurons `part` for rates [..., n] (Hz); NaN stays NaN."""
        mu = np.empty_like(rate)
        rate = rate / np.maximum(1 - rate * self.refractory[part], 1e-3)
        first = self.first[part]
        for start in np.unique(first):
            mine = np.flatnonzero(first == start)
            neurons = np.arange(len(self.first))[part][mine]
            scaled = rate[..., mine] * self.per_tau[neurons]
            tables = zip(self.weights, self.tables[start:], strict=False)
            mu[..., mine] = self.shift[neurons] + self.scale[neurons] * sum(weight[neurons] * each(scaled) for weight, each in tables)
        return mu
