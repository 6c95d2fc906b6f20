"""Completion of the command line in a shell: the script for the shell, and the candidates for the last word of a line.

The script runs `rlsnet` with the line up to the cursor in an environment variable, and offers the lines that it prints. Hydra and
JAX are not needed. The code is our own, not argcomplete or shtab: those complete an argparse parser, but here keys of the schema,
variants of sections, lists of values and folders of the user are completed.
"""

from __future__ import annotations

import dataclasses
import importlib
import shlex
import typing
from collections.abc import Iterator, Sequence
from glob import escape
from pathlib import Path
from typing import Any

from rlsnet.cli.command_table import COMMANDS, DRY_RUN, PLAIN, SECTIONS, WITHOUT_RUNS, is_shown
from rlsnet.config.arguments import NoOptions
from rlsnet.config.compose import config_folders, configs_dir, variant_names
from rlsnet.config.schema import Config
from rlsnet.config.settings import choices_of, variants
from rlsnet.errors import UserError
from rlsnet.runs.catalogue import LAST

VARIABLE = "RLSNET_COMPLETE"
FLAGS = {"--help": (), DRY_RUN: (), "-m": (), "--multirun": (), "--cfg": ("job", "hydra", "all"), "--config-dir": None, "--hydra-help": ()}
HYDRA = ("hydra.run.dir=", "hydra.sweep.dir=", "hydra/launcher=")

USAGE = """SHELL   bash, zsh or fish

To have it in every shell, put one of these into its start-up file:
  eval "$(rlsnet completion bash)"         ~/.bashrc
  eval "$(rlsnet completion zsh)"          ~/.zshrc, after compinit
  rlsnet completion fish | source          ~/.config/fish/config.fish"""

# bash completes only the text after the last = or : of a word
BASH = r"""_rlsnet() {
    local line=${COMP_LINE:0:COMP_POINT} word=${COMP_LINE:0:COMP_POINT} IFS=$'\n'
    word=${word##* }
    COMPREPLY=($(@VARIABLE@=$line "${COMP_WORDS[0]}" 2>/dev/null))
    if [[ $word == *[=:]* && $COMP_WORDBREAKS == *=* ]]; then
        local head=${word%"${word##*[=:]}"}
        COMPREPLY=("${COMPREPLY[@]#"$head"}")
    fi
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=./] ]]; then compopt -o nospace; fi
}
complete -o default -F _rlsnet rlsnet"""

ZSH = r"""_rlsnet() {
    local -a found
    found=(${(f)"$(@VARIABLE@="${(j: :)words[1,CURRENT-1]} $PREFIX" ${words[1]} 2>/dev/null)"})
    local -a unfinished=(${(M)found:#*[=./]}) other=(${found:#*[=./]})
    compadd -Q -S '' -- $unfinished
    compadd -Q -- $other
    (( $#found )) || _files
}
compdef _rlsnet rlsnet"""

FISH = r"""complete -c rlsnet -f -a '(@VARIABLE@=(commandline -cp) rlsnet 2>/dev/null)'"""

SCRIPTS = {shell: text.replace("@VARIABLE@", VARIABLE) for shell, text in (("bash", BASH), ("zsh", ZSH), ("fish", FISH))}


Options = NoOptions


def main(paths: list[str], options: NoOptions) -> None:
    """Runs `rlsnet completion SHELL`."""
    if len(paths) != 1 or paths[0] not in SCRIPTS:
        raise UserError(f"{' '.join(['completion', *paths])}: expected one shell of {', '.join(SCRIPTS)}.")
    print(SCRIPTS[paths[0]])


def candidates(line: str) -> list[str]:
    """Possible continuations of the last word of a command line.

    Args:
      line: the line up to the cursor, with the name of the program.
    """
    words = _split(line)
    before, word = words[1:-1], words[-1]
    if not before:
        found = [*COMMANDS, "--help", "--version"]
    elif before[-1] in FLAGS and FLAGS[before[-1]] != ():
        found = list(FLAGS[before[-1]] or _paths(word))
    elif word.startswith("-"):
        found = list(FLAGS)
    elif before[0] == "completion":
        found = list(SCRIPTS)
    elif before[0] in PLAIN:
        found = [*_things(word, before), *_paths(word)] or (_plain(PLAIN[before[0]], word) if word else [])
    elif before[0] in COMMANDS:
        found = _values(word, before) if "=" in word else [*_things(word, before), *_keys(word, before)]
    else:
        found = []
    return [each for each in found if each.startswith(word)]


