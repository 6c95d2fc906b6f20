"""Sweeps: killed and continued, in one process and through joblib and submitit."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

SMALL = "config=tiny network.n_neurons=64 static.out_degree=12 plastic.n_inputs=8 trial.duration=200 train.iterations=4".split()
SMALL += ["train.checkpoint_every=2", "plugins=[spy.py]"]
SPY = """
import os, pathlib, signal, time
import jax
from rlsnet.runs.folder import Run
append, claimed = Run.append_metrics, Run.claimed

def spying_append(self, line):  # once, in the job and by the signal that SPY names, when a checkpoint is behind it
    append(self, line)
    job, _, name = os.environ.get("SPY", "").partition(": ")
    if name and self.path.name == job and line["iteration"] == 3 and not (self.path / "spied").exists():
        while not (self.checkpoints / "000002.zarr").exists():
            time.sleep(0.01)
        (self.path / "spied").touch()
        os.kill(os.getppid() if name == "SIGKILL parent" else os.getpid(), getattr(signal, name.split()[0]))
        if name == "SIGKILL parent":
            time.sleep(3)

def spying_claimed(self):
    self.path.mkdir(exist_ok=True, parents=True)
    arrays = sum(array.nbytes for array in jax.live_arrays())
    (self.path / "live").write_text(f"{arrays} {len(jax.devices()[0].client.live_executables())}")
    return claimed(self)

Run.append_metrics, Run.claimed = spying_append, spying_claimed
"""


def train(*arguments: str, cwd: Path, status: int = 0, **environment: str) -> str:
    command = [sys.executable, "-m", "rlsnet", "train", *SMALL, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **environment})
    assert result.returncode == status, result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    return " ".join((result.stdout + result.stderr).split())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the unbroken sweep `whole`."""
    place = tmp_path_factory.mktemp("place")
    (place / "spy.py").write_text(SPY)
    train("sweep=whole", "rls.penlambda=.4,.8,2", cwd=place)
    return place


def job(place: Path, sweep: str, value: str) -> Path:
    return place / sweep / f"rls.penlambda={value}"


def assert_same(a: Path, b: Path) -> None:
    """Two runs ended with the same numbers, to the bit."""
    ends = [zarr.open_group(str(run / "checkpoints" / "000004.zarr"), mode="r") for run in (a, b)]
    for name in ("plastic/weight", "P"):
        np.testing.assert_array_equal(ends[0][name][...], ends[1][name][...])
    seconds = re.compile(r'"seconds": [\d.e-]+')
    assert [seconds.sub("", (run / "metrics.jsonl").read_text()) for run in (a, b)][0].count("iteration") == 4
    assert seconds.sub("", (a / "metrics.jsonl").read_text()) == seconds.sub("", (b / "metrics.jsonl").read_text())


def test_a_killed_sweep_goes_on_with_the_same_command(place):
    """SIGKILL in the second of three jobs; then the same with one value more, which is wrong."""
    train("sweep=broken", "rls.penlambda=.4,.8,2", cwd=place, status=-9, SPY="rls.penlambda=0.8: SIGKILL")
    assert not job(place, "broken", "2").exists() and "000002.zarr" in os.listdir(job(place, "broken", "0.8") / "checkpoints")
    before = (job(place, "broken", "0.4") / "rlsnet.log").stat().st_mtime_ns
    output = train("sweep=broken", "rls.penlambda=2,-1,0.80,.4", cwd=place, status=1)
    assert "Sweep broken: 4 jobs: 2 done, 1 done before, 1 failed." in output and "Resuming after iteration 2." in output
    assert "error: sweep broken: 1 of 4 jobs failed: rls.penlambda=-1 (rls.penlambda=-1.0: expected a value above 0)." in output
    assert (job(place, "broken", "0.4") / "rlsnet.log").stat().st_mtime_ns == before
    for value in ("0.4", "0.8", "2"):
        assert_same(job(place, "whole", value), job(place, "broken", value))


