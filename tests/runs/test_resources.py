"""Sampling of resources during a run, which does not change its results."""

import json
import logging
import subprocess
import sys
import time
import types

import pytest
from conftest import compose

from rlsnet.runs import resources
from rlsnet.runs.folder import Run
from rlsnet.runs.resources import Sampler
from rlsnet.workflows import training

ALWAYS = {"time", "verb", "cpu_percent", "memory_mb", "memory_peak_mb", "threads", "system_cpu_percent", "system_free_mb"}


def sample(path, every=0.02, seconds=0.0, iteration=lambda: None):
    with Sampler(path, every, "train", iteration) as sampler:
        time.sleep(seconds)
    assert not sampler._thread.is_alive()
    return resources.read(path)


def fake_nvml(monkeypatch, count=2, unknown=()):
    """A pynvml of `count` devices that do not know the readings in `unknown`."""
    nvml = types.ModuleType("pynvml")

    class NVMLError(Exception):
        pass

    def knows(reading, value):
        def read(device):
            if reading in unknown:
                raise NVMLError("Not Supported")
            return value(device)

        return read

    def device(name):
        if name not in range(count) and name != "GPU-1":
            raise NVMLError("Not Found")
        return 1 if name == "GPU-1" else name

    nvml.NVMLError, nvml.shut = NVMLError, 0
    nvml.nvmlInit = lambda: None
    nvml.nvmlShutdown = lambda: setattr(nvml, "shut", nvml.shut + 1)
    nvml.nvmlDeviceGetCount = lambda: count
    nvml.nvmlDeviceGetHandleByIndex = nvml.nvmlDeviceGetHandleByUUID = device
    nvml.nvmlDeviceGetUtilizationRates = knows("gpu_percent", lambda d: types.SimpleNamespace(gpu=50 + d))
    nvml.nvmlDeviceGetMemoryInfo = knows("gpu_memory_mb", lambda d: types.SimpleNamespace(used=(d + 1) * 2_000_000_000))
    nvml.nvmlDeviceGetPowerUsage = knows("gpu_power_w", lambda d: 100_500 + d * 1000)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return nvml


def test_a_run_is_sampled_from_start_to_end_and_on_when_resumed(tmp_path):
    run = Run(tmp_path)

    def train(iterations, resumed):
        config = compose("config=tiny", f"train.iterations={iterations}", "resources_every=50 ms", "progress=off")
        assert training.run_training(config, run, resumed) == 0
        return resources.read(run.resources)

    first = train(2, False)
    assert len(first) > 2 and all(line.keys() >= ALWAYS for line in first)
    assert "iteration" not in first[0] and first[-1]["iteration"] == 2
    assert all(None not in line.values() and 0 < line["memory_mb"] <= line["memory_peak_mb"] for line in first)
    assert [line["time"] for line in first] == sorted(line["time"] for line in first) and first[0]["time"].endswith("+00:00")
    both = train(3, True)
    assert both[: len(first)] == first and both[-1]["iteration"] == 3 and len(both) > len(first)


def test_a_short_run_leaves_one_line_and_none_is_written_when_off(tmp_path):
    assert len(sample(tmp_path / "r.jsonl", every=100)) == 1
    assert sample(tmp_path / "none.jsonl", every=0) == [] and not (tmp_path / "none.jsonl").exists()


def test_a_busy_process_uses_a_core(tmp_path):
    with Sampler(tmp_path / "r.jsonl", 100, "train", lambda: 7):
        until = time.monotonic() + 0.4
        while time.monotonic() < until:
            pass
    (line,) = resources.read(tmp_path / "r.jsonl")
    assert line["cpu_percent"] > 20 and line["iteration"] == 7


def test_peak_memory_remembers():
    code = "import numpy as np; from rlsnet.runs.resources import peak_memory as peak; before = peak(); np.ones(before // 8 + 10**7); "
    code += "assert before + 40e6 < peak() < 3 * before + 160e6"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_gpus(tmp_path, monkeypatch):
    nvml = fake_nvml(monkeypatch)
    (line,) = sample(tmp_path / "r.jsonl", every=100)
    assert line["gpu_percent"] == [50, 51] and line["gpu_memory_mb"] == [2000, 4000] and line["gpu_power_w"] == [100.5, 101.5]
    assert nvml.shut == 1


@pytest.mark.parametrize(("visible", "expected"), [("1", [51]), ("GPU-1,0", [51, 50]), ("0,9", [50]), ("", None), ("-1", None)])
def test_only_the_gpus_that_the_process_may_use(tmp_path, monkeypatch, visible, expected):
    fake_nvml(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    (line,) = sample(tmp_path / "r.jsonl", every=100)
    assert line.get("gpu_percent") == expected


def test_what_a_gpu_does_not_know_is_left_out(tmp_path, monkeypatch):
    fake_nvml(monkeypatch, unknown=("gpu_power_w", "gpu_percent"))
    (line,) = sample(tmp_path / "r.jsonl", every=100)
    assert {key for key in line if key.startswith("gpu")} == {"gpu_memory_mb"}


@pytest.mark.parametrize("broken", ["package", "driver"])
def test_no_gpu_is_nothing_to_speak_of(tmp_path, monkeypatch, caplog, broken):
    nvml = fake_nvml(monkeypatch)
    if broken == "package":
        monkeypatch.setitem(sys.modules, "pynvml", None)
    else:
        monkeypatch.setattr(nvml, "nvmlInit", lambda: 1 / 0)
    (line,) = sample(tmp_path / "r.jsonl", every=100)
    assert line.keys() == ALWAYS and not caplog.records


def test_an_error_ends_the_sampling_with_one_line(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        assert sample(tmp_path / "nowhere" / "r.jsonl", every=0.01, seconds=0.1) == []
    (record,) = caplog.records
    assert "sampling ends here" in record.message and "the run goes on" in record.message


def test_lines_that_a_crash_cut_short_are_left_out(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({"memory_peak_mb": 1}) + '\n{"memory_peak_mb": 2\n[3]\n' + json.dumps({"memory_peak_mb": 4}))
    assert [line["memory_peak_mb"] for line in resources.read(path)] == [1, 4]
