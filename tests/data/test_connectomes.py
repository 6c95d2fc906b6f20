"""Import of connectomes: tables of connections and neurons, sparse matrices, SONATA; signs, weights, roles, and refused input."""

import dataclasses
import json

import h5py
import numpy as np
import pytest
import scipy.sparse
import zarr
from commands import rlsnet as command
from conftest import compose, small_network, write_network

import rlsnet
from rlsnet.data.connectomes import sonata
from rlsnet.errors import UserError
from rlsnet.exports import sonata as exported
from rlsnet.exports.trained_network import TrainedNetwork
from rlsnet.model import build
from rlsnet.model.network_store import StoredNetwork, read_static_edges

# columns of the table of connections of FlyWire's Codex; a pair occurs once for each neuropil
FLYWIRE = """pre_root_id,post_root_id,neuropil,syn_count,nt_type
720575940621039145,720575940622838154,AL_R,7,ACH
720575940621039145,720575940622838154,LH_R,5,ACH
720575940622838154,720575940621039145,AL_R,12,GABA
720575940622838154,720575940621039146,AL_R,6,GLUT
720575940621039146,720575940621039145,SMP_L,9,DA
720575940621039146,720575940621039146,SMP_L,8,DA
"""
NAMES = ["720575940621039145", "720575940621039146", "720575940622838154"]
# columns of the edge list of Cook et al. 2019 in c302, with its blanks
WORM = """Source,Target,Weight,Type
AVAL , AVBL        ,10,chemical
AVBL , AVAL        ,4,chemical
AVBL , dBWML1      ,3,chemical
AVAL , AVAL        ,1,chemical
AVAL , AVBL        ,2,electrical
"""
SIGNED = "pre,post,weight\nA,B,2\nB,A,-3\nB,C,-1.5\nC,A,0.5\n"

BUILT = ("excitatory", "class_weight", "indptr", "post", "pre")  # arrays of a network that is drawn


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder, with the tables above."""
    monkeypatch.chdir(tmp_path)
    for name, text in (("fly.csv", FLYWIRE), ("worm.csv", WORM), ("signed.csv", SIGNED)):
        (tmp_path / name).write_text(text)
    return tmp_path


def matrices(group, n):
    """Dense [post, pre] static and plastic weights of a network.zarr, read with zarr alone."""
    static, plastic = np.zeros((n, n)), np.zeros((n, n))
    if "static/post" in group:
        ends, post, weight = (group[f"static/{name}"][...] for name in ("indptr", "post", "weight"))
        np.add.at(static, (post, np.repeat(np.arange(n), np.diff(ends))), weight)
    if "plastic/pre" in group:
        pre, weight = group["plastic/pre"][...], group["plastic/weight"][...]
        for i, row in enumerate(pre):
            plastic[i, row[row >= 0]] = weight[i][row >= 0]
    return static, plastic


def test_flywire(place):
    """64-bit names are exact, neuropils add up, each neuron has the sign of most of its synapses."""
    group = rlsnet.import_network("fly.csv", "fly.zarr", signs={"GLUT": "inh", "DA": "exc"}, normalise="none", scale=0.5)
    assert group["neuron/name"][...].tolist() == NAMES
    assert group["neuron/excitatory"][...].tolist() == [True, True, False]
    np.testing.assert_array_equal(matrices(group, 3)[0], 0.5 * np.array([[0, 9, -12], [0, 8, -6], [12, 0, 0]]))
    summary = group.attrs["imported"]
    assert summary["connections"] == "6 of the source, between 5 pairs of neurons; 1 were added to others of their pair"
    assert summary["self-connections"] == "1"
    build.build(compose("config=tiny", "network.load=fly.zarr", "plastic.n_inputs=0"))


def test_parquet(place):
    """64-bit numbers as numbers; one that is missing would make them inexact, and is refused."""
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv("fly.csv")
    table.to_parquet("fly.parquet")
    group = rlsnet.import_network("fly.parquet", "fly.zarr", unknown="draw")
    assert group["neuron/name"][...].tolist() == NAMES
    table.loc[1, "pre_root_id"] = None
    table.to_parquet("missing.parquet")
    with pytest.raises(
        UserError, match="pre_root_id in row 1 is 7.2.*e\\+17; expected the name of a neuron or a whole number in every row"
    ):
        rlsnet.import_network("missing.parquet", "no.zarr")


def test_mixed_signs(place):
    """Dale's law replaces the rarer sign, sign_of=connection keeps it."""
    given = {"signs": {"DA": "exc"}, "normalise": "none"}  # glutamate is excitatory by default
    group = rlsnet.import_network("fly.csv", "neuron.zarr", **given)
    assert matrices(group, 3)[0][1, 2] == -6
    assert group.attrs["imported"]["connections of another sign than their neuron"] == "1, of 1 neuron, replaced by that of their neuron"
    group = rlsnet.import_network("fly.csv", "connection.zarr", sign_of="connection", **given)
    assert matrices(group, 3)[0][1, 2] == 6 and matrices(group, 3)[0][0, 2] == -12


