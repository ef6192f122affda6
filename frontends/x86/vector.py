"""What every MMX and SSE instruction shares: who may run it, its operands as vectors, MMX's hold on the x87 registers.

`@simd(names...)` registers like `@instruction` and puts the availability checks (SDM vol. 3, 2.5 and 13.1) before the
function and the x87-to-MMX transition (SDM vol. 1, 9.5.1) behind it, where nothing can fault any more.
"""

from collections.abc import Callable

from frontends.x86.context import X86Insn, env
from frontends.x86.helpers.decls import CHECK_FPU
from frontends.x86.helpers.simd import SSE_BEGIN, SSE_END
from frontends.x86.operands import RegShape
from frontends.x86.registry import NO_STATUS, StatusRule, instruction
from frontends.x86.state import Mode
from tcg.ir.block import Const, Operand
from tcg.ir.types import I16, I32, I64, INT_OF_SIZE, V128, Cond, Lane, Type

UD, MF = 6, 16
_CHECK_MMX, _CHECK_SSE = 2, 3
_FSW_ES = 0x80

Emit = Callable[[X86Insn], None]

ZERO = Const(V128, 0)
ONES = Const(V128, V128.mask)


def lanes_of(width: int, value: int, mask: int = 0xFFFF) -> Const:
    """A vector constant: `value` in each `width`-bit lane whose bit in `mask` is set, else 0."""
    return Const(V128, sum(value << i * width for i in range(128 // width) if mask >> i & 1))


def has_bank(x: X86Insn, bank: str) -> bool:
    return any(isinstance(shape, RegShape) and shape.bank == bank for shape in x.ops)


def is_mmx(x: X86Insn) -> bool:
    """An MM register is among the operands."""
    return has_bank(x, "mm")


def _guard(x: X86Insn) -> bool:
    """Emit the availability checks; False when the instruction is undefined here."""
    mode = x.key.mode
    mmx_only = is_mmx(x) and not has_bank(x, "xmm")
    if mode & Mode.NO_SSE and not mmx_only:
        x.raise_(UD)
        return False
    if mode & Mode.FPU_TRAP:
        x.b.call_void(CHECK_FPU, _CHECK_MMX if mmx_only else _CHECK_SSE)
    if is_mmx(x):
        pending = x.b.and_(x.b.ld(I32, env("fpu_status")), _FSW_ES)
        x.raise_if(x.b.setcond(Cond.NE, pending, 0), MF)
    return True


def _enter_mmx(x: X86Insn) -> None:
    """TOP = 0, every register valid."""
    x.b.st(env("fpu_top"), Const(I32, 0))
    x.b.st(env("fpu_tags"), Const(I64, 0))


def simd(*names: str, feature: str = "", status: StatusRule = NO_STATUS) -> Callable[[Emit], Emit]:
    """Register an MMX or SSE instruction under the decoder's names."""

    def register(function: Emit) -> Emit:
        def emit(x: X86Insn) -> None:
            if _guard(x):
                function(x)
                if is_mmx(x):
                    _enter_mmx(x)

        emit.__doc__ = function.__doc__
        instruction(*names, feature=feature, status=status)(emit)
        return function

    return register


# --- operands ---------------------------------------------------------------------------------------------------------
def source(x: X86Insn, i: int = 1) -> Operand:
    """A full-width vector operand: XMM, or 16 aligned bytes; MM, or 8 bytes (upper half 0)."""
    return x.read_v(i, 8 if is_mmx(x) else 16, aligned=True)


def put(x: X86Insn, value: Operand, i: int = 0) -> None:
    """A vector register := value. An MM register's exponent field becomes all ones."""
    x.write_v(i, value)
    shape = x.ops[i]
    if isinstance(shape, RegShape) and shape.bank == "mm":
        x.b.st(x.reg_ref(i) + 8, Const(I16, 0xFFFF))


def low(x: X86Insn, i: int, type_: Type) -> Operand:
    """The low lane of an XMM register, or memory of that size, as an integer or float of type_."""
    if x.is_mem(i):
        return x.b.bitcast(x.load(x.address(i), type_.size), type_)
    return x.b.ld(type_, x.reg_ref(i))


def put_low(x: X86Insn, value: Operand, i: int = 0) -> None:
    """The low lane of an XMM register := value; the rest stays.

    In a region all of it is stored, so that the optimizer can follow one value a register, and since hosts stall on a
    load of 16 bytes after a store of some of them.
    """
    ref = x.reg_ref(i)
    if x.in_region:
        size = value.type.size
        bits = value if value.type.kind == "int" else x.b.bitcast(value, INT_OF_SIZE[size])
        value = x.b.vins(x.b.ld(V128, ref), bits, Lane.W if size == 4 else Lane.D, 0)
    x.b.st(ref, value)


def widened(x: X86Insn, value: Operand) -> Operand:
    """The integer in the low lane, 0 above: said as an insertion, which keeps hosts from storing it in two pieces."""
    return x.b.vins(ZERO, value, Lane.W if value.type is I32 else Lane.D, 0)


def fp(x: X86Insn, compute: Callable[[], Operand]) -> Operand:
    """A floating-point result. With an exception unmasked, #XM comes before anybody sees it.

    Every operand has been read, since a fault between the two helpers would lose sticky flags.
    """
    if not x.key.mode & Mode.FP_UNMASKED:
        return compute()
    x.b.call_void(SSE_BEGIN)
    result = compute()
    x.b.call_void(SSE_END)
    return result


# --- shuffles ---------------------------------------------------------------------------------------------------------
def picked(x: X86Insn, a: Operand, b: Operand, lane: Lane, lanes: tuple[int, ...]) -> Operand:
    """Lanes by number: a's first, then b's; -1 gives 0. Missing ones are 0."""
    size = lane.width // 8
    mask: list[int] = []
    for number in (*lanes, *(-1,) * (lane.count - len(lanes))):
        mask += [32] * size if number < 0 else [number * size + k for k in range(size)]
    return x.b.vshuf(a, b, tuple(mask))
