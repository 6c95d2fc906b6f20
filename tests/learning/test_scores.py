"""Scores of rates: closed forms on simulated Poisson units, missing data, training on half of the trials, and the places that show them."""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
import yaml
import zarr
from conftest import compose
from scipy.ndimage import gaussian_filter1d
from scipy.stats import poisson

from rlsnet.analysis import inspect
from rlsnet.analysis.test_log import log_results
from rlsnet.cli.job import run_job
from rlsnet.config.load import completed, to_dict
from rlsnet.data import recordings
from rlsnet.errors import UserError
from rlsnet.io import zarr_store
from rlsnet.learning import scores, targets
from rlsnet.runs import checkpoint, progress
from rlsnet.runs.folder import Run
from rlsnet.simulation.state import VALIDATION, Dynamics, TrialKeys
from rlsnet.workflows import prepare, test_store, testing, training
from rlsnet.workflows.evaluation import run_trial
from rlsnet.workflows.validation import Validation

TRIAL = compose("config=mouse_decision").trial  # 150 bins of 20 ms
W = scores.window_weights(TRIAL)
N, SECONDS = 1500, 0.02


@pytest.fixture(scope="module")
def truth():
    """[M, N] Hz, smooth rates of units from some 2 to 40 Hz."""
    random = np.random.default_rng(0)
    wave = gaussian_filter1d(random.normal(size=(150, N)), 8, axis=0)
    return np.exp(0.6 * wave / wave.std(axis=0)) * np.exp(random.normal(2.2, 0.7, N))


def observed(truth, trials, seed):
    """[M, N] Hz, the mean of Poisson trials."""
    return np.random.default_rng(seed).poisson(truth * trials * SECONDS) / (trials * SECONDS)


