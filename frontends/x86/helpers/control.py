"""Control and debug registers, TLB contexts, flag instructions, halting (SDM volume 3, 2.5, 4.10, 17.2; volume 2).

TLB contexts: with CR4.PCIDE each PCID in use has one of the run-time's contexts (context_tag: PCID + 1), the least
recently used one is taken over when all are in use. Without PCIDE everything is context 0.
"""

from frontends.x86.helpers.access import (
    failed,
    leave_block,
    raise_exception,
    raise_gp,
    raise_ud,
    require_cpl0,
)
from frontends.x86.helpers.env import (
    AT_L,
    CONTEXT,
    CONTEXT_AGE,
    CONTEXT_CLOCK,
    CONTEXT_TAG,
    CPL,
    CR0,
    CR0_AM,
    CR0_CD,
    CR0_EM,
    CR0_ET,
    CR0_MP,
    CR0_NE,
    CR0_NW,
    CR0_PE,
    CR0_PG,
    CR0_TS,
    CR0_WP,
    CR2,
    CR3,
    CR4,
    CR4_DE,
    CR4_FSGSBASE,
    CR4_MCE,
    CR4_OSFXSR,
    CR4_OSXMMEXCPT,
    CR4_OSXSAVE,
    CR4_PAE,
    CR4_PCE,
    CR4_PCIDE,
    CR4_PGE,
    CR4_PSE,
    CR4_SMAP,
    CR4_SMEP,
    CR4_TSD,
    CS,
    DR,
    EFER,
    EFER_LMA,
    EFER_LME,
    EFLAGS,
    FL_AC,
    FL_IF,
    FL_RF,
    FL_VIF,
    FL_VIP,
    FL_VM,
    HALTED,
    INT_SHADOW,
    LOW_GLOBALS,
    MMU_INDEX,
    MONITOR_GPA,
    NM,
    PC,
    PHYS_MASK,
    REASON_HALT,
    SEG_ATTR,
)
from frontends.x86.helpers.flags import read_rflags, write_rflags
from frontends.x86.helpers.mode import check_interrupts, x86_update_mode
from frontends.x86.helpers.paging import PTE_P, RESERVED_HIGH, read_entry64
from frontends.x86.helpers.runtime import (
    ask,
    load_as,
    tlb_flush_all,
    tlb_flush_context,
    tlb_flush_page,
    tlb_flush_page_all,
    tlb_switch,
)
from frontends.x86.helpers.segments import canonical, in_code64, long_mode
from frontends.x86.helpers.transfers import flags_mask
from tcg.runtime.layout import N_CONTEXTS, Callback
from tcg.runtime.memory import exported, ld32, ld64, lsr, native, st32, st64

CR0_BITS = (
    CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG
)  # the others stay 0
CR4_BASE = CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT
CR4_ALLOWED = CR4_BASE | CR4_FSGSBASE | CR4_PCIDE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP
CR4_FLUSHES = CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP
CR3_NO_FLUSH = -(1 << 63)
READ_CR8, WRITE_CR8 = int(Callback.GUEST), int(Callback.GUEST) + 1


# --- TLB contexts -----------------------------------------------------------------------------------------------------
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


# --- control registers ------------------------------------------------------------------------------------------------
@native
def pdptes_ok(env: int, cr3: int) -> int:
    """Whether the four PDPTEs that legacy PAE paging loads have no reserved bit set (SDM vol. 3, 4.4.1)."""
    for n in range(4):
        entry = read_entry64(env, (cr3 & 0xFFFFFFE0) + 8 * n)
        if entry & PTE_P and entry & (RESERVED_HIGH | -(1 << 52) | 0x1E6):
            return 0
    return 1


@native
def write_cr0(env: int, value: int) -> None:
    old = ld64(env + CR0)
    if lsr(value, 32) or (value & CR0_PG and not value & CR0_PE) or (value & CR0_NW and not value & CR0_CD):
        raise_gp(env, 0)
        return
    value = (value & CR0_BITS) | CR0_ET
    efer = ld64(env + EFER)
    cr4 = ld64(env + CR4)
    if value & CR0_PG and not old & CR0_PG:
        if efer & EFER_LME:
            if not cr4 & CR4_PAE or ld32(env + SEG_ATTR + 4 * CS) & AT_L:
                raise_gp(env, 0)
                return
            st64(env + EFER, efer | EFER_LMA)
        elif cr4 & CR4_PAE and not pdptes_ok(env, ld64(env + CR3)):
            raise_gp(env, 0)
            return
    if old & CR0_PG and not value & CR0_PG:
        if in_code64(env) or cr4 & CR4_PCIDE:
            raise_gp(env, 0)
            return
        st64(env + EFER, efer & ~EFER_LMA)
    st64(env + CR0, value)
    if (old ^ value) & (CR0_PG | CR0_WP | CR0_PE):
        reset_contexts(env)
    x86_update_mode(env)


