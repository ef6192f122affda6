"""The host CPU as LLVM sees it: target machine, feature names, and the one-time initialisation of the target.

Inline asm (every FP op) needs the asm parser. Code is built for the host's own CPU, but without AVX-512: 128-bit lanes
gain little from it and the EVEX forms are longer.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import llvmlite.binding as llvm

_DROPPED = ("avx512f", "avx10.1-256", "avx10.1-512", "avx10.1", "evex512", "egpr", "ndd", "ppx", "nf", "zu")


@dataclass(frozen=True, slots=True)
class Host:
    """LLVM's CPU name, all features it knows of this CPU, and those of them that code may use."""

    cpu: str
    known: tuple[str, ...]
    on: frozenset[str]

    @property
    def avx(self) -> bool:
        return "avx" in self.on

    @property
    def features(self) -> str:
        return ",".join(("+" if name in self.on else "-") + name for name in self.known)

    def sse_only(self) -> "Host":
        """The same host as if it had no VEX encodings (for tests of what such hosts run)."""
        vex = {"avx", "avx2", "fma", "f16c", "fma4", "xop", "vaes", "vpclmulqdq", "bmi2", "gfni"}
        return Host(self.cpu, self.known, frozenset(n for n in self.on - vex if not n.startswith("avx")))


@cache
def initialize() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()


@cache
def host() -> Host:
    initialize()
    known = llvm.get_host_cpu_features()
    on = frozenset(name for name, have in known.items() if have and not name.startswith("avx512")) - set(_DROPPED)
    return Host(llvm.get_host_cpu_name(), tuple(sorted(known)), on)


def target_machine(opt: int = 2, target: Host | None = None) -> Any:
    """A new target machine for absolute code (hosts patch addresses); not shared between threads."""
    initialize()
    target = target or host()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=target.cpu, features=target.features, opt=opt, reloc="static", codemodel="small"
    )
