"""Descriptors and their tables (SDM volume 3, 3.4.5, 3.5).

A descriptor is handled as its 8 bytes in one int64; its high doubleword's attribute bits stay in place in seg_attr.
"""

from frontends.x86.helpers.access import system_store
from frontends.x86.helpers.env import (
    AT_A,
    AT_CODE,
    AT_L,
    AT_MASK,
    AT_P,
    AT_RW,
    AT_S,
    CS,
    EFER,
    EFER_LMA,
    GDT_BASE,
    GDT_LIMIT,
    LDTR,
    SEG_ATTR,
    SEG_BASE,
    SEG_LIMIT,
    SEG_SELECTOR,
)
from tcg.runtime.memory import ld32, ld64, lsr, native, st32, st64


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
