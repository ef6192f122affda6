"""Binary and decimal arithmetic, logic and comparison (SDM vol. 1, 7.3.2 to 7.3.4)."""

from collections.abc import Callable

from frontends.x86.context import X86Insn, env
from frontends.x86.flags import AF, CF, PF, SF, ZF, CcOp
from frontends.x86.registry import Status, instruction
from frontends.x86.state import Reg
from frontends.x86.status import (
    CC_DST,
    CC_OP,
    all_flags,
    bit_at,
    carry,
    keep_carry,
    set_flags,
    set_split,
    set_status,
    sized,
    split,
)
from tcg.ir.block import Const, Operand
from tcg.ir.types import I8, I16, I32, I64, INT_OF_SIZE, Cond

_DE = 0


def _kills(family: CcOp) -> Callable[[X86Insn], Status]:
    return lambda x: Status(kills=True, out=sized(family, x.size))


def _kills_or_clears(family: CcOp) -> Callable[[X86Insn], Status]:
    """Two equal registers: the result is zero whatever they hold."""
    return lambda x: Status(kills=True, out=CcOp.CLR if x.key.same else sized(family, x.size))


def _merges(family: CcOp) -> Callable[[X86Insn], Status]:
    return lambda x: Status(reads=True, kills=True, out=sized(family, x.size))


def _needs(family: CcOp) -> Callable[[X86Insn], Status]:
    return lambda x: Status(reads=True, out=sized(family, x.size))


# --- addition and subtraction -----------------------------------------------------------------------------------------
@instruction("add", status=_kills(CcOp.ADDB))
def ADD(x: X86Insn) -> None:
    addend = x.read(1)
    _, result = x.modify(0, lambda a: x.b.add(a, addend), "atomic_add", addend)
    set_status(x, CcOp.ADDB, result, addend)


@instruction("adc", status=_needs(CcOp.ADCB))
def ADC(x: X86Insn) -> None:
    b = x.b
    addend, c = x.read(1), b.zext(carry(x), x.type)
    _, result = x.modify(0, lambda a: b.add(b.add(a, addend), c))
    set_status(x, CcOp.ADCB, result, addend, c)


@instruction("sub", status=_kills_or_clears(CcOp.SUBB))
def SUB(x: X86Insn) -> None:
    if x.key.same:
        _clear(x)
        return
    subtrahend = x.read(1)
    _, result = x.modify(0, lambda a: x.b.sub(a, subtrahend), "atomic_sub", subtrahend)
    set_status(x, CcOp.SUBB, result, subtrahend)


@instruction("sbb", status=_needs(CcOp.SBBB))
def SBB(x: X86Insn) -> None:
    b = x.b
    subtrahend, c = x.read(1), b.zext(carry(x), x.type)
    if x.key.same:
        result: Operand = b.neg(c)
        x.write(0, result)
    else:
        _, result = x.modify(0, lambda a: b.sub(b.sub(a, subtrahend), c))
    set_status(x, CcOp.SBBB, result, subtrahend, c)


@instruction("cmp", status=_kills_or_clears(CcOp.SUBB))
def CMP(x: X86Insn) -> None:
    if x.key.same:
        set_status(x, CcOp.CLR)
        return
    a, subtrahend = x.read(0), x.read(1)
    set_status(x, CcOp.SUBB, x.b.sub(a, subtrahend), subtrahend)


def _clear(x: X86Insn) -> None:
    x.write(0, Const(x.type, 0))
    set_status(x, CcOp.CLR)


@instruction("neg", status=_kills(CcOp.SUBB))
def NEG(x: X86Insn) -> None:
    old, result = x.modify(0, x.b.neg)
    set_status(x, CcOp.SUBB, result, old)


def _step(x: X86Insn, result: Operand, family: CcOp) -> None:
    """Flags of INC and DEC: CF stays."""
    if x.status_live:
        keep_carry(x)
        x.b.st(CC_DST, x.b.zext(result, I64))
        x.b.st(CC_OP, Const(I32, int(sized(family, x.size))))


@instruction("inc", status=_merges(CcOp.INCB))
def INC(x: X86Insn) -> None:
    one = Const(x.type, 1)
    _, result = x.modify(0, lambda a: x.b.add(a, 1), "atomic_add", one)
    _step(x, result, CcOp.INCB)


@instruction("dec", status=_merges(CcOp.DECB))
def DEC(x: X86Insn) -> None:
    one = Const(x.type, 1)
    _, result = x.modify(0, lambda a: x.b.sub(a, 1), "atomic_sub", one)
    _step(x, result, CcOp.DECB)


