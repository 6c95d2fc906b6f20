"""V12 and V13: other simulators, with the same synapses and initial voltages, make the same spikes and the same rates.

They read what rlsnet wrote, a network.zarr, with zarr alone. They come with the extra `simulators`: without it these tests fail.
"""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import zarr
from conftest import KERNELS, compose, fresh_nest, keys_of, simulator, spikes_of

from rlsnet.model import build, connectivity, network_store
from rlsnet.simulation.state import Dynamics

pytestmark = pytest.mark.simulators

QUIET = "stimulus=none", "noise.sigma=0"
NO_REFRACTION = "neuron.refractory=0", "engine.precision=float64"
STEPS = 5000


def draw(path: Path, *overrides: str):
    """A network drawn by rlsnet with initial voltages of its own, written to `path` and loaded from it: its configuration, it, w."""
    config = compose(*overrides)
    net, weight, _ = build.build(config)
    v0 = np.random.default_rng(12).normal(size=net.n_neurons)
    net = dataclasses.replace(net, v0=jnp.asarray(v0, net.bias.dtype))
    network_store.save(path, net, weight, np.zeros((1, config.trial.n_points, net.n_neurons)))
    config = compose(*overrides, f"network.load={path}")
    net, weight, _ = build.build(config)
    return config, net, jnp.asarray(connectivity.to_groups(weight, 1))


@dataclasses.dataclass(frozen=True)
class Given:
    """A network.zarr as another program sees it; static and plastic edges as (source, target, weight)."""

    excitatory: np.ndarray
    bias: np.ndarray
    v0: np.ndarray
    static: tuple[np.ndarray, np.ndarray, np.ndarray]
    plastic: tuple[np.ndarray, np.ndarray, np.ndarray]

    @staticmethod
    def read(path: Path) -> "Given":
        root = zarr.open_group(str(path), mode="r")
        excitatory = root["neuron/excitatory"][...]
        post = root["static/post"][...]
        source = np.repeat(np.arange(len(excitatory)), np.diff(root["static/indptr"][...]))
        weight = root["static/class_weight"][...][(~excitatory[source]).astype(int), (~excitatory[post]).astype(int)]
        pre = root["plastic/pre"][...]
        target = np.repeat(np.arange(len(pre)), pre.shape[1])
        plastic = pre.ravel(), target, root["plastic/weight"][...].ravel()
        return Given(excitatory, root["neuron/bias"][...], root["neuron/v0"][...], (source, post, weight), plastic)


def brian2(given: Given, plastic: bool) -> tuple[set[tuple[int, int]], np.ndarray]:
    """(step from 0, neuron) of every spike of 500 ms, and the voltages at the end, by Brian2's Euler method.

    Brian2 moves v by the currents from before the step, and adds spikes to them after it: so what a neuron feels in step
    n+1 is a*u_n and the spikes of step n, as in rlsnet.
    """
    b = simulator("brian2")
    b.prefs.codegen.target = "numpy"
    b.defaultclock.dt = 0.1 * b.ms
    equations = """
        dv/dt = (X + ue + ui + up - v)/(10*ms) : 1
        due/dt = -ue/(3*ms) : 1
        dui/dt = -ui/(3*ms) : 1
        dup/dt = -up/(150*ms) : 1
        X : 1
    """
    neurons = b.NeuronGroup(len(given.bias), equations, threshold="v > 1", reset="v = 0", method="euler")
    neurons.X, neurons.v = given.bias, given.v0
    monitor = b.SpikeMonitor(neurons)
    net = b.Network(neurons, monitor)
    from_exc = given.excitatory[given.static[0]]
    kinds = [("ue", 3, [x[from_exc] for x in given.static]), ("ui", 3, [x[~from_exc] for x in given.static]), ("up", 150, given.plastic)]
    for current, tau, (source, target, weights) in kinds[: 3 if plastic else 2]:
        synapses = b.Synapses(neurons, neurons, "weight : 1", on_pre=f"{current}_post += weight/{tau}")
        synapses.connect(i=source, j=target)
        synapses.weight = weights
        net.add(synapses)
    net.run(STEPS * 0.1 * b.ms)
    steps = np.round(np.asarray(monitor.t / b.ms) / 0.1).astype(int)
    return set(zip(steps.tolist(), np.asarray(monitor.i).tolist(), strict=True)), np.asarray(neurons.v[:])


