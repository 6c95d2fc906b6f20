"""Damaged files of a run folder: config.yaml, metrics.jsonl and resources.jsonl that were cut, changed or deleted are said."""

import json
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

import rlsnet
from rlsnet.api import compose
from rlsnet.config.load import to_dict
from rlsnet.errors import UserError
from rlsnet.exports import writer
from rlsnet.exports.trained_network import TrainedNetwork
from rlsnet.io import zarr_store
from rlsnet.runs import checkpoint, metrics, resources
from rlsnet.runs.folder import FORMAT, Run
from rlsnet.workflows import prepare
from rlsnet.workflows.resume import resumed_config

LINE = {"task": 0, "seconds": 0.1, "rate_hz": 3.0, "rate_exc_hz": 2.0, "rate_inh_hz": None, "correlation": 0.5, "n_undefined": 0}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What a run of 4 iterations leaves, without the arrays."""
    run = Run(tmp_path_factory.mktemp("trained") / "run")
    config = compose("config=tiny", "rls.penlambda=0.3", "test.trials=3", "train.iterations=4")
    run.checkpoints.mkdir(parents=True)
    run.save_config(config)
    for iteration in range(1, 5):
        run.append_metrics({"iteration": iteration, **LINE, "seconds": iteration / 8})
    path = run.checkpoints / "000004.zarr"
    zarr.create_group(str(path), attributes={"format": FORMAT, "iteration": 4, "config": to_dict(config)})
    zarr_store.seal(path)
    return run.path


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it."""
    return Run(shutil.copytree(trained, tmp_path / "run"))


def edit(path, old, new):
    """Replaces a text in a file, which has it once."""
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_a_config_cut_anywhere_is_refused(run):
    """No length passes but the whole one, or one that lacks the newline at its end."""
    path = run.path / "config.yaml"
    text, config = path.read_text(), run.config()
    for length in range(0, len(text) - 1, 41):
        path.write_text(text[:length])
        with pytest.raises(UserError, match="config.yaml: (is cut short|contains no settings|cannot be read|lacks .* as if cut short)"):
            run.config()
    path.write_text(text.rstrip())
    assert run.config() == config


def test_a_config_without_checksum_is_compared_with_the_checkpoint(run):
    """A file of an earlier version opens; one that was cut, at a setting or a section, does not."""
    path = run.path / "config.yaml"
    lines, config = path.read_text().splitlines(keepends=True)[1:-1], run.config()
    path.write_text("".join(lines))
    assert run.config() == config
    for stop in range(5, len(lines), 9):
        path.write_text("".join(lines[:stop]))
        with pytest.raises(UserError, match=r"config.yaml: lacks .* those of checkpoints/000004.zarr|is .*, but .* in checkpoints"):
            run.config()


def test_an_edited_config_changes_what_may_change(run, caplog):
    """test.trials may change, with a warning; what the weights were trained with may not."""
    edit(run.path / "config.yaml", "  trials: 3", "  trials: 5")
    assert run.config().test.trials == 5
    assert "config.yaml was edited: test.trials is 5, and was 3 in checkpoints/000004.zarr" in caplog.text
    resumed = resumed_config(run, {"resume": str(run.path)}, [])
    assert resumed.test.trials == 5
    edit(run.path / "config.yaml", "penlambda: 0.3", "penlambda: 0.2")
    with pytest.raises(UserError, match="rls.penlambda is 0.2, but 0.3 in checkpoints/000004.zarr; this cannot change in an existing run"):
        run.config()


def test_an_edited_config_without_a_checkpoint_is_said(run, caplog):
    """There is nothing to compare it with."""
    shutil.rmtree(run.checkpoints)
    edit(run.path / "config.yaml", "penlambda: 0.3", "penlambda: 0.2")
    assert run.config().rls.penlambda == 0.2 and "config.yaml has changed since rlsnet wrote it" in caplog.text


LINE_3 = {
    "a control character": lambda line: line.replace('"task"', '"ta\x01sk"'),
    "cut": lambda line: line[:20],
    "another number": lambda line: line.replace('"iteration": 3', '"iteration": 4'),
    "another key": lambda line: line.replace("correlation", "korrelation"),
    "empty": lambda line: "",
    "deeply nested": lambda line: "[" * 10**5,
}


