"""Places in streams of a Redis server: what was read of each, and what the server dropped before that."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rlsnet.errors import UserError

FIRST = "0-0"  # before the first entry


def entry_id(text: bytes | str) -> tuple[int, int]:
    """(ms, number within them) of the time at which an entry was added."""
    moment, _, number = (text.decode() if isinstance(text, bytes) else text).partition("-")
    return int(moment), int(number)


@dataclasses.dataclass
class Place:
    """The place up to which a stream was read.

    name: of the stream.
    key: of the server at which its entries are now.
    numbered: whether its entries are in the keys NAME-0, NAME-1 and so on.
    last: identifier of the last entry that was read.
    index: entries of the key that were read or lost; None: not known.
    at_end: whether only entries are wanted that are added from now on, and the place of them is still to be found.
    ended: whether the sender has said that no entry will follow.
    gap: first entry after the last gap that was counted by a server which does not say how many entries are missing.
    """

    name: str
    key: str
    numbered: bool
    last: str = FIRST
    index: int | None = 0
    at_end: bool = False
    ended: bool = False
    gap: str = ""

    def following(self) -> str:
        """Key with the entries after those of the present one."""
        return f"{self.name}-{int(self.key[len(self.name) + 1 :]) + 1}"

    def move_to(self, key: str) -> None:
        """Goes on with the first entry of a key."""
        self.key, self.last, self.index = key, FIRST, 0

    def passed(self, last: str, count: int) -> None:
        """Notes that `count` entries up to the one with the identifier `last` were read."""
        self.last = last
        self.index = None if self.index is None else self.index + count

    def start_after(self, state: Mapping[str, Any]) -> None:
        """Starts after the entries that are stored; `state` is the answer to XINFO STREAM, {} where there is no stream."""
        self.at_end = False
        if state:
            self.last, self.index = _text(state["last-generated-id"]), state.get("entries-added")

    def check(self, state: Mapping[str, Any], more: bool) -> int:
        """Number of entries that were dropped before they were read.

        Args:
          state: the answer to XINFO STREAM.
          more: whether there are entries after the last one that was read.
        """
        if entry_id(_text(state["last-generated-id"])) < entry_id(self.last):  # another stream that has the same key
            self.last, self.index = FIRST, 0
            return 0
        if not more or entry_id(state["first-entry"][0]) <= entry_id(self.last):
            return 0
        added = state.get("entries-added")
        if added is None:
            counted, self.gap = self.gap, _text(state["first-entry"][0])
            return int(self.last != FIRST and counted != self.gap)
        before, self.index = self.index, added - state["length"]
        return 0 if before is None else max(0, self.index - before)


def _text(value: bytes | str) -> str:
    """An identifier as text."""
    return value.decode() if isinstance(value, bytes) else value


def place_text(places: Sequence[Place]) -> str:
    """Places as text, from which `places_of` makes them again; "" if nothing was read."""
    found = {each.name: [each.key, each.last, each.index] for each in places if not each.at_end}
    return json.dumps(found) if found else ""


def places_of(names: Sequence[str], numbered: bool, at_end: bool, position: str, where: str) -> list[Place]:
    """Places in streams with names.

    Args:
      names: of the streams.
      numbered: see `Place`.
      at_end: see `Place`.
      position: the text of `place_text`; streams that are not in it start anew.
      where: the source, for messages.

    Raises:
      UserError: the text cannot be read.
    """
    known = _known(position, where)
    found = []
    for name in names:
        place = Place(name, f"{name}-0" if numbered else name, numbered, at_end=at_end)
        key, last, index = known.get(name, (place.key, None, 0))
        suffix = key[len(name) :] if key.startswith(name) else None
        if last is not None and re.fullmatch(r"-\d+" if numbered else "", suffix if suffix is not None else "?"):
            place.key, place.last, place.index, place.at_end = key, last, index, False
        found.append(place)
    return found


def _known(position: str, where: str) -> dict[str, tuple[str, str, int | None]]:
    """(key, last, index) of each stream that a text of `place_text` has; raises UserError if it cannot be read."""
    try:
        found = {name: (str(key), str(last), index) for name, (key, last, index) in json.loads(position or "{}").items()}
        for _, last, index in found.values():
            if not re.fullmatch(r"\d{1,19}-\d{1,19}", last) or not isinstance(index, int | None):
                raise ValueError
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"{where}: the place {position[:60]!r} up to which it was read cannot be understood; start anew.") from None
    return found
