"""The run folder: what a start removes and what it leaves, symbolic links, and folders that are no run's."""

import os
import subprocess
import sys

import numpy as np
import pytest
import zarr
from conftest import compose

import rlsnet
from rlsnet.analysis.test_results import of_one_test
from rlsnet.cli.hydra_app import folder_overrides
from rlsnet.config.schema import Config
from rlsnet.errors import UserError, os_error
from rlsnet.io import atomic
from rlsnet.runs import folder, metrics
from rlsnet.runs.folder import FORMAT, Run
from rlsnet.workflows import test_store, testing, training

SMALL = ["config=tiny", "network.n_neurons=64", "static.out_degree=12", "plastic.n_inputs=8", "trial.stim_on=10", "trial.stim_off=20",
         "trial.duration=50", "train.iterations=1", "test.trials=1", "progress=off"]  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """A folder with a config.yaml."""
    run = Run(tmp_path / "run")
    with run.claimed():
        run.save_config(Config())
    return run


def test_a_start_leaves_what_a_living_process_writes(run):
    """A test needs no lock: its result stays; checkpoints are those of the process that has the lock."""
    with atomic.replacing(run.test) as result, atomic.replacing(run.checkpoints / "000001.zarr") as checkpoint:
        for path in (result, checkpoint):
            path.mkdir()
        mine = run.path / ".notes.tmp"
        mine.write_text("")
        with run.claimed():
            assert result.exists() and mine.exists() and not checkpoint.exists()
        checkpoint.mkdir()
    with subprocess.Popen([sys.executable, "-c", "pass"]) as dead:
        pass
    left = [path.with_name(path.name.replace(f"-{os.getpid()}-", f"-{dead.pid}-")) for path in (result, checkpoint)]
    for path in left:
        path.mkdir()
    with run.claimed():
        assert not any(path.exists() for path in left) and run.test.exists()