@pytest.mark.parametrize(
    ("unknown", "static", "plastic"),
    [("draw", 5, 0), ("learn", 3, 2), ("drop", 3, 0)],
)
def test_unknown_signs(place, unknown, static, plastic):
    group = rlsnet.import_network("fly.csv", "out.zarr", signs={"GLUT": "inh"}, unknown=unknown, fraction_excitatory=0)
    edges, learned = matrices(group, 3)
    assert np.count_nonzero(edges) == static and not learned.any()
    pre = group["plastic/pre"][...] if "plastic/pre" in group else np.full((3, 1), -1)
    assert (pre >= 0).sum() == plastic and not group["neuron/excitatory"][1]
    if unknown == "draw":
        assert edges[0, 1] < 0
    if unknown == "learn":
        assert set(pre[pre >= 0].tolist()) == {1}


def test_normalisation(place):
    """mean: 100 threshold*ms on average over the neurons with inputs; each: for each of them."""
    given = {"signs": {"GLUT": "inh", "DA": "exc"}}
    total = np.abs(matrices(rlsnet.import_network("fly.csv", "mean.zarr", **given), 3)[0]).sum(axis=1)
    np.testing.assert_allclose(total, 100 * np.array([21, 14, 12]) / (47 / 3), rtol=1e-6)
    total = np.abs(matrices(rlsnet.import_network("fly.csv", "each.zarr", normalise="each", input=30, **given), 3)[0]).sum(axis=1)
    np.testing.assert_allclose(total, 30, rtol=1e-6)


def test_worm(place):
    """Blanks around names, gap junctions and cells without outputs are left out; the column of weights is one of numbers."""
    group = rlsnet.import_network("worm.csv", "worm.zarr", count="Weight", neurons="outputs > 0", unknown="learn", self_connections=False)
    assert group["neuron/name"][...].tolist() == ["AVAL", "AVBL"]
    summary = group.attrs["imported"]
    assert summary["left out: electrical connections (gap junctions), which no spikes pass"] == "1"
    assert summary["left out: neurons that neurons=... does not select"] == "1"
    assert summary["left out: connections of neurons with themselves"] == "1"
    np.testing.assert_array_equal(group["plastic/pre"][...], [[1], [0]])
    assert group["static/post"].shape == (0,)
    network = build.build(compose("config=tiny", "network.load=worm.zarr", "network.bias=1.2")).network
    assert network.n_edges == 0 and np.asarray(network.pre).tolist() == [[1], [0]]


def test_roles(place):
    """Plastic by filter, share and cap; plastic and static ones together are all of the wiring."""
    given = {"signs": {"GLUT": "inh", "DA": "exc"}, "normalise": "none"}
    whole = matrices(rlsnet.import_network("fly.csv", "static.zarr", **given), 3)[0]
    for number, settings in enumerate(({"plastic": "pre_name == '720575940622838154'"}, {"plastic": "0.5", "seed": 4})):
        static, plastic = matrices(rlsnet.import_network("fly.csv", f"{number}.zarr", **settings, **given), 3)
        assert static.any() and plastic.any() and not (static * plastic).any()
        np.testing.assert_array_equal(static + plastic, whole)
    static, plastic = matrices(rlsnet.import_network("fly.csv", "cap.zarr", plastic="all", max_inputs=1, **given), 3)
    np.testing.assert_array_equal(plastic, [[0, 0, -12], [0, 8, 0], [12, 0, 0]])
    np.testing.assert_array_equal(static + plastic, whole)
    static, plastic = matrices(rlsnet.import_network("fly.csv", "min.zarr", min_synapses=9, **given), 3)
    np.testing.assert_array_equal(static, np.where(np.abs(whole) >= 9, whole, 0))


