"""One delivery through the IDT in long mode, and what both modes share (SDM volume 3, 6.12, 6.14).

Everything is read and pushed first, with the new stack pointer in a local; guest registers change only when nothing can
fault any more.
"""

from frontends.x86.helpers.access import cpl_index, failed, raise_exception, raise_gp, system_load
from frontends.x86.helpers.descriptors import (
    canonical,
    desc_attr,
    desc_base,
    desc_dpl,
    desc_limit,
    descriptor_gva,
    long_mode,
    set_segment,
)
from frontends.x86.helpers.env import (
    ACCESS_WRITE,
    AT_CODE,
    AT_DB,
    AT_DC,
    AT_L,
    AT_P,
    AT_S,
    CPL,
    CS,
    DPL_SHIFT,
    EFLAGS,
    FL_IF,
    FL_NT,
    FL_RF,
    FL_TF,
    FL_VM,
    IDT_BASE,
    IDT_LIMIT,
    NP,
    PC,
    RSP,
    SEG_ATTR,
    SEG_BASE,
    SEG_LIMIT,
    SEG_SELECTOR,
    SS,
    SS_FAULT,
    TR,
    TS,
)
from frontends.x86.helpers.flags import read_rflags
from frontends.x86.helpers.mode import x86_update_mode
from frontends.x86.helpers.runtime import store_as, tlb_probe
from tcg.runtime.memory import ld32, ld64, lsr, native, st32, st64

EVENT_SOFT = 1  # INT n, INT3, INTO: the gate's DPL is checked
EVENT_ERROR = 2  # an error code is pushed
EVENT_EXT = 4  # not caused by the program: bit 0 of selector error codes
EVENT_RF = 8  # the pushed image has RF set
GATE_ERROR_IDT = 2


@native
def push(env: int, rsp: int, size: int, value: int, mmu_idx: int, ss_base: int, sp_mask: int) -> int:
    """Store below `rsp` (not yet the register); the new stack pointer. The caller tests failed()."""
    rsp = (rsp & ~sp_mask) | ((rsp - size) & sp_mask)
    if sp_mask == -1:
        gva = rsp
    else:
        gva = (ss_base + (rsp & sp_mask)) & 0xFFFFFFFF
    store_as(env, gva, size, value, mmu_idx)
    return rsp


@native
def stack_mask(attr: int) -> int:
    """Which bits of (E)SP a legacy-mode stack with these SS attributes uses."""
    return 0xFFFFFFFF if attr & AT_DB else 0xFFFF


@native
def interrupted_flags(env: int, event: int) -> int:
    flags = read_rflags(env) & ~FL_RF
    if event & EVENT_RF:
        flags |= FL_RF
    return flags


@native
def finish_delivery(env: int, clear_if: int, pc: int) -> None:
    eflags = ld32(env + EFLAGS) & ~(FL_TF | FL_NT | FL_RF | FL_VM)
    if clear_if:
        eflags &= ~FL_IF
    st32(env + EFLAGS, eflags)
    st64(env + PC, pc)
    x86_update_mode(env)


@native
def tss_stack64(env: int, offset: int, error: int) -> int:
    """A stack pointer of the 64-bit TSS; 0 with a fault left when it is out of limit or not canonical."""
    if offset + 7 > ld32(env + SEG_LIMIT + 4 * TR) or not ld32(env + SEG_ATTR + 4 * TR) & AT_P:
        return raise_exception(env, TS, (ld32(env + SEG_SELECTOR + 4 * TR) & 0xFFFC) | error)
    rsp = system_load(env, ld64(env + SEG_BASE + 8 * TR) + offset, 8)
    if failed(env):
        return 0
    if not canonical(rsp):
        return raise_exception(env, SS_FAULT, error)
    return rsp


@native
def code_target(env: int, selector: int, ext: int) -> int:
    """The code descriptor a gate leads to, checked (SDM vol. 2, INT n); 0 with a fault left."""
    if selector & 0xFFFC == 0:
        return raise_gp(env, ext)
    error = (selector & 0xFFFC) | ext
    gva = descriptor_gva(env, selector, 8)
    if gva == -1:
        return raise_gp(env, error)
    desc = system_load(env, gva, 8)
    if failed(env):
        return 0
    attr = desc_attr(desc)
    if attr & (AT_S | AT_CODE) != AT_S | AT_CODE or desc_dpl(desc) > ld32(env + CPL):
        return raise_gp(env, error)
    if not attr & AT_P:
        return raise_exception(env, NP, error)
    if long_mode(env) and attr & (AT_L | AT_DB) != AT_L:
        return raise_gp(env, error)
    return desc


