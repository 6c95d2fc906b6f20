"""The same source on a GPU: pytest -m gpu."""

import numpy as np
import pytest
import zarr
from conftest import compose, difference

from rlsnet import experiment
from rlsnet.store import Run


@pytest.mark.gpu
@pytest.mark.parametrize("extra", [(), ("plastic.group_size=16", "noise.sigma=0.3")])
def test_a_trial_on_the_gpu_is_that_on_the_cpu(tmp_path, record_check, extra):
    """Wiring and noise are the same bits; after one short trial with learning the weights differ by rounding only."""
    short = ("trial.stim_on=20", "trial.stim_off=50", "trial.duration=100", "train.iterations=1", "progress=off")
    weights = []
    for platform in ("gpu", "cpu"):
        run = Run(tmp_path / platform)
        experiment.run_training(compose("config=tiny", f"engine.platform={platform}", *short, *extra), run, resumed=False)
        weights.append(zarr.open_group(str(run.checkpoint("last")), mode="r")["plastic/weight"][...])
    what = f"`{' '.join(['tiny', *extra])}`: weights after a trial of 150 ms with learning, float32"
    record_check("GPU and CPU", what, "equal to 1e-3", f"largest difference {difference(*weights):.1e}")
    np.testing.assert_allclose(*weights, atol=1e-3)
