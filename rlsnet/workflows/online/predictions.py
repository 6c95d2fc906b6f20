"""Predicted effects of perturbations that may be done next, by all models, and how much these differ."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import yaml

from rlsnet.config.load import from_dict, to_dict
from rlsnet.config.schema import Config, WindowConfig, is_filter
from rlsnet.data import query
from rlsnet.data.neuron_table import OWN, NeuronTable
from rlsnet.data.statistics import mean_known
from rlsnet.errors import UserError, did_you_mean, first_line
from rlsnet.model.neuron_selection import select_neurons
from rlsnet.simulation import perturbation as perturbations
from rlsnet.simulation.perturbation import Perturbation
from rlsnet.simulation.state import TESTING, Dynamics, TrialKeys
from rlsnet.simulation.trial import Program
from rlsnet.workflows.evaluation import run_trial
from rlsnet.workflows.online.model import OnlineModel
from rlsnet.workflows.online.session import Session, conditions_from

log = logging.getLogger(__name__)

COLUMNS = ("unit", "stream", "recorded")  # of a neuron: key and stream of the unit that it reproduces, whether there is one


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Effects on mean rates from the start of a perturbation to the end of the trial, Hz.

    names: [P] of the perturbations.
    effect: [K, P, C, U] with minus without the perturbation, by model; NaN for units without a neuron, and where nobody is perturbed.
    noise: [K, P, C] standard error of the mean effect over units, which comes from the number of simulated trials.
    observed: [P, C, U] effect in the trials so far, with which perturb.compare compares; else NaN.
    disagreement: [P] root mean square over units and conditions of the standard deviation between models, without the part that
      comes from the number of trials; NaN for one model.
    """

    names: list[str]
    effect: np.ndarray
    noise: np.ndarray
    observed: np.ndarray
    disagreement: np.ndarray

    @property
    def most_informative(self) -> str | None:
        """Name of the perturbation about whose effect the models differ most; None if this is unknown."""
        known = np.isfinite(self.disagreement)
        return self.names[int(np.nanargmax(np.where(known, self.disagreement, -1)))] if known.any() else None


def read(config: Config) -> dict[str, WindowConfig]:
    """Perturbations of the file watch.perturbations by name; none without a file.

    Raises:
      UserError: the file cannot be read, or a perturbation in it is no possible section perturb.
    """
    path = config.watch.perturbations
    if path is None:
        return {}
    where = f"watch.perturbations={path}"
    try:
        content = yaml.safe_load(Path(path).read_text())
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{where}: cannot be read ({first_line(error)}).") from error
    if not isinstance(content, dict) or not content or not all(isinstance(each, dict) for each in content.values()):
        raise UserError(f"{where}: expected a section like perturb under the name of each perturbation, such as no_exc: {{name: silence}}.")
    if odd := [name for name in content if not isinstance(name, str)]:
        raise UserError(f"{where}: the name {yaml.safe_dump(odd[0]).split()[0]} is no text; expected quotes around it, or another name.")
    found = {}
    for name, section in content.items():
        try:
            made = from_dict({**to_dict(config), "perturb": section}).perturb
        except UserError as error:
            raise UserError(f"{where}: {name}: {error}") from error
        if not isinstance(made, WindowConfig):
            raise UserError(f"{where}: {name}: is {made.name}; expected silence, excite or clamp.")
        for each in (*(made.compare or {}), *(made.compare or {}).values()):
            if each not in (known := conditions_from(config)):
                raise UserError(f"{where}: {name}: perturb.compare: no condition {each}.{did_you_mean(each, known)}")
        _check_neurons(made, config.network.n_neurons or 2, f"{where}: {name}: perturb.neurons={made.neurons}")
        found[name] = made
    return found


def _check_neurons(settings: WindowConfig, n: int, where: str) -> None:
    """Raises UserError if neurons cannot be selected in a network of n neurons, or with columns that there are not."""
    if not is_filter(settings.neurons):
        select_neurons(settings.neurons, np.arange(n) % 2 == 0, None, where)
        return
    for column in query.column_names(str(settings.neurons)):
        query.require_column(column, [*OWN, *COLUMNS], where, "the network")


