"""Far JMP and CALL, call gates (SDM volume 3, 5.8; volume 2, JMP, CALL).

Each sets env.pc, and changes registers only when nothing can fault any more. Task switches are not implemented: #GP,
counted.
"""

from frontends.x86.helpers.access import cpl_index, failed, raise_exception, raise_gp, system_load, unimplemented
from frontends.x86.helpers.delivery import push, stack_mask, tss_stack64
from frontends.x86.helpers.delivery32 import inner_stack, stack_desc
from frontends.x86.helpers.descriptors import (
    canonical,
    desc_attr,
    desc_base,
    desc_dpl,
    desc_limit,
    descriptor_gva,
    in_code64,
    long_mode,
    mark_accessed,
    set_segment,
)
from frontends.x86.helpers.env import (
    AT_CODE,
    AT_DB,
    AT_DC,
    AT_L,
    AT_P,
    AT_S,
    CPL,
    CS,
    DPL_SHIFT,
    NP,
    PC,
    RSP,
    SEG_ATTR,
    SEG_BASE,
    SEG_SELECTOR,
    SS,
    UNIMPLEMENTED_TASK_SWITCH,
)
from frontends.x86.helpers.mode import x86_update_mode
from frontends.x86.helpers.runtime import load_as
from tcg.runtime.memory import exported, ld32, ld64, lsr, native, st32, st64, ult


@native
def truncate(value: int, size: int) -> int:
    """The low `size` bytes of value, zero-extended."""
    if size == 8:
        return value
    if size == 4:
        return value & 0xFFFFFFFF
    return value & 0xFFFF


@native
def code_desc(env: int, selector: int) -> int:
    """The code, gate or TSS descriptor of a far transfer's selector; 0 with #GP left when null or out of its table."""
    if selector & 0xFFFC == 0:
        return raise_gp(env, 0)
    gva = descriptor_gva(env, selector, 8)
    if gva == -1:
        return raise_gp(env, selector & 0xFFFC)
    return system_load(env, gva, 8)


@native
def check_code(env: int, selector: int, desc: int, pc: int, error: int) -> None:
    """Check L and D, presence, and the offset's limit of a code descriptor whose privilege is right."""
    attr = desc_attr(desc)
    if long_mode(env) and attr & (AT_L | AT_DB) == AT_L | AT_DB:
        raise_gp(env, error)
    elif not attr & AT_P:
        raise_exception(env, NP, error)
    elif long_mode(env) and attr & AT_L:
        if not canonical(pc):
            raise_gp(env, 0)
    elif ult(desc_limit(desc), pc):
        raise_gp(env, 0)


@native
def load_cs(env: int, selector: int, desc: int, cpl: int, pc: int) -> None:
    set_segment(env, CS, (selector & 0xFFFC) | cpl, desc_base(desc), desc_limit(desc), desc_attr(desc) | 0x100)
    st32(env + CPL, cpl)
    st64(env + PC, pc)


@native
def is_code(desc: int) -> int:
    return 1 if desc_attr(desc) & (AT_S | AT_CODE) == AT_S | AT_CODE else 0


@native
def same_level_ok(env: int, selector: int, desc: int) -> int:
    """1 if a direct JMP or CALL may go to this code segment (SDM vol. 3, 5.8.1)."""
    dpl = desc_dpl(desc)
    cpl = ld32(env + CPL)
    if desc_attr(desc) & AT_DC:
        return 1 if dpl <= cpl else 0
    return 1 if selector & 3 <= cpl and dpl == cpl else 0


@native
def mark_code_accessed(env: int, selector: int, desc: int) -> None:
    mark_accessed(env, descriptor_gva(env, selector, 8), desc)


