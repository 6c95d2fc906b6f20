"""Construction of the network of an experiment, drawn from its configuration or loaded from network.load."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rlsnet.config.schema import (
    Config,
    GivenFeedforwardConfig,
    GivenStimulusConfig,
    OUFeedforwardConfig,
    PopulationsConfig,
    RegionalConfig,
    RegionalInputsConfig,
    by_class,
)
from rlsnet.errors import UserError
from rlsnet.io import population_files, zarr_store
from rlsnet.model import connectivity, neurons, population_edges, rng
from rlsnet.model.connectivity import Edges
from rlsnet.model.network import Network
from rlsnet.model.network_store import StoredNetwork, check_indptr, read_parameter, read_plastic_inputs, read_static_edges, read_target
from rlsnet.model.regions import Regions

log = logging.getLogger(__name__)


MAX_TAU_CHANNELS = 8  # distinct values of tau_plas with a filter each; with more, each synapse has a current of its own


class BuiltNetwork(NamedTuple):
    """Network and the initial values of its training.

    network: neurons and connectivity.
    weight: [N, X+L] initial weights of feed-forward and plastic inputs, threshold*ms.
    target: [C, M, N] target currents (threshold units) stored in network.load; or None.
    """

    network: Network
    weight: np.ndarray
    target: np.ndarray | None


def build(
    config: Config,
    n_units: int | None = None,
    activity: Callable[[Network], np.ndarray] | None = None,
    classes: np.ndarray | None = None,
    stored: StoredNetwork | None = None,
    regions: Callable[[np.ndarray], Regions] | None = None,
) -> BuiltNetwork:
    """Network of an experiment: arrays from network.load; all other arrays are drawn.

    Args:
      config: the experiment.
      n_units: number of units in the recording, which is N if neither network.load nor network.n_neurons sets it.
      activity: calibration of a network with static synapses, which returns the spikes [N]; see `connectivity.needs_activity`.
      classes: [N] bool, whether a neuron is excitatory, if network.load does not tell; None: the first neurons are.
      stored: network.load, opened; None: it is opened here.
      regions: function of the classes [N] that gives the regions of the neurons, for connectivity that depends on them.

    Raises:
      UserError: stored arrays, files or numbers do not agree.
    """
    stored = StoredNetwork(config.network.load) if stored is None else stored
    excitatory = _classes(config, stored, n_units, classes)
    n, dtype = len(excitatory), np.dtype(config.engine.precision)
    stimulus, rates = _stimulus(config, stored, n), _feedforward_rates(config, stored)
    feedforward_weight = _feedforward_weights(config, stored, n, rates)
    network = _with_static_edges(config, stored, excitatory, feedforward_weight.shape[1], regions)
    network = dataclasses.replace(
        network,
        stimulus=None if stimulus is None else jnp.asarray(stimulus, dtype),
        rates=None if rates is None else jnp.asarray(rates, dtype),
    )
    pre = _plastic_inputs(config, stored, network, activity, regions)
    plastic_weight = stored.read("plastic/weight", [n, pre.shape[1]], "f")
    if plastic_weight is None:
        plastic_weight = np.repeat(connectivity.initial_weights(config.plastic, pre, excitatory, dtype), network.group_size, axis=0)[:n]
    weight = np.concatenate([feedforward_weight, plastic_weight], axis=1, dtype=dtype, casting="same_kind")
    return BuiltNetwork(with_plastic_inputs(network, pre), weight, read_target(stored, config.trial.n_points, n))


def check_conditions(network: Network, n_conditions: int) -> None:
    """Raises UserError unless stimulus and feed-forward rates from files have as many conditions as the target."""
    for key, values in (("stimulus.path", network.stimulus), ("feedforward.path", network.rates)):
        if values is not None and len(values) != n_conditions:
            raise UserError(f"{key}: has {len(values)} conditions; expected {n_conditions}, as the target has.")


def _classes(config: Config, stored: StoredNetwork, n_units: int | None, given: np.ndarray | None) -> np.ndarray:
    """[N] bool, whether a neuron is excitatory: as stored, as given, or the first ones."""
    excitatory = stored.read("neuron/excitatory", ["N"], "b")
    excitatory = given if excitatory is None else excitatory
    populations = _populations(config, stored)
    if populations is not None:
        excitatory = population_edges.of_neurons(populations, population_files.read(populations.path).excitatory)
    if excitatory is None:
        n = config.network.n_neurons or n_units
        if n is None:
            raise UserError("network.n_neurons=null: expected a number unless target=recording or network.load gives it.")
        excitatory = np.arange(n) < round(config.network.fraction_excitatory * n)
    n = len(excitatory)
    if n < 2:
        raise UserError(f"{stored.path}: neuron/excitatory has {n} values; expected one per neuron, at least 2.")
    if (stored.path is not None or populations) and config.network.n_neurons not in (None, n):
        source = "static.path" if populations else "network.load"
        log.info("network.n_neurons=%d is ignored, because %s has %d neurons.", config.network.n_neurons, source, n)
    return excitatory


def _stimulus(config: Config, stored: StoredNetwork, n: int) -> np.ndarray | None:
    """[C, bins, N] stimulus from network.load or stimulus.path, threshold units; None for other kinds of stimulus."""
    if not isinstance(config.stimulus, GivenStimulusConfig):
        return None
    values = stored.read("stimulus", ["C", "bins", n], "f")
    return zarr_store.read_plain(config.stimulus.path, "stimulus.path", ["C", "bins", n]) if values is None else values


def _feedforward_rates(config: Config, stored: StoredNetwork) -> np.ndarray | None:
    """[C, M, X] feed-forward rates from network.load or feedforward.path, Hz; None for other kinds of feed-forward neurons."""
    settings = config.feedforward
    if not isinstance(settings, GivenFeedforwardConfig):
        return None
    rates = stored.read("feedforward/rate", ["C", config.trial.n_points, "X"], "f")
    if rates is None:
        rates = zarr_store.read_plain(settings.path, "feedforward.path", ["C", config.trial.n_points, "X"])
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


def _regions(key: str, excitatory: np.ndarray, regions: Callable[[np.ndarray], Regions] | None) -> Regions:
    """The regions of the neurons; raises UserError, which begins with `key`, if they are not known."""
    if regions is None:
        raise UserError(f"{key}: needs the regions of the neurons; expected a recording with unit/region, or connectivity in network.load.")
    return regions(excitatory)


def _with_static_edges(
    config: Config, stored: StoredNetwork, excitatory: np.ndarray, x: int, regions: Callable[[np.ndarray], Regions] | None
) -> Network:
    """A network of N neurons and `x` feed-forward neurons that has static synapses only."""
    n, dtype = len(excitatory), np.dtype(config.engine.precision)
    edges = _static_edges(config, stored, excitatory, regions)
    bias, v0 = _biases(config, stored, excitatory, edges), stored.read("neuron/v0", [n], "f")
    background = _background(config, stored, excitatory)
    parameters = {name: jnp.asarray(values, dtype) for name, values in (_parameters(config, stored, excitatory, x) | background).items()}
    taus, tau_channel = _tau_channels(parameters)
    delays, edges = edges.by_delay(config.trial.dt, n + x)
    indptr, width, no_indices = edges.indptr, largest_degree(edges.indptr), jnp.zeros(0, jnp.int32)
    post = no_indices if edges.stream is not None else padded(edges.post.astype(np.int32, copy=False), indptr, width)
    edges = dataclasses.replace(edges, post=no_indices)  # as it may be large
    weight = None if edges.weight is None else padded(edges.weight.astype(dtype, copy=False), indptr, width)
    return Network(
        excitatory=jnp.asarray(excitatory),
        bias=jnp.asarray(bias, dtype),
        v0=None if v0 is None else jnp.asarray(v0, dtype),
        parameters=parameters,
        taus=taus,
        tau_channel=tau_channel,
        delays=delays,
        largest_background=float(np.max(_background_rate(background), initial=0)) * config.trial.dt,
        indptr=jnp.asarray(indptr, jnp.int32),
        post=post,
        weight=weight,
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


def with_plastic_inputs(network: Network, pre: np.ndarray) -> Network:
    """The network with plastic inputs `pre` [G, L] after those from all feed-forward neurons."""
    n, x = network.n_neurons, network.n_feedforward
    feedforward = np.broadcast_to(n + np.arange(x, dtype=np.int32), (len(pre), x))
    inputs = np.concatenate([feedforward, pre], axis=1).astype(np.int32)
    out_indptr, out_slot = connectivity.outputs_of(inputs, n + x)
    width = largest_degree(out_indptr)
    return dataclasses.replace(
        network,
        pre=jnp.asarray(inputs),
        out_indptr=jnp.asarray(out_indptr),
        out_slot=padded(out_slot, out_indptr, width),
        plastic_width=width,
    )


def _static_edges(config: Config, stored: StoredNetwork, excitatory: np.ndarray, regions: Callable[[np.ndarray], Regions] | None) -> Edges:
    """The static synapses, stored or drawn; raises UserError unless they are valid for N neurons."""
    n, where = len(excitatory), str(stored.path)
    edges = read_static_edges(stored, n)
    if edges is None:
        stream = rng.key(config.seed, rng.Purpose.STATIC)
        if isinstance(config.static, RegionalConfig):
            places = _regions("static=regional", excitatory, regions)
            edges = connectivity.regional_edges(config.static, stream, excitatory, places)
        elif isinstance(config.static, PopulationsConfig):
            edges = population_edges.population_edges(config.static, np.asarray(stream), config.trial.dt)
        else:
            edges = connectivity.static_edges(config.static, stream, excitatory)
        where = f"static.name={config.static.name}"
    indptr = np.asarray(edges.indptr, np.int64)
    check_indptr(indptr, n * (1 + len(edges.delays)), where)
    if indptr[-1] >= 2**31:
        raise UserError(f"{where}: has {indptr[-1]:,} static synapses; expected fewer than {2**31:,}.")
    if edges.stream is None and len(edges.post) != indptr[-1]:
        raise UserError(f"{where}: has {len(edges.post)} static synapses; expected {indptr[-1]}, the last number of indptr.")
    if edges.post.size and (edges.post.min() < 0 or edges.post.max() >= n):
        lowest, highest = edges.post.min(), edges.post.max()
        raise UserError(f"{where}: static/post reaches from {lowest} to {highest}; expected numbers from 0 to {n - 1}.")
    edges = dataclasses.replace(edges, indptr=indptr)
    if edges.delay is not None:
        own = np.repeat(np.where(excitatory, *config.synapse.delays(config.trial.dt)), np.diff(indptr))
        if np.all(np.abs(edges.delay - own) < config.trial.dt / 2):  # those of the configuration, which need no list for each delay
            edges = dataclasses.replace(edges, delay=None)
    return edges.ascending()


def _biases(config: Config, stored: StoredNetwork, excitatory: np.ndarray, edges: Edges) -> np.ndarray:
    """[N] bias, threshold units: the stored one, network.bias, or that of the static synapses."""
    bias = stored.read("neuron/bias", [len(excitatory)], "f")
    if bias is not None:
        return bias
    values = np.array(
        connectivity.class_bias(config.static, excitatory, edges.indptr) if config.network.bias is None else by_class(config.network.bias)
    )
    bias = values[np.where(excitatory, 0, 1)]
    background = config.background
    weight, rate = (np.where(excitatory, *by_class(value)) for value in (background.weight, background.rate))
    outside = weight * rate / 1000 * (background.kind != "none")  # through one input
    populations = _populations(config, stored)
    if populations is not None:
        bias = bias + population_edges.lost_current(populations, outside)
    if background.kind == "constant":
        found = _background(config, stored, excitatory, always=True)
        bias = bias + _background_rate(found) * found["background_weight"]
    return bias


def _populations(config: Config, stored: StoredNetwork) -> PopulationsConfig | None:
    """The settings of populations, if the network is drawn from them."""
    return config.static if isinstance(config.static, PopulationsConfig) and stored.path is None else None


def _background(config: Config, stored: StoredNetwork, excitatory: np.ndarray, always: bool = False) -> dict[str, np.ndarray]:
    """The settings [N] of the Poisson background of each neuron; empty without one, unless `always`."""
    background, populations, found = config.background, _populations(config, stored), {}
    if background.kind != "poisson" and not always:
        return {}
    for field in dataclasses.fields(background):
        if field.name != "kind":
            values = read_parameter(stored, f"background_{field.name}", field.metadata, len(excitatory), config.trial.dt)
            if values is None:
                values = np.where(excitatory, *by_class(getattr(background, field.name)))
                if field.name == "n_inputs" and populations is not None:
                    values = population_edges.external_inputs(populations)
                if field.name == "weight" and populations is not None:
                    values = values / math.sqrt(populations.inputs)
            found[f"background_{field.name}"] = values
    return found


def _background_rate(background: dict[str, np.ndarray]) -> np.ndarray:
    """[N] 1/ms, background spikes of each neuron; empty without a background."""
    return background["background_n_inputs"] * background["background_rate"] / 1000 if background else np.zeros(0)


def _parameters(config: Config, stored: StoredNetwork, excitatory: np.ndarray, x: int) -> dict[str, np.ndarray]:
    """Parameters that differ between neurons: [N] each, tau_plas [N+X]. Stored arrays have priority over values by class.

    Raises:
      UserError: values are outside their limits, or a reset potential is not below the threshold.
    """
    fields: dict[str, tuple[Any, Any]] = {f.name: (f, config.neuron) for f in dataclasses.fields(config.neuron) if f.name != "name"}  # type: ignore[arg-type]
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
    """`Network.taus` and `Network.tau_channel`, from tau_plas [N+X] if the parameters contain it."""
    if "tau_plas" not in parameters:
        return (), None
    taus, channel = np.unique(np.asarray(parameters["tau_plas"]), return_inverse=True)
    return (tuple(taus.tolist()), jnp.asarray(channel, jnp.int32)) if len(taus) <= MAX_TAU_CHANNELS else ((), None)


def _plastic_inputs(
    config: Config,
    stored: StoredNetwork,
    network: Network,
    activity: Callable[[Network], np.ndarray] | None,
    regions: Callable[[np.ndarray], Regions] | None,
) -> np.ndarray:
    """[G, L] plastic inputs, stored or drawn; -1 pads. Raises UserError if they are not numbers of neurons."""
    n, size = network.n_neurons, network.group_size
    pre = read_plastic_inputs(stored, n, size, required=config.plastic.n_inputs > 0)
    if pre is not None:
        return pre
    counts = None
    if connectivity.needs_activity(config.plastic):
        if activity is None or not network.static_width:
            raise UserError("plastic.active_fraction: expected 1 without static synapses, because it needs the calibration.")
        counts = activity(network)
    plastic, groups = dataclasses.replace(config.plastic, group_size=size), -(-n // size)
    stream, excitatory = rng.key(config.seed, rng.Purpose.PLASTIC), np.asarray(network.excitatory)
    if isinstance(plastic, RegionalInputsConfig):
        pre = connectivity.regional_inputs(plastic, stream, excitatory, _regions("plastic=regional", excitatory, regions))
    else:
        pre = np.asarray(connectivity.plastic_inputs(plastic, stream, excitatory, counts))
    if pre.ndim != 2 or len(pre) != groups or (pre.size and (pre.min() < -1 or pre.max() >= n)):
        raise UserError(f"plastic: the inputs drawn have shape {list(pre.shape)}; expected [{groups}, L] of numbers from -1 to {n - 1}.")
    return pre


def largest_degree(indptr: np.ndarray) -> int:
    """The largest number of edges of one neuron."""
    return int(np.max(np.diff(indptr), initial=0))


def padded(values: Any, indptr: np.ndarray, width: int) -> Array:
    """Values on the device, padded so that `width` of them can be read from the first edge of any neuron."""
    missing = int(np.max(indptr[:-1], initial=0)) + width - len(values)
    if missing > 0:
        values = np.concatenate([values, np.zeros(missing, values.dtype)])
    return jax.block_until_ready(jnp.asarray(values))  # JAX copies in the background, and keeps `values` until then
