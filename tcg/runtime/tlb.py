"""The software TLB: look-up, fill, growth, flushes; and where RAM is.

Every address-space context has one TLB for each mmu index (mmu index 1 is the unprivileged one) and a jump cache for
each of user and not user. Switching the context or index changes three words of env. A TLB is changed by its own
vCPU's thread only, and no pointer to an entry survives a fill, a callback or a lock.

An entry's tags are page | flags, or all ones; its info record (physical page, protection) is found by its index.
Entries pushed out go through an 8-entry victim TLB. A table doubles when it has pushed out half of its size, and
halves at a flush that finds it less than an eighth used.
"""

from tcg.runtime.hooks import guest_translate
from tcg.runtime.layout import (
    CPU,
    ENV,
    JC_BITS,
    JC_BYTES,
    JC_ENTRIES,
    JC_ENTRY,
    JUMP_CACHE,
    MACHINE,
    N_CONTEXTS,
    N_MMU_INDEXES,
    PAGE,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
    RAM_RANGE,
    STATS,
    TLB,
    TLB_BYTES,
    TLB_ENTRY,
    TLB_GLOBAL,
    TLB_INFO,
    TLB_INFO_AT,
    TLB_INVALID,
    TLB_LARGE,
    TLB_MAX_ENTRIES,
    TLB_MIN_ENTRIES,
    TLB_MMIO,
    TLB_NOTDIRTY,
    TLB_READONLY,
    TLB_VICTIM_AT,
    TLB_VICTIM_INFO_AT,
    VICTIM_ENTRIES,
)
from tcg.runtime.memory import exported, ld32, ld64, least, lsr, memcpy, memset, native, shl, st32, st64, ult

_ENV_CPU = ENV.offset("cpu")
_ENV_MODE = ENV.offset("mode")
_ENV_MMU_INDEX = ENV.offset("mmu_index")
_ENV_TLB_MASK = ENV.offset("tlb_mask")
_ENV_TLB_TABLE = ENV.offset("tlb_table")
_ENV_JC_TABLE = ENV.offset("jc_table")
_MACHINE = CPU.offset("machine")
_CONTEXT = CPU.offset("context")
_CONTEXTS_USED = CPU.offset("contexts_used")
_TLBS = CPU.offset("tlbs")
_JUMP_CACHES = CPU.offset("jump_caches")
_WALK_GPA = CPU.offset("walk_gpa")
_WALK_PROT = CPU.offset("walk_prot")
_WALK_SIZE = CPU.offset("walk_size")
_STATS = CPU.offset("stats")
_TLB_MISSES = _STATS + STATS.offset("tlb_misses")
_VICTIM_HITS = _STATS + STATS.offset("victim_hits")
_WALKS = _STATS + STATS.offset("walks")
_TLB_FLUSHES = _STATS + STATS.offset("tlb_flushes")
_TLB_PAGE_FLUSHES = _STATS + STATS.offset("tlb_page_flushes")
_TLB_RESIZES = _STATS + STATS.offset("tlb_resizes")
_TABLE = TLB.offset("table")
_MASK = TLB.offset("mask")
_USED = TLB.offset("used")
_EVICTED = TLB.offset("evicted")
_VICTIM = TLB.offset("victim")
_LARGE = TLB.offset("large")
_HUGE = TLB.offset("huge")
_TLB_SIZE = TLB.size
_WRITE = TLB_ENTRY.offset("write")
_CODE = TLB_ENTRY.offset("code")
_ADDEND = TLB_ENTRY.offset("addend")
_ENTRY_SIZE = TLB_ENTRY.size
_INFO_GPA = TLB_INFO.offset("gpa")
_INFO_FLAGS = TLB_INFO.offset("flags")
_INFO_SIZE = TLB_INFO.size
_JC_TABLE = JUMP_CACHE.offset("table")
_JC_MODE = JUMP_CACHE.offset("mode")
_JC_USED = JUMP_CACHE.offset("used")
_JC_LOCAL = JUMP_CACHE.offset("local")
_JC_PAGES = JUMP_CACHE.offset("pages")
_JC_SIZE = JUMP_CACHE.size
_JC_ENTRY_SIZE = JC_ENTRY.size
_RANGES = MACHINE.offset("ranges")
_RANGE_COUNT = MACHINE.offset("range_count")
_RANGE_SIZE = RAM_RANGE.size
_START = RAM_RANGE.offset("start")
_SIZE = RAM_RANGE.offset("size")
_HVA = RAM_RANGE.offset("hva")
_READONLY = RAM_RANGE.offset("readonly")
_PAGES = MACHINE.offset("pages")
_PAGE_COUNT = MACHINE.offset("page_count")
_PAGE_SIZE = PAGE.size
_PAGE_BLOCKS = PAGE.offset("blocks")
_PAGE_WRITABLE = PAGE.offset("writable")