@pytest.mark.parametrize("name", [*folder.IN_PLACE, *folder.FOLDERS])
def test_nothing_is_written_through_a_symbolic_link(run, tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("precious") if name in folder.IN_PLACE else elsewhere.mkdir()
    (run.path / ".lock").unlink()
    (run.path / name).parent.mkdir(exist_ok=True)
    (run.path / name).symlink_to(elsewhere)
    config = compose(*SMALL)
    for command in (
        lambda: rlsnet.train(config, run.path),
        lambda: rlsnet.simulate(config, run.path),
        lambda: rlsnet.test(run),
        lambda: rlsnet.plot(run),
        lambda: folder_overrides("test", ["run=run"]),
        lambda: folder_overrides("train", ["hydra.run.dir=run"]),
        lambda: folder_overrides("train", [f"sweep={tmp_path}", "seed=1,2"]),
        lambda: run.claimed().__enter__(),
    ):
        with pytest.raises(UserError, match=f"run/{name}: is a symbolic link to .*, which is not followed"):
            command()
    assert elsewhere.is_dir() and not os.listdir(elsewhere) if name in folder.FOLDERS else elsewhere.read_text() == "precious"


def test_a_symbolic_link_to_a_run_folder_works(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    run = Run(tmp_path / "run")
    for _ in range(2):
        with run.claimed():
            run.clear()
            run.save_config(Config())
    assert Run.open(tmp_path / "elsewhere").config() == Config() and run.path.is_symlink()


@pytest.mark.parametrize("name", ["config.yaml", "network.zarr", "metrics.jsonl", "test.zarr", "resources.jsonl", "figures", "checkpoints"])
@pytest.mark.parametrize("locked", [False, True])
def test_files_of_other_origin_stay(tmp_path, name, locked):
    """A folder of the user's in which such a name has another meaning is no run folder, even with a file .lock."""
    path = tmp_path / name
    if name.endswith(".zarr"):
        zarr.create_group(str(path), attributes={"format": "rlsnet-network"})["precious"] = np.ones(3)
    elif "." in name:
        path.write_text("seed: 3\n")
    else:
        path.mkdir()
        (path / "precious.png").write_text("")
    if locked:
        (tmp_path / ".lock").write_text("")
        if path.suffix == ".zarr":
            (path / "notes.txt").write_text("precious")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=f"{name}: exists, and .* is not a run folder; expected a new or an empty folder"):
        Run(tmp_path).claimed().__enter__()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_start_that_was_killed_starts_anew_and_a_store_is_no_run_folder(tmp_path):
    zarr.create_group(str(tmp_path / "run" / "network.zarr"), attributes={"format": "rlsnet-network"})
    (tmp_path / "run" / ".lock").write_text("")
    metrics.append_line(Run(tmp_path / "run").resources, {"command": "train"})
    with Run(tmp_path / "run").claimed():
        pass
    zarr.create_group(str(tmp_path / "r.zarr"))
    with pytest.raises(UserError, match="r.zarr: is a Zarr store; expected a new or an empty folder"):
        Run(tmp_path / "r.zarr").claimed().__enter__()


def test_a_start_anew_removes_results_alone(run):
    """A run that ended before its first checkpoint starts anew: files of the user within it stay."""
    run.figures.mkdir()
    run.perturbed.mkdir()
    notes = [run.figures / "notes.png", run.perturbed / "notes.txt"]
    for each in notes:
        each.write_text("precious")
    zarr.create_group(str(run.perturbed_result("silence")))
    zarr.create_group(str(run.test))
    run.clear()
    assert all(each.exists() for each in notes) and not run.test.exists() and not run.perturbed_results()


def test_training_does_not_remove_a_simulation(run):
    """Its results are those of a command of its own."""
    zarr.create_group(str(run.test), attributes={"format": "rlsnet-test", "iteration": 0})
    zarr.create_group(str(run.perturbed_result("silence")))
    with pytest.raises(UserError, match="run: contains a simulation, whose results training would remove; choose another hydra.run.dir"):
        rlsnet.train(compose(*SMALL), run.path)
    assert run.test.exists() and run.perturbed_results()


@pytest.mark.parametrize("command", ["train", "simulate"])
def test_what_another_process_has_trained_until_the_lock_is_free_stays(run, monkeypatch, command):
    claimed = Run.claimed

    def later(self):
        zarr.create_group(str(self.checkpoints / "000001.zarr"), attributes={"format": FORMAT, "iteration": 1})
        return claimed(self)

    monkeypatch.setattr(Run, "claimed", later)
    with pytest.raises(UserError, match="run: contains a (training )?run"):
        training.run_training(compose(*SMALL), run, False) if command == "train" else testing.run_simulation(compose(*SMALL), run)
    assert run.iterations() == [1] and not run.network.exists()


@pytest.mark.parametrize("name", ["²", "١", "¹²"])
def test_a_checkpoint_is_a_number_or_a_path(run, name):
    """Other digits than 0-9 are no number that int reads, or one without a checkpoint."""
    with pytest.raises(UserError, match=f"checkpoint={name}: (no such folder|.* has no such checkpoint)"):
        run.checkpoint(name, "checkpoint")


def test_spikes_of_more_conditions_than_their_type_has_are_refused(tmp_path):
    config = compose(*SMALL, "test.spikes=true")
    with pytest.raises(UserError, match="test.spikes=true: expected at most 65,536 conditions, there are 65,537"):
        test_store.create_test(tmp_path / "test.zarr", config, None, None, None, np.ones((65537, 3), bool), np.arange(3), None, {})
    assert not (tmp_path / "test.zarr").exists()


@pytest.mark.parametrize("fails", [False, True])
def test_a_test_that_is_replaced_while_it_is_read_is_read_again(run, fails):
    calls = []

    def read():
        calls.append(run.test.exists())
        if len(calls) == 1:
            with atomic.replacing(run.test) as temporary:
                temporary.mkdir()
            if fails:
                raise UserError("damaged")
        return len(calls)

    run.test.mkdir()
    assert of_one_test(run, read) == 2 and of_one_test(run, read) == 3


def test_a_working_folder_that_was_removed_is_said(tmp_path, monkeypatch):
    missing = FileNotFoundError(2, "No such file or directory")
    assert os_error(missing) == "file system: No such file or directory."
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert os_error(missing) == "the current folder no longer exists; change to one that does."
    assert os_error(FileNotFoundError(2, "No such file or directory", "a")) == "a: No such file or directory."
