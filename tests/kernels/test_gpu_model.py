"""The performance model of the CUDA kernels against values computed by hand."""

import dataclasses
import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from rlsnet.runs import cost_model

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu" / "model.py"
_spec = importlib.util.spec_from_file_location("gpu_model", SCRIPT)
model = sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(model)

# 1000 neurons at 10 Hz: a spike a step; 30 updates, Q = 15
SMALL = cost_model.Sizes(N=1000, K=20, L=8, rate=10.0, points=30, share=0.25)
ROUND = dataclasses.replace(  # a GPU with round figures; everything is in its cache
    cost_model.H200, copy=1e9, cache=1e9, atomics=1e6, barrier=2e-6, launch=1e-6, l2=1e12
)


def test_work_of_a_step_and_of_updates():
    work = cost_model.work(SMALL)
    assert work["spikes"] == pytest.approx(1)
    assert work["atomics"] == pytest.approx(20 + 8)
    assert work["deliver"] == pytest.approx(5 * 4 + 20 * 4 + 8 * (4 + 32))  # w at random: a sector of 32 bytes each
    assert work["move"] == pytest.approx(1000 * (4 * (3 + 4 + 7 / 10) + 1))
    row = 1000 * 8 * 4
    assert work["sparse"] == row * (0.25 * 8 + 7.5 + 1 + 2 + 2 + 2)
    assert work["dense"] == row * (2 * 8 + 15 + 1 + 2 + 2 + 2)
    assert work["flush"] == row * (2 * 8 + 15)


def test_procedural_edges_are_not_read_and_groups_share_p():
    work = cost_model.work(dataclasses.replace(SMALL, stored=0, S=8))
    assert work["deliver"] == pytest.approx(5 * 4 + 8 * (4 / 8 + 4))
    assert work["atomics"] == pytest.approx(28)
    assert work["sparse"] == 125 * 8 * 4 * (0.25 * 8 + 7.5 + 1 + 2 + 16 + 2)
    assert cost_model.memory(dataclasses.replace(SMALL, S=8))["P"] == 125 * 8 * 8 * 4


def test_feedforward_spikes_reach_all_neurons():
    with_inputs = dataclasses.replace(SMALL, X=4, x_rate=50.0)
    assert cost_model.work(with_inputs)["atomics"] == pytest.approx(28 + 4 * 50 * 1e-4 * 1000)
    assert cost_model.memory(with_inputs)["P"] == 1000 * 12 * 12 * 4


def test_trials_side_by_side_multiply_spikes_but_not_barriers_and_updates():
    eight = dataclasses.replace(SMALL, B=8)
    for name in ("spikes", "atomics", "deliver", "move"):
        assert cost_model.work(eight)[name] == pytest.approx(8 * cost_model.work(SMALL)[name])
    assert cost_model.work(eight)["sparse"] == cost_model.work(SMALL)["sparse"]
    one, all_ = cost_model.times(ROUND, SMALL), cost_model.times(ROUND, eight)
    assert one["barriers"] == all_["barriers"] == 4e-6
    assert all_["deliver"] == pytest.approx(8 * one["deliver"])
    assert cost_model.memory(eight)["state"] == 8 * cost_model.memory(SMALL)["state"]
    assert cost_model.memory(eight)["P"] == cost_model.memory(SMALL)["P"]


def test_share_of_rows_from_the_rates():
    from_rates = dataclasses.replace(SMALL, share=-1.0, every=2, B=3)
    assert from_rates.rows == pytest.approx(1 - math.exp(-10 * 0.02 * 3))
    assert dataclasses.replace(SMALL, regressors="rates").rows == 1


def test_times():
    times = cost_model.times(ROUND, SMALL)
    work = cost_model.work(SMALL)
    assert times["deliver"] == pytest.approx(28e-6)  # additions take longer than bytes
    assert times["step"] == pytest.approx(28e-6 + work["move"] / 1e9 + 4e-6)
    assert times["sparse"] == pytest.approx(work["sparse"] / 1e9 + 2e-6)
    assert times["simulation"] == pytest.approx(20_000 * times["step"] + 31e-6)
    assert times["learning"] == pytest.approx(2 * times["dense"] + 28 * times["sparse"] + work["flush"] / 1e9 + 1e-6)
    assert times["rest"] == pytest.approx(30 * 20 * 1e-6)
    assert times["iteration"] == pytest.approx(times["simulation"] + times["learning"] + times["rest"])
    assert cost_model.launches(SMALL) == 23
    assert cost_model.launches(dataclasses.replace(SMALL, every=2)) == 22


def test_what_the_cache_does_not_hold_is_passed_over_at_the_bandwidth_of_memory():
    memory = dataclasses.replace(ROUND, cache=4e9, l2=1.0)
    assert cost_model.times(memory, SMALL)["move"] == pytest.approx(
        4 * cost_model.times(dataclasses.replace(memory, l2=1e12), SMALL)["move"]
    )


