"""V4, V7, V9 and the parts of a step: delivery, stimulus, refractoriness, noise of each trial."""

import dataclasses
import re
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zarr
from conftest import COMPILER, KERNELS, NATIVE, compose, difference, keys_of, small_network, spikes_of, write_network

from rlsnet.errors import UserError
from rlsnet.kernels import build as kernel_build
from rlsnet.kernels import calls
from rlsnet.learning import rls
from rlsnet.model import build, connectivity, network_store, neurons
from rlsnet.model.network import gather_inputs
from rlsnet.simulation import delivery, persistent
from rlsnet.simulation.state import TESTING, TRAINING, Dynamics, SimState, TrialKeys, initial_state
from rlsnet.simulation.step import currents, deliver, deliver_early, static_current
from rlsnet.simulation.trial import advance, before_learning, calibrate, over_trials, with_capacity
from rlsnet.workflows import test_store
from rlsnet.workflows.training import with_rate_table

QUICK = ["-O0", "-DRLSNET_F32"]  # half the time, where the numbers do not matter


@pytest.mark.parametrize("refractory", [0.0, 0.1, 2.0])
def test_v7_interval_is_exact(record_check, refractory):
    """From reset to threshold at mu = 1.5 takes the first n with 1.5*(1 - 0.99^n) > 1, that is 110 steps."""
    config = compose("network.n_neurons=40", "static.out_degree=0", "plastic.n_inputs=2", f"neuron.refractory={refractory}")
    net, _, _ = build.build(config)
    net = dataclasses.replace(net, bias=jnp.full(40, 1.5, jnp.float32), v0=jnp.zeros(40, jnp.float32))
    step, neuron, _ = spikes_of(Dynamics.from_config(config), net, keys_of(), 1000)
    interval = 110 + round(refractory / 0.1)
    own = step[neuron == 17]
    what, intervals = f"mu 1.5, no noise, refractory {refractory} ms", ", ".join(map(str, np.unique(np.diff(own))))
    seen = f"step {own[0] + 1}, then after {intervals} steps, {len(own)} spikes"
    record_check("V7 interval between spikes", what, f"step 110, then after {interval} steps, exactly", seen)
    np.testing.assert_array_equal(own, np.arange(109, 1000, interval))


def test_v4_default_network_in_balance(record_check):
    """Rates, mean currents, their temporal s.d. and the irregularity of the static network (TSN and NEST agree on the rates)."""
    config = compose()
    net, _, _ = build.build(config)
    calibration = calibrate(Dynamics.from_config(config), net, keys_of())
    exc = np.asarray(net.excitatory)
    rate, mean, sd = np.asarray(calibration.n_spikes) / 2.0, np.asarray(calibration.mean), np.asarray(calibration.sd)
    for what, unit, values, who, expected, tolerance in (
        ("rate of excitatory neurons", " Hz", rate, exc, 3.41, 0.04),
        ("rate of inhibitory neurons", " Hz", rate, ~exc, 6.14, 0.04),
        ("mean current of excitatory neurons after 1 s", "", mean, exc, -1.161, 0.01),
        ("mean current of inhibitory neurons after 1 s", "", mean, ~exc, -0.779, 0.01),
        ("temporal s.d. of the current after 1 s", "", sd, exc, 0.4715, 0.005),
    ):
        seen = values[who].mean()
        record_check("V4 static default network", what, f"{expected}{unit} +- {tolerance}", f"{seen:.4f}{unit} ({seen - expected:+.4f})")
        assert seen == pytest.approx(expected, abs=tolerance)


