"""`rlsnet VERB --help` and `rlsnet info`: the settings, and what is in a folder, as tables."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlsnet import config as schema
from rlsnet.config import UserError
from rlsnet.convert import from_dict, variants

SECTIONS = {
    "train": None,
    "simulate": None,
    "test": ("run", "progress", "test", "engine"),
    "plot": ("run",),
    "info": (),
}


def _default(values: dict[str, Any], key: str) -> Any:
    for part in key.split("."):
        values = values.get(part, {}) if isinstance(values, dict) else {}
    return "" if isinstance(values, dict) else "null" if values is None else str(values).lower() if isinstance(values, bool) else values


def _rows(cls: type, values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(key, default, meaning) of every setting; of a group's variants, the default one's."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        key = prefix + field.name
        options = variants(hints[field.name])
        if options:
            yield from _rows(options[0], values, f"{key}.")
        else:
            unit = f" [{field.metadata['unit']}]" if field.metadata["unit"] else ""
            choices = f" ({', '.join(map(str, field.metadata['choices']))})" if "choices" in field.metadata else ""
            yield key, str(_default(values, key)), field.metadata["help"] + choices + unit


def help_text(verb: str, what: str, configs: Path) -> str:
    """Usage of a verb: the groups with their options, and every setting with default, meaning and unit."""
    import yaml

    if verb == "info":
        return f"rlsnet info [PATH]: {what}; without a path: the versions and devices here."
    values = yaml.safe_load((configs / "config.yaml").read_text())
    groups = sorted(p for p in configs.iterdir() if p.is_dir() and p.name != "hydra")
    for group in groups:
        names = sorted(p.stem for p in group.glob("*.yaml"))
        first = next((d[group.name] for d in values["defaults"] if isinstance(d, dict) and group.name in d), names[0])
        if group.name != "config":
            values[group.name] = yaml.safe_load((group / f"{first}.yaml").read_text())
    sections = SECTIONS[verb]
    lines = [f"rlsnet {verb}: {what}", "", f"Usage: rlsnet {verb} [key=value ...]"]
    if sections is None:
        lines += ["", "Groups:"]
        lines += [f"  {group.name}={'|'.join(sorted(p.stem for p in group.glob('*.yaml')))}" for group in groups]
        lines += ["", "Also: -m with key=a,b sweeps; --config-dir FOLDER adds your own config/*.yaml; --cfg job shows the result;"]
        lines += ["hydra.run.dir=FOLDER names the run folder; --hydra-help says more."]
        lines += ["A number may come with a unit of its own, there and in YAML: trial.dt='100 us', target.period='1 s'."]
    lines += ["", "Settings, with the defaults of config=sinusoid:"]
    rows = [row for row in _rows(schema.Config, values) if sections is None or row[0].split(".")[0] in sections]
    width, default_width = max(len(row[0]) for row in rows), max(len(row[1]) for row in rows)
    lines += [f"  {key:<{width}}  {default:<{default_width}}  {meaning}" for key, default, meaning in rows]
    return "\n".join(lines)


def info(path: str | None) -> None:
    """Prints a table on what is at `path`: a run folder, or a store of ours."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if path is None:
        title, rows = "rlsnet", _here()
    elif not Path(path).exists():
        raise UserError(f"info {path}: no such folder; should be a run, network.zarr, recording.zarr, checkpoint or test.zarr.")
    elif (Path(path) / "config.yaml").exists():
        title, rows = f"run {path}", _run_rows(path)
    else:
        title, rows = path, _store_rows(path)
    table = Table("", "", title=title, show_header=False, title_justify="left")
    for name, value in rows:
        table.add_row(name, escape(str(value)))
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)


def _here() -> Iterator[tuple[str, Any]]:
    import jax

    from rlsnet.kernels import obstacle
    from rlsnet.memory import available
    from rlsnet.store import versions
    from rlsnet.zarrio import cache_dir

    yield from versions().items()
    yield "devices", ", ".join(f"{d.device_kind} ({d.platform})" for d in jax.devices())
    yield "memory free", f"{available()[0] / 1e9:.1f} GB"
    yield "CPU kernels", f"xla, the slower ones: {missing}" if (missing := obstacle()) else "native"
    yield "cache", cache_dir()
    if jax.default_backend() == "cpu" and Path("/proc/driver/nvidia/version").exists():
        yield "warning", "there is an NVIDIA GPU, but JAX has no CUDA support: pip install 'rlsnet[cuda13]'"


def _bytes(path: Path) -> str:
    """The size of a folder on disk."""
    return f"{sum(f.stat().st_size for f in path.rglob('*') if f.is_file()) / 1e6:,.1f} MB"


def _run_rows(path: str) -> Iterator[tuple[str, Any]]:
    from rlsnet import zarrio
    from rlsnet.store import Run

    run = Run.open(path, "info")
    config, metrics = from_dict(run.saved_config()), run.read_metrics()
    yield (
        "target",
        f"{config.target.name}, trial of {config.trial.stim_off + config.trial.duration:g} ms, {config.trial.n_points} learning points",
    )
    yield "progress", f"{len(metrics)} of {config.train.iterations} iterations"
    if metrics:
        known = [m["correlation"] for m in metrics if m["correlation"] is not None]
        last = metrics[-1]
        yield "seconds an iteration", f"{sorted(m['seconds'] for m in metrics)[len(metrics) // 2]:.2f} (median)"
        if known:
            yield "correlation", f"{known[-1]:.3f} last, {max(known):.3f} best"
        for name, key in (("excitatory", "rate_exc_hz"), ("inhibitory", "rate_inh_hz")):
            if last[key] is not None:
                yield f"rate, {name}", f"{last[key]:.2f} Hz"
    yield "checkpoints", ", ".join(map(str, run.iterations())) or "none"
    if run.network.exists():
        yield from _store_rows(str(run.network))
    if run.test.exists():
        test = zarrio.open_group(run.test, "info", "rlsnet-test")
        yield "test", f"{test.attrs['trials']} trials per condition with the weights of iteration {test.attrs['iteration']}"
    yield "on disk", _bytes(run.path)


def _store_rows(path: str) -> Iterator[tuple[str, Any]]:
    import zarr

    try:
        group = zarr.open_group(path, mode="r")
    except Exception as error:
        raise UserError(f"info {path}: not a run folder and not a Zarr store.") from error
    kind = group.attrs.get("format", "recording" if "rate" in group else "unknown")
    yield "format", f"{kind} {group.attrs.get('version', '')}".strip()
    for name in ("source", "bin_ms", "iteration", "correlation", "trials"):
        if name in group.attrs:
            yield name, group.attrs[name]
    if "versions" in group.attrs:
        yield "made with", ", ".join(f"{k} {v}" for k, v in dict(group.attrs["versions"]).items())
    for name, array in sorted(group.members(max_depth=None)):
        if isinstance(array, zarr.Array):
            dims = getattr(array.metadata, "dimension_names", None) or [""] * array.ndim
            yield name, f"{array.dtype} [{', '.join(f'{d} {s:,}'.strip() for d, s in zip(dims, array.shape, strict=True))}]"
