"""What an iteration compiles to for a GPU, without one: pytest -m aot. scripts/gpu/ahead_of_time.py lists the packages that this needs.

A form of engine.kernels has an entry in FORMS with its limits, the operations measured when they were written and a few more.
"""

import dataclasses
import functools
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "gpu"))
import ahead_of_time  # noqa: E402

from rlsnet.kernels import device  # noqa: E402
from rlsnet.kernels.cuda import build as cuda_build  # noqa: E402

pytestmark = pytest.mark.aot
NETWORK = ("config=tiny", "plastic.n_inputs=128")  # P is much larger than all other arrays


@dataclasses.dataclass(frozen=True)
class Limits:
    """The most operations (kernels, copies, custom calls) that are allowed.

    interval: in a learning interval with all its steps and one update.
    step: in a time step; None: no loop over steps.
    custom_call: whether an interval has custom calls.
    """

    interval: int
    step: int | None
    custom_call: bool = False


FORMS = {"fixed_shape": Limits(interval=950, step=9), "cuda": Limits(interval=25, step=None, custom_call=True)}


@functools.cache
def compiled(kernels: str, *more: str) -> ahead_of_time.Summary:
    device.restrict_to_cpu()
    return ahead_of_time.summary(*NETWORK, f"engine.kernels={kernels}", *more)


@pytest.mark.parametrize("kernels", FORMS)
def test_P_and_w_change_in_place_and_are_not_copied(kernels):
    found = compiled(kernels)
    assert found.backend.startswith(f"{kernels}, ")
    assert found.in_place == ("w", "P.numbers")
    pending = found.P * 15 // 128  # up to 15 vectors for each P of 128 rows; XLA keeps them twice
    assert found.memory["temporary"] < 2 * pending + 2**20


@pytest.mark.parametrize("kernels", FORMS)
def test_operations_of_an_interval_and_of_a_step(kernels):
    interval, limits = compiled(kernels).interval, FORMS[kernels]
    steps = interval.find(ahead_of_time.STEPS)
    assert interval.total <= limits.interval
    assert (steps is None) == (limits.step is None)
    if steps is not None:
        assert steps.turns == 10
        assert steps.started <= limits.step
    assert limits.custom_call == any(loop.custom_calls for loop in interval.loops())


@pytest.mark.parametrize(
    "more", [(), ("rls.every=3", "train.trials_per_update=4", "feedforward=ou", "noise.sigma=0.3")], ids=["default", "rich"]
)
def test_the_host_waits_for_nothing_within_an_iteration(more):
    """With the CUDA kernels; XLA's form asks the GPU in each interval whether spikes overflowed."""
    loops = list(compiled("cuda", *more).program.loops())
    assert len(loops) > 1 and all(loop.turns is not None for loop in loops)


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
def test_kernels_compile_without_more_than_a_few_registers_in_memory(record_check, architecture):
    """NVRTC, and what its assembler says of each kernel, whose registers decide how many threads a processor runs at once."""
    code, messages = cuda_build.compile_with(next(cuda_build._nvrtcs()), architecture, "--ptxas-options=-v")
    kernels = re.findall(r"entry function '(\w+)'.*?(\d+) bytes spill stores.*?Used (\d+) registers", messages, re.DOTALL)
    single = [(int(spilled), int(registers)) for name, spilled, registers in kernels if "f32" in name]
    spilled, registers = max(spilled for spilled, _ in single), max(registers for _, registers in single)
    seen = f"{len(kernels)} kernels of {len(code) // 1024} KiB; in float32 at most {registers} registers and {spilled} bytes spilled"
    record_check("CUDA kernels, compiled by NVRTC", architecture, "float32: at most 64 registers, 64 bytes spilled", seen)
    assert len(kernels) == 6 + 3 * 5 and len(single) == 12 and registers <= 64 and spilled <= 64


def test_an_architecture_that_nvrtc_does_not_know_is_an_error_in_one_line():
    with pytest.raises(RuntimeError, match="^NVRTC cannot compile kernels.cu for sm_1: .*error.*$"):
        cuda_build.compiled("sm_1")
