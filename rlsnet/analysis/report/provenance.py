"""Provenance of a run, for its report: settings, recording, machine, versions, and the commands that reproduce it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import yaml

from rlsnet.analysis import recording_summary
from rlsnet.analysis.report.html import Block, Cell, Code, Folded, Literal, Number, Paragraph, Table, key_values
from rlsnet.analysis.run_summary import RunSummary
from rlsnet.analysis.test_results import RunResults, source
from rlsnet.config import differences
from rlsnet.config.load import flat
from rlsnet.io import zarr_store
from rlsnet.io.formatting import UNDEFINED, byte_size, counted, disk_size
from rlsnet.runs.folder import FORMAT

MAX_OPEN_ROWS = 12  # a longer table of sessions is folded


def settings(run: RunSummary) -> Iterator[Block]:
    """Settings that differ from the defaults, and all settings."""
    used = run.settings_of_results
    meaning, differ = differences.meanings(used), differences.differences(used)
    rows: list[list[Cell]] = [
        [Literal(key), differences.shown(value), differences.shown(default), meaning.get(key, "")] for key, value, default in differ
    ]
    if rows:
        yield Table("Settings that differ from the defaults", ("setting", "value", "default", "meaning"), rows)
    else:
        yield Paragraph("All settings are at their defaults.")
    yield Folded("All settings, as in config.yaml", Code(yaml.safe_dump(run.settings, sort_keys=False).strip()))


def recording(results: RunResults) -> Iterator[Block]:
    """Source and size of the recording, its sessions, and the options and exclusions of its import."""
    path, group = source(results)
    if path is None:
        return
    if group is None:
        yield key_values("Recording", [("path", path), ("state", "not found, or another recording")])
        return
    recording = recording_summary.open_rates_or_currents(str(path))
    conditions, bins, units = recording.values.shape
    about: dict[str, Any] = {"source": recording.source, "path": path, "units": f"{units:,}"}
    about["conditions"] = f"{conditions}: {', '.join(recording.conditions)}"
    about["bins"] = f"{bins:,} of {recording.bin_ms:g} ms, {recording_summary.time_words(group, recording)}"
    if (half := results.config.recording.half) is not None:
        about["trained on"] = f"{half}-numbered trials; the others are held out"
    about |= {name: value for name, value in recording_summary.unit_rows(group, recording) if name != "imported with"}
    yield key_values("Recording that the targets were made from", about)
    if isinstance(options := group.attrs.get("import"), Mapping):
        rows: list[list[Cell]] = [[Literal(key), differences.shown(value)] for key, value in flat(options).items()]
        yield Folded("Options of the import", Table("Options of the import", ("setting", "value"), rows))
    sessions = group.attrs.get("sessions")
    if isinstance(sessions, list) and sessions and all(isinstance(each, Mapping) for each in sessions):
        yield _sessions(sessions)


SESSION_COLUMNS = {  # what the import stored of a session: heading, and whether it is shown although it is empty in all sessions
    "name": ("session", True),
    "path": ("file", True),
    "units": ("units in the file", True),
    "kept": ("units used", True),
    "trials": ("trials in the file", True),
    "used": ("trials used", True),
    "without": ("trials without the event", False),
    "ready": ("rates given, not spikes", False),
    "notes": ("notes", False),
    "warnings": ("warnings", False),
}


def _sessions(sessions: list[Mapping[str, Any]]) -> Table | Folded:
    """A row for each session of a recording, as its import stored them."""

    def cell(value: Any) -> Cell:
        """A value of a setting in a cell of the table."""
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, int):
            return Number(f"{value:,}", value)
        if isinstance(value, Mapping):
            return ", ".join(f"{k} {v}" for k, v in value.items())
        return "; ".join(map(str, value)) if isinstance(value, list) else str(value)

    stored = dict.fromkeys(key for session in sessions for key in session)
    headings = {key: SESSION_COLUMNS.get(key, (key, True)) for key in [*SESSION_COLUMNS, *stored] if key in stored}
    shown = [key for key, (_, always) in headings.items() if always or any(session.get(key) for session in sessions)]
    title = counted(len(sessions), "session")
    rows = [[cell(session.get(key, "")) for key in shown] for session in sessions]
    table = Table(title, [headings[key][0] for key in shown], rows)
    return table if len(sessions) <= MAX_OPEN_ROWS else Folded(f"The {title}", table)


def resources(results: RunResults, run: RunSummary) -> Iterator[Block]:
    """Use of memory, processor and GPUs by each command, the machine, and the versions of the software."""
    if run.resources:
        yield _usage(run.resources)
    about: dict[str, Any] = {}
    if results.run.iterations():
        attributes = zarr_store.open_group(results.run.checkpoint("last"), "", FORMAT).attrs
        if isinstance(machine := attributes.get("machine"), Mapping):
            about |= {name: byte_size(value) if name == "memory" else value for name, value in machine.items()}
        if isinstance(versions := attributes.get("versions"), Mapping):
            about["made with"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    about["size on disk"] = disk_size(results.run.path)
    yield key_values("Machine and versions", about)


def _usage(samples: list[dict[str, Any]]) -> Table:
    """Peak memory and mean use by each command, from lines of resources.jsonl; columns without readings are left out."""
    columns: list[tuple[str, Callable[[list[dict[str, Any]]], Number]]] = [
        ("peak memory", lambda lines: _number(max(line["memory_peak_mb"] for line in lines) * 1e6, byte_size)),
        ("CPU (100 %: one core)", lambda lines: _mean(lines, "cpu_percent", "{:.0f} %")),
        ("GPU", lambda lines: _mean(lines, "gpu_percent", "{:.0f} %")),
        ("GPU memory", lambda lines: _mean(lines, "gpu_memory_mb", "{:,.0f} MB")),
        ("GPU power", lambda lines: _mean(lines, "gpu_power_w", "{:.0f} W")),
    ]
    by_command: dict[str, list[dict[str, Any]]] = {}
    for line in samples:
        by_command.setdefault(str(line.get("verb", "")), []).append(line)
    cells = [[cell(lines) for _, cell in columns] for lines in by_command.values()]
    known = [c for c in range(len(columns)) if any(row[c].value is not None for row in cells)]
    rows: list[list[Cell]] = [[command or "run", *(row[c] for c in known)] for command, row in zip(by_command, cells, strict=True)]
    return Table("Peak memory and mean use, sampled during the run", ("", *(columns[c][0] for c in known)), rows)


def _number(value: float, text: Callable[[float], str]) -> Number:
    return Number(text(value), value)


def _mean(lines: list[dict[str, Any]], key: str, form: str) -> Number:
    """The mean of a reading over samples and devices."""
    values = [float(np.mean(line[key])) for line in lines if key in line]
    return _number(float(np.mean(values)), form.format) if values else Number(UNDEFINED)


def reproduction(results: RunResults, run: RunSummary) -> Iterator[Block]:
    """The command lines that reproduce the run."""
    name = results.run.path.resolve().name
    folder = name if re.fullmatch(r"[A-Za-z][\w-]*", name, re.ASCII) else "again"
    arguments = differences.command(run.settings)
    command = "train" if run.metrics or results.run.iterations() else "simulate"
    lines = [differences.shell(command, [*arguments, f"hydra.run.dir={folder}"])]
    if results.test is not None and command == "train":
        lines.append(f"rlsnet test {folder}")
    lines.append(f"rlsnet report {folder}")
    yield Paragraph(
        "On one kind of CPU the same settings and versions give the same numbers; on a GPU sums may differ in their last digits."
    )
    yield Code("\n".join(lines))
    if own := [f"{section}={variant}" for section, variant in differences.unknown(run.settings)]:
        yield Paragraph(f"{', '.join(own)}: a variant of your own; give its folder with --config-dir.", "note")
    yield Paragraph("Relative paths among the settings refer to the folder where the run was started.", "note")
