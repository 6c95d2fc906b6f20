"""Time of the recording, ids of units and cell classes from the import to test, perturbation, figures and exports."""

import html
import json
import re

import numpy as np
import pytest
import zarr
from commands import rlsnet, run
from conftest import compose
from sessions import write

from rlsnet.analysis import test_results, trial_spikes
from rlsnet.analysis.plots import example_figures, perturbation_figures, raster_figures, run_figures
from rlsnet.data import trial_clock
from rlsnet.errors import UserError
from rlsnet.runs.folder import Run

EVENT, CUE = "go_start_times", "delay_start_times"
IMPORT = ("preset=map", "units=null", "min_trials=2", "window=[-0.3,0.2]", f"events=[{CUE}]", "inhibitory=\"unit_quality == 'good'\"")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two sessions imported, trained on, tested and perturbed; and what the commands print."""
    where = tmp_path_factory.mktemp("time")
    sources = [str(path) for path, _ in write(where, units=(12, 14), trials=40)]
    said = {"import": rlsnet("import", *sources, "lab.zarr", *IMPORT, cwd=where)}
    shape = ("network.n_neurons=16", "plastic.n_inputs=4", "feedforward.n_neurons=4", "trial.stim_on=20", "trial.stim_off=40")
    shape += (
        "recording.path=lab.zarr",
        "trial.duration=500",
        "train.iterations=2",
        "train.validate_every=2",
        "train.validation_trials=1",
        "progress=off",
    )
    said["train"] = rlsnet("train", "config=mouse_decision", *shape, "hydra.run.dir=run", cwd=where)
    test = ("run=run", "test.trials=3", "test.untrained_trials=0", "test.neurons=2:12", "progress=off")
    said["test"] = rlsnet("test", *test, cwd=where)
    said["perturb"] = rlsnet("test", *test, "perturb=silence", "perturb.window=[-0.1,0.1]", "perturb.neurons=2:5", cwd=where)
    said["report"] = page(where)
    for command in (("info", "run"), ("info", "lab.zarr"), ("info", "run/test.zarr")):
        said[" ".join(command)] = run(*command, cwd=where, COLUMNS="200")
    return where, {name: each if isinstance(each, str) else each.stdout + each.stderr for name, each in said.items()}


def page(where):
    """Text of the report of the run."""
    rlsnet("report", "run", cwd=where)
    return " ".join(re.sub(r"<[^>]*>", " ", html.unescape((where / "run/report.html").read_text())).split())


def test_a_quantity_has_one_number_and_one_name_everywhere(folder):
    """Each quantity of test, network and training as it is computed here from the stores, in all places that show it."""
    where, said = folder
    network, test = (zarr.open_group(str(where / f"run/{name}.zarr"), mode="r") for name in ("network", "test"))
    lines = [json.loads(line) for line in (where / "run/metrics.jsonl").read_text().splitlines()]
    population, exc, rate = test.attrs["scores"]["population"]["all"], test["excitatory"][...], test["rate"][...]
    means = {name: np.nanmean(test[name][...]) for name in ("current_correlation", "rate_correlation")}
    n_plastic = int((network["plastic/pre"][...] >= 0).sum())
    log, info, info_test, report = (words(said[name]) for name in ("test", "info run", "info run/test.zarr", "report"))
    train = words(said["train"])
    percents = " ".join(f"{round(100 * population[name])} %" for name in ("model", "mean_rate", "condition_average"))
    rates = f"{rate[:, exc].mean():.2f} Hz excitatory, {rate[:, ~exc].mean():.2f} Hz inhibitory"
    validation = f"{100 * lines[-1]['validation']:.1f} %"
    expected = {
        "explained variance": (f"all {percents}", (log, info, info_test)),
        "explained variance in sentences": (f"{round(100 * population['model'])} %", (log, info, info_test, report)),
        "validation": (f"population explained variance {validation}", (train,)),
        "validation, stored": (validation, (info, report)),
        "mean rates": (rates, (log, info_test)),
        "current correlation": (f"mean {means['current_correlation']:.3f}", (log, info, info_test)),
        "rate correlation": (f"mean {means['rate_correlation']:.3f}", (log, info_test)),
        "last trial of each condition": (f"{(lines[-1]['correlation'] + lines[-2]['correlation']) / 2:.3f}", (info, report)),
        "correlation while learning": (f"{lines[-1]['correlation']:.3f} at iteration 2", (info,)),
        "rates while learning": (f"{lines[-1]['rate_exc_hz']:.2f}", (info, report)),
        "plastic synapses": (f"{n_plastic} plastic synapses, {16 * 4} from feed-forward neurons", (train,)),
        "plastic synapses, stored": (f"plastic synapses {n_plastic} from feed-forward neurons {16 * 4} synapses", (info,)),
        "sizes": ("16 neurons (N), 4 trained inputs of each (L), 4 from feed-forward neurons (X)", (info,)),
        "trials": ("3 trials per condition", (info, info_test)),
        "neurons": ("10 of 16", (log, info_test, report)),
    }
    missing = [
        f"{name}: {text!r} is not in text {k}"
        for name, (text, places) in expected.items()
        for k, place in enumerate(places)
        if text not in place
    ]
    assert not missing, missing


def test_bins_and_spikes_have_the_time_of_the_recording(folder, record_check):
    where, _ = folder
    test, lab = (zarr.open_group(str(where / name), mode="r") for name in ("run/test.zarr", "lab.zarr"))
    np.testing.assert_array_equal(test["time"][...], lab["time"][...])
    assert test["time"].attrs["units"] == "s" and test["time"].attrs["long_name"] == f"time from {EVENT}, centre of the bin"
    time, step, trial, condition = (test[f"spikes/{name}"][...] for name in ("time", "step", "trial", "condition"))
    np.testing.assert_allclose(time, -0.3 + (step * 0.1 - 40) / 1000, atol=1e-9)
    ends = test["spikes/trial_indptr"][...]
    np.testing.assert_array_equal(3 * condition + trial, np.repeat(np.arange(6), np.diff(ends)))
    edges = np.concatenate([test["time"][...] - 0.01, [0.2]])
    counted = np.zeros((2, 25, 10))
    place = np.searchsorted(edges, time + 1e-6, side="right") - 1  # a bin has its start, not its end
    np.add.at(counted, (condition, place, np.searchsorted(test["neuron"][...], test["spikes/neuron"][...])), 1)
    np.testing.assert_allclose(counted / 3 / 0.02, test["psth"][...], rtol=1e-5)
    record_check("spikes of a test by time, condition and trial", "PSTH", "that of test.zarr", f"{len(time):,} spikes, equal")


def test_neurons_keep_the_ids_of_their_units(folder):
    where, _ = folder
    test, lab = (zarr.open_group(str(where / name), mode="r") for name in ("run/test.zarr", "lab.zarr"))
    unit = test["unit"][...]
    for name in ("session", "id", "region", "probe"):
        np.testing.assert_array_equal(test[name][...], lab[f"unit/{name}"][...][unit])
    results = test_results.open_results(Run.open(str(where / "run")))
    assert results.unit_name(3) == f"{test['region'][3]} neuron 5 ({test['session'][3]} unit {test['id'][3]})"


def test_named_events_are_stored_and_shown(folder):
    where, said = folder
    lab = zarr.open_group(str(where / "lab.zarr"), mode="r")
    about = lab.attrs["events"][CUE]
    assert about["quartiles"][0] <= about["median"] <= about["quartiles"][1] < 0 < about["trials"]
    results = test_results.open_results(Run.open(str(where / "run")))
    assert results.clock.events == {CUE: about["median"], EVENT: 0.0} == trial_clock.events(lab)
    np.testing.assert_allclose(results.span, (-0.3, 0.2))
    assert f"events {CUE} at {about['median']:g} s, {EVENT} at 0 s" in words(said["info lab.zarr"])
    for name in ("info lab.zarr", "info run/test.zarr"):
        assert f"bins 25 of 20 ms, -0.3 to 0.2 s from {EVENT}" in words(said[name])


def test_figures_have_the_event_in_their_axes(folder):
    from rlsnet.analysis.plots.run_figures import figures

    where, _ = folder
    drawn = dict(figures(test_results.open_results(Run.open(str(where / "run")))))
    for name in ("psth_examples", "psth_heatmaps", "raster", "perturbed_silence"):
        figure = drawn[name].compose()
        labels = {axis.get_xlabel() for axis in figure.axes}
        assert f"time from {EVENT} (s)" in labels
        assert EVENT in {text.get_text() for axis in figure.axes for text in axis.texts}
        assert not any("stimulus end" in label for label in labels)


def test_bands_are_standard_errors_over_the_trials_of_data_and_model(folder, record_check):
    """Those of trials counted and smoothed in a plain loop: spikes of the test, and counts of the recording, all of them or of a half."""
    where, _ = folder
    results = test_results.open_results(Run.open(str(where / "run")))
    test, lab = (zarr.open_group(str(where / name), mode="r") for name in ("run/test.zarr", "lab.zarr"))
    index, weights, neuron = 3, trial_spikes.smoothing(results), int(test["neuron"][3])
    spikes, condition, trial = (test[f"spikes/{name}"][...] for name in ("step", "condition", "trial"))
    mine, counts = test["spikes/neuron"][...] == neuron, np.zeros((2, 3, 25))
    for s, c, k in zip(spikes[mine], condition[mine], trial[mine], strict=True):
        counts[c, k, int((s * 0.1 - 40 + 1e-9) // 20)] += 1
    np.testing.assert_allclose(counts.mean(axis=1) / 0.02, test["psth"][:, :, index], rtol=1e-5)
    np.testing.assert_array_equal(trial_spikes.counts_of_neurons(results, np.array([index]))[..., 0], counts)
    unit = int(test["unit"][index])
    group = next(each for _, each in lab["trials"].groups() if unit in each["unit"][...])
    column = group["unit"][...].tolist().index(unit)
    half, of = group["half"][:, column], group["condition"][...]
    traces = example_figures._Traces(results, np.array([index]))
    for c, (data, model) in enumerate(traces.errors(index)):
        recorded = group["counts"][:, :, column][(half >= 0) & (of == c)]
        for found, each in ((data, recorded), (model, counts[c])):
            rates = np.array([weights @ (row / 0.02) for row in each])
            error = np.sqrt(((rates - rates.mean(axis=0)) ** 2).sum(axis=0) / (len(rates) - 1) / len(rates))
            np.testing.assert_allclose(found, error, rtol=1e-6, atol=1e-9)
            assert error.max() > 0
    even = trial_spikes.recorded_trials(traces.recording, unit, "even")
    np.testing.assert_array_equal(even[1], group["counts"][:, :, column][(half == 1) & (of == 1)])
    record_check("bands of examples", "s.d./sqrt(trials) in a plain loop", "equal", f"{len(counts[0])} trials of the model")


def test_bands_of_a_perturbation_are_standard_errors_of_the_means_of_groups(folder):
    """Over trials, of the neurons perturbed and of those of each region; also changes and selectivity, by the stored PSTHs."""
    where, _ = folder
    results = test_results.open_results(Run.open(str(where / "run")))
    stored = perturbation_figures.open_perturbed(results, "silence")
    effect = perturbation_figures.effect_of(results, stored)
    groups = perturbation_figures.groups(effect)
    found = perturbation_figures.standard_errors(results, stored, effect, [members for _, members in groups])
    assert groups[0][1].sum() == 3 and sum(members.sum() for _, members in groups) == 10
    for errors, path in zip(found, ("run/test.zarr", "run/perturbed/silence.zarr"), strict=True):
        test = zarr.open_group(str(where / path), mode="r")
        rates = np.zeros((2, 3, 25, len(groups)))
        member = {int(n): k for k, (_, mine) in enumerate(groups) for n in test["neuron"][...][mine]}
        columns = (test[f"spikes/{name}"][...] for name in ("condition", "trial", "step", "neuron"))
        for c, t, step, n in zip(*columns, strict=True):
            rates[c, t, int((step * 0.1 - 40 + 1e-9) // 20), member[int(n)]] += 50
        rates /= [mine.sum() for _, mine in groups]
        error = np.sqrt(((rates - rates.mean(axis=1, keepdims=True)) ** 2).sum(axis=1) / 2 / 3)
        np.testing.assert_allclose(errors, error, rtol=1e-9, atol=1e-9)
    inside = (results.time > -0.1) & (results.time < 0.1)
    with_ = stored["psth"][:, inside].mean(axis=1)
    np.testing.assert_allclose(effect.rates()[1], with_, rtol=1e-6)
    np.testing.assert_allclose(effect.change(), (with_ - results.read("psth")[:, inside].mean(axis=1)).mean(axis=0), rtol=1e-5)


def test_the_raster_of_the_data_is_of_one_trial_of_each_session(folder):
    where, _ = folder
    results = test_results.open_results(Run.open(str(where / "run")))
    recording = test_results.recording_of(results)
    units, edges = results.read("unit"), raster_figures.edges_of(results.time, 20)
    found = raster_figures.recorded_spikes(recording, 1, None, units, edges)
    counted = np.zeros((25, len(units)))
    np.add.at(counted, (np.searchsorted(edges, found.time, side="right") - 1, found.neuron), 1)
    for _, group in recording.group["trials"].groups():
        fits = (group["half"][...] >= 0) & (group["condition"][...] == 1)[:, None]
        first = group["counts"][int(np.argmax(fits.sum(axis=1)))]
        for column, unit in enumerate(group["unit"][...]):
            if unit in units:
                np.testing.assert_array_equal(counted[:, np.searchsorted(units, unit)], first[:, column])
    assert counted.sum() > 0 and found.known == len(units)
    spikes = raster_figures.of_counts(np.array([[2, 0], [0, 3]]), np.array([5, -1]), np.array([0, 0.1, 0.2]))
    np.testing.assert_allclose(spikes.time, [0.025, 0.075])
    assert spikes.neuron.tolist() == [5, 5] and spikes.known == 1


def test_figures_are_drawn_on_axes_of_the_user(folder):
    """All of a figure, its first panels, or a figure of its own; a wrong number, or no such figure, gets one line."""
    from matplotlib.figure import Figure

    results = test_results.open_results(Run.open(str(folder[0] / "run")))
    figure = Figure()
    axes = figure.subplots(3, 3)
    assert run_figures.draw(results, "psth_examples", axes=axes.T) is figure
    lines = [line for line in axes[0, 0].lines if len(line.get_xdata()) == 25]
    assert len(lines) == 4 and len({line.get_color() for line in lines}) == 2  # data and model in two conditions
    solid = [line for line in lines if line.get_linestyle() == "-"]
    neuron = example_figures.by_score(np.nanmean(results.read("rate_correlation"), axis=0))[0][1][0]
    for line, recorded in zip(solid, results.read("rate_target"), strict=True):
        np.testing.assert_allclose(line.get_ydata(), recorded[:, neuron], rtol=1e-6)
    assert axes[0, 0].get_title("left" if axes[0, 0].get_title("left") else "center").startswith("Best fits: ")
    mosaic = Figure().subplot_mosaic("ab")
    assert run_figures.draw(results, "rates", axes=mosaic) is mosaic["a"].figure and "minus" in mosaic["b"].get_xlabel()
    one = Figure().subplots()
    assert run_figures.draw(results, "rates", axes=one) is one.figure and one.get_xlabel() == "recorded rate (Hz)"
    assert len(run_figures.draw(results, "rates").axes) == 2
    with pytest.raises(UserError, match="axes: 2 given; the figure .* has 3 panels of 3 axes each, of which the first ones"):
        run_figures.draw(results, "psth_examples", axes=Figure().subplots(2))
    with pytest.raises(UserError, match="axes: expected Matplotlib axes"):
        run_figures.draw(results, "rates", axes=Figure())
    with pytest.raises(UserError, match="several figures"):
        run_figures.draw(results, "rates", axes=[Figure().subplots(), Figure().subplots()])
    with pytest.raises(UserError, match=r"psth: no figure of .*; expected one of learning_curve, weights"):
        run_figures.draw(results, "psth")


def test_a_perturbation_in_the_time_of_the_recording(folder):
    where, said = folder
    stored = zarr.open_group(str(where / "run/perturbed/silence.zarr"), mode="r")
    assert (stored.attrs["perturb"]["start"], stored.attrs["perturb"]["stop"]) == (240.0, 440.0)
    assert f"silence: 3 of 16 neurons (2:5), -0.1 to 0.1 s from {EVENT}" in said["perturb"]
    time, neuron = stored["spikes/time"][...], stored["spikes/neuron"][...]
    assert not ((time >= -0.1 + 1e-9) & (time < 0.1 - 1e-9) & np.isin(neuron, [2, 3, 4])).any()
    assert (np.isin(neuron, [2, 3, 4]) & (time > 0.1)).any()


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ("[-1,0.1]", r"perturb.window=\[-1,0.1\]: expected a start before an end, within the trial, which lasts from -0.34 to 0.2 s"),
        ("[0.1,0.3]", "within the trial"),
        ("[0.1,0.1]", "a start before an end"),
        ("[0.1,0.10003]", "perturb.window=440.03 ms: expected a multiple of trial.dt"),
    ],
)
def test_windows_outside_the_trial(window, message):
    config = compose(
        "config=tiny", "trial.stim_on=20", "trial.stim_off=40", "trial.duration=500", "perturb=silence", f"perturb.window={window}"
    )
    with pytest.raises(UserError, match=message):
        config.perturb.steps(config.trial, -0.34)


def test_a_window_and_its_ends_exclude_each_other():
    with pytest.raises(UserError, match="perturb.window: expected either the window, or perturb.start and perturb.stop"):
        compose("config=tiny", "perturb=silence", "perturb.window=[0.3,0.5]", "perturb.start=300")


def test_without_a_recording_time_begins_with_the_trial(tmp_path):
    clock = trial_clock.of_recording(None, compose("config=tiny").trial)
    assert clock.label == "time from the start of the trial" and clock.start == 0
    np.testing.assert_allclose(clock.centres(compose("config=tiny").trial)[:2], [0.205, 0.215])


def test_exports_have_the_time_of_the_recording_and_the_ids(folder):
    where, _ = folder
    test = zarr.open_group(str(where / "run/test.zarr"), mode="r")
    rlsnet("export", "run", "to=npz", cwd=where)
    spikes, neurons = np.load(where / "run/export/npz/spikes.npz"), np.load(where / "run/export/npz/neurons.npz")
    for name in ("time", "condition", "trial", "neuron"):
        np.testing.assert_array_equal(spikes[name], test[f"spikes/{name}"][...])
    np.testing.assert_array_equal(neurons["id"][2:12], test["id"][...])
    assert set(neurons["id"][[0, 1, 12]]) == {""}
    about = json.loads((where / "run/export/npz/about.json").read_text())
    assert about["time"]["start_s"] == -0.34 and about["units"]["time"] == f"s, time from {EVENT}"


def words(text):
    """Text of a printed table, in one line without its frame."""
    return " ".join(text.replace("│", " ").split())


def test_cell_classes_are_said_everywhere(folder):
    where, said = folder
    network = zarr.open_group(str(where / "run/network.zarr"), mode="r")
    source = network.attrs["cell_class"]
    assert source.startswith("from inhibitory if unit_quality == 'good': ")
    for name in ("train", "test", "info run", "info run/test.zarr"):
        assert words(source) in words(said[name]), name
    lab = zarr.open_group(str(where / "lab.zarr"), mode="r")
    unit = zarr.open_group(str(where / "run/test.zarr"), mode="r")["unit"][...]
    np.testing.assert_array_equal(network["neuron/excitatory"][2:12], lab["unit/cell_class"][...][unit] == "excitatory")