@instruction("adcx", status=lambda x: Status(reads=True, out=CcOp.ADCOX), feature="adx")
def ADCX(x: X86Insn) -> None:
    _add_with(x, overflow=False)


@instruction("adox", status=lambda x: Status(reads=True, out=CcOp.ADCOX), feature="adx")
def ADOX(x: X86Insn) -> None:
    _add_with(x, overflow=True)


def _add_with(x: X86Insn, *, overflow: bool) -> None:
    b = x.b
    a, addend = x.read(0), x.read(1)
    split(x)
    c = b.ld(I64, env("cc_src2") if overflow else CC_DST)
    carried = b.setcond(Cond.NE, c, 0)
    result = b.add(b.add(a, addend), b.zext(carried, x.type))
    out = b.select(carried, b.setcond(Cond.LEU, result, a), b.setcond(Cond.LTU, result, a))
    x.write(0, result)
    set_split(x, *((None, out) if overflow else (out, None)))


# --- logic ------------------------------------------------------------------------------------------------------------
@instruction("and", status=_kills(CcOp.LOGICB))
def AND(x: X86Insn) -> None:
    mask = x.read(1)
    if x.key.same:
        result: Operand = mask
        if x.size == 4:
            x.write(0, mask)  # clears the upper half
    else:
        _, result = x.modify(0, lambda a: x.b.and_(a, mask), "atomic_and", mask)
    set_status(x, CcOp.LOGICB, result)


@instruction("or", status=_kills(CcOp.LOGICB))
def OR(x: X86Insn) -> None:
    mask = x.read(1)
    if x.key.same:
        result: Operand = mask
        if x.size == 4:
            x.write(0, mask)
    else:
        _, result = x.modify(0, lambda a: x.b.or_(a, mask), "atomic_or", mask)
    set_status(x, CcOp.LOGICB, result)


@instruction("xor", status=_kills_or_clears(CcOp.LOGICB))
def XOR(x: X86Insn) -> None:
    if x.key.same:
        _clear(x)
        return
    mask = x.read(1)
    _, result = x.modify(0, lambda a: x.b.xor(a, mask), "atomic_xor", mask)
    set_status(x, CcOp.LOGICB, result)


@instruction("test", status=_kills(CcOp.LOGICB))
def TEST(x: X86Insn) -> None:
    a = x.read(0)
    set_status(x, CcOp.LOGICB, a if x.key.same else x.b.and_(a, x.read(1)), size=x.size)


@instruction("not")
def NOT(x: X86Insn) -> None:
    x.modify(0, x.b.not_)


# --- multiplication ---------------------------------------------------------------------------------------------------
@instruction("mul", status=_kills(CcOp.MULB))
def MUL(x: X86Insn) -> None:
    _widening(x, signed=False)


@instruction("imul", status=_kills(CcOp.MULB))
def IMUL(x: X86Insn) -> None:
    if len(x.ops) == 1:
        _widening(x, signed=True)
        return
    factors = (x.read(0), x.read(1)) if len(x.ops) == 2 else (x.read(1), x.read(2))
    low, excess = _product(x, *factors)
    x.write(0, low)
    set_status(x, CcOp.MULB, low, excess)


def _product(x: X86Insn, a: Operand, c: Operand) -> tuple[Operand, Operand]:
    """(low half, operand-sized value that is nonzero when the signed product does not fit in it)."""
    b = x.b
    if x.size == 8:
        low = b.mul(a, c)
        return low, b.sub(b.mulhs(a, c), b.sar(low, 63))
    full = b.mul(b.sext(a, I64), b.sext(c, I64))
    part = b.trunc(full, x.type)
    return part, _high(x, b.sub(full, b.sext(part, I64)))


def _high(x: X86Insn, full: Operand) -> Operand:
    """The upper half of a double-width value in an i64, in the operand's size (less than 8)."""
    return x.b.trunc(x.b.shr(full, 8 * x.size), x.type)


def _widening(x: X86Insn, *, signed: bool) -> None:
    """One-operand MUL and IMUL: AX, DX:AX, EDX:EAX or RDX:RAX := rAX * operand 0."""
    b = x.b
    a, c = x.reg(Reg.RAX, x.size), x.read(0)
    extend = b.sext if signed else b.zext
    if x.size == 8:
        low: Operand = b.mul(a, c)
        high: Operand = (b.mulhs if signed else b.mulhu)(a, c)
        excess = b.sub(high, b.sar(low, 63)) if signed else high
    else:
        full = b.mul(extend(a, I64), extend(c, I64))
        low = b.trunc(full, x.type)
        high = _high(x, full)
        excess = _high(x, b.sub(full, extend(low, I64)))
    if x.size == 1:
        x.set_reg(Reg.RAX, b.trunc(full, I16))
    else:
        x.set_reg(Reg.RAX, low)
        x.set_reg(Reg.RDX, high)
    set_status(x, CcOp.MULB, low, excess)


