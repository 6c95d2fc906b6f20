"""Runs that are computed together: each has the results that it has alone, also after an interruption and beside one that fails."""

import contextlib
import dataclasses
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zarr
from conftest import KERNELS, compose, metrics, small_network, write_network

from rlsnet.kernels import backend
from rlsnet.learning import rls
from rlsnet.learning.iteration import iterate
from rlsnet.model import build, joined
from rlsnet.model.connectivity import to_groups
from rlsnet.runs.folder import Run
from rlsnet.simulation.state import TRAINING, Dynamics, TrialKeys
from rlsnet.workflows import packed, training
from rlsnet.workflows.packed import Job

SMALL = ["config=tiny", "trial.stim_on=20", "trial.stim_off=40", "trial.duration=60", "train.checkpoint_every=3", "train.order=shuffled"]
SMALL += ["engine.precision=float64", "engine.platform=cpu", "resources_every=0", "progress=off", "train.validate_every=0"]


def config_of(place, seed, *more, network=1):
    """Settings of a run with one of several networks: unequal degrees and weights, S = 2, two conditions in an order of the seed's."""
    path = place / f"{network}.zarr"
    if not path.exists():
        arrays = small_network(network, n=60, points=6, group_size=2)
        del arrays["neuron/v0"]
        write_network(path, arrays, group_size=2)
    return compose(*SMALL, f"seed={seed}", f"network.load={path}", "train.iterations=6", *more)


def job(config, path, resumed=False):
    return Job(config, Run(path), resumed, False, contextlib.nullcontext)


def end(path, iteration):
    """Weights and P of the last checkpoint, with iteration and best score."""
    group = zarr.open_group(str(path / "checkpoints" / f"{iteration:06d}.zarr"), mode="r")
    return group["plastic/weight"][...], group["P"][...]


def assert_as_alone(config, alone, together):
    """Two runs have the same metrics, best scores and checkpoints."""
    for a, b in zip(metrics(alone), metrics(together), strict=True):
        assert a == pytest.approx(b, rel=1e-12, abs=1e-12)
    assert Run(alone).bests().keys() == Run(together).bests().keys()
    assert Run(alone).iterations() == Run(together).iterations()
    for one, other in zip(end(alone, config.train.iterations), end(together, config.train.iterations), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12 * np.abs(one).max())


FORM = {"xla": ["synapse.delay=[0.3,0.2]", "synapse.tau_plas=[100,150]"], "cuda": ["noise.kind=current"]}


@pytest.mark.parametrize("kernels", [name for name in KERNELS if name != "fixed_shape"])  # which differs from xla in the delivery alone
def test_a_joined_network_computes_what_its_parts_compute(tmp_path, x64, kernels):
    """In each form: two networks, S = 2, seeds, penalties and conditions differ; weights, P and metrics are equal to rounding."""
    own = [["rls.penlambda=.4"], ["noise.sigma=.8"]]
    more = [f"engine.kernels={kernels}", "noise.sigma=.2", *FORM.get(kernels, [])]
    which = [1, 2] if kernels in ("native", "cuda") else [1, 1]  # of other sizes, for which XLA would compile again
    configs = [config_of(tmp_path, k + 1, *more, *each, network=which[k]) for k, each in enumerate(own)]
    networks = [build.build(config) for config in configs]
    targets = [jnp.asarray(np.random.default_rng(k).normal(0, 0.5, (2, 6, 60))) for k in range(2)]

    def learner(k):
        w = jnp.asarray(to_groups(networks[k].weight, 2))
        return rls.init(configs[k].rls, networks[k].network, w, backend.from_config(configs[k]).update)

    def after_two(network, learner, target, keys, conditions):
        for number, condition in enumerate(conditions):
            counters = [jnp.asarray(values, jnp.int32) for values in (np.full_like(condition, number), condition)]
            learner, outcome, _ = iterate(Dynamics.from_config(configs[0]), configs[0].rls, network, learner, target, keys, *counters)
        return learner, outcome

    keys, conditions = [TrialKeys.create(config.seed, TRAINING) for config in configs], np.array([[0, 1], [1, 0]])
    network = joined.join([each.network for each in networks], [config.noise.sigma for config in configs])
    first = jax.tree.map(lambda *parts: jnp.concatenate(parts), learner(0), learner(1))
    both, outcomes = after_two(
        network, first, jnp.concatenate(targets, axis=-1), jax.tree.map(lambda *each: jnp.stack(each), *keys), conditions
    )
    for k in range(2):
        net = networks[k].network
        sigma = jnp.full_like(net.bias, configs[k].noise.sigma)
        net = dataclasses.replace(net, parameters={**net.parameters, "noise_sigma": sigma})
        alone, outcome = after_two(net, learner(k), targets[k], keys[k], conditions[:, k])
        expected = [*jax.tree.leaves(alone), *jax.tree.leaves(outcome)]
        found = [*jax.tree.leaves(joined.of_part(2, k, both)), *(values[k] for values in jax.tree.leaves(outcomes))]
        for a, b in zip(expected, found, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * np.abs(a).max())


