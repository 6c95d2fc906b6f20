"""What differs between a configuration and the defaults, and the command line that makes it again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from rlsnet.config import Config, UserError
from rlsnet.convert import flat, in_quotes
from rlsnet.describe import configs_dir, defaults, settings, with_defaults

OF_A_COMMAND = ("resume", "run", "progress")  # settings that say nothing of what is computed
MISSING = object()


def same(a: Any, b: Any) -> bool:
    """Whether two settings are equal, 1 and 1.0 included, true and 1 not."""
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def groups(values: Mapping[str, Any]) -> dict[str, str]:
    """The option that is chosen of each group of settings."""
    return {name: str(section["name"]) for name, section in values.items() if isinstance(section, Mapping) and "name" in section}


def unknown(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(group, option) where the chosen option is not among the shipped ones."""
    return [(group, name) for group, name in groups(values).items() if not (configs_dir() / group / f"{name}.yaml").exists()]


def _base(choices: Mapping[str, str]) -> dict[str, Any]:
    """The defaults with these options chosen; a group whose option is not among the shipped ones has none."""
    strange = dict(unknown({group: {"name": name} for group, name in choices.items()}))
    values = defaults(configs_dir(), {group: name for group, name in choices.items() if group not in strange})
    return {key: value for key, value in values.items() if key not in strange}


def differences(values: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(key, value, default) of each setting that is not at its default; of a chosen option, at the default of that option."""
    usual, own = groups(defaults(configs_dir())), groups(values)
    base, found = flat(_base(own)), []
    for key, value in flat(values).items():
        default = base.get(key, "")
        if key.endswith(".name") and key.count(".") == 1:
            default = usual.get(key.removesuffix(".name"), "")
        if not same(value, default) and key.split(".")[0] not in OF_A_COMMAND:
            found.append((key, value, default))
    return found


def meanings(values: Mapping[str, Any]) -> dict[str, str]:
    """What each setting means, with its unit."""
    return {key: meaning for key, _, meaning in settings(Config, dict(values))}


def _experiments() -> Iterator[tuple[str, dict[str, str], dict[str, Any]]]:
    """(name, options chosen, settings) of each shipped experiment."""
    for path in sorted((configs_dir() / "config").glob("*.yaml")):
        values = yaml.safe_load(path.read_text()) or {}
        chosen = {k.removeprefix("override /"): v for entry in values.pop("defaults", []) for k, v in entry.items()}
        yield path.stem, chosen, values


def command(values: Mapping[str, Any]) -> list[str]:
    """The key=value arguments, unquoted, that make `values` out of the nearest shipped experiment and the defaults."""
    usual, own = groups(defaults(configs_dir())), groups(values)
    wanted = {key: value for key, value in flat(values).items() if key.split(".")[0] not in OF_A_COMMAND}
    best: list[str] = []
    for name, chosen, given in _experiments():
        base = flat(_base(own)) | flat(given)
        texts = [] if name == "sinusoid" else [f"config={name}"]
        texts += [f"{group}={option}" for group, option in own.items() if (usual | chosen).get(group) != option]
        for key, value in wanted.items():
            named = key.endswith(".name") and key.removesuffix(".name") in own
            if not named and not same(value, base.get(key, MISSING)):
                texts.append(f"{key}={_text(value)}")
        if not best or len(texts) < len(best):
            best = texts
    return best


def shell(verb: str, arguments: list[str]) -> str:
    """A command to paste into a shell, an argument a line where there are many."""
    words = [f"rlsnet {verb}", *map(shlex.quote, arguments)]
    return (" " if sum(map(len, words)) < 90 else " \\\n    ").join(words)


def _text(value: Any) -> str:
    """A value as Hydra's grammar reads it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z_/.][\w./:@%+-]*", value):
        return in_quotes(value)
    return str(value)


def shown(value: Any) -> str:
    """A value as a reader wants to see it."""
    return value if isinstance(value, str) else _text(value)


def saved(path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run with those that its version did not know at their defaults; UserError where they are none."""
    if not all(isinstance(values.get(section, {}), Mapping) for section in ("network", "trial", "train", "rls", "target")):
        raise UserError(f"{path}: expected the settings that rlsnet train wrote.")
    return with_defaults(dict(values))