# ---- physical memory


@native
def find_range(machine: int, gpa: int) -> int:
    """hva of the RAM_RANGE that has gpa, or 0."""
    at = ld64(machine + _RANGES)
    end = at + ld64(machine + _RANGE_COUNT) * _RANGE_SIZE
    while at < end:
        if ult(gpa - ld64(at + _START), ld64(at + _SIZE)):
            return at
        at += _RANGE_SIZE
    return 0


@exported
def ram_hva(env: int, gpa: int) -> int:
    """hva of the RAM (or ROM) byte at gpa, or -1 where there is none."""
    at = find_range(ld64(ld64(env + _ENV_CPU) + _MACHINE), gpa)
    if at == 0:
        return -1
    return ld64(at + _HVA) + gpa - ld64(at + _START)


@native
def page_of(machine: int, gpa: int) -> int:
    """hva of the PAGE record of gpa, or 0 where RAM never is."""
    n = lsr(gpa, 12)
    if n >= ld64(machine + _PAGE_COUNT):
        return 0
    return ld64(machine + _PAGES) + n * _PAGE_SIZE


# ---- contexts and jump caches


@native
def tlb_of(cpu: int, context: int, mmu_index: int) -> int:
    return cpu + _TLBS + (context * N_MMU_INDEXES + mmu_index) * _TLB_SIZE


@native
def jump_cache_of(cpu: int, context: int, mmu_index: int) -> int:
    return cpu + _JUMP_CACHES + (context * 2 + (mmu_index & 1)) * _JC_SIZE


@native
def jc_free(index: int) -> int:
    """What marks slot `index` free: a pc that cannot hit there. All ones is one, but for slot 0: there 1 is."""
    return -1 if index != 0 else 1


@native
def jc_clear(jc: int) -> None:
    """Empty the cache."""
    if ld64(jc + _JC_USED) != 0:
        memset(ld64(jc + _JC_TABLE), 0xFF, JC_BYTES)
        st64(ld64(jc + _JC_TABLE), jc_free(0))
        memset(jc + _JC_PAGES, 0, 512)
        st64(jc + _JC_USED, 0)
        st64(jc + _JC_LOCAL, 0)


@native
def jc_drop_page(jc: int, gva: int) -> None:
    """Drop the entries whose pc is in gva's page."""
    n = lsr(gva, 12) & 4095
    word = jc + _JC_PAGES + (n >> 6) * 8
    if lsr(ld64(word), n & 63) & 1 == 0:
        return
    st64(word, ld64(word) & ~shl(1, n & 63))
    table = ld64(jc + _JC_TABLE)
    page = lsr(gva, 12)
    # The page's pcs fill one aligned run of slots for each value of their low bits only after the xor: walk all.
    for i in range(JC_ENTRIES):
        at = table + i * _JC_ENTRY_SIZE
        pc = ld64(at)
        if lsr(pc, 12) == page:
            st64(at, jc_free(at - table))
        elif lsr(pc, 12) & 4095 == n and pc != -1:
            st64(word, ld64(word) | shl(1, n & 63))  # another page with the same bit stays


@native
def jc_drop_range(jc: int, gva: int, size: int) -> None:
    """Drop the entries of the aligned `size` bytes around gva, and of the page before, whose blocks may reach in."""
    table = ld64(jc + _JC_TABLE)
    base = gva & -size
    for i in range(JC_ENTRIES):
        pc = ld64(table + i * _JC_ENTRY_SIZE)
        if pc & -size == base or (pc + 4096) & -size == base:
            st64(table + i * _JC_ENTRY_SIZE, jc_free(i))


@native
def jc_fill(jc: int, pc: int, code: int, local: int) -> None:
    """Enter pc -> code. local: its page is not global (or not known to be)."""
    if local != 0:
        st64(jc + _JC_LOCAL, 1)
    n = lsr(pc, 12) & 4095
    word = jc + _JC_PAGES + (n >> 6) * 8
    st64(word, ld64(word) | shl(1, n & 63))
    st64(jc + _JC_USED, ld64(jc + _JC_USED) + 1)
    at = ld64(jc + _JC_TABLE) + ((pc ^ lsr(pc, JC_BITS)) & (JC_ENTRIES - 1)) * _JC_ENTRY_SIZE
    st64(at, -1)
    st64(at + 8, code)
    st64(at, pc)


