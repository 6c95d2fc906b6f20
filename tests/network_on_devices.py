"""Results of training and testing on forced devices of a CPU: python network_on_devices.py COUNT RESULT.npz FOLDER, all cases below."""

import dataclasses
import os
import sys

if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={sys.argv[1]}"

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from rlsnet.api import compose
from rlsnet.data.neuron_table import NeuronTable
from rlsnet.errors import UserError
from rlsnet.kernels import backend, calls
from rlsnet.kernels.device import configured, devices
from rlsnet.learning import rls
from rlsnet.learning.iteration import Iteration
from rlsnet.model import sharding
from rlsnet.model.connectivity import from_groups, to_groups
from rlsnet.runs.progress import Progress
from rlsnet.simulation import perturbation
from rlsnet.simulation.state import TESTING, TRAINING, Dynamics, TrialKeys
from rlsnet.simulation.trial import Program
from rlsnet.workflows.evaluation import run_trial
from rlsnet.workflows.prepare import prepare
from rlsnet.workflows.training import with_rate_table

N = 203  # prime to the numbers of devices, so that shards differ
SHORT = f"network.n_neurons={N}", "trial.stim_on=10", "trial.stim_off=30", "trial.duration=100", "engine.precision=float64"
SMALL = "static.out_degree=60", "plastic.n_inputs=20"
BACKGROUND = "background.kind=poisson", "background.n_inputs=50", "background.rate=8", "background.weight=0.2"
NATIVE = "native" if calls.unavailable("native", "float64") is None else "xla"
CASES = {
    "without static synapses, filtered rates": ("static=none", f"engine.kernels={NATIVE}", "noise.sigma=0.6", "rls.regressors=rates"),
    "groups, trials side by side, noise": (
        *("engine.kernels=xla", "plastic.group_size=4", "train.trials_per_update=3", "noise.sigma=0.3", "rls.method=deferred"),
        *("rls.storage=packed", "rls.precision=int16", "perturb=clamp", "perturb.rate=60", "perturb.neurons=50:180"),
        *("perturb.start=40", "perturb.stop=90"),
    ),
    "fixed shape, feed-forward neurons, drawn synapses": (
        *("engine.kernels=fixed_shape", "feedforward=ou", "feedforward.n_neurons=40", "feedforward.mean=900", "rls.dale=true"),
        *("rls.method=deferred", "static.storage=procedural", "synapse.tau_plas=[120,150]", "synapse.delay=[0.7,1.5]"),
        "network.bias=[1.2,1.1]",
    ),
    "synapses of a file, many time constants": (
        *("static=edges", "static.path=FOLDER/edges.npz", f"engine.kernels={NATIVE}", "neuron=glif3", "noise.kind=current"),
        *("noise.sigma=0.2", "network.bias=[0.9,0.9]", "rls.method=dense", "synapse.delay=1.1", *BACKGROUND),
        *("perturb=excite", "perturb.strength=0.5"),
    ),
}  # fmt: skip


def results(count: int, case: str, folder: str) -> dict[str, np.ndarray]:
    """Weights, P, spikes, currents and metrics of two iterations and a test trial."""
    static = () if any(text.startswith("static=") for text in CASES[case]) else SMALL[:1]
    config = compose("config=tiny", *SHORT, *static, SMALL[1], *(text.replace("FOLDER", folder) for text in CASES[case]))
    with configured(dataclasses.replace(config.engine, devices=count)):
        prepared = prepare(config, Progress("off"), learning=True)
        whole = with_rate_table(config, prepared.network)
        if "many time constants" in case:
            whole = dataclasses.replace(whole, parameters=whole.parameters | {"tau_plas": jnp.linspace(80, 160, N)})
        network = sharding.place(whole, devices(dataclasses.replace(config.engine, devices=count)))
        w = sharding.of_groups(network, to_groups(prepared.weight, network.group_size))
        dynamics, settings = Dynamics.from_config(config), config.rls
        learner, target = (
            rls.init(settings, network, w, backend.from_config(config).update),
            sharding.of_neurons(network, prepared.target, np.nan),
        )
        keys, trials = TrialKeys.create(config.seed, TRAINING), config.train.trials_per_update
        recorded = sharding.of_neurons(network, np.linspace(1, 9, N)[None], np.nan)
        iteration, found = Iteration(dynamics, settings, network, learner, target, keys, recorded, trials, traces=True), {}
        for number in range(2):
            learner, outcome = iteration(learner, number, 0)
        table = NeuronTable(np.asarray(whole.excitatory), None, config.seed)
        test = dataclasses.replace(TrialKeys.create(1, TESTING), perturbation=perturbation.from_config(config, table, TESTING)).on_devices(
            network
        )
        arguments = network, learner.w, test, jnp.int32(0), jnp.int32(0)
        result = Program(run_trial, dynamics, (True,), *arguments)(*arguments).on_host(N)
        groups = -(-N // network.group_size)
        found |= {"w": from_groups(np.asarray(learner.w), N), "P": np.asarray(learner.P.decode())[:groups]}
        found |= {"counts": result.counts, "current": result.current, "words": result.words}
        return found | {name: np.asarray(value) for name, value in vars(outcome).items() if value is not None}


def main() -> None:
    """Writes the results of all cases to one file."""
    count, path, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    random = np.random.default_rng(1)
    dense = random.normal(0, 2, (N, N)) * (random.random((N, N)) < 0.2)
    scipy.sparse.save_npz(f"{folder}/edges.npz", scipy.sparse.csr_array(dense))
    found = {f"{case}/{name}": value for case in CASES for name, value in results(count, case, folder).items()}
    try:
        with configured(compose("config=tiny", f"engine.devices={count + 1}").engine):
            found["refused"] = np.array("")
    except UserError as error:
        found["refused"] = np.array(str(error))
    found["devices"] = np.array(jax.device_count())
    np.savez(path, **found)


if __name__ == "__main__":
    main()
