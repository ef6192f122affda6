"""Control transfers between segments and privilege levels (SDM volume 3, 5.8; volume 2, CALL, RET, IRET, SYSCALL ...).

Each sets env.pc, and changes registers only when nothing can fault any more. Task switches are not implemented: #GP,
counted. Virtual-8086 mode is not entered.
"""

from frontends.x86.helpers.access import (
    cpl_index,
    failed,
    raise_exception,
    raise_gp,
    raise_ud,
    system_load,
    unimplemented,
)
from frontends.x86.helpers.env import (
    ACCESS_READ,
    AT_CODE,
    AT_DB,
    AT_DC,
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
    FL_AC,
    FL_DF,
    FL_ID,
    FL_IF,
    FL_IOPL,
    FL_NT,
    FL_RF,
    FL_TF,
    FL_VM,
    LSTAR,
    NMI_BLOCKED,
    NP,
    PC,
    R11,
    RCX,
    RDX,
    RSP,
    SEG_ATTR,
    SEG_BASE,
    SEG_SELECTOR,
    SFMASK,
    SS,
    SS_FAULT,
    STAR,
    SYSENTER_CS,
    SYSENTER_EIP,
    SYSENTER_ESP,
    UNIMPLEMENTED_TASK_SWITCH,
)
from frontends.x86.helpers.exceptions import inner_stack, push, stack_desc, stack_mask, tss_stack64
from frontends.x86.helpers.flags import read_rflags, write_rflags
from frontends.x86.helpers.mode import check_interrupts, x86_update_mode
from frontends.x86.helpers.runtime import ld_sized, load_as, tlb_probe
from frontends.x86.helpers.segments import (
    canonical,
    check_stack_desc,
    desc_attr,
    desc_base,
    desc_dpl,
    desc_limit,
    descriptor_gva,
    drop_inner_segments,
    in_code64,
    long_mode,
    mark_accessed,
    set_segment,
)
from tcg.runtime.memory import exported, ld32, ld64, lsr, native, st32, st64, ult

ATTR_CODE64 = AT_P | AT_S | AT_CODE | AT_RW | 0x100 | AT_L | AT_G
ATTR_CODE32 = AT_P | AT_S | AT_CODE | AT_RW | 0x100 | AT_DB | AT_G
ATTR_STACK = AT_P | AT_S | AT_RW | 0x100 | AT_DB | AT_G
DPL3 = 3 << DPL_SHIFT


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
