"""The layout of a run folder: config.yaml, network.zarr, checkpoints/, {metrics,resources}.jsonl, test.zarr, perturbed/, figures/.

Each file and folder appears under its name when it is complete. A checkpoint is `checkpoints/000100.zarr` (weights and P, to resume
from) or `checkpoints/000087.best.zarr` (the weights of the best iteration so far).
"""

from __future__ import annotations

import contextlib
import logging
import math
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import yaml
import zarr
from jax import Array, lax

from rlsnet import metrics, resources, rls, zarrio
from rlsnet.config import Config, UserError
from rlsnet.convert import from_dict, renamed, to_dict
from rlsnet.covariance import triangle
from rlsnet.memory import free_memory
from rlsnet.network import Network
from rlsnet.rls import Learner
from rlsnet.wiring import from_groups, to_groups

log = logging.getLogger(__name__)

FORMAT = "rlsnet-checkpoint"
VERSION = 1
P_BLOCK_BYTES = 64 * 2**20  # of P in full that are moved between device and disk at a time


def versions() -> dict[str, str]:
    """Versions of the packages that a result depends on; "not installed" for rlsnet run from its source folder."""

    def version(name: str) -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return "not installed"

    packages = ("rlsnet", "jax", "jaxlib", "numpy", "zarr", "hydra-core")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