def test_a_finished_sweep_is_left_alone_and_more_iterations_go_on(place):
    output = train("sweep=whole", "rls.penlambda=.4,.8,2", "train.iterations=3", cwd=place)
    assert "Sweep whole: 3 jobs, 0 to do. Sweep whole: 3 jobs: 3 done before." in output
    output = train("sweep=whole", "rls.penlambda=.4,0.40,2,.8", cwd=place)
    assert "Sweep whole: 4 jobs, 0 to do. Sweep whole: 4 jobs: 3 done before, 1 given twice." in output
    refused = train("sweep=whole", "rls.penlambda=.4,.8", "seed=2", cwd=place, status=1)
    assert "seed=2: whole/rls.penlambda=0.4 was made with 1; this cannot change" in refused and "Run folder" not in refused
    with (job(place, "whole", "0.8") / ".lock").open() as lock:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX)
        output = train("sweep=whole", "rls.penlambda=.4,.8", cwd=place, status=1)
    assert "1 done before, 1 in use by another process" in output and "another process uses rls.penlambda=0.8; wait for it" in output


def test_jobs_of_one_process_leave_neither_arrays_nor_programs_behind(place):
    """What is live on the device when a job begins does not grow with the jobs before."""
    live = [list(map(int, (job(place, "whole", value) / "live").read_text().split())) for value in ("0.4", "0.8", "2")]
    assert max(arrays for arrays, _ in live) < 1000 and max(programs for _, programs in live) < 10, live


@pytest.mark.slow
def test_joblib_runs_jobs_side_by_side(place):
    """The process that started them is killed, whereupon they save and end; then the same command."""
    side = ["sweep=side", "rls.penlambda=.4,-1,.8", "hydra/launcher=parallel"]
    train(*side, cwd=place, status=-9, SPY="rls.penlambda=0.8: SIGKILL parent")
    log = job(place, "side", "0.8") / "rlsnet.log"
    deadline = time.monotonic() + 30
    while "Stopped after iteration 3 of 4 and saved it" not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    output = train(*side, cwd=place, status=1)
    assert "rls.penlambda=0.8: Resuming after iteration 3." in output and "1 failed." in output
    assert "jobs failed: rls.penlambda=-1 (rls.penlambda=-1.0: expected a value above 0)." in output
    for value in ("0.4", "0.8"):
        assert_same(job(place, "whole", value), job(place, "side", value))


def test_jobs_of_equal_settings_are_trained_together(place):
    """With the results of the sweep whose jobs ran one after another; jobs with other settings run alone, and one fails."""
    command = ["sweep=packed", "hydra/launcher=packed", "plugins=[]", "engine.platform=cpu"]
    output = train(*command, "rls.penlambda=.4,.8,-1", cwd=place, status=1)
    assert "hydra/launcher=packed: 2 jobs are trained together." in output
    assert "sweep packed: 1 of 3 jobs failed: rls.penlambda=-1 (rls.penlambda=-1.0: expected a value above 0)." in output
    for value in ("0.4", "0.8"):
        assert "Computed together with 1 other run;" in (job(place, "packed", value) / "rlsnet.log").read_text()
        assert_same(job(place, "whole", value), job(place, "packed", value))
    output = train("sweep=steps", *command[1:], "train.iterations=1", "trial.learn_every=10,20", "hydra.launcher.n_jobs=4", cwd=place)
    assert "hydra/launcher=packed: 2 jobs alone (not the same: trial.learn_every)." in output


@pytest.mark.slow
def test_submitit_queues_a_job_again_whose_time_is_up(place):
    """The signal that SLURM sends before the time is up: the job saves the iteration at hand, is queued again and goes on."""
    options = ["hydra/launcher=submitit_local", "+hydra.launcher.max_num_timeout=2"]
    output = train("sweep=queue", "rls.penlambda=.4,-1", *options, cwd=place, status=1, SPY="rls.penlambda=0.4: SIGUSR2")
    assert "1 of 2 jobs failed: rls.penlambda=-1 (rls.penlambda=-1.0: expected a value above 0)." in output
    log = (job(place, "queue", "0.4") / "rlsnet.log").read_text()
    assert "Stopped after iteration 3 of 4 and saved it" in log and "Resuming after iteration 3." in log
    assert_same(job(place, "whole", "0.4"), job(place, "queue", "0.4"))


