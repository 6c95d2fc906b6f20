"""The CUDA kernels, emulated on a CPU: what the tests of all forms do not reach, and whether a missing barrier is found."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import COMPILER, compose, difference, keys_of, small_network, write_network

from rlsnet.errors import UserError
from rlsnet.kernels import backend, calls
from rlsnet.kernels.cuda import build as cuda_build
from rlsnet.model import build
from rlsnet.simulation import delivery
from rlsnet.simulation.state import Dynamics, initial_state

SOURCE = (cuda_build.FOLDER / "kernels.cu").read_text()
emulated = pytest.mark.skipif(not COMPILER, reason="no C++ compiler")


def recursive_least_squares(P, w, x, residual, forgetting: float, textbook: bool):
    """One update of each group in float64, by the formulas of docs/model.md; P [G, L, L], w [G, L, S], x [G, L], residual [G, S]."""
    trained = np.any(~np.isnan(residual), axis=1)
    k = np.einsum("gij,gj->gi", P, x)
    den = 1 / (forgetting + np.einsum("gi,gi->g", x, k))
    error = np.nan_to_num(np.einsum("gls,gl->gs", w, x) + residual)
    P = np.where(trained[:, None, None], (P - den[:, None, None] * k[:, :, None] * k[:, None, :]) / forgetting, P)
    gain = (den if textbook else np.ones_like(den))[:, None] * k * trained[:, None]
    return P, w - gain[:, :, None] * error[:, None, :]


@emulated
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(
    ("inputs", "size", "forgetting", "textbook"),
    [(8, 1, 1.0, True), (6, 3, 0.99, True), (67, 1, 1.0, False), (130, 70, 1.0, True), (264, 1, 0.995, False)],
)
def test_updates_equal_a_plain_loop(request, record_check, inputs, size, forgetting, textbook, precision):
    """Ten updates of five groups: vectors of 1, 2 and 4 inputs, fewer and more inputs, and neurons of a group, than threads."""
    if precision == "float64":
        request.getfixturevalue("x64")
    dtype, most, random = jnp.dtype(precision), 4, np.random.default_rng(inputs)
    groups, n = 5, 5 * size - (size > 1)  # the last group may lack a neuron
    sources = max(300, n)
    pre = np.array([random.choice(sources, inputs, replace=inputs > sources) for _ in range(groups)], np.int32)
    pre[0, :2] = -1
    A = random.normal(size=(groups, inputs, inputs)) / inputs
    P = np.einsum("gij,gkj->gik", A, A) + np.eye(inputs)
    P[0, :2], P[0, :, :2] = 0, 0
    w, r = random.normal(size=(groups, inputs, size)), np.abs(random.normal(size=sources))
    if size > 1:
        w[-1, :, -1] = 0
    theirs, decay = (P, w), 0.9
    unset, ones, none = (jnp.full(shape, value, dtype) for shape, value in (((groups, most, inputs), np.nan), (groups, 1), ((0, 1), 0)))
    mine = [jnp.asarray(P, dtype), none, jnp.asarray(w, dtype), unset, ones, jnp.zeros((groups, inputs), dtype)]
    for update in range(10):
        arrived = np.where(random.random(sources) < (0.2, 1.0)[update == 2], random.random(sources), 0) * (update > 0)
        r = decay * r + arrived if update else r
        residual = np.where(random.random(n) < 0.2, np.nan, random.normal(size=n))
        count = update % most
        numbers = forgetting, jnp.int32(count or most * (update > 0)), jnp.bool_(count == 0), decay
        given = (jnp.asarray(values, dtype) for values in (r, arrived))
        flags = jnp.array([textbook, True])
        mine = calls.learn("cuda", flags, *numbers, *given, jnp.asarray(pre), jnp.asarray(residual, dtype), *mine)
        x = np.where(pre >= 0, r[pre], 0)
        by_group = np.concatenate([residual, np.full(groups * size - n, np.nan)]).reshape(groups, size)
        theirs = recursive_least_squares(*theirs, x, by_group, forgetting, textbook)
    final, _ = calls.apply_pending("cuda", jnp.int32(10 % most), mine[3], mine[4], mine[0], mine[1])
    errors = difference(final, theirs[0]), difference(mine[2], theirs[1]) / np.abs(theirs[1]).max()
    what = f"10 updates, L = {inputs}, S = {size}, forgetting {forgetting}, {precision}"
    bound = 1e-12 if precision == "float64" else 2e-4
    record_check(
        "emulated CUDA updates", what, f"P and w of a plain loop to {bound:g}", f"P differs by {errors[0]:.1e}, w by {errors[1]:.1e}"
    )
    assert max(errors) < bound
    np.testing.assert_array_equal(final, np.swapaxes(final, 1, 2))  # symmetric to the bit


@emulated
@pytest.mark.slow
def test_more_numbers_in_P_than_an_int_can_count():
    """8,200 groups of 512 inputs, 2.15e9 numbers (8.6 GB): the last group is updated, at its place."""
    groups, inputs, sources = 8200, 512, 600
    assert groups * inputs**2 > 2**31
    pre = np.tile(np.arange(inputs, dtype=np.int32), (groups, 1))
    learn = jax.jit(partial(calls.learn, "cuda", jnp.ones(2, bool), 1.0, jnp.int32(1), jnp.bool_(False), 0.0), donate_argnums=[4])
    P = jax.jit(lambda: jnp.zeros((groups, inputs, inputs), jnp.float32).at[-1, 3].set(0.5).at[-1, :, 3].set(0.5))()
    arrays = (
        jnp.zeros((0, 1)),
        jnp.zeros((groups, inputs, 1)),
        jnp.zeros((groups, 2, inputs)),
        jnp.ones(groups),
        jnp.zeros((groups, inputs)),
    )
    r = jnp.zeros(sources).at[3].set(1.0)
    residual = jnp.full(groups, jnp.nan).at[-1].set(2.0)
    after, _, w, *_ = learn(r, r, jnp.asarray(pre), residual, P, *arrays)
    np.testing.assert_allclose(w[-1, :, 0], -0.5 / 1.5 * 2.0, rtol=1e-6)  # k = P x, divided by 1 + x k, times the error
    assert not np.any(np.asarray(w[:-1])) and after.shape == (groups, inputs, inputs)


@emulated
@pytest.mark.parametrize("storage", ["stored", "procedural"])
def test_spikes_with_more_targets_than_a_warp_takes_are_delivered(storage):
    """2,200 neurons: a feed-forward neuron reaches all of them, and so is shared out to all threads; the others are not."""
    config = compose("config=tiny", "network.n_neurons=2200", "static.out_degree=40", f"static.storage={storage}", "plastic.n_inputs=6",
                     "feedforward=ou", "feedforward.n_neurons=3")  # fmt: skip
    net, weight, _ = build.build(config)
    assert np.diff(net.out_indptr).max() == 2200 and np.sort(np.diff(net.out_indptr))[-4] < 2000
    state = initial_state(Dynamics.from_config(config), net, keys_of())
    random = np.random.default_rng(0)
    spiked, gain = jnp.asarray(random.random((2, 2203)) < 0.02).at[:, -2:].set(True), jnp.asarray([0.3, 0.2, 0.1], jnp.float32)
    w = jnp.asarray(weight, jnp.float32).reshape(2200, -1, 1)
    changed = [jnp.broadcast_to(values, (2, *values.shape)) for values in (state.synapses, state.r, state.n_delivered)]
    mine, theirs = (form(net, w, spiked, gain, *changed) for form in (partial(calls.deliver, "cuda"), delivery.deliver))
    assert difference(theirs[0], 0) > 0.1
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_more_inputs_than_a_block_has_room_for_are_refused():
    many = jnp.zeros((1, 1025), jnp.int32)
    with pytest.raises(UserError, match="plastic.n_inputs: expected at most 1024 inputs .* there are 1025. Use rls.method=dense"):
        calls.learn("cuda", jnp.ones(2, bool), 1.0, jnp.int32(0), jnp.bool_(True), 1.0, jnp.zeros(9), jnp.zeros(9), many, jnp.zeros(1))


def test_auto_takes_these_kernels_on_a_gpu_for_what_they_cover(monkeypatch):
    monkeypatch.setattr(backend, "platform_in_use", lambda: "gpu")
    monkeypatch.setattr(calls, "unavailable", lambda form, precision: None)
    assert backend.from_config(compose()) == backend.Backend("cuda", "xla", "cuda")
    assert backend.from_config(compose("rls.precision=bfloat16")).update == "deferred"  # by XLA
    assert backend.from_config(compose("engine.kernels=fixed_shape")).delivery == "fixed_shape"


class Card:
    """What the build asks of a GPU."""

    device_kind, compute_capability, platform = "Some card", "9.0", "gpu"

    def __init__(self, version: str):
        self.client = type("Client", (), {"platform_version": version})


@pytest.mark.parametrize(
    ("version", "reason"),
    [("rocm 6.0", "the CUDA kernels need an NVIDIA GPU, and this is Some card"), ("cuda 13000", "NVRTC is not found")],
)
def test_a_gpu_without_what_the_kernels_need_takes_xla_and_says_why(monkeypatch, caplog, version, reason):
    """auto says it once; cuda says it in one line."""
    monkeypatch.setattr(cuda_build, "device_in_use", lambda: Card(version))
    monkeypatch.setattr(calls, "platform_in_use", lambda: "gpu")
    monkeypatch.setattr(backend, "platform_in_use", lambda: "gpu")
    monkeypatch.setattr(cuda_build, "_nvrtc_candidates", lambda: iter(["/nowhere/libnvrtc.so"]))
    cuda_build.build_error.cache_clear(), backend._say_once.cache_clear()
    caplog.set_level("INFO")
    try:
        for _ in range(2):
            assert backend.from_config(compose()).delivery == "fixed_shape"
        assert caplog.text.count("with XLA instead of cuda kernels: " + reason) == 1
        with pytest.raises(UserError, match=f"^engine.kernels=cuda: {re.escape(reason)}.* Use engine.kernels=auto"):
            backend.from_config(compose("engine.kernels=cuda"))
    finally:
        cuda_build.build_error.cache_clear(), backend._say_once.cache_clear()


@emulated
@pytest.mark.parametrize(
    ("driver", "kernels", "reason"),
    [
        ("Path('libnowhere.so.1')", "/nowhere/kernels.cubin", "CUDA: libnowhere.so.1 cannot be loaded"),
        ("Path('libm.so.6')", "/nowhere/kernels.cubin", "CUDA: libm.so.6 has no cuModuleLoad"),
        ("build.emulated_driver()[0]", "/nowhere/kernels.cubin", "CUDA: cuModuleLoad of /nowhere/kernels.cubin failed with error 301"),
    ],
)
def test_a_driver_that_does_not_take_the_kernels_is_a_reason(driver, kernels, reason):
    """In a process of its own, as a driver is opened once."""
    code = f"""
