"""Completion of command lines: in bash, and the candidates for lines of all kinds."""

import os
import pty
import select
import subprocess
import sys
import time

import pytest

from rlsnet.cli.completion import candidates


@pytest.fixture(scope="module")
def bash(tmp_path_factory):
    """bash(typed): what a line is when it was typed in an interactive bash, tabs and all."""
    place = tmp_path_factory.mktemp("bash")
    (place / "rlsnet").write_text(f'#!/bin/sh\nexec {sys.executable} -m rlsnet "$@"\n')
    (place / "rlsnet").chmod(0o755)
    (place / "first run").mkdir()
    (place / "runs.zarr").mkdir()
    environment = {**os.environ, "PATH": f"{place}:{os.environ['PATH']}", "PS1": "$ ", "TERM": "dumb", "HOME": str(place)}
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        ["bash", "--norc", "-i"], stdin=terminal, stdout=terminal, stderr=terminal, cwd=place, env=environment, start_new_session=True
    )

    def read_until(end: str) -> str:
        text, deadline = "", time.monotonic() + 30
        while end not in text:
            assert time.monotonic() < deadline, text
            if select.select([screen], [], [], 0.1)[0]:
                text += os.read(screen, 4096).decode()
        return text

    def line(typed: str) -> str:
        """Types, and turns the line into an argument of printf, so that it is printed and not run."""
        os.write(screen, typed.encode() + b"\x01printf '<%s>\\n' \r")
        return " ".join(part.split(">")[0] for part in read_until("\n$ ").split("\r\n<")[1:])

    os.write(screen, b'eval "$(rlsnet completion bash)"; printf "rea%s\\n" dy\r')
    read_until("ready\r\n$ ")
    yield line
    process.kill()
    process.wait()
    os.close(screen)
    os.close(terminal)


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("rlsnet tra\t", "rlsnet train"),
        ("rlsnet train config=mo\t", "rlsnet train config=mouse_decision"),
        ("rlsnet train rls.penla\tbda=", "rlsnet train rls.penlambda="),
        ("rlsnet train tria\tle\t5", "rlsnet train trial.learn_every=5"),
        ("rlsnet train -m neuron=glif1,glif2,l\tseed=1", "rlsnet train -m neuron=glif1,glif2,lif seed=1"),
        ("rlsnet test run=runs\t", "rlsnet test run=runs.zarr/"),
        ("rlsnet info runs\t", "rlsnet info runs.zarr/"),
    ],
)
def test_in_bash(bash, typed, line):
    assert bash(typed) == line


def test_candidates(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "config").mkdir(parents=True)
    (tmp_path / "mine" / "config" / "own.yaml").write_text("")
    assert candidates("rlsnet ")[:4] == ["train", "simulate", "watch", "test"]
    assert candidates("rlsnet train config=") == [
        f"config={name}"
        for name in (
            "brunel",
            "demo",
            "microcircuit",
            "million",
            "million_small_memory",
            "mouse_decision",
            "mouse_decision_published",
            "online",
            "sinusoid",
            "tiny",
        )
    ]
    assert "config=own" in candidates("rlsnet train --config-dir mine config=") and "config=own" in candidates(
        "rlsnet train --config-dir=mine config=o"
    )
    top = candidates("rlsnet train ")
    assert {"config=", "neuron=", "seed=", "sweep=", "rls.", "neuron.", "hydra/launcher="} <= set(top) and len(top) < 50
    assert {"tiny", "last", "mine/"} <= set(top) and "tiny" not in candidates("rlsnet train demo ")
    assert candidates("rlsnet test la") == ["last"] == candidates("rlsnet report la") and candidates("rlsnet import las") == []
    assert candidates("rlsnet train tiny --d") == ["--dry-run"] and candidates("rlsnet run") == ["runs"]
    assert "neuron.asc_tau_1=" in candidates("rlsnet train neuron.") and "neuron.asc_tau_1=" not in candidates(
        "rlsnet train neuron=lif neuron."
    )
    assert candidates("rlsnet train rls.dale=") == ["rls.dale=true", "rls.dale=false"]
    assert candidates("rlsnet train tracking=w") == ["tracking=wandb"]
    assert candidates("rlsnet test s") == [] and candidates("rlsnet test test.ch") == ["test.checkpoint="]
    assert candidates("rlsnet train 'network.load=mi") == ["network.load=mine/"]
    assert candidates("rlsnet train --cfg j") == ["job"] and candidates("rlsnet completion z") == ["zsh"]
    assert candidates("rlsnet nothing x") == candidates("rlsnet train \"it's") == []


def test_it_is_quick_and_quiet():
    """Neither Hydra nor JAX; a line that is no line gives nothing, without an error."""
    code = "import sys; sys.argv = ['rlsnet']\nfrom rlsnet.cli.main import main\nmain()\n"
    code += "assert not {'jax', 'hydra', 'numpy'} & set(sys.modules)"
    for line in ("rlsnet train config=mo", "rlsnet train 'a", "rlsnet a b"):
        environment = {**os.environ, "RLSNET_COMPLETE": line}
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert result.returncode == 0 and not result.stderr and result.stdout.split()[:1] in (["config=mouse_decision"], [])


def test_the_command():
    for shell in ("bash", "zsh", "fish"):
        result = subprocess.run([sys.executable, "-m", "rlsnet", "completion", shell], capture_output=True, text=True)
        assert result.returncode == 0 and "RLSNET_COMPLETE" in result.stdout
    result = subprocess.run([sys.executable, "-m", "rlsnet", "completion", "csh"], capture_output=True, text=True)
    assert result.returncode == 1 and "completion csh: expected one shell of bash, zsh, fish." in result.stderr
    assert subprocess.run(["bash", "-n"], input=candidates.__globals__["SCRIPTS"]["bash"], text=True).returncode == 0
