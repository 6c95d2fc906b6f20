"""Counter-based random numbers: permutations, distributions, independence of streams and counters; the same bits in C++."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import NATIVE
from scipy import stats
from scipy.special import ndtri

from rlsnet.kernels import calls
from rlsnet.model import rng


@pytest.mark.parametrize("n", [1, 2, 3, 17, 64, 1000, 4095, 70001])
def test_permute_is_a_permutation(n):
    for seed in range(3):
        image = rng.permute(rng.key(seed, rng.Purpose.STATIC), jnp.arange(n, dtype=jnp.uint32), n)
        np.testing.assert_array_equal(np.sort(np.asarray(image)), np.arange(n))


def test_permutations_are_uniform():
    """Images of the first three points over many keys: uniform, and pairs of them independent."""
    streams = rng.fold(rng.key(1, rng.Purpose.PLASTIC), jnp.arange(40000))
    image = np.asarray(rng.permute(streams[:, None, :], jnp.arange(3, dtype=jnp.uint32)[None, :], 30))
    for column in image.T:
        assert stats.chisquare(np.bincount(column, minlength=30)).pvalue > 1e-4
    pairs = np.bincount(image[:, 0] * 30 + image[:, 1], minlength=900).reshape(30, 30)
    assert np.all(np.diag(pairs) == 0)
    assert stats.chisquare(pairs[~np.eye(30, dtype=bool)]).pvalue > 1e-4


def test_normal_is_normal():
    x = np.asarray(rng.normal(rng.key(7, rng.Purpose.NOISE), 200_000, jnp.float32), np.float64)
    assert stats.kstest(x, "norm").pvalue > 1e-4
    assert 4 < np.abs(x).max() < 6


@pytest.mark.parametrize("n", [1, 15, 1000, 200_000])
@pytest.mark.parametrize("kind", NATIVE)
def test_native_normals_are_the_quantiles_of_the_same_bits(n, kind):
    key = rng.key(7, rng.Purpose.NOISE)
    u = np.asarray(rng.uniform(key, n, jnp.float32), np.float64)
    x = np.asarray(jax.jit(calls.normal, static_argnums=(1, 2))(key, n, jnp.float32))
    np.testing.assert_allclose(x, ndtri(u), rtol=1e-6, atol=2e-6)
    np.testing.assert_allclose(x, rng.normal(key, n, jnp.float32), atol=1e-4)
    np.testing.assert_array_equal(calls.normal(key, n // 2, jnp.float32, jnp.int32(n - n // 2)), x[n - n // 2 :])


def test_normal_in_float64_is_finer(x64):
    x = np.asarray(rng.normal(rng.key(7, rng.Purpose.NOISE), 1000, jnp.float64))
    y = np.asarray(rng.normal(rng.key(7, rng.Purpose.NOISE), 1000, jnp.float32))
    np.testing.assert_allclose(x, y, atol=2e-4)  # float32 has 2^23 cells
    assert x.dtype == np.float64


def test_streams_are_uncorrelated():
    base = rng.key(5, rng.Purpose.NOISE)
    rows = np.stack(
        [np.asarray(rng.normal(rng.fold(rng.fold(base, trial), step), 20000, jnp.float32)) for trial in range(3) for step in range(4)]
    )
    correlation = np.corrcoef(rows) - np.eye(len(rows))
    assert np.abs(correlation).max() < 5 / np.sqrt(20000)
    assert len(np.unique(rows)) > 0.98 * rows.size


def test_a_value_depends_on_its_counter_alone():
    key = rng.key(11, rng.Purpose.VOLTAGE)
    long, short = rng.normal(key, 1000, jnp.float32), rng.normal(key, 10, jnp.float32)
    np.testing.assert_array_equal(np.asarray(long)[:10], np.asarray(short))
    inside = jax.jit(lambda k, step: rng.normal(rng.fold(k, step), 10, jnp.float32))(key, jnp.int32(4))
    np.testing.assert_array_equal(np.asarray(inside), np.asarray(rng.normal(rng.fold(key, 4), 10, jnp.float32)))


def test_seeds_above_32_bits_differ():
    keys = {tuple(np.asarray(rng.key(seed, rng.Purpose.STATIC)).tolist()) for seed in (0, 1, 2**32, 2**32 + 1, 2**62)}
    assert len(keys) == 5