def test_v4_spiking_is_irregular(record_check):
    """Mean CV of the intervals between spikes in one trial of 2 s, over neurons with three spikes or more."""
    config = compose()
    net, _, _ = build.build(config)
    step, neuron, _ = spikes_of(Dynamics.from_config(config), net, keys_of(), 20000)
    order = np.argsort(neuron, kind="stable")
    trains = np.split(step[order], np.cumsum(np.bincount(neuron, minlength=4096))[:-1])
    intervals = [np.diff(train) for train in trains if len(train) >= 3]
    seen = np.mean([i.std() / i.mean() for i in intervals])
    record_check(
        "V4 static default network", "CV of the intervals between spikes, 2 s", "0.776 +- 0.03", f"{seen:.3f} ({seen - 0.776:+.3f})"
    )
    assert seen == pytest.approx(0.776, abs=0.03)


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize(
    ("taus", "size"), [(1, 1), (2, 7), (60, 1), *[pytest.param(*each, marks=pytest.mark.slow) for each in ((1, 7), (2, 1), (60, 7))]]
)
def test_v9_plastic_current_is_weights_times_filtered_spikes(x64, tmp_path, record_check, size, taus, kind):
    arrays = small_network(2, group_size=size)
    if taus > 1:
        values = np.random.default_rng(2).uniform(30, 200, taus)
        arrays["neuron/tau_plas"] = np.random.default_rng(3).permutation(np.resize(values, 60))
    write_network(tmp_path / "n.zarr", arrays, size)
    more = "trial.duration=200", "engine.precision=float64", f"engine.kernels={kind}"
    config = compose("config=tiny", f"network.load={tmp_path}/n.zarr", *more)
    net, weight, _ = build.build(config)
    assert (len(net.taus), net.per_synapse) == {1: (0, False), 2: (2, False), 60: (0, True)}[taus]
    w = jnp.asarray(connectivity.to_groups(weight, size))
    dynamics, keys = Dynamics.from_config(config), keys_of()
    runs = [jax.jit(lambda net, w, state, keys, n=n: advance(dynamics, net, w, state, keys, n, stimulated=True)[0]) for n in (1, 13)]
    product = jax.jit(lambda net, w, r: rls.errors(net, w, gather_inputs(net, r), jnp.zeros(60)))
    state = initial_state(dynamics, net, keys, w)
    active, error = 0, 0.0
    for turn in range(300):
        state = runs[turn % 5 == 4](net, w, state, keys)  # every step, and blocks of 10 and 3 between
        expected = product(net, w, state.r).reshape(-1)[:60]
        u_plas = currents(net, state.synapses)[1]
        error = max(error, difference(u_plas, expected))
        active += int(np.any(np.asarray(u_plas) != 0))
    what = f"u_P and w @ x after each of 300 runs of 1 or 13 steps, float64, groups of {size}, values of tau_plas: {taus}"
    record_check(f"V9 plastic current, {kind} kernels", what, "equal to 1e-12", f"largest difference {error:.1e}")
    assert error < 1e-12 and active > 200


@pytest.mark.parametrize("kernels", KERNELS[-1:])
def test_delays_of_one_step_are_no_delays(tmp_path, kernels):
    """To the bit, by class or of each synapse: nothing is kept, and whole steps are computed by the native kernel."""
    arrays, states, networks = small_network(3), [], []
    for name in ("null", "class", "each"):
        if name == "each":
            arrays["static/delay"] = np.full(len(arrays["static/post"]), 0.1, np.float32)
        write_network(tmp_path / f"{name}.zarr", arrays)
        more = ["synapse.delay=[0.1,0.1]"] * (name == "class")
        config = compose("config=tiny", f"network.load={tmp_path}/{name}.zarr", "trial.duration=200", f"engine.kernels={kernels}", *more)
        net, weight, _ = build.build(config)
        networks.append(net)
        w, dynamics = jnp.asarray(connectivity.to_groups(weight, 1)), Dynamics.from_config(config)
        assert dynamics.ring_rows(net) == 0 and not net.delays and persistent.covers(dynamics, net) == (kernels == "native")
        if name != "each":
            states.append(spikes_of(dynamics, net, keys_of(TRAINING), 403, w)[2])
    for one, other in (states, networks[:2], networks[1:]):
        for mine, own in zip(jax.tree.leaves(other), jax.tree.leaves(one), strict=True):
            np.testing.assert_array_equal(mine, own)
    late = Dynamics.from_config(compose("config=tiny", "synapse.delay=[0.1,0.3]"))
    assert late.ring_rows(net) == 3 and persistent.covers(late, net) == (kernels == "native")


