"""Perturbations: compared with the NumPy program and closed forms, equal to the unperturbed trial before they start; command line."""

import dataclasses
import json
import re

import jax.numpy as jnp
import numpy as np
import pytest
import reference
import yaml
import zarr
from commands import rlsnet
from conftest import KERNELS, compose, difference, small_network, write_network

from rlsnet.analysis import perturbation_effects, test_log
from rlsnet.analysis.plots import run_figures
from rlsnet.cli.commands import info
from rlsnet.cli.job import run_job
from rlsnet.config.load import to_dict
from rlsnet.data import recordings
from rlsnet.data.neuron_table import NeuronTable
from rlsnet.errors import UserError
from rlsnet.io import zarr_store
from rlsnet.learning import iteration, rls
from rlsnet.model import build, connectivity, rng
from rlsnet.model.neuron_selection import select_neurons
from rlsnet.runs.folder import Run
from rlsnet.simulation import perturbation
from rlsnet.simulation.state import TESTING, TRAINING, Dynamics, TrialKeys
from rlsnet.workflows import testing, training

START, STOP = 512.3, 733.7  # ms, on no edge of a block or bin


@pytest.mark.parametrize(
    ("kind", "kernels", "outside"),
    [("silence", "fixed_shape", 0), ("excite", "xla", 0), ("clamp", KERNELS[-1], 3), *[("clamp", "cuda", 3)] * ("cuda" in KERNELS)],
)
def test_a_perturbed_trial_with_learning_equals_the_numpy_oracle(x64, tmp_path, record_check, kind, kernels, outside):
    """Spikes, and the weights that learning makes of them, so that what a clamped neuron sends has arrived."""
    arrays = small_network(5)
    feedforward = ["feedforward=ou", f"feedforward.n_neurons={outside}", "feedforward.mean=200"] if outside else []
    write_network(tmp_path / "n.zarr", arrays)
    config = compose(f"network.load={tmp_path}/n.zarr", "config=tiny", "stimulus=none", "engine.precision=float64", "trial.stim_on=15",
                     "trial.stim_off=30", "trial.duration=100", "trial.learn_every=5", f"engine.kernels={kernels}", "neuron.refractory=0.3",
                     f"perturb={kind}", "perturb.start=42.3", "perturb.stop=71.7", "perturb.neurons=exc",
                     "perturb.fraction=0.5", *({"excite": ["perturb.strength=1.5"], "clamp": ["perturb.rate=80"]}.get(kind, [])),
                     *feedforward)  # fmt: skip
    net, weight, target = build.build(config)
    keys = TrialKeys.create(config.seed, TRAINING)
    what = perturbation.from_config(config, NeuronTable(arrays["neuron/excitatory"]), TRAINING)
    who, first, last = np.asarray(what.neurons), 423, 716
    assert what.course.windows == ((first, last + 1),) and 2 * who.sum() == pytest.approx(arrays["neuron/excitatory"].sum(), abs=1)
    keys = dataclasses.replace(keys, perturbation=what)
    learner = rls.init(config.rls, net, jnp.asarray(connectivity.to_groups(weight, 1)))
    zero = jnp.int32(0)
    learner, outcome = iteration.Iteration(Dynamics.from_config(config), config.rls, net, learner, jnp.asarray(target), keys)(learner, 0, 0)

    stream = rng.fold(rng.fold(what.stream, 0), 0)
    clamped = np.zeros((last - first + 1, 60))
    if kind == "clamp":
        clamped = np.stack(
            [np.asarray(rng.uniform(rng.fold(stream, i), 60, jnp.dtype("float64"))) < 80 * 1e-4 for i in range(first, last + 1)]
        )
    extra = {"excited": (who, first, last, 1.5)} if kind == "excite" else {"held": (who, first, last, clamped)}
    if outside:
        trial = TrialKeys.create(config.seed, TRAINING).trial(zero, zero)
        extra["outside"] = poisson(config, net, trial, outside)
        extra["outside_weight"] = weight[:, :outside]
    w, _, spikes = reference.train(arrays, 1, dt=0.1, stim_off=30, every=5, lam=0.8, mu=0.01, refractory=3, **extra)
    plain = {name: value for name, value in extra.items() if name.startswith("outside")}
    unperturbed = reference.train(arrays, 1, dt=0.1, stim_off=30, every=5, lam=0.8, mu=0.01, refractory=3, **plain)[2]
    got = connectivity.from_groups(np.asarray(learner.w), 60)
    total = float(outcome.rate) * 60 * 0.13
    seen = f"{total:.6f} spikes and {spikes.sum()}, {unperturbed.sum()} without; w differs by {difference(got, w):.1e}"
    record_check(
        f"perturbed trial, {kind}, {kernels}", f"a trial with learning, 60 and {outside} neurons, float64", "plain NumPy, w to 1e-9", seen
    )
    assert total == pytest.approx(spikes.sum(), rel=1e-12) and spikes.sum() != unperturbed.sum()
    np.testing.assert_allclose(got, w, rtol=0, atol=1e-9)


