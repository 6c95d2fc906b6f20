"""Cell classes: which units of a recording are excitatory and which inhibitory, by rules on their columns or drawn at random.

A rule is a filter of units (`query`). With one rule, the units for which it is false have the other class; with two, a unit for which
both are false has no known class. A unit without a value in a column of a rule has none either, unless the rule is decided without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rlsnet.config.schema import Config
from rlsnet.data import query
from rlsnet.data.import_options import Options
from rlsnet.data.recordings import Recording
from rlsnet.data.session import Table
from rlsnet.errors import UserError, joined

if TYPE_CHECKING:
    from jax import Array

COLUMN = "cell_class"  # of the units of a recording: excitatory, inhibitory, or empty where it is not known
NAMES = ("excitatory", "inhibitory")


class CellClasses(NamedTuple):
    """Classes of the N neurons of a network.

    excitatory: [N] bool, the others are inhibitory.
    source: where they come from, in words.
    """

    excitatory: np.ndarray
    source: str


def rules(excitatory: str | None, inhibitory: str | None) -> dict[str, str]:
    """The rules that are given, by class."""
    given = {"excitatory": excitatory, "inhibitory": inhibitory}
    return {name: text for name, text in given.items() if text is not None and text.strip()}


def by_rules(given: Mapping[str, str], table: Table, size: int, prefix: str, where: str) -> np.ndarray:
    """[size] str, class of each unit: excitatory, inhibitory, or empty where the rules do not tell it.

    Args:
      given: rules by class, one or two.
      table: columns of the units.
      size: number of units.
      prefix: of the settings that contain the rules, "" or "recording.", for messages.
      where: the file, for messages.

    Raises:
      UserError: a rule is not a filter, a column does not exist, or both rules are true for a unit.
    """
    classes, matched = np.full(size, "", dtype="U10"), np.zeros(size, bool)
    for name, text in given.items():
        what = f"{prefix}{name}"
        passed, known = query.decide_rows(text, table, size, what, where)
        if (twice := np.flatnonzero(matched & passed)).size:
            raise UserError(f"{what}={text}: is true for unit {twice[0]} of {where}, as the other rule is; expected rules that differ.")
        classes[passed], matched = name, matched | passed
        if len(given) == 1:
            classes[known & ~passed] = NAMES[1 - NAMES.index(name)]
    return classes


def columns_of(options: Options, units: Table, n_units: int, where: str) -> dict[str, np.ndarray]:
    """Columns [n_units] that an import stores: those of `columns`, those of the rules, and cell_class if there are rules.

    Raises:
      UserError: a column does not exist, or a rule cannot be used.
    """
    given = rules(options.excitatory, options.inhibitory)
    names = [*(options.columns or ()), *(name for text in given.values() for name in query.column_names(text))]
    for name in options.columns or ():
        query.require_column(name, units, f"columns={name}", f"the units of {where}")
        if np.ndim(units[name]) != 1:
            raise UserError(f"columns={name}: has shape {list(np.shape(units[name]))} in {where}; expected one value for each unit.")
    classes = {COLUMN: by_rules(given, units, n_units, "", f"the units of {where}")} if given else {}
    columns = {name: np.asarray(units[name]) for name in names}
    return {name: query.as_texts(each).astype(object) if each.dtype.kind in "OUS" else each for name, each in columns.items()} | classes


def check_matched(given: Mapping[str, str], counts: Mapping[str, int], prefix: str, contents: str) -> None:
    """Raises UserError if a rule is true for no unit: `counts` units by class; `contents` of its columns for the message."""
    for name, text in given.items():
        if not counts.get(name):
            there = f"; there, {contents}" if contents else ""
            raise UserError(f"{prefix}{name}={text}: is true for none of the units{there}.")


def of_network(recording: Recording, config: Config, n: int) -> CellClasses:
    """Classes of the n neurons that are trained on units of a recording.

    They come from the rules in the settings or from the column cell_class. Other units have a class drawn at random with the seed,
    within each region, such that network.fraction_excitatory of them are excitatory.

    Args:
      recording: the recording.
      config: the experiment.
      n: N, at most the number of units.

    Raises:
      UserError: a rule or the column cannot be used.
    """
    from rlsnet.model import rng

    classes, source = _recorded(recording, config)
    units, region = recording.choose(n, config.seed), recording.column("region")
    units = np.arange(n) if units is None else units
    fraction, drawn = config.network.fraction_excitatory, np.flatnonzero(classes[units] == "")
    excitatory = classes[units] == "excitatory"
    stream = rng.key(config.seed, rng.Purpose.CELL_CLASS)
    excitatory[drawn] = draw(np.zeros(len(drawn)) if region is None else region[units][drawn], fraction, stream)
    place = "within each region" if region is not None else "(the recording has no regions)"
    if not source:
        return CellClasses(excitatory, f"drawn at random {place}, {fraction:g} excitatory")
    words = f"{source}: {counted(Counter(classes[units].tolist()))}"
    return CellClasses(excitatory, words + (f", drawn at random {place}, {fraction:g} excitatory" if len(drawn) else ""))


def draw(region: np.ndarray, fraction: float, stream: Array) -> np.ndarray:
    """[n] bool, a random share of the neurons in each region; the number in each is within 1 of it, and that of all is rounded.

    Args:
      region: [n] names or numbers.
      fraction: the share, from 0 to 1.
      stream: [2] uint32, key of the random numbers.
    """
    import jax.numpy as jnp

    from rlsnet.model import rng

    n = len(region)
    order = np.lexsort((np.asarray(rng.bits(stream, jnp.arange(n, dtype=jnp.uint32))), region))
    chosen = np.zeros(n, bool)
    chosen[order] = np.diff(np.floor(np.arange(n + 1) * fraction + 0.5)) > 0
    return chosen


def counted(classes: Mapping[str, int]) -> str:
    """Numbers of units by class ("": unknown) in words."""
    known = ", ".join(f"{classes.get(name, 0):,} {name}" for name in NAMES)
    return known + (f", {unknown:,} unknown" if (unknown := classes.get("", 0)) else "")


def _recorded(recording: Recording, config: Config) -> tuple[np.ndarray, str]:
    """([units] str classes, empty where not known, and their source in words, empty if the recording has none)."""
    n, given = recording.n_units, rules(config.recording.excitatory, config.recording.inhibitory)
    if given:
        names = list(dict.fromkeys(name for text in given.values() for name in query.column_names(text)))
        table = {name: column for name in names if (column := recording.column(name)) is not None}
        for name in names:
            what = "recording." + " and recording.".join(given)
            query.require_column(name, recording.columns(), what, f"the units of {recording.path}")
        classes = by_rules(given, table, n, "recording.", f"the units of {recording.path}")
        contents = "; ".join(query.describe_columns(text, table) for text in given.values())
        check_matched(given, {name: int((classes == name).sum()) for name in given}, "recording.", contents)
        return classes, f"from {_words(given)}"
    column = recording.column(COLUMN)
    if column is None:
        return np.full(n, "", dtype="U10"), ""
    classes = np.char.lower(np.char.strip(column.astype(str)))
    classes[np.isin(classes, ("unknown", "nan", "none", "null"))] = ""
    if (other := np.flatnonzero(~np.isin(classes, (*NAMES, "")))).size:
        raise UserError(
            f"{recording.path}: unit/{COLUMN}[{other[0]}] is {column[other[0]]!r}; expected excitatory, inhibitory, or nothing where it is"
            " not known; recording.excitatory=RULE tells the classes from other words."
        )
    imported = rules(*(recording.group.attrs.get("import", {}).get(name) for name in NAMES))
    return classes, f"from {_words(imported)}" if imported else f"from the column {COLUMN} of the recording"


def _words(given: Mapping[str, str]) -> str:
    """Rules in words."""
    return joined(f"{name} if {text}" for name, text in given.items())
