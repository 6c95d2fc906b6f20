"""Networks: connectivity drawn as specified, stored and loaded unchanged; wrong stores are refused with a reason."""

import dataclasses
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
import zarr
from conftest import KERNELS, compose, small_network, write_network

from rlsnet.config.load import from_dict, to_dict
from rlsnet.errors import UserError
from rlsnet.model import build, connectivity, edge_files, network_store, rng
from rlsnet.simulation.state import Dynamics, TrialKeys, initial_state
from rlsnet.simulation.step import deliver
from rlsnet.simulation.trial import before_learning, with_capacity


@pytest.fixture(scope="module")
def default():
    config = compose()
    return config, *build.build(config)


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


def test_static_synapses_do_not_depend_on_blocks():
    """A block of many neurons and one neuron at a time draw the same targets."""
    key = rng.key(3, rng.Purpose.STATIC)
    post = np.asarray(connectivity.draw_static(key, 3000, 900)).reshape(3000, 900)  # more than one block
    for j in (0, 1234, 2999):
        own = 1 + np.asarray(rng.permute(rng.fold(key, j), jnp.arange(900, dtype=jnp.uint32), 2999))
        np.testing.assert_array_equal(post[j], np.sort((j + own) % 3000))


def test_balanced_weights_and_bias(default):
    config, net, _, _ = default
    j = 20 / np.sqrt(205)
    np.testing.assert_allclose(net.class_weight, [[0.15 * j, j], [-0.75 * j, -j]], rtol=1e-6)
    np.testing.assert_allclose(net.bias[jnp.array([0, 4095])], [0.12 * np.sqrt(205), 0.08 * np.sqrt(205)], rtol=1e-6)


