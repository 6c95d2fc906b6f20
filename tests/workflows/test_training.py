"""Training runs: compared with the NumPy program, resumed and unbroken, killed, and with the published learning curve."""

import dataclasses
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import reference
import zarr
from conftest import FORMS, KERNELS, NATIVE, compose, difference, form_name, metrics, settings, small_network, write_network

from rlsnet.data.neuron_table import NeuronTable
from rlsnet.errors import UserError, os_error
from rlsnet.io import atomic, zarr_store
from rlsnet.kernels import backend
from rlsnet.learning import iteration as iteration_module
from rlsnet.learning import rls, scores, targets, updates
from rlsnet.model import build, connectivity, network_store, rng
from rlsnet.model.network import RateTable
from rlsnet.runs import checkpoint as checkpoint_module
from rlsnet.runs.folder import Run
from rlsnet.simulation import delivery, perturbation
from rlsnet.simulation.state import TRAINING, VALIDATION, Dynamics, TrialKeys
from rlsnet.simulation.step import currents, deliver_early
from rlsnet.simulation.trial import advance, before_learning, compiled
from rlsnet.workflows import loop, prepare, testing, training
from rlsnet.workflows.evaluation import run_trial

RUNNER = [sys.executable, "-m", "rlsnet"]


def checkpoint(path: Path, iteration: int) -> tuple[np.ndarray, np.ndarray]:
    """(weights, packed P) of a checkpoint."""
    group = zarr.open_group(str(path / "checkpoints" / f"{iteration:06d}.zarr"), mode="r")
    return group["plastic/weight"][...], group["P"][...]


def side_by_side(arrays: dict[str, np.ndarray], iterations: int, trials: int) -> tuple[list[str], dict]:
    """Overrides and arguments of the oracle for trials side by side with voltages of their own, in place of neuron/v0 in `arrays`."""
    if trials == 1:
        return [], {}
    del arrays["neuron/v0"]
    keys = TrialKeys.create(1, TRAINING)
    streams = [[keys.trial(jnp.int32(k * trials + b), jnp.int32(k % 2)).voltage for b in range(trials)] for k in range(iterations)]
    voltage = np.array([[rng.normal(stream, 60, jnp.dtype(float)) for stream in own] for own in streams])
    return [f"train.trials_per_update={trials}"], {"voltage": voltage}


# their delivery and update have tests in other forms
COMBINED = [form for form in FORMS if form.delivery in ("native", "cuda") and form.update != form.delivery]


@pytest.mark.parametrize(
    ("form", "gain", "size", "trials"),
    [
        pytest.param(
            form,
            gain,
            size,
            trials,
            id=f"{form_name(form)}-{gain}-{size}-{trials}",
            marks=[pytest.mark.slow]
            * (
                form in COMBINED
                or (form.delivery in ("xla", "fixed_shape") and (trials > 1 or (form.update, gain) == ("dense", "tsn_head")))
            ),
        )
        for form in FORMS
        for gain, size, trials in (("textbook", 1, 1), ("tsn_head", 1, 1), ("textbook", 7, 3))
    ],
)
def test_whole_trials_equal_the_numpy_oracle(x64, tmp_path, record_check, gain, size, trials, form):
    """Five iterations of two conditions, with given synapses and targets, v0 or trials side by side: the same spikes, weights to 1e-9."""
    arrays = small_network(5, group_size=size)
    overrides, arguments = side_by_side(arrays, 5, trials)
    write_network(tmp_path / "n.zarr", arrays, size)
    config = compose("config=tiny", f"network.load={tmp_path}/n.zarr", "stimulus=none", "engine.precision=float64", "trial.stim_on=15",
                     "trial.stim_off=30", "trial.duration=100", "trial.learn_every=5", f"rls.gain={gain}", "rls.penmu=0.3",
                     "train.iterations=5", "progress=off", *settings(form), *overrides)  # fmt: skip
    assert backend.from_config(config) == form
    assert training.run_training(config, Run(tmp_path / "run"), resumed=False) == 0
    w, P, spikes = reference.train(arrays, 5, dt=0.1, stim_off=30, every=5, lam=0.8, mu=0.3, gain=gain, group_size=size, **arguments)
    expected = spikes.mean(axis=1) / trials / 0.13
    assert spikes.sum() > 500 and np.abs(w - arrays["plastic/weight"]).max() > 0.5
    weight, packed = checkpoint(tmp_path / "run", 5)
    i, j = np.triu_indices(P.shape[1])
    rates = [line["rate_hz"] for line in metrics(tmp_path / "run")]
    what = f"5 iterations of 2 conditions, {trials} trial(s) each, 60 neurons in groups of {size}, gain {gain}, float64"
    seen = f"{spikes.sum()} spikes, {difference(rates, expected):.0e} Hz apart; w differs by {difference(weight, w):.1e},"
    seen += f" P by {difference(packed, P[::size][:, i, j]):.1e}; learning moved w by up to {difference(w, arrays['plastic/weight']):.2g}"
    record_check(f"plain NumPy program, {form_name(form)}", what, "as many spikes in each iteration, w and P to 1e-9", seen)
    np.testing.assert_allclose(weight, w, rtol=0, atol=1e-9)
    np.testing.assert_allclose(packed, P[::size][:, i, j], rtol=0, atol=1e-9)
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


FILTERED = "filtered rates, every third learning point, two time constants, current of the new weights"
DELAYED = "a delay of each static synapse, delays by class of plastic ones, and feed-forward neurons"
RICHER = {  # case: size of the groups with which most forms are slow tests; with the other, 3 trials side by side
    "forgetting, Dale's law, penalties by class, given stimulus, a time constant for each neuron": 1,
    "feed-forward neurons, bins and neurons that are not trained": 7,
    "two time constants": 1,
    FILTERED: 7,
    DELAYED: 1,
    "delays by class": 7,
}


