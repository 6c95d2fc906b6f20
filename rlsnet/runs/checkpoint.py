"""Checkpoints: weights and P of a learner in a Zarr store, written in a thread of their own while training goes on."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import zarr
from jax import Array, lax

from rlsnet.config.load import to_dict
from rlsnet.config.schema import Config
from rlsnet.errors import UserError
from rlsnet.io import atomic, zarr_store
from rlsnet.io.formatting import byte_size
from rlsnet.kernels import backend
from rlsnet.learning import rls
from rlsnet.learning.covariance_forms import triangle
from rlsnet.learning.rls import Learner
from rlsnet.model.connectivity import from_groups, to_groups
from rlsnet.model.network import Network
from rlsnet.runs import resources
from rlsnet.runs.folder import FORMAT, NETWORK, VERSION, Run, versions
from rlsnet.runs.memory_plan import free_memory

log = logging.getLogger(__name__)


CHOICES = 10  # times that a checkpoint is chosen while another process removes those that were chosen
P_BLOCK_BYTES = 64 * 2**20  # bytes of a block of full P that is moved between device and disk


class CheckpointWriter:
    """Thread that writes checkpoints, one after another, while training continues. At the end of its context all are written."""

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
        """Waits until all checkpoints are written; raises the exception of a write that failed."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def check(self) -> None:
        """Raises the exception of the last write if it has failed; does not wait for it."""
        if self._last is not None and self._last.done():
            self.wait()

    def submit(self, write: Callable[[], None]) -> None:
        """Calls `write` in the thread, after the previous write; waits for that one, and raises its exception if it failed."""
        before, self._last = self._last, self._thread.submit(write)
        if before is not None:
            before.result()