@pytest.mark.parametrize("size", [1, 16, 100])
def test_plastic_inputs(size):
    config = compose("network.n_neurons=1000", "plastic.n_inputs=40", f"plastic.group_size={size}")
    net, weight, _ = build.build(config)
    pre = np.asarray(net.pre)
    assert pre.shape == (-(-1000 // size), 40)
    assert np.all(pre[:, :20] < 500) and np.all(pre[:, 20:] >= 500)
    assert np.all(np.diff(pre[:, :20], axis=1) > 0) and np.all(np.diff(pre[:, 20:], axis=1) > 0)
    np.testing.assert_allclose(weight, np.where(np.arange(40) < 20, 1, -1) * np.ones((1000, 1)) * 20 / (2 * np.sqrt(20)), rtol=1e-6)


def test_outputs_are_the_inverse_of_inputs():
    pre = np.array([[0, 2, -1], [2, 2, 1], [3, 0, 2]])
    indptr, slot = connectivity.outputs_of(pre, 5)
    assert [slot[a:b].tolist() for a, b in zip(indptr, indptr[1:], strict=False)] == [[0, 7], [5], [1, 3, 4, 8], [6], []]


@pytest.mark.parametrize(("n", "size"), [(12, 1), (12, 4), (10, 4)])
def test_groups_round_trip(n, size):
    w = np.random.default_rng(0).normal(size=(n, 3))
    grouped = connectivity.to_groups(w, size)
    assert grouped.shape == (-(-n // size), 3, size)
    assert grouped[1, 2, 0] == w[size, 2]
    np.testing.assert_array_equal(connectivity.from_groups(grouped, n), w)


@pytest.mark.parametrize("size", [1, 7])
def test_save_and_load_round_trip(tmp_path, size):
    config = compose("config=tiny", f"plastic.group_size={size}")
    net, weight, _ = build.build(config)
    target = np.random.default_rng(0).normal(size=(1, 100, 512)).astype(np.float32)
    network_store.save(tmp_path / "n.zarr", net, weight, target)
    again, weight2, target2 = build.build(compose("config=tiny", f"network.load={tmp_path}/n.zarr"))
    assert again.group_size == size and again.static_width == net.static_width and again.plastic_width == net.plastic_width
    for name in ("excitatory", "bias", "indptr", "post", "class_weight", "pre", "out_indptr", "out_slot"):
        np.testing.assert_array_equal(getattr(again, name), getattr(net, name), err_msg=name)
    np.testing.assert_array_equal(weight2, weight)
    np.testing.assert_array_equal(target2, target)


def test_arrays_that_are_not_stored_are_drawn(tmp_path):
    """Stored arrays win over the configuration."""
    write_network(tmp_path / "n.zarr", {"neuron/excitatory": np.arange(512) % 2 == 0, "neuron/bias": np.full(512, 0.5)})
    net, weight, target = build.build(compose("config=tiny", f"network.load={tmp_path}/n.zarr"))
    np.testing.assert_array_equal(net.bias, np.full(512, 0.5, np.float32))
    assert net.n_edges == 51200 and target is None and net.v0 is None
    assert np.all(np.asarray(net.pre)[:, :16] % 2 == 0) and np.all(np.asarray(net.pre)[:, 16:] % 2 == 1)
    assert np.all(weight[:, :16] > 0) and np.all(weight[:, 16:] < 0)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("neuron/excitatory", None, "has no array neuron/excitatory"),
        ("neuron/excitatory", np.zeros(60), "neuron/excitatory holds float64; expected booleans"),
        ("neuron/bias", np.zeros(59), "neuron/bias has shape [59]; expected [60]"),
        ("neuron/v0", np.full(60, np.nan), "neuron/v0 holds values that are not finite"),
        ("static/indptr", np.arange(61)[::-1].copy(), "static/indptr: expected 61 numbers that start at 0 and never fall"),
        ("static/post", None, "static/indptr but no static/post"),
        ("static/weight", None, "static synapses without weights"),
        ("plastic/pre", np.full((60, 8), 60), "plastic/pre reaches from 60 to 60; expected numbers from -1 to 59"),
        ("plastic/pre", np.zeros((30, 8), int), "plastic/pre has 30 rows; expected 60"),
        ("target", np.zeros((1, 7, 60)), "target has shape [1, 7, 60]; expected [C, 20, 60]"),
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
        build.build(compose("config=tiny", f"network.load={tmp_path}/n.zarr", "trial.duration=200"))


def test_a_folder_that_is_not_a_store_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        build.build(compose("config=tiny", f"network.load={tmp_path}/none.zarr"))
    (tmp_path / "x.zarr").mkdir()
    with pytest.raises(UserError, match="not a Zarr store"):
        build.build(compose("config=tiny", f"network.load={tmp_path}/x.zarr"))
    zarr.create_group(str(tmp_path / "r.zarr"), attributes={"format": "rlsnet-recording"})
    with pytest.raises(UserError, match="has format rlsnet-recording; expected rlsnet-network"):
        build.build(compose("config=tiny", f"network.load={tmp_path}/r.zarr"))


def delivered(dynamics, net, state):
    """The state after the delivery of its spikes, with room for all of them."""

    def send(dynamics):
        after = jax.jit(deliver, static_argnums=0)(dynamics, net, None, state, jnp.ones(3))
        return after, after.overflowed

    return with_capacity(dynamics, send)[0]


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize("n", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_procedural_synapses_are_the_stored_ones(x64, n, kind):
    """The same targets, drawn anew at every spike; they take no memory."""
    common = f"network.n_neurons={n}", "static.out_degree=30", "plastic.n_inputs=4", f"engine.kernels={kind}", "engine.precision=float64"
    states = []
    for storage in ("stored", "procedural"):
        config = compose(*common, f"static.storage={storage}")
        net, weight, _ = build.build(config)
        assert (net.stream is None) == (storage == "stored") and net.n_edges == 30 * n and (net.post.size == 0) == (storage == "procedural")
        dynamics = Dynamics.from_config(config)
        keys = TrialKeys.create(1, 0).trial(jnp.int32(0), jnp.int32(0))
        spiked = np.random.default_rng(0).random(n) < 0.3
        state = dataclasses.replace(initial_state(dynamics, net, keys), spiked=jnp.asarray(spiked))
        states.append(np.asarray(delivered(dynamics, net, state).synapses))
    np.testing.assert_allclose(states[1], states[0], rtol=0, atol=1e-12)
    assert states[0][:2].sum() == pytest.approx(30 * spiked.sum())


def test_procedural_connectivity_is_saved_as_its_key(tmp_path):
    config = compose("config=tiny", "static.storage=procedural")
    net, weight, _ = build.build(config)
    network_store.save(tmp_path / "n.zarr", net, weight, np.zeros((1, 100, 512), np.float32))
    again, _, _ = build.build(compose("config=tiny", f"network.load={tmp_path}/n.zarr"))
    np.testing.assert_array_equal(again.stream, net.stream)
    assert "static/post" not in zarr.open_group(str(tmp_path / "n.zarr"), mode="r") and again.n_edges == net.n_edges


def test_erdos_renyi():
    """Each pair with probability 0.2, at most once: mean and s.d. of in- and out-degrees are binomial; weights scale with K_e = 0.2*N/2."""
    net, _, _ = build.build(compose("network.n_neurons=1500", "static=erdos_renyi", "static.probability=0.2"))
    indptr, post = np.asarray(net.indptr), np.asarray(net.post[: net.n_edges])
    matrix = np.zeros((1500, 1500), int)
    np.add.at(matrix, (np.repeat(np.arange(1500), np.diff(indptr)), post), 1)
    assert matrix.max() == 1 and not np.any(np.diag(matrix))
    for degree in (matrix.sum(axis=0), matrix.sum(axis=1)):
        assert degree.mean() == pytest.approx(0.2 * 1499, rel=0.005)
        assert degree.std() == pytest.approx(np.sqrt(1499 * 0.2 * 0.8), rel=0.06)
    np.testing.assert_allclose(net.class_weight[0, 1], 20 / np.sqrt(150), rtol=1e-6)
    np.testing.assert_allclose(net.bias[0], 0.12 * np.sqrt(150), rtol=1e-6)


EDGES = np.array([[0, 3, 1.5], [2, 1, -2.0], [0, 3, 0.25], [1, 1, 4.0], [0, 2, -1.0]])  # a pair twice, an autapse, both signs


def write_edges(path, edges=EDGES, n=4):
    """A file of edges, of the format of its suffix."""
    pre, post, weight = edges[:, 0].astype(int), edges[:, 1].astype(int), edges[:, 2]
    if path.suffix == ".npz":
        from scipy.sparse import coo_array, save_npz

        save_npz(path, coo_array((weight, (pre, post)), shape=(n, n)))
    elif path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({"weight": weight, "post": post, "pre": pre, "kind": ["x"] * len(edges)}), path)
    else:
        mark = "\t" if path.suffix == ".tsv" else ","
        lines = [("post", "delay", "pre", "weight"), *((b, 1.0, a, w) for a, b, w in zip(pre, post, weight, strict=True))]
        path.write_text("\n".join(mark.join(map(str, line)) for line in lines))


@pytest.mark.parametrize("name", ["e.npz", "e.csv", "e.tsv", "e.parquet"])
def test_edges_from_a_file(x64, tmp_path, name):
    """When all neurons spike, the currents are the sums over the edges; an edge that is listed twice counts twice."""
    write_edges(tmp_path / name)
    config = compose(
        "network.n_neurons=4", "static=edges", f"static.path={tmp_path}/{name}", "plastic.n_inputs=2", "engine.precision=float64"
    )
    net, _, _ = build.build(config)
    assert net.n_edges == 5 and not np.any(np.asarray(net.bias))
    dynamics, keys = Dynamics.from_config(config), TrialKeys.create(1, 0).trial(jnp.int32(0), jnp.int32(0))
    state = dataclasses.replace(initial_state(dynamics, net, keys), spiked=jnp.ones(4, bool))
    synapses = deliver(dynamics, net, None, state, jnp.ones(3)).synapses
    np.testing.assert_allclose(synapses[:2], [[0, 4, -1, 1.75], [0, -2, 0, 0]], atol=1e-15)  # neurons 0 and 1 are excitatory


def test_rows_of_a_sparse_matrix_may_be_postsynaptic(tmp_path):
    write_edges(tmp_path / "e.npz")
    config = compose("network.n_neurons=4", "static=edges", f"static.path={tmp_path}/e.npz", "static.rows=post", "plastic.n_inputs=2")
    net, _, _ = build.build(config)
    np.testing.assert_array_equal(net.indptr, [0, 0, 2, 3, 5])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "no such file"),
        ("e.txt", "pre,post,weight\n", "expected a .npz, .csv, .tsv or .parquet"),
        ("e.csv", "pre,post\n0,1\n", "has columns pre, post; expected pre, post and weight"),
        ("e.csv", "pre,post,weight\n0,9,1\n", "post of edge 0 is 9; expected a neuron, 0 to 3"),
        ("e.csv", "pre,post,weight\n0,1.5,1\n", "column post: expected whole numbers"),
        ("e.csv", "pre,post,weight\n0,1,x\n", "cannot be read"),
        ("e.csv", "pre,post,weight\n0,1,nan\n", "the weight of edge 0 is not finite"),
        ("e.npz", "no zip", "cannot be read"),
    ],
)
def test_wrong_edges_are_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=f"static.path=.*{message}"):
        build.build(compose("network.n_neurons=4", "static=edges", f"static.path={tmp_path}/{name}", "plastic.n_inputs=2"))


