"""Another cue in trials with frozen weights: the stimulus stronger, weaker or at another time, or the inputs of other conditions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rlsnet.config.schema import Config, CueConfig, FeedforwardConfig, NoFeedforwardConfig, NoStimulusConfig, StimulusConfig, TrialConfig
from rlsnet.errors import UserError
from rlsnet.model import rng
from rlsnet.model.network import Network
from rlsnet.simulation import inputs


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cue:
    """The inputs that tell a network the condition, in place of those that it was trained with.

    A mixture of conditions has the mean of their stimuli and feed-forward rates, with the given shares. Both obey linear equations
    with one state, so the shares, which sum to 1, are applied to each step.

    stream, rates: [2] uint32, keys of the stimulus and of the feed-forward rates, from which each condition has its own.
    conditions: [C, K] int32, the K conditions whose inputs trials of each condition receive; [K] in one trial.
    shares: [C, K] their shares; [K] in one trial.
    start, end: steps between which the stimulus is on.
    trained: step in which it starts in training.
    factor: of the stimulus.
    stimulus_too, feedforward_too: whether the conditions are those of the stimulus, and of the feed-forward rates.
    last: last step before learning, after which feed-forward rates differ between conditions.
    """

    stream: Array
    rates: Array
    conditions: Array
    shares: Array
    start: int = dataclasses.field(metadata={"static": True})
    end: int = dataclasses.field(metadata={"static": True})
    trained: int = dataclasses.field(metadata={"static": True})
    factor: float = dataclasses.field(metadata={"static": True})
    stimulus_too: bool = dataclasses.field(metadata={"static": True})
    feedforward_too: bool = dataclasses.field(metadata={"static": True})
    last: int = dataclasses.field(metadata={"static": True})

    def trial(self, number: Array, condition: Array) -> Cue:
        """The cue of a trial of one condition."""
        return dataclasses.replace(self, conditions=self.conditions[condition], shares=self.shares[condition])

    @property
    def trial_axes(self) -> Any:
        """Axis of the B trials in each array, for jax.vmap; None where the trials share it."""
        return dataclasses.replace(self, stream=None, rates=None, conditions=None, shares=None)  # type: ignore[arg-type]

    def touches(self, i: Array, n: int) -> Array:
        """Whether any of the `n` steps after step i has another input than without stimulus and with the condition's own rates."""
        on = jnp.bool_(False) if self.factor == 0 else (i < self.end) & (i + n > self.start)
        return on | (i + n > self.last) if self.feedforward_too else on

    def stimulus(self, settings: StimulusConfig, dt: float, network: Network, s: Array, own: Array, i: Array, normal: Any) -> Any:
        """Stimulus [N] in step i, threshold units, and its state [N] for the next step; arguments as of `inputs.stimulus`.

        The realisation is that of training, from its start on. `own` is the condition of the trial.
        """
        conditions, shares = (self.conditions, self.shares) if self.stimulus_too else (own[None], jnp.ones(1, s.dtype))
        now, after = jnp.zeros_like(s), jnp.zeros_like(s)
        for k in range(len(conditions)):
            stream = rng.fold(self.stream, conditions[k])
            moment = inputs.Moment(stream, conditions[k], i - self.start + self.trained, i - self.start, normal)
            one, state = inputs.stimulus(settings, dt, network, s, moment)
            now, after = now + shares[k] * one, after + shares[k] * state
        on = (i > self.start) & (i < self.end)
        return jnp.where(on, self.factor * now, 0), jnp.where(on, after, s)

    def feedforward(
        self, settings: FeedforwardConfig, dt: float, network: Network, rates: Array, own: tuple[Array, Array], since: Array, every: int
    ) -> tuple[Array, Array]:
        """Feed-forward rates [X] of a step and of the next, Hz. Arguments as of `inputs.feedforward_rates`; `own`: (stream, condition)."""
        if not self.feedforward_too:
            return inputs.feedforward_rates(settings, dt, network, rates, *own, since, every)
        now, after = jnp.zeros_like(rates), jnp.zeros_like(rates)
        for k in range(len(self.conditions)):
            stream = rng.fold(self.rates, self.conditions[k])
            one, state = inputs.feedforward_rates(settings, dt, network, rates, stream, self.conditions[k], since, every)
            now, after = now + self.shares[k] * one, after + self.shares[k] * state
        return now, after


def from_config(config: Config, names: Sequence[str], trial_start: float = 0.0) -> Cue | None:
    """The cue of a test, or None without perturb=cue.

    Args:
      config: the experiment.
      names: of the conditions.
      trial_start: start of the simulated trial, in s of the time of the recording.

    Raises:
      UserError: a condition does not exist, a time is not within the trial, or there is no input that could change.
    """
    settings, trial = config.perturb, config.trial
    if not isinstance(settings, CueConfig):
        return None
    _check_inputs(settings, config)
    (start, end), count = settings.steps(trial, trial_start), len(names)
    mixture = settings.mixture(names)
    own = jnp.arange(count, dtype=jnp.int32)[:, None]
    conditions = jnp.broadcast_to(jnp.array(list(mixture), jnp.int32), (count, len(mixture))) if mixture else own
    shares = jnp.broadcast_to(jnp.array(list(mixture.values()), config.engine.precision), (count, len(mixture)))
    return Cue(
        stream=rng.key(config.seed, rng.Purpose.STIMULUS),
        rates=rng.key(config.seed, rng.Purpose.FEEDFORWARD_RATE),
        conditions=conditions,
        shares=shares if mixture else jnp.ones((count, 1), config.engine.precision),
        start=start,
        end=end,
        trained=trial.steps(trial.stim_on),
        factor=settings.factor,
        stimulus_too=settings.inputs != "feedforward",
        feedforward_too=bool(mixture) and settings.inputs != "stimulus" and not isinstance(config.feedforward, NoFeedforwardConfig),
        last=trial.steps(trial.stim_off) - 1,
    )


def _check_inputs(settings: CueConfig, config: Config) -> None:
    """Raises UserError where the network does not have the inputs that the settings change."""
    if settings.cue is None and settings.factor == 1 and settings.window is None:
        raise UserError("perturb=cue: changes nothing; expected perturb.cue, perturb.factor or perturb.window.")
    no_stimulus, no_rates = isinstance(config.stimulus, NoStimulusConfig), isinstance(config.feedforward, NoFeedforwardConfig)
    if no_stimulus and (settings.factor != 1 or settings.window is not None or settings.inputs == "stimulus"):
        raise UserError("perturb=cue: the run has no stimulus (stimulus=none); expected perturb.cue alone, with feed-forward neurons.")
    if no_rates and (no_stimulus or settings.inputs == "feedforward"):
        raise UserError("perturb=cue: the run has no input that tells the condition; expected a run with stimulus or feed-forward neurons.")


def about(cue: Cue, settings: CueConfig, trial: TrialConfig) -> dict[str, Any]:
    """What is stored with the results: settings as plain values, and the time of the stimulus in ms."""
    window = [round(step * trial.dt, 9) for step in (cue.start, cue.end)]
    stored = {name: value for name, value in dataclasses.asdict(settings).items() if name != "window"}
    return {**stored, "start": window[0], "stop": window[1], "windows": [window], "label": settings.result, "n": 0}
