"""Experiment trackers: metrics and scores are sent to another program, in addition to the files of the run.

`tracking=tensorboard` writes RUN/tensorboard; `wandb` and `mlflow` follow their own settings (WANDB_MODE, WANDB_PROJECT,
MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME). RUN/tracking.json has the name of the run in the tracker, so that a resumed run and its
tests are added there. An error of a tracker ends the tracking with one warning; the run continues.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zarr

from rlsnet.config.load import flat, to_dict
from rlsnet.config.schema import Config
from rlsnet.errors import UserError
from rlsnet.io import atomic, zarr_store
from rlsnet.runs.folder import Run

log = logging.getLogger(__name__)

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}  # tracker, which is also the extra: module
SHOWN = 300  # characters of a tracker's error message
PARAMS_AT_ONCE = 100  # limit of MLflow
ENVIRONMENT = {  # variables that a tracker needs, where they are not set
    "mlflow": {
        "MLFLOW_ALLOW_FILE_STORE": "true",  # since version 3.17, for a folder
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # its default, 7, takes minutes
    }
}


class Tracker(Protocol):
    """Connection to a run in a tracker."""

    def log(self, values: Mapping[str, float], iteration: int) -> None:
        """Adds the named numbers of an iteration, counted from 1."""

    def finish(self) -> None:
        """Sends the rest and closes the run."""


def require(name: str) -> None:
    """Raises UserError if the package of a tracker is not installed."""
    if name != "none" and importlib.util.find_spec(PACKAGES[name]) is None:
        raise UserError(f"tracking={name}: {PACKAGES[name]} is not installed; pip install 'rlsnet[{name}]' installs it.")


@contextlib.contextmanager
def tracked(config: Config, run: Run, done: int) -> Iterator[Callable[[Mapping[str, Any], int], None]]:
    """Context with a function (named numbers, iteration) that sends numbers to the tracker of `config.tracking`.

    Args:
      config: settings of the run.
      run: the run.
      done: number of iterations computed before.

    Raises:
      UserError: the package of the tracker is not installed.
    """
    tracker: list[Tracker] = []  # one, or none

    def attempt(act: Callable[[], Any]) -> None:
        try:
            act()
        except Exception as error:
            tracker.clear()
            words = " ".join(str(error).split()) or type(error).__name__
            log.warning("tracking=%s ends here (%s); the run goes on.", config.tracking, words[:SHOWN])

    def track(values: Mapping[str, Any], iteration: int) -> None:
        known = {
            name: float(value)
            for name, value in values.items()
            if name != "iteration" and isinstance(value, int | float) and np.isfinite(value)
        }
        if tracker:
            attempt(lambda: tracker[0].log(known, iteration))

    if config.tracking == "none":
        yield track
        return
    require(config.tracking)
    with _environment(ENVIRONMENT.get(config.tracking, {})):
        attempt(lambda: tracker.append(START[config.tracking](run, config, done)))
        try:
            yield track
        finally:
            if tracker:
                attempt(lambda: tracker[0].finish())


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Context in which environment variables have these values, unless they were set before."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def test_scores(results: zarr.Group) -> dict[str, float]:
    """Scores in a test.zarr as `test/NAME`: population explained variances, then the mean of each score over neurons and conditions."""
    stored: Any = results.attrs.get("scores", {})
    population = stored.get("population", {}).get("all", {})
    bits = stored.get("population", {}).get("bits_per_spike", {}).get("all", {})
    scores = {f"test/population_{'explained_variance' if name == 'model' else name}": value for name, value in population.items()}
    scores |= {f"test/bits_per_spike{'' if name == 'model' else f'_{name}'}": value for name, value in bits.items()}
    for name, values in results.arrays():
        if values.metadata.dimension_names == ("condition", "neuron"):
            found = zarr_store.read(values)
            if name == "trained":
                continue
            if "trained" in results and name != "rate":
                found = found[zarr_store.read(results["trained"])]
            if np.isfinite(found).any():
                scores[f"test/{name}"] = float(np.nanmean(found))
    return scores


def _flat(config: Config) -> dict[str, str]:
    """Settings with dotted keys, their values as text."""
    return {key: str(value) for key, value in flat(to_dict(config)).items()}


def _remembered(run: Run, tracker: str) -> dict[str, str]:
    """The entry of a tracker in RUN/tracking.json; empty if there is none."""
    path = run.path / "tracking.json"
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads(path.read_text()).get(tracker, {}))
    return {}


def _remember(run: Run, tracker: str, **entry: str) -> None:
    """Writes the entry of a tracker to RUN/tracking.json."""
    path = run.path / "tracking.json"
    held = json.loads(path.read_text()) if path.exists() else {}
    with atomic.replacing(path) as temporary:
        temporary.write_text(json.dumps({**held, tracker: entry}, indent=1))


class TensorBoard:
    """Event files in RUN/tensorboard."""

    def __init__(self, run: Run, config: Config, done: int):
        writer = importlib.import_module("tensorboardX").SummaryWriter
        self.writer = writer(str(run.path / "tensorboard"), purge_step=done + 1 if done < config.train.iterations else None)
        if not done:
            self.writer.add_text("config", "\n".join(f"    {key}: {value}" for key, value in _flat(config).items()), 0)

    def log(self, values: Mapping[str, float], iteration: int) -> None:
        """Adds the numbers and writes them to the disk, so that a crash loses none from before a checkpoint."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, iteration)
        self.writer.flush()

    def finish(self) -> None:
        """Closes the file."""
        self.writer.close()


