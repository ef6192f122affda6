"""Exact IEEE 754-2019 arithmetic on Python ints for binary32, binary64 and x87's 80-bit double extended format.

Operands and results are encodings; `FpState` has the control in force and collects flags. x86's behaviour throughout
(SDM vol. 1, 4.8, 4.9, 8 and 11.5): DAZ and FTZ, exception precedence, NaN rules; `nan="arm"` selects Arm's NaN rules.
Tested against the host CPU bit by bit, flags included.
"""

from math import isqrt

from tcg.ir.floatformat import (
    FORMATS,
    Format,
    FpFlag,
    FpState,
    Kind,
    Number,
    encode_exact,
    round_at,
    round_pack,
    unpack,
)
from tcg.ir.types import FCond, Rounding

__all__ = [
    "FORMATS",
    "Format",
    "FpFlag",
    "FpState",
    "add",
    "compare",
    "div",
    "from_int",
    "maximum",
    "minimum",
    "mul",
    "round_int",
    "sqrt",
    "sub",
    "test",
    "to_format",
    "to_int",
]


# --- special operands -------------------------------------------------------------------------------------------------
def _invalid(fmt: Format, fp: FpState, nan: str) -> int:
    fp.flags |= FpFlag.INVALID
    return fmt.default_nan(nan)


def _propagate(fmt: Format, a: Number, b: Number, fp: FpState, nan: str) -> int:
    """The NaN that an operation on a and b, at least one of them a NaN, gives; a signalling one is invalid."""
    if Kind.SIGNALLING in (a.kind, b.kind):
        fp.flags |= FpFlag.INVALID
    if nan == "arm":
        chosen = next(x for kind in (Kind.SIGNALLING, Kind.QUIET) for x in (a, b) if x.kind is kind)
    elif not fmt.explicit or not (a.is_nan and b.is_nan):
        chosen = a if a.is_nan else b
    elif a.kind is not b.kind:
        chosen = a if a.kind is Kind.QUIET else b
    else:
        # SDM vol. 1 table 4-7: x87 takes the larger significand; of equal ones, the positive
        field = (1 << fmt.field) - 1
        x, y = a.bits & field, b.bits & field
        chosen = a if x > y or (x == y and not a.sign) else b
    return chosen.bits | fmt.quiet


def _specials(fmt: Format, a: Number, b: Number, fp: FpState, nan: str) -> int | None:
    """The result when an operand is unsupported or a NaN."""
    if Kind.UNSUPPORTED in (a.kind, b.kind):
        return _invalid(fmt, fp, nan)
    if a.is_nan or b.is_nan:
        return _propagate(fmt, a, b, fp, nan)
    return None


def _note_denormals(fp: FpState, *operands: Number) -> None:
    if any(x.denormal for x in operands):
        fp.flags |= FpFlag.DENORMAL


def _precision(fmt: Format, fp: FpState) -> int:
    return fp.precision if fmt.explicit else fmt.precision


# --- arithmetic -------------------------------------------------------------------------------------------------------
def add(fmt: Format, a: int, b: int, fp: FpState, nan: str = "x86", *, subtract: bool = False) -> int:
    x, y = unpack(fmt, a, daz=fp.daz), unpack(fmt, b, daz=fp.daz)
    special = _specials(fmt, x, y, fp, nan)
    if special is not None:
        return special
    y_sign = y.sign ^ subtract
    if x.kind is y.kind is Kind.INFINITE and x.sign != y_sign:
        return _invalid(fmt, fp, nan)
    _note_denormals(fp, x, y)
    if x.kind is Kind.INFINITE:
        return x.bits
    if y.kind is Kind.INFINITE:
        return fmt.infinity(y_sign)
    e = min(x.e, y.e) if x.m and y.m else x.e if x.m else y.e
    total = (x.m << (x.e - e) if x.m else 0) * (-1 if x.sign else 1)
    total += (y.m << (y.e - e) if y.m else 0) * (-1 if y_sign else 1)
    if total == 0:
        same = x.m == 0 and y.m == 0 and x.sign == y_sign
        return fmt.zero(x.sign if same else int(fp.rounding is Rounding.DOWN))
    return round_pack(fmt, int(total < 0), abs(total), e, fp, _precision(fmt, fp))


def sub(fmt: Format, a: int, b: int, fp: FpState, nan: str = "x86") -> int:
    return add(fmt, a, b, fp, nan, subtract=True)


