"""Files of JSON lines: metrics.jsonl with one line for each iteration of training, and functions for other such files."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict, get_type_hints

from rlsnet.errors import UserError
from rlsnet.io import atomic


class RequiredMetrics(TypedDict):
    """Keys of the line of an iteration in every version of rlsnet; undefined values are None.

    If the iteration has several trials, rates are means over them, and scores are those of the current averaged over them.

    iteration: number of the iteration, from 1.
    task: condition of its trials.
    seconds: duration of the computation, s.
    rate_hz, rate_exc_hz, rate_inh_hz: mean firing rate of all, of excitatory and of inhibitory neurons, Hz.
    correlation: correlation of current and target, mean over neurons.
    n_undefined: number of neurons with an undefined correlation.
    """

    iteration: int
    task: int
    seconds: float
    rate_hz: float | None
    rate_exc_hz: float | None
    rate_inh_hz: float | None
    correlation: float | None
    n_undefined: int


class Metrics(RequiredMetrics, total=False):
    """Line of an iteration of training, with keys that not every run has.

    explained_variance: variance of the targets that the currents explain; not in runs of early versions.
    rate_error_hz: mean difference from the recorded rates, Hz; only in runs with recorded rates.
    validation: population explained variance in trials with frozen weights after this iteration; only where there was a validation.
    validation_seconds: duration of the validation, s.
    """

    explained_variance: float | None
    rate_error_hz: float | None
    validation: float | None
    validation_seconds: float


def validations(metrics: Iterable[Mapping[str, Any]]) -> list[tuple[int, float]]:
    """(iteration, score) of each validation, from lines of metrics."""
    return [(line["iteration"], line["validation"]) for line in metrics if line.get("validation") is not None]


def no_longer_better(metrics: Iterable[Mapping[str, Any]], stop_when: int | None) -> bool:
    """Whether the score of validation has not risen for `stop_when` iterations (None: never), by the lines of all iterations so far."""
    if stop_when is None or not (validated := validations(metrics)):
        return False
    best, _ = max(validated, key=lambda each: each[1])  # the first, if several are equal
    return validated[-1][0] - best >= stop_when


def checksums(path: Path) -> Path:
    """Path of the checksums of a file of JSON lines, one a line."""
    return path.with_suffix(".crc32")


def _checksum(text: str) -> str:
    """Checksum of a line: 8 hexadecimal digits."""
    return f"{zlib.crc32(text.encode()):08x}"


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Adds a line to a file of JSON lines, after its checksum was added to the file of checksums.

    If lines of an earlier version have no file of checksums, one of theirs is made before, complete or not at all.
    """
    text = json.dumps(line)
    if not checksums(path).exists() and path.exists() and path.stat().st_size:
        before = path.read_text(errors="replace").split("\n")
        with atomic.replacing(checksums(path)) as temporary:
            temporary.write_text("".join(f"{_checksum(each)}\n" for each in before if each))
    for file, added in ((checksums(path), _checksum(text)), (path, text)):
        with atomic.naming(file), file.open("ab+") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - 1))
            torn = stream.read() not in (b"", b"\n")  # the process that wrote the last line was killed
            stream.write(("\n" * torn + added + "\n").encode())


def read_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(number, value) of each line of a file of JSON lines, None for a damaged one; nothing if there is no file.

    The last line is left out if a crash has cut it off.
    """
    text = path.read_text(errors="replace") if path.exists() else ""
    known = set(checksums(path).read_text(errors="replace").split()) if checksums(path).exists() else None
    lines = text.split("\n")
    for number, line in enumerate(lines[:-1] if not lines[-1] else lines, 1):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            if number < len(lines):
                yield number, None
            continue
        yield number, value if known is None or _checksum(line) in known else None


def n_written(path: Path) -> int:
    """Number of lines that were written to a file of JSON lines, by its checksums; 0 without these."""
    return len(set(checksums(path).read_text(errors="replace").split())) if checksums(path).exists() else 0


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Lines of a metrics.jsonl, in order, with the keys of `Metrics`.

    Raises:
      UserError: a line is damaged, is not an object, or lacks keys.
    """
    lines: list[dict[str, Any]] = []
    required, kinds = Metrics.__required_keys__, get_type_hints(Metrics)
    for number, line in read_lines(path):
        if line is None:
            raise UserError(
                f"{path}: line {number} is damaged or was edited; restore it from a copy or remove it"
                f" (an edit on purpose: remove {checksums(path).name})."
            )
        if not isinstance(line, dict) or required - line.keys():
            raise UserError(f"{path}: line {number}: expected an object with {', '.join(sorted(required))}.")
        for name, kind in kinds.items():
            if name in line and (not isinstance(line[name], kind | int) or isinstance(line[name], bool)):
                expected = "a whole number" if kind is int else "a number"
                raise UserError(f"{path}: line {number}: {name} is {line[name]!r}; expected {expected}.")
        before = lines[-1]["iteration"] if lines else 0
        if line["iteration"] <= before:
            raise UserError(f"{path}: line {number} has iteration {line['iteration']}, after iteration {before}; restore it from a copy.")
        lines.append(line)
    return lines


def write_metrics(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Replaces a metrics.jsonl and its checksums."""
    texts, sums = [json.dumps(line) for line in lines], checksums(path)
    new = [_checksum(text) for text in texts]
    old = sums.read_text(errors="replace").split() if sums.exists() else []
    for file, content in ((sums, old + new), (path, texts), (sums, new)):  # so that each line has a checksum after a crash too
        with atomic.replacing(file) as temporary:
            temporary.write_text("".join(f"{each}\n" for each in content))


def last_correlation(metrics: Iterable[Mapping[str, Any]]) -> float | None:
    """Correlation of the last iteration; with several conditions, the mean of the last of each. None where all are undefined."""
    newest = {line["task"]: line["correlation"] for line in metrics if line["correlation"] is not None}
    return sum(newest.values()) / len(newest) if newest else None
