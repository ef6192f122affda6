"""One x86 vCPU over 4 KiB pages, without devices: what the micro benchmarks run small programs on.

A program is assembled at CODE, runs in 64-bit mode at CPL 0 and ends with HLT. Every page of RAM is mapped at its
physical address; at MMIO no RAM is behind.
"""

import ctypes
from collections.abc import Callable

import keystone

from backends.llvm.gates import fixed_stencils
from backends.llvm.stencils import StencilCompiler
from frontends.x86.frontend import X86Frontend
from frontends.x86.recipe import RUNTIME
from frontends.x86.state import STATE
from hw.firmware.cpu_entry import DescriptorTable, long_mode
from tcg.cli.x86_state import enter_kernel
from tcg.exec.machine import NativeMachine
from tcg.exec.memory_map import Mapping
from tcg.exec.translate import Translator
from tcg.exec.vcpu import VCpu
from tcg.opt.pipeline import optimize
from tcg.runtime.layout import CPU, PAGE_SIZE, STATS, TLB_MAX_ENTRIES, Callback, ExitReason
from tcg.runtime.object import load
from tcg.runtime.struct import View

RAM_SIZE = 2 * TLB_MAX_ENTRIES * PAGE_SIZE  # twice what the largest TLB reaches
CODE = 0x200000
MMIO = 0xFEB00000
_PML4, _PDPT, _LOW_DIRECTORY, _HIGH_DIRECTORY, _PAGE_TABLES = 0x1000, 0x2000, 0x3000, 0x4000, 0x10000
_PRESENT = 0x63  # present, writable, accessed, dirty
_LARGE = 0x80


def assemble(text: str, gva: int = CODE) -> bytes:
    """Intel syntax to machine code."""
    code, _count = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64).asm(text, gva)
    return bytes(code)


class MicroGuest:
    """See the module. Ports and MMIO read as 0 unless `vcpu.handlers` says otherwise."""

    def __init__(self) -> None:
        self.machine = NativeMachine(load(RUNTIME), 64 << 20)
        self.vcpu = VCpu(self.machine, STATE)
        self._ram = Mapping(RAM_SIZE)
        self.machine.set_ram([(0, RAM_SIZE, self._ram.hva, False)])
        for name, stencil in fixed_stencils(StencilCompiler()).items():
            self.machine.tables.set_fixed(name, stencil)
        self.translator = Translator(X86Frontend(), self.machine.tables, StencilCompiler, optimize)
        self.vcpu.handlers.update(dict.fromkeys(Callback, lambda _a, _b, _c: 0))
        self.vcpu.handlers[Callback.PATTERN_MISS] = self._pattern_miss
        self.vcpu.handlers[Callback.STENCIL_MISS] = self._stencil_miss
        self._exec: Callable[[int], int] = self.machine.runtime.function("cpu_exec", 1)
        self._map()

    def _pattern_miss(self, hva: int, size: int, pc: int) -> int:
        return 1 if self.translator.miss(ctypes.string_at(hva, size), pc, self.vcpu.env.get("mode")) else 2

    def _stencil_miss(self, hva: int, count: int, _c: int) -> int:
        self.translator.stencils(self.machine.tables.missing(hva, count))
        return 1

    def _entry(self, table: int, index: int, value: int) -> None:
        self.write(table + 8 * index, value.to_bytes(8, "little"))

    def _map(self) -> None:
        self._entry(_PML4, 0, _PDPT | _PRESENT)
        self._entry(_PDPT, 0, _LOW_DIRECTORY | _PRESENT)
        self._entry(_PDPT, MMIO >> 30, _HIGH_DIRECTORY | _PRESENT)
        self._entry(_HIGH_DIRECTORY, MMIO >> 21 & 511, MMIO & -0x200000 | _PRESENT | _LARGE)
        for n in range(RAM_SIZE >> 21):
            self._entry(_LOW_DIRECTORY, n, _PAGE_TABLES + n * PAGE_SIZE | _PRESENT)
        for n in range(RAM_SIZE >> 12):
            self._entry(_PAGE_TABLES, n, n * PAGE_SIZE | _PRESENT)

    def write(self, gpa: int, data: bytes) -> None:
        self._ram.view[gpa : gpa + len(data)] = data

    def load(self, code: bytes) -> None:
        """Put a program at CODE; what was translated is forgotten."""
        self.write(CODE, code)
        self.machine.flush()

    def enter(self) -> None:
        """Put the vCPU at CODE."""
        gdtr = DescriptorTable(0, 0)
        enter_kernel(self.vcpu, long_mode(CODE, cr3=_PML4, code=0x10, data=0x18, gdtr=gdtr, rsp=0x1FF000))

    def run(self) -> None:
        """From where the vCPU is to the next HLT."""
        reason = self._exec(self.vcpu.env.address)
        if self.vcpu.error is not None:
            raise self.vcpu.error
        assert reason == ExitReason.HALT, ExitReason(reason)

    def stat(self, name: str) -> int:
        """One of the run-time's counters (tcg.runtime.layout.STATS)."""
        return View(STATS, self.vcpu.cpu.address + CPU.offset("stats")).get(name)