def mul(fmt: Format, a: int, b: int, fp: FpState, nan: str = "x86") -> int:
    x, y = unpack(fmt, a, daz=fp.daz), unpack(fmt, b, daz=fp.daz)
    special = _specials(fmt, x, y, fp, nan)
    if special is not None:
        return special
    sign = x.sign ^ y.sign
    kinds = (x.kind, y.kind)
    if Kind.INFINITE in kinds and Kind.ZERO in kinds:
        return _invalid(fmt, fp, nan)
    _note_denormals(fp, x, y)
    if Kind.INFINITE in kinds:
        return fmt.infinity(sign)
    if Kind.ZERO in kinds:
        return fmt.zero(sign)
    return round_pack(fmt, sign, x.m * y.m, x.e + y.e, fp, _precision(fmt, fp))


def div(fmt: Format, a: int, b: int, fp: FpState, nan: str = "x86") -> int:
    x, y = unpack(fmt, a, daz=fp.daz), unpack(fmt, b, daz=fp.daz)
    special = _specials(fmt, x, y, fp, nan)
    if special is not None:
        return special
    sign = x.sign ^ y.sign
    if x.kind is y.kind and x.kind in (Kind.INFINITE, Kind.ZERO):
        return _invalid(fmt, fp, nan)
    if y.kind is Kind.ZERO and x.kind is Kind.FINITE:
        # a division by zero takes precedence over a denormal dividend (SDM vol. 1, 4.9.2; so do CPUs with both masked)
        fp.flags |= FpFlag.DIVZERO
        return fmt.infinity(sign)
    _note_denormals(fp, x, y)
    if x.kind is Kind.INFINITE:
        return fmt.infinity(sign)
    if y.kind is Kind.INFINITE or x.kind is Kind.ZERO:
        return fmt.zero(sign)
    # enough quotient bits for rounding whatever the operands' lengths, then one sticky bit
    shift = max(0, fmt.precision + 3 + y.m.bit_length() - x.m.bit_length())
    quotient, rest = divmod(x.m << shift, y.m)
    return round_pack(fmt, sign, quotient << 1 | (rest != 0), x.e - y.e - shift - 1, fp, _precision(fmt, fp))


