"""Files of JSON lines: metrics.jsonl with one line for each iteration of training, and functions for other such files."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

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


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Adds a line to a file of JSON lines."""
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def read_lines(path: Path) -> list[Any]:
    """Values of a file of JSON lines, without lines that a crash has cut off; [] if there is no file."""
    lines = []
    for text in path.read_text(errors="replace").splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(text))
    return lines


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Lines of a metrics.jsonl, in order, with the keys of `Metrics`.

    Raises:
      UserError: a line is not an object, or keys are missing.
    """
    lines, required = read_lines(path), Metrics.__required_keys__
    for number, line in enumerate(lines, 1):
        if not isinstance(line, dict) or required - line.keys():
            raise UserError(f"{path}: line {number}: expected an object with {', '.join(sorted(required))}.")
    return lines


def write_metrics(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Replaces a metrics.jsonl."""
    with atomic.replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))
