"""Training while an experiment runs: a folder with a made experiment of two conditions is watched, stopped, continued and repeated."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import zarr

from rlsnet.analysis.live.state import Reader
from rlsnet.data.import_options import Options
from rlsnet.data.session import Session as RecordedSession
from rlsnet.data.streams import store as stream_store
from rlsnet.data.streams.messages import Batch, Unit
from rlsnet.data.streams.store import StreamStore, TrialRow
from rlsnet.data.trial_average import average_trials
from rlsnet.errors import UserError
from rlsnet.learning import rls
from rlsnet.learning.iteration import Iteration
from rlsnet.runs.folder import Run
from rlsnet.simulation.state import TRAINING, Dynamics, TrialKeys
from rlsnet.workflows.online import scoring, watch
from rlsnet.workflows.online.ingest import Ingest
from rlsnet.workflows.online.units import Assignment
from rlsnet.workflows.testing import run_test
from tests.conftest import UPDATES, compose, settings

N_TRIALS, N_UNITS, LATE = 16, 30, 7  # LATE: a unit without spikes in the first half
SMALL = (
    *("config=online", "network.n_neurons=40", "plastic.n_inputs=16", "feedforward.n_neurons=8", "trial.stim_on=20", "trial.stim_off=40"),
    *("trial.duration=300", "trial.learn_every=10", "watch.start=-50", "watch.iterations=3", "watch.conditions.left=line2"),
    *("watch.conditions.right=line3", "train.checkpoint_every=6", "train.validation_trials=1", "resources_every=0", "progress=off"),
)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """(folder of .npz files with a trial each, [T] start of each trial, [T] whether it is left, spike times of each unit)."""
    folder, rng = tmp_path_factory.mktemp("experiment"), np.random.default_rng(8)
    start, left = 1 + 1.5 * np.arange(N_TRIALS) + rng.uniform(0, 0.2, N_TRIALS), np.arange(N_TRIALS) % 3 == 0
    spikes = []
    for unit in range(N_UNITS):
        base = rng.uniform(0, start[-1] + 1, rng.poisson((start[-1] + 1) * 4))
        driven = (start[left == (unit % 2 == 0)][:, None] + 0.05 + rng.exponential(0.05, (1, 6))).ravel()
        times = np.sort(np.concatenate([base, driven]))
        spikes.append(times[times > start[N_TRIALS // 2] - 0.6] if unit == LATE else times)
    write_files(folder, start, left, spikes)
    return folder, start, left, spikes


def write_files(folder, start, left, spikes, first=0, last=N_TRIALS):
    """Writes the files of some trials, and END after the last one."""
    edges = np.array([-1.0, *(start[1:] - 0.6), 1e9])
    time, unit = np.concatenate(spikes), np.repeat(np.arange(len(spikes)), [len(each) for each in spikes])
    for k in range(first, last):
        mine = (time >= edges[k]) & (time < edges[k + 1])
        order = np.argsort(time[mine], kind="stable")
        np.savez(
            folder / f"{k:03d}.tmp.npz",
            spike_times=time[mine][order],
            spike_clusters=unit[mine][order],
            marker_times=np.array([start[k] - 0.005, start[k]]),
            marker_names=np.array(["line2" if left[k] else "line3", "line1"]),
        )
        (folder / f"{k:03d}.tmp.npz").rename(folder / f"{k:03d}.npz")
    if last == N_TRIALS:
        (folder / "END").touch()


def watched(folder, source, *extra, resumed=False):
    """Status of a run of `watch` in a folder."""
    config = compose(*SMALL, f"watch.source={source}", *extra)
    return watch.run_watch(config, Run(folder), resumed)


@pytest.fixture(scope="module")
def run(experiment, tmp_path_factory):
    """A run that has watched the whole experiment, with a unit more than there are neurons for, and all iterations done."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert watched(folder, experiment[0], "watch.keep_up=false") == 0
    return Run(folder)


def lines_of(run):
    return [json.loads(line) for line in run.trials.read_text().splitlines()]


def state_of(run):
    """Weights, P and sums of the newest checkpoint, with the numbers of its iterations and trials."""
    group = zarr.open_group(str(run.checkpoint("last")), mode="r")
    names = ["plastic/weight", "feedforward/weight", "P", "trace_sums"]
    return [group.attrs["iteration"], group.attrs["trials"], *(group[name][...] for name in names)]


