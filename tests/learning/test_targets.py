"""Targets: sinusoids, recorded currents, user-defined ones, and targets of some neurons or bins only."""

import dataclasses
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import zarr
from conftest import compose
from scipy.ndimage import gaussian_filter1d

from rlsnet.analysis import inspect
from rlsnet.analysis.plots import run_figures
from rlsnet.config.load import from_dict, to_dict
from rlsnet.data import recording_source
from rlsnet.errors import UserError
from rlsnet.io import zarr_store
from rlsnet.learning import scores, targets
from rlsnet.model import build, network_store, rng
from rlsnet.runs.folder import Run
from rlsnet.simulation.trial import Calibration
from rlsnet.workflows import testing, training

QUIET = lambda done, total: None  # noqa: E731

PLUGIN = """
import dataclasses
import numpy as np
from rlsnet import targets
from rlsnet.config import TargetConfig, key


@dataclasses.dataclass(frozen=True)
class {name}Config(TargetConfig):
    name: str = key("kind of target", choices=("{name}",))
    height: float = key("of the steps", "threshold", above=0)


@targets.currents.register
def steps(target: {name}Config, config, network, calibration, recording, report):
    assert (calibration is None) == (network.static_width == 0) and recording is None
    up = 1.0 * (np.arange(config.trial.n_points)[:, None] >= np.arange(network.n_neurons) % config.trial.n_points)
    return {result}
"""


def plugin(folder, name, result="np.stack([up * target.height, -up * target.height])"):
    path = folder / f"{name}_plugin.py"
    path.write_text(PLUGIN.format(name=name, result=result))
    return path


@pytest.mark.parametrize("static", [True, False])
def test_a_user_defined_target(tmp_path, static):
    """A dataclass and a function in a file that `plugins` lists."""
    name = f"steps{static}"
    values = to_dict(compose("config=tiny", *([] if static else ["static.out_degree=0"])))
    values |= {"plugins": [str(plugin(tmp_path, name))], "target": {"name": name, "height": 0.4}}
    config = from_dict(values)
    net, _, _ = build.build(config)
    target = targets.make(config, net, None, QUIET)
    assert target.shape == (2, 100, 512) and target.dtype == np.float32
    np.testing.assert_allclose(target[0, :, 30], np.where(np.arange(100) >= 30, 0.4, 0), rtol=1e-6)
    with pytest.raises(UserError, match=r"target.height=0.0: expected .*above 0 threshold"):
        from_dict(values | {"target": {"name": name, "height": 0}})


def test_a_user_defined_target_from_the_command_line(tmp_path):
    path = plugin(tmp_path, "mine")
    (tmp_path / "conf" / "target").mkdir(parents=True)
    (tmp_path / "conf" / "target" / "mine.yaml").write_text("name: mine\nheight: 0.3\n")
    command = [sys.executable, "-m", "rlsnet", "train", "--config-dir", str(tmp_path / "conf"), f"plugins=[{path}]", "target=mine",
               "config=tiny", "train.iterations=2", "progress=off", f"hydra.run.dir={tmp_path}/run"]  # fmt: skip
    for arguments in (command, [*command[:4], f"resume={tmp_path}/run", "train.iterations=3"]):
        result = subprocess.run(arguments, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
    stored = zarr.open_group(str(tmp_path / "run" / "network.zarr"), mode="r")["target"]
    assert stored.shape == (2, 100, 512) and stored[...].max() == np.float32(0.3)
    assert Run(tmp_path / "run").iterations() == [2, 3]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("up", r"gives float64 of shape \[100, 512\]; expected currents \[C, 100, 512\]"),
        ("np.stack([up, up * np.nan])", "condition 1 is NaN for all neurons and bins; expected a number in at least one bin"),
        ("np.full((2, 100, 512), np.inf)", "condition 0 has infinite currents; expected finite currents, or NaN for not trained"),
    ],
)
def test_wrong_targets_are_refused(tmp_path, result, message):
    name = "bad" + str(len(result))
    values = to_dict(compose("config=tiny", "progress=off"))
    config = from_dict(
        values | {"plugins": [str(plugin(tmp_path, name, result))], "target": {"name": name, "height": 1}},
    )
    with pytest.raises(UserError, match=f"target={name}: {message}"):
        training.run_training(config, Run(tmp_path / "run"), resumed=False)