@native
def jc_drop(jc: int, pc: int) -> None:
    """Forget pc."""
    index = (pc ^ lsr(pc, JC_BITS)) & (JC_ENTRIES - 1)
    at = ld64(jc + _JC_TABLE) + index * _JC_ENTRY_SIZE
    if ld64(at) == pc:
        st64(at, jc_free(index))


@exported
def tlb_switch(env: int, context: int, mmu_index: int) -> None:
    """Make (context, mmu_index) and env.mode current: the TLB and jump cache that JIT code sees."""
    cpu = ld64(env + _ENV_CPU)
    st64(cpu + _CONTEXT, context)
    st32(env + _ENV_MMU_INDEX, mmu_index)
    if context >= ld64(cpu + _CONTEXTS_USED):
        st64(cpu + _CONTEXTS_USED, context + 1)
    tlb = tlb_of(cpu, context, mmu_index)
    st64(env + _ENV_TLB_MASK, ld64(tlb + _MASK))
    st64(env + _ENV_TLB_TABLE, ld64(tlb + _TABLE))
    jc = jump_cache_of(cpu, context, mmu_index)
    mode = ld32(env + _ENV_MODE)
    if ld64(jc + _JC_MODE) != mode:
        jc_clear(jc)
        st64(jc + _JC_MODE, mode)
    st64(env + _ENV_JC_TABLE, ld64(jc + _JC_TABLE))


@native
def tlb_sync(env: int) -> None:
    """Reload env after the current TLB changed its size."""
    cpu = ld64(env + _ENV_CPU)
    tlb = tlb_of(cpu, ld64(cpu + _CONTEXT), ld32(env + _ENV_MMU_INDEX))
    st64(env + _ENV_TLB_MASK, ld64(tlb + _MASK))
    st64(env + _ENV_TLB_TABLE, ld64(tlb + _TABLE))


@exported
def cpu_init(cpu: int, tables: int, caches: int) -> None:
    """Give the CPU struct its TLB storage (N_TLBS * TLB_BYTES at `tables`) and jump caches, all empty; context 0."""
    for n in range(N_CONTEXTS * N_MMU_INDEXES):
        tlb = cpu + _TLBS + n * _TLB_SIZE
        st64(tlb + _TABLE, tables + n * TLB_BYTES)
        st64(tlb + _MASK, (TLB_MIN_ENTRIES - 1) * _ENTRY_SIZE)
        st64(tlb + _USED, 1)
        tlb_clear(tlb)
    for n in range(N_CONTEXTS * 2):
        jc = cpu + _JUMP_CACHES + n * _JC_SIZE
        st64(jc + _JC_TABLE, caches + n * JC_BYTES)
        st64(jc + _JC_MODE, -1)
        st64(jc + _JC_USED, 1)
        jc_clear(jc)


# ---- fills


@native
def entry_used(at: int) -> int:
    """1 if any tag of the entry at `at` is a page's."""
    if ld64(at) & ld64(at + _WRITE) & ld64(at + _CODE) != -1:
        return 1
    return 0


@native
def entry_page(at: int) -> int:
    """The page of an entry in use."""
    tag = ld64(at)
    if tag == -1:
        tag = ld64(at + _WRITE)
    if tag == -1:
        tag = ld64(at + _CODE)
    return tag & -4096


@native
def tlb_grow(tlb: int) -> None:
    """Double the table, its entries kept: entry i stays or goes to i + old size."""
    table = ld64(tlb + _TABLE)
    size = ld64(tlb + _MASK) + _ENTRY_SIZE
    count = size // _ENTRY_SIZE
    memset(table + size, 0xFF, size)
    mask = 2 * size - _ENTRY_SIZE
    for i in range(count):
        at = table + i * _ENTRY_SIZE
        if entry_used(at) != 0:
            to = lsr(entry_page(at), 7) & mask
            if to != i * _ENTRY_SIZE:
                memcpy(table + to, at, _ENTRY_SIZE)
                memset(at, 0xFF, _ENTRY_SIZE)
                info = table + TLB_INFO_AT
                memcpy(info + (i + count) * _INFO_SIZE, info + i * _INFO_SIZE, _INFO_SIZE)
    st64(tlb + _MASK, mask)
    st64(tlb + _EVICTED, 0)


