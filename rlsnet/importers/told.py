"""What `rlsnet import` prints: a line a session, then what was taken, what was left out and why, and how to train on it."""

from __future__ import annotations

import shlex

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlsnet.importers.parts import Pool

WIDTH = 120  # columns, where the output is no terminal


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def line(text: str) -> None:
    """A line about a source."""
    _console().print(Text(text), soft_wrap=True)


def summary(found: Pool, path: str, seconds: float) -> None:
    """What was made of all sources, and the command that trains on it."""
    kept = sum(each["kept"] for each in found.sessions)
    console = _console()
    if found.dropped:
        table = Table("units", "left out because of", title=f"{found.n_units - kept:,} of {found.n_units:,} units left out")
        table.columns[0].justify = "right"
        for reason, count in found.dropped.most_common():
            table.add_row(f"{count:,}", Text(reason))
        console.print(table)
    bins, conditions = len(found.time), len(found.conditions)
    plural = "s" if len(found.sessions) > 1 else ""
    shape = f"{conditions} condition{'s' if conditions > 1 else ''} ({', '.join(found.conditions)}), {bins} bins of {found.bin_ms:g} ms"
    start, end = (found.time[i] + sign * found.bin_ms / 2000 for i, sign in ((0, -1), (-1, 1)))
    shape += f" from {round(start, 9) + 0:g} to {round(end, 9) + 0:g} s"
    line(f"{path}: {kept:,} units of {len(found.sessions):,} session{plural}, {shape}, in {seconds:.1f} s.")
    target = " target=currents" if found.kind == "current" else ""
    trial = f"trial.learn_every={found.bin_ms:g} trial.duration={bins * found.bin_ms:g}"
    line("Train on it:")
    line(f"  rlsnet train config=mouse_decision{target} recording.path={shlex.quote(path)} {trial}{_small(kept)}")


def _small(kept: int) -> str:
    """Settings that a small recording needs: an even number of plastic inputs, fewer than there are neurons."""
    return "" if kept >= 256 else f" plastic.n_inputs={max(2, kept // 4 * 2)}"
