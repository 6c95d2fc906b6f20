"""Differences between a configuration and the defaults, and the command line that reproduces the configuration."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlsnet.config.compose import builds_on_another, configs_dir, experiments
from rlsnet.config.load import flat, with_defaults
from rlsnet.config.quoting import in_quotes
from rlsnet.config.schema import Config
from rlsnet.config.settings import chosen_variants, default_variants, defaults, described
from rlsnet.errors import UserError

OF_A_COMMAND = ("resume", "run", "sweep", "trust", "progress")  # settings of a command line, without influence on results
MISSING = object()


def same(a: Any, b: Any) -> bool:
    """Whether two values of a setting are equal; 1 equals 1.0, but not true."""
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def unknown(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(section, variant) for chosen variants that are not shipped with rlsnet."""
    return [(section, name) for section, name in chosen_variants(values).items() if not (configs_dir() / section / f"{name}.yaml").exists()]


def differences(values: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(key, value, default) of each setting that differs from the default of its chosen variant."""
    base, found = flat(defaults(chosen_variants(values))), []
    for key, value in flat(values).items():
        section = key.removesuffix(".name")
        default = default_variants()[section] if section in default_variants() else base.get(key, "")
        if not same(value, default) and key.split(".")[0] not in OF_A_COMMAND:
            found.append((key, value, default))
    return found


def meanings(values: Mapping[str, Any]) -> dict[str, str]:
    """Meaning of each setting, with its unit, by key."""
    return {key: meaning for key, _, meaning in described(Config, values)}


def command(values: Mapping[str, Any]) -> list[str]:
    """Arguments key=value, unquoted, that produce `values` from the most similar shipped experiment and the defaults.

    An experiment that changes another one, as the demonstration does, is named only where nothing differs from it.
    """
    own = chosen_variants(values)
    wanted = {key: value for key, value in flat(values).items() if key.split(".")[0] not in OF_A_COMMAND}
    best: list[str] | None = None
    for name, chosen, given in experiments():
        base = flat(defaults(own)) | flat(given)
        texts = [] if name == "sinusoid" else [f"config={name}"]
        texts += [f"{section}={variant}" for section, variant in own.items() if (default_variants() | chosen).get(section) != variant]
        for key, value in wanted.items():
            is_option = key.endswith(".name") and key.removesuffix(".name") in own
            if not is_option and not same(value, base.get(key, MISSING)):
                texts.append(f"{key}={typed(value)}")
        if (best is None or len(texts) < len(best)) and not (len(texts) > 1 and builds_on_another(name)):
            best = texts
    return best or []


def of_section(section: str, values: Mapping[str, Any]) -> list[str]:
    """Arguments key=value, unquoted, that give a section these values: its variant, and what differs from the defaults."""
    variant = {section: str(values["name"])} if "name" in values else {}
    base = defaults(variant).get(section, {})
    differ = {key: value for key, value in values.items() if key != "name" and not same(value, base.get(key, MISSING))}
    return [*(f"{key}={value}" for key, value in variant.items()), *(f"{section}.{key}={typed(value)}" for key, value in differ.items())]


def beyond(experiment: str, settings: Sequence[str]) -> list[str]:
    """Settings key=value, as they are typed, without those that a shipped experiment has anyway."""
    chosen, given = next((chosen, given) for name, chosen, given in experiments() if name == experiment)
    base = flat(defaults(chosen)) | flat(given)

    def has(key: str, text: str) -> bool:
        value = base.get(key)
        return float(text) == value if isinstance(value, float | int) else text == value

    return [each for each in settings if not has(*each.split("=", 1))]


def shell(command: str, arguments: list[str]) -> str:
    """Command line for a shell; one line for each argument if there are many."""
    words = [f"rlsnet {command}", *map(shlex.quote, arguments)]
    return (" " if sum(map(len, words)) < 90 else " \\\n    ").join(words)


def typed(value: Any) -> str:
    """A value as text for the command line, in Hydra's grammar."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(typed, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{typed(name)}:{typed(each)}' for name, each in value.items())}}}"
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z_/.][\w./:@%+-]*", value):
        return in_quotes(value)
    return str(value)


def shown(value: Any) -> str:
    """A value as text for a reader: as on the command line, but without quotes around a text."""
    return value if isinstance(value, str) else typed(value)


def saved(path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings of a run; settings that its version of rlsnet did not have get their defaults.

    Args:
      path: path of the file, for the message.
      values: the saved settings.

    Raises:
      UserError: the values are not settings of a run.
    """
    if not all(isinstance(values.get(section, {}), Mapping) for section in ("network", "trial", "train", "rls", "target")):
        raise UserError(f"{path}: expected the settings that rlsnet train wrote.")
    return with_defaults(values)
