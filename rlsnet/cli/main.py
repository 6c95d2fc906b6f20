"""Entry point of the command line, `rlsnet COMMAND [key=value ...]`.

JAX and Hydra are imported only if a command needs them, so that help and completion start in a fraction of a second. The parser of
the commands without Hydra is our own, not typer or tyro: all commands share one syntax, paths and key=value with values in YAML and
units, and one form of error messages.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys

from rlsnet.cli import completion, things
from rlsnet.cli.command_table import COMMANDS, DRY_RUN, PLAIN, WITHOUT_RUNS
from rlsnet.cli.console import lasting_output, lost_output
from rlsnet.cli.help import help_text, overview, plain_help_text
from rlsnet.config.arguments import plain_arguments
from rlsnet.errors import UserError, did_you_mean, os_error
from rlsnet.io.terminal import say


def main() -> None:
    """Runs the command of the command line; the exit status is 0, or above 0 after one line that describes the mistake."""
    if completion.VARIABLE in os.environ:
        print("\n".join(completion.candidates(os.environ[completion.VARIABLE])))
        return
    with lasting_output():
        status = _status(sys.argv[1:])
        if (lost := lost_output()) is not None:
            text = f"the standard output could not be written ({lost.strerror}); files that the command makes are not affected."
            status = max(status, print_error(text))
    sys.exit(status)


def _status(arguments: list[str]) -> int:
    """Exit status of the command in the arguments, whose mistakes are printed."""
    try:
        return dispatch(arguments)
    except UserError as error:
        return print_error(str(error))
    except KeyboardInterrupt:
        print_error("interrupted.")
        return 130
    except MemoryError:
        return print_error("out of memory; of a run, the memory plan in rlsnet.log lists what was needed.")
    except OSError as error:
        return print_error(os_error(error))


def print_error(message: str) -> int:
    """Prints an error on stderr, as one line where that is no terminal; returns the exit status."""
    say(f"rlsnet: error: {' '.join(message.splitlines())}", sys.stderr)
    return 1


def dispatch(arguments: list[str]) -> int:
    """Runs the command in the arguments; returns the exit status."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    command, rest = arguments[0], arguments[1:]
    if command == "--version":
        from importlib.metadata import version

        print(f"rlsnet {version('rlsnet')}")
        return 0
    if command not in COMMANDS:
        raise UserError(f"{command}: no such command; expected {', '.join(COMMANDS)}.{did_you_mean(command, COMMANDS)}")
    wants_help = "-h" in rest or "--help" in rest
    if wants_help:
        print(plain_help_text(command, importlib.import_module(PLAIN[command])) if command in PLAIN else help_text(command, rest))
        return 0
    if command in PLAIN:
        _run_plain(command, rest)
        return 0
    from rlsnet.runs.progress import working

    with working("Loading JAX and Hydra"):
        from rlsnet.cli.hydra_app import run_command

        if "--cfg" not in rest:
            importlib.import_module("rlsnet.cli.job")  # which takes longest
    return run_command(command, rest)


def _run_plain(command: str, arguments: list[str]) -> None:
    """Runs a command without Hydra; `last` among its paths is the newest run."""
    module = importlib.import_module(PLAIN[command])
    is_dry = DRY_RUN in arguments and hasattr(module, "dry_run")
    arguments = [text for text in arguments if not (is_dry and text == DRY_RUN)]
    paths, options = plain_arguments(module.Options, command, arguments, module.base(arguments) if command == "import" else None)
    if command not in WITHOUT_RUNS:
        paths = [things.located(path) for path in paths]
        if getattr(options, "run", None) is not None:
            options = dataclasses.replace(options, run=things.located(options.run))
    (module.dry_run if is_dry else module.main)(paths, options)