def assert_same(one, other):
    for a, b in zip(state_of(one), state_of(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_recorded_rates_are_those_of_an_import_of_the_same_trials(experiment, run):
    _, start, left, spikes = experiment
    index = np.cumsum([0, *map(len, spikes)])
    session = RecordedSession("s", "s", np.concatenate(spikes), index, {"id": np.arange(N_UNITS)}, {"start_time": start})
    options = Options(window=(-0.05, 0.25), bin=10, min_trials=0)
    expected = average_trials(session, np.arange(N_UNITS), [left, ~left], start, options)
    recording = zarr.open_group(str(run.recorded), mode="r")
    ids = recording["unit/id"][...].tolist()
    assert sorted(ids) == sorted([str(u) for u in range(N_UNITS)] + [""] * 10)
    neurons = [ids.index(str(u)) for u in range(N_UNITS)]
    np.testing.assert_array_equal(recording["rate"][...][..., neurons], expected.rate)
    np.testing.assert_array_equal(recording["rate_half"][...][..., neurons], expected.half)
    np.testing.assert_array_equal(recording["unit/n_trials"][...][neurons], expected.n_trials)
    np.testing.assert_allclose(recording["time"][...], np.arange(-0.045, 0.25, 0.01), atol=1e-9)
    assert np.isnan(recording["rate"][...][..., [n for n, key in enumerate(ids) if not key]]).all()


def test_every_trial_has_a_line_and_a_row(experiment, run):
    lines = lines_of(run)
    assert [line["trial"] for line in lines] == list(range(1, N_TRIALS + 1))
    assert [line["condition"] for line in lines] == ["left" if each else "right" for each in experiment[2]]
    assert [line["iterations"] for line in lines] == [3] * N_TRIALS
    assert all(line["score"] is not None for line in lines[2:])  # the first trial of a condition has nothing before it
    rows = stream_store.read(run.stream).trials
    assert [row.iterations for row in rows] == [3] * N_TRIALS and rows[-1].n_spikes == sum(map(len, experiment[3]))
    status = json.loads((run.path / "ingest.json").read_text())
    assert status["spikes"] == sum(map(len, experiment[3])) and status["trials"] == N_TRIALS and status["ended"]


def shown_of(run):
    """What rlsnet live reads of a run."""
    reader = Reader(run)
    reader.refresh()
    return reader


def test_live_shows_what_was_written(run):
    reader = shown_of(run)
    state, lines = reader.state(), lines_of(run)
    assert state["notes"] == [] and state["trials"]["n"] == state["rates"]["trial"] == N_TRIALS and state["rates"]["n_units"] == N_UNITS
    rows = {name: value for name, value, _ in state["recording"]}
    assert (
        rows["trials"] == str(N_TRIALS)
        and rows["connection"] == "ended"
        and rows["training"] == "stopped"
        and rows["units"] == str(N_UNITS)
    )
    assert rows["spikes in windows of trials"].startswith(f"{sum(line['n_spikes'] for line in lines):,} (")
    variance = sum(line["variance"] for line in lines if line["score"] is not None)
    assert state["trials"]["all"][0] == pytest.approx(sum(line["score"] or 0 for line in lines) / variance, rel=1e-3)
    online = zarr.open_group(str(run.path / "online.zarr"), mode="r")
    np.testing.assert_allclose(reader.unit(5)["data"], online["data"][..., 5], rtol=1e-3, atol=1e-6)
    known = np.isfinite(online["data"][0]).any(axis=0).sum()
    assert reader.heat_map(0)["n_units"] == known and state["rates"]["n_scored"] == min(N_UNITS, 40)


def test_a_stream_that_is_repeated_gives_the_same_run_to_the_bit(run, tmp_path):
    assert watched(tmp_path / "again", run.stream, "watch.regions.all=ALM") == 0
    again = Run(tmp_path / "again")
    assert_same(run, again)
    differ = {"latency_s", "lag_trials"}
    one, other = ([{k: v for k, v in line.items() if k not in differ} for line in lines_of(each)] for each in (run, again))
    assert one == other
    for name in ("recording.zarr/rate", "targets.zarr/target", "online.zarr/model"):
        a, b = (zarr.open_array(str(each.path / name), mode="r")[...] for each in (run, again))
        np.testing.assert_array_equal(a, b)
    assert set(zarr.open_array(str(again.path / "online.zarr" / "unit" / "region"), mode="r")[...]) == {"ALM"}
    assert set(zarr.open_array(str(again.recorded / "unit" / "region"), mode="r")[...]) == {"ALM", ""}


def test_a_run_that_goes_on_after_trials_without_training_is_the_same(experiment, run, tmp_path):
    """The last trials before the end were only recorded; their targets come with the next trial that is trained on."""
    whole, counts = stream_store.read(run.stream), [3, 2, 0, 3, 1, 0, 0, 4, 0, 0, 2, 3, 0, 1, 2, 3]
    ends = [int((whole.spike_time < end).sum()) for end in (*(experiment[1][1:] - 0.6), 1e9)]  # spikes of the files of the trials so far
    rows = [TrialRow(end, 2 * number, iterations) for number, (end, iterations) in enumerate(zip(ends, counts, strict=True), 1)]

    def add(path, first, last):
        """Adds the messages and rows of some trials to a stream."""
        store, start, end = StreamStore(path), rows[first - 1] if first else TrialRow(0, 0, 0), rows[last - 1]
        spikes, markers = slice(start.n_spikes, end.n_spikes), slice(start.n_markers, end.n_markers)
        store.append(Batch(whole.spike_time[spikes], whole.spike_unit[spikes], whole.markers[markers]), whole.units, "")
        for row in rows[first:last]:
            store.add_trial(row)
        store.commit()

    add(tmp_path / "whole.zarr", 0, N_TRIALS)
    add(tmp_path / "first.zarr", 0, 10)
    watched(tmp_path / "unbroken", tmp_path / "whole.zarr")
    watched(tmp_path / "broken", tmp_path / "first.zarr")
    add(tmp_path / "broken" / "stream.zarr", 10, N_TRIALS)
    watched(tmp_path / "broken", tmp_path / "first.zarr", resumed=True)
    assert_same(Run(tmp_path / "unbroken"), Run(tmp_path / "broken"))
    assert [line["iterations"] for line in lines_of(Run(tmp_path / "broken"))] == counts


def test_a_killed_run_goes_on_and_its_stream_gives_the_same_weights(experiment, tmp_path):
    """SIGKILL while it learns, twice; the source goes on meanwhile. The whole is the same as its own stream without a kill."""
    folder, place = tmp_path / "growing", tmp_path / "run"
    folder.mkdir()
    command = [sys.executable, "-m", "rlsnet", "watch", str(folder), str(place), *SMALL[1:], "watch.keep_up=false", "engine.platform=cpu"]
    for last in (6, 11):
        write_files(folder, *experiment[1:], first=0 if last == 6 else 6, last=last)
        process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
        until = time.monotonic() + 120
        while time.monotonic() < until and process.poll() is None:
            if (place / "trials.jsonl").exists() and len((place / "trials.jsonl").read_text().splitlines()) >= last - 2:
                break
            time.sleep(0.02)
        assert process.poll() is None, process.stderr.read()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        command = [sys.executable, "-m", "rlsnet", "watch", str(place), "engine.platform=cpu"]
    write_files(folder, *experiment[1:], first=11)
    assert subprocess.run(command, check=True, capture_output=True, text=True).returncode == 0
    killed = Run(place)
    stored = stream_store.read(killed.stream)
    assert len(stored.spike_time) == sum(map(len, experiment[3])) and len(stored.trials) == N_TRIALS
    assert [line["trial"] for line in lines_of(killed)] == list(range(1, N_TRIALS + 1))
    watched(tmp_path / "again", killed.stream)
    assert_same(killed, Run(tmp_path / "again"))


def test_the_run_is_tested_like_any_other(run):
    config = dataclasses.replace(run.config(), test=dataclasses.replace(run.config().test, trials=4))
    run_test(config, run)
    test = zarr.open_group(str(run.test), mode="r")
    assert test["psth"].shape == (2, 30, 40) and test.attrs["iteration"] == 3 * N_TRIALS


def test_predictions_are_the_effects_that_tests_find(run, tmp_path):
    """The same random numbers, so that the effect on each unit is that between two tests, exactly."""
    listed = tmp_path / "list.yaml"
    listed.write_text("no_exc: {name: silence, neurons: exc, start: 100, stop: 200}\nprobe: {name: silence, neurons: \"unit == '3'\"}\n")
    watched(tmp_path / "two", run.stream, f"watch.perturbations={listed}", "watch.models=2")
    found = zarr.open_group(str(tmp_path / "two" / "prediction.zarr"), mode="r")
    assert found["effect"].shape == (2, 2, 2, N_UNITS) and np.isfinite(found["effect"][...]).all() and found.attrs["trial"] == N_TRIALS
    ids = zarr.open_group(str(tmp_path / "two" / "recording.zarr"), mode="r")["unit/id"][...].tolist()
    keys = zarr.open_group(str(tmp_path / "two" / "online.zarr"), mode="r")["unit/id"][...].tolist()
    for k, place in enumerate((tmp_path / "two", tmp_path / "two" / "models" / "2")):
        tested, psth = Run(place), []
        for perturb in ([], ["perturb=silence", "perturb.neurons=exc", "perturb.start=100", "perturb.stop=200"]):
            config = dataclasses.replace(tested.config(), perturb=compose(*SMALL, *perturb).perturb)
            config = dataclasses.replace(config, test=dataclasses.replace(config.test, trials=4, untrained_trials=0))
            (path,) = run_test(config, tested)
            psth.append(zarr.open_group(str(path), mode="r")["psth"][...][:, :, [ids.index(key) for key in keys]])
        np.testing.assert_allclose(found["effect"][k, 0], (psth[1] - psth[0])[:, 6:].mean(axis=1), atol=1e-4)
    assert found["disagreement"][0] > 0 and not np.array_equal(found["effect"][0], found["effect"][1])
    shown = shown_of(Run(tmp_path / "two")).state()
    assert shown["notes"] == [] and shown["prediction"]["models"] == 2 and shown["prediction"]["trial"] == N_TRIALS
    first = next(each for each in shown["prediction"]["perturbations"] if each["name"] == found["perturbation"][0])
    np.testing.assert_allclose(first["conditions"][1]["models"], found["effect"][:, 0, 1].mean(axis=1), rtol=1e-3)


def test_a_stream_with_other_windows_makes_other_trials(run, tmp_path):
    """The iterations of its run do not fit its trials then, and are chosen anew."""
    assert watched(tmp_path / "other", run.stream, "watch.start=0", "trial.duration=200", "watch.iterations=1") == 0
    other = Run(tmp_path / "other")
    assert [line["iterations"] for line in lines_of(other)] == [1] * N_TRIALS
    one, two = (zarr.open_group(str(each.recorded), mode="r")["rate"][...] for each in (run, other))
    np.testing.assert_allclose(one[:, 10:20], two[:, 5:15], atol=1e-5, equal_nan=True)  # the same spikes, from 50 to 150 ms


def test_predictions_of_networks_of_other_widths_and_of_units_that_have_not_come(run, tmp_path, caplog):
    """Each network has a program of its own; a perturbation that selects nobody is left out, with a line, and nothing stops."""
    listed = {"exc": "exc", "late": "stream == 'B'"}
    content = {name: {"name": "silence", "neurons": neurons, "start": 100, "stop": 200} for name, neurons in listed.items()}
    (tmp_path / "list.yaml").write_text(json.dumps(content))
    own = [each for each in SMALL if not each.startswith("feedforward")]  # whose neurons would reach all others
    extra = ["feedforward=none", "watch.models=2", f"watch.perturbations={tmp_path / 'list.yaml'}", f"watch.source={run.stream}"]
    assert watch.run_watch(compose(*own, *extra), Run(tmp_path / "two"), False) == 0
    effect = zarr.open_group(str(tmp_path / "two" / "prediction.zarr"), mode="r")["effect"][...]
    assert np.isfinite(effect[:, 0]).all() and np.isnan(effect[:, 1]).all()
    assert sum("No prediction of late" in each.message for each in caplog.records) == 1


def test_a_weight_that_starts_warm_is_that_of_the_earlier_run(run, experiment, tmp_path):
    """A source without spikes: nothing is learned, units with known keys keep their neurons when they come."""
    folder = tmp_path / "first"
    folder.mkdir()
    write_files(folder, *experiment[1:], last=2)
    (folder / "END").touch()
    watched(tmp_path / "warm", folder, f"watch.warm_start={run.path}", "watch.iterations=1", "network.n_neurons=33")
    start, last = (zarr.open_group(str(path), mode="r") for path in (tmp_path / "warm" / "network.zarr", run.checkpoint("last")))
    np.testing.assert_array_equal(start["plastic/weight"][...], last["plastic/weight"][...])
    before, after = (zarr.open_group(str(path), mode="r")["unit/id"][...] for path in (run.recorded, tmp_path / "warm" / "recording.zarr"))
    seen = after != ""
    assert seen.sum() >= 20 and (after[seen] == before[seen]).all()


def test_neurons_of_units():
    """Known keys keep their neurons; others take free ones, then those of units that have not come back; then none is left."""
    made = Assignment(4, ["", "a", "b", ""])
    made.extend([Unit("b"), Unit("x")])
    made.extend([Unit("b"), Unit("x"), Unit("y"), Unit("z"), Unit("a")])
    assert made.neuron.tolist() == [2, 0, 3, 1, -1] and made.n_left_out == 1
    np.testing.assert_array_equal(made.by_neuron(np.arange(5.0), 4), [1, 3, 0, 2])


def test_the_score_of_single_trials_is_unbiased():
    """Poisson trials of known rates: sums over many trials give the explained variance of a model and of the ceiling in closed form."""
    rng, n = np.random.default_rng(1), 4000
    true, mean = rng.uniform(0, 40, (20, 6)), np.full(6, 15.0)
    model, average = true + rng.normal(0, 4, true.shape), true + rng.normal(0, 3, (n, *true.shape))
    noisy = model + rng.normal(0, 5, (n, 2, *true.shape))  # the network's own noise, of two sets of trials
    data = rng.poisson(true * 0.02, (n, *true.shape)) / 0.02
    scores = [scoring.of_trial(data[t], noisy[t], average[t], average[t], mean) for t in range(n)]
    variance = ((true - mean) ** 2).sum()
    assert np.mean([each.variance for each in scores]) == pytest.approx(variance, rel=0.02)
    assert np.mean([each.score for each in scores]) == pytest.approx(variance - ((true - model) ** 2).sum(), rel=0.02)
    assert np.mean([each.ceiling for each in scores]) == pytest.approx(variance - 9 * true.size, rel=0.02)
    assert scoring.of_trial(data[0], np.full((2, *true.shape), np.nan), model, model, mean) is None


@pytest.mark.parametrize(("form", "trials"), [*((form, 1) for form in UPDATES if form.update != "dense"), (UPDATES[-1], 2)])
def test_traces_of_an_iteration_are_what_p_was_updated_with(x64, form, trials):
    """inv(P) after two iterations is inv(P_0) plus the sum of x x' over the traces, for the inputs of each group."""
    config = compose(*SMALL, "rls.every=2", "engine.precision=float64", f"train.trials_per_update={trials}", *settings(form), "rls.penmu=0")
    network, w = small_network_of(config)
    learner = rls.init(config.rls, network, w, form.update)
    start = np.asarray(learner.P.decode())
    target = jnp.asarray(np.random.default_rng(2).normal(0.2, 0.1, (2, 30, network.n_neurons)))
    dynamics = dataclasses.replace(Dynamics.from_config(config), backend=form)
    iteration = Iteration(dynamics, config.rls, network, learner, target, TrialKeys.create(1, TRAINING), trials=trials, traces=True)
    added = 0.0
    for number in range(2):
        learner, outcome = iteration(learner, number, number)
        traces = np.asarray(outcome.traces)
        assert traces.shape == (30, network.n_neurons + network.n_feedforward) and not traces[::2].any() and traces[1::2].any()
        x = traces[:, np.asarray(network.pre)]
        added += np.einsum("mgl,mgk->glk", x, x)
    expected = np.linalg.inv(start) + added
    np.testing.assert_allclose(np.linalg.inv(np.asarray(learner.P.decode())), expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max())


def small_network_of(config):
    """(network, weights [G, X+L, S]) of an experiment, drawn."""
    from rlsnet.model import build
    from rlsnet.model.connectivity import to_groups

    made = build.build(config)
    return made.network, jnp.asarray(to_groups(made.weight, made.network.group_size))


class Slow:
    """A source that delivers one spike of a unit in each reading, and then ends."""

    name, position = "slow", ""

    def __init__(self, n):
        self.units, self._left = [Unit("a")], n

    def read(self, timeout):
        self._left -= 1
        return None if self._left < 0 else Batch(np.array([0.001 * -self._left]), np.zeros(1, np.int32), until={"": 0.0})

    def problem(self):
        return ""

    def close(self):
        self._left = -1


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    """Nothing reaches training that is not on the disk, and all is written as soon as there is space."""
    full, commit, made = threading.Event(), StreamStore.commit, StreamStore(tmp_path / "stream.zarr")
    full.set()

    def failing(self):
        if full.is_set():
            raise OSError(28, "No space left on device")
        commit(self)

    monkeypatch.setattr(StreamStore, "commit", failing)
    ingest = Ingest(Slow(500), made, tmp_path)
    with ingest.running():
        time.sleep(0.5)
        assert ingest.take(0.0) is None and not ingest.add_trial(TrialRow(0, 0, 1))
        full.clear()
        until, got = time.monotonic() + 20, 0
        while not ingest.ended and time.monotonic() < until:
            found = ingest.take(0.1)
            got += 0 if found is None else len(found.batch.spike_time)
    assert got == 500 and len(stream_store.read(tmp_path / "stream.zarr").spike_time) == 500
    assert json.loads((tmp_path / "ingest.json").read_text())["problem"] == ""


def test_an_error_of_training_does_not_end_the_recording(experiment, tmp_path, monkeypatch):
    """All spikes are stored, the error is the exit, and the run goes on where it has ended."""
    from rlsnet.workflows.online.model import OnlineModel

    iterate, place = OnlineModel.iterate, tmp_path / "run"

    def failing(self, condition):
        if self.done == 20:
            raise OSError(28, "No space left on device", "metrics.jsonl")
        return iterate(self, condition)

    monkeypatch.setattr(OnlineModel, "iterate", failing)
    with pytest.raises(UserError, match="No space left.*recorded to its end; rlsnet watch .* learns the rest"):
        watched(place, experiment[0], "watch.keep_up=false")
    assert len(stream_store.read(place / "stream.zarr").spike_time) == sum(map(len, experiment[3]))
    assert len(lines_of(Run(place))) == 6
    monkeypatch.setattr(OnlineModel, "iterate", iterate)
    assert watched(place, experiment[0], "watch.keep_up=false", resumed=True) == 0
    watched(tmp_path / "again", place / "stream.zarr")
    assert_same(Run(place), Run(tmp_path / "again"))


def test_iterations_are_left_out_when_trials_wait(experiment, tmp_path):
    watched(tmp_path / "run", experiment[0], "watch.iterations=50")
    done = [line["iterations"] for line in lines_of(Run(tmp_path / "run"))]
    assert done[0] == 0 and done[-1] == 50 and len(done) == N_TRIALS  # all but the last were complete from the start
    watched(tmp_path / "again", tmp_path / "run" / "stream.zarr")
    assert_same(Run(tmp_path / "run"), Run(tmp_path / "again"))


def test_results_are_published(run, tmp_path):
    zmq = pytest.importorskip("zmq")
    listener, heard = zmq.Context.instance().socket(zmq.SUB), []
    listener.setsockopt(zmq.SUBSCRIBE, b"")
    listener.setsockopt(zmq.RCVTIMEO, 5000)
    address = f"ipc://{tmp_path}/results"
    listener.connect(address)
    thread = threading.Thread(target=lambda: heard.extend(json.loads(listener.recv()) for _ in range(N_TRIALS)))
    thread.start()
    watched(tmp_path / "run", run.stream, f"watch.publish={address}")
    thread.join()
    listener.close()
    assert [line["trial"] for line in heard] == [line["trial"] for line in lines_of(Run(tmp_path / "run"))]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["watch.source=null"], "expected a source of messages"),
        (["watch.source=nowhere"], "nowhere: no such folder"),
        (["target=sinusoid"], "target=sinusoid: expected recording"),
        (["recording.path=mine.zarr"], "recording.path=mine.zarr: expected null"),
        (["network.n_neurons=null"], "network.n_neurons=null: expected a number"),
        (["engine.devices=2"], "engine.devices=2: expected 1 for watch"),
        (["watch.conditions.left=line2 and"], "watch.conditions.left|conditions.left"),
        (["watch.perturbations=nowhere.yaml"], "watch.perturbations=nowhere.yaml: cannot be read"),
        (["watch.publish=tcp://203.0.113.1:5560"], "watch.publish=.*cannot be used"),
        (["watch.warm_start=nowhere"], "nowhere: no such folder"),
        (["plastic.n_inputs=39000"], "memory: the run needs"),
    ],
)
def test_mistakes_end_before_anything_is_written(experiment, tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        watched(tmp_path / "run", experiment[0], *settings)
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "expected a section like perturb"),
        ("quiet: {name: quiet}", "quiet: perturb.name=quiet"),
        ("off: {name: silence}", "the name false is no text; expected quotes around it"),
        ("one: {name: none}", "expected silence, excite or clamp"),
        ("one: {name: silence, compare: {left: center}}", "no condition center"),
        ("one: {name: silence, neurons: depth > 3}", "one: perturb.neurons=depth > 3.*depth"),
        ("one: {name: silence, neurons: 0:900}", "one: perturb.neurons=0:900"),
        ("late: {name: silence, start: 900}", "late: perturb.start=900"),
    ],
)
def test_mistakes_in_a_list_of_perturbations(experiment, tmp_path, content, message):
    (tmp_path / "list.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        watched(tmp_path / "run", experiment[0], f"watch.perturbations={tmp_path / 'list.yaml'}")


def test_a_run_is_neither_overwritten_nor_mixed_with_training(run, experiment):
    with pytest.raises(UserError, match="contains a run; rlsnet watch .* continues it"):
        watched(run.path, experiment[0])


@pytest.mark.slow
@pytest.mark.skipif("RLSNET_STEINMETZ" not in os.environ, reason="the folder RLSNET_STEINMETZ has the real sessions")
def test_a_real_session_is_learned_as_well_as_offline(tmp_path):
    """342 trials of session 11, one iteration after each: equal to an import, and scores on held-out trials as of offline training."""
    from rlsnet import results
    from rlsnet.data.importing import import_sources
    from rlsnet.data.recordings import open_recording
    from rlsnet.workflows.training import run_training

    sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
    import replay_experiment

    path, conditions = Path(os.environ["RLSNET_STEINMETZ"]) / "session11.npz", {
        "left": "contrast_left > contrast_right", "right": "contrast_right > contrast_left", "equal": "contrast_left == contrast_right",
    }  # fmt: skip
    (tmp_path / "source").mkdir()
    replay_experiment.main(
        [str(path), str(tmp_path / "source"), "speed=max", *(f"line{n}={each}" for n, each in enumerate(conditions.values(), 2))]
    )
    shared = [
        "config=online",
        "network.n_neurons=900",
        "trial.duration=1200",
        "trial.stim_on=100",
        "trial.stim_off=300",
        "recording.half=odd",
    ]
    lines = [f"watch.conditions.{name}=line{n}" for n, name in enumerate(conditions, 2)]
    config = compose(
        *shared, *lines, "watch.start=-200", "watch.iterations=1", "watch.keep_up=false", f"watch.source={tmp_path / 'source'}"
    )
    online, offline = Run(tmp_path / "online"), Run(tmp_path / "offline")
    watch.run_watch(config, online, False)
    assert len(lines_of(online)) == 342
    import_sources([path], tmp_path / "r.zarr", Options(window=(-0.2, 1.0), bin=20, conditions=conditions, min_trials=0), lambda text: None)
    one, other = open_recording(tmp_path / "r.zarr"), open_recording(online.recorded)
    place = {key: neuron for neuron, key in enumerate(other.column("id").tolist()) if key}
    np.testing.assert_array_equal(one.read(), other.read()[..., [place[str(key)] for key in one.column("id")]])
    run_training(compose(*shared, "train.iterations=342", f"recording.path={online.recorded}"), offline, False)
    scores = []
    for each in (online, offline):
        run_test(dataclasses.replace(each.config(), test=dataclasses.replace(each.config().test, trials=20)), each)
        scores.append(results.Run(each.path).explained().loc["all", "model"])
    assert scores[0] > 0.95 * scores[1] > 0.5
