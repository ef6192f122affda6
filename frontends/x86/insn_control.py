"""Control transfer (SDM vol. 1, 7.3.8): jumps, calls, returns, loops, interrupts."""

from frontends.x86.context import X86Insn, env
from frontends.x86.helpers.decls import (
    FAR_CALL,
    FAR_JMP,
    FAR_RET,
    INT,
    IRET,
    SYSCALL,
    SYSENTER,
    SYSEXIT,
    SYSRET,
)
from frontends.x86.operands import ImmShape
from frontends.x86.registry import Status, instruction
from frontends.x86.state import Reg
from frontends.x86.status import CONDITIONS, condition
from tcg.ir.block import HelperDecl, Operand
from tcg.ir.builder import Value
from tcg.ir.types import I64, INT_OF_SIZE, Cond

_OF_VECTOR, _BR, _UD = 4, 5, 6
_ENV_PC = env("pc")
_READS = Status(reads=True)


def _near_size(x: X86Insn) -> int:
    """Near branches in 64-bit code ignore the operand-size prefix (Intel)."""
    # QUIRK: a near branch to a non-canonical address faults at the target (as on QEMU), not at the branch.
    return 8 if x.code64 else x.key.opsize


def _branch_unless(x: X86Insn, skip_when: Operand) -> None:
    """Go to the branch target unless the i1 holds; then to the next instruction."""
    b = x.b
    skip = b.new_label()
    b.brcond(skip_when, skip)
    b.goto_tb(0, x.target)
    b.label(skip)


def transfer(x: X86Insn, helper: HelperDecl, *args: Value) -> None:
    """Call a helper that sets env.pc, and go there."""
    x.b.call_void(helper, *args)
    x.b.goto_ptr(x.b.ld(I64, _ENV_PC))


# --- near -------------------------------------------------------------------------------------------------------------
@instruction(*(f"j{name}" for name in CONDITIONS), status=_READS)
def Jcc(x: X86Insn) -> None:
    _branch_unless(x, condition(x, CONDITIONS[x.key.name[1:]] ^ 1))


@instruction("jcxz", "jecxz", "jrcxz")
def JCXZ(x: X86Insn) -> None:
    _branch_unless(x, x.b.setcond(Cond.NE, x.reg(Reg.RCX, x.key.address_size), 0))


def _count_down(x: X86Insn) -> Operand:
    count = x.b.sub(x.reg(Reg.RCX, x.key.address_size), 1)
    x.set_reg(Reg.RCX, count)
    return x.b.setcond(Cond.EQ, count, 0)


@instruction("loop")
def LOOP(x: X86Insn) -> None:
    _branch_unless(x, _count_down(x))


@instruction("loope", status=_READS)
def LOOPE(x: X86Insn) -> None:
    leave = condition(x, CONDITIONS["ne"])
    _branch_unless(x, x.b.or_(_count_down(x), leave))


@instruction("loopne", status=_READS)
def LOOPNE(x: X86Insn) -> None:
    leave = condition(x, CONDITIONS["e"])
    _branch_unless(x, x.b.or_(_count_down(x), leave))


def _near_target(x: X86Insn) -> Operand:
    return x.b.zext(x.read(0), I64)


@instruction("jmp")
def JMP(x: X86Insn) -> None:
    if isinstance(x.ops[0], ImmShape):
        x.b.goto_tb(0, x.target)
    else:
        x.b.goto_ptr(_near_target(x))


@instruction("call")
def CALL(x: X86Insn) -> None:
    target = None if isinstance(x.ops[0], ImmShape) else _near_target(x)
    x.push(x.b.trunc(x.next_pc, INT_OF_SIZE[_near_size(x)]))
    if target is None:
        x.b.goto_tb(0, x.target)
    else:
        x.b.goto_ptr(target)


@instruction("ret")
def RET(x: X86Insn) -> None:
    size = _near_size(x)
    target, rsp = x.peek(size)
    drop = x.imm_value(0) if x.ops else 0
    x.set_rsp(x.b.add(rsp, drop) if drop else rsp)
    x.b.goto_ptr(x.b.zext(target, I64))


# --- far --------------------------------------------------------------------------------------------------------------
def _far(x: X86Insn, helper: HelperDecl) -> None:
    b = x.b
    size = x.key.opsize
    if isinstance(x.ops[0], ImmShape):
        selector: Operand = b.and_(x.imm(0, 8), 0xFFFF)
        offset: Operand = b.and_(x.imm(1, 8), INT_OF_SIZE[size].mask)
    else:
        gva = x.address(0)
        offset = b.zext(x.load(gva, size), I64)
        selector = b.zext(x.load(b.add(gva, size), 2), I64)
    transfer(x, helper, selector, offset, size, x.next_pc)


@instruction("ljmp")
def LJMP(x: X86Insn) -> None:
    _far(x, FAR_JMP)


@instruction("lcall")
def LCALL(x: X86Insn) -> None:
    _far(x, FAR_CALL)


@instruction("retf", "retfq")
def RETF(x: X86Insn) -> None:
    transfer(x, FAR_RET, x.key.opsize, x.imm_value(0) if x.ops else 0)


@instruction("iret", "iretd", "iretq", status=Status(kills=False, out=0))
def IRET_(x: X86Insn) -> None:
    transfer(x, IRET, x.key.opsize)


# --- interrupts and system calls --------------------------------------------------------------------------------------
@instruction("int")
def INT_N(x: X86Insn) -> None:
    transfer(x, INT, x.imm_value(0), x.next_pc, 0)


@instruction("int3")
def INT3(x: X86Insn) -> None:
    transfer(x, INT, 3, x.next_pc, 1)


@instruction("int1")
def INT1(x: X86Insn) -> None:
    transfer(x, INT, 1, x.next_pc, 2)


@instruction("into", status=_READS)
def INTO(x: X86Insn) -> None:
    if x.code64:
        x.raise_(_UD)
        return
    skip = x.b.new_label()
    x.b.brcond(condition(x, CONDITIONS["no"]), skip)
    transfer(x, INT, _OF_VECTOR, x.next_pc, 1)
    x.b.label(skip)


@instruction("bound")
def BOUND(x: X86Insn) -> None:
    b = x.b
    index, gva = x.read(0), x.address(1)
    low, high = x.load(gva, x.size), x.load(b.add(gva, x.size), x.size)
    outside = b.or_(b.setcond(Cond.LT, index, low), b.setcond(Cond.GT, index, high))
    x.raise_if(outside, _BR)


@instruction("syscall", status=Status(out=0), feature="syscall")
def SYSCALL_(x: X86Insn) -> None:
    transfer(x, SYSCALL, x.next_pc)


@instruction("sysret", "sysretq", status=Status(out=0), feature="syscall")
def SYSRET_(x: X86Insn) -> None:
    transfer(x, SYSRET, x.key.opsize)


@instruction("sysenter", feature="sep")
def SYSENTER_(x: X86Insn) -> None:
    transfer(x, SYSENTER)


@instruction("sysexit", "sysexitq", feature="sep")
def SYSEXIT_(x: X86Insn) -> None:
    transfer(x, SYSEXIT, x.key.opsize)


@instruction("ud0", "ud1", "ud2")
def UD2(x: X86Insn) -> None:
    x.raise_(_UD)
