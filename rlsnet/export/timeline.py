"""Trials one after the other on one clock, for formats that know of one session and its time."""

from __future__ import annotations

import dataclasses

import numpy as np

from rlsnet.config import UserError
from rlsnet.export.trained import Trained

GAP = 1000.0  # ms between two trials


@dataclasses.dataclass(frozen=True)
class Timeline:
    """The trials of a test, conditions one after the other, and its spikes in order of time; ms from the start of the first.

    start, stop: [trials].
    condition: [trials] number of the condition.
    trial: [trials] number among those of its condition, from 0.
    stimulus: [trials, 2] when the stimulus starts and ends, or would.
    time: [s] of the spikes.
    neuron: [s].
    """

    start: np.ndarray
    stop: np.ndarray
    condition: np.ndarray
    trial: np.ndarray
    stimulus: np.ndarray
    time: np.ndarray
    neuron: np.ndarray

    @staticmethod
    def of(trained: Trained) -> Timeline:
        """The spikes of a test; raises UserError where there are none."""
        if not trained.has_spikes:
            raise UserError(f"export: no simulated spikes. {trained.without_spikes()}")
        settings, spikes = trained.config.trial, trained.spikes()
        condition, trial = np.divmod(np.arange(len(trained.conditions) * trained.n_trials), trained.n_trials)
        length = settings.stim_off + settings.duration
        start = np.arange(len(trial)) * (length + GAP)
        time = start[spikes.trial] + spikes.step * settings.dt
        stimulus = start[:, None] + np.array([settings.stim_on, settings.stim_off])
        return Timeline(start, start + length, condition, trial, stimulus, time, spikes.neuron)
