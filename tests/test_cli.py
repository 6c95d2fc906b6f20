"""The command as a user types it, in processes of its own."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr

RUNNER = [sys.executable, "-m", "rlsnet"]
SMALL = ["config=tiny", "network.n_neurons=300", "static.out_degree=60", "train.iterations=4", "train.checkpoint_every=2"]


def rlsnet(*arguments: str, cwd: Path, status: int | None = 0) -> subprocess.CompletedProcess:
    result = subprocess.run([*RUNNER, *arguments], capture_output=True, text=True, cwd=cwd)
    assert status is None or result.returncode == status, result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    return result


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a trained and tested run in it."""
    place = tmp_path_factory.mktemp("place")
    rlsnet("train", *SMALL, "hydra.run.dir=run", cwd=place)
    rlsnet("test", "run=run", "test.trials=3", cwd=place)
    zarr.create_group(str(place / "rates.zarr"), attributes={"bin_ms": 10.0})["rate"] = np.ones((1, 100, 512), "float32")
    zarr.create_group(str(place / "empty.zarr"))["neuron/excitatory"] = np.zeros(0, bool)
    return place


def test_help_needs_neither_jax_nor_hydra():
    code = "import sys; sys.argv = ['rlsnet', *sys.argv[1:]]\nfrom rlsnet.cli import main\n"
    code += "try: main()\nexcept SystemExit as e: assert not e.code\n"
    code += "assert not {'jax', 'hydra', 'numpy', 'zarr'} & set(sys.modules), 'slow import'"
    for arguments in (["--help"], [], ["train", "--help"], ["info", "--help"], ["--version"]):
        result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert "rlsnet" in result.stdout
    listing = subprocess.run([*RUNNER, "train", "--help"], capture_output=True, text=True).stdout
    assert re.search(r"trial\.learn_every +10\.0 +time between RLS updates.*\[ms\]", listing)
    assert "config=million|mouse_decision|sinusoid|tiny" in listing


