"""The x87 FPU's control instructions (SDM volume 1, section 8.3.11)."""

from frontends.x86.context import X86Insn, env
from frontends.x86.helpers.decls import CHECK_FPU, FNINIT
from frontends.x86.registry import instruction
from frontends.x86.state import Mode
from tcg.ir.types import I16, I32


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
