"""Synthetic recording of the size and structure of a large recording of mice that lick left or right after a delay.

Nothing in it was measured; its numbers only have the order of magnitude of such recordings. It exercises everything from
reading to training at full scale: log-normal mean rates; sessions and brain regions; a few time courses that all units of
a region share with different weights (tone, delay and go responses, a ramp in the delay, choice, movement, a licking
rhythm); a smooth time course of each unit; and the noise of smoothed trial averages (PSTHs) of about a hundred trials.

The strength of the time courses, SHARED and PRIVATE, is chosen such that networks learn at about the pace published for the
recording of 66,002 units (Arthur et al. 2023). Rates then vary over a trial by some 60 % of their mean, and some units are
silent in a part of it. That recording was not available: dimension, noise and smoothing are not matched to it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter1d

from rlsnet.data.import_options import Options
from rlsnet.data.recording_writer import writing
from rlsnet.data.recordings import CHUNK_UNITS
from rlsnet.data.trial_average import smoothing_kernel

VERSION = 5
N_UNITS = 66_002
CONDITIONS = ("left", "right")
BIN_MS, N_BINS, START_S = 20.0, 150, -2.0  # bins around the go cue at 0 s
SAMPLE_S, DELAY_S = -1.85, -1.2  # start of the sample tones and of the delay
REGIONS = ("ALM", "striatum", "thalamus", "midbrain", "medulla", "cerebellum")
LATENCY_S = (0.05, 0.06, 0.04, 0.03, 0.02, 0.03)  # of the responses of each region
CHOICE, MOVEMENT = (1.5, 1.2, 1.2, 0.8, 0.6, 0.6), (0.8, 0.8, 0.8, 1.2, 1.6, 1.2)  # strength of choice and movement in each region
UNITS_PER_SESSION = 380
TRIALS = (60, 140)  # of each condition in a session
MEDIAN_HZ, SPREAD = 3.0, 1.15  # of log-normal mean rates: 6 Hz on average, one sixth of them below 1 Hz
LICK_HZ = 7.0
MAX_HZ = 200.0
SMOOTHING_BINS = 2.5  # s.d. of the Gaussian that smooths PSTHs, 50 ms
SHARED = 1.5  # factor of the shared time courses in log rate
PRIVATE, PRIVATE_BINS = 0.4, 7.5  # s.d. of each unit's private course in log rate, and of the Gaussian that smooths it


def time_courses(latency: float) -> tuple[np.ndarray, np.ndarray]:
    """Time courses shared by the units of a brain region, with amplitudes of about 1.

    Args:
      latency: of the responses of the region, s.

    Returns:
      ([7, M] courses that are equal in both conditions, [3, M] courses with opposite signs in the two conditions).
    """
    t = START_S + BIN_MS / 1000 * (np.arange(N_BINS) + 0.5) - latency

    def since(onset: float) -> np.ndarray:
        """Time since an onset, s; 0 before it."""
        return np.maximum(t - onset, 0)

    def transient(onset: float, width: float) -> np.ndarray:
        """Response that begins at an onset and reaches its maximum of 1 after `width` s."""
        return since(onset) / width * np.exp(1 - since(onset) / width)

    def sustained(onset: float, rise: float, end: float, fade: float) -> np.ndarray:
        """Response that rises after an onset and fades after an end; all times in s."""
        return (1 - np.exp(-since(onset) / rise)) * np.exp(-since(end) / fade)

    ramp = np.minimum(since(DELAY_S) / -DELAY_S, 1) * np.exp(-since(0) / 0.2)
    licking = sustained(0, 0.05, 0.2, 0.4) * np.exp(2j * np.pi * LICK_HZ * t)
    movement = sustained(0, 0.1, 0.3, 0.6)
    common = [transient(SAMPLE_S, 0.08), transient(DELAY_S, 0.08), ramp, transient(0, 0.05), movement, licking.real, licking.imag]
    tone, choice = sustained(SAMPLE_S, 0.1, DELAY_S, 0.4), sustained(SAMPLE_S, 0.4, 0, 0.2)
    return np.array(common), np.array([tone, choice * (1 + ramp) / 2, movement])


def rates(random: np.random.Generator, n: int, region: np.ndarray, shared: float = 1.0, private: float = 0.15) -> np.ndarray:
    """Underlying firing rates of units, without trial noise. The defaults are those of scripts/example_sessions.py.

    Args:
      random: generator of random numbers.
      n: number of units.
      region: [n] number of the brain region of each unit.
      shared: factor of the shared time courses, in log rate.
      private: s.d. of each unit's private course, in log rate.

    Returns:
      [C, M, n] Hz.
    """
    mean = np.minimum(np.exp(random.normal(np.log(MEDIAN_HZ), SPREAD, n)), 90)
    choice, movement = np.array(CHOICE)[region], np.array(MOVEMENT)[region]
    even = np.ones(n)
    centre = np.array([0.15, 0.0, 0.15, 0.15, 0.2, 0.0, 0.0])[:, None]
    share = centre + np.array([0.2, 0.15, 0.4, 0.3, 0.5, 0.1, 0.1])[:, None] * random.laplace(0, 1, (7, n))
    share *= np.array([even, even, even, even, movement, movement, movement])
    share_of_difference = np.array([0.1, 0.25, 0.25])[:, None] * random.laplace(0, 1, (3, n)) * np.array([even, choice, movement])
    own = gaussian_filter1d(random.normal(size=(len(CONDITIONS), N_BINS, n)), PRIVATE_BINS, axis=1)
    drive = private * own / own.std(axis=1, keepdims=True)
    for index, latency in enumerate(LATENCY_S):
        members = region == index
        common, difference = (
            courses.T @ part[:, members] for courses, part in zip(time_courses(latency), (share, share_of_difference), strict=True)
        )
        drive[:, :, members] += shared * np.stack([common + difference, common - difference])
    out = np.exp(np.clip(drive, -4, 2.5))
    return np.minimum(out * (mean / out.mean(axis=(0, 1))), MAX_HZ)


def observe(random: np.random.Generator, rate: np.ndarray, trials: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smoothed trial averages (PSTHs) of Poisson spike trains, of all trials and of odd and even ones.

    Args:
      random: generator of random numbers.
      rate: [C, M, n] Hz, underlying rates.
      trials: [C, n] number of trials, at least 2.

    Returns:
      ([C, M, n] Hz of all trials, [2, C, M, n] Hz of the odd and of the even trials).
    """
    odd = (trials + 1) // 2
    counts = random.poisson(rate * trials[:, None, :] * BIN_MS / 1000)
    of_odd = random.binomial(counts, np.broadcast_to((odd / trials)[:, None, :], counts.shape))

    def psth(spikes: np.ndarray, of_trials: np.ndarray) -> np.ndarray:
        return gaussian_filter1d(spikes / (of_trials[..., None, :] * BIN_MS / 1000), SMOOTHING_BINS, axis=-2, mode="reflect")

    return psth(counts, trials), psth(np.stack([of_odd, counts - of_odd]), np.stack([odd, trials - odd]))


