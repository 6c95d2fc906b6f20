"""Population explained variance: closed forms on simulated Poisson units, and the same sums in plain NumPy."""

import numpy as np
import pytest
import zarr
from scipy.ndimage import convolve1d, gaussian_filter1d

from rlsnet.data import recordings, synthetic, trial_average
from rlsnet.data.import_options import Options
from rlsnet.errors import UserError
from rlsnet.io import zarr_store
from rlsnet.learning import linear_baseline, population, scores

SECONDS, HZ, STEPS = 0.02, 50, 200
C, M, N = 2, 100, 800
NAMES = ["left", "right"]
KERNEL = trial_average.smoothing_kernel(Options(kernel="gaussian", sigma=50.0, bin=20.0))


def smoothed(values):
    """[..., M, n] smoothed over time, with the weights inside the window."""
    inside = convolve1d(np.ones(values.shape[-2]), KERNEL, mode="constant")
    return convolve1d(values, KERNEL, axis=-2, mode="constant") / inside[:, None]


@pytest.fixture(scope="module")
def truth():
    """[C, M, N] Hz, smooth rates of units from some 2 to 40 Hz, with a part that both conditions share."""
    random = np.random.default_rng(0)
    wave = gaussian_filter1d(random.normal(size=(C + 1, M, N)), 8, axis=1)
    wave = (wave[1:] + wave[0]) / wave.std()
    return np.exp(0.4 * wave) * np.exp(random.normal(2.2, 0.7, N))


def observed(truth, trials, seed):
    """[C, M, N] Hz, smoothed mean of Poisson trials."""
    return smoothed(np.random.default_rng(seed).poisson(truth * trials * SECONDS) / (trials * SECONDS))


def simulated(rate, trials, seed, shared=0.0):
    """Trials with Poisson spikes of each condition; with `shared`, a factor of the rates of all neurons is random in each trial."""
    random, made = np.random.default_rng(seed), []
    for of_condition in rate:
        made.append(population.TrialSums(trials, rate.shape[1:], STEPS))
        for _ in range(trials):
            made[-1].add(random.poisson(of_condition * SECONDS * np.exp(shared * random.normal())))
    return made


def weights(points, kernel=tuple(KERNEL)):
    """[M, M] Hz, from counts to smoothed rates."""
    return scores.smoothing_weights(kernel, points) * HZ


def explained(model, target, heldout):
    """The block of a test of `simulated` trials; recorded rates [C, M, N]."""
    data, errors = population.compared(target, heldout), population.recorded_errors(target, heldout)
    errors["model"] = np.stack([each.squared_error(weights(M), data[c], slice(None))[0] for c, each in enumerate(model)])
    return population.explained(errors, NAMES, np.array(["a", "b"])[np.arange(target.shape[2]) % 2])


def by_hand(prediction, data):
    return 1 - np.sum((prediction - data) ** 2) / np.sum((data - data.mean(axis=(0, 1))) ** 2)


@pytest.mark.parametrize("kernel", ["gaussian", "boxcar", "causal_exp", "none"])
def test_the_model_is_smoothed_as_the_recording(kernel):
    """Also by a kernel that is longer than the trial; in a window without data beyond it, as an import of the same counts."""
    values = np.random.default_rng(1).poisson(3.0, (7, 5))
    weights = trial_average.smoothing_kernel(Options(kernel=kernel, sigma=50.0, bin=20.0))
    got = scores.smoothing_weights(tuple(weights), 7) @ values
    padded = np.pad(values.T, ((0, 0), (30, 30)))
    exposure = np.pad(np.ones(7), 30)
    expected = np.array([np.convolve(each, weights, mode="same") for each in padded]) / np.maximum(
        np.convolve(exposure, weights, "same"), 1e-9
    )
    np.testing.assert_allclose(got, expected[:, 30:37].T, rtol=1e-12)
    np.testing.assert_array_equal(scores.smoothing_weights((), 7) @ values, values)


def test_the_same_weights_score_the_same_with_few_and_many_trials(truth, record_check):
    """A model with rates of its own, and the true rates: its noise counts neither with 4 nor with 100 trials."""
    odd, even = observed(truth, 40, 1), observed(truth, 40, 2)
    wrong = truth * np.exp(0.3 * np.random.default_rng(3).normal(size=(1, 1, N)))
    for name, rate in {"the true rates": truth, "wrong mean rates": wrong}.items():
        exact = by_hand(smoothed(rate), even)
        for trials in (4, 5, 40, 100):
            got = explained(simulated(rate, trials, trials), odd, even)["all"]["model"]
            record_check("population explained variance", f"{name}, {trials} test trials", f"{exact:.4f}", f"{got:.4f}")
            assert got == pytest.approx(exact, abs=0.01)
    one = explained(simulated(truth, 1, 5), odd, even)["all"]["model"]  # one trial: nothing is known of its noise
    assert one < by_hand(smoothed(truth), even) - 0.2


