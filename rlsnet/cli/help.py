"""Text of `rlsnet COMMAND --help`: the settings with default, meaning and unit. Hydra and JAX are not needed."""

from __future__ import annotations

import dataclasses
import os
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlsnet.cli.command_table import COMMANDS, ESSENTIAL, HEADINGS, SECTIONS, is_shown
from rlsnet.config.compose import config_folders, experiment, variant_names, variant_settings
from rlsnet.config.plugins import load_plugins
from rlsnet.config.quoting import path_list
from rlsnet.config.schema import Config
from rlsnet.config.settings import default_variants, defaults, defaults_of, described
from rlsnet.errors import UserError
from rlsnet.io.terminal import fitted, width_of

Row = tuple[str, str, str]  # of a setting: key, default, meaning

MOST_COLUMNS, FEWEST_COLUMNS = 100, 60  # of a line
LONG_DEFAULT = 12  # characters; a longer default does not make its column wider

OVERVIEW = """rlsnet trains recurrent spiking networks to reproduce recorded neural activity.

Usage: rlsnet COMMAND [THING] [key=value ...]

{commands}

Examples:
  rlsnet train tiny                       # a first try, a few seconds
  rlsnet train demo                       # a minute or two, synthetic data
  rlsnet import sessions/*.nwb mine.zarr preset=map
  rlsnet train mouse_decision recording.path=mine.zarr recording.half=odd
  rlsnet train mouse_decision recording.path=mine.zarr --dry-run
  rlsnet runs                             # all runs, the newest first
  rlsnet test last                        # last is the newest run
  rlsnet report last                      # one HTML page in the run folder
  rlsnet train last train.iterations=200  # continue to 200 iterations
  rlsnet train tiny sweep=tune rls.penlambda=.4,.8
  rlsnet compare tune                     # runs of a sweep, the best first
  rlsnet export last to=npz

rlsnet COMMAND --help lists the settings of a command.
rlsnet train EXPERIMENT --cfg job prints all settings of an experiment."""

USAGES = {
    "train": """[EXPERIMENT or RUN] [key=value ...]
  EXPERIMENT   {experiments}; without it, sinusoid
  RUN          folder of a run to continue, or last for the newest run; train.iterations is the total""",
    "simulate": """[EXPERIMENT] [key=value ...]
  EXPERIMENT   {experiments}; without it, sinusoid""",
    "watch": """SOURCE [RUN] [key=value ...], or RUN alone to continue
  SOURCE   oe://HOST:PORT (Open Ephys), redis://HOST:PORT/STREAM, lsl:NAME, a folder that grows, or a stream.zarr to repeat
  RUN      new folder for the run, or one to continue; without it, outputs/DATE/TIME""",
    "test": """RUN [key=value ...]
  RUN   folder of a run, such as outputs/2026-11-21/10-00-00, or last for the newest run""",
}
OPTIONS = (
    ("--dry-run", "", "show sizes, memory, disk space and time, and start nothing"),
    ("hydra.run.dir=FOLDER", "", "write the run to FOLDER instead of outputs/DATE/TIME"),
    ("sweep=FOLDER key=a,b", "", "one run for each value, in folders below FOLDER"),
    ("--config-dir FOLDER", "", "use experiments of your own, FOLDER/config/NAME.yaml"),
    ("--cfg job", "", "print all settings, and start nothing"),
)
UNITS = "A number may have a unit: trial.dt='100 us', target.period='1 s'."


def overview() -> str:
    """Usage of the program, with its commands and examples."""
    commands = "\n".join(_aligned([(command, "", what) for command, what in COMMANDS.items()]))
    return "\n".join(_wrapped(OVERVIEW.format(commands=commands)))


def _title(command: str) -> list[str]:
    """Lines that say what a command does."""
    return _wrapped(f"rlsnet {command}: {COMMANDS[command].rpartition(' (')[0]}.")


def columns() -> int:
    """Columns of a line: those of the terminal, within limits."""
    return max(FEWEST_COLUMNS, min(MOST_COLUMNS, width_of(sys.stdout) or MOST_COLUMNS))


