"""The native kernels: the library in the package that suits the processor, or one that the C++ compiler of the machine builds; in JAX.

The sources in cpu/ are compiled side by side, for one precision at a time, and stored in the cache.
"""

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
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import jax

from rlsnet.errors import joined
from rlsnet.io import atomic
from rlsnet.kernels import processors

log = logging.getLogger(__name__)


FOLDER = Path(__file__).parent
SOURCES = [FOLDER / "cpu" / name for name in ("simulation.cc", "learning.cc", "handlers.cc")]
PREBUILT = FOLDER / "prebuilt"  # in a wheel: a library for each of the processors in processors.py
FLAGS = ["-std=c++17", "-fPIC", "-w"]
X86_TUNING = ("-march=native -mprefer-vector-width=512", "-march=native", "")  # the first one that the compiler accepts is used
TUNING = X86_TUNING if processors.family() == processors.X86 else ("-mcpu=native", "-march=native", "")
COMPILE_SECONDS = 600  # a compilation takes some 5 s, on a busy machine several times that
RETRY_SECONDS = 24 * 3600  # after which a compiler that has failed is tried again, where another one has made a library
ANSWER_SECONDS = 30  # to compile an empty file takes a tenth of a second
KERNELS = ("steps", "deliver", "pack", "unpack", "learn", "flush")  # those that exist for each precision
KINDS = {"float32": "f32", "float64": "f64"}


class Kernels(NamedTuple):
    """Native kernels of a precision: which ones they are, in words, and why there are none, or None."""

    origin: str
    error: str | None


@functools.cache
def native(precision: str) -> Kernels:
    """Finds or builds the native kernels of a precision and registers them, once in a process.

    Those in the package come first, those for the best processor first, and then what the compiler makes for this processor.
    RLSNET_KERNELS=native leaves out those in the package; v2, v3, v4 or armv8-a choose a kind of processor.

    Args:
      precision: float32 or float64.
    """
    try:
        wanted = os.environ.get("RLSNET_KERNELS", "")
        kinds = choose(wanted)
        found = (origin for kind in kinds if (origin := _prebuilt(kind, precision)) is not None)
        origin = next(found, None) or _compiled(kinds[0] if wanted and kinds else None, precision)
    except (OSError, RuntimeError) as error:
        return Kernels("", str(error))
    log.info("Native kernels in %s: %s.", precision, origin)
    return Kernels(origin, None)


def choose(wanted: str) -> list[processors.Processor]:
    """Processors whose kernels may be used here, the best first, for a value of RLSNET_KERNELS; raises RuntimeError if it chooses none."""
    family = processors.family()
    if wanted == "native":
        return []
    if not wanted:
        return processors.here()
    chosen = [kind for kind in family if kind.name == wanted]
    if not chosen:
        raise RuntimeError(f"RLSNET_KERNELS={wanted}: expected {', '.join(kind.name for kind in family)} or native")
    if missing := chosen[0].features - processors.features():
        raise RuntimeError(f"RLSNET_KERNELS={wanted}: this processor does not have {', '.join(sorted(missing))}")
    return chosen


def _prebuilt(kind: processors.Processor, precision: str) -> str | None:
    """Registers the library in the package for a kind of processor; returns its description, or None if it is missing or unusable."""
    path = PREBUILT / f"{kind.name}.so"
    if not path.exists():
        return None
    try:
        register(ctypes.CDLL(str(path)), "rlsnet_", names(precision), "cpu")
    except (OSError, RuntimeError, AttributeError) as error:  # for example, this version of XLA does not take it
        log.info("The native kernels in the package cannot be used: %s", str(error).partition("\n")[0])
        return None
    return f"{kind.march}, of the package"


def _compiled(kind: processors.Processor | None, precision: str) -> str:
    """Builds and registers the library for a kind of processor (None: this very one); returns its description."""
    flags = [*processors.FAST, f"-DRLSNET_{KINDS[precision].upper()}"]
    _, library = load(SOURCES, flags, TUNING if kind is None else (kind.flags,), headers() + _processor())
    register(library, "rlsnet_", names(precision), "cpu")
    return f"compiled here for {'this processor' if kind is None else kind.march}"


def names(precision: str) -> list[str]:
    """Names of the handlers of a precision, in the library and, with a prefix, in JAX; those of normal numbers exist in float32 only."""
    return [f"{kernel}_{KINDS[precision]}" for kernel in (*KERNELS, *["normal"] * (precision == "float32"))]


def register(library: ctypes.CDLL, prefix: str, names: Iterable[str], platform_: str) -> None:
    """Registers handlers of a library in JAX, under their names with a prefix, for a platform of XLA: cpu or CUDA."""
    jax.devices()  # before a device exists, JAX would accept any handler
    for name in names:
        jax.ffi.register_ffi_target(f"{prefix}{name}", jax.ffi.pycapsule(getattr(library, name)), platform=platform_)


