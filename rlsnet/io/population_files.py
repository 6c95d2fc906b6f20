"""Networks of populations in YAML files: sizes, classes, numbers of synapses, weights and delays. Two of published models ship.

A matrix has a row for each postsynaptic and a column for each presynaptic population. A row may have two numbers in place of that: for
excitatory and for inhibitory presynaptic populations. One such row in place of a matrix is that of every postsynaptic population.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rlsnet.errors import UserError

SHIPPED = Path(__file__).parent / "populations"
KEYS = {"name", "class", "neurons", "external", "rate"}
NUMBERS = ("probability", "synapses", "in_degree")


@dataclasses.dataclass(frozen=True)
class Populations:
    """P populations at full size; matrices [P, P] have the postsynaptic population first.

    names: [P].
    excitatory: [P] bool.
    neurons: [P] int, sizes.
    external: [P] inputs of a neuron from outside of the network.
    rate: [P] Hz, mean rates of the network at full size, from which the input that is lost by scaling is computed.
    synapses: [P, P] total numbers of synapses.
    fixed_in_degree: whether all neurons of a population have the same number of inputs from another one.
    weight: [P, P] mean weights, threshold*ms.
    weight_sd, delay_sd: s.d. as a fraction of the mean.
    delay: [P, P] mean delays, ms.
    """

    names: tuple[str, ...]
    excitatory: np.ndarray
    neurons: np.ndarray
    external: np.ndarray
    rate: np.ndarray
    synapses: np.ndarray
    fixed_in_degree: bool
    weight: np.ndarray
    weight_sd: float
    delay: np.ndarray
    delay_sd: float

    def scaled(self, scale: float, inputs: float) -> tuple[np.ndarray, np.ndarray]:
        """([P] neurons, [P, P] synapses) with `scale` times the neurons and `inputs` times the inputs of each."""
        neurons = np.maximum(1, np.rint(self.neurons * scale)).astype(int)
        if self.fixed_in_degree:
            return neurons, np.rint(self.synapses / self.neurons[:, None] * inputs).astype(int) * neurons[:, None]
        return neurons, np.rint(self.synapses * (scale * inputs)).astype(int)


@functools.cache
def read(path: str) -> Populations:
    """The populations in a file, or of a model that ships.

    Args:
      path: a YAML file, or the name of a file in rlsnet/io/populations.

    Raises:
      UserError: the file cannot be read, or what it holds does not fit together.
    """
    where = f"static.path={path}"
    file = SHIPPED / f"{path}.yaml" if "/" not in path and not Path(path).suffix else Path(path)
    if not file.is_file():
        known = " or ".join(sorted(each.stem for each in SHIPPED.glob("*.yaml")))
        raise UserError(f"{where}: no such file; expected a .yaml file of populations, or {known}.")
    try:
        return _populations(yaml.safe_load(file.read_text()), where)
    except yaml.YAMLError as error:
        raise UserError(f"{where}: is not valid YAML ({str(error).splitlines()[0]}).") from error
    except (KeyError, TypeError, ValueError) as error:
        words = f"lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise UserError(f"{where}: {words}; expected the keys of {SHIPPED.name}/microcircuit.yaml (docs/formats.md).") from error


def _populations(values: Any, where: str) -> Populations:
    """`read` of what the file holds; raises ValueError, KeyError or TypeError too, which the caller puts in words."""
    rows = values["populations"]
    if unknown := {name for row in rows for name in row} - KEYS:
        raise UserError(f"{where}: populations have {sorted(unknown)[0]}; expected only {', '.join(sorted(KEYS))}.")
    if wrong := [row["class"] for row in rows if row["class"] not in ("exc", "inh")]:
        raise UserError(f"{where}: a population has class {wrong[0]}; expected exc or inh.")
    excitatory = np.array([row["class"] == "exc" for row in rows])
    neurons, external, rate = (np.array([float(row[name]) for row in rows]) for name in ("neurons", "external", "rate"))
    given = [name for name in NUMBERS if name in values]
    if len(given) != 1 or unknown_keys(values):
        what = f"has {', '.join(given) or 'no number of synapses'}" if len(given) != 1 else f"has the key {unknown_keys(values)[0]}"
        raise UserError(f"{where}: {what}; expected populations, weight, weight_sd, delay, delay_sd and one of {', '.join(NUMBERS)}.")
    number, weight, delay = (_matrix(values[name], excitatory, f"{where}: {name}") for name in (given[0], "weight", "delay"))
    if np.any(neurons < 1) or np.any(number < 0) or np.any(delay <= 0) or (given[0] == "probability" and np.any(number >= 1)):
        raise UserError(f"{where}: expected neurons of at least 1, {given[0]} of at least 0, probabilities below 1, and delays above 0 ms.")
    if np.any(np.where(excitatory[None, :], weight, -weight) < 0):
        raise UserError(f"{where}: weight: expected at least 0 from excitatory and at most 0 from inhibitory populations.")
    synapses = number
    if given[0] == "probability":  # of at least one synapse between two neurons: Potjans & Diesmann 2014, equation 1
        pairs = neurons[:, None] * neurons[None, :]
        synapses = np.log1p(-number) / np.log1p(-1 / pairs)
    if given[0] == "in_degree":
        synapses = number * neurons[:, None]
    names = tuple(str(row["name"]) for row in rows)
    spread = float(values["weight_sd"]), float(values["delay_sd"])
    fixed = given[0] == "in_degree"
    return Populations(names, excitatory, neurons.astype(int), external, rate, synapses, fixed, weight, spread[0], delay, spread[1])


def unknown_keys(values: Any) -> list[str]:
    """Keys of a file that mean nothing."""
    return sorted(set(values) - {"populations", "weight", "weight_sd", "delay", "delay_sd", *NUMBERS})


def _matrix(values: Any, excitatory: np.ndarray, where: str) -> np.ndarray:
    """[P, P] float64 from a matrix or a row; raises UserError for another shape."""
    n = len(excitatory)
    rows = [values] * n if not isinstance(values[0], list) else values * n if len(values) == 1 else values
    if len(rows) != n or any(len(row) not in (2, n) for row in rows):
        words = f"one row or {n}, each of {n} numbers, or of two: from excitatory and from inhibitory populations"
        raise UserError(f"{where}: expected {words}.")
    return np.array([row if len(row) == n else np.where(excitatory, *row) for row in rows], float)
