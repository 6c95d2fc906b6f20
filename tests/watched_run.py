"""Files that rlsnet watch writes into the folder of a run, with made-up values."""

import json
import time
from pathlib import Path

import numpy as np
import zarr

from rlsnet.io import atomic, zarr_store
from rlsnet.runs.metrics import append_line

CONDITIONS = ["lick left", "lick right"]
PERTURBATIONS = ["silence ALM", "silence thalamus", "silence striatum", "stimulate midbrain"]
REGIONS = ["ALM", "Thalamus", "Striatum", "Midbrain", ""]


def store(path: Path, format: str, trial: int, arrays: dict) -> None:
    """Replaces a store atomically; arrays: values and names of dimensions, by name."""
    with atomic.replacing(path) as temporary:
        group = zarr.create_group(str(temporary), attributes={"format": format, "trial": trial})
        for name, (values, dims) in arrays.items():
            zarr_store.write(group, name, values, dims)
        zarr_store.seal(temporary)


def rates(n_units: int, conditions: list[str], n_bins: int, quality: float, seed: int = 0) -> tuple[np.ndarray, ...]:
    """(time, data, model, reliability): each unit has a peak, and the model has a share `quality` of its shape."""
    random, time_s = np.random.default_rng(seed), np.arange(n_bins) * 0.02 - 1.5
    base, height = random.gamma(2, 2, n_units), random.gamma(2, 6, n_units)
    peak, width = random.uniform(-1.4, time_s[-1], n_units), random.uniform(0.1, 0.4, n_units)
    gain = random.uniform(0.2, 1.3, (len(conditions), 1, n_units))
    data = base + gain * height * np.exp(-0.5 * ((time_s[:, None] - peak) / width) ** 2)
    shift = random.normal(0, 0.06, n_units)
    model = base * 1.1 + quality * gain * height * np.exp(-0.5 * ((time_s[:, None] - peak - shift) / (width * 1.2)) ** 2)
    model = model + random.normal(0, 1, model.shape) * random.gamma(1, 0.8, n_units)
    noise = random.normal(0, 1, data.shape) * np.sqrt(data) * 0.3
    return time_s, np.maximum(data + noise, 0), np.maximum(model, 0), random.beta(5, 3, (len(conditions), n_units))


def write_online(folder: Path, trial: int, n_units: int = 300, conditions=CONDITIONS, n_bins: int = 200, quality: float = 0.8) -> tuple:
    time_s, data, model, reliability = rates(n_units, list(conditions), n_bins, quality)
    per_unit = ["condition", "time", "unit"]
    arrays = {
        "condition": (np.array(conditions), ["condition"]),
        "time": (time_s, ["time"]),
        "n_trials": (np.full(len(conditions), trial // len(conditions)), ["condition"]),
        "unit/id": (np.array([f"probe{'AB'[i % 2]}-{i}" for i in range(n_units)], str), ["unit"]),
        "unit/region": (np.array([REGIONS[i % len(REGIONS)] for i in range(n_units)], str), ["unit"]),
        "data": (data.astype("f4"), per_unit),
        "model": (model.astype("f4"), per_unit),
        "reliability": (reliability.astype("f4"), ["condition", "unit"]),
    }
    store(folder / "online.zarr", "rlsnet-online", trial, arrays)
    return time_s, data, model


def write_prediction(folder: Path, trial: int, n_units: int = 300, n_models: int = 4) -> np.ndarray:
    random, n = np.random.default_rng(trial), len(PERTURBATIONS)
    centre = np.array([[-3.2, -2.1], [-1.0, -1.4], [0.4, 0.9], [2.6, 1.9]])[..., None]
    own = random.normal(0, 1, (n_models, n, 2, 1)) * np.array([0.2, 1.1, 0.4, 0.5])[:, None, None]
    effect = (centre + own + random.normal(0, 1, (n_models, n, 2, n_units))).astype("f4")
    observed = np.full((n, 2, n_units), np.nan, "f4")
    observed[0, :, : n_units // 2] = centre[0] + 0.3 + random.normal(0, 1, (2, n_units // 2))
    arrays = {
        "perturbation": (np.array(PERTURBATIONS), ["perturbation"]),
        "condition": (np.array(CONDITIONS[:2]), ["condition"]),
        "seed": (np.arange(n_models), ["seed"]),
        "effect": (effect, ["seed", "perturbation", "condition", "unit"]),
        "noise": (np.full((n_models, n, 2), 0.15, "f4"), ["seed", "perturbation", "condition"]),
        "observed": (observed, ["perturbation", "condition", "unit"]),
        "disagreement": (np.array([0.25, 1.3, 0.45, 0.6], "f4"), ["perturbation"]),
    }
    store(folder / "prediction.zarr", "rlsnet-prediction", trial, arrays)
    return effect


def trial_line(trial: int, score: float | None = 5.0, **values) -> dict:
    name = None if trial % 17 == 0 else CONDITIONS[trial % 2]
    line = {
        "trial": trial,
        "condition": name,
        "time_s": 6.1 * trial,
        "n_spikes": 8000 + 13 * trial,
        "n_units": 300,
        "iterations": 4 * trial,
    }
    line |= {"total_iterations": 4 * trial, "latency_s": 0.4 + 0.01 * (trial % 7), "lag_trials": 0, "held_out": trial % 5 == 0}
    return {**line, "score": score, "ceiling": 8.0, "variance": 10.0, **values}


def write_ingest(folder: Path, trial: int, **values) -> None:
    now = time.time()
    content = {"time": now, "source": "Open Ephys at tcp://127.0.0.1:5557", "problem": "", "spikes": 21000 * trial, "spikes_per_s": 3480.0}
    content |= {
        "spikes_in_windows": 9000 * trial,
        "units": 300,
        "markers": 2 * trial,
        "trials": trial,
        "trials_without_condition": trial // 17,
    }
    content |= {
        "lost": 0,
        "rejected": 3,
        "rejected_reason": "a unit of an unknown probe",
        "late": 12,
        "lag_trials": 0,
        "last_message": now - 0.2,
    }
    content |= {"free_bytes": 4.1e11, "training": "training"}
    with atomic.replacing(folder / "ingest.json") as temporary:
        temporary.write_text(json.dumps({**content, **values}))


def iteration_line(iteration: int, seed: int = 0) -> dict:
    random, rise = np.random.default_rng([seed, iteration]), 1 - np.exp(-iteration / 60)
    line = {
        "iteration": iteration,
        "task": iteration % 2,
        "seconds": 0.083,
        "rate_hz": 5.0,
        "rate_exc_hz": 4.0,
        "rate_inh_hz": 9.0,
        "n_undefined": 0,
    }
    line |= {"correlation": float(0.85 * rise + random.normal(0, 0.02)), "explained_variance": float(0.7 * rise + random.normal(0, 0.03))}
    return {**line, **({"validation": float(0.6 * rise), "validation_seconds": 0.2} if iteration % 20 == 0 else {})}


def write_watched(folder: Path, trials: int = 60, **online) -> tuple:
    """All files of an experiment after some trials; returns time, data and model."""
    random = np.random.default_rng(3)
    for trial in range(1, trials + 1):
        append_line(folder / "trials.jsonl", trial_line(trial, float(8 * (1 - np.exp(-trial / 15)) - 2.5 + random.normal(0, 1.5))))
    write_ingest(folder, trials)
    write_prediction(folder, trials)
    return write_online(folder, trials, **online)