class PackedP(NamedTuple):
    """Upper triangles of P, in blocks of groups, as they are written to the disk.

    groups: number of groups G.
    inputs: number of inputs L.
    size: number of groups in a block, and in a chunk on the disk.
    number_type: type of the numbers of P, such as float32 or bfloat16.
    stored_type: type of the numbers on the disk; bfloat16 is stored as the same 16 bits in uint16.
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
        """The blocks of P [G, L, L] or [G, L*(L+1)/2]; each is computed and copied from the device when it is requested."""
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
        stored = zarr_store.create(
            root,
            "P",
            self.shape,
            self.stored_type,
            ["group", "entry"],
            compress=False,
            chunks=(self.size, max(1, self.shape[1])),
            storage=storage,
            numbers=self.number_type,
            layout="upper triangle by rows",
            n_inputs=self.inputs,
        )
        for part, block in zip(zarr_store.chunks(stored), self.blocks, strict=True):
            stored[part] = block


def save_checkpoint(
    run: Run, writer: CheckpointWriter, iteration: int, network: Network, learner: Learner, config: Config, working: int = 0,
    more: Mapping[str, tuple[np.ndarray, list[str]]] | None = None, **attributes: Any,
) -> None:  # fmt: skip
    """Writes weights and P; the checkpoint appears under its name when it is complete on the disk, and then older ones are removed.

    The learner may change after this function has returned: `writer` writes a copy of it, and there is at most one copy. If the
    memory is too small for a copy, P is written in blocks before the function returns; the log says so.

    Args:
      run: the run.
      writer: thread that writes.
      iteration: iteration of the weights and P.
      network: neurons and connectivity.
      learner: weights and P.
      config: the settings, for the attributes.
      working: bytes that training needs, in addition to those in use now, while it goes on.
      more: other arrays by name, with the names of their axes; they must not change afterwards.
      attributes: other attributes of the store.
    """
    began = time.perf_counter()
    writer.wait()
    path, weight = run.checkpoint_of(iteration), from_groups(np.array(learner.w), network.n_neurons)
    extra = {name: (np.array(values), dims) for name, (values, dims) in learner.P.extra().items()} | dict(more or {})
    numbers = learner.P.numbers
    P = None if numbers is None else PackedP.of(numbers, network.n_inputs)
    copied = P is None or 2 * P.n_bytes < free_memory() - working
    if P is not None and copied:
        P = P._replace(blocks=list(P.blocks))
    double_precision = bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]  # JAX keeps it by thread; blocks of P may be computed in the other one

    def write() -> None:
        with jax.enable_x64(double_precision), atomic.replacing(path) as temporary:
            root = _create(run, temporary, iteration, weight, network, config, **attributes)
            for name, (values, dims) in extra.items():
                zarr_store.write(root, name, values, dims, compress=False)
            if P is not None:
                P.write(root, config.rls.storage)
            zarr_store.seal(temporary)
        _remove_older(run, config.train.keep_checkpoints)

    writer.submit(write)
    if P is not None and not copied:
        writer.wait()
        size, seconds = byte_size(P.n_bytes), time.perf_counter() - began
        log.info("Checkpoint %d: training waited %.1f s for it, as the memory is too small for a copy of P (%s).", iteration, seconds, size)


def _remove_older(run: Run, keep: int | None) -> None:
    """Removes all checkpoints but the newest `keep` (None: removes none); those of versions that kept all of them stay."""
    for iteration in [] if keep is None else run.iterations()[:-keep]:
        path = run.checkpoint_of(iteration)
        with contextlib.suppress(UserError):  # what cannot be read is left to the user
            written_with = zarr_store.open_group(path, "", FORMAT).attrs.get("config")
            if isinstance(written_with, dict) and "keep_checkpoints" in written_with.get("train", {}):
                atomic.discard(path)


def save_best(
    run: Run, writer: CheckpointWriter, iteration: int, network: Network, learner: Learner, config: Config, validation: float
) -> None:
    """Writes the weights with the best score of validation so far, and removes earlier ones; other arguments as in `save_checkpoint`."""
    path, weight = run.checkpoints / f"{iteration:06d}.best.zarr", from_groups(np.array(learner.w), network.n_neurons)

    def write() -> None:
        with atomic.replacing(path) as temporary:
            _create(run, temporary, iteration, weight, network, config, validation=validation)
            zarr_store.seal(temporary)
        for old in run.bests().values():
            if old != path:
                atomic.discard(old)

    writer.submit(write)


def load_weights(group: zarr.Group, path: Path, network: Network) -> Array:
    """[G, X+L, S] weights of a checkpoint at a path, opened, on the device; raises UserError if they are missing or have another shape."""
    x = network.n_feedforward
    weight = np.zeros((network.n_neurons, network.n_inputs), network.bias.dtype)
    for name, columns in (("feedforward/weight", slice(x)), ("plastic/weight", slice(x, None))):
        if weight[:, columns].size:
            weight[:, columns] = read_array(group, name, weight[:, columns].shape, "f", path)
    return jnp.asarray(to_groups(weight, network.group_size))


def chosen_weights(run: Run, which: str, key: str, network: Network) -> tuple[Path, zarr.Group, Array]:
    """(path, the open checkpoint, its weights) of a checkpoint; arguments as of `Run.checkpoint`.

    A process that trains the run removes older checkpoints. If that happens meanwhile to one that the run has chosen, as by `last`,
    the choice is made anew.
    """
    for attempts_left in reversed(range(CHOICES)):
        path = run.checkpoint(which, key)
        try:
            group = run.open_checkpoint(path)
            return path, group, load_weights(group, path, network)
        except (UserError, OSError):
            if path.exists() or which not in ("auto", "best", "last") or not attempts_left:
                raise
    raise AssertionError


def load_learner(run: Run, iteration: int, network: Network, config: Config) -> Learner:
    """Weights and P of a checkpoint; P is copied to the device block by block.

    Raises:
      UserError: arrays are missing or incomplete, or have another shape, or the checkpoint belongs to another run or iteration.
    """
    path = run.checkpoint_of(iteration)
    group = run.open_checkpoint(path)
    w = load_weights(group, path, network)
    like = jax.eval_shape(partial(rls.init, config.rls, update=backend.from_config(config).update), network, w).P
    extra = {
        name: jnp.asarray(read_array(group, name, expected.shape, "fiub", path).astype(expected.dtype))
        for name, (expected, _) in like.extra().items()
    }
    expected = like.numbers
    if expected is None:
        return Learner(w, like.restored(None, extra))
    groups, inputs = w.shape[:2]
    stored = zarr_store.array(group, "P", [groups, inputs * (inputs + 1) // 2], "fiu", str(path))
    zarr_store.check_complete(stored)
    numbers = jnp.zeros(expected.shape, expected.dtype)
    for part in zarr_store.chunks(stored):
        block = zarr_store.read(stored, part)
        block = block.view(jnp.bfloat16) if expected.dtype == jnp.bfloat16 else block.astype(expected.dtype)
        numbers = _with_triangles(numbers, jnp.asarray(block), jnp.int32(part.start))
    return Learner(w, like.restored(numbers, extra))


def _create(run: Run, path: Path, iteration: int, weight: np.ndarray, network: Network, config: Config, **attributes: Any) -> zarr.Group:
    """A new checkpoint without P, of a run, at a temporary path; weight [N, X+L]."""
    attributes |= {NETWORK: zarr_store.fingerprint(run.network)}
    info = {"format": FORMAT, "version": VERSION, "iteration": iteration, "config": to_dict(config), "versions": versions()}
    info["machine"] = {**resources.machine(), "device": next(iter(network.bias.devices())).device_kind}
    root = zarr.create_group(str(path), attributes={**info, **attributes})
    x = network.n_feedforward
    zarr_store.write(root, "plastic/weight", weight[:, x:], ["neuron", "input"], compress=False, units="threshold*ms")
    if x:
        zarr_store.write(root, "feedforward/weight", weight[:, :x], ["neuron", "feedforward"], compress=False, units="threshold*ms")
    return root


def read_array(group: zarr.Group, name: str, shape: Sequence[int], kind: str, path: Path) -> np.ndarray:
    """A complete array of a checkpoint; arguments as in `zarr_store.array`."""
    stored = zarr_store.array(group, name, list(shape), kind, str(path))
    zarr_store.check_complete(stored)
    return zarr_store.read(stored)


@partial(jax.jit, static_argnums=2)
def _triangles(numbers: Array, start: Array, size: int) -> Array:
    """[size, L*(L+1)/2] upper triangles of the groups from `start` on, of P [G, L, L], with rows of any length, or [G, L*(L+1)/2]."""
    block = lax.dynamic_slice_in_dim(numbers, start, size)
    return block if numbers.ndim == 2 else block[(slice(None), *np.triu_indices(numbers.shape[-2]))]


@partial(jax.jit, donate_argnums=0)
def _with_triangles(numbers: Array, triangles: Array, start: Array) -> Array:
    """P, as of `_triangles`, with the groups from `start` on replaced by those of upper triangles [n, L*(L+1)/2]."""
    block = triangles if numbers.ndim == 2 else triangles[:, triangle(numbers.shape[-2])]
    return lax.dynamic_update_slice(numbers, block, (start, *[jnp.zeros_like(start)] * (numbers.ndim - 1)))
