"""The programs in scripts/: their arguments, and what they compute from files and traces."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
import bench  # noqa: E402
import bench_case  # noqa: E402
import bench_programs  # noqa: E402
import bench_report  # noqa: E402
import gallery  # noqa: E402
import robustness  # noqa: E402
import robustness_cases  # noqa: E402
import worm  # noqa: E402
from profile_iteration import Event, own_times  # noqa: E402


def test_figures_of_the_gallery_keep_the_colours_of_thin_lines():
    pixels = np.full((200, 256, 3), 255, np.uint8)
    pixels[:150] = np.arange(256)[None, :, None]  # greys, in many pixels
    rare = {k: colour for k, colour in enumerate([(33, 102, 172), (209, 54, 47), (224, 159, 31)])}
    for row, colour in rare.items():
        pixels[180 + row, :20] = colour
    reduced = np.asarray(gallery.reduced(Image.fromarray(pixels)).convert("RGB")).astype(int)
    assert np.abs(reduced - pixels).max() <= 16


def check(*arguments: str, timeout: int = 60, **environment: str) -> subprocess.CompletedProcess:
    """A call of gpu_check.sh with its settings in the environment."""
    own = {"PYTHON": sys.executable, **environment}
    others = {name: value for name, value in os.environ.items() if name not in ("DEVICE", "LIMIT", "CASES", "OUT", "PATIENCE")}
    command = ["bash", str(ROOT / "scripts" / "gpu_check.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**others, **own}, timeout=timeout)


def test_the_parts_of_a_gpu_check_have_limits_and_a_rehearsal_leaves_out_those_of_a_gpu():
    parts = dict(line.split(" ", 1) for line in check("--list").stdout.splitlines())
    assert {"environment", "hardware", "tests", "bench_mouse_decision_published", "profile"} <= set(parts)
    assert all(0 < int(seconds) <= 170 for seconds in parts.values())
    order = [name.removeprefix("bench_") for name in parts if name.startswith("bench_")]
    eight = "mouse_decision_published_8_trials"
    assert order == ["sinusoid", "mouse_decision_published", "mouse_decision", eight, "million_128", "million", "xla"]
    rehearsal = dict(line.split(" ", 1) for line in check("--list", DEVICE="cpu").stdout.splitlines())
    missing = {name for name, limit in rehearsal.items() if limit == "needs a GPU: left out"}
    assert missing == {"hardware_build", "hardware", "bench_xla"}
    assert {"environment", "tests", "bench_tiny", "profile", "model"} <= set(rehearsal)
    assert "bench_sinusoid 100" in check("--list", DEVICE="cpu", CASES="sinusoid").stdout


WRONG = [(("--help",), {}, "--help: expected --list"), ((), {"DEVICE": "tpu"}, "DEVICE=tpu: expected gpu or cpu")]


@pytest.mark.parametrize("arguments, environment, message", WRONG)
def test_wrong_arguments_of_a_gpu_check(arguments, environment, message):
    done = check(*arguments, **environment)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.slow
def test_the_rehearsal_of_a_gpu_check_passes(tmp_path):
    done = check(timeout=2000, DEVICE="cpu", PATIENCE="6", OUT=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert {part["status"] for part in results["parts"]} == {"passed", "needs a GPU: left out"}
    assert results["tests"] and results["bench"] and results["profile"] and results["model"] and results["environment"]["jax"]
    assert (tmp_path / "trace.json.gz").exists()


STORED = json.loads((ROOT / "benchmarks" / "cpu.json").read_text())


@pytest.mark.parametrize("name", bench_report.DOCUMENTS)
def test_the_tables_of_the_documents_are_those_of_the_stored_benchmark(name):
    text = (ROOT / name).read_text()
    assert bench_report.with_tables(text, STORED) == text, f"run python scripts/bench.py --write-docs, which writes {name}"
    sinusoid = next(line for line in text.splitlines() if line.startswith("| `sinusoid` |") and line.count("|") > 9)
    assert bench_report.figure(STORED["results"]["sinusoid"]["iteration"]) in sinusoid


def test_every_table_of_the_benchmark_is_in_a_document():
    blocks = {name for document in bench_report.DOCUMENTS for _, name, _ in bench_report.BLOCK.findall((ROOT / document).read_text())}
    assert blocks == {*bench_report.CASE_TABLES, *bench_report.STUDIES, "numpy"}
    other = {
        "machine": STORED["machine"],
        "results": {"trials": [{"case": "x", "trials": b, "iteration": [b + 2.0], "peak_gb": 1} for b in (1, 4)]},
    }
    assert "| `x` | 4 | 6 s | 1 s | 1 GB |" in bench_report.tables(other)["trials"]


def test_the_parts_of_an_iteration_and_their_counts():
    """Bytes and accesses of a small network, counted by hand."""
    case = bench_case.Case(["config=tiny", "feedforward=ou", "train.trials_per_update=1"], "cpu")
    sources = 512 + case.net.n_feedforward
    case.spikes = np.zeros(512)
    case.spikes[[0, 511]] = 3, 1
    (delivery,) = case.delivery(0.75, 0.5).values()
    outputs = np.bincount(np.asarray(case.net.pre).ravel(), minlength=sources)
    plastic = 3 * outputs[0] + outputs[511]
    assert delivery.seconds == 0.25 and delivery.accesses == 400 + 2 * plastic
    assert [number for _, number in delivery.needs] == [plastic, 400]
    updates, applied = case._parts_of_learning(1.0, 2.0, updates_=20, rounds=2, most=10, share=0.25).values()
    inputs = case.net.n_inputs
    row = bench_case.padded(4 * inputs)
    assert applied.bytes == 2 * 2 * 512 * inputs * row and updates.accesses == 18 * 512 * inputs * 0.25
    assert dict(updates.needs)[f"rows={row},{inputs},512,0.25"] == updates.accesses * row
    assert sum(amount for _, amount in updates.needs) == updates.bytes
    assert min(case.trials(2)) > 0 and case.spikes.sum() > 0 and case.trial_checksum
    before = case.trial_checksum
    assert min(case.trials(2, fire=False)) > 0 and case.trial_checksum == before


def test_repetitions_stop_at_the_limit(monkeypatch):
    first = []
    monkeypatch.setattr(bench_case, "LIMIT", 0.05)
    assert len(bench_case.seconds(lambda index: index, 3, first.append)) == 3 and first == [0]
    assert len(bench_case.seconds(lambda index: time.sleep(0.06), 3)) == 1
    assert len(bench_case.seconds(lambda index: time.sleep(0.03), 9)) == 1


def test_the_floor_of_memory_accesses():
    """Rates that a processor can have; bytes in sequence are faster than random additions."""
    if shutil.which("gcc") is None:
        with pytest.raises(SystemExit, match="Debian: gcc"):
            bench_programs.floor(["pass=100000"])
        return
    probes = ["pass=100000", "rows=256,58,1000,.1", "adds=1000,10,1000", "weighted=100,20,4,2,1000"]
    cost = bench_programs.floor(probes)
    assert set(cost) == set(probes)
    assert all(1e-4 < each < 1000 for values in cost.values() for each in values.values())
    assert cost["pass=100000"]["one"] < cost["weighted=100,20,4,2,1000"]["one"]
    with pytest.raises(SystemExit, match="expected pass, read"):
        bench_programs.floor(["jump=1"])


def test_the_floor_of_a_part_is_the_sum_of_its_accesses(monkeypatch):
    monkeypatch.setattr(bench_programs, "floor", lambda probes: {probe: {"one": 4.0, "all": 2.0} for probe in probes})
    part = bench_case.Part(1.0, needs=[("read=64", 1e9), ("seconds", 0.5)])
    result = {"device": "cpu (cpu)", "parts": {"learning: updates": dataclasses.asdict(part)}}
    assert bench.with_floor(result)["learning_floor"] == result["parts"]["learning: updates"]["floor"] == 2.5


def test_what_is_missing_for_the_programs_in_c(monkeypatch, tmp_path):
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\necho 'peer.c:14:10: fatal error: cblas.h: No such file or directory' >&2\nexit 1\n")
    compiler.chmod(0o700)
    for command, message in ((compiler, "libopenblas-dev"), (tmp_path / "none", "is not found")):
        monkeypatch.setenv("CC", str(command))
        with pytest.raises(SystemExit, match=message):
            bench_programs.built.__wrapped__("peer")


def test_own_times_leave_out_the_operations_inside():
    events = [Event("loop", 0, 100), Event("add", 10, 20), Event("inner", 40, 30), Event("add", 50, 5), Event("copy", 100, 7)]
    assert sorted(own_times(reversed(events))) == [("add", 5), ("add", 20), ("copy", 7), ("inner", 25), ("loop", 50)]


ENDS = [
    (0, "", True, "harmless"),
    (0, "", False, "SILENT"),
    (0, "run/metrics.jsonl lacks 2 iterations", False, "said"),
    (1, "rlsnet: error: run/metrics.jsonl: line 3 is damaged.", False, "said"),
    (1, "", False, "TRACEBACK"),
    (1, "Traceback (most recent call last):\nKeyError\nrlsnet: error: x", False, "TRACEBACK"),
    (0, "RuntimeWarning: overflow encountered in cast", True, "TRACEBACK"),
    (-11, "", False, "TRACEBACK"),
    (None, "", False, "HANG"),
]


@pytest.mark.parametrize(("status", "err", "same", "expected"), ENDS)
def test_outcomes_of_a_damaged_file(status, err, same, expected):
    whole, broken = robustness.Ended(0, "", ""), robustness.Ended(status, "", err)
    assert robustness.outcome([whole, broken], same, "metrics.jsonl") == expected
    assert robustness.outcome([whole], False, other="no checksum") == "no checksum"


def test_damages_change_files(tmp_path):
    """Each of them, the same way in each run; zeros in a file of zeros and flips in an empty one are none."""
    file, data = tmp_path / "run/test.zarr/psth/c/0", bytes(range(1, 256)) * 4
    file.parent.mkdir(parents=True)
    for name, change in robustness_cases.changes("psth", 10).items():
        made = []
        for _ in range(2):
            file.write_bytes(data)
            change(file)
            made.append(file.read_bytes() if file.exists() else None)
        assert made[0] == made[1] != data, name
    file.write_bytes(b"")
    assert list(robustness_cases.files(tmp_path)) == ["run/test.zarr/psth/c/0"] and len(robustness_cases.damages(tmp_path)) == 7
    assert robustness_cases.kind("run/test.zarr/psth/c/0") == "test, chunks" and robustness_cases.words("run/test.zarr/psth/c/0") == "psth"
    assert robustness_cases.words("run/metrics.crc32") == "metrics.jsonl"


def test_cases_of_robustness():
    """Command lines of every command, and a table that has a row for each part."""
    lines = robustness_cases.wrong_lines()
    assert {"train", "simulate", "test", "import", "plot", "report", "compare", "info", "export"} <= {line[0] for line in lines.values()}
    assert len(lines) >= 336 and len(robustness_cases.EDGES) >= 20
    part = robustness.Part("metrics.jsonl")
    part.outcomes.update(["said", "said", "SILENT"])
    assert part.row() == "| metrics.jsonl | 3 | 2 |  |  | 1 |  |  |"


@pytest.mark.slow
def test_nothing_is_wrong_in_silence():
    """A small part of all damages, mistakes and kills."""
    result = subprocess.run([sys.executable, ROOT / "scripts/robustness.py", "--quick"], capture_output=True, text=True, timeout=3000)
    assert result.returncode == 0, result.stdout + result.stderr


def test_worm(tmp_path, monkeypatch, capsys):
    """With a made-up table of the same columns: teacher and students have its wiring; scores are written and drawn."""
    monkeypatch.chdir(tmp_path)
    random, lines = np.random.default_rng(0), ["Source,Target,Weight,Type"]
    for i in range(20):
        lines += [f"N{i:02} , N{j:02}  ,{random.integers(1, 20)},chemical" for j in random.choice(20, 6, replace=False)]
    (tmp_path / "edges.csv").write_text("\n".join([*lines, "N01 , MUSCLE ,3,chemical", "N00 , N01 ,2,electrical"]) + "\n")
    small = ["trial.duration=200", "trial.stim_off=200", "train.save_best=false"]
    arguments = ["edges.csv", "w.png", "--seeds", "1", "--shares", "0.5", "--iterations", "2", "--trials", "2", "--set", *small]
    worm.main([*arguments, "--json", "w.json", "--runs", "runs"])
    results = json.loads((tmp_path / "w.json").read_text())
    assert results["neurons"] == 20 and 0 < results["scored"] <= 14 and list(results["results"]) == list(worm.KINDS)
    for kind in worm.KINDS:
        (scores,) = results["results"][kind]["0.5"]
        assert all(-1 <= scores[name] <= 1 for name in ("recorded", "not recorded", "weights")) and 0 < scores["signs"] <= 1
    assert Image.open(tmp_path / "w.png").size[0] > 900 and "| 50 % |" in capsys.readouterr().out
    weights = [
        zarr.open_group(f"runs/{name}.zarr", mode="r")["plastic/weight"][...] for name in ("teacher", "signs-known-1", "signs-drawn-1")
    ]
    np.testing.assert_array_equal(np.sign(weights[0]), np.sign(weights[1]))
    assert (np.sign(weights[0]) != np.sign(weights[2])).any() and ((weights[0] != 0) == (weights[2] != 0)).all()
    trained = np.isfinite(zarr.open_group("runs/signs-known-0.5-1/network.zarr", mode="r")["target"][...]).any(axis=(0, 1))
    assert trained.sum() == 10


def test_correlations_of_the_worm():
    a = np.random.default_rng(0).normal(size=(2, 9, 3))
    b = a * np.array([2.0, -1.0, 0.0]) + 5
    np.testing.assert_allclose(worm.correlations(a, b)[:2], [1, -1])
    assert np.isnan(worm.correlations(a, b)[2])
