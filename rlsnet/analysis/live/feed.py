"""State of a run for several readers at a time: read again while somebody looks, and handed on in the parts that have changed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from rlsnet.analysis.live.sources import text
from rlsnet.analysis.live.state import Reader
from rlsnet.errors import first_line

Answer = TypeVar("Answer")

EVERY = 1.0  # s between two readings


class Feed:
    """The parts of `Reader.state` as JSON, and the reading at which each has changed last.

    A thread reads while there are lookers, so that a page which nobody has open costs nothing.
    """

    def __init__(self, reader: Reader, every: float = EVERY):
        self._reader, self._every = reader, every
        self._reading = threading.Lock()  # of the reader, which is of one thread at a time
        self._news = threading.Condition()
        self._parts: dict[str, tuple[int, str]] = {}
        self._readings, self._lookers = 0, 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read_on, name="state of the run", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, and the waiting of all lookers."""
        self._ended.set()
        with self._news:
            self._news.notify_all()

    @property
    def ended(self) -> bool:
        """Whether `stop` was called."""
        return self._ended.is_set()

    def ask(self, question: Callable[[Reader], Answer]) -> Answer:
        """The answer to a question, after what has changed was read."""
        with self._reading:
            self._reader.refresh()
            return question(self._reader)

    def look(self, by: int) -> None:
        """Counts lookers: 1 for one who comes, -1 for one who goes."""
        with self._news:
            self._lookers += by
            self._news.notify_all()

    def changed(self, since: int, wait: float) -> tuple[int, dict[str, str]]:
        """(number of the newest reading, parts that have changed after the reading `since`), at once or after at most `wait` seconds."""
        with self._news:
            self._news.wait_for(lambda: self.ended or self._after(since), wait)
            return self._readings, self._after(since)

    def _after(self, since: int) -> dict[str, str]:
        return {name: content for name, (reading, content) in self._parts.items() if reading > since}

    def _read_on(self) -> None:
        """Reads until the end."""
        while not self.ended:
            with self._news:
                self._news.wait_for(lambda: self.ended or self._lookers > 0)
            if not self.ended:
                self._read()
            self._ended.wait(self._every)

    def _read(self) -> None:
        """Reads once; a fault becomes the part `fault`, and does not end the view."""
        try:
            parts = {**self.ask(lambda reader: reader.state()), "fault": ""}
            texts = {name: json.dumps(part, allow_nan=False) for name, part in parts.items()}
        except Exception as error:
            texts = {"fault": json.dumps(f"The state of the run could not be read: {text(first_line(error), 300)}")}
        self._keep(texts)

    def _keep(self, texts: dict[str, str]) -> None:
        """Takes over a reading, and wakes the lookers if a part has changed."""
        with self._news:
            new = {name: content for name, content in texts.items() if self._parts.get(name, (0, None))[1] != content}
            if new:
                self._readings += 1
                self._parts |= {name: (self._readings, content) for name, content in new.items()}
                self._news.notify_all()


def as_json(answer: Any) -> bytes:
    """An answer as JSON, which has no NaN."""
    return json.dumps(answer, allow_nan=False).encode()
