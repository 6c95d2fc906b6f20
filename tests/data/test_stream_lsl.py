"""Streams of the Lab Streaming Layer, in this machine only: markers and spikes arrive, at their times."""

import json
import re
import sys
import time

import numpy as np
import pytest
from stream_batches import all_markers, all_spikes, counted, received

from rlsnet.data.streams.sources import lab_streaming_layer, opened
from rlsnet.errors import UserError

LOCAL = "[multicast]\nResolveScope = machine\n[ports]\nIPv6 = disable\n[log]\nlevel = -2\n"  # LSL sends nothing beyond this machine


@pytest.fixture(scope="module")
def lsl(tmp_path_factory):
    """The package, which reads its configuration when it is imported."""
    if "pylsl" in sys.modules:
        pytest.skip("pylsl was imported before, with a configuration that may send messages beyond this machine")
    path = tmp_path_factory.mktemp("lsl") / "lsl_api.cfg"
    path.write_text(LOCAL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSLAPICFG", str(path))
        try:
            found = pytest.importorskip("pylsl")
        except RuntimeError as error:  # the package without its library
            pytest.skip(str(error))
        yield found


def outlet(lsl, name, format="string", channels=1, source_id="here"):
    return lsl.StreamOutlet(lsl.StreamInfo(name, "Markers", channels, lsl.IRREGULAR_RATE, format, source_id and f"{source_id} {name}"))


def wait_for(source, *outlets, seconds=60):
    """Reads a source until it is connected to outlets."""
    end = time.monotonic() + seconds
    while not all(each.have_consumers() for each in outlets) or "no LSL stream" in source.problem():
        assert time.monotonic() < end, source.problem()
        source.read(0.05)


def test_markers_and_spikes_arrive_at_their_times(lsl):
    markers, spikes = outlet(lsl, "task"), outlet(lsl, "sorter", "int32")
    source = opened("lsl:task?spikes=sorter")
    assert "no LSL stream has the name task at present" in source.problem()
    wait_for(source, markers, spikes)
    assert "nothing was received yet" in source.problem()
    now, random = lsl.local_clock(), np.random.default_rng(3)
    times, units = now + np.sort(random.uniform(0, 1, 5_000)), random.integers(-2, 90, 5_000)
    for moment, unit in zip(times.tolist(), units.tolist(), strict=True):
        spikes.push_sample([unit], moment)
    sent = ["go", "side=left", json.dumps({"contrast": 0.5, "side": "right"}), "", "{broken", "\x07"]
    for number, text in enumerate(sent):
        markers.push_sample([text], now + number)
    batches = received(source, 5_000 + 4 + 3, 30)
    found, keys = all_spikes(source, batches)
    np.testing.assert_allclose(found, times, rtol=0, atol=2e-3)  # the difference of the clocks is measured
    assert keys.tolist() == [str(unit) for unit in units]
    names = [("go", "", 0), ("side", "left", 1), ("contrast", "0.5", 2), ("side", "right", 2)]
    assert [(name, value) for _, _, name, value in all_markers(batches)] == [(name, value) for name, value, _ in names]
    np.testing.assert_allclose([each[0] for each in all_markers(batches)], [now + at for _, _, at in names], rtol=0, atol=2e-3)
    assert counted(batches) == (3, 0) and source.problem() == ""
    assert abs(max(batch.until.get("", 0) for batch in batches) - (now + 2)) < 2e-3
    source.close()


@pytest.mark.parametrize("source_id", ["here", ""])  # LSL itself connects again to a stream with an identifier only
def test_numbers_are_names_and_a_sender_that_starts_again_is_found_again(lsl, source_id, monkeypatch):
    monkeypatch.setattr(lab_streaming_layer, "FORGET_S", 2.0)
    monkeypatch.setattr(lab_streaming_layer, "LOOK_S", 0.2)
    sender = outlet(lsl, "codes", "int32", 2, source_id)
    source = opened("lsl:codes")
    wait_for(source, sender)
    sender.push_sample([3, 4], 100.0)
    batches = received(source, 2)
    assert [each[2] for each in all_markers(batches)] == ["3", "4"]
    del sender
    again, end = outlet(lsl, "codes", "int32", 2, source_id), time.monotonic() + 60
    while not again.have_consumers() and time.monotonic() < end:
        source.read(0.05)
    again.push_sample([5, 6], 200.0)
    assert [each[2] for each in all_markers(received(source, 2))] == ["5", "6"] and source.problem() == ""
    source.close()


def test_a_stream_with_other_values_is_a_problem_in_words(lsl):
    rates, pairs = outlet(lsl, "rates", "float32"), outlet(lsl, "pairs", "int32", 2)
    source = opened("lsl:rates?spikes=pairs")
    end = time.monotonic() + 60
    while not ("neither texts nor integers" in source.problem() and "has 2 channels; expected one" in source.problem()):
        assert time.monotonic() < end, source.problem()
        source.read(0.05)
    assert not rates.have_consumers() and not pairs.have_consumers()
    source.close()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lsl:", "lsl:: expected lsl:NAME or lsl:NAME?spikes=NAME"),
        ("lsl:a'b", "names without quotation marks"),
        ("lsl:a?spikes=a", "expected lsl:NAME or lsl:NAME?spikes=NAME, with two names"),
        ("lsl:a?spike=b", "has no option spike; expected one of spikes. Did you mean spikes?"),
        ("lsl:a?spikes=", "option spikes is empty"),
    ],
)
def test_a_wrong_name_is_one_line(text, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        opened(text)
    assert "\n" not in str(error.value)