def richer(case, arrays, tmp_path):
    """Overrides, and arguments of the oracle, for what an experiment may have besides; `arrays` and files are changed to match."""
    random = np.random.default_rng(8)
    if case == "forgetting, Dale's law, penalties by class, given stimulus, a time constant for each neuron":
        stimulus = random.normal(0, 3, (2, 4, 60))
        np.save(tmp_path / "stimulus.npy", stimulus)
        arrays["neuron/tau_plas"] = random.uniform(50, 200, 60)
        return (
            ["rls.forgetting=0.97", "rls.dale=true", "rls.penmu=[0.3,0.1]",
             "stimulus=given", f"stimulus.path={tmp_path}/stimulus.npy", "stimulus.bin=2.5"],
            {"forgetting": 0.97, "dale": True, "mu": (0.3, 0.1), "tau_p": arrays["neuron/tau_plas"],
             "stimulus": stimulus, "stim_on": 15, "stimulus_bin": 2.5},
        )  # fmt: skip
    late = {"delay": np.where(arrays["neuron/excitatory"], 0.3, 2.5)}
    if case == "delays by class":
        arrays["neuron/tau_plas"] = random.uniform(50, 200, 60)
        more = {"mu": 0.3, "tau_p": arrays["neuron/tau_plas"], "correct": True}
        return ["synapse.delay=[0.3,2.5]", "rls.penmu=0.3", "rls.correct_current=true"], late | more
    if case in ("feed-forward neurons, bins and neurons that are not trained", DELAYED):
        delayed = case == DELAYED
        if delayed:
            arrays["static/delay"] = random.uniform(0.01, 1.5, len(arrays["static/post"])).astype(np.float32)
            late["delay"] = np.concatenate([late["delay"], np.full(3, 0.3)])
        else:
            arrays["target"][:, :, 5:12] = np.nan
            arrays["target"][random.random(arrays["target"].shape) < 0.2] = np.nan
            arrays["target"][0, :3] = np.nan
        rates = np.where(random.random((2, 20, 3)) < 0.3, 1e4, 0.0)  # once in every step or never, so that chance has no part
        np.save(tmp_path / "rates.npy", rates)
        weight = random.normal(0, 0.5, (60, 3))
        zarr.open_group(str(tmp_path / "n.zarr"))["feedforward/weight"] = weight
        outside = np.repeat(rates > 0, [350, *[50] * 19], axis=1)  # the first row also holds before stim_off, 30 ms
        return (
            [
                "feedforward=given",
                "feedforward.before=true",
                f"feedforward.path={tmp_path}/rates.npy",
                "rls.penlam_ff=0.4",
                "rls.penmu=0.3",
                "rls.forgetting=0.99",
                *["synapse.delay=[0.3,2.5]"] * delayed,
            ],
            {"mu": 0.3, "forgetting": 0.99, "outside": outside, "outside_weight": weight, "lam_outside": 0.4, **(late if delayed else {})},
        )  # fmt: skip
    arrays["neuron/tau_plas"] = random.choice([60.0, 150.0], 60)
    if case == "two time constants":
        return ["rls.penmu=0.3"], {"mu": 0.3, "tau_p": arrays["neuron/tau_plas"]}
    inputs = np.linspace(-60, 60, 4000)
    return (
        ["rls.penmu=0.3", "rls.regressors=rates", "rls.every=3", "rls.correct_current=true"],
        {
            "mu": 0.3,
            "tau_p": arrays["neuron/tau_plas"],
            "every_nth": 3,
            "correct": True,
            "rate_table": (inputs, 0.02 * np.log1p(np.exp(inputs))),
        },
    )


