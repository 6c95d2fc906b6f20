"""Messages between two reads of a source: checked, counted and put together as a batch. What senders send is not trusted."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from rlsnet.data.streams.messages import Batch, Marker, Unit

MOST_UNITS, MOST_STREAMS = 100_000, 1_000
MOST_MESSAGES = 20_000  # about as many are read at once, so that a sender that is too fast does not fill the memory
LONGEST_KEY = 200  # characters of the key of a unit, of a stream and of the name of a marker
LONGEST_VALUE = 1_000  # characters of the value of a marker
LARGEST_MESSAGE = 2**16  # bytes of a message in JSON or text
LATEST = 1e10  # s, more than 300 years; a time beyond is none
NONE = np.zeros(0)


class Refused(Exception):
    """A message that cannot be used; its text says why."""


def checked_text(value: object, what: str, most: int = LONGEST_KEY) -> str:
    """A text or a whole number of a message as text; raises Refused for anything else, control characters, or too many characters."""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise Refused(f"{what} is not UTF-8 text") from None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int | np.integer):
        raise Refused(f"{what} is {_shown(value)}; expected a text or a whole number")
    if isinstance(value, int) and abs(value) > 2**64:
        raise Refused(f"{what} is a number of more than 64 bits; expected a smaller one, or a text")
    text = str(value)
    if len(text) > most:
        raise Refused(f"{what} has {len(text):,} characters; expected at most {most:,}")
    if not text.isprintable():
        raise Refused(f"{what} is {_shown(text)}; expected a text without control characters")
    return text


def checked_number(value: object, what: str) -> float:
    """A number of a message, which may be sent as a text; raises Refused unless it is finite and no boolean."""
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise Refused(f"{what} is {_shown(value)}; expected a number") from None
    if not math.isfinite(number):
        raise Refused(f"{what} is {number}; expected a finite number")
    return number


def checked_time(time_s: float) -> float:
    """A time, s; raises Refused unless it is finite and within `LATEST` of 0."""
    if not abs(time_s) <= LATEST:
        raise Refused(f"time is {time_s:g} s; expected a finite number of at most {LATEST:g}")
    return time_s


def _shown(value: object) -> str:
    """A value for a message, shortened."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def names_and_values(text: str, name: str = "") -> Iterator[tuple[str, str]]:
    """(name, value) of each marker that a text means; the same rule holds in all sources.

    A JSON object is one marker for each of its keys, such as {"condition": "left"}; name=value is a name with its value; any other text
    is the name of a marker without a value.

    Args:
      text: the text of a message.
      name: name that the message has beside the text; the text is then its value, unless it is a JSON object.

    Raises:
      Refused: a name or value is empty, too long or not printable, or the text seems to be a JSON object, but is none.
    """
    if len(text) > LARGEST_MESSAGE:
        raise Refused(f"text of a marker has {len(text):,} characters; expected at most {LARGEST_MESSAGE:,}")
    text = text.strip()
    if text.startswith("{"):
        pairs = [(key, _json_text(value)) for key, value in json_object(text).items()]
    elif name:
        pairs = [(name, text)]
    else:
        before, _, after = text.partition("=")
        pairs = [(before.strip(), after.strip())]
    for key, value in pairs:
        if not key.strip():
            raise Refused(f"marker {_shown(text)} has no name")
        yield checked_text(key.strip(), "name of a marker"), checked_text(value, f"value of marker {_shown(key)}", LONGEST_VALUE)


def json_object(text: str | bytes) -> dict[str, object]:
    """A JSON object of a message; raises Refused if it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise Refused(f"{_shown(text)} is not JSON") from None
    if not isinstance(found, dict):
        raise Refused(f"{_shown(text)} is JSON, but not an object")
    return found


def _json_text(value: object) -> str:
    """A value of a JSON object as text: texts as they are, nothing for null, others as JSON."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


