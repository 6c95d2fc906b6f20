"""The network: who is connected to whom. Drawn from counters, or loaded from a network.zarr, and saved as one.

Dimension letters, here and everywhere: N neurons, K static outputs and L plastic inputs of a neuron, X feed-forward neurons,
G groups of S neurons that share plastic inputs, T steps and M learning points of a trial, C conditions.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import zarr
from jax import Array

from rlsnet import neurons, rng, wiring, zarrio
from rlsnet.config import LIMITS, Config, GivenFeedforwardConfig, GivenStimulusConfig, NoFeedforwardConfig, UserError, by_class
from rlsnet.wiring import Edges

log = logging.getLogger(__name__)

FORMAT = "rlsnet-network"
VERSION = 1
MAX_TAU_CHANNELS = 8  # distinct tau_plas with a filter each; more take a state for each synapse


@partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "excitatory", "bias", "v0", "parameters", "indptr", "post", "weight", "class_weight", "stream", "pre", "out_indptr", "out_slot",
        "stimulus", "rates", "tau_channel",
    ],
    meta_fields=["group_size", "n_feedforward", "static_width", "plastic_width", "taus"],
)  # fmt: skip
@dataclasses.dataclass(frozen=True)
class Network:
    """What stays fixed during an experiment. Feed-forward neurons have the numbers N to N+X-1.

    excitatory: [N] bool, the others are inhibitory.
    bias: [N] constant drive X_bal, threshold units.
    v0: [N] initial voltage of every trial, or None: drawn anew each trial.
    parameters: [N] each, what differs between neurons: fields of the neuron model, and `noise_sigma`; `tau_plas` is [N+X].
    indptr: [N+X+1] int32, neuron j's static outputs are edges indptr[j] to indptr[j+1].
    post: [nnz] int32, postsynaptic neuron of each static edge, padded so that static_width can be read from any start.
    weight: [nnz] weight of each static edge (threshold*ms), padded alike; or None: class_weight holds.
    class_weight: [2, 2] static weights by class, presynaptic first, excitatory = 0; or None.
    stream: [2] uint32, the key from which a spike's static targets are drawn, and post is empty; or None.
    pre: [G, X+L] int32, feed-forward and plastic inputs of a group of neurons; -1 pads. Neuron n is in group n // group_size.
    out_indptr: [N+X+1] int32, neuron j's plastic outputs are out_slot[out_indptr[j]] to out_slot[out_indptr[j+1]].
    out_slot: int32, flat positions in pre, padded so that plastic_width can be read from any start.
    stimulus: [C, bins, N] given stimulus, threshold units, or None.
    rates: [C, M, X] given feed-forward rates, Hz, or None.
    group_size: S.
    n_feedforward: X.
    static_width, plastic_width: largest number of edges or slots of one neuron.
    taus: distinct values of tau_plas, ms, where it differs between neurons and has at most MAX_TAU_CHANNELS of them; else empty.
    tau_channel: [N+X] int32, which of `taus` the spikes of a neuron are filtered with; or None.
    """

    excitatory: Array
    bias: Array
    v0: Array | None
    parameters: dict[str, Array]
    indptr: Array
    post: Array
    weight: Array | None
    class_weight: Array | None
    stream: Array | None
    pre: Array
    out_indptr: Array
    out_slot: Array
    stimulus: Array | None
    rates: Array | None
    group_size: int
    n_feedforward: int
    static_width: int
    plastic_width: int
    taus: tuple[float, ...] = ()
    tau_channel: Array | None = None

    @property
    def n_neurons(self) -> int:
        """N."""
        return self.excitatory.shape[0]

    @property
    def n_inputs(self) -> int:
        """X+L, all trained inputs of a neuron."""
        return self.pre.shape[1]

    @property
    def per_synapse(self) -> bool:
        """Whether tau_plas has so many values that each synapse keeps a current of its own."""
        return "tau_plas" in self.parameters and self.tau_channel is None

    @property
    def n_edges(self) -> int:
        """Static edges, without padding."""
        return int(self.indptr[-1])


def build(
    config: Config, n_units: int | None = None, activity: Callable[[Network], np.ndarray] | None = None
) -> tuple[Network, np.ndarray, np.ndarray | None]:
    """The network of an experiment: what network.load gives, the rest drawn.

    Args:
      config: the experiment.
      n_units: N where neither network.load nor network.n_neurons says it: the units of the recording.
      activity: counts the spikes [N] of a trial of the network that it is given, which has static synapses only.

    Returns:
      The network, initial weights of feed-forward and plastic inputs [N, X+L], and target currents [C, M, N] where network.load has them.
    """
    dtype = np.dtype(config.engine.precision)
    given = _Given(config.network.load)
    excitatory = given.read("neuron/excitatory", ["N"], "b")
    if excitatory is None:
        n = config.network.n_neurons or n_units
        if n is None:
            raise UserError("network.n_neurons=null: expected a number unless target=recording or network.load gives it.")
        excitatory = np.arange(n) < round(config.network.fraction_excitatory * n)
    n = len(excitatory)
    if n < 2:
        raise UserError(f"{given.path}: neuron/excitatory has {n} values; expected one per neuron, at least 2.")
    if given and config.network.n_neurons not in (None, n):
        log.info("network.load has %d neurons and its own sizes; network.n_neurons=%d does not count.", n, config.network.n_neurons)

    stimulus, rates, extra, initial_extra = _outside(config, given, n)
    x = initial_extra.shape[1]
    edges = _static(config, given, excitatory)
    static_width = _widest(edges.indptr)
    bias = given.read("neuron/bias", [n], "f")
    if bias is None:
        chosen = wiring.class_bias(config.static, n) if config.network.bias is None else np.array(by_class(config.network.bias))
        bias = chosen[np.where(excitatory, 0, 1)]
    v0 = given.read("neuron/v0", [n], "f")
    size = given.group_size(config.plastic.group_size)
    none = jnp.zeros(0, jnp.int32)
    parameters = {name: jnp.asarray(values, dtype) for name, values in _parameters(config, given, excitatory, x).items()}
    taus, tau_channel = _tau_channels(parameters)
    network = Network(
        excitatory=jnp.asarray(excitatory),
        bias=jnp.asarray(bias, dtype),
        v0=None if v0 is None else jnp.asarray(v0, dtype),
        parameters=parameters,
        indptr=jnp.asarray(np.concatenate([edges.indptr, np.full(x, edges.indptr[-1])]), jnp.int32),
        post=none if edges.stream is not None else _padded(edges.post.astype(np.int32, copy=False), edges.indptr, static_width),
        weight=None if edges.weight is None else _padded(edges.weight.astype(dtype), edges.indptr, static_width),
        class_weight=None if edges.class_weight is None else jnp.asarray(edges.class_weight, dtype),
        stream=None if edges.stream is None else jnp.asarray(edges.stream),
        pre=none.reshape(0, 0),
        out_indptr=none,
        out_slot=none,
        stimulus=None if stimulus is None else jnp.asarray(stimulus, dtype),
        rates=None if rates is None else jnp.asarray(rates, dtype),
        group_size=size,
        n_feedforward=x,
        static_width=static_width,
        plastic_width=0,
        taus=taus,
        tau_channel=tau_channel,
    )
    pre = _plastic(config, given, network, excitatory, activity)
    initial = given.read("plastic/weight", [n, pre.shape[1]], "f")
    if initial is None:
        initial = np.repeat(wiring.initial_weights(config.plastic, pre, excitatory), size, axis=0)[:n]
    target = given.read("target", ["C", config.trial.n_points, n], "f", missing=True)
    if target is not None and not len(target):
        raise UserError(f"{given.path}: target holds no condition; expected to be of shape [C, {config.trial.n_points}, {n}].")

    pre = np.concatenate([np.broadcast_to(extra, (len(pre), x)), pre], axis=1).astype(np.int32)
    out_indptr, out_slot = wiring.outputs_of(pre, n + x)
    plastic_width = _widest(out_indptr)
    network = dataclasses.replace(
        network,
        pre=jnp.asarray(pre),
        out_indptr=jnp.asarray(out_indptr),
        out_slot=_padded(out_slot, out_indptr, plastic_width),
        plastic_width=plastic_width,
    )
    return network, np.concatenate([initial_extra, initial], axis=1).astype(dtype), target


def gather_inputs(network: Network, values: Array) -> Array:
    """[G, X+L] values [N+X] of each group's inputs, 0 where padded."""
    return jnp.where(network.pre >= 0, values[network.pre], 0)


