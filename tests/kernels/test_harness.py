"""Native kernels without XLA, compiled for several kinds of processors and also run in an emulated one, against plain NumPy."""

import functools
import itertools
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from scipy import special

from rlsnet.kernels import processors

HARNESS = Path(__file__).parent / "harness.cc"
GROUPS, UPDATES, MOST, TRIALS = 40, 8, 3, 2
ARM, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64-static"


def mix(x):
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def hashed(stream, i):
    return mix(np.asarray(i, np.uint32) ^ mix(np.array([stream], np.uint32)))


def made(stream, count, low, high):
    return low + (high - low) * (hashed(stream, np.arange(count)) >> np.uint32(16)) * 2.0**-16


@functools.cache
def expected(inputs, size):
    """The same problem as in harness.cc, with P written at each update."""
    n, slots = GROUPS * size, np.arange(GROUPS * inputs)
    pre = np.where(hashed(1, slots) % 16 > 0, (hashed(2, slots) % n).astype(int), -1).reshape(GROUPS, inputs)
    w = made(3, GROUPS * inputs * size, -1, 1).reshape(GROUPS, inputs, size)
    P, r = (pre >= 0)[:, :, None] * np.eye(inputs), np.zeros(n)
    for m in range(UPDATES):
        arrived, residual = made(10 + m, n, 0, 1), made(30 + m, n, -1, 1)
        if m > 0:
            arrived[hashed(50 + m, np.arange(n)) % 4 > 0] = 0
        residual[hashed(70 + m, np.arange(n)) % 8 == 0] = np.nan
        r = 0.875 * r + arrived
        for g in range(GROUPS):
            wanted = residual[g * size : (g + 1) * size]
            if np.isnan(wanted).all():
                continue
            x = np.where(pre[g] < 0, 0, r[pre[g]])
            k = P[g] @ x
            den = 1 / (0.96875 + x @ k)
            w[g] -= den * np.outer(k, np.nan_to_num(w[g].T @ x + wanted))
            P[g] = (P[g] - den * np.outer(k, k)) / 0.96875
    j = np.arange(n)
    excitatory, degree = hashed(90, j) % 2 > 0, (hashed(91, j) % 20).astype(int)
    spiked = (hashed(93, np.arange(TRIALS * n)) % 4 == 0).reshape(TRIALS, n)
    weight, gain = made(94, degree.sum(), -1, 1), made(95, 3, 0.5, 1)
    filters, first = made(96, TRIALS * 3 * n, 0, 1).reshape(TRIALS, 3, n), np.cumsum(degree) - degree
    post = [np.sort(hashed(92, 32 * source + np.arange(degree[source])) % n) for source in range(n)]
    for b, source in zip(*np.nonzero(spiked), strict=True):
        channel, edges = 0 if excitatory[source] else 1, first[source] + np.arange(degree[source])
        np.add.at(filters[b, channel], post[source], gain[channel] * weight[edges])
        plastic = (w * (pre == source)[:, :, None]).sum(1)
        filters[b, 2] += gain[2] * plastic.reshape(n)
    return {"w": w, "P": P[-1], "filters": filters, "r": gain[2] * spiked, "delivered": spiked}


