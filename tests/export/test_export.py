"""Exports, each read by the reader of the other tool or run by the other simulator, and compared with the run folder."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest
import scipy.sparse
import xarray
import zarr
from conftest import compose, small_network, write_network

from rlsnet.cli.commands.export import Options
from rlsnet.cli.main import dispatch
from rlsnet.config.arguments import plain_arguments
from rlsnet.data.formats import rlsnet_export
from rlsnet.data.import_options import Options as ImportOptions
from rlsnet.data.import_options import options_of
from rlsnet.data.importing import import_sources
from rlsnet.errors import UserError
from rlsnet.exports.synapses import CLASSES, plastic_synapses, static_synapses
from rlsnet.exports.trained_network import TrainedNetwork
from rlsnet.exports.writer import FORMATS, export, format_module
from rlsnet.model import build, edge_files, network_store
from rlsnet.runs import memory_plan
from rlsnet.runs.folder import Run

SIZES = ["config=tiny", "network.n_neurons=120", "network.bias=1.5", "static.out_degree=24", "plastic.n_inputs=12", "progress=off"]
TIMES = ["trial.stim_on=20", "trial.stim_off=60", "trial.duration=200", "target.period=200", "test.trials=2"]
SMALL = [*SIZES, *TIMES, "target.n_conditions=2", "engine.precision=float64"]
CLI = [sys.executable, "-m", "rlsnet"]


@pytest.fixture(autouse=True)
def settings_of_jax():
    """Restores the settings of JAX that an export changes."""
    before = {name: getattr(jax.config, name) for name in ("jax_enable_x64", "jax_default_device", "jax_compilation_cache_dir")}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained and tested run, exported to every format by the command line."""
    place = tmp_path_factory.mktemp("place")
    trained = [*SMALL, "hydra.run.dir=run", "train.iterations=4", "train.checkpoint_every=2", "plastic.least_inputs=8"]
    for command in (["train", *trained], ["test", "run=run", "progress=off"]):
        subprocess.run([*CLI, *command], cwd=place, check=True, capture_output=True)
    code = "from rlsnet.cli.commands.export import FORMATS, Options, main\nfor to in FORMATS: main(['run'], Options(to=to))"
    result = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Wrote run/export/") == len(FORMATS) and result.stderr == ""
    return place / "run"


@pytest.fixture(scope="module")
def truth(run):
    """The contents of the run folder, read with zarr alone: dense matrices [post, pre], spikes as (trial, step, neuron)."""
    net = zarr.open_group(str(run / "network.zarr"), mode="r")
    excitatory = net["neuron/excitatory"][...]
    n = len(excitatory)
    static, plastic = np.zeros((n, n)), np.zeros((n, n))
    ends, targets, by_class = net["static/indptr"][...], net["static/post"][...], net["static/class_weight"][...]
    for j in range(n):
        for i in targets[ends[j] : ends[j + 1]]:
            static[i, j] += by_class[int(not excitatory[j]), int(not excitatory[i])]
    pre = net["plastic/pre"][...]
    weight = zarr.open_group(str(run / "checkpoints/000004.zarr"), mode="r")["plastic/weight"][...]
    for i in range(n):
        plastic[i, pre[i][pre[i] >= 0]] = weight[i][pre[i] >= 0]
    test = zarr.open_group(str(run / "test.zarr"), mode="r")
    ends = test["spikes/trial_indptr"][...]
    trial = np.repeat(np.arange(4), np.diff(ends))
    spikes = np.stack([trial, test["spikes/step"][...], test["spikes/neuron"][...]]).astype(int)
    assert (pre < 0).any() and spikes.shape[1] > 100
    return {"excitatory": excitatory, "static": static, "plastic": plastic, "spikes": spikes, "bias": net["neuron/bias"][...]}


def as_set(trial, step, neuron) -> set[tuple[int, int, int]]:
    return set(zip(*(np.rint(values).astype(int).tolist() for values in (trial, step, neuron)), strict=True))


