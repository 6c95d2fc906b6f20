"""State of a run, from the files that it has written so far: one dictionary for the page, the terminal and the page to keep.

Nothing of the run is changed, and no file is locked for longer than a look at the lock.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from rlsnet.analysis.live import curves, predictions, rates, words
from rlsnet.analysis.live.sources import Lines, Source, count, text
from rlsnet.errors import UserError
from rlsnet.io import outputs
from rlsnet.runs.folder import Run

LOOK_SECONDS = 2.0  # between two looks at the lock of the run
LOG_BYTES = 200_000  # of the end of rlsnet.log
DEVICE = re.compile(r"Run folder .*, on (.+) in float\d+\.$", re.MULTILINE)


def _device(path: Path) -> str:
    """The device of the last start, as rlsnet.log names it; "" if it does not."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        parts = [0, max(0, size - LOG_BYTES)]
        found = []
        for start in parts:
            file.seek(start)
            found += DEVICE.findall(file.read(LOG_BYTES).decode(errors="replace"))
    return text(found[-1]) if found else ""


def _object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; raises UserError if it has none."""
    found = outputs.read_json(path)
    if not found and path.exists():
        raise UserError(f"{path}: holds no JSON object.")
    return found


def _with_summary(path: Path) -> tuple[rates.Rates, dict[str, Any]] | None:
    """The PSTHs in online.zarr, and what a page shows of them at once; None before the first unit."""
    content = rates.read(path)
    return None if content is None else (content, rates.summary(content))


def _is_running(run: Run) -> bool | None:
    """Whether a process works in the folder of a run; None if the lock cannot be read, as of somebody else's run."""
    try:
        return run.busy()
    except OSError:
        return None


class Reader:
    """Files of a run, read anew where they have changed.

    run: its folder.
    """

    def __init__(self, run: Run):
        self.run = run
        self.metrics = Source(run.metrics, Lines)
        self.resources = Source(run.resources, Lines)
        self.trials = Source(run.path / "trials.jsonl", Lines)
        self.ingest = Source(run.path / "ingest.json", _object)
        self.rates = Source(run.path / "online.zarr", _with_summary)
        self.prediction = Source(run.path / "prediction.zarr", predictions.read)
        self.settings = Source(run.path / "config.yaml", lambda _: run.saved_config())
        self.log = Source(run.path / "rlsnet.log", _device)
        self._running: bool | None = None
        self._looked = float("-inf")
        self._mapped: rates.Rates | None = None  # whose heat maps are kept
        self._heat_maps: dict[int, dict[str, Any]] = {}

    @property
    def sources(self) -> list[Source[Any]]:
        """All files."""
        return [each for each in vars(self).values() if isinstance(each, Source)]

    def refresh(self) -> None:
        """Reads what has changed."""
        for source in self.sources:
            source.refresh()
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self._running, self._looked = _is_running(self.run), time.monotonic()

    def state(self) -> dict[str, Any]:
        """What is known of the run: numbers, texts, lists and dictionaries of these, as JSON has them.

        Keys:
          name, path: of the run.
          running: whether a process works in its folder; None if that cannot be found out.
          tiles: (label, value, note) of the key figures.
          notes: sentences.
          iterations: `curves.over_iterations`, or None before the first.
          recording: rows of `words.recording`, or None where no experiment is followed.
          trials: `curves.over_trials` with n, the number of trials, and conditions, of `words.conditions`; or None.
          rates: `rates.summary` with the version of the PSTHs; or None.
          prediction: `predictions.read`, or None.
        """
        metrics = [line for line in self._lines(self.metrics) if count(line.get("iteration"))]
        trials, ingest = self._lines(self.trials), self.ingest.content
        over = {**curves.over_trials(trials), "n": len(trials), "conditions": words.conditions(trials)} if trials else None
        watched = ingest is not None or bool(trials)
        tiles = words.tiles(
            self._running,
            None if watched else self._planned(),
            self.log.content or "",
            metrics,
            self._lines(self.resources),
            words.newest_score(metrics, over),
        )
        return {
            "name": text(self.run.path.absolute().name),
            "path": text(self.run.path, 300),
            "running": self._running,
            "tiles": tiles,
            "notes": words.notes(self._running, ingest, trials, self._problems()),
            "iterations": curves.over_iterations(metrics) if metrics else None,
            "recording": None if ingest is None else words.recording(ingest, trials),
            "trials": over,
            "rates": None if self.rates.content is None else {**self.rates.content[1], "version": self.rates.version},
            "prediction": self.prediction.content,
        }

    def unit(self, number: int) -> dict[str, Any]:
        """`rates.unit` of the present PSTHs; raises UserError if there are none, or no such unit."""
        return rates.unit(self._present(), number)

    def units(self, search: str) -> dict[str, Any]:
        """`rates.find` in the present PSTHs; raises UserError if there are none."""
        return rates.find(self._present(), search)

    def heat_map(self, condition: int) -> dict[str, Any]:
        """`rates.heat_map` of the present PSTHs, computed once for them; raises UserError if there are none, or no such condition."""
        content = self._present()
        if self._mapped is not content:
            self._mapped, self._heat_maps = content, {}
        kept = self._heat_maps
        if condition not in kept:
            kept[condition] = rates.heat_map(content, condition)
        return kept[condition]

    def _present(self) -> rates.Rates:
        """The PSTHs that were read last; raises UserError if there are none."""
        if self.rates.content is None:
            raise UserError(f"{self.rates.path}: is not there yet; rlsnet watch writes it after the first trial.")
        return self.rates.content[0]

    def _lines(self, source: Source[Lines]) -> list[dict[str, Any]]:
        """The lines of a file; [] before it can be read."""
        return [] if source.content is None else source.content.lines

    def _planned(self) -> int | None:
        """Iterations that the settings ask for, or None."""
        train = (self.settings.content or {}).get("train")
        return count(train.get("iterations")) if isinstance(train, dict) else None

    def _problems(self) -> list[str]:
        """Sentences about files that cannot be read, or of which lines are damaged."""
        found = [each.problem for each in self.sources if each.problem]
        for source in (self.metrics, self.trials, self.resources):
            if source.content is not None and source.content.n_damaged:
                found.append(f"{source.path.name}: {source.content.n_damaged} damaged lines are left out.")
        return found
