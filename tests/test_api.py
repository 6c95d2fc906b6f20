"""Python interface: `import rlsnet`, as in a script or a notebook."""

import contextlib
import dataclasses
import doctest
import json
import logging
import os
import pydoc
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import xarray
import zarr

import rlsnet
from rlsnet import api, results
from rlsnet.runs.folder import Run

SMALL = ["config=tiny", "network.n_neurons=64", "static.out_degree=12", "plastic.n_inputs=8", "trial.duration=200", "train.iterations=2"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run `a` of 2 iterations, which is tested."""
    place = tmp_path_factory.mktemp("place")
    run = rlsnet.train(rlsnet.compose(*SMALL), place / "a")
    rlsnet.test(run, trials=1)
    return place


def test_home_and_numbers_of_numpy(place, monkeypatch):
    """~ in every path, and NumPy's numbers in a configuration that dataclasses.replace has changed."""
    monkeypatch.setenv("HOME", str(place))
    assert rlsnet.open_run("~/a").path == place / "a" and api._new("~/new").path == place / "new" and "psth" in rlsnet.load("~/a")
    config = rlsnet.compose(*SMALL)
    changed = dataclasses.replace(config, train=dataclasses.replace(config.train, iterations=np.int64(2), stop_when=None))
    changed = dataclasses.replace(changed, rls=dataclasses.replace(config.rls, penlambda=np.float32(0.5)), seed=np.array(3))
    checked = api._checked(changed)
    assert (checked.train.iterations, checked.rls.penlambda, checked.seed) == (2, 0.5, 3) and type(checked.train.iterations) is int


@pytest.mark.parametrize("command", [rlsnet.train, rlsnet.simulate])
def test_an_interrupt_that_a_library_swallows_is_not_lost(tmp_path, monkeypatch, command):
    """As in a callback, during the preparation."""

    def swallowed(*arguments):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return save(*arguments)

    save, before = Run.save_config, signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(Run, "save_config", swallowed)
    try:
        with pytest.raises(KeyboardInterrupt):
            command(rlsnet.compose(*SMALL), tmp_path / "run")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    run = Run(tmp_path / "run")
    assert (run.path / "config.yaml").exists() and not run.iterations() and not run.test.exists()


def test_importing_it_is_light():
    code = "import sys, rlsnet; assert not {'jax', 'numpy', 'hydra', 'zarr', 'matplotlib'} & set(sys.modules); print(dir(rlsnet))"
    code += "\nrlsnet.compose('config=tiny'); assert 'jax' not in sys.modules"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert all(f"'{command}'" in output for command in rlsnet.__all__)
    assert rlsnet.__all__ == api.__all__


def test_the_docstrings_do_what_they_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tests = [each for module in (api, results) for each in doctest.DocTestFinder().find(module) if each.examples]
    order = ["compose", "import_recordings", "import_network", "recording_from_arrays", "train", "test", "load", "Run"]
    assert {each.name.rsplit(".", 1)[1] for each in tests} == set(order)
    runner = doctest.DocTestRunner()
    for each in sorted(tests, key=lambda each: order.index(each.name.rsplit(".", 1)[1])):
        assert runner.run(each).failed == 0


def test_it_does_what_the_command_line_does(place):
    """The same folder, to the bit, and the same log."""
    command = [sys.executable, "-m", "rlsnet", "train", *SMALL, "hydra.run.dir=b"]
    subprocess.run(command, check=True, cwd=place, capture_output=True)
    ends = [zarr.open_group(str(place / name / "checkpoints" / "000002.zarr"), mode="r") for name in "ab"]
    for name in ("plastic/weight", "P"):
        np.testing.assert_array_equal(ends[0][name][...], ends[1][name][...])
    assert (place / "a" / "config.yaml").read_text() == (place / "b" / "config.yaml").read_text()
    lines = [(place / name / "rlsnet.log").read_text().splitlines() for name in "ab"]
    plain = [re.sub(r"\d[\d.:,-]*", "", next(line for line in log if "INFO Memory plan" in line)) for log in lines]
    assert plain[0][:30] == plain[1][:30]


def test_results(place):
    results = rlsnet.load(place / "a")
    assert results["psth"].shape == (1, 20, 64) and isinstance(results["psth"][...], np.ndarray)
    run = rlsnet.open_run(str(place / "a"))
    opened = xarray.open_zarr(run.test, consolidated=False)
    np.testing.assert_array_equal(opened.current_correlation, results["current_correlation"][...])
    assert [line["iteration"] for line in run.read_metrics()][:2] == [1, 2]
    assert rlsnet.test(run, trials=2, neurons="0:10")["psth"].shape == (1, 20, 10)
    simulated = rlsnet.simulate(rlsnet.compose(*SMALL, "test.trials=1"), place / "simulated")
    assert simulated.attrs["iteration"] == 0 and simulated["psth"].shape == (1, 20, 64)


def test_resume_and_what_it_refuses(place):
    config = rlsnet.compose(*SMALL)
    with pytest.raises(rlsnet.UserError, match=r"a: contains a run of \d iterations; resume=True continues it"):
        rlsnet.train(config, place / "a")
    longer = dataclasses.replace(config, train=dataclasses.replace(config.train, iterations=3))
    assert rlsnet.train(longer, place / "a", resume=True).iterations()[-1] == 3
    with pytest.raises(rlsnet.UserError, match="seed=2: .* was made with 1"):
        rlsnet.train(dataclasses.replace(longer, seed=2), place / "a", resume=True)


def test_a_replaced_value_is_checked(place, tmp_path):
    config = rlsnet.compose(*SMALL)
    for change, message in (
        ({"penlambda": -1.0}, "rls.penlambda=-1.0: expected a value above 0"),
        ({"window": "x"}, "rls.window=x: expected a whole"),
    ):
        wrong = dataclasses.replace(config, rls=dataclasses.replace(config.rls, **change))
        with pytest.raises(rlsnet.UserError, match=re.escape(message)):
            rlsnet.train(wrong, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    for wrong, message in (
        ("trial.lern_every=5", "trial.lern_every: no such key. Did you mean trial.learn_every?"),
        ("config=nothing", "config=nothing: no such configuration; expected brunel, demo, microcircuit, million, million_small_memory, "),
        ("rls.penlambda=a", "rls.penlambda=a: expected a number"),
        ("trial.dt=[", "trial.dt="),
    ):
        with pytest.raises(rlsnet.UserError, match=re.escape(message)):
            rlsnet.compose(wrong)
    with pytest.raises(rlsnet.UserError, match="test.trails: no such key"):
        rlsnet.test(place / "a", trails=1)
    with pytest.raises(rlsnet.UserError, match="not a run folder"):
        rlsnet.load(tmp_path)
    with pytest.raises(rlsnet.UserError, match="config_dir=nowhere: no such folder"):
        rlsnet.compose(config_dir="nowhere")


def test_options_of_ones_own_and_units(tmp_path):
    (tmp_path / "it's" / "config").mkdir(parents=True)
    (tmp_path / "it's" / "config" / "mine.yaml").write_text("# @package _global_\ndefaults: [tiny]\nseed: 7\n")
    config = rlsnet.compose("config=mine", "trial.dt=100 µs", "target.period=1 s", config_dir=tmp_path / "it's")
    assert (config.seed, config.trial.dt, config.target.period) == (7, 0.1, 1000.0)


def test_within_a_program_that_uses_hydra():
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from rlsnet.config.compose import configs_dir

    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        outer = GlobalHydra.instance().hydra
        assert rlsnet.compose("config=tiny").network.n_neurons == 512
        assert GlobalHydra.instance().hydra is outer
    assert not GlobalHydra.instance().is_initialized()


def test_logging_and_figures_leave_the_program_as_it_was(place, tmp_path, capsys):
    import matplotlib
    import matplotlib.pyplot as plt

    logger, root, handler = logging.getLogger("rlsnet"), logging.getLogger(), logging.StreamHandler(sys.stdout)
    before, level = (logger.level, logger.propagate, list(logger.handlers)), root.level
    plt.switch_backend("svg")
    plt.rcParams["font.size"] = 17
    root.addHandler(handler)
    try:
        root.setLevel("WARNING")
        files = rlsnet.plot(place / "a")
        rlsnet.simulate(rlsnet.compose(*SMALL, "test.trials=1"), tmp_path / "s")
        assert "Run folder" not in capsys.readouterr().out
        root.setLevel("INFO")
        rlsnet.simulate(rlsnet.compose(*SMALL, "test.trials=1"), tmp_path / "s")
        assert "Run folder" in capsys.readouterr().out
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert (logger.level, logger.propagate, logger.handlers) == before
    assert plt.rcParams["font.size"] == 17 and matplotlib.get_backend().lower() == "svg"
    assert "learning_curve.png" in [path.name for path in files] and all(path.exists() for path in files)
    plt.rcdefaults()
    plt.switch_backend("agg")


def test_an_interrupt_saves_and_then_interrupts(tmp_path):
    """Ctrl-C in a notebook; the handler is set because a shell starts background jobs with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config = rlsnet.compose(*SMALL, "train.iterations=100000", "progress=off")

    def interrupt() -> None:
        metrics = tmp_path / "run" / "metrics.jsonl"
        while not metrics.exists() or metrics.read_text().count("\n") < 2:
            pass
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        rlsnet.train(config, tmp_path / "run")
    thread.join()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert rlsnet.open_run(tmp_path / "run").iterations()[-1] == json.loads(lines[-1])["iteration"] == len(lines)


def test_help_lists_what_there_is():
    """The table in rlsnet's own docstring, which help(rlsnet) opens with."""
    text = rlsnet.__doc__ or ""
    methods = set(re.findall(r"run\.(\w+)\(", text))
    assert methods == {name for name in vars(rlsnet.Run) if not name.startswith("_")} - {"select"}
    assert all(f"{name}(" in text or name in ("Config", "Run", "UserError") for name in rlsnet.__all__)
    rendered = pydoc.render_doc(rlsnet, renderer=pydoc.plaintext)
    assert rendered.index("recording_from_arrays(out") < rendered.index("PACKAGE CONTENTS")


def test_the_example_in_the_package_runs(tmp_path, monkeypatch):
    """The lines of rlsnet's own docstring."""
    monkeypatch.chdir(tmp_path)
    code = "\n".join(line[4:] for line in (rlsnet.__doc__ or "").splitlines() if line.startswith("    "))
    assert len(code.splitlines()) <= 10 and "rlsnet.train" in code
    exec(code.replace('"train.iterations=20"', '"train.iterations=2", "network.n_neurons=64", "static.out_degree=12"'), {})
    assert Path("first/figures/learning_curve.png").exists()


TIME = (-0.3, 0.3)  # s, of 30 bins of 20 ms


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A run on rates of 40 units in two sessions that have the same ids, tested without and with silenced neurons."""
    place, random = tmp_path_factory.mktemp("recorded"), np.random.default_rng(0)
    units = {"id": [*range(100, 120), *range(100, 120)], "region": ["ALM", "thalamus"] * 20, "excitatory": [True, True, False, None] * 10}
    rate = random.uniform(5, 20, (2, 1, 40)) + 5 * np.sin(np.linspace(0, 6, 30)[None, :, None] + random.uniform(0, 6, 40))
    conditions, session = ["left", "right"], ["monday"] * 20 + ["tuesday"] * 20
    recording = rlsnet.recording_from_arrays(
        place / "mine.zarr", rate=rate, window=TIME, event="go_cue", conditions=conditions, session=session, **units
    )
    overrides = [
        "config=tiny",
        "target=recording",
        "network.n_neurons=null",
        "static.out_degree=10",
        "noise.sigma=0.5",
        "stimulus.sigma=0.5",
    ]
    run = rlsnet.train(rlsnet.compose(*overrides, *recording.settings(), "train.iterations=3"), place / "run")
    rlsnet.test(run, trials=3)
    rlsnet.test(run, trials=3, perturb={"name": "silence", "neurons": "region:ALM", "window": [-0.1, 0.1]})
    return run, recording, rate


def test_what_recordings_configurations_and_runs_print(recorded, tmp_path):
    run, recording, _ = recorded
    assert repr(recording).endswith("mine.zarr: rate of 40 units, 2 conditions (left, right), 30 bins of 20 ms, -0.3 to 0.3 s>")
    config = rlsnet.compose("config=tiny", "rls.penlambda=0.4", "recording.path=a b.zarr")
    assert repr(config) == """rlsnet.compose('config=tiny', "recording.path='a b.zarr'", 'rls.penlambda=0.4')"""
    assert eval(repr(config)) == config and repr(rlsnet.Config()) == "rlsnet.compose()"
    words = repr(run)
    assert words.startswith(f"rlsnet.Run('{run.path}')\n  network   40 neurons (lif)") and "  verdict   The network explains" in words
    assert (
        words.endswith("perturbed silence") and "<table><tr><th" in run._repr_html_() and "no run there yet" in repr(rlsnet.Run(tmp_path))
    )
    assert run.recording().path == recording.path and isinstance(rlsnet.open_run(Run(run.path)), rlsnet.Run)


def test_weights_are_those_of_the_stores(recorded):
    """Beside a loop over the stored lists of synapses; rows are postsynaptic."""
    run, _, _ = recorded
    network = zarr.open_group(str(run.network), mode="r")
    n, pre, excitatory = 40, network["plastic/pre"][...], network["neuron/excitatory"][...]
    dense = {name: np.zeros((n, n)) for name in ("before", "after", "static")}
    for name, stored in (
        ("before", network["plastic/weight"][...]),
        ("after", zarr.open_group(str(run.checkpoint("auto")))["plastic/weight"][...]),
    ):
        for post in range(n):
            for source, weight in zip(pre[post], stored[post], strict=True):
                dense[name][post, source] += weight * (source >= 0)
    ends, targets, classes = (network[f"static/{name}"][...] for name in ("indptr", "post", "class_weight"))
    for source in range(n):
        for post in targets[ends[source] : ends[source + 1]]:
            dense["static"][post, source] += classes[int(not excitatory[source]), int(not excitatory[post])]
    np.testing.assert_allclose(run.weights().toarray(), dense["after"], rtol=1e-6)
    np.testing.assert_allclose(run.weights(iteration=0).toarray(), dense["before"], rtol=1e-6)
    np.testing.assert_allclose(run.weights(kind="all").toarray(), dense["after"] + dense["static"], rtol=1e-5, atol=1e-5)
    alm, thalamus = np.arange(0, 40, 2), np.arange(1, 40, 2)
    np.testing.assert_array_equal(run.select("region:ALM"), alm)
    found = run.weights(pre="region:ALM", post="region:thalamus", kind="static")
    np.testing.assert_allclose(found.toarray(), dense["static"][np.ix_(thalamus, alm)], rtol=1e-6)
    mask = np.arange(40) < 3
    np.testing.assert_array_equal(run.weights(pre=[7, 2], post=mask).toarray(), run.weights().toarray()[:3][:, [7, 2]])


def test_psths_spikes_and_scores_by_unit_and_in_the_time_of_the_recording(recorded):
    run, recording, rate = recorded
    test = rlsnet.load(run)
    neuron = 20 + 3  # unit 103 of tuesday
    one = run.psth(103, session="tuesday", smooth=False)
    assert (
        one.dims == ("condition", "time") and one.attrs["units"] == "Hz" and (one.neuron, one.id, one.region) == (neuron, "103", "thalamus")
    )
    np.testing.assert_array_equal(one, test["psth"][:, :, neuron])
    np.testing.assert_allclose(one.time, np.arange(*TIME, 0.02) + 0.01, atol=1e-9)
    assert one.time.attrs == {"units": "s", "long_name": "time from go_cue"} and one.condition.values.tolist() == ["left", "right"]
    data = run.psth(["104", "101"], session="monday", source="trained")
    np.testing.assert_allclose(data, rate[:, :, [4, 1]], rtol=1e-6)
    smooth = run.psth(neurons=neuron)
    ends = 0.02 * np.arange(1, 31)  # the recording has no kernel: averages over 50 ms before and after the end of a bin
    overlap = np.clip(np.minimum(ends, ends[10] + 0.05) - np.maximum(ends - 0.02, ends[10] - 0.05), 0, None)
    np.testing.assert_allclose(smooth[:, 10], one @ xarray.DataArray(overlap / overlap.sum(), dims="time"), rtol=1e-5)
    assert (
        run.psth(session="tuesday").neuron.values.tolist() == list(range(20, 40))
        and run.psth(neurons="region:ALM & inh").sizes["neuron"] < 20
    )
    silenced = run.psth(neurons="region:ALM", perturbed="silence", smooth=False).sel(time=slice(-0.1, 0.1))
    assert not silenced.any() and run.psth(smooth=False).any()

    spikes = run.spikes()
    assert spikes.columns.tolist() == ["condition", "trial", "neuron", "session", "id", "region", "time"]
    assert spikes["trial"].unique().tolist() == [0, 1, 2] and spikes["time"].between(*TIME).all()
    place = np.floor((spikes["time"] - TIME[0]) / 0.02 + 1e-6).astype(int)  # a bin includes its start
    counts = np.zeros((2, 30, 40))
    np.add.at(counts, (spikes["condition"].cat.codes, place, spikes["neuron"]), 1)
    np.testing.assert_allclose(counts / 3 / 0.02, test["psth"][...], rtol=1e-6)
    assert set(run.spikes("region:ALM")["region"]) == {"ALM"} and set(run.spikes(neuron)["id"]) == {"103"}

    scores, columns = run.scores(), ["session", "id", "region", "probe", "unit"]
    assert len(scores) == 80 and set(columns) - {"probe"} <= set(scores.columns) and "Hz" in scores.attrs["columns"]["rate_error"]
    row = scores[(scores["condition"] == "right") & (scores["session"] == "tuesday") & (scores["id"] == "103")].iloc[0]
    assert row["neuron"] == neuron and row["rate_correlation"] == test["rate_correlation"][1, neuron]
    explained = run.explained()
    assert explained.loc["all", "model"] == test.attrs["scores"]["population"]["all"]["model"]
    assert explained.index.tolist() == ["all", "left", "right", "ALM", "thalamus"]
    curve = run.learning_curve()
    assert curve.index.tolist() == [1, 2, 3] and set(curve["condition"]) == {"left", "right"}
    assert curve["correlation"].tolist() == [line["correlation"] for line in run.read_metrics()]
    neurons = run.neurons()
    assert neurons["id"].tolist() == [str(i) for i in (*range(100, 120), *range(100, 120))] and neurons["excitatory"][:3].tolist() == [
        True,
        True,
        False,
    ]
    data = run.to_xarray()
    np.testing.assert_array_equal(data.psth.sel(neuron=data.region == "ALM", condition="left"), test["psth"][0][:, ::2])
    assert recording.to_xarray().rate.sel(condition="right").sizes == {"time": 30, "unit": 40}


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda run: run.psth(103),
            "unit=103: is the id of 2 units, in sessions monday, tuesday; expected session=..., or neurons=[...] of 3, 23.",
        ),
        (lambda run: run.psth("3"), "unit=3: no unit of the test has this id; expected one such as 100, 101"),
        (lambda run: run.psth(103, session="friday"), "session=friday: no such session; expected monday, tuesday."),
        (lambda run: run.psth(103, neurons=3), "unit and neurons: expected one of them"),
        (lambda run: run.psth(source="data"), "source=data: expected model, trained, heldout"),
        (lambda run: run.psth(source="heldout"), "has no such rates; recording.half=odd holds trials out"),
        (lambda run: run.psth(perturbed="silenced"), "expected silence. Did you mean silence?"),
        (lambda run: run.spikes(neurons=40), "neurons: has the number 40; expected 0 to 39"),
        (lambda run: run.weights(pre="region:VAL"), "pre=region:VAL: no such region; expected ALM, thalamus"),
        (lambda run: run.weights(post=[True]), "post=[True]: expected a text such as 'region:ALM'"),
        (lambda run: run.weights(kind="fast"), "kind=fast: expected plastic, static, all"),
        (lambda run: run.weights(iteration=2), "checkpoint=2: "),
        (lambda run: run.draw("psth"), "psth: no figure of"),
        (lambda run: rlsnet.export(run, "np"), "to=np: expected zarr, npz, sonata, nwb, nest, brian2. Did you mean npz?"),
        (lambda run: rlsnet.compare(), "compare: expected runs"),
        (lambda run: rlsnet.report(run, out=run.path), "a folder; expected the name of a file"),
        (lambda run: rlsnet.info("nowhere"), "nowhere: no such folder"),
        (lambda run: rlsnet.Run("nowhere").spikes(), "nowhere: no such folder"),
        (lambda run: rlsnet.open_recording(run.path), ": not a Zarr store"),
    ],
)
def test_what_a_run_does_not_have_is_one_line(recorded, call, message):
    with pytest.raises(rlsnet.UserError, match=re.escape(message)) as error:
        call(recorded[0])
    assert "\n" not in str(error.value)


def test_pages_files_and_figures_as_functions(recorded, place, tmp_path, capsys, monkeypatch):
    import matplotlib.pyplot as plt

    run, _, _ = recorded
    assert rlsnet.report(run) == run.path / "report.html" and "rlsnet report" in (run.path / "report.html").read_text()
    table = rlsnet.compare(run, place / "a", out=tmp_path / "both.html")
    assert sorted(table.index) == ["a", "run"] or len(table) == 2
    assert {"state", "iterations"} <= set(table.columns) and table["iterations"].max() == 3 and (tmp_path / "both.html").exists()
    path = rlsnet.export(run, "npz", tmp_path / "npz")
    np.testing.assert_array_equal(scipy.sparse.load_npz(path / "plastic.npz").toarray(), run.weights().toarray())
    rlsnet.info(run)
    assert "40" in capsys.readouterr().out and callable(rlsnet.export)
    figure, axes = plt.subplots(1, 2)
    assert run.draw("learning_curve", axes) is figure and axes[0].lines and run.draw("learning_curve").axes
    plt.close(figure)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(rlsnet.UserError, match=re.escape("spikes: needs pandas; pip install 'rlsnet[notebook]' installs it.")):
        run.spikes()


def test_the_ten_questions_are_answered(recorded, tmp_path, monkeypatch):
    """Every block of docs/python.md, in order."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(recorded[0].path, "runs/first")
    text = (Path(__file__).parents[1] / "docs" / "python.md").read_text()
    blocks, names = re.findall(r"```python\n(.*?)```", text, re.DOTALL), {}
    assert len(blocks) == text.count("\n## ") + 1 >= 11
    for block in blocks:
        assert sum(not line.startswith("import") for line in block.strip().splitlines() if line) <= 3
        exec(block, names)
    assert names["weights"].shape == (len(names["rows"]), len(names["columns"])) == (20, 20) and names["model"].shape == (2, 30)
    assert not names["effect"].groupby("region").mean().sel(region="ALM", time=slice(0.12, 0.3)).isnull().any()
    names["plt"].close("all")


def test_counts_and_spikes_in_arrays_are_averaged_like_files(tmp_path):
    """Counts beside NumPy's means; spike times, unsorted and with ids, give the same rates; so does a currents' recording its values."""
    random = np.random.default_rng(0)
    choice = random.permutation(np.repeat(["left", "right"], 15))
    counts = random.poisson(1.0, (30, 20, 3))
    zero = 10.0 * np.arange(1, 31)
    centres = -0.2 + 0.02 * (np.arange(20) + 0.5)
    trains = {f"u{u}": random.permutation(np.repeat((zero[:, None] + centres).ravel(), counts[..., u].ravel())) for u in range(3)}
    columns = {"region": "ALM", "excitatory": [True, False, None], "columns": {"depth": [1.5, 2.5, 3.5]}}
    common = {"conditions": choice, "kernel": "none", "event": "cue", **columns}
    of_counts = rlsnet.recording_from_arrays(tmp_path / "c.zarr", counts=counts, time=centres, **common)
    of_spikes = rlsnet.recording_from_arrays(tmp_path / "s.zarr", spikes=trains, trial_times=zero, window=(-0.2, 0.2), bin=20, **common)
    for recording in (of_counts, of_spikes):
        order = recording.conditions
        np.testing.assert_allclose(recording.read(), np.stack([counts[choice == name].mean(axis=0) for name in order]) / 0.02, rtol=1e-5)
        odd = [np.flatnonzero(choice == name)[::2] for name in order]
        np.testing.assert_allclose(recording.read(half="odd"), np.stack([counts[mine].mean(axis=0) for mine in odd]) / 0.02, rtol=1e-5)
        assert recording.column("cell_class").tolist() == ["excitatory", "inhibitory", ""] and recording.column("depth").tolist() == [
            1.5,
            2.5,
            3.5,
        ]
        assert dict(recording.group["time"].attrs)["long_name"] == "time from cue" and "recording.half=odd" in recording.settings()
        np.testing.assert_allclose(recording.time, centres, atol=1e-9)
    assert of_spikes.column("id").tolist() == ["u0", "u1", "u2"] and "plastic.n_inputs=2" in of_counts.settings()
    current = rlsnet.recording_from_arrays(tmp_path / "i.zarr", current=random.normal(0, 1, (1, 10, 4)), bin=10)
    assert current.kind == rlsnet.open_recording(tmp_path / "i.zarr").kind == "current" and current.settings()[0] == "target=currents"


RATE, COUNTS = np.ones((2, 10, 3)), np.ones((30, 10, 3), int)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "no array given; expected one of rate, current, counts and spikes"),
        ({"rate": RATE, "counts": COUNTS}, "rate and counts given; expected one of"),
        ({"rate": RATE[0], "bin": 20}, "rate: has shape [10, 3]; expected numbers with three axes [condition, time, unit]"),
        ({"rate": RATE.astype(str), "bin": 20}, "rate: has type <U32; expected numbers"),
        ({"rate": RATE}, "rate has 10 bins (its axes are condition, time, unit); expected their time"),
        ({"rate": RATE, "time": np.arange(9)}, "time: has shape [9], but rate has 10 bins"),
        ({"rate": RATE, "time": np.arange(10) ** 2}, "time: expected the centres of the bins in s, in equal steps"),
        (
            {"rate": RATE, "window": (0, 1), "bin": 20},
            "bin=20: rate has 10 bins (its axes are condition, time, unit), which are 100 ms long",
        ),
        ({"rate": RATE, "window": (1, 0)}, "window=[1, 0]: expected a start and a later end"),
        ({"rate": -RATE, "bin": 20}, "rate: has values below 0 (the lowest is -1)"),
        ({"rate": RATE * 5000, "bin": 20}, "rate: unit 0 has a mean rate of 5,000; expected rates in Hz"),
        ({"rate": RATE * np.nan, "bin": 20}, "rate: has infinite values, or NaN only"),
        ({"rate": RATE, "bin": 20, "conditions": ["left"]}, "conditions: has 1 values; expected 2, one for each condition"),
        ({"rate": RATE, "bin": 20, "conditions": ["left", "left"]}, "conditions: left, left; expected different names"),
        ({"rate": RATE, "bin": 20, "region": ["ALM"]}, "region: has shape [1]; expected 3 values, one for each unit"),
        ({"rate": RATE, "bin": 20, "excitatory": ["E", "I", "E"]}, "excitatory[0]: 'E'; expected true for excitatory units"),
        ({"rate": RATE, "bin": 20, "kernel": "none"}, "kernel=none: applies to counts and spikes"),
        ({"rate": RATE, "bin": 20, "kernl": "none"}, "kernl: no such setting of import. Did you mean kernel?"),
        ({"counts": COUNTS, "bin": 20, "conditions": ["a"] * 29}, "conditions: has 29 values; expected 30, one for each trial"),
        ({"counts": COUNTS + 0.5, "bin": 20}, "counts: has values that are no whole numbers from 0 on"),
        ({"counts": COUNTS, "bin": 20, "session": ["a", "b", "a"]}, "session: a, b; expected one session"),
        ({"counts": COUNTS, "bin": 20, "trial_times": np.arange(30)}, "trial_times: applies to spikes"),
        ({"spikes": [np.arange(5.0)]}, "trial_times: missing"),
        ({"spikes": [3.0], "trial_times": [1.0]}, "spikes[0]: has shape []"),
        ({"spikes": [[]], "trial_times": [1.0]}, "spikes: has no spikes"),
    ],
)
def test_arrays_that_are_no_recording_are_refused_in_one_line(tmp_path, arguments, message):
    with pytest.raises(rlsnet.UserError, match=re.escape(message)) as error:
        rlsnet.recording_from_arrays(tmp_path / "wrong.zarr", **arguments)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())
