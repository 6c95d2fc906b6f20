"""Several processes that compute one network together, on one or many computers, connected by jax.distributed.

All processes compute the same program, each for the devices that it has. The first one alone reads the command line and writes files; it
tells the others what to compute.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from rlsnet.config.schema import EngineConfig
from rlsnet.errors import UserError

START_SECONDS = 120  # that the processes have to find each other
LOST_SECONDS = 60  # without a sign of life, after which a process is lost
FIRST_SECONDS = 2  # that the first process ends later than the others
LOST = "Gloo|NCCL|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED"  # in errors of JAX, where another process does not answer
SLURM = "slurm"  # engine.coordinator for processes that srun has started


def numbered(engine: EngineConfig) -> tuple[int, int]:
    """(number of this process, number of processes) by the settings, or by what srun says.

    Raises:
      UserError: they are missing, or do not go together.
    """
    count, number = engine.processes, engine.process
    if engine.coordinator == SLURM:
        names = "SLURM_NTASKS", "SLURM_PROCID"
        if not all(name in os.environ for name in names):
            raise UserError("engine.coordinator=slurm: this process was not started by srun; expected srun rlsnet ..., within a SLURM job.")
        count, number = (int(os.environ[name]) for name in names)
    elif engine.coordinator is None or not re.fullmatch(r"\[?[\w.:-]+\]?:\d{1,5}", engine.coordinator):
        raise UserError(f"engine.coordinator={engine.coordinator}: expected HOST:PORT, such as localhost:8476, or slurm.")
    if count is None or number is None:
        raise UserError(f"engine.coordinator={engine.coordinator}: expected engine.processes and engine.process too, or slurm.")
    if not number < count:
        raise UserError(f"engine.process={number}: expected a number from 0 to {count - 1}, as engine.processes={count}.")
    return number, count


def without_team(engine: EngineConfig) -> EngineConfig:
    """The settings without those that name this process and the others."""
    return dataclasses.replace(engine, coordinator=None, processes=None, process=None)


def _join(engine: EngineConfig, clean_up: Callable[[], None]) -> None:
    """Connects this process with the others, before it uses JAX; arguments and errors as of `together`.

    If the others do not come, the process ends after one line: JAX would abort it with many.
    """
    own, total = numbered(engine)
    settings: dict[str, Any] = {"initialization_timeout": 2 * START_SECONDS, "heartbeat_timeout_seconds": LOST_SECONDS}
    if engine.coordinator != SLURM:
        address = {"coordinator_address": engine.coordinator, "num_processes": total, "process_id": own}
        settings |= address | {"cluster_detection_method": "deactivate"}
    elif len(os.environ.get("CUDA_VISIBLE_DEVICES", ",").split(",")) == 1:
        settings["local_device_ids"] = [0]  # the only GPU that this process sees, where JAX would take that of SLURM_LOCALID
    if engine.platform == "cpu":
        jax.config.update("jax_platforms", "cpu")
    if engine.devices is not None and engine.devices > total:
        jax.config.update("jax_num_cpu_devices", engine.devices // total)
    _Team.number = own
    on_term = signal.getsignal(signal.SIGTERM)
    error = UserError(f"engine.coordinator={engine.coordinator}: not all of {total} processes have connected in {START_SECONDS:g} s.")
    waiting = threading.Timer(START_SECONDS, _end, (error, clean_up))
    waiting.daemon = True
    waiting.start()
    try:
        jax.distributed.initialize(**settings)
    except (RuntimeError, ValueError) as failed:
        words = " ".join(str(failed).split())
        raise UserError(f"engine.coordinator={engine.coordinator}: process {own} of {total} found no connection ({words}).") from failed
    finally:
        waiting.cancel()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_term)  # JAX has taken it
    _Team.count = total


class _Team:
    """The processes that are connected."""

    number, count = 0, 1


def count() -> int:
    """Number of processes that compute the network."""
    return _Team.count


def several() -> bool:
    """Whether other processes compute the same network."""
    return _Team.count > 1


def number() -> int:
    """Number of this process; process 0 is the first one, which writes files."""
    return _Team.number


def tell(message: dict[str, Any] | None) -> dict[str, Any]:
    """The message of the first process, in all of them; the others give None."""
    text = json.dumps(message).encode()
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    content = np.zeros(length, np.uint8)
    if message is not None:
        content[:] = np.frombuffer(text, np.uint8)
    return dict(json.loads(np.asarray(multihost_utils.broadcast_one_to_all(content)).tobytes()))


def largest(value: int) -> int:
    """The largest of the values of all processes; each waits for the others."""
    return int(np.max(multihost_utils.process_allgather(np.int32(value)))) if several() else value


@contextlib.contextmanager
def agreed(what: str) -> Iterator[None]:
    """Context at whose end each process knows whether all of them were successful; `what` they do, for the message.

    Raises:
      UserError: another process had an error; its own message tells which.
    """
    try:
        yield
    except BaseException:
        largest(1)
        raise
    if largest(0):
        raise UserError(f"another process could not {what}; its own message says why.")


@contextlib.contextmanager
def together(engine: EngineConfig, clean_up: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Context in which several processes are connected. After an error this process ends at once, as the others may wait for it.

    Args:
      engine: the section engine.
      clean_up: called before this process ends because of an error.

    Raises:
      UserError: the settings do not go together, or the processes did not find each other.
    """
    _join(engine, clean_up)
    try:
        yield
    except BaseException as error:
        _end(error, clean_up)
    _Team.number, _Team.count = 0, 1
    jax.distributed.shutdown()


def _end(error: BaseException, clean_up: Callable[[], None]) -> None:
    """Ends the process after one line about an error; nothing waits for other processes, which may not answer."""
    with contextlib.suppress(Exception):
        clean_up()
    if _Team.number == 0 and several():
        time.sleep(FIRST_SECONDS)  # it connects the others, which JAX would abort
    words = "interrupted." if isinstance(error, KeyboardInterrupt) else " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in words:
        words = f"out of memory ({words[:200]})."
    elif isinstance(error, jax.errors.JaxRuntimeError | ValueError) and re.search(LOST, words):
        words = f"another process of this run has ended or does not answer; the run continues from its last checkpoint ({words[:200]})."
    elif not isinstance(error, UserError | OSError | KeyboardInterrupt):
        traceback.print_exception(error)
    print(f"rlsnet: error: process {_Team.number}: {words}", file=sys.stderr, flush=True)
    os._exit(130 if isinstance(error, KeyboardInterrupt) else 1)
