"""Sessions, one at a time, into one recording: which trials and units are taken, and what was left out and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from rlsnet import recordings, zarrio
from rlsnet.config import UserError
from rlsnet.convert import to_dict
from rlsnet.importers import psth
from rlsnet.importers.options import Options
from rlsnet.importers.parts import Pool, parts
from rlsnet.importers.session import Ready, Session

# settings that ready-made rates have no use for
SPIKES = (
    "conditions",
    "trials",
    "align",
    "kernel",
    "sigma",
    "min_trials",
    "trials_table",
    "halves",
)
DEFAULTS = Options()


def pool(sources: Iterator[Session | Ready], path: Path, options: Options, say: Callable[[str], None]) -> Pool:
    """Writes the recording of all sources, whole or not at all.

    Args:
      sources: read one at a time.
      path: of the new recording.zarr.
      options: what to take.
      say: hears a line about each source.

    Raises:
      UserError: where a source does not fit the others, or nothing is left.
    """
    with zarrio.replacing(path) as temporary:
        target = temporary.with_name(temporary.name + ".all") if options.subsample else temporary
        try:
            gathered = _gather(sources, target, options, say)
            kept = sum(each["kept"] for each in gathered.sessions)
            if not kept:
                raise UserError(_nothing(gathered))
            if options.subsample:
                _subsample(target, temporary, gathered, kept, options)
            _describe(temporary, gathered, options)
        finally:
            if options.subsample:
                zarrio.remove(target)
    return gathered


def _gather(sources: Iterator[Session | Ready], path: Path, options: Options, say: Callable[[str], None]) -> Pool:
    """All units that are taken, into a store."""
    found, writer = None, None
    for source in sources:
        if found is None:
            found = _start(source, options)
            writer = recordings.Writer(
                zarr.create_group(str(path)),
                found.kind,
                found.conditions,
                found.time,
                halves=options.halves and isinstance(source, Session),
                what=options.align if isinstance(source, Session) else "",
            )
        assert writer is not None
        _check_fits(source, found, options)
        name = _unique(source.name, [each["name"] for each in found.sessions])
        before = writer.n_units
        for values, half, columns in parts(source, name, found, options):
            writer.append(values, columns, half)
        found.sessions[-1]["kept"] = writer.n_units - before
        say(_line(found.sessions[-1]))
    if found is None or writer is None:
        raise UserError("import: no sources; expected files or folders of recordings.")
    writer.finish(bin_ms=found.bin_ms)
    return found


def _start(source: Session | Ready, options: Options) -> Pool:
    """An empty pool of what the first source is."""
    if isinstance(source, Session):
        return Pool("rate", tuple(options.conditions or {"all": ""}), psth.bins(options), options.bin)
    conditions, n_bins, _ = source.values.shape
    names = source.conditions or tuple(str(c) for c in range(conditions))
    bin_ms = source.bin_ms or options.bin
    whole = abs(n_bins * bin_ms / 1000 - (options.window[1] - options.window[0])) < 1e-9
    time = (options.window[0] if whole else 0.0) + bin_ms / 1000 * (np.arange(n_bins) + 0.5)
    return Pool(source.kind, names, time, bin_ms)


def _check_fits(source: Session | Ready, found: Pool, options: Options) -> None:
    """Raises UserError where a source cannot go with those before it, or lacks what an option asks for."""
    ready = isinstance(source, Ready)
    if found.sessions and found.sessions[0]["ready"] != ready:
        raise UserError(f"{source.path}: holds {'ready-made rates' if ready else 'spikes'}, others do not; expected imported apart.")
    if isinstance(source, Session):
        return
    for name in SPIKES:
        if getattr(options, name) != getattr(DEFAULTS, name):
            raise UserError(f"{name}={getattr(options, name)}: is for spikes; {source.path} holds rates that are ready.")
    if source.bin_ms and options.bin not in (DEFAULTS.bin, source.bin_ms):
        raise UserError(f"bin={options.bin:g}: {source.path} says that its bins are {source.bin_ms:g} ms; expected left out.")
    if len(set(found.conditions)) < len(found.conditions):
        raise UserError(f"{source.path}: its conditions are {', '.join(found.conditions)}; their names should differ.")
    shape = (len(found.conditions), len(found.time))
    if source.values.ndim != 3 or source.values.shape[:2] != shape or source.kind != found.kind:
        raise UserError(
            f"{source.path}: {source.kind} has shape {list(source.values.shape)} [condition, time, unit]; should be"
            f" {found.kind} of {shape[0]} conditions and {shape[1]} bins, as before."
        )
    for what, mine, theirs in (
        ("bins in ms", source.bin_ms or options.bin, found.bin_ms),
        ("conditions", source.conditions or found.conditions, found.conditions),
    ):
        if mine != theirs:
            raise UserError(f"{source.path}: its {what} are {mine}; expected {theirs}, as in the files before.")
    if found.kind == "current" and (options.min_rate is not None or options.max_rate is not None):
        raise UserError(f"{source.path}: holds currents; min_rate and max_rate are for rates.")


def _unique(name: str, others: Sequence[str]) -> str:
    """`name`, or with a number where a session before has it."""
    number, found = 1, name
    while found in others:
        number += 1
        found = f"{name}-{number}"
    return found


def _nothing(found: Pool) -> str:
    """Why nothing is left."""
    if found.empty and not found.sessions[0]["ready"]:
        return next(iter(found.empty.values()))
    reasons = "; ".join(f"{reason} ({count:,})" for reason, count in found.dropped.most_common())
    return f"import: none of {found.n_units:,} units is left: {reasons or 'there are none'}."


def _line(entry: dict[str, Any]) -> str:
    """What became of a session."""
    used = ", ".join(f"{name} {count}" for name, count in entry.get("used", {}).items())
    trials = f"; of {entry['trials']:,} trials {used}" if used else ""
    without = f" ({entry['without']} without the event)" if entry.get("without") else ""
    notes = "".join(f"; {note}" for note in entry["notes"])
    return f"{entry['name']}: {entry['kept']:,} of {entry['units']:,} units{trials}{without}{notes}"


def _subsample(source: Path, path: Path, found: Pool, kept: int, options: Options) -> None:
    """Copies units drawn at random from all that were kept, in their order, chunk by chunk."""
    assert options.subsample is not None
    if options.subsample > kept:
        raise UserError(f"subsample={options.subsample}: expected at most {kept:,}, the units that are left.")
    drawn = np.sort(np.random.default_rng(options.seed).choice(kept, options.subsample, replace=False))
    whole = zarr.open_group(str(source), mode="r")
    halves = "rate_half" in whole
    align = str(whole["time"].attrs["long_name"]).removeprefix("time from ")
    columns = {name: whole[f"unit/{name}"][...] for name in whole["unit"]}
    writer = recordings.Writer(zarr.create_group(str(path)), found.kind, found.conditions, found.time, halves, align)
    for part in zarrio.chunks(whole[found.kind], along=2):
        mine = drawn[(drawn >= part.start) & (drawn < part.stop)]
        if len(mine):
            half = whole["rate_half"][..., part][..., mine - part.start] if halves else None
            writer.append(whole[found.kind][..., part][..., mine - part.start], {n: c[mine] for n, c in columns.items()}, half)
    writer.finish(bin_ms=found.bin_ms)
    ends = np.cumsum([each["kept"] for each in found.sessions])
    for entry, count in zip(found.sessions, np.diff(np.searchsorted(drawn, ends), prepend=0), strict=True):
        entry["kept"] = int(count)
    if kept > options.subsample:
        found.dropped[f"subsample: not among the {options.subsample:,} drawn"] += kept - options.subsample


def _describe(path: Path, found: Pool, options: Options) -> None:
    """The attributes that say how the recording came about."""
    from importlib import metadata

    group = zarr.open_group(str(path), mode="r+")
    names = [each["name"] for each in found.sessions]
    told = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    group.attrs.update(
        {
            "source": options.source or f"imported from {len(names)} session{'s' if len(names) > 1 else ''}: {told}",
            "import": {name: value for name, value in to_dict(options).items() if name not in SPIKES or not found.sessions[0]["ready"]},
            "sessions": found.sessions,
            "dropped": dict(found.dropped.most_common()),
            "versions": {name: metadata.version(name) for name in ("rlsnet", "numpy", "zarr", "h5py")},
        }
    )
