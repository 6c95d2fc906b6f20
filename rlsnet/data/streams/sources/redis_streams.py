"""Redis: spikes and markers from streams of a Redis server, such as those of River (Open Ephys' plugin River Output) and BRAND.

    redis://127.0.0.1:6379/NAME                        spikes of River's stream NAME, on the server's database 0
    redis://:PASSWORD@127.0.0.1:6379/2/NAME?OPTIONS    with a password, database 2, and options

Options, separated by &:

    format=river           spikes as River writes them (the default); sample_rate=30000, Hz, is that of its sample numbers
    format=counts          spike counts of bins as nodes of BRAND write them, in field=thresholds, with dtype=int8, in bins of bin_ms=1
    markers=NAME,NAME      streams with the markers, on the same clock as the spikes
    time=ts                of counts and their markers: the field ts, ns of a monotonic clock; or time=i, the number of the bin
    start=0                with the first entry that is stored (the default); start=new: with the first one that is added

River stores a stream NAME in the keys NAME-0, NAME-1 and so on. An entry has the field val: int32 channel, int32 unit, int64 sample
number; what follows in it is not read. A unit is channel/unit. An event is int32 line, int32 state (0 or 1), int64 sample number, and
becomes the marker lineN or lineN_off. The source ends where River says that its stream has ended.

An entry with counts has a number for each unit, whose name is its place, from 0. It is written at the end of its bin, so its spikes have
the time ts - bin_ms / 2; with time=i they have (i + 1/2) bin_ms. Fields of a marker are NAME=VALUE, or a JSON object (`names_and_values`).

Streams are read in the order of the times at which entries were added. The place in each is kept, so that nothing is lost while the
connection is. Entries that the server has dropped before they were read are counted as lost: exactly by Redis 7 and newer; older ones
do not say how many, and each such gap counts as 1.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from rlsnet.data.streams.messages import Batch, Unit
from rlsnet.data.streams.sources import address
from rlsnet.data.streams.sources.incoming import MOST_MESSAGES, Incoming
from rlsnet.data.streams.sources.redis_entries import Entry, decoder
from rlsnet.data.streams.sources.redis_places import Place, entry_id, place_text, places_of
from rlsnet.errors import UserError, first_line, package

PORT = 6379
EXPECTED = "redis://HOST:PORT/STREAM or redis://HOST:PORT/DATABASE/STREAM, such as redis://127.0.0.1:6379/spikes?markers=events"
OPTIONS = ("format", "sample_rate", "field", "dtype", "bin_ms", "markers", "time", "start")
MOST_ENTRIES = 2_000  # of a stream in one answer of the server
CONNECT_S = 2.0  # longest wait for a connection, or for an answer
RETRY_S = 0.5  # between two attempts to connect


class RedisSource:
    """Streams of a Redis server; see `Source`."""

    def __init__(self, text: str, position: str = ""):
        """Goes on after `position`; raises UserError if the address or an option cannot be right, or the package redis is missing."""
        self._redis = redis = package("redis", "live", text)
        parts = address.parsed(text, PORT, OPTIONS, EXPECTED)
        database, stream = _database_and_stream(parts)
        options, markers = parts.options, _names(parts, stream)
        self.name = f"Redis at {parts.host}:{parts.port}, stream {stream}"
        self._incoming = Incoming()
        self.units: list[Unit] = self._incoming.units
        self._decoder = decoder(parts, self._incoming)
        start = options.get("start", "0")
        if start not in ("0", "new"):
            raise UserError(f"{parts.text}: start={start} is not known; expected 0 or new.")
        self._places = places_of((stream, *markers), self._decoder.numbered, start == "new", position, self.name)
        self.position = place_text(self._places)
        self._client = redis.Redis(
            **{"host": parts.host, "port": parts.port, "db": database, "username": parts.username, "password": parts.password},
            **{"protocol": 2, "socket_connect_timeout": CONNECT_S, "socket_timeout": CONNECT_S},
            retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0),
        )
        self._problem = f"{self.name}: no connection yet."
        self._ended = False

    def read(self, timeout: float) -> Batch | None:
        """See `Source`."""
        if self._ended:
            return None
        until = time.monotonic() + timeout
        try:
            taken = self._take_stored()
            if not taken and self._wait(until - time.monotonic()):
                self._take_stored()
            self._problem = "" if self._incoming.received else self._missing()
        except (self._redis.RedisError, OSError) as error:
            self._problem = f"{self.name}: {first_line(error)}"
            self._client.connection_pool.disconnect()
            time.sleep(min(RETRY_S, max(0.0, until - time.monotonic())))
        self.position = place_text(self._places)
        return self._incoming.batch()

    def _take_stored(self) -> int:
        """Takes entries that are stored, about as many as a batch may have; returns their number."""
        total, more = 0, True
        while more and total < MOST_MESSAGES:
            answers, more = self._answers()
            for place, entries in answers:
                total += len(entries)
                self._take(place, entries)
        return total

    def _answers(self) -> tuple[Sequence[tuple[Place, Sequence[Entry]]], bool]:
        """Next entries of each stream, up to the time until which all are known; and whether there may be more.

        An answer has at most `MOST_ENTRIES` of a stream, so those of another stream that were added later than its last one have to wait.
        """
        self._find_starts()
        open_places = [place for place in self._places if not place.ended]
        with self._client.pipeline(transaction=True) as pipeline:
            for place in open_places:
                pipeline.xinfo_stream(place.key)
            if open_places:
                pipeline.xread({place.key: place.last for place in open_places}, count=MOST_ENTRIES)
            *states, answer = pipeline.execute(raise_on_error=False) or [[]]
        if isinstance(answer, Exception):
            raise answer
        entries = {key.decode(): found for key, found in answer or []}
        for place, state in zip(open_places, states, strict=True):
            if isinstance(state, Mapping):
                self._incoming.lose(place.check(state, bool(entries.get(place.key))))
        full = {key: entry_id(found[-1][0]) for key, found in entries.items() if len(found) >= MOST_ENTRIES}
        first = min(full, key=lambda key: full[key], default=None)
        if first is not None:  # the numbers within a ms are those of each stream, so that they say nothing about another one
            for key in entries.keys() - {first}:
                entries[key] = [each for each in entries[key] if entry_id(each[0])[0] < full[first][0]]
        return [(place, entries.get(place.key, [])) for place in open_places], bool(full)

    def _find_starts(self) -> None:
        """Puts places at the end of their streams if only new entries are wanted."""
        for place in self._places:
            if place.at_end:
                while place.numbered and self._client.exists(place.following()):
                    place.move_to(place.following())
                exists = self._client.exists(place.key)
                place.start_after(self._client.xinfo_stream(place.key) if exists else {})

    def _take(self, place: Place, entries: Sequence[Entry]) -> None:
        """Adds the content of entries of one stream."""
        if not entries:
            return
        content = [fields for _, fields in entries]
        place.passed(entries[-1][0].decode(), len(entries))
        if place.numbered and {b"tombstone", b"eof"} & content[-1].keys():
            last = content.pop()
            if b"tombstone" in last:
                place.move_to(place.following())
            else:
                place.ended = True
                self._ended |= place is self._places[0]
        (self._decoder.spikes if place is self._places[0] else self._decoder.markers)(content)

    def _wait(self, seconds: float) -> bool:
        """Waits until an entry is added; returns whether one was."""
        if seconds <= 0:
            return False
        block = max(1, round(1000 * min(seconds, CONNECT_S / 2)))
        return bool(self._client.xread({place.key: place.last for place in self._places if not place.ended}, count=1, block=block))

    def _missing(self) -> str:
        """Why nothing was received, if a stream does not exist."""
        missing = [place.key for place in self._places if not self._client.exists(place.key)]
        what = f"the server has no stream {' and no stream '.join(missing)} yet" if missing else "its streams have no entries for it yet"
        return f"{self.name}: connected, but {what}."

    def problem(self) -> str:
        """See `Source`."""
        return self._problem

    def close(self) -> None:
        """See `Source`."""
        self._client.close()


def _database_and_stream(parts: address.Address) -> tuple[int, str]:
    """Number of the database and name of the stream in an address; raises UserError if it has none, or more."""
    path = parts.path
    if len(path) == 2 and path[0].isascii() and path[0].isdigit() and len(path[0]) < 10:
        return int(path[0]), path[1]
    if len(path) != 1:
        raise UserError(f"{parts.text}: has {'no stream' if not path else 'more than a database and a stream'}; expected {EXPECTED}.")
    return 0, path[0]


def _names(parts: address.Address, stream: str) -> list[str]:
    """Names of the streams with markers; raises UserError for one that is empty or given twice."""
    text = parts.options.get("markers", "")
    names = text.split(",") if text else []
    if "" in names or len({stream, *names}) <= len(names):
        raise UserError(
            f"{parts.text}: markers={text} has a name that is empty or given twice; expected names of other streams, with commas."
        )
    return names
