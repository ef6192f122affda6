"""Instructions that CPL and IOPL guard: flags, halting; and whether floating-point instructions may run."""

from frontends.x86.helpers.access import failed, leave_block, raise_exception, raise_gp, raise_ud, require_cpl0
from frontends.x86.helpers.env import (
    CPL,
    CR0,
    CR0_EM,
    CR0_MP,
    CR0_TS,
    CR4,
    CR4_OSFXSR,
    EFLAGS,
    FL_AC,
    FL_IF,
    FL_RF,
    FL_VIF,
    FL_VIP,
    FL_VM,
    HALTED,
    INT_SHADOW,
    MMU_INDEX,
    MONITOR_GPA,
    NM,
    PC,
    REASON_HALT,
)
from frontends.x86.helpers.flags import read_rflags, write_rflags
from frontends.x86.helpers.mode import check_interrupts, x86_update_mode
from frontends.x86.helpers.returns import flags_mask
from frontends.x86.helpers.runtime import load_as
from tcg.runtime.memory import exported, ld32, ld64, native, st32, st64


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
