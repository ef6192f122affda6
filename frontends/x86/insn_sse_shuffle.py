"""Shuffles, unpacking, insertion, extraction and blends (SDM vol. 1, 9.4.4, 10.4.1, 11.4.1, 11.4.2, 12.10; SSSE3).

Functions serve the MMX form of the same name too. Immediates are in the form, so that each is one constant shuffle.
"""

from frontends.x86.context import X86Insn, env
from frontends.x86.operands import RegShape
from frontends.x86.vector import ZERO, is_mmx, picked, put, simd, source
from tcg.ir.block import Operand
from tcg.ir.types import INT_OF_SIZE, V128, Lane

_S, _D, _H, _B = Lane.W, Lane.D, Lane.H, Lane.B


# --- shuffles by immediate --------------------------------------------------------------------------------------------
def _selectors(imm: int) -> tuple[int, int, int, int]:
    """The four two-bit fields of an immediate, lowest first."""
    return imm & 3, imm >> 2 & 3, imm >> 4 & 3, imm >> 6 & 3


@simd("pshufd")
def PSHUFD(x: X86Insn) -> None:
    a = source(x)
    put(x, picked(x, a, a, _S, _selectors(x.imm_value(2))))


@simd("pshuflw")
def PSHUFLW(x: X86Insn) -> None:
    a = source(x)
    put(x, picked(x, a, a, _H, (*_selectors(x.imm_value(2)), 4, 5, 6, 7)))


@simd("pshufhw")
def PSHUFHW(x: X86Insn) -> None:
    a = source(x)
    put(x, picked(x, a, a, _H, (0, 1, 2, 3, *(4 + s for s in _selectors(x.imm_value(2))))))


@simd("pshufw")
def PSHUFW(x: X86Insn) -> None:
    a = source(x)
    put(x, picked(x, a, a, _H, _selectors(x.imm_value(2))))


@simd("shufps")
def SHUFPS(x: X86Insn) -> None:
    a, b = x.read_v(0), source(x)
    s = _selectors(x.imm_value(2))
    put(x, picked(x, a, b, _S, (s[0], s[1], 4 + s[2], 4 + s[3])))


@simd("shufpd")
def SHUFPD(x: X86Insn) -> None:
    a, b = x.read_v(0), source(x)
    imm = x.imm_value(2)
    put(x, picked(x, a, b, _D, (imm & 1, 2 + (imm >> 1 & 1))))


@simd("palignr", feature="ssse3")
def PALIGNR(x: X86Insn) -> None:
    a, b = x.read_v(0), source(x)
    width = 8 if is_mmx(x) else 16
    first = x.imm_value(2)

    def place(i: int) -> int:
        """Where byte i of the shifted pair b:a comes from, as vshuf numbers it."""
        if i < width:
            return i
        return 16 + i - width if i < 2 * width else 32

    mask = tuple(place(first + i) if i < width else 32 for i in range(16))
    put(x, x.b.vshuf(b, a, mask))


# --- unpacking --------------------------------------------------------------------------------------------------------
def _unpack_low(x: X86Insn, lane: Lane) -> None:
    # MMX: the memory operand of the low form has 32 bits
    b = x.read_v(1, 4) if is_mmx(x) and x.is_mem(1) else source(x)
    a = x.read_v(0)
    put(x, x.b.vop("vziplo", a, b, lane))


def _unpack_high(x: X86Insn, lane: Lane) -> None:
    a, b = x.read_v(0), source(x)
    if is_mmx(x):  # the upper half of what the low form makes of 64 bits
        both = x.b.vop("vziplo", a, b, lane)
        put(x, picked(x, both, both, _D, (1,)))
    else:
        put(x, x.b.vop("vziphi", a, b, lane))


@simd("punpcklbw")
def PUNPCKLBW(x: X86Insn) -> None:
    _unpack_low(x, _B)


@simd("punpcklwd")
def PUNPCKLWD(x: X86Insn) -> None:
    _unpack_low(x, _H)


@simd("punpckldq", "unpcklps")
def PUNPCKLDQ(x: X86Insn) -> None:
    _unpack_low(x, _S)


@simd("punpcklqdq", "unpcklpd")
def PUNPCKLQDQ(x: X86Insn) -> None:
    _unpack_low(x, _D)


@simd("punpckhbw")
def PUNPCKHBW(x: X86Insn) -> None:
    _unpack_high(x, _B)


@simd("punpckhwd")
def PUNPCKHWD(x: X86Insn) -> None:
    _unpack_high(x, _H)


@simd("punpckhdq", "unpckhps")
def PUNPCKHDQ(x: X86Insn) -> None:
    _unpack_high(x, _S)


