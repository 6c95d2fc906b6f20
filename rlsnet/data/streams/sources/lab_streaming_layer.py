"""Lab Streaming Layer (LSL): markers of one stream, and spikes of another one.

    lsl:NAME                  markers of the stream NAME, such as PsychoPy sends them: texts or whole numbers
    lsl:NAME?spikes=OTHER     and spikes of the stream OTHER: the number of the unit, one channel of integers, a sample for each spike

Texts are read as `names_and_values` says; a whole number is the name of a marker. Times are those of the senders, on the LSL clock of
this machine: the difference of the clocks is that which LSL measures.

LSL finds streams by messages to the network, beyond this machine too. A configuration file of LSL limits that: set LSLAPICFG to a file
with the section [multicast] and, in it, ResolveScope = machine before the program starts. A sender that starts again is found again;
LSL does not number its samples, so what is lost meanwhile cannot be counted.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import numpy as np

from rlsnet.data.streams.messages import Batch, Unit
from rlsnet.data.streams.sources.address import options_of
from rlsnet.data.streams.sources.incoming import LATEST, Incoming, Refused, checked_text, names_and_values
from rlsnet.errors import UserError, first_line, package

EXPECTED = "lsl:NAME or lsl:NAME?spikes=NAME"
BUFFER = 3600  # hundreds of samples that LSL keeps for this program, of a stream without a sampling rate
MOST_SAMPLES = 20_000  # at once
INTERVAL_S = 0.01  # between two looks at the streams
LOOK_S = 1.0  # between two looks at which streams exist
FORGET_S = 5.0  # a stream that has not answered for longer does not exist any more
CLOCK_S = 2.0  # longest wait for the first comparison of the clocks


class LabStreamingLayerSource:
    """Streams of the Lab Streaming Layer; see `Source`."""

    position = ""  # it sends what happens now, and keeps nothing

    def __init__(self, text: str, position: str = ""):
        """Looks for the streams; raises UserError if the names cannot be right or the package pylsl is missing."""
        name, _, query = text.removeprefix("lsl:").removeprefix("//").partition("?")
        names = {"markers": unquote(name), "spikes": options_of(query, ("spikes",), text, EXPECTED).get("spikes", "")}
        if not names["markers"] or any("'" in each or '"' in each for each in names.values()) or names["markers"] == names["spikes"]:
            raise UserError(f"{text}: expected {EXPECTED}, with two names without quotation marks.")
        try:
            lsl = package("pylsl", "lsl", text)
        except (RuntimeError, OSError) as error:  # the package without its library
            raise UserError(f"{text}: {first_line(error)}.") from error
        self.name = f"LSL stream {names['markers']}"
        self._incoming = Incoming()
        self.units: list[Unit] = self._incoming.units
        self._streams = [_Stream(lsl, names[kind], kind == "spikes") for kind in names if names[kind]]

    def read(self, timeout: float) -> Batch | None:
        """See `Source`."""
        until = time.monotonic() + timeout
        while True:
            taken = sum([self._take(stream) for stream in self._streams])  # markers first: the spikes before them have arrived, too
            if taken or time.monotonic() >= until:
                return self._incoming.batch()
            time.sleep(min(INTERVAL_S, max(0.0, until - time.monotonic())))

    def _take(self, stream: _Stream) -> int:
        """Adds what has arrived of a stream; returns the number of samples."""
        total = 0
        while True:
            try:
                values, times = stream.samples()
            except UnicodeDecodeError:
                self._incoming.reject(f"a text of the LSL stream {stream.name} is not UTF-8")
                continue
            (self._add_spikes if stream.of_spikes else self._add_markers)(values, times)
            total += len(times)
            if len(times) < MOST_SAMPLES or not stream.of_spikes:
                return total

    def _add_spikes(self, values: list[list[Any]], times: np.ndarray) -> None:
        """Adds spikes of the units `values` at `times` [n] s."""
        if not len(times):
            return
        keys, codes = np.unique([each for (each,) in values], return_inverse=True)
        self._incoming.spikes(times, self._incoming.unit_indices(keys.tolist(), codes))
        possible = times[np.abs(times) <= LATEST]
        if len(possible):
            self._incoming.reached(float(possible.max()))

    def _add_markers(self, values: list[list[Any]], times: np.ndarray) -> None:
        """Adds the markers that the channels of samples mean; channels without a text are left out."""
        for sample, moment in zip(values, times.tolist(), strict=True):
            for value in sample:
                try:
                    text = value if isinstance(value, str) else checked_text(value, "marker")
                    for name, content in names_and_values(text) if text.strip() or len(sample) == 1 else ():
                        self._incoming.marker(moment, name, content)
                        self._incoming.reached(moment)
                except Refused as refused:
                    self._incoming.reject(refused)

    def problem(self) -> str:
        """See `Source`."""
        problems = [problem for stream in self._streams if (problem := stream.problem)]
        if problems or self._incoming.received:
            return "; ".join(problems)
        return f"{self.name}: connected, but nothing was received yet; has the sender sent anything?"

    def close(self) -> None:
        """See `Source`."""
        for stream in self._streams:
            stream.close()


class _Stream:
    """One stream of LSL, which is looked for until it exists.

    name: of the stream.
    of_spikes: whether it has spikes.
    problem: why nothing can be received, in words; "": nothing is known to be wrong.
    """

    def __init__(self, lsl: Any, name: str, of_spikes: bool):
        self._lsl, self.name, self.of_spikes = lsl, name, of_spikes
        self._resolver = lsl.ContinuousResolver("name", name, forget_after=FORGET_S)
        self._inlet: Any = None
        self._offset: float | None = None
        self._looked = -np.inf
        self._missing = f"no LSL stream has the name {name} at present; is its sender running, in the same network?"
        self.problem = self._missing

    def samples(self) -> tuple[list[list[Any]], np.ndarray]:
        """(values of the channels [n], times [n] s) that have arrived."""
        try:
            if time.monotonic() - self._looked >= LOOK_S:
                self._look()
                self._looked = time.monotonic()
            if self._inlet is not None and (offset := self._clock_offset()) is not None:
                values, times = self._inlet.pull_chunk(0.0, MOST_SAMPLES)
                return values, np.array(times, np.float64) + offset
        except RuntimeError as error:  # all errors of LSL are
            self._close_inlet()
            self.problem = f"the LSL stream {self.name} was lost: {first_line(error)} It is looked for again and again"
        return [], np.zeros(0)

    def _clock_offset(self) -> float | None:
        """Seconds from the clock of the sender to the one of this machine, as measured last; None: not yet."""
        try:
            if self._offset is None:
                self._inlet.open_stream(CLOCK_S)
            self._offset = self._inlet.time_correction(CLOCK_S)
        except self._lsl.util.TimeoutError:
            pass
        return self._offset

    def _look(self) -> None:
        """Connects to the stream when it is found, and notes whether it exists."""
        found = self._resolver.results()
        if not found:
            self.problem = self._missing
        elif self._inlet is not None:
            self.problem = ""
        elif len(found) > 1:  # also for some seconds after a sender has started again
            self.problem = f"{len(found)} LSL streams have the name {self.name}; expected one"
        elif not (unfit := self._unfit(found[0])):
            self._inlet = self._lsl.StreamInlet(found[0], max_buflen=BUFFER)
            self.problem = ""
        else:
            self.problem = unfit

    def _unfit(self, info: Any) -> str:
        """Why a stream cannot have the values that are expected, in words; "" if it can."""
        kinds: Mapping[int, str] = {getattr(self._lsl, f"cf_{name}"): name for name in ("int8", "int16", "int32", "int64", "string")}
        kind = kinds.get(info.channel_format())
        if self.of_spikes and (kind in (None, "string") or info.channel_count() != 1):
            return f"the LSL stream {self.name} has {info.channel_count()} channels; expected one, of integers, the numbers of units"
        return "" if kind else f"the LSL stream {self.name} has values that are neither texts nor integers; expected markers"

    def _close_inlet(self) -> None:
        """Ends the connection; the stream is looked for again."""
        if self._inlet is not None:
            self._inlet.close_stream()
        self._inlet = self._offset = None

    def close(self) -> None:
        """Ends the connection, and the search for the stream."""
        self._close_inlet()
        self._resolver = None
