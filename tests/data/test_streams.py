"""Sources of a running experiment: what a sender sends arrives exactly, and what cannot be understood is counted."""

import json
import os
import threading
import time

import numpy as np
import pytest
from stream_batches import all_spikes, received

from rlsnet.data.streams.sources import folder, incoming, opened
from rlsnet.errors import UserError

zmq = pytest.importorskip("zmq")

# as the plugin Event Broadcaster sends them
SPIKE = {
    **{"event_type": "spike", "stream": "ProbeA-AP", "source_node": 103, "electrode": "Stereotrode 1", "num_channels": 2},
    **{"sample_rate": 30000.0, "sample_number": 3000, "sorted_id": 2, "amp1": 54.2, "amp2": 31.0},
}
TTL = {
    **{"event_type": "ttl", "stream": "ProbeA-AP", "source_node": 103, "sample_rate": 30000.0, "channel_name": "PXI-6133"},
    **{"sample_number": 6000, "line": 1, "state": True},
}


class Publisher:
    """A socket that sends what the Event Broadcaster would, and waits for a subscriber first."""

    def __init__(self, port=None):
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.XPUB)  # a PUB that is told of subscribers
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.port = port or self.socket.bind_to_random_port("tcp://127.0.0.1")
        if port:
            self.socket.bind(f"tcp://127.0.0.1:{port}")

    def wait(self):
        assert self.socket.poll(60_000), "nobody subscribed"
        assert self.socket.recv() == b"\x01"

    def send(self, message):
        kind = np.uint16(message.get("event_type") == "spike").tobytes()
        self.socket.send_multipart([kind, json.dumps(message).encode()])

    def close(self):
        self.socket.close(linger=5000)
        self.context.term()


@pytest.fixture
def connected():
    """A publisher, and a source that has subscribed to it."""
    publisher = Publisher()
    source = opened(f"oe://127.0.0.1:{publisher.port}")
    publisher.wait()
    yield publisher, source
    source.close()
    publisher.close()


def test_messages_of_open_ephys_in_their_documented_form(connected):
    publisher, source = connected
    for message in (SPIKE, SPIKE | {"sorted_id": 0}, TTL, TTL | {"state": 0, "sample_number": 7500}, {"event_type": "new kind"}):
        publisher.send(message)
    batches = received(source, 4)
    times, keys = all_spikes(source, batches)
    assert times.tolist() == [0.1, 0.1]
    assert keys.tolist() == ["ProbeA-AP/103/Stereotrode 1/2", "ProbeA-AP/103/Stereotrode 1/0"]
    assert {unit.stream for unit in source.units} == {"ProbeA-AP"}
    markers = [marker for batch in batches for marker in batch.markers]
    assert [(each.time, each.stream, each.name, each.value) for each in markers] == [
        (0.2, "ProbeA-AP", "line1", ""),
        (0.25, "ProbeA-AP", "line1_off", ""),
    ]
    assert all(abs(each.arrival - time.time()) < 30 for each in markers)
    assert max(batch.until.get("ProbeA-AP", 0) for batch in batches) == 0.25
    assert sum(batch.rejected + batch.lost for batch in batches) == 0


def test_thirty_thousand_spikes_arrive_exactly_through_open_ephys(connected):
    publisher, source = connected
    random = np.random.default_rng(1)
    samples, electrodes = np.sort(random.integers(0, 10**7, 30_000)), random.integers(0, 400, 30_000)

    def send():
        for sample, electrode in zip(samples.tolist(), electrodes.tolist(), strict=True):
            publisher.send(SPIKE | {"sample_number": sample, "electrode": f"E{electrode}"})

    thread = threading.Thread(target=send)
    thread.start()
    times, keys = all_spikes(source, received(source, 30_000, 30))
    thread.join()
    np.testing.assert_array_equal(times, samples / 30000.0)
    assert keys.tolist() == [f"ProbeA-AP/103/E{electrode}/2" for electrode in electrodes]