def test_npz_is_read_by_scipy_and_by_rlsnet(run, truth):
    for kind in ("static", "plastic"):
        matrix = scipy.sparse.load_npz(run / f"export/npz/{kind}.npz")
        assert matrix.format == "csr"
        np.testing.assert_array_equal(matrix.toarray(), truth[kind])
    pre, post, weight = edge_files.read_edges(str(run / "export/npz/static.npz"), "post")
    np.testing.assert_array_equal(scipy.sparse.coo_array((weight, (post, pre)), shape=(120, 120)).toarray(), truth["static"])
    values = np.load(run / "export/npz/neurons.npz")
    np.testing.assert_array_equal(values["bias"], truth["bias"])
    assert (values["tau_m"] == 10).all() and (values["tau_plastic"] == 150).all() and (values["excitatory"] == truth["excitatory"]).all()
    spikes = np.load(run / "export/npz/spikes.npz")
    assert as_set(2 * spikes["condition"] + spikes["trial"], spikes["time"] / 1e-4, spikes["neuron"]) == as_set(*truth["spikes"])
    about = json.loads((run / "export/npz/about.json").read_text())
    assert about["iteration"] == 4 and about["units"]["weight"] == "threshold*ms" and about["tau_plastic_ms"] == [150.0]
    mine = truth["plastic"][:, ~truth["excitatory"]][truth["excitatory"]]
    found = about["weights_by_class"]["plastic"]["I_to_E"]
    assert found["n"] == (mine != 0).sum() and found["mean"] == pytest.approx(mine[mine != 0].mean())
    assert found["sd"] == pytest.approx(mine[mine != 0].std())


def test_zarr_is_read_by_xarray(run, truth):
    data = xarray.open_zarr(run / "export/trained.zarr", consolidated=False).load()
    for kind in ("static", "plastic"):
        pre, post, weight = (data[f"{kind}_{name}"].values for name in ("pre", "post", "weight"))
        matrix = scipy.sparse.coo_array((weight, (post, pre)), shape=(120, 120)).toarray()
        np.testing.assert_array_equal(matrix, truth[kind])
        owner, other, ends = (pre, post, "csc_array") if kind == "static" else (post, pre, "csr_array")
        indptr = data[f"{kind}_indptr"].values
        assert (np.diff(owner) >= 0).all()
        np.testing.assert_array_equal(getattr(scipy.sparse, ends)((weight, other, indptr), shape=(120, 120)).toarray(), matrix)
        words = np.array(data[f"{kind}_class"].attrs["flag_meanings"].split())[data[f"{kind}_class"].values]
        classes = np.where(truth["excitatory"], "E", "I")
        np.testing.assert_array_equal(words, [f"{classes[j]}_to_{classes[i]}" for j, i in zip(pre, post, strict=True)])
    assert data.tau_m.attrs["units"] == "ms" and data.plastic_weight.attrs["units"] == "threshold*ms" and tuple(CLASSES)[1] == "E_to_I"
    assert data.condition.values.tolist() == ["0", "1"] and data.rate.dims == ("condition", "neuron")
    trial = np.repeat(np.arange(4), np.diff(data.spike_indptr.values))
    assert as_set(trial, data.spike_time.values / 1e-4, data.spike_neuron.values) == as_set(*truth["spikes"])
    assert data.trial_condition.values.tolist() == [0, 0, 1, 1]


