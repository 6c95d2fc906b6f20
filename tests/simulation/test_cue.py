"""Another cue at test: that of training to the bit where nothing differs, means of realisations in a mixture, errors."""

import jax.numpy as jnp
import numpy as np
import pytest
import zarr
from conftest import KERNELS, compose
from jax import lax

from rlsnet.analysis import perturbation_effects
from rlsnet.errors import UserError
from rlsnet.model import build, rng
from rlsnet.runs.folder import Run
from rlsnet.simulation import cue, inputs
from rlsnet.simulation.state import TESTING, TrialKeys
from rlsnet.workflows import testing

SMALL = ["config=tiny", "network.n_neurons=100", "static.out_degree=20", "plastic.n_inputs=8", "trial.dt=0.5", "neuron.refractory=0.5",
         "trial.stim_on=20", "trial.stim_off=60", "trial.duration=100", "test.trials=2", "test.spikes=false", "noise.sigma=0.5",
         "target.n_conditions=2", "progress=off", "feedforward=ou", "feedforward.n_neurons=8", "feedforward.mean=60",
         "feedforward.strength=5", "perturb=cue"]  # fmt: skip


def simulated(folder, *overrides, kernels="xla"):
    """(control, with another cue) of an untrained network."""
    results = testing.run_simulation(compose(*SMALL, f"engine.kernels={kernels}", *overrides), Run(folder))
    return [zarr.open_group(str(path), mode="r") for path in results]


def same(one, other, condition):
    """Whether the currents of a condition are equal to the bit; [M, N] currents show any difference in spikes and inputs."""
    return np.array_equal(one["current_mean"][condition], other["current_mean"][condition])


def test_the_cue_of_another_condition(tmp_path):
    """All trials have the inputs of condition 1: its own trials are equal to the bit, those of condition 0 differ."""
    control, told = simulated(tmp_path, "perturb.cue=1")
    assert same(control, told, 1) and not same(control, told, 0)
    assert perturbation_effects.description(told) == "cue: 1 in all trials; stimulus from 0.02 to 0.06 s from the start of the trial"


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["xla", KERNELS[-1]])
def test_the_cue_of_training_and_none(tmp_path, kernels):
    """At the trained time it is the control, to the bit if computed in one way; without stimulus, a run that has none."""
    control, told = simulated(tmp_path / "b", "perturb.window=[0.02,0.06]", kernels=kernels)
    for c in (0, 1):
        np.testing.assert_allclose(told["current_mean"][c], control["current_mean"][c], rtol=0, atol=0 if kernels == "xla" else 1e-3)
    _, weak = simulated(tmp_path / "c", "perturb.factor=0", kernels=kernels)
    none, _ = simulated(tmp_path / "d", "perturb=silence", "stimulus=none", kernels=kernels)
    assert not same(weak, control, 0)
    if kernels == "xla":
        assert same(weak, none, 0) and same(weak, none, 1)


def test_what_the_activity_resembles():
    """Sums of the activity of three conditions are found again; what is at right angles to all of them changes nothing."""
    rng_ = np.random.default_rng(0)
    control, shares = rng_.uniform(0, 30, (3, 10, 40)), np.array([[0.2, 0.5, 0.3], [-0.5, 1.5, 0.0]])
    psth = np.einsum("dc,cmn->dmn", shares, control)
    np.testing.assert_allclose(perturbation_effects.resemblance(psth, control), shares, atol=1e-10)
    axes = (control[1:] - control[0]).reshape(2, -1)
    away = rng_.standard_normal(400)
    away -= axes.T @ np.linalg.solve(axes @ axes.T, axes @ away)
    np.testing.assert_allclose(perturbation_effects.resemblance(psth + away.reshape(10, 40), control), shares, atol=1e-10)


def waveform(config, what, n):
    """[steps, N] stimulus over a trial, step by step."""
    net, _, _ = build.build(config)

    def step(state, i):
        return what.stimulus(config.stimulus, config.trial.dt, net, state, jnp.int32(0), i, rng.normal)[::-1]

    return np.asarray(lax.scan(step, jnp.zeros_like(net.bias), jnp.arange(1, n, dtype=jnp.int32))[1])


