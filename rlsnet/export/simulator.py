"""What the exports to NEST and Brian2 have in common: a folder of plain NumPy files beside the script that reads them.

Large arrays are written block by block.

    network.json              sizes, times, models, and the rates of `rlsnet test`
    neurons.npz               [N] each: excitatory, bias, noise_sigma and the neuron model's parameters
    v0.npy                    [C, trials, N] initial voltages, those of `rlsnet test`
    KIND_{pre,post,weight}.npy   the synapses, of KIND static, plastic, feedforward; weight in threshold*ms
    KIND_tau.npy              of which tau_plastic_ms each is, where there are several
    stimulus.npy              [C, steps, N] from the step after stim_on on
    feedforward_rate.npy      [C, rows, X] Hz, from the step after stim_off on
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

from rlsnet import inputs, step
from rlsnet.config import GivenFeedforwardConfig, NoStimulusConfig, UserError
from rlsnet.export.trained import Synapses, Trained
from rlsnet.state import TESTING, Dynamics, TrialKeys

MARKER = "network.json"
STEPS = 256  # of a stimulus, made at a time
TAUS = 8  # decay times of plastic currents, at most


def write(trained: Trained, path: Path, script: str) -> None:
    """Writes the folder with a script of rlsnet/export/scripts in it, as simulate.py."""
    path.mkdir(parents=True)
    shutil.copyfile(Path(__file__).parent / "scripts" / script, path / "simulate.py")
    trial, settings = trained.config.trial, trained.settings()
    if len(settings["tau_plastic_ms"]) > TAUS:
        raise UserError(
            f"export: {len(settings['tau_plastic_ms'])} decay times of plastic currents (neuron/tau_plas) are too many for a simulator;"
            f" expected at most {TAUS}, or to=zarr or to=npz."
        )
    values = {"excitatory": trained.excitatory, **{name: each for name, (each, _) in trained.values().items()}}
    np.savez(path / "neurons.npz", **cast(Any, values))
    np.save(path / "v0.npy", trained.initial_voltages(trained.n_trials))
    _synapses(path, "static", trained.static(), trained.network.n_edges, trained)
    _synapses(path, "plastic", trained.plastic(), trained.n_plastic, trained)
    _synapses(path, "feedforward", _feedforward(trained), trained.n * trained.x, trained)
    stimulated = _stimulus(trained, path)
    every = _rates(trained, path)
    first = trial.steps(trial.stim_off)
    about = {
        "format": "rlsnet-simulation",
        "version": 1,
        **settings,
        "n_neurons": trained.n,
        "n_feedforward": trained.x,
        "first_step": first,  # counted and compared from this step on
        "n_steps": first - 1 + trial.n_points * trial.every,
        "stimulus_after_step": trial.steps(trial.stim_on) if stimulated else None,
        "feedforward_every_steps": every,
        "rlsnet_rates_hz": trained.rates(),
    }
    (path / MARKER).write_text(json.dumps(about, indent=1))


def _feedforward(trained: Trained) -> Iterator[Synapses]:
    """The synapses of feed-forward neurons, which have the numbers from N on."""
    if trained.x:
        post, pre = np.indices((trained.n, trained.x), np.int32).reshape(2, -1)
        yield Synapses(pre + trained.n, post, trained.feedforward.ravel())


def _synapses(path: Path, kind: str, blocks: Iterable[Synapses], total: int, trained: Trained) -> None:
    """Writes the synapses of a kind block by block; none where there are none."""
    if not total:
        return
    types: dict[str, Any] = {"pre": np.int32, "post": np.int32, "weight": trained.weight.dtype}
    taus = np.unique(trained.tau_plastic)
    if kind != "static" and len(taus) > 1:
        types["tau"] = np.uint8
    open_memmap = np.lib.format.open_memmap
    files = {name: open_memmap(path / f"{kind}_{name}.npy", mode="w+", dtype=dtype, shape=(total,)) for name, dtype in types.items()}
    start = 0
    for block in blocks:
        part = slice(start, start := start + len(block.pre))
        for name, values in block._asdict().items():
            files[name][part] = values
        if "tau" in files:
            files["tau"][part] = np.searchsorted(taus, trained.tau_plastic[block.pre])
    assert start == total
    for file in files.values():
        file.flush()


def stimulus(trained: Trained, condition: int) -> Iterator[np.ndarray]:
    """The stimulus of a condition in blocks of steps [steps, N], from the step after stim_on to that before stim_off."""
    config, net = trained.config, trained.network
    trial, dt = config.trial, config.trial.dt
    on, last = trial.steps(trial.stim_on), trial.steps(trial.stim_off) - 1
    keys = TrialKeys.create(config.seed, TESTING).trial(jnp.int32(0), jnp.int32(condition))
    normal = step.normal(Dynamics.from_config(config))

    @partial(jax.jit, static_argnums=2)
    def block(s: Array, since: Array, steps: int) -> tuple[Array, Array]:
        def one(s: Array, since: Array) -> tuple[Array, Array]:
            moment = inputs.Moment(keys.stimulus, keys.condition, on + since, since, normal)
            now, s = inputs.stimulus(config.stimulus, dt, net, s, moment)
            return s, now

        return lax.scan(one, s, since + jnp.arange(steps, dtype=jnp.int32))

    s = jnp.zeros_like(net.bias)
    for start in range(0, last - on, STEPS):
        s, now = block(s, jnp.int32(start + 1), min(STEPS, last - on - start))
        yield np.asarray(now)


def _stimulus(trained: Trained, path: Path) -> bool:
    """Writes stimulus.npy; whether there is a stimulus."""
    trial = trained.config.trial
    steps = trial.steps(trial.stim_off) - 1 - trial.steps(trial.stim_on)
    if isinstance(trained.config.stimulus, NoStimulusConfig) or steps <= 0:
        return False
    shape = len(trained.conditions), steps, trained.n
    file = np.lib.format.open_memmap(path / "stimulus.npy", mode="w+", dtype=trained.weight.dtype, shape=shape)
    for condition in range(len(trained.conditions)):
        start = 0
        for block in stimulus(trained, condition):
            file[condition, start : (start := start + len(block))] = block
    file.flush()
    return True


def _rates(trained: Trained, path: Path) -> int | None:
    """Writes feedforward_rate.npy; the steps for which a row of it holds, or None without feed-forward neurons."""
    config, net, trial = trained.config, trained.network, trained.config.trial
    if not trained.x:
        return None
    if isinstance(config.feedforward, GivenFeedforwardConfig) and net.rates is not None:
        np.save(path / "feedforward_rate.npy", np.asarray(net.rates))
        return trial.every
    keys = TrialKeys.create(config.seed, TESTING)

    @jax.jit
    def of_condition(condition: Array) -> Array:
        own = keys.trial(jnp.int32(0), condition)

        def one(rates: Array, since: Array) -> tuple[Array, Array]:
            streams = own.feedforward, own.rates
            return inputs.feedforward(config.feedforward, trial.dt, net, rates, streams, condition, since, trial.every)[1], rates

        steps = 1 + jnp.arange(trial.n_points * trial.every, dtype=jnp.int32)
        return lax.scan(one, inputs.initial_rates(config.feedforward, net), steps)[1]

    rates = np.stack([np.asarray(of_condition(jnp.int32(c))) for c in range(len(trained.conditions))])
    np.save(path / "feedforward_rate.npy", np.maximum(rates, 0))
    return 1


def check_model(trained: Trained, tool: str, known: Any) -> None:
    """Whether a simulator has the neuron model; raises UserError."""
    model: Any = trained.config.neuron
    if type(model) not in known:
        names = ", ".join(cls.__dataclass_fields__["name"].metadata["choices"][0] for cls in known)
        others = "to=brian2, to=zarr and to=npz" if tool != "Brian2" and type(model).__module__ == "rlsnet.config" else "to=zarr and to=npz"
        raise UserError(f"export: {tool} has no model for neuron={model.name} with these synapses, only for {names}; {others} can take it.")