@pytest.mark.parametrize(
    ("form", "case", "size", "trials"),
    [
        pytest.param(
            form,
            case,
            size,
            1 if size == slow else 3,
            id=f"{form_name(form)}-{case}-{size}",
            marks=[pytest.mark.slow]
            * (
                form in COMBINED
                or form.delivery in ("xla", "fixed_shape")
                and (form.update == "dense" or case != FILTERED)
                or size == slow
                and (form.update not in ("native", "cuda") or case == FILTERED or "delay" in case)
                or (form.update, case) == ("cuda", "delays by class")
            ),
        )
        for form in FORMS
        for case, slow in RICHER.items()
        for size in (1, 7)
    ],
)
def test_richer_trials_equal_the_numpy_oracle(x64, tmp_path, monkeypatch, record_check, case, size, trials, form):
    """As above, for all else that the learning can do."""
    arrays = small_network(5, group_size=size)
    write_network(tmp_path / "n.zarr", {}, size)
    overrides, arguments = richer(case, arrays, tmp_path)
    more, voltages = side_by_side(arrays, 3, trials)
    root = zarr.open_group(str(tmp_path / "n.zarr"))
    for name, values in arrays.items():
        root[name] = values
    config = compose("config=tiny", f"network.load={tmp_path}/n.zarr", "stimulus=none", "engine.precision=float64", "trial.stim_on=15",
                     "trial.stim_off=30", "trial.duration=100", "trial.learn_every=5", "train.iterations=3", "progress=off",
                     *settings(form), *overrides, *more)  # fmt: skip
    if "rate_table" in arguments:  # of any neuron: these have no noise, for which alone there is one
        inputs, rate = arguments["rate_table"]
        table = RateTable(jnp.asarray(rate)[None], jnp.zeros(60, jnp.int32), jnp.float64(inputs[0]), jnp.float64(inputs[1] - inputs[0]))
        monkeypatch.setattr(targets, "rate_table", lambda config, network: table)
    assert training.run_training(config, Run(tmp_path / "run"), resumed=False) == 0
    w, P, spikes = reference.train(arrays, 3, dt=0.1, stim_off=30, every=5, lam=0.8, group_size=size, **arguments, **voltages)
    expected = spikes.mean(axis=1) / trials / 0.13
    x = w.shape[1] - arrays["plastic/weight"].shape[1]
    moved = difference(w[:, x:], arrays["plastic/weight"])
    assert spikes.sum() > 300 and moved > 0.5
    weight, packed = checkpoint(tmp_path / "run", 3)
    i, j = np.triu_indices(P.shape[1])
    rates = [line["rate_hz"] for line in metrics(tmp_path / "run")]
    apart = difference(packed, P[::size][:, i, j])
    seen = f"{spikes.sum()} spikes, {difference(rates, expected):.0e} Hz apart; w differs by"
    seen += f" {difference(weight, w[:, x:]):.1e}, P by {apart:.1e}; learning moved w by up to {moved:.2g}"
    what = f"3 iterations of 2 conditions, {trials} trial(s) each: {case}, 60 neurons in groups of {size}, float64"
    record_check(f"plain NumPy program, {form_name(form)}", what, "as many spikes in each iteration, w and P to 1e-9", seen)
    np.testing.assert_allclose(weight, w[:, x:], rtol=0, atol=1e-9)
    np.testing.assert_allclose(packed, P[::size][:, i, j], rtol=0, atol=1e-9)
    np.testing.assert_allclose(rates, expected, rtol=1e-12)
    if x:
        group = zarr.open_group(str(tmp_path / "run" / "checkpoints" / "000003.zarr"), mode="r")
        np.testing.assert_allclose(group["feedforward/weight"][...], w[:, :x], rtol=0, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dense", "deferred"])
def test_bursts_beyond_the_spike_capacity_change_nothing(x64, tmp_path, monkeypatch, record_check, method):
    """With fixed shapes for 12 spikes, 3 trials stop before an interval with more, and go on with room for more; 30 neurons burst."""
    monkeypatch.setattr(delivery, "spike_capacity", lambda n: 12)
    resume, stops = iteration_module.resume, []
    monkeypatch.setattr(iteration_module, "resume", lambda *a: stops.append(int(a[-1].done)) or resume(*a))
    arrays = small_network(8)
    arrays["neuron/v0"] *= 0.3
    write_network(tmp_path / "n.zarr", arrays)
    found = []
    for kernels in ("xla", "fixed_shape"):
        config = compose("config=tiny", f"network.load={tmp_path}/n.zarr", "stimulus=none", "engine.precision=float64", "trial.stim_on=15",
                         "trial.stim_off=30", "trial.duration=100", "trial.learn_every=5", "rls.penmu=0.3", f"engine.kernels={kernels}",
                         "perturb=clamp", "perturb.rate=2000", "perturb.start=62.3", "perturb.stop=71.7", "perturb.neurons=exc",
                         f"rls.method={method}")  # fmt: skip
        net, weight, target = build.build(config)
        burst = perturbation.from_config(config, NeuronTable(arrays["neuron/excitatory"]), TRAINING)
        keys = dataclasses.replace(TrialKeys.create(1, TRAINING), perturbation=burst)
        learner = rls.init(config.rls, net, jnp.asarray(connectivity.to_groups(weight, 1)))
        dynamics, rates = Dynamics.from_config(config), []
        run = iteration_module.Iteration(dynamics, config.rls, net, learner, jnp.asarray(target), keys, None, 3)
        for number in range(2):
            learner, outcome = run(learner, number, number)
            rates.append(float(outcome.rate))
        found.append((learner.w, learner.P.decode(), rates))
    errors = [difference(a, b) for a, b in zip(*found, strict=True)]
    seen = f"w differs by {errors[0]:.1e}, P by {errors[1]:.1e}, rates by {errors[2]:.0e} Hz; stopped after {stops} learning points"
    record_check(
        f"bursts, fixed_shape {method}", "2 iterations of 3 trials, shapes for 12 spikes at first", "w, P and rates of xla to 1e-9", seen
    )
    assert any(stops)
    assert max(errors) < 1e-9
    assert np.abs(connectivity.from_groups(np.asarray(found[0][0]), 60) - weight).max() > 0.5


@pytest.mark.parametrize("kernels", KERNELS[-1:])
def test_the_order_of_the_neurons_does_not_matter(x64, tmp_path, record_check, kernels):
    """A network.zarr with its neurons renamed learns the same weights, and then makes the same spikes."""
    arrays = small_network(7)
    order = np.random.default_rng(7).permutation(60)  # neuron i of the second network is neuron order[i] of the first
    name = np.argsort(order)
    edges = [np.arange(*arrays["static/indptr"][j : j + 2]) for j in order]
    pre = arrays["plastic/pre"][order]
    renamed = {
        **{key: arrays[key][order] for key in ("neuron/excitatory", "neuron/bias", "neuron/v0", "plastic/weight")},
        "static/indptr": np.cumsum([0, *map(len, edges)]),
        "static/post": name[arrays["static/post"][np.concatenate(edges)]],
        "static/weight": arrays["static/weight"][np.concatenate(edges)],
        "plastic/pre": np.where(pre < 0, -1, name[pre]),
        "target": arrays["target"][:, :, order],
    }
    weights, spikes = [], []
    for folder, given, names in ((tmp_path / "one", arrays, np.arange(60)), (tmp_path / "other", renamed, order)):
        write_network(folder / "n.zarr", given)
        config = compose("config=tiny", f"network.load={folder}/n.zarr", "stimulus=none", "engine.precision=float64", "trial.stim_on=15",
                         "trial.stim_off=30", "trial.duration=100", "trial.learn_every=5", "train.iterations=4", "test.trials=1",
                         "progress=off", f"engine.kernels={kernels}")  # fmt: skip
        training.run_training(config, Run(folder / "run"), resumed=False)
        testing.run_test(config, Run(folder / "run"))
        weight, test = checkpoint(folder / "run", 4)[0], zarr.open_group(str(folder / "run" / "test.zarr"), mode="r")
        weights.append(weight[np.argsort(names)])
        spikes.append(sorted(zip(test["spikes/step"][...].tolist(), names[test["spikes/neuron"][...]].tolist(), strict=True)))
    error, moved = difference(*weights), difference(weights[0], arrays["plastic/weight"])
    what = "60 neurons and the same in another order, float64: weights after 4 trials with learning, spikes of a test"
    seen = f"weights differ by {error:.1e} (learning moved them by up to {moved:.2g}), {len(spikes[0])} spikes, "
    seen += f"{len(set(spikes[0]) ^ set(spikes[1]))} differ"
    record_check(f"order of the neurons, {kernels} kernels", what, "weights to 1e-9, the same spikes", seen)
    assert error < 1e-9 and moved > 0.1
    assert spikes[0] == spikes[1] and len(spikes[0]) > 100


@pytest.mark.slow
@pytest.mark.parametrize("kernels", NATIVE)
@pytest.mark.parametrize(
    "extra",
    [
        ("feedforward=ou", "feedforward.n_neurons=5", "plastic.group_size=100"),
        ("static.storage=procedural", "train.trials_per_update=2"),
        ("static=erdos_renyi", "neuron=glif2", "noise.kind=current"),
        ("static=populations", "static.path=microcircuit", "static.scale=0.043", "network.n_neurons=null", "synapse.delay=[0.5,1.1]",
         "background.kind=poisson", "background.rate=8", "background.weight=0.05"),
    ],
)  # fmt: skip
def test_the_number_of_threads_does_not_matter(tmp_path, record_check, kernels, extra):
    """XLA takes NPROC for the number of threads, of which the native kernels use all; a thread has at least 1,024 neurons."""
    saved = []
    command = [*RUNNER, "train", "config=tiny", "network.n_neurons=3300", "train.iterations=3", "noise.sigma=0.2", *extra,
               f"engine.kernels={kernels}", "trial.stim_off=200", "trial.duration=500"]  # fmt: skip
    for threads in "1", "2", "3":
        environment = {**os.environ, "NPROC": threads, "JAX_PLATFORMS": "cpu"}
        result = subprocess.run([*command, f"hydra.run.dir={tmp_path}/{threads}"], capture_output=True, text=True, env=environment)
        assert result.returncode == 0, result.stderr
        saved.append(checkpoint(tmp_path / threads, 3))
    differ = [sum(int(np.sum(a != b)) for a, b in zip(saved[0], other, strict=True)) for other in saved[1:]]
    seen = f"{differ[0]} and {differ[1]} of {sum(a.size for a in saved[0]):,} numbers differ from those of one thread"
    record_check(
        f"threads, {kernels}, {extra[0]}", "w and P of 3,300 neurons after 3 iterations, on 1, 2 and 3 threads", "the same bits", seen
    )
    assert differ == [0, 0]


def test_float32_stays_near_float64(x64, tmp_path, record_check):
    """One short trial, before chaos sets in."""
    write_network(tmp_path / "n.zarr", small_network(6))
    short = ("trial.stim_on=15", "trial.stim_off=30", "trial.duration=100", "trial.learn_every=5", "train.iterations=1", "progress=off")
    for precision in ("float32", "float64"):
        config = compose("config=tiny", f"network.load={tmp_path}/n.zarr", "stimulus=none", f"engine.precision={precision}", *short)
        training.run_training(config, Run(tmp_path / precision), resumed=False)
    single, double = (checkpoint(tmp_path / p, 1)[0] for p in ("float32", "float64"))
    seen = f"largest difference {difference(single, double):.1e}"
    record_check("float32 near float64", "weights after a trial of 130 ms with learning, 60 neurons", "equal to 2e-4", seen)
    np.testing.assert_allclose(single, double, atol=2e-4)


GROUPS_OF_TRIALS = ("plastic.group_size=16", "noise.sigma=0.2", "target.n_conditions=2", "train.trials_per_update=3")
FIXED_SHAPE = ("engine.kernels=fixed_shape", "trial.stim_on=20", "trial.stim_off=50", "trial.duration=100", "target.n_conditions=2",
               "train.order=shuffled")  # fmt: skip


@pytest.mark.parametrize("extra", [(), GROUPS_OF_TRIALS, pytest.param(FIXED_SHAPE, marks=pytest.mark.slow)])
def test_resume_equals_an_unbroken_run_to_the_bit(tmp_path, record_check, extra):
    config = compose("config=tiny", "train.checkpoint_every=100", "train.validate_every=2", "progress=off", *extra)

    def with_iterations(n):
        return dataclasses.replace(config, train=dataclasses.replace(config.train, iterations=n))

    training.run_training(with_iterations(6), Run(tmp_path / "whole"), resumed=False)
    training.run_training(with_iterations(3), Run(tmp_path / "parts"), resumed=False)
    training.run_training(with_iterations(6), Run(tmp_path / "parts"), resumed=True)
    pairs = list(zip(checkpoint(tmp_path / "whole", 6), checkpoint(tmp_path / "parts", 6), strict=True))
    what = f"`{' '.join(['tiny', *extra])}`: w and P after 6 iterations, at once and as 3 + 3"
    seen = f"{sum(int(np.sum(a != b)) for a, b in pairs)} of {sum(a.size for a, _ in pairs):,} numbers differ"
    record_check("resume", what, "the same bits, the same metrics", seen)
    for one, other in pairs:
        np.testing.assert_array_equal(one, other)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "parts")
    assert [line["iteration"] for line in metrics(tmp_path / "parts")] == list(range(1, 7))
    assert not np.array_equal(checkpoint(tmp_path / "parts", 3)[0], checkpoint(tmp_path / "parts", 6)[0])
    best = [[p.name for p in (tmp_path / run / "checkpoints").glob("*.best.zarr")] for run in ("whole", "parts")]
    assert best[0] == best[1] and len(best[0]) == 1
    assert ["validation" in line for line in metrics(tmp_path / "parts")] == [False, True] * 3