def counts_of(rate, trials=2):
    """[2, M, N] counts that a model without noise has, such that its rate is the given one."""
    return np.stack([rate * SECONDS * (trials - trials // 2), rate * SECONDS * (trials // 2)])


def correlations(x, y):
    return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip((W @ x).T, (W @ y).T, strict=True)])


def test_the_ceiling_is_the_correlation_of_the_true_rate_with_the_data(truth, record_check):
    """Estimated from the halves alone, against half the trials and against all."""
    odd, even = observed(truth, 40, 1), observed(truth, 40, 2)
    against_half = scores.rate_scores(TRIAL, counts_of(truth), 2, odd, even, (odd, even))
    both = (odd + even) / 2
    against_all = scores.rate_scores(TRIAL, counts_of(truth), 2, both, None, (odd, even))
    for got, data, what in ((against_half, even, "half of 80"), (against_all, both, "all 80")):
        true = correlations(truth, data)
        error = got["noise_ceiling"] - true
        together = np.corrcoef(got["noise_ceiling"], true)[0, 1]
        seen = f"{got['noise_ceiling'].mean():.4f} and {true.mean():.4f}, correlated {together:.3f} over units"
        record_check("noise ceiling", f"mean over {N} Poisson units, and correlation of their true rate with {what} trials", "equal", seen)
        assert abs(error.mean()) < 4 * error.std() / np.sqrt(N) + 0.002
        assert together > 0.8
        np.testing.assert_allclose(got["heldout_correlation" if data is even else "rate_correlation"], true, rtol=1e-9)
    assert against_all["noise_ceiling"].mean() > against_half["noise_ceiling"].mean() + 0.01
    np.testing.assert_allclose(against_half["reliability"], correlations(odd, even), rtol=1e-9)
    assert "heldout_correlation" not in against_all


@pytest.mark.parametrize("heldout", [True, False])
def test_a_perfect_model_reaches_the_ceiling_and_explains_all_of_the_signal(truth, record_check, heldout):
    """Also one that is known from 10 trials only, as then its own noise is allowed for; the mean alone explains nothing of it."""
    odd, even = observed(truth, 40, 3), observed(truth, 40, 4)
    data = (odd, even) if heldout else ((odd + even) / 2, None)
    random = np.random.default_rng(5)
    few = np.stack([random.poisson(truth * SECONDS * 5), random.poisson(truth * SECONDS * 5)])
    flat = np.broadcast_to(even.mean(axis=0), truth.shape)
    for name, counts, trials, expected in (
        ("the true rate", counts_of(truth), 2, 1),
        ("10 trials of it", few, 10, 1),
        ("the mean", counts_of(flat), 2, 0),
    ):
        got = scores.rate_scores(TRIAL, counts, trials, *data, (odd, even))
        signal, error = got["signal_explained"], np.nanstd(got["signal_explained"]) / np.sqrt(N)
        record_check(
            "signal explained", f"mean over {N} Poisson units of {name}, held out: {heldout}", f"{expected}", f"{np.nanmean(signal):.3f}"
        )
        assert abs(np.nanmean(signal) - expected) < 4 * error + 0.02
        if expected == 0:
            np.testing.assert_allclose(signal, 0, atol=1e-6)
            assert np.isnan(got["rate_correlation"]).all() and np.isnan(got["model_ceiling"]).all()
            continue
        reached = got["heldout_correlation" if heldout else "rate_correlation"]
        limit = got["noise_ceiling"] * got["model_ceiling"]
        record_check("a perfect model's correlation", f"{name}, held out: {heldout}", f"{limit.mean():.4f}", f"{reached.mean():.4f}")
        assert reached.mean() == pytest.approx(limit.mean(), abs=0.005 if trials == 2 else 0.02)  # from few trials, estimated low
        own = correlations(counts.sum(axis=0), truth)
        assert got["model_ceiling"].mean() == pytest.approx(own.mean(), abs=0.02)


def test_explained_variance_and_rate_error_by_hand(truth):
    data, model = observed(truth, 20, 6)[:, :5], truth[:, :5] + 3
    got = scores.rate_scores(TRIAL, counts_of(model), 2, data)
    residual, smooth = W @ model - W @ data, W @ data
    expected = 1 - np.sum(residual**2, axis=0) / np.sum((smooth - smooth.mean(axis=0)) ** 2, axis=0)
    np.testing.assert_allclose(got["explained_variance"], expected, rtol=1e-9)
    np.testing.assert_allclose(got["rate_error"], model.mean(axis=0) - data.mean(axis=0), rtol=1e-9)
    assert set(got) == {"rate_correlation", "model_ceiling", "explained_variance", "rate_error"}


def test_missing_bins_count_as_if_they_had_never_been(truth):
    """With unknown bins at its end a trial scores as a shorter one; unknown and silent units are undefined, and disturb nobody."""
    random = np.random.default_rng(7)
    counts = random.poisson(truth[:, :4] * SECONDS * 5, (2, 150, 4))
    odd, even = observed(truth[:, :4], 40, 8), observed(truth[:, :4], 40, 9)
    short = dataclasses.replace(TRIAL, duration=2000.0)
    expected = scores.rate_scores(short, counts[:, :100], 10, odd[:100], even[:100], (odd[:100], even[:100]))
    for each in (odd, even):
        each[100:] = np.nan
    with np.errstate(all="raise"):
        got = scores.rate_scores(TRIAL, counts, 10, odd, even, (odd, even))
        for name in expected:
            np.testing.assert_allclose(got[name], expected[name], rtol=1e-9, err_msg=name)
        odd[:, 0] = even[:, 1] = np.nan
        odd[:100, 2] = even[:100, 2] = counts[:, :, 2] = 0
        one = scores.rate_scores(TRIAL, counts, 10, odd, even, (odd, even))
    for name in expected:
        assert one[name][3] == got[name][3]
        assert np.isnan(one[name][1]) or name == "rate_correlation"
    assert np.isnan(one["reliability"][:3]).all() and np.isnan(one["explained_variance"][2]) and one["rate_error"][2] == 0
    assert np.isnan(one["rate_correlation"][0]) and one["heldout_correlation"][0] == pytest.approx(got["heldout_correlation"][0])


def test_summary_is_of_neurons_with_the_mean_of_their_conditions():
    values = np.array([[0.1, 0.2, np.nan, 0.4], [0.3, np.nan, np.nan, 0.8]])
    got = scores.summary({"rate_correlation": values}, np.array([True, True, False, False]), ["left", "right"], np.array(list("abbb")))
    assert got["all"]["rate_correlation"] == {"mean": pytest.approx(1 / 3), "median": pytest.approx(0.2), "n": 3}
    assert got["by_class"]["inh"]["rate_correlation"] == {"mean": pytest.approx(0.6), "median": pytest.approx(0.6), "n": 1}
    assert got["by_region"]["b"]["rate_correlation"]["n"] == 2 and list(got["by_region"]) == ["a", "b"]
    assert got["by_condition"]["right"]["rate_correlation"]["mean"] == pytest.approx(0.55)


UNITS = 90
COUNTS = np.random.default_rng(2).poisson(0.2, (6, 20, UNITS))  # [trial, M, N], four trials of one condition and two of the other
KERNEL = [0.2, 0.5, 0.3]  # of the rates; a bin later counts .2, a bin earlier .3


def smoothed(psth):
    """[C, M, n] the model's rates as they are compared."""
    inside = np.ones(psth.shape[1])
    inside[0], inside[-1] = 1 - KERNEL[2], 1 - KERNEL[0]
    before, after = (np.pad(psth, ((0, 0), width, (0, 0))) for width in ((1, 0), (0, 1)))
    return (KERNEL[1] * psth + KERNEL[2] * before[:, :-1] + KERNEL[0] * after[:, 1:]) / inside[:, None]


def write(path, halves, **columns):
    """A recording.zarr as `rlsnet import` writes one; halves [2, C, M, N]."""
    root = zarr.create_group(str(path), attributes={"format": "rlsnet-recording", "version": 1, "bin_ms": 20.0})
    root.attrs["smoothing"] = KERNEL
    root["rate"] = halves.mean(axis=0)
    if "no_halves" not in columns:
        stored = root.create_array("rate_half", shape=halves.shape, dtype="float32", chunks=(1, *halves.shape[1:3], 40))
        stored[...] = halves
        zarr_store.write(root, "half", np.array(["odd", "even"]), ["half"])
    put = {
        "counts": COUNTS,
        "half": np.arange(6)[:, None] % 2 * np.ones(UNITS, int),
        "condition": np.arange(6) // 4,
        "unit": np.arange(UNITS),
    }
    for name, values in put.items():
        root[f"trials/0/{name}"] = values.astype(np.int8)
    zarr_store.write(root, "unit/region", np.array(["ALM", "striatum", "thalamus"])[np.arange(halves.shape[3]) % 3], ["unit"])
    zarr_store.write(root, "unit/session", np.arange(halves.shape[3]) // 30, ["unit"])
    return path


SMALL = ["config=mouse_decision", "network.n_neurons=60", "plastic.n_inputs=8", "train.iterations=2", "train.checkpoint_every=1",
         "trial.stim_on=20", "trial.stim_off=60", "trial.duration=400", "test.trials=3", "progress=off"]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(folder, halves, config): a run on the odd trials of 60 of 90 units, tested."""
    folder = tmp_path_factory.mktemp("half")
    random = np.random.default_rng(1)
    halves = random.gamma(2, 5, (2, 2, 20, UNITS)).astype("float32")
    halves[:, :, :, 8] = np.nan
    halves[1, 0, 3:6, 13] = np.nan
    write(folder / "r.zarr", halves)
    config = compose(*SMALL, f"recording.path={folder}/r.zarr", "recording.half=odd")
    training.run_training(config, Run(folder / "run"), resumed=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_store, "SCORED_NEURONS", 25)  # so that scores come from several blocks of neurons
        testing.run_test(config, Run(folder / "run"))
    return folder, halves, config


def deviations(test, data, weights):
    """[C, T, M, n] smoothed rates of single trials, from their stored spikes, minus recorded rates [C, M, n]; 0 where unknown."""
    indptr, step, neuron = (test[f"spikes/{name}"][...] for name in ("trial_indptr", "step", "neuron"))
    points, trials = data.shape[1], (len(indptr) - 1) // len(data)
    counts = np.zeros((len(indptr) - 1, points, data.shape[2]))
    for trial, (first, last) in enumerate(itertools.pairwise(indptr)):
        np.add.at(counts[trial], ((step[first:last] - 600) // 200, neuron[first:last]), 1)  # bins of 20 ms from 60 ms on, steps of .1 ms
    rates = np.stack([weights(each) for each in 50 * counts.reshape(len(data), trials, points, -1)])
    return np.nan_to_num(rates - data[:, None])


def test_training_sees_one_half_and_the_test_the_other(trained):
    """Targets come from the odd trials of the units chosen, scores from the even ones; both by an own reading of the store."""
    folder, halves, config = trained
    units = recordings.open_recording(folder / "r.zarr").choose(60, config.seed)
    test = zarr.open_group(str(Run(folder / "run").test), mode="r")
    np.testing.assert_array_equal(test["unit"][...], units)
    assert [str(r) for r in test["region"][...]] == [("ALM", "striatum", "thalamus")[u % 3] for u in units]
    assert test["session"][...].tolist() == (units // 30).tolist()
    np.testing.assert_array_equal(test["rate_target"][...], halves[0][:, :, units])
    np.testing.assert_array_equal(test["rate_heldout"][...], halves[1][:, :, units])
    network = zarr.open_group(str(Run(folder / "run").network), mode="r")
    odd, target = halves[0][:, :, units], network["target"][...]
    assert np.array_equal(np.isnan(target), np.isnan(odd)) and 8 in units and 13 in units
    for c, n in np.ndindex(2, 60):  # a current grows with the rate that it is for
        order = np.argsort(np.maximum(odd[c, :, n], 0.1), kind="stable")
        assert np.all(np.diff(target[c, order, n]) >= -1e-6) or units[n] == 8
    weights, psth = scores.window_weights(config.trial), smoothed(test["psth"][...].astype(float))
    known = np.flatnonzero(~np.isin(units, (8, 13)))
    for c, n in [(0, known[0]), (1, known[5]), (1, known[-1])]:
        pairs = {"heldout_correlation": halves[1], "rate_correlation": halves[0]}
        for name, half in pairs.items():
            expected = np.corrcoef(weights @ psth[c, :, n], weights @ half[c, :, units[n]])[0, 1]
            assert test[name][c, n] == pytest.approx(expected, abs=1e-5)
        reliability = np.corrcoef(*(weights @ half[c, :, units[n]] for half in halves))[0, 1]
        assert test["reliability"][c, n] == pytest.approx(reliability, abs=1e-5)
        assert test["rate_error"][c, n] == pytest.approx(float(np.mean(psth[c, :, n] - halves[1][c, :, units[n]])), abs=1e-4)
    assert np.isnan(test["heldout_correlation"][...][:, units == 8]).all()
    leaf = test.attrs["scores"]["by_region"]["thalamus"]["heldout_correlation"]
    mine = np.nanmean(test["heldout_correlation"][...][:, (units % 3 == 2) & (units != 8)], axis=0)
    assert leaf == {"mean": pytest.approx(mine.mean()), "median": pytest.approx(np.median(mine)), "n": len(mine)}
    assert network["recorded_rate"][...] == pytest.approx(odd.mean(axis=1), rel=1e-5, nan_ok=True)


def test_the_population_block_is_of_the_whole_population(trained):
    """Of the other half and of the baselines by plain sums; of the network, with its standard error, from the stored spikes."""
    folder, halves, _ = trained
    test = zarr.open_group(str(Run(folder / "run").test), mode="r")
    population = test.attrs["scores"]["population"]
    odd, even = (half[:, :, test["unit"][...]].astype(float) for half in halves)
    even[np.isnan(odd)] = np.nan
    known = np.isfinite(odd).any(axis=(0, 1))
    single = deviations(test, even, smoothed)
    odd, even, psth = odd[..., known], even[..., known], smoothed(test["psth"][...].astype(float))[..., known]
    total = np.nansum((even - np.nanmean(even, axis=(0, 1))) ** 2)
    predictions = {"ceiling": odd, "mean_rate": np.nanmean(odd, axis=(0, 1)), "condition_average": np.nanmean(odd, axis=0)}
    for name, prediction in predictions.items():
        assert population["all"][name] == pytest.approx(1 - np.nansum((prediction - even) ** 2) / total, abs=1e-6)
    pairs = np.einsum("csmn,ctmn->cst", single, single)
    left_out = [[pairs[c][s, t] for s, t in itertools.combinations(range(3), 2)] for c in range(2)]  # each without one of three trials
    assert population["all"]["model"] == pytest.approx(1 - np.mean(left_out, axis=1).sum() / total, abs=1e-6)
    assert population["standard_error"] == pytest.approx(np.sqrt(2 * np.var(left_out, axis=1).sum()) / total, rel=1e-5)
    sizes = [(test["region"][...] == name).sum() for name in population["by_region"]]
    assert len(sizes) == 3 and sizes == sorted(sizes, reverse=True) and population["trials"] == 3
    assert population["all"]["untrained"] < 1 and population["all"]["linear"] < 1
    assert population["linear"]["neurons"] == population["neurons"] == known.sum()
    bias = np.nanmean(psth - even, axis=1).mean(axis=1)
    assert [each["model"] for each in population["rate_bias"].values()] == pytest.approx(bias, abs=1e-3)
    assert population["trained_on"] == "odd"


def test_validation_is_of_rates_that_the_currents_give_and_of_the_trials_trained_on(trained):
    """By plain sums over the same trials, with the transfer function of the targets, whose inverse takes it back to the currents."""
    folder, halves, config = trained
    run, config = Run(folder / "run"), dataclasses.replace(config, train=dataclasses.replace(config.train, validation_trials=2))
    network, target = (getattr(prepare.reopen(config, run), name) for name in ("network", "target"))
    path, recording = run.checkpoint("last"), prepare.find_recording(config, run)
    weights = checkpoint.load_weights(run.open_checkpoint(path), path, network)
    rate, table = np.zeros((2, 20, 60)), targets.rate_table(config, network)
    for condition, trial in np.ndindex(2, 2):
        keys = TrialKeys.create(config.seed, VALIDATION)
        result, _ = run_trial(Dynamics.from_config(config), False, network, weights, keys, jnp.int32(trial), jnp.int32(condition))
        rate[condition] += [500 * np.asarray(table(row)) for row in np.asarray(result.current) + np.asarray(network.bias)]
    odd = halves[0][..., recording.choose(60, config.seed)].astype(float)
    known = np.isfinite(odd).any(axis=(0, 1))
    data, rate = odd[..., known], smoothed(rate)[..., known]
    expected = 1 - np.nansum((rate - data) ** 2) / np.nansum((data - np.nanmean(data, axis=(0, 1))) ** 2)
    assert Validation(config, network, target, recording)(weights) == pytest.approx(expected, rel=1e-4)
    back = 1000 * np.asarray(table(jnp.asarray(target[1, 7] + np.asarray(network.bias))))[known]
    np.testing.assert_allclose(back, np.maximum(odd[1, 7, known], 0.1), rtol=0.02)


def test_bits_per_spike_are_of_single_held_out_trials(trained):
    """By SciPy's Poisson distribution, trial by trial; rates are at least .1 Hz. The synthetic counts have nothing to do with the rates."""
    folder, halves, _ = trained
    test = zarr.open_group(str(Run(folder / "run").test), mode="r")
    units, psth = test["unit"][...], smoothed(test["psth"][...].astype(float))
    bits = test.attrs["scores"]["population"]["bits_per_spike"]
    odd = halves[0][..., units].astype(float)
    for name, rate in {"model": psth, "ceiling": odd}.items():
        known = np.isfinite(odd).any(axis=(0, 1))
        log_likelihood = spikes = 0
        for trial in (1, 3, 5):
            counts = COUNTS[trial][:, units[known]]
            expected, mean = (np.maximum(r, 0.1) * 0.02 for r in (rate[trial // 4][:, known], odd[..., known].mean(axis=(0, 1))))
            log_likelihood += np.sum(poisson.logpmf(counts, expected) - poisson.logpmf(counts, mean))
            spikes += counts.sum()
        assert bits["all"][name] == pytest.approx(log_likelihood / spikes / np.log(2), rel=1e-4)
    assert set(bits["by_condition"]) == {"0", "1"} and "thalamus" in bits["by_region"]


def test_metrics_know_variance_and_rates(trained):
    """From the currents and spikes of a first iteration, which does not depend on what is learned at its end."""
    folder, _, config = trained
    lines = Run(folder / "run").read_metrics()
    assert all(line["explained_variance"] < 1 and abs(line["rate_error_hz"]) < 50 for line in lines)
    other = dataclasses.replace(config, train=dataclasses.replace(config.train, iterations=1))
    training.run_training(other, Run(folder / "parts"), resumed=False)
    training.run_training(config, Run(folder / "parts"), resumed=True)
    assert [{**a, "seconds": 0} for a in lines] == [{**b, "seconds": 0} for b in Run(folder / "parts").read_metrics()]


def test_info_and_the_log_show_the_scores(trained, capsys, caplog):
    folder, _, config = trained
    inspect.show(str(folder / "run"))
    shown = capsys.readouterr().out
    assert (
        "the even trials, held out; trained on the odd ones" in shown
        and "held-out" in shown
        and "SNR-corrected" in shown
        and "striatum" in shown
    )
    with caplog.at_level("INFO"):
        log_results(Run(folder / "run"), testing.run_test(config, Run(folder / "run")))
    assert "on the odd trials, which were trained on" in caplog.text and "thalamus" in caplog.text
    for text in (shown, caplog.text):
        assert "of the variance of the held-out" in " ".join(text.replace("│", "").split()) and "other half of the trials" in text
    assert "The model's mean rate in condition 0 is wrong by" in caplog.text


def refused(folder, config, message, run=None, test=True):
    with pytest.raises(UserError) as error:
        testing.run_test(config, run or Run(folder / "run")) if test else prepare.prepare(config, progress.Progress("off"), True)
    assert message in str(error.value) and "\n" not in str(error.value)


def with_recording(config, **changes):
    return dataclasses.replace(config, recording=dataclasses.replace(config.recording, **changes))


def test_a_half_cannot_be_mistaken_for_the_other(trained, tmp_path):
    """Not by another setting, another recording under the path, weights of another run, nor a recording without halves."""
    folder, halves, config = trained
    run = Run(folder / "run")
    values = {**to_dict(config), "resume": None, "run": None}
    requested = {**values, "recording": {**values["recording"], "half": "even"}}
    with pytest.raises(UserError, match="recording.half=even: .* was made with odd; this cannot change"):
        run_job("test", requested, ["recording.half=even"], run.path)
    write(tmp_path / "other.zarr", halves[::-1])
    refused(folder, with_recording(config, path=str(tmp_path / "other.zarr")), "is not the recording that")
    refused(folder, with_recording(config, path=str(tmp_path / "gone.zarr")), "gone.zarr: no such folder")
    write(tmp_path / "without.zarr", halves, no_halves=True)
    refused(folder, with_recording(config, path=str(tmp_path / "without.zarr")), "has no array rate_half")
    refused(folder, with_recording(config, path=str(tmp_path / "without.zarr")), "expected null, which trains on all trials", test=False)
    given = dataclasses.replace(config, network=dataclasses.replace(config.network, load=str(run.network), n_neurons=None))
    refused(folder, given, "recording.half=odd: expected null, as", test=False)
    training.run_training(even := with_recording(config, half="even"), Run(tmp_path / "even"), resumed=False)
    theirs = dataclasses.replace(config, test=dataclasses.replace(config.test, checkpoint=str(tmp_path / "even/checkpoints/000002.zarr")))
    refused(folder, theirs, "was trained on even trials, and so on trials that are held out here")
    assert even.recording.half == "even"
    with pytest.raises(UserError, match="recording.half=odd: expected null with target=sinusoid, which takes no rates"):
        compose("config=tiny", "recording.half=odd")
    root = zarr.open_group(str(write(tmp_path / "swapped.zarr", halves)))
    root["half"][...] = np.array(["even", "odd"])
    with pytest.raises(UserError, match="half is even, odd; expected odd, even"):
        recordings.open_recording(tmp_path / "swapped.zarr")


def test_all_trials_are_compared_with_the_ceiling_of_all(trained, tmp_path, caplog):
    """Without recording.half, with halves or without, and with a recording that has changed since: a warning."""
    folder, halves, config = trained
    whole = with_recording(config, half=None)
    with caplog.at_level("INFO"):
        log_results(Run(tmp_path / "all"), testing.run_simulation(whole, Run(tmp_path / "all")))
    assert "on the trials that were trained on; there is no held-out score, for which training needs recording.half=odd" in caplog.text
    assert "trained and tested on the same trials; with recording.half=odd, half of them are held out" in caplog.text
    test = zarr.open_group(str(Run(tmp_path / "all").test), mode="r")
    r, ceiling = test["reliability"][...], test["noise_ceiling"][...]
    np.testing.assert_allclose(ceiling[r > 0], np.sqrt(2 * r[r > 0] / (1 + r[r > 0])), rtol=1e-5)
    assert np.isnan(ceiling[~(r > 0)]).all() and "heldout_correlation" not in test and test.attrs["trained_on"] == "all"
    old = yaml.safe_load((folder / "run" / "config.yaml").read_text())
    del old["recording"]["half"], old["perturb"]
    assert completed(old, to_dict(whole)) == to_dict(dataclasses.replace(whole, train=config.train))
    training.run_training(whole, Run(tmp_path / "run"), resumed=False)
    with caplog.at_level("INFO"):
        testing.run_test(with_recording(whole, path=str(write(tmp_path / "new.zarr", halves + 1))), Run(tmp_path / "run"))
    assert "its rates differ" in caplog.text
    rate, psth = halves.mean(axis=0)[..., test["unit"][...]].astype(float), smoothed(test["psth"][...].astype(float))
    known = np.isfinite(rate).any(axis=(0, 1))
    rate, psth = rate[..., known], psth[..., known]
    total = np.nansum((rate - np.nanmean(rate, axis=(0, 1))) ** 2)
    noise = np.nansum((psth - rate) ** 2) - (1 - test.attrs["scores"]["population"]["all"]["model"]) * total
    untrained = zarr.open_group(str(Run(tmp_path / "run").test), mode="r").attrs["scores"]["population"]["all"]["untrained"]
    assert untrained == pytest.approx(1 - (np.nansum((psth - rate - 1) ** 2) - noise) / total, rel=1e-5)  # the weights of the simulation


@pytest.mark.parametrize(("size", "defined"), [(0.0, False), (1e-9, False), (1e-3, True)])
def test_a_current_of_rounding_errors_has_no_correlation(size, defined):
    """1e-9 of the target, which a GPU can make of a sum that is 0 on a CPU, counts as 0."""
    target = jnp.asarray(np.random.default_rng(0).normal(size=(50, 1)), jnp.float32)
    r = scores.pearson(target, jnp.float32(size) * target)
    assert bool(jnp.isfinite(r[0])) == defined
    assert not defined or r[0] == pytest.approx(1)


@pytest.mark.parametrize("n", [20, 23])
def test_currents_are_compared_with_targets_in_blocks_of_neurons(monkeypatch, n):
    """As all at once, also where the last block overlaps the one before; bins without a target do not count."""
    random, shape = np.random.default_rng(0), (2, TRIAL.n_points, n)
    target = jnp.asarray(np.where(random.random(shape) < 0.2, np.nan, random.normal(size=shape)), jnp.float32)
    currents = jnp.asarray(random.normal(size=shape[1:]), jnp.float32)
    whole = scores.windowed_moments(TRIAL, target, jnp.int32(1), currents)
    monkeypatch.setattr(scores, "NEURONS_PER_BLOCK", 5)
    for one, other in zip(scores.windowed_moments(TRIAL, target, jnp.int32(1), currents), whole, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(whole.mean_y, np.nanmean(np.where(np.isnan(target[1]), np.nan, W @ currents), axis=0), atol=1e-6)
