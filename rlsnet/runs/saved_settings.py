"""The file config.yaml of a run: all its settings, with a checksum in the last line.

A file that was changed since, or one without a checksum, of an earlier version, is compared with the settings in the newest checkpoint:
a setting that may not change in an existing run, or that is missing, is an error.
"""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from rlsnet.config.differences import same, typed
from rlsnet.config.load import flat, renamed
from rlsnet.errors import UserError, first_line
from rlsnet.io import atomic

log = logging.getLogger(__name__)

HEAD = "# The settings of this run; the last line is a checksum of the lines above it.\n"
# sections and settings that may change in an existing run
MUTABLE = (
    *("test", "perturb", "progress", "resume", "run", "sweep", "trust", "tracking", "resources_every", "recording.path", "plugins"),
    *("train.iterations", "train.order", "train.weights", "train.checkpoint_every", "train.keep_checkpoints"),
    *("train.save_best", "train.validate_every", "train.stop_when"),
    *("engine.platform", "engine.kernels", "engine.devices", "engine.coordinator", "engine.processes", "engine.process", "rls.method"),
    *(f"watch.{name}" for name in ("source", "iterations", "keep_up", "perturbations", "prediction_trials", "publish")),
)


class _PlainLoader(yaml.SafeLoader):
    """Reader without aliases (*name), of which a few lines can make a file of any size."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """The next node of the file."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"an alias, *{self.peek_event().anchor}, which rlsnet does not write")
        return super().compose_node(parent, index)


class _PlainDumper(yaml.SafeDumper):
    """Writer without aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        """Whether a value that occurs twice is written twice."""
        return True


def may_change(key: str) -> bool:
    """Whether a setting may change in an existing run."""
    return any(key == each or key.startswith(f"{each}.") for each in MUTABLE)


def _end(text: str) -> str:
    """Last line of a file of settings, with the checksum of the lines `text` above it."""
    return f"# crc32 {zlib.crc32(text.encode()):08x}\n"


def write(path: Path, values: Mapping[str, Any]) -> None:
    """Writes nested settings."""
    text = HEAD + yaml.dump(dict(values), Dumper=_PlainDumper, sort_keys=False)
    with atomic.replacing(path) as temporary:
        temporary.write_text(text + _end(text))


def read(path: Path, trained: Callable[[], tuple[str, Mapping[str, Any]] | None]) -> dict[str, Any]:
    """Nested settings, with renamed settings under their present names.

    Args:
      path: of the file.
      trained: returns the newest checkpoint in words and the settings in it; None if there is no checkpoint.

    Raises:
      UserError: the file is damaged, or contradicts the checkpoint.
    """
    try:
        text = path.read_text()
        values = yaml.load(text, _PlainLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)}).") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: contains no settings; expected the file that rlsnet train wrote.")
    values = renamed(values, notice=False)
    end = re.search(r"^# crc32 [0-9a-f]{8}\n?\Z", text, re.MULTILINE)
    if end is None and text.startswith(HEAD[:20]):
        raise UserError(f"{path}: is cut short, the checksum in its last line is missing; restore the file from a copy.")
    if end is None or end[0].strip() != _end(text[: end.start()]).strip():
        compare(path, values, trained(), edited=end is not None)
    return values


def compare(path: Path, values: Mapping[str, Any], trained: tuple[str, Mapping[str, Any]] | None, edited: bool) -> None:
    """Compares the settings of a file with those of a checkpoint.

    Args:
      path: of the file, for messages.
      values: nested settings in it.
      trained: the checkpoint in words, and the settings in it; None: there is none.
      edited: whether the file has another checksum than rlsnet wrote.

    Raises:
      UserError: a setting that may not change differs, or is missing in the file.
    """
    if trained is None:
        if edited:
            log.warning("%s has changed since rlsnet wrote it, by its checksum.", path)
        return
    checkpoint, before, now = trained[0], flat(renamed(trained[1], notice=False)), flat(values)
    if missing := [key for key in before if key not in now]:
        more = f" and {len(missing) - 1} more settings" if len(missing) > 1 else ""
        raise UserError(f"{path}: lacks {missing[0]}{more}, as if cut short; expected those of {checkpoint}: restore the file from a copy.")
    for key in before:
        if same(before[key], now[key]) or key in ("resume", "run", "sweep"):
            continue
        if not may_change(key):
            text = f"{key} is {typed(now[key])}, but {typed(before[key])} in {checkpoint}"
            raise UserError(f"{path}: {text}; this cannot change in an existing run: restore the file, or the checkpoint.")
        if edited:
            log.warning("%s was edited: %s is %s, and was %s in %s.", path, key, typed(now[key]), typed(before[key]), checkpoint)
