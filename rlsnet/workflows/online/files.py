"""Files of a run that learns while an experiment runs, for `rlsnet live`, tests and figures; each is replaced as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr

from rlsnet.config.schema import Config
from rlsnet.data import recording_writer
from rlsnet.data.recordings import HALVES
from rlsnet.data.streams.messages import Unit
from rlsnet.data.trial_average import reliability
from rlsnet.io import atomic, zarr_store
from rlsnet.runs.folder import Run
from rlsnet.workflows.online.predictions import Prediction
from rlsnet.workflows.online.session import START_HZ, Learned, Session, window_of

ONLINE, PREDICTION = "online.zarr", "prediction.zarr"


def trial_line(learned: Learned, session: Session, latency: float | None, lag: int) -> dict[str, Any]:
    """Line of a trial in trials.jsonl.

    Args:
      learned: what was learned from it.
      session: the session after it.
      latency: s, from the message that completed the trial to new weights and predictions; None when a stream is repeated.
      lag: number of trials that waited meanwhile.
    """
    trial, score, pad = learned.trial, learned.score, session.average.window.pad
    return {
        "trial": trial.number + 1,
        "condition": session.conditions[learned.conditions[0]] if learned.conditions else None,
        "time_s": next(iter(trial.events.values()), None),
        "n_spikes": int(trial.counts[:, pad : pad + session.average.window.bins].sum()),
        "n_units": len(trial.counted),
        "n_lost_units": int(session.average.lost.sum()),
        "iterations": learned.iterations,
        "total_iterations": session.models[0].done,
        "latency_s": None if latency is None else round(latency, 4),
        "lag_trials": lag,
        "held_out": learned.held_out,
        "score": None if score is None else score.score,
        "ceiling": None if score is None else score.ceiling,
        "variance": None if score is None else score.variance,
    }


class Psths(NamedTuple):
    """PSTHs so far.

    rate: [C, M, U] Hz.
    half: [2, C, M, U] Hz, of odd and of even trials.
    reliability: [U, C].
    """

    rate: np.ndarray
    half: np.ndarray
    reliability: np.ndarray

    @staticmethod
    def of(session: Session) -> Psths:
        """Those of a session."""
        half = np.stack([session.average.rates(name) for name in HALVES])
        return Psths(session.average.rates(), half, reliability(half))


def write_online(run: Run, session: Session, config: Config, psths: Psths) -> None:
    """Writes online.zarr: PSTHs of data and model."""
    n_units, neuron = session.average.n_units, session.assignment.neuron[: session.average.n_units]
    model = np.where(neuron >= 0, session.model_rate[:, :, np.maximum(neuron, 0)], np.float32(np.nan))
    columns = unit_columns(config, session.units[:n_units])
    with atomic.replacing(run.path / ONLINE) as temporary:
        root = zarr.create_group(str(temporary), attributes={"format": "rlsnet-online", "version": 1, "trial": session.n_trials})
        zarr_store.write(root, "condition", np.array(session.conditions), ["condition"])
        zarr_store.write(root, "time", centres(config), ["time"], units="s")
        zarr_store.write(root, "n_trials", session.average.n_trials.sum(axis=1).max(axis=1, initial=0), ["condition"])
        if n_units:
            zarr_store.write(root, "data", psths.rate, ["condition", "time", "unit"], units="Hz")
            zarr_store.write(root, "model", model.astype(np.float32), ["condition", "time", "unit"], units="Hz")
            zarr_store.write(root, "reliability", psths.reliability.T, ["condition", "unit"])
            for name, values in columns.items():
                zarr_store.write(root, f"unit/{name}", np.array(values, dtype=str), ["unit"])
        zarr_store.seal(temporary)


def write_prediction(run: Run, prediction: Prediction, session: Session, seeds: list[int]) -> None:
    """Writes prediction.zarr."""
    with atomic.replacing(run.path / PREDICTION) as temporary:
        root = zarr.create_group(str(temporary), attributes={"format": "rlsnet-prediction", "version": 1, "trial": session.n_trials})
        zarr_store.write(root, "perturbation", np.array(prediction.names), ["perturbation"])
        zarr_store.write(root, "condition", np.array(session.conditions), ["condition"])
        zarr_store.write(root, "seed", np.array(seeds, np.int64), ["model"])
        zarr_store.write(root, "effect", prediction.effect.astype(np.float32), ["model", "perturbation", "condition", "unit"], units="Hz")
        zarr_store.write(root, "noise", prediction.noise.astype(np.float32), ["model", "perturbation", "condition"], units="Hz")
        zarr_store.write(root, "observed", prediction.observed.astype(np.float32), ["perturbation", "condition", "unit"], units="Hz")
        zarr_store.write(root, "disagreement", prediction.disagreement, ["perturbation"], units="Hz")
        zarr_store.seal(temporary)


def unit_columns(config: Config, units: Sequence[Unit]) -> dict[str, list[str]]:
    """Columns [U] of units: id, stream and, with watch.regions, region."""
    columns = {"id": [unit.key for unit in units], "stream": [unit.stream for unit in units]}
    if config.watch.regions is not None:
        columns["region"] = [config.watch.regions.get(unit.stream or "all", "") for unit in units]
    return columns


def centres(config: Config) -> np.ndarray:
    """[M] s, centres of the bins of a trial, from its event."""
    window, _ = window_of(config)
    return np.round(window.start + window.width * (np.arange(window.bins) + 0.5), 9)


def write_first_recording(path: Path, config: Config, conditions: list[str], n_neurons: int) -> None:
    """Writes the recording.zarr of a run before its first trial: all neurons have the same constant rate."""
    rates = np.full((len(conditions), config.trial.n_points, n_neurons), START_HZ, np.float32)
    _write_recording(path, config, conditions, rates, {"id": np.full(n_neurons, "", object)}, None)


def write_recording(path: Path, config: Config, session: Session, psths: Psths) -> None:
    """Writes the recording.zarr of a run: the PSTHs so far in the order of the neurons, NaN for those without a unit."""
    n_neurons, extend = session.models[0].n_neurons, session.assignment.by_neuron
    texts = unit_columns(config, session.units[: session.average.n_units])
    columns = {name: extend(np.array(values, object), n_neurons, "") for name, values in texts.items()}
    columns["mean_rate"] = extend(session.average.mean_rate().astype(np.float32), n_neurons)
    columns["n_trials"] = extend(session.average.n_trials.sum(axis=1), n_neurons, 0).T
    columns["reliability"] = extend(psths.reliability.T, n_neurons).T
    _write_recording(path, config, session.conditions, extend(psths.rate, n_neurons), columns, extend(psths.half, n_neurons))


def _write_recording(
    path: Path, config: Config, conditions: list[str], rates: np.ndarray, columns: dict[str, np.ndarray], half: np.ndarray | None
) -> None:
    """Writes a recording.zarr; arguments as of `recording_writer.Writer.append`."""
    _, weight = window_of(config)
    about: dict[str, Any] = {
        "bin_ms": config.trial.learn_every,
        "source": f"messages of {config.watch.source}",
        "smoothing": weight.tolist(),
    }
    event = config.watch.align
    with recording_writer.writing(path, "rate", conditions, centres(config), half is not None, event, **about) as writer:
        writer.append(rates, columns, half)
