"""Damaged files of a run folder: config.yaml, metrics.jsonl and resources.jsonl that were cut, changed or deleted are said."""

import json
import logging
import re
import shutil

import pytest
import zarr

from rlsnet.api import compose
from rlsnet.config.load import to_dict
from rlsnet.errors import UserError
from rlsnet.io import zarr_store
from rlsnet.runs import metrics, resources
from rlsnet.runs.folder import FORMAT, Run
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
    run.metrics.write_text(lines[0].replace('"task": 0', '"task": "0"') + "\n")
    with pytest.raises(UserError, match="line 1: task is '0'; expected a number"):
        run.read_metrics()


def test_the_last_line_may_be_torn(run):
    """By the end of the process; a line that is added later is whole."""
    text, new = run.metrics.read_text(), {**run.read_metrics()[-1], "iteration": 5}
    run.metrics.write_text(text + '{"iteration": 5, "ta')
    assert len(run.read_metrics()) == 4
    run.cut_metrics(4)
    run.append_metrics(new)
    assert run.metrics.read_text() == text + json.dumps(new) + "\n" and run.read_metrics()[-1] == new


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
    path.write_text(json.dumps({**line, "memory_peak_mb": "much"}) + "\n")
    assert resources.read(path) == []
