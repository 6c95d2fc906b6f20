"""Neuron models: GLIF against a plain NumPy transcription and closed forms; values by class and by neuron; a user-defined model."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import compose, small_network, write_network

from rlsnet.config.load import from_dict, to_dict
from rlsnet.errors import UserError
from rlsnet.model import build, network_store, neurons
from rlsnet.simulation.state import Dynamics, TrialKeys, initial_state
from rlsnet.simulation.trial import advance
from rlsnet.workflows.test_store import unpack

DT = 0.1
MODELS = ["glif1", "glif2", "glif3", "glif4", "glif5"]


def glif(p, current, v0, refractory):
    """The models of Teeter et al. 2018, one neuron after the other in float64: spikes [steps, N], and the state at the end."""
    steps, n = current.shape
    spikes = np.zeros((steps, n), bool)
    v, wait = v0.copy(), np.zeros(n, int)
    I1, I2, ts, tv = (np.zeros(n) for _ in range(4))
    for t in range(steps):
        for i in range(n):
            if wait[i] > 0:
                wait[i] -= 1
                continue
            new_v = v[i] + DT / p["tau_m"] * (current[t, i] + I1[i] + I2[i] - (v[i] - p["rest"]))
            new_tv = tv[i] + DT * (p.get("adaptation_rate", 0) * (v[i] - p["rest"]) - tv[i] / p.get("adaptation_tau", 1e9))
            new_ts = ts[i] - DT * ts[i] / p.get("threshold_tau", 1e9)
            new_I1 = I1[i] - DT * I1[i] / p.get("asc_tau_1", 1e9)
            new_I2 = I2[i] - DT * I2[i] / p.get("asc_tau_2", 1e9)
            if new_v > p["threshold"] + new_ts + new_tv:
                spikes[t, i] = True
                wait[i] = round(refractory / DT)
                if "reset_fraction" in p:
                    new_v = p["rest"] + p["reset_fraction"] * (new_v - p["rest"]) - p["reset_drop"]
                    new_ts = new_ts * math.exp(-refractory / p["threshold_tau"]) + p["threshold_jump"]
                else:
                    new_v = p["reset"]
                if "asc_tau_1" in p:
                    new_I1 = p["asc_keep_1"] * new_I1 * math.exp(-refractory / p["asc_tau_1"]) + p["asc_jump_1"]
                    new_I2 = p["asc_keep_2"] * new_I2 * math.exp(-refractory / p["asc_tau_2"]) + p["asc_jump_2"]
            v[i], I1[i], I2[i], ts[i], tv[i] = new_v, new_I1, new_I2, new_ts, new_tv
    return spikes, v, I1, I2, ts, tv


def run(settings, current, v0):
    """Spikes [steps, N] and final state of rlsnet's models with currents [steps, N]."""

    @jax.jit
    def all_steps(current, v0):
        def one(state, xs):
            i, now = xs
            return neurons.step(settings, DT, state, i, now, None)

        return jax.lax.scan(one, neurons.init(settings, v0), (jnp.arange(1, len(current) + 1, dtype=jnp.int32), current))

    state, spikes = all_steps(jnp.asarray(current), jnp.asarray(v0))
    return np.asarray(spikes), state


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("refractory", [0.0, 0.1, 2.0])
def test_glif_equals_the_numpy_transcription(x64, model, refractory, record_check):
    """Random currents, 20 neurons, 3000 steps: the same spikes, and the state to 1e-12."""
    settings = compose(f"neuron={model}", f"neuron.refractory={refractory}", "neuron.rest=-0.1").neuron
    random = np.random.default_rng(0)
    current = np.repeat(random.normal(1.6, 1.5, (300, 20)), 10, axis=0)
    v0 = random.uniform(-0.5, 0.9, 20)
    p = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    expected, v, I1, I2, ts, tv = glif(p, current, v0, refractory)
    spikes, state = run(settings, current, v0)
    assert expected.sum() > 150
    np.testing.assert_array_equal(spikes, expected)
    ours = [state.v, *(state.currents or (None, None)), state.spike_threshold, state.voltage_threshold]
    assert [each is not None for each in ours] == [
        True,
        *[model in ("glif3", "glif4", "glif5")] * 2,
        model not in ("glif1", "glif3"),
        model == "glif5",
    ]
    errors = [np.abs(np.asarray(one) - other).max() for one, other in zip(ours, (v, I1, I2, ts, tv), strict=True) if one is not None]
    assert max(errors) < 1e-12
    what = f"NumPy float64 transcription, 20 neurons, 300 ms, refractory {refractory:g} ms"
    record_check(
        model.upper(), what, "the same spikes, state to 1e-12", f"{expected.sum()} spikes, none different; state {max(errors):.0e}"
    )


