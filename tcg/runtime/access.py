"""Guest memory accesses that the in-line TLB look-up could not do: misses, page crossings, MMIO, pages that hold code.

Stencils call helper_ld8..64, helper_st8..64 (128 bits through env.scratch) and helper_atomic_*; other native code uses
`load_as`, `store_as` (any mmu index) and `tlb_probe` (a host pointer for bulk work). After each call env.exception says
whether the access happened: a guest exception, or REFLOW, is pending otherwise and no byte has been stored.

A store to a page with translations first invalidates exactly the blocks that overlap the bytes. If one of them may be
the running block (it contains env.pc), the store is not done: the vCPU leaves the block with REFLOW and the exec loop
runs that instruction again alone (CPU.one_insn), as the last one that the old bytes had a say in. So an instruction
must be restartable at each of its stores, as it must be for page faults.
"""

from tcg.runtime.blocks import invalidate_range
from tcg.runtime.hooks import ask
from tcg.runtime.layout import (
    CPU,
    ENV,
    MACHINE,
    PAGE,
    STATS,
    TLB_ENTRY,
    TLB_MMIO,
    TLB_NOTDIRTY,
    TLB_READONLY,
    Callback,
    ExitReason,
)
from tcg.runtime.lock import tb_lock, tb_unlock
from tcg.runtime.memory import (
    cas8,
    cas16,
    cas32,
    cas64,
    cas128,
    exported,
    ld8,
    ld16,
    ld32,
    ld64,
    lsr,
    native,
    shl,
    st8,
    st16,
    st32,
    st64,
)
from tcg.runtime.tlb import entry_gpa, page_of, tlb_find

_ENV_CPU = ENV.offset("cpu")
_ENV_PC = ENV.offset("pc")
_ENV_MMU_INDEX = ENV.offset("mmu_index")
_ENV_EXCEPTION = ENV.offset("exception")
_ENV_EXIT_REASON = ENV.offset("exit_reason")
_SCRATCH = ENV.offset("scratch")
_MACHINE = CPU.offset("machine")
_ONE_INSN = CPU.offset("one_insn")
_IN_BLOCK = CPU.offset("in_block")
_PROBE_FLAGS = CPU.offset("probe_flags")
_PROBE_GPA = CPU.offset("probe_gpa")
_STATS = CPU.offset("stats")
_SLOW_LOADS = _STATS + STATS.offset("slow_loads")
_SLOW_STORES = _STATS + STATS.offset("slow_stores")
_MMIO = _STATS + STATS.offset("mmio")
_CODE_STORES = _STATS + STATS.offset("code_stores")
_REFLOWS = _STATS + STATS.offset("reflows")
_CROSSINGS = _STATS + STATS.offset("page_crossings")
_WRITE = TLB_ENTRY.offset("write")
_ADDEND = TLB_ENTRY.offset("addend")
_PAGES = MACHINE.offset("pages")
_BLOCKS = PAGE.offset("blocks")
_LINES = PAGE.offset("lines")
_WRITABLE = PAGE.offset("writable")
_CHURN = PAGE.offset("churn")
_IDLE = PAGE.offset("idle")
_PATIENCE = 8  # stores
_REFLOW = int(ExitReason.REFLOW)
_MMIO_READ = int(Callback.MMIO_READ)
_MMIO_WRITE = int(Callback.MMIO_WRITE)
READ, WRITE, FETCH = 0, 1, 2
XCHG, ADD, SUB, AND, OR, XOR, CMPXCHG = range(7)


@native
def ld_sized(hva: int, size: int) -> int:
    """`size` (1, 2, 4, 8) bytes, zero-extended."""
    if size == 8:
        return ld64(hva)
    if size == 4:
        return ld32(hva)
    if size == 2:
        return ld16(hva)
    return ld8(hva)


@native
def st_sized(hva: int, size: int, value: int) -> None:
    if size == 8:
        st64(hva, value)
    elif size == 4:
        st32(hva, value)
    elif size == 2:
        st16(hva, value)
    else:
        st8(hva, value)


@native
def mmio_read(env: int, gpa: int, size: int) -> int:
    cpu = ld64(env + _ENV_CPU)
    st64(cpu + _MMIO, ld64(cpu + _MMIO) + 1)
    return ask(env, _MMIO_READ, gpa, size, 0)


