"""PSTHs of data and model in online.zarr, and what is shown of them: one unit, a heat map of all, a table by region.

Dimensions: C conditions, M bins of time, U units.
"""

from __future__ import annotations

import base64
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from rlsnet.analysis.live.sources import all_rounded, rounded, text
from rlsnet.data.statistics import correlation_known, mean_known
from rlsnet.errors import UserError
from rlsnet.io import zarr_store

FORMAT = "rlsnet-online"
UNITS_AT_ONCE = 4096  # whose correlations are computed together
MOST_ROWS, MOST_COLUMNS = 200, 200  # of a heat map
MOST_POINTS = 12_000  # of the PSTHs of one unit, over all conditions
MOST_FOUND = 60  # units in an answer to a search
MOST_REGIONS, MOST_DOTS, MOST_CONDITIONS = 60, 400, 60
UNKNOWN = 255  # level of a heat map where nothing is known; others are 0 to 254
NO_REGION = "no region"


@dataclasses.dataclass(frozen=True)
class Rates:
    """PSTHs of data and model, and scores of the units.

    trial: number of the trial after which they were written.
    conditions: [C] names.
    n_trials: [C] of the data.
    time: [M] s.
    ids: [U] names of the units.
    regions: [U] names, or None.
    data: [C, M, U] Hz, NaN where unknown.
    model: [C, M, U] Hz, NaN where not simulated yet.
    correlation: [C, U] of data and model over time.
    ceiling: [C, U] noise ceiling, the correlation that the true rates would have with the data.
    """

    trial: int
    conditions: list[str]
    n_trials: list[int]
    time: np.ndarray
    ids: list[str]
    regions: list[str] | None
    data: np.ndarray
    model: np.ndarray
    correlation: np.ndarray
    ceiling: np.ndarray

    @property
    def score(self) -> np.ndarray:
        """[U] correlation of data and model, mean over conditions."""
        return mean_known(self.correlation)


def read(path: Path) -> Rates | None:
    """The content of online.zarr; None if there is no unit yet.

    Raises:
      UserError: an array is missing, damaged, or has another shape than the others.
    """
    group, where = zarr_store.open_group(path, "", FORMAT), str(path)
    if "unit/id" not in group:
        return None
    data = zarr_store.array(group, "data", ["condition", "time", "unit"], "f", where)
    n_conditions, n_bins, n_units = data.shape
    if 0 in (n_conditions, n_bins):
        raise UserError(f"{where}: data has {n_conditions} conditions and {n_bins} bins of time; expected one of each at least.")

    def values(name: str, shape: list[int], kind: str = "fiu") -> np.ndarray:
        return zarr_store.read(zarr_store.array(group, name, shape, kind, where))

    def names(name: str, size: int) -> list[str]:
        return [text(each) for each in zarr_store.texts(zarr_store.array(group, name, [size], "TUO", where))]

    recorded, model = zarr_store.read(data), values("model", [n_conditions, n_bins, n_units], "f")
    reliability = values("reliability", [n_conditions, n_units]) if "reliability" in group else np.full((n_conditions, n_units), np.nan)
    return Rates(
        int(group.attrs.get("trial", 0)),
        names("condition", n_conditions),
        [int(each) for each in values("n_trials", [n_conditions], "iu")],
        values("time", [n_bins]).astype(float),
        names("unit/id", n_units),
        [each or NO_REGION for each in names("unit/region", n_units)] if "unit/region" in group else None,
        recorded,
        model,
        correlations(recorded, model),
        noise_ceiling(reliability),
    )


def correlations(data: np.ndarray, model: np.ndarray) -> np.ndarray:
    """[C, U] correlation of data and model [C, M, U] over time, NaN where one is unknown or does not vary."""
    found = np.full((data.shape[0], data.shape[2]), np.nan)
    for condition in range(data.shape[0]):
        for start in range(0, data.shape[2], UNITS_AT_ONCE):
            part = slice(start, start + UNITS_AT_ONCE)
            found[condition, part] = correlation_known(*(each[condition, :, part].astype(float) for each in (data, model)))
    return found