def test_neuron_table(place):
    """Order, classes, types and regions from a table; selections by them; connections of other neurons are left out."""
    (place / "neurons.csv").write_text(
        "root_id,primary_type,region,class,side\n720575940622838154,LN,AL,inhibitory,L\n720575940621039145,PN,AL,excitatory,R\n"
    )
    group = rlsnet.import_network("fly.csv", "n.zarr", neuron_table="neurons.csv", columns=["side"], plastic="post_type == 'PN'")
    assert group["neuron/name"][...].tolist() == [NAMES[2], NAMES[0]] and group["neuron/type"][...].tolist() == ["LN", "PN"]
    assert group["neuron/excitatory"][...].tolist() == [False, True]
    assert group.attrs["imported"]["left out: connections from or to 1 neurons that neurons.csv does not list"] == "3"
    static, plastic = matrices(group, 2)
    assert static[0, 1] > 0 and plastic[1, 0] < 0 and np.count_nonzero(static) == np.count_nonzero(plastic) == 1
    times = ["trial.stim_on=10", "trial.stim_off=20", "trial.duration=100", "target.period=100", "network.bias=1.5", "test.trials=1"]
    chosen = ["train.neurons=type == 'PN' and side == 'R'", "test.neurons=region:AL & inh"]
    results = rlsnet.simulate(compose("config=tiny", "network.load=n.zarr", *times, *chosen, "progress=off"), "run")
    assert np.isfinite(zarr.open_group("run/network.zarr")["target"][...]).any(axis=(0, 1)).tolist() == [False, True]
    assert results["type"][...].tolist() == ["LN"] and results["neuron"][...].tolist() == [0]
    run = rlsnet.open_run("run")
    assert run.select("region:AL").tolist() == [0, 1] and run.neurons()["name"].tolist() == [NAMES[2], NAMES[0]]
    shown = command("info", "run/network.zarr", cwd=place).stdout
    assert "region: 1 (AL)" in shown and "type: 2 (LN, PN)" in shown


def test_delays_and_signed_weights(place):
    """static/delay stands beside static/post, in ms; two connections of a pair with different delays stay two."""
    rows = [("B", "A", -1, 3.0), ("A", "C", 2, 1.5), ("A", "B", 1, 2.5), ("A", "B", 4, 0.5), ("A", "B", 2, 0.5), ("C", "A", 1, 1)]
    (place / "d.csv").write_text("pre,post,weight,delay\n" + "".join(f"{a},{b},{w},{d}\n" for a, b, w, d in rows))
    group = rlsnet.import_network("d.csv", "d.zarr")
    assert group["static/delay"].dtype == np.float32 and group["static/indptr"][...].tolist() == [0, 3, 4, 5]
    edges = read_static_edges(StoredNetwork("d.zarr"), 3)
    found = set(zip(edges.post.tolist(), edges.weight.tolist(), edges.delay.tolist(), strict=True))
    assert found == {(1, 6, 0.5), (1, 1, 2.5), (2, 2, 1.5), (0, -1, 3), (0, 1, 1)}
    shuffled = dataclasses.replace(
        edges, post=edges.post[[2, 1, 0, 3, 4]], weight=edges.weight[[2, 1, 0, 3, 4]], delay=edges.delay[[2, 1, 0, 3, 4]]
    )
    again = shuffled.ascending()
    assert np.all(np.diff(again.post[:3]) >= 0)
    assert set(zip(again.post.tolist(), again.weight.tolist(), again.delay.tolist(), strict=True)) == found
    network = build.build(compose("config=tiny", "network.load=d.zarr", "plastic.n_inputs=0")).network
    assert network.delays == (0.5, 1, 1.5, 2.5, 3) and network.n_edges == 5
    group = rlsnet.import_network("d.csv", "p.zarr", plastic="all")
    assert "static/delay" in group and group["static/delay"].shape == (0,)
    assert group.attrs["imported"]["left out: delays of plastic connections"].startswith("4;")


