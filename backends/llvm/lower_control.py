"""Calls, local branches, and the ways out of a block."""

from backends.llvm.emitter import LIKELY, LLVM_TYPE, TBAA_JC, UNLIKELY, Emitter, attr, lowers
from backends.llvm.inline import expand
from tcg.ir.block import HelperDecl, Label, Op
from tcg.ir.types import F32, F64, I64, I128, V128, Effect, Type
from tcg.runtime.layout import JC_BITS, JC_ENTRIES, JC_ENTRY, ExitReason

_WIDE = (V128, I128)


@lowers("insn_start")
def _insn_start(e: Emitter, op: Op) -> None:
    e.insn_pc = op.ins[0]


# --- calls ------------------------------------------------------------------------------------------------------------
# helper_<name>(env, ...): every integer travels as i64 (natives know no other), floats as themselves, 128-bit arguments
# in env.scratch[0], [1], ... in order, a 128-bit result in env.scratch[0].


def _c_type(type_: Type) -> str:
    return LLVM_TYPE[type_] if type_ in (F32, F64) else "i64"


def _memory(helper: HelperDecl) -> str:
    """What LLVM may assume of the helper (wide values pass through env, so nothing then)."""
    if any(t in _WIDE for t in helper.args) or helper.ret in _WIDE or helper.ret is None:
        return ""
    if helper.effects == Effect.NONE:
        return " memory(none) willreturn"
    if not helper.effects & ~(Effect.READS_ENV | Effect.READS_MEM):
        return " memory(read) willreturn"
    return ""


@lowers("call")
def _call(e: Emitter, op: Op) -> None:
    helper: HelperDecl = attr(op, "helper")
    if not helper.effects & ~Effect.FP and expand(e, helper, op):
        return
    args = ["ptr %env"]
    wide = 0
    for operand in op.ins:
        if operand.type in _WIDE:
            e.store_env("scratch", e.typed(operand), wide)
            wide += 1
        elif operand.type in (F32, F64, I64):
            args.append(e.typed(operand))
        else:
            args.append(f"i64 {e.new(f'zext {e.typed(operand)} to i64')}")
    if helper.effects & Effect.MAY_FAULT:
        e.store_pc()
    wide_result = helper.ret in _WIDE
    result = "void" if helper.ret is None or wide_result else _c_type(helper.ret)
    symbol = f"helper_{helper.name}"
    types = ", ".join(a.split(" ", 1)[0] for a in args)
    e.module.declare(symbol, f"declare {result} @{symbol}({types}) nounwind{_memory(helper)}")
    call = f"call {result} @{symbol}({', '.join(args)})"
    if result == "void":
        e.line(call)
        value = ""
    else:
        value = e.new(call)
    if helper.effects & Effect.MAY_FAULT:
        e.leave_if_exception()
    if helper.ret is None:
        return
    out = op.outs[0]
    if wide_result:
        e.alias(out, e.load_env("scratch", LLVM_TYPE[out.type]))
    elif out.type in (F32, F64, I64):
        e.alias(out, value)
    else:
        e.set(out, f"trunc i64 {value} to {LLVM_TYPE[out.type]}")


# --- local branches ---------------------------------------------------------------------------------------------------


def _name(label: Label) -> str:
    return f"L{label.id}"


@lowers("label")
def _label(e: Emitter, op: Op) -> None:
    e.gvas.clear()  # what was computed on one way here may not have been on another
    e.start(_name(attr(op, "label")))


@lowers("br")
def _br(e: Emitter, op: Op) -> None:
    e.jump(_name(attr(op, "label")))


@lowers("brcond")
def _brcond(e: Emitter, op: Op) -> None:
    weights = {True: LIKELY, False: UNLIKELY, None: ""}[op.attrs.get("likely")]
    on = e.new_label("on")
    e.branch(e.value(op.ins[0]), _name(attr(op, "label")), on, weights)
    e.start(on)


# --- exits ------------------------------------------------------------------------------------------------------------


@lowers("goto_tb")
def _goto_tb(e: Emitter, op: Op) -> None:
    """The pc is stored by the exit's stub, which runs only while the exit is not chained."""
    slot = attr(op, "slot")
    e.exits.add(slot)
    e.tail(f"@exit{slot}")


@lowers("goto_ptr")
def _goto_ptr(e: Emitter, op: Op) -> None:
    """Look the pc up in the jump cache: jump on a hit, else let the exec loop look it up."""
    pc = e.value(op.ins[0])
    index = e.new(f"xor i64 {e.new(f'lshr i64 {pc}, {JC_BITS}')}, {pc}")
    index = e.new(f"and i64 {index}, {JC_ENTRIES - 1}")
    index = e.new(f"mul i64 {index}, {JC_ENTRY.size}")
    entry = e.new(f"getelementptr i8, ptr {e.load_env('jc_table', 'ptr')}, i64 {index}")
    pc_at = e.new(f"getelementptr i8, ptr {entry}, i64 {JC_ENTRY.offset('pc')}")
    code_at = e.new(f"getelementptr i8, ptr {entry}, i64 {JC_ENTRY.offset('code')}")
    hit = e.new(f"icmp eq i64 {e.new(f'load i64, ptr {pc_at}, {TBAA_JC}')}, {pc}")
    found, missed = e.new_label("found"), e.new_label("missed")
    e.branch(hit, found, missed, LIKELY)
    e.start(found)
    e.tail(e.new(f"load ptr, ptr {code_at}, {TBAA_JC}"))
    e.start(missed)
    e.store_env("pc", f"i64 {pc}")
    e.store_env("exit_reason", f"i32 {int(ExitReason.LOOKUP)}")
    e.tail("@leave")


@lowers("exit")
def _exit(e: Emitter, op: Op) -> None:
    e.store_env("pc", e.typed(op.ins[0]))
    e.store_env("exit_reason", f"i32 {int(attr(op, 'reason'))}")
    e.tail("@leave")


@lowers("raise")
def _raise(e: Emitter, op: Op) -> None:
    e.store_pc()
    e.store_env("error_code", e.typed(op.ins[0]))
    e.store_env("exception_index", f"i32 {int(attr(op, 'vector'))}")
    e.store_env("exit_reason", f"i32 {int(ExitReason.EXCEPTION)}")
    e.store_env("exception", "i32 1")
    e.tail("@leave")
