"""Selection of neurons by class, region, index or range, as in test.neurons and perturb.neurons."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

import numpy as np

from rlsnet.errors import UserError, did_you_mean


def select_neurons(
    selection: str | None, excitatory: np.ndarray, region: np.ndarray | None = None, key: str = "test.neurons"
) -> np.ndarray:
    """[n] int, the selected neurons in ascending order.

    Args:
      selection: None for all neurons, or terms: an index, a range such as 0:100, exc, inh or region:NAME, in which * matches any
        characters. A comma joins the neurons of two terms, & keeps those that match both and binds more tightly.
      excitatory: [N] bool.
      region: [N] names of regions, or None if they are not known.
      key: of the setting, for messages.

    Raises:
      UserError: if a term matches no neuron or region, or lies beyond the network.
    """
    n = len(excitatory)
    if selection is None:
        return np.arange(n)
    selected = np.zeros(n, bool)
    for terms in re.split(r",(?=\s*(?:region:|exc|inh|\d|:))", selection):  # the name of a region may contain a comma
        selected |= np.logical_and.reduce([_matching(term.strip(), excitatory, region, key) for term in terms.split("&")])
    if not selected.any():
        raise UserError(f"{key}={selection}: matches none of the {n} neurons; expected at least one, such as 0:100.")
    return np.flatnonzero(selected)


def _matching(term: str, excitatory: np.ndarray, region: np.ndarray | None, key: str) -> np.ndarray:
    """[N] bool, the neurons that match one term of a selection."""
    n = len(excitatory)
    if term in ("exc", "inh"):
        return excitatory == (term == "exc")
    if term.startswith("region:"):
        return _in_region(term, region, key)
    start, colon, stop = term.partition(":")
    end = int(stop or n) if colon else int(start) + 1
    if end > n:
        expected = f"a range within 0:{n}" if colon else f"0 to {n - 1}"
        raise UserError(f"{key}={term}: reaches beyond the {n} neurons; expected {expected}.")
    return (np.arange(n) >= int(start or 0)) & (np.arange(n) < end)


def _in_region(term: str, region: np.ndarray | None, key: str) -> np.ndarray:
    """[N] bool, the neurons in the regions that match `term`, region:NAME."""
    if region is None:
        raise UserError(f"{key}={term}: the regions are not known; expected a selection without regions, or a recording with unit/region.")
    names = np.unique(region.astype(str))
    matching = [name for name in names if fnmatchcase(name, term.removeprefix("region:"))]
    if not matching:
        expected = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        near = did_you_mean(term.removeprefix("region:"), names.tolist(), "region:")
        raise UserError(f"{key}={term}: no such region; expected {expected}.{near}")
    return np.isin(region.astype(str), matching)
