"""Recordings and their target currents: store, synthetic recording, chunks, subsets, static synapses, wrong input."""

import dataclasses
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import zarr
from conftest import compose

from rlsnet.data import recording_source, recordings, synthetic, trial_average
from rlsnet.errors import UserError
from rlsnet.io import atomic, zarr_store
from rlsnet.learning import targets
from rlsnet.model import build
from rlsnet.model.fi_curve import EulerScheme, InverseTransfer, NoisyLIF, euler_rate, firing_rate
from rlsnet.simulation.trial import Calibration

QUIET = lambda done, total: None  # noqa: E731


def write(path, rate, bin_ms=20.0, chunk=100, **attributes):
    root = zarr.create_group(str(path), attributes={"format": "rlsnet-recording", "bin_ms": bin_ms, **attributes})
    stored = root.create_array(
        "rate", shape=rate.shape, dtype="float32", chunks=(*rate.shape[:2], chunk), dimension_names=["condition", "time", "unit"]
    )
    stored[...] = rate
    return path


@pytest.fixture(scope="module")
def synthetic_recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("rec") / "synthetic.zarr"
    measured = []
    synthetic.make(path, 9000, progress=lambda done, total: measured.append((done, total)))
    assert measured == [(4096, 9000), (8192, 9000), (9000, 9000)]
    return path


def test_the_synthetic_recording_has_the_described_structure(synthetic_recording):
    import xarray

    opened = xarray.open_zarr(synthetic_recording, consolidated=False)
    assert opened.rate.dims == ("condition", "time", "unit") and opened.rate.shape == (2, 150, 9000)
    assert opened.rate.dtype == np.float32 and list(opened.condition.values) == ["left", "right"]
    assert "synthetic" in opened.attrs["source"] and opened.attrs["bin_ms"] == 20
    rate = opened.rate.values
    mean = rate.mean(axis=(0, 1))
    assert 5 < mean.mean() < 6.5 and 2.5 < np.median(mean) < 3.5 and 0.1 < np.mean(mean < 1) < 0.3 and 0.01 < np.mean(mean > 30) < 0.06
    assert 0.01 < np.mean(rate <= 0.1) < 0.04  # bins at the floor of the target
    assert 0.5 < np.median((rate.std(axis=1) / mean)[:, mean > 1]) < 0.8  # strong modulation
    assert 0.02 < np.mean(np.mean(rate < 0.1 * mean, axis=(0, 1))[mean > 3] > 0.05) < 0.2  # some units are silent for a while
    busy = mean > 5
    late = (opened.time.values > -0.4) & (opened.time.values < 0)
    early = opened.time.values < -1.9
    selectivity = np.abs(rate[0] - rate[1])[:, busy] / mean[busy]
    assert selectivity[late].mean() > 1.5 * selectivity[early].mean()
    shape = np.log(np.maximum(rate[:, :, mean > 3], 0.1))
    shape = (shape - shape.mean(axis=1, keepdims=True)).reshape(300, -1)
    power = np.linalg.svd(shape / shape.std(axis=0), compute_uv=False) ** 2
    assert 0.4 < power[:3].sum() / power.sum() < 0.8 < power[:20].sum() / power.sum()  # few courses, that most of the units share
    step = np.diff(rate, axis=1).std(axis=(0, 1)) / rate.std(axis=(0, 1))
    assert np.median(step) < 0.35  # smooth: neighbouring bins are alike
    table = zarr.open_group(str(synthetic_recording), mode="r")["unit"]
    assert 90 < table["n_trials"][:].mean() < 110
    assert len(np.unique(table["session"][:])) == 24 and len(np.unique(table["region"][:])) > 3
    assert table["n_trials"].shape == (9000, 2)


def test_the_noise_of_synthetic_trial_averages_is_that_of_their_trials():
    """Halves of 50 trials differ by smoothed Poisson noise: its variance is rate / (trials * bin), less by the kernel."""
    random = np.random.default_rng(0)
    underlying = synthetic.rates(random, 1000, random.integers(0, 6, 1000), synthetic.SHARED, synthetic.PRIVATE)
    average, half = synthetic.observe(random, underlying, np.full((2, 1000), 100))
    np.testing.assert_allclose(half.mean(axis=0), average, rtol=1e-9, atol=1e-12)
    kernel = np.exp(-(np.arange(-12, 13) ** 2) / 2 / synthetic.SMOOTHING_BINS**2)
    noise = underlying / (50 * synthetic.BIN_MS / 1000) * (kernel**2).sum() / kernel.sum() ** 2
    inner = np.s_[:, 15:-15]  # bins that the kernel does not reflect at an end
    np.testing.assert_allclose(np.sum((half[0] - half[1])[inner] ** 2), 2 * noise[inner].sum(), rtol=0.03)
    busy = underlying.mean(axis=(0, 1)) > 1
    assert 0.85 < np.median(trial_average.reliability(half)[busy]) < 0.98