@pytest.mark.parametrize("change", LINE_3)
def test_a_damaged_line_of_metrics_is_named(run, change):
    """It is neither left out nor read, and nothing is written over it."""
    lines = run.metrics.read_text().splitlines()
    lines[2] = LINE_3[change](lines[2])
    run.metrics.write_text("\n".join(lines) + "\n")
    for read in (run.read_metrics, lambda: run.cut_metrics(4)):
        with pytest.raises(UserError, match="metrics.jsonl: line 3 is damaged"):
            read()
    assert run.metrics.read_text().splitlines() == lines


@pytest.mark.parametrize("wrong", ['{"iteration": 1}', "3", '{"iteration": "x"', "null"])
def test_lines_without_checksums_are_checked(run, wrong):
    """Metrics of an earlier version, or of another program."""
    metrics.checksums(run.metrics).unlink()
    assert len(run.read_metrics()) == 4
    lines = run.metrics.read_text().splitlines()
    run.metrics.write_text("\n".join([wrong, *lines[1:]]) + "\n")
    with pytest.raises(UserError, match="metrics.jsonl: line 1"):
        run.read_metrics()
    for name, value, kind in (
        ("task", '"0"', "whole"),
        ("iteration", "1.5", "whole"),
        ("seconds", "null", "a number"),
        ("task", "null", "whole"),
    ):
        run.metrics.write_text(re.sub(f'"{name}": [0-9.]+', f'"{name}": {value}', lines[0]) + "\n")
        with pytest.raises(UserError, match=f"line 1: {name} is .*; expected .*{kind}"):
            run.read_metrics()
    for wrong_order in ([lines[1], lines[0]], [lines[0], lines[0]]):
        run.metrics.write_text("\n".join(wrong_order) + "\n")
        with pytest.raises(UserError, match="line 2 has iteration 1, after iteration"):
            run.read_metrics()


def test_the_last_line_may_be_torn(run):
    """By the end of the process; a line that is added later is whole."""
    text, new = run.metrics.read_text(), {**run.read_metrics()[-1], "iteration": 5}
    run.metrics.write_text(text + '{"iteration": 5, "ta')
    assert len(run.read_metrics()) == 4
    run.cut_metrics(4)
    run.append_metrics(new)
    assert run.metrics.read_text() == text + json.dumps(new) + "\n" and run.read_metrics()[-1] == new


@pytest.mark.parametrize("kept", [None, 0, 1, 2])
def test_lost_readings_of_resources_are_said(run, caplog, kept):
    """Also those at the end, of an empty file and of one that was deleted."""
    path = run.path / "r.jsonl"
    for second in range(3):
        metrics.append_line(path, {"time": f"10:00:0{second}", "memory_peak_mb": 400.0})
    assert len(resources.read(path)) == 3 and not caplog.messages
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: kept or 0]))
    if kept is None:
        path.unlink()
    assert len(resources.read(path)) == (kept or 0) and f"is damaged: {3 - (kept or 0)} of its lines are missing" in caplog.text
    path.write_text("".join(lines[:2]) + "\0" * len(lines[2]))
    caplog.clear()
    assert len(resources.read(path)) == 2 and "is damaged: 1 of its lines are missing" in caplog.text


@pytest.mark.parametrize(("kept", "words"), [(0, "4 of the 4 .* first is 1"), (3, "1 of the 4 .* first is 4")])
def test_metrics_shorter_than_the_checkpoint_are_said(run, caplog, kept, words):
    """Also a file that was deleted."""
    lines = run.metrics.read_text().splitlines(keepends=True)
    run.metrics.write_text("".join(lines[:kept]))
    if not kept:
        run.metrics.unlink()
    with caplog.at_level(logging.WARNING):
        assert len(run.read_metrics()) == kept
    assert len(caplog.messages) == 1 and re.search(f"metrics.jsonl lacks {words}", caplog.text)


