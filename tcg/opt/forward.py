"""The forward walk: constants, copies, rules, known bits and guest-state forwarding, in one pass over the block.

Each op's inputs are replaced by what they are known to equal; a pure op is folded, simplified or kept; a load of guest
state that is known becomes a copy. Values are SSA, so facts about temps hold across labels and loops; facts about guest
state are forgotten at labels.
"""

from collections.abc import Callable

from tcg.ir.block import Block, Const, EnvRef, HelperDecl, Op, Operand, Temp
from tcg.ir.interp import PURE_MEANINGS, evaluate
from tcg.ir.ops import OPS
from tcg.ir.types import INT_OF_SIZE, Cond, Effect, Lane, Type
from tcg.opt.casts import CASTS
from tcg.opt.env import Contents, Place, place_of, place_of_indexed
from tcg.opt.known_bits import CONSEQUENCES, KnownBits
from tcg.opt.match import REWRITES

_SWAPPED = {
    Cond.EQ: Cond.EQ,
    Cond.NE: Cond.NE,
    Cond.LT: Cond.GT,
    Cond.GT: Cond.LT,
    Cond.LE: Cond.GE,
    Cond.GE: Cond.LE,
    Cond.LTU: Cond.GTU,
    Cond.GTU: Cond.LTU,
    Cond.LEU: Cond.GEU,
    Cond.GEU: Cond.LEU,
}
_RECASTS = {frozenset(pair) for pair in ((Type.I32, Type.F32), (Type.I64, Type.F64), (Type.I128, Type.V128))}

_LANES = {4: Lane.W, 8: Lane.D}


