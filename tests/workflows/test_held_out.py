"""Neurons and conditions that are not trained: they keep their weights, are scored apart, and a resumed run goes on without them."""

import numpy as np
import pytest
import zarr
from conftest import compose, metrics

from rlsnet.analysis import test_log, verdict
from rlsnet.data import recordings
from rlsnet.data.neuron_table import NeuronTable
from rlsnet.errors import UserError
from rlsnet.io import zarr_store
from rlsnet.learning import held_out, population, scores
from rlsnet.runs.folder import Run
from rlsnet.workflows import testing, training

NAMES = ["left", "right", "catch"]
N, M = 60, 8
REGION = np.array(["ALM", "thalamus"])[np.arange(N) % 2]


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """A recording of 60 units in two regions and three conditions."""
    path = tmp_path_factory.mktemp("recording") / "r.zarr"
    rate = np.random.default_rng(0).uniform(2, 40, (3, M, N)).astype(np.float32)
    root = zarr.create_group(str(path), attributes={"format": recordings.FORMAT, "version": 1, "bin_ms": 10})
    zarr_store.write(root, "rate", rate, ["condition", "time", "unit"])
    zarr_store.write(root, "condition", np.array(NAMES), ["condition"])
    zarr_store.write(root, "unit/region", REGION, ["unit"])
    return path


def settings(recording, *more):
    return compose("config=tiny", "target=recording", f"recording.path={recording}", "network.n_neurons=null", "static.out_degree=0",
                   "plastic.n_inputs=12", "noise.sigma=0.6", "trial.dt=0.5", "neuron.refractory=0.5", "trial.stim_on=10",
                   "trial.stim_off=30", "trial.duration=80", "stimulus=ou", "progress=off", "test.trials=1", "train.validate_every=4",
                   "train.validation_trials=1",                   "train.checkpoint_every=2", *more)  # fmt: skip


PART = ["train.neurons=\"region == 'ALM'\"", "train.fraction=0.5", "train.conditions=[left,catch]"]


@pytest.fixture(scope="module")
def runs(recording, tmp_path_factory):
    """(a run of 4 iterations, one of 2 and 2), both with a quarter of the neurons and two of the conditions trained; the first tested."""
    place = tmp_path_factory.mktemp("runs")
    whole, parts = Run(place / "whole"), Run(place / "parts")
    training.run_training(settings(recording, *PART, "train.iterations=4"), whole, resumed=False)
    training.run_training(settings(recording, *PART, "train.iterations=2"), parts, resumed=False)
    training.run_training(settings(recording, *PART, "train.iterations=4"), parts, resumed=True)
    testing.run_test(settings(recording, *PART, "train.iterations=4", "test.checkpoint=last"), whole)
    return whole, parts


def test_what_is_not_trained_keeps_its_weights_also_in_a_resumed_run(runs, recording):
    """And the conditions in turn are the trained ones; metrics and validation go on as in an unbroken run, to the bit."""
    stored = [zarr.open_group(str(run.checkpoint("last")), mode="r") for run in runs]
    for name in ("plastic/weight", "P"):
        np.testing.assert_array_equal(stored[0][name][...], stored[1][name][...])
    lines = [[{k: v for k, v in each.items() if "seconds" not in k} for each in metrics(run.path)] for run in runs]
    assert lines[0] == lines[1] and [each["task"] for each in lines[0]] == [0, 2, 0, 2]
    assert lines[0][3]["validation"] is not None
    network = zarr.open_group(str(runs[0].network), mode="r")
    changed = np.any(stored[0]["plastic/weight"][...] != network["plastic/weight"][...], axis=1)
    trained = np.isfinite(network["target"][...]).any(axis=1)
    np.testing.assert_array_equal(changed, trained.any(axis=0))
    assert trained.any(axis=1).tolist() == [True, False, True] and changed.sum() == 15 and not changed[REGION != "ALM"].any()
    assert network.attrs["trained"] == "15 of 60 neurons and 2 of 3 conditions"
    np.testing.assert_array_equal(np.isfinite(network["recorded_rate"][...]), trained)
    with pytest.raises(UserError, match="train.fraction"):
        from rlsnet.config.load import to_dict
        from rlsnet.workflows.resume import check_unchanged

        check_unchanged(runs[0].saved_config(), to_dict(settings(recording, PART[0], PART[2], "train.fraction=1")), "run")


