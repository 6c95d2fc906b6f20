"""Filters compared with the same expressions evaluated by Python, row by row; refused expressions and their messages."""

import math

import numpy as np
import pytest

from rlsnet.data import query
from rlsnet.errors import UserError

TABLE = {
    "side": np.array(["left", "right", "left", "right", "left"], dtype=object),
    "outcome": np.array(["hit", "hit", "miss", "ignore", "hit"]),
    "onset": np.array(["N/A", "1.891", "2.5", "N/A", "0.4"], dtype=object),
    "contrast": np.array([0.25, np.nan, 1.0, 0.0, np.nan]),
    "trial": np.arange(1, 6),
    "early": np.array([True, False, False, True, False]),
    "word": np.array(["True", "False", "true", "false", "FALSE"]),
    "gap": np.array(["a", "", None, "nan", float("nan")], dtype=object),
}


def rows(text):
    return np.flatnonzero(query.select_rows(text, TABLE, 5, "trials", "x.nwb")).tolist()


@pytest.mark.parametrize(
    "text",
    [
        "side == 'left'",
        "side=='left' and outcome=='hit'",
        "side == 'left' or outcome == 'hit' and not early",
        "outcome in ['hit', 'miss']",
        "outcome not in ('hit', 'miss')",
        "trial in [1, 5]",
        "1 < trial <= 4",
        "2 <= trial != 3",
        "trial >= -1 and contrast > .1",
        "contrast != 1",
        "not contrast > 0.1",
        "early",
        "not early and trial > 2",
        "early == True",
        "'left' == side",
        "side < 'm'",
        "True",
    ],
)
def test_a_filter_agrees_with_python(text):
    expected = [i for i in range(5) if eval(text, {}, {name: column[i] for name, column in TABLE.items()})]
    assert rows(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("onset == 'N/A'", [0, 3]),
        ("onset > 1", [1, 2]),
        ("onset == 2.5", [2]),
        ("onset != 2.5", [0, 1, 3, 4]),
        ("onset in ['N/A', 0.4]", [0, 3, 4]),
        ("trial == '3'", [2]),
        ("trial == 'left'", []),
        ("contrast == None", [1, 4]),
        ("contrast is not None", [0, 2, 3]),
        ("contrast != nan", [0, 2, 3]),
        ("gap == None", [1, 2, 3, 4]),
        ("word", [0, 2]),
        ("word == True", [0, 2]),
        ("early == 'true'", [0, 3]),
        ("", [0, 1, 2, 3, 4]),
    ],
)
def test_texts_numbers_and_missing_values(text, expected):
    assert rows(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "sid == 'left'",
            "trials=sid == 'left': no sid in x.nwb;"
            " expected one of contrast, early, gap, onset, outcome, side, trial, word. Did you mean side",
        ),
        ("side = 'left'", "(= is an assignment; == compares)"),
        ("side ==", "cannot be read as a filter"),
        ("__import__('os').system('true')", "is not allowed there"),
        ("side.upper() == 'LEFT'", "side.upper() is not allowed there"),
        ("[x for x in side]", "is not allowed there"),
        ("trial + 1 == 2", "trial + 1 is not allowed there"),
        ("side in outcome", "outcome is not allowed there"),
        ("side", "side in x.nwb is neither true nor false"),
        ("trial < 'left'", "a number and a text"),
        ("contrast < None", "None is not allowed there"),
        ("lambda: 0", "is not allowed there"),
    ],
)
def test_other_expressions_are_refused(text, message):
    with pytest.raises(UserError) as error:
        rows(text)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_texts_become_numbers():
    assert [x if math.isfinite(x) else None for x in query.as_numbers(TABLE["onset"])] == [None, 1.891, 2.5, None, 0.4]


def test_contents_of_columns_are_described():
    described = query.describe_columns("side == 'up' and trial > 9 and contrast > 2", TABLE)
    assert described == "side is 'left', 'right'; trial is 1, 2, 3, 4, 5; contrast is 0, 0.25, 1, nan"


def test_constants_equal_numbers_of_lower_precision():
    table = {"p": np.array([0.2, 0.8, 0.5], np.float32), "text": np.array(["0.8", "x", "0.8"], object)}
    for text, expected in (("p == 0.8", [0, 1, 0]), ("p != 0.8", [1, 0, 1]), ("p <= 0.2", [1, 0, 0]), ("p in [0.2, 0.8]", [1, 1, 0])):
        np.testing.assert_array_equal(query.select_rows(text, table, 3, "trials", "here"), np.array(expected, bool))