@functools.cache
def trials(size):
    """The time steps of harness.cc in groups of this size: every trial by itself, a step after the other."""
    n, x, degree, inputs, steps = 2200, 3, 12, 4, 35
    groups = -(-n // size)
    j, slots = np.arange(n), np.arange(groups * inputs)
    excitatory, bias, pre = hashed(100, j) % 2 > 0, made(101, n, 0.5, 1.5), hashed(103, slots) % (n + x)
    post, w = np.sort((hashed(102, np.arange(n * degree)) % n).reshape(n, degree)), made(104, groups * inputs * size, -2, 2)
    static, plastic = np.zeros((n, n)), np.zeros((n + x, groups * size))
    np.add.at(static, (np.repeat(j, degree), post.reshape(-1)), made(107, n * degree, 0.5, 1.5) if size > 1 else 1)
    targets = slots[:, None] // inputs * size + np.arange(size)
    np.add.at(plastic, (pre[:, None], targets), w.reshape(-1, size))
    plastic = plastic[:, :n]
    decay, W = 1 - 0.1 / np.array([3, 3, 150]), -(-n // 32)
    v, filters, r = made(105, TRIALS * n, 0, 1).reshape(TRIALS, n), np.zeros((TRIALS, 3, n)), np.zeros((TRIALS, n + x))
    spiked, words = (hashed(106, np.arange(TRIALS * (n + x))) % 32 == 0).reshape(TRIALS, -1), np.zeros((TRIALS, steps, W), np.uint64)
    scale = np.where(excitatory[:, None], [0.25, -0.5], [0.5, -1.0])
    for b in range(TRIALS):
        until, spikes = np.zeros(n), spiked[b].astype(float)
        for i in range(1, steps + 1):
            arrived = np.stack([(spikes[:n] * excitatory) @ static, (spikes[:n] * ~excitatory) @ static, spikes @ plastic])
            filters[b] = decay[:, None] * filters[b] + arrived / [[3], [3], [150]]
            r[b] = decay[2] * r[b] + spikes / 150
            key = fold(np.array([1 + 2 * b, 2 + 2 * b], np.uint32), i)
            v[b] += 0.05 * special.ndtri((bits(key, j) + 0.5) * 2.0**-32)
            active = until < i
            current = bias + filters[b, 0] * scale[:, 0] + filters[b, 1] * scale[:, 1] + filters[b, 2]
            v[b] = np.where(active, v[b] + 0.01 * (current - v[b]), v[b])
            fires = active & (v[b] > 1)
            v[b], until = np.where(fires, 0, v[b]), np.where(fires, i + 3, until)
            key = fold(np.array([5 + 2 * b, 6 + 2 * b], np.uint32), i)
            outside = (bits(key, np.arange(x)) + 0.5) * 2.0**-32 < 400 * 1e-4
            spikes = np.concatenate([fires, outside]).astype(float)
            np.add.at(words[b, i - 1], j[fires] % W, np.uint64(1) << (j[fires] // W).astype(np.uint64))
    assert np.sum(words > 0) > 100
    return {"v": v, "filters": filters, "r": r, "spikes": words}


def bits(key, counter):
    return mix(mix(np.asarray(counter, np.uint32) ^ key[0]) + key[1])


def fold(key, counter):
    a = mix(key[:1] ^ mix(np.array([counter], np.uint32) + np.uint32(0x9E3779B9)))
    return a, mix(key[1:] + a * np.uint32(0x85EBCA6B) + np.uint32(1))


def check(printed):
    """All quantities are printed, do not depend on threads to the bit, and are those of NumPy."""
    lines = [line.split() for line in printed.splitlines()]
    found = {tuple(line[:5]): line[5:] for line in lines}
    for precision, inputs, size in itertools.product(("float32", "float64"), (5, 29, 64), (1, 4)):
        tolerance = {"float32": 1e-5, "float64": 1e-12}[precision]
        for name, values in expected(inputs, size).items():
            one, several = (found.pop((name, precision, threads, str(inputs), str(size))) for threads in ("1", "4"))
            assert one == several
            np.testing.assert_allclose(np.array(one, float), np.ravel(values), rtol=0, atol=tolerance * np.abs(values).max(), err_msg=name)
    for per_group, (name, values) in [(size, item) for size in (1, 7) for item in trials(size).items()]:
        for precision in ("float32", "float64"):  # in float32 the noise has other bits, and so the spikes differ
            one, several = (found.pop((name, precision, threads, "4", str(per_group))) for threads in ("1", "4"))
            assert one == several
        np.testing.assert_allclose(np.array(one, float), np.ravel(values), rtol=0, atol=1e-12, err_msg=name)
    cells = bits((np.uint32(7), np.uint32(11)), np.arange(1000)) >> np.uint32(9)
    normal = np.array(found.pop(("normal", "float32", "1", "0", "0")), float)
    np.testing.assert_allclose(normal, special.ndtri((cells + 0.5) * 2.0**-23), rtol=0, atol=1e-5)
    assert not found


def built(tmp_path, compiler, kind):
    command = [compiler, "-std=c++17", "-Wall", "-Werror", *processors.FAST, *kind.flags.split(), "-static", "-pthread", str(HARNESS)]
    subprocess.run([*command, "-o", str(tmp_path / "harness")], check=True)
    return str(tmp_path / "harness")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="no g++")
@pytest.mark.parametrize("kind", processors.here(), ids=lambda kind: kind.name)
def test_kernels_for_the_kinds_of_processors_that_run_here(tmp_path, kind):
    check(subprocess.run([built(tmp_path, "g++", kind)], check=True, capture_output=True, text=True).stdout)


@pytest.mark.emulated
def test_kernels_for_an_emulated_arm_processor(tmp_path):
    program = built(tmp_path, ARM, processors.ARM[0])
    check(subprocess.run([EMULATOR, program], check=True, capture_output=True, text=True).stdout)
