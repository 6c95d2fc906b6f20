"""The network of an experiment: its arrays, how it is drawn or loaded, and network.zarr, in which it is stored.

Dimension letters, here and everywhere: N neurons, K static outputs and L plastic inputs of a neuron, X feed-forward neurons,
G groups of S neurons that share plastic inputs, T steps and M learning points of a trial, C conditions.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import zarr
from jax import Array

from rlsnet import neurons, rng, wiring, zarrio
from rlsnet.config import (
    LIMITS,
    Config,
    GivenFeedforwardConfig,
    GivenStimulusConfig,
    OUFeedforwardConfig,
    UserError,
    by_class,
)
from rlsnet.wiring import Edges

log = logging.getLogger(__name__)

FORMAT = "rlsnet-network"
VERSION = 1
MAX_TAU_CHANNELS = 8  # distinct tau_plas with a filter each; more take a state for each synapse


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Network:
    """Neurons and connections, which stay the same during an experiment. Feed-forward neurons have the numbers N to N+X-1.

    A pytree; the sizes at the end are static, so that another size compiles anew.

    excitatory: [N] bool, the others are inhibitory.
    bias: [N] constant drive X_bal, threshold units.
    v0: [N] initial voltage of every trial, threshold units, or None: drawn anew each trial.
    parameters: [N] each, the parameters that differ between neurons: fields of the neuron model, and `noise_sigma`; `tau_plas` is [N+X].
    indptr: [N+X+1] int32, neuron j's static outputs are edges indptr[j] to indptr[j+1].
    post: [nnz] int32, postsynaptic neuron of each static edge, padded so that static_width can be read from any start.
    weight: [nnz] weight of each static edge (threshold*ms), padded alike; or None: class_weight holds.
    class_weight: [2, 2] static weights by class (threshold*ms), presynaptic first, excitatory = 0; or None.
    stream: [2] uint32, the key from which a spike's static targets are drawn, and post is empty; or None.
    pre: [G, X+L] int32, feed-forward and plastic inputs of a group of neurons; -1 pads. Neuron n is in group n // group_size.
    out_indptr: [N+X+1] int32, neuron j's plastic outputs are out_slot[out_indptr[j]] to out_slot[out_indptr[j+1]].
    out_slot: int32, flat positions in pre, padded so that plastic_width can be read from any start.
    stimulus: [C, bins, N] stimulus from a file, threshold units, or None.
    rates: [C, M, X] feed-forward rates from a file, Hz, or None.
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
    group_size: int = dataclasses.field(metadata={"static": True})
    n_feedforward: int = dataclasses.field(metadata={"static": True})
    static_width: int = dataclasses.field(metadata={"static": True})
    plastic_width: int = dataclasses.field(metadata={"static": True})
    taus: tuple[float, ...] = dataclasses.field(default=(), metadata={"static": True})
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
        """Number of static edges, without padding."""
        return int(self.indptr[-1])


def gather_inputs(network: Network, values: Array) -> Array:
    """[G, X+L] values [N+X] of each group's inputs, 0 where `pre` pads."""
    return jnp.where(network.pre >= 0, values[network.pre], 0)


class StoredNetwork:
    """Arrays of the network.zarr that network.load names, read and checked one by one; an array that is not stored is None.

    Without network.load (`path` None) nothing is stored. Raises UserError if the store cannot be opened or lacks neuron/excitatory.
    """

    def __init__(self, path: str | None):
        self.path = path
        self.group = None if path is None else zarrio.open_group(path, "network.load", FORMAT)
        if self.group is not None:
            zarrio.array(self.group, "neuron/excitatory", ["N"], "b", str(path))

    def __contains__(self, name: str) -> bool:
        return self.group is not None and name in self.group

    def read(self, name: str, shape: list[int | str], kind: str, nan: bool = False) -> np.ndarray | None:
        """An array in memory, or None if it is not stored.

        Args:
          name: path of the array in the store.
          shape: expected sizes; a letter stands for any size.
          kind: numpy kinds allowed, such as "f" or "iu".
          nan: NaN is allowed, for missing values.

        Raises:
          UserError: for another shape or kind, damaged chunks, or values that are not finite.
        """
        if name not in self:
            return None
        values = zarrio.read(zarrio.array(self.group, name, shape, kind, str(self.path)))
        if values.dtype.kind == "f" and not np.all(np.isfinite(values) | (np.isnan(values) & nan)):
            raise UserError(f"{self.path}: {name} holds values that are not finite.")
        return values

    def group_size(self, default: int) -> int:
        """S of the stored plastic wiring, or `default` if there is none."""
        return group_size_of(self.group, str(self.path)) if "plastic/pre" in self else default


