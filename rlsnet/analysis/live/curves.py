"""Curves of a run: scores over the iterations of training, and over the trials of an experiment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rlsnet.analysis.live.sources import all_rounded, count, known, mean, number, rounded

MOST_POINTS = 300  # of a curve
WINDOW = 30  # trials over which the score is computed

Line = Mapping[str, Any]


def over_iterations(lines: Sequence[Line]) -> dict[str, Any]:
    """Correlation and explained variance over iterations, means of neighbours where there are more than MOST_POINTS, and validations.

    Returns:
      iteration: [points] the last of each mean; correlation, explained_variance: [points], None where undefined;
      validations: [(iteration, score)].
    """
    blocks = list(_blocks(lines))
    validated = [(line["iteration"], rounded(score)) for line in lines if (score := number(line.get("validation"))) is not None]
    every = -(-len(validated) // MOST_POINTS) or 1
    return {
        "iteration": [block[-1]["iteration"] for block in blocks],
        **{name: all_rounded(mean(known(block, name)) for block in blocks) for name in ("correlation", "explained_variance")},
        "validations": validated[::-1][::every][::-1],
    }


def _blocks(lines: Sequence[Line]) -> Iterator[Sequence[Line]]:
    """Neighbouring lines in at most MOST_POINTS groups."""
    size = -(-len(lines) // MOST_POINTS) or 1
    for start in range(0, len(lines), size):
        yield lines[start : start + size]


def over_trials(lines: Sequence[Line]) -> dict[str, Any]:
    """Share of the signal variance that the model explains, and its ceiling, over the last WINDOW trials at each trial, and over all.

    Returns:
      trial: [points] numbers; score, ceiling: [points], None where unknown; all: (score, ceiling) of all trials; last: of the last WINDOW;
      held_out: of the trials that were not learned; n_held_out: their number.
    """
    numbered = [line for line in lines if count(line.get("trial")) is not None]
    at = np.unique(np.linspace(0, len(numbered) - 1, MOST_POINTS).astype(int)) if numbered else np.zeros(0, int)
    shares = {name: _shares(numbered, name) for name in ("score", "ceiling")}
    held_out = [line for line in numbered if line.get("held_out") is True]
    return {
        "window": WINDOW,
        "trial": [numbered[index]["trial"] for index in at],
        **{name: all_rounded(moving[at]) for name, (moving, _) in shares.items()},
        "all": [rounded(whole) for _, whole in shares.values()],
        "held_out": [rounded(_shares(held_out, name)[1]) for name in ("score", "ceiling")],
        "n_held_out": len(held_out),
        "last": [rounded(moving[-1]) if len(moving) else None for moving, _ in shares.values()],
    }


def _shares(lines: Sequence[Line], name: str) -> tuple[np.ndarray, float]:
    """([trials] share over the last WINDOW trials, share over all) of the signal variance: sum of `name` by sum of the variance.

    Trials without the one or the other count in neither sum; a share is NaN where the variance is not above 0.
    """
    pairs = [(number(line.get(name)), number(line.get("variance"))) for line in lines]
    values = np.array([[0.0, 0.0] if None in pair else pair for pair in pairs], float).reshape(-1, 2)
    sums = np.concatenate([np.zeros((1, 2)), np.cumsum(values, axis=0)])
    first = np.maximum(np.arange(1, len(sums)) - WINDOW, 0)
    moving = sums[1:] - sums[first]
    every = np.concatenate([moving, sums[-1:]])
    share = np.divide(every[:, 0], every[:, 1], out=np.full(len(every), np.nan), where=every[:, 1] > 0)
    return share[:-1], float(share[-1])
