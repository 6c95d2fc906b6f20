"""Python interface: `import rlsnet`, as in a script or a notebook."""

import contextlib
import dataclasses
import doctest
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr

import rlsnet
from rlsnet import api
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
    tests = [each for each in doctest.DocTestFinder().find(api) if each.examples]
    order = ["compose", "import_recordings", "train", "test", "load"]
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
        ("config=nothing", "config=nothing: no such configuration; expected demo, million, million_small_memory, mouse_decision, "),
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


def test_the_example_in_the_package_runs(tmp_path, monkeypatch):
    """The lines of rlsnet's own docstring."""
    monkeypatch.chdir(tmp_path)
    code = "\n".join(line[4:] for line in (rlsnet.__doc__ or "").splitlines() if line.startswith("    "))
    assert len(code.splitlines()) <= 10 and "rlsnet.train" in code
    exec(code.replace('"train.iterations=20"', '"train.iterations=2", "network.n_neurons=64", "static.out_degree=12"'), {})
    assert Path("first/figures/learning_curve.png").exists()