def poisson(config, net, keys, n):
    """[1, steps from stim_off, n] feed-forward spikes of a trial, from the documented process and the same random numbers."""
    rates, spikes, feed = np.full(n, config.feedforward.mean), [], config.feedforward
    for since in range(1, 1001):
        u = np.asarray(rng.uniform(rng.fold(keys.feedforward, since), n, jnp.dtype("float64")))
        spikes.append(u < rates * 1e-4)
        xi = np.asarray(rng.normal(rng.fold(keys.rates, since), n, jnp.dtype("float64")))
        rates = rates + 0.1 / feed.tau * (feed.mean - rates) + feed.sigma * np.sqrt(0.1) * xi
    return np.array(spikes)[None].astype(float)


def simulated(folder, *overrides):
    """test.zarr and the perturbed result of an untrained network, by `rlsnet simulate` with a perturbation."""
    config = compose("config=tiny", "network.n_neurons=300", "trial.stim_off=400", "trial.duration=400", "test.trials=2", "progress=off",
                     f"perturb.start={START}",
                     f"perturb.stop={STOP}", *overrides)  # fmt: skip
    testing.run_simulation(config, Run(folder))
    stores = [Run(folder).test, *Run(folder).perturbed_results().values()]
    return [zarr.open_group(str(path), mode="r") for path in stores]


def spikes_of(group):
    """(trial, step, neuron) of every spike."""
    ends, step, neuron = (group[f"spikes/{name}"][...] for name in ("trial_indptr", "step", "neuron"))
    return np.repeat(np.arange(len(ends) - 1), np.diff(ends)), step, neuron


@pytest.mark.parametrize(("kind", "kernels", "extra"), [
    pytest.param("silence", "xla", (), marks=pytest.mark.slow),
    ("silence", KERNELS[-1], ("noise.sigma=0.3", "neuron=glif5", "plastic.group_size=16")),
    ("clamp", KERNELS[-1], ("neuron=glif3", "target.n_conditions=2")),
    pytest.param("clamp", "fixed_shape", ("perturb.rate=2000", "noise.sigma=0.3", "test.trials=1"), marks=pytest.mark.slow),
    ("excite", KERNELS[-1], ("perturb.strength=0.7", "synapse.tau_plas=[100,150]")),
])  # fmt: skip
def test_nothing_differs_before_the_start(tmp_path, record_check, kind, kernels, extra):
    """Spikes, and currents of whole bins, to the bit; from the start on the perturbed follow the perturbation, and others feel it."""
    test, perturbed = simulated(tmp_path, f"perturb={kind}", f"engine.kernels={kernels}", "perturb.neurons=[exc,200:220]", *extra)
    (trial, step, neuron), (trial_, step_, neuron_) = spikes_of(test), spikes_of(perturbed)
    before, before_ = step < 5123, step_ < 5123
    assert before.sum() > 200
    for one, other in ((trial, trial_), (step, step_), (neuron, neuron_)):
        np.testing.assert_array_equal(one[before], other[before_])
    early = test["time"][...] * 1000 + test.attrs["bin_ms"] / 2 <= START
    for name in ("psth", "current_mean"):
        np.testing.assert_array_equal(test[name][...][:, early], perturbed[name][...][:, early])
    who = np.arange(300) < 150
    who[200:220] = True
    np.testing.assert_array_equal(perturbed["perturbed"][...], who)
    inside, inside_ = ((s >= 5123) & (s < 7337) for s in (step, step_))
    mine = int(np.sum(inside_ & who[neuron_]))
    theirs = [np.bincount(n[i & ~who[n]], minlength=300) for n, i in ((neuron, inside), (neuron_, inside_))]
    seen = f"{before.sum()} spikes before equal; then {mine} of the perturbed, {np.sum(inside & who[neuron])} without"
    record_check(
        f"perturbation, {kind}, {kernels}", "spikes before the start, and of the perturbed in the window", "the same to the bit", seen
    )
    assert (mine == 0) == (kind == "silence")
    assert np.any(theirs[0] != theirs[1])
    after = step_ > 7400
    assert np.any(who[neuron_[after]])  # and they are back afterwards


