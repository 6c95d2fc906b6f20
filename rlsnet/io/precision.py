"""Range of the numbers with which a computation in float32 or float64 can go on."""

from __future__ import annotations

# smallest amount that is not rounded to 0, and largest amount whose square is finite
AMOUNTS = {"float32": (1.2e-38, 1.8e19), "float64": (2.3e-308, 1.3e154)}
LARGEST = AMOUNTS["float32"][1]  # of the values in files, which may be read in either precision


def fits(value: float, precision: str) -> bool:
    """Whether a number is 0, or an amount that a precision can represent."""
    least, most = AMOUNTS[precision]
    return value == 0 or least <= abs(value) <= most
