"""Recording of a running experiment: a thread that reads the source, appends to stream.zarr, and never waits for training."""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rlsnet.data.streams.messages import Batch, Source
from rlsnet.data.streams.store import StreamStore, TrialRow
from rlsnet.errors import first_line
from rlsnet.io import atomic
from rlsnet.io.formatting import counted

log = logging.getLogger(__name__)

READ_S = 0.1  # longest wait for messages
COMMIT_S = 0.25  # between two writes to the disk
STATUS_S = 1.0  # between two writes of ingest.json
STATUS = "ingest.json"


class Delivery(NamedTuple):
    """Messages that are on the disk; `received`: when they were read from the source, s (`time.time()`)."""

    batch: Batch
    received: float


class Ingest:
    """Thread that records a source; its messages reach training when they are on the disk.

    If the disk is full, they are kept in memory and written as soon as there is space.

    Attributes:
      status: what training adds to ingest.json, by key.
      ended: whether the source has ended and all its messages were delivered.
      failed: what has ended the recording, though the source had not ended.
      disk: why nothing can be written, in words; "": it can.
    """

    def __init__(self, source: Source, store: StreamStore, folder: Path):
        """Records `source` into `store`; ingest.json is written into `folder`."""
        self.source, self.store, self.status, self.ended = source, store, dict[str, Any](), False
        self._path, self._lock, self._stop = folder / STATUS, threading.Lock(), threading.Event()
        self._queue: queue.SimpleQueue[Delivery | None] = queue.SimpleQueue()
        self._waiting: list[Delivery] = []  # not on the disk
        self.failed: BaseException | None = None
        self.disk = ""
        self._reason = ""  # why the first rejected message was
        self._last_message: float | None = None
        self._over = False  # whether the source has ended
        self._problem = ""  # of the source or the disk, when it was last stated
        self._stated = (0.0, store.n_spikes)  # when ingest.json was last written, s, and the spikes then
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Context in which the source is recorded; at its end, all that was received is on the disk, if it has space."""
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()
            self.source.close()

    def take(self, timeout: float) -> Delivery | None:
        """The next messages that are on the disk; None after `timeout` s without any, and after the end of the source."""
        if self.ended:
            return None
        with contextlib.suppress(queue.Empty):
            found = self._queue.get(timeout=timeout) if timeout > 0 else self._queue.get_nowait()
            self.ended = found is None
            return found
        return None

    def add_trial(self, row: TrialRow) -> bool:
        """Writes what training did about a trial; returns whether it is on the disk."""
        with self._lock:
            self.store.add_trial(row)
            return self._commit()

    def _run(self) -> None:
        """Reads and writes until the source ends or the recording is stopped; then only ingest.json goes on."""
        try:
            committed, over = 0.0, False
            while not over:
                batch, now = self.source.read(0.0 if self._stop.is_set() else READ_S), time.time()
                over = batch is None or self._stop.is_set()
                with self._lock:
                    if batch is not None:
                        self._append(batch, now)
                    if over or now - committed >= COMMIT_S:
                        self._commit()
                        committed = now
                self._state()
            while self.disk and not self._stop.wait(READ_S):
                with self._lock:
                    self._commit()
        except BaseException as error:
            self.failed = error
            log.exception("The recording has stopped.")
        self._queue.put(None)
        self._over = True
        while not self._stop.wait(READ_S):
            self._state()
        self._state(now=True)

    def _append(self, batch: Batch, now: float) -> None:
        """Adds messages to the stream."""
        stored = self.store.append(batch, self.source.units, self.source.position)
        self._reason = self._reason or batch.reason
        if len(batch.spike_time) or batch.markers or batch.until:
            self._last_message = now
            self._waiting.append(Delivery(stored, now))

    def _commit(self) -> bool:
        """Writes what has been added and delivers it; returns whether the disk had space."""
        try:
            self.store.commit()
        except OSError as error:
            if not self.disk:
                log.error("%s cannot be written (%s); all is kept in memory and written later.", self.store.path, error.strerror or error)
            self.disk = f"{self.store.path.name} cannot be written: {error.strerror or error}."
            return False
        if self.disk:
            log.info("%s is written again; nothing was lost.", self.store.path)
        self.disk = ""
        for each in self._waiting:
            self._queue.put(each)
        self._waiting.clear()
        return True

    def _state(self, now: bool = False) -> None:
        """Replaces ingest.json each STATUS_S, or `now`; a full disk is no error here."""
        time_, (before, spikes) = time.time(), self._stated
        if time_ - before < STATUS_S and not now:
            return
        self._stated = time_, self.store.n_spikes
        problem = (
            self.disk
            or ("" if self.failed is None else f"the recording has stopped: {first_line(self.failed)}.")
            or ("" if self._over else self.source.problem())
        )
        if problem and problem != self._problem:
            log.warning("%s", problem)
        self._problem = problem
        about = {
            "time": time_,
            "source": self.source.name,
            "ended": self._over,
            "problem": problem,
            "spikes": self.store.n_spikes,
            "spikes_per_s": round((self.store.n_spikes - spikes) / (time_ - before), 1),
            "units": len(self.store.units),
            "markers": self.store.n_markers,
            "lost": self.store.lost,
            "rejected": self.store.rejected,
            "rejected_reason": self._reason,
            "last_message": self._last_message,
            **self.status,
        }
        with contextlib.suppress(OSError):
            about["free_bytes"] = shutil.disk_usage(self._path.parent).free
            with atomic.replacing(self._path) as temporary:
                temporary.write_text(json.dumps(about))

    def describe(self) -> str:
        """What was received, in words."""
        store = self.store
        words = f"{counted(store.n_spikes, 'spike')} of {counted(len(store.units), 'unit')}, {counted(store.n_markers, 'marker')}"
        lost = f"; {counted(store.lost, 'message')} lost before {'it' if store.lost == 1 else 'they'} arrived" if store.lost else ""
        rejected = f"; {counted(store.rejected, 'message')} not understood" if store.rejected else ""
        return words + lost + rejected + (f" (the first: {self._reason})" if rejected and self._reason else "")