def check_conditions(network: Network, n_conditions: int) -> None:
    """Whether what was given for each condition is there for all conditions of the target; raises UserError."""
    for key, values in (("stimulus.path", network.stimulus), ("feedforward.path", network.rates)):
        if values is not None and len(values) != n_conditions:
            raise UserError(f"{key}: has {len(values)} conditions; expected {n_conditions}, as the target has.")


def _widest(indptr: np.ndarray) -> int:
    return int(np.max(np.diff(indptr), initial=0))


def _padded(values: Any, indptr: np.ndarray, width: int) -> Array:
    """`values` on the device, padded so that `width` of them can be read from the start of every run."""
    missing = int(np.max(indptr[:-1], initial=0)) + width - len(values)
    if missing > 0:
        values = np.concatenate([values, np.zeros(missing, values.dtype)])
    return jnp.asarray(values)


def _parameters(config: Config, given: _Given, excitatory: np.ndarray, x: int) -> dict[str, np.ndarray]:
    """What differs between neurons: values by class in the configuration, and arrays neuron/* of network.load, which win."""
    n = len(excitatory)
    fields: dict[str, tuple[Any, Any]] = {f.name: (f, config.neuron) for f in dataclasses.fields(config.neuron)}  # type: ignore[arg-type]
    fields |= {f.name: (f, config.synapse) for f in dataclasses.fields(config.synapse) if f.name == "tau_plas"}
    fields |= {f"noise_{f.name}": (f, config.noise) for f in dataclasses.fields(config.noise) if f.name == "sigma"}
    found = {}
    for name, (field, section) in fields.items():
        value, rule = getattr(section, field.name), field.metadata
        values = given.read(f"neuron/{name}", [n], "f")
        if values is not None:
            if rule["unit"] == "ms" and "above" in rule and np.any(values < 2 * config.trial.dt):
                raise UserError(f"{given.path}: neuron/{name} should be at least twice trial.dt={config.trial.dt:g} ms for every neuron.")
            if name == "refractory" and not np.all(np.abs(values / config.trial.dt - np.rint(values / config.trial.dt)) < 1e-4):
                raise UserError(f"{given.path}: neuron/refractory should be multiples of trial.dt={config.trial.dt:g} ms.")
            for word, broken, words in LIMITS:
                if word in rule and np.any(wrong := broken(values, rule[word])):
                    at = int(np.flatnonzero(wrong)[0])
                    raise UserError(f"{given.path}: neuron/{name}[{at}] is {values[at]:g}; expected {words} {rule[word]} {rule['unit']}.")
        elif isinstance(value, tuple):
            values = np.asarray(np.where(excitatory, *value))
        if values is not None:
            own = by_class(value)[0]  # feed-forward neurons are as excitatory ones
            found[name] = np.concatenate([values, np.full(x, own)]) if name == "tau_plas" else values
    own_values = neurons.of(config.neuron, found)  # type: ignore[arg-type]
    if np.any(own_values.threshold <= own_values.reset):
        raise UserError(f"{given.path}: neuron/reset should be below neuron/threshold for every neuron.")
    return found