SYNTHETIC_IN_PARALLEL = """
import sys, time
from pathlib import Path
from rlsnet.data import recording_source
own, other = map(Path, sys.argv[1:])
own.touch()
while not other.exists():
    time.sleep(0.01)
path = recording_source.synthetic_path(print, lambda done, total: time.sleep(1), n_units=300)
print(path.stat().st_ino)
"""


def test_two_processes_make_one_synthetic_recording(tmp_path, monkeypatch):
    """Both start at the same time; one makes the recording, the other waits and opens the same folder."""
    monkeypatch.setenv("RLSNET_CACHE", str(tmp_path / "cache"))
    names = [str(tmp_path / name) for name in "ab"]
    command = [sys.executable, "-c", SYNTHETIC_IN_PARALLEL]
    processes = [subprocess.Popen([*command, *order], stdout=subprocess.PIPE, text=True) for order in (names, names[::-1])]
    printed = [process.communicate(timeout=120)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(len(lines) for lines in printed) == [1, 2] and printed[0][-1] == printed[1][-1]
    made = recordings.open_recording(tmp_path / "cache" / f"synthetic-decision-v{synthetic.VERSION}.zarr")
    assert made.n_units == 300 and np.isfinite(made.read()).all()


def test_targets_from_rates_are_the_inverse_transfer(synthetic_recording):
    config = compose("config=mouse_decision", f"recording.path={synthetic_recording}", "target.euler_correction=false")
    recording = recording_source.open_for_config(config, print, QUIET)
    net, _, _ = build.build(config, recording.n_units)
    target = targets.make(config, net, recording, QUIET)
    assert target.shape == (2, 150, 9000) and target.dtype == np.float32
    rate = np.maximum(recording.values[:, :, ::97], 0.1)
    np.testing.assert_allclose(firing_rate(target[:, :, ::97], NoisyLIF(10, 1, 0, 0.65)), rate, rtol=2e-5)


def test_a_smaller_network_takes_a_random_subset(synthetic_recording):
    config = compose("config=mouse_decision", f"recording.path={synthetic_recording}", "network.n_neurons=500", "plastic.n_inputs=10")
    recording = recording_source.open_for_config(config, print, QUIET)
    units = recording.choose(500, config.seed)
    assert len(np.unique(units)) == 500 and units.max() > 8000
    net, _, _ = build.build(config, recording.n_units)
    target = targets.make(config, net, recording, QUIET)
    expected = InverseTransfer.build_euler(NoisyLIF(10, 1, 0, 0.65), EulerScheme(0.1, 1))(
        np.maximum(recording.values[:, :, :][:, :, units], 0.1)
    )
    np.testing.assert_allclose(target, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match=r"network.n_neurons=9001: expected at most 9000"):
        recording.choose(9001, 1)


def test_with_static_synapses_the_target_is_the_missing_current(tmp_path):
    """The drive X_bal is subtracted; the noise of each class, and the threshold and tau_m of each neuron, are used."""
    rate = np.random.default_rng(0).uniform(0, 40, (1, 100, 512))
    config = compose(
        "config=tiny",
        "target=recording",
        "target.euler_correction=false",
        f"recording.path={write(tmp_path / 'r.zarr', rate, 10.0)}",
        "neuron.tau_m=20",
        "neuron.threshold=1.2",
    )
    recording = recording_source.open_for_config(config, print, QUIET)
    net, _, _ = build.build(config)
    sd = np.where(np.asarray(net.excitatory), 0.3, 0.6)
    got = targets.from_rates(config.target, config, net, Calibration(0 * sd, sd, 0 * sd), recording, QUIET)
    for members, spread in ((slice(0, 256), 0.3), (slice(256, 512), 0.6)):
        neuron = NoisyLIF(20, 1.2, 0, 0).with_synaptic_noise(spread, 3.0)
        mu = got[:, :, members] + np.asarray(net.bias)[members]
        np.testing.assert_allclose(firing_rate(mu, neuron), np.maximum(rate[:, :, members], 0.1), rtol=1e-4)


def test_the_rates_of_the_regressors_are_those_of_the_simulation():
    """For two classes of neurons, from rest to high rates; with static synapses or without noise there are none."""
    small = "config=tiny", "rls.regressors=rates", "static.out_degree=0", "noise.sigma=[0.4,0.7]", "neuron.tau_m=[20,8]"
    config = compose(*small)
    net, _, _ = build.build(config)
    table, inputs = targets.rate_table(config, net), np.linspace(-0.5, 3, 50)
    for neuron, values in ((0, NoisyLIF(20, 1, 0, 0.4)), (511, NoisyLIF(8, 1, 0, 0.7))):
        one = dataclasses.replace(table, kind=table.kind[neuron : neuron + 1])
        expected = euler_rate(inputs, values, EulerScheme(0.1, 1)) / 1000
        np.testing.assert_allclose(one(jnp.asarray(inputs, jnp.float32)), expected, rtol=2e-3, atol=1e-6)
    for change, message in (("static.out_degree=10", "expected no static synapses"), ("noise.sigma=0", "noise of neuron 0 is 0 of thresh")):
        config = compose(*small, change)
        with pytest.raises(UserError, match=f"rls.regressors=rates.*{message}|{message}.*rls.regressors=rates"):
            targets.rate_table(config, build.build(config)[0])


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("model", ["lif", "glif1"])
def test_parameters_of_each_neuron_are_used(tmp_path, model, own):
    """Parameters by class in the settings, or for each neuron in the network; glif1 has a resting potential."""
    random = np.random.default_rng(1)
    rate = random.uniform(0, 40, (2, 100, 512))
    rate[:, :, 7] = np.nan
    config = compose("config=tiny", "target=recording", f"recording.path={write(tmp_path / 'r.zarr', rate, 10.0)}", "static.out_degree=0",
                     "target.euler_correction=false", f"neuron={model}", "neuron.tau_m=[20,8]",
                     "neuron.threshold=[1.2,0.9]", "noise.sigma=[0.4,0.7]",
                     *(["neuron.rest=[0.2,-0.3]"] if model == "glif1" else []))  # fmt: skip
    net, _, _ = build.build(config)
    exc = np.asarray(net.excitatory)
    values = {"tau_m": (20, 8), "threshold": (1.2, 0.9), "reset": (0, 0), "noise_sigma": (0.4, 0.7), "rest": (0.2, -0.3)}
    values = {name: np.where(exc, *pair) for name, pair in values.items()}
    if model == "lif":
        values["rest"] = np.zeros(512)
    if own:
        values |= {"tau_m": random.uniform(5, 30, 512), "reset": random.uniform(-0.5, 0.3, 512), "noise_sigma": random.uniform(0.2, 1, 512)}
        given = {name: jnp.asarray(values[name]) for name in ("tau_m", "reset", "noise_sigma")}
        net = dataclasses.replace(net, parameters={**net.parameters, **given})
    got = targets.from_rates(config.target, config, net, None, recording_source.open_for_config(config, print, QUIET), QUIET)
    neuron = NoisyLIF(values["tau_m"], values["threshold"], values["reset"], values["noise_sigma"])
    mu = got + np.asarray(net.bias) + values["rest"]
    known = np.arange(512) != 7
    assert np.isnan(got[:, :, 7]).all()
    np.testing.assert_allclose(firing_rate(mu, neuron)[:, :, known], np.maximum(rate[:, :, known], 0.1), rtol=3e-4)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["glif3", "glif5"])
