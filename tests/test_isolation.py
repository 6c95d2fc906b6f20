"""Isolation of the Python interface: the settings of JAX, logging, signals and the process do not change."""

import logging
import os
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zarr
from conftest import compose

import rlsnet
from rlsnet.analysis import inspect
from rlsnet.config.schema import EngineConfig
from rlsnet.exports.writer import export
from rlsnet.kernels import device as jax_device

SMALL = ["config=tiny", "network.n_neurons=64", "static.out_degree=12", "plastic.n_inputs=8", "trial.stim_on=10", "trial.stim_off=20",
         "trial.duration=50", "train.iterations=2", "test.trials=1", "progress=off"]  # fmt: skip


def state():
    """All that a caller could notice."""
    loggers = {}
    for name, each in logging.root.manager.loggerDict.items():
        if isinstance(each, logging.Logger) and name.startswith("rlsnet"):
            settings = each.level, each.propagate, each.disabled, list(each.handlers)
            if settings != (logging.NOTSET, True, False, []):  # that of a module just imported
                loggers[name] = settings
    return {
        "jax": {name: getattr(jax.config, name, value) for name, value in jax.config.values.items()},
        "precision": jnp.zeros(1).dtype,
        "device": jnp.zeros(1).devices(),
        "loggers": {**loggers, "root": (logging.root.level, list(logging.root.handlers))},
        "signals": {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)},
        "environment": dict(os.environ),
        "path": list(sys.path),
        "folder": os.getcwd(),
        "numpy": np.geterr(),
    }


def test_every_command_restores_all_settings(tmp_path):
    """In float64, and then training in float32 in the same process."""
    disabled = [logging.getLogger(f"rlsnet.{name}") for name in ("train", "loop", "experiment")]
    for each in disabled:
        each.disabled = True
    before, double = state(), [*SMALL, "engine.precision=float64"]
    run = tmp_path / "float64"
    commands = {
        "train": lambda: rlsnet.train(compose(*double), run),
        "resume": lambda: rlsnet.train(compose(*double, "train.iterations=3"), run, resume=True),
        "test": lambda: rlsnet.test(run, perturb={"name": "silence"}),
        "plot": lambda: rlsnet.plot(run),
        "simulate": lambda: rlsnet.simulate(compose(*double, "engine.platform=cpu"), tmp_path / "simulated"),
        "load": lambda: rlsnet.load(tmp_path / "simulated"),
        "export": lambda: export(run, "npz"),
        "info": lambda: inspect.show(str(run)),
        "train in float32": lambda: rlsnet.train(compose(*SMALL), tmp_path / "float32"),
    }
    try:
        for command, function in commands.items():
            function()
            assert state() == before, command
    finally:
        for each in disabled:
            each.disabled = False
    for precision, iteration in (("float64", 3), ("float32", 2)):
        checkpoint = zarr.open_group(str(tmp_path / precision / "checkpoints" / f"{iteration:06d}.zarr"), mode="r")
        assert checkpoint["plastic/weight"].dtype == checkpoint["P"].dtype == precision
        assert np.isfinite(checkpoint["P"][...]).all()


def test_an_exception_restores_them_too(tmp_path, monkeypatch):
    before = state()
    with pytest.raises(rlsnet.UserError, match="engine.platform=gpu: JAX finds no such device here, only cpu"):
        rlsnet.train(compose(*SMALL, "engine.platform=gpu", "engine.precision=float64"), tmp_path / "gpu")
    assert state() == before
    monkeypatch.setattr(rlsnet.Run, "append_metrics", lambda run, line: 1 / 0)
    patched = state()
    with pytest.raises(ZeroDivisionError):
        rlsnet.train(compose(*SMALL, "engine.precision=float64"), tmp_path / "run")
    assert state() == patched


def test_compiled_programs_go_to_the_cache_of_rlsnet_during_a_run_only(tmp_path, monkeypatch):
    monkeypatch.setenv("RLSNET_CACHE", str(tmp_path / "rlsnet"))
    monkeypatch.setattr(jax_device, "LEAST_COMPILE_SECONDS", 0.0)

    def compile_program(factor):
        jax.block_until_ready(jax.jit(lambda x: x * factor)(jnp.arange(3.0)))

    def cached(folder):
        return len(list(folder.glob("*-cache")))

    compile_program(3.1)
    with jax_device.configured(EngineConfig(platform="cpu")) as device:
        assert device == "cpu"
        compile_program(4.1)
    count = cached(tmp_path / "rlsnet" / "jax")
    assert count > 0
    compile_program(5.1)
    assert cached(tmp_path / "rlsnet" / "jax") == count
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))  # a caller's own cache folder is used
    try:
        with jax_device.configured(EngineConfig(platform="cpu", precision="float64")):
            assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own") and jnp.zeros(1).dtype == "float64"
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own") and jnp.zeros(1).dtype == "float32"
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
    assert cached(tmp_path / "rlsnet" / "jax") == count
