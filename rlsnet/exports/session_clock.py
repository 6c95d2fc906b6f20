"""The trials of a test placed one after the other on one clock, for formats with one time axis for a whole session."""

from __future__ import annotations

import dataclasses

import numpy as np

from rlsnet.errors import UserError
from rlsnet.exports.simulated_spikes import all_spikes, why_missing
from rlsnet.exports.trained_network import TrainedNetwork
from rlsnet.model.exported_network import GAP_MS


@dataclasses.dataclass(frozen=True)
class SessionClock:
    """Trials and spikes on one clock, in ms from the start of the first trial; one condition after the other.

    start: [trials] start of each trial.
    stop: [trials] end of each trial.
    condition: [trials] number of its condition.
    trial: [trials] number of the trial among those of its condition, from 0.
    stimulus: [trials, 2] start and end of the stimulus (trial.stim_on and trial.stim_off, also without a stimulus).
    spike_time: [spikes] in order of trial and time.
    spike_neuron: [spikes] number of the neuron.
    """

    start: np.ndarray
    stop: np.ndarray
    condition: np.ndarray
    trial: np.ndarray
    stimulus: np.ndarray
    spike_time: np.ndarray
    spike_neuron: np.ndarray

    @staticmethod
    def from_test(trained: TrainedNetwork) -> SessionClock:
        """The trials of the test of these weights; raises UserError if there are no simulated spikes."""
        if not trained.has_spikes:
            raise UserError(f"export: no simulated spikes: {why_missing(trained)}")
        settings, spikes = trained.config.trial, all_spikes(trained)
        condition, trial = np.divmod(np.arange(len(trained.conditions) * trained.n_trials), trained.n_trials)
        length = settings.stim_off + settings.duration
        start = np.arange(len(trial)) * (length + GAP_MS)
        time = start[spikes.trial] + spikes.step * settings.dt
        stimulus = start[:, None] + np.array([settings.stim_on, settings.stim_off])
        return SessionClock(start, start + length, condition, trial, stimulus, time, spikes.neuron)
