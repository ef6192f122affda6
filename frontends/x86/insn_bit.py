"""Bit and byte instructions (SDM vol. 1, 7.3.7 and 7.3.8), BMI1, BMI2, POPCNT, LZCNT, CRC32."""

from frontends.x86.context import X86Insn
from frontends.x86.flags import CcOp
from frontends.x86.helpers.decls import CRC32C, PDEP, PEXT
from frontends.x86.operands import ImmShape, MemShape, RegShape
from frontends.x86.registry import Status, instruction
from frontends.x86.status import CC_OP, CC_SRC, keep_zero, set_status, sized
from tcg.ir.block import Const, Operand
from tcg.ir.types import I32, I64, Cond

# --- bit test ---------------------------------------------------------------------------------------------------------
# CF is the bit, ZF stays, the rest is undefined: SAR's rule with the bit as source says that when cc_dst keeps ZF.
_BT = Status(reads=True, kills=True, out=CcOp.SARQ)


def _bit_number(x: X86Insn) -> Operand:
    """The bit's number within the operand."""
    last = x.ops[1]
    if isinstance(last, ImmShape):
        return x.imm(1, x.size)  # IR shifts take its low bits
    return x.b.and_(x.read(1), 8 * x.size - 1)


def _place(x: X86Insn) -> Operand | None:
    """gva of the operand that holds the bit: a register's bit number reaches beyond a memory operand."""
    b = x.b
    shape = x.ops[0]
    if not isinstance(shape, MemShape):
        return None
    if not isinstance(x.ops[1], RegShape):
        return x.address(0)
    width_log2 = (8 * x.size).bit_length() - 1
    number = b.sext(x.read(1), I64)
    away = b.shl(b.sar(number, width_log2), width_log2 - 3)
    return x.linear(x.wrap(b.add(x.effective(0), away), shape.address_size), shape.seg)


def _set_bit_status(x: X86Insn, old: Operand, number: Operand) -> None:
    if not x.status_live:
        return
    b = x.b
    keep_zero(x)
    b.st(CC_SRC, b.zext(b.and_(b.shr(old, number), 1), I64))
    b.st(CC_OP, Const(I32, int(CcOp.SARQ)))


@instruction("bt", status=_BT)
def BT(x: X86Insn) -> None:
    gva, number = _place(x), _bit_number(x)
    old = x.read(0) if gva is None else x.load(gva, x.size)
    _set_bit_status(x, old, number)


def _bit_modify(x: X86Insn, op: str, atomic: str) -> None:
    b = x.b
    gva, number = _place(x), _bit_number(x)
    mask: Operand = b.shl(Const(x.type, 1), number)
    value = b.not_(mask) if op == "andc" else mask

    def compute(a: Operand) -> Operand:
        match op:
            case "or":
                return b.or_(a, mask)
            case "andc":
                return b.andc(a, mask)
        return b.xor(a, mask)

    old, _ = x.modify(0, compute, atomic, value, gva=gva)
    _set_bit_status(x, old, number)


@instruction("bts", status=_BT)
def BTS(x: X86Insn) -> None:
    _bit_modify(x, "or", "atomic_or")


@instruction("btr", status=_BT)
def BTR(x: X86Insn) -> None:
    _bit_modify(x, "andc", "atomic_and")


@instruction("btc", status=_BT)
def BTC(x: X86Insn) -> None:
    _bit_modify(x, "xor", "atomic_xor")


# --- bit scan and count -----------------------------------------------------------------------------------------------
@instruction("bsf", status=lambda x: Status(kills=True, out=sized(CcOp.LOGICB, x.size)))
def BSF(x: X86Insn) -> None:
    _scan(x, reverse=False)


@instruction("bsr", status=lambda x: Status(kills=True, out=sized(CcOp.LOGICB, x.size)))
def BSR(x: X86Insn) -> None:
    _scan(x, reverse=True)


def _scan(x: X86Insn, *, reverse: bool) -> None:
    """A source of 0 leaves all 64 bits of the destination as they were (Intel: undefined; AMD: this)."""
    b = x.b
    source = x.read(1)
    found = b.xor(b.clz(source), 8 * x.size - 1) if reverse else b.ctz(source)
    none = b.setcond(Cond.EQ, source, 0)
    if x.size == 4:
        x.write(0, b.select(none, x.read(0, 8), b.zext(found, I64)))
    else:
        x.write(0, b.select(none, x.read(0), found))
    set_status(x, CcOp.LOGICB, source)


@instruction("tzcnt", status=lambda x: Status(kills=True, out=sized(CcOp.BMILGB, x.size)), feature="bmi1")
def TZCNT(x: X86Insn) -> None:
    source = x.read(1)
    result = x.b.ctz(source)
    x.write(0, result)
    set_status(x, CcOp.BMILGB, result, source)


