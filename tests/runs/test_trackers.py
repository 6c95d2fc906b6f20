"""Experiment trackers: metrics read back from the files that the trackers wrote."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr

from rlsnet.runs import trackers

SMALL = "config=tiny network.n_neurons=64 static.out_degree=12 plastic.n_inputs=8 trial.duration=200 test.trials=1".split()
SMALL += ["train.checkpoint_every=2"]


def rlsnet(*arguments: str, cwd: Path, status: int = 0, code: str = "", **environment: str) -> str:
    command = ["-c", f"{code}\nfrom rlsnet.cli.main import main\nmain()"] if code else ["-m", "rlsnet"]
    result = subprocess.run(
        [sys.executable, *command, *arguments], capture_output=True, text=True, cwd=cwd, env={**os.environ, **environment}
    )
    assert result.returncode == status, result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    return result.stdout + result.stderr


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def train_and_test(tracker: str, place: Path, **environment: str) -> str:
    """Four iterations, two more after a resume, a test; the output of all."""
    output = rlsnet("train", *SMALL, "train.iterations=4", "hydra.run.dir=run", f"tracking={tracker}", cwd=place, **environment)
    output += rlsnet("train", "resume=run", "train.iterations=6", cwd=place, **environment)
    return output + rlsnet("test", "run=run", cwd=place, **environment)


def assert_as_in_the_run(found: dict[str, dict[int, float]], run: Path) -> None:
    """A tracker has every number of metrics.jsonl under its iteration, and the scores of test.zarr under the last."""
    lines = metrics(run)
    for name in ("correlation", "rate_hz", "rate_exc_hz", "seconds", "n_undefined", "task"):
        assert found[name] == pytest.approx({line["iteration"]: line[name] for line in lines}, rel=1e-6), name
    score = zarr.open_group(str(run / "test.zarr"), mode="r")["current_correlation"][...].mean()
    assert found["test/current_correlation"] == pytest.approx({6: score}, rel=1e-5)


def events(folder: Path) -> dict[str, dict[int, float]]:
    """The scalars of TensorBoard's event files: tag, step, value."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob("events*"), key=lambda path: path.stat().st_mtime):
        data, at = path.read_bytes(), 0
        while at < len(data):  # length (8 bytes), its checksum (4), the event, its checksum (4)
            size = int.from_bytes(data[at : at + 8], "little")
            event = Event.FromString(data[at + 12 : at + 12 + size])
            at += size + 16
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def test_the_explained_variance_comes_first():
    results = zarr.create_group({}, attributes={"scores": {"population": {"all": {"model": 0.6, "ceiling": 0.8, "mean_rate": -0.1}}}})
    results.create_array("rate", data=np.ones((2, 3)), dimension_names=["condition", "neuron"])
    found = list(trackers.test_scores(results).items())
    assert found[:2] == [("test/population_explained_variance", 0.6), ("test/population_ceiling", 0.8)] and found[-1] == ("test/rate", 1.0)


def test_tensorboard(tmp_path):
    train_and_test("tensorboard", tmp_path)
    found = events(tmp_path / "run" / "tensorboard")
    assert_as_in_the_run(found, tmp_path / "run")
    assert set(found) == set(metrics(tmp_path / "run")[0]) - {"iteration"} | {"test/current_correlation", "test/rate"}


def test_a_tracker_that_is_not_installed_is_said_before_any_work(tmp_path):
    hidden = "import sys; sys.modules['tensorboardX'] = None"
    output = rlsnet("train", *SMALL, "hydra.run.dir=run", "tracking=tensorboard", cwd=tmp_path, status=1, code=hidden)
    line = "tracking=tensorboard: tensorboardX is not installed; pip install 'rlsnet[tensorboard]' installs it."
    assert output == f"rlsnet: error: {line}\n" and not (tmp_path / "run" / "network.zarr").exists()
    assert "expected none, tensorboard, wandb or mlflow" in rlsnet("train", "tracking=aim", cwd=tmp_path, status=1)


