"""Every struct that native code and Python both touch, declared once. See `struct` for how offsets are derived.

Env is one vCPU's state, pinned in a host register while JIT code runs: this common part first, the guest's own part
(`frontends/<guest>/state`) from GUEST_BASE on. Env is at most ENV_LIMIT bytes so that a register hole is a short one.
"""

from enum import IntEnum, IntFlag

from tcg.runtime.struct import Struct, field

# Hosts with memory renaming (AMD Zen 2 on) tell env fields apart by their offset modulo 1024 only: a store to a general
# register that shares it with a field that block heads and TLB look-ups load costs 12 ns an iteration of a loop. So the
# common part and the guest's hot fields lie within one kilobyte.
GUEST_BASE = 256
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
    field(
        "host_fcw", 4, "x86-64 host: FCW while an F80 op runs (guest precision and rounding, all masked; 2 bytes used)"
    ),
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
JC_BYTES = JC_ENTRIES * JC_ENTRY.size

# ---- softmmu: one TLB for each (context, mmu index); one jump cache for each (context, user or not)

N_CONTEXTS = 16  # address spaces that are kept apart; the guest part maps its own tags (PCID, ASID) onto them
N_MMU_INDEXES = 3
N_TLBS = N_CONTEXTS * N_MMU_INDEXES
N_JUMP_CACHES = N_CONTEXTS * 2
TLB_MIN_ENTRIES = 64
TLB_MAX_ENTRIES = 8192
VICTIM_ENTRIES = 8
PAGE_BITS = 12
PAGE_SIZE = 1 << PAGE_BITS

# Flags in the low bits of a TLB entry's tags; any of them makes the in-line comparison fail.
TLB_MMIO = 1  # no RAM behind: through the callback
TLB_NOTDIRTY = 2  # (write) the page holds translated code: check the store against it
TLB_READONLY = 4  # (write) ROM: the store goes to the callback
TLB_INVALID = 0x800  # set in all ones, the empty tag

TLB_INFO = Struct(
    "TlbInfo",
    field("gpa", 8, "of the page"),
    field("flags", 8, "PROT_* as walked; TLB_GLOBAL; TLB_LARGE"),
)
PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
TLB_GLOBAL = 8  # also in walk_prot: survives a flush that keeps global pages
TLB_LARGE = 16
TLB_INFO_AT = TLB_MAX_ENTRIES * TLB_ENTRY.size  # an entry's info: at table + TLB_INFO_AT + index * TLB_INFO.size
TLB_VICTIM_AT = TLB_INFO_AT + TLB_MAX_ENTRIES * TLB_INFO.size
TLB_VICTIM_INFO_AT = TLB_VICTIM_AT + VICTIM_ENTRIES * TLB_ENTRY.size
TLB_BYTES = (TLB_VICTIM_INFO_AT + VICTIM_ENTRIES * TLB_INFO.size + 4095) & -4096

TLB = Struct(
    "Tlb",
    field("table", 8, "hva of TLB_BYTES bytes"),
    field("mask", 8, "(entries - 1) * 32, as in env"),
    field("used", 8, "entries filled since the last flush"),
    field("evicted", 8, "valid entries pushed into the victim TLB since the last resize or flush"),
    field("victim", 8, "next victim slot"),
    field(
        "large", 8, "a bit for each (gva >> 21) % 64 where a page above 4 KiB has been filled; [1]: gva < 0", count=2
    ),
    field("huge", 8, "nonzero: a page above 4 MiB has been filled; [1]: gva < 0", count=2),
    field("wanted", 8, "entries to have after the next flush"),
)

JUMP_CACHE = Struct(
    "JumpCache",
    field("table", 8, "hva of JC_BYTES bytes"),
    field("mode", 8, "env.mode that its entries are for"),
    field("used", 8, "entries filled since it was last cleared"),
    field("local", 8, "nonzero: an entry is for a page that is not global"),
    field("pages", 8, "a bit for each (pc >> 12) % 4096 that an entry has", count=64),
)

# ---- blocks

