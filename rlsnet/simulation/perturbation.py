"""Perturbations: neurons that are silenced, excited or clamped in a time window."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rlsnet.config.schema import ClampConfig, Config, ExciteConfig, TrialConfig, WindowConfig
from rlsnet.model import rng
from rlsnet.model.neuron_selection import select_neurons
from rlsnet.model.neurons import init


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Perturbation:
    """Perturbation of some neurons in a time window.

    neurons: [N] bool, the perturbed neurons.
    stream: [2] uint32, key of the spikes of clamped neurons.
    settings: section perturb.
    first, last: first and last step of the window; step i is at time i*dt, as for learning points and bins.
    """

    neurons: Array
    stream: Array
    settings: WindowConfig = dataclasses.field(metadata={"static": True})
    first: int = dataclasses.field(metadata={"static": True})
    last: int = dataclasses.field(metadata={"static": True})

    def trial(self, number: Array, condition: Array) -> Perturbation:
        """The perturbation with the key of one trial."""
        return dataclasses.replace(self, stream=rng.fold(rng.fold(self.stream, number), condition))

    def about(self, trial: TrialConfig) -> dict[str, Any]:
        """Settings as plain values, with the window in ms and the number of perturbed neurons, `n`."""
        times = {"start": round(self.first * trial.dt, 9), "stop": round((self.last + 1) * trial.dt, 9)}
        settings = {name: value for name, value in dataclasses.asdict(self.settings).items() if (name, value) != ("window", None)}
        return {**settings, **times, "label": self.settings.result, "n": int(self.neurons.sum())}

    def touches(self, i: Array, n: int) -> Array:
        """Whether any of the `n` steps after step i is in the window."""
        return (i < self.last) & (i + n >= self.first)

    def current(self, i: Array, like: Array) -> Array | None:
        """[N] current that the perturbation adds in step i, threshold units; None if it adds no current."""
        if not isinstance(self.settings, ExciteConfig):
            return None
        return jnp.where(self.neurons & self._active(i), jnp.asarray(self.settings.strength, like.dtype), 0)

    def hold(self, model: Any, dt: float, i: Array, state: Any, spiked: Array, like: Array) -> tuple[Any, Array]:
        """State and spikes of all neurons in step i, in which silenced and clamped neurons are held at the reset potential.

        Their state is that of `neurons.init` at this potential: not refractory, without after-spike currents.
        """
        if isinstance(self.settings, ExciteConfig):
            return state, spiked
        held = self.neurons & self._active(i)
        rest = init(model, jnp.zeros_like(like) + model.reset)
        state = jax.tree.map(lambda new, old: jnp.where(_along(held, old), new, old), rest, state)
        fired = jnp.zeros_like(spiked)
        if isinstance(self.settings, ClampConfig):
            fired = rng.uniform(rng.fold(self.stream, i), like.shape[0], like.dtype) < self.settings.rate * (dt / 1000)
        return state, jnp.where(held, fired, spiked)

    def _active(self, i: Array) -> Array:
        return (i >= self.first) & (i <= self.last)


def _along(held: Array, values: Array) -> Array:
    """[N] flags reshaped for broadcasting with an array whose first or last axis are the neurons."""
    return held if values.shape[-1:] == held.shape else held.reshape(held.shape + (1,) * (values.ndim - 1))


def from_config(
    config: Config, excitatory: np.ndarray, region: np.ndarray | None, stage: int, trial_start: float = 0.0
) -> Perturbation | None:
    """The perturbation of an experiment, or None.

    Args:
      config: the experiment.
      excitatory: [N] bool.
      region: [N] names of regions, or None if they are not known.
      stage: stage of the experiment to which the trials belong.
      trial_start: start of the simulated trial, in s of the time of the recording.

    Raises:
      UserError: perturb.neurons selects no neuron, or perturb.window is not within the trial.
    """
    settings = config.perturb
    if not isinstance(settings, WindowConfig):
        return None
    members = select_neurons(settings.neurons, excitatory, region, "perturb.neurons")
    stream, size = rng.key(config.seed, rng.Purpose.PERTURB), max(1, round(settings.fraction * len(members)))
    if size < len(members):
        members = members[rng.subset(rng.fold(stream, 0), size, len(members))]
    start, stop = settings.steps(config.trial, trial_start)
    perturbed = np.isin(np.arange(len(excitatory)), members)
    return Perturbation(jnp.asarray(perturbed), rng.fold(rng.fold(stream, 1), stage), settings, start, stop - 1)
