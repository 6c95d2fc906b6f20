"""The verdict on a test in words."""

import pytest

from rlsnet.analysis import score_tables
from rlsnet.analysis.verdict import population_table, verdict, warnings

BEGINS = "The network explains 62 % of the variance of the held-out rates"


def block(trained_on="odd", neurons=9, standard_error=0.001, **values):
    about = {"trained_on": trained_on, "neurons": neurons, "trials": 20, "standard_error": standard_error}
    return {"all": values, "by_condition": {"left": values}, "by_region": {"ALM": values}, **about}


@pytest.mark.parametrize(
    ("population", "expected"),
    [
        (
            block(model=0.62, ceiling=0.82, mean_rate=-0.01, condition_average=0.36),
            f"{BEGINS}; the other half of the trials explains 82 %. It is better than every baseline (best: condition average, 36 %).",
        ),
        (
            block(model=-0.3, ceiling=0.82, mean_rate=-0.01),
            "The network explains none (-30 %: its errors are larger than the variance) of the variance of the held-out rates; the other"
            " half of the trials explains 82 %. It is worse than the best baseline (mean rate, -1 %): train for more iterations, or with"
            " more inputs (plastic.n_inputs).",
        ),
        (
            block(model=0.621, ceiling=0.6, untrained=0.62),
            f"{BEGINS}; the other half of the trials explains 60 %. It is not clearly better or worse than the best baseline"
            " (untrained network, 62 %). The other half explains no more than a baseline: there are too few recorded trials to judge"
            " the network.",
        ),
        (
            block(model=0.62, condition_average=0.36, standard_error=0.14),
            f"{BEGINS} (standard error 14 %). It is not clearly better or worse than the best baseline (condition average, 36 %).",
        ),
        (
            block(model=0.62, condition_average=0.36, standard_error=None),
            f"{BEGINS}. Best baseline: condition average, 36 %.",
        ),
        (
            block("all", model=0.62),
            "The network explains 62 % of the variance of the rates that it was trained on (trained and tested on the same trials;"
            " with recording.half=odd, half of them are held out).",
        ),
        (
            block(model=0.62, linear=0.7) | {"linear": {"neurons": 4}, "bits_per_spike": {"all": {"model": -0.1, "ceiling": 0.25}}},
            f"{BEGINS}. A linear model that is given the recorded rates of the same inputs explains 70 %, for 4 neurons. Gain over constant"
            " rates: -0.10 bits per spike (the other half of the trials: +0.25).",
        ),
        (block(), ""),
        ({}, ""),
    ],
)
def test_verdict(population, expected):
    assert verdict(population) == expected
    if expected:
        lines = population_table(population).splitlines()
        assert [line.split()[0] for line in lines] == ["explained", "all", "ALM"]  # one condition is the same as all
        assert [float(word) for word in lines[1].replace("%", "").split()[1:]] == [round(100 * v) for v in population["all"].values()]


def test_a_wrong_mean_rate_is_beside_the_difference_of_the_trials():
    left, right = {"recorded": 5.0, "model": -1.5, "halves": 0.25}, {"recorded": 5.0, "model": 0.5}
    words = "is wrong by -1.50 Hz (recorded: 5.00 Hz); the trials trained on differ by +0.25 Hz from those held out."
    assert list(warnings({"rate_bias": {"left": left, "right": right}})) == [f"The model's mean rate in condition left {words}"]
    assert list(warnings({"rate_bias": {"all": left}})) == [f"The model's mean rate on average {words}"]
    assert not list(warnings({})) and not list(warnings({"standard_error": 0.05}))
    assert list(warnings(block(model=0.6))) == []
    unknown = block(model=0.6, standard_error=None)
    assert "With one trial, the noise of the model counts as an error" in next(warnings(unknown | {"trials": 1}))
    assert "needs three trials of each condition" in next(warnings(unknown | {"trials": 2}))
    assert "run rlsnet test again" in next(warnings({"all": {"model": 0.6}}))
    assert "(standard error 14 %), because trials differ much. Use more test.trials." in next(warnings({"standard_error": 0.14}))


def test_a_table_that_is_too_wide_has_blocks_with_whole_cells():
    head = ["", "neurons", "before (Hz)", "inside the windows (Hz)", "SNR-corrected EV"]
    rows = [["others in thalamus", "213", "18.26 -> 12.16", "1.00 -> 2.00", "0.92"], ["left_photostim", "7", "3.00 -> 4.00", "", "0.5"]]
    for width in (30, 44, 60, 80, 120):
        lines = score_tables.plain_table(head, rows, width=width).splitlines()
        text = " ".join(" ".join(lines).split())
        assert max(map(len, lines)) <= width and "…" not in text and "18.26 -> 12.16" in text
        assert all(cell in text for row in rows for cell in row) and "SNR-corrected" in text
    assert len(score_tables.plain_table(head, rows, width=120).splitlines()) == 3
