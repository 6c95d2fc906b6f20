"""Batches of a source of a running experiment, for tests of the sources."""

import time

import numpy as np


def received(source, n, seconds=60.0):
    """Batches of a source until n spikes, markers and rejected messages have come, or the time is over."""
    batches, count, end = [], 0, time.monotonic() + seconds
    while count < n and time.monotonic() < end and (batch := source.read(0.2)) is not None:
        batches.append(batch)
        count += len(batch.spike_time) + len(batch.markers) + batch.rejected
    return batches


def all_spikes(source, batches):
    """Pairs of time and key of all spikes, in order of arrival."""
    times = np.concatenate([batch.spike_time for batch in batches])
    units = np.concatenate([batch.spike_unit for batch in batches])
    return times, np.array([unit.key for unit in source.units])[units]


def all_markers(batches):
    """(time, stream, name, value) of all markers, in order of arrival."""
    return [(each.time, each.stream, each.name, each.value) for batch in batches for each in batch.markers]


def counted(batches):
    """Numbers of rejected and of lost messages."""
    return sum(batch.rejected for batch in batches), sum(batch.lost for batch in batches)
