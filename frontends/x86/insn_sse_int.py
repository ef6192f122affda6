"""Packed integer instructions, MMX and SSE2 to SSE4.2 (SDM vol. 1, 9.4, 11.4.2, 12.4, 12.10).

One function serves the MM and the XMM form: an MM operand is a vector whose upper half is 0.
"""

from frontends.x86.context import X86Insn
from frontends.x86.flags import CF, ZF, CcOp
from frontends.x86.helpers.simd import (
    MPSADBW_,
    PHMINPOSUW_,
    PMADDUBSW_,
    PMADDWD_,
    PMULHRSW_,
    PSADBW_,
)
from frontends.x86.operands import ImmShape
from frontends.x86.registry import Status
from frontends.x86.status import bit_at, set_flags
from frontends.x86.vector import ONES, ZERO, is_mmx, lanes_of, picked, put, simd, source
from tcg.ir.block import Const, Operand
from tcg.ir.types import I64, Cond, Lane

_B, _H, _W, _D = Lane.B, Lane.H, Lane.W, Lane.D


# --- one IR op each ---------------------------------------------------------------------------------------------------
def _lanewise(x: X86Insn, op: str, lane: Lane) -> None:
    b = source(x)
    put(x, x.b.vop(op, x.read_v(0), b, lane))


def _row(name: str, op: str, lane: Lane, feature: str = "") -> None:
    """Register an instruction that is one two-input op on lanes."""

    @simd(name, feature=feature)
    def emit(x: X86Insn) -> None:
        _lanewise(x, op, lane)


_ROWS = {
    "paddb": ("vadd", _B), "paddw": ("vadd", _H), "paddd": ("vadd", _W), "paddq": ("vadd", _D),
    "psubw": ("vsub", _H), "psubd": ("vsub", _W), "psubq": ("vsub", _D), "psubb": ("vsub", _B),
    "paddusb": ("vqaddu", _B), "paddusw": ("vqaddu", _H), "paddsb": ("vqadds", _B), "paddsw": ("vqadds", _H),
    "psubusb": ("vqsubu", _B), "psubusw": ("vqsubu", _H), "psubsb": ("vqsubs", _B), "psubsw": ("vqsubs", _H),
    "pmullw": ("vmul", _H), "pmulhw": ("vmulhs", _H), "pmulhuw": ("vmulhu", _H),
    "pminub": ("vminu", _B), "pmaxub": ("vmaxu", _B), "pminsw": ("vmins", _H), "pmaxsw": ("vmaxs", _H),
    "pavgb": ("vavgu", _B), "pavgw": ("vavgu", _H),
    "pcmpgtb": ("vcmpgts", _B), "pcmpgtw": ("vcmpgts", _H), "pcmpgtd": ("vcmpgts", _W),
}  # fmt: skip
_ROWS_SSE41 = {
    "pmulld": ("vmul", _W), "pcmpeqq": ("vcmpeq", _D),
    "pminsb": ("vmins", _B), "pminuw": ("vminu", _H), "pminsd": ("vmins", _W), "pminud": ("vminu", _W),
    "pmaxsb": ("vmaxs", _B), "pmaxuw": ("vmaxu", _H), "pmaxsd": ("vmaxs", _W), "pmaxud": ("vmaxu", _W),
}  # fmt: skip
for _name, (_op, _lane) in _ROWS.items():
    _row(_name, _op, _lane)
for _name, (_op, _lane) in _ROWS_SSE41.items():
    _row(_name, _op, _lane, "sse4.1")
_row("pcmpgtq", "vcmpgts", _D, "sse4.2")


def _equal(name: str, lane: Lane) -> None:
    """PCMPEQ of a register with itself is the usual way to all ones."""

    @simd(name)
    def emit(x: X86Insn) -> None:
        if x.key.same and not is_mmx(x):
            put(x, ONES)
        else:
            _lanewise(x, "vcmpeq", lane)


for _name, _lane in (("pcmpeqb", _B), ("pcmpeqw", _H), ("pcmpeqd", _W)):
    _equal(_name, _lane)


# --- logic ------------------------------------------------------------------------------------------------------------
@simd("pand", "andps", "andpd")
def PAND(x: X86Insn) -> None:
    b = source(x)
    put(x, x.b.and_(x.read_v(0), b))


