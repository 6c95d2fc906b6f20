"""The layout of a run folder: config.yaml, network.zarr, checkpoints/, {metrics,resources}.jsonl, test.zarr, perturbed/, figures/.

What is under its final name is whole. A checkpoint is `checkpoints/000100.zarr` (weights and P, to resume from) or
`checkpoints/000087.best.zarr` (the weights of the best iteration so far).
"""

from __future__ import annotations

import contextlib
import json
import logging
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import yaml
import zarr
from jax import Array, lax

from rlsnet import resources, rls, zarrio
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
METRICS = {"iteration", "task", "seconds", "rate_hz", "rate_exc_hz", "rate_inh_hz", "correlation", "n_undefined"}
P_BLOCK_BYTES = 64 * 2**20  # of P in full, moved between device and disk at a time


def versions() -> dict[str, str]:
    """Versions of the packages that a result depends on; "not installed" for rlsnet run from its source folder."""

    def version(name: str) -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return "not installed"

    packages = ("rlsnet", "jax", "jaxlib", "numpy", "zarr", "hydra-core")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


@partial(jax.jit, static_argnums=2)
def _packed(numbers: Array, start: Array, size: int) -> Array:
    """[size, L(L+1)/2] upper triangles of `size` matrices of P, whole or packed."""
    block = lax.dynamic_slice_in_dim(numbers, start, size)
    return block if numbers.ndim == 2 else block[(slice(None), *np.triu_indices(numbers.shape[-1]))]


@partial(jax.jit, donate_argnums=0)
def _unpack(numbers: Array, packed: Array, start: Array) -> Array:
    """P with the matrices from `start` on replaced by packed ones."""
    block = packed if numbers.ndim == 2 else packed[:, triangle(numbers.shape[-1])]
    return lax.dynamic_update_slice_in_dim(numbers, block, start, 0)


class Writer:
    """Writes while training goes on, one thing after another in one thread. As a context it ends when all is written."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._last: Future[None] | None = None

    def __enter__(self) -> Writer:
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
        """Returns when all is written; raises what went wrong."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def check(self) -> None:
        """Raises what went wrong, if it is known by now."""
        if self._last is not None and self._last.done():
            self.wait()

    def submit(self, write: Callable[[], None]) -> None:
        """Has `write` called once what was submitted before is written, also if that fails; raises that failure."""
        before, self._last = self._last, self._thread.submit(write)
        if before is not None:
            before.result()


