"""SSE control, string comparison, AES, carry-less multiplication, SHA
(SDM vol. 1, 10.4.3, 12.11 to 12.13; vol. 2, 4.1 for the string instructions).
"""

from frontends.x86.context import X86Insn, env
from frontends.x86.flags import CF, OF, SF, ZF, CcOp
from frontends.x86.helpers.decls import LDMXCSR, STMXCSR
from frontends.x86.helpers.simd import (
    AESDEC_,
    AESDECLAST_,
    AESENC_,
    AESENCLAST_,
    AESIMC_,
    AESKEYGENASSIST_,
    PCLMULQDQ_,
    PCMPESTRM_,
    PCMPISTRM_,
    SHA1MSG1_,
    SHA1MSG2_,
    SHA1NEXTE_,
    SHA1RNDS4_,
    SHA256MSG1_,
    SHA256MSG2_,
    SHA256RNDS2_,
)
from frontends.x86.registry import Status
from frontends.x86.state import Reg
from frontends.x86.status import bit_at, set_flags
from frontends.x86.vector import ZERO, put, simd, source
from tcg.ir.block import Const, HelperDecl, Operand
from tcg.ir.types import I32, I64, V128, Cond, Lane


# --- MXCSR ------------------------------------------------------------------------------------------------------------
@simd("ldmxcsr")
def LDMXCSR_(x: X86Insn) -> None:
    """Translation depends on whether an exception is unmasked: the block ends."""
    x.b.call_void(LDMXCSR, x.b.zext(x.load(x.address(0), 4), I64))
    x.reflow()


@simd("stmxcsr")
def STMXCSR_(x: X86Insn) -> None:
    x.store(x.address(0), x.b.trunc(x.call(STMXCSR), I32))


# --- one helper each --------------------------------------------------------------------------------------------------
def _two(name: str, helper: HelperDecl, feature: str) -> None:
    @simd(name, feature=feature)
    def emit(x: X86Insn) -> None:
        b = source(x)
        put(x, x.call(helper, x.read_v(0), b))


for _name, _helper in (
    ("aesenc", AESENC_), ("aesenclast", AESENCLAST_), ("aesdec", AESDEC_), ("aesdeclast", AESDECLAST_)
):  # fmt: skip
    _two(_name, _helper, "aes")
for _name, _helper in (
    ("sha1nexte", SHA1NEXTE_), ("sha1msg1", SHA1MSG1_), ("sha1msg2", SHA1MSG2_),
    ("sha256msg1", SHA256MSG1_), ("sha256msg2", SHA256MSG2_),
):  # fmt: skip
    _two(_name, _helper, "sha-ni")


@simd("aesimc", feature="aes")
def AESIMC(x: X86Insn) -> None:
    put(x, x.call(AESIMC_, source(x)))


@simd("aeskeygenassist", feature="aes")
def AESKEYGENASSIST(x: X86Insn) -> None:
    put(x, x.call(AESKEYGENASSIST_, source(x), x.imm_value(2)))


@simd("pclmulqdq", feature="pclmulqdq")
def PCLMULQDQ(x: X86Insn) -> None:
    b = source(x)
    put(x, x.call(PCLMULQDQ_, x.read_v(0), b, x.imm_value(2) & 0x11))


@simd("sha1rnds4", feature="sha-ni")
def SHA1RNDS4(x: X86Insn) -> None:
    b = source(x)
    put(x, x.call(SHA1RNDS4_, x.read_v(0), b, x.imm_value(2) & 3))


@simd("sha256rnds2", feature="sha-ni")
def SHA256RNDS2(x: X86Insn) -> None:
    b = source(x)
    put(x, x.call(SHA256RNDS2_, x.read_v(0), b, x.b.ld(V128, env("xmm"))))


# --- string comparison ------------------------------------------------------------------------------------------------
# Everything follows from the bit mask of matches (IntRes2) and from whether either string ends in its operand.
_TO_MASK = 0x3F  # without bit 6, which chooses among the forms of the result
_EXPAND_BYTES = Const(V128, sum(1 << 8 * i + i % 8 for i in range(16)))
_EXPAND_WORDS = Const(V128, sum(1 << 16 * i + i for i in range(8)))


