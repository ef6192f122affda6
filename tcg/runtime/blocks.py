"""Blocks once they exist: page lists, chaining, invalidation, the flush of everything.

A PAGE record lists the blocks that have bytes in that physical page (a link's low bit says whether it is the block's
first or second page) and the 64-byte lines they cover. A chained jump is an EXIT_SLOT in its target's `incoming` list,
so that invalidation can point every jump back at its stub. All of this is done under tb_lock; functions that need it
say so.

Jumps are patched by one 4-byte store through the writable mapping; the assembler lays them so that the field never
crosses a cache line.
"""

from tcg.runtime.layout import (
    BLOCK,
    CHURN_LIMIT,
    CPU,
    EXIT_SLOT,
    JC_BITS,
    JC_ENTRIES,
    JC_ENTRY,
    JUMP_CACHE,
    MACHINE,
    PAGE,
    STATS,
)
from tcg.runtime.lock import tb_lock, tb_unlock
from tcg.runtime.memory import exported, ld32, ld64, least, lsr, native, shl, st32, st64, store64_release
from tcg.runtime.qht import qht_clear, qht_remove_locked
from tcg.runtime.tlb import jc_clear, jc_free, page_of, tlb_protect

_DELTA = MACHINE.offset("code_delta")
_CODE_START = MACHINE.offset("code_start")
_CODE_TOP = MACHINE.offset("code_top")
_BLOCK_START = MACHINE.offset("block_start")
_BLOCK_TOP = MACHINE.offset("block_top")
_GENERATION = MACHINE.offset("generation")
_CPU_COUNT = MACHINE.offset("cpu_count")
_CPUS = MACHINE.offset("cpus")
_CONTEXTS_USED = CPU.offset("contexts_used")
_JUMP_CACHES = CPU.offset("jump_caches")
_INVALIDATIONS = CPU.offset("stats") + STATS.offset("invalidations")
_FLUSHES = CPU.offset("stats") + STATS.offset("flushes")
_LAST_EXIT = CPU.offset("last_exit")
_PC = BLOCK.offset("pc")
_GPA = BLOCK.offset("gpa")
_GPA2 = BLOCK.offset("gpa2")
_SIZE = BLOCK.offset("size")
_CODE = BLOCK.offset("code")
_VALID = BLOCK.offset("valid")
_NEXT_IN_PAGE = BLOCK.offset("next_in_page")
_INCOMING = BLOCK.offset("incoming")
_EXITS = BLOCK.offset("exits")
_BLOCK_SIZE = BLOCK.size
_S_BLOCK = EXIT_SLOT.offset("block")
_S_PLACE = EXIT_SLOT.offset("place")
_S_STUB = EXIT_SLOT.offset("stub")
_S_TARGET = EXIT_SLOT.offset("target")
_S_NEXT = EXIT_SLOT.offset("next")
_SLOT_SIZE = EXIT_SLOT.size
_P_BLOCKS = PAGE.offset("blocks")
_P_LINES = PAGE.offset("lines")
_P_WRITABLE = PAGE.offset("writable")
_P_CHURN = PAGE.offset("churn")
_P_IDLE = PAGE.offset("idle")
_JC_SIZE = JUMP_CACHE.size
_JC_TABLE = JUMP_CACHE.offset("table")
_JC_ENTRY_SIZE = JC_ENTRY.size


# ---- chaining


@native
def patch_jump(machine: int, place: int, to: int) -> None:
    """Point the rel32 at `place` (executable side) to `to`."""
    st32(place + ld64(machine + _DELTA), to - place - 4)


@native
def chain_locked(machine: int, slot: int, block: int) -> None:
    """Let the exit at `slot` jump straight to `block`."""
    place = ld64(slot + _S_PLACE)
    if place == 0 or ld64(slot + _S_TARGET) != 0:
        return
    if ld32(block + _VALID) == 0 or ld32(ld64(slot + _S_BLOCK) + _VALID) == 0:
        return
    st64(slot + _S_TARGET, block)
    st64(slot + _S_NEXT, ld64(block + _INCOMING))
    st64(block + _INCOMING, slot)
    patch_jump(machine, place, ld64(block + _CODE))