def test_a_run_folder_holds_what_it_should(place):
    run = place / "run"
    assert {p.name for p in run.iterdir()} >= {"config.yaml", "network.zarr", "checkpoints", "metrics.jsonl", "test.zarr", "rlsnet.log"}
    assert sorted(p.name for p in (run / "checkpoints").iterdir() if "best" not in p.name) == ["000002.zarr", "000004.zarr"]
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["iteration"] == 4
    assert set(line) >= {"task", "seconds", "rate_hz", "rate_exc_hz", "rate_inh_hz", "correlation", "n_undefined"}
    group = zarr.open_group(str(run / "checkpoints" / "000004.zarr"), mode="r")
    assert group["plastic/weight"].shape == (300, 32) and group["P"].shape == (300, 32 * 33 // 2)
    assert group.attrs["iteration"] == 4 and group.attrs["config"]["network"]["n_neurons"] == 300 and "jax" in group.attrs["versions"]
    assert "iteration 4/4" in (run / "rlsnet.log").read_text()


def test_test_results_open_in_xarray_and_agree_with_themselves(place):
    opened = xarray.open_zarr(place / "run" / "test.zarr", consolidated=False)
    assert opened.psth.dims == ("condition", "time", "neuron") and opened.psth.shape == (1, 100, 300)
    spikes = zarr.open_group(str(place / "run" / "test.zarr"), mode="r")["spikes"]
    ends, step, neuron = (spikes[name][...] for name in ("trial_indptr", "step", "neuron"))
    assert len(ends) == 4 and ends[-1] == len(step) == len(neuron) > 1000
    bins = (step - 2000) // 100
    psth = np.zeros((100, 300))
    np.add.at(psth, (bins, neuron), 1000 / (3 * 10))
    np.testing.assert_allclose(psth, opened.psth[0], rtol=1e-5)
    np.testing.assert_allclose(opened.psth.mean("time"), opened.rate, rtol=1e-5)
    assert all(np.all(np.diff(step[a:b].astype(int)) >= 0) for a, b in zip(ends, ends[1:], strict=False))
    assert float(opened.current_sd.mean()) > 0
    assert not np.array_equal(step[: ends[1]], step[ends[1] : ends[2]])


def test_plot_draws_every_figure_and_never_simulates(place):
    from PIL import Image

    rlsnet("plot", "run=run", cwd=place)
    names = {p.stem for p in (place / "run" / "figures").glob("*.png")}
    assert names == {"learning_curve", "weights", "psth_examples", "psth_heatmaps", "correlations", "rates", "raster"}
    for path in (place / "run" / "figures").glob("*.png"):
        pixels = np.asarray(Image.open(path).convert("L"))
        assert pixels.shape[0] > 300 and pixels.std() > 10


def test_info(place):
    shown = rlsnet("info", "run", cwd=place).stdout
    assert "4 of 4 iterations" in shown and "3 trials per condition" in shown and "2, 4" in shown
    assert "rlsnet-network 1" in rlsnet("info", "run/network.zarr", cwd=place).stdout
    checkpoint = rlsnet("info", "run/checkpoints/000004.zarr", cwd=place).stdout
    assert "rlsnet-checkpoint 1" in checkpoint and "float32 [neuron 300, input 32]" in checkpoint
    assert re.search(r"jax +│ 0\.\d+", rlsnet("info", cwd=place).stdout)


def test_test_on_other_checkpoints_and_without_spikes(place):
    out = rlsnet("test", "run=run", "test.checkpoint=2", "test.trials=1", "test.spikes=false", "hydra.run.dir=run", cwd=place).stdout
    group = zarr.open_group(str(place / "run" / "test.zarr"), mode="r")
    assert group.attrs["iteration"] == 2 and "spikes" not in group, out
    rlsnet("plot", "run=run", cwd=place)
    rlsnet("test", "run=run", "test.checkpoint=best", "test.trials=3", cwd=place)
    assert "spikes" in zarr.open_group(str(place / "run" / "test.zarr"), mode="r")


def test_resume_on_the_command_line(place, tmp_path):
    import shutil

    shutil.copytree(place / "run", tmp_path / "run")
    rlsnet("train", "resume=run", "train.iterations=6", cwd=tmp_path)
    rlsnet("train", *SMALL, "train.iterations=6", "hydra.run.dir=whole", cwd=tmp_path)
    ends = [zarr.open_group(str(tmp_path / run / "checkpoints" / "000006.zarr"), mode="r") for run in ("run", "whole")]
    for name in ("plastic/weight", "P"):
        np.testing.assert_array_equal(ends[0][name][...], ends[1][name][...])
    again = rlsnet("train", "resume=run", cwd=tmp_path).stdout
    assert "has done all 6 iterations" in again
    assert "network.n_neurons=512" in rlsnet("train", "config=tiny", "resume=run", cwd=tmp_path, status=1).stderr
    assert "train.iterations=3: run has done 6" in rlsnet("train", "resume=run", "train.iterations=3", cwd=tmp_path, status=1).stderr


def test_options_may_stand_anywhere_and_folders_be_called_anything(place, tmp_path):
    import shutil

    shutil.copytree(place / "run", tmp_path / "it's a,b=c")
    (tmp_path / "mine").mkdir()
    rlsnet("train", "--config-dir", "mine", "resume=it's a,b=c", "train.iterations=5", "--config-dir=mine", cwd=tmp_path)
    assert "n_neurons: 300" not in rlsnet("train", "resume=it's a,b=c", "--cfg", "job", "train.iterations=6", cwd=tmp_path).stdout
    rlsnet("test", "run=it's a,b=c", "test.trials=1", cwd=tmp_path)
    assert "iteration 5" in rlsnet("info", "it's a,b=c", cwd=tmp_path).stdout


def test_a_recording_may_move_after_training(tmp_path):
    """Resume needs targets only, which the run has; test goes on without rates, or finds them where it is told."""
    root = zarr.create_group(str(tmp_path / "r.zarr"), attributes={"bin_ms": 10.0})
    root["rate"] = np.random.default_rng(0).gamma(2, 3, (2, 100, 400)).astype("float32")
    rlsnet("train", *SMALL, "target=recording", "recording.path=r.zarr", "hydra.run.dir=run", cwd=tmp_path)
    rlsnet("test", "run=run", "test.trials=1", cwd=tmp_path)
    assert "rate_correlation" in zarr.open_group(str(tmp_path / "run" / "test.zarr"), mode="r")
    (tmp_path / "r.zarr").rename(tmp_path / "moved.zarr")
    rlsnet("train", "resume=run", "train.iterations=5", cwd=tmp_path)
    assert "testing without rates" in rlsnet("test", "run=run", "test.trials=1", cwd=tmp_path).stdout
    assert "Rate correlation" in rlsnet("test", "run=run", "test.trials=1", "recording.path=moved.zarr", cwd=tmp_path).stdout
    rlsnet("plot", "run=run", cwd=tmp_path)
    given = ["target=recording", "network.load=run/network.zarr", "hydra.run.dir=given", "test.trials=1"]
    rlsnet("train", *SMALL, *given, cwd=tmp_path)
    assert "rate_correlation" not in rlsnet("test", "run=given", cwd=tmp_path).stdout


def test_resume_auto_starts_and_then_goes_on(tmp_path):
    command = ["train", *SMALL, "hydra.run.dir=run", "resume=auto"]
    rlsnet(*command, cwd=tmp_path)
    assert "Resuming after iteration 4" in rlsnet(*command, "train.iterations=5", cwd=tmp_path).stdout
    assert "holds a run already" in rlsnet(*command[:-1], cwd=tmp_path, status=1).stderr


def test_a_sweep_makes_a_run_of_each_job(tmp_path):
    rlsnet("train", "-m", *SMALL, "rls.penlambda=.4,.8", "hydra.sweep.dir=sweep", cwd=tmp_path)
    weights = []
    for job, penalty in (("0", 0.4), ("1", 0.8)):
        group = zarr.open_group(str(tmp_path / "sweep" / job / "checkpoints" / "000004.zarr"), mode="r")
        assert group.attrs["config"]["rls"]["penlambda"] == penalty
        weights.append(group["plastic/weight"][...])
    assert not np.array_equal(*weights)


def test_simulate_runs_without_training(tmp_path):
    out = rlsnet("simulate", *SMALL, "plastic.n_inputs=0", "test.trials=2", "hydra.run.dir=run", cwd=tmp_path).stdout
    assert re.search(r"Rate [\d.]+ Hz excitatory", out)
    assert not (tmp_path / "run" / "checkpoints").exists()
    rlsnet("plot", "run=run", cwd=tmp_path)
    assert (tmp_path / "run" / "figures" / "raster.png").exists()


def test_a_configuration_of_ones_own(tmp_path):
    (tmp_path / "mine" / "config").mkdir(parents=True)
    (tmp_path / "mine" / "config" / "small.yaml").write_text("# @package _global_\nnetwork: {n_neurons: 200}\nstatic: {out_degree: 20}\n")
    shown = rlsnet("train", "--config-dir", "mine", "config=small", "--cfg", "job", cwd=tmp_path).stdout
    assert "n_neurons: 200" in shown


WRONG = [
    (["trian"], "trian: no such verb; should be train, simulate, test, plot, info. Did you mean train?"),
    (["train", "config=mouse"], "config=mouse: no such configuration; should be million, mouse_decision, sinusoid, tiny."),
    (["train", "stimulus=noise"], "stimulus=noise: no such configuration; should be given, none, ou."),
    (["train", "trial.lern_every=5"], "trial.lern_every: no such key. Did you mean trial.learn_every?"),
    (["train", "neurone=lif"], "neurone: no such key. Did you mean neuron?"),
    (["train", "trial.learn_every=0.15"], "trial.learn_every=0.15 ms: should be a multiple of trial.dt=0.1 ms"),
    (["train", "trial.stim_on=1500"], "trial.stim_on=1500 ms: should not be after trial.stim_off=1000 ms."),
    (["train", "config=tiny", "plastic.n_inputs=1000"], "plastic.n_inputs=1000: should be at most 512"),
    (["train", "train.iterations=many"], "train.iterations=many: should be a whole number."),
    (["train", "config=mouse_decision", "recording.path=nowhere.zarr"], "recording.path=nowhere.zarr: no such folder"),
    (["train", "config=million"], "Try plastic.group_size="),
    (["train", "resume=nowhere"], "resume=nowhere: no run there"),
    (["train", "engine.platform=gpu"], "engine.platform=gpu: JAX finds no such device here, only cpu"),
    (["train", "trial.dt=["], "trial.dt=["),
    (["test"], "test: needs run=RUN"),
    (["test", "run=run", "test.checkpoint=77"], "test.checkpoint=77: run has no such checkpoint; it has those of iterations 2, 4."),
    (["train", "rls.penlambda=.4,.8"], "rls.penlambda=.4,.8: several values make a sweep, which needs -m."),
    (
        ["train", "config=tiny", "target=recording", "static.out_degree=0", "noise.sigma=0.001", "recording.path=rates.zarr"],
        "should be at least 0.005",
    ),
    (["train", "network.load=empty.zarr"], "neuron/excitatory has 0 values; should be one per neuron"),
    (["plot", "run=nowhere"], "run=nowhere: no run there"),
    (["info", "nowhere"], "info nowhere: no such folder"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[" ".join(a) for a, _ in WRONG])
def test_a_mistake_gets_one_line_and_a_status(place, arguments, message):
    if "engine.platform=gpu" in arguments:
        import jax

        assert jax.default_backend() == "cpu", "this row is for machines without a GPU"
    result = rlsnet(*arguments, cwd=place, status=1)
    complaint = result.stderr.strip().splitlines()
    assert len(complaint) == 1 and complaint[0].startswith("rlsnet: error: ") and message in complaint[0]
    assert message not in result.stdout
    assert not (place / "nowhere").exists()
