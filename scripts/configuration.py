"""Writes the YAML files of configs/ that hold the settings, and docs/configuration.md, all from the schema.

python scripts/configuration.py

Written by hand are the experiments (configs/config/), the presets of import (configs/import/) and Hydra's own settings
(configs/hydra_settings.yaml, configs/hydra/).
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
import textwrap
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import yaml  # noqa: E402

from rlsnet.cli.command_table import COMMANDS, PLAIN  # noqa: E402
from rlsnet.config.compose import configs_dir  # noqa: E402
from rlsnet.config.schema import LIMITS, Config  # noqa: E402
from rlsnet.config.settings import choices_of, default_variants, plain, variants  # noqa: E402

PAGE = ROOT / "docs" / "configuration.md"
CONFIGS = configs_dir()
COLUMN = 26  # of the comments in YAML
WIDTH = 128  # of a line of YAML
NOTE = "Written by scripts/configuration.py from rlsnet/config/schema.py."

HEAD = """# Every setting

`python scripts/configuration.py` writes this page and the YAML files in `configs/` from the schema
(`rlsnet/config/schema.py`).

## How settings work

**On the command line**, a setting is `key=value`. The order does not matter:

    rlsnet train config=tiny rls.penlambda=0.4 trial.dt='100 us' train.iterations=200