def _length(x: X86Insn, reg: Reg, count: int) -> Operand:
    """i32: the absolute value of an explicit length, at most `count`."""
    b = x.b
    length: Operand = x.reg(reg, x.size if x.size in (4, 8) else 4)
    negative = b.setcond(Cond.LT, length, 0)
    length = b.select(negative, b.neg(length), length)
    length = b.select(b.setcond(Cond.GTU, length, count), count, length)
    return b.trunc(length, I32)


def _ends(x: X86Insn, value: Operand, lane: Lane) -> Operand:
    """i1: some element is 0."""
    return x.b.setcond(Cond.NE, x.b.vmovmsk(x.b.vop("vcmpeq", value, ZERO, lane), Lane.B), 0)


def _matches(x: X86Insn, *, explicit: bool) -> tuple[Operand, int]:
    """(v128 bit mask of matches, number of elements); the flags are set. Memory need not be aligned."""
    b = x.b
    imm = x.imm_value(2)
    lane = Lane.H if imm & 1 else Lane.B
    second = x.read_v(1)
    first = x.read_v(0)
    if explicit:
        la, lb = (_length(x, reg, lane.count) for reg in (Reg.RAX, Reg.RDX))
        mask = x.call(PCMPESTRM_, first, la, second, lb, imm & _TO_MASK)
    else:
        mask = x.call(PCMPISTRM_, first, second, imm & _TO_MASK)
    if x.status_live:
        if explicit:
            ends: list[Operand] = [b.setcond(Cond.LTU, v, lane.count) for v in (la, lb)]
        else:
            ends = [_ends(x, v, lane) for v in (first, second)]
        bits = b.vext(mask, Lane.W, 0)
        flags: Operand = bit_at(x, b.setcond(Cond.NE, bits, 0), CF)
        flags = b.or_(flags, bit_at(x, ends[1], ZF))
        flags = b.or_(flags, bit_at(x, ends[0], SF))
        flags = b.or_(flags, bit_at(x, b.setcond(Cond.NE, b.and_(bits, 1), 0), OF))
        set_flags(x, flags)
    return mask, lane.count


def _index(x: X86Insn, *, explicit: bool) -> None:
    """ECX: the first or last match, or the number of elements."""
    b = x.b
    mask, count = _matches(x, explicit=explicit)
    bits = b.vext(mask, Lane.W, 0)
    if x.imm_value(2) & 0x40:
        found: Operand = b.sub(31, b.clz(bits))
        found = b.select(b.setcond(Cond.EQ, bits, 0), count, found)
    else:
        found = b.ctz(b.or_(bits, 1 << count))
    x.set_reg(Reg.RCX, found)


def _mask(x: X86Insn, *, explicit: bool) -> None:
    """XMM0: one bit, or all bits of one element, for each match."""
    b = x.b
    mask, count = _matches(x, explicit=explicit)
    if x.imm_value(2) & 0x40:
        if count == 16:
            spread = b.vshuf(mask, mask, (0,) * 8 + (1,) * 8)
            mask = b.vop("vcmpeq", b.and_(spread, _EXPAND_BYTES), _EXPAND_BYTES, Lane.B)
        else:
            spread = b.vshuf(mask, mask, (0, 1) * 8)
            mask = b.vop("vcmpeq", b.and_(spread, _EXPAND_WORDS), _EXPAND_WORDS, Lane.H)
    b.st(env("xmm"), mask)


_STATUS = Status(kills=True, out=CcOp.EFLAGS)


@simd("pcmpistri", feature="sse4.2", status=_STATUS)
def PCMPISTRI(x: X86Insn) -> None:
    _index(x, explicit=False)


@simd("pcmpistrm", feature="sse4.2", status=_STATUS)
def PCMPISTRM(x: X86Insn) -> None:
    _mask(x, explicit=False)


@simd("pcmpestri", feature="sse4.2", status=_STATUS)
def PCMPESTRI(x: X86Insn) -> None:
    _index(x, explicit=True)


@simd("pcmpestrm", feature="sse4.2", status=_STATUS)
def PCMPESTRM(x: X86Insn) -> None:
    _mask(x, explicit=True)
