"""V8: recursive least squares is ridge regression; and what must hold of P, groups and gains."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from conftest import compose

from rlsnet import network, rls, wiring

L, S = 24, 3


def ridge(lam, mu, w0, x, y):
    """float64 solution of  min |x w - y|^2 + (w - w0)^T A0 (w - w0)  and its P."""
    sign = np.sign(w0[:, 0])
    a0 = lam * np.eye(len(w0)) + mu * (sign[:, None] == sign[None, :])
    P = np.linalg.inv(a0 + x.T @ x)
    return P @ (a0 @ w0 + x.T @ y), P


def problem(updates, seed=0):
    """Filtered-spike-like regressors [updates, L], wanted sums [updates, S] and initial weights [L, S]."""
    random = np.random.default_rng(seed)
    x = random.gamma(0.5, 0.06, (updates, L))
    w0 = np.where(np.arange(L) < L // 2, 1.0, -1.0)[:, None] * random.uniform(0.5, 2, (L, S))
    return x, x @ random.normal(0, 2, (L, S)) + random.normal(0, 0.3, (updates, S)), w0


def run(x, y, w0, dtype, gain="textbook"):
    """All updates in a scan, as training does them."""
    config = compose("rls.penlambda=0.8", "rls.penmu=0.05", f"rls.gain={gain}").rls
    w = jnp.asarray(w0[None], dtype)
    excitatory = jnp.arange(L) < L // 2
    P = rls.initial_P(config, w, jnp.arange(L, dtype=jnp.int32)[None], excitatory)

    def one(carry, xy):
        P, w = carry
        error = jnp.matmul(w.T, xy[0]) - xy[1]
        return rls.update(gain, P, w, xy[0], error), None

    return jax.jit(partial(jax.lax.scan, one))((P[0], w[0]), (jnp.asarray(x, dtype), jnp.asarray(y, dtype)))[0]


def test_v8_float64(x64):
    x, y, w0 = problem(10_000)
    P, w = run(x, y, w0, jnp.float64)
    w_true, P_true = ridge(0.8, 0.05, w0, x, y)
    np.testing.assert_allclose(w, w_true, rtol=0, atol=1e-11 * np.abs(w_true).max())
    np.testing.assert_allclose(P, P_true, rtol=0, atol=1e-11 * np.abs(P_true).max())


def test_v8_float32():
    x, y, w0 = problem(10_000)
    P, w = run(x, y, w0, jnp.float32)
    w_true, P_true = ridge(0.8, 0.05, w0, x, y)
    np.testing.assert_allclose(w, w_true, rtol=0, atol=3e-5 * np.abs(w_true).max())
    np.testing.assert_allclose(P, P_true, rtol=0, atol=3e-5 * np.abs(P_true).max())


def test_P_stays_symmetric_to_the_last_bit_and_positive():
    x, y, w0 = problem(3000)
    P = np.asarray(run(x, y, w0, jnp.float32)[0])
    np.testing.assert_array_equal(P, P.T)
    assert np.linalg.eigvalsh(P.astype(np.float64)).min() > 0


def test_the_other_gain_drops_the_denominator():
    x, y, w0 = problem(1)
    (P, w), (P2, w2) = (run(x, y, w0, jnp.float32, gain) for gain in ("textbook", "tsn_head"))
    np.testing.assert_array_equal(P, P2)
    sign = np.arange(L) < L // 2
    k = np.linalg.inv(0.8 * np.eye(L) + 0.05 * (sign[:, None] == sign[None, :])) @ x[0]
    e = w0.T @ x[0] - y[0]
    np.testing.assert_allclose(w2, w0 - np.outer(k, e), rtol=1e-5)
    np.testing.assert_allclose(w, w0 - np.outer(k, e) / (1 + x[0] @ k), rtol=1e-5)


def test_initial_P_is_the_inverse_where_signs_are_mixed_and_inputs_padded(x64):
    config = compose("rls.penlambda=0.3", "rls.penmu=0.2").rls
    w = np.array([[1.0, -2, 3, 0, 0, 1]])
    pre = np.array([[0, 1, 2, 3, 0, -1]], np.int32)
    excitatory = jnp.array([True, True, False, False])
    sign = np.array([1, -1, 1, -1, 1, 0])  # a zero weight takes its input's class, padding is in no block
    same = (sign[:, None] == sign[None, :]) & (sign != 0)
    P = rls.initial_P(config, jnp.asarray(w)[:, :, None], jnp.asarray(pre), excitatory)[0]
    np.testing.assert_allclose(P, np.linalg.inv(0.3 * np.eye(6) + 0.2 * same), atol=1e-14)


def test_groups_learn_as_their_neurons_would_alone():
    """S neurons that share inputs, in one group or each with its own P, learn the same weights."""
    shared = compose("network.n_neurons=60", "static.out_degree=0", "plastic.n_inputs=10", "plastic.group_size=7")
    net, weight, _ = network.build(shared)
    random = np.random.default_rng(0)
    weight = weight * random.uniform(0.5, 1.5, weight.shape).astype(np.float32)
    import dataclasses

    alone = dataclasses.replace(net, pre=jnp.asarray(np.repeat(np.asarray(net.pre), 7, axis=0)[:60]), group_size=1)
    learners = [rls.init(shared.rls, n, jnp.asarray(wiring.to_groups(weight, n.group_size))) for n in (net, alone)]
    learn = jax.jit(rls.learn, static_argnums=0)
    for _ in range(50):
        r, u, target = (jnp.asarray(random.gamma(0.5, 0.05, 60), jnp.float32) for _ in range(3))
        learners = [learn(shared.rls, n, learner, r, u, target) for n, learner in zip((net, alone), learners, strict=True)]
    grouped, single = (wiring.from_groups(np.asarray(x.w), 60) for x in learners)
    np.testing.assert_allclose(grouped, single, rtol=2e-5, atol=2e-5)
    assert not np.any(np.asarray(learners[0].w)[-1, :, 60 % 7 :])  # what fills up the last group stays zero
    assert np.abs(single - weight).max() > 0.1


def test_blocks_of_groups_learn_as_all_at_once(monkeypatch):
    """100 groups in blocks of 7, the last of which overlaps the one before."""
    config = compose("network.n_neurons=100", "static.out_degree=0", "plastic.n_inputs=10")
    net, weight, _ = network.build(config)
    results = []
    for whole, block in ((rls.WHOLE, rls.BLOCK), (0, 799)):
        monkeypatch.setattr(rls, "WHOLE", whole)
        monkeypatch.setattr(rls, "BLOCK", block)
        learner = rls.init(config.rls, net, jnp.asarray(wiring.to_groups(weight, 1)))
        learn = jax.jit(lambda *arguments: rls.learn(config.rls, net, *arguments))
        random = np.random.default_rng(0)
        for _ in range(20):
            learner = learn(learner, *(jnp.asarray(random.gamma(0.5, 0.05, 100), jnp.float32) for _ in range(3)))
        results.append(learner)
    np.testing.assert_allclose(results[0].P, results[1].P, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(results[0].w, results[1].w, rtol=1e-5)
    assert np.abs(np.asarray(results[0].P)[0] - np.asarray(rls.init(config.rls, net, results[0].w).P)[0]).max() > 0.01


def test_neurons_do_not_interact_through_learning():
    config = compose("network.n_neurons=40", "static.out_degree=0", "plastic.n_inputs=10")
    net, weight, _ = network.build(config)
    r, u, target = (jnp.asarray(np.random.default_rng(i).random(40), jnp.float32) for i in range(3))
    learn = jax.jit(rls.learn, static_argnums=0)
    results = [learn(config.rls, net, rls.init(config.rls, net, jnp.asarray(wiring.to_groups(weight, 1))), r, u, t)
               for t in (target, target.at[7].add(1.0))]  # fmt: skip
    differs = np.any(np.asarray(results[0].w != results[1].w), axis=(1, 2))
    np.testing.assert_array_equal(np.flatnonzero(differs), [7])
    np.testing.assert_array_equal(results[0].P, results[1].P)