@pytest.mark.parametrize(
    ("file", "arrays"),
    [
        ("neurons.npz", {"excitatory": ("?", (10**13,))}),
        ("static.npz", {"data": ("<f4", (10**13,))}),
        ("static.npz", {"row": (), "col": (), "data": (), "shape": [10**13, 10**13], "format": b"coo"}),
        ("feedforward.npz", {"row": (), "col": (), "data": (), "shape": [10**6, 10**7], "format": b"coo"}),
    ],
)
def test_files_that_claim_more_than_the_memory_are_not_read(tmp_path, file, arrays):
    """Headers alone, without the numbers, or the shape of a sparse matrix."""
    (tmp_path / "about.json").write_text('{"format": "rlsnet-npz", "version": 1}')
    np.savez(tmp_path / "neurons.npz", excitatory=np.ones(4, bool))
    for name in ("static.npz", "plastic.npz"):
        scipy.sparse.save_npz(tmp_path / name, scipy.sparse.csr_array((4, 4)))
    with zipfile.ZipFile(tmp_path / file, "w") as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w") as out:
                if isinstance(values, tuple) and values:
                    np.lib.format.write_array_header_1_0(out, {"descr": values[0], "fortran_order": False, "shape": values[1]})
                else:
                    np.save(out, np.asarray(values))
    with pytest.raises(UserError, match=rf"network.load=.*{file}: takes .* GB of memory"):
        build.build(compose(f"network.load={tmp_path}", "static=none"))
    if file == "static.npz" and "row" not in arrays:
        with pytest.raises(UserError, match=rf"static.path=.*{file}: takes .* GB of memory"):
            edge_files.read_edges(str(tmp_path / file), "pre")