def _tau_channels(parameters: dict[str, Array]) -> tuple[tuple[float, ...], Array | None]:
    """`Network.taus` and `Network.tau_channel` for tau_plas [N+X] of the parameters, if it is one of them."""
    if "tau_plas" not in parameters:
        return (), None
    taus, channel = np.unique(np.asarray(parameters["tau_plas"]), return_inverse=True)
    return (tuple(taus.tolist()), jnp.asarray(channel, jnp.int32)) if len(taus) <= MAX_TAU_CHANNELS else ((), None)


def _outside(config: Config, given: _Given, n: int) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray, np.ndarray]:
    """Given stimulus, given feed-forward rates, [X] numbers of the feed-forward neurons and their initial weights [N, X]."""
    stimulus = rates = None
    if isinstance(config.stimulus, GivenStimulusConfig):
        stimulus = given.read("stimulus", ["C", "bins", n], "f")
        if stimulus is None:
            stimulus = zarrio.read_plain(config.stimulus.path, "stimulus.path", ["C", "bins", n])
    settings, x = config.feedforward, 0
    if isinstance(settings, NoFeedforwardConfig):
        if "feedforward/weight" in given:
            log.info("network.load has feed-forward weights; they do not count with feedforward=none.")
        return stimulus, rates, np.zeros(0, np.int32), np.zeros((n, 0))
    if isinstance(settings, GivenFeedforwardConfig):
        rates = given.read("feedforward/rate", ["C", config.trial.n_points, "X"], "f")
        if rates is None:
            rates = zarrio.read_plain(settings.path, "feedforward.path", ["C", config.trial.n_points, "X"])
        if np.any(rates < 0) or np.any(rates > 1000 / config.trial.dt):
            raise UserError(
                f"feedforward.path={settings.path}: expected rates in Hz, from 0 to {1000 / config.trial.dt:g}, a spike a step."
            )
        x = rates.shape[2]
    else:
        x = settings.n_neurons  # type: ignore[attr-defined]
    weight = given.read("feedforward/weight", [n, x], "f")
    if weight is None:
        stream = rng.key(config.seed, rng.Purpose.FEEDFORWARD_WEIGHT)
        weight = settings.strength * np.asarray(rng.normal(stream, n * x, jnp.dtype("float32"))).reshape(n, x)  # type: ignore[attr-defined]
    return stimulus, rates, n + np.arange(x, dtype=np.int32), weight