class Run:
    """A run folder."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.network, self.metrics, self.test = self.path / "network.zarr", self.path / "metrics.jsonl", self.path / "test.zarr"
        self.resources, self.perturbed = self.path / "resources.jsonl", self.path / "perturbed"
        self.figures, self.checkpoints = self.path / "figures", self.path / "checkpoints"

    @staticmethod
    def open(path: str | Path, key: str) -> Run:
        """An existing run; `key` is the setting that gave its path. Raises UserError if there is none."""
        run = Run(path)
        if not (run.path / "config.yaml").exists():
            raise UserError(f"{key}={path}: no run there; expected a folder that rlsnet train made, with a config.yaml.")
        return run

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """A lock on the folder during the block; it ends with the process. Raises UserError if another process holds it."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as lock:
            try:
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except ImportError:  # no such locks on this system
                pass
            except BlockingIOError as error:
                raise UserError(f"{self.path}: another process uses this folder; wait for it or choose another hydra.run.dir.") from error
            for unfinished in [*self.path.glob(".*.tmp"), *self.checkpoints.glob(".*.tmp")]:  # of a process that was killed
                zarrio.remove(unfinished)
            yield

    def busy(self) -> bool:
        """Whether another process has claimed the folder."""
        try:
            import fcntl

            with (self.path / ".lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except (ImportError, FileNotFoundError):
            return False
        return False

    def clear(self) -> None:
        """Removes the files of an earlier run that ended before its first checkpoint."""
        for stale in [*self.checkpoints.glob("*.best.zarr"), self.test, self.perturbed, self.figures, self.resources]:
            zarrio.remove(stale)
        self.cut_metrics(0)

    def save_config(self, config: Config) -> None:
        """Writes the resolved configuration."""
        with zarrio.replacing(self.path / "config.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(to_dict(config), sort_keys=False))

    def config(self, plugins: Sequence[str] | None = None) -> Config:
        """Settings of the run; those that its version did not have are at their defaults. Raises UserError.

        Args:
          plugins: modules of the user's own models, where the saved ones have moved; None for the saved ones.
        """
        saved = self.saved_config()
        return from_dict(saved if plugins is None else {**saved, "plugins": list(plugins)})

    def saved_config(self) -> dict[str, Any]:
        """Settings of the run as they were saved, nested, under today's names."""
        try:
            values = yaml.safe_load((self.path / "config.yaml").read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UserError(f"{self.path / 'config.yaml'}: cannot be read ({str(error).splitlines()[0]}).") from error
        if not isinstance(values, dict):
            raise UserError(f"{self.path / 'config.yaml'}: holds no settings; expected the file that rlsnet train wrote.")
        return renamed(values, notice=False)

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Adds the line of an iteration to metrics.jsonl."""
        metrics.append_line(self.metrics, line)

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, one for each iteration, with the keys of `metrics.Metrics`."""
        return metrics.read_metrics(self.metrics)

    def cut_metrics(self, iteration: int) -> None:
        """Removes the lines of iterations after `iteration`, before they are computed again."""
        metrics.write_metrics(self.metrics, [line for line in self.read_metrics() if line["iteration"] <= iteration])

    def perturbed_result(self, label: str) -> Path:
        """Path of the result of a perturbed test."""
        return self.perturbed / f"{label}.zarr"

    def perturbed_results(self) -> dict[str, Path]:
        """Paths of the results of perturbed tests, by label."""
        return {path.stem: path for path in sorted(self.perturbed.glob("[!.]*.zarr"))}

    def iterations(self) -> list[int]:
        """The iterations whose checkpoint is complete, in order."""
        found = [re.fullmatch(r"(\d{6,})\.zarr", p.name) for p in self.checkpoints.glob("*.zarr")]
        return sorted(int(match[1]) for match in found if match)

    def best(self) -> Path | None:
        """The newest checkpoint of the best weights."""
        found = sorted(self.checkpoints.glob("*.best.zarr"))
        return found[-1] if found else None

    def best_correlation(self) -> float | None:
        """The correlation of the best iteration saved so far."""
        best = self.best()
        return None if best is None else float(zarr.open_group(str(best), mode="r").attrs["correlation"])

    def checkpoint(self, which: str, key: str = "test.checkpoint") -> Path:
        """The path of a checkpoint: last, best, an iteration, or a path as it is."""
        have = self.iterations()
        if which == "best" and (best := self.best()) is not None:
            return best
        if which == "last" and have:
            return self.checkpoints / f"{have[-1]:06d}.zarr"
        if which.isdigit() and int(which) in have:
            return self.checkpoints / f"{int(which):06d}.zarr"
        if which not in ("last", "best") and not which.isdigit():
            zarrio.open_group(which, key, FORMAT)
            return Path(which)
        listed = ", ".join(map(str, have)) or "none"
        raise UserError(f"{key}={which}: {self.path} has no such checkpoint; it has those of iterations {listed}.")


class CheckpointWriter:
    """A thread that writes checkpoints, one after another, while training goes on. At the end of its context all are written."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._last: Future[None] | None = None

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._thread.shutdown()
        try:
            self.wait()
        except Exception as failed:
            if error is None:
                raise
            log.error("A checkpoint could not be written either: %s", failed)

    def wait(self) -> None:
        """Returns when all is written; raises the exception of a write that failed."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def check(self) -> None:
        """Raises the exception of a write that has failed, if it has ended."""
        if self._last is not None and self._last.done():
            self.wait()

    def submit(self, write: Callable[[], None]) -> None:
        """Calls `write` in the thread after the write before has ended, waits for that one, and raises its exception if it failed."""
        before, self._last = self._last, self._thread.submit(write)
        if before is not None:
            before.result()


class PackedP(NamedTuple):
    """Upper triangles of P on their way from the device to the disk.

    groups: G.
    inputs: L.
    size: groups in a block, and in a chunk on the disk.
    number_type: of P, such as float32 or bfloat16.
    stored_type: of the numbers on the disk; bfloat16 is stored as the same 16 bits in uint16.
    blocks: arrays [size, L*(L+1)/2] of the groups in order, of stored_type.
    """

    groups: int
    inputs: int
    size: int
    number_type: str
    stored_type: np.dtype
    blocks: Iterable[np.ndarray]

    @staticmethod
    def of(numbers: Array, inputs: int) -> PackedP:
        """The blocks of P [G, L, L] or [G, L*(L+1)/2]; each is computed and copied from the device when it is taken."""
        groups, itemsize = len(numbers), numbers.dtype.itemsize
        size = max(1, min(groups, P_BLOCK_BYTES // max(1, inputs * inputs * itemsize)))
        stored_type = np.dtype("uint16") if numbers.dtype == jnp.bfloat16 else np.dtype(numbers.dtype)
        blocks = (
            np.asarray(_triangles(numbers, np.int32(start), min(size, groups - start))).view(stored_type)
            for start in range(0, groups, size)
        )
        return PackedP(groups, inputs, size, str(numbers.dtype), stored_type, blocks)

    @property
    def shape(self) -> tuple[int, int]:
        """[G, L*(L+1)/2]."""
        return self.groups, self.inputs * (self.inputs + 1) // 2

    @property
    def n_bytes(self) -> int:
        """Bytes on the disk."""
        return math.prod(self.shape) * self.stored_type.itemsize

    def write(self, root: zarr.Group, storage: str) -> None:
        """Writes the array P of a checkpoint, block by block; `storage` is rls.storage."""
        layout = {"storage": storage, "numbers": self.number_type, "layout": "upper triangle by rows", "n_inputs": self.inputs}
        stored = root.create_array(
            "P",
            shape=self.shape,
            chunks=(self.size, max(1, self.shape[1])),
            dtype=self.stored_type,
            compressors=None,
            config={"write_empty_chunks": True},
            dimension_names=["group", "entry"],
            attributes=layout,
        )
        for part, block in zip(zarrio.chunks(stored), self.blocks, strict=True):
            stored[part] = block


def save_checkpoint(run: Run, writer: CheckpointWriter, iteration: int, network: Network, learner: Learner, config: Config) -> None:
    """Writes weights and P; the checkpoint appears under its name when all of it is on the disk.

    The learner may change when this returns: `writer` writes from a copy, and there is never more than one. If there is no memory
    for a copy, P is written before this returns, in blocks.

    Args:
      run: the run.
      writer: thread that writes.
      iteration: of the learner.
      network: wiring.
      learner: weights and P.
      config: settings, for the attributes.
    """
    writer.wait()
    path, weight = run.checkpoints / f"{iteration:06d}.zarr", from_groups(np.array(learner.w), network.n_neurons)
    extra = {name: (np.array(values), dims) for name, (values, dims) in learner.P.extra().items()}
    numbers = learner.P.numbers
    P = None if numbers is None else PackedP.of(numbers, network.n_inputs)
    copied = P is None or P.n_bytes < free_memory() / 2
    if P is not None and copied:
        P = P._replace(blocks=list(P.blocks))
    double_precision = bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]  # of this thread; needed where P is not copied yet

    def write() -> None:
        with jax.enable_x64(double_precision), zarrio.replacing(path) as temporary:
            root = _create(temporary, iteration, weight, network, config)
            for name, (values, dims) in extra.items():
                zarrio.write(root, name, values, dims, compress=False)
            if P is not None:
                P.write(root, config.rls.storage)

    writer.submit(write)
    if not copied:
        writer.wait()


def save_best(
    run: Run, writer: CheckpointWriter, iteration: int, network: Network, learner: Learner, config: Config, correlation: float
) -> None:
    """Writes the weights of the best iteration so far, and removes those of the one before; arguments as in `save_checkpoint`."""
    path, weight = run.checkpoints / f"{iteration:06d}.best.zarr", from_groups(np.array(learner.w), network.n_neurons)

    def write() -> None:
        with zarrio.replacing(path) as temporary:
            _create(temporary, iteration, weight, network, config, correlation=correlation)
        for old in run.checkpoints.glob("*.best.zarr"):
            if old != path:
                zarrio.remove(old)

    writer.submit(write)


def load_weights(path: Path, network: Network) -> Array:
    """[G, X+L, S] weights of a checkpoint, on the device; raises UserError if they are missing or of another shape."""
    group, x = zarrio.open_group(path, "checkpoint", FORMAT), network.n_feedforward
    weight = np.zeros((network.n_neurons, network.n_inputs), network.bias.dtype)
    for name, columns in (("feedforward/weight", slice(x)), ("plastic/weight", slice(x, None))):
        if weight[:, columns].size:
            weight[:, columns] = _read(group, name, weight[:, columns].shape, "f", path)
    return jnp.asarray(to_groups(weight, network.group_size))


def load_learner(run: Run, iteration: int, network: Network, config: Config) -> Learner:
    """Weights and P after an iteration; P is filled on the device block by block.

    Raises:
      UserError: arrays are missing, incomplete or of another shape.
    """
    path = run.checkpoints / f"{iteration:06d}.zarr"
    w = load_weights(path, network)
    group = zarrio.open_group(path, "checkpoint", FORMAT)
    like = jax.eval_shape(partial(rls.init, config.rls), network, w).P
    extra = {
        name: jnp.asarray(_read(group, name, expected.shape, "fiub", path).astype(expected.dtype))
        for name, (expected, _) in like.extra().items()
    }
    expected = like.numbers
    if expected is None:
        return Learner(w, like.restored(None, extra))
    groups, inputs = w.shape[:2]
    stored = zarrio.array(group, "P", [groups, inputs * (inputs + 1) // 2], "fiu", str(path))
    zarrio.check_complete(stored)
    numbers = jnp.zeros(expected.shape, expected.dtype)
    for part in zarrio.chunks(stored):
        block = zarrio.read(stored, part)
        block = block.view(jnp.bfloat16) if expected.dtype == jnp.bfloat16 else block.astype(expected.dtype)
        numbers = _with_triangles(numbers, jnp.asarray(block), jnp.int32(part.start))
    return Learner(w, like.restored(numbers, extra))


def _create(path: Path, iteration: int, weight: np.ndarray, network: Network, config: Config, **attributes: Any) -> zarr.Group:
    """A new checkpoint without P; weight [N, X+L]."""
    info = {"format": FORMAT, "version": VERSION, "iteration": iteration, "config": to_dict(config), "versions": versions()}
    info["machine"] = {**resources.machine(), "device": next(iter(network.bias.devices())).device_kind}
    root = zarr.create_group(str(path), attributes={**info, **attributes})
    x = network.n_feedforward
    zarrio.write(root, "plastic/weight", weight[:, x:], ["neuron", "input"], compress=False, units="threshold*ms")
    if x:
        zarrio.write(root, "feedforward/weight", weight[:, :x], ["neuron", "feedforward"], compress=False, units="threshold*ms")
    return root


def _read(group: zarr.Group, name: str, shape: Sequence[int], kind: str, path: Path) -> np.ndarray:
    """A complete array of a checkpoint; arguments as in `zarrio.array`."""
    stored = zarrio.array(group, name, list(shape), kind, str(path))
    zarrio.check_complete(stored)
    return zarrio.read(stored)


@partial(jax.jit, static_argnums=2)
def _triangles(numbers: Array, start: Array, size: int) -> Array:
    """[size, L*(L+1)/2] upper triangles of the matrices from `start` on, of P [G, L, L] or [G, L*(L+1)/2]."""
    block = lax.dynamic_slice_in_dim(numbers, start, size)
    return block if numbers.ndim == 2 else block[(slice(None), *np.triu_indices(numbers.shape[-1]))]


@partial(jax.jit, donate_argnums=0)
def _with_triangles(numbers: Array, triangles: Array, start: Array) -> Array:
    """P [G, L, L] or [G, L*(L+1)/2] with the matrices from `start` on replaced by those of upper triangles [n, L*(L+1)/2]."""
    block = triangles if numbers.ndim == 2 else triangles[:, triangle(numbers.shape[-1])]
    return lax.dynamic_update_slice_in_dim(numbers, block, start, 0)
