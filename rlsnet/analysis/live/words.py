"""Numbers of a running run in words, the same for the page and for the terminal: key figures, health of the recording, notes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rlsnet.analysis.live.sources import count, known, mean, number, text
from rlsnet.io.formatting import UNDEFINED, byte_size, counted, duration, percent
from rlsnet.io.formatting import number as formatted

SILENT_SECONDS = 10  # without a new ingest.json, or without a message, of a running experiment
RECENT = 20  # trials or iterations whose speed is shown
FEWEST_TRIALS = 5  # before few spikes in the windows are pointed out
FEW_SPIKES = 0.01  # of all, in the windows of the trials
MOST_CONDITIONS = 60

RUNNING = {True: "running", False: "not running", None: "unknown"}

Line = Mapping[str, Any]
Row = tuple[str, str, bool]


def integer(value: Any) -> str:
    """A whole number with commas; a dash if it is unknown."""
    return UNDEFINED if count(value) is None else f"{value:,}"


def share(value: float | None) -> str:
    """A share in percent; a dash if it is unknown."""
    return UNDEFINED if value is None else percent(value)


def tiles(
    running: bool | None, planned: int | None, device: str, metrics: Sequence[Line], resources: Sequence[Line], score: tuple[str, str, str]
) -> list[Any]:
    """(label, value, note) of the key figures.

    Args:
      running: whether a process works in the run folder; None: unknown.
      planned: iterations that the settings ask for; None: not known, or an experiment decides.
      device: on which the run computes; "" if it is not known.
      metrics: lines of metrics.jsonl.
      resources: lines of resources.jsonl.
      score: (label, value, note) of the newest score.
    """
    recent = known(metrics[-RECENT:], "seconds")
    seconds = statistics.median_high(recent) if recent else None
    done = metrics[-1]["iteration"] if metrics else 0
    left = f"about {duration(seconds * (planned - done))} left" if running and seconds and planned and planned > done else ""
    last = resources[-1] if resources else {}
    memory, free = number(last.get("memory_mb")), number(last.get("system_free_mb"))
    return [
        ("state", RUNNING[running], f"on {device}" if device else ""),
        ("iterations", f"{done:,}", f"of {planned:,}{f', {left}' if left else ''}" if planned else "of training"),
        (
            "time per iteration",
            UNDEFINED if seconds is None else f"{seconds:.2g} s",
            f"median of the last {min(RECENT, len(metrics))}" if metrics else "no iteration is complete yet",
        ),
        score,
        (
            "memory",
            UNDEFINED if memory is None else byte_size(memory * 1e6),
            UNDEFINED if free is None else f"{byte_size(free * 1e6)} free",
        ),
        *_gpus(last),
    ]


def _gpus(line: Line) -> list[tuple[str, str, str]]:
    """Key figures of the GPUs in a line of resources.jsonl."""
    memory, load = ([number(each) for each in line.get(name) or []] for name in ("gpu_memory_mb", "gpu_percent"))
    found = []
    for index, used in enumerate(memory[:8]):
        busy = load[index] if index < len(load) else None
        if used is not None:
            found.append((f"GPU {index}", byte_size(used * 1e6), "" if busy is None else f"{busy:.0f} % busy"))
    return found


def newest_score(metrics: Sequence[Line], trials: Mapping[str, Any] | None) -> tuple[str, str, str]:
    """(label, value, note) of the score that tells most: over trials, of a validation, or the correlation in training."""
    if trials is not None:
        (score, ceiling), window = trials["last"], min(trials["window"], trials["n"])
        return "explained signal variance", share(score), f"last {counted(window, 'trial')}; ceiling {share(ceiling)}"
    if validated := [line for line in metrics if number(line.get("validation")) is not None]:
        return "validation", percent(validated[-1]["validation"]), f"explained variance, iteration {validated[-1]['iteration']}"
    recent = known(metrics[-RECENT:], "correlation")
    mean = sum(recent) / len(recent) if recent else None
    return (
        "correlation",
        formatted(mean, ".2f"),
        f"with the targets, mean of the last {counted(len(recent), 'iteration')}" if recent else "with the targets",
    )


def recording(ingest: Line, trials: Sequence[Line]) -> list[Row]:
    """Health of the recording, (name, value, whether it is as it should be) rows: source, spikes, trials, what was lost, delays."""
    seen, within = count(ingest.get("spikes")), count(ingest.get("spikes_in_windows"))
    part = f" ({percent(within / seen, 1)} of all)" if seen and within is not None else ""
    rejected, reason = count(ingest.get("rejected")), text(ingest.get("rejected_reason") or "")
    latency, waiting = known(trials[-RECENT:], "latency_s"), count(ingest.get("lag_trials"))
    free, message, now = number(ingest.get("free_bytes")), number(ingest.get("last_message")), number(ingest.get("time"))
    problem, training = text(ingest.get("problem") or ""), text(ingest.get("training") or UNDEFINED)
    rows: list[tuple[str, str] | Row] = [
        ("source", text(ingest.get("source") or UNDEFINED)),
        ("connection", problem or ("ended" if ingest.get("ended") is True else "connected"), not problem),
        ("last message", "none yet" if message is None or now is None else f"{duration(max(0.0, now - message))} before this state"),
        ("training", training, not training.startswith("stopped:")),
        ("spikes", integer(seen)),
        ("spikes per second", formatted(number(ingest.get("spikes_per_s")), ",.0f")),
        ("spikes in windows of trials", f"{integer(within)}{part}", not too_few(ingest)),
        ("units", integer(ingest.get("units"))),
        ("markers", integer(ingest.get("markers"))),
        ("trials", integer(ingest.get("trials"))),
        ("trials without a condition", integer(ingest.get("trials_without_condition"))),
        ("lost messages", integer(ingest.get("lost")), not ingest.get("lost")),
        ("rejected messages", integer(rejected) + (f" ({reason})" if rejected and reason else "")),
        ("spikes that came too late", integer(ingest.get("late"))),
        ("trials that wait for training", integer(waiting)),
        ("delay after a trial", f"{statistics.median_high(latency):.2g} s, longest {max(latency):.2g} s" if latency else UNDEFINED),
        ("free disk space", UNDEFINED if free is None else byte_size(free)),
    ]
    return [row if len(row) == 3 else (*row, True) for row in rows]


def too_few(ingest: Line) -> bool:
    """Whether so few spikes lie in the windows of the trials that times may be those of different clocks."""
    seen, within, trials = (count(ingest.get(name)) for name in ("spikes", "spikes_in_windows", "trials"))
    if seen is None or within is None or trials is None:
        return False
    return trials >= FEWEST_TRIALS and within < FEW_SPIKES * seen


def conditions(trials: Sequence[Line]) -> list[dict[str, Any]]:
    """Name, number of trials, mean spikes of a trial, and number of held-out trials of each condition; None: without a condition."""
    groups: dict[str | None, list[Line]] = {}
    for line in trials:
        name = line.get("condition")
        groups.setdefault(None if name is None else text(name), []).append(line)
    rows = []
    for name, lines in sorted(groups.items(), key=lambda item: (item[0] is None, str(item[0])))[:MOST_CONDITIONS]:
        spikes = mean(known(lines, "n_spikes"))
        held_out = sum(line.get("held_out") is True for line in lines)
        rows.append(
            {
                "name": name or "no condition",
                "trials": len(lines),
                "held_out": held_out,
                "spikes": None if spikes is None else round(spikes, 1),
            }
        )
    return rows


def notes(running: bool | None, ingest: Line | None, trials: Sequence[Line], problems: Sequence[str]) -> list[str]:
    """What a reader should act on, in sentences.

    Args:
      running: whether a process works in the run folder.
      ingest: content of ingest.json; None if there is none.
      trials: lines of trials.jsonl.
      problems: of files that cannot be read.
    """
    found = list(problems)
    if ingest is not None:
        found += _of_recording(running, ingest)
    without = sum(line.get("condition") is None for line in trials)
    if len(trials) >= FEWEST_TRIALS and without > len(trials) / 2:
        found.append(f"{without:,} of {len(trials):,} trials fit no condition; check the markers and the conditions of rlsnet watch.")
    return found


def _of_recording(running: bool | None, ingest: Line) -> list[str]:
    """Sentences about the content of ingest.json."""
    found = []
    if problem := text(ingest.get("problem") or "", 300):
        found.append(f"Source: {problem}{'' if problem[-1] in '.?!' else '.'}")
    written, message = number(ingest.get("time")), number(ingest.get("last_message"))
    if running and written is not None and time.time() - written > SILENT_SECONDS:
        found.append(f"ingest.json was written {duration(time.time() - written)} ago; it should be written each second.")
    elif running and ingest.get("ended") is not True and written is not None and message is not None and written - message > SILENT_SECONDS:
        found.append(f"No message has come from the source for {duration(written - message)}.")
    if lost := count(ingest.get("lost")):
        found.append(f"{lost:,} messages were lost between the source and rlsnet.")
    if too_few(ingest):
        seen, within, trials = (integer(ingest.get(name)) for name in ("spikes", "spikes_in_windows", "trials"))
        found.append(
            f"Only {within} of {seen} spikes lie in the windows of the {trials} trials:"
            " times of markers and of spikes may be those of different clocks."
        )
    return found
