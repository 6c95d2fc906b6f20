"""Disk plan of a training: bytes that its run folder will take, compared with the free space before the training starts."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from rlsnet.config.schema import Config
from rlsnet.errors import UserError
from rlsnet.io.formatting import byte_size, bytes_below
from rlsnet.learning.covariance_forms import number_type
from rlsnet.runs.folder import Run
from rlsnet.runs.memory_plan import Sizes

ASSUMED_RATE = 10.0  # Hz, mean rate of the neurons, for the spikes of a test
SPIKE_BYTES = 22  # time, step, neuron, condition and trial of a spike in a test.zarr, before compression
TEST_ARRAYS = 4  # arrays [C, M, N] of float32 in a test.zarr: rates and currents, and their targets


def checkpoint_bytes(config: Config, sizes: Sizes) -> int:
    """Bytes of a checkpoint: P, of which the upper triangles are stored, and the weights."""
    groups, P = -(-sizes.n // sizes.group_size), sizes.P
    if config.rls.storage != "window":
        P = groups * (sizes.inputs * (sizes.inputs + 1) // 2) * number_type(config.rls, np.dtype(config.engine.precision)).itemsize
    return P + sizes.n * sizes.inputs * sizes.item


def n_kept(config: Config) -> int:
    """Largest number of checkpoints on the disk at any time: a new one is complete before an old one is removed."""
    train = config.train
    written = -(-train.iterations // train.checkpoint_every)
    return written if train.keep_checkpoints is None else min(written, train.keep_checkpoints + 1)


def plan(config: Config, sizes: Sizes) -> dict[str, int]:
    """Bytes by purpose; those of a test are an estimate."""
    points, groups = sizes.conditions * sizes.points * sizes.n, -(-sizes.n // sizes.group_size)
    weights = sizes.n * sizes.inputs * sizes.item
    trial, test = config.trial, config.test
    spikes = test.trials * sizes.conditions * sizes.n * (trial.stim_off + trial.duration) / 1000 * ASSUMED_RATE * SPIKE_BYTES
    return {
        f"checkpoints {n_kept(config)} x {byte_size(checkpoint_bytes(config, sizes))}": n_kept(config) * checkpoint_bytes(config, sizes),
        "best weights": 2 * weights if config.train.validates and config.train.save_best else 0,
        "network": weights + 4 * groups * sizes.inputs + sizes.edges * (4 + sizes.item * sizes.weighted) + points * sizes.item,
        "a test": TEST_ARRAYS * 4 * points + (int(spikes) if test.spikes else 0),
    }


def check(config: Config, sizes: Sizes, folder: Path) -> str:
    """Disk plan as one line of text.

    Args:
      config: the experiment.
      sizes: sizes of the experiment.
      folder: the run folder, which need not exist; of what it contains, the run needs its network and replaces its newest checkpoints.

    Raises:
      UserError: the checkpoints and the network exceed the free space; the message advises which settings to change.
    """
    parts = plan(config, sizes)
    place = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.is_dir())
    free, there = shutil.disk_usage(place).free, _not_needed_again(config, parts, checkpoint_bytes(config, sizes), Run(folder))
    total = sum(parts.values())
    words = ", ".join(f"{name} {byte_size(size)}" if " x " not in name else name for name, size in parts.items() if size)
    text = f"{byte_size(total)} ({words})"
    if total - parts["a test"] - there > free:
        there_words = f", of which {byte_size(there)} are there," if there else ""
        raise UserError(
            f"disk: the run needs {text}{there_words} and {folder} has {byte_size(free)} free. Try {_advice(config)}, or a hydra.run.dir on"
            " a larger disk."
        )
    warning = "" if total - there <= free else " There is not enough space for a test."
    return f"Disk plan: {byte_size(total)} of {byte_size(free)} free: {words}.{warning}"


def _not_needed_again(config: Config, parts: dict[str, int], one: int, run: Run) -> int:
    """Bytes of the plan `parts` that a run has on the disk already: its network, and the checkpoints of `one` size that it replaces."""
    keep = config.train.keep_checkpoints
    kept = map(run.checkpoint_of, run.iterations()[-keep if keep else 0 :])
    best = run.best()
    planned = [(run.network, parts["network"]), *((path, one) for path in kept), *([(best, parts["best weights"])] if best else [])]
    return sum(min(bytes_below(path), size) for path, size in planned)


def _advice(config: Config) -> str:
    """Settings of a training that needs less space on the disk."""
    keep = config.train.keep_checkpoints
    fewer = ["train.keep_checkpoints=1"] if keep is None or (keep > 1 and n_kept(config) > 2) else []
    return ", ".join([*fewer, "rls.precision=bfloat16 (halves a checkpoint)", "a larger plastic.group_size"])
