"""Analyses of trained networks against closed forms, plain loops over synapses, and the equations of the neuron."""

import dataclasses
import re
import warnings

import numpy as np
import pytest
import zarr
from conftest import compose
from cut_text import cut_texts_of
from matplotlib.lines import Line2D
from scipy.stats import norm
from sessions import write as write_sessions

from rlsnet import api
from rlsnet.analysis.analyses import analyse, population, regions, single_trials
from rlsnet.analysis.analyses.activity import Activity
from rlsnet.analysis.analyses.analyse import ANALYSES, AnalysisOptions
from rlsnet.analysis.plots import analysis_figures, run_figures
from rlsnet.analysis.test_results import open_results
from rlsnet.cli.main import dispatch
from rlsnet.data.intervals import interval_variation
from rlsnet.data.trial_clock import TrialClock
from rlsnet.errors import UserError
from rlsnet.kernels.device import configured
from rlsnet.runs.folder import Run

BINS, NEURONS = 50, 40


def activity(trained, data, model, heldout=True) -> Activity:
    n = data.shape[-1]
    region = np.where(np.arange(n) < n // 4, "A", "B")
    about = np.arange(n), np.arange(n), region, np.full(n, "s"), np.arange(n) % 2 == 0, ["left", "right"], np.arange(2)
    return Activity(trained, data, model, heldout, *about, np.linspace(0, 1, data.shape[1]), TrialClock(), "firing rate (Hz)")


def low_rank(rank=3, seed=0):
    """[2, BINS, NEURONS] rates with `rank` orthogonal components of equal variance."""
    random = np.random.default_rng(seed)
    time = np.linalg.qr(random.normal(size=(2 * BINS, rank)) - 0)[0]
    time = np.linalg.qr(time - time.mean(axis=0))[0]
    space = np.linalg.qr(random.normal(size=(NEURONS, rank)))[0]
    return 20 + 30 * (time @ space.T).reshape(2, BINS, NEURONS)


def test_dimensionality_is_that_of_the_signal():
    signal, random = low_rank(5), np.random.default_rng(1)
    rows = signal.reshape(-1, NEURONS)
    assert population.participation_ratio(rows, rows) == pytest.approx(5, rel=1e-9)
    first, second = (rows + random.normal(0, 1.0, rows.shape) for _ in range(2))
    assert population.participation_ratio(first, first) > 8  # noise of one average counts as dimensions
    assert population.participation_ratio(first, second) == pytest.approx(5, rel=0.1)  # and not of two
    found = population.dimensionality(activity(signal, signal, signal))
    np.testing.assert_allclose(found["participation_ratio"][:, 0], 5, rtol=1e-9)
    np.testing.assert_allclose(found["variance"][:, :5], 0.2, rtol=1e-6)
    assert list(found["group"]) == ["all", "B", "A"]


def test_trajectories_and_coding_direction_of_scaled_data():
    data = low_rank()
    middle = data.mean(axis=(0, 1))
    half = middle + 0.5 * (data - middle)
    exact, scaled = (population.trajectories(activity(data, data, model)) for model in (data, half))
    assert (exact.numbers["explained"], exact.numbers["ceiling"]) == pytest.approx((1, 1))
    assert scaled.numbers["explained"] == pytest.approx(0.75)  # 1 - (1 - 0.5)^2
    np.testing.assert_allclose(exact["variance_data"].sum(), 1, rtol=1e-9)
    np.testing.assert_allclose(scaled["model"], 0.5 * exact["model"], atol=1e-9)
    bins = np.arange(BINS) >= 40
    found = population.coding_direction(activity(data, data, half), (0, 1), bins)
    assert found.numbers["separation"] == pytest.approx(0.5) and found.numbers["cosine"] == pytest.approx(1)
    assert (found["data"][0] - found["data"][1])[bins].mean() == pytest.approx(1)
    chosen = population.selectivity(activity(data, data, half), (0, 1), bins)
    np.testing.assert_allclose(chosen["model"], (half[0] - half[1])[bins].mean(axis=0))
    np.testing.assert_allclose(chosen["correlation"], 1)
    expected = np.abs((data[0] - data[1])[bins].mean(axis=0))
    assert chosen["data_over_time"][0][bins].mean() == pytest.approx(expected.mean())


def test_decoding_reaches_what_theory_says():
    random = np.random.default_rng(2)
    condition = np.repeat([0, 1], 3000)
    counts = random.normal(0, 1, (6000, 2, 1)) + 2 * condition[:, None, None] * np.array([0, 1])[:, None]
    found = single_trials.decode(counts, condition)
    np.testing.assert_allclose(found, [0.5, norm.cdf(1)], atol=0.02)  # means two s.d. apart
    assert single_trials.decode(np.stack([condition, condition], 1)[:, :, None] * 5.0, condition).tolist() == [1, 1]


def test_variability_of_poisson_and_shared_counts():
    random = np.random.default_rng(3)
    condition, trials = np.repeat([0, 1], 400), 800
    shared = random.poisson(2.0, (trials, 6, 1))
    counts = np.concatenate(
        [random.poisson(3.0, (trials, 6, 2)), 2 * random.poisson(3.0, (trials, 6, 1)), shared + random.poisson(2.0, (trials, 6, 2))], 2
    )
    np.testing.assert_allclose(single_trials.fano(counts, condition), [1, 1, 2, 1, 1], atol=0.1)
    pairs = np.array([[0, 3], [1, 4]])
    found = single_trials.noise_correlation(counts, condition, pairs)
    np.testing.assert_allclose(found, [0, 0.5], atol=0.05)  # a shared half of the variance
    course = np.sin(np.arange(6.0))[:, None] * np.array([5.0, 5.0])
    moved = random.poisson(8.0, (trials, 6, 2)) + course
    assert single_trials.signal_correlation(moved, condition, pairs[:, :1])[0] > 0.95
    assert abs(single_trials.noise_correlation(moved, condition, pairs[:, :1])[0]) < 0.05
    time = np.arange(200) * 0.02
    wave = 3 + np.cos(2 * np.pi * 5 * time)[None, :, None] * np.ones((4, 1, 3))
    frequency, power = single_trials.spectrum(wave, 0.02)
    assert frequency[power.argmax()] == pytest.approx(5)


def test_intervals_of_poisson_and_regular_trains():
    random = np.random.default_rng(4)
    poisson = np.cumsum(random.exponential(1.0, 20_000))
    regular = np.arange(0.0, 500.0)
    faster = np.concatenate([np.arange(0, 100, 1.0), 100 + np.arange(0, 100, 0.1)])  # regular, at two rates
    time = np.concatenate([poisson, regular, faster, [1.0, 2.0]])
    neuron = np.repeat([0, 1, 2, 3], [len(poisson), len(regular), len(faster), 2])
    cv, cv2 = interval_variation(neuron, np.zeros(len(time), int), time, 4)
    np.testing.assert_allclose(cv[:2], [1, 0], atol=0.03)
    np.testing.assert_allclose(cv2[:3], [1, 0, 0], atol=0.03)
    assert cv[2] > 1 and np.isnan(cv[3]) and np.isnan(cv2[3])
    assert all(np.isnan(values).all() for values in interval_variation(np.zeros(0, int), np.zeros(0, int), np.zeros(0), 2))
    again = interval_variation(neuron, np.arange(len(time)) % 2 * 0 + (time > 250), time, 4)  # no interval lies across two trials
    np.testing.assert_allclose(again[0][1], 0, atol=1e-12)


def test_filtered_rates_are_those_of_small_steps():
    rate, bin_ms, tau, dt = np.array([[0.01, 0.0], [0.03, 0.02], [0.0, 0.02]]), 20.0, np.array([15.0, 150.0]), 0.001
    state, found = rate[0].copy(), []
    for now in rate:
        total = 0
        for _ in range(round(bin_ms / dt)):
            state = state + dt / tau * (now - state)
            total = total + state
        found.append(total * dt / bin_ms)
    np.testing.assert_allclose(regions.filtered(rate, bin_ms, tau), found, rtol=1e-3, atol=1e-7)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with static and plastic synapses, trained and tested on two small sessions with regions and single trials."""
    place = tmp_path_factory.mktemp("analyses")
    write_sessions(place, trials=40)
    api.import_recordings([place / "map-1.nwb", place / "map-2.nwb"], place / "r.zarr", preset="map")
    given = ["config=mouse_decision", f"recording.path={place / 'r.zarr'}", "recording.half=odd", "plastic.n_inputs=12", "feedforward=none"]
    given += [
        "static=fixed",
        "static.out_degree=8",
        "trial.dt=0.5",
        "neuron.refractory=0.5",
        "train.iterations=12",
        "test.trials=4",
        "engine.precision=float64",
    ]
    run = api.train(compose(*given), place / "run")
    api.test(run)
    return Run(run.path)


@pytest.fixture(scope="module")
def found(run):
    """All analyses of that run."""
    results, lines, missing = open_results(run), [], []
    with configured(results.config.engine):
        found = analyse.analyse(results, AnalysisOptions(trials=2, neurons=(3, 20)), lines.append, missing.append)
    assert not missing and any("silenced" in line for line in lines)
    return found


def synapses_of(run: Run, checkpoint: bool):
    """(pre, post, weight) of static and of plastic synapses by plain loops over the arrays of network.zarr and the checkpoint."""
    network = zarr.open_group(str(run.network), mode="r")
    indptr, post, weight = (network[f"static/{name}"][...] for name in ("indptr", "post", "class_weight"))
    kind = 1 - network["neuron/excitatory"][...].astype(int)
    static = [(j, post[e], weight[kind[j], kind[post[e]]]) for j in range(len(kind)) for e in range(indptr[j], indptr[j + 1])]
    trained = zarr.open_group(str(run.checkpoint("auto")), mode="r")["plastic/weight"] if checkpoint else network["plastic/weight"]
    trained, pre, size = trained[...], network["plastic/pre"][...], int(network["plastic"].attrs["group_size"])
    plastic = [(pre[n // size, k], n, trained[n, k]) for n in range(len(trained)) for k in range(pre.shape[1]) if pre[n // size, k] >= 0]
    return static, plastic


def test_weights_between_regions_are_those_of_a_loop(run, found):
    result, test = found["region_weights"], zarr.open_group(str(run.test), mode="r")
    names, region, excitatory = list(result["region"]), [str(r) for r in test["region"][...]], test["excitatory"][...]
    static, plastic = synapses_of(run, True)
    _, before = synapses_of(run, False)
    for kind, synapses in zip(result.numbers["kinds"], (static, before, plastic), strict=True):
        number, total = np.zeros((2, len(names), 2, len(names)))
        for pre, post, weight in synapses:
            cell = names.index(region[pre]), 0 if excitatory[pre] else 1, names.index(region[post])
            number[cell] += 1
            total[cell] += weight
        k = result.numbers["kinds"].index(kind)
        np.testing.assert_array_equal(result["number"][k], number)
        np.testing.assert_allclose(result["sum"][k], total, rtol=1e-5, atol=1e-5)
    assert result["neurons"].sum() == len(region)


def test_currents_between_regions_add_up_to_the_simulated_current(found):
    result = found["region_currents"]
    # the test samples fast static currents only once a ms: 30 bins, 2 conditions and 4 trials are averaged
    total, rest = (result[name].reshape(2, 5, 30, -1).mean(axis=2) for name in ("total", "rest"))
    assert np.ptp(total) > 0.1
    assert np.abs(rest).max() < 0.25 * np.ptp(total) and abs(rest.mean()) < 0.02 * np.ptp(total)
    assert abs(result["rest"][:, :5].mean()) < 0.1 * np.ptp(total)  # at the start, where currents come from spikes before
    assert np.corrcoef(total.ravel(), (total - rest).ravel())[0, 1] > 0.95
    assert np.abs(result["current"]).max(axis=(1, 2, 3, 4, 5)).min() > 0.01  # static and plastic


def test_eigenvalues_are_those_of_the_dense_matrix(run, found, monkeypatch):
    static, plastic = synapses_of(run, True)
    matrix = np.zeros((31, 31))
    for pre, post, weight in static + plastic:
        matrix[post, pre] += weight
    expected = np.linalg.eigvals(matrix)
    expected = np.sort_complex(expected)
    np.testing.assert_allclose(np.sort_complex(found["eigenvalues"]["after"] @ [1, 1j]), expected, rtol=1e-6, atol=1e-6)
    monkeypatch.setattr(regions, "MAX_DENSE", 10)
    monkeypatch.setattr(regions, "LEADING", 6)
    results = open_results(run)
    with configured(results.config.engine):
        some = regions.eigenvalues(analyse._Inputs(results, AnalysisOptions(), print).coupling, lambda _: None)
    assert not some.numbers["complete"]
    np.testing.assert_allclose(np.hypot(*some["after"].T), np.sort(np.abs(expected))[::-1][:6], rtol=1e-6)


def test_a_silenced_region_loses_its_rate_and_others_change(found):
    result = found["silencing"]
    np.testing.assert_allclose(np.diag(result["change"]), -result["control"], rtol=1e-9)
    others = result["change"][~np.eye(len(result["control"]), dtype=bool)]
    assert (np.abs(others) > 0.05).sum() >= 4
    assert (result["change_se"][~np.eye(len(result["control"]), dtype=bool)] > 0).all()


def test_a_single_neuron_obeys_its_equation(run, found):
    result, config = found["single_neuron"], open_results(run).config
    voltage, spiked = result["voltage"], result["spiked"]
    current = result["static_current"] + result["plastic_current"]
    dt, tau, sigma = config.trial.dt, config.neuron.tau_m, config.noise.sigma
    free = ~spiked[:-1]
    steps = round(config.neuron.refractory / dt)
    for back in range(1, steps + 1):  # not refractory
        free[back:] &= ~spiked[:-1][: len(free) - back]
    free &= ~spiked[1:]
    noise = voltage[1:] - (voltage[:-1] + dt / tau * (current[1:] - voltage[:-1]))
    # what is left of  v + noise + dt/tau (I - v - noise)  is noise of a known s.d. and mean 0, far from the threshold
    left = noise[free & (voltage[:-1] < 0.3)]
    assert len(left) > 1000
    assert left.std() == pytest.approx(sigma * np.sqrt(dt / tau) * (1 - dt / tau), rel=0.03)
    assert abs(left.mean()) < 5 * left.std() / np.sqrt(len(left))
    assert (voltage[:-1][spiked[:-1]] == config.neuron.reset).all()
    assert spiked.any() and result["time"][0] == pytest.approx(-2.0)


def lines_without_a_name(axes):
    """Lines of more than two points with a colour or style in no legend; the label of the axes names a single line."""
    legends = [legend for legend in (axes.get_legend(), *axes.figure.legends) if legend is not None]
    colours, styles = ({get(line) for legend in legends for line in legend.get_lines()} for get in (Line2D.get_color, Line2D.get_linestyle))
    lines = [line for line in axes.get_lines() if len(line.get_xdata()) > 2 and line.get_linestyle() != "None"]
    return [line for line in lines if line.get_color() not in colours or line.get_linestyle() not in styles] if len(lines) > 1 else []


def test_what_is_undefined_has_words_and_no_panel(run, found, monkeypatch):
    """As for a single trained neuron: no pairs, no correlation over neurons; and numbers that are stored as null."""
    results, empty, nan = open_results(run), np.zeros(0), np.full(3, np.nan)
    values = {
        "variability": {f"{name}_correlation_{kind}": empty for name in ("noise", "signal") for kind in ("data", "model")},
        "selectivity": {"correlation": nan, "ceiling": nan},
    }
    drawn = {}
    for name, numbers in {"variability": {}, "selectivity": {}, "coding_direction": {"cosine": None, "separation": float("nan")}}.items():
        arrays = {key: dataclasses.replace(found[name].arrays[key], values=each) for key, each in values.get(name, {}).items()}
        result = dataclasses.replace(found[name], arrays={**found[name].arrays, **arrays}, numbers={**found[name].numbers, **numbers})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            drawn[name] = analysis_figures.draw(name, result, results)
            texts = [axes.get_title("left") for axes in drawn[name].compose().axes] + [
                words for _, words in analyse.summary({name: result})
            ]
        assert "nan" not in " ".join(texts) and "None" not in " ".join(texts)
    assert drawn["variability"].title == "Variability of single trials (undefined: noise correlation, signal correlation)"
    assert len(drawn["variability"].panels) == 3 and not any("Correlation" in panel.label for panel in drawn["selectivity"].panels)
    assert any("undefined" in text for text in texts)


def test_the_best_and_the_worst_neuron_are_named(run):
    results = open_results(run)
    with configured(results.config.engine):
        result = analyse._single_neuron(analyse._Inputs(results, AnalysisOptions(), print))
    score = np.nanmean(results.score("heldout_correlation").astype(float), axis=0)
    assert result["neuron"][[0, 2]].tolist() == [np.nanargmax(score), np.nanargmin(score)]
    assert result.numbers["fits"][0] == f"best fit (r = {np.nanmax(score):.2f})" and result.numbers["fits"][2].startswith("worst fit (r = ")
    axes = analysis_figures.draw("single_neuron", result, results).compose().axes
    assert axes[0].get_title("left").startswith("best fit (r = ") and axes[4].get_title("left").startswith("worst fit (r = ")
    assert [text.get_text() for text in axes[1].get_legend().get_texts()][-1] == "threshold"


def test_results_are_stored_and_drawn_until_the_next_test(run, found, capsys, caplog, monkeypatch):
    stored = analyse.stored(run)
    assert list(stored) == list(ANALYSES) == list(found)
    np.testing.assert_allclose(stored["silencing"]["change"], found["silencing"]["change"], rtol=1e-6)
    assert stored["decoding"].numbers["chance"] == 0.5
    results = open_results(run)
    drawn = dict(analysis_figures.figures(results, stored))
    assert tuple(drawn) == analysis_figures.FIGURES
    for figure in drawn.values():
        panels = [axes for axes in figure.compose().axes if axes.get_label() != "<colorbar>"]
        assert len(panels) >= len(figure.panels) and any(axes.get_xlabel() for axes in panels)
        assert all(axes.has_data() for axes in panels if axes.get_visible())
        assert not [axes.get_title("left") for axes in panels if lines_without_a_name(axes)]
        assert cut_texts_of(figure) == []
    assert {f"analysis_{name}" for name in ANALYSES} <= run_figures.available(results).keys()
    dataset = api.analyse(run, only=["silencing"], trials=1, window=np.array([-0.4, 0.0]))["silencing"]
    assert dataset["change"].dims == ("silenced", "region") and dataset.attrs["window"] == [-0.4, 0]
    assert set(dataset["silenced"].values) == set(dataset["region"].values) and dataset["change"].attrs["units"] == "Hz"
    dispatch(["analyse", str(run.path), "only=[trajectories]"])
    assert "Trajectories: the model explains" in capsys.readouterr().out
    assert list(analyse.stored(run)) == list(ANALYSES)  # the others stay
    with monkeypatch.context() as patched:
        patched.setattr(analyse, "VERSION", analyse.VERSION + 1)
        assert analyse.stored(run) == {}
    assert "another version" in caplog.text and f"rlsnet analyse {run.path}" in caplog.text
    api.test(run, trials=2)
    assert analyse.stored(run) == {}
    assert not {name for name in run_figures.available(results) if name.startswith("analysis_")}


def test_each_analysis_has_a_line_with_its_number(run, found):
    lines = dict(analyse.summary(found))
    assert [name.replace(" ", "_") for name in lines] == list(analyse.ANALYSES) and not any("-0.00" in line for line in lines.values())
    static, plastic = synapses_of(run, True)
    matrix = np.zeros((31, 31))
    for pre, post, weight in static + plastic:
        matrix[post, pre] += weight
    assert f"largest absolute value {np.abs(np.linalg.eigvals(matrix)).max():.3g} threshold ms" in lines["eigenvalues"]
    region = [str(name) for name in zarr.open_group(str(run.test), mode="r")["region"][...]]
    squares, between = (sum(w**2 for pre, post, w in plastic if region[pre] != region[post] or every) for every in (True, False))
    assert lines["region weights"].startswith(f"{100 * between / squares:.0f} % of the summed squares of plastic weights are of synapses")
    spikes = found["single_neuron"]["spiked"].sum(axis=0)
    assert lines["single neuron"].startswith(f"neuron 3 fires {spikes[0]} spike")
    names, change = found["silencing"]["region"], found["silencing"]["change"].copy()
    np.fill_diagonal(change, 0)
    silenced, other = np.argwhere(np.abs(change) == np.abs(change).max())[0]
    assert lines["silencing"].startswith(f"silencing {names[silenced]} changes {names[other]} most: from ")
    total = np.abs(found["region_currents"]["current"].sum(axis=(0, 4)))  # condition, time, pre, post
    between = total.sum() - np.einsum("ctpp->", total)
    assert lines["region currents"].endswith(f" {100 * between / total.sum():.0f} % come from another region")


def test_what_is_impossible_is_said(run, tmp_path, capsys):
    for arguments, message in (
        (["only=[pca]"], "only=pca: no such analysis; expected trajectories, coding_direction"),
        (["conditions=[left,up]"], "no trained condition up; expected two of left, right"),
        (["conditions=[left]"], "expected two, such as [left,right]"),
        (["window=[0.5,3]"], "expected a start and an end within -2 to 1 s"),
        (["neurons=[64]", "only=[single_neuron]"], "no neuron 64; expected numbers from 0 to 30"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            dispatch(["analyse", str(run.path), *arguments])
    sizes = "network.n_neurons=60", "static.out_degree=8", "plastic.n_inputs=6"
    tiny = api.train(compose("config=tiny", "train.iterations=1", *sizes), tmp_path / "tiny")
    with pytest.raises(UserError, match="has not been tested"):
        dispatch(["analyse", str(tiny.path)])
    api.test(tiny, trials=2, spikes=False)
    dispatch(["analyse", str(tiny.path)])
    said = capsys.readouterr().err
    assert (
        "No coding direction: the network was trained in one condition (0)" in said
        and "No silencing: the recording names no regions" in said
    )
    assert "tiny/test.zarr: has no spikes" in said and (tiny.figures / "analysis_eigenvalues.png").exists()


def test_a_pair_that_is_no_pair(run):
    with pytest.raises(UserError, match="expected two different conditions"):
        _ = analyse._Inputs(open_results(run), AnalysisOptions(conditions=("left", "left")), print).pair