def group_size_of(group: zarr.Group, where: str) -> int:
    """S of a store's plastic wiring; `where` names the store in the message. Raises UserError if the attribute is no number above 0."""
    size = {**group["plastic"].attrs, **group["plastic/pre"].attrs}.get("group_size", 1)
    if not isinstance(size, int) or size < 1:
        raise UserError(f"{where}: attribute group_size of plastic is {size!r}; expected a whole number, at least 1.")
    return size


def read_parameter(stored: StoredNetwork, name: str, rule: Mapping[str, Any], n: int, dt: float) -> np.ndarray | None:
    """[N] values of one parameter of each neuron, neuron/NAME of a store, or None if it is not stored.

    Args:
      stored: the store.
      name: of the parameter.
      rule: metadata of its field in the schema: unit and limits.
      n: N.
      dt: time step, ms.

    Raises:
      UserError: for values outside the limits, decay times below 2*dt or refractory periods that are not multiples of dt.
    """
    values = stored.read(f"neuron/{name}", [n], "f")
    if values is None:
        return None
    where = f"{stored.path}: neuron/{name}"
    if rule["unit"] == "ms" and "above" in rule and np.any(values < 2 * dt):
        raise UserError(f"{where}: expected at least twice trial.dt={dt:g} ms for every neuron.")
    if name == "refractory" and not np.all(np.abs(values / dt - np.rint(values / dt)) < 1e-4):
        raise UserError(f"{where}: expected multiples of trial.dt={dt:g} ms.")
    for limit, broken, words in LIMITS:
        if limit in rule and np.any(wrong := broken(values, rule[limit])):
            at = int(np.flatnonzero(wrong)[0])
            raise UserError(f"{where}[{at}] is {values[at]:g}; expected {words} {rule[limit]} {rule['unit']}.")
    return values


def read_static_edges(stored: StoredNetwork, n: int) -> Edges | None:
    """The static synapses of a stored network of `n` neurons, or None if there are none.

    Raises:
      UserError: for arrays that do not fit each other.
    """
    stream = stored.read("static/stream", [2], "u")
    indptr = stored.read("static/indptr", [n + 1], "iu")
    if indptr is None:
        return None
    check_indptr(indptr, n, str(stored.path))
    post = stored.read("static/post", [int(indptr[-1])], "iu") if stream is None else np.zeros(0, np.int32)
    if post is None:
        raise UserError(f"{stored.path}: has static/indptr but no static/post; expected both.")
    weight, class_weight = stored.read("static/weight", [int(indptr[-1])], "f"), stored.read("static/class_weight", [2, 2], "f")
    if weight is None and class_weight is None:
        raise UserError(f"{stored.path}: has static wiring without weights; expected static/weight or static/class_weight.")
    if stream is not None and (class_weight is None or weight is not None or np.max(np.diff(indptr), initial=0) > n - 1):
        raise UserError(f"{stored.path}: static/stream: expected static/class_weight with it, and at most {n - 1} outputs of a neuron.")
    return Edges(indptr, post, weight, class_weight if weight is None else None, stream)


def check_indptr(indptr: np.ndarray, n: int, where: str) -> None:
    """Raises UserError unless the edges of n neurons can start and end at `indptr`; `where` names its source in the message."""
    if len(indptr) != n + 1 or indptr[0] != 0 or np.any(np.diff(indptr.astype(np.int64)) < 0):
        raise UserError(f"{where}: static/indptr: expected {n + 1} numbers that start at 0 and never fall.")