def test_sparse_matrix(place):
    matrix = scipy.sparse.random_array(
        (40, 40), density=0.2, rng=np.random.default_rng(0), data_sampler=np.random.default_rng(1).standard_normal
    )
    scipy.sparse.save_npz("m.npz", scipy.sparse.csr_matrix(matrix))
    for rows in ("pre", "post"):
        group = rlsnet.import_network("m.npz", f"{rows}.zarr", rows=rows)
        dense = matrix.toarray()
        np.testing.assert_array_equal(matrices(group, 40)[0], dense.T if rows == "pre" else dense)


def test_a_drawn_network_trains_to_the_same_weights_as_its_tables(place):
    """To the bit: network.load of its network.zarr, with a weight for each synapse, and of the import of tables of texts."""
    times = ["trial.stim_on=20", "trial.stim_off=40", "trial.duration=200", "target.period=200", "progress=off", "train.iterations=3"]
    sizes = ["config=tiny", "network.n_neurons=80", "static.out_degree=16", "plastic.n_inputs=8", "network.bias=1.4"]
    drawn = build.build(compose(*sizes, *times))
    excitatory, by_class, ends, post, pre = (np.asarray(getattr(drawn.network, name)) for name in BUILT)
    start = np.repeat(np.arange(80), np.diff(ends))
    post, strength = post[: len(start)], by_class[1 - excitatory[start], 1 - excitatory[post[: len(start)]]]
    arrays = {"neuron/excitatory": excitatory, "static/indptr": ends, "static/post": post, "static/weight": strength}
    write_network(place / "given.zarr", arrays | {"plastic/pre": pre, "plastic/weight": drawn.weight})
    lines = [f"{j},{i},{float(w)!r},0" for j, i, w in zip(start, post, strength, strict=True)]
    lines += [f"{j},{i},{float(w)!r},1" for i in range(80) for j, w in zip(pre[i], drawn.weight[i], strict=True)]
    (place / "edges.csv").write_text("\n".join(["pre,post,weight,plastic", *np.random.default_rng(0).permutation(lines)]) + "\n")
    (place / "neurons.csv").write_text("id,class\n" + "".join(f"{j},{'exc' if excitatory[j] else 'inh'}\n" for j in range(80)))
    imported = rlsnet.import_network("edges.csv", "again.zarr", neuron_table="neurons.csv", plastic="plastic == 1")
    np.testing.assert_array_equal(imported["plastic/pre"][...], pre)
    weights = []
    for name in ("given", "again"):
        run = rlsnet.train(compose(f"network.load={name}.zarr", *sizes, *times), f"run {name}")
        weights.append(zarr.open_group(f"{run.path}/checkpoints/000003.zarr", mode="r")["plastic/weight"][...])
    assert not np.array_equal(weights[0], drawn.weight)
    np.testing.assert_array_equal(*weights)


@pytest.mark.parametrize("size", [1, 4])
def test_sonata_round_trip(place, size, x64):
    """Export and import give the same network: neurons, parameters, static and plastic synapses, labels, groups of shared inputs."""
    arrays = small_network(3, group_size=size) | {"neuron/tau_m": np.random.default_rng(0).uniform(8, 12, 60)}
    random, degrees = np.random.default_rng(1), np.diff(arrays["static/indptr"])
    arrays["static/post"] = np.concatenate([random.choice(60, degree, replace=False) for degree in degrees])  # pairs are summed
    write_network(place / "given.zarr", arrays, size)
    for name, words in (("name", [f"cell {i}" for i in range(60)]), ("region", ["ALM", "M1"] * 30)):
        zarr.open_group("given.zarr").create_array(f"neuron/{name}", shape=60, dtype=str)[:] = np.array(words)
    times = ["trial.duration=200", "trial.stim_off=60", "trial.stim_on=20", "engine.precision=float64", "target.n_conditions=2"]
    rlsnet.simulate(compose("config=tiny", "network.load=given.zarr", *times, "test.trials=1"), "run")
    run = rlsnet.open_run("run")
    rlsnet.export(run, "sonata", "out")
    assert exported.is_export(place / "out") and sonata.matches(place / "out")
    group = rlsnet.import_network("out", "again.zarr")
    trained = TrainedNetwork.load(run, "last", run.config())
    again = build.build(compose("config=tiny", "network.load=again.zarr", "trial.duration=200", "engine.precision=float64"))
    for name in ("excitatory", "bias", "v0", "indptr", "post", "weight"):
        np.testing.assert_array_equal(getattr(again.network, name), getattr(trained.network, name), err_msg=name)
    np.testing.assert_array_equal(again.network.parameters["tau_m"], arrays["neuron/tau_m"])
    np.testing.assert_array_equal(matrices(group, 60)[1] if size == 1 else dense(again), dense(trained))
    assert again.network.group_size == size
    assert group["neuron/name"][...].tolist() == [f"cell {i}" for i in range(60)] and group["neuron/region"][1] == "M1"
    assert "static/delay" not in group


