"""Choice of the recording of an experiment: the one that it names, or the synthetic recording, made on first use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rlsnet.config.schema import Config
from rlsnet.data import synthetic
from rlsnet.data.recordings import Recording, check_bins, open_recording
from rlsnet.errors import UserError
from rlsnet.io import atomic


def open_for_config(config: Config, log: Callable[[str], None], progress: Callable[[int, int], None]) -> Recording:
    """Opens the recording of an experiment, of the kind (rate or current) that its target needs.

    Args:
      config: the experiment.
      log: function that receives a sentence for the user.
      progress: function called with (done, total) units while the synthetic recording is made.

    Raises:
      UserError: no such recording, or one with other bins than the trial, or without the half of the trials.
    """
    kind = config.target.recorded or "rate"
    if config.recording.path is not None:
        recording = open_recording(config.recording.path, kind)
    elif kind != "rate":
        raise UserError(f"recording.path=null: expected a recording.zarr with {kind}s for target={config.target.name}.")
    else:
        path = synthetic_path(log, progress)
        log(f"The targets are SYNTHETIC data, not a recording: {path}. Choose your own recording with recording.path=...")
        recording = open_recording(path)
    check_bins(recording, config.trial)
    return recording.with_half(config.recording.half)


def synthetic_path(log: Callable[[str], None], progress: Callable[[int, int], None], n_units: int = synthetic.N_UNITS) -> Path:
    """Path of the synthetic recording in the cache, which the first of several processes makes while the others wait.

    Args:
      log: function that receives a sentence for the user before the recording is made.
      progress: function called with (done, total) units.
      n_units: number of units, if the recording is made.
    """
    path = atomic.cache_dir() / f"synthetic-decision-v{synthetic.VERSION}.zarr"
    if not path.exists():
        with atomic.locked(path):
            if not path.exists():  # no other process has made it in the meantime
                log(f"No recording.path given: making SYNTHETIC data of {n_units:,} units, once, in {path}.")
                synthetic.make(path, n_units, progress=progress)
    return path
