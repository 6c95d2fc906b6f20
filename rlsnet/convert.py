"""Between nested plain values, as YAML holds them, and the typed configuration: types, units, ranges, names of mistakes."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import logging
import math
import os
import sys
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from rlsnet.config import LIMITS, Config, NeuronConfig, UserError, Variant, validate
from rlsnet.units import quantity

PLUGINS = "rlsnet.plugins"  # the entry point group of packages that register models

log = logging.getLogger(__name__)

_loaded: dict[str, Any] = {}


def load_plugins(names: Sequence[str]) -> None:
    """Imports what registers models: modules of installed packages with an entry point, and those that `plugins` lists.

    Args:
      names: modules, which may lie in the working directory, or paths of .py files.
    """
    if PLUGINS not in _loaded:
        _loaded[PLUGINS] = [point.load() for point in metadata.entry_points(group=PLUGINS)]
    for name in names:
        path = Path(name).resolve()
        known = str(path) if name.endswith(".py") else name
        if known in _loaded:
            continue
        try:
            if not name.endswith(".py"):
                sys.path.append(os.getcwd())
                try:
                    _loaded[known] = importlib.import_module(name)
                finally:
                    sys.path.remove(os.getcwd())
            else:
                spec = importlib.util.spec_from_file_location(f"rlsnet_plugin_{path.stem}", path)
                if spec is None or spec.loader is None or not path.exists():
                    raise ImportError("no such file")
                module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                _loaded[known] = module
        except Exception as error:
            raise UserError(f"plugins: {name} cannot be imported ({type(error).__name__}: {error}).") from error
    for cls in _variants_below(Variant):
        _check_variant(cls)


def _variants_below(cls: type) -> Iterator[Any]:
    """All subclasses that a user may choose, which have a `name`."""
    subclasses: list[Any] = cls.__subclasses__()
    for below in subclasses:
        own = vars(below)
        if (
            "name" in own.get("__dataclass_fields__", {})
            if "__dataclass_params__" in own
            else isinstance(own.get("name"), dataclasses.Field)
        ):
            yield below
        yield from _variants_below(below)


def _check_variant(cls: Any) -> None:
    """Whether a variant, perhaps of a plugin, is what the rest relies on; raises UserError."""
    where = f"plugins: {cls.__module__.removeprefix('rlsnet_plugin_')}.{cls.__name__}"
    if "__dataclass_params__" not in vars(cls) or not cls.__dataclass_params__.frozen:
        raise UserError(f"{where}: expected a dataclass with frozen=True.")
    fields = dataclasses.fields(cls)
    if not all(field.metadata.get("help") for field in fields) or not choices_of(cls):
        raise UserError(f'{where}: every field should be made with config.key("what it means"), and name with choices=("its name",).')
    has = {*dir(cls), *(field.name for field in fields)}
    if issubclass(cls, NeuronConfig) and not {"threshold", "reset"} <= has:
        raise UserError(f"{where}: expected a threshold and a reset, as fields or properties; trials start from between them.")


def variants(annotation: Any) -> list[Any]:
    """The dataclasses an annotation allows: one, or the alternatives of a section; none for a plain value."""
    if isinstance(annotation, type) and issubclass(annotation, Variant):
        own = [annotation] if any(f.name == "name" for f in getattr(annotation, "__dataclass_fields__", {}).values()) else []
        return list(dict.fromkeys([*own, *(v for cls in annotation.__subclasses__() for v in variants(cls))]))
    return [annotation] if dataclasses.is_dataclass(annotation) else []


def choices_of(cls: type) -> tuple[str, ...]:
    """The names under which a variant of a group is chosen."""
    return next(f.metadata.get("choices", ()) for f in dataclasses.fields(cls) if f.name == "name")


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
    if key in known:
        return f" It belongs to another {key.split('.')[0]}=NAME, see rlsnet train --help."
    tails = {k.rsplit(".", 1)[-1]: k for k in known}
    close = difflib.get_close_matches(key, known, 1, 0.75)
    if not close:
        close = [tails[t] for t in difflib.get_close_matches(key.rsplit(".", 1)[-1], list(tails), 1, 0.7)]
    return f" Did you mean {close[0]}?" if close else ""


def _value(key: str, value: Any, annotation: Any, rule: Mapping[str, Any]) -> Any:
    """`value`, plain or a list, as the type of its field, within its rule, or a UserError that names the key."""
    options = [annotation] if typing.get_origin(annotation) is tuple else list(typing.get_args(annotation)) or [annotation]
    if value is None and type(None) in options:
        return None
    if any(typing.get_origin(o) is dict for o in options):
        return _texts(key, value)
    items = next((typing.get_args(o) for o in options if typing.get_origin(o) is tuple), None)
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
    """A section of texts under names of the user's choice, or a UserError."""
    if not isinstance(value, Mapping) or not all(isinstance(each, str) for each in value.values()):
        raise UserError(f"{key}={value}: expected texts with names, such as {key}.left=TEXT {key}.right=TEXT.")
    return {str(name): each for name, each in value.items()}


def _scalar(key: str, value: Any, options: Sequence[Any], rule: Mapping[str, Any]) -> Any:
    """`value` as one of the types `options`, within its rule, or a UserError that names the key."""
    kind = options[0]
    unit = f" {rule['unit']}" if rule["unit"] else ""
    name = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[kind]
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
        raise UserError(f"{key}={'null' if value is None else value}: expected {name}{' in' + unit if unit else ''}.")
    if kind is float and not math.isfinite(value):
        raise UserError(f"{key}={value}: expected a finite number{' in' + unit if unit else ''}.")
    if "choices" in rule and value not in rule["choices"]:
        raise UserError(f"{key}={value}: expected {' or '.join(map(str, rule['choices']))}.")
    for word, broken, words in LIMITS:
        if word in rule and broken(value, rule[word]):
            raise UserError(f"{key}={value}: expected {words} {rule[word]}{unit}.")
    return value


