"""V1-V3: the transfer function against published values, its inverse, and against simulation."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import compose, difference
from scipy.optimize import brentq

from rlsnet.config.schema import LIFConfig, NoiseConfig
from rlsnet.model import build
from rlsnet.model.fi_curve import EulerScheme, InverseTransfer, NoisyLIF, PopulationInverseTransfer, euler_rate, firing_rate
from rlsnet.simulation.simulated_fi_curve import SimulatedInverseTransfer, count_spikes
from rlsnet.simulation.state import CALIBRATION, Dynamics, TrialKeys
from rlsnet.simulation.trial import calibrate

PUBLISHED = NoisyLIF(tau_m=10, threshold=1, reset=0, sigma=0.65)


def test_inverse_gives_the_published_currents(record_check):
    rate = [0.1, 0.480769, 1.3125, 10.0622, 27.5787]
    current = [-0.749397, -0.525916, -0.358576, 0.100442, 0.466731]
    seen = InverseTransfer.build(PUBLISHED)(rate)
    words = f"{', '.join(f'{u:.6f}' for u in seen)}: largest error {difference(seen, current):.1e}"
    record_check("V1 inverse transfer function", "current (threshold) of 5 rates at sigma 0.65", f"{current} to 5e-6", words)
    np.testing.assert_allclose(seen, current, atol=5e-6)


@pytest.mark.parametrize(
    ("sigma", "mu", "rate"),
    [
        (0.65, [-0.5, 0, 0.25, 0.5, 1, 2], [0.567086, 7.00363, 16.0292, 29.6267, 66.8043, 157.882]),
        (0.3, [0, 0.5, 1], [0.00266867, 4.59712, 45.3125]),
    ],
)
def test_forward_gives_the_published_rates(record_check, sigma, mu, rate):
    seen = firing_rate(mu, dataclasses.replace(PUBLISHED, sigma=sigma))
    words = f"{', '.join(f'{r:.6g}' for r in seen)}: largest relative error {np.abs(seen / rate - 1).max():.1e}"
    record_check("V2 transfer function", f"rate (Hz) at sigma {sigma}, mu {mu}", f"{rate} to 1e-5 relative", words)
    np.testing.assert_allclose(seen, rate, rtol=1e-5)


def test_without_noise_the_rate_is_the_closed_form(record_check):
    quiet = dataclasses.replace(PUBLISHED, sigma=0.0)
    seen, rate = firing_rate([0.9, 1.5, 3.0], quiet), [0, 100 / np.log(3), 100 / np.log(1.5)]
    words = f"{', '.join(f'{r:.6g}' for r in seen)}: largest error {difference(seen, rate):.1e} Hz"
    record_check("transfer function without noise", "rate (Hz) at mu 0.9, 1.5, 3", "closed form 0, 91.0239, 246.63 to 1e-7 relative", words)
    np.testing.assert_allclose(seen, rate)
    np.testing.assert_allclose(InverseTransfer.build(quiet)(firing_rate([1.5, 3.0], quiet)), [1.5, 3.0], rtol=1e-5)


@pytest.mark.parametrize("neuron", [PUBLISHED, NoisyLIF(20, 1.3, -0.4, 0.1), PUBLISHED.with_synaptic_noise(0.47, 3.0)])
def test_the_inverse_inverts(record_check, neuron):
    rate = np.exp(np.random.default_rng(0).uniform(np.log(0.1), np.log(500), 1000))
    back = firing_rate(InverseTransfer.build(neuron)(rate), neuron)
    what = f"1000 rates of 0.1-500 Hz to currents and back; tau_m {neuron.tau_m:g} ms, sigma {neuron.sigma:.3g}"
    record_check("transfer function, there and back", what, "relative error < 1e-8", f"largest {np.abs(back / rate - 1).max():.1e}")
    np.testing.assert_allclose(back, rate, rtol=1e-8)


@pytest.mark.parametrize(("n", "tables"), [pytest.param(1000, None, marks=pytest.mark.slow), (31, 31)])
def test_neurons_that_differ_have_their_own_inverse(n, tables):
    """Against a root finder for each neuron, and back to rates; many neurons share tables, few have their own."""
    random = np.random.default_rng(4)
    neurons = NoisyLIF(
        random.uniform(3, 60, n), random.uniform(0.8, 1.5, n), random.uniform(-0.6, 0.3, n), np.exp(random.uniform(-4, 0.5, n))
    )
    inverse = PopulationInverseTransfer(neurons)
    assert tables is None or len(inverse.tables) == tables
    rate = np.exp(random.uniform(np.log(0.1), np.log(300), (2, 10, n)))
    rate[0, 3, 5] = np.nan
    half = slice(n // 2, n)
    np.testing.assert_array_equal(inverse(rate[:, :, half], half), inverse(rate, slice(0, n))[:, :, half])
    mu = inverse(rate, slice(0, n))
    assert np.isnan(mu[0, 3, 5]) and np.isnan(mu).sum() == 1
    for i in random.choice(n, 30, replace=False):
        own = NoisyLIF(*(values[i] for values in dataclasses.astuple(neurons)))
        exact = [
            brentq(lambda m, r=r, own=own: np.log(firing_rate(m, own) / r), own.threshold - 15 * own.sigma, 40, xtol=1e-12)
            for r in rate[1, :, i]
        ]
        np.testing.assert_allclose(mu[1, :, i], exact, rtol=0, atol=1e-5)
    low, high = (firing_rate(mu + shift, neurons) for shift in (-1e-5, 1e-5))
    assert (np.isnan(rate) | ((low < rate) & (rate < high))).all()


def test_a_simulated_inverse_is_near_the_formula():
    """For a model that has a formula; NaN stays NaN, and rates out of reach are clipped."""
    config = compose()
    inverse = SimulatedInverseTransfer(config.neuron, config.noise, 0.1, 0.65, 0.0, 3.0)
    rate = np.array([0.1, 0.3, 1, 3, 10, 30, 100])
    np.testing.assert_allclose(inverse(rate), InverseTransfer.build(PUBLISHED.with_euler(0.1))(rate), atol=0.02)
    ends = inverse(np.array([np.nan, 1e-9, 1e9]))
    assert np.isnan(ends[0]) and ends[1] < inverse(rate)[0] and inverse(rate)[-1] < ends[2] < 100


@pytest.mark.parametrize(("mu", "rate"), [(0.0, 5.88), (0.25, 14.02), (0.5, 26.68), (1.0, 61.99)])
def test_noisy_neurons_fire_as_published(record_check, mu, rate):
    """The Euler scheme at dt = 0.1 ms, by simulation; and the corrected formula comes closer to it than the plain one."""
    config = compose("network.n_neurons=8000", "static.out_degree=0", "plastic.n_inputs=2", "noise.sigma=0.65", "stimulus=none",
                     "trial.stim_off=200", "trial.stim_on=200", "trial.duration=1800")  # fmt: skip
    net, _, _ = build.build(config)
    net = dataclasses.replace(net, bias=jnp.full(8000, mu, jnp.float32))
    keys = TrialKeys.create(3, CALIBRATION).trial(jnp.int32(0), jnp.int32(0))
    seen = np.asarray(calibrate(Dynamics.from_config(config), net, keys).n_spikes).mean() / 2.0
    plain, corrected = firing_rate(mu, PUBLISHED), firing_rate(mu, PUBLISHED.with_euler(0.1))
    exact = float(euler_rate([mu], PUBLISHED, EulerScheme(0.1, 1))[0])
    what = f"8000 neurons with noise alone, mu {mu}, sigma 0.65, dt 0.1 ms, 2 s"
    record_check("V3 noisy neurons", what, f"{rate} Hz +- 1.5 %", f"{seen:.3f} Hz ({100 * (seen / rate - 1):+.2f} %)")
    closer = f"{corrected:.2f} Hz with it ({100 * (corrected / rate - 1):+.1f} %), {plain:.2f} without ({100 * (plain / rate - 1):+.1f} %)"
    record_check("V3 formula with the Euler correction", f"rate of the formula, mu {mu}", "error < 0.3 of that without", closer)
    record_check("V3 rate of the Euler scheme", f"first-passage times, mu {mu}", f"{rate} Hz +- 1 %", f"{exact:.3f} Hz")
    assert seen == pytest.approx(rate, rel=0.015)
    assert abs(corrected - rate) < 0.3 * abs(plain - rate)
    assert exact == pytest.approx(rate, rel=0.01)


@pytest.mark.parametrize(
    ("neuron", "noise", "steps"),
    [
        (LIFConfig(), NoiseConfig(sigma=0.65), 1),
        (LIFConfig(tau_m=20.0, reset=-0.5, refractory=2.0), NoiseConfig(kind="current", sigma=0.4), 20),
    ],
)
def test_rates_at_constant_current_are_those_of_the_inverse_transfer(record_check, neuron, noise, steps):
    """Neurons simulated at the currents for 2, 10 and 60 Hz."""
    plain = NoisyLIF(np.full(2, neuron.tau_m), np.full(2, neuron.threshold), np.full(2, neuron.reset), np.full(2, noise.sigma))
    scheme = EulerScheme(0.1, steps, noise.kind == "voltage")
    inverse, rate = PopulationInverseTransfer(plain, scheme), np.array([2.0, 10.0, 60.0])
    mu = inverse(np.stack([rate, rate], axis=1), slice(0, 2))[:, 0]
    copies = jnp.asarray(np.repeat(mu, [20000, 4000, 1000]), jnp.float32)
    counts = np.asarray(count_spikes(neuron, noise, 0.1, 10000, jnp.float32(noise.sigma), jnp.float32(0), 3.0, copies, 1)) / 0.5
    seen = np.array([part.mean() for part in np.split(counts, [20000, 24000])])
    for expected, each in zip(rate, seen, strict=True):
        record_check(
            "rate at constant current", f"{noise.kind} noise, refractory {neuron.refractory} ms", f"{expected} Hz +- 2 %", f"{each:.3f} Hz"
        )
    np.testing.assert_allclose(seen, rate, rtol=0.02)  # 20,000 spikes: s.d. 0.7 %


def test_rates_of_many_different_neurons_are_near_those_of_the_simulation():
    """More different neurons than have tables of their own: the formula, corrected to first order."""
    random, scheme, n = np.random.default_rng(0), EulerScheme(0.1, 1), 40
    neurons = NoisyLIF(random.uniform(8, 30, n), np.ones(n), random.uniform(-0.5, 0.3, n), random.uniform(0.3, 0.8, n))
    rate = np.tile([[0.5], [5.0], [50.0]], n)
    mu = PopulationInverseTransfer(neurons, scheme)(rate, slice(0, n))
    each = [NoisyLIF(*values) for values in zip(*dataclasses.astuple(neurons), strict=True)]
    seen = np.stack([euler_rate(inputs, one, scheme) for inputs, one in zip(mu.T, each, strict=True)], axis=1)
    assert np.abs(seen / rate - 1).max() < 0.03
