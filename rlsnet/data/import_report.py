"""Terminal output of `rlsnet import`: one line for each source, units that were left out, and the command that trains on the result."""

from __future__ import annotations

import shlex

from rich.table import Table
from rich.text import Text

from rlsnet.data import cell_classes, recordings
from rlsnet.data.unit_selection import ImportSummary
from rlsnet.io.formatting import console

SHOWN_CONDITIONS = 12  # names of conditions that are printed


def print_line(text: str) -> None:
    """Prints one line about a source."""
    console().print(Text(text), soft_wrap=True)


def print_summary(summary: ImportSummary, path: str, seconds: float) -> None:
    """Prints the size of the new recording, the units left out by reason, and the command that trains on it.

    Args:
      summary: result of the import.
      path: of the recording.
      seconds: duration of the import.
    """
    kept = sum(entry["kept"] for entry in summary.sessions)
    if summary.dropped:
        table = Table("units", "left out because of", title=f"{summary.n_units - kept:,} of {summary.n_units:,} units left out")
        table.columns[0].justify = "right"
        for reason, count in summary.dropped.most_common():
            table.add_row(f"{count:,}", Text(reason))
        console().print(table)
    bins, conditions = len(summary.time), len(summary.conditions)
    plural = "s" if len(summary.sessions) > 1 else ""
    names = ", ".join(summary.conditions[:SHOWN_CONDITIONS]) + (", ..." if conditions > SHOWN_CONDITIONS else "")
    shape = f"{conditions:,} condition{'s' if conditions > 1 else ''} ({names}), {bins:,} bins of {summary.bin_ms:g} ms"
    shape += " from {:g} to {:g} s".format(*summary.window)
    print_line(f"{path}: {kept:,} units of {len(summary.sessions):,} session{plural}, {shape}, in {seconds:.1f} s.")
    if summary.classes:
        print_line(f"Cell class: {cell_classes.counted(summary.classes)}.")
    print_line("To train on it:")
    settings = recordings.open_recording(path, summary.kind).settings()
    print_line(f"  rlsnet train config=mouse_decision {' '.join(map(shlex.quote, settings))}")
