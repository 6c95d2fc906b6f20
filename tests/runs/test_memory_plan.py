"""Memory plan: compared with XLA's own analysis, as `rlsnet info` shows it, with static=edges, and what it advises."""

import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest
from conftest import compose
from scipy import sparse

from rlsnet.analysis import inspect
from rlsnet.errors import UserError
from rlsnet.io import edge_count
from rlsnet.io.formatting import byte_size
from rlsnet.learning import rls
from rlsnet.learning.iteration import iterate
from rlsnet.model import build, edge_files
from rlsnet.runs import memory_plan
from rlsnet.runs.folder import Run
from rlsnet.simulation import trial
from rlsnet.simulation.state import TRAINING, Dynamics, TrialKeys
from rlsnet.workflows import testing, training

FACTOR = 1.05  # between the plan and the figure of XLA, either way


def test_the_plan_agrees_with_the_figure_of_xla_and_info_repeats_it(tmp_path, caplog, capsys):
    """A network of 512 neurons with the kernels that auto takes on this machine."""
    with caplog.at_level("INFO"):
        training.run_training(compose("config=tiny", "train.iterations=1", "progress=off"), Run(tmp_path / "run"), resumed=False)
    plan = re.search(r"Memory plan: ([\d.]+) MB of", caplog.text)
    compiled = re.search(r"Compiled in [\d.]+ s; memory by XLA's count: ([\d.]+) MB", caplog.text)
    assert 1 / FACTOR < float(plan[1]) / float(compiled[1]) < FACTOR
    inspect.show(str(tmp_path / "run"))
    assert f"about {plan[1]} MB in all" in capsys.readouterr().out