def test_a_window_with_more_updates_than_groups_is_resumed(tmp_path):
    config = compose("config=tiny", "network.n_neurons=64", "plastic.group_size=16", "static.out_degree=20", "plastic.n_inputs=12",
                     "rls.storage=window", "rls.window=20", "train.iterations=2", "train.validate_every=0", "progress=off")  # fmt: skip
    first = dataclasses.replace(config, train=dataclasses.replace(config.train, iterations=1))
    training.run_training(config, Run(tmp_path / "whole"), resumed=False)
    training.run_training(first, Run(tmp_path / "parts"), resumed=False)
    training.run_training(config, Run(tmp_path / "parts"), resumed=True)
    whole, parts = (zarr.open_group(tmp_path / run / "checkpoints/000002.zarr", mode="r") for run in ("whole", "parts"))
    for name in ("plastic/weight", "window/r", "window/on", "window/count"):
        np.testing.assert_array_equal(parts[name][...], whole[name][...])
    assert whole["window/r"].shape == (20, 64) and whole["window/r"][...].any()


def test_conditions_take_turns(tmp_path):
    config = compose("config=tiny", "target.n_conditions=3", "train.iterations=5", "progress=off")
    training.run_training(config, Run(tmp_path), resumed=False)
    assert [line["task"] for line in metrics(tmp_path)] == [0, 1, 2, 0, 1]


