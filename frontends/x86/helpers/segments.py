"""Segment registers and descriptors (SDM volume 3, chapters 3 and 5; volume 2, MOV, LAR, LSL, VERR, LLDT, LTR, ...).

A descriptor is handled as its 8 bytes in one int64; its high doubleword's attribute bits stay in place in seg_attr.
"""

from frontends.x86.helpers.access import (
    failed,
    raise_exception,
    raise_gp,
    raise_ud,
    require_cpl0,
    system_load,
    system_store,
)
from frontends.x86.helpers.env import (
    AT_A,
    AT_CODE,
    AT_DC,
    AT_L,
    AT_MASK,
    AT_P,
    AT_RW,
    AT_S,
    CPL,
    CR4,
    CR4_FSGSBASE,
    CS,
    DPL_SHIFT,
    DS,
    EFER,
    EFER_LMA,
    ES,
    FL_ZF,
    FS,
    GDT_BASE,
    GDT_LIMIT,
    GS,
    IDT_BASE,
    IDT_LIMIT,
    INT_SHADOW,
    KERNEL_GS_BASE,
    LDTR,
    NP,
    SEG_ATTR,
    SEG_BASE,
    SEG_LIMIT,
    SEG_SELECTOR,
    SS,
    SS_FAULT,
    TR,
)
from frontends.x86.helpers.flags import helper_x86_compute_eflags, set_status
from frontends.x86.helpers.mode import x86_update_mode
from tcg.runtime.memory import exported, ld32, ld64, lsr, native, st32, st64

BUSY = 0x200  # bit 1 of a TSS descriptor's type
CODE64_ATTR = AT_P | AT_S | AT_CODE | AT_RW | AT_A


@native
def long_mode(env: int) -> int:
    """Nonzero when IA32_EFER.LMA is set (64-bit and compatibility mode)."""
    return ld64(env + EFER) & EFER_LMA


@native
def in_code64(env: int) -> int:
    """Nonzero in 64-bit mode proper."""
    if long_mode(env):
        return ld32(env + SEG_ATTR + 4 * CS) & AT_L
    return 0


@native
def canonical(gva: int) -> int:
    """1 if bits 63 to 47 are all equal."""
    top = gva >> 47
    return 1 if top == 0 or top == -1 else 0


@native
def desc_attr(desc: int) -> int:
    """The attribute bits (state.SegAttr) of a descriptor."""
    return lsr(desc, 32) & AT_MASK


@native
def desc_dpl(desc: int) -> int:
    return lsr(desc, 45) & 3


@native
def desc_base(desc: int) -> int:
    return (lsr(desc, 16) & 0xFFFFFF) | (lsr(desc, 32) & 0xFF000000)


@native
def desc_limit(desc: int) -> int:
    """The limit in bytes, granularity applied."""
    limit = (desc & 0xFFFF) | (lsr(desc, 32) & 0xF0000)
    if lsr(desc, 55) & 1:
        limit = limit << 12 | 0xFFF
    return limit


@native
def descriptor_gva(env: int, selector: int, size: int) -> int:
    """Address of the selector's descriptor of `size` bytes, or -1 when it is outside its table or there is no LDT."""
    offset = selector & 0xFFF8
    if selector & 4:
        if not ld32(env + SEG_ATTR + 4 * LDTR) & AT_P:
            return -1
        if offset + size - 1 > ld32(env + SEG_LIMIT + 4 * LDTR):
            return -1
        return ld64(env + SEG_BASE + 8 * LDTR) + offset
    if offset + size - 1 > ld32(env + GDT_LIMIT):
        return -1
    return ld64(env + GDT_BASE) + offset


@native
def set_segment(env: int, seg: int, selector: int, base: int, limit: int, attr: int) -> None:
    st32(env + SEG_SELECTOR + 4 * seg, selector)
    st64(env + SEG_BASE + 8 * seg, base)
    st32(env + SEG_LIMIT + 4 * seg, limit)
    st32(env + SEG_ATTR + 4 * seg, attr)


@native
def set_segment_desc(env: int, seg: int, selector: int, desc: int) -> None:
    """Load the descriptor cache from a checked descriptor."""
    set_segment(env, seg, selector, desc_base(desc), desc_limit(desc), desc_attr(desc))


@native
def mark_accessed(env: int, gva: int, desc: int) -> int:
    """Set the accessed bit in memory if it is clear; the descriptor as it now is."""
    if not lsr(desc, 32) & AT_A:
        system_store(env, gva + 5, 1, (lsr(desc, 40) & 0xFF) | 1)
        desc |= AT_A << 32
    return desc


@native
def check_stack_desc(selector: int, desc: int, cpl: int) -> int:
    """1 if `desc` may be loaded into SS at `cpl`: RPL = DPL = CPL, writable data (presence is another matter)."""
    attr = desc_attr(desc)
    if selector & 3 != cpl or desc_dpl(desc) != cpl:
        return 0
    if attr & (AT_S | AT_CODE | AT_RW) != AT_S | AT_RW:
        return 0
    return 1


