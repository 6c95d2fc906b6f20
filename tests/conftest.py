"""Fixtures and functions of all tests: strict JAX settings, configurations composed like on the command line, small networks."""

import atexit
import importlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

if "RLSNET_CACHE" not in os.environ:  # one for each session of tests; its workers inherit it
    os.environ["RLSNET_CACHE"] = tempfile.mkdtemp(prefix="rlsnet-cache-")
    atexit.register(shutil.rmtree, os.environ["RLSNET_CACHE"], ignore_errors=True)

os.environ["XDG_CONFIG_HOME"] = os.environ["RLSNET_CACHE"] + "/config"  # where the plugins are listed that the user trusts

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zarr

from rlsnet.api import compose
from rlsnet.kernels import backend
from rlsnet.simulation.state import CALIBRATION, TrialKeys, initial_state
from rlsnet.simulation.trial import advance, with_capacity
from rlsnet.workflows import test_store

__all__ = [
    "COMPILER",
    "FORMS",
    "KERNELS",
    "NATIVE",
    "UPDATES",
    "compose",
    "difference",
    "form_name",
    "fresh_nest",
    "keys_of",
    "metrics",
    "settings",
    "simulator",
    "small_network",
    "spikes_of",
    "write_network",
]

COMPILER = any(shutil.which(name.split()[0]) for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++") if name.strip())
NATIVE = ["native"] * COMPILER
KERNELS = ["xla", "fixed_shape", *["cuda"] * COMPILER, *NATIVE]  # engine.kernels on this machine; on a CPU cuda is emulated
FORMS = [form for form in backend.FORMS if form.delivery in KERNELS]  # tests run all of them
UPDATES = [form for form in FORMS if form.delivery == (form.update if form.update in KERNELS else "xla")]  # one for each form of update


def form_name(form: backend.Backend) -> str:
    """Name of a backend in the names of tests and in validation.md."""
    return f"{form.delivery} {form.update}"


def simulator(name: str) -> ModuleType:
    """A simulator of the extra `simulators`; without it the test fails."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        pytest.fail(f"not run here: cannot import {name} ({error}); pip install -e '.[test,simulators]'")


def fresh_nest(resolution: float, threads: int = 1, seed: int = 1) -> ModuleType:
    """NEST without a network, silent, with a time step of `resolution` ms."""
    os.environ["PYNEST_QUIET"] = "1"
    nest = simulator("nest")
    nest.verbosity = nest.VerbosityLevel.ERROR
    nest.ResetKernel()
    nest.local_num_threads, nest.resolution, nest.rng_seed = threads, resolution, seed
    return nest


def settings(form: backend.Backend) -> list[str]:
    """Overrides with which float64 runs take this backend."""
    packed = ["rls.storage=packed"] * (form.update == "deferred" and form.delivery in ("native", "cuda"))  # these kernels refuse it
    return [f"engine.kernels={form.delivery}", f"rls.method={'dense' if form.update == 'dense' else 'deferred'}", *packed]


jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """64-bit JAX for the length of a test."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks the tests that record figures, so that scripts/validate.py finds them; first, because other hooks select by marker."""
    for item in items:
        if "record_check" in getattr(item, "fixturenames", ()):
            item.add_marker("validation")


@pytest.fixture
def record_check(request, record_property) -> Callable[[str, str, str, str], None]:
    """record_check(name, quantity, expected, measured): a row of docs/validation.md.

    Call it before the assertion, so that a failure is recorded too. `measured` is a figure with its unit and error.
    """
    marker = next((f"-m {name} " for name in ("slow", "simulators", "gpu", "aot") if request.node.get_closest_marker(name)), "")
    record_property("command", f"pytest {marker}{request.node.nodeid.partition('[')[0]}")

    def record(name: str, quantity: str, expected: str, measured: str) -> None:
        record_property("check", json.dumps({"name": name, "quantity": quantity, "expected": expected, "measured": measured}))

    return record


def difference(a, b) -> float:
    """The largest absolute difference."""
    return float(np.abs(np.asarray(a, float) - np.asarray(b, float)).max())


def write_network(path: Path, arrays: dict[str, np.ndarray], group_size: int = 1) -> None:
    """A network.zarr as another program would write it, with zarr alone."""
    root = zarr.create_group(str(path), attributes={"format": "rlsnet-network", "version": 1})
    for name, values in arrays.items():
        root[name] = np.asarray(values)
    root.require_group("plastic").attrs["group_size"] = group_size


def small_network(seed: int, n: int = 60, out: int = 12, inputs: int = 8, points: int = 20, group_size: int = 1) -> dict[str, np.ndarray]:
    """Random arrays of a network.zarr: unequal out-degrees, a weight per edge, initial voltages, targets, classes mixed."""
    random = np.random.default_rng(seed)
    excitatory = random.random(n) < 0.5
    excitatory[:2] = True, False
    degrees = random.integers(0, 2 * out, n)
    sign = np.where(np.repeat(excitatory, degrees), 1.0, -1.0)
    groups = -(-n // group_size)
    pre = np.stack([random.choice(n, inputs, replace=False) for _ in range(groups)])
    pre[1, -2:] = -1
    weight = random.normal(0, 3, (n, inputs))
    weight[np.repeat(pre, group_size, axis=0)[:n] < 0] = 0
    return {
        "neuron/excitatory": excitatory,
        "neuron/bias": random.uniform(0.9, 1.6, n),
        "neuron/v0": random.uniform(-1, 1, n),
        "static/indptr": np.concatenate([[0], np.cumsum(degrees)]),
        "static/post": random.integers(0, n, degrees.sum()),
        "static/weight": sign * random.uniform(0.1, 2.5, degrees.sum()),
        "plastic/pre": pre,
        "plastic/weight": weight,
        "target": random.normal(0, 0.5, (2, points, n)),
    }


def metrics(path: Path) -> list[dict]:
    """metrics.jsonl without the seconds, which are never the same."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "seconds" not in k} for line in lines]


def keys_of(stage=CALIBRATION, number=0, condition=0, seed=1):
    """Keys of the random numbers of one trial."""
    return TrialKeys.create(seed, stage).trial(jnp.int32(number), jnp.int32(condition))


def spikes_of(dynamics, net, keys, steps, w=None, start=None):
    """(step from 0, neuron) of each spike of a run, and the state at its end."""
    state = initial_state(dynamics, net, keys) if start is None else start

    def run(dynamics):
        after = jax.jit(lambda net, w, state, keys: advance(dynamics, net, w, state, keys, steps, record=True))(net, w, state, keys)
        return after, after[0].overflowed

    state, words = with_capacity(dynamics, run)[0]
    return *test_store.unpack(np.asarray(words)), state
