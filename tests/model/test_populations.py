"""Populations of neurons, their background, and networks of published models."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
import zarr
from conftest import KERNELS, compose, keys_of, spikes_of

from rlsnet.analysis import test_log
from rlsnet.errors import UserError
from rlsnet.io import population_files
from rlsnet.model import build, fi_curve, network_store, population_edges, rng
from rlsnet.model.network import degrees, edges_by_neuron
from rlsnet.runs.folder import Run
from rlsnet.simulation.state import TESTING, Dynamics, initial_state
from rlsnet.simulation.trial import advance, calibrate
from rlsnet.workflows import testing

TWO = {
    "populations": [
        {"name": "A", "class": "exc", "neurons": 400, "external": 500, "rate": 4.0},
        {"name": "B", "class": "inh", "neurons": 100, "external": 300, "rate": 9.0},
    ],
    "probability": [[0.1, 0.3], [0.2, 0.0]],
    "weight": [0.2, -0.9],
    "weight_sd": 0.1,
    "delay": [1.5, 0.4],
    "delay_sd": 0.5,
}


@pytest.fixture
def two(tmp_path):
    """Overrides with the file of two populations, with other contents if given."""

    def write(**changed):
        path = tmp_path / "two.yaml"
        path.write_text(yaml.safe_dump({**TWO, **changed}))
        population_files.read.cache_clear()
        return ["config=tiny", "static=populations", f"static.path={path}", "plastic.n_inputs=0", "stimulus=none"]

    return write


def edges_of(net):
    """(pre, post, weight, delay) of all static edges, by presynaptic neuron."""
    count, at, delay = edges_by_neuron(net, 0, net.n_neurons)
    return np.repeat(np.arange(net.n_neurons), count), np.asarray(net.post)[at], np.asarray(net.weight)[at], delay


def test_synapses_are_those_of_the_file(two, record_check):
    """Numbers exactly; weights and delays by their distributions."""
    net, _, _ = build.build(compose(*two()))
    pre, post, weight, delay = edges_of(net)
    np.testing.assert_array_equal(net.excitatory, np.arange(500) < 400)
    np.testing.assert_array_equal(degrees(net), np.bincount(pre, minlength=500))
    inhibitory = pre >= 400
    number = np.histogram2d(post >= 400, inhibitory, 2)[0]
    pairs = np.array([[160000, 40000], [40000, 10000]])
    np.testing.assert_array_equal(number, np.rint(np.log(1 - np.array(TWO["probability"])) / np.log(1 - 1 / pairs)))
    assert len(pre) > len({*zip(pre.tolist(), post.tolist(), strict=True)}) and np.any(pre == post)  # several, and to itself
    for own, mean, late in ((~inhibitory, 0.2, 1.5), (inhibitory, -0.9, 0.4)):
        n = own.sum()
        assert weight[own].mean() == pytest.approx(mean, rel=4 * 0.1 / np.sqrt(n))
        assert weight[own].std() == pytest.approx(0.1 * abs(mean), rel=4 / np.sqrt(2 * n))
        random = np.random.default_rng(0).normal(late, late / 2, 2000000)
        drawn = np.rint(random[random >= 0.1] / 0.1) * 0.1
        seen, wanted = (delay[own].mean(), delay[own].std()), (drawn.mean(), drawn.std())
        what = f"mean and s.d. of {n} delays, {late:g} ms with s.d. 50 %, cut off below 0.1 ms"
        record_check("populations", what, f"{wanted[0]:.3f}, {wanted[1]:.3f} ms, 4 standard errors", f"{seen[0]:.3f}, {seen[1]:.3f} ms")
        assert seen[0] == pytest.approx(wanted[0], abs=4 * wanted[1] / np.sqrt(n) + 1e-3)
        assert seen[1] == pytest.approx(wanted[1], rel=4 / np.sqrt(n))
        assert delay[own].min() == pytest.approx(0.1)
    for source in range(1, net.n_sources, 97):  # threads deliver to ranges of them
        part = slice(int(net.indptr[source]), int(net.indptr[source + 1]))
        assert np.all(np.diff(np.asarray(net.post[part])) >= 0)
    again, _, _ = build.build(compose(*two()))
    other, _, _ = build.build(compose(*two(), "seed=2"))
    np.testing.assert_array_equal(again.post, net.post)
    np.testing.assert_array_equal(again.weight, net.weight)
    assert not np.array_equal(other.indptr, net.indptr)


def test_fixed_in_degrees(two):
    changed = {name: values for name, values in TWO.items() if name != "probability"}
    overrides = two()
    overrides[2] = overrides[2].replace("two", "fixed")
    path = overrides[2].partition("=")[2]
    with open(path, "w") as file:
        yaml.safe_dump({**changed, "in_degree": [[40, 20]], "weight_sd": 0, "delay": [0.3, 0.3], "delay_sd": 0}, file)
    net, _, _ = build.build(compose(*overrides, "static.scale=0.5", "static.in_degrees=1", "static.inhibition=4"))
    pre, post, weight, delay = edges_of(net)
    np.testing.assert_array_equal(np.bincount(post[pre < 200], minlength=250), 40)
    np.testing.assert_array_equal(np.bincount(post[pre >= 200], minlength=250), 20)
    np.testing.assert_allclose(weight, np.where(pre < 200, 0.2, -3.6), rtol=1e-6)
    np.testing.assert_allclose(delay, 0.3, rtol=1e-6)


def test_fewer_inputs_keep_mean_and_variance_of_the_input(two):
    """At the rates of the file, with Poisson spikes: sums over all inputs of one neuron of each population."""
    found = []
    for scale in (1.0, 0.25):
        config = compose(*two(), f"static.scale={scale}", "background.kind=poisson", "background.weight=0.3")
        net, _, _ = build.build(config)
        pre, post, weight, _ = edges_of(net)
        rate, n = np.where(pre < 400 * scale, 4.0, 9.0) / 1000, net.n_neurons
        outside = [np.asarray(net.parameters[f"background_{name}"], float) for name in ("n_inputs", "rate", "weight")]
        sums = [np.bincount(post, weight**k * rate, n) + outside[0] * outside[1] / 1000 * outside[2] ** k for k in (1, 2)]
        means = sums[0] + np.asarray(net.bias)
        found.append([[values[own].mean() for own in (net.excitatory, ~np.asarray(net.excitatory))] for values in (means, sums[1])])
    np.testing.assert_allclose(found[0], found[1], rtol=0.02)
    assert np.all(np.abs(np.asarray(net.bias)) > 0.05)


@pytest.mark.parametrize("mean", [0.02, 1.6, 29.0, 75.0])
def test_poisson_numbers(mean):
    """Chi-square against the distribution, and independence of neighbours and steps."""
    from scipy import stats

    n = 200000
    draw = jax.jit(lambda step: rng.poisson(rng.fold(rng.key(1, rng.Purpose.BACKGROUND), step), jnp.full(n, mean, jnp.float32), mean))
    one, other = np.asarray(draw(1)), np.asarray(draw(2))
    assert one.dtype == np.float32 and np.all(one == np.rint(one))
    values = np.arange(int(one.max()) + 1)
    expected, seen = n * stats.poisson.pmf(values, mean), np.bincount(one.astype(int))
    used = expected > 20
    assert stats.chi2.sf(np.sum((seen - expected)[used] ** 2 / expected[used]), used.sum()) > 1e-4
    assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(n) and abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 4 / np.sqrt(n)


def background_alone(*more):
    """A configuration of neurons that only get a background."""
    return compose("config=tiny", "static=none", "plastic.n_inputs=0", "stimulus=none", "background.kind=poisson", *more)


def test_background_current(record_check):
    """Mean and variance in time and over neurons: n*rate*w, and (w/tau)^2*lambda/(1 - a^2) with a = 1 - dt/tau and lambda a step."""
    config = background_alone(
        "network.n_neurons=500", "background.n_inputs=[1000,400]", "background.rate=[8,20]", "background.weight=[0.1,-0.2]"
    )
    (net, _, _), dynamics, keys = build.build(config), Dynamics.from_config(config), keys_of()
    step = jax.jit(lambda state: advance(dynamics, net, None, state, keys, 50)[0])
    state, samples = step(initial_state(dynamics, net, keys)), []
    for _ in range(100):
        state = step(state)
        samples.append(np.asarray(state.background))
    for name, own, w, spikes in (("exc", slice(0, 250), 0.1, 8.0), ("inh", slice(250, 500), -0.2, 8.0)):
        values, a = np.array(samples)[:, own], 1 - 0.1 / 3
        mean, sd = spikes * w, abs(w) / 3 * np.sqrt(spikes * 0.1 / (1 - a**2))
        seen = values.mean(), values.std()
        what = f"mean and s.d. of the background current, {name}, 100 samples of 250 neurons"
        record_check("Poisson background", what, f"{mean:.4f}, {sd:.4f}", f"{seen[0]:.4f}, {seen[1]:.4f}")
        assert seen[0] == pytest.approx(mean, abs=4 * sd / 100) and seen[1] == pytest.approx(sd, rel=0.02)
    calibration = calibrate(dynamics, net, keys)
    np.testing.assert_allclose([np.mean(calibration.mean[:250]), np.mean(calibration.mean[250:])], [0.8, -1.6], rtol=0.02)
    more = "background.n_inputs=[1000,400]", "background.rate=[8,20]", "background.weight=[0.1,-0.2]", "network.n_neurons=500"
    constant, _, _ = build.build(background_alone(*more, "background.kind=constant"))
    np.testing.assert_allclose(constant.bias, np.repeat([0.8, -1.6], 250), rtol=1e-6)
    assert constant.largest_background == 0


@pytest.mark.parametrize("mean", [1.0, 1.1, 1.3])
def test_neurons_with_a_background_fire_as_the_siegert_formula_says(record_check, mean):
    """The formula with its correction for short synaptic time constants (Fourcaud & Brunel 2002), and a refractory period."""
    tau, tau_m, weight = 0.5, 20.0, 0.1
    config = background_alone("network.n_neurons=2000", "background.n_inputs=1000", f"background.rate={10 * mean}", "neuron.reset=0.5",
                              f"background.weight={weight}",
                              f"synapse.tau_exc={tau}", f"neuron.tau_m={tau_m}", "neuron.refractory=2")  # fmt: skip
    (net, _, _), dynamics, keys = build.build(config), Dynamics.from_config(config), keys_of()
    run = jax.jit(lambda state, n: advance(dynamics, net, None, state, keys, n)[0], static_argnums=1)
    before = run(initial_state(dynamics, net, keys), 2000)
    rate = float(np.mean(np.asarray(run(before, 10000).n_spikes - before.n_spikes)))
    sd = weight * np.sqrt(10 * mean / (2 * tau))
    neuron = fi_curve.NoisyLIF(tau_m, 1.0, 0.5, 0.0).with_synaptic_noise(sd, tau)
    expected = 1000 / (1000 / float(fi_curve.firing_rate(mean, neuron)) + 2)
    what = f"rate of LIF neurons with a Poisson background of mean {mean:g}, Siegert formula"
    record_check("Poisson background", what, f"{expected:.2f} Hz +- 3 %", f"{rate:.2f} Hz ({100 * (rate / expected - 1):+.1f} %)")
    assert rate == pytest.approx(expected, rel=0.03)


def test_all_kernels_make_the_same_spikes_with_background_and_delays(two, tmp_path):
    """Also from the network that was stored and read again."""
    counts, stored = {}, tmp_path / "n.zarr"
    for kind in [*KERNELS, "loaded"]:
        form = KERNELS[0] if kind == "loaded" else kind
        more = [f"network.load={stored}"] if kind == "loaded" else []
        config = compose(*two(), "background.kind=poisson", "background.weight=0.5", "synapse.delay=0.3", f"engine.kernels={form}", *more)
        net, weight, _ = build.build(config)
        if kind == KERNELS[0]:
            network_store.save(stored, net, weight, np.zeros((1, config.trial.n_points, 500), np.float32))
        _, neuron, state = spikes_of(Dynamics.from_config(config), net, keys_of(TESTING), 600)
        counts[kind] = np.bincount(neuron, minlength=500)
        np.testing.assert_array_equal(counts[kind], state.n_spikes)
    assert counts[KERNELS[0]].sum() > 200
    for kind, own in counts.items():
        assert np.sum(own != counts[KERNELS[0]]) < (5 if kind == "cuda" else 1)  # sums of cuda have no order


@pytest.mark.parametrize(("changed", "words"), [
    ({"weight": [[0.2, -0.9]] * 3}, "weight: expected one row or 2, each of 2 numbers"),
    ({"weight": [0.2, 0.9]}, "expected at least 0 from excitatory and at most 0 from inhibitory"),
    ({"probability": [[0.1, 0.3], [0.2, 1.0]]}, "probabilities below 1"),
    ({"synapses": [[3, 4]]}, "has probability, synapses; expected populations, weight"),
    ({"delays": 3}, "has the key delays; expected populations, weight"),
    ({"populations": [{"name": "A", "class": "E", "neurons": 4, "external": 5, "rate": 4.0}]}, "class E; expected exc or inh"),
    ({"populations": [{"name": "A", "class": "exc", "external": 5, "rate": 4.0}]}, "lacks 'neurons'"),
])  # fmt: skip
def test_mistakes_in_a_file_are_one_line(two, changed, words):
    with pytest.raises(UserError, match=re.escape(words)) as found:
        build.build(compose(*two(**changed)))
    assert "\n" not in str(found.value) and "static.path=" in str(found.value)


def test_a_model_that_does_not_ship():
    with pytest.raises(
        UserError, match=r"static.path=cortex: no such file; expected a .yaml file of populations, or brunel or microcircuit."
    ):
        build.build(compose("config=microcircuit", "static.path=cortex"))


def test_the_microcircuit_has_the_published_size(record_check):
    """77,169 neurons and about 0.3 billion synapses at full size; the shipped one has half of the inputs."""
    config = compose("config=microcircuit", "static.scale=1", "static.in_degrees=1")
    n, synapses = config.static.n_neurons(), config.static.n_edges(0)
    record_check("microcircuit", "neurons and synapses at full size", "77,169 and 0.3 billion", f"{n:,} and {synapses:,}")
    assert n == 77169 and synapses == pytest.approx(0.3e9, rel=0.01)
    net, _, _ = build.build(compose("config=microcircuit", "static.scale=0.02", "static.in_degrees=0.02"))
    assert net.n_edges == pytest.approx(synapses * 0.0004, rel=1e-3)
    weight = 0.15 / 15 * 9.5 / (20 ** (-0.5 / 9.5) - 20 ** (-10 / 9.5))  # peak of the postsynaptic potential, 0.15 of 15 mV
    found = population_files.read("microcircuit")
    np.testing.assert_allclose(found.weight[1], np.where(found.excitatory, 1, -4) * weight, rtol=1e-4)
    outside = population_edges.external_inputs(compose("config=microcircuit").static)
    assert sorted(set(outside)) == [750, 800, 950, 1000, 1050, 1450]


def test_simulate_tells_the_rate_of_each_population(two, tmp_path, caplog):
    """As a user runs it; the numbers are means of test.zarr."""
    caplog.set_level("INFO")
    config = compose(*two(), "background.kind=poisson", "background.weight=0.5", "trial.stim_on=0", "trial.stim_off=20",
                     "trial.duration=100", "progress=off")  # fmt: skip
    run = Run(tmp_path / "run")
    test_log.log_results(run, testing.run_simulation(config, run))
    rate = zarr.open_group(str(run.test), mode="r")["rate"][...]
    assert f"Rates by population, Hz: A {rate[:, :400].mean():.2f}, B {rate[:, 400:].mean():.2f}." in caplog.text and rate.mean() > 1
    assert "Cell class: of the populations of static.path=" in caplog.text
    again, _, _ = build.build(compose(*two(), f"network.load={run.network}", "trial.stim_on=0", "trial.stim_off=20", "trial.duration=100"))
    net, _, _ = build.build(config)
    for mine, own in zip(edges_of(again), edges_of(net), strict=True):
        np.testing.assert_allclose(mine, own, rtol=1e-6)
