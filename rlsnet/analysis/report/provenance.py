"""Provenance of a run, for its report: settings, recording, machine, versions, and the commands that reproduce it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import yaml

from rlsnet.analysis import recording_summary
from rlsnet.analysis.analyses import analyse
from rlsnet.analysis.plots import perturbation_figures
from rlsnet.analysis.report.html import Block, Cell, Code, Folded, Literal, Number, Paragraph, Table, key_values
from rlsnet.analysis.run_summary import RunSummary
from rlsnet.analysis.test_results import RunResults, source
from rlsnet.config import differences
from rlsnet.config.load import flat
from rlsnet.config.quoting import typed_path
from rlsnet.data.import_options import arguments_of
from rlsnet.io import zarr_store
from rlsnet.io.formatting import UNDEFINED, byte_size, counted, disk_size
from rlsnet.runs.folder import FORMAT
from rlsnet.workflows import tested_settings

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
    """The command lines that reproduce what the report shows: import, training, tests, perturbed tests, analyses."""
    path = results.run.path if results.run.path.name else results.run.path.resolve()
    folder = f"{path}_again" if re.fullmatch(r"[A-Za-z/.][\w./-]*", str(path), re.ASCII) else "again"
    yield Paragraph(
        "On one kind of CPU the same settings and versions give the same numbers; on a GPU sums may differ in their last digits."
    )
    trained = bool(run.metrics or results.run.iterations())
    settings, into = run.settings, f"hydra.run.dir={folder}"
    if not trained:
        settings = {**settings, "perturb": {"name": "none"}, "test": {**settings["test"], **run.tested_settings}}
    given = differences.command(settings)
    lines = [*_import_lines(results), differences.shell("train" if trained else "simulate", [*given, into])]
    if results.run.stream.exists():  # an experiment that was followed: its messages, with the iterations after each trial
        others = [each for each in given if not each.startswith(("watch.source=", "train.iterations="))]
        lines = [differences.shell("watch", [str(path / "stream.zarr"), folder, *others])]
    if trained and results.test is not None:
        lines.append(differences.shell("test", [folder, *_test_arguments(run, run.tested_settings)]))
    unknown = []
    for label in results.run.perturbed_results():
        group = perturbation_figures.open_perturbed(results, label)
        arguments, lists = _perturbation_arguments(label, tested_settings.of_perturbation(group))
        unknown += lists
        if trained:
            lines.append(differences.shell("test", [folder, *arguments, *_test_arguments(run, tested_settings.of_test(group))]))
        else:
            lines.append(differences.shell("simulate", [*differences.command(settings), *arguments, into]))
    lines += [differences.shell("analyse", [folder, *arguments]) for arguments in _analyses(results)]
    lines.append(differences.shell("report", [folder]))
    yield Code("\n".join(lines))
    if unknown:
        yield Paragraph(f"{', '.join(unknown)}: a list of numbers that is not stored; give it in addition.", "note")
    where, group = source(results)
    if where is not None and not (group is not None and isinstance(group.attrs.get("import"), Mapping)):
        yield Paragraph(f"Recording: {where}; no import is stored in it, so the command that made it is not known.", "note")
    if own := [f"{section}={variant}" for section, variant in differences.unknown(run.settings)]:
        yield Paragraph(f"{', '.join(own)}: a variant of your own; give its folder with --config-dir.", "note")
    yield Paragraph("Relative paths refer to the folders where the import and the run were started.", "note")


def _import_lines(results: RunResults) -> Iterator[str]:
    """The command that imported the recording, where it is stored in the recording."""
    path, group = source(results)
    options, sessions = (group.attrs.get(name) if group is not None else None for name in ("import", "sessions"))
    if path is None or not isinstance(options, Mapping) or not isinstance(sessions, list):
        return
    files = list(dict.fromkeys(str(each["path"]) for each in sessions if isinstance(each, Mapping) and "path" in each))
    if files:
        given = results.config.recording.path or path
        yield differences.shell("import", [*map(typed_path, files), typed_path(given), *arguments_of(options)])


def _test_arguments(run: RunSummary, tested: Mapping[str, Any]) -> list[str]:
    """Settings of a test in which it differs from those that the run was started with."""
    planned = run.settings.get("test", {})
    return [f"test.{name}={differences.typed(value)}" for name, value in tested.items() if not differences.same(value, planned.get(name))]


def _perturbation_arguments(label: str, values: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """(arguments of a perturbed test, settings of it that are not stored: long lists of numbers)."""
    unknown = [name for name in ("strength", "rate") if name in values and not isinstance(values[name], float | int | list)]
    arguments = differences.of_section("perturb", {name: value for name, value in values.items() if name not in unknown})
    arguments += [f"perturb.label={differences.typed(label)}"] if label != values.get("name") else []
    return arguments, [f"perturb.{name} of {label}" for name in unknown if values.get("values") is None]


def _analyses(results: RunResults) -> list[list[str]]:
    """Arguments of each call of rlsnet analyse, whose results are stored."""
    calls: dict[tuple[str, ...], list[str]] = {}
    default = dataclasses.asdict(analyse.AnalysisOptions())
    for name, result in analyse.stored(results.run).items():
        given = result.numbers.get("settings", {})
        differ = {each: given[each] for each in default if each != "only" and each in given and given[each] != default[each]}
        calls.setdefault(tuple(f"{each}={differences.typed(value)}" for each, value in differ.items()), []).append(name)
    return [
        [*([] if set(names) == set(analyse.ANALYSES) else [f"only={differences.typed(names)}"]), *arguments]
        for arguments, names in calls.items()
    ]
