"""Several processes that compute one network: the same results, also after one of them was killed, and on another number of them."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import zarr
from commands import Command, rlsnet

import rlsnet as rlsnet_package
from rlsnet.runs.folder import Run

SETTINGS = (
    *("tiny", "engine.precision=float64", "network.n_neurons=130", "static.out_degree=40", "plastic.n_inputs=12", "train.iterations=6"),
    *("trial.stim_on=20", "trial.stim_off=40", "trial.duration=60", "train.checkpoint_every=2", "train.validate_every=2"),
    *("synapse.delay=1", "resources_every=0", "progress=plain"),
)


def team(folder, count, *arguments):
    """The processes of one run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"engine.coordinator=127.0.0.1:{port}", f"engine.processes={count}", "engine.devices=null"
    return [Command(*arguments, *address, f"engine.process={number}", cwd=folder) for number in range(count)]


def wait_for(path, processes):
    """Waits until a path exists."""
    until = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < until and all(process.runs for process in processes), processes[0].end()
        time.sleep(0.05)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The folder with a run of one process, `one`."""
    folder = tmp_path_factory.mktemp("processes")
    rlsnet("train", *SETTINGS, "hydra.run.dir=one", cwd=folder)
    return folder


def test_killed_interrupted_and_continued_on_other_numbers_of_processes(unbroken):
    """Four processes, of which one is killed; then two, one of which gets Ctrl-C; then one with three devices."""
    folder, checkpoints = unbroken, unbroken / "many/checkpoints"
    four = team(folder, 4, "train", *SETTINGS, "train.iterations=1000", "hydra.run.dir=many")
    wait_for(checkpoints / "000002.zarr", four)
    os.kill(four[2].pid, signal.SIGKILL)
    for number, process in enumerate(four):
        result = process.end()
        if number != 2:
            lines = [line for line in result.stderr.splitlines() if line.startswith("rlsnet: error: ")]
            words = f"process {number}: another process of this run has ended or does not answer"
            assert result.returncode == 1 and len(lines) == 1 and words in lines[0], result.stderr
    done = max(int(path.name[:6]) for path in checkpoints.glob("??????.zarr"))
    two = team(folder, 2, "train", "many", "train.iterations=1000")
    wait_for(checkpoints / f"{done + 2:06d}.zarr", two)
    os.kill(two[1].pid, signal.SIGINT)
    first, other = (process.end() for process in two)
    assert first.returncode == other.returncode == 130, first.stderr + other.stderr
    stopped = int(re.search(r"Stopped after iteration (\d+) of 1000 and saved it", first.stdout + first.stderr)[1])
    rlsnet("train", "many", f"train.iterations={stopped + 1}", "engine.devices=3", cwd=folder)
    rlsnet("train", "one", f"train.iterations={stopped + 1}", cwd=folder)
    one, many = (rlsnet_package.open_run(folder / run).weights(iteration=stopped + 1) for run in ("one", "many"))  # on one device
    assert abs(one - many).max() < 1e-6 and abs(one).max() > 1
    for name in ("plastic/weight", "P"):
        one, many = (zarr.open_group(folder / run / f"checkpoints/{stopped + 1:06d}.zarr", mode="r")[name][...] for run in ("one", "many"))
        np.testing.assert_allclose(many, one, rtol=1e-12, atol=1e-12 * np.abs(one).max())


def test_all_processes_end_if_the_first_cannot_start(unbroken):
    """Its folder is in use; the line of the other process says where to look."""
    with Run(unbroken / "one").claimed():
        first, other = (process.end() for process in team(unbroken, 2, "train", "one", "train.iterations=1000"))
    assert first.returncode == other.returncode == 1, first.stderr + other.stderr
    assert "process 0: one: another process uses this folder" in " ".join(first.stderr.split())
    assert other.stderr.splitlines()[-1] == ("rlsnet: error: process 1: another process could not start the run; its own message says why.")


def test_all_processes_test_a_run_started_by_srun(unbroken):
    """Two processes with the variables that srun sets; the results equal those of one process."""
    folder, silenced = unbroken, ("test", "one", "test.trials=2", "perturb=silence", "perturb.neurons=exc", "perturb.start=50")
    rlsnet(*silenced, cwd=folder)
    path = folder / "one/perturbed/silence.zarr"
    os.rename(path, folder / "alone.zarr")
    job = {"SLURM_JOB_ID": str(20000 + os.getpid() % 10000), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0"}
    two = [Command(*silenced, "engine.coordinator=slurm", cwd=folder, **job, SLURM_PROCID=str(number)) for number in range(2)]
    for process in two:
        result = process.end()
        assert result.returncode == 0, result.stderr
    alone, together = (zarr.open_group(each, mode="r") for each in (folder / "alone.zarr", path))
    assert alone["psth"][...].sum() > 0
    for name, values in alone.members(max_depth=None):
        if isinstance(values, zarr.Array) and values.dtype.kind in "fiub":
            np.testing.assert_allclose(together[name][...], values[...], rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("engine.coordinator=127.0.0.1:9",),
            "engine.coordinator=127.0.0.1:9: expected engine.processes and engine.process too, or slurm.",
        ),
        (("engine.coordinator=h:9", "engine.processes=2", "engine.process=2"), "engine.process=2: expected a number from 0 to 1, as"),
        (("engine.coordinator=slurm",), "engine.coordinator=slurm: this process was not started by srun; expected srun rlsnet"),
        (("engine.coordinator=host:port", "engine.processes=2", "engine.process=0"), "engine.coordinator=host:port: expected HOST:PORT,"),
        (("engine.processes=2",), "engine.processes and engine.process: expected engine.coordinator=HOST:PORT too."),
        (("engine.coordinator=h:9", "-m"), "engine.coordinator: expected null in a sweep; its runs have one process each."),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, arguments, message):
    assert message in " ".join(rlsnet("train", *SETTINGS, *arguments, cwd=tmp_path, status=1).stderr.split())
    assert not list(tmp_path.glob("outputs/*/*"))


def test_processes_that_do_not_come_are_waited_for_in_vain(tmp_path):
    """One line, where JAX alone would abort the process with many."""
    program = """
from rlsnet.config.schema import EngineConfig
from rlsnet.kernels import processes
processes.START_SECONDS = 1
with processes.together(EngineConfig(coordinator="127.0.0.1:9", processes=2, process=1), lambda: print("cleaned")):
    pass
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stdout == "cleaned\n"
    words = "process 1: engine.coordinator=127.0.0.1:9: not all of 2 processes have connected in 1 s."
    assert done.stderr.splitlines()[-1] == f"rlsnet: error: {words}"