@native
def unchain_incoming_locked(machine: int, block: int) -> None:
    slot = ld64(block + _INCOMING)
    st64(block + _INCOMING, 0)
    while slot != 0:
        following = ld64(slot + _S_NEXT)
        st64(slot + _S_TARGET, 0)
        patch_jump(machine, ld64(slot + _S_PLACE), ld64(slot + _S_STUB))
        slot = following


@native
def unchain_exits_locked(block: int) -> None:
    """Take the block's own exits out of their targets' lists."""
    for i in range(2):
        slot = block + _EXITS + i * _SLOT_SIZE
        target = ld64(slot + _S_TARGET)
        if target != 0:
            at = target + _INCOMING
            while ld64(at) != slot:
                at = ld64(at) + _S_NEXT
            st64(at, ld64(slot + _S_NEXT))
            st64(slot + _S_TARGET, 0)


# ---- page lists


@native
def block_lines(block: int, which: int) -> int:
    """The 64-byte lines that the block covers in its first (0) or second (1) page."""
    start = ld64(block + _GPA) & 4095
    size = ld32(block + _SIZE)
    if which != 0:
        size = start + size - 4096
        start = 0
    elif start + size > 4096:
        size = 4096 - start
    return shl(shl(2, ((start + size - 1) >> 6) - (start >> 6)) - 1, start >> 6)


@native
def page_add_locked(machine: int, page: int, gpa: int, block: int, which: int) -> None:
    if ld64(page + _P_BLOCKS) == 0 and ld64(page + _P_WRITABLE) != 0:
        for i in range(ld64(machine + _CPU_COUNT)):
            tlb_protect(ld64(machine + _CPUS + 8 * i), gpa & -4096)
        st64(page + _P_WRITABLE, 0)
        st32(page + _P_CHURN, least(ld32(page + _P_CHURN) + 1, CHURN_LIMIT))
    st32(page + _P_IDLE, 0)
    st64(block + _NEXT_IN_PAGE + 8 * which, ld64(page + _P_BLOCKS))
    st64(page + _P_BLOCKS, block | which)
    st64(page + _P_LINES, ld64(page + _P_LINES) | block_lines(block, which))


@native
def page_remove_locked(page: int, block: int) -> None:
    at = page + _P_BLOCKS
    while ld64(at) & -2 != block:
        link = ld64(at)
        at = (link & -2) + _NEXT_IN_PAGE + 8 * (link & 1)
    link = ld64(at)
    st64(at, ld64(block + _NEXT_IN_PAGE + 8 * (link & 1)))


@native
def page_lines_locked(page: int) -> None:
    lines = 0
    link = ld64(page + _P_BLOCKS)
    while link != 0:
        block = link & -2
        lines |= block_lines(block, link & 1)
        link = ld64(block + _NEXT_IN_PAGE + 8 * (link & 1))
    st64(page + _P_LINES, lines)


@native
def register_locked(machine: int, block: int) -> None:
    """Enter a new block's pages: from now on a store to its bytes invalidates it."""
    gpa = ld64(block + _GPA)
    page_add_locked(machine, page_of(machine, gpa), gpa, block, 0)
    gpa2 = ld64(block + _GPA2)
    if gpa2 != -1:
        page_add_locked(machine, page_of(machine, gpa2), gpa2, block, 1)


# ---- invalidation


@native
def jc_forget_locked(machine: int, block: int) -> None:
    """Drop the block from every vCPU's jump caches."""
    pc = ld64(block + _PC)
    index = ((pc ^ lsr(pc, JC_BITS)) & (JC_ENTRIES - 1)) * _JC_ENTRY_SIZE
    for i in range(ld64(machine + _CPU_COUNT)):
        cpu = ld64(machine + _CPUS + 8 * i)
        for n in range(2 * ld64(cpu + _CONTEXTS_USED)):
            at = ld64(cpu + _JUMP_CACHES + n * _JC_SIZE + _JC_TABLE) + index
            if ld64(at) == pc:
                store64_release(at, jc_free(index))


