"""Settings of `rlsnet import`, and presets of settings from YAML files."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rlsnet.config.arguments import from_settings, joined_flags
from rlsnet.config.compose import configs_dir
from rlsnet.config.quoting import in_quotes, path_of, unquoted
from rlsnet.config.schema import key, smoothing_kernel, smoothing_width
from rlsnet.errors import UserError, did_you_mean

FORMATS = ("nwb", "phy", "alf", "cellexplorer", "sonata", "rlsnet", "jld2", "mat", "arrays", "hdf5")  # in the order in which they are tried
TIME_UNITS = ("s", "ms", "us", "samples")
TIME_KINDS = ("spikes", "trials", "events", "bins")  # what may have a unit of time of its own


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of an import: which trials and units are used, and how spikes are averaged over trials."""

    format: str = key("file format of the sources; auto: detect the format of each source", default="auto", choices=("auto", *FORMATS))
    preset: str | None = key(
        "settings for a data set (map, ibl, allen, phy, steinmetz, steinmetz_alf) or of your own file LAB.yaml; settings on the command"
        " line override them",
        default=None,
        path=True,
    )
    align: str = key(
        "event that trials are aligned to, which is time 0: a column of the table of trials, or a series of events", default="start_time"
    )
    events: tuple[str, ...] | None = key(
        "other events whose times are stored and shown in figures, such as [cue_time, lick_time]: columns of the table of trials, or series"
        " of events",
        default=None,
    )
    window: tuple[float, float] | None = key(
        "start and end of the imported time of each trial, relative to the event of align; null: [-2, 1], or the whole time of sources"
        " with binned data",
        "s",
        default=None,
    )
    bin: float | None = key(
        "length of a time bin; training needs trial.learn_every of the same value; null: 20, or the bin of sources with binned data",
        "ms",
        default=None,
        above=0,
    )
    kernel: str = smoothing_kernel()
    sigma: float = smoothing_width()
    conditions: dict[str, str] | None = key(
        "expression that selects the trials of each condition, such as conditions.left=\"trial_instruction=='left'\"; null: one condition"
        " of all trials; conditions.left=null removes a condition of a preset. Conditions with new names replace all those of a preset",
        default=None,
    )
    trials: str | None = key(
        "expression that selects the trials of all conditions, such as \"outcome == 'hit' and early_lick == 'no early'\"", default=None
    )
    units: str | None = key("expression that selects units, such as \"classification == 'good' and presence_ratio > 0.9\"", default=None)
    regions: tuple[str, ...] | None = key(
        "brain regions whose units are imported, such as [ALM, 'Primary motor*']; null: all regions", default=None
    )
    region_column: str | None = key(
        "column of the table of units with their brain regions; null: the usual column of the format", default=None
    )
    excitatory: str | None = key(
        'expression that selects excitatory units, such as "waveform_duration > 0.4"; others are inhibitory, or unknown if inhibitory is'
        " given too; a unit without a value in the column is unknown",
        default=None,
    )
    inhibitory: str | None = key(
        "expression that selects inhibitory units, such as \"optotag in ['PV', 'Sst']\"; others are excitatory, or unknown if excitatory"
        " is given too",
        default=None,
    )
    columns: tuple[str, ...] | None = key(
        "other columns of the table of units to store, such as [waveform_duration], for example for recording.excitatory", default=None
    )
    min_rate: float | None = key("smallest mean rate of a unit that is imported", "Hz", default=None, least=0)
    max_rate: float | None = key("largest mean rate of a unit that is imported", "Hz", default=None, above=0)
    min_trials: int = key(
        "minimum number of trials per unit and condition; 0: also units without trials in a condition, whose rates are NaN there",
        default=10,
        least=0,
    )
    halves: bool = key("true: also store the rates of odd and of even trials, for noise ceilings and held-out scores", default=True)
    trial_counts: bool = key(
        "true: also store the binned spike counts of single trials, for bits per spike; 1 byte per bin, trial and unit before compression",
        default=True,
    )
    subsample: int | None = key(
        "number of units to import, drawn at random from the selected ones; null: all of them", default=None, least=1
    )
    seed: int = key("random seed for subsample", default=0, least=0)
    trials_table: str | None = key(
        "table of trials (CSV, TSV or parquet file), for formats without trials; for NWB, the name of a table of intervals",
        default=None,
        path=True,
    )
    labels: str | None = key(
        "cluster label of Phy that is stored as the column label of the units; null: group or, without it, KSLabel", default=None
    )
    variables: dict[str, str] | None = key(
        "names of arrays in the source files, such as variables.rate=psth variables.spike_times=st", default=None
    )
    time_unit: dict[str, str] | str | None = key(
        "unit of time in the sources: s, ms, us or samples (with variables.sample_rate=30000); time_unit.spikes, .trials, .events"
        " and .bins set the unit of only these; null: the unit that the file names, else s",
        default=None,
        rest="all",
    )
    axes: tuple[str, ...] | None = key(
        "order of the axes of binned data, such as [condition, unit, time] or [trial, time, unit]; null: as the file or the format says",
        default=None,
    )
    counts: bool | None = key(
        "true: binned data are spike counts, which are divided by the length of a bin; false: rates in Hz; null: as the file says",
        default=None,
    )
    external: bool = key(
        "true: also read data that an HDF5 file keeps in other files (external links and storage, virtual datasets)", default=False
    )
    overwrite: bool = key("true: replace an older recording at OUT.zarr", default=False)
    source: str | None = key("description of the data, stored in the attributes of the recording", default=None)

    @property
    def bin_ms(self) -> float:
        """Length of a bin of averaged spikes in ms."""
        return 20.0 if self.bin is None else self.bin

    @property
    def window_s(self) -> tuple[float, float]:
        """Start and end of the averaged time of spikes in s."""
        return (-2.0, 1.0) if self.window is None else self.window


