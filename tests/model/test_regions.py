"""Connectivity by regions, classes and distance: numbers within binomial bounds of closed forms, no pair twice, errors of tables."""

import numpy as np
import pytest
import zarr
from conftest import compose

from rlsnet.config.schema import RegionalInputsConfig
from rlsnet.data import connection_rules, recordings
from rlsnet.errors import UserError
from rlsnet.io import zarr_store
from rlsnet.model import build, connectivity, rng
from rlsnet.model.regions import Regions, distinct, generator_of, pairs
from rlsnet.runs.folder import Run
from rlsnet.runs.progress import Progress
from rlsnet.workflows import prepare

N = 1200
RANDOM = np.random.default_rng(0)
INDEX, EXC = RANDOM.integers(0, 3, N), RANDOM.random(N) < 0.6
STREAM = np.asarray(rng.key(1, rng.Purpose.STATIC))


def probabilities():
    """[3, 2, 3, 2], among them 0 and 1."""
    p = np.random.default_rng(1).uniform(0, 0.2, (3, 2, 3, 2))
    p[0, 1, 1], p[2, 0, 0, 1] = 0, 1
    return p


def test_every_pair_exists_with_its_probability(record_check):
    """Numbers by regions and classes, of each neuron's outputs and inputs; no synapse twice or onto itself; by the seed alone."""
    p = probabilities()
    regions = Regions(("a", "b", "c"), INDEX, p)
    pre, post = pairs(STREAM, EXC, regions, None)
    assert np.all(pre != post) and len(np.unique(pre * N + post)) == len(pre)
    of_pair = p[INDEX[:, None], ~EXC[:, None] * 1, INDEX[None], ~EXC[None] * 1] * ~np.eye(N, dtype=bool)  # [pre, post]
    z = []
    for r, c, s, d in np.ndindex(3, 2, 3, 2):
        mine = (INDEX[pre] == r) & (EXC[pre] == (c == 0)) & (INDEX[post] == s) & (EXC[post] == (d == 0))
        inside = np.ix_((INDEX == r) & (EXC == (c == 0)), (INDEX == s) & (EXC == (d == 0)))
        mean, variance = of_pair[inside].sum(), (of_pair[inside] * (1 - of_pair[inside])).sum()
        z.append((mine.sum() - mean) / np.sqrt(variance) if variance else float(mine.sum() != round(mean)) * 100)
    for at, axis in ((pre, 1), (post, 0)):  # outputs and inputs of each neuron
        mean, variance = of_pair.sum(axis), (of_pair * (1 - of_pair)).sum(axis)
        score = (np.bincount(at, minlength=N) - mean) / np.sqrt(variance)
        assert np.abs(score).max() < 4.7 and abs(score.var() - 1) < 4.5 * np.sqrt(2 / N)
    seen = f"largest deviation {np.abs(z).max():.1f} s.d., {len(pre):,} synapses"
    record_check("regional connectivity", "synapses of 36 pairs of regions and classes, 1,200 neurons", "binomial, below 4 s.d.", seen)
    assert np.abs(z).max() < 4
    again, other = pairs(STREAM, EXC, regions, None), pairs(np.asarray(rng.key(2, rng.Purpose.STATIC)), EXC, regions, None)
    np.testing.assert_array_equal(again[0] * N + again[1], pre * N + post)
    common = len(np.intersect1d(other[0] * N + other[1], pre * N + post))
    mean, variance = (of_pair**2).sum(), (of_pair**2 * (1 - of_pair**2)).sum()
    assert abs(common - mean) < 4.5 * np.sqrt(variance)  # another seed: an independent draw


