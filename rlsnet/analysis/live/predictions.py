"""Predicted effects of perturbations in prediction.zarr, beside the effects that were observed.

Dimensions: K models, P perturbations, C conditions, U units.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rlsnet.analysis.live.sources import all_rounded, rounded, text
from rlsnet.data.statistics import correlation_known, mean_known
from rlsnet.io import zarr_store

FORMAT = "rlsnet-prediction"
MOST_SHOWN, MOST_CONDITIONS, MOST_MODELS = 24, 8, 16


def read(path: Path) -> dict[str, Any]:
    """The effects of prediction.zarr as means over units, those first about which the models differ most.

    Returns:
      trial: number of the trial after which they were written.
      models: number of models.
      n: number of perturbations, of which MOST_SHOWN are shown.
      perturbations: of each, name, disagreement in Hz (None: unknown), and its conditions: name, models [K] Hz, noise [K] Hz (s.d. due
        to few trials), observed Hz, resemblance (correlation of predicted and observed effects over units); None where unknown.

    Raises:
      UserError: an array is missing, damaged, or has another shape than the others.
    """
    group, where = zarr_store.open_group(path, "", FORMAT), str(path)
    stored = zarr_store.array(group, "effect", ["seed", "perturbation", "condition", "unit"], "f", where)
    n_models, n_perturbations, n_conditions, n_units = stored.shape
    shapes = {
        "noise": (n_models, n_perturbations, n_conditions),
        "observed": (n_perturbations, n_conditions, n_units),
        "disagreement": (n_perturbations,),
    }
    values = {name: _read(group, name, shape, where) for name, shape in shapes.items()} | {"effect": zarr_store.read(stored)}
    names, conditions = (
        [text(each) for each in zarr_store.texts(zarr_store.array(group, name, [size], "TUO", where))]
        for name, size in (("perturbation", n_perturbations), ("condition", n_conditions))
    )
    order = np.argsort(-values["disagreement"], kind="stable")  # NaN comes last
    return {
        "trial": int(group.attrs.get("trial", 0)),
        "models": n_models,
        "n": n_perturbations,
        "perturbations": [_perturbation(values, index, names[index], conditions) for index in order[:MOST_SHOWN]],
    }


def _read(group: Any, name: str, shape: tuple[int, ...], where: str) -> np.ndarray:
    """An array of real numbers; NaN if it is missing."""
    return zarr_store.read(zarr_store.array(group, name, shape, "f", where)) if name in group else np.full(shape, np.nan)


def _perturbation(values: dict[str, np.ndarray], index: int, name: str, conditions: list[str]) -> dict[str, Any]:
    """One perturbation; its predicted effect is the mean over the units whose effect was observed or, where none was, over all."""
    rows = []
    for condition, of_condition in enumerate(conditions[:MOST_CONDITIONS]):
        effect, observed = (
            values["effect"][:MOST_MODELS, index, condition].astype(float),
            values["observed"][index, condition].astype(float),
        )
        known = np.isfinite(observed)
        resemblance = correlation_known(mean_known(effect), observed) if known.any() else np.nan
        rows.append(
            {
                "name": of_condition,
                "models": all_rounded(mean_known((effect[:, known] if known.any() else effect).T)),
                "noise": all_rounded(values["noise"][:MOST_MODELS, index, condition]),
                "observed": rounded(mean_known(observed)),
                "resemblance": rounded(resemblance),
            }
        )
    return {"name": name, "disagreement": rounded(values["disagreement"][index]), "conditions": rows}
