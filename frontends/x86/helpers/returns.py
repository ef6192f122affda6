"""RETF and IRET (SDM volume 2). Nested-task returns are not implemented, virtual-8086 mode is not entered."""

from frontends.x86.helpers.access import cpl_index, failed, raise_exception, raise_gp, system_load, unimplemented
from frontends.x86.helpers.delivery import stack_mask
from frontends.x86.helpers.descriptors import (
    check_stack_desc,
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
    ACCESS_READ,
    AT_DC,
    AT_L,
    AT_P,
    CPL,
    DPL_SHIFT,
    EFLAGS,
    FL_AC,
    FL_DF,
    FL_ID,
    FL_IF,
    FL_IOPL,
    FL_NT,
    FL_TF,
    FL_VM,
    NMI_BLOCKED,
    RSP,
    SEG_ATTR,
    SEG_BASE,
    SS,
    SS_FAULT,
    UNIMPLEMENTED_TASK_SWITCH,
)
from frontends.x86.helpers.flags import read_rflags, write_rflags
from frontends.x86.helpers.mode import check_interrupts, x86_update_mode
from frontends.x86.helpers.runtime import ld_sized, load_as, tlb_probe
from frontends.x86.helpers.segments import drop_inner_segments
from frontends.x86.helpers.transfers import check_code, current_stack_mask, is_code, load_cs, truncate
from tcg.runtime.memory import exported, ld32, ld64, native, st32, st64


@native
def stack_window(env: int, size: int) -> int:
    """hva of the `size` bytes above the stack pointer, or 0 when they must be read one by one (64-bit mode only)."""
    rsp = ld64(env + RSP)
    if not in_code64(env) or (rsp & 4095) + size > 4096:
        return 0
    return tlb_probe(env, rsp, ACCESS_READ, cpl_index(env, ld32(env + CPL)))


@native
def stack_value(env: int, window: int, n: int, size: int) -> int:
    """Slot `n` of `size` bytes above the stack pointer, through the window if there is one; a fault may be left."""
    if window > 0:
        return ld_sized(window + n * size, size)
    rsp = ld64(env + RSP)
    if in_code64(env):
        gva = rsp + n * size
    else:
        mask = stack_mask(ld32(env + SEG_ATTR + 4 * SS))
        gva = (ld64(env + SEG_BASE + 8 * SS) + ((rsp + n * size) & mask)) & 0xFFFFFFFF
    return load_as(env, gva, size, cpl_index(env, ld32(env + CPL)))