def test_the_distance_thins_synapses_out(record_check):
    """The number in each shell of distance, in three dimensions, and in all."""
    where = np.random.default_rng(2).uniform(0, 1000, (N, 3))
    regions = Regions(("a",), np.zeros(N, int), np.full((1, 2, 1, 2), 0.5), where)
    pre, post = pairs(STREAM, EXC, regions, 200.0)
    distance = np.linalg.norm(where[:, None] - where[None], axis=2)
    p = 0.5 * np.exp(-distance / 200) * ~np.eye(N, dtype=bool)
    found, worst = np.linalg.norm(where[pre] - where[post], axis=1), 0.0
    for low, high in ((0, 100), (100, 200), (200, 400), (400, 800), (800, 2000), (0, 2000)):
        inside = (distance >= low) & (distance < high)
        mean, variance = p[inside].sum(), (p * (1 - p))[inside].sum()
        worst = max(worst, abs(np.sum((found >= low) & (found < high)) - mean) / np.sqrt(variance))
    record_check("regional connectivity", "synapses by distance, length 200 of 1000", "sum of p*exp(-d/length)", f"within {worst:.1f} s.d.")
    assert worst < 4


def table(folder, regions, **columns):
    """An open recording with one condition, regions and more columns of its units."""
    root = zarr.create_group(str(folder / "r.zarr"), attributes={"format": recordings.FORMAT, "version": 1, "bin_ms": 10})
    zarr_store.write(root, "rate", np.full((1, 8, len(regions)), 10, np.float32), ["condition", "time", "unit"])
    for name, values in {"region": np.array(regions), **columns}.items():
        zarr_store.write(root, f"unit/{name}", values, ["unit"])
    return recordings.open_recording(folder / "r.zarr")


def config(folder, *more):
    return compose("config=tiny", "target=recording", f"recording.path={folder}/r.zarr", "network.n_neurons=null", "static=regional", *more)


def test_probabilities_from_rules_and_tables(tmp_path):
    """Inhibition stays within a region unless long_range=all; in a table, rows with names have priority over those with *."""
    recording, exc = table(tmp_path, ["a", "b", "a", "b"], x=np.arange(4.0)), np.array([True, True, False, False])
    made = connection_rules.regions_of(config(tmp_path, "static.within=0.3", "static.between=0.1"), recording, exc)
    assert made.names == ("a", "b") and made.index.tolist() == [0, 1, 0, 1]
    expected = np.array([[[[0.3, 0.3], [0.1, 0.1]], [[0.3, 0.3], [0, 0]]], [[[0.1, 0.1], [0.3, 0.3]], [[0, 0], [0.3, 0.3]]]])
    np.testing.assert_array_equal(made.probability, expected)
    everyone = connection_rules.regions_of(config(tmp_path, "static.between=0.1", "static.long_range=all"), recording, exc)
    assert np.all(everyone.probability[0, :, 1] == 0.1)
    (tmp_path / "p.csv").write_text("pre,post,probability,pre_class\na,b,0.4,exc\n*,*,0.1,exc\n*,*,0.2,inh\n")
    stored = connection_rules.regions_of(
        config(tmp_path, f"static.table={tmp_path}/p.csv", "static.length=2", "static.coordinates=[x]"), recording, exc
    )
    np.testing.assert_array_equal(stored.probability[0, 0], [[0.1, 0.1], [0.4, 0.4]])
    np.testing.assert_array_equal(stored.probability[1], [[[0.1, 0.1], [0.1, 0.1]], [[0.2, 0.2], [0.2, 0.2]]])
    np.testing.assert_array_equal(stored.coordinates, np.arange(4.0)[:, None])


@pytest.mark.parametrize(
    ("content", "more", "message"),
    [
        ("pre,post\na,b\n", [], "has columns pre, post; expected pre, post and probability."),
        ("pre,post,probability\na,c,0.1\n", [], "c in row 1 is none of a, b; expected one of them, or *."),
        ("pre,post,probability\na,b,1.5\n", [], "the probability in row 1 is 1.5; expected a number from 0 to 1."),
        (None, ["static.length=2"], "has no unit/x, but region."),
    ],
)
def test_tables_and_coordinates_that_do_not_fit_are_refused(tmp_path, content, more, message):
    recording = table(tmp_path, ["a", "b"])
    if content is not None:
        (tmp_path / "p.csv").write_text(content)
        more = [f"static.table={tmp_path}/p.csv"]
    with pytest.raises(UserError) as error:
        connection_rules.regions_of(config(tmp_path, *more), recording, np.array([True, False]))
    assert message in str(error.value)
    with pytest.raises(UserError, match="static=regional: needs the regions of the neurons; expected a recording with unit/region"):
        build.build(compose("config=tiny", "static=regional"))