@native
def invalidate_locked(machine: int, block: int) -> None:
    """Make the block unreachable; its bytes stay until the next flush, somebody may be running them."""
    st32(block + _VALID, 0)
    qht_remove_locked(machine, block)
    page_remove_locked(page_of(machine, ld64(block + _GPA)), block)
    gpa2 = ld64(block + _GPA2)
    if gpa2 != -1:
        page_remove_locked(page_of(machine, gpa2), block)
    jc_forget_locked(machine, block)
    unchain_incoming_locked(machine, block)
    unchain_exits_locked(block)
    cpu = ld64(machine + _CPUS)
    st64(cpu + _INVALIDATIONS, ld64(cpu + _INVALIDATIONS) + 1)


@native
def invalidate_range(machine: int, gpa: int, size: int, pc: int) -> int:
    """Invalidate the blocks that overlap [gpa, gpa + size), within one page; 1 if one of them contains pc. Locked."""
    page = page_of(machine, gpa)
    hit = 0
    gone = 0
    link = ld64(page + _P_BLOCKS)
    start = gpa & 4095
    while link != 0:
        block = link & -2
        which = link & 1
        link = ld64(block + _NEXT_IN_PAGE + 8 * which)
        first = ld64(block + _GPA) & 4095
        length = ld32(block + _SIZE)
        if which != 0:
            first = first - 4096
        if first < start + size and start < first + length:
            distance = pc - ld64(block + _PC)
            if distance >= 0 and distance < length:
                hit = 1
            invalidate_locked(machine, block)
            gone = 1
    if gone != 0:
        page_lines_locked(page)
    return hit


@exported
def ram_written(machine: int, gpa: int, size: int) -> None:
    """Somebody other than a vCPU (a device's DMA, a debugger) wrote RAM: drop what was translated from it.

    Takes tb_lock: call it without the GIL.
    """
    end = gpa + size
    while gpa < end:
        part = least(end, (gpa & -4096) + 4096) - gpa
        page = page_of(machine, gpa)
        if page != 0 and ld64(page + _P_BLOCKS) != 0:
            tb_lock(machine)
            invalidate_range(machine, gpa, part, -1)
            tb_unlock(machine)
        gpa += part


@native
def flush_locked(machine: int) -> None:
    """Forget every block and start the code buffer afresh. No vCPU may be inside JIT code."""
    block = ld64(machine + _BLOCK_START)
    top = ld64(machine + _BLOCK_TOP)
    while block < top:
        for i in range(2):
            gpa = ld64(block + _GPA + 8 * i)
            if gpa != -1:
                page = page_of(machine, gpa)
                if page != 0:
                    st64(page + _P_BLOCKS, 0)
                    st64(page + _P_LINES, 0)
        st32(block + _VALID, 0)
        block += _BLOCK_SIZE
    qht_clear(machine)
    st64(machine + _BLOCK_TOP, ld64(machine + _BLOCK_START))
    st64(machine + _CODE_TOP, ld64(machine + _CODE_START))
    st32(machine + _GENERATION, ld32(machine + _GENERATION) + 1)
    for i in range(ld64(machine + _CPU_COUNT)):
        cpu = ld64(machine + _CPUS + 8 * i)
        st64(cpu + _LAST_EXIT, 0)
        for n in range(2 * ld64(cpu + _CONTEXTS_USED)):
            jc_clear(cpu + _JUMP_CACHES + n * _JC_SIZE)
    cpu = ld64(machine + _CPUS)
    st64(cpu + _FLUSHES, ld64(cpu + _FLUSHES) + 1)


@exported
def flush_code(machine: int) -> None:
    """flush_locked under tb_lock; the vCPUs are stopped."""
    tb_lock(machine)
    flush_locked(machine)
    tb_unlock(machine)