@exported
def helper_x86_load_seg(env: int, seg: int, selector: int) -> None:
    """MOV Sreg, POP Sreg, LDS..LGS (SDM vol. 2, MOV): every check, the accessed bit, the descriptor cache, the mode."""
    selector &= 0xFFFF
    cpl = ld32(env + CPL)
    if selector & 0xFFFC == 0:
        if seg == SS and (not in_code64(env) or cpl == 3 or selector & 3 != cpl):
            raise_gp(env, 0)
            return
        attr = cpl << DPL_SHIFT if seg == SS else 0
        set_segment(env, seg, selector, 0, 0, attr)
    else:
        error = selector & 0xFFFC
        gva = descriptor_gva(env, selector, 8)
        if gva == -1:
            raise_gp(env, error)
            return
        desc = system_load(env, gva, 8)
        if failed(env):
            return
        attr = desc_attr(desc)
        if seg == SS:
            if not check_stack_desc(selector, desc, cpl):
                raise_gp(env, error)
                return
            if not attr & AT_P:
                raise_exception(env, SS_FAULT, error)
                return
        else:
            if not attr & AT_S or attr & (AT_CODE | AT_RW) == AT_CODE:
                raise_gp(env, error)
                return
            if attr & (AT_CODE | AT_DC) != AT_CODE | AT_DC:
                dpl = desc_dpl(desc)
                if selector & 3 > dpl or cpl > dpl:
                    raise_gp(env, error)
                    return
            if not attr & AT_P:
                raise_exception(env, NP, error)
                return
        desc = mark_accessed(env, gva, desc)
        if failed(env):
            return
        set_segment_desc(env, seg, selector, desc)
    if seg == SS:
        st32(env + INT_SHADOW, 1)
    x86_update_mode(env)


@native
def verify_descriptor(env: int, selector: int) -> int:
    """The descriptor LAR, LSL, VERR, VERW look at, if visible at CPL and RPL; else 0 (or a fault was left)."""
    selector &= 0xFFFF
    if selector & 0xFFFC == 0:
        return 0
    gva = descriptor_gva(env, selector, 8)
    if gva == -1:
        return 0
    desc = system_load(env, gva, 8)
    if failed(env):
        return 0
    attr = desc_attr(desc)
    if attr & (AT_S | AT_CODE | AT_DC) != AT_S | AT_CODE | AT_DC:
        dpl = desc_dpl(desc)
        if selector & 3 > dpl or ld32(env + CPL) > dpl:
            return 0
    return desc


@native
def set_zf(env: int, on: int) -> None:
    flags = helper_x86_compute_eflags(env) & ~FL_ZF
    if on:
        flags |= FL_ZF
    set_status(env, flags)


@native
def system_type_visible(env: int, desc: int, gates: int) -> int:
    """1 for code, data, LDT, TSS and, if `gates`, call and task gates (SDM vol. 2, tables of LAR and LSL)."""
    if lsr(desc, 32) & AT_S:
        return 1
    kind = lsr(desc, 40) & 15
    if long_mode(env):
        valid = 0x0A04  # LDT, available and busy 64-bit TSS
        if gates:
            valid |= 0x1000  # 64-bit call gate
    else:
        valid = 0x0A0E  # 16-bit TSSs, LDT, 32-bit TSSs
        if gates:
            valid |= 0x1030  # call gates, task gate
    return (valid >> kind) & 1


@exported
def helper_x86_lar(env: int, selector: int, old: int) -> int:
    """LAR: access rights where visible (ZF = 1), else `old` (ZF = 0)."""
    desc = verify_descriptor(env, selector)
    if failed(env):
        return old
    if desc == 0 or not system_type_visible(env, desc, 1):
        set_zf(env, 0)
        return old
    set_zf(env, 1)
    return lsr(desc, 32) & 0x00FFFF00


@exported
def helper_x86_lsl(env: int, selector: int, old: int) -> int:
    """LSL: the limit in bytes where visible (ZF = 1), else `old` (ZF = 0)."""
    desc = verify_descriptor(env, selector)
    if failed(env):
        return old
    if desc == 0 or not system_type_visible(env, desc, 0):
        set_zf(env, 0)
        return old
    set_zf(env, 1)
    return desc_limit(desc)


@exported
def helper_x86_verr(env: int, selector: int) -> None:
    """VERR: ZF = readable at CPL and RPL."""
    attr = desc_attr(verify_descriptor(env, selector))
    if failed(env):
        return
    set_zf(env, 1 if attr & AT_S and attr & (AT_CODE | AT_RW) != AT_CODE else 0)