@pytest.mark.parametrize("n", [4, 9, 40])
def test_distinct_numbers_are_any_with_the_same_probability(n):
    """Each ordered pair of the first two, of small and of large sets, which are drawn in different ways."""
    drawn = distinct(generator_of(STREAM, 0), 40000, 2, n)
    assert np.all(drawn[:, 0] != drawn[:, 1]) and drawn.min() == 0 and drawn.max() == n - 1
    counts = np.bincount(drawn[:, 0] * n + drawn[:, 1], minlength=n * n).reshape(n, n)[~np.eye(n, dtype=bool)]
    expected = 40000 / (n * (n - 1))
    chi, freedom = np.sum((counts - expected) ** 2 / expected), n * (n - 1) - 1
    assert abs(chi - freedom) < 4.5 * np.sqrt(2 * freedom)


def test_plastic_inputs_by_region():
    """The set share of inputs from the own region; long-range inputs are excitatory only, or of both classes; none twice."""
    regions = Regions(("a", "b", "c"), INDEX, np.zeros((3, 2, 3, 2)))
    for long_range, local_inh in (("exc", 20), ("all", 6)):
        plastic = RegionalInputsConfig(n_inputs=40, local=0.3, long_range=long_range)
        pre = connectivity.regional_inputs(plastic, STREAM, EXC, regions)
        assert pre.shape == (N, 40) and pre.min() >= 0 and all(len(set(row)) == 40 for row in pre.tolist())
        own = INDEX[pre] == INDEX[:, None]
        np.testing.assert_array_equal((own & EXC[pre]).sum(axis=1), 6)
        np.testing.assert_array_equal((own & ~EXC[pre]).sum(axis=1), local_inh)
        np.testing.assert_array_equal(EXC[pre].sum(axis=1), 20)
    few = Regions(("a", "b"), np.array([0] * 6 + [1] * 6), np.zeros((2, 2, 2, 2)))
    pre = connectivity.regional_inputs(RegionalInputsConfig(n_inputs=8, local=1.0), STREAM, np.arange(12) % 3 > 0, few)
    assert np.sum(pre >= 0, axis=1).tolist() == [6] * 12  # 4 excitatory and all 2 inhibitory neurons of the region
    with pytest.raises(UserError, match="plastic.group_size=5: puts neurons of several regions into a group"):
        connectivity.regional_inputs(RegionalInputsConfig(n_inputs=8, group_size=5), STREAM, np.arange(12) % 3 > 0, few)


def test_excitation_and_inhibition_balance_although_inhibition_is_local(tmp_path):
    """The mean static input by class is that of static=fixed with as many excitatory inputs; from a run folder."""
    table(tmp_path, np.array(["a", "b", "c"])[INDEX[:300]])
    made = config(tmp_path, "static.within=0.3", "static.between=0.1", "plastic=regional", "plastic.n_inputs=20", "trial.dt=0.5",
                  "neuron.refractory=0.5", "trial.stim_off=20", "trial.stim_on=10", "trial.duration=80", "noise.sigma=0.5")  # fmt: skip
    prepared = prepare.prepare(made, Progress("off"), learning=False)
    prepare.save_network(Run(tmp_path), prepared, learning=False)
    stored = zarr.open_group(str(tmp_path / "network.zarr"), mode="r")
    exc, degree = stored["neuron/excitatory"][...], np.diff(stored["static/indptr"][...])
    k_exc, k_inh = degree[exc].sum() / 300, degree[~exc].sum() / 300
    weight = stored["static/class_weight"][...]
    assert k_inh < 0.8 * k_exc
    j = 20 / np.sqrt(k_exc)
    np.testing.assert_allclose(weight * [[k_exc], [k_inh]], k_exc * j * np.array([[0.15, 1], [-0.75, -1]]), rtol=1e-5)
    np.testing.assert_allclose(stored["neuron/bias"][...][exc][0], 0.24 * np.sqrt(k_exc), rtol=1e-5)
    again = prepare.reopen(made, Run(tmp_path))
    np.testing.assert_array_equal(again.network.pre, prepared.network.pre)
