"""Text of `rlsnet COMMAND --help`: the settings with default, meaning and unit. Hydra and JAX are not needed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from rlsnet.cli.command_table import COMMANDS, SECTIONS
from rlsnet.config.compose import config_folders, variant_names, variant_settings
from rlsnet.config.plugins import load_plugins
from rlsnet.config.quoting import path_list
from rlsnet.config.schema import Config
from rlsnet.config.settings import default_variants, defaults, defaults_of, described
from rlsnet.errors import UserError

OVERVIEW = """rlsnet trains recurrent spiking networks to reproduce recorded neural activity.

Usage: rlsnet COMMAND [key=value ...]

{commands}

Examples:
  rlsnet train config=tiny                                a few seconds, to see that it works
  rlsnet train                                            4096 neurons learn sinusoids
  rlsnet import sessions/*.nwb mine.zarr preset=map
  rlsnet train config=mouse_decision recording.path=mine.zarr
  rlsnet train resume=outputs/2026-11-21/10-00-00 train.iterations=200
  rlsnet train sweep=tune config=tiny rls.penlambda=.4,.8 two runs, each in a folder of its own in tune
  rlsnet test run=outputs/2026-11-21/10-00-00
  rlsnet plot outputs/2026-11-21/10-00-00                 also of a recording.zarr
  rlsnet report outputs/2026-11-21/10-00-00               report.html in the run folder
  rlsnet compare multirun/2026-11-21/10-00-00             the runs of a sweep, the best first
  rlsnet export outputs/2026-11-21/10-00-00 to=npz

rlsnet COMMAND --help lists the settings, rlsnet train --cfg job shows those of an experiment."""


def overview() -> str:
    """Usage of the program, with its commands and examples."""
    return OVERVIEW.format(commands="\n".join(f"  {command:<10} {what}" for command, what in COMMANDS.items()))


def help_text(command: str, arguments: Sequence[str] = ()) -> str:
    """Usage of a command, with the variants of sections and every setting with default, meaning and unit.

    Args:
      command: train, simulate or test.
      arguments: arguments of the command line; section=VARIANT among them selects the variant whose settings are shown.
    """
    folders = config_folders(arguments)
    load_plugins([os.path.expanduser(path) for a in arguments if a.startswith("plugins=") for path in path_list(a.partition("=")[2])])
    sections, offered = SECTIONS[command], variant_names()
    if sections is not None:
        offered = {section: names for section, names in offered.items() if section in sections}
    lines = [f"rlsnet {command}: {COMMANDS[command]}", "", f"Usage: rlsnet {command} [key=value ...]"]
    if offered:
        lines += ["", "Experiments and variants:", *(f"  {section}={'|'.join(names)}" for section, names in offered.items())]
    if sections is None:
        lines += ["", "Also: -m with key=a,b sweeps; --config-dir FOLDER adds your own config/*.yaml; --cfg job shows the result;"]
        lines += ["hydra.run.dir=FOLDER names the run folder; --hydra-help has more."]
        lines += ["A number may have a unit, here and in YAML: trial.dt='100 us', target.period='1 s'."]
    more = f"; those of another variant with {'neuron=glif3' if sections is None else 'perturb=clamp'} --help" if offered else ""
    lines += ["", f"Settings, with the defaults of config=sinusoid{more}:"]
    rows = [
        row
        for row in described(Config, _defaults_of_variants(arguments, folders))
        if sections is None or {row[0], row[0].split(".")[0]} & set(sections)
    ]
    return "\n".join([*lines, *_aligned(rows)])


def _defaults_of_variants(arguments: Sequence[str], folders: Sequence[Any]) -> dict[str, Any]:
    """Nested default settings, with the variants that the arguments choose, also from the user's own files."""
    chosen = dict(a.split("=", 1) for a in arguments if a.split("=", 1)[0] in default_variants() and "=" in a)
    given = {section: variant_settings(section, name, folders) for section, name in chosen.items()}
    values = defaults({section: str(each.get("name")) for section, each in given.items()})
    for section, each in given.items():
        if section not in values:
            raise UserError(f"{section}.name={each.get('name')}: no such variant; expected plugins=[FILE.py] with it.")
        values[section] = values[section] | each
    return values


def _aligned(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """Lines with the settings in aligned columns."""
    width, default_width = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
    return [f"  {key:<{width}}  {default:<{default_width}}  {meaning}" for key, default, meaning in rows]


def plain_help_text(command: str, module: Any) -> str:
    """Usage of a command without Hydra, with the settings in the dataclass `module.Options`."""
    lines = [f"rlsnet {command}: {COMMANDS[command]}", "", f"Usage: rlsnet {command} {module.USAGE}"]
    required = {field.name: None for field in dataclasses.fields(module.Options)}
    rows = list(described(module.Options, required | defaults_of(module.Options)))
    return "\n".join([*lines, *(["", "Settings:", *_aligned(rows)] if rows else [])])