@native
def write_cr3(env: int, value: int) -> None:
    flush = 1
    cr4 = ld64(env + CR4)
    if long_mode(env):
        if cr4 & CR4_PCIDE and value & CR3_NO_FLUSH:
            flush = 0
            value &= ~CR3_NO_FLUSH
        if value & ~PHYS_MASK:
            raise_gp(env, 0)
            return
    else:
        value &= 0xFFFFFFFF
        if cr4 & CR4_PAE and ld64(env + CR0) & CR0_PG and not pdptes_ok(env, value):
            raise_gp(env, 0)
            return
    st64(env + CR3, value)
    switch_address_space(env, flush)


@native
def write_cr4(env: int, value: int) -> None:
    old = ld64(env + CR4)
    bad = value & ~CR4_ALLOWED != 0 or (long_mode(env) and not value & CR4_PAE)
    if value & CR4_PCIDE and not old & CR4_PCIDE and (not long_mode(env) or ld64(env + CR3) & 0xFFF):
        bad = True
    if bad:
        raise_gp(env, 0)
        return
    st64(env + CR4, value)
    if (old ^ value) & CR4_FLUSHES:
        reset_contexts(env)
    x86_update_mode(env)


@exported
def helper_x86_read_cr(env: int, number: int) -> int:
    """MOV r, CRn: CPL 0 only; CR1, CR5 to CR7 and above CR8 are #UD."""
    if not require_cpl0(env):
        return 0
    if number == 0:
        return ld64(env + CR0)
    if number == 2:
        return ld64(env + CR2)
    if number == 3:
        return ld64(env + CR3)
    if number == 4:
        return ld64(env + CR4)
    if number == 8:
        return ask(env, READ_CR8, 0, 0, 0)
    return raise_ud(env)


@exported
def helper_x86_write_cr(env: int, number: int, value: int) -> None:
    """MOV CRn, r with every check of SDM vol. 2, "MOV - Move to/from Control Registers"."""
    if not require_cpl0(env):
        return
    if number == 0:
        write_cr0(env, value)
    elif number == 2:
        st64(env + CR2, value)
    elif number == 3:
        write_cr3(env, value)
    elif number == 4:
        write_cr4(env, value)
    elif number == 8:
        if value & ~15:
            raise_gp(env, 0)
        else:
            ask(env, WRITE_CR8, value, 0, 0)
    else:
        raise_ud(env)


@exported
def helper_x86_clts(env: int) -> None:
    if require_cpl0(env):
        st64(env + CR0, ld64(env + CR0) & ~CR0_TS)
        x86_update_mode(env)


@exported
def helper_x86_lmsw(env: int, value: int) -> None:
    """LMSW: PE, MP, EM, TS; PE cannot be cleared."""
    if require_cpl0(env):
        old = ld64(env + CR0)
        write_cr0(env, (old & ~0xE) | (value & 0xF))


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


@exported
def helper_x86_wbinvd(env: int) -> None:
    require_cpl0(env)


# --- debug registers: stored; GD and hardware breakpoints are not implemented -----------------------------------------
@native
def debug_number(env: int, number: int) -> int:
    """The debug register meant: DR4 and DR5 are DR6 and DR7, or #UD with CR4.DE; -1 with a fault left."""
    if not require_cpl0(env):
        return -1
    if number > 7 or (number & 6 == 4 and ld64(env + CR4) & CR4_DE):
        raise_ud(env)
        return -1
    if number & 6 == 4:
        return number + 2
    return number


@exported
def helper_x86_read_dr(env: int, number: int) -> int:
    number = debug_number(env, number)
    if number < 0:
        return 0
    return ld64(env + DR + 8 * number)