@native
def gate_target(env: int, selector: int, gate: int, is_call: int) -> int:
    """The code descriptor of a checked call gate; 0 with a fault left."""
    cpl = ld32(env + CPL)
    error = selector & 0xFFFC
    if desc_dpl(gate) < cpl or desc_dpl(gate) < selector & 3:
        return raise_gp(env, error)
    if not desc_attr(gate) & AT_P:
        return raise_exception(env, NP, error)
    target = lsr(gate, 16) & 0xFFFF
    desc = code_desc(env, target)
    if failed(env):
        return 0
    attr = desc_attr(desc)
    dpl = desc_dpl(desc)
    error = target & 0xFFFC
    if not is_code(desc) or dpl > cpl or (not is_call and not attr & AT_DC and dpl != cpl):
        return raise_gp(env, error)
    if long_mode(env) and attr & (AT_L | AT_DB) != AT_L:
        return raise_gp(env, error)
    if not attr & AT_P:
        return raise_exception(env, NP, error)
    return desc


@native
def gate_offset(env: int, selector: int, gate: int) -> int:
    """The offset of a call gate, its upper half from the second descriptor in long mode; a fault may be left."""
    offset = gate & 0xFFFF
    if lsr(gate, 40) & 8:
        offset |= lsr(gate, 32) & 0xFFFF0000
    if long_mode(env):
        gva = descriptor_gva(env, selector, 16)
        if gva == -1:
            return raise_gp(env, selector & 0xFFFC)
        high = system_load(env, gva + 8, 8)
        if failed(env):
            return 0
        if lsr(high, 40) & 31:
            return raise_gp(env, selector & 0xFFFC)
        offset |= (high & 0xFFFFFFFF) << 32
        if not canonical(offset):
            return raise_gp(env, 0)
    return offset


@native
def gate_kind(env: int, desc: int) -> int:
    """0: not a descriptor a far transfer may name; 1: a call gate; 2: a task gate or available TSS."""
    if desc_attr(desc) & AT_S:
        return 0
    kind = lsr(desc, 40) & 15
    if kind == 12 or (kind == 4 and not long_mode(env)):
        return 1
    if (0x222 >> kind) & 1 and not long_mode(env):
        return 2
    return 0


@exported
def helper_x86_far_jmp(env: int, selector: int, offset: int, size: int, next_pc: int) -> None:
    """JMP ptr16:16/32, m16:16/32/64."""
    selector &= 0xFFFF
    offset = truncate(offset, size)
    desc = code_desc(env, selector)
    if failed(env):
        return
    if not is_code(desc):
        kind = gate_kind(env, desc)
        if kind == 0:
            raise_gp(env, selector & 0xFFFC)
            return
        if kind == 2:
            unimplemented(env, UNIMPLEMENTED_TASK_SWITCH, selector)
            return
        gate = desc
        desc = gate_target(env, selector, gate, 0)
        if failed(env):
            return
        offset = gate_offset(env, selector, gate)
        if failed(env):
            return
        selector = lsr(gate, 16) & 0xFFFF
    elif not same_level_ok(env, selector, desc):
        raise_gp(env, selector & 0xFFFC)
        return
    check_code(env, selector, desc, offset, selector & 0xFFFC)
    if failed(env):
        return
    mark_code_accessed(env, selector, desc)
    if failed(env):
        return
    load_cs(env, selector, desc, ld32(env + CPL), offset)
    x86_update_mode(env)


@native
def current_stack_mask(env: int) -> int:
    """Which bits of RSP the current stack uses, -1 in 64-bit mode."""
    if in_code64(env):
        return -1
    return stack_mask(ld32(env + SEG_ATTR + 4 * SS))


