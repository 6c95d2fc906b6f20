"""Time of a trial: that of the recording, from the event that its trials are aligned to, or from the start of the simulated trial."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr

from rlsnet.config.schema import TrialConfig
from rlsnet.data.recordings import Recording

ATTRIBUTE = "clock"  # of a test.zarr
FROM = "time from "


@dataclasses.dataclass(frozen=True)
class TrialClock:
    """Time of a trial.

    start: s, time at which the simulated trial starts.
    label: what the time is, in words, such as "time from go_cue".
    events: s, time of each event by name.
    bins: [M] s, centres of the bins as the recording has them; None: from their length.
    """

    start: float = 0.0
    label: str = FROM + "the start of the trial"
    events: Mapping[str, float] = dataclasses.field(default_factory=dict)
    bins: np.ndarray | None = None

    @property
    def words(self) -> str:
        """What follows a number of s in a sentence, such as "from go_cue"."""
        return self.label.removeprefix("time ")

    def seconds(self, ms: Any) -> Any:
        """Time in s of times in ms from the start of the simulated trial; numbers or arrays."""
        return self.start + np.asarray(ms) / 1000

    def centres(self, trial: TrialConfig) -> np.ndarray:
        """[M] s, centres of the bins of a trial: those of the recording, or computed and rounded to ns."""
        if self.bins is not None:
            return self.bins
        return np.round(self.seconds(trial.stim_off + trial.learn_every * (np.arange(trial.n_points) + 0.5)), 9)

    def stored(self) -> dict[str, Any]:
        """Plain values for the attribute `clock` of a store."""
        return {"start": self.start, "label": self.label, "events": dict(self.events)}


def of_recording(recording: Recording | None, trial: TrialConfig) -> TrialClock:
    """The time of a recording, whose first bin begins at trial.stim_off; without a recording, or one without times, that of the trial."""
    if recording is None:
        return TrialClock()
    if "time" not in recording.group:
        return TrialClock()
    centres = recording.time
    start = float(centres[0]) - recording.bin_ms / 2000 - trial.stim_off / 1000
    return TrialClock(round(start, 9), label(recording.group["time"]), events(recording.group), centres)


def of_test(test: zarr.Group | None) -> TrialClock:
    """The time in a test.zarr; that of the trial in one of an earlier version, and without a test."""
    return TrialClock(**test.attrs[ATTRIBUTE]) if test is not None and ATTRIBUTE in test.attrs else TrialClock()


def label(time: zarr.Array) -> str:
    """What the time of a recording is, in words; `time` is its array."""
    words = str(time.attrs.get("long_name", ""))
    return words if words.startswith(FROM) else "time of the recording"


def events(group: zarr.Group) -> dict[str, float]:
    """Times of the named events of a recording in s, in order: that of time 0, and the medians of others that the import stored."""
    zero = label(group["time"]).removeprefix(FROM) if "time" in group and label(group["time"]).startswith(FROM) else None
    others: Any = group.attrs.get("events", {})
    found = {str(name): float(about["median"]) for name, about in others.items()}
    return dict(sorted((found | ({} if zero is None else {zero: 0.0})).items(), key=lambda item: item[1]))
