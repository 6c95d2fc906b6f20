"""The settings of `rlsnet import`, which every reader of a format gets, and presets of them out of YAML files."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from rlsnet.composition import configs_dir
from rlsnet.config import UserError, key

FORMATS = ("nwb", "phy", "alf", "jld2", "mat", "arrays", "hdf5")  # in the order in which they are tried
KERNELS = ("gaussian", "boxcar", "causal_exp", "none")


@dataclasses.dataclass(frozen=True)
class Options:
    """What is taken out of recordings and how it is averaged."""

    format: str = key("of the sources; auto: what each looks like", default="auto", choices=("auto", *FORMATS))
    preset: str | None = key("settings of a project (map, ibl, allen, phy) or of a file LAB.yaml; others given win over them", default=None)
    align: str = key("column of the trials, or series of events, at which time is 0", default="start_time")
    window: tuple[float, float] = key("start and end of the time taken, from that event", "s", default=(-2.0, 1.0))
    bin: float = key("length of a bin, later trial.learn_every", "ms", default=20.0, above=0)
    kernel: str = key("that smooths rates over time", default="gaussian", choices=KERNELS)
    sigma: float = key("of the kernel: standard deviation, half width (boxcar) or time constant (causal_exp)", "ms", default=50.0, above=0)
    conditions: dict[str, str] | None = key(
        "trials of each condition, conditions.left=\"trial_instruction=='left'\"; null: one, called all", default=None
    )
    trials: str | None = key("filter of all trials, such as \"outcome == 'hit' and early_lick == 'no early'\"", default=None)
    units: str | None = key("filter of units, such as \"classification == 'good' and presence_ratio > 0.9\"", default=None)
    regions: tuple[str, ...] | None = key("regions taken, such as [ALM, 'Primary motor*']; null: all", default=None)
    region_column: str | None = key("column of the units with their regions; null: as the format has it", default=None)
    min_rate: float | None = key("least mean rate of a unit", "Hz", default=None, least=0)
    max_rate: float | None = key("largest mean rate of a unit", "Hz", default=None, above=0)
    min_trials: int = key("least trials of a unit in every condition; with 0, a condition that lacks trials is NaN", default=10, least=0)
    halves: bool = key("also keep the rates of odd and of even trials, for a noise ceiling and held-out scores", default=True)
    subsample: int | None = key("take this many of the units that are left, at random; null: all", default=None, least=1)
    seed: int = key("of that draw", default=0, least=0)
    trials_table: str | None = key("CSV, TSV or parquet file of trials for formats without; nwb: a table of intervals", default=None)
    labels: str | None = key("phy: which label of clusters is the unit column label; null: group, else KSLabel", default=None)
    variables: dict[str, str] | None = key(
        "what arrays are called in the file, such as variables.rate=psth variables.spike_times=st", default=None
    )
    axes: tuple[str, ...] | None = key("of ready-made rates, such as [condition, unit, time]; null: as the format has them", default=None)
    source: str | None = key("where the data come from, in words, for the store's attributes", default=None)


def base(arguments: Sequence[str]) -> dict[str, Any]:
    """The settings of the preset that the arguments of the command line name, or none."""
    named = [text.partition("=")[2] for text in arguments if text.startswith("preset=")]
    return preset(named[-1]) if named and named[-1] not in ("", "null") else {}


def preset(name: str) -> dict[str, Any]:
    """The settings of configs/import/NAME.yaml, or of a file of the user's."""
    folder = configs_dir() / "import"
    own = name.endswith((".yaml", ".yml"))
    path = Path(name) if own else folder / f"{name}.yaml"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise UserError(f"preset={name}: no such {'file' if own else 'preset'}; expected {shipped} or the path of a .yaml file.")
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"preset={name}: cannot be read as YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(values, dict):
        raise UserError(f"preset={name}: should hold settings, a line each, such as align: go_cue_time.")
    known = [field.name for field in dataclasses.fields(Options) if field.name != "preset"]
    for setting in map(str, values):
        if setting not in known:
            close = difflib.get_close_matches(setting, known, 1)
            raise UserError(f"preset={name}: {setting} is no setting of import.{f' Did you mean {close[0]}?' if close else ''}")
    return {str(setting): value for setting, value in values.items()}
