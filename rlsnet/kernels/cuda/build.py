"""Build of the CUDA kernels: NVRTC compiles kernels.cu for the GPU, the C++ compiler handlers.cc, which starts them; both are cached.

On a CPU, the driver is that of emulation.cc. It runs the same source for tests, one CUDA thread after the other, and so very slowly.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import jax

from rlsnet.io import atomic
from rlsnet.kernels import build
from rlsnet.kernels.device import device_in_use

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
SOURCES = ("../arguments.h", "grid_barrier.h", "kernels.cu")
NAMES = tuple(f"{name}_{kind}" for name in ("steps", "deliver", "learn", "flush") for kind in ("f32", "f64"))
NVRTC = ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")


@functools.cache
def build_error(platform: str) -> str | None:
    """Builds and registers the kernels for a platform, once in a process; returns None, or the reason why that is impossible.

    platform: cpu (emulation) or gpu.
    """
    try:
        if platform == "cpu":
            log.warning("engine.kernels=cuda on a CPU emulates the kernels of a GPU. That is for tests, and slow.")
            _register(emulated_driver()[0], Path(os.devnull), ["-O2", "-DCUDA_EMULATION"], "cpu", 0)
        else:
            device = device_in_use()
            if "cuda" not in device.client.platform_version.lower():
                return f"the CUDA kernels need an NVIDIA GPU, and this is {device.device_kind}"
            known = device in jax.devices()  # otherwise it is one that is only compiled for
            kernels = compiled(f"sm_{device.compute_capability.replace('.', '')}")
            _register(Path("libcuda.so.1"), kernels, ["-O2"], "CUDA", device.local_hardware_id if known else None)
    except (OSError, RuntimeError) as error:
        return str(error)
    return None


def _register(driver: Path, kernels: Path, flags: list[str], platform: str, device: int | None) -> None:
    """Registers the handlers, with the driver's library and the file of the kernels for them.

    Raises:
      RuntimeError: they cannot be built, or the device (None: not asked) does not take the kernels.
    """
    _, handlers = build.load([FOLDER / "handlers.cc"], flags, about=_text("../arguments.h", "../ffi_arrays.h"))
    handlers.configure(str(driver).encode(), str(kernels).encode())
    handlers.refusal.restype = ctypes.c_char_p
    if device is not None and (refusal := handlers.refusal(device).decode()):
        raise RuntimeError(refusal)
    build.register(handlers, "rlsnet_cuda_", NAMES, platform)


def emulated_driver() -> tuple[Path, ctypes.CDLL]:
    """Library of the emulated driver and its path; its function skip_barrier(line) makes a barrier of kernels.cu do nothing, until line 0.

    Raises:
      RuntimeError: it cannot be built.
    """
    # longjmp between stacks is not what a fortified C library expects
    return build.load([FOLDER / "emulation.cc"], ["-O2", "-U_FORTIFY_SOURCE"], about=_text(*SOURCES, "emulation.h"))


def _text(*names: str) -> str:
    return "".join((FOLDER / name).read_text() for name in names)


def compiled(architecture: str) -> Path:
    """Path of the kernels for an architecture such as sm_90, compiled by the first NVRTC that knows it if they are not in the cache.

    Raises:
      RuntimeError: NVRTC is not found, or cannot compile them.
    """
    reason = "NVRTC is not found (libnvrtc.so, of the package nvidia-cuda-nvrtc or of CUDA in CUDA_HOME)"
    for nvrtc in _nvrtcs():
        major, minor = ctypes.c_int(), ctypes.c_int()
        nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        kernels = build.cached(f"{_text(*SOURCES)}{architecture} NVRTC {major.value}.{minor.value}", ".cubin")
        if atomic.is_private(kernels):
            return kernels
        log.info("Compiling kernels.cu for %s with NVRTC %d.%d, once.", architecture, major.value, minor.value)
        try:
            with atomic.replacing(kernels) as made:
                made.write_bytes(compile_with(nvrtc, architecture)[0])
                made.chmod(0o600)
            return kernels
        except RuntimeError as error:
            reason = str(error)
    raise RuntimeError(reason)


def _nvrtcs() -> Iterator[ctypes.CDLL]:
    """NVRTC from the packages of jax[cuda12] or jax[cuda13], from CUDA_HOME or CUDA_PATH, and where the loader finds it."""
    for candidate in _nvrtc_candidates():
        with contextlib.suppress(OSError):
            yield ctypes.CDLL(candidate)


def _nvrtc_candidates() -> Iterator[str]:
    packages = importlib.util.find_spec("nvidia")
    for root in packages.submodule_search_locations or () if packages else ():
        yield from sorted(map(str, Path(root).glob("*/lib/libnvrtc.so.*")), reverse=True)
    for home in filter(None, map(os.environ.get, ("CUDA_HOME", "CUDA_PATH"))):
        yield from (f"{home}/lib64/{name}" for name in NVRTC)
    yield from NVRTC


def compile_with(nvrtc: ctypes.CDLL, architecture: str, *options: str) -> tuple[bytes, str]:
    """The kernels as machine code for an architecture such as sm_90, and NVRTC's messages.

    Args:
      nvrtc: NVRTC's library.
      architecture: of the GPU.
      *options: of NVRTC, beside those that are always given.

    Raises:
      RuntimeError: with NVRTC's first error.
    """
    program = ctypes.c_void_p()

    def output(kind: str) -> bytes:
        size = ctypes.c_size_t()
        getattr(nvrtc, f"nvrtcGet{kind}Size")(program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        getattr(nvrtc, f"nvrtcGet{kind}")(program, text)
        return text.raw

    nvrtc.nvrtcCreateProgram(ctypes.byref(program), _text("kernels.cu").encode(), b"kernels.cu", 0, None, None)
    try:
        every = [f"--gpu-architecture={architecture}", "--std=c++17", "-lineinfo", f"--include-path={FOLDER}", *options]
        failed = nvrtc.nvrtcCompileProgram(program, len(every), (ctypes.c_char_p * len(every))(*map(str.encode, every)))
        messages = output("ProgramLog").decode(errors="replace").strip("\0")
        if failed:
            error = next((line for line in messages.splitlines() if "error" in line), "no message")
            raise RuntimeError(f"NVRTC cannot compile kernels.cu for {architecture}: {error}")
        return output("CUBIN"), messages
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
