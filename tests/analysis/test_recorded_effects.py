"""Recorded perturbed trials beside the predicted ones: scores by hand on stored tests, in the log, the figure and the report."""

import logging

import numpy as np
import pytest
import zarr
from conftest import compose

from rlsnet.analysis import perturbation_effects, recorded_effects, test_log
from rlsnet.analysis.plots import run_figures
from rlsnet.data import recordings
from rlsnet.errors import UserError
from rlsnet.io import zarr_store
from rlsnet.runs.folder import Run
from rlsnet.workflows import testing

NAMES, N, M = ["left", "right", "left_silenced"], 40, 10


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A simulation of an untrained network, without and with silenced neurons, and a recording with a perturbed condition."""
    place = tmp_path_factory.mktemp("place")
    rate = np.random.default_rng(0).uniform(2, 40, (3, M, N)).astype(np.float32)
    rate[2, :, :5] = np.nan  # units that were not recorded in perturbed trials
    root = zarr.create_group(str(place / "r.zarr"), attributes={"format": recordings.FORMAT, "version": 1, "bin_ms": 10})
    zarr_store.write(root, "rate", rate, ["condition", "time", "unit"])
    zarr_store.write(root, "condition", np.array(NAMES), ["condition"])
    config = settings(place, "perturb.compare={left:left_silenced}", "perturb.window=[0.06,0.09]")
    results = testing.run_simulation(config, Run(place / "run"))
    return config, Run(place / "run"), results, rate


def settings(place, *more):
    return compose("config=tiny", "target=recording", f"recording.path={place}/r.zarr", "network.n_neurons=null", "static.out_degree=0",
                   "plastic.n_inputs=8", "noise.sigma=0.8", "trial.dt=0.5", "neuron.refractory=0.5", "trial.stim_on=10",
                   "trial.stim_off=30", "trial.duration=100", "progress=off", "test.trials=3",
                   "train.conditions=[left,right]", "perturb=silence",
                   "perturb.neurons=0:12", *more)  # fmt: skip


def test_recorded_and_predicted_effects_by_hand(run, caplog):
    config, folder, results, rate = run
    test, perturbed = (zarr.open_group(str(path), mode="r") for path in results)
    found = recorded_effects.recorded_effect(test, perturbed)
    model = perturbed["psth"][0] - test["psth"][0]
    data = (rate[2] - rate[0]).astype(float)
    inside, after = slice(3, 6), slice(3, M)
    expected = {}
    groups = {"all": slice(5, N), "perturbed": slice(5, 12), "others": slice(12, N)}  # the first five are unknown
    for name, members in groups.items():
        a, d = model[inside, members].mean(axis=0), data[inside, members].mean(axis=0)
        error = np.sum((model[after, members] - data[after, members]) ** 2)
        with np.errstate(invalid="ignore"):
            r = np.corrcoef(a, d)[0, 1]
        expected[name] = [d.mean(), a.mean(), r, 1 - error / np.sum(data[after, members] ** 2)]
    rows = {name: (count, values) for name, count, values in found.rows()}
    for name, values in expected.items():
        assert rows[name][0] == groups[name].stop - groups[name].start
        np.testing.assert_allclose(rows[name][1], values, rtol=1e-4, atol=1e-5)
    perfect = recorded_effects.RecordedEffect(found.names, found.recorded, np.nan_to_num(found.recorded), found.effect)
    assert perfect.explained(np.ones(N, bool)) == 1
    assert recorded_effects.RecordedEffect(found.names, found.recorded, 0 * found.model, found.effect).explained(np.ones(N, bool)) == 0
    with caplog.at_level(logging.INFO):
        test_log.log_results(folder, results)
    assert "Effect of the perturbation in recorded trials and in the model" in caplog.text and "left (left_silenced)" in caplog.text
    run_figures.plot(config, folder)
    assert (folder.figures / "perturbed_silence.png").exists()
    assert perturbation_effects.description(perturbed).startswith("silence: 12 of 40 neurons (0:12), 0.06 to 0.09 s")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, ""),
        ({"neurons": None, "fraction": 0.5}, ""),
        ({"neurons": "region:ALM", "fraction": 1.0, "values": None}, " (region ALM)"),
        ({"neurons": "region:ALM", "fraction": 0.5}, " (part of region ALM)"),
        ({"neurons": "0:200", "values": "rates.csv"}, " (part of 0:200)"),
        ({"neurons": "region:ALM & exc,inh"}, " (region ALM & excitatory,inhibitory)"),
        ({"neurons": "region == 'ALM' and depth > 100 and quality == 'good'"}, " (region == 'ALM' and depth > 100 and qua…)"),
    ],
)
def test_the_selection_of_a_perturbation_in_words(settings, words):
    assert perturbation_effects._selection(settings) == words


def test_conditions_that_cannot_be_compared_are_refused(run, tmp_path):
    config, folder, _, _ = run
    place = folder.path.parent
    with pytest.raises(UserError, match="no condition up; expected some of left, right, left_silenced."):
        testing.run_simulation(settings(place, "perturb.compare={left:up}"), Run(tmp_path / "a"))
    with pytest.raises(UserError, match="perturb.compare: needs the recorded rates of perturbed trials"):
        testing.run_simulation(compose("config=tiny", "perturb=silence", "perturb.compare={left:up}", "progress=off"), Run(tmp_path / "b"))