def test_damaged_readings_of_resources_are_left_out_with_a_warning(run, caplog):
    """A text for a number, a torn line, a changed digit."""
    path = run.path / "r.jsonl"
    line = {"time": "2026-11-27", "verb": "train", "cpu_percent": 50.0, "memory_peak_mb": 400.0, "gpu_percent": [20.0, 30.0]}
    for _ in range(3):
        metrics.append_line(path, line)
    with path.open("a") as file:
        file.write('{"time": "20')
    metrics.append_line(path, line)
    assert resources.read(path) == [line] * 4 and "1 damaged lines are left out, the first is line 4" in caplog.text
    path.write_text(path.read_text().replace("400.0", "900.0", 1))
    assert resources.read(path) == [line] * 3 and "2 damaged lines are left out, the first is line 1" in caplog.text
    metrics.checksums(path).unlink()
    metrics.append_line(path, line)  # after lines of a version without checksums
    assert [each["memory_peak_mb"] for each in resources.read(path)] == [900, 400, 400, 400, 400]
    path.write_text(path.read_text().replace("900.0", "800.0"))
    assert len(resources.read(path)) == 4
    metrics.checksums(path).unlink()
    path.write_text(json.dumps({**line, "memory_peak_mb": "much"}) + "\n")
    assert resources.read(path) == []


SMALL = ("config=tiny", "network.n_neurons=64", "static.out_degree=12", "plastic.n_inputs=16", "trial.duration=100", "test.trials=2")
SMALL += ("train.checkpoint_every=1", "train.iterations=3", "train.validate_every=1", "progress=off", "resources_every=0")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two runs with a test, which differ in their seed."""
    place = tmp_path_factory.mktemp("whole")
    for seed in (1, 2):
        rlsnet.train(compose(*SMALL, f"seed={seed}"), place / str(seed))
        rlsnet.test(Run(place / str(seed)))
    return place


def moved(source, target):
    """Puts a part of a run in the place of another."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


MISPLACED = {  # name: (what is moved where, pattern of the message, commands that read it)
    "network of another run": (
        lambda a, b: moved(b.network, a.network),
        "network.zarr: is not the network with which",
        "test resume export",
    ),
    "checkpoint of another run": (
        lambda a, b: moved(b.checkpoints / "000003.zarr", a.checkpoints / "000003.zarr"),
        "000003.zarr was made|seed is 1, but 2 in checkpoints/000003.zarr",
        "resume",
    ),
    "checkpoint of another iteration": (
        lambda a, b: moved(a.checkpoints / "000001.zarr", a.checkpoints / "000003.zarr"),
        "000003.zarr: contains iteration 1, and not that of its name",
        "resume",
    ),
    "checkpoint under a new name": (
        lambda a, b: (a.checkpoints / "000003.zarr").rename(a.checkpoints / "000009.zarr"),
        "000009.zarr: contains iteration 3, and not that of its name",
        "resume",
    ),
    "test of another run": (lambda a, b: moved(b.test, a.test), "network.zarr: is not the network with which test.zarr was made", "plot"),
    "chunks of another test": (
        lambda a, b: moved(b.test / "current_mean" / "c", a.test / "current_mean" / "c"),
        "current_mean/c/0/0/0: the file is damaged, it is not the part of current_mean that rlsnet wrote",
        "plot",
    ),
    "no checkpoints": (lambda a, b: shutil.rmtree(a.checkpoints), "has no such checkpoint", "test export"),
    "no best weights": (
        lambda a, b: [shutil.rmtree(each) for each in a.checkpoints.glob("*.best.zarr")],
        "the best weights, of iteration [1-3], are missing in .*; restore them from a copy, or take the last ones: .*checkpoint=last",
        "test export",
    ),
}


@pytest.mark.parametrize("case", MISPLACED)
def test_parts_of_another_run_or_place_are_found(whole, tmp_path, case):
    """Files that are whole in themselves, but not where rlsnet wrote them."""
    run, other = Run(shutil.copytree(whole / "1", tmp_path / "run")), Run(whole / "2")
    move, pattern, commands = MISPLACED[case]
    move(run, other)
    actions = {
        "test": lambda: rlsnet.test(run),
        "resume": lambda: rlsnet.train(compose(*SMALL, "seed=1", "train.iterations=10"), run.path, resume=True),
        "export": lambda: writer.export(run.path, "npz", tmp_path / "out"),
        "plot": lambda: rlsnet.plot(run),
    }
    for name in commands.split():
        with pytest.raises(UserError, match=pattern):
            actions[name]()
    assert not (tmp_path / "out").exists()


def test_a_copy_of_a_checkpoint_under_a_name_of_its_own_is_tested(whole, tmp_path):
    """Beside the checkpoints of the run, whose names are numbers."""
    run = Run(shutil.copytree(whole / "1", tmp_path / "run"))
    shutil.copytree(run.checkpoints / "000002.zarr", run.checkpoints / "liked.zarr")
    settings = {"checkpoint": str(run.checkpoints / "liked.zarr")}
    assert rlsnet.test(run, **settings).attrs["iteration"] == 2