def test_unequal_numbers_of_inputs():
    net, weight, _ = build.build(compose("network.n_neurons=2000", "plastic.n_inputs=20", "plastic.least_inputs=6"))
    pre = np.asarray(net.pre)
    numbers = (pre >= 0).sum(axis=1)
    assert set(numbers) == set(range(6, 21, 2)) and abs(numbers.mean() - 13) < 0.3
    for row, own in zip(pre[:200], weight[:200], strict=True):
        exc, inh = row[:10][row[:10] >= 0], row[10:][row[10:] >= 0]
        assert len(exc) == len(inh) and np.all(np.diff(exc) > 0) and np.all(np.diff(inh) > 0) and np.all(exc < 1000) and np.all(inh >= 1000)
        np.testing.assert_allclose(own[row >= 0], np.where(row[row >= 0] < 1000, 1, -1) * 20 / (2 * np.sqrt(len(exc))), rtol=1e-6)
        assert not np.any(own[row < 0])


def test_inputs_from_the_most_active_neurons():
    """Inputs are drawn from the most active quarter of each class in the static network."""
    config = compose("network.n_neurons=200", "static.out_degree=20", "plastic.n_inputs=10", "plastic.active_fraction=0.25")
    counts = np.random.default_rng(0).permutation(200)
    net, _, _ = build.build(config, activity=lambda net: counts if net.n_inputs == 0 and net.static_width == 20 else None)
    chosen = np.unique(np.asarray(net.pre))
    best = np.concatenate([np.argsort(-counts[:100])[:25], 100 + np.argsort(-counts[100:])[:25]])
    np.testing.assert_array_equal(chosen, np.sort(best))
    config = dataclasses.replace(config, static=compose("static=none").static)
    with pytest.raises(UserError, match="plastic.active_fraction: expected 1 without static synapses"):
        build.build(config, activity=lambda net: counts)