def test_a_target_without_a_function_is_refused(tmp_path):
    path = plugin(tmp_path, "empty")
    path.write_text(path.read_text().replace("@targets", "#"))
    config = from_dict(to_dict(compose("config=tiny")) | {"plugins": [str(path)], "target": {"name": "empty", "height": 1}})
    net, _, _ = build.build(config)
    with pytest.raises(UserError, match="target=empty: expected a function registered with targets.currents for emptyConfig"):
        targets.make(config, net, None, QUIET)


def test_sinusoids_have_their_period_amplitude_and_uniform_phases():
    config = compose("config=tiny", "target.n_conditions=2", "target.amplitude=0.7", "target.period=250")
    net, _, _ = build.build(config)
    mean = np.linspace(-1, 1, 512).astype(np.float32)
    target = targets.sinusoids(config.target, config, net, Calibration(mean, mean, mean), None, QUIET)
    t = 200 + 10 * np.arange(1, 101)
    basis = np.stack([np.sin(2 * np.pi * t / 250), np.cos(2 * np.pi * t / 250)], 1)
    for condition in target:
        coefficient, *_ = np.linalg.lstsq(basis, condition - mean, rcond=None)
        np.testing.assert_allclose(basis @ coefficient, condition - mean, atol=1e-5)
        np.testing.assert_allclose(np.hypot(*coefficient), 0.7, rtol=1e-5)
        phase = np.arctan2(-coefficient[1], coefficient[0]) / (2 * np.pi) % 1
        assert np.histogram(phase, 8, (0, 1))[0].min() > 35
    assert not np.allclose(target[0], target[1], atol=0.1)


def bias_of(config, condition=0):
    return targets.common_bias(config.target, config, condition)


def test_the_bias_is_the_same_for_all_neurons(tmp_path):
    """Against targets without a bias, and a ramp in closed form."""
    plain, ramp, ou = (compose("config=tiny", "target.n_conditions=2", f"target.bias={bias}") for bias in ("zero", "ramp", "ou"))
    net, _, _ = build.build(plain)
    without = targets.make(plain, net, None, QUIET)
    t = 10 * np.arange(1, 101)
    expected = np.broadcast_to(0.25 * t[:, None] / 1000, without.shape)
    np.testing.assert_allclose(targets.make(ramp, net, None, QUIET) - without, expected, atol=1e-6)
    added = targets.make(ou, net, None, QUIET) - without
    np.testing.assert_allclose(added, np.broadcast_to(added[:, :, :1], added.shape), atol=1e-6)
    assert np.abs(added[0] - added[1]).max() > 0.05
    with pytest.raises(UserError, match="target.bias_tau=0.1 ms: expected at least twice trial.dt"):
        compose("target.bias=ou", "target.bias_tau=0.1")


def test_the_ou_bias_steps_through_the_whole_trial():
    """The recursion by hand; and over many realisations the moments of an Ornstein-Uhlenbeck process that starts at 0."""
    config = compose("config=tiny", "target.bias=ou", "target.bias_mean=0.3", "target.bias_tau=100")
    xi = np.asarray(rng.normal(rng.fold(rng.key(config.seed, rng.Purpose.BIAS), 3), 12000, np.dtype("float32")), np.float64)
    b, seen = 0.0, []
    for i in range(1, 12001):
        b += (0.3 - b) * 0.1 / 100 + 0.02 * np.sqrt(0.1) * xi[i - 1]
        if i > 2000 and i % 100 == 0:
            seen.append(b)
    np.testing.assert_allclose(bias_of(config, 3), seen, rtol=1e-10)
    many = np.array([bias_of(config, condition) for condition in range(800)])
    t, sd = 200 + 10 * np.arange(1, 101), 0.02 * np.sqrt(100 / 2)
    np.testing.assert_allclose(many.mean(axis=0), 0.3 * (1 - np.exp(-t / 100)), atol=4 * sd / np.sqrt(800))
    np.testing.assert_allclose(many.std(axis=0), sd, rtol=0.1)
    assert np.corrcoef(many[:, 50], many[:, 55])[0, 1] == pytest.approx(np.exp(-0.5), abs=0.08)