@native
def tlb_insert(env: int, tlb: int, gva: int, gpa: int, prot: int, size: int) -> int:
    """Make an entry for gva's page (gpa: of the byte; size: of the mapping); its hva."""
    cpu = ld64(env + _ENV_CPU)
    machine = ld64(cpu + _MACHINE)
    page = gva & -4096
    gpa = gpa & -4096
    table = ld64(tlb + _TABLE)
    mask = ld64(tlb + _MASK)
    at = table + (lsr(gva, 7) & mask)
    if entry_used(at) != 0 and entry_page(at) != page:
        evicted = ld64(tlb + _EVICTED) + 1
        st64(tlb + _EVICTED, evicted)
        if evicted * 2 * _ENTRY_SIZE > mask and mask < (TLB_MAX_ENTRIES - 1) * _ENTRY_SIZE:
            tlb_grow(tlb)
            tlb_sync(env)
            st64(cpu + _TLB_RESIZES, ld64(cpu + _TLB_RESIZES) + 1)
            mask = ld64(tlb + _MASK)
            at = table + (lsr(gva, 7) & mask)
    info = table + TLB_INFO_AT + (at - table) // _ENTRY_SIZE * _INFO_SIZE
    if entry_used(at) != 0 and entry_page(at) != page:
        n = ld64(tlb + _VICTIM)
        st64(tlb + _VICTIM, (n + 1) & (VICTIM_ENTRIES - 1))
        memcpy(table + TLB_VICTIM_AT + n * _ENTRY_SIZE, at, _ENTRY_SIZE)
        memcpy(table + TLB_VICTIM_INFO_AT + n * _INFO_SIZE, info, _INFO_SIZE)
    flags = prot
    if size > 4096:
        flags |= TLB_LARGE
        large = tlb + _LARGE + lsr(gva, 63) * 8
        st64(large, ld64(large) | shl(1, lsr(gva, 21) & 63))
        if size == 1 << 22:
            st64(large, ld64(large) | shl(1, lsr(gva, 21) & 63 ^ 1))
        if size > 1 << 22:
            st64(tlb + _HUGE + lsr(gva, 63) * 8, 1)
    st64(info + _INFO_GPA, gpa)
    st64(info + _INFO_FLAGS, flags)
    ram = find_range(machine, gpa)
    tag = page
    write = page
    if ram == 0:
        tag = page | TLB_MMIO
        write = tag
        st64(at + _ADDEND, 0)
    else:
        st64(at + _ADDEND, ld64(ram + _HVA) + gpa - ld64(ram + _START) - page)
        if ld64(ram + _READONLY) != 0:
            write = page | TLB_READONLY
        elif prot & PROT_WRITE != 0:
            record = page_of(machine, gpa)
            if record != 0:
                if ld64(record + _PAGE_BLOCKS) != 0:
                    write = page | TLB_NOTDIRTY
                else:
                    st64(record + _PAGE_WRITABLE, 1)
    st64(at, tag if prot & PROT_READ != 0 else -1)
    st64(at + _WRITE, write if prot & PROT_WRITE != 0 else -1)
    st64(at + _CODE, tag if prot & PROT_EXEC != 0 else -1)
    st64(tlb + _USED, ld64(tlb + _USED) + 1)
    return at


@native
def tlb_find(env: int, gva: int, access: int, mmu_index: int) -> int:
    """hva of the entry that allows `access` (0 read, 1 write, 2 fetch) to gva's page, filled if need be.

    0: not allowed, the guest exception is in env.
    """
    cpu = ld64(env + _ENV_CPU)
    tlb = tlb_of(cpu, ld64(cpu + _CONTEXT), mmu_index)
    table = ld64(tlb + _TABLE)
    at = table + (lsr(gva, 7) & ld64(tlb + _MASK))
    page = gva & -4096
    if ld64(at + 8 * access) & (-4096 | TLB_INVALID) == page:
        return at
    st64(cpu + _TLB_MISSES, ld64(cpu + _TLB_MISSES) + 1)
    for n in range(VICTIM_ENTRIES):
        victim = table + TLB_VICTIM_AT + n * _ENTRY_SIZE
        if ld64(victim + 8 * access) & (-4096 | TLB_INVALID) == page:
            info = table + TLB_INFO_AT + (at - table) // _ENTRY_SIZE * _INFO_SIZE
            victim_info = table + TLB_VICTIM_INFO_AT + n * _INFO_SIZE
            for i in range(4):
                word = ld64(at + 8 * i)
                st64(at + 8 * i, ld64(victim + 8 * i))
                st64(victim + 8 * i, word)
            for i in range(2):
                word = ld64(info + 8 * i)
                st64(info + 8 * i, ld64(victim_info + 8 * i))
                st64(victim_info + 8 * i, word)
            st64(cpu + _VICTIM_HITS, ld64(cpu + _VICTIM_HITS) + 1)
            return at
    st64(cpu + _WALKS, ld64(cpu + _WALKS) + 1)
    if guest_translate(env, gva, access, mmu_index) != 0:
        return 0
    return tlb_insert(env, tlb, gva, ld64(cpu + _WALK_GPA), ld64(cpu + _WALK_PROT), ld64(cpu + _WALK_SIZE))