WRONG = [
    ([b"\x01\x00"], "1 frames; expected 2"),
    ([b"\x01\x00", b"{", b"x"], "3 frames; expected 2"),
    ([b"\x01\x00", b"\x00\xff\x17"], "not JSON; expected the format JSON"),
    ([b"\x01\x00", b"[" * 50_000], "not JSON"),
    ([b"\x01\x00", b"[1]"], "not an object"),
    ([b"\x01\x00", b" " * 70_000], "70,000 bytes; expected at most 65,536"),
    (SPIKE | {"sample_number": float("nan")}, "sample_number is nan; expected a finite number"),
    (SPIKE | {"sample_number": 10**300}, "time is"),
    (SPIKE | {"sample_number": [1]}, "expected a number"),
    (SPIKE | {"sample_rate": 0}, "sample_rate is 0; expected a positive"),
    (SPIKE | {"electrode": None}, "electrode is None; expected a text"),
    (SPIKE | {"electrode": "a\nb"}, "without control characters"),
    (SPIKE | {"electrode": "x" * 300}, "300 characters; expected at most 200"),
    (SPIKE | {"source_node": {}}, "source_node is {}"),
    (TTL | {"state": 2}, "state is 2; expected 0, 1, false or true"),
    (TTL | {"line": None}, "line is None"),
    ({"stream": "A"}, "no event_type"),
]


def test_rubbish_is_counted_with_its_reason_and_the_next_message_is_read(connected):
    publisher, source = connected
    for message, reason in WRONG:
        publisher.socket.send_multipart(message) if isinstance(message, list) else publisher.send(message)
        (batch,) = [batch for batch in received(source, 1) if batch.rejected]
        assert batch.rejected == 1 and reason in batch.reason and "\n" not in batch.reason, (reason, batch.reason)
        assert not len(batch.spike_time) and not batch.markers and not batch.until
    publisher.send(SPIKE)
    assert all_spikes(source, received(source, 1))[0].tolist() == [0.1]


def test_a_publisher_that_starts_again_is_found_again():
    publisher = Publisher()
    source = opened(f"oe://127.0.0.1:{publisher.port}")
    assert "no connection yet" in source.problem()
    publisher.wait()
    source.read(0.2)
    assert "nothing was received yet" in source.problem()
    publisher.send(SPIKE)
    assert len(received(source, 1)) and source.problem() == ""
    publisher.close()
    end = time.monotonic() + 60
    while "connection was lost" not in source.problem() and time.monotonic() < end:
        source.read(0.1)
    assert "connection was lost" in source.problem()
    again = Publisher(publisher.port)
    again.wait()
    again.send(SPIKE | {"sample_number": 9000})
    assert all_spikes(source, received(source, 1))[0].tolist() == [0.3]
    assert source.problem() == ""
    source.close()
    again.close()


def put(path, **arrays):
    """Writes a file as a sender should: under another name, then renamed."""
    with open(f"{path}.tmp", "wb") as file:
        np.savez(file, **arrays)
    os.replace(f"{path}.tmp", path)


def test_files_of_a_folder_are_read_in_order_until_its_end(tmp_path):
    random = np.random.default_rng(2)
    times, clusters = np.sort(random.uniform(0, 100, 40_000)), random.integers(0, 300, 40_000)
    parts = np.array_split(np.arange(40_000), 20)
    for number in (1, 0):  # out of order, before the start
        put(tmp_path / f"{number:03d}.npz", spike_times=times[parts[number]], spike_clusters=clusters[parts[number]])
    source = opened(str(tmp_path))
    batches = [source.read(1)]
    for number, part in enumerate(parts[2:], 2):
        markers = {"marker_times": np.array([number]), "marker_names": np.array(["cue"]), "marker_values": np.array([f"v{number}"])}
        put(tmp_path / f"{number:03d}.npz", spike_times=times[part], spike_clusters=clusters[part], **markers)
        batches.append(source.read(1))
    (tmp_path / "END").touch()
    while (batch := source.read(1)) is not None:
        batches.append(batch)
    found, keys = all_spikes(source, batches)
    np.testing.assert_array_equal(found, times)
    assert keys.tolist() == [str(each) for each in clusters]
    markers = [marker for batch in batches for marker in batch.markers]
    assert [(each.time, each.name, each.value) for each in markers] == [(n, "cue", f"v{n}") for n in range(2, 20)]
    assert max(batch.until[""] for batch in batches if batch.until) == times[-1]
    assert sum(batch.rejected for batch in batches) == 0


def test_a_folder_that_is_read_again_goes_on_after_what_was_read(tmp_path):
    def spikes(name, time):
        put(tmp_path / name, spike_times=np.array([time]), spike_clusters=np.array([1]))

    spikes("b.npz", 1.0)
    spikes("c.npz", 2.0)
    first = opened(str(tmp_path))
    assert all_spikes(first, [first.read(0)])[0].tolist() == [1.0, 2.0]
    spikes("a.npz", 3.0)
    late = first.read(0)
    assert late.rejected == 1 and "c.npz was read before it" in late.reason
    assert first.read(0).rejected == 0
    spikes("d.npz", 4.0)
    again = opened(str(tmp_path), position=first.position)
    batch = again.read(0)
    assert (batch.spike_time.tolist(), batch.rejected, again.position) == ([4.0], 0, "d.npz")


