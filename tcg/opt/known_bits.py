"""Known bits: which bits of an integer temp are 0 or 1 in every execution, and what follows from it.

A pair (zeros, ones) of masks for each temp about which anything is known; a temp's definition runs before its uses, so
the facts hold wherever the temp may be used.
"""

from collections.abc import Callable

from tcg.ir.block import Const, Op, Operand, Temp
from tcg.ir.integers import signed
from tcg.ir.types import I1, Cond
from tcg.opt.match import Emitter

Bits = tuple[int, int]
NOTHING: Bits = (0, 0)


class KnownBits:
    """`note(op)` derives the facts about op's output; `of(operand)` tells them."""

    def __init__(self) -> None:
        self._bits: dict[Temp, Bits] = {}

    def of(self, operand: Operand) -> Bits:
        """(bits known to be 0, bits known to be 1)."""
        if type(operand) is Const:
            return operand.type.mask ^ operand.value, operand.value
        return self._bits.get(operand, NOTHING) if type(operand) is Temp else NOTHING

    def note(self, op: Op) -> int | None:
        """Derive what is known of the output; its value when that is every bit."""
        rule = _RULES.get(op.row.name)
        if rule is None:
            return None
        zeros, ones = rule(self, op)
        out = op.outs[0]
        mask = out.type.mask
        zeros, ones = zeros & mask, ones & mask
        if zeros or ones:
            self._bits[out] = (zeros, ones)
            if zeros | ones == mask:
                return ones
        return None


def _and(known: KnownBits, op: Op) -> Bits:
    (z1, o1), (z2, o2) = known.of(op.ins[0]), known.of(op.ins[1])
    return z1 | z2, o1 & o2


def _or(known: KnownBits, op: Op) -> Bits:
    (z1, o1), (z2, o2) = known.of(op.ins[0]), known.of(op.ins[1])
    return z1 & z2, o1 | o2


def _xor(known: KnownBits, op: Op) -> Bits:
    (z1, o1), (z2, o2) = known.of(op.ins[0]), known.of(op.ins[1])
    return z1 & z2 | o1 & o2, z1 & o2 | o1 & z2


def _andc(known: KnownBits, op: Op) -> Bits:
    (z1, o1), (z2, o2) = known.of(op.ins[0]), known.of(op.ins[1])
    return z1 | o2, o1 & z2


def _not(known: KnownBits, op: Op) -> Bits:
    zeros, ones = known.of(op.ins[0])
    return ones, zeros


def _add(known: KnownBits, op: Op) -> Bits:
    """The low bits up to the first unknown one of either side, and the zeros above both sides' highest possible bit."""
    (z1, o1), (z2, o2) = known.of(op.ins[0]), known.of(op.ins[1])
    mask = op.outs[0].type.mask
    both = (z1 | o1) & (z2 | o2)
    low = (both & ~(both + 1)) if both != mask else mask
    total = o1 + o2
    zeros, ones = low & ~total, low & total
    largest = (z1 ^ mask) + (z2 ^ mask)
    return zeros | (mask & ~((1 << largest.bit_length()) - 1)), ones


def _shift(known: KnownBits, op: Op) -> Bits:
    count = op.ins[1]
    if type(count) is not Const:
        return NOTHING
    type_ = op.outs[0].type
    by = count.value % type_.width
    zeros, ones = known.of(op.ins[0])
    if op.row.name == "shl":
        return zeros << by | ((1 << by) - 1), ones << by
    top = type_.mask ^ (type_.mask >> by)
    if op.row.name == "shr":
        return zeros >> by | top, ones >> by
    sign = 1 << (type_.width - 1)
    return (
        zeros >> by | (top if zeros & sign else 0),
        ones >> by | (top if ones & sign else 0),
    )


def _zext(known: KnownBits, op: Op) -> Bits:
    zeros, ones = known.of(op.ins[0])
    return zeros | (op.outs[0].type.mask ^ op.ins[0].type.mask), ones


def _sext(known: KnownBits, op: Op) -> Bits:
    zeros, ones = known.of(op.ins[0])
    sign = 1 << (op.ins[0].type.width - 1)
    high = op.outs[0].type.mask ^ op.ins[0].type.mask
    return zeros | (high if zeros & sign else 0), ones | (high if ones & sign else 0)


def _trunc(known: KnownBits, op: Op) -> Bits:
    return known.of(op.ins[0])


def _select(known: KnownBits, op: Op) -> Bits:
    (z1, o1), (z2, o2) = known.of(op.ins[1]), known.of(op.ins[2])
    return z1 & z2, o1 & o2


