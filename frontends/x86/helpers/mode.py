"""The translation mode and the mmu index, recomputed from the state that they depend on.

Whoever changes CS, a segment's base, CR0, CR4, EFER, CPL, EFLAGS.TF or .AC, or MXCSR's masks calls x86_update_mode
before JIT code runs again.
"""

from frontends.x86.helpers.env import (
    AT_DB,
    AT_L,
    CONTEXT,
    CPL,
    CR0,
    CR0_EM,
    CR0_PE,
    CR0_TS,
    CR4,
    CR4_OSFXSR,
    CR4_SMAP,
    EFER,
    EFER_LMA,
    EFLAGS,
    EXIT_REQUEST,
    FL_AC,
    FL_IF,
    FL_TF,
    INTERRUPT_REQUEST,
    MMU_INDEX,
    MMU_KERNEL,
    MMU_KERNEL_AC,
    MMU_USER,
    MODE,
    MXCSR,
    SEG_ATTR,
    SEG_BASE,
    SEG_LIMIT,
)
from frontends.x86.helpers.runtime import tlb_switch
from frontends.x86.state import Mode
from tcg.runtime.memory import exported, ld32, ld64, native, st32

CODE64, CODE32, SEGMENTED, FPU_TRAP, FP_UNMASKED, PARALLEL, STEP, PROTECTED, STACK32, NO_SSE = (
    *(int(m) for m in (Mode.CODE64, Mode.CODE32, Mode.SEGMENTED, Mode.FPU_TRAP, Mode.FP_UNMASKED, Mode.PARALLEL)),
    *(int(m) for m in (Mode.STEP, Mode.PROTECTED, Mode.STACK32, Mode.NO_SSE)),
)
AT_PRESENT_DATA = 0x9000  # P and S
AT_EXPAND_DOWN = 0x0C00


@native
def flat_segment(env: int, seg: int) -> int:
    """1 if a legacy-mode access through `seg` needs no base, no check: base 0, limit 4 GiB, present, expand-up."""
    attr = ld32(env + SEG_ATTR + 4 * seg)
    if ld64(env + SEG_BASE + 8 * seg) != 0 or ld32(env + SEG_LIMIT + 4 * seg) != 0xFFFFFFFF:
        return 0
    if attr & AT_PRESENT_DATA != AT_PRESENT_DATA or attr & AT_EXPAND_DOWN == 0x400:
        return 0
    return 1


@exported
def x86_update_mode(env: int) -> None:
    """Recompute env.mode and the mmu index; switch TLB and jump cache when either has changed."""
    old = ld32(env + MODE)
    mode = old & PARALLEL
    cr0 = ld64(env + CR0)
    cr4 = ld64(env + CR4)
    eflags = ld32(env + EFLAGS)
    cs_attr = ld32(env + SEG_ATTR + 4)
    if cr0 & CR0_PE:
        mode |= PROTECTED
    if ld64(env + EFER) & EFER_LMA and cs_attr & AT_L:
        mode |= CODE64
    else:
        if cs_attr & AT_DB:
            mode |= CODE32
        if ld32(env + SEG_ATTR + 8) & AT_DB:
            mode |= STACK32
        if not (flat_segment(env, 0) and flat_segment(env, 1) and flat_segment(env, 2) and flat_segment(env, 3)):
            mode |= SEGMENTED
    if cr0 & (CR0_EM | CR0_TS):
        mode |= FPU_TRAP
    if ld32(env + MXCSR) & 0x1F80 != 0x1F80:
        mode |= FP_UNMASKED
    if eflags & FL_TF:
        mode |= STEP
    if not cr4 & CR4_OSFXSR:
        mode |= NO_SSE
    index = MMU_KERNEL
    if ld32(env + CPL) == 3:
        index = MMU_USER
    elif eflags & FL_AC and cr4 & CR4_SMAP:
        index = MMU_KERNEL_AC
    if mode != old or index != ld32(env + MMU_INDEX):
        st32(env + MODE, mode)
        tlb_switch(env, ld32(env + CONTEXT), index)


@native
def check_interrupts(env: int) -> None:
    """Called when IF may have become 1: have the next block head look at a request that was held off."""
    if ld32(env + EFLAGS) & FL_IF and ld32(env + INTERRUPT_REQUEST) != 0:
        st32(env + EXIT_REQUEST, 1)
