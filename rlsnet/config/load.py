"""Loader of settings: conversion between nested plain values, as in YAML, and the typed configuration.

The conversion is our own, not pydantic or cattrs: each mistake is one line with the key, its unit and the allowed values; two values
for two classes of neurons are a type of their own; and help starts in a fraction of a second.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlsnet.config.plugins import load_plugins
from rlsnet.config.schema import LIMITS, MOST, Config, Variant
from rlsnet.config.settings import choices_of, chosen_variants, defaults, plain, suggest, variants
from rlsnet.config.units import quantity
from rlsnet.errors import UserError, did_you_mean, joined

log = logging.getLogger(__name__)

# settings and values that had another name in earlier versions
RENAMED = {
    "train.resources_every": "resources_every",
    "engine.kernels=wide": "engine.kernels=fixed_shape",
}


def renamed_override(text: str) -> str:
    """A key=value of the command line under its present name, with a notice if it was renamed."""
    key, equals, value = text.partition("=")
    sign = key[: len(key) - len(key.lstrip("+~"))]
    old = next((old for old in (key.lstrip("+~"), f"{key.lstrip('+~')}={value}") if old in RENAMED), None)
    if old is None:
        return text
    log.warning("%s is now %s.", old, RENAMED[old])
    return sign + (RENAMED[old] if "=" in old else f"{RENAMED[old]}{equals}{value}")


def renamed(values: Mapping[str, Any], given: Collection[str] = (), notice: bool = True) -> dict[str, Any]:
    """Nested settings with renamed settings under their present names.

    Args:
      values: nested settings, perhaps of an earlier version.
      given: present keys whose values have priority over those of their old names.
      notice: whether to log a line for each renamed setting.
    """
    result = {name: dict(each) if isinstance(each, Mapping) else each for name, each in values.items()}
    for old, new in RENAMED.items():
        key, _, value = old.partition("=")
        section, _, name = key.rpartition(".")
        held = result.get(section) if section else result
        if not isinstance(held, dict) or name not in held or (value and held[name] != value):
            continue
        found = held.pop(name)
        new_key, _, new_value = new.partition("=")
        into, _, new_name = new_key.rpartition(".")
        if new_key not in given or value:
            (result.setdefault(into, {}) if into else result)[new_name] = new_value or found
        if notice:
            log.warning("%s is now %s.", old, new)
    return result


def _value(key: str, value: Any, annotation: Any, rule: Mapping[str, Any]) -> Any:
    """Plain value or list, converted to the type of its field; raises UserError unless it is allowed."""
    options = [annotation] if typing.get_origin(annotation) is tuple else list(typing.get_args(annotation)) or [annotation]
    if value is None and type(None) in options:
        return None
    if any(typing.get_origin(o) is dict for o in options):
        return value if isinstance(value, str) and str in options else _texts(key, value)
    tuples = [typing.get_args(o) for o in options if typing.get_origin(o) is tuple]
    nested = next((inner[0] for inner in tuples if typing.get_origin(inner[0]) is tuple), None)
    if nested is not None and isinstance(value, list | tuple) and value and all(isinstance(each, list | tuple) for each in value):
        return tuple(_value(f"{key}[{index}]", each, nested, rule) for index, each in enumerate(value))  # a list of lists
    items = tuples[0] if tuples else None
    plain = [o for o in options if typing.get_origin(o) is not tuple and o is not type(None)]
    if items is not None and isinstance(value, list | tuple):
        if items[-1] is not Ellipsis and len(value) != len(items):
            one = "one value, or two: of excitatory and of inhibitory neurons" if plain else f"{len(items)} values"
            raise UserError(f"{key}={value}: expected {one}.")
        return tuple(_scalar(f"{key}[{index}]", each, [items[0]], rule) for index, each in enumerate(value))
    if items == (str, ...) and isinstance(value, str) and type(None) in options:
        return (value,)  # a list of one
    if items is not None and not plain:
        raise UserError(f"{key}={value}: expected a list, such as [a, b].")
    return _scalar(key, value, plain, rule)


def _texts(key: str, value: Any) -> dict[str, str]:
    """Mapping of texts under names that the user chooses; raises UserError if a value is not a text."""
    if not isinstance(value, Mapping) or not all(isinstance(each, str) for each in value.values()):
        raise UserError(f"{key}={value}: expected texts with names, such as {key}.left=TEXT {key}.right=TEXT.")
    return {str(name): each for name, each in value.items()}


def _scalar(key: str, value: Any, options: Sequence[Any], rule: Mapping[str, Any]) -> Any:
    """Single value, converted to one of the types `options`; raises UserError unless it is allowed."""
    kind = options[0]
    unit = f" {rule['unit']}" if rule["unit"] else ""
    name = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[kind]
    if kind is str and isinstance(value, list) and "items" in rule:
        value = ",".join(map(str, value))
    if rule.get("path") and isinstance(value, str):
        value = os.path.expanduser(value)
    if kind is float and isinstance(value, str):
        value = quantity(key, value, rule["unit"])
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if kind is str and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"{key}={'null' if value is None else value}: expected {name}{' in' + unit if unit else ''}.")
    if kind is float and not math.isfinite(value):
        raise UserError(f"{key}={value}: expected a finite number{' in' + unit if unit else ''}.")
    if "choices" in rule and value not in rule["choices"]:
        known = list(map(str, rule["choices"]))
        raise UserError(f"{key}={value}: expected {joined(known, 'or')}.{did_you_mean(str(value), known)}")
    if kind is int and "most" not in rule:
        rule = {**rule, "most": MOST}
    for word, broken, words in LIMITS:
        if word in rule and broken(value, rule[word]):
            raise UserError(f"{key}={value}: expected {words} {rule[word]}{unit}.")
    return value


def section_of(cls: type, values: Any, prefix: str, given: Collection[str], others: Collection[str] = ()) -> Any:
    """Section from a mapping, with converted types; missing settings get their defaults.

    Args:
      cls: dataclass of the section.
      values: the mapping.
      prefix: text before the keys, for messages.
      given: keys that the user has set for this run.
      others: keys of other variants of the section; they are ignored unless given, as an experiment may be made for another variant.

    Raises:
      UserError: a key does not exist, a required key is missing, or a value is not allowed.
    """
    if not isinstance(values, Mapping):
        names = ", ".join(f.name for f in dataclasses.fields(cls))
        raise UserError(f"{prefix[:-1]}={'null' if values is None else values}: expected a section with keys {names}.")
    known = {f.name: f for f in dataclasses.fields(cls)}
    for name in values:
        if name not in known:
            _unknown(prefix, str(name), values, prefix + str(name) in given, name in others)
    hints, arguments = typing.get_type_hints(cls), {}
    for name, field in known.items():
        if name not in values and field.default is not dataclasses.MISSING:
            continue
        if values.get(name, "???") == "???":
            raise UserError(f"{prefix}{name}: missing; expected {field.metadata.get('help', 'a section')}.")
        options = variants(hints[name])
        if not options:
            arguments[name] = _value(prefix + name, values[name], hints[name], field.metadata)
            continue
        chosen = _variant(f"{prefix}{name}", values[name], options)
        keys = {field.name for each in options for field in dataclasses.fields(each)}
        arguments[name] = section_of(chosen, values[name], f"{prefix}{name}.", given, keys)
    return cls(**arguments)


def _unknown(prefix: str, name: str, values: Mapping[str, Any], given: bool, of_another: bool) -> None:
    """Raises UserError for a key that a section does not have; a key of another variant is ignored unless the user has set it."""
    if name == "config" and not prefix:
        raise UserError("config: no such key; expected '# @package _global_' as first line of the file config/NAME.yaml.")
    if of_another and not given:
        log.info("%s%s is ignored, as %sname=%s has no such setting.", prefix, name, prefix, values["name"])
    elif of_another:
        raise UserError(f"{prefix}{name}: cannot be combined with {prefix}name={values['name']}.")
    else:
        raise UserError(f"{prefix}{name}: no such key.{suggest(prefix + name)}")


def _variant(key: str, values: Any, options: Sequence[Any]) -> Any:
    """Dataclass of a section or, if it has variants, of the variant with the `name` in the values."""
    if not issubclass(options[0], Variant):
        return options[0]
    by_name = {choice: each for each in options for choice in choices_of(each)}
    chosen = values.get("name") if isinstance(values, Mapping) else values
    if chosen not in by_name:
        raise UserError(f"{key}.name={chosen}: expected {joined(by_name, 'or')}.{did_you_mean(str(chosen), by_name)}")
    return by_name[chosen]


def from_dict(values: Mapping[str, Any], overrides: Sequence[str] = ()) -> Config:
    """Typed configuration from plain values, after all checks.

    Args:
      values: nested mappings, as in YAML; missing settings get their defaults.
      overrides: key=value texts that the user has set for this run.

    Raises:
      UserError: a setting does not exist, or a value is not allowed.
    """
    load_plugins(plugins_of(values))
    given = {text.lstrip("+").split("=", 1)[0] for text in overrides}
    config: Config = section_of(Config, renamed(values, given), "", given)
    config.check()
    paths = tuple(str(Path(name).resolve()) if name.endswith(".py") else name for name in config.plugins)
    return dataclasses.replace(config, plugins=paths)  # because a run may be opened from another folder


def plugins_of(values: Mapping[str, Any]) -> list[str]:
    """Names of the plugins in plain values, with ~ expanded."""
    given = values.get("plugins")
    return [os.path.expanduser(each) for each in given if isinstance(each, str)] if isinstance(given, list | tuple) else []


class Unloaded:
    """Section of a variant that only a plugin has, which was not run: its stored settings; all else raises UserError."""

    def __init__(self, key: str, values: Any):
        self._key, self._values = key, dict(values) if isinstance(values, Mapping) else {"name": values}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in self._values:
            raise UserError(f"{self._key}={self._values.get('name')}: is a model of a plugin, which is not run; trust=true runs it.")
        return self._values[name]


def without_plugins(values: Mapping[str, Any]) -> Config:
    """Typed configuration from plain values, like `from_dict`, without running the plugins that they name."""
    load_plugins([])
    known = renamed(values, notice=False)
    missing: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(Config).items():
        options, given = variants(hint), known.get(name)
        if not options or not issubclass(options[0], Variant) or given is None:
            continue
        chosen = given.get("name") if isinstance(given, Mapping) else given
        if chosen not in {choice for each in options for choice in choices_of(each)}:
            missing[name] = Unloaded(name, known.pop(name))
    config: Config = section_of(Config, known, "", ())
    if not missing:
        config.check()
    return dataclasses.replace(config, **missing)


def unloaded(config: Config) -> list[str]:
    """SECTION=NAME of each section of `without_plugins` that is the model of a plugin."""
    return [f"{key}={each.name}" for key, each in vars(config).items() if isinstance(each, Unloaded)]


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain values of a configuration, the inverse of `from_dict`."""
    values: dict[str, Any] = plain(dataclasses.asdict(config))
    return values


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping with dotted keys."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        result.update(flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value})
    return result


def completed(saved: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Saved settings of a run, completed with `defaults` for settings that its version of rlsnet did not have."""
    result = dict(saved)
    for key, value in defaults.items():
        if key not in result:
            result[key] = value
        elif isinstance(value, dict) and isinstance(result[key], dict) and value.get("name") == result[key].get("name"):
            result[key] = completed(result[key], value)
    return result


def with_defaults(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Saved settings of a run, completed with the defaults of the schema."""
    return completed(saved, defaults(chosen_variants(saved)))
