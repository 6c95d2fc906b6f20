"""Checkpoints: weights and P of a learner in a Zarr store, written in a thread of their own while training goes on."""

from __future__ import annotations

import contextlib
import logging
import math
import os
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
from rlsnet.kernels import backend, processes
from rlsnet.learning import rls
from rlsnet.learning.covariance_forms import triangle
from rlsnet.learning.rls import Learner
from rlsnet.model import sharding
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
        """Calls `write` in the thread, after the previous write; waits for that one, and raises its exception if it failed.

        Of several processes, which write together, each calls it at once: only then do they exchange messages in one order.
        """
        if processes.several():
            write()
            return
        before, self._last = self._last, self._thread.submit(write)
        if before is not None:
            before.result()


class PackedP(NamedTuple):
    """Upper triangles of P, in blocks of groups, as they are written to the disk.

    groups: number of groups G.
    inputs: number of inputs L.
    size: number of groups in a chunk on the disk; a block has at most as many, of one chunk.
    number_type: type of the numbers of P, such as float32 or bfloat16.
    stored_type: type of the numbers on the disk; bfloat16 is stored as the same 16 bits in uint16.
    blocks: (number of the first group, array [n, L*(L+1)/2]) of the groups of this process in order, of stored_type.
    """

    groups: int
    inputs: int
    size: int
    number_type: str
    stored_type: np.dtype
    blocks: Iterable[tuple[int, np.ndarray]]

    @staticmethod
    def of(numbers: Array, inputs: int, groups: int) -> PackedP:
        """The blocks of P [G, L, L] or [G, L*(L+1)/2]; each is computed and copied from its device when it is requested.

        `groups` is G; on several devices `numbers` has more.
        """
        itemsize, shards = numbers.dtype.itemsize, shards_of(numbers, groups)
        size = max(1, min(groups, P_BLOCK_BYTES // max(1, inputs * inputs * itemsize)))
        if len(numbers.sharding.device_set) > 1:
            size = chunk_of_shard(numbers, size)
        stored_type = np.dtype("uint16") if numbers.dtype == jnp.bfloat16 else np.dtype(numbers.dtype)
        blocks = (
            (first + start, np.asarray(_triangles(part, np.int32(start), min(size, count - start))).view(stored_type))
            for first, count, part in shards
            for start in range(0, count, size)
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

    def create(self, root: zarr.Group, storage: str) -> zarr.Array:
        """A new array P of a checkpoint; `storage` is rls.storage."""
        return zarr_store.create(
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


def shards_of(values: Array, groups: int) -> list[tuple[int, int, Array]]:
    """(first group, number of groups, array) of the shards of an array [G, ...] on the devices of this process, in order; `groups`: G."""
    found = {shard.index[0].start or 0: shard.data for shard in values.addressable_shards if shard.replica_id == 0}
    return [(first, min(len(part), groups - first), part) for first, part in sorted(found.items()) if first < groups]


def chunk_of_shard(values: Array, most: int) -> int:
    """Number of groups in a chunk, at most `most`, so that a shard has whole chunks: no two processes write to one."""
    each = len(values.addressable_shards[0].data)
    return max(size for size in range(1, most + 1) if each % size == 0)


class _Weights(NamedTuple):
    """Weights [N, L], in blocks (first neuron, array) of those of this process; `rows`: of a chunk on the disk, None for any number."""

    shape: tuple[int, int]
    rows: int | None
    blocks: list[tuple[int, np.ndarray]]

    @staticmethod
    def of(w: Array, network: Network) -> _Weights:
        """Those of w [G, L, S]."""
        n, size, shards = network.n_whole, network.group_size, shards_of(w, network.n_groups)
        blocks = [(first * size, from_groups(np.array(part), min(count * size, n - first * size))) for first, count, part in shards]
        row = w.shape[1] * size * w.dtype.itemsize
        rows = chunk_of_shard(w, max(1, zarr_store.CHUNK_BYTES // row)) * size if network.mesh is not None else None
        return _Weights((n, w.shape[1]), rows, blocks)


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
    path, weights = run.checkpoint_of(iteration), _Weights.of(learner.w, network)
    extra = dict(more or {})
    for name, (values, dims) in learner.P.extra().items():
        whole = np.array(sharding.on_host(values))  # a copy
        extra[name] = whole[: network.n_groups] if dims[0] == "group" else whole, dims
    numbers = learner.P.numbers
    P = None if numbers is None else PackedP.of(numbers, network.n_inputs, network.n_groups)
    copied = not processes.several() and (P is None or 2 * P.n_bytes < free_memory() - working)
    if P is not None and copied:
        P = P._replace(blocks=list(P.blocks))
    double_precision = bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]  # JAX keeps it by thread; blocks of P may be computed in the other one

    def create(temporary: Path) -> None:
        root = _create(run, temporary, iteration, weights, network, config, **attributes)
        for name, (values, dims) in extra.items():
            zarr_store.write(root, name, values, dims, compress=False)
        if P is not None:
            P.create(root, config.rls.storage)

    def write() -> None:
        with jax.enable_x64(double_precision):
            _write(path, create, lambda temporary: _write_blocks(temporary, network, weights, P))
        if run.writes:
            _remove_older(run, config.train.keep_checkpoints)

    writer.submit(write)
    if P is not None and not copied and not processes.several():
        writer.wait()
        size, seconds = byte_size(P.n_bytes), time.perf_counter() - began
        log.info("Checkpoint %d: training waited %.1f s for it, as the memory is too small for a copy of P (%s).", iteration, seconds, size)


def _write_blocks(path: Path, network: Network, weights: _Weights, P: PackedP | None) -> None:
    """Writes what this process has of the weights and P to a checkpoint at a temporary path, in which the arrays exist."""
    x = network.n_feedforward
    for name, columns in (("plastic/weight", slice(x, None)), ("feedforward/weight", slice(x))):
        for first, block in weights.blocks if name == "plastic/weight" or x else []:
            zarr_store.reopened(path, name)[first : first + len(block)] = block[:, columns]
    if P is not None:
        stored = zarr_store.reopened(path, "P")
        for first, block in P.blocks:
            stored[first : first + len(block)] = block


def _write(path: Path, create: Callable[[Path], None], write: Callable[[Path], None]) -> None:
    """Writes a store: create(temporary path) makes its arrays, write(temporary path) writes what this process has.

    Of several processes, the first one creates it, each writes its blocks, and the first one completes it.

    Raises:
      UserError: another process could not write.
      OSError: this process could not.
    """
    if not processes.several():
        with atomic.replacing(path) as alone:
            create(alone)
            write(alone)
            zarr_store.seal(alone)
        return
    with contextlib.ExitStack() as stack:
        temporary = ""
        with processes.agreed("write the checkpoint"):
            if processes.number() == 0:
                opened = stack.enter_context(atomic.replacing(path))
                create(opened)
                temporary = str(opened.absolute())
        temporary = processes.tell({"path": temporary} if temporary else None)["path"]
        with processes.agreed("write the checkpoint"):
            write(Path(temporary))
            os.sync()  # the first process forces to the disk only what its own computer has
        with processes.agreed("write the checkpoint"):
            if processes.number() == 0:
                zarr_store.seal(Path(temporary))
                stack.close()


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
    path, weights = run.checkpoints / f"{iteration:06d}.best.zarr", _Weights.of(learner.w, network)

    def create(temporary: Path) -> None:
        _create(run, temporary, iteration, weights, network, config, validation=validation)

    def write() -> None:
        _write(path, create, lambda temporary: _write_blocks(temporary, network, weights, None))
        for old in run.bests().values() if run.writes else ():
            if old != path:
                atomic.discard(old)

    writer.submit(write)


def load_weights(group: zarr.Group, path: Path, network: Network) -> Array:
    """[G, X+L, S] weights of a checkpoint at a path, opened, on the devices; raises UserError if they are missing or have another shape.

    Each process reads those of its devices.
    """
    x, n, size = network.n_feedforward, network.n_whole, network.group_size
    stored = {}
    for name, columns in (("feedforward/weight", slice(x)), ("plastic/weight", slice(x, None))):
        width = len(range(network.n_inputs)[columns])
        if width:
            stored[name] = columns, zarr_store.array(group, name, [n, width], "f", str(path))
            zarr_store.check_complete(stored[name][1])

    def of(index: tuple[slice, ...]) -> np.ndarray:
        first, end, _ = index[0].indices(network.pre.shape[0])
        weight = np.zeros(((end - first) * size, network.n_inputs), network.bias.dtype)
        there = max(0, min(end * size, n) - first * size)
        for columns, array in stored.values() if there else ():
            weight[:there, columns] = zarr_store.read(array, slice(first * size, first * size + there))
        return to_groups(weight, size)

    if network.mesh is None:
        return jnp.asarray(of((slice(None),)))
    return sharding.from_parts((network.pre.shape[0], network.n_inputs, size), network.mesh, of)


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
    extra = {}
    for name, (values, _) in like.extra().items():
        shape = values.shape if network.mesh is None else (network.n_groups, *values.shape[1:])
        extra[name] = sharding.of_groups(network, read_array(group, name, shape, "fiub", path).astype(values.dtype))
    expected = like.numbers
    if expected is None:
        return Learner(w, like.restored(None, extra))
    groups, inputs = network.n_groups, w.shape[1]
    stored = zarr_store.array(group, "P", [groups, inputs * (inputs + 1) // 2], "fiu", str(path))
    zarr_store.check_complete(stored)

    def on_device(first: int, count: int, where: jax.Device | None) -> Array:
        """P of `count` groups from `first` on, on a device."""
        numbers = jnp.zeros((count, *expected.shape[1:]), expected.dtype, device=where)
        end, size = min(first + count, groups), stored.chunks[0]
        for start in range(first, end, size):
            block = zarr_store.read(stored, slice(start, min(start + size, end)))
            block = block.view(jnp.bfloat16) if expected.dtype == jnp.bfloat16 else block.astype(expected.dtype)
            numbers = _with_triangles(numbers, jax.device_put(block, where), jnp.int32(start - first))
        return numbers

    if network.mesh is None:
        return Learner(w, like.restored(on_device(0, groups, None), extra))
    parts = [on_device(shard.index[0].start or 0, len(shard.data), shard.device) for shard in w.addressable_shards]
    return Learner(w, like.restored(jax.make_array_from_single_device_arrays(expected.shape, w.sharding, parts), extra))


def _create(run: Run, path: Path, iteration: int, weights: _Weights, network: Network, config: Config, **attributes: Any) -> zarr.Group:
    """A new checkpoint without P, of a run, at a temporary path, in which the weights are to be written."""
    attributes |= {NETWORK: zarr_store.fingerprint(run.network)}
    info = {"format": FORMAT, "version": VERSION, "iteration": iteration, "config": to_dict(config), "versions": versions()}
    info["machine"] = {**resources.machine(), "device": network.bias.addressable_shards[0].device.device_kind}
    root = zarr.create_group(str(path), attributes={**info, **attributes})
    (n, inputs), dtype = weights.shape, network.bias.dtype
    for name, width, dim in (("plastic", inputs - network.n_feedforward, "input"), ("feedforward", network.n_feedforward, "feedforward")):
        if width or name == "plastic":
            chunks = None if weights.rows is None else (weights.rows, max(1, width))
            options: dict[str, Any] = {"compress": False, "chunks": chunks, "units": "threshold*ms"}
            zarr_store.create(root, f"{name}/weight", (n, width), dtype, ["neuron", dim], **options)
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
