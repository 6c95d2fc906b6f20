"""The network: who is connected to whom. Drawn from counters, or loaded from a network.zarr, and saved as one.

Dimension letters, here and everywhere: N neurons, K static outputs and L plastic inputs of a neuron, G groups of S
neurons that share plastic inputs, T steps and M learning points of a trial, C conditions.
"""

from __future__ import annotations

import dataclasses
import logging
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import zarr
from jax import Array

from rlsnet import rng, wiring, zarrio
from rlsnet.config import Config, UserError

log = logging.getLogger(__name__)

FORMAT = "rlsnet-network"
VERSION = 1


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["excitatory", "bias", "v0", "indptr", "post", "weight", "class_weight", "pre", "out_indptr", "out_slot"],
    meta_fields=["group_size", "static_width", "plastic_width"],
)
@dataclasses.dataclass(frozen=True)
class Network:
    """What stays fixed during an experiment.

    excitatory: [N] bool, the others are inhibitory.
    bias: [N] constant drive X_bal, threshold units.
    v0: [N] initial voltage of every trial, or None: drawn anew each trial.
    indptr: [N+1] int32, neuron j's static outputs are edges indptr[j] to indptr[j+1].
    post: [nnz] int32, postsynaptic neuron of each static edge, padded so that static_width can be read from any start.
    weight: [nnz] weight of each static edge (threshold*ms), padded alike; or None: class_weight holds.
    class_weight: [2, 2] static weights by class, presynaptic first, excitatory = 0; or None.
    pre: [G, L] int32, plastic inputs of a group of neurons; -1 pads. Neuron n is in group n // group_size.
    out_indptr: [N+1] int32, neuron j's plastic outputs are out_slot[out_indptr[j]] to out_slot[out_indptr[j+1]].
    out_slot: [G*L] int32, flat positions g*L + l in pre, padded so that plastic_width can be read from any start.
    group_size: S.
    static_width, plastic_width: largest number of edges or slots of one neuron.
    """

    excitatory: Array
    bias: Array
    v0: Array | None
    indptr: Array
    post: Array
    weight: Array | None
    class_weight: Array | None
    pre: Array
    out_indptr: Array
    out_slot: Array
    group_size: int
    static_width: int
    plastic_width: int

    @property
    def n_neurons(self) -> int:
        """N."""
        return self.excitatory.shape[0]

    @property
    def n_inputs(self) -> int:
        """L."""
        return self.pre.shape[1]

    @property
    def n_edges(self) -> int:
        """Static edges, without padding."""
        return int(self.indptr[-1])


