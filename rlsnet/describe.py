"""`rlsnet VERB --help`: the settings, with their defaults, meaning and unit."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlsnet import config as schema
from rlsnet.config import UserError
from rlsnet.convert import choices_of, completed, load_plugins, variants

SECTIONS = {
    "train": None,
    "simulate": None,
    "test": ("run", "progress", "test", "perturb", "recording.path", "engine"),
}


def configs_dir() -> Path:
    """The shipped configurations: beside the package in a checkout, inside it in a wheel."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[1] / "configs"


def _default(values: dict[str, Any], key: str) -> Any:
    for part in key.split("."):
        values = values.get(part, {}) if isinstance(values, dict) else {}
    values = list(values) if isinstance(values, tuple) else values
    return "" if isinstance(values, dict) else "null" if values is None else str(values).lower() if isinstance(values, bool) else values


def settings(cls: type, values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(key, default, meaning) of every setting; of a section's variants, the one that `values` name."""
    hints = typing.get_type_hints(cls)
    for field in sorted(dataclasses.fields(cls), key=lambda field: field.name != "name"):  # the name first
        key = prefix + field.name
        options = variants(hints[field.name])
        if options:
            name = _default(values, f"{key}.name")
            variant = next((v for v in options if "name" in v.__dataclass_fields__ and name in choices_of(v)), options[0])
            yield from settings(variant, values, f"{key}.")
        else:
            unit = f" [{field.metadata['unit']}]" if field.metadata["unit"] else ""
            choices = f" ({', '.join(map(str, field.metadata['choices']))})" if "choices" in field.metadata else ""
            yield key, str(_default(values, key)), field.metadata["help"] + choices + unit


def defaults(configs: Path, choices: Mapping[str, str] | None = None, folders: Sequence[Path] = ()) -> dict[str, Any]:
    """Nested settings of configs/config.yaml and an option of each group, without Hydra: that of `choices`, or the default.

    An option is looked for in `folders`, those of --config-dir, before `configs`.
    """
    import yaml

    values = yaml.safe_load((configs / "config.yaml").read_text())
    chosen = {group: name for entry in values.pop("defaults") if isinstance(entry, dict) for group, name in entry.items()}
    chosen |= choices or {}
    for group in _groups(configs):
        if group.name != "config":
            option = Path(group.name) / f"{chosen.get(group.name)}.yaml"
            file = next((folder / option for folder in (*folders, configs) if (folder / option).exists()), None)
            if file is None:
                names = ", ".join(sorted(p.stem for p in group.glob("*.yaml")))
                raise UserError(f"{group.name}={chosen.get(group.name)}: no such configuration; expected {names}.")
            values[group.name] = yaml.safe_load(file.read_text())
    del values["hydra"]
    return values


def with_defaults(saved: dict[str, Any]) -> dict[str, Any]:
    """Saved settings with those that a run of an older version does not know at their defaults."""
    return completed(saved, defaults(configs_dir()))


def _groups(configs: Path) -> list[Path]:
    """The folders of configs/ that a user chooses from."""
    return sorted(p for p in configs.iterdir() if p.is_dir() and p.name not in ("hydra", "import"))


def help_text(verb: str, what: str, configs: Path, arguments: Sequence[str] = ()) -> str:
    """Usage of a verb: the groups with their options, and every setting with default, meaning and unit.

    Args:
      verb: such as train.
      what: it does.
      configs: the shipped configurations.
      arguments: of the command line; a group=option among them has that option's settings shown.
    """
    groups = _groups(configs)
    names = {group.name for group in groups}
    chosen = dict(a.split("=", 1) for a in arguments if a.split("=", 1)[0] in names and "=" in a)
    folders = [Path(after) for flag, after in zip(arguments, arguments[1:], strict=False) if flag in ("--config-dir", "-cd")]
    load_plugins([p for a in arguments if a.startswith("plugins=") for p in a.removeprefix("plugins=").strip("[]").split(",")])
    values = defaults(configs, chosen, folders)
    sections = SECTIONS[verb]
    lines = [f"rlsnet {verb}: {what}", "", f"Usage: rlsnet {verb} [key=value ...]"]
    offered = [group for group in groups if sections is None or group.name in sections]
    if offered:
        lines += ["", "Groups:"]
        lines += [f"  {group.name}={'|'.join(sorted(p.stem for p in group.glob('*.yaml')))}" for group in offered]
    if sections is None:
        lines += ["", "Also: -m with key=a,b sweeps; --config-dir FOLDER adds your own config/*.yaml; --cfg job shows the result;"]
        lines += ["hydra.run.dir=FOLDER names the run folder; --hydra-help says more."]
        lines += ["A number may come with a unit of its own, there and in YAML: trial.dt='100 us', target.period='1 s'."]
    other = "neuron=glif3" if sections is None else "perturb=clamp"
    more = f"; with {other} --help, say, those of another option" if offered else ""
    lines += ["", f"Settings, with the defaults of config=sinusoid{more}:"]
    rows = [row for row in settings(schema.Config, values) if sections is None or {row[0], row[0].split(".")[0]} & set(sections)]
    return "\n".join([*lines, *_aligned(rows)])


def _aligned(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """A line for each setting, in columns."""
    width, default_width = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
    return [f"  {key:<{width}}  {default:<{default_width}}  {meaning}" for key, default, meaning in rows]


def plain_help_text(verb: str, what: str, module: Any) -> str:
    """Usage of a verb that takes paths and a few settings, those of the dataclass `module.Options`."""
    lines = [f"rlsnet {verb}: {what}", "", f"Usage: rlsnet {verb} {module.USAGE}"]
    values = {f.name: None if f.default is dataclasses.MISSING else f.default for f in dataclasses.fields(module.Options)}
    rows = list(settings(module.Options, values))
    return "\n".join([*lines, *(["", "Settings:", *_aligned(rows)] if rows else [])])
