"""SYSCALL, SYSRET, SYSENTER, SYSEXIT: flat segments, whatever the descriptor tables say (SDM volume 2)."""

from frontends.x86.helpers.access import raise_gp, raise_ud
from frontends.x86.helpers.descriptors import canonical, in_code64, long_mode, set_segment
from frontends.x86.helpers.env import (
    AT_CODE,
    AT_DB,
    AT_G,
    AT_L,
    AT_P,
    AT_RW,
    AT_S,
    CPL,
    CR0,
    CR0_PE,
    CS,
    CSTAR,
    DPL_SHIFT,
    EFER,
    EFER_SCE,
    EFLAGS,
    FL_IF,
    FL_RF,
    FL_VM,
    LSTAR,
    PC,
    R11,
    RCX,
    RDX,
    RSP,
    SFMASK,
    SS,
    STAR,
    SYSENTER_CS,
    SYSENTER_EIP,
    SYSENTER_ESP,
)
from frontends.x86.helpers.flags import read_rflags, write_rflags
from frontends.x86.helpers.mode import check_interrupts, x86_update_mode
from tcg.runtime.memory import exported, ld32, ld64, lsr, native, st32, st64

ATTR_CODE64 = AT_P | AT_S | AT_CODE | AT_RW | 0x100 | AT_L | AT_G
ATTR_CODE32 = AT_P | AT_S | AT_CODE | AT_RW | 0x100 | AT_DB | AT_G
ATTR_STACK = AT_P | AT_S | AT_RW | 0x100 | AT_DB | AT_G
DPL3 = 3 << DPL_SHIFT


@native
def flat_code(env: int, selector: int, attr: int, cpl: int) -> None:
    """CS and SS as the fast system calls load them: flat, whatever the tables say."""
    st32(env + CPL, cpl)
    set_segment(env, CS, (selector & 0xFFFC) | cpl, 0, 0xFFFFFFFF, attr | cpl << DPL_SHIFT)


@exported
def helper_x86_syscall(env: int, next_pc: int) -> None:
    """SYSCALL (AMD64 vol. 3: in 64-bit, compatibility and legacy mode; SDM vol. 2 for 64-bit mode)."""
    if not ld64(env + EFER) & EFER_SCE or not ld64(env + CR0) & CR0_PE:
        raise_ud(env)
        return
    star = ld64(env + STAR)
    selector = lsr(star, 32) & 0xFFFC
    if long_mode(env):
        flags = read_rflags(env) & ~FL_RF
        st64(env + RCX, next_pc)
        st64(env + R11, flags)
        if in_code64(env):
            st64(env + PC, ld64(env + LSTAR))
        else:
            st64(env + PC, ld64(env + CSTAR))
        write_rflags(env, flags & ~ld64(env + SFMASK) & 0xFFFFFFFF)
        flat_code(env, selector, ATTR_CODE64, 0)
    else:
        st64(env + RCX, next_pc & 0xFFFFFFFF)
        st64(env + PC, star & 0xFFFFFFFF)
        st32(env + EFLAGS, ld32(env + EFLAGS) & ~(FL_IF | FL_RF | FL_VM))
        flat_code(env, selector, ATTR_CODE32, 0)
    set_segment(env, SS, selector + 8, 0, 0xFFFFFFFF, ATTR_STACK)
    x86_update_mode(env)


@exported
def helper_x86_sysret(env: int, size: int) -> None:
    """SYSRET to 64-bit code (size 8) or 32-bit code. A pc that is not canonical is #GP(0) here, as Intel does it."""
    if not ld64(env + EFER) & EFER_SCE or not ld64(env + CR0) & CR0_PE:
        raise_ud(env)
        return
    pc = ld64(env + RCX)
    if ld32(env + CPL) != 0 or (size == 8 and not canonical(pc)):
        raise_gp(env, 0)
        return
    selector = lsr(ld64(env + STAR), 48) & 0xFFFF
    if long_mode(env):
        write_rflags(env, (ld64(env + R11) & 0x3C7FD7) | 2)
    else:
        st32(env + EFLAGS, ld32(env + EFLAGS) | FL_IF)
    if size == 8:
        flat_code(env, selector + 16, ATTR_CODE64, 3)
    else:
        pc &= 0xFFFFFFFF
        flat_code(env, selector, ATTR_CODE32, 3)
    st64(env + PC, pc)
    set_segment(env, SS, (selector + 8) | 3, 0, 0xFFFFFFFF, ATTR_STACK | DPL3)
    x86_update_mode(env)
    check_interrupts(env)


@exported
def helper_x86_sysenter(env: int) -> None:
    """SYSENTER (the frontend decides where it is an instruction)."""
    selector = ld64(env + SYSENTER_CS) & 0xFFFC
    if selector == 0 or not ld64(env + CR0) & CR0_PE:
        raise_gp(env, 0)
        return
    st32(env + EFLAGS, ld32(env + EFLAGS) & ~(FL_IF | FL_RF | FL_VM))
    flat_code(env, selector, ATTR_CODE64 if long_mode(env) else ATTR_CODE32, 0)
    set_segment(env, SS, selector + 8, 0, 0xFFFFFFFF, ATTR_STACK)
    st64(env + RSP, ld64(env + SYSENTER_ESP))
    st64(env + PC, ld64(env + SYSENTER_EIP))
    x86_update_mode(env)


@exported
def helper_x86_sysexit(env: int, size: int) -> None:
    """SYSEXIT to 64-bit (size 8) or 32-bit code: RDX is the new pc, RCX the new stack pointer."""
    selector = ld64(env + SYSENTER_CS) & 0xFFFC
    pc = ld64(env + RDX)
    rsp = ld64(env + RCX)
    if selector == 0 or ld32(env + CPL) != 0 or not ld64(env + CR0) & CR0_PE:
        raise_gp(env, 0)
        return
    if size == 8:
        if not canonical(pc) or not canonical(rsp):
            raise_gp(env, 0)
            return
        flat_code(env, selector + 32, ATTR_CODE64, 3)
        set_segment(env, SS, (selector + 40) | 3, 0, 0xFFFFFFFF, ATTR_STACK | DPL3)
    else:
        pc &= 0xFFFFFFFF
        rsp &= 0xFFFFFFFF
        flat_code(env, selector + 16, ATTR_CODE32, 3)
        set_segment(env, SS, (selector + 24) | 3, 0, 0xFFFFFFFF, ATTR_STACK | DPL3)
    st64(env + RSP, rsp)
    st64(env + PC, pc)
    x86_update_mode(env)