MAX_INSNS = 64
LONGEST_INSN = 16  # bytes; no guest has a longer one
MODE_LIMIT = 4096  # env.mode is below it
STATUS_LIMIT = 64  # status ids are below it
N_HOLES = 12  # forms.HOLE_SLOTS

EXIT_SLOT = Struct(
    "ExitSlot",
    field("block", 8, "hva of the Block it is in"),
    field("place", 8, "host address (executable side) of the 4-byte displacement to patch, or 0: never chained"),
    field("stub", 8, "where it leads unchained"),
    field("target", 8, "hva of the Block it is chained to, or 0"),
    field("next", 8, "next ExitSlot in the target's list"),
    field("pc", 8, "guest pc it goes to"),
)
BLOCK = Struct(
    "Block",
    field("pc", 8, "gva of the first instruction"),
    field("gpa", 8, "its physical address"),
    field("gpa2", 8, "physical page of the second page it covers, or -1"),
    field("mode", 4),
    field("size", 4, "guest bytes"),
    field("code", 8, "host entry (executable side)"),
    field("code_size", 4),
    field("insns", 4),
    field("hash", 4),
    field("valid", 4),
    field("hot", 4, "compiled as a whole: not to be sampled again"),
    field("next_in_page", 8, "list links, one for each page covered", count=2),
    field("incoming", 8, "first ExitSlot chained to this block"),
    field("exits", EXIT_SLOT.size, count=2, align=8),
)
CHURN_LIMIT = 128
PAGE = Struct(
    "Page",
    field("blocks", 8, "hva of the first Block that has bytes here, or 0"),
    field("lines", 8, "a bit for each 64-byte line that has translated bytes (a superset)"),
    field("writable", 8, "nonzero: a TLB may hold a plain write entry for it"),
    field("churn", 4, "how often it got its first translation while writable, up to CHURN_LIMIT"),
    field("idle", 4, "slow stores since it lost its last translation"),
)
RAM_RANGE = Struct(
    "RamRange",
    field("start", 8, "gpa, page-aligned"),
    field("size", 8),
    field("hva", 8),
    field("readonly", 8, "ROM: stores go to the callback"),
)

# ---- translation tables (tcg.exec.tables fills them)

FORM = Struct(
    "Form",
    field("flags", 4, "FORM_* bits"),
    field("status_out", 4, "as forms.Form (signed)"),
    field("variants", 4, "index of its first stencil id in the variants array: [status_in * 2 + status_live]"),
    field("statuses", 4, "status_in values it has room for: 1 or STATUS_LIMIT"),
)
FORM_READS, FORM_KILLS, FORM_ENDS, FORM_FAULTS = 1, 2, 4, 8

PATTERN = Struct(
    "Pattern",
    field("form", 4),
    field("length", 1),
    field("disp_at", 1),
    field("disp_size", 1),
    field("imm_at", 1),
    field("imm_size", 1),
    field("imm2_at", 1),
    field("imm2_size", 1),
    field("flags", 1, "PATTERN_* bits"),
    field("regs", 4, count=6),
    field("spare", 4, count=2),
)
PATTERN_DISP_PC, PATTERN_IMM_PC, PATTERN_WRAP = 1, 2, 4

STENCIL = Struct(
    "Stencil",
    field("bytes", 8, "offset of its bytes in the stencil byte array"),
    field("hot_size", 4),
    field("cold_size", 4),
    field("relocs", 4, "index of its first Reloc; those of the hot part come first"),
    field("hot_relocs", 4),
    field("cold_relocs", 4),
    field("exits", 2, "EXIT relocations, by slot", count=2),
    field("direct", 2, "1: the slot's only EXIT relocation is a REL32 in the hot part", count=2),
    field("direct_at", 2, "its offset", count=2),
)
RELOC = Struct(
    "Reloc",
    field("offset", 4, "in its part"),
    field("kind", 2, "forms.RelocKind"),
    field("value", 2, "index into the assembler's values"),
    field("addend", 8, "added; a helper's address for VALUE_ZERO"),
)
# The assembler's values: HoleSlot 0..11, then
VALUE_NEXT, VALUE_EXIT0, VALUE_EXIT1, VALUE_LEAVE, VALUE_COLD, VALUE_HOT, VALUE_ZERO = range(N_HOLES, N_HOLES + 7)
N_VALUES = VALUE_ZERO + 1