def test_glif1_interval_is_that_of_its_closed_form(x64, record_check):
    """mu = 1.5 above a rest of 0.2, from 0.1 to 1: the first n with 1.7 - 1.6*0.99^n > 1, then the refractory steps."""
    settings = compose("neuron=glif1", "neuron.rest=0.2", "neuron.reset=0.1", "neuron.refractory=0.5").neuron
    spikes, _ = run(settings, np.full((2000, 1), 1.5), np.array([0.1]))
    n = math.ceil(math.log((1.7 - 1) / (1.7 - 0.1)) / math.log(0.99))
    found = np.flatnonzero(spikes[:, 0])
    np.testing.assert_array_equal(np.diff(found), n + 5)
    assert found[0] == n - 1
    record_check("GLIF1", "closed form: steps between spikes at constant current", str(n + 5), str(set(np.diff(found).tolist())))


def test_raised_threshold_decays_and_adds_up(x64, record_check):
    """After k spikes Theta_s = jump * sum of (1 - dt/tau)^(steps since each); exactly so without refractoriness."""
    settings = compose("neuron=glif2", "neuron.refractory=0").neuron
    spikes, state = run(settings, np.full((1000, 1), 4.0), np.zeros(1))
    since = 999 - np.flatnonzero(spikes[:, 0])
    expected = 0.2 * np.sum((1 - DT / 50) ** since)
    assert len(since) > 5
    np.testing.assert_allclose(state.spike_threshold[0], expected, rtol=1e-12)
    record_check("GLIF2", "closed form: Theta_s as a sum over spikes", f"{expected:.9f}", f"{state.spike_threshold[0]:.9f}")


def test_after_spike_currents_decay_and_add_up(x64, record_check):
    settings = compose("neuron=glif3", "neuron.refractory=0", "neuron.asc_keep_2=0.5").neuron
    spikes, state = run(settings, np.full((1000, 1), 2.5), np.zeros(1))
    at = np.flatnonzero(spikes[:, 0])
    assert len(at) > 5
    np.testing.assert_allclose(state.currents[0][0], -0.3 * np.sum((1 - DT / 10) ** (999 - at)), rtol=1e-12)
    halved = 0.5 ** np.arange(len(at))[::-1]
    expected = -0.05 * np.sum(halved * (1 - DT / 100) ** (999 - at))
    np.testing.assert_allclose(state.currents[1][0], expected, rtol=1e-12)
    record_check(
        "GLIF3", "closed form: I_2 as a sum over spikes, each halved by the next", f"{expected:.9f}", f"{state.currents[1][0]:.9f}"
    )


def test_threshold_follows_a_constant_voltage(x64, record_check):
    """Below threshold at v - E_L = 0.4: Theta_v -> a_v*0.4/b_v."""
    spikes, state = run(compose("neuron=glif5").neuron, np.full((20000, 1), 0.4), np.full(1, 0.4))
    assert not spikes.any()
    np.testing.assert_allclose(state.voltage_threshold[0], 0.005 * 0.4 * 50, rtol=1e-9)
    record_check("GLIF5", "closed form: Theta_v at constant voltage", "0.100000000", f"{state.voltage_threshold[0]:.9f}")


def interval(tau, threshold, reset, refractory):
    """Steps between spikes at a current of 2."""
    return math.ceil(math.log((2 - threshold) / (2 - reset)) / math.log(1 - DT / tau)) + refractory


def intervals(config, net, neuron):
    """The intervals between spikes of one neuron in 3000 steps, but for the first."""
    keys = TrialKeys.create(1, 0).trial(jnp.int32(0), jnp.int32(0))
    dynamics = Dynamics.from_config(config)
    state = initial_state(dynamics, net, keys)
    _, words = jax.jit(lambda net, s: advance(dynamics, net, None, s, keys, 3000, record=True))(net, state)
    step, who = unpack(np.asarray(words))
    return set(np.diff(step[who == neuron])[1:].tolist())


