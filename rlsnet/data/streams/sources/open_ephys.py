"""Open Ephys: spikes and TTL events of the plugin Event Broadcaster with the format JSON, by ZeroMQ.

    oe://127.0.0.1:5557

A message has two frames: the kind as uint16, and a JSON object. Each recorded stream (probe) has a clock of its own: a time is
sample_number / sample_rate. A unit is stream/source_node/electrode/sorted_id; sorted_id 0 are the threshold crossings of that electrode
that belong to no sorted unit. A TTL event is a marker lineN when it rises and lineN_off when it falls, N as it is sent.

The Event Broadcaster does not number its messages, so what is lost while the connection is interrupted cannot be counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlsnet.data.streams.messages import Batch, Unit
from rlsnet.data.streams.sources import address
from rlsnet.data.streams.sources.incoming import (
    LARGEST_MESSAGE,
    MOST_MESSAGES,
    Incoming,
    Refused,
    checked_number,
    checked_text,
    checked_time,
    json_object,
)
from rlsnet.errors import package

PORT = 5557
EXPECTED = "oe://HOST:PORT, such as oe://127.0.0.1:5557"
LARGEST_RECEIVED = 2**24  # bytes; ZeroMQ ends a connection that sends more in a message
RECONNECT_MS = 100, 2000  # first and longest time until ZeroMQ tries to connect again
SENT_WITHIN_MS = 2  # a message that is on its way already belongs to the batch


class OpenEphysSource:
    """Event Broadcaster of Open Ephys; see `Source`."""

    position = ""  # it sends what happens now, and keeps nothing

    def __init__(self, text: str, position: str = ""):
        """Connects, always to what is sent from now on; raises UserError if the address cannot be right or pyzmq is missing."""
        self._zmq = zmq = package("zmq", "live", text)
        self._events = package("zmq.utils.monitor", "live", text)
        self._address = address.parsed(text, PORT, (), EXPECTED)
        self.name = f"Open Ephys at {self._address.host}:{self._address.port}"
        self._incoming = Incoming()
        self.units: list[Unit] = self._incoming.units
        self._connected = self._ever_connected = False
        self._unit_of: dict[tuple[Any, ...], tuple[int, str]] = {}
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        options = {"RCVHWM": 0, "LINGER": 0, "IPV6": 1, "MAXMSGSIZE": LARGEST_RECEIVED}
        options |= {"RECONNECT_IVL": RECONNECT_MS[0], "RECONNECT_IVL_MAX": RECONNECT_MS[1]}
        for option, value in options.items():
            self._socket.setsockopt(getattr(zmq, option), value)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")  # the first frame is binary: a subscription to words would receive nothing
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        host = f"[{self._address.host}]" if ":" in self._address.host else self._address.host
        self._socket.connect(f"tcp://{host}:{self._address.port}")

    def read(self, timeout: float) -> Batch | None:
        """See `Source`."""
        if self._socket.poll(max(0, round(1000 * timeout))):
            receive, take = self._socket.recv_multipart, self._take
            for _ in range(MOST_MESSAGES):
                try:
                    take(receive(self._zmq.NOBLOCK))
                except self._zmq.Again:
                    if not self._socket.poll(SENT_WITHIN_MS):
                        break
        self._follow_connection()
        return self._incoming.batch()

    def _follow_connection(self) -> None:
        """Notes whether the connection was made or lost since the last call."""
        while self._monitor.poll(0):
            event = self._events.recv_monitor_message(self._monitor)["event"]
            self._connected = event == self._zmq.EVENT_HANDSHAKE_SUCCEEDED
            self._ever_connected |= self._connected

    def _take(self, frames: Sequence[bytes]) -> None:
        """Adds one message, or counts it as rejected."""
        try:
            if len(frames) != 2:
                raise Refused(f"a message has {len(frames)} frames; expected 2, as the plugin Event Broadcaster sends")
            if len(frames[1]) > LARGEST_MESSAGE:
                raise Refused(f"a message has {len(frames[1]):,} bytes; expected at most {LARGEST_MESSAGE:,}")
            try:
                message = json_object(frames[1])
            except Refused as refused:
                raise Refused(f"{refused}; expected the format JSON, which is a setting of the Event Broadcaster") from None
            kind = message.get("event_type")
            if kind == "spike":
                self._take_spike(message)
            elif kind == "ttl":
                self._take_ttl(message)
            elif not isinstance(kind, str):
                raise Refused("a message has no event_type; expected ttl or spike")
        except Refused as refused:
            self._incoming.reject(refused)

    def _take_spike(self, message: Mapping[str, Any]) -> None:
        """Adds a spike; raises Refused if anything is missing or wrong."""
        get = message.get
        sent = get("stream", ""), get("source_node", ""), get("electrode"), get("sorted_id", 0)
        try:
            unit, stream = self._unit_of[sent]
        except (KeyError, TypeError):  # new, or of a type that cannot be a key
            unit, stream = self._new_unit(sent)
        moment = _moment(message)
        self._incoming.spike(moment, unit)
        self._incoming.reached(moment, stream)

    def _new_unit(self, sent: tuple[Any, ...]) -> tuple[int, str]:
        """Index and stream of a unit that is seen first; raises Refused if a part of its key is missing or wrong."""
        names = ("stream", "source_node", "electrode", "sorted_id")
        parts = [checked_text(value, name) for name, value in zip(names, sent, strict=True)]
        found = self._incoming.unit("/".join(parts), parts[0]), parts[0]
        self._unit_of[sent] = found
        return found

    def _take_ttl(self, message: Mapping[str, Any]) -> None:
        """Adds a TTL event; raises Refused if anything is missing or wrong."""
        stream = self._incoming.stream(message.get("stream", ""))
        line, state = checked_text(message.get("line"), "line"), message.get("state")
        if not isinstance(state, bool | int | float) or state not in (0, 1):
            raise Refused(f"state is {str(state)[:40]}; expected 0, 1, false or true")
        moment = _moment(message)
        self._incoming.marker(moment, f"line{line}" if state else f"line{line}_off", stream=stream)
        self._incoming.reached(moment, stream)

    def problem(self) -> str:
        """See `Source`."""
        if self._connected:
            waiting = "is acquisition running, with an Event Broadcaster after the spike detector?"
            return "" if self._incoming.received else f"{self.name}: connected, but nothing was received yet; {waiting}"
        if self._ever_connected:
            return f"{self.name}: the connection was lost; it is tried again and again."
        return f"{self.name}: no connection yet; is Open Ephys running there, with the plugin Event Broadcaster at this port?"

    def close(self) -> None:
        """See `Source`."""
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)
        self._context.term()


def _moment(message: Mapping[str, Any]) -> float:
    """Time of a message, s; raises Refused unless it has a sample number and a sampling rate."""
    number, rate = message.get("sample_number"), message.get("sample_rate")
    if type(number) is not int or type(rate) is not float:  # as they are sent; others that mean numbers are accepted too
        number, rate = checked_number(number, "sample_number"), checked_number(rate, "sample_rate")
    if not rate > 0:
        raise Refused(f"sample_rate is {rate:g}; expected a positive number of Hz")
    try:
        return checked_time(number / rate)
    except OverflowError:
        raise Refused("sample_number is too large; expected a number of samples") from None