def base(arguments: Sequence[str]) -> dict[str, Any]:
    """Settings of the preset named in the arguments of the command line; {} without a preset.

    Conditions in the arguments replace those of the preset: all of them, unless each has the name of one of the preset.
    """
    given = [text.partition("=")[::2] for text in joined_flags(Options, arguments) if "=" in text]
    names = [value for name, value in given if name == "preset"]
    chosen = path_of(names[-1]) if names else None
    values = {} if chosen is None else preset(chosen)
    own = {name.partition(".")[2] for name, _ in given if name.startswith("conditions.")}
    if not own <= set(values.get("conditions") or {}):
        values.pop("conditions", None)
    return values


def preset(name: str) -> dict[str, Any]:
    """Settings in configs/import/NAME.yaml, or in the YAML file of a user.

    Raises:
      UserError: no such preset, not YAML, or a setting that does not exist.
    """
    folder = configs_dir() / "import"
    is_file = name.endswith((".yaml", ".yml"))
    path = Path(name) if is_file else folder / f"{name}.yaml"
    if not path.is_file():
        shipped, what = sorted(p.stem for p in folder.glob("*.yaml")), "file" if is_file else "preset"
        expected = f"expected {', '.join(shipped)} or the path of a .yaml file"
        raise UserError(f"preset={name}: no such {what}; {expected}.{did_you_mean(name, shipped)}")
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"preset={name}: cannot be read as YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(values, dict):
        raise UserError(f"preset={name}: expected settings, one in each line, such as align: go_cue_time.")
    known = [field.name for field in dataclasses.fields(Options) if field.name != "preset"]
    for setting in map(str, values):
        if setting not in known:
            raise UserError(f"preset={name}: {setting} is not a setting of import.{did_you_mean(setting, known)}")
    return {str(setting): value for setting, value in values.items()}


def arguments_of(stored: Mapping[str, Any]) -> list[str]:
    """Arguments key=value, unquoted, that give an import its stored options; a preset that is not found any more is not named."""
    name, values = stored.get("preset"), {}
    with contextlib.suppress(UserError):
        values = preset(name) if name else {}
    base = {field.name: field.default for field in dataclasses.fields(Options)} | values
    found = [f"preset={_typed(name)}"] if values else []
    for setting, before in base.items():
        value = stored.get(setting, before)
        if setting == "preset" or value == (list(before) if isinstance(before, tuple) else before):
            continue
        if not isinstance(value, Mapping):
            found.append(f"{setting}={_typed(value)}")
            continue
        kept = before if isinstance(before, Mapping) and (setting != "conditions" or set(value) <= set(before)) else {}
        found += [f"{setting}.{each}={_typed(text)}" for each, text in value.items() if kept.get(each) != text]
        found += [f"{setting}.{each}=null" for each in kept if each not in value]
    return found


def _typed(value: Any) -> str:
    """A value as it is typed: a text as it is unless it would be read as something else, another value as YAML."""
    if not isinstance(value, str):
        return json.dumps(value)
    return in_quotes(value) if value in ("", "null") or unquoted(value) != value else value


@contextlib.contextmanager
def naming_preset(options: Options) -> Iterator[None]:
    """Context in which an error about a setting that comes from the preset says so, and how to change that setting."""
    try:
        yield
    except UserError as error:
        if options.preset is None or (setting := _setting_of_preset(str(error), options)) is None:
            raise
        is_filter = setting.startswith("conditions.") or setting in ("trials", "units", "regions", "region_column")
        change = f"{setting}=null leaves it out" if is_filter else f"{setting}=... replaces it"
        raise UserError(f"{error} This {setting} is that of preset={options.preset}; {change}.") from error


def _setting_of_preset(message: str, options: Options) -> str | None:
    """Setting that a message begins with, SETTING=VALUE, if the value is that of the preset; else None."""
    values = preset(options.preset) if options.preset else {}
    flat = {f"conditions.{name}": text for name, text in (values.pop("conditions", None) or {}).items()} | values
    found = [name for name, value in flat.items() if isinstance(value, str) and message.startswith(f"{name}={value}:")]
    return found[0] if found else None


def presets_of_format(format: str) -> list[str]:
    """Names of the presets that set a format."""
    return [path.stem for path in sorted((configs_dir() / "import").glob("*.yaml")) if preset(path.stem).get("format") == format]


def options_of(settings: Mapping[str, Any]) -> Options:
    """Options from plain values such as dict(preset="map", bin=10), with those of the preset; types and ranges are checked.

    Raises:
      UserError: a setting that does not exist, or a value outside its range.
    """
    options: Options = from_settings(Options, "import", settings, preset(settings["preset"]) if settings.get("preset") else {})
    return options