@native
def push_frame64(env: int, top: int, frame: int, index: int, error: int, event: int, return_pc: int) -> int:
    """The frame from `top` down to `frame`: SS, RSP, RFLAGS, CS, RIP, error code; 0 with a fault left."""
    flags = interrupted_flags(env, event)
    if top - 1 >> 12 == frame >> 12:
        hva = tlb_probe(env, top - 8, ACCESS_WRITE, index)
        if hva == -1:
            return 0
        if hva != 0:
            st64(hva, ld32(env + SEG_SELECTOR + 4 * SS))
            st64(hva - 8, ld64(env + RSP))
            st64(hva - 16, flags)
            st64(hva - 24, ld32(env + SEG_SELECTOR + 4 * CS))
            st64(hva - 32, return_pc)
            if event & EVENT_ERROR:
                st64(hva - 40, error)
            return 1
    store_as(env, top - 8, 8, ld32(env + SEG_SELECTOR + 4 * SS), index)
    if failed(env):
        return 0
    store_as(env, top - 16, 8, ld64(env + RSP), index)
    if failed(env):
        return 0
    store_as(env, top - 24, 8, flags, index)
    if failed(env):
        return 0
    store_as(env, top - 32, 8, ld32(env + SEG_SELECTOR + 4 * CS), index)
    if failed(env):
        return 0
    store_as(env, top - 40, 8, return_pc, index)
    if failed(env):
        return 0
    if event & EVENT_ERROR:
        store_as(env, top - 48, 8, error, index)
        if failed(env):
            return 0
    return 1


@native
def deliver64(env: int, vector: int, error: int, event: int, return_pc: int) -> None:
    """One delivery in long mode (SDM vol. 3, 6.14)."""
    ext = 1 if event & EVENT_EXT else 0
    gate_error = vector << 3 | GATE_ERROR_IDT | ext
    if vector * 16 + 15 > ld32(env + IDT_LIMIT):
        raise_gp(env, gate_error)
        return
    gate = ld64(env + IDT_BASE) + vector * 16
    low = system_load(env, gate, 8)
    if failed(env):
        return
    high = system_load(env, gate + 8, 8)
    if failed(env):
        return
    kind = lsr(low, 40) & 31
    cpl = ld32(env + CPL)
    if kind != 14 and kind != 15:
        raise_gp(env, gate_error)
        return
    if event & EVENT_SOFT and desc_dpl(low) < cpl:
        raise_gp(env, gate_error)
        return
    if not lsr(low, 32) & AT_P:
        raise_exception(env, NP, gate_error)
        return
    selector = lsr(low, 16) & 0xFFFF
    target = (low & 0xFFFF) | (lsr(low, 32) & 0xFFFF0000) | (high & 0xFFFFFFFF) << 32
    desc = code_target(env, selector, ext)
    if failed(env):
        return
    if not canonical(target):
        raise_gp(env, ext)
        return
    new_cpl = cpl
    if not desc_attr(desc) & AT_DC:
        new_cpl = desc_dpl(desc)
    ist = lsr(low, 32) & 7
    if ist:
        rsp = tss_stack64(env, 28 + 8 * ist, ext)
    elif new_cpl < cpl:
        rsp = tss_stack64(env, 4 + 8 * new_cpl, ext)
    else:
        rsp = ld64(env + RSP)
    if failed(env):
        return
    rsp &= ~15
    frame = rsp - 40
    if event & EVENT_ERROR:
        frame -= 8
    if not canonical(frame) or not canonical(rsp - 1):
        raise_exception(env, SS_FAULT, ext)
        return
    if not push_frame64(env, rsp, frame, cpl_index(env, new_cpl), error, event, return_pc):
        return
    if new_cpl < cpl:
        set_segment(env, SS, new_cpl, 0, 0, new_cpl << DPL_SHIFT)
    st64(env + RSP, frame)
    set_segment(env, CS, (selector & 0xFFFC) | new_cpl, desc_base(desc), desc_limit(desc), desc_attr(desc) | 0x100)
    st32(env + CPL, new_cpl)
    finish_delivery(env, 1 if kind == 14 else 0, target)
