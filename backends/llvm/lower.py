"""Lowering of IR ops to LLVM text: `LOWER`, by op name, from one module a family.

This module holds integers and guest state; `lower_memory`, `lower_vector`, `lower_float`, `lower_control` the rest.
"""

import backends.llvm.lower_control
import backends.llvm.lower_float
import backends.llvm.lower_memory
import backends.llvm.lower_vector  # noqa: F401
from backends.llvm.emitter import LLVM_TYPE, LOWER, TBAA_ENV, Emitter, attr, emit_block, lowers
from tcg.ir.block import Const, Op
from tcg.ir.types import F32, F64, F80, V128, Cond, Type
from tcg.runtime.layout import ENV

__all__ = ["LOWER", "emit_block"]

_EXIT_REQUEST = ENV.offset("exit_request")
_BINARY = {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor"}
_BINARY |= {"divu": "udiv", "remu": "urem", "divs": "sdiv", "rems": "srem"}


@lowers(*_BINARY)
def _binary(e: Emitter, op: Op) -> None:
    a, b = op.ins
    e.set(op.outs[0], f"{_BINARY[op.name]} {e.typed(a)}, {e.value(b)}")


def _all_ones(kind: Type) -> str:
    return "<i64 -1, i64 -1>" if kind is V128 else "-1"


@lowers("andc")
def _andc(e: Emitter, op: Op) -> None:
    a, b = op.ins
    inverse = e.new(f"xor {e.typed(b)}, {_all_ones(b.type)}")
    e.set(op.outs[0], f"and {e.typed(a)}, {inverse}")


@lowers("not")
def _not(e: Emitter, op: Op) -> None:
    e.set(op.outs[0], f"xor {e.typed(op.ins[0])}, {_all_ones(op.ins[0].type)}")


@lowers("neg")
def _neg(e: Emitter, op: Op) -> None:
    e.set(op.outs[0], f"sub {LLVM_TYPE[op.ins[0].type]} 0, {e.value(op.ins[0])}")


@lowers("mulhu", "mulhs")
def _mulh(e: Emitter, op: Op) -> None:
    a, b = op.ins
    width = a.type.width
    extend = "zext" if op.name == "mulhu" else "sext"
    x = e.new(f"{extend} {e.typed(a)} to i{2 * width}")
    y = e.new(f"{extend} {e.typed(b)} to i{2 * width}")
    product = e.new(f"mul i{2 * width} {x}, {y}")
    high = e.new(f"lshr i{2 * width} {product}, {width}")
    e.set(op.outs[0], f"trunc i{2 * width} {high} to i{width}")


@lowers("shl", "shr", "sar")
def _shift(e: Emitter, op: Op) -> None:
    a, b = op.ins
    count = e.new(f"and {e.typed(b)}, {b.type.width - 1}")
    name = {"shl": "shl", "shr": "lshr", "sar": "ashr"}[op.name]
    e.set(op.outs[0], f"{name} {e.typed(a)}, {count}")


@lowers("rotl", "rotr")
def _rotate(e: Emitter, op: Op) -> None:
    a, b = op.ins
    kind = LLVM_TYPE[a.type]
    name = f"llvm.{'fshl' if op.name == 'rotl' else 'fshr'}.{kind}"
    function = e.module.intrinsic(name, kind, kind, kind, kind)
    x = e.typed(a)
    e.set(op.outs[0], f"call {kind} {function}({x}, {x}, {e.typed(b)})")


@lowers("divu2", "divs2")
def _div2(e: Emitter, op: Op) -> None:
    """128 by 64 bits: LLVM would call a library; the host has an instruction."""
    high, low, divisor = (e.typed(v) for v in op.ins)
    name = "divq" if op.name == "divu2" else "idivq"
    pair = e.new(
        f'call {{ i64, i64 }} asm sideeffect "{name} $4", "={{ax}},={{dx}},0,1,rm,~{{flags}}"({low}, {high}, {divisor})'
    )
    e.set(op.outs[0], f"extractvalue {{ i64, i64 }} {pair}, 0")
    e.set(op.outs[1], f"extractvalue {{ i64, i64 }} {pair}, 1")


@lowers("clz", "ctz")
def _count_zeros(e: Emitter, op: Op) -> None:
    kind = LLVM_TYPE[op.ins[0].type]
    name = f"llvm.{'ctlz' if op.name == 'clz' else 'cttz'}.{kind}"
    function = e.module.intrinsic(name, kind, kind, "i1")
    e.set(op.outs[0], f"call {kind} {function}({e.typed(op.ins[0])}, i1 false)")


@lowers("popcnt", "bswap")
def _unary_intrinsic(e: Emitter, op: Op) -> None:
    kind = LLVM_TYPE[op.ins[0].type]
    name = f"llvm.{'ctpop' if op.name == 'popcnt' else 'bswap'}.{kind}"
    e.set(op.outs[0], f"call {kind} {e.module.intrinsic(name, kind, kind)}({e.typed(op.ins[0])})")


@lowers("zext", "sext", "trunc", "bitcast")
def _convert(e: Emitter, op: Op) -> None:
    if op.name == "bitcast" and op.ins[0].type in (F32, F64):
        e.float_bits[op.outs[0]] = op.ins[0]
    e.set(op.outs[0], f"{op.name} {e.typed(op.ins[0])} to {LLVM_TYPE[op.outs[0].type]}")


_PREDICATES = {Cond.EQ: "eq", Cond.NE: "ne", Cond.LT: "slt", Cond.GE: "sge", Cond.LE: "sle", Cond.GT: "sgt"}
_PREDICATES |= {Cond.LTU: "ult", Cond.GEU: "uge", Cond.LEU: "ule", Cond.GTU: "ugt"}


@lowers("setcond")
def _setcond(e: Emitter, op: Op) -> None:
    a, b = op.ins
    e.set(op.outs[0], f"icmp {_PREDICATES[attr(op, 'cond')]} {e.typed(a)}, {e.value(b)}")


@lowers("select")
def _select(e: Emitter, op: Op) -> None:
    c, a, b = op.ins
    # LLVM would index a table of two constants by the condition, at an address that no relocation of ours can say: so
    # one of them goes through an empty piece of assembly.
    of_constants = isinstance(a, Const) and isinstance(b, Const)
    if a.type is F80 and of_constants:
        x = e.new(f'call x86_fp80 asm "", "={{st}},0"({e.typed(a)})')
        e.set(op.outs[0], f"select {e.typed(c)}, x86_fp80 {x}, {e.typed(b)}")
        return
    if a.type in (F32, F64):  # as integers, or it might become a min or max
        bits = "i32" if a.type is F32 else "i64"
        x, y = (e.new(f"bitcast {e.typed(v)} to {bits}") for v in (a, b))
        if of_constants:
            x = e.new(f'call {bits} asm "", "=r,0"({bits} {x})')
        picked = e.new(f"select {e.typed(c)}, {bits} {x}, {bits} {y}")
        e.set(op.outs[0], f"bitcast {bits} {picked} to {LLVM_TYPE[a.type]}")
        return
    e.set(op.outs[0], f"select {e.typed(c)}, {e.typed(a)}, {e.typed(b)}")


@lowers("ld")
def _ld(e: Emitter, op: Op) -> None:
    # Other threads write the word that block heads and loops test: a loop must read it each time.
    ref = attr(op, "ref")
    volatile = "volatile " if ref.hole is None and ref.offset == _EXIT_REQUEST else ""
    e.set(op.outs[0], f"load {volatile}{LLVM_TYPE[op.outs[0].type]}, ptr {e.env_ref(ref)}, align 1, {TBAA_ENV}")


@lowers("st")
def _st(e: Emitter, op: Op) -> None:
    e.line(f"store {e.typed(op.ins[0])}, ptr {e.env_ref(attr(op, 'ref'))}, align 1, {TBAA_ENV}")


@lowers("ldx")
def _ldx(e: Emitter, op: Op) -> None:
    at = e.new(f"getelementptr i8, ptr {e.env_ref(attr(op, 'ref'))}, {e.typed(op.ins[0])}")
    e.set(op.outs[0], f"load {LLVM_TYPE[op.outs[0].type]}, ptr {at}, align 1, {TBAA_ENV}")


@lowers("stx")
def _stx(e: Emitter, op: Op) -> None:
    at = e.new(f"getelementptr i8, ptr {e.env_ref(attr(op, 'ref'))}, {e.typed(op.ins[0])}")
    e.line(f"store {e.typed(op.ins[1])}, ptr {at}, align 1, {TBAA_ENV}")