def sqrt(fmt: Format, a: int, fp: FpState, nan: str = "x86") -> int:
    x = unpack(fmt, a, daz=fp.daz)
    special = _specials(fmt, x, x, fp, nan)
    if special is not None:
        return special
    if x.kind is Kind.ZERO:
        return x.bits
    if x.sign:
        return _invalid(fmt, fp, nan)
    _note_denormals(fp, x)
    if x.kind is Kind.INFINITE:
        return x.bits
    shift = 2 * (fmt.precision + 3)
    shift += (x.e - shift) & 1
    scaled = x.m << shift
    root = isqrt(scaled)
    return round_pack(fmt, 0, root << 1 | (root * root != scaled), (x.e - shift) // 2 - 1, fp, _precision(fmt, fp))


# --- comparison -------------------------------------------------------------------------------------------------------
def _side(n: Number) -> int:
    """-1, 0 or 1: which side of zero."""
    return 0 if n.kind is Kind.ZERO else -1 if n.sign else 1


def _order(x: Number, y: Number) -> int:
    """-1, 0 or 1 for numbers (no NaN): x below, equal to, above y."""
    a, b = _side(x), _side(y)
    if a != b or a == 0:
        return (a > b) - (a < b)
    if x.kind is Kind.INFINITE or y.kind is Kind.INFINITE:
        larger = (x.kind is Kind.INFINITE) - (y.kind is Kind.INFINITE)
    else:
        e = min(x.e, y.e)
        left, right = x.m << (x.e - e), y.m << (y.e - e)
        larger = (left > right) - (left < right)
    return larger * a


def compare(fmt: Format, a: int, b: int, fp: FpState, *, signal: bool) -> int | None:
    """-1, 0, 1, or None when unordered; a signalling NaN is invalid, a quiet one too when `signal`."""
    x, y = unpack(fmt, a, daz=fp.daz), unpack(fmt, b, daz=fp.daz)
    kinds = (x.kind, y.kind)
    if Kind.UNSUPPORTED in kinds or x.is_nan or y.is_nan:
        if signal or Kind.UNSUPPORTED in kinds or Kind.SIGNALLING in kinds:
            fp.flags |= FpFlag.INVALID
        return None
    _note_denormals(fp, x, y)
    return _order(x, y)


def test(fmt: Format, fcond: FCond, a: int, b: int, fp: FpState, *, signal: bool) -> bool:
    order = compare(fmt, a, b, fp, signal=signal)
    if order is None:
        return fcond is FCond.UN
    return {FCond.EQ: order == 0, FCond.LT: order < 0, FCond.LE: order <= 0, FCond.UN: False}[fcond]


def _pick(fmt: Format, a: int, b: int, fp: FpState, wanted: int) -> int:
    """x86 MIN/MAX (SDM vol. 2): the second operand if either is a NaN or both are zero; any NaN is invalid."""
    x, y = unpack(fmt, a, daz=fp.daz), unpack(fmt, b, daz=fp.daz)
    order = compare(fmt, a, b, fp, signal=True)
    return x.bits if order == wanted else y.bits


def minimum(fmt: Format, a: int, b: int, fp: FpState) -> int:
    return _pick(fmt, a, b, fp, -1)


def maximum(fmt: Format, a: int, b: int, fp: FpState) -> int:
    return _pick(fmt, a, b, fp, 1)


# --- conversions ------------------------------------------------------------------------------------------------------
def to_format(source: Format, to: Format, a: int, fp: FpState, nan: str = "x86") -> int:
    """Between formats. An 80-bit denormal operand raises no denormal exception (SDM vol. 2, FST)."""
    x = unpack(source, a, daz=fp.daz and not to.explicit)
    if x.kind is Kind.UNSUPPORTED:
        return _invalid(to, fp, nan)
    if x.is_nan:
        if x.kind is Kind.SIGNALLING:
            fp.flags |= FpFlag.INVALID
        shift = to.precision - source.precision
        fraction = x.bits & ((1 << (source.precision - 1)) - 1)
        fraction = fraction << shift if shift >= 0 else fraction >> -shift
        return to.encode(x.sign, (1 << to.exponent) - 1, fraction | 3 << (to.precision - 2))
    if x.kind is Kind.INFINITE:
        return to.infinity(x.sign)
    if x.kind is Kind.ZERO:
        return to.zero(x.sign)
    if not source.explicit:
        _note_denormals(fp, x)
    return _round_narrow(to, x, fp, extended=source.explicit)


def _round_narrow(to: Format, x: Number, fp: FpState, *, extended: bool) -> int:
    """Round into `to`; a store from x87 (`extended`) reports C1 and never flushes to zero."""
    if not extended:
        return round_pack(to, x.sign, x.m, x.e, fp)
    local = FpState(fp.rounding)
    result = round_pack(to, x.sign, x.m, x.e, local)
    fp.flags |= local.flags
    if local.flags & FpFlag.INEXACT:
        magnitude = unpack(to, result)
        if magnitude.kind is Kind.INFINITE or (
            magnitude.kind is Kind.FINITE and _order(_absolute(magnitude), _absolute(x)) > 0
        ):
            fp.flags |= FpFlag.ROUNDED_UP
    return result


def _absolute(x: Number) -> Number:
    return Number(x.kind, 0, x.bits, x.m, x.e, x.denormal)


def from_int(fmt: Format, value: int, fp: FpState) -> int:
    """From a signed Python int."""
    return round_pack(fmt, int(value < 0), abs(value), 0, fp) if value else fmt.zero(0)


def to_int(fmt: Format, a: int, width: int, fp: FpState, rounding: Rounding) -> int:
    """To a `width`-bit two's complement int; NaN or out of range: invalid alone and x86's integer indefinite."""
    x = unpack(fmt, a, daz=fp.daz)
    if x.kind is Kind.ZERO:
        return 0
    if x.kind is Kind.FINITE:
        q, inexact, up = round_at(x.m, x.e, 0, x.sign, rounding)
        value = -q if x.sign else q
        if -(1 << (width - 1)) <= value < 1 << (width - 1):
            _note_inexact(fmt, fp, inexact, up)
            return value & ((1 << width) - 1)
    fp.flags |= FpFlag.INVALID
    return 1 << (width - 1)


def _note_inexact(fmt: Format, fp: FpState, inexact: bool, up: bool) -> None:
    if inexact:
        fp.flags |= FpFlag.INEXACT
        if up and fmt.explicit:
            fp.flags |= FpFlag.ROUNDED_UP


def round_int(fmt: Format, a: int, fp: FpState, rounding: Rounding, *, exact: bool, nan: str = "x86") -> int:
    """To an integral value of the same format, a zero keeping its sign; inexact is raised only when `exact`.

    Only the 80-bit one (FRNDINT) reports a denormal operand.
    """
    x = unpack(fmt, a, daz=fp.daz)
    special = _specials(fmt, x, x, fp, nan)
    if special is not None:
        return special
    if x.kind is not Kind.FINITE:
        return x.bits
    if fmt.explicit:
        _note_denormals(fp, x)
    q, inexact, up = round_at(x.m, x.e, 0, x.sign, rounding)
    if exact:
        _note_inexact(fmt, fp, inexact, up)
    return encode_exact(fmt, x.sign, q, 0) if inexact else a
