"""Plugins: import of modules that register models of the user, and checks of their variants."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from rlsnet.config.schema import NeuronConfig, Variant
from rlsnet.config.settings import choices_of
from rlsnet.errors import UserError

PLUGINS = "rlsnet.plugins"  # the entry point group of packages that register models

_loaded: dict[str, Any] = {}


def load_plugins(names: Sequence[str]) -> None:
    """Imports the modules that register models: those of installed packages with an entry point, and those of the setting `plugins`.

    Args:
      names: modules, which may lie in the working directory, or paths of .py files.

    Raises:
      UserError: a module cannot be imported, or a variant is not a dataclass like those of the schema.
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
    """Raises UserError unless a variant, perhaps of a plugin, is a frozen dataclass of described fields."""
    where = f"plugins: {cls.__module__.removeprefix('rlsnet_plugin_')}.{cls.__name__}"
    if "__dataclass_params__" not in vars(cls) or not cls.__dataclass_params__.frozen:
        raise UserError(f"{where}: expected a dataclass with frozen=True.")
    fields = dataclasses.fields(cls)
    if not all(field.metadata.get("help") for field in fields) or not choices_of(cls):
        raise UserError(
            f'{where}: expected every field made with config.key("its meaning"), and name with config.variant("its meaning", "its name").'
        )
    has = {*dir(cls), *(field.name for field in fields)}
    if issubclass(cls, NeuronConfig) and not {"threshold", "reset"} <= has:
        raise UserError(f"{where}: expected a threshold and a reset, as fields or properties; trials start from between them.")
