"""Stored results of a run as tables of pandas and arrays of xarray, with the units that its neurons reproduce."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rlsnet.analysis import verdict
from rlsnet.analysis.test_results import RunResults
from rlsnet.errors import UserError, did_you_mean, package
from rlsnet.io import memory, zarr_store
from rlsnet.learning.population import EXPLAINED
from rlsnet.learning.scores import SCORES
from rlsnet.model import network_store
from rlsnet.model.neuron_selection import select_neurons
from rlsnet.workflows import prepare, test_store

if TYPE_CHECKING:
    import pandas
    import xarray

COLUMNS = ("session", "id", "region", "probe", "unit")  # of the recorded units, in the order of columns
SOURCES = {"model": "psth", "trained": "rate_target", "heldout": "rate_heldout"}  # of a PSTH: arrays of test.zarr
BYTES_PER_SPIKE = 80  # of memory, while a table of spikes is made
MOST_NAMES = 12  # names that a message lists
Selection = str | int | Sequence[int] | np.ndarray | None  # of neurons


def neuron_columns(results: RunResults) -> dict[str, np.ndarray]:
    """Columns [N] of all neurons of the network: `excitatory` and, where they are known, labels and columns of the recorded units.

    They come from the test, if it has all neurons, else from the recording.
    """
    group = zarr_store.open_group(results.run.network, "", network_store.FORMAT)
    columns = {"excitatory": zarr_store.read(group["neuron/excitatory"]).astype(bool), **network_store.labels(group)}
    n = len(columns["excitatory"])
    if results.has("neuron") and len(results.neurons) == n:
        return columns | _of_test(results)
    recording = prepare.find_recording(results.config, results.run)
    if recording is None:
        return columns
    units = recording.choose(n, results.config.seed)
    units = np.arange(n) if units is None else units
    found = {name: values[units] for name in COLUMNS if (values := recording.column(name)) is not None}
    return columns | found | {"unit": units}


def _of_test(results: RunResults) -> dict[str, np.ndarray]:
    """Columns [n] of the neurons and of the recorded units in a test, those that it has."""
    assert results.test is not None
    found = {name: results.test[name] for name in (*COLUMNS, *test_store.LABELS) if name in results.test}
    return {name: zarr_store.read(stored) if name == "unit" else zarr_store.texts(stored) for name, stored in found.items()}


def selected(selection: Selection, columns: Mapping[str, np.ndarray], key: str = "neurons") -> np.ndarray:
    """[n] numbers of neurons.

    Args:
      selection: text as of perturb.neurons; a number; numbers, in any order; or a mask [N] bool. None: all.
      columns: `neuron_columns`.
      key: name of the argument, for messages.

    Raises:
      UserError: the selection matches no neuron, or has a number that no neuron has.
    """
    excitatory = columns["excitatory"]
    if selection is None or isinstance(selection, str):
        return select_neurons(selection, excitatory, columns.get("region"), key)
    n, numbers = len(excitatory), np.atleast_1d(np.asarray(selection))
    if numbers.dtype.kind == "b" and numbers.shape == (n,):
        numbers = np.flatnonzero(numbers)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or not len(numbers):
        raise UserError(f"{key}={selection!r}: expected a text such as 'region:ALM', numbers of neurons, or {n} times true or false.")
    if numbers.min() < 0 or numbers.max() >= n:
        raise UserError(f"{key}: has the number {numbers[(numbers < 0) | (numbers >= n)][0]}; expected 0 to {n - 1}.")
    return numbers


def _in_test(results: RunResults, unit: Any, session: str | None, neurons: Selection) -> np.ndarray:
    """[n] indices in the test of the neurons of units, in the order in which they are asked for, or of a selection of neurons."""
    if unit is not None and neurons is not None:
        raise UserError("unit and neurons: expected one of them.")
    if unit is not None:
        asked = [unit] if isinstance(unit, str | bytes) or np.ndim(unit) == 0 else list(unit)
        return np.array([_index_of_unit(results, str(each), session) for each in asked], int)
    numbers = results.neurons
    if session is not None:
        columns = _known(results, "session")
        found = np.flatnonzero(columns == session)
        if not len(found):
            raise UserError(f"session={session}: no such session; expected {_listed(np.unique(columns))}.")
        numbers = numbers[found]
    if neurons is not None:
        chosen = selected(neurons, neuron_columns(results))
        numbers = chosen[np.isin(chosen, numbers)]
        if not len(numbers):
            raise UserError(f"neurons={neurons!r}: none of them is in the test; test.neurons chose {len(results.neurons):,} neurons.")
    place = np.full(int(results.neurons.max()) + 1, -1)
    place[results.neurons] = np.arange(len(results.neurons))
    return place[numbers]


def _known(results: RunResults, column: str) -> np.ndarray:
    """[n] texts, a column of the recorded units in the test; raises UserError if there is none."""
    if not results.has(column):
        raise UserError(f"{results.run.path}: its neurons have no {column} of a recorded unit; expected neurons=... with their numbers.")
    return zarr_store.texts(results.test[column])  # type: ignore[index]


def _index_of_unit(results: RunResults, unit: str, session: str | None) -> int:
    """Index in the test of the neuron that reproduces a recorded unit; raises UserError if there is none, or more than one."""
    ids = _known(results, "id")
    here = np.ones(len(ids), bool) if session is None else _known(results, "session") == session
    found = np.flatnonzero(here & (ids == unit))
    if len(found) == 1:
        return int(found[0])
    asked = f"unit={unit}" + ("" if session is None else f", session={session}")
    if not len(found):
        if session is not None and not here.any():
            raise UserError(f"{asked}: no such session; expected {_listed(np.unique(_known(results, 'session')))}.")
        similar = did_you_mean(unit, ids[here].tolist())
        raise UserError(f"{asked}: no unit of the test has this id; expected one such as {_listed(ids[here])}.{similar}")
    numbers = ", ".join(map(str, results.neurons[found][:MOST_NAMES]))
    if session is None and results.has("session") and len(np.unique(_known(results, "session")[found])) > 1:
        where = f"sessions {_listed(np.unique(_known(results, 'session')[found]))}; expected session=..."
        raise UserError(f"{asked}: is the id of {len(found)} units, in {where}, or neurons=[...] of {numbers}.")
    raise UserError(f"{asked}: is the id of {len(found)} units of one session; expected neurons=[...] of {numbers}.")


def _listed(names: Any) -> str:
    return ", ".join(map(str, names[:MOST_NAMES])) + (" and others" if len(names) > MOST_NAMES else "")


def psth(results: RunResults, unit: Any, session: str | None, neurons: Selection, source: str, smooth: bool) -> xarray.DataArray:
    """Firing rates [condition, time, neuron] in Hz, or [condition, time] of a single unit or neuron; arguments as of `Run.psth`."""
    xarray = package("xarray", "notebook", "psth")
    if source not in SOURCES:
        raise UserError(f"source={source}: expected {', '.join(SOURCES)}.")
    name = SOURCES[source]
    if not results.has(name):
        only = (
            "; only networks that are trained on recorded rates have them"
            if source == "trained"
            else "; recording.half=odd holds trials out"
        )
        raise UserError(f"source={source}: {results.run.path} has no such rates{'' if source == 'model' else only}.")
    index = _in_test(results, unit, session, neurons)
    memory.check_fits(4 * len(results.conditions) * len(results.time) * len(index), name)
    values = np.stack([results.read(name, c)[:, index] for c in range(len(results.conditions))])
    if smooth and source == "model":
        values = np.stack([results.smooth(name, each) for each in values]).astype(np.float32)
    columns = {"neuron": results.neurons, "excitatory": results.read("excitatory"), **_of_test(results)}
    coordinates: dict[str, Any] = {column: ("neuron", each[index]) for column, each in columns.items()}
    coordinates |= {"condition": results.conditions}
    coordinates["time"] = ("time", results.time, {"units": "s", "long_name": results.clock.label})
    about = {"units": "Hz", "long_name": "firing rate", "source": source}
    found = xarray.DataArray(values, coordinates, ("condition", "time", "neuron"), "rate", about)
    one = neurons if unit is None else unit
    single = isinstance(one, int | np.integer) or (unit is not None and isinstance(one, str))
    return found.isel(neuron=0) if single else found


def dataset(results: RunResults) -> xarray.Dataset:
    """All arrays of the test except the spikes, opened lazily, with the columns of the neurons as coordinates."""
    xarray = package("xarray", "notebook", "to_xarray")
    results.read("psth", 0)  # an error here says what is missing
    assert results.test is not None
    path = str(results.test.store_path).removeprefix("file://")
    opened = xarray.open_zarr(path, consolidated=False, chunks=None)
    opened.attrs = {name: value for name, value in opened.attrs.items() if name not in (zarr_store.CHUNKS, zarr_store.SEAL)}
    columns: dict[str, Any] = {name: ("neuron", values) for name, values in _of_test(results).items()}
    opened = opened.assign_coords(condition=results.conditions, **columns)  # texts of a type that xarray compares
    return opened.set_coords([name for name in ("excitatory", "perturbed") if name in opened])


def spikes(results: RunResults, neurons: Selection) -> pandas.DataFrame:
    """A row for each simulated spike: condition, trial, neuron, the columns of its unit, and time in s."""
    pandas = package("pandas", "notebook", "spikes")
    if not results.has("spikes/trial_indptr"):
        raise UserError(f"{results.run.path}: its test has no spikes; rlsnet.test(run, spikes=True) stores them.")
    ends = results.read("spikes/trial_indptr")
    memory.check_fits(BYTES_PER_SPIKE * int(ends[-1]), f"{results.run.path}: a table of {int(ends[-1]):,} spikes")
    step, neuron = results.read("spikes/step"), results.read("spikes/neuron").astype(np.int64)
    conditions = results.conditions
    trials = (len(ends) - 1) // len(conditions)
    condition, trial = np.divmod(np.repeat(np.arange(len(ends) - 1), np.diff(ends)), trials)
    if neurons is not None:
        mine = np.isin(neuron, results.neurons[_in_test(results, None, None, neurons)])
        step, neuron, condition, trial = step[mine], neuron[mine], condition[mine], trial[mine]
    place = np.zeros(int(results.neurons.max()) + 1, int)
    place[results.neurons] = np.arange(len(results.neurons))
    columns: dict[str, Any] = {"condition": pandas.Categorical.from_codes(condition, conditions), "trial": trial, "neuron": neuron}
    for name, values in _of_test(results).items():
        if name in ("session", "id", "region"):
            names, code = np.unique(values, return_inverse=True)
            columns[name] = pandas.Categorical.from_codes(code[place[neuron]], names)
    columns["time"] = np.round(results.clock.seconds(step * results.config.trial.dt), 9)
    return _with_units(pandas.DataFrame(columns), {"time": f"s, {results.clock.label}"})


def score_table(results: RunResults) -> pandas.DataFrame:
    """A row for each condition and neuron: the columns of its unit, and each score of the test."""
    pandas = package("pandas", "notebook", "scores")
    n, conditions = len(results.neurons), results.conditions
    columns: dict[str, Any] = {"condition": np.repeat(conditions, n), "neuron": np.tile(results.neurons, len(conditions))}
    columns |= {name: np.tile(values, len(conditions)) for name, values in _of_test(results).items()}
    columns["excitatory"] = np.tile(results.read("excitatory"), len(conditions))
    columns |= {name: results.read(name).ravel() for name in ("rate", *SCORES) if results.has(name)}
    meanings = {name: f"{score.meaning}{f', {score.unit}' if score.unit else ''}" for name, score in SCORES.items() if name in columns}
    return _with_units(pandas.DataFrame(columns), {"rate": "Hz, mean rate", **meanings})


def explained_table(results: RunResults) -> pandas.DataFrame:
    """Population explained variance: a row for all neurons, each condition and each region, a column for each prediction."""
    pandas = package("pandas", "notebook", "explained")
    if not results.explained():
        raise UserError(
            f"{results.run.path}: has no population explained variance; expected a network trained on recorded rates, and its test."
        )
    names, rows = verdict.population_rows(results.explained())
    table = pandas.DataFrame([values for _, values in rows], pandas.Index([label for label, _ in rows], name="group"), names, dtype=float)
    return _with_units(table, {name: f"share of the variance that is explained by: {EXPLAINED[name]}" for name in names})


def learning_curve(results: RunResults) -> pandas.DataFrame:
    """A row for each iteration of training, with the numbers of metrics.jsonl, and the name of the condition."""
    pandas = package("pandas", "notebook", "learning_curve")
    table = pandas.DataFrame(results.run.read_metrics())
    if table.empty:
        raise UserError(f"{results.run.path}: has not been trained.")
    names = dict(enumerate(results.conditions)) if results.has("condition") else {}
    table.insert(1, "condition", [names.get(task, str(task)) for task in table["task"]])
    return _with_units(
        table.set_index("iteration"), {"seconds": "s", "rate_hz": "Hz", "correlation": "of current and target, mean over neurons"}
    )


def neuron_table(results: RunResults) -> pandas.DataFrame:
    """A row for each neuron of the network: whether it is excitatory, the columns of the unit that it reproduces, and its labels."""
    pandas = package("pandas", "notebook", "neurons")
    columns = neuron_columns(results)
    index = pandas.RangeIndex(len(columns["excitatory"]), name="neuron")
    return pandas.DataFrame({name: columns[name] for name in dict.fromkeys(("excitatory", *COLUMNS, *columns)) if name in columns}, index)


def _with_units(table: pandas.DataFrame, meanings: dict[str, str]) -> pandas.DataFrame:
    """The table with the meaning and unit of its columns in the attribute `attrs`."""
    table.attrs["columns"] = meanings
    return table


def of_perturbed(results: RunResults, label: str | None) -> RunResults:
    """The results with the perturbed test of a label in place of the unperturbed test; None: unchanged."""
    if label is None:
        return results
    paths = results.run.perturbed_results()
    if label not in paths:
        known = ", ".join(paths) or "none; rlsnet.test(run, perturb=...) makes one"
        raise UserError(f"perturbed={label}: no such result of {results.run.path}; expected {known}.{did_you_mean(label, paths)}")
    return RunResults(results.config, results.run, test_store.open_test(results.run, paths[label]))