def make(path: Path, n_units: int, seed: int = 0, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
    """Writes a recording.zarr of synthetic units, completely or not at all.

    Args:
      path: of the recording.
      n_units: number of units N.
      seed: random seed.
      progress: function called with (done, total) units.
    """
    session = np.arange(n_units) // UNITS_PER_SESSION
    session_random = np.random.Generator(np.random.Philox(key=[seed, 2**32]))
    session_region = session_random.choice(len(REGIONS), session[-1] + 1, p=[0.3, 0.2, 0.2, 0.15, 0.1, 0.05])
    session_trials = session_random.integers(*TRIALS, (len(CONDITIONS), session[-1] + 1))
    region, trials = session_region[session], session_trials[:, session]
    source = "synthetic dataset made by rlsnet; not a recording"
    time = START_S + BIN_MS / 1000 * (np.arange(N_BINS) + 0.5)
    kernel = smoothing_kernel(Options(kernel="gaussian", sigma=SMOOTHING_BINS * BIN_MS, bin=BIN_MS)).tolist()
    about = {"bin_ms": BIN_MS, "source": source, "seed": seed, "smoothing": kernel}
    about["events"] = {name: {"median": time} for name, time in (("the sample", SAMPLE_S), ("the delay", DELAY_S))}
    with writing(path, "rate", CONDITIONS, time, halves=True, event="the go cue", **about) as writer:
        for index, start in enumerate(range(0, n_units, CHUNK_UNITS)):
            part = slice(start, min(start + CHUNK_UNITS, n_units))
            random = np.random.Generator(np.random.Philox(key=[seed, index]))
            underlying = rates(random, part.stop - part.start, region[part], SHARED, PRIVATE)
            columns = {"session": session[part].astype(np.int32), "region": np.array(REGIONS)[region[part]]}
            columns["n_trials"] = trials.T[part].astype(np.int32)
            average, half = observe(random, underlying, trials[:, part])
            writer.append(average, columns, half)
            progress(part.stop, n_units)
