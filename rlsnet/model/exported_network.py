"""Networks that `rlsnet export` wrote, to=zarr or to=npz, in the layout of network.zarr, for network.load.

The trained weights become the initial weights. Targets, stimuli and feed-forward rates are not exported.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from rlsnet.errors import UserError, first_line
from rlsnet.io import memory, npz_files, zarr_store
from rlsnet.io.formatting import byte_size

ZARR, NPZ = "rlsnet-export", "rlsnet-npz"  # formats, as the files say
ABOUT = "about.json"  # description of an export to npz
GAP_MS = 1000.0  # between two trials, where an export has them one after the other
OTHER_NAMES = {"tau_plas": "tau_plastic"}  # of parameters in an export
NOT_PARAMETERS = ("excitatory", "tau_plastic")


def from_zarr(group: zarr.Group) -> zarr.Group:
    """The network of an export to zarr, rearranged in memory. Raises UserError if the export is damaged."""

    def values(name: str) -> np.ndarray | None:
        return zarr_store.read(group[name]) if name in group else None

    vectors = {name: stored for name, stored in group.arrays() if stored.metadata.dimension_names == ("neuron",) and name != "neuron"}
    neurons = {name: zarr_store.read(stored) for name, stored in vectors.items() if stored.dtype.kind in "fb"}
    with _one_line_errors(str(group.store)):
        static = (values("static_indptr"), values("static_post"), values("static_weight"))
        plastic = (values("plastic_indptr"), values("plastic_pre"), values("plastic_weight"))
        more = values("static_class_weight"), values("feedforward_weight"), values("static_delay")
        return _arranged(neurons, static, plastic, *more, group.attrs)


def from_npz(path: Path) -> zarr.Group:
    """The network of an export to npz, rearranged in memory. Raises UserError if the export is damaged."""
    with _one_line_errors(str(path)):
        about = json.loads((path / ABOUT).read_text())
        npz_files.check_npz(path / "neurons.npz", f"network.load={path / 'neurons.npz'}")
        with np.load(path / "neurons.npz", allow_pickle=False) as file:
            neurons = {name: file[name] for name in file.files if file[name].dtype.kind in "fb"}
        static, plastic = _sparse(path / "static.npz").tocsc(), _sparse(path / "plastic.npz").tocsr()
        feedforward = delay = None
        if (path / "static_delay.npz").exists():
            delay = _sparse(path / "static_delay.npz").tocsc().data
        if (path / "feedforward.npz").exists():
            matrix = _sparse(path / "feedforward.npz")
            memory.check_fits(math.prod(matrix.shape) * matrix.dtype.itemsize, f"network.load={path / 'feedforward.npz'}")
            feedforward = matrix.toarray()
        return _arranged(
            neurons,
            (static.indptr, static.indices, static.data),
            (plastic.indptr, plastic.indices, plastic.data),
            None,
            feedforward,
            delay,
            about,
        )


def _sparse(path: Path) -> Any:
    """Sparse matrix of a file of the export. Raises UserError if it does not fit in the free memory."""
    return npz_files.load_sparse(path, f"network.load={path}")


@contextmanager
def _one_line_errors(where: str) -> Iterator[None]:
    """Context that turns errors of reading into a UserError of one line."""
    try:
        yield
    except (OSError, ValueError, KeyError, IndexError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"network.load={where}: the export is damaged ({first_line(error)}).") from error
    except MemoryError as error:
        raise UserError(f"network.load={where}: does not fit in the free memory, {byte_size(memory.free_memory())}.") from error


def _arranged(
    neurons: dict[str, np.ndarray],
    static: tuple[Any, Any, Any],
    plastic: tuple[Any, Any, Any],
    class_weight: np.ndarray | None,
    feedforward: np.ndarray | None,
    delay: np.ndarray | None,
    about: Mapping[str, Any],
) -> zarr.Group:
    """Group in the layout of network.zarr.

    Args:
      neurons: [N] values by name, as the export has them.
      static: (indptr [N+1], post [edges], weight [edges]) of the presynaptic neurons.
      plastic: (indptr [N+1], pre [synapses], weight [synapses]) of the postsynaptic neurons.
      class_weight: [2, 2] static weights by class, instead of those of each synapse; or None.
      feedforward: [N, X] weights, or None.
      delay: [edges] ms, delays of the static synapses, or None.
      about: description of the export.
    """
    root = zarr.create_group(zarr.storage.MemoryStore())
    names = {name: name for name in neurons if name not in NOT_PARAMETERS} | OTHER_NAMES
    arrays = {f"neuron/{name}": neurons[exported] for name, exported in names.items() if exported in neurons}
    arrays |= {"neuron/excitatory": neurons["excitatory"], "static/indptr": static[0], "static/post": static[1]}
    arrays |= {"static/weight": static[2]} if class_weight is None else {"static/class_weight": class_weight}
    size = int(about.get("group_size", 1))
    indptr, n = np.asarray(plastic[0], np.int64), len(neurons["excitatory"])
    counts = np.diff(indptr)
    memory.check_fits(n * int(counts.max(initial=0)) * (4 + np.asarray(plastic[2]).itemsize), f"network.load: {n:,} neurons")
    pre, weight = np.full((n, counts.max(initial=0)), -1, np.int32), np.zeros((n, counts.max(initial=0)), np.asarray(plastic[2]).dtype)
    used = np.arange(pre.shape[1]) < counts[:, None]
    pre[used], weight[used] = plastic[1], plastic[2]
    if pre.shape[1]:
        arrays |= {"plastic/pre": pre[::size], "plastic/weight": weight}
    arrays |= {} if feedforward is None else {"feedforward/weight": feedforward}
    arrays |= {} if delay is None else {"static/delay": delay}
    for name, values in arrays.items():
        root.create_array(name, data=np.asarray(values), compressors=None)
    root.require_group("plastic").attrs["group_size"] = size
    return root