def test_a_copy_of_the_best_weights_stays(whole, tmp_path, monkeypatch):
    """When better ones are found, and when the run starts anew."""
    run = Run(shutil.copytree(whole / "1", tmp_path / "run"))
    best, copy = run.best(), run.checkpoints / "paper.best.zarr"
    shutil.copytree(best, copy)
    monkeypatch.setattr(Run, "best_validation", lambda self: None)  # any weights are better
    rlsnet.train(compose(*SMALL, "seed=1", "train.iterations=4"), run.path, resume=True)
    assert copy.exists() and not best.exists() and run.best().name == "000004.best.zarr"
    run.clear()
    assert copy.exists() and run.best() is None


def test_a_checkpoint_of_the_run_is_its_own_by_every_path(whole, tmp_path, monkeypatch):
    """By the absolute path, and through a symbolic link to the run folder: its test is that of the weights, and it is checked."""
    place = Path(shutil.copytree(whole / "1", tmp_path / "run"))
    (tmp_path / "link").symlink_to(place)
    monkeypatch.chdir(tmp_path)
    run = Run("run")
    best = run.best().name
    for folder in (place, "link", "run/../run"):
        path = f"{folder}/checkpoints/{best}"
        assert run.checkpoint(path) == run.best()
        assert TrainedNetwork.load(run, path, run.config()).test is not None
    assert Run("link").checkpoint(str(place / "checkpoints" / best)) == Run("link").best()
    moved(run.checkpoints / "000001.zarr", run.checkpoints / "000003.zarr")
    with pytest.raises(UserError, match="000003.zarr: contains iteration 1, and not that of its name"):
        rlsnet.test(run, checkpoint=str(place / "checkpoints" / "000003.zarr"))
    assert Run("run").checkpoint(str(whole / "2" / "checkpoints" / best.replace(".best", ""))).is_absolute()


def test_a_checkpoint_that_training_removes_meanwhile_is_chosen_anew(whole, tmp_path, monkeypatch):
    """Unless the user has named it."""
    run = Run(shutil.copytree(whole / "1", tmp_path / "run"))
    network, read = prepare.reopen(run.config(), run).network, checkpoint.load_weights

    def removed(group, path, network):
        monkeypatch.setattr(checkpoint, "load_weights", read)
        shutil.rmtree(path)
        return read(group, path, network)

    monkeypatch.setattr(checkpoint, "load_weights", removed)
    assert checkpoint.chosen_weights(run, "last", "checkpoint", network)[0].name == "000002.zarr"
    monkeypatch.setattr(checkpoint, "load_weights", removed)
    with pytest.raises(UserError, match="000002.zarr"):
        checkpoint.chosen_weights(run, "2", "checkpoint", network)


def test_two_conditions_of_a_test_that_were_exchanged_are_found(tmp_path):
    """Chunks of one array, each with its own checksum."""
    path = tmp_path / "s.zarr"
    root = zarr.create_group(str(path))
    zarr_store.write(root, "psth", np.arange(6.0).reshape(2, 3), ["condition", "time"])
    zarr_store.seal(path)
    first, second = path / "psth/c/0/0", path / "psth/c/1/0"
    first.rename(path / "a"), second.rename(first), (path / "a").rename(second)
    with pytest.raises(UserError, match="psth/c/0/0: the file is damaged, it is not the part of psth.*remove the attributes"):
        zarr_store.read(zarr_store.open_store(path)["psth"], slice(0, 1))


def test_a_run_without_its_best_weights_keeps_their_score(whole, tmp_path):
    """Worse weights do not become the best ones."""
    run = Run(shutil.copytree(whole / "1", tmp_path / "run"))
    score = run.best_validation()
    shutil.rmtree(run.best())
    assert run.best_validation() == score == max(line["validation"] for line in run.read_metrics())


def test_an_alias_in_a_config_is_refused(run):
    """A few of them would make a file of any size."""
    lines = "".join(f"a{i}: &a{i} [" + ", ".join([f"*a{i - 1}"] * 10 if i else ["1"]) + "]\n" for i in range(12))
    path = run.path / "config.yaml"
    path.write_text(lines + path.read_text())
    with pytest.raises(UserError, match=r"config.yaml: cannot be read \(an alias, \*a0, which rlsnet does not write\)"):
        run.config()