def test_stimuli_and_rates_of_a_mixture_are_means_and_shift_in_time():
    """Against the equations in NumPy with the same random numbers."""
    base = ["config=tiny", "network.n_neurons=30", "static.out_degree=4", "plastic.n_inputs=4", "trial.dt=1", "trial.stim_on=10",
            "neuron.refractory=1", "trial.stim_off=60", "target.n_conditions=3", "feedforward=ou", "feedforward.n_neurons=5",
            "stimulus.mean=0.3"]  # fmt: skip
    expected = np.zeros((3, 60, 30))
    for c in range(3):
        s, stream = np.zeros(30), rng.fold(rng.key(1, rng.Purpose.STIMULUS), c)
        for i in range(11, 60):
            expected[c, i - 1] = s
            s = s + (0.3 - s) / 20 + 0.2 * np.asarray(rng.normal(rng.fold(stream, i), 30, jnp.dtype("float32")))
    names = ["left", "right", "catch"]

    def made(*overrides):
        config = compose(*base, "perturb=cue", *overrides)
        return config, cue.from_config(config, names).trial(jnp.int32(0), jnp.int32(0))

    got = waveform(*made("perturb.cue=0.25*left+0.75*catch", "perturb.factor=2"), 80)
    np.testing.assert_allclose(got[:60], 2 * (0.25 * expected[0] + 0.75 * expected[2]), atol=2e-5)
    assert np.all(got[60:] == 0)
    shifted = waveform(*made("perturb.window=[0.025,0.065]"), 80)
    np.testing.assert_allclose(shifted[25:64], expected[0, 10:49], atol=1e-5)  # the same realisation, from its start
    assert np.all(shifted[:25] == 0) and np.all(shifted[64:] == 0)

    config, mixed = made("perturb.cue=0.25*left+0.75*catch")
    net, _, _ = build.build(config)
    keys, start = TrialKeys.create(1, TESTING), inputs.initial_rates(config.feedforward, net)

    def rates(c):
        """[14, X] rates of the steps from stim_off on: of condition c, or of the mixture."""

        def step(state, since):
            if c is None:
                return mixed.feedforward(config.feedforward, 1.0, net, state, (keys.rates, jnp.int32(0)), since, 10)[::-1]
            own = keys.trial(jnp.int32(0), jnp.int32(c)).rates, jnp.int32(c)
            return inputs.feedforward_rates(config.feedforward, 1.0, net, state, *own, since, 10)[::-1]

        return np.asarray(lax.scan(step, start, jnp.arange(1, 15, dtype=jnp.int32))[1])

    np.testing.assert_allclose(rates(None), 0.25 * rates(0) + 0.75 * rates(2), rtol=1e-5)
    assert np.std(rates(0)[-1] - rates(2)[-1]) > 0.05


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["perturb.factor=1"], "perturb=cue: changes nothing"),
        (["perturb.cue=up"], "perturb.cue=up: expected one of left, right, or shares of them such as 0.5*left+0.5*right."),
        (["perturb.cue=0.5*left+0.6*right"], "the shares sum to 1.1; expected 1."),
        (["perturb.cue=0.5*left+0.5*left"], "expected one of left, right"),
        (["perturb.factor=2", "stimulus=none"], "the run has no stimulus (stimulus=none)"),
        (["perturb.cue=left", "stimulus=none"], "no input that tells the condition"),
        (["perturb.cue=left", "perturb.inputs=feedforward"], "no input that tells the condition"),
        (["perturb.window=[0.1,1.5]"], "perturb.window=[0.1,1.5]: expected a start before an end, within the trial"),
    ],
)
def test_cues_that_do_not_fit_are_refused(overrides, message):
    with pytest.raises(UserError) as error:
        cue.from_config(compose("config=tiny", "perturb=cue", *overrides), ["left", "right"])
    assert message in str(error.value)