def noise_ceiling(reliability: np.ndarray) -> np.ndarray:
    """sqrt(2r/(1 + r)) for correlations r of odd and even trials, 0 where r is below 0 (Hsu, Borst & Theunissen, Network 15:91, 2004)."""
    r = np.clip(reliability.astype(float), 0, 1)
    return np.sqrt(2 * r / (1 + r))


def summary(rates: Rates) -> dict[str, Any]:
    """What the page shows without a question: conditions, units to choose from, medians, regions, dots of a scatter plot."""
    score, ceiling = rates.score, mean_known(rates.ceiling)
    ranked = np.argsort(-score, kind="stable")[: int(np.isfinite(score).sum())]  # NaN comes last
    chosen = {"best": 0, "median": len(ranked) // 2, "worst": len(ranked) - 1}
    both = ranked[np.isfinite(ceiling[ranked])]
    dots = both[np.unique(np.linspace(0, len(both) - 1, MOST_DOTS).astype(int))] if len(both) else both
    return {
        "trial": rates.trial,
        "conditions": rates.conditions[:MOST_CONDITIONS],
        "n_units": len(rates.ids),
        "n_scored": len(ranked),
        "n_points": len(rates.time) * len(rates.conditions),
        "chosen": {name: int(ranked[rank]) for name, rank in chosen.items()} if len(ranked) else {},
        "correlation": rounded(_median(score)),
        "ceiling": rounded(_median(ceiling)),
        "regions": [] if rates.regions is None else by_region(rates, score, ceiling),
        "dots": [[int(unit), rounded(ceiling[unit]), rounded(score[unit])] for unit in dots],
    }


def by_region(rates: Rates, score: np.ndarray, ceiling: np.ndarray) -> list[dict[str, Any]]:
    """Number of units, medians of correlation [U] and ceiling [U], and mean rates of the regions, those with most units first."""
    names = np.array(rates.regions)
    known, index, sizes = np.unique(names, return_inverse=True, return_counts=True)
    means = {
        name: mean_known(block.reshape(len(rates.conditions) * len(rates.time), len(names)))
        for name, block in (("data_hz", rates.data), ("model_hz", rates.model))
    }
    rows = []
    for region in np.argsort(-sizes, kind="stable")[:MOST_REGIONS]:
        of_it = index == region
        row = {"name": str(known[region]), "units": int(sizes[region])}
        row |= {"correlation": rounded(_median(score[of_it])), "ceiling": rounded(_median(ceiling[of_it]))}
        rows.append(row | {name: rounded(mean_known(values[of_it])) for name, values in means.items()})
    return rows


def _median(values: np.ndarray) -> float:
    """Median of the values that are known; NaN if none is."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else np.nan


def unit(rates: Rates, number: int) -> dict[str, Any]:
    """PSTHs of a unit, its name and scores; raises UserError if there is none of this number."""
    if not 0 <= number < len(rates.ids):
        raise UserError(f"unit={number}: no such unit; expected 0 to {len(rates.ids) - 1}.")
    shown = min(len(rates.conditions), MOST_CONDITIONS)
    every = -(-len(rates.time) * shown // MOST_POINTS)  # bins that are one point
    blocks = [all_rounded(row) for name in ("data", "model") for row in _binned(getattr(rates, name)[:shown, :, number], every)]
    return {
        **_about(rates, number),
        "time": all_rounded(_binned(rates.time[None], every)[0]),
        "data": blocks[:shown],
        "model": blocks[shown:],
        "correlations": all_rounded(rates.correlation[:shown, number]),
        "ceilings": all_rounded(rates.ceiling[:shown, number]),
    }


def _about(rates: Rates, number: int) -> dict[str, Any]:
    """Number, name, region and correlation of a unit."""
    region = None if rates.regions is None else rates.regions[number]
    return {"unit": number, "id": rates.ids[number], "region": region, "correlation": rounded(mean_known(rates.correlation[:, number]))}


def _binned(values: np.ndarray, every: int) -> np.ndarray:
    """[..., ceil(M / every)] means of `every` neighbours of values [..., M], of those that are known."""
    if every <= 1:
        return np.asarray(values, float)
    padded = np.pad(values.astype(float), [(0, 0)] * (values.ndim - 1) + [(0, -values.shape[-1] % every)], constant_values=np.nan)
    return mean_known(np.moveaxis(padded.reshape(*values.shape[:-1], -1, every), -1, 0))


def find(rates: Rates, search: str) -> dict[str, Any]:
    """Units whose name or region contains a text, upper and lower case alike: how many, and the first of them."""
    wanted = search.strip().lower()
    names = (f"{name}\0{'' if rates.regions is None else rates.regions[index]}".lower() for index, name in enumerate(rates.ids))
    found = [index for index, name in enumerate(names) if wanted in name]
    return {"n": len(found), "units": [_about(rates, index) for index in found[:MOST_FOUND]]}


def heat_map(rates: Rates, condition: int) -> dict[str, Any]:
    """Data and model of all units in a condition, in fractions of the range of each unit in the data of all conditions.

    Units are sorted by the time of the peak in the data; with more than MOST_ROWS, neighbours are averaged in one row.

    Returns:
      units: [rows] number of the unit in the middle of each row; per_row: units of a row, at most; columns: number of columns;
      start, end: s; data, model: [rows, columns] levels of 0 to 254, or UNKNOWN, one byte each, in base64.

    Raises:
      UserError: there is no such condition.
    """
    if not 0 <= condition < len(rates.conditions):
        raise UserError(f"condition={condition}: no such condition; expected 0 to {len(rates.conditions) - 1}.")
    known = np.flatnonzero(np.isfinite(rates.data[condition]).any(axis=0))
    order = known[np.argsort(np.argmax(np.nan_to_num(rates.data[condition][:, known], nan=-np.inf), axis=0), kind="stable")]
    rows = min(len(order), MOST_ROWS)
    edges = np.linspace(0, len(order), rows + 1).astype(int)
    groups = [order[start:end] for start, end in zip(edges[:-1], edges[1:], strict=True)]
    every = -(-len(rates.time) // MOST_COLUMNS)
    levels = {name: _levels(rates, getattr(rates, name)[condition], groups, every) for name in ("data", "model")}
    return {
        "condition": condition,
        "n_units": len(order),
        "units": [int(group[len(group) // 2]) for group in groups],
        "per_row": max(map(len, groups), default=0),
        "columns": -(-len(rates.time) // every),
        "start": rounded(rates.time[0]),
        "end": rounded(rates.time[-1]),
        **{name: base64.b64encode(each.tobytes()).decode() for name, each in levels.items()},
    }


def _levels(rates: Rates, block: np.ndarray, groups: list[np.ndarray], every: int) -> np.ndarray:
    """[rows, columns] levels of a heat map of rates `block` [M, U], each row the mean over a group of units."""
    rows = []
    for group in groups:
        everywhere = rates.data[:, :, group].astype(float)
        low, high = (reduce(reduce(everywhere, axis=0), axis=0) for reduce in (np.fmin.reduce, np.fmax.reduce))
        scaled = (block[:, group] - low) / np.where(high > low, high - low, 1)
        rows.append(_binned(mean_known(scaled.T)[None], every)[0])
    values = np.array(rows, float).reshape(len(rows), -(-len(block) // every))
    return np.where(np.isfinite(values), np.round(np.clip(np.nan_to_num(values), 0, 1) * (UNKNOWN - 1)), UNKNOWN).astype(np.uint8)