def _count(known: KnownBits, op: Op) -> Bits:
    """clz, ctz and popcnt give at most the width."""
    return op.outs[0].type.mask ^ ((1 << op.outs[0].type.width.bit_length()) - 1), 0


def _qemu_ld(known: KnownBits, op: Op) -> Bits:
    memop = op.attrs["memop"]
    return (0, 0) if memop.signed else (op.outs[0].type.mask ^ ((1 << 8 * memop.size) - 1), 0)


_RULES: dict[str, Callable[[KnownBits, Op], Bits]] = {
    "and": _and,
    "or": _or,
    "xor": _xor,
    "andc": _andc,
    "not": _not,
    "add": _add,
    "shl": _shift,
    "shr": _shift,
    "sar": _shift,
    "zext": _zext,
    "sext": _sext,
    "trunc": _trunc,
    "select": _select,
    "clz": _count,
    "ctz": _count,
    "popcnt": _count,
    "qemu_ld": _qemu_ld,
}


# --- what follows -----------------------------------------------------------------------------------------------------
def _same_and(walk: Emitter, known: KnownBits, op: Op) -> Operand | None:
    """x & y = x when every bit that may be 1 in x is 1 in y."""
    (z1, o1), (z2, o2) = known.of(op.ins[0]), known.of(op.ins[1])
    mask = op.outs[0].type.mask
    if z1 | o2 == mask:
        return op.ins[0]
    return op.ins[1] if z2 | o1 == mask else None


def _same_or(walk: Emitter, known: KnownBits, op: Op) -> Operand | None:
    """x | y = x when every bit that may be 1 in y is 1 in x."""
    (z1, o1), (z2, o2) = known.of(op.ins[0]), known.of(op.ins[1])
    mask = op.outs[0].type.mask
    if o1 | z2 == mask:
        return op.ins[0]
    return op.ins[1] if o2 | z1 == mask else None


def _signed_range(zeros: int, ones: int, width: int) -> tuple[int, int]:
    sign, mask = 1 << (width - 1), (1 << width) - 1
    low = ones | (0 if zeros & sign else sign)
    high = (mask ^ zeros) & ~(0 if ones & sign else sign)
    return signed(low, width), signed(high, width)


def _compare(walk: Emitter, known: KnownBits, op: Op) -> Operand | None:
    """Decided by the ranges of the sides; else x != 0 and x == 1 are bit 0 of an x that is 0 or 1."""
    decided = _decide(known, op)
    if decided is not None:
        return decided
    left, right = op.ins
    if type(right) is Const and (op.attrs["cond"], right.value) in ((Cond.NE, 0), (Cond.EQ, 1)):
        zeros, _ = known.of(left)
        if zeros == left.type.mask ^ 1:
            return walk.emit("trunc", I1, (left,))
    return None


def _decide(known: KnownBits, op: Op) -> Operand | None:
    """A comparison that the two sides' ranges, or a bit in which they must differ, decide."""
    (z1, o1), (z2, o2) = known.of(op.ins[0]), known.of(op.ins[1])
    if not (z1 | o1) or not (z2 | o2):
        return None
    type_ = op.ins[0].type
    cond: Cond = op.attrs["cond"]
    if cond in (Cond.EQ, Cond.NE):
        return Const(op.outs[0].type, int(cond is Cond.NE)) if o1 & z2 or z1 & o2 else None
    if cond in (Cond.LTU, Cond.GEU, Cond.LEU, Cond.GTU):
        low1, high1, low2, high2 = o1, type_.mask ^ z1, o2, type_.mask ^ z2
    else:
        low1, high1 = _signed_range(z1, o1, type_.width)
        low2, high2 = _signed_range(z2, o2, type_.width)
    if cond in (Cond.LT, Cond.LTU, Cond.GE, Cond.GEU):
        below = True if high1 < low2 else False if low1 >= high2 else None
        inverted = cond in (Cond.GE, Cond.GEU)
    else:
        below = True if high1 <= low2 else False if low1 > high2 else None
        inverted = cond in (Cond.GT, Cond.GTU)
    return None if below is None else Const(op.outs[0].type, int(below != inverted))


CONSEQUENCES: dict[str, Callable[[Emitter, KnownBits, Op], Operand | None]] = {
    "and": _same_and,
    "or": _same_or,
    "setcond": _compare,
}
"""op name -> the operand that its output equals, given the known bits of its inputs (made by at most one new op)."""
