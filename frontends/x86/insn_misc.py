"""Flag control, no-operations, fences, cache hints, random numbers, and the state-saving instructions
(SDM vol. 1, 7.3.10 to 7.3.14 and chapter 13)."""

from frontends.x86.context import X86Insn, env
from frontends.x86.flags import CF, OF, CcOp
from frontends.x86.helpers.decls import FXRSTOR, FXSAVE, RANDOM, XRSTOR, XSAVE
from frontends.x86.registry import Status, instruction
from frontends.x86.state import Reg
from frontends.x86.status import CC_DST, SIX, all_flags, set_flags, set_split, split
from tcg.ir.block import Const
from tcg.ir.types import I1, I8, I64, Barrier, Cond

_MERGES = Status(reads=True, kills=True, out=CcOp.ADCOX)


# --- flags ------------------------------------------------------------------------------------------------------------
def _set_carry(x: X86Insn, value: int | None) -> None:
    """CF := value, or its complement."""
    if not x.status_live:
        return
    b = x.b
    split(x)
    set_split(x, Const(I1, value) if value is not None else b.setcond(Cond.EQ, b.ld(I64, CC_DST), 0))


@instruction("clc", status=_MERGES)
def CLC(x: X86Insn) -> None:
    _set_carry(x, 0)


@instruction("stc", status=_MERGES)
def STC(x: X86Insn) -> None:
    _set_carry(x, 1)


@instruction("cmc", status=_MERGES)
def CMC(x: X86Insn) -> None:
    _set_carry(x, None)


@instruction("cld")
def CLD(x: X86Insn) -> None:
    x.b.st(env("df"), Const(I64, 1))


@instruction("std")
def STD(x: X86Insn) -> None:
    x.b.st(env("df"), Const(I64, I64.mask))


_AH = env("regs", Reg.RAX) + 1


@instruction("lahf", status=Status(reads=True))
def LAHF(x: X86Insn) -> None:
    b = x.b
    b.st(_AH, b.trunc(b.or_(b.and_(all_flags(x), SIX & ~OF), 2), I8))


@instruction("sahf", status=Status(reads=True, kills=True, out=CcOp.EFLAGS))
def SAHF(x: X86Insn) -> None:
    if x.status_live:
        b = x.b
        new = b.and_(b.zext(b.ld(I8, _AH), I64), SIX & ~OF)
        set_flags(x, b.or_(b.and_(all_flags(x), OF), new))


# --- nothing, order, caches -------------------------------------------------------------------------------------------
@instruction(
    *("nop", "endbr32", "endbr64", "pause", "rdsspd", "rdsspq"),
    *("prefetch", "prefetchw", "prefetchwt1", "prefetchnta", "prefetcht0", "prefetcht1", "prefetcht2"),
)
def NOP(x: X86Insn) -> None:
    """Also the hints: an address is not even computed. (RDSSP without shadow stacks leaves its register alone.)"""


@instruction("lfence")
def LFENCE(x: X86Insn) -> None:
    x.b.mb(Barrier.LD_LD | Barrier.LD_ST)


@instruction("sfence")
def SFENCE(x: X86Insn) -> None:
    x.b.mb(Barrier.ST_ST)


@instruction("mfence")
def MFENCE(x: X86Insn) -> None:
    x.b.mb(Barrier.ALL)


def _touch(x: X86Insn) -> None:
    """Faults as a byte load would."""
    x.load(x.address(0), 1)


@instruction("clflush", feature="clflush")
def CLFLUSH(x: X86Insn) -> None:
    _touch(x)


@instruction("clflushopt", feature="clflushopt")
def CLFLUSHOPT(x: X86Insn) -> None:
    _touch(x)


@instruction("clwb", feature="clwb")
def CLWB(x: X86Insn) -> None:
    _touch(x)


# --- random numbers ---------------------------------------------------------------------------------------------------
def _random(x: X86Insn) -> None:
    """Always succeeds: CF set, the other five flags clear."""
    x.write(0, x.b.trunc(x.call(RANDOM), x.type))
    set_flags(x, Const(I64, CF))


@instruction("rdrand", status=Status(kills=True, out=CcOp.EFLAGS), feature="rdrand")
def RDRAND(x: X86Insn) -> None:
    _random(x)


@instruction("rdseed", status=Status(kills=True, out=CcOp.EFLAGS), feature="rdseed")
def RDSEED(x: X86Insn) -> None:
    _random(x)


# --- saving floating-point and vector state ---------------------------------------------------------------------------
def _wide(x: X86Insn) -> int:
    return int(x.key.name.endswith("64"))


@instruction("fxsave", "fxsave64", feature="fxsr")
def FXSAVE_(x: X86Insn) -> None:
    x.b.call_void(FXSAVE, x.address(0), _wide(x))


@instruction("fxrstor", "fxrstor64", feature="fxsr")
def FXRSTOR_(x: X86Insn) -> None:
    x.b.call_void(FXRSTOR, x.address(0), _wide(x))
    x.reflow()


@instruction("xsave", "xsave64", feature="xsave")
def XSAVE_(x: X86Insn) -> None:
    x.b.call_void(XSAVE, x.address(0), _wide(x), 0)


@instruction("xsaveopt", "xsaveopt64", feature="xsaveopt")
def XSAVEOPT(x: X86Insn) -> None:
    x.b.call_void(XSAVE, x.address(0), _wide(x), 1)


@instruction("xsavec", "xsavec64", feature="xsavec")
def XSAVEC(x: X86Insn) -> None:
    x.b.call_void(XSAVE, x.address(0), _wide(x), 2)


@instruction("xrstor", "xrstor64", feature="xsave")
def XRSTOR_(x: X86Insn) -> None:
    x.b.call_void(XRSTOR, x.address(0), _wide(x))
    x.reflow()