def dense(built):
    """[post, pre] plastic weights of a built or trained network."""
    pre, found = np.asarray(built.network.pre), np.zeros((60, 60))
    for i in range(60):
        row = pre[i // built.network.group_size]
        found[i, row[row >= 0]] = np.asarray(built.weight)[i][row >= 0]
    return found


@pytest.fixture
def circuit(place):
    """A circuit as BMTK writes it: two populations, attributes of types and of edges, two groups of edges, and a configuration."""
    folder = place / "net"
    folder.mkdir()
    for name, types in (("cortex", [100, 100, 101]), ("lgn", [7, 7])):
        with h5py.File(folder / f"{name}_nodes.h5", "w") as file:
            group = file.create_group(f"nodes/{name}")
            group["node_id"] = [5, 6, 9] if name == "cortex" else [0, 1]
            group["node_type_id"], group["node_group_id"] = types, np.zeros(len(types), int)
            group["node_group_index"] = np.arange(len(types))
    (folder / "cortex_node_types.csv").write_text(
        'node_type_id model_type pop_name ei location\n100 point_neuron "L4 exc" e V1\n101 point_neuron PV i V1\n'
    )
    (folder / "lgn_node_types.csv").write_text("node_type_id model_type pop_name ei location\n7 virtual LGN e NULL\n")
    with h5py.File(folder / "cortex_cortex_edges.h5", "w") as file:
        group = file.create_group("edges/cortex_to_cortex")
        group["source_node_id"], group["target_node_id"] = [5, 9, 6, 5], [9, 5, 9, 6]
        group["edge_type_id"] = [1, 2, 1, 1]
        group["edge_group_id"], group["edge_group_index"] = [0, 0, 1, 1], [0, 1, 0, 1]
        group["0/nsyns"], group["1/nsyns"], group["1/syn_weight"] = [2, 3], [1, 4], [0.5, 0.25]
        for end in ("source", "target"):
            group[f"{end}_node_id"].attrs["node_population"] = "cortex"
    with h5py.File(folder / "lgn_cortex_edges.h5", "w") as file:
        group = file.create_group("edges/lgn_to_cortex")
        group["source_node_id"], group["target_node_id"], group["edge_type_id"] = [0, 1], [5, 6], [3, 3]
        group["source_node_id"].attrs["node_population"], group["target_node_id"].attrs["node_population"] = "lgn", b"cortex"
    (folder / "cortex_cortex_edge_types.csv").write_text("edge_type_id syn_weight delay\n1 1.5 2.0\n2 3.0 1.0\n")
    (folder / "lgn_cortex_edge_types.csv").write_text("edge_type_id syn_weight delay nsyns\n3 1.0 2.0 1\n")

    def files(kind, *names):
        return [{f"{kind}s_file": f"$NET/{name}_{kind}s.h5", f"{kind}_types_file": f"${{NET}}/{name}_{kind}_types.csv"} for name in names]

    networks = {"nodes": files("node", "cortex", "lgn"), "edges": files("edge", "cortex_cortex", "lgn_cortex")}
    config = {"manifest": {"$BASE": ".", "$NET": "$BASE/net"}, "networks": networks}
    (place / "circuit_config.json").write_text(json.dumps(config))
    return folder


def test_sonata_of_another_program(circuit, place):
    for number, source in enumerate((place / "circuit_config.json", circuit)):
        group = rlsnet.import_network(source, f"{number}.zarr")
        assert group["neuron/name"][...].tolist() == ["cortex:5", "cortex:6", "cortex:9"]
        assert group["neuron/type"][...].tolist() == ["L4 exc", "L4 exc", "PV"] and set(group["neuron/region"][...]) == {"V1"}
        assert group["neuron/excitatory"][...].tolist() == [True, True, False]
        np.testing.assert_array_equal(matrices(group, 3)[0], [[0, 0, -9], [1, 0, 0], [3, 0.5, 0]])
        assert group["static/delay"][...].tolist() == [2, 2, 2, 1]
        assert group.attrs["imported"]["left out: virtual nodes, which send given spikes"] == "2"
    group = rlsnet.import_network(circuit, "plastic.zarr", plastic="edge_type_id == 2", scale=2)
    assert matrices(group, 3)[1][0, 2] == -18 and np.count_nonzero(matrices(group, 3)[0]) == 3


def changed(text, old, new):
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("files", "arguments", "message"),
    [
        ({}, ["none.csv", "o.zarr"], "none.csv: no such file or folder."),
        ({}, ["fly.csv", "out"], "out: the last path is the new network; expected a name that ends in .zarr."),
        ({}, ["fly.csv"], "import-network fly.csv: expected a source and, last, the new network, such as OUT.zarr."),
        ({}, ["fly.csv", "o.zarr"], "(720575940621039146); expected signs.DA=exc or inh (for DA), or unknown=draw, unknown=learn"),
        ({}, ["fly.csv", "o.zarr", "signs.DA=up"], "signs.DA=up: expected exc, inh or unknown."),
        ({}, ["fly.csv", "o.zarr", "unknown=guess"], "unknown=guess: expected refuse, draw, learn or drop"),
        ({}, ["fly.csv", "o.zarr", "pre=from"], "pre=from: no such column in fly.csv; expected one of pre_root_id, post_root_id"),
        ({}, ["fly.csv", "o.zarr", "weight=syn_count", "count=syn_count"], "expected one of them, as each gives the strength"),
        ({}, ["fly.csv", "o.zarr", "sign=polarity"], "sign=polarity: no such column in fly.csv; expected one of pre_root_id"),
        ({}, ["fly.csv", "o.zarr", "neurons=outputs > 9"], "there are 0 neurons and 0 connections; expected at least 2 and 1"),
        ({}, ["fly.csv", "o.zarr", "connections=nt == 'GABA'"], "connections=nt == 'GABA': no nt in the connections; expected one of"),
        ({}, ["fly.csv", "o.zarr", "unknown=draw", "plastic=1.5"], "plastic=1.5: expected none, all, a share from 0 to 1"),
        ({}, ["fly.csv", "o.zarr", "unknown=draw", "plastic=some"], "plastic=some"),
        ({}, ["fly.csv", "o.zarr", "unknown=draw", "min_synapses=99"], "min_synapses=99: no connection is left"),
        ({"e.csv": "a,b\n1,2\n"}, ["e.csv", "o.zarr"], "e.csv: has no column pre, source, pre_root_id, pre_pt_root_id or the like"),
        (
            {"e.csv": "pre,post,n\n1,2,3\n,1,2\n"},
            ["e.csv", "o.zarr"],
            "e.csv: pre in row 2 is nan; expected the name of a neuron or a whole",
        ),
        ({"e.csv": "pre,post\nA,B\n,A\n"}, ["e.csv", "o.zarr"], "e.csv: pre in row 2 is empty; expected the name of a neuron in every row"),
        ({"e.csv": "pre,post,weight\nA,B,x\n"}, ["e.csv", "o.zarr"], "e.csv: weight is 'x' in row 1; expected numbers"),
        (
            {"e.csv": "pre,post,weight\nA,B,1\nB,A,\n"},
            ["e.csv", "o.zarr"],
            "e.csv: weight in row 2 is nan; expected a number in every row.",
        ),
        ({"e.csv": "pre,post,count\nA,B,-1\n"}, ["e.csv", "o.zarr"], "e.csv: count in row 1 is -1; expected numbers of at least 0."),
        ({"e.csv": "pre,post,delay\nA,B,0\n"}, ["e.csv", "o.zarr"], "e.csv: delay in row 1 is 0; expected numbers above 0."),
        ({"e.csv": "pre,post,sign\nA,B,maybe\n"}, ["e.csv", "o.zarr"], "e.csv: sign is maybe in some rows; expected signs: 1, -1 or 0"),
        ({"e.csv": "pre,post\n"}, ["e.csv", "o.zarr"], "expected at least 2 and 1"),
        (
            {"n.csv": "id,type\nA,x\nA,y\n"},
            ["signed.csv", "o.zarr", "neuron_table=n.csv"],
            "n.csv: id A is in several rows; expected a row",
        ),
        ({"n.csv": "cells\nA\n"}, ["signed.csv", "o.zarr", "neuron_table=n.csv"], "n.csv: has no column id, name, root_id"),
        (
            {"n.csv": "id,bias\nA,1\nB,1\n"},
            ["signed.csv", "o.zarr", "neuron_table=n.csv", "columns=[bias]"],
            "columns=bias: a network.zarr has",
        ),
        ({"x.txt": ""}, ["x.txt", "o.zarr"], "x.txt: expected a table, .csv, .tsv, .parquet, .pqt."),
        ({"x.npz": ""}, ["x.npz", "o.zarr"], "x.npz: cannot be read"),
        (
            {"c.json": "{}"},
            ["c.json", "o.zarr"],
            "c.json: cannot be read (KeyError: 'networks'); expected a circuit configuration of SONATA",
        ),
        ({}, [".", "o.zarr"], ".: a folder without a circuit in SONATA"),
        ({"o.zarr/zarr.json": "{}"}, ["signed.csv", "o.zarr"], "import-network o.zarr: exists and is not a network.zarr of rlsnet"),
    ],
)
def test_refused(place, files, arguments, message, capsys):
    """One line, and nothing is written."""
    from rlsnet.cli.main import dispatch

    for name, text in files.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(text)
    before = sorted(place.rglob("*"))
    with pytest.raises(UserError) as error:
        dispatch(["import-network", *arguments])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("cortex_node_types.csv", "PV i V1", "PV x V1", "a node has the sign x; expected e or i, or EXC or INH."),
        ("cortex_cortex_edge_types.csv", "1 1.5 2.0", "1 1.5 -2", "delay is not a number above 0 for all edges; expected ms."),
        ("cortex_cortex_edge_types.csv", "1 1.5 2.0", "1 NULL 2.0", "syn_weight is not a number for all edges; expected weights."),
    ],
)
def test_refused_sonata(circuit, name, old, new, message):
    (circuit / name).write_text(changed((circuit / name).read_text(), old, new))
    with pytest.raises(UserError, match="expected") as error:
        rlsnet.import_network(circuit, "o.zarr")
    assert message in str(error.value)