def _split(line: str) -> list[str]:
    """Words of a line; the last one may be incomplete or empty."""
    for closing in ("", "'", '"'):
        try:
            words = shlex.split(line + closing)
        except ValueError:  # a quote is open
            continue
        return words if words and not (line[-1:].isspace() and not closing) else [*words, ""]
    return ["", ""]


def _paths(start: str) -> list[str]:
    """Paths that begin with a text; those of folders end in a slash."""
    head, _, tail = start.rpartition("/")
    at = Path(head + "/") if "/" in start else Path()
    found = sorted(at.glob(escape(tail) + "*")) if at.is_dir() else []
    shown = (path for path in found if tail.startswith(".") or not path.name.startswith("."))
    prefix = start[: len(start) - len(tail)]
    return [f"{prefix}{path.name}{'/' if path.is_dir() else ''}" for path in shown]


def _things(word: str, before: Sequence[str]) -> list[str]:
    """Experiments, folders and `last` that a command may work on and that begin with a word, where none of them is on the line yet."""
    command = before[0]
    if command in WITHOUT_RUNS or any("=" not in each and not each.startswith("-") for each in before[1:]):
        return []
    names = variant_names(config_folders(before))["config"] if command in ("train", "simulate") else []
    runs = [LAST, *(path for path in _paths(word) if path.endswith("/"))] if command in ("train", "test", "watch") else [LAST]
    return [each for each in [*names, *(runs if command != "simulate" else [])] if each.startswith(word)]


def _plain(module: str, word: str) -> list[str]:
    """Settings of a command without Hydra, and their values."""
    rules = {field.name: field for field in dataclasses.fields(importlib.import_module(module).Options)}
    name, equals, value = word.partition("=")
    if not equals:
        return [f"{key}=" for key in rules]
    choices = _choices(rules[name].type, rules[name].metadata) if name in rules else ()
    return [f"{name}={each}" for each in choices or _paths(value)]


def _variants_by_section(before: Sequence[str]) -> dict[str, list[str]]:
    """Sections with the names of their variants, also those of --config-dir, and Hydra's launchers."""
    launchers = sorted(path.stem for path in (configs_dir() / "hydra" / "launcher").glob("*.yaml"))
    return {**variant_names(config_folders(before)), "hydra/launcher": launchers}


def _choices(annotation: Any, rule: Any) -> tuple[str, ...]:
    """Allowed values of a key, if it has a list of them."""
    return tuple(map(str, rule["choices"])) if "choices" in rule else ("true", "false") if annotation in (bool, "bool") else ()


def _rules(cls: type, before: Sequence[str], prefix: str = "") -> Iterator[tuple[str, tuple[str, ...]]]:
    """(key, allowed values) of the settings; of a section, those of the variant on the line, or of all variants."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        options = variants(hints[field.name])
        if not options and not (prefix and field.name == "name"):  # the name of a variant is set by section=NAME
            yield prefix + field.name, _choices(hints[field.name], field.metadata)
        names = {word.partition("=")[2] for word in before if word.startswith(f"{field.name}=")}
        chosen = [each for each in options if "name" in each.__dataclass_fields__ and names & set(choices_of(each))]
        for each in chosen or options:
            yield from _rules(each, before, f"{prefix}{field.name}.")


def _keys(word: str, before: Sequence[str]) -> list[str]:
    """Keys that begin with a text; up to the first dot, names of sections."""
    command = before[0]
    keys = [f"{key}=" for key, _ in _rules(Config, before) if is_shown(command, key)]
    names = [f"{section}=" for section in _variants_by_section(before) if is_shown(command, section)] if SECTIONS[command] is None else []
    every = [key for key in dict.fromkeys([*names, *keys, *HYDRA]) if key.startswith(word)]
    short = [key if "." not in key[len(word) :] else word + key[len(word) :].split(".")[0] + "." for key in every]
    return list(dict.fromkeys(short))


def _values(word: str, before: Sequence[str]) -> list[str]:
    """Completions key=value of a word; of several values with commas between them, the last one is completed."""
    key, _, value = word.partition("=")
    names, rules = _variants_by_section(before), dict(_rules(Config, before))
    choices = names.get(key) or rules.get(key)
    if not choices:
        return [f"{key}={path}" for path in _paths(value)]
    head = word[: len(word) - len(value.rpartition(",")[2])]
    return [f"{head}{choice}" for choice in choices]