ASSEMBLED_INSN = Struct(  # the block assembler's notes on one instruction
    "AssembledInsn",
    field("pattern", 8, "hva"),
    field("form", 8, "hva"),
    field("bytes", 8, "hva of its bytes"),
    field("pc", 8),
    field("stencil", 8, "hva"),
    field("status_in", 4),
    field("status_live", 4),
    field("code", 8, "where its hot part is"),
    field("cold", 8, "where its cold part is"),
)

QHT_ENTRIES = 4
QHT_BUCKET = Struct(
    "QhtBucket",
    field("sequence", 4, "odd while a writer changes the bucket chain's head"),
    field("spare", 4),
    field("hashes", 4, count=QHT_ENTRIES),
    field("blocks", 8, count=QHT_ENTRIES),
    field("next", 8),
)
QHT_MAP = Struct(
    "QhtMap",
    field("mask", 8, "buckets - 1"),
    field("buckets", 8, "hva"),
    field("older", 8, "the map this one replaced: kept until no reader can have it"),
)

STATS_NAMES = (
    *("blocks", "insns", "guest_bytes", "host_bytes", "lookups", "jc_hits", "qht_hits", "chained"),
    *(
        "tlb_misses",
        "victim_hits",
        "walks",
        "tlb_flushes",
        "tlb_page_flushes",
        "tlb_resizes",
        "slow_loads",
        "slow_stores",
    ),
    *("mmio", "code_stores", "invalidations", "reflows", "flushes", "callbacks", "pattern_misses", "stencil_misses"),
    *("deliveries", "interrupts", "page_crossings", "assemble_cycles", "callback_cycles", "exec_cycles"),
    *("samples", "hot_blocks", "install_cycles", "chain_cycles"),
)
STATS = Struct(
    "Stats",
    *(field(name, 8) for name in STATS_NAMES),
    field("exits", 8, "returns from JIT code by ExitReason", count=16),
)

MAX_CPUS = 64
SAMPLE_RING = 64
MACHINE = Struct(  # shared by all vCPUs
    "Machine",
    field("tb_lock", 4, "held while code is generated, patched or invalidated"),
    field("generation", 4, "counts the flushes of the code buffer"),
    field("ranges", 8, "hva of RAM_RANGE[range_count], sorted by start: swapped whole"),
    field("range_count", 8),
    field("pages", 8, "hva of PAGE[page_count], by gpa >> 12"),
    field("page_count", 8),
    field("code_start", 8, "code buffer, executable side"),
    field("code_top", 8),
    field("code_end", 8),
    field("code_delta", 8, "writable side = executable side + delta"),
    field("block_start", 8, "arena of Block records"),
    field("block_top", 8),
    field("block_end", 8),
    field("qht", 8, "hva of the current QhtMap"),
    field("qht_count", 8),
    field("forms", 8, "hva of FORM[]"),
    field("patterns", 8, "hva of PATTERN[]"),
    field("variants", 8, "hva of int32[]: stencil id, or -1"),
    field("stencils", 8, "hva of STENCIL[]"),
    field("stencil_bytes", 8),
    field("relocs", 8, "hva of RELOC[]"),
    field("trie", 8, "hva of int32[256] nodes"),
    field("roots", 8, "hva of int32[MODE_LIMIT]: node index or 0"),
    field("block_head", 8, "hva of the fixed stencils, in STENCIL[]"),
    field("exit_stub", 8),
    field("far_exit", 8, "goto_ptr to a constant: for exits to other pages"),
    field("leave", 8, "host address of the gate back"),
    field("step_modes", 8, "mode bits that mean: one instruction a block, unchained"),
    field("cpu_count", 8),
    field("cpus", 8, "hva of each vCPU's CPU struct", count=MAX_CPUS),
)