@pytest.mark.parametrize("kernels", [pytest.param(kind, marks=[pytest.mark.slow] * (kind == "fixed_shape")) for kind in KERNELS])
def test_a_spike_acts_after_the_delay_of_its_synapse(tmp_path, kernels):
    """Neuron 0 spikes in step 1 only; others get it at their own time, and spikes on their way are counted."""
    delay = np.array([0.5, 0.1, 1.2, 0.5], np.float32)
    arrays = {
        "neuron/excitatory": np.array([True, False, True, True]),
        "neuron/bias": np.zeros(4),
        "neuron/v0": np.array([1.5, 0, 0, 0]),
        "static/indptr": np.array([0, 4, 4, 4, 4]),
        "static/post": np.array([1, 2, 3, 3]),
        "static/weight": np.array([3.0, 6.0, 9.0, 12.0]),
        "static/delay": delay,
        "plastic/pre": np.array([[2], [0], [0], [0]]),
        "plastic/weight": np.array([[0.0], [15.0], [30.0], [45.0]]),
    }
    write_network(tmp_path / "n.zarr", arrays)
    config = compose("config=tiny", f"network.load={tmp_path}/n.zarr", "synapse.delay=0.8", "neuron.threshold=1.4", "stimulus=none",
                     f"engine.kernels={kernels}")  # fmt: skip
    net, weight, _ = build.build(config)
    network_store.save(tmp_path / "again.zarr", net, weight, np.zeros((1, config.trial.n_points, 4)))
    root = zarr.open_group(str(tmp_path / "again.zarr"), mode="r")
    for name in ("indptr", "post", "weight", "delay"):
        at = slice(None) if name == "indptr" else np.argsort(delay, kind="stable")  # within a neuron those of a delay are together
        np.testing.assert_allclose(root[f"static/{name}"][...], arrays[f"static/{name}"][at], rtol=1e-6)
    w, dynamics, keys = jnp.asarray(connectivity.to_groups(weight, 1)), Dynamics.from_config(config), keys_of()
    one_step = jax.jit(lambda state: advance(dynamics, net, w, state, keys, 1)[0])
    at_once, state = jax.jit(lambda state: deliver_early(dynamics, net, w, state)), initial_state(dynamics, net, keys, w)
    for step in range(1, 20):
        state = one_step(state)
        static, plastic = (np.asarray(u) for u in currents(net, state.synapses))
        since = step - 1 - np.rint(arrays["static/delay"] / 0.1)  # steps with the current
        expected = np.zeros(4)
        np.add.at(expected, arrays["static/post"], np.where(since >= 0, arrays["static/weight"] / 3 * (1 - 0.1 / 3) ** since, 0))
        np.testing.assert_allclose(static, expected, rtol=1e-5)
        late = step - 9
        np.testing.assert_allclose(plastic, np.array([0, 0.1, 0.2, 0.3]) * ((1 - 0.1 / 150) ** late if late >= 0 else 0), rtol=1e-5)
        early = at_once(state)
        assert early.n_spikes.tolist() == state.n_spikes.tolist() == [1, 0, 0, 0]
        assert int(state.n_delivered[0]) == (step >= 9) and int(early.n_delivered[0]) == (step >= 8)
        np.testing.assert_allclose(one_step(early).synapses, one_step(state).synapses, rtol=1e-6)


@pytest.mark.parametrize(("overrides", "words"), [
    ("synapse.delay=0.25", "synapse.delay=0.25 ms: expected a multiple of trial.dt=0.1 ms"),
    ("synapse.delay=[1,0.04]", "expected a multiple of trial.dt=0.1 ms"),
    ("synapse.delay=0", "synapse.delay=0.0: expected a value above 0 ms"),
])  # fmt: skip
def test_a_delay_is_a_number_of_steps(overrides, words):
    with pytest.raises(UserError, match=re.escape(words)):
        compose(overrides)


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize(
    ("n", "size"), [(60, 1), pytest.param(60, 7, marks=pytest.mark.slow), pytest.param(1100, 1, marks=pytest.mark.slow)]
)
def test_delivery_is_a_matrix_product(x64, tmp_path, record_check, n, size, kind):
    """Any set of spikes, none and all included, sends what the dense matrices say."""
    arrays = small_network(4, n=n, group_size=size)
    write_network(tmp_path / "n.zarr", arrays, size)
    more = "trial.duration=200", "engine.precision=float64", f"engine.kernels={kind}"
    config = compose("config=tiny", f"network.load={tmp_path}/n.zarr", *more)
    net, weight, _ = build.build(config)
    static, plastic = np.zeros((n, n)), np.zeros((n, n))
    source = np.repeat(np.arange(n), np.diff(arrays["static/indptr"]))
    np.add.at(static, (arrays["static/post"], source), arrays["static/weight"])
    pre = np.repeat(arrays["plastic/pre"], size, axis=0)[:n]
    for i in range(n):
        for slot in np.flatnonzero(pre[i] >= 0):
            plastic[i, pre[i, slot]] += weight[i, slot]
    exc = arrays["neuron/excitatory"]
    dynamics, w = Dynamics.from_config(config), jnp.asarray(connectivity.to_groups(weight, size))
    before = dataclasses.replace(initial_state(dynamics, net, keys_of()), i=jnp.int32(9))

    def send(state):
        """With room for all spikes."""

        def run(dynamics):
            after = jax.jit(lambda net, w, state: deliver(dynamics, net, w, state, jnp.array([2.0, 3.0, 5.0])))(net, w, state)
            return after, after.overflowed

        return with_capacity(dynamics, run)[0]

    error = 0.0
    for share in (0, 0.03, 0.5, 1):
        spiked = np.random.default_rng(1).random(n) < share
        after = send(dataclasses.replace(before, spiked=jnp.asarray(spiked)))
        expected = 2 * static @ (spiked & exc), 3 * static @ (spiked & ~exc), 5 * plastic @ spiked
        error = max(error, difference(after.synapses, np.stack(expected)))
        np.testing.assert_array_equal(after.r, 5.0 * spiked)
        np.testing.assert_array_equal(after.n_delivered, spiked)
        np.testing.assert_array_equal(after.n_spikes, 2 * spiked)  # still on their way, as far as the state knows
        early = deliver_early(dynamics, net, w, dataclasses.replace(before, spiked=jnp.asarray(spiked)))
        np.testing.assert_array_equal(early.n_spikes, spiked)
        assert not np.any(np.asarray(early.spiked))
    what = f"{n} neurons in groups of {size}; 0, 3, 50 and 100 % of them spike; float64"
    record_check(f"delivery is a matrix product, {kind} kernels", what, "equal to 1e-12", f"largest difference {error:.1e}")
    assert error < 1e-12


