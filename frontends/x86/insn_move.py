"""Data transfer instructions (SDM vol. 1, 7.3.1): MOV, extensions, exchanges, stack, addresses."""

from frontends.x86.context import X86Insn, env
from frontends.x86.flags import CcOp
from frontends.x86.helpers.decls import LOAD_SEG, READ_CR, READ_DR, WRITE_CR, WRITE_DR
from frontends.x86.operands import ImmShape, MemShape, RegShape
from frontends.x86.registry import Status, instruction
from frontends.x86.state import Mode, Reg, Seg
from frontends.x86.status import CONDITIONS, condition, replace_zero, set_status, sized
from tcg.ir.block import Operand
from tcg.ir.types import I8, I16, I64, INT_OF_SIZE, Cond, MemOp

_GP = 13


def stack_operand_size(x: X86Insn) -> int:
    """Operand size of stack instructions whose operand has none of its own: 64-bit code knows 8 and 2 only."""
    return 8 if x.code64 and x.size != 2 else x.size


# --- MOV --------------------------------------------------------------------------------------------------------------
@instruction("mov", "movabs")
def MOV(x: X86Insn) -> None:
    match x.ops:
        case (RegShape(bank="seg", number=seg), _):
            _load_segment(x, seg, x.read(1, 2))
            x.reflow()
        case (_, RegShape(bank="seg", number=seg)):
            selector = x.b.ld(I16, env("seg_selector", seg))
            x.write(0, selector if x.is_mem(0) else x.b.resize(selector, x.type))
        case (RegShape(bank="cr", number=number), _):
            x.b.call_void(WRITE_CR, number, x.b.zext(x.read(1), I64))
            x.reflow()
        case (_, RegShape(bank="cr", number=number)):
            x.write(0, x.b.resize(x.call(READ_CR, number), x.type))
        case (RegShape(bank="dr", number=number), _):
            x.b.call_void(WRITE_DR, number, x.b.zext(x.read(1), I64))
            x.reflow()
        case (_, RegShape(bank="dr", number=number)):
            x.write(0, x.b.resize(x.call(READ_DR, number), x.type))
        case _:
            x.write(0, x.read(1))


def _load_segment(x: X86Insn, seg: int, selector: Operand) -> None:
    if seg == Seg.CS:
        x.raise_(6)
    else:
        x.b.call_void(LOAD_SEG, seg, x.b.zext(selector, I64))


def _extended(x: X86Insn, signed: bool) -> Operand:
    shape = x.ops[1]
    assert not isinstance(shape, ImmShape)
    if isinstance(shape, MemShape) and shape.size < x.size:
        return x.load(x.address(1), shape.size, signed=signed, to=x.type)
    return x.b.resize(x.read(1, min(shape.size, x.size)), x.type, signed=signed)


@instruction("movzx")
def MOVZX(x: X86Insn) -> None:
    x.write(0, _extended(x, signed=False))


@instruction("movsx", "movsxd")
def MOVSX(x: X86Insn) -> None:
    x.write(0, _extended(x, signed=True))


@instruction("movbe", feature="movbe")
def MOVBE(x: X86Insn) -> None:
    x.write(0, x.b.bswap(x.read(1)))


@instruction("bswap")
def BSWAP(x: X86Insn) -> None:
    if x.size == 2:  # undefined; processors give 0
        x.write(0, x.b.const(I16, 0))
    else:
        x.write(0, x.b.bswap(x.read(0)))


@instruction("lea")
def LEA(x: X86Insn) -> None:
    x.write(0, x.b.trunc(x.effective(1), x.type))


@instruction("xlatb")
def XLATB(x: X86Insn) -> None:
    b = x.b
    shape = x.ops[0] if x.ops else None
    seg = shape.seg if isinstance(shape, MemShape) else x.data_segment
    offset = b.add(x.reg(Reg.RBX), b.zext(x.reg(Reg.RAX, 1), I64))
    x.set_reg(Reg.RAX, x.load(x.linear(x.wrap(offset, x.key.address_size), seg), 1), 1)


# --- conditional ------------------------------------------------------------------------------------------------------
_READS = Status(reads=True)


@instruction(*(f"cmov{name}" for name in CONDITIONS), status=_READS)
def CMOVcc(x: X86Insn) -> None:
    source = x.read(1)  # read, and so able to fault, whatever the condition
    holds = condition(x, CONDITIONS[x.key.name[4:]])
    x.write(0, x.b.select(holds, source, x.read(0)))


@instruction(*(f"set{name}" for name in CONDITIONS), status=_READS)
def SETcc(x: X86Insn) -> None:
    x.write(0, x.b.zext(condition(x, CONDITIONS[x.key.name[3:]]), I8))


