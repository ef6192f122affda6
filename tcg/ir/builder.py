"""The builder: how a frontend writes IR. One method an op family; a Python int becomes a constant of the other type.

b = Builder()
total = b.add(b.ld(I32, ref), 1)
b.st(ref, total)
"""

from typing import Any

from tcg.ir.block import Block, Const, EnvRef, HelperDecl, Hole, Label, Operand, Temp
from tcg.ir.types import (
    F32,
    F64,
    F80,
    I1,
    I32,
    I64,
    I128,
    INT_OF_SIZE,
    V128,
    Barrier,
    Cond,
    FCond,
    Lane,
    MemOp,
    Rounding,
    Type,
)

Value = Operand | int


class Builder:
    """Appends ops to `block`. Every method that computes returns the new temp."""

    def __init__(self, block: Block | None = None) -> None:
        self.block = block if block is not None else Block()

    # --- operands
    @staticmethod
    def const(type_: Type, value: int) -> Const:
        return Const(type_, value & type_.mask)

    @staticmethod
    def hole(name: str, type_: Type, lo: int = -(1 << 63), hi: int = (1 << 63) - 1) -> Hole:
        return Hole(name, type_, lo, hi)

    def _pair(self, a: Value, b: Value) -> tuple[Operand, Operand]:
        if isinstance(a, int):
            assert not isinstance(b, int), "one operand must carry a type"
            return self.const(b.type, a), b
        return a, self.const(a.type, b) if isinstance(b, int) else b

    def _emit(self, name: str, out: Type, ins: tuple[Operand, ...], **attrs: Any) -> Temp:
        temp = self.block.new_temp(out)
        self.block.append(name, (temp,), ins, **attrs)
        return temp

    def _same(self, name: str, a: Value, b: Value, **attrs: Any) -> Temp:
        x, y = self._pair(a, b)
        assert x.type is y.type, (name, x, y)
        return self._emit(name, x.type, (x, y), **attrs)

    def _i64(self, value: Value) -> Operand:
        operand = self.const(I64, value) if isinstance(value, int) else value
        assert operand.type is I64, operand
        return operand

    # --- integers
    def add(self, a: Value, b: Value) -> Temp:
        return self._same("add", a, b)

    def sub(self, a: Value, b: Value) -> Temp:
        return self._same("sub", a, b)

    def mul(self, a: Value, b: Value) -> Temp:
        return self._same("mul", a, b)

    def mulhu(self, a: Value, b: Value) -> Temp:
        return self._same("mulhu", a, b)

    def mulhs(self, a: Value, b: Value) -> Temp:
        return self._same("mulhs", a, b)

    def and_(self, a: Value, b: Value) -> Temp:
        return self._same("and", a, b)

    def or_(self, a: Value, b: Value) -> Temp:
        return self._same("or", a, b)

    def xor(self, a: Value, b: Value) -> Temp:
        return self._same("xor", a, b)

    def andc(self, a: Value, b: Value) -> Temp:
        return self._same("andc", a, b)

    def shl(self, a: Value, b: Value) -> Temp:
        return self._same("shl", a, b)

    def shr(self, a: Value, b: Value) -> Temp:
        return self._same("shr", a, b)

    def sar(self, a: Value, b: Value) -> Temp:
        return self._same("sar", a, b)

    def rotl(self, a: Value, b: Value) -> Temp:
        return self._same("rotl", a, b)

    def rotr(self, a: Value, b: Value) -> Temp:
        return self._same("rotr", a, b)

    def divu(self, a: Value, b: Value) -> Temp:
        return self._same("divu", a, b)

    def remu(self, a: Value, b: Value) -> Temp:
        return self._same("remu", a, b)

    def divs(self, a: Value, b: Value) -> Temp:
        return self._same("divs", a, b)

    def rems(self, a: Value, b: Value) -> Temp:
        return self._same("rems", a, b)

    def _div2(self, name: str, hi: Value, lo: Value, d: Value) -> tuple[Temp, Temp]:
        quotient, remainder = self.block.new_temp(I64), self.block.new_temp(I64)
        self.block.append(name, (quotient, remainder), (self._i64(hi), self._i64(lo), self._i64(d)))
        return quotient, remainder

    def divu2(self, hi: Value, lo: Value, d: Value) -> tuple[Temp, Temp]:
        return self._div2("divu2", hi, lo, d)

    def divs2(self, hi: Value, lo: Value, d: Value) -> tuple[Temp, Temp]:
        return self._div2("divs2", hi, lo, d)

    def unary(self, name: str, a: Operand, **attrs: Any) -> Temp:
        """not, neg, clz, ctz, popcnt, bswap (and any SAME op of one input)."""
        return self._emit(name, a.type, (a,), **attrs)

    def not_(self, a: Operand) -> Temp:
        return self.unary("not", a)

    def neg(self, a: Operand) -> Temp:
        return self.unary("neg", a)

    def clz(self, a: Operand) -> Temp:
        return self.unary("clz", a)

    def ctz(self, a: Operand) -> Temp:
        return self.unary("ctz", a)

    def popcnt(self, a: Operand) -> Temp:
        return self.unary("popcnt", a)

    def bswap(self, a: Operand) -> Temp:
        return self.unary("bswap", a)

    def convert(self, name: str, a: Operand, to: Type, **attrs: Any) -> Temp:
        """zext, sext, trunc, bitcast, f2f, i2f, f2i."""
        return self._emit(name, to, (a,), **attrs)

    def zext(self, a: Operand, to: Type) -> Operand:
        return a if a.type is to else self.convert("zext", a, to)

    def sext(self, a: Operand, to: Type) -> Operand:
        return a if a.type is to else self.convert("sext", a, to)

    def trunc(self, a: Operand, to: Type) -> Operand:
        return a if a.type is to else self.convert("trunc", a, to)

    def bitcast(self, a: Operand, to: Type) -> Operand:
        return a if a.type is to else self.convert("bitcast", a, to)

    def resize(self, a: Operand, to: Type, *, signed: bool = False) -> Operand:
        """Truncate, or extend by sign or zero, to `to`."""
        if a.type.width > to.width:
            return self.trunc(a, to)
        return self.sext(a, to) if signed else self.zext(a, to)

    def concat(self, lo: Operand, hi: Operand) -> Temp:
        """i128 from two i64 halves."""
        return self.or_(self.zext(lo, I128), self.shl(self.zext(hi, I128), 64))

    def setcond(self, cond: Cond, a: Value, b: Value) -> Temp:
        x, y = self._pair(a, b)
        return self._emit("setcond", I1, (x, y), cond=cond)

    def select(self, c: Operand, a: Value, b: Value) -> Temp:
        x, y = self._pair(a, b)
        assert c.type is I1 and x.type is y.type, (c, x, y)
        return self._emit("select", x.type, (c, x, y))

    # --- vectors
    def vop(self, name: str, a: Operand, b: Operand, lane: Lane) -> Temp:
        """Any two-input V128 op with a lane: vadd, vsub, vcmpeq, vziplo, ..."""
        return self._emit(name, V128, (a, b), lane=lane)

    def vabs(self, a: Operand, lane: Lane) -> Temp:
        return self._emit("vabs", V128, (a,), lane=lane)

    def vshift(self, name: str, a: Operand, count: Value, lane: Lane) -> Temp:
        """vshl, vshr, vsar by one i64 count."""
        return self._emit(name, V128, (a, self._i64(count)), lane=lane)

    def vshuf(self, a: Operand, b: Operand, mask: tuple[int, ...]) -> Temp:
        assert len(mask) == 16
        return self._emit("vshuf", V128, (a, b), mask=mask)

    def vtbl(self, a: Operand, indices: Operand) -> Temp:
        return self._emit("vtbl", V128, (a, indices))

    def vdup(self, a: Operand, lane: Lane) -> Temp:
        return self._emit("vdup", V128, (a,), lane=lane)

    def vext(self, a: Operand, lane: Lane, index: int) -> Temp:
        return self._emit("vext", INT_OF_SIZE[lane.width // 8], (a,), lane=lane, index=index)

    def vins(self, a: Operand, value: Operand, lane: Lane, index: int) -> Temp:
        return self._emit("vins", V128, (a, value), lane=lane, index=index)

    def vwiden(self, a: Operand, lane: Lane, to: Lane, *, signed: bool) -> Temp:
        return self._emit("vwidens" if signed else "vwidenu", V128, (a,), lane=lane, to=to)

    def vmovmsk(self, a: Operand, lane: Lane) -> Temp:
        return self._emit("vmovmsk", I32, (a,), lane=lane)

    # --- floating point
    def fop(self, name: str, a: Operand, b: Operand, lane: Lane | None = None, nan: str = "x86") -> Temp:
        """fadd, fsub, fmul, fdiv, fmin, fmax on scalars or (with a lane S or DF) V128."""
        return self._emit(name, a.type, (a, b), lane=lane, nan=nan)

    def fsqrt(self, a: Operand, lane: Lane | None = None, nan: str = "x86") -> Temp:
        return self._emit("fsqrt", a.type, (a,), lane=lane, nan=nan)

    def fround(self, a: Operand, round_: Rounding, *, exact: bool, lane: Lane | None = None) -> Temp:
        return self._emit("fround", a.type, (a,), lane=lane, round=round_, exact=exact)

    def fcmp(self, fcond: FCond, a: Operand, b: Operand, *, signal: bool) -> Temp:
        return self._emit("fcmp", I1, (a, b), fcond=fcond, signal=signal)

    def vfcmp(self, fcond: FCond, a: Operand, b: Operand, lane: Lane, *, signal: bool) -> Temp:
        return self._emit("vfcmp", V128, (a, b), lane=lane, fcond=fcond, signal=signal)

    def f2f(self, a: Operand, to: Type) -> Temp:
        assert to in (F32, F64, F80)
        return self.convert("f2f", a, to)

    def i2f(self, a: Operand, to: Type) -> Temp:
        return self.convert("i2f", a, to)

    def f2i(self, a: Operand, to: Type, round_: Rounding) -> Temp:
        return self.convert("f2i", a, to, round=round_)

    # --- guest state
    def ld(self, type_: Type, ref: EnvRef) -> Temp:
        return self._emit("ld", type_, (), ref=ref)

    def st(self, ref: EnvRef, value: Operand) -> None:
        self.block.append("st", (), (value,), ref=ref)

    def ldx(self, type_: Type, ref: EnvRef, offset: Operand, span: int) -> Temp:
        return self._emit("ldx", type_, (offset,), ref=ref, span=span)

    def stx(self, ref: EnvRef, offset: Operand, value: Operand, span: int) -> None:
        self.block.append("stx", (), (offset, value), ref=ref, span=span)

    # --- guest memory
    def qemu_ld(self, type_: Type, gva: Operand, memop: MemOp) -> Temp:
        """Load memop.size bytes; `type_` is that wide or wider (then extended)."""
        return self._emit("qemu_ld", type_, (gva,), memop=memop)

    def qemu_st(self, gva: Operand, value: Operand, memop: MemOp) -> None:
        self.block.append("qemu_st", (), (gva, value), memop=memop)

    def atomic(self, name: str, gva: Operand, value: Operand, memop: MemOp) -> Temp:
        """atomic_xchg, atomic_add, atomic_sub, atomic_and, atomic_or, atomic_xor: the old value."""
        return self._emit(name, value.type, (gva, value), memop=memop)

    def atomic_cmpxchg(self, gva: Operand, expected: Operand, new: Operand, memop: MemOp) -> Temp:
        return self._emit("atomic_cmpxchg", new.type, (gva, expected, new), memop=memop)

    def mb(self, barrier: Barrier) -> None:
        self.block.append("mb", (), (), barrier=barrier)

    # --- calls, control, exits
    def call(self, helper: HelperDecl, *args: Value) -> Temp:
        """Call a helper that returns a value."""
        assert helper.ret is not None
        return self._emit("call", helper.ret, self._call_args(helper, args), helper=helper)

    def call_void(self, helper: HelperDecl, *args: Value) -> None:
        assert helper.ret is None
        self.block.append("call", (), self._call_args(helper, args), helper=helper)

    def _call_args(self, helper: HelperDecl, args: tuple[Value, ...]) -> tuple[Operand, ...]:
        assert len(args) == len(helper.args), helper.name
        operands = tuple(self.const(t, a) if isinstance(a, int) else a for t, a in zip(helper.args, args, strict=True))
        assert all(o.type is t for o, t in zip(operands, helper.args, strict=True)), (helper, operands)
        return operands

    def new_label(self) -> Label:
        self.block.next_label += 1
        return Label(self.block.next_label - 1)

    def label(self, label: Label) -> None:
        self.block.append("label", (), (), label=label)

    def br(self, label: Label) -> None:
        self.block.append("br", (), (), label=label)

    def brcond(self, c: Operand, label: Label, *, likely: bool | None = None) -> None:
        self.block.append("brcond", (), (c,), label=label, likely=likely)

    def insn_start(self, pc: Value) -> None:
        self.block.append("insn_start", (), (self._i64(pc),))

    def goto_tb(self, slot: int, pc: Value) -> None:
        self.block.append("goto_tb", (), (self._i64(pc),), slot=slot)

    def goto_ptr(self, pc: Value) -> None:
        self.block.append("goto_ptr", (), (self._i64(pc),))

    def exit(self, reason: int, pc: Value) -> None:
        self.block.append("exit", (), (self._i64(pc),), reason=reason)

    def raise_(self, vector: int, error: Value = 0) -> None:
        self.block.append("raise", (), (self._i64(error),), vector=vector)