def help_text(command: str, arguments: Sequence[str] = ()) -> str:
    """Usage of a command, with the variants of sections and every setting with default, meaning and unit.

    Args:
      command: train, simulate or test.
      arguments: arguments of the command line; section=VARIANT among them selects the variant whose settings are shown.
    """
    folders = config_folders(arguments)
    load_plugins([os.path.expanduser(path) for a in arguments if a.startswith("plugins=") for path in path_list(a.partition("=")[2])])
    sections, names = SECTIONS[command], variant_names(folders)
    experiments = ", ".join(names.pop("config"))
    offered = {section: each for section, each in names.items() if is_shown(command, section)}
    usage = USAGES[command].format(experiments=experiments)
    lines = [*_title(command), "", *_wrapped(f"Usage: rlsnet {command} {usage}")]
    options = OPTIONS[:1] if sections is not None else [row for row in OPTIONS if is_shown(command, row[0].partition("=")[0])]
    lines += ["", "Options:", *_aligned(options)]
    lines += _wrapped(UNITS) if sections is None else []
    example = "neuron=glif3" if sections is None else "perturb=clamp"
    lines += ["", *_wrapped(f"Variants of sections; the settings of another one are shown by rlsnet {command} {example} --help:")]
    lines += _aligned([(f"{section}=", "", ", ".join(each)) for section, each in offered.items()])
    of = "online" if command == "watch" else "sinusoid"
    values = defaults_of_experiment(arguments, folders, *experiment(of))
    rows = [row for row in described(Config, values) if is_shown(command, row[0])]
    defaults_are = f"the defaults of the experiment {of}" if sections is None else "the defaults; a run keeps its own"
    lines += ["", *_wrapped(f"The settings most often changed, with {defaults_are}:")]
    lines += _aligned([row for key in ESSENTIAL[command] for row in rows if row[0] == key])
    for section, mine in _by_section([row for row in rows if row[0] not in ESSENTIAL[command]]):
        chosen = f" ({section}={values[section]['name']})" if section in default_variants() else ""
        if settings := [row for row in mine if not (chosen and row[0] == f"{section}.name")]:
            lines += ["", f"{HEADINGS.get(section, section.capitalize())}{chosen}:", *_aligned(settings)]
    return "\n".join(lines)


def _by_section(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """(section, rows) in the order of the headings, then other sections; "" for settings outside of a section."""
    found: dict[str, list[Row]] = {section: [] for section in HEADINGS}
    for row in rows:
        found.setdefault(row[0].rpartition(".")[0], []).append(row)
    yield from ((section, mine) for section, mine in found.items() if mine)


def defaults_of_experiment(
    arguments: Sequence[str], folders: Sequence[Any], variants: Mapping[str, str], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Nested default settings, with the variants that the arguments choose, also from the user's own files.

    Args:
      arguments: of the command line.
      folders: of --config-dir.
      variants: that an experiment has chosen, by section.
      settings: of this experiment.
    """
    chosen = dict(variants) | dict(a.split("=", 1) for a in arguments if a.split("=", 1)[0] in default_variants() and "=" in a)
    given = {section: variant_settings(section, name, folders) for section, name in chosen.items()}
    values = defaults({section: str(each.get("name")) for section, each in given.items()})
    for section, each in given.items():
        if section not in values:
            raise UserError(f"{section}.name={each.get('name')}: no such variant; expected plugins=[FILE.py] with it.")
        values[section] = values[section] | each
    for section, each in settings.items():
        values[section] = values[section] | each if isinstance(each, Mapping) and isinstance(values.get(section), dict) else each
    return values


def _wrapped(text: str) -> list[str]:
    """Lines of a text, fitted to the columns."""
    return fitted(text, columns()).splitlines()


def _aligned(rows: Sequence[Row]) -> list[str]:
    """Lines with the settings in aligned columns; a meaning that is too long goes on in the next line."""
    width = max((len(key) for key, _, _ in rows), default=0)
    default_width = max((len(default) for _, default, _ in rows if len(default) <= LONG_DEFAULT), default=0)
    lines = []
    for key, default, meaning in rows:
        head = f"  {key:<{width}}  {default:<{default_width}}  " if default_width else f"  {key:<{width}}  "
        indent = 2 + width + 2 + (default_width + 2 if default_width else 0)
        wrapped = textwrap.wrap(head + meaning, columns(), subsequent_indent=" " * indent, break_on_hyphens=False, drop_whitespace=True)
        lines += wrapped or [head]
    return lines


def plain_help_text(command: str, module: Any) -> str:
    """Usage of a command without Hydra, with the settings in the dataclass `module.Options`."""
    lines = [*_title(command), "", *_wrapped(f"Usage: rlsnet {command} {module.USAGE}")]
    required = {field.name: None for field in dataclasses.fields(module.Options)}
    rows = list(described(module.Options, required | defaults_of(module.Options)))
    essential = ESSENTIAL.get(command, ())
    if not essential:
        return "\n".join([*lines, *(["", "Settings:", *_aligned(rows)] if rows else [])])
    lines += ["", "The settings most often changed:", *_aligned([row for key in essential for row in rows if row[0] == key])]
    return "\n".join([*lines, "", "More settings:", *_aligned([row for row in rows if row[0] not in essential])])
