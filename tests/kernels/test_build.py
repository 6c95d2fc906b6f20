"""Build of the native kernels with compilers that fail, hang or are absent, and a cache that cannot be written to."""

import ctypes
import os
import shutil
import time

import pytest

from rlsnet.kernels import build

SOURCE = """extern "C" int answer() { return 42; }"""
needs_compiler = pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A source, an empty cache, and no compilers but those in the folder bin."""
    monkeypatch.setenv("RLSNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(build.jax.ffi, "include_dir", lambda: str(tmp_path))
    (tmp_path / "bin").mkdir()
    (tmp_path / "source.cc").write_text(SOURCE)
    return tmp_path


def program(place, name, script):
    """A compiler that is a shell script; each call adds a line to the file `calls`."""
    path = place / "bin" / name
    path.write_text(f'#!/bin/sh\necho "$@" >> "{place}/calls"\n{script}\n')
    path.chmod(0o755)


def calls(place):
    return (place / "calls").read_text().splitlines() if (place / "calls").exists() else []


def only(place, monkeypatch, *names):
    """Lets the build find compilers of these names alone."""
    which = shutil.which
    monkeypatch.setattr(build.shutil, "which", lambda name: which(name) if name in names else None)


def load(place, tuning=("",)):
    return build.load(place / "source.cc", ["-O1"], tuning)


@needs_compiler
@pytest.mark.parametrize("given", ["g++ 'x", "nowhere-c++", " "])
def test_a_value_of_CXX_that_is_no_command_is_passed_over(place, monkeypatch, caplog, given):
    monkeypatch.setenv("CXX", given)
    assert load(place)[1].answer() == 42
    assert ("cannot be read as a command (No closing quotation)" in caplog.text) == ("'" in given)


def test_a_compiler_that_hangs_is_ended_with_the_programs_that_it_has_started(place, monkeypatch):
    program(place, "c++", f"sleep 30 & echo $! > {place}/child; wait")
    only(place, monkeypatch, "c++")
    monkeypatch.setattr(build, "ANSWER_SECONDS", 0.5)
    began = time.monotonic()
    with pytest.raises(RuntimeError, match=r"c\+\+ did not end within 0.5 s"):
        load(place)
    assert time.monotonic() - began < 10
    child = int((place / "child").read_text())
    time.sleep(0.2)
    try:
        with open(f"/proc/{child}/stat") as file:
            state = file.read().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        state = "gone"
    assert state in ("gone", "Z", "X")


def test_flags_are_tried_on_an_empty_file_and_the_source_once(place, monkeypatch):
    """What is wrong with the source or the machine is not tried again with other flags."""
    program(place, "c++", 'case "$*" in *march*syntax-only*) exit 1;; *syntax-only*) exit 0;; esac; echo "error: broken" >&2; exit 1')
    only(place, monkeypatch, "c++")
    with pytest.raises(RuntimeError, match=r"c\+\+ cannot compile source.cc: error: broken"):
        load(place, ("-march=a", "-march=b", ""))
    asked = [("syntax-only" in line, "march" in line) for line in calls(place)]
    assert asked == [
        (True, True),
        (True, True),
        (True, False),
        (False, False),
    ]


def test_one_program_under_two_names_is_asked_once(place, monkeypatch):
    program(place, "c++", "exit 1")
    (place / "bin" / "g++").symlink_to("c++")
    only(place, monkeypatch, "c++", "g++")
    with pytest.raises(RuntimeError, match=r"c\+\+ does not accept the flags"):
        load(place)
    assert len(calls(place)) == 1


def test_no_compiler(place, monkeypatch):
    only(place, monkeypatch)
    with pytest.raises(RuntimeError, match="no C.. compiler is found"):
        load(place)


def test_a_cache_that_cannot_be_written_to_is_said_before_anything_is_compiled(place, monkeypatch):
    program(place, "c++", "exit 1")
    (place / "cache").touch()
    with pytest.raises(RuntimeError, match="kernels cannot be written to .Not a directory.; RLSNET_CACHE=FOLDER names another cache"):
        load(place)
    assert not calls(place)


@needs_compiler
def test_a_compiler_is_used_once(place):
    path, library = load(place, ("-mthere=is-no-such-flag", ""))
    assert isinstance(library, ctypes.CDLL) and library.answer() == 42
    assert os.listdir(path.parent) == [path.name] and load(place, ("-mthere=is-no-such-flag", ""))[0] == path
