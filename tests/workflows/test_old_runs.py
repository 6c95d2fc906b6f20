"""Run folders of an earlier version in tests/fixtures/runs: they can be opened, tested and plotted, and resume with the same results."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

import rlsnet
from rlsnet.analysis import inspect
from rlsnet.cli.commands import report
from rlsnet.exports.writer import export
from rlsnet.workflows import prepare

FIXTURES = Path(__file__).parents[1] / "fixtures" / "runs"
RUNS = ["bfloat16", "groups", "packed_int16", "plain", "recording", "taus", "window"]
TESTED = {"groups": ["test.zarr"], "plain": ["test.zarr"], "recording": ["test.zarr", "perturbed/silence.zarr"]}
EXACT = 1e-6  # of float64 runs this short, whose differences do not grow to more than about 1e-10
DRAWN = ["groups", "plain", "recording"]  # in the quick tests
SINGLE = 1e-4  # of the float32 run, which is shorter; other kernels differ by 5e-7
BFLOAT16 = 2**-7  # distance of two such numbers, relative


@pytest.fixture
def run(request, tmp_path, monkeypatch):
    """A copy of a run folder, in the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(FIXTURES / request.param, tmp_path / request.param)
    shutil.copytree(FIXTURES / "recording.zarr", tmp_path / "recording.zarr")
    return rlsnet.open_run(request.param)


every = pytest.mark.parametrize("run", RUNS, indirect=True)
every_drawn = pytest.mark.parametrize(  # figures and reports take seconds each
    "run", [name if name in DRAWN else pytest.param(name, marks=pytest.mark.slow) for name in RUNS], indirect=True
)


def arrays(path):
    """All arrays of a store; P in real numbers."""
    group = zarr.open_group(str(path), mode="r")
    found = {name: array[...] for name, array in group.members(max_depth=None) if isinstance(array, zarr.Array)}
    if "P" in found and group["P"].attrs["numbers"] == "bfloat16":
        found["P"] = (found["P"].astype(np.uint32) << 16).view(np.float32)
    if "P_scale" in found:
        found["P"] = found["P"] * found["P_scale"]
    return found


def lines(path):
    """Metrics without the times."""
    return [{**json.loads(text), "seconds": 0} for text in (path / "metrics.jsonl").read_text().splitlines()]


def assert_same(got, expected, tolerance):
    """The same arrays, but for rounding."""
    assert got.keys() == expected.keys()
    for name, values in expected.items():
        if values.dtype.kind != "f":
            np.testing.assert_array_equal(got[name], values, err_msg=name)
            continue
        steps = np.max(expected["P_scale"]) if name == "P" and "P_scale" in expected else 0
        relative = BFLOAT16 if name == "P" and values.dtype == np.float32 and tolerance == EXACT else 0
        np.testing.assert_allclose(got[name], values, rtol=relative, atol=tolerance + steps, err_msg=name)


def test_all_runs_are_there():
    assert sorted(path.parent.name for path in FIXTURES.glob("*/config.yaml")) == RUNS


@every
def test_it_is_described_and_exported(run, capsys):
    inspect.show(str(run.path))
    shown = capsys.readouterr().out
    assert "4 of 4 iterations" in shown and "made with" in shown
    assert [line["iteration"] for line in run.read_metrics()] == [1, 2, 3, 4]
    out, _ = export(run.path, "npz")
    assert out.exists()


@every_drawn
def test_it_is_plotted_and_reported(run):
    assert "learning_curve.png" in [path.name for path in rlsnet.plot(run)]
    report.main([str(run.path)], report.Options())
    assert (run.path / "report.html").stat().st_size > 10_000


@every
def test_its_test_gives_the_stored_results(run):
    name = run.path.name
    results = rlsnet.test(run, trials=2)
    assert np.isfinite(results["psth"][...]).all()
    if name == "recording":
        rlsnet.test(run, trials=2, perturb={"name": "silence", "neurons": "region:ALM"})
    for part in TESTED.get(name, []):
        got, expected = arrays(run.path / part), arrays(FIXTURES / name / part)
        milliseconds, seconds = expected.pop("time"), got.pop("time")  # ends of bins then, centres now
        np.testing.assert_allclose(1000 * np.diff(seconds), np.diff(milliseconds), rtol=1e-6)
        later = {"spikes/time", "spikes/condition", "spikes/trial", "probe"}  # what tests did not have then
        assert_same({key: values for key, values in got.items() if key not in later}, expected, SINGLE if name == "plain" else EXACT)


@every
def test_resumed_it_ends_as_it_did(run):
    """After two of its four iterations."""
    shutil.rmtree(run.checkpoints / "000004.zarr")
    for best in run.checkpoints.glob("*.best.zarr"):
        if int(best.name[:6]) > 2:
            shutil.rmtree(best)
    assert run.iterations() == [2]
    rlsnet.train(run.config(), run.path, resume=True)
    frozen, tolerance = FIXTURES / run.path.name, SINGLE if run.path.name == "plain" else EXACT
    before, after = arrays(frozen / "checkpoints" / "000002.zarr"), arrays(run.checkpoints / "000004.zarr")
    assert np.abs(after["plastic/weight"] - before["plastic/weight"]).max() > 100 * tolerance
    assert_same(after, arrays(frozen / "checkpoints" / "000004.zarr"), tolerance)
    for got, expected in zip(lines(run.path), lines(frozen), strict=True):
        assert got.keys() == expected.keys()
        for key, value in expected.items():
            assert got[key] == (None if value is None else pytest.approx(value, rel=1e-5 if tolerance == EXACT else 1e-3, abs=tolerance)), (
                key
            )


@pytest.mark.parametrize("run", ["plain"], indirect=True)
def test_a_missing_chunk_of_an_old_network_is_said(run):
    """Stores of earlier versions have no checksums, but all their chunks."""
    (run.network / "plastic" / "pre" / "c" / "0" / "0").unlink()
    with pytest.raises(rlsnet.UserError, match="network.zarr/plastic/pre: 1 of 1 chunks are missing"):
        prepare.reopen(run.config(), run)