class Run:
    """A run folder."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.network, self.metrics, self.test = self.path / "network.zarr", self.path / "metrics.jsonl", self.path / "test.zarr"
        self.resources, self.perturbed = self.path / "resources.jsonl", self.path / "perturbed"
        self.figures, self.checkpoints = self.path / "figures", self.path / "checkpoints"

    @staticmethod
    def open(path: str | Path, key: str) -> Run:
        """An existing run; `key` is the setting that named it."""
        run = Run(path)
        if not (run.path / "config.yaml").exists():
            raise UserError(f"{key}={path}: no run there; expected a folder that rlsnet train made, with a config.yaml.")
        return run

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Keeps other processes out of the folder for as long as the block runs, however this process ends."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as lock:
            try:
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except ImportError:  # no such locks on this system
                pass
            except BlockingIOError as error:
                raise UserError(
                    f"{self.path}: another process is at work in this folder; wait for it or choose another hydra.run.dir."
                ) from error
            for killed in [*self.path.glob(".*.tmp"), *self.checkpoints.glob(".*.tmp")]:
                zarrio.remove(killed)
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
        """Removes what an earlier run that never reached a checkpoint left behind."""
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
        """Adds one line to metrics.jsonl."""
        with self.metrics.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; one that a crash cut short is left out."""
        lines: list[dict[str, Any]] = []
        for text in self.metrics.read_text(errors="replace").splitlines() if self.metrics.exists() else []:
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                break
            if not isinstance(line, dict) or METRICS - line.keys():
                raise UserError(f"{self.metrics}: line {len(lines) + 1} should be an object with {', '.join(sorted(METRICS))}.")
            lines.append(line)
        return lines

    def cut_metrics(self, iteration: int) -> None:
        """Drops the metrics of what came after `iteration`, before it is done again."""
        kept = [line for line in self.read_metrics() if line["iteration"] <= iteration]
        with zarrio.replacing(self.metrics) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def perturbed_result(self, label: str) -> Path:
        """Where the result of a perturbed test goes."""
        return self.perturbed / f"{label}.zarr"

    def perturbed_results(self) -> dict[str, Path]:
        """The stored results of perturbations by their label."""
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

    def _write(self, path: Path, iteration: int, weight: np.ndarray, network: Network, config: Config, **attributes: Any) -> zarr.Group:
        """A checkpoint without P; weight [N, X+L]."""
        info = {"format": FORMAT, "version": VERSION, "iteration": iteration, "config": to_dict(config), "versions": versions()}
        info["machine"] = {**resources.machine(), "device": jax.devices()[0].device_kind}
        root = zarr.create_group(str(path), attributes={**info, **attributes})
        x = network.n_feedforward
        zarrio.write(root, "plastic/weight", weight[:, x:], ["neuron", "input"], compress=False, units="threshold*ms")
        if x:
            zarrio.write(root, "feedforward/weight", weight[:, :x], ["neuron", "feedforward"], compress=False, units="threshold*ms")
        return root

    def save_checkpoint(self, writer: Writer, iteration: int, network: Network, learner: Learner, config: Config) -> None:
        """Writes weights and P; the folder appears under its name when all of it is on the disk.

        The learner is free to change when this returns: what is left to do, `writer` does from a copy, the only one. Where
        there is no memory for one, P is written here and now, by blocks.
        """
        writer.wait()
        weight, P = from_groups(np.array(learner.w), network.n_neurons), learner.P
        numbers = P.numbers
        extra = {name: (np.array(values), dims) for name, (values, dims) in P.extra().items()}
        blocks: Iterable[np.ndarray] = []
        copied = True
        if numbers is not None:
            groups, inputs, dtype = len(numbers), network.n_inputs, numbers.dtype
            entries = inputs * (inputs + 1) // 2
            size = max(1, min(groups, P_BLOCK_BYTES // max(1, inputs * inputs * dtype.itemsize)))
            on_disk = np.dtype("uint16") if dtype == jnp.bfloat16 else np.dtype(dtype)
            blocks = (
                np.asarray(_packed(numbers, jnp.int32(start), min(size, groups - start))).view(on_disk) for start in range(0, groups, size)
            )
            copied = groups * entries * dtype.itemsize < free_memory() / 2
            if copied:
                blocks = list(blocks)

        def write() -> None:
            with zarrio.replacing(self.checkpoints / f"{iteration:06d}.zarr") as temporary:
                root = self._write(temporary, iteration, weight, network, config)
                for name, (values, dims) in extra.items():
                    zarrio.write(root, name, values, dims, compress=False)
                if numbers is None:
                    return
                stored = root.create_array(
                    "P",
                    shape=(groups, entries),
                    chunks=(size, max(1, entries)),
                    dtype=on_disk,
                    compressors=None,
                    config={"write_empty_chunks": True},
                    dimension_names=["group", "entry"],
                    attributes={
                        "storage": config.rls.storage,
                        "numbers": str(dtype),
                        "layout": "upper triangle by rows",
                        "n_inputs": inputs,
                    },
                )
                for part, block in zip(zarrio.chunks(stored), blocks, strict=True):
                    stored[part] = block

        writer.submit(write)
        if not copied:
            writer.wait()

    def save_best(self, writer: Writer, iteration: int, network: Network, learner: Learner, config: Config, correlation: float) -> None:
        """Has the weights of the best iteration written, and then those of the one before removed."""
        path, weight = self.checkpoints / f"{iteration:06d}.best.zarr", from_groups(np.array(learner.w), network.n_neurons)

        def write() -> None:
            with zarrio.replacing(path) as temporary:
                self._write(temporary, iteration, weight, network, config, correlation=correlation)
            for old in self.checkpoints.glob("*.best.zarr"):
                if old != path:
                    zarrio.remove(old)

        writer.submit(write)

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

    def load_weights(self, path: Path, network: Network) -> Array:
        """[G, X+L, S] weights of a checkpoint, on the device."""
        group, x = zarrio.open_group(path, "checkpoint", FORMAT), network.n_feedforward
        weight = np.zeros((network.n_neurons, network.n_inputs), network.bias.dtype)
        for name, columns in (("feedforward/weight", slice(x)), ("plastic/weight", slice(x, None))):
            if weight[:, columns].size:
                stored = zarrio.array(group, name, list(weight[:, columns].shape), "f", str(path))
                zarrio.check_complete(stored)
                weight[:, columns] = zarrio.read(stored)
        return jnp.asarray(to_groups(weight, network.group_size))

    def load_learner(self, iteration: int, network: Network, config: Config) -> Learner:
        """Weights and P after an iteration; P is filled on the device block by block."""
        path = self.checkpoints / f"{iteration:06d}.zarr"
        w = self.load_weights(path, network)
        groups, inputs = w.shape[:2]
        group = zarrio.open_group(path, "checkpoint", FORMAT)
        like = jax.eval_shape(partial(rls.init, config.rls), network, w).P
        extra = {}
        for name, (expected, _) in like.extra().items():
            stored = zarrio.array(group, name, list(expected.shape), "fiub", str(path))
            zarrio.check_complete(stored)
            extra[name] = jnp.asarray(zarrio.read(stored).astype(expected.dtype))
        if (expected := like.numbers) is None:
            return Learner(w, like.restored(None, extra))
        stored = zarrio.array(group, "P", [groups, inputs * (inputs + 1) // 2], "fiu", str(path))
        zarrio.check_complete(stored)
        numbers = jnp.zeros(expected.shape, expected.dtype)
        for part in zarrio.chunks(stored):
            block = zarrio.read(stored, part)
            block = block.view(jnp.bfloat16) if expected.dtype == jnp.bfloat16 else block.astype(expected.dtype)
            numbers = _unpack(numbers, jnp.asarray(block), jnp.int32(part.start))
        return Learner(w, like.restored(numbers, extra))
