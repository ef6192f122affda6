"""SSE and SSE2 floating point: arithmetic, comparisons, conversions, and SSE3's and SSE4.1's additions
(SDM vol. 1, 10.4, 11.4.1, 12.3, 12.10; flags and NaNs: 11.5, 4.8).

Scalars work on the low lane in place; packed forms on whole vectors. Operands are read before anything is computed.
"""

from collections.abc import Callable

from frontends.x86.context import X86Insn
from frontends.x86.flags import CF, PF, ZF, CcOp
from frontends.x86.helpers.simd import RCPPS_, RSQRTPS_
from frontends.x86.operands import RegShape
from frontends.x86.registry import Status
from frontends.x86.status import bit_at, set_flags
from frontends.x86.vector import fp, lanes_of, low, picked, put, put_low, simd, source
from tcg.ir.block import Operand
from tcg.ir.types import F32, F64, I32, I64, INT_OF_SIZE, FCond, Lane, Rounding, Type

_S, _DF = Lane.S, Lane.DF
_KINDS = (("ss", F32), ("sd", F64), ("ps", _S), ("pd", _DF))
_INTEGER = {F32: I32, F64: I64}


# --- arithmetic -------------------------------------------------------------------------------------------------------
def _arithmetic(name: str, op: str, kind: Type | Lane) -> None:
    @simd(name)
    def emit(x: X86Insn) -> None:
        if isinstance(kind, Type):
            b = low(x, 1, kind)
            a = low(x, 0, kind)
            put_low(x, fp(x, lambda: x.b.fop(op, a, b)))
        else:
            b = source(x)
            a = x.read_v(0)
            put(x, fp(x, lambda: x.b.fop(op, a, b, kind)))


def _root(name: str, kind: Type | Lane) -> None:
    @simd(name)
    def emit(x: X86Insn) -> None:
        if isinstance(kind, Type):
            a = low(x, 1, kind)
            put_low(x, fp(x, lambda: x.b.fsqrt(a)))
        else:
            a = source(x)
            put(x, fp(x, lambda: x.b.fsqrt(a, kind)))


for _suffix, _kind in _KINDS:
    for _name in ("add", "sub", "mul", "div", "min", "max"):
        _arithmetic(_name + _suffix, "f" + _name, _kind)
    _root("sqrt" + _suffix, _kind)


@simd("rcpps")
def RCPPS(x: X86Insn) -> None:
    put(x, x.call(RCPPS_, source(x)))


@simd("rsqrtps")
def RSQRTPS(x: X86Insn) -> None:
    put(x, x.call(RSQRTPS_, source(x)))


def _low_vector(x: X86Insn) -> Operand:
    return x.read_v(1, 4) if x.is_mem(1) else x.read_v(1)


@simd("rcpss")
def RCPSS(x: X86Insn) -> None:
    put_low(x, x.b.vext(x.call(RCPPS_, _low_vector(x)), Lane.W, 0))


@simd("rsqrtss")
def RSQRTSS(x: X86Insn) -> None:
    put_low(x, x.b.vext(x.call(RSQRTPS_, _low_vector(x)), Lane.W, 0))


# --- horizontal -------------------------------------------------------------------------------------------------------
def _lanes(x: X86Insn, a: Operand, b: Operand, lane: Lane, numbers: tuple[int, ...]) -> Operand:
    return picked(x, a, b, Lane.W if lane is _S else Lane.D, numbers)


def _horizontal(x: X86Insn, op: str, lane: Lane) -> None:
    b = source(x)
    a = x.read_v(0)
    even = _lanes(x, a, b, lane, tuple(range(0, 2 * lane.count, 2)))
    odd = _lanes(x, a, b, lane, tuple(range(1, 2 * lane.count, 2)))
    put(x, fp(x, lambda: x.b.fop(op, even, odd, lane)))


@simd("haddps")
def HADDPS(x: X86Insn) -> None:
    _horizontal(x, "fadd", _S)


@simd("haddpd")
def HADDPD(x: X86Insn) -> None:
    _horizontal(x, "fadd", _DF)


@simd("hsubps")
def HSUBPS(x: X86Insn) -> None:
    _horizontal(x, "fsub", _S)


@simd("hsubpd")
def HSUBPD(x: X86Insn) -> None:
    _horizontal(x, "fsub", _DF)


