"""Contents of a run, network, recording, checkpoint or test as a table, for `rlsnet info`. Nothing here computes on a GPU."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import zarr
from rich.table import Table
from rich.text import Text

from rlsnet import effects, evaluate, memory, network, recordings, resources, store, summary, tables, zarrio
from rlsnet.config import Config, UserError
from rlsnet.formatting import byte_size, console, disk_size, duration
from rlsnet.store import Run

Rows = Iterator[tuple[str, Any]]

MAX_WIRING_BYTES = 2**30  # a larger list of synapses is not read to count inputs and outputs
TABLE_WIDTH = 96  # of a table within the table


def show(path: str | None) -> None:
    """Prints the contents of a run folder or a store as a table.

    Args:
      path: of the run or store; None for the versions and devices of this installation.

    Raises:
      UserError: there is no run or store at the path.
    """
    if path is None:
        title, rows = "rlsnet", _installation_rows()
    elif not Path(path).exists():
        raise UserError(f"info {path}: no such folder; expected a run, network.zarr, recording.zarr, checkpoint or test.zarr.")
    else:
        is_run = (Path(path) / "config.yaml").exists()
        title, rows = (f"run {path}", _run_rows(Run.open(path, "info"))) if is_run else (path, store_rows(path))
    table = Table("", "", title=Text(title), show_header=False, title_justify="left")
    table.columns[1].overflow = "fold"
    with contextlib.nullcontext() if path is None else jax.default_device("cpu"):
        for name, value in rows:
            table.add_row(Text(name), Text(str(value)))
    console().print(table)


def _installation_rows() -> Rows:
    """Versions, devices, memory and kernels of this installation."""
    from rlsnet.kernels import build_error

    yield from store.versions().items()
    yield "devices", ", ".join(f"{d.device_kind} ({d.platform})" for d in jax.devices())
    yield "memory free", byte_size(memory.available()[0])
    yield "CPU kernels", f"xla, the slower ones: {missing}" if (missing := build_error()) else "native"
    yield "cache", zarrio.cache_dir()
    if jax.default_backend() == "cpu" and Path("/proc/driver/nvidia/version").exists():
        yield "warning", "there is an NVIDIA GPU, but JAX has no CUDA support: pip install 'rlsnet[cuda13]'"


def version_rows(attributes: Any) -> Rows:
    """Versions of the software that made a store."""
    if "versions" in attributes:
        yield "made with", ", ".join(f"{name} {version}" for name, version in dict(attributes["versions"]).items())


def _run_rows(run: Run) -> Rows:
    """Target, network, progress, checkpoints, resources, test and perturbations of a run."""
    config = run.config()
    trial, done = config.trial, run.iterations()
    length = trial.stim_off + trial.duration
    yield "target", f"{config.target.name}, trial of {length:g} ms, {trial.n_points} learning points, seed {config.seed}"
    if run.network.exists():
        group = zarrio.open_group(run.network, "info", network.FORMAT)
        yield from _size_rows(run, config, group)
        yield from (row for row in network_rows(group, str(run.network), degrees=False) if row[0] != "neurons")
    yield from _progress_rows(run, config)
    best = run.best()
    kept = [str(k) for k in done] if len(done) < 10 else [*map(str, done[:3]), "...", *map(str, done[-3:])]
    kept += [f"best of iteration {int(best.name.split('.')[0])}"] if best else []
    yield "checkpoints", ", ".join(kept) or "none"
    if done:
        yield from version_rows(zarrio.open_group(run.checkpoint("last"), "info", store.FORMAT).attrs)
    yield from _resource_rows(run)
    if run.test.exists():
        rows = dict(test_rows(zarrio.open_group(run.test, "info", evaluate.FORMAT), str(run.test)))
        yield "test", f"{rows['trials']}, current correlation {rows.get('current correlation')}"
        yield from ((name, rows[name]) for name in ("compared with", "scores") if name in rows)
    yield from _perturbation_rows(run)
    yield "on disk", disk_size(run.path)


def _perturbation_rows(run: Run) -> Rows:
    """Each stored perturbation and its effect on the mean rate of the neurons that it was not applied to."""
    test = zarrio.open_group(run.test, "info", evaluate.FORMAT) if run.test.exists() else None
    for label, path in run.perturbed_results().items():
        words = effects.description(group := zarrio.open_group(path, "info", evaluate.FORMAT))
        if test is not None:
            effect = effects.PerturbationEffect.from_tests(test, group)
            control, perturbed = effect.rate(~effect.perturbed, 1)
            if np.isfinite(control):
                words += f"; the other neurons fire at {perturbed:.2f} Hz then, at {control:.2f} Hz without"
            words += "".join(f"; test.zarr has {each}" for each in effects.differences(test, group))
        yield f"perturbed {label}", words


def _size_rows(run: Run, config: Config, group: zarr.Group) -> Rows:
    """Sizes N, L, S, C and M of `network`, and the memory plan of training: the stored one, or for an older run a new one."""
    of_run = dataclasses.replace(config.network, load=str(run.network))
    of_engine = dataclasses.replace(config.engine, kernels="fixed_shape")  # needs no compiler here
    conditions = group["target"].shape[0] if "target" in group else 1
    sizes = memory.Sizes.of(dataclasses.replace(config, network=of_run, engine=of_engine), None, conditions)
    yield "sizes", f"N {sizes.n:,}, L {sizes.inputs}, S {sizes.group_size}, C {sizes.conditions}, M {sizes.points}"
    parts = dict(group.attrs.get(memory.PLAN) or memory.plan(sizes, learning=True))
    yield "memory of training", f"P {byte_size(parts.get('P', 0))}, about {byte_size(sum(parts.values()))} in all"


def _progress_rows(run: Run, config: Config) -> Rows:
    """Iterations done and left, their duration, correlation and rates."""
    metrics, total = run.read_metrics(), config.train.iterations
    seconds = [m["seconds"] for m in metrics]
    left = f", {duration(float(np.median(seconds[-10:])) * (total - len(metrics)))} left" if 0 < len(metrics) < total else ""
    yield "progress", f"{len(metrics)} of {total} iterations{left}"
    if not metrics:
        return
    yield "an iteration", f"{np.median(seconds):.3g} s (median)"
    known = [m for m in metrics if m["correlation"] is not None]
    if known:
        best: Any = max(known, key=lambda m: m["correlation"])
        if (kept := run.best()) is not None:  # of several conditions, the mean over a turn of all
            best = zarrio.open_group(kept, "info", store.FORMAT).attrs
        yield "correlation", f"{known[-1]['correlation']:.3f} last, {best['correlation']:.3f} best, at iteration {best['iteration']}"
    rates = [
        f"{metrics[-1][f'rate_{name[:3]}_hz']:.2f} Hz {name}" for name in ("excitatory", "inhibitory") if metrics[-1][f"rate_{name[:3]}_hz"]
    ]
    yield "rates", ", ".join(rates) or "none"


def _resource_rows(run: Run) -> Rows:
    """Peak memory and mean use of processor and GPUs, a row for each command."""
    lines = resources.read(run.resources)
    for verb in dict.fromkeys(line.get("verb", "") for line in lines):
        mine = [line for line in lines if line.get("verb", "") == verb]
        words = [f"peak memory {byte_size(1e6 * max(line['memory_peak_mb'] for line in mine))}"]
        for key, name in (("cpu_percent", "CPU"), ("gpu_percent", "GPU")):
            if values := [line[key] for line in mine if key in line]:
                words.append(f"mean {name} {np.mean([np.mean(v) for v in values]):.0f} %")
        yield f"resources of {verb}", ", ".join(words)


def store_rows(path: str) -> Rows:
    """Format and contents of a store, and the type and shape of each of its arrays."""
    try:
        group = zarr.open_group(path, mode="r")
    except Exception as error:
        raise UserError(f"info {path}: not a run folder and not a Zarr store.") from error
    kind = str(group.attrs.get("format", recordings.FORMAT if recordings.TARGETS.keys() & set(group) else "unknown"))
    yield "format", f"{kind} {group.attrs.get('version', '')}".strip()
    if "source" in group.attrs:
        yield "source", group.attrs["source"]
    contents: dict[str, Callable[[zarr.Group, str], Rows]] = {
        network.FORMAT: network_rows,
        store.FORMAT: _checkpoint_rows,
        evaluate.FORMAT: test_rows,
        recordings.FORMAT: _recording_rows,
    }
    if kind in contents:
        yield from contents[kind](group, path)
    yield from version_rows(group.attrs)
    yield "on disk", disk_size(Path(path))
    for name, array in sorted(group.members(max_depth=None)):
        if isinstance(array, zarr.Array):
            dims = getattr(array.metadata, "dimension_names", None) or [""] * array.ndim
            yield name, f"{array.dtype} [{', '.join(f'{d} {s:,}'.strip() for d, s in zip(dims, array.shape, strict=True))}]"


def _class_counts(excitatory: np.ndarray) -> str:
    """Numbers of excitatory and inhibitory neurons."""
    return f"{excitatory.sum():,} excitatory, {(~excitatory).sum():,} inhibitory"


def network_rows(group: zarr.Group, where: str, degrees: bool = True) -> Rows:
    """Numbers of neurons and synapses; with `degrees` also the inputs and outputs of a neuron."""
    excitatory = zarrio.read(zarrio.array(group, "neuron/excitatory", ["N"], "b", where))
    n = len(excitatory)
    yield "neurons", f"{n:,}: {_class_counts(excitatory)}"
    if "static/indptr" in group:
        out = np.diff(zarrio.read(zarrio.array(group, "static/indptr", [n + 1], "iu", where)).astype(np.int64))
        yield "static synapses", f"{out.sum():,}"
        if degrees:
            post = zarrio.array(group, "static/post", ["edges"], "iu", where) if "static/stream" not in group else None
            counted = post is not None and post.nbytes <= MAX_WIRING_BYTES
            yield "static outputs of a neuron", _mean_and_sd(out) + ("" if post is not None else ", drawn anew for each spike")
            yield "static inputs of a neuron", _mean_and_sd(_counts(post, n)) if counted else f"{out.sum() / max(1, n):.1f} on average"
    if "plastic/pre" in group:
        size = network.group_size_of(group, where)
        pre = zarrio.array(group, "plastic/pre", [-(-n // size), "L"], "iu", where)
        inputs, outputs = _plastic_degrees(pre, n, size) if pre.nbytes <= MAX_WIRING_BYTES else (np.full(n, pre.shape[1]), None)
        yield "plastic synapses", f"{inputs.sum():,}"
        if degrees:
            yield "plastic inputs of a neuron", _mean_and_sd(inputs) + (f", shared by groups of {size}" if size > 1 else "")
            if outputs is not None:
                yield "plastic outputs of a neuron", _mean_and_sd(outputs)
    if degrees and "target" in group:
        yield "targets", "{} condition(s) of {} points".format(*group["target"].shape[:2])


def _mean_and_sd(degree: np.ndarray) -> str:
    """Mean and s.d. of a number of synapses."""
    return f"{degree.mean():.1f}, s.d. {degree.std():.1f}" if degree.size else "none"


def _counts(stored: zarr.Array, n: int) -> np.ndarray:
    """[n] number of times that each of 0..n-1 occurs in an array, read by chunks."""
    counts = np.zeros(n, np.int64)
    for part in zarrio.chunks(stored):
        values = zarrio.read(stored, part)
        counts += np.bincount(values[(values >= 0) & (values < n)], minlength=n)
    return counts


def _plastic_degrees(pre: zarr.Array, n: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """([n] plastic inputs, [n] plastic outputs) of each neuron from pre [G, L], by chunks."""
    groups = np.arange(n) // size
    inputs, outputs, members = np.zeros(pre.shape[0], np.int64), np.zeros(n), np.bincount(groups, minlength=pre.shape[0])
    for part in zarrio.chunks(pre):
        block = zarrio.read(pre, part)
        kept = (block >= 0) & (block < n)
        inputs[part] = kept.sum(axis=1)
        outputs += np.bincount(block[kept], weights=np.broadcast_to(members[part, None], block.shape)[kept], minlength=n)
    return inputs[groups], outputs


def _recording_rows(group: zarr.Group, where: str) -> Rows:
    """Conditions, bins, units and values of a recording, read by chunks."""
    recording = summary.open_rates_or_currents(where)
    conditions, bins, units = recording.values.shape
    names = ", ".join(recording.conditions[:8]) + (", ..." if conditions > 8 else "")
    yield "conditions", f"{conditions}: {names}"
    yield "bins", f"{bins:,} of {recording.bin_ms:g} ms, {bins * recording.bin_ms / 1000:g} s"
    yield "units", f"{units:,}"
    total, known, negative, silent = 0.0, 0, 0, 0
    for part in zarrio.chunks(recording.values, along=2):
        block = zarrio.read(recording.values, (slice(None), slice(None), part))
        finite = np.isfinite(block)
        total += float(block.sum(where=finite, dtype=np.float64))
        known += int(finite.sum())
        negative += int((block < 0).sum())
        silent += int((finite.any(axis=(0, 1)) & (block.max(axis=(0, 1), where=finite, initial=0) <= 0)).sum())
    rates = recording.kind == "rate"
    yield f"mean {recording.kind}", f"{total / known:.3f} {'Hz' if rates else 'threshold'}" if known else "none"
    if rates:
        yield "silent units", f"{silent:,}"
    yield "missing values", f"{1 - known / recording.values.size:.3%}"
    if negative and rates:
        yield "negative values", f"{negative:,}; expected rates of at least 0 Hz"
    yield from summary.unit_rows(group, recording)


def _checkpoint_rows(group: zarr.Group, where: str) -> Rows:
    """Iteration, sizes, P and main settings of a checkpoint."""
    weight = zarrio.array(group, "plastic/weight", ["N", "L"], "f", where)
    for name in ("iteration", "correlation"):
        if name in group.attrs:
            yield name, group.attrs[name]
    yield "sizes", f"N {weight.shape[0]:,}, L {weight.shape[1]}"
    if "P" in group:
        yield "P", f"{group['P'].shape[0]:,} upper triangles, {byte_size(group['P'].nbytes)}"
    elif "window/r" in group:
        yield "P", f"from a window of {group['window/r'].shape[0]} updates"
    else:
        yield "P", "none: weights to test with, not to resume from"
    if isinstance(config := group.attrs.get("config"), dict):
        shown = [("target", "name"), ("rls", "penlambda"), ("rls", "penmu"), ("rls", "gain")]
        words = [f"{section}.{key}={config[section][key]}" for section, key in shown if key in config.get(section, {})]
        yield "settings", ", ".join([f"seed={config.get('seed')}", *words])


def test_rows(group: zarr.Group, where: str) -> Rows:
    """Trials, neurons, rates and scores of a test."""
    excitatory = zarrio.read(zarrio.array(group, "excitatory", ["n"], "b", where))
    rate = zarrio.read(zarrio.array(group, "rate", ["C", len(excitatory)], "f", where))
    yield "trials", f"{group.attrs.get('trials')} trials per condition with the weights of iteration {group.attrs.get('iteration')}"
    yield "conditions", ", ".join(map(str, zarrio.read(group["condition"]))) if "condition" in group else len(rate)
    n = group.attrs.get("n_neurons", len(excitatory))
    yield "neurons", f"{len(excitatory):,} of {n:,}: {_class_counts(excitatory)}"
    rates = [(rate[:, mine], name) for mine, name in ((excitatory, "excitatory"), (~excitatory, "inhibitory")) if mine.any()]
    yield "rates", ", ".join(f"{values.mean():.2f} Hz {name}" for values, name in rates)
    for name in ("current_correlation", "rate_correlation"):
        if name in group:
            values = zarrio.read(group[name])
            mean = f"{np.nanmean(values):.3f}" if np.isfinite(values).any() else "undefined"
            yield name.replace("_", " "), f"{mean} ({int(np.isnan(values).sum())} undefined)"
    if "trained_on" in group.attrs:
        trained = group.attrs["trained_on"]
        other = {"odd": "even", "even": "odd"}.get(str(trained))
        yield "compared with", f"the {other} trials, held out; the {trained} were trained on" if other else "all trials, those trained on"
    if "rate_correlation" in group and "scores" in group.attrs:
        yield "scores", tables.score_table(group.attrs["scores"], width=TABLE_WIDTH)
    if "perturb" in group.attrs:
        yield "perturbed", effects.description(group)
    if "spikes/neuron" in group:
        yield "spikes", f"{group['spikes/neuron'].shape[0]:,}"
