"""Every struct that native code and Python both touch, declared once. See `struct` for how offsets are derived.

Env is one vCPU's state, pinned in a host register while JIT code runs: this common part first, the guest's own part
(`frontends/<guest>/state`) from GUEST_BASE on. Env is at most ENV_LIMIT bytes so that a register hole is a short one.
"""

from enum import IntEnum

from tcg.runtime.struct import Struct, field

GUEST_BASE = 1024
ENV_LIMIT = 65536

ENV = Struct(
    "Env",
    field("exit_request", 4, "tested by every block head: nonzero leaves JIT code (interrupt, stop, async work)"),
    field("exception", 4, "nonzero: a helper wants the block left now (guest exception pending or exit_reason set)"),
    field("pc", 8, "guest pc; valid outside JIT code and in helpers that may fault"),
    field("tlb_mask", 8, "of the current mmu index's TLB: (entries - 1) * 32"),
    field("tlb_table", 8, "hva of the current mmu index's TLB"),
    field("jc_table", 8, "hva of the current jump cache (JC_ENTRIES entries of JC_ENTRY)"),
    field("exit_slot", 8, "hva of the EXIT_SLOT that left JIT code unchained, or 0"),
    field("exit_reason", 4, "an ExitReason, why JIT code came back"),
    field("exception_index", 4, "guest vector of the pending exception"),
    field("error_code", 8, "of the pending exception"),
    field("fault_gva", 8, "address of the pending memory fault"),
    field("host_mxcsr", 4, "x86-64 host: MXCSR while JIT code runs (guest rounding and sticky flags, all masked)"),
    field("saved_mxcsr", 4, "x86-64 host: MXCSR of the world outside"),
    field("host_fcw", 4, "x86-64 host: FCW while an F80 op runs (guest precision and rounding, all masked; 2 bytes used)"),
    field("x87_flags", 4, "x86-64 host: FSW bits that F80 ops left: sticky 0..5 (IE DE ZE OE UE PE), 9 (C1)"),
    field("mmu_index", 4, "current mmu index"),
    field("halted", 4, "waiting for an interrupt"),
    field("interrupt_request", 4, "bits of Interrupt, set by anyone with an atomic OR"),
    field("mode", 4, "current translation mode (tcg.exec.key): selects the pattern root, part of every block key"),
    field("cpu", 8, "hva of this vCPU's run-time struct"),
    field("scratch", 16, "arguments and results wider than 64 bits of helpers", count=8),
    limit=GUEST_BASE,
)

TLB_ENTRY = Struct(
    "TlbEntry",
    field("read", 8, "gva of the page a load may hit, or all ones; low 12 bits: TLB_* flags that force the slow path"),
    field("write", 8, "the same for stores"),
    field("code", 8, "the same for fetches"),
    field("addend", 8, "hva = gva + addend"),
)
JC_ENTRY = Struct("JumpCacheEntry", field("pc", 8), field("code", 8, "host address to jump to"))
JC_BITS = 12
JC_ENTRIES = 1 << JC_BITS  # index of a pc: (pc ^ (pc >> JC_BITS)) & (JC_ENTRIES - 1)


class ExitReason(IntEnum):
    """Why JIT code or a helper returned to the exec loop. Values below 256 are guest-independent."""

    CHAIN = 0  # an unchained direct exit: env.exit_slot and env.pc say where to go
    LOOKUP = 1  # an indirect jump that missed the jump cache: env.pc
    INTERRUPT = 2  # a block head saw exit_request
    EXCEPTION = 3  # exception_index, error_code, fault_gva are set, env.pc is the faulting instruction
    HALT = 4  # halted until an interrupt; env.pc is the next instruction
    SHUTDOWN = 5  # triple fault or the like
    REFLOW = 6  # state that translation depends on has changed: look up env.pc afresh
    CODE_BUFFER_FULL = 7  # flush, then go on
    STOP = 8  # the outer loop asked for it
    HOST_ERROR = 9  # a Python exception in a callback: stop the machine loudly
