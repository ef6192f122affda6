"""Rules between types: chains of extensions, truncations and bit casts, and comparisons of extended values.

Like `rules`, but the right side depends on the types at hand. Every function gives the operand that op's output equals
(made by at most one new op through the walk) or None; tests/unit/tcg/opt/test_casts.py proves them over 8-bit values.
"""

from collections.abc import Callable

from tcg.ir.block import Const, Op, Operand, Temp
from tcg.ir.types import I1, Cond
from tcg.opt.match import Definitions, Emitter


def _definition(operand: Operand, definitions: Definitions) -> Op | None:
    return definitions.get(operand) if type(operand) is Temp else None


def _zext(walk: Emitter, op: Op, definitions: Definitions) -> Operand | None:
    """zext(zext x) = zext x; zext(trunc x) = x & mask when the types are equal."""
    inner = _definition(op.ins[0], definitions)
    to = op.outs[0].type
    if inner is None:
        return None
    if inner.name == "zext":
        return walk.emit("zext", to, inner.ins)
    if inner.name == "trunc" and inner.ins[0].type is to:
        return walk.emit("and", to, (inner.ins[0], Const(to, op.ins[0].type.mask)))
    return None


def _sext(walk: Emitter, op: Op, definitions: Definitions) -> Operand | None:
    """sext(sext x) = sext x; sext(zext x) = zext x, whose top bit is 0."""
    inner = _definition(op.ins[0], definitions)
    if inner is not None and inner.name in ("sext", "zext"):
        return walk.emit(inner.name, op.outs[0].type, inner.ins)
    return None


def _trunc(walk: Emitter, op: Op, definitions: Definitions) -> Operand | None:
    """trunc(trunc x) = trunc x; of an extension: x, a shorter extension or a truncation; of x & c with all low bits."""
    inner = _definition(op.ins[0], definitions)
    to = op.outs[0].type
    if inner is None:
        return None
    if inner.name == "trunc":
        return walk.emit("trunc", to, inner.ins)
    if inner.name in ("zext", "sext"):
        source = inner.ins[0]
        if source.type is to:
            return source
        return walk.emit("trunc" if source.type.width > to.width else inner.name, to, inner.ins)
    if inner.name == "and" and type(inner.ins[1]) is Const and inner.ins[1].value & to.mask == to.mask:
        return walk.emit("trunc", to, inner.ins[:1])
    return None


def _bitcast(walk: Emitter, op: Op, definitions: Definitions) -> Operand | None:
    """To the type that it has, or back to where it came from."""
    source = op.ins[0]
    if source.type is op.outs[0].type:
        return source
    inner = _definition(source, definitions)
    if inner is not None and inner.name == "bitcast" and inner.ins[0].type is op.outs[0].type:
        return inner.ins[0]
    return None


_UNSIGNED = (Cond.EQ, Cond.NE, Cond.LTU, Cond.GEU, Cond.LEU, Cond.GTU)


def _setcond(walk: Emitter, op: Op, definitions: Definitions) -> Operand | None:
    """zext x COND c = x COND c in x's type when c fits and COND is unsigned; on an i1, x itself or its complement."""
    right, cond = op.ins[1], op.attrs["cond"]
    if type(right) is not Const or cond not in _UNSIGNED:
        return None
    inner = _definition(op.ins[0], definitions)
    if inner is None or inner.name != "zext":
        return None
    source = inner.ins[0]
    if source.type is I1:
        if right.value > 1 or cond not in (Cond.EQ, Cond.NE):
            return None
        return source if (cond is Cond.EQ) == (right.value == 1) else walk.emit("not", I1, (source,))
    if right.value > source.type.mask:
        return None
    return walk.emit("setcond", I1, (source, Const(source.type, right.value)), cond)


def _select(walk: Emitter, op: Op, definitions: Definitions) -> Operand | None:
    """c ? 1 : 0 = zext c, c ? 0 : 1 = ~c on i1."""
    condition, a, b = op.ins
    if type(a) is not Const or type(b) is not Const or a.type.kind != "int":
        return None
    if a.type is I1:
        return (condition if a.value else walk.emit("not", I1, (condition,))) if a.value != b.value else None
    if b.value == 0 and a.value == 1:
        return walk.emit("zext", a.type, (condition,))
    if b.value == 0 and a.value == a.type.mask:
        return walk.emit("sext", a.type, (condition,))
    return None


CASTS: dict[str, Callable[[Emitter, Op, Definitions], Operand | None]] = {
    "zext": _zext,
    "sext": _sext,
    "trunc": _trunc,
    "bitcast": _bitcast,
    "setcond": _setcond,
    "select": _select,
}
