"""Build of the native kernels with compilers that fail, hang or are absent, and a cache that cannot be written to."""

import ctypes
import os
import shutil
import subprocess
import sys
import time

import pytest

from rlsnet.kernels import build, processors

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
    return build.load([place / "source.cc"], ["-O1"], tuning)


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
    program(
        place, "c++", 'case "$*" in *version | *march*syntax-only*) exit 1;; *syntax-only*) exit 0;; esac; echo "error: broken" >&2; exit 1'
    )
    only(place, monkeypatch, "c++")
    with pytest.raises(RuntimeError, match=r"c\+\+ cannot compile source.cc: error: broken"):
        load(place, ("-march=a", "-march=b", ""))
    asked = [("syntax-only" in line, "march" in line) for line in calls(place)]
    assert asked == [
        (False, False),  # the version
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
    assert [line.split()[0] for line in calls(place)] == ["--version", "-std=c++17"]


def test_no_compiler(place, monkeypatch):
    only(place, monkeypatch)
    with pytest.raises(RuntimeError, match="no C.. compiler is found"):
        load(place)


def test_a_cache_that_cannot_be_written_to_is_said_before_anything_is_compiled(place, monkeypatch):
    program(place, "c++", "exit 0")
    (place / "cache").touch()
    with pytest.raises(RuntimeError, match="kernels cannot be written to .Not a directory.; RLSNET_CACHE=FOLDER names another cache"):
        load(place)
    assert not [line for line in calls(place) if "source.cc" in line]


@needs_compiler
def test_a_compiler_is_used_once(place):
    path, library = load(place, ("-mthere=is-no-such-flag", ""))
    assert isinstance(library, ctypes.CDLL) and library.answer() == 42
    assert os.listdir(path.parent) == [path.name] and load(place, ("-mthere=is-no-such-flag", ""))[0] == path


@needs_compiler
def test_a_new_version_of_the_compiler_and_better_flags_make_another_library(place, monkeypatch):
    """Flags that fail by accident at one start are tried again at the next; without a compiler the newest library serves."""
    script = (
        'case "$*" in *version) cat {0}/version;; *-O2*) test ! -e {0}/busy && exec /usr/bin/c++ "$@";; *) exec /usr/bin/c++ "$@";; esac'
    )
    program(place, "c++", script.format(place))
    only(place, monkeypatch, "c++")
    made = []
    for version, busy in (("1", True), ("1", False), ("2", False)):
        (place / "version").write_text(version)
        (place / "busy").touch() if busy else (place / "busy").unlink(missing_ok=True)
        made.append(load(place, ("-O2", ""))[0])
        assert made[-1] == load(place, ("-O2", ""))[0]
    assert len(set(made)) == 3 == sum("source.cc" in line for line in calls(place))
    os.utime(made[1], (2e9, 2e9))
    only(place, monkeypatch)
    assert load(place, ("-O2", ""))[0] == made[1]


@needs_compiler
def test_a_compiler_that_fails_is_not_tried_at_each_start_where_another_one_works(place, monkeypatch):
    program(place, "c++", 'case "$*" in *source.cc*) exit 1;; esac')
    program(place, "g++", 'exec /usr/bin/g++ "$@"')
    only(place, monkeypatch, "c++", "g++")
    paths = {load(place)[0], load(place)[0]}
    assert len(paths) == 1 and sum("source.cc" in line for line in calls(place)) == 2
    (mark,) = (place / "cache").rglob("*.failed")
    os.utime(mark, (0, 0))
    assert load(place)[0] in paths and sum("source.cc" in line for line in calls(place)) == 3


@pytest.mark.parametrize(
    ("features", "wanted", "refused", "expected"),
    [
        (processors.V4, "", "", "v4 registered: x86-64-v4, of the package"),
        (processors.V3, "", "", "v3 registered: x86-64-v3, of the package"),
        (processors.V4 - {"avx512vl"}, "", "", "v3 registered: x86-64-v3, of the package"),
        (processors.V4, "", "v4", "v4 refused, v3 registered: x86-64-v3, of the package"),
        (processors.V2, "", "v2", "v2 refused, compiled -march=native: compiled here for this processor"),
        (processors.V2 - {"popcnt"}, "", "", "compiled -march=native: compiled here for this processor"),
        (processors.V4, "v2", "", "v2 registered: x86-64-v2, of the package"),
        (processors.V4, "v3", "v3", "v3 refused, compiled -march=x86-64-v3: compiled here for x86-64-v3"),
        (processors.V4, "native", "", "compiled -march=native: compiled here for this processor"),
        (processors.V3, "v4", "", ": RLSNET_KERNELS=v4: this processor does not have avx512bw, avx512cd, avx512dq, avx512f, avx512vl"),
        (processors.V4, "v9", "", ": RLSNET_KERNELS=v9: expected v4, v3, v2 or native"),
    ],
)
def test_the_best_kernels_in_the_package_are_used_and_else_compiled(monkeypatch, tmp_path, caplog, features, wanted, refused, expected):
    done = []

    def register(library, prefix, names, platform):
        done.append(f"{library} {'refused' if library == refused else 'registered'}")
        if library == refused:
            raise RuntimeError("INVALID_ARGUMENT: another version\n(more)")

    def compiled(source, flags, tuning, about):
        done.append(f"compiled {tuning[0].split()[0]}")
        monkeypatch.setattr(build, "register", lambda *_: None)
        return source, None

    monkeypatch.setattr(build, "PREBUILT", tmp_path)
    monkeypatch.setattr(build.ctypes, "CDLL", lambda path: os.path.basename(path).removesuffix(".so"))
    monkeypatch.setattr(build, "register", register)
    monkeypatch.setattr(build, "load", compiled)
    monkeypatch.setattr(build, "TUNING", build.X86_TUNING)
    monkeypatch.setattr(processors.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(processors, "features", lambda: frozenset(features))
    monkeypatch.setenv("RLSNET_KERNELS", wanted)
    caplog.set_level("INFO")
    for name in ("v2", "v3", "v4"):
        (tmp_path / f"{name}.so").touch()
    origin, error = build.native.__wrapped__("float32")
    assert f"{', '.join(done)}: {origin or error}" == expected
    assert ("in the package cannot be used: INVALID_ARGUMENT: another version\n" in caplog.text) == bool(refused)


OTHER_API = """
#include "xla/ffi/api/c_api.h"
#undef XLA_FFI_API_MINOR
#define XLA_FFI_API_MINOR 99
#include "xla/ffi/api/ffi.h"
#define HANDLER(name) XLA_FFI_DEFINE_HANDLER_SYMBOL(name, [] { return xla::ffi::Error::Success(); }, xla::ffi::Ffi::Bind())
"""


@needs_compiler
def test_kernels_in_the_package_that_xla_refuses_are_compiled_again(tmp_path):
    """Those of a later version of XLA's interface; what is compiled then works under the same names."""
    (tmp_path / "source.cc").write_text(OTHER_API + "".join(f"HANDLER({name});\n" for name in build.names("float32")))
    (tmp_path / "prebuilt").mkdir()
    code = """if True:
    import logging, shutil, sys
    from pathlib import Path
    import jax.numpy as jnp
    from rlsnet.kernels import build, calls, processors
    logging.basicConfig(level="INFO", format="%(message)s")
    folder = Path(sys.argv[1])
    library, _ = build.load([folder / "source.cc"], ["-O0"])
    build.PREBUILT, processors.features = folder / "prebuilt", lambda: processors.V2
    for family in processors.FAMILIES.values():
        shutil.copy(library, folder / "prebuilt" / f"{family[-1].name}.so")
    print(build.native("float32"), calls.normal(jnp.zeros(2, jnp.uint32), 5, jnp.float32).shape)
    """
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert ran.stdout == "Kernels(origin='compiled here for this processor', error=None) (5,)\n", ran.stderr
    assert "The native kernels in the package cannot be used" in ran.stderr and "API version (0.99) is incompatible" in ran.stderr
