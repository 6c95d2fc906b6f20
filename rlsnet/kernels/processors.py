"""Processors for which the wheel has native kernels: what they need, and flags of the compiler.

CMakeLists.txt runs this file to learn the flags, so it imports the standard library alone.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import platform
import sys
from pathlib import Path

FAST = "-O3 -ffp-contract=fast -fno-math-errno -fno-trapping-math -fno-signed-zeros".split()

V2 = frozenset("cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3".split())
V3 = V2 | set("abm avx avx2 bmi1 bmi2 f16c fma movbe".split())
V4 = V3 | set("avx512f avx512bw avx512cd avx512dq avx512vl".split())


@dataclasses.dataclass(frozen=True)
class Processor:
    """A kind of processor.

    march: its name for compilers, as in -march=x86-64-v3.
    features: what it has beyond the first ones of its family, in the words of /proc/cpuinfo.
    more: further flags of the compiler.
    """

    march: str
    features: frozenset[str] = frozenset()
    more: str = ""

    @property
    def name(self) -> str:
        """Short name, as in RLSNET_KERNELS=v3."""
        return self.march.removeprefix("x86-64-")

    @property
    def flags(self) -> str:
        """Flags of the compiler."""
        return f"-march={self.march} {self.more}".strip()


X86 = Processor("x86-64-v4", V4, "-mprefer-vector-width=512"), Processor("x86-64-v3", V3), Processor("x86-64-v2", V2)
ARM = (Processor("armv8-a"),)
FAMILIES = {"x86_64": X86, "amd64": X86, "aarch64": ARM, "arm64": ARM}  # by platform.machine() in small letters; the best ones first


def family(machine: str | None = None) -> tuple[Processor, ...]:
    """Kinds of processors of a machine (default: this one), the best ones first."""
    return FAMILIES.get((machine or platform.machine()).lower(), ())


def features() -> frozenset[str]:
    """Features of this processor in the words of Linux; empty on other systems, and where they have another name than `flags`."""
    try:
        with open("/proc/cpuinfo") as file:
            return frozenset(next((line.partition(":")[2].split() for line in file if line.startswith("flags")), ()))
    except OSError:
        return frozenset()


def here() -> list[Processor]:
    """Kinds of processors whose kernels run on this one, the best first."""
    known = features()
    return [kind for kind in family() if kind.features <= known]


def main() -> None:
    """Prints the folder of XLA's headers and, for each processor of the family of an argument, its name and the compiler's flags."""
    jaxlib = importlib.util.find_spec("jaxlib")
    if jaxlib is None or jaxlib.origin is None:
        sys.exit("jaxlib, which has the headers of XLA, is not installed")
    print(Path(jaxlib.origin).parent / "include")
    for processor in family(sys.argv[1]):
        print(processor.name, *FAST, processor.flags)


if __name__ == "__main__":
    main()
