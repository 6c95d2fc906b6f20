"""Rows of tables about one store: a network, recording, checkpoint or test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from rlsnet.analysis import perturbation_effects, recording_summary, score_tables, verdict
from rlsnet.data import recordings, trial_average, trial_clock
from rlsnet.io import zarr_store
from rlsnet.io.formatting import byte_size, console, counted, disk_size, percent
from rlsnet.model import network_store
from rlsnet.runs import folder
from rlsnet.workflows import test_store

Rows = Iterator[tuple[str, Any]]


TABLE_WIDTH = 96  # of a table within the table
MAX_SYNAPSE_BYTES = 2**30  # a larger list of synapses is not read to count inputs and outputs


def is_narrow() -> bool:
    """Whether a terminal has no room for a table beside the names of rows; the table then stands below all rows."""
    return console().width < 120


def table_width() -> int:
    """Columns of a table that is the value of a row."""
    return console().width if is_narrow() else TABLE_WIDTH


def version_rows(attributes: Any) -> Rows:
    """Versions of the software that made a store."""
    if isinstance(versions := attributes.get("versions"), Mapping):
        yield "made with", ", ".join(f"{name} {version}" for name, version in versions.items())


def store_rows(path: str) -> Rows:
    """Format and contents of a store, and the type and shape of each of its arrays."""
    group = zarr_store.open_store(path, f"{path}: not a run folder")
    kind = str(group.attrs.get("format", recordings.FORMAT if recordings.TARGETS.keys() & set(group) else "unknown"))
    yield "format", f"{kind} {group.attrs.get('version', '')}".strip()
    if "source" in group.attrs:
        yield "source", group.attrs["source"]
    contents: dict[str, Callable[[zarr.Group, str], Rows]] = {
        network_store.FORMAT: network_rows,
        folder.FORMAT: _checkpoint_rows,
        test_store.FORMAT: test_rows,
        recordings.FORMAT: _recording_rows,
    }
    if kind in contents:
        yield from contents[kind](group, path)
    yield from version_rows(group.attrs)
    yield "on disk", disk_size(Path(path))
    for name, array in sorted(group.members(max_depth=None)):
        if isinstance(array, zarr.Array):
            dims = getattr(array.metadata, "dimension_names", None) or [""] * array.ndim
            kind = array.dtype if array.dtype.kind in "biufc" else "text"
            yield name, f"{kind} [{', '.join(f'{d} {s:,}'.strip() for d, s in zip(dims, array.shape, strict=True))}]"


def _class_counts(excitatory: np.ndarray) -> str:
    """Numbers of excitatory and inhibitory neurons."""
    return f"{excitatory.sum():,} excitatory, {(~excitatory).sum():,} inhibitory"


def network_rows(group: zarr.Group, where: str, degrees: bool = True) -> Rows:
    """Numbers of neurons and synapses; with `degrees` also the inputs and outputs of a neuron."""
    excitatory = zarr_store.read(zarr_store.array(group, "neuron/excitatory", ["N"], "b", where))
    n = len(excitatory)
    yield "neurons", f"{n:,}: {_class_counts(excitatory)}"
    yield "cell class", network_store.cell_class(group) or "unknown origin"
    if "trained" in group.attrs:
        yield "trained", group.attrs["trained"]
    if isinstance(summary := group.attrs.get(network_store.SUMMARY), Mapping):
        yield "imported", "\n".join(f"{name}: {words}" for name, words in summary.items())
    if labels := network_store.labels(group):
        yield "labels", "; ".join(f"{name}: {_examples(words)}" for name, words in labels.items())
    if "static/indptr" in group:
        out = np.diff(zarr_store.read(zarr_store.array(group, "static/indptr", [n + 1], "iu", where)).astype(np.int64))
        yield "static synapses", f"{out.sum():,}"
        if degrees:
            post = zarr_store.array(group, "static/post", ["edges"], "iu", where) if "static/stream" not in group else None
            known = post is not None and post.nbytes <= MAX_SYNAPSE_BYTES
            yield "static outputs of a neuron", _mean_and_sd(out) + ("" if post is not None else ", drawn again for each spike")
            yield "static inputs of a neuron", _mean_and_sd(_counts(post, n)) if known else f"{out.sum() / max(1, n):.1f} on average"
    if "plastic/pre" in group:
        size = network_store.group_size_of(group, where)
        pre = zarr_store.array(group, "plastic/pre", [-(-n // size), "L"], "iu", where)
        inputs, outputs = _plastic_degrees(pre, n, size) if pre.nbytes <= MAX_SYNAPSE_BYTES else (np.full(n, pre.shape[1]), None)
        yield "plastic synapses", f"{inputs.sum():,}"
        if degrees:
            yield "plastic inputs of a neuron", _mean_and_sd(inputs) + (f", shared by groups of {size}" if size > 1 else "")
            if outputs is not None:
                yield "plastic outputs of a neuron", _mean_and_sd(outputs)
    if "feedforward/weight" in group:
        x = zarr_store.array(group, "feedforward/weight", [n, "X"], "f", where).shape[1]
        yield "from feed-forward neurons", f"{n * x:,} synapses of {x:,} neurons"
    if degrees and "target" in group:
        yield "targets", f"{counted(group['target'].shape[0], 'condition')}, {counted(group['target'].shape[1], 'learning point')}"


def _examples(words: np.ndarray, most: int = 4) -> str:
    """Number of different texts, and the first ones."""
    found = np.unique(words).tolist()
    return f"{len(found):,} ({', '.join(found[:most])}{', ...' if len(found) > most else ''})"


def _mean_and_sd(degree: np.ndarray) -> str:
    """Mean and s.d. of a number of synapses."""
    return f"{degree.mean():.1f}, s.d. {degree.std():.1f}" if degree.size else "none"


def _counts(stored: zarr.Array, n: int) -> np.ndarray:
    """[n] number of times that each of 0..n-1 occurs in an array, read by chunks."""
    counts = np.zeros(n, np.int64)
    for part in zarr_store.chunks(stored):
        values = zarr_store.read(stored, part)
        counts += np.bincount(values[(values >= 0) & (values < n)], minlength=n)
    return counts


def _plastic_degrees(pre: zarr.Array, n: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """([n] plastic inputs, [n] plastic outputs) of each neuron from pre [G, L], by chunks."""
    groups = np.arange(n) // size
    inputs, outputs, members = np.zeros(pre.shape[0], np.int64), np.zeros(n), np.bincount(groups, minlength=pre.shape[0])
    for part in zarr_store.chunks(pre):
        block = zarr_store.read(pre, part)
        valid = (block >= 0) & (block < n)
        inputs[part] = valid.sum(axis=1)
        outputs += np.bincount(block[valid], weights=np.broadcast_to(members[part, None], block.shape)[valid], minlength=n)
    return inputs[groups], outputs


def _recording_rows(group: zarr.Group, where: str) -> Rows:
    """Conditions, bins, units and values of a recording, read by chunks."""
    recording = recording_summary.open_rates_or_currents(where)
    conditions, bins, units = recording.values.shape
    names = ", ".join(recording.conditions[:8]) + (", ..." if conditions > 8 else "")
    yield "conditions", f"{conditions}: {names}"
    yield "bins", f"{bins:,} of {recording.bin_ms:g} ms, {recording_summary.time_words(group, recording)}"
    if events := trial_clock.events(group):
        yield "events", ", ".join(f"{name} at {time:g} s" for name, time in events.items())
    yield "units", f"{units:,}"
    total, known, negative, silent = 0.0, 0, 0, 0
    for part in zarr_store.chunks(recording.values, along=2):
        block = zarr_store.read(recording.values, (slice(None), slice(None), part))
        finite = np.isfinite(block)
        total += float(block.sum(where=finite, dtype=np.float64))
        known += int(finite.sum())
        negative += int((block < 0).sum())
        silent += int((finite.any(axis=(0, 1)) & (block.max(axis=(0, 1), where=finite, initial=0) <= 0)).sum())
    rates = recording.kind == "rate"
    yield f"mean {recording.kind}", f"{total / known:.3f} {'Hz' if rates else 'threshold'}" if known else "none"
    if rates:
        yield "silent units", f"{silent:,}"
    values, missing = recording.values.size, recording.values.size - known
    yield "missing values", f"{missing:,} of {values:,} ({percent(missing / values, 1)})" if missing else "none"
    if negative and rates:
        yield "negative values", f"{negative:,}; expected rates of at least 0 Hz"
    yield from recording_summary.unit_rows(group, recording)


def _checkpoint_rows(group: zarr.Group, where: str) -> Rows:
    """Iteration, sizes, P and main settings of a checkpoint."""
    weight = zarr_store.array(group, "plastic/weight", ["N", "L"], "f", where)
    for name in ("iteration", "correlation"):
        if name in group.attrs:
            yield name, group.attrs[name]
    yield "sizes", f"{weight.shape[0]:,} neurons (N), {counted(weight.shape[1], 'trained input')} of each (L)"
    if "P" in group:
        yield "P", f"{group['P'].shape[0]:,} upper triangles, {byte_size(group['P'].nbytes)}"
    elif "window/r" in group:
        yield "P", f"from a window of {group['window/r'].shape[0]} updates"
    else:
        yield "P", "none: these weights can be tested, but training cannot continue from them"
    if isinstance(config := group.attrs.get("config"), dict):
        shown = [("target", "name"), ("rls", "penlambda"), ("rls", "penmu"), ("rls", "gain")]
        words = [f"{section}.{key}={config[section][key]}" for section, key in shown if key in config.get(section, {})]
        yield "settings", ", ".join([f"seed={config.get('seed')}", *words])


def test_rows(group: zarr.Group, where: str) -> Rows:
    """Trials, neurons, rates and scores of a test."""
    excitatory = zarr_store.read(zarr_store.array(group, "excitatory", ["n"], "b", where))
    rate = zarr_store.read(zarr_store.array(group, "rate", ["C", len(excitatory)], "f", where))
    yield (
        "trials",
        f"{counted(int(group.attrs.get('trials', 0)), 'trial')} per condition with the weights of iteration {group.attrs.get('iteration')}",
    )
    yield "conditions", ", ".join(map(str, zarr_store.read(group["condition"]))) if "condition" in group else len(rate)
    if trial_clock.ATTRIBUTE in group.attrs:
        time, clock = zarr_store.read(group["time"]), trial_clock.of_test(group)
        start, end = trial_average.span_of_bins(time, float(group.attrs["bin_ms"]))
        yield "bins", f"{len(time):,} of {group.attrs['bin_ms']:g} ms, {start:g} to {end:g} s {clock.words}"
    n = group.attrs.get("n_neurons", len(excitatory))
    yield "neurons", f"{len(excitatory):,} of {n:,}: {_class_counts(excitatory)}"
    if group.attrs.get("cell_class"):
        yield "cell class", group.attrs["cell_class"]
    yield "rates", score_tables.rate_words(excitatory, rate)
    population = group.attrs.get("scores", {}).get("population", {})
    if sentences := verdict.verdict(population):
        yield "verdict", " ".join([sentences, *verdict.warnings(population)])
        yield "population", verdict.population_table(population, width=table_width())
    for name in ("current_correlation", "rate_correlation"):
        if name in group:
            yield name.replace("_", " "), score_tables.mean_words(score_tables.trained_only(group, name))
    if "trained_on" in group.attrs:
        trained = group.attrs["trained_on"]
        other = {"odd": "even", "even": "odd"}.get(str(trained))
        yield (
            "compared with",
            f"the {other} trials, held out; trained on the {trained} ones" if other else "all trials, which it was trained on",
        )
    if "rate_correlation" in group and "scores" in group.attrs:
        yield "scores", score_tables.score_table(group.attrs["scores"], width=table_width())
    if "perturb" in group.attrs:
        yield "perturbed", perturbation_effects.description(group)
    if "spikes/neuron" in group:
        yield "spikes", f"{group['spikes/neuron'].shape[0]:,}"