def _add_sub(x: X86Insn, lane: Lane) -> None:
    """Even lanes subtracted, odd ones added; each op sees its own lanes twice, so no other lane's flags are raised."""
    b = source(x)
    a = x.read_v(0)

    def twice(v: Operand, first: int) -> Operand:
        return _lanes(x, v, v, lane, tuple(first + i - i % 2 for i in range(lane.count)))

    operands = [(twice(a, i), twice(b, i)) for i in (0, 1)]

    def compute() -> Operand:
        even = x.b.fop("fsub", *operands[0], lane)
        odd = x.b.fop("fadd", *operands[1], lane)
        return _lanes(x, even, odd, lane, tuple(i + (lane.count if i % 2 else 0) for i in range(lane.count)))

    put(x, fp(x, compute))


@simd("addsubps")
def ADDSUBPS(x: X86Insn) -> None:
    _add_sub(x, _S)


@simd("addsubpd")
def ADDSUBPD(x: X86Insn) -> None:
    _add_sub(x, _DF)


def _dot(x: X86Insn, lane: Lane) -> None:
    """Lanes outside the mask's upper half count as +0 and raise nothing; the sum goes where its lower half says.

    The sum is made as a tree of neighbours (SDM vol. 2, DPPS): lanes that repeat a sum raise the same flags.
    """
    b = x.b
    imm = x.imm_value(2)
    chosen = lanes_of(lane.width, (1 << lane.width) - 1, imm >> 4)
    second = b.and_(source(x), chosen)
    first = b.and_(x.read_v(0), chosen)

    def compute() -> Operand:
        total: Operand = b.fop("fmul", first, second, lane)
        step = 1
        while step < lane.count:
            here = tuple(i & -2 * step for i in range(lane.count))
            neighbour = tuple(i + step for i in here)
            total = b.fop("fadd", _lanes(x, total, total, lane, here), _lanes(x, total, total, lane, neighbour), lane)
            step *= 2
        return total

    put(x, b.and_(fp(x, compute), lanes_of(lane.width, (1 << lane.width) - 1, imm & 15)))


@simd("dpps", feature="sse4.1")
def DPPS(x: X86Insn) -> None:
    _dot(x, _S)


@simd("dppd", feature="sse4.1")
def DPPD(x: X86Insn) -> None:
    _dot(x, _DF)


# --- comparisons ------------------------------------------------------------------------------------------------------
# Predicate of the immediate's low three bits: (comparison, a quiet NaN is invalid too); 4 to 7 are the complements.
_PREDICATES = ((FCond.EQ, False), (FCond.LT, True), (FCond.LE, True), (FCond.UN, False))


def _compare(name: str, kind: Type | Lane) -> None:
    @simd(name)
    def emit(x: X86Insn) -> None:
        b = x.b
        imm = x.imm_value(2)
        fcond, signal = _PREDICATES[imm & 3]
        if isinstance(kind, Type):
            second = low(x, 1, kind)
            first = low(x, 0, kind)
            mask = fp(x, lambda: b.sext(b.fcmp(fcond, first, second, signal=signal), _INTEGER[kind]))
        else:
            second = source(x)
            first = x.read_v(0)
            mask = fp(x, lambda: b.vfcmp(fcond, first, second, kind, signal=signal))
        if imm & 4:
            mask = b.not_(mask)
        if isinstance(kind, Type):
            put_low(x, mask)
        else:
            put(x, mask)


for _suffix, _kind in _KINDS:
    _compare("cmp" + _suffix, _kind)


def _compare_flags(name: str, type_: Type, *, signal: bool) -> None:
    """ZF PF CF: 111 unordered, 000 above, 001 below, 100 equal; the other three are cleared."""

    @simd(name, status=Status(kills=True, out=CcOp.EFLAGS))
    def emit(x: X86Insn) -> None:
        b = x.b
        second = low(x, 1, type_)
        first = low(x, 0, type_)

        def compute() -> Operand:
            unordered = b.fcmp(FCond.UN, first, second, signal=signal)
            if not x.status_live:
                return unordered
            flags = b.select(unordered, b.const(I64, ZF | PF | CF), 0)
            flags = b.or_(flags, bit_at(x, b.fcmp(FCond.EQ, first, second, signal=signal), ZF))
            return b.or_(flags, bit_at(x, b.fcmp(FCond.LT, first, second, signal=signal), CF))

        flags = fp(x, compute)
        if x.status_live:
            set_flags(x, flags)


for _suffix, _type in (("s", F32), ("d", F64)):
    _compare_flags("ucomis" + _suffix, _type, signal=False)
    _compare_flags("comis" + _suffix, _type, signal=True)


# --- conversions ------------------------------------------------------------------------------------------------------
def _to_float(name: str, type_: Type) -> None:
    @simd(name)
    def emit(x: X86Insn) -> None:
        shape = x.ops[1]
        assert not hasattr(shape, "value")
        value = x.read(1, shape.size)
        put_low(x, fp(x, lambda: x.b.i2f(value, type_)))


