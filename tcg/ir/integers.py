"""What the pure integer ops mean: op name -> function of (op, input values) on non-negative Python ints.

Used by `interp` to run them and by `tcg.opt` to fold constants: there is one definition of each op.
"""

from collections.abc import Callable

from tcg.ir.block import Op
from tcg.ir.types import Cond, Type

Meaning = Callable[..., int | tuple[int, ...]]


class UndefinedValue(Exception):
    """The op has no meaning for these inputs (a division that the frontend should have guarded)."""


def signed(value: int, width: int) -> int:
    """Two's complement reading of the low `width` bits of a non-negative value."""
    return value - (1 << width) if value >> (width - 1) & 1 else value


def _mulhs(op: Op, a: int, b: int) -> int:
    type_ = op.outs[0].type
    return (signed(a, type_.width) * signed(b, type_.width) >> type_.width) & type_.mask


def rotate_left(a: int, count: int, width: int) -> int:
    count %= width
    return (a << count | a >> (width - count)) & ((1 << width) - 1)


def _sar(op: Op, a: int, b: int) -> int:
    type_ = op.outs[0].type
    return (signed(a, type_.width) >> b % type_.width) & type_.mask


def _truncated(a: int, b: int) -> tuple[int, int]:
    """Quotient rounded towards zero and the remainder that has a's sign (Python's floors)."""
    quotient = abs(a) // abs(b)
    if (a < 0) != (b < 0):
        quotient = -quotient
    return quotient, a - quotient * b


def _unsigned_division(op: Op, a: int, b: int) -> tuple[int, int]:
    if b == 0:
        raise UndefinedValue(f"{op.name} by 0")
    return divmod(a, b)


def _signed_division(op: Op, a: int, b: int) -> tuple[int, int]:
    type_ = op.outs[0].type
    if b == 0 or (b == type_.mask and a == 1 << (type_.width - 1)):
        raise UndefinedValue(f"{op.name} of {a:#x} by {b:#x}")
    quotient, remainder = _truncated(signed(a, type_.width), signed(b, type_.width))
    return quotient & type_.mask, remainder & type_.mask


def _divu2(op: Op, hi: int, lo: int, d: int) -> tuple[int, int]:
    if hi >= d:
        raise UndefinedValue(f"divu2 quotient of {hi:#x}:{lo:#x} by {d:#x} is too large")
    return divmod(hi << 64 | lo, d)


def _divs2(op: Op, hi: int, lo: int, d: int) -> tuple[int, int]:
    if d == 0:
        raise UndefinedValue("divs2 by 0")
    quotient, remainder = _truncated(signed(hi << 64 | lo, 128), signed(d, 64))
    if not -(1 << 63) <= quotient < 1 << 63:
        raise UndefinedValue(f"divs2 quotient of {hi:#x}:{lo:#x} by {d:#x} is too large")
    return quotient & Type.I64.mask, remainder & Type.I64.mask


def _bswap(op: Op, a: int) -> int:
    return int.from_bytes(a.to_bytes(op.outs[0].type.size, "little"), "big")


CONDITIONS: dict[Cond, Callable[[int, int, int], bool]] = {
    Cond.EQ: lambda a, b, width: a == b,
    Cond.NE: lambda a, b, width: a != b,
    Cond.LT: lambda a, b, width: signed(a, width) < signed(b, width),
    Cond.GE: lambda a, b, width: signed(a, width) >= signed(b, width),
    Cond.LE: lambda a, b, width: signed(a, width) <= signed(b, width),
    Cond.GT: lambda a, b, width: signed(a, width) > signed(b, width),
    Cond.LTU: lambda a, b, width: a < b,
    Cond.GEU: lambda a, b, width: a >= b,
    Cond.LEU: lambda a, b, width: a <= b,
    Cond.GTU: lambda a, b, width: a > b,
}


def _setcond(op: Op, a: int, b: int) -> int:
    return int(CONDITIONS[op.attrs["cond"]](a, b, op.ins[0].type.width))


INTEGER_MEANINGS: dict[str, Meaning] = {
    "add": lambda op, a, b: (a + b) & op.outs[0].type.mask,
    "sub": lambda op, a, b: (a - b) & op.outs[0].type.mask,
    "mul": lambda op, a, b: (a * b) & op.outs[0].type.mask,
    "mulhu": lambda op, a, b: a * b >> op.outs[0].type.width,
    "mulhs": _mulhs,
    "and": lambda op, a, b: a & b,
    "or": lambda op, a, b: a | b,
    "xor": lambda op, a, b: a ^ b,
    "andc": lambda op, a, b: a & ~b,
    "not": lambda op, a: a ^ op.outs[0].type.mask,
    "neg": lambda op, a: -a & op.outs[0].type.mask,
    "shl": lambda op, a, b: a << b % op.outs[0].type.width & op.outs[0].type.mask,
    "shr": lambda op, a, b: a >> b % op.outs[0].type.width,
    "sar": _sar,
    "rotl": lambda op, a, b: rotate_left(a, b, op.outs[0].type.width),
    "rotr": lambda op, a, b: rotate_left(a, -b, op.outs[0].type.width),
    "divu": lambda op, a, b: _unsigned_division(op, a, b)[0],
    "remu": lambda op, a, b: _unsigned_division(op, a, b)[1],
    "divs": lambda op, a, b: _signed_division(op, a, b)[0],
    "rems": lambda op, a, b: _signed_division(op, a, b)[1],
    "divu2": _divu2,
    "divs2": _divs2,
    "clz": lambda op, a: op.outs[0].type.width - a.bit_length(),
    "ctz": lambda op, a: (a & -a).bit_length() - 1 if a else op.outs[0].type.width,
    "popcnt": lambda op, a: a.bit_count(),
    "bswap": _bswap,
    "zext": lambda op, a: a,
    "sext": lambda op, a: signed(a, op.ins[0].type.width) & op.outs[0].type.mask,
    "trunc": lambda op, a: a & op.outs[0].type.mask,
    "bitcast": lambda op, a: a,
    "setcond": _setcond,
    "select": lambda op, c, a, b: a if c else b,
}
