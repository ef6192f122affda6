"""Status flags in native code: the rules of `frontends.x86.flags` over env, and RFLAGS as a whole."""

from frontends.x86.flags import CcOp
from frontends.x86.helpers.env import (
    CC_DST,
    CC_OP,
    CC_SRC,
    CC_SRC2,
    DF,
    EFLAGS,
    FL_ARITHMETIC,
    FL_DF,
    FL_FIXED,
    FL_RF,
    FL_VM,
)
from tcg.runtime.memory import exported, ld32, ld64, lsr, native, popcount64, shl, st32, st64, ult

OP_EFLAGS = int(CcOp.EFLAGS)
OP_CLR = int(CcOp.CLR)
OP_POPCNT = int(CcOp.POPCNT)
OP_ADCX = int(CcOp.ADCX)
OP_ADOX = int(CcOp.ADOX)
ADD, ADC, SUB, SBB = (int(op) >> 2 for op in (CcOp.ADDB, CcOp.ADCB, CcOp.SUBB, CcOp.SBBB))
INC, DEC, SHL, SAR = (int(op) >> 2 for op in (CcOp.INCB, CcOp.DECB, CcOp.SHLB, CcOp.SARB))
MUL, BMILG, BLSI = (int(op) >> 2 for op in (CcOp.MULB, CcOp.BMILGB, CcOp.BLSIB))


@native
def status_flags(op: int, dst: int, src: int, src2: int) -> int:
    """`frontends.x86.flags.status` on values zero-extended from the operand size (64-bit ones as int64)."""
    if op < 8:
        if op == OP_EFLAGS:
            return src & FL_ARITHMETIC
        if op == OP_CLR:
            return 0x44
        if op == OP_POPCNT:
            return 0x40 if src == 0 else 0
        if op == OP_ADCX:
            return (src & FL_ARITHMETIC & ~1) | dst
        if op == OP_ADOX:
            return (src & FL_ARITHMETIC & ~0x800) | src2 << 11
        return (src & FL_ARITHMETIC & ~0x801) | dst | src2 << 11
    family = op >> 2
    top = (8 << (op & 3)) - 1  # number of the sign bit
    mask = lsr(-1, 63 - top)
    cf = of = af = 0
    if family <= SBB:
        carry = 0
        if family & 1:  # ADC, SBB
            carry = src2
        if family <= ADC:
            a = (dst - src - carry) & mask
            cf = ult(dst, a)
            if carry and dst == a:
                cf = 1
            of = lsr(~(a ^ src) & (a ^ dst), top) & 1
        else:
            a = (dst + src + carry) & mask
            cf = ult(a, src)
            if carry and a == src:
                cf = 1
            of = lsr((a ^ src) & (a ^ dst), top) & 1
        af = (a ^ src ^ dst) & 16
    elif family == INC:
        cf = src
        of = 1 if dst == shl(1, top) else 0
        af = 16 if dst & 15 == 0 else 0
    elif family == DEC:
        cf = src
        of = 1 if dst == lsr(mask, 1) else 0  # not shl(1, top) - 1, which is no int64 in plain Python
        af = 16 if dst & 15 == 15 else 0
    elif family == SHL:
        cf = lsr(src, top) & 1
        of = lsr(src ^ dst, top) & 1
    elif family == SAR:
        cf = src & 1
        of = lsr(src ^ dst, top) & 1
    elif family == MUL:
        cf = of = 1 if src != 0 else 0
    elif family == BMILG:
        cf = 1 if src == 0 else 0
    elif family == BLSI:
        cf = 1 if src != 0 else 0
    flags = cf | af | of << 11 | (lsr(dst, top) & 1) << 7
    if popcount64(dst & 0xFF) & 1 == 0:
        flags |= 4
    if dst & mask == 0:
        flags |= 0x40
    return flags


@exported
def helper_x86_compute_eflags(env: int) -> int:
    """The six status flags from the lazy state."""
    return status_flags(ld32(env + CC_OP), ld64(env + CC_DST), ld64(env + CC_SRC), ld64(env + CC_SRC2))


@native
def read_rflags(env: int) -> int:
    """All of RFLAGS, RF and VM as they are."""
    flags = helper_x86_compute_eflags(env) | (ld32(env + EFLAGS) & ~(FL_ARITHMETIC | FL_DF)) | FL_FIXED
    if ld64(env + DF) < 0:
        flags |= FL_DF
    return flags


@native
def set_status(env: int, flags: int) -> None:
    """The six status flags become those in `flags`."""
    st32(env + CC_OP, OP_EFLAGS)
    st64(env + CC_SRC, flags & FL_ARITHMETIC)


@native
def write_rflags(env: int, flags: int) -> None:
    """All of RFLAGS becomes `flags`. The caller has the permissions checked and calls x86_update_mode afterwards."""
    set_status(env, flags)
    st64(env + DF, -1 if flags & FL_DF else 1)
    st32(env + EFLAGS, (flags & ~(FL_ARITHMETIC | FL_DF)) | FL_FIXED)


@exported
def helper_x86_pushf(env: int) -> int:
    """RFLAGS as PUSHF stores them (SDM vol. 2, PUSHF: RF and VM are cleared in the image)."""
    return read_rflags(env) & ~(FL_RF | FL_VM)
