"""SSE data movement between registers and memory, masks (SDM vol. 1, 10.4.1 and 11.4.1; SSE3 and SSE4.1 additions).

Functions serve the MMX form of the same name too. Legacy SSE instructions demand aligned 16-byte memory, except MOVU*,
LDDQU and what is shorter.
"""

from frontends.x86.context import X86Insn
from frontends.x86.operands import MemShape, RegShape
from frontends.x86.registry import instruction
from frontends.x86.state import Reg
from frontends.x86.vector import is_mmx, low, picked, put, put_low, simd, source, widened
from tcg.ir.block import EnvRef
from tcg.ir.types import I64, INT_OF_SIZE, Cond, Lane

_S, _D, _H, _B = Lane.W, Lane.D, Lane.H, Lane.B


# --- whole registers --------------------------------------------------------------------------------------------------
def _move(x: X86Insn, *, aligned: bool) -> None:
    x.write_v(0, x.read_v(1, aligned=aligned), aligned=aligned)


@simd("movaps", "movapd", "movdqa", "movntps", "movntpd", "movntdq")
def MOVAPS(x: X86Insn) -> None:
    _move(x, aligned=True)


@simd("movntdqa", feature="sse4.1")
def MOVNTDQA(x: X86Insn) -> None:
    _move(x, aligned=True)


@simd("movups", "movupd", "movdqu", "lddqu")
def MOVUPS(x: X86Insn) -> None:
    _move(x, aligned=False)


# --- parts of registers -----------------------------------------------------------------------------------------------
def _upper(ref: EnvRef) -> EnvRef:
    return ref + 8


def _move_scalar(x: X86Insn, size: int) -> None:
    """Between registers the rest stays; a load clears it."""
    type_ = INT_OF_SIZE[size]
    if x.is_mem(0):
        x.store(x.address(0), x.b.ld(type_, x.reg_ref(1)))
    elif x.is_mem(1):
        put(x, x.read_v(1, size))
    else:
        put_low(x, low(x, 1, type_))


@simd("movss")
def MOVSS(x: X86Insn) -> None:
    _move_scalar(x, 4)


@simd("movsd")
def MOVSD(x: X86Insn) -> None:
    _move_scalar(x, 8)


def _from_integer(x: X86Insn, size: int) -> None:
    """A vector register takes an integer register, memory or low lane, zero-extended; the others take its low lane."""
    if isinstance(x.ops[0], RegShape) and x.ops[0].bank in ("xmm", "mm"):
        put(x, widened(x, low(x, 1, INT_OF_SIZE[size])))
    elif x.is_mem(0):
        x.store(x.address(0), x.b.ld(INT_OF_SIZE[size], x.reg_ref(1)))
    else:
        x.write(0, x.b.ld(INT_OF_SIZE[size], x.reg_ref(1)))


@simd("movd")
def MOVD(x: X86Insn) -> None:
    _from_integer(x, 4)


@simd("movq")
def MOVQ(x: X86Insn) -> None:
    _from_integer(x, 8)


@simd("movntq")
def MOVNTQ(x: X86Insn) -> None:
    _from_integer(x, 8)


@instruction("movnti")
def MOVNTI(x: X86Insn) -> None:
    x.write(0, x.read(1, x.size))


@simd("movlps", "movlpd")
def MOVLPS(x: X86Insn) -> None:
    _move_half(x, 0)


@simd("movhps", "movhpd")
def MOVHPS(x: X86Insn) -> None:
    _move_half(x, 8)


def _move_half(x: X86Insn, at: int) -> None:
    if x.is_mem(0):
        x.store(x.address(0), x.b.ld(I64, x.reg_ref(1) + at))
    else:
        x.b.st(x.reg_ref(0) + at, x.load(x.address(1), 8))


@simd("movhlps")
def MOVHLPS(x: X86Insn) -> None:
    x.b.st(x.reg_ref(0), x.b.ld(I64, _upper(x.reg_ref(1))))


@simd("movlhps")
def MOVLHPS(x: X86Insn) -> None:
    x.b.st(_upper(x.reg_ref(0)), x.b.ld(I64, x.reg_ref(1)))


@simd("movdq2q")
def MOVDQ2Q(x: X86Insn) -> None:
    put(x, x.read_v(1, 8))


@simd("movq2dq")
def MOVQ2DQ(x: X86Insn) -> None:
    put(x, x.read_v(1, 8))


@simd("movddup")
def MOVDDUP(x: X86Insn) -> None:
    put(x, x.b.vdup(low(x, 1, I64), _D))


@simd("movsldup")
def MOVSLDUP(x: X86Insn) -> None:
    a = source(x)
    put(x, picked(x, a, a, _S, (0, 0, 2, 2)))


@simd("movshdup")
def MOVSHDUP(x: X86Insn) -> None:
    a = source(x)
    put(x, picked(x, a, a, _S, (1, 1, 3, 3)))


# --- masks and masked stores ------------------------------------------------------------------------------------------
def _sign_mask(x: X86Insn, lane: Lane) -> None:
    """The sign bits of the lanes, zero-extended into a general register."""
    shape = x.ops[0]
    assert isinstance(shape, RegShape)
    x.write(0, x.b.zext(x.b.vmovmsk(x.read_v(1), lane), INT_OF_SIZE[shape.size]))


@simd("movmskps")
def MOVMSKPS(x: X86Insn) -> None:
    _sign_mask(x, _S)


@simd("movmskpd")
def MOVMSKPD(x: X86Insn) -> None:
    _sign_mask(x, _D)


@simd("pmovmskb")
def PMOVMSKB(x: X86Insn) -> None:
    _sign_mask(x, _B)  # an MM register's upper half is read as 0


@simd("maskmovdqu", "maskmovq")
def MASKMOVDQU(x: X86Insn) -> None:
    """Bytes whose mask sign bit is set go to [rDI]; one by one, as whatever they cross may fault.

    NOTE: a fault in the middle leaves the earlier bytes written, as the manual allows; the instruction restarts.
    """
    b = x.b
    data, mask = x.read_v(0), x.read_v(1)
    place = x.ops[2]  # implicit, for its segment
    assert isinstance(place, MemShape)
    base = x.reg(Reg.RDI)
    for i in range(8 if is_mmx(x) else 16):
        skip = b.new_label()
        selected = b.and_(b.vext(mask, _B, i), 0x80)
        b.brcond(b.setcond(Cond.EQ, selected, 0), skip)
        gva = x.linear(x.wrap(b.add(base, i), place.address_size), place.seg)
        x.store(gva, b.vext(data, _B, i))
        b.label(skip)