@native
def mmio_write(env: int, gpa: int, size: int, value: int) -> None:
    cpu = ld64(env + _ENV_CPU)
    st64(cpu + _MMIO, ld64(cpu + _MMIO) + 1)
    ask(env, _MMIO_WRITE, gpa, size, value)


# ---- pages that hold code


@native
def code_store(env: int, gpa: int, size: int) -> int:
    """Before a store of `size` bytes at gpa (in one page) with translations; 1: leave the block, do not store now."""
    cpu = ld64(env + _ENV_CPU)
    machine = ld64(cpu + _MACHINE)
    page = page_of(machine, gpa)
    st64(cpu + _CODE_STORES, ld64(cpu + _CODE_STORES) + 1)
    first = (gpa & 4095) >> 6
    last = ((gpa & 4095) + size - 1) >> 6
    if lsr(ld64(page + _LINES), first) & (shl(2, last - first) - 1) == 0:
        return 0
    tb_lock(machine)
    hit = invalidate_range(machine, gpa, size, ld64(env + _ENV_PC))
    tb_unlock(machine)
    if hit != 0 and ld32(cpu + _IN_BLOCK) != 0 and ld32(cpu + _ONE_INSN) == 0:
        st32(cpu + _ONE_INSN, 1)
        st64(cpu + _REFLOWS, ld64(cpu + _REFLOWS) + 1)
        st32(env + _ENV_EXIT_REASON, _REFLOW)
        st32(env + _ENV_EXCEPTION, 1)
        return 1
    return 0


@native
def code_gone(env: int, entry: int, gpa: int) -> None:
    """Let stores through `entry` be fast again once its page has no translation left.

    To protect it again means a walk through every TLB: a page that goes to and fro has to do without code for longer
    and longer (code that is patched and run in turns would pay for the walk each time).
    """
    page = page_of(ld64(ld64(env + _ENV_CPU) + _MACHINE), gpa)
    if ld64(page + _BLOCKS) == 0:
        idle = ld32(page + _IDLE) + 1
        if idle < (ld32(page + _CHURN) - 1) * _PATIENCE:
            st32(page + _IDLE, idle)
            return
        st64(page + _WRITABLE, 1)
        st64(entry + _WRITE, ld64(entry + _WRITE) & ~TLB_NOTDIRTY)


# ---- loads


@native
def load_part(env: int, flags: int, gpa: int, hva: int, size: int) -> int:
    """`size` bytes (1..8) within one page, little-endian."""
    value = 0
    for i in range(size):
        if flags & TLB_MMIO != 0:
            byte = mmio_read(env, gpa + i, 1)
        else:
            byte = ld8(hva + i)
        value |= shl(byte & 255, 8 * i)
    return value


@native
def load_as(env: int, gva: int, size: int, mmu_index: int) -> int:
    """Load `size` (1, 2, 4, 8) bytes at gva as mmu_index may, zero-extended; test env.exception after it."""
    room = 4096 - (gva & 4095)
    entry = tlb_find(env, gva, READ, mmu_index)
    if entry == 0:
        return 0
    flags = ld64(entry) & 4095
    hva = gva + ld64(entry + _ADDEND)
    if size <= room and flags == 0:
        return ld_sized(hva, size)
    gpa = entry_gpa(env, entry, mmu_index) | (gva & 4095)
    if size <= room:
        return mmio_read(env, gpa, size)
    cpu = ld64(env + _ENV_CPU)
    st64(cpu + _CROSSINGS, ld64(cpu + _CROSSINGS) + 1)
    second = tlb_find(env, gva + room, READ, mmu_index)
    if second == 0:
        return 0
    flags2 = ld64(second) & 4095
    hva2 = gva + room + ld64(second + _ADDEND)
    gpa2 = entry_gpa(env, second, mmu_index)
    low = load_part(env, flags, gpa, hva, room)
    return low | shl(load_part(env, flags2, gpa2, hva2, size - room), 8 * room)


@native
def load_slow(env: int, gva: int, size: int) -> int:
    cpu = ld64(env + _ENV_CPU)
    st64(cpu + _SLOW_LOADS, ld64(cpu + _SLOW_LOADS) + 1)
    return load_as(env, gva, size, ld32(env + _ENV_MMU_INDEX))


@exported
def helper_ld8(env: int, gva: int) -> int:
    return load_slow(env, gva, 1)


@exported
def helper_ld16(env: int, gva: int) -> int:
    return load_slow(env, gva, 2)


