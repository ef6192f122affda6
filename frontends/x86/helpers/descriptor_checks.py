"""LAR, LSL, VERR, VERW (SDM volume 2): what of a descriptor the program may know."""

from frontends.x86.helpers.access import failed, system_load
from frontends.x86.helpers.descriptors import desc_attr, desc_dpl, desc_limit, descriptor_gva, long_mode
from frontends.x86.helpers.env import AT_CODE, AT_DC, AT_RW, AT_S, CPL, FL_ZF
from frontends.x86.helpers.flags import helper_x86_compute_eflags, set_status
from tcg.runtime.memory import exported, ld32, lsr, native


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