def _plastic(
    config: Config, given: _Given, network: Network, excitatory: np.ndarray, activity: Callable[[Network], np.ndarray] | None
) -> np.ndarray:
    """[G, L] plastic inputs, loaded or drawn."""
    n, size = network.n_neurons, network.group_size
    groups = -(-n // size)
    pre = given.read("plastic/pre", ["G", "L"], "iu")
    if pre is not None:
        if len(pre) != groups:
            raise UserError(f"{given.path}: plastic/pre has {len(pre)} rows; expected {groups}: {n} neurons in groups of {size}.")
        given.check_range("plastic/pre", pre, -1, n)
        if not pre.shape[1] and config.plastic.n_inputs:
            raise UserError(f"{given.path}: plastic/pre has no inputs; expected to be of shape [{len(pre)}, L], or left out.")
        return pre
    counts = None
    if wiring.needs_activity(config.plastic):
        if activity is None or not network.static_width:
            raise UserError("plastic.active_fraction: expected 1 without static synapses, as it takes a run of the static network.")
        counts = activity(network)
    plastic = dataclasses.replace(config.plastic, group_size=size)
    pre = np.asarray(wiring.plastic_inputs(plastic, rng.key(config.seed, rng.Purpose.PLASTIC), excitatory, counts))
    if pre.ndim != 2 or len(pre) != groups or (pre.size and (pre.min() < -1 or pre.max() >= n)):
        raise UserError(f"plastic: the inputs drawn have shape {list(pre.shape)}; expected [{groups}, L] of numbers from -1 to {n - 1}.")
    return pre


def _static(config: Config, given: _Given, excitatory: np.ndarray) -> Edges:
    """The static wiring, loaded or made, checked."""
    n = len(excitatory)
    stream = given.read("static/stream", [2], "u")
    indptr = given.read("static/indptr", [n + 1], "iu")
    if indptr is None:
        edges = wiring.static_edges(config.static, rng.key(config.seed, rng.Purpose.STATIC), excitatory)
        where = f"static.name={getattr(config.static, 'name', '')}"
    else:
        where, total = str(given.path), int(indptr[-1])
        _check_indptr(indptr, n, where)
        post = given.read("static/post", [total], "iu") if stream is None else np.zeros(0, np.int32)
        if post is None:
            raise UserError(f"{given.path}: has static/indptr but no static/post; it should have both.")
        weight, by_class_ = given.read("static/weight", [total], "f"), given.read("static/class_weight", [2, 2], "f")
        if weight is None and by_class_ is None:
            raise UserError(f"{given.path}: has static wiring without weights; expected static/weight or static/class_weight.")
        if stream is not None and (by_class_ is None or weight is not None or np.max(np.diff(indptr), initial=0) > n - 1):
            raise UserError(f"{given.path}: static/stream should come with static/class_weight, and at most {n - 1} outputs of a neuron.")
        edges = Edges(indptr, post, weight, by_class_ if weight is None else None, stream)
    indptr = np.asarray(edges.indptr, np.int64)
    _check_indptr(indptr, n, where)
    if indptr[-1] >= 2**31:
        raise UserError(f"{where}: has {indptr[-1]:,} static synapses; expected to be below {2**31:,}.")
    if edges.stream is None and len(edges.post) != indptr[-1]:
        raise UserError(f"{where}: has {len(edges.post)} static synapses; expected {indptr[-1]}, as indptr says.")
    if edges.post.size and (edges.post.min() < 0 or edges.post.max() >= n):
        lowest, highest = edges.post.min(), edges.post.max()
        raise UserError(f"{where}: static/post reaches from {lowest} to {highest}; expected to be within 0 to {n - 1}.")
    return dataclasses.replace(edges, indptr=indptr)


def _check_indptr(indptr: np.ndarray, n: int, where: str) -> None:
    """Whether the edges of n neurons can start and end like this; raises UserError."""
    if len(indptr) != n + 1 or indptr[0] != 0 or np.any(np.diff(indptr.astype(np.int64)) < 0):
        raise UserError(f"{where}: static/indptr should start at 0 and never fall, with {n + 1} numbers.")


class _Given:
    """The arrays of network.load, each None where the store (or the setting) is not there."""

    def __init__(self, path: str | None):
        self.path = path
        self.group = None if path is None else zarrio.open_group(path, "network.load", FORMAT)
        if self.group is not None:
            zarrio.array(self.group, "neuron/excitatory", ["N"], "b", str(path))

    def __contains__(self, name: str) -> bool:
        return self.group is not None and name in self.group

    def read(self, name: str, shape: list[int | str], kind: str, missing: bool = False) -> np.ndarray | None:
        """The checked array, in memory; `missing`: NaN may stand for what is not there."""
        if name not in self:
            return None
        values = zarrio.read(zarrio.array(self.group, name, shape, kind, str(self.path)))
        if values.dtype.kind == "f" and not np.all(np.isfinite(values) | (np.isnan(values) & missing)):
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
            raise UserError(f"{self.path}: {name} reaches from {values.min()} to {values.max()}; expected to be within {low} to {end - 1}.")


def group_size_of(group: zarr.Group, where: str) -> int:
    """S of a store's plastic wiring; `where` names the store in a message."""
    size = {**group["plastic"].attrs, **group["plastic/pre"].attrs}.get("group_size", 1)
    if not isinstance(size, int) or size < 1:
        raise UserError(f"{where}: attribute group_size of plastic is {size!r}; expected a whole number, at least 1.")
    return size


def save(
    path: Path, network: Network, weight: np.ndarray, target: np.ndarray, recorded_rate: np.ndarray | None = None, **attributes: Any
) -> None:
    """Writes a network.zarr, whole or not at all.

    Args:
      path: the store.
      network: wiring and neurons.
      weight: [N, X+L] initial weights of feed-forward and plastic inputs.
      target: [C, M, N] target currents.
      recorded_rate: [C, N] Hz, means over time of the rates that the target was made from; or None.
      **attributes: more attributes of its root.
    """
    n, x = network.n_neurons, network.n_feedforward
    with zarrio.replacing(path) as temporary:
        root = zarr.create_group(str(temporary), attributes={"format": FORMAT, "version": VERSION, **attributes})
        zarrio.write(root, "neuron/excitatory", network.excitatory, ["neuron"])
        zarrio.write(root, "neuron/bias", network.bias, ["neuron"], units="threshold")
        if network.v0 is not None:
            zarrio.write(root, "neuron/v0", network.v0, ["neuron"], units="threshold")
        for name, values in network.parameters.items():
            zarrio.write(root, f"neuron/{name}", values[:n], ["neuron"])
        zarrio.write(root, "static/indptr", network.indptr[: n + 1], ["neuron_end"])
        if network.stream is None:
            zarrio.write(root, "static/post", network.post[: network.n_edges], ["edge"], compress=False)
        else:
            zarrio.write(root, "static/stream", network.stream, ["word"], long_name="key from which targets are drawn")
        if network.weight is not None:
            zarrio.write(root, "static/weight", network.weight[: network.n_edges], ["edge"], units="threshold*ms")
        if network.class_weight is not None:
            zarrio.write(root, "static/class_weight", network.class_weight, ["pre_class", "post_class"], units="threshold*ms")
        root.create_group("plastic", attributes={"group_size": network.group_size})
        zarrio.write(root, "plastic/pre", network.pre[:, x:], ["group", "input"])
        zarrio.write(root, "plastic/weight", weight[:, x:], ["neuron", "input"], units="threshold*ms")
        if x:
            zarrio.write(root, "feedforward/weight", weight[:, :x], ["neuron", "feedforward"], units="threshold*ms")
        if network.rates is not None:
            zarrio.write(root, "feedforward/rate", network.rates, ["condition", "time", "feedforward"], along=2, units="Hz")
        if network.stimulus is not None:
            zarrio.write(root, "stimulus", network.stimulus, ["condition", "bin", "neuron"], along=2, units="threshold")
        zarrio.write(root, "target", target, ["condition", "time", "neuron"], along=2, units="threshold")
        if recorded_rate is not None:
            zarrio.write(root, "recorded_rate", recorded_rate, ["condition", "neuron"], along=1, units="Hz")