@exported
def helper_x86_verw(env: int, selector: int) -> None:
    """VERW: ZF = writable data at CPL and RPL."""
    attr = desc_attr(verify_descriptor(env, selector))
    if failed(env):
        return
    set_zf(env, 1 if attr & (AT_S | AT_CODE | AT_RW) == AT_S | AT_RW else 0)


@native
def load_system_segment(env: int, selector: int, available: int, seg: int) -> None:
    """LLDT (available = 0) and LTR (1): the descriptor, 16 bytes in long mode; LTR marks the TSS busy."""
    error = selector & 0xFFFC
    size = 16 if long_mode(env) else 8
    gva = -1
    if not selector & 4:
        gva = descriptor_gva(env, selector, size)
    if gva == -1:
        raise_gp(env, error)
        return
    desc = system_load(env, gva, 8)
    if failed(env):
        return
    kind = lsr(desc, 40) & 31
    good = kind == 2
    if available:
        good = kind == 9 or (kind == 1 and size == 8)
    if not good:
        raise_gp(env, error)
        return
    if not desc_attr(desc) & AT_P:
        raise_exception(env, NP, error)
        return
    base = desc_base(desc)
    if size == 16:
        high = system_load(env, gva + 8, 8)
        if failed(env):
            return
        base |= (high & 0xFFFFFFFF) << 32
        if not canonical(base) or lsr(high, 40) & 31:
            raise_gp(env, error)
            return
    if available:
        system_store(env, gva + 5, 1, (lsr(desc, 40) & 0xFF) | 2)
        if failed(env):
            return
        desc |= BUSY << 32
    set_segment(env, seg, selector, base, desc_limit(desc), desc_attr(desc))


@exported
def helper_x86_lldt(env: int, selector: int) -> None:
    selector &= 0xFFFF
    if not require_cpl0(env):
        return
    if selector & 0xFFFC == 0:
        set_segment(env, LDTR, selector, 0, 0, 0)
    else:
        load_system_segment(env, selector, 0, LDTR)


@exported
def helper_x86_ltr(env: int, selector: int) -> None:
    selector &= 0xFFFF
    if not require_cpl0(env):
        return
    if selector & 0xFFFC == 0:
        raise_gp(env, 0)
    else:
        load_system_segment(env, selector, 1, TR)


@exported
def helper_x86_lgdt(env: int, limit: int, base: int) -> None:
    """LGDT with the operand as read: 16-bit limit and base (24-bit truncation is the frontend's)."""
    if not require_cpl0(env):
        return
    if in_code64(env) and not canonical(base):
        raise_gp(env, 0)
        return
    st32(env + GDT_LIMIT, limit & 0xFFFF)
    st64(env + GDT_BASE, base)


@exported
def helper_x86_lidt(env: int, limit: int, base: int) -> None:
    if not require_cpl0(env):
        return
    if in_code64(env) and not canonical(base):
        raise_gp(env, 0)
        return
    st32(env + IDT_LIMIT, limit & 0xFFFF)
    st64(env + IDT_BASE, base)


@exported
def helper_x86_swapgs(env: int) -> None:
    """SWAPGS (the frontend has made sure of 64-bit mode)."""
    if not require_cpl0(env):
        return
    base = ld64(env + SEG_BASE + 8 * GS)
    st64(env + SEG_BASE + 8 * GS, ld64(env + KERNEL_GS_BASE))
    st64(env + KERNEL_GS_BASE, base)


@exported
def helper_x86_rdbase(env: int, seg: int) -> int:
    """RDFSBASE, RDGSBASE: #UD unless CR4.FSGSBASE."""
    if not ld64(env + CR4) & CR4_FSGSBASE:
        return raise_ud(env)
    return ld64(env + SEG_BASE + 8 * seg)


@exported
def helper_x86_wrbase(env: int, seg: int, value: int) -> None:
    """WRFSBASE, WRGSBASE with the operand zero-extended: #UD unless CR4.FSGSBASE, #GP(0) if not canonical."""
    if not ld64(env + CR4) & CR4_FSGSBASE:
        raise_ud(env)
    elif not canonical(value):
        raise_gp(env, 0)
    else:
        st64(env + SEG_BASE + 8 * seg, value)


@native
def drop_inner_segment(env: int, seg: int, cpl: int) -> None:
    attr = ld32(env + SEG_ATTR + 4 * seg)
    if attr & AT_S and attr & (AT_CODE | AT_DC) != AT_CODE | AT_DC and (attr >> DPL_SHIFT) & 3 < cpl:
        base = ld64(env + SEG_BASE + 8 * seg)
        set_segment(env, seg, 0, base, 0, 0)


@native
def drop_inner_segments(env: int, cpl: int) -> None:
    """On a return to the outer privilege `cpl`, more privileged data segments become null (SDM vol. 2, RET)."""
    drop_inner_segment(env, ES, cpl)
    drop_inner_segment(env, DS, cpl)
    drop_inner_segment(env, FS, cpl)
    drop_inner_segment(env, GS, cpl)
