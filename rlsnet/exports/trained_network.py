"""The trained network that is exported: a run's network with the weights of a checkpoint, and the test of these weights."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import zarr

from rlsnet.config.load import to_dict
from rlsnet.config.schema import Config
from rlsnet.data import trial_clock
from rlsnet.data.trial_clock import TrialClock
from rlsnet.errors import UserError
from rlsnet.io import zarr_store
from rlsnet.io.formatting import byte_size
from rlsnet.model import connectivity
from rlsnet.model.network import Network
from rlsnet.runs import checkpoint, folder, memory_plan
from rlsnet.runs.folder import Run
from rlsnet.workflows import prepare, test_store


@dataclasses.dataclass(frozen=True)
class TrainedNetwork:
    """A network with trained weights. Letters as in `network`: N neurons, L plastic inputs, X feed-forward neurons, C conditions.

    run: the run folder that it was read from.
    config: the settings of the run.
    network: connectivity, and parameters of the neurons, on the CPU.
    weight: [N, X+L] trained weights of feed-forward and plastic inputs, threshold*ms.
    iteration: the iteration of these weights; 0 for a network that was not trained.
    conditions: [C] names.
    test: the run's test.zarr if it was made with these weights, else None.
    labels: [N] texts of the neurons by name, such as name, type and region of an imported connectome.
    """

    run: Run
    config: Config
    network: Network
    weight: np.ndarray
    iteration: int
    conditions: tuple[str, ...]
    test: zarr.Group | None
    labels: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @staticmethod
    def load(run: Run, which: str, config: Config) -> TrainedNetwork:
        """The network of a run.

        Args:
          run: an existing run; one of `rlsnet simulate` has no checkpoint, and gives its initial weights.
          which: the checkpoint: auto (best, else last), best, last, an iteration or a path; 0 for the initial weights.
          config: the settings of the run.

        Raises:
          UserError: no such checkpoint, or the run folder is damaged.
        """
        untrained = which == "0" or (which in ("auto", "last") and run.is_simulation())
        if not untrained:
            run.checkpoint(which, "checkpoint")  # must exist
        prepared = prepare.reopen(config, run)
        net, weight, iteration, own = prepared.network, prepared.weight, 0, True
        if not untrained:
            path, stored, groups = checkpoint.chosen_weights(run, which, "checkpoint", net)
            iteration, own = int(stored.attrs.get("iteration", 0)), path.parent == run.checkpoints
            weight = connectivity.from_groups(np.asarray(groups), net.n_neurons)
        else:
            groups = jnp.asarray(connectivity.to_groups(weight, net.group_size))
        conditions, test = tuple(str(c) for c in range(len(prepared.target))), None
        if run.test.exists():
            found = test_store.open_test(run, run.test)
            if "condition" in found:
                conditions = tuple(map(str, zarr_store.read(found["condition"])))
            same = found.attrs.get("weights", (known := test_store.fingerprint(groups))) == known
            test = found if own and same and found.attrs.get("iteration") == iteration else None
        return TrainedNetwork(run, config, net, weight, iteration, conditions, test, prepared.labels)

    @property
    def n_neurons(self) -> int:
        """N."""
        return self.network.n_neurons

    @property
    def n_feedforward(self) -> int:
        """X."""
        return self.network.n_feedforward

    @property
    def n_trials(self) -> int:
        """Trials of each condition in the test; without a test, the number in the settings."""
        return int(self.test.attrs["trials"]) if self.test is not None else self.config.test.trials

    @property
    def has_spikes(self) -> bool:
        """Whether there are simulated spikes of these weights."""
        return self.test is not None and "spikes/trial_indptr" in self.test

    @cached_property
    def excitatory(self) -> np.ndarray:
        """[N] bool."""
        return np.asarray(self.network.excitatory)

    @cached_property
    def pre(self) -> np.ndarray:
        """[G, L] presynaptic neurons of the plastic inputs of each group; -1 pads."""
        return np.asarray(self.network.pre)[:, self.n_feedforward :]

    @cached_property
    def n_plastic_inputs(self) -> np.ndarray:
        """[N] number of plastic inputs of each neuron, without those from feed-forward neurons."""
        return np.sum(self.pre >= 0, axis=1)[np.arange(self.n_neurons) // self.network.group_size]

    @property
    def n_plastic(self) -> int:
        """Number of plastic synapses, without those from feed-forward neurons."""
        return int(self.n_plastic_inputs.sum())

    @property
    def feedforward_weight(self) -> np.ndarray:
        """[N, X] weights of the feed-forward neurons, threshold*ms."""
        return self.weight[:, : self.n_feedforward]

    @cached_property
    def tau_plastic(self) -> np.ndarray:
        """[N+X] decay time of the plastic currents from each presynaptic neuron, ms."""
        tau = self.network.parameters.get("tau_plas", self.config.synapse.tau_plas)
        return np.array(np.broadcast_to(np.asarray(tau, np.float64), self.n_neurons + self.n_feedforward))

    @cached_property
    def delay(self) -> np.ndarray:
        """[N+X] float32 ms, delay of the spikes of each presynaptic neuron; static synapses may have others (`Network.delays`)."""
        exc = np.concatenate([self.excitatory, np.ones(self.n_feedforward, bool)])
        return np.where(exc, *self.config.synapse.delays(self.config.trial.dt)).astype(np.float32)

    @property
    def delayed(self) -> bool:
        """Whether any delay is longer than one time step."""
        return bool(self.network.delays) or bool(np.any(self.delay > 1.5 * self.config.trial.dt))

    @property
    def clock(self) -> TrialClock:
        """The time of the test, of the recording or of the trial."""
        return trial_clock.of_test(self.test)

    def unit_columns(self) -> dict[str, np.ndarray]:
        """[n] str columns of the recorded units that the neurons of the test reproduce, such as session, id and region, by name."""
        found = {} if self.test is None else {name: self.test[name] for name in test_store.UNIT_COLUMNS if name in self.test}
        return {name: zarr_store.texts(stored) for name, stored in found.items()}

    def description(self) -> str:
        """The sizes and the iteration, as text for the user."""
        words = [f"{self.n_neurons:,} neurons", f"{self.network.n_edges:,} static and {self.n_plastic:,} plastic synapses"]
        words += [f"{self.n_feedforward} feed-forward neurons"] if self.n_feedforward else []
        return ", ".join([*words, f"weights of iteration {self.iteration}"])

    def settings(self) -> dict[str, Any]:
        """The description of the network besides its arrays, for JSON: times, synapses, noise, stimulus, run and versions."""
        config, trial = self.config, self.config.trial
        return {
            "run": str(Path(self.run.path).resolve()),
            "iteration": self.iteration,
            "seed": config.seed,
            "neuron_model": config.neuron.name,
            "group_size": self.network.group_size,
            "dt_ms": trial.dt,
            "trial": {f"{name}_ms": getattr(trial, name) for name in ("stim_on", "stim_off", "duration", "learn_every")},
            "time": {"start_s": self.clock.start, "meaning": self.clock.label, "events_s": dict(self.clock.events)},
            "tau_exc_ms": config.synapse.tau_exc,
            "tau_inh_ms": config.synapse.tau_inh,
            "tau_plastic_ms": sorted(set(np.unique(self.tau_plastic).tolist())),
            "delay_ms": list(config.synapse.delays(trial.dt)),
            "noise": to_dict(config.noise),
            "background": to_dict(config.background),
            "stimulus": to_dict(config.stimulus),
            "feedforward": to_dict(config.feedforward),
            "conditions": list(self.conditions),
            "versions": folder.versions(),
        }


def of_all(words: np.ndarray, tested: np.ndarray, n: int) -> np.ndarray:
    """[n] str, texts of the neurons `tested`, empty for the others."""
    column = np.full(n, "", object)
    column[tested] = words
    return column.astype(str)


def check_memory(content: str, needed: float) -> None:
    """Checks that `content`, of `needed` bytes, fits in memory; raises UserError."""
    if needed > (free := memory_plan.free_memory()):
        words = f"{byte_size(needed)} for {content}, but {byte_size(free)} are free"
        raise UserError(f"export: this format needs {words}; to=zarr is written in blocks and needs little.")