def _section(cls: type, values: Any, prefix: str, asked: Collection[str], strays: Collection[str] = ()) -> Any:
    """A dataclass from a mapping: types converted, unknown and missing keys named.

    Args:
      cls: the dataclass.
      values: the mapping.
      prefix: of its keys.
      asked: keys that the user has given for this very run.
      strays: keys of other variants of the section, left out unless asked for: an experiment may be made for another variant.
    """
    if not isinstance(values, Mapping):
        names = ", ".join(f.name for f in dataclasses.fields(cls))
        raise UserError(f"{prefix[:-1]}={'null' if values is None else values}: expected a section with keys {names}.")
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls)}
    for name in values:
        if name == "config" and not prefix:
            raise UserError("config: no such key; should the file config/NAME.yaml not start with '# @package _global_'?")
        if name not in known and name in strays and prefix + name not in asked:
            log.info("%s%s does not count with %sname=%s.", prefix, name, prefix, values["name"])
        elif name in strays and name not in known:
            raise UserError(f"{prefix}{name}: does not go with {prefix}name={values['name']}.")
        elif name not in known:
            raise UserError(f"{prefix}{name}: no such key.{suggest(prefix + str(name))}")
    arguments = {}
    for name, field in known.items():
        if values.get(name) == "???":
            raise UserError(f"{prefix}{name}: has to be given; it is {field.metadata['help']}.")
        if name not in values and field.default is not dataclasses.MISSING:
            continue
        if name not in values:
            raise UserError(f"{prefix}{name}: missing; it is {field.metadata.get('help', 'a section')}.")
        options = variants(hints[name])
        if not options:
            arguments[name] = _value(prefix + name, values[name], hints[name], field.metadata)
            continue
        variant = options[0]
        if issubclass(variant, Variant):
            named = {choice: v for v in options for choice in choices_of(v)}
            chosen = values[name].get("name") if isinstance(values[name], Mapping) else values[name]
            if chosen not in named:
                raise UserError(f"{prefix}{name}.name={chosen}: expected {' or '.join(named)}.")
            variant = named[chosen]
        others = {field.name for other in options for field in dataclasses.fields(other)}
        arguments[name] = _section(variant, values[name], f"{prefix}{name}.", asked, others)
    return cls(**arguments)


def from_dict(values: Mapping[str, Any], overrides: Sequence[str] = ()) -> Config:
    """The typed configuration from nested mappings (what YAML holds), checked by `validate`; `overrides`: the user's key=value texts."""
    plugins = values.get("plugins")
    load_plugins([name for name in plugins if isinstance(name, str)] if isinstance(plugins, list | tuple) else [])
    config = _section(Config, values, "", {text.lstrip("+").split("=", 1)[0] for text in overrides})
    validate(config)
    paths = tuple(str(Path(name).resolve()) if name.endswith(".py") else name for name in config.plugins)
    return dataclasses.replace(config, plugins=paths)  # a run is found again from other folders


def plain_arguments(cls: Any, verb: str, arguments: Sequence[str], base: Mapping[str, Any] | None = None) -> tuple[list[str], Any]:
    """(paths, settings) out of the arguments of a verb that Hydra has no part in; raises UserError.

    Args:
      cls: the dataclass of the settings, each with a default.
      verb: for messages.
      arguments: paths, and key=value or section.key=value with values in YAML; also as --key=value or --key value.
      base: settings that those on the command line are laid over.
    """
    paths: list[str] = []
    values: dict[str, Any] = {name: dict(each) if isinstance(each, Mapping) else each for name, each in (base or {}).items()}
    for argument in _joined_flags(cls, arguments):
        name, equals, text = argument.partition("=")
        if not equals or os.path.exists(argument):  # a Path of a long filter would raise
            if argument.startswith("-"):
                raise UserError(f"{verb} {argument}: no such option; expected paths and key=value, see rlsnet {verb} --help.")
            paths.append(argument)
            continue
        section, dot, below = name.partition(".")
        if section not in {field.name for field in dataclasses.fields(cls)}:
            close = difflib.get_close_matches(section, [field.name for field in dataclasses.fields(cls)], 1)
            raise UserError(f"{name}: no such setting of {verb}.{f' Did you mean {close[0]}?' if close else ''}")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        if dot:
            values[section] = {**(values.get(section) or {}), below: text}
        else:
            values[section] = value
    return paths, _section(cls, values, "", set(values))


def in_quotes(text: str) -> str:
    """A text as Hydra's grammar quotes it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


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


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain values, the inverse of `from_dict`."""

    def plain(value: Any) -> Any:  # tuples as lists
        if isinstance(value, dict):
            return {name: plain(each) for name, each in value.items()}
        return [plain(each) for each in value] if isinstance(value, tuple) else value

    return plain(dataclasses.asdict(config))


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        result.update(flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value})
    return result


def completed(saved: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Saved settings with those that a run of an older version does not know at their defaults."""
    result = dict(saved)
    for key, value in defaults.items():
        if key not in result:
            result[key] = value
        elif isinstance(value, dict) and isinstance(result[key], dict) and value.get("name") == result[key].get("name"):
            result[key] = completed(result[key], value)
    return result