@pytest.mark.parametrize("trials", [8, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("shared", "factor"), [(0.0, 1.0), (0.0, 1.5), (0.4, 1.0), (0.4, 1.5)])
def test_the_standard_error_is_the_spread_over_repeated_tests(truth, shared, factor, trials, record_check):
    """Where trials differ by spike noise only, and where all neurons deviate together, as in a network that loses the time.

    Of a perfect model, whose deviations count in pairs only, a jackknife estimates twice the variance.
    """
    rate, found, variances = truth[:, ::4, :40], [], []
    total = population.recorded_errors(rate, rate)["total"].sum()
    for seed in range(400):
        model = simulated(factor * rate, trials, seed, shared)
        both = [each.squared_error(weights(rate.shape[1], ()), rate[c], slice(None)) for c, each in enumerate(model)]
        found.append(1 - sum(errors.sum() for errors, _ in both) / total)
        variances.append(sum(each.error_variance(products) for each, (_, products) in zip(model, both, strict=True)) / total**2)
    spread, claimed = np.std(found), np.sqrt(np.mean(variances))
    case = f"{trials} trials, shared deviations of {shared:g}, rates times {factor:g}"
    record_check("standard error of the explained variance", case, f"{spread:.4f}", f"{claimed:.4f}")
    assert 0.9 < claimed / spread < 1.6 if factor == 1 else claimed == pytest.approx(spread, rel=0.2)


def test_the_standard_error_needs_three_trials(truth):
    two = simulated(truth[..., :5], 2, 0)[0]
    assert np.isnan(two.error_variance(two.squared_error(weights(M), truth[0, :, :5], slice(None))[1]))


@pytest.mark.parametrize("trials", [1, 5, 43])
def test_the_squared_error_is_that_of_pairs_of_trials(trials):
    """In plain NumPy loops; odd and even trials are apart, and a bin may have a spike in every step."""
    random, steps, n = np.random.default_rng(4), 300, 3
    data, counts = random.normal(3, 1, (7, n)), random.integers(0, steps + 1, (trials, 7, n))
    data[2, 1] = np.nan
    sums = population.TrialSums(trials, (7, n), steps)
    for each in counts:
        sums.add(each)
    deviations = np.nan_to_num(np.einsum("kl,tln->tkn", weights(7), counts) - data)
    group = np.arange(trials) % population.GROUPS
    pairs = [(s, t) for s in range(trials) for t in range(trials) if group[s] != group[t]] or [(0, 0)]
    expected = np.mean([(deviations[s] * deviations[t]).sum(axis=0) for s, t in pairs], axis=0)
    np.testing.assert_allclose(sums.squared_error(weights(7), data[:, 1:], slice(1, n))[0], expected[1:], rtol=1e-9)
    np.testing.assert_array_equal(sums.halves(), [counts[::2].sum(axis=0), counts[1::2].sum(axis=0)])


def test_a_model_equal_to_a_baseline_or_to_the_other_half_scores_the_same(truth):
    """And the scores are those of plain sums, over all, by condition and by region; in sample there is no other half."""
    odd, even = observed(truth, 20, 6), observed(truth, 20, 7)
    mean, average = odd.mean(axis=(0, 1)), odd.mean(axis=0)
    region = np.arange(N) % 2
    deviations = (even - even.mean(axis=(0, 1))) ** 2
    for name, prediction in {"ceiling": odd, "mean_rate": mean + 0 * odd, "condition_average": average + 0 * odd}.items():
        errors = population.recorded_errors(odd, even)
        for c in range(C):
            model = population.TrialSums(2, (M, N), STEPS)
            model.counts = np.stack([prediction[c]] * 2) * SECONDS  # no noise
            model.trials = 2
            errors.setdefault("model", np.zeros((C, N)))[c] = model.squared_error(HZ * np.eye(M), even[c], slice(None))[0]
        got = population.explained(errors, NAMES, region.astype(str))
        assert got["all"]["model"] == pytest.approx(got["all"][name], abs=1e-9) == pytest.approx(by_hand(prediction, even), abs=1e-9)
        squares = (prediction - even) ** 2
        assert got["by_condition"]["right"][name] == pytest.approx(1 - squares[1].sum() / deviations[1].sum())
        mine = region == 1
        assert got["by_region"]["1"][name] == pytest.approx(1 - squares[..., mine].sum() / deviations[..., mine].sum())
    within = population.explained(population.recorded_errors(odd, None), NAMES, None)
    assert within["all"]["mean_rate"] == pytest.approx(0, abs=1e-12) and "ceiling" not in within["all"] and within["by_region"] == {}
    assert "condition_average" not in population.recorded_errors(odd[:1], even[:1])


def test_unknown_bins_count_nowhere(truth):
    """Those unknown in either half; a unit without rates disturbs nobody."""
    odd, even = observed(truth, 20, 8)[..., :6], observed(truth, 20, 9)[..., :6]
    odd[0, 60:], even[:, :, 2], even[1, :10, 3] = np.nan, np.nan, np.nan
    with np.errstate(all="raise"):
        errors = population.recorded_errors(odd, even)
        got = population.explained(errors, NAMES, None)["all"]
    known = np.isfinite(odd) & np.isfinite(even)
    d = np.where(known, even, np.nan)
    total = np.nansum((d - np.nanmean(d[..., [0, 1, 3, 4, 5]], axis=(0, 1)).repeat([1, 2, 1, 1, 1])) ** 2)
    assert got["ceiling"] == pytest.approx(1 - np.nansum((odd - d) ** 2) / total)
    assert got["mean_rate"] == pytest.approx(1 - np.nansum((np.nanmean(odd, axis=(0, 1)) - d) ** 2) / total)


def test_the_bias_of_a_condition_is_beside_that_of_the_trials(truth):
    odd, even = observed(truth, 20, 8), observed(truth, 20, 9)
    even[0] *= 0.8
    model = np.stack([np.full(N, 0.5), np.full(N, -3.0)])
    bias = population.rate_bias(model, odd, even, NAMES)
    assert population.biased(bias) == ["right"]
    assert bias["left"] == {
        "recorded": pytest.approx(even[0].mean()), "model": 0.5, "halves": pytest.approx((odd[0] - even[0]).mean())
    }  # fmt: skip
    assert "halves" not in population.rate_bias(model, odd, None, NAMES)["left"]


def test_the_kernel_of_a_recording(tmp_path):
    """The synthetic recording has that of its smoothing; without the attribute nothing is smoothed, and other values are refused."""
    synthetic.make(tmp_path / "r.zarr", 3)
    recording = recordings.open_recording(tmp_path / "r.zarr")
    impulse = gaussian_filter1d(np.eye(41)[20], synthetic.SMOOTHING_BINS, mode="constant")
    np.testing.assert_allclose(recording.smoothing, impulse[10:31], atol=1e-12)
    group = zarr.open_group(str(tmp_path / "r.zarr"))
    del group.attrs[zarr_store.SEAL], group.attrs[zarr_store.CHUNKS]
    for wrong in ([1.0, 2.0], [1.0, 0.0, 1.0], "gaussian", [-1.0]):
        group.attrs["smoothing"] = wrong
        with pytest.raises(UserError, match="attribute smoothing is .*; expected an odd number of weights"):
            recordings.open_recording(tmp_path / "r.zarr")
    del group.attrs["smoothing"]
    assert recordings.open_recording(tmp_path / "r.zarr").smoothing == ()


@pytest.mark.parametrize("inputs", [4, 90])
def test_the_linear_model_is_ridge_regression_on_filtered_rates(inputs, record_check):
    """As least squares with extra rows, for fewer inputs than bins and for more; groups of 3, padded and feed-forward inputs."""
    random, n, bins = np.random.default_rng(11), 40, 30
    rate = random.gamma(2, 4, (2, bins, n)).astype("f4")
    rate[:, :, 7], rate[0, :4, 8], rate[:, :, 12:15] = np.nan, np.nan, np.nan  # a neuron, some bins, a group
    pre = random.integers(0, n, (14, inputs))
    pre[0, 0], pre[1, 1] = -1, n + 2
    tau = random.choice([40.0, 150.0], n)
    got = linear_baseline.fit(rate, pre, 3, tau, 20.0, seed=1)
    assert np.isfinite(got.rate[0, 0]).sum() == n - 4 and got.penalty in linear_baseline.PENALTIES
    known = np.isfinite(rate)
    filled = np.where(known, rate, np.where(known, rate, 0).sum(axis=(0, 1)) / np.maximum(known.sum(axis=(0, 1)), 1)).astype(float)
    x = filled.copy()
    for c, m in np.ndindex(2, bins):
        if m:
            x[c, m] = x[c, m - 1] + (1 - np.exp(-20 / tau)) * (filled[c, m] - x[c, m - 1])
    x = x.reshape(-1, n)
    x = np.append((x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1), np.zeros((2 * bins, 3)), axis=1)
    worst = 0.0
    for neuron in (0, 3, 8, 20, 33, 39):
        fitted = np.isfinite(rate[:, :, [6, 8] if neuron == 8 else neuron]).reshape(2 * bins, -1).all(axis=1)
        rows, y = x[:, pre[neuron // 3]], rate[:, :, neuron].reshape(-1)[fitted].astype(float)
        mean = rows[fitted].mean(axis=0)
        ridge = np.sqrt(got.penalty * len(y)) * np.eye(inputs)
        matrix, right = np.append(rows[fitted] - mean, ridge, axis=0), np.append(y - y.mean(), np.zeros(inputs))
        expected = (rows - mean) @ np.linalg.lstsq(matrix, right, rcond=None)[0] + y.mean()
        worst = max(worst, np.abs(expected - got.rate[:, :, neuron].reshape(-1)).max())
    record_check("linear baseline", f"{inputs} inputs, 60 bins, against least squares", "0 Hz", f"at most {worst:.1e} Hz")
    assert worst < 2e-3
