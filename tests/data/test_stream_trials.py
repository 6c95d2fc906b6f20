"""Stored streams, and the trials and averages that are made of them, against those of an import of the whole session."""

import errno

import numpy as np
import pytest
import zarr

from rlsnet.data.import_options import Options
from rlsnet.data.session import Session
from rlsnet.data.streams import store
from rlsnet.data.streams.averages import RunningAverage, conditions_of
from rlsnet.data.streams.messages import Batch, Marker, Unit
from rlsnet.data.streams.store import StreamStore, TrialRow
from rlsnet.data.streams.trials import Rules, StreamTrial, TrialAssembler, Window
from rlsnet.data.trial_average import average_trials, bin_centres, smoothing_kernel
from rlsnet.errors import UserError

OPTIONS = Options(window=(-0.1, 0.4), bin=10, sigma=20.0)
WEIGHT = smoothing_kernel(OPTIONS)
WINDOW = Window(-0.1, 0.01, len(bin_centres(OPTIONS)), len(WEIGHT) // 2)
CONDITIONS = {"left": "line2", "right": "line3 and not line2"}


@pytest.fixture(scope="module")
def session():
    """60 trials, 2 s each, of 40 units on two probes; each probe has a clock of its own, and units fire more after the event."""
    rng = np.random.default_rng(3)
    start = 1 + 2 * np.arange(60) + rng.uniform(0, 0.3, 60)
    spikes = []
    for unit in range(40):
        base = rng.uniform(0, 122, rng.poisson(122 * (2 + unit % 7)))
        driven = (start[:, None] + rng.exponential(0.1, (60, 3 + unit % 4))).ravel()
        times = np.sort(np.concatenate([base, driven]))
        spikes.append(times if unit != 5 else times[times > 60])  # a unit that appears late
    left = rng.random(60) < 0.5
    return start, left, spikes


def messages(session, size):
    """Batches of about `size` spikes in the order of time, with stream clocks 0 (A) and 500 s (B) apart, and lines of both streams."""
    start, left, spikes = session
    time, unit = np.concatenate(spikes), np.repeat(np.arange(40), [len(each) for each in spikes])
    order = np.argsort(time, kind="stable")
    time, unit = time[order], unit[order]
    units = [Unit(f"{'AB'[u % 2]}/{u}", "AB"[u % 2]) for u in range(40)]
    markers = [(t - 0.005, "A", "line2" if is_left else "line3") for t, is_left in zip(start, left, strict=True)]
    markers += [(t, stream, "line1") for t in start for stream in "AB"]
    markers = [Marker(t + 500 * (s == "B"), s, name, "", 1e9 + t) for t, s, name in sorted(markers)]
    for begin in range(0, len(time), size):
        part = slice(begin, begin + size)
        before, after = time[begin - 1] if begin else -1.0, time[part][-1]
        last = begin + size >= len(time)
        now = [each for each in markers if before < each.arrival - 1e9 <= after or (last and each.arrival - 1e9 > after)]
        yield Batch(time[part] + 500.0 * (unit[part] % 2), unit[part].astype(np.int32), now), units


def as_imported(session, key_order):
    """Averages of an import of the session on one clock, with the units in the order of their keys."""
    start, left, spikes = session
    trains = [spikes[int(key.split("/")[1])] for key in key_order]
    index = np.cumsum([0, *(len(each) for each in trains)])
    whole = Session("s", "s", np.concatenate(trains), index, {"id": np.array(key_order)}, {"start_time": start})
    return average_trials(whole, np.arange(len(trains)), [left, ~left], start, OPTIONS)


@pytest.mark.parametrize("size", [7, 900, 10**6])
def test_running_averages_are_those_of_an_import_bin_for_bin(session, tmp_path, size):
    stored, made = StreamStore(tmp_path / "stream.zarr"), TrialAssembler(WINDOW, Rules("line1"))
    average, names = RunningAverage(WINDOW, 2, WEIGHT), []

    def take():
        trial = made.take()
        average.add(trial, conditions_of(trial, CONDITIONS)[0], [unit.stream for unit in stored.units[: len(trial.counted)]])
        stored.add_trial(TrialRow(trial.n_spikes, trial.n_markers, 2))
        names.append(conditions_of(trial, CONDITIONS))

    for count, (batch, units) in enumerate(messages(session, size)):
        made.feed(stored.append(batch, units, ""), stored.units)
        while made.n_complete(now=0.0):
            take()
        if count % 50 == 0:
            stored.commit()
    while made.n_open:
        take()
    stored.commit()
    assert made.n_trials == 60 and made.late == 0 and names == [[0] if left else [1] for left in session[1]]
    expected = as_imported(session, [unit.key for unit in stored.units])
    np.testing.assert_array_equal(average.rates(), expected.rate)
    np.testing.assert_array_equal(np.stack([average.rates("odd"), average.rates("even")]), expected.half)
    np.testing.assert_array_equal(average.n_trials.sum(axis=1).T, expected.n_trials)
    counts = np.stack([np.einsum("tmu->u", expected.trials.counts[expected.trials.condition == c], dtype=int) for c in (0, 1)])
    np.testing.assert_allclose(average.mean_rate(), counts.sum(axis=0) / (60 * 0.5), rtol=1e-12)
    again = store.read(tmp_path / "stream.zarr")
    assert len(again.spike_time) == sum(map(len, session[2])) and len(again.trials) == 60 and len(again.markers) == 180
    for number, unit in enumerate(again.units):
        u = int(unit.key.split("/")[1])
        np.testing.assert_array_equal(np.sort(again.spike_time[again.spike_unit == number]), session[2][u] + 500.0 * (u % 2))


def test_few_trials_are_drawn_to_the_mean_rate(session):
    made, average = TrialAssembler(WINDOW, Rules("line1")), RunningAverage(WINDOW, 3, WEIGHT)
    for batch, units in messages(session, 10**6):
        made.feed(batch, units)
    for condition in (0, 0, 1):
        average.add(made.take(), condition, ["AB"[u % 2] for u in range(40)])
    rates, mean = average.rates(), average.mean_rate()
    shrunk = average.shrunk(5.0)
    np.testing.assert_allclose(shrunk[0], (2 * rates[0] + 5 * mean) / 7, rtol=1e-6)
    np.testing.assert_allclose(shrunk[1], (rates[1] + 5 * mean) / 6, rtol=1e-6)
    np.testing.assert_allclose(shrunk[2], np.broadcast_to(mean, shrunk[2].shape))
    np.testing.assert_allclose(average.shrunk(0.0)[:2], rates[:2], rtol=1e-6)
    assert np.isnan(rates[2]).all()


def marked(*markers):
    """A batch of markers (time, name) or (time, name, value) in one stream, which arrive when they happen."""
    return Batch(markers=[Marker(each[0], "", each[1], each[2] if len(each) > 2 else "", each[0]) for each in markers])


def columns(rules, *markers):
    """Names of markers in each trial, with their values."""
    made = TrialAssembler(Window(0.0, 0.01, 40, 0), rules)
    made.feed(marked(*markers), [])
    trials = [made.take() for _ in range(made.n_open)]
    return [{name: value for name, value in trial.columns.items() if not name.endswith("_time")} for trial in trials]


def test_a_marker_belongs_to_the_trial_whose_window_comes_next():
    found = columns(Rules("go"), (0.9, "cue", "left"), (1.0, "go"), (1.3, "lick"), (1.6, "reward"), (3.0, "go"), (3.2, "cue", "right"))
    assert found == [{"cue": "left", "go": True, "lick": True}, {"reward": True, "go": True, "cue": "right"}]


def test_a_marker_can_start_the_trials():
    found = columns(Rules("go", start="begin"), (0.5, "begin"), (1.0, "go"), (2.6, "reward"), (2.8, "begin"), (3.0, "go"), (3.9, "miss"))
    assert found == [{"begin": True, "go": True, "reward": True}, {"begin": True, "go": True, "miss": True}]


def test_a_trial_is_complete_after_its_window_and_its_end():
    made = TrialAssembler(Window(0.0, 0.01, 40, 5), Rules("go", end="over", settle=0.1))
    made.feed(marked((1.0, "go"), (1.6, "other")), [])
    assert not made.n_complete(now=100.0)  # its end has not come
    made.feed(marked((1.61, "over")), [])
    assert made.n_complete(now=0.0)
    waiting = TrialAssembler(Window(0.0, 0.01, 40, 5), Rules("go", settle=0.1))
    waiting.feed(marked((1.0, "go"), (1.54, "other")), [])
    assert not waiting.n_complete(now=1.9) and waiting.n_complete(now=2.06)  # a source that sends nothing more
    waiting.since = 50.0  # the program starts again, and the source may have more of the trial
    assert not waiting.n_complete(now=50.9) and waiting.n_complete(now=51.06)


def test_spikes_after_their_trial_was_taken_are_counted():
    made = TrialAssembler(Window(0.0, 0.01, 40, 0), Rules("go"))
    units = [Unit("a")]
    made.feed(Batch(np.array([1.05]), np.zeros(1, np.int32), marked((1.0, "go"), (2.0, "x")).markers), units)
    trial = made.take()
    assert trial.counts.sum() == 1 and (trial.n_spikes, trial.n_markers) == (1, 2)
    made.feed(Batch(np.array([1.2, 1.7]), np.zeros(2, np.int32)), units)
    assert made.late == 1


@pytest.mark.parametrize(
    ("text", "given", "true"),
    [
        ("choice == 'left'", {"choice": "left"}, True),
        ("choice != 'left'", {}, True),
        ("contrast > 0.2", {"contrast": "0.5"}, True),
        ("contrast > 0.2", {}, False),
        ("line2 and not line3", {"line2": True}, True),
        ("line2", {}, False),
        ("line2_time > 3", {"line2": True, "line2_time": 4.0}, True),
        ("line2_time > 3", {}, False),
        ("", {}, True),
    ],
)
def test_conditions_are_expressions_of_markers(text, given, true):
    made = TrialAssembler(Window(0.0, 0.01, 40, 0), Rules("go"))
    made.feed(marked((1.0, "go")), [])
    trial = made.take()
    trial.columns.update(given)
    assert conditions_of(trial, {"c": text}) == ([0] if true else [])
    with pytest.raises(UserError, match="conditions.c=1 \\+"):
        conditions_of(trial, {"c": "1 +"})


def contents(path):
    """Committed spikes, markers and trials of a stream."""
    stream = store.read(path)
    return stream.spike_time.tolist(), [each.name for each in stream.markers], len(stream.units), len(stream.trials)


def spike_batch(times, unit=0, *markers):
    return Batch(np.array(times), np.full(len(times), unit, np.int32), marked(*markers).markers)


def test_what_is_committed_is_whole_whenever_the_process_ends(tmp_path, monkeypatch):
    path, units = tmp_path / "stream.zarr", [Unit("a"), Unit("b")]
    one = StreamStore(path)
    one.append(spike_batch([1.0, 2.0], 0, (1.5, "go")), units, "p1")
    one.commit()
    before, written, real = contents(path), [], zarr.storage.LocalStore.set

    async def failing(self, key, value, *more):  # ends at each of the writes of a commit in turn
        if len(written) == failing.after:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(key)
        await real(self, key, value, *more)

    for failing.after in range(100):
        written.clear()
        two = StreamStore(path)  # as after a start
        assert two.position == "p1"
        two.append(spike_batch([3.0, 4.0], 1, (3.5, "go")), units, "p2")
        two.add_trial(TrialRow(3, 1, 10))
        monkeypatch.setattr(zarr.storage.LocalStore, "set", failing)
        try:
            two.commit()
            break
        except OSError:
            monkeypatch.setattr(zarr.storage.LocalStore, "set", real)
            if contents(path) != before:  # the counts were written, and what comes after them failed
                break
            assert two.uncommitted == 4  # two spikes, a marker and a trial
    monkeypatch.setattr(zarr.storage.LocalStore, "set", real)
    assert failing.after > 10  # every array was reached
    assert contents(path) == ([1.0, 2.0, 3.0, 4.0], ["go", "go"], 2, 1)
    assert StreamStore(path).position == "p2"


def test_nothing_is_lost_while_the_disk_is_full(tmp_path, monkeypatch):
    path = tmp_path / "stream.zarr"
    one, real = StreamStore(path), zarr.storage.LocalStore.set

    async def full(self, key, value, *more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zarr.storage.LocalStore, "set", full)
    for start in (1.0, 2.0):
        one.append(spike_batch([start], 0, (start, "go")), [Unit("a")], "")
        with pytest.raises(OSError, match="No space"):
            one.commit()
    monkeypatch.setattr(zarr.storage.LocalStore, "set", real)
    one.append(spike_batch([3.0]), [Unit("a")], "")
    one.commit()
    assert contents(path) == ([1.0, 2.0, 3.0], ["go", "go"], 1, 0)


def test_a_clock_that_starts_again_goes_on_and_markers_that_come_twice_count_once(tmp_path):
    path, units = tmp_path / "stream.zarr", [Unit("a")]
    one = StreamStore(path)
    one.append(spike_batch([50.0, 60.0], 0, (55.0, "go")), units, "")
    one.append(spike_batch([57.8], 0, (55.0, "go")), units, "")  # late, and a marker again
    one.commit()
    two = StreamStore(path)
    two.append(spike_batch([0.5, 3.0], 0, (1.0, "go")), units, "")
    two.append(spike_batch([5.0]), units, "")
    two.commit()
    times, markers, _, _ = contents(path)
    assert times == [50.0, 60.0, 57.8, 70.0, 72.5, 74.5] and markers == ["go", "go"]
    assert store.read(path).markers[1].time == 70.5


def test_what_is_no_stream_is_refused_in_one_line(tmp_path):
    zarr.create_group(str(tmp_path / "other.zarr"), attributes={"format": "rlsnet-recording"})
    with pytest.raises(UserError, match="has format rlsnet-recording; expected rlsnet-stream"):
        StreamStore(tmp_path / "other.zarr")
    one = StreamStore(tmp_path / "stream.zarr")
    one.append(spike_batch([1.0, 2.0]), [Unit("a")], "")
    one.commit()
    chunk = next((tmp_path / "stream.zarr/spike/time").rglob("0"))
    chunk.write_bytes(chunk.read_bytes()[:-6])
    with pytest.raises(UserError, match="spike/time: cannot be read, the file is damaged"):
        StreamStore(tmp_path / "stream.zarr")


def test_a_unit_that_falls_silent_keeps_its_target_until_it_comes_back():
    """Four spikes in each of 5 trials, silence in 6, 1 trial with spikes: from the fourth silent trial on, it is taken for lost."""
    window, kernel = Window(0.0, 0.1, 5, 0), np.ones(1)
    average, expected, seen = RunningAverage(window, 1, kernel, lost=1e-6), RunningAverage(window, 1, kernel), []
    for number, spikes in enumerate([4] * 5 + [0] * 6 + [4]):
        counts = np.array([[spikes, 0, 0, 0, 0], [1, 1, 1, 1, 0]], np.uint16)
        trial = StreamTrial(number, {"": float(number)}, 0.0, {}, counts, np.ones(2, bool), 0, 0)
        average.add(trial, 0, ["", ""])
        expected.add(trial, 0, ["", ""])
        seen.append(average.lost.tolist())
        np.testing.assert_array_equal(average.rates(), expected.rates())
        n = {8: 5, 9: 5, 10: 5, 11: 6}.get(number, number + 1)  # exp(-4 * 4) is below 1e-6
        total = 4 * min(number + 1, 5) + 4 * (number == 11)
        np.testing.assert_allclose(average.shrunk(0.0)[0, :, 0], [total / n / 0.1, 0, 0, 0, 0], rtol=1e-6)
        np.testing.assert_allclose(average.shrunk(0.0)[0, :, 1], [10, 10, 10, 10, 0], rtol=1e-6)
    assert seen == [[8 <= number <= 10, False] for number in range(12)]


def test_late_and_repeated_markers_do_not_start_a_clock_again(tmp_path, caplog):
    """Of a stream with spikes, only spikes that go back do; old markers keep their times, and those that come again are dropped."""
    one, units = StreamStore(tmp_path / "stream.zarr"), [Unit("a")]
    one.append(spike_batch([1.0, 20.0], 0, (1.5, "go")), units, "")
    late = one.append(Batch(markers=[Marker(3.0, "", "outcome", "", 0.0), Marker(1.5, "", "go", "", 0.0)]), units, "")
    assert [(each.time, each.name) for each in late.markers] == [(3.0, "outcome")] and not caplog.records
    again = one.append(spike_batch([0.5], 0, (1.5, "go")), units, "")  # the clock starts at 0 again, and so does the experiment
    assert again.spike_time == pytest.approx([30.0]) and [each.time for each in again.markers] == pytest.approx([31.0])
    assert "has started again" in caplog.text


def test_markers_that_start_a_trial_in_two_streams_start_one(session):
    """The start in the second stream, with a condition marker between them, begins no other trial."""
    made = TrialAssembler(WINDOW, Rules("go", start="trial"))
    events = [(1.0, "A", "trial"), (1.01, "A", "line2"), (1.02, "B", "trial"), (1.1, "A", "go"), (1.11, "B", "go")]
    made.feed(Batch(markers=[Marker(t, stream, name, "", t) for t, stream, name in events]), [])
    assert made.n_open == 1
    trial = made.take()
    assert set(trial.events) == {"A", "B"} and conditions_of(trial, CONDITIONS) == [0]
