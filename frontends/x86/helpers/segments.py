"""Segment and table registers (SDM volume 3, 3.4 and 5; volume 2, MOV, LLDT, LTR, LGDT, SWAPGS, RDFSBASE ...)."""

from frontends.x86.helpers.access import (
    failed,
    raise_exception,
    raise_gp,
    raise_ud,
    require_cpl0,
    system_load,
    system_store,
)
from frontends.x86.helpers.descriptors import (
    canonical,
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
    set_segment_desc,
)
from frontends.x86.helpers.env import (
    AT_CODE,
    AT_DC,
    AT_P,
    AT_RW,
    AT_S,
    CPL,
    CR4,
    CR4_FSGSBASE,
    DPL_SHIFT,
    DS,
    ES,
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
    SS,
    SS_FAULT,
    TR,
)
from frontends.x86.helpers.mode import x86_update_mode
from tcg.runtime.memory import exported, ld32, ld64, lsr, native, st32, st64

BUSY = 0x200  # bit 1 of a TSS descriptor's type


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


@native
def load_table_register(env: int, limit: int, base: int, limit_at: int, base_at: int) -> None:
    """The operand as read: 16-bit limit and base (24-bit truncation is the frontend's)."""
    if not require_cpl0(env):
        return
    if in_code64(env) and not canonical(base):
        raise_gp(env, 0)
        return
    st32(env + limit_at, limit & 0xFFFF)
    st64(env + base_at, base)


@exported
def helper_x86_lgdt(env: int, limit: int, base: int) -> None:
    load_table_register(env, limit, base, GDT_LIMIT, GDT_BASE)


@exported
def helper_x86_lidt(env: int, limit: int, base: int) -> None:
    load_table_register(env, limit, base, IDT_LIMIT, IDT_BASE)


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