def _to_integer(name: str, type_: Type, rounding: Rounding) -> None:
    @simd(name)
    def emit(x: X86Insn) -> None:
        shape = x.ops[0]
        assert isinstance(shape, RegShape)
        value = low(x, 1, type_)
        x.write(0, fp(x, lambda: x.b.f2i(value, INT_OF_SIZE[shape.size], rounding)))


for _suffix, _type in (("ss", F32), ("sd", F64)):
    _to_float("cvtsi2" + _suffix, _type)
    _to_integer(f"cvt{_suffix}2si", _type, Rounding.DYN)
    _to_integer(f"cvtt{_suffix}2si", _type, Rounding.ZERO)


@simd("cvtss2sd")
def CVTSS2SD(x: X86Insn) -> None:
    value = low(x, 1, F32)
    put_low(x, fp(x, lambda: x.b.f2f(value, F64)))


@simd("cvtsd2ss")
def CVTSD2SS(x: X86Insn) -> None:
    value = low(x, 1, F64)
    put_low(x, fp(x, lambda: x.b.f2f(value, F32)))


def convert_lanes(
    x: X86Insn, value: Operand, count: int, lane: Lane, to: Lane, convert: Callable[[Operand], Operand]
) -> Operand:
    """The low `count` lanes converted one by one into lanes of width `to`; the rest is 0."""
    b = x.b
    types = {Lane.S: F32, Lane.DF: F64, Lane.W: I32, Lane.D: I64}
    place, out = (Lane.W if v.width == 32 else Lane.D for v in (lane, to))
    result: Operand = b.const(value.type, 0)
    for i in range(count):
        element = convert(b.bitcast(b.vext(value, place, i), types[lane]))
        result = b.vins(result, b.bitcast(element, INT_OF_SIZE[to.width // 8]), out, i)
    return result


def _low_half(x: X86Insn) -> Operand:
    """64 bits of memory (any alignment) or of a vector register."""
    return x.read_v(1, 8) if x.is_mem(1) else x.read_v(1)


@simd("cvtps2pd")
def CVTPS2PD(x: X86Insn) -> None:
    value = _low_half(x)
    put(x, fp(x, lambda: convert_lanes(x, value, 2, _S, _DF, lambda e: x.b.f2f(e, F64))))


@simd("cvtpd2ps")
def CVTPD2PS(x: X86Insn) -> None:
    value = source(x)
    put(x, fp(x, lambda: convert_lanes(x, value, 2, _DF, _S, lambda e: x.b.f2f(e, F32))))


@simd("cvtdq2pd")
def CVTDQ2PD(x: X86Insn) -> None:
    value = _low_half(x)  # exact: no flags
    put(x, convert_lanes(x, value, 2, Lane.W, _DF, lambda e: x.b.i2f(e, F64)))


@simd("cvtdq2ps")
def CVTDQ2PS(x: X86Insn) -> None:
    value = source(x)
    put(x, fp(x, lambda: convert_lanes(x, value, 4, Lane.W, _S, lambda e: x.b.i2f(e, F32))))


def _to_dwords(name: str, lane: Lane, rounding: Rounding) -> None:
    @simd(name)
    def emit(x: X86Insn) -> None:
        value = source(x)
        put(x, fp(x, lambda: convert_lanes(x, value, lane.count, lane, Lane.W, lambda e: x.b.f2i(e, I32, rounding))))


for _suffix, _kind in (("ps", _S), ("pd", _DF)):
    _to_dwords(f"cvt{_suffix}2dq", _kind, Rounding.DYN)
    _to_dwords(f"cvtt{_suffix}2dq", _kind, Rounding.ZERO)


# --- rounding to integral values --------------------------------------------------------------------------------------
def _round(name: str, kind: Type | Lane) -> None:
    """imm bit 2: MXCSR's rounding, else bits 1:0; bit 3: inexact is not raised."""

    @simd(name, feature="sse4.1")
    def emit(x: X86Insn) -> None:
        imm = x.imm_value(2)
        rounding = Rounding.DYN if imm & 4 else Rounding(imm & 3)
        exact = not imm & 8
        if isinstance(kind, Type):
            a = low(x, 1, kind)
            put_low(x, fp(x, lambda: x.b.fround(a, rounding, exact=exact)))
        else:
            a = source(x)
            put(x, fp(x, lambda: x.b.fround(a, rounding, exact=exact, lane=kind)))


for _suffix, _kind in _KINDS:
    _round("round" + _suffix, _kind)