class Wandb:
    """A run of Weights & Biases, with files in RUN/wandb. Iterations are a metric of that name, as its own step number cannot decrease."""

    def __init__(self, run: Run, config: Config, done: int):
        wandb = importlib.import_module("wandb")
        known = _remembered(run, "wandb").get("id")
        name = known or uuid.uuid4().hex[:8]
        self.run = wandb.init(
            id=name,
            resume="allow",
            project=os.environ.get("WANDB_PROJECT", "rlsnet"),
            name=None if known else str(run.path),
            dir=str(run.path),
            config=to_dict(config),
            settings=wandb.Settings(silent=True, console="off"),
        )
        _remember(run, "wandb", id=name)
        self.run.define_metric("iteration")
        self.run.define_metric("*", step_metric="iteration")
        self.offline = self.run.settings.mode == "offline"
        if not self.offline:
            log.info("Tracked at %s", self.run.url)

    def log(self, values: Mapping[str, float], iteration: int) -> None:
        """Adds one row."""
        self.run.log({**values, "iteration": iteration})

    def finish(self) -> None:
        """Uploads the rest, or logs the command that does."""
        self.run.finish()
        if self.offline:
            log.info("Tracked offline; wandb sync %s uploads it.", Path(self.run.dir).parent)


class MLflow:
    """A run of MLflow; without MLFLOW_TRACKING_URI, in the folder mlruns of the current folder."""

    def __init__(self, run: Run, config: Config, done: int):
        known = _remembered(run, "mlflow")
        where = os.environ.get("MLFLOW_TRACKING_URI") or known.get("uri") or Path("mlruns").resolve().as_uri()
        mlflow = importlib.import_module("mlflow")
        self.client = mlflow.MlflowClient(where)
        self.id = known["id"] if known.get("uri") == where else self._create(run, config)
        _remember(run, "mlflow", id=self.id, uri=where)
        self.client.update_run(self.id, status="RUNNING")

    def _create(self, run: Run, config: Config) -> str:
        entities = importlib.import_module("mlflow.entities")
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "rlsnet")
        if self.client.get_experiment_by_name(name) is None:
            with contextlib.suppress(Exception):  # another job of a sweep was faster
                self.client.create_experiment(name)
        created = self.client.create_run(self.client.get_experiment_by_name(name).experiment_id, run_name=str(run.path))
        params = [entities.Param(key, value) for key, value in _flat(config).items()]
        for start in range(0, len(params), PARAMS_AT_ONCE):
            self.client.log_batch(created.info.run_id, params=params[start : start + PARAMS_AT_ONCE])
        return str(created.info.run_id)

    def log(self, values: Mapping[str, float], iteration: int) -> None:
        """Adds one batch."""
        metric, now = importlib.import_module("mlflow.entities").Metric, time.time_ns() // 10**6
        self.client.log_batch(self.id, metrics=[metric(name, value, now, iteration) for name, value in values.items()])

    def finish(self) -> None:
        """Marks the run as finished."""
        self.client.set_terminated(self.id)


START: dict[str, Callable[[Run, Config, int], Tracker]] = {"tensorboard": TensorBoard, "wandb": Wandb, "mlflow": MLflow}
