"""The programs in scripts/: their arguments, and what they compute from files and traces."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
import bench_case  # noqa: E402
import bench_report  # noqa: E402
import robustness  # noqa: E402
import robustness_cases  # noqa: E402
from profile_iteration import Event, own_times  # noqa: E402


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


def test_the_benchmark_times_the_delivery_of_spikes():
    assert bench_case.Case(["config=tiny", "feedforward=ou"], "cpu").delivery() > 0


def test_the_table_of_performance_has_the_figures_of_the_benchmark():
    document = (ROOT / "docs" / "performance.md").read_text().splitlines()
    rows = bench_report.table(ROOT / "benchmarks" / "cpu.json").splitlines()[2:]
    assert len(rows) > 5
    for row in rows:
        case, figures = row.removeprefix("| ").split(" | ", 1)
        assert any(line.startswith(f"| {case}") and line.endswith(f"| {figures}") for line in document), row


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
