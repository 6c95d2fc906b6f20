"""Arguments of the commands that Hydra has no part in: paths and a few settings, those of a dataclass."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from rlsnet.config.load import section_of
from rlsnet.errors import UserError, did_you_mean


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """Settings of a command that has none."""


def plain_arguments(cls: Any, command: str, arguments: Sequence[str], base: Mapping[str, Any] | None = None) -> tuple[list[str], Any]:
    """(paths, settings) from the arguments of a command that Hydra has no part in.

    Args:
      cls: the dataclass of the settings, each with a default.
      command: for messages.
      arguments: paths, and key=value or section.key=value with values in YAML; also as --key=value or --key value.
      base: settings of lower priority than those on the command line.

    Raises:
      UserError: an option or a setting that does not exist, or a value that does not fit.
    """
    paths: list[str] = []
    values: dict[str, Any] = {name: dict(each) if isinstance(each, Mapping) else each for name, each in (base or {}).items()}
    for argument in _joined_flags(cls, arguments):
        name, equals, text = argument.partition("=")
        if not equals or os.path.exists(argument):  # a Path of a long filter would raise
            if argument.startswith("-"):
                raise UserError(f"{command} {argument}: no such option; expected paths and key=value, see rlsnet {command} --help.")
            paths.append(argument)
            continue
        section, dot, below = name.partition(".")
        if section not in {field.name for field in dataclasses.fields(cls)}:
            similar = did_you_mean(section, [field.name for field in dataclasses.fields(cls)])
            raise UserError(f"{name}: no such setting of {command}.{similar}")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        if dot:
            values[section] = {**(values.get(section) or {}), below: text}
        else:
            values[section] = value
    return paths, section_of(cls, values, "", set(values))


def _joined_flags(cls: Any, arguments: Sequence[str]) -> Iterator[str]:
    """Arguments with --key=value and --key value, of a known key, as key=value; a --key that is true or false may stand alone."""
    known = {field.name: field for field in dataclasses.fields(cls)}
    rest = iter(arguments)
    held = next(rest, None)
    while (argument := held) is not None:
        held = next(rest, None)
        key, equals, _ = argument[2:].partition("=")
        field = known.get(key.partition(".")[0]) if argument.startswith("--") else None
        if field is None or equals:
            yield argument[2:] if field is not None else argument
        elif isinstance(field.default, bool) and held not in ("true", "false"):
            yield f"{key}=true"
        elif held is None:
            raise UserError(f"{argument}: has no value; expected {argument} VALUE or {key}=VALUE.")
        else:
            yield f"{key}={held}"
            held = next(rest, None)
