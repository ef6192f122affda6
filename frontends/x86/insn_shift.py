"""Shifts and rotates (SDM vol. 1, 7.3.6). Counts are taken modulo 32, or 64 for 64-bit operands.

Whether an immediate count is zero is part of the form (so its flags are known), which one it is only for RCL, RCR, SHLD
and SHRD; a count in CL of zero leaves the flags as they were.
Undefined by the manual, and here as bit-serial hardware has it: CF of SHL and SHR by more than the width, OF for counts
other than 1 (computed as for 1).
"""

from collections.abc import Callable

from frontends.x86.context import X86Insn
from frontends.x86.flags import CcOp
from frontends.x86.operands import ImmShape
from frontends.x86.registry import Status, instruction
from frontends.x86.state import Reg
from frontends.x86.status import CC_DST, CC_SRC2, carry, select_status, set_split, set_status, sized, split
from tcg.exec.forms import StatusOut
from tcg.ir.block import Const, Operand
from tcg.ir.builder import Value
from tcg.ir.types import I1, I32, I64, I128, Cond, Type


def fixed_count(x: X86Insn) -> int | None:
    """The masked immediate count when it is part of the form, else None."""
    last = x.ops[-1]
    if isinstance(last, ImmShape) and last.value is not None:
        return last.value & (63 if x.size == 8 else 31)
    return None


def _immediate_count(x: X86Insn, type_: Type) -> Operand | None:
    """The immediate count, not 0, of which an IR shift takes the low bits; None when it is in CL."""
    fixed = fixed_count(x)
    if fixed is not None:
        return Const(type_, fixed & type_.mask)
    return x.imm(len(x.ops) - 1, type_.size) if isinstance(x.ops[-1], ImmShape) else None


def _moves_nothing(x: X86Insn) -> bool:
    """An immediate count of 0: at most the upper half of a 32-bit register is cleared."""
    if fixed_count(x) != 0:
        return False
    if x.size == 4 and not x.is_mem(0):
        x.write(0, x.read(0))
    else:
        x.modify(0, lambda a: a)
    return True


def _status(family: CcOp) -> Callable[[X86Insn], Status]:
    def rule(x: X86Insn) -> Status:
        if not isinstance(x.ops[-1], ImmShape):
            return Status(out=StatusOut.UNKNOWN)
        return Status() if fixed_count(x) == 0 else Status(kills=True, out=sized(family, x.size))

    return rule


def _cl(x: X86Insn) -> Operand:
    """The masked count in CL, as i64 or (operands below 8 bytes) i32."""
    wide = I64 if x.size == 8 else I32
    return x.b.and_(x.b.zext(x.reg(Reg.RCX, 1), wide), 63 if x.size == 8 else 31)


def _shift(x: X86Insn, op: Callable[[Value, Value], Operand], family: CcOp, *, signed: bool = False) -> None:
    """SHL, SHR, SAR: work in i32 or i64, where every masked count is below the width."""
    b = x.b
    wide = I64 if x.size == 8 else I32
    if _moves_nothing(x):
        return
    fixed = _immediate_count(x, wide)
    count = _cl(x) if fixed is None else fixed

    def by(a: Operand, n: Operand) -> Operand:
        return b.trunc(op(b.resize(a, wide, signed=signed), n), x.type)

    old, result = x.modify(0, lambda a: by(a, count))
    if not x.status_live:
        return
    one_less = by(old, b.sub(count, 1))
    if fixed is None:
        select_status(x, b.setcond(Cond.NE, count, 0), family, result, one_less)
    else:
        set_status(x, family, result, one_less)


@instruction("shl", "sal", status=_status(CcOp.SHLB))
def SHL(x: X86Insn) -> None:
    _shift(x, x.b.shl, CcOp.SHLB)


@instruction("shr", status=_status(CcOp.SARB))
def SHR(x: X86Insn) -> None:
    _shift(x, x.b.shr, CcOp.SARB)


@instruction("sar", status=_status(CcOp.SARB))
def SAR(x: X86Insn) -> None:
    _shift(x, x.b.sar, CcOp.SARB, signed=True)


# --- double shifts ----------------------------------------------------------------------------------------------------
@instruction("shld", status=_status(CcOp.SHLB))
def SHLD(x: X86Insn) -> None:
    _double(x, left=True)


@instruction("shrd", status=_status(CcOp.SARB))
def SHRD(x: X86Insn) -> None:
    _double(x, left=False)


def _double(x: X86Insn, *, left: bool) -> None:
    """Operand 0 shifted, operand 1 coming in. 16-bit counts above 16 (undefined) bring operand 0 in again."""
    b = x.b
    width = 8 * x.size
    if _moves_nothing(x):
        return
    fixed = fixed_count(x)
    filler = x.read(1)
    count = b.resize(_cl(x), I64) if fixed is None else Const(I64, fixed)

    def by(a: Operand, n: Operand) -> Operand:
        """a shifted by n, 0 <= n < 32 (64-bit operands: 64)."""
        if x.size == 8:
            back = b.and_(b.sub(64, n), 63)
            moved, come = (b.shl(a, n), b.shr(filler, back)) if left else (b.shr(a, n), b.shl(filler, back))
            return b.select(b.setcond(Cond.EQ, n, 0), a, b.or_(moved, come))
        wide_a, wide_f = b.zext(a, I64), b.zext(filler, I64)
        if x.size == 4:
            joined = b.or_(b.shl(wide_a, 32), wide_f) if left else b.or_(b.shl(wide_f, 32), wide_a)
        else:
            joined = b.or_(b.or_(b.shl(wide_a, 32), b.shl(wide_f, 16)), wide_a)
        if not left:
            return b.trunc(b.shr(joined, n), x.type)
        return b.trunc(b.shr(b.shl(joined, n), 32), x.type)

    old, result = x.modify(0, lambda a: by(a, count))
    if not x.status_live:
        return
    family = CcOp.SHLB if left else CcOp.SARB
    less = b.sub(count, 1)
    one_less = by(old, less) if left else b.trunc(b.shr(b.zext(old, I64), less), x.type)
    if fixed is None:
        select_status(x, b.setcond(Cond.NE, count, 0), family, result, one_less)
    else:
        assert 0 <= fixed < max(width, 32)
        set_status(x, family, result, one_less)


