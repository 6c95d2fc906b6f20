"""`rlsnet VERB --help`: the settings, with their defaults, meaning and unit."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlsnet import config as schema
from rlsnet.convert import variants

SECTIONS = {
    "train": None,
    "simulate": None,
    "test": ("run", "progress", "test", "engine"),
    "plot": ("run",),
    "info": (),
}


def _default(values: dict[str, Any], key: str) -> Any:
    for part in key.split("."):
        values = values.get(part, {}) if isinstance(values, dict) else {}
    return "" if isinstance(values, dict) else "null" if values is None else str(values).lower() if isinstance(values, bool) else values


def _rows(cls: type, values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(key, default, meaning) of every setting; of a group's variants, the default one's."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        key = prefix + field.name
        options = variants(hints[field.name])
        if options:
            yield from _rows(options[0], values, f"{key}.")
        else:
            unit = f" [{field.metadata['unit']}]" if field.metadata["unit"] else ""
            choices = f" ({', '.join(map(str, field.metadata['choices']))})" if "choices" in field.metadata else ""
            yield key, str(_default(values, key)), field.metadata["help"] + choices + unit


def defaults(configs: Path) -> dict[str, Any]:
    """Nested settings of configs/config.yaml and the default option of each group, without Hydra."""
    import yaml

    values = yaml.safe_load((configs / "config.yaml").read_text())
    chosen = {group: name for entry in values.pop("defaults") if isinstance(entry, dict) for group, name in entry.items()}
    for group in _groups(configs):
        if group.name != "config":
            first = chosen.get(group.name) or min(p.stem for p in group.glob("*.yaml"))
            values[group.name] = yaml.safe_load((group / f"{first}.yaml").read_text())
    del values["hydra"]
    return values


def _groups(configs: Path) -> list[Path]:
    """The folders of configs/ that a user chooses from."""
    return sorted(p for p in configs.iterdir() if p.is_dir() and p.name != "hydra")


def help_text(verb: str, what: str, configs: Path) -> str:
    """Usage of a verb: the groups with their options, and every setting with default, meaning and unit."""
    if verb == "info":
        return f"rlsnet info [PATH]: {what}; without a path: the versions and devices here."
    values, groups = defaults(configs), _groups(configs)
    sections = SECTIONS[verb]
    lines = [f"rlsnet {verb}: {what}", "", f"Usage: rlsnet {verb} [key=value ...]"]
    if sections is None:
        lines += ["", "Groups:"]
        lines += [f"  {group.name}={'|'.join(sorted(p.stem for p in group.glob('*.yaml')))}" for group in groups]
        lines += ["", "Also: -m with key=a,b sweeps; --config-dir FOLDER adds your own config/*.yaml; --cfg job shows the result;"]
        lines += ["hydra.run.dir=FOLDER names the run folder; --hydra-help says more."]
        lines += ["A number may come with a unit of its own, there and in YAML: trial.dt='100 us', target.period='1 s'."]
    lines += ["", "Settings, with the defaults of config=sinusoid:"]
    rows = [row for row in _rows(schema.Config, values) if sections is None or row[0].split(".")[0] in sections]
    width, default_width = max(len(row[0]) for row in rows), max(len(row[1]) for row in rows)
    lines += [f"  {key:<{width}}  {default:<{default_width}}  {meaning}" for key, default, meaning in rows]
    return "\n".join(lines)