from pathlib import Path
from rlsnet.kernels.cuda import build
try:
    build._register({driver}, Path({kernels!r}), ["-O2", "-DCUDA_EMULATION"], "cpu", 0)
except RuntimeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{reason}\n"


# --- A missing barrier ---------------------------------------------------------------------------------------------------


def barriers() -> list[int]:
    """Lines of kernels.cu with a barrier, without those of the grid's barrier on a GPU itself."""
    start = SOURCE[: SOURCE.index("#endif")].count("\n") + 1
    lines = enumerate(SOURCE.splitlines(), 1)
    return [
        number for number, line in lines if number > start and re.search(r"\b(__syncthreads(_or)?|grid_barrier)\(", line.split("//")[0])
    ]


def results_without(line: int, folder: Path) -> str:
    """What kernel_cases.py prints with a barrier left out (0: none), or how it ended."""
    command = [sys.executable, str(Path(__file__).with_name("kernel_cases.py")), str(line), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "JAX_ENABLE_X64": "1"}, timeout=300)
    return done.stdout if done.returncode == 0 else f"exit status {done.returncode}"


@pytest.mark.slow
@emulated
def test_without_any_one_of_its_barriers_the_results_are_wrong(tmp_path, record_check):
    """Each barrier is needed, and each that is missing is found."""
    write_network(tmp_path / "n.zarr", small_network(3, n=150, out=30, inputs=20, points=100))
    lines = barriers()
    with ThreadPoolExecutor(2) as pool:
        right, again, *wrong = pool.map(partial(results_without, folder=tmp_path), [0, 0, *lines])
    assert right == again and right.startswith("steps ") and len(lines) >= 11
    missed = [line for line, result in zip(lines, wrong, strict=True) if result == right]
    record_check(
        "barriers of the CUDA kernels", f"{len(lines)} barriers, each left out in turn", "other results", f"{len(missed)} not found"
    )
    assert missed == []