def order(conditions: int, iterations: int, *overrides: str) -> list[int]:
    config = compose("config=tiny", *overrides)
    return [loop.condition_of(config, conditions, iteration) for iteration in range(1, iterations + 1)]


def test_shuffled_conditions_come_once_a_round_in_every_order():
    seen = np.array(order(3, 3 * 300, "train.order=shuffled")).reshape(-1, 3)
    np.testing.assert_array_equal(np.sort(seen, axis=1), np.broadcast_to([0, 1, 2], seen.shape))
    _, counts = np.unique(seen, axis=0, return_counts=True)
    assert len(counts) == 6 and np.abs(counts - 50).max() < 4 * np.sqrt(50 * 5 / 6)
    assert order(3, 60, "train.order=shuffled", "seed=2") != seen.ravel()[:60].tolist()
    assert order(1, 4, "train.order=shuffled") == [0] * 4


def test_weighted_conditions_are_drawn_as_often_as_they_weigh():
    seen = np.array(order(4, 1000, "train.order=weighted", "train.weights=[0,1,0,3]"))
    counts = np.bincount(seen, minlength=4)
    assert counts[0] == counts[2] == 0 and abs(counts[1] - 250) < 4 * np.sqrt(1000 * 3 / 16)
    assert abs(np.corrcoef(seen[1:], seen[:-1])[0, 1]) < 4 / np.sqrt(1000)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.order=weighted"], "train.weights=null: expected a number for each condition, one above 0 at least"),
        (["train.order=weighted", "train.weights=[0,0]"], "one above 0 at least"),
        (["train.order=weighted", "train.weights=[1,-1]"], "train.weights[1]=-1.0: expected at least 0"),
        (["train.order=weighted", "train.weights=[1,2,3]"], "expected 2 numbers, one for each trained condition"),
        (["train.order=weighted", "train.weights=3"], "train.weights=3: expected a list"),
        (["train.weights=[1,2]"], "train.order=in_turn: expected weighted, as train.weights is given."),
        (["train.order=random"], "train.order=random: expected in_turn, shuffled or weighted"),
    ],
)
def test_wrong_orders_are_refused(tmp_path, overrides, message):
    with pytest.raises(UserError) as caught:
        config = compose("config=tiny", "target.n_conditions=2", "progress=off", *overrides)
        training.run_training(config, Run(tmp_path), resumed=False)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_best_weights_are_those_of_the_best_validation_and_it_ends_the_training(tmp_path):
    """A run in two parts; the score is that of a plain program from the currents of the same trials."""
    overrides = ("config=tiny", "target.n_conditions=2", "train.checkpoint_every=1", "train.validate_every=2", "train.validation_trials=3",
                 "train.stop_when=4", "train.keep_checkpoints=null", "rls.penlambda=1e-4", "progress=off")  # fmt: skip
    run = Run(tmp_path)
    for iterations in (5, 300, 310):
        assert training.run_training(compose(*overrides, f"train.iterations={iterations}"), run, resumed=iterations > 5) == 0
    lines = metrics(tmp_path)
    scored = {line["iteration"]: line["validation"] for line in lines if "validation" in line}
    best = max(scored, key=scored.get)
    assert len(lines) < 300 and list(scored) == list(range(2, len(lines) + 1, 2)) and len(lines) == best + 4
    group = zarr.open_group(str(run.best()), mode="r")
    assert (run.best().name, group.attrs["validation"]) == (f"{best:06d}.best.zarr", scored[best])
    np.testing.assert_array_equal(group["plastic/weight"][...], checkpoint(tmp_path, best)[0])
    assert run.checkpoint("auto") == run.best() and run.checkpoint("last").name == f"{len(lines):06d}.zarr"

    config = compose(*overrides)
    network, target = (getattr(prepare.reopen(config, run), name) for name in ("network", "target"))
    data = target.astype(float)
    total = np.zeros(data.shape)
    for trial in range(3):
        for condition in range(2):
            weights = checkpoint_module.load_weights(run.open_checkpoint(run.best()), run.best(), network)
            arguments = network, weights, TrialKeys.create(1, VALIDATION)
            result, _ = run_trial(Dynamics.from_config(config), False, *arguments, jnp.int32(trial), jnp.int32(condition))
            total[condition] += np.asarray(result.current)
    error = (np.einsum("ab,cbn->can", scores.window_weights(config.trial), total / 3) - data) ** 2
    assert scored[best] == pytest.approx(1 - error.sum() / ((data - data.mean(axis=(0, 1))) ** 2).sum(), rel=1e-5)


