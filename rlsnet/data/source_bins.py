"""Window and bins of the values of a source: those that the user gives, else those of the file, else the defaults."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from rlsnet.data import trial_average
from rlsnet.data.import_options import Options
from rlsnet.data.session import PrecomputedRates, SeparateTrials, Session
from rlsnet.errors import UserError

TOLERANCE = 1e-6  # of a bin


class SourceBins(NamedTuple):
    """Bins of the values of a source.

    time: [M] s, centres of the bins.
    bin_ms: length of a bin.
    options: settings of the import with the window and the bin of this source.
    warnings: what was assumed, with the setting that says otherwise.
    """

    time: np.ndarray
    bin_ms: float
    options: Options
    warnings: tuple[str, ...] = ()


def bins_of(source: Session | PrecomputedRates, options: Options) -> SourceBins:
    """Bins of a source; raises UserError if those of the user do not fit it."""
    if isinstance(source, PrecomputedRates):
        return _bins_of_rates(source, options)
    if source.separate is not None:
        options = _within_trials(source, source.separate, options)
    options = dataclasses.replace(options, window=options.window_s, bin=options.bin_ms)
    return SourceBins(trial_average.bin_centres(options), options.bin_ms, options)


def _within_trials(source: Session, trials: SeparateTrials, options: Options) -> Options:
    """Settings with a window that lies within the time that the file has of each trial, and whole bins of the file."""
    first, last = trials.extent
    if trials.bin_ms is not None:
        options = dataclasses.replace(options, bin=options.bin or trials.bin_ms, window=options.window or trials.extent)
        bins = options.bin_ms / trials.bin_ms
        start, end = ((edge - first) * 1000 / trials.bin_ms for edge in options.window_s)
        off = abs(start - round(start))
        if not round(bins) or not trial_average.same_length(bins, round(bins)) or off > trial_average.BIN_TOLERANCE:
            raise UserError(
                f"bin={options.bin_ms:g} window={list(options.window_s)}: {source.path} has counts in bins of {trials.bin_ms:g} ms from"
                f" {first:g} s; expected whole bins of these."
            )
        if abs(end - round(end)) <= trial_average.BIN_TOLERANCE:  # edges of bins of the file, which the user may have rounded
            window = (first + round(start) * trials.bin_ms / 1000, first + round(end) * trials.bin_ms / 1000)
            options = dataclasses.replace(options, bin=round(bins) * trials.bin_ms, window=window)
    start, end = options.window_s
    slack = TOLERANCE * options.bin_ms / 1000
    if start < first - slack or end > last + slack:
        has, taken = ("bins", "") if trials.bin_ms is not None else ("spikes", "; they are taken as relative to each trial")
        raise UserError(
            f"window=[{start:g}, {end:g}]: the trials of {source.path} have {has} from {first:.6g} to {last:.6g} s only; expected a window"
            f" within that time{taken}."
        )
    return options


def _bins_of_rates(source: PrecomputedRates, options: Options) -> SourceBins:
    """Bins of precomputed rates, which are kept as they are."""
    n_bins, warnings = source.values.shape[1], []
    if source.bin_ms and options.bin is not None and not trial_average.same_length(options.bin, source.bin_ms):
        raise UserError(f"bin={options.bin_ms:g}: expected no value, as {source.path} has bins of {source.bin_ms:g} ms.")
    bin_ms = options.bin or source.bin_ms or options.bin_ms
    if source.bin_ms is None and options.bin is None:
        warnings.append(f"the file does not have the length of a bin: {bin_ms:g} ms, the default, is taken; bin=... gives another")
    length = n_bins * bin_ms / 1000
    time = source.time
    if time is None:
        start = 0.0 if options.window is None else options.window[0]
        time = start + bin_ms / 1000 * (np.arange(n_bins) + 0.5)
        if options.window is None:
            warnings.append(
                f"the file has no times of its bins: time 0 is taken as the start of the first; window=[0,{length:g}] gives others"
            )
    window = trial_average.span_of_bins(time, bin_ms)
    if options.window is not None and max(abs(a - b) for a, b in zip(window, options.window, strict=True)) > bin_ms / 1e5:
        raise UserError(
            f"window=[{options.window[0]:g}, {options.window[1]:g}]: {source.path} has {n_bins:,} bins of {bin_ms:g} ms"
            + (f" from {window[0]:g} to {window[1]:g} s; expected no value." if source.time is not None else f"; expected {length:g} s.")
        )
    own = dataclasses.replace(options, window=window, bin=bin_ms)
    return SourceBins(np.asarray(time, np.float64), bin_ms, own, tuple(warnings))