@instruction("mulx", feature="bmi2")
def MULX(x: X86Insn) -> None:
    b = x.b
    a, c = x.reg(Reg.RDX, x.size), x.read(2)
    if x.size == 8:
        low: Operand = b.mul(a, c)
        high: Operand = b.mulhu(a, c)
    else:
        full = b.mul(b.zext(a, I64), b.zext(c, I64))
        low, high = b.trunc(full, x.type), b.trunc(b.shr(full, 32), x.type)
    x.write(1, low)
    x.write(0, high)  # wins when both destinations are one register


# --- division ---------------------------------------------------------------------------------------------------------
@instruction("div")
def DIV(x: X86Insn) -> None:
    """Flags are undefined: left as they were."""
    b = x.b
    divisor = x.read(0)
    if x.size == 1:
        n, d = b.zext(x.reg(Reg.RAX, 2), I32), b.zext(divisor, I32)
        x.raise_if(b.setcond(Cond.GEU, b.shr(n, 8), d), _DE)  # d == 0 too
        quotient, remainder = b.divu(n, d), b.remu(n, d)
        x.set_reg(Reg.RAX, b.trunc(b.or_(quotient, b.shl(remainder, 8)), I16))
        return
    high, low = x.reg(Reg.RDX, x.size), x.reg(Reg.RAX, x.size)
    x.raise_if(b.setcond(Cond.GEU, high, divisor), _DE)
    if x.size == 8:
        q, r = b.divu2(high, low, divisor)
    else:
        wide = INT_OF_SIZE[2 * x.size]
        n, d = b.or_(b.zext(low, wide), b.shl(b.zext(high, wide), 8 * x.size)), b.zext(divisor, wide)
        q, r = b.divu(n, d), b.remu(n, d)
    x.set_reg(Reg.RAX, b.trunc(q, x.type))
    x.set_reg(Reg.RDX, b.trunc(r, x.type))


@instruction("idiv")
def IDIV(x: X86Insn) -> None:
    """Flags are undefined: left as they were."""
    b = x.b
    divisor = x.read(0)
    if x.size == 8:
        quotient, remainder = _idiv128(x, divisor)
        x.set_reg(Reg.RAX, quotient)
        x.set_reg(Reg.RDX, remainder)
        return
    d = b.sext(divisor, I64)
    x.raise_if(b.setcond(Cond.EQ, d, 0), _DE)
    if x.size == 1:
        n = b.sext(x.reg(Reg.RAX, 2), I64)
    elif x.size == 2:
        n = b.sext(b.or_(b.zext(x.reg(Reg.RAX, 2), I32), b.shl(b.zext(x.reg(Reg.RDX, 2), I32), 16)), I64)
    else:
        n = b.or_(b.zext(x.reg(Reg.RAX, 4), I64), b.shl(b.zext(x.reg(Reg.RDX, 4), I64), 32))
        least = b.setcond(Cond.EQ, n, 1 << 63)  # the one dividend whose quotient by -1 the host could not hold
        x.raise_if(b.and_(least, b.setcond(Cond.EQ, d, -1)), _DE)
    q, r = b.divs(n, d), b.rems(n, d)
    narrow = b.trunc(q, x.type)
    x.raise_if(b.setcond(Cond.NE, b.sext(narrow, I64), q), _DE)
    if x.size == 1:
        x.set_reg(Reg.RAX, b.trunc(b.or_(b.and_(q, 0xFF), b.shl(r, 8)), I16))
        return
    x.set_reg(Reg.RAX, narrow)
    x.set_reg(Reg.RDX, b.trunc(r, x.type))


def _idiv128(x: X86Insn, divisor: Operand) -> tuple[Operand, Operand]:
    """RDX:RAX / divisor by magnitudes; raises #DE when the quotient does not fit."""
    b = x.b
    low, high = x.reg(Reg.RAX), x.reg(Reg.RDX)
    n_sign, d_sign = b.sar(high, 63), b.sar(divisor, 63)
    # |n| = (n ^ s) - s, 128 bits wide
    flipped = b.xor(low, n_sign)
    n_low = b.sub(flipped, n_sign)
    n_high = b.add(b.xor(high, n_sign), b.zext(b.setcond(Cond.LTU, n_low, b.neg(n_sign)), I64))
    d = b.sub(b.xor(divisor, d_sign), d_sign)
    x.raise_if(b.setcond(Cond.GEU, n_high, d), _DE)
    q, r = b.divu2(n_high, n_low, d)
    q_sign = b.xor(n_sign, d_sign)
    limit = b.sub((1 << 63) - 1, q_sign)  # 2^63 - 1, or 2^63 for a negative quotient
    x.raise_if(b.setcond(Cond.GTU, q, limit), _DE)
    return b.sub(b.xor(q, q_sign), q_sign), b.sub(b.xor(r, n_sign), n_sign)