def test_keys_of_units_are_texts_or_indices_into_texts(tmp_path):
    put(tmp_path / "a.npz", spike_times=np.array([1.0, 2.0]), spike_clusters=np.array(["x", "y"]))
    put(tmp_path / "b.npz", spike_times=np.array([3.0, 4.0]), spike_clusters=np.array([1, 0]), unit_keys=np.array(["z", "x"]))
    source = opened(str(tmp_path))
    assert all_spikes(source, [source.read(0)])[1].tolist() == ["x", "y", "x", "z"]


def test_files_that_cannot_be_used_are_counted_and_the_others_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "PATIENCE_S", 0.3)
    with open(tmp_path / "0.npz", "wb") as file:
        np.savez(file, spike_times=np.array([1.0, None], object), spike_clusters=np.array([0, 1]))  # a pickle
    put(tmp_path / "1.npz", spike_times=np.zeros(3), spike_clusters=np.zeros(2, int))
    put(tmp_path / "2.npz", spike_times=np.zeros(2), spike_clusters=np.zeros(2))
    (tmp_path / "3.npz").write_bytes(b"PK\x03\x04 cut off")
    put(tmp_path / "4.npz", spike_times=np.array([np.nan, 5.0, 6.0]), spike_clusters=np.array(["a", "a", "b\n"]))
    os.mkfifo(tmp_path / "5.npz")
    put(tmp_path / "6.npz", marker_times=np.array([7.0, np.inf]), marker_names=np.array(["cue", "cue"]))
    (tmp_path / "END").touch()
    source, batches = opened(str(tmp_path)), []
    while (batch := source.read(0.1)) is not None:
        batches.append(batch)
    times, keys = all_spikes(source, batches)
    assert (times.tolist(), keys.tolist()) == ([5.0], ["a"])
    assert [marker.time for batch in batches for marker in batch.markers] == [7.0]
    assert sum(batch.rejected for batch in batches) == 8  # 5 files, 2 spikes, 1 marker
    reasons = [batch.reason for batch in batches if batch.reason]
    assert reasons[0].startswith("0.npz: ") and any("3.npz cannot be read" in each for each in reasons)


def test_a_file_that_is_still_written_is_read_when_it_is_complete(tmp_path):
    put(tmp_path / "whole", spike_times=np.array([1.0]), spike_clusters=np.array([3]))
    content = (tmp_path / "whole").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[:100])
    source = opened(str(tmp_path))
    assert source.read(0.2).rejected == 0
    assert "no file" in source.problem()
    (tmp_path / "a.npz").write_bytes(content)
    assert all_spikes(source, [source.read(1)])[0].tolist() == [1.0]
    assert source.problem() == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("oe://127.0.0.1:port", "oe://127.0.0.1:port: the port is no number from 1 to 65535; expected oe://HOST:PORT"),
        ("oe://127.0.0.1:70000", "the port is no number from 1 to 65535"),
        ("oe://", "has no host"),
        ("oe://127.0.0.1:5557?hwm=1", "has no option hwm; expected none"),
        ("oen://127.0.0.1", "oen is no known kind of source; expected a folder, .* Did you mean oe?"),
        ("/no/such/folder", "/no/such/folder: no such folder; expected a folder"),
        (__file__, "is a file; expected a folder"),
    ],
)
def test_a_wrong_source_is_one_line(text, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")) as error:
        opened(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "name", "pairs"),
    [
        ("condition=left", "", [("condition", "left")]),
        ("go cue", "", [("go cue", "")]),
        (
            '{"side": "left", "contrast": 0.5, "early": false, "note": null}',
            "",
            [("side", "left"), ("contrast", "0.5"), ("early", "false"), ("note", "")],
        ),
        ("a=b", "rule", [("rule", "a=b")]),
        ('{"side": "left"}', "rule", [("side", "left")]),
    ],
)
def test_texts_of_markers_are_names_and_values(text, name, pairs):
    assert list(incoming.names_and_values(text, name)) == pairs


@pytest.mark.parametrize("text", ["", "=left", "{broken", "x" * 300, "a=" + "x" * 2000, "a=b\x07"])
def test_texts_that_are_no_markers_are_refused(text):
    with pytest.raises(incoming.Refused):
        list(incoming.names_and_values(text))