@exported
def helper_ld32(env: int, gva: int) -> int:
    return load_slow(env, gva, 4)


@exported
def helper_ld64(env: int, gva: int) -> int:
    return load_slow(env, gva, 8)


@exported
def helper_ld128(env: int, gva: int) -> None:
    """16 bytes at gva into scratch[0]."""
    low = load_slow(env, gva, 8)
    if ld32(env + _ENV_EXCEPTION) == 0:
        high = load_slow(env, gva + 8, 8)
        st64(env + _SCRATCH, low)
        st64(env + _SCRATCH + 8, high)


# ---- stores


@native
def store_part(env: int, flags: int, gpa: int, hva: int, size: int, value: int) -> None:
    for i in range(size):
        if flags & (TLB_MMIO | TLB_READONLY) != 0:
            mmio_write(env, gpa + i, 1, lsr(value, 8 * i) & 255)
        else:
            st8(hva + i, lsr(value, 8 * i))


@native
def store_as(env: int, gva: int, size: int, value: int, mmu_index: int) -> None:
    """Store the low `size` (1, 2, 4, 8) bytes of value at gva as mmu_index may; test env.exception after it."""
    room = 4096 - (gva & 4095)
    entry = tlb_find(env, gva, WRITE, mmu_index)
    if entry == 0:
        return
    flags = ld64(entry + _WRITE) & 4095
    hva = gva + ld64(entry + _ADDEND)
    if size <= room and flags == 0:
        st_sized(hva, size, value)
        return
    gpa = entry_gpa(env, entry, mmu_index) | (gva & 4095)
    if size <= room:
        if flags & (TLB_MMIO | TLB_READONLY) != 0:
            mmio_write(env, gpa, size, value)
            return
        if code_store(env, gpa, size) != 0:
            return
        st_sized(hva, size, value)
        code_gone(env, entry, gpa)
        return
    cpu = ld64(env + _ENV_CPU)
    st64(cpu + _CROSSINGS, ld64(cpu + _CROSSINGS) + 1)
    second = tlb_find(env, gva + room, WRITE, mmu_index)
    if second == 0:
        return
    flags2 = ld64(second + _WRITE) & 4095
    hva2 = gva + room + ld64(second + _ADDEND)
    gpa2 = entry_gpa(env, second, mmu_index)
    if flags & TLB_NOTDIRTY != 0 and code_store(env, gpa, room) != 0:
        return
    if flags2 & TLB_NOTDIRTY != 0 and code_store(env, gpa2, size - room) != 0:
        return
    store_part(env, flags, gpa, hva, room, value)
    store_part(env, flags2, gpa2, hva2, size - room, lsr(value, 8 * room))


@native
def store_slow(env: int, gva: int, size: int, value: int) -> None:
    cpu = ld64(env + _ENV_CPU)
    st64(cpu + _SLOW_STORES, ld64(cpu + _SLOW_STORES) + 1)
    store_as(env, gva, size, value, ld32(env + _ENV_MMU_INDEX))


@exported
def helper_st8(env: int, gva: int, value: int) -> None:
    store_slow(env, gva, 1, value)


@exported
def helper_st16(env: int, gva: int, value: int) -> None:
    store_slow(env, gva, 2, value)


@exported
def helper_st32(env: int, gva: int, value: int) -> None:
    store_slow(env, gva, 4, value)


@exported
def helper_st64(env: int, gva: int, value: int) -> None:
    store_slow(env, gva, 8, value)


@exported
def helper_st128(env: int, gva: int) -> None:
    """scratch[0] to the 16 bytes at gva: both pages are checked before a byte is stored."""
    index = ld32(env + _ENV_MMU_INDEX)
    low = ld64(env + _SCRATCH)
    high = ld64(env + _SCRATCH + 8)
    crosses = (gva & 4095) > 4096 - 16
    if crosses and (tlb_find(env, gva, WRITE, index) == 0 or tlb_find(env, gva + 15, WRITE, index) == 0):
        return
    store_slow(env, gva, 8, low)
    if ld32(env + _ENV_EXCEPTION) == 0:
        store_slow(env, gva + 8, 8, high)


# ---- bulk access


