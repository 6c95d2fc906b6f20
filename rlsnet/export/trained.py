"""What is exported: a network with the weights of a checkpoint, and the spikes of its test, read for any format alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import zarr

from rlsnet import evaluate, experiment, inputs, memory, neurons, simulate, store, wiring, zarrio
from rlsnet.config import Config, UserError
from rlsnet.convert import from_dict, to_dict
from rlsnet.describe import with_defaults
from rlsnet.network import Network
from rlsnet.store import Run

EDGES = 2**22  # synapses of a block
CLASSES = ("E_to_E", "E_to_I", "I_to_E", "I_to_I")  # of a synapse, numbered 2*(pre inhibitory) + (post inhibitory)


class Synapses(NamedTuple):
    """Some synapses: pre and post [e] int32, weight [e] in threshold*ms."""

    pre: np.ndarray
    post: np.ndarray
    weight: np.ndarray


@dataclasses.dataclass(frozen=True)
class Spikes:
    """Spikes of a test, in order of (trial, step).

    trial: [s] int32, number among all trials of all conditions.
    step: [s] int32, number of the time step in the trial, from 1.
    neuron: [s] int32.
    """

    trial: np.ndarray
    step: np.ndarray
    neuron: np.ndarray


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network, ready to be written.

    run: where it comes from.
    config: of the run.
    network: wiring and neurons, on the CPU.
    weight: [N, X+L] trained weights of feed-forward and plastic inputs, threshold*ms.
    iteration: of the weights.
    conditions: their names.
    test: test.zarr of these weights, or None.
    """

    run: Run
    config: Config
    network: Network
    weight: np.ndarray
    iteration: int
    conditions: tuple[str, ...]
    test: zarr.Group | None

    @staticmethod
    def of(run: Run, which: str = "last") -> Trained:
        """A run with the weights of a checkpoint: last, best, an iteration or a path; raises UserError."""
        config = from_dict(with_defaults(run.saved_config()))
        untrained = which == "last" and not run.iterations() and run.test.exists()  # by rlsnet simulate
        path = run.network if untrained else run.checkpoint(which, "checkpoint")
        ready = experiment.reopen(config, run)
        net, weight, iteration = ready.network, ready.weight, 0
        if not untrained:
            iteration = int(zarrio.open_group(path, "checkpoint", store.FORMAT).attrs.get("iteration", 0))
            groups = store.load_weights(path, net)
            weight = wiring.from_groups(np.asarray(groups), net.n_neurons)
        else:
            groups = jnp.asarray(wiring.to_groups(weight, net.group_size))
        conditions, test = tuple(str(c) for c in range(len(ready.target))), None
        if run.test.exists():
            found = zarrio.open_group(run.test, "export", evaluate.FORMAT)
            if "condition" in found:
                conditions = tuple(map(str, zarrio.read(found["condition"])))
            own = untrained or path.parent == run.checkpoints
            same = found.attrs.get("weights", (known := evaluate.fingerprint(groups))) == known
            test = found if own and same and found.attrs.get("iteration") == iteration else None
        return Trained(run, config, net, weight, iteration, conditions, test)

    @property
    def n(self) -> int:
        """N."""
        return self.network.n_neurons

    @property
    def x(self) -> int:
        """X, feed-forward neurons."""
        return self.network.n_feedforward

    @cached_property
    def excitatory(self) -> np.ndarray:
        """[N] bool."""
        return np.asarray(self.network.excitatory)

    @cached_property
    def pre(self) -> np.ndarray:
        """[G, L] plastic inputs of a group, -1 pads."""
        return np.asarray(self.network.pre)[:, self.x :]

    @cached_property
    def n_plastic(self) -> int:
        """Plastic synapses, those from feed-forward neurons not among them."""
        members = np.bincount(np.arange(self.n) // self.network.group_size, minlength=len(self.pre))
        return int(np.sum(self.pre >= 0, axis=1) @ members)

    def in_words(self) -> str:
        """Sizes, in words."""
        words = [f"{self.n:,} neurons", f"{self.network.n_edges:,} static and {self.n_plastic:,} plastic synapses"]
        words += [f"{self.x} feed-forward neurons"] if self.x else []
        return ", ".join([*words, f"weights of iteration {self.iteration}"])

    def left_out(self, to: str) -> Iterator[str]:
        """What a user should know is not in an export to a format."""
        if self.has_spikes or to not in ("zarr", "npz", "sonata"):
            return
        yield f"Without simulated spikes: {self.without_spikes()}"

    def without_spikes(self) -> str:
        """Why there are no simulated spikes, and what makes some."""
        again = f"rlsnet test run={self.run.path} test.checkpoint={self.iteration} makes some."
        if not self.run.test.exists():
            return again
        iteration = zarrio.open_group(self.run.test, "export", evaluate.FORMAT).attrs.get("iteration")
        if self.test is None:
            return f"{self.run.test} is of other weights (iteration {iteration}, these are of {self.iteration}); {again}"
        return f"{self.run.test} was made with test.spikes=false; {again}"

    # neurons

    def values(self) -> dict[str, tuple[np.ndarray, str]]:
        """Parameters of the neurons, each [N] with its unit: those of the neuron model, `bias` and `noise_sigma`."""
        own = neurons.of(self.config.neuron, self.network.parameters)
        found: dict[str, tuple[np.ndarray, str]] = {"bias": (np.asarray(self.network.bias, np.float64), "threshold")}
        for field in dataclasses.fields(self.config.neuron):  # type: ignore[arg-type]
            if field.name != "name":
                found[field.name] = self._each(getattr(own, field.name)), field.metadata["unit"]
        found["noise_sigma"] = self._each(self.network.parameters.get("noise_sigma", self.config.noise.sigma)), "threshold"
        return found

    def _each(self, value: Any) -> np.ndarray:
        return np.array(np.broadcast_to(np.asarray(value, np.float64), self.n))

    @cached_property
    def tau_plastic(self) -> np.ndarray:
        """[N+X] decay time of the plastic current that each presynaptic neuron makes, ms."""
        return np.array(np.broadcast_to(self._shared_tau, self.n + self.x))

    @property
    def _shared_tau(self) -> np.ndarray:
        return np.asarray(self.network.parameters.get("tau_plas", self.config.synapse.tau_plas), np.float64)

    def initial_voltages(self, trials: int) -> np.ndarray:
        """[C, trials, N] voltages at the start of the first trials of `rlsnet test`, threshold units."""
        keys = simulate.Keys.create(self.config.seed, simulate.TESTING)
        model = neurons.of(self.config.neuron, self.network.parameters)

        @jax.jit
        def one(number: jax.Array, condition: jax.Array) -> jax.Array:
            return inputs.initial_voltage(self.network, model, keys.trial(number, condition).voltage)

        return np.stack(
            [np.stack([np.asarray(one(jnp.int32(t), jnp.int32(c))) for t in range(trials)]) for c in range(len(self.conditions))]
        )

    # synapses

    def static(self) -> Iterator[Synapses]:
        """The static synapses in blocks, in order of the presynaptic neuron; procedural ones are drawn."""
        net, indptr = self.network, np.asarray(self.network.indptr, np.int64)[: self.n + 1]
        weight = None if net.weight is None else np.asarray(net.weight)
        post_of = None if net.stream is not None else np.asarray(net.post)
        by_class = None if net.class_weight is None else np.asarray(net.class_weight)
        start = 0
        while start < self.n:
            stop = int(max(start + 1, np.searchsorted(indptr, indptr[start] + EDGES, side="right") - 1))
            edge = slice(int(indptr[start]), int(indptr[stop]))
            pre = np.repeat(np.arange(start, stop, dtype=np.int32), np.diff(indptr[start : stop + 1]))
            if post_of is None:
                draw = np.arange(edge.start, edge.stop) - indptr[pre]
                drawn = wiring.targets_of(net.stream, jnp.asarray(pre), jnp.asarray(draw, jnp.int32), self.n)
                post = np.asarray(drawn)
            else:
                post = post_of[edge]
            if len(post):
                yield Synapses(pre, post, by_class[self._inh[pre], self._inh[post]] if weight is None else weight[edge])  # type: ignore[index]
            start = stop

    @cached_property
    def _inh(self) -> np.ndarray:
        return (~self.excitatory).astype(np.intp)

    def plastic(self) -> Iterator[Synapses]:
        """The plastic synapses in blocks, in order of the postsynaptic neuron; without those from feed-forward neurons."""
        inputs_, size = self.pre.shape[1], max(1, EDGES // max(1, self.pre.shape[1]))
        for start in range(0, self.n if inputs_ else 0, size):
            stop = min(self.n, start + size)
            pre = self.pre[np.arange(start, stop) // self.network.group_size]
            kept = pre >= 0
            post = np.broadcast_to(np.arange(start, stop, dtype=np.int32)[:, None], pre.shape)
            yield Synapses(pre[kept].astype(np.int32), post[kept], self.weight[start:stop, self.x :][kept])

    def plastic_counts(self) -> np.ndarray:
        """[N] plastic inputs of each neuron."""
        return np.sum(self.pre >= 0, axis=1)[np.arange(self.n) // self.network.group_size]

    @property
    def feedforward(self) -> np.ndarray:
        """[N, X] weights of feed-forward neurons, threshold*ms."""
        return self.weight[:, : self.x]

    def classes(self, synapses: Synapses) -> np.ndarray:
        """[e] uint8, the number in CLASSES of each synapse."""
        return (2 * self._inh[synapses.pre] + self._inh[synapses.post]).astype(np.uint8)

    def weights_by_class(self) -> dict[str, dict[str, dict[str, float]]]:
        """For static and plastic synapses and each of CLASSES: how many, mean and s.d. of their weights (threshold*ms)."""
        found = {}
        for name, blocks in (("static", self.static()), ("plastic", self.plastic())):
            sums = np.zeros((3, 4))
            for block in blocks:
                label, weight = self.classes(block), np.asarray(block.weight, np.float64)
                sums += [np.bincount(label, values, 4) for values in (np.ones(len(label)), weight, weight**2)]
            n, total, squares = sums
            mean = total / np.maximum(n, 1)
            sd = np.sqrt(np.maximum(squares / np.maximum(n, 1) - mean**2, 0))
            found[name] = {c: {"n": int(n[i]), "mean": float(mean[i]), "sd": float(sd[i])} for i, c in enumerate(CLASSES)}
        return found

    # what happened in the test

    @property
    def has_spikes(self) -> bool:
        """Whether there are simulated spikes of these weights."""
        return self.test is not None and "spikes/trial_indptr" in self.test

    @property
    def n_trials(self) -> int:
        """Trials of each condition in the test, or that it would have."""
        return int(self.test.attrs["trials"]) if self.test is not None else self.config.test.trials

    def spikes_by_trial(self) -> Iterator[Spikes]:
        """The simulated spikes, trial by trial, conditions one after the other."""
        assert self.test is not None
        ends = zarrio.read(self.test["spikes/trial_indptr"])
        for trial, (start, stop) in enumerate(zip(ends[:-1], ends[1:], strict=True)):
            part = slice(int(start), int(stop))
            step, neuron = (zarrio.read(self.test[f"spikes/{name}"], part).astype(np.int32) for name in ("step", "neuron"))
            yield Spikes(np.full(len(step), trial, np.int32), step, neuron)

    def spikes(self) -> Spikes:
        """All simulated spikes; raises UserError where they do not fit in memory."""
        assert self.test is not None
        self.check_memory("spikes", 60 * int(zarrio.read(self.test["spikes/trial_indptr"])[-1]))
        parts = list(self.spikes_by_trial())
        return Spikes(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in dataclasses.fields(Spikes)))

    def rates(self) -> dict[str, list[float]]:
        """Mean rate in Hz of excitatory and of inhibitory neurons for each condition of the test, where all neurons are in it."""
        if self.test is None or self.test["rate"].shape[1] != self.n:
            return {}
        rate = zarrio.read(self.test["rate"])
        kinds = (("exc", self.excitatory), ("inh", ~self.excitatory))
        return {name: [float(values[who].mean()) for values in rate] for name, who in kinds if who.any()}

    def check_memory(self, what: str, needed: float) -> None:
        """Raises UserError where `what` cannot be held in memory; `needed` in bytes."""
        if needed > (free := memory.free_memory()):
            words = f"{memory.in_words(needed)} for {what} and {memory.in_words(free)} are free"
            raise UserError(f"export: this format takes {words}; to=zarr writes by blocks and takes little.")

    def settings(self) -> dict[str, Any]:
        """What describes the network besides its arrays: times, synapses, noise, stimulus, where it comes from."""
        config, trial = self.config, self.config.trial
        return {
            "run": str(Path(self.run.path).resolve()),
            "iteration": self.iteration,
            "seed": config.seed,
            "neuron_model": config.neuron.name,
            "dt_ms": trial.dt,
            "trial": {f"{name}_ms": getattr(trial, name) for name in ("stim_on", "stim_off", "duration", "learn_every")},
            "tau_exc_ms": config.synapse.tau_exc,
            "tau_inh_ms": config.synapse.tau_inh,
            "tau_plastic_ms": sorted(set(np.unique(self.tau_plastic).tolist())),
            "noise": to_dict(config.noise),
            "stimulus": to_dict(config.stimulus),
            "feedforward": to_dict(config.feedforward),
            "conditions": list(self.conditions),
            "versions": store.versions(),
        }