def write_recording(path, name, values, bin_ms=10.0):
    root = zarr.create_group(str(path), attributes={"format": "rlsnet-recording", "bin_ms": bin_ms})
    root[name] = np.asarray(values, np.float32)
    return path


def smooth_currents(conditions=2, n=512):
    """Smooth currents, and the same with NaN (not trained) for 20 neurons and a few bins of others."""
    complete = gaussian_filter1d(np.random.default_rng(0).normal(0, 2, (conditions, 100, n)), 8, axis=1).astype(np.float32)
    partly = complete.copy()
    partly[:, :, 100:120] = np.nan
    partly[0, :30, 200:210] = np.nan
    partly[1, 5::7, 300] = np.nan
    partly[1, :, 400] = np.nan
    return complete, partly


def test_recorded_currents_are_used_as_they_are(tmp_path, capsys):
    """From reading the recording to the figures, without recorded rates to compare with."""
    _, values = smooth_currents()
    path = write_recording(tmp_path / "r.zarr", "current", values)
    inspect.show(str(path))
    assert "mean current" in (shown := capsys.readouterr().out) and "negative" not in shown
    config = compose("config=tiny", "target=currents", f"recording.path={path}", "network.n_neurons=null", "progress=off", "test.trials=2")
    net, _, _ = build.build(config, 512)
    recording = recording_source.open_for_config(config, print, QUIET)
    assert (recording.kind, recording.n_units) == ("current", 512)
    np.testing.assert_array_equal(targets.make(config, net, recording, QUIET), values)
    some = recording.choose(300, config.seed)
    few = dataclasses.replace(
        config, network=dataclasses.replace(config.network, n_neurons=300), static=dataclasses.replace(config.static, out_degree=0)
    )
    np.testing.assert_array_equal(targets.make(few, build.build(few)[0], recording, QUIET), values[:, :, some])
    testing.run_simulation(config, Run(tmp_path / "run"))
    test = zarr.open_group(str(tmp_path / "run" / "test.zarr"), mode="r")
    assert "rate_target" not in test and list(test["condition"][...]) == ["0", "1"]
    np.testing.assert_array_equal(test["current_target"][...], values)
    windowed = np.einsum("mk,ckn->cmn", scores.window_weights(config.trial), test["current_mean"][...])
    for condition in range(2):
        expected = [masked_correlation(values[condition, :, n], windowed[condition, :, n]) for n in range(512)]
        np.testing.assert_allclose(test["current_correlation"][condition], expected, atol=1e-4)
    run_figures.plot(config, Run(tmp_path / "run"))
    assert {p.stem for p in (tmp_path / "run" / "figures").iterdir()} >= {"psth_examples", "psth_heatmaps", "correlations", "rates"}


def masked_correlation(target, model):
    known = np.isfinite(target)
    return np.corrcoef(target[known], model[known])[0, 1] if known.sum() > 1 else np.nan


