"""V8: recursive least squares equals ridge regression in every form; properties of P, groups and gains."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import COMPILER, UPDATES, compose, difference

from rlsnet.kernels.backend import Backend
from rlsnet.learning import blocks, covariance_forms, retargeting, rls, updates
from rlsnet.model import build, connectivity

L, S = 24, 3
DECAY = 0.9
DENSE = Backend("xla", "xla", "dense")


def ridge(lam, mu, w0, x, y):
    """float64 solution of  min |x w - y|^2 + (w - w0)^T A0 (w - w0)  and its P; w0 [L, S], x [updates, L], y [updates, S]."""
    sign = np.sign(w0[:, 0])
    a0 = lam * np.eye(len(w0)) + mu * (sign[:, None] == sign[None, :])
    P = np.linalg.inv(a0 + x.T @ x)
    return P @ (a0 @ w0 + x.T @ y), P


def problem(trials=100, points=100, seed=0):
    """Spikes [trials, points, L], what they add to x there, the wanted sums of L neurons and their initial weights [L/S, L, S].

    Few inputs spike between two learning points, all of them before the first.
    """
    random = np.random.default_rng(seed)
    spikes = (random.random((trials, points, L)) < 0.15) | (np.arange(points) == 0)[None, :, None]
    arrived = spikes * random.gamma(0.5, 0.06, spikes.shape)
    w0 = np.where(np.arange(L) < L // 2, 1.0, -1.0)[None, :, None] * random.uniform(0.5, 2, (L // S, L, S))
    x = filtered(arrived)
    return spikes, arrived, x @ random.normal(0, 2, (L, L)) + random.normal(0, 0.3, x.shape), w0


def filtered(arrived):
    """x_m = a*x_(m-1) + s_m in each trial."""
    x = np.zeros_like(arrived)
    for m in range(arrived.shape[1]):
        x[:, m] = DECAY * x[:, m - 1] * (m > 0) + arrived[:, m]
    return x


def everybody():
    """A network of L neurons in groups of S, each with all of them as inputs, in an order of its group's own."""
    net, _, _ = build.build(compose(f"network.n_neurons={L}", "static.out_degree=0", "plastic.n_inputs=2", f"plastic.group_size={S}"))
    half = L // 2
    orders = [np.random.default_rng(g) for g in range(L // S)]
    pre = np.stack([np.concatenate([o.permutation(half), half + o.permutation(half)]) for o in orders])
    return dataclasses.replace(net, pre=jnp.asarray(pre, jnp.int32)), pre


def run(form, spikes, arrived, y, w0, dtype, gain="textbook", extra=()):
    """All updates in scans over trials and points, as training does them: weights [G, L, S] and P [G, L, L]."""
    overrides = ("rls.penlambda=0.8", "rls.penmu=0.05", f"rls.gain={gain}", *extra)
    config = compose(*overrides, f"engine.precision={jnp.dtype(dtype)}").rls
    net, _ = everybody()

    def point(carry, inputs):
        learner, pending, n_spikes = carry
        spiked, x, wanted = inputs
        n_spikes = n_spikes + spiked
        return (*updates.learn(config, form, net, learner, pending, DECAY, x, n_spikes, -wanted), n_spikes), None

    def trial(learner, inputs):
        carry = learner, updates.begin(config, form, net, learner, y.shape[1]), jnp.zeros(L, jnp.int32)
        (learner, pending, _), _ = jax.lax.scan(point, carry, inputs)
        return updates.finish(config, form, learner, pending), None

    w = jnp.asarray(w0, dtype)
    learner = rls.init(config, net, w)
    inputs = jnp.asarray(spikes, jnp.int32), jnp.asarray(filtered(arrived), dtype), jnp.asarray(y, dtype)
    return jax.jit(lambda learner: jax.lax.scan(trial, learner, inputs)[0])(learner)


@pytest.mark.parametrize(
    ("form", "dtype", "tolerance"),
    [
        pytest.param(form, dtype, tolerance, marks=[pytest.mark.slow] * (form.update == "cuda"), id=f"{name}-{form.update}")
        for form in UPDATES
        for name, dtype, tolerance in (("float64", jnp.float64, 1e-11), ("float32", jnp.float32, 3e-5))
    ],
)
def test_v8_is_ridge_regression(x64, record_check, form, dtype, tolerance):
    """After 10,000 updates in 100 trials."""
    spikes, arrived, y, w0 = problem()
    learner = run(form, spikes, arrived, y, w0, dtype)
    assert learner.P.numbers.dtype == learner.w.dtype == dtype
    x, (_, pre) = filtered(arrived).reshape(-1, L), everybody()
    errors = []
    for g in range(L // S):
        truth = ridge(0.8, 0.05, w0[g], x[:, pre[g]], y.reshape(-1, L)[:, g * S : (g + 1) * S])
        errors.append([difference(a, b) / np.abs(b).max() for a, b in zip((learner.w[g], learner.P.numbers[g]), truth, strict=True)])
    w_error, P_error = np.max(errors, axis=0)
    what = f"w and P after 10,000 updates in 100 trials, {jnp.dtype(dtype).name}, groups of {S}"
    record_check(f"V8 ridge regression, {form.update}", what, f"relative error < {tolerance}", f"w {w_error:.1e}, P {P_error:.1e}")
    assert w_error < tolerance and P_error < tolerance


@pytest.mark.parametrize("form", UPDATES, ids=lambda form: form.update)
@pytest.mark.parametrize("points", [1, 17, *[pytest.param(n, marks=pytest.mark.slow) for n in (16, 37)]])
def test_P_is_whole_after_any_number_of_points(x64, form, points):
    """Also where the points of a trial are fewer than P can wait for, or no multiple of it."""
    spikes, arrived, y, w0 = problem(3, points)
    P = run(form, spikes, arrived, y, w0, jnp.float64).P.numbers
    x, (_, pre) = filtered(arrived).reshape(-1, L), everybody()
    np.testing.assert_allclose(P[1], ridge(0.8, 0.05, w0[1], x[:, pre[1]], y.reshape(-1, L)[:, :S])[1], rtol=0, atol=1e-14)


@pytest.mark.parametrize("form", UPDATES, ids=lambda form: form.update)
def test_P_stays_symmetric_to_the_last_bit_and_positive(record_check, form):
    P = np.asarray(run(form, *problem(30), jnp.float32).P.numbers)
    least = np.linalg.eigvalsh(P.astype(np.float64)).min()
    seen = f"asymmetry {difference(P, P.transpose(0, 2, 1)):.0f}, least eigenvalue {least:.2e}"
    record_check(f"P, {form.update}", "after 3000 updates, float32", "symmetric to the bit, positive definite", seen)
    np.testing.assert_array_equal(P, P.transpose(0, 2, 1))
    assert least > 0


@pytest.mark.parametrize("form", UPDATES, ids=lambda form: form.update)
def test_the_other_gain_drops_the_denominator(record_check, form):
    spikes, arrived, y, w0 = problem(1, 1)
    textbook, other = (run(form, spikes, arrived, y, w0, jnp.float32, gain) for gain in ("textbook", "tsn_head"))
    np.testing.assert_array_equal(textbook.P.numbers, other.P.numbers)
    sign, (_, pre) = np.arange(L) < L // 2, everybody()
    x, e = arrived[0, 0][pre[2]], w0[2].T @ arrived[0, 0][pre[2]] - y[0, 0, 2 * S : 3 * S]
    k = np.linalg.inv(0.8 * np.eye(L) + 0.05 * (sign[:, None] == sign[None, :])) @ x
    seen = np.abs(other.w[2] / (w0[2] - np.outer(k, e)) - 1).max()
    record_check(f"gain tsn_head, {form.update}", "w after one update, float32", "w - e*k to 1e-5 relative", f"largest error {seen:.1e}")
    np.testing.assert_allclose(other.w[2], w0[2] - np.outer(k, e), rtol=1e-5)
    np.testing.assert_allclose(textbook.w[2], w0[2] - np.outer(k, e) / (1 + x @ k), rtol=1e-5)


@pytest.mark.parametrize("inputs", [2, 22, 58, *[pytest.param(n, marks=pytest.mark.slow) for n in (6, 14, 16, 128)]])
def test_native_updates_are_those_of_xla_for_any_number_of_inputs(x64, record_check, inputs):
    """Vectors of 16 and 8 numbers, their rests, and groups that end within a range of a thread; neighbours stay untouched."""
    config = compose("network.n_neurons=150", "static.out_degree=0", f"plastic.n_inputs={inputs}", "plastic.group_size=4",
                     "engine.precision=float64")  # fmt: skip
    net, weight, _ = build.build(config)
    start = rls.init(config.rls, net, jnp.asarray(connectivity.to_groups(weight, 4)))
    results = []
    for form in UPDATES:
        learner, pending = start, updates.begin(config.rls, form, net, start, 20)
        learn = jax.jit(partial(updates.learn, config.rls, form, net))
        random = np.random.default_rng(0)
        r, n_spikes = np.zeros(150), np.zeros(150, np.int32)
        for point in range(20):
            spiked = random.random(150) < (0.2 if point else 1)
            r, n_spikes = DECAY * r + spiked * random.gamma(0.5, 0.05, 150), n_spikes + spiked.astype(np.int32)
            learner, pending = learn(learner, pending, DECAY, jnp.asarray(r), jnp.asarray(n_spikes), jnp.asarray(random.normal(size=150)))
        results.append(updates.finish(config.rls, form, learner, pending))
    for form, learner in zip(UPDATES[1:], results[1:], strict=True):
        seen = f"w differs by {difference(learner.w, results[0].w):.1e}, P by {difference(learner.P.numbers, results[0].P.numbers):.1e}"
        what = f"20 updates of 150 neurons with L = {inputs}, float64"
        record_check(f"updates agree, {UPDATES[0].update} and {form.update}", what, "w to 1e-12, P to 1e-13", seen)
        np.testing.assert_allclose(learner.P.numbers, results[0].P.numbers, rtol=0, atol=1e-13)
        np.testing.assert_allclose(learner.w, results[0].w, rtol=0, atol=1e-12)
    assert np.abs(np.asarray(results[0].w - start.w)).max() > 0.01


STORAGES = {
    ("full", "auto"): 1e-5,
    ("packed", "auto"): 1e-5,
    ("packed", "int16"): 0.01,
    ("full", "bfloat16"): 0.1,
    ("packed", "float16"): 0.01,
}
QUICK = [(17, 3, "packed", "int16"), (58, 1, "full", "auto")]
SHAPES = [(1, 1), (3, 64), (15, 3), (16, 64), (17, 3), (58, 1), (100, 3), (130, 64)]


@pytest.mark.skipif(not COMPILER, reason="no C++ compiler")
@pytest.mark.parametrize(
    ("inputs", "size", "storage", "precision"),
    [
        pytest.param(*case, marks=[pytest.mark.slow] * (case not in QUICK))
        for case in ((*shape, *kind) for shape in SHAPES for kind in STORAGES)
    ],
)
def test_native_updates_are_the_plain_ones(record_check, inputs, size, storage, precision):
    """`rls.update` in float32, with missing inputs, neurons that are not trained, and forgetting; what pads rows stays zero."""
    n, random = 150, np.random.default_rng(inputs)
    config = compose(f"network.n_neurons={n}", "static.out_degree=0", "plastic.n_inputs=2", f"plastic.group_size={size}",
                     "rls.forgetting=0.995", f"rls.storage={storage}", f"rls.precision={precision}")  # fmt: skip
    net, _, _ = build.build(config)
    pre = random.integers(-1 if inputs > 1 else 0, n, (len(net.pre), inputs))
    pre[0] = -1  # a group without inputs
    net = dataclasses.replace(net, pre=jnp.asarray(pre, jnp.int32))
    w = jnp.asarray(random.normal(size=(*pre.shape, size)) * (pre >= 0)[:, :, None], jnp.float32)
    plain = dataclasses.replace(config.rls, storage="full", precision="auto")
    results, start = [], [(plain, DENSE), (config.rls, Backend("native", "native", "native"))]
    for settings, form in start:
        learner = rls.init(settings, net, w, form.update)
        pending, learn = updates.begin(settings, form, net, learner, 20), jax.jit(partial(updates.learn, settings, form, net))
        random, r, n_spikes = np.random.default_rng(0), np.zeros(n), np.zeros(n, np.int32)
        for point in range(20):
            spiked = random.random(n) < (0.2 if point else 1)
            r, n_spikes = DECAY * r + spiked * random.gamma(0.5, 0.05, n), n_spikes + spiked.astype(np.int32)
            residual = np.where(random.random(n) < 0.2, np.nan, random.normal(size=n))
            point_values = jnp.asarray(r, jnp.float32), jnp.asarray(n_spikes), jnp.asarray(residual, jnp.float32)
            learner, pending = learn(learner, pending, DECAY, *point_values)
        results.append((updates.finish(settings, form, learner, pending), pending))
    (expected, _), (learner, pending) = results
    P, P_expected = np.asarray(learner.P.decode()), np.asarray(expected.P.decode())
    off = [difference(a, b) / np.abs(b).max() for a, b in ((learner.w, expected.w), (P, P_expected))]
    what = f"20 updates with forgetting, L = {inputs}, S = {size}, missing inputs and targets, float32"
    tolerance = STORAGES[storage, precision]
    record_check(f"native = plain, {storage} {precision}", what, f"{tolerance:g} of the largest", f"w {off[0]:.1e}, P {off[1]:.1e}")
    assert max(off) < tolerance and np.abs(np.asarray(expected.w - w)).max() > 0.01
    np.testing.assert_array_equal(P, P.transpose(0, 2, 1))
    assert pending.u.shape[-1] == pending.g.shape[-1] == covariance_forms.row_length("native", inputs, w.dtype)
    padding = [rows[..., inputs:] for rows in (pending.u, pending.g)]
    if (storage, precision) == ("full", "auto"):
        assert learner.P.numbers.shape[-1] == pending.u.shape[-1]
        padding.append(learner.P.numbers[..., inputs:])
    assert not any(np.any(np.asarray(rows)) for rows in padding)


@pytest.mark.parametrize("form", UPDATES, ids=lambda form: form.update)
def test_without_a_common_decay_updates_are_the_same(x64, form):
    """As where inputs have different time constants: native updates then take the whole product P x."""
    whole_config = compose("network.n_neurons=150", "static.out_degree=0", "plastic.n_inputs=22", "engine.precision=float64")
    config, (net, weight, _) = whole_config.rls, build.build(whole_config)
    start = rls.init(config, net, jnp.asarray(connectivity.to_groups(weight, 1)))
    results = []
    for each, decay in ((DENSE, DECAY), (form, None)):
        learner, pending = start, updates.begin(config, each, net, start, 40)
        learn = jax.jit(partial(updates.learn, config, each, net), static_argnums=2)
        random = np.random.default_rng(0)
        for _ in range(40):
            r, residual_input = jnp.asarray(random.gamma(0.5, 0.05, 150) * (random.random(150) < 0.7)), jnp.asarray(random.normal(size=150))
            learner, pending = learn(learner, pending, decay, r, jnp.zeros(150, jnp.int32), residual_input)
        results.append(updates.finish(config, each, learner, pending))
    np.testing.assert_allclose(results[1].P.numbers, results[0].P.numbers, rtol=0, atol=1e-13)
    np.testing.assert_allclose(results[1].w, results[0].w, rtol=0, atol=1e-12)
    assert np.abs(np.asarray(results[0].w - start.w)).max() > 0.01


def test_initial_P_is_the_inverse_where_signs_are_mixed_and_inputs_padded(x64):
    config = compose("rls.penlambda=0.3", "rls.penmu=0.2").rls
    w = np.array([[1.0, -2, 3, 0, 0, 1]])
    pre = np.array([[0, 1, 2, 3, 0, -1]], np.int32)
    excitatory = jnp.array([True, True, False, False])
    sign = np.array([1, -1, 1, -1, 1, 0])  # a zero weight takes its input's class, padding is in no block
    same = (sign[:, None] == sign[None, :]) & (sign != 0)
    net = dataclasses.replace(everybody()[0], pre=jnp.asarray(pre), excitatory=excitatory)
    P = rls.init(config, net, jnp.asarray(w)[:, :, None]).P.numbers[0]
    expected = np.linalg.inv(0.3 * np.eye(6) + 0.2 * same)
    expected[5, 5] = 0  # padded, and so left alone by forgetting
    np.testing.assert_allclose(P, expected, atol=1e-14)


def dense(config, net, learner, r, residual_input):
    """One dense update."""
    return updates.learn(config.rls, DENSE, net, learner, None, DECAY, r, jnp.zeros(r.shape, jnp.int32), residual_input)[0]


def test_groups_learn_as_their_neurons_would_alone(record_check):
    """S neurons that share inputs, in one group or each with its own P, learn the same weights."""
    shared = compose("network.n_neurons=60", "static.out_degree=0", "plastic.n_inputs=10", "plastic.group_size=7")
    net, weight, _ = build.build(shared)
    random = np.random.default_rng(0)
    weight = weight * random.uniform(0.5, 1.5, weight.shape).astype(np.float32)
    alone = dataclasses.replace(net, pre=jnp.asarray(np.repeat(np.asarray(net.pre), 7, axis=0)[:60]), group_size=1)
    learners = [rls.init(shared.rls, n, jnp.asarray(connectivity.to_groups(weight, n.group_size))) for n in (net, alone)]
    for _ in range(50):
        r, u, target = (jnp.asarray(random.gamma(0.5, 0.05, 60), jnp.float32) for _ in range(3))
        learners = [dense(shared, n, learner, r, u - target) for n, learner in zip((net, alone), learners, strict=True)]
    grouped, single = (connectivity.from_groups(np.asarray(x.w), 60) for x in learners)
    what, seen = "weights of 60 neurons after 50 updates, float32", f"largest difference {difference(grouped, single):.1e}"
    record_check("groups of 7 learn as their neurons alone", what, "equal to 2e-5", seen)
    np.testing.assert_allclose(grouped, single, rtol=2e-5, atol=2e-5)
    assert not np.any(np.asarray(learners[0].w)[-1, :, 60 % 7 :])  # what fills up the last group stays zero
    assert np.abs(single - weight).max() > 0.1


def test_blocks_of_groups_learn_as_all_at_once(monkeypatch):
    """100 groups in blocks of 7, the last of which overlaps the one before."""
    config = compose("network.n_neurons=100", "static.out_degree=0", "plastic.n_inputs=10")
    net, weight, _ = build.build(config)
    results = []
    for unblocked, block in ((covariance_forms.MAX_ELEMENTS_UNBLOCKED, blocks.ELEMENTS_PER_BLOCK), (0, 799)):
        monkeypatch.setattr(covariance_forms, "MAX_ELEMENTS_UNBLOCKED", unblocked)
        monkeypatch.setattr(blocks, "ELEMENTS_PER_BLOCK", block)
        learner = rls.init(config.rls, net, jnp.asarray(connectivity.to_groups(weight, 1)))
        random = np.random.default_rng(0)
        for _ in range(20):
            learner = dense(config, net, learner, *(jnp.asarray(random.gamma(0.5, 0.05, 100), jnp.float32) for _ in range(2)))
        results.append(learner)
    np.testing.assert_allclose(results[0].P.numbers, results[1].P.numbers, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(results[0].w, results[1].w, rtol=1e-5)
    assert np.abs(np.asarray(results[0].P.numbers)[0] - np.asarray(rls.init(config.rls, net, results[0].w).P.numbers)[0]).max() > 0.01


def test_neurons_do_not_interact_through_learning():
    config = compose("network.n_neurons=40", "static.out_degree=0", "plastic.n_inputs=10")
    net, weight, _ = build.build(config)
    r, u, target = (jnp.asarray(np.random.default_rng(i).random(40), jnp.float32) for i in range(3))
    learner = rls.init(config.rls, net, jnp.asarray(connectivity.to_groups(weight, 1)))
    results = [dense(config, net, learner, r, u - t) for t in (target, target.at[7].add(1.0))]
    differs = np.any(np.asarray(results[0].w != results[1].w), axis=(1, 2))
    np.testing.assert_array_equal(np.flatnonzero(differs), [7])
    np.testing.assert_array_equal(results[0].P.numbers, results[1].P.numbers)


@pytest.mark.parametrize(
    ("form", "precision"),
    [*(pytest.param(form, "auto", id=form.update) for form in UPDATES if form.update in ("deferred", "native")), (DENSE, "float32")],
)
def test_v8_new_targets_give_the_weights_of_training_with_them_from_the_start(x64, form, precision):
    """Also for targets that differ between two conditions, with a neuron that is not trained, and with P in fewer bits."""
    spikes, arrived, _, w0 = problem(20, 50)
    random, condition, x = np.random.default_rng(7), np.arange(20) % 2, filtered(arrived)
    before, after = random.normal(0, 1, (2, 2, 50, L))
    before[:, :, 5] = after[:, :, 5] = np.nan
    extra = (f"rls.precision={precision}",)
    trained, expected = (run(form, spikes, arrived, y[condition], w0, jnp.float64, extra=extra) for y in (before, after))
    sums = jnp.zeros((L, 2, 50))
    for each, c in zip(x, condition, strict=True):
        sums = retargeting.add_traces(sums, jnp.int32(c), jnp.asarray(each))
    start = np.asarray(trained.w)
    found = retargeting.retargeted(everybody()[0], trained, sums, jnp.asarray(after - before))
    scale, tolerance = np.abs(expected.w).max(), 1e-11 if precision == "auto" else 1e-4
    assert difference(start, expected.w) > 0.1 * scale
    assert difference(found.w, expected.w) < tolerance * scale
    np.testing.assert_array_equal(found.w[1, :, 2], w0[1, :, 2])
    np.testing.assert_array_equal(found.P.numbers, expected.P.numbers)


@pytest.mark.parametrize("setting", ["rls.forgetting=0.99", "rls.gain=tsn_head", "rls.dale=true", "rls.storage=window", "rls.apply=false"])
def test_why_weights_for_new_targets_cannot_be_computed(setting):
    assert setting in retargeting.impossible(compose(setting).rls)
    assert retargeting.impossible(compose().rls) == ""