**In YAML**, a setting is a line in a file of your own ([experiments](#experiments-and-variants-of-your-own)).

**In Python**, the same settings are dataclasses. `rlsnet.compose("config=tiny", "rls.penlambda=0.4")` reads them as the command
line does. `rlsnet.Config()` is the experiment `sinusoid`. `RLSConfig()`, `TrialConfig()` and `GLIF5Config()` of `rlsnet.config`
are sections.

**Values.**

- A number is in the unit of its key, unless you add a unit: `trial.dt=0.1` and `trial.dt='100 us'` are the same.
- Two values `[a, b]`, where a key allows them, are for excitatory and for inhibitory neurons.
- `null` means: no value.
- An unknown key, a wrong type or a value out of range is refused, with one line that says what is expected.

**Variants.** The sections `neuron`, `static`, `plastic`, `feedforward`, `stimulus`, `target` and `perturb` have variants.
`neuron=glif3` chooses a variant, which has its own keys. `neuron.tau_m=12` changes one of its settings.

**Experiments.** `config=NAME` chooses an experiment: a file with the settings that differ from the defaults
([list](#experiments)).

### Experiments and variants of your own

Put the file into a folder of your own and name the folder with `--config-dir FOLDER`.

| file in the folder | content | use |
|---|---|---|
| `config/NAME.yaml` | the settings that differ from the defaults | `config=NAME` |
| `neuron/NAME.yaml` | the variant (`name: lif`), and the settings that differ from its defaults | `neuron=NAME` |

### Help, folders and environment

| | |
|---|---|
| `rlsnet train --help` | this list; with `neuron=glif3 --help`, the keys of that variant |
| `rlsnet train config=tiny --cfg job` | the settings of an experiment, without a run |
| `hydra.run.dir=FOLDER` | the run folder; default `outputs/DATE/TIME` |
| `sweep=FOLDER`, `hydra/launcher=NAME` | several values of a key, one run for each: [sweeps](sweeps.md) |
| `eval "$(rlsnet completion bash)"` | completion of commands, keys and values; also `zsh` and `fish` |
| `RLSNET_CACHE=FOLDER` | the cache, with compiled programs and the synthetic recording; default `~/.cache/rlsnet` |
| `RLSNET_KERNELS=v3` | native kernels: `v2`, `v3` or `v4` of x86-64, `armv8-a`, or `native` (compiled here); default: the best |
"""


def cell(text: object) -> str:
    """Text in a cell of a table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def in_yaml(value: Any) -> str:
    """A value as YAML writes it on one line; ??? where one has to be given."""
    if value is dataclasses.MISSING:
        return "???"
    return str(yaml.safe_dump(plain(value), default_flow_style=True, width=10**6).splitlines()[0])


def shown(value: Any) -> str:
    """A default in a table."""
    return "required" if value is dataclasses.MISSING else f"`{value if isinstance(value, str) else in_yaml(value)}`"


def limits(rule: Any) -> str:
    """The allowed values, in words."""
    words = [" or ".join(f"`{choice}`" for choice in rule["choices"])] if "choices" in rule else []
    words += [f"{words_.removeprefix('a value ')} {rule[word]:g}" for word, _, words_ in LIMITS if word in rule and rule[word] < 2**53]
    words += ["at least 2 trial.dt"] if rule.get("decay") else []
    words += ["a multiple of trial.dt"] if rule.get("steps") else []
    return ", ".join(words)


def own_fields(cls: Any) -> list[dataclasses.Field[Any]]:
    """The fields that are single settings, without sections and without the name of a variant."""
    hints = typing.get_type_hints(cls)
    return [field for field in dataclasses.fields(cls) if not variants(hints[field.name]) and len(field.metadata.get("choices", "  ")) != 1]


def table(cls: Any, prefix: str = "") -> Iterator[str]:
    """The keys of a dataclass, as a table."""
    hints, fields = typing.get_type_hints(cls), own_fields(cls)
    if not fields:
        return
    yield from ("| key | default | meaning | unit, values |", "|---|---|---|---|")
    for field in fields:
        rule = field.metadata
        choices = limits(rule) or ("`true` or `false`" if hints[field.name] in (bool, "bool") else "")
        default = shown(field.default) + (f" ({rule['source']})" if rule["source"] else "")
        values = "; ".join(filter(None, (rule["unit"], choices)))
        yield f"| `{prefix}{field.name}` | {cell(default)} | {cell(rule['help'])} | {cell(values)} |"
    yield ""


def sentence(cls: Any) -> str:
    """The first paragraph of a docstring."""
    return " ".join((cls.__doc__ or "").split("\n\n")[0].split())


def variants_of(name: str) -> list[Any]:
    """The shipped variants of a section, its default first."""
    shipped = [cls for cls in variants(typing.get_type_hints(Config)[name]) if cls.__module__.startswith("rlsnet.")]
    return sorted(shipped, key=lambda cls: (choices_of(cls)[0] != default_variants()[name], choices_of(cls)[0]))


def of_section(name: str) -> Iterator[str]:
    """Lines about a section: its keys, or its variants."""
    yield from (f"## {name}", "")
    if name not in default_variants():
        cls = typing.get_type_hints(Config)[name]
        yield from (sentence(cls), "")
        yield from table(cls, f"{name}.")
        return
    for cls in variants_of(name):
        name_of_variant = choices_of(cls)[0]
        is_default = ", the default" if name_of_variant == default_variants()[name] else ""
        yield from (f"### `{name}={name_of_variant}`{is_default}", "", sentence(cls), "")
        yield from table(cls, f"{name}.")


def page() -> str:
    """The whole page."""
    lines = [
        HEAD,
        "## Commands",
        "",
        "`rlsnet COMMAND --help` shows the settings of a command.",
        "",
        "| command | what it does |",
        "|---|---|",
    ]
    lines += [f"| `rlsnet {name}` | {cell(text)} |" for name, text in COMMANDS.items()]
    lines += ["", "## General", "", "Settings outside all sections.", "", *table(Config)]
    for name in section_names():
        lines += of_section(name)
    lines += ["## Experiments", ""]
    for path in sorted((CONFIGS / "config").glob("*.yaml")):
        text = path.read_text().removeprefix("# @package _global_\n").rstrip().removesuffix("{}").rstrip()
        lines += [f"### `config={path.stem}`", "", *(f"    {line}".rstrip() for line in text.splitlines()), ""]
    for command, module in PLAIN.items():
        options = importlib.import_module(module).Options
        if dataclasses.fields(options):
            lines += [
                f"## Settings of `rlsnet {command}`",
                "",
                f"{COMMANDS[command][0].upper()}{COMMANDS[command][1:]}.",
                "",
                *table(options),
            ]
    return "\n".join(lines).rstrip() + "\n"


def section_names() -> list[str]:
    """Names of the sections of the configuration."""
    hints = typing.get_type_hints(Config)
    return [field.name for field in dataclasses.fields(Config) if variants(hints[field.name])]


def line_of(field: dataclasses.Field[Any], indent: str = "") -> Iterator[str]:
    """A setting in YAML, with its unit and meaning as a comment beside it, or above it where that is too long."""
    rule, setting = field.metadata, f"{indent}{field.name}: {in_yaml(field.default)}"
    choices = f"; {', '.join(map(str, rule['choices']))}" if len(rule.get("choices", ())) > 1 and ";" not in rule["help"] else ""
    comment = (f"[{rule['unit']}] " if rule["unit"] else "") + rule["help"] + choices
    beside = f"{setting:<{COLUMN}} # {comment}"
    if len(beside) <= WIDTH:
        yield beside
        return
    yield from (f"{indent}# {line}" for line in textwrap.wrap(comment, WIDTH - len(indent) - 2))
    yield setting


def variant_file(cls: Any) -> str:
    """Text of the YAML file of a variant."""
    lines = [f"# {line}" for line in textwrap.wrap(sentence(cls), WIDTH - 2)]
    lines += [f"# {NOTE}", f"name: {choices_of(cls)[0]}"]
    return "\n".join([*lines, *(line for field in own_fields(cls) for line in line_of(field))]) + "\n"


def main_file() -> str:
    """Text of configs/config.yaml: the list of default variants, and every setting of sections without variants."""
    lines = [
        "# The defaults of every experiment. The experiments themselves are in config/: each holds only what differs from here.",
        '# A number is in the unit in brackets, or a text with a unit of its own: 0.1 and "100 us" are the same time in ms.',
        f"# {NOTE}",
        "defaults:",
        "  - hydra_settings",
    ]
    for name, default in default_variants().items():
        lines.append(f"  - {name}: {default:<{COLUMN - 6 - len(name)}} # {', '.join(choices_of(cls)[0] for cls in variants_of(name))}")
    experiments = ", ".join(sorted(path.stem for path in (CONFIGS / "config").glob("*.yaml")))
    lines += ["  - _self_", f"  - config: {'sinusoid':<{COLUMN - 12}} # the experiment: {experiments}"]
    lines += ["  - override hydra/job_logging: rlsnet", "  - override hydra/hydra_logging: rlsnet", ""]
    lines += [line for field in own_fields(Config) for line in line_of(field)]
    hints = typing.get_type_hints(Config)
    for name in section_names():
        if name not in default_variants():
            lines += ["", f"{name}:", *(line for field in own_fields(hints[name]) for line in line_of(field, "  "))]
    return "\n".join(lines) + "\n"


def files() -> Mapping[Path, str]:
    """Every file that is written, and its text."""
    variant_files = {
        CONFIGS / name / f"{choices_of(cls)[0]}.yaml": variant_file(cls) for name in default_variants() for cls in variants_of(name)
    }
    return {CONFIGS / "config.yaml": main_file(), **variant_files, PAGE: page()}


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
        print(f"Wrote {path.relative_to(ROOT)}.")
