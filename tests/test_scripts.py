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
