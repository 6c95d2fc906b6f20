"""A recording.zarr of arrays in memory: rates or currents that are averaged already, spike counts of trials, or spike times."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rlsnet.data import cell_classes, pooling, recording_writer, recordings, trial_average
from rlsnet.data.formats.single_trials import BinnedValues, counted_trials
from rlsnet.data.import_options import Options, options_of
from rlsnet.data.session import Session, with_sorted_spikes
from rlsnet.data.statistics import mean_known
from rlsnet.data.unit_selection import MAX_MEAN_RATE_HZ
from rlsnet.errors import UserError
from rlsnet.io import outputs
from rlsnet.io.precision import LARGEST

ORIGIN = Path("recording_from_arrays")  # in place of the path of a file, for messages
AXES = {"rate": "condition, time, unit", "current": "condition, time, unit", "counts": "trial, time, unit"}
SOURCE = "arrays of a Python program"
EQUAL_STEPS = 1e-3  # of a bin; times may differ from equal steps by rounding
OF_AVERAGES = ("overwrite", "source")  # the only settings of an import that apply to values that are averaged already


@dataclasses.dataclass(frozen=True)
class TimeAxis:
    """What a user says about time.

    centres: [M] s, centres of the bins; or None.
    window: start and end, s; or None.
    bin_ms: length of a bin; or None.
    event: name of the event at time 0; None: it has no name.
    """

    centres: Any = None
    window: Sequence[float] | None = None
    bin_ms: float | None = None
    event: str | None = None


def write_averages(out: Path, kind: str, values: Any, axis: TimeAxis, conditions: Any, units: Mapping[str, Any], **settings: Any) -> None:
    """Writes a recording of trial averages, completely or not at all.

    Args:
      out: path of the new recording, which ends in .zarr.
      kind: rate or current.
      values: [C, M, N] Hz or threshold units; NaN: unknown.
      axis: the time of the bins.
      conditions: [C] names; None: numbers.
      units: columns [N] of the units, or one value for all, by name, among them id, region, session and excitatory; None: unknown.
      settings: overwrite and source.

    Raises:
      UserError: an array has a wrong shape or wrong values, a setting does not exist, or there is something else at the path.
    """
    options = _options(out, settings)
    if extra := sorted(set(settings) - set(OF_AVERAGES)):
        raise UserError(f"{extra[0]}={settings[extra[0]]}: applies to counts and spikes; {kind} is averaged already.")
    array = _numbers(kind, values)
    if kind == "rate" and (array < 0).any():
        raise UserError(f"rate: has values below 0 (the lowest is {np.nanmin(array):g}); expected Hz, NaN where unknown.")
    mean = mean_known(array.reshape(-1, array.shape[2]))
    if kind == "rate" and np.nanmax(mean) > MAX_MEAN_RATE_HZ:
        raise UserError(f"rate: unit {np.nanargmax(mean)} has a mean rate of {np.nanmax(mean):,.0f}; expected rates in Hz.")
    centres, bin_ms = _bins(array.shape[1], axis, kind)
    names = [str(c) for c in range(len(array))] if conditions is None else _labels("conditions", conditions, len(array), "condition")
    if len(set(names)) < len(names):
        raise UserError(f"conditions: {', '.join(names)}; expected different names.")
    columns = _unit_columns(units, array.shape[2])
    columns |= {"mean_rate": mean.astype(np.float32)} if kind == "rate" else {}
    event, source = axis.event or "", options.source
    with recording_writer.writing(out, kind, names, centres, event=event, bin_ms=bin_ms, source=source) as writer:
        writer.append(array, columns)


def write_counts(
    out: Path, counts: Any, axis: TimeAxis, conditions: Any, units: Mapping[str, Any], log: Callable[[str], None], **settings: Any
) -> None:
    """Writes a recording of spike counts [T, M, N] of single trials, averaged as by an import.

    Args:
      out: as for `write_averages`, like axis, units and errors.
      counts: [T, M, N] spikes; NaN where a trial does not count for a unit.
      axis: the time of the bins.
      conditions: [T] name of the condition of each trial.
      units: columns of the units.
      log: function that receives a line about the recording.
      settings: settings of an import, such as kernel and min_trials.
    """
    options, array = _options(out, settings), _numbers("counts", counts)
    known = array[np.isfinite(array)]
    if (known < 0).any() or (known != np.round(known)).any():
        raise UserError("counts: has values that are no whole numbers from 0 on; expected spikes in a bin. rate=... takes rates in Hz.")
    centres, bin_ms = _bins(array.shape[1], axis, "counts")
    columns = _unit_columns(units, array.shape[2])
    session = counted_trials(BinnedValues(ORIGIN, array, "counts", centres, bin_ms, columns, ()), {}, options)
    assert session.separate is not None
    of_bins = TimeAxis(window=trial_average.span_of_bins(centres, bin_ms), bin_ms=bin_ms, event=axis.event)
    _pool(out, dataclasses.replace(session, separate=None), session.separate.zero, of_bins, conditions, options, log)


def write_spikes(
    out: Path,
    spikes: Any,
    trial_times: Any,
    axis: TimeAxis,
    conditions: Any,
    units: Mapping[str, Any],
    log: Callable[[str], None],
    **settings: Any,
) -> None:
    """Writes a recording of spike times, averaged over trials as by an import.

    Args:
      out: as for `write_averages`, like units and errors.
      spikes: N arrays with the spike times of a unit, s; in a mapping, its keys are the ids of the units.
      trial_times: [T] s, time 0 of each trial on the clock of the spikes.
      axis: its window, s, and length of a bin; None: [-2, 1] and 20 ms.
      conditions: [T] name of the condition of each trial; None: one condition.
      units: columns of the units.
      log: function that receives a line about the recording.
      settings: as for `write_counts`.
    """
    options = _options(out, settings)
    if axis.centres is not None:
        raise UserError("time: applies to arrays with bins; expected window=(start, end) in s for spikes.")
    if trial_times is None:
        raise UserError("trial_times: missing; expected the time 0 of each trial in s, on the clock of the spikes.")
    if isinstance(spikes, Mapping):
        units, spikes = {**units, "id": list(spikes) if units.get("id") is None else units["id"]}, list(spikes.values())
    trains = [_train(number, each) for number, each in enumerate(spikes)]
    if not sum(map(len, trains)):
        raise UserError("spikes: has no spikes; expected an array of spike times for each unit.")
    times = np.asarray(trial_times)
    if times.ndim != 1 or times.dtype.kind not in "fiu" or not len(times):
        raise UserError(f"trial_times: has shape {list(times.shape)}; expected one time in s for each trial.")
    index = np.concatenate([[0], np.cumsum([len(each) for each in trains])])
    session = Session(ORIGIN.stem, ORIGIN, np.concatenate(trains), index, _unit_columns(units, len(trains)), {})
    _pool(out, with_sorted_spikes(session), times.astype(np.float64), axis, conditions, options, log)


def _options(out: Path, settings: Mapping[str, Any]) -> Options:
    """Settings of the import, after a check of the path of the recording."""
    options = options_of({"source": SOURCE, **settings})
    if out.suffix != ".zarr":
        raise UserError(f"{out}: expected a path that ends in .zarr for the new recording.")
    outputs.check_free(out, partial(outputs.is_store, format=recordings.FORMAT), "a recording that rlsnet wrote", "", options.overwrite)
    return options


def _pool(
    out: Path, session: Session, zero: np.ndarray, axis: TimeAxis, conditions: Any, options: Options, log: Callable[[str], None]
) -> None:
    """Averages a session over its trials, whose time 0 is `zero` [T] s, and writes the recording."""
    event = axis.event or "event"
    if event == "condition":
        raise UserError("event=condition: expected another name.")
    labels = ["all"] * len(zero) if conditions is None else _labels("conditions", conditions, len(zero), "trial")
    names = sorted(set(session.units["session"].tolist())) if "session" in session.units else [session.name]
    if len(names) > 1:
        raise UserError(
            f"session: {', '.join(names[:5])}; expected one session, as all units share the trials. rlsnet.import_recordings pools files."
        )
    trials = {"condition": np.array(labels, object), event: zero}
    own = [name for name in session.units if name not in ("id", "region", "probe", "session")]
    options = dataclasses.replace(
        options,
        align=event,
        window=options.window if axis.window is None else (float(axis.window[0]), float(axis.window[1])),
        bin=options.bin if axis.bin_ms is None else float(axis.bin_ms),
        columns=tuple(own) or None,
        conditions={name: f"condition == {name!r}" for name in dict.fromkeys(labels)},
        time_unit="s",
    )
    trial_average.bin_centres(options)  # raises before anything is read
    pooling.pool_sources(iter([dataclasses.replace(session, name=names[0], trials=trials)]), out, options, log)


def _numbers(name: str, values: Any) -> np.ndarray:
    """Array of three axes as float64; raises UserError unless it has numbers and no axis is empty."""
    array = np.asarray(values)
    if array.ndim != 3 or 0 in array.shape or array.dtype.kind not in "fiub":
        what = f"shape {list(array.shape)}" if array.dtype.kind in "fiub" else f"type {array.dtype}"
        raise UserError(f"{name}: has {what}; expected numbers with three axes [{AXES[name]}].")
    array = array.astype(np.float64)
    if np.isinf(array).any() or (np.abs(array) > LARGEST).any() or not np.isfinite(array).any():
        raise UserError(f"{name}: has infinite values, or NaN only; expected finite numbers, NaN where unknown.")
    return array


def _train(number: int, times: Any) -> np.ndarray:
    """Spike times of a unit as float64; raises UserError unless they are numbers with one axis."""
    array = np.asarray(times)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "fiu"):
        raise UserError(f"spikes[{number}]: has shape {list(array.shape)} and type {array.dtype}; expected the spike times of a unit in s.")
    return array.astype(np.float64)


def _bins(count: int, axis: TimeAxis, kind: str) -> tuple[np.ndarray, float]:
    """([count] s centres of the bins, their length in ms) from the time that the user gives; raises UserError if it does not fit."""
    named = f"{kind} has {count} bins (its axes are {AXES[kind]})"
    if axis.centres is not None:
        centres = np.asarray(axis.centres, np.float64)
        if centres.shape != (count,):
            raise UserError(f"time: has shape {list(centres.shape)}, but {named}; expected the centre of each bin in s.")
        steps = np.diff(centres)
        step = float(centres[-1] - centres[0]) / (count - 1) if count > 1 else (axis.bin_ms or 0) / 1000
        if not step > 0 or not np.isfinite(centres).all() or (np.abs(steps - step) > EQUAL_STEPS * step).any():
            raise UserError("time: expected the centres of the bins in s, in equal steps and ascending.")
        bin_ms = round(1000 * step, 6)
        if axis.bin_ms is not None and not trial_average.same_length(axis.bin_ms, bin_ms):
            raise UserError(f"bin={axis.bin_ms:g}: the times have steps of {bin_ms:g} ms; expected no value, or this one.")
        return centres, bin_ms
    if axis.window is None and axis.bin_ms is None:
        raise UserError(f"{named}; expected their time: window=(start, end) in s, the centres time=..., or bin=... in ms.")
    start = 0.0 if axis.window is None else float(axis.window[0])
    end = start + count * float(axis.bin_ms or 0) / 1000 if axis.window is None else float(axis.window[1])
    bin_ms = round((end - start) * 1000 / count, 6)
    if not bin_ms > 0 or not np.isfinite(bin_ms):
        raise UserError(
            f"window=[{start:g}, {end:g}]: expected a start and a later end in s."
            if axis.window is not None
            else f"bin={axis.bin_ms}: expected a length in ms."
        )
    if axis.bin_ms is not None and not trial_average.same_length(axis.bin_ms, bin_ms):
        raise UserError(f"bin={axis.bin_ms:g}: {named}, which are {bin_ms:g} ms long in window=[{start:g}, {end:g}] s.")
    return np.round(start + bin_ms / 1000 * (np.arange(count) + 0.5), 9), bin_ms


def _labels(name: str, values: Any, count: int, axis: str) -> list[str]:
    """Texts, one for each row of an array; raises UserError if their number is wrong."""
    texts = [values] if isinstance(values, str) else [str(each) for each in np.asarray(values, object).reshape(-1)]
    if len(texts) != count:
        raise UserError(f"{name}: has {len(texts)} values; expected {count}, one for each {axis}.")
    return texts


def _unit_columns(units: Mapping[str, Any], count: int) -> dict[str, np.ndarray]:
    """Columns [count] of the units; a single value is that of all units, `excitatory` becomes the cell class, and an id is always there.

    Raises:
      UserError: a column has another length.
    """
    columns = {"id": np.array([str(n) for n in range(count)], object)}
    for name, values in units.items():
        if values is None:
            continue
        column = np.asarray(values)
        column = np.full(count, values) if column.ndim == 0 else column
        if column.shape != (count,):
            raise UserError(f"{name}: has shape {list(column.shape)}; expected {count} values, one for each unit.")
        if name == "excitatory":
            columns[cell_classes.COLUMN] = _cell_class(column)
        else:
            numeric = column.dtype.kind in "fiub" and name not in ("id", "region", "session", "probe")
            columns[name] = column if numeric else np.array([str(each) for each in column], object)
    return columns


def _cell_class(excitatory: np.ndarray) -> np.ndarray:
    """[N] texts excitatory and inhibitory from true and false; empty for None and NaN, which are not known."""
    classes = np.full(len(excitatory), "", object)
    for number, each in enumerate(excitatory.tolist()):
        if each is None or each != each:
            continue
        if each not in (0, 1):
            raise UserError(
                f"excitatory[{number}]: {each!r}; expected true for excitatory units, false for inhibitory ones, None where unknown."
            )
        classes[number] = cell_classes.NAMES[0 if each else 1]
    return classes