# --- exchange ---------------------------------------------------------------------------------------------------------
@instruction("xchg")
def XCHG(x: X86Insn) -> None:
    m = 0 if x.is_mem(0) else 1
    if not x.is_mem(m):
        a, b = x.read(0), x.read(1)
        x.write(0, b)
        x.write(1, a)
        return
    value, gva = x.read(1 - m), x.address(m)
    if x.key.mode & Mode.PARALLEL:
        old: Operand = x.b.atomic("atomic_xchg", gva, value, MemOp(x.size))
    else:
        old = x.load(gva, x.size)
        x.store(gva, value)
    x.write(1 - m, old)


@instruction("xadd", status=lambda x: Status(kills=True, out=sized(CcOp.ADDB, x.size)))
def XADD(x: X86Insn) -> None:
    addend = x.read(1)
    if x.is_mem(0):
        old, new = x.modify(0, lambda a: x.b.add(a, addend), "atomic_add", addend)
        x.write(1, old)
    else:
        old = x.read(0)
        new = x.b.add(old, addend)
        x.write(1, old)
        x.write(0, new)  # the sum wins when both operands are one register
    set_status(x, CcOp.ADDB, new, addend)


@instruction("cmpxchg", status=lambda x: Status(kills=True, out=sized(CcOp.SUBB, x.size)))
def CMPXCHG(x: X86Insn) -> None:
    b = x.b
    expected = x.reg(Reg.RAX, x.size)
    new = x.read(1)
    if not x.is_mem(0):
        old: Operand = x.read(0)
        equal = b.setcond(Cond.EQ, old, expected)
        _load_accumulator(x, equal, old)
        x.write(0, b.select(equal, new, old))
    else:
        gva = x.address(0)
        if x.locked:
            old = b.atomic_cmpxchg(gva, expected, new, MemOp(x.size))
            equal = b.setcond(Cond.EQ, old, expected)
        else:
            old = x.load(gva, x.size)
            equal = b.setcond(Cond.EQ, old, expected)
            x.store(gva, b.select(equal, new, old))  # always stores
        _load_accumulator(x, equal, old)
    set_status(x, CcOp.SUBB, b.sub(expected, old), old)


def _load_accumulator(x: X86Insn, equal: Operand, old: Operand) -> None:
    """rAX := old unless equal (then not even its upper half changes)."""
    b = x.b
    ref = env("regs", Reg.RAX)
    if x.size == 4:
        b.st(ref, b.select(equal, b.ld(I64, ref), b.zext(old, I64)))
    else:
        b.st(ref, b.select(equal, b.ld(x.type, ref), old))


def _zero_only(x: X86Insn) -> Status:
    return Status(reads=True, kills=True, out=CcOp.EFLAGS)


@instruction("cmpxchg8b", status=_zero_only, feature="cx8")
def CMPXCHG8B(x: X86Insn) -> None:
    b = x.b

    def pair(lo: Reg, hi: Reg) -> Operand:
        return b.or_(b.zext(x.reg(lo, 4), I64), b.shl(x.reg(hi), 32))

    expected, new = pair(Reg.RAX, Reg.RDX), pair(Reg.RBX, Reg.RCX)
    gva = x.address(0)
    if x.locked:
        old: Operand = b.atomic_cmpxchg(gva, expected, new, MemOp(8))
        equal = b.setcond(Cond.EQ, old, expected)
    else:
        old = x.load(gva, 8)
        equal = b.setcond(Cond.EQ, old, expected)
        x.store(gva, b.select(equal, new, old))
    replace_zero(x, equal)
    for reg, half in ((Reg.RAX, b.and_(old, 0xFFFFFFFF)), (Reg.RDX, b.shr(old, 32))):
        b.st(env("regs", reg), b.select(equal, x.reg(reg), half))


@instruction("cmpxchg16b", status=_zero_only, feature="cx16")
def CMPXCHG16B(x: X86Insn) -> None:
    b = x.b
    gva = x.address(0)
    x.raise_if(b.setcond(Cond.NE, b.and_(gva, 15), 0), _GP)
    lo, hi, new_lo, new_hi = (x.reg(r) for r in (Reg.RAX, Reg.RDX, Reg.RBX, Reg.RCX))
    if x.locked:
        old = b.atomic_cmpxchg(gva, b.concat(lo, hi), b.concat(new_lo, new_hi), MemOp(16, align=16))
        old_lo, old_hi = b.trunc(old, I64), b.trunc(b.shr(old, 64), I64)
    else:  # aligned, so both halves are on one page
        old_lo, old_hi = x.load(gva, 8), x.load(b.add(gva, 8), 8)
    equal = b.setcond(Cond.EQ, b.or_(b.xor(old_lo, lo), b.xor(old_hi, hi)), 0)
    if not x.locked:
        x.store(gva, b.select(equal, new_lo, old_lo))
        x.store(b.add(gva, 8), b.select(equal, new_hi, old_hi))
    replace_zero(x, equal)
    b.st(env("regs", Reg.RAX), b.select(equal, lo, old_lo))
    b.st(env("regs", Reg.RDX), b.select(equal, hi, old_hi))