def test_a_tracker_that_fails_does_not_stop_the_run(tmp_path):
    """Its folder is a file; then it breaks in the middle: one warning each, and all iterations are done."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").write_text("")
    output = rlsnet("train", *SMALL, "train.iterations=2", "hydra.run.dir=run", "tracking=tensorboard", cwd=tmp_path)
    assert output.count("tracking=tensorboard ends here") == 1 and "the run goes on" in output
    (tmp_path / "run" / "tensorboard").unlink()
    breaking = "import tensorboardX as t; t.SummaryWriter.flush = lambda self: 1 / 0"
    output = rlsnet("train", "resume=run", "train.iterations=4", cwd=tmp_path, code=breaking)
    assert output.count("tracking=tensorboard ends here (division by zero)") == 1 and len(metrics(tmp_path / "run")) == 4


@pytest.mark.trackers
def test_mlflow(tmp_path):
    """One run in the folder mlruns, as MLflow reads it back, also when resumed from elsewhere."""
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    from mlflow import MlflowClient

    train_and_test("mlflow", tmp_path)
    known = json.loads((tmp_path / "run" / "tracking.json").read_text())["mlflow"]
    client = MlflowClient(str(tmp_path / "mlruns"))
    runs = client.search_runs([client.get_experiment_by_name("rlsnet").experiment_id])
    assert [run.info.run_id for run in runs] == [known["id"]] and runs[0].info.status == "FINISHED"
    assert runs[0].data.params["rls.penlambda"] == "0.8" and runs[0].data.params["network.n_neurons"] == "64"
    history = {name: {m.step: m.value for m in client.get_metric_history(known["id"], name)} for name in runs[0].data.metrics}
    assert_as_in_the_run(history, tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    rlsnet("train", "resume=../run", "train.iterations=7", cwd=tmp_path / "elsewhere")
    assert len(client.get_metric_history(known["id"], "correlation")) == 7 and not (tmp_path / "elsewhere" / "mlruns").exists()


@pytest.mark.trackers
def test_mlflow_out_of_reach(tmp_path):
    nowhere = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    output = rlsnet("train", *SMALL, "train.iterations=2", "hydra.run.dir=run", "tracking=mlflow", cwd=tmp_path, **nowhere)
    assert output.count("tracking=mlflow ends here") == 1 and "127.0.0.1" in output and len(metrics(tmp_path / "run")) == 2


def leveldb_log(data: bytes, offset: int) -> Iterator[bytes]:
    """The records of a file in LevelDB's log format: blocks of 32 KiB; a piece has a checksum (4 bytes), its size (2), its kind (1)."""
    at, record = 0, b""
    while at + 7 <= len(data):
        left = 2**15 - (at + offset) % 2**15
        if left < 7:
            at += left
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


@pytest.mark.trackers
def test_wandb_offline(tmp_path):
    """Three pieces of one run in W&B's files."""
    from wandb.proto.wandb_internal_pb2 import Record

    output = train_and_test("wandb", tmp_path, WANDB_MODE="offline")
    assert output.count("Tracked offline; wandb sync run/wandb/offline-run-") == 3
    found: dict[str, dict[int, float]] = {}
    runs = set()
    for path in sorted((tmp_path / "run" / "wandb").glob("offline*/*.wandb")):
        for data in leveldb_log(path.read_bytes()[7:], 7):
            record = Record.FromString(data)
            if record.WhichOneof("record_type") == "run":
                runs.add((record.run.project, record.run.run_id))
            if record.WhichOneof("record_type") == "history":
                row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
                for name, value in row.items():
                    found.setdefault(name, {})[row["iteration"]] = value
    assert runs == {("rlsnet", json.loads((tmp_path / "run" / "tracking.json").read_text())["wandb"]["id"])}
    assert_as_in_the_run(found, tmp_path / "run")


@pytest.mark.trackers
def test_wandb_without_an_account(tmp_path):
    clean = {"WANDB_API_KEY": "", "HOME": str(tmp_path), "WANDB_MODE": "online", "NETRC": str(tmp_path / "netrc")}
    output = rlsnet("train", *SMALL, "train.iterations=2", "hydra.run.dir=run", "tracking=wandb", cwd=tmp_path, **clean)
    assert output.count("tracking=wandb ends here (No API key configured") == 1 and len(metrics(tmp_path / "run")) == 2