@simd("punpckhqdq", "unpckhpd")
def PUNPCKHQDQ(x: X86Insn) -> None:
    _unpack_high(x, _D)


# --- insert, extract --------------------------------------------------------------------------------------------------
def _lane_number(x: X86Insn, lane: Lane) -> int:
    return x.imm_value(2) & ((4 if is_mmx(x) else lane.count) - 1)


def _insert(x: X86Insn, lane: Lane) -> None:
    size = lane.width // 8
    value = x.read(1, size)
    at = size * _lane_number(x, lane)
    if is_mmx(x):
        put(x, x.b.vins(x.read_v(0), value, lane, _lane_number(x, lane)))
    else:
        x.b.st(x.reg_ref(0) + at, value)


@simd("pinsrw")
def PINSRW(x: X86Insn) -> None:
    _insert(x, _H)


@simd("pinsrb", feature="sse4.1")
def PINSRB(x: X86Insn) -> None:
    _insert(x, _B)


@simd("pinsrd", feature="sse4.1")
def PINSRD(x: X86Insn) -> None:
    _insert(x, _S)


@simd("pinsrq", feature="sse4.1")
def PINSRQ(x: X86Insn) -> None:
    _insert(x, _D)


def _extract(x: X86Insn, lane: Lane) -> None:
    size = lane.width // 8
    value: Operand = x.b.ld(INT_OF_SIZE[size], x.reg_ref(1) + size * _lane_number(x, lane))
    shape = x.ops[0]
    if isinstance(shape, RegShape):
        value = x.b.zext(value, INT_OF_SIZE[shape.size])
    x.write(0, value)


@simd("pextrw")
def PEXTRW(x: X86Insn) -> None:
    _extract(x, _H)


@simd("pextrb", feature="sse4.1")
def PEXTRB(x: X86Insn) -> None:
    _extract(x, _B)


@simd("pextrd", "extractps", feature="sse4.1")
def PEXTRD(x: X86Insn) -> None:
    _extract(x, _S)


@simd("pextrq", feature="sse4.1")
def PEXTRQ(x: X86Insn) -> None:
    _extract(x, _D)


@simd("insertps", feature="sse4.1")
def INSERTPS(x: X86Insn) -> None:
    imm = x.imm_value(2)
    source_lane = 0 if x.is_mem(1) else imm >> 6
    b = x.read_v(1, 4) if x.is_mem(1) else x.read_v(1)
    lanes = [0, 1, 2, 3]
    lanes[imm >> 4 & 3] = 4 + source_lane
    put(x, picked(x, x.read_v(0), b, _S, tuple(-1 if imm >> i & 1 else lane for i, lane in enumerate(lanes))))


# --- blends -----------------------------------------------------------------------------------------------------------
def _blend(x: X86Insn, lane: Lane) -> None:
    a, b = x.read_v(0), source(x)
    imm = x.imm_value(2)
    put(x, picked(x, a, b, lane, tuple(i + (lane.count if imm >> i & 1 else 0) for i in range(lane.count))))


@simd("blendps", feature="sse4.1")
def BLENDPS(x: X86Insn) -> None:
    _blend(x, _S)


@simd("blendpd", feature="sse4.1")
def BLENDPD(x: X86Insn) -> None:
    _blend(x, _D)


@simd("pblendw", feature="sse4.1")
def PBLENDW(x: X86Insn) -> None:
    _blend(x, _H)


def _blend_variable(x: X86Insn, lane: Lane) -> None:
    """Lanes of the source where XMM0's sign bits are set."""
    a, b = x.read_v(0), source(x)
    if lane is _D:  # no 64-bit arithmetic shift on most hosts
        selector = x.b.ld(V128, env("xmm"))
        chosen: Operand = x.b.vop("vcmpgts", ZERO, selector, lane)
    elif lane is _B:
        chosen = x.b.vop("vcmpgts", ZERO, x.b.ld(V128, env("xmm")), lane)
    else:
        chosen = x.b.vshift("vsar", x.b.ld(V128, env("xmm")), lane.width - 1, lane)
    put(x, x.b.or_(x.b.and_(b, chosen), x.b.andc(a, chosen)))


@simd("blendvps", feature="sse4.1")
def BLENDVPS(x: X86Insn) -> None:
    _blend_variable(x, _S)


@simd("blendvpd", feature="sse4.1")
def BLENDVPD(x: X86Insn) -> None:
    _blend_variable(x, _D)


@simd("pblendvb", feature="sse4.1")
def PBLENDVB(x: X86Insn) -> None:
    _blend_variable(x, _B)
