"""Stored forms of P: error against ridge regression, equality without rounding, and equality after a resume."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import COMPILER, UPDATES, compose, difference, metrics
from test_rls import DECAY, DENSE, L, S, everybody, filtered, problem, ridge, run

from rlsnet.errors import UserError
from rlsnet.kernels import calls
from rlsnet.kernels.backend import COVARIANCES, Backend
from rlsnet.learning import rls, updates
from rlsnet.learning.covariance_forms import EncodedCovariance, FullCovariance, number_type, row_length
from rlsnet.model import build, connectivity
from rlsnet.runs import checkpoint
from rlsnet.runs.folder import Run
from rlsnet.workflows import prepare, training

DEFERRED = Backend("xla", "xla", "deferred")
ENCODED = [form for form in UPDATES if "encoded" in COVARIANCES[form.update]]
WINDOW = [form for form in UPDATES if "window" in COVARIANCES[form.update]]
FEW_BITS = {"float32": 3e-5, "float16": 0.02, "int16": 0.02, "bfloat16": 0.1}  # of the largest weight


def decoded(learner):
    """P [G, L, L] of a learner, in float64."""
    return np.asarray(learner.P.decode(), np.float64)


@pytest.mark.parametrize("form", ENCODED, ids=lambda form: form.update)
@pytest.mark.parametrize("storage", ["full", "packed"])
@pytest.mark.parametrize("precision", FEW_BITS)
def test_each_storage_against_ridge_regression(x64, record_check, storage, precision, form):
    """After 1000 updates in 10 trials, sums in float32; and P is symmetric to the bit."""
    spikes, arrived, y, w0 = problem(10)
    extra = (f"rls.storage={storage}", f"rls.precision={precision}")
    learner = run(form, spikes, arrived, y, w0, jnp.float32, extra=extra)
    P = decoded(learner)
    x, (_, pre) = filtered(arrived).reshape(-1, L), everybody()
    off = []
    for g in range(L // S):
        w_true, P_true = ridge(0.8, 0.05, w0[g], x[:, pre[g]], y.reshape(-1, L)[:, g * S : (g + 1) * S])
        off.append((difference(learner.w[g], w_true) / np.abs(w_true).max(), difference(P[g], P_true) / np.abs(P_true).max()))
    w_off, P_off = np.max(off, axis=0)
    what = f"ridge regression in float64 after 1000 updates, L = {L}, {form.update}, sums in float32"
    expected = f"w within {FEW_BITS[precision]:g} of the largest"
    record_check(f"P {storage}, {precision}", what, expected, f"w off by {w_off:.1e}, P by {P_off:.1e}")
    assert w_off < FEW_BITS[precision]
    np.testing.assert_array_equal(P, P.transpose(0, 2, 1))


@pytest.mark.parametrize("form", [DENSE, DEFERRED], ids=lambda form: form.update)
def test_packed_is_full(x64, record_check, form):
    spikes, arrived, y, w0 = problem(5)
    full = run(form, spikes, arrived, y, w0, jnp.float64)
    packed = run(form, spikes, arrived, y, w0, jnp.float64, extra=("rls.storage=packed",))
    P = decoded(packed)
    seen = f"w differs by {difference(packed.w, full.w):.1e}, P by {difference(P, full.P.numbers):.1e}"
    record_check(f"packed P = full P, {form.update}", "500 updates in float64", "1e-13", seen)
    assert packed.P.numbers.shape == (L // S, L * (L + 1) // 2)
    np.testing.assert_allclose(packed.w, full.w, rtol=0, atol=1e-13)
    np.testing.assert_allclose(P, full.P.numbers, rtol=0, atol=1e-13)


@pytest.mark.parametrize("form", WINDOW, ids=lambda form: form.update)
@pytest.mark.parametrize("window", [7, 40])
def test_window_is_the_gain_of_the_last_updates(x64, record_check, window, form):
    """P = inv(A_0 + sum of the last x x^T), formed anew in NumPy for every update of one group."""
    spikes, arrived, y, w0 = problem(2, 60)
    extra = ("rls.storage=window", f"rls.window={window}")
    learner = run(form, spikes, arrived, y, w0, jnp.float64, extra=extra)
    x = filtered(arrived).reshape(-1, L)[:, everybody()[1][2]]
    wanted, w = y.reshape(-1, L)[:, 2 * S : 3 * S], w0[2].copy()
    sign = np.sign(w0[2][:, 0])
    A = 0.8 * np.eye(L) + 0.05 * (sign[:, None] == sign[None, :])
    for m in range(len(x)):
        past = x[max(0, m - window) : m]
        k = np.linalg.solve(A + past.T @ past, x[m])
        w -= np.outer(k / (1 + x[m] @ k), x[m] @ w - wanted[m])
    record_check(
        f"window of {window} updates, {form.update}",
        "P formed anew in NumPy, 120 updates, float64",
        "1e-11",
        f"w differs by {difference(learner.w[2], w):.1e}",
    )
    np.testing.assert_allclose(learner.w[2], w, rtol=0, atol=1e-11)
    assert learner.P.r.shape == (window, L)


def test_int16_rounds_by_half_a_step(x64):
    P = jnp.asarray(np.random.default_rng(0).normal(size=(5, 9, 9)) * np.geomspace(1e-4, 1e3, 5)[:, None, None], jnp.float32)
    encoded = EncodedCovariance.encode(P, jnp.dtype("int16"), packed=False)
    assert encoded.numbers.dtype == jnp.int16 and int(jnp.abs(encoded.numbers).max()) == 32767
    step = np.abs(np.asarray(P)).max(axis=(1, 2)) / 32767
    assert np.all(np.abs(np.asarray(encoded.decode() - P)).max(axis=(1, 2)) < 0.501 * step)


@pytest.mark.parametrize("form", UPDATES, ids=lambda form: form.update)
def test_forgetting_is_weighted_ridge_regression(x64, record_check, form):
    """P = inv(f^T A_0 + sum of f^(T-t) x x^T), w the least squares of what is still remembered; with strong forgetting, in float32."""
    f, (spikes, arrived, y, w0) = 0.9, problem(10)
    learner = run(form, spikes, arrived, y, w0, jnp.float32, extra=(f"rls.forgetting={f}",))
    x, (_, pre) = filtered(arrived).reshape(-1, L), everybody()
    age = f ** np.arange(len(x))[::-1]
    off = []
    for g in range(L // S):
        sign = np.sign(w0[g][:, 0])
        A0 = f ** len(x) * (0.8 * np.eye(L) + 0.05 * (sign[:, None] == sign[None, :]))
        own, wanted = x[:, pre[g]], y.reshape(-1, L)[:, g * S : (g + 1) * S]
        w = np.linalg.solve(A0 + own.T @ (age[:, None] * own), A0 @ w0[g] + own.T @ (age[:, None] * wanted))
        off.append(difference(learner.w[g], w) / np.abs(w).max())
    what = "weighted ridge regression, 1000 updates in float32"
    record_check(f"forgetting {f}, {form.update}", what, "w within 0.002 of the largest", f"w off by {max(off):.1e}")
    assert max(off) < 2e-3


def test_padded_inputs_do_not_grow_with_forgetting():
    config = compose("network.n_neurons=40", "static.out_degree=0", "plastic.n_inputs=8", "plastic.least_inputs=2", "rls.forgetting=0.5")
    net, weight, _ = build.build(config)
    learner = rls.init(config.rls, net, jnp.asarray(connectivity.to_groups(weight, 1)))
    padded = np.asarray(net.pre) < 0
    random = np.random.default_rng(0)
    for _ in range(200):
        r, residual_input = (jnp.asarray(random.gamma(0.5, 0.05, 40), jnp.float32) for _ in range(2))
        learner, _ = updates.learn(config.rls, DENSE, net, learner, None, DECAY, r, jnp.zeros(40, jnp.int32), residual_input)
    P = np.asarray(learner.P.numbers)
    assert padded.any() and not np.any(P[padded]) and np.all(np.isfinite(P)) and not np.any(np.asarray(learner.w)[padded])


@pytest.mark.skipif(not COMPILER, reason="no C++ compiler")
@pytest.mark.parametrize("storage", ["full", "packed"])
@pytest.mark.parametrize("precision", FEW_BITS)
@pytest.mark.parametrize("inputs", [3, 16, 41])
def test_native_kernels_keep_the_same_bits(storage, precision, inputs):
    """Numbers of all sizes, times 0.3 and rounded again by either; subnormal and too large ones of float16 among them."""
    config = compose(f"rls.storage={storage}", f"rls.precision={precision}").rls
    random = np.random.default_rng(0)
    P = random.normal(size=(20, inputs, inputs)) * 10.0 ** random.uniform(-9, 1, (20, inputs, inputs))
    P = jnp.asarray(P + P.transpose(0, 2, 1), jnp.float32)
    encoded = EncodedCovariance.encode(P, number_type(config, P.dtype), storage == "packed")
    before = FullCovariance(P) if (storage, precision) == ("full", "float32") else encoded
    row = row_length("native", inputs, P.dtype)
    u, factor = jnp.zeros((20, 4, row), jnp.float32), jnp.full(20, 0.3, jnp.float32)
    changed = before.after_kernel(*calls.apply_pending("native", jnp.int32(0), u, factor, *before.in_place(row)))
    after = before.encoded(factor[:, None, None] * before.decode())
    numbers, scale = changed.numbers, changed.extra().get("P_scale", (None,))[0]
    assert numbers.dtype == after.numbers.dtype and numbers.shape == after.numbers.shape
    if precision == "int16":  # its scale may differ in its last digit
        np.testing.assert_allclose(scale, after.scale, rtol=2e-7)
        assert np.abs(np.asarray(numbers, int) - np.asarray(after.numbers, int)).max() <= 1
        return
    bits = f"u{numbers.dtype.itemsize}"
    np.testing.assert_array_equal(np.asarray(numbers).view(bits), np.asarray(after.numbers).view(bits))


STORAGES = [
    ("rls.storage=packed",),
    ("rls.precision=bfloat16",),
    ("rls.precision=float16", "rls.method=dense"),
    ("rls.precision=int16", "rls.storage=packed"),
    ("rls.storage=window", "rls.window=9"),
    ("rls.forgetting=0.999", "rls.dale=true", "feedforward=ou", "train.order=shuffled", "target.n_conditions=2"),
    ("synapse.tau_plas=[100,150]", "noise.sigma=[0.1,0.2]", "noise.kind=current"),
    pytest.param(("synapse.tau_plas=[100,150]", "rls.precision=bfloat16", "engine.kernels=fixed_shape"), marks=pytest.mark.slow),
    ("neuron=glif5", "stimulus=none"),
]


def learner_of(config, path, iteration):
    """Weights and P of a checkpoint."""
    return checkpoint.load_learner(Run(path), iteration, prepare.reopen(config, Run(path)).network, config)


@pytest.mark.parametrize("extra", STORAGES)
def test_resume_equals_an_unbroken_run_to_the_bit(tmp_path, extra):
    config = compose("config=tiny", "network.n_neurons=200", "static.out_degree=40", "plastic.n_inputs=16", "train.checkpoint_every=100",
                     "progress=off", *extra)  # fmt: skip

    def with_iterations(n):
        return dataclasses.replace(config, train=dataclasses.replace(config.train, iterations=n))

    training.run_training(with_iterations(4), Run(tmp_path / "whole"), resumed=False)
    training.run_training(with_iterations(2), Run(tmp_path / "parts"), resumed=False)
    training.run_training(with_iterations(4), Run(tmp_path / "parts"), resumed=True)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "parts")
    whole, parts = (learner_of(config, tmp_path / name, 4) for name in ("whole", "parts"))
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_array_equal(one, other)
    start = prepare.reopen(config, Run(tmp_path / "whole"))
    assert difference(whole.w, connectivity.to_groups(start.weight, 1)) > 0.01


@pytest.mark.parametrize(
    "extra",
    [
        (),
        ("rls.method=dense",),
        pytest.param(("engine.kernels=fixed_shape",), marks=pytest.mark.slow),
        ("rls.precision=bfloat16",),
        ("rls.storage=window",),
    ],
)
def test_apply_false_changes_nothing(tmp_path, extra):
    config = compose("config=tiny", "network.n_neurons=200", "static.out_degree=40", "plastic.n_inputs=16", "train.iterations=2",
                     "train.save_best=false", "progress=off", "rls.apply=false", *extra)  # fmt: skip
    training.run_training(config, Run(tmp_path), resumed=False)
    prepared, learner = prepare.reopen(config, Run(tmp_path)), learner_of(config, tmp_path, 2)
    fresh = rls.init(config.rls, prepared.network, jnp.asarray(connectivity.to_groups(prepared.weight, 1)))
    for one, other in zip(jax.tree.leaves(learner), jax.tree.leaves(fresh), strict=True):
        np.testing.assert_array_equal(one, other)
    lines = metrics(tmp_path)
    assert lines[0]["rate_hz"] != lines[1]["rate_hz"] and np.isfinite(lines[1]["correlation"])  # the trials themselves were run


@pytest.mark.parametrize(
    "extra", [("rls.storage=packed",), ("rls.precision=bfloat16",), ("rls.storage=window", "rls.window=20"), ("rls.forgetting=0.98",)]
)
def test_groups_learn_as_their_neurons_would_alone(x64, record_check, extra):
    """Where the inputs coincide, with every form of P."""
    config = compose(
        "network.n_neurons=60", "static.out_degree=0", "plastic.n_inputs=10", "plastic.group_size=7", "engine.precision=float64", *extra
    )
    net, weight, _ = build.build(config)
    weight = np.repeat(weight[::7], 7, axis=0)[:60] * 1.0  # the signs of a group's sums are those of its members
    alone = dataclasses.replace(net, pre=jnp.asarray(np.repeat(np.asarray(net.pre), 7, axis=0)[:60]), group_size=1)
    learners = []
    for own in (net, alone):
        random = np.random.default_rng(0)
        learner = rls.init(config.rls, own, jnp.asarray(connectivity.to_groups(weight, own.group_size)))
        form = DEFERRED if "rls.storage=window" not in extra else DENSE
        pending = updates.begin(config.rls, form, own, learner, 40)
        learn = jax.jit(updates.learn, static_argnums=(0, 1))
        for _ in range(40):
            r, residual_input = (jnp.asarray(random.gamma(0.5, 0.05, 60)) for _ in range(2))
            learner, pending = learn(config.rls, form, own, learner, pending, DECAY, r, jnp.zeros(60, jnp.int32), residual_input)
        learners.append(updates.finish(config.rls, form, learner, pending))
    grouped, single = (connectivity.from_groups(np.asarray(each.w), 60) for each in learners)
    record_check(
        "groups of 7 = single neurons",
        f"{' '.join(extra)}, 40 updates, float64",
        "1e-11",
        f"w differs by {difference(grouped, single):.1e}",
    )
    np.testing.assert_allclose(grouped, single, rtol=0, atol=1e-11)
    assert np.abs(single - weight).max() > 0.1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rls.storage=window", "rls.precision=int16"], "rls.precision=int16: expected auto with rls.storage=window"),
        (["rls.storage=window", "rls.forgetting=0.9"], "rls.forgetting=0.9: expected 1 with rls.storage=window"),
        (["rls.precision=float64"], "rls.precision=float64: expected another unless engine.precision=float64"),
        (["rls.storage=sparse"], "rls.storage=sparse: expected full, packed or window"),
        (["rls.forgetting=0"], "rls.forgetting=0.0: expected a value above 0"),
        (["rls.forgetting=1.1"], "rls.forgetting=1.1: expected at most 1"),
    ],
)
def test_wrong_forms_are_named(overrides, message):
    with pytest.raises(UserError) as caught:
        compose(*overrides)
    assert message in str(caught.value)