class Forward:
    """One walk. `ops` is the new list; the input block is left as it is."""

    def __init__(self, block: Block) -> None:
        self.block = Block([], block.next_temp, block.next_label)
        self.ops = self.block.ops
        self.equals: dict[Temp, Operand] = {}
        self.definitions: dict[Temp, Op] = {}
        self.known = KnownBits()
        self.contents = Contents()
        for op in block.ops:
            self.visit(op)

    # --- operands and pure ops
    def visit(self, op: Op) -> None:
        equals = self.equals
        if equals:
            ins = tuple(equals.get(x, x) if type(x) is Temp else x for x in op.ins)
            if ins != op.ins:
                op = Op(op.row, op.outs, ins, op.attrs)
        name = op.row.name
        if name in PURE_MEANINGS:
            self.pure(op)
        else:
            handler = _HANDLERS.get(name)
            if handler is None:
                self.ops.append(op)
            else:
                handler(self, op)

    def pure(self, op: Op) -> None:
        if len(op.outs) == 1:
            operand = self.simplified(op)
            if operand is not None:
                self.equals[op.outs[0]] = operand
            return
        values = _constants(op)
        results = None if values is None else evaluate(op, values)
        if results is None:
            self.ops.append(op)
            return
        for temp, value in zip(op.outs, results, strict=True):
            self.equals[temp] = Const(temp.type, value)

    def emit(self, name: str, type_: Type, ins: tuple[Operand, ...], cond: Cond | None = None) -> Operand:
        """A new pure op of one output, simplified; gives the operand to use for it."""
        out = self.block.new_temp(type_)
        operand = self.simplified(Op(OPS[name], (out,), ins, {} if cond is None else {"cond": cond}))
        return out if operand is None else operand

    def simplified(self, op: Op) -> Operand | None:
        """The operand that op's output equals, or None after appending op (perhaps with its inputs in better order)."""
        values = _constants(op)
        if values is not None:
            results = evaluate(op, values)
            if results is not None:
                return Const(op.outs[0].type, results[0])
        name = op.row.name
        op = _ordered(op)
        cast = CASTS.get(name)
        operand = None if cast is None else cast(self, op, self.definitions)
        if operand is not None:
            return operand
        for rewrite in REWRITES.get(name, ()):
            operand = rewrite(self, op, self.definitions)
            if operand is not None:
                return operand
        consequence = CONSEQUENCES.get(name)
        operand = None if consequence is None else consequence(self, self.known, op)
        if operand is not None:
            return operand
        value = self.known.note(op)
        if value is not None:
            return Const(op.outs[0].type, value)
        self.definitions[op.outs[0]] = op
        self.ops.append(op)
        return None

    # --- guest state
    def ld(self, op: Op) -> None:
        out = op.outs[0]
        place = place_of(op.attrs["ref"], out.type.size)
        value = self.contents.exact(place)
        if value is None:
            wider = self.contents.around(place, out.type)
            if wider is not None:
                value = self.emit("trunc", out.type, (wider,))
                self.equals[out] = value
                return
            value = self.lane(place, out.type)
            if value is not None:
                self.equals[out] = value
                return
        elif value.type is out.type:
            self.equals[out] = value
            return
        elif frozenset((value.type, out.type)) in _RECASTS:
            self.equals[out] = self.emit("bitcast", out.type, (value,))
            return
        self.contents.record(place, out)
        self.ops.append(op)

    def lane(self, place: Place, type_: Type) -> Operand | None:
        """The value of a place inside a known vector: what was last inserted there, or an extraction."""
        lane = _LANES.get(type_.size)
        if lane is None:
            return None
        found = self.contents.vector_around(place)
        if found is None or found[1] % type_.size:
            return None
        vector, index = found[0], found[1] // type_.size
        value: Operand | None = None
        while value is None:
            made = self.definitions.get(vector) if type(vector) is Temp else None
            if made is None or made.row.name != "vins" or made.attrs["lane"] is not lane:
                out = self.block.new_temp(INT_OF_SIZE[type_.size])
                extract = Op(OPS["vext"], (out,), (vector,), {"lane": lane, "index": index})
                value = self.simplified(extract) or out
            elif made.attrs["index"] == index:
                value = made.ins[1]
            else:
                vector = made.ins[0]
        return value if value.type is type_ else self.emit("bitcast", type_, (value,))

    def st(self, op: Op) -> None:
        value = op.ins[0]
        place = place_of(op.attrs["ref"], value.type.size)
        held = self.contents.exact(place)
        if held is not None and held == value:
            return
        self.contents.forget_overlapping(place)
        self.contents.record(place, value)
        self.ops.append(op)

    def ldx(self, op: Op) -> None:
        direct = _direct(op, op.ins[0], op.outs[0].type.size)
        if direct is not None:
            self.ld(Op(OPS["ld"], op.outs, (), {"ref": direct}))
        else:
            self.ops.append(op)

    def stx(self, op: Op) -> None:
        direct = _direct(op, op.ins[0], op.ins[1].type.size)
        if direct is not None:
            self.st(Op(OPS["st"], (), op.ins[1:], {"ref": direct}))
        else:
            self.contents.forget_overlapping(place_of_indexed(op.attrs["ref"], op.attrs["span"]))
            self.ops.append(op)

    # --- the rest
    def qemu_ld(self, op: Op) -> None:
        self.known.note(op)
        self.ops.append(op)

    def call(self, op: Op) -> None:
        helper: HelperDecl = op.attrs["helper"]
        if helper.effects & Effect.WRITES_ENV:
            self.contents.forget()
        self.ops.append(op)

    def label(self, op: Op) -> None:
        self.contents.forget()
        self.ops.append(op)

    def brcond(self, op: Op) -> None:
        """A constant condition makes it a branch or nothing; a complement is left for the backend."""
        condition = op.ins[0]
        if type(condition) is not Const:
            self.ops.append(op)
        elif condition.value:
            self.ops.append(Op(OPS["br"], (), (), {"label": op.attrs["label"]}))


_HANDLERS: dict[str, Callable[[Forward, Op], None]] = {
    "ld": Forward.ld,
    "st": Forward.st,
    "ldx": Forward.ldx,
    "stx": Forward.stx,
    "qemu_ld": Forward.qemu_ld,
    "call": Forward.call,
    "label": Forward.label,
    "brcond": Forward.brcond,
}


def _constants(op: Op) -> tuple[int, ...] | None:
    values = []
    for operand in op.ins:
        if type(operand) is not Const:
            return None
        values.append(operand.value)
    return tuple(values)


def _ordered(op: Op) -> Op:
    """Constants second where the op commutes or the comparison can be turned round."""
    ins = op.ins
    if len(ins) != 2 or type(ins[0]) is not Const or type(ins[1]) is Const:
        return op
    if op.row.commutes:
        return Op(op.row, op.outs, (ins[1], ins[0]), op.attrs)
    if op.row.name == "setcond":
        return Op(op.row, op.outs, (ins[1], ins[0]), {"cond": _SWAPPED[op.attrs["cond"]]})
    return op


def _direct(op: Op, delta: Operand, size: int) -> EnvRef | None:
    """An indexed access at a constant offset inside its span, as a direct place."""
    ref: EnvRef = op.attrs["ref"]
    if type(delta) is Const and ref.hole is None and delta.value <= op.attrs["span"] - size:
        return ref + delta.value
    return None