@exported
def helper_x86_write_dr(env: int, number: int, value: int) -> None:
    """MOV DRn, r. NOTE: DR7 enables nothing yet; Linux uses it only for hardware breakpoints."""
    number = debug_number(env, number)
    if number < 0:
        return
    if number >= 6:
        if in_code64(env) and lsr(value, 32):
            raise_gp(env, 0)
            return
        if number == 6:
            value = (value & 0xE00F) | 0xFFFF0FF0
        else:
            value = (value & 0xFFFF2BFF) | 0x400
    st64(env + DR + 8 * number, value)


# --- flags ------------------------------------------------------------------------------------------------------------
@exported
def helper_x86_popf(env: int, value: int, size: int) -> None:
    """POPF with the operand popped: what CPL and IOPL allow is loaded, RF is cleared (SDM vol. 2, POPF)."""
    mask = flags_mask(env, size)
    flags = read_rflags(env)
    write_rflags(env, ((flags & ~mask) | (value & mask)) & ~(FL_RF | FL_VIF | FL_VIP | FL_VM))
    x86_update_mode(env)
    check_interrupts(env)


@native
def io_privileged(env: int) -> int:
    return 1 if ld32(env + CPL) <= (ld32(env + EFLAGS) >> 12) & 3 else 0


@exported
def helper_x86_cli(env: int) -> None:
    """CLI: #GP(0) above IOPL (no VME, no PVI)."""
    if io_privileged(env):
        st32(env + EFLAGS, ld32(env + EFLAGS) & ~FL_IF)
    else:
        raise_gp(env, 0)


@exported
def helper_x86_sti(env: int) -> None:
    """STI: interrupts are held off for one more instruction when IF was clear."""
    if not io_privileged(env):
        raise_gp(env, 0)
        return
    eflags = ld32(env + EFLAGS)
    if not eflags & FL_IF:
        st32(env + EFLAGS, eflags | FL_IF)
        st32(env + INT_SHADOW, 1)
    check_interrupts(env)


@native
def set_ac(env: int, value: int) -> None:
    """CLAC, STAC: #UD outside CPL 0."""
    if ld32(env + CPL) != 0:
        raise_ud(env)
        return
    st32(env + EFLAGS, (ld32(env + EFLAGS) & ~FL_AC) | value)
    x86_update_mode(env)


@exported
def helper_x86_clac(env: int) -> None:
    set_ac(env, 0)


@exported
def helper_x86_stac(env: int) -> None:
    set_ac(env, FL_AC)


# --- halting ----------------------------------------------------------------------------------------------------------
@native
def halt(env: int, next_pc: int) -> None:
    st64(env + PC, next_pc)
    st32(env + HALTED, 1)
    st32(env + INT_SHADOW, 0)
    leave_block(env, REASON_HALT)


@exported
def helper_x86_hlt(env: int, next_pc: int) -> None:
    if require_cpl0(env):
        halt(env, next_pc)


@exported
def helper_x86_monitor(env: int, gva: int) -> None:
    """MONITOR: the hint in ECX must be 0; the address is read, then watched (by waking up at any interrupt)."""
    if not require_cpl0(env):
        return
    load_as(env, gva, 1, ld32(env + MMU_INDEX))
    if not failed(env):
        st64(env + MONITOR_GPA, gva)


@exported
def helper_x86_mwait(env: int, next_pc: int) -> None:
    """MWAIT. NOTE: with one vCPU only an interrupt can end the wait, so it is HLT; SMP needs stores to wake it."""
    if require_cpl0(env):
        halt(env, next_pc)


@exported
def helper_x86_check_fpu(env: int, kind: int) -> None:
    """Before an x87 (0), WAIT (1), MMX (2) or SSE (3) instruction: #NM or #UD by CR0, CR4 (SDM vol. 3, table 2-2)."""
    cr0 = ld64(env + CR0)
    if kind == 1:
        if cr0 & (CR0_MP | CR0_TS) == CR0_MP | CR0_TS:
            raise_exception(env, NM, 0)
    elif kind == 0:
        if cr0 & (CR0_EM | CR0_TS):
            raise_exception(env, NM, 0)
    elif cr0 & CR0_EM or (kind == 3 and not ld64(env + CR4) & CR4_OSFXSR):
        raise_ud(env)
    elif cr0 & CR0_TS:
        raise_exception(env, NM, 0)
