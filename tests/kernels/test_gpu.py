"""Results on a GPU compared with those on a CPU: pytest -m gpu.

RLSNET_TEST_DEVICE=cpu pytest -m gpu compares the backends for GPUs, of which the CUDA kernels are emulated, with the others on a CPU
instead, which shows that the tests themselves are correct.
"""

import os

import jax.numpy as jnp
import numpy as np
import pytest
import zarr
from conftest import compose, difference, metrics, spikes_of

from rlsnet.kernels import device
from rlsnet.model import connectivity
from rlsnet.runs.folder import Run
from rlsnet.runs.progress import Progress
from rlsnet.simulation.state import TRAINING, Dynamics, TrialKeys
from rlsnet.workflows import prepare, training

DEVICE = os.environ.get("RLSNET_TEST_DEVICE", "gpu")
SHORT = ("trial.stim_on=20", "trial.stim_off=50", "trial.duration=100", "train.iterations=1", "progress=off")
FED = ("static=none", "noise.sigma=0.6", "feedforward=ou", "feedforward.mean=50", "feedforward.before=true", "rls.regressors=rates",
       "rls.correct_current=true", "rls.every=2", "train.trials_per_update=2")  # fmt: skip
EXPERIMENTS = {
    "default": (),
    "groups and noise": ("plastic.group_size=16", "noise.sigma=0.3"),
    "feed-forward, rates, two trials": FED,
    "GLIF5, static synapses drawn": ("neuron=glif5", "static.storage=procedural"),
}
CASES = [
    (kernels, name) for kernels in ("cuda", "fixed_shape") for name in EXPERIMENTS if kernels == "cuda" or name in list(EXPERIMENTS)[:2]
]
CURVE = ("config=sinusoid", "train.iterations=20") if DEVICE == "gpu" else (
    "config=tiny", "network.n_neurons=120", "static.out_degree=30", "trial.duration=300", "train.iterations=3",
)  # fmt: skip

pytestmark = pytest.mark.gpu


def engines(kernels: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Settings of the tested backend and of the one that it is compared with."""
    return (f"engine.platform={DEVICE}", f"engine.kernels={kernels}"), ("engine.platform=cpu", "engine.kernels=xla")


def first_spikes(config, duration: float) -> set[tuple[int, int]]:
    """(step, neuron) of each spike at the start of a trial with the initial weights."""
    with device.configured(config.engine):
        prepared = prepare.prepare(config, Progress("off"), learning=True)
        dynamics, w = Dynamics.from_config(config), jnp.asarray(connectivity.to_groups(prepared.weight, prepared.network.group_size))
        keys = TrialKeys.create(config.seed, TRAINING).trial(jnp.int32(0), jnp.int32(0))
        step, neuron, _ = spikes_of(dynamics, prepared.network, keys, dynamics.trial.steps(duration), w)
        return set(zip(step.tolist(), neuron.tolist(), strict=True))


@pytest.mark.parametrize(("kernels", "name"), CASES)
def test_the_first_spikes_on_the_gpu_are_those_on_the_cpu(record_check, kernels, name):
    """All spikes of the first 50 ms; later one may differ, as rounding can grow from spike to spike."""
    extra = EXPERIMENTS[name]
    spikes = [first_spikes(compose("config=tiny", *engine, *SHORT, *extra), 50.0) for engine in engines(kernels)]
    n, wrong = len(spikes[1]), len(spikes[0] ^ spikes[1])
    record_check("GPU and CPU", f"{kernels}, `tiny`, {name}: spikes of the first 50 ms, float32", "the same", f"{wrong} of {n} differ")
    assert n > 100
    assert spikes[0] == spikes[1]


@pytest.mark.parametrize(("kernels", "name"), CASES)
def test_a_trial_with_learning_on_the_gpu_is_that_on_the_cpu(tmp_path, record_check, kernels, name):
    """In float64 rounding is still small after 150 ms: the weights of one short trial with learning differ by no more."""
    weights = []
    for number, engine in enumerate(engines(kernels)):
        run = Run(tmp_path / str(number))
        config = compose("config=tiny", "engine.precision=float64", *engine, *SHORT, *EXPERIMENTS[name])
        training.run_training(config, run, resumed=False)
        weights.append(zarr.open_group(str(run.checkpoint("last")), mode="r")["plastic/weight"][...])
    what = f"{kernels}, `tiny`, {name}: weights after a trial of 150 ms with learning, float64"
    record_check("GPU and CPU", what, "equal to 1e-6", f"largest difference {difference(*weights):.1e}")
    np.testing.assert_allclose(*weights, atol=1e-6)


def test_the_learning_curve_on_the_gpu_is_that_on_the_cpu(tmp_path, record_check):
    """In float32 single spikes differ after a while, and the networks go separate ways; but they learn as much."""
    curves = []
    for number, engine in enumerate(((f"engine.platform={DEVICE}", "engine.kernels=cuda"), ("engine.platform=cpu",))):
        run = Run(tmp_path / str(number))
        training.run_training(compose(*CURVE, *engine, "progress=off"), run, resumed=False)
        curves.append([[line["correlation"], line["rate_hz"]] for line in metrics(run.path)])
    mine, theirs = (np.array(curve) for curve in curves)
    correlation, rate = np.abs(mine - theirs).max(axis=0)
    seen = f"differences up to {correlation:.3f} and {rate:.2f} Hz; at the end {mine[-1, 0]:.3f} and {theirs[-1, 0]:.3f}"
    what = f"`{' '.join(CURVE)}`: correlation and rate of each iteration, float32"
    record_check("GPU and CPU", what, "differences up to 0.05 and 0.2 Hz", seen)
    assert correlation < 0.05 and rate < 0.2
