"""Inverse transfer function of any neuron model, by simulation."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy.interpolate import UnivariateSpline

from rlsnet.config.schema import NoiseConfig
from rlsnet.errors import UserError
from rlsnet.model import neurons, rng
from rlsnet.model.fi_curve import Array
from rlsnet.simulation import inputs


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
      noise: kind of noise, on the voltage or in the current.
      dt: time step, ms.
      steps: number of steps of the simulation.
      sigma: strength of the noise.
      current_sd: s.d. of an Ornstein-Uhlenbeck current with correlation time tau_syn (ms), added to `mu`.
      tau_syn: ms.
      mu: [n] inputs, threshold units.
      seed: of the random numbers.
    """
    white, slow, start = (rng.fold(rng.key(0, rng.Purpose.TRANSFER), 3 * seed + k) for k in range(3))
    n, dtype = len(mu), mu.dtype

    def one_step(carry: Any, i: jax.Array) -> tuple[Any, None]:
        state, current, count = carry
        current = (1 - dt / tau_syn) * current + current_sd * (2 * dt / tau_syn) ** 0.5 * rng.normal(rng.fold(slow, i), n, dtype)
        drive, increment = mu + current, None
        if noise.kind == "voltage":
            increment = inputs.voltage_noise(sigma, neuron.tau_m, dt, white, i, mu, rng.normal)
        else:
            drive = drive + inputs.current_noise(sigma, neuron.tau_m, dt, white, i, mu, rng.normal)
        state, spiked = neurons.step(neuron, dt, state, i, drive, increment)
        return (state, current, count + (spiked & (i > steps // 2)).astype(count.dtype)), None

    v = neuron.reset + (neuron.threshold - neuron.reset) * rng.uniform(start, n, dtype)
    begin = neurons.init(neuron, v), jnp.zeros_like(mu), jnp.zeros(n, jnp.int32)
    return lax.scan(one_step, begin, jnp.arange(1, steps + 1, dtype=jnp.int32))[0][2]


class SimulatedInverseTransfer:
    """Rate (Hz) -> mean input of a neuron of any model, by simulation of many copies at constant inputs.

    A smoothing spline of log(rate) against the input, made monotonic, is inverted. It is fitted to thousands of spikes at high rates
    and to tens of spikes at the lowest ones; the error of a rate is a few per cent. Rates that the neuron does not reach are clipped.

    Args:
      neuron: parameters of any model, each a number.
      noise: kind of noise, on the voltage or in the current.
      dt: time step, ms.
      sigma: strength of the noise.
      current_sd: s.d. of a fluctuating current, threshold units, with correlation time tau_syn.
      tau_syn: ms.

    Raises:
      UserError: if the neuron does not fire at any input.
    """

    COPIES, SECONDS = 128, 2.0
    RANGE_HZ = (0.03, 500.0)
    MIN_SPIKES = 5  # at an input, for the spline

    def __init__(self, neuron: Any, noise: NoiseConfig, dt: float, sigma: float, current_sd: float, tau_syn: float):
        def rates(mu: Array, copies: int, seconds: float, seed: int) -> Array:
            steps = 2 * round(seconds * 1000 / dt)
            values = jnp.asarray(np.repeat(mu, copies), jnp.float32)
            settings = jnp.float32(sigma), jnp.float32(current_sd)
            counts = count_spikes(neuron, noise, dt, steps, *settings, tau_syn, values, seed)
            return np.asarray(counts, np.float64).reshape(len(mu), copies).sum(axis=1) / (copies * seconds)

        gap = neuron.threshold - neuron.reset
        mu = neuron.reset + gap * np.sinh(np.linspace(-math.asinh(8), math.asinh(100), 128))
        mu = self._inputs(neuron, mu, np.maximum.accumulate(rates(mu, 16, 0.5, 0)))
        rate = rates(mu, self.COPIES, self.SECONDS, 1)
        count = rate * self.COPIES * self.SECONDS
        used = count >= self.MIN_SPIKES
        spline = UnivariateSpline(mu[used], np.log(rate[used]), w=np.sqrt(count[used]), s=float(used.sum()))
        self.mu = np.linspace(mu[used][0], mu[used][-1], 4096)
        self.log_rate = np.maximum.accumulate(spline(self.mu)) + 1e-12 * np.arange(4096)

    def _inputs(self, neuron: Any, mu: Array, rate: Array) -> Array:
        """Inputs for the simulation, from rates at a few inputs `mu`: evenly spaced in log(rate), and some below the first spikes."""
        if rate[-1] <= 0:
            raise UserError(
                f"neuron.name={neuron.name}: does not fire even at an input of {mu[-1]:.3g}; expected another neuron or target=currents."
            )
        first, last = int(np.argmax(rate > 0)), int(np.argmax(rate >= min(self.RANGE_HZ[1], rate[-1])))
        log_rate = np.linspace(math.log(rate[first]), math.log(rate[last]), 48)
        firing = np.interp(log_rate, np.log(rate[first : last + 1]) + 1e-9 * np.arange(last + 1 - first), mu[first : last + 1])
        return np.unique(np.concatenate([np.linspace(mu[max(0, first - 3)], firing[0], 16, endpoint=False), firing]))

    def __call__(self, rate: Array) -> Array:
        """Mean input [...] for rates [...] (Hz); NaN stays NaN."""
        return np.interp(np.log(rate), self.log_rate, self.mu)