class Incoming:
    """What has been received since the last batch, and the units seen so far.

    Attributes:
      units: in the order in which they were seen first; the list of the source.
      received: whether a message was ever understood.
    """

    def __init__(self) -> None:
        self.units: list[Unit] = []
        self.received = False
        self._unit_index: dict[Unit, int] = {}
        self._streams: set[str] = set()
        self._empty()

    def _empty(self) -> None:
        """Starts the next batch."""
        self._times: list[float] = []
        self._spike_units: list[int] = []
        self._blocks: list[tuple[np.ndarray, np.ndarray]] = []
        self._markers: list[Marker] = []
        self._until: dict[str, float] = {}
        self._lost = self._rejected = 0
        self._reason = ""

    def unit(self, key: object, stream: object = "") -> int:
        """Index of a unit, which is new if it was not seen before; raises Refused if its key cannot be used, or for too many units."""
        unit = Unit(checked_text(key, "key of a unit"), self.stream(stream))
        if not unit.key:
            raise Refused("key of a unit is empty")
        if (index := self._unit_index.get(unit)) is None:
            if len(self.units) >= MOST_UNITS:
                raise Refused(f"unit {unit.key} would be one of more than {MOST_UNITS:,}; expected fewer units")
            index = self._unit_index[unit] = len(self.units)
            self.units.append(unit)
        return index

    def unit_indices(self, keys: Sequence[object], codes: np.ndarray) -> np.ndarray:
        """Indices [n] of units.

        Args:
          keys: [U] of the units.
          codes: [n] which of them each spike has; of a unit that cannot be used, each is counted as rejected and has the index -1.
        """
        index = np.full(len(keys), -1)
        for code, count in enumerate(np.bincount(codes, minlength=len(keys))):
            try:
                index[code] = self.unit(keys[code]) if count else -1
            except Refused as refused:
                self.reject(refused, int(count))
        return index[codes]

    def stream(self, name: object) -> str:
        """Name of a stream; raises Refused if it cannot be used, or for too many streams."""
        text = checked_text(name, "name of a stream")
        if text not in self._streams:
            if len(self._streams) >= MOST_STREAMS:
                raise Refused(f"stream {text} would be one of more than {MOST_STREAMS:,}; expected fewer streams")
            self._streams.add(text)
        return text

    def spike(self, time_s: float, unit: int) -> None:
        """Adds a spike of the unit with an index; the time has been checked."""
        self._times.append(time_s)
        self._spike_units.append(unit)
        self.received = True

    def spikes(self, times: np.ndarray, units: np.ndarray) -> None:
        """Adds spikes at times [n] s of the units with indices [n]; those without a finite time or with index -1 are left out."""
        valid = np.abs(times) <= LATEST
        if not valid.all():
            wrong = times[~valid]
            self.reject(f"time of a spike is {wrong[0]:g} s; expected a finite number of at most {LATEST:g}", len(wrong))
        valid &= units >= 0
        self._flush()
        self._blocks.append((times[valid].astype(np.float64), units[valid].astype(np.int32)))
        self.received |= bool(valid.any())

    def marker(self, time_s: float, name: str, value: str = "", stream: str = "") -> None:
        """Adds a marker that arrives now; name, value and stream have been checked. Raises Refused for a time that is none."""
        self._markers.append(Marker(checked_time(time_s), stream, name, value, time.time()))
        self.received = True

    def reached(self, time_s: float, stream: str = "") -> None:
        """Notes that the clock of a stream has reached a time."""
        if time_s > self._until.get(stream, -math.inf):
            self._until[stream] = time_s

    def reject(self, reason: object, count: int = 1) -> None:
        """Counts messages that could not be understood; the first reason is kept."""
        self._rejected += count
        self._reason = self._reason or str(reason)

    def lose(self, count: int) -> None:
        """Counts messages that are known to be lost."""
        self._lost += count

    def _flush(self) -> None:
        """Puts single spikes into an array, so that the order of arrival is kept."""
        if self._times:
            self._blocks.append((np.array(self._times, np.float64), np.array(self._spike_units, np.int32)))
            self._times, self._spike_units = [], []

    def batch(self) -> Batch:
        """What was added since the last call."""
        self._flush()
        times = np.concatenate([NONE, *(block[0] for block in self._blocks)])
        units = np.concatenate([NONE.astype(np.int32), *(block[1] for block in self._blocks)])
        until: Mapping[str, float] = self._until
        found = Batch(times, units, tuple(self._markers), until, self._lost, self._rejected, self._reason)
        self._empty()
        return found