@exported
def tlb_probe(env: int, gva: int, access: int, mmu_index: int) -> int:
    """A host pointer to gva, good to the end of its page, for one access kind (0 read, 1 write, 2 fetch).

    -1: not allowed, the guest exception is in env. 0: allowed but not by plain accesses (probe_flags says why: MMIO,
    ROM or a page with translations): use load_as and store_as. probe_gpa is set in both good cases. The pointer is
    good until the next access through the softmmu, callback or flush.
    """
    cpu = ld64(env + _ENV_CPU)
    entry = tlb_find(env, gva, access, mmu_index)
    if entry == 0:
        return -1
    flags = ld64(entry + 8 * access) & 4095
    st64(cpu + _PROBE_FLAGS, flags)
    st64(cpu + _PROBE_GPA, entry_gpa(env, entry, mmu_index) | (gva & 4095))
    if flags != 0:
        return 0
    return gva + ld64(entry + _ADDEND)


# ---- atomics


@native
def combine(op: int, old: int, value: int) -> int:
    if op == ADD:
        return old + value
    if op == SUB:
        return old - value
    if op == AND:
        return old & value
    if op == OR:
        return old | value
    if op == XOR:
        return old ^ value
    return value


@native
def cas_sized(hva: int, size: int, expected: int, value: int) -> int:
    if size == 8:
        return cas64(hva, expected, value)
    if size == 4:
        return cas32(hva, expected, value)
    if size == 2:
        return cas16(hva, expected, value)
    return cas8(hva, expected, value)


@native
def atomic_slow(env: int, gva: int, size: int, op: int, value: int, new: int) -> int:
    """memory = memory OP value (CMPXCHG: `new` if it was `value`); the old memory, zero-extended.

    TODO(several vCPUs): one that crosses a page, or is not in RAM, must run alone (an exclusive section).
    """
    index = ld32(env + _ENV_MMU_INDEX)
    entry = tlb_find(env, gva, WRITE, index)
    if entry == 0:
        return 0
    mask = shl(1, 8 * size) - 1 if size < 8 else -1
    flags = ld64(entry + _WRITE) & 4095
    hva = gva + ld64(entry + _ADDEND)
    gpa = entry_gpa(env, entry, index) | (gva & 4095)
    if (gva & 4095) + size > 4096 or flags & (TLB_MMIO | TLB_READONLY) != 0:
        if tlb_find(env, gva + size - 1, WRITE, index) == 0:
            return 0
        old = load_as(env, gva, size, index)
        if ld32(env + _ENV_EXCEPTION) == 0:
            if op != CMPXCHG:
                store_as(env, gva, size, combine(op, old, value), index)
            elif old == value & mask:
                store_as(env, gva, size, new, index)
            else:
                store_as(env, gva, size, old, index)
        return old
    if flags & TLB_NOTDIRTY != 0 and code_store(env, gpa, size) != 0:
        return 0
    if op == CMPXCHG:
        old = cas_sized(hva, size, value, new)
    else:
        old = ld_sized(hva, size)
        while True:
            seen = cas_sized(hva, size, old, combine(op, old, value))
            if seen == old:
                break
            old = seen
    if flags & TLB_NOTDIRTY != 0:
        code_gone(env, entry, gpa)
    return old


@exported
def helper_atomic_xchg8(env: int, gva: int, value: int) -> int:
    return atomic_slow(env, gva, 1, XCHG, value, 0)


@exported
def helper_atomic_xchg16(env: int, gva: int, value: int) -> int:
    return atomic_slow(env, gva, 2, XCHG, value, 0)


@exported
def helper_atomic_xchg32(env: int, gva: int, value: int) -> int:
    return atomic_slow(env, gva, 4, XCHG, value, 0)


@exported
def helper_atomic_xchg64(env: int, gva: int, value: int) -> int:
    return atomic_slow(env, gva, 8, XCHG, value, 0)


@exported
def helper_atomic_add8(env: int, gva: int, value: int) -> int:
    return atomic_slow(env, gva, 1, ADD, value, 0)


@exported
def helper_atomic_add16(env: int, gva: int, value: int) -> int:
    return atomic_slow(env, gva, 2, ADD, value, 0)


@exported
def helper_atomic_add32(env: int, gva: int, value: int) -> int:
    return atomic_slow(env, gva, 4, ADD, value, 0)


@exported
def helper_atomic_add64(env: int, gva: int, value: int) -> int:
    return atomic_slow(env, gva, 8, ADD, value, 0)


@exported
def helper_atomic_sub8(env: int, gva: int, value: int) -> int:
    return atomic_slow(env, gva, 1, SUB, value, 0)


