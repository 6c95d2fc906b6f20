"""Content of the entries of Redis streams: spikes, counts and events."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

import numpy as np

from rlsnet.data.streams.sources.address import Address
from rlsnet.data.streams.sources.incoming import (
    LATEST,
    MOST_UNITS,
    NONE,
    Incoming,
    Refused,
    checked_text,
    checked_time,
    names_and_values,
)
from rlsnet.errors import UserError, did_you_mean

Fields = Mapping[bytes, bytes]
Entry = tuple[bytes, Fields]
RIVER = np.dtype([("place", "<i4"), ("number", "<i4"), ("sample", "<i8")])  # packed, as River writes spikes and events
DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32")
MOST_COUNT, MOST_IN_BIN = 1_000, 100_000  # spikes of a unit, and of all, in a bin; more are no counts
TIMES = ("ts", "i")  # fields with a time, ns, and with the number of a bin
NO_VALUES = {b"ts", b"i", b"sync"}  # fields of a marker that are about its time


class Decoder(Protocol):
    """Makes spikes and markers of the fields of entries, and adds them to what has arrived.

    numbered: whether a stream NAME has the keys NAME-0, NAME-1 and so on.
    """

    numbered: ClassVar[bool]

    def spikes(self, entries: Sequence[Fields]) -> None:
        """Adds the spikes of entries."""
        ...

    def markers(self, entries: Sequence[Fields]) -> None:
        """Adds the markers of entries."""
        ...


def decoder(parts: Address, incoming: Incoming) -> Decoder:
    """The decoder that the options of an address ask for; raises UserError for an option that is wrong or has no effect."""
    kinds = {"river": ("sample_rate",), "counts": ("field", "dtype", "bin_ms", "time")}
    options = parts.options
    kind = options.get("format", "river")
    if kind not in kinds:
        raise UserError(f"{parts.text}: format={kind} is not known; expected river or counts.{did_you_mean(kind, kinds)}")
    for other, names in kinds.items():
        for name in names:
            if other != kind and name in options:
                raise UserError(f"{parts.text}: {name} has no effect with format={kind}; leave it out, or set format={other}.")
    if kind == "river":
        return RiverDecoder(_positive(parts, "sample_rate", 30_000.0), incoming)
    dtype, clock = _chosen(parts, "dtype", DTYPES), _chosen(parts, "time", TIMES)
    field = options.get("field", "thresholds")
    return CountsDecoder(field, np.dtype(dtype).newbyteorder("<"), _positive(parts, "bin_ms", 1.0) / 1000, clock, incoming)


def _positive(parts: Address, name: str, default: float) -> float:
    """A positive number of an option; raises UserError if it is none."""
    text = parts.options.get(name, str(default))
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise UserError(f"{parts.text}: {name}={text} is no positive number.")
    return number


def _chosen(parts: Address, name: str, known: Sequence[str]) -> str:
    """One of the values that an option may have, the first if it is not given; raises UserError for another one."""
    text = parts.options.get(name, known[0])
    if text not in known:
        raise UserError(f"{parts.text}: {name}={text} is not known; expected one of {', '.join(known)}.{did_you_mean(text, known)}")
    return text


class RiverDecoder:
    """Spikes and events as River writes them; see the module `redis_streams`."""

    numbered: ClassVar[bool] = True

    def __init__(self, sample_rate: float, incoming: Incoming):
        """`sample_rate` is in Hz."""
        self._rate, self._incoming = sample_rate, incoming

    def spikes(self, entries: Sequence[Fields]) -> None:
        """See `Decoder`."""
        found = self._found(entries)
        names = found["place"].astype(np.int64) << 32 | found["number"].view(np.uint32)
        _, first, codes = np.unique(names, return_index=True, return_inverse=True)
        keys = [f"{place}/{number}" for place, number, _ in found[first].tolist()]
        times = found["sample"] / self._rate
        self._incoming.spikes(times, self._incoming.unit_indices(keys, codes))
        possible = times[np.abs(times) <= LATEST]
        if len(possible):
            self._incoming.reached(float(possible.max()))

    def markers(self, entries: Sequence[Fields]) -> None:
        """See `Decoder`."""
        for line, state, sample in self._found(entries).tolist():
            try:
                if state not in (0, 1):
                    raise Refused(f"state of line {line} is {state}; expected 0 or 1")
                moment = checked_time(sample / self._rate)
                self._incoming.marker(moment, f"line{line}" if state else f"line{line}_off")
                self._incoming.reached(moment)
            except Refused as refused:
                self._incoming.reject(refused)

    def _found(self, entries: Sequence[Fields]) -> np.ndarray:
        """Packed values of entries, [n] of `RIVER`; those without are counted as rejected."""
        values = [value[: RIVER.itemsize] for entry in entries if len(value := entry.get(b"val", b"")) >= RIVER.itemsize]
        if len(values) < len(entries):
            reason = f"an entry has no field val of at least {RIVER.itemsize} bytes; expected spikes or events of River"
            self._incoming.reject(reason, len(entries) - len(values))
        return np.frombuffer(b"".join(values), RIVER)


@dataclasses.dataclass(frozen=True)
class CountsDecoder:
    """Counts of bins, and markers as texts; see the module `redis_streams`.

    field: with the counts.
    dtype: of them.
    bin_s: length of a bin, s.
    clock: field with the time, one of `TIMES`.
    incoming: to which spikes and markers are added.
    """

    field: str
    dtype: np.dtype
    bin_s: float
    clock: str
    incoming: Incoming
    numbered: ClassVar[bool] = False

    def spikes(self, entries: Sequence[Fields]) -> None:
        """See `Decoder`."""
        times, units = [NONE], [NONE.astype(np.int64)]
        for entry in entries:
            try:
                counts, end = self._counts(entry), self._time(entry, 1)
            except Refused as refused:
                self.incoming.reject(refused)
                continue
            units.append(np.repeat(np.arange(len(counts)), counts))
            times.append(np.full(len(units[-1]), end - self.bin_s / 2))
            self.incoming.reached(end)
            self.incoming.received = True
        found, codes = np.unique(np.concatenate(units), return_inverse=True)
        self.incoming.spikes(np.concatenate(times), self.incoming.unit_indices(found.tolist(), codes))

    def _counts(self, entry: Fields) -> np.ndarray:
        """Counts [n] of an entry; raises Refused if it has none that can be."""
        value = entry.get(self.field.encode())
        if value is None:
            raise Refused(f"an entry has no field {self.field}; expected counts of spikes")
        if len(value) % self.dtype.itemsize or len(value) > MOST_UNITS * self.dtype.itemsize:
            raise Refused(f"{self.field} has {len(value):,} bytes; expected numbers of the type {self.dtype.name}, at most {MOST_UNITS:,}")
        counts = np.frombuffer(value, self.dtype)
        if len(counts) and not 0 <= counts.min() <= counts.max() <= MOST_COUNT:
            raise Refused(f"{self.field} has numbers from {counts.min()} to {counts.max()}; expected 0 to {MOST_COUNT:,} spikes")
        if counts.sum(dtype=np.int64) > MOST_IN_BIN:
            raise Refused(f"{self.field} has {counts.sum(dtype=np.int64):,} spikes; expected at most {MOST_IN_BIN:,} in a bin")
        return counts

    def _time(self, entry: Fields, bins: int) -> float:
        """Time of an entry, s, that of the bin number plus `bins`; raises Refused if it has none."""
        value = entry.get(self.clock.encode())
        if value is None:
            raise Refused(f"an entry has no field {self.clock}; expected its time there")
        if value.isdigit() and len(value) <= 20:
            number = int(value)
        elif len(value) in (4, 8):
            number = int.from_bytes(value, "little")
        else:
            raise Refused(f"{self.clock} has {len(value):,} bytes; expected 4 or 8, or digits")
        return checked_time(number / 1e9 if self.clock == "ts" else (number + bins) * self.bin_s)

    def markers(self, entries: Sequence[Fields]) -> None:
        """See `Decoder`."""
        for entry in entries:
            try:
                moment = self._time(entry, 0)
            except Refused as refused:
                self.incoming.reject(refused)
                continue
            self.incoming.reached(moment)
            for field, value in entry.items():
                if field not in NO_VALUES:
                    self._add_marker(moment, field, value)

    def _add_marker(self, moment: float, field: bytes, value: bytes) -> None:
        """Adds what a field says, or counts it as rejected."""
        try:
            name = checked_text(field, "name of a field")
            try:
                text = value.decode()
            except UnicodeDecodeError:
                raise Refused(f"field {name} of a marker is not UTF-8 text") from None
            for each, content in names_and_values(text, name):
                self.incoming.marker(moment, each, content)
        except Refused as refused:
            self.incoming.reject(refused)
