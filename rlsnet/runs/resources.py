"""Use of processor, memory and GPUs during a run, sampled by a thread and stored in resources.jsonl."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import platform
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from rlsnet.runs.memory_plan import free_memory
from rlsnet.runs.metrics import append_line, n_written, read_lines

log = logging.getLogger(__name__)

LAST_SAMPLE_SECONDS = 5.0  # at most, at the end of a run
GPU_READINGS: dict[str, Callable[[Any, Any], float]] = {
    "gpu_percent": lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
    "gpu_memory_mb": lambda nvml, gpu: _mb(nvml.nvmlDeviceGetMemoryInfo(gpu).used),
    "gpu_power_w": lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
}


def _mb(size: float) -> float:
    """A number of bytes in MB."""
    return round(size / 1e6, 1)


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists() and (match := re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)):
        return int(match[1]) * 1024
    if (peak := getattr(psutil.Process().memory_info(), "peak_wset", None)) is not None:  # Windows
        return int(peak)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def machine() -> dict[str, str | int]:
    """Description of the computer: system, processor, cores that this process may use, bytes of memory."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processor = names[0] if names else platform.processor() or platform.machine()
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": processor,
        "cores": cores,
        "memory": psutil.virtual_memory().total,
    }


class _Gpus:
    """NVIDIA GPUs that this process may use, through nvidia-ml-py; none without that package or the driver."""

    def __init__(self) -> None:
        self.nvml: Any = None
        self.handles: list[Any] = []
        with contextlib.suppress(Exception):  # no package, no driver, no permission
            import pynvml as nvml

            nvml.nvmlInit()
            self.nvml = nvml
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            names = map(str, range(nvml.nvmlDeviceGetCount())) if visible is None else visible.split(",")
            for name in map(str.strip, names):
                with contextlib.suppress(nvml.NVMLError):  # -1, "", an abbreviation: not a device of that name
                    by_index = name.isdecimal()
                    self.handles.append(nvml.nvmlDeviceGetHandleByIndex(int(name)) if by_index else nvml.nvmlDeviceGetHandleByUUID(name))

    def sample(self) -> dict[str, list[float]]:
        """Readings by name, one value for each device; readings that the devices do not support are left out."""
        found: dict[str, list[float]] = {}
        for name, reading in GPU_READINGS.items() if self.handles else ():
            with contextlib.suppress(self.nvml.NVMLError):  # not supported by this device
                found[name] = [reading(self.nvml, gpu) for gpu in self.handles]
        return found

    def close(self) -> None:
        """Closes the connection to the driver."""
        if self.nvml is not None:
            self.nvml.nvmlShutdown()


class Sampler:
    """Adds lines to resources.jsonl at regular intervals during its context, and one at the end.

    An error ends the sampling with a warning in the log; the run continues. A line holds: time (UTC); the command, as verb; the iteration;
    cpu_percent (of this process since the line before, 100 is one core); memory_mb and memory_peak_mb (resident); threads;
    system_cpu_percent (100 is all cores); system_free_mb (memory available within the limits of a container); and, with one value for
    each device, gpu_percent, gpu_memory_mb and gpu_power_w. Unknown values are left out.
    """

    def __init__(self, path: Path, every: float, command: str, iteration: Callable[[], int | None]):
        """Sampler that starts with its context.

        Args:
          path: path of the file.
          every: s between two lines; 0: no lines.
          command: train, simulate or test.
          iteration: returns the current iteration, or None.
        """
        self.path, self.every, self.command, self.iteration = path, every, command, iteration
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="resources", daemon=True)

    def __enter__(self) -> Sampler:
        if self.every:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        if self.every:
            self._thread.join(LAST_SAMPLE_SECONDS)

    def _run(self) -> None:
        try:
            process, gpus = psutil.Process(), _Gpus()
            process.cpu_percent(), psutil.cpu_percent()  # both measure since their last call
            while not self._over.wait(self.every):
                self._write(process, gpus)
            self._write(process, gpus)
            gpus.close()
        except Exception as failed:
            log.warning("%s: sampling ends here (%s); the run goes on.", self.path, " ".join(str(failed).split()) or type(failed).__name__)

    def _write(self, process: psutil.Process, gpus: _Gpus) -> None:
        """Adds one line, which is in the file when this returns."""
        iteration = self.iteration()
        line = {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "verb": self.command,
            **({} if iteration is None else {"iteration": iteration}),
            "cpu_percent": process.cpu_percent(),
            "memory_mb": _mb(process.memory_info().rss),
            "memory_peak_mb": _mb(peak_memory()),
            "threads": process.num_threads(),
            "system_cpu_percent": psutil.cpu_percent(),
            "system_free_mb": _mb(free_memory()),
            **gpus.sample(),
        }
        append_line(self.path, line)


def _is_reading(name: str, value: Any) -> bool:
    """Whether a value of a line has the type that `Sampler` writes."""
    values = value if name in GPU_READINGS and isinstance(value, list) else [value]
    return all(isinstance(each, str if name in ("time", "verb") else int | float) for each in values)


def read(path: Path) -> list[dict[str, Any]]:
    """Lines of a resources.jsonl; damaged lines are left out with a warning."""
    lines, damaged = [], []
    for number, line in read_lines(path):
        if isinstance(line, dict) and "memory_peak_mb" in line and all(_is_reading(*each) for each in line.items()):
            lines.append(line)
        else:
            damaged.append(number)
    if damaged:
        log.warning("%s: %d damaged lines are left out, the first is line %d.", path, len(damaged), damaged[0])
    if (lost := n_written(path) - len(lines) - len(damaged)) > 0:
        log.warning("%s: is damaged: %d of its lines are missing.", path, lost)
    return lines