@native
def entry_info(env: int, at: int, mmu_index: int) -> int:
    cpu = ld64(env + _ENV_CPU)
    table = ld64(tlb_of(cpu, ld64(cpu + _CONTEXT), mmu_index) + _TABLE)
    return table + TLB_INFO_AT + (at - table) // _ENTRY_SIZE * _INFO_SIZE


@native
def entry_gpa(env: int, at: int, mmu_index: int) -> int:
    """Physical page of the entry that tlb_find gave for the current context."""
    return ld64(entry_info(env, at, mmu_index) + _INFO_GPA)


@native
def entry_is_local(env: int, at: int, mmu_index: int) -> int:
    """Nonzero if the entry's page is not global."""
    return (ld64(entry_info(env, at, mmu_index) + _INFO_FLAGS) & TLB_GLOBAL) ^ TLB_GLOBAL


# ---- flushes


@native
def tlb_clear(tlb: int) -> None:
    """Empty one TLB; shrink it when little of it was used."""
    used = ld64(tlb + _USED)
    if used == 0:
        return
    table = ld64(tlb + _TABLE)
    size = ld64(tlb + _MASK) + _ENTRY_SIZE
    if used * 8 * _ENTRY_SIZE < size and size > TLB_MIN_ENTRIES * _ENTRY_SIZE:
        size = size >> 1
        st64(tlb + _MASK, size - _ENTRY_SIZE)
    memset(table, 0xFF, size)
    memset(table + TLB_VICTIM_AT, 0xFF, VICTIM_ENTRIES * _ENTRY_SIZE)
    st64(tlb + _USED, 0)
    st64(tlb + _EVICTED, 0)
    st64(tlb + _LARGE, 0)
    st64(tlb + _LARGE + 8, 0)
    st64(tlb + _HUGE, 0)
    st64(tlb + _HUGE + 8, 0)


@native
def tlb_clear_local(tlb: int) -> None:
    """Drop the entries that are not global."""
    if ld64(tlb + _USED) == 0:
        return
    table = ld64(tlb + _TABLE)
    count = (ld64(tlb + _MASK) + _ENTRY_SIZE) // _ENTRY_SIZE
    kept = 0
    for i in range(count):
        if ld64(table + TLB_INFO_AT + i * _INFO_SIZE + _INFO_FLAGS) & TLB_GLOBAL == 0:
            memset(table + i * _ENTRY_SIZE, 0xFF, _ENTRY_SIZE)
        else:
            kept += entry_used(table + i * _ENTRY_SIZE)
    for i in range(VICTIM_ENTRIES):
        if ld64(table + TLB_VICTIM_INFO_AT + i * _INFO_SIZE + _INFO_FLAGS) & TLB_GLOBAL == 0:
            memset(table + TLB_VICTIM_AT + i * _ENTRY_SIZE, 0xFF, _ENTRY_SIZE)
    st64(tlb + _USED, kept + 1)


@exported
def tlb_flush_context(env: int, context: int, keep_global: int) -> None:
    """Empty all TLBs and jump caches of one context; with keep_global its global pages stay."""
    cpu = ld64(env + _ENV_CPU)
    st64(cpu + _TLB_FLUSHES, ld64(cpu + _TLB_FLUSHES) + 1)
    for index in range(N_MMU_INDEXES):
        if keep_global != 0:
            tlb_clear_local(tlb_of(cpu, context, index))
        else:
            tlb_clear(tlb_of(cpu, context, index))
    for index in range(2):
        jc = jump_cache_of(cpu, context, index)
        if keep_global == 0 or ld64(jc + _JC_LOCAL) != 0:
            jc_clear(jc)
    tlb_sync(env)


