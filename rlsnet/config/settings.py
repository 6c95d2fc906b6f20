"""Inspection of the schema: variants of a section, dotted keys, defaults, descriptions, similar names."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from rlsnet.config.schema import Config, Variant
from rlsnet.errors import did_you_mean, joined


def variants(annotation: Any) -> list[Any]:
    """Dataclasses that an annotation allows: one, or the variants of a section; none for a plain value."""
    if isinstance(annotation, type) and issubclass(annotation, Variant):
        own = [annotation] if any(f.name == "name" for f in getattr(annotation, "__dataclass_fields__", {}).values()) else []
        return list(dict.fromkeys([*own, *(v for cls in annotation.__subclasses__() for v in variants(cls))]))
    return [annotation] if dataclasses.is_dataclass(annotation) else []


def choices_of(cls: type) -> tuple[str, ...]:
    """Names of a variant."""
    return next(f.metadata.get("choices", ()) for f in dataclasses.fields(cls) if f.name == "name")


def keys(cls: type = Config, prefix: str = "") -> Iterator[str]:
    """All keys of the schema in dotted form, with the keys of all variants."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        yield prefix + field.name
        for variant in variants(hints[field.name]):
            yield from keys(variant, f"{prefix}{field.name}.")


@functools.cache
def keys_with(rule: str) -> frozenset[str]:
    """Dotted keys of the shipped settings whose field has a rule such as `path` or `items`."""

    def found(cls: type, prefix: str) -> Iterator[str]:
        hints = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            if field.metadata.get(rule):
                yield prefix + field.name
            for each in variants(hints[field.name]):
                yield from found(each, f"{prefix}{field.name}.")

    return frozenset(found(Config, ""))


def suggest(key: str) -> str:
    """' Did you mean ...?' for a text that is not a key of the schema, or nothing."""
    known = ["config", *dict.fromkeys(keys())]
    if key in known:
        return f" It belongs to another {key.split('.')[0]}=NAME, see rlsnet train --help."
    tails = {k.rsplit(".", 1)[-1]: k for k in known}
    if key in tails:
        same = [k for k in known if k.endswith(f".{key}")]
        return f" Did you mean {joined(same[:3], 'or')}?"
    if similar := did_you_mean(key, known, cutoff=0.75):
        return similar
    tail = did_you_mean(key.rsplit(".", 1)[-1], tails, cutoff=0.7).removeprefix(" Did you mean ").removesuffix("?")
    return f" Did you mean {tails[tail]}?" if tail else ""


def plain(value: Any) -> Any:
    """A value with tuples as lists, as YAML has them."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, tuple) else value


def variant_class(annotation: Any, name: str) -> Any:
    """The variant of a section that `name` chooses, or None."""
    return next((each for each in variants(annotation) if name in choices_of(each)), None)


def default_variants() -> dict[str, str]:
    """Sections with variants, and the default variant of each."""
    hints = typing.get_type_hints(Config)
    sections = [
        field for field in dataclasses.fields(Config) if isinstance(hints[field.name], type) and issubclass(hints[field.name], Variant)
    ]
    return {field.name: field.default.name for field in sections}


def defaults_of(cls: Any) -> dict[str, Any]:
    """Plain default values of a section, its name first; settings without a default are left out."""
    fields = sorted(dataclasses.fields(cls), key=lambda field: field.name != "name")
    return {field.name: plain(field.default) for field in fields if field.default is not dataclasses.MISSING}


def defaults(chosen: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Nested plain default values of all settings.

    Args:
      chosen: variants by section that are not the default; a section with an unknown variant is left out.
    """
    hints, names = typing.get_type_hints(Config), default_variants() | dict(chosen or {})
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Config):
        if not variants(hints[field.name]):
            values[field.name] = plain(field.default)
        elif field.name not in names:
            values[field.name] = defaults_of(hints[field.name])
        elif (cls := variant_class(hints[field.name], names[field.name])) is not None:
            values[field.name] = defaults_of(cls)
    return values


def chosen_variants(values: Mapping[str, Any]) -> dict[str, str]:
    """The variant of each section that nested settings choose."""
    return {name: str(section["name"]) for name, section in values.items() if isinstance(section, Mapping) and "name" in section}


def shown(value: Any) -> str:
    """A default value as text for the help."""
    value = list(value) if isinstance(value, tuple) else value
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def described(cls: type, values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(key, value, meaning with choices and unit) of every setting.

    Args:
      cls: dataclass of the settings.
      values: nested settings; for a section with variants, the variant in these settings is described.
      prefix: text before the keys.
    """
    hints = typing.get_type_hints(cls)
    for field in sorted(dataclasses.fields(cls), key=lambda field: field.name != "name"):  # the name first
        key, value, options = prefix + field.name, values.get(field.name, ""), variants(hints[field.name])
        if options:
            own = value if isinstance(value, Mapping) else {}
            chosen = variant_class(hints[field.name], str(own.get("name"))) if issubclass(options[0], Variant) else None
            yield from described(chosen or options[0], own, f"{key}.")
        else:
            unit = f" [{field.metadata['unit']}]" if field.metadata["unit"] else ""
            choices = f" ({', '.join(map(str, field.metadata['choices']))})" if "choices" in field.metadata else ""
            yield key, shown(value), field.metadata["help"] + choices + unit
