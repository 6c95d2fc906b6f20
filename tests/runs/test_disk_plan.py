"""Disk plan and the number of checkpoints that are kept, compared with what a run writes."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
from conftest import compose, metrics

from rlsnet.errors import UserError
from rlsnet.io import atomic
from rlsnet.io.formatting import bytes_below
from rlsnet.runs import checkpoint, disk_plan
from rlsnet.runs.folder import Run
from rlsnet.runs.memory_plan import Sizes
from rlsnet.workflows import test_store, training

SMALL = ("config=tiny", "network.n_neurons=64", "static.out_degree=12", "plastic.n_inputs=16", "trial.duration=100")
SMALL += ("train.checkpoint_every=1", "train.iterations=5", "progress=off", "resources_every=0")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A run of five checkpoints with the default of three."""
    run = Run(tmp_path_factory.mktemp("kept") / "run")
    training.run_training(compose(*SMALL, "train.validate_every=1", "train.save_best=true"), run, resumed=False)
    return run


def test_the_newest_checkpoints_and_the_best_are_kept(kept):
    assert kept.iterations() == [3, 4, 5]
    names = sorted(path.name for path in kept.checkpoints.iterdir() if ".best." not in path.name)
    assert names == ["000003.zarr", "000004.zarr", "000005.zarr"]
    with pytest.raises(UserError, match=r"test.checkpoint=1: .* has checkpoints of iterations 3, 4, 5"):
        kept.checkpoint("1")


def test_a_run_goes_on_from_any_checkpoint_that_is_kept(kept, tmp_path):
    """As after the newer ones were lost: to the bit what the unbroken run has."""
    run = Run(tmp_path / "run")
    shutil.copytree(kept.path, run.path)
    for newer in (4, 5):
        shutil.rmtree(run.checkpoints / f"{newer:06d}.zarr")
    training.run_training(compose(*SMALL, "train.validate_every=1", "train.keep_checkpoints=1"), run, resumed=True)
    assert run.iterations() == [5]
    for name in ("plastic/weight", "P"):
        one, other = (checkpoint.zarr.open_group(str(each.checkpoints / "000005.zarr"), mode="r")[name][...] for each in (kept, run))
        np.testing.assert_array_equal(one, other)
    assert [line["correlation"] for line in metrics(run.path)] == [line["correlation"] for line in metrics(kept.path)]


def test_checkpoints_of_versions_that_kept_all_stay(kept, tmp_path):
    run = Run(tmp_path / "run")
    shutil.copytree(kept.path, run.path)
    for iteration in (3, 4):
        about = run.checkpoints / f"{iteration:06d}.zarr" / "zarr.json"
        values = json.loads(about.read_text())
        del values["attributes"]["config"]["train"]["keep_checkpoints"]
        values["attributes"].pop("checksums", None)
        about.write_text(json.dumps(values))
    checkpoint._remove_older(run, 1)
    assert run.iterations() == [3, 4, 5]
    checkpoint._remove_older(kept_all := Run(shutil.copytree(kept.path, tmp_path / "all")), None)
    assert kept_all.iterations() == [3, 4, 5]


def test_a_checkpoint_is_removed_as_a_whole(kept, tmp_path, monkeypatch):
    """A process killed on the way leaves no part of it under its name."""
    run = Run(shutil.copytree(kept.path, tmp_path / "run"))

    def killed(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic, "remove", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoint._remove_older(run, 2)
    assert run.iterations() == [4, 5]


def test_the_newest_and_the_best_are_those_of_the_largest_number(tmp_path):
    run = Run(tmp_path)
    for name in ("999999", "1000000"):
        (run.checkpoints / f"{name}.zarr").mkdir(parents=True)
        (run.checkpoints / f"{name}.best.zarr").mkdir()
    assert run.iterations() == [999999, 1000000] and run.best() == run.checkpoints / "1000000.best.zarr"
    assert run.checkpoint("last") == run.checkpoints / "1000000.zarr"


@pytest.mark.parametrize("settings", [(), ("rls.precision=bfloat16",), ("rls.storage=packed",), ("engine.precision=float64",)])
def test_the_plan_of_a_checkpoint_is_what_P_and_the_weights_take(settings):
    config = compose(*SMALL, *settings)
    item = {"bfloat16": 2, "float64": 8}.get(settings[0].partition("=")[2] if settings else "", 4)
    weights = 64 * 16 * (8 if "engine.precision=float64" in settings else 4)
    assert disk_plan.checkpoint_bytes(config, Sizes.of(config, None, 1)) == 64 * 16 * 17 // 2 * item + weights


def test_the_plan_agrees_with_the_disk(kept):
    config = kept.config()
    planned = disk_plan.plan(config, Sizes.of(config, None, 1))
    arrays = 64 * 16 * 17 // 2 * 4 + 64 * 16 * 4
    assert next(size for name, size in planned.items() if name.startswith("checkpoints")) == 4 * arrays
    assert arrays <= bytes_below(kept.checkpoints / "000005.zarr") < arrays + 40_000  # settings and names beside them


@pytest.mark.parametrize(("keep", "number"), [("1", 2), ("3", 4), ("7", 5), ("null", 5)], ids=["one", "three", "more than written", "all"])
def test_number_of_checkpoints_on_the_disk(keep, number):
    assert disk_plan.n_kept(compose(*SMALL, f"train.keep_checkpoints={keep}")) == number


def test_a_disk_that_is_too_small_is_refused_before_anything_is_computed(kept, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100_000))
    config = compose(*SMALL, "train.keep_checkpoints=null")
    message = r"^disk: the run needs .*checkpoints 5 x 38.9 kB.* has 100 kB free. Try train.keep_checkpoints=1, "
    with pytest.raises(UserError, match=message):
        training.run_training(config, Run(tmp_path / "run"), resumed=False)
    assert not (tmp_path / "run" / "network.zarr").exists()
    longer = dataclasses.replace(kept.config(), train=dataclasses.replace(kept.config().train, iterations=9))
    sizes = Sizes.of(longer, None, 1)
    assert "Disk plan" in disk_plan.check(longer, sizes, kept.path)  # what is there already is not needed again
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10_000))
    for place in ("videos.bin", "figures/f.png", "checkpoints/000005.zarr/more"):  # other files are, and so is what has no blocks
        run = Run(shutil.copytree(kept.path, tmp_path / "run", dirs_exist_ok=True))
        (run.path / place).parent.mkdir(exist_ok=True)
        (run.path / place).write_bytes(bytes(2**18))
        os.truncate(run.path / place, 2**40)
        with pytest.raises(UserError, match="^disk: the run needs .*, of which 1.. kB are there, and .* 10 kB free"):
            disk_plan.check(longer, sizes, run.path)


def test_space_for_a_test_is_only_advised(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**6))
    config = compose(*SMALL, "test.trials=10000")
    assert disk_plan.check(config, Sizes.of(config, None, 1), tmp_path).endswith("There is not enough space for a test.")


def test_a_spike_of_a_test_takes_the_bytes_of_its_arrays():
    assert disk_plan.SPIKE_BYTES == sum(np.dtype(kind).itemsize for kind, _ in test_store.SPIKES.values())