def test_values_by_class_and_by_neuron(x64, tmp_path):
    """Excitatory and inhibitory neurons, or each, have their own tau_m, threshold, reset and refractory period."""
    common = [
        "static.out_degree=0",
        "plastic.n_inputs=2",
        "stimulus=none",
        "network.bias=2.0",
        "neuron.refractory=[0.1,1.0]",
        "engine.precision=float64",
    ]
    config = compose("network.n_neurons=40", *common, "neuron.tau_m=[10,20]", "neuron.threshold=[1.0,1.3]", "neuron.reset=[0.0,-0.5]")
    net, _, _ = build.build(config)
    assert set(net.parameters) == {"tau_m", "threshold", "reset", "refractory"}
    assert from_dict(to_dict(config)) == config
    assert intervals(config, net, 3) == {interval(10, 1, 0, 1)}
    assert intervals(config, net, 39) == {interval(20, 1.3, -0.5, 10)}

    taus = np.linspace(5, 40, 40)
    write_network(tmp_path / "n.zarr", {"neuron/excitatory": np.arange(40) < 20, "neuron/tau_m": taus})
    config = compose(f"network.load={tmp_path}/n.zarr", *common)
    net, weight, _ = build.build(config)
    for n in (0, 19, 39):
        assert intervals(config, net, n) == {interval(taus[n], 1, 0, 1 if n < 20 else 10)}
    network_store.save(tmp_path / "again.zarr", net, weight, np.zeros((1, 100, 40)))
    again, _, _ = build.build(compose(f"network.load={tmp_path}/again.zarr", *common))
    for name, values in net.parameters.items():
        np.testing.assert_array_equal(again.parameters[name], values)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("tau_m", -1.0, "neuron/tau_m: expected at least twice trial.dt=0.1 ms for every neuron"),
        ("refractory", 0.07, "neuron/refractory: expected multiples of trial.dt=0.1 ms"),
        ("threshold", -2.0, "neuron/reset: expected values below neuron/threshold for every neuron"),
        ("noise_sigma", -0.1, r"neuron/noise_sigma\[3\] is -0.1; expected at least 0 threshold"),
    ],
)
def test_wrong_values_of_neurons_are_refused(tmp_path, name, value, message):
    arrays = small_network(0)
    arrays[f"neuron/{name}"] = np.where(np.arange(60) == 3, value, 5.0)
    write_network(tmp_path / "n.zarr", arrays)
    with pytest.raises(UserError, match=message):
        build.build(compose("config=tiny", f"network.load={tmp_path}/n.zarr", "trial.duration=200"))


PLUGIN = '''
import dataclasses
import jax.numpy as jnp
from rlsnet import neurons
from rlsnet.config import ByClass, NeuronConfig, key


@dataclasses.dataclass(frozen=True)
class QuadraticConfig(NeuronConfig):
    """tau_m dv/dt = v^2 + current, a spike at the threshold."""

    name: str = key("neuron model", choices=("quadratic",))
    tau_m: ByClass = key("time constant", "ms", above=0)
    threshold: ByClass = key("where it spikes", default=5.0)
    reset: ByClass = key("where it goes", default=-5.0)


@neurons.init.register
def _(neuron: QuadraticConfig, v):
    return v


@neurons.step.register
def _(neuron: QuadraticConfig, dt, v, i, current, noise_increment):
    v = v + (dt / neuron.tau_m) * (v * v + current)
    spiked = v > neuron.threshold
    return jnp.where(spiked, neuron.reset, v), spiked
'''


def test_a_user_defined_model(x64, tmp_path):
    """A file that `plugins` lists: dv/dt = v^2 + 1 takes atan(5) - atan(-5) from reset to threshold, up to the Euler error."""
    (tmp_path / "quadratic.py").write_text(PLUGIN)
    values = to_dict(compose("network.n_neurons=40", "static.out_degree=0", "plastic.n_inputs=2", "network.bias=1.0", "trial.dt=0.01",
                             "engine.precision=float64"))  # fmt: skip
    values |= {"plugins": [str(tmp_path / "quadratic.py")], "neuron": {"name": "quadratic", "tau_m": 1.0}}
    config = from_dict(values)
    assert from_dict(to_dict(config)) == config
    net, _, _ = build.build(config)
    found = [0.01 * steps for steps in intervals(config, net, 5)]
    assert found and all(abs(ms - 2 * math.atan(5)) < 0.1 for ms in found)


def test_a_plugin_that_fails_is_named(tmp_path):
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    values = to_dict(compose())
    for name, message in (
        (str(tmp_path / "broken.py"), "ModuleNotFoundError"),
        (str(tmp_path / "none.py"), "no such file"),
        ("no_such_module", "ModuleNotFoundError"),
    ):
        with pytest.raises(UserError, match=f"plugins: .* cannot be imported .*{message}"):
            from_dict(values | {"plugins": [name]})