@exported
def tlb_flush_all(env: int) -> None:
    """Empty every TLB and jump cache of this vCPU."""
    for context in range(ld64(ld64(env + _ENV_CPU) + _CONTEXTS_USED)):
        tlb_flush_context(env, context, 0)


@native
def drop_entry(table: int, at: int, page: int) -> None:
    if entry_used(at) != 0 and entry_page(at) == page:
        memset(at, 0xFF, _ENTRY_SIZE)


@native
def tlb_drop_range(tlb: int, gva: int, size: int) -> None:
    """Drop the entries of the aligned `size` bytes (a power of two) around gva: fragments of a larger page."""
    table = ld64(tlb + _TABLE)
    mask = ld64(tlb + _MASK)
    base = gva & -size
    for n in range(least(size >> 12, (mask + _ENTRY_SIZE) // _ENTRY_SIZE)):
        at = table + (lsr(base + n * 4096, 7) & mask)
        if entry_used(at) != 0 and entry_page(at) & -size == base:
            memset(at, 0xFF, _ENTRY_SIZE)
    for n in range(VICTIM_ENTRIES):
        at = table + TLB_VICTIM_AT + n * _ENTRY_SIZE
        if entry_used(at) != 0 and entry_page(at) & -size == base:
            memset(at, 0xFF, _ENTRY_SIZE)


@exported
def tlb_flush_page(env: int, context: int, gva: int) -> None:
    """Drop gva's page from one context; where a large page may cover it, everything that it may cover."""
    cpu = ld64(env + _ENV_CPU)
    st64(cpu + _TLB_PAGE_FLUSHES, ld64(cpu + _TLB_PAGE_FLUSHES) + 1)
    page = gva & -4096
    half = lsr(gva, 63) * 8
    widest = 0
    for index in range(N_MMU_INDEXES):
        tlb = tlb_of(cpu, context, index)
        if ld64(tlb + _USED) == 0:
            continue
        table = ld64(tlb + _TABLE)
        if ld64(tlb + _HUGE + half) != 0:
            widest |= 1 << 30
            tlb_drop_range(tlb, gva, 1 << 30)
        elif lsr(ld64(tlb + _LARGE + half), lsr(gva, 21) & 63) & 1 != 0:
            widest |= 1 << 22
            tlb_drop_range(tlb, gva, 1 << 22)
        else:
            drop_entry(table, table + (lsr(gva, 7) & ld64(tlb + _MASK)), page)
            for n in range(VICTIM_ENTRIES):
                drop_entry(table, table + TLB_VICTIM_AT + n * _ENTRY_SIZE, page)
    for index in range(2):
        jc = jump_cache_of(cpu, context, index)
        if ld64(jc + _JC_USED) == 0:
            continue
        if widest != 0:
            jc_drop_range(jc, gva, 1 << 30 if widest >= 1 << 30 else 1 << 22)
        else:
            jc_drop_page(jc, gva)
            jc_drop_page(jc, gva - 4096)  # a block that begins there may go on into this page
    tlb_sync(env)


@exported
def tlb_flush_page_all(env: int, gva: int) -> None:
    """Drop gva's page from every context."""
    for context in range(ld64(ld64(env + _ENV_CPU) + _CONTEXTS_USED)):
        tlb_flush_page(env, context, gva)


@native
def tlb_protect(cpu: int, gpa: int) -> None:
    """The page at gpa gets its first translation: plain write entries for it become NOTDIRTY ones."""
    for n in range(ld64(cpu + _CONTEXTS_USED) * N_MMU_INDEXES):
        tlb = cpu + _TLBS + n * _TLB_SIZE
        if ld64(tlb + _USED) == 0:
            continue
        table = ld64(tlb + _TABLE)
        info = table + TLB_INFO_AT + _INFO_GPA
        for i in range((ld64(tlb + _MASK) + _ENTRY_SIZE) // _ENTRY_SIZE):
            if ld64(info + i * _INFO_SIZE) == gpa:
                at = table + i * _ENTRY_SIZE + _WRITE
                tag = ld64(at)
                if tag & 0xFFF == 0:
                    st64(at, tag | TLB_NOTDIRTY)
        for i in range(VICTIM_ENTRIES):
            if ld64(table + TLB_VICTIM_INFO_AT + i * _INFO_SIZE + _INFO_GPA) == gpa:
                at = table + TLB_VICTIM_AT + i * _ENTRY_SIZE + _WRITE
                tag = ld64(at)
                if tag & 0xFFF == 0:
                    st64(at, tag | TLB_NOTDIRTY)