@instruction("lzcnt", status=lambda x: Status(kills=True, out=sized(CcOp.BMILGB, x.size)), feature="abm")
def LZCNT(x: X86Insn) -> None:
    source = x.read(1)
    result = x.b.clz(source)
    x.write(0, result)
    set_status(x, CcOp.BMILGB, result, source)


@instruction("popcnt", status=Status(kills=True, out=CcOp.POPCNT), feature="popcnt")
def POPCNT(x: X86Insn) -> None:
    source = x.read(1)
    x.write(0, x.b.popcnt(source))
    set_status(x, CcOp.POPCNT, src=source)


# --- BMI1 -------------------------------------------------------------------------------------------------------------
@instruction("andn", status=lambda x: Status(kills=True, out=sized(CcOp.LOGICB, x.size)), feature="bmi1")
def ANDN(x: X86Insn) -> None:
    result = x.b.andc(x.read(2), x.read(1))
    x.write(0, result)
    set_status(x, CcOp.LOGICB, result)


@instruction("blsr", status=lambda x: Status(kills=True, out=sized(CcOp.BMILGB, x.size)), feature="bmi1")
def BLSR(x: X86Insn) -> None:
    source = x.read(1)
    result = x.b.and_(source, x.b.sub(source, 1))
    x.write(0, result)
    set_status(x, CcOp.BMILGB, result, source)


@instruction("blsmsk", status=lambda x: Status(kills=True, out=sized(CcOp.BMILGB, x.size)), feature="bmi1")
def BLSMSK(x: X86Insn) -> None:
    source = x.read(1)
    result = x.b.xor(source, x.b.sub(source, 1))
    x.write(0, result)
    set_status(x, CcOp.BMILGB, result, source)


@instruction("blsi", status=lambda x: Status(kills=True, out=sized(CcOp.BLSIB, x.size)), feature="bmi1")
def BLSI(x: X86Insn) -> None:
    source = x.read(1)
    result = x.b.and_(source, x.b.neg(source))
    x.write(0, result)
    set_status(x, CcOp.BLSIB, result, source)


def _low_mask(x: X86Insn, count: Operand) -> Operand:
    """Mask of the low `count` bits, all ones when count (of the operand's type) is the width or more."""
    b = x.b
    whole = b.setcond(Cond.GEU, count, 8 * x.size)
    return b.select(whole, Const(x.type, x.type.mask), b.sub(b.shl(Const(x.type, 1), count), 1))


@instruction("bextr", status=lambda x: Status(kills=True, out=sized(CcOp.LOGICB, x.size)), feature="bmi1")
def BEXTR(x: X86Insn) -> None:
    b = x.b
    source, control = x.read(1), x.read(2)
    start, length = b.and_(control, 0xFF), b.and_(b.shr(control, 8), 0xFF)
    beyond = b.setcond(Cond.GEU, start, 8 * x.size)
    field = b.and_(b.shr(source, start), _low_mask(x, length))
    result = b.select(beyond, Const(x.type, 0), field)
    x.write(0, result)
    set_status(x, CcOp.LOGICB, result)


# --- BMI2 -------------------------------------------------------------------------------------------------------------
@instruction("bzhi", status=lambda x: Status(kills=True, out=sized(CcOp.BLSIB, x.size)), feature="bmi2")
def BZHI(x: X86Insn) -> None:
    b = x.b
    source, index = x.read(1), b.and_(x.read(2), 0xFF)
    result = b.and_(source, _low_mask(x, index))
    x.write(0, result)
    set_status(x, CcOp.BLSIB, result, b.zext(b.setcond(Cond.GEU, index, 8 * x.size), I64))


@instruction("pdep", feature="bmi2")
def PDEP_(x: X86Insn) -> None:
    x.write(0, x.b.trunc(x.call(PDEP, x.b.zext(x.read(1), I64), x.b.zext(x.read(2), I64)), x.type))


@instruction("pext", feature="bmi2")
def PEXT_(x: X86Insn) -> None:
    x.write(0, x.b.trunc(x.call(PEXT, x.b.zext(x.read(1), I64), x.b.zext(x.read(2), I64)), x.type))


# --- CRC32 ------------------------------------------------------------------------------------------------------------
@instruction("crc32", feature="sse4.2")
def CRC32(x: X86Insn) -> None:
    b = x.b
    source = x.read(1)
    crc = x.call(CRC32C, b.and_(b.zext(x.read(0), I64), 0xFFFFFFFF), b.zext(source, I64), source.type.size)
    x.write(0, b.trunc(crc, x.type))
