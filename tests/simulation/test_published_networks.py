"""Networks without plastic synapses against published rates and closed forms."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import compose, keys_of

from rlsnet.io import population_files
from rlsnet.io.memory import free_memory
from rlsnet.model import build
from rlsnet.simulation.state import Dynamics, initial_state
from rlsnet.simulation.trial import advance


def rates(config, before: float, duration: float) -> tuple[np.ndarray, np.ndarray]:
    """([N] Hz mean rates from `before` ms on, [ms] Hz rate of the whole network in each ms)."""
    (net, _, _), dynamics, keys = build.build(config), Dynamics.from_config(config), keys_of()

    @partial(jax.jit, static_argnums=2)
    def run(net, state, steps):
        def one(state, _):
            after, _ = advance(dynamics, net, None, state, keys, config.trial.steps(1))
            return after, jnp.sum(after.n_spikes - state.n_spikes)

        return jax.lax.scan(one, state, None, length=steps)

    start, _ = run(net, initial_state(dynamics, net, keys), round(before))
    end, counts = run(net, start, round(duration))
    return np.asarray(end.n_spikes - start.n_spikes) / duration * 1000, np.asarray(counts) * 1000 / net.n_neurons


PUBLISHED = (0.90, 2.80, 4.39, 5.70, 6.80, 8.22, 1.14, 7.60)  # Hz, Romaro et al. 2021, table A.1
NEST = (0.903, 2.965, 4.414, 5.876, 7.569, 8.633, 1.105, 7.829)  # Hz, NEST's example Potjans_2014, full_mean_rates


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_microcircuit(record_check, scale):
    """Rates of the eight populations; a tenth of the network keeps them with the errors that are recorded, at most by half."""
    if scale == 1 and free_memory() < 8e9:
        pytest.skip("not run here: needs 8 GB of memory")
    config = compose("config=microcircuit", f"static.scale={scale}")
    found = population_files.read("microcircuit")
    values, _ = rates(config, 500, 3000)
    parts = np.split(values, np.cumsum(found.scaled(scale, scale)[0])[:-1])
    off = []
    for name, own, published, nest in zip(found.names, parts, PUBLISHED, NEST, strict=True):
        seen = own.mean()
        off.append(seen / published - 1)
        expected = f"{published:.2f} Hz (NEST {nest:.2f})" + (", 15 %" if scale == 1 else "")
        what = f"rate of {name}, {scale * 100:g} % of the neurons and of their inputs, 3 s after 0.5 s"
        record_check("microcircuit", what, expected, f"{seen:.2f} Hz ({100 * off[-1]:+.0f} %; to NEST {100 * (seen / nest - 1):+.0f} %)")
    assert np.max(np.abs(off)) < (0.15 if scale == 1 else 0.5)


# inhibition g, external rate in units of the threshold rate: rate and global frequency (Hz) of Brunel 2000, table 1 (simulations)
REGIMES = {"fast oscillations": (6.0, 4.0, 60.7, 180), "asynchronous irregular": (5.0, 2.0, 37.7, None),
           "slow oscillations": (4.5, 0.9, 5.5, 22)}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("regime", REGIMES)
def test_brunel(record_check, regime):
    """12,500 neurons; the frequency is that of the largest peak of the spectrum of the activity in ms."""
    g, external, rate, frequency = REGIMES[regime]
    values, activity = rates(compose("config=brunel", f"static.inhibition={g}", f"background.rate={10 * external}"), 200, 2000)
    seen, power = values.mean(), np.abs(np.fft.rfft(activity - activity.mean())) ** 2
    smooth = np.convolve(power, np.ones(9) / 9, "same")
    peak = np.argmax(smooth[8:]) + 8
    what, off = f"{regime}, g {g:g}, external rate {external:g}", seen / rate - 1
    record_check("Brunel 2000", f"rate, {what}", f"{rate} Hz, 10 %", f"{seen:.1f} Hz ({100 * off:+.0f} %)")
    assert abs(off) < 0.1
    if frequency is not None:
        found = peak / 2.0
        record_check("Brunel 2000", f"frequency of the network, {what}", f"{frequency} Hz, 25 %", f"{found:.0f} Hz")
        assert found == pytest.approx(frequency, rel=0.25)


@pytest.mark.slow
def test_brunel_synchronous_regular(record_check):
    """g = 3, external rate 2: neurons fire regularly and almost at the highest rate that the refractory period allows."""
    values, activity = rates(compose("config=brunel", "static.inhibition=3", "background.rate=20"), 200, 300)
    seen, cv = values.mean(), values.std() / values.mean()
    record_check(
        "Brunel 2000", "rate, synchronous regular, g 3, external rate 2", "far above 100 Hz, equal neurons", f"{seen:.0f} Hz, CV {cv:.3f}"
    )
    assert 200 < seen < 500 and cv < 0.02 and activity.std() > 0.5 * activity.mean()


@pytest.mark.slow
def test_many_inputs_balance(record_check):
    """Rates approach the solution of the linear balance equations, as in van Vreeswijk & Sompolinsky, Neural Comput. 10:1321 (1998).

    With weights J_ab/sqrt(K_e) and biases X_a*sqrt(K_e) the input stays finite for large K_e only if  sum_b J_ab r_b + X_a = 0.
    What is missing falls as 1/sqrt(K_e).
    """
    settings = compose().static
    J = settings.strength * np.array([[settings.ee, settings.ei], [settings.ie, settings.ii]])
    limit = -1000 * np.linalg.solve(J, [settings.bias_exc, settings.bias_inh])
    np.testing.assert_allclose(limit, [5, 9], rtol=1e-9)
    missing, degrees = [], (100, 400, 1600)
    for inputs in degrees:
        config = compose("network.n_neurons=16384", f"static.out_degree={2 * inputs}", "plastic.n_inputs=0", "stimulus=none")
        values, _ = rates(config, 300, 700)
        seen = np.array([values[:8192].mean(), values[8192:].mean()])
        missing.append(1 - seen / limit)
        what = f"mean rates, K_e = {inputs} inputs of a class, 16,384 neurons"
        record_check("balance", what, "5 Hz excitatory, 9 Hz inhibitory for K_e to infinity", f"{seen[0]:.2f} Hz, {seen[1]:.2f} Hz")
    scaled = np.array(missing) * np.sqrt(degrees)[:, None]
    beyond = 2 * (1 - missing[-1]) - (1 - missing[-2])  # without the part that is halved with four times the inputs
    record_check("balance", "limit from K_e = 400 and 1600", "5 Hz, 9 Hz; 4 %", ", ".join(f"{value:.2f} Hz" for value in beyond * limit))
    assert np.all(np.diff(missing, axis=0) < 0) and np.all(np.abs(scaled / scaled[-1] - 1) < 0.35)
    np.testing.assert_allclose(beyond, 1, atol=0.04)
