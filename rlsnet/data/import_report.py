"""Terminal output of `rlsnet import`: one line for each source, units that were left out, and the command that trains on the result."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from rich.table import Table
from rich.text import Text

from rlsnet.config import differences
from rlsnet.data import cell_classes, recordings
from rlsnet.data.unit_selection import ImportSummary
from rlsnet.io.formatting import byte_size, console, counted, duration
from rlsnet.io.terminal import say

EXPERIMENT = "mouse_decision"  # that the printed command trains
SHOWN_SOURCES = 20  # sources that are listed
SHOWN_CONDITIONS = 12  # names of conditions that are printed


def print_summary(summary: ImportSummary, path: str, seconds: float) -> None:
    """Prints the size of the new recording, the units left out by reason, and the command that trains on it.

    Args:
      summary: result of the import.
      path: of the recording.
      seconds: duration of the import.
    """
    _print_dropped(summary)
    kept = sum(entry["kept"] for entry in summary.sessions)
    bins, conditions = len(summary.time), len(summary.conditions)
    names = ", ".join(summary.conditions[:SHOWN_CONDITIONS]) + (", ..." if conditions > SHOWN_CONDITIONS else "")
    shape = f"{counted(conditions, 'condition')} ({names}), {counted(bins, 'bin')} of {summary.bin_ms:g} ms"
    shape += " from {:g} to {:g} s".format(*summary.window)
    say(f"{path}: {counted(kept, 'unit')} of {counted(len(summary.sessions), 'session')}, {shape}, in {seconds:.1f} s.")
    if summary.classes:
        say(f"Cell class: {cell_classes.counted(summary.classes)}.")
    recording = recordings.open_recording(path, summary.kind)
    settings = differences.beyond(EXPERIMENT, recording.settings())
    half = "recording.half=odd" in settings
    say("To train on it" + (", on the odd trials, so that rlsnet test compares with the even ones:" if half else ":"))
    say(f"  rlsnet train config={EXPERIMENT} {' '.join(map(shlex.quote, settings))}")
    if left_out := [name for name in recording.conditions if name not in recording.unperturbed]:
        say(f"It leaves out {', '.join(left_out)}, by whose names trials were perturbed; without train.conditions it trains on all.")
    elif conditions > 2:
        say("It trains on all conditions; if trials of some were perturbed, name the others in train.conditions=[NAME,...].")


def _print_dropped(summary: ImportSummary) -> None:
    """Prints a table of the units left out, by reason."""
    kept = sum(entry["kept"] for entry in summary.sessions)
    if summary.dropped:
        table = Table("units", "left out because of", title=f"{summary.n_units - kept:,} of {summary.n_units:,} units left out")
        table.columns[0].justify = "right"
        for reason, count in summary.dropped.most_common():
            table.add_row(f"{count:,}", Text(reason))
        console().print(table)


def print_sources(formats: Mapping[Path, str], sizes: Mapping[Path, int], out: str) -> None:
    """Prints the sources of an import that would be read, with format and size.

    Args:
      formats: format of each source.
      sizes: bytes of each source.
      out: path of the new recording.
    """
    table = Table("source", "format", "size", title=counted(len(formats), "source"), title_justify="left")
    table.columns[2].justify = "right"
    for path, name in list(formats.items())[:SHOWN_SOURCES]:
        table.add_row(Text(str(path)), name, byte_size(sizes[path]))
    console().print(table)
    if len(formats) > SHOWN_SOURCES:
        say(f"and {len(formats) - SHOWN_SOURCES:,} more")
    say(f"Dry run: {out} is not written. The first source is read as a trial:")


def print_estimate(summary: ImportSummary, written: int, sizes: Mapping[Path, int], seconds: float) -> None:
    """Prints what the import of the first source gave, and the disk space and time that all sources would take.

    Args:
      summary: result of the import of the first source.
      written: bytes of its recording.
      sizes: bytes of each source, the first one first.
      seconds: duration of its import.
    """
    _print_dropped(summary)
    first, total = next(iter(sizes.values())), sum(sizes.values())
    say(f"Its recording takes {byte_size(written)}, made in {duration(seconds)}.")
    if len(sizes) > 1 and first:
        ratio = total / first
        text = f"{byte_size(ratio * written)} and {duration(ratio * seconds)}"
        say(f"All {len(sizes):,} sources would take about {text}, if they are like the first one ({ratio:.3g} times its size).")
