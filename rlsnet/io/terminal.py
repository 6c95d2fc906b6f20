"""Text for a terminal, fitted to its width: sentences are wrapped between words, and commands are broken so that they can be pasted."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from typing import Any

FEWEST = 40  # columns of a line
WORD = r"""(?:(?<![\w])'[^']*'|(?<![\w])"[^"]*"|\S)+"""  # of a command, with spaces only in quotes
COMMAND = re.compile(rf"rlsnet [a-z]+ {WORD}(?: (?:--?[a-z][\w-]*|[\w./]+={WORD}))*")  # within a sentence: a thing and its settings
WHOLE_LINE = re.compile(r"\s+rlsnet [a-z]+ ")  # a line that is only a command is indented
NAMED = re.compile(r"\s*\S+( or \S+)?\s{2,}")  # names in a column of their own
HELD = "\ue000"  # in place of a space where no line ends


def width_of(stream: Any) -> int | None:
    """Columns of the terminal that a stream writes to; None if it writes to a file or a pipe."""
    if stream is None or not stream.isatty():
        return None
    try:
        own = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        own = 0
    return max(FEWEST, shutil.get_terminal_size((own or 80, 24)).columns)


def say(text: str, stream: Any = None) -> None:
    """Prints a text, on a terminal in lines that fit.

    Args:
      text: one or several lines.
      stream: where; None: standard output.
    """
    stream = sys.stdout if stream is None else stream
    width = width_of(stream)
    print(text if width is None else fitted(text, width), file=stream, flush=True)


def fitted(text: str, width: int) -> str:
    """A text whose lines have at most `width` characters, where its words allow; lines that fit are left as they are."""
    return "\n".join(line for each in text.split("\n") for line in _lines(each, width))


def _lines(line: str, width: int) -> list[str]:
    """One line as several: of a command with a backslash at each end and below its comment, of a text below its own second column."""
    if len(line) <= width:
        return [line]
    if WHOLE_LINE.match(line):
        command, sign, comment = line.partition("  # ")
        return [*(_lines(f"{' ' * _indent(line)}# {comment}", width) if sign else []), *_continued(command.rstrip(), width)]
    named, indent = NAMED.match(line), _indent(line)
    hanging = named.end() if named and named.end() <= width // 2 else indent + 2
    held = COMMAND.sub(lambda found: found[0].replace(" ", HELD), line)
    wrapped = textwrap.wrap(held, width, subsequent_indent=" " * hanging, break_long_words=False, break_on_hyphens=False)
    lines = [each.replace(HELD, " ") for each in wrapped]
    return [part for each in lines for part in (_continued(each, width) if len(each) > width and COMMAND.search(each) else [each])]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _continued(command: str, width: int) -> list[str]:
    """A command in lines with a backslash at the end of all but the last."""
    lines, indent = [], _indent(command)
    first, *words = re.findall(WORD, command)
    line = " " * indent + first
    for word in words:
        if len(line) + 1 + len(word) + 2 > width:
            lines.append(f"{line} \\")
            line = " " * (indent + 2) + word
        else:
            line += f" {word}"
    return [*lines, line]