def test_sonata_is_read_by_libsonata(run, truth):
    import libsonata

    circuit = libsonata.CircuitConfig.from_file(str(run / "export/sonata/circuit_config.json"))
    nodes = circuit.node_population("neurons")
    everybody = libsonata.Selection([(0, nodes.size)])
    assert (nodes.get_attribute("synapse_class", everybody) == np.where(truth["excitatory"], "EXC", "INH")).all()
    np.testing.assert_array_equal(nodes.get_dynamics_attribute("I_e", everybody), truth["bias"])
    cell = json.loads((run / "export/sonata/components/cell_models/e_100.json").read_text())
    assert np.exp(-0.1 / np.array([cell["tau_m"], *cell["tau_syn"]])) == pytest.approx(1 - 0.1 / np.array([10, 3, 3, 150]), abs=1e-14)
    for kind in ("static", "plastic"):
        edges = circuit.edge_population(kind)
        chosen = libsonata.Selection([(0, edges.size)])
        source, target, weight = edges.source_nodes(chosen), edges.target_nodes(chosen), edges.get_attribute("weight", chosen)
        np.testing.assert_array_equal(scipy.sparse.coo_array((weight, (target, source)), shape=(120, 120)).toarray(), truth[kind])
        types = (run / f"export/sonata/network/{kind}_types.csv").read_text().split()
        assert types[:5] == ["edge_type_id", "model_template", "delay", "dynamics_params", "tau_syn"] and types[7] == "0.1"
        sizes = edges.get_attribute("syn_weight", chosen)
        assert sizes == pytest.approx(weight / (3 if kind == "static" else 150) * (1.01708 if kind == "static" else 1.0), rel=6e-3)
        for neuron in (0, 7, 119):
            into, out = edges.afferent_edges([neuron]), edges.efferent_edges([neuron])
            np.testing.assert_array_equal(edges.source_nodes(into), np.flatnonzero(truth[kind][neuron]))
            np.testing.assert_array_equal(edges.target_nodes(out), np.flatnonzero(truth[kind][:, neuron]))
    spikes = libsonata.SpikeReader(str(run / "export/sonata/spikes.h5"))["neurons"]
    assert str(spikes.sorting) == "by_time"
    neuron, time = (np.array(values) for values in zip(*spikes.get(), strict=True))
    trial = (time // 1260).astype(int)  # 260 ms and a gap of 1 s
    assert as_set(trial, (time - 1260 * trial) / 0.1, neuron) == as_set(*truth["spikes"])
    lines = (run / "export/sonata/trials.csv").read_text().splitlines()
    assert lines[3] == "2520.0,2780.0,1,0,2540.0,2580.0"


def test_nwb_is_read_by_pynwb_and_by_h5py(run, truth):
    import h5py
    import pynwb

    path = run / "export/spikes.nwb"
    with pynwb.NWBHDF5IO(path, "r") as io:
        assert pynwb.validate(io=io) == []
        file = io.read()
        trials, units = file.trials.to_dataframe(), file.units.to_dataframe()
    assert trials.condition.tolist() == ["0", "0", "1", "1"] and trials.number.tolist() == [0, 1, 0, 1]
    assert np.allclose(trials.stop_time - trials.start_time, 0.26) and np.allclose(trials.stimulus_stop - trials.stimulus_start, 0.04)
    assert (units.cell_type == np.where(truth["excitatory"], "excitatory", "inhibitory")).all()
    found = set()
    for neuron, row in zip(units.neuron, units.itertuples(), strict=True):
        for k, (start, stop) in enumerate(zip(trials.stimulus_stop, trials.stop_time, strict=True)):
            mine = row.spike_times[(row.spike_times >= start - 1e-9) & (row.spike_times < stop)]
            found |= as_set(np.full(len(mine), k), (mine - trials.start_time[k]) / 0.0001, np.full(len(mine), neuron))
            np.testing.assert_allclose(row.obs_intervals[k], [start, stop])
    assert found == as_set(*truth["spikes"])
    with h5py.File(path) as file:
        ends = file["units/spike_times_index"][...]
        assert len(ends) == 120 and ends[-1] == len(file["units/spike_times"]) == truth["spikes"].shape[1]
        assert (np.diff(file["units/spike_times"][: ends[0]]) > 0).all()


def test_the_files_of_a_simulator_hold_the_network(run, truth):
    for tool in ("nest", "brian2"):
        folder = run / f"export/{tool}"
        for kind in ("static", "plastic"):
            pre, post, weight = (np.load(folder / f"{kind}_{name}.npy") for name in ("pre", "post", "weight"))
            np.testing.assert_array_equal(scipy.sparse.coo_array((weight, (post, pre)), shape=(120, 120)).toarray(), truth[kind])
        assert np.load(folder / "v0.npy").shape == (2, 2, 120) and np.load(folder / "stimulus.npy").shape == (2, 399, 120)
        about = json.loads((folder / "network.json").read_text())
        rate = zarr.open_group(str(run / "test.zarr"), mode="r")["rate"][...]
        assert about["rlsnet_rates_hz"]["inh"] == pytest.approx(rate[:, ~truth["excitatory"]].mean(axis=1))


@pytest.mark.parametrize("source", ["trained.zarr", "npz", "sonata", "spikes.nwb"])
def test_simulated_spikes_are_imported_again(run, tmp_path, source):
    """The PSTHs of an import of each export with spikes are those of rlsnet test."""
    test = zarr.open_group(str(run / "test.zarr"), mode="r")
    psth, every = test["psth"][...], 1000 * np.diff(test["time"][:2]).item()  # Hz, ms
    options = {"align": "stimulus_stop", "bin": every, "window": [0, psth.shape[1] * every / 1000], "kernel": "none", "min_trials": 1}
    conditions = {f"c{name}": f"condition == {name}" for name in ("0", "1")}
    import_sources([run / "export" / source], tmp_path / "again.zarr", options_of({**options, "conditions": conditions}), log=len)
    again = zarr.open_group(str(tmp_path / "again.zarr"), mode="r")
    kept = again["unit/id"][...].astype(int)
    assert len(kept) > 60 and not psth[..., np.setdiff1d(np.arange(120), kept)].any()
    np.testing.assert_allclose(again["rate"][...].mean(axis=1), psth[..., kept].mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(again["rate"][...], psth[..., kept], rtol=1e-5)


@pytest.mark.parametrize("start", [-0.5, None])
def test_spikes_in_time_of_the_recording_or_of_the_trial(run, tmp_path, start):
    """Times from another zero, and those of earlier versions, in ms from the start of the trial, give the same session."""
    expected = rlsnet_export.read(run / "export/npz", ImportOptions())
    shutil.copytree(run / "export/npz", tmp_path / "npz")
    about = json.loads((tmp_path / "npz/about.json").read_text())
    with np.load(tmp_path / "npz/spikes.npz") as file:
        spikes = dict(file)
    spikes["time"] = spikes["time"] * 1000 if start is None else spikes["time"] + start
    about |= {"time": about["time"] | {"start_s": start}}
    np.savez(tmp_path / "npz/spikes.npz", **spikes)
    (tmp_path / "npz/about.json").write_text(
        json.dumps({name: each for name, each in about.items() if name != "time" or start is not None})
    )
    found = rlsnet_export.read(tmp_path / "npz", ImportOptions())
    np.testing.assert_allclose(found.spike_times, expected.spike_times, atol=1e-9)
    np.testing.assert_allclose(found.trials["time_zero"] - found.trials["start_time"], -(start or 0.0), atol=1e-9)


@pytest.mark.parametrize("source", ["trained.zarr", "npz"])
def test_an_exported_network_is_loaded_again(run, truth, tmp_path, source):
    """Synapses and parameters are those that were exported; from trained.zarr the same spikes too."""
    path, n = run / "export" / source, 120
    stored = network_store.StoredNetwork(str(path))
    excitatory, edges = stored.read("neuron/excitatory", [n], "b"), network_store.read_static_edges(stored, n)
    np.testing.assert_array_equal(excitatory, truth["excitatory"])
    static, plastic, classes = np.zeros((n, n)), np.zeros((n, n)), (~excitatory).astype(int)
    pre = np.repeat(np.arange(n), np.diff(edges.indptr))
    weight = edges.class_weight[classes[pre], classes[edges.post]] if edges.weight is None else edges.weight
    np.add.at(static, (edges.post, pre), weight)
    inputs, weight = network_store.read_plastic_inputs(stored, n, 1, True), stored.read("plastic/weight", [n, "L"], "f")
    np.add.at(plastic, (np.nonzero(inputs >= 0)[0], inputs[inputs >= 0]), weight[inputs >= 0])
    np.testing.assert_allclose(static, truth["static"], rtol=1e-12)
    np.testing.assert_array_equal(plastic, truth["plastic"])
    assert np.all(stored.read("neuron/bias", [n], "f") == 1.5) and np.all(stored.read("neuron/tau_plas", [n], "f") == 150)
    if source == "npz":
        shutil.copytree(path, tmp_path / "npz")
        (tmp_path / "npz/plastic.npz").write_bytes((path / "plastic.npz").read_bytes()[:200])
        with pytest.raises(UserError, match="network.load=.*npz: the export is damaged"):
            network_store.open_network(str(tmp_path / "npz"))
        return
    command = ["simulate", *SMALL, "plastic.least_inputs=8", f"network.load={path}", "hydra.run.dir=again"]
    subprocess.run([*CLI, *command], cwd=tmp_path, check=True, capture_output=True)
    one, other = (zarr.open_group(str(folder / "test.zarr"), mode="r") for folder in (run, tmp_path / "again"))
    for name in ("spikes/step", "spikes/neuron"):
        np.testing.assert_array_equal(one[name][...], other[name][...])


def test_exports_without_spikes_say_how_to_get_them(run, tmp_path):
    for tool in ("nest", "brian2"):
        with pytest.raises(UserError, match=r"is a network for a simulator, without spikes; python simulate.py --out FILE.npz makes them"):
            import_sources([run / "export" / tool], tmp_path / "x.zarr", options_of({}), log=len)
    shutil.copytree(run / "export/npz", tmp_path / "npz")
    (tmp_path / "npz/spikes.npz").unlink()
    with pytest.raises(UserError, match="has no spikes.npz; rlsnet test, and then the export again"):
        import_sources([tmp_path / "npz"], tmp_path / "x.zarr", options_of({}), log=len)


def of_config(*overrides: str) -> TrainedNetwork:
    """A network with its initial weights in place of trained ones."""
    config = compose(*SIZES, *overrides)
    net, weight, _ = build.build(config)
    return TrainedNetwork(Run("nowhere"), config, net, weight, 0, ("0",), None)


def matrix(blocks, n: int = 120) -> np.ndarray:
    """[post, pre] sums of weights, for any number of presynaptic neurons."""
    found = np.zeros((n, 2 * n))
    for block in blocks:
        np.add.at(found, (block.post, block.pre), block.weight)
    return found


def test_blocks_and_procedural_synapses_make_the_same_matrix(monkeypatch):
    stored, drawn = of_config(), of_config("static.storage=procedural")
    assert len(drawn.network.post) == 0
    expected = matrix(static_synapses(stored))
    assert (expected != 0).sum() == 120 * 24
    plastic = matrix(plastic_synapses(stored))
    monkeypatch.setattr("rlsnet.exports.synapses.SYNAPSES_PER_BLOCK", 100)
    assert len(list(static_synapses(drawn))) == 30 and len(list(plastic_synapses(stored))) > 10
    np.testing.assert_array_equal(matrix(static_synapses(drawn)), expected)
    np.testing.assert_array_equal(matrix(static_synapses(stored)), expected)
    np.testing.assert_array_equal(matrix(plastic_synapses(stored)), plastic)


def test_neurons_in_groups_and_feedforward_ones():
    trained = of_config("plastic.group_size=50", "feedforward=ou", "feedforward.n_neurons=5", "synapse.tau_plas=[100,150]")
    pre, weight = np.asarray(trained.network.pre), trained.weight
    expected = np.zeros((120, 240))
    for i in range(120):
        expected[i, pre[i // 50, 5:]] += weight[i, 5:]
    np.testing.assert_array_equal(matrix(plastic_synapses(trained)), expected)
    np.testing.assert_array_equal(trained.feedforward_weight, weight[:, :5])
    assert trained.tau_plastic.tolist() == [100.0] * 60 + [150.0] * 60 + [100.0] * 5


@pytest.mark.parametrize(
    ("to", "more", "message"),
    [
        ("npz", {}, "exists already; expected overwrite=true to replace it"),
        ("npz", {"out": "export/sonata", "overwrite": True}, "exists and is not an export to npz"),
        ("nwb", {"out": ".", "overwrite": True}, "exists and is not an export to nwb"),
        ("zarr", {"checkpoint": "7", "out": "new"}, "checkpoint=7: .* has no such checkpoint; it has checkpoints of iterations 2, 4"),
        ("nwb", {"checkpoint": "2", "out": "new"}, r"test.zarr has other weights \(of iteration 4; expected 2\); rlsnet test "),
    ],
)
def test_mistakes_are_one_line(run, to, more, message):
    before = sorted(p.name for p in run.iterdir())
    if "out" in more:
        more = {**more, "out": str(run / more["out"])}
    with pytest.raises(UserError, match=message):
        export(run, to, **more)
    assert sorted(p.name for p in run.iterdir()) == before


def test_what_is_no_export_stays(run, tmp_path):
    """overwrite=true replaces exports of the same format, nothing else."""
    zarr.create_group(str(tmp_path / "mine.zarr"), attributes={"format": "rlsnet-recording"})
    (tmp_path / "notes.nwb").write_text("precious")
    shutil.copytree(run / "export" / "nest", tmp_path / "nest")
    for to, name in (("zarr", "mine.zarr"), ("nwb", "notes.nwb"), ("brian2", "nest")):
        with pytest.raises(UserError, match=f"exists and is not an export to {to}"):
            export(run, to, tmp_path / name, overwrite=True)
    assert (tmp_path / "notes.nwb").read_text() == "precious"
    for to, name in (("zarr", "trained.zarr"), ("nest", "nest")):
        export(run, to, run / "export" / name, overwrite=True)


@pytest.mark.parametrize("to", FORMATS)
def test_a_dry_run_says_the_size_and_writes_nothing(run, capsys, to):
    """The size is that of the export in RUN/export; a format that cannot express the network is refused as without --dry-run."""
    before = {path: path.stat().st_mtime for path in run.rglob("*")}
    dispatch(["export", str(run), f"to={to}", "overwrite=true", "--dry-run"])
    shown = capsys.readouterr().out
    out = run / "export" / format_module(to).FILE_NAME
    size = sum(file.stat().st_size for file in ([out] if out.is_file() else out.rglob("*")) if file.is_file())
    assert f"{out} is not replaced." in shown and {path: path.stat().st_mtime for path in run.rglob("*")} == before
    taken = re.search(r"It would take ([\d.]+) (kB|MB): ", shown)
    assert float(taken[1]) * {"kB": 1e3, "MB": 1e6}[taken[2]] == pytest.approx(size, rel=0.02)
    with pytest.raises(UserError, match="exists already"):
        dispatch(["export", str(run), f"to={to}", "--dry-run"])


def test_overwrite_replaces_and_leaves_nothing_else(run):
    stale, notes = run / "export/npz/feedforward.npz", run / "export/npz/notes.txt"
    for each in (stale, notes):
        each.write_text("")
    with pytest.raises(UserError, match="exists and is not an export to npz, and nothing else"):
        export(run, "npz", overwrite=True)
    notes.unlink()
    out, _ = export(run, "npz", overwrite=True)
    assert out == run / "export/npz" and not stale.exists()
    assert {p.name for p in (run / "export").iterdir()} == {"npz", "sonata", "nest", "brian2", "trained.zarr", "spikes.nwb"}


def test_what_does_not_fit_in_memory_is_refused(run, monkeypatch):
    monkeypatch.setattr(memory_plan, "free_memory", lambda: 1000)
    for to in ("npz", "sonata", "nwb"):
        with pytest.raises(UserError, match=r"this format needs .* for .*, but 1 kB are free; to=zarr is written in blocks"):
            export(run, to, run / "new")
    for to in ("zarr", "nest"):  # in blocks
        assert export(run, to, run / f"small/{to}")[0].exists()
    assert not [p for p in run.iterdir() if "new" in p.name]


def test_without_pynwb_the_extra_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynwb", None)
    with pytest.raises(UserError, match=r"expected the package pynwb; pip install 'rlsnet\[nwb\]'"):
        export(run, "nwb", run / "new.nwb")


def test_a_simulator_that_lacks_the_model_says_so(tmp_path):
    from rlsnet.exports import brian2, nest, sonata

    glif = of_config("neuron=glif5")
    for module, tool in ((nest, "NEST"), (sonata, "SONATA")):
        with pytest.raises(UserError, match=f"{tool} has no model of neuron=glif5 .* only of lif, glif1; use to=brian2, to=zarr or to=npz"):
            module.write(glif, tmp_path / "new")

    plugin = of_config()
    plugin = dataclasses.replace(plugin, config=dataclasses.replace(plugin.config, neuron=types.SimpleNamespace(name="mine")))
    with pytest.raises(UserError, match="Brian2 has no model of neuron=mine .*; use to=zarr or to=npz"):
        brian2.write(plugin, tmp_path / "new")
    with pytest.raises(UserError, match="to=sonata: expected no feed-forward neurons"):
        sonata.write(of_config("feedforward=ou"), tmp_path / "new")
    many = of_config()
    many.network.parameters["tau_plas"] = jax.numpy.linspace(100, 150, 120)
    with pytest.raises(UserError, match=r"neuron/tau_plas has 120 different decay times; expected at most 8"):
        brian2.write(many, tmp_path / "other")
    assert not (tmp_path / "new").exists()


def test_exports_carry_delays_and_background(tmp_path):
    """A delay of each static synapse, and others of plastic ones, in all formats; loaded again they are the same."""
    from rlsnet.exports import brian2, npz, sonata
    from rlsnet.exports import zarr as zarr_export

    arrays = small_network(3)
    arrays["static/delay"] = np.random.default_rng(0).integers(1, 20, len(arrays["static/post"])).astype(np.float32) / 10
    write_network(tmp_path / "n.zarr", arrays)
    more = [f"network.load={tmp_path}/n.zarr", "synapse.delay=[0.5,1.5]", "network.n_neurons=60", "trial.duration=200"]
    made = {}
    for kind in ("none", "poisson"):
        config = compose("config=tiny", f"background.kind={kind}", "background.weight=[0.2,0.3]", *more)
        net, weight, _ = build.build(config)
        made[kind] = TrainedNetwork(Run(tmp_path / "run"), config, net, np.asarray(weight), 0, ("0",), None)
    expected = sorted(zip(*(arrays[f"static/{name}"] for name in ("post", "weight", "delay")), strict=True))
    for kind, trained in made.items():
        for to, name in ((zarr_export, "trained.zarr"), (npz, "npz")):
            path = tmp_path / f"{kind}-{name}"
            to.write(trained, path)
            stored = network_store.StoredNetwork(str(path))
            edges = network_store.read_static_edges(stored, 60)
            np.testing.assert_allclose(sorted(zip(edges.post, edges.weight, edges.delay, strict=True)), expected, rtol=1e-6)
            background = stored.read("neuron/background_weight", [60], "f")
            assert (background is None) == (kind == "none")
    np.testing.assert_allclose(background, np.where(arrays["neuron/excitatory"], 0.2, 0.3), rtol=1e-6)
    plain = made["none"]
    sonata.write(plain, tmp_path / "sonata")
    brian2.write(plain, tmp_path / "brian2")
    with h5py.File(tmp_path / "sonata/network/static_edges.h5") as file:
        found = [file["edges/static"][name][...] for name in ("target_node_id", "0/weight", "0/delay")]
    np.testing.assert_allclose(sorted(zip(*found, strict=True)), expected, rtol=1e-6)
    assert "delay" not in (tmp_path / "sonata/network/static_types.csv").read_text()
    pre, delay = (np.load(tmp_path / f"brian2/plastic_{name}.npy") for name in ("pre", "delay"))
    np.testing.assert_allclose(delay, np.where(arrays["neuron/excitatory"][pre], 0.5, 1.5))
    with pytest.raises(UserError, match=r"export: the scripts for Brian2 have no background.kind=poisson; use to=zarr or to=npz."):
        brian2.write(made["poisson"], tmp_path / "other")


def test_settings_with_dashes():
    def parsed(*arguments: str):
        return plain_arguments(Options, "export", arguments)

    expected = (["run"], Options(to="npz", out="there", overwrite=True))
    for arguments in (
        ["run", "to=npz", "out=there", "overwrite=true"],
        ["run", "--to=npz", "--out=there", "--overwrite=true"],
        ["--to", "npz", "run", "--out", "there", "--overwrite"],
        ["--overwrite", "run", "--to", "npz", "out=there"],
        ["--overwrite", "true", "run", "to=npz", "--out", "there"],
    ):
        assert parsed(*arguments) == expected
    for arguments, message in (
        (["run", "--to"], "--to: expected a value, as --to VALUE or to=VALUE"),
        (["run", "--two", "npz"], "export --two: no such option"),
        (["run", "-t", "npz"], "export -t: no such option"),
        (["run", "--to", "csv"], "to=csv: expected zarr, npz, sonata"),
        (["run"], "to: missing; expected format of the export: zarr"),
    ):
        with pytest.raises(UserError, match=message):
            parsed(*arguments)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--to", "npz", "--help"]])
def test_help_needs_no_jax(arguments):
    code = f"import sys; sys.argv = ['rlsnet', 'export', *{arguments!r}]\nfrom rlsnet.cli.main import main\n"
    code += "try: main()\nexcept SystemExit as e: assert not e.code\nassert not {'jax', 'numpy', 'zarr'} & set(sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "overwrite" in result.stdout and "sonata" in result.stdout


# with the other simulators


def simulate(place: Path, *overrides: str, trials: int = 2) -> Path:
    """A run of rlsnet simulate."""
    subprocess.run(
        [*CLI, "simulate", *SMALL, f"test.trials={trials}", *overrides, "hydra.run.dir=run"], cwd=place, check=True, capture_output=True
    )
    return place / "run"


def test_a_run_without_training_is_exported_with_its_initial_weights(tmp_path):
    run = simulate(tmp_path, trials=1)
    out, trained = export(run, "npz")
    assert trained.iteration == 0 and trained.test is not None and out.exists()
    np.testing.assert_array_equal(trained.weight, zarr.open_group(str(run / "network.zarr"), mode="r")["plastic/weight"][...])


def run_script(run: Path, tool: str, trials: int) -> np.lib.npyio.NpzFile:
    """The spikes of an exported script that is run from another folder."""
    subprocess.run([*CLI, "export", run.name, "--to", tool], cwd=run.parent, check=True, capture_output=True)
    elsewhere = run.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    out = elsewhere / f"{tool}.npz"
    command = [sys.executable, str(run / f"export/{tool}/simulate.py"), "--trials", str(trials), "--out", str(out)]
    result = subprocess.run(
        [*command, *(["--codegen", "numpy"] if tool == "brian2" else [])], cwd=elsewhere, capture_output=True, text=True
    )
    assert result.returncode == 0 and "rlsnet test" in result.stdout, result.stdout + result.stderr
    return np.load(out)


def spikes_of_test(run: Path, trials: int) -> set[tuple[int, int, int]]:
    test = zarr.open_group(str(run / "test.zarr"), mode="r")
    ends = test["spikes/trial_indptr"][...]
    assert len(ends) == 1 + 2 * trials
    return as_set(np.repeat(np.arange(2 * trials), np.diff(ends)), test["spikes/step"][...], test["spikes/neuron"][...])


def spikes_of_script(found, trials: int) -> set[tuple[int, int, int]]:
    return as_set(trials * found["condition"] + found["trial"], found["step"], found["neuron"])


EXACT = {
    "trained lif": ["neuron.refractory=0.5"],
    "glif5": ["neuron=glif5", "neuron.refractory=[0.3,1.0]", "neuron.tau_m=[8,12]", "neuron.adaptation_rate=0.002"],
    "glif3, shared inputs, two decay times": ["neuron=glif3", "plastic.group_size=16", "synapse.tau_plas=[60,150]"],
    "delays by class": ["synapse.delay=[0.5,1.5]"],
    "glif2, no static synapses": ["neuron=glif2", "static.out_degree=0"],
}


@pytest.mark.simulators
@pytest.mark.parametrize("case", EXACT)
def test_brian2_makes_the_same_spikes(tmp_path, record_check, case):
    if case == "trained lif":
        run = tmp_path / "run"
        for command in (["train", *SMALL, *EXACT[case], "hydra.run.dir=run", "train.iterations=4"], ["test", "run=run", "progress=off"]):
            subprocess.run([*CLI, *command], cwd=tmp_path, check=True, capture_output=True)
    else:
        run = simulate(tmp_path, *EXACT[case])
    ours, theirs = spikes_of_test(run, 2), spikes_of_script(run_script(run, "brian2", 2), 2)
    what = f"rlsnet export to=brian2, {case}: 120 neurons, 2 conditions, 2 trials of 260 ms, float64"
    record_check("V12 exported to Brian2", what, "the same spikes", f"{len(ours)} spikes, {len(ours ^ theirs)} differ")
    assert ours == theirs and len(ours) > 150


@pytest.mark.simulators
@pytest.mark.parametrize("model", ["lif", "glif1"])
def test_nest_makes_the_same_spikes_without_synapses(tmp_path, record_check, model):
    more = ["neuron.rest=0.1"] if model == "glif1" else []
    alone = ["static.out_degree=0", "plastic.strength=0", "network.bias=[1.6,1.3]", "neuron.refractory=[0.5,2]", "neuron.tau_m=[9,14]"]
    run = simulate(tmp_path, f"neuron={model}", *alone, *more)
    ours, theirs = spikes_of_test(run, 2), spikes_of_script(run_script(run, "nest", 2), 2)
    what = f"rlsnet export to=nest, {model}: 120 neurons that only get bias and stimulus, 2 conditions, 2 trials of 260 ms, float64"
    record_check("V13 exported to NEST", what, "the same spikes", f"{len(ours)} spikes, {len(ours ^ theirs)} differ")
    assert ours == theirs and len(ours) > 1000


RATES = {
    "voltage noise": ["noise.sigma=[0.4,0.6]"],
    "current noise, no synapses": [
        "noise.sigma=0.65",
        "noise.kind=current",
        "static.out_degree=0",
        "plastic.strength=0",
        "network.bias=[0.5,0.8]",
    ],
    "feed-forward neurons": ["feedforward=ou", "feedforward.n_neurons=20", "feedforward.mean=40", "feedforward.strength=4"],
    "feed-forward neurons that fire before stim_off too": [
        *("feedforward=ou", "feedforward.n_neurons=20", "feedforward.mean=40", "feedforward.strength=4", "feedforward.before=true"),
    ],
    "two decay times": ["synapse.tau_plas=[60,150]"],
    "delays by class": ["synapse.delay=[0.5,1.5]"],
}


def trial_rates(spikes: set[tuple[int, int, int]], excitatory: np.ndarray, trials: int) -> np.ndarray:
    """[2, trials] mean rate of excitatory and of inhibitory neurons in Hz, 60 of each in 200 ms."""
    trial, _, neuron = np.array(sorted(spikes)).T
    counts = [np.bincount(trial[excitatory[neuron] == kind], minlength=trials) for kind in (True, False)]
    return np.stack(counts) / 60 / 0.2


@pytest.mark.simulators
@pytest.mark.parametrize("case", RATES)
def test_rates_agree(tmp_path, record_check, case):
    trials = 12
    run = simulate(tmp_path, *RATES[case], trials=trials)
    excitatory = zarr.open_group(str(run / "network.zarr"), mode="r")["neuron/excitatory"][...]
    ours = trial_rates(spikes_of_test(run, trials), excitatory, 2 * trials)
    for tool in ("brian2", "nest"):
        theirs = trial_rates(spikes_of_script(run_script(run, tool, trials), trials), excitatory, 2 * trials)
        error = np.hypot(*(side.std(axis=1, ddof=1) / np.sqrt(2 * trials) for side in (ours, theirs)))
        z = (theirs.mean(axis=1) - ours.mean(axis=1)) / error
        what = f"rlsnet export to={tool}, {case}: mean rates of 120 neurons, {2 * trials} trials of 200 ms"
        rates = [f"{a:.2f} and {b:.2f} Hz" for a, b in zip(ours.mean(axis=1), theirs.mean(axis=1), strict=True)]
        seen = f"rlsnet and {tool}: {rates[0]} excitatory, {rates[1]} inhibitory; {z[0]:+.1f} and {z[1]:+.1f} standard errors"
        record_check(f"V13 exported to {tool}", what, "within 3.5 standard errors", seen)
        assert (np.abs(z) < 3.5).all() and ours.mean(axis=1).min() > 1