def read_plastic_inputs(stored: StoredNetwork, n: int, size: int, required: bool) -> np.ndarray | None:
    """[G, L] plastic inputs of the groups of a stored network, -1 pads; None if there are none.

    Args:
      stored: the store.
      n: N.
      size: S.
      required: L must be above 0.

    Raises:
      UserError: for another number of groups, numbers that are not those of neurons, or none.
    """
    pre, groups = stored.read("plastic/pre", ["G", "L"], "iu"), -(-n // size)
    if pre is None:
        return None
    if len(pre) != groups:
        raise UserError(f"{stored.path}: plastic/pre has {len(pre)} rows; expected {groups}: {n} neurons in groups of {size}.")
    if pre.size and (pre.min() < -1 or pre.max() >= n):
        raise UserError(f"{stored.path}: plastic/pre reaches from {pre.min()} to {pre.max()}; expected numbers from -1 to {n - 1}.")
    if required and not pre.shape[1]:
        raise UserError(f"{stored.path}: plastic/pre has no inputs; expected the shape [{len(pre)}, L], or no such array.")
    return pre


def read_target(stored: StoredNetwork, n_points: int, n: int) -> np.ndarray | None:
    """[C, M, N] target currents of a stored network, NaN where nothing is trained; None if there are none. Raises UserError for C = 0."""
    target = stored.read("target", ["C", n_points, n], "f", nan=True)
    if target is not None and not len(target):
        raise UserError(f"{stored.path}: target holds no condition; expected the shape [C, {n_points}, {n}].")
    return target


def save(
    path: Path, network: Network, weight: np.ndarray, target: np.ndarray, recorded_rate: np.ndarray | None = None, **attributes: Any
) -> None:
    """Writes a network.zarr; if that fails, nothing is left and an older store stays.

    Args:
      path: of the store.
      network: neurons and connections.
      weight: [N, X+L] initial weights of feed-forward and plastic inputs, threshold*ms.
      target: [C, M, N] target currents, threshold units.
      recorded_rate: [C, N] Hz, means over time of the rates that the target was made from; or None.
      **attributes: further attributes of the root.
    """
    x = network.n_feedforward
    with zarrio.replacing(path) as temporary:
        root = zarr.create_group(str(temporary), attributes={"format": FORMAT, "version": VERSION, **attributes})
        _write_neurons(root, network)
        _write_static(root, network)
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


def _write_neurons(root: zarr.Group, network: Network) -> None:
    """Writes the arrays neuron/*."""
    zarrio.write(root, "neuron/excitatory", network.excitatory, ["neuron"])
    zarrio.write(root, "neuron/bias", network.bias, ["neuron"], units="threshold")
    if network.v0 is not None:
        zarrio.write(root, "neuron/v0", network.v0, ["neuron"], units="threshold")
    for name, values in network.parameters.items():
        zarrio.write(root, f"neuron/{name}", values[: network.n_neurons], ["neuron"])


def _write_static(root: zarr.Group, network: Network) -> None:
    """Writes the arrays static/*."""
    zarrio.write(root, "static/indptr", network.indptr[: network.n_neurons + 1], ["neuron_end"])
    if network.stream is None:
        zarrio.write(root, "static/post", network.post[: network.n_edges], ["edge"], compress=False)
    else:
        zarrio.write(root, "static/stream", network.stream, ["word"], long_name="key from which targets are drawn")
    if network.weight is not None:
        zarrio.write(root, "static/weight", network.weight[: network.n_edges], ["edge"], units="threshold*ms")
    if network.class_weight is not None:
        zarrio.write(root, "static/class_weight", network.class_weight, ["pre_class", "post_class"], units="threshold*ms")


class BuiltNetwork(NamedTuple):
    """A network with the start of its training.

    network: neurons and connections.
    weight: [N, X+L] initial weights of feed-forward and plastic inputs, threshold*ms.
    target: [C, M, N] target currents (threshold units) stored in network.load; or None.
    """

    network: Network
    weight: np.ndarray
    target: np.ndarray | None


def build(config: Config, n_units: int | None = None, activity: Callable[[Network], np.ndarray] | None = None) -> BuiltNetwork:
    """The network of an experiment: the arrays of network.load, and the others drawn.

    Args:
      config: the experiment.
      n_units: N if neither network.load nor network.n_neurons gives it: the units of the recording.
      activity: runs a trial of a network that has static synapses only, and counts the spikes [N]; see `wiring.needs_activity`.

    Raises:
      UserError: for stored arrays, files or numbers that do not fit each other.
    """
    stored = StoredNetwork(config.network.load)
    excitatory = _classes(config, stored, n_units)
    n, dtype = len(excitatory), np.dtype(config.engine.precision)
    stimulus, rates = _stimulus(config, stored, n), _feedforward_rates(config, stored)
    feedforward_weight = _feedforward_weights(config, stored, n, rates)
    network = _with_static_edges(config, stored, excitatory, feedforward_weight.shape[1])
    network = dataclasses.replace(
        network,
        stimulus=None if stimulus is None else jnp.asarray(stimulus, dtype),
        rates=None if rates is None else jnp.asarray(rates, dtype),
    )
    pre = _plastic_inputs(config, stored, network, activity)
    weight = stored.read("plastic/weight", [n, pre.shape[1]], "f")
    if weight is None:
        weight = np.repeat(wiring.initial_weights(config.plastic, pre, excitatory), network.group_size, axis=0)[:n]
    target = read_target(stored, config.trial.n_points, n)
    return BuiltNetwork(_with_plastic_inputs(network, pre), np.concatenate([feedforward_weight, weight], axis=1).astype(dtype), target)


def check_conditions(network: Network, n_conditions: int) -> None:
    """Raises UserError unless stimulus and feed-forward rates from files have as many conditions as the target."""
    for key, values in (("stimulus.path", network.stimulus), ("feedforward.path", network.rates)):
        if values is not None and len(values) != n_conditions:
            raise UserError(f"{key}: has {len(values)} conditions; expected {n_conditions}, as the target has.")


def _classes(config: Config, stored: StoredNetwork, n_units: int | None) -> np.ndarray:
    """[N] bool, excitatory neurons."""
    excitatory = stored.read("neuron/excitatory", ["N"], "b")
    if excitatory is None:
        n = config.network.n_neurons or n_units
        if n is None:
            raise UserError("network.n_neurons=null: expected a number unless target=recording or network.load gives it.")
        excitatory = np.arange(n) < round(config.network.fraction_excitatory * n)
    n = len(excitatory)
    if n < 2:
        raise UserError(f"{stored.path}: neuron/excitatory has {n} values; expected one per neuron, at least 2.")
    if stored.path is not None and config.network.n_neurons not in (None, n):
        log.info("network.n_neurons=%d is ignored, because network.load has %d neurons.", config.network.n_neurons, n)
    return excitatory


def _stimulus(config: Config, stored: StoredNetwork, n: int) -> np.ndarray | None:
    """[C, bins, N] stimulus from network.load or stimulus.path, threshold units; None for other kinds of stimulus."""
    if not isinstance(config.stimulus, GivenStimulusConfig):
        return None
    values = stored.read("stimulus", ["C", "bins", n], "f")
    return zarrio.read_plain(config.stimulus.path, "stimulus.path", ["C", "bins", n]) if values is None else values


def _feedforward_rates(config: Config, stored: StoredNetwork) -> np.ndarray | None:
    """[C, M, X] feed-forward rates from network.load or feedforward.path, Hz; None for other kinds of feed-forward neurons."""
    settings = config.feedforward
    if not isinstance(settings, GivenFeedforwardConfig):
        return None
    rates = stored.read("feedforward/rate", ["C", config.trial.n_points, "X"], "f")
    if rates is None:
        rates = zarrio.read_plain(settings.path, "feedforward.path", ["C", config.trial.n_points, "X"])
    if np.any(rates < 0) or np.any(rates > 1000 / config.trial.dt):
        raise UserError(f"feedforward.path={settings.path}: expected rates in Hz, from 0 to {1000 / config.trial.dt:g}, a spike a step.")
    return rates


def _feedforward_weights(config: Config, stored: StoredNetwork, n: int, rates: np.ndarray | None) -> np.ndarray:
    """[N, X] initial weights of feed-forward neurons, stored or drawn from a normal distribution, threshold*ms."""
    settings = config.feedforward
    if isinstance(settings, OUFeedforwardConfig):
        x = settings.n_neurons
    elif isinstance(settings, GivenFeedforwardConfig) and rates is not None:
        x = rates.shape[2]
    else:
        if "feedforward/weight" in stored:
            log.info("The feed-forward weights of network.load are ignored, because of feedforward=none.")
        return np.zeros((n, 0))
    weight = stored.read("feedforward/weight", [n, x], "f")
    if weight is None:
        stream = rng.key(config.seed, rng.Purpose.FEEDFORWARD_WEIGHT)
        weight = settings.strength * np.asarray(rng.normal(stream, n * x, jnp.dtype("float32"))).reshape(n, x)
    return weight


def _with_static_edges(config: Config, stored: StoredNetwork, excitatory: np.ndarray, x: int) -> Network:
    """A network of N neurons and `x` feed-forward neurons that has static synapses only."""
    n, dtype = len(excitatory), np.dtype(config.engine.precision)
    edges = _static_edges(config, stored, excitatory)
    width, no_indices = _largest_degree(edges.indptr), jnp.zeros(0, jnp.int32)
    bias, v0 = _biases(config, stored, excitatory), stored.read("neuron/v0", [n], "f")
    parameters = {name: jnp.asarray(values, dtype) for name, values in _parameters(config, stored, excitatory, x).items()}
    taus, tau_channel = _tau_channels(parameters)
    return Network(
        excitatory=jnp.asarray(excitatory),
        bias=jnp.asarray(bias, dtype),
        v0=None if v0 is None else jnp.asarray(v0, dtype),
        parameters=parameters,
        taus=taus,
        tau_channel=tau_channel,
        indptr=jnp.asarray(np.concatenate([edges.indptr, np.full(x, edges.indptr[-1])]), jnp.int32),
        post=no_indices if edges.stream is not None else _padded(edges.post.astype(np.int32, copy=False), edges.indptr, width),
        weight=None if edges.weight is None else _padded(edges.weight.astype(dtype), edges.indptr, width),
        class_weight=None if edges.class_weight is None else jnp.asarray(edges.class_weight, dtype),
        stream=None if edges.stream is None else jnp.asarray(edges.stream),
        pre=no_indices.reshape(0, 0),
        out_indptr=no_indices,
        out_slot=no_indices,
        stimulus=None,
        rates=None,
        group_size=stored.group_size(config.plastic.group_size),
        n_feedforward=x,
        static_width=width,
        plastic_width=0,
    )


def _with_plastic_inputs(network: Network, pre: np.ndarray) -> Network:
    """The network with plastic inputs `pre` [G, L] after those from all feed-forward neurons."""
    n, x = network.n_neurons, network.n_feedforward
    feedforward = np.broadcast_to(n + np.arange(x, dtype=np.int32), (len(pre), x))
    inputs = np.concatenate([feedforward, pre], axis=1).astype(np.int32)
    out_indptr, out_slot = wiring.outputs_of(inputs, n + x)
    width = _largest_degree(out_indptr)
    return dataclasses.replace(
        network,
        pre=jnp.asarray(inputs),
        out_indptr=jnp.asarray(out_indptr),
        out_slot=_padded(out_slot, out_indptr, width),
        plastic_width=width,
    )


def _static_edges(config: Config, stored: StoredNetwork, excitatory: np.ndarray) -> Edges:
    """The static synapses, stored or drawn; raises UserError if the result is not a valid wiring of N neurons."""
    n, where = len(excitatory), str(stored.path)
    edges = read_static_edges(stored, n)
    if edges is None:
        edges = wiring.static_edges(config.static, rng.key(config.seed, rng.Purpose.STATIC), excitatory)
        where = f"static.name={config.static.name}"
    indptr = np.asarray(edges.indptr, np.int64)
    check_indptr(indptr, n, where)
    if indptr[-1] >= 2**31:
        raise UserError(f"{where}: has {indptr[-1]:,} static synapses; expected fewer than {2**31:,}.")
    if edges.stream is None and len(edges.post) != indptr[-1]:
        raise UserError(f"{where}: has {len(edges.post)} static synapses; expected {indptr[-1]}, the last number of indptr.")
    if edges.post.size and (edges.post.min() < 0 or edges.post.max() >= n):
        lowest, highest = edges.post.min(), edges.post.max()
        raise UserError(f"{where}: static/post reaches from {lowest} to {highest}; expected numbers from 0 to {n - 1}.")
    return dataclasses.replace(edges, indptr=indptr)


def _biases(config: Config, stored: StoredNetwork, excitatory: np.ndarray) -> np.ndarray:
    """[N] constant drive, threshold units: stored, network.bias, or that of the static wiring."""
    bias = stored.read("neuron/bias", [len(excitatory)], "f")
    if bias is not None:
        return bias
    values = np.array(wiring.class_bias(config.static, len(excitatory)) if config.network.bias is None else by_class(config.network.bias))
    return values[np.where(excitatory, 0, 1)]


def _parameters(config: Config, stored: StoredNetwork, excitatory: np.ndarray, x: int) -> dict[str, np.ndarray]:
    """Parameters that differ between neurons: [N] each, but tau_plas [N+X]. Stored arrays win over values by class.

    Raises:
      UserError: for values outside their limits, or a reset potential that is not below the threshold.
    """
    fields: dict[str, tuple[Any, Any]] = {f.name: (f, config.neuron) for f in dataclasses.fields(config.neuron)}  # type: ignore[arg-type]
    fields |= {f.name: (f, config.synapse) for f in dataclasses.fields(config.synapse) if f.name == "tau_plas"}
    fields |= {f"noise_{f.name}": (f, config.noise) for f in dataclasses.fields(config.noise) if f.name == "sigma"}
    found = {}
    for name, (field, section) in fields.items():
        value = getattr(section, field.name)
        values = read_parameter(stored, name, field.metadata, len(excitatory), config.trial.dt)
        if values is None and isinstance(value, tuple):
            values = np.asarray(np.where(excitatory, *value))
        if values is not None:
            feedforward = np.full(x, by_class(value)[0])  # feed-forward neurons have the value of excitatory ones
            found[name] = np.concatenate([values, feedforward]) if name == "tau_plas" else values
    model = neurons.with_parameters(config.neuron, found)  # type: ignore[arg-type]
    if np.any(model.threshold <= model.reset):
        raise UserError(f"{stored.path}: neuron/reset: expected values below neuron/threshold for every neuron.")
    return found


def _tau_channels(parameters: dict[str, Array]) -> tuple[tuple[float, ...], Array | None]:
    """`Network.taus` and `Network.tau_channel` for tau_plas [N+X] of the parameters, if it is one of them."""
    if "tau_plas" not in parameters:
        return (), None
    taus, channel = np.unique(np.asarray(parameters["tau_plas"]), return_inverse=True)
    return (tuple(taus.tolist()), jnp.asarray(channel, jnp.int32)) if len(taus) <= MAX_TAU_CHANNELS else ((), None)


def _plastic_inputs(
    config: Config, stored: StoredNetwork, network: Network, activity: Callable[[Network], np.ndarray] | None
) -> np.ndarray:
    """[G, L] plastic inputs, stored or drawn; -1 pads. Raises UserError if they are not numbers of neurons."""
    n, size = network.n_neurons, network.group_size
    pre = read_plastic_inputs(stored, n, size, required=config.plastic.n_inputs > 0)
    if pre is not None:
        return pre
    counts = None
    if wiring.needs_activity(config.plastic):
        if activity is None or not network.static_width:
            raise UserError("plastic.active_fraction: expected 1 without static synapses, because it needs a run of the static network.")
        counts = activity(network)
    plastic, groups = dataclasses.replace(config.plastic, group_size=size), -(-n // size)
    pre = np.asarray(wiring.plastic_inputs(plastic, rng.key(config.seed, rng.Purpose.PLASTIC), np.asarray(network.excitatory), counts))
    if pre.ndim != 2 or len(pre) != groups or (pre.size and (pre.min() < -1 or pre.max() >= n)):
        raise UserError(f"plastic: the inputs drawn have shape {list(pre.shape)}; expected [{groups}, L] of numbers from -1 to {n - 1}.")
    return pre


def _largest_degree(indptr: np.ndarray) -> int:
    """The largest number of edges of one neuron."""
    return int(np.max(np.diff(indptr), initial=0))


def _padded(values: Any, indptr: np.ndarray, width: int) -> Array:
    """`values` on the device, padded so that `width` of them can be read from the start of any neuron's edges."""
    missing = int(np.max(indptr[:-1], initial=0)) + width - len(values)
    if missing > 0:
        values = np.concatenate([values, np.zeros(missing, values.dtype)])
    return jnp.asarray(values)