@pytest.mark.parametrize("kernels", [pytest.param(kind, marks=[pytest.mark.slow] * (kind == "fixed_shape")) for kind in KERNELS[1:]])
def test_trials_side_by_side_are_those_trials(record_check, kernels):
    """Each has its own noise, initial voltages and feed-forward spikes; the stimulus is that of the condition."""
    config = compose("config=tiny", "network.n_neurons=200", "trial.stim_on=0", "trial.stim_off=10", "neuron=glif5", "feedforward=ou",
                     "feedforward.n_neurons=8", "noise.kind=current", "noise.sigma=0.3", "plastic.group_size=7",
                     f"engine.kernels={kernels}")  # fmt: skip
    (net, weight, _), dynamics, axes = build.build(config), Dynamics.from_config(config).enlarged(), SimState.trial_axes()
    w = jnp.asarray(connectivity.to_groups(weight, 7))

    @jax.jit
    def run(numbers):
        keys = TrialKeys.create(1, TRAINING).trial(numbers, jnp.int32(0))
        state = over_trials(partial(initial_state, dynamics, net), keys, out_axes=axes)
        steps = partial(advance, dynamics, net, w, n=500, stimulated=True)
        state = over_trials(lambda keys, state: steps(state, keys)[0], keys, state, out_axes=axes)
        u_bal = over_trials(lambda keys, state: static_current(dynamics, net, state, keys), keys, state, out_axes=0)
        return jax.tree.leaves((state.neuron, state.synapses, state.r, u_bal)), state

    values, together = run(jnp.arange(4, 7, dtype=jnp.int32))
    alone = [run(jnp.int32(number)) for number in (4, 5, 6)]
    error = max(difference(one, mine[b]) for b in range(3) for one, mine in zip(alone[b][0], values, strict=True))
    spikes = [np.asarray(state.n_spikes) for _, state in alone]
    seen = f"{[int(own.sum()) for own in spikes]} spikes, states differ by up to {error:.1e}"
    what = "3 trials of 50 ms, GLIF5 with feed-forward neurons and noise, float32: state at the end"
    record_check(f"trials side by side, {kernels} kernels", what, "as in each trial by itself, the same spikes", seen)
    np.testing.assert_array_equal(together.n_spikes, spikes)
    assert error < (1e-12 if kernels == "native" else 1e-4) and not together.overflowed
    assert not np.array_equal(spikes[0], spikes[1]) and together.stimulus.shape == (200,)


