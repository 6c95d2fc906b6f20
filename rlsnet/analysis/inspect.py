"""Table of the contents of a run, network, recording, checkpoint or test, for `rlsnet info`; computed without a GPU."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import jax
import numpy as np
import zarr
from rich.table import Table
from rich.text import Text

from rlsnet.analysis import perturbation_effects
from rlsnet.analysis.inspect_stores import Rows, is_narrow, network_rows, store_rows, test_rows, version_rows
from rlsnet.config.load import unloaded
from rlsnet.config.schema import Config
from rlsnet.io import atomic, zarr_store
from rlsnet.io.formatting import byte_size, console, counted, disk_size, duration, percent
from rlsnet.model import network_store
from rlsnet.runs import folder, memory_plan, resources
from rlsnet.runs.folder import Run, check_content
from rlsnet.runs.metrics import last_correlation, no_longer_better, validations
from rlsnet.workflows import test_store


def show(path: str | None, trust: bool = False) -> None:
    """Prints the contents of a run folder or a store as a table.

    Args:
      path: of the run or store; None for the versions and devices of this installation.
      trust: whether the plugins that a run names may run, now and later.

    Raises:
      UserError: there is no run or store at the path.
    """
    if path is None:
        title, rows = "rlsnet", _installation_rows()
    else:
        check_content(Path(path))
        is_run = (Path(path) / "config.yaml").exists()
        title, rows = (f"run {path}", _run_rows(Run.open(path), trust)) if is_run else (path, store_rows(path))
    table = Table("", "", title=Text(title), show_header=False, title_justify="left")
    table.columns[1].overflow = "fold"
    with contextlib.nullcontext() if path is None else jax.default_device("cpu"):
        below = []
        for name, value in rows:
            if "\n" in str(value) and is_narrow():
                below.append((name, str(value)))
            else:
                table.add_row(Text(name), Text(str(value)))
    console().print(table)
    for name, value in below:
        console().print(Text(f"{name}:\n{value}"))


def _installation_rows() -> Rows:
    """Versions, devices, memory and kernels of this installation."""
    from rlsnet.kernels import backend, build

    form, _, missing = backend.automatic("float32")
    chosen = f"native ({build.native('float32').origin})" if form == "native" else form
    yield from folder.versions().items()
    yield "devices", ", ".join(f"{d.device_kind} ({d.platform})" for d in jax.devices())
    yield "memory free", byte_size(memory_plan.available()[0])
    yield "kernels", f"{form}, which is slower: {missing}" if missing else chosen
    yield "cache", atomic.cache_dir()
    if jax.default_backend() == "cpu" and Path("/proc/driver/nvidia/version").exists():
        yield "warning", "there is an NVIDIA GPU, but JAX has no CUDA support: pip install 'rlsnet[cuda13]'"


def _run_rows(run: Run, trust: bool) -> Rows:
    """Target, network, progress, checkpoints, resources, test and perturbations of a run."""
    config = run.config(trust=trust)
    trial, done = config.trial, run.iterations()
    length = trial.stim_off + trial.duration
    yield "target", f"{config.target.name}, trial of {length:g} ms, {trial.n_points} learning points, seed {config.seed}"
    if models := unloaded(config):
        words = f"not run, so sizes and memory of {', '.join(models)} are unknown"
        yield "plugins", f"{words}; trust=true runs {', '.join(config.plugins)}"
    if run.network.exists():
        group = zarr_store.open_group(run.network, "", network_store.FORMAT)
        if not models:
            yield from _size_rows(run, config, group)
        yield from (row for row in network_rows(group, str(run.network), degrees=False) if row[0] != "neurons")
    yield from _progress_rows(run, config)
    best = run.best()
    names = [str(k) for k in done] if len(done) < 10 else [*map(str, done[:3]), "...", *map(str, done[-3:])]
    names += [f"best of iteration {int(best.name.split('.')[0])}"] if best else []
    yield "checkpoints", ", ".join(names) or "none"
    if done:
        yield from version_rows(zarr_store.open_group(run.checkpoint("last"), "", folder.FORMAT).attrs)
    yield from _resource_rows(run)
    if run.test.exists():
        rows = dict(test_rows(test_store.open_test(run, run.test), str(run.test)))
        yield "test", f"{rows['trials']}, current correlation {rows.get('current correlation')}"
        yield from ((name, rows[name]) for name in ("compared with", "verdict", "population", "scores") if name in rows)
    yield from _perturbation_rows(run)
    yield "on disk", disk_size(run.path)


def _perturbation_rows(run: Run) -> Rows:
    """Each stored perturbation and its effect on the mean rate of the neurons that it was not applied to."""
    test = test_store.open_test(run, run.test) if run.test.exists() else None
    for label, path in run.perturbed_results().items():
        words = perturbation_effects.description(group := test_store.open_test(run, path))
        if test is not None:
            effect = perturbation_effects.PerturbationEffect.from_tests(test, group)
            control, perturbed = effect.rate(~effect.perturbed, 1)
            if np.isfinite(control):
                words += f"; mean rate of the other neurons: {perturbed:.2f} Hz, in the control {control:.2f} Hz"
            words += "".join(f"; it has {each}" for each in perturbation_effects.differences(test, group))
        yield f"perturbed {label}", words


def _size_rows(run: Run, config: Config, group: zarr.Group) -> Rows:
    """Sizes N, L, S, C and M of `network`, and the memory plan of training: the stored one, or for an older run a new one."""
    of_run = dataclasses.replace(config.network, load=str(run.network))
    of_engine = dataclasses.replace(config.engine, kernels="fixed_shape")  # needs no compiler here
    conditions = group["target"].shape[0] if "target" in group else 1
    sizes = memory_plan.Sizes.of(dataclasses.replace(config, network=of_run, engine=of_engine), None, conditions)
    x = group["feedforward/weight"].shape[1] if "feedforward/weight" in group else 0
    inputs = f"{counted(sizes.inputs - x, 'trained input')} of each (L)" + (f", {x:,} from feed-forward neurons (X)" if x else "")
    shared = f", P shared by groups of {sizes.group_size} (S)" if sizes.group_size > 1 else ""
    times = f"{counted(sizes.conditions, 'condition')} (C), {counted(sizes.points, 'time bin')} (M)"
    yield "sizes", f"{sizes.n:,} neurons (N), {inputs}{shared}, {times}"
    parts = dict(group.attrs.get(memory_plan.PLAN) or memory_plan.plan(sizes, learning=True))
    yield "memory of training", f"P {byte_size(parts.get('P', 0))}, about {byte_size(sum(parts.values()))} in all"


def _progress_rows(run: Run, config: Config) -> Rows:
    """Iterations done and left, their duration, correlation and rates."""
    metrics, total = run.read_metrics(), config.train.iterations
    seconds = [m["seconds"] for m in metrics]
    left = f", {duration(float(np.median(seconds[-10:])) * (total - len(metrics)))} left" if 0 < len(metrics) < total else ""
    if no_longer_better(metrics, config.train.stop_when):
        left = ", ended by train.stop_when"
    yield "progress", f"{len(metrics)} of {total} iterations{left}"
    if not metrics:
        return
    yield "time per iteration", f"{np.median(seconds):.3g} s (median)"
    known = [m for m in metrics if m["correlation"] is not None]
    if known:
        several = (
            f"; {last_correlation(metrics):.3f}, mean of the last trial of each condition" if len({m["task"] for m in known}) > 1 else ""
        )
        yield "correlation", f"{known[-1]['correlation']:.3f} at iteration {known[-1]['iteration']}{several}"
    if validated := validations(metrics):
        last_and_best = (validated[-1], "last"), (max(validated, key=lambda each: each[1]), "best")
        yield (
            "validation",
            ", ".join(f"{percent(score, 1)} {which}, at iteration {iteration}" for (iteration, score), which in last_and_best),
        )
    rates = [
        f"{metrics[-1][f'rate_{name[:3]}_hz']:.2f} Hz {name}" for name in ("excitatory", "inhibitory") if metrics[-1][f"rate_{name[:3]}_hz"]
    ]
    yield "rates while learning", ", ".join(rates) or "none"


def _resource_rows(run: Run) -> Rows:
    """Peak memory and mean use of processor and GPUs, a row for each command."""
    lines = resources.read(run.resources)
    for command in dict.fromkeys(line.get("verb", "") for line in lines):
        mine = [line for line in lines if line.get("verb", "") == command]
        words = [f"peak memory {byte_size(1e6 * max(line['memory_peak_mb'] for line in mine))}"]
        for key, name in (("cpu_percent", "CPU"), ("gpu_percent", "GPU")):
            if values := [line[key] for line in mine if key in line]:
                words.append(f"mean {name} {np.mean([np.mean(v) for v in values]):.0f} %")
        yield f"resources of {command}", ", ".join(words)
