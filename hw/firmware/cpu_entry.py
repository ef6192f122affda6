"""The processor state in which a boot protocol enters a kernel.

A value only: the vCPU glue copies it into the guest state. Segment attributes use the VMX access-rights layout (Intel
SDM vol. 3, table 25-2), which is descriptor bits 40 to 55: type 0-3, S 4, DPL 5-6, P 7, AVL 12, L 13, D/B 14, G 15.
"""

from collections.abc import Mapping
from dataclasses import dataclass

GPR_NAMES = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip
"""The general registers in the order of their encoding."""

CR0_PE = 1 << 0
CR0_ET = 1 << 4
CR0_NE = 1 << 5
CR0_WP = 1 << 16
CR0_PG = 1 << 31
CR4_PAE = 1 << 5
EFER_LME = 1 << 8
EFER_LMA = 1 << 10
RFLAGS_FIXED = 1 << 1

ATTR_DATA32 = 0xC093
"""Present, DPL 0, read/write data, accessed, 32-bit stack, limit in pages."""
ATTR_CODE32 = 0xC09B
"""Present, DPL 0, execute/read code, accessed, 32-bit, limit in pages."""
ATTR_CODE64 = 0xA09B
"""The same in 64-bit mode (L)."""
ATTR_TSS_BUSY = 0x008B
ATTR_LDT = 0x0082


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment register with its hidden part; `limit` is the last valid offset, in bytes."""

    selector: int
    base: int
    limit: int
    attr: int

    def descriptor(self) -> bytes:
        """The eight bytes in a descriptor table that load as this segment (SDM vol. 3, figure 3-8)."""
        limit = self.limit >> 12 if self.attr & 0x8000 else self.limit
        value = limit & 0xFFFF | (self.base & 0xFFFFFF) << 16 | self.attr << 40
        value |= (limit >> 16 & 0xF) << 48 | (self.base >> 24 & 0xFF) << 56
        return value.to_bytes(8, "little")


@dataclass(frozen=True, slots=True)
class DescriptorTable:
    base: int
    limit: int


@dataclass(frozen=True, slots=True)
class CpuEntry:
    """Everything that the protocol defines or that it must not leave to chance.

    `gpr` is indexed by register encoding (`GPR_NAMES`). Interrupts are off. What is not here (MSRs, x87, debug
    registers) has its value after reset.
    """

    gpr: tuple[int, ...]
    rip: int
    rflags: int
    cr0: int
    cr3: int
    cr4: int
    efer: int
    cs: Segment
    ds: Segment
    es: Segment
    fs: Segment
    gs: Segment
    ss: Segment
    tr: Segment
    ldtr: Segment
    gdtr: DescriptorTable
    idtr: DescriptorTable

    @property
    def long_mode(self) -> bool:
        return bool(self.efer & EFER_LMA)


NULL_LDT = Segment(0, 0, 0xFFFF, ATTR_LDT)
EMPTY_TSS = Segment(0, 0, 0xFFFF, ATTR_TSS_BUSY)
NO_IDT = DescriptorTable(0, 0)


def _gpr(values: Mapping[str, int]) -> tuple[int, ...]:
    unknown = set(values) - set(GPR_NAMES)
    assert not unknown, unknown
    return tuple(values.get(name, 0) for name in GPR_NAMES)


def protected_mode(
    rip: int, *, code: int, data: int, gdtr: DescriptorTable, tr: Segment = EMPTY_TSS, **gpr: int
) -> CpuEntry:
    """32-bit protected mode with flat 4 GiB segments of the selectors `code` and `data`, no paging."""
    cs = Segment(code, 0, 0xFFFF_FFFF, ATTR_CODE32)
    flat = Segment(data, 0, 0xFFFF_FFFF, ATTR_DATA32)
    return CpuEntry(
        gpr=_gpr(gpr), rip=rip, rflags=RFLAGS_FIXED, cr0=CR0_PE | CR0_ET, cr3=0, cr4=0, efer=0,
        cs=cs, ds=flat, es=flat, fs=flat, gs=flat, ss=flat, tr=tr, ldtr=NULL_LDT, gdtr=gdtr, idtr=NO_IDT,
    )  # fmt: skip


def long_mode(rip: int, *, cr3: int, code: int, data: int, gdtr: DescriptorTable, **gpr: int) -> CpuEntry:
    """64-bit mode under the page tables at `cr3`, with the selectors `code` and `data`."""
    cs = Segment(code, 0, 0xFFFF_FFFF, ATTR_CODE64)
    flat = Segment(data, 0, 0xFFFF_FFFF, ATTR_DATA32)
    return CpuEntry(
        gpr=_gpr(gpr), rip=rip, rflags=RFLAGS_FIXED,
        cr0=CR0_PG | CR0_PE | CR0_ET | CR0_NE | CR0_WP, cr3=cr3, cr4=CR4_PAE, efer=EFER_LME | EFER_LMA,
        cs=cs, ds=flat, es=flat, fs=flat, gs=flat, ss=flat,
        tr=EMPTY_TSS, ldtr=NULL_LDT, gdtr=gdtr, idtr=NO_IDT,
    )  # fmt: skip