@pytest.mark.parametrize("kernels", NATIVE)
@pytest.mark.parametrize(
    "extra",
    [
        ("plastic.group_size=7", "static.out_degree=0", "feedforward=ou", "feedforward.before=true", "rls.regressors=rates",
         "noise.sigma=0.6"),
        pytest.param(("static.storage=procedural", "static.out_degree=40", "synapse.tau_plas=[100,150]", "noise.kind=current",
                      "neuron.tau_m=[10,20]", "stimulus=none"), marks=pytest.mark.slow),
        ("static=erdos_renyi", "feedforward=ou", "neuron.refractory=0.3"),
        ("synapse.delay=[0.3,6]", "feedforward=ou", "feedforward.before=true", "plastic.group_size=7", "background.kind=poisson",
         "background.n_inputs=[1000,900]", "background.rate=400", "background.weight=[0.002,0.001]"),
        ("static=populations", "static.path=microcircuit", "static.scale=0.0272", "network.n_neurons=null", "synapse.delay=0.4",
         "background.kind=poisson", "background.rate=8", "background.weight=0.05"),
    ],
    ids=lambda extra: extra[0],
)  # fmt: skip
def test_native_steps_are_those_of_xla(x64, record_check, kernels, extra):
    """150 steps of two trials of 2,100 neurons, which are two ranges on two threads: state and packed spikes."""
    results = []
    for form in ("xla", kernels):
        config = compose("config=tiny", "network.n_neurons=2100", "plastic.n_inputs=8", "trial.stim_on=3",
                         "trial.stim_off=9", "network.bias=[1.3,1.1]", "noise.sigma=0.2", "engine.precision=float64", *extra,
                         f"engine.kernels={form}")  # fmt: skip
        net, weight, _ = build.build(config)
        net, dynamics = with_rate_table(config, net), Dynamics.from_config(config)
        w = jnp.asarray(connectivity.to_groups(weight, net.group_size))

        @jax.jit
        def run(net, w, dynamics=dynamics):
            keys = TrialKeys.create(1, TRAINING).trial(jnp.arange(2, dtype=jnp.int32), jnp.int32(0))
            steps = partial(advance, dynamics, net, w)

            def one(keys):
                state, _ = steps(initial_state(dynamics, net, keys), keys, 33)
                state, _ = steps(state, keys, 60, stimulated=True)
                return steps(state, keys, 57, record=True)

            return over_trials(one, keys, out_axes=(SimState.trial_axes(), 0))

        results.append(run(net, w))
    assert persistent.covers(dynamics, net)
    (one, spikes), (other, spikes_) = results
    error = max(difference(a, b) for a, b in zip(*(jax.tree.leaves(state) for state in (one, other)), strict=True) if a.size)
    seen = f"{int(np.sum(one.n_spikes))} spikes, states differ by up to {error:.1e}"
    record_check(f"native steps, {extra[0]}", "150 steps of 2 trials, float64: state", "that of XLA to 1e-9, the same spikes", seen)
    np.testing.assert_array_equal(spikes, spikes_)
    assert error < 1e-9 and np.all(np.sum(one.n_spikes, axis=1) > 300) and np.any(one.u_sum != 0)


def test_native_delivery_by_several_threads_is_that_of_each_trial():
    """To the bit: 16 trials of the default network have enough targets in a step for several threads."""
    net, weight, _ = build.build(compose("static.out_degree=410"))
    random, trials, n = np.random.default_rng(0), 16, net.n_neurons
    w, gain = jnp.asarray(connectivity.to_groups(weight, 1)), jnp.asarray(random.uniform(0.1, 1, 3), jnp.float32)
    spiked = jnp.asarray(random.random((trials, n)) < 0.02)
    changed = (
        jnp.asarray(random.normal(size=(trials, 3, n)), jnp.float32),
        jnp.zeros((trials, n), jnp.float32),
        jnp.zeros((trials, n), jnp.int32),
    )
    one = partial(delivery.side_by_side(partial(calls.deliver, "native")), net, w)
    together = jax.jit(jax.vmap(lambda spiked, *changed: one(spiked, gain, *changed)))(spiked, *changed)
    for b in (0, 7, 15):
        alone = one(spiked[b], gain, *(values[b] for values in changed))
        for mine, own in zip(together, alone, strict=True):
            np.testing.assert_array_equal(mine[b], own)


def test_who_spikes_is_reset_and_waits():
    lif = dataclasses.replace(compose().neuron, reset=-0.5, refractory=0.3)
    state = neurons.LIFState(jnp.array([0.2, 1.2, 1.2, 0.999]), jnp.array([0, 8, 9, 0], jnp.int32))
    state, spiked = neurons.step(lif, 0.1, state, jnp.int32(9), jnp.array([0.2, 1.2, 5.0, 3.0]), None)
    np.testing.assert_array_equal(spiked, [False, True, False, True])  # the third is refractory in step 9
    np.testing.assert_allclose(state.v, [0.2, -0.5, 1.2, -0.5])
    np.testing.assert_array_equal(state.until, [0, 12, 9, 12])


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind == "fixed_shape")) for kind in KERNELS[1:]])
@pytest.mark.parametrize("size", [1, pytest.param(16, marks=pytest.mark.slow)])
def test_all_kernels_make_the_same_spikes(monkeypatch, record_check, kind, size):
    """Float32, a static network with plastic synapses, and with fixed shapes more spikes than there is room for at first."""
    monkeypatch.setattr(delivery, "spike_capacity", lambda n: 2)
    counts = []
    for kernel in (KERNELS[0], kind):
        config = compose("config=tiny", f"engine.kernels={kernel}", f"plastic.group_size={size}")
        net, weight, _ = build.build(config)
        w = jnp.asarray(connectivity.to_groups(weight, size))
        step, neuron, state = spikes_of(Dynamics.from_config(config), net, keys_of(TESTING), 2003, w)
        counts.append((step, neuron))
        assert np.sum(np.bincount(step) > 2) > 20 and np.sum(np.bincount(step) <= 2) > 500
        np.testing.assert_array_equal(np.bincount(neuron, minlength=512), state.n_spikes)
    one, other = (set(zip(step.tolist(), neuron.tolist(), strict=True)) for step, neuron in counts)
    what, seen = f"2003 steps of `tiny`, float32, groups of {size}", f"{len(one)} spikes, {len(one ^ other)} differ"
    record_check(f"kernels agree, xla and {kind}", what, "the same spikes", seen)
    np.testing.assert_array_equal(*counts)


