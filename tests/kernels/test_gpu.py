"""Results on a GPU compared with those on a CPU: pytest -m gpu.

RLSNET_TEST_DEVICE=cpu pytest -m gpu compares the backend for GPUs (engine.kernels=fixed_shape) with the others on a CPU instead, which
shows that the tests themselves are correct.
"""

import os

import jax.numpy as jnp
import numpy as np
import pytest
import zarr
from conftest import compose, difference, spikes_of

from rlsnet.kernels import device
from rlsnet.model import connectivity
from rlsnet.runs.folder import Run
from rlsnet.runs.progress import Progress
from rlsnet.simulation.state import TRAINING, Dynamics, TrialKeys
from rlsnet.workflows import prepare, training

DEVICE = os.environ.get("RLSNET_TEST_DEVICE", "gpu")
SHORT = ("trial.stim_on=20", "trial.stim_off=50", "trial.duration=100", "train.iterations=1", "progress=off")
FORMS = [(), ("plastic.group_size=16", "noise.sigma=0.3")]
PLATFORMS = ((f"engine.platform={DEVICE}", "engine.kernels=fixed_shape"), ("engine.platform=cpu", "engine.kernels=xla"))

pytestmark = pytest.mark.gpu


def name(extra) -> str:
    return f"`{' '.join(['tiny', *extra])}`"


def first_spikes(config, duration: float) -> set[tuple[int, int]]:
    """(step, neuron) of each spike at the start of a trial with the initial weights."""
    with device.configured(config.engine):
        prepared = prepare.prepare(config, Progress("off"), learning=True)
        dynamics, w = Dynamics.from_config(config), jnp.asarray(connectivity.to_groups(prepared.weight, prepared.network.group_size))
        keys = TrialKeys.create(config.seed, TRAINING).trial(jnp.int32(0), jnp.int32(0))
        step, neuron, _ = spikes_of(dynamics, prepared.network, keys, dynamics.trial.steps(duration), w)
        return set(zip(step.tolist(), neuron.tolist(), strict=True))


@pytest.mark.parametrize("extra", FORMS)
def test_the_first_spikes_on_the_gpu_are_those_on_the_cpu(record_check, extra):
    """All spikes of the first 50 ms; later one may differ, as rounding can grow from spike to spike."""
    spikes = [first_spikes(compose("config=tiny", *platform, *SHORT, *extra), 50.0) for platform in PLATFORMS]
    n, wrong = len(spikes[1]), len(spikes[0] ^ spikes[1])
    record_check("GPU and CPU", f"{name(extra)}: spikes of the first 50 ms, float32", "the same", f"{wrong} of {n} differ")
    assert n > 200
    assert spikes[0] == spikes[1]


@pytest.mark.parametrize("extra", FORMS)
def test_a_trial_with_learning_on_the_gpu_is_that_on_the_cpu(tmp_path, record_check, extra):
    """In float64 rounding is still small after 150 ms: the weights of one short trial with learning differ by no more."""
    weights = []
    for number, platform in enumerate(PLATFORMS):
        run = Run(tmp_path / str(number))
        training.run_training(compose("config=tiny", "engine.precision=float64", *platform, *SHORT, *extra), run, resumed=False)
        weights.append(zarr.open_group(str(run.checkpoint("last")), mode="r")["plastic/weight"][...])
    what = f"{name(extra)}: weights after a trial of 150 ms with learning, float64"
    record_check("GPU and CPU", what, "equal to 1e-6", f"largest difference {difference(*weights):.1e}")
    np.testing.assert_allclose(*weights, atol=1e-6)
