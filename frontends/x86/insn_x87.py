"""The x87 FPU's control instructions (SDM volume 1, section 8.3.11)."""

from frontends.x86.context import X86Insn, env
from frontends.x86.helpers.decls import CHECK_FPU, FNINIT
from frontends.x86.registry import instruction
from frontends.x86.state import Mode
from tcg.ir.block import Const
from tcg.ir.types import F80, I8, I16, I32, I64


def guard(x: X86Insn, kind: int = 0) -> None:
    """#NM (or #UD) where CR0 says that the FPU is not to be used; kind as CHECK_FPU's argument."""
    if x.key.mode & Mode.FPU_TRAP:
        x.b.call_void(CHECK_FPU, kind)


@instruction("fninit")
def FNINIT_(x: X86Insn) -> None:
    guard(x)
    x.b.call_void(FNINIT)


@instruction("fnstsw")
def FNSTSW(x: X86Insn) -> None:
    guard(x)
    b = x.b
    word = b.or_(b.ld(I32, env("fpu_status")), b.shl(b.ld(I32, env("fpu_top")), 11))
    x.write(0, b.trunc(word, I16))


@instruction("fnstcw")
def FNSTCW(x: X86Insn) -> None:
    guard(x)
    x.write(0, x.b.trunc(x.b.ld(I32, env("fpu_control")), I16))


@instruction("wait", "fwait")
def FWAIT(x: X86Insn) -> None:
    guard(x, 1)


@instruction("fnclex")
def FNCLEX(x: X86Insn) -> None:
    guard(x)
    b = x.b
    b.st(env("fpu_status"), b.and_(b.ld(I32, env("fpu_status")), 0x7F00))


@instruction("fild")
def FILD(x: X86Insn) -> None:
    guard(x)
    b = x.b
    value = b.i2f(x.load(x.address(0), x.size, signed=True, to=I64), F80)
    top = b.and_(b.sub(b.ld(I32, env("fpu_top")), 1), 7)
    slot = b.zext(top, I64)
    b.stx(env("fpregs"), b.shl(slot, 4), value, 128)
    b.stx(env("fpu_tags"), slot, Const(I8, 0), 8)
    b.st(env("fpu_top"), top)


@instruction("emms")
def EMMS(x: X86Insn) -> None:
    guard(x, 2)
    for n in range(8):
        x.b.st(env("fpu_tags", n), Const(I8, 1))