def test_runs_have_the_results_that_they_have_alone(tmp_path):
    """With networks of their own; the second run ends first, and then the program is made anew for the last one."""
    own = [["rls.penlambda=.4", "train.validate_every=2"], ["train.iterations=2"]]
    configs = [config_of(tmp_path, k + 1, *each, network=k + 1) for k, each in enumerate(own)]
    assert packed.compiled_settings(configs[0]) == packed.compiled_settings(configs[1])
    jobs = [job(config, tmp_path / f"together{k}") for k, config in enumerate(configs)]
    assert packed.train_together(jobs, str) == ([None] * 2, 0)
    for k, config in enumerate(configs):
        training.run_training(config, Run(tmp_path / f"alone{k}"), False)
        assert_as_alone(config, tmp_path / f"alone{k}", tmp_path / f"together{k}")


def test_an_interrupted_computation_goes_on(tmp_path, monkeypatch):
    """SIGTERM in iteration 2, and then the same jobs again."""
    configs = [config_of(tmp_path, seed, "train.iterations=4") for seed in (1, 2)]
    jobs, append = [job(config, tmp_path / f"together{k}") for k, config in enumerate(configs)], Run.append_metrics

    def stopping(self, line):
        append(self, line)
        if line["iteration"] == 2 and self.path.name == "together0":
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "append_metrics", stopping)
        assert packed.train_together(jobs, str) == ([None] * 2, signal.SIGTERM)
    assert [each.run.iterations() for each in jobs] == [[3], [3]]
    assert packed.train_together([dataclasses.replace(each, resumed=True) for each in jobs], str) == ([None] * 2, 0)
    for k, config in enumerate(configs):
        training.run_training(config, Run(tmp_path / f"alone{k}"), False)
        assert_as_alone(config, tmp_path / f"alone{k}", tmp_path / f"together{k}")


def test_a_run_that_fails_does_not_disturb_the_others(tmp_path):
    """One with weights beyond all bounds, one whose network has another size, and one whose folder holds a run already."""
    configs = [config_of(tmp_path, seed, "train.iterations=3") for seed in (1, 2, 3)]
    write_network(tmp_path / "2.zarr", small_network(2, n=50, points=6, group_size=2), group_size=2)
    configs += [config_of(tmp_path, 4, "rls.penlambda=1e-300", "rls.penmu=0")]
    configs += [config_of(tmp_path, 5, "train.iterations=3", network=2)]
    training.run_training(configs[2], Run(tmp_path / "together2"), False)
    errors, stopped = packed.train_together([job(config, tmp_path / f"together{k}") for k, config in enumerate(configs)], str)
    assert not stopped
    assert [error is None for error in errors] == [True, True, False, False, True]
    assert "together2: contains a run" in errors[2]
    assert "the weights are no longer finite numbers" in errors[3]
    for k in (0, 1, 4):
        training.run_training(configs[k], Run(tmp_path / f"alone{k}"), False)
        assert_as_alone(configs[k], tmp_path / f"alone{k}", tmp_path / f"together{k}")
