"""TLB contexts and their flushes: PCIDs, INVLPG, INVPCID (SDM volume 3, 4.10).

With CR4.PCIDE each PCID in use has one of the run-time's contexts (context_tag: PCID + 1); the least recently used one
is taken over when all are in use. Without PCIDE everything is context 0.
"""

from frontends.x86.helpers.access import failed, raise_gp, require_cpl0
from frontends.x86.helpers.descriptors import canonical, in_code64
from frontends.x86.helpers.env import (
    CONTEXT,
    CONTEXT_AGE,
    CONTEXT_CLOCK,
    CONTEXT_TAG,
    CR3,
    CR4,
    CR4_PCIDE,
    LOW_GLOBALS,
    MMU_INDEX,
)
from frontends.x86.helpers.runtime import (
    load_as,
    tlb_flush_all,
    tlb_flush_context,
    tlb_flush_page,
    tlb_flush_page_all,
    tlb_switch,
)
from tcg.runtime.layout import N_CONTEXTS
from tcg.runtime.memory import exported, ld32, ld64, lsr, native, st32


@native
def find_context(env: int, pcid: int) -> int:
    """The context that holds `pcid`, or -1."""
    for n in range(N_CONTEXTS):
        if ld32(env + CONTEXT_TAG + 4 * n) == pcid + 1:
            return n
    return -1


@native
def take_context(env: int, pcid: int) -> int:
    """An empty context for `pcid`: a free one, or the least recently used."""
    best = 0
    age = ld32(env + CONTEXT_AGE)
    for n in range(N_CONTEXTS):
        if ld32(env + CONTEXT_TAG + 4 * n) == 0:
            best = n
            break
        if ld32(env + CONTEXT_AGE + 4 * n) < age:
            best = n
            age = ld32(env + CONTEXT_AGE + 4 * n)
    tlb_flush_context(env, best, 0)
    st32(env + CONTEXT_TAG + 4 * best, pcid + 1)
    return best


@native
def use_context(env: int, context: int) -> None:
    clock = ld32(env + CONTEXT_CLOCK) + 1
    if clock > 0x7FFFFFFF:
        clock = 1
        for n in range(N_CONTEXTS):
            st32(env + CONTEXT_AGE + 4 * n, 0)
    st32(env + CONTEXT_CLOCK, clock)
    st32(env + CONTEXT_AGE + 4 * context, clock)
    st32(env + CONTEXT, context)
    tlb_switch(env, context, ld32(env + MMU_INDEX))


@native
def reset_contexts(env: int) -> None:
    """After a change that no cached translation survives: everything empty, the current PCID in context 0."""
    tlb_flush_all(env)
    st32(env + LOW_GLOBALS, 0)
    for n in range(N_CONTEXTS):
        st32(env + CONTEXT_TAG + 4 * n, 0)
    pcid = 0
    if ld64(env + CR4) & CR4_PCIDE:
        pcid = ld64(env + CR3) & 0xFFF
    st32(env + CONTEXT_TAG, pcid + 1)
    use_context(env, 0)


@exported
def x86_reset_contexts(env: int) -> None:
    """For the machine: the state in env has been set from outside."""
    reset_contexts(env)


@native
def switch_address_space(env: int, flush: int) -> None:
    """CR3 has been written; `flush` unless bit 63 of the operand asked to keep what the PCID has cached."""
    if not ld64(env + CR4) & CR4_PCIDE:
        tlb_flush_context(env, ld32(env + CONTEXT), 1)
        return
    pcid = ld64(env + CR3) & 0xFFF
    context = find_context(env, pcid)
    if context == -1:
        context = take_context(env, pcid)
    elif flush:
        tlb_flush_context(env, context, 1)
    use_context(env, context)


@exported
def helper_x86_invlpg(env: int, gva: int) -> None:
    """INVLPG: the page in the current PCID; where it may be global, in every context (SDM vol. 3, 4.10.4.1)."""
    if not require_cpl0(env):
        return
    if in_code64(env) and not canonical(gva):
        return
    if gva < 0 or ld32(env + LOW_GLOBALS):
        tlb_flush_page_all(env, gva)
    else:
        tlb_flush_page(env, ld32(env + CONTEXT), gva)


@exported
def helper_x86_invpcid(env: int, kind: int, gva: int) -> None:
    """INVPCID: 0 one address, 1 one PCID, 2 all, 3 all but global (SDM vol. 2)."""
    if not require_cpl0(env):
        return
    index = ld32(env + MMU_INDEX)
    low = load_as(env, gva, 8, index)
    if failed(env):
        return
    address = load_as(env, gva + 8, 8, index)
    if failed(env):
        return
    pcid = low & 0xFFF
    bad = lsr(kind, 2) != 0 or low & ~0xFFF != 0
    if kind < 2 and pcid and not ld64(env + CR4) & CR4_PCIDE:
        bad = True
    if kind == 0 and not canonical(address):
        bad = True
    if bad:
        raise_gp(env, 0)
        return
    if kind >= 2:
        for n in range(N_CONTEXTS):
            if ld32(env + CONTEXT_TAG + 4 * n) != 0:
                tlb_flush_context(env, n, 1 if kind == 3 else 0)
        return
    context = ld32(env + CONTEXT)
    if ld64(env + CR4) & CR4_PCIDE:
        context = find_context(env, pcid)
    if context == -1:
        return
    if kind == 0:
        tlb_flush_page(env, context, address)
    else:
        tlb_flush_context(env, context, 1)
