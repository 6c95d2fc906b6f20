"""Documentation: every line of the table of features runs, and so do the models in docs/extending.md."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import commands
import numpy as np
import pytest
import zarr
from conftest import compose, small_network, write_network

from rlsnet.runs.folder import Run
from rlsnet.workflows import training

DOCS = Path(__file__).parents[1] / "docs"
ROWS = re.findall(r"^\| [^|]+ \| [^|]+ \| (`.*`) \|$", (DOCS / "comparison.md").read_text(), re.MULTILINE)
LINES = [line for row in ROWS for line in re.findall(r"`([^`]*=[^`]*)`", row)]
SMALL = shlex.split(
    "network.n_neurons=60 static.out_degree=12 plastic.n_inputs=16 trial.stim_on=10 trial.stim_off=40 trial.duration=200 train.iterations=1"
)

EXTENDING = (DOCS / "extending.md").read_text()
MINE, STEP, SOFT = re.findall(r"```(?:python|yaml)\n(.*?)```", EXTENDING, re.DOTALL)


def test_the_table_is_found():
    assert len(LINES) > 30 and "neuron=lif" in LINES


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The files that the lines name, in the working directory."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    write_network(tmp_path / "network.zarr", small_network(0))
    np.savetxt("edges.csv", random.integers(0, 60, (300, 3)), "%d", ",", header="pre,post,weight", comments="")
    np.save("rates.npy", random.uniform(0, 20, (1, 20, 5)))
    np.save("stimulus.npy", random.normal(0, 1, (1, 3, 60)))
    for name, array, values in (
        ("mine", "rate", random.uniform(1, 20, (2, 20, 60))),
        ("gaps", "rate", np.where(np.arange(60) % 3, random.uniform(1, 20, (2, 20, 60)), np.nan)),
        ("currents", "current", random.normal(0, 0.5, (1, 20, 60))),
    ):
        root = zarr.create_group(f"{name}.zarr", attributes={"format": "rlsnet-recording", "bin_ms": 10.0})
        root[array] = values.astype("float32")
    Path("mine.py").write_text(MINE)
    for path, text in (("conf/target/step.yaml", STEP), ("conf/neuron/mine.yaml", SOFT)):
        Path(path).parent.mkdir(parents=True)
        Path(path).write_text(text)


@pytest.mark.parametrize("line", LINES)
def test_each_line_of_the_table_runs(tmp_path, files, line):
    words = shlex.split(line)
    small = [s for s in SMALL if not (s.startswith("static.out_degree") and any(w.startswith("static=") for w in words))]
    if "--config-dir" in words:
        done = commands.run("train", "config=tiny", *small, *words, "hydra.run.dir=run", "progress=off", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    else:
        config = compose("config=tiny", *small, *words, "progress=off")
        assert training.run_training(config, Run(tmp_path / "run"), resumed=False) == 0
    assert Run(tmp_path / "run").iterations() == [1]


SMALLER = (
    ("example_sessions.py sessions", "example_sessions.py sessions --units 40 50 40"),
    ("iterations=30", "iterations=2"),
    ("iterations=40", "iterations=3"),
    ("iterations=20", "iterations=1"),
    ("000040.zarr", "000003.zarr"),
    ("test.trials=10", "test.trials=2"),
)


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path):
    """Every block of docs/tutorial.md, in order, with fewer units and iterations."""

    def run(command: list[str]) -> None:
        if command[0] == "rlsnet":
            words = [path for word in command[1:] for path in (sorted(map(str, tmp_path.glob(word))) if "*" in word else [word])]
            done = commands.run(*words, cwd=tmp_path)
        else:
            environment = {**os.environ, "PYTHONPATH": str(DOCS.parent)}
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    blocks = re.findall(r"```(bash|python)\n(.*?)```", (DOCS / "tutorial.md").read_text(), re.DOTALL)
    assert len(blocks) >= 9
    (tmp_path / "scripts").symlink_to(DOCS.parent / "scripts")
    for language, text in blocks:
        for before, after in SMALLER:
            text = text.replace(before, after)
        for command in [["python", "-c", text]] if language == "python" else map(shlex.split, text.splitlines()):
            run([sys.executable, *command[1:]] if command[0] == "python" else command)
    assert (tmp_path / "runs/first/report.html").exists() and (tmp_path / "runs/first/perturbed/silence.zarr").exists()
    assert len(list((tmp_path / "tune").glob("*/checkpoints/000001.zarr"))) == 3