@simd("por", "orps", "orpd")
def POR(x: X86Insn) -> None:
    b = source(x)
    put(x, x.b.or_(x.read_v(0), b))


@simd("pxor", "xorps", "xorpd")
def PXOR(x: X86Insn) -> None:
    if x.key.same:
        put(x, ZERO)
    else:
        b = source(x)
        put(x, x.b.xor(x.read_v(0), b))


@simd("pandn", "andnps", "andnpd")
def PANDN(x: X86Insn) -> None:
    b = source(x)
    put(x, x.b.andc(b, x.read_v(0)))


@simd("ptest", feature="sse4.1", status=Status(kills=True, out=CcOp.EFLAGS))
def PTEST(x: X86Insn) -> None:
    b = x.b
    second = source(x)
    if not x.status_live:
        return
    first = x.read_v(0)

    def zero(v: Operand) -> Operand:
        return b.setcond(Cond.EQ, b.or_(b.vext(v, _D, 0), b.vext(v, _D, 1)), 0)

    both = bit_at(x, zero(b.and_(second, first)), ZF)
    set_flags(x, b.or_(both, bit_at(x, zero(b.andc(second, first)), CF)))


# --- products and sums ------------------------------------------------------------------------------------------------
@simd("pmuludq")
def PMULUDQ(x: X86Insn) -> None:
    b = x.b
    even = lanes_of(64, 0xFFFFFFFF)
    second = b.and_(source(x), even)
    put(x, b.vop("vmul", b.and_(x.read_v(0), even), second, _D))


@simd("pmuldq", feature="sse4.1")
def PMULDQ(x: X86Insn) -> None:
    b = x.b
    second = source(x)

    def even(v: Operand) -> Operand:
        return b.vshift("vsar", b.vshift("vshl", v, 32, _D), 32, _D)

    put(x, b.vop("vmul", even(x.read_v(0)), even(second), _D))


@simd("pmaddwd")
def PMADDWD(x: X86Insn) -> None:
    b = source(x)
    put(x, x.call(PMADDWD_, x.read_v(0), b))


@simd("psadbw")
def PSADBW(x: X86Insn) -> None:
    b = source(x)
    put(x, x.call(PSADBW_, x.read_v(0), b))


@simd("pmaddubsw", feature="ssse3")
def PMADDUBSW(x: X86Insn) -> None:
    b = source(x)
    put(x, x.call(PMADDUBSW_, x.read_v(0), b))


@simd("pmulhrsw", feature="ssse3")
def PMULHRSW(x: X86Insn) -> None:
    b = source(x)
    put(x, x.call(PMULHRSW_, x.read_v(0), b))


@simd("mpsadbw", feature="sse4.1")
def MPSADBW(x: X86Insn) -> None:
    b = source(x)
    put(x, x.call(MPSADBW_, x.read_v(0), b, x.imm_value(2) & 7))


@simd("phminposuw", feature="sse4.1")
def PHMINPOSUW(x: X86Insn) -> None:
    put(x, x.call(PHMINPOSUW_, source(x)))


def _horizontal(x: X86Insn, op: str, lane: Lane) -> None:
    """OP of neighbours: first the destination's pairs, then the source's."""
    a, b = x.read_v(0), source(x)
    count = lane.count // (2 if is_mmx(x) else 1)
    pairs = range(0, count, 2)
    even = picked(x, a, b, lane, (*pairs, *(lane.count + i for i in pairs)))
    odd = picked(x, a, b, lane, (*(i + 1 for i in pairs), *(lane.count + i + 1 for i in pairs)))
    put(x, x.b.vop(op, even, odd, lane))


@simd("phaddw", feature="ssse3")
def PHADDW(x: X86Insn) -> None:
    _horizontal(x, "vadd", _H)


@simd("phaddd", feature="ssse3")
def PHADDD(x: X86Insn) -> None:
    _horizontal(x, "vadd", _W)


@simd("phaddsw", feature="ssse3")
def PHADDSW(x: X86Insn) -> None:
    _horizontal(x, "vqadds", _H)


@simd("phsubw", feature="ssse3")
def PHSUBW(x: X86Insn) -> None:
    _horizontal(x, "vsub", _H)


@simd("phsubd", feature="ssse3")
def PHSUBD(x: X86Insn) -> None:
    _horizontal(x, "vsub", _W)


@simd("phsubsw", feature="ssse3")
def PHSUBSW(x: X86Insn) -> None:
    _horizontal(x, "vqsubs", _H)


