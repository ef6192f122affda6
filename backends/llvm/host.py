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
    """LLVM's CPU name, its feature string for the target machine, and the features that are on."""

    cpu: str
    features: str
    on: frozenset[str]

    @property
    def avx(self) -> bool:
        return "avx" in self.on


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
    text = ",".join(("+" if name in on else "-") + name for name in sorted(known))
    return Host(llvm.get_host_cpu_name(), text, on)


def target_machine(opt: int = 2) -> Any:
    """A new target machine for absolute code (hosts patch addresses); not shared between threads."""
    initialize()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=host().cpu, features=host().features, opt=opt, reloc="static", codemodel="small"
    )