def test_folder_names():
    from rlsnet.cli.sweeps import folder_name

    def name(*overrides):
        return folder_name(overrides, ["a.b", "c", "neuron"])

    assert name("seed=1", "a.b=.50", "c=1e-3") == name("c=0.001", "a.b=0.5", "seed=2") == "a.b=0.5,c=0.001"
    assert name("neuron=glif3") == "neuron=glif3" and name("c=100 us") != name("c=100_us") != name("c='100 us'") == name("c=100 us")
    long = [name(f"c=/scratch/{'x' * 200}/{end}") for end in "ab"]
    assert long[0] != long[1] and all(len(each) <= 100 for each in long)
    assert all(re.fullmatch(r"[\w.,=+-]+", each) for each in [*long, name("c='a\\b:*?\"<>|µ'"), name("c=[1,2]")])
    assert name("c=../..") != name("c=..") and "/" not in name("c=../..")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep=one"], "sweep=one: expected a key with several values, such as rls.penlambda=.4,.8."),
        (["sweep=s", "seed=1,2", "hydra.sweep.dir=t"], "hydra.sweep.dir=t: cannot be combined with sweep=s"),
        (["sweep=whole/rls.penlambda=2", "seed=1,2"], "is a run; expected a new folder"),
        (["sweep=s", "seed=1,2", "resume=whole"], "expected resume=auto in a sweep"),
    ],
)
def test_mistakes(place, arguments, message):
    output = train(*arguments, cwd=place, status=1)
    assert output.startswith("rlsnet: error: ") and message in output


def test_a_launcher_that_is_not_installed(place):
    """Hydra finds its launchers as modules of hydra_plugins, which here are hidden."""
    code = "import sys; sys.modules['hydra_plugins'] = None; from rlsnet.cli.main import main; sys.argv = ['rlsnet', *sys.argv[1:]]; main()"
    for launcher, extra in (("slurm_gpu", "slurm"), ("submitit_local", "slurm"), ("parallel", "joblib")):
        arguments = ["train", *SMALL, "sweep=s", "seed=1,2", f"hydra/launcher={launcher}"]
        result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=place)
        assert result.returncode == 1 and len(result.stderr.splitlines()) == 1
        assert "is not installed" in result.stderr and f"pip install 'rlsnet[{extra}]'" in result.stderr
    assert not (place / "s").exists()


def test_slurm_is_asked_for_what_the_preset_says(place):
    """The batch file as `sbatch` gets it; this one keeps it and refuses, as one does for a partition that is not there."""
    (place / "bin").mkdir()
    for name, script in (("sbatch", 'cp "$1" batch.sh; echo "sbatch: error: invalid partition specified: gpu" >&2; exit 1'), ("srun", "")):
        (place / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (place / "bin" / name).chmod(0o755)
    options = ["hydra/launcher=slurm_gpu", "hydra.launcher.partition=gpu", "hydra.launcher.setup=[module load cuda]"]
    output = train("sweep=slurm", "seed=1,2", *options, cwd=place, status=1, PATH=f"{place / 'bin'}:{os.environ['PATH']}")
    assert "error: slurm: the launcher stopped (" in output and "invalid partition specified: gpu" in output
    batch = (place / "batch.sh").read_text()
    for line in ("--array=0-1%2", "--gpus-per-node=1", "--cpus-per-task=4", "--partition=gpu", "--signal=USR2@180", "--time=240"):
        assert f"#SBATCH {line}\n" in batch
    assert "module load cuda\n" in batch