@exported
def helper_atomic_sub16(env: int, gva: int, value: int) -> int:
    return atomic_slow(env, gva, 2, SUB, value, 0)


@exported
def helper_atomic_sub32(env: int, gva: int, value: int) -> int:
    return atomic_slow(env, gva, 4, SUB, value, 0)


@exported
def helper_atomic_sub64(env: int, gva: int, value: int) -> int:
    return atomic_slow(env, gva, 8, SUB, value, 0)


@exported
def helper_atomic_and8(env: int, gva: int, value: int) -> int:
    return atomic_slow(env, gva, 1, AND, value, 0)


@exported
def helper_atomic_and16(env: int, gva: int, value: int) -> int:
    return atomic_slow(env, gva, 2, AND, value, 0)


@exported
def helper_atomic_and32(env: int, gva: int, value: int) -> int:
    return atomic_slow(env, gva, 4, AND, value, 0)


@exported
def helper_atomic_and64(env: int, gva: int, value: int) -> int:
    return atomic_slow(env, gva, 8, AND, value, 0)


@exported
def helper_atomic_or8(env: int, gva: int, value: int) -> int:
    return atomic_slow(env, gva, 1, OR, value, 0)


@exported
def helper_atomic_or16(env: int, gva: int, value: int) -> int:
    return atomic_slow(env, gva, 2, OR, value, 0)


@exported
def helper_atomic_or32(env: int, gva: int, value: int) -> int:
    return atomic_slow(env, gva, 4, OR, value, 0)


@exported
def helper_atomic_or64(env: int, gva: int, value: int) -> int:
    return atomic_slow(env, gva, 8, OR, value, 0)


@exported
def helper_atomic_xor8(env: int, gva: int, value: int) -> int:
    return atomic_slow(env, gva, 1, XOR, value, 0)


@exported
def helper_atomic_xor16(env: int, gva: int, value: int) -> int:
    return atomic_slow(env, gva, 2, XOR, value, 0)


@exported
def helper_atomic_xor32(env: int, gva: int, value: int) -> int:
    return atomic_slow(env, gva, 4, XOR, value, 0)


@exported
def helper_atomic_xor64(env: int, gva: int, value: int) -> int:
    return atomic_slow(env, gva, 8, XOR, value, 0)


@exported
def helper_atomic_cmpxchg8(env: int, gva: int, expected: int, value: int) -> int:
    return atomic_slow(env, gva, 1, CMPXCHG, expected, value)


@exported
def helper_atomic_cmpxchg16(env: int, gva: int, expected: int, value: int) -> int:
    return atomic_slow(env, gva, 2, CMPXCHG, expected, value)


@exported
def helper_atomic_cmpxchg32(env: int, gva: int, expected: int, value: int) -> int:
    return atomic_slow(env, gva, 4, CMPXCHG, expected, value)


@exported
def helper_atomic_cmpxchg64(env: int, gva: int, expected: int, value: int) -> int:
    return atomic_slow(env, gva, 8, CMPXCHG, expected, value)


@exported
def helper_atomic_cmpxchg128(env: int, gva: int) -> None:
    """scratch[0]: expected, then the old value; scratch[1]: new. gva is 16-byte aligned, or the guest has faulted."""
    index = ld32(env + _ENV_MMU_INDEX)
    entry = tlb_find(env, gva, WRITE, index)
    if entry == 0:
        return
    flags = ld64(entry + _WRITE) & 4095
    hva = gva + ld64(entry + _ADDEND)
    gpa = entry_gpa(env, entry, index) | (gva & 4095)
    scratch = env + _SCRATCH
    if flags & (TLB_MMIO | TLB_READONLY) != 0 or gva & 15 != 0:
        low = load_as(env, gva, 8, index)
        high = load_as(env, gva + 8, 8, index)
        if ld32(env + _ENV_EXCEPTION) != 0:
            return
        if low == ld64(scratch) and high == ld64(scratch + 8):
            store_as(env, gva, 8, ld64(scratch + 16), index)
            store_as(env, gva + 8, 8, ld64(scratch + 24), index)
        st64(scratch, low)
        st64(scratch + 8, high)
        return
    if flags & TLB_NOTDIRTY != 0 and code_store(env, gpa, 16) != 0:
        return
    cas128(hva, scratch, scratch + 16)
    if flags & TLB_NOTDIRTY != 0:
        code_gone(env, entry, gpa)
