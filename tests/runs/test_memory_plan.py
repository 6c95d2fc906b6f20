"""Memory plan: compared with XLA's own analysis, with static=edges, and as `rlsnet info` shows it."""

import re

import numpy as np
import psutil
import pytest
from conftest import compose
from scipy import sparse

from rlsnet.analysis import inspect
from rlsnet.errors import UserError
from rlsnet.io import edge_count
from rlsnet.model import edge_files
from rlsnet.runs import memory_plan
from rlsnet.runs.folder import Run
from rlsnet.workflows import testing, training

FACTOR = 1.3  # between the plan and the figure of XLA, either way


def test_the_plan_agrees_with_the_figure_of_xla_and_info_repeats_it(tmp_path, caplog, capsys):
    """A network of 512 neurons with the kernels that auto takes on this machine."""
    with caplog.at_level("INFO"):
        training.run_training(compose("config=tiny", "train.iterations=1", "progress=off"), Run(tmp_path / "run"), resumed=False)
    plan = re.search(r"Memory plan: ([\d.]+) MB of", caplog.text)
    compiled = re.search(r"Compiled in [\d.]+ s; ([\d.]+) MB by XLA's own count", caplog.text)
    assert 1 / FACTOR < float(plan[1]) / float(compiled[1]) < FACTOR
    inspect.show(str(tmp_path / "run"))
    assert f"about {plan[1]} MB in all" in capsys.readouterr().out


def test_each_trial_of_training_has_a_state():
    one, eight = (memory_plan.Sizes.of(compose(f"train.trials_per_update={trials}"), None, 1) for trials in (1, 8))
    for learning, times in ((True, 8), (False, 1)):
        before, after = (memory_plan.plan(sizes, learning) for sizes in (one, eight))
        assert after == {**before, "state": times * before["state"]}


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
    with pytest.raises(UserError, match=r"memory: .*P 2.1 MB.* has 1 kB free. Try a machine with more memory\.$"):
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
