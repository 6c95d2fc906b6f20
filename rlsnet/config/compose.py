"""Composition of settings from key=value overrides: for the command line, the Python interface, sweeps, help and completion.

Hydra composes the files of configs/ and of --config-dir with the overrides. It is imported only for that: the variants of sections
and the experiments are listed and read here without it.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeVar

import yaml

from rlsnet.config.load import renamed_override
from rlsnet.config.quoting import SWEEP, hydra_list, hydra_value, in_quotes, unquoted
from rlsnet.config.settings import default_variants, keys_with, suggest
from rlsnet.errors import UserError, did_you_mean

Result = TypeVar("Result")

EXTRAS = {"joblib": "joblib", "submitit": "slurm"}  # launchers of sweeps, and the extra that installs each
ONE_PATH = ("resume", "run", "sweep", "test.checkpoint")  # single paths, in which a comma does not separate several values
HYDRA_PATHS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.launcher.submitit_folder")


NAME = re.compile(r"(?!(null|true|false|nan|inf)$)[a-z_/][\w./-]*", re.ASCII | re.IGNORECASE)  # of a variant, as Hydra reads it


def configs_dir() -> Path:
    """Folder of the shipped configurations: beside the package in a checkout, inside it in a wheel."""
    package = Path(str(resources.files("rlsnet")))
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def with_config_dir(arguments: Sequence[str]) -> list[str]:
    """The arguments with --config-dir FOLDER as one of them, and ~ expanded in it."""
    joined, rest = [], iter(arguments)
    for each in rest:
        flag, equals, folder = each.partition("=")
        if flag in ("--config-dir", "-cd"):
            each = f"--config-dir={os.path.expanduser(folder if equals else next(rest, ''))}"
        joined.append(each)
    return joined


def config_folders(arguments: Sequence[str]) -> list[Path]:
    """Folders of --config-dir in the arguments of a command line."""
    folders = [text.partition("=")[2] for text in with_config_dir(arguments) if text.startswith("--config-dir=")]
    return [Path(folder) for folder in folders if folder]


def variant_names(folders: Sequence[Path] = ()) -> dict[str, list[str]]:
    """Sections with the names of their variants, and `config` with the names of the experiments.

    Args:
      folders: folders of --config-dir.
    """
    found: dict[str, set[str]] = {}
    for path in (path for folder in (configs_dir(), *folders) for path in folder.glob("*/*.yaml")):
        found.setdefault(path.parent.name, set()).add(path.stem)
    return {section: sorted(names) for section, names in sorted(found.items()) if section not in ("hydra", "import")}


def variant_settings(section: str, name: str, folders: Sequence[Path] = ()) -> dict[str, Any]:
    """Settings in the YAML file of a variant or experiment; raises UserError if there is no such file."""
    file = next((path for folder in (*folders, configs_dir()) if (path := folder / section / f"{name}.yaml").exists()), None)
    if file is None:
        raise UserError(no_such(section, name, variant_names(folders)[section]))
    return yaml.safe_load(file.read_text()) or {}


def no_such(section: str, name: str, known: Sequence[str]) -> str:
    """The message about a variant or experiment that does not exist."""
    return f"{section}={name}: no such configuration; expected {', '.join(known)}.{did_you_mean(name, known, f'{section}=')}"


def experiments() -> Iterator[tuple[str, dict[str, str], dict[str, Any]]]:
    """(name, chosen variants, settings) of each shipped experiment."""
    for name in variant_names()["config"]:
        yield name, *experiment(name)


def experiment(name: str) -> tuple[dict[str, str], dict[str, Any]]:
    """(chosen variants, settings) of a shipped experiment, with those of the experiment that it builds on."""
    own = variant_settings("config", name)
    chosen: dict[str, str] = {}
    settings: dict[str, Any] = {}
    for entry in own.pop("defaults", []):
        if isinstance(entry, dict):
            chosen |= {key.removeprefix("override /"): variant for key, variant in entry.items()}
        elif entry != "_self_":
            also_chosen, given = experiment(entry)
            chosen, settings = chosen | also_chosen, _merged(settings, given)
    return chosen, _merged(settings, own)


def _merged(settings: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """Settings, by section or outside of one, with later ones over them."""
    return settings | {key: settings.get(key, {}) | values if isinstance(values, dict) else values for key, values in later.items()}


def builds_on_another(name: str) -> bool:
    """Whether a shipped experiment changes another one."""
    return any(isinstance(entry, str) and entry != "_self_" for entry in variant_settings("config", name).get("defaults", []))


def quoted(override: str, sweep: bool = False) -> str:
    """A key=value in Hydra's grammar: ~ expanded, and quotes around a path, a selection of neurons or a number with a unit if needed.

    The name of a variant that YAML reads as another type, such as null or 3, is in quotes too, for Hydra refuses other types.

    Args:
      override: the argument of the user.
      sweep: whether the command is a sweep, in which a comma separates several values.
    """
    key, equals, value = override.partition("=")
    plain = key.lstrip("+")
    if plain in keys_with("path") or plain in HYDRA_PATHS:
        if plain in keys_with("paths"):
            return f"{key}={hydra_list(value, sweep)}"
        return f"{key}={hydra_value(value, plain in (*ONE_PATH, *HYDRA_PATHS), sweep)}"
    if equals and plain.rpartition(".")[0] in keys_with("texts"):  # a name that the user chooses, which Hydra does not know
        return f"++{plain}={value if value == 'null' else in_quotes(unquoted(value))}"
    if value[:1] in ("'", '"') or "${" in value or SWEEP.match(value):
        return override
    if equals and ("/" in plain or plain.partition("@")[0] in (*default_variants(), "config")):
        names = value.split(",") if value[:1] not in ("[", "{") else [value]
        return f"{key}={','.join(each if NAME.fullmatch(each) else in_quotes(each) for each in names)}"
    if plain in keys_with("items"):
        odd = value[:1] != "[" and not re.fullmatch(r"[\w:.*-]*", value, re.ASCII)
        return f"{key}={in_quotes(value)}" if odd else override
    odd_number = re.fullmatch(r"[-+.\d][^'\"\[\]{}$]*", value) and re.search(r"[()^]|[^ -~]", value)
    return f"{key}={','.join(map(in_quotes, value.split(',')))}" if odd_number else override


def check_override(override: str) -> None:
    """Raises UserError for what Hydra ends in a traceback: a text without a key, or a number or null for the name of a variant."""
    key, equals, value = override.lstrip("+").partition("=")
    if equals and not key.strip("~@ "):
        raise UserError(f"{override}: expected key=value.")
    key = key.partition("@")[0]
    if key not in default_variants().keys() | {"config"}:
        return
    for name in value.split(","):
        try:
            found = yaml.safe_load(name)
        except yaml.YAMLError:
            continue
        if not isinstance(found, str) or re.fullmatch(r"[-+.\d][-+.\deE_]*|nan|inf", found):
            raise UserError(f"{key}={value}: expected a name; there are {', '.join(variant_names()[key])}.")


def for_hydra(overrides: Sequence[str], sweep: bool = False) -> list[str]:
    """Overrides of the user with renamed keys under their present names, in Hydra's grammar; `sweep` as in `quoted`."""
    for each in overrides:
        check_override(each)
    return [quoted(renamed_override(each), sweep) for each in overrides]


