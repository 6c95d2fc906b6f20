"""A synthetic stand-in for a large recording of mice that lick left or right after a delay.

It is not data. It has the size and the roughness of such data, so that everything from reading to training is tried
at full scale: log-normal mean rates, sessions and regions, choice-selective ramps during the delay, responses to the
sample tone and the go cue, a licking rhythm, and the noise of PSTHs from tens of trials.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import zarr
from scipy.ndimage import gaussian_filter1d

from rlsnet import zarrio
from rlsnet.recordings import CHUNK_UNITS, FORMAT

VERSION = 1
N_UNITS = 66_002
CONDITIONS = ("left", "right")
BIN_MS, N_BINS, START_S = 20.0, 150, -2.0  # bins around the go cue at 0 s
SAMPLE_S, DELAY_S = -1.85, -1.2  # start of the sample tones and of the delay
REGIONS = ("ALM", "striatum", "thalamus", "midbrain", "medulla", "cerebellum")
UNITS_PER_SESSION = 380
LICK_HZ = 7.0
MAX_HZ = 200.0
SMOOTHING_BINS = 2.5  # s.d. of the Gaussian that smooths PSTHs, 50 ms


def _bump(t: np.ndarray, latency: np.ndarray, width: np.ndarray) -> np.ndarray:
    """[M, n] responses that start at `latency`, peak at 1 after `width` and fade; s."""
    x = np.maximum(t[:, None] - latency, 0) / width
    return x * np.exp(1 - x)


def rates(random: np.random.Generator, n: int, region: np.ndarray) -> np.ndarray:
    """[C, M, n] underlying rates in Hz of n units, noise not yet included."""
    t = START_S + BIN_MS / 1000 * (np.arange(N_BINS) + 0.5)
    mean = np.minimum(np.exp(random.normal(np.log(2.75), 1.25, n)), 90)  # about 6 Hz on average, a fifth below 1
    motor = np.isin(region, (3, 4, 5))

    power = random.uniform(0.5, 3, n)
    ramp = np.clip((t[:, None] - DELAY_S) / -DELAY_S, 0, 1) ** power
    ramp *= np.where(t[:, None] > 0, np.exp(-np.maximum(t[:, None], 0) / random.uniform(0.05, 0.6, n)), 1)
    common = random.normal(0.1, 0.4, n) * ramp
    selective = random.laplace(0, 0.35, n) * ramp
    sample = random.gamma(1, 0.15, n) * _bump(t, SAMPLE_S + random.uniform(0, 0.2, n), random.uniform(0.05, 0.3, n))
    go = random.normal(0.25, 0.5, n) * _bump(t, random.uniform(0.02, 0.15, n), random.uniform(0.03, 0.2, n))
    go_selective = random.laplace(0, 0.25, n) * _bump(t, random.uniform(0.02, 0.2, n), random.uniform(0.1, 0.4, n))
    lick = (
        np.where(motor, 0.5, 0.15) * random.gamma(1, 0.7, n) * np.where(t[:, None] > 0.1, np.exp(-np.maximum(t[:, None] - 0.1, 0) / 0.8), 0)
    )
    lick = lick * np.cos(2 * np.pi * LICK_HZ * t[:, None] + random.uniform(0, 2 * np.pi, n))
    side = random.choice([0.3, 1.0, 1.7], n)

    out = np.empty((len(CONDITIONS), N_BINS, n))
    for condition, sign in enumerate((1.0, -1.0)):
        drive = common + sample + go + sign * (selective + go_selective) + lick * (side if sign > 0 else 2 - side)
        out[condition] = np.exp(np.clip(drive, -4, 2.5))
    return np.minimum(out * (mean / out.mean(axis=(0, 1))), MAX_HZ)


def observe(random: np.random.Generator, rate: np.ndarray, trials: np.ndarray) -> np.ndarray:
    """PSTHs [C, M, n] of `trials` [C, n] Poisson trials each, smoothed over time."""
    exposure = trials[:, None, :] * BIN_MS / 1000
    counts = random.poisson(rate * exposure)
    return gaussian_filter1d(counts / exposure, SMOOTHING_BINS, axis=1, mode="reflect")


def make(path: Path, n_units: int, seed: int = 0, tell: Callable[[int, int], None] = lambda done, total: None) -> None:
    """Writes a recording.zarr of `n_units` synthetic units, whole or not at all; `tell` hears of (done, total) units."""
    session = np.arange(n_units) // UNITS_PER_SESSION
    of_session = np.random.Generator(np.random.Philox(key=[seed, 2**32]))
    session_region = of_session.choice(len(REGIONS), session[-1] + 1, p=[0.3, 0.2, 0.2, 0.15, 0.1, 0.05])
    session_trials = of_session.integers(20, 90, (len(CONDITIONS), session[-1] + 1))
    region, trials = session_region[session], session_trials[:, session]
    with zarrio.replacing(path) as temporary:
        attributes = {"format": FORMAT, "bin_ms": BIN_MS, "source": "synthetic stand-in made by rlsnet; not a recording", "seed": seed}
        root = zarr.create_group(str(temporary), attributes=attributes)
        shape = (len(CONDITIONS), N_BINS, n_units)
        rate = root.create_array(
            "rate",
            shape=shape,
            dtype="float32",
            chunks=(*shape[:2], min(CHUNK_UNITS, n_units)),
            dimension_names=["condition", "time", "unit"],
            attributes={"units": "Hz", "long_name": "trial-averaged firing rate"},
        )
        for index, part in enumerate(zarrio.chunks(rate, along=2)):
            random = np.random.Generator(np.random.Philox(key=[seed, index]))
            underlying = rates(random, part.stop - part.start, region[part])
            rate[:, :, part] = observe(random, underlying, trials[:, part]).astype(np.float32)
            tell(part.stop, n_units)
        zarrio.write(root, "condition", np.array(CONDITIONS), ["condition"])
        time = START_S + BIN_MS / 1000 * (np.arange(N_BINS) + 0.5)
        zarrio.write(root, "time", time, ["time"], units="s", long_name="time from the go cue")
        zarrio.write(root, "unit/session", session.astype(np.int32), ["unit"])
        zarrio.write(root, "unit/region", np.array(REGIONS)[region], ["unit"])
        zarrio.write(root, "unit/n_trials", trials.T.astype(np.int32), ["unit", "condition"])
