"""Perturbations: neurons that are silenced, excited or clamped in one or several time windows."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rlsnet.config.schema import ClampConfig, Config, ExciteConfig, GradedConfig, TrialConfig, WindowConfig
from rlsnet.data.formats.table_files import as_numbers, read_table
from rlsnet.data.neuron_table import NeuronTable
from rlsnet.errors import UserError
from rlsnet.io import zarr_store
from rlsnet.model import rng
from rlsnet.model.neurons import init


@dataclasses.dataclass(frozen=True)
class Course:
    """Strength of a perturbation over time, relative to its full strength; step i is at time i*dt, as for learning points and bins.

    windows: (first step, end) of each window, in order; the end is the first step after the window.
    scale: factor of the strength in each window.
    up, down: steps of the linear rise at the start and of the linear fall at the end of each window.
    """

    windows: tuple[tuple[int, int], ...]
    scale: tuple[float, ...]
    up: int = 0
    down: int = 0

    def inside(self, i: Array, n: int = 1) -> Array:
        """Whether any of the steps i to i + n - 1 is in a window."""
        start, end = np.array(self.windows, np.int32).T
        return jnp.any((i + n > start) & (i < end))

    def level(self, i: Array, dtype: Any) -> Array:
        """Strength in step i: 0 outside the windows. On a ramp it is that of the middle of the step, so the sum over a ramp is exact."""
        start, end = np.array(self.windows, np.int32).T
        since, until = (each.astype(dtype) + 0.5 for each in (i - start, end - 1 - i))
        ramp = jnp.ones_like(since)
        for steps, length in ((since, self.up), (until, self.down)):
            ramp = jnp.minimum(ramp, steps / length) if length else ramp
        return jnp.sum(jnp.where((i >= start) & (i < end), ramp * jnp.array(self.scale, dtype), 0))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Perturbation:
    """Perturbation of some neurons in time windows.

    neurons: [N] bool, the perturbed neurons.
    amount: [N] strength (threshold units) or rate (Hz) of each perturbed neuron; None for silencing.
    stream: [2] uint32, key of the spikes of clamped neurons.
    kind: class of the settings, which is what is done to the neurons.
    course: windows, and strength over time.
    """

    neurons: Array
    amount: Array | None
    stream: Array
    kind: type[WindowConfig] = dataclasses.field(metadata={"static": True})
    course: Course = dataclasses.field(metadata={"static": True})

    def trial(self, number: Array, condition: Array) -> Perturbation:
        """The perturbation with the key of one trial."""
        return dataclasses.replace(self, stream=rng.fold(rng.fold(self.stream, number), condition))

    @property
    def trial_axes(self) -> Any:
        """Axis of the B trials in each array, for jax.vmap; None where the trials share it."""
        return dataclasses.replace(self, neurons=None, amount=None, stream=0)  # type: ignore[arg-type]

    def touches(self, i: Array, n: int) -> Array:
        """Whether any of the `n` steps after step i is in a window."""
        return self.course.inside(i + 1, n)

    def current(self, i: Array, like: Array) -> Array | None:
        """[N] current that the perturbation adds in step i, threshold units; None if it adds no current."""
        if not issubclass(self.kind, ExciteConfig) or self.amount is None:
            return None
        return self.amount.astype(like.dtype) * self.course.level(i, like.dtype)

    def hold(
        self, model: Any, dt: float, i: Array, state: Any, spiked: Array, like: Array, first: Array | None = None
    ) -> tuple[Any, Array]:
        """State and spikes of all neurons in step i, in which silenced and clamped neurons are held at the reset potential.

        Their state is that of `neurons.init` at this potential: not refractory, without after-spike currents. `first` is the number of
        the first neuron in the whole network.
        """
        if issubclass(self.kind, ExciteConfig):
            return state, spiked
        held = self.neurons & self.course.inside(i)
        rest = init(model, jnp.zeros_like(like) + model.reset)
        state = jax.tree.map(lambda new, old: jnp.where(_along(held, old), new, old), rest, state)
        fired = jnp.zeros_like(spiked)
        if issubclass(self.kind, ClampConfig) and self.amount is not None:
            rate = self.amount.astype(like.dtype) * self.course.level(i, like.dtype)
            fired = rng.uniform(rng.fold(self.stream, i), like.shape[0], like.dtype, first) < rate * (dt / 1000)
        return state, jnp.where(held, fired, spiked)


def _along(held: Array, values: Array) -> Array:
    """[N] flags reshaped for broadcasting with an array whose first or last axis are the neurons."""
    return held if values.shape[-1:] == held.shape else held.reshape(held.shape + (1,) * (values.ndim - 1))


def about(perturbation: Perturbation, settings: WindowConfig, trial: TrialConfig) -> dict[str, Any]:
    """What is stored with the results: settings as plain values, the windows in ms, and the number of perturbed neurons, `n`.

    `start` and `stop` are those of the first and of the last window. Where neurons differ in strength, `range` has the smallest and
    the largest.
    """
    windows = [[round(step * trial.dt, 9) for step in each] for each in perturbation.course.windows]
    stored = {name: value for name, value in dataclasses.asdict(settings).items() if name != "window"}
    stored |= {"start": windows[0][0], "stop": windows[-1][1], "windows": windows, "label": settings.result}
    if isinstance(settings, GradedConfig) and (settings.values is not None or isinstance(settings.amount, tuple)):
        assert perturbation.amount is not None
        amounts = np.asarray(perturbation.amount)[np.asarray(perturbation.neurons)]
        stored |= {"strength" if isinstance(settings, ExciteConfig) else "rate": None}
        stored["range"] = [float(amounts.min()), float(amounts.max())]
    return {**stored, "n": int(perturbation.neurons.sum())}


def from_config(config: Config, table: NeuronTable, stage: int, trial_start: float = 0.0) -> Perturbation | None:
    """The perturbation of an experiment, or None.

    Args:
      config: the experiment.
      table: the neurons of the network.
      stage: stage of the experiment to which the trials belong.
      trial_start: start of the simulated trial, in s of the time of the recording.

    Raises:
      UserError: perturb.neurons selects no neuron, perturb.window is not within the trial, or strengths do not fit neurons and windows.
    """
    settings = config.perturb
    if not isinstance(settings, WindowConfig):
        return None
    members = table.select(settings.neurons, "perturb.neurons")
    stream, size = rng.key(config.seed, rng.Purpose.PERTURB), max(1, round(settings.fraction * len(members)))
    if size < len(members):
        members = members[rng.subset(rng.fold(stream, 0), size, len(members))]
    course = _course(settings, config.trial, trial_start)
    amount = None
    if isinstance(settings, GradedConfig):
        amount, members = _amounts(settings, members, len(table.excitatory), config.trial.dt)
    perturbed = np.zeros(len(table.excitatory), bool)
    perturbed[members] = True
    values = None if amount is None else jnp.asarray(np.where(perturbed, amount, 0), np.dtype(config.engine.precision))
    return Perturbation(jnp.asarray(perturbed), values, rng.fold(rng.fold(stream, 1), stage), type(settings), course)


def _course(settings: WindowConfig, trial: TrialConfig, trial_start: float) -> Course:
    """Windows, factors and ramps in steps; raises UserError unless they go together."""
    windows = settings.steps(trial, trial_start)
    if not isinstance(settings, GradedConfig):
        return Course(windows, (1.0,) * len(windows))
    scale, shortest = settings.scale or (1.0,) * len(windows), min(end - start for start, end in windows) * trial.dt
    if len(scale) != len(windows):
        raise UserError(f"perturb.scale={list(scale)}: expected one factor for each window, {len(windows)}.")
    if settings.ramp_up + settings.ramp_down > shortest + 1e-9:
        both = f"perturb.ramp_up={settings.ramp_up:g} ms and perturb.ramp_down={settings.ramp_down:g} ms"
        raise UserError(f"{both}: expected no more than {shortest:g} ms together, the length of the shortest window.")
    return Course(windows, scale, trial.steps(settings.ramp_up), trial.steps(settings.ramp_down))


def _amounts(settings: GradedConfig, members: np.ndarray, n: int, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """([N] strengths or rates, the perturbed neurons of `members`: with a table, those that it lists)."""
    key, given = ("perturb.strength" if isinstance(settings, ExciteConfig) else "perturb.rate"), settings.amount
    if settings.values is not None:
        amount, members = _stored_amounts(settings, members, n)
        if isinstance(settings, ClampConfig):
            highest = amount.max() * max(settings.scale or (1.0,))
            if amount.min() < 0 or highest * dt > 1000:
                limits = f"rates from 0 to {1000 / dt:g} Hz, a spike a step"
                raise UserError(f"perturb.values={settings.values}: has {amount.min():g} to {amount.max():g}; expected {limits}.")
        return amount, members
    if not isinstance(given, tuple):
        return np.full(n, given), members
    if len(given) == n:
        return np.array(given), members
    if len(given) != len(members):
        raise UserError(
            f"{key}: has {len(given)} values; expected {len(members)}, one for each perturbed neuron, or {n}, one for each neuron."
        )
    amount = np.zeros(n)
    amount[members] = given
    return amount, members


def _stored_amounts(settings: GradedConfig, members: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """`_amounts` from the file perturb.values."""
    path = settings.values
    assert path is not None
    if Path(path).suffix == ".npy":
        return zarr_store.read_plain(path, "perturb.values", [n]).astype(np.float64), members
    table = read_table(Path(path))
    if not {"neuron", "value"} <= table.keys():
        raise UserError(f"perturb.values={path}: has columns {', '.join(table) or 'none'}; expected neuron and value.")
    neuron, value = (as_numbers(table[name]) for name in ("neuron", "value"))
    row = next(iter(np.flatnonzero(~np.isfinite(value) | ~np.isin(neuron, np.arange(n)))), None)
    if row is not None or len(np.unique(neuron)) < len(neuron) or not len(neuron):
        where = "has no rows or a neuron twice" if row is None else f"has neuron {neuron[row]:g} with value {value[row]:g} in row {row + 1}"
        raise UserError(f"perturb.values={path}: {where}; expected a number for each listed neuron, 0 to {n - 1}, once each.")
    if (other := np.setdiff1d(neuron, members)).size:
        raise UserError(
            f"perturb.values={path}: lists neuron {int(other[0])}, which perturb.neurons={settings.neurons} or perturb.fraction does not"
            " select; expected selected neurons only, or perturb.neurons=null."
        )
    amount = np.zeros(n)
    amount[neuron.astype(int)] = value
    return amount, np.sort(neuron.astype(int))
