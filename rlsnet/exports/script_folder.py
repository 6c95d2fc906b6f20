"""The folder that the exports to NEST and Brian2 write: plain NumPy files, and the script that reads them.

Large arrays are written in blocks.

    network.json                 sizes, times, models, and the rates of `rlsnet test`
    neurons.npz                  [N] each: excitatory, bias, noise_sigma and the parameters of the neuron model
    v0.npy                       [C, trials, N] initial voltages, those of `rlsnet test`
    KIND_{pre,post,weight}.npy   the synapses; KIND is static, plastic or feedforward; weight in threshold*ms
    KIND_delay.npy               ms, of each synapse, if any delay is longer than a time step
    KIND_tau.npy                 index in tau_plastic_ms of each synapse, if there are several decay times
    stimulus.npy                 [C, steps, N], from the step after stim_on
    feedforward_rate.npy         [C, rows, X] Hz, from the step after stim_off
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from rlsnet.config.schema import GivenFeedforwardConfig, NoStimulusConfig
from rlsnet.errors import UserError
from rlsnet.exports.neuron_parameters import initial_voltages, neuron_parameters
from rlsnet.exports.simulated_spikes import mean_rates
from rlsnet.exports.synapses import Synapses, feedforward_synapses, plastic_synapses, static_synapses
from rlsnet.exports.trained_network import TrainedNetwork
from rlsnet.io import outputs
from rlsnet.simulation import inputs, step
from rlsnet.simulation.state import TESTING, Dynamics, TrialKeys

MARKER, FORMAT = "network.json", "rlsnet-simulation"
FILES = (
    *(MARKER, "simulate.py", "neurons.npz", "nest.npz", "v0.npy", "stimulus.npy", "feedforward_rate.npy"),
    *(f"{kind}_{name}.npy" for kind in ("static", "plastic", "feedforward") for name in ("pre", "post", "weight", "delay", "tau")),
    "spikes.npz",  # simulate.py writes it
)
STEPS_PER_BLOCK = 256  # of the stimulus
MAX_TAU_PLASTIC = 8  # decay times of plastic currents, each a receptor or a current of the neuron model


def is_export(path: Path, tool: str) -> bool:
    """Whether a folder is an export to a tool, NEST or Brian2, without other files."""
    script = path / "simulate.py"
    title = script.read_text(errors="replace")[:60] if script.is_file() else ""
    return outputs.read_json(path / MARKER).get("format") == FORMAT and f"in {tool}" in title and outputs.has_only(path, FILES)


def write_folder(trained: TrainedNetwork, path: Path, script: str) -> None:
    """Writes the folder.

    Args:
      trained: the network.
      path: the folder, which does not exist yet.
      script: a file of rlsnet/exports/scripts, copied as simulate.py.

    Raises:
      UserError: more decay times of plastic currents than MAX_TAU_PLASTIC.
    """
    path.mkdir(parents=True)
    shutil.copyfile(Path(__file__).parent / "scripts" / script, path / "simulate.py")
    trial, settings = trained.config.trial, trained.settings()
    if len(settings["tau_plastic_ms"]) > MAX_TAU_PLASTIC:
        raise UserError(
            f"export: neuron/tau_plas has {len(settings['tau_plastic_ms'])} different decay times; expected at most {MAX_TAU_PLASTIC} for"
            " a simulator; use to=zarr or to=npz."
        )
    values = {"excitatory": trained.excitatory, **{name: each for name, (each, _) in neuron_parameters(trained).items()}}
    np.savez(path / "neurons.npz", **cast(Any, values))
    np.save(path / "v0.npy", initial_voltages(trained, trained.n_trials))
    _write_synapses(path, "static", static_synapses(trained), trained.network.n_edges, trained)
    _write_synapses(path, "plastic", plastic_synapses(trained), trained.n_plastic, trained)
    _write_synapses(path, "feedforward", feedforward_synapses(trained), trained.n_neurons * trained.n_feedforward, trained)
    has_stimulus = _write_stimulus(trained, path)
    every = _write_feedforward_rates(trained, path)
    first = trial.steps(trial.stim_off)
    about = {
        "format": FORMAT,
        "version": 1,
        **settings,
        "n_neurons": trained.n_neurons,
        "n_feedforward": trained.n_feedforward,
        "first_step": first,  # spikes are counted from this step on
        "n_steps": first - 1 + trial.n_points * trial.every,
        "stimulus_after_step": trial.steps(trial.stim_on) if has_stimulus else None,
        "feedforward_every_steps": every,
        "feedforward_before": trained.config.feedforward.before,
        "rlsnet_rates_hz": mean_rates(trained),
    }
    (path / MARKER).write_text(json.dumps(about, indent=1))


def _write_synapses(path: Path, kind: str, blocks: Iterable[Synapses], total: int, trained: TrainedNetwork) -> None:
    """Writes the `total` synapses of a kind in blocks; no file if there are none."""
    if not total:
        return
    types: dict[str, Any] = {"pre": np.int32, "post": np.int32, "weight": trained.weight.dtype}
    types |= {"delay": np.float32} if trained.delayed else {}
    taus = np.unique(trained.tau_plastic)
    if kind != "static" and len(taus) > 1:
        types["tau"] = np.uint8
    open_memmap = np.lib.format.open_memmap
    files = {name: open_memmap(path / f"{kind}_{name}.npy", mode="w+", dtype=dtype, shape=(total,)) for name, dtype in types.items()}
    start = 0
    for block in blocks:
        part = slice(start, start := start + len(block.pre))
        for name in types.keys() - {"tau"}:
            files[name][part] = getattr(block, name)
        if "tau" in files:
            files["tau"][part] = np.searchsorted(taus, trained.tau_plastic[block.pre])
    assert start == total
    for file in files.values():
        file.flush()


def stimulus_blocks(trained: TrainedNetwork, condition: int) -> Iterator[np.ndarray]:
    """[steps, N] the stimulus of a condition (threshold units) in blocks, from the step after stim_on to that before stim_off."""
    config, net = trained.config, trained.network
    trial, dt = config.trial, config.trial.dt
    on, last = trial.steps(trial.stim_on), trial.steps(trial.stim_off) - 1
    keys = TrialKeys.create(config.seed, TESTING).trial(jnp.int32(0), jnp.int32(condition))
    normal = step.normal(Dynamics.from_config(config), net)

    @partial(jax.jit, static_argnums=2)
    def block(s: Array, since: Array, steps: int) -> tuple[Array, Array]:
        def one(s: Array, since: Array) -> tuple[Array, Array]:
            moment = inputs.Moment(keys.stimulus, keys.condition, on + since, since, normal)
            current, s = inputs.stimulus(config.stimulus, dt, net, s, moment)
            return s, current

        return lax.scan(one, s, since + jnp.arange(steps, dtype=jnp.int32))

    s = jnp.zeros_like(net.bias)
    for start in range(0, last - on, STEPS_PER_BLOCK):
        s, current = block(s, jnp.int32(start + 1), min(STEPS_PER_BLOCK, last - on - start))
        yield np.asarray(current)


def _write_stimulus(trained: TrainedNetwork, path: Path) -> bool:
    """Writes stimulus.npy if there is a stimulus; returns whether there is one."""
    trial = trained.config.trial
    steps = trial.steps(trial.stim_off) - 1 - trial.steps(trial.stim_on)
    if isinstance(trained.config.stimulus, NoStimulusConfig) or steps <= 0:
        return False
    shape = len(trained.conditions), steps, trained.n_neurons
    file = np.lib.format.open_memmap(path / "stimulus.npy", mode="w+", dtype=trained.weight.dtype, shape=shape)
    for condition in range(len(trained.conditions)):
        start = 0
        for block in stimulus_blocks(trained, condition):
            file[condition, start : (start := start + len(block))] = block
    file.flush()
    return True


def _write_feedforward_rates(trained: TrainedNetwork, path: Path) -> int | None:
    """Writes feedforward_rate.npy; returns the number of steps of each of its rows, or None without feed-forward neurons."""
    config, net, trial = trained.config, trained.network, trained.config.trial
    if not trained.n_feedforward:
        return None
    if isinstance(config.feedforward, GivenFeedforwardConfig) and net.rates is not None:
        np.save(path / "feedforward_rate.npy", np.asarray(net.rates))
        return trial.every
    keys = TrialKeys.create(config.seed, TESTING)

    @jax.jit
    def of_condition(condition: Array) -> Array:
        own = keys.trial(jnp.int32(0), condition)

        def one(rates: Array, since: Array) -> tuple[Array, Array]:
            return inputs.feedforward_rates(config.feedforward, trial.dt, net, rates, own.rates, condition, since, trial.every)[1], rates

        steps = 1 + jnp.arange(trial.n_points * trial.every, dtype=jnp.int32)
        return lax.scan(one, inputs.initial_rates(config.feedforward, net), steps)[1]

    rates = np.stack([np.asarray(of_condition(jnp.int32(c))) for c in range(len(trained.conditions))])
    np.save(path / "feedforward_rate.npy", np.maximum(rates, 0))
    return 1


def check_model(trained: TrainedNetwork, tool: str, supported: tuple[type, ...]) -> None:
    """Checks that a simulator has the neuron model of the network, one of the classes `supported`; raises UserError."""
    model: Any = trained.config.neuron
    if trained.network.largest_background:
        raise UserError(f"export: the scripts for {tool} have no background.kind=poisson; use to=zarr or to=npz.")
    if type(model) not in supported:
        names = ", ".join(cls.__dataclass_fields__["name"].metadata["choices"][0] for cls in cast(Any, supported))
        in_brian2 = tool != "Brian2" and type(model).__module__ == "rlsnet.config.schema"
        others = "to=brian2, to=zarr or to=npz" if in_brian2 else "to=zarr or to=npz"
        raise UserError(f"export: {tool} has no model of neuron={model.name} with exponential currents, only of {names}; use {others}.")
