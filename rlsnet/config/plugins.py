"""Plugins: import of modules that register models of the user, checks of their variants, and which ones the user trusts.

A run folder names plugins, and so code, which may be somebody else's. It runs only if the user has said so: by the setting `plugins` or
trust=true of a command, once for a file. What the user trusts is in a file of his own, which no run folder can change.

With a plugin he trusts the Python files that it may import from beside it: all of its package, and those in the folder of the package or
of the file. What it imports from elsewhere, as from installed packages, is his installation, and is not checked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import platformdirs

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


def trust(names: Sequence[str]) -> None:
    """Notes that the user trusts plugins, for later commands; without a folder for such notes, only this command runs them."""
    path = _list_of_trusted()
    found = {str(file): _digest(file) for name in names for files in _files(name) for file in files}
    if path is None or not found:
        return
    from rlsnet.io import atomic

    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with atomic.replacing(path) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_text(json.dumps({**_trusted(), **found}, indent=1))


def untrusted(names: Sequence[str]) -> list[str]:
    """Those of some plugins that the user has not trusted, or that have changed since and that others may have changed."""
    if not names:
        return []
    from rlsnet.io import atomic

    known = _trusted()

    def is_trusted(name: str) -> bool:
        own, beside = _files(name)
        return (
            bool(own)
            and all(str(file) in known for file in own)
            and all(atomic.is_private(file) or known.get(str(file)) == _digest(file) for file in (*own, *beside))
        )

    return [name for name in names if not is_trusted(name)]


def _list_of_trusted() -> Path | None:
    """File with the digests of trusted plugins by path; None where the user has no folder for it."""
    path = Path(platformdirs.user_config_path("rlsnet", appauthor=False)) / "trusted_plugins.json"
    return path if path.is_absolute() else None  # without a home folder it is not


def _trusted() -> dict[str, Any]:
    """Digests of the plugins that the user trusts, by path; {} if others could have written them."""
    from rlsnet.io import atomic, outputs

    path = _list_of_trusted()
    return outputs.read_json(path) if path is not None and atomic.is_private(path) else {}


def _files(name: str) -> tuple[list[Path], list[Path]]:
    """Files of a plugin, which is not imported: those that its import runs, none if it is not found, and those that these may import."""
    if name.endswith(".py"):
        file = Path(name).resolve()
        return [file], sorted(file.parent.glob("*.py"))
    top, *below = name.split(".")
    sys.path.append(os.getcwd())
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return [], []
    finally:
        sys.path.remove(os.getcwd())
    if spec is None:
        return [], []
    folders = [Path(folder).resolve() for folder in spec.submodule_search_locations or ()]
    if not folders:
        return _files(spec.origin) if spec.origin is not None and spec.origin.endswith(".py") else ([], [])
    for folder in folders:
        inits = [folder.joinpath(*below[:depth], "__init__.py") for depth in range(len(below) + 1)]
        module = folder.joinpath(*below).with_suffix(".py")
        if inits[-1].is_file() or (below and module.is_file()):
            own = [each for each in inits if each.is_file()] + ([] if inits[-1].is_file() else [module])
            return own, sorted({*folder.parent.glob("*.py"), *(each for folder in folders for each in folder.rglob("*.py"))})
    return [], []


def _digest(file: Path) -> str:
    """SHA-256 of a file; "" if it cannot be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""


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