def test_sonata_nodes_that_do_not_exist(circuit):
    with h5py.File(circuit / "cortex_cortex_edges.h5", "r+") as file:
        file["edges/cortex_to_cortex/target_node_id"][0] = 77
    with pytest.raises(UserError, match="target_node_id: names node 77, which the nodes cortex do not have"):
        rlsnet.import_network(circuit, "o.zarr")
    (circuit / "lgn_nodes.h5").unlink()
    with pytest.raises(UserError, match="circuit_config.json: .*lgn_nodes.h5 does not exist"):
        rlsnet.import_network(circuit.parent / "circuit_config.json", "o.zarr")


def test_command(place):
    """The summary is printed, stored, and shown by `rlsnet info`; an older network is replaced only on request."""
    arguments = ["import-network", "fly.csv", "out.zarr", "signs.GLUT=inh", "signs.DA=exc"]
    printed = command(*arguments, cwd=place)
    assert "rlsnet train network.load=out.zarr" in printed.stdout
    assert (
        "2 excitatory, 1 inhibitory, by the source" in printed.stdout
        and "2 excitatory, 1 inhibitory" in command("info", "out.zarr", cwd=place).stdout
    )
    assert "out.zarr: exists already; expected overwrite=true" in command(*arguments, cwd=place, status=1).stderr
    command(*arguments, "overwrite=true", cwd=place)