def _absolute(name: str, lane: Lane) -> None:
    @simd(name, feature="ssse3")
    def emit(x: X86Insn) -> None:
        put(x, x.b.vabs(source(x), lane))


def _sign(name: str, lane: Lane) -> None:
    """Destination negated, cleared or kept as the source lane is below, at or above 0."""

    @simd(name, feature="ssse3")
    def emit(x: X86Insn) -> None:
        b = x.b
        sign = source(x)
        negative = b.vop("vcmpgts", ZERO, sign, lane)
        value = b.vop("vsub", b.xor(x.read_v(0), negative), negative, lane)
        put(x, b.andc(value, b.vop("vcmpeq", sign, ZERO, lane)))


for _suffix, _lane in (("b", _B), ("w", _H), ("d", _W)):
    _absolute("pabs" + _suffix, _lane)
    _sign("psign" + _suffix, _lane)


# --- shifts -----------------------------------------------------------------------------------------------------------
def _shift(name: str, op: str, lane: Lane) -> None:
    """By an immediate of the form, or by the low 64 bits of a vector operand."""

    @simd(name)
    def emit(x: X86Insn) -> None:
        if isinstance(x.ops[1], ImmShape):
            count: Operand = Const(I64, x.imm_value(1))
        else:
            count = x.low64(source(x))
        put(x, x.b.vshift(op, x.read_v(0), count, lane))


for _suffix, _lane in (("w", _H), ("d", _W), ("q", _D)):
    _shift("psll" + _suffix, "vshl", _lane)
    _shift("psrl" + _suffix, "vshr", _lane)
    if _lane is not _D:
        _shift("psra" + _suffix, "vsar", _lane)


def _shift_bytes(x: X86Insn, by: int) -> None:
    a = x.read_v(0)
    put(x, x.b.vshuf(a, a, tuple(i - by if 0 <= i - by < 16 else 32 for i in range(16))))


@simd("pslldq")
def PSLLDQ(x: X86Insn) -> None:
    _shift_bytes(x, min(x.imm_value(1), 16))


@simd("psrldq")
def PSRLDQ(x: X86Insn) -> None:
    _shift_bytes(x, -min(x.imm_value(1), 16))


# --- narrowing, widening, bytes by index ------------------------------------------------------------------------------
def _pack(x: X86Insn, op: str, lane: Lane) -> None:
    a, b = x.read_v(0), source(x)
    if is_mmx(x):
        a = b = x.b.vop("vziplo", a, b, _D)
        narrow = x.b.vop(op, a, b, lane)
        put(x, picked(x, narrow, narrow, _D, (0,)))
    else:
        put(x, x.b.vop(op, a, b, lane))


@simd("packsswb")
def PACKSSWB(x: X86Insn) -> None:
    _pack(x, "vnarrows", _H)


@simd("packssdw")
def PACKSSDW(x: X86Insn) -> None:
    _pack(x, "vnarrows", _W)


@simd("packuswb")
def PACKUSWB(x: X86Insn) -> None:
    _pack(x, "vnarrowu", _H)


@simd("packusdw", feature="sse4.1")
def PACKUSDW(x: X86Insn) -> None:
    _pack(x, "vnarrowu", _W)


def _extend(name: str, lane: Lane, to: Lane, *, signed: bool) -> None:
    @simd(name, feature="sse4.1")
    def emit(x: X86Insn) -> None:
        size = 16 * lane.width // to.width
        a = x.read_v(1, size) if x.is_mem(1) else x.read_v(1)
        put(x, x.b.vwiden(a, lane, to, signed=signed))


for _from, _to in ((_B, _H), (_B, _W), (_B, _D), (_H, _W), (_H, _D), (_W, _D)):
    _names = {_B: "b", _H: "w", _W: "d", _D: "q"}
    _extend(f"pmovsx{_names[_from]}{_names[_to]}", _from, _to, signed=True)
    _extend(f"pmovzx{_names[_from]}{_names[_to]}", _from, _to, signed=False)


@simd("pshufb", feature="ssse3")
def PSHUFB(x: X86Insn) -> None:
    indices = source(x)
    if is_mmx(x):  # three index bits count
        indices = x.b.and_(indices, lanes_of(8, 0x87))
    put(x, x.b.vtbl(x.read_v(0), indices))
