"""What only the MM registers have: conversions between them and XMM floats (SDM vol. 1, 10.4.4, 11.4.1).

The packed integer forms are in `insn_sse_int` and `insn_sse_move` beside their XMM namesakes; EMMS is with the x87.
A CVTPI2PD from memory leaves the x87 state alone, which follows here from its having no MM operand.
"""

from frontends.x86.context import X86Insn
from frontends.x86.insn_sse_fp import convert_lanes
from frontends.x86.vector import fp, put, simd
from tcg.ir.block import Operand
from tcg.ir.types import F32, F64, I32, Lane, Rounding


def _low_half(x: X86Insn) -> Operand:
    return x.read_v(1, 8) if x.is_mem(1) else x.read_v(1)


@simd("cvtpi2ps")
def CVTPI2PS(x: X86Insn) -> None:
    value = _low_half(x)
    both = fp(x, lambda: convert_lanes(x, value, 2, Lane.W, Lane.S, lambda e: x.b.i2f(e, F32)))
    x.b.st(x.reg_ref(0), x.low64(both))


@simd("cvtpi2pd")
def CVTPI2PD(x: X86Insn) -> None:
    put(x, convert_lanes(x, _low_half(x), 2, Lane.W, Lane.DF, lambda e: x.b.i2f(e, F64)))


def _to_mmx(name: str, lane: Lane, rounding: Rounding) -> None:
    @simd(name)
    def emit(x: X86Insn) -> None:
        if lane is Lane.DF:  # 16 bytes of memory, aligned
            value = x.read_v(1, aligned=True)
        else:
            value = _low_half(x)
        put(x, fp(x, lambda: convert_lanes(x, value, 2, lane, Lane.W, lambda e: x.b.f2i(e, I32, rounding))))


for _suffix, _lane in (("ps", Lane.S), ("pd", Lane.DF)):
    _to_mmx(f"cvt{_suffix}2pi", _lane, Rounding.DYN)
    _to_mmx(f"cvtt{_suffix}2pi", _lane, Rounding.ZERO)
