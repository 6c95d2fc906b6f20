"""Signs of neurons and connections in words: transmitters, classes and numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from rlsnet.data import query
from rlsnet.errors import UserError

EXCITATORY, INHIBITORY, UNKNOWN = 1, -1, 0
# names of each transmitter, and its sign; monoamines and histamine have receptors of both signs
TRANSMITTERS = (
    ("ach acetylcholine cholinergic chat", EXCITATORY),
    ("glu glut glutamate glutamatergic vglut", EXCITATORY),
    ("gaba gabaergic gad vgat", INHIBITORY),
    ("gly glycine glycinergic", INHIBITORY),
    ("da dop dopamine dopaminergic", UNKNOWN),
    ("ser 5ht serotonin serotonergic", UNKNOWN),
    ("oct oa octopamine octopaminergic", UNKNOWN),
    ("ta tyr tyramine tyraminergic", UNKNOWN),
    ("ha his histamine histaminergic", UNKNOWN),
    ("unknown unclear none", UNKNOWN),
)
WORDS = {
    **dict.fromkeys(("exc", "e", "excitatory", "positive", "+", "1", "+1", "1.0"), EXCITATORY),
    **dict.fromkeys(("inh", "i", "inhibitory", "negative", "-", "-1", "-1.0"), INHIBITORY),
    **dict.fromkeys(("unknown", "0", "0.0"), UNKNOWN),
}
ELECTRICAL = re.compile(r"electric|gap|gj|^(ej|elec)$", re.IGNORECASE)  # in the kind of a connection


def sign_of_word(text: str) -> int | None:
    """Sign that a word or number says; None for other texts."""
    return WORDS.get(text.strip().lower())


def transmitter_signs(given: Mapping[str, str] | None) -> Callable[[str], int | None]:
    """Function that gives the sign of a transmitter by name, None for other texts.

    Args:
      given: the setting `signs`: signs by name, which hold for all names of a transmitter.

    Raises:
      UserError: other words than signs.
    """
    signs = {name: sign for names, sign in TRANSMITTERS for name in names.split()}
    for name, text in (given or {}).items():
        sign = sign_of_word(text)
        if sign is None:
            raise UserError(f"signs.{name}={text}: expected exc, inh or unknown.")
        same = next((names.split() for names, _ in TRANSMITTERS if _plain(name) in names.split()), [_plain(name)])
        signs |= dict.fromkeys(same, sign)
    return lambda text: signs.get(_plain(text))


def ways(given: Mapping[str, str] | None) -> dict[str, Callable[[str], int | None]]:
    """How a column gives signs, by its setting, the later one with priority; `given` and errors as of `transmitter_signs`."""
    return {"transmitter": transmitter_signs(given), "sign": sign_of_word}


def _plain(text: str) -> str:
    """A name in lower case without blanks and hyphens, so that 5-HT is 5ht."""
    return re.sub(r"[^0-9a-z]", "", text.lower())


class Signs(NamedTuple):
    """Signs of n neurons or connections.

    sign: [n] int8.
    other: texts that the column should not have.
    unclear: these and the words of unknown sign, without missing values.
    """

    sign: np.ndarray
    other: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()


def by_word(column: np.ndarray, way: Callable[[str], int | None]) -> Signs:
    """Signs of the texts in a column; `way` gives the sign of a text, None for other texts. Missing values are unknown."""
    words, index = np.unique(query.as_texts(column), return_inverse=True)
    found = {word: way(word) for word in words.tolist() if word.lower() not in query.MISSING_CELLS}
    sign = np.array([found.get(word) or UNKNOWN for word in words.tolist()], np.int8)[index.reshape(-1)]
    return Signs(sign, tuple(word for word in found if found[word] is None), tuple(word for word in found if not found[word]))
