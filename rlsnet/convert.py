"""Between nested plain values, as YAML holds them, and the typed configuration: types, units, ranges, names of mistakes."""

from __future__ import annotations

import dataclasses
import difflib
import math
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from rlsnet.config import Config, UserError, validate
from rlsnet.units import quantity


def variants(annotation: Any) -> list[Any]:
    """The dataclasses an annotation allows: one, or those of a union."""
    options = typing.get_args(annotation) or (annotation,)
    return [o for o in options if dataclasses.is_dataclass(o)]


def _choices(cls: type) -> tuple[str, ...]:
    """The names under which a variant of a group is chosen."""
    return next(f.metadata["choices"] for f in dataclasses.fields(cls) if f.name == "name")


def keys(cls: type = Config, prefix: str = "") -> Iterator[str]:
    """Every key of the schema in dotted form, the variants of a group included."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        yield prefix + field.name
        for variant in variants(hints[field.name]):
            yield from keys(variant, f"{prefix}{field.name}.")


def suggest(key: str) -> str:
    """' Did you mean ...?' for a key that is not one, or nothing."""
    known = list(dict.fromkeys(keys()))
    tails = {k.rsplit(".", 1)[-1]: k for k in known}
    close = difflib.get_close_matches(key, known, 1, 0.75)
    if not close:
        close = [tails[t] for t in difflib.get_close_matches(key.rsplit(".", 1)[-1], list(tails), 1, 0.7)]
    return f" Did you mean {close[0]}?" if close else ""


def _scalar(key: str, value: Any, annotation: Any, rule: Mapping[str, Any]) -> Any:
    """`value` as the type of its field, within its rule, or a UserError that names the key."""
    options = typing.get_args(annotation) or (annotation,)
    kind = next(o for o in options if o is not type(None))
    unit = f" {rule['unit']}" if rule["unit"] else ""
    name = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[kind]
    if value is None and type(None) in options:
        return None
    if kind is str and isinstance(value, list) and "items" in rule:
        value = ",".join(map(str, value))
    if kind is float and isinstance(value, str):
        value = quantity(key, value, rule["unit"])
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if kind is str and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"{key}={value}: should be {name}{' in' + unit if unit else ''}.")
    if kind is float and not math.isfinite(value):
        raise UserError(f"{key}={value}: should be a finite number{' in' + unit if unit else ''}.")
    if "choices" in rule and value not in rule["choices"]:
        raise UserError(f"{key}={value}: should be {' or '.join(map(str, rule['choices']))}.")
    if "least" in rule and value < rule["least"]:
        raise UserError(f"{key}={value}: should be at least {rule['least']}{unit}.")
    if "above" in rule and value <= rule["above"]:
        raise UserError(f"{key}={value}: should be above {rule['above']}{unit}.")
    if "most" in rule and value > rule["most"]:
        raise UserError(f"{key}={value}: should be at most {rule['most']}{unit}.")
    return value


def _section(cls: type, values: Any, prefix: str) -> Any:
    """A dataclass from a mapping: types converted, unknown and missing keys named."""
    if not isinstance(values, Mapping):
        names = ", ".join(f.name for f in dataclasses.fields(cls))
        raise UserError(f"{prefix[:-1]}={'null' if values is None else values}: should be a section with keys {names}.")
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls)}
    for name in values:
        if name == "config" and not prefix:
            raise UserError("config: no such key; should the file config/NAME.yaml not start with '# @package _global_'?")
        if name not in known:
            raise UserError(f"{prefix}{name}: no such key.{suggest(prefix + str(name))}")
    arguments = {}
    for name, field in known.items():
        if name not in values:
            raise UserError(f"{prefix}{name}: missing; it is {field.metadata.get('help', 'a section')}.")
        options = variants(hints[name])
        if not options:
            arguments[name] = _scalar(prefix + name, values[name], hints[name], field.metadata)
            continue
        variant = options[0]
        if len(options) > 1:
            named = {choice: v for v in options for choice in _choices(v)}
            chosen = values[name].get("name") if isinstance(values[name], Mapping) else values[name]
            if chosen not in named:
                raise UserError(f"{prefix}{name}.name={chosen}: should be {' or '.join(named)}.")
            variant = named[chosen]
        arguments[name] = _section(variant, values[name], f"{prefix}{name}.")
    return cls(**arguments)


def from_dict(values: Mapping[str, Any]) -> Config:
    """The typed configuration from nested mappings (what YAML holds), checked by `validate`."""
    config = _section(Config, values, "")
    validate(config)
    return config


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain values, the inverse of `from_dict`."""
    return dataclasses.asdict(config)


def completed(saved: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Saved settings with those that a run of an older version does not know at their defaults."""
    result = dict(saved)
    for key, value in defaults.items():
        if key not in result:
            result[key] = value
        elif isinstance(value, dict) and isinstance(result[key], dict) and value.get("name") == result[key].get("name"):
            result[key] = completed(result[key], value)
    return result