def test_excited_beyond_measure_they_fire_at_the_refractory_limit(tmp_path, record_check):
    """One spike each refractory period and the step in which the threshold is crossed."""
    _, perturbed = simulated(tmp_path, "perturb=excite", "perturb.strength=1000", "neuron.refractory=2.0", "perturb.neurons=inh")
    _, step, neuron = spikes_of(perturbed)
    inside = (step >= 5123) & (step < 7337) & (neuron >= 150)
    rates = np.bincount(neuron[inside], minlength=300)[150:] / (2 * 0.2214)
    expected = 1000 / (2.0 + 0.1)
    record_check(
        "excite", "rate at 1000 thresholds, refractory period 2 ms", f"{expected:.1f} Hz", f"{rates.min():.1f} to {rates.max():.1f} Hz"
    )
    np.testing.assert_allclose(rates, expected, atol=1 / 0.2214)


@pytest.mark.slow
def test_clamped_neurons_are_poisson(tmp_path, record_check):
    """Counts in the window have the binomial mean and variance, spikes no memory, trials nothing in common; all kernels agree."""
    results = {}
    for kernels in {KERNELS[0], KERNELS[-1]}:
        _, perturbed = simulated(tmp_path / kernels, "perturb=clamp", "perturb.rate=200", f"engine.kernels={kernels}", "test.trials=6",
                                 "perturb.neurons=0:250", "static.out_degree=2", "plastic.n_inputs=2")  # fmt: skip
        trial, step, neuron = spikes_of(perturbed)
        inside = (step >= 5123) & (step < 7337) & (neuron < 250)
        results[kernels] = np.zeros((6, 2214, 250), bool)
        results[kernels][trial[inside], step[inside] - 5123, neuron[inside]] = True
    spikes = results[KERNELS[0]]
    for other in results.values():
        np.testing.assert_array_equal(spikes, other)
    counts, p = spikes.sum(axis=1), 0.02
    sd = np.sqrt(2214 * p * (1 - p))
    z = (counts - 2214 * p) / sd
    lags = [np.mean((spikes[:, lag:] - p) * (spikes[:, :-lag] - p)) / p for lag in (1, 2, 7)]
    between = np.corrcoef(z)[~np.eye(6, dtype=bool)]  # of trials: were they the same, this would be 1
    seen = f"mean {counts.mean():.2f}, variance {counts.var():.2f}, autocorrelation {np.abs(lags).max():.1e}"
    record_check("clamp", "spikes of 250 neurons at 200 Hz in 221.4 ms, 6 trials", f"{2214 * p:.2f}, {sd**2:.2f}, 0", seen)
    assert abs(z.mean()) < 4 / np.sqrt(z.size) and abs(z.var() - 1) < 4 * np.sqrt(2 / z.size)
    assert np.abs(lags).max() < 4 / np.sqrt(spikes.size)
    assert np.abs(between).max() < 4.5 / np.sqrt(250)


CLASSES = np.arange(100) < 50
REGIONS = np.array(["ALM", "VISp", "VISl", "striatum"])[np.arange(100) % 4]


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        (None, range(100)),
        ("inh, 3", [3, *range(50, 100)]),
        ("region:ALM", range(0, 100, 4)),
        ("region:ALM&inh", range(52, 100, 4)),
        ("region:VIS*&0:10,99", [1, 2, 5, 6, 9, 99]),
    ],
)
def test_selected_neurons(which, expected):
    assert select_neurons(which, CLASSES, REGIONS, "perturb.neurons").tolist() == list(expected)


