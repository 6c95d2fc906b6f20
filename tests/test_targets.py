"""Targets other than recorded rates: a user's own."""

import subprocess
import sys

import numpy as np
import pytest
import zarr
from conftest import compose

from rlsnet import experiment, network, targets
from rlsnet.config import UserError
from rlsnet.convert import from_dict, to_dict
from rlsnet.store import Run

QUIET = lambda done, total: None  # noqa: E731

PLUGIN = """
import dataclasses
import numpy as np
from rlsnet import targets
from rlsnet.config import TargetConfig, key


@dataclasses.dataclass(frozen=True)
class {name}Config(TargetConfig):
    name: str = key("kind of target", choices=("{name}",))
    height: float = key("of the steps", "threshold", above=0)


@targets.currents.register
def steps(target: {name}Config, config, network, calibration, recording, tell):
    assert (calibration is None) == (network.static_width == 0) and recording is None
    up = 1.0 * (np.arange(config.trial.n_points)[:, None] >= np.arange(network.n_neurons) % config.trial.n_points)
    return {result}
"""


def plugin(folder, name, result="np.stack([up * target.height, -up * target.height])"):
    path = folder / f"{name}_plugin.py"
    path.write_text(PLUGIN.format(name=name, result=result))
    return path


@pytest.mark.parametrize("static", [True, False])
def test_a_target_of_the_users_own(tmp_path, static):
    """A dataclass and a function in a file that `plugins` lists."""
    name = f"steps{static}"
    values = to_dict(compose("config=tiny", *([] if static else ["static.out_degree=0"])))
    values |= {"plugins": [str(plugin(tmp_path, name))], "target": {"name": name, "height": 0.4}}
    config = from_dict(values)
    net, _, _ = network.build(config)
    target = targets.make(config, net, None, QUIET)
    assert target.shape == (2, 100, 512) and target.dtype == np.float32
    np.testing.assert_allclose(target[0, :, 30], np.where(np.arange(100) >= 30, 0.4, 0), rtol=1e-6)
    with pytest.raises(UserError, match=r"target.height=0.0: should be above 0 threshold"):
        from_dict(values | {"target": {"name": name, "height": 0}})


def test_a_target_of_the_users_own_from_the_command_line(tmp_path):
    path = plugin(tmp_path, "mine")
    (tmp_path / "conf" / "target").mkdir(parents=True)
    (tmp_path / "conf" / "target" / "mine.yaml").write_text("name: mine\nheight: 0.3\n")
    command = [sys.executable, "-m", "rlsnet", "train", "--config-dir", str(tmp_path / "conf"), f"plugins=[{path}]", "target=mine",
               "config=tiny", "train.iterations=2", "progress=off", f"hydra.run.dir={tmp_path}/run"]  # fmt: skip
    for arguments in (command, [*command[:4], f"resume={tmp_path}/run", "train.iterations=3"]):
        result = subprocess.run(arguments, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
    stored = zarr.open_group(str(tmp_path / "run" / "network.zarr"), mode="r")["target"]
    assert stored.shape == (2, 100, 512) and stored[...].max() == np.float32(0.3)
    assert Run(tmp_path / "run").iterations() == [2, 3]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("up", r"gives float64 of shape \[100, 512\]; should be currents \[C, 100, 512\]"),
        ("np.full((2, 100, 512), np.inf)", "gives currents that are not finite"),
    ],
)
def test_what_is_no_target_is_refused(tmp_path, result, message):
    name = "bad" + str(len(result))
    values = to_dict(compose("config=tiny", "progress=off"))
    config = from_dict(
        values | {"plugins": [str(plugin(tmp_path, name, result))], "target": {"name": name, "height": 1}},
    )
    with pytest.raises(UserError, match=f"target={name}: {message}"):
        experiment.run_training(config, Run(tmp_path / "run"), resumed=False)


def test_a_target_without_a_function_is_named(tmp_path):
    path = plugin(tmp_path, "empty")
    path.write_text(path.read_text().replace("@targets", "#"))
    config = from_dict(to_dict(compose("config=tiny")) | {"plugins": [str(path)], "target": {"name": "empty", "height": 1}})
    net, _, _ = network.build(config)
    with pytest.raises(UserError, match="target=empty: nothing is registered for emptyConfig; should be, with targets.currents.register"):
        targets.make(config, net, None, QUIET)
