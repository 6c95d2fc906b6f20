"""The command line: `rlsnet VERB [key=value ...]`.

JAX and Hydra are imported only when they are needed, so that help and completion start in a fraction of a second. The parser
of the plain verbs, too, is written by hand, not with typer or tyro: all verbs share one syntax, key=value with values in YAML and
units, and one form of messages.
"""

from __future__ import annotations

import importlib
import os
import sys

from rlsnet.cli import completion
from rlsnet.cli.help import help_text, overview, plain_help_text
from rlsnet.cli.verbs import PLAIN, VERBS
from rlsnet.config.arguments import plain_arguments
from rlsnet.errors import UserError, did_you_mean


def main() -> None:
    """Entry point. Exit status 0, or non-zero after one line that names the mistake."""
    if completion.VARIABLE in os.environ:
        print("\n".join(completion.candidates(os.environ[completion.VARIABLE])))
        return
    try:
        sys.exit(dispatch(sys.argv[1:]))
    except UserError as error:
        sys.exit(print_error(str(error)))
    except KeyboardInterrupt:
        print_error("interrupted.")
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except MemoryError:
        sys.exit(print_error("out of memory; the memory plan in rlsnet.log lists what was needed."))
    except OSError as error:
        sys.exit(print_error(f"{error.filename or 'file system'}: {error.strerror or error}."))


def print_error(message: str) -> int:
    """One line on stderr; returns the exit status."""
    print(f"rlsnet: error: {' '.join(message.split())}", file=sys.stderr)
    return 1


def dispatch(arguments: list[str]) -> int:
    """Runs the verb that the arguments name; returns the exit status."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb == "--version":
        from importlib.metadata import version

        print(f"rlsnet {version('rlsnet')}")
        return 0
    if verb not in VERBS:
        raise UserError(f"{verb}: no such verb; expected {', '.join(VERBS)}.{did_you_mean(verb, VERBS)}")
    wants_help = "-h" in rest or "--help" in rest
    if verb in PLAIN:
        module = importlib.import_module(PLAIN[verb])
        if wants_help:
            print(plain_help_text(verb, module))
            return 0
        preset = module.base(rest) if verb == "import" else None
        module.main(*plain_arguments(module.Options, verb, rest, preset))
        return 0
    if wants_help:
        print(help_text(verb, rest))
        return 0
    from rlsnet.cli.hydra_app import run_verb

    return run_verb(verb, rest)