def test_models_without_a_formula_fire_at_recorded_rates(tmp_path, model):
    """Neurons simulated at the target currents fire at the recorded rates."""
    wanted = np.repeat([2.0, 8.0, 30.0, 80.0], 128)
    path = write(tmp_path / "r.zarr", np.broadcast_to(wanted, (1, 100, 512)), 10.0)
    config = compose("config=tiny", "target=recording", f"recording.path={path}", "static.out_degree=0", "stimulus=none", "noise.sigma=0.6",
                     f"neuron={model}", "neuron.threshold=[1,1.2]", "trial.stim_off=3000", "trial.stim_on=3000")  # fmt: skip
    net, _, _ = build.build(config)
    order = np.random.default_rng(0).permutation(512)  # both classes get each rate
    with atomic.replacing(path) as again:
        write(again, np.broadcast_to(wanted[order], (1, 100, 512)), 10.0)
    target = targets.make(config, net, recording_source.open_for_config(config, print, QUIET), QUIET)
    net = dataclasses.replace(net, bias=net.bias + jnp.asarray(target[0, 0]))
    measured = np.asarray(targets.run_calibration(config, net).n_spikes) / 4.0
    for rate in (2.0, 8.0, 30.0, 80.0):
        for members in (slice(0, 256), slice(256, 512)):
            mine = measured[members][wanted[order][members] == rate]
            assert mine.mean() == pytest.approx(rate, rel=0.03, abs=4 * np.sqrt(rate / 4 / len(mine)))
    parameters = {**net.parameters, "asc_tau_1": jnp.linspace(5, 20, 512)}
    with pytest.raises(UserError, match=f"neuron.name={model}: has 512 different neurons; expected at most 8 for target=recording"):
        targets.simulated_inverse(config, dataclasses.replace(net, parameters=parameters), None)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["neuron=glif3"], "noise.sigma=0: the noise of neuron 0 is 0 of threshold - reset"),
        (["noise.sigma=[0.5,0]"], "noise.sigma=0: the noise of neuron 256 is 0 of threshold - reset; expected at least 0.005"),
    ],
)
def test_neurons_without_a_transfer_function_are_refused(tmp_path, overrides, message):
    rate = np.ones((1, 100, 512))
    config = compose("config=tiny", "target=recording", f"recording.path={write(tmp_path / 'r.zarr', rate, 10.0)}", "static.out_degree=0",
                     *overrides)  # fmt: skip
    net, _, _ = build.build(config)
    with pytest.raises(UserError, match=message):
        targets.make(config, net, recording_source.open_for_config(config, print, QUIET), QUIET)


