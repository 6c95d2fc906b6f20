"""Wiring: drawn as specified, saved and loaded unchanged, wrong stores refused with their reason."""

import jax.numpy as jnp
import numpy as np
import pytest
import zarr
from conftest import compose, small_network, write_network

from rlsnet import network, rng, wiring
from rlsnet.config import UserError


@pytest.fixture(scope="module")
def default():
    config = compose()
    return config, *network.build(config)


def test_static_outputs_are_distinct_and_never_the_neuron_itself(default):
    _, net, _, _ = default
    post = np.asarray(net.post[: net.n_edges]).reshape(4096, 410)
    assert all(len(np.unique(row)) == 410 for row in post)
    assert not np.any(post == np.arange(4096)[:, None])
    assert post.min() == 0 and post.max() == 4095


def test_static_in_degrees_are_binomial(default):
    _, net, _, _ = default
    degree = np.bincount(np.asarray(net.post[: net.n_edges]), minlength=4096)
    assert degree.mean() == 410
    assert degree.var() == pytest.approx(410 * (1 - 410 / 4095), rel=0.1)


def test_static_wiring_does_not_depend_on_blocks():
    """A block of many neurons and one neuron at a time draw the same targets."""
    key = rng.key(3, rng.Purpose.STATIC)
    whole = np.asarray(wiring.draw_static(key, 3000, 900)).reshape(3000, 900)  # more than one block
    for j in (0, 1234, 2999):
        own = 1 + np.asarray(rng.permute(rng.fold(key, j), jnp.arange(900, dtype=jnp.uint32), 2999))
        np.testing.assert_array_equal(whole[j], (j + own) % 3000)


def test_balanced_weights_and_bias(default):
    config, net, _, _ = default
    j = 20 / np.sqrt(205)
    np.testing.assert_allclose(net.class_weight, [[0.15 * j, j], [-0.75 * j, -j]], rtol=1e-6)
    np.testing.assert_allclose(net.bias[jnp.array([0, 4095])], [0.12 * np.sqrt(205), 0.08 * np.sqrt(205)], rtol=1e-6)


@pytest.mark.parametrize("size", [1, 16, 100])
def test_plastic_inputs(size):
    config = compose("network.n_neurons=1000", "plastic.n_inputs=40", f"plastic.group_size={size}")
    net, weight, _ = network.build(config)
    pre = np.asarray(net.pre)
    assert pre.shape == (-(-1000 // size), 40)
    assert np.all(pre[:, :20] < 500) and np.all(pre[:, 20:] >= 500)
    assert np.all(np.diff(pre[:, :20], axis=1) > 0) and np.all(np.diff(pre[:, 20:], axis=1) > 0)
    np.testing.assert_allclose(weight, np.where(np.arange(40) < 20, 1, -1) * np.ones((1000, 1)) * 20 / (2 * np.sqrt(20)), rtol=1e-6)


def test_outputs_are_the_inverse_of_inputs():
    pre = np.array([[0, 2, -1], [2, 2, 1], [3, 0, 2]])
    indptr, slot = wiring.outputs_of(pre, 5)
    assert [slot[a:b].tolist() for a, b in zip(indptr, indptr[1:], strict=False)] == [[0, 7], [5], [1, 3, 4, 8], [6], []]


@pytest.mark.parametrize(("n", "size"), [(12, 1), (12, 4), (10, 4)])
def test_groups_round_trip(n, size):
    w = np.random.default_rng(0).normal(size=(n, 3))
    grouped = wiring.to_groups(w, size)
    assert grouped.shape == (-(-n // size), 3, size)
    assert grouped[1, 2, 0] == w[size, 2]
    np.testing.assert_array_equal(wiring.from_groups(grouped, n), w)


@pytest.mark.parametrize("size", [1, 7])
def test_save_and_load_round_trip(tmp_path, size):
    config = compose("config=tiny", f"plastic.group_size={size}")
    net, weight, _ = network.build(config)
    target = np.random.default_rng(0).normal(size=(1, 100, 512)).astype(np.float32)
    network.save(tmp_path / "n.zarr", net, weight, target)
    again, weight2, target2 = network.build(compose("config=tiny", f"network.load={tmp_path}/n.zarr"))
    assert again.group_size == size and again.static_width == net.static_width and again.plastic_width == net.plastic_width
    for name in ("excitatory", "bias", "indptr", "post", "class_weight", "pre", "out_indptr", "out_slot"):
        np.testing.assert_array_equal(getattr(again, name), getattr(net, name), err_msg=name)
    np.testing.assert_array_equal(weight2, weight)
    np.testing.assert_array_equal(target2, target)


def test_what_a_store_lacks_is_drawn(tmp_path):
    """Given arrays win, the rest comes from the configuration."""
    write_network(tmp_path / "n.zarr", {"neuron/excitatory": np.arange(512) % 2 == 0, "neuron/bias": np.full(512, 0.5)})
    net, weight, target = network.build(compose("config=tiny", f"network.load={tmp_path}/n.zarr"))
    np.testing.assert_array_equal(net.bias, np.full(512, 0.5, np.float32))
    assert net.n_edges == 51200 and target is None and net.v0 is None
    assert np.all(np.asarray(net.pre)[:, :16] % 2 == 0) and np.all(np.asarray(net.pre)[:, 16:] % 2 == 1)
    assert np.all(weight[:, :16] > 0) and np.all(weight[:, 16:] < 0)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("neuron/excitatory", None, "has no array neuron/excitatory"),
        ("neuron/excitatory", np.zeros(60), "neuron/excitatory holds float64; should be booleans"),
        ("neuron/bias", np.zeros(59), "neuron/bias has shape [59]; should be [60]"),
        ("neuron/v0", np.full(60, np.nan), "neuron/v0 holds values that are not finite"),
        ("static/indptr", np.arange(61)[::-1].copy(), "static/indptr should start at 0 and never fall"),
        ("static/post", None, "static/indptr but no static/post"),
        ("static/weight", None, "static wiring without weights"),
        ("plastic/pre", np.full((60, 8), 60), "plastic/pre reaches from 60 to 60; should be within -1 to 59"),
        ("plastic/pre", np.zeros((30, 8), int), "plastic/pre has 30 rows; should be 60"),
        ("target", np.zeros((1, 7, 60)), "target has shape [1, 7, 60]; should be [C, 20, 60]"),
    ],
)
def test_wrong_stores_are_refused(tmp_path, name, values, message):
    arrays = small_network(0)
    if values is None:
        del arrays[name]
    else:
        arrays[name] = values
    write_network(tmp_path / "n.zarr", arrays)
    with pytest.raises(UserError, match=message.replace("[", r"\[").replace("]", r"\]")):
        network.build(compose("config=tiny", f"network.load={tmp_path}/n.zarr", "trial.duration=200"))


def test_a_folder_that_is_no_store_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        network.build(compose("config=tiny", f"network.load={tmp_path}/none.zarr"))
    (tmp_path / "x.zarr").mkdir()
    with pytest.raises(UserError, match="not a Zarr store"):
        network.build(compose("config=tiny", f"network.load={tmp_path}/x.zarr"))
    zarr.create_group(str(tmp_path / "r.zarr"), attributes={"format": "rlsnet-recording"})
    with pytest.raises(UserError, match="holds format rlsnet-recording; should be rlsnet-network"):
        network.build(compose("config=tiny", f"network.load={tmp_path}/r.zarr"))
