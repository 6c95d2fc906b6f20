"""Pooling of the units of several sources, read one at a time, into one recording.zarr."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from rlsnet.config.load import to_dict
from rlsnet.data import cell_classes, query, trial_average, trial_counts
from rlsnet.data.import_options import Options
from rlsnet.data.recording_writer import Writer
from rlsnet.data.session import PrecomputedRates, Session
from rlsnet.data.source_bins import SourceBins, bins_of
from rlsnet.data.unit_selection import ImportSummary, select_units
from rlsnet.errors import UserError
from rlsnet.io import atomic, zarr_store
from rlsnet.io.formatting import counted

SPIKE_SETTINGS = (
    "conditions",
    "trials",
    "align",
    "events",
    "kernel",
    "sigma",
    "min_trials",
    "trials_table",
    "halves",
    "trial_counts",
)  # unused by precomputed rates
DEFAULTS = Options()


def pool_sources(sources: Iterator[Session | PrecomputedRates], path: Path, options: Options, log: Callable[[str], None]) -> ImportSummary:
    """Writes the units of all sources to a recording, completely or not at all.

    Args:
      sources: read one at a time.
      path: of the new recording.zarr.
      options: settings of the import.
      log: function that receives one line about each source.

    Raises:
      UserError: a source does not fit the others, or no unit is left.
    """
    with atomic.replacing(path) as temporary, atomic.scratch(path) as everything:
        target = everything if options.subsample else temporary
        summary = _write_units(sources, target, options, log)
        n_kept = sum(entry["kept"] for entry in summary.sessions)
        if not n_kept:
            raise UserError(_no_units_message(summary))
        if options.subsample:
            _write_subsample(target, temporary, summary, n_kept, options)
        _write_attributes(temporary, summary, options)
        zarr_store.seal(temporary)
    return summary


def _write_units(sources: Iterator[Session | PrecomputedRates], path: Path, options: Options, log: Callable[[str], None]) -> ImportSummary:
    """Writes the selected units of all sources to a new store."""
    summary, writer, contents = None, None, ""
    rules = cell_classes.rules(options.excitatory, options.inhibitory)
    for source in sources:
        if summary is not None:
            _check_compatible(source, summary)
        spikes, bins = isinstance(source, Session), bins_of(source, options)
        if summary is None:
            summary = _new_summary(source, bins)
            root, event = zarr.create_group(str(path)), options.align if spikes else ""
            halves = options.halves if isinstance(source, Session) else source.half is not None
            writer = Writer(root, summary.kind, summary.conditions, summary.time, halves, event)
        assert writer is not None
        if isinstance(source, PrecomputedRates):
            _check_precomputed(source, summary, options)
            if (source.half is None) == ("rate_half" in writer.pending):
                raise UserError(f"{source.path}: only some of the sources have rates of single trials; expected one import for each kind.")
        _check_bins(source, bins, summary)
        name = _unique_name(source.name, [entry["name"] for entry in summary.sessions])
        before = writer.n_units
        for block in select_units(source, name, summary, bins):
            if block.trials is not None and block.values.shape[2]:
                trial_counts.write(writer.root, block.trials, name, writer.n_units + np.arange(block.values.shape[2]))
            writer.append(block.values, block.columns, block.half)
        summary.sessions[-1]["kept"] = writer.n_units - before
        log(_session_line(summary.sessions[-1]))
        for warning in summary.sessions[-1]["warnings"]:
            log(f"warning: {name}: {warning}.")
        summary.filtered = query.describe_columns(options.units, source.units) if options.units else ""
        contents = f"in {source.path}, {query.describe_columns(' and '.join(rules.values()), source.units)}" if rules else ""
    if summary is None or writer is None:
        raise UserError("import: no sources; expected files or folders of recordings.")
    if rules and writer.n_units:
        summary.classes.update(np.concatenate(writer.columns[cell_classes.COLUMN]).tolist())
        cell_classes.check_matched(rules, summary.classes, "", contents)
    writer.finish(bin_ms=summary.bin_ms)
    return summary


def _new_summary(source: Session | PrecomputedRates, bins: SourceBins) -> ImportSummary:
    """State of an import before its first source, with the conditions and bins of that source."""
    if isinstance(source, Session):
        return ImportSummary("rate", tuple(bins.options.conditions or {"all": ""}), bins.time, bins.bin_ms)
    names = source.conditions or tuple(str(c) for c in range(source.values.shape[0]))
    return ImportSummary(source.kind, names, bins.time, bins.bin_ms)


def _check_bins(source: Session | PrecomputedRates, bins: SourceBins, summary: ImportSummary) -> None:
    """Raises UserError unless the bins of a source are those of the sources before it."""
    if not trial_average.same_length(bins.bin_ms, summary.bin_ms):
        raise UserError(f"{source.path}: its bins in ms are {bins.bin_ms}; expected {summary.bin_ms}, as in the files before.")
    if len(bins.time) == len(summary.time) and np.abs(bins.time - summary.time).max() > 1e-6 * summary.bin_ms:
        own, expected = (f"{time[0]:g} to {time[-1]:g} s" for time in (bins.time, summary.time))
        raise UserError(f"{source.path}: the centres of its bins go from {own}; expected {expected}, as in the files before.")
    if len(bins.time) != len(summary.time) and isinstance(source, Session):
        raise UserError(f"{source.path}: has {len(bins.time)} bins; expected {len(summary.time)}, as in the files before.")


def _check_compatible(source: Session | PrecomputedRates, summary: ImportSummary) -> None:
    """Raises UserError if spikes and precomputed rates would be mixed in one recording."""
    precomputed = isinstance(source, PrecomputedRates)
    if summary.sessions and summary.sessions[0]["ready"] != precomputed:
        own, others = ("precomputed rates", "spikes") if precomputed else ("spikes", "precomputed rates")
        raise UserError(f"{source.path}: contains {own}, other sources {others}; expected two imports, one for each.")


def _check_precomputed(source: PrecomputedRates, summary: ImportSummary, options: Options) -> None:
    """Raises UserError if precomputed rates do not fit the sources before them, or if an option needs spikes."""
    for name in SPIKE_SETTINGS:
        if getattr(options, name) != getattr(DEFAULTS, name) and not (name == "trials_table" and source.single_trials):
            raise UserError(f"{name}={getattr(options, name)}: applies to spikes only; {source.path} contains precomputed rates.")
    if len(set(summary.conditions)) < len(summary.conditions):
        raise UserError(f"{source.path}: has conditions {', '.join(summary.conditions)}; expected different names.")
    shape = (len(summary.conditions), len(summary.time))
    if source.values.ndim != 3 or source.values.shape[:2] != shape or source.kind != summary.kind:
        raise UserError(
            f"{source.path}: {source.kind} has shape {list(source.values.shape)} [condition, time, unit]; expected"
            f" {summary.kind} of {shape[0]} conditions and {shape[1]} bins, as in the files before."
        )
    if (source.conditions or summary.conditions) != summary.conditions:
        raise UserError(f"{source.path}: its conditions are {source.conditions}; expected {summary.conditions}, as in the files before.")
    if summary.kind == "current" and (options.min_rate is not None or options.max_rate is not None):
        raise UserError(f"{source.path}: contains currents; min_rate and max_rate apply to rates only.")


def _unique_name(name: str, others: Sequence[str]) -> str:
    """Name of a session, followed by a number if an earlier session has it."""
    number, unique = 1, name
    while unique in others:
        number += 1
        unique = f"{name}-{number}"
    return unique


def _no_units_message(summary: ImportSummary) -> str:
    """Message for an import that keeps no unit: a condition without trials, or the reasons with their numbers of units."""
    if summary.empty_conditions and not summary.sessions[0]["ready"]:
        return next(iter(summary.empty_conditions.values()))
    reasons = "; ".join(f"{reason} ({count:,})" for reason, count in summary.dropped.most_common())
    hint = f" In the last source, {summary.filtered}; units=null leaves out none." if summary.filtered else ""
    return f"import: none of {summary.n_units:,} units is left: {reasons or 'the sources have no units'}.{hint}"


def _session_line(entry: dict[str, Any]) -> str:
    """Line for the user about one source: units kept, trials of each condition, notes."""
    used = ", ".join(f"{name} {count}" for name, count in entry.get("used", {}).items())
    trials = f"; of {entry['trials']:,} trials {used}" if used else ""
    without = f" ({entry['without']} without the event)" if entry.get("without") else ""
    notes = "".join(f"; {note}" for note in entry["notes"])
    return f"{entry['name']}: {entry['kept']:,} of {entry['units']:,} units{trials}{without}{notes}"


def _write_subsample(source: Path, path: Path, summary: ImportSummary, n_kept: int, options: Options) -> None:
    """Copies a random subset of the units of one store to another, in the same order, chunk by chunk."""
    assert options.subsample is not None
    if options.subsample > n_kept:
        raise UserError(f"subsample={options.subsample}: expected at most {n_kept:,}, the units that are left.")
    drawn = np.sort(np.random.default_rng(options.seed).choice(n_kept, options.subsample, replace=False))
    full = zarr.open_group(str(source), mode="r")
    halves = "rate_half" in full
    event = "" if summary.sessions[0]["ready"] else options.align
    columns = {name: full[f"unit/{name}"][...] for name in full["unit"]}
    summary.classes = Counter(columns[cell_classes.COLUMN][drawn].tolist() if cell_classes.COLUMN in columns else ())
    writer = Writer(zarr.create_group(str(path)), summary.kind, summary.conditions, summary.time, halves, event)
    trial_counts.copy(full, writer.root, drawn)
    for chunk in zarr_store.chunks(full[summary.kind], along=2):
        units = drawn[(drawn >= chunk.start) & (drawn < chunk.stop)]
        if len(units):
            half = full["rate_half"][..., chunk][..., units - chunk.start] if halves else None
            writer.append(full[summary.kind][..., chunk][..., units - chunk.start], {n: c[units] for n, c in columns.items()}, half)
    writer.finish(bin_ms=summary.bin_ms)
    ends = np.cumsum([entry["kept"] for entry in summary.sessions])
    for entry, count in zip(summary.sessions, np.diff(np.searchsorted(drawn, ends), prepend=0), strict=True):
        entry["kept"] = int(count)
    if n_kept > options.subsample:
        summary.dropped[f"subsample: not among the {options.subsample:,} drawn"] += n_kept - options.subsample


def _write_attributes(path: Path, summary: ImportSummary, options: Options) -> None:
    """Writes the attributes of the recording: source, settings, sessions, units left out, versions."""
    group = zarr.open_group(str(path), mode="r+")
    used = dataclasses.replace(options, bin=summary.bin_ms, window=summary.window)
    names = [entry["name"] for entry in summary.sessions]
    first_names = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    precomputed = summary.sessions[0]["ready"]
    left_out = ("overwrite", *(name for name in SPIKE_SETTINGS if precomputed and (name != "trials_table" or options.trials_table is None)))
    if not precomputed and options.kernel != "none":
        group.attrs["smoothing"] = trial_average.smoothing_kernel(used).tolist()
    found = {name: np.concatenate(times) for name, times in summary.event_times.items()}
    if missing := [name for name, times in found.items() if not len(times)]:
        raise UserError(f"events={missing[0]}: no trial that is used has this event.")
    quartiles = {name: np.round(np.quantile(times, (0.25, 0.5, 0.75)), 6).tolist() for name, times in found.items()}
    group.attrs.update(
        {
            "events": {
                name: {"median": middle, "quartiles": [low, high], "trials": len(found[name])}
                for name, (low, middle, high) in quartiles.items()
            },
            "source": options.source or f"imported from {counted(len(names), 'session')}: {first_names}",
            "import": {name: value for name, value in to_dict(used).items() if name not in left_out},
            "sessions": summary.sessions,
            "dropped": dict(summary.dropped.most_common()),
            "versions": {name: metadata.version(name) for name in ("rlsnet", "numpy", "zarr", "h5py")},
        }
    )