def test_the_noise_of_static_synapses_predicts_rates_better_than_a_hand_calibration():
    """Mean-field rates of the default network from its measured currents, against those simulated."""
    config = compose()
    net, _, _ = build.build(config)
    calibration = targets.run_calibration(config, net)
    white, exc = targets.transfer_neurons(config, net), np.asarray(net.excitatory)
    neurons = white.with_synaptic_noise(targets.synaptic_sd(net, calibration), 3.0)
    mu, measured = np.asarray(net.bias + calibration.mean, np.float64), np.asarray(calibration.n_spikes) / 2.0
    for mine in (exc, ~exc):
        neuron = NoisyLIF(*(values[mine] for values in dataclasses.astuple(neurons)))
        spread = float(np.asarray(calibration.sd)[mine].mean())
        by_hand = firing_rate(mu[mine], NoisyLIF(10, 1, 0, spread / np.sqrt(3 * 1.3))).mean()
        ours = firing_rate(mu[mine], neuron).mean()
        assert abs(ours - measured[mine].mean()) < abs(by_hand - measured[mine].mean())
        assert ours == pytest.approx(measured[mine].mean(), rel=0.35)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bin_ms": 10.0}, "has bins of 10 ms, trial.learn_every is 20; expected equal values"),
        ({"bin_ms": -1}, "attribute bin_ms is -1"),
        ({"rate": np.ones((2, 149, 9))}, "trial.duration=3000: makes 150 bins, .* has 149 of 20 ms; expected 2980"),
        ({"rate": np.ones((150, 9))}, r"rate has shape \[150, 9\]; expected \[C, M, N\]"),
        ({"rate": np.full((1, 150, 9), np.inf)}, r"rate\[0, 0, 0\] \(condition, bin, unit\) is inf"),
        ({"rate": np.full((2, 150, 9), np.nan)}, r"target=recording: condition 0 is NaN for all neurons and bins"),
        ({"rate": -np.ones((1, 150, 9))}, r"is -1.0; expected a finite rate of at least 0 Hz, or NaN"),
    ],
)
def test_wrong_recordings_are_refused(tmp_path, change, message):
    arguments = {"rate": np.ones((2, 150, 9)), "bin_ms": 20.0, **change}
    if arguments["rate"].ndim == 3:
        write(tmp_path / "r.zarr", **arguments)
    else:
        root = zarr.create_group(str(tmp_path / "r.zarr"), attributes={"bin_ms": 20.0})
        root["rate"] = arguments["rate"]
    config = compose("config=mouse_decision", f"recording.path={tmp_path}/r.zarr", "plastic.n_inputs=2")
    with pytest.raises(UserError, match=message):
        recording = recording_source.open_for_config(config, print, QUIET)
        net, _, _ = build.build(config, recording.n_units)
        targets.make(config, net, recording, QUIET)


@pytest.mark.parametrize(
    ("names", "trained"),
    [
        (["left", "right", "left_photostim", "right_photostim"], "train.conditions=[left,right]"),
        (["go", "Opto go", "ALM silenced"], "train.conditions=[go]"),
        (["left", "right", "both"], None),
        (["silenced ALM", "silenced striatum"], None),
    ],
)
def test_conditions_with_a_perturbation_in_their_name_are_not_trained(tmp_path, names, trained):
    root = zarr.open_group(str(write(tmp_path / "r.zarr", np.ones((len(names), 10, 6), "f4"))), mode="a")
    zarr_store.write(root, "condition", np.array(names), ["condition"])
    settings = recordings.open_recording(str(tmp_path / "r.zarr"), "rate").settings()
    assert [each for each in settings if each.startswith("train.")] == ([trained] if trained else [])
