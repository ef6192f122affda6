"""One delivery through the IDT in protected mode without long mode (SDM volume 3, 6.12). Task gates: #GP, counted."""

from frontends.x86.helpers.access import cpl_index, failed, raise_exception, raise_gp, system_load, unimplemented
from frontends.x86.helpers.delivery import (
    EVENT_ERROR,
    EVENT_EXT,
    EVENT_SOFT,
    GATE_ERROR_IDT,
    code_target,
    finish_delivery,
    interrupted_flags,
    push,
    stack_mask,
)
from frontends.x86.helpers.descriptors import (
    check_stack_desc,
    desc_attr,
    desc_base,
    desc_dpl,
    desc_limit,
    descriptor_gva,
    set_segment,
)
from frontends.x86.helpers.env import (
    AT_DC,
    AT_P,
    CPL,
    CS,
    IDT_BASE,
    IDT_LIMIT,
    NP,
    RSP,
    SEG_ATTR,
    SEG_BASE,
    SEG_LIMIT,
    SEG_SELECTOR,
    SS,
    SS_FAULT,
    TR,
    TS,
    UNIMPLEMENTED_TASK_SWITCH,
)
from tcg.runtime.memory import ld32, ld64, lsr, native, st32, st64, ult

GATES32 = 0xC0E0  # types 5 task, 6 and 7 16-bit, 14 and 15 32-bit interrupt and trap gate
BUSY_TSS32 = 8  # type bit of a 32-bit TSS


@native
def inner_stack(env: int, new_cpl: int, ext: int) -> int:
    """Legacy TSS: the stack for `new_cpl`, as selector << 32 | (E)SP; a fault is left when out of limit."""
    kind = lsr(ld32(env + SEG_ATTR + 4 * TR), 8) & 15
    base = ld64(env + SEG_BASE + 8 * TR)
    limit = ld32(env + SEG_LIMIT + 4 * TR)
    if kind & BUSY_TSS32:
        offset = 4 + 8 * new_cpl
        if offset + 5 <= limit:
            sp = system_load(env, base + offset, 4)
            if failed(env):
                return 0
            return (system_load(env, base + offset + 4, 2) << 32) | sp
    else:
        offset = 2 + 4 * new_cpl
        if offset + 3 <= limit:
            sp = system_load(env, base + offset, 2)
            if failed(env):
                return 0
            return (system_load(env, base + offset + 2, 2) << 32) | sp
    return raise_exception(env, TS, (ld32(env + SEG_SELECTOR + 4 * TR) & 0xFFFC) | ext)


@native
def stack_desc(env: int, selector: int, cpl: int, ext: int) -> int:
    """The checked descriptor of an inner stack: #TS(selector) unless fit for `cpl`, #SS(selector) unless present."""
    error = (selector & 0xFFFC) | ext
    if selector & 0xFFFC == 0:
        return raise_exception(env, TS, ext)
    gva = descriptor_gva(env, selector, 8)
    if gva == -1:
        return raise_exception(env, TS, error)
    desc = system_load(env, gva, 8)
    if failed(env):
        return 0
    if not check_stack_desc(selector, desc, cpl):
        return raise_exception(env, TS, error)
    if not desc_attr(desc) & AT_P:
        return raise_exception(env, SS_FAULT, error)
    return desc


@native
def deliver32(env: int, vector: int, error: int, event: int, return_pc: int) -> None:
    """One delivery in protected mode without long mode (SDM vol. 3, 6.12): same or inner privilege."""
    ext = 1 if event & EVENT_EXT else 0
    gate_error = vector << 3 | GATE_ERROR_IDT | ext
    if vector * 8 + 7 > ld32(env + IDT_LIMIT):
        raise_gp(env, gate_error)
        return
    gate = system_load(env, (ld64(env + IDT_BASE) + vector * 8) & 0xFFFFFFFF, 8)
    if failed(env):
        return
    kind = lsr(gate, 40) & 31
    cpl = ld32(env + CPL)
    if not (GATES32 >> kind) & 1 or (event & EVENT_SOFT and desc_dpl(gate) < cpl):
        raise_gp(env, gate_error)
        return
    if not lsr(gate, 32) & AT_P:
        raise_exception(env, NP, gate_error)
        return
    if kind == 5:
        unimplemented(env, UNIMPLEMENTED_TASK_SWITCH, vector)
        return
    size = 4 if kind & 8 else 2
    selector = lsr(gate, 16) & 0xFFFF
    target = gate & 0xFFFF
    if size == 4:
        target |= lsr(gate, 32) & 0xFFFF0000
    desc = code_target(env, selector, ext)
    if failed(env):
        return
    new_cpl = cpl
    if not desc_attr(desc) & AT_DC:
        new_cpl = desc_dpl(desc)
    if ult(desc_limit(desc), target):
        raise_gp(env, ext)
        return
    index = cpl_index(env, new_cpl)
    rsp = ld64(env + RSP)
    ss_desc = 0
    ss_selector = ld32(env + SEG_SELECTOR + 4 * SS)
    ss_base = ld64(env + SEG_BASE + 8 * SS)
    mask = stack_mask(ld32(env + SEG_ATTR + 4 * SS))
    if new_cpl < cpl:
        stack = inner_stack(env, new_cpl, ext)
        if failed(env):
            return
        ss_selector = stack >> 32
        rsp = stack & 0xFFFFFFFF
        ss_desc = stack_desc(env, ss_selector, new_cpl, ext)
        if failed(env):
            return
        ss_base = desc_base(ss_desc)
        mask = stack_mask(desc_attr(ss_desc))
        rsp = push(env, rsp, size, ld32(env + SEG_SELECTOR + 4 * SS), index, ss_base, mask)
        if failed(env):
            return
        rsp = push(env, rsp, size, ld64(env + RSP), index, ss_base, mask)
        if failed(env):
            return
    rsp = push(env, rsp, size, interrupted_flags(env, event), index, ss_base, mask)
    if failed(env):
        return
    rsp = push(env, rsp, size, ld32(env + SEG_SELECTOR + 4 * CS), index, ss_base, mask)
    if failed(env):
        return
    rsp = push(env, rsp, size, return_pc, index, ss_base, mask)
    if failed(env):
        return
    if event & EVENT_ERROR:
        rsp = push(env, rsp, size, error, index, ss_base, mask)
        if failed(env):
            return
    if new_cpl < cpl:
        attr = desc_attr(ss_desc) | 0x100
        set_segment(env, SS, (ss_selector & 0xFFFC) | new_cpl, ss_base, desc_limit(ss_desc), attr)
    st64(env + RSP, rsp)
    set_segment(env, CS, (selector & 0xFFFC) | new_cpl, desc_base(desc), desc_limit(desc), desc_attr(desc) | 0x100)
    st32(env + CPL, new_cpl)
    finish_delivery(env, 0 if kind & 1 else 1, target)