@pytest.mark.parametrize(
    ("which", "region", "message"),
    [
        ("region:M1", REGIONS, "perturb.neurons=region:M1: no such region; expected ALM, VISl, VISp, striatum."),
        ("region:ALM", None, "perturb.neurons=region:ALM: the regions are not known"),
        ("0:101", REGIONS, "perturb.neurons=0:101: reaches beyond the 100 neurons; expected a range within 0:100."),
        ("exc&60:", REGIONS, "perturb.neurons=exc&60:: matches none of the 100 neurons"),
    ],
)
def test_wrong_selections_are_refused(which, region, message):
    with pytest.raises(UserError) as error:
        select_neurons(which, CLASSES, region, "perturb.neurons")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["perturb.start=300", "perturb.stop=200"], "perturb.start=300 ms: expected a time before perturb.stop=200 ms."),
        (["perturb.stop=1300"], "perturb.stop=1300 ms: expected a time within the trial, which ends at 1200 ms."),
        (["perturb.start=300.05"], "perturb.start=300.05 ms: expected a multiple of trial.dt=0.1 ms, such as 300."),
        (["perturb.neurons=all"], "perturb.neurons=all: expected null, indices"),
        (["perturb.fraction=0"], "perturb.fraction=0.0: expected a value above 0."),
        (["perturb.rate=20000"], "perturb.rate=20000 Hz: expected at most 10000, a spike a step."),
        (["perturb.label=a/b"], "perturb.label=a/b: expected letters"),
        (["perturb.strength=1"], "perturb.strength"),
    ],
)
def test_wrong_perturbations_are_refused(overrides, message):
    with pytest.raises(Exception) as error:  # noqa: PT011  a key of no section is Hydra's to refuse
        compose("config=tiny", "perturb=clamp", *overrides)
    assert message in str(error.value)


def test_a_share_is_drawn_with_the_seed():
    def members(*overrides):
        config = compose("config=tiny", "perturb=silence", "perturb.neurons=exc", *overrides)
        return np.flatnonzero(np.asarray(perturbation.from_config(config, NeuronTable(CLASSES), TESTING).neurons))

    half = members("perturb.fraction=0.5")
    assert len(half) == 25 and half.max() < 50 and len(members("perturb.fraction=0.001")) == 1
    assert np.array_equal(half, members("perturb.fraction=0.5")) and not np.array_equal(half, members("perturb.fraction=0.5", "seed=2"))
    assert members().tolist() == list(range(50))


def test_units_and_the_window_that_null_stands_for():
    config = compose("config=tiny", "perturb=excite", "perturb.start='0.5 s'", "perturb.strength=1")
    assert config.perturb.start == 500
    assert config.perturb.steps(config.trial) == ((5000, 2000 + 6700),)
    assert compose("config=tiny", "perturb=clamp").perturb.steps(config.trial) == (
        (2000 + 3300, 2000 + 6700),
    )  # bins of 10 ms, a hundred of them


