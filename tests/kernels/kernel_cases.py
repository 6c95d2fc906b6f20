"""Results of the emulated CUDA kernels with one barrier left out: python kernel_cases.py LINE FOLDER, a line of kernels.cu or 0.

FOLDER has a network n.zarr. Printed are digests that do not depend on the order in which threads come, unless a barrier is missing.
"""

import hashlib
import sys

import jax.numpy as jnp
import numpy as np

from rlsnet.api import compose
from rlsnet.kernels import calls
from rlsnet.kernels.cuda.build import emulated_driver
from rlsnet.model import build
from rlsnet.simulation.state import TESTING, Dynamics, TrialKeys, initial_state
from rlsnet.simulation.trial import advance, over_trials


def digest(*arrays) -> str:
    return hashlib.sha256(b"".join(np.asarray(array).tobytes() for array in arrays)).hexdigest()[:16]


def steps(folder: str) -> str:
    """Spikes of three trials side by side; currents, to 9 digits, as their sums depend on the order of spikes."""
    engine = "engine.precision=float64", "engine.kernels=cuda", "engine.platform=cpu"
    config = compose("config=tiny", f"network.load={folder}/n.zarr", "noise.sigma=0.5", "stimulus=none", *engine)
    net, weight, _ = build.build(config)
    dynamics, w = Dynamics.from_config(config), jnp.asarray(weight)[:, :, None]
    keys = TrialKeys.create(1, TESTING).trial(jnp.arange(3, dtype=jnp.int32), jnp.int32(0))

    def run(keys):
        state, _ = advance(dynamics, net, w, initial_state(dynamics, net, keys, w), keys, 157)
        state, words = advance(dynamics, net, w, state, keys, 100, record=True)  # with spikes at the start
        return words, state.n_spikes, state.synapses, state.u_sum

    words, counts, *currents = over_trials(run, keys, out_axes=0)
    assert counts.sum() > 300
    return digest(words, counts, *(np.round(np.asarray(values), 9) + 0.0 for values in currents))


def learning(inputs: int, size: int) -> str:
    """Updates with all pending, applied and not; to the bit, as each sum has its order."""
    random, groups, most = np.random.default_rng(1), 7, 3
    n = groups * size
    pre = jnp.asarray(random.integers(0, n, (groups, inputs)), jnp.int32)
    P = jnp.asarray(np.broadcast_to(np.eye(inputs), (groups, inputs, inputs)))
    changed = [P, jnp.zeros((0, 1)), jnp.asarray(random.normal(size=(groups, inputs, size))), jnp.zeros((groups, most, inputs)),
               jnp.ones(groups), jnp.zeros((groups, inputs))]  # fmt: skip
    for update in range(5):
        r, residual = jnp.asarray(random.random(n)), jnp.asarray(random.normal(size=n))
        arrived = jnp.where(random.random(n) < 0.4, r, 0)
        count = jnp.int32(update % most or most * (update > 0))
        changed = calls.learn("cuda", jnp.ones(2, bool), 1.0, count, update % most == 0, 0.9, r, arrived, pre, residual, *changed)
    return digest(*changed, calls.apply_pending("cuda", jnp.int32(2), changed[3], changed[4], changed[0], changed[1])[0])


def main() -> None:
    calls.require("cuda", "float64")
    emulated_driver()[1].skip_barrier(int(sys.argv[1]))
    print("steps", steps(sys.argv[2]))
    for inputs, size in ((67, 1), (30, 20), (30, 100), (264, 1)):
        print("learning", inputs, size, learning(inputs, size))


if __name__ == "__main__":
    main()