# --- decimal (legacy modes only) --------------------------------------------------------------------------------------
def _result_flags(x: X86Insn, value: Operand) -> Operand:
    """ZF, SF and PF of an i8, at their places."""
    b = x.b
    even = b.setcond(Cond.EQ, b.and_(b.popcnt(value), 1), 0)
    zero, sign = b.setcond(Cond.EQ, value, 0), b.setcond(Cond.LT, value, 0)
    return b.or_(b.or_(bit_at(x, zero, ZF), bit_at(x, sign, SF)), bit_at(x, even, PF))


def _has(x: X86Insn, flags: Operand, flag: int) -> Operand:
    return x.b.setcond(Cond.NE, x.b.and_(flags, flag), 0)


_DECIMAL = Status(reads=True, out=CcOp.EFLAGS)


def _adjust_packed(x: X86Insn, *, subtract: bool) -> None:
    b = x.b
    if x.code64:
        x.raise_(6)
        return
    flags, al = all_flags(x), x.reg(Reg.RAX, 1)
    op = b.sub if subtract else b.add
    low = b.or_(b.setcond(Cond.GTU, b.and_(al, 15), 9), _has(x, flags, AF))
    high = b.or_(b.setcond(Cond.GTU, al, 0x99), _has(x, flags, CF))
    first = b.select(low, op(al, 6), al)
    result = b.select(high, op(first, 0x60), first)
    cf = high
    if subtract:  # the low correction may borrow by itself
        cf = b.or_(high, b.and_(low, b.setcond(Cond.LTU, al, 6)))
    x.set_reg(Reg.RAX, result)
    set_flags(x, b.or_(b.or_(_result_flags(x, result), bit_at(x, cf, CF)), bit_at(x, low, AF)))


@instruction("daa", status=_DECIMAL)
def DAA(x: X86Insn) -> None:
    _adjust_packed(x, subtract=False)


@instruction("das", status=_DECIMAL)
def DAS(x: X86Insn) -> None:
    _adjust_packed(x, subtract=True)


def _adjust_unpacked(x: X86Insn, *, subtract: bool) -> None:
    b = x.b
    if x.code64:
        x.raise_(6)
        return
    flags, ax = all_flags(x), x.reg(Reg.RAX, 2)
    adjust = b.or_(b.setcond(Cond.GTU, b.and_(ax, 15), 9), _has(x, flags, AF))
    moved = b.sub(ax, 0x106) if subtract else b.add(ax, 0x106)
    result = b.and_(b.select(adjust, moved, ax), 0xFF0F)
    x.set_reg(Reg.RAX, result)
    kept = _result_flags(x, b.trunc(result, I8))
    set_flags(x, b.or_(kept, b.select(adjust, Const(I64, AF | CF), Const(I64, 0))))


@instruction("aaa", status=_DECIMAL)
def AAA(x: X86Insn) -> None:
    _adjust_unpacked(x, subtract=False)


@instruction("aas", status=_DECIMAL)
def AAS(x: X86Insn) -> None:
    _adjust_unpacked(x, subtract=True)


@instruction("aam", status=Status(kills=True, out=CcOp.LOGICB))
def AAM(x: X86Insn) -> None:
    b = x.b
    base = x.imm_value(0) if x.ops else 10
    if x.code64 or not base:
        x.raise_(6 if x.code64 else _DE)
        return
    al = x.reg(Reg.RAX, 1)
    low = b.remu(al, base)
    x.set_reg(Reg.RAX, b.or_(b.zext(low, I16), b.shl(b.zext(b.divu(al, base), I16), 8)))
    set_status(x, CcOp.LOGICB, low)


@instruction("aad", status=Status(kills=True, out=CcOp.LOGICB))
def AAD(x: X86Insn) -> None:
    b = x.b
    if x.code64:
        x.raise_(6)
        return
    base = x.imm_value(0) if x.ops else 10
    ax = x.reg(Reg.RAX, 2)
    al = b.add(b.trunc(ax, I8), b.mul(b.trunc(b.shr(ax, 8), I8), base))
    x.set_reg(Reg.RAX, b.zext(al, I16))
    set_status(x, CcOp.LOGICB, al)