CPU = Struct(  # one vCPU's run-time state beyond env
    "Cpu",
    field("machine", 8, "hva of MACHINE"),
    field("env", 8, "hva of this vCPU's env"),
    field("callback", 8, "C function pointer callback(kind, env, a, b, c) -> int64 into Python"),
    field("index", 8),
    field("context", 8, "current TLB context"),
    field("one_insn", 4, "the next block is one instruction, not kept, and runs unchained"),
    field("in_block", 4, "JIT code is running: a store into the running block must leave it"),
    field("last_exit", 8, "EXIT_SLOT to chain to the block that is looked up next, or 0"),
    field("walk_gpa", 8, "results of the guest's translate: physical address of the gva"),
    field("walk_prot", 8, "PROT_* and TLB_GLOBAL"),
    field("walk_size", 8, "bytes of the mapping"),
    field("probe_flags", 8, "result of tlb_probe: TLB_* flags of the entry"),
    field("probe_gpa", 8, "result of tlb_probe: gpa of the access"),
    field("contexts_used", 8, "contexts below this one may hold something"),
    field("sampled", 4, "the vCPU left JIT code for a sampler: note the block that is entered next"),
    field("sample_count", 8, "samples noted so far"),
    field("samples", 8, "hva of the blocks sampled: a ring", count=SAMPLE_RING),
    field("trace", 8, "bits of Trace: what a log wants to hear of"),
    field("values", 8, "the block assembler's values", count=N_VALUES),
    field("insns", ASSEMBLED_INSN.size, count=MAX_INSNS, align=16),
    field("missing", 4, "stencils that the block being assembled lacks: (form id, variant) pairs", count=2 * MAX_INSNS),
    field("fetch", 16, "bytes of an instruction that crosses a page, or that is not in RAM", count=4),
    field("tlbs", TLB.size, count=N_TLBS, align=16),
    field("jump_caches", JUMP_CACHE.size, count=N_JUMP_CACHES, align=16),
    field("stats", STATS.size, align=16),
)


class Interrupt(IntFlag):
    """Bits of env.interrupt_request. The low byte is the run-time's, the rest the guest's."""

    STOP = 1  # the outer loop wants the vCPU back
    WORK = 2  # async work is queued
    HARD = 0x100  # an interrupt controller has a vector
    NMI = 0x200
    SMI = 0x400
    INIT = 0x800
    SIPI = 0x1000


class Trace(IntFlag):
    """Bits of CPU.trace: what a log wants to hear of. All clear, they cost one test outside JIT code."""

    BLOCKS = 1  # TRACE_BLOCK for each block translated
    ENTRIES = 2  # TRACE_ENTRY whenever the exec loop enters a block; the jump caches stay empty
    UNCHAINED = 4  # no exit is chained: with ENTRIES, every block is seen each time
    EVENTS = 8  # TRACE_EVENT for each exception and interrupt


class Callback(IntEnum):
    """What native code asks Python for: callback(kind, env, a, b, c) -> result."""

    PATTERN_MISS = 0  # a: hva of the bytes, b: how many, c: pc -> 1 added, 2 truncated, 0 error
    STENCIL_MISS = 1  # a: hva of b pairs of int32 (form id, status_in * 2 + status_live) -> 1 all filled, 0 error
    MMIO_READ = 2  # a: gpa, b: size -> value
    MMIO_WRITE = 3  # a: gpa, b: size, c: value
    PORT_READ = 4  # a: port, b: size -> value
    PORT_WRITE = 5  # a: port, b: size, c: value
    ACKNOWLEDGE = 6  # -> vector, or -1 (none after all)
    MSR_READ = 7  # a: number -> value in env.scratch[0], result 1; 0: no such MSR
    MSR_WRITE = 8  # a: number, b: value -> 1, 0: #GP
    TRACE_BLOCK = 9  # a: hva of a new Block; CPU.insns says how it was assembled
    TRACE_ENTRY = 10  # a: hva of the Block that is about to run
    TRACE_STOP = 11  # a: hva of the Block whose head gave way to a request before any of it ran
    TRACE_EVENT = 12  # a: vector, b: error code, c: the guest part's own bits; env is as before the delivery
    GUEST = 64  # from here on: the guest's own


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