def test_trained_and_held_out_are_scored_apart(runs, caplog):
    """Explained variances of each group by hand, from the stored rates; in words and in tables."""
    test = zarr.open_group(str(runs[0].test), mode="r")
    model, data, trained = test["psth"][...].astype(float), test["rate_target"][...].astype(float), test["trained"][...]
    stored = test.attrs["scores"]
    neurons, on = trained.any(axis=0), trained.any(axis=1)

    def explained(conditions, members):
        q, d = model[conditions][:, :, members], data[conditions][:, :, members]
        return 1 - np.sum((q - d) ** 2) / np.sum((d - d.mean(axis=(0, 1))) ** 2)

    expected = {
        "untrained neurons": explained(on, ~neurons),
        "untrained condition right": explained(~on, neurons),
        "untrained neurons, untrained condition right": explained(~on, ~neurons),
    }
    block = stored["population"]
    assert block["all"]["model"] == pytest.approx(explained(on, neurons), abs=1e-5)
    assert {name: each["model"] for name, each in block["held_out"].items()} == pytest.approx(expected, abs=1e-5)
    average = data[on][:, :, neurons].mean(axis=0)  # of the trained conditions, against the held-out one
    d = data[1][:, neurons]
    by_hand = 1 - np.sum((average - d) ** 2) / np.sum((d - d.mean(axis=0)) ** 2)
    assert block["held_out"]["untrained condition right"]["condition_average"] == pytest.approx(by_hand, abs=1e-5)
    assert block["by_condition"]["right"] == {} and "right" not in [n for n, each in stored["by_condition"].items() if each]
    defined = np.isfinite(test["rate_correlation"][...][on]).any(axis=0)  # silent neurons have no correlation
    assert block["neurons"] == 15 and stored["all"]["rate_correlation"]["n"] == np.sum(defined & neurons)
    assert stored["held_out"]["untrained neurons"]["rate_correlation"]["n"] == np.sum(defined & ~neurons)
    assert set(block["rate_bias"]["left"]) == {"recorded", "model"} and "model" not in block["rate_bias"].get("right", {})
    mean = np.mean(data[0][:, neurons])
    assert block["rate_bias"]["left"]["recorded"] == pytest.approx(mean, rel=1e-5)
    with caplog.at_level("INFO"):
        test_log.log_results(runs[0], [runs[0].test])
    assert "Predicted, not trained: of the variance of untrained neurons, the network explains" in caplog.text
    assert sum(line.startswith("untrained condition right ") for line in caplog.text.splitlines()) == 2
    table = verdict.population_table(block)
    assert all(name in table for name in expected)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.conditions=[rihgt]"], "train.conditions=rihgt: no such condition; expected some of left, right, catch. Did you mean"),
        (["train.neurons=\"region == 'M1'\""], "train.neurons=region == 'M1': is true for none of the 60 neurons; there, region is 'ALM'"),
        (["train.neurons=all"], "train.neurons=all: expected null, indices"),
        (["train.conditions=[]"], "train.conditions=[]: expected at least one name"),
    ],
)  # fmt: skip
def test_choices_that_select_nothing_are_refused(recording, overrides, message):
    with pytest.raises(UserError) as error:
        config = settings(recording, *overrides)
        held_out.choose(config, NeuronTable(np.arange(N) < 30, recordings.open_recording(recording), 1), NAMES)
    assert message in str(error.value)


def test_a_larger_share_contains_a_smaller_one(recording):
    def neurons(fraction, seed=1):
        config = settings(recording, f"train.fraction={fraction}", f"seed={seed}")
        return held_out.choose(config, NeuronTable(np.arange(N) < 30), NAMES).neurons

    shares = [neurons(fraction) for fraction in (0.25, 0.5, 1)]
    assert [int(each.sum()) for each in shares] == [15, 30, 60]
    assert not np.any(shares[0] & ~shares[1]) and np.any(neurons(0.5, 2) != shares[1])


def test_units_without_recorded_rates_are_not_called_held_out():
    """They have no scores, so there is no group of them, and all others count as before."""
    random = np.random.default_rng(0)
    data, model = random.uniform(1, 20, (2, 2, M, 12))
    data[..., :3] = np.nan
    trained = np.isfinite(data).any(axis=1)
    errors = population.recorded_errors(data, None) | {"model": population.squared_error(model, data)}
    found = population.explained(errors, NAMES[:2], None, trained)
    plain = population.explained(errors, NAMES[:2], None)
    assert found["all"] == pytest.approx(plain["all"]) and found.keys() == plain.keys()
    values = {"rate_error": np.where(trained, 1.0, np.nan)}
    assert "held_out" not in scores.summary(values, np.arange(12) < 6, NAMES[:2], None, trained)