CONNECTIVITY = """
import dataclasses
import zipfile
import numpy as np
from rlsnet import inputs, wiring
from rlsnet.config import PlasticConfig, StaticConfig, StimulusConfig, key


@dataclasses.dataclass(frozen=True)
class Ring(StaticConfig):
    name: str = key("static connectivity", choices=("ring",))
    weight: float = key("of a synapse to the next neuron")


@wiring.static_edges.register
def _(static: Ring, stream, excitatory):
    n = len(excitatory)
    return wiring.Edges.from_pairs(np.arange(n), (np.arange(n) + 1) % n, np.full(n, static.weight), n)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Neighbours(PlasticConfig):
    name: str = key("plastic connectivity", choices=("neighbours",))


@wiring.plastic_inputs.register
def _(plastic: Neighbours, stream, excitatory, activity):
    groups = -(-len(excitatory) // plastic.group_size)
    return (np.arange(groups)[:, None] * plastic.group_size + np.arange(1, plastic.n_inputs + 1)) % len(excitatory)


@dataclasses.dataclass(frozen=True)
class Step(StimulusConfig):
    name: str = key("stimulus", choices=("step",))
    height: float = key("current", "threshold")


@inputs.stimulus.register
def _(settings: Step, dt, network, s, moment):
    return s + settings.height, s
"""


def test_user_defined_connectivity_and_stimulus(tmp_path):
    (tmp_path / "own_connectivity.py").write_text(CONNECTIVITY)
    values = to_dict(compose("config=tiny", "network.n_neurons=40", "plastic.n_inputs=6", "trial.stim_on=1", "trial.stim_off=20"))
    values |= {
        "plugins": [str(tmp_path / "own_connectivity.py")],
        "static": {"name": "ring", "weight": 2.5},
        "plastic": {"name": "neighbours", "n_inputs": 6, "group_size": 3, "strength": 1.0},
        "stimulus": {"name": "step", "height": 3.0},
    }
    config = from_dict(values)
    net, weight, _ = build.build(config)
    np.testing.assert_array_equal(net.post, (np.arange(40) + 1) % 40)
    np.testing.assert_array_equal(net.pre[2], [7, 8, 9, 10, 11, 12])
    assert np.all(np.asarray(net.weight) == 2.5)
    net = dataclasses.replace(net, v0=jnp.zeros(40, jnp.float32))
    keys = TrialKeys.create(1, 0).trial(jnp.int32(0), jnp.int32(0))
    state = before_learning(Dynamics.from_config(config), net, None, keys)
    assert np.all(np.asarray(state.n_spikes) > 0)  # no bias, no noise: the stimulus alone