class Predictor:
    """Simulates the trials of predictions; each kind of perturbation is compiled when it is first needed."""

    def __init__(self, config: Config):
        """Reads watch.perturbations; errors as of `read`."""
        self._config, self._settings = config, read(config)
        self._clock = (config.watch.start - config.trial.stim_off) / 1000
        self._programs: dict[tuple[str, int], Program] = {}
        self._without: set[str] = set()  # perturbations that had no neuron when they were last asked for
        for name, settings in self._settings.items():
            try:
                settings.steps(config.trial, self._clock)
            except UserError as error:
                raise UserError(f"watch.perturbations={config.watch.perturbations}: {name}: {error}") from error

    @property
    def compile_seconds(self) -> float:
        """Time that compilations have taken so far, s."""
        return sum(program.seconds for program in self._programs.values())

    def __bool__(self) -> bool:
        """Whether there is something to predict."""
        return bool(self._settings)

    def predict(self, session: Session, stop: Callable[[], bool] = lambda: False) -> Prediction | None:
        """Effects with the present weights of all models; None if `stop`, asked between two simulations, is true."""
        names, units = list(self._settings), session.assignment.neuron
        shape = len(session.models), len(names), len(session.conditions)
        effect, variance = (np.full((*shape, len(units)), np.nan) for _ in range(2))
        noise = np.full(shape, np.nan)
        for k, model in enumerate(session.models):
            table = _table(model, session)
            for c in range(shape[2]):
                without = self._trials("", k, model, None, c, stop)
                for p, name in enumerate(names):
                    made = self._perturbation(name, model, table)
                    if without is None or made is None:
                        continue
                    changed = self._trials(name, k, model, made, c, stop)
                    if changed is None:
                        return None
                    each = (changed - without)[:, self._first_bin(name) :].mean(axis=1) * (1000 / self._config.trial.learn_every)
                    each = np.where(units >= 0, each[:, np.maximum(units, 0)], np.nan)
                    effect[k, p, c], variance[k, p, c] = each.mean(axis=0), each.var(axis=0, ddof=1) / len(each)
                    noise[k, p, c] = np.std(mean_known(each.T), ddof=1) / np.sqrt(len(each))
            if stop():
                return None
        return Prediction(names, effect, noise, self._observed(session), _disagreement(effect, variance))

    def _perturbation(self, name: str, model: OnlineModel, table: NeuronTable) -> Perturbation | None:
        """A perturbation of a model; None, and once a line in the log, if it cannot be made with the units so far."""
        config = dataclasses.replace(model.config, perturb=self._settings[name])
        try:
            return perturbations.from_config(config, table, TESTING, self._clock)
        except UserError as error:
            if name not in self._without:
                log.warning("No prediction of %s with the units so far: %s", name, error)
            self._without.add(name)
            return None

    def _trials(
        self, name: str, number: int, model: OnlineModel, perturbation: Perturbation | None, condition: int, stop: Callable[[], bool]
    ) -> np.ndarray | None:
        """[T, M, N] spikes in trials of a condition; None if `stop` is true."""
        keys = dataclasses.replace(TrialKeys.create(model.config.seed, TESTING), perturbation=perturbation)
        counts = []
        for trial in range(self._config.watch.prediction_trials):
            if stop():
                return None
            arguments = model.network, model.learner.w, keys, jnp.int32(trial), jnp.int32(condition), None
            if (name, number) not in self._programs:
                self._programs[name, number] = Program(run_trial, Dynamics.from_config(self._config), (False,), *arguments)
            counts.append(np.asarray(self._programs[name, number](*arguments).counts))
        return np.stack(counts)

    def _first_bin(self, name: str) -> int:
        """The first bin whose rates count, that in which a perturbation starts."""
        trial = self._config.trial
        first = (self._settings[name].steps(trial, self._clock)[0][0] - trial.steps(trial.stim_off)) // trial.every
        return min(max(0, first), trial.n_points - 1)

    def _observed(self, session: Session) -> np.ndarray:
        """[P, C, U] Hz, effects in the trials so far."""
        found = np.full((len(self._settings), len(session.conditions), len(session.assignment.neuron)), np.nan)
        rates = session.average.rates()
        for p, (name, settings) in enumerate(self._settings.items()):
            for own, perturbed in (settings.compare or {}).items():
                c, other = session.conditions.index(own), session.conditions.index(perturbed)
                found[p, c, : rates.shape[2]] = (rates[other] - rates[c])[self._first_bin(name) :].mean(axis=0)
        return found


def _disagreement(effect: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """[P] as of `Prediction`, from effects [K, P, C, U] and the variances of their means over trials."""
    if len(effect) < 2:
        return np.full(effect.shape[1], np.nan)
    between = (effect.var(axis=0, ddof=1) - variance.mean(axis=0)).reshape(effect.shape[1], -1)
    return np.sqrt(np.maximum(0.0, mean_known(between.T)))


def _table(model: OnlineModel, session: Session) -> NeuronTable:
    """The neurons of a model as a table, with the key and the stream of the unit that a neuron reproduces."""
    unit, stream = (np.full(model.n_neurons, "", object) for _ in range(2))
    for each, neuron in zip(session.units, session.assignment.neuron, strict=False):
        if neuron >= 0:
            unit[neuron], stream[neuron] = each.key, each.stream
    more = dict(zip(COLUMNS, (unit.astype(str), stream.astype(str), unit != ""), strict=True))
    return NeuronTable(np.asarray(model.network.excitatory), more=more)


def as_message(prediction: Prediction, conditions: Sequence[str]) -> dict[str, Any]:
    """A prediction as plain values: for each perturbation and condition, the mean effect over units by model and its standard error."""

    def numbers(values: np.ndarray) -> list[float | None]:
        return [float(x) if np.isfinite(x) else None for x in values]

    return {
        name: {
            "disagreement_hz": numbers(prediction.disagreement[[p]])[0],
            **{
                condition: {
                    "effect_hz": numbers(mean_known(prediction.effect[:, p, c].T)),
                    "noise_hz": numbers(prediction.noise[:, p, c]),
                    "observed_hz": numbers(mean_known(prediction.observed[p, c][:, None]))[0],
                }
                for c, condition in enumerate(conditions)
            },
        }
        for p, name in enumerate(prediction.names)
    }