# --- rotates ----------------------------------------------------------------------------------------------------------
def _rotate_status(x: X86Insn) -> Status:
    if fixed_count(x) == 0:
        return Status()
    return Status(reads=True, kills=True, out=CcOp.ADCOX)


def _set_rotated(x: X86Insn, moved: Operand | None, cf: Operand, of: Operand) -> None:
    """CF and OF of a rotate. moved: i1, false when a count in CL was 0 (None: it was not)."""
    if not x.status_live:
        return
    b = x.b
    split(x)
    if moved is not None:
        cf = b.select(moved, b.zext(cf, I64), b.ld(I64, CC_DST))
        of = b.select(moved, b.zext(of, I64), b.ld(I64, CC_SRC2))
    set_split(x, cf, of)


def _msb(x: X86Insn, value: Operand) -> Operand:
    return x.b.setcond(Cond.LT, value, 0)


def _rotate(x: X86Insn, op: Callable[[Value, Value], Operand], *, left: bool) -> None:
    b = x.b
    if _moves_nothing(x):
        return
    fixed = _immediate_count(x, x.type)
    count: Operand = fixed if fixed is not None else b.resize(_cl(x), x.type)
    _, result = x.modify(0, lambda a: op(a, count))
    if not x.status_live:
        return
    moved = b.setcond(Cond.NE, count, 0) if fixed is None else None
    top = _msb(x, result)
    if left:
        cf = b.trunc(result, I1)
        of = b.xor(top, cf)
    else:
        cf = top
        of = b.xor(top, _msb(x, b.shl(result, 1)))
    _set_rotated(x, moved, cf, of)


@instruction("rol", status=_rotate_status)
def ROL(x: X86Insn) -> None:
    _rotate(x, x.b.rotl, left=True)


@instruction("ror", status=_rotate_status)
def ROR(x: X86Insn) -> None:
    _rotate(x, x.b.rotr, left=False)


def _carry_status(x: X86Insn) -> Status:
    return Status() if fixed_count(x) == 0 else Status(reads=True, out=CcOp.ADCOX)


def _rotate_carry(x: X86Insn, *, left: bool) -> None:
    """RCL, RCR: CF and the operand rotate as one number of width + 1 bits."""
    b = x.b
    if _moves_nothing(x):
        return
    fixed = fixed_count(x)
    width = 8 * x.size
    wide = I128 if x.size == 8 else I64
    span = width + 1
    if fixed is not None:
        count: Operand = Const(wide, fixed % span)
    else:
        count = b.resize(_cl(x), I64)
        if x.size < 4:
            count = b.remu(count, span)
        count = b.resize(count, wide)
    zero = b.setcond(Cond.EQ, count, 0)
    c = b.shl(b.zext(carry(x), wide), width)
    rotated: list[Operand] = []

    def compute(a: Operand) -> Operand:
        joined = b.or_(b.zext(a, wide), c)
        back = b.sub(span, count)  # the count is never 0 where this matters
        there, here = (b.shl, b.shr) if left else (b.shr, b.shl)
        if x.size == 8:  # 65 bits: both parts may not be shifted by a whole 128
            part = here(joined, back)
        else:
            part = here(joined, b.and_(back, 63))
        both = b.select(zero, joined, b.or_(there(joined, count), part))
        rotated.append(both)
        return b.trunc(both, x.type)

    old, result = x.modify(0, compute)
    cf = b.trunc(b.shr(rotated[-1], width), I1)
    of = b.xor(_msb(x, result), cf if left else _msb(x, b.shl(result, 1)))
    _set_rotated(x, b.not_(zero), cf, of)
    del old


@instruction("rcl", status=_carry_status)
def RCL(x: X86Insn) -> None:
    _rotate_carry(x, left=True)


@instruction("rcr", status=_carry_status)
def RCR(x: X86Insn) -> None:
    _rotate_carry(x, left=False)


# --- shifts without flags (BMI2) --------------------------------------------------------------------------------------
@instruction("sarx", feature="bmi2")
def SARX(x: X86Insn) -> None:
    x.write(0, x.b.sar(x.read(1), x.read(2)))


@instruction("shlx", feature="bmi2")
def SHLX(x: X86Insn) -> None:
    x.write(0, x.b.shl(x.read(1), x.read(2)))


@instruction("shrx", feature="bmi2")
def SHRX(x: X86Insn) -> None:
    x.write(0, x.b.shr(x.read(1), x.read(2)))


@instruction("rorx", feature="bmi2")
def RORX(x: X86Insn) -> None:
    x.write(0, x.b.rotr(x.read(1), x.imm_value(2) & (8 * x.size - 1)))