@pytest.mark.parametrize(
    ("target", "name", "value", "message"),
    [
        ("currents", "rate", 1, "contains rates, but no array current; expected that array, or target=recording"),
        ("recording", "current", 1, "contains currents, but no array rate; expected that array, or target=currents"),
        (
            "currents",
            "current",
            np.inf,
            "current[0, 0, 0] (condition, bin, unit) is inf; expected a finite current, or NaN for a bin that is not trained",
        ),
        ("currents", "current", np.nan, "target=currents: condition 0 is NaN for all neurons and bins"),
        ("currents", "none", 1, "has no array current; expected one of shape [C, M, N]"),
        ("currents", None, 1, "recording.path=null: expected a recording.zarr with currents for target=currents"),
    ],
)
def test_wrong_recorded_currents_are_refused(tmp_path, target, name, value, message):
    overrides = [f"target={target}", "config=tiny", "static.out_degree=0", "noise.sigma=0.5", "plastic.n_inputs=2"]
    if name is not None:
        overrides.append(f"recording.path={write_recording(tmp_path / 'r.zarr', name, np.full((1, 100, 9), value))}")
    with pytest.raises(UserError) as caught:
        training.run_training(compose(*overrides, "network.n_neurons=null", "progress=off"), Run(tmp_path / "run"), resumed=False)
    assert message in str(caught.value)


def test_correlations_are_over_the_bins_that_have_a_target():
    """np.corrcoef over the bins that have a target; NaN for fewer than two bins, or for a constant target."""
    config = compose("config=tiny")
    random = np.random.default_rng(2)
    current, target = random.normal(3, 1, (2, 100, 60))
    target[random.random(target.shape) < 0.4] = np.nan
    target[:50, :10] = np.nan
    target[:, 10] = np.nan
    target[1:, 11] = np.nan
    target[0, 11] = 1
    target[:, 12] = np.where(np.isnan(target[:, 12]), np.nan, 0.3)
    current[0, 13], target[0, 13] = np.nan, np.nan
    windowed = scores.window_weights(config.trial) @ current
    got = np.asarray(scores.current_correlation(config.trial, jnp.asarray(current, jnp.float32), jnp.asarray(target, jnp.float32)))
    assert np.isnan(got[[10, 11, 12]]).all()
    for n in [*range(10), *range(14, 60)]:
        assert got[n] == pytest.approx(masked_correlation(target[:, n], windowed[:, n]), abs=2e-5)


def test_a_network_file_may_leave_neurons_untrained(tmp_path):
    """NaN is allowed in the target, not in other arrays."""
    net, weight, _ = build.build(compose("config=tiny"))
    _, target = smooth_currents()
    network_store.save(tmp_path / "n.zarr", net, weight, target)
    config = compose("config=tiny", f"network.load={tmp_path}/n.zarr", "progress=off")
    np.testing.assert_array_equal(build.build(config)[2], target)
    root = zarr.open_group(str(tmp_path / "n.zarr"))
    del root.attrs[zarr_store.SEAL], root.attrs[zarr_store.CHUNKS]  # edited on purpose
    for name, value, message in (
        ("target", np.inf, "n.zarr: target holds values that are not finite"),
        ("target", np.nan, "n.zarr: target: condition 0 is NaN for all neurons and bins"),
        ("neuron/bias", np.nan, "n.zarr: neuron/bias holds values that are not finite"),
    ):
        root[name][...] = value
        with pytest.raises(UserError, match=message):
            training.run_training(config, Run(tmp_path / "run"), resumed=False)


def test_neurons_without_a_target_are_not_trained(tmp_path):
    _, values = smooth_currents()
    path = write_recording(tmp_path / "r.zarr", "current", values)
    config = compose("config=tiny", "target=currents", f"recording.path={path}", "progress=off", "train.iterations=4", "test.trials=2")
    run = Run(tmp_path / "run")
    training.run_training(config, run, resumed=False)
    assert [line["n_undefined"] for line in run.read_metrics()] == [20, 21, 20, 21]
    before = zarr.open_group(str(run.network), mode="r")["plastic/weight"][...]
    after = zarr.open_group(str(run.checkpoint("last")), mode="r")["plastic/weight"][...]
    changed = np.any(before != after, axis=1)
    assert not changed[100:120].any() and changed[:100].all() and changed[120:].all()
    testing.run_test(config, run)
    assert np.isnan(zarr.open_group(str(run.test), mode="r")["current_correlation"][...]).sum(axis=1).tolist() == [20, 21]
    run_figures.plot(config, run)
