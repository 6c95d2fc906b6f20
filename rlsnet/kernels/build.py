"""Build of the native kernels: cpu/handlers.cc compiled by the C++ compiler of the machine, stored in the cache, and registered in JAX."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import jax

from rlsnet.io import atomic

log = logging.getLogger(__name__)


FOLDER = Path(__file__).parent
SOURCE = FOLDER / "cpu" / "handlers.cc"
FLAGS = ["-std=c++17", "-shared", "-fPIC", "-w"]
FAST = "-O3 -ffp-contract=fast -fno-math-errno -fno-trapping-math -fno-signed-zeros".split()
TUNING = ("-march=native -mprefer-vector-width=512", "-march=native", "-mcpu=native", "")  # the first one that the compiler accepts is used
COMPILE_SECONDS = 600  # a compilation takes about 20 s, on a busy machine several times that
ANSWER_SECONDS = 30  # to compile an empty file takes a tenth of a second
NAMES = ("steps_f32", "steps_f64", "deliver_f32", "deliver_f64", "learn_f32", "learn_f64", "flush_f32", "flush_f64", "normal_f32")


@functools.cache
def build_error() -> str | None:
    """Builds and registers the native kernels, once in a process; returns None, or the reason why they cannot be built."""
    try:
        _, library = load(SOURCE, FAST, TUNING, headers() + _processor())
        register(library, "rlsnet_", NAMES, "cpu")
    except (OSError, RuntimeError) as error:
        return str(error)
    return None


def register(library: ctypes.CDLL, prefix: str, names: Iterable[str], platform_: str) -> None:
    """Registers handlers of a library in JAX, under their names with a prefix, for a platform of XLA: cpu or CUDA."""
    jax.devices()  # before a device exists, JAX would accept any handler
    for name in names:
        jax.ffi.register_ffi_target(f"{prefix}{name}", jax.ffi.pycapsule(getattr(library, name)), platform=platform_)


def load(source: Path, flags: Iterable[str], tuning: Iterable[str] = ("",), about: str = "") -> tuple[Path, ctypes.CDLL]:
    """Shared library of a source from the cache, and its path; it is built if it is missing or damaged.

    If a new library cannot be loaded either, for example in a folder mounted noexec, a mark is written beside it: later starts try to
    load it, but do not build it again.

    Args:
      source: file in C++.
      flags: of the compiler, beside FLAGS.
      tuning: further flags, of which the first that the compiler accepts are used.
      about: all else on which the library depends, such as the processor, or sources that are included.

    Raises:
      RuntimeError: the library cannot be built or loaded.
    """
    path = _build(source, list(flags), tuple(tuning), about)
    mark = path.with_suffix(".unloadable")
    with contextlib.suppress(OSError):
        return path, ctypes.CDLL(str(path))
    if not mark.exists():
        path.unlink()
        path = _build(source, list(flags), tuple(tuning), about)
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        mark.touch()
        raise RuntimeError(f"{path} cannot be loaded ({error}); if that folder is mounted noexec, set RLSNET_CACHE to another") from error
    mark.unlink(missing_ok=True)
    return path, library


def headers() -> str:
    """Text of the headers of the native kernels."""
    return "".join(path.read_text() for path in sorted([*FOLDER.glob("*.h"), *FOLDER.glob("cpu/*.h")]))


def cached(about: str, suffix: str) -> Path:
    """Path in the cache of a file that depends on `about` alone."""
    return atomic.cache_of_programs("kernels") / f"{hashlib.sha256(about.encode()).hexdigest()[:16]}{suffix}"


def _build(source: Path, flags: list[str], tuning: tuple[str, ...], about: str) -> Path:
    """Path of the shared library for this jaxlib, compiled if it is not in the cache; raises RuntimeError."""
    library = cached("".join([source.read_text(), *FLAGS, *flags, *tuning, metadata.version("jaxlib"), about]), ".so")
    if atomic.is_private(library):
        return library
    reason = "no C++ compiler is found (c++, g++, clang++ or the value of CXX)"
    if (refusal := atomic.refusal(library.parent)) is not None:
        raise RuntimeError(f"{library.parent} cannot be written to ({refusal}); RLSNET_CACHE=FOLDER names another cache")
    for compiler in _compilers():
        try:
            for more in tuning:
                accepted, refusal = more.split(), _refusal([*compiler, *FLAGS, *flags, *more.split()])
                if refusal is None:
                    break
            else:
                reason = f"{compiler[0]} does not accept the flags {' '.join([*FLAGS, *flags])}: {refusal}"
                continue
            log.info("Compiling %s with %s, once.", source.name, compiler[0])
            with atomic.replacing(library) as made:
                command = [*compiler, *FLAGS, *flags, *accepted, f"-I{jax.ffi.include_dir()}", str(source), "-o", str(made)]
                status, messages = _run(command, COMPILE_SECONDS)
                if status:
                    raise RuntimeError(f"{compiler[0]} cannot compile {source.name}: {_error(status, messages)}")
                made.chmod(0o700)
            return library
        except RuntimeError as error:
            reason = str(error)
    raise RuntimeError(reason)


def _compilers() -> Iterator[list[str]]:
    """Commands of the C++ compilers of this machine, each program once: the value of CXX first."""
    given, known = os.environ.get("CXX", ""), set()
    for text in (given, "c++", "g++", "clang++"):
        try:
            command = shlex.split(text)
        except ValueError as error:
            log.warning("CXX=%s: cannot be read as a command (%s); other compilers are tried.", given, error)
            continue
        program = shutil.which(command[0]) if command else None
        if program is not None and (key := (os.path.realpath(program), *command[1:])) not in known:
            known.add(key)
            yield command


def _refusal(command: list[str]) -> str | None:
    """Why a compiler does not compile an empty file with its flags; None if it does. Raises RuntimeError if it does not answer."""
    status, messages = _run([*command, "-fsyntax-only", "-x", "c++", os.devnull], ANSWER_SECONDS)
    return _error(status, messages) if status else None


def _error(status: int, messages: str) -> str:
    """First message of a compiler about an error, or its exit status."""
    return next((line for line in messages.splitlines() if "error" in line), f"exit status {status}")


def _run(command: list[str], seconds: float) -> tuple[int, str]:
    """(exit status, messages) of a compiler; raises RuntimeError if it takes longer, or cannot be started."""
    try:
        environment = {**os.environ, "LC_ALL": "C"}
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace", env=environment, start_new_session=True
        )
    except OSError as error:
        raise RuntimeError(f"{command[0]} cannot be started ({error.strerror})") from error
    with process:
        try:
            messages = process.communicate(timeout=seconds)[1]
            return process.returncode, messages
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)  # also the programs that the compiler has started
            if isinstance(error, subprocess.TimeoutExpired):
                raise RuntimeError(f"{command[0]} did not end within {seconds:g} s") from error
            raise


def _processor() -> str:
    """Description of the processor, on which -march=native depends: machines with different processors may share one cache."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    about = sorted({line for line in lines if line.startswith(("model", "flags", "Features", "CPU ", "cpu\t"))})
    return "".join([platform.system(), platform.machine(), platform.processor(), *about])