def version_base() -> dict[str, Any]:
    """Argument of Hydra 1.3 that selects the behaviour of version 1.3; later versions have none."""
    import hydra

    return {"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {}


def compose(overrides: Sequence[str], config_dir: str | PathLike[str] | None = None) -> dict[str, Any]:
    """Nested settings, composed by Hydra.

    Args:
      overrides: settings key=value and variants section=name, as on the command line.
      config_dir: folder with experiments and variants of the user, as --config-dir.

    Raises:
      UserError: a key or a variant does not exist, or a text cannot be read.
    """
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    if config_dir is not None and not Path(config_dir).is_dir():
        raise UserError(f"config_dir={fspath(config_dir)}: no such folder.")
    extra = [] if config_dir is None else [f"hydra.searchpath=[{in_quotes(f'file://{Path(config_dir).resolve()}')}]"]
    outer = GlobalHydra.instance().hydra  # state of a program that uses Hydra itself
    GlobalHydra.instance().clear()

    def composed(overrides: list[str]) -> Any:
        return OmegaConf.to_container(hydra.compose("config", [*overrides, *extra]), resolve=True)

    try:
        with one_line_errors(), hydra.initialize_config_dir(str(configs_dir()), **version_base()):
            values: dict[str, Any] = with_additions(composed, for_hydra(overrides))
            return values
    finally:
        GlobalHydra.instance().hydra = outer


def with_additions(compose: Callable[[list[str]], Result], overrides: list[str]) -> Result:
    """Result of compose(overrides); if the file of a variant does not list a key, the composition is repeated with the key added.

    Files of the user need not list every setting of a variant, so Hydra may not know the key of an override. The loader checks later
    whether the variant has the key.
    """
    from hydra.errors import HydraException

    while True:
        try:
            return compose(overrides)
        except HydraException as error:
            match = re.search(r"Could not override '((\w+)\.[^']+)'", str(error))
            if match is None or match[2] not in default_variants() or match[1] not in [each.partition("=")[0] for each in overrides]:
                raise
            overrides = [f"++{each}" if each.partition("=")[0] == match[1] else each for each in overrides]


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Context in which errors of Hydra, OmegaConf and YAML become a UserError of one line."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(one_line(error)) from error


def one_line(error: Exception) -> str:
    """Message of an error of Hydra as one line, in the words of rlsnet for common errors."""
    text = str(error)
    if (override := getattr(error, "override", None)) is not None:
        return f"{override}: cannot be read as key=value; expected quotes around a value with special characters, as KEY=\"'VALUE'\"."
    if "Ambiguous value for argument" in text:
        given = text.splitlines()[0].partition("'")[2].rpartition("'")[0].replace("'", "")
        return f"{given}: several values make a sweep, which needs sweep=FOLDER (or -m)."
    if match := re.search(r"Could not override '([^']+)'", text):
        key = match[1].split("@")[0]
        kind = "section" if "No match in the defaults list" in text else "key"
        return f"{key}: no such {kind}.{suggest(key)}"
    if match := re.search(r"Could not (?:find|load) 'hydra/launcher/((joblib|submitit)\w*)'", text):
        return f"hydra/launcher: {match[1]} is not installed; pip install 'rlsnet[{EXTRAS[match[2]]}]' installs it."
    if match := re.search(r"Could not find '([^']+)'", text):
        section, _, name = match[1].rpartition("/")
        options = getattr(error, "options", None)
        return no_such(section, name, options) if options else f"{match[1]}: no such configuration."
    if match := re.search(r"Key '([^']+)' is not in struct\s+full_key: (\S+)", text):
        return f"{match[2]}: no such key.{suggest(match[2])}"
    return " ".join(text.split()) if text else type(error).__name__