@pytest.mark.parametrize("plastic", [False, True], ids=["static", "plastic"])
@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
def test_v12_brian2_spike_for_spike(x64, tmp_path, record_check, plastic):
    config, net, w = draw(tmp_path / "n.zarr", "network.n_neurons=1000", "static.out_degree=240", *QUIET, *NO_REFRACTION)
    theirs, v = brian2(Given.read(tmp_path / "n.zarr"), plastic)
    what = f"1000 neurons, K = 240{f', L = {net.n_inputs}, frozen weights' if plastic else ''}, 500 ms, float64, against Brian2"
    for kind in KERNELS:
        engine = dataclasses.replace(config.engine, kernels=kind)
        dynamics = Dynamics.from_config(dataclasses.replace(config, engine=engine))
        step, neuron, state = spikes_of(dynamics, net, keys_of(), STEPS, w if plastic else None)
        ours = set(zip(step.tolist(), neuron.tolist(), strict=True))
        error = np.abs(np.asarray(state.neuron.v) - v).max()
        seen = f"{len(ours)} spikes, {len(ours ^ theirs)} differ from Brian2's {len(theirs)}; last voltages differ by {error:.1e}"
        record_check(
            f"V12 Brian2, {'plastic' if plastic else 'static'}, {kind} kernels", what, "the same spikes, last voltages to 1e-9", seen
        )
        assert ours == theirs and len(ours) > 1000
        assert error < 1e-9


def nest_rates(given: Given, duration: float) -> tuple[float, float]:
    """Mean rate of the excitatory and of the inhibitory neurons in Hz, by NEST.

    NEST solves the equations exactly between spikes. Time constants -dt/log(1 - dt/tau), and weights w/tau times what makes
    up for them (NEST moves v by the current's mean within a step), turn its exponentials into the factors of Euler steps.
    """
    nest = fresh_nest(0.1)
    tau_m, tau_syn = 9.94992, 2.94972
    constants = {"tau_m": tau_m, "C_m": tau_m, "tau_syn_ex": tau_syn, "tau_syn_in": tau_syn, "t_ref": 0.1}
    voltages = {"E_L": 0.0, "V_th": 1.0, "V_reset": 0.0}
    neurons = nest.Create("iaf_psc_exp", len(given.bias), {**constants, **voltages, "I_e": given.bias, "V_m": given.v0})
    first = neurons[0].global_id
    source, target, weight = given.static
    synapses = {"weight": weight / 3 * 1.01708, "delay": np.full(len(weight), 0.1)}
    nest.Connect(source + first, target + first, "one_to_one", synapses)
    recorder = nest.Create("spike_recorder")
    nest.Connect(neurons, recorder)
    nest.Simulate(duration)
    counts = np.bincount(recorder.events["senders"] - first, minlength=len(given.bias))
    return counts[given.excitatory].mean() / duration * 1000, counts[~given.excitatory].mean() / duration * 1000


def test_v13_nest_fires_as_often(tmp_path, record_check):
    config, net, _ = draw(tmp_path / "n.zarr", "config=sinusoid", *QUIET)
    given = Given.read(tmp_path / "n.zarr")
    _, neuron, _ = spikes_of(Dynamics.from_config(config), net, keys_of(), 20000)
    counts = np.bincount(neuron, minlength=net.n_neurons)
    for label, own, theirs, low, high in zip(
        ("excitatory", "inhibitory"),
        (counts[given.excitatory].mean() / 2, counts[~given.excitatory].mean() / 2),
        nest_rates(given, 2000.0),
        (3.413, 6.139),
        (3.425, 6.148),
        strict=True,
    ):
        what = f"mean {label} rate of the default static network in 2 s, the same edges and voltages"
        expected = f"{low}-{high} Hz +- 1 %, rlsnet and NEST within 1 %"
        record_check("V13 NEST", what, expected, f"NEST {theirs:.3f} Hz, rlsnet {own:.3f} Hz ({100 * (own / theirs - 1):+.2f} %)")
        assert 0.99 * low < theirs < 1.01 * high and 0.99 * low < own < 1.01 * high
        assert own == pytest.approx(theirs, rel=0.01)
