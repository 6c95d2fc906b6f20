"""Numbers as texts."""

import math

import pytest

from rlsnet.errors import joined
from rlsnet.io import formatting


@pytest.mark.parametrize(
    ("value", "spec", "words"),
    [(0.126, ".2f", "0.13"), (-0.001, ".2f", "0.00"), (-0.01, ".2f", "-0.01"), (None, ".2f", "undefined"), (math.nan, ".1f", "undefined")],
)
def test_numbers_in_words(value, spec, words):
    assert formatting.in_words(value, spec) == words


@pytest.mark.parametrize(("share", "words"), [(0.721, "72 %"), (-0.001, "0 %"), (None, "undefined"), (math.nan, "undefined")])
def test_shares_in_percent(share, words):
    assert formatting.percent(share) == words


def test_words_as_a_list():
    assert [joined(words) for words in ([], ["a"], ["a", "b"])] == ["", "a", "a and b"]
    assert joined(iter("abc"), "or") == "a, b or c"
