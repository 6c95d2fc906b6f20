"""Sends a recorded session as if its experiment were running, to rehearse training that follows an experiment.

    python scripts/replay_experiment.py SESSION.npz oe://127.0.0.1:5557 line2="contrast_left > contrast_right"
    python scripts/replay_experiment.py SESSION.npz "redis://127.0.0.1:6379/spikes?markers=events" speed=10
    python scripts/replay_experiment.py SESSION.npz FOLDER speed=max

SESSION.npz has spike_times [s], spike_clusters (whole numbers), trials/start_time [s] and other columns trials/NAME, as `rlsnet import`
reads them. Line 1 rises at each start_time and falls 50 ms later. lineN="FILTER" rises 5 ms before line 1 in the trials that pass the
filter, and falls with it. speed=1 (the default) sends at the times of the session, speed=10 ten times as fast, speed=max without pauses.

oe:// sends as Open Ephys' plugin Event Broadcaster does, from that port of this machine, once a program has subscribed. redis:// writes to
a Redis server as River does. A folder gets files as `rlsnet.data.streams.sources.folder` describes, and END at the end.
Needs pyzmq or redis: pip install 'rlsnet[live]'.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from rlsnet.data.query import select_rows
from rlsnet.data.streams.sources import address
from rlsnet.data.streams.sources.folder import END, INCOMPLETE
from rlsnet.errors import UserError, first_line, os_error, package
from rlsnet.io import npz_files

RATE = 30_000.0  # Hz, of sample numbers
BEFORE_S, AFTER_S = 0.005, 0.05  # from the edges of lines 2, 3, ... to that of line 1, and from rising to falling edges
STEP_S = {"folder": 0.5, "other": 0.01}  # between two messages, or files
AT_ONCE = {"folder": 50_000, "other": 5_000}  # events, with speed=max
STREAM, NODE = "replay", 100  # as which the Event Broadcaster would name the stream and its source


@dataclasses.dataclass(frozen=True)
class Events:
    """Spikes and edges of lines, ascending in time.

    sample: [n] int64 sample numbers at `RATE`.
    line: [n] int64 line of an edge, 0 for a spike.
    value: [n] int64 the unit of a spike; 1 for a rising edge and 0 for a falling one.
    """

    sample: np.ndarray
    line: np.ndarray
    value: np.ndarray

    def part(self, start: int, stop: int) -> Events:
        """Events from number `start` to before `stop`."""
        return Events(self.sample[start:stop], self.line[start:stop], self.value[start:stop])

    def rows(self) -> Iterator[tuple[int, int, int]]:
        """(sample, line, value) of each."""
        return zip(self.sample.tolist(), self.line.tolist(), self.value.tolist(), strict=True)


class Sender(Protocol):
    """Sends events to one receiver; `kind` is a key of `STEP_S`."""

    kind: str

    def send(self, events: Events) -> None:
        """Sends events, which are later than those before."""
        ...

    def close(self) -> None:
        """Says that no more will come, and waits until all are sent."""
        ...


def events_of(path: Path, lines: Mapping[int, str]) -> Events:
    """Events of a session; `lines` has the filter of trials of each further line. Raises UserError if the file cannot be used."""
    try:
        npz_files.check_npz(path)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name.startswith(("spike_", "trials/"))}
    except (*INCOMPLETE, ValueError) as error:
        raise UserError(os_error(error) if isinstance(error, OSError) else f"{path}: {first_line(error)}.") from error
    needed = ("spike_times", "spike_clusters", "trials/start_time")
    if missing := [name for name in needed if name not in arrays]:
        raise UserError(f"{path}: has no {missing[0]}; expected {', '.join(needed)}.")
    times, units, starts = (arrays[name] for name in needed)
    if units.dtype.kind not in "iu" or times.ndim != 1 or times.shape != units.shape or np.any(np.abs(units) >= 2**31):
        raise UserError(f"{path}: spike_clusters is {units.dtype} {list(units.shape)}; expected a number of 32 bits for each spike time.")
    if {times.dtype.kind, starts.dtype.kind} - set("fiu") or starts.ndim != 1 or not np.isfinite(times).all():
        raise UserError(f"{path}: spike_times or trials/start_time has other values than times; expected s.")
    table = {name.removeprefix("trials/"): column for name, column in arrays.items() if name.startswith("trials/")}
    started = np.isfinite(starts)
    parts = [(times, 0, units), *_edges(1, starts[started], 0.0)]
    for line, text in lines.items():
        chosen = select_rows(text, table, len(starts), f"line{line}", str(path)) & started
        parts += _edges(line, starts[chosen], BEFORE_S)
    return _sorted(parts)


def _edges(line: int, starts: np.ndarray, before: float) -> list[tuple[np.ndarray, int, int]]:
    """(times [k] s, line, state) of the rising and of the falling edges of a line."""
    return [(starts - before, line, 1), (starts + AFTER_S, line, 0)]


def _sorted(parts: Sequence[tuple[np.ndarray, int, np.ndarray | int]]) -> Events:
    """Events of parts, each with times [k] s, a line, and values [k] or one for all."""
    sample = np.concatenate([np.round(times * RATE).astype(np.int64) for times, _, _ in parts])
    line = np.concatenate([np.full(len(times), number) for times, number, _ in parts])
    value = np.concatenate([np.broadcast_to(values, len(times)) for times, _, values in parts]).astype(np.int64)
    order = np.argsort(sample, kind="stable")
    return Events(sample[order], line[order], value[order])


class OpenEphysSender:
    """Sends to subscribers as the Event Broadcaster does.

    Attributes:
      port: at which it sends.
    """

    kind = "other"

    def __init__(self, port: int = 0):
        """Opens a port of this machine, 0: a free one; raises UserError if it is taken or pyzmq is missing."""
        self._zmq = package("zmq", "live", "oe://")
        self._context = self._zmq.Context()
        self._socket = self._context.socket(self._zmq.XPUB)  # a PUB that is told of subscribers
        self._socket.setsockopt(self._zmq.SNDHWM, 0)  # keeps what is not sent yet, instead of dropping it
        try:
            self._socket.bind(f"tcp://127.0.0.1:{port or '*'}")
        except self._zmq.ZMQError as error:
            self._socket.close()
            self._context.term()
            raise UserError(f"port {port}: {first_line(error)}; expected a free one.") from error
        self.port = int(self._socket.getsockopt(self._zmq.LAST_ENDPOINT).decode().rpartition(":")[2])

    def wait(self, seconds: float | None = None) -> bool:
        """Waits until a program has subscribed; returns whether one has within a time, None: as long as it takes."""
        return bool(self._socket.poll(None if seconds is None else round(1000 * seconds))) and self._socket.recv() == b"\x01"

    def send(self, events: Events) -> None:
        """See `Sender`."""
        common = {"stream": STREAM, "source_node": NODE, "sample_rate": RATE}
        for sample, line, value in events.rows():
            if line:
                what = {"event_type": "ttl", "channel_name": "lines", "sample_number": sample, "line": line, "state": bool(value)}
            else:
                unit = {"electrode": f"Unit {value}", "num_channels": 1, "sorted_id": 1, "amp1": 50.0}
                what = {"event_type": "spike", "sample_number": sample, **unit}
            self._socket.send_multipart([np.uint16(not line).tobytes(), json.dumps(common | what).encode()])

    def close(self) -> None:
        """See `Sender`."""
        self._socket.close(linger=-1)
        self._context.term()


class RedisSender:
    """Writes to a Redis server as River does: spikes as unit 0 of the channel with the number of the unit, and edges as events."""

    kind = "other"

    def __init__(self, text: str):
        """Connects; raises UserError if the address cannot be right, the server does not answer, or the package redis is missing."""
        redis = package("redis", "live", text)
        expected = "redis://HOST:PORT/STREAM?markers=STREAM"
        parts = address.parsed(text, 6379, ("markers",), expected)
        *database, stream = parts.path or [""]
        if not stream or not parts.options.get("markers") or len(database) > 1 or not all(each.isdigit() for each in database):
            raise UserError(f"{parts.text}: expected {expected}.")
        self._keys = f"{stream}-0", f"{parts.options['markers']}-0"
        self._counts = [0, 0]
        login = {"username": parts.username, "password": parts.password}
        once = redis.retry.Retry(redis.backoff.NoBackoff(), 0)  # an entry that is sent again would be there twice
        self._client = redis.Redis(parts.host, parts.port, int(*database) if database else 0, retry=once, **login)
        try:
            taken = [key for key in self._keys if self._client.exists(key)]
        except redis.RedisError as error:
            raise UserError(f"{parts.text}: {first_line(error)}.") from error
        if taken:
            raise UserError(f"{parts.text}: the server has {taken[0]} already; expected names of new streams.")

    def send(self, events: Events) -> None:
        """See `Sender`."""
        packed = np.zeros(len(events.sample), [("place", "<i4"), ("number", "<i4"), ("sample", "<i8")])
        is_edge = events.line > 0
        packed["place"] = np.where(is_edge, events.line, events.value)
        packed["number"] = np.where(is_edge, events.value, 0)
        packed["sample"] = events.sample
        with self._client.pipeline(transaction=False) as pipeline:
            for edge, value in zip(is_edge.tolist(), packed, strict=True):
                pipeline.xadd(self._keys[edge], {"val": value.tobytes(), "i": self._counts[edge]})
                self._counts[edge] += 1
            pipeline.execute()

    def close(self) -> None:
        """See `Sender`."""
        for key, count in reversed([*zip(self._keys, self._counts, strict=True)]):  # spikes last: they end the source
            self._client.xadd(key, {"eof": 1, "sample_index": max(0, count - 1)})
        self._client.close()


class FolderSender:
    """Writes files into a folder."""

    kind = "folder"

    def __init__(self, path: Path):
        """Makes the folder; raises UserError if it is not empty, or cannot be made."""
        self._path, self._count = path, 0
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise UserError(f"{path}: is not empty; expected a new folder.")
        except OSError as error:
            raise UserError(os_error(error)) from error

    def send(self, events: Events) -> None:
        """See `Sender`."""
        spike = events.line == 0
        names = [f"line{line}" if state else f"line{line}_off" for _, line, state in events.rows() if line]
        arrays = {"spike_times": events.sample[spike] / RATE, "spike_clusters": events.value[spike]}
        arrays |= {"marker_times": events.sample[~spike] / RATE, "marker_names": np.array(names, dtype=str)}
        name = self._path / f"{self._count:06d}.npz"
        with open(name.with_suffix(".part"), "wb") as file:
            np.savez(file, **arrays)
        os.replace(name.with_suffix(".part"), name)
        self._count += 1

    def close(self) -> None:
        """See `Sender`."""
        (self._path / END).touch()


def replay(events: Events, sender: Sender, speed: float) -> None:
    """Sends events at their times, `speed` times as fast as they were recorded; infinity: without pauses."""
    sent, total, step = 0, len(events.sample), STEP_S[sender.kind]
    began = time.monotonic()
    while sent < total:
        upto = sent + AT_ONCE[sender.kind]
        if np.isfinite(speed):
            now = events.sample[0] + (time.monotonic() - began) * speed * RATE
            upto = int(np.searchsorted(events.sample, now, "right"))
        if upto > sent:
            sender.send(events.part(sent, upto))
            sent = upto
        if np.isfinite(speed):
            time.sleep(step)


def sender_to(text: str) -> Sender:
    """The sender to a receiver, see the module; raises UserError if it cannot be used."""
    if text.startswith("redis:"):
        return RedisSender(text)
    if not text.startswith("oe:"):
        return FolderSender(Path(text))
    parts = address.parsed(text, 5557, (), "oe://127.0.0.1:PORT")
    if parts.host not in ("127.0.0.1", "localhost"):
        raise UserError(f"{text}: the host is {parts.host}; expected 127.0.0.1, since the port is opened on this machine.")
    sender = OpenEphysSender(parts.port)
    print(f"Port {sender.port}: waiting for a program that subscribes.", flush=True)
    sender.wait()
    return sender


def settings_of(arguments: Sequence[str]) -> tuple[float, dict[int, str]]:
    """(speed, filter of each line) in arguments NAME=VALUE; raises UserError for one that cannot be right."""
    speed, lines = 1.0, {}
    for each in arguments:
        name, _, value = each.partition("=")
        if found := re.fullmatch(r"line([1-9]\d{0,3})", name):
            if found[1] == "1" or not value:
                raise UserError(f"{each}: expected a filter of trials for line 2 or higher; line 1 rises at each start.")
            lines[int(found[1])] = value
        elif name == "speed" and (value == "max" or re.fullmatch(r"\d+(\.\d+)?", value) and float(value) > 0):
            speed = np.inf if value == "max" else float(value)
        else:
            raise UserError(f"{each}: expected speed=1, another positive number or max, or lineN=FILTER.")
    return speed, lines


def main(arguments: Sequence[str]) -> None:
    """Runs the program."""
    if len(arguments) < 2 or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return
    speed, lines = settings_of(arguments[2:])
    events = events_of(Path(arguments[0]), lines)
    sender = sender_to(arguments[1])
    began = time.monotonic()
    replay(events, sender, speed)
    sender.close()
    n_spikes = int((events.line == 0).sum())
    print(f"Sent {n_spikes:,} spikes and {len(events.line) - n_spikes:,} edges of lines in {time.monotonic() - began:.1f} s.")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped.")
