"""String instructions (SDM vol. 1, 7.3.9): single steps in line, repeats through bulk helpers.

A repeat helper returns 1 when something wants the vCPU before the count is used up: registers are advanced, and the
instruction runs again from its own pc.
"""

from frontends.x86.context import X86Insn, env
from frontends.x86.flags import CcOp
from frontends.x86.helpers.decls import INS, OUTS, REP_CMPS, REP_LODS, REP_MOVS, REP_SCAS, REP_STOS
from frontends.x86.operands import MemShape
from frontends.x86.registry import Status, instruction
from frontends.x86.state import Mode, Reg, Seg
from frontends.x86.status import set_status, sized
from tcg.exec.forms import StatusOut
from tcg.ir.block import Const, HelperDecl, Operand
from tcg.ir.builder import Value
from tcg.ir.types import I16, I32, I64, Cond
from tcg.runtime.layout import ExitReason

_REPNE = 0xF2


def _source_segment(x: X86Insn) -> int:
    """The segment of [rSI]: DS unless overridden; -1 when its base is 0."""
    shape = x.ops[0 if x.key.name == "cmps" else 1]
    assert isinstance(shape, MemShape)
    return shape.seg


def _source_base(x: X86Insn) -> Operand:
    seg = _source_segment(x)
    return x.b.ld(I64, env("seg_base", seg)) if seg >= 0 else Const(I64, 0)


def _source(x: X86Insn) -> Operand:
    return x.linear(x.wrap(x.reg(Reg.RSI), x.key.address_size), _source_segment(x))


def _destination(x: X86Insn) -> Operand:
    seg = Seg.ES if x.key.mode & Mode.SEGMENTED else -1
    return x.linear(x.wrap(x.reg(Reg.RDI), x.key.address_size), seg)


def _advance(x: X86Insn, *regs: Reg) -> None:
    b = x.b
    step: Operand = b.ld(I64, env("df"))
    if x.size > 1:
        step = b.shl(step, x.size.bit_length() - 1)
    for reg in regs:
        moved = b.add(x.reg(reg), step)
        match x.key.address_size:
            case 8:
                x.set_reg(reg, moved)
            case 4:
                x.set_reg(reg, b.trunc(moved, I32))
            case _:
                x.set_reg(reg, b.trunc(moved, I16))


def _repeat(x: X86Insn, helper: HelperDecl, *args: Value) -> None:
    b = x.b
    done = b.new_label()
    interrupted = x.call(helper, *args)
    b.brcond(b.setcond(Cond.EQ, interrupted, 0), done, likely=True)
    b.exit(ExitReason.INTERRUPT, x.pc)
    b.label(done)


@instruction("movs")
def MOVS(x: X86Insn) -> None:
    if x.key.rep:
        _repeat(x, REP_MOVS, x.size, x.key.address_size, _source_base(x))
        return
    x.store(_destination(x), x.load(_source(x), x.size))
    _advance(x, Reg.RSI, Reg.RDI)


@instruction("stos")
def STOS(x: X86Insn) -> None:
    if x.key.rep:
        _repeat(x, REP_STOS, x.size, x.key.address_size)
        return
    x.store(_destination(x), x.reg(Reg.RAX, x.size))
    _advance(x, Reg.RDI)


@instruction("lods")
def LODS(x: X86Insn) -> None:
    if x.key.rep:
        _repeat(x, REP_LODS, x.size, x.key.address_size, _source_base(x))
        return
    x.set_reg(Reg.RAX, x.load(_source(x), x.size))
    _advance(x, Reg.RSI)


def _compare_status(x: X86Insn) -> Status:
    if x.key.rep:
        return Status(out=StatusOut.UNKNOWN)  # a count of 0 compares nothing
    return Status(kills=True, out=sized(CcOp.SUBB, x.size))


@instruction("cmps", status=_compare_status)
def CMPS(x: X86Insn) -> None:
    if x.key.rep:
        _repeat(x, REP_CMPS, x.size, x.key.address_size, _source_base(x), int(x.key.rep == _REPNE))
        return
    first, second = x.load(_source(x), x.size), x.load(_destination(x), x.size)
    _advance(x, Reg.RSI, Reg.RDI)
    set_status(x, CcOp.SUBB, x.b.sub(first, second), second)


@instruction("scas", status=_compare_status)
def SCAS(x: X86Insn) -> None:
    if x.key.rep:
        _repeat(x, REP_SCAS, x.size, x.key.address_size, int(x.key.rep == _REPNE))
        return
    first, second = x.reg(Reg.RAX, x.size), x.load(_destination(x), x.size)
    _advance(x, Reg.RDI)
    set_status(x, CcOp.SUBB, x.b.sub(first, second), second)


@instruction("ins")
def INS_(x: X86Insn) -> None:
    _repeat(x, INS, x.size, x.key.address_size, int(bool(x.key.rep)))
    x.b.goto_tb(1, x.next_pc)


@instruction("outs")
def OUTS_(x: X86Insn) -> None:
    _repeat(x, OUTS, x.size, x.key.address_size, _source_base(x), int(bool(x.key.rep)))
    x.b.goto_tb(1, x.next_pc)