def test_neurons_without_a_correlation_are_counted_and_prevent_nothing(tmp_path):
    """A target that does not vary has no correlation; the others' mean is reported and the best is still saved."""
    config = compose("config=tiny", "train.iterations=2", "progress=off")
    net, weight, _ = build.build(config)
    target = np.random.default_rng(0).normal(size=(1, 100, 512)).astype(np.float32)
    target[:, :, 5:15] = 0.3
    network_store.save(tmp_path / "n.zarr", net, weight, target)
    config = compose("config=tiny", "train.iterations=2", "train.validate_every=2", "progress=off", f"network.load={tmp_path}/n.zarr")
    training.run_training(config, Run(tmp_path / "run"), resumed=False)
    lines = metrics(tmp_path / "run")
    assert [line["n_undefined"] for line in lines] == [10, 10] and all(np.isfinite(line["correlation"]) for line in lines)
    assert len(list((tmp_path / "run" / "checkpoints").glob("*.best.zarr"))) == 1 and np.isfinite(lines[-1]["validation"])


def test_windowed_correlation_by_hand():
    """Bins of 20 ms in a window of 100 ms: half of the bins at its edges; cut off at the ends."""
    config = compose("config=mouse_decision", "network.n_neurons=100")
    weights = scores.window_weights(config.trial)
    np.testing.assert_allclose(weights[70, 66:76], [0, 0, 0.1, 0.2, 0.2, 0.2, 0.2, 0.1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    np.testing.assert_allclose(weights[0, :5], np.array([20, 20, 20, 10, 0]) / 70)
    random = np.random.default_rng(0)
    currents, target = random.normal(size=(2, 150, 7))
    expected = [np.corrcoef(weights @ currents[:, n], target[:, n])[0, 1] for n in range(7)]
    got = scores.current_correlation(config.trial, jnp.asarray(currents, jnp.float32), jnp.asarray(target, jnp.float32))
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_metrics_report_what_the_trial_did(tmp_path, record_check):
    """Correlation and currents of an iteration, from the state followed learning point by learning point."""
    config = compose("config=tiny", "train.iterations=1", "progress=off")
    training.run_training(config, Run(tmp_path), resumed=False)
    prepared = prepare.reopen(config, Run(tmp_path))
    dynamics, net = Dynamics.from_config(config), prepared.network
    keys = TrialKeys.create(config.seed, TRAINING).trial(jnp.int32(0), jnp.int32(0))
    learner = rls.init(config.rls, net, jnp.asarray(connectivity.to_groups(prepared.weight, 1)))
    import jax

    run = jax.jit(lambda w, state: advance(dynamics, net, w, state, keys, 10)[0])
    early = jax.jit(lambda w, state: deliver_early(dynamics, net, w, state))
    dense = backend.Backend("xla", "xla", "dense")
    learn = jax.jit(lambda learner, *a: updates.learn(config.rls, dense, net, learner, None, None, *a)[0])
    state, means = before_learning(dynamics, net, learner.w, keys), []
    for target in jnp.asarray(prepared.target[0]):
        total = np.zeros(512)
        for _ in range(10):
            state = run(learner.w, state)
            total += np.asarray(sum(currents(net, state.synapses)))
        means.append(total / 10)
        before, state = state, early(learner.w, state)
        learner = learn(learner, before.r, before.n_delivered, currents(net, before.synapses)[0] - target)
    np.testing.assert_allclose(checkpoint(tmp_path, 1)[0], connectivity.from_groups(np.asarray(learner.w), 512), atol=1e-4)
    smooth = scores.window_weights(config.trial) @ np.array(means)
    expected = np.mean([np.corrcoef(smooth[:, n], prepared.target[0, :, n])[0, 1] for n in range(512)])
    seen = metrics(tmp_path)[0]["correlation"]
    what = "that of metrics.jsonl, and from currents followed step by step"
    record_check("correlation of an iteration", what, "equal to 1e-4", f"{seen:.6f} and {expected:.6f}: {abs(seen - expected):.1e} apart")
    assert seen == pytest.approx(expected, abs=1e-4)


def test_weights_that_blow_up_stop_the_run_with_a_reason(tmp_path):
    config = compose("config=tiny", "rls.gain=tsn_head", "rls.penlambda=1e-9", "rls.penmu=0", "train.iterations=30", "progress=off")
    with pytest.raises(UserError, match=r"weights are no longer finite.*rls\.penlambda=1e-09.*rls\.gain=tsn_head"):
        training.run_training(config, Run(tmp_path), resumed=False)


def start(folder: Path, *overrides: str) -> subprocess.Popen:
    return subprocess.Popen(
        [*RUNNER, "train", "config=tiny", f"hydra.run.dir={folder}", *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


def test_killed_while_it_writes_a_checkpoint_a_run_goes_on_from_the_one_before(tmp_path, record_check):
    """kill -9 at the sight of the temporary folder of a checkpoint; resumed, the run ends as one never killed."""
    folder = tmp_path / "killed"
    sizes = ("network.n_neurons=1024", "plastic.n_inputs=200", "trial.duration=100", "train.checkpoint_every=2", "train.save_best=false")
    process = start(folder, "train.iterations=40", *sizes)
    half_written = folder / "checkpoints" / ".000004.zarr.*.tmp"
    wait_for(lambda: list(half_written.parent.glob(half_written.name)))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert Run(folder).iterations() == [2] and list(half_written.parent.glob(half_written.name))
    for run, extra in ((folder, [f"resume={folder}"]), (tmp_path / "whole", ["config=tiny", *sizes, f"hydra.run.dir={tmp_path}/whole"])):
        result = subprocess.run([*RUNNER, "train", "train.iterations=5", *extra], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert Run(run).iterations() == [2, 4, 5]
    pairs = list(zip(checkpoint(folder, 5), checkpoint(tmp_path / "whole", 5), strict=True))
    seen = f"{sum(int(np.sum(a != b)) for a, b in pairs)} of {sum(a.size for a, _ in pairs):,} numbers differ"
    what = "killed while it wrote checkpoint 4; w and P after 5 iterations"
    record_check("resume after kill -9", what, "those of an unbroken run, to the bit", seen)
    for one, other in pairs:
        np.testing.assert_array_equal(one, other)
    assert metrics(folder) == metrics(tmp_path / "whole")
    assert not [p.name for p in (folder / "checkpoints").iterdir() if "tmp" in p.name]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_finishes_the_iteration_saves_and_says_how_to_resume(tmp_path, number):
    process = start(tmp_path / "run", "train.iterations=100000", "train.checkpoint_every=100000")
    wait_for(lambda: len(Run(tmp_path / "run").read_metrics()) > 2)
    process.send_signal(number)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 128 + number and "Traceback" not in output
    done = Run(tmp_path / "run").iterations()
    assert len(done) == 1 and done[0] == len(metrics(tmp_path / "run"))
    assert "To continue: rlsnet train " in output


@pytest.mark.parametrize("ignored", [False, True])
def test_a_closed_terminal_stops_a_run_unless_nohup_ignores_it(ignored):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        with loop.graceful_stop() as stop:
            handled = signal.getsignal(signal.SIGHUP)
            if not ignored:
                os.kill(os.getpid(), signal.SIGHUP)
        assert (handled == signal.SIG_IGN) == ignored and stop.signal == (0 if ignored else signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_while_the_best_weights_are_written_is_obeyed(tmp_path, monkeypatch):
    """Whenever it comes, what is said to be saved is saved."""
    save = checkpoint_module.save_best

    def interrupted(*arguments):
        save(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(checkpoint_module, "save_best", interrupted)
    stopped = training.run_training(compose("config=tiny", "train.validate_every=1", "progress=off"), Run(tmp_path), resumed=False)
    assert stopped == signal.SIGTERM and Run(tmp_path).iterations() == [1] == [line["iteration"] for line in metrics(tmp_path)]


def test_a_checkpoint_that_cannot_be_written_ends_the_run_soon(tmp_path, monkeypatch):
    create = checkpoint_module._create

    def fails_once(run, path, iteration, *arguments, **attributes):
        if iteration == 2:
            raise OSError(28, "No space left on device", str(path))
        return create(run, path, iteration, *arguments, **attributes)

    monkeypatch.setattr(checkpoint_module, "_create", fails_once)
    config = compose("config=tiny", "train.iterations=100", "train.checkpoint_every=2", "train.save_best=false", "progress=off")
    with pytest.raises(OSError, match="No space left on device. No checkpoint was written before") as caught:
        training.run_training(config, Run(tmp_path), resumed=False)
    assert "000002.zarr" in os_error(caught.value)
    assert len(metrics(tmp_path)) < 20 and 2 not in Run(tmp_path).iterations()


def test_a_full_disk_names_the_file_the_safe_iteration_and_the_line_that_goes_on(tmp_path, monkeypatch):
    append = Run.append_metrics

    def full(self, line):
        if line["iteration"] == 4:
            with atomic.naming(self.metrics):
                raise OSError(errno.ENOSPC, "No space left on device")
        append(self, line)

    monkeypatch.setattr(Run, "append_metrics", full)
    run = Run(tmp_path / "my run")
    with pytest.raises(OSError) as caught:
        training.run_training(compose("config=tiny", "train.iterations=6", "train.checkpoint_every=2", "progress=off"), run, resumed=False)
    line = f"rlsnet train '{run.path}'"
    assert os_error(caught.value) == f"{run.metrics}: No space left on device. Iteration 2 is saved; {line} continues from there."


def test_a_checkpoint_is_of_its_iteration_though_training_goes_on(tmp_path, monkeypatch, caplog):
    """Written from a copy or, where there is no memory for one, before training goes on: the same, but the log says so."""
    slowly, held = zarr_store.write, []

    def write(group, name, *arguments, **options):
        if name == "plastic/weight" and "checkpoints" in str(group.store_path):
            time.sleep(0.1)  # an iteration or more
        slowly(group, name, *arguments, **options)

    monkeypatch.setattr(zarr_store, "write", write)
    config = compose("config=tiny", "train.iterations=5", "train.checkpoint_every=1", "train.keep_checkpoints=null", "progress=off")
    for memory in (10**12, 0):
        monkeypatch.setattr(checkpoint_module, "free_memory", lambda memory=memory: memory)
        with caplog.at_level("INFO"):
            training.run_training(config, Run(tmp_path / str(memory)), resumed=False)
        assert caplog.text.count("as the memory is too small for a copy of P (") == (0 if memory else 5)
        held.append([checkpoint(tmp_path / str(memory), i) for i in range(1, 6)])
    for one, other in zip(*held, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    assert not np.array_equal(held[0][0][1], held[0][1][1])


def test_two_processes_do_not_share_a_folder(tmp_path):
    process = start(tmp_path / "run", "train.iterations=100000", "train.checkpoint_every=2")
    wait_for(lambda: len(Run(tmp_path / "run").iterations()) > 1)
    result = subprocess.run([*RUNNER, "train", f"resume={tmp_path}/run", "train.iterations=200000"], capture_output=True, text=True)
    assert result.returncode == 1 and "another process uses this folder" in result.stderr
    process.terminate()
    process.communicate()


def test_a_fresh_start_does_not_inherit(tmp_path):
    """What a run killed before its first checkpoint left behind is neither best nor history of the next."""
    config = compose("config=tiny", "train.iterations=3", "train.validate_every=3", "progress=off")
    training.run_training(config, Run(tmp_path), resumed=False)
    (tmp_path / "checkpoints" / "000003.zarr").rename(tmp_path / "gone.zarr")
    best = next((tmp_path / "checkpoints").glob("*.best.zarr"))
    zarr.open_group(str(best)).attrs["validation"] = 2.0
    zarr_store.seal(best)
    training.run_training(dataclasses.replace(config, seed=5), Run(tmp_path), resumed=False)
    assert len(metrics(tmp_path)) == 3 and Run(tmp_path).best_validation() < 1


@pytest.mark.parametrize("array", ["P", "plastic/weight"])
@pytest.mark.parametrize(("damage", "message"), [("remove", "chunks are missing"), ("truncate", "the file is damaged")])
def test_a_damaged_checkpoint_is_refused(tmp_path, array, damage, message):
    config = compose("config=tiny", "train.iterations=1", "progress=off")
    training.run_training(config, Run(tmp_path), resumed=False)
    chunk = tmp_path / "checkpoints" / "000001.zarr" / array / "c" / "0" / "0"
    if damage == "remove":
        chunk.unlink()
    else:
        os.truncate(chunk, 100)
    with pytest.raises(UserError, match=message):
        training.run_training(compose("config=tiny", "train.iterations=2", "progress=off"), Run(tmp_path), resumed=True)


@pytest.mark.slow
def test_v10_the_default_network_learns_as_published(tmp_path, record_check):
    """Correlation after 10 iterations .03-.12, .66-.80 over iterations 95-100; rates 4.6 Hz at first, about 6.0 at the end."""
    training.run_training(compose("progress=off"), Run(tmp_path), resumed=False)
    lines = metrics(tmp_path)
    correlation, rate = ([line[key] for line in lines] for key in ("correlation", "rate_hz"))
    curve = ", ".join(f"{correlation[i - 1]:.3f}" for i in (10, 20, 40, 50, 70, 100))
    what = "correlation after 10, 20, 40, 50, 70, 100 iterations"
    record_check("V10 learning curve", what, "for comparison, a C program's .06, .20, .53, .68, .77, .785", curve)
    for what, unit, seen, low, high in (
        ("correlation after 10 iterations", "", correlation[9], 0.03, 0.12),
        ("correlation, mean of iterations 95-100", "", np.mean(correlation[94:]), 0.66, 0.80),
        ("rate in the first iteration", " Hz", rate[0], 4.5, 4.7),
        ("rate, mean of iterations 95-100", " Hz", np.mean(rate[94:]), 5.8, 6.2),
    ):
        record_check("V10 learning curve", what, f"{low:g}-{high:g}{unit}", f"{seen:.3f}{unit}")
        assert low < seen < high


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(form, id=form_name(form), marks=[pytest.mark.slow] * (form.delivery in ("xla", "fixed_shape")))
        for form in FORMS
        if form not in COMBINED
    ],
)
def test_compiled_iteration_updates_P_in_place(form):
    """No second copy of P: beyond its arguments a compiled iteration needs little but, deferred, 15 vectors for each 100 x 100 of P."""
    config = compose("network.n_neurons=1000", "plastic.n_inputs=100", f"engine.kernels={form.delivery}")
    net, weight, _ = build.build(config)
    learner = rls.init(config.rls, net, jnp.asarray(connectivity.to_groups(weight, 1)), form.update)
    target = jnp.zeros((1, 100, 1000), jnp.float32)
    dynamics, zero = dataclasses.replace(Dynamics.from_config(config), backend=form), jnp.int32(0)
    executable, _ = compiled(iteration_module.iterate, dynamics, config.rls, net, learner, target, TrialKeys.create(1, 1), zero, zero)
    analysis, n_bytes = executable.memory_analysis(), learner.P.numbers.nbytes
    assert analysis.alias_size_in_bytes > n_bytes
    assert analysis.temp_size_in_bytes < {"dense": 0.15, "native": 0.25, "cuda": 0.25, "deferred": 0.4}[form.update] * n_bytes