def build(config: Config, n_units: int | None = None) -> tuple[Network, np.ndarray, np.ndarray | None]:
    """The network of an experiment: what network.load gives, the rest drawn.

    Args:
      config: the experiment.
      n_units: N where neither network.load nor network.n_neurons says it: the units of the recording.

    Returns:
      The network, initial plastic weights [N, L], and target currents [C, M, N] where network.load has them.
    """
    dtype = np.dtype(config.engine.precision)
    given = _Given(config.network.load)
    excitatory = given.read("neuron/excitatory", ["N"], "b")
    if excitatory is None:
        n = config.network.n_neurons or n_units
        if n is None:
            raise UserError("network.n_neurons=null: should be a number unless target=recording or network.load gives it.")
        excitatory = np.arange(n) < round(config.network.fraction_excitatory * n)
    n = len(excitatory)
    if n < 2:
        raise UserError(f"{given.path}: neuron/excitatory has {n} values; should be one per neuron, at least 2.")
    if given and config.network.n_neurons not in (None, n):
        log.info("network.load has %d neurons and its own sizes; network.n_neurons=%d does not count.", n, config.network.n_neurons)

    indptr, post, weight, class_weight = _static(config, given, n)
    size = given.group_size(config.plastic.group_size)
    pre = given.read("plastic/pre", ["G", "L"], "iu")
    if pre is None:
        check_plastic(config, excitatory)
        plastic = dataclasses.replace(config.plastic, group_size=size)
        pre = wiring.draw_plastic(rng.key(config.seed, rng.Purpose.PLASTIC), plastic, excitatory)
    elif len(pre) != -(-n // size):
        raise UserError(f"{given.path}: plastic/pre has {len(pre)} rows; should be {-(-n // size)}: {n} neurons in groups of {size}.")
    given.check_range("plastic/pre", pre, -1, n)
    if given and "plastic/pre" in given and not pre.shape[1]:
        raise UserError(f"{given.path}: plastic/pre has no inputs; should be of shape [{len(pre)}, L], or left out.")
    pre = np.ascontiguousarray(pre, np.int32)
    initial = given.read("plastic/weight", [n, pre.shape[1]], "f")
    if initial is None:
        initial = np.repeat(wiring.initial_weights(config.plastic, pre, excitatory), size, axis=0)[:n]
    bias = given.read("neuron/bias", [n], "f")
    if bias is None:
        bias = wiring.class_bias(config.static)[np.where(excitatory, 0, 1)]
    v0 = given.read("neuron/v0", [n], "f")
    target = given.read("target", ["C", config.trial.n_points, n], "f")
    if target is not None and not len(target):
        raise UserError(f"{given.path}: target holds no condition; should be of shape [C, {config.trial.n_points}, {n}].")

    out_indptr, out_slot = wiring.outputs_of(pre, n)
    static_width, plastic_width = _widest(indptr), _widest(out_indptr)
    network = Network(
        excitatory=jnp.asarray(excitatory),
        bias=jnp.asarray(bias, dtype),
        v0=None if v0 is None else jnp.asarray(v0, dtype),
        indptr=jnp.asarray(indptr),
        post=_padded(post, indptr, static_width),
        weight=None if weight is None else _padded(weight.astype(dtype), indptr, static_width),
        class_weight=None if class_weight is None else jnp.asarray(class_weight, dtype),
        pre=jnp.asarray(pre),
        out_indptr=jnp.asarray(out_indptr),
        out_slot=_padded(out_slot, out_indptr, plastic_width),
        group_size=size,
        static_width=static_width,
        plastic_width=plastic_width,
    )
    return network, np.asarray(initial, dtype), target


def check_plastic(config: Config, excitatory: np.ndarray) -> None:
    """Whether there are neurons enough of both classes to draw plastic inputs from; raises UserError."""
    n_exc, n_inh = int(excitatory.sum()), int((~excitatory).sum())
    most = 2 * min(n_exc, n_inh)
    if config.plastic.n_inputs > most:
        raise UserError(
            f"plastic.n_inputs={config.plastic.n_inputs}: should be at most {most}, as half of them are drawn from {n_exc} excitatory"
            f" and half from {n_inh} inhibitory neurons (network.n_neurons={len(excitatory)})."
        )


def _widest(indptr: np.ndarray) -> int:
    return int(np.max(np.diff(indptr), initial=0))


def _padded(values: Any, indptr: np.ndarray, width: int) -> Array:
    """`values` on the device, padded so that `width` of them can be read from the start of every run."""
    missing = int(np.max(indptr[:-1], initial=0)) + width - len(values)
    if missing > 0:
        values = np.concatenate([values, np.zeros(missing, values.dtype)])
    return jnp.asarray(values)


def _static(config: Config, given: _Given, n: int) -> tuple[np.ndarray, Any, np.ndarray | None, np.ndarray | None]:
    """(indptr, post, weight, class_weight) of the static wiring, loaded, drawn or empty."""
    indptr = given.read("static/indptr", [n + 1], "iu")
    if indptr is None:
        degree = config.static.out_degree
        if degree > n - 1:
            raise UserError(f"static.out_degree={degree}: should be at most {n - 1}, the other neurons (network.n_neurons={n}).")
        if n * degree >= 2**31:
            raise UserError(f"static.out_degree={degree}: makes {n * degree:,} static synapses; should be below {2**31:,} in all.")
        post = wiring.draw_static(rng.key(config.seed, rng.Purpose.STATIC), n, degree) if degree else np.zeros(0, np.int32)
        return np.arange(n + 1, dtype=np.int32) * np.int32(degree), post, None, wiring.class_weights(config.static)
    edges = int(indptr[-1])
    if indptr[0] != 0 or np.any(np.diff(indptr.astype(np.int64)) < 0):
        raise UserError(f"{given.path}: static/indptr should start at 0 and never fall.")
    if edges >= 2**31:
        raise UserError(f"{given.path}: has {edges:,} static synapses; should be below {2**31:,}.")
    post = given.read("static/post", [edges], "iu")
    if post is None:
        raise UserError(f"{given.path}: has static/indptr but no static/post; it should have both.")
    given.check_range("static/post", post, 0, n)
    weight, by_class = given.read("static/weight", [edges], "f"), given.read("static/class_weight", [2, 2], "f")
    if weight is None and by_class is None:
        raise UserError(f"{given.path}: has static wiring without weights; should have static/weight or static/class_weight.")
    return indptr.astype(np.int32), post.astype(np.int32), weight, by_class if weight is None else None


class _Given:
    """The arrays of network.load, each None where the store (or the setting) is not there."""

    def __init__(self, path: str | None):
        self.path = path
        self.group = None if path is None else zarrio.open_group(path, "network.load", FORMAT)
        if self.group is not None:
            zarrio.array(self.group, "neuron/excitatory", ["N"], "b", str(path))

    def __contains__(self, name: str) -> bool:
        return self.group is not None and name in self.group

    def read(self, name: str, shape: list[int | str], kind: str) -> np.ndarray | None:
        """The checked array, in memory."""
        if name not in self:
            return None
        values = zarrio.read(zarrio.array(self.group, name, shape, kind, str(self.path)))
        if name != "target" and values.dtype.kind == "f" and not np.all(np.isfinite(values)):  # NaN there: not trained
            raise UserError(f"{self.path}: {name} holds values that are not finite.")
        return values

    def group_size(self, otherwise: int) -> int:
        """S of the store's plastic wiring."""
        if "plastic/pre" not in self:
            return otherwise
        return group_size_of(self.group, str(self.path))

    def check_range(self, name: str, values: np.ndarray, low: int, end: int) -> None:
        """Whether indices lie in low..end-1; raises UserError."""
        if values.size and (values.min() < low or values.max() >= end):
            raise UserError(f"{self.path}: {name} reaches from {values.min()} to {values.max()}; should be within {low} to {end - 1}.")


def group_size_of(group: zarr.Group, where: str) -> int:
    """S of a store's plastic wiring; `where` names the store in a message."""
    size = {**group["plastic"].attrs, **group["plastic/pre"].attrs}.get("group_size", 1)
    if not isinstance(size, int) or size < 1:
        raise UserError(f"{where}: attribute group_size of plastic is {size!r}; should be a whole number, at least 1.")
    return size


def save(path: Path, network: Network, weight: np.ndarray, target: np.ndarray, **attributes: Any) -> None:
    """Writes a network.zarr, whole or not at all.

    Args:
      path: the store.
      network: wiring and neurons.
      weight: [N, L] initial plastic weights.
      target: [C, M, N] target currents.
      **attributes: more attributes of its root.
    """
    with zarrio.replacing(path) as temporary:
        root = zarr.create_group(str(temporary), attributes={"format": FORMAT, "version": VERSION, **attributes})
        zarrio.write(root, "neuron/excitatory", network.excitatory, ["neuron"])
        zarrio.write(root, "neuron/bias", network.bias, ["neuron"], units="threshold")
        if network.v0 is not None:
            zarrio.write(root, "neuron/v0", network.v0, ["neuron"], units="threshold")
        zarrio.write(root, "static/indptr", network.indptr, ["neuron_end"])
        zarrio.write(root, "static/post", network.post[: network.n_edges], ["edge"], compress=False)
        if network.weight is not None:
            zarrio.write(root, "static/weight", network.weight[: network.n_edges], ["edge"], units="threshold*ms")
        if network.class_weight is not None:
            zarrio.write(root, "static/class_weight", network.class_weight, ["pre_class", "post_class"], units="threshold*ms")
        root.create_group("plastic", attributes={"group_size": network.group_size})
        zarrio.write(root, "plastic/pre", network.pre, ["group", "input"])
        zarrio.write(root, "plastic/weight", weight, ["neuron", "input"], units="threshold*ms")
        zarrio.write(root, "target", target, ["condition", "time", "neuron"], along=2, units="threshold")