def test_a_step_of_fixed_shape_of_the_published_network_takes_34_us():
    sizes = model.sizes_of("mouse_decision_published")
    assert (sizes.N, sizes.K, sizes.L, sizes.X, sizes.steps, sizes.Q) == (66_002, 0, 128, 0, 40_000, 15)
    assert cost_model.memory(sizes)["P"] == 66_002 * 128 * 128 * 4
    assert model.fixed_shape(cost_model.H200, sizes)["step"] == pytest.approx(34e-6, rel=0.02)


def test_mouse_decision_reads_all_rows_at_every_second_learning_point():
    sizes = model.sizes_of("mouse_decision")
    assert (sizes.L, sizes.X, sizes.updates, sizes.rows, sizes.C) == (96, 32, 75, 1.0, 2)


def test_devices_share_all_but_the_presynaptic_neurons():
    four, work = dataclasses.replace(SMALL, D=4, delay=15), cost_model.work(SMALL)
    of_each = cost_model.work(four)
    for name in ("atomics", "move", "sparse", "dense", "flush"):
        assert of_each[name] == pytest.approx(work[name] / 4)
    assert of_each["spikes"] == work["spikes"]
    assert of_each["exchange"] == 15 * 1000 / 8  # a bit of each neuron and step
    whole, held = cost_model.memory(SMALL), cost_model.memory(four)
    assert held.pop("sources") == (18 + 4 + 15) * 1000
    assert all(held[name] == pytest.approx(size / 4) for name, size in whole.items())
    links = cost_model.Links(per_node=2, protocols=((6e-6, 1e-6, 2.0, 3e-6, 0.25),), near_rate=4e9, far_rate=4e9)
    times = cost_model.times(ROUND, four, links)
    exchange = 6e-6 + 2 * 2e-6 + 3e-6 + 1875 * 3 / 4 / 1e9  # four GPUs in two nodes: two near steps and a far one
    assert times["exchange"] == pytest.approx(exchange / 15)
    assert times["step"] == pytest.approx(times["deliver"] + times["move"] + times["launches"] + times["unpack"] + times["exchange"])


def test_exchange_takes_the_faster_protocol():
    links = cost_model.Links()
    assert links.seconds(1, 1e6) == 0
    assert links.seconds(8, 0) == pytest.approx(6.6e-6 + 7 * 0.6e-6)
    assert links.seconds(16, 0) == pytest.approx(6.6e-6 + 14 * 1.8 * 0.6e-6 + 2.7e-6)
    assert links.seconds(8, 1e9) == pytest.approx(8.4e-6 + 7 * 3.4e-6 + 1e9 * 7 / 8 / 450e9)


def test_every_case_is_printed():
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for case in model.SHOWN:
        assert done.stdout.count(f"| `{case}` | 1 |") == done.stdout.count(f"| `{case}` | 8 |") == 4
    assert "5.02 prototype (" in done.stdout


def test_more_gpus_need_less_memory_each_and_longer_exchanges():
    rows = [line.split(" | ") for line in model.scaling(cost_model.H200).splitlines()[2:]]
    assert [row[0] for row in rows] == ["| 1 million"] * 4 + ["| 10 million"] * 4 + ["| 100 million"] * 4
    assert "does not fit" in rows[8][2] and "does not fit" not in rows[9][2]
    seconds = [float(row[5].split()[0]) for row in rows[:4]]
    assert seconds == sorted(seconds)


def test_every_case_and_device_has_a_report():
    cases = [(case, model.sizes_of(case)) for case in model.CASES]
    for device in cost_model.DEVICES.values():
        report = model.report(device, cases, [])
        assert all(report.count(f"| `{case}` |") == 4 for case in model.CASES)
        assert "nan" not in report and "prototype (" not in report


def test_measured_figures_stand_beside_the_floor(tmp_path):
    results = {"mouse_decision": {"device": "NVIDIA H200 (gpu)", "kernels": "cuda", "iteration": [9.0, 0.5, 0.7, 0.6]}}
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"results": results}))
    sizes = model.sizes_of("mouse_decision")
    floor = cost_model.times(cost_model.H200, sizes)["iteration"]
    found = model.measured_results([path], cost_model.H200)
    assert model.beside(found, cost_model.H200, "mouse_decision", sizes, "iteration") == f"0.6 cuda ({0.6 / floor:.2g})"
    assert model.beside(found, cost_model.H200, "mouse_decision", sizes, "step") == "estimated"
    assert model.measured_results([path], cost_model.DEVICES["b200"]) == []


def test_wrong_sizes_are_refused():
    done = subprocess.run([sys.executable, str(SCRIPT), "--set", "M=3"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "expected NAME=VALUE" in done.stderr
