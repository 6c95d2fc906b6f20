"""What a report says of where a run comes from: its settings, recording, machine and versions, and how to make it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rlsnet import memory, network, recordings, reproduce, store, summary, zarrio
from rlsnet.convert import flat
from rlsnet.facts import Facts
from rlsnet.page import Cell, Raw, code, folded, html, listed, paragraph, table
from rlsnet.resources import on_disk
from rlsnet.results import Results

MANY = 12  # rows of a table that is shown unfolded


def source(results: Results) -> tuple[Path | None, Any]:
    """(path, attributes) of the recording behind a run; attributes None where it is not to be found."""
    run, config = results.run, results.config
    given = None if config.recording.path is None else Path(config.recording.path)
    made_from = zarrio.open_group(run.network, "run", network.FORMAT).attrs.get("recording") if run.network.exists() else None
    for path in (given, None if made_from is None else Path(str(made_from))):
        if path is not None and path.exists():
            return path, zarrio.open_group(path, "recording.path", recordings.FORMAT)
    return (None if made_from is None else Path(str(made_from))), None


def settings(found: Facts) -> Iterator[Raw]:
    """What differs from the defaults, and all of it."""
    meaning, differ = reproduce.meanings(found.settings), reproduce.differences(found.settings)
    rows = [
        (Raw(f"<code>{html(key)}</code>"), reproduce.shown(value), reproduce.shown(default), meaning.get(key, ""))
        for key, value, default in differ
    ]
    if rows:
        yield table("What differs from the defaults", ("setting", "value", "default", "meaning"), rows)
    else:
        yield paragraph("All settings are at their defaults.")
    yield folded("All settings, as config.yaml has them", code(yaml.safe_dump(found.settings, sort_keys=False).strip()))


def recording(results: Results) -> Iterator[Raw]:
    """Where the rates come from: source, size, sessions, what was asked of the import and what it left out."""
    path, group = source(results)
    if path is None or group is None:
        if path is not None:
            yield listed([("path", str(path)), ("state", "not there any more")], "Recording")
        return
    recording = summary.open_any(str(path))
    conditions, bins, units = recording.values.shape
    about: dict[str, Any] = {"source": recording.source, "path": str(path), "units": f"{units:,}"}
    about["conditions"] = f"{conditions}: {', '.join(recording.conditions)}"
    about["bins"] = f"{bins:,} of {recording.bin_ms:g} ms"
    if (half := results.config.recording.half) is not None:
        about["trained on"] = f"{half}-numbered trials; the others are held out"
    about |= {name: value for name, value in summary.rows(group, recording) if name != "imported with"}
    yield listed(about, "What the targets were made from")
    if isinstance(options := group.attrs.get("import"), Mapping):
        shown = [(Raw(f"<code>{html(key)}</code>"), reproduce.shown(value)) for key, value in flat(options).items()]
        yield folded("Options of the import", table("Options of the import", ("setting", "value"), shown))
    sessions = group.attrs.get("sessions")
    if isinstance(sessions, list) and sessions and all(isinstance(each, Mapping) for each in sessions):
        yield _sessions(sessions)


def _sessions(sessions: list[Mapping[str, Any]]) -> Raw:
    head = list(dict.fromkeys(key for session in sessions for key in session))
    rows = []
    for session in sessions:
        values = [session.get(key, "") for key in head]
        words = [", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else value for value in values]
        rows.append([Cell(f"{value:,}", value) if isinstance(value, int) else str(value) for value in words])
    title = f"{len(sessions):,} session{'s' if len(sessions) > 1 else ''}"
    shown = table(title, head, rows)
    return shown if len(sessions) <= MANY else folded(f"The {title}", shown)


def resources(results: Results, found: Facts) -> Iterator[Raw]:
    """What each verb took of the machine, the machine, and the versions of what computed."""
    rows = []
    for verb in dict.fromkeys(str(line.get("verb", "")) for line in found.resources):
        mine = [line for line in found.resources if str(line.get("verb", "")) == verb]
        row: list[Any] = [verb or "run", _cell(max(line["memory_peak_mb"] for line in mine) * 1e6, memory.in_words)]
        row.append(_mean(mine, "cpu_percent", "{:.0f} %"))
        row += [_mean(mine, "gpu_percent", "{:.0f} %"), _mean(mine, "gpu_memory_mb", "{:,.0f} MB"), _mean(mine, "gpu_power_w", "{:.0f} W")]
        rows.append(row)
    if rows:
        head = ("", "peak memory", "CPU (100 %: one core)", "GPU", "GPU memory", "GPU power")
        known = [c for c in range(len(head)) if c < 2 or any(row[c].value is not None for row in rows)]
        kept = [[row[c] for c in known] for row in rows]
        yield table("Peak memory and mean use, from samples beside the run", [head[c] for c in known], kept)
    about: dict[str, Any] = {}
    done = results.run.iterations()
    if done:
        attributes = zarrio.open_group(results.run.checkpoint("last"), "run", store.FORMAT).attrs
        if isinstance(machine := attributes.get("machine"), Mapping):
            known_as = {"memory": lambda size: memory.in_words(int(size))}
            about |= {name: known_as.get(name, str)(value) for name, value in machine.items()}
        if isinstance(versions := attributes.get("versions"), Mapping):
            about["made with"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    about["size on disk"] = on_disk(results.run.path)
    yield listed(about, "Machine and versions")


def _cell(value: float, words: Any) -> Cell:
    return Cell(words(value), value)


def _mean(lines: list[dict[str, Any]], key: str, form: str) -> Cell:
    values = [float(np.mean(line[key])) for line in lines if key in line]
    return Cell(form.format(np.mean(values)), float(np.mean(values))) if values else Cell("–")


def again(results: Results, found: Facts) -> Iterator[Raw]:
    """The command lines that make this run again."""
    name = results.run.path.resolve().name
    where = name if name.replace("-", "").replace("_", "").isalnum() and not name[0].isdigit() else "again"
    arguments = reproduce.command(found.settings)
    verb = "train" if found.metrics or results.run.iterations() else "simulate"
    lines = [reproduce.shell(verb, [*arguments, f"hydra.run.dir={where}"])]
    if results.test is not None and verb == "train":
        lines.append(f"rlsnet test run={where}")
    lines.append(f"rlsnet report {where}")
    yield paragraph(
        "On one kind of CPU the same settings and versions give the same numbers; on a GPU sums may differ in their last digits."
    )
    yield code("\n".join(lines))
    if own := [f"{group}={option}" for group, option in reproduce.unknown(found.settings)]:
        yield paragraph(f"{', '.join(own)}: an option of your own; give its folder with --config-dir.", "note")
    yield paragraph("Relative paths among the settings are as they were given where the run was started.", "note")