def arguments_of(config):
    """Arguments of `iterate` after its settings as shapes alone, so that no array of the network is made."""
    n, size, inputs, degree = config.network.n_neurons, config.plastic.group_size, config.plastic.n_inputs, config.static.out_degree
    few = dataclasses.replace(config, network=dataclasses.replace(config.network, n_neurons=2 * max(size, inputs)))
    few = dataclasses.replace(few, static=dataclasses.replace(config.static, out_degree=2))
    shapes = {
        "excitatory": [n],
        "bias": [n],
        "indptr": [n + 1],
        "post": [n * degree],
        "out_indptr": [n + 1],
        "out_slot": [-(-n // size) * inputs],
    }
    network, groups = build.build(few).network, -(-n // size)
    shapes["pre"] = [groups, inputs]
    arrays = {name: jax.ShapeDtypeStruct(shape, getattr(network, name).dtype) for name, shape in shapes.items()}
    network = dataclasses.replace(network, static_width=degree, plastic_width=2 * inputs, **arrays)
    w = jax.ShapeDtypeStruct((groups, inputs, size), network.bias.dtype)
    learner = jax.eval_shape(partial(rls.init, config.rls), network, w)
    target = jax.ShapeDtypeStruct((1, config.trial.n_points, n), network.bias.dtype)
    return network, learner, target, TrialKeys.create(config.seed, TRAINING), jnp.int32(0), jnp.int32(0)


@pytest.mark.parametrize("settings", ["config=million_small_memory", "config=million plastic.group_size=128 rls.method=dense"])
def test_the_plan_of_a_million_neurons_agrees_with_the_figure_of_xla(settings):
    """The program is compiled, not run: XLA allocates the weights, P, the currents and the vectors of the updates once, without copies."""
    config = compose(*settings.split())
    arguments, sizes = arguments_of(config), memory_plan.Sizes.of(config, None, 1)
    program, _ = trial.compiled(iterate, Dynamics.from_config(config), config.rls, *arguments)
    compiled, parts = memory_plan.compiled_bytes(program), memory_plan.plan(sizes, learning=True)
    assert 1 / FACTOR < sum(parts.values()) / compiled < FACTOR
    updates = parts["updates of P"]
    assert memory_plan.temporary_bytes(program) - updates < 0.8e9 and compiled - updates < 16.4e9


def test_each_trial_of_training_has_a_state():
    one, two, eight = (memory_plan.Sizes.of(compose(f"train.trials_per_update={trials}"), None, 1) for trials in (1, 2, 8))
    before, twice, after = (memory_plan.plan(sizes, learning=True) for sizes in (one, two, eight))
    assert after == {**before, "state": before["state"] + 7 * (twice["state"] - before["state"])} and twice["state"] > before["state"]
    assert memory_plan.plan(one, learning=False) == memory_plan.plan(eight, learning=False)


@pytest.mark.parametrize(
    ("settings", "free", "named"),
    [
        ("config=million", 24e9, "Try rls.storage=packed rls.precision=int16 (fits in "),
        ("config=million", 36e9, "Try rls.storage=packed (fits in "),
        ("config=million", 16e9, "Try rls.storage=packed rls.precision=int16 static.storage=procedural (fits in "),
        ("config=million_small_memory", 16e9, "Try static.storage=procedural (fits in "),
        ("config=million", 12e9, "Try plastic.group_size=8 (fits in "),
        ("config=million", 2e9, "Try rls.storage=packed rls.precision=int16 static.storage=procedural plastic.group_size=32 (fits in "),
        ("config=million", 0.65e9, "Try network.n_neurons=10000 (fits in "),
        ("config=sinusoid train.trials_per_update=64", 92e6, "Try train.trials_per_update=1 (fits in "),
    ],
)
def test_a_plan_that_does_not_fit_names_settings_that_fit(monkeypatch, settings, free, named):
    """Each of them is planned again: the size is the one that the message gives, and within what is free."""
    config = compose(*settings.split())
    sizes_of = partial(memory_plan.Sizes.of, n_units=None, conditions=1)
    monkeypatch.setattr(memory_plan, "available", lambda: (int(free), "machine"))
    with pytest.raises(UserError) as caught:
        memory_plan.check(config, sizes_of, learning=True)
    message = str(caught.value)
    assert named in message
    for offer, size in re.findall(r"((?:[\w.]+=\w+ )+)\(fits in ([^)]+)\)", message):
        total = sum(memory_plan.plan(sizes_of(compose(*settings.split(), *offer.split())), learning=True).values())
        assert byte_size(total) == size and total <= free


@pytest.mark.parametrize(
    ("settings", "learning", "testing"),
    [
        (("config=mouse_decision", "recording.path=r.zarr"), 4, 4 * 4 + 2 * 8 + 10),
        (("config=mouse_decision", "recording.path=r.zarr", "train.validate_every=0", "test.trials=8"), 0, 4 * 4 + 2 * 8 + 8),
        (("config=mouse_decision", "recording.path=r.zarr", "test.trials=100"), 4, 4 * 4 + 2 * 8 + 20 * 2),
        (("config=sinusoid", "test.trials=4"), 0, 2 * 8 + 2),
    ],
)
def test_recorded_rates_and_averages_over_trials_take_memory(settings, learning, testing):
    """Bytes a neuron and a learning point: recorded rates of 4, sums of currents of 8, counts of 1 or 2 a group of trials."""
    sizes = memory_plan.Sizes.of(compose(*settings, "network.n_neurons=400"), 400, 1)
    for each, bytes_ in ((True, learning), (False, testing)):
        parts = memory_plan.plan(sizes, each)
        assert parts.get("recorded rates", 0) + parts.get("averages over trials", 0) == bytes_ * sizes.points * 400


def test_resume_and_test_refuse_a_run_that_does_not_fit(tmp_path, monkeypatch):
    run = Run(tmp_path / "run")
    config = compose("config=tiny", "train.iterations=1", "progress=off")
    training.run_training(config, run, resumed=False)
    monkeypatch.setattr(memory_plan, "available", lambda: (1000, "machine"))
    with pytest.raises(UserError, match=r"memory: .*averages over trials .* has 1 kB free. Try a smaller test.trials\.$"):
        testing.run_test(config, run)
    with pytest.raises(UserError, match=r"memory: .*matrices P of RLS 2.1 MB.* has 1 kB free. Try a machine with more memory\.$"):
        training.run_training(compose("config=tiny", "train.iterations=2", "progress=off"), run, resumed=True)
    assert not run.test.exists() and run.iterations() == [1]


def test_a_limit_of_the_process_is_seen(monkeypatch):
    """ulimit -v."""
    resource = pytest.importorskip("resource")
    used = psutil.Process().memory_info().vms
    monkeypatch.setattr(resource, "getrlimit", lambda which: (used + 10**8, -1) if which == resource.RLIMIT_AS else (-1, -1))
    assert 0 <= memory_plan.free_memory() <= 10**8 + 10**6


@pytest.mark.parametrize("suffix", ["npz", "csv", "tsv", "parquet"])
def test_edges_of_a_file_are_counted_without_reading_them(tmp_path, suffix):
    random, path = np.random.default_rng(0), tmp_path / f"edges.{suffix}"
    pre, post, weight = random.integers(0, 60, 300), random.integers(0, 60, 300), random.normal(0, 1, 300)
    if suffix == "npz":
        sparse.save_npz(path, sparse.coo_matrix((weight, (pre, post)), (60, 60)))
    elif suffix == "parquet":
        pa = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pa.table({"pre": pre, "post": post, "weight": weight}), path)
    else:
        text = "\n".join("\t".join(map(str, row)) for row in [("pre", "post", "weight"), *zip(pre, post, weight, strict=True)])
        path.write_text(text if suffix == "tsv" else text.replace("\t", ",") + "\n")
    assert edge_count.count(str(path)) == len(edge_files.read_edges(str(path), "pre")[0]) == 300
    sizes = memory_plan.Sizes.of(compose("static=edges", f"static.path={path}", "network.n_neurons=60"), None, 1)
    assert memory_plan.plan(sizes, learning=True)["static synapses"] == 300 * (4 + 4)
    assert edge_count.count(str(tmp_path / "none.npz")) is None and edge_count.count("edges.txt") is None
