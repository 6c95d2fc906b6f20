"""Labels of perturbed tests: no result of another perturbation is replaced; the settings that a stored test was made with."""

import dataclasses
import logging
import re
import shlex
import shutil

import pytest
import zarr
from conftest import compose

import rlsnet
from rlsnet.analysis import run_summary
from rlsnet.analysis.report import provenance, run_report
from rlsnet.analysis.report.html import Code
from rlsnet.analysis.test_results import open_results
from rlsnet.config.load import to_dict
from rlsnet.errors import UserError
from rlsnet.io import zarr_store
from rlsnet.runs.folder import Run
from rlsnet.workflows import tested_settings, testing, training

SMALL = ["config=tiny", "network.n_neurons=60", "static.out_degree=10", "trial.duration=300", "train.iterations=2", "test.trials=4",
         "progress=off", "resources_every=0"]  # fmt: skip
INH, EXC = "perturb=silence perturb.neurons=inh".split(), "perturb=silence perturb.neurons=0:9".split()


@pytest.fixture
def run(tmp_path):
    training.run_training(compose(*SMALL), run := Run(tmp_path / "run"), False)
    return run


def stored(run):
    """The neurons of each stored perturbation by its label, which the store repeats."""
    about = {label: zarr.open_group(str(path), mode="r").attrs["perturb"] for label, path in run.perturbed_results().items()}
    assert all(each["label"] == label for label, each in about.items())
    return {label: each["neurons"] for label, each in about.items()}


def test_another_perturbation_gets_a_label_of_its_own(run, caplog):
    def test(*overrides):
        with caplog.at_level(logging.INFO):
            caplog.clear()
            (path,) = testing.run_test(compose(*SMALL, *overrides, "test.trials=1"), run)
        return path.stem, caplog.text

    assert test(*INH) == ("silence", caplog.text) and "is kept" not in caplog.text
    before = run.perturbed_result("silence").stat().st_ino
    label, said = test(*EXC)
    assert label == "silence_2" and "silence.zarr is the result of another perturbation (perturb=silence perturb.neurons=inh)" in said
    assert run.perturbed_result("silence").stat().st_ino == before and stored(run) == {"silence": "inh", "silence_2": "0:9"}
    assert test(*EXC)[0] == "silence_2" and test(*INH)[0] == "silence" and len(stored(run)) == 2  # again: in place of its own
    assert run.perturbed_result("silence").stat().st_ino != before
    start, stop = (zarr.open_group(str(run.perturbed_result("silence")), mode="r").attrs["perturb"][name] for name in ("start", "stop"))
    assert test(*INH, f"perturb.start={start}", f"perturb.stop={stop}")[0] == "silence"  # what null stood for
    assert test(*INH, f"perturb.window=[{start / 1000},{stop / 1000}]")[0] == "silence"
    assert test(*INH, f"perturb.stop={stop - 10}")[0] == "silence_3"
    message = (
        f"perturb.label=silence_3: {run.perturbed_result('silence_3')} is the result of another perturbation (perturb=silence"
        f" perturb.neurons=inh perturb.stop={stop - 10}), which is kept; expected another label, such as silence_3_2."
    )
    with pytest.raises(UserError, match=re.escape(message)):
        test(*EXC, "perturb.label=silence_3")
    assert test(*EXC, "perturb.label=mine")[0] == test(*EXC, "perturb.label=mine")[0] == "mine"
    assert test("perturb=excite", "perturb.strength=[1,2]", "perturb.neurons=[3,4]")[0] == "excite"
    assert test("perturb=excite", "perturb.strength=[1,3]", "perturb.neurons=[3,4]")[0] == "excite_2"
    assert test("perturb=excite", "perturb.strength=[1,2]", "perturb.neurons=[3,4]")[0] == "excite"
    many = f"perturb.strength=[{','.join(map(str, range(60)))}]"
    assert test("perturb=excite", many, "perturb.neurons=null")[0] == "excite_3"
    assert test("perturb=cue", "perturb.factor=0.5")[0] == "cue" and test("perturb=cue", "perturb.factor=2")[0] == "cue_2"


