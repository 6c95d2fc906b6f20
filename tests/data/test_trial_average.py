"""Trial averages compared with loops over spikes: bins, halves, observation intervals, kernels, edges, events of trials."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from rlsnet.data import event_alignment, trial_average
from rlsnet.data.import_options import Options
from rlsnet.data.session import Session, with_sorted_spikes
from rlsnet.errors import UserError

PLAIN = Options(kernel="none", window=(-0.4, 0.6), bin=20.0)


def session(seed=0, n_units=7, n_trials=40, length=3.0, rate=8.0, observed=None, **changes):
    random = np.random.default_rng(seed)
    start = 5 + length * np.arange(n_trials)
    spikes = [np.sort(random.uniform(0, start[-1] + length + 5, random.poisson(rate * (start[-1] + length + 5)))) for _ in range(n_units)]
    trials = {"start_time": start, "stop_time": start + length - 0.2, "go": start + random.uniform(1, 1.5, n_trials)}
    index = np.concatenate([[0], np.cumsum([len(s) for s in spikes])])
    made = Session("s", Path("s.nwb"), np.concatenate(spikes), index, {"id": np.arange(n_units)}, trials, {}, observed)
    return dataclasses.replace(made, **changes)


def count_by_loops(made, options, chosen, go):
    """Spike counts [2, C, M, U] and trials [2, U, C] from loops over conditions, units, trials and spikes."""
    n_bins = round((options.window[1] - options.window[0]) * 1000 / options.bin)
    counts = np.zeros((2, len(chosen), n_bins, len(made.spike_index) - 1))
    trials = np.zeros((2, counts.shape[3], len(chosen)), int)
    for c, mine in enumerate(chosen):
        for u in range(counts.shape[3]):
            number = 0
            for k in np.flatnonzero(mine):
                begin, end = go[k] + options.window[0], go[k] + options.window[1]
                if math.isnan(go[k]):
                    continue
                if made.observed is not None:
                    intervals = made.observed[0][made.observed[1][u] : made.observed[1][u + 1]]
                    if not any(a <= begin and end <= b for a, b in intervals):
                        continue
                for time in made.spike_times[made.spike_index[u] : made.spike_index[u + 1]]:
                    if begin <= time < end:
                        counts[number % 2, c, int((time - begin) // (options.bin / 1000)), u] += 1
                trials[number % 2, u, c] += 1
                number += 1
    return counts, trials


def partly_observed(made, seed=1):
    """Observation intervals: some units always, some in some trials, one never; unsorted for one unit."""
    random = np.random.default_rng(seed)
    start, stop = made.trials["start_time"], made.trials["stop_time"]
    parts = []
    for u in range(len(made.spike_index) - 1):
        rows = np.sort(random.choice(len(start), random.integers(5, len(start)), replace=False)) if u > 1 else np.arange(len(start))
        rows = rows[:0] if u == 4 else rows[::-1] if u == 5 else rows
        parts.append(np.column_stack([start[rows], stop[rows]]))
    return np.concatenate(parts), np.concatenate([[0], np.cumsum([len(p) for p in parts])])


@pytest.mark.parametrize("partly", [False, True])
def test_rates_agree_with_a_loop_over_spikes(partly):
    made = session()
    made = dataclasses.replace(made, observed=partly_observed(made) if partly else None)
    go = made.trials["go"].copy()
    go[[3, 8]] = np.nan
    chosen = [np.arange(40) % 3 == 0, np.arange(40) % 3 != 0]
    counts, trials = count_by_loops(made, PLAIN, chosen, go)
    found = trial_average.average_trials(made, np.arange(7), chosen, go, PLAIN)
    np.testing.assert_array_equal(found.n_trials, trials.sum(axis=0))
    assert partly == (found.n_trials[4] == 0).all() and (found.n_trials[0] > 5).all()
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(found.half, counts / trials.transpose(0, 2, 1)[:, :, None] / 0.02, rtol=1e-6)
        np.testing.assert_allclose(found.rate, counts.sum(axis=0) / trials.sum(axis=0).T[:, None] / 0.02, rtol=1e-6)
    some = trial_average.average_trials(made, np.array([5, 2]), chosen, go, PLAIN)
    np.testing.assert_array_equal(some.rate, found.rate[:, :, [5, 2]])
    single = found.trials
    assert single.trial.tolist() == [k for mine in chosen for k in np.flatnonzero(mine) if k not in (3, 8)]
    for half, c in np.ndindex(2, 2):
        mine = (single.condition == c)[:, None] & (single.half == half)
        np.testing.assert_array_equal((single.counts * mine[:, None]).sum(axis=0), counts[half, c])
    np.testing.assert_array_equal(some.trials.counts, single.counts[..., [5, 2]])
    wide = trial_average.average_trials(made, np.arange(7), chosen, go, dataclasses.replace(PLAIN, kernel="gaussian")).trials
    np.testing.assert_array_equal(wide.counts, single.counts)  # the spikes beyond the window, which smoothing needs, are not counted
    assert trial_average.average_trials(made, np.arange(7), chosen, go, dataclasses.replace(PLAIN, trial_counts=False)).trials is None


def test_a_spike_counts_in_each_of_two_overlapping_windows():
    made = session(length=0.5)
    options = dataclasses.replace(PLAIN, window=(-1.0, 1.0))
    chosen = [np.ones(40, bool)]
    counts, trials = count_by_loops(made, options, chosen, made.trials["go"])
    found = trial_average.average_trials(made, np.arange(7), chosen, made.trials["go"], options)
    np.testing.assert_allclose(found.rate, counts.sum(axis=0) / trials.sum(axis=0).T[:, None] / 0.02, rtol=1e-6)


def test_smoothing_uses_spikes_beyond_the_window():
    made, options = session(), dataclasses.replace(PLAIN, kernel="gaussian", sigma=50.0)
    chosen, wide = [np.ones(40, bool)], dataclasses.replace(PLAIN, window=(-1.0, 1.2))
    counts, trials = count_by_loops(made, wide, chosen, made.trials["go"])
    raw = counts.sum(axis=0)[0] / trials.sum(axis=0).T / 0.02
    expected = gaussian_filter1d(raw, 2.5, axis=0)[30:-30]
    np.testing.assert_allclose(
        trial_average.average_trials(made, np.arange(7), chosen, made.trials["go"], options).rate[0], expected, rtol=1e-5
    )


@pytest.mark.parametrize("known", [True, False])
def test_a_constant_rate_has_no_bias_at_the_edges(known):
    """Units observed only within the window: the time beyond it is unknown, not silent; also if the file has just these spikes."""
    made = session(n_units=1, n_trials=400, rate=50.0)
    go, span = made.trials["go"], np.ptp(made.spike_times)
    n_spikes = len(made.spike_times)
    if known:
        made = dataclasses.replace(made, observed=(np.column_stack([go - 0.4, go + 0.6]), np.array([0, 400])))
    else:
        near = np.any(np.abs(made.spike_times[:, None] - go - 0.1) < 0.5, axis=1)
        made = dataclasses.replace(made, spike_times=made.spike_times[near], spike_index=np.array([0, near.sum()]))
    found = trial_average.average_trials(
        made, np.arange(1), [np.ones(400, bool)], go, dataclasses.replace(PLAIN, kernel="gaussian", sigma=60.0)
    )
    assert found.n_trials[0, 0] == 400
    error = found.rate[0, :, 0] / (n_spikes / span) - 1
    assert np.abs(error).max() < 0.1 and abs(error[:5].mean()) < 0.04 and abs(error[-5:].mean()) < 0.04


def test_a_bin_includes_its_start_and_excludes_its_end():
    go = 100.0 + np.arange(12.0)
    edges = [g - 0.4 + 0.02 * k for g in go for k in range(50)]  # one spike on every edge, with the rounding of its sum
    made = Session("e", Path("e"), np.sort(edges), np.array([0, len(edges)]), {"id": np.arange(1)}, {"go": go})
    found = trial_average.average_trials(made, np.arange(1), [np.ones(12, bool)], go, PLAIN)
    np.testing.assert_allclose(found.rate, 50.0)


@pytest.mark.parametrize("name", ["gaussian", "boxcar", "causal_exp", "none"])
def test_kernels(name):
    options = Options(kernel=name, sigma=50.0)
    weight = trial_average.smoothing_kernel(options)
    reach = len(weight) // 2
    lag = 20.0 * np.arange(-reach, reach + 1)
    assert weight.sum() == pytest.approx(1) and (weight >= 0).all() and len(weight) % 2 == 1
    if name == "gaussian":
        assert math.sqrt((weight * lag**2).sum()) == pytest.approx(50, rel=0.01) and (weight * lag).sum() == pytest.approx(0, abs=1e-9)
    elif name == "boxcar":
        np.testing.assert_allclose(weight[weight > 0], [0.2] * 5)
    elif name == "causal_exp":
        assert (weight[:reach] == 0).all() and weight[reach + 5] / weight[reach] == pytest.approx(math.exp(-2))
    else:
        assert weight.tolist() == [1.0]


def test_a_causal_kernel_uses_earlier_spikes_only():
    made = Session("c", Path("c"), np.arange(10.01, 30), np.array([0, 20]), {"id": np.arange(1)}, {"go": np.arange(10.0, 30)})
    options = Options(kernel="causal_exp", window=(-0.2, 0.4), sigma=50.0)
    rate = trial_average.average_trials(made, np.arange(1), [np.ones(20, bool)], made.trials["go"], options).rate[0, :, 0]
    assert rate[:10] == pytest.approx(0, abs=1e-3) and rate.argmax() == 10 and (np.diff(rate[10:]) < 0).all()


def test_reliability_is_the_correlation_of_the_halves():
    half = np.random.default_rng(0).normal(size=(2, 2, 30, 4)).astype(np.float32)
    half[1, 0, :, 2] = 3.0
    half[0, 1, :, 3] = np.nan
    found = trial_average.reliability(half)
    for c in range(2):
        for u in range(4):
            if (c, u) in ((0, 2), (1, 3)):
                assert np.isnan(found[u, c])
            else:
                assert found[u, c] == pytest.approx(np.corrcoef(half[0, c, :, u], half[1, c, :, u])[0, 1], abs=1e-5)


def test_an_event_belongs_to_the_trial_that_contains_it():
    made = session(n_trials=6)
    start, stop = made.trials["start_time"], made.trials["stop_time"]
    go = np.sort(
        [start[0] + 1, start[0] + 1.5, start[2], stop[3], start[4] + 1, stop[5] + 3, 0.0]
    )  # two, none, at start, at stop, one, after
    made = dataclasses.replace(made, events={"go_cue": go})
    found = event_alignment.event_times(made, "go_cue")
    np.testing.assert_array_equal(found, [start[0] + 1, np.nan, start[2], np.nan, start[4] + 1, np.nan])
    backwards = {name: column[::-1] for name, column in made.trials.items()}
    np.testing.assert_array_equal(event_alignment.event_times(dataclasses.replace(made, trials=backwards), "go_cue"), found[::-1])
    without = {"start_time": start}
    np.testing.assert_array_equal(
        event_alignment.event_times(dataclasses.replace(made, trials=without), "go_cue")[3], stop[3]
    )  # until the next begins
    texts = {**made.trials, "cue": np.array(["1.5", "N/A", "2", "", "3", "nan"], dtype=object)}
    np.testing.assert_array_equal(
        event_alignment.event_times(dataclasses.replace(made, trials=texts), "cue"), [1.5, np.nan, 2, np.nan, 3, np.nan]
    )


def test_events_in_overlapping_trials_are_refused():
    made = session(n_trials=6)
    made.trials["stop_time"][2] += 1
    made = dataclasses.replace(made, events={"go_cue": made.trials["go"]})
    with pytest.raises(
        UserError, match=r"align=go_cue: trials 3 and 4 of s.nwb overlap \(one lasts until 14.8 s, the other begins at 14 s\)"
    ):
        event_alignment.event_times(made, "go_cue")
    assert event_alignment.count_overlapping_trials(made) == 1 and np.isfinite(event_alignment.event_times(made, "go")).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bin": 70.0}, "bin=70: makes 14.286 bins; expected a length that divides the window of 1000 ms, such as 71.4286 ms"),
        ({"window": (1.0, -1.0)}, r"window=\[1, -1\]: expected a start and a later end"),
        ({"bin": 5000.0}, "bin=5000: makes 0.200 bins; expected a length that divides the window of 1000 ms, such as 1000 ms"),
    ],
)
def test_bins_that_do_not_fit(changes, message):
    with pytest.raises(UserError, match=message):
        trial_average.bin_centres(dataclasses.replace(PLAIN, **changes))


def test_spikes_are_sorted():
    times = np.array([3.0, 1.0, 2.0, 0.5, np.nan, 0.7, 9.0, 8.0])
    made = session(spike_times=times, spike_index=np.array([0, 3, 3, 6, 8]))
    found = with_sorted_spikes(made)
    assert found.spike_times.tolist() == [1, 2, 3, 0.5, 0.7, 8, 9] and found.spike_index.tolist() == [0, 3, 3, 5, 7]
    assert found.notes == ("spikes without a time or a trial, left out: 1", "units with spikes out of order, now sorted: 2")
    fine = session()
    assert with_sorted_spikes(fine).notes == () and np.array_equal(with_sorted_spikes(fine).spike_times, fine.spike_times)
    with pytest.raises(UserError, match="the file is damaged"):
        with_sorted_spikes(session(spike_index=np.array([0, 5])))
