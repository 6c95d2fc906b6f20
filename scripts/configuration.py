"""Writes docs/configuration.md: every setting with its default, meaning, unit and choices, from the schema and configs/.

python scripts/configuration.py
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import yaml  # noqa: E402

from rlsnet.cli import PLAIN, VERBS  # noqa: E402
from rlsnet.config import LIMITS, Config  # noqa: E402
from rlsnet.convert import choices_of, variants  # noqa: E402
from rlsnet.describe import configs_dir, defaults  # noqa: E402

PAGE = ROOT / "docs" / "configuration.md"
HEAD = """# Configuration

Written by `python scripts/configuration.py` out of the schema (`rlsnet/config.py`) and `configs/`.

A setting is `key=value` on the command line, in the order and number you like, and a line of YAML in a file of your own:

    rlsnet train config=tiny rls.penlambda=0.4 trial.dt='100 us' train.iterations=200

A number is in the unit of its key, or brings its own: `trial.dt=0.1` and `trial.dt='100 us'` are the same. Two values `[a, b]`,
where a key says so, are those of excitatory and of inhibitory neurons. `null` stands for nothing. What is unknown, of the wrong
type or out of range is refused with one line.

`neuron`, `static`, `plastic`, `feedforward`, `stimulus`, `target` and `perturb` are groups: `neuron=glif3` takes another set of keys,
and `neuron.tau_m=12` changes one of them. `config=NAME` is an experiment: a file with what differs from the defaults. Your own is
`config/NAME.yaml` in a folder that you give with `--config-dir FOLDER`; so is an option of a group, `neuron/NAME.yaml`.

| | |
|---|---|
| `rlsnet train --help` | this list; with `neuron=glif3 --help` the keys of that option |
| `rlsnet train config=tiny --cfg job` | the settings of an experiment, nothing is run |
| `hydra.run.dir=FOLDER` | the run folder; without, `outputs/DATE/TIME` |
| `sweep=FOLDER`, `hydra/launcher=NAME` | several values of a key, a run each: [sweeps](sweeps.md) |
| `eval "$(rlsnet completion bash)"` | completion of verbs, keys and values; also `zsh`, `fish` |
| `RLSNET_CACHE=FOLDER` | where what can be made again is kept: compiled programs, the synthetic recording; without, `~/.cache/rlsnet` |
"""


def cell(text: object) -> str:
    """Text in a cell of a table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def plain(value: Any) -> str:
    """A value as YAML writes it on one line."""
    if value == "???" or value is dataclasses.MISSING:
        return "to be given"
    return f"`{value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True).splitlines()[0]}`"


def limits(rule: Any) -> str:
    """The allowed values, in words."""
    words = [" or ".join(f"`{choice}`" for choice in rule["choices"])] if "choices" in rule else []
    words += [f"{words_} {rule[word]:g}" for word, _, words_ in LIMITS if word in rule and rule[word] < 2**53]
    return ", ".join(words)


def table(cls: Any, values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The keys of a dataclass, as a table; `values` their defaults."""
    hints = typing.get_type_hints(cls)
    fields = [field for field in dataclasses.fields(cls) if not variants(hints[field.name]) and not (prefix and field.name == "name")]
    if not fields:
        return
    yield from ("| key | default | meaning | unit | values |", "|---|---|---|---|---|")
    for field in fields:
        default = values.get(field.name, field.default)
        choices = limits(field.metadata) or ("`true` or `false`" if hints[field.name] in (bool, "bool") else "")
        unit = field.metadata["unit"]
        yield f"| `{prefix}{field.name}` | {cell(plain(default))} | {cell(field.metadata['help'])} | {cell(unit)} | {cell(choices)} |"
    yield ""


def sentence(cls: Any) -> str:
    """The first paragraph of a docstring."""
    return " ".join((cls.__doc__ or "").split("\n\n")[0].split())


def of_section(name: str, options: list[Any], values: Any) -> Iterator[str]:
    """A section of keys, or a group with its options."""
    yield from (f"## {name}", "")
    folder = configs_dir() / name
    if not folder.is_dir():
        yield from (sentence(options[0]), "")
        yield from table(options[0], values, f"{name}.")
        return
    for path in sorted(folder.glob("*.yaml"), key=lambda path: (path.stem != values["name"], path.stem)):
        given = yaml.safe_load(path.read_text())
        cls = next(each for each in options if given["name"] in choices_of(each))
        is_default = ", the default" if path.stem == values["name"] else ""
        yield from (f"### `{name}={path.stem}`{is_default}", "", sentence(cls), "")
        yield from table(cls, given, f"{name}.")


def page() -> str:
    """The whole page."""
    values, hints = defaults(configs_dir()), typing.get_type_hints(Config)
    lines = [HEAD, "## General", "", *table(Config, values)]
    for field in dataclasses.fields(Config):
        if options := variants(hints[field.name]):
            lines += of_section(field.name, options, values[field.name])
    lines += ["## Experiments", ""]
    for path in sorted((configs_dir() / "config").glob("*.yaml")):
        text = path.read_text().removeprefix("# @package _global_\n").rstrip().removesuffix("{}").rstrip()
        lines += [f"### `config={path.stem}`", "", *(f"    {line}".rstrip() for line in text.splitlines()), ""]
    for verb, module in PLAIN.items():
        options = importlib.import_module(module).Options
        if dataclasses.fields(options):
            lines += [f"## `rlsnet {verb}`", "", f"{VERBS[verb][0].upper()}{VERBS[verb][1:]}.", "", *table(options, {})]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"Wrote {PAGE.relative_to(ROOT)}.")
