"""Texts that are numbers, and whole numbers that are labels: `01` and `1`, or `1_1` and `11`, are different units."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

NUMBER = re.compile(r"[-+]?((\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|inf(inity)?|nan)", re.ASCII | re.IGNORECASE)
PADDED = re.compile(r"[-+]?0\d+", re.ASCII)  # as in 007
UNUSUAL = re.compile(r"[eE+]|(?<![\d.])0\d", re.ASCII)  # in a table of numbers in which two texts may be one whole number
FRACTION_OF_ZEROS = re.compile(r"\.0*(?=$|[eE])")


def number_in(text: str) -> float:
    """Number in a text such as -1.5e3 or nan; raises ValueError for others, also those that Python takes, such as 1_000."""
    if not NUMBER.fullmatch(text):
        raise ValueError(f"{text} is not a number")
    return float(text)


def may_contain_labels(text: str, size: int) -> bool:
    """Whether a text of `size` numbers may have whole numbers that `are_labels`; if all have an exponent, one program wrote them."""
    exponents = text.count("e") + text.count("E")
    return exponents != size and UNUSUAL.search(text) is not None


def are_labels(texts: Sequence[str], values: Sequence[float]) -> bool:
    """Whether texts that are whole numbers are kept as texts: one is padded, as 007 is, or two are the same number, as 10 and 1e1 are.

    Args:
      texts: cells of a column.
      values: their numbers, NaN where missing.
    """
    pairs = zip(texts, values, strict=True)
    found = {FRACTION_OF_ZEROS.sub("", text if value else text.lstrip("+-"), count=1): value for text, value in pairs if value == value}
    if any(math.isinf(value) or value != math.floor(value) for value in found.values()):
        return False
    return len(set(found.values())) < len(found) or any(map(PADDED.fullmatch, found))