@pytest.mark.parametrize(("compiler", "reason"), [(None, "no C++ compiler is found"), ("exit 3", "exit status 3"),
                                                  ("echo 'x.cc:1: error: no such thing' >&2; exit 1", "error: no such thing")])  # fmt: skip
def test_without_a_working_compiler_there_are_slower_kernels(tmp_path, monkeypatch, compiler, reason):
    """auto goes on without the native ones, native says in one line why it cannot be had."""
    monkeypatch.setenv("RLSNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    if compiler is not None:
        (tmp_path / "c++").write_text(f"#!/bin/sh\n{compiler}\n")
        (tmp_path / "c++").chmod(0o755)
    kernel_build.native.cache_clear()
    try:
        assert Dynamics.from_config(compose()).backend.delivery == "xla"
        with pytest.raises(UserError, match=f"^engine.kernels=native: .*{re.escape(reason)}.*Use engine.kernels=auto"):
            Dynamics.from_config(compose("engine.kernels=native"))
        assert not list((tmp_path / "cache").rglob("*.so"))
    finally:
        kernel_build.native.cache_clear()


@pytest.mark.skipif(not COMPILER, reason="no C++ compiler")
def test_native_kernels_build_and_register_themselves(tmp_path):
    """Where there is a compiler they have to; and a program that uses them need not choose them first."""
    assert kernel_build.native("float32").error is None
    code = "import jax.numpy as jnp; from rlsnet.kernels import calls; print(calls.normal(jnp.zeros(2, jnp.uint32), 5, jnp.float32).shape)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "(5,)\n"


@pytest.mark.parametrize("kind", NATIVE)
def test_a_damaged_library_is_made_again(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("RLSNET_CACHE", str(tmp_path))
    path, _ = kernel_build.load(kernel_build.SOURCES, QUICK)
    assert kernel_build.load(kernel_build.SOURCES, QUICK)[0] == path and path.stat().st_size > 0
    path.unlink()  # and not written again in place, as it is loaded
    path.write_bytes(b"")
    code = f"from rlsnet.kernels import build; build.load(build.SOURCES, {QUICK})[1].learn_f32"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert path.stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", NATIVE)
def test_a_library_that_cannot_be_loaded_is_built_twice_and_not_at_each_start(tmp_path, monkeypatch, kind):
    """A cache folder that is mounted noexec."""
    monkeypatch.setenv("RLSNET_CACHE", str(tmp_path))
    commands, run, load = [], kernel_build._run, kernel_build.ctypes.CDLL
    monkeypatch.setattr(kernel_build, "_run", lambda some, seconds: commands.extend(some) or run(some, seconds))

    def built():
        return sum(str(kernel_build.SOURCES[0]) in command for command in commands)

    def refused(path):
        raise OSError("failed to map segment from shared object")

    monkeypatch.setattr(kernel_build.ctypes, "CDLL", refused)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="failed to map segment .* RLSNET_CACHE"):
            kernel_build.load(kernel_build.SOURCES, QUICK)
    assert built() == 2
    monkeypatch.setattr(kernel_build.ctypes, "CDLL", load)
    kernel_build.load(kernel_build.SOURCES, QUICK)
    assert built() == 2


def test_spikes_are_found_by_rank():
    flags = np.random.default_rng(0).random(1000) < 0.1
    words = delivery.pack(jnp.asarray(flags))
    count = jnp.cumsum(jax.lax.population_count(words).astype(jnp.int32))
    found = np.asarray(delivery.nth(words, count, jnp.arange(200, dtype=jnp.int32), 1000))
    total = flags.sum()
    np.testing.assert_array_equal(np.sort(found[:total]), np.flatnonzero(flags))
    assert np.all(found[total:] == 1000)


@pytest.mark.parametrize("kernels", NATIVE)
@pytest.mark.parametrize(("each", "n"), [(1, 3), (31, 60), (32, 96), (33, 70), (1000, 2999)])
def test_native_packing_is_that_of_xla(kernels, each, n):
    """Two steps of three devices with `each` neurons, the last ones of which are padding; also for trials side by side."""
    flags = np.random.default_rng(each).random((2, 3, each)) < 0.3
    own = jnp.asarray(flags.reshape(6, each))
    words = calls.pack(own, jnp.dtype("float32"))
    np.testing.assert_array_equal(words, jax.vmap(delivery.pack)(own))
    np.testing.assert_array_equal(jax.vmap(lambda rows: calls.pack(rows, jnp.dtype("float32")))(own[:, None])[:, 0], words)
    words = words.reshape(2, 3, -1)
    for form in (delivery.unpack, partial(calls.unpack, dtype=jnp.dtype("float32"))):
        np.testing.assert_array_equal(form(words, each, n), flags.reshape(2, -1)[:, :n])


def test_pack_and_unpack():
    flags = np.random.default_rng(0).random((5, 77)) < 0.3
    words = np.stack([np.asarray(delivery.pack(jnp.asarray(row))) for row in flags])
    step, neuron = test_store.unpack(words)
    again = np.zeros_like(flags)
    again[step, neuron] = True
    np.testing.assert_array_equal(again, flags)
    assert np.all(np.diff(step) >= 0)


def test_blocks_divide_the_learning_interval():
    for every, block in ((10.0, 10), (5.0, 10), (2.5, 5), (0.7, 7), (10.1, 1)):
        config = compose("config=tiny", f"trial.learn_every={every}", f"trial.duration={10 * every}")
        assert config.trial.block == block


def test_the_stimulus_is_the_same_in_every_trial_and_differs_between_conditions():
    config = compose("config=tiny", "noise.sigma=0.3")
    net, weight, _ = build.build(config)
    w = jnp.asarray(connectivity.to_groups(weight, 1))
    dynamics = Dynamics.from_config(config)
    run = jax.jit(lambda keys: before_learning(dynamics, net, w, keys))
    states = {pair: run(keys_of(TESTING, *pair)) for pair in [(0, 0), (1, 0), (0, 1)]}
    stimulus = {pair: np.asarray(state.stimulus) for pair, state in states.items()}
    np.testing.assert_array_equal(stimulus[0, 0], stimulus[1, 0])
    assert abs(np.corrcoef(stimulus[0, 0], stimulus[0, 1])[0, 1]) < 0.2
    v = [np.asarray(states[pair].neuron.v) for pair in states]
    assert not np.array_equal(v[0], v[1])


def test_the_stimulus_is_an_ornstein_uhlenbeck_process(record_check):
    """Its s.d. after 10 time constants is sigma*sqrt(tau/2), its correlation over one time constant 1/e."""
    config = compose("network.n_neurons=20000", "static.out_degree=0", "plastic.n_inputs=2", "trial.stim_on=100", "trial.stim_off=320")
    net, _, _ = build.build(config)
    dynamics, keys = Dynamics.from_config(config), keys_of()
    state = dataclasses.replace(initial_state(dynamics, net, keys), i=jnp.int32(1000))
    run = jax.jit(lambda state: advance(dynamics, net, None, state, keys, 2000, stimulated=True)[0])
    later = jax.jit(lambda state: advance(dynamics, net, None, state, keys, 200, stimulated=True)[0])
    first = run(state)
    a, b = np.asarray(first.stimulus), np.asarray(later(first).stimulus)
    sd, correlation = a.std(), np.corrcoef(a, b)[0, 1]
    expected = f"{0.2 * np.sqrt(10):.4f} +- 2 %, {np.exp(-1):.4f} +- 0.02"
    record_check("stimulus", "s.d. after 10 tau, correlation over one tau, 20,000 neurons", expected, f"{sd:.4f}, {correlation:.4f}")
    assert sd == pytest.approx(0.2 * np.sqrt(10), rel=0.02)
    assert correlation == pytest.approx(np.exp(-1), abs=0.02)


def test_before_learning_stops_one_step_short_of_the_stimulus_end():
    config = compose("config=tiny")
    net, _, _ = build.build(config)
    state = before_learning(Dynamics.from_config(config), net, None, keys_of())
    assert int(state.i) == 1999 and not np.any(np.asarray(state.u_sum))


def test_noise_as_a_current(x64, record_check):
    """The free membrane's s.d. is sigma/sqrt(2) either way, and RLS finds the noise of the last step in u_bal."""
    sds = {}
    for kind in ("voltage", "current"):
        config = compose("network.n_neurons=2000", "static.out_degree=0", "plastic.n_inputs=2", "noise.sigma=[0.5,1.0]",
                         f"noise.kind={kind}", "neuron.threshold=100", "engine.precision=float64")  # fmt: skip
        net, _, _ = build.build(config)
        net = dataclasses.replace(net, v0=jnp.zeros(2000))
        dynamics, keys = Dynamics.from_config(config), keys_of()
        state = initial_state(dynamics, net, keys)
        state, _ = advance(dynamics, net, None, state, keys, 1)
        u_bal = static_current(dynamics, net, state, keys)
        if kind == "current":
            np.testing.assert_allclose(state.neuron.v, 0.01 * u_bal, rtol=1e-12)  # dt/tau_m of it
            assert 4.5 < float(u_bal[:1000].std()) < 5.5  # sigma*sqrt(tau_m/dt)
        else:
            assert not np.any(np.asarray(u_bal))
        state = jax.jit(lambda net, state, keys, d=dynamics: advance(d, net, None, state, keys, 1000)[0])(net, state, keys)
        v = np.asarray(state.neuron.v)
        sds[kind] = v[:1000].std(), v[1000:].std()
    # Euler steps of an Ornstein-Uhlenbeck process: sigma/sqrt(2)/sqrt(1 - dt/(2 tau_m)); times 1 - dt/tau_m where it comes before the leak
    expected = np.array([0.5, 1.0]) / np.sqrt(2) / np.sqrt(1 - 0.005)
    what = "s.d. of free membranes with sigma 0.5 and 1"
    record_check(
        "noise as current", what, f"{expected[0]:.3f}, {expected[1]:.3f} to 7 %", f"{sds['current'][0]:.3f}, {sds['current'][1]:.3f}"
    )
    np.testing.assert_allclose(sds["current"], expected, rtol=0.07)
    np.testing.assert_allclose(sds["voltage"], 0.99 * expected, rtol=0.07)


def test_feedforward_neurons_fire_at_their_rates(x64, record_check):
    """Ornstein-Uhlenbeck rates: mean, s.d. sigma*sqrt(tau/2); nobody before stim_off; the same rates in every trial, other spikes."""
    config = compose("network.n_neurons=20", "static.out_degree=0", "plastic.n_inputs=2", "feedforward=ou", "feedforward.n_neurons=1500",
                     "feedforward.mean=40", "feedforward.tau=20", "feedforward.sigma=2", "trial.stim_on=10", "trial.stim_off=20",
                     "engine.precision=float64")  # fmt: skip
    net, weight, _ = build.build(config)
    assert net.n_inputs == 1502 and not np.any(weight[:, :1500])
    dynamics = Dynamics.from_config(config)

    @jax.jit
    def follow(net, keys):
        def one(state, _):
            state, _ = advance(dynamics, net, None, state, keys, 50)
            return state, (state.rates, state.n_delivered[20:])

        state, _ = advance(dynamics, net, None, initial_state(dynamics, net, keys), keys, 200)
        return jax.lax.scan(one, state, None, length=100)[1]

    rates, counts = (np.asarray(part) for part in follow(net, keys_of(TESTING)))
    again, others = (np.asarray(part) for part in follow(net, keys_of(TESTING, number=1)))
    np.testing.assert_array_equal(rates, again)
    assert np.any(counts != others) and counts[0].sum() < 1500 * 40 * 0.005 * 1.3
    mean, sd, fired = rates[20:].mean(), rates[20:].std(), counts[-1].sum() / 1500 / 0.5
    record_check("feed-forward rates", "mean and s.d. of rates (Hz), spikes of 1500 neurons in 500 ms", "40, 6.32, 40 to 3 %",
            f"{mean:.2f}, {sd:.2f}, {fired:.2f}")  # fmt: skip
    np.testing.assert_allclose([mean, sd, fired], [40, 2 * np.sqrt(10), 40], rtol=0.03)


def test_wrong_files_are_refused(tmp_path):
    np.save(tmp_path / "s.npy", np.zeros((1, 5, 59)))
    np.save(tmp_path / "r.npy", np.full((1, 100, 3), -1.0))
    for overrides, message in (
        (
            ["stimulus=given", f"stimulus.path={tmp_path}/s.npy"],
            r"s.npy: has shape \[1, 5, 59\]; expected \[C, bins, 60\]",
        ),
        (["stimulus=given", f"stimulus.path={tmp_path}/no.npy"], "stimulus.path=.*no.npy: cannot be read"),
        (["feedforward=given", f"feedforward.path={tmp_path}/r.npy"], "r.npy: expected rates in Hz, from 0 to 10000, a spike a step"),
    ):
        with pytest.raises(UserError, match=message):
            build.build(compose("config=tiny", "network.n_neurons=60", "static.out_degree=0", "plastic.n_inputs=10", *overrides))
