"""Control and debug registers (SDM volume 3, 2.5 and 17.2; volume 2, MOV to and from control registers)."""

from frontends.x86.helpers.access import raise_gp, raise_ud, require_cpl0
from frontends.x86.helpers.contexts import reset_contexts, switch_address_space
from frontends.x86.helpers.descriptors import in_code64, long_mode
from frontends.x86.helpers.env import (
    AT_L,
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
    PHYS_MASK,
    SEG_ATTR,
)
from frontends.x86.helpers.mode import x86_update_mode
from frontends.x86.helpers.paging import PTE_P, RESERVED_HIGH, read_entry64
from frontends.x86.helpers.runtime import ask
from tcg.runtime.layout import Callback
from tcg.runtime.memory import exported, ld32, ld64, lsr, native, st64

CR0_BITS = (
    CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG
)  # the others stay 0
CR4_BASE = CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT
CR4_ALLOWED = CR4_BASE | CR4_FSGSBASE | CR4_PCIDE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP
CR4_FLUSHES = CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP
CR3_NO_FLUSH = -(1 << 63)
READ_CR8, WRITE_CR8 = int(Callback.GUEST), int(Callback.GUEST) + 1


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