@native
def call_gate(env: int, selector: int, gate: int, next_pc: int) -> None:
    """CALL through a call gate: same or inner privilege, parameters copied in legacy mode (SDM vol. 3, 5.8.5)."""
    desc = gate_target(env, selector, gate, 1)
    if failed(env):
        return
    offset = gate_offset(env, selector, gate)
    if failed(env):
        return
    target = lsr(gate, 16) & 0xFFFF
    cpl = ld32(env + CPL)
    new_cpl = cpl
    if not desc_attr(desc) & AT_DC:
        new_cpl = desc_dpl(desc)
    check_code(env, target, desc, offset, target & 0xFFFC)
    if failed(env):
        return
    long = long_mode(env)
    size = 2
    if long:
        size = 8
    elif lsr(gate, 40) & 8:
        size = 4
    index = cpl_index(env, new_cpl)
    rsp = ld64(env + RSP)
    base = ld64(env + SEG_BASE + 8 * SS)
    mask = current_stack_mask(env)
    ss_selector = 0
    ss_desc = 0
    if new_cpl < cpl:
        old_rsp = rsp
        old_base = base
        old_mask = mask
        if long:
            rsp = tss_stack64(env, 4 + 8 * new_cpl, 0)
            if failed(env):
                return
            mask = -1
        else:
            stack = inner_stack(env, new_cpl, 0)
            if failed(env):
                return
            ss_selector = stack >> 32
            rsp = stack & 0xFFFFFFFF
            ss_desc = stack_desc(env, ss_selector, new_cpl, 0)
            if failed(env):
                return
            base = desc_base(ss_desc)
            mask = stack_mask(desc_attr(ss_desc))
        rsp = push(env, rsp, size, ld32(env + SEG_SELECTOR + 4 * SS), index, base, mask)
        if failed(env):
            return
        rsp = push(env, rsp, size, old_rsp, index, base, mask)
        if failed(env):
            return
        count = lsr(gate, 32) & 31
        if long:
            count = 0
        while count > 0:
            count -= 1
            gva = (old_base + ((old_rsp + count * size) & old_mask)) & 0xFFFFFFFF
            value = load_as(env, gva, size, cpl_index(env, cpl))
            if failed(env):
                return
            rsp = push(env, rsp, size, value, index, base, mask)
            if failed(env):
                return
    rsp = push(env, rsp, size, ld32(env + SEG_SELECTOR + 4 * CS), index, base, mask)
    if failed(env):
        return
    rsp = push(env, rsp, size, next_pc, index, base, mask)
    if failed(env):
        return
    mark_code_accessed(env, target, desc)
    if failed(env):
        return
    if new_cpl < cpl:
        if long:
            set_segment(env, SS, new_cpl, 0, 0, new_cpl << DPL_SHIFT)
        else:
            attr = desc_attr(ss_desc) | 0x100
            set_segment(env, SS, (ss_selector & 0xFFFC) | new_cpl, base, desc_limit(ss_desc), attr)
    st64(env + RSP, rsp)
    load_cs(env, target, desc, new_cpl, offset)
    x86_update_mode(env)


@exported
def helper_x86_far_call(env: int, selector: int, offset: int, size: int, next_pc: int) -> None:
    """CALL ptr16:16/32, m16:16/32/64."""
    selector &= 0xFFFF
    offset = truncate(offset, size)
    desc = code_desc(env, selector)
    if failed(env):
        return
    if not is_code(desc):
        kind = gate_kind(env, desc)
        if kind == 1:
            call_gate(env, selector, desc, next_pc)
        elif kind == 2:
            unimplemented(env, UNIMPLEMENTED_TASK_SWITCH, selector)
        else:
            raise_gp(env, selector & 0xFFFC)
        return
    if not same_level_ok(env, selector, desc):
        raise_gp(env, selector & 0xFFFC)
        return
    check_code(env, selector, desc, offset, selector & 0xFFFC)
    if failed(env):
        return
    cpl = ld32(env + CPL)
    base = ld64(env + SEG_BASE + 8 * SS)
    mask = current_stack_mask(env)
    rsp = push(env, ld64(env + RSP), size, ld32(env + SEG_SELECTOR + 4 * CS), cpl_index(env, cpl), base, mask)
    if failed(env):
        return
    rsp = push(env, rsp, size, next_pc, cpl_index(env, cpl), base, mask)
    if failed(env):
        return
    mark_code_accessed(env, selector, desc)
    if failed(env):
        return
    st64(env + RSP, rsp)
    load_cs(env, selector, desc, cpl, offset)
    x86_update_mode(env)
