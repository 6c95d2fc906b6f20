"""Arguments of the commands without Hydra: paths, and the settings in a dataclass of the command."""

from __future__ import annotations

import dataclasses
import os
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from rlsnet.config.load import section_of
from rlsnet.config.quoting import path_list, unquoted
from rlsnet.errors import UserError, did_you_mean


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """Settings of a command without settings."""


def plain_arguments(cls: Any, command: str, arguments: Sequence[str], base: Mapping[str, Any] | None = None) -> tuple[list[str], Any]:
    """(paths, settings) from the arguments of a command without Hydra.

    Args:
      cls: the dataclass of the settings.
      command: name of the command, for messages.
      arguments: paths, and key=value or section.key=value with values in YAML; also as --key=value or --key value. section.key=null
        takes a key away that `base` has.
      base: settings of lower priority than those on the command line.

    Raises:
      UserError: an option or a setting does not exist, or a value is not allowed.
    """
    paths: list[str] = []
    values: dict[str, Any] = {name: dict(each) if isinstance(each, Mapping) else each for name, each in (base or {}).items()}
    for argument in joined_flags(cls, arguments):
        name, equals, text = argument.partition("=")
        if not equals or not re.fullmatch(r"[\w.]+", name) or os.path.exists(argument):  # a long filter is no path: it would be an error
            if argument.startswith("-") and not os.path.exists(argument):
                raise UserError(f"{command} {argument}: no such option; expected paths and key=value, see rlsnet {command} --help.")
            paths.append(argument if os.path.exists(argument) else os.path.expanduser(argument))
            continue
        section, dot, below = name.partition(".")
        if section not in {field.name for field in dataclasses.fields(cls)}:
            similar = did_you_mean(section, [field.name for field in dataclasses.fields(cls)])
            raise UserError(f"{name}: no such setting of {command}.{similar or f' A path with = is written as ./{argument}'}")
        value = _value(cls, section, text)
        if dot:
            named = _named_values(cls, section, values.get(section)) | {below: text}
            values[section] = {each: given for each, given in named.items() if (each, value) != (below, None)}
        else:
            values[section] = value
    return paths, section_of(cls, values, "", set(values))


def from_settings(cls: Any, command: str, settings: Mapping[str, Any], base: Mapping[str, Any] | None = None) -> Any:
    """Settings of a command from plain values such as dict(bin=10) and, of lower priority, `base`; types and ranges are checked.

    Raises:
      UserError: a setting that does not exist, or a value outside its range.
    """
    known = [field.name for field in dataclasses.fields(cls)]
    for name in settings:
        if name not in known:
            raise UserError(f"{name}: no such setting of {command}.{did_you_mean(name, known)}")
    return plain_arguments(cls, command, [], {**(base or {}), **settings})[1]


def _named_values(cls: Any, section: str, value: Any) -> dict[str, Any]:
    """Values of a setting by name; a single value has the name `rest` of the setting. Raises UserError if it has none."""
    if value is None or isinstance(value, Mapping):
        return dict(value or {})
    rest = next(field.metadata.get("rest") for field in dataclasses.fields(cls) if field.name == section)
    if rest is None:
        raise UserError(f"{section}={value}: expected texts with names, such as {section}.left=TEXT {section}.right=TEXT.")
    return {rest: value}


def _value(cls: Any, name: str, text: str) -> Any:
    """Value of a setting: YAML, but a text is taken as it is, as YAML would end it at " #" and read 1e3 as a number."""
    field = next(each for each in dataclasses.fields(cls) if each.name == name)
    if field.metadata.get("paths"):
        return None if text == "null" else path_list(text)
    if typing.get_type_hints(cls)[name] in (str, str | None):
        return None if text in ("null", "") else unquoted(text)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def joined_flags(cls: Any, arguments: Sequence[str]) -> Iterator[str]:
    """Arguments with --key=value and --key value of known keys as key=value; --key alone means true, for a key with true or false."""
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
            raise UserError(f"{argument}: expected a value, as {argument} VALUE or {key}=VALUE.")
        else:
            yield f"{key}={held}"
            held = next(rest, None)