def test_results_of_earlier_versions_are_kept_too(run):
    for settings in (INH, ["perturb=cue", "perturb.window=[0.1,0.15]"], [*EXC, "perturb.window=[[0.25,0.3],[0.35,0.4]]"]):
        (path,) = testing.run_test(compose(*SMALL, *settings, "test.trials=1"), run)
        given = tested_settings.of_perturbation(zarr.open_group(str(path), mode="r"))
        del zarr.open_group(str(path), mode="a").attrs["settings"]
        zarr_store.seal(path)
        group = zarr.open_group(str(path), mode="r")
        assert tested_settings.of_test(group) == {"trials": 1}
        of_old = tested_settings.of_perturbation(group)
        assert {name: of_old[name] for name in ("name", "neurons", "window") if given.get(name) is not None} == {
            name: given[name] for name in ("name", "neurons", "window") if given.get(name) is not None
        }
        config = compose(*SMALL, *settings)
        assert tested_settings.labelled(config, run).perturb.label == path.stem
        other = compose(*SMALL, *settings, "perturb.window=[0.31,0.33]")
        assert tested_settings.labelled(other, run).perturb.label not in run.perturbed_results()


def test_from_python(run):
    first = rlsnet.test(run, trials=1, perturb={"name": "silence", "neurons": "inh"})
    second = rlsnet.test(run, trials=1, perturb={"name": "silence", "neurons": "exc"})
    assert [group.attrs["perturb"]["label"] for group in (first, second)] == ["silence", "silence_2"]
    assert stored(run) == {"silence": "inh", "silence_2": "exc"}
    with pytest.raises(UserError, match="another perturbation .*expected another label, such as silence_2"):
        rlsnet.test(run, trials=1, perturb={"name": "silence", "neurons": "exc", "label": "silence"})


def test_the_settings_of_a_test_are_those_that_it_was_made_with(run):
    testing.run_test(compose(*SMALL, "test.trials=3", "test.neurons=0:7"), run)
    assert to_dict(run.config())["test"]["trials"] == 4
    tested = run_summary.summarize(run).tested_settings
    assert tested["trials"] == 3 and tested["neurons"] == "0:7"
    first = run_summary.summarize(run)
    shutil.copytree(run.path, other := run.path.parent / "other")
    testing.run_test(compose(*SMALL, "test.trials=2", "test.neurons=0:7"), Run(other))
    assert run_summary.differing_settings([first, run_summary.summarize(Run(other))]) == [("test.trials", [3, 2])]


def test_a_report_reproduces_what_it_shows(run):
    """Its commands, given to the composition of settings, are those of the stored tests."""
    given = [["test.trials=3"], [*INH, "test.trials=1"], [*EXC, "perturb.window=[[0.25,0.3],[0.35,0.4]]", "perturb.label=two"],
             ["perturb=cue", "perturb.factor=0", "perturb.label='0.5'"],
             ["perturb=excite", "perturb.neurons=[3,4]", "perturb.strength=[1,2]"],
             ["perturb=silence", "perturb.neurons='excitatory and neuron < 9'"]]  # fmt: skip
    for settings in given:
        testing.run_test(compose(*SMALL, *settings), run)
    *_, code = (block for block in provenance.reproduction(open_results(run), run_summary.summarize(run)) if isinstance(block, Code))
    lines = [shlex.split(line) for line in code.text.replace("\\\n", " ").splitlines()]
    again = f"{run.path}_again"
    assert [line[1] for line in lines] == ["train", *["test"] * 6, "report"] and lines[0][-1] == f"hydra.run.dir={again}"
    assert to_dict(compose(*lines[0][2:-1])) == to_dict(compose(*SMALL)) | {"progress": "auto"}
    tests = [line[3:] for line in lines[1:-1]]
    assert all(line[2] == again for line in lines[1:-1]) and tests[0] == ["test.trials=3"]
    assert next(line for line in tests if "perturb.neurons=inh" in line) == [*INH, "test.trials=1"]
    for arguments in tests[1:]:
        config = compose(*SMALL, *arguments)
        label = config.perturb.result
        stored = zarr.open_group(str(run.perturbed_result(label)), mode="r")
        assert tested_settings.of_config(config)["perturb"] | {"label": None} == tested_settings.of_perturbation(stored) | {"label": None}
        assert tested_settings.of_test(stored) == tested_settings.of_config(config)["test"]


def test_a_simulation_is_reproduced_and_said_to_be_one(tmp_path):
    run = Run(tmp_path / "s")
    testing.run_simulation(compose(*SMALL, *INH), run)
    results, summary = open_results(run), run_summary.summarize(run)
    *_, code = (block for block in provenance.reproduction(results, summary) if isinstance(block, Code))
    lines = [shlex.split(line) for line in code.text.replace("\\\n", " ").splitlines()]
    assert [line[1] for line in lines] == ["simulate", "simulate", "report"]
    assert compose(*lines[1][2:-1]) == dataclasses.replace(compose(*SMALL, *INH), progress="auto")
    assert "were simulated with their initial weights" in run_report.page(results) and " learn " not in run_report._lead(results)