# --- stack ------------------------------------------------------------------------------------------------------------
@instruction("push")
def PUSH(x: X86Insn) -> None:
    match x.ops[0]:
        case RegShape(bank="seg", number=seg):
            size = stack_operand_size(x)
            x.push(x.b.resize(x.b.ld(I16, env("seg_selector", seg)), INT_OF_SIZE[size]))
        case RegShape() | MemShape():
            x.push(x.read(0))
        case _:
            x.push(x.imm(0, stack_operand_size(x)))


@instruction("pop")
def POP(x: X86Insn) -> None:
    match x.ops[0]:
        case RegShape(bank="seg", number=seg):
            size = stack_operand_size(x)
            value, new = x.peek(size)
            _load_segment(x, seg, x.b.trunc(value, I16))
            x.set_rsp(new)
            x.reflow()
        case RegShape():
            x.write(0, x.pop(x.size))
        case _:
            # The address counts with RSP after the pop, but a fault of the store must find RSP unchanged.
            value, new = x.peek(x.size)
            old = x.reg(Reg.RSP)
            x.set_rsp(new)
            gva = x.address(0)
            x.b.st(env("regs", Reg.RSP), old)
            x.store(gva, value)
            x.set_rsp(new)


_PUSHA = (Reg.RAX, Reg.RCX, Reg.RDX, Reg.RBX, Reg.RSP, Reg.RBP, Reg.RSI, Reg.RDI)


@instruction("pushal", "pushaw", "pusha")
def PUSHA(x: X86Insn) -> None:
    rsp = x.reg(Reg.RSP)
    for i, reg in enumerate(_PUSHA):
        x.store(x.stack(x.b.sub(rsp, x.size * (i + 1))), x.reg(reg, x.size))
    x.set_rsp(x.b.sub(rsp, x.size * 8))


@instruction("popal", "popaw", "popa")
def POPA(x: X86Insn) -> None:
    rsp = x.reg(Reg.RSP)
    values = [x.load(x.stack(x.b.add(rsp, x.size * i)), x.size) for i in range(8)]
    for reg, value in zip(reversed(_PUSHA), values, strict=True):
        if reg is not Reg.RSP:
            x.set_reg(reg, value)
    x.set_rsp(x.b.add(rsp, x.size * 8))


@instruction("enter")
def ENTER(x: X86Insn) -> None:
    b = x.b
    size = stack_operand_size(x)
    room, level = x.imm_value(0), x.imm_value(1) & 31
    rsp, rbp = x.reg(Reg.RSP), x.reg(Reg.RBP)
    top: Operand = b.sub(rsp, size)
    x.store(x.stack(top), x.reg(Reg.RBP, size))
    frame = top
    for i in range(1, level):
        link = x.load(x.stack(b.sub(rbp, size * i)), size)
        top = b.sub(top, size)
        x.store(x.stack(top), link)
    if level:
        top = b.sub(top, size)
        x.store(x.stack(top), b.trunc(frame, INT_OF_SIZE[size]))
    x.set_reg(Reg.RBP, b.trunc(frame, INT_OF_SIZE[size]))
    x.set_rsp(b.sub(top, room))


@instruction("leave")
def LEAVE(x: X86Insn) -> None:
    size = stack_operand_size(x)
    rbp = x.reg(Reg.RBP)
    value = x.load(x.stack(rbp), size)
    x.set_reg(Reg.RBP, value)
    x.set_rsp(x.b.add(rbp, size))


# --- sign extension within the accumulator ----------------------------------------------------------------------------
@instruction("cbw", "cwde", "cdqe")
def CBW(x: X86Insn) -> None:
    half = x.reg(Reg.RAX, x.size // 2)
    x.set_reg(Reg.RAX, x.b.sext(half, x.type))


@instruction("cwd", "cdq", "cqo")
def CWD(x: X86Insn) -> None:
    x.set_reg(Reg.RDX, x.b.sar(x.reg(Reg.RAX, x.size), 8 * x.size - 1))


# --- far pointers -----------------------------------------------------------------------------------------------------
@instruction("lds", "les", "lss", "lfs", "lgs")
def LDS(x: X86Insn) -> None:
    seg = Seg[x.key.name[1:].upper()]
    gva = x.address(1)
    offset = x.load(gva, x.size)
    selector = x.load(x.b.add(gva, x.size), 2)
    x.b.call_void(LOAD_SEG, int(seg), x.b.zext(selector, I64))
    x.write(0, offset)
    x.reflow()