@native
def return_far(env: int, size: int, slots: int, drop: int, flags: int, flags_mask: int, is_iret: int) -> None:
    """RETF and IRET: pop pc and CS of `slots` values, then drop `drop` bytes (SDM vol. 2, RET, IRET).

    flags_mask: the RFLAGS bits that come from `flags` (IRET).
    """
    window = stack_window(env, 5 * size)
    if failed(env):
        return
    pc = stack_value(env, window, 0, size)
    if failed(env):
        return
    selector = stack_value(env, window, 1, size) & 0xFFFF
    if failed(env):
        return
    if selector & 0xFFFC == 0:
        raise_gp(env, 0)
        return
    error = selector & 0xFFFC
    gva = descriptor_gva(env, selector, 8)
    if gva == -1:
        raise_gp(env, error)
        return
    desc = system_load(env, gva, 8)
    if failed(env):
        return
    attr = desc_attr(desc)
    cpl = ld32(env + CPL)
    rpl = selector & 3
    dpl = desc_dpl(desc)
    if not is_code(desc) or rpl < cpl or (attr & AT_DC and dpl > rpl) or (not attr & AT_DC and dpl != rpl):
        raise_gp(env, error)
        return
    check_code(env, selector, desc, pc, error)
    if failed(env):
        return
    from64 = in_code64(env)
    if rpl == cpl and not (is_iret and from64):
        mark_accessed(env, gva, desc)
        if failed(env):
            return
        mask = current_stack_mask(env)
        rsp = ld64(env + RSP)
        st64(env + RSP, (rsp & ~mask) | ((rsp + slots * size + drop) & mask))
    else:
        at = slots
        if is_iret:
            new_rsp = stack_value(env, window, at, size)
            if failed(env):
                return
            ss_selector = stack_value(env, window, at + 1, size) & 0xFFFF
        else:
            # RETF n: SP and SS lie above the parameters, which both stacks drop.
            rsp = ld64(env + RSP)
            index = cpl_index(env, cpl)
            gva_sp = rsp + slots * size + drop
            if not from64:
                mask = stack_mask(ld32(env + SEG_ATTR + 4 * SS))
                gva_sp = (ld64(env + SEG_BASE + 8 * SS) + (gva_sp & mask)) & 0xFFFFFFFF
            new_rsp = load_as(env, gva_sp, size, index)
            if failed(env):
                return
            ss_selector = load_as(env, gva_sp + size, size, index) & 0xFFFF
        if failed(env):
            return
        ss_error = ss_selector & 0xFFFC
        ss_desc = 0
        if ss_error == 0:
            # A null SS is for 64-bit code that is not at CPL 3 only.
            if not (long_mode(env) and attr & AT_L) or rpl == 3 or ss_selector & 3 != rpl:
                raise_gp(env, 0)
                return
        else:
            ss_gva = descriptor_gva(env, ss_selector, 8)
            if ss_gva == -1:
                raise_gp(env, ss_error)
                return
            ss_desc = system_load(env, ss_gva, 8)
            if failed(env):
                return
            if not check_stack_desc(ss_selector, ss_desc, rpl):
                raise_gp(env, ss_error)
                return
            if not desc_attr(ss_desc) & AT_P:
                raise_exception(env, SS_FAULT, ss_error)
                return
            ss_desc = mark_accessed(env, ss_gva, ss_desc)
            if failed(env):
                return
        mark_accessed(env, gva, desc)
        if failed(env):
            return
        if ss_error == 0:
            set_segment(env, SS, ss_selector, 0, 0, rpl << DPL_SHIFT)
        else:
            set_segment(env, SS, ss_selector, desc_base(ss_desc), desc_limit(ss_desc), desc_attr(ss_desc))
        new_mask = -1
        if not (long_mode(env) and attr & AT_L):
            new_mask = stack_mask(desc_attr(ss_desc))
        if from64 and new_mask != -1:
            new_rsp &= 0xFFFFFFFF
            new_mask = -1
        if new_mask == 0xFFFFFFFF:
            new_mask = -1  # a 32-bit stack pointer is loaded zero-extended
        rsp = ld64(env + RSP)
        st64(env + RSP, (rsp & ~new_mask) | ((truncate(new_rsp, size) + drop) & new_mask))
    if flags_mask:
        write_rflags(env, (read_rflags(env) & ~flags_mask) | (flags & flags_mask))
    load_cs(env, selector, desc, rpl, pc)
    if rpl > cpl:
        drop_inner_segments(env, rpl)
    x86_update_mode(env)
    if flags_mask:
        check_interrupts(env)


@exported
def helper_x86_far_ret(env: int, size: int, drop: int) -> None:
    """RETF, RETF imm16."""
    return_far(env, size, 2, drop, 0, 0, 0)


@native
def flags_mask(env: int, size: int) -> int:
    """The RFLAGS bits that POPF and IRET may change at this CPL and IOPL with this operand size (SDM vol. 2, POPF)."""
    cpl = ld32(env + CPL)
    mask = 0x8D5 | FL_TF | FL_DF | FL_NT
    if size > 2:
        mask |= FL_AC | FL_ID
    if cpl == 0:
        mask |= FL_IOPL
    if cpl <= (ld32(env + EFLAGS) >> 12) & 3:
        mask |= FL_IF
    return mask


@exported
def helper_x86_iret(env: int, size: int) -> None:
    """IRET, IRETD, IRETQ: unblocks NMIs. Nested tasks (NT) are #GP."""
    if ld32(env + EFLAGS) & FL_NT:
        if long_mode(env):
            raise_gp(env, 0)
        else:
            unimplemented(env, UNIMPLEMENTED_TASK_SWITCH, 0)
        return
    flags = stack_value(env, 0, 2, size)
    if failed(env):
        return
    if flags & FL_VM and size == 4 and not long_mode(env) and ld32(env + CPL) == 0:
        unimplemented(env, UNIMPLEMENTED_TASK_SWITCH, 1)
        return
    return_far(env, size, 3, 0, flags, flags_mask(env, size), 1)
    if not failed(env):
        st32(env + NMI_BLOCKED, 0)