def load(sources: Sequence[Path], flags: Iterable[str], tuning: Iterable[str] = ("",), about: str = "") -> tuple[Path, ctypes.CDLL]:
    """Shared library of some sources from the cache, and its path; it is built if it is missing or damaged.

    If a new library cannot be loaded either, for example in a folder mounted noexec, a mark is written beside it: later starts try to
    load it, but do not build it again.

    Args:
      sources: files in C++, which are compiled side by side.
      flags: of the compiler, beside FLAGS.
      tuning: further flags, of which the first that the compiler accepts are used.
      about: all else on which the library depends, such as the processor, or sources that are included.

    Raises:
      RuntimeError: the library cannot be built or loaded.
    """
    path = _build(sources, list(flags), tuple(tuning), about)
    mark = path.with_suffix(".unloadable")
    with contextlib.suppress(OSError):
        return path, ctypes.CDLL(str(path))
    if not mark.exists():
        path.unlink()
        path = _build(sources, list(flags), tuple(tuning), about)
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
    return atomic.cache_of_programs("kernels") / f"{_hash(about)}{suffix}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _build(sources: Sequence[Path], flags: list[str], tuning: tuple[str, ...], about: str) -> Path:
    """Path of the shared library for this jaxlib, compiled if it is not in the cache; raises RuntimeError.

    The name of the file has two parts: what is compiled, and by which compiler with which tuning. Each start prefers the first compiler
    and tuning again. Where none of them can do it, the newest library of another compiler or tuning serves: on nodes of a cluster without
    a compiler, and for a day after a compilation has failed.
    """
    what = cached("".join([*[source.read_text() for source in sources], *FLAGS, *flags, *tuning, metadata.version("jaxlib"), about]), "")
    reason = "no C++ compiler is found (c++, g++, clang++ or the value of CXX)"
    for compiler in _compilers():
        try:
            version = _version(compiler)
            for more in tuning:
                library = what.with_name(f"{what.name}-{_hash(' '.join([*compiler, version, more]))}.so")
                if atomic.is_private(library):
                    return library
                options = [*FLAGS, *flags, *more.split()]
                try:
                    _answer([*compiler, *options, "-fsyntax-only", "-x", "c++", os.devnull])
                except Refused as error:
                    reason = f"{compiler[0]} does not accept the flags {' '.join(options)}: {error}"
                    continue
                if (refusal := atomic.refusal(library.parent)) is not None:
                    raise RuntimeError(f"{library.parent} cannot be written to ({refusal}); RLSNET_CACHE=FOLDER names another cache")
                failed = library.with_suffix(".failed")
                if failed.exists() and time.time() - failed.stat().st_mtime < RETRY_SECONDS and (other := _newest(what)):
                    return other
                try:
                    _compile(compiler, options, sources, library)
                except RuntimeError:
                    failed.touch()
                    raise
                return library
        except RuntimeError as error:
            reason = str(error)
    if (other := _newest(what)) is None:
        raise RuntimeError(reason)
    return other


def _newest(what: Path) -> Path | None:
    """The newest library in the cache of any compiler and tuning."""
    found = [path for path in what.parent.glob(f"{what.name}-*.so") if atomic.is_private(path)]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


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


class Refused(RuntimeError):
    """A compiler has ended with an error."""


def _version(compiler: list[str]) -> str:
    """Version of a compiler in its own words; empty if it does not tell. Raises RuntimeError if it does not answer."""
    with contextlib.suppress(Refused):
        return _answer([*compiler, "--version"])
    return ""


def _answer(command: list[str]) -> str:
    """What a compiler prints; raises Refused with its first error, and RuntimeError if it does not answer."""
    status, printed, messages = _run([command], ANSWER_SECONDS)
    if status:
        raise Refused(_error(status, messages))
    return printed


def _compile(compiler: list[str], options: list[str], sources: Sequence[Path], library: Path) -> None:
    """Compiles sources, side by side, into a shared library in the cache; raises RuntimeError."""
    names = joined(source.name for source in sources)
    log.info("Compiling %s with %s, once.", names, compiler[0])
    began = time.monotonic()
    with atomic.replacing(library) as made, tempfile.TemporaryDirectory() as folder:
        objects = [str(Path(folder) / f"{i}.o") for i in range(len(sources))]
        command = [*compiler, *options, f"-I{jax.ffi.include_dir()}"]
        compilations = [[*command, "-c", str(source), "-o", path] for source, path in zip(sources, objects, strict=True)]
        for commands in (compilations, [[*compiler, *options, "-shared", *objects, "-o", str(made)]]):
            status, _, messages = _run(commands, COMPILE_SECONDS)
            if status:
                raise RuntimeError(f"{compiler[0]} cannot compile {names}: {_error(status, messages)}")
        made.chmod(0o700)
    log.info("Compiled in %.1f s.", time.monotonic() - began)


def _error(status: int, messages: str) -> str:
    """First message of a compiler about an error, or its exit status."""
    return next((line for line in messages.splitlines() if "error" in line), f"exit status {status}")


def _run(commands: Sequence[list[str]], seconds: float) -> tuple[int, str, str]:
    """Runs commands of a compiler at the same time.

    Returns:
      (exit status, output, messages): the first exit status that is not 0, or 0; what all of them print.

    Raises:
      RuntimeError: they take longer, or cannot be started.
    """
    began = time.monotonic()
    running: list[subprocess.Popen[str]] = []
    try:
        for command in commands:
            running.append(
                subprocess.Popen(
                    command,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                    env={**os.environ, "LC_ALL": "C"},
                    start_new_session=True,
                )
            )
        printed = [process.communicate(timeout=max(0.0, began + seconds - time.monotonic())) for process in running]
    except BaseException as error:
        for process in running:
            with process, contextlib.suppress(OSError):  # it may have ended
                os.killpg(process.pid, signal.SIGKILL)  # also the programs that the compiler has started
        if isinstance(error, subprocess.TimeoutExpired):
            raise RuntimeError(f"{commands[0][0]} did not end within {seconds:g} s") from error
        if isinstance(error, OSError):
            raise RuntimeError(f"{commands[0][0]} cannot be started ({error.strerror})") from error
        raise
    status = next((process.returncode for process in running if process.returncode), 0)
    return status, "".join(output for output, _ in printed), "".join(messages for _, messages in printed)


def _processor() -> str:
    """Description of the processor, on which -march=native depends: machines with different processors may share one cache."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    about = sorted({line for line in lines if line.startswith(("model", "flags", "Features", "CPU ", "cpu\t"))})
    return "".join([platform.system(), platform.machine(), platform.processor(), *about])