SMALL = ["config=tiny", "network.n_neurons=200", "static.out_degree=40", "trial.duration=400", "train.iterations=2", "test.trials=2"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run of an older version, which knew no perturbations and no halves, and no test of it."""
    place = tmp_path_factory.mktemp("place")
    rlsnet("train", *SMALL, "hydra.run.dir=run", "resources_every=0", cwd=place)
    path = place / "run" / "config.yaml"
    values = yaml.safe_load(path.read_text())
    del values["perturb"], values["recording"]["half"]
    path.write_text(yaml.safe_dump(values))
    for checkpoint in (place / "run" / "checkpoints").glob("*/zarr.json"):  # of the same version, which knew no checksums either
        stored = json.loads(checkpoint.read_text())
        del stored["attributes"][zarr_store.SEAL], stored["attributes"][zarr_store.CHUNKS], stored["attributes"]["config"]["perturb"]
        del stored["attributes"]["config"]["recording"]["half"]
        checkpoint.write_text(json.dumps(stored))
    return place


def test_from_the_command_line(place, capsys):
    """A perturbed test leaves test.zarr alone, is stored under its label, shown by info and drawn; it says what it is compared with."""
    out = rlsnet("test", "run=run", "perturb=silence", "perturb.neurons=0:20", cwd=place).stdout
    assert "There is no run/test.zarr to compare with" in out and not (place / "run" / "test.zarr").exists()
    rlsnet("test", "run=run", cwd=place)
    before = {path: path.read_bytes() for path in (place / "run" / "test.zarr").rglob("*") if path.is_file()}
    out = rlsnet(
        "test", "run=run", "perturb=excite", "perturb.label=lit", "perturb.neurons=exc&0:20", "perturb.start=300", cwd=place
    ).stdout
    assert "excite 0.5 threshold: 20 of 200 neurons (excitatory&0:20), 0.3 to 0.47 s from the start of the trial" in out
    assert before == {path: path.read_bytes() for path in (place / "run" / "test.zarr").rglob("*") if path.is_file()}
    store = place / "run" / "perturbed" / "lit.zarr"
    assert sorted(p.name for p in store.parent.iterdir()) == ["lit.zarr", "silence.zarr"]
    test, perturbed = (zarr.open_group(str(path), mode="r") for path in (place / "run" / "test.zarr", store))
    assert set(test) | {"perturbed"} == set(perturbed)
    assert perturbed.attrs["perturb"] == {"name": "excite", "neurons": "exc&0:20", "fraction": 1.0, "start": 300.0, "stop": 470.0,
                                          "windows": [[300.0, 470.0]], "strength": 0.5, "label": "lit", "n": 20, "ramp_up": 0.0,
                                          "ramp_down": 0.0, "scale": None, "values": None, "compare": None}  # fmt: skip
    bins = np.arange(205, 605, 10)  # their middles
    for period, mine in enumerate((bins < 300, (bins > 300) & (bins < 470), bins > 470)):
        for name, who in (("perturbed", np.arange(200) < 20), ("others", np.arange(200) >= 20)):
            means = [group["psth"][...][:, mine][:, :, who].mean() for group in (test, perturbed)]
            row = next(line for line in out.splitlines() if line.strip().startswith(name))
            assert f"{means[0]:.2f} -> {means[1]:.2f}" == re.findall(r"[\d.]+ -> [\d.]+", row)[period]
    info.main([str(place / "run")], info.Options())
    shown = capsys.readouterr().out
    assert "perturbed lit" in shown and "perturbed silence" in shown and "silence: 20 of 200" in shown


def test_what_cannot_be_compared_is_said_and_all_is_drawn(place, caplog):
    """Other trials, other weights, other neurons; commands and runs that perturbations are not for."""
    run, configs = Run(place / "run"), {}
    if not run.test.exists():
        testing.run_test(compose(*SMALL, "progress=off"), run)
    for name, *more in (("clamp", "test.trials=1", "test.neurons=5:30", "test.checkpoint=2"), ("silence",)):
        configs[name] = compose(*SMALL, "progress=off", f"perturb={name}", "perturb.neurons=inh", *more)
    training.run_training(compose(*SMALL, "train.iterations=3", "progress=off"), run, resumed=True)
    with caplog.at_level("INFO"):
        test_log.log_results(run, testing.run_test(configs["silence"], run))
    assert "The perturbed test has other weights than the unperturbed test. So differences below" in caplog.text
    with caplog.at_level("INFO"):
        test_log.log_results(run, testing.run_test(configs["clamp"], run))
    assert re.search(r"has \d trials?, but the unperturbed test has \d; other neurons than the unperturbed test. So", caplog.text)
    run_figures.plot(compose(*SMALL), run)
    assert {"perturbed_silence.png", "perturbed_clamp.png"} <= {path.name for path in run.figures.iterdir()}
    with pytest.raises(UserError, match="perturb=silence: is for test and simulate; expected none for"):
        run_job("train", to_dict(configs["silence"]), ["perturb=silence"], run.path)
    with pytest.raises(UserError, match="the regions are not known"):
        testing.run_test(compose(*SMALL, "perturb=silence", "perturb.neurons=region:ALM"), run)


def course_by_loop(windows, scale, up, down, n):
    """[n] strength over steps of a trial, from its definition: a trapezoid in each window, taken at the middles of the steps."""
    level = np.zeros(n)
    for (start, end), factor in zip(windows, scale, strict=True):
        for i in range(start, end):
            rise = (i + 0.5 - start) / up if up else 1
            fall = (end - i - 0.5) / down if down else 1
            level[i] = factor * min(1, rise, fall)
    return level


@pytest.mark.parametrize(("up", "down"), [(0, 0), (20, 0), (0, 30), (20, 30)])
def test_the_strength_over_several_windows(up, down):
    """Each step by the definition; its sum is the area of the trapezoids, exactly."""
    windows, scale = ((10, 60), (60, 110), (150, 240)), (0.25, -0.5, 1.0)
    course = perturbation.Course(windows, scale, up, down)
    level = np.array([float(course.level(jnp.int32(i), jnp.dtype("float32"))) for i in range(300)])
    np.testing.assert_allclose(level, course_by_loop(windows, scale, up, down, 300), rtol=0, atol=1e-6)
    area = sum(factor * (end - start - (up + down) / 2) for (start, end), factor in zip(windows, scale, strict=True))
    assert level.sum() == pytest.approx(area, abs=1e-4)
    for n in (1, 7, 10):
        touched = [bool(course.inside(jnp.int32(i + 1), n)) for i in range(250)]
        inside = np.array([any(start <= step < end for start, end in windows) for step in range(300)])
        assert touched == [bool(inside[i + 1 : i + n + 1].any()) for i in range(250)]


def test_several_windows_and_a_rate_for_each_neuron(tmp_path, record_check):
    """Clamped neurons fire with the rate of their own in each window, times its factor, and as they like in between."""
    rates = np.repeat([40.0, 200.0, 400.0], 50)
    (tmp_path / "rates.csv").write_text("neuron,value\n" + "".join(f"{n},{rate}\n" for n, rate in enumerate(rates)))
    config = compose("config=tiny", "network.n_neurons=300", "trial.stim_off=100", "trial.duration=1000", "test.trials=4", "progress=off",
                     "perturb=clamp", "perturb.window=[[0.2,0.5],[0.7,1.0]]", "perturb.scale=[1,0.5]", "perturb.ramp_down='100 ms'",
                     f"perturb.values={tmp_path}/rates.csv", "perturb.neurons=0:200")  # fmt: skip
    results = testing.run_simulation(config, Run(tmp_path / "run"))
    test, perturbed = (zarr.open_group(str(path), mode="r") for path in results)
    np.testing.assert_array_equal(perturbed["perturbed"][...], np.arange(300) < 150)  # those that the table lists
    _, step, neuron = spikes_of(perturbed)
    for (start, end), factor in (((2000, 5000), 1), ((7000, 10000), 0.5)):
        for group, rate in enumerate((40, 200, 400)):
            mine = (step >= start) & (step < end) & (neuron // 50 == group)
            expected = 4 * 50 * rate * factor * (0.3 - 0.05)  # a ramp of 100 ms is half of it
            record_check("clamp, two windows", "spikes of 50 neurons in 4 trials", f"{expected:.0f}", str(int(mine.sum())))
            assert abs(mine.sum() - expected) < 4.5 * np.sqrt(expected)
    words = perturbation_effects.description(perturbed)
    assert words == ("clamp 40 to 400 Hz by neuron times 1, 0.5, ramp 100 ms down: 150 of 300 neurons (part of 0:200), 0.2 to 0.5 and 0.7"
                     " to 1 s from the start of the trial")  # fmt: skip
    effect = perturbation_effects.PerturbationEffect.from_tests(test, perturbed)
    begin = np.arange(100, 1100, 10)
    where = [begin < 200, ((begin >= 200) & (begin < 500)) | ((begin >= 700) & (begin < 1000)), begin >= 1000,
             (begin >= 500) & (begin < 700)]  # fmt: skip
    for period, bins in enumerate(where):
        np.testing.assert_array_equal(effect.period == period, bins)
    assert "between (Hz)" in perturbation_effects.rates_table(effect)
    stored = dict(perturbed.attrs["perturb"])
    del stored["windows"], stored["scale"], stored["ramp_up"], stored["ramp_down"], stored["range"]
    group = zarr.open_group(str(results[1]), mode="r+")
    group.attrs["perturb"] = {**stored, "rate": 10.0, "start": 200.0, "stop": 500.0}  # as of an earlier version
    assert perturbation_effects.windows(group) == [(200.0, 500.0)]
    assert (
        perturbation_effects.description(group)
        == "clamp 10 Hz: 150 of 300 neurons (part of 0:200), 0.2 to 0.5 s from the start of the trial"
    )


def test_a_list_of_currents_is_that_of_each_neuron():
    """One for each perturbed neuron or one for each neuron of the network; the same by either way."""
    members = [3, 50, 99]

    def amount(*overrides):
        config = compose("config=tiny", "perturb=excite", "perturb.neurons=[3,50,99]", *overrides)
        return np.asarray(perturbation.from_config(config, NeuronTable(CLASSES), TESTING).amount)

    expected = np.zeros(100)
    expected[members] = [0.5, -1.0, 2.0]
    np.testing.assert_array_equal(amount("perturb.strength=[0.5,-1,2]"), expected)
    every = np.arange(100) / 8
    np.testing.assert_array_equal(amount(f"perturb.strength={every.tolist()}"), np.where(np.isin(np.arange(100), members), every, 0))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["perturb.window=[[0.3,0.5],[0.4,0.6]]"], "perturb.window=[[0.3,0.5],[0.4,0.6]]: expected windows in the order of time"),
        (["perturb.window=[[0.3,0.5],[0.9,1.6]]"], "expected a start before an end, within the trial, which lasts from 0 to 1.2 s."),
        (["perturb.window=[[0.3,0.5,0.6]]"], "perturb.window[0]=[0.3, 0.5, 0.6]: expected 2 values."),
        (["perturb.scale=[1,2]"], "perturb.scale=[1.0, 2.0]: expected one factor for each window, 1."),
        (["perturb.window=[0.3,0.35]", "perturb.ramp_down=60"], "expected no more than 50 ms together, the length of the shortest window."),
        (["perturb.strength=[1,2,3]"], "perturb.strength: has 3 values; expected 50, one for each perturbed neuron, or 100"),
        (["perturb.values=none.csv"], "none.csv: no such file"),
        (["perturb.values={}/other.csv"], "lists neuron 70, which perturb.neurons=exc"),
        (["perturb.values={}/twice.csv"], "has no rows or a neuron twice; expected a number for each listed neuron, 0 to 99, once each."),
        (["perturb.values={}/far.csv"], "has neuron 100 with value 1 in row 1;"),
        (["perturb.neurons=\"depth > 500\""], "no depth in the network; expected one of excitatory, inhibitory, neuron."),
        (["perturb.neurons=\"neuron > 500\""], "perturb.neurons=neuron > 500: is true for none of the 100 neurons"),
    ],
)  # fmt: skip
def test_strengths_windows_and_filters_that_do_not_fit_are_refused(tmp_path, overrides, message):
    for name, neurons in (("other", (3, 70)), ("twice", (3, 3)), ("far", (100,))):
        (tmp_path / f"{name}.csv").write_text("neuron,value\n" + "".join(f"{n},1\n" for n in neurons))
    with pytest.raises(UserError) as error:
        config = compose("config=tiny", "perturb=excite", *(each.format(tmp_path) for each in overrides))
        perturbation.from_config(config, NeuronTable(CLASSES), TESTING)
    assert message in str(error.value)


def test_a_filter_selects_by_columns_of_the_recording(tmp_path):
    """Also where the network has only some of the units, whose columns are then those of its neurons."""
    depth = np.arange(120) * 10.0
    regions = np.array(["ALM", "striatum, dorsal"])[np.arange(120) % 2]
    root = zarr.create_group(str(tmp_path / "r.zarr"), attributes={"format": recordings.FORMAT, "version": 1, "bin_ms": 20})
    zarr_store.write(root, "rate", np.ones((1, 5, 120), np.float32), ["condition", "time", "unit"])
    zarr_store.write(root, "unit/region", regions, ["unit"])
    zarr_store.write(root, "unit/depth", depth, ["unit"])
    recording = recordings.open_recording(tmp_path / "r.zarr")
    units = recording.choose(100, 1)
    found = NeuronTable(CLASSES, recording, 1).select("region == 'ALM' and excitatory and depth > 100", "perturb.neurons")
    expected = [n for n in range(50) if regions[units[n]] == "ALM" and depth[units[n]] > 100]
    assert found.tolist() == expected and 5 < len(expected) < 45
    assert NeuronTable(CLASSES, recording, 1).select("region:striatum, dorsal", "k").tolist() == np.flatnonzero(units % 2).tolist()
